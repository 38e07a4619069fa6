//! What a client sends: the head of a request, and a body that is collected.

use super::budget::Share;
use super::close_reason::CloseReason;
use super::context::Role;
use super::context::WorkerContext;
use super::exchange::{Answer, Exchange};
use super::shared::Shared;
use super::stream::{CONTINUE, Incoming, body_deadline};
use super::transport::Moved;
use super::turn::Turn;
use super::{Connection, Flow, close};
use crate::api::{Request, RequestBody};
use crate::clock::Millis;
use crate::config::Limits;
use http1::Reject;
use http1::head::is_blank;
use tiny_http::Method;

/// Bytes of a body that are collected while it waits for a thread that may wait for its client.
const COLLECTED: usize = 1024 * 1024;

/// A body on its way. Request and exchange are the worker's during a turn, and here while it waits.
pub(super) struct Collecting {
    pub(super) request: Request,
    pub(super) exchange: Option<Exchange>,
    pub(super) incoming: Incoming,
    pub(super) body: Vec<u8>,
    pub(super) since: Millis,
    pub(super) limit: u64,
    pub(super) declared: Option<u64>,
    pub(super) expects_continue: bool,
    /// Since when it waits for a thread that may wait for its client: it is too large for a handler that finds it whole.
    pub(super) waits: Option<Millis>,
    /// Whether it is read from meanwhile.
    pub(super) collects: bool,
    /// Its part of the memory for bodies that are collected all the same while they wait.
    pub(super) beyond: Option<Share>,
}

impl Collecting {
    /// Nothing is collected yet, and no thread is needed as far as is known.
    pub(super) fn new(
        incoming: Incoming,
        since: Millis,
        limit: u64,
        declared: Option<u64>,
        expects_continue: bool,
    ) -> Collecting {
        Collecting {
            request: Request::empty(),
            exchange: None,
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
    pub(super) fn may_collect(&mut self, shared: &Shared) -> bool {
        self.waits.is_none() || (!self.expects_continue && self.has_room(shared))
    }

    /// Room for all that can be collected of it, at once: bodies that each had a part of the room, and not enough, would
    /// wait for each other.
    pub(super) fn has_room(&mut self, shared: &Shared) -> bool {
        let most = COLLECTED.max(self.body.len());
        let all = self.declared.and_then(|declared| usize::try_from(declared).ok()).unwrap_or(most).min(most);
        self.body.len() < COLLECTED && Share::resize(&mut self.beyond, &shared.collected, all)
    }

    /// When to give up on it, and why.
    pub(super) fn deadline(&self, limits: &Limits) -> (Millis, Reject) {
        match self.waits {
            Some(since) if !self.collects => (since.after(limits.stream_wait), Reject::Overloaded),
            _ => {
                let received = self.body.len() as u64;
                (body_deadline(self.since, received, limits.body_timeout, limits.body_rate), Reject::BodyTimeout)
            }
        }
    }
}

impl Connection {
    /// Reads once. `None` means that the socket is drained for this turn.
    pub(super) fn read(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>) -> Result<Option<usize>, CloseReason> {
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
    pub(super) fn read_head(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>) -> Flow {
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
                    Err(reject) => return self.refuse_head(work, turn, reject),
                }
            }
            match self.read(work, turn) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(reason) if is_blank(work.input()) => return close(reason),
                Err(reason) => {
                    work.begin_exchange(self.begun.unwrap_or(work.now));
                    return close(reason.in_request());
                }
            }
        }
        if !is_blank(work.input()) {
            self.begun.get_or_insert(work.now);
        }
        // A trickle keeps it from ever being parked when the acceptor looks.
        if self.begun.is_some_and(|begun| work.now >= begun.after(work.shared.limits.head_timeout)) {
            return self.refuse_head(work, turn, Reject::HeadTimeout);
        }
        Flow::Park
    }

    /// Refuses a request of which no head can be read.
    fn refuse_head(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, reject: Reject) -> Flow {
        work.begin_exchange(self.begun.unwrap_or(work.now));
        let method = announced_method(work.input());
        self.refuse(work, turn, reject, &method)
    }

    /// Goes on with a body that waited.
    pub(super) fn resume_body(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        mut collecting: Box<Collecting>,
    ) -> Flow {
        work.request = std::mem::replace(&mut collecting.request, Request::empty());
        work.resume_exchange(collecting.exchange.take(), Answer::default());
        self.read_body(work, turn, collecting)
    }

    /// Body: collect it, then call the handler. One that is larger than the buffer is for a handler that reads it while it
    /// arrives, on a thread that may wait for the client; until one is free it is collected all the same, as far as
    /// there is room.
    pub(super) fn read_body(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        mut collecting: Box<Collecting>,
    ) -> Flow {
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
                    Err(reject) => return self.refuse_it(work, turn, reject),
                }
            }
            if collecting.body.len() as u64 > collecting.limit {
                return self.refuse_it(work, turn, Reject::BodyTooLarge);
            }
            if complete {
                let body = std::mem::take(&mut collecting.body);
                let length = body.len() as u64;
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
                self.wait_for_body(work, collecting);
                return Flow::Requeue;
            }
            match if collecting.collects { self.read(work, turn) } else { Ok(None) } {
                Ok(Some(read)) => turn.moved(read as u64),
                Ok(None) => {
                    let (deadline, reject) = collecting.deadline(&work.shared.limits);
                    if work.now >= deadline {
                        return self.refuse_it(work, turn, reject);
                    }
                    work.request.shrink();
                    self.wait_for_body(work, collecting);
                    return Flow::Park;
                }
                Err(reason) => return close(reason.in_request()),
            }
        }
    }
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
