//! What the threads execute: for whoever has to cut it, to wait for it, or to say what is waited for.

use super::socket::Socket;
use crate::clock::Millis;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What one thread is executing.
#[derive(Default)]
pub struct InFlight(Mutex<Flight>);

#[derive(Default)]
struct Flight {
    socket: Option<Arc<Socket>>,
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

impl InFlight {
    fn flight(&self) -> MutexGuard<'_, Flight> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handler begins, or a response goes on. It ends when the response is out or has to wait.
    pub(super) fn begin(&self, socket: &Arc<Socket>, line: &[u8], since: Millis, handler: bool) {
        let mut flight = self.flight();
        flight.socket = Some(socket.clone());
        flight.line.clear();
        flight.line.extend_from_slice(line);
        flight.since = Some(since);
        flight.handler = handler;
    }

    pub(super) fn end(&self, durations: &Durations) {
        let mut flight = self.flight();
        flight.socket = None;
        if let Some(since) = flight.since.filter(|_| flight.handler) {
            let took = Millis::now().since(since);
            if took >= SHORT {
                durations.note(&flight.line, took);
            }
        }
    }

    /// What is in a handler, and since when.
    pub fn current(&self, now: Millis) -> Option<Unfinished> {
        let flight = self.flight();
        flight.socket.as_ref().filter(|_| flight.handler)?;
        Some(flight.unfinished(now))
    }

    /// How much longer its handler is expected to take; `None` if nothing is in one.
    pub fn expected(&self, now: Millis, durations: &Durations) -> Option<Duration> {
        let flight = self.flight();
        flight.socket.as_ref().filter(|_| flight.handler)?;
        Some(durations.expected(&flight.line, now.since(flight.since.unwrap_or(now))))
    }

    /// Ends the connection under the handler. Answers what it was, if there is one.
    pub fn cut(&self, now: Millis) -> Option<Unfinished> {
        let mut flight = self.flight();
        let socket = flight.socket.take()?;
        socket.cut();
        Some(flight.unfinished(now))
    }
}

impl Flight {
    fn unfinished(&self, now: Millis) -> Unfinished {
        let age = now.since(self.since.unwrap_or(now));
        Unfinished { what: String::from_utf8_lossy(&self.line).into_owned(), age }
    }
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
