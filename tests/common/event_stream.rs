//! One event stream, byte for byte.

use super::{Ending, RawClient};
use handover::Bound;

/// A client that listens.
pub struct EventStream {
    pub client: RawClient,
    /// Of the response.
    pub head: String,
    chunked: bool,
}

impl EventStream {
    /// Asks for `target`, with these fields, and reads the head.
    #[track_caller]
    pub fn open(bound: &Bound, target: &str, fields: &str) -> EventStream {
        EventStream::ask(RawClient::to(bound), target, fields, 1)
    }

    /// The same by HTTP/1.`minor`, over that connection.
    #[track_caller]
    pub fn ask(mut client: RawClient, target: &str, fields: &str, minor: u8) -> EventStream {
        client.send(format!("GET {target} HTTP/1.{minor}\r\nHost: test\r\n{fields}\r\n"));
        EventStream::answered(client)
    }

    /// What comes over that connection next.
    #[track_caller]
    pub fn answered(mut client: RawClient) -> EventStream {
        let head = client.read_past(b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(head).expect("ASCII");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let chunked = head.contains("\r\nTransfer-Encoding: chunked\r\n");
        EventStream { client, head, chunked }
    }

    /// The next event with its blank line, which is a chunk of its own in chunks.
    #[track_caller]
    pub fn event(&mut self) -> String {
        let event = self.try_event().unwrap_or_else(|(ending, rest)| {
            panic!("{ending:?} instead of an event: {:?}", String::from_utf8_lossy(&rest))
        });
        event.expect("the stream goes on")
    }

    /// The same; `None` where the stream ends in an orderly way, or how the connection did instead.
    pub fn try_event(&mut self) -> Result<Option<String>, (Ending, Vec<u8>)> {
        let text = if self.chunked {
            match self.client.chunk()? {
                None => return Ok(None),
                Some(chunk) => chunk,
            }
        } else {
            match self.client.read_past(b"\n\n") {
                Err((Ending::Fin, rest)) if rest.is_empty() => return Ok(None),
                other => other?,
            }
        };
        let text = String::from_utf8(text).expect("UTF-8");
        assert_eq!(text.find("\n\n"), Some(text.len() - 2), "one event: {text:?}");
        Ok(Some(text))
    }

    /// The next event's position, and its lines behind that.
    #[track_caller]
    pub fn next(&mut self) -> (String, String) {
        let event = self.event();
        let event = event.strip_prefix("retry: 2000\n").unwrap_or(&event);
        let (id, lines) = event.split_once('\n').expect("lines");
        let id = id.strip_prefix("id: ").unwrap_or_else(|| panic!("no id first: {event:?}"));
        (id.to_owned(), lines.to_owned())
    }

    /// The next event's lines behind its position.
    #[track_caller]
    pub fn lines(&mut self) -> String {
        self.next().1
    }

    /// The opening, and the position that it says.
    #[track_caller]
    pub fn opening(&mut self) -> String {
        let opening = self.event();
        let position = opening.strip_prefix("retry: 2000\nid: ").and_then(|rest| rest.strip_suffix("\n\n"));
        position.unwrap_or_else(|| panic!("no opening: {opening:?}")).to_owned()
    }
}
