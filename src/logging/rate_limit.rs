//! Log lines that a client can bring about again and again: a few in a while, and how many there were besides.

use crate::clock::Millis;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Lines of one kind in a window.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// As `log::error!` and `log::warn!`, the level being the first argument, at most ten times in ten seconds for the place
/// where it stands.
macro_rules! log_rate_limited {
    ($level:ident, $($message:tt)+) => {{
        static LINES: $crate::logging::rate_limit::Lines = $crate::logging::rate_limit::Lines::new();
        if let Some(kept_back) = LINES.another($crate::clock::Millis::now()) {
            log::$level!("{}{kept_back}", format_args!($($message)+));
        }
    }};
}
pub(crate) use log_rate_limited;

/// How many lines of one kind there were.
pub struct Lines {
    /// When the window began, and 0 before the first.
    begun: AtomicU32,
    count: AtomicU32,
}

/// How many lines were not logged since the last that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptBack(u32);

impl Lines {
    pub const fn new() -> Lines {
        Lines { begun: AtomicU32::new(0), count: AtomicU32::new(0) }
    }

    /// Counts one more, to be logged; `None` if it is too many.
    pub fn another(&self, now: Millis) -> Option<KeptBack> {
        // Around the wrap, after 50 days, a window is shorter or longer once.
        let now = (now.0 as u32).max(1);
        let begun = self.begun.load(Ordering::Relaxed);
        let over = begun == 0 || u128::from(now.wrapping_sub(begun)) >= WINDOW.as_millis();
        // Of several threads that see the end of a window, one begins the next.
        if over && self.begun.compare_exchange(begun, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Some(KeptBack(self.count.swap(1, Ordering::Relaxed).saturating_sub(LINES)));
        }
        (self.count.fetch_add(1, Ordering::Relaxed) < LINES).then_some(KeptBack(0))
    }
}

impl fmt::Display for KeptBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            lines => write!(f, " (and {lines} more like it before)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_a_number() {
        let lines = Lines::new();
        let at = |seconds: u64| lines.another(Millis(5000 + seconds * 1000));
        let logged: Vec<KeptBack> = (0..1000).filter_map(|_| at(1)).collect();
        assert_eq!(logged, [KeptBack(0); 10]);
        assert_eq!(at(10), None);
        assert_eq!(at(11).map(|kept_back| kept_back.to_string()).as_deref(), Some(" (and 991 more like it before)"));
        assert_eq!(at(12), Some(KeptBack(0)));
        assert_eq!(at(40).map(|kept_back| kept_back.to_string()).as_deref(), Some(""));
    }
}
