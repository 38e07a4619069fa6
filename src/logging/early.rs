//! What is said before there is a log, and where it is none of the log's business.
//!
//! What is wrong with a command line or a configuration is told to who typed it, as `handover: …` on stderr. A successor has
//! nobody who typed anything: its stderr is its predecessor's, most likely that one's log, so that whatever it says there
//! before its own log is up is a line of a log already, with process and generation.

use super::line::push_early_line;
use super::started;
use crate::config::LogFormat;
use crate::generation::generation;
use crate::lifecycle::program;
use crate::sys::stdio::{MOMENT, Stream};
use log::Level;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether somebody serves already, whose log this is.
pub fn succeeds() -> bool {
    program::is_successor() || program::state_of_this_process().is_some()
}

/// A line of the log, on stderr, of a process that has none yet. Nothing else is known of it than that it is for people.
pub fn say(level: Level, message: fmt::Arguments<'_>) {
    let known = generation() > 1 || program::generation_before().is_some();
    let mut line = String::new();
    push_early_line(&mut line, level, known.then(generation), message);
    write(&line);
}

/// The last words of a process that cannot run, or go on: in the log where there is one that is read, and on stderr to who has
/// started this.
pub fn last_words(program: &str, why: fmt::Arguments<'_>) {
    let log = started().filter(|_| log::log_enabled!(Level::Error));
    let is_said = SAID.load(Ordering::Relaxed);
    match log {
        None if succeeds() => say(Level::Error, why),
        // Who starts it by hand reads this; a machine that reads JSON wants nothing else.
        Some(log) if log.is_file() || (log.format == LogFormat::Text && generation() == 1 && !is_said) => {
            if log.is_file() && !is_said {
                log::error!("{why}");
            }
            write(&format!("{program}: {why}\n"));
        }
        Some(_) if !is_said => log::error!("{why}"),
        Some(_) => {}
        None => write(&format!("{program}: {why}\n")),
    }
}

static SAID: AtomicBool = AtomicBool::new(false);

/// The log has said why this process ends.
pub fn has_said_why() {
    SAID.store(true, Ordering::Relaxed);
}

/// Does not wait: a process that hangs is worse than one that ends without a word, and the exit code says the same.
fn write(text: &str) {
    let _ = Stream::stderr().write_within(text.as_bytes(), MOMENT);
}
