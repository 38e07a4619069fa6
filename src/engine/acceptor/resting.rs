//! What this thread does when there is nothing to do: it gives back memory, once, until something happens again.

use crate::clock::Millis;
use crate::sys::allocator::give_back_freed;
use crate::sys::resident::Executable;
use std::time::{Duration, Instant};

/// Nothing has happened for that long, or for longer where it takes long. What was given back costs the next request some
/// 60 us, so at worst a ten-thousandth of the time.
const AFTER: Duration = Duration::from_secs(1);

/// How many times as long as it took is waited before the next.
const LEAST: u32 = 1000;

/// When that is; by itself never.
pub struct Resting {
    executable: Option<Executable>,
    due: Millis,
    /// How long to wait at the least: an application may have a heap that takes long to look through.
    pause: Duration,
}

impl Default for Resting {
    fn default() -> Resting {
        Resting { executable: None, due: Millis::NEVER, pause: AFTER }
    }
}

impl Resting {
    /// For a process that is the server's alone.
    pub fn of_this_process() -> Resting {
        Resting { executable: Some(Executable::of_this_process()), ..Resting::default() }
    }

    /// Something has happened.
    pub fn stir(&mut self, now: Millis) {
        if self.executable.is_some() {
            self.due = now.after(self.pause);
        }
    }

    /// When to look again.
    pub fn due(&self) -> Millis {
        self.due
    }

    /// Gives back what nobody needs, if it is time. The program's pages last: waiting for events needs few of them.
    pub fn rest(&mut self, now: Millis) {
        if now < self.due {
            return;
        }
        self.due = Millis::NEVER;
        let began = Instant::now();
        give_back_freed();
        self.pause = AFTER.max(began.elapsed() * LEAST);
        if let Some(executable) = &mut self.executable {
            executable.give_back();
        }
    }
}
