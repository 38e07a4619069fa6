//! The two clocks: monotonic milliseconds for deadlines, wall time for the Date field and what is agreed upon with others.

use crate::sys::clock::Clock;
use http1::date::Date;
use std::time::Duration;

/// Milliseconds of CLOCK_MONOTONIC: the same clock in every process, so that deadlines can cross to a successor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// A deadline that never comes.
    pub const NEVER: Millis = Millis(u64::MAX);

    /// Now, to a few milliseconds: the coarse clock costs no system call and no time-stamp counter.
    pub fn now() -> Millis {
        Millis(Clock::MonotonicCoarse.now().as_millis() as u64)
    }

    /// That much later.
    pub fn after(self, duration: Duration) -> Millis {
        Millis(self.0.saturating_add(duration.as_millis().try_into().unwrap_or(u64::MAX)))
    }

    /// How long until then, nothing if it has passed.
    pub fn until(self, then: Millis) -> Duration {
        Duration::from_millis(then.0.saturating_sub(self.0))
    }

    /// How long since then.
    pub fn since(self, then: Millis) -> Duration {
        then.until(self)
    }
}

/// Milliseconds since the host was started, its sleep included: the age of what is kept counts by it, in every process.
pub fn boot_time() -> i64 {
    Clock::Boot.now().as_millis() as i64
}

/// Time since 1970, for what is agreed upon with others. Nothing of that where the clock stands before.
pub fn wall_clock() -> Duration {
    Clock::Real.now()
}

/// The Date field, formatted once a second.
pub struct DateCache {
    second: i64,
    field: String,
}

impl DateCache {
    /// Formats nothing yet.
    pub fn new() -> DateCache {
        DateCache { second: i64::MIN, field: String::new() }
    }

    /// The field with the current date as RFC 9110 §5.6.7 wants it, line end included.
    pub fn field(&mut self) -> &[u8] {
        let second = Clock::RealCoarse.now().as_secs() as i64;
        if second != self.second {
            self.second = second;
            self.field = format!("Date: {}\r\n", Date(second.try_into().unwrap_or(0)));
        }
        self.field.as_bytes()
    }
}
