//! A line of the request log: what is said there of an exchange that has ended, in each form.
//!
//! Nothing that a client sends makes two lines of one, or ends a field: what is no printable ASCII is escaped, and so are quotes.

use super::exchange::{End, Ended};
use crate::api::without_token;
use crate::clock::wall_clock;
use crate::generation::generation;
use crate::logging::requests::{Format, common_time, json_second};
use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A second and how it is written, which is the same for many lines.
type Second = RefCell<(u64, String)>;

thread_local! {
    static COMMON: Second = const { RefCell::new((u64::MAX, String::new())) };
    static JSON: Second = const { RefCell::new((u64::MAX, String::new())) };
}

/// Appends the second, made anew if it is another than the last.
fn push_second(out: &mut Vec<u8>, now: Duration, second: &Second, make: impl FnOnce(Duration) -> String) {
    let (last, text) = &mut *second.borrow_mut();
    if *last != now.as_secs() {
        (*last, *text) = (now.as_secs(), make(now));
    }
    out.extend_from_slice(text.as_bytes());
}

// Not by `write!`: what a line costs is to be small beside what a request does, and formatting is most of it.

fn push_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// With so many digits, zeros in front.
fn push_digits(out: &mut Vec<u8>, number: u32, digits: usize) {
    let (start, mut left) = (out.len(), number);
    out.resize(start + digits, b'0');
    for digit in out[start..].iter_mut().rev() {
        *digit += (left % 10) as u8;
        left /= 10;
    }
}

fn push_ip(out: &mut Vec<u8>, ip: IpAddr) {
    let IpAddr::V4(ip) = ip else {
        // Writing into a vector does not fail.
        let _ = write!(out, "{ip}");
        return;
    };
    for (place, octet) in ip.octets().into_iter().enumerate() {
        if place > 0 {
            out.push(b'.');
        }
        push_number(out, octet);
    }
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
            Some(peer) => push_ip(out, peer.ip()),
            None => out.push(b'-'),
        }
        let [referer, agent, _, user] = self.exchange.fields(self.request);
        let referer = &*shown(referer);
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
        COMMON.with(|second| push_second(out, wall_clock(), second, common_time));
        out.extend_from_slice(b"] \"");
        let line = self.exchange.line(self.request);
        if line.is_empty() {
            out.push(b'-');
        } else {
            push_escaped(out, &shown(line));
            if let Some(minor) = self.exchange.minor() {
                out.extend_from_slice(b" HTTP/1.");
                push_number(out, minor);
            }
        }
        out.extend_from_slice(b"\" ");
        push_digits(out, self.status().unwrap_or(0).into(), 3);
        out.push(b' ');
        push_number(out, self.bytes());
        for field in [referer, agent] {
            out.extend_from_slice(b" \"");
            match field {
                b"" => out.push(b'-'),
                field => push_escaped(out, field),
            }
            out.push(b'"');
        }
        out.push(b' ');
        // The nearest millisecond.
        let took = self.took + Duration::from_micros(500);
        push_number(out, took.as_secs());
        out.push(b'.');
        push_digits(out, took.subsec_millis(), 3);
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        let line = self.exchange.line(self.request);
        let line = shown(line);
        let (method, target) = match line.iter().position(|byte| *byte == b' ') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (&line[..], &b""[..]),
        };
        let [referer, agent, id, user] = self.exchange.fields(self.request);
        let referer = &*shown(referer);
        let now = wall_clock();
        out.extend_from_slice(b"{\"time\":\"");
        JSON.with(|second| push_second(out, now, second, json_second));
        push_digits(out, now.subsec_millis(), 3);
        out.extend_from_slice(b"Z\"");
        if let Some(peer) = self.peer {
            out.extend_from_slice(b",\"peer\":\"");
            match peer {
                SocketAddr::V4(peer) => {
                    push_ip(out, (*peer.ip()).into());
                    out.push(b':');
                    push_number(out, peer.port());
                }
                SocketAddr::V6(_) => _ = write!(out, "{peer}"),
            }
            out.push(b'"');
        }
        if !user.is_empty() {
            push_text(out, b",\"user\":", user);
        }
        if !line.is_empty() {
            push_text(out, b",\"method\":", method);
            push_text(out, b",\"target\":", target);
        }
        if let Some(minor) = self.exchange.minor() {
            out.extend_from_slice(b",\"version\":\"HTTP/1.");
            push_number(out, minor);
            out.push(b'"');
        }
        if let Some(status) = self.status() {
            out.extend_from_slice(b",\"status\":");
            push_number(out, status);
        }
        out.extend_from_slice(b",\"bytes\":");
        push_number(out, self.bytes());
        if let Some(messages) = self.messages() {
            out.extend_from_slice(b",\"messages\":");
            push_number(out, messages);
        }
        out.extend_from_slice(b",\"duration\":");
        push_number(out, self.took.as_secs());
        out.push(b'.');
        push_digits(out, self.took.subsec_micros(), 6);
        let fields = [(&b",\"referer\":"[..], referer), (b",\"agent\":", agent), (b",\"request_id\":", id)];
        for (key, field) in fields {
            if !field.is_empty() {
                push_text(out, key, field);
            }
        }
        out.extend_from_slice(b",\"generation\":");
        push_number(out, generation());
        match (self.refusal(), self.end) {
            (None, End::Answered) => out.extend_from_slice(b",\"end\":\"answered\""),
            (Some(refusal), End::Answered) => push_text(out, b",\"end\":", format!("refused: {refusal}").as_bytes()),
            (_, End::Closed(reason)) => push_text(out, b",\"end\":", reason.to_string().as_bytes()),
        }
        out.push(b'}');
    }
}

/// A key and a string; what is no text in that is replaced.
fn push_text(out: &mut Vec<u8>, key: &[u8], text: &[u8]) {
    out.extend_from_slice(key);
    if text.iter().all(|byte| matches!(byte, b' '..b'\x7f') && !matches!(byte, b'"' | b'\\')) {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    } else {
        // Writing into a vector does not fail, and no string is none of JSON.
        let _ = serde_json::to_writer(out, &*String::from_utf8_lossy(text));
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
fn push_escaped(out: &mut Vec<u8>, mut bytes: &[u8]) {
    while let Some(at) = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..b' ' | 0x7f..)) {
        out.extend_from_slice(&bytes[..at]);
        let _ = write!(out, "\\x{:02X}", bytes[at]);
        bytes = &bytes[at + 1..];
    }
    out.extend_from_slice(bytes);
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
    fn numbers_and_addresses_are_as_they_are_written_elsewhere() {
        let with = |push: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            push(&mut out);
            String::from_utf8(out).expect("text")
        };
        for ip in ["0.0.0.0", "127.0.0.1", "255.255.255.255", "::1", "fe80::1:2", "::ffff:1.2.3.4"] {
            assert_eq!(with(&|out| push_ip(out, ip.parse().expect("an address"))), ip);
        }
        assert_eq!(with(&|out| push_digits(out, 7, 3)), "007");
        assert_eq!(with(&|out| push_digits(out, 999_999, 6)), "999999");
    }

    #[test]
    fn a_second_is_made_once_and_anew_for_another() {
        let (second, mut out) = (RefCell::new((u64::MAX, String::new())), Vec::new());
        for (time, made) in [(5, true), (5, false), (6, true), (5, true)] {
            let mut makes = false;
            push_second(&mut out, Duration::from_secs(time), &second, |time| {
                makes = true;
                format!("{};", time.as_secs())
            });
            assert_eq!(makes, made, "{time}");
        }
        assert_eq!(out, b"5;5;6;5;");
    }

    #[test]
    fn a_string_of_json_is_one_whatever_is_in_it() {
        for text in
            [&b"plain ~"[..], b"", b"a\"b", b"a\\", b"\x00\x1f\x7f", "\u{e9}\u{2028}".as_bytes(), b"\xff", b"\n"]
        {
            let mut out = Vec::new();
            push_text(&mut out, b"", text);
            let read: String = serde_json::from_slice(&out).expect("JSON");
            assert_eq!(read, String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn tokens_are_left_out() {
        assert_eq!(&*shown(b"GET /a?token=secret&b"), b"GET /a?token=...&b");
        assert_eq!(&*shown(b"GET /a?b=\xff&token=secret"), "GET /a?b=\u{fffd}&token=...".as_bytes());
        assert_eq!(&*shown(b"GET /token=x"), b"GET /token=x");
    }
}
