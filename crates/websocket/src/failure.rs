//! Why a connection is failed.

use crate::CloseCode;
use std::fmt;

/// What a client may not send. Each reason has a status and a name; the name is what the log and the client see.
///
/// To fail a connection is to send a close frame with the status and to read nothing more (RFC 6455 §7.1.7).
///
/// ```
/// use websocket::{CloseCode, Decoder, Failure, Limits};
///
/// let failure = Decoder::new(Limits { max_message: 100, deflate: false }).decode(b"\x81\x05Hello").unwrap_err();
/// assert_eq!((failure, failure.code()), (Failure::Unmasked, CloseCode::PROTOCOL_ERROR));
/// assert_eq!(failure.to_string(), "frame without a mask");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A reserved bit that nothing was negotiated for (RFC 6455 §5.2, RFC 7692 §6).
    ReservedBits,
    /// An opcode that means nothing yet (RFC 6455 §5.2).
    ReservedOpcode,
    /// A client has to mask its frames (RFC 6455 §5.1).
    Unmasked,
    /// A control frame in pieces (RFC 6455 §5.5).
    FragmentedControl,
    /// A control frame with more than 125 bytes (RFC 6455 §5.5).
    ControlTooLong,
    /// A length written in more bytes than it needs (RFC 6455 §5.2).
    LengthNotMinimal,
    /// The highest bit of a length of eight bytes (RFC 6455 §5.2).
    LengthTopBit,
    /// A continuation, and no message was begun (RFC 6455 §5.4).
    NothingToContinue,
    /// A new message before the last fragment of another (RFC 6455 §5.4).
    MessageInMessage,
    /// A close frame of one byte: half a status (RFC 6455 §5.5.1).
    CloseLength,
    /// A status that is not to be sent (RFC 6455 §7.4).
    CloseCode,
    /// A reason for the close that is not UTF-8 (RFC 6455 §5.5.1 and §8.1).
    CloseReason,
    /// A text that is not UTF-8 (RFC 6455 §8.1).
    BadUtf8,
    /// A message longer than the limit, as it comes or decompressed (RFC 6455 §7.4.1).
    TooLarge,
    /// A compressed message that is no DEFLATE, or ends within a block (RFC 7692 §7.2.2).
    BadDeflate,
}

impl Failure {
    /// The status that the close frame says.
    pub fn code(self) -> CloseCode {
        use Failure::*;
        match self {
            ReservedBits | ReservedOpcode | Unmasked | FragmentedControl | ControlTooLong | LengthNotMinimal
            | LengthTopBit | NothingToContinue | MessageInMessage | CloseLength | CloseCode => {
                crate::CloseCode::PROTOCOL_ERROR
            }
            // RFC 7692 names no status for data that does not inflate. `ws` says this one too: the payload is not of the
            // kind that it says it is.
            CloseReason | BadUtf8 | BadDeflate => crate::CloseCode::INVALID_PAYLOAD,
            TooLarge => crate::CloseCode::TOO_LARGE,
        }
    }

    /// The name, as logged and as the reason in the close frame.
    pub fn name(self) -> &'static str {
        use Failure::*;
        match self {
            ReservedBits => "reserved bit set",
            ReservedOpcode => "reserved opcode",
            Unmasked => "frame without a mask",
            FragmentedControl => "fragmented control frame",
            ControlTooLong => "control frame above 125 bytes",
            LengthNotMinimal => "length not in its shortest form",
            LengthTopBit => "highest bit of a length set",
            NothingToContinue => "continuation of no message",
            MessageInMessage => "message within a message",
            CloseLength => "close frame of one byte",
            CloseCode => "close status that is not to be sent",
            CloseReason => "close reason is not UTF-8",
            BadUtf8 => "text is not UTF-8",
            TooLarge => "message too large",
            BadDeflate => "malformed compressed message",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Failure {}
