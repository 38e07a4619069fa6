//! How long to wait for another process: only time in which this one runs counts.
//!
//! A container that is paused, a virtual machine that is moved or a host that swaps stops both processes. Who wakes
//! first and looks at a clock would find the other one guilty of a silence that was its own.

use std::time::{Duration, Instant};

/// The most that counts between two looks. Whoever has patience looks at least this often, if it can.
const TICK: Duration = Duration::from_millis(50);

/// Time for another process, used up look by look.
#[derive(Debug)]
pub struct Patience {
    time: Duration,
    left: Duration,
    looked: Instant,
}

impl Patience {
    pub fn new(time: Duration) -> Patience {
        Patience { time, left: time, looked: Instant::now() }
    }

    /// A look. Answers whether nothing is left.
    pub fn is_over(&mut self) -> bool {
        self.is_over_at(Instant::now())
    }

    fn is_over_at(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.looked);
        self.left = self.left.saturating_sub(passed.min(TICK));
        self.looked = now;
        self.left.is_zero()
    }

    /// When to look again.
    pub fn next_look(&self) -> Instant {
        self.looked + self.left.min(TICK)
    }

    /// What has been used up.
    pub fn spent(&self) -> Duration {
        self.time.saturating_sub(self.left)
    }

    /// Leaves no more than that.
    pub fn shorten(&mut self, left: Duration) {
        self.left = self.left.min(left);
    }

    /// Begins anew: the other one has given a sign.
    pub fn renew(&mut self) {
        *self = Patience::new(self.time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_our_own_counts_as_one_tick() {
        let mut patience = Patience::new(Duration::from_secs(1));
        let mut now = patience.looked;
        // Frozen for an hour, twice.
        for _ in 0..2 {
            now += Duration::from_secs(3600);
            assert!(!patience.is_over_at(now));
        }
        assert_eq!(patience.spent(), 2 * TICK);
        // What is left takes as many looks as there are ticks in it.
        let mut looks = 2;
        while !patience.is_over_at(patience.next_look()) {
            looks += 1;
        }
        assert_eq!(looks + 1, 20);
        assert_eq!(patience.spent(), Duration::from_secs(1));
    }
}
