//! What waits for one client of a conversation: messages that are for it alone, and what comes of the topics to which it
//! listens. Any thread puts something in; whoever has the connection takes it out.
//!
//! It is bounded: who does not read soon has an inbox that is full, and whoever sends is told.

use crate::Topic;
use crate::hub::{Full, Hub, Phase};
use crate::subscription::{Form, Joined, Pulled, Saved, Subscription};
use std::collections::VecDeque;
use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use websocket::Message;

/// Messages that wait at the most, and bytes, unless the first alone has more.
const MESSAGES: usize = 64;
const BYTES: usize = 64 << 10;
/// Whenever so many more wait for a client without a connection, whoever has it counts them.
const COUNTED: usize = 8 << 10;
/// Topics that a client listens to.
const TOPICS: usize = 32;

/// How the messages of topics leave, for a client whose frames are made elsewhere, or not.
const fn form(bare: bool) -> Form {
    Form { websocket: true, chunked: false, json: false, beat: false, poll: false, bare }
}

/// Why something does not reach a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// 64 messages, or 64 KiB of them, wait already: the client does not read.
    Full,
    /// It is closed, or is to be.
    Closed,
    /// Another process has the client now, and this was not done.
    HandedOver,
    /// Another process has the client now and was asked, and has not answered: it may have been done or not.
    Unknown,
    /// It listens to 32 topics, and no more are allowed.
    Topics,
    /// It takes text alone, and this is none.
    NotText,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Full => "as much waits for this client as may: it does not read",
            SendError::Closed => "this client is closed",
            SendError::HandedOver => "another process has this client now",
            SendError::Unknown => {
                "another process has this client now and has not answered: it may have been done or not"
            }
            SendError::Topics => "this client listens to 32 topics, no more are allowed",
            SendError::NotText => "this client takes text alone",
        })
    }
}

impl std::error::Error for SendError {}

/// What any thread may do with an inbox: asked of the process that has it, where that is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForClient {
    /// See [`Inbox::send`].
    Send(Message),
    /// See [`Inbox::close`].
    Close(u16, String),
    /// See [`Inbox::wake_at`].
    Wake(Option<u64>),
    /// See [`Inbox::subscribe`].
    Subscribe(Topic),
    /// See [`Inbox::unsubscribe`].
    Unsubscribe(Topic),
}

/// See the module.
pub struct Inbox {
    hub: Hub,
    id: u64,
    contents: Mutex<Contents>,
}

#[derive(Default)]
struct Contents {
    /// Under which name its connection is woken: one less than this.
    token: Option<NonZeroUsize>,
    /// Mostly there is none of these: a client that waits takes little room.
    #[allow(clippy::box_collection, reason = "each client has one, and mostly nothing in it")]
    messages: Option<Box<VecDeque<Message>>>,
    subscription: Option<Box<Subscription>>,
    close: Option<Box<(u16, String)>>,
    wake: Option<NonZeroU64>,
    /// Whoever has its connection looks at this soon in any case.
    attended: bool,
    /// A close frame was sent: nothing may follow it.
    shut: bool,
    ended: bool,
    /// A successor has it.
    moved: bool,
    /// Its application has still to go on with it.
    waits: bool,
    /// Its messages are text, and frames are made of them elsewhere.
    text: bool,
    /// It is there also while there is no connection.
    lasting: bool,
}

/// An inbox as it is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedInbox {
    /// Which client's.
    pub id: u64,
    /// What waits for it.
    pub messages: Vec<Message>,
    /// To what it listens.
    pub subscription: Option<Saved>,
    /// With which status and reason it is to be closed.
    pub close: Option<(u16, String)>,
    /// When its conversation wants to be woken, in the server's milliseconds.
    pub wake: Option<u64>,
    /// Whether its messages are text alone.
    pub text: bool,
}

fn length(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
    }
}

impl Inbox {
    /// That client's. It counts as a subscriber from now on.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn new(hub: &Hub, id: u64) -> Result<Arc<Inbox>, Full> {
        hub.count_in()?;
        Ok(Arc::new(Inbox { hub: hub.clone(), id, contents: Mutex::default() }))
    }

    /// One that goes on as it was written down, whatever the limit.
    pub fn restore(hub: &Hub, saved: SavedInbox) -> Arc<Inbox> {
        let SavedInbox { id, messages, subscription, close, wake, text } = saved;
        hub.count_in_anyway();
        let restored = |saved| Subscription::restore(hub, Saved { form: form(text), ..saved });
        let subscription = subscription.and_then(restored);
        let subscription = subscription.map(|subscription| Box::new(subscription.into_part()));
        let (close, wake) = (close.map(Box::new), wake.and_then(NonZeroU64::new));
        let messages = (!messages.is_empty()).then(|| Box::new(messages.into()));
        let contents = Contents { messages, subscription, close, wake, text, ..Contents::default() };
        Arc::new(Inbox { hub: hub.clone(), id, contents: Mutex::new(contents) })
    }

    /// It as it is now. Whoever sends meanwhile has sent before, or waits: see [`Hub::freeze`].
    pub fn save(&self) -> SavedInbox {
        let contents = self.contents();
        SavedInbox {
            id: self.id,
            messages: contents.messages().cloned().collect(),
            subscription: contents.subscription.as_ref().and_then(|subscription| subscription.save()),
            close: contents.close.as_deref().cloned(),
            wake: contents.wake.map(NonZeroU64::get),
            text: contents.text,
        }
    }

    /// From here on it takes text alone, and what comes of its topics has no frames: see [`Form::bare`].
    pub fn takes_text_alone(&self) {
        self.contents().text = true;
    }

    /// Its client is there also while there is no connection: then whoever closes it, wants it woken, or sends much, says so to
    /// [`Hub::take_absent`].
    pub fn lasts(&self) {
        self.contents().lasting = true;
    }

    /// Which client's.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Through which it hears.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // Nothing panics half-way while it is held.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing more reaches its client, or only what waits already.
    pub fn is_closed(&self) -> bool {
        let contents = self.contents();
        match contents.moved {
            // Unless this process serves again, another has it.
            true => *self.hub.phase() != Phase::Gone,
            false => contents.is_closed(),
        }
    }

    /// What is in it, once something may be put there.
    fn open(&self) -> Result<MutexGuard<'_, Contents>, SendError> {
        loop {
            let contents = self.contents();
            if !contents.moved && contents.is_closed() {
                return Err(SendError::Closed);
            }
            // Under the lock, so that whoever writes it down after the hub was frozen finds what is put here.
            let phase = *self.hub.phase();
            match phase {
                Phase::Open | Phase::Before if contents.moved => return Err(SendError::Closed),
                Phase::Open | Phase::Before => return Ok(contents),
                Phase::Gone => return Err(SendError::HandedOver),
                Phase::Frozen => {}
            }
            drop(contents);
            self.hub.wait_until_thawed();
        }
    }

    /// Has its connection look, if it has one here that does not look in any case.
    fn call(&self, contents: MutexGuard<'_, Contents>) {
        let token = contents.token().filter(|_| !contents.attended);
        drop(contents);
        token.into_iter().for_each(|token| self.hub.call(token));
    }

    /// The same, or whoever has it without a connection.
    fn call_in_any_case(&self, contents: MutexGuard<'_, Contents>) {
        if contents.lasting && contents.token.is_none() {
            drop(contents);
            return self.hub.call_absent(self.id);
        }
        self.call(contents);
    }

    /// Does that here, or asks the process that has it.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn act(&self, what: ForClient) -> Result<(), SendError> {
        match self.open() {
            Ok(contents) => self.act_here(contents, what),
            Err(SendError::HandedOver) => self.hub.ask_elsewhere(self.id, what),
            Err(error) => Err(error),
        }
    }

    fn act_here(&self, contents: MutexGuard<'_, Contents>, what: ForClient) -> Result<(), SendError> {
        match what {
            ForClient::Send(message) => self.send_here(contents, message),
            ForClient::Close(code, reason) => {
                self.close_here(contents, code, reason);
                Ok(())
            }
            ForClient::Wake(when) => {
                self.wake_here(contents, when);
                Ok(())
            }
            ForClient::Subscribe(topic) => self.subscribe_here(contents, &topic),
            ForClient::Unsubscribe(topic) => {
                Inbox::unsubscribe_here(contents, &topic);
                Ok(())
            }
        }
    }

    /// Puts a message into it.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&self, message: Message) -> Result<(), SendError> {
        self.act(ForClient::Send(message))
    }

    fn send_here(&self, mut contents: MutexGuard<'_, Contents>, message: Message) -> Result<(), SendError> {
        if contents.text && matches!(message, Message::Binary(_)) {
            return Err(SendError::NotText);
        }
        let (waiting, bytes) = (contents.messages().count(), contents.bytes() + length(&message));
        if waiting >= MESSAGES || (bytes > BYTES && waiting > 0) {
            return Err(SendError::Full);
        }
        let counts = contents.lasting && bytes / COUNTED > (bytes - length(&message)) / COUNTED;
        contents.messages.get_or_insert_default().push_back(message);
        if counts && contents.token.is_none() {
            self.call_in_any_case(contents);
        } else if waiting == 0 {
            self.call(contents);
        }
        Ok(())
    }

    /// The client is closed once it has what waits for it now. Only the first time counts.
    ///
    /// # Errors
    /// It is closed already, or another process has it.
    pub fn close(&self, code: u16, reason: &str) -> Result<(), SendError> {
        self.act(ForClient::Close(code, reason.to_owned()))
    }

    fn close_here(&self, mut contents: MutexGuard<'_, Contents>, code: u16, reason: String) {
        contents.close = Some(Box::new((code, reason)));
        self.call_in_any_case(contents);
    }

    /// Its conversation is woken then, and not when it wanted to be before.
    ///
    /// # Errors
    /// It is closed, or another process has it.
    pub fn wake_at(&self, when: Option<u64>) -> Result<(), SendError> {
        self.act(ForClient::Wake(when))
    }

    fn wake_here(&self, mut contents: MutexGuard<'_, Contents>, when: Option<u64>) {
        contents.wake = when.map(|when| NonZeroU64::new(when).unwrap_or(NonZeroU64::MIN));
        self.call_in_any_case(contents);
    }

    /// Listens to what a topic has from now on.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn subscribe(&self, topic: &Topic) -> Result<(), SendError> {
        self.act(ForClient::Subscribe(topic.clone()))
    }

    fn subscribe_here(&self, mut contents: MutexGuard<'_, Contents>, topic: &Topic) -> Result<(), SendError> {
        let token = contents.token();
        match &mut contents.subscription {
            Some(subscription) if subscription.topics() >= TOPICS => return Err(SendError::Topics),
            Some(subscription) => _ = subscription.add(topic),
            None => {
                let mut subscription = Subscription::part_of_another(&self.hub, topic, form(contents.text));
                token.into_iter().for_each(|token| subscription.enter(token));
                contents.subscription = Some(Box::new(subscription));
                // What was published before it stood in the index: whoever attends to it need not have looked at topics.
                drop(contents);
                token.into_iter().for_each(|token| self.hub.call(token));
            }
        }
        Ok(())
    }

    /// Listens to it no more. What it had until now and was not taken does not come either.
    ///
    /// # Errors
    /// It is closed, or another process has it.
    pub fn unsubscribe(&self, topic: &Topic) -> Result<(), SendError> {
        self.act(ForClient::Unsubscribe(topic.clone()))
    }

    fn unsubscribe_here(mut contents: MutexGuard<'_, Contents>, topic: &Topic) {
        if let Some(subscription) = &mut contents.subscription
            && !subscription.remove(topic)
            && subscription.listens_to(topic)
        {
            contents.subscription = None;
        }
    }

    /// News reach it under that token from now on. Answers whether there is something.
    pub fn enter(&self, token: usize) -> bool {
        let mut contents = self.contents();
        contents.token = NonZeroUsize::MIN.checked_add(token);
        if let Some(subscription) = &mut contents.subscription {
            subscription.enter(token);
        }
        contents.has_something()
    }

    /// Nobody has its connection any more.
    pub fn leave(&self) {
        let mut contents = self.contents();
        contents.token = None;
        if let Some(subscription) = &mut contents.subscription {
            subscription.leave();
        }
    }

    /// Runs what may put something into it, on the thread that has its connection: what is put there meanwhile, by whomever,
    /// wakes nobody, and whoever asks for this looks at it afterwards. It must not unwind.
    ///
    /// Most messages are answers to one, and to wake another thread for each costs as much as to send it.
    pub fn attended<R>(&self, what: impl FnOnce() -> R) -> R {
        self.contents().attended = true;
        let done = what();
        self.contents().attended = false;
        done
    }

    /// Whether so much waits that whoever has the connection had better send it before anything is added, or it is to be closed.
    pub fn is_filling(&self) -> bool {
        let contents = self.contents();
        contents.messages().count() >= MESSAGES / 4 || contents.bytes() >= BYTES / 4 || contents.close.is_some()
    }

    /// Takes the next message that is for it alone.
    pub fn take(&self) -> Option<Message> {
        let mut contents = self.contents();
        let messages = contents.messages.as_mut()?;
        let message = messages.pop_front();
        if messages.is_empty() {
            contents.messages = None;
        }
        message
    }

    /// What its topics have for it. Answers the cursor before that as well.
    pub fn pull(&self, joined: &mut Joined) -> (Pulled, u64) {
        match &mut self.contents().subscription {
            Some(subscription) => {
                let before = subscription.cursor();
                (subscription.pull(joined), before)
            }
            None => {
                joined.clear();
                (Pulled::default(), 0)
            }
        }
    }

    /// What stands behind that cursor was not sent.
    pub fn go_back(&self, cursor: u64) {
        if let Some(subscription) = &mut self.contents().subscription {
            subscription.go_back(cursor);
        }
    }

    /// With which status and reason it is to be closed, if it is, and nothing waits before that.
    pub fn close_asked(&self) -> Option<(u16, String)> {
        let contents = self.contents();
        contents.close.as_deref().cloned().filter(|_| contents.messages.is_none())
    }

    /// When its conversation wants to be woken.
    pub fn wake_time(&self) -> Option<u64> {
        self.contents().wake.map(NonZeroU64::get)
    }

    /// Whether that is due, which it then is no more.
    pub fn take_wake(&self, now: u64) -> bool {
        self.contents().wake.take_if(|wake| wake.get() <= now).is_some()
    }

    /// Nothing more is sent to its client, though that may still be connected.
    pub fn shut(&self) {
        let mut contents = self.contents();
        contents.shut = true;
        (contents.messages, contents.wake) = (None, None);
    }

    /// Its application has still to go on with its client, or has.
    pub fn set_waits(&self, waits: bool) {
        self.contents().waits = waits;
    }

    /// Whether it has still to.
    pub fn waits(&self) -> bool {
        self.contents().waits
    }

    /// A successor has its client.
    pub fn hand_over(&self) {
        self.contents().moved = true;
    }

    /// Whether one has.
    pub fn has_moved(&self) -> bool {
        self.contents().moved
    }

    /// Nothing reaches its client any more.
    pub fn end(&self) {
        let mut contents = self.contents();
        let ended = Contents { ended: true, moved: contents.moved, ..Contents::default() };
        // Its lock is the hub's, and comes behind this one.
        let before = std::mem::replace(&mut *contents, ended);
        if !before.ended {
            // Whoever still has it to send something does not keep the place of another client.
            self.hub.count_out();
        }
    }

    /// Bytes that it keeps.
    pub fn held(&self) -> usize {
        let contents = self.contents();
        let subscription = contents.subscription.as_ref();
        let subscription = subscription.map_or(0, |subscription| size_of::<Subscription>() + subscription.held());
        let messages = contents.messages.as_ref().map_or(0, |messages| messages.capacity() * size_of::<Message>());
        size_of::<Inbox>() + contents.bytes() + messages + subscription
    }
}

impl Contents {
    fn is_closed(&self) -> bool {
        self.ended || self.shut || self.close.is_some()
    }

    fn token(&self) -> Option<usize> {
        self.token.map(|token| token.get() - 1)
    }

    fn messages(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().flat_map(|messages| messages.iter())
    }

    fn bytes(&self) -> usize {
        self.messages().map(length).sum()
    }

    fn has_something(&self) -> bool {
        self.messages.is_some()
            || self.close.is_some()
            || self.subscription.as_ref().is_some_and(|subscription| subscription.is_behind())
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inbox({:x})", self.id)
    }
}

#[cfg(test)]
mod tests;
