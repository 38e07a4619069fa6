//! The response body: what a handler answers with, and how it becomes one.

use super::session::Session;
use super::talk::Converse;
use crate::clock::Millis;
use crate::logging::rate_limit::log_rate_limited;
use http1::response::{Said, push_field};
use pubsub::{Outcome, Subscription, Ticket};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tiny_http::{Header, StatusCode};

/// A response: `tiny_http`'s type with our [`Body`].
///
/// ```
/// use handover::{Body, Header, IntoResponse, Response};
/// let response: Response = "hello".into_response()
///     .with_status_code(201)
///     .with_header("X-Color: green".parse::<Header>().unwrap());
/// assert_eq!(response.status_code().0, 201);
/// ```
pub type Response = tiny_http::Response<Body>;

/// The content of a response.
///
/// ```
/// use handover::Body;
/// let bytes = Body::from("hello");
/// assert_eq!(bytes.len(), Some(5));
/// let pushed = Body::stream(|writer| {
///     writer.write_all(b"one")?;
///     writer.flush() // what was written so far leaves as one chunk
/// });
/// assert_eq!(pushed.len(), None);
/// assert!(Body::empty().is_empty());
/// assert_eq!(Body::reader(&b"five"[..], Some(4)).with_close().len(), Some(4));
/// assert_eq!(Body::file_range(std::fs::File::open("Cargo.toml")?, 0, 10).len(), Some(10));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Body {
    pub(crate) kind: Kind,
    pub(crate) close: bool,
    /// Content-Type where the response does not say it.
    pub(crate) content_type: Option<&'static str>,
    /// Encoded header fields that were prepared before, in place of ones in the response.
    pub(crate) fields: Option<Arc<[u8]>>,
    /// If it answers a subscriber, how many messages are in it.
    pub(crate) messages: Option<u32>,
    /// Whether it says no more than the status: who asks by a browser may get a page instead.
    pub(crate) is_status: bool,
}

pub(crate) enum Kind {
    Bytes {
        bytes: Bytes,
        at: usize,
    },
    File {
        file: Arc<File>,
        offset: u64,
        end: u64,
    },
    Reader {
        reader: Box<dyn Read + Send>,
        length: Option<u64>,
    },
    Stream(StreamFn),
    /// What the hub has for it, as long as it lasts.
    Subscription(Box<Subscribe>),
    /// A WebSocket, with 101.
    Conversation(Box<Converse>),
    /// What a session has for it.
    Session(Box<Attach>),
    /// What is answered to the outcome of a publication.
    Later(Box<Later>),
}

/// What is answered to an outcome: bytes, with a status and fields of their own.
pub(crate) type AnswerTo = Arc<dyn Fn(Outcome) -> Response + Send + Sync>;

/// A response that is known when a publication has an outcome.
pub(crate) struct Later {
    pub ticket: Arc<Ticket>,
    /// Which tells of that.
    pub hub: pubsub::Hub,
    pub answer_to: AnswerTo,
}

/// A response that a session has frames for.
pub(crate) struct Attach {
    /// Until a connection has it.
    session: Option<Arc<Session>>,
    /// Its name there.
    receiver: u64,
    /// Whether it ends behind the first.
    pub poll: bool,
}

impl Attach {
    pub fn new(session: Arc<Session>, receiver: u64, poll: bool) -> Attach {
        Attach { session: Some(session), receiver, poll }
    }

    /// Whose session it is.
    pub fn hub(&self) -> Option<&pubsub::Hub> {
        self.session.as_ref().map(|session| session.hub())
    }

    /// From here on a connection has it, and says what becomes of it.
    pub fn take(&mut self) -> Option<(Arc<Session>, u64)> {
        Some((self.session.take()?, self.receiver))
    }
}

impl Drop for Attach {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.lost(self.receiver, Millis::now().0);
        }
    }
}

/// A subscriber that is to be served.
pub(crate) struct Subscribe {
    pub subscription: Subscription,
    /// Seconds between heartbeats; 0 for none.
    pub heartbeat: u16,
    /// How long a poll waits.
    pub wait: Duration,
    /// How long it may listen at the most, if there is an end to that.
    pub lasts: Option<Duration>,
}

/// Bytes of the program, of one response, or of several.
#[derive(Clone)]
pub(crate) enum Bytes {
    Static(&'static [u8]),
    Owned(Vec<u8>),
    Shared(Arc<[u8]>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Static(bytes) => bytes,
            Bytes::Owned(bytes) => bytes,
            Bytes::Shared(bytes) => bytes,
        }
    }
}

pub(crate) type StreamFn = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

impl Body {
    /// Nothing.
    pub fn empty() -> Body {
        Body::from(&b""[..])
    }

    /// A part of a file, sent with sendfile(2): `length` bytes from `offset`.
    ///
    /// A file that turns out shorter ends the connection, so that the client sees the cut.
    pub fn file_range(file: File, offset: u64, length: u64) -> Body {
        Body::shared_file_range(Arc::new(file), offset, length)
    }

    pub(crate) fn shared_file_range(file: Arc<File>, offset: u64, length: u64) -> Body {
        Kind::File { file, offset, end: offset.saturating_add(length) }.into()
    }

    /// Whatever `reader` gives: chunked when the length is unknown.
    ///
    /// It is read by a worker in bounded pieces whenever the client has room, never ahead of it. A reader that
    /// ends before its length, or fails, ends the connection. At most `length` bytes are taken.
    pub fn reader(reader: impl Read + Send + 'static, length: Option<u64>) -> Body {
        Kind::Reader { reader: Box::new(reader), length }.into()
    }

    /// For a handler that pushes: `push` writes when it likes. For what has an end, as a report that is made line by line.
    ///
    /// What goes on for as long as a client listens is for a [`Hub`](crate::Hub): its subscribers hold no thread, and a reload
    /// moves them, where this has to end first. One that has no end asks [`stopping`](crate::stopping) now and then.
    ///
    /// It runs on a thread of its own pool, half as large as that of the workers, which it holds, also while the client
    /// is slow; while none is free, other such responses wait parked, up to `stream_wait`. What it writes is buffered up to 8 KiB and leaves on `flush`. An error it
    /// returns ends the connection without the last chunk, so that the client sees the cut.
    pub fn stream(push: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Body {
        Kind::Stream(Box::new(push)).into()
    }

    /// What a hub has for a subscriber: an event stream, or the answer to a poll.
    pub(crate) fn subscription(subscribe: Subscribe) -> Body {
        Kind::Subscription(Box::new(subscribe)).into()
    }

    /// The answer to a subscriber who need not wait for it: so many messages.
    pub(crate) fn messages(answer: Vec<u8>, messages: usize) -> Body {
        Body { messages: Some(messages.try_into().unwrap_or(u32::MAX)), ..answer.into() }
    }

    /// Behind it the connection is a WebSocket.
    pub(crate) fn conversation(converse: Converse) -> Body {
        Kind::Conversation(Box::new(converse)).into()
    }

    /// What a session of SockJS has for one of its connections.
    pub(crate) fn session(attach: Attach) -> Body {
        Kind::Session(Box::new(attach)).into()
    }

    /// What is known later.
    pub(crate) fn later(later: Later) -> Body {
        Kind::Later(Box::new(later)).into()
    }

    /// Ends the connection after this response.
    pub fn with_close(mut self) -> Body {
        self.close = true;
        self
    }

    /// The status that it has to be sent with, if it goes on behind its head as only that one says: an event stream, a poll, a
    /// WebSocket.
    pub(crate) fn only_status(&self) -> Option<u16> {
        match self.kind {
            Kind::Subscription(_) | Kind::Session(_) => Some(200),
            Kind::Conversation(_) => Some(101),
            Kind::Bytes { .. } | Kind::File { .. } | Kind::Reader { .. } | Kind::Stream(_) | Kind::Later(_) => None,
        }
    }

    /// Bytes it will have, where that is known.
    pub fn len(&self) -> Option<u64> {
        match &self.kind {
            Kind::Bytes { bytes, at } => Some((bytes.len() - at) as u64),
            Kind::File { offset, end, .. } => Some(end - offset),
            Kind::Reader { length, .. } => *length,
            Kind::Stream(_) | Kind::Subscription(_) | Kind::Conversation(_) | Kind::Session(_) | Kind::Later(_) => None,
        }
    }

    /// Whether it is known to have no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Appends the fields that go with it, behind those of its response, which are `said`.
    pub(crate) fn push_fields(&self, out: &mut Vec<u8>, said: Said) {
        if let Some(content_type) = self.content_type.filter(|_| !said.content_type) {
            push_field(out, b"Content-Type", content_type.as_bytes());
        }
        out.extend_from_slice(self.fields.as_deref().unwrap_or_default());
    }

    /// The fields that were prepared for it, one by one, for who looks for one or puts another in its place.
    pub(super) fn take_fields(&mut self) -> Vec<Header> {
        let fields = self.fields.take();
        let lines = fields.iter().flat_map(|fields| fields.split(|&byte| byte == b'\n'));
        lines
            .filter_map(|line| {
                let end = line.windows(2).position(|pair| pair == b": ")?;
                Header::from_bytes(&line[..end], line[end + 2..].trim_ascii_end()).ok()
            })
            .collect()
    }

    /// Makes a response of it: 200, no Content-Type.
    pub(crate) fn into_response_with(self, status: u16, headers: Vec<Header>) -> Response {
        let length = self.len().and_then(|length| usize::try_from(length).ok());
        Response::new(StatusCode(status), headers, self, length, None)
    }
}

impl From<Kind> for Body {
    fn from(kind: Kind) -> Body {
        Body { kind, close: false, content_type: None, fields: None, messages: None, is_status: false }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Kind::Bytes { bytes, at: 0 }.into()
    }
}

impl From<Cow<'static, [u8]>> for Body {
    fn from(bytes: Cow<'static, [u8]>) -> Body {
        match bytes {
            Cow::Borrowed(bytes) => Bytes::Static(bytes).into(),
            Cow::Owned(bytes) => Bytes::Owned(bytes).into(),
        }
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Body {
        Bytes::Static(bytes).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Bytes::Owned(bytes).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Body {
        text.as_bytes().into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        text.into_bytes().into()
    }
}

impl TryFrom<File> for Body {
    type Error = io::Error;

    /// From its current position to its present end; one that does not know its length (/proc) as far as it can be read.
    fn try_from(mut file: File) -> io::Result<Body> {
        use std::os::unix::fs::FileExt;
        let offset = file.stream_position()?;
        let end = file.metadata()?.len().max(offset);
        if end == 0 && file.read_at(&mut [0], 0)? > 0 {
            return Ok(Body::reader(file, None));
        }
        Ok(Body::file_range(file, offset, end - offset))
    }
}

/// So that it can be the `R` of `tiny_http::Response<R>`. The engine does not read it this way.
impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Bytes { bytes, at } => {
                let read = (&bytes[*at..]).read(buf)?;
                *at += read;
                Ok(read)
            }
            Kind::File { file, offset, end } => {
                use std::os::unix::fs::FileExt;
                let room = buf.len().min(usize::try_from(*end - *offset).unwrap_or(usize::MAX));
                let read = file.read_at(&mut buf[..room], *offset)?;
                *offset += read as u64;
                Ok(read)
            }
            Kind::Reader { reader, .. } => reader.read(buf),
            Kind::Stream(_) | Kind::Subscription(_) | Kind::Conversation(_) | Kind::Session(_) | Kind::Later(_) => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "a pushed body can only be sent, not read"))
            }
        }
    }
}

/// What a handler may return.
///
/// Strings become `text/plain`, bytes `application/octet-stream`, a status code its own phrase, `()` a 204,
/// `None` a 404, and an error a logged 500, but for a [`Rejection`](crate::Rejection), which has its own status. [`Json`](crate::Json),
/// [`Html`](crate::Html) and [`Redirect`](crate::Redirect) are for these; a tuple has a status or header fields before what
/// is answered, `(StatusCode, …)`, `([("Name", "value")], …)` or `(StatusCode, [("Name", "value")], …)`.
///
/// Instead of the phrase of 400 and above whoever prefers `text/html` by name in Accept, as browsers do, is sent a small page
/// that says the same; a string with that status stays what it is.
///
/// These types go with the body: they are sent where the response has no
/// Content-Type of its own, and are not among its [`headers`](tiny_http::Response::headers).
///
/// ```
/// use handover::{IntoResponse, StatusCode};
/// assert_eq!("hello".into_response().status_code(), StatusCode(200));
/// assert_eq!((StatusCode(201), "made").into_response().status_code(), StatusCode(201));
/// assert_eq!(None::<String>.into_response().status_code(), StatusCode(404));
/// assert_eq!((StatusCode(201), [("Location", "/a")], "made").into_response().headers().len(), 1);
/// ```
pub trait IntoResponse {
    /// Makes the response.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for Body {
    fn into_response(self) -> Response {
        self.into_response_with(200, Vec::new())
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

/// A field that is known to be right: the name a token, the value ASCII without control characters.
pub(crate) fn known_header(name: &str, value: &str) -> Header {
    // The callers pass ASCII, which is all `from_bytes` asks for; the writer checks the rest again.
    Header::from_bytes(name, value).expect("ASCII name and value")
}

/// The same with what was prepared for it among its headers.
pub(super) fn with_all_headers(response: Response) -> Response {
    let (status, mut headers) = (response.status_code(), response.headers().to_vec());
    let mut body = response.into_reader();
    headers.append(&mut body.take_fields());
    body.into_response_with(status.0, headers)
}

/// The type goes with the body, so that no header is made that a handler may replace.
pub(super) fn typed(mut body: Body, content_type: &'static str) -> Response {
    body.content_type = Some(content_type);
    body.into_response()
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        typed(self.into(), TEXT)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        typed(self.into(), TEXT)
    }
}

impl IntoResponse for Cow<'static, str> {
    fn into_response(self) -> Response {
        match self {
            Cow::Borrowed(text) => text.into_response(),
            Cow::Owned(text) => text.into_response(),
        }
    }
}

impl IntoResponse for &'static [u8] {
    fn into_response(self) -> Response {
        typed(self.into(), "application/octet-stream")
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        typed(self.into(), "application/octet-stream")
    }
}

impl IntoResponse for () {
    fn into_response(self) -> Response {
        Body::empty().into_response_with(204, Vec::new())
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        let text = format!("{} {}\n", self.0, self.default_reason_phrase());
        typed(Body { is_status: true, ..text.into() }, TEXT).with_status_code(self)
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Response {
        self.1.into_response().with_status_code(self.0)
    }
}

impl<T: IntoResponse> IntoResponse for Option<T> {
    fn into_response(self) -> Response {
        self.map_or_else(|| StatusCode(404).into_response(), T::into_response)
    }
}

impl<T: IntoResponse, E: IntoResponse> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        self.map_or_else(E::into_response, T::into_response)
    }
}

impl IntoResponse for io::Error {
    fn into_response(self) -> Response {
        log_rate_limited!(error, "handler failed: {self}");
        StatusCode(500).into_response()
    }
}

/// Keeps what tiny_http's response says and exchanges its reader for our body.
fn convert<R: Read>(response: tiny_http::Response<R>, body: impl FnOnce(R, Option<u64>) -> Body) -> Response {
    let (status, headers) = (response.status_code(), response.headers().to_vec());
    let length = response.data_length().map(|length| length as u64);
    body(response.into_reader(), length).into_response_with(status.0, headers)
}

impl IntoResponse for tiny_http::Response<io::Cursor<Vec<u8>>> {
    fn into_response(self) -> Response {
        convert(self, |cursor, _| {
            let at = usize::try_from(cursor.position()).unwrap_or(usize::MAX).min(cursor.get_ref().len());
            Kind::Bytes { bytes: Bytes::Owned(cursor.into_inner()), at }.into()
        })
    }
}

impl IntoResponse for tiny_http::Response<File> {
    fn into_response(self) -> Response {
        convert(self, |mut file, length| match (file.stream_position(), length) {
            (Ok(offset), Some(length)) => Body::file_range(file, offset, length),
            // Not seekable, or of a length nobody said: read to its end.
            (_, length) => Body::reader(file, length),
        })
    }
}

impl IntoResponse for tiny_http::Response<io::Empty> {
    fn into_response(self) -> Response {
        convert(self, |_, _| Body::empty())
    }
}

impl IntoResponse for tiny_http::ResponseBox {
    fn into_response(self) -> Response {
        convert(self, Body::reader)
    }
}
