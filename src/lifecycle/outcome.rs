//! What came of a reload, in a file beside the pid file: a signal gives no answer, and `handover reload` passes this one
//! on.
//!
//! It is text, a `key=value` a line. The times in it are CLOCK_MONOTONIC, the same in every process of a host: who asks
//! for a reload looks at the clock first, and what began later is the answer.

use super::small_file::{self, Stamp, write_beside};
use crate::sys::clock::Clock;
use http1::number::decimal;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The most that is read of such a file.
const MOST: u64 = 16 * 1024;
/// The most that is written of a reason, in characters: the last line of whatever a program has said.
const LONGEST_REASON: usize = 2000;

/// How a reload has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// When it began, see [`now`].
    pub began: u64,
    /// The process that serves now.
    pub pid: u32,
    /// Its generation.
    pub generation: u64,
    /// Why there is no new generation, in one line; `None` if there is.
    pub failure: Option<String>,
}

/// What is in the place of an outcome.
#[derive(Debug)]
pub struct Left {
    /// `None` for what is none.
    pub outcome: Option<Outcome>,
    /// The user that the file belongs to.
    pub owner: u32,
    /// Tells it from the one before.
    pub stamp: Stamp,
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn now() -> u64 {
    Clock::Monotonic.now().as_nanos() as u64
}

/// Where the outcomes of the server with that pid file are.
pub fn path_beside(pid_file: &Path) -> PathBuf {
    let mut path = OsString::from(pid_file);
    path.push(".outcome");
    path.into()
}

impl Outcome {
    /// Leaves it beside that pid file, in the place of the one before.
    ///
    /// # Errors
    /// What the file system says. What was there is as it was.
    pub fn leave(&self, pid_file: &Path) -> io::Result<()> {
        let path = path_beside(pid_file);
        let (temporary, _) = write_beside(&path, &self.text())?;
        fs::rename(&temporary, &path).inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    /// What stands beside that pid file.
    ///
    /// # Errors
    /// What the file system says.
    pub fn find(pid_file: &Path) -> io::Result<Left> {
        let (text, meta) = small_file::read(&path_beside(pid_file), MOST)?;
        Ok(Left { outcome: Outcome::parse(&text), owner: meta.uid(), stamp: Stamp::of(&meta) })
    }

    fn text(&self) -> String {
        let Outcome { began, pid, generation, failure } = self;
        let word = if failure.is_some() { "failed" } else { "ok" };
        let mut text = format!("outcome={word}\ngeneration={generation}\npid={pid}\nbegan={began}\n");
        if let Some(reason) = failure {
            text.push_str("reason=");
            for char in reason.chars().take(LONGEST_REASON) {
                // Writing into a string does not fail.
                let _ = match char.is_control() {
                    true => write!(text, "{}", char.escape_default()),
                    false => text.write_char(char),
                };
            }
            text.push('\n');
        }
        text
    }

    /// What it does not know it passes by: a later version may say more.
    fn parse(text: &str) -> Option<Outcome> {
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let failure = match value("outcome")? {
            "ok" => None,
            "failed" => Some(value("reason").unwrap_or("it does not say why").to_owned()),
            _ => return None,
        };
        Some(Outcome {
            began: decimal(value("began")?)?,
            pid: decimal(value("pid")?)?,
            generation: decimal(value("generation")?)?,
            failure,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for failure in [None, Some("workers is 0".to_owned()), Some("a=b\u{e9}".to_owned())] {
            let outcome = Outcome { began: u64::MAX, pid: 7, generation: 3, failure };
            assert_eq!(Outcome::parse(&outcome.text()), Some(outcome));
        }
        for text in ["", "outcome=ok\n", "outcome=maybe\ngeneration=1\npid=1\nbegan=1\n", "outcome=ok\npid=-1\n"] {
            assert_eq!(Outcome::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_reason_is_one_line_and_not_endless() {
        let reason = format!("one\ntwo\r\u{1b}[2J{}", "x".repeat(100_000));
        let text = Outcome { began: 1, pid: 1, generation: 1, failure: Some(reason) }.text();
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.contains("reason=one\\ntwo\\r\\u{1b}[2Jxxx") && text.len() < 3000, "{text}");
    }
}
