//! `handover reload`: a reload that answers, for scripts. A signal alone says nothing.
//!
//! A new generation shows in the pid file: the successor replaces it in both modes, also where the pid stays. So what
//! is waited for is another file in its place, with a living process in it.

use handover::Program;
use handover::number::{self, decimal};
use lexopt::{Arg, Parser};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, fchdir, kill_process};
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// The first argument that asks for it. A directory of that name is served as `./reload`.
pub const NAME: &str = "reload";
/// How long `--wait` waits: the server's own reload deadline.
const DEFAULT_WAIT: Duration = handover::DEFAULT_RELOAD_DEADLINE;
/// A day. Longer is a slip of the finger.
const MAX_WAIT: u32 = 24 * 60 * 60;
/// How often to look. Watching the directory would be quicker by that much, and not work on every file system.
const POLL: Duration = Duration::from_millis(25);

/// How long the program on disk may take to check itself, as in the server.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

const HELP: &str = "\
Usage: handover reload --pid-file FILE [--wait[=SECS]]
       handover reload --pid N

Asks a running server to run its program on disk afresh, with its configuration
read anew, by sending HUP. Live connections go on. The program on disk has to
check itself first, and if it fails, nothing is signalled.

      --pid-file FILE   the server's own --pid-file
      --pid N           its pid
      --wait[=SECS]     wait until the new generation serves [60]; needs
                        --pid-file, in which the new generation shows
      --program NAME    the name of the program that runs there [handover]; for
                        an application built on handover
  -h, --help            this text

Exit codes  0 signalled; with --wait: the new generation serves
            1 not so; the reason stands on stderr in one line
            2 wrong usage
";

/// Runs the command; `args` are what follows `reload`.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (stream, text, code): (&mut dyn Write, String, u8) = match parse(args) {
        Ok(None) => (&mut io::stdout(), HELP.to_owned(), 0),
        Err(mistake) => (&mut io::stderr(), format!("handover reload: {mistake} (try handover reload --help)\n"), 2),
        Ok(Some(request)) => match reload(&request) {
            Ok(done) => (&mut io::stdout(), format!("{done}\n"), 0),
            Err(Failure(reason)) => (&mut io::stderr(), format!("handover reload: {reason}\n"), 1),
        },
    };
    // Whoever closed the stream does not want the text, and the exit code says the same.
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    code.into()
}

#[derive(Debug)]
struct Request {
    target: Target,
    wait: Option<Duration>,
    program: String,
}

#[derive(Debug)]
enum Target {
    Pid(Pid),
    File(PathBuf),
}

/// `None` for `--help`. An error is a mistake in the usage.
fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<Request>, String> {
    let (mut target, mut wait, mut program) = (None, None, env!("CARGO_PKG_NAME").to_owned());
    let mut parser = Parser::from_args(args);
    let told = |error: lexopt::Error| {
        // On one line, whatever is in the argument.
        let quoted = format!("{:?}", error.to_string());
        quoted[1..quoted.len() - 1].to_owned()
    };
    while let Some(argument) = parser.next().map_err(told)? {
        let another = match argument {
            Arg::Long("pid-file") => Target::File(parser.value().map_err(told)?.into()),
            Arg::Long("pid") => {
                let value = parser.value().map_err(told)?;
                let pid = value.to_str().and_then(parse_pid);
                Target::Pid(pid.ok_or_else(|| format!("--pid is {value:?}, allowed is a pid"))?)
            }
            Arg::Long("wait") => {
                wait = Some(match parser.optional_value() {
                    None => DEFAULT_WAIT,
                    Some(value) => {
                        let seconds = value.to_str().and_then(decimal::<u32>).filter(|&seconds| seconds <= MAX_WAIT);
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
                program = value.into_string().map_err(|value| format!("--program is {value:?}, which is not UTF-8"))?;
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
    if let (Target::Pid(_), Some(_)) = (&target, wait) {
        return Err("--wait needs --pid-file: a pid does not show the new generation, which may have the same".into());
    }
    Ok(Some(Request { target, wait, program }))
}

/// Why nothing was reloaded, in one line.
#[derive(Debug)]
struct Failure(String);

impl Failure {
    #[cold]
    #[inline(never)]
    fn new(reason: fmt::Arguments<'_>) -> Failure {
        Failure(reason.to_string())
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

fn reload(request: &Request) -> Result<Done, Failure> {
    // The file before the signal, or a quick successor's would be taken for the old one.
    let (pid, file) = match &request.target {
        Target::Pid(pid) => (*pid, None),
        Target::File(path) => {
            let (pid, stamp) = read_pid_file(path)?;
            (pid, Some((path, stamp)))
        }
    };
    let process = Process::find(pid, &request.program)?;
    check(pid)?;
    let began = Instant::now();
    kill_process(pid, Signal::HUP).map_err(|error| {
        let help = if error == rustix::io::Errno::PERM { "; run this as its user, or as root" } else { "" };
        Failure::new(format_args!("cannot signal process {pid}: {error}{help}"))
    })?;
    let (Some(patience), Some((path, before))) = (request.wait, file) else { return Ok(Done::Signalled(pid)) };
    loop {
        // In this order: a predecessor that has ended had a successor in the file before that, or has failed.
        let running = process.is_running();
        match read_pid_file(path) {
            Ok((to, now)) if now != before && stat(to).is_some() => {
                return Ok(Done::Reloaded { from: pid, to, took: began.elapsed() });
            }
            _ if !running => {
                return Err(Failure::new(format_args!("process {pid} has ended and no other took over; see its log")));
            }
            _ if began.elapsed() >= patience => {
                let seconds = patience.as_secs();
                return Err(Failure::new(format_args!(
                    "no new generation after {seconds} s; process {pid} still runs, and its log says why"
                )));
            }
            _ => thread::sleep(POLL),
        }
    }
}

/// Runs the program on disk as the server would, to check itself: a signal gives no answer, and this is where most
/// reloads fail. What cannot be read of the process is left to the server's own check.
fn check(pid: Pid) -> Result<(), Failure> {
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let split = |bytes: &[u8]| -> Vec<OsString> {
        let parts = bytes.split(|&byte| byte == 0).filter(|part| !part.is_empty());
        parts.map(|part| OsString::from_vec(part.to_vec())).collect()
    };
    let (arguments, environment) = (split(&read("cmdline")), split(&read("environ")));
    if arguments.is_empty() {
        return Ok(());
    }
    let refused = |reason: fmt::Arguments<'_>| Failure::new(format_args!("nothing was reloaded: {reason}"));
    let name = arguments[0].clone();
    let start = || {
        let here = open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        if let Ok(directory) = fs::read_link(format!("/proc/{pid}/cwd"))
            && directory.is_dir()
        {
            env::set_current_dir(directory)?;
        }
        let check = Program::new(arguments, environment).start_check(false);
        fchdir(here)?;
        check
    };
    let mut check = start().map_err(|error: io::Error| refused(format_args!("cannot run {name:?}: {error}")))?;
    let until = Instant::now() + CHECK_TIMEOUT;
    loop {
        match check.outcome() {
            Ok(Some(checked)) => {
                return match checked.complaint() {
                    Some(reason) => Err(refused(format_args!("the program on disk fails its check: {reason}"))),
                    None => Ok(()),
                };
            }
            Ok(None) if Instant::now() < until => thread::sleep(POLL),
            _ => {
                return Err(refused(format_args!(
                    "the program on disk did not check itself within {}s",
                    CHECK_TIMEOUT.as_secs()
                )));
            }
        }
    }
}

/// What changes whenever a file is replaced. The inode alone could be the one of a file before.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    written: (i64, i64),
}

fn read_pid_file(path: &Path) -> Result<(Pid, Stamp), Failure> {
    let read = || -> io::Result<(String, fs::Metadata)> {
        let file = fs::File::open(path)?;
        // Of the file that is read, whatever has come into its place meanwhile.
        let meta = file.metadata()?;
        Ok((io::read_to_string(file)?, meta))
    };
    let (text, meta) = read().map_err(|error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "; is the server running, and with this --pid-file?",
            _ => "",
        };
        Failure::new(format_args!("cannot read the pid file {path:?}: {error}{help}"))
    })?;
    let pid = text.lines().next().and_then(|line| parse_pid(line.trim()));
    let pid = pid.ok_or_else(|| Failure::new(format_args!("there is no pid in {path:?}")))?;
    Ok((pid, Stamp { device: meta.dev(), inode: meta.ino(), written: (meta.mtime(), meta.mtime_nsec()) }))
}

/// A process, and not another one that got its pid later.
struct Process {
    pid: Pid,
    started: u64,
}

impl Process {
    /// A pid file that was left behind may name a process that has nothing to do with us, and HUP ends most of them.
    fn find(pid: Pid, program: &str) -> Result<Process, Failure> {
        let gone = || Failure::new(format_args!("there is no process {pid}; the server has ended"));
        let Stat { name, started } = stat(pid).ok_or_else(gone)?;
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).map_err(|_| gone())?;
        let called = command_line.split(|&byte| byte == 0).next().unwrap_or_default();
        let called = called.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        // The kernel cuts a name at 15 bytes; a program may be called by another name, or run by an emulator.
        let short = &program.as_bytes()[..program.len().min(15)];
        if called != program.as_bytes() && name.as_bytes() != short {
            return Err(Failure::new(format_args!(
                "process {pid} is {name:?} and not {program:?}: is the pid file an old one?"
            )));
        }
        if !handles_hup(pid) {
            return Err(Failure::new(format_args!("process {pid} does not handle HUP: it is starting, or ending")));
        }
        Ok(Process { pid, started })
    }

    fn is_running(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started)
    }
}

struct Stat {
    name: String,
    /// In clock ticks since boot.
    started: u64,
}

/// What proc(5) says about a process that has not ended.
fn stat(pid: Pid) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may contain some itself.
    let (before, after) = text.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    let mut fields = after.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    // The state is field 3, the start time field 22.
    Some(Stat { name, started: decimal(fields.nth(18)?)? })
}

/// Whether HUP does anything but end it: it is caught, or blocked as it is while a server executes its program afresh.
/// Where that cannot be read it is believed.
fn handles_hup(pid: Pid) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let mask = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name))?;
        number::parse(mask.trim().as_bytes(), 16)
    };
    match (mask("SigCgt:"), mask("SigBlk:")) {
        (Some(caught), Some(blocked)) => (caught | blocked) & 1 != 0,
        _ => true,
    }
}

fn parse_pid(text: &str) -> Option<Pid> {
    Pid::from_raw(decimal(text)?)
}
