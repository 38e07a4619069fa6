//! The signal thread, and Ctrl-C: the only remote control.
//!
//! Every handled signal is blocked before any thread starts and unblocked only in the signal thread, so that no
//! handler's system call is ever interrupted. Signals belong to the process: the first server that runs gets them.

use super::{Event, child};
use crate::Error;
use crate::sys::signals::{ignore, take_pending, wait_for_children};
use crossbeam_channel::{Receiver, Sender};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::{Handle, Signals};
use std::io;
use std::process::{Child, Command};
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
    events: Sender<Event>,
    /// Whether CHLD is handled, which means that somebody else's child has ended.
    reaps: bool,
    previous: SigSet,
    thread: Option<(Handle, JoinHandle<()>)>,
}

fn handled(reaps: bool) -> SigSet {
    let mut handled: SigSet = HANDLED.into_iter().collect();
    handled.add(Signal::SIGINT);
    if reaps {
        handled.add(Signal::SIGCHLD);
    }
    handled
}

fn failed(what: &str, error: impl Into<io::Error>) -> Error {
    let error = error.into();
    Error::runtime(format_args!("cannot {what}"), error)
}

impl SignalThread {
    /// Takes the signals, if no server of this process has taken them before. To be called before any other thread
    /// starts.
    ///
    /// They stay blocked until `serves` has no sender any more.
    pub fn start(events: Sender<Event>, reaps: bool, serves: Receiver<()>) -> Result<Option<SignalThread>, Error> {
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        for ignored in IGNORED {
            ignore(ignored).map_err(|error| failed("ignore a signal", error))?;
        }
        wait_for_children().map_err(|error| failed("wait for children", error))?;
        let mut previous =
            handled(reaps).thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(|error| failed("block signals", error))?;
        // After execve they have been blocked since before; at the end they are to be as in a first generation.
        for signal in handled(true).iter() {
            previous.remove(signal);
        }
        let ctrl_c = events.clone();
        let stop = move || {
            // A server that has ended is stopped.
            let _ = ctrl_c.send(Event::Stop);
        };
        if let Err(error) = ctrlc::set_handler(stop) {
            log::warn!("Ctrl-C stays as the application has it: {error}");
        }
        let mut signals = SignalThread { events, reaps, previous, thread: None };
        signals.resume_after(Some(serves))?;
        Ok(Some(signals))
    }

    /// Starts the thread again after [`SignalThread::suspend`].
    pub fn resume(&mut self) -> Result<(), Error> {
        self.resume_after(None)
    }

    fn resume_after(&mut self, serves: Option<Receiver<()>>) -> Result<(), Error> {
        // INT is registered here as well, behind ctrlc, whose handler this one chains to: as a record that can be
        // drained. The event itself comes from ctrlc.
        let mut signals = Signals::new([SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGINT])
            .map_err(|error| failed("handle signals", error))?;
        let reaps = self.reaps;
        if reaps {
            signals.add_signal(SIGCHLD).map_err(|error| failed("handle signals", error))?;
        }
        let handle = signals.handle();
        let events = self.events.clone();
        let run = move || {
            // Nothing is ever sent.
            let _ = serves.map(|serves| serves.recv());
            if let Err(error) = handled(reaps).thread_unblock() {
                log::error!("cannot unblock signals: {error}");
            }
            if reaps {
                // Those that ended before, in an exec reload for one, say nothing any more.
                child::reap_orphans_from_now();
            }
            // The receiver outlives this thread, which the main thread joins.
            let mut interrupted = false;
            for number in signals.forever() {
                match number {
                    // ctrlc's thread says it; whether it has done so yet, nobody can tell.
                    SIGINT => interrupted = true,
                    SIGCHLD => child::reap_orphans(),
                    number => drop(events.send(event(number))),
                }
            }
            if let Err(error) = handled(reaps).thread_block() {
                log::error!("cannot block signals: {error}");
            }
            // Nothing can come any more, but what came until here may not have been read.
            for number in signals.pending().filter(|number| *number != SIGCHLD) {
                let _ = events.send(event(number));
            }
            // Said twice within a moment is said once, and after any INT the server stops.
            if interrupted {
                let _ = events.send(Event::Stop);
            }
        };
        let thread = thread::Builder::new().name("signals".into()).stack_size(STACK).spawn(run);
        self.thread = Some((handle, thread.map_err(|error| failed("start the signal thread", error))?));
        Ok(())
    }

    /// Ends the thread: from here on signals are pending in the kernel, and those before it are events.
    pub fn suspend(&mut self) {
        let Some((handle, thread)) = self.thread.take() else { return };
        handle.close();
        if thread.join().is_err() {
            log::error!("the signal thread panicked");
        }
    }

    /// Whether a reload was asked for since [`SignalThread::suspend`], which is then no longer pending.
    pub fn take_pending_reload(&self) -> bool {
        // Of this thread and of the process: where the caller blocks them, they wait.
        let reload: SigSet = [Signal::SIGHUP, Signal::SIGUSR2].into_iter().collect();
        take_pending(&reload)
    }

    /// Ends the thread. The signals stay handled, which now means that they do nothing: the process is about to end,
    /// and a second TERM must not change how.
    pub fn join(mut self) {
        self.suspend();
        if let Err(error) = self.previous.thread_set_mask() {
            log::warn!("cannot restore the signal mask: {error}");
        }
    }
}

/// Starts a process with no signal blocked, from a handler for example.
///
/// While a server has the signals of its process, its threads block them, and a child inherits that: one that was
/// started by `Command::spawn` could not be ended by TERM.
///
/// ```no_run
/// let child = handover::spawn(std::process::Command::new("sleep").arg("10"))?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// As for [`Command::spawn`].
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    // A signal that comes just now runs its handler on this thread, which is as good as on the other. In an exec
    // reload, when one would be lost that way, no handler of the application runs.
    let blocked = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let child = command.spawn();
    blocked.thread_set_mask()?;
    child
}

fn event(number: i32) -> Event {
    match number {
        SIGTERM | SIGINT => Event::Stop,
        SIGQUIT => Event::StopNow,
        SIGHUP | SIGUSR2 => Event::Reload,
        _ => Event::Reopen,
    }
}
