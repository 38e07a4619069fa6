//! A line of the request log: what is said there of an exchange that has ended, in each form.
//!
//! Nothing that a client sends makes two lines of one, or ends a field: what is no printable ASCII is escaped, and so are quotes.

use super::exchange::{End, Ended};
use crate::api::without_token;
use crate::clock::wall_clock;
use crate::generation::generation;
use crate::logging::requests::{Format, common_time, json_time};
use serde_json::Value;
use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Write;

thread_local! {
    /// The second that was last written, and as what: it is the same for many.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

impl Ended<'_> {
    /// Appends it in that form, without the end of the line.
    pub(super) fn write(&self, format: Format, out: &mut Vec<u8>) {
        match format {
            Format::Combined => self.write_combined(out),
            Format::Json => self.write_json(out),
        }
    }

    /// `PEER - USER [TIME] "METHOD TARGET VERSION" STATUS BYTES "REFERER" "AGENT" SECONDS`, with `-` for what is not known.
    fn write_combined(&self, out: &mut Vec<u8>) {
        match self.peer {
            // Writing into a vector does not fail; that is so for all below.
            Some(peer) => _ = write!(out, "{}", peer.ip()),
            None => out.push(b'-'),
        }
        let [referer, agent, _, user] = self.exchange.fields(self.request);
        out.extend_from_slice(b" - ");
        match user {
            b"" => out.push(b'-'),
            // Its field ends at a space.
            user => user.iter().for_each(|byte| match byte {
                b' ' => out.extend_from_slice(b"\\x20"),
                byte => push_escaped(out, &[*byte]),
            }),
        }
        out.extend_from_slice(b" [");
        let now = wall_clock();
        SECOND.with_borrow_mut(|(second, text)| {
            if *second != now.as_secs() {
                (*second, *text) = (now.as_secs(), common_time(now));
            }
            out.extend_from_slice(text.as_bytes());
        });
        out.extend_from_slice(b"] \"");
        let line = self.exchange.line(self.request);
        if line.is_empty() {
            out.push(b'-');
        } else {
            push_escaped(out, &shown(line));
            if let Some(minor) = self.exchange.minor() {
                let _ = write!(out, " HTTP/1.{minor}");
            }
        }
        let _ = write!(out, "\" {:03} {}", self.status().unwrap_or(0), self.bytes());
        for field in [referer, agent] {
            out.extend_from_slice(b" \"");
            match field {
                b"" => out.push(b'-'),
                field => push_escaped(out, field),
            }
            out.push(b'"');
        }
        let _ = write!(out, " {:.3}", self.took.as_secs_f64());
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes));
        let line = self.exchange.line(self.request);
        let line = shown(line);
        let (method, target) = match line.iter().position(|byte| *byte == b' ') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (&line[..], &b""[..]),
        };
        let [referer, agent, id, user] = self.exchange.fields(self.request);
        let mut push = |name: &str, value: Value| {
            out.push(if name == "time" { b'{' } else { b',' });
            let _ = write!(out, "\"{name}\":{value}");
        };
        push("time", json_time(wall_clock()).into());
        if let Some(peer) = self.peer {
            push("peer", peer.to_string().into());
        }
        if !user.is_empty() {
            push("user", text(user));
        }
        if !line.is_empty() {
            push("method", text(method));
            push("target", text(target));
        }
        if let Some(minor) = self.exchange.minor() {
            push("version", format!("HTTP/1.{minor}").into());
        }
        if let Some(status) = self.status() {
            push("status", status.into());
        }
        push("bytes", self.bytes().into());
        if let Some(messages) = self.messages() {
            push("messages", messages.into());
        }
        push("duration", (self.took.as_micros() as f64 / 1e6).into());
        for (name, field) in [("referer", referer), ("agent", agent), ("request_id", id)] {
            if !field.is_empty() {
                push(name, text(field));
            }
        }
        push("generation", generation().into());
        let end = match (self.refusal(), self.end) {
            (Some(refusal), End::Answered) => format!("refused: {refusal}"),
            (None, End::Answered) => "answered".to_owned(),
            (_, End::Closed(reason)) => reason.to_string(),
        };
        push("end", end.into());
        out.push(b'}');
    }
}

/// Method and target without what lets somebody in.
fn shown(line: &[u8]) -> Cow<'_, [u8]> {
    if !line.contains(&b'?') {
        return line.into();
    }
    match String::from_utf8_lossy(line) {
        Cow::Borrowed(line) => match without_token(line) {
            Cow::Borrowed(line) => line.as_bytes().into(),
            Cow::Owned(line) => line.into_bytes().into(),
        },
        Cow::Owned(line) => without_token(&line).into_owned().into_bytes().into(),
    }
}

/// As nginx has it: `\xHH` for what is no printable ASCII, for quotes and for backslashes.
fn push_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b'"' | b'\\' | ..b' ' | 0x7f.. => _ = write!(out, "\\x{byte:02X}"),
            byte => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_a_field_or_a_line() {
        let mut out = Vec::new();
        push_escaped(&mut out, b"a \"b\\\x00\x1b\n\xff\x7f~");
        assert_eq!(String::from_utf8_lossy(&out), "a \\x22b\\x5C\\x00\\x1B\\x0A\\xFF\\x7F~");
    }

    #[test]
    fn tokens_are_left_out() {
        assert_eq!(&*shown(b"GET /a?token=secret&b"), b"GET /a?token=...&b");
        assert_eq!(&*shown(b"GET /a?b=\xff&token=secret"), "GET /a?b=\u{fffd}&token=...".as_bytes());
        assert_eq!(&*shown(b"GET /token=x"), b"GET /token=x");
    }
}
