//! Execs that lead nowhere, and what happens to the program and its configuration between the check and the exec.

use crate::common::{Load, Mode, OnDisk, Program, Scratch, count, eventually};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// A lab with a configuration file, a trap, a pid file, and a copy on disk that can be replaced.
struct Lab {
    scratch: Scratch,
    on_disk: OnDisk,
    program: Program,
}

impl Lab {
    fn start() -> Lab {
        let (scratch, on_disk) = (Scratch::new(), OnDisk::of(&Program::lab_command()));
        let configuration = scratch.path("lab.toml");
        fs::write(&configuration, Lab::GOOD).expect("a file");
        let mut command = on_disk.command();
        command.arg("-c").arg(&configuration).arg("--pid-file").arg(scratch.path("pid"));
        command.env("LAB_TRAP", scratch.path("trap")).env("HANDOVER_TEST_START_LIMIT", "5");
        // A panic looks for the names of its callers otherwise, for seconds on a busy host.
        command.env("RUST_BACKTRACE", "0");
        command.env("RUST_LOG", "info,handover::server=debug");
        let program = Program::start(Mode::Exec.flags(&mut command));
        Lab { scratch, on_disk, program }
    }

    const GOOD: &str = "listen = ['127.0.0.1:0']\n";

    fn configure(&self, more: &str) {
        fs::write(self.scratch.path("lab.toml"), format!("{}{more}", Lab::GOOD)).expect("a file");
    }

    fn trap(&self, trap: &str) {
        fs::write(self.scratch.path("trap"), trap).expect("a file");
    }

    fn outcome(&self) -> String {
        fs::read_to_string(self.scratch.path("pid.outcome")).unwrap_or_default()
    }

    /// A reload that goes wrong, for that reason: nothing else changes, and whoever asks is told.
    #[track_caller]
    fn comes_back(&self, reason: &str) {
        let failed = |lines: &[String]| lines.iter().filter(|line| line.contains("reload failed")).count();
        let (failures, pid, generations) =
            (failed(&self.program.log()), self.program.current(), self.program.generations());
        self.program.signal(Signal::HUP);
        let line = self.program.logged_times("reload failed, serving on", failures + 1);
        let reason = reason.split('|').find(|reason| line.contains(reason));
        let reason = reason.unwrap_or_else(|| panic!("not the reason: {line:?}"));
        eventually("its outcome is there", || self.outcome().contains(reason));
        assert_eq!((self.program.current(), self.program.generations()), (pid, generations));
        self.program.client().expect_alive("/hello");
    }

    fn reloads(&self) {
        self.program.reload();
        eventually("its outcome is there", || self.outcome().contains("outcome=ok"));
    }

    /// As an upgrade does: another file, by a rename. Another process writes it, so that no child of this one has it open.
    fn replace_by_a_copy(&self) {
        let (program, pid) = (self.on_disk.path(), self.program.current());
        let copy = format!("cp /proc/{pid}/exe {0}.new && mv {0}.new {0}", program.display());
        assert!(Command::new("sh").args(["-c", &copy]).status().expect("a shell").success());
    }

    /// A reload that waits for a handler while that happens.
    fn reloads_while(&self, happens: impl FnOnce()) {
        let generations = self.program.generations();
        self.waits_while(happens);
        // Whoever asks for another before is not answered by this one.
        self.program.generation(generations + 1);
    }

    fn waits_while(&self, happens: impl FnOnce()) {
        let mut busy = self.program.client();
        // Too large to be collected: its handler reads it as it comes.
        busy.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2000000\r\n\r\n").send(vec![b'a'; 1_500_000]);
        busy.read_at_least(100);
        let checks = self.program.log().iter().filter(|line| line.contains("reload: checked")).count();
        self.program.signal(Signal::HUP);
        self.program.logged_times("reload: checked", checks + 1);
        happens();
        busy.send(vec![b'a'; 500_000]);
        assert_eq!(busy.answer().body.len(), 2_000_000);
    }
}

/// In which way an exec goes wrong behind its check: what is done before, and the reason that is given.
const WAYS: [(&str, &str); 8] = [
    ("address", "ddress"),
    ("log", "cannot open log file"),
    // Or std itself gives up, where a thread has no room for the stack of its signals.
    ("threads", "cannot start|SIGABRT"),
    ("memory", "SIGABRT"),
    ("restore", "it panicked: as the trap asks"),
    ("panic", "it panicked: as the trap asks"),
    ("segv", "it crashed (SIGSEGV)"),
    ("hang", "it did not serve in time"),
];

/// `HANDOVER_WAYS_BACK` says how many reloads, of which every second goes wrong.
#[test]
fn execs_that_lead_nowhere_come_back_and_no_client_notices() {
    let lab = Lab::start();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = format!("listen = ['127.0.0.1:0', '{}']\n", taken.local_addr().expect("its address"));
    let bound = lab.program.listening().remove(0);
    let load = Load::new().keep_alive(&bound, 4);
    for number in 0..count("HANDOVER_WAYS_BACK", 20) / 2 {
        load.go_on_for(50);
        match number % 10 {
            8 => {
                lab.reloads_while(|| lab.configure("idle_timeout = 29\n"));
                // Or the program: each test has it by a link of its own, and links to a file change its time.
                lab.program.logged("has changed since it was checked, checking again");
            }
            9 => {
                lab.reloads_while(|| lab.replace_by_a_copy());
                lab.program.logged("program has changed since it was checked, checking again");
            }
            way => {
                let (way, reason) = WAYS[way];
                match way {
                    "address" => fs::write(lab.scratch.path("lab.toml"), &taken).expect("a file"),
                    // It can be written, as far as the check knows.
                    "log" => {
                        let logs = lab.scratch.path("logs");
                        fs::create_dir(&logs).expect("a directory");
                        lab.configure(&format!("log_file = {:?}\n", logs.join("log")));
                        let rest = format!("rm -r '{}'; exec \"$REAL\" \"$@\"", logs.display());
                        lab.on_disk.replace_behind_the_check(&rest);
                    }
                    // More than there is address space for.
                    "threads" => {
                        limit_address_space(&lab, true);
                        lab.configure("workers = 500\n");
                    }
                    trap => lab.trap(trap),
                }
                lab.comes_back(reason);
                limit_address_space(&lab, false);
                lab.trap("");
                lab.configure("");
                lab.on_disk.restore();
            }
        }
        load.go_on_for(50);
        lab.reloads();
    }
    load.go_on_for(50);
    let tally = load.stop();
    assert_eq!(tally.failures, [""; 0]);
    assert_eq!(lab.program.stop(), Some(0));
    assert!(!lab.scratch.path("pid").exists() && !lab.scratch.path("pid.outcome").exists());
}

fn limit_address_space(lab: &Lab, limit: bool) {
    let pid = lab.program.current();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    let size: u64 = size.and_then(|size| size.trim().parse().ok()).expect("its size");
    self::limit(lab, Resource::As, limit.then_some((size + 64 * 1024) * 1024));
}

fn limit(lab: &Lab, resource: Resource, current: Option<u64>) {
    let pid = Pid::from_raw(lab.program.current().try_into().expect("a pid"));
    prlimit(pid, resource, Rlimit { current, maximum: None }).expect("a limit");
}

/// To open a FIFO is to wait for its writer. It was opened while every client was held back, and nothing but KILL helped.
#[test]
fn a_fifo_in_the_place_of_the_configuration_keeps_nobody_waiting() {
    let lab = Lab::start();
    let configuration = lab.scratch.path("lab.toml");
    lab.waits_while(|| {
        fs::remove_file(&configuration).expect("it is there");
        make_fifo(&configuration);
    });
    // Or the program: each test has it by a link of its own, and links to a file change its time.
    lab.program.logged("has changed since it was checked, checking again");
    lab.program.logged("reload failed, serving on");
    lab.program.client().expect_alive("/hello");
    assert_eq!(lab.program.stop(), Some(0));
}

#[test]
fn a_fifo_in_the_place_of_the_program_keeps_nobody_waiting() {
    for mode in Mode::BOTH {
        let (scratch, on_disk) = (Scratch::new(), OnDisk::of(&Program::lab_command()));
        let mut command = on_disk.command();
        mode.flags(&mut command).args(["-l", "127.0.0.1:0", "--pid-file"]).arg(scratch.path("pid"));
        let program = Program::start(&mut command);
        on_disk.remove();
        make_fifo(&on_disk.path());
        program.signal(Signal::HUP);
        program.logged("reload failed, serving on: cannot run");
        program.client().expect_alive("/hello");
        assert_eq!(program.stop(), Some(0), "{mode:?}");
    }
}

fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o755), 0).expect("a FIFO");
}

/// It was executed without one, said so, and was gone.
#[test]
fn without_room_for_a_way_back_nothing_is_executed() {
    let lab = Lab::start();
    // What it was started with is longer.
    limit(&lab, Resource::Fsize, Some(200));
    lab.trap("exit");
    lab.comes_back("no room for what a way back needs");
    limit(&lab, Resource::Fsize, None);
    lab.trap("");
    lab.reloads();
    assert_eq!(lab.program.stop(), Some(0));
}

/// What execve leaves as it is, and the new program has changed.
#[test]
fn what_is_come_back_to_is_where_it_was() {
    let lab = Lab::start();
    let pid = lab.program.current();
    let here = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let umask = status.lines().find(|line| line.starts_with("Umask:")).map(str::to_owned);
        (fs::read_link(format!("/proc/{pid}/cwd")).expect("its directory"), umask)
    };
    let before = here();
    lab.trap("elsewhere");
    lab.comes_back("it ended before it served");
    assert_eq!(here(), before);
    assert_ne!(before.0, Path::new("/"));
    lab.trap("");
    assert_eq!(lab.program.stop(), Some(0));
}

/// It would cost its clients a moment each time.
#[test]
fn what_fails_twice_for_the_same_reason_is_not_executed_until_it_changes() {
    let lab = Lab::start();
    lab.trap("exit");
    lab.comes_back("it ended before it served");
    lab.comes_back("it ended before it served");
    lab.trap("");
    lab.comes_back("did not serve twice");
    let executed = lab.program.log().iter().filter(|line| line.contains("reloading: executing")).count();
    assert_eq!(executed, 2);
    // As touch does, and by more than a file system's clock is coarse.
    let configuration = fs::File::options().write(true).open(lab.scratch.path("lab.toml")).expect("a file");
    configuration.set_modified(SystemTime::now() + Duration::from_secs(60)).expect("its time");
    lab.reloads();
    assert_eq!(lab.program.stop(), Some(0));
}

/// The configuration that it ran with, and not the one that is there now.
#[test]
fn what_is_come_back_to_has_its_own_configuration() {
    let lab = Lab::start();
    lab.configure("[nonsense");
    lab.program.signal(Signal::HUP);
    lab.program.logged("reload failed, serving on");
    lab.configure("max_body = 100\n");
    lab.trap("panic");
    lab.comes_back("it panicked");
    let answer = lab.program.client().post("/echo", [b'x'; 200]).answer();
    assert_eq!(answer.status, 200, "its own limit holds");
    lab.trap("");
    lab.reloads();
    assert_eq!(lab.program.stop(), Some(0));
}

/// By its exit code and its words.
#[test]
fn who_asks_for_a_reload_that_comes_back_is_told_why() {
    let lab = Lab::start();
    let ask = || {
        let mut command = Program::handover_command();
        command.args(["reload", "--program", "program", "--wait=30", "--pid-file"]);
        let output = command.arg(lab.scratch.path("pid")).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), said)
    };
    lab.trap("segv");
    let (code, said) = ask();
    assert!(code == Some(1) && said.contains("it crashed (SIGSEGV)"), "{code:?}: {said}");
    lab.trap("");
    let (code, said) = ask();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(lab.program.stop(), Some(0));
}

/// The socket file and the connection over it stay.
#[test]
fn a_unix_socket_is_still_there_after_a_way_back() {
    let lab = Lab::start();
    let socket: PathBuf = lab.scratch.path("socket");
    let listen = format!("listen = ['127.0.0.1:0', 'unix:{}']\n", socket.display());
    let write = |more: &str| fs::write(lab.scratch.path("lab.toml"), format!("{listen}{more}")).expect("a file");
    write("");
    lab.reloads();
    eventually("it listens there", || socket.exists());
    for trap in ["panic", "segv"] {
        lab.trap(trap);
        write("");
        lab.program.signal(Signal::HUP);
        lab.program.logged(if trap == "panic" { "it panicked" } else { "SIGSEGV" });
        std::os::unix::net::UnixStream::connect(&socket).expect("it is served");
    }
    assert_eq!(lab.program.stop(), Some(0));
    assert!(!socket.exists());
}
