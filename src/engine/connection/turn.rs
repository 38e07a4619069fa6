//! How much of a thread one connection gets before others have their turn.

use crate::clock::Millis;
use std::time::Duration;

/// Requests a connection may have answered while others wait.
const REQUESTS: u32 = 16;
/// Bytes a connection may send, or throw away, while others wait.
pub(super) const BYTES: u64 = 1024 * 1024;
/// The same where others of its kind wait behind it for the same thread.
const DELIVERY: u64 = 64 * 1024;
/// How long a connection may keep its thread while others wait: a handler that takes longer is all of a turn.
const TIME: Duration = Duration::from_millis(5);
/// How often it is looked at again because something came just when it was to be parked.
const LOOKS: u32 = 16;

/// What a thread has done for a connection since somebody else had a turn, however often the connection was to be
/// parked meanwhile and was not, because more had come.
pub struct Turn<'w> {
    began: Millis,
    requests: u32,
    bytes: u64,
    looks: u32,
    /// Whether anybody waits for this thread.
    others_wait: &'w dyn Fn() -> bool,
    /// Ends after one request, whoever waits.
    single: bool,
    /// The socket had nothing more when last asked.
    pub(super) drained: bool,
    /// A short read does not mean drained: a FIN stands behind it, an urgent mark, or passed descriptors.
    pub(super) hides_bytes: bool,
    /// The peer has said that nothing more will come.
    pub peer_closed: bool,
    /// It is parked, and there is more for it: it is to have another turn behind the others that wait for one.
    pub more: bool,
}

impl<'w> Turn<'w> {
    pub fn new(others_wait: &'w dyn Fn() -> bool) -> Turn<'w> {
        Turn {
            began: Millis::now(),
            requests: 0,
            bytes: 0,
            looks: 0,
            others_wait,
            single: false,
            drained: false,
            hides_bytes: false,
            peer_closed: false,
            more: false,
        }
    }

    /// For one request and no more, or as many bytes of a subscription as a turn among others may send.
    pub fn of_one_request() -> Turn<'static> {
        Turn { single: true, ..Turn::new(&|| true) }
    }

    /// Whether others of its kind wait behind it for this thread.
    pub(super) fn is_delivery(&self) -> bool {
        self.single
    }

    /// Its owner looks at it, for the first time or because an event came.
    pub fn look(&mut self, hides_bytes: bool) {
        self.looks += 1;
        self.drained = false;
        self.more = false;
        self.hides_bytes = hides_bytes;
    }

    pub(super) fn request(&mut self) {
        self.requests += 1;
    }

    pub(super) fn moved(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it is the others' turn. While nobody waits there is no reason to let go.
    pub(super) fn is_over(&mut self) -> bool {
        if self.single {
            return self.requests > 0 || self.bytes >= DELIVERY;
        }
        let small = self.requests < REQUESTS && self.bytes < BYTES && self.looks <= LOOKS;
        if small && Millis::now().since(self.began) < TIME {
            return false;
        }
        if (self.others_wait)() {
            return true;
        }
        (self.began, self.requests, self.bytes, self.looks) = (Millis::now(), 0, 0, 0);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn requests_bytes_and_looks_count_until_somebody_waits() {
        let waits = Cell::new(false);
        let others_wait = || waits.get();
        let spend: [fn(&mut Turn<'_>); 3] = [
            |turn| (0..REQUESTS).for_each(|_| turn.request()),
            |turn| turn.moved(BYTES),
            |turn| (0..=LOOKS).for_each(|_| turn.look(false)),
        ];
        for spend in spend {
            waits.set(false);
            let mut turn = Turn::new(&others_wait);
            // The clock of this test stands still.
            turn.began = Millis::NEVER;
            spend(&mut turn);
            assert!(!turn.is_over(), "nobody waits");
            turn.began = Millis::NEVER;
            waits.set(true);
            assert!(!turn.is_over(), "it began anew when nobody waited");
            spend(&mut turn);
            assert!(turn.is_over() && turn.is_over());
        }
    }

    #[test]
    fn time_counts_once_others_wait() {
        let mut turn = Turn::new(&|| true);
        turn.began = Millis(Millis::now().0.saturating_sub(TIME.as_millis() as u64));
        turn.request();
        assert!(turn.is_over());
        let mut alone = Turn::new(&|| false);
        alone.began = Millis(0);
        assert!(!alone.is_over() && alone.began > Millis(0));
    }

    #[test]
    fn one_request_is_one() {
        let mut turn = Turn::of_one_request();
        assert!(!turn.is_over());
        turn.request();
        assert!(turn.is_over());
        let mut delivery = Turn::of_one_request();
        delivery.moved(DELIVERY - 1);
        assert!(!delivery.is_over());
        delivery.moved(1);
        assert!(delivery.is_over());
    }
}
