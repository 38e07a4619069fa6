//! Another process, as proc(5) shows it.

use http1::number::decimal;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;

/// The most that is read of a command line: a process can make its own as long as it likes.
const COMMAND_LINE: u64 = 4096;

/// A process that ran, and not another one that gets its pid later.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    /// A signal by this goes to that process or to nobody. `None` where the kernel has no such thing (before 5.3).
    handle: Option<OwnedFd>,
    /// As the kernel knows it: 15 bytes at most.
    pub name: String,
    /// In clock ticks since boot.
    started: u64,
    /// Whose it is.
    pub real_user: u32,
    /// Whose rights it has, and whose the files are that it makes.
    pub effective_user: u32,
    /// Whether HUP does anything but end it: it is caught, or blocked as it is while a server executes its program
    /// afresh.
    pub handles_hup: bool,
}

impl Process {
    /// A process that has not ended.
    pub fn find(pid: Pid) -> Option<Process> {
        // First: then what is read belongs to the process that it holds, or that one is gone and gets no signal.
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Some(handle),
            Err(Errno::NOSYS | Errno::PERM | Errno::MFILE | Errno::NFILE) => None,
            // The number of a thread among them, which proc(5) shows as well.
            Err(_) => return None,
        };
        let (name, started) = stat(pid)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("Tgid:").and_then(decimal) != Some(pid.as_raw_nonzero().get().unsigned_abs()) {
            return None;
        }
        let mut users = field("Uid:")?.split_ascii_whitespace().map(decimal);
        let mask = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
        Some(Process {
            pid,
            handle,
            name,
            started,
            real_user: users.next()??,
            effective_user: users.next()??,
            // Where that cannot be read it is believed.
            handles_hup: mask("SigCgt:")
                .zip(mask("SigBlk:"))
                .is_none_or(|(caught, blocked)| (caught | blocked) & 1 != 0),
        })
    }

    /// Whether that is its program's name: the kernel cuts one at 15 bytes, and a program may be called by another name,
    /// or run by an emulator.
    pub fn is_called(&self, program: &str) -> bool {
        let short = &program.as_bytes()[..program.len().min(15)];
        if self.name.as_bytes() == short {
            return true;
        }
        let mut line = Vec::new();
        let file = File::open(format!("/proc/{}/cmdline", self.pid));
        if file.and_then(|file| file.take(COMMAND_LINE).read_to_end(&mut line)).is_err() {
            return false;
        }
        let called = line.split(|&byte| byte == 0).next().unwrap_or_default();
        called.rsplit(|&byte| byte == b'/').next() == Some(program.as_bytes())
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self) -> bool {
        stat(self.pid).is_some_and(|(_, started)| started == self.started)
    }

    /// Sends it a signal. It may have become another program since, but not another process.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        if let Some(handle) = &self.handle {
            match pidfd_send_signal(handle, signal) {
                // A filter of system calls may know the one call and not the other.
                Err(Errno::NOSYS | Errno::PERM) => {}
                sent => return sent,
            }
        }
        match self.is_running() {
            true => kill_process(self.pid, signal),
            false => Err(Errno::SRCH),
        }
    }
}

/// Name and start of a process that has not ended.
fn stat(pid: Pid) -> Option<(String, u64)> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The name stands in parentheses and may contain some itself.
    let (before, after) = text.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    let mut fields = after.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    // The state is field 3, the start time field 22.
    Some((name, decimal(fields.nth(18)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_and_a_thread_is_none() {
        let ours = Process::find(rustix::process::getpid()).expect("it runs");
        assert!(ours.is_running());
        assert_eq!(
            (ours.real_user, ours.effective_user),
            (rustix::process::getuid().as_raw(), rustix::process::geteuid().as_raw())
        );
        // A test runs in a thread of its own.
        assert!(Process::find(rustix::thread::gettid()).is_none());
    }
}
