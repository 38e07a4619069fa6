//! The place of one connection: its atomic state, its deadline, and the connection itself.
//!
//! ```text
//!            event                pop               event
//!  parked ──────────▶ Queued ──────────▶ Running ──────────▶ RunningAgain
//!    ▲                  │ queue deadline    │ ▲                  │
//!    │                  ▼                   │ └──── look again ───┘
//!    │               Expired                │
//!    ├──────────────────────────────────────┴──▶ Closed
//!    └──▶ Frozen ──▶ parked again │ Closed (moved)
//! ```
//! Parked is one of `Idle` (waiting for a request), `Reading` (inside one), `Writing` (the client has to read first)
//! and `Waiting` (for its turn to stream). Whoever moves the state out of parked owns the connection until it moves
//! it back: the worker by popping it from the queue, the acceptor when a deadline has passed. The mutex around the
//! connection is therefore never contended; it is there so that no `unsafe` is.

use crate::clock::Millis;
use crate::connection::Connection;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a connection's state says; see the graph above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Place {
    /// Parked, nothing of a request has arrived.
    Idle,
    /// Parked inside a request, or lingering.
    Reading,
    /// Parked until the client has read.
    Writing,
    /// Parked until half of the pool is not streaming.
    Waiting,
    /// In the channel.
    Queued,
    /// A worker has it, or for a moment the acceptor.
    Running,
    /// As `Running`, and an event came meanwhile: look again before parking.
    RunningAgain,
    /// Its queue deadline passed: the acceptor answered and owns it; a worker that pops it drops the entry.
    Expired,
    /// On its way to the successor: events and deadlines pass it by.
    Frozen,
    /// Gone.
    Closed,
}

const PLACES: [Place; 10] = [
    Place::Idle,
    Place::Reading,
    Place::Writing,
    Place::Waiting,
    Place::Queued,
    Place::Running,
    Place::RunningAgain,
    Place::Expired,
    Place::Frozen,
    Place::Closed,
];

const PLACE_MASK: u32 = 0xff;
/// The peer has closed its side: a short read does not mean that the socket is drained.
const PEER_CLOSED: u32 = 0x100;
/// Queued with nothing of a response written: a 503 may still be said.
const ANSWERABLE: u32 = 0x200;

impl Place {
    fn of(state: u32) -> Place {
        PLACES[(state & PLACE_MASK) as usize]
    }

    /// Whether nobody has it and an event or deadline decides what comes next.
    pub fn is_parked(self) -> bool {
        matches!(self, Place::Idle | Place::Reading | Place::Writing | Place::Waiting)
    }
}

/// What the poller learned about a connection.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    pub readable: bool,
    pub writable: bool,
    /// The peer closed its side, or both are gone.
    pub closed: bool,
}

/// What the acceptor does with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notified {
    /// Put it into the channel: it is `Queued` now.
    Enqueue,
    /// Nothing; whoever has it will see it.
    Nothing,
    /// The acceptor owns it: throw away what it sends.
    Discard,
}

/// One connection's place in the server.
pub struct Slot {
    state: AtomicU32,
    deadline: AtomicU32,
    queued_at: AtomicU32,
    token: usize,
    connection: Mutex<Option<Connection>>,
}

impl Slot {
    /// A connection that is parked until its first event.
    pub fn new(token: usize, connection: Connection, place: Place, answerable: bool, deadline: Millis) -> Slot {
        let flag = if answerable { ANSWERABLE } else { 0 };
        Slot {
            state: AtomicU32::new(place as u32 | flag),
            deadline: AtomicU32::new(wrap(deadline)),
            queued_at: AtomicU32::new(0),
            token,
            connection: Mutex::new(Some(connection)),
        }
    }

    /// The poller's token, which is the index and the generation of its entry.
    pub fn token(&self) -> usize {
        self.token
    }

    /// The connection; only for whoever owns it by its state.
    pub fn connection(&self) -> MutexGuard<'_, Option<Connection>> {
        // A panic under the lock left the connection in no state to go on with, but it is closed right after.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is now.
    pub fn place(&self) -> Place {
        Place::of(self.state.load(Ordering::Acquire))
    }

    /// Whether a 503 may still be said to it.
    pub fn is_answerable(&self) -> bool {
        self.state.load(Ordering::Acquire) & ANSWERABLE != 0
    }

    /// Whether the peer has closed its side.
    pub fn is_peer_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & PEER_CLOSED != 0
    }

    fn update(&self, change: impl Fn(u32) -> Option<u32>) -> Result<u32, u32> {
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
    }

    /// The acceptor saw an event.
    pub fn notify(&self, ready: Readiness) -> Notified {
        let closed = if ready.closed { PEER_CLOSED } else { 0 };
        let mut outcome = Notified::Nothing;
        // `fetch_update` may run the closure again, so the outcome is set on every path.
        let mut next = |state: u32| {
            let flags = state & !PLACE_MASK | closed;
            let (place, notified) = match Place::of(state) {
                Place::Idle | Place::Reading if ready.readable || ready.closed => (Place::Queued, Notified::Enqueue),
                Place::Writing if ready.writable => (Place::Queued, Notified::Enqueue),
                Place::Running => (Place::RunningAgain, Notified::Nothing),
                Place::Expired => (Place::Expired, Notified::Discard),
                place => (place, Notified::Nothing),
            };
            outcome = notified;
            Some(flags | place as u32)
        };
        let mut state = self.state.load(Ordering::Acquire);
        while let Some(new) = next(state) {
            match self.state.compare_exchange_weak(state, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(actual) => state = actual,
            }
        }
        outcome
    }

    /// A worker popped it. Answers whether the peer has closed its side, or `None` if the entry is stale.
    pub fn begin(&self) -> Option<bool> {
        let start = |state| (Place::of(state) == Place::Queued).then_some(state & PEER_CLOSED | Place::Running as u32);
        self.update(start).ok().map(|state| state & PEER_CLOSED != 0)
    }

    /// The owner parks it. Answers `false` if an event came meanwhile: then it is still the owner's.
    pub fn park(&self, place: Place, answerable: bool, deadline: Millis) -> bool {
        self.set_deadline(deadline);
        let flag = if answerable { ANSWERABLE } else { 0 };
        let parked = self.update(|state| match Place::of(state) {
            Place::RunningAgain => None,
            _ => Some(state & PEER_CLOSED | flag | place as u32),
        });
        parked.is_ok()
    }

    /// The owner looks again after [`Slot::park`] refused. Answers whether the peer has closed its side.
    pub fn look_again(&self) -> bool {
        let state = self.update(|state| Some(state & !PLACE_MASK | Place::Running as u32));
        state.unwrap_or_else(|state| state) & PEER_CLOSED != 0
    }

    /// The acceptor takes it out of the given place, to act on a deadline.
    pub fn take(&self, from: Place, to: Place) -> bool {
        self.update(|state| (Place::of(state) == from).then_some(state & !PLACE_MASK | to as u32)).is_ok()
    }

    /// The owner puts it into the channel again.
    pub fn requeue(&self, answerable: bool) {
        let flag = if answerable { ANSWERABLE } else { 0 };
        let _ = self.update(|state| Some(state & PEER_CLOSED | flag | Place::Queued as u32));
    }

    /// The owner closes it: the socket goes, and nothing that still holds the slot can use it.
    pub fn close(&self) {
        *self.connection() = None;
        self.state.store(Place::Closed as u32, Ordering::Release);
    }

    /// The deadline's place is one word: 32 bits of milliseconds, compared around the wrap, reach 24 days.
    pub fn set_deadline(&self, deadline: Millis) {
        self.deadline.store(wrap(deadline), Ordering::Relaxed);
    }

    /// Milliseconds until the deadline, negative once it has passed.
    pub fn remaining(&self, now: Millis) -> i32 {
        self.deadline.load(Ordering::Relaxed).wrapping_sub(wrap(now)) as i32
    }

    /// Remembers since when it is in the channel. Only the acceptor reads and writes this.
    pub fn set_queued_at(&self, now: Millis) {
        self.queued_at.store(wrap(now), Ordering::Relaxed);
    }

    /// Milliseconds in the channel.
    pub fn queued_for(&self, now: Millis) -> i32 {
        wrap(now).wrapping_sub(self.queued_at.load(Ordering::Relaxed)) as i32
    }
}

fn wrap(time: Millis) -> u32 {
    time.0 as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Connection;

    const READABLE: Readiness = Readiness { readable: true, writable: true, closed: false };
    const WRITABLE: Readiness = Readiness { readable: false, writable: true, closed: false };

    fn slot() -> Slot {
        Slot::new(7, Connection::for_test(), Place::Idle, true, Millis(100))
    }

    #[test]
    fn an_event_while_running_is_not_lost() {
        let slot = slot();
        assert_eq!(slot.notify(WRITABLE), Notified::Nothing);
        assert_eq!(slot.notify(READABLE), Notified::Enqueue);
        assert_eq!(slot.notify(READABLE), Notified::Nothing, "at most once in the channel");
        assert_eq!(slot.begin(), Some(false));
        assert_eq!(slot.begin(), None);
        assert_eq!(slot.notify(READABLE), Notified::Nothing);
        assert!(!slot.park(Place::Idle, true, Millis(1)), "an event came");
        slot.look_again();
        assert!(slot.park(Place::Writing, false, Millis(1)));
        assert_eq!(slot.notify(WRITABLE), Notified::Enqueue);
    }

    #[test]
    fn an_expired_entry_is_dropped_by_the_worker() {
        let slot = slot();
        assert_eq!(slot.notify(READABLE), Notified::Enqueue);
        assert!(slot.is_answerable());
        assert!(slot.take(Place::Queued, Place::Expired));
        assert_eq!(slot.begin(), None);
        assert_eq!(slot.notify(READABLE), Notified::Discard);
        slot.close();
        assert_eq!(slot.notify(READABLE), Notified::Nothing);
    }

    #[test]
    fn deadlines_survive_the_wrap() {
        let slot = slot();
        let now = Millis(u64::from(u32::MAX) - 10);
        slot.set_deadline(Millis(now.0 + 100));
        assert_eq!(slot.remaining(now), 100);
        assert_eq!(slot.remaining(Millis(now.0 + 130)), -30);
    }
}
