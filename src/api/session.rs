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
use portable_atomic::AtomicU64;
use pubsub::{Hub, Joined};
use serde_bytes::ByteBuf;
use sockjs::{Close, Form, Outcome, Refusal, Saved, Settings, Write};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    incoming: Mutex<Incoming>,
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
    /// For when it stands among the timers, if it does.
    timer: Option<u64>,
    /// A successor has it.
    moved: bool,
    owner: Owner,
    /// What it was counted with.
    held: usize,
}

/// What the application has not heard yet of its client.
#[derive(Default)]
struct Incoming {
    messages: VecDeque<String>,
    bytes: usize,
    /// The time has come at which it wants to be woken.
    wakes: bool,
    /// It is closed.
    ended: Option<(Arc<Talker>, Closed)>,
    /// A thread tells the application all that, one by one. Another one would only wait for it.
    told: bool,
}

/// One of these.
enum Heard {
    Message(String),
    Wake,
    End(Arc<Talker>, Closed),
}

impl Incoming {
    /// What is told next; then nobody does any more, if there is nothing.
    fn next(&mut self) -> Option<Heard> {
        if let Some((talker, closed)) = self.ended.take() {
            *self = Incoming { told: true, ..Incoming::default() };
            return Some(Heard::End(talker, closed));
        }
        if mem::take(&mut self.wakes) {
            return Some(Heard::Wake);
        }
        let message = self.messages.pop_front();
        self.bytes -= message.as_ref().map_or(0, String::len);
        self.told = message.is_some();
        message.map(Heard::Message)
    }

    fn held(&self) -> usize {
        self.messages.capacity() * size_of::<String>() + self.bytes
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
            timer: None,
            moved: false,
            owner,
            held: 0,
        };
        let ((conversation, id), all) = (key, Arc::downgrade(all));
        Session { conversation, id, hub: hub.clone(), all, inner: Mutex::new(inner), incoming: Mutex::default() }
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
        let mut inner = self.inner();
        if !inner.machine.is_open() {
            // The server has stopped meanwhile.
            let Close { code, reason } = Close::go_away();
            return all.conversations.has_ended(talker, Some(Closed::new(code, reason)));
        }
        lock(&all.clients).insert(talker.inbox.id(), Arc::downgrade(self));
        inner.talker = Some(talker);
        self.settle(&mut inner, None);
        self.set_timer(&mut inner, now);
        self.count(&mut inner);
    }

    /// The application has not: it was never there, and whoever has come for it meanwhile is told that it is not.
    pub fn refuse(self: &Arc<Self>, now: u64) {
        self.all.upgrade().into_iter().for_each(|all| all.remove(self));
        let mut inner = self.inner();
        let first = inner.machine.receivers().next();
        inner.pending.retain(|write| Some(write.receiver) != first);
        let outcome = first.map(|first| inner.machine.lost(first, now));
        outcome.into_iter().for_each(|outcome| self.absorb(&mut inner, outcome, None, now));
    }

    /// Whether a request may be for it. What it says of itself for the first time counts from then on.
    pub fn is_owned_by(&self, owner: &Owner) -> bool {
        self.inner().is_owned_by(owner)
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

    /// How many messages wait in what that connection is to write next.
    pub fn pending_messages(&self, receiver: u64) -> usize {
        self.inner().pending.iter().filter(|write| write.receiver == receiver).map(|write| write.messages).sum()
    }

    /// That connection has written what it had.
    pub fn written(self: &Arc<Self>, receiver: u64, ended: bool, now: u64) {
        let mut inner = self.inner();
        if ended {
            inner.tokens.retain(|(known, _)| *known != receiver);
        }
        let outcome = inner.machine.written(receiver, now);
        self.absorb(&mut inner, outcome, Some(receiver), now);
        // Whoever wanted it closed meanwhile has found a connection, which is one no more.
        if inner.machine.receivers().next().is_none() {
            self.close_if_asked(&mut inner, None, now);
        }
    }

    /// That connection has ended as it should not, or another process has it with its session.
    pub fn lost(self: &Arc<Self>, receiver: u64, now: u64) {
        let mut inner = self.inner();
        inner.tokens.retain(|(known, _)| *known != receiver);
        inner.pending.retain(|write| write.receiver != receiver);
        if inner.moved {
            return;
        }
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
        {
            let mut incoming = lock(&self.incoming);
            let bytes = incoming.bytes + messages.iter().map(String::len).sum::<usize>();
            let waits = !incoming.messages.is_empty();
            if waits && (bytes > MESSAGE_BYTES || incoming.messages.len() + messages.len() > MESSAGES) {
                return Err(HearError::Busy);
            }
            incoming.bytes = bytes;
            incoming.messages.extend(messages);
        }
        self.tell(now);
        Ok(())
    }

    /// Has the application hear what waits for it, on this thread, unless another one does that.
    fn tell(self: &Arc<Self>, now: impl Fn() -> u64) {
        if mem::replace(&mut lock(&self.incoming).told, true) {
            return;
        }
        loop {
            let next = lock(&self.incoming).next();
            // Not under its lock: this may take long.
            let talker = self.inner().talker.clone();
            let outcome = match (next, talker) {
                (None, _) => break,
                (Some(Heard::End(talker, closed)), _) => {
                    talker.close(&closed);
                    continue;
                }
                // Who is closed is heard no more.
                (Some(_), None) => continue,
                (Some(Heard::Message(message)), Some(talker)) => talker.message(&Message::Text(message)),
                (Some(Heard::Wake), Some(talker)) => talker.wake(),
            };
            if outcome.is_err() {
                self.fail(now());
            }
        }
        let mut inner = self.inner();
        self.set_timer(&mut inner, now());
        self.count(&mut inner);
    }

    /// The application has panicked.
    fn fail(self: &Arc<Self>, now: u64) {
        self.close(Close::new(CloseCode::INTERNAL_ERROR.get(), ""), now);
    }

    /// Time has passed, or something has happened while it had no connection. Answers whether its application is to be told
    /// something, by [`Session::tell`].
    fn look(self: &Arc<Self>, timer: Option<u64>, now: u64) -> bool {
        let mut inner = self.inner();
        if timer.is_some() {
            // Another one has taken its place meanwhile, and stays.
            if inner.timer != timer {
                return false;
            }
            inner.timer = None;
        }
        let wakes = inner.talker.as_ref().is_some_and(|talker| talker.inbox.take_wake(now));
        let outcome = inner.machine.tick(now);
        self.absorb(&mut inner, outcome, None, now);
        // With a connection this is found when that has taken what waits before.
        if inner.machine.receivers().next().is_none() {
            self.close_if_asked(&mut inner, None, now);
        }
        let tells = wakes && inner.talker.is_some();
        lock(&self.incoming).wakes |= tells;
        tells
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
            for text in joined.texts() {
                send(inner, text);
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
            let mut incoming = lock(&self.incoming);
            match incoming.told {
                true => incoming.ended = Some((talker, closed)),
                false => all.conversations.has_ended(talker, Some(closed)),
            }
        }
        if gone {
            all.remove(self);
        }
        self.settle(inner, me);
        self.set_timer(inner, now);
        self.count(inner);
    }

    /// Counts what it keeps.
    fn count(&self, inner: &mut Inner) {
        let Some(all) = self.all.upgrade() else { return };
        let held = inner.held() + lock(&self.incoming).held();
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
        let wake = inner.talker.as_ref().and_then(|talker| talker.inbox.wake_time());
        let Some(due) = inner.machine.deadline().into_iter().chain(wake).min().map(|due| due.max(now)) else { return };
        // Later is early enough to see that nothing is due yet.
        if inner.timer.is_none_or(|timer| due < timer) {
            let before = inner.timer.replace(due);
            if all.set_timer(self, before, due) {
                self.hub.wake();
            }
        }
    }

    /// It as it is now, with what the application has saved.
    fn save(&self, now: u64) -> SavedSession {
        let inner = self.inner();
        let Settings { heartbeat, disconnect, response_limit, .. } = inner.machine.settings();
        let write = |Write { receiver, pieces, ends, .. }: &Write| SavedWrite {
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
    fn is_owned_by(&mut self, owner: &Owner) -> bool {
        let same = match (&self.owner.origin, &owner.origin) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        let same = same && self.owner.authorization == owner.authorization;
        if same && self.owner.origin.is_none() {
            self.owner.origin.clone_from(&owner.origin);
        }
        same
    }

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
        let Some(all) = self.all.upgrade() else { return };
        let (held, timer) = {
            let inner = self.inner();
            (inner.held, inner.timer)
        };
        all.held.fetch_sub(held, Ordering::Relaxed);
        // Else its memory would stay until then.
        timer.into_iter().for_each(|at| _ = lock(&all.timers).remove(&(at, std::ptr::from_ref(self).addr())));
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
    /// Those to look at, by when, and by where they are: each stands there once at most.
    timers: Mutex<BTreeMap<(u64, usize), Weak<Session>>>,
    /// Those to look at whatever the time is.
    called: Mutex<Vec<Weak<Session>>>,
    /// Milliseconds: when a worker is to look; 0 is at once.
    due: Due,
    /// A worker was asked to, and has not yet.
    asked: AtomicBool,
    /// So many do, or tell the application of what they have found.
    looking: AtomicUsize,
    /// Bytes that they keep.
    held: AtomicUsize,
    /// There is no memory for more.
    full: AtomicBool,
    /// A successor has those that were here, and may still die.
    moved: Mutex<Vec<Arc<Session>>>,
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
        while let Some(session) = self.find(conversation, id) {
            let mut inner = session.inner();
            if inner.machine.is_gone() {
                // Just now, and whoever has found that has not come to take it away.
                drop(inner);
                self.remove(&session);
                continue;
            }
            if !inner.is_owned_by(&owner) {
                return Arrived::NotYours;
            }
            let outcome = inner.machine.arrive(receiver, form, now);
            session.absorb(&mut inner, outcome, Some(receiver), now);
            drop(inner);
            return Arrived::Joined(session);
        }
        let mut all = lock(&self.all);
        let of_conversation = all.entry(conversation.clone()).or_default();
        if of_conversation.contains_key(id) {
            // Another request was faster.
            drop(all);
            return self.arrive(hub, key, owner, (receiver, form), settings, most, now);
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
    fn set_timer(&self, session: &Arc<Session>, before: Option<u64>, at: u64) -> bool {
        let place = Arc::as_ptr(session).addr();
        let mut timers = lock(&self.timers);
        before.into_iter().for_each(|before| _ = timers.remove(&(before, place)));
        timers.insert((at, place), Arc::downgrade(session));
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

    /// Whether one is, or looks.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire) || self.looking.load(Ordering::Acquire) > 0
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

    /// Looks at all for which something is due, on this thread, a worker's, up to one whose application is to be told: that
    /// may take long, and `others` has another worker asked for the rest.
    pub fn look(&self, now: impl Fn() -> u64, others: impl FnOnce()) {
        self.looking.fetch_add(1, Ordering::AcqRel);
        loop {
            let Some((session, timer)) = self.next_due(now()) else {
                self.asked.store(false, Ordering::Release);
                break;
            };
            if session.look(timer, now()) {
                self.asked.store(false, Ordering::Release);
                others();
                session.tell(now);
                break;
            }
        }
        self.looking.fetch_sub(1, Ordering::AcqRel);
    }

    /// The next one to look at, and for which time it stood among the timers if that is why.
    fn next_due(&self, now: u64) -> Option<(Arc<Session>, Option<u64>)> {
        loop {
            let Some(called) = lock(&self.called).pop() else { break };
            if let Some(session) = called.upgrade() {
                return Some((session, None));
            }
        }
        loop {
            let mut timers = lock(&self.timers);
            match timers.first_entry() {
                Some(first) if first.key().0 <= now => {
                    let ((at, _), session) = first.remove_entry();
                    // Dropping one takes that lock.
                    drop(timers);
                    if let Some(session) = session.upgrade() {
                        return Some((session, Some(at)));
                    }
                }
                first => {
                    self.due.0.store(first.map_or(u64::MAX, |first| first.key().0), Ordering::Release);
                    break;
                }
            }
        }
        if !lock(&self.called).is_empty() {
            self.due.0.store(0, Ordering::Release);
        }
        None
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
                    // Its connection, which comes as well, has counted them.
                    Write { receiver, pieces, ends, messages: 0 }
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

    /// A successor has them. They stay for the case that it dies.
    pub fn hand_over(&self) {
        let all = mem::take(&mut *lock(&self.all));
        lock(&self.timers).clear();
        lock(&self.called).clear();
        self.due.0.store(u64::MAX, Ordering::Release);
        let moved: Vec<_> = all.into_values().flat_map(HashMap::into_values).collect();
        for session in &moved {
            let mut inner = session.inner();
            (inner.moved, inner.timer) = (true, None);
        }
        lock(&self.moved).extend(moved);
    }

    /// The successor is gone, and what it did with them: their clients and their application are told that they are closed.
    pub fn take_back(&self, now: u64) {
        let moved = mem::take(&mut *lock(&self.moved));
        for session in &moved {
            session.inner().moved = false;
            let mut all = lock(&self.all);
            all.entry(session.conversation.clone()).or_default().entry(session.id.clone()).or_insert(session.clone());
            drop(all);
            session.go_away(now);
        }
        // The connections that it had ended with it.
        self.nobody_comes(now);
    }

    /// This process is the server no longer, and this is the end of a worker: what the application has of those that moved is
    /// dropped here, and of the others it hears.
    pub fn end(&self, now: u64) {
        for session in mem::take(&mut *lock(&self.moved)) {
            let talker = session.inner().talker.take();
            talker.into_iter().for_each(|talker| self.conversations.has_ended(talker, None));
        }
        self.close_all(now);
    }
}

/// What waits does so in the client's inbox, which is bounded.
fn unbounded(settings: Settings) -> Settings {
    Settings { queue_messages: usize::MAX, queue_bytes: usize::MAX, ..settings }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::talk::Talk;
    use crate::lifecycle::state::Carried;
    use pubsub::{HubLimits, Inbox, Limits};
    use std::sync::mpsc::{Receiver, Sender, channel};

    struct Said(Sender<String>);

    impl Talk for Said {
        fn message(&mut self, message: &Message) {
            let _ = self.0.send(format!("{message:?}"));
        }

        fn wake(&mut self) {
            let _ = self.0.send("wake".to_owned());
        }

        fn close(self: Box<Self>, closed: &Closed) {
            let _ = self.0.send(format!("close {}", closed.code));
        }

        fn save(&self) -> Carried {
            Carried { version: 1, bytes: Vec::new() }
        }

        fn go_on(self: Box<Self>, _: &Arc<Inbox>) -> Option<Box<dyn Talk>> {
            Some(self)
        }
    }

    struct Table {
        sessions: Arc<Sessions>,
        hub: Hub,
        said: Sender<String>,
        calls: Receiver<String>,
    }

    impl Table {
        fn new() -> Table {
            let hub = Hub::new(1, HubLimits { log: Limits::default(), subscribers: 99 });
            hub.open();
            let (said, calls) = channel();
            Table { sessions: Arc::default(), hub, said, calls }
        }

        fn arrive(&self, id: &str, receiver: u64, now: u64) -> Arrived {
            let key = (&"c".into(), id);
            let form = (receiver, Form::Xhr);
            self.sessions.arrive(&self.hub, key, Owner::default(), form, Settings::default(), 9, now)
        }

        /// A session whose first poll has its answer.
        fn open(&self, id: &str, number: u64) -> Arc<Session> {
            let Arrived::New(session) = self.arrive(id, number, 0) else { panic!("{id} is there") };
            let inbox = Inbox::new(&self.hub, number).expect("room");
            let talk = Box::new(Said(self.said.clone()));
            session.open(Talker::new(self.sessions.conversations(), "c".into(), inbox, talk), 0);
            session.enter(number, 7);
            assert!(session.next(number, &mut Joined::default(), 0).is_some_and(|write| write.ends));
            session.written(number, true, 0);
            session
        }

        fn calls(&self) -> Vec<String> {
            self.sessions.conversations.tell_of_ended();
            self.calls.try_iter().collect()
        }
    }

    fn sized(sessions: &Sessions) -> (usize, usize) {
        (lock(&sessions.timers).len(), sessions.held())
    }

    /// Each change left one behind until its time, which an application may set to next year.
    #[test]
    fn a_session_stands_among_the_timers_once_and_not_after_its_end() {
        let table = Table::new();
        let session = table.open("s", 1);
        let inbox = session.inner().talker.as_ref().expect("it is open").inbox.clone();
        for now in 1..100 {
            inbox.wake_at(Some(4000 - now * 10)).expect("open");
            table.sessions.called(table.hub.take_absent());
            table.sessions.look(|| now, || {});
            assert_eq!(sized(&table.sessions).0, 1, "{now}");
        }
        inbox.wake_at(Some(1 << 40)).expect("open");
        session.go_away(100);
        assert_eq!(table.calls(), ["close 3000"]);
        // A while after it has ended it is gone.
        let Arrived::Joined(_) = table.arrive("s", 2, 100) else { panic!("it is there") };
        session.enter(2, 7);
        assert!(session.next(2, &mut Joined::default(), 100).is_some_and(|write| write.ends));
        session.written(2, true, 100);
        table.sessions.look(|| 6000, || {});
        assert!(table.sessions.find("c", "s").is_none());
        drop(session);
        assert_eq!(sized(&table.sessions), (0, 0));
    }

    /// With a time that was another one's by then it forgot its own.
    #[test]
    fn a_timer_that_comes_too_late_leaves_the_one_that_counts() {
        let table = Table::new();
        let session = table.open("s", 1);
        assert!(!session.look(Some(17), 17));
        table.sessions.look(|| 6000, || {});
        assert!(table.sessions.find("c", "s").is_none());
        assert_eq!(table.calls(), ["close 1006"]);
    }

    /// Its application never heard of their end, and a client that asked again was one that nobody knows.
    #[test]
    fn those_that_a_successor_had_are_closed_when_it_dies() {
        let table = Table::new();
        let (alone, stays, moves) = (table.open("alone", 1), table.open("stays", 2), table.open("moves", 3));
        for (session, receiver) in [(&stays, 12), (&moves, 13)] {
            let Arrived::Joined(_) = table.arrive(&session.id, receiver, 0) else { panic!("it is there") };
            session.enter(receiver, 8);
        }
        table.sessions.hand_over();
        assert!(table.sessions.find("c", "alone").is_none());
        // Its connection is with the successor.
        moves.lost(13, 0);
        assert!(table.calls().is_empty());
        table.sessions.take_back(1);
        assert_eq!(table.calls(), ["close 3000"; 3]);
        let text = |write: Option<Write>| write.map(|write| String::from_utf8(write.pieces.concat()).expect("text"));
        let closed = Some("c[3000,\"Go away!\"]\n".to_owned());
        assert_eq!(text(stays.next(12, &mut Joined::default(), 1)), closed);
        for session in [&alone, &moves] {
            let Arrived::Joined(found) = table.arrive(&session.id, 20, 1) else { panic!("it is there") };
            found.enter(20, 9);
            let said = text(found.next(20, &mut Joined::default(), 1)).expect("it is closed");
            assert!(said.starts_with("c[3000,") || said.starts_with("c[1002,"), "{said}");
        }
        // And where it lives the application's part of them is dropped.
        let table = Table::new();
        let _session = table.open("s", 1);
        table.sessions.hand_over();
        table.sessions.end(1);
        assert!(table.calls().is_empty());
        table.said.send("nobody else".to_owned()).expect("it is here");
        drop(table.said);
        assert_eq!(table.calls.iter().collect::<Vec<_>>(), ["nobody else"]);
    }

    /// It was never told.
    #[test]
    fn one_that_was_opened_while_the_server_stopped_is_closed() {
        let table = Table::new();
        let Arrived::New(session) = table.arrive("s", 1, 0) else { panic!("it is there") };
        table.sessions.end(1);
        let inbox = Inbox::new(&table.hub, 1).expect("room");
        let talk = Box::new(Said(table.said.clone()));
        session.open(Talker::new(table.sessions.conversations(), "c".into(), inbox, talk), 1);
        assert_eq!(table.calls(), ["close 3000"]);
    }

    /// It was closed when its client asked again, or went unheard.
    #[test]
    fn one_that_is_closed_while_a_poll_is_answered_is_closed_behind_it() {
        let table = Table::new();
        let Arrived::New(session) = table.arrive("s", 1, 0) else { panic!("it is there") };
        let inbox = Inbox::new(&table.hub, 1).expect("room");
        inbox.close(4000, "at once").expect("open");
        let talk = Box::new(Said(table.said.clone()));
        session.open(Talker::new(table.sessions.conversations(), "c".into(), inbox, talk), 0);
        session.enter(1, 7);
        assert!(session.next(1, &mut Joined::default(), 0).is_some_and(|write| write.ends));
        assert!(table.calls().is_empty());
        session.written(1, true, 0);
        assert_eq!(table.calls(), ["close 4000"]);
    }

    #[test]
    fn what_waits_without_a_connection_is_counted() {
        let table = Table::new();
        let session = table.open("s", 1);
        let inbox = session.inner().talker.as_ref().expect("it is open").inbox.clone();
        let before = table.sessions.held();
        (0..60).for_each(|_| inbox.send(Message::Text("x".repeat(1000))).expect("room"));
        table.sessions.called(table.hub.take_absent());
        table.sessions.look(|| 1, || {});
        assert!(table.sessions.held() >= before + 55_000, "{before} {}", table.sessions.held());
    }

    /// Its client heard that it was interrupted, where it should have begun anew.
    #[test]
    fn who_comes_in_the_moment_in_which_a_session_goes_has_a_new_one() {
        let table = Table::new();
        let before = table.open("x", 1);
        // Found by a worker that has not come to take it away.
        assert!(before.inner().machine.tick(1 << 30).gone);
        let Arrived::New(session) = table.arrive("x", 2, 1 << 30) else { panic!("it is gone") };
        assert!(!Arc::ptr_eq(&before, &session));
        assert_eq!(
            session.next(2, &mut Joined::default(), 1 << 30).map(|write| write.pieces),
            Some(vec![b"o\n".to_vec()])
        );
    }
}
