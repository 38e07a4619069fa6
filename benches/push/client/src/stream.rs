//! The bytes that a subscriber gets, from the answer's head on. No I/O: it gets slices and says what was in them.

use crate::message::Message;
use memchr::{memchr, memmem};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    EventStream,
    WebSocket,
    /// The eventsource transport of SockJS, whose data are its own frames.
    SockJs,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// From here on it is a subscriber.
    Opened,
    Message(Message),
    /// `event: @gap`.
    Gap,
    Retry(u64),
    /// What a WebSocket has to answer.
    Ping(&'a [u8]),
    Pong,
    /// Data or frames that nobody published.
    Strange(&'a [u8]),
    /// By the protocol; the connection may still be open.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    ChunkLength {
        length: u64,
        extension: bool,
    },
    Chunk {
        left: u64,
    },
    ChunkEnd,
    /// An event stream that ends with its connection.
    Plain,
    Frames,
    Ended,
}

#[derive(Debug)]
pub struct Stream {
    format: Format,
    state: State,
    /// What has come of a head, a line or a frame that is not whole yet.
    kept: Vec<u8>,
    message: Option<Message>,
    gap: bool,
    id: Vec<u8>,
}

const LONGEST_KEPT: usize = 64 * 1024;

impl Stream {
    pub fn new(format: Format) -> Stream {
        Stream { format, state: State::Head, kept: Vec::new(), message: None, gap: false, id: Vec::new() }
    }

    /// The next connection of the same subscriber.
    pub fn again(&mut self) {
        self.state = State::Head;
        self.kept.clear();
        self.message = None;
        self.gap = false;
    }

    /// The last `id`, for `Last-Event-ID`.
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    pub fn take(&mut self, mut input: &[u8], seen: &mut impl FnMut(Seen)) {
        while !input.is_empty() {
            match self.state {
                State::Head => {
                    // What has come before is short, and looked at again: a head comes once.
                    let before = self.kept.len();
                    self.kept.extend_from_slice(input);
                    let Some(end) = memmem::find(&self.kept, b"\r\n\r\n") else {
                        if self.kept.len() > LONGEST_KEPT {
                            self.strange(seen);
                        }
                        return;
                    };
                    input = &input[end + 4 - before..];
                    let head = std::mem::take(&mut self.kept);
                    self.head(&head[..end], seen);
                }
                State::ChunkLength { length, extension } => {
                    let byte = input[0];
                    input = &input[1..];
                    let digit = (byte as char).to_digit(16).map(u64::from);
                    self.state = match (byte, digit) {
                        (b'\n', _) if length == 0 => {
                            seen(Seen::Ended);
                            State::Ended
                        }
                        (b'\n', _) => State::Chunk { left: length },
                        (b'\r', _) => State::ChunkLength { length, extension },
                        (b';', _) => State::ChunkLength { length, extension: true },
                        (_, Some(digit)) if !extension => State::ChunkLength { length: length * 16 + digit, extension },
                        _ if extension => State::ChunkLength { length, extension },
                        _ => {
                            seen(Seen::Strange(b"a chunk's length"));
                            seen(Seen::Ended);
                            State::Ended
                        }
                    };
                }
                State::Chunk { left } => {
                    let (text, rest) = input.split_at(input.len().min(left as usize));
                    input = rest;
                    let left = left - text.len() as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk { left } };
                    self.text(text, seen);
                }
                State::ChunkEnd => {
                    if input[0] == b'\n' {
                        self.state = State::ChunkLength { length: 0, extension: false };
                    }
                    input = &input[1..];
                }
                State::Plain => return self.text(input, seen),
                State::Frames => return self.frames(input, seen),
                State::Ended => return,
            }
        }
    }

    fn strange(&mut self, seen: &mut impl FnMut(Seen)) {
        seen(Seen::Strange(&self.kept[..self.kept.len().min(80)]));
        self.kept.clear();
        self.state = State::Ended;
        seen(Seen::Ended);
    }

    fn head(&mut self, head: &[u8], seen: &mut impl FnMut(Seen)) {
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap_or_default();
        let chunked = head.lines().any(|line| line.starts_with("transfer-encoding:") && line.ends_with("chunked"));
        self.state = match (self.format, status) {
            (Format::WebSocket, "101") => State::Frames,
            (Format::EventStream | Format::SockJs, "200") if chunked => {
                State::ChunkLength { length: 0, extension: false }
            }
            (Format::EventStream | Format::SockJs, "200") => State::Plain,
            _ => {
                seen(Seen::Strange(head.lines().next().unwrap_or_default().as_bytes()));
                seen(Seen::Ended);
                State::Ended
            }
        };
        if self.state != State::Ended && self.format != Format::SockJs {
            seen(Seen::Opened);
        }
    }

    fn text(&mut self, mut text: &[u8], seen: &mut impl FnMut(Seen)) {
        while let Some(end) = memchr(b'\n', text) {
            let (line, rest) = (&text[..end], &text[end + 1..]);
            text = rest;
            if self.kept.is_empty() {
                self.line(line, seen);
            } else {
                let mut whole = std::mem::take(&mut self.kept);
                whole.extend_from_slice(line);
                self.line(&whole, seen);
                whole.clear();
                self.kept = whole;
            }
        }
        self.kept.extend_from_slice(text);
        if self.kept.len() > LONGEST_KEPT {
            self.strange(seen);
        }
    }

    fn line(&mut self, line: &[u8], seen: &mut impl FnMut(Seen)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(data) = field(line, b"data:") {
            self.data(data, seen);
        } else if let Some(id) = field(line, b"id:") {
            self.id.clear();
            self.id.extend_from_slice(id);
        } else if line.is_empty() {
            // What is dispatched is one thing: a gap has data of its own, which is no message.
            match (std::mem::take(&mut self.gap), self.message.take()) {
                (true, _) => seen(Seen::Gap),
                (false, Some(message)) => seen(Seen::Message(message)),
                (false, None) => {}
            }
        } else if let Some(name) = field(line, b"event:") {
            self.gap = name == b"@gap";
        } else if let Some(millis) = field(line, b"retry:") {
            let millis = std::str::from_utf8(millis).ok().and_then(|text| text.parse().ok());
            seen(millis.map_or(Seen::Strange(b"retry"), Seen::Retry));
        }
    }

    fn data(&mut self, data: &[u8], seen: &mut impl FnMut(Seen)) {
        if self.gap {
            return;
        }
        match (self.format, data.first()) {
            (Format::SockJs, Some(b'o')) => seen(Seen::Opened),
            (Format::SockJs, Some(b'h')) => {}
            (Format::SockJs, Some(b'c')) => seen(Seen::Ended),
            (Format::SockJs, Some(b'a')) => {
                // An array of strings, none of which has anything to escape.
                for text in data.split(|&byte| byte == b'"').skip(1).step_by(2) {
                    seen(Message::read(text).map_or(Seen::Strange(text), Seen::Message));
                }
            }
            _ => match Message::read(data) {
                // Two lines of data would be one message that nobody published.
                Some(message) if self.message.is_none() => self.message = Some(message),
                _ => seen(Seen::Strange(data)),
            },
        }
    }

    fn frames(&mut self, input: &[u8], seen: &mut impl FnMut(Seen)) {
        if self.kept.is_empty() {
            let taken = self.whole_frames(input, seen);
            self.kept.extend_from_slice(&input[taken..]);
            return;
        }
        let mut kept = std::mem::take(&mut self.kept);
        kept.extend_from_slice(input);
        let taken = self.whole_frames(&kept, seen);
        kept.drain(..taken);
        self.kept = kept;
    }

    fn whole_frames(&mut self, input: &[u8], seen: &mut impl FnMut(Seen)) -> usize {
        let mut taken = 0;
        while let [first, second, rest @ ..] = &input[taken..] {
            let (head, length) = match (second & 0x7f, rest) {
                (126, [high, low, ..]) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
                (126, _) => break,
                (127, _) => {
                    seen(Seen::Strange(b"a frame of 64 KiB"));
                    seen(Seen::Ended);
                    return input.len();
                }
                (length, _) => (2, usize::from(length)),
            };
            let Some(payload) = input.get(taken + head..taken + head + length) else { break };
            match first & 0x0f {
                1 | 2 => seen(Message::read(payload).map_or(Seen::Strange(payload), Seen::Message)),
                8 => seen(Seen::Ended),
                9 => seen(Seen::Ping(payload)),
                10 => seen(Seen::Pong),
                _ => seen(Seen::Strange(payload)),
            }
            taken += head + length;
        }
        taken
    }
}

/// The value of a line that begins with `name`, as an event stream writes it.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sequence: u64) -> String {
        let mut text = Vec::new();
        Message { topic: 1, sequence, nanos: 5 }.write(100, &mut text);
        String::from_utf8(text).unwrap()
    }

    fn said(format: Format, pieces: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
        let (mut stream, mut all) = (Stream::new(format), Vec::new());
        for piece in pieces {
            stream.take(piece, &mut |seen| {
                all.push(match seen {
                    Seen::Message(message) => message.sequence.to_string(),
                    other => format!("{other:?}"),
                })
            });
        }
        (all, stream.id().to_vec())
    }

    /// Whole, and cut at every byte.
    fn says(format: Format, input: &[u8], expected: &[&str], id: &str) {
        for cut in 0..=input.len() {
            let (all, last) = said(format, &[&input[..cut], &input[cut..]]);
            assert_eq!(all, expected, "cut at {cut}");
            assert_eq!(last, id.as_bytes());
        }
        let single: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(said(format, &single).0, expected);
    }

    fn chunk(text: &str) -> String {
        format!("{:x}\r\n{text}\r\n", text.len())
    }

    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn an_event_stream_of_chunks() {
        let input = [
            HEAD,
            &chunk("retry: 2000\nid: e-1\n\n"),
            &chunk(&format!("id: e-2\ndata: {}\n\n", text(1))),
            &chunk("id: e-3\n\n: a comment\n\n"),
            &chunk("event: @gap\ndata: {\"from\":1}\n\n"),
            &chunk(&format!("id: e-9\ndata: {}\n\nid: e-10\ndata:{}\n\n", text(8), text(9))),
            "0\r\n\r\n",
        ]
        .concat();
        says(Format::EventStream, input.as_bytes(), &["Opened", "Retry(2000)", "1", "Gap", "8", "9", "Ended"], "e-10");
    }

    #[test]
    fn one_that_ends_with_its_connection_and_an_event_over_two_chunks() {
        let plain = format!("HTTP/1.1 200 OK\r\n\r\ndata: {}\r\n\r\nid: x\r\n\r\n", text(3));
        says(Format::EventStream, plain.as_bytes(), &["Opened", "3"], "x");
        let event = format!("data: {}\n\n", text(4));
        let (first, second) = event.split_at(50);
        let cut = [HEAD, &chunk(first), &chunk(second)].concat();
        says(Format::EventStream, cut.as_bytes(), &["Opened", "4"], "");
    }

    #[test]
    fn what_is_no_message() {
        let two = format!("data: {}\ndata: {}\n\n", text(1), text(2));
        let strange = format!("Strange({:?})", text(2).as_bytes());
        says(Format::EventStream, [HEAD, &chunk(&two)].concat().as_bytes(), &["Opened", &strange, "1"], "");
        let (refused, _) = said(Format::EventStream, &[b"HTTP/1.1 503 No\r\n\r\n"]);
        assert_eq!(refused.len(), 2);
        assert_eq!(refused[1], "Ended");
    }

    #[test]
    fn sockjs_and_websocket() {
        let frames = [
            "\r\n",
            "data: o\r\n\r\n",
            "data: h\r\n\r\n",
            &format!("data: a[\"{}\",\"{}\"]\r\n\r\n", text(1), text(2)),
        ];
        let input = HEAD.to_owned() + &frames.map(chunk).concat() + &chunk("data: c[3000,\"Go away!\"]\r\n\r\n");
        says(Format::SockJs, input.as_bytes(), &["Opened", "1", "2", "Ended"], "");
        let mut input = b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x64".to_vec();
        input.extend_from_slice(text(1).as_bytes());
        input.extend_from_slice(b"\x89\x01p\x81\x7e\x00\x64");
        input.extend_from_slice(text(2).as_bytes());
        input.extend_from_slice(b"\x8a\x00\x88\x00");
        says(Format::WebSocket, &input, &["Opened", "1", "Ping([112])", "2", "Pong", "Ended"], "");
    }
}
