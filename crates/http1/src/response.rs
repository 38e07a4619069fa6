//! The response head, written as bytes and validated field by field.
//!
//! `tiny_http`'s types let CR LF into a header value; here such a field is an
//! error, which the connection turns into a 500, never into a split response.

use std::fmt;
use tiny_http::{Header, StatusCode};

/// How the body of a response is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// No body, and no field that describes one: 204 and 304.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The end of the connection ends the body: unknown length to an HTTP/1.0 client.
    Close,
    /// None in HTTP/1.1: what follows the head is in the protocol of that name (RFC 9110 §7.8), and no field describes it.
    /// Behind [`encode_switch`], and only for a client of HTTP/1.1, which has asked for it.
    Upgrade(&'static str),
}

/// What the head says besides the handler's own fields.
#[derive(Clone, Copy, Debug)]
pub struct HeadOptions {
    /// The framing.
    pub framing: ResponseFraming,
    /// Whether the connection lives on.
    pub keep_alive: bool,
    /// The minor version the client spoke: an HTTP/1.0 client must be told that we keep the connection.
    pub client_minor: u8,
}

/// A response that cannot be sent as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidResponse {
    /// The status is not in 200..=999.
    Status(u16),
    /// A field name is no token, or its value has a control character.
    Field(String),
}

impl fmt::Display for InvalidResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidResponse::Status(status) => write!(f, "status {status} is not final, allowed is 200 to 999"),
            InvalidResponse::Field(name) => write!(f, "header {name:?} has a malformed name or value"),
        }
    }
}

/// Appends the status line and the handler's fields to `out`, and `date`, an encoded field, if they have none; on an
/// error `out` is as before. [`finish_head`] follows.
pub fn encode_fields(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &[Header],
    date: &[u8],
) -> Result<Said, InvalidResponse> {
    if !(200..=999).contains(&status.0) {
        return Err(InvalidResponse::Status(status.0));
    }
    encode(out, status, headers, date)
}

/// The same with the status `101 Switching Protocols` (RFC 9110 §15.2.2), which is no handler's to say: what follows is no
/// response of its own. [`finish_head`] with [`ResponseFraming::Upgrade`] follows, and says to which.
pub fn encode_switch(out: &mut Vec<u8>, headers: &[Header], date: &[u8]) -> Result<Said, InvalidResponse> {
    encode(out, StatusCode(101), headers, date)
}

fn encode(out: &mut Vec<u8>, status: StatusCode, headers: &[Header], date: &[u8]) -> Result<Said, InvalidResponse> {
    let start = out.len();
    push_status_line(out, status);
    let said = encode_headers(out, headers).inspect_err(|_| out.truncate(start))?;
    if !said.date {
        out.extend_from_slice(date);
    }
    Ok(said)
}

/// Which of the fields that are added where they are missing there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Content-Type.
    pub content_type: bool,
    /// Date.
    pub date: bool,
}

/// Whether a field can have that name, a token, and that value, which has no control character but the tab
/// (RFC 9110 §5.1, §5.5).
pub fn is_valid_field(name: &[u8], value: &[u8]) -> bool {
    let name_is_valid = !name.is_empty() && name.iter().copied().all(super::is_token_byte);
    name_is_valid && super::span_of_value(value) == value.len()
}

/// How the body of a response with that status and length is delimited, for a client of that minor version.
pub fn framing(status: u16, length: Option<u64>, client_minor: u8) -> ResponseFraming {
    match (status, length, client_minor) {
        (204 | 304, _, _) => ResponseFraming::None,
        // RFC 9110 §15.3.6: it has no content, and says so.
        (205, _, _) => ResponseFraming::Length(0),
        (_, Some(length), _) => ResponseFraming::Length(length),
        (_, None, 0) => ResponseFraming::Close,
        (_, None, _) => ResponseFraming::Chunked,
    }
}

/// Appends fields, but for those that are ours to say; on an error `out` has some.
pub fn encode_headers(out: &mut Vec<u8>, headers: &[Header]) -> Result<Said, InvalidResponse> {
    let mut said = Said::default();
    for header in headers {
        let name = header.field.as_str().as_bytes();
        let value = header.value.as_bytes();
        if !is_valid_field(name, value) {
            return Err(InvalidResponse::Field(header.field.to_string()));
        }
        // A handler's own framing would desynchronise the connection; these are ours to say.
        if is_ours(name) {
            continue;
        }
        said.date |= super::is_same_name(name, b"date");
        said.content_type |= super::is_same_name(name, b"content-type");
        push_field(out, name, value);
    }
    Ok(said)
}

/// Appends what the connection says, and the empty line.
pub fn finish_head(out: &mut Vec<u8>, options: &HeadOptions) {
    match options.framing {
        ResponseFraming::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            push_decimal(out, length);
            if options.keep_alive && options.client_minor > 0 {
                return out.extend_from_slice(b"\r\n\r\n");
            }
            out.extend_from_slice(b"\r\n");
        }
        ResponseFraming::Chunked => push_field(out, b"Transfer-Encoding", b"chunked"),
        ResponseFraming::Upgrade(protocol) => {
            // RFC 9110 §7.8: nobody who passes it on may take Upgrade for his own, and 1.0 knows neither.
            debug_assert!(options.client_minor > 0, "a server ignores Upgrade in HTTP/1.0");
            push_field(out, b"Connection", b"Upgrade");
            push_field(out, b"Upgrade", protocol.as_bytes());
            return out.extend_from_slice(b"\r\n");
        }
        ResponseFraming::None | ResponseFraming::Close => {}
    }
    match (options.keep_alive, options.client_minor) {
        (false, _) => push_field(out, b"Connection", b"close"),
        (true, 0) => push_field(out, b"Connection", b"keep-alive"),
        (true, _) => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a complete plain-text answer made of nothing but a status and one line: for errors. `date` is an encoded field.
pub fn encode_plain(out: &mut Vec<u8>, status: u16, reason: &str, extra: &[(&str, &str)], date: &[u8]) {
    push_status_line(out, StatusCode(status));
    push_field(out, b"Content-Type", b"text/plain; charset=utf-8");
    out.extend_from_slice(date);
    for (name, value) in extra {
        push_field(out, name.as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"Content-Length: ");
    push_decimal(out, reason.len() as u64 + 5);
    out.extend_from_slice(b"\r\nConnection: close\r\n\r\n");
    push_decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.push(b'\n');
}

/// Appends the size line of a chunk.
pub fn push_chunk_size(out: &mut Vec<u8>, length: usize) {
    let mut digits = [0; 2 * size_of::<usize>()];
    let mut at = digits.len();
    let mut rest = length;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// The chunk that ends a body, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn is_ours(name: &[u8]) -> bool {
    let ours: &[&[u8]] = match name.len() {
        7 => &[b"trailer", b"upgrade"],
        10 => &[b"connection", b"keep-alive"],
        14 => &[b"content-length"],
        17 => &[b"transfer-encoding"],
        _ => return false,
    };
    ours.iter().any(|ours| super::is_same_name(ours, name))
}

fn push_status_line(out: &mut Vec<u8>, status: StatusCode) {
    if status.0 == 200 {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(out, u64::from(status.0));
    out.push(b' ');
    out.extend_from_slice(status.default_reason_phrase().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends one field that is known to be right.
pub fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal.
pub fn push_decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &[u8] = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    fn head(
        status: u16,
        headers: &[Header],
        framing: ResponseFraming,
        keep_alive: bool,
    ) -> Result<String, InvalidResponse> {
        let mut out = Vec::new();
        encode_fields(&mut out, StatusCode(status), headers, DATE)?;
        finish_head(&mut out, &HeadOptions { framing, keep_alive, client_minor: 1 });
        Ok(String::from_utf8(out).expect("ASCII"))
    }

    fn header(name: &str, value: &str) -> Header {
        Header::from_bytes(name, value).expect("ASCII")
    }

    #[test]
    fn heads() {
        assert_eq!(
            head(200, &[header("A", "b")], ResponseFraming::Length(1234567890), true).as_deref(),
            Ok("HTTP/1.1 200 OK\r\nA: b\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 1234567890\r\n\r\n")
        );
        assert_eq!(
            head(304, &[header("content-length", "9"), header("Date", "x")], ResponseFraming::None, false).as_deref(),
            Ok("HTTP/1.1 304 Not Modified\r\nDate: x\r\nConnection: close\r\n\r\n")
        );
    }

    /// RFC 6455 §4.2.2, whose accept key this is, with what would describe a body left out.
    #[test]
    fn a_switch_of_protocols_says_to_which_and_of_no_body() {
        let accept = header("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        // What the connection says is not a header's to say.
        let ours = [header("Upgrade", "h2c"), header("connection", "close"), header("Content-Length", "7"), accept];
        let mut out = b"before ".to_vec();
        encode_switch(&mut out, &ours, DATE).expect("right fields");
        for keep_alive in [true, false] {
            let mut out = out.clone();
            let framing = ResponseFraming::Upgrade("websocket");
            finish_head(&mut out, &HeadOptions { framing, keep_alive, client_minor: 1 });
            let head = "before HTTP/1.1 101 Switching Protocols\r\n\
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            assert_eq!(String::from_utf8_lossy(&out), head);
        }
        let before = out.len();
        assert!(encode_switch(&mut out, &[header("A", "b\r\nC: d")], DATE).is_err() && out.len() == before);
        // A handler's own is refused as ever.
        let refused = encode_fields(&mut out, StatusCode(101), &[], DATE);
        assert_eq!((refused, out.len()), (Err(InvalidResponse::Status(101)), before));
    }

    #[test]
    fn what_was_said_is_known() {
        let said = |fields: &[Header]| encode_headers(&mut Vec::new(), fields).expect("right fields");
        assert_eq!(said(&[header("content-TYPE", "a/b")]), Said { content_type: true, date: false });
        assert_eq!(said(&[header("A", "b"), header("date", "x")]), Said { content_type: false, date: true });
    }

    #[test]
    fn a_response_is_never_split() {
        for (name, value) in [("A", "b\r\nC: d"), ("A", "b\0"), ("A b", "c"), ("", "c"), ("A:", "c"), ("A\r\nB", "c")] {
            let bad = head(200, &[header(name, value)], ResponseFraming::None, true);
            assert!(matches!(bad, Err(InvalidResponse::Field(_))), "{name:?}: {value:?}");
        }
        assert_eq!(head(101, &[], ResponseFraming::None, true), Err(InvalidResponse::Status(101)));
    }

    #[test]
    fn plain_answers_have_the_length_they_say() {
        let mut out = Vec::new();
        encode_plain(&mut out, 400, "bare LF in the head", &[], DATE);
        let text = String::from_utf8(out).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{text}");
    }

    #[test]
    fn chunk_sizes() {
        for (length, line) in [(1, "1\r\n"), (16, "10\r\n"), (0xabcdef, "abcdef\r\n")] {
            let mut out = Vec::new();
            push_chunk_size(&mut out, length);
            assert_eq!(out, line.as_bytes());
        }
    }
}
