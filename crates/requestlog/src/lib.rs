//! A line of a request log: what is said there of a request that has ended, in each form.
//!
//! Nothing that a client sends makes two lines of one, or ends a field: what is no printable ASCII is escaped, and so are
//! quotes. It is bytes only, and a crate of its own because what a line costs is to be small beside what a request does: it is
//! compiled for speed.
//!
//! ```
//! use requestlog::{Line, Second};
//!
//! let line = Line { request: b"GET /a", minor: Some(1), status: Some(200), bytes: 5, ..Line::default() };
//! let mut out = Vec::new();
//! line.push_combined(&mut out, "31/Jan/2026:23:59:59 +0000");
//! assert_eq!(out, br#"- - - [31/Jan/2026:23:59:59 +0000] "GET /a HTTP/1.1" 200 5 "-" "-" 0.000"#);
//!
//! // A second is written once for all lines of it.
//! let mut second = Second::default();
//! out.clear();
//! line.push_json(&mut out, second.at(1_769_903_999, |_| "2026-01-31T23:59:59.".to_owned()), 42);
//! assert_eq!(&out[..42], br#"{"time":"2026-01-31T23:59:59.042Z","method"#);
//! ```

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

/// What a line is about. Text is empty where nothing is known of it.
#[derive(Clone, Copy, Default)]
pub struct Line<'l> {
    /// The client.
    pub peer: Option<SocketAddr>,
    /// The name of the user.
    pub user: &'l [u8],
    /// Method and target.
    pub request: &'l [u8],
    /// The minor version, where a head was understood.
    pub minor: Option<u8>,
    /// Of the response, if there was one.
    pub status: Option<u16>,
    /// Bytes of content that were sent.
    pub bytes: u64,
    /// Messages that a subscriber was sent.
    pub messages: Option<u32>,
    /// From the first byte of the request to the last of the response.
    pub took: Duration,
    /// Referer
    pub referer: &'l [u8],
    /// User-Agent
    pub agent: &'l [u8],
    /// X-Request-Id
    pub id: &'l [u8],
    /// Of the server.
    pub generation: u64,
    /// How it ended, where it was not answered by its handler.
    pub end: Option<&'l dyn fmt::Display>,
}

impl Line<'_> {
    /// `PEER - USER [TIME] "METHOD TARGET VERSION" STATUS BYTES "REFERER" "AGENT" SECONDS`, with `-` for what is not known: the
    /// combined form of Apache's `mod_log_config`, and the time taken. Without the end of the line.
    ///
    /// `second`: as the Common Log Format has it.
    pub fn push_combined(&self, out: &mut Vec<u8>, second: &str) {
        // Most lines need no more, so that the pushes below do not grow it.
        out.reserve(128 + self.user.len() + self.request.len() + self.referer.len() + self.agent.len());
        match self.peer {
            Some(peer) => push_ip(out, peer.ip()),
            None => out.push(b'-'),
        }
        out.extend_from_slice(b" - ");
        match self.user {
            b"" => out.push(b'-'),
            // Its field ends at a space.
            user => user.iter().for_each(|byte| match byte {
                b' ' => out.extend_from_slice(b"\\x20"),
                byte => push_escaped(out, &[*byte]),
            }),
        }
        out.extend_from_slice(b" [");
        out.extend_from_slice(second.as_bytes());
        out.extend_from_slice(b"] \"");
        if self.request.is_empty() {
            out.push(b'-');
        } else {
            push_escaped(out, self.request);
            if let Some(minor) = self.minor {
                out.extend_from_slice(b" HTTP/1.");
                push_number(out, minor);
            }
        }
        out.extend_from_slice(b"\" ");
        push_digits::<3>(out, self.status.unwrap_or(0).into());
        out.push(b' ');
        push_number(out, self.bytes);
        for field in [self.referer, self.agent] {
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
        push_digits::<3>(out, took.subsec_millis());
    }

    /// One object; a key of which nothing is known is left out. Without the end of the line.
    ///
    /// `second`: as RFC 3339 has it, with a dot behind it; `millis` go there.
    pub fn push_json(&self, out: &mut Vec<u8>, second: &str, millis: u32) {
        let text = self.user.len() + self.request.len() + self.referer.len() + self.agent.len() + self.id.len();
        out.reserve(384 + text);
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(second.as_bytes());
        push_digits::<3>(out, millis);
        out.extend_from_slice(b"Z\"");
        if let Some(peer) = self.peer {
            out.extend_from_slice(b",\"peer\":\"");
            match peer {
                SocketAddr::V4(peer) => {
                    push_ip(out, (*peer.ip()).into());
                    out.push(b':');
                    push_number(out, peer.port());
                }
                SocketAddr::V6(peer) => out.extend_from_slice(peer.to_string().as_bytes()),
            }
            out.push(b'"');
        }
        push_known(out, b",\"user\":", self.user);
        if !self.request.is_empty() {
            let at = self.request.iter().position(|byte| *byte == b' ');
            let (method, target) = self.request.split_at(at.unwrap_or(self.request.len()));
            push_text(out, b",\"method\":", method);
            push_text(out, b",\"target\":", target.get(1..).unwrap_or_default());
        }
        if let Some(minor) = self.minor {
            out.extend_from_slice(b",\"version\":\"HTTP/1.");
            push_number(out, minor);
            out.push(b'"');
        }
        if let Some(status) = self.status {
            out.extend_from_slice(b",\"status\":");
            push_number(out, status);
        }
        out.extend_from_slice(b",\"bytes\":");
        push_number(out, self.bytes);
        if let Some(messages) = self.messages {
            out.extend_from_slice(b",\"messages\":");
            push_number(out, messages);
        }
        out.extend_from_slice(b",\"duration\":");
        push_number(out, self.took.as_secs());
        out.push(b'.');
        push_digits::<6>(out, self.took.subsec_micros());
        push_known(out, b",\"referer\":", self.referer);
        push_known(out, b",\"agent\":", self.agent);
        push_known(out, b",\"request_id\":", self.id);
        out.extend_from_slice(b",\"generation\":");
        push_number(out, self.generation);
        match self.end {
            None => out.extend_from_slice(b",\"end\":\"answered\"}"),
            Some(end) => {
                push_text(out, b",\"end\":", end.to_string().as_bytes());
                out.push(b'}');
            }
        }
    }
}

/// How a second is written, which is the same for many lines.
#[derive(Debug, Default)]
pub struct Second {
    last: Option<u64>,
    text: String,
}

impl Second {
    /// That of `now`, made anew if it is another than the last.
    pub fn at(&mut self, now: u64, make: impl FnOnce(u64) -> String) -> &str {
        if self.last != Some(now) {
            (self.last, self.text) = (Some(now), make(now));
        }
        &self.text
    }
}

fn push_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// With so many digits, zeros in front.
fn push_digits<const DIGITS: usize>(out: &mut Vec<u8>, mut number: u32) {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits);
}

fn push_ip(out: &mut Vec<u8>, ip: IpAddr) {
    let IpAddr::V4(ip) = ip else {
        return out.extend_from_slice(ip.to_string().as_bytes());
    };
    let [first, others @ ..] = ip.octets();
    push_number(out, first);
    for octet in others {
        out.push(b'.');
        push_number(out, octet);
    }
}

/// Whether it is printable ASCII, and neither a quote nor a backslash. Without a branch, so that it is done for many at once.
fn is_plain(byte: u8) -> bool {
    (b' '..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\')
}

/// Whether all of it is, sixteen bytes at a time.
fn is_all_plain(bytes: &[u8]) -> bool {
    let (sixteens, rest) = bytes.as_chunks::<16>();
    sixteens.iter().all(|sixteen| sixteen.iter().fold(true, |plain, byte| plain & is_plain(*byte)))
        && rest.iter().fold(true, |plain, byte| plain & is_plain(*byte))
}

fn push_known(out: &mut Vec<u8>, key: &[u8], text: &[u8]) {
    if !text.is_empty() {
        push_text(out, key, text);
    }
}

/// A key and a string; what is no text in that is replaced.
fn push_text(out: &mut Vec<u8>, key: &[u8], text: &[u8]) {
    out.extend_from_slice(key);
    if is_all_plain(text) {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    } else {
        // Writing into a vector does not fail, and no string is none of JSON.
        let _ = serde_json::to_writer(out, &*String::from_utf8_lossy(text));
    }
}

const HEX: [u8; 16] = *b"0123456789ABCDEF";

/// As nginx has it: `\xHH` for what is no printable ASCII, for quotes and for backslashes.
fn push_escaped(out: &mut Vec<u8>, mut bytes: &[u8]) {
    if is_all_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    while let Some(at) = bytes.iter().position(|byte| !is_plain(*byte)) {
        out.extend_from_slice(&bytes[..at]);
        let byte = usize::from(bytes[at]);
        out.extend_from_slice(&[b'\\', b'x', HEX[byte >> 4], HEX[byte & 15]]);
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
    fn each_byte_is_plain_or_not_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let plain = (byte == b' ' || byte.is_ascii_graphic()) && byte != b'"' && byte != b'\\';
            for length in [1, 15, 16, 17, 32, 47] {
                for at in [0, length / 2, length - 1] {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = byte;
                    assert_eq!(is_all_plain(&bytes), plain, "{byte} at {at} of {length}");
                }
            }
        }
        assert!(is_all_plain(b""));
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
        assert_eq!(with(&|out| push_digits::<3>(out, 7)), "007");
        assert_eq!(with(&|out| push_digits::<6>(out, 999_999)), "999999");
    }

    #[test]
    fn a_second_is_made_once_and_anew_for_another() {
        let mut second = Second::default();
        for (time, made) in [(5, true), (5, false), (6, true), (5, true)] {
            let mut makes = false;
            let text = second.at(time, |time| {
                makes = true;
                format!("{time};")
            });
            assert_eq!(text, format!("{time};"));
            assert_eq!(makes, made, "{time}");
        }
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
    fn all_that_is_known_is_said_and_what_is_not_is_left_out() {
        let line = Line {
            peer: "192.0.2.1:4000".parse().ok(),
            user: b"ada l",
            request: b"GET /a b",
            minor: Some(0),
            status: Some(404),
            bytes: 70_000,
            messages: Some(3),
            took: Duration::from_micros(1_234_567),
            referer: b"r",
            agent: b"a \"x\"",
            id: b"7",
            generation: 12,
            end: Some(&"refused: why"),
        };
        let mut out = Vec::new();
        line.push_combined(&mut out, "then");
        let said = r#"192.0.2.1 - ada\x20l [then] "GET /a b HTTP/1.0" 404 70000 "r" "a \x22x\x22" 1.235"#;
        assert_eq!(String::from_utf8_lossy(&out), said);
        out.clear();
        line.push_json(&mut out, "then.", 5);
        let said = r#"{"time":"then.005Z","peer":"192.0.2.1:4000","user":"ada l","method":"GET","target":"/a b","version":"HTTP/1.0","status":404,"bytes":70000,"messages":3,"duration":1.234567,"referer":"r","agent":"a \"x\"","request_id":"7","generation":12,"end":"refused: why"}"#;
        assert_eq!(String::from_utf8_lossy(&out), said);
        out.clear();
        Line::default().push_json(&mut out, "then.", 5);
        let said = r#"{"time":"then.005Z","bytes":0,"duration":0.000000,"generation":0,"end":"answered"}"#;
        assert_eq!(String::from_utf8_lossy(&out), said);
        out.clear();
        Line { request: b"bare", ..Line::default() }.push_json(&mut out, "then.", 5);
        assert!(String::from_utf8_lossy(&out).contains(r#","method":"bare","target":"","#));
    }
}
