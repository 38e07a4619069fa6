//! Why a connection is closed.

use http1::Reject;
use std::fmt;
use std::io;

/// Why a connection was closed: one name each, logged once at debug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The response said `Connection: close` and is out.
    Finished,
    /// The peer closed between requests.
    PeerClosed,
    /// The peer closed inside a request.
    PeerClosedInRequest,
    /// The peer reset the connection, or it broke.
    Reset,
    /// No request came in time.
    IdleTimeout,
    /// The client took too little of a response in time.
    WriteTimeout,
    /// The request was refused.
    Refused(Reject),
    /// The body ended before its length.
    Truncated,
    /// It went for a new one: the longest idle, or a request that was late.
    Evicted,
    /// There was no memory left for what it waited with.
    Memory,
    /// The server stops and the connection was idle.
    Stopping,
    /// The stop deadline cut it.
    Cut,
    /// The server's own fault, which is logged as an error.
    Internal,
}

impl CloseReason {
    /// The same, where the peer was in the middle of a request.
    pub(super) fn in_request(self) -> CloseReason {
        match self {
            CloseReason::PeerClosed => CloseReason::PeerClosedInRequest,
            other => other,
        }
    }

    /// Its name where reasons are counted.
    pub(super) fn label(self) -> String {
        match self {
            CloseReason::Refused(_) => "refused".to_owned(),
            other => label(&format!("{other:?}")),
        }
    }

    pub fn from_error(error: &io::Error) -> CloseReason {
        match error.kind() {
            io::ErrorKind::TimedOut => CloseReason::WriteTimeout,
            io::ErrorKind::UnexpectedEof => CloseReason::Truncated,
            _ => CloseReason::Reset,
        }
    }
}

/// The name of a variant as a label has it.
pub(super) fn label(variant: &str) -> String {
    let mut label = String::with_capacity(variant.len() + 4);
    for character in variant.chars() {
        if character.is_ascii_uppercase() && !label.is_empty() {
            label.push('_');
        }
        label.push(character.to_ascii_lowercase());
    }
    label
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseReason::Finished => "finished",
            CloseReason::PeerClosed => "closed by the client",
            CloseReason::PeerClosedInRequest => "closed by the client in the middle of a request",
            CloseReason::Reset => "reset by the client",
            CloseReason::IdleTimeout => "idle timeout",
            CloseReason::WriteTimeout => "write timeout",
            CloseReason::Refused(reject) => return write!(f, "refused: {reject}"),
            CloseReason::Truncated => "the body ended before its length",
            CloseReason::Evicted => "made place for another",
            CloseReason::Memory => "no memory left for a response that waits",
            CloseReason::Stopping => "the server stops",
            CloseReason::Cut => "cut at the stop deadline",
            CloseReason::Internal => "internal error",
        })
    }
}
