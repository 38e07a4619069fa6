//! Where the log goes: stderr or `--log-file`, one line for each record.

pub mod rate_limit;
pub mod requests;

use crate::clock::Millis;
use crate::closest::closest;
use crate::config::{on_one_line, push_on_one_line};
use crate::generation::generation;
use crate::logging::rate_limit::{KeptBack, Lines};
use crate::sys::stdio::{MOMENT, Stream, write_to};
use crate::{Config, Error};
use log::{Level, LevelFilter, Record};
use rustix::fs::OFlags;
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{self, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Starts logging as `config` says: through `env_logger`, to [`log_file`](Config::log_file) or stderr, at the level
/// of `RUST_LOG` or else info.
///
/// Nothing waits for who reads the log: what a pipe has no room for is lost, and counted in the next line that is not.
/// What panics print goes into the log, unless the application has set a panic hook of its own before.
///
/// A process has one log: a second call changes nothing and gives the first one's [`Log`] again. An application
/// that installed a logger of its own before keeps it.
///
/// # Errors
/// A configuration error when the log file cannot be opened; it names the path. A usage error when `RUST_LOG` says
/// nothing that could be meant.
pub fn init_logging(config: &Config) -> Result<Arc<Log>, Error> {
    start(config, false)
}

/// The same. Where nothing can be taken back any more, a log file that cannot be opened is no reason to end: the log goes
/// to stderr until it is opened anew, and says so.
pub fn start(config: &Config, at_any_rate: bool) -> Result<Arc<Log>, Error> {
    static STARTED: Mutex<Option<Arc<Log>>> = Mutex::new(None);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(log) = &*started {
        return Ok(Arc::clone(log));
    }
    let filters = filters().map(|filters| filters.unwrap_or_else(|| DEFAULT_FILTERS.to_owned()));
    let (filters, no_filters) = match filters {
        Err(error) if at_any_rate => (DEFAULT_FILTERS.to_owned(), Some(error)),
        other => (other?, None),
    };
    let (log, no_file) = match config.log_file.as_deref().map(|path| (path, Log::file(path))) {
        None => (Log::to(None, Sink::Stderr(Stream::stderr())), None),
        Some((_, Ok(log))) => (log, None),
        Some((path, Err(error))) => {
            let error = config.error("log_file", format_args!("cannot open log file {path:?}: {}", why(path, &error)));
            if !at_any_rate {
                return Err(error);
            }
            let path = crate::sys::working_directory::absolute(path).ok();
            (Log::to(path, Sink::Stderr(Stream::stderr())), Some(error))
        }
    };
    let log = Arc::new(log);
    let mut logger = env_logger::Builder::new();
    logger.parse_filters(&filters);
    logger.target(env_logger::Target::Pipe(Box::new(LogWriter(Arc::clone(&log)))));
    logger.format(|out, record| {
        let mut line = String::with_capacity(128);
        format_line(&mut line, SystemTime::now(), record).map_err(io::Error::other)?;
        out.write_all(line.as_bytes())
    });
    // Fails where the application has a logger already: then that one is in charge.
    let _ = logger.try_init();
    log_panics();
    if let Some(error) = no_filters {
        log::error!("{error}; the log level is {DEFAULT_FILTERS}");
    }
    if let Some(error) = no_file {
        log::error!("{error}; the log goes to stderr until USR1 finds it can be");
    }
    *started = Some(Arc::clone(&log));
    Ok(log)
}

const DEFAULT_FILTERS: &str = "info";

/// What `RUST_LOG` says, if it says something.
///
/// `env_logger` takes a word that is no level for the name of a crate, and then logs nothing else; a level that it does
/// not know it drops, with a warning on stderr. Neither is what somebody meant.
pub fn filters() -> Result<Option<String>, Error> {
    let Some(filters) = std::env::var_os("RUST_LOG") else { return Ok(None) };
    match filters.to_str() {
        Some(text) if text.trim().is_empty() => Ok(None),
        Some(text) => match misspelt(text, &crate_name(std::env::args_os().next())) {
            None => Ok(Some(text.to_owned())),
            Some(hint) => Err(wrong_filters(&filters, &hint)),
        },
        None => Err(wrong_filters(&filters, "")),
    }
}

fn wrong_filters(filters: &std::ffi::OsStr, hint: &str) -> Error {
    Error::usage(format_args!(
        "RUST_LOG is {filters:?}{hint}; allowed is LEVEL or TARGET=LEVEL, several with commas between, and LEVEL is off, \
         error, warn, info, debug or trace"
    ))
}

/// The crate of a program with that name, most likely.
fn crate_name(program: Option<std::ffi::OsString>) -> String {
    let program = PathBuf::from(program.unwrap_or_default());
    program.file_name().unwrap_or_default().to_string_lossy().replace('-', "_")
}

/// What is wrong with it, in the grammar of `env_logger`: `[TARGET[=LEVEL]|LEVEL],…[/TEXT]`. A single word that is
/// neither a level nor a crate that logs here is a level that was meant.
fn misspelt(filters: &str, program: &str) -> Option<String> {
    let (directives, text) = filters.split_once('/').unwrap_or((filters, ""));
    if text.contains('/') {
        return Some(" with two slashes".to_owned());
    }
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let wrong = |word: &str| {
        let levels: Vec<&str> = LevelFilter::iter().map(|level| level.as_str()).collect();
        let meant = closest(&word.to_ascii_uppercase(), &levels).map(str::to_ascii_lowercase);
        let meant = meant.map(|level| format!(", did you mean {level}?")).unwrap_or_default();
        Some(format!(" with {:?}{meant}", on_one_line(word)))
    };
    for directive in directives.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        match directive.split_once('=') {
            Some((_, level)) if level.trim().is_empty() || is_level(level.trim()) => {}
            Some((_, level)) => return wrong(level.trim()),
            None if is_level(directive) || directive.contains("::") => {}
            None if [program, CRATE].contains(&directive) || LOGGING.contains(&directive) => {}
            None => return wrong(directive),
        }
    }
    None
}

const CRATE: &str = env!("CARGO_PKG_NAME");
/// What else logs by the crate `log` below us.
const LOGGING: &[&str] = &["mio", "tiny_http"];

/// Panics are said in the log. std prints them to stderr, which may be a pipe that nobody reads, and a handler that
/// panics would wait for that; and they would be a flood like any other.
///
/// A hook that the application has set is its own affair.
fn log_panics() {
    let set = panic::take_hook();
    // With none set any more this is std's: the same function, which is no more than its table.
    let default = panic::take_hook();
    let own = (!std::ptr::eq(&*set, &*default)).then_some(set);
    panic::set_hook(Box::new(move |panic| {
        static SAID: Lines = Lines::new();
        if let Some(kept_back) = SAID.another(Millis::now()) {
            match &own {
                Some(own) => own(panic),
                None => log_panic(panic, kept_back),
            }
        }
    }));
}

/// What a panic says, if that is text.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

fn log_panic(panic: &PanicHookInfo<'_>, kept_back: KeptBack) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let text = panic_text(panic.payload()).unwrap_or("something that is no text");
    match panic.location() {
        Some(place) => log::error!("thread {thread} panicked at {place}: {text}{kept_back}"),
        None => log::error!("thread {thread} panicked: {text}{kept_back}"),
    }
    // Only if RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        for line in backtrace.to_string().lines() {
            log::error!("{line}");
        }
    }
}

/// The log that [`init_logging`] started: where it goes, and how to open that anew.
#[derive(Debug)]
pub struct Log {
    /// Absolute, so that a change of the working directory does not matter; `None` is stderr.
    path: Option<PathBuf>,
    sink: Mutex<Output>,
}

#[derive(Debug)]
struct Output {
    sink: Sink,
    /// Lines that could not be written since the last that could.
    lost: u64,
    /// Whether the last that was written was cut: the disk was full in the middle of it.
    torn: bool,
}

#[derive(Debug)]
enum Sink {
    Stderr(Stream),
    File(File),
}

impl Log {
    fn file(path: &Path) -> io::Result<Log> {
        let path = crate::sys::working_directory::absolute(path)?;
        let file = open(&path)?;
        Ok(Log::to(Some(path), Sink::File(file)))
    }

    fn to(path: Option<PathBuf>, sink: Sink) -> Log {
        Log { path, sink: Mutex::new(Output { sink, lost: 0, torn: false }) }
    }

    /// Opens the log file anew, under the same name: for logrotate, which moves the old one away and sends USR1.
    ///
    /// If that fails, the log goes on into the file that is open, and the first thing it says is why.
    pub fn reopen(&self) {
        let Some(path) = &self.path else {
            log::info!("the log goes to stderr: nothing to reopen");
            return;
        };
        // The lock is not held while anything is logged: the line has to get through it.
        match open(path) {
            Ok(file) => {
                self.sink().sink = Sink::File(file);
                log::info!("reopened log file {path:?}");
            }
            Err(error) => {
                log::error!("cannot reopen log file {path:?}, keeping the old one: {}", why(path, &error));
            }
        }
    }

    fn sink(&self) -> MutexGuard<'_, Output> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Readable by a group of log readers, by nobody else: requests have secrets in their targets.
///
/// O_NONBLOCK does nothing to a file. It keeps a FIFO without a reader from stopping the start, or the signal
/// thread in a reopen, and one with a slow reader from stopping the workers: lines that do not fit are lost.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)
}

/// Whether the log could be opened there, said without a trace: a file that is not there yet is not made, since who
/// would take it away again might take the one that the server has opened meanwhile.
pub fn try_open(path: &Path) -> io::Result<()> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    match OpenOptions::new().append(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        other => return other.map(drop),
    }
    let mut path = path.to_owned();
    // A link that leads nowhere: what it leads to would be made.
    for _ in 0..8 {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // A file without a name takes what one with a name takes: the permission, an inode, a quota.
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    match rustix::fs::open(directory, OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC, mode) {
        // Not every file system has such.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
            Ok(rustix::fs::access(directory, rustix::fs::Access::WRITE_OK)?)
        }
        tried => Ok(tried.map(drop)?),
    }
}

/// Why a file cannot be opened to write to it, in words that say what would help.
pub fn why(path: &Path, error: &io::Error) -> String {
    let said = match error.kind() {
        ErrorKind::NotFound => "its directory does not exist",
        ErrorKind::NotADirectory => "what should be its directory is a file",
        ErrorKind::IsADirectory => "it is a directory",
        ErrorKind::PermissionDenied if path.exists() => "no permission to write to it",
        ErrorKind::PermissionDenied => "no permission to create it in its directory",
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only",
        ErrorKind::StorageFull => "the disk is full",
        ErrorKind::QuotaExceeded => "the disk quota is used up",
        ErrorKind::ExecutableFileBusy => "it is a program that runs",
        _ if error.raw_os_error() == Some(libc::ENXIO) => "nobody reads from it",
        _ if error.raw_os_error() == Some(libc::ELOOP) => "its links lead in a circle",
        _ => return error.to_string(),
    };
    said.to_owned()
}

/// What `env_logger` writes to: it hands over a whole line.
struct LogWriter(Arc<Log>);

impl Write for LogWriter {
    /// One write(2) a line, so that O_APPEND keeps the lines of several processes apart. A line that cannot be
    /// written, the disk being full, stderr closed or a pipe that nobody reads, is lost: serving goes on. The next one
    /// that can be says how many were.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut output = self.0.sink();
        let whole = match (output.lost, output.torn) {
            (0, false) => Cow::Borrowed(line),
            (lost, torn) => {
                let mut whole = if torn { b"\n".to_vec() } else { Vec::new() };
                if lost > 0 {
                    let message = format!("{lost} log lines before this one could not be written");
                    let mut record = Record::builder();
                    record.level(Level::Warn);
                    let mut text = String::new();
                    // In one statement, since what format_args! makes lives no longer in Rust 1.88.
                    format_line(&mut text, SystemTime::now(), &record.args(format_args!("{message}")).build())
                        .map_err(io::Error::other)?;
                    whole.extend_from_slice(text.as_bytes());
                }
                whole.extend_from_slice(line);
                Cow::Owned(whole)
            }
        };
        // A reader that is busy gets a moment, one that was seen not to read gets none.
        let patience = if output.lost == 0 && !output.torn { MOMENT } else { Duration::ZERO };
        let written = match &mut output.sink {
            Sink::Stderr(stderr) => stderr.write_within(&whole, patience),
            Sink::File(file) => write_to(file, &whole, patience),
        };
        match written {
            Ok(written @ 1..) => {
                output.torn = written < whole.len();
                output.lost = u64::from(output.torn);
            }
            Ok(0) | Err(_) => output.lost += 1,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `2026-01-31T23:59:59.042Z INFO  [4711.2] message`: the process id and the generation, since several write to the same
/// log, and the target before the message below info, where one wants to know what to put into `RUST_LOG`.
fn format_line(out: &mut String, time: SystemTime, record: &Record<'_>) -> fmt::Result {
    let (pid, generation) = (std::process::id(), generation());
    write!(out, "{} {:5} [{pid}.{generation}] ", Timestamp(time), record.level())?;
    if record.level() > Level::Info {
        write!(out, "{}: ", record.target())?;
    }
    write!(OneLine(out), "{}", record.args())?;
    out.write_char('\n')
}

/// Escapes control characters: a record stays one line, and what a client sent cannot forge another or talk to
/// the terminal.
struct OneLine<'s>(&'s mut String);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        push_on_one_line(self.0, text);
        Ok(())
    }
}

/// RFC 3339 in UTC with milliseconds. `env_logger` would bring a time library for it.
struct Timestamp(SystemTime);

impl Timestamp {
    fn since_1970(time: Duration) -> Timestamp {
        Timestamp(UNIX_EPOCH + time)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second, millis) = (second / 3600, second / 60 % 60, second % 60, since.subsec_millis());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// Days since 1970-01-01 as a date of the Gregorian calendar.
///
/// Years that begin on 1 March have their leap day last, so that months and years divide evenly: Howard Hinnant's
/// `civil_from_days`, <https://howardhinnant.github.io/date_algorithms.html>.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097); // of 400 years
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    fn line(level: Level, message: fmt::Arguments<'_>) -> String {
        let time = UNIX_EPOCH + Duration::from_millis(1_769_903_999_042);
        let mut out = String::new();
        let record = Record::builder().level(level).target("handover::worker").args(message).build();
        format_line(&mut out, time, &record).expect("a string takes everything");
        out
    }

    #[test]
    fn a_line_has_time_level_process_generation_and_message() {
        let from = format!("[{}.1]", std::process::id());
        let info = line(Level::Info, format_args!("served={}", 3));
        assert_eq!(info, format!("2026-01-31T23:59:59.042Z INFO  {from} served=3\n"));
        let debug = line(Level::Debug, format_args!("x"));
        assert_eq!(debug, format!("2026-01-31T23:59:59.042Z DEBUG {from} handover::worker: x\n"));
    }

    #[test]
    fn a_record_cannot_make_two_lines() {
        assert!(line(Level::Warn, format_args!("a\r\n\x1b[1mb\tü")).ends_with(" a\\r\\n\\u{1b}[1mb\\tü\n"));
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_453, (2025, 12, 31)),
            (20_454, (2026, 1, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), date, "day {days}");
        }
    }

    #[test]
    fn a_clock_before_1970_is_not_fatal() {
        assert_eq!(Timestamp(UNIX_EPOCH - Duration::from_secs(1)).to_string(), "1970-01-01T00:00:00.000Z");
    }

    fn writer(sink: Sink) -> LogWriter {
        LogWriter(Arc::new(Log::to(None, sink)))
    }

    #[test]
    fn a_line_is_one_write() {
        // A datagram socket keeps the borders of writes.
        let (ours, theirs) = UnixDatagram::pair().expect("socket pair");
        let mut writer = writer(Sink::File(OwnedFd::from(theirs).into()));
        writer.write_all(b"one line\n").expect("never fails");
        writer.write_all(b"another\n").expect("never fails");
        let mut read = [0; 64];
        assert_eq!(ours.recv(&mut read).expect("first"), 9);
        assert_eq!(ours.recv(&mut read).expect("second"), 8);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_not_fatal() {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        writer(Sink::File(full)).write_all(b"lost\n").expect("never fails");
        let (ours, theirs) = UnixDatagram::pair().expect("socket pair");
        drop(ours); // EPIPE or ECONNREFUSED
        writer(Sink::File(OwnedFd::from(theirs).into())).write_all(b"lost\n").expect("never fails");
        let read_only = File::open("/dev/null").expect("/dev/null"); // EBADF
        writer(Sink::File(read_only)).write_all(b"lost\n").expect("never fails");
    }

    #[test]
    fn lines_that_were_lost_are_counted_in_the_next_that_is_not() {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let mut writer = writer(Sink::File(full));
        for _ in 0..3 {
            writer.write_all(b"lost\n").expect("never fails");
        }
        let (mut ours, theirs) = io::pipe().expect("a pipe");
        writer.0.sink().sink = Sink::File(OwnedFd::from(theirs).into());
        writer.write_all(b"one\n").expect("never fails");
        writer.write_all(b"two\n").expect("never fails");
        drop(writer);
        let mut text = String::new();
        ours.read_to_string(&mut text).expect("lines");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("] 3 log lines before this one could not be written"), "{text}");
        assert_eq!(lines[1..], ["one", "two"]);
    }

    #[test]
    fn a_log_that_nobody_reads_is_waited_for_once_and_a_moment() {
        let (reader, theirs) = UnixDatagram::pair().expect("socket pair");
        theirs.set_nonblocking(true).expect("non-blocking");
        while theirs.send(b"full").is_ok() {}
        let mut writer = writer(Sink::File(OwnedFd::from(theirs).into()));
        let begun = std::time::Instant::now();
        for _ in 0..1000 {
            writer.write_all(b"lost\n").expect("never fails");
        }
        // A moment for each would be 50 s.
        assert!(begun.elapsed() < MOMENT * 100, "{:?}", begun.elapsed());
        let mut read = [0; 256];
        assert_eq!(reader.recv(&mut read).expect("what filled it"), 4);
        writer.write_all(b"one\n").expect("never fails");
        drop(writer);
        let mut last = String::new();
        reader.set_nonblocking(true).expect("non-blocking");
        while let Ok(length @ 1..) = reader.recv(&mut read) {
            last = String::from_utf8_lossy(&read[..length]).into_owned();
        }
        assert!(last.ends_with("] 1000 log lines before this one could not be written\none\n"), "{last}");
    }

    #[test]
    fn what_opening_a_log_file_would_meet_is_said_in_words_and_nothing_is_left_behind() {
        let directory = std::env::temp_dir().join(format!("handover-log-words-{}", std::process::id()));
        fs::create_dir(&directory).expect("a new directory");
        let (file, fifo, link) = (directory.join("file"), directory.join("fifo"), directory.join("link"));
        fs::write(&file, "").expect("a file");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a FIFO");
        std::os::unix::fs::symlink("nowhere/log", &link).expect("a link");
        for (path, words) in [
            (directory.join("none/log"), "its directory does not exist"),
            (file.join("log"), "what should be its directory is a file"),
            (directory.clone(), "it is a directory"),
            (fifo, "nobody reads from it"),
            (link, "its directory does not exist"),
        ] {
            for tried in [try_open(&path), open(&path).map(drop)] {
                assert_eq!(why(&path, &tried.expect_err(words)), words, "{path:?}");
            }
        }
        assert!(try_open(&file).is_ok() && try_open(&directory.join("new")).is_ok());
        assert!(!directory.join("new").exists(), "a check leaves no file behind");
        fs::remove_dir_all(&directory).expect("tidy up");
    }

    #[test]
    fn a_misspelt_level_is_not_the_name_of_a_crate() {
        for right in [
            "info",
            "WARN",
            "Trace",
            "off",
            "handover=debug",
            "handover",
            "lab",
            "mio=info,lab::deep=off",
            "a=",
            "a::b",
            " info , lab=debug",
            ",",
            "debug/text",
            "info,handover::site=trace",
        ] {
            assert_eq!(misspelt(right, "lab"), None, "{right}");
        }
        for (wrong, hint) in [
            ("inof", " with \"inof\", did you mean info?"),
            ("INOF", " with \"INOF\", did you mean info?"),
            ("handover=debgu", " with \"debgu\", did you mean debug?"),
            ("info,wran", " with \"wran\", did you mean warn?"),
            ("everything", " with \"everything\""),
            ("a=b=info", " with \"b=info\", did you mean info?"),
            ("info/a/b", " with two slashes"),
        ] {
            assert_eq!(misspelt(wrong, "lab").as_deref(), Some(hint), "{wrong}");
        }
    }
}
