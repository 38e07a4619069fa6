//! The program on disk, as it was started: what a reload runs afresh.

use super::child::{Child, How};
use crate::sys::working_directory;
use http1::number::decimal;
use rustix::fs::{Mode, OFlags};
use rustix::process::WaitStatus;
use std::env;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The environment variable that asks an application to check itself: [`Server::run`](crate::Server::run) then loads
/// everything, binds nothing, says what it found and returns. A reload sets it to run the program on disk first.
pub const CHECK: &str = "HANDOVER_CHECK";
/// Set for the successor in exec mode: the descriptor of the state, and the process it is for.
pub const STATE: &str = "HANDOVER_STATE";
/// Set for the successor in overlap mode to its predecessor's process: it talks to it over its stdin.
pub const SUCCESSOR: &str = "HANDOVER_SUCCESSOR";
/// Set for the successor in both modes: what the predecessor tells it about the reload and the pid file.
pub const RELOAD: &str = "HANDOVER_RELOAD";
/// What an application that checks itself prints: the state versions it reads, separated by commas.
pub const VERSIONS_LINE: &str = "handover reads state versions ";
/// The same of the words of the link. What does not print it knows the first ones.
pub const WORDS_LINE: &str = "handover knows words of versions ";

/// Never passed on: each is for one process.
const DROPPED: [&str; 9] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_PID",
    CHECK,
    STATE,
    SUCCESSOR,
    RELOAD,
    working_directory::VARIABLE,
];

/// The descriptor of the state that this process left itself, if it did.
pub fn state_of_this_process() -> Option<i32> {
    let state = env::var(STATE).ok()?;
    let (fd, pid) = state.split_once(':')?;
    let ours = decimal(pid) == Some(std::process::id());
    decimal(fd).filter(|&fd| ours && fd > 2)
}

/// Whether the process that started this one did so to be succeeded.
pub fn is_successor() -> bool {
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    let named = env::var(SUCCESSOR).ok().and_then(|pid| decimal(&pid));
    named.is_some() && named == parent
}

/// How the program was started: path, arguments and environment, before anything could change them.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    /// If argv\[0\] does not lead to it: the program that runs, wherever it is now.
    running: Option<OwnedFd>,
    args: Vec<CString>,
    /// Each as `NAME=value`.
    environment: Vec<CString>,
}

impl Program {
    /// The program of this process, remembered at the first call.
    pub fn of_this_process() -> &'static Program {
        static PROGRAM: OnceLock<Program> = OnceLock::new();
        PROGRAM.get_or_init(|| {
            let mut environment = Vec::new();
            for (mut variable, value) in env::vars_os() {
                variable.push("=");
                variable.push(value);
                environment.push(variable);
            }
            Program::new(env::args_os().collect(), environment).or_what_runs()
        })
    }

    /// A program that is started with these arguments, the first being its name, and with what of these variables, each
    /// as `NAME=value`, is not meant for another process.
    pub fn new(args: Vec<OsString>, environment: Vec<OsString>) -> Program {
        let name = args.first().map(OsString::as_os_str).unwrap_or_default();
        let mut environment: Vec<CString> = environment.into_iter().map(c_string).collect();
        let path = locate(name, value_of(&environment, "PATH"));
        environment.retain(|entry| DROPPED.iter().all(|dropped| value(entry, dropped).is_none()));
        environment.extend(working_directory::variable().map(c_string));
        Program { path, running: None, args: args.into_iter().map(c_string).collect(), environment }
    }

    /// argv\[0\] may be no more than a label: of `exec -a`, of systemd's `@`, of a login shell. Then the program is where
    /// it was executed from, symlinks kept, or else where the kernel says that it is.
    ///
    /// With a slash in it argv\[0\] is a path, and whatever can be executed there is meant: a wrapper, for one, passes its
    /// own on. A label without one may be the name of another program in PATH, so what is found there has to be this one.
    fn or_what_runs(mut self) -> Program {
        // By O_PATH, which needs no permission to read. There may be no /proc.
        let running = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let running = running.ok().map(File::from);
        let identity =
            running.as_ref().and_then(|running| running.metadata().ok()).map(|meta| (meta.dev(), meta.ino()));
        // What was replaced by rename since it was executed has another inode, under the same path.
        let linked = std::fs::read_link("/proc/self/exe").ok().map(|path| {
            let path = path.into_os_string().into_vec();
            PathBuf::from(OsString::from_vec(path.strip_suffix(b" (deleted)").unwrap_or(&path).to_vec()))
        });
        let runs = |path: &Path| {
            let same = path.metadata().is_ok_and(|meta| identity.is_none_or(|it| it == (meta.dev(), meta.ino())));
            is_executable(path) && (same || linked.is_some() && path.canonicalize().ok() == linked)
        };
        let is_path = self.args.first().is_some_and(|name| name.to_bytes().contains(&b'/'));
        if if is_path { is_executable(&self.path) } else { runs(&self.path) } {
            return self;
        }
        let executed = absolute(Path::new(OsStr::from_bytes(rustix::param::linux_execfn().to_bytes())));
        // A predecessor has executed its own descriptor, whose number means another file here, or ours by chance.
        let executed = Some(executed).filter(|path| !path.starts_with("/proc/self") && runs(path));
        let found = executed.or(linked);
        if let Some(path) = found {
            self.path = path;
            self.running = running.map(OwnedFd::from);
        }
        self
    }

    /// What to know about a name that is only a label.
    pub fn note(&self) -> Option<String> {
        self.running.as_ref()?;
        let name = self.args.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        Some(format!("argv[0] is {name:?}, where this program is not: a reload runs {}", self.path.display()))
    }

    /// Where it is on disk: argv\[0\] made absolute, symlinks kept, so that an upgrade by symlink is seen.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to execute: the path, or what runs, where it has been taken away from there and argv\[0\] names no other.
    fn executable(&self) -> CString {
        match &self.running {
            Some(running) if !is_executable(&self.path) => {
                c_string(format!("/proc/self/fd/{}", running.as_raw_fd()).into())
            }
            _ => c_string(self.path.clone().into()),
        }
    }

    /// Its environment and some more.
    fn environment_with(&self, variables: &[(&str, &OsStr)]) -> Vec<CString> {
        let mut environment = self.environment.clone();
        for (name, value) in variables {
            let mut variable = OsString::from(name);
            variable.push("=");
            variable.push(value);
            environment.push(c_string(variable));
        }
        environment
    }

    fn start(
        &self,
        variables: &[(&str, &OsStr)],
        streams: &[(BorrowedFd<'_>, RawFd)],
        own_group: bool,
    ) -> io::Result<Child> {
        Child::start(&self.executable(), &self.args, &self.environment_with(variables), streams, own_group)
    }

    /// Starts the program to check itself, in a process group of its own where a Ctrl-C at the terminal is for us to pass
    /// on.
    pub fn start_check(&self, own_group: bool) -> io::Result<Check> {
        // Nothing to read, without a /dev/null, which a bare chroot has not.
        let (nothing, _) = io::pipe()?;
        let ((stdout, to_stdout), (stderr, to_stderr)) = (io::pipe()?, io::pipe()?);
        let streams = [(nothing.as_fd(), 0), (to_stdout.as_fd(), 1), (to_stderr.as_fd(), 2)];
        Ok(Check {
            child: self.start(&[(CHECK, "1".as_ref())], &streams, own_group)?,
            stdout: Said::new(stdout)?,
            stderr: Said::new(stderr)?,
        })
    }

    /// Starts the successor, `link` being its stdin.
    pub fn start_successor(&self, link: BorrowedFd<'_>, legacy: &OsStr) -> io::Result<Child> {
        let ours = std::process::id().to_string();
        self.start(&[(SUCCESSOR, ours.as_ref()), (RELOAD, legacy)], &[(link, 0)], false)
    }

    /// Becomes the program. Returns only if that failed.
    ///
    /// Not by `CommandExt::exec`, which resets SIGPIPE and the signal mask also when it fails: the next sendfile to a
    /// closed peer would then kill the server.
    pub fn execute(&self, state: i32, legacy: &OsStr) -> io::Error {
        let state = format!("{state}:{}", std::process::id());
        let environment = self.environment_with(&[(STATE, state.as_ref()), (RELOAD, legacy)]);
        match nix::unistd::execve(&self.executable(), &self.args, &environment) {
            Err(errno) => errno.into(),
        }
    }
}

/// Of a path, an argument or a variable. Those of a process have no NUL: the kernel ends them with one.
fn c_string(text: OsString) -> CString {
    CString::new(text.into_vec()).unwrap_or_default()
}

/// The value, if the entry is of that variable.
fn value<'e>(entry: &'e CStr, name: &str) -> Option<&'e OsStr> {
    let value = entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
    Some(OsStr::from_bytes(value))
}

fn value_of<'e>(environment: &'e [CString], name: &str) -> Option<&'e OsStr> {
    environment.iter().find_map(|entry| value(entry, name))
}

fn absolute(path: &Path) -> PathBuf {
    working_directory::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// execvp(3)'s rule: a name without a slash is looked up in PATH; anything else is relative to the working directory.
fn locate(name: &OsStr, search: Option<&OsStr>) -> PathBuf {
    if !name.as_bytes().contains(&b'/')
        && let Some(search) = search
    {
        let mut places = env::split_paths(search).map(|directory| directory.join(name));
        if let Some(found) = places.find(|path| is_executable(path)) {
            return absolute(&found);
        }
    }
    absolute(Path::new(name))
}

/// A run of the program that checks itself.
#[derive(Debug)]
pub struct Check {
    child: Child,
    stdout: Said,
    stderr: Said,
}

/// The end of what a child says.
#[derive(Debug)]
struct Said {
    pipe: PipeReader,
    end: Vec<u8>,
}

/// How a check ended.
pub struct Checked {
    pub status: WaitStatus,
    stdout: String,
    stderr: String,
}

impl Check {
    /// How it ended, if it has.
    pub fn outcome(&mut self) -> io::Result<Option<Checked>> {
        let ended = self.child.try_wait()?;
        // Whether or not it has: it would wait for ever behind a pipe that is full.
        self.stdout.listen();
        self.stderr.listen();
        Ok(ended.map(|status| Checked { status, stdout: self.stdout.text(), stderr: self.stderr.text() }))
    }
}

impl Checked {
    /// The last that it said about why it failed; `None` if it did not fail.
    pub fn complaint(&self) -> Option<&str> {
        let said = || self.stderr.lines().rev().find(|line| !line.trim().is_empty());
        (self.status.exit_status() != Some(0)).then(|| said().unwrap_or("it said nothing"))
    }

    /// What the program reads of what we could write.
    pub fn reads(&self) -> Result<Reads, String> {
        if let Some(reason) = self.complaint() {
            return Err(format!("the check failed with {}: {reason}", How(self.status)));
        }
        let versions_behind = |start: &str| {
            let versions = self.stdout.lines().find_map(|line| line.strip_prefix(start))?;
            Some(versions.split(',').filter_map(|version| decimal(version.trim())).collect())
        };
        let states = versions_behind(VERSIONS_LINE);
        Ok(Reads {
            states: states.ok_or("the program on disk does not check itself: is it built on handover?")?,
            words: versions_behind(WORDS_LINE).unwrap_or_else(|| vec![1]),
        })
    }
}

/// What a program says that it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reads {
    /// The versions of the state.
    pub states: Vec<u32>,
    /// The versions of the words between the two.
    pub words: Vec<u32>,
}

impl Drop for Check {
    fn drop(&mut self) {
        self.child.end();
    }
}

impl Said {
    /// What is kept of it: the line that is looked for is among the last.
    const KEPT: usize = 64 * 1024;

    fn new(pipe: PipeReader) -> io::Result<Said> {
        // Nobody waits here, and a grandchild may hold the pipe open.
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Said { pipe, end: Vec::new() })
    }

    /// Takes what is there, up to a mebibyte: a child that never ends may never cease.
    fn listen(&mut self) {
        let mut bytes = [0; 4096];
        for _ in 0..256 {
            let Ok(read @ 1..) = self.pipe.read(&mut bytes) else { return };
            self.end.extend_from_slice(&bytes[..read]);
            if self.end.len() > 2 * Said::KEPT {
                self.end.drain(..self.end.len() - Said::KEPT);
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.end).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_slash_is_looked_up_in_path() {
        let search = OsStr::new("/nonexistent:/bin:/usr/bin");
        assert!(locate(OsStr::new("sh"), Some(search)).ends_with("bin/sh"));
        assert!(locate(OsStr::new("./sh"), Some(search)).starts_with(env::current_dir().expect("a directory")));
        assert_eq!(locate(OsStr::new("/a/b"), Some(search)), Path::new("/a/b"));
    }
}
