//! One connection: the state machine a worker drives as far as it goes without waiting for the client.
//!
//! ```text
//! Head ──complete──▶ Body ──buffered──▶ (handler) ──▶ Writing ──done──▶ Head (keep-alive) │ Lingering ──▶ closed
//!   │ partial: park      │ partial: park     │            │ would block: park
//!   │                    │                   └─▶ Waiting ──────────▶ (stream)
//!   └─ limits ▶ 4xx      ├─ limits ▶ 4xx                                ▲
//!                        └─ outgrows its buffer: parked and collected ──┘
//! ```
//! What waits for its client while it runs, a handler that reads a large body or one that pushes, runs on a thread that
//! may ([`Role::Streamer`]); until one is free it waits parked, and a body goes on being collected meanwhile.
//!
//! A state owns what that moment needs and nothing else, so a parked idle connection has no buffer at all. The buffers
//! belong to the worker ([`WorkerContext`]) and are lent for a turn.

mod budget;
mod close_reason;
mod closing;
mod in_flight;
#[cfg(any(test, fuzzing))]
pub mod invariants;
mod pace;
mod parking;
mod snapshot;
pub mod socket;
pub mod stream;
mod turn;
mod workspace;
mod writing;

pub use budget::Budget;
pub use close_reason::CloseReason;
pub use closing::{Discarded, Expiry};
pub use in_flight::{Durations, InFlight, Unfinished};
pub use snapshot::{Restored, fresh};
pub use turn::Turn;
pub use workspace::{Role, Shared, Stats, WorkerContext, connection_buffers, worker_buffers};

use crate::api::{Body, IntoResponse, Kind, Request, RequestBody, Response, StreamFn};
use crate::clock::Millis;
use crate::config::Limits;
use crate::engine::slot::{self, Parking};
use crate::logging::rate_limit::log_rate_limited;
use budget::Share;
use http1::framing::{BodyFraming, body_framing, expects_continue};
use http1::head::{Scanner, is_blank};
use http1::response::{HeadOptions, ResponseFraming, encode_fields, finish_head, push_field};
use http1::{Reject, response};
use pace::Pace;
use socket::{Moved, Socket};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use stream::{BodySource, CONTINUE, Delimiter, Incoming, SharedBody, StreamWriter, body_deadline};
use tiny_http::{Method, StatusCode};
use writing::{After, Progress, ResponseBody, Writing};

/// Bytes of a body that are collected while it waits for a thread that may wait for its client.
const COLLECTED: usize = 1024 * 1024;
/// How many times `linger` a connection lingers at most while bytes keep coming.
const LINGERS: u32 = 10;
/// The longest head of a request for the server's state that is answered out of turn.
const STATUS_HEAD: usize = 4096;
/// What an allocator adds to the few pieces that a connection holds.
const ALLOCATIONS: usize = 64;
/// A body up to this size is copied behind its head and leaves in the same write.
const INLINE_BODY: u64 = 16 * 1024;

/// The place of a connection.
pub type Slot = slot::Slot<Connection>;

/// One connection.
pub struct Connection {
    socket: Arc<Socket>,
    peer: Option<SocketAddr>,
    served: u32,
    /// When the first byte of the current request arrived; until its response is out.
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
    /// because that runs the application's code.
    Refused { push: Box<Push>, reason: CloseReason, until: Millis, limit: Millis },
    /// A response waits for the client to read.
    Writing(Box<Writing>),
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
        }
    }
}

struct Collecting {
    request: Request,
    incoming: Incoming,
    body: Vec<u8>,
    since: Millis,
    limit: u64,
    declared: Option<u64>,
    expects_continue: bool,
    /// Since when it waits for a thread that may wait for its client: it is too large for a handler that finds it whole.
    waits: Option<Millis>,
    /// Whether it is read from meanwhile.
    collects: bool,
    /// Its part of the memory for bodies that are collected all the same while they wait.
    beyond: Option<Share>,
}

impl Collecting {
    /// Nothing is collected yet, and no thread is needed as far as is known.
    fn new(
        request: Request,
        incoming: Incoming,
        since: Millis,
        limit: u64,
        declared: Option<u64>,
        expects_continue: bool,
    ) -> Collecting {
        Collecting {
            request,
            incoming,
            body: Vec::new(),
            since,
            limit,
            declared,
            expects_continue,
            waits: None,
            collects: true,
            beyond: None,
        }
    }

    /// Whether more of a body can be kept. Who waits to be told to send it is told by the handler that reads it.
    fn may_collect(&mut self, shared: &Shared) -> bool {
        self.waits.is_none() || (!self.expects_continue && self.has_room(shared))
    }

    /// Room for all that can be collected of it, at once: bodies that each had a part of the room, and not enough, would
    /// wait for each other.
    fn has_room(&mut self, shared: &Shared) -> bool {
        let most = COLLECTED.max(self.body.len());
        let all = self.declared.and_then(|declared| usize::try_from(declared).ok()).unwrap_or(most).min(most);
        self.body.len() < COLLECTED && Share::resize(&mut self.beyond, &shared.collected, all)
    }

    /// When to give up on it, and why.
    fn deadline(&self, limits: &Limits) -> (Millis, Reject) {
        match self.waits {
            Some(since) if !self.collects => (since.after(limits.stream_wait), Reject::Overloaded),
            _ => {
                let received = self.body.len() as u64;
                (body_deadline(self.since, received, limits.body_timeout, limits.body_rate), Reject::BodyTimeout)
            }
        }
    }
}

/// A response that its handler pushes, its head already encoded.
struct Push {
    request: Request,
    head: Vec<u8>,
    pushed: Pushed,
    /// Since when it waits.
    since: Millis,
}

impl Push {
    fn held(&self) -> usize {
        let body = self.pushed.body.as_ref().map_or(0, SharedBody::held);
        size_of::<Push>() + self.request.held() + self.head.capacity() + body
    }
}

/// A pushed response behind its head.
struct Pushed {
    push: StreamFn,
    delimiter: Delimiter,
    keep_alive: bool,
    body: Option<SharedBody>,
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
    pub fn new(socket: Socket, peer: Option<SocketAddr>) -> Connection {
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
        Connection::new(Socket::new(one.into()), None)
    }

    /// The socket, to register and to deregister.
    pub fn socket(&self) -> &Socket {
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
        turn.look(hides_bytes || self.peer.is_none());
        work.load(&mut self.input);
        let flow = loop {
            let flow = match std::mem::replace(&mut self.state, State::ReadingHead) {
                State::ReadingHead => self.read_head(work, turn),
                State::ReadingBody(collecting) => self.read_body(work, turn, collecting),
                State::AwaitingPermit(push) => self.acquire_permit(work, turn, push),
                State::Writing(writing) => self.resume_write(work, turn, *writing),
                State::Lingering { reason, until, limit } => self.linger(work, turn, reason, until, limit),
                State::Refused { push, reason, until, limit } => {
                    drop(push);
                    self.linger(work, turn, reason, until, limit)
                }
            };
            if !matches!(flow, Flow::Continue) {
                break flow;
            }
        };
        work.save(&mut self.input);
        self.verdict(flow, work)
    }

    /// What a turn ends with, if there is memory to wait in.
    fn verdict(&mut self, flow: Flow, work: &mut WorkerContext) -> Verdict {
        let waits = !matches!(flow, Flow::Close(_));
        let flow = if waits && !self.holds_its_share(&work.shared) { self.shed(work) } else { flow };
        match flow {
            Flow::Park => Verdict::Park(self.parking(&work.shared, work.now)),
            Flow::Continue | Flow::Requeue => Verdict::Requeue { refusable: matches!(self.state, State::ReadingHead) },
            Flow::Close(reason) => Verdict::Close(reason),
        }
    }

    /// For the thread that says how the server is while every worker is busy: answers the next request if it asks for
    /// that. `None`, and nothing has happened, if it does not, or is not whole yet.
    pub fn look_after(&mut self, work: &mut WorkerContext) -> Option<Verdict> {
        if !matches!(self.state, State::ReadingHead) || !self.scanner.is_fresh() {
            return None;
        }
        let mut head = self.input.clone();
        head.reserve(work.shared.limits.head_size.min(STATUS_HEAD));
        // It stays in the socket for whoever reads it.
        let peeked = self.socket.peek_behind(&mut head);
        if !matches!(peeked, Ok(Moved::Bytes(_) | Moved::WouldBlock)) || !work.asks_for_status(&head) {
            return None;
        }
        Some(self.drive(work, &mut Turn::of_one_request(), true))
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
        if let State::Writing(_) = self.state {
            return Flow::Close(CloseReason::Memory);
        }
        // Dropping what an application pushes runs its code, and this is a thread where that may be.
        self.state = State::ReadingHead;
        match self.give_up(Reject::Overloaded, &work.shared, work.now, work.date.field()) {
            Expiry::Close(reason) => Flow::Close(reason),
            Expiry::Enqueue => Flow::Requeue,
            Expiry::Park => Flow::Park,
        }
    }

    /// Reads once. `None` means that the socket is drained for this turn.
    fn read(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>) -> Result<Option<usize>, CloseReason> {
        if turn.drained {
            return Ok(None);
        }
        let room = work.room();
        let asked = room.capacity() - room.len();
        match self.socket.read_behind(room) {
            Ok(Moved::Bytes(read)) => {
                // epoll(7): a short read has emptied the socket, and what comes later is a new edge; but a FIN that
                // was already there has had its edge, so after that only a read of nothing is the end. And a read
                // ends early at the mark of urgent data (tcp(7)), with more behind it.
                turn.drained = read < asked && !turn.hides_bytes;
                Ok(Some(read))
            }
            Ok(Moved::WouldBlock) => {
                turn.drained = true;
                Ok(None)
            }
            Ok(Moved::End) => Err(CloseReason::PeerClosed),
            Err(error) => Err(CloseReason::from_error(&error)),
        }
    }

    /// Head: find its end, or read on, or park.
    fn read_head(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>) -> Flow {
        let limits = work.shared.limits.head();
        loop {
            if !work.input().is_empty() {
                // Threads that may wait for clients are few, and for those that need them.
                if work.role == Role::Streamer || turn.is_over() {
                    return Flow::Requeue;
                }
                if self.scanner.is_fresh() && work.parse_ahead(self.peer) {
                    return self.dispatch(work, turn, Ok(()));
                }
                match self.scanner.scan(work.input(), &limits) {
                    Ok(Some(length)) => {
                        let parsed = work.parse(length, self.peer);
                        return self.dispatch(work, turn, parsed);
                    }
                    Ok(None) => {}
                    Err(reject) => {
                        let method = announced_method(work.input());
                        return self.refuse(work, turn, reject, &method);
                    }
                }
            }
            match self.read(work, turn) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(CloseReason::PeerClosed) if !is_blank(work.input()) => {
                    return close(CloseReason::PeerClosedInRequest);
                }
                Err(reason) => return close(reason),
            }
        }
        if !is_blank(work.input()) {
            self.begun.get_or_insert(work.now);
        }
        // A trickle keeps it from ever being parked when the acceptor looks.
        if self.begun.is_some_and(|begun| work.now >= begun.after(work.shared.limits.head_timeout)) {
            let method = announced_method(work.input());
            return self.refuse(work, turn, Reject::HeadTimeout, &method);
        }
        Flow::Park
    }

    /// A complete head: decide how its body comes.
    fn dispatch(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, parsed: Result<(), Reject>) -> Flow {
        turn.request();
        self.scanner = Scanner::default();
        let since = *self.begun.get_or_insert(work.now);
        let (framing, expects_continue) = match parsed.and_then(|()| expected_body(&work.request)) {
            Ok(decided) => decided,
            Err(reject) => {
                let method = work.request.method().clone();
                return self.refuse(work, turn, reject, &method);
            }
        };
        if framing == BodyFraming::None {
            return self.run(work, turn);
        }
        let limit = work.shared.body_limit(&work.request);
        let declared = match framing {
            BodyFraming::Length(length) => Some(length),
            BodyFraming::None | BodyFraming::Chunked => None,
        };
        if declared.is_some_and(|declared| declared > limit) {
            let method = work.request.method().clone();
            return self.refuse(work, turn, Reject::BodyTooLarge, &method);
        }
        let (request, incoming) = (work.take_request(), Incoming::new(framing));
        let collecting = Collecting::new(request, incoming, since, limit, declared, expects_continue);
        self.read_body(work, turn, Box::new(collecting))
    }

    /// Body: collect it, then call the handler. One that is larger than the buffer is for a handler that reads it while it
    /// arrives, on a thread that may wait for the client; until one is free it is collected all the same, as far as
    /// there is room.
    fn read_body(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, mut collecting: Box<Collecting>) -> Flow {
        loop {
            let mut complete = false;
            while !complete && !work.input().is_empty() {
                match collecting.incoming.take(work.input()) {
                    Ok((consumed, data, ended)) => {
                        grow(&mut collecting.body, data.len(), collecting.declared);
                        collecting.body.extend_from_slice(data);
                        complete = ended;
                        work.consume(consumed);
                    }
                    Err(reject) => return self.refuse(work, turn, reject, collecting.request.method()),
                }
            }
            if collecting.body.len() as u64 > collecting.limit {
                return self.refuse(work, turn, Reject::BodyTooLarge, collecting.request.method());
            }
            if complete {
                let body = std::mem::take(&mut collecting.body);
                let length = body.len() as u64;
                work.request = collecting.request;
                work.request.set_body(RequestBody::buffered(body), Some(length));
                return self.run(work, turn);
            }
            let size = collecting.declared.unwrap_or(collecting.body.len() as u64);
            if size > work.shared.limits.buffered_body as u64 {
                if work.role == Role::Streamer {
                    return self.stream_body(work, turn, *collecting);
                }
                collecting.waits.get_or_insert(work.now);
            }
            let waits = collecting.waits.is_some();
            collecting.collects = collecting.may_collect(&work.shared);
            if !waits && std::mem::take(&mut collecting.expects_continue) {
                // Answers to earlier requests are out by now. 25 bytes that do not fit mean that the client reads
                // nothing at all; it may send the body unasked (RFC 9110 §10.1.1), or run into its deadline.
                if let Err(error) = self.socket.send(CONTINUE, false) {
                    return close(CloseReason::from_error(&error));
                }
            }
            if collecting.collects && turn.is_over() {
                self.state = State::ReadingBody(collecting);
                return Flow::Requeue;
            }
            match if collecting.collects { self.read(work, turn) } else { Ok(None) } {
                Ok(Some(read)) => turn.moved(read as u64),
                Ok(None) => {
                    let (deadline, reject) = collecting.deadline(&work.shared.limits);
                    if work.now >= deadline {
                        return self.refuse(work, turn, reject, collecting.request.method());
                    }
                    collecting.request.shrink();
                    self.state = State::ReadingBody(collecting);
                    return Flow::Park;
                }
                Err(CloseReason::PeerClosed) => return close(CloseReason::PeerClosedInRequest),
                Err(reason) => return close(reason),
            }
        }
    }

    /// Calls a handler that reads its body while it arrives, on a thread that may wait for the client.
    fn stream_body(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, collecting: Collecting) -> Flow {
        let Collecting { request, incoming, body, limit, declared, expects_continue, .. } = collecting;
        let rest = work.take_input();
        // The time it waited for the thread is not the client's.
        let body = BodySource::new(self.socket.clone(), incoming, Millis::now(), limit, &work.shared.limits)
            .starting_with(body, rest)
            .expecting_continue(expects_continue);
        let body = SharedBody::from(body);
        work.request = request;
        work.request.set_body(RequestBody::streamed(body.clone()), declared);
        let response = self.run_handler(work);
        work.request.release_body();
        // If the body failed, what the handler made of that is less true than the reason itself.
        if let Some(reject) = body.failure() {
            drop(response);
            let method = work.request.method().clone();
            return self.refuse(work, turn, reject, &method);
        }
        self.start_response(work, turn, response, Some(body))
    }

    /// Calls the handler for a request whose body is complete.
    fn run(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>) -> Flow {
        let response = self.run_handler(work);
        self.start_response(work, turn, response, None)
    }

    fn run_handler(&mut self, work: &mut WorkerContext) -> Response {
        if let Some(response) = work.shared.own_route(&work.request, work.role == Role::Status) {
            return response;
        }
        work.begin_flight(&self.socket);
        // A handler that panics leaves its own data as its own locks say; ours it only had by `&mut Request`, which
        // the next parse overwrites.
        let response = catch_unwind(AssertUnwindSafe(|| work.shared.handler.handle(&mut work.request)));
        work.refresh_clock();
        response.unwrap_or_else(|panic| {
            work.shared.stats.panicked();
            let (method, url) = (work.request.method(), work.request.url());
            log_rate_limited!(error, "handler panicked: {} ({method} {url})", panic_text(&*panic));
            StatusCode(500).into_response()
        })
    }

    /// Encodes the head, and goes on to the body.
    fn start_response(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        response: Response,
        body: Option<SharedBody>,
    ) -> Flow {
        let status = response.status_code();
        let said = match encode_fields(&mut work.out, status, response.headers(), work.date.field()) {
            Ok(said) => said,
            Err(invalid) => {
                let (method, url) = (work.request.method(), work.request.url());
                log_rate_limited!(error, "the handler's response cannot be sent: {invalid} ({method} {url})");
                return self.start_response(work, turn, StatusCode(500).into_response(), body);
            }
        };
        let content: Body = response.into_reader();
        if let Some(content_type) = content.content_type.filter(|_| !said.content_type) {
            push_field(&mut work.out, b"Content-Type", content_type.as_bytes());
        }
        if let Some(fields) = &content.fields {
            work.out.extend_from_slice(fields);
        }
        let (head, _) = work.request.head();
        let (minor, is_head) = (head.minor, head.method == Method::Head);
        let framing = match (status.0, content.len(), minor) {
            (204 | 304, _, _) => ResponseFraming::None,
            // RFC 9110 §15.3.6: it has no content, and says so.
            (205, _, _) => ResponseFraming::Length(0),
            (_, Some(length), _) => ResponseFraming::Length(length),
            (_, None, 0) => ResponseFraming::Close,
            (_, None, _) => ResponseFraming::Chunked,
        };
        let keep_alive = head.keep_alive
            && !content.close
            && framing != ResponseFraming::Close
            && work.shared.keeps_connections()
            && !self.last
            && work.shared.limits.requests.is_none_or(|most| self.served + 1 < most.get())
            // A body that was not read, and that nobody can read any more, stands in the way of the next request.
            && body.as_ref().is_none_or(|body| body.is_finished() || body.is_shared());
        finish_head(&mut work.out, &HeadOptions { framing, keep_alive, client_minor: minor });
        if is_head || status.0 == 205 || framing == ResponseFraming::None {
            return self.finish_head(work, turn, ResponseBody::None, keep_alive, body);
        }
        let delimiter = match framing {
            ResponseFraming::Length(length) => Delimiter::Length(length),
            ResponseFraming::Chunked => Delimiter::Chunks,
            ResponseFraming::None | ResponseFraming::Close => Delimiter::EndOfConnection,
        };
        let source = match content.kind {
            Kind::Stream(push) => {
                return self.stream_or_wait(work, turn, Pushed { push, delimiter, keep_alive, body });
            }
            // A reader over a request body that is still coming waits for the client: it is bound like a push.
            Kind::Reader { mut reader, length } if body.as_ref().is_some_and(SharedBody::is_shared) => {
                let push: StreamFn = Box::new(move |writer| {
                    let mut bounded = (&mut reader).take(length.unwrap_or(u64::MAX));
                    io::copy(&mut bounded, writer).map(drop)
                });
                return self.stream_or_wait(work, turn, Pushed { push, delimiter, keep_alive, body });
            }
            Kind::Bytes { bytes, at } if (bytes.len() - at) as u64 <= INLINE_BODY => {
                work.out.extend_from_slice(&bytes[at..]);
                ResponseBody::None
            }
            Kind::Bytes { bytes, at } => ResponseBody::Bytes { bytes, at },
            Kind::File { file, offset, end } => ResponseBody::file(file, offset, end),
            Kind::Reader { reader, length } => ResponseBody::Reader { reader, left: length, delimiter, ended: false },
        };
        self.finish_head(work, turn, source, keep_alive, body)
    }

    /// Pushes at once where a thread may wait for the client; else parks with the encoded head until one is free.
    fn stream_or_wait(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, pushed: Pushed) -> Flow {
        if work.role == Role::Streamer {
            return self.run_stream(work, turn, pushed);
        }
        let head = std::mem::take(&mut work.out);
        let mut request = work.take_request();
        request.shrink();
        self.state = State::AwaitingPermit(Box::new(Push { request, head, pushed, since: work.now }));
        Flow::Park
    }

    /// A response to push has got its thread.
    fn acquire_permit(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, push: Box<Push>) -> Flow {
        let Push { request, head, pushed, .. } = *push;
        work.request = request;
        work.out.extend_from_slice(&head);
        self.stream_or_wait(work, turn, pushed)
    }

    /// Runs a handler that pushes, on this thread, until it has ended.
    fn run_stream(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, pushed: Pushed) -> Flow {
        let Pushed { push, delimiter, keep_alive, body } = pushed;
        work.begin_flight(&self.socket);
        let pace = Pace::of(&work.shared.limits);
        let mut writer = StreamWriter::new(&self.socket, &mut work.out, delimiter, pace);
        let outcome = catch_unwind(AssertUnwindSafe(|| push(&mut writer)));
        let sent = match outcome {
            Ok(pushed) => pushed.and_then(|()| writer.end()),
            Err(panic) => {
                work.shared.stats.panicked();
                let (method, url) = (work.request.method(), work.request.url());
                log_rate_limited!(error, "handler panicked while pushing: {} ({method} {url})", panic_text(&*panic));
                Err(io::Error::other("handler panicked"))
            }
        };
        work.refresh_clock();
        work.out.clear();
        match sent {
            Ok(()) => self.finish_head(work, turn, ResponseBody::None, keep_alive, body),
            Err(error) => {
                log::debug!("pushed response ended early: {error}");
                match CloseReason::from_error(&error) {
                    CloseReason::WriteTimeout => self.too_slow(),
                    reason => close(reason),
                }
            }
        }
    }

    /// The head is in the worker's buffer: writes it and the rest, and decides what comes after it.
    fn finish_head(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        source: ResponseBody,
        keep_alive: bool,
        body: Option<SharedBody>,
    ) -> Flow {
        let rest = match body {
            None => Some(Vec::new()),
            Some(body) => body.into_rest(),
        };
        let after = match rest {
            Some(rest) if keep_alive => {
                work.put_back(rest);
                After::Head
            }
            // The client itself asked for the end and has sent nothing more: closing cannot reset anything.
            Some(rest) if rest.is_empty() && work.input().is_empty() && !work.request.head().0.keep_alive => {
                After::Close(CloseReason::Finished)
            }
            _ => After::Linger(CloseReason::Finished),
        };
        self.write(work, turn, Writing::new(source, after))
    }

    /// Answers a refused request, and closes so that the client gets to read the answer.
    fn refuse(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, reject: Reject, method: &Method) -> Flow {
        log::debug!("refused: {reject} ({})", reject.status());
        work.shared.stats.refused();
        let start = work.out.len();
        // RFC 9110 §15.5.6: what this target allows. TRACE is refused when the whole head has been read.
        let traced = reject == Reject::MethodNotAllowed && *method == Method::Trace;
        let allow = if traced { work.shared.allow(&work.request) } else { None };
        let own = allow.as_ref().map(|allow| [("Allow", allow.as_str())]);
        let fields = own.as_ref().map_or(reject.fields(), |own| own);
        response::encode_plain(&mut work.out, reject.status(), reject.name(), fields, work.date.field());
        if *method == Method::Head {
            // RFC 9110 §9.3.2: no content, whatever the status.
            let head = work.out[start..].windows(4).position(|window| window == b"\r\n\r\n");
            work.out.truncate(head.map_or(work.out.len(), |head| start + head + 4));
        }
        self.write(work, turn, Writing::new(ResponseBody::None, After::Linger(CloseReason::Refused(reject))))
    }

    /// Goes on with a response that had to wait.
    fn resume_write(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, mut writing: Writing) -> Flow {
        work.out.append(&mut writing.unsent);
        if writing.expired {
            return self.too_slow();
        }
        work.resume_flight(&self.socket, &writing.line, self.begun.unwrap_or(work.now));
        self.write(work, turn, writing)
    }

    fn too_slow(&self) -> Flow {
        self.socket.reset_on_close();
        close(CloseReason::WriteTimeout)
    }

    fn write(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, mut writing: Writing) -> Flow {
        let mut sent = 0;
        let progress = writing.advance(&self.socket, &mut work.out, &mut work.scratch, turn, &mut sent);
        writing.window.handed(sent);
        work.end_flight();
        match progress {
            Progress::Done => {}
            Progress::Failed(reason) => {
                work.out.clear();
                return close(reason);
            }
            Progress::TurnOver => {
                self.suspend(work, writing);
                return Flow::Requeue;
            }
            Progress::Blocked => {
                let (now, pace) = (work.refresh_clock(), Pace::of(&work.shared.limits));
                if writing.window.wait(now, pace, || self.socket.unsent().unwrap_or(0)).is_none() {
                    work.out.clear();
                    return self.too_slow();
                }
                self.suspend(work, writing);
                return Flow::Park;
            }
        }
        self.begun = None;
        self.served += 1;
        if !matches!(writing.after, After::Linger(CloseReason::Refused(_))) {
            work.shared.stats.served(work.index);
        }
        match writing.after {
            After::Head => Flow::Continue,
            After::Close(reason) if !self.has_unread() => close(reason),
            After::Close(reason) | After::Linger(reason) => {
                self.socket.finish();
                work.clear_input();
                self.state = lingering(reason, &work.shared.limits, work.now);
                Flow::Continue
            }
        }
    }

    /// Keeps a response that is not out for a later turn.
    fn suspend(&mut self, work: &mut WorkerContext, mut writing: Writing) {
        writing.unsent = std::mem::take(&mut work.out);
        writing.unsent.shrink_to_fit();
        if writing.line.is_empty() {
            writing.line = format!("{} {:.200}", work.request.method(), work.request.url());
        }
        self.state = State::Writing(Box::new(writing));
    }

    /// Lingering: throws away what comes, until the client closes too or the time is up (RFC 9112 §9.6). While bytes
    /// still come, the client may not have looked for the answer yet.
    fn linger(
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
                    self.state = State::Lingering { reason, until, limit };
                    return Flow::Park;
                }
                Err(_) => return close(reason),
            }
        }
        if work.refresh_clock() >= until {
            return close(reason);
        }
        self.state = State::Lingering { reason, until, limit };
        Flow::Requeue
    }
}

/// How the body comes, and whether the client waits to be told to send it.
fn expected_body(request: &Request) -> Result<(BodyFraming, bool), Reject> {
    let (head, bytes) = request.head();
    // RFC 9110 §9.3.8: TRACE echoes what may hold secrets, so it is off.
    if head.method == Method::Trace {
        return Err(Reject::MethodNotAllowed);
    }
    Ok((body_framing(head, bytes)?, expects_continue(head, bytes)?))
}

/// Makes room in a body: twice as much each time, and not more than what was declared.
fn grow(body: &mut Vec<u8>, more: usize, declared: Option<u64>) {
    let needed = body.len() + more;
    if needed > body.capacity() {
        let most = declared.and_then(|declared| usize::try_from(declared).ok()).unwrap_or(usize::MAX);
        body.reserve_exact((2 * body.capacity()).min(most).max(needed) - body.len());
    }
}

/// Whether it is HEAD, whose answers have no content (RFC 9110 §9.3.2), is known before the head is complete.
fn announced_method(head: &[u8]) -> Method {
    match head.strip_prefix(b"\r\n").unwrap_or(head).starts_with(b"HEAD ") {
        true => Method::Head,
        false => Method::Get,
    }
}

fn lingering(reason: CloseReason, limits: &Limits, now: Millis) -> State {
    State::Lingering { reason, until: now.after(limits.linger), limit: now.after(limits.linger * LINGERS) }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // An application that keeps a request body beyond its response keeps the descriptor; not the connection.
        if Arc::strong_count(&self.socket) > 1 && !self.moved {
            self.socket.cut();
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests;
