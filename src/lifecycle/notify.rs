//! What a service manager is told: the notify protocol of sd_notify(3), which systemd and others speak.
//!
//! In the order of a life: [`ready`](Notifier::ready), at each reload [`reloading`](Notifier::reloading) followed by
//! `ready` (same pid, or nothing came of it) or [`promoted`](Notifier::promoted) (a new pid), at the end
//! [`stopping`](Notifier::stopping). Whoever leaves out the answer to `reloading` hangs the manager's reload.
//!
//! Only the main process may speak (`NotifyAccess=main`), so a successor says nothing until it has been promoted, and
//! its predecessor nothing afterwards. The manager reads one queue: what the predecessor sent before it told the
//! successor arrives before anything the successor sends.

use crate::sys::clock::Clock;
use http1::number::decimal;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a change of state may wait for a manager whose queue is full. Without it the manager would wait for a
/// READY=1 that was never sent; with it a stuck manager costs the main thread a second, and no client anything.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager that started this process, if it wants to be told. Without one every call does nothing, and
/// one that cannot be reached is logged once: serving is never worse for it.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<SocketAddr>,
    watchdog: Option<Duration>,
    /// Another process is the main one now, and this one has nothing to say any more.
    retired: AtomicBool,
    failed: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// A change of state: the manager acts on it and waits for it.
    State,
    /// The next one makes up for it when it is lost.
    Passing,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, and leaves the environment as it is: a successor
    /// needs the first two.
    pub fn from_env() -> Notifier {
        Notifier::from_vars(|name| env::var_os(name), std::process::id())
    }

    fn from_vars(var: impl Fn(&str) -> Option<OsString>, own_pid: u32) -> Notifier {
        let Some(name) = var("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Notifier::default() };
        let manager = match address(&name) {
            Ok(manager) => manager,
            Err(error) => {
                log::warn!("the service manager will not be told anything: NOTIFY_SOCKET is {name:?}: {error}");
                return Notifier::default();
            }
        };
        let number = |name: &str| var(name).and_then(|value| decimal(value.to_str()?));
        // WATCHDOG_PID is who is meant. It is dropped from a successor's environment, because then that one is meant.
        let is_meant = match var("WATCHDOG_PID") {
            None => true,
            Some(pid) => pid.to_str().and_then(decimal) == Some(own_pid),
        };
        let watchdog = number("WATCHDOG_USEC").filter(|&timeout| timeout > 0 && is_meant);
        Notifier {
            manager: Some(manager),
            // Half, as sd_watchdog_enabled(3) recommends: one ping may come late.
            watchdog: watchdog.map(|timeout| Duration::from_micros(timeout) / 2),
            ..Notifier::default()
        }
    }

    /// Whether a manager listens. It follows a new pid, so it makes `overlap` the reload of choice.
    pub fn is_active(&self) -> bool {
        self.manager.is_some()
    }

    /// How often to call [`watchdog`](Notifier::watchdog); `None` when the manager wants none from this process.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Serving: after the start, after an `exec` reload, and after a reload that came to nothing.
    pub fn ready(&self, status: &str) {
        self.send(Urgency::State, &format!("READY=1\nSTATUS={}\n", one_line(status)));
    }

    /// A reload begins. `Type=notify-reload` tells by the time whether this answers its own signal.
    pub fn reloading(&self) {
        let microseconds = Clock::Monotonic.now().as_micros();
        self.send(Urgency::State, &format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=reloading\n"));
    }

    /// The successor is the main process from here on. One datagram, so that no moment lies between the two in which
    /// the manager knows the reload's end and the wrong pid, or takes READY=1 from a process it does not know. To be
    /// said by the predecessor, before it tells the successor; nothing is sent from here afterwards.
    pub fn promoted(&self, main_pid: u32, status: &str) {
        self.send(Urgency::State, &format!("MAINPID={main_pid}\nREADY=1\nSTATUS={}\n", one_line(status)));
        self.retired.store(true, Ordering::Release);
    }

    /// The process that was promoted is gone and this one is the main one again. The manager takes that only from a
    /// process it listens to: with `NotifyAccess=main` it sees the dead one's end instead.
    pub fn main_again(&self, own_pid: u32, status: &str) {
        self.retired.store(false, Ordering::Release);
        self.send(Urgency::State, &format!("MAINPID={own_pid}\nREADY=1\nSTATUS={}\n", one_line(status)));
    }

    /// A stop has begun.
    pub fn stopping(&self) {
        self.send(Urgency::State, "STOPPING=1\nSTATUS=stopping\n");
    }

    /// What `systemctl status` shows.
    pub fn status(&self, text: &str) {
        self.send(Urgency::Passing, &format!("STATUS={}\n", one_line(text)));
    }

    /// Still alive; nothing unless the manager asked this process for it.
    pub fn watchdog(&self) {
        if self.watchdog.is_some() {
            self.send(Urgency::Passing, "WATCHDOG=1\n");
        }
    }

    fn send(&self, urgency: Urgency, message: &str) {
        let Some(manager) = &self.manager else { return };
        if self.retired.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = deliver(manager, urgency, message)
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            log::warn!("cannot tell the service manager {:?}: {error}", message.lines().next().unwrap_or(""));
        }
    }
}

/// A socket for each message: they are rare, and so none has to be kept from a successor or out of an `execve`.
fn deliver(manager: &SocketAddr, urgency: Urgency, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match urgency {
        // SO_SNDTIMEO: the kernel wakes us as soon as there is room.
        Urgency::State => socket.set_write_timeout(Some(PATIENCE))?,
        Urgency::Passing => socket.set_nonblocking(true)?,
    }
    socket.connect_addr(manager)?;
    loop {
        match socket.send(message.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// A path, or with `@` a name in the abstract namespace (unix(7)).
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        // vsock is for virtual machines that tell their host; shared are not given it.
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "neither an absolute path nor an abstract name")),
    }
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;
    use std::time::Instant;

    const OWN_PID: u32 = 4711;

    /// A service manager's end, in a directory of its own.
    struct Manager {
        socket: UnixDatagram,
        directory: PathBuf,
    }

    impl Manager {
        fn new(test: &str) -> Manager {
            let directory = env::temp_dir().join(format!("handover-{test}-{}", std::process::id()));
            fs::create_dir_all(&directory).expect("a directory");
            let socket = UnixDatagram::bind(directory.join("notify")).expect("a socket");
            socket.set_nonblocking(true).expect("non-blocking");
            Manager { socket, directory }
        }

        fn notifier(&self, more: &[(&str, &str)]) -> Notifier {
            let path = self.directory.join("notify").into_os_string();
            Notifier::from_vars(
                |name| match name {
                    "NOTIFY_SOCKET" => Some(path.clone()),
                    _ => more.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()),
                },
                OWN_PID,
            )
        }

        /// Sending is over when a call returns, so what is not there now never comes.
        fn received(&self) -> Vec<String> {
            let mut received = Vec::new();
            let mut buffer = [0; 1024];
            while let Ok(length) = self.socket.recv(&mut buffer) {
                received.push(String::from_utf8(buffer[..length].to_vec()).expect("UTF-8"));
            }
            received
        }
    }

    impl Drop for Manager {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }

    fn microseconds() -> u64 {
        Clock::Monotonic.now().as_micros() as u64
    }

    #[test]
    fn a_life_is_told_in_order_and_each_change_is_one_datagram() {
        let manager = Manager::new("life");
        let notifier = manager.notifier(&[]);
        assert!(notifier.is_active());
        let before = microseconds();
        notifier.ready("serving");
        notifier.reloading();
        notifier.ready("serving again");
        notifier.status("3 connections");
        notifier.stopping();
        let after = microseconds();
        let received = manager.received();
        assert_eq!(received.len(), 5, "{received:?}");
        assert_eq!(received[0], "READY=1\nSTATUS=serving\n");
        let since = received[1].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("RELOADING and the time, at once");
        let since: u64 = since.strip_suffix("\nSTATUS=reloading\n").expect("STATUS").parse().expect("a number");
        assert!((before..=after).contains(&since), "{since} is not in {before}..={after}");
        assert_eq!(received[2], "READY=1\nSTATUS=serving again\n");
        assert_eq!(received[3], "STATUS=3 connections\n");
        assert_eq!(received[4], "STOPPING=1\nSTATUS=stopping\n");
    }

    #[test]
    fn a_promotion_is_one_datagram_and_the_last() {
        let manager = Manager::new("promotion");
        let notifier = manager.notifier(&[("WATCHDOG_USEC", "1000000")]);
        notifier.promoted(99, "generation 2");
        notifier.status("draining");
        notifier.watchdog();
        notifier.stopping();
        assert_eq!(manager.received(), ["MAINPID=99\nREADY=1\nSTATUS=generation 2\n"]);
    }

    #[test]
    fn a_status_cannot_smuggle_an_assignment() {
        let manager = Manager::new("status");
        manager.notifier(&[]).status("a\nMAINPID=1\r\n");
        assert_eq!(manager.received(), ["STATUS=a MAINPID=1  \n"]);
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_is_meant_and_half_as_long() {
        let manager = Manager::new("watchdog");
        let interval = |more: &[(&str, &str)]| manager.notifier(more).watchdog_interval();
        let second = ("WATCHDOG_USEC", "2000000");
        assert_eq!(interval(&[second]), Some(Duration::from_secs(1)));
        assert_eq!(interval(&[second, ("WATCHDOG_PID", "4711")]), Some(Duration::from_secs(1)));
        assert_eq!(interval(&[second, ("WATCHDOG_PID", "4712")]), None);
        assert_eq!(interval(&[second, ("WATCHDOG_PID", "+4711")]), None);
        for bad in ["", "0", "-1", "1s", "99999999999999999999"] {
            assert_eq!(interval(&[("WATCHDOG_USEC", bad)]), None, "{bad:?}");
        }
        manager.notifier(&[second]).watchdog();
        manager.notifier(&[]).watchdog();
        assert_eq!(manager.received(), ["WATCHDOG=1\n"]);
    }

    #[test]
    fn an_abstract_name_begins_with_an_at_sign() {
        let name = format!("handover-abstract-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Notifier::from_vars(|var| (var == "NOTIFY_SOCKET").then(|| format!("@{name}").into()), OWN_PID).ready("x");
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).expect("a datagram");
        assert_eq!(&buffer[..length], b"READY=1\nSTATUS=x\n");
    }

    #[test]
    fn without_a_manager_or_with_one_that_is_gone_nothing_happens() {
        // Only looked at: the tests may themselves run under a manager.
        let ours = env::var_os("NOTIFY_SOCKET").is_some_and(|name| address(&name).is_ok());
        assert_eq!(Notifier::from_env().is_active(), ours);
        for (socket, is_active) in [
            (None, false),
            (Some(""), false),
            (Some("relative"), false),
            (Some("vsock:2:1"), false),
            // Whether somebody is there is only known when something is said.
            (Some("/nowhere/at/all"), true),
            (Some("@"), true),
        ] {
            let notifier =
                Notifier::from_vars(|name| socket.filter(|_| name == "NOTIFY_SOCKET").map(OsString::from), OWN_PID);
            assert_eq!(notifier.is_active(), is_active, "{socket:?}");
            notifier.ready("x");
            notifier.promoted(1, "x");
            notifier.watchdog();
        }
    }

    #[test]
    fn a_manager_that_does_not_read_costs_a_bounded_time() {
        let manager = Manager::new("full");
        let notifier = manager.notifier(&[]);
        // net.unix.max_dgram_qlen is 10 or 512; what does not fit is dropped without waiting.
        for number in 0..2000 {
            notifier.status(&number.to_string());
        }
        let began = Instant::now();
        notifier.stopping();
        assert!(began.elapsed() < PATIENCE * 3, "{:?}", began.elapsed());
        assert!(notifier.failed.load(Ordering::Relaxed));
        assert_eq!(manager.received()[0], "STATUS=0\n");
    }
}
