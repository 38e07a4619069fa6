//! A log that threads share, and who waits for which topic.
//!
//! Publishing appends under the hub's lock, marks the topic, and has whoever makes subscribers ready woken; he asks for the
//! news when he comes to it. A mark is one bit, so a flood of publications is one wake. The index has every subscriber of a
//! topic, whatever it does at the moment: whoever enters it looks at the log afterwards, so nothing is missed.
//!
//! Order of locks: a subscriber's own, then the hub's. Nothing is sent under the hub's.

use crate::follow::{Begun, Bus, Follower};
use crate::idempotency::{Keys, Used};
use crate::inbox::{ForClient, SendError};
use crate::log::{AppendError, Limits, Log, MessageLog, Retention, TopicInfo};
use crate::{BadTopic, Message, Position, Topic};
use foldhash::fast::RandomState;
use portable_atomic::AtomicU64;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// How long a publication through a bus is waited for.
pub const BUS_PATIENCE: Duration = Duration::from_secs(5);

/// What a hub may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubLimits {
    /// Of its log.
    pub log: Limits,
    /// Subscribers at a time.
    pub subscribers: usize,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    state: RwLock<State>,
    /// Another one whenever the state may have changed.
    version: AtomicU64,
    /// Whether a topic is marked, or somebody called.
    news: AtomicBool,
    /// The tokens of those for whom there is something besides their topics.
    called: Mutex<Vec<usize>>,
    /// Clients that have no connection now, and for whom there is something.
    absent: Mutex<Vec<u64>>,
    subscribers: AtomicUsize,
    most_subscribers: AtomicUsize,
    gaps: AtomicUsize,
    wake: Mutex<Option<Arc<Wake>>>,
    phase: Mutex<Phase>,
    thawed: Condvar,
    /// Who publishes instead of this process.
    elsewhere: Mutex<Option<Arc<Elsewhere>>>,
    /// What publications go through.
    bus: Mutex<Option<Arc<dyn Bus>>>,
    /// Who has its clients.
    clients_elsewhere: Mutex<Option<Arc<ClientsElsewhere>>>,
}

/// Publishes in another process, and waits for what it says.
type Elsewhere = dyn Fn(Vec<(Topic, Message)>, Option<Key<'_>>) -> Result<Published, PublishError> + Send + Sync;

/// Asks another process to do that for a client of that number, and waits for what it says.
type ClientsElsewhere = dyn Fn(u64, ForClient) -> Result<(), SendError> + Send + Sync;

/// Wakes who asks for the news.
type Wake = dyn Fn() + Send + Sync;

pub(crate) struct State {
    pub(crate) log: Log,
    pub(crate) keys: Keys,
    /// Where the log follows a bus.
    pub(crate) follower: Option<Follower>,
    phase: Phase,
    /// Messages, by this process.
    published: u64,
    /// By topic: the tokens of those that wait for it.
    waiting: HashMap<Topic, Waiting, RandomState>,
    marked: Vec<Topic>,
    namespaces: HashSet<Arc<str>, RandomState>,
}

#[derive(Default)]
struct Waiting {
    tokens: HashSet<usize, RandomState>,
    marked: bool,
}

/// Whether this process publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its server does not serve yet.
    Before,
    Open,
    /// The log is being written down: publishers wait.
    Frozen,
    /// Another process has the log.
    Gone,
}

/// Why something was not published. But for [`Unknown`](PublishError::Unknown) and
/// [`Unanswered`](PublishError::Unanswered), nothing has happened then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic is none.
    Topic(BadTopic),
    /// The message is too large.
    TooLarge {
        /// How many bytes it may have.
        most: usize,
    },
    /// The server of this hub does not serve yet, or is none.
    NotServing,
    /// Another process is the server now.
    HandedOver,
    /// Another process is the server now and was asked, and has not answered: it may have been published or not.
    Unknown,
    /// The key was used for something else.
    KeyReused,
    /// The bus of several hosts is down.
    Unavailable,
    /// The bus was asked and has not answered in time: it may have been published or not.
    Unanswered,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Topic(wrong) => write!(f, "{wrong}"),
            PublishError::TooLarge { most } => write!(f, "{}", AppendError::TooLarge { most: *most }),
            PublishError::NotServing => f.write_str("the server of this hub does not serve (see Builder::hub)"),
            PublishError::HandedOver => f.write_str("another process is the server now"),
            PublishError::Unknown => {
                f.write_str("another process is the server now and has not answered: it may have been published or not")
            }
            PublishError::KeyReused => f.write_str("the Idempotency-Key was used for another message"),
            PublishError::Unavailable => f.write_str("the bus is down, and nothing was published"),
            PublishError::Unanswered => {
                f.write_str("the bus has not answered in time: outcome unknown, it may have been published or not")
            }
        }
    }
}

impl std::error::Error for PublishError {}

impl From<AppendError> for PublishError {
    fn from(error: AppendError) -> PublishError {
        let AppendError::TooLarge { most } = error;
        PublishError::TooLarge { most }
    }
}

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Of the last message.
    pub position: Position,
    /// How many listen to their topics, each topic for itself.
    pub subscribers: usize,
    /// Whether it was before, under the same key.
    pub repeated: bool,
}

/// By which a publisher that tries again is known: whose it is, and the key itself.
#[derive(Clone, Copy, Debug)]
pub struct Key<'k> {
    /// Who publishes.
    pub principal: &'k str,
    /// At most [`KEY_LENGTH`](crate::KEY_LENGTH) bytes.
    pub key: &'k str,
}

/// There are as many subscribers as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A topic, in a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFigures {
    /// Which.
    pub topic: Topic,
    /// What there is.
    pub info: TopicInfo,
}

impl Hub {
    /// An empty one, in an epoch of its own.
    pub fn new(epoch: u64, limits: HubLimits) -> Hub {
        let state = State {
            published: 0,
            log: Log::new(epoch, limits.log),
            keys: Keys::default(),
            follower: None,
            phase: Phase::Before,
            waiting: HashMap::default(),
            marked: Vec::new(),
            namespaces: HashSet::default(),
        };
        Hub(Arc::new(Inner {
            state: RwLock::new(state),
            version: AtomicU64::new(0),
            news: AtomicBool::new(false),
            called: Mutex::default(),
            absent: Mutex::default(),
            subscribers: AtomicUsize::new(0),
            most_subscribers: AtomicUsize::new(limits.subscribers),
            gaps: AtomicUsize::new(0),
            wake: Mutex::new(None),
            phase: Mutex::new(Phase::Before),
            thawed: Condvar::new(),
            elsewhere: Mutex::new(None),
            bus: Mutex::new(None),
            clients_elsewhere: Mutex::new(None),
        }))
    }

    /// Whether it is the same.
    pub fn is(&self, other: &Hub) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        // Nothing panics half-way while it is held.
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        let state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        self.0.version.fetch_add(1, Ordering::Release);
        state
    }

    /// As long as this stays the same, so does the state.
    pub(crate) fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// How many may subscribe.
    pub fn set_most_subscribers(&self, most: usize) {
        self.0.most_subscribers.store(most, Ordering::Relaxed);
    }

    /// How many do.
    pub fn subscribers(&self) -> usize {
        self.0.subscribers.load(Ordering::Relaxed)
    }

    /// What it may hold from here on.
    pub fn set_limits(&self, limits: Limits) {
        let mut state = self.write();
        state.log.limits = limits;
        state.log.make_room();
    }

    /// What it may hold.
    pub fn limits(&self) -> Limits {
        self.read().log.limits
    }

    /// The largest message.
    pub fn most_bytes(&self) -> usize {
        self.read().log.limits.message
    }

    /// There is a namespace of that name, of whose topics so much is kept.
    pub fn add_namespace(&self, name: &Arc<str>, retention: Retention) {
        let mut state = self.write();
        state.namespaces.insert(name.clone());
        state.log.set_retention(name.clone(), retention);
    }

    /// How much is kept of the topics of one.
    pub fn retention(&self, namespace: &str) -> Retention {
        self.read().log.retention_of(namespace)
    }

    /// Whether there is one.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.read().namespaces.contains(name)
    }

    /// `wake` is called from any thread when there is news; who is woken asks for it with [`Hub::take_news`].
    pub fn wakes(&self, wake: impl Fn() + Send + Sync + 'static) {
        *self.0.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(wake));
    }

    /// From here on this process publishes.
    pub fn open(&self) {
        *self.elsewhere() = None;
        *self.clients_elsewhere() = None;
        self.set_phase(Phase::Open);
    }

    /// Publishers wait until it is open again, or gone.
    pub fn freeze(&self) {
        self.set_phase(Phase::Frozen);
    }

    /// Another process publishes from here on.
    pub fn hand_over(&self) {
        self.set_phase(Phase::Gone);
    }

    /// The same, and it does so for those that publish here.
    pub fn hand_over_to(
        &self,
        elsewhere: impl Fn(Vec<(Topic, Message)>, Option<Key<'_>>) -> Result<Published, PublishError>
        + Send
        + Sync
        + 'static,
    ) {
        *self.elsewhere() = Some(Arc::new(elsewhere));
        self.set_phase(Phase::Gone);
    }

    /// Another process has the clients as well, once this one does not publish any more, and is asked for what is for one.
    pub fn hand_clients_over_to(
        &self,
        elsewhere: impl Fn(u64, ForClient) -> Result<(), SendError> + Send + Sync + 'static,
    ) {
        *self.clients_elsewhere() = Some(Arc::new(elsewhere));
    }

    /// Asks who has that client.
    pub(crate) fn ask_elsewhere(&self, client: u64, what: ForClient) -> Result<(), SendError> {
        let elsewhere = self.clients_elsewhere().clone();
        elsewhere.map_or(Err(SendError::HandedOver), |elsewhere| elsewhere(client, what))
    }

    fn clients_elsewhere(&self) -> MutexGuard<'_, Option<Arc<ClientsElsewhere>>> {
        self.0.clients_elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn bus_slot(&self) -> MutexGuard<'_, Option<Arc<dyn Bus>>> {
        self.0.bus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn thawed(&self) -> &Condvar {
        &self.0.thawed
    }

    /// Has it published by who does that instead of this process.
    pub(crate) fn publish_elsewhere(
        &self,
        messages: Vec<(Topic, Message)>,
        key: Option<Key<'_>>,
    ) -> Result<Published, PublishError> {
        let elsewhere = self.elsewhere().clone().ok_or(PublishError::HandedOver)?;
        elsewhere(messages, key)
    }

    fn elsewhere(&self) -> MutexGuard<'_, Option<Arc<Elsewhere>>> {
        self.0.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_phase(&self, phase: Phase) {
        self.write().phase = phase;
        *self.phase() = phase;
        self.0.thawed.notify_all();
    }

    /// The log once it is this process's to write to.
    pub(crate) fn open_state(&self) -> Result<RwLockWriteGuard<'_, State>, PublishError> {
        loop {
            let state = self.write();
            match state.phase {
                Phase::Open => return Ok(state),
                Phase::Before => return Err(PublishError::NotServing),
                Phase::Gone => return Err(PublishError::HandedOver),
                Phase::Frozen => {}
            }
            drop(state);
            self.wait_until_thawed();
        }
    }

    /// Publishes a message at that time. Through a bus that blocks until it has come back, for some seconds at most.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish(
        &self,
        topic: &Topic,
        message: Message,
        now: i64,
        key: Option<Key<'_>>,
    ) -> Result<Published, PublishError> {
        self.publish_these([(topic.clone(), message)], now, key)
    }

    /// Publishes all of them, or none, and nothing of others between.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish_all(
        &self,
        messages: Vec<(Topic, Message)>,
        now: i64,
        key: Option<Key<'_>>,
    ) -> Result<Published, PublishError> {
        self.publish_these(messages, now, key)
    }

    /// A list of them, or a single one, which takes no room of its own.
    fn publish_these<M>(&self, these: M, now: i64, key: Option<Key<'_>>) -> Result<Published, PublishError>
    where
        M: AsRef<[(Topic, Message)]> + IntoIterator<Item = (Topic, Message)>,
    {
        let bus = self.bus_slot().clone();
        match bus {
            None => self.publish_here(these, now, key),
            Some(bus) => match self.give(&*bus, these.into_iter().collect(), key)? {
                Begun::Ended(outcome) => outcome,
                Begun::Waits(ticket) => ticket.wait(BUS_PATIENCE),
            },
        }
    }

    /// Puts them into the log, which follows no bus.
    pub(crate) fn publish_here<M>(&self, these: M, now: i64, key: Option<Key<'_>>) -> Result<Published, PublishError>
    where
        M: AsRef<[(Topic, Message)]> + IntoIterator<Item = (Topic, Message)>,
    {
        let mut state = match self.open_state() {
            Ok(state) => state,
            Err(PublishError::HandedOver) => return self.publish_elsewhere(these.into_iter().collect(), key),
            Err(error) => return Err(error),
        };
        let messages = these.as_ref();
        let most = state.log.limits.message;
        if messages.iter().any(|(_, message)| message.data().len() > most) {
            return Err(PublishError::TooLarge { most });
        }
        let listening =
            |state: &State, topic: &Topic| state.waiting.get(topic).map_or(0, |waiting| waiting.tokens.len());
        let key = key.and_then(|key| key.of(messages));
        if let Some((key, hash)) = &key
            && let Some(used) = state.keys.get(key, now)
        {
            if used.hash != *hash {
                return Err(PublishError::KeyReused);
            }
            let position = used.position;
            let subscribers = messages.iter().map(|(topic, _)| listening(&state, topic)).sum();
            return Ok(Published { position, subscribers, repeated: true });
        }
        let (mut marks, mut subscribers, count) = (false, 0, messages.len());
        for (topic, message) in these {
            state.log.append(&topic, message, now)?;
            subscribers += listening(&state, &topic);
            marks |= state.mark(topic);
        }
        state.published += count as u64;
        let position = state.log.position();
        if let Some((key, hash)) = key {
            state.keys.put(key, Used { hash, position, time: now });
        }
        drop(state);
        if marks {
            self.tell();
        }
        Ok(Published { position, subscribers, repeated: false })
    }

    /// There is news, if that was not said before.
    pub(crate) fn tell(&self) {
        if self.0.news.swap(true, Ordering::AcqRel) {
            return;
        }
        let wake = self.0.wake.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(wake) = wake {
            wake();
        }
    }

    /// There is something for that one besides its topics.
    pub fn call(&self, token: usize) {
        self.0.called.lock().unwrap_or_else(PoisonError::into_inner).push(token);
        self.tell();
    }

    /// The same for a client that has no connection now.
    pub(crate) fn call_absent(&self, client: u64) {
        self.0.absent.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        self.tell();
    }

    /// Those that were called without a connection: see [`Inbox::lasts`](crate::Inbox::lasts).
    pub fn take_absent(&self) -> Vec<u64> {
        mem::take(&mut *self.0.absent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Wakes whoever takes news, though there is none.
    pub fn wake(&self) {
        self.tell();
    }

    pub(crate) fn phase(&self) -> MutexGuard<'_, Phase> {
        self.0.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its server has ended: nobody publishes here, and nobody waits for that, unless another process does so instead.
    pub(crate) fn close(&self) {
        if *self.phase() != Phase::Gone {
            self.set_phase(Phase::Before);
        }
    }

    pub(crate) fn wait_until_thawed(&self) {
        let frozen = |phase: &mut Phase| *phase == Phase::Frozen;
        drop(self.0.thawed.wait_while(self.phase(), frozen).unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether there is news.
    pub fn has_news(&self) -> bool {
        self.0.news.load(Ordering::Acquire)
    }

    /// The tokens of those for whom there is news. One may be named several times, and have heard it meanwhile.
    pub fn take_news(&self, mut each: impl FnMut(usize)) {
        if !self.0.news.swap(false, Ordering::AcqRel) {
            return;
        }
        let called = mem::take(&mut *self.0.called.lock().unwrap_or_else(PoisonError::into_inner));
        called.into_iter().for_each(&mut each);
        let mut state = self.write();
        let State { waiting, marked, .. } = &mut *state;
        for topic in marked.drain(..) {
            if let Some(waiting) = waiting.get_mut(&topic) {
                waiting.marked = false;
                waiting.tokens.iter().for_each(|token| each(*token));
            }
        }
    }

    /// One more subscriber.
    pub(crate) fn count_in(&self) -> Result<(), Full> {
        let most = self.0.most_subscribers.load(Ordering::Relaxed);
        let more = |subscribers: usize| (subscribers < most).then_some(subscribers + 1);
        let counted = self.0.subscribers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.map(drop).map_err(|_| Full)
    }

    /// One more, whatever the limit: it was let in by another.
    pub(crate) fn count_in_anyway(&self) {
        self.0.subscribers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_out(&self) {
        self.0.subscribers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Drops what is too old. To be called now and then.
    pub fn expire(&self, now: i64) {
        self.write().log.expire(now);
    }

    /// Begins another epoch: this process goes on without another's last state. One that follows a bus reads there what it
    /// does not know, in the epoch of that.
    pub fn begin_epoch(&self, epoch: u64) {
        let mut state = self.write();
        if state.follower.is_none() {
            state.log.begin_epoch(epoch);
        }
    }

    /// The same where the other has published, or may have, and that is gone: whoever listens is told.
    pub fn begin_epoch_behind_a_hole(&self, epoch: u64) {
        let mut state = self.write();
        if state.follower.is_none() {
            state.log.begin_epoch_behind_a_hole(epoch);
        }
    }

    /// Messages that were published here, in all; and how many times a subscriber was told that something is missing.
    pub fn counted(&self) -> (u64, usize) {
        (self.read().published, self.0.gaps.load(Ordering::Relaxed))
    }

    pub(crate) fn count_published(&self, messages: usize) {
        self.write().published += messages as u64;
    }

    pub(crate) fn count_gaps(&self, gaps: usize) {
        if gaps > 0 {
            self.0.gaps.fetch_add(gaps, Ordering::Relaxed);
        }
    }

    /// The position of the last message.
    pub fn position(&self) -> Position {
        self.read().log.position()
    }

    /// Bytes that its messages take.
    pub fn bytes(&self) -> usize {
        self.read().log.bytes()
    }

    /// How many listen to a topic.
    pub fn listeners(&self, topic: &Topic) -> usize {
        self.read().waiting.get(topic).map_or(0, |waiting| waiting.tokens.len())
    }

    /// The topics of a namespace, by their names.
    pub fn topics(&self, namespace: &str) -> Vec<TopicFigures> {
        let state = self.read();
        let topics = state.log.topics(namespace);
        let mut figures: Vec<TopicFigures> = topics
            .filter_map(|topic| Some(TopicFigures { topic: topic.clone(), info: state.log.topic(topic)? }))
            .collect();
        drop(state);
        figures.sort_unstable_by(|one, other| one.topic.cmp(&other.topic));
        figures
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({}, {} subscribers)", self.position(), self.subscribers())
    }
}

impl State {
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// There is something for those that wait for a topic. Answers whether that was not said before.
    pub(crate) fn mark(&mut self, topic: Topic) -> bool {
        let State { waiting, marked, .. } = self;
        let Some(waiting) = waiting.get_mut(&topic) else { return false };
        let is_first = !mem::replace(&mut waiting.marked, true);
        if is_first {
            marked.push(topic);
        }
        is_first
    }

    /// The same for all.
    pub(crate) fn mark_all(&mut self) {
        let State { waiting, marked, .. } = self;
        let others = waiting
            .iter_mut()
            .filter_map(|(topic, waiting)| (!mem::replace(&mut waiting.marked, true)).then(|| topic.clone()));
        marked.extend(others);
    }

    /// From here on news of these topics are told to that token.
    pub(crate) fn enter(&mut self, topics: &[Topic], token: usize) {
        for topic in topics {
            match self.waiting.get_mut(topic) {
                Some(waiting) => _ = waiting.tokens.insert(token),
                None => {
                    let mut waiting = Waiting::default();
                    waiting.tokens.insert(token);
                    self.waiting.insert(topic.clone(), waiting);
                }
            }
        }
    }

    /// No longer.
    pub(crate) fn leave(&mut self, topics: &[Topic], token: usize) {
        for topic in topics {
            let Some(waiting) = self.waiting.get_mut(topic) else { continue };
            waiting.tokens.remove(&token);
            if waiting.tokens.is_empty() {
                self.waiting.remove(topic);
            } else if waiting.tokens.capacity() > 64 && waiting.tokens.len() * 8 < waiting.tokens.capacity() {
                waiting.tokens.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Begin, Form, Start, Subscription};

    fn hub() -> Hub {
        let hub = Hub::new(7, HubLimits { log: Limits::default(), subscribers: 2 });
        hub.add_namespace(&"n".into(), Retention::default());
        hub.open();
        hub
    }

    fn topic(name: &str) -> Topic {
        Topic::new("n", name).expect("a topic")
    }

    fn subscribe(hub: &Hub, name: &str) -> Result<Subscription, Full> {
        Subscription::new(hub, vec![topic(name)], Begin::At(Start::Now), Form::default())
    }

    fn news(hub: &Hub) -> Vec<usize> {
        let mut tokens = Vec::new();
        hub.take_news(|token| tokens.push(token));
        tokens.sort_unstable();
        tokens
    }

    #[test]
    fn those_that_wait_for_a_topic_are_told_once_whatever_is_published() {
        let (hub, wakes) = (hub(), Arc::new(AtomicUsize::new(0)));
        let counted = wakes.clone();
        hub.wakes(move || _ = counted.fetch_add(1, Ordering::SeqCst));
        let mut one = subscribe(&hub, "a").expect("room");
        let mut other = subscribe(&hub, "b").expect("room");
        one.enter(11);
        other.enter(12);
        for _ in 0..5 {
            hub.publish(&topic("a"), Message::new("x"), 0, None).expect("open");
        }
        hub.publish(&topic("c"), Message::new("x"), 0, None).expect("open");
        assert_eq!((wakes.load(Ordering::SeqCst), hub.has_news()), (1, true));
        assert_eq!(news(&hub), [11]);
        assert!(!hub.has_news() && news(&hub).is_empty());
        hub.publish(&topic("b"), Message::new("x"), 0, None).expect("open");
        hub.publish(&topic("a"), Message::new("x"), 0, None).expect("open");
        assert_eq!(news(&hub), [11, 12]);
        drop(one);
        hub.publish(&topic("a"), Message::new("x"), 0, None).expect("open");
        assert!(news(&hub).is_empty());
        assert_eq!((hub.subscribers(), wakes.load(Ordering::SeqCst)), (1, 2));
    }

    #[test]
    fn there_are_no_more_subscribers_than_there_may_be() {
        let hub = hub();
        let (one, _other) = (subscribe(&hub, "a").expect("room"), subscribe(&hub, "a").expect("room"));
        assert_eq!(subscribe(&hub, "a").err(), Some(Full));
        drop(one);
        assert!(subscribe(&hub, "a").is_ok());
    }

    #[test]
    fn a_batch_is_all_or_none_and_has_no_others_between() {
        let hub = hub();
        let large = Message::new(vec![b'x'; (64 << 10) + 1]);
        let error = hub.publish_all(vec![(topic("a"), Message::new("1")), (topic("b"), large)], 0, None);
        assert_eq!(error, Err(PublishError::TooLarge { most: 64 << 10 }));
        assert_eq!(hub.position().offset, 0);
        let both = vec![(topic("a"), Message::new("1")), (topic("b"), Message::new("2"))];
        assert_eq!(hub.publish_all(both, 0, None).map(|published| published.position.offset), Ok(2));
    }

    #[test]
    fn who_tries_again_with_its_key_publishes_once() {
        let hub = hub();
        let publish = |key, principal, text: &str| {
            hub.publish(&topic("a"), Message::new(text), 0, Some(Key { principal, key }))
                .map(|published| (published.position.offset, published.repeated))
        };
        assert_eq!(publish("k", "one", "x"), Ok((1, false)));
        assert_eq!(publish("k", "one", "x"), Ok((1, true)));
        assert_eq!(publish("k", "one", "y"), Err(PublishError::KeyReused));
        assert_eq!(publish("k", "other", "y"), Ok((2, false)));
        assert_eq!(publish("l", "one", "x"), Ok((3, false)));
    }

    #[test]
    fn publishers_wait_while_the_log_is_written_down() {
        let hub = Hub::new(1, HubLimits { log: Limits::default(), subscribers: 1 });
        let publish = |hub: &Hub| hub.publish(&topic("a"), Message::new("x"), 0, None).map(|it| it.position.offset);
        assert_eq!(publish(&hub), Err(PublishError::NotServing));
        hub.open();
        hub.freeze();
        let waits = {
            let hub = hub.clone();
            std::thread::spawn(move || publish(&hub))
        };
        assert_eq!(hub.position().offset, 0);
        hub.open();
        assert_eq!(waits.join().expect("its answer"), Ok(1));
        hub.hand_over();
        assert_eq!(publish(&hub), Err(PublishError::HandedOver));
        hub.hand_over_to(|messages, _| {
            assert_eq!(messages.len(), 1);
            Ok(Published { position: Position { epoch: 5, offset: 7 }, subscribers: 0, repeated: false })
        });
        assert_eq!(publish(&hub), Ok(7));
        hub.open();
        assert_eq!(publish(&hub), Ok(2));
    }
}
