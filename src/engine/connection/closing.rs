//! Why a connection ends, and what the acceptor does when a deadline has passed.

use super::close_reason::CloseReason;
use super::context::WorkerContext;
use super::dispatch::Push;
use super::exchange::{Answer, End, Exchange, named};
use super::pace::Pace;
use super::shared::{Shared, log_cut};
use super::transport::Moved;
use super::turn::{self, Turn};
use super::writing::{After, ResponseBody, Writing};
use super::{Connection, Flow, State, Unfinished, close};
use crate::api::{Closed, without_token};
use crate::clock::Millis;
use crate::config::Limits;
use crate::lifecycle::state::WEBSOCKETS;
use http1::head::is_blank;
use http1::{Reject, response};
use std::time::Duration;

/// What the acceptor does with a connection whose deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Close(CloseReason),
    /// Park it again: it makes progress, or it lingers now.
    Park,
    /// Bytes have arrived meanwhile, or only a worker may end it.
    Enqueue,
    /// Queue it for a worker, which sends what this thread could not: its transport has no answers at once.
    HandOver,
    /// It waits on, and there is something for it: when its turn comes, among the others of its kind.
    Deliver,
}

/// How far [`Connection::discard`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discarded {
    /// The socket is empty; what comes later is an event.
    All,
    /// There is more. To close now would be a reset, and could cost the client its answer.
    Some,
    /// The client has closed.
    End(CloseReason),
}

/// How many times `linger` a connection lingers at most while bytes keep coming.
const LINGERS: u32 = 10;

impl Connection {
    /// A deadline of a parked connection has passed. Never waits: prepared bytes go out in one write, or not at all.
    pub fn expire(&mut self, shared: &Shared, now: Millis, date: &[u8]) -> Expiry {
        match &mut self.state {
            State::ReadingHead if is_blank(&self.input) => self.expire_idle(shared, now),
            State::ReadingHead => self.give_up(Reject::HeadTimeout, shared, now, date),
            State::ReadingBody(collecting) => {
                let (_, reject) = collecting.deadline(&shared.limits);
                self.give_up(reject, shared, now, date)
            }
            State::AwaitingPermit(_) => {
                let (expiry, state) = self.refuse_waiting(Reject::Overloaded, End::Answered, shared, now, date);
                // Dropping a handler's closure runs the application's code: not on this thread.
                let State::AwaitingPermit(mut push) = state else { return expiry };
                push.head = Vec::new();
                if let State::Writing(writing) = &mut self.state {
                    // What its worker is to send, and what ends with that.
                    (push.head, push.answer) = (std::mem::take(&mut writing.unsent), writing.answer);
                    push.exchange = writing.exchange.take();
                }
                let (until, limit) = lingers(&shared.limits, now);
                self.state = State::Refused { push, reason: CloseReason::Refused(Reject::Overloaded), until, limit };
                match expiry {
                    Expiry::HandOver => expiry,
                    _ => Expiry::Enqueue,
                }
            }
            State::Writing(writing) => {
                let pace = Pace::of(&shared.limits);
                if writing.window.wait(now, pace, || self.socket.unsent().unwrap_or(0)).is_some() {
                    return Expiry::Park;
                }
                match writing.source {
                    // Dropping a reader runs the application's code: not on this thread.
                    ResponseBody::Reader { .. } => {
                        writing.expired = true;
                        Expiry::Enqueue
                    }
                    _ => self.expire_too_slow(shared, now),
                }
            }
            State::Subscribed(_) if shared.is_draining() || self.last => self.end_subscription(shared, now, date),
            State::Subscribed(subscribed) => {
                let Some(blocked) = &mut subscribed.blocked else { return Expiry::Deliver };
                if blocked.window.wait(now, Pace::of(&shared.limits), || self.socket.unsent().unwrap_or(0)).is_some() {
                    return Expiry::Park;
                }
                self.expire_too_slow(shared, now)
            }
            State::Conversing(_) => self.expire_conversation(shared, now),
            State::Attached(_) => self.expire_attached(shared, now, date),
            State::Awaiting(_) => Expiry::Deliver,
            State::Lingering { reason, .. } | State::Refused { reason, .. } => Expiry::Close(*reason),
        }
    }

    /// Its client has taken too little of what waits for it.
    pub(super) fn expire_too_slow(&mut self, shared: &Shared, now: Millis) -> Expiry {
        self.socket.reset_on_close();
        self.close(CloseReason::WriteTimeout, shared, now);
        Expiry::Close(CloseReason::WriteTimeout)
    }

    fn expire_idle(&mut self, shared: &Shared, now: Millis) -> Expiry {
        let reason = if shared.is_draining() || self.last { CloseReason::Stopping } else { CloseReason::IdleTimeout };
        match self.socket.peek() {
            Ok(Some(Moved::Bytes(_))) => Expiry::Enqueue,
            Ok(Some(Moved::End)) => Expiry::Close(CloseReason::PeerClosed),
            Err(_) => Expiry::Close(CloseReason::Reset),
            // Where nobody can tell, its event would have queued it but for a moment ago.
            Ok(Some(Moved::WouldBlock) | None) => {
                // A request may be on its way: FIN first, and what still comes is read and not run, so that the
                // client sees an orderly end instead of a reset.
                self.linger_now(reason, shared, now).0
            }
        }
    }

    /// Answers for a request that will not be served, and closes. Who closes it whatever this says lets a client whose
    /// transport has no answers at once have the end alone.
    pub fn give_up(&mut self, reject: Reject, shared: &Shared, now: Millis, date: &[u8]) -> Expiry {
        self.refuse_waiting(reject, End::Answered, shared, now, date).0
    }

    /// Refuses what waits, be it no more than bytes in the socket. Answers also the state in which it was, which may hold
    /// what must not be dropped here.
    fn refuse_waiting(
        &mut self,
        reject: Reject,
        end: End,
        shared: &Shared,
        now: Millis,
        date: &[u8],
    ) -> (Expiry, State) {
        if self.converses() {
            // Nothing of HTTP is said there any more.
            return (self.end_conversation_at_once(shared, now), State::ReadingHead);
        }
        let waiting = self.take_waiting();
        // What nobody has read begins now; of what was cut there is none any more.
        let unread = || matches!(self.state, State::ReadingHead).then(|| Exchange::new(now));
        let (exchange, mut answer) = match waiting {
            Some((exchange, answer)) => (Some(exchange), answer),
            None => (unread(), Answer::default()),
        };
        let mut encoded = Vec::new();
        response::encode_plain(&mut encoded, reject.status(), reject.name(), reject.fields(), date);
        answer.refuses(reject, &encoded);
        let sent = self.socket.answer_at_once(&encoded);
        match exchange {
            // It ends when a worker has sent that.
            Some(exchange) if sent.is_none() && end == End::Answered => {
                return (Expiry::HandOver, self.hand_over(reject, exchange, answer, encoded));
            }
            Some(exchange) => {
                answer.sent(sent.unwrap_or(0));
                self.end_waiting(exchange, answer, end, shared, now);
            }
            None => {}
        }
        self.linger_now(CloseReason::Refused(reject), shared, now)
    }

    /// Leaves an encoded refusal to a worker. Answers the state in which it was.
    fn hand_over(&mut self, reject: Reject, mut exchange: Exchange, answer: Answer, encoded: Vec<u8>) -> State {
        if let Some(request) = self.waiting_request() {
            exchange.keep_line_of(request, true);
        }
        let mut writing = Writing::new(ResponseBody::None, After::Linger(CloseReason::Refused(reject)));
        (writing.unsent, writing.exchange, writing.answer) = (encoded, Some(exchange), answer);
        let state = self.let_go();
        self.wait_to_write(writing);
        state
    }

    /// Nothing that it had read or begun goes on. Answers the state in which it was.
    pub(super) fn let_go(&mut self) -> State {
        self.input = Vec::new();
        self.hold = None;
        std::mem::replace(&mut self.state, State::ReadingHead)
    }

    pub(super) fn linger_now(&mut self, reason: CloseReason, shared: &Shared, now: Millis) -> (Expiry, State) {
        self.socket.finish();
        let state = self.let_go();
        self.start_linger(reason, &shared.limits, now);
        // What has come already gives no new event.
        let expiry = match self.discard() {
            Discarded::All => Expiry::Park,
            Discarded::Some => Expiry::Enqueue,
            Discarded::End(reason) => Expiry::Close(reason),
        };
        (expiry, state)
    }

    /// Whether bytes wait that no worker has seen, or nobody can tell.
    pub fn has_unread(&self) -> bool {
        matches!(self.socket.peek(), Ok(Some(Moved::Bytes(_)) | None))
    }

    /// Whether it has read what it may go on with. A body may wait for a thread, or for a word that its client waits for: no
    /// event would tell of that. What a subscriber's client sends waits for the end of its response.
    pub fn has_read(&self) -> bool {
        match self.state {
            State::ReadingBody(_) => true,
            State::Subscribed(_) | State::Attached(_) | State::Awaiting(_) => false,
            _ => !self.input.is_empty(),
        }
    }

    /// It cannot move to the successor: it ends with its next response.
    pub fn end_soon(&mut self) {
        self.last = true;
    }

    /// Whether it ends with its next response.
    pub fn ends_soon(&self) -> bool {
        self.last
    }

    /// The successor has it.
    pub fn set_moved(&mut self, shared: &Shared, version: Option<u32>) {
        self.moved = true;
        // To a process that knows no WebSockets it went as one that ends.
        let lives_on = version.is_some_and(|version| version >= WEBSOCKETS);
        self.let_talker_go(shared, (!lives_on).then(|| Closed::new(1012, "")));
    }

    /// Whether it holds code of the application's: a reader or a closure.
    pub fn holds_application(&self) -> bool {
        match &self.state {
            State::AwaitingPermit(_) | State::Refused { .. } => true,
            State::Writing(writing) => matches!(writing.source, ResponseBody::Reader { .. }),
            _ => false,
        }
    }

    /// Whether nothing of a request has arrived and nothing of a response is left: the client loses nothing.
    pub fn is_idle(&self) -> bool {
        match self.state {
            State::ReadingHead => is_blank(&self.input),
            State::Lingering { .. } => true,
            _ => false,
        }
    }

    /// Whether it only waits for the client to close.
    pub fn is_lingering(&self) -> bool {
        matches!(self.state, State::Lingering { .. })
    }

    /// Reads and throws away what has come, as much as the acceptor has time for.
    pub fn discard(&mut self) -> Discarded {
        let mut sink = [0; 4096];
        for _ in 0..64 {
            match self.socket.throw_away(&mut sink) {
                Ok(Moved::Bytes(_)) => {}
                Ok(Moved::WouldBlock) => return Discarded::All,
                Ok(Moved::End) | Err(_) => {
                    return Discarded::End(match self.state {
                        State::Lingering { reason, .. } => reason,
                        _ => CloseReason::Internal,
                    });
                }
            }
        }
        Discarded::Some
    }

    /// What is under way on it, for a message; `None` if there is nothing of a request.
    pub fn unfinished(&self, now: Millis) -> Option<Unfinished> {
        let what = match &self.state {
            State::ReadingHead if is_blank(&self.input) => return None,
            // It is never finished, so nothing waits for that.
            State::Lingering { .. } | State::Subscribed(_) | State::Conversing(_) | State::Attached(_) => return None,
            // What has been answered, or cut, is not under way.
            State::Refused { push, .. } if push.exchange.is_none() => return None,
            State::ReadingHead => {
                let line = self.input.split(|&b| b == b'\r' || b == b'\n').find(|line| !line.is_empty());
                let line = String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
                format!("{:.200?} (its head was incomplete)", without_token(&line))
            }
            State::ReadingBody(collecting) => {
                format!("{} {} (its body was incomplete)", collecting.request.method(), collecting.request.shown_url())
            }
            State::AwaitingPermit(push) | State::Refused { push, .. } => {
                format!("{} {} (it waited to stream)", push.request.method(), push.request.shown_url())
            }
            State::Writing(writing) => format!("{} (its response was not taken)", named(writing.line())),
            State::Awaiting(awaiting) => format!("{} (it waited for the bus)", named(awaiting.line())),
        };
        Some(Unfinished { what, age: now.since(self.begun.unwrap_or(now)) })
    }

    /// Ends it at the stop deadline: a request that has not been executed gets a 408. Answers whether there was anything
    /// of a request; what is cut is logged, unless it was before.
    pub fn cut(&mut self, shared: &Shared, now: Millis, date: &[u8]) -> bool {
        if self.converses() {
            // What it waits with is its client's next message: that is told to come back.
            self.end_conversation_at_once(shared, now);
            return false;
        }
        let Some(cut) = self.unfinished(now) else { return false };
        match self.state {
            State::ReadingHead | State::ReadingBody(_) => {
                // Whoever cut what was answered here before has counted this connection.
                let reason = if self.socket.was_cut() { CloseReason::Reset } else { CloseReason::Cut };
                if reason == CloseReason::Cut {
                    log_cut(&cut);
                }
                self.refuse_waiting(Reject::HeadTimeout, End::Closed(reason), shared, now, date);
            }
            // What it holds may be the application's: it is dropped when this server is, not now.
            _ => {
                self.socket.cut();
                if let Some((exchange, answer)) = self.take_waiting() {
                    log_cut(&cut);
                    self.end_waiting(exchange, answer, End::Closed(CloseReason::Cut), shared, now);
                }
            }
        }
        true
    }

    /// The same for a request that no worker could take, and that nobody has read: it has waited for so long.
    pub fn cut_unread(&mut self, shared: &Shared, now: Millis, date: &[u8], age: Duration) {
        log_cut(&Unfinished { what: "a request that no worker could take".into(), age });
        self.refuse_waiting(Reject::Overloaded, End::Closed(CloseReason::Cut), shared, now, date);
    }

    /// Begins to linger.
    pub(super) fn start_linger(&mut self, reason: CloseReason, limits: &Limits, now: Millis) {
        let (until, limit) = lingers(limits, now);
        self.wait_for_end(reason, until, limit);
    }

    /// What the application made for a refused request goes, and the client is told if it has not been.
    pub(super) fn end_refused(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        mut push: Box<Push>,
        reason: CloseReason,
        (until, limit): (Millis, Millis),
    ) -> Flow {
        work.out.append(&mut push.head);
        work.resume_exchange(push.exchange.take(), push.answer);
        // What the application does then is the end of its request at the worst.
        drop(push);
        match work.out.is_empty() {
            true => self.linger(work, turn, reason, until, limit),
            false => {
                work.resume_flight(&self.socket, self.begun.unwrap_or(work.now));
                self.write(work, turn, Writing::new(ResponseBody::None, After::Linger(reason)))
            }
        }
    }

    /// Lingering: throws away what comes, until the client closes too or the time is up (RFC 9112 §9.6). While bytes
    /// still come, the client may not have looked for the answer yet.
    pub(super) fn linger(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        reason: CloseReason,
        mut until: Millis,
        limit: Millis,
    ) -> Flow {
        while turn.bytes() < turn::BYTES {
            match self.read(work, turn) {
                Ok(Some(read)) => {
                    turn.moved(read as u64);
                    work.clear_input();
                    until = work.now.after(work.shared.limits.linger).min(limit);
                }
                Ok(None) if work.now >= until => return close(reason),
                Ok(None) => {
                    self.wait_for_end(reason, until, limit);
                    return Flow::Park;
                }
                Err(_) => return close(reason),
            }
        }
        if work.refresh_clock() >= until {
            return close(reason);
        }
        self.wait_for_end(reason, until, limit);
        Flow::Requeue
    }
}

/// Until when what begins to linger now does so, if nothing more comes, and at the longest.
fn lingers(limits: &Limits, now: Millis) -> (Millis, Millis) {
    (now.after(limits.linger), now.after(limits.linger * LINGERS))
}
