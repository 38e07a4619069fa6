//! One connection: the state machine a worker drives as far as it goes without waiting for the client.
//!
//! ```text
//! ReadingHead ─complete─▶ ReadingBody ─buffered─▶ (handler) ─▶ Writing ─done─▶ ReadingHead (keep-alive) │ Lingering ─▶ closed
//!   │ partial: park          │ partial: park         │            │ would block: park
//!   │                        │                       ├─▶ Subscribed ─ended─▶ Writing, ReadingHead or Lingering
//!   │                        │                       │     nothing new: park
//!   │                        │                       ├─▶ Conversing ─closed by both─▶ Lingering
//!   │                        │                       │     nothing came and nothing waits: park
//!   │                        │                       ├─▶ Attached ─ended─▶ ReadingHead or Lingering
//!   │                        │                       │     its session has nothing: park
//!   │                        │                       ├─▶ Awaiting ─outcome known─▶ Writing, ReadingHead or Lingering
//!   │                        │                       │     not yet: park
//!   │                        │                       └─▶ AwaitingPermit ─▶ (stream)
//!   └─ limits ▶ 4xx          ├─ limits ▶ 4xx                                  ▲
//!                            └─ outgrows its buffer: parked and collected ────┘
//! ```
//! What waits for its client while it runs, a handler that reads a large body or one that pushes, runs on a thread that
//! may ([`Role::Streamer`]); until one is free it waits parked, and a body goes on being collected meanwhile.
//!
//! A state owns what that moment needs and nothing else, so a parked idle connection has no buffer at all. The buffers
//! belong to the worker ([`WorkerContext`]) and are lent for a turn.

mod attached;
mod awaiting;
mod budget;
mod close_reason;
mod closing;
mod context;
mod conversing;
mod dispatch;
mod entry;
mod exchange;
mod in_flight;
#[cfg(any(test, fuzzing))]
pub mod invariants;
mod pace;
mod parking;
mod receive;
mod respond;
mod shared;
mod snapshot;
mod stats;
pub mod stream;
mod subscribed;
pub mod transport;
mod turn;
mod writing;

pub use budget::{Budget, Share};
pub use close_reason::CloseReason;
pub use closing::{Discarded, Expiry};
pub use context::{Role, WorkerContext, connection_buffers, worker_buffers};
pub use in_flight::{Durations, InFlight, Unfinished};
pub use shared::{Shared, StatusRoutes};
pub use snapshot::{Restored, fresh};
pub use stats::{Histogram, Stats};
pub use turn::Turn;

use crate::api::{Closed, Request};
use crate::clock::Millis;
use crate::config::Limits;
use crate::engine::slot::{self, Parking};
use attached::Attached;
use awaiting::Awaiting;
use conversing::Conversing;
use dispatch::Push;
use exchange::{Answer, End, Ended, Exchange};
use http1::Reject;
use http1::head::Scanner;
use receive::Collecting;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use subscribed::Subscribed;
use transport::{Moved, Transport};
use writing::Writing;

/// The longest head of a request for the server's state that is answered out of turn.
const STATUS_HEAD: usize = 4096;
/// What an allocator adds to the few pieces that a connection holds.
const ALLOCATIONS: usize = 64;

/// The place of a connection.
pub type Slot = slot::Slot<Connection>;

/// One connection.
pub struct Connection {
    socket: Arc<Transport>,
    peer: Option<SocketAddr>,
    served: u32,
    /// When the first byte of the current request arrived; until its response is out. The exchange is made with it, when
    /// there is a head to speak of.
    begun: Option<Millis>,
    scanner: Scanner,
    /// Whether the next response is the last: the connection cannot move to the successor.
    last: bool,
    /// Whether the successor has it: then our copy is only ever closed.
    moved: bool,
    /// What was read and belongs to a later turn.
    input: Vec<u8>,
    state: State,
    /// Its part of the memory for requests and responses that have to wait.
    hold: Option<Share>,
}

/// The moments of a connection; see the graph above.
enum State {
    /// Waiting for a head, or in the middle of one.
    ReadingHead,
    /// Collecting a body that the handler gets whole.
    ReadingBody(Box<Collecting>),
    /// A response to push, which waits for a thread that may wait for the client.
    AwaitingPermit(Box<Push>),
    /// It waited too long and was answered; what the application made for it is still to be dropped, by a worker,
    /// because that runs the application's code. If it could not be answered at once, the answer stands as the head, and
    /// the exchange ends when a worker has sent it.
    Refused { push: Box<Push>, reason: CloseReason, until: Millis, limit: Millis },
    /// A response waits for the client to read.
    Writing(Box<Writing>),
    /// A response that is a subscription, its head out unless it is a poll: it waits for the hub, and goes on as
    /// `Writing` or `ReadingHead` when it ends.
    Subscribed(Box<Subscribed>),
    /// A WebSocket: it waits for its client, or for what is for it.
    Conversing(Box<Conversing>),
    /// A response that a session of SockJS has frames for, and waits for them.
    Attached(Box<Attached>),
    /// A response that is known when a bus has said what became of a publication.
    Awaiting(Box<Awaiting>),
    /// The last answer is out and FIN was sent: what still comes is thrown away until the client closes too.
    Lingering { reason: CloseReason, until: Millis, limit: Millis },
}

impl State {
    /// Bytes that it keeps on the heap. What a reader or a closure of the application's has is the application's.
    fn held(&self) -> usize {
        match self {
            State::ReadingHead | State::Lingering { .. } => 0,
            State::ReadingBody(collecting) => {
                size_of::<Collecting>() + collecting.request.held() + collecting.body.capacity()
            }
            State::AwaitingPermit(push) | State::Refused { push, .. } => push.held(),
            State::Writing(writing) => size_of::<Writing>() + writing.held(),
            State::Subscribed(subscribed) => subscribed.held(),
            State::Conversing(conversing) => conversing.held(),
            State::Attached(attached) => attached.held(),
            State::Awaiting(awaiting) => awaiting.held(),
        }
    }
}

/// What a turn ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Wait for the client.
    Park(Parking),
    /// Let others have a turn first. `refusable`: nothing of a response is written.
    Requeue { refusable: bool },
    /// Done with it.
    Close(CloseReason),
}

/// What a step decided: go on with the next state, or end the turn.
#[derive(Clone, Copy)]
enum Flow {
    Continue,
    /// Nothing can be done before the client does something.
    Park,
    /// The turn is over.
    Requeue,
    Close(CloseReason),
}

fn close(reason: CloseReason) -> Flow {
    Flow::Close(reason)
}

impl Connection {
    pub fn new(socket: Transport, peer: Option<SocketAddr>) -> Connection {
        Connection {
            socket: Arc::new(socket),
            peer,
            served: 0,
            begun: None,
            scanner: Scanner::default(),
            last: false,
            moved: false,
            input: Vec::new(),
            state: State::ReadingHead,
            hold: None,
        }
    }

    #[cfg(test)]
    pub fn for_test() -> Connection {
        let (one, _) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        Connection::new(Transport::new(one.into()), None)
    }

    /// What its bytes go through.
    pub fn socket(&self) -> &Transport {
        &self.socket
    }

    /// The socket, if nothing has been read from it and nobody else has it; else the connection as it is.
    pub fn into_fresh(self) -> Result<OwnedFd, Box<Connection>> {
        let fresh = self.served == 0 && self.input.is_empty() && matches!(self.state, State::ReadingHead);
        match fresh.then(|| self.socket.as_fd().try_clone_to_owned()) {
            Some(Ok(fd)) => Ok(fd),
            _ => Err(Box::new(self)),
        }
    }

    /// The client's address; a Unix socket's has none.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Goes as far as it can without waiting for the client, and as far as this is its turn.
    ///
    /// `hides_bytes`: a read that fills less than it asked for may have left something in the socket.
    pub fn drive(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, hides_bytes: bool) -> Verdict {
        // A Unix socket ends a read at passed descriptors (unix(7)), of which nothing else tells.
        turn.look(hides_bytes || self.socket.hides_bytes() || self.peer.is_none());
        work.load(&mut self.input);
        work.peer = self.peer;
        let flow = loop {
            let flow = match std::mem::replace(&mut self.state, State::ReadingHead) {
                State::ReadingHead => self.read_head(work, turn),
                State::ReadingBody(collecting) => self.resume_body(work, turn, collecting),
                State::AwaitingPermit(push) => self.acquire_permit(work, turn, push),
                State::Writing(writing) => self.resume_write(work, turn, *writing),
                State::Subscribed(subscribed) => self.serve_subscriber(work, turn, subscribed),
                State::Conversing(conversing) => self.serve_conversation(work, turn, conversing),
                State::Attached(attached) => self.serve_session(work, turn, attached),
                State::Awaiting(awaiting) => self.serve_awaiting(work, turn, awaiting),
                State::Lingering { reason, until, limit } => self.linger(work, turn, reason, until, limit),
                State::Refused { push, reason, until, limit } => {
                    self.end_refused(work, turn, push, reason, (until, limit))
                }
            };
            if !matches!(flow, Flow::Continue) {
                break flow;
            }
        };
        work.save(&mut self.input);
        self.verdict(flow, work)
    }

    /// A body is still to come.
    fn wait_for_body(&mut self, work: &mut WorkerContext, mut collecting: Box<Collecting>) {
        (collecting.request, collecting.exchange) = (work.take_request(), work.put_off_exchange());
        debug_assert!(self.begun.is_some(), "a body belongs to a request that has begun");
        debug_assert!(matches!(self.state, State::ReadingHead), "a state is left before another is entered");
        self.state = State::ReadingBody(collecting);
    }

    /// A response that is pushed waits for a thread that may wait for its client.
    fn wait_for_permit(&mut self, push: Push) {
        debug_assert!(self.begun.is_some() && !push.head.is_empty(), "its head is encoded, its request not over");
        debug_assert!(matches!(self.state, State::ReadingHead), "a state is left before another is entered");
        self.state = State::AwaitingPermit(Box::new(push));
    }

    /// The client has to read before more of a response can leave.
    fn wait_to_write(&mut self, writing: Writing) {
        debug_assert!(writing.exchange.is_some(), "who is to send it ends that");
        debug_assert!(matches!(self.state, State::ReadingHead), "a state is left before another is entered");
        self.state = State::Writing(Box::new(writing));
    }

    /// The last answer is out: what comes is thrown away until then, and no longer than to that limit.
    fn wait_for_end(&mut self, reason: CloseReason, until: Millis, limit: Millis) {
        debug_assert!(until <= limit, "it lingers no longer than it may");
        debug_assert!(matches!(self.state, State::ReadingHead), "a state is left before another is entered");
        self.state = State::Lingering { reason, until, limit };
    }

    /// What a turn ends with, if there is memory to wait in.
    fn verdict(&mut self, flow: Flow, work: &mut WorkerContext) -> Verdict {
        let waits = !matches!(flow, Flow::Close(_));
        let flow = if waits && !self.holds_its_share(&work.shared) { self.shed(work) } else { flow };
        match flow {
            Flow::Park => Verdict::Park(self.parking(&work.shared, work.now)),
            Flow::Continue | Flow::Requeue => Verdict::Requeue { refusable: matches!(self.state, State::ReadingHead) },
            Flow::Close(reason) => {
                work.end_exchange(End::Closed(reason));
                self.begun = None;
                Verdict::Close(reason)
            }
        }
    }

    /// Takes the exchange of what waits, and the answer as far as it is. One whose head is not here yet is made for it.
    fn take_waiting(&mut self) -> Option<(Exchange, Answer)> {
        match &mut self.state {
            State::ReadingHead => Some((Exchange::new(self.begun?), Answer::default())),
            State::ReadingBody(collecting) => Some((collecting.exchange.take()?, Answer::default())),
            State::AwaitingPermit(push) | State::Refused { push, .. } => Some((push.exchange.take()?, push.answer)),
            State::Writing(writing) => Some((writing.exchange.take()?, writing.answer)),
            State::Subscribed(subscribed) => Some((subscribed.exchange.take()?, subscribed.answer)),
            State::Conversing(conversing) => Some((conversing.exchange.take()?, conversing.answer)),
            State::Attached(attached) => Some((attached.exchange.take()?, attached.answer)),
            State::Awaiting(awaiting) => Some((awaiting.exchange.take()?, awaiting.answer)),
            State::Lingering { .. } => None,
        }
    }

    /// The request of what waits, as long as it is there.
    fn waiting_request(&self) -> Option<&Request> {
        match &self.state {
            State::ReadingBody(collecting) => Some(&collecting.request),
            State::AwaitingPermit(push) | State::Refused { push, .. } => Some(&push.request),
            State::ReadingHead
            | State::Writing(_)
            | State::Subscribed(_)
            | State::Conversing(_)
            | State::Attached(_)
            | State::Awaiting(_)
            | State::Lingering { .. } => None,
        }
    }

    /// Ends an exchange of what waits.
    fn end_waiting(&self, exchange: Exchange, answer: Answer, end: End, shared: &Shared, now: Millis) {
        let (peer, request, at) = (self.peer, self.waiting_request(), now);
        let took = exchange.age(now);
        shared.end(&Ended { exchange, peer, answer, request, end, at, took }, None);
    }

    /// It is closed while it waits, and what it waited with ends with that.
    pub fn close(&mut self, reason: CloseReason, shared: &Shared, now: Millis) {
        if let Some((exchange, answer)) = self.take_waiting() {
            self.end_waiting(exchange, answer, End::Closed(reason), shared, now);
        }
        self.let_talker_go(shared, Some(Closed::lost()));
    }

    /// For the thread that says how the server is while every worker is busy: answers the next request if it asks for
    /// that. `None`, and nothing has happened but perhaps a read, if it does not, or is not whole yet.
    pub fn look_after(&mut self, work: &mut WorkerContext) -> Option<Verdict> {
        if !matches!(self.state, State::ReadingHead) || !self.scanner.is_fresh() {
            return None;
        }
        let mut head = self.input.clone();
        head.reserve(work.shared.limits.head_size.min(STATUS_HEAD));
        // It stays in the socket for whoever reads it.
        let asks = match self.socket.peek_behind(&mut head) {
            Ok(Some(Moved::Bytes(_) | Moved::WouldBlock)) => work.asks_for_status(&head),
            Ok(Some(Moved::End)) | Err(_) => false,
            Ok(None) => {
                self.read_to_look();
                let asks = work.asks_for_status(&self.input);
                if !asks && !self.holds_its_share(&work.shared) {
                    return Some(self.verdict(Flow::Requeue, work));
                }
                asks
            }
        };
        asks.then(|| self.drive(work, &mut Turn::of_one_request(), true))
    }

    /// Where only a read tells what has come: reads as much as a question for the server's state can have, and keeps it
    /// for the next turn.
    fn read_to_look(&mut self) {
        let room = STATUS_HEAD.saturating_sub(self.input.len());
        if room > 0 {
            self.input.reserve_exact(room);
            // The end, or an error, is there for whoever reads next.
            let _ = self.socket.read_behind(&mut self.input);
            self.input.shrink_to_fit();
        }
    }

    /// Whether what it holds while it waits fits into the memory there is for that.
    fn holds_its_share(&mut self, shared: &Shared) -> bool {
        let bytes = self.held();
        Share::resize(&mut self.hold, &shared.budget, bytes)
    }

    /// Takes its part of the memory for what it came with from a predecessor, however little there is. Answers how much
    /// that is.
    pub fn bring_its_share(&mut self, shared: &Shared) -> usize {
        let bytes = self.held();
        self.hold = Share::overdraw(&shared.budget, bytes);
        bytes
    }

    /// Bytes that it holds while it waits.
    fn held(&self) -> usize {
        match self.input.capacity() + self.state.held() {
            0 => 0,
            bytes => bytes + ALLOCATIONS,
        }
    }

    /// There is no memory for it to wait in. A request that nobody has executed is told to come again.
    fn shed(&mut self, work: &mut WorkerContext) -> Flow {
        let answers = match &self.state {
            State::Writing(_) | State::Conversing(_) | State::Attached(_) | State::Awaiting(_) => true,
            State::Subscribed(subscribed) => !subscribed.subscription.form().poll,
            _ => false,
        };
        if answers {
            self.close(CloseReason::Memory, &work.shared, work.now);
            return Flow::Close(CloseReason::Memory);
        }
        // Dropping what an application pushes runs its code, and this is a thread where that may be.
        match self.give_up(Reject::Overloaded, &work.shared, work.now, work.date.field()) {
            Expiry::Close(reason) => Flow::Close(reason),
            Expiry::Enqueue | Expiry::HandOver => Flow::Requeue,
            Expiry::Park | Expiry::Deliver => Flow::Park,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // An application that keeps a request body beyond its response keeps the descriptor; not the connection.
        if Arc::strong_count(&self.socket) > 1 && !self.moved {
            self.socket.cut();
        }
    }
}

#[cfg(test)]
mod tests;
