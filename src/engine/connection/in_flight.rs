//! What the threads execute: for whoever has to cut it, to wait for it, or to say what is waited for.

use super::close_reason::CloseReason;
use super::exchange::{Answer, End, Ended, Exchange, named};
use super::transport::Transport;
use crate::api::{Request, without_token};
use crate::clock::Millis;
use portable_atomic::AtomicU64;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What one thread is executing.
#[derive(Default)]
pub struct InFlight {
    flight: Mutex<Flight>,
    /// Bytes that a handler has pushed since that began, the response's head among them.
    pushed: AtomicU64,
}

#[derive(Default)]
struct Flight {
    socket: Option<Arc<Transport>>,
    peer: Option<SocketAddr>,
    /// Its owner gets it back, unless somebody cuts it: then that ends it.
    exchange: Option<Exchange>,
    /// As it was when this began.
    answer: Answer,
    /// Method and target. Text only for whoever shows it: to check that costs more than to copy it.
    line: Vec<u8>,
    since: Option<Millis>,
    /// Whether it is in a handler, and not a response of an earlier turn that goes on.
    handler: bool,
}

/// A request that is under way, for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Method and target, and what is missing.
    pub what: String,
    pub age: Duration,
}

/// What was cut: the end of an exchange, to be told, and what is to be said.
pub(super) struct Cut {
    pub(super) ended: Ended<'static>,
    pub(super) unfinished: Unfinished,
}

impl InFlight {
    fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handler begins, or a response goes on. It ends when the response is out or has to wait. Without an exchange it
    /// is the one that is here. `request` has the line, if the exchange has not.
    pub(super) fn begin(
        &self,
        (socket, peer): (&Arc<Transport>, Option<SocketAddr>),
        exchange: Option<Exchange>,
        answer: Answer,
        request: &Request,
        since: Millis,
        handler: bool,
    ) {
        self.pushed.store(0, Ordering::Relaxed);
        let mut flight = self.flight();
        (flight.socket, flight.peer) = (Some(socket.clone()), peer);
        flight.exchange = exchange.or(flight.exchange.take());
        flight.line.clear();
        let Flight { line, exchange, .. } = &mut *flight;
        line.extend_from_slice(exchange.as_ref().map_or(&[][..], |exchange| exchange.line(Some(request))));
        flight.answer = answer;
        flight.since = Some(since);
        flight.handler = handler;
    }

    /// Where a handler that pushes counts its bytes.
    pub(super) fn pushed(&self) -> &AtomicU64 {
        &self.pushed
    }

    /// Answers the exchange, if nobody has cut it.
    pub(super) fn end(&self, durations: &Durations) -> Option<Exchange> {
        let mut flight = self.flight();
        flight.socket = None;
        if let Some(since) = flight.since.filter(|_| flight.handler) {
            let took = Millis::now().since(since);
            if took >= SHORT {
                durations.note(&flight.line, took);
            }
        }
        flight.exchange.take()
    }

    /// What is in a handler, and since when.
    pub fn current(&self, now: Millis) -> Option<Unfinished> {
        let flight = self.flight();
        flight.socket.as_ref().filter(|_| flight.handler)?;
        Some(unfinished(&flight.line, flight.since, now))
    }

    /// Method and target of what it is doing, in a handler or not, and for how long it has been.
    pub fn shown(&self, now: Millis) -> Option<(String, Duration)> {
        let flight = self.flight();
        flight.socket.as_ref()?;
        let Unfinished { what, age } = unfinished(&flight.line, flight.since, now);
        Some((what, age))
    }

    /// How much longer its handler is expected to take; `None` if nothing is in one.
    pub fn expected(&self, now: Millis, durations: &Durations) -> Option<Duration> {
        let flight = self.flight();
        flight.socket.as_ref().filter(|_| flight.handler)?;
        Some(durations.expected(&flight.line, now.since(flight.since.unwrap_or(now))))
    }

    /// Ends the connection under the handler. Answers what it was, if there is one that has not been cut before.
    pub(super) fn cut(&self, now: Millis) -> Option<Cut> {
        let mut flight = self.flight();
        flight.socket.take()?.cut();
        let (mut exchange, mut answer) = (flight.exchange.take()?, flight.answer);
        let unfinished = unfinished(&flight.line, flight.since, now);
        exchange.keep_line(|| String::from_utf8_lossy(&flight.line).into_owned());
        answer.sent(self.pushed.load(Ordering::Relaxed));
        let (peer, end) = (flight.peer, End::Closed(CloseReason::Cut));
        let took = exchange.age(now);
        Some(Cut { ended: Ended { exchange, peer, answer, request: None, end, at: now, took }, unfinished })
    }
}

fn unfinished(line: &[u8], since: Option<Millis>, now: Millis) -> Unfinished {
    let line = String::from_utf8_lossy(line);
    Unfinished { what: named(&without_token(&line)).to_owned(), age: now.since(since.unwrap_or(now)) }
}

/// What takes no longer is of no interest to whoever waits for handlers.
const SHORT: Duration = Duration::from_millis(20);
/// Kinds of requests that are remembered.
const KINDS: usize = 64;

/// How long handlers have taken that took long: what runs for 0.1 s and usually takes a minute is not waited for, and
/// what usually takes as long as it has run is.
#[derive(Default)]
pub struct Durations(Mutex<Vec<(Vec<u8>, Duration)>>);

impl Durations {
    fn kinds(&self) -> MutexGuard<'_, Vec<(Vec<u8>, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, line: &[u8], took: Duration) {
        let kind = kind(line);
        let mut kinds = self.kinds();
        let (known, longest) = match kinds.iter().position(|(known, _)| known == kind) {
            Some(at) => kinds.remove(at),
            None => (kind.to_vec(), Duration::ZERO),
        };
        // The longest one counts, and is forgotten little by little.
        kinds.push((known, took.max(longest * 9 / 10)));
        if kinds.len() > KINDS {
            kinds.remove(0);
        }
    }

    /// How much longer a handler will take that has run for so long. One of an unknown kind is expected to take as long
    /// again as it has taken, and so is one that takes longer than ever.
    fn expected(&self, line: &[u8], age: Duration) -> Duration {
        let kind = kind(line);
        let usual = self.kinds().iter().find(|(known, _)| known == kind).map(|(_, usual)| *usual);
        usual.and_then(|usual| usual.checked_sub(age)).filter(|left| !left.is_zero()).unwrap_or(age)
    }
}

/// Requests of a kind have the method and the first segment of the path in common.
fn kind(line: &[u8]) -> &[u8] {
    let path = line.iter().position(|&byte| byte == b'/').map_or(line.len(), |at| at + 1);
    let segment = line[path..].iter().position(|&byte| matches!(byte, b'/' | b'?')).unwrap_or(line.len() - path);
    &line[..(path + segment).min(64)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_request_under_way_has_no_token() {
        let said = unfinished(b"GET /a?token=secret&b=1", None, Millis(0)).what;
        assert_eq!(said, "GET /a?token=...&b=1");
    }

    #[test]
    fn what_is_expected_follows_from_what_was() {
        let durations = Durations::default();
        let ms = Duration::from_millis;
        assert_eq!(durations.expected(b"GET /a/1", ms(70)), ms(70), "unknown");
        durations.note(b"GET /a/1?x", ms(1000));
        assert_eq!(durations.expected(b"GET /a/2", ms(300)), ms(700));
        assert_eq!(durations.expected(b"GET /b/2", ms(300)), ms(300));
        assert_eq!(durations.expected(b"POST /a/2", ms(300)), ms(300));
        assert_eq!(durations.expected(b"GET /a", ms(1500)), ms(1500), "longer than ever");
        durations.note(b"GET /a/3", ms(100));
        assert_eq!(durations.expected(b"GET /a/2", ms(0)), ms(900), "forgotten little by little");
        for number in 0..KINDS {
            durations.note(format!("GET /{number}/").as_bytes(), ms(50));
        }
        assert_eq!(durations.kinds().len(), KINDS);
        assert_eq!(durations.expected(b"GET /a/2", ms(7)), ms(7));
        assert_eq!((kind(b"OPTIONS *"), kind(b"GET /"), kind(b"")), (&b"OPTIONS *"[..], &b"GET /"[..], &b""[..]));
    }
}
