//! The notify protocol seen from the service manager's end: order, content and sender of every datagram.

use crate::common::{PATIENCE, Program, Scratch, eventually};
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Signal;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;

struct Manager {
    socket: UnixDatagram,
    scratch: Scratch,
}

impl Manager {
    fn new() -> Manager {
        let scratch = Scratch::new();
        let socket = UnixDatagram::bind(scratch.path("notify")).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        set_socket_passcred(&socket, true).expect("the sender's pid");
        Manager { socket, scratch }
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
    fn start(&self, variables: &[(&str, &str)]) -> Program {
        let mut command = Program::handover_command();
        command.args(["-l", "127.0.0.1:0", "-w", "1"]).env("NOTIFY_SOCKET", self.scratch.path("notify"));
        command.env_remove("SUPERVISOR_ENABLED").envs(variables.iter().copied());
        Program::start(command.process_group(0))
    }
}

/// Waits for the end of all generations.
fn join(program: &Program) {
    eventually("all generations end", || program.processes().is_empty());
}

#[track_caller]
fn begins(text: &str, lines: &[&str]) {
    let all: Vec<&str> = text.lines().collect();
    assert_eq!(all[..lines.len().min(all.len())], *lines, "{text}");
}

#[test]
fn the_main_process_speaks_and_names_its_successor_in_the_datagram_that_ends_the_reload() {
    let manager = Manager::new();
    let program = manager.start(&[]);
    let mut main = program.pid();
    let (text, sender) = manager.state();
    begins(&text, &["READY=1"]);
    assert_eq!(sender, main);

    for _ in 0..2 {
        program.signal_to(main, Signal::HUP);
        let (text, sender) = manager.state();
        begins(&text, &["RELOADING=1"]);
        assert!(text.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{text}");
        assert_eq!(sender, main);

        // Not from the successor, whatever it has done before: to the manager it is a stranger until then.
        let (text, sender) = manager.state();
        assert_eq!(sender, main, "{text}");
        let successor = text.lines().next().and_then(|line| line.strip_prefix("MAINPID=")).expect(&text);
        begins(&text, &[&format!("MAINPID={successor}"), "READY=1"]);
        let successor = successor.parse().expect("a pid");
        assert_ne!(successor, main);
        main = successor;
    }

    program.signal_to(main, Signal::TERM);
    let (text, sender) = manager.state();
    begins(&text, &["STOPPING=1"]);
    assert_eq!(sender, main);
    join(&program);
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
    let manager = Manager::new();
    // A supervisor above follows one pid, whatever else listens.
    let program = manager.start(&[("SUPERVISOR_ENABLED", "1")]);
    let main = program.pid();
    let expect = |expected: &str| {
        let (text, sender) = manager.state();
        begins(&text, &[expected]);
        assert!(!text.contains("MAINPID="), "{text}");
        assert_eq!(sender, main);
    };
    expect("READY=1");
    for _ in 0..2 {
        program.signal_to(main, Signal::HUP);
        expect("RELOADING=1");
        expect("READY=1");
    }
    program.signal_to(main, Signal::TERM);
    expect("STOPPING=1");
    join(&program);
}

#[test]
fn pings_come_at_half_the_interval_from_the_process_that_is_meant() {
    let manager = Manager::new();
    let program = manager.start(&[("WATCHDOG_USEC", "200000")]);
    let main = program.pid();
    for _ in 0..3 {
        let sender = loop {
            let (text, sender) = manager.receive();
            if text == "WATCHDOG=1\n" {
                break sender;
            }
        };
        assert_eq!(sender, main);
    }
    program.signal_to(main, Signal::TERM);
    while !manager.state().0.starts_with("STOPPING=1\n") {}
    join(&program);

    let other = manager.start(&[("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "1")]);
    begins(&manager.state().0, &["READY=1"]);
    other.signal(Signal::TERM);
    loop {
        let (text, _) = manager.receive();
        assert_ne!(text, "WATCHDOG=1\n");
        if text.starts_with("STOPPING=1\n") {
            break;
        }
    }
    join(&other);
}
