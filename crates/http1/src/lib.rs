//! Bytes only: no sockets, no clocks.
//!
//! Every function here takes slices and answers with what it consumed and
//! what it learned, so that it can be tested at every byte boundary and fuzzed.

pub mod accept;
pub mod chunked;
pub mod conditional;
pub mod date;
pub mod framing;
pub mod head;
#[cfg(any(test, fuzzing, feature = "invariants"))]
pub mod invariants;
pub mod number;
pub mod range;
pub mod response;

use std::fmt;

/// Why a request is refused. Each reason has a status and a name; the name is what the log shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// A line ends in LF without CR (RFC 9112 §2.2 lets us refuse it).
    BareLf,
    /// A CR that is not followed by LF (RFC 9112 §2.2).
    BareCr,
    /// NUL or another control character in the head (RFC 9110 §5.5).
    ControlCharacter,
    /// The request line is not `method SP target SP version` (RFC 9112 §3).
    RequestLine,
    /// The target has none of the four forms (RFC 9112 §3.2).
    Target,
    /// The version does not parse (RFC 9112 §2.3).
    BadVersion,
    /// A major version other than 1 (RFC 9110 §15.6.6).
    Version,
    /// A header line that is not `name: value`: space before the colon, folding, a bad name (RFC 9112 §5).
    HeaderLine,
    /// An https target over a connection without TLS (RFC 9110 §7.4).
    Misdirected,
    /// A method so long that it cannot be one we know (RFC 9112 §3).
    MethodTooLong,
    /// More header fields than the limit (RFC 6585 §5).
    TooManyHeaders,
    /// The head is longer than the limit (RFC 6585 §5).
    HeadTooLarge,
    /// The request target is longer than the limit (RFC 9110 §15.5.15).
    TargetTooLong,
    /// HTTP/1.1 without Host (RFC 9112 §3.2).
    MissingHost,
    /// More than one Host, or one that is not `host[:port]` (RFC 9112 §3.2).
    BadHost,
    /// Content-Length is not all digits, overflows, or stands twice (RFC 9112 §6.3).
    BadContentLength,
    /// Content-Length together with Transfer-Encoding (RFC 9112 §6.1).
    LengthAndEncoding,
    /// Transfer-Encoding in an HTTP/1.0 request (RFC 9112 §6.1).
    EncodingInHttp10,
    /// `chunked` is not the last coding, or stands twice (RFC 9112 §6.3).
    ChunkedNotLast,
    /// A transfer coding we do not know (RFC 9112 §6.1).
    UnknownCoding,
    /// A chunk size that is not hexadecimal, overflows, or has a malformed extension (RFC 9112 §7.1).
    BadChunk,
    /// A chunk extension or trailer section longer than the limit.
    ChunkOverhead,
    /// A malformed trailer field (RFC 9112 §7.1.2).
    BadTrailer,
    /// The body is larger than the limit (RFC 9110 §15.5.14).
    BodyTooLarge,
    /// An expectation other than `100-continue` (RFC 9110 §10.1.1).
    Expectation,
    /// A method the server does not implement: CONNECT, TRACE (RFC 9110 §9.1).
    MethodNotAllowed,
    /// The head did not arrive in time (RFC 9110 §15.5.9).
    HeadTimeout,
    /// The body did not arrive in time (RFC 9110 §15.5.9).
    BodyTimeout,
    /// Nobody could take the request in time (RFC 9110 §15.6.4).
    Overloaded,
}

impl Reject {
    /// The status that answers it.
    pub fn status(self) -> u16 {
        use Reject::*;
        match self {
            BareLf | BareCr | ControlCharacter | RequestLine | Target | BadVersion | HeaderLine | MissingHost
            | BadHost | BadContentLength | LengthAndEncoding | EncodingInHttp10 | ChunkedNotLast | BadChunk
            | ChunkOverhead | BadTrailer => 400,
            MethodNotAllowed => 405,
            HeadTimeout | BodyTimeout => 408,
            BodyTooLarge => 413,
            TargetTooLong => 414,
            Expectation => 417,
            Misdirected => 421,
            TooManyHeaders | HeadTooLarge => 431,
            UnknownCoding | MethodTooLong => 501,
            Overloaded => 503,
            Version => 505,
        }
    }

    /// What its answer must or should say besides.
    pub fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // RFC 9110 §15.5.6, where nobody says anything narrower: CONNECT is for proxies, TRACE is off.
            Reject::MethodNotAllowed => &[("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")],
            // RFC 9110 §15.6.4.
            Reject::Overloaded => &[("Retry-After", "1")],
            _ => &[],
        }
    }

    /// The name, as logged and as sent in the body of the answer.
    pub fn name(self) -> &'static str {
        use Reject::*;
        match self {
            BareLf => "bare LF in the head",
            BareCr => "bare CR in the head",
            ControlCharacter => "control character in the head",
            RequestLine => "malformed request line",
            Target => "malformed request target",
            BadVersion => "malformed HTTP version",
            Version => "HTTP version not supported",
            HeaderLine => "malformed header line",
            Misdirected => "https without TLS",
            MethodTooLong => "method not implemented",
            TooManyHeaders => "too many header fields",
            HeadTooLarge => "request head too large",
            TargetTooLong => "request target too long",
            MissingHost => "missing Host",
            BadHost => "malformed or repeated Host",
            BadContentLength => "malformed or repeated Content-Length",
            LengthAndEncoding => "both Content-Length and Transfer-Encoding",
            EncodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            ChunkedNotLast => "chunked is not the final transfer coding",
            UnknownCoding => "unknown transfer coding",
            BadChunk => "malformed chunk",
            ChunkOverhead => "chunk extensions or trailers too large",
            BadTrailer => "malformed trailer",
            BodyTooLarge => "request body too large",
            Expectation => "unknown expectation",
            MethodNotAllowed => "method not allowed",
            HeadTimeout => "request head not received in time",
            BodyTimeout => "request body not received in time",
            Overloaded => "overloaded, try again later",
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a byte may stand in, as bits of a table: names, methods, hosts and targets are looked at byte by byte.
const CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        let b = byte as u8;
        let unreserved = b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        if unreserved || matches!(b, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'^' | b'`' | b'|') {
            table[byte] |= TOKEN;
        }
        if unreserved || matches!(b, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=') {
            table[byte] |= REG_NAME;
        }
        if b != b'#' {
            table[byte] |= TARGET;
        }
        byte += 1;
    }
    table
};

/// In a token (RFC 9110 §5.6.2).
const TOKEN: u8 = 1;
/// In a host's name besides `%` (RFC 3986 §3.2.2).
const REG_NAME: u8 = 2;
/// In a request target: visible ASCII, so that nothing can end it but the space. Some of it no URI has (RFC 3986 §2),
/// but browsers send it in queries. The fragment's `#` is never sent (RFC 9112 §3.2).
const TARGET: u8 = 4;

const fn is_in(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// Whether `byte` may stand in a token (RFC 9110 §5.6.2).
pub const fn is_token_byte(byte: u8) -> bool {
    is_in(byte, TOKEN)
}

/// A byte in each of the eight of a word.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// How many bytes from the front are visible ASCII or spaces. Eight of them are looked at together.
fn span_of_text(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let is_text = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        // Of a byte below the space the first sets the highest bit, of DEL the last, above that it is set already. What
        // is carried into another byte comes from one of these.
        (word.wrapping_sub(each(b' ')) | word | word.wrapping_add(each(1))) & each(0x80) == 0
    };
    let at = 8 * words.iter().take_while(|word| is_text(word)).count();
    let rest = words.get(at / 8).map_or(rest, |word| &word[..]);
    at + rest.iter().take_while(|byte| matches!(byte, b' '..=b'~')).count()
}

/// How many bytes from the front are in the class.
fn span_of(class: u8, bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| !is_in(byte, class)).unwrap_or(bytes.len())
}

/// How many bytes from the front may stand in a field value: no control character but the tab (RFC 9110 §5.5).
fn span_of_value(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at += span_of_text(&bytes[at..]);
        match bytes.get(at) {
            Some(b'\t' | 0x80..) => at += 1,
            _ => return at,
        }
    }
}

/// Whether two names are the same but for the case of letters, which no name in HTTP depends on where we ask.
pub fn is_same_name(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// The comma-separated elements of a list field, trimmed, without empty ones (RFC 9110 §5.6.1).
pub fn list_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}
