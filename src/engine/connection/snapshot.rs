//! A parked connection written down for a successor, and one that goes on with what was written down.

use super::attached;
use super::close_reason::CloseReason;
use super::conversing;
use super::exchange::Exchange;
use super::receive::Collecting;
use super::stream::Incoming;
use super::subscribed::{self, Blocked, Subscribed};
use super::transport::Transport;
use super::writing::{After, ResponseBody, Writing};
use super::{Connection, State};
use crate::api::{Bytes, Request, Sessions};
use crate::clock::Millis;
use crate::lifecycle::state::{
    RemainingBody, SUBSCRIBERS, SavedFraming, SavedState, SavedSubscriber, Snapshot, WEBSOCKETS,
};
use http1::head::{HeadLimits, Scanner};
use pubsub::{Form, Hub, Saved, Subscription};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

impl From<&Incoming> for SavedFraming {
    fn from(incoming: &Incoming) -> SavedFraming {
        match incoming {
            Incoming::Length(left) => SavedFraming::Length(*left),
            Incoming::Chunked(decoder) => SavedFraming::Chunked(decoder.into()),
        }
    }
}

impl From<SavedFraming> for Incoming {
    fn from(saved: SavedFraming) -> Incoming {
        match saved {
            SavedFraming::Length(left) => Incoming::Length(left),
            SavedFraming::Chunked(decoder) => Incoming::Chunked(decoder.into()),
        }
    }
}

/// Of a connection that was accepted, and of which nothing has been read.
pub fn fresh(peer: SocketAddr, deadline: Millis) -> Snapshot {
    let (input, deadline) = (Vec::new(), deadline.0);
    Snapshot { peer: Some(peer), served: 0, begun: None, deadline, input, state: SavedState::ReadingHead }
}

/// What was restored, and its deadline.
pub struct Restored {
    pub connection: Connection,
    pub deadline: Millis,
    /// Whether it has bytes that no event will tell of: in exec mode perhaps whole requests, of a client that sent
    /// many and whose turn was over.
    pub ready: bool,
}

impl Connection {
    /// The connection as it is, in that version of the state, with the file it sends; `None` while only this process can go
    /// on with it, because code of the application is part of what comes next, or what is answered is not known yet. The
    /// connection stays usable.
    pub fn snapshot(&self, deadline: Millis, version: u32) -> Option<(Snapshot, Option<BorrowedFd<'_>>)> {
        let mut file_to_send = None;
        let state = match &self.state {
            State::ReadingHead => SavedState::ReadingHead,
            State::ReadingBody(collecting) => SavedState::ReadingBody {
                head: collecting.request.head().1.to_vec(),
                framing: (&collecting.incoming).into(),
                body: collecting.body.clone(),
                since: collecting.since.0,
                limit: collecting.limit,
                declared: collecting.declared,
                expects_continue: collecting.expects_continue,
            },
            State::AwaitingPermit(_) | State::Refused { .. } => return None,
            State::Writing(writing) => {
                let remaining = match &writing.source {
                    ResponseBody::None => RemainingBody::None,
                    ResponseBody::Bytes { bytes, at } => RemainingBody::Bytes(bytes[*at..].to_vec()),
                    ResponseBody::File { file, offset, end, .. } => {
                        file_to_send = Some(file.as_fd());
                        RemainingBody::File { offset: *offset, end: *end }
                    }
                    ResponseBody::Reader { .. } => return None,
                };
                let keep_alive = matches!(writing.after, After::Head);
                SavedState::Writing {
                    unsent: writing.unsent.clone(),
                    remaining,
                    keep_alive,
                    line: writing.moved_line(),
                }
            }
            State::Lingering { until, .. } => SavedState::Lingering { until: until.0 },
            State::Subscribed(subscribed) if version < SUBSCRIBERS => SavedState::Writing {
                unsent: subscribed.last_words(),
                remaining: RemainingBody::None,
                keep_alive: false,
                line: subscribed.line(),
            },
            State::Subscribed(subscribed) => SavedState::Subscribed(Box::new(save(subscribed)?)),
            State::Conversing(one) if version < WEBSOCKETS => SavedState::Writing {
                unsent: one.last_words(),
                remaining: RemainingBody::None,
                keep_alive: false,
                line: one.line(),
            },
            State::Conversing(one) => SavedState::Conversing(Box::new(conversing::save(one)?)),
            State::Attached(one) if version < WEBSOCKETS => SavedState::Writing {
                unsent: one.last_words(),
                remaining: RemainingBody::None,
                keep_alive: false,
                line: one.line(),
            },
            State::Attached(one) => SavedState::Attached(Box::new(one.save())),
            State::Awaiting(awaiting) => awaiting.save()?,
        };
        let snapshot = Snapshot {
            peer: self.peer,
            served: self.served,
            begun: self.begun.map(|begun| begun.0),
            deadline: deadline.0,
            input: self.input.clone(),
            state,
        };
        Some((snapshot, file_to_send))
    }

    /// The file that it sends.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Writing(writing) => match &writing.source {
                ResponseBody::File { file, .. } => Some(file.as_fd()),
                _ => None,
            },
            _ => None,
        }
    }

    /// A connection that goes on where the snapshot was taken, a subscriber with that hub, the client of a conversation with
    /// one of these. If the pieces do not fit together, the socket comes back.
    pub fn restore(
        mut snapshot: Snapshot,
        socket: OwnedFd,
        file: Option<&Arc<File>>,
        (hub, sessions): (Option<&Hub>, &Sessions),
    ) -> Result<Restored, OwnedFd> {
        let saved = std::mem::replace(&mut snapshot.state, SavedState::ReadingHead);
        // What it is in the middle of begins anew here, and knows what was written down.
        let began = snapshot.begun.map_or_else(Millis::now, Millis);
        let times = (began, Millis(snapshot.deadline));
        match Connection::state_of(saved, snapshot.peer, times, file, (hub, sessions)) {
            Some(state) => Ok(Connection::with_state(snapshot, state, socket)),
            None => Err(socket),
        }
    }

    fn state_of(
        saved: SavedState,
        peer: Option<SocketAddr>,
        times: (Millis, Millis),
        file: Option<&Arc<File>>,
        (hub, sessions): (Option<&Hub>, &Sessions),
    ) -> Option<State> {
        let (began, _) = times;
        Some(match saved {
            SavedState::ReadingHead => State::ReadingHead,
            SavedState::ReadingBody { head, framing, body, since, limit, declared, expects_continue } => {
                let mut request = Request::empty();
                // It was within its limits when it came; a successor's own may be tighter. But a head it must be.
                let lines = head.iter().filter(|&&b| b == b'\n').count();
                let limits = HeadLimits { size: usize::from(u16::MAX), target: head.len(), fields: lines };
                let complete = Scanner::default().scan(&head, &limits).ok()?;
                if complete != Some(head.len()) {
                    return None;
                }
                request.parse(&head, &limits, peer).ok()?;
                let mut exchange = Exchange::new(began);
                exchange.understood(&request);
                let empty = Collecting::new(framing.into(), Millis(since), limit, declared, expects_continue);
                State::ReadingBody(Box::new(Collecting { request, exchange: Some(exchange), body, ..empty }))
            }
            SavedState::Writing { unsent, remaining, keep_alive, line } => {
                let source = match (remaining, file) {
                    (RemainingBody::None, _) => ResponseBody::None,
                    (RemainingBody::Bytes(bytes), _) => ResponseBody::Bytes { bytes: Bytes::Owned(bytes), at: 0 },
                    (RemainingBody::File { offset, end }, Some(file)) => ResponseBody::file(file.clone(), offset, end),
                    (RemainingBody::File { .. }, None) => return None,
                };
                let after = if keep_alive { After::Head } else { After::Linger(CloseReason::Finished) };
                let mut writing = Writing::new(source, after);
                writing.unsent = unsent;
                let (exchange, answer) = Exchange::of_moved_line(began, line);
                (writing.exchange, writing.answer) = (Some(exchange), answer);
                State::Writing(Box::new(writing))
            }
            SavedState::Lingering { until } => {
                let until = Millis(until);
                State::Lingering { reason: CloseReason::Finished, until, limit: until }
            }
            SavedState::Subscribed(subscriber) => subscriber_of(*subscriber, times, hub),
            SavedState::Conversing(saved) => match conversing::restore(*saved, times, hub, sessions.conversations()) {
                Ok(one) => State::Conversing(one),
                Err(last) => ending(last),
            },
            SavedState::Attached(saved) => match attached::restore(*saved, began, sessions) {
                Ok(one) => State::Attached(one),
                Err(last) => ending(last),
            },
        })
    }

    fn with_state(snapshot: Snapshot, state: State, socket: OwnedFd) -> Restored {
        let Snapshot { peer, served, begun, deadline, input, .. } = snapshot;
        let deadline = Millis(deadline);
        let connection = Connection {
            socket: Arc::new(Transport::new(socket)),
            peer,
            served,
            begun: begun.map(Millis),
            scanner: Scanner::default(),
            last: false,
            moved: false,
            input,
            state,
            // Taken when it has a place here.
            hold: None,
        };
        let ready = connection.has_read();
        Restored { connection, deadline, ready }
    }
}

/// What is left of one with which nobody here can go on.
fn ending((unsent, exchange): (Vec<u8>, Exchange)) -> State {
    let mut writing = Writing::new(ResponseBody::None, After::Linger(CloseReason::Stopping));
    (writing.unsent, writing.exchange) = (unsent, Some(exchange));
    State::Writing(Box::new(writing))
}

/// A subscriber as it is written down; `None` before anything was said.
fn save(subscribed: &Subscribed) -> Option<SavedSubscriber> {
    let Saved { namespace, topics, cursor, told, form, recent: _ } = subscribed.subscription.save()?;
    let Form { chunked, json, beat, poll, websocket: _, bare: _ } = form;
    Some(SavedSubscriber {
        namespace,
        topics,
        cursor,
        told,
        chunked,
        json,
        beat,
        poll,
        unsent: subscribed.unsent().to_vec(),
        heartbeat: subscribed.heartbeat,
        until: if poll { subscribed.until.0 } else { subscribed.ends.0 },
        head: subscribed.head.to_vec(),
        keep_alive: subscribed.keep_alive,
        minor: subscribed.minor,
        line: subscribed.line(),
    })
}

/// A subscriber that goes on, which began and was parked until then; where nobody publishes any more what it listens to, it
/// ends.
fn subscriber_of(saved: SavedSubscriber, (began, deadline): (Millis, Millis), hub: Option<&Hub>) -> State {
    let SavedSubscriber { namespace, topics, cursor, told, chunked, json, beat, poll, .. } = saved;
    let SavedSubscriber { unsent, heartbeat, until, head, keep_alive, minor, line, .. } = saved;
    let form = Form { chunked, json, beat, poll, ..Form::default() };
    let (exchange, mut answer) = Exchange::of_moved_line(began, line);
    answer.begins_to_last();
    let exchange = Some(exchange);
    let saved = Saved { namespace, topics, cursor, told, form, recent: Vec::new() };
    match hub.and_then(|hub| Subscription::restore(hub, saved)) {
        Some(subscription) => {
            let (blocked, head) = (Blocked::new(unsent), head.into());
            let (until, ends) = match poll {
                true => (Millis(until), Millis::NEVER),
                // Its next heartbeat is what a stream was parked for, unless that was its client: then it is found anew.
                false if blocked.is_some() => (Millis::default(), Millis(until)),
                false => (deadline, Millis(until)),
            };
            let subscribed =
                Subscribed { subscription, exchange, answer, blocked, heartbeat, until, ends, head, keep_alive, minor };
            State::Subscribed(Box::new(subscribed))
        }
        None => {
            let mut writing = Writing::new(ResponseBody::None, After::Linger(CloseReason::Stopping));
            writing.unsent = unsent;
            subscribed::push_end(&mut writing.unsent, form, &head, minor, &pubsub::lost_answer());
            (writing.exchange, writing.answer) = (exchange, answer);
            State::Writing(Box::new(writing))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restore(head: &[u8]) -> Option<Restored> {
        let mut snapshot = Snapshot::samples().swap_remove(1);
        let SavedState::ReadingBody { head: own, .. } = &mut snapshot.state else { panic!("{snapshot:?}") };
        *own = head.to_vec();
        let (one, _) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        Connection::restore(snapshot, one.into(), None, (None, &Sessions::default())).ok()
    }

    #[test]
    fn a_head_that_is_none_is_refused_and_does_not_panic() {
        let head = b"POST / HTTP/1.1\r\nHost: x\r\n\r\n";
        assert!(restore(head).is_some());
        for cut in 0..head.len() {
            assert!(restore(&head[..cut]).is_none(), "cut at {cut}");
        }
        assert!(restore(&[head, &b"GET "[..]].concat()).is_none());
        // Beyond what the offsets of a head can say.
        let large = [b"POST / HTTP/1.1\r\nHost: x\r\nA: ", &[b'a'; 70_000][..], b"\r\n\r\n"].concat();
        assert!(restore(&large).is_none());
    }
}
