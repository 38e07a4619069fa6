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
use crate::http::head::{HeadLimits, Scanner};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// A parked connection without its descriptors. It is part of each version of the state, so it stays as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    peer: Option<SocketAddr>,
    served: u32,
    begun: Option<u64>,
    deadline: u64,
    #[serde(with = "serde_bytes")]
    input: Vec<u8>,
    moment: Moment,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Moment {
    Head,
    Body {
        #[serde(with = "serde_bytes")]
        head: Vec<u8>,
        incoming: Incoming,
        #[serde(with = "serde_bytes")]
        body: Vec<u8>,
        since: u64,
        limit: u64,
        declared: Option<u64>,
        expects_continue: bool,
    },
    Writing {
        #[serde(with = "serde_bytes")]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Rest {
    None,
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The file's descriptor travels beside the socket's.
    File {
        offset: u64,
        end: u64,
    },
}

impl Snapshot {
    /// Of a connection that was accepted, and of which nothing has been read.
    pub fn fresh(peer: SocketAddr, deadline: Millis) -> Snapshot {
        let (input, deadline) = (Vec::new(), deadline.0);
        Snapshot { peer: Some(peer), served: 0, begun: None, deadline, input, moment: Moment::Head }
    }
}

#[cfg(any(test, fuzzing))]
impl Snapshot {
    /// One for each moment, and each way in which a body comes and a response goes.
    pub fn samples() -> Vec<Snapshot> {
        use crate::http::framing::BodyFraming;
        let body = |incoming: Incoming| Moment::Body {
            head: b"POST /a HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n".to_vec(),
            incoming,
            body: b"abc".to_vec(),
            since: 1,
            limit: 1 << 20,
            declared: Some(9),
            expects_continue: true,
        };
        let writing = |rest: Rest| Moment::Writing {
            unsent: b"HTTP/1.1 200 OK\r\n".to_vec(),
            rest,
            keep_alive: true,
            line: "GET /a".into(),
        };
        let moments = [
            Moment::Head,
            body(Incoming::new(BodyFraming::Length(6))),
            body(Incoming::new(BodyFraming::Chunked)),
            writing(Rest::None),
            writing(Rest::Bytes(b"hello".to_vec())),
            writing(Rest::File { offset: 1, end: 9 }),
            Moment::Lingering { until: 2 },
        ];
        let peer = Some(SocketAddr::from(([127, 0, 0, 1], 1)));
        let snapshot = |moment| Snapshot {
            peer,
            served: 1,
            begun: Some(1),
            deadline: 2,
            input: b"GET /b HTTP/1.1\r\n".to_vec(),
            moment,
        };
        moments.into_iter().map(snapshot).collect()
    }
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
                    Source::File { file, offset, end, .. } => {
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
    pub fn restore(snapshot: Snapshot, socket: OwnedFd, file: Option<Arc<File>>) -> Option<Restored> {
        let Snapshot { peer, served, begun, deadline, input, moment } = snapshot;
        let deadline = Millis(deadline);
        // A body may wait for a thread, or for a word that its client waits for: no event would tell of that.
        let ready = !input.is_empty() || matches!(moment, Moment::Body { .. });
        let state = match moment {
            Moment::Head => State::Head,
            Moment::Body { head, incoming, body, since, limit, declared, expects_continue } => {
                let mut request = Request::empty();
                // It was within its limits when it came; a successor's own may be tighter. But a head it must be.
                let lines = head.iter().filter(|&&b| b == b'\n').count();
                let limits = HeadLimits { size: usize::from(u16::MAX), target: head.len(), fields: lines };
                let complete = Scanner::default().scan(&head, &limits).ok()?;
                if complete != Some(head.len()) {
                    return None;
                }
                request.parse(&head, &limits, peer).ok()?;
                let empty = Collecting::new(request, incoming, Millis(since), limit, declared, expects_continue);
                State::Body(Box::new(Collecting { body, ..empty }))
            }
            Moment::Writing { unsent, rest, keep_alive, line } => {
                let source = match (rest, file) {
                    (Rest::None, _) => Source::None,
                    (Rest::Bytes(bytes), _) => Source::Bytes { bytes: Bytes::Owned(bytes), at: 0 },
                    (Rest::File { offset, end }, Some(file)) => Source::file(file, offset, end),
                    (Rest::File { .. }, None) => return None,
                };
                let after = if keep_alive { After::Head } else { After::Linger(CloseReason::Finished) };
                let mut writing = Writing::new(source, after);
                writing.unsent = unsent;
                writing.line = line;
                State::Writing(Box::new(writing))
            }
            Moment::Lingering { until } => {
                let until = Millis(until);
                State::Lingering { reason: CloseReason::Finished, until, limit: until }
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
            // Taken when it has a place here.
            hold: None,
        };
        Some(Restored { connection, deadline, ready })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restore(head: &[u8]) -> Option<Restored> {
        let mut snapshot = Snapshot::samples().swap_remove(1);
        let Moment::Body { head: own, .. } = &mut snapshot.moment else { panic!("{snapshot:?}") };
        *own = head.to_vec();
        let (one, _) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        Connection::restore(snapshot, one.into(), None)
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
