//! A session: what the application sends, and who gets it.
//!
//! ```text
//! new ──arrive: `o`──▶ open ──close, or a connection broke──▶ closing: `c[…]` to each poll ──5 s──▶ gone
//! ```
//!
//! At most one receiver holds it. What it was handed is in flight until it says that it is written, and meanwhile messages
//! wait in a queue that is bounded. Nothing is handed twice: of a connection that breaks nobody knows what has arrived, so
//! the session is closed.
//!
//! A response that ends is held until it is written. The client may be faster with its next request than the server with
//! that news, so one receiver more may come meanwhile: it waits, and gets nothing before it is known how the other one ended.

use crate::{Form, Frame, Refusal};
use std::fmt;

/// The longest reason of a close, in bytes, which is a WebSocket's (RFC 6455 §5.5); what is longer is cut.
pub const REASON: usize = 123;

/// What a session goes by. It is not written down: a successor has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// So many milliseconds without anything until a heartbeat; 25,000 by default, which is SockJS's.
    pub heartbeat: u64,
    /// So many milliseconds without a receiver until it is gone; 5,000 by default, which is SockJS's.
    pub disconnect: u64,
    /// A streaming response ends once it has so many bytes of frames; 128 KiB by default, which is SockJS's. Browsers keep
    /// what they got until then.
    pub response_limit: u64,
    /// So many messages wait at most; 64 by default.
    pub queue_messages: usize,
    /// So many bytes of them; 64 KiB by default. A message that is longer is never taken.
    pub queue_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            heartbeat: 25_000,
            disconnect: 5_000,
            response_limit: 128 << 10,
            queue_messages: 64,
            queue_bytes: 64 << 10,
        }
    }
}

/// How a session was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// 1000, or 3000 to 4999 for applications.
    pub code: u16,
    /// In words.
    pub reason: String,
}

impl Close {
    /// With a code and a reason, which is cut at [`REASON`].
    pub fn new(code: u16, reason: &str) -> Close {
        let mut end = reason.len().min(REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Close { code, reason: reason[..end].to_owned() }
    }

    /// What applications say if they say nothing else: `c[3000,"Go away!"]`.
    pub fn go_away() -> Close {
        Close::new(3000, "Go away!")
    }

    fn interrupted() -> Close {
        Close::new(1002, "Connection interrupted")
    }

    /// The client did not come back, or its WebSocket ended without a word; nobody is there to hear it.
    fn lost() -> Close {
        Close::new(1006, "Connection lost")
    }

    fn frame(&self) -> Frame<'_> {
        Frame::Close { code: self.code, reason: &self.reason }
    }
}

/// What is to be done after something has happened to a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "it has what is to be written"]
pub struct Outcome {
    /// What receivers get: one each, at most.
    pub writes: Vec<Write>,
    /// The application is to hear that it is open.
    pub opened: bool,
    /// The application is to hear that it is closed, also by itself. This comes once, and only after `opened`.
    pub closed: Option<Close>,
    /// It is over: a request with its id begins a new one.
    pub gone: bool,
}

/// What a receiver gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// As it was named when it arrived.
    pub receiver: u64,
    /// Each one a chunk of its own, or a message of a WebSocket.
    pub pieces: Vec<Vec<u8>>,
    /// Whether its response ends behind them; a WebSocket is closed.
    pub ends: bool,
    /// How many messages of the application's are in them.
    pub messages: usize,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// Too many wait already; later there may be room.
    Full,
    /// It is longer than all that may wait.
    TooLarge,
    /// The session is closed.
    Closed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Full => "the client takes its messages too slowly, and no more may wait",
            SendError::TooLarge => "the message is longer than all that may wait for a client",
            SendError::Closed => "the session is closed",
        })
    }
}

impl std::error::Error for SendError {}

/// A session. It is driven by one thread at a time; receivers are named by numbers that mean nothing to it, and those that it
/// does not know, or knows no longer, are passed by. See the crate for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub(crate) settings: Settings,
    pub(crate) state: State,
    /// What no receiver was handed yet.
    pub(crate) queue: Vec<String>,
    pub(crate) queued: usize,
    /// Who holds it.
    pub(crate) receiver: Option<Receiver>,
    /// Who came while the response of `receiver` was ending.
    pub(crate) waiting: Option<Receiver>,
    /// Of the heartbeat while a receiver is idle, of the end while there is none.
    pub(crate) deadline: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    New,
    Open,
    Closing {
        close: Close,
        /// A receiver was handed it: nothing is left to be said but that.
        said: bool,
    },
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receiver {
    pub(crate) id: u64,
    pub(crate) form: Form,
    /// Bytes of frames that it was handed.
    pub(crate) sent: u64,
    /// It has not said yet that what it was handed is written.
    pub(crate) in_flight: bool,
    /// Its response ends with what is in flight.
    pub(crate) ending: bool,
    /// It is to end as soon as nothing is in flight.
    pub(crate) asked_again: bool,
}

impl Receiver {
    fn new(id: u64, form: Form) -> Receiver {
        Receiver { id, form, sent: 0, in_flight: false, ending: false, asked_again: false }
    }

    fn is_polling(&self) -> bool {
        self.form.transport().is_polling()
    }

    fn is_websocket(&self) -> bool {
        self.form == Form::WebSocket
    }

    fn push(&mut self, frame: Frame<'_>, pieces: &mut Vec<Vec<u8>>) {
        let mut piece = Vec::new();
        self.form.push(frame, &mut piece);
        self.sent = self.sent.saturating_add(piece.len() as u64);
        pieces.push(piece);
    }
}

impl Session {
    /// A new one, for whose first receiver there is time until the disconnect delay is over.
    pub fn new(settings: Settings, now: u64) -> Session {
        Session {
            settings,
            state: State::New,
            queue: Vec::new(),
            queued: 0,
            receiver: None,
            waiting: None,
            deadline: now.saturating_add(settings.disconnect),
        }
    }

    /// A receiver has come: a request of this session whose response is to have frames. It gets what waits, waits itself,
    /// or is told that another one is there (`c[2010,…]`) or that the session is closed.
    pub fn arrive(&mut self, id: u64, form: Form, now: u64) -> Outcome {
        let mut outcome = Outcome::default();
        match (&self.state, &self.receiver) {
            (State::Gone, _) => outcome.writes.push(refused(id, &form, &Close::interrupted())),
            (State::Closing { close, said: true }, _) => outcome.writes.push(refused(id, &form, close)),
            (_, Some(receiver)) if receiver.ending && self.waiting.is_none() => {
                self.waiting = Some(Receiver::new(id, form));
            }
            (_, Some(_)) => {
                let close = Close::new(2010, "Another connection still open");
                outcome.writes.push(refused(id, &form, &close));
            }
            (_, None) => self.attach(Receiver::new(id, form), now, &mut outcome),
        }
        outcome
    }

    /// All that the receiver was handed is written: its connection takes more, or its response has ended.
    pub fn written(&mut self, id: u64, now: u64) -> Outcome {
        let mut outcome = Outcome::default();
        match &mut self.receiver {
            Some(receiver) if receiver.id == id && receiver.in_flight => {
                receiver.in_flight = false;
                if receiver.ending {
                    self.release(now, &mut outcome);
                } else {
                    self.deadline = now.saturating_add(self.settings.heartbeat);
                    self.fill(Vec::new(), &mut outcome);
                }
            }
            _ => {}
        }
        outcome
    }

    /// The receiver's connection broke before its response had ended, or a WebSocket without a closing handshake. The session
    /// is closed with 1002, and what waits is lost with it: nobody knows what has arrived.
    pub fn lost(&mut self, id: u64, now: u64) -> Outcome {
        let is_websocket = self.receiver.as_ref().is_some_and(Receiver::is_websocket);
        self.end(id, if is_websocket { Close::lost() } else { Close::interrupted() }, now)
    }

    /// The client has closed its WebSocket, with this.
    pub fn left(&mut self, id: u64, close: Close, now: u64) -> Outcome {
        self.end(id, close, now)
    }

    /// What a client has sent, as it is to be delivered. A session that is closing has a client that does not know yet, and
    /// will hear why: what it sends is passed by, as on a WebSocket that is closed, instead of 404, which would end it with
    /// another reason.
    ///
    /// # Errors
    /// [`Refusal::UnknownSession`] before the first receiver has come, and when it is gone.
    pub fn receive(&self, messages: Vec<String>) -> Result<Vec<String>, Refusal> {
        match self.state {
            State::Open => Ok(messages),
            State::Closing { .. } => Ok(Vec::new()),
            State::New | State::Gone => Err(Refusal::UnknownSession),
        }
    }

    /// Puts a message from the application into the queue. [`Session::flush`] hands it on, so that what is sent in one turn
    /// makes one frame.
    ///
    /// # Errors
    /// Where it was not taken.
    pub fn send(&mut self, message: String) -> Result<(), SendError> {
        match self.state {
            State::New | State::Open => {}
            State::Closing { .. } | State::Gone => return Err(SendError::Closed),
        }
        if message.len() > self.settings.queue_bytes {
            return Err(SendError::TooLarge);
        }
        let queued = self.queued.saturating_add(message.len());
        if self.queue.len() >= self.settings.queue_messages || queued > self.settings.queue_bytes {
            return Err(SendError::Full);
        }
        self.queued = queued;
        self.queue.push(message);
        Ok(())
    }

    /// Hands on what waits, if there is a receiver that takes it.
    pub fn flush(&mut self, now: u64) -> Outcome {
        let mut outcome = Outcome::default();
        if !self.queue.is_empty() {
            self.deadline = match &self.receiver {
                Some(receiver) if !receiver.in_flight => now.saturating_add(self.settings.heartbeat),
                _ => self.deadline,
            };
            self.fill(Vec::new(), &mut outcome);
        }
        outcome
    }

    /// The application closes it. What it has sent before comes first; then each receiver is told so, until 5 s after the
    /// first has heard it.
    pub fn close(&mut self, close: Close) -> Outcome {
        let mut outcome = Outcome::default();
        if matches!(self.state, State::New | State::Open) {
            self.begin_closing(Close::new(close.code, &close.reason), &mut outcome);
            self.fill(Vec::new(), &mut outcome);
        }
        outcome
    }

    /// The receiver is to ask again, at once: its response ends with what is in flight. So a session can go to where the
    /// client's next request comes to. A WebSocket is not asked, it moves.
    pub fn ask_again(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        for receiver in self.receiver.iter_mut().chain(&mut self.waiting) {
            receiver.asked_again = !receiver.is_websocket() && !receiver.ending;
        }
        self.fill(Vec::new(), &mut outcome);
        outcome
    }

    /// Time has passed.
    pub fn tick(&mut self, now: u64) -> Outcome {
        let mut outcome = Outcome::default();
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return outcome;
        }
        let Some(receiver) = &mut self.receiver else {
            self.vanish(Close::lost(), &mut outcome);
            return outcome;
        };
        let mut pieces = Vec::new();
        if self.queue.is_empty() {
            receiver.push(Frame::Heartbeat, &mut pieces);
        }
        self.deadline = now.saturating_add(self.settings.heartbeat);
        self.fill(pieces, &mut outcome);
        outcome
    }

    /// When [`Session::tick`] has something to do; `None` while something is in flight, whose deadline is the connection's.
    pub fn deadline(&self) -> Option<u64> {
        let waits = self.receiver.as_ref().is_some_and(|receiver| receiver.in_flight);
        (!waits && self.state != State::Gone).then_some(self.deadline)
    }

    /// What it goes by.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Whether somebody is there who takes what is sent now: until then it may wait elsewhere.
    pub fn has_idle_receiver(&self) -> bool {
        self.state == State::Open && self.receiver.as_ref().is_some_and(|receiver| !receiver.in_flight)
    }

    /// Who holds it, and who comes next.
    pub fn receivers(&self) -> impl Iterator<Item = u64> {
        self.receiver.iter().chain(&self.waiting).map(|receiver| receiver.id)
    }

    /// Gives a receiver another name: connections have others where they have moved to.
    pub fn rename(&mut self, from: u64, to: u64) {
        let mut receivers = self.receiver.iter_mut().chain(&mut self.waiting);
        if let Some(receiver) = receivers.find(|receiver| receiver.id == from) {
            receiver.id = to;
        }
    }

    /// Whether it is over.
    pub fn is_gone(&self) -> bool {
        self.state == State::Gone
    }

    /// Whether messages are taken.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// What it takes of memory, itself included, in bytes.
    pub fn memory(&self) -> usize {
        let callback = |receiver: &Receiver| match &receiver.form {
            Form::HtmlFile(callback) | Form::Jsonp(callback) => callback.as_str().len(),
            _ => 0,
        };
        let reason = match &self.state {
            State::Closing { close, .. } => close.reason.capacity(),
            _ => 0,
        };
        let receivers: usize = self.receiver.iter().chain(&self.waiting).map(callback).sum();
        size_of::<Session>() + self.queue.capacity() * size_of::<String>() + self.queued + reason + receivers
    }

    /// It holds the session from now on, and gets what there is.
    fn attach(&mut self, mut receiver: Receiver, now: u64, outcome: &mut Outcome) {
        debug_assert!(self.receiver.is_none() && self.state != State::Gone);
        let mut pieces: Vec<Vec<u8>> = receiver.form.prelude().into_iter().collect();
        if self.state == State::New {
            receiver.push(Frame::Open, &mut pieces);
            self.state = State::Open;
            outcome.opened = true;
        }
        self.receiver = Some(receiver);
        self.deadline = now.saturating_add(self.settings.heartbeat);
        self.fill(pieces, outcome);
    }

    /// Hands the receiver what there is behind these pieces, unless something is in flight.
    fn fill(&mut self, mut pieces: Vec<Vec<u8>>, outcome: &mut Outcome) {
        let Some(receiver) = self.receiver.as_mut().filter(|receiver| !receiver.in_flight) else { return };
        let takes_one = receiver.is_polling();
        let (mut ends, mut messages) = (takes_one && !pieces.is_empty(), 0);
        if !self.queue.is_empty() && !ends {
            receiver.push(Frame::Messages(&self.queue), &mut pieces);
            messages = self.queue.len();
            self.queue = Vec::new();
            self.queued = 0;
            ends = takes_one;
        }
        if let State::Closing { close, said } = &mut self.state
            && !ends
        {
            receiver.push(close.frame(), &mut pieces);
            (*said, ends) = (true, true);
        }
        if receiver.asked_again && !ends {
            if takes_one {
                receiver.push(Frame::Heartbeat, &mut pieces);
            }
            ends = true;
        }
        ends |= receiver.form.transport().is_streaming() && receiver.sent >= self.settings.response_limit;
        if ends || !pieces.is_empty() {
            (receiver.in_flight, receiver.ending) = (true, ends);
            outcome.writes.push(Write { receiver: receiver.id, pieces, ends, messages });
        }
    }

    /// The receiver's response has ended as it should.
    fn release(&mut self, now: u64, outcome: &mut Outcome) {
        let receiver = self.receiver.take();
        debug_assert!(receiver.as_ref().is_some_and(|receiver| receiver.ending));
        if receiver.is_some_and(|receiver| receiver.is_websocket()) {
            self.vanish(Close::lost(), outcome);
        }
        self.succeed(now, outcome);
    }

    /// The receiver's connection has ended as it should not.
    fn end(&mut self, id: u64, close: Close, now: u64) -> Outcome {
        let mut outcome = Outcome::default();
        if self.waiting.as_ref().is_some_and(|waiting| waiting.id == id) {
            // It was handed nothing, so nothing is missing.
            self.waiting = None;
        } else if let Some(receiver) = self.receiver.take_if(|receiver| receiver.id == id) {
            self.queue = Vec::new();
            self.queued = 0;
            match &mut self.state {
                State::Open if receiver.is_websocket() => {}
                State::Open => self.begin_closing(Close::new(close.code, &close.reason), &mut outcome),
                // What was sent before the close has gone, and that is what matters to the client.
                State::Closing { close: before, said: false } => *before = Close::interrupted(),
                State::Closing { .. } => {}
                State::New | State::Gone => debug_assert!(false, "a receiver holds it"),
            }
            if receiver.is_websocket() {
                self.vanish(close, &mut outcome);
            }
            self.succeed(now, &mut outcome);
        }
        outcome
    }

    /// Nobody holds it any more: whoever waits does, or the time begins until it is gone.
    fn succeed(&mut self, now: u64, outcome: &mut Outcome) {
        self.deadline = now.saturating_add(self.settings.disconnect);
        match (self.waiting.take(), &self.state) {
            (Some(waiting), State::Gone) => {
                outcome.writes.push(refused(waiting.id, &waiting.form, &Close::interrupted()));
            }
            (Some(waiting), _) => self.attach(waiting, now, outcome),
            (None, _) => {}
        }
    }

    fn begin_closing(&mut self, close: Close, outcome: &mut Outcome) {
        debug_assert!(matches!(self.state, State::New | State::Open));
        if self.state == State::Open {
            outcome.closed = Some(close.clone());
        }
        self.state = State::Closing { close, said: false };
    }

    /// It is gone, and the application hears of it if it has not yet.
    fn vanish(&mut self, close: Close, outcome: &mut Outcome) {
        if self.state == State::Open {
            outcome.closed = Some(Close::new(close.code, &close.reason));
        }
        self.state = State::Gone;
        self.queue = Vec::new();
        self.queued = 0;
        outcome.gone = true;
    }
}

/// To a receiver that never holds the session: that, and its end.
fn refused(id: u64, form: &Form, close: &Close) -> Write {
    let mut receiver = Receiver::new(id, form.clone());
    let mut pieces: Vec<Vec<u8>> = form.prelude().into_iter().collect();
    receiver.push(close.frame(), &mut pieces);
    Write { receiver: id, pieces, ends: true, messages: 0 }
}

#[cfg(test)]
mod tests;
