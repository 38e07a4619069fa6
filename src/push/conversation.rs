//! Conversations: clients that answer.

use super::hub::{Hub, Namespace};
use super::origin::may_come_from;
use crate::api::{
    Body, Closed, Converse, IntoResponse, Request, Response, Restore, Sessions, Side, Talk, Talker, known_header,
};
use crate::clock::Millis;
use crate::lifecycle::state::Carried;
use portable_atomic::AtomicU64;
use pubsub::{Inbox, Message, Position, PublishError, SendError};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tiny_http::{Header, StatusCode};
use websocket::{Handshake, Limits, Offer, Refusal};

/// The longest message of a client, unless the application says otherwise.
const MAX_MESSAGE: usize = 64 << 10;

/// What an application does for clients that answer, over [WebSocket](ConversationService::websocket) or
/// [SockJS](ConversationService::sockjs): it does not see which.
///
/// Each client has a state of its own. The calls for one client never overlap and come in order; those for several run at
/// the same time, on the workers, and may block as a handler may. A panic closes that client with 1011.
///
/// A reload moves every client to the successor, which goes on with what [`save`](Conversation::save) has made of its state,
/// and none of them notices.
///
/// ```
/// use handover::{Carried, Client, Conversation, Hub, Incoming, Request, Response, Router, Server};
///
/// /// Answers each message with how many there were.
/// struct Counter;
///
/// impl Conversation for Counter {
///     type State = u64;
///
///     fn open(&self, _: &Client, _: &mut Request) -> Result<u64, Response> {
///         Ok(0)
///     }
///
///     fn message(&self, client: &Client, count: &mut u64, _: Incoming<'_>) {
///         *count += 1;
///         // An error says that the client does not read, or has gone.
///         let _ = client.send(count.to_string());
///     }
///
///     fn save(&self, count: &u64) -> Carried {
///         Carried { version: 1, bytes: count.to_le_bytes().to_vec() }
///     }
///
///     fn restore(&self, _: &Client, saved: Carried) -> Option<u64> {
///         Some(u64::from_le_bytes(saved.bytes.try_into().ok()?))
///     }
/// }
///
/// let hub = Hub::new();
/// let router = Router::new().get("/count", hub.conversation("count", Counter).websocket());
/// let server = Server::builder().hub(&hub).service(router);
/// # let _ = server;
/// ```
pub trait Conversation: Send + Sync + 'static {
    /// Of one client; it moves with it.
    type State: Send + 'static;

    /// A client has come with that request: the handshake of its WebSocket, or the first request of its session. What is
    /// sent to it waits until that is answered; a response instead of a state refuses it.
    ///
    /// # Errors
    /// What the client is answered instead: 403 for example.
    fn open(&self, client: &Client, request: &mut Request) -> Result<Self::State, Response>;

    /// A message of the client has come.
    fn message(&self, client: &Client, state: &mut Self::State, message: Incoming<'_>);

    /// The time has come that was set by [`Client::wake_in`]; see the example of [`Client`].
    fn wake(&self, client: &Client, state: &mut Self::State) {
        let _ = (client, state);
    }

    /// The client has gone, or was closed; see the example of [`Client`]. It is not called where a successor goes on with it.
    fn close(&self, client: &Client, state: Self::State, closed: &Closed) {
        let _ = (client, state, closed);
    }

    /// What a successor needs to go on with the client. Called in the last moment before that takes over, when no other call
    /// runs, also for a reload that fails afterwards.
    fn save(&self, state: &Self::State) -> Carried;

    /// Goes on with what another process has saved, perhaps one of an earlier version: before any other call for that client,
    /// on a worker or before the server serves. `None` closes the client, with 1012 a WebSocket, so that it comes back and
    /// begins anew. What is [carried over](crate::Builder::carry_over) is restored before or after that.
    fn restore(&self, client: &Client, saved: Carried) -> Option<Self::State>;
}

impl<C: Conversation> Conversation for Arc<C> {
    type State = C::State;

    fn open(&self, client: &Client, request: &mut Request) -> Result<C::State, Response> {
        (**self).open(client, request)
    }

    fn message(&self, client: &Client, state: &mut C::State, message: Incoming<'_>) {
        (**self).message(client, state, message);
    }

    fn wake(&self, client: &Client, state: &mut C::State) {
        (**self).wake(client, state);
    }

    fn close(&self, client: &Client, state: C::State, closed: &Closed) {
        (**self).close(client, state, closed);
    }

    fn save(&self, state: &C::State) -> Carried {
        (**self).save(state)
    }

    fn restore(&self, client: &Client, saved: Carried) -> Option<C::State> {
        (**self).restore(client, saved)
    }
}

/// What a client says. See the example of [`Client`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming<'m> {
    /// Text.
    Text(&'m str),
    /// Bytes.
    Binary(&'m [u8]),
}

impl<'m> Incoming<'m> {
    /// It as text; `None` for bytes, also where they are UTF-8. See the example of [`Client`].
    pub fn text(self) -> Option<&'m str> {
        match self {
            Incoming::Text(text) => Some(text),
            Incoming::Binary(_) => None,
        }
    }
}

/// What is sent to a client: made of text or bytes by [`Client::send`], as in the example of [`Client`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

impl From<&str> for Outgoing {
    fn from(text: &str) -> Outgoing {
        Outgoing::Text(text.to_owned())
    }
}

impl From<String> for Outgoing {
    fn from(text: String) -> Outgoing {
        Outgoing::Text(text)
    }
}

impl From<&[u8]> for Outgoing {
    fn from(bytes: &[u8]) -> Outgoing {
        Outgoing::Binary(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Outgoing {
    fn from(bytes: Vec<u8>) -> Outgoing {
        Outgoing::Binary(bytes)
    }
}

/// Which client: the same after a reload, and no other's while it is connected. See the example of [`Client`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A client of a [`Conversation`]. Cheap to clone, and to be used from any thread, also when the client has gone: then each
/// call says so. Where a successor has it by then, that is asked, and waited for.
///
/// ```
/// use handover::{Carried, Client, ClientId, Closed, Conversation, Hub, Incoming, Request, Response};
/// use std::time::Duration;
///
/// /// A room. Who says nothing for a minute leaves it.
/// struct Room;
///
/// impl Conversation for Room {
///     type State = ();
///
///     fn open(&self, client: &Client, _: &mut Request) -> Result<(), Response> {
///         // Each error says that the client has gone, or that this server serves no longer.
///         let _ = client.subscribe("room");
///         let _ = client.publish("room", format!("{} has come", client.id()));
///         Ok(())
///     }
///
///     fn message(&self, client: &Client, (): &mut (), message: Incoming<'_>) {
///         let _ = client.wake_in(Duration::from_secs(60));
///         match message.text() {
///             Some("quiet") => _ = client.unsubscribe("room"),
///             Some(text) => _ = client.publish("room", text),
///             None => _ = client.send("text only, please"),
///         }
///     }
///
///     fn wake(&self, client: &Client, (): &mut ()) {
///         let _ = client.close(4000, "nothing was said for a minute");
///     }
///
///     fn close(&self, client: &Client, (): (), closed: &Closed) {
///         let _ = client.publish("room", format!("{} has gone: {}", client.id(), closed.reason));
///     }
///
///     fn save(&self, (): &()) -> Carried {
///         Carried { version: 1, bytes: Vec::new() }
///     }
///
///     fn restore(&self, _: &Client, _: Carried) -> Option<()> {
///         Some(())
///     }
/// }
///
/// /// From any thread.
/// fn tell(hub: &Hub, id: ClientId, text: &str) -> bool {
///     hub.client(id).is_some_and(|client| !client.is_closed() && client.send(text).is_ok())
/// }
///
/// fn how_many(client: &Client) -> usize {
///     client.hub().subscribers()
/// }
/// ```
#[derive(Clone)]
pub struct Client {
    inbox: Arc<Inbox>,
    namespace: Arc<Namespace>,
}

impl Client {
    /// Which one it is.
    pub fn id(&self) -> ClientId {
        ClientId(self.inbox.id())
    }

    /// Sends it a message, behind those that wait already: 64 of them, or 64 KiB, if it does not read.
    ///
    /// # Errors
    /// As much waits as may; the client is closed; another process has it, and does not answer; bytes for one that takes text
    /// alone, as those of SockJS do.
    pub fn send(&self, message: impl Into<Outgoing>) -> Result<(), SendError> {
        self.inbox.send(match message.into() {
            Outgoing::Text(text) => websocket::Message::Text(text),
            Outgoing::Binary(bytes) => websocket::Message::Binary(bytes),
        })
    }

    /// From now on it gets what is published to a topic of its conversation, as it is; at most 32 topics. If it is so slow
    /// that messages were dropped before it got them it is closed with 4001.
    ///
    /// # Errors
    /// The topic is none, or one too many; the client is closed; another process has it, and does not answer.
    pub fn subscribe(&self, topic: &str) -> Result<(), SubscribeError> {
        Ok(self.inbox.subscribe(&self.namespace.topic(topic)?)?)
    }

    /// From now on it does not.
    ///
    /// # Errors
    /// The topic is none; the client is closed; another process has it, and does not answer.
    pub fn unsubscribe(&self, topic: &str) -> Result<(), SubscribeError> {
        Ok(self.inbox.unsubscribe(&self.namespace.topic(topic)?)?)
    }

    /// Publishes to a topic of its conversation: to every client that subscribes to it, this one among them.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish(&self, topic: &str, message: impl Into<Message>) -> Result<Position, PublishError> {
        self.namespace.publish(topic, message)
    }

    /// Has [`Conversation::wake`] called in a while, once; another time that was set before is forgotten.
    ///
    /// # Errors
    /// The client is closed; another process has it, and does not answer.
    pub fn wake_in(&self, wait: Duration) -> Result<(), SendError> {
        self.inbox.wake_at(Some(Millis::now().after(wait).0))
    }

    /// Closes it with that status and reason once it has what waits for it: 1000, or 3000 to 4999 (RFC 6455 §7.4). Another
    /// status is taken for 1000.
    ///
    /// # Errors
    /// It is closed; another process has it, and does not answer.
    pub fn close(&self, code: u16, reason: &str) -> Result<(), SendError> {
        self.inbox.close(code, reason)
    }

    /// Whether it is closed, or is to be: what is sent to it then does not reach it.
    pub fn is_closed(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Its hub.
    pub fn hub(&self) -> &Hub {
        &self.namespace.hub
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.id())
    }
}

/// Why a client does not listen to a topic: an error of [`Client::subscribe`], as in the example of [`Client`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The topic is none.
    Topic(pubsub::BadTopic),
    /// The client cannot.
    Client(SendError),
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubscribeError::Topic(wrong) => write!(f, "{wrong}"),
            SubscribeError::Client(wrong) => write!(f, "{wrong}"),
        }
    }
}

impl std::error::Error for SubscribeError {}

impl From<PublishError> for SubscribeError {
    fn from(error: PublishError) -> SubscribeError {
        match error {
            PublishError::Topic(wrong) => SubscribeError::Topic(wrong),
            _ => SubscribeError::Client(SendError::Closed),
        }
    }
}

impl From<SendError> for SubscribeError {
    fn from(error: SendError) -> SubscribeError {
        SubscribeError::Client(error)
    }
}

/// A conversation that is registered, whatever its state is.
trait Opens: Restore {
    fn open(&self, inbox: &Arc<Inbox>, request: &mut Request) -> Result<Box<dyn Talk>, Response>;
}

struct Registered<C> {
    conversation: Arc<C>,
    namespace: Arc<Namespace>,
}

impl<C: Conversation> Registered<C> {
    fn client(&self, inbox: &Arc<Inbox>) -> Client {
        Client { inbox: inbox.clone(), namespace: self.namespace.clone() }
    }
}

impl<C: Conversation> Opens for Registered<C> {
    fn open(&self, inbox: &Arc<Inbox>, request: &mut Request) -> Result<Box<dyn Talk>, Response> {
        let client = self.client(inbox);
        let state = self.conversation.open(&client, request)?;
        Ok(Box::new(Talking { conversation: self.conversation.clone(), client, state }))
    }
}

impl<C: Conversation> Restore for Registered<C> {
    fn restore(&self, inbox: &Arc<Inbox>, saved: Carried) -> Option<Box<dyn Talk>> {
        let client = self.client(inbox);
        let state = self.conversation.restore(&client, saved)?;
        Some(Box::new(Talking { conversation: self.conversation.clone(), client, state }))
    }
}

/// A client and its state.
struct Talking<C: Conversation> {
    conversation: Arc<C>,
    client: Client,
    state: C::State,
}

impl<C: Conversation> Talk for Talking<C> {
    fn message(&mut self, message: &websocket::Message) {
        let message = match message {
            websocket::Message::Text(text) => Incoming::Text(text),
            websocket::Message::Binary(bytes) => Incoming::Binary(bytes),
        };
        self.conversation.message(&self.client, &mut self.state, message);
    }

    fn wake(&mut self) {
        self.conversation.wake(&self.client, &mut self.state);
    }

    fn close(self: Box<Self>, closed: &Closed) {
        let Talking { conversation, client, state } = *self;
        conversation.close(&client, state, closed);
    }

    fn save(&self) -> Carried {
        self.conversation.save(&self.state)
    }

    fn go_on(self: Box<Self>, _: &Arc<Inbox>) -> Option<Box<dyn Talk>> {
        Some(self)
    }
}

impl Hub {
    /// Registers a conversation under a name, by which a successor finds it: paths may change, names must not.
    /// See the example of [`Conversation`].
    pub fn conversation<C: Conversation>(&self, name: &str, conversation: C) -> ConversationService {
        // Topics of its own: what is said in private is not to be read through a namespace of the same name.
        let namespace = Arc::new(self.namespace(&format!("conversation {name}")));
        let registered = Registered { conversation: Arc::new(conversation), namespace: namespace.clone() };
        let (name, opens): (Arc<str>, Arc<dyn Opens>) = (name.into(), Arc::new(registered));
        self.conversations().register(name.clone(), opens.clone());
        ConversationService { name, opens, namespace, max_message: MAX_MESSAGE, origins: Arc::default() }
    }

    /// A client of a conversation that is connected to this process; `None` once it has gone. See the example of [`Client`].
    pub fn client(&self, id: ClientId) -> Option<Client> {
        let talker = self.conversations().client(id.0)?;
        let namespace = Arc::new(self.existing(&format!("conversation {}", talker.name())));
        Some(Client { inbox: talker.inbox.clone(), namespace })
    }
}

/// A registered [`Conversation`], and how clients come to it. Cheap to clone.
///
/// ```
/// use handover::{Carried, Client, Conversation, Hub, Incoming, Request, Response, Router};
/// # struct Echo;
/// # impl Conversation for Echo {
/// #     type State = ();
/// #     fn open(&self, _: &Client, _: &mut Request) -> Result<(), Response> { Ok(()) }
/// #     fn message(&self, _: &Client, (): &mut (), _: Incoming<'_>) {}
/// #     fn save(&self, (): &()) -> Carried { Carried { version: 1, bytes: Vec::new() } }
/// #     fn restore(&self, _: &Client, _: Carried) -> Option<()> { Some(()) }
/// # }
/// let hub = Hub::new();
/// let service = hub.conversation("echo", Echo).origins(["https://example.org"]).max_message(1 << 20);
/// let router = Router::new().get("/echo", service.websocket()).mount_service("/sockjs", service.sockjs());
/// let topics = service.namespace();
/// # let _ = (router, topics);
/// ```
#[derive(Clone)]
pub struct ConversationService {
    name: Arc<str>,
    opens: Arc<dyn Opens>,
    namespace: Arc<Namespace>,
    max_message: usize,
    origins: Arc<[String]>,
}

impl ConversationService {
    /// Origins of pages that may connect besides those of the same origin: `https://example.org`, or `*` for all. Default
    /// none.
    #[must_use]
    pub fn origins<O: Into<String>>(mut self, origins: impl IntoIterator<Item = O>) -> ConversationService {
        self.origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// Bytes that a message of a client has at the most; one with more closes it with 1009. By SockJS all that comes at a
    /// time has twice as many at the most, for JSON escapes some. Default 64 KiB.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> ConversationService {
        self.max_message = bytes;
        self
    }

    /// The topics of this conversation, to publish from elsewhere.
    pub fn namespace(&self) -> Namespace {
        (*self.namespace).clone()
    }

    /// The handler for a path at which clients come by WebSocket (RFC 6455 §4.2), for [`Router::get`](crate::Router::get).
    pub fn websocket(&self) -> impl Fn(&mut Request) -> Response + Send + Sync + 'static + use<> {
        let service = self.clone();
        move |request| service.upgrade(request).unwrap_or_else(|refused| refused)
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn hub(&self) -> &pubsub::Hub {
        self.namespace.hub.inner()
    }

    pub(super) fn sessions(&self) -> &Arc<Sessions> {
        self.namespace.hub.sessions()
    }

    pub(super) fn origins_allowed(&self) -> &[String] {
        &self.origins
    }

    pub(super) fn most_bytes(&self) -> usize {
        self.max_message
    }

    pub(super) fn upgrade(&self, request: &mut Request) -> Result<Response, Response> {
        let (fields, deflate) = handshake(request, Offer { protocols: &[], deflate: true }, &self.origins)?;
        let Ok(inbox) = Inbox::new(self.hub(), new_id()) else { return Err(too_many()) };
        let side = Side::Talker(self.open(inbox, request)?);
        let limits = Limits { max_message: self.max_message, deflate };
        Ok(switch(fields, Converse { side, limits }))
    }

    /// Has the application open the client of an inbox, or say what its request is answered instead.
    pub(super) fn open(&self, inbox: Arc<Inbox>, request: &mut Request) -> Result<Arc<Talker>, Response> {
        // The client is there for whoever has its number from `open` on.
        let opened = catch_unwind(AssertUnwindSafe(|| self.opens.open(&inbox, request)));
        let talk = match opened {
            Ok(Ok(talk)) => talk,
            Ok(Err(response)) => {
                inbox.end();
                return Err(response);
            }
            Err(panic) => {
                inbox.end();
                resume_unwind(panic);
            }
        };
        Ok(Talker::new(self.namespace.hub.conversations(), self.name.clone(), inbox, talk))
    }
}

impl fmt::Debug for ConversationService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConversationService({:?})", self.name)
    }
}

/// Nobody can guess the number of a client, and no two are the same.
pub(super) fn new_id() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one(COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Whether a request asks for a WebSocket, or for what would be one.
pub(super) fn asks_for_websocket(request: &Request) -> bool {
    !matches!(decide(request, Offer::default()), Handshake::Ordinary)
}

fn decide<'o>(request: &Request, offer: Offer<'o>) -> Handshake<'o> {
    let (head, bytes) = request.head();
    let fields = head.fields.iter().map(|field| (field.name.in_bytes(bytes), field.value.in_bytes(bytes)));
    Handshake::decide(request.method().as_str(), head.minor, fields, offer)
}

/// The fields of the 101 that answers it, the protocol among them, and whether messages may be compressed; or what it is
/// answered instead.
pub(super) fn handshake(
    request: &Request,
    offer: Offer<'_>,
    origins: &[String],
) -> Result<(Vec<Header>, bool), Response> {
    let refused = |status: u16, name: &str| (StatusCode(status), format!("{name}\n")).into_response();
    match decide(request, offer) {
        Handshake::Accepted(_) if !may_come_from(request, origins) => {
            Err(refused(403, "pages of that Origin may not connect here"))
        }
        Handshake::Accepted(accepted) => {
            let fields = accepted.fields().map(|(name, value)| known_header(name, value)).collect();
            Ok((fields, accepted.deflate))
        }
        Handshake::Refused(refusal) => Err(with_fields(refused(refusal.status(), refusal.name()), refusal)),
        Handshake::Ordinary => {
            let refusal = Refusal::NoUpgrade;
            Err(with_fields(refused(refusal.status(), "there is a WebSocket here, and nothing else"), refusal))
        }
    }
}

fn with_fields(response: Response, refusal: Refusal) -> Response {
    let headers = refusal.fields().iter().map(|(name, value)| known_header(name, value));
    headers.fold(response, Response::with_header)
}

pub(super) fn too_many() -> Response {
    (StatusCode(503), "there are as many subscribers as there may be\n").into_response()
}

pub(super) fn switch(fields: Vec<Header>, converse: Converse) -> Response {
    Body::conversation(converse).into_response_with(101, fields)
}
