//! One WebSocket, byte for byte.

use super::{Ending, RawClient};
use handover::Bound;

/// A client of a WebSocket.
pub struct WebSocket {
    pub client: RawClient,
    /// Of the 101.
    pub head: String,
}

/// The key of RFC 6455 §1.3, and what answers it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

impl WebSocket {
    /// The request that asks for one.
    pub fn request(target: &str, fields: &str) -> String {
        format!(
            "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
        )
    }

    /// Opens one.
    #[track_caller]
    pub fn open(bound: &Bound, target: &str) -> WebSocket {
        WebSocket::open_with(bound, target, "")
    }

    /// The same with these fields.
    #[track_caller]
    pub fn open_with(bound: &Bound, target: &str, fields: &str) -> WebSocket {
        let mut client = RawClient::to(bound);
        client.send(WebSocket::request(target, fields));
        WebSocket::answered(client)
    }

    /// What comes over that connection next is the answer to the handshake.
    #[track_caller]
    pub fn answered(mut client: RawClient) -> WebSocket {
        let head = client.read_past(b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(head).expect("ASCII");
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "{head}");
        WebSocket { client, head }
    }

    /// A frame as a client sends it: the first byte has FIN and what it is.
    pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        let key = [0x37, 0xfa, 0x21, 0x3d];
        frame.extend(key);
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    }

    /// Sends a message of text.
    pub fn say(&mut self, text: &str) -> &mut WebSocket {
        self.send(TEXT, text.as_bytes())
    }

    /// Sends a frame that is a whole message, or one of control.
    pub fn send(&mut self, opcode: u8, payload: &[u8]) -> &mut WebSocket {
        self.client.send(WebSocket::frame(0x80 | opcode, payload));
        self
    }

    /// The next frame, or how the connection ended instead.
    pub fn try_next(&mut self) -> Result<(u8, Vec<u8>), (Ending, Vec<u8>)> {
        let head = self.client.read_exactly(2)?;
        assert_eq!(head[0] & 0xf0, 0x80, "a server's messages are of one frame and without extensions");
        let length = match head[1] {
            126 => self.client.read_exactly(2)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
            127 => self.client.read_exactly(8)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
            length => usize::from(length),
        };
        Ok((head[0] & 0xf, self.client.read_exactly(length)?))
    }

    #[track_caller]
    pub fn next(&mut self) -> (u8, Vec<u8>) {
        self.try_next().unwrap_or_else(|(ending, rest)| panic!("{ending:?} instead of a frame: {rest:?}"))
    }

    /// The next message, which is text.
    #[track_caller]
    pub fn text(&mut self) -> String {
        let (opcode, payload) = self.next();
        let text = String::from_utf8_lossy(&payload).into_owned();
        assert_eq!(opcode, TEXT, "{text:?}");
        text
    }

    /// The next frame closes it: with that status and reason.
    #[track_caller]
    pub fn closed(&mut self) -> (u16, String) {
        let (opcode, payload) = self.next();
        assert_eq!(opcode, CLOSE, "{:?}", String::from_utf8_lossy(&payload));
        let Some((code, reason)) = payload.split_at_checked(2) else { return (1005, String::new()) };
        (u16::from_be_bytes([code[0], code[1]]), String::from_utf8(reason.to_vec()).expect("UTF-8"))
    }

    /// Closes it, and expects the server to say the same and to close.
    #[track_caller]
    pub fn close(mut self, code: u16) {
        self.send(CLOSE, &code.to_be_bytes());
        assert_eq!(self.closed(), (code, String::new()));
        self.client.expect_fin();
    }
}
