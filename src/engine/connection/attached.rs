//! A response that has the frames of a session of SockJS: a poll, which ends behind the first, or a stream, which ends at its
//! limit. It waits for what the session has for it, and goes on as the next request's connection when it ends.
//!
//! The session says what to write and when to end ([`Session::next`]), and hears what has become of it: written, or lost with
//! the connection, wherever that ends. What the client sends meanwhile stays in the socket.

use super::close_reason::CloseReason;
use super::closing::Expiry;
use super::context::WorkerContext;
use super::exchange::{Answer, End, Exchange};
use super::pace::{Pace, Window};
use super::respond::remove_date;
use super::shared::Shared;
use super::stream::SharedBody;
use super::subscribed::Blocked;
use super::transport::Moved;
use super::turn::Turn;
use super::{Connection, Flow, State, close};
use crate::api::{Attach, Session, Sessions};
use crate::clock::{DateCache, Millis};
use crate::lifecycle::state::SavedAttached;
use http1::response::{HeadOptions, LAST_CHUNK, ResponseFraming, finish_head, push_chunk_size};
use pubsub::Joined;
use sockjs::Write;
use std::sync::Arc;

/// A connection of a session as it waits.
pub(super) struct Attached {
    session: Arc<Session>,
    /// Its name there.
    receiver: u64,
    /// While it is not in a worker's hands, unless it was cut.
    pub(super) exchange: Option<Exchange>,
    pub(super) answer: Answer,
    /// What its client has to take before anything else.
    pub(super) blocked: Option<Box<Blocked>>,
    /// The response ends behind that.
    ends: bool,
    /// The head, as far as it is known, until it is sent.
    head: Box<[u8]>,
    poll: bool,
    /// Whether the connection may live on behind it.
    keep_alive: bool,
    /// The minor version that the client speaks.
    minor: u8,
}

impl Attached {
    /// Bytes that it keeps on the heap, itself included. What the session keeps is its own.
    pub(super) fn held(&self) -> usize {
        size_of::<Attached>()
            + self.head.len()
            + self.blocked.as_ref().map_or(0, |blocked| size_of::<Blocked>() + blocked.unsent.capacity())
            + self.exchange.as_ref().map_or(0, Exchange::held)
    }

    pub(super) fn line(&self) -> String {
        // What waits for it in the session goes with that, uncounted.
        let mut answer = self.answer;
        answer.delivers(self.session.pending_messages(self.receiver));
        self.exchange.as_ref().map_or_else(String::new, |exchange| exchange.moved_line(answer))
    }

    fn unsent(&self) -> &[u8] {
        self.blocked.as_ref().map_or(&[], |blocked| &blocked.unsent)
    }

    /// Appends what the session has for it, behind the head if that is still to come.
    fn push(&mut self, out: &mut Vec<u8>, write: &Write, date: &[u8], keep_alive: bool) {
        let head = self.encode(out, write, date, keep_alive);
        if head > 0 {
            self.answer.begins(200, head);
            self.head = Box::default();
        }
        self.answer.delivers(write.messages);
        self.ends = write.ends;
    }

    /// The same, for one that stays as it is. Answers how long the head is.
    fn encode(&self, out: &mut Vec<u8>, write: &Write, date: &[u8], keep_alive: bool) -> usize {
        let start = out.len();
        let chunked = !self.poll && self.minor > 0;
        if !self.head.is_empty() {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(date);
            let framing = match self.poll {
                true => ResponseFraming::Length(write.pieces.iter().map(Vec::len).sum::<usize>() as u64),
                false if chunked => ResponseFraming::Chunked,
                false => ResponseFraming::Close,
            };
            finish_head(out, &HeadOptions { framing, keep_alive, client_minor: self.minor });
        }
        let head = out.len() - start;
        for piece in &write.pieces {
            if chunked {
                push_chunk_size(out, piece.len());
            }
            out.extend_from_slice(piece);
            if chunked {
                out.extend_from_slice(b"\r\n");
            }
        }
        if write.ends && chunked {
            out.extend_from_slice(LAST_CHUNK);
        }
        head
    }

    /// What a process says for it that knows no sessions: that it is closed, and its end.
    pub(super) fn last_words(&self) -> Vec<u8> {
        let (mut words, now) = (self.unsent().to_vec(), Millis::now());
        if !self.ends {
            if self.blocked.is_some() {
                self.session.written(self.receiver, false, now.0);
            }
            self.session.go_away(now.0);
            if let Some(write) = self.session.next(self.receiver, &mut Joined::default(), now.0) {
                self.encode(&mut words, &write, DateCache::new().field(), false);
            }
        }
        words
    }
}

impl Drop for Attached {
    /// Whoever has it and does not go on with it has lost it: a response that ended as it should has said so before.
    fn drop(&mut self) {
        self.session.lost(self.receiver, Millis::now().0);
    }
}

impl Connection {
    /// A response that a session has frames for begins, its head not yet finished.
    pub(super) fn attach(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        mut attach: Attach,
        body: Option<SharedBody>,
        (start, keep_alive): (usize, bool),
    ) -> Flow {
        let minor = work.request.head().0.minor;
        let mut head = work.out.split_off(start);
        // It is said when the head is sent.
        remove_date(&mut head);
        let Some((session, receiver)) = attach.take() else { return close(CloseReason::Internal) };
        work.answer.begins_to_last();
        let Some(exchange) = work.put_off_without_request() else {
            session.lost(receiver, work.now.0);
            return close(CloseReason::Cut);
        };
        session.enter(receiver, work.token);
        work.answer.delivers(0);
        let attached = Attached {
            session,
            receiver,
            exchange: Some(exchange),
            answer: work.answer,
            blocked: None,
            ends: false,
            head: head.into(),
            poll: attach.poll,
            // What is left of a body that nobody reads any more stands in the way of a next request.
            keep_alive: keep_alive && body.is_none() && (attach.poll || minor > 0),
            minor,
        };
        self.serve_session(work, turn, Box::new(attached))
    }

    /// Writes what the session has for it.
    pub(super) fn serve_session(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        mut one: Box<Attached>,
    ) -> Flow {
        loop {
            let mut window = Window::default();
            if let Some(blocked) = one.blocked.take() {
                window = blocked.window;
                work.out.extend_from_slice(&blocked.unsent);
            } else if !one.ends {
                let mut write = one.session.next(one.receiver, &mut work.joined, work.now.0);
                if write.is_none() && work.shared.is_draining() {
                    one.session.go_away(work.now.0);
                    write = one.session.next(one.receiver, &mut work.joined, work.now.0);
                }
                let Some(write) = write else {
                    if turn.peer_closed {
                        return self.leave_session(work, &mut one, CloseReason::PeerClosed);
                    }
                    self.wait_for_session(one);
                    return Flow::Park;
                };
                let keep_alive = one.keep_alive && work.shared.keeps_connections() && !self.last;
                one.keep_alive = keep_alive;
                let date = work.date.field().to_vec();
                one.push(&mut work.out, &write, &date, keep_alive);
                work.shared.stats.delivered(Some(work.index), write.messages as u64);
            }
            let sent = match work.out.is_empty() {
                true => 0,
                false => match self.socket.send(&work.out, false) {
                    Ok(Moved::Bytes(sent)) => sent,
                    Ok(Moved::WouldBlock) => 0,
                    Ok(Moved::End) => return self.leave_session(work, &mut one, CloseReason::Reset),
                    Err(error) => return self.leave_session(work, &mut one, CloseReason::from_error(&error)),
                },
            };
            one.answer.sent(sent as u64);
            window.handed(sent as u64);
            turn.moved(sent as u64);
            if sent < work.out.len() {
                let unsent = work.out[sent..].to_vec();
                work.out.clear();
                let (now, pace) = (work.refresh_clock(), Pace::of(&work.shared.limits));
                if window.wait(now, pace, || self.socket.unsent().unwrap_or(0)).is_none() {
                    self.socket.reset_on_close();
                    return self.leave_session(work, &mut one, CloseReason::WriteTimeout);
                }
                one.blocked = Some(Box::new(Blocked { unsent, window }));
                self.wait_for_session(one);
                return Flow::Park;
            }
            work.out.clear();
            one.session.written(one.receiver, one.ends, work.now.0);
            if one.ends {
                return self.end_session_response(work, turn, one);
            }
            if turn.is_over() {
                turn.more = true;
                self.wait_for_session(one);
                return Flow::Park;
            }
        }
    }

    /// The response is out.
    fn end_session_response(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, mut one: Box<Attached>) -> Flow {
        let keep_alive = one.keep_alive;
        work.resume_exchange(one.exchange.take(), one.answer);
        drop(one);
        self.begun = None;
        self.served += 1;
        work.end_exchange(End::Answered);
        turn.request();
        if keep_alive && work.shared.keeps_connections() && !self.last {
            return Flow::Continue;
        }
        self.socket.finish();
        work.clear_input();
        let reason = if work.shared.is_draining() { CloseReason::Stopping } else { CloseReason::Finished };
        self.start_linger(reason, &work.shared.limits, work.now);
        Flow::Continue
    }

    /// It is closed while its worker has it.
    fn leave_session(&mut self, work: &mut WorkerContext, one: &mut Attached, reason: CloseReason) -> Flow {
        work.out.clear();
        work.resume_exchange(one.exchange.take(), one.answer);
        close(reason)
    }

    /// It waits: for its session, or for its client.
    fn wait_for_session(&mut self, one: Box<Attached>) {
        debug_assert!(one.exchange.is_some(), "who ends it ends that");
        debug_assert!(matches!(self.state, State::ReadingHead), "a state is left before another is entered");
        self.state = State::Attached(one);
    }

    /// Its deadline has passed, on the acceptor.
    pub(super) fn expire_attached(&mut self, shared: &Shared, now: Millis, date: &[u8]) -> Expiry {
        let State::Attached(one) = &mut self.state else { return Expiry::Park };
        if shared.is_draining() || self.last {
            return self.end_attached(shared, now, date);
        }
        let Some(blocked) = &mut one.blocked else { return Expiry::Deliver };
        if blocked.window.wait(now, Pace::of(&shared.limits), || self.socket.unsent().unwrap_or(0)).is_some() {
            return Expiry::Park;
        }
        self.expire_too_slow(shared, now)
    }

    /// Tells its client that the session is closed, and ends, for the thread that may not wait: what the client does not take
    /// of that is lost with it.
    fn end_attached(&mut self, shared: &Shared, now: Millis, date: &[u8]) -> Expiry {
        let State::Attached(one) = &mut self.state else { return Expiry::Park };
        let mut last = Vec::new();
        // What waits for its client comes first.
        for goes in [false, true] {
            if one.blocked.is_some() || one.ends {
                break;
            }
            if goes {
                one.session.go_away(now.0);
            }
            if let Some(write) = one.session.next(one.receiver, &mut Joined::default(), now.0) {
                one.push(&mut last, &write, date, false);
                shared.stats.delivered(None, write.messages as u64);
                if !one.ends {
                    one.session.written(one.receiver, false, now.0);
                }
            }
        }
        let sent = self.socket.answer_at_once(&last).unwrap_or(0);
        one.answer.sent(sent);
        if one.ends && sent == last.len() as u64 {
            one.session.written(one.receiver, true, now.0);
        }
        let (exchange, answer) = (one.exchange.take(), one.answer);
        let reason = CloseReason::Stopping;
        if let Some(exchange) = exchange {
            self.end_waiting(exchange, answer, End::Closed(reason), shared, now);
        }
        self.begun = None;
        self.linger_now(reason, shared, now).0
    }
}

impl Attached {
    /// What its session has comes under that token from now on. Answers whether there is something.
    pub(super) fn enter(&self, token: usize) -> bool {
        self.session.enter(self.receiver, token)
    }

    /// It as it is written down.
    pub(super) fn save(&self) -> SavedAttached {
        let (conversation, session) = self.session.key();
        SavedAttached {
            conversation: conversation.to_owned(),
            session: session.to_owned(),
            receiver: self.receiver,
            head: self.head.to_vec(),
            unsent: self.unsent().to_vec(),
            ends: self.ends,
            poll: self.poll,
            keep_alive: self.keep_alive,
            minor: self.minor,
            line: self.line(),
        }
    }
}

/// One that goes on, which began then. One whose session nobody here has ends, so that its client asks again.
pub(super) fn restore(
    saved: SavedAttached,
    began: Millis,
    sessions: &Sessions,
) -> Result<Box<Attached>, (Vec<u8>, Exchange)> {
    let SavedAttached { conversation, session, receiver, head, unsent, ends, poll, keep_alive, minor, line } = saved;
    let (exchange, mut answer) = Exchange::of_moved_line(began, line);
    answer.begins_to_last();
    let Some(session) = sessions.find(&conversation, &session) else {
        let mut unsent = unsent;
        if !head.is_empty() {
            unsent.extend_from_slice(&head);
            unsent.extend_from_slice(DateCache::new().field());
            let framing = ResponseFraming::Length(0);
            finish_head(&mut unsent, &HeadOptions { framing, keep_alive: false, client_minor: minor });
        } else if !ends && !poll && minor > 0 {
            unsent.extend_from_slice(LAST_CHUNK);
        }
        return Err((unsent, exchange));
    };
    let (exchange, blocked) = (Some(exchange), Blocked::new(unsent));
    let head = head.into();
    Ok(Box::new(Attached { session, receiver, exchange, answer, blocked, ends, head, poll, keep_alive, minor }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Arrived, Owner, Router, Sessions};
    use crate::config::Limits;
    use sockjs::{Form, Settings};

    /// It was looked at once a second, and at a stop all of them ended in one moment.
    #[test]
    fn one_that_waits_for_its_session_alone_has_no_deadline_that_seems_to_have_passed() {
        let hub = pubsub::Hub::new(1, pubsub::HubLimits { log: pubsub::Limits::default(), subscribers: 9 });
        let sessions = Arc::<Sessions>::default();
        let (key, owner) = ((&Arc::from("chat"), "x7"), Owner::default());
        let arrived = sessions.arrive(&hub, key, owner, (1, Form::XhrStreaming), Settings::default(), 9, 0);
        let Arrived::New(session) = arrived else { panic!("there is none") };
        let now = Millis::now();
        let mut connection = Connection::for_test();
        let (exchange, answer, head) = (Some(Exchange::of_line(now, String::new())), Answer::default(), Box::default());
        let (receiver, blocked, ends, poll, keep_alive, minor) = (1, None, false, false, true, 1);
        connection.state = State::Attached(Box::new(Attached {
            session,
            receiver,
            exchange,
            answer,
            blocked,
            ends,
            head,
            poll,
            keep_alive,
            minor,
        }));
        let shared = Shared::for_test(Limits::default(), Router::new(), None);
        let parking = connection.parking(&shared, now);
        assert!(i32::try_from(parking.deadline.0 - now.0).is_ok(), "{parking:?}");
    }
}
