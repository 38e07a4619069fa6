//! The notify protocol seen from the service manager's end: order, content and sender of every datagram.

use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::fs;
use std::io::{self, BufRead, BufReader, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longer than anything here takes, and short enough that a hang is seen.
const PATIENCE: Duration = Duration::from_secs(30);

struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(test: &str) -> Manager {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}.notify", std::process::id()));
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        set_socket_passcred(&socket, true).expect("the sender's pid");
        Manager { socket, path }
    }

    /// The next datagram and the pid of its sender.
    fn receive(&self) -> (String, u32) {
        let mut buffer = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&self.socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let length = received.map_err(io::Error::from).expect("a datagram in time").bytes;
        let sender = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid.as_raw_nonzero().get()),
            _ => None,
        });
        let text = String::from_utf8(buffer[..length].to_vec()).expect("UTF-8");
        (text, sender.expect("credentials") as u32)
    }

    /// The next change of state: live figures and pings come in between.
    fn state(&self) -> (String, u32) {
        loop {
            let (text, sender) = self.receive();
            if text.lines().any(|line| !line.starts_with("STATUS=") && line != "WATCHDOG=1") {
                return (text, sender);
            }
        }
    }

    /// In a group of its own, because a terminal's foreground group is not left behind by an overlap.
    fn start(&self, variables: &[(&str, &str)]) -> Service {
        let mut child = Command::new(env!("CARGO_BIN_EXE_handover"))
            .args(["-l", "127.0.0.1:0", "-w", "1"])
            .env("NOTIFY_SOCKET", &self.path)
            .env_remove("SUPERVISOR_ENABLED")
            .envs(variables.iter().copied())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        // The write end goes to every successor: the end of it is the end of the last one.
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Service { main: child.id(), child, lines: Box::new(lines.map_while(Result::ok)) }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What the manager runs. Whatever generation is left goes when the test does.
struct Service {
    child: Child,
    main: u32,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Service {
    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.main.to_string()]).status().expect("kill");
        assert!(status.success(), "kill -s {name} {}", self.main);
    }

    /// Waits for the end of all generations.
    fn join(&mut self) {
        self.lines.by_ref().for_each(drop);
        self.child.wait().expect("it ends");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The group holds all generations; it is gone when nothing is left.
        let _ = Command::new("kill")
            .args(["-s", "KILL", "--", &format!("-{}", self.child.id())])
            .stderr(Stdio::null())
            .status();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn begins(text: &str, lines: &[&str]) {
    let all: Vec<&str> = text.lines().collect();
    assert_eq!(all[..lines.len().min(all.len())], *lines, "{text}");
}

#[test]
fn the_main_process_speaks_and_names_its_successor_in_the_datagram_that_ends_the_reload() {
    let manager = Manager::new("overlap");
    let mut service = manager.start(&[]);
    let (text, sender) = manager.state();
    begins(&text, &["READY=1"]);
    assert_eq!(sender, service.main);

    for _ in 0..2 {
        service.signal("HUP");
        let (text, sender) = manager.state();
        begins(&text, &["RELOADING=1"]);
        assert!(text.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{text}");
        assert_eq!(sender, service.main);

        // Not from the successor, whatever it has done before: to the manager it is a stranger until then.
        let (text, sender) = manager.state();
        assert_eq!(sender, service.main, "{text}");
        let successor = text.lines().next().and_then(|line| line.strip_prefix("MAINPID=")).expect(&text);
        begins(&text, &[&format!("MAINPID={successor}"), "READY=1"]);
        let successor = successor.parse().expect("a pid");
        assert_ne!(successor, service.main);
        service.main = successor;
    }

    service.signal("TERM");
    let (text, sender) = manager.state();
    begins(&text, &["STOPPING=1"]);
    assert_eq!(sender, service.main);
    service.join();
    manager.socket.set_nonblocking(true).expect("non-blocking");
    let mut buffer = [0; 4096];
    while let Ok(length) = manager.socket.recv(&mut buffer) {
        // On a slow machine a stop takes long enough for live figures.
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert!(text.starts_with("STATUS=") && text.lines().count() == 1, "no state comes after the end: {text}");
    }
}

#[test]
fn a_reload_in_the_same_process_ends_with_ready() {
    let manager = Manager::new("exec");
    // A supervisor above follows one pid, whatever else listens.
    let mut service = manager.start(&[("SUPERVISOR_ENABLED", "1")]);
    let expect = |expected: &str| {
        let (text, sender) = manager.state();
        begins(&text, &[expected]);
        assert!(!text.contains("MAINPID="), "{text}");
        assert_eq!(sender, service.main);
    };
    expect("READY=1");
    for _ in 0..2 {
        service.signal("HUP");
        expect("RELOADING=1");
        expect("READY=1");
    }
    service.signal("TERM");
    expect("STOPPING=1");
    service.join();
}

#[test]
fn pings_come_at_half_the_interval_from_the_process_that_is_meant() {
    let manager = Manager::new("watchdog");
    let mut service = manager.start(&[("WATCHDOG_USEC", "200000")]);
    for _ in 0..3 {
        let sender = loop {
            let (text, sender) = manager.receive();
            if text == "WATCHDOG=1\n" {
                break sender;
            }
        };
        assert_eq!(sender, service.main);
    }
    service.signal("TERM");
    while !manager.state().0.starts_with("STOPPING=1\n") {}
    service.join();

    let mut other = manager.start(&[("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "1")]);
    begins(&manager.state().0, &["READY=1"]);
    other.signal("TERM");
    loop {
        let (text, _) = manager.receive();
        assert_ne!(text, "WATCHDOG=1\n");
        if text.starts_with("STOPPING=1\n") {
            break;
        }
    }
    other.join();
}
