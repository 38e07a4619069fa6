//! A server in a process of its own.

use super::client::parse_bound;
use super::{PATIENCE, RawClient, eventually};
use crossbeam_channel::{Receiver, bounded};
use handover::Bound;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, kill_process, pidfd_open, set_child_subreaper, waitid,
};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The lab, another example, or the program, serving in a process of its own, which is killed on drop with all its successors.
pub struct Program {
    child: Child,
    pid: Pid,
    /// Where it listens.
    pub bound: Vec<Bound>,
    /// What the first generation said on stdout.
    pub said: Vec<String>,
    /// What all generations say on stdout.
    announced: Arc<Lines>,
    /// In the environment of every generation, and of nothing else.
    mark: String,
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
    /// Every generation has closed it, so that nothing comes any more.
    ended: AtomicBool,
}

/// What a server says of itself that whoever runs it started as root.
pub const AS_ROOT: &str = "serving as root";

impl Program {
    /// The lab on a free port, with these flags behind it.
    pub fn lab<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(flags: I) -> Program {
        Program::start(Program::lab_command().args(["-l", "127.0.0.1:0"]).args(flags))
    }

    /// The lab, to be given flags. The log shows info and above.
    pub fn lab_command() -> Command {
        Program::example_command("lab")
    }

    /// An example, to be given flags.
    pub fn example_command(name: &str) -> Command {
        // Cargo names no variable for examples; they are built into the directory beside this test program's.
        let this = std::env::current_exe().expect("the test program");
        let profile = this.parent().and_then(Path::parent).expect("target/<profile>/deps");
        let built = profile.join("examples").join(name);
        assert!(!is_stale(&built), "{} is missing or older than the source: run a plain `cargo test`", built.display());
        quiet(Command::new(built))
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
        Program::spawn_with(command, Stdio::null(), Stdio::piped())
    }

    /// The same, with that stdin.
    pub fn spawn_with_stdin(command: &mut Command, stdin: impl Into<Stdio>) -> Program {
        Program::spawn_with(command, stdin.into(), Stdio::piped())
    }

    /// Starts it with that stdin, and waits until it is ready.
    #[track_caller]
    pub fn start_with_stdin(command: &mut Command, stdin: impl Into<Stdio>) -> Program {
        let mut program = Program::spawn_with_stdin(command.stdout(Stdio::piped()), stdin);
        program.read_announcement();
        program
    }

    /// Starts it with that stderr, and waits until it is ready. A log that goes elsewhere is not seen here.
    #[track_caller]
    pub fn start_with_stderr(command: &mut Command, stderr: impl Into<Stdio>) -> Program {
        let mut program = Program::spawn_with(command.stdout(Stdio::piped()), Stdio::null(), stderr.into());
        program.read_announcement();
        program
    }

    fn spawn_with(command: &mut Command, stdin: Stdio, stderr: Stdio) -> Program {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let mark = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Successors whose predecessor is gone become children of this process: their ids are theirs until they have
        // been waited for.
        // QEMU has no such call where it emulates a program: there nobody learns the exit code of a successor whose
        // predecessor is gone, and a test that asks for it fails by that.
        let _ = set_child_subreaper(Some(getpid()));
        command.env(MARK, &mark).stdin(stdin).stderr(stderr);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let pid = Pid::from_child(&child);
        let (sender, exited) = bounded(1);
        thread::spawn(move || {
            // It is left to be reaped by who owns the child: until then its id belongs to nobody else.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let _ = sender.send(());
        });
        let (log, announced) = (Arc::new(Lines::default()), Arc::new(Lines::default()));
        let (written, said) = (log.clone(), announced.clone());
        let reader = child.stderr.take().map(|stderr| thread::spawn(move || written.read(stderr)));
        // It keeps what it was given, or a pipe would never end, and a listener never be closed.
        command.stdin(Stdio::null()).stderr(Stdio::null());
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || said.read(stdout));
        }
        let said = Vec::new();
        Program { child, pid, bound: Vec::new(), said, announced, mark, log, reader, exited }
    }

    /// `listening on …` for each listener, then `ready pid=…`.
    fn read_announcement(&mut self) {
        if self.announced.wait_for("ready pid=", 1).is_none() {
            panic!("it did not become ready; stdout {:?}, stderr {:?}", self.announced.lines(), self.log.lines());
        }
        let said = self.announced.lines();
        let urls = said.iter().filter_map(|line| line.strip_prefix("listening on "));
        self.bound = urls.map(parse_bound).collect();
        self.said = said;
    }

    /// Waits until that generation is ready, and answers its pid.
    #[track_caller]
    pub fn generation(&self, number: usize) -> u32 {
        let line = self.announced.wait_for(&format!(" generation={number}"), 1);
        let line = line.unwrap_or_else(|| panic!("generation {number} did not become ready: {:#?}", self.log()));
        pid_of(&line).unwrap_or_else(|| panic!("no pid: {line}"))
    }

    /// The pid of the generation that was ready last.
    pub fn current(&self) -> u32 {
        self.announced.lines().iter().rev().find_map(|line| pid_of(line)).expect("it was ready once")
    }

    /// Where the generation that was ready last listens.
    pub fn listening(&self) -> Vec<Bound> {
        let lines = self.announced.lines();
        let last = lines.iter().rposition(|line| line.starts_with("ready pid=")).expect("it was ready once");
        let urls = lines[..last].iter().rev().map_while(|line| line.strip_prefix("listening on "));
        let mut bound: Vec<Bound> = urls.map(parse_bound).collect();
        bound.reverse();
        bound
    }

    /// How many generations have been ready.
    pub fn generations(&self) -> usize {
        self.announced.lines().iter().filter(|line| line.starts_with("ready pid=")).count()
    }

    /// Sends a signal to whatever generation has that pid.
    #[track_caller]
    pub fn signal_to(&self, pid: u32, signal: Signal) {
        assert!(self.is_ours(pid), "{pid} is gone: {:#?}", self.log());
        kill_process(raw(pid), signal).expect("it is there");
    }

    /// Whether that pid is a generation of this program that has not ended. (It may have ended in this very moment;
    /// its id is nobody else's before its parent has waited for it.)
    pub fn is_ours(&self, pid: u32) -> bool {
        // In the middle of execve a process shows no environment, or none that can be read.
        let until = Instant::now() + Duration::from_millis(500);
        while !is_dead(pid) && Instant::now() < until {
            if std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| self.has_mark(&environment)) {
                return true;
            }
            thread::yield_now();
        }
        false
    }

    fn has_mark(&self, environment: &[u8]) -> bool {
        let wanted = format!("{MARK}={}", self.mark);
        environment.split(|&byte| byte == 0).any(|entry| entry == wanted.as_bytes())
    }

    /// Every process that belongs to this program and has not ended.
    pub fn processes(&self) -> Vec<u32> {
        let entries = std::fs::read_dir("/proc").expect("/proc");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        // Whatever shows no environment now is, of all the processes of this host, most likely a kernel thread.
        let ours = |pid: &u32| std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|it| self.has_mark(&it));
        pids.filter(ours).collect()
    }

    /// Reloads, and waits until the new generation is ready and the old one, if it is another process, gone.
    /// Answers the new one's pid.
    #[track_caller]
    pub fn reload(&self) -> u32 {
        let (old, number) = (self.current(), self.generations() + 1);
        self.signal_to(old, Signal::HUP);
        let new = self.generation(number);
        if new != old {
            self.wait_for_end(old);
        }
        new
    }

    /// Waits until that generation has ended. Answers its exit code where this process is its parent now, and it was
    /// not killed.
    #[track_caller]
    pub fn wait_for_end(&self, pid: u32) -> Option<i32> {
        // An id that does not exist any more has been reaped by the predecessor. A process that ends loses its mark a
        // moment before.
        if let Ok(pidfd) = pidfd_open(raw(pid), PidfdFlags::empty()) {
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            let ended = poll(&mut fds, Some(&patience)).expect("poll");
            assert!(ended > 0, "{pid} did not end: {:#?}", self.log());
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::Pid(raw(pid)), options).ok().flatten()?;
        status.exit_status()
    }

    /// Stops the last generation and waits for its end. Answers its exit code.
    #[track_caller]
    pub fn stop(&self) -> Option<i32> {
        let pid = self.current();
        self.signal_to(pid, Signal::TERM);
        self.wait_for_end(pid)
    }

    /// Waits until that many lines of the log contain `text`, and answers the last of these.
    #[track_caller]
    pub fn logged_times(&self, text: &str, times: usize) -> String {
        let line = self.log.wait_for(text, times);
        line.unwrap_or_else(|| panic!("{text:?} was not logged {times} times: {:#?}", self.log()))
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

    /// Ends the first generation at once, and waits for it.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// See [`descriptors_with_room_for`].
    pub fn descriptors_with_room_for(&self, room: usize) -> u64 {
        descriptors_with_room_for(self.pid(), room)
    }

    /// Lowers or raises what it may open.
    pub fn limit_open_files(&self, files: u64) {
        limit_open_files(self.pid(), files);
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
        let mut pids: Vec<u32> = self.announced.lines().iter().filter_map(|line| pid_of(line)).collect();
        pids.dedup();
        for pid in pids.into_iter().filter(|&pid| pid != self.pid() && self.is_ours(pid)) {
            let _ = kill_process(raw(pid), Signal::KILL);
        }
        // Both do nothing to one that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the log of {}: {:#?}", self.child.id(), self.log.lines());
        }
    }
}

/// Whether an example has to be built: `cargo test --test NAME` does not do that. Cargo leaves beside it what it was
/// built from.
fn is_stale(example: &Path) -> bool {
    let Ok(built) = example.metadata().and_then(|example| example.modified()) else { return true };
    let sources = std::fs::read_to_string(example.with_extension("d")).unwrap_or_default();
    // As a makefile has it: `lab: source source …`, a space in a name behind a backslash.
    let sources = sources.replace("\\ ", "\0");
    let mut sources = sources.split_whitespace().skip(1).map(|path| path.replace('\0', " "));
    sources.any(|path| Path::new(&path).metadata().and_then(|meta| meta.modified()).is_ok_and(|at| at > built))
}

/// The environment variable by which a test knows its own processes.
const MARK: &str = "HANDOVER_TEST_MARK";

fn raw(pid: u32) -> Pid {
    Pid::from_raw(pid as i32).expect("a pid")
}

/// Whether it has ended and waits to be reaped, or is gone.
fn is_dead(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.is_empty() || status.contains("State:\tZ") || status.contains("State:\tX")
}

/// The pid in `ready pid=… …`.
fn pid_of(line: &str) -> Option<u32> {
    line.strip_prefix("ready pid=")?.split(' ').next()?.parse().ok()
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
        let _lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        self.ended.store(true, Ordering::Release);
        self.more.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wait(&self, text: &str) -> String {
        self.wait_for(text, 1).unwrap_or_else(|| panic!("{text:?} was not logged: {:#?}", self.lines()))
    }

    /// The line that is the `times`th with `text` in it.
    fn wait_for(&self, text: &str, times: usize) -> Option<String> {
        let nth = |lines: &[String]| lines.iter().filter(|line| line.contains(text)).nth(times - 1).cloned();
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .more
            .wait_timeout_while(lines, PATIENCE, |lines| nth(lines).is_none() && !self.ended.load(Ordering::Acquire));
        let (lines, _) = waited.unwrap_or_else(PoisonError::into_inner);
        nth(&lines)
    }
}

/// What a process takes: it must not grow from reload to reload.
#[derive(Debug)]
pub struct Size {
    pub descriptors: usize,
    pub threads: usize,
    /// Bytes of environment.
    pub environment: usize,
    /// KiB of memory.
    pub resident: usize,
    /// What of it is no file's.
    #[cfg_attr(not(target_env = "gnu"), allow(dead_code, reason = "only glibc is told to give it back"))]
    pub allocated: usize,
    /// The most that ever was, in the same unit.
    pub peak: usize,
    /// Processes that it has started and not reaped.
    pub children: usize,
}

impl Size {
    /// What it holds all the time: the least of several looks, because a handler under way has its file open.
    pub fn at_rest(pid: u32) -> Size {
        let looks = (0..20).map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            Size::of(pid)
        });
        let least = |one: Size, other: Size| Size {
            descriptors: one.descriptors.min(other.descriptors),
            threads: one.threads.min(other.threads),
            ..other
        };
        looks.reduce(least).expect("twenty looks")
    }

    pub fn of(pid: u32) -> Size {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("proc(5)");
            let number = line.trim_start_matches(':').trim().split(' ').next();
            number.and_then(|number| number.parse().ok()).expect("a number")
        };
        Size {
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).expect("/proc").count(),
            threads: number("Threads"),
            environment: std::fs::read(format!("/proc/{pid}/environ")).expect("/proc").len(),
            resident: number("VmRSS"),
            allocated: number("RssAnon"),
            peak: number("VmHWM"),
            children: children(pid),
        }
    }
}

/// What [`limit_open_files`] takes so that `room` more files can be opened. They have the lowest free numbers, and the
/// limit is one on numbers. What is open only now and then, such as a file of /proc that is being read, is free.
pub fn descriptors_with_room_for(pid: u32, room: usize) -> u64 {
    let look = || -> BTreeSet<u64> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("/proc");
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    };
    let open = (0..10).fold(look(), |open, _| {
        thread::sleep(Duration::from_millis(2));
        &open & &look()
    });
    let free = (0..).filter(|number| !open.contains(number));
    free.take(room).last().map_or(0, |last| last + 1)
}

/// Lowers or raises what a process may open.
pub fn limit_open_files(pid: u32, files: u64) {
    use rustix::process::{Resource, Rlimit, prlimit};
    let limit = Rlimit { current: Some(files), maximum: Some(1024) };
    prlimit(Some(raw(pid)), Resource::Nofile, limit).expect("prlimit");
}

/// How many children a process has, dead ones included.
pub fn children(pid: u32) -> usize {
    let parent = format!("PPid:\t{pid}\n");
    let processes = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
        let path = entry.ok()?.path().join("status");
        std::fs::read_to_string(path).ok()
    });
    processes.filter(|status| status.contains(&parent)).count()
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

    /// Waits until a file has not changed for a while, so that a server keeps it, in memory or open. Nobody can set the
    /// time of its last change to another.
    #[track_caller]
    pub fn settle(&self, name: &str) {
        let changed = self.path(name).metadata().expect("a file").ctime();
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
        eventually("it has not changed for a while", || now() >= changed + 3);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program on disk, of which a test runs a copy that it can replace.
pub struct OnDisk {
    real: PathBuf,
    directory: PathBuf,
}

impl OnDisk {
    pub fn of(command: &Command) -> OnDisk {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let real = PathBuf::from(command.get_program());
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Beside the real one, for links: to copy would mean that some other test's child holds the copy open for
        // writing, just when it is to be executed.
        let name = format!("handover-on-disk-{}-{number}", std::process::id());
        let directory = real.parent().expect("a directory").join(name);
        std::fs::create_dir(&directory).expect("a new directory");
        let on_disk = OnDisk { real, directory };
        on_disk.restore();
        on_disk
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.directory.join("program")
    }

    pub fn command(&self) -> Command {
        quiet(Command::new(self.path()))
    }

    /// It is there as it was.
    pub fn restore(&self) {
        self.remove();
        std::fs::hard_link(&self.real, self.path()).expect("a link");
    }

    pub fn remove(&self) {
        let _ = std::fs::remove_file(self.path());
    }

    /// In its place is a script. `$REAL` is the real program.
    pub fn replace(&self, script: &str) {
        self.remove();
        write_script(&self.path(), &format!("REAL='{}'\n{script}", self.real.display()));
    }

    /// The same, but it checks itself as it should.
    pub fn replace_behind_the_check(&self, script: &str) {
        self.replace(&format!("if [ -n \"$HANDOVER_CHECK\" ]; then exec \"$REAL\" \"$@\"; fi\n{script}"));
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Writes a script that can be executed at once: by another process, since a child that this one starts just then would
/// hold it open for writing.
pub fn write_script(path: &Path, script: &str) {
    let text = format!("#!/bin/sh\n{script}\n");
    let write = "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"";
    let status = Command::new("/bin/sh").args(["-c", write, "sh", &text]).arg(path).status();
    assert!(status.expect("a shell").success());
}

/// How often something is repeated: the number in the environment variable, or `default`.
pub fn count(variable: &str, default: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, allowed is a number")),
        Err(_) => default,
    }
}
