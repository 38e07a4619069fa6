//! What a worker lends to the connection whose turn it is, and what all connections share.

use super::budget::Budget;
use super::in_flight::{Durations, InFlight, Unfinished};
use super::socket::Socket;
use crate::api::{Handler, IntoResponse, READ_ONLY, Request, Response, known_header, refuse_unless_read};
use crate::clock::{DateCache, Millis};
use crate::config::Limits;
use crate::lifecycle::Phase;
use http1::Reject;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that a `Reader` body is read by.
pub(super) const SCRATCH: usize = 16 * 1024;
/// Room for reading behind the largest head.
const READ_ROOM: usize = 16 * 1024;

/// Bytes that a worker's buffers take: the input, the request that was read from it, what a reader gives, and a
/// response with a body small enough to be copied behind its head.
pub const fn worker_buffers(limits: &Limits) -> usize {
    limits.head_size + READ_ROOM + limits.head_size + SCRATCH + super::INLINE_BODY as usize
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
    pub(super) date: DateCache,
    pub(super) request: Request,
    pub(super) out: Vec<u8>,
    /// For readers; made when the first one is met.
    pub(super) scratch: Vec<u8>,
    in_flight: Arc<InFlight>,
    /// What was read, of which what is before `start` is done with. Its room is touched only as far as it was used.
    input: Vec<u8>,
    start: usize,
    /// Whether `in_flight` says something.
    flying: bool,
}

impl WorkerContext {
    pub fn new(shared: Arc<Shared>, role: Role, index: usize, in_flight: Arc<InFlight>) -> WorkerContext {
        let room = shared.limits.head_size + READ_ROOM;
        WorkerContext {
            shared,
            role,
            index,
            now: Millis::now(),
            date: DateCache::new(),
            request: Request::empty(),
            out: Vec::new(),
            scratch: Vec::new(),
            in_flight,
            input: Vec::with_capacity(room),
            start: 0,
            flying: false,
        }
    }

    /// Begins a turn, or a look in the same turn.
    pub fn begin_turn(&mut self) {
        self.refresh_clock();
    }

    /// Ends it.
    pub fn end_turn(&mut self) {
        self.end_flight();
    }

    /// The request is in its handler from here on.
    pub(super) fn begin_flight(&mut self, socket: &Arc<Socket>) {
        self.in_flight.begin(socket, self.request.line_bytes(), self.now, true);
        self.flying = true;
    }

    /// A response of an earlier turn goes on.
    pub(super) fn resume_flight(&mut self, socket: &Arc<Socket>, line: &str, since: Millis) {
        self.in_flight.begin(socket, line.as_bytes(), since, false);
        self.flying = true;
    }

    /// The response is out, or waits.
    pub(super) fn end_flight(&mut self) {
        if std::mem::take(&mut self.flying) {
            self.in_flight.end(&self.shared.durations);
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

/// What all connections share.
pub struct Shared {
    pub limits: Limits,
    pub handler: Box<dyn Handler>,
    pub status_routes: bool,
    pub phase: Phase,
    pub stats: Stats,
    /// What each thread executes, by its index.
    pub in_flight: Vec<Arc<InFlight>>,
    pub durations: Durations,
    /// What parked connections may hold together.
    pub budget: Arc<Budget>,
    /// What bodies may hold together that are collected while they wait for a thread: part of it, if there is a limit.
    pub collected: Arc<Budget>,
}

impl Shared {
    /// Whether every response now says `Connection: close`.
    pub fn is_draining(&self) -> bool {
        self.phase.is_draining()
    }

    /// Whether a connection may have another request.
    pub fn keeps_connections(&self) -> bool {
        self.phase.keeps_connections()
    }

    /// A request was cut by a deadline.
    pub fn cut(&self, cut: &Unfinished) {
        self.stats.cut();
        log::warn!("cut {} after {:.1} s", cut.what, cut.age.as_secs_f64());
    }

    pub(super) fn body_limit(&self, head: &Request) -> u64 {
        self.handler.body_limit(head).unwrap_or(self.limits.body_size)
    }

    /// What Allow says where TRACE is refused, if that is known.
    pub(super) fn allow(&self, head: &Request) -> Option<String> {
        match self.is_status_route(head.path_bytes()) {
            true => Some(READ_ONLY.to_owned()),
            false => self.handler.allow(head),
        }
    }

    fn is_status_route(&self, path: &[u8]) -> bool {
        self.status_routes && matches!(path, b"/-/healthy" | b"/-/ready")
    }

    /// What the server answers itself: `OPTIONS *`, and its state for load balancers and supervisors.
    ///
    /// `stuck`: every worker is busy, and has been for a while.
    pub(super) fn own_route(&self, request: &Request, stuck: bool) -> Option<Response> {
        let path = request.path_bytes();
        if path == b"*" {
            return Some(().into_response());
        }
        if !self.is_status_route(path) {
            return None;
        }
        let (status, text) = match path {
            b"/-/healthy" => (200, "healthy\n"),
            b"/-/ready" if !self.phase.is_ready() => (503, "stopping\n"),
            _ if stuck => (503, "busy\n"),
            _ => (200, "ready\n"),
        };
        let answer = || {
            let no_store = known_header("Cache-Control", "no-store");
            text.into_response().with_status_code(status).with_header(no_store)
        };
        Some(refuse_unless_read(request.method()).unwrap_or_else(answer))
    }
}

/// Counters. One cell a worker, so that counting a request is never contended.
pub struct Stats {
    served: Box<[AtomicUsize]>,
    refused: AtomicUsize,
    panicked: AtomicUsize,
    accepted: AtomicUsize,
    cut: AtomicUsize,
    migrated: AtomicUsize,
}

impl Stats {
    pub fn new(workers: usize) -> Stats {
        // 16 words apart: 128 bytes on 64 bits, which is two cache lines, as the prefetcher takes them.
        Stats {
            served: (0..workers * 16).map(|_| AtomicUsize::new(0)).collect(),
            refused: AtomicUsize::new(0),
            panicked: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            migrated: AtomicUsize::new(0),
        }
    }

    pub(super) fn served(&self, worker: usize) {
        // Only that worker writes it, so nothing is lost between the two.
        let cell = &self.served[worker * 16];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// A request was refused by the server itself.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn panicked(&self) {
        self.panicked.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was accepted.
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection has moved to the successor.
    pub fn migrated(&self) {
        self.migrated.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that this process has moved to its successor.
    pub fn total_migrated(&self) -> usize {
        self.migrated.load(Ordering::Relaxed)
    }

    /// A request was cut.
    pub fn cut(&self) {
        self.cut.fetch_add(1, Ordering::Relaxed);
    }

    /// The predecessor has cut that many.
    pub fn cut_before(&self, requests: usize) {
        self.cut.fetch_add(requests, Ordering::Relaxed);
    }

    /// Requests that the stop deadline has cut.
    pub fn total_cut(&self) -> usize {
        self.cut.load(Ordering::Relaxed)
    }

    /// Requests answered by this process, the refused ones among them.
    pub fn total_served(&self) -> usize {
        self.served.iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }

    /// Requests that the server refused by itself: 4xx and 503.
    pub fn total_refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Handlers of this process that panicked.
    pub fn total_panicked(&self) -> usize {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Connections accepted by this process.
    pub fn total_accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}
