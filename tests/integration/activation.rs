//! Socket activation, as a service manager does it: the program is executed with a listener as descriptor 3.

use crate::common::{AS_ROOT, PATIENCE, Program, Scratch};
use handover::Bound;
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs the program with what it gets on stdin as its descriptor 3. `$$` is the shell's pid, and after `exec` the
/// program's; so LISTEN_PID is right without anything running between fork and exec.
fn command(variables: &str) -> Command {
    let script = format!("exec 3<&0 </dev/null; {variables} exec \"$0\" -l 127.0.0.1:1 --stop-deadline 10");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(Program::handover_command().get_program()).env("RUST_LOG", "info");
    command
}

/// The program with `fd` as its descriptor 3, ready.
fn activated(fd: impl Into<OwnedFd>, variables: &str) -> Program {
    Program::start_with_stdin(&mut command(variables), fd.into())
}

/// Stops it, and answers its log.
fn stop(program: Program) -> String {
    program.signal(Signal::TERM);
    let exit = program.exit();
    assert_eq!(exit.code, Some(0), "{:#?}", exit.log);
    // Whoever runs the tests as root is warned of that.
    exit.log.into_iter().filter(|line| !line.contains(AS_ROOT)).collect::<Vec<_>>().join("\n")
}

fn ask(mut stream: impl Read + Write) -> String {
    stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn a_passed_listener_replaces_the_configured_ones_and_outlives_a_stop() {
    let ours = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = ours.local_addr().expect("its address");
    let connect = || {
        let stream = std::net::TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        stream
    };
    // Both find it in the queue: it was there before they started.
    for start in 1..=2 {
        let waiting = connect();
        let program = activated(ours.try_clone().expect("a copy"), "LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=web");
        assert_eq!(program.bound, [Bound::Tcp(address)], "start {start}");
        assert!(ask(waiting).starts_with("HTTP/1.1 200 "), "start {start}");
        assert!(ask(connect()).starts_with("HTTP/1.1 200 "), "start {start}");
        let log = stop(program);
        assert!(log.contains(&format!("the service manager passed http://{address} (\"web\")")), "{log}");
        assert!(log.contains("not those of the configuration") && !log.contains("WARN"), "{log}");
    }
    // No filter and no shutdown is left on it.
    let client = connect();
    ours.set_nonblocking(false).expect("blocking again");
    assert_eq!(ours.accept().expect("the connection").1, client.local_addr().expect("its address"));
}

#[test]
fn a_passed_listener_stays_across_a_reload() {
    let ours = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = ours.local_addr().expect("its address");
    let program = activated(ours.try_clone().expect("a copy"), "LISTEN_FDS=1 LISTEN_PID=$$");
    for generation in 1..=3 {
        program.generation(generation);
        assert_eq!(program.listening(), [Bound::Tcp(address)], "generation {generation}");
        let stream = std::net::TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        assert!(ask(stream).starts_with("HTTP/1.1 200 "), "generation {generation}");
        if generation < 3 {
            program.signal(Signal::HUP);
        }
    }
    let log = stop(program);
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    let client = std::net::TcpStream::connect(address).expect("connects");
    ours.set_nonblocking(false).expect("blocking again");
    assert_eq!(ours.accept().expect("the connection").1, client.local_addr().expect("its address"));
}

#[test]
fn a_passed_unix_socket_keeps_its_path() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let ours = UnixListener::bind(&path).expect("a listener");
    let variables = "LISTEN_FDS=1 LISTEN_PID=$$";
    for _ in 0..2 {
        let program = activated(ours.try_clone().expect("a copy"), variables);
        assert_eq!(program.bound, [Bound::Unix(path.clone())]);
        let stream = UnixStream::connect(&path).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        assert!(ask(stream).starts_with("HTTP/1.1 200 "));
        stop(program);
        assert!(path.exists());
    }
}

#[test]
fn a_stop_under_activation_does_not_wait_for_the_listener() {
    let ours = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = ours.local_addr().expect("its address");
    let program = activated(ours.try_clone().expect("a copy"), "LISTEN_FDS=1 LISTEN_PID=$$");
    let done = std::sync::atomic::AtomicBool::new(false);
    let log = std::thread::scope(|scope| {
        // Whoever connects during the stop stays in the queue, and must not keep the stop from ending.
        scope.spawn(|| {
            let mut waiting = Vec::new();
            while !done.load(std::sync::atomic::Ordering::Relaxed) && waiting.len() < 100 {
                waiting.extend(std::net::TcpStream::connect(address));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        program.signal(Signal::TERM);
        let exit = program.exit();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(exit.code, Some(0), "{:#?}", exit.log);
        exit.log.into_iter().filter(|line| !line.contains(AS_ROOT)).collect::<Vec<_>>().join("\n")
    });
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn what_is_no_listener_exits_78_and_names_the_descriptor() {
    for (fd, variables, says) in [
        (OwnedFd::from(fs::File::open("/dev/null").expect("a file")), "LISTEN_FDS=1 LISTEN_PID=$$", "not a socket"),
        (
            UnixStream::pair().expect("a pair").0.into(),
            "LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=web",
            "descriptor 3 (\"web\") from the service manager: it does not listen",
        ),
        (
            TcpListener::bind("127.0.0.1:0").expect("a listener").into(),
            "LISTEN_FDS=2 LISTEN_PID=$$",
            "descriptor 4 (\"unknown\") from the service manager: it is not open",
        ),
        (fs::File::open("/dev/null").expect("a file").into(), "LISTEN_FDS=x LISTEN_PID=$$", "LISTEN_FDS is \"x\""),
    ] {
        let exit = Program::spawn_with_stdin(command(variables).stdout(Stdio::null()), fd).exit();
        assert_eq!(exit.code, Some(78), "{:#?}", exit.log);
        assert!(exit.log.iter().any(|line| line.contains(says)), "{:#?}", exit.log);
    }
}
