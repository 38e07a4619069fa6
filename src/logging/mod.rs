//! Where the log goes: stderr or `--log-file`, one line for each record.

pub mod early;
pub mod filters;
mod line;
mod panics;
pub mod rate_limit;
pub mod requests;
pub mod start_lines;

use crate::config::LogFormat;
use crate::generation::{resume, succeed};
use crate::lifecycle::{program, way_back};
use crate::logging::line::push_line;
pub(crate) use crate::logging::panics::panic_text;
use crate::sys::privileges::Identity;
use crate::sys::stdio::{MOMENT, Stream, are_one, write_to};
use crate::{Config, Error};
use log::{Level, Record};
use portable_atomic::AtomicU64;
use rustix::fs::OFlags;
use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::Duration;

/// Starts logging as `config` says: through `env_logger`, to [`log_file`](Config::log_file) or stderr, in the form of
/// [`log_format`](Config::log_format), at the level of `RUST_LOG` or else of [`log_level`](Config::log_level).
///
/// Nothing waits for who reads the log: what a pipe has no room for is lost, and counted in the next line that is not.
/// What panics print goes into the log, unless the application has set a panic hook of its own before.
///
/// A process has one log: a second call changes nothing and gives the first one's [`Log`] again. An application
/// that installed a logger of its own before keeps it.
///
/// # Errors
/// A configuration error when the log file cannot be opened, which names the path, and for a level that is none. A usage
/// error when `RUST_LOG` says nothing that could be meant.
///
/// ```no_run
/// let config = handover::Config { log_file: Some("/var/log/app.log".into()), ..Default::default() };
/// let log = handover::init_logging(&config)?;
/// log::info!("the first line");
/// log.reopen();
/// # Ok::<(), handover::Error>(())
/// ```
pub fn init_logging(config: &Config) -> Result<Arc<Log>, Error> {
    start(config, None, false)
}

/// What an application calls first that takes the program's flags does this: a process that was executed comes back from here on,
/// see [`way_back::arm`], and a successor says in the form of a log why it panics.
pub fn begin() {
    static ONCE: Once = Once::new();
    way_back::arm();
    ONCE.call_once(|| {
        if !early::succeeds() {
            return;
        }
        match program::generation_before() {
            Some(before) if program::has_come_back() => resume(before),
            Some(before) => succeed(before),
            // Of a predecessor that does not say so.
            None => {}
        }
        panics::log_early();
    });
}

static STARTED: OnceLock<Arc<Log>> = OnceLock::new();

/// The log of this process, if it has one.
fn started() -> Option<&'static Arc<Log>> {
    STARTED.get()
}

/// The same. Where nothing can be taken back any more, a log file that cannot be opened is no reason to end: the log goes
/// to stderr until it is opened anew, and says so.
///
/// `becomes`: the user that this process will be, and that the file has to be open to.
pub fn start(config: &Config, becomes: Option<&Identity>, at_any_rate: bool) -> Result<Arc<Log>, Error> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(log) = started() {
        return Ok(Arc::clone(log));
    }
    let (filters, no_filters) = match filters::of(config) {
        Err(error) if at_any_rate => (filters::DEFAULT.to_owned(), Some(error)),
        other => (other?, None),
    };
    let format = config.log_format;
    let (log, no_file) = match config.log_file.as_deref().map(|path| (path, Log::file(path, becomes, format))) {
        None => (Log::to(None, Sink::Stderr(Stream::stderr()), format), None),
        Some((_, Ok(log))) => (log, None),
        Some((path, Err(error))) => {
            let error = config.error("log_file", format_args!("cannot open log file {path:?}: {}", why(path, &error)));
            if !at_any_rate {
                return Err(error);
            }
            let path = crate::sys::working_directory::absolute(path).ok();
            (Log::to(path, Sink::Stderr(Stream::stderr()), format), Some(error))
        }
    };
    let log = Arc::new(log);
    let mut logger = env_logger::Builder::new();
    logger.parse_filters(&filters);
    logger.target(env_logger::Target::Pipe(Box::new(LogWriter(Arc::clone(&log)))));
    logger.format(move |out, record| {
        let mut line = String::with_capacity(128);
        push_line(&mut line, format, record);
        out.write_all(line.as_bytes())
    });
    // Fails where the application has a logger already: then that one is in charge.
    let _ = logger.try_init();
    // Nobody else sets it: this is the one that starts it.
    let _ = STARTED.set(Arc::clone(&log));
    panics::log_all();
    if let Some(note) = way_back::take_note() {
        log::warn!("{note}");
    }
    if let Some(error) = no_filters {
        log::error!("{error}; the log level is {}", filters::DEFAULT);
    }
    if let Some(error) = no_file {
        log::error!("{error}; the log goes to stderr until USR1 finds it can be");
    }
    Ok(log)
}

/// The log that [`init_logging`] started: where it goes, and how to open that anew.
#[derive(Debug)]
pub struct Log {
    /// Absolute, so that a change of the working directory does not matter; `None` is stderr.
    path: Option<PathBuf>,
    format: LogFormat,
    sink: Mutex<Output>,
    /// Lines that could not be written, in all, and bytes that were.
    lost: AtomicU64,
    written: AtomicU64,
}

#[derive(Debug)]
struct Output {
    sink: Sink,
    /// Lines that could not be written, and of which nothing was said.
    unsaid: u64,
    /// Whether the last that was written was cut: the disk was full in the middle of it.
    torn: bool,
}

#[derive(Debug)]
enum Sink {
    Stderr(Stream),
    File(File),
}

impl Log {
    fn file(path: &Path, becomes: Option<&Identity>, format: LogFormat) -> io::Result<Log> {
        let path = crate::sys::working_directory::absolute(path)?;
        let file = open(&path, becomes)?;
        Ok(Log::to(Some(path), Sink::File(file), format))
    }

    fn to(path: Option<PathBuf>, sink: Sink, format: LogFormat) -> Log {
        let sink = Mutex::new(Output { sink, unsaid: 0, torn: false });
        Log { path, format, sink, lost: AtomicU64::default(), written: AtomicU64::default() }
    }

    /// Whether it is a file of its own, and not stderr.
    pub(crate) fn is_file(&self) -> bool {
        self.path.is_some()
    }

    /// Whether whoever reads the log reads stdout there as well, and as text: what is said on both would stand there twice.
    pub(crate) fn is_beside_stdout(&self) -> bool {
        !self.is_file() && self.format == LogFormat::Text && are_one()
    }

    /// Lines that could not be written, in all, and bytes that were.
    pub(crate) fn figures(&self) -> (u64, u64) {
        (self.lost.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed))
    }

    /// Opens the log file anew, under the same name, as in the example of [`init_logging`]: for logrotate, which moves the old one away and sends USR1.
    ///
    /// If that fails, the log goes on into the file that is open, and the first thing it says is why.
    pub fn reopen(&self) {
        let Some(path) = &self.path else {
            log::info!("the log goes to stderr: nothing to reopen");
            return;
        };
        // The lock is not held while anything is logged: the line has to get through it.
        match open(path, None) {
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

/// The files that are written while running have to be different ones: what two write to the same spoils it for both.
///
/// # Errors
/// A configuration error about the second.
pub fn are_different(config: &Config) -> Result<(), Error> {
    let files = [
        ("pid_file", config.pid_file.as_deref()),
        ("history_file", config.push.history_file.as_deref()),
        ("log_file", config.log_file.as_deref()),
        ("access_log", config.access_log.as_deref().filter(|path| path.as_os_str() != "-")),
    ];
    let files: Vec<_> = files.into_iter().filter_map(|(key, path)| Some((key, path?, leads_to(path?)?))).collect();
    for (number, (key, path, place)) in files.iter().enumerate() {
        if let Some((other, ..)) = files[..number].iter().find(|(_, _, other)| other == place) {
            return Err(config.error(key, format_args!("{key} is {path:?}, which is the {other} as well")));
        }
    }
    Ok(())
}

/// Where that leads, whether there is a file or not; `None` for what several may write to, as a terminal or `/dev/null`.
fn leads_to(path: &Path) -> Option<PathBuf> {
    let path = crate::sys::working_directory::absolute(path).ok()?;
    match path.canonicalize() {
        Ok(there) => there.metadata().is_ok_and(|meta| meta.is_file()).then_some(there),
        Err(_) => Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)),
    }
}

/// Readable by a group of log readers, by nobody else: requests have secrets in their targets.
///
/// O_NONBLOCK does nothing to a file. It keeps a FIFO without a reader from stopping the start, or the signal
/// thread in a reopen, and one with a slow reader from stopping the workers: lines that do not fit are lost.
fn open(path: &Path, becomes: Option<&Identity>) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let open = |how: &mut OpenOptions| how.append(true).mode(0o640).custom_flags(flags).open(path);
    match becomes {
        Some(identity) => identity.open_file(path, &open),
        None => open(OpenOptions::new().create(true)),
    }
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
        let mut before = if output.torn { "\n".to_owned() } else { String::new() };
        if output.unsaid > 0 {
            let message = format!("{} log lines before this one could not be written", output.unsaid);
            let mut record = Record::builder();
            record.level(Level::Warn).target(module_path!());
            // In one statement, since what format_args! makes lives no longer in Rust 1.88.
            push_line(&mut before, self.0.format, &record.args(format_args!("{message}")).build());
        }
        let whole = match before.is_empty() {
            true => Cow::Borrowed(line),
            false => Cow::Owned([before.as_bytes(), line].concat()),
        };
        // A reader that is busy gets a moment, one that was seen not to read gets none.
        let patience = if before.is_empty() { MOMENT } else { Duration::ZERO };
        let written = match &mut output.sink {
            Sink::Stderr(stderr) => stderr.write_within(&whole, patience),
            Sink::File(file) => write_to(file, &whole, patience),
        };
        let written = written.unwrap_or(0);
        if written > 0 {
            output.torn = written < whole.len() && whole[written - 1] != b'\n';
        }
        if written >= before.len() {
            output.unsaid = 0;
        }
        if written < whole.len() {
            output.unsaid += 1;
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.0.written.fetch_add(written as u64, Ordering::Relaxed);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    fn writer(sink: Sink) -> LogWriter {
        LogWriter(Arc::new(Log::to(None, sink, LogFormat::Text)))
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

    /// What is lost is said in the form of the rest, also where that is cut, and then said once more.
    #[test]
    fn lines_that_were_lost_are_said_as_json_and_counted_until_they_are_said() {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let mut writer = LogWriter(Arc::new(Log::to(None, Sink::File(full), LogFormat::Json)));
        writer.write_all(b"{}\n").expect("never fails");
        writer.write_all(b"{}\n").expect("never fails");
        assert_eq!(writer.0.figures(), (2, 0));
        const SAID: &str = "2 log lines before this one could not be written";
        // Room for the half of what is said of them.
        let (mut ours, theirs) = io::pipe().expect("a pipe");
        rustix::pipe::fcntl_setpipe_size(&theirs, 4096).expect("F_SETPIPE_SZ");
        rustix::io::ioctl_fionbio(&theirs, true).expect("non-blocking");
        let mut pipe = File::from(OwnedFd::from(theirs));
        pipe.write_all(&[b'x'; 4096 - 40]).expect("there is room");
        writer.0.sink().sink = Sink::File(pipe);
        // Of what is longer than a page a pipe takes what fills its last one.
        let mut said = String::new();
        let mut record = Record::builder();
        record.level(Level::Warn).target("handover::logging");
        push_line(&mut said, LogFormat::Json, &record.args(format_args!("{SAID}")).build());
        let long = vec![b' '; 2 * 4096 + 40 - said.len()];
        writer.write_all(&long).expect("never fails");
        let (unsaid, torn) = {
            let output = writer.0.sink();
            (output.unsaid, output.torn)
        };
        assert_eq!((writer.0.figures(), unsaid, torn), ((3, 40), 3, true));
        let mut filled = vec![0; 4096];
        ours.read_exact(&mut filled).expect("what filled it");
        writer.write_all(b"{}\n").expect("never fails");
        let written = writer.0.figures();
        drop(writer);
        let mut text = String::new();
        ours.read_to_string(&mut text).expect("lines");
        let lines: Vec<serde_json::Value> =
            text.trim_start().lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert!(text.starts_with('\n') && lines.len() == 2, "{text}");
        assert_eq!(lines[0]["message"], "3 log lines before this one could not be written");
        assert_eq!((&lines[0]["level"], &lines[0]["target"]), (&"WARN".into(), &"handover::logging".into()));
        assert_eq!(written, (3, 40 + text.len() as u64));
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
    fn no_two_write_to_the_same_file() {
        let directory = std::env::temp_dir().join(format!("handover-log-same-{}", std::process::id()));
        fs::create_dir(&directory).expect("a new directory");
        let file = directory.join("file");
        fs::write(&file, "").expect("a file");
        std::os::unix::fs::symlink("file", directory.join("link")).expect("a link");
        std::os::unix::fs::symlink(".", directory.join("around")).expect("a link");
        let with = |log: &Path, access: &Path| {
            let (log_file, access_log) = (Some(log.to_owned()), Some(access.to_owned()));
            are_different(&Config { log_file, access_log, ..Config::default() }).map_err(|error| error.to_string())
        };
        for other in ["file", "link", "around/file", "./file"] {
            let said = format!("access_log is {:?}, which is the log_file as well", directory.join(other));
            assert_eq!(with(&file, &directory.join(other)), Err(said));
        }
        // Where nothing is yet.
        assert!(with(&directory.join("new"), &directory.join("around/new")).is_err());
        assert_eq!(with(&file, &directory.join("new")), Ok(()));
        for both in ["/dev/null", "-"] {
            assert_eq!(with(Path::new(both), Path::new(both)), Ok(()), "{both}");
        }
        let pid = Config { pid_file: Some(file.clone()), log_file: Some(file), ..Config::default() };
        assert!(are_different(&pid).is_err_and(|error| error.is_config()));
        fs::remove_dir_all(&directory).expect("tidy up");
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
            for tried in [try_open(&path), open(&path, None).map(drop)] {
                assert_eq!(why(&path, &tried.expect_err(words)), words, "{path:?}");
            }
        }
        assert!(try_open(&file).is_ok() && try_open(&directory.join("new")).is_ok());
        assert!(!directory.join("new").exists(), "a check leaves no file behind");
        fs::remove_dir_all(&directory).expect("tidy up");
    }
}
