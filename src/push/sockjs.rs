//! SockJS: how browsers come to a conversation that have no WebSocket, or whose network lets none through.

use super::conversation::{ConversationService, handshake, new_id, switch, too_many};
use super::origin::is_same_origin;
use crate::api::{
    Arrived, Attach, Body, Converse, Framed, Handler, HearError, IntoResponse, Owner, Request, Response, Session, Side,
    Talker, known_header,
};
use crate::clock::{Millis, wall_clock};
use pubsub::Inbox;
use sockjs::payload::{self, Limits};
use sockjs::{
    Answer, Asked, Endpoint, Form, Origins, Refusal, Route, Service, Settings, Transport, check_upgrade, route,
};
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;
use tiny_http::StatusCode;
use websocket::Offer;

/// Sessions of a service, unless the application says otherwise.
const MAX_SESSIONS: usize = 10_000;
/// A payload has at most so many times the bytes of a message: JSON escapes some of them.
const ESCAPED: usize = 2;
/// How long a client is to wait where there are too many.
const RETRY_AFTER: &str = "5";

/// Clients of a conversation by SockJS (0.3.3, and what its main branch has made tighter), for
/// [`Router::mount_service`](crate::Router::mount_service): a page comes to it by `new SockJS("/echo")` of `sockjs-client`
/// (tested with 1.6.1).
///
/// Event streams, streamed and plain polls and WebSockets lead to the same [`Conversation`](crate::Conversation). A session
/// outlives the requests that it consists of, for 5 seconds, and goes through reloads like a WebSocket. It belongs to who has
/// opened it: a request with another Origin or another Authorization is answered with 403. Its client takes text alone.
///
/// What is for old browsers is off until it is switched on: [`jsonp`](SockJs::jsonp), [`htmlfile`](SockJs::htmlfile) and
/// [`iframe`](SockJs::iframe).
///
/// ```
/// # use handover::{Carried, Client, Conversation, Hub, Incoming, Request, Response, Router};
/// # use std::time::Duration;
/// # struct Echo;
/// # impl Conversation for Echo {
/// #     type State = ();
/// #     fn open(&self, _: &Client, _: &mut Request) -> Result<(), Response> { Ok(()) }
/// #     fn message(&self, _: &Client, (): &mut (), _: Incoming<'_>) {}
/// #     fn save(&self, (): &()) -> Carried { Carried { version: 1, bytes: Vec::new() } }
/// #     fn restore(&self, _: &Client, _: Carried) -> Option<()> { Some(()) }
/// # }
/// let hub = Hub::new();
/// let echo = hub.conversation("echo", Echo);
/// let router = Router::new().mount_service("/echo", echo.sockjs().cookie(true));
/// // What there is to set, with its defaults but for the third line:
/// let other = echo.sockjs()
///     .websocket(true).cookie(false).max_sessions(10_000).response_limit(128 << 10)
///     .jsonp(true).htmlfile(true).iframe("/sockjs.min.js")
///     .heartbeat(Duration::from_secs(25)).disconnect_delay(Duration::from_secs(5));
/// # let _ = (router, other);
/// ```
#[derive(Clone)]
pub struct SockJs {
    conversation: ConversationService,
    service: Arc<Service>,
    settings: Settings,
    max_sessions: usize,
}

impl ConversationService {
    /// The same by SockJS, for [`Router::mount_service`](crate::Router::mount_service), with the origins and the limit of a
    /// message as they were set before this.
    pub fn sockjs(&self) -> SockJs {
        SockJs::new(self.clone())
    }
}

impl SockJs {
    fn new(conversation: ConversationService) -> SockJs {
        let origins = Origins::new(conversation.origins_allowed().iter().cloned());
        let service = Arc::new(Service { origins, ..Service::default() });
        SockJs { conversation, service, settings: Settings::default(), max_sessions: MAX_SESSIONS }
    }

    fn with_service(mut self, change: impl FnOnce(&mut Service)) -> SockJs {
        change(Arc::make_mut(&mut self.service));
        self
    }

    /// Whether there are WebSockets, its own and `/websocket` without SockJS's frames. Default true.
    #[must_use]
    pub fn websocket(self, on: bool) -> SockJs {
        self.with_service(|service| service.features.websocket = on)
    }

    /// Whether there are answers that are scripts, for browsers without CORS: any page may load them, so that a session is
    /// then not bound to an Origin. Default false.
    #[must_use]
    pub fn jsonp(self, on: bool) -> SockJs {
        self.with_service(|service| service.features.jsonp = on)
    }

    /// Whether there is the stream for Internet Explorer. Default false.
    #[must_use]
    pub fn htmlfile(self, on: bool) -> SockJs {
        self.with_service(|service| service.features.htmlfile = on)
    }

    /// The page that a browser without CORS loads into a frame, with the script at that URL: what stands there runs with this
    /// server's own origin. Default none.
    #[must_use]
    pub fn iframe(self, script_url: &str) -> SockJs {
        self.with_service(|service| {
            service.features.iframe = true;
            script_url.clone_into(&mut service.script_url);
        })
    }

    /// Whether clients get a cookie, `JSESSIONID`, by which a balancer leads them to the same server. Default false.
    #[must_use]
    pub fn cookie(self, on: bool) -> SockJs {
        self.with_service(|service| service.cookie = on)
    }

    /// How long a client hears nothing until it gets a heartbeat. Default 25 seconds.
    #[must_use]
    pub fn heartbeat(mut self, every: Duration) -> SockJs {
        self.settings.heartbeat = milliseconds(every);
        self
    }

    /// How long a session is kept for a client that has no request here. Default 5 seconds.
    #[must_use]
    pub fn disconnect_delay(mut self, delay: Duration) -> SockJs {
        self.settings.disconnect = milliseconds(delay);
        self
    }

    /// Bytes after which a streamed response ends, and its client asks for another: browsers keep what they got. Default
    /// 128 KiB.
    #[must_use]
    pub fn response_limit(mut self, bytes: u64) -> SockJs {
        self.settings.response_limit = bytes;
        self
    }

    /// Sessions at a time; those of WebSockets are not among them. Beyond that clients get 503. Default 10,000, and no more
    /// than may subscribe to the hub.
    #[must_use]
    pub fn max_sessions(mut self, sessions: usize) -> SockJs {
        self.max_sessions = sessions;
        self
    }

    fn limits(&self) -> Limits {
        Limits { bytes: self.conversation.most_bytes().saturating_mul(ESCAPED), ..Limits::default() }
    }

    fn refused(&self, refusal: Refusal, asked: Asked<'_>) -> Response {
        response_of(self.service.refused(refusal, asked))
    }

    /// The session's owner as a request says it. A page of this server's own origin may say so, or not.
    fn owner(&self, request: &Request) -> Owner {
        let origin = request.header("Origin").filter(|_| !is_same_origin(request)).map(str::to_owned);
        // A script's request has no Origin, whosever page it is on.
        let origin = origin.filter(|_| !self.service.features.jsonp);
        Owner { origin, authorization: request.header_bytes("Authorization").map(<[u8]>::to_vec) }
    }

    fn allows(&self, request: &Request) -> bool {
        match request.header_bytes("Origin").map(str::from_utf8) {
            None => true,
            Some(Ok(origin)) => is_same_origin(request) || self.service.origins.allow(origin),
            Some(Err(_)) => false,
        }
    }

    fn receive(&self, request: &mut Request, session: &str, transport: Transport) -> Response {
        let form = match Form::new(transport, request.query()) {
            Ok(form) => form,
            Err(refusal) => return self.refused(refusal, asked(request)),
        };
        let answer = response_of(self.service.receiving(transport, asked(request)));
        let (receiver, now) = (new_id(), Millis::now().0);
        let arrived = self.conversation.sessions().arrive(
            self.conversation.hub(),
            (self.conversation.name(), session),
            self.owner(request),
            (receiver, form),
            self.settings,
            self.max_sessions,
            now,
        );
        let session = match arrived {
            Arrived::Joined(session) => session,
            Arrived::New(session) => match self.open(request, &session) {
                Ok(talker) => {
                    session.open(talker, Millis::now().0);
                    session
                }
                Err(response) => {
                    session.refuse(Millis::now().0);
                    return self.readable(request, response);
                }
            },
            Arrived::NotYours => return self.refuse(request, 403, "this session is somebody else's\n"),
            Arrived::Full => return self.full(request),
        };
        let attach = Attach::new(session, receiver, transport.is_polling());
        let (status, headers) = (answer.status_code().0, answer.headers().to_vec());
        Body::session(attach).into_response_with(status, headers)
    }

    fn full(&self, request: &Request) -> Response {
        let peer = request.remote_addr().map_or_else(|| "a Unix socket".to_owned(), |peer| peer.ip().to_string());
        crate::logging::rate_limit::log_rate_limited!(warn, "no session for {peer}: there are as many as there may be");
        self.readable(request, too_many()).with_header(known_header("Retry-After", RETRY_AFTER))
    }

    fn refuse(&self, request: &Request, status: u16, text: &'static str) -> Response {
        self.readable(request, (StatusCode(status), text).into_response())
    }

    /// With what lets a page of another origin read it, where that is not said yet.
    fn readable(&self, request: &Request, response: Response) -> Response {
        let says = |response: &Response, name: &str| {
            response.headers().iter().any(|header| header.field.as_str().as_str().eq_ignore_ascii_case(name))
        };
        let fields = self.service.cors(asked(request)).into_iter();
        fields.fold(response, |response, (name, value)| match says(&response, name) {
            true => response,
            false => response.with_header(known_header(name, &value)),
        })
    }

    /// The application opens a client that has no connection of its own.
    fn open(&self, request: &mut Request, session: &Arc<Session>) -> Result<Arc<Talker>, Response> {
        let Ok(inbox) = Inbox::new(self.conversation.hub(), new_id()) else { return Err(self.full(request)) };
        inbox.takes_text_alone();
        let opened = catch_unwind(AssertUnwindSafe(|| self.conversation.open(inbox, request)));
        opened.unwrap_or_else(|panic| {
            session.refuse(Millis::now().0);
            resume_unwind(panic)
        })
    }

    /// What a client says by a request.
    fn hear(&self, request: &mut Request, session: &str, endpoint: Endpoint) -> Response {
        let limits = self.limits();
        let body = match request.body_bytes() {
            Ok(body) => body,
            Err(error) => return error.into_response(),
        };
        let messages = match endpoint {
            Endpoint::JsonpSend => payload::jsonp_send(request.header("Content-Type"), &body, limits),
            _ => payload::xhr_send(&body, limits),
        };
        let Some(session) = self.conversation.sessions().find(self.conversation.name(), session) else {
            return self.refused(Refusal::UnknownSession, asked(request));
        };
        if !session.is_owned_by(&self.owner(request)) {
            return self.refuse(request, 403, "this session is somebody else's\n");
        }
        let messages = match messages {
            Ok(messages) => messages,
            Err(refusal) => return self.refused(refusal, asked(request)),
        };
        match session.hear(messages, || Millis::now().0) {
            Ok(()) => self
                .service
                .taken(endpoint, asked(request))
                .map_or_else(|| StatusCode(404).into_response(), response_of),
            Err(HearError::Refused(refusal)) => self.refused(refusal, asked(request)),
            Err(HearError::Busy) => {
                let busy = "what this client has said before waits for its application\n";
                self.refuse(request, 503, busy).with_header(known_header("Retry-After", "1"))
            }
        }
    }

    /// A WebSocket of SockJS: it is a session by itself.
    fn upgrade(&self, request: &mut Request) -> Result<Response, Response> {
        let (upgrade, connection) = (joined(request, "Upgrade"), joined(request, "Connection"));
        check_upgrade(upgrade.as_deref(), connection.as_deref()).map_err(|refusal| {
            let answer = self.service.refused(refusal, Asked::default());
            response_of(Answer {
                fields: answer.fields.into_iter().filter(|(name, _)| *name == "Content-Type").collect(),
                ..answer
            })
        })?;
        let (fields, deflate) = handshake(request, Offer::default(), self.conversation.origins_allowed())?;
        let Ok(inbox) = Inbox::new(self.conversation.hub(), new_id()) else { return Err(too_many()) };
        inbox.takes_text_alone();
        let talker = self.conversation.open(inbox, request)?;
        let limits = websocket::Limits { max_message: self.limits().bytes, deflate };
        let heartbeat = (self.settings.heartbeat / 1000).clamp(1, u64::from(u16::MAX)) as u16;
        let side = Side::Framed(Box::new(Framed { talker, heartbeat, beat: Millis::NEVER }));
        Ok(switch(fields, Converse { side, limits }))
    }
}

impl Handler for SockJs {
    fn handle(&self, request: &mut Request) -> Response {
        let path = format!("/{}", request.rest_of_path());
        // A slash behind the prefix alone is the prefix.
        let route = route(request.method().as_str(), &path, self.service.features);
        if let Route::Session { session, endpoint, .. } = route {
            if !self.allows(request) {
                return self.refuse(request, 403, "pages of that Origin may not connect here\n");
            }
            return match endpoint {
                Endpoint::Receive(Transport::WebSocket) => self.upgrade(request).unwrap_or_else(|refused| refused),
                Endpoint::Receive(transport) => self.receive(request, session, transport),
                Endpoint::XhrSend | Endpoint::JsonpSend => self.hear(request, session, endpoint),
            };
        }
        if route == Route::RawWebSocket {
            return self.conversation.upgrade(request).unwrap_or_else(|refused| refused);
        }
        let entropy = RandomState::new().hash_one(0) as u32;
        let answer = self.service.answer(route, asked(request), entropy, wall_clock().as_secs());
        answer.map_or_else(|| StatusCode(404).into_response(), response_of)
    }

    fn body_limit(&self, _: &Request) -> Option<u64> {
        Some(self.limits().bytes as u64 + 1024)
    }
}

impl std::fmt::Debug for SockJs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SockJs({:?})", self.conversation)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// All values of a field as one.
fn joined(request: &Request, name: &str) -> Option<String> {
    let values: Vec<_> = request.header_values(name).map(String::from_utf8_lossy).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn asked(request: &Request) -> Asked<'_> {
    Asked {
        origin: request.header("Origin"),
        request_headers: request.header("Access-Control-Request-Headers"),
        cookie: request.header("Cookie"),
        if_none_match: request.header("If-None-Match"),
    }
}

fn response_of(answer: Answer) -> Response {
    let Answer { status, fields, body } = answer;
    let fields = fields.iter().map(|(name, value)| known_header(name, value)).collect();
    Body::from(body).into_response_with(status, fields)
}
