//! Frames as a server sends them (RFC 6455 §5.2): without a mask, each message in one.

use std::fmt;
use std::ops::Deref;

/// The longest payload of a control frame (RFC 6455 §5.5).
pub const CONTROL_LIMIT: usize = 125;

/// What a server sends.
///
/// ```
/// use websocket::{CloseCode, Frame};
///
/// let mut out = Vec::new();
/// Frame::Text("hi").push_to(&mut out);
/// Frame::Close(Some((CloseCode::GOING_AWAY, "bye"))).push_to(&mut out);
/// assert_eq!(out, b"\x81\x02hi\x88\x05\x03\xe9bye");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'p> {
    /// A whole message of text.
    Text(&'p str),
    /// A whole message of bytes.
    Binary(&'p [u8]),
    /// Is the other side there? What stands behind the first 125 bytes is left out.
    Ping(&'p [u8]),
    /// It is. What stands behind the first 125 bytes is left out.
    Pong(&'p [u8]),
    /// The last frame: a status, and a reason of which the first 123 bytes are sent, or less where a character would be cut.
    Close(Option<(CloseCode, &'p str)>),
}

impl Frame<'_> {
    /// Appends the frame.
    pub fn push_to(&self, out: &mut Vec<u8>) {
        match *self {
            Frame::Text(text) => push(out, Opcode::Text, &[text.as_bytes()]),
            Frame::Binary(bytes) => push(out, Opcode::Binary, &[bytes]),
            Frame::Ping(bytes) => push(out, Opcode::Ping, &[&bytes[..bytes.len().min(CONTROL_LIMIT)]]),
            Frame::Pong(bytes) => push(out, Opcode::Pong, &[&bytes[..bytes.len().min(CONTROL_LIMIT)]]),
            Frame::Close(None) => push(out, Opcode::Close, &[]),
            Frame::Close(Some((CloseCode(code), reason))) => {
                let room = CONTROL_LIMIT - 2;
                let end = (0..=reason.len().min(room)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
                push(out, Opcode::Close, &[&code.to_be_bytes(), &reason.as_bytes()[..end]]);
            }
        }
    }
}

fn push(out: &mut Vec<u8>, opcode: Opcode, payload: &[&[u8]]) {
    let length = payload.iter().map(|piece| piece.len()).sum();
    let header = frame_header(opcode, false, length);
    out.reserve(header.len() + length);
    out.extend_from_slice(&header);
    payload.iter().for_each(|piece| out.extend_from_slice(piece));
}

/// What stands before a payload of that many bytes that a server sends: for payloads that many connections share, whose
/// frame is made once. `compressed` says that the payload is, as permessage-deflate has it (RFC 7692 §6).
///
/// ```
/// use websocket::{Opcode, frame_header};
///
/// assert_eq!(*frame_header(Opcode::Binary, false, 5), [0x82, 5]);
/// assert_eq!(*frame_header(Opcode::Text, false, 126), [0x81, 126, 0, 126]);
/// ```
///
/// # Panics
/// With debug assertions, for a control frame that is compressed or longer than [`CONTROL_LIMIT`] (RFC 6455 §5.5), and for
/// a continuation: each message is sent in one frame.
pub fn frame_header(opcode: Opcode, compressed: bool, length: usize) -> FrameHeader {
    debug_assert!(!opcode.is_control() || (length <= CONTROL_LIMIT && !compressed), "RFC 6455 §5.5");
    debug_assert!(opcode != Opcode::Continuation, "a continuation of nothing (RFC 6455 §5.4)");
    let mut bytes = [0; 10];
    bytes[0] = FINISHED | opcode as u8 | if compressed { COMPRESSED } else { 0 };
    let end = match length {
        0..=125 => {
            bytes[1] = length as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    FrameHeader { bytes, end }
}

/// The last fragment of a message, or all of it.
pub(crate) const FINISHED: u8 = 0x80;
/// RSV1, which says that a message is compressed (RFC 7692 §6).
pub(crate) const COMPRESSED: u8 = 0x40;
/// RSV2 and RSV3.
pub(crate) const RESERVED: u8 = 0x30;

/// The two to ten bytes before a payload that a server sends: what [`frame_header`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    bytes: [u8; 10],
    end: u8,
}

impl Deref for FrameHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.end)]
    }
}

/// What a frame is (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A fragment of a message that has begun.
    Continuation = 0,
    /// A message of UTF-8.
    Text = 1,
    /// A message of bytes.
    Binary = 2,
    /// The last frame.
    Close = 8,
    /// A question that a pong answers.
    Ping = 9,
    /// The answer.
    Pong = 10,
}

impl Opcode {
    /// What the lower half of a frame's first byte says.
    pub(crate) fn of(first: u8) -> Option<Opcode> {
        use Opcode::*;
        [Continuation, Text, Binary, Close, Ping, Pong].into_iter().find(|opcode| *opcode as u8 == first & 0xf)
    }

    pub(crate) fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// A status that may stand in a close frame (RFC 6455 §7.4, and what IANA has registered since).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(u16);

impl CloseCode {
    /// What was to be done is done.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// A server stops, or a page is left.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The other side broke the protocol.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// The other side sent a kind of message that is not taken here.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// The payload is not what its frame says, as text that is not UTF-8.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// A message that is not allowed, for a reason that has no status of its own.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// A message above the limit.
    pub const TOO_LARGE: CloseCode = CloseCode(1009);
    /// The server came upon something it did not expect.
    pub const INTERNAL_ERROR: CloseCode = CloseCode(1011);
    /// The server starts again: come back.
    pub const RESTART: CloseCode = CloseCode(1012);
    /// The server has too much to do: come back later.
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);

    /// `None` for a number that may not be sent: those below 1000, those that say what no frame said (1005, 1006, 1015),
    /// those that nobody has registered, and from 5000 on.
    ///
    /// ```
    /// use websocket::CloseCode;
    ///
    /// assert_eq!(CloseCode::new(1000), Some(CloseCode::NORMAL));
    /// assert!(CloseCode::new(1005).is_none() && CloseCode::new(4001).is_some());
    /// ```
    pub const fn new(code: u16) -> Option<CloseCode> {
        match code {
            // 1004 was kept back, 1012 to 1014 were registered later; 3000 to 3999 are for libraries, 4000 to 4999 for
            // applications (RFC 6455 §7.4.2).
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(CloseCode(code)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(frame: Frame<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        frame.push_to(&mut out);
        out
    }

    /// RFC 6455 §5.7.
    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(pushed(Frame::Text("Hello")), b"\x81\x05Hello");
        assert_eq!(pushed(Frame::Ping(b"Hello")), b"\x89\x05Hello");
        assert_eq!(pushed(Frame::Binary(&[7; 256]))[..4], [0x82, 0x7e, 1, 0]);
        assert_eq!(pushed(Frame::Binary(&[7; 65_536]))[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_length_is_written_as_short_as_it_goes() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            assert_eq!(frame_header(Opcode::Binary, false, length).len(), header, "{length}");
        }
        assert_eq!(frame_header(Opcode::Text, true, 1)[0], 0xc1);
    }

    #[test]
    fn what_is_too_long_for_a_control_frame_is_cut_and_no_character_is() {
        assert_eq!(pushed(Frame::Ping(&[b'x'; 126])), [&[0x89, 125][..], &[b'x'; 125]].concat());
        assert_eq!(pushed(Frame::Pong(&[b'x'; 300])), [&[0x8a, 125][..], &[b'x'; 125]].concat());
        let reason = "é".repeat(70);
        let frame = pushed(Frame::Close(Some((CloseCode::NORMAL, &reason))));
        assert_eq!((frame[1], str::from_utf8(&frame[4..])), (124, Ok("é".repeat(61).as_str())));
        assert_eq!(pushed(Frame::Close(None)), [0x88, 0]);
    }
}
