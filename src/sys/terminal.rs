//! Lines that are typed at a terminal without being shown.

use rustix::stdio::stdin;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use std::io;
use std::thread::{self, JoinHandle};

/// While it lives, the terminal of stdin shows nothing of what is typed. It is as before afterwards, also if a signal ends
/// the process in between.
pub struct Hidden {
    before: Termios,
    signals: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Whether stdin is a terminal.
pub fn is_terminal() -> bool {
    rustix::termios::isatty(stdin())
}

impl Hidden {
    /// Switches the echo off. What was typed before is thrown away, since it was seen.
    ///
    /// # Errors
    /// stdin is no terminal, or there is no thread to be had.
    pub fn begin() -> io::Result<Hidden> {
        let before = tcgetattr(stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // No stop by Ctrl-Z, which would leave the terminal as it is to whoever comes next; 0 switches it off.
        hidden.special_codes[SpecialCodeIndex::VSUSP] = 0;
        // Before there is anything to be put back.
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
        let handle = signals.handle();
        let again = before.clone();
        let thread = thread::Builder::new().name("terminal".to_owned()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let _ = tcsetattr(stdin(), OptionalActions::Now, &again);
                // As a shell says it of a process that the signal has ended.
                std::process::exit(128 + signal);
            }
        })?;
        let hidden_now = tcsetattr(stdin(), OptionalActions::Flush, &hidden);
        let terminal = Hidden { before, signals: handle, thread: Some(thread) };
        hidden_now?;
        Ok(terminal)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
        self.signals.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
