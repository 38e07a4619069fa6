//! What subscribers get, as bytes: events (WHATWG HTML §9.2), and the JSON of a poll.

use crate::log::{Log, Stored};
use crate::{Message, Position, Topic};
use serde::Serialize;
use std::fmt::Write as _;
use std::sync::Arc;

/// How long an event stream's client waits before it comes back, in milliseconds, unless the end of its stream says
/// otherwise.
pub const RETRY: u32 = 2000;

/// The forms in which a message leaves; see `Message::frame`.
pub(crate) const EVENT: usize = 0;
pub(crate) const JSON_EVENT: usize = 1;
pub(crate) const JSON: usize = 2;

/// A message as JSON.
#[derive(Serialize)]
struct Object<'m> {
    id: String,
    topic: &'m str,
    event: Option<&'m str>,
    data: &'m str,
}

/// `{"id":"7-1","topic":"news","event":null,"data":"hello"}`.
pub(crate) fn json(log: &Log, topic: &Topic, stored: &Stored) -> Arc<[u8]> {
    let Stored { offset, message, .. } = stored;
    let (id, data) = (log.at(*offset).to_string(), message.text());
    let object = Object { id, topic: topic.name(), event: message.event(), data: &data };
    serde_json::to_vec(&object).unwrap_or_default().into()
}

/// A message as an event: its position as the id, its event, and its data or what JSON says of it.
pub(crate) fn event(log: &Log, stored: &Stored, data: &str) -> Arc<[u8]> {
    let mut text = String::with_capacity(data.len() + 64);
    push_id(&mut text, log.at(stored.offset));
    push_event(&mut text, stored.message.event(), data);
    text.into_bytes().into()
}

/// The text of a message for an event.
pub(crate) fn text(message: &Message) -> std::borrow::Cow<'_, str> {
    message.text()
}

/// The beginning of a stream: when to come back, and from where, also for who never receives a message.
pub(crate) fn opening(text: &mut String, position: Position) {
    let _ = writeln!(text, "retry: {RETRY}");
    heartbeat(text, position);
}

/// An id and a blank line: it sets the client's last id and dispatches nothing.
pub(crate) fn heartbeat(text: &mut String, position: Position) {
    push_id(text, position);
    text.push('\n');
}

/// The same for who wants to see that the stream lives.
pub(crate) fn beat(text: &mut String, position: Position) {
    push_id(text, position);
    push_event(text, Some("@beat"), &position.to_string());
}

/// Messages are missing behind one position, if that is known, and go on behind the other.
pub(crate) fn gap(text: &mut String, from: Option<Position>, to: Position) {
    push_id(text, to);
    push_event(text, Some("@gap"), &Gap::new(from, to).json());
}

#[derive(Serialize)]
struct Gap {
    from: Option<String>,
    to: String,
}

impl Gap {
    fn new(from: Option<Position>, to: Position) -> Gap {
        Gap { from: from.map(|from| from.to_string()), to: to.to_string() }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The same as a message of a WebSocket: `{"gap":{"from":"7-1","to":"7-9"}}`.
pub(crate) fn gap_object(text: &mut String, from: Option<Position>, to: Position) {
    let _ = write!(text, "{{\"gap\":{}}}", Gap::new(from, to).json());
}

/// Where a WebSocket is: `{"last":"7-9"}`.
pub(crate) fn place(text: &mut String, position: Position) {
    let _ = write!(text, "{{\"last\":\"{position}\"}}");
}

/// The end of a stream whose client is to come back after so many milliseconds.
pub(crate) fn farewell(retry: u32) -> String {
    format!("retry: {retry}\n\n")
}

fn push_id(text: &mut String, position: Position) {
    // Writing into a string does not fail.
    let _ = writeln!(text, "id: {position}");
}

fn push_line(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push_str(value);
    text.push('\n');
}

fn push_event(text: &mut String, event: Option<&str>, data: &str) {
    if let Some(event) = event {
        push_line(text, "event: ", event);
    }
    // Also at a bare CR: a parser ends its line there, and what follows would be a field.
    let mut rest = data;
    loop {
        let end = rest.bytes().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
        push_line(text, "data: ", &rest[..end]);
        rest = &rest[end..];
        if rest.is_empty() {
            break;
        }
        rest = rest.strip_prefix("\r\n").unwrap_or(&rest[1..]);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(text: &str) -> String {
        let mut out = String::new();
        push_event(&mut out, None, text);
        out
    }

    /// As a browser reads it (WHATWG HTML §9.2.6): lines end at CR LF, LF and CR; the value of `data` behind one space.
    fn as_read(stream: &str) -> Vec<String> {
        let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
        let mut events = Vec::new();
        let mut data: Option<String> = None;
        for line in lines.split('\n') {
            match line.split_once(':') {
                _ if line.is_empty() => events.extend(data.take()),
                Some(("data", value)) => {
                    let value = value.strip_prefix(' ').unwrap_or(value);
                    data = Some(data.map_or(value.to_owned(), |data| data + "\n" + value));
                }
                Some(("id" | "event" | "retry", _)) => {}
                _ => panic!("{line:?}"),
            }
        }
        events
    }

    #[test]
    fn data_is_a_line_for_each_line_whatever_ends_it() {
        assert_eq!(data("a"), "data: a\n\n");
        assert_eq!(data(""), "data: \n\n");
        assert_eq!(data("a\nb"), "data: a\ndata: b\n\n");
        assert_eq!(data("a\r\nb\rc"), "data: a\ndata: b\ndata: c\n\n");
        assert_eq!(data("a\n"), "data: a\ndata: \n\n");
        assert_eq!(data("\n\r"), "data: \ndata: \ndata: \n\n");
        for text in ["a\rid: evil\nevent: x\r\ndata: y", " lead", ":", "\r\r\n\n", "é\u{2028}x", "end\r"] {
            let lines = text.replace("\r\n", "\n").replace('\r', "\n");
            assert_eq!(as_read(&data(text)), [lines], "{text:?}");
        }
    }

    #[test]
    fn what_the_server_says_itself() {
        let position = Position { epoch: 7, offset: 3 };
        let mut text = String::new();
        opening(&mut text, position);
        assert_eq!(text, "retry: 2000\nid: 7-3\n\n");
        text.clear();
        beat(&mut text, position);
        assert_eq!(text, "id: 7-3\nevent: @beat\ndata: 7-3\n\n");
        text.clear();
        gap(&mut text, None, position);
        gap(&mut text, Some(Position { epoch: 1, offset: 2 }), position);
        let head = "id: 7-3\nevent: @gap\ndata: ";
        assert_eq!(
            text,
            format!("{head}{{\"from\":null,\"to\":\"7-3\"}}\n\n{head}{{\"from\":\"1-2\",\"to\":\"7-3\"}}\n\n")
        );
        assert_eq!(farewell(1234), "retry: 1234\n\n");
    }
}
