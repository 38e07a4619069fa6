//! Why a connection ends, and what the acceptor does when a deadline has passed.

use super::pace::Pace;
use super::socket::Moved;
use super::writing::Source;
use super::{Connection, State, Unfinished};
use crate::clock::Millis;
use crate::http::head::is_blank;
use crate::http::{Reject, response};
use std::fmt;
use std::io;

use super::workspace::Services;

/// Why a connection was closed: one name each, logged once at debug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The response said `Connection: close` and is out.
    Finished,
    /// The peer closed between requests.
    PeerClosed,
    /// The peer closed inside a request.
    PeerClosedInRequest,
    /// The peer reset the connection, or it broke.
    Reset,
    /// No request came in time.
    IdleTimeout,
    /// The client took too little of a response in time.
    WriteTimeout,
    /// The request was refused.
    Refused(Reject),
    /// The body ended before its length.
    Truncated,
    /// It went for a new one: the longest idle, or a request that was late.
    Evicted,
    /// There was no memory left for what it waited with.
    Memory,
    /// The server stops and the connection was idle.
    Stopping,
    /// The stop deadline cut it.
    Cut,
    /// The server's own fault, which is logged as an error.
    Internal,
}

impl CloseReason {
    pub fn from_error(error: &io::Error) -> CloseReason {
        match error.kind() {
            io::ErrorKind::TimedOut => CloseReason::WriteTimeout,
            io::ErrorKind::UnexpectedEof => CloseReason::Truncated,
            _ => CloseReason::Reset,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseReason::Finished => "finished",
            CloseReason::PeerClosed => "closed by the client",
            CloseReason::PeerClosedInRequest => "closed by the client in the middle of a request",
            CloseReason::Reset => "reset by the client",
            CloseReason::IdleTimeout => "idle timeout",
            CloseReason::WriteTimeout => "write timeout",
            CloseReason::Refused(reject) => return write!(f, "refused: {reject}"),
            CloseReason::Truncated => "the body ended before its length",
            CloseReason::Evicted => "made place for another",
            CloseReason::Memory => "no memory left for a response that waits",
            CloseReason::Stopping => "the server stops",
            CloseReason::Cut => "cut at the stop deadline",
            CloseReason::Internal => "internal error",
        })
    }
}

/// What the acceptor does with a connection whose deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Close(CloseReason),
    /// Park it again: it makes progress, or it lingers now.
    Park,
    /// Bytes have arrived meanwhile, or only a worker may end it.
    Enqueue,
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

impl Connection {
    /// A deadline of a parked connection has passed. Never waits: prepared bytes go out in one write, or not at all.
    pub fn expire(&mut self, services: &Services, now: Millis, date: &[u8]) -> Expiry {
        match &mut self.state {
            State::Head if is_blank(&self.input) => self.expire_idle(services, now),
            State::Head => self.give_up(Reject::HeadTimeout, services, now, date),
            State::Body(collecting) => {
                let (_, reject) = collecting.deadline(&services.limits);
                self.give_up(reject, services, now, date)
            }
            State::Waiting(_) => {
                let state = std::mem::replace(&mut self.state, State::Head);
                let expiry = self.give_up(Reject::Overloaded, services, now, date);
                // Dropping a handler's closure runs the application's code: not on this thread.
                if let (State::Waiting(push), State::Lingering { reason, until, limit }) = (state, &self.state) {
                    self.state = State::Abandoned { push, reason: *reason, until: *until, limit: *limit };
                    return Expiry::Enqueue;
                }
                expiry
            }
            State::Writing(writing) => {
                let pace = Pace::of(&services.limits);
                if writing.window.wait(now, pace, || self.socket.unsent().unwrap_or(0)).is_some() {
                    return Expiry::Park;
                }
                match writing.source {
                    // Dropping a reader runs the application's code: not on this thread.
                    Source::Reader { .. } => {
                        writing.expired = true;
                        Expiry::Enqueue
                    }
                    _ => {
                        self.socket.reset_on_close();
                        Expiry::Close(CloseReason::WriteTimeout)
                    }
                }
            }
            State::Lingering { reason, .. } | State::Abandoned { reason, .. } => Expiry::Close(*reason),
        }
    }

    fn expire_idle(&mut self, services: &Services, now: Millis) -> Expiry {
        let reason = if services.is_draining() || self.last { CloseReason::Stopping } else { CloseReason::IdleTimeout };
        match self.socket.peek() {
            Ok(Moved::Bytes(_)) => Expiry::Enqueue,
            Ok(Moved::End) => Expiry::Close(CloseReason::PeerClosed),
            Err(_) => Expiry::Close(CloseReason::Reset),
            Ok(Moved::WouldBlock) => {
                // A request may be on its way: FIN first, and what still comes is read and not run, so that the
                // client sees an orderly end instead of a reset.
                self.linger_now(reason, services, now)
            }
        }
    }

    /// Answers for a request that will not be served, and closes.
    pub fn give_up(&mut self, reject: Reject, services: &Services, now: Millis, date: &[u8]) -> Expiry {
        log::debug!("refused: {reject} ({})", reject.status());
        services.stats.refused();
        let mut answer = Vec::new();
        response::encode_plain(&mut answer, reject.status(), reject.name(), reject.fields(), date);
        // If it does not fit at once the client has not read earlier answers either; it gets the end alone.
        let _ = self.socket.send(&answer, false);
        self.linger_now(CloseReason::Refused(reject), services, now)
    }

    fn linger_now(&mut self, reason: CloseReason, services: &Services, now: Millis) -> Expiry {
        self.socket.finish();
        self.input = Vec::new();
        self.hold = None;
        self.state = super::lingering(reason, &services.limits, now);
        // What has come already gives no new event.
        match self.discard() {
            Discarded::All => Expiry::Park,
            Discarded::Some => Expiry::Enqueue,
            Discarded::End(reason) => Expiry::Close(reason),
        }
    }

    /// Whether bytes wait that no worker has seen.
    pub fn has_unread(&self) -> bool {
        matches!(self.socket.peek(), Ok(Moved::Bytes(_)))
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
    pub fn set_moved(&mut self) {
        self.moved = true;
    }

    /// Whether it holds code of the application's: a reader or a closure.
    pub fn holds_application(&self) -> bool {
        match &self.state {
            State::Waiting(_) | State::Abandoned { .. } => true,
            State::Writing(writing) => matches!(writing.source, Source::Reader { .. }),
            _ => false,
        }
    }

    /// Whether nothing of a request has arrived and nothing of a response is left: the client loses nothing.
    pub fn is_idle(&self) -> bool {
        match self.state {
            State::Head => is_blank(&self.input),
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
            match self.socket.read(&mut sink) {
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
            State::Head if is_blank(&self.input) => return None,
            State::Lingering { .. } | State::Abandoned { .. } => return None,
            State::Head => {
                let line = self.input.split(|&b| b == b'\r' || b == b'\n').find(|line| !line.is_empty());
                let line = String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
                format!("{line:.200?} (its head was incomplete)")
            }
            State::Body(collecting) => {
                format!("{} {} (its body was incomplete)", collecting.request.method(), collecting.request.url())
            }
            State::Waiting(push) => {
                format!("{} {} (it waited to stream)", push.request.method(), push.request.url())
            }
            State::Writing(writing) => format!("{} (its response was not taken)", writing.line),
        };
        Some(Unfinished { what, age: now.since(self.begun.unwrap_or(now)) })
    }

    /// Ends it at the stop deadline: a request that has not been executed gets a 408. Answers what was cut, for the
    /// log; `None` if there was nothing of a request.
    pub fn cut(&mut self, services: &Services, now: Millis, date: &[u8]) -> Option<Unfinished> {
        let cut = self.unfinished(now)?;
        match self.state {
            State::Head | State::Body(_) => {
                self.give_up(Reject::HeadTimeout, services, now, date);
            }
            // What it holds may be the application's: it is dropped when this server is, not now.
            _ => self.socket.cut(),
        }
        Some(cut)
    }
}
