//! A client of a conversation as the engine has it: what it says goes to the application, and what is for it waits in its
//! inbox.

use crate::clock::Millis;
use crate::lifecycle::state::{Carried, SavedClient, SavedTopics};
use crate::logging::panic_text;
use crate::logging::rate_limit::log_rate_limited;
use pubsub::{Form, Inbox, Saved, SavedInbox, Subscription};
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use websocket::{Limits, Message};

/// What the application does for one client, with the state of that client. One call at a time, on a worker.
pub(crate) trait Talk: Send {
    fn message(&mut self, message: &Message);
    fn wake(&mut self);
    fn close(self: Box<Self>, closed: &Closed);
    fn save(&self) -> Carried;
    /// The application goes on with it, if it has not yet; `None` if it does not.
    fn go_on(self: Box<Self>, inbox: &Arc<Inbox>) -> Option<Box<dyn Talk>>;
}

/// What another process has saved of a client, until a worker has the application go on with that.
struct Waiting {
    conversation: Arc<dyn Restore>,
    saved: Carried,
}

impl Talk for Waiting {
    fn message(&mut self, _: &Message) {}

    fn wake(&mut self) {}

    fn close(self: Box<Self>, _: &Closed) {}

    /// As it came.
    fn save(&self) -> Carried {
        self.saved.clone()
    }

    fn go_on(self: Box<Self>, inbox: &Arc<Inbox>) -> Option<Box<dyn Talk>> {
        self.conversation.restore(inbox, self.saved)
    }
}

/// Goes on with a client whose state another process has saved.
pub(crate) trait Restore: Send + Sync {
    /// `None` if the application cannot.
    fn restore(&self, inbox: &Arc<Inbox>, state: Carried) -> Option<Box<dyn Talk>>;
}

/// How a client's connection ended. See the example of [`Client`](crate::Client).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// The status of the close frame that ended it (RFC 6455 §7.4.1): the client's, or else the server's. 1005 if that had
    /// none, and 1006 if there was no close frame: the client has gone, or was too slow. A session of SockJS ends with 1006 if
    /// its client has not come back for too long, and with 1002 if one of its connections broke.
    pub code: u16,
    /// What it says besides, mostly nothing.
    pub reason: String,
}

impl Closed {
    pub(crate) fn new(code: u16, reason: impl Into<String>) -> Closed {
        Closed { code, reason: reason.into() }
    }

    /// Nobody has said anything.
    pub(crate) fn lost() -> Closed {
        Closed::new(1006, "")
    }
}

/// A WebSocket that is to begin.
pub(crate) struct Converse {
    pub side: Side,
    pub limits: Limits,
}

/// Who is behind a WebSocket.
pub(crate) enum Side {
    /// The hub alone: its client listens.
    Listener(Box<Listener>),
    /// An application.
    Talker(Arc<Talker>),
    /// The same, with messages that are frames of SockJS.
    Framed(Box<Framed>),
}

/// A client of an application that speaks SockJS.
pub(crate) struct Framed {
    pub talker: Arc<Talker>,
    /// Seconds between heartbeats.
    pub heartbeat: u16,
    /// When the next one is due, once the connection has it.
    pub beat: Millis,
}

/// A subscription, and when its client is told something besides.
pub(crate) struct Listener {
    pub subscription: Subscription,
    /// Seconds between messages that say where it is; 0 for none.
    pub heartbeat: u16,
    /// When the next one is due, once the connection has it.
    pub beat: Millis,
    /// When it is closed whatever there is to be heard.
    pub expires: Millis,
}

impl Side {
    /// News reach it under that token from now on. Answers whether there is something.
    pub fn enter(&mut self, token: usize) -> bool {
        match self {
            Side::Listener(listener) => {
                let subscription = &mut listener.subscription;
                subscription.enter(token);
                !subscription.has_begun() || subscription.is_behind()
            }
            Side::Talker(talker) => talker.inbox.enter(token),
            Side::Framed(framed) => framed.talker.inbox.enter(token),
        }
    }

    /// Through which it hears.
    pub fn hub(&self) -> &pubsub::Hub {
        match self {
            Side::Listener(listener) => listener.subscription.hub(),
            Side::Talker(talker) => talker.inbox.hub(),
            Side::Framed(framed) => framed.talker.inbox.hub(),
        }
    }

    pub fn talker(&self) -> Option<&Arc<Talker>> {
        match self {
            Side::Listener(_) => None,
            Side::Talker(talker) => Some(talker),
            Side::Framed(framed) => Some(&framed.talker),
        }
    }

    /// Bytes that it keeps, as far as these are the server's.
    pub fn held(&self) -> usize {
        match self {
            Side::Listener(listener) => size_of::<Listener>() + listener.subscription.held(),
            Side::Talker(talker) => size_of::<Talker>() + talker.inbox.held(),
            Side::Framed(framed) => size_of::<Framed>() + size_of::<Talker>() + framed.talker.inbox.held(),
        }
    }
}

/// One client.
pub(crate) struct Talker {
    pub inbox: Arc<Inbox>,
    /// The name of its conversation.
    name: Arc<str>,
    talk: Mutex<Option<Box<dyn Talk>>>,
    all: Arc<Conversations>,
}

/// The application panicked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panicked;

impl Talker {
    pub fn new(all: &Arc<Conversations>, name: Arc<str>, inbox: Arc<Inbox>, talk: Box<dyn Talk>) -> Arc<Talker> {
        let talker = Arc::new(Talker { inbox, name, talk: Mutex::new(Some(talk)), all: all.clone() });
        all.clients().insert(talker.inbox.id(), Arc::downgrade(&talker));
        talker
    }

    /// The name of its conversation.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn talk(&self) -> MutexGuard<'_, Option<Box<dyn Talk>>> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call<R>(&self, what: impl FnOnce() -> R) -> Result<R, Panicked> {
        catch_unwind(AssertUnwindSafe(what)).map_err(|panic| {
            let text = panic_text(&*panic).unwrap_or("no message");
            log_rate_limited!(error, "conversation {:?} panicked: {text}", self.name);
            Panicked
        })
    }

    /// Whether the application has still to go on with it, before any other call.
    pub fn waits(&self) -> bool {
        self.inbox.waits()
    }

    /// Has the application go on with it. Answers whether it does.
    pub fn restore(&self) -> bool {
        let goes_on = self.restore_under(&mut self.talk());
        self.inbox.set_waits(false);
        goes_on
    }

    /// The same at once. One with which it does not go on waits for a worker, which says so.
    fn restore_at_once(&self) {
        let goes_on = self.restore_under(&mut self.talk());
        self.inbox.set_waits(!goes_on);
    }

    fn restore_under(&self, talk: &mut Option<Box<dyn Talk>>) -> bool {
        if self.inbox.waits() {
            let before = talk.take();
            // One that panics does not go on with it.
            *talk = self.call(|| before.and_then(|talk| talk.go_on(&self.inbox))).ok().flatten();
        }
        talk.is_some()
    }

    pub fn message(&self, message: &Message) -> Result<(), Panicked> {
        let mut talk = self.talk();
        self.call(|| talk.iter_mut().for_each(|talk| talk.message(message)))
    }

    pub fn wake(&self) -> Result<(), Panicked> {
        let mut talk = self.talk();
        self.call(|| talk.iter_mut().for_each(|talk| talk.wake()))
    }

    /// Nothing reaches the client any more, and the application is told, once.
    pub fn close(&self, closed: &Closed) {
        let talk = {
            let mut talk = self.talk();
            // Who has not gone on with it yet has known it in another process.
            self.restore_under(&mut talk);
            talk.take()
        };
        self.inbox.end();
        // What it does then is the end of this client's in any case.
        let _ = self.call(|| talk.into_iter().for_each(|talk| talk.close(closed)));
    }

    /// Has the application save its state, for [`Talker::saved`]. Not of one with a call that does not end: its connection
    /// was cut, and nobody waits for it.
    fn save(&self) {
        let talk = match self.talk.try_lock() {
            Ok(talk) => talk,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if let Ok(Some(saved)) = self.call(|| talk.as_ref().map(|talk| talk.save())) {
            self.all.saved().insert(self.inbox.id(), saved);
        }
    }

    /// A successor goes on with it: what the application has of it here is dropped, on this thread.
    fn let_go(&self) {
        let talk = self.talk().take();
        self.inbox.set_waits(false);
        // What it does then concerns nobody any more.
        let _ = self.call(|| drop(talk));
        // Should this process serve again, whoever still has it is told.
        self.inbox.end();
    }

    /// It as it is now, with what the application has saved.
    pub fn saved(&self) -> SavedClient {
        let state = self.all.saved().get(&self.inbox.id()).cloned();
        let SavedInbox { id, messages, subscription, close, wake, text: sockjs } = self.inbox.save();
        let message = |message| match message {
            Message::Text(text) => (true, ByteBuf::from(text)),
            Message::Binary(bytes) => (false, ByteBuf::from(bytes)),
        };
        SavedClient {
            conversation: self.name.to_string(),
            id,
            state: state.map(|Carried { version, bytes }| (version, ByteBuf::from(bytes))),
            topics: subscription.map(SavedTopics::from),
            messages: messages.into_iter().map(message).collect(),
            close,
            wake,
            sockjs,
        }
    }
}

impl From<Saved> for SavedTopics {
    fn from(saved: Saved) -> SavedTopics {
        let Saved { namespace, topics, cursor, told, recent, .. } = saved;
        SavedTopics { namespace, topics, cursor, told, recent }
    }
}

/// A WebSocket's topics, whose messages are JSON or bare data.
pub(crate) fn topics_of(saved: SavedTopics, json: bool) -> Saved {
    let SavedTopics { namespace, topics, cursor, told, recent } = saved;
    let form = Form { websocket: true, json, ..Form::default() };
    Saved { namespace, topics, cursor, told, form, recent }
}

/// What waits for a client, as it was written down.
fn inbox_of(saved: SavedClient) -> Option<SavedInbox> {
    let SavedClient { id, topics, messages, close, wake, sockjs: text, .. } = saved;
    let message = |(text, bytes): (bool, ByteBuf)| match text {
        true => String::from_utf8(bytes.into_vec()).ok().map(Message::Text),
        false => Some(Message::Binary(bytes.into_vec())),
    };
    let messages: Vec<Message> = messages.into_iter().map(message).collect::<Option<_>>()?;
    let subscription = topics.map(|topics| topics_of(topics, false));
    Some(SavedInbox { id, messages, subscription, close, wake, text })
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.all.clients().remove(&self.inbox.id());
        self.all.saved().remove(&self.inbox.id());
        if !self.waits() && self.talk().is_some() {
            // It was opened, and its handshake never left. What moved is dropped by whoever lets it go before.
            self.close(&Closed::lost());
        }
    }
}

/// The conversations of a hub, by their names, and their clients.
#[derive(Default)]
pub(crate) struct Conversations {
    known: Mutex<HashMap<Arc<str>, Arc<dyn Restore>>>,
    clients: Mutex<HashMap<u64, Weak<Talker>>>,
    /// What their applications have saved for a successor: here, and not with each, because mostly there is none.
    saved: Mutex<HashMap<u64, Carried>>,
    /// Clients whose connections have ended where no application's code may run.
    ended: Mutex<VecDeque<(Arc<Talker>, Option<Closed>)>>,
    /// How many of them the application has not been told of, or is being told of.
    untold: AtomicUsize,
    /// Whether a worker is to be woken for them.
    wants_worker: AtomicBool,
}

/// So many a worker tells of before something else has its turn.
const TOLD: usize = 64;

impl Conversations {
    fn clients(&self) -> MutexGuard<'_, HashMap<u64, Weak<Talker>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saved(&self) -> MutexGuard<'_, HashMap<u64, Carried>> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A successor finds it by that name.
    pub fn register(&self, name: Arc<str>, conversation: Arc<dyn Restore>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name, conversation);
    }

    /// Those that are registered, in the order of their names.
    pub fn names(&self) -> Vec<Arc<str>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = known.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// How many clients are here of each conversation that is none of these.
    pub fn clients_but_of(&self, names: &[String]) -> BTreeMap<Arc<str>, usize> {
        let mut others = BTreeMap::new();
        for talker in self.all() {
            if !names.iter().any(|name| **name == *talker.name) {
                *others.entry(talker.name.clone()).or_default() += 1;
            }
        }
        others
    }

    /// Whether any client is here.
    pub fn have_clients(&self) -> bool {
        !self.clients().is_empty()
    }

    /// A client that is here.
    pub fn client(&self, id: u64) -> Option<Arc<Talker>> {
        self.clients().get(&id)?.upgrade()
    }

    /// Whether it is here, and not a successor's.
    pub fn has(&self, id: u64) -> bool {
        self.client(id).is_some_and(|talker| !talker.inbox.has_moved())
    }

    /// A client goes on that was written down: for its application with the first turn of a worker, see [`Talker::waits`].
    pub fn restore(self: &Arc<Self>, hub: &pubsub::Hub, mut saved: SavedClient) -> Option<Arc<Talker>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known_one = known.get_key_value(&*saved.conversation);
        let (name, conversation) = known_one.map(|(name, one)| (name.clone(), one.clone()))?;
        drop(known);
        let (version, bytes) = saved.state.take()?;
        let inbox = Inbox::restore(hub, inbox_of(saved)?);
        let waiting = Waiting { conversation, saved: Carried { version, bytes: bytes.into_vec() } };
        inbox.set_waits(true);
        Some(Talker::new(self, name, inbox, Box::new(waiting)))
    }

    /// All clients that are here.
    pub fn all(&self) -> Vec<Arc<Talker>> {
        self.clients().values().filter_map(Weak::upgrade).collect()
    }

    /// The applications go on with all that wait for it: before the server serves, so that what fails there leads back.
    pub fn restore_at_once(&self) {
        self.all().iter().for_each(|talker| talker.restore_at_once());
    }

    /// Every application's state is saved: while nothing runs, and before the hub is frozen.
    pub fn save(&self) {
        let clients = self.all();
        *self.saved() = HashMap::with_capacity(clients.len());
        clients.iter().for_each(|talker| talker.save());
    }

    fn ended(&self) -> MutexGuard<'_, VecDeque<(Arc<Talker>, Option<Closed>)>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client's connection has ended on a thread on which the application may not run. It is told on another, unless the
    /// client lives on elsewhere.
    pub fn has_ended(&self, talker: Arc<Talker>, closed: Option<Closed>) {
        if closed.is_none() {
            talker.inbox.hand_over();
        }
        self.untold.fetch_add(1, Ordering::AcqRel);
        self.ended().push_back((talker, closed));
        self.wants_worker.store(true, Ordering::Release);
    }

    /// Of how many ends the application has still to be told, or is being told: its code is to run, or runs.
    pub fn untold(&self) -> usize {
        self.untold.load(Ordering::Acquire)
    }

    /// Whether a worker is to be woken for that, which is answered once.
    pub fn take_wish_for_worker(&self) -> bool {
        self.wants_worker.load(Ordering::Relaxed) && self.wants_worker.swap(false, Ordering::AcqRel)
    }

    /// Tells the application of some of them, on this thread. Answers whether there are more.
    pub fn tell_of_ended(&self) -> bool {
        if self.untold() == 0 {
            return false;
        }
        for _ in 0..TOLD {
            let Some((talker, closed)) = self.ended().pop_front() else { return false };
            // Counted however that ends: a panic is caught there.
            match closed {
                Some(closed) => talker.close(&closed),
                // Else whoever drops the connection later, which may be the acceptor, would drop that as well.
                None => talker.let_go(),
            }
            drop(talker);
            self.untold.fetch_sub(1, Ordering::AcqRel);
        }
        let more = !self.ended().is_empty();
        if more {
            self.wants_worker.store(true, Ordering::Release);
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pubsub::{Hub, HubLimits};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    /// Says what is called.
    struct Said {
        calls: Sender<String>,
        /// A message does not return before something comes here.
        goes_on: Receiver<()>,
    }

    impl Talk for Said {
        fn message(&mut self, _: &Message) {
            let _ = self.calls.send("message".to_owned());
            let _ = self.goes_on.recv();
        }

        fn wake(&mut self) {}

        fn close(self: Box<Self>, closed: &Closed) {
            let _ = self.calls.send(format!("close {}", closed.code));
        }

        fn save(&self) -> Carried {
            Carried { version: 7, bytes: Vec::new() }
        }

        fn go_on(self: Box<Self>, _: &Arc<Inbox>) -> Option<Box<dyn Talk>> {
            Some(self)
        }
    }

    impl Drop for Said {
        fn drop(&mut self) {
            let _ = self.calls.send("drop".to_owned());
        }
    }

    struct One {
        all: Arc<Conversations>,
        hub: Hub,
        talker: Arc<Talker>,
        calls: Receiver<String>,
        goes_on: Sender<()>,
    }

    impl One {
        fn new() -> One {
            let hub = Hub::new(1, HubLimits { log: pubsub::Limits::default(), subscribers: 9 });
            let (all, inbox) = (Arc::new(Conversations::default()), Inbox::new(&hub, 5).expect("room"));
            let ((calls, called), (goes_on, may)) = (channel(), channel());
            let talker = Talker::new(&all, "said".into(), inbox, Box::new(Said { calls, goes_on: may }));
            One { all, hub, talker, calls: called, goes_on }
        }

        fn called(&self) -> Vec<String> {
            self.calls.try_iter().collect()
        }
    }

    /// Its connection was cut at the deadline of a reload, and all clients were to wait for it.
    #[test]
    fn a_call_that_does_not_end_keeps_no_other_client_from_being_saved() {
        let one = One::new();
        let inbox = Inbox::new(&one.hub, 6).expect("room");
        let (calls, _called) = channel();
        let other = Talker::new(&one.all, "said".into(), inbox, Box::new(Said { calls, goes_on: channel().1 }));
        let stuck = one.talker.clone();
        let runs = thread::spawn(move || stuck.message(&Message::Text(String::new())));
        assert_eq!(one.calls.recv().as_deref(), Ok("message"));
        one.all.save();
        let saved = |talker: &Talker| talker.saved().state.map(|(version, _)| version);
        assert_eq!((saved(&one.talker), saved(&other)), (None, Some(7)));
        one.goes_on.send(()).expect("it waits");
        assert!(runs.join().is_ok());
        one.all.save();
        assert_eq!(saved(&one.talker), Some(7));
        // What was saved for an earlier reload is nothing that a successor may go on with.
        let stuck = one.talker.clone();
        let runs = thread::spawn(move || stuck.message(&Message::Text(String::new())));
        assert_eq!(one.calls.recv().as_deref(), Ok("message"));
        one.all.save();
        assert_eq!((saved(&one.talker), saved(&other)), (None, Some(7)));
        one.goes_on.send(()).expect("it waits");
        assert!(runs.join().is_ok());
    }

    #[test]
    fn what_was_saved_of_a_client_goes_with_it() {
        let One { all, talker, .. } = One::new();
        all.save();
        assert_eq!(all.saved().len(), 1);
        drop(talker);
        assert_eq!(all.saved().len(), 0);
    }

    /// The acceptor drops its connection after that.
    #[test]
    fn what_a_client_has_that_moved_is_dropped_by_the_worker_that_is_told() {
        let one = One::new();
        one.all.has_ended(one.talker.clone(), None);
        one.all.tell_of_ended();
        assert_eq!(one.called(), ["drop"], "and its close is for the successor to see");
        assert_eq!(one.talker.inbox.save().id, 5);
        assert!(one.talker.inbox.is_closed() && one.hub.subscribers() == 0);
        one.hub.hand_over();
        assert!(!one.talker.inbox.is_closed(), "another process has it");
    }

    /// Ten thousand that have moved were one worker's for as long as their states took to drop.
    #[test]
    fn of_many_ends_a_worker_tells_some_and_then_something_else_has_its_turn() {
        let one = One::new();
        for _ in 0..TOLD + 3 {
            one.all.has_ended(one.talker.clone(), None);
        }
        assert!(one.all.take_wish_for_worker() && !one.all.take_wish_for_worker());
        assert!(one.all.tell_of_ended());
        assert_eq!(one.all.untold(), 3);
        assert!(one.all.take_wish_for_worker());
        assert!(!one.all.tell_of_ended() && !one.all.take_wish_for_worker());
        assert_eq!(one.all.untold(), 0);
    }

    /// It ran on the thread that reads the link, and one that blocked kept all that moved waiting.
    #[test]
    fn an_application_goes_on_with_a_client_when_a_worker_says_so() {
        struct Restores(Sender<String>);

        impl Restore for Restores {
            fn restore(&self, _: &Arc<Inbox>, state: Carried) -> Option<Box<dyn Talk>> {
                let _ = self.0.send(format!("restore {}", state.version));
                assert!(state.version < 20, "it panics");
                let said = || Said { calls: self.0.clone(), goes_on: channel().1 };
                (state.version < 10).then(|| Box::new(said()) as Box<dyn Talk>)
            }
        }

        let (calls, called) = channel();
        let called = || called.try_iter().collect::<Vec<_>>();
        let hub = Hub::new(1, HubLimits { log: pubsub::Limits::default(), subscribers: 9 });
        let all = Arc::new(Conversations::default());
        all.register("said".into(), Arc::new(Restores(calls)));
        let of_version = |version| {
            let saved = SavedClient {
                conversation: "said".to_owned(),
                id: 5,
                state: Some((version, ByteBuf::from(*b"7"))),
                topics: None,
                messages: Vec::new(),
                close: None,
                wake: None,
                sockjs: false,
            };
            all.restore(&hub, saved).expect("it is known")
        };
        of_version(2).close(&Closed::lost());
        all.restore_at_once();
        assert_eq!(called(), ["restore 2", "close 1006", "drop"], "it has gone");
        let talker = of_version(1);
        all.restore_at_once();
        assert!(!talker.waits() && talker.restore());
        drop(talker);
        assert_eq!(called(), ["restore 1", "close 1006", "drop"]);
        let talker = of_version(3);
        // What is reloaded again before that passes it on as it came.
        all.save();
        assert_eq!(talker.saved().state, Some((3, ByteBuf::from(*b"7"))));
        assert!(talker.waits() && called().is_empty());
        assert!(talker.restore() && !talker.waits() && talker.restore());
        assert_eq!(called(), ["restore 3"]);
        talker.close(&Closed::lost());
        assert_eq!(called(), ["close 1006", "drop"]);
        // One that ends before that, and those with which it does not go on.
        of_version(4).close(&Closed::lost());
        assert_eq!(called(), ["restore 4", "close 1006", "drop"]);
        for version in [10, 20] {
            let talker = of_version(version);
            all.restore_at_once();
            assert!(talker.waits() && !talker.restore() && !talker.waits());
            talker.close(&Closed::lost());
            assert_eq!(called(), [format!("restore {version}")]);
        }
        // Its predecessor has kept it.
        drop(of_version(5));
        assert!(called().is_empty());
    }

    #[test]
    fn a_client_whose_handshake_never_left_is_closed_all_the_same() {
        let One { talker, calls, hub, .. } = One::new();
        let inbox = talker.inbox.clone();
        drop(talker);
        assert_eq!(calls.try_iter().collect::<Vec<_>>(), ["close 1006", "drop"]);
        assert_eq!((inbox.send(Message::Text(String::new())), hub.subscribers()), (Err(pubsub::SendError::Closed), 0));
    }
}
