//! What panics have to say is said in the log. std prints it to stderr, which may be a pipe that nobody reads, and a handler
//! that panics would wait for that; it would be a flood like any other; and it has neither process nor generation.

use super::early;
use super::rate_limit::{KeptBack, Lines};
use super::started;
use crate::clock::Millis;
use crate::lifecycle::way_back::{self, Hook};
use log::Level;
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::panic::{self, PanicHookInfo};

/// From here on, unless the application has set a hook: that is its own affair, and is asked as seldom.
pub fn log_all() {
    match set_hook() {
        None => panic::set_hook(own_hook()),
        Some(set) => panic::set_hook(Box::new(move |panic| {
            if another(panic).is_some() {
                set(panic);
            }
        })),
    }
}

/// The same for a process that has no log yet.
pub fn log_early() {
    panic::set_hook(set_hook().unwrap_or_else(own_hook));
}

/// The hook that somebody else has set, which is taken away.
fn set_hook() -> Option<Hook> {
    way_back::take_hook().filter(|set| !std::ptr::eq(&raw const **set, &raw const *own_hook()))
}

/// In one place, so that it is always the same function with the same table.
#[inline(never)]
fn own_hook() -> Hook {
    Box::new(say)
}

fn say(panic: &PanicHookInfo<'_>) {
    if let Some(kept_back) = another(panic) {
        say_once(panic, kept_back);
    }
}

/// Whether it is one of those that are told.
fn another(panic: &PanicHookInfo<'_>) -> Option<KeptBack> {
    static SAID: Lines = Lines::new();
    way_back::remember_panic(panic);
    SAID.another(Millis::now())
}

/// What a panic says, if that is text.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

fn say_once(panic: &PanicHookInfo<'_>, kept_back: KeptBack) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let text = panic_text(panic.payload()).unwrap_or("something that is no text");
    match panic.location() {
        Some(place) => error(format_args!("thread {thread} panicked at {place}: {text}{kept_back}")),
        None => error(format_args!("thread {thread} panicked: {text}{kept_back}")),
    }
    // Only if RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        for line in backtrace.to_string().lines() {
            error(format_args!("{line}"));
        }
    }
}

fn error(message: fmt::Arguments<'_>) {
    match started() {
        Some(_) => log::error!("{message}"),
        None => early::say(Level::Error, message),
    }
}
