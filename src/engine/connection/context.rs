//! What a worker lends to the connection whose turn it is.

use super::close_reason::CloseReason;
use super::exchange::{Answer, End, Ended, Exchange};
use super::in_flight::InFlight;
use super::shared::Shared;
use super::transport::Transport;
use crate::api::Request;
use crate::clock::{DateCache, Millis};
use crate::config::Limits;
use http1::Reject;
use pubsub::Joined;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// A body up to this size is copied behind its head and leaves in the same write.
pub(super) const INLINE_BODY: u64 = 16 * 1024;
/// Bytes that a `Reader` body is read by.
pub(super) const SCRATCH: usize = 16 * 1024;
/// Room for reading behind the largest head.
const READ_ROOM: usize = 16 * 1024;

/// Bytes that a worker's buffers take: the input, the request that was read from it, what a reader gives, and a
/// response with a body small enough to be copied behind its head.
pub const fn worker_buffers(limits: &Limits) -> usize {
    limits.head_size + READ_ROOM + limits.head_size + SCRATCH + INLINE_BODY as usize
}

/// Bytes that a parked connection can hold at the most: a request with its buffered body, and what came behind it.
/// A response in memory waits instead of a body, not beside it.
pub const fn connection_buffers(limits: &Limits) -> usize {
    limits.head_size + limits.buffered_body + limits.head_size + READ_ROOM
}

/// What a thread is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Drives connections, and never waits for a client.
    Worker,
    /// For what waits for its client while it runs: a handler that reads a large body, and one that pushes.
    Streamer,
    /// Answers for the server's state while every worker is busy, and nothing else.
    Status,
}

/// A worker's buffers, lent for a turn.
pub struct WorkerContext {
    pub shared: Arc<Shared>,
    pub role: Role,
    pub index: usize,
    pub now: Millis,
    /// Of the connection whose turn it is.
    pub token: usize,
    pub(super) peer: Option<SocketAddr>,
    pub(super) date: DateCache,
    pub(super) request: Request,
    /// What is dealt with, unless it is in flight, and how far its answer is.
    exchange: Option<Exchange>,
    pub(super) answer: Answer,
    pub(super) out: Vec<u8>,
    /// For readers; made when the first one is met.
    pub(super) scratch: Vec<u8>,
    /// What was last sent to a subscriber, mostly the same for the next.
    pub(super) joined: Joined,
    /// For clients of WebSockets that want it; made when the first one is met.
    #[cfg(feature = "deflate")]
    pub(super) deflater: Option<websocket::Deflater>,
    pub(super) in_flight: Arc<InFlight>,
    /// What was read, of which what is before `start` is done with. Its room is touched only as far as it was used.
    input: Vec<u8>,
    start: usize,
    /// Whether `in_flight` says something.
    flying: bool,
    /// When the turn began; and when the request did that is dealt with, if that was in this turn and somebody wants to know.
    turn_began: Millis,
    exact: Option<Instant>,
}

impl WorkerContext {
    pub fn new(shared: Arc<Shared>, role: Role, index: usize, in_flight: Arc<InFlight>) -> WorkerContext {
        let room = shared.limits.head_size + READ_ROOM;
        WorkerContext {
            shared,
            role,
            index,
            now: Millis::now(),
            token: 0,
            peer: None,
            date: DateCache::new(),
            request: Request::empty(),
            exchange: None,
            answer: Answer::default(),
            out: Vec::new(),
            scratch: Vec::new(),
            joined: Joined::default(),
            #[cfg(feature = "deflate")]
            deflater: None,
            in_flight,
            input: Vec::with_capacity(room),
            start: 0,
            flying: false,
            turn_began: Millis::default(),
            exact: None,
        }
    }

    /// Begins a turn, or a look in the same turn.
    pub fn begin_turn(&mut self) {
        self.turn_began = self.refresh_clock();
    }

    /// Ends it.
    pub fn end_turn(&mut self) {
        // What has no end yet was left behind by a panic.
        self.end_exchange(End::Closed(CloseReason::Internal));
    }

    /// A request begins to be dealt with, of which that is the first byte's time.
    pub(super) fn begin_exchange(&mut self, began: Millis) {
        debug_assert!(self.exchange.is_none() && !self.flying, "one after the other");
        (self.exchange, self.answer) = (Some(Exchange::new(began)), Answer::default());
        self.exact = (began >= self.turn_began && self.shared.is_measured()).then(Instant::now);
    }

    /// Its head is complete, and if it is right it is that of the request.
    pub(super) fn head_ended(&mut self, right: bool) {
        if let Some(exchange) = &mut self.exchange {
            exchange.head_ended(self.now);
            if right {
                exchange.understood(&self.request);
            }
        }
    }

    /// Its handler begins.
    pub(super) fn handler_begins(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.handler_begins(self.now);
        }
    }

    /// One that waited goes on. There is none if it was cut while it waited.
    pub(super) fn resume_exchange(&mut self, exchange: Option<Exchange>, answer: Answer) {
        debug_assert!(self.exchange.is_none(), "one after the other");
        (self.exchange, self.answer) = (exchange, answer);
    }

    /// So many messages are on their way to the subscriber of that answer.
    pub(super) fn delivers(&self, answer: &mut Answer, messages: usize) {
        answer.delivers(messages);
        self.shared.stats.delivered(Some(self.index), messages as u64);
    }

    /// It has to wait. There is none if it was cut in its flight.
    pub(super) fn put_off_exchange(&mut self) -> Option<Exchange> {
        self.end_flight();
        self.exact = None;
        self.exchange.take()
    }

    /// The same for one that goes on without its request, of which it keeps what is said of it.
    pub(super) fn put_off_without_request(&mut self) -> Option<Exchange> {
        let mut exchange = self.put_off_exchange()?;
        exchange.keep_line_of(&self.request, self.shared.request_log.is_some());
        Some(exchange)
    }

    /// It has ended, unless it was cut in its flight.
    pub(super) fn end_exchange(&mut self, end: End) {
        self.end_flight();
        if let Some(exchange) = self.exchange.take() {
            let (peer, answer, request, at) = (self.peer, self.answer, Some(&self.request), self.now);
            // What has begun and ended in one turn is known better than the clock of deadlines tells.
            let took = self.exact.take().map_or_else(|| exchange.age(at), |began| began.elapsed());
            self.shared.end(&Ended { exchange, peer, answer, request, end, at, took }, Some(self.index));
        }
    }

    /// The handler begins, and may be cut from here on.
    pub(super) fn begin_flight(&mut self, socket: &Arc<Transport>) {
        self.in_flight.begin((socket, self.peer), self.exchange.take(), self.answer, &self.request, self.now, true);
        self.flying = true;
    }

    /// A response of an earlier turn goes on, of a request that began then.
    pub(super) fn resume_flight(&mut self, socket: &Arc<Transport>, since: Millis) {
        self.in_flight.begin((socket, self.peer), self.exchange.take(), self.answer, &self.request, since, false);
        self.flying = true;
    }

    /// The response is out, or waits.
    pub(super) fn end_flight(&mut self) {
        if std::mem::take(&mut self.flying) {
            self.exchange = self.in_flight.end(&self.shared.durations);
        }
    }

    pub(super) fn refresh_clock(&mut self) -> Millis {
        self.now = Millis::now();
        self.now
    }

    pub(super) fn load(&mut self, saved: &mut Vec<u8>) {
        self.out.clear();
        self.clear_input();
        let room = self.shared.limits.head_size + READ_ROOM;
        if self.input.capacity() > 2 * room {
            // What came behind a streamed body can be longer.
            self.input = Vec::with_capacity(room);
        }
        self.input.append(saved);
        *saved = Vec::new();
    }

    pub(super) fn save(&mut self, saved: &mut Vec<u8>) {
        *saved = self.take_input();
    }

    pub(super) fn input(&self) -> &[u8] {
        &self.input[self.start..]
    }

    pub(super) fn take_input(&mut self) -> Vec<u8> {
        let taken = self.input().to_vec();
        self.clear_input();
        taken
    }

    pub(super) fn clear_input(&mut self) {
        self.input.clear();
        self.start = 0;
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start == self.input.len() {
            self.clear_input();
        }
    }

    /// Puts bytes in front of the input again.
    pub(super) fn put_back(&mut self, mut bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        bytes.extend_from_slice(self.input());
        self.load_input(bytes);
    }

    fn load_input(&mut self, mut bytes: Vec<u8>) {
        let out = std::mem::take(&mut self.out);
        self.load(&mut bytes);
        self.out = out;
    }

    /// Where to read the next bytes to: behind what is there, with room for at least one.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        if self.input.len() == self.input.capacity() {
            self.input.drain(..self.start);
            self.start = 0;
        }
        if self.input.len() == self.input.capacity() {
            // Only leftovers behind a streamed body fill the whole buffer.
            self.input.reserve(READ_ROOM);
        }
        &mut self.input
    }

    /// Reads the head that stands in front of the input, and consumes it.
    pub(super) fn parse(&mut self, length: usize, peer: Option<SocketAddr>) -> Result<(), Reject> {
        let head = &self.input[self.start..self.start + length];
        let parsed = self.request.parse(head, &self.shared.limits.head(), peer);
        self.consume(length);
        parsed
    }

    /// The same without knowing where it ends. Answers whether it was whole and right; if not, nothing has happened.
    pub(super) fn parse_ahead(&mut self, peer: Option<SocketAddr>) -> bool {
        let parsed = self.request.parse_ahead(&self.input[self.start..], &self.shared.limits.head(), peer);
        parsed.inspect(|length| self.consume(*length)).is_some()
    }

    /// Whether what stands there begins with a whole request for the server's state.
    pub(super) fn asks_for_status(&mut self, head: &[u8]) -> bool {
        let limits = self.shared.limits.head();
        let whole = self.request.parse_ahead(head, &limits, None).is_some();
        whole && self.shared.is_status_route(self.request.path_bytes())
    }

    pub(super) fn take_request(&mut self) -> Request {
        std::mem::replace(&mut self.request, Request::empty())
    }
}
