//! Sessions of SockJS: clients of a conversation that outlive their connections.
//!
//! A session has the client as the application knows it ([`Talker`]), and the state machine that says what each of its
//! connections gets ([`sockjs::Session`]). What the application sends waits in the client's inbox, as for a WebSocket, until a
//! connection is there that takes it; what is for a connection waits here until a worker has that, which is told.
//!
//! What is due without a connection, or is for one that another thread has, is found by [`Sessions::due`], and done by a
//! worker. Lock order: a slot, then a session, then its inbox or the table.

use super::talk::{Closed, Conversations, Talker};
use crate::lifecycle::state::{SavedSession, SavedWrite};
use pubsub::{Hub, Joined};
use serde_bytes::ByteBuf;
use sockjs::{Close, Form, Outcome, Refusal, Saved, Settings, Write};
use std::cmp::Ordering as Order;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use websocket::{CloseCode, Message};

/// Bytes that go into one frame, unless the first message alone has more.
const BYTES: usize = 64 << 10;
/// Messages of a client, and bytes of them, that wait for its application while that is busy with one before.
const MESSAGES: usize = 1024;
const MESSAGE_BYTES: usize = 256 << 10;
/// Its client was too slow: messages of a topic are gone before it had them.
const MISSED: u16 = 4001;

/// Whose a session is, as far as requests say: one of somebody else is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The Origin, if it was another than the server's own. Not every request has one.
    pub origin: Option<String>,
    /// The field Authorization.
    pub authorization: Option<Vec<u8>>,
}

/// A session.
pub(crate) struct Session {
    /// The name of its conversation, and what its client calls it.
    conversation: Arc<str>,
    id: Box<str>,
    hub: Hub,
    all: Weak<Sessions>,
    inner: Mutex<Inner>,
    calls: Mutex<Calls>,
}

struct Inner {
    machine: sockjs::Session,
    /// While the application has it.
    talker: Option<Arc<Talker>>,
    /// What connections are to write.
    pending: Vec<Write>,
    /// Under which token each of its connections is woken.
    tokens: Vec<(u64, usize)>,
    /// The one that is woken for what comes into the inbox.
    entered: Option<u64>,
    /// For when it stands among the timers.
    timer: u64,
    /// Its application is about to be woken.
    wakes: bool,
    owner: Owner,
    /// What it was counted with.
    held: usize,
}

/// Calls of the application that wait until the one before has ended: those for one client never overlap.
#[derive(Default)]
struct Calls {
    waiting: VecDeque<Call>,
    /// Of the messages among them.
    bytes: usize,
    /// A thread makes them, one by one.
    made: bool,
}

/// See [`Talker`].
enum Call {
    Message(String),
    Wake,
    Close(Arc<Talker>, Closed),
}

impl Call {
    fn len(&self) -> usize {
        match self {
            Call::Message(message) => message.len(),
            Call::Wake | Call::Close(..) => 0,
        }
    }
}

/// What came of a request for a session.
pub(crate) enum Arrived {
    /// It is one of its connections.
    Joined(Arc<Session>),
    /// It is the first one: the application is to open it, and [`Session::open`] or [`Session::refuse`] follows.
    New(Arc<Session>),
    /// It is somebody else's.
    NotYours,
    /// There are as many as there may be.
    Full,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics half-way while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    fn new(
        all: &Arc<Sessions>,
        hub: &Hub,
        key: (Arc<str>, Box<str>),
        machine: sockjs::Session,
        owner: Owner,
    ) -> Session {
        let inner = Inner {
            machine,
            talker: None,
            pending: Vec::new(),
            tokens: Vec::new(),
            entered: None,
            timer: u64::MAX,
            wakes: false,
            owner,
            held: 0,
        };
        let ((conversation, id), all) = (key, Arc::downgrade(all));
        Session { conversation, id, hub: hub.clone(), all, inner: Mutex::new(inner), calls: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// The name of its conversation, and what its client calls it.
    pub fn key(&self) -> (&str, &str) {
        (&self.conversation, &self.id)
    }

    /// Through which it hears.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The application has opened it.
    pub fn open(self: &Arc<Self>, talker: Arc<Talker>, now: u64) {
        let Some(all) = self.all.upgrade() else { return };
        talker.inbox.lasts();
        lock(&all.clients).insert(talker.inbox.id(), Arc::downgrade(self));
        let mut inner = self.inner();
        inner.talker = Some(talker);
        self.settle(&mut inner, None);
        self.set_timer(&mut inner, now);
    }

    /// The application has not: it was never there.
    pub fn refuse(self: &Arc<Self>) {
        self.all.upgrade().into_iter().for_each(|all| all.remove(self));
    }

    /// Whether a request may be for it. What it says of itself for the first time counts from then on.
    pub fn is_owned_by(&self, owner: &Owner) -> bool {
        let mut inner = self.inner();
        let same = match (&inner.owner.origin, &owner.origin) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        let same = same && inner.owner.authorization == owner.authorization;
        if same && inner.owner.origin.is_none() {
            inner.owner.origin.clone_from(&owner.origin);
        }
        same
    }

    /// News reach that connection under that token from now on. Answers whether there is something for it.
    pub fn enter(&self, receiver: u64, token: usize) -> bool {
        let mut inner = self.inner();
        inner.tokens.retain(|(known, _)| *known != receiver);
        inner.tokens.push((receiver, token));
        inner.entered = inner.entered.filter(|entered| *entered != receiver);
        let waits = self.settle(&mut inner, Some(receiver));
        waits || inner.pending.iter().any(|write| write.receiver == receiver)
    }

    /// What that connection is to write now, if there is something: what it had before is written.
    pub fn next(self: &Arc<Self>, receiver: u64, joined: &mut Joined, now: u64) -> Option<Write> {
        let mut inner = self.inner();
        let place = |inner: &Inner| inner.pending.iter().position(|write| write.receiver == receiver);
        if place(&inner).is_none() && inner.machine.receivers().next() == Some(receiver) {
            self.feed(&mut inner, receiver, joined, now);
        }
        place(&inner).map(|at| inner.pending.remove(at))
    }

    /// That connection has written what it had.
    pub fn written(self: &Arc<Self>, receiver: u64, ended: bool, now: u64) {
        let mut inner = self.inner();
        if ended {
            inner.tokens.retain(|(known, _)| *known != receiver);
        }
        let outcome = inner.machine.written(receiver, now);
        self.absorb(&mut inner, outcome, Some(receiver), now);
    }

    /// That connection has ended as it should not.
    pub fn lost(self: &Arc<Self>, receiver: u64, now: u64) {
        let mut inner = self.inner();
        inner.tokens.retain(|(known, _)| *known != receiver);
        inner.pending.retain(|write| write.receiver != receiver);
        let outcome = inner.machine.lost(receiver, now);
        self.absorb(&mut inner, outcome, Some(receiver), now);
    }

    /// The server stops, or has no place for it: its client is told that it is closed.
    pub fn go_away(self: &Arc<Self>, now: u64) {
        self.close(Close::go_away(), now);
    }

    fn close(self: &Arc<Self>, close: Close, now: u64) {
        let mut inner = self.inner();
        let outcome = inner.machine.close(close);
        self.absorb(&mut inner, outcome, None, now);
    }

    /// What its client has sent: the application hears it on this thread, message by message, or on the one on which it hears
    /// what came before.
    pub fn hear(self: &Arc<Self>, messages: Vec<String>, now: impl Fn() -> u64) -> Result<(), HearError> {
        let messages = {
            let inner = self.inner();
            // While its application opens it, nobody can know of it.
            let opens = inner.talker.is_none() && inner.machine.is_open();
            let messages = inner.machine.receive(messages).map_err(HearError::Refused)?;
            if opens {
                return Err(HearError::Refused(Refusal::UnknownSession));
            }
            messages
        };
        let mut calls = lock(&self.calls);
        let bytes = calls.bytes + messages.iter().map(String::len).sum::<usize>();
        let waits = !calls.waiting.is_empty();
        if waits && (bytes > MESSAGE_BYTES || calls.waiting.len() + messages.len() > MESSAGES) {
            return Err(HearError::Busy);
        }
        calls.bytes = bytes;
        calls.waiting.extend(messages.into_iter().map(Call::Message));
        self.make(calls, now);
        Ok(())
    }

    /// Makes the calls that wait, on this thread, one after the other, unless another thread does.
    fn make(self: &Arc<Self>, mut calls: MutexGuard<'_, Calls>, now: impl Fn() -> u64) {
        if mem::replace(&mut calls.made, true) {
            return;
        }
        drop(calls);
        loop {
            let next = {
                let mut calls = lock(&self.calls);
                let next = calls.waiting.pop_front();
                calls.bytes -= next.as_ref().map_or(0, Call::len);
                calls.made = next.is_some();
                next
            };
            let talker = self.inner().talker.clone();
            let outcome = match (next, talker) {
                (None, _) => break,
                (Some(Call::Close(talker, closed)), _) => {
                    talker.close(&closed);
                    Ok(())
                }
                (Some(Call::Message(message)), Some(talker)) => talker.message(&Message::Text(message)),
                (Some(Call::Wake), Some(talker)) => {
                    self.inner().wakes = false;
                    if talker.inbox.take_wake(now()) { talker.wake() } else { Ok(()) }
                }
                // Who is closed is heard no more.
                (Some(_), None) => Ok(()),
            };
            if outcome.is_err() {
                self.fail(now());
            }
        }
        let mut inner = self.inner();
        self.set_timer(&mut inner, now());
    }

    /// Its application wants to be woken, on this thread unless another makes calls for it.
    fn wake(self: &Arc<Self>, now: impl Fn() -> u64) {
        let mut calls = lock(&self.calls);
        calls.waiting.push_back(Call::Wake);
        self.make(calls, now);
    }

    /// The application has panicked.
    fn fail(self: &Arc<Self>, now: u64) {
        self.close(Close::new(CloseCode::INTERNAL_ERROR.get(), ""), now);
    }

    /// Time has passed, or something has happened while it had no connection. Answers whether its application is to be woken.
    fn look(self: &Arc<Self>, timer: Option<u64>, now: u64) -> bool {
        let mut inner = self.inner();
        match timer {
            Some(at) if at != inner.timer => return false,
            Some(_) => inner.timer = u64::MAX,
            None => {}
        }
        let wake = inner.talker.as_ref().and_then(|talker| talker.inbox.wake_time());
        let wakes = wake.is_some_and(|wake| wake <= now) && !mem::replace(&mut inner.wakes, true);
        let outcome = inner.machine.tick(now);
        self.absorb(&mut inner, outcome, None, now);
        // With a connection this is found when that has taken what waits before.
        if inner.machine.receivers().next().is_none() {
            self.close_if_asked(&mut inner, None, now);
        }
        wakes
    }

    /// Closes it if the application wants that, and nothing waits before it.
    fn close_if_asked(self: &Arc<Self>, inner: &mut Inner, me: Option<u64>, now: u64) {
        let asked = inner.talker.as_ref().and_then(|talker| talker.inbox.close_asked());
        if let Some((code, reason)) = asked {
            let code = CloseCode::new(code).unwrap_or(CloseCode::NORMAL).get();
            let outcome = inner.machine.close(Close::new(code, &reason));
            self.absorb(inner, outcome, me, now);
        }
    }

    /// Gives the machine what waits for its client, who is there to take it.
    fn feed(self: &Arc<Self>, inner: &mut Inner, receiver: u64, joined: &mut Joined, now: u64) {
        let Some(inbox) = inner.talker.as_ref().map(|talker| talker.inbox.clone()) else { return };
        if !inner.machine.has_idle_receiver() {
            return;
        }
        let (mut bytes, mut missed) = (0, false);
        // Nothing of that is refused: the machine takes as much as comes at a time.
        let mut send = |inner: &mut Inner, message: String| {
            bytes += message.len();
            let _ = inner.machine.send(message);
            bytes < BYTES
        };
        let mut goes_on = true;
        while goes_on && let Some(message) = inbox.take() {
            if let Message::Text(text) = message {
                goes_on = send(inner, text);
            }
        }
        if goes_on {
            joined.clear();
            let (pulled, _) = inbox.pull(joined);
            let mut began = 0;
            for (end, _) in joined.ends() {
                // What is no text is replaced, as on an event stream.
                send(inner, String::from_utf8_lossy(&joined.bytes()[began..*end]).into_owned());
                began = *end;
            }
            joined.clear();
            missed = pulled.gap;
        }
        let outcome = inner.machine.flush(now);
        self.absorb(inner, outcome, Some(receiver), now);
        if missed {
            let outcome = inner.machine.close(Close::new(MISSED, "messages are missing"));
            self.absorb(inner, outcome, Some(receiver), now);
        } else if inner.machine.has_idle_receiver() {
            self.close_if_asked(inner, Some(receiver), now);
        }
    }

    /// Does what follows from something that has happened, on a thread that has connection `me`, or none.
    fn absorb(self: &Arc<Self>, inner: &mut Inner, outcome: Outcome, me: Option<u64>, now: u64) {
        let Some(all) = self.all.upgrade() else { return };
        let Outcome { writes, opened: _, closed, gone } = outcome;
        for write in writes {
            if Some(write.receiver) != me
                && let Some((_, token)) = inner.tokens.iter().find(|(receiver, _)| *receiver == write.receiver)
            {
                self.hub.call(*token);
            }
            inner.pending.push(write);
        }
        if let Some(Close { code, reason }) = closed
            && let Some(talker) = inner.talker.take()
        {
            lock(&all.clients).remove(&talker.inbox.id());
            talker.inbox.shut();
            talker.inbox.leave();
            let closed = Closed::new(code, reason);
            let mut calls = lock(&self.calls);
            calls.waiting.clear();
            calls.bytes = 0;
            match calls.made {
                // Behind the call that runs.
                true => calls.waiting.push_back(Call::Close(talker, closed)),
                false => all.conversations.has_ended(talker, Some(closed)),
            }
        }
        if gone {
            all.remove(self);
        }
        self.settle(inner, me);
        self.set_timer(inner, now);
        let held = inner.held();
        all.held.fetch_add(held, Ordering::Relaxed);
        all.held.fetch_sub(mem::replace(&mut inner.held, held), Ordering::Relaxed);
    }

    /// What comes into the inbox wakes the connection that holds the session. Answers whether something is there for `me`.
    fn settle(&self, inner: &mut Inner, me: Option<u64>) -> bool {
        let Some(inbox) = inner.talker.as_ref().map(|talker| talker.inbox.clone()) else { return false };
        let holder = inner.machine.receivers().next();
        let known = inner.tokens.iter().find(|(receiver, _)| Some(*receiver) == holder);
        let Some((holder, token)) = known.copied() else {
            if inner.entered.take().is_some() {
                inbox.leave();
            }
            return false;
        };
        if inner.entered.replace(holder) == Some(holder) || !inbox.enter(token) {
            return false;
        }
        if Some(holder) != me {
            self.hub.call(token);
        }
        Some(holder) == me
    }

    /// Sees to it that it is looked at when something is due.
    fn set_timer(self: &Arc<Self>, inner: &mut Inner, now: u64) {
        let Some(all) = self.all.upgrade() else { return };
        let wake = inner.talker.as_ref().filter(|_| !inner.wakes).and_then(|talker| talker.inbox.wake_time());
        let due = inner.machine.deadline().into_iter().chain(wake).min().unwrap_or(u64::MAX).max(now);
        if due < inner.timer {
            inner.timer = due;
            if all.set_timer(Timer { at: due, session: Arc::downgrade(self) }) {
                self.hub.wake();
            }
        }
    }

    /// It as it is now, with what the application has saved.
    fn save(&self, now: u64) -> SavedSession {
        let inner = self.inner();
        let Settings { heartbeat, disconnect, response_limit, .. } = inner.machine.settings();
        let write = |Write { receiver, pieces, ends }: &Write| SavedWrite {
            receiver: *receiver,
            pieces: pieces.iter().map(|piece| ByteBuf::from(piece.as_slice())).collect(),
            ends: *ends,
        };
        SavedSession {
            conversation: self.conversation.to_string(),
            id: self.id.to_string(),
            machine: inner.machine.save(now).to_bytes(),
            pending: inner.pending.iter().map(write).collect(),
            client: inner.talker.as_ref().map(|talker| Box::new(talker.saved())),
            origin: inner.owner.origin.clone(),
            authorization: inner.owner.authorization.clone().map(ByteBuf::from),
            heartbeat,
            disconnect,
            response_limit,
        }
    }
}

/// Why what a client has sent is not heard.
#[derive(Debug)]
pub(crate) enum HearError {
    Refused(Refusal),
    /// More waits for its application than may.
    Busy,
}

impl Inner {
    fn held(&self) -> usize {
        let pieces = self.pending.iter().flat_map(|write| &write.pieces);
        let inbox = |talker: &Arc<Talker>| size_of::<Talker>() + talker.inbox.held();
        size_of::<Session>()
            + self.machine.memory()
            + pieces.map(Vec::capacity).sum::<usize>()
            + self.talker.as_ref().map_or(0, inbox)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(all) = self.all.upgrade() {
            all.held.fetch_sub(self.inner().held, Ordering::Relaxed);
        }
    }
}

/// When a session is to be looked at.
struct Timer {
    at: u64,
    session: Weak<Session>,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Timer) -> bool {
        self.at == other.at
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Timer) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    /// The first one is the greatest of a heap.
    fn cmp(&self, other: &Timer) -> Order {
        other.at.cmp(&self.at)
    }
}

/// The sessions of a hub's conversations.
#[derive(Default)]
pub(crate) struct Sessions {
    conversations: Arc<Conversations>,
    /// By conversation, and by what its client calls it.
    all: Mutex<HashMap<Arc<str>, OfConversation>>,
    /// By the number of the client.
    clients: Mutex<HashMap<u64, Weak<Session>>>,
    timers: Mutex<BinaryHeap<Timer>>,
    /// Those to look at whatever the time is.
    called: Mutex<Vec<Weak<Session>>>,
    /// Milliseconds: when a worker is to look; 0 is at once.
    due: Due,
    /// A worker was asked to, and has not yet.
    asked: AtomicBool,
    /// Those whose application is to be woken, and how many threads wake one.
    wakes: Mutex<VecDeque<Arc<Session>>>,
    calling: AtomicUsize,
    /// Bytes that they keep.
    held: AtomicUsize,
    /// There is no memory for more.
    full: AtomicBool,
    /// A successor has those that were here.
    moved: Mutex<Vec<Weak<Session>>>,
}

/// The sessions of a conversation, by what their clients call them.
type OfConversation = HashMap<Box<str>, Arc<Session>>;

/// When something is due; never, at first.
struct Due(AtomicU64);

impl Default for Due {
    fn default() -> Due {
        Due(AtomicU64::new(u64::MAX))
    }
}

impl Sessions {
    /// Whose they are.
    pub fn conversations(&self) -> &Arc<Conversations> {
        &self.conversations
    }

    /// A request of a session whose response is to have frames.
    #[expect(clippy::too_many_arguments, reason = "what a request says, and what its service does")]
    pub fn arrive(
        self: &Arc<Self>,
        hub: &Hub,
        key: (&Arc<str>, &str),
        owner: Owner,
        (receiver, form): (u64, Form),
        settings: Settings,
        most: usize,
        now: u64,
    ) -> Arrived {
        let (conversation, id) = key;
        let mut all = lock(&self.all);
        let of_conversation = all.entry(conversation.clone()).or_default();
        if let Some(session) = of_conversation.get(id).cloned() {
            drop(all);
            if !session.is_owned_by(&owner) {
                return Arrived::NotYours;
            }
            let mut inner = session.inner();
            let outcome = inner.machine.arrive(receiver, form, now);
            session.absorb(&mut inner, outcome, Some(receiver), now);
            drop(inner);
            return Arrived::Joined(session);
        }
        if of_conversation.len() >= most || self.full.load(Ordering::Relaxed) {
            return Arrived::Full;
        }
        let machine = sockjs::Session::new(unbounded(settings), now);
        let key: (Arc<str>, Box<str>) = (conversation.clone(), id.into());
        let session = Arc::new(Session::new(self, hub, key, machine, owner));
        let mut inner = session.inner();
        // Before anybody else can find it.
        let outcome = inner.machine.arrive(receiver, form, now);
        of_conversation.insert(id.into(), session.clone());
        drop(all);
        session.absorb(&mut inner, outcome, Some(receiver), now);
        drop(inner);
        Arrived::New(session)
    }

    /// One that is there.
    pub fn find(&self, conversation: &str, id: &str) -> Option<Arc<Session>> {
        lock(&self.all).get(conversation)?.get(id).cloned()
    }

    fn every(&self) -> Vec<Arc<Session>> {
        lock(&self.all).values().flat_map(HashMap::values).cloned().collect()
    }

    fn remove(&self, session: &Arc<Session>) {
        let mut all = lock(&self.all);
        if let Some(of_conversation) = all.get_mut(&session.conversation)
            && of_conversation.get(&session.id).is_some_and(|known| Arc::ptr_eq(known, session))
        {
            of_conversation.remove(&session.id);
        }
    }

    /// Bytes that they keep.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether there is no memory for another.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Whether whoever waits has to wait for less from here on.
    fn set_timer(&self, timer: Timer) -> bool {
        let at = timer.at;
        lock(&self.timers).push(timer);
        self.due.0.fetch_min(at, Ordering::AcqRel) > at
    }

    /// When a worker is to be asked to look; never while one is.
    pub fn due(&self) -> u64 {
        if self.asked.load(Ordering::Acquire) { u64::MAX } else { self.due.0.load(Ordering::Acquire) }
    }

    /// A worker is asked to look.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// There was no room for that.
    pub fn give_up(&self) {
        self.asked.store(false, Ordering::Release);
    }

    /// Whether one is, or looks, or has an application woken.
    pub fn are_looked_at(&self) -> bool {
        self.asked.load(Ordering::Acquire) || self.calling.load(Ordering::Acquire) > 0
    }

    /// Those clients are to be looked at whatever the time is.
    pub fn called(&self, clients: Vec<u64>) {
        if clients.is_empty() {
            return;
        }
        let known = lock(&self.clients);
        lock(&self.called).extend(clients.iter().filter_map(|client| known.get(client).cloned()));
        self.due.0.store(0, Ordering::Release);
    }

    /// Looks at all for which something is due, on this thread, a worker's. An application that is woken may take long:
    /// meanwhile another may look, for which `asks` has the acceptor ask.
    pub fn look(&self, now: impl Fn() -> u64, asks: impl Fn()) {
        let mut wakes = mem::take(&mut *lock(&self.wakes));
        let called = mem::take(&mut *lock(&self.called));
        wakes.extend(called.iter().filter_map(Weak::upgrade).filter(|session| session.look(None, now())));
        loop {
            let mut timers = lock(&self.timers);
            let Some(timer) = timers.peek().filter(|timer| timer.at <= now()) else {
                self.due.0.store(timers.peek().map_or(u64::MAX, |timer| timer.at), Ordering::Release);
                break;
            };
            let (at, session) = (timer.at, timer.session.upgrade());
            timers.pop();
            drop(timers);
            wakes.extend(session.filter(|session| session.look(Some(at), now())));
        }
        let first = wakes.pop_front();
        if !wakes.is_empty() {
            lock(&self.wakes).append(&mut wakes);
        }
        if !lock(&self.called).is_empty() || !lock(&self.wakes).is_empty() {
            self.due.0.store(0, Ordering::Release);
        }
        self.calling.fetch_add(1, Ordering::AcqRel);
        self.asked.store(false, Ordering::Release);
        asks();
        first.into_iter().for_each(|session| session.wake(&now));
        self.calling.fetch_sub(1, Ordering::AcqRel);
    }

    /// The server stops: those without a connection are closed. The others are when their connections are.
    pub fn stop(&self, now: u64) {
        for session in self.every() {
            let alone = session.inner().machine.receivers().next().is_none();
            if alone {
                session.go_away(now);
            }
        }
    }

    /// Nobody goes on with them.
    pub fn close_all(&self, now: u64) {
        self.every().iter().for_each(|session| session.go_away(now));
    }

    /// All of them as they are now.
    pub fn save(&self, now: u64) -> Vec<SavedSession> {
        self.every().iter().map(|session| session.save(now)).collect()
    }

    /// One goes on that was written down. One whose application does not is told so.
    pub fn restore(self: &Arc<Self>, hub: &Hub, saved: SavedSession, now: u64) {
        let SavedSession { conversation, id, machine, pending, client, origin, authorization, .. } = saved;
        let SavedSession { heartbeat, disconnect, response_limit, .. } = saved;
        let settings = unbounded(Settings { heartbeat, disconnect, response_limit, ..Settings::default() });
        let machine = Saved::from_bytes(&machine).and_then(|machine| sockjs::Session::restore(machine, settings, now));
        let Ok(machine) = machine else { return log::error!("a session cannot be read, and is lost") };
        let had_client = client.is_some();
        let talker =
            client.and_then(|client| self.conversations.restore(hub, *client)).filter(|talker| talker.restore());
        let owner = Owner { origin, authorization: authorization.map(ByteBuf::into_vec) };
        let conversation: Arc<str> = conversation.into();
        let key: (Arc<str>, Box<str>) = (conversation.clone(), id.as_str().into());
        let session = Arc::new(Session::new(self, hub, key, machine, owner));
        {
            let mut inner = session.inner();
            inner.pending = pending
                .into_iter()
                .map(|SavedWrite { receiver, pieces, ends }| {
                    let pieces = pieces.into_iter().map(ByteBuf::into_vec).collect();
                    Write { receiver, pieces, ends }
                })
                .collect();
        }
        lock(&self.all).entry(conversation).or_default().insert(id.into(), session.clone());
        match talker {
            Some(talker) => session.open(talker, now),
            None if had_client => session.go_away(now),
            None => session.absorb(&mut session.inner(), Outcome::default(), None, now),
        }
    }

    /// No connection comes here any more from where they were: those that have not are lost.
    pub fn nobody_comes(&self, now: u64) {
        for session in self.every() {
            let missing: Vec<u64> = {
                let inner = session.inner();
                let known = |receiver: &u64| inner.tokens.iter().any(|(known, _)| known == receiver);
                inner.machine.receivers().filter(|receiver| !known(receiver)).collect()
            };
            missing.into_iter().for_each(|receiver| session.lost(receiver, now));
        }
    }

    /// A successor has them: what the application has of them here is dropped, on a worker.
    pub fn hand_over(&self) {
        let all = mem::take(&mut *lock(&self.all));
        lock(&self.timers).clear();
        lock(&self.clients).clear();
        self.due.0.store(u64::MAX, Ordering::Release);
        let mut moved = lock(&self.moved);
        for session in all.into_values().flat_map(HashMap::into_values) {
            if let Some(talker) = session.inner().talker.take() {
                talker.inbox.leave();
                self.conversations.has_ended(talker, None);
            }
            moved.push(Arc::downgrade(&session));
        }
    }

    /// The successor is gone, and what it had of them: whose connection is still here is told.
    pub fn take_back(&self, now: u64) {
        let moved = mem::take(&mut *lock(&self.moved));
        moved.iter().filter_map(Weak::upgrade).for_each(|session| session.go_away(now));
    }
}

/// What waits does so in the client's inbox, which is bounded.
fn unbounded(settings: Settings) -> Settings {
    Settings { queue_messages: usize::MAX, queue_bytes: usize::MAX, ..settings }
}
