//! A parked connection as bytes: what a successor needs to go on with it.
//!
//! Descriptors do not travel in the bytes; they follow beside them. Times are CLOCK_MONOTONIC, the same in every process
//! of a host.

use super::closing::CloseReason;
use super::socket::Socket;
use super::stream::Incoming;
use super::writing::{After, Source, Writing};
use super::{Collecting, Connection, State};
use crate::clock::Millis;
use crate::handler::{Bytes, Request};
use crate::http::head::{HeadLimits, Scanner, is_blank};
use crate::slot::Place;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// A parked connection without its descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    peer: Option<SocketAddr>,
    served: u32,
    begun: Option<u64>,
    deadline: u64,
    input: Vec<u8>,
    moment: Moment,
}

#[derive(Debug, Serialize, Deserialize)]
enum Moment {
    Head,
    Body {
        head: Vec<u8>,
        incoming: Incoming,
        body: Vec<u8>,
        since: u64,
        limit: u64,
        declared: Option<u64>,
        expects_continue: bool,
    },
    Writing {
        unsent: Vec<u8>,
        rest: Rest,
        keep_alive: bool,
        line: String,
    },
    Lingering {
        until: u64,
    },
}

/// The rest of a response.
#[derive(Debug, Serialize, Deserialize)]
enum Rest {
    None,
    Bytes(Vec<u8>),
    /// The file's descriptor travels beside the socket's.
    File {
        offset: u64,
        end: u64,
    },
}

/// What was restored, and how to park it.
pub struct Restored {
    pub connection: Connection,
    pub place: Place,
    pub answerable: bool,
    pub deadline: Millis,
    /// Whether it has bytes that no event will tell of: in exec mode perhaps whole requests, of a client that sent
    /// many and whose turn was over.
    pub ready: bool,
}

impl Connection {
    /// The connection as it is, with the descriptor of the file it sends; `None` while only this process can go on
    /// with it, because code of the application is part of what comes next. The connection stays usable.
    pub fn snapshot(&self, deadline: Millis) -> Option<(Snapshot, Option<RawFd>)> {
        let mut file_to_send = None;
        let moment = match &self.state {
            State::Head => Moment::Head,
            State::Body(collecting) => Moment::Body {
                head: collecting.request.head().1.to_vec(),
                incoming: collecting.incoming.clone(),
                body: collecting.body.clone(),
                since: collecting.since.0,
                limit: collecting.limit,
                declared: collecting.declared,
                expects_continue: collecting.expects_continue,
            },
            State::Waiting(_) | State::Abandoned { .. } => return None,
            State::Writing(writing) => {
                let rest = match &writing.source {
                    Source::None => Rest::None,
                    Source::Bytes { bytes, at } => Rest::Bytes(bytes[*at..].to_vec()),
                    Source::File { file, offset, end } => {
                        file_to_send = Some(file.as_raw_fd());
                        Rest::File { offset: *offset, end: *end }
                    }
                    Source::Reader { .. } => return None,
                };
                let keep_alive = matches!(writing.after, After::Head);
                Moment::Writing { unsent: writing.unsent.clone(), rest, keep_alive, line: writing.line.clone() }
            }
            State::Lingering { until, .. } => Moment::Lingering { until: until.0 },
        };
        let snapshot = Snapshot {
            peer: self.peer,
            served: self.served,
            begun: self.begun.map(|begun| begun.0),
            deadline: deadline.0,
            input: self.input.clone(),
            moment,
        };
        Some((snapshot, file_to_send))
    }

    /// A connection that goes on where the snapshot was taken. `None` if the pieces do not fit together.
    pub fn restore(snapshot: Snapshot, socket: OwnedFd, file: Option<OwnedFd>) -> Option<Restored> {
        let Snapshot { peer, served, begun, deadline, input, moment } = snapshot;
        let deadline = Millis(deadline);
        let (blank, ready) = (is_blank(&input), !input.is_empty());
        let (state, place, answerable) = match moment {
            Moment::Head => (State::Head, if blank { Place::Idle } else { Place::Reading }, true),
            Moment::Body { head, incoming, body, since, limit, declared, expects_continue } => {
                let mut request = Request::empty();
                // It was within its limits when it came; a successor's own may be tighter.
                let lines = head.iter().filter(|&&b| b == b'\n').count();
                let limits = HeadLimits { size: head.len() + 1, target: head.len(), fields: lines };
                request.parse(&head, &limits, peer).ok()?;
                let since = Millis(since);
                let collecting = Collecting { request, incoming, body, since, limit, declared, expects_continue };
                (State::Body(Box::new(collecting)), Place::Reading, false)
            }
            Moment::Writing { unsent, rest, keep_alive, line } => {
                let source = match (rest, file) {
                    (Rest::None, _) => Source::None,
                    (Rest::Bytes(bytes), _) => Source::Bytes { bytes: Bytes::Owned(bytes), at: 0 },
                    (Rest::File { offset, end }, Some(file)) => {
                        Source::File { file: Arc::new(file.into()), offset, end }
                    }
                    (Rest::File { .. }, None) => return None,
                };
                let after = if keep_alive { After::Head } else { After::Linger(CloseReason::Finished) };
                let mut writing = Writing::new(source, after);
                writing.unsent = unsent;
                writing.line = line;
                (State::Writing(Box::new(writing)), Place::Writing, false)
            }
            Moment::Lingering { until } => {
                let until = Millis(until);
                let state = State::Lingering { reason: CloseReason::Finished, until, limit: until };
                (state, Place::Idle, false)
            }
        };
        let connection = Connection {
            socket: Arc::new(Socket::new(socket)),
            peer,
            served,
            begun: begun.map(Millis),
            scanner: Scanner::default(),
            last: false,
            moved: false,
            input,
            state,
            // Taken when it parks for the first time here.
            hold: None,
        };
        Some(Restored { connection, place, answerable, deadline, ready })
    }
}
