//! The signal thread, and Ctrl-C: the only remote control.
//!
//! Every handled signal is blocked before any thread starts and unblocked only in the signal thread, so that no
//! handler's system call is ever interrupted. Signals belong to the process: the first server that runs gets them.

use super::Event;
use crate::Error;
use crossbeam_channel::Sender;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal};
use signal_hook::consts::{SIGHUP, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::{Handle, Signals};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Handled by the signal thread.
const HANDLED: [Signal; 5] = [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
/// A server in the background must not stop because it wrote to its terminal, nor die of a closed pipe or of a log
/// that has reached RLIMIT_FSIZE.
const IGNORED: [Signal; 5] = [Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGWINCH, Signal::SIGPIPE, Signal::SIGXFSZ];
/// The signal thread only turns signals into events.
const STACK: usize = 64 * 1024;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The signals of this process, while a server has them.
pub struct SignalThread {
    handle: Handle,
    thread: JoinHandle<()>,
    previous: SigSet,
}

impl SignalThread {
    /// Takes the signals, if no server of this process has taken them before. To be called before any other thread
    /// starts.
    pub fn start(events: Sender<Event>) -> Result<Option<SignalThread>, Error> {
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        let failed = |what: &str, error: io::Error| Error::runtime(format!("cannot {what}: {error}"), error);
        for ignored in IGNORED {
            // SAFETY: `SigIgn` runs no code.
            unsafe { signal(ignored, SigHandler::SigIgn) }.map_err(|e| failed("ignore a signal", e.into()))?;
        }
        let mut handled: SigSet = HANDLED.into_iter().collect();
        handled.add(Signal::SIGINT);
        let previous =
            handled.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(|error| failed("block signals", error.into()))?;
        let ctrl_c = events.clone();
        let stop = move || {
            // A server that has ended is stopped.
            let _ = ctrl_c.send(Event::Stop);
        };
        if let Err(error) = ctrlc::set_handler(stop) {
            log::warn!("Ctrl-C stays as the application has it: {error}");
        }
        let mut signals = Signals::new([SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2])
            .map_err(|error| failed("handle signals", error))?;
        let handle = signals.handle();
        let run = move || {
            if let Err(error) = handled.thread_unblock() {
                log::error!("cannot unblock signals: {error}");
            }
            for number in &mut signals {
                let event = match number {
                    SIGTERM => Event::Stop,
                    SIGQUIT => Event::StopNow,
                    SIGHUP | SIGUSR2 => Event::Reload,
                    _ => Event::Reopen,
                };
                // The main thread has gone: the server has ended already.
                if events.send(event).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("signals".into()).stack_size(STACK).spawn(run);
        let thread = thread.map_err(|error| failed("start the signal thread", error))?;
        Ok(Some(SignalThread { handle, thread, previous }))
    }

    /// Ends the thread. The signals stay handled, which now means that they do nothing: the process is about to end,
    /// and a second TERM must not change how.
    pub fn join(self) {
        self.handle.close();
        if self.thread.join().is_err() {
            log::error!("the signal thread panicked");
        }
        if let Err(error) = self.previous.thread_set_mask() {
            log::warn!("cannot restore the signal mask: {error}");
        }
    }
}
