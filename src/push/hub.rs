//! What an application publishes to and subscribes from.

use super::token_keys::TokenKeys;
use crate::api::{Conversations, Sessions};
use crate::clock::boot_time;
use crate::config::PushConfig;
use pubsub::{BadWritten, HubLimits, Limits, Message, Position, PublishError, Retention, Topic, TopicFigures};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

/// Seconds between heartbeats.
const HEARTBEAT: u16 = 15;

/// Messages by topic, and those that listen: thousands of event streams and long polls that hold no worker.
///
/// A hub belongs to a server ([`Builder::hub`](crate::Builder::hub)) and is cheap to clone. It keeps the last messages of
/// each topic within a bound of memory, so that whoever was away goes on where it was, or is told of a gap. A reload moves
/// the messages and every subscriber to the successor, and none of them notices.
///
/// ```
/// use handover::{Hub, Publishers, Request, Router, Server};
///
/// let hub = Hub::new();
/// let news = hub.namespace("public");
/// let own = news.clone();
/// let router = Router::new()
///     // GET subscribes, POST publishes: anybody may, because it says so.
///     .mount_service("/events", news.clone().publishers(Publishers::Anyone).service())
///     // A subscription by an application's own rules.
///     .get("/weather", move |request: &mut Request| own.subscribe(request).topic("weather").respond());
/// let server = Server::builder().hub(&hub).service(router);
/// # let _ = server;
/// ```
#[derive(Clone)]
pub struct Hub {
    inner: pubsub::Hub,
    sessions: Arc<Sessions>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({} subscribers)", self.subscribers())
    }
}

impl Default for Hub {
    fn default() -> Hub {
        Hub::new()
    }
}

impl Hub {
    /// A hub that keeps 4 MiB of messages of at most 64 KiB each.
    pub fn new() -> Hub {
        let Limits { memory, message } = Limits::default();
        Hub::with_limits(memory, message)
    }

    /// A hub that keeps so many bytes of messages, of which one has at most so many.
    ///
    /// ```
    /// let hub = handover::Hub::with_limits(1 << 20, 4096);
    /// assert_eq!(hub.subscribers(), 0);
    /// ```
    pub fn with_limits(memory: usize, message: usize) -> Hub {
        let limits = HubLimits { log: Limits { memory, message }, subscribers: usize::MAX };
        Hub { inner: pubsub::Hub::new(new_epoch(), limits), sessions: Arc::default() }
    }

    /// The topics under a name. Those of one name are never read through another, and a successor finds what is kept by it.
    pub fn namespace(&self, name: &str) -> Namespace {
        let namespace = self.made(name);
        namespace.register();
        namespace
    }

    /// The same for one that is there, whose retention stays.
    pub(crate) fn existing(&self, name: &str) -> Namespace {
        let retention = self.inner.retention(name);
        Namespace { retention, ..self.made(name) }
    }

    fn made(&self, name: &str) -> Namespace {
        let (hub, name, retention) = (self.clone(), name.into(), Retention::default());
        let (heartbeat, publishers, origins) = (HEARTBEAT, Publishers::Nobody, Arc::default());
        let (subscribers, keys) = (Subscribers::Anyone, None);
        Namespace { hub, name, retention, heartbeat, publishers, subscribers, keys, origins }
    }

    /// How many subscribe; in the example of [`with_limits`](Hub::with_limits) nobody does.
    pub fn subscribers(&self) -> usize {
        self.inner.subscribers()
    }

    /// What it may hold by the settings of its server.
    pub(crate) fn configure(&self, push: &PushConfig, memory: Option<u64>, connections: usize) {
        let mut limits = self.inner.limits();
        limits.memory = push.memory(memory).unwrap_or(limits.memory);
        limits.message = push.max_message.unwrap_or(limits.message);
        self.inner.set_limits(limits);
        self.inner.set_follows(push.bus.url.is_some());
        self.inner.set_most_subscribers(push.subscribers(connections));
    }

    /// Goes on with what a predecessor has written down.
    pub(crate) fn go_on_with(&self, written: &[u8]) -> Result<(), BadWritten> {
        // It followed a bus, and others do: here begins something else.
        if self.inner.read_from(written, boot_time(), 0)? {
            self.inner.begin_epoch(new_epoch());
        }
        Ok(())
    }

    pub(crate) fn inner(&self) -> &pubsub::Hub {
        &self.inner
    }

    pub(crate) fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    pub(crate) fn conversations(&self) -> &Arc<Conversations> {
        self.sessions.conversations()
    }
}

/// Another life of a log: random, so that positions of one are never taken for those of another.
pub(crate) fn new_epoch() -> u64 {
    // As many digits as a position should have, and enough that two are never the same.
    RandomState::new().hash_one(boot_time()) >> 16
}

/// Who may publish by HTTP. See the example of [`Hub`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Publishers {
    /// Only the application itself.
    #[default]
    Nobody,
    /// Clients of this host: over a Unix socket, or from a loopback address for a loopback host. A page in a browser is
    /// not, nor what came through a proxy that says so by a field, or by HTTP/1.0.
    Local,
    /// Whoever has a token that names the topic; see [`Namespace::tokens`].
    Token,
    /// Whoever reaches the server.
    Anyone,
}

/// Who may subscribe by HTTP. See the example of [`TokenKeys`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subscribers {
    /// Whoever reaches the server.
    #[default]
    Anyone,
    /// Whoever has a token that names the topics; see [`Namespace::tokens`].
    Token,
}

/// Topics under one name; see [`Hub::namespace`]. Cheap to clone; what is set counts for the clone and its services.
///
/// ```
/// use handover::{Hub, Publishers, Request, Router, Subscribers};
/// use std::time::Duration;
///
/// let hub = Hub::new();
/// let sensors = hub.namespace("sensors")
///     .history(1000).history_age(Duration::from_secs(3600)).retain(true)
///     .heartbeat(30).origins(["https://example.org"])
///     .subscribers(Subscribers::Anyone).publishers(Publishers::Local);
/// let own = sensors.clone();
/// let router = Router::new()
///     .mount_service("/sensors", sensors.service())
///     .get("/kitchen", move |request: &mut Request| own.subscribe(request).topic("kitchen").respond());
/// assert!(sensors.publish("kitchen", "20.5").is_err(), "no server runs that has this hub");
/// assert_eq!((sensors.listeners("kitchen"), sensors.topics().len()), (0, 0));
/// # let _ = router;
/// ```
#[derive(Clone)]
pub struct Namespace {
    pub(super) hub: Hub,
    pub(super) name: Arc<str>,
    retention: Retention,
    pub(super) heartbeat: u16,
    pub(super) publishers: Publishers,
    pub(super) subscribers: Subscribers,
    /// Of tokens.
    pub(super) keys: Option<TokenKeys>,
    pub(super) origins: Arc<[String]>,
}

impl Namespace {
    fn register(&self) {
        self.hub.inner.add_namespace(&self.name, self.retention);
    }

    /// Messages of each topic that are kept for those that come later. Default 100.
    #[must_use]
    pub fn history(mut self, messages: usize) -> Namespace {
        self.retention.history = messages;
        self.register();
        self
    }

    /// How long they are kept. Default 10 minutes.
    #[must_use]
    pub fn history_age(mut self, age: Duration) -> Namespace {
        self.retention.age = age.as_millis().try_into().unwrap_or(i64::MAX);
        self.register();
        self
    }

    /// Whether the last message of each topic stays whatever its age: the current value of a sensor. Default false.
    #[must_use]
    pub fn retain(mut self, retain: bool) -> Namespace {
        self.retention.retain = retain;
        self.register();
        self
    }

    /// Seconds between the heartbeats of a stream, which say where it is; 0 for none. Default 15.
    #[must_use]
    pub fn heartbeat(mut self, seconds: u16) -> Namespace {
        self.heartbeat = seconds;
        self
    }

    /// Who may publish by HTTP. Default nobody.
    #[must_use]
    pub fn publishers(mut self, publishers: Publishers) -> Namespace {
        self.publishers = publishers;
        self
    }

    /// Who may subscribe to its [`service`](Namespace::service); a handler of the application's own decides by itself. Default
    /// anyone. The stream of a token ends when the token does.
    #[must_use]
    pub fn subscribers(mut self, subscribers: Subscribers) -> Namespace {
        self.subscribers = subscribers;
        self
    }

    /// The keys of the tokens that are good here, where [`Publishers::Token`] or [`Subscribers::Token`] asks for them; without
    /// keys none is; see the example of [`TokenKeys`]. A token names topics and no namespace: those of one key are good in each namespace that has it.
    #[must_use]
    pub fn tokens(mut self, keys: &TokenKeys) -> Namespace {
        self.keys = Some(keys.clone());
        self
    }

    /// Origins of pages that may read and publish besides those of the same origin: `https://example.org`, or `*` for all
    /// (Fetch, CORS protocol). Default none.
    #[must_use]
    pub fn origins<O: Into<String>>(mut self, origins: impl IntoIterator<Item = O>) -> Namespace {
        self.origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// Publishes, from any thread. Who listens hears it; who comes back later as well, as long as it is kept. With a bus
    /// ([`BusConfig`](crate::BusConfig)) it blocks until the message has come back through that, for 5 seconds at most.
    ///
    /// # Errors
    /// A topic or message that is none, a server that does not serve, before it runs and once a successor does, and a bus that
    /// is down or does not answer.
    pub fn publish(&self, topic: &str, message: impl Into<Message>) -> Result<Position, PublishError> {
        let published = self.hub.inner.publish(&self.topic(topic)?, message.into(), boot_time(), None);
        published.map(|published| published.position)
    }

    /// The topics that have subscribers or messages, by their names.
    pub fn topics(&self) -> Vec<TopicFigures> {
        self.hub.inner.topics(&self.name)
    }

    /// How many listen to a topic.
    pub fn listeners(&self, topic: &str) -> usize {
        self.topic(topic).map_or(0, |topic| self.hub.inner.listeners(&topic))
    }

    pub(super) fn topic(&self, name: &str) -> Result<Topic, PublishError> {
        Topic::new(self.name.clone(), name).map_err(PublishError::Topic)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({:?})", self.name)
    }
}
