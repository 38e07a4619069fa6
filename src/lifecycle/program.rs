//! The program on disk, as it was started: what a reload runs afresh.

use super::before;
use super::child::{Child, How};
use super::configuration;
use crate::sys::process::executed_path;
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
///
/// ```
/// if std::env::var_os(handover::CHECK_VARIABLE).is_none() {
///     // What a check must not do, and that cannot wait for a handler.
/// }
/// ```
pub const CHECK: &str = "HANDOVER_CHECK";
/// Set for the successor in exec mode: the descriptor of the state, and the process it is for.
pub const STATE: &str = "HANDOVER_STATE";
/// Set for the successor in overlap mode to its predecessor's process: it talks to it over its stdin.
pub const SUCCESSOR: &str = "HANDOVER_SUCCESSOR";
/// Set for the successor in both modes: what the predecessor tells it about the reload and the pid file.
pub const RELOAD: &str = "HANDOVER_RELOAD";
/// Set for the successor in both modes: the predecessor's generation, and what its log has said of its start.
pub const SAID: &str = "HANDOVER_SAID";
/// What an application that checks itself prints: the state versions it reads, separated by commas.
pub const VERSIONS_LINE: &str = "handover reads state versions ";
/// The same of the words of the link. What does not print it knows the first ones.
pub const WORDS_LINE: &str = "handover knows words of versions ";
/// The lines by which it says which conversations it goes on with: behind each its name, as a string of JSON.
pub const CONVERSATION_LINE: &str = "handover goes on with conversation ";
/// By which path a program was found that is executed by its descriptor.
pub const PATH: &str = "HANDOVER_PROGRAM";
/// Set for a program that is executed: whose way back it is, the descriptor of the image, what has failed before, and the
/// configuration's variable for the image.
pub const WAY_BACK: &str = "HANDOVER_WAY_BACK";
/// Set for an image that was come back to: whose, the descriptors of this attempt, what has failed before, and the reason.
pub const CAME_BACK: &str = "HANDOVER_CAME_BACK";
/// The line of its check by which a program says that it comes back from an exec that leads nowhere.
pub const WAY_BACK_LINE: &str = "handover comes back from an exec";

/// Whether this process was started to check itself, by a server that is to be reloaded.
pub fn is_check() -> bool {
    std::env::var_os(CHECK).is_some()
}

/// Never passed on: each is for one process.
const DROPPED: [&str; 15] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_PID",
    CHECK,
    before::VARIABLE,
    STATE,
    SUCCESSOR,
    RELOAD,
    SAID,
    PATH,
    configuration::VARIABLE,
    WAY_BACK,
    CAME_BACK,
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

/// The generation of the process that has told this one something in [`SAID`]: its predecessor, or, if it has come back, itself.
pub fn generation_before() -> Option<u64> {
    let said = env::var(SAID).ok()?;
    decimal(said.split_once(':')?.0)
}

/// Whether this process has become another program and is back.
pub fn has_come_back() -> bool {
    env::var_os(CAME_BACK).is_some()
}

/// How the program was started: path, arguments and environment, before anything could change them.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    /// The program that runs, wherever it is now; `None` without /proc. It is executed where argv\[0\] leads nowhere, and
    /// to come back.
    image: Option<OwnedFd>,
    /// Whether argv\[0\] does not lead to it.
    elsewhere: bool,
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
            Program::new(env::args_os().collect(), environment).or_what_runs().named()
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
        Program { path, image: None, elsewhere: false, args: args.into_iter().map(c_string).collect(), environment }
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
        let found = if is_path { is_executable(&self.path) } else { runs(&self.path) };
        if found {
            self.image = running.map(OwnedFd::from);
            return self;
        }
        let mut executed = absolute(executed_path());
        if is_of_a_descriptor(&executed)
            && let Some(path) = env::var_os(PATH)
        {
            executed = path.into();
        }
        // A predecessor has executed its own descriptor, whose number means another file here, or ours by chance.
        let executed = Some(executed).filter(|path| !is_of_a_descriptor(path) && runs(path));
        let found = executed.or(linked);
        if let Some(path) = found {
            self.path = path;
            self.elsewhere = running.is_some();
        }
        self.image = running.map(OwnedFd::from);
        self
    }

    /// What to know about a name that is only a label.
    pub fn note(&self) -> Option<String> {
        if !self.elsewhere {
            return None;
        }
        let name = self.args.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        Some(format!("argv[0] is {name:?}, where this program is not: a reload runs {}", self.path.display()))
    }

    /// A program that was executed by its descriptor has that one's number for its name, as ps(1) and /proc show it.
    fn named(self) -> Program {
        if let Some(name) = self.path.file_name().filter(|_| is_of_a_descriptor(executed_path())) {
            // Where it is refused the name is a number; of a name that is too long the kernel takes the beginning.
            let _ = rustix::thread::set_name(&c_string(name.to_owned()));
        }
        self
    }

    /// Where it is on disk: argv\[0\] made absolute, symlinks kept, so that an upgrade by symlink is seen.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to execute: the path, or what runs, where it has been taken away from there and argv\[0\] names no other.
    pub(super) fn executable(&self) -> CString {
        match &self.image {
            Some(image) if self.elsewhere && !is_executable(&self.path) => {
                c_string(format!("/proc/self/fd/{}", image.as_raw_fd()).into())
            }
            _ => c_string(self.path.clone().into()),
        }
    }

    /// The program that runs, to be executed again. Without /proc there is none.
    pub fn image(&self) -> Option<BorrowedFd<'_>> {
        self.image.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn args(&self) -> &[CString] {
        &self.args
    }

    /// As it was at start, without what is for one process alone.
    pub(super) fn environment(&self) -> &[CString] {
        &self.environment
    }

    /// Its environment and some more.
    pub(super) fn environment_with(&self, variables: &[(&str, &OsStr)]) -> Vec<CString> {
        let mut environment = self.environment.clone();
        for (name, value) in variables {
            let mut variable = OsString::from(name);
            variable.push("=");
            variable.push(value);
            environment.push(c_string(variable));
        }
        environment
    }
}

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

/// What a program was executed by that was executed by its descriptor.
fn is_of_a_descriptor(path: &Path) -> bool {
    path.starts_with("/proc/self") || path.starts_with("/dev/fd")
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
    /// Starts one by that, which is given the standard streams.
    pub(super) fn start(start: impl FnOnce(&[(BorrowedFd<'_>, RawFd)]) -> io::Result<Child>) -> io::Result<Check> {
        // Nothing to read, without a /dev/null, which a bare chroot has not.
        let (nothing, _) = io::pipe()?;
        let ((stdout, to_stdout), (stderr, to_stderr)) = (io::pipe()?, io::pipe()?);
        let child = start(&[(nothing.as_fd(), 0), (to_stdout.as_fd(), 1), (to_stderr.as_fd(), 2)])?;
        Ok(Check { child, stdout: Said::new(stdout)?, stderr: Said::new(stderr)? })
    }

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
    /// What it said about why it failed: the last line, or where and by what it panicked, behind which there is a trace or
    /// how to get one. `None` if it did not fail.
    pub fn complaint(&self) -> Option<String> {
        if self.status.exit_status() == Some(0) {
            return None;
        }
        let mut lines = self.stderr.lines().map(str::trim).filter(|line| !line.is_empty());
        if let Some(place) = lines.find(|line| line.starts_with("thread '") && line.contains(" panicked at ")) {
            return Some(format!("{place} {}", lines.next().unwrap_or_default()));
        }
        let last = self.stderr.lines().rev().find(|line| !line.trim().is_empty());
        Some(last.unwrap_or("it said nothing").to_owned())
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
            comes_back: self.stdout.lines().any(|line| line == WAY_BACK_LINE),
            conversations: {
                let names = self.stdout.lines().filter_map(|line| line.strip_prefix(CONVERSATION_LINE));
                names.filter_map(|name| serde_json::from_str(name).ok()).collect()
            },
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
    /// Whether it comes back from an exec that leads nowhere.
    pub comes_back: bool,
    /// The conversations that it goes on with, by their names.
    pub conversations: Vec<String>,
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
