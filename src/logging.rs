//! Where the log goes: stderr or `--log-file`, one line for each record.

use crate::clock::Millis;
use crate::config::push_on_one_line;
use crate::report;
use crate::seldom::Lines;
use crate::{Config, Error};
use log::{Level, Record};
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Starts logging as `config` says: through `env_logger`, to [`log_file`](Config::log_file) or stderr, at the level
/// of `RUST_LOG` or else info.
///
/// A process has one log: a second call changes nothing and gives the first one's [`Log`] again. An application
/// that installed a logger of its own before keeps it.
///
/// # Errors
/// A configuration error when the log file cannot be opened; it names the path.
pub fn init_logging(config: &Config) -> Result<Arc<Log>, Error> {
    static STARTED: Mutex<Option<Arc<Log>>> = Mutex::new(None);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(log) = &*started {
        return Ok(Arc::clone(log));
    }
    let log = Arc::new(match &config.log_file {
        Some(path) => Log::file(path)?,
        None => Log::to(None, Sink::Stderr),
    });
    let mut logger = env_logger::Builder::new();
    let filters = std::env::var("RUST_LOG").ok().filter(|filters| !filters.trim().is_empty());
    logger.parse_filters(filters.as_deref().unwrap_or("info"));
    logger.target(env_logger::Target::Pipe(Box::new(LogWriter(Arc::clone(&log)))));
    logger.format(|out, record| {
        let mut line = String::with_capacity(128);
        format_line(&mut line, SystemTime::now(), record).map_err(io::Error::other)?;
        out.write_all(line.as_bytes())
    });
    // Fails where the application has a logger already: then that one is in charge.
    let _ = logger.try_init();
    // What panics print, a place and perhaps a backtrace, is on stderr and would be a flood like any other.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        static PRINTED: Lines = Lines::new();
        if PRINTED.another(Millis::now()).is_some() {
            print(panic);
        }
    }));
    *started = Some(Arc::clone(&log));
    Ok(log)
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
    Stderr,
    File(File),
}

impl Log {
    fn file(path: &Path) -> Result<Log, Error> {
        let failed = |error: io::Error| Error::config(format_args!("cannot open log file {path:?}: {error}"));
        let path = crate::working_directory::absolute(path).map_err(failed)?;
        let file = open(&path).map_err(failed)?;
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
            report::info!("the log goes to stderr: nothing to reopen");
            return;
        };
        // The lock is not held while anything is logged: the line has to get through it.
        match open(path) {
            Ok(file) => {
                self.sink().sink = Sink::File(file);
                report::info!("reopened log file {path:?}");
            }
            Err(error) => report::error!("cannot reopen log file {path:?}, keeping the old one: {error}"),
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

/// What `env_logger` writes to: it hands over a whole line.
struct LogWriter(Arc<Log>);

impl Write for LogWriter {
    /// One write(2) a line, so that O_APPEND keeps the lines of several processes apart. A line that cannot be
    /// written, the disk being full or stderr closed, is lost: serving goes on. The next one that can be says how many
    /// were.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut output = self.0.sink();
        let whole = match (output.lost, output.torn) {
            (0, false) => Cow::Borrowed(line),
            (lost, torn) => {
                let mut whole = if torn { b"\n".to_vec() } else { Vec::new() };
                if lost > 0 {
                    let message = format_args!("{lost} log lines before this one could not be written");
                    let record = Record::builder().level(Level::Warn).args(message).build();
                    let mut text = String::new();
                    format_line(&mut text, SystemTime::now(), &record).map_err(io::Error::other)?;
                    whole.extend_from_slice(text.as_bytes());
                }
                whole.extend_from_slice(line);
                Cow::Owned(whole)
            }
        };
        let written = match &mut output.sink {
            Sink::Stderr => io::stderr().write(&whole),
            Sink::File(file) => file.write(&whole),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
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

/// `2026-01-31T23:59:59.042Z INFO  message`, with the target before the message below info, where one wants to
/// know what to put into `RUST_LOG`.
fn format_line(out: &mut String, time: SystemTime, record: &Record<'_>) -> fmt::Result {
    write!(out, "{} {:5} ", Timestamp(time), record.level())?;
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
    fn a_line_has_time_level_and_message() {
        assert_eq!(line(Level::Info, format_args!("served={}", 3)), "2026-01-31T23:59:59.042Z INFO  served=3\n");
        assert_eq!(line(Level::Debug, format_args!("x")), "2026-01-31T23:59:59.042Z DEBUG handover::worker: x\n");
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
        assert!(lines[0].ends_with("WARN  3 log lines before this one could not be written"), "{text}");
        assert_eq!(lines[1..], ["one", "two"]);
    }

    #[test]
    fn a_log_file_that_cannot_be_opened_is_a_configuration_error_with_its_path() {
        let error = Log::file(Path::new("/nowhere/at/all.log")).expect_err("no such directory");
        assert!(error.is_config());
        assert!(error.to_string().starts_with("cannot open log file \"/nowhere/at/all.log\": "), "{error}");
        assert!(Log::file(Path::new("/")).expect_err("a directory").is_config());
    }
}
