//! A process that this one starts, and how it ends.
//!
//! By posix_spawn(3) and not by `std::process::Command`: that is 37 KB of program beside the list of arguments and the
//! environment which `execve` needs anyway, and it has no way to set the child's signal mask.

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use rustix::process::{Pid, WaitOptions, WaitStatus, kill_process, waitpid};
use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Those that were started here and nobody has waited for: their end is for who started them.
static OURS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
static REAPS: AtomicBool = AtomicBool::new(false);

fn ours() -> MutexGuard<'static, Vec<Pid>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on whatever ends and was not started here is waited for.
pub fn reap_orphans_from_now() {
    REAPS.store(true, Ordering::SeqCst);
    reap_orphans();
}

/// Waits for those that have ended and were not started here, if that is wanted.
///
/// The kernel shows the first that has ended. If that is ours, others may stand behind it: who waits for it looks again.
pub fn reap_orphans() {
    if !REAPS.load(Ordering::SeqCst) {
        return;
    }
    // One that is being started has no number yet, so nobody is waited for meanwhile.
    let ours = ours();
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(ended) = waitid(Id::All, look) {
        let Some(pid) = ended.pid().and_then(|pid| Pid::from_raw(pid.as_raw())) else { return };
        if ours.contains(&pid) || waitpid(Some(pid), WaitOptions::NOHANG).is_err() {
            return;
        }
    }
}

/// A process that was started here. Once it has been seen to end, its pid may be another's.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    status: Option<WaitStatus>,
}

impl Child {
    /// Starts the program with that file for each of those descriptors, and the other standard streams of this process.
    /// In a process group of its own no key at the terminal reaches it.
    ///
    /// No signal is blocked in it, although the threads of a server block some, and SIGPIPE ends it.
    pub fn start(
        path: &CStr,
        args: &[CString],
        environment: &[CString],
        streams: &[(BorrowedFd<'_>, RawFd)],
        own_group: bool,
    ) -> io::Result<Child> {
        let mut actions = PosixSpawnFileActions::init()?;
        for (file, stream) in streams {
            actions.add_dup2(file.as_raw_fd(), *stream)?;
        }
        let mut flags = PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF;
        flags.set(PosixSpawnFlags::POSIX_SPAWN_SETPGROUP, own_group);
        // The attributes are for group 0, a new one, from the beginning.
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(flags)?;
        attributes.set_sigmask(&SigSet::empty())?;
        attributes.set_sigdefault(&SigSet::from(Signal::SIGPIPE))?;
        let mut ours = ours();
        let pid = posix_spawn(path, &actions, &attributes, args, environment)?;
        let pid = Pid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::Other)?;
        ours.push(pid);
        Ok(Child { pid, status: None })
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> io::Result<Option<WaitStatus>> {
        self.wait(WaitOptions::NOHANG)
    }

    /// Kills and reaps it, unless it has been reaped already.
    pub fn end(&mut self) {
        // An error says that the application has waited for it, and then the pid may be another's.
        if let Ok(None) = self.try_wait() {
            let _ = kill_process(self.pid, rustix::process::Signal::KILL);
            let _ = self.wait(WaitOptions::empty());
        }
    }

    /// It is nobody's any more, and what stands behind it can be seen.
    fn is_over(&self) {
        ours().retain(|pid| *pid != self.pid);
        reap_orphans();
    }

    fn wait(&mut self, options: WaitOptions) -> io::Result<Option<WaitStatus>> {
        if self.status.is_none() {
            let ended = rustix::io::retry_on_intr(|| waitpid(Some(self.pid), options))?;
            self.status = ended.map(|(_, status)| status);
            if self.status.is_some() {
                self.is_over();
            }
        }
        Ok(self.status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.is_over();
        }
    }
}

/// How a child ended, for a message.
pub struct How(pub WaitStatus);

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.exit_status(), self.0.terminating_signal()) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, signal) => write!(f, "signal {}", signal.unwrap_or_default()),
        }
    }
}
