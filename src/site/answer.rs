//! From what was found, or not found, to a response.

use super::content::{Content, read_at_once, wall_clock};
use crate::api::{Body, Bytes, IntoResponse, Request, Response, known_header};
use http1::accept::Coding;
use http1::conditional::{self, Validators, Verdict};
use http1::date::Date;
use http1::range::{self, Part, Selection};
use std::collections::VecDeque;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use tiny_http::{Header, Method, StatusCode};

/// What a request selects (RFC 9110 §3.2), with all that its response says.
pub(super) struct Representation<'t> {
    /// The bytes.
    pub content: Content,
    /// What there is to know of them.
    pub about: About<'t>,
}

/// What the response says of a representation.
#[derive(Clone, Copy)]
pub(super) struct About<'t> {
    /// How many bytes.
    pub length: u64,
    /// The media type.
    pub content_type: &'t str,
    /// How the bytes are coded, if they are.
    pub coding: Option<Coding>,
    /// A strong entity tag, with its quotes.
    pub etag: &'t str,
    /// Last-Modified in seconds since 1970, not later than now; `None` where nobody knows.
    pub modified: Option<u64>,
    /// Whether that was not set since the bytes were written.
    pub is_dated: bool,
    /// The fields of the request that had a part in the selection, as in Vary.
    pub vary: Option<&'static str>,
    /// What Cache-Control says, if anything.
    pub cache_control: Option<&'t str>,
}

/// Up to this many bytes a file is read at once and closed, and leaves with the head in one packet or a few; a client
/// that then stalls holds this much memory instead of a descriptor. Anything larger goes by sendfile(2). 16 KiB is what
/// a socket takes at the least before it is full (the default of `tcp_wmem`).
const READ_AT_ONCE: u64 = 16 * 1024;

/// The answer where there is nothing to serve.
pub(super) fn refuse(status: u16) -> Response {
    let response = StatusCode(status).into_response();
    match status {
        // What is short, a descriptor mostly, is there again as soon as another request ends.
        503 => response.with_header(known_header("Retry-After", "1")),
        _ => response,
    }
}

impl Representation<'_> {
    /// Answers a GET or HEAD: 200, 206, 304, 412 or 416.
    ///
    /// To HEAD the answer is the same, but nothing is read for it; the engine sends no body.
    pub fn answer(self, request: &Request, now: u64) -> io::Result<Response> {
        let Representation { content, about } = self;
        let validators = Validators { etag: about.etag, modified: about.modified, is_dated: about.is_dated };
        match conditional::evaluate(request.fields(), validators) {
            // A 304 repeats what a cache needs to find its copy; other fields would only confuse it (§15.4.5).
            Verdict::NotModified => {
                let response = Body::empty().into_response_with(304, Vec::new());
                let response = about.cached(about.selected(response));
                return Ok(response.with_header(known_header("ETag", about.etag)));
            }
            Verdict::Failed => return Ok(about.selected(refuse(412))),
            Verdict::Proceed => {}
        }
        // Range is defined for GET only (§14.2), so a HEAD describes the whole.
        let get = *request.method() == Method::Get;
        let selection = match get && conditional::if_range_holds(request.fields(), validators, now) {
            true => range::select(request.header_values("Range"), about.length),
            false => Selection::Whole,
        };
        match selection {
            Selection::Part(part) => {
                let content_range = field("Content-Range", part.content_range(about.length));
                let body = content.part(part, true)?;
                Ok(about.onto(body.into_response_with(206, Vec::new())).with_header(content_range))
            }
            // Of coded bytes there is no answer in several parts that is read in one way only: a Content-Encoding is
            // of the whole content, which then is the multipart envelope, and the parts of RFC 9110 §14.6 have none.
            // So the Range is ignored, as every Range may be.
            Selection::Parts(parts) if about.coding.is_none() => Ok(about.multipart(content, &parts)),
            Selection::Whole | Selection::Parts(_) => {
                let whole = Part { start: 0, length: about.length };
                let body = content.part(whole, get)?;
                Ok(about.onto(body.into_response_with(200, Vec::new())))
            }
            Selection::Unsatisfiable => {
                let content_range = field("Content-Range", format!("bytes */{}", about.length));
                Ok(about.selected(refuse(416)).with_header(content_range))
            }
        }
    }
}

/// Answers with a page that was made here, which nobody may keep without asking for it again. Its tag is of its bytes and of
/// nothing else, since nobody knows when what it shows has changed.
pub(super) fn answer_made(request: &Request, bytes: Bytes, content_type: &str, policy: &str) -> Response {
    let etag = format!("\"{:x}-{:x}\"", bytes.len(), fnv1a(&bytes));
    let about = About {
        length: bytes.len() as u64,
        content_type,
        coding: None,
        etag: &etag,
        modified: None,
        is_dated: false,
        vary: None,
        cache_control: Some("no-cache"),
    };
    let representation = Representation { content: Content::Bytes(bytes), about };
    // Bytes in memory cannot fail to be read.
    let response = representation.answer(request, wall_clock()).unwrap_or_else(IntoResponse::into_response);
    response.with_header(known_header("Content-Security-Policy", policy))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Answers with a file that does not know its length: with what it gives, until it ends.
///
/// Nothing about it tells one state from another, so it has no validators, and the parts of what may be different each
/// time would not fit together.
pub(super) fn answer_unmeasured(
    request: &Request,
    file: File,
    content_type: &str,
    cache_control: Option<&str>,
) -> Response {
    let mut response =
        match conditional::evaluate(request.fields(), Validators { etag: "", modified: None, is_dated: false }) {
            Verdict::NotModified => return Body::empty().into_response_with(304, Vec::new()),
            Verdict::Failed => return refuse(412),
            Verdict::Proceed => Body::reader(file, None).into_response_with(200, Vec::new()),
        };
    if let Some(control) = cache_control {
        response.add_header(known_header("Cache-Control", control));
    }
    response.add_header(known_header("Content-Type", content_type));
    response.add_header(known_header("X-Content-Type-Options", "nosniff"));
    response
}

impl Content {
    /// The body for one part. Without `read` it has only its length.
    fn part(self, part: Part, read: bool) -> io::Result<Body> {
        Ok(match self {
            Content::Bytes(bytes) => bytes_of(bytes, part),
            Content::File(_) if part.length == 0 => Body::empty(),
            Content::File(file) if read && part.length <= READ_AT_ONCE => {
                let bytes = read_at_once(&file, part.start, part.length as usize)?;
                match bytes.len() as u64 == part.length {
                    true => bytes.into(),
                    // The file has shrunk since its length was asked for. The engine sees the same and cuts the
                    // connection, so that the client does not take the remains for the whole.
                    false => Body::shared_file_range(file, part.start, part.length),
                }
            }
            Content::File(file) => Body::shared_file_range(file, part.start, part.length),
        })
    }
}

impl About<'_> {
    /// Says what had a part in the selection, which is true of a refusal too.
    fn selected(&self, mut response: Response) -> Response {
        if let Some(vary) = self.vary {
            response.add_header(known_header("Vary", vary));
        }
        response
    }

    /// Says how long it may be kept: what is sent, and what is confirmed.
    fn cached(&self, mut response: Response) -> Response {
        if let Some(control) = self.cache_control {
            response.add_header(known_header("Cache-Control", control));
        }
        response
    }

    /// Adds the fields that every 200 and 206 has.
    fn onto(&self, response: Response) -> Response {
        self.onto_typed(response, self.content_type)
    }

    fn onto_typed(&self, response: Response, content_type: &str) -> Response {
        let mut response = self.cached(self.selected(response));
        response.add_header(known_header("Content-Type", content_type));
        // The type is what we say, never what a browser guesses from content that someone may have uploaded.
        response.add_header(known_header("X-Content-Type-Options", "nosniff"));
        if let Some(coding) = self.coding {
            response.add_header(known_header("Content-Encoding", coding.name()));
        }
        response.add_header(known_header("ETag", self.etag));
        if let Some(modified) = self.modified {
            response.add_header(field("Last-Modified", Date(modified).to_string()));
        }
        response.add_header(known_header("Accept-Ranges", "bytes"));
        response
    }

    /// Several parts (RFC 9110 §14.6), each with its own Content-Range; the response itself must not have one.
    fn multipart(&self, content: Content, parts: &[Part]) -> Response {
        // Unpredictable, so that no file can hold the boundary of its own response on purpose.
        let boundary = format!("{:016x}", RandomState::new().hash_one(self.etag));
        let mut pieces = VecDeque::with_capacity(2 * parts.len() + 1);
        for (at, part) in parts.iter().enumerate() {
            let line_end = if at == 0 { "" } else { "\r\n" };
            let content_range = part.content_range(self.length);
            let head = format!(
                "{line_end}--{boundary}\r\nContent-Type: {}\r\nContent-Range: {content_range}\r\n\r\n",
                self.content_type
            );
            pieces.push_back(Piece::Text(io::Cursor::new(head)));
            pieces.push_back(Piece::Part(*part));
        }
        pieces.push_back(Piece::Text(io::Cursor::new(format!("\r\n--{boundary}--\r\n"))));
        // Cannot overflow: the parts do not overlap, so they sum up to no more than a file's length, below 2^63.
        let length = pieces.iter().map(Piece::length).sum();
        let body = Body::reader(Multipart { content, pieces }, Some(length));
        let content_type = format!("multipart/byteranges; boundary={boundary}");
        self.onto_typed(body.into_response_with(206, Vec::new()), &content_type)
    }
}

/// A field of our own making: ASCII without control characters.
fn field(name: &'static str, value: String) -> Header {
    // Taken over without a copy. All that is put in here is digits, dates and types of our table.
    Header::from_bytes(name, value).expect("ASCII name and value")
}

/// The bytes of a part. Parts lie inside of what they are parts of; one that did not would be cut off.
fn slice(bytes: &[u8], part: Part) -> &[u8] {
    let start = usize::try_from(part.start).unwrap_or(usize::MAX).min(bytes.len());
    let length = usize::try_from(part.length).unwrap_or(usize::MAX).min(bytes.len() - start);
    &bytes[start..start + length]
}

/// The body for a part of bytes, without a copy where it is all of them.
fn bytes_of(bytes: Bytes, part: Part) -> Body {
    match bytes {
        bytes if part.start == 0 && part.length == bytes.len() as u64 => bytes.into(),
        Bytes::Static(bytes) => slice(bytes, part).into(),
        Bytes::Owned(bytes) => slice(&bytes, part).to_vec().into(),
        Bytes::Shared(bytes) => slice(&bytes, part).to_vec().into(),
    }
}

/// The body of a `multipart/byteranges` response, read piece by piece.
struct Multipart {
    content: Content,
    pieces: VecDeque<Piece>,
}

enum Piece {
    Text(io::Cursor<String>),
    /// What is left of it; its start moves on.
    Part(Part),
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Piece::Text(text) => text.get_ref().len() as u64 - text.position(),
            Piece::Part(part) => part.length,
        }
    }
}

impl Read for Multipart {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.pieces.front().is_some_and(|piece| piece.length() == 0) {
            self.pieces.pop_front();
        }
        match self.pieces.front_mut() {
            None => Ok(0),
            Some(Piece::Text(text)) => text.read(buf),
            Some(Piece::Part(part)) => {
                let room = buf.len().min(usize::try_from(part.length).unwrap_or(usize::MAX));
                // A file that has shrunk gives 0 here, now and at every further call: the body ends before its length
                // and the connection with it.
                let read = match &self.content {
                    Content::File(file) => file.read_at(&mut buf[..room], part.start)?,
                    Content::Bytes(bytes) => slice(bytes, *part).read(&mut buf[..room])?,
                };
                part.start += read as u64;
                part.length -= read as u64;
                Ok(read)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{read, request, value};
    use super::*;

    const TEXT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

    fn alphabet() -> Representation<'static> {
        let about = About {
            length: TEXT.len() as u64,
            content_type: "text/plain; charset=utf-8",
            coding: None,
            etag: "\"t\"",
            modified: None,
            is_dated: false,
            vary: None,
            cache_control: None,
        };
        Representation { content: Content::Bytes(Bytes::Static(TEXT)), about }
    }

    #[test]
    fn several_parts_are_what_the_rfc_shows() {
        let response = alphabet().answer(&request("GET", "/", &[("Range", "bytes=0-1,10-12,-1")]), 0).expect("no I/O");
        assert_eq!(response.status_code(), StatusCode(206));
        assert_eq!(value(&response, "Content-Range"), None);
        let content_type = value(&response, "Content-Type").expect("a type");
        let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").expect("a boundary").to_owned();
        let (length, body) = read(response);
        let part = |range: &str, text: &str| {
            format!(
                "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes {range}/36\r\n\r\n{text}\r\n"
            )
        };
        let expected = part("0-1", "01") + &part("10-12", "abc") + &part("35-35", "z") + &format!("--{boundary}--\r\n");
        assert_eq!(String::from_utf8_lossy(&body), expected);
        assert_eq!(length, Some(body.len() as u64));
    }

    #[test]
    fn boundaries_differ() {
        let boundary = || {
            let response = alphabet().answer(&request("GET", "/", &[("Range", "bytes=0-1,4-5")]), 0).expect("no I/O");
            value(&response, "Content-Type").expect("a type").to_owned()
        };
        assert_ne!(boundary(), boundary());
    }

    #[test]
    fn a_multipart_body_is_the_same_in_small_pieces() {
        let parts =
            || VecDeque::from([Piece::Text(io::Cursor::new("<".into())), Piece::Part(Part { start: 3, length: 9 })]);
        let mut body = Multipart { content: Content::Bytes(Bytes::Static(TEXT)), pieces: parts() };
        let mut all = Vec::new();
        let mut byte = [0; 1];
        while body.read(&mut byte).expect("no I/O") == 1 {
            all.extend_from_slice(&byte);
        }
        assert_eq!(all, b"<3456789ab");
    }

    #[test]
    fn dates_at_the_end_of_time_do_not_panic() {
        for modified in [0, http1::date::LAST, http1::date::LAST + 1, u64::MAX] {
            let mut representation = alphabet();
            representation.about.modified = Some(modified);
            assert!(representation.answer(&request("GET", "/", &[]), modified).is_ok());
        }
    }

    #[test]
    fn lack_of_descriptors_says_when_to_come_back() {
        assert_eq!(value(&refuse(503), "Retry-After"), Some("1"));
        assert_eq!(value(&refuse(404), "Retry-After"), None);
    }
}
