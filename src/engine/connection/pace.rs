//! Whether a client that a response waits for reads fast enough.

use super::Limits;
use crate::clock::Millis;
use std::time::Duration;

/// What a client has to take: in every window so many bytes, and at least one.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub window: Duration,
    pub bytes: u64,
}

impl Pace {
    /// Of the limits for responses.
    pub fn of(limits: &Limits) -> Pace {
        let milliseconds = limits.write_timeout.as_millis().min(u128::from(u64::MAX)) as u64;
        Pace { window: limits.write_timeout, bytes: limits.write_rate.saturating_mul(milliseconds) / 1000 }
    }

    /// Only that something is taken.
    pub fn any(window: Duration) -> Pace {
        Pace { window, bytes: 1 }
    }
}

/// A window that runs while a response waits for its client.
///
/// What counts is what the peer has acknowledged, not what the kernel took from us: a send buffer of megabytes is
/// reported writable only when a third of it is free, for which a slow reader may take longer than a window.
#[derive(Debug, Default)]
pub struct Window(Option<Running>);

#[derive(Debug)]
struct Running {
    ends: Millis,
    /// What the kernel had when it began, and what it was given since.
    handed: u64,
}

impl Window {
    /// The kernel was given that much more.
    pub fn handed(&mut self, bytes: u64) {
        if let Some(running) = &mut self.0 {
            running.handed = running.handed.saturating_add(bytes);
        }
    }

    /// When the client has to have taken its share, while a response waits.
    pub fn ends(&self) -> Option<Millis> {
        self.0.as_ref().map(|running| running.ends)
    }

    /// The response waits. Answers until when; `None` if the client took too little of the window that has ended.
    /// `unsent` tells what the kernel still has.
    pub fn wait(&mut self, now: Millis, pace: Pace, unsent: impl FnOnce() -> u64) -> Option<Millis> {
        let (ended, unsent) = match &self.0 {
            Some(running) if now < running.ends => return Some(running.ends),
            running => (running.as_ref(), unsent()),
        };
        let taken = ended.map(|window| window.handed.saturating_sub(unsent));
        if taken.is_some_and(|taken| taken < pace.bytes.max(1)) {
            return None;
        }
        let ends = now.after(pace.window);
        self.0 = Some(Running { ends, handed: unsent });
        Some(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { window: Duration::from_secs(10), bytes: 1000 };

    #[test]
    fn a_window_ends_when_it_ends_whatever_was_taken_meanwhile() {
        let mut window = Window::default();
        assert_eq!(window.wait(Millis(0), PACE, || 5000), Some(Millis(10_000)));
        window.handed(3000);
        assert_eq!(window.wait(Millis(9_999), PACE, || unreachable!("nobody has to ask yet")), Some(Millis(10_000)));
        // 8,000 handed, 6,900 still there.
        assert_eq!(window.wait(Millis(10_000), PACE, || 6900), Some(Millis(20_000)));
        window.handed(500);
        // 900 of 7,400: a trickle.
        assert_eq!(window.wait(Millis(20_000), PACE, || 6401), None);
    }

    #[test]
    fn without_a_rate_any_byte_is_enough_and_none_is_not() {
        let pace = Pace::any(Duration::from_secs(1));
        let mut window = Window::default();
        window.wait(Millis(0), pace, || 10);
        assert!(window.wait(Millis(1000), pace, || 9).is_some());
        assert!(window.wait(Millis(2000), pace, || 9).is_none());
    }

    #[test]
    fn a_rate_counts_over_the_window() {
        let limits = Limits { write_rate: 100, write_timeout: Duration::from_millis(2500), ..Limits::default() };
        assert_eq!(Pace::of(&limits).bytes, 250);
        let for_ever = Limits { write_rate: u64::MAX, write_timeout: Duration::MAX, ..limits };
        assert_eq!(Pace::of(&for_ever).bytes, u64::MAX / 1000);
    }
}
