//! `handover reload`: a reload that answers, for scripts. A signal alone says nothing.
//!
//! It asks the server, which checks what it is about to run itself and leaves the outcome in a file beside the pid file.
//! Whoever runs this may be root and the server another user, so nothing is believed for more than it is: no program of
//! the other's is run, a signal goes only to a process of the user that the pid file belongs to, and what the outcome
//! says is printed as text.

use crate::config::DEFAULT_RELOAD_DEADLINE;
use crate::lifecycle::outcome::{self, Left, Outcome};
use crate::lifecycle::process::Process;
use crate::lifecycle::small_file::{self, Stamp};
use lexopt::{Arg, Parser};
use rustix::process::{Pid, Signal};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// The first argument that asks for it. A directory of that name is served as `./reload`.
const NAME: &str = "reload";
/// How long `--wait` waits: the server's own reload deadline.
const DEFAULT_WAIT: Duration = DEFAULT_RELOAD_DEADLINE;
/// A day. Longer is a slip of the finger.
const MAX_WAIT: u32 = 24 * 60 * 60;
/// How often to look. Watching the directory would be quicker by that much, and not work on every file system.
const POLL: Duration = Duration::from_millis(25);
/// How long a server that is no longer in its pid file, or another that is there, has to say more.
const GRACE: Duration = Duration::from_secs(1);
/// The most that is read of a pid file.
const PID_FILE: u64 = 64;
/// The most that is printed of what the server says, in characters.
const LONGEST: usize = 2000;

/// What `--help` says; `name` is the program that is asked to reload others of its kind.
pub(super) fn help(name: &str) -> String {
    format!(
        "\
Usage: {name} reload --pid-file FILE [--wait[=SECS]]
       {name} reload --pid N

Asks a running server to run its program on disk afresh, with its configuration
read anew, by sending HUP. Live connections go on. The server has the program on
disk check itself first, and if it fails, serves on as before.

      --pid-file FILE   the server's own --pid-file
      --pid N           its pid
      --wait[=SECS]     wait until the new generation serves [60], or the server
                        says why there is none; needs --pid-file, beside which
                        it leaves the outcome, in FILE.outcome
      --program NAME    the program that runs there, of which the name counts
                        [{name}]
  -h, --help            this text

Exit codes  0 signalled, no more; with --wait: the new generation serves
            1 not so; the reason stands on stderr in one line
            2 wrong usage
"
    )
}

/// What the command line asks for, its program's name included, if that is a reload of the program.
pub fn reload_command(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    reload_command_of(env!("CARGO_PKG_NAME"), args).map(ExitCode::from)
}

/// The same for a program of that name, whose exit code it answers.
pub fn reload_command_of(name: &str, args: impl IntoIterator<Item = OsString>) -> Option<u8> {
    let mut args = args.into_iter().skip(1);
    (args.next()? == NAME).then(|| run(name, args))
}

/// Runs the command; `args` are what follows `reload`.
fn run(name: &str, args: impl Iterator<Item = OsString>) -> u8 {
    let (stream, text, code): (&mut dyn Write, String, u8) = match parse(name, args) {
        Ok(None) => (&mut io::stdout(), help(name), 0),
        Err(mistake) => (&mut io::stderr(), format!("{name} reload: {mistake} (try {name} reload --help)\n"), 2),
        Ok(Some(request)) => match reload(&request) {
            Ok(done) => (&mut io::stdout(), format!("{done}\n"), 0),
            Err(CommandError(reason)) => (&mut io::stderr(), format!("{name} reload: {reason}\n"), 1),
        },
    };
    // Whoever closed the stream does not want the text, and the exit code says the same.
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    code
}

#[derive(Debug)]
struct Request {
    target: ReloadTarget,
    wait: Option<Duration>,
    program: String,
}

#[derive(Debug)]
enum ReloadTarget {
    Pid(Pid),
    File(PathBuf),
}

/// `None` for `--help`. An error is a mistake in the usage.
fn parse(name: &str, args: impl IntoIterator<Item = OsString>) -> Result<Option<Request>, String> {
    let (mut target, mut wait, mut program) = (None, None, name.to_owned());
    let mut parser = Parser::from_args(args);
    let told = |error: lexopt::Error| {
        // On one line, whatever is in the argument.
        let quoted = format!("{:?}", error.to_string());
        quoted[1..quoted.len() - 1].replace("\\\"", "\"")
    };
    while let Some(argument) = parser.next().map_err(told)? {
        let another = match argument {
            Arg::Long("pid-file") => ReloadTarget::File(parser.value().map_err(told)?.into()),
            Arg::Long("pid") => {
                let value = parser.value().map_err(told)?;
                let pid = value.to_str().and_then(parse_pid);
                ReloadTarget::Pid(pid.ok_or_else(|| format!("--pid is {value:?}, allowed is a pid"))?)
            }
            Arg::Long("wait") => {
                wait = Some(match parser.optional_value() {
                    None => DEFAULT_WAIT,
                    Some(value) => {
                        let seconds = value.to_str().and_then(digits).filter(|&seconds| seconds <= MAX_WAIT);
                        let seconds = seconds.ok_or_else(|| {
                            format!("--wait is {value:?}, allowed are whole seconds, --wait=0 to --wait={MAX_WAIT}")
                        })?;
                        Duration::from_secs(seconds.into())
                    }
                });
                continue;
            }
            Arg::Long("program") => {
                let value = parser.value().map_err(told)?;
                let value = value.into_string();
                let path = value.map_err(|value| format!("--program is {value:?}, which is not UTF-8"))?;
                // A process knows its name and not its path, which an upgrade may have changed.
                let name = Path::new(&path).file_name().and_then(|name| name.to_str());
                program = name.unwrap_or(&path).to_owned();
                continue;
            }
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            other => return Err(told(other.unexpected())),
        };
        if target.replace(another).is_some() {
            return Err("give --pid-file or --pid, and only once".to_owned());
        }
    }
    let target = target.ok_or("which server? give --pid-file FILE or --pid N")?;
    if let (ReloadTarget::Pid(_), Some(_)) = (&target, wait) {
        return Err("--wait needs --pid-file: a pid does not show the new generation, which may have the same".into());
    }
    Ok(Some(Request { target, wait, program }))
}

/// Why nothing was reloaded, in one line.
#[derive(Debug)]
struct CommandError(String);

impl CommandError {
    fn new(reason: fmt::Arguments<'_>) -> CommandError {
        CommandError(reason.to_string())
    }
}

/// What there is to say when it went well.
enum Done {
    Signalled(Pid),
    Reloaded { from: Pid, to: Pid, took: Duration },
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Done::Signalled(pid) => write!(f, "process {pid} was asked to reload"),
            Done::Reloaded { from, to, took } if from == to => {
                write!(f, "reloaded: process {to} runs the program afresh, after {}", rounded(*took))
            }
            Done::Reloaded { from, to, took } => {
                write!(f, "reloaded: process {to} has taken over from {from}, after {}", rounded(*took))
            }
        }
    }
}

/// Seconds with two decimals. Not as a floating point number, which nothing else here would print.
fn rounded(time: Duration) -> String {
    let hundredths = (time.as_millis() as u64 + 5) / 10;
    format!("{}.{:02} s", hundredths / 100, hundredths % 100)
}

fn reload(request: &Request) -> Result<Done, CommandError> {
    // What is on disk now is what is asked for: a reload that began before may have read what was there before.
    let asked = outcome::now();
    let (pid, file) = match &request.target {
        ReloadTarget::Pid(pid) => (*pid, None),
        ReloadTarget::File(path) => {
            let PidFile { pid, owner, stamp } = PidFile::read(path)?;
            // Both before the signal, or a quick successor's would be taken for the old ones.
            (pid, Some((path, owner, stamp, left_beside(path))))
        }
    };
    let process = find(pid, file.as_ref().map(|(_, owner, ..)| *owner), &request.program)?;
    let began = Instant::now();
    ask(pid, &process)?;
    match (request.wait, file) {
        (Some(patience), Some((path, _, stamp, left))) => {
            Waiting { request, path, pid, process, asked, began, patience, stamp, left }.outcome()
        }
        _ => Ok(Done::Signalled(pid)),
    }
}

/// The process with that pid, if it is the server: a pid file that was left behind may name one that has nothing to do
/// with us, and HUP ends most of them. One that a user can write to names no process of another.
fn find(pid: Pid, owner: Option<u32>, program: &str) -> Result<Process, CommandError> {
    let process = Process::find(pid)
        .ok_or_else(|| CommandError::new(format_args!("there is no process {pid}; the server has ended")))?;
    if let Some(owner) = owner.filter(|&owner| owner != 0 && owner != process.real_user) {
        let user = process.real_user;
        return Err(CommandError::new(format_args!(
            "the pid file belongs to user {owner}, and process {pid} to user {user}: nothing is signalled"
        )));
    }
    if !process.is_called(program) {
        let name = &process.name;
        return Err(CommandError::new(format_args!(
            "process {pid} is {name:?} and not {program:?}: is the pid an old one, or does it want --program {name:?}?"
        )));
    }
    if !process.handles_hup {
        return Err(CommandError::new(format_args!("process {pid} does not handle HUP: it is starting, or ending")));
    }
    Ok(process)
}

fn ask(pid: Pid, process: &Process) -> Result<(), CommandError> {
    process.signal(Signal::HUP).map_err(|error| {
        let help = if error == rustix::io::Errno::PERM { "; run this as its user, or as root" } else { "" };
        CommandError::new(format_args!("cannot signal process {pid}: {error}{help}"))
    })
}

/// What is there of an outcome; a file that cannot be read is none.
fn left_beside(path: &Path) -> Option<Left> {
    Outcome::find(path).ok()
}

/// A server that was asked, and what there was of it before.
struct Waiting<'r> {
    request: &'r Request,
    path: &'r Path,
    pid: Pid,
    process: Process,
    /// See [`outcome::now`].
    asked: u64,
    began: Instant,
    patience: Duration,
    stamp: Stamp,
    left: Option<Left>,
}

impl Waiting<'_> {
    fn outcome(mut self) -> Result<Done, CommandError> {
        let mut users = vec![0, self.process.effective_user, self.process.real_user];
        // Since when the pid file has been another, or none.
        let (mut changed, mut asked_again) = (None, false);
        loop {
            // In this order: a predecessor that has ended had a successor in the file before that, or has failed.
            let running = self.process.is_running();
            let named = PidFile::read(self.path).ok();
            let left = left_beside(self.path);
            let new = named.as_ref().filter(|file| file.stamp != self.stamp);
            let successor = new.and_then(|file| Some((file.pid, Process::find(file.pid)?)));
            if let Some((_, process)) = &successor {
                users.push(process.effective_user);
                users.dedup();
            }
            let silent = match left {
                // It may have been left by a server long ago, or by anybody in its directory.
                Some(left) if self.is_same(&left) || !users.contains(&left.owner) => true,
                Some(Left { outcome: Some(outcome), .. }) if outcome.began >= self.asked => return self.told(outcome),
                Some(_) => false,
                None => true,
            };
            let waited = match (&named, new) {
                (Some(_), None) => None,
                _ => Some(changed.get_or_insert_with(Instant::now).elapsed()),
            };
            let enough = waited.is_some_and(|waited| waited >= GRACE);
            match successor {
                // One that leaves no outcome: an older version, or its directory is full.
                Some((to, _)) if silent && enough => {
                    return Ok(Done::Reloaded { from: self.pid, to, took: self.began.elapsed() });
                }
                // A signal in the last moment of a process is lost with it.
                Some((to, _)) if !running && enough && !asked_again => {
                    asked_again = true;
                    let owner = named.map(|file| file.owner);
                    self.process = find(to, owner, &self.request.program)?;
                    ask(to, &self.process)?;
                }
                Some(_) => {}
                None if named.is_none() && (enough || !running) => {
                    let (path, pid) = (self.path, self.pid);
                    return Err(CommandError::new(format_args!(
                        "the pid file {path:?} is gone, and process {pid} {}: has it another now, or was it stopped?",
                        if running { "still runs" } else { "has ended" }
                    )));
                }
                None if !running => {
                    let pid = self.pid;
                    return Err(CommandError::new(format_args!(
                        "process {pid} has ended and no other took over; see its log"
                    )));
                }
                None => {}
            }
            if self.began.elapsed() >= self.patience {
                let (pid, seconds) = (self.pid, self.patience.as_secs());
                return Err(CommandError::new(format_args!(
                    "no new generation after {seconds} s; process {pid} {}",
                    if running { "still runs, and its log says what it waits for" } else { "has ended" }
                )));
            }
            thread::sleep(POLL);
        }
    }

    fn is_same(&self, left: &Left) -> bool {
        self.left.as_ref().is_some_and(|before| before.stamp == left.stamp)
    }

    fn told(&self, outcome: Outcome) -> Result<Done, CommandError> {
        match outcome.failure {
            Some(reason) => Err(CommandError::new(format_args!("nothing was reloaded: {}", words(&reason)))),
            None => {
                let to = i32::try_from(outcome.pid).ok().and_then(Pid::from_raw).unwrap_or(self.pid);
                Ok(Done::Reloaded { from: self.pid, to, took: self.began.elapsed() })
            }
        }
    }
}

/// What another user has written, for a terminal: nothing in it moves the cursor, hides or turns around what stands there.
fn words(text: &str) -> String {
    let shown = |char: char| match char {
        '"' | '\'' | '\\' => char.to_string(),
        _ => char.escape_debug().to_string(),
    };
    text.chars().take(LONGEST).map(shown).collect()
}

/// What a pid file says.
struct PidFile {
    pid: Pid,
    owner: u32,
    stamp: Stamp,
}

impl PidFile {
    fn read(path: &Path) -> Result<PidFile, CommandError> {
        let (text, meta) = small_file::read(path, PID_FILE).map_err(|error| {
            let help = match error.kind() {
                io::ErrorKind::NotFound => "; is the server running, and with this --pid-file?",
                _ => "",
            };
            CommandError::new(format_args!("cannot read the pid file {path:?}: {error}{help}"))
        })?;
        // Anybody can give another's file a second name; one that has just been replaced has none.
        if meta.nlink() > 1 {
            return Err(CommandError::new(format_args!("the pid file {path:?} has other names: whose is it?")));
        }
        let pid = text.lines().next().and_then(|line| parse_pid(line.trim()));
        let pid = pid.ok_or_else(|| CommandError::new(format_args!("there is no pid in {path:?}")))?;
        Ok(PidFile { pid, owner: meta.uid(), stamp: Stamp::of(&meta) })
    }
}

fn parse_pid(text: &str) -> Option<Pid> {
    Pid::from_raw(digits(text)?.try_into().ok()?)
}

/// A number without a sign.
fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_another_move_no_cursor() {
        assert_eq!(words("a \"b\" c\\d \u{e9}"), "a \"b\" c\\d \u{e9}");
        assert_eq!(words("\u{1b}[2J\r\u{9b}\u{202e}\t"), "\\u{1b}[2J\\r\\u{9b}\\u{202e}\\t");
        assert_eq!(words(&"x".repeat(5000)).len(), LONGEST);
    }
}
