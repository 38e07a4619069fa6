//! The place of one connection: its word (see [`word`]), its deadline, and the connection itself.
//!
//! Whoever owns the connection by its word locks the mutex, which is therefore never contended; it is there so that no
//! `unsafe` is.

mod word;

pub use word::{AtomicWord, Notified, Parked, Readiness, Sched, Shed, Word};

use crate::clock::Millis;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// No deadline is later, so that 32 bits of milliseconds can be compared around the wrap. What is due later, or never, is
/// looked at then, and asks for another.
pub const FARTHEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How an owner parks a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parking {
    pub parked: Parked,
    /// When the acceptor acts; in [`FARTHEST`] at the latest.
    pub deadline: Millis,
    /// From when on it may go for another, if it may.
    pub sheddable_at: Millis,
}

/// One connection's place in the server.
pub struct Slot<T> {
    word: AtomicWord,
    deadline: AtomicU32,
    sheddable_at: AtomicU32,
    queued_at: AtomicU32,
    token: usize,
    occupant: Mutex<Option<T>>,
}

impl<T> Slot<T> {
    /// A connection that is parked until its first event.
    pub fn new(token: usize, occupant: T, parking: Parking) -> Slot<T> {
        Slot {
            word: AtomicWord::parked(parking.parked),
            deadline: AtomicU32::new(wrap(parking.deadline)),
            sheddable_at: AtomicU32::new(wrap(parking.sheddable_at)),
            queued_at: AtomicU32::new(0),
            token,
            occupant: Mutex::new(Some(occupant)),
        }
    }

    /// The poller's token, which is the index and the generation of its entry.
    pub fn token(&self) -> usize {
        self.token
    }

    /// The connection; only for whoever owns it by its word.
    pub fn connection(&self) -> MutexGuard<'_, Option<T>> {
        // A panic under the lock left the connection in no state to go on with, but it is closed right after.
        self.occupant.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner parks it. `false` if an event came meanwhile: then it is still the owner's.
    pub fn park(&self, parking: Parking) -> bool {
        self.set_deadline(parking.deadline);
        self.sheddable_at.store(wrap(parking.sheddable_at), Ordering::Relaxed);
        self.word.park(parking.parked)
    }

    /// The owner parks it as it was.
    pub fn park_again(&self, parked: Parked, deadline: Millis) -> bool {
        self.set_deadline(deadline);
        self.word.park(parked)
    }

    /// Why it may go for another now; it has been waited for.
    pub fn sheds(&self, seen: Word, now: Millis) -> Option<Shed> {
        let waited = wrap(now).wrapping_sub(self.sheddable_at.load(Ordering::Relaxed)) as i32 >= 0;
        seen.parked()?.shed.filter(|_| waited)
    }

    /// The owner closes it: the socket goes, and nothing that still holds the slot can use it.
    pub fn close(&self) {
        *self.connection() = None;
        self.word.close();
    }

    /// The deadline's place is one word: 32 bits of milliseconds, compared around the wrap, reach 24 days.
    pub fn set_deadline(&self, deadline: Millis) {
        self.deadline.store(wrap(deadline), Ordering::Relaxed);
    }

    /// Whether that deadline is before the one that it has had.
    pub fn is_sooner(&self, deadline: Millis) -> bool {
        wrap(deadline).wrapping_sub(self.deadline.load(Ordering::Relaxed)).cast_signed() < 0
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

/// All steps but those that do something about the deadline or the connection as well.
impl<T> Deref for Slot<T> {
    type Target = AtomicWord;

    fn deref(&self) -> &AtomicWord {
        &self.word
    }
}

fn wrap(time: Millis) -> u32 {
    time.0 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const READABLE: Readiness =
        Readiness { readable: true, writable: true, closed: false, urgent: false, woken: false };
    const WRITABLE: Readiness =
        Readiness { readable: false, writable: true, closed: false, urgent: false, woken: false };
    const READING: Parked = Parked::READING;
    const WOKEN: Readiness = Readiness { readable: false, writable: false, woken: true, ..READABLE };
    const SUBSCRIBED: Parked = Parked { on_wake: true, refusable: false, shed: None, ..READING };
    const WRITING: Parked = Parked { on_readable: false, on_writable: true, refusable: false, shed: None, ..READING };

    fn parking(parked: Parked) -> Parking {
        Parking { parked, deadline: Millis(1), sheddable_at: Millis(50) }
    }

    fn slot() -> Slot<()> {
        Slot::new(7, (), Parking { deadline: Millis(100), ..parking(READING) })
    }

    fn is_enqueued(notified: Notified) -> bool {
        matches!(notified, Notified::Enqueue(_))
    }

    #[test]
    fn an_event_while_running_is_not_lost() {
        let slot = slot();
        assert_eq!(slot.notify(WRITABLE), Notified::Nothing);
        assert!(is_enqueued(slot.notify(READABLE)));
        assert_eq!(slot.notify(READABLE), Notified::Nothing, "at most once in the channel");
        assert!(slot.begin().is_some_and(|word| !word.is_peer_closed()));
        assert_eq!(slot.begin(), None);
        assert_eq!(slot.notify(READABLE), Notified::Nothing);
        assert!(!slot.park(parking(READING)), "an event came");
        slot.look_again();
        assert!(slot.park(parking(WRITING)));
        assert!(is_enqueued(slot.notify(WRITABLE)));
    }

    #[test]
    fn a_wake_queues_who_waits_for_it() {
        let slot = slot();
        assert_eq!(slot.notify(WOKEN), Notified::Nothing);
        assert_eq!(slot.load().parked(), Some(READING), "it waits for its client alone");
        assert!(is_enqueued(slot.notify(READABLE)) && slot.begin().is_some());
        assert!(slot.park(parking(SUBSCRIBED)), "what it had not waited for before it looked is nothing to it");
        assert!(is_enqueued(slot.notify(WOKEN)));
        assert_eq!(slot.notify(WOKEN), Notified::Nothing, "at most once in the channel");
        assert!(slot.begin().is_some());
        // Its client comes or goes as well.
        assert!(slot.park(parking(SUBSCRIBED)) && is_enqueued(slot.notify(READABLE)));
    }

    #[test]
    fn a_wake_while_running_is_not_lost() {
        let slot = slot();
        assert!(is_enqueued(slot.notify(READABLE)) && slot.begin().is_some());
        assert_eq!(slot.notify(WOKEN), Notified::Nothing);
        assert!(!slot.park(parking(SUBSCRIBED)), "a wake came");
        slot.look_again();
        assert!(slot.park(parking(SUBSCRIBED)));
        // By the entry that the status thread has left there.
        assert!(is_enqueued(slot.notify(WOKEN)) && slot.claim(slot.load(), Sched::Running));
        assert!(slot.park(parking(SUBSCRIBED)));
        assert_eq!(slot.notify(WOKEN), Notified::Waits);
        slot.close();
        assert_eq!(slot.notify(WOKEN), Notified::Nothing);
    }

    #[test]
    fn an_expired_entry_is_dropped_by_the_worker() {
        let slot = slot();
        assert!(is_enqueued(slot.notify(READABLE)));
        let queued = slot.load();
        assert!(queued.is_refusable());
        assert!(slot.claim(queued, Sched::Expired));
        assert_eq!(slot.begin(), None);
        assert_eq!(slot.notify(READABLE), Notified::Discard);
        slot.close();
        assert_eq!(slot.notify(READABLE), Notified::Nothing);
    }

    /// The queue deadline once wrote its 503 into the middle of an answer: what it had seen was queued and refusable,
    /// and when it acted the connection was queued again, half-way through a response.
    #[test]
    fn what_was_seen_queued_is_not_claimed_once_it_is_queued_for_another_turn() {
        for refusable in [false, true] {
            let slot = slot();
            assert!(is_enqueued(slot.notify(READABLE)));
            let seen = slot.load();
            assert!(slot.begin().is_some());
            assert!(slot.requeue(refusable), "its entry was popped");
            assert_eq!(slot.load().sched(), seen.sched());
            assert!(!slot.claim(seen, Sched::Expired), "{refusable}");
        }
    }

    #[test]
    fn an_entry_that_the_status_thread_leaves_behind_serves_again() {
        let slot = slot();
        assert!(is_enqueued(slot.notify(READABLE)));
        // Looked at and given back: the entry is still there, or was popped meanwhile and a new one is needed.
        assert!(slot.claim(slot.load(), Sched::Running));
        assert!(!slot.put_back(true) && slot.load().is_looked_after() && slot.load().is_refusable());
        assert!(slot.claim(slot.load(), Sched::Running));
        assert_eq!(slot.begin(), None, "popped while the status thread has it");
        assert!(slot.put_back(true));
        // Answered and parked with its entry still in the channel.
        assert!(slot.claim(slot.load(), Sched::Running));
        assert!(slot.park(parking(READING)));
        assert_eq!(slot.notify(READABLE), Notified::Waits, "there is an entry");
        assert!(slot.begin().is_some());
        assert_eq!(slot.begin(), None);
    }

    #[test]
    fn what_moves_has_no_entry_left_when_it_comes_back() {
        let slot = slot();
        let Notified::Enqueue(parked) = slot.notify(READABLE) else { panic!("it was parked") };
        slot.freeze(parked);
        assert_eq!(slot.notify(READABLE), Notified::Nothing);
        assert!(slot.park(parking(READING)));
        assert!(is_enqueued(slot.notify(READABLE)));
    }

    /// A move forgot the entry that the status thread had left in the channel, and what came back from it got a second
    /// one there.
    #[test]
    fn what_moves_with_an_entry_in_the_channel_gets_no_second_one() {
        let slot = slot();
        assert!(is_enqueued(slot.notify(READABLE)));
        assert!(slot.claim(slot.load(), Sched::Running));
        assert!(slot.park(parking(READING)), "answered by the status thread");
        for popped in [false, true] {
            let seen = slot.load();
            assert!(slot.claim(seen, Sched::Running));
            assert!(!popped || slot.begin().is_none());
            slot.freeze(seen);
            assert!(slot.park(parking(READING)));
            assert_eq!(is_enqueued(slot.notify(READABLE)), popped);
            assert!(slot.claim(slot.load(), Sched::Running));
            assert!(slot.park(parking(READING)));
        }
    }

    #[test]
    fn how_it_is_parked_is_read_as_it_was_said() {
        for shed in [None, Some(Shed::Idle), Some(Shed::Late)] {
            for bits in 0..1 << 6 {
                let is = |bit: u32| bits & 1 << bit != 0;
                let parked = Parked {
                    on_readable: is(0),
                    on_writable: is(1),
                    refusable: is(2),
                    wants_stream: is(3),
                    movable: is(4),
                    on_wake: is(5),
                    shed,
                };
                assert_eq!(AtomicWord::parked(parked).load().parked(), Some(parked));
            }
        }
    }

    #[test]
    fn nobody_is_shed_before_he_has_been_waited_for() {
        let slot = slot();
        let seen = slot.load();
        assert_eq!(slot.sheds(seen, Millis(49)), None);
        assert_eq!(slot.sheds(seen, Millis(50)), Some(Shed::Idle));
        assert!(is_enqueued(slot.notify(READABLE)));
        assert_eq!(slot.sheds(slot.load(), Millis(60)), None, "it is not parked");
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
