//! The request as a handler sees it.

use super::{Extensions, Rejection};
use crate::logging::rate_limit::log_rate_limited;
use http1::framing::{BodyFraming, body_framing, expects_continue};
use http1::head::{Fields, Head, HeadLimits};
use http1::{Reject, head, is_same_name};
use percent_encoding::percent_decode;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::io::{self, Cursor, Read};
use std::net::SocketAddr;
use std::str::FromStr;
use tiny_http::{HTTPVersion, Header, Method};

/// Room that is made at once for a body that is collected, if it said that it is as large.
const READ_AT_ONCE: u64 = 1 << 20;

/// A request: its raw bytes, what they say, and its body.
///
/// The accessors of `tiny_http::Request` are here under the same names; `header`, `path`, `query` and `param`
/// read the raw bytes and are cheaper than `headers`.
///
/// ```
/// use handover::{Method, Request};
/// use std::io::Read;
///
/// let head = b"POST /notes/1?draft=yes HTTP/1.1\r\nHost: example.org\r\nContent-Type: text/plain\r\n\r\n";
/// let mut request = Request::from_head(head).expect("a head").with_body("two bottles");
/// assert_eq!((request.method(), request.path(), request.query()), (&Method::Post, "/notes/1", Some("draft=yes")));
/// assert_eq!((request.url(), request.host()), ("/notes/1?draft=yes", Some("example.org")));
/// assert_eq!((request.header("content-type"), request.header_bytes("Accept")), (Some("text/plain"), None));
/// assert_eq!((request.header_values("Host").count(), request.headers().len()), (1, 2));
/// assert_eq!((request.http_version().1, request.remote_addr(), request.param("id")), (1, None, None));
/// let mut begin = [0; 3];
/// request.as_reader().read_exact(&mut begin).expect("it is there");
/// assert_eq!((request.body_length(), &begin), (Some(11), b"two"));
/// assert_eq!(request.body_bytes().expect("the rest"), b" bottles");
/// assert_eq!(request.take_body().read(&mut begin).expect("nothing is left"), 0);
/// ```
pub struct Request {
    bytes: Vec<u8>,
    head: Head,
    version: HTTPVersion,
    headers: OnceCell<Vec<Header>>,
    params: Vec<(String, String)>,
    /// Where in the path what is mounted at a prefix begins: behind it.
    rest: usize,
    remote: Option<SocketAddr>,
    /// Whether it came over no connection.
    made: bool,
    user: Option<Box<str>>,
    extensions: Extensions,
    body: RequestBody,
    length: Option<u64>,
}

/// What of a head its connection goes by: how the answer ends, and whether another request may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    is_head: bool,
    minor: u8,
    keep_alive: bool,
}

impl Request {
    /// A request that came over no connection, for the tests of a handler. `None` for what is no whole and valid head.
    ///
    /// ```
    /// use handover::{Handler, Request, Router};
    ///
    /// let router = Router::new().get("/hello/{name}", |request: &mut Request| request.param("name").map(str::to_owned));
    /// let mut request = Request::from_head(b"GET /hello/ada HTTP/1.1\r\nHost: test\r\n\r\n").expect("a head");
    /// assert_eq!(router.handle(&mut request).status_code().0, 200);
    /// ```
    pub fn from_head(head: &[u8]) -> Option<Request> {
        let lines = head.iter().filter(|&&byte| byte == b'\n').count();
        let limits = HeadLimits { size: usize::from(u16::MAX), target: head.len(), fields: lines };
        let mut request = Request::empty();
        let parsed = request.parse_ahead(head, &limits, None);
        request.made = true;
        (parsed == Some(head.len())).then_some(request)
    }

    /// This body instead of none; for the tests of a handler, as [`from_head`](Request::from_head).
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Request {
        let body = body.into();
        let length = body.len() as u64;
        self.set_body(RequestBody::buffered(body), Some(length));
        self
    }

    pub(crate) fn empty() -> Request {
        Request {
            bytes: Vec::new(),
            head: Head::default(),
            version: HTTPVersion(1, 1),
            headers: OnceCell::new(),
            params: Vec::new(),
            rest: 0,
            remote: None,
            made: false,
            user: None,
            extensions: Extensions::default(),
            body: RequestBody::empty(),
            length: None,
        }
    }

    /// Reads a complete head; what it allocated for earlier requests is used again.
    pub(crate) fn parse(&mut self, head: &[u8], limits: &HeadLimits, remote: Option<SocketAddr>) -> Result<(), Reject> {
        self.begin(head, remote);
        self.head.parse(&self.bytes, limits)?;
        self.version = HTTPVersion(1, self.head.minor);
        Ok(())
    }

    /// Reads the head in front of `input` if that is whole and right, and answers its length.
    pub(crate) fn parse_ahead(
        &mut self,
        input: &[u8],
        limits: &HeadLimits,
        remote: Option<SocketAddr>,
    ) -> Option<usize> {
        let length = self.head.parse_ahead(input, limits)?;
        self.begin(&input[..length], remote);
        self.version = HTTPVersion(1, self.head.minor);
        Some(length)
    }

    fn begin(&mut self, head: &[u8], remote: Option<SocketAddr>) {
        self.bytes.clear();
        self.bytes.extend_from_slice(head);
        self.headers.take();
        self.params.clear();
        self.rest = 0;
        self.remote = remote;
        self.made = false;
        self.user = None;
        self.release_extensions();
        self.body = RequestBody::empty();
        self.length = None;
    }

    pub(crate) fn set_body(&mut self, body: RequestBody, length: Option<u64>) {
        self.body = body;
        self.length = length;
    }

    pub(crate) fn set_params(&mut self, params: Vec<(String, String)>) {
        self.params = params;
    }

    /// From there on, its slash included, the path is what is mounted's.
    pub(crate) fn set_rest_of_path(&mut self, at: usize) {
        self.rest = at;
    }

    /// The path behind the prefix at which the handler is mounted and its slash, as it was sent.
    pub(crate) fn rest_of_path(&self) -> &str {
        let rest = self.path().get(self.rest..).unwrap_or_default();
        rest.strip_prefix('/').unwrap_or(rest)
    }

    /// What conditions are evaluated on.
    pub(crate) fn fields(&self) -> Fields<'_> {
        Fields { head: &self.head, bytes: &self.bytes }
    }

    pub(crate) fn head(&self) -> (&Head, &[u8]) {
        (&self.head, &self.bytes)
    }

    pub(crate) fn terms(&self) -> Terms {
        let Head { method, minor, keep_alive, .. } = &self.head;
        Terms { is_head: *method == Method::Head, minor: *minor, keep_alive: *keep_alive }
    }

    /// Holds it to the terms of the request that came, where a layer has put another into its place: the client, who knows
    /// nothing of that, would take the content of an answer to its HEAD for the next response.
    pub(crate) fn hold_to(&mut self, terms: Terms) {
        if self.terms() == terms {
            return;
        }
        match (terms.is_head, self.head.method == Method::Head) {
            (true, false) => self.head.method = Method::Head,
            (false, true) => self.head.method = Method::Get,
            _ => {}
        }
        (self.head.minor, self.head.keep_alive) = (terms.minor, terms.keep_alive);
    }

    /// How the body comes, and whether the client waits to be told to send it.
    pub(crate) fn expected_body(&self) -> Result<(BodyFraming, bool), Reject> {
        let (head, bytes) = self.head();
        // RFC 9110 §9.3.8: TRACE echoes what may hold secrets, so it is off.
        if head.method == Method::Trace {
            return Err(Reject::MethodNotAllowed);
        }
        Ok((body_framing(head, bytes)?, expects_continue(head, bytes)?))
    }

    /// Bytes that it keeps on the heap, without a streamed body.
    pub(crate) fn held(&self) -> usize {
        let user = self.user.as_ref().map_or(0, |user| user.len());
        self.bytes.capacity() + self.head.fields.capacity() * size_of::<head::Field>() + user
    }

    /// Keeps no more than it needs, for a request that has to wait.
    pub(crate) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.head.fields.shrink_to_fit();
    }

    /// Drops what layers have left with it.
    pub(crate) fn release_extensions(&mut self) {
        self.extensions = Extensions::default();
    }

    /// Drops the body, and with it a streamed one's hold on the connection.
    pub(crate) fn release_body(&mut self) {
        self.body = RequestBody::empty();
    }

    /// Whether it is a GET of the whole, whatever the client has: without Range and preconditions (RFC 9110 §13.1).
    pub(crate) fn is_plain_get(&self) -> bool {
        let special = |name: &[u8]| match name {
            [b'i' | b'I', b'f' | b'F', b'-', ..] => true,
            name => is_same_name(name, b"range"),
        };
        *self.method() == Method::Get && !self.head.fields.iter().any(|field| special(field.name.in_bytes(&self.bytes)))
    }

    /// Method and target, the beginning of the request line.
    pub(crate) fn line_bytes(&self) -> &[u8] {
        let line = &self.bytes[..usize::from(self.head.target.end)];
        line.strip_prefix(b"\r\n").unwrap_or(line)
    }

    /// The target as [`url`](Request::url) says it, and the path as sent; both cheaper than text.
    fn target_bytes(&self) -> &[u8] {
        self.head.target.in_bytes(&self.bytes)
    }

    pub(crate) fn path_bytes(&self) -> &[u8] {
        self.head.path.in_bytes(&self.bytes)
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The request target as sent: usually path and query.
    pub fn url(&self) -> &str {
        ascii(self.target_bytes())
    }

    /// The target for the log, which may be read by more than those whom a token is for: without those of its query.
    pub(crate) fn shown_url(&self) -> Cow<'_, str> {
        without_token(self.url())
    }

    /// The path, percent-encoded as sent; `*` for `OPTIONS *`, and `/` where an absolute target has none.
    pub fn path(&self) -> &str {
        match ascii(self.path_bytes()) {
            "" => "/",
            path => path,
        }
    }

    /// The query without its `?`, percent-encoded as sent.
    pub fn query(&self) -> Option<&str> {
        self.head.query.map(|query| ascii(query.in_bytes(&self.bytes)))
    }

    /// The first value of that name in the query, decoded as a form's: `+` is a space, and what is no UTF-8 is replaced.
    ///
    /// ```
    /// let head = b"GET /search?q=a+b%26c&q=d&empty HTTP/1.1\r\nHost: test\r\n\r\n";
    /// let request = handover::Request::from_head(head).expect("a head");
    /// assert_eq!(request.query_param("q").as_deref(), Some("a b&c"));
    /// assert_eq!(request.query_param("empty").as_deref(), Some(""));
    /// assert_eq!(request.query_param("none"), None);
    /// ```
    pub fn query_param(&self, name: &str) -> Option<String> {
        let text = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode(spaced.as_bytes()).decode_utf8_lossy().into_owned()
        };
        let mut pairs = self.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find_map(|(key, value)| (text(key) == name).then(|| text(value)))
    }

    /// The first cookie of that name, as it was sent (RFC 6265 §4.2); `None` also for one that is not UTF-8.
    ///
    /// ```
    /// let head = b"GET / HTTP/1.1\r\nHost: test\r\nCookie: a=1; session=x=y\r\n\r\n";
    /// let request = handover::Request::from_head(head).expect("a head");
    /// assert_eq!((request.cookie("session"), request.cookie("b")), (Some("x=y"), None));
    /// ```
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let values = self.header_values("Cookie").filter_map(|value| std::str::from_utf8(value).ok());
        let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim_ascii().split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The host, with its port if it has one: from an absolute target, else from Host (RFC 9112 §3.3).
    pub fn host(&self) -> Option<&str> {
        self.head.host.map(|host| ascii(host.in_bytes(&self.bytes)))
    }

    /// The part of the path that the router's `{name}` matched, percent-decoded. It may be `..` or have slashes, as `%2F`: as
    /// the name of a file it is to be looked at first.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The same, as a number or whatever else can be read from text.
    ///
    /// ```
    /// use handover::{Rejection, Request, Router, test::Client};
    ///
    /// fn square(request: &mut Request) -> Result<String, Rejection> {
    ///     let number: i64 = request.param_as("number")?;
    ///     Ok(format!("{}\n", number * number))
    /// }
    ///
    /// let client = Client::new(Router::new().get("/square/{number}", square));
    /// assert_eq!(client.get("/square/12").send().text(), "144\n");
    /// let answer = client.get("/square/dozen").send();
    /// assert_eq!((answer.status(), answer.text()), (400, "number in the path is \"dozen\": invalid digit found in string\n"));
    /// ```
    ///
    /// # Errors
    /// 400 for what cannot be read so; 500 where the route has no parameter of that name.
    pub fn param_as<T>(&self, name: &str) -> Result<T, Rejection>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let Some(value) = self.param(name) else {
            log_rate_limited!(error, "handler failed: there is no {name:?} in the path of its route");
            return Err(Rejection::new(500, "500 Internal Server Error"));
        };
        value.parse().map_err(|error| Rejection::new(400, format_args!("{name} in the path is {value:?}: {error}")))
    }

    /// The first value of that field as text; `None` where it is missing or not UTF-8. Names ignore case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_bytes(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The first value of that field as bytes.
    pub fn header_bytes(&self, name: &str) -> Option<&[u8]> {
        self.header_values(name).next()
    }

    /// Every value of that field, in order.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.head.all(&self.bytes, name)
    }

    /// The first values of these fields, looked for at once; nothing where there is none.
    pub(crate) fn first_values<const N: usize>(&self, names: [&str; N]) -> [&[u8]; N] {
        let mut values = [None; N];
        for field in &self.head.fields {
            let name = field.name.in_bytes(&self.bytes);
            // Most are of another length than all of them.
            let is = |other: &&str| other.len() == name.len() && is_same_name(name, other.as_bytes());
            if let Some(at) = names.iter().position(is) {
                values[at].get_or_insert_with(|| field.value.in_bytes(&self.bytes));
            }
        }
        values.map(Option::unwrap_or_default)
    }

    /// The fields as `tiny_http` headers, made when first asked for. Values that are not ASCII are left out.
    pub fn headers(&self) -> &[Header] {
        self.headers.get_or_init(|| {
            let fields = self.head.fields.iter();
            fields
                .filter_map(|&head::Field { name, value }| {
                    Header::from_bytes(name.in_bytes(&self.bytes), value.in_bytes(&self.bytes)).ok()
                })
                .collect()
        })
    }

    /// The version; 1.1 for every minor version above.
    pub fn http_version(&self) -> &HTTPVersion {
        &self.version
    }

    /// Bytes of the body: Content-Length, or what was collected of a chunked body; `None` for a chunked body that
    /// is still on its way.
    pub fn body_length(&self) -> Option<usize> {
        self.length.and_then(|length| usize::try_from(length).ok())
    }

    /// The client's address; `None` on a Unix socket.
    pub fn remote_addr(&self) -> Option<&SocketAddr> {
        self.remote.as_ref()
    }

    /// Whether it came by a Unix socket, and was not made here for one that came from elsewhere.
    pub(crate) fn is_by_unix_socket(&self) -> bool {
        self.remote.is_none() && !self.made
    }

    /// Says whose request it is: who has shown that, or claims it and is refused. The request log has the name, with that of
    /// a subscriber or a WebSocket through reloads too. Control characters of it become U+FFFD.
    ///
    /// ```
    /// use handover::{IntoResponse, Request, Response, StatusCode};
    ///
    /// fn page(request: &mut Request) -> Response {
    ///     // A real one is compared in a time that says nothing of it.
    ///     let user = request.cookie("session").filter(|session| *session == "4f1c").map(|_| "ada");
    ///     let Some(user) = user else { return StatusCode(403).into_response() };
    ///     request.set_user(user);
    ///     format!("hello {user}\n").into_response()
    /// }
    ///
    /// let head = b"GET / HTTP/1.1\r\nHost: test\r\nCookie: session=4f1c\r\n\r\n";
    /// let mut request = Request::from_head(head).expect("a head");
    /// assert_eq!(page(&mut request).status_code(), StatusCode(200));
    /// assert_eq!(request.user(), Some("ada"));
    /// ```
    pub fn set_user(&mut self, name: &str) {
        self.user = Some(name.replace(char::is_control, "\u{fffd}").into());
    }

    /// Whose request it is, if somebody has said that: [`set_user`](Request::set_user), or `auth` of the program's routes.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// What layers have left with it, by type; see the example of [`Extensions`].
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The same, to leave something with it; see the example of [`Extensions`].
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.extensions
    }

    /// Reads the body. Up to `buffered_body` bytes are there already; a larger body waits for the client.
    pub fn as_reader(&mut self) -> &mut dyn Read {
        &mut self.body
    }

    /// Takes the body, for a response that streams it; what stays is empty.
    pub fn take_body(&mut self) -> RequestBody {
        std::mem::replace(&mut self.body, RequestBody::empty())
    }

    /// The coding that the body came in, of which none is decoded here.
    pub(crate) fn content_coding(&self) -> Option<Cow<'_, str>> {
        let codings = self.header_values("Content-Encoding");
        codings.filter(|coding| !coding.eq_ignore_ascii_case(b"identity")).map(String::from_utf8_lossy).next()
    }

    /// For those who read it as something.
    #[cfg(any(feature = "json", feature = "form"))]
    pub(super) fn whole_body(&mut self) -> Result<Vec<u8>, Rejection> {
        if let Some(coding) = self.content_coding() {
            return Err(Rejection::new(415, format!("a body with Content-Encoding {coding:.40?} is not decoded here")));
        }
        // Of what goes wrong on a connection the engine knows more, and answers that.
        self.body_bytes().map_err(|error| Rejection::new(400, format_args!("the body could not be read: {error}")))
    }

    /// The whole body, at most as large as the limit for this request.
    pub fn body_bytes(&mut self) -> io::Result<Vec<u8>> {
        match self.take_body().0 {
            BodyKind::Buffered(cursor) if cursor.position() == 0 => Ok(cursor.into_inner()),
            BodyKind::Buffered(cursor) => Ok(cursor.get_ref()[cursor.position() as usize..].to_vec()),
            BodyKind::Streamed(mut body) => {
                // What a client only says that it will send costs no more than this.
                let declared = self.length.map_or(0, |length| length.min(READ_AT_ONCE));
                let mut bytes = Vec::with_capacity(declared as usize);
                while body.read_behind(&mut bytes)? > 0 {}
                Ok(bytes)
            }
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} {} HTTP/{})", self.method(), self.shown_url(), self.version)
    }
}

/// A target, a request line or the beginning of one, with dots for each value of `token=` in its query.
pub(crate) fn without_token(line: &str) -> Cow<'_, str> {
    let Some((before, query)) = line.split_once('?') else { return line.into() };
    let (query, behind) = query.split_at(query.find(' ').unwrap_or(query.len()));
    let is_token = |part: &str| part.starts_with("token=");
    if !query.split('&').any(is_token) {
        return line.into();
    }
    let shown: Vec<&str> = query.split('&').map(|part| if is_token(part) { "token=..." } else { part }).collect();
    format!("{before}?{}{behind}", shown.join("&")).into()
}

/// The body of a request, to be read. See the example of [`Request`].
pub struct RequestBody(BodyKind);

enum BodyKind {
    Buffered(Cursor<Vec<u8>>),
    Streamed(Box<dyn ReadBehind + Send>),
}

/// A body that can be collected without a buffer between.
pub(crate) trait ReadBehind: Read {
    /// Waits for more of the body and appends it, into the spare room if there is any; of a body whose length is known,
    /// room is only made for what is left of it. 0 is the end.
    fn read_behind(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize>;
}

impl RequestBody {
    pub(crate) fn empty() -> RequestBody {
        RequestBody::buffered(Vec::new())
    }

    pub(crate) fn buffered(bytes: Vec<u8>) -> RequestBody {
        RequestBody(BodyKind::Buffered(Cursor::new(bytes)))
    }

    pub(crate) fn streamed(body: impl ReadBehind + Send + 'static) -> RequestBody {
        RequestBody(BodyKind::Streamed(Box::new(body)))
    }
}

impl Read for RequestBody {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            BodyKind::Buffered(cursor) => cursor.read(buf),
            BodyKind::Streamed(body) => body.read(buf),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            BodyKind::Buffered(_) => "RequestBody(buffered)",
            BodyKind::Streamed(_) => "RequestBody(streamed)",
        })
    }
}

/// The parser lets only ASCII into targets and hosts.
fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("")
}

/// Percent-decodes a path segment; what is not UTF-8 becomes U+FFFD.
pub(super) fn decode(segment: &str) -> Cow<'_, str> {
    percent_decode(segment.as_bytes()).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown_wherever_its_line_ends() {
        for (line, shown) in [
            ("GET /a?token=x.y.z HTTP/1.1", "GET /a?token=... HTTP/1.1"),
            ("GET /a?b=1&token=x&c=2&token=y", "GET /a?b=1&token=...&c=2&token=..."),
            ("GET http://host/?token=", "GET http://host/?token=..."),
            ("/token=1?tokens=2&a=?token=3", "/token=1?tokens=2&a=?token=3"),
            ("GET /a?tok", "GET /a?tok"),
            ("/a", "/a"),
        ] {
            assert_eq!(without_token(line), shown, "{line}");
        }
        let request = Request::from_head(b"GET /a?token=secret HTTP/1.1\r\nHost: test\r\n\r\n").expect("a head");
        assert_eq!(format!("{request:?}"), "Request(GET /a?token=... HTTP/1.1)");
    }
}
