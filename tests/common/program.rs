//! A server in a process of its own.

use super::client::parse_bound;
use super::{PATIENCE, RawClient};
use crossbeam_channel::{Receiver, bounded};
use handover::Bound;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The lab, or the program, serving in a process of its own, which is killed on drop.
pub struct Program {
    child: Child,
    pid: Pid,
    /// Where it listens.
    pub bound: Vec<Bound>,
    /// What it said on stdout.
    pub said: Vec<String>,
    log: Arc<Lines>,
    reader: Option<JoinHandle<()>>,
    exited: Receiver<()>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Exit {
    /// The exit code; `None` if a signal killed it.
    pub code: Option<i32>,
    /// What it wrote to stderr.
    pub log: Vec<String>,
}

impl Exit {
    /// The last line of the log.
    pub fn last(&self) -> &str {
        self.log.last().map_or("", String::as_str)
    }
}

#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Program {
    /// The lab on a free port, with these flags behind it.
    pub fn lab<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(flags: I) -> Program {
        Program::start(Program::lab_command().args(["-l", "127.0.0.1:0"]).args(flags))
    }

    /// The lab, to be given flags. The log shows info and above.
    pub fn lab_command() -> Command {
        // Cargo names no variable for examples; they are built into the directory beside this test program's.
        let this = std::env::current_exe().expect("the test program");
        let profile = this.parent().and_then(Path::parent).expect("target/<profile>/deps");
        let lab = profile.join("examples").join("lab");
        assert!(!is_stale(&lab), "{} is missing or older than the source: run a plain `cargo test`", lab.display());
        quiet(Command::new(lab))
    }

    /// The program, to be given flags.
    pub fn handover_command() -> Command {
        quiet(Command::new(env!("CARGO_BIN_EXE_handover")))
    }

    /// Starts it, and waits until it is ready.
    #[track_caller]
    pub fn start(command: &mut Command) -> Program {
        let mut program = Program::spawn(command.stdout(Stdio::piped()));
        program.read_announcement();
        program
    }

    /// Starts it. Nobody waits until it is ready.
    pub fn spawn(command: &mut Command) -> Program {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let pid = Pid::from_child(&child);
        let (sender, exited) = bounded(1);
        thread::spawn(move || {
            // It is left to be reaped by who owns the child: until then its id belongs to nobody else.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let _ = sender.send(());
        });
        let log = Arc::new(Lines::default());
        let stderr = child.stderr.take().expect("stderr is piped");
        let written = log.clone();
        let reader = thread::spawn(move || written.read(stderr));
        Program { child, pid, bound: Vec::new(), said: Vec::new(), log, reader: Some(reader), exited }
    }

    /// `listening on …` for each listener, then `ready pid=…`.
    fn read_announcement(&mut self) {
        let stdout = self.child.stdout.take().expect("stdout is piped");
        let (sender, said) = bounded(64);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.try_send(line);
            }
        });
        let until = Instant::now() + PATIENCE;
        loop {
            let line = said.recv_deadline(until).unwrap_or_else(|_| {
                panic!("it did not become ready; stdout {:?}, stderr {:?}", self.said, self.log.lines())
            });
            if let Some(url) = line.strip_prefix("listening on ") {
                self.bound.push(parse_bound(url));
            }
            let ready = line.starts_with("ready pid=");
            self.said.push(line);
            if ready {
                return;
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn client(&self) -> RawClient {
        RawClient::to(&self.bound[0])
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the program is there");
    }

    /// What [`Program::limit_open_files`] takes so that `room` more files can be opened. They have the lowest free
    /// numbers, and the limit is one on numbers.
    pub fn descriptors_with_room_for(&self, room: usize) -> u64 {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("/proc");
        let open: Vec<u64> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        let free = (0..).filter(|number| !open.contains(number));
        free.take(room).last().map_or(0, |last| last + 1)
    }

    /// Lowers or raises what it may open.
    pub fn limit_open_files(&self, files: u64) {
        use rustix::process::{Resource, Rlimit, prlimit};
        let limit = Rlimit { current: Some(files), maximum: Some(1024) };
        prlimit(Some(self.pid), Resource::Nofile, limit).expect("prlimit");
    }

    /// Waits for a line of the log that contains `text`, and answers it.
    pub fn logged(&self, text: &str) -> String {
        self.log.wait(text)
    }

    /// The log as far as it has come.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Waits until it has ended by itself.
    pub fn exit(self) -> Exit {
        self.exit_within(PATIENCE)
    }

    /// Waits until it has ended by itself, not longer than that.
    pub fn exit_within(mut self, patience: Duration) -> Exit {
        let over = self.exited.recv_timeout(patience);
        assert!(over.is_ok(), "still running after {patience:?}; its log: {:#?}", self.log.lines());
        let status = self.child.wait().expect("it has ended");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("its log");
        }
        Exit { code: status.code(), log: self.log.lines() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both do nothing to one that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the log of {}: {:#?}", self.child.id(), self.log.lines());
        }
    }
}

/// Whether the lab has to be built: `cargo test --test NAME` does not do that. Cargo leaves beside it what it was
/// built from.
fn is_stale(lab: &Path) -> bool {
    let Ok(built) = lab.metadata().and_then(|lab| lab.modified()) else { return true };
    let sources = std::fs::read_to_string(lab.with_extension("d")).unwrap_or_default();
    // As a makefile has it: `lab: source source …`, a space in a name behind a backslash.
    let sources = sources.replace("\\ ", "\0");
    let mut sources = sources.split_whitespace().skip(1).map(|path| path.replace('\0', " "));
    sources.any(|path| Path::new(&path).metadata().and_then(|meta| meta.modified()).is_ok_and(|at| at > built))
}

fn quiet(mut command: Command) -> Command {
    command.env_remove("RUST_LOG").env_remove("LAB_JOURNAL");
    command
}

impl Lines {
    fn read(&self, stderr: impl Read) {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            self.more.notify_all();
        }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wait(&self, text: &str) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = |lines: &mut Vec<String>| !lines.iter().any(|line| line.contains(text));
        let waited = self.more.wait_timeout_while(lines, PATIENCE, missing);
        let (lines, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let found = lines.iter().find(|line| line.contains(text)).cloned();
        let lines = lines.clone();
        found.unwrap_or_else(|| panic!("{text:?} was not logged: {lines:#?}"))
    }
}

/// A directory of its own, removed on drop.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Not under CARGO_TARGET_TMPDIR: a socket path has at most 107 bytes.
        let path = std::env::temp_dir().join(format!("handover-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a new directory");
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How often something is repeated: the number in the environment variable, or `default`.
pub fn count(variable: &str, default: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, allowed is a number")),
        Err(_) => default,
    }
}
