//! The program on disk, as it was started: what a reload runs afresh.

use super::child::{Child, How};
use crate::number::decimal;
use crate::working_directory;
use rustix::process::WaitStatus;
use std::env;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
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
            Program::new(env::args_os().collect(), environment)
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
        Program { path, args: args.into_iter().map(c_string).collect(), environment }
    }

    /// Where it is on disk: argv\[0\] made absolute, symlinks kept, so that an upgrade by symlink is seen.
    pub fn path(&self) -> &Path {
        &self.path
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
        let path = c_string(self.path.clone().into());
        Child::start(&path, &self.args, &self.environment_with(variables), streams, own_group)
    }

    /// Starts the program to check itself, in a process group of its own where a Ctrl-C at the terminal is for us to pass
    /// on.
    pub fn start_check(&self, own_group: bool) -> io::Result<Check> {
        let nothing = File::open("/dev/null")?;
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
        match nix::unistd::execve(&c_string(self.path.clone().into()), &self.args, &environment) {
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

/// execvp(3)'s rule: a name without a slash is looked up in PATH; anything else is relative to the working directory.
fn locate(name: &OsStr, search: Option<&OsStr>) -> PathBuf {
    let absolute = |path: &Path| working_directory::absolute(path).unwrap_or_else(|_| path.to_owned());
    if !name.as_bytes().contains(&b'/')
        && let Some(search) = search
    {
        let executable =
            |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
        if let Some(found) = env::split_paths(search).map(|directory| directory.join(name)).find(executable) {
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
