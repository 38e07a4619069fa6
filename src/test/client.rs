//! A client of a handler, without a socket.

use super::exchange::answer;
use super::request::{Ask, RequestBuilder};
use super::response::Response;
use crate::api::Handler;
use crate::config::Limits;

/// Asks a [`Handler`] as a client would a server, in this thread and without any socket.
///
/// The request is written as bytes and read by the server's own parser, and what it refuses is refused here: a malformed
/// head (400), one that is too large (431), a body beyond the limit of its route (413), TRACE (405). A handler that panics is
/// 500, a HEAD has no body, and the answer is what would be sent, byte for byte but for Date.
///
/// What needs a server is not here: its own routes below `/-/`, timeouts, push and WebSockets. These are for [`Server`](super::Server).
///
/// ```
/// use handover::{Request, Router, test::Client};
///
/// let upload = |request: &mut Request| request.body_bytes().map(|body| format!("{} bytes\n", body.len()));
/// let client = Client::new(Router::new().post("/upload", upload).max_body(10));
/// assert_eq!(client.post("/upload").body("0123456789").send().text(), "10 bytes\n");
/// assert_eq!(client.post("/upload").body("0123456789a").send().status(), 413);
/// assert_eq!(client.raw(b"GET / HTTP/1.1\r\n\r\n").status(), 400, "there is no Host");
/// ```
///
/// # Panics
/// Its calls panic where the test is wrong: a body that cannot be made, an answer that only a server can send.
pub struct Client {
    handler: Box<dyn Handler>,
    limits: Limits,
}

impl Client {
    /// A client of that handler, a [`Router`](crate::Router) for example, with the default limits.
    pub fn new(handler: impl Handler) -> Client {
        Client { handler: Box::new(handler), limits: Limits::default() }
    }

    /// With these limits; only sizes count.
    ///
    /// ```
    /// use handover::{Limits, Router, test::Client};
    /// let client = Client::new(Router::new()).limits(Limits { target_size: 20, ..Limits::default() });
    /// assert_eq!(client.get("/a/target/that/is/too/long").send().status(), 414);
    /// ```
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Client {
        self.limits = limits;
        self
    }

    /// A GET of that target: `/path` or `/path?query`, percent-encoded.
    ///
    /// ```
    /// use handover::{Router, test::Client};
    /// let client = Client::new(Router::new().get("/a", |_| "hello"));
    /// assert_eq!(client.get("/a?b=c").send().text(), "hello");
    /// ```
    pub fn get(&self, target: &str) -> RequestBuilder<'_> {
        self.request("GET", target)
    }

    /// A HEAD, as [`get`](Client::get).
    pub fn head(&self, target: &str) -> RequestBuilder<'_> {
        self.request("HEAD", target)
    }

    /// A POST, as [`get`](Client::get).
    pub fn post(&self, target: &str) -> RequestBuilder<'_> {
        self.request("POST", target)
    }

    /// A PUT, as [`get`](Client::get).
    pub fn put(&self, target: &str) -> RequestBuilder<'_> {
        self.request("PUT", target)
    }

    /// A PATCH, as [`get`](Client::get).
    pub fn patch(&self, target: &str) -> RequestBuilder<'_> {
        self.request("PATCH", target)
    }

    /// A DELETE, as [`get`](Client::get).
    pub fn delete(&self, target: &str) -> RequestBuilder<'_> {
        self.request("DELETE", target)
    }

    /// A request of any method.
    ///
    /// ```
    /// use handover::{Router, test::Client};
    /// let client = Client::new(Router::new().get("/", |_| "hello"));
    /// assert_eq!(client.request("OPTIONS", "/").send().header("Allow"), Some("GET, HEAD, OPTIONS"));
    /// ```
    pub fn request(&self, method: &str, target: &str) -> RequestBuilder<'_> {
        RequestBuilder::new(self, method, target)
    }

    /// One request as bytes, head and body, whatever is in them; see the example [above](Client). What ends too soon is 408,
    /// as a client would be told that sends no more.
    pub fn raw(&self, request: &[u8]) -> Response {
        Response::read(&answer(&*self.handler, &self.limits, request), request.starts_with(b"HEAD "))
    }
}

impl Ask for Client {
    fn host(&self) -> String {
        "test".to_owned()
    }

    fn ask(&self, request: &[u8]) -> Response {
        self.raw(request)
    }
}
