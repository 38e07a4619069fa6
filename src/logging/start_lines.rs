//! What the log says of how a server starts: each of it once. A reload starts it again, and says what has become different.
//!
//! A process tells its successor what it has said, as a hash of each line.

use super::started;
use crate::generation::generation;
use crate::lifecycle::{program, way_back};
use http1::number::decimal;
use log::Level;
use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The target of these lines: they are the server's.
const TARGET: &str = "handover::server";

static LINES: Mutex<Option<Lines>> = Mutex::new(None);

#[derive(Debug, Default)]
struct Lines {
    /// What the predecessor has said.
    before: Vec<u64>,
    /// What stands in the log and is still so.
    said: Vec<u64>,
    /// This process has said all of that before it had become another program.
    again: bool,
}

impl Lines {
    /// Whether this is to be said.
    fn is_new(&mut self, hash: u64) -> bool {
        let is_new = !(self.again || self.before.contains(&hash) || self.said.contains(&hash));
        if !self.said.contains(&hash) {
            self.said.push(hash);
        }
        is_new
    }

    /// As [`variable`] writes it, of the predecessor of that generation.
    fn read(text: &str, generation: u64) -> Lines {
        let mut lines = Lines::default();
        // It may be from elsewhere: of a predecessor that does not know it, and passes on what it was started with.
        if let Some((before, hashes)) = text.split_once(':')
            && decimal(before).is_some_and(|before: u64| before.checked_add(1) == Some(generation))
        {
            lines.before = hashes.split(',').filter_map(decimal).collect();
        }
        lines
    }
}

fn lines() -> MutexGuard<'static, Option<Lines>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with<R>(what: impl FnOnce(&mut Lines) -> R) -> R {
    let mut lines = lines();
    what(lines.get_or_insert_with(|| Lines::read(&env::var(program::SAID).unwrap_or_default(), generation())))
}

/// Says that, unless it stands in the log already.
pub fn say(level: Level, line: impl Display) {
    let line = line.to_string();
    say_if_new(level, &line, &line);
}

/// The same for a line with figures that are others each time: it is new if `what` is.
pub fn say_if_new(level: Level, what: &str, line: &str) {
    if !log::log_enabled!(target: TARGET, level) {
        return;
    }
    let log = started();
    // What stands in another log stands there, and not in this one.
    let place = log.as_ref().and_then(|log| log.path.as_deref());
    let hash = way_back::hash(format!("{place:?} {what}").as_bytes());
    if with(|lines| lines.is_new(hash)) {
        log::log!(target: TARGET, level, "{line}");
    }
}

/// This process is back, and nothing is different.
pub fn nothing_is_new() {
    with(|lines| lines.again = true);
}

/// What a successor is to know.
pub fn variable() -> OsString {
    let hashes = with(|lines| lines.said.iter().map(u64::to_string).collect::<Vec<_>>().join(","));
    format!("{}:{hashes}", generation()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_predecessor_has_said_is_not_said_again_and_what_is_different_is() {
        let mut first = Lines::read("", 1);
        assert!(first.is_new(7) && first.is_new(8) && !first.is_new(7));
        assert_eq!(first.said, [7, 8]);
        let mut second = Lines::read("1:7,8", 2);
        assert!(!second.is_new(7) && second.is_new(9));
        assert_eq!(second.said, [7, 9], "the third says 8 if it is so again");
        second.again = true;
        assert!(!second.is_new(10));
    }

    #[test]
    fn what_somebody_elses_successor_was_told_counts_for_nothing() {
        for (text, generation) in [("1:7", 1), ("1:7", 3), ("7", 2), ("x:7", 2), ("", 2), ("18446744073709551615:7", 2)]
        {
            assert!(Lines::read(text, generation).is_new(7), "{text}");
        }
        assert!(!Lines::read("1:x,,7", 2).is_new(7));
    }
}
