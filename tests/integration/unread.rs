//! stdout and stderr that nobody reads: a pipe, a socket or a terminal is full, and nothing waits for it.

use crate::common::{Mode, PATIENCE, Program, RawClient, Scratch, eventually};
use handover::Bound;
use rustix::process::Signal;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What a server is given, and the end that nobody reads. It lives on: a reader that is gone would be something else.
struct Unread {
    given: OwnedFd,
    _kept: OwnedFd,
}

fn pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().expect("a pipe");
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).expect("F_SETPIPE_SZ");
    (reader, writer)
}

fn terminal() -> Unread {
    // SAFETY: no memory is passed.
    let main = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    assert!(main >= 0, "{}", io::Error::last_os_error());
    // SAFETY: it was opened just now, for us.
    let kept = unsafe { OwnedFd::from_raw_fd(main) };
    // SAFETY: a descriptor that is open, and no memory.
    assert_eq!(unsafe { libc::unlockpt(main) }, 0);
    // SAFETY: as above; what is answered is a new descriptor.
    let other = unsafe { libc::ioctl(main, libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    assert!(other >= 0, "{}", io::Error::last_os_error());
    // SAFETY: as above.
    Unread { given: unsafe { OwnedFd::from_raw_fd(other) }, _kept: kept }
}

fn each_kind() -> [(&'static str, Unread); 3] {
    let (reader, writer) = pipe();
    let (theirs, ours) = UnixStream::pair().expect("a socket pair");
    [
        ("pipe", Unread { given: writer.into(), _kept: reader.into() }),
        ("socket", Unread { given: theirs.into(), _kept: ours.into() }),
        ("terminal", terminal()),
    ]
}

/// Fills it to the last byte. O_NONBLOCK, which is shared, is set for that only.
fn fill(unread: &impl AsFd) {
    rustix::io::ioctl_fionbio(unread, true).expect("an open file");
    for piece in [&[b'x'; 512][..], b"x"] {
        // A terminal takes some more after a moment, when what it has got has moved on.
        for _ in 0..3 {
            while rustix::io::write(unread, piece).is_ok() {}
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    rustix::io::ioctl_fionbio(unread, false).expect("an open file");
}

fn is_nonblocking(file: &impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(file).expect("an open file").contains(rustix::fs::OFlags::NONBLOCK)
}

fn start(stderr: &OwnedFd, flags: &[&str]) -> Program {
    let mut command = Program::lab_command();
    command.args(["-l", "127.0.0.1:0", "-w", "2"]).args(flags);
    Program::start_with_stderr(&mut command, stderr.try_clone().expect("a descriptor"))
}

#[test]
fn a_log_that_nobody_reads_keeps_no_handler_no_panic_and_no_stop_waiting() {
    for (kind, unread) in each_kind() {
        let program = start(&unread.given, &[]);
        fill(&unread.given);
        // Each of these has something to say.
        program.signal(Signal::USR1);
        let mut client = program.client();
        for _ in 0..5 {
            assert_eq!(client.get("/panic").answer().status, 500, "{kind}");
        }
        client.expect_alive("/hello");
        assert!(!is_nonblocking(&unread.given), "{kind}: O_NONBLOCK is not ours to set");
        program.signal(Signal::TERM);
        assert_eq!(program.exit().code, Some(0), "{kind}");
    }
}

#[test]
fn a_stop_deadline_does_not_wait_for_a_log_that_nobody_reads() {
    for (kind, unread) in each_kind() {
        let program = start(&unread.given, &["--stop-deadline", "0.3"]);
        let mut client = program.client();
        client.get("/stream/2/60000").read_at_least(100);
        fill(&unread.given);
        program.signal(Signal::TERM);
        assert_eq!(program.exit().code, Some(3), "{kind}");
    }
}

#[test]
fn a_reload_does_not_wait_for_a_log_that_nobody_reads() {
    for mode in Mode::BOTH {
        for (kind, unread) in each_kind() {
            let program = start(&unread.given, &["--reload", mode.name(), "--reload-probation", "0"]);
            let mut client = program.client();
            client.expect_alive("/hello");
            fill(&unread.given);
            for _ in 0..2 {
                program.reload();
            }
            client.expect_alive("/hello");
            assert_eq!(program.stop(), Some(0), "{kind}, {mode:?}");
        }
    }
}

#[test]
fn a_supervisor_that_reads_one_ready_and_no_more_keeps_no_reload_waiting() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let (path, pid_file) = (scratch.path("socket"), scratch.path("pid"));
        let (mut reader, writer) = pipe();
        let mut command = Program::lab_command();
        command.arg("-l").arg(format!("unix:{}", path.display())).arg("--pid-file").arg(&pid_file);
        command.args(["--reload", mode.name(), "--reload-probation", "0"]);
        let program = Program::spawn(command.stdout(Stdio::from(writer.try_clone().expect("a descriptor"))));
        drop(command);
        let mut announced = String::new();
        while !announced.contains("ready pid=") {
            let mut piece = [0; 4096];
            let read = reader.read(&mut piece).expect("a pipe");
            announced.push_str(std::str::from_utf8(&piece[..read]).expect("UTF-8"));
        }
        fill(&writer);
        let bound = Bound::Unix(path);
        let pid = || std::fs::read_to_string(&pid_file).ok().and_then(|pid| pid.trim().parse().ok()).expect("a pid");
        let mut client = RawClient::to(&bound);
        for generation in 2..=4 {
            program.signal_to(pid(), Signal::HUP);
            let wanted = format!("\"generation\":{generation}");
            eventually(&wanted, || client.get("/pid").answer().text().contains(&wanted));
            program.logged_times("nobody reads stdout", generation - 1);
            // The predecessor has gone, so the pid file is the successor's.
            eventually("the reload is over", || program.processes().len() == 1);
        }
        let last = pid();
        program.signal_to(last, Signal::TERM);
        program.wait_for_end(last);
        program.logged("stopped: ");
    }
}

#[test]
fn lines_that_nobody_read_are_counted_once_somebody_reads_again() {
    let (mut reader, writer) = pipe();
    let writer = OwnedFd::from(writer);
    let program = start(&writer, &[]);
    fill(&writer);
    let mut client = program.client();
    for _ in 0..3 {
        assert_eq!(client.get("/panic").answer().status, 500);
    }
    drop(writer);
    let mut text = String::new();
    let mut seen = 0;
    let until = Instant::now() + PATIENCE;
    while seen == 0 {
        assert!(Instant::now() < until, "nothing was counted: {text}");
        let mut piece = [0; 4096];
        let read = reader.read(&mut piece).expect("a pipe");
        text.push_str(&String::from_utf8_lossy(&piece[..read]));
        seen = text.matches(" log lines before this one could not be written\n").count();
        program.signal(Signal::USR1);
    }
    // For each panic where it was and what the handler was asked for.
    let counted = text.lines().find(|line| line.ends_with(" log lines before this one could not be written"));
    let counted = counted.and_then(|line| line.split("] ").nth(1)?.split(' ').next()?.parse::<u32>().ok());
    assert!(counted.is_some_and(|counted| counted >= 5), "{text}");
}

#[test]
fn a_start_that_fails_ends_though_nobody_reads_why() {
    for (kind, unread) in each_kind() {
        fill(&unread.given);
        for (flags, code) in [(["--workers", "none"], 2), (["--log-file", "/nowhere/at/all"], 78)] {
            let mut command = Program::lab_command();
            command.args(flags).stdin(Stdio::null()).stdout(Stdio::null());
            let mut child = command.stderr(unread.given.try_clone().expect("a descriptor")).spawn().expect("the lab");
            let until = Instant::now() + PATIENCE;
            let status = loop {
                match child.try_wait().expect("a child") {
                    Some(status) => break status,
                    None if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                    None => {
                        child.kill().expect("it runs");
                        panic!("{kind}: it waits for who reads stderr");
                    }
                }
            };
            assert_eq!(status.code(), Some(code), "{kind}: {flags:?}");
        }
    }
}
