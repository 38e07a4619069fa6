//! A subscription that a handler of an application's makes.

use super::hub::Namespace;
use super::question::Question;
use super::service::Service;
use crate::api::{Request, Response};
use tiny_http::Header;

impl Namespace {
    /// Makes a subscription for the client of a request, in the form that it asks for; see [`Subscribe`]. Who may have it is for
    /// the caller to say, and no token is asked for.
    pub fn subscribe<'r>(&self, request: &'r Request) -> Subscribe<'r> {
        Subscribe { namespace: self.clone(), request, topics: Vec::new(), headers: Vec::new() }
    }
}

/// A subscription that a handler makes.
///
/// The client says by its request whether it wants an event stream or polls, and where to begin: `Accept`, `Last-Event-ID`,
/// and the query's `since`, `wait`, `format` and `beat`.
///
/// ```
/// use handover::{Header, Hub, IntoResponse, Request, Response, StatusCode};
///
/// let rooms = Hub::new().namespace("rooms");
/// let listen = move |request: &mut Request| -> Response {
///     let Some(user) = request.cookie("user") else { return StatusCode(403).into_response() };
///     let own = format!("of-{user}");
///     let field = Header::from_bytes("X-Rooms", "2").expect("a field");
///     rooms.subscribe(request).topic("all").topic(own).heartbeat(30).header(field).respond()
/// };
/// # let _ = handover::Server::builder().handler(listen);
/// ```
#[derive(Debug)]
pub struct Subscribe<'r> {
    namespace: Namespace,
    request: &'r Request,
    topics: Vec<String>,
    headers: Vec<Header>,
}

impl Subscribe<'_> {
    /// One more topic, of at most 32.
    #[must_use]
    pub fn topic(mut self, name: impl Into<String>) -> Self {
        self.topics.push(name.into());
        self
    }

    /// Seconds between heartbeats, instead of the namespace's.
    #[must_use]
    pub fn heartbeat(mut self, seconds: u16) -> Self {
        self.namespace.heartbeat = seconds;
        self
    }

    /// One more field of the response.
    #[must_use]
    pub fn header(mut self, header: Header) -> Self {
        self.headers.push(header);
        self
    }

    /// The response: a stream, an answer, or an error that says what is wrong with the request. HEAD does not subscribe.
    pub fn respond(self) -> Response {
        let Subscribe { namespace, request, topics, headers } = self;
        let service = Service::new(namespace);
        let response = match Question::read(request) {
            Ok(question) => service.subscribe(request, &topics, &question, None),
            Err(wrong) => wrong.into_response(),
        };
        let response = headers.into_iter().fold(response, Response::with_header);
        service.with_origin(request, response)
    }
}
