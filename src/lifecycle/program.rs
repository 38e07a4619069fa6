//! The program on disk, as it was started: what a reload runs afresh.

use super::signals::spawn;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

/// The environment variable that asks an application to check itself: [`Server::run`](crate::Server::run) then loads
/// everything, binds nothing, says what it found and returns. A reload sets it to run the program on disk first.
pub const CHECK: &str = "HANDOVER_CHECK";
/// Set for the successor in exec mode: the descriptor of the state, and the process it is for.
pub const STATE: &str = "HANDOVER_STATE";
/// Set for the successor in overlap mode to its predecessor's process: it talks to it over its stdin.
pub const SUCCESSOR: &str = "HANDOVER_SUCCESSOR";
/// What an application that checks itself prints: the state versions it reads, separated by commas.
pub const VERSIONS_LINE: &str = "handover reads state versions ";

/// Never passed on: each is for one process.
const DROPPED: [&str; 7] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", CHECK, STATE, SUCCESSOR];

/// The descriptor of the state that this process left itself, if it did.
pub fn state_of_this_process() -> Option<i32> {
    let state = env::var(STATE).ok()?;
    let (fd, pid) = state.split_once(':')?;
    let ours = pid.parse() == Ok(std::process::id());
    fd.parse().ok().filter(|&fd| ours && fd > 2)
}

/// Whether the process that started this one did so to be succeeded.
pub fn is_successor() -> bool {
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    let named = env::var(SUCCESSOR).ok().and_then(|pid| pid.parse::<i32>().ok());
    named.is_some() && named == parent
}

/// How the program was started: path, arguments and environment, before anything could change them.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Program {
    /// The program of this process, remembered at the first call.
    pub fn of_this_process() -> &'static Program {
        static PROGRAM: OnceLock<Program> = OnceLock::new();
        PROGRAM.get_or_init(|| {
            let args: Vec<OsString> = env::args_os().collect();
            let name = args.first().cloned().unwrap_or_default();
            let path = locate(&name, env::var_os("PATH").as_ref());
            let environment =
                env::vars_os().filter(|(name, _)| DROPPED.iter().all(|dropped| name != dropped)).collect();
            Program { path, args, environment }
        })
    }

    /// Where it is on disk: argv\[0\] made absolute, symlinks kept, so that an upgrade by symlink is seen.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let Some((name, rest)) = self.args.split_first() {
            command.arg0(name).args(rest);
        }
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the program to check itself.
    pub fn start_check(&self) -> io::Result<Check> {
        let mut command = self.command();
        command.env(CHECK, "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // In a group of its own: a Ctrl-C at the terminal is for us to pass on.
        command.process_group(0);
        Ok(Check { child: spawn(&mut command)? })
    }

    /// Starts the successor, `link` being its stdin.
    pub fn start_successor(&self, link: std::os::fd::OwnedFd) -> io::Result<Child> {
        let mut command = self.command();
        command.env(SUCCESSOR, std::process::id().to_string()).stdin(Stdio::from(link));
        spawn(&mut command)
    }

    /// Becomes the program. Returns only if that failed.
    ///
    /// Not by `CommandExt::exec`, which resets SIGPIPE and the signal mask also when it fails: the next sendfile to a
    /// closed peer would then kill the server.
    pub fn execute(&self, state: i32) -> io::Error {
        let c_string = |bytes: &OsStr| CString::new(bytes.as_bytes());
        let prepare = || -> Result<_, std::ffi::NulError> {
            let path = c_string(self.path.as_os_str())?;
            let args = self.args.iter().map(|arg| c_string(arg)).collect::<Result<Vec<_>, _>>()?;
            let mut environment = Vec::with_capacity(self.environment.len() + 1);
            for (name, value) in &self.environment {
                let mut entry = name.clone();
                entry.push("=");
                entry.push(value);
                environment.push(c_string(&entry)?);
            }
            environment.push(CString::new(format!("{STATE}={state}:{}", std::process::id()))?);
            Ok((path, args, environment))
        };
        match prepare() {
            Ok((path, args, environment)) => match nix::unistd::execve(&path, &args, &environment) {
                Err(errno) => errno.into(),
            },
            Err(error) => io::Error::new(io::ErrorKind::InvalidInput, error),
        }
    }
}

/// execvp(3)'s rule: a name without a slash is looked up in PATH; anything else is relative to the working directory.
fn locate(name: &OsStr, search: Option<&OsString>) -> PathBuf {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
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
}

impl Check {
    /// Whether it has ended, and how: `Ok` with the state versions that the program reads.
    pub fn outcome(&mut self) -> Option<Result<Vec<u32>, String>> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(self.read(status)),
            Err(error) => Some(Err(format!("cannot wait for the check: {error}"))),
        }
    }

    fn read(&mut self, status: ExitStatus) -> Result<Vec<u32>, String> {
        // What it said fits into the pipes, else it would not have ended; the rest may be held open by its children.
        let stdout = drain(self.child.stdout.as_mut());
        if !status.success() {
            let stderr = drain(self.child.stderr.as_mut());
            let reason = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            return Err(format!("the check failed with {}: {reason}", describe(status)));
        }
        let versions = stdout.lines().find_map(|line| line.strip_prefix(VERSIONS_LINE));
        let versions = versions.ok_or("the program on disk does not check itself: is it built on handover?")?;
        Ok(versions.split(',').filter_map(|version| version.trim().parse().ok()).collect())
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Kills and reaps.
pub fn end(child: &mut Child) {
    // Both fail only if it has been reaped already.
    let _ = child.kill();
    let _ = child.wait();
}

/// How a child ended, for a message.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn drain<R: Read + std::os::fd::AsFd>(pipe: Option<&mut R>) -> String {
    let mut bytes = vec![0; 64 * 1024];
    let Some(pipe) = pipe else { return String::new() };
    let mut length = 0;
    // Never waits: a grandchild may hold the pipe open.
    if rustix::io::ioctl_fionbio(&*pipe, true).is_ok() {
        while let Ok(read @ 1..) = pipe.read(&mut bytes[length..]) {
            length += read;
        }
    }
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_slash_is_looked_up_in_path() {
        let search = OsString::from("/nonexistent:/bin:/usr/bin");
        assert!(locate(OsStr::new("sh"), Some(&search)).ends_with("bin/sh"));
        assert!(locate(OsStr::new("./sh"), Some(&search)).starts_with(env::current_dir().expect("a directory")));
        assert_eq!(locate(OsStr::new("/a/b"), Some(&search)), Path::new("/a/b"));
    }
}
