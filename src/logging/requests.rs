//! The request log: a line for each request, into a file or stdout, in a form that others read as well.
//!
//! Whoever ends a request puts its line into a buffer; a thread of this log's own writes that, and nobody waits for it. What
//! the buffer has no room for, or the disk, is counted, and the next line that is written says how many there were.

use super::rate_limit::log_rate_limited;
use crate::clock::wall_clock;
use crate::sys::privileges::Identity;
use crate::sys::stdio::{Stream, write_to};
use crate::{Config, Error};
use portable_atomic::AtomicU64;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use crate::config::RequestLogFormat as Format;

/// Bytes of lines that wait to be written.
const ROOM: usize = 1 << 20;
/// So many are written without waiting for more.
const ENOUGH: usize = 32 << 10;
/// How long a line waits for others that are written with it.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a reader that is busy may take to have room again.
const PATIENCE: Duration = Duration::from_millis(500);
/// What a pipe takes as a whole, so that lines of two processes stay apart: PIPE_BUF.
const PIPE: usize = 4096;
const STACK: usize = 64 << 10;

/// Lines that were not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unwritten {
    /// They may still be.
    pub waiting: u64,
    /// They were dropped, and nobody was told.
    pub unsaid: u64,
}

/// Where the lines go. It ends with its last owner, when all is written.
#[derive(Debug)]
pub struct RequestLog {
    format: Format,
    buffer: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    /// Something is to be done.
    filled: Condvar,
    /// Everything is written.
    emptied: Condvar,
    /// Lines that nobody will ever read, in all; and bytes that were written.
    dropped: AtomicU64,
    written: AtomicU64,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    /// Lines that had no room, and of which nothing was said.
    unsaid: u64,
    /// The thread is writing.
    writes: bool,
    /// Somebody waits for all to be written.
    hurries: bool,
    reopens: bool,
    ends: bool,
}

impl Shared {
    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_lines(&self, buffer: &mut Buffer, lines: u64) {
        buffer.unsaid += lines;
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Sink {
    Stdout(Stream),
    File { path: PathBuf, file: File },
}

impl Sink {
    fn open(path: &std::path::Path, becomes: Option<&Identity>) -> io::Result<Sink> {
        if path.as_os_str() == "-" {
            return Ok(Sink::Stdout(Stream::stdout()));
        }
        let path = crate::sys::working_directory::absolute(path)?;
        let file = super::open(&path, becomes)?;
        Ok(Sink::File { path, file })
    }

    /// Writes as much as can be written, and says why that was not all.
    fn write(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < bytes.len() {
            let rest = &bytes[written..];
            let outcome = match self {
                Sink::Stdout(stdout) => stdout.write_within(whole_lines(rest), PATIENCE),
                Sink::File { file, .. } => write_to(file, rest, PATIENCE),
            };
            match outcome {
                Ok(more @ 1..) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }
}

/// Where the lines will go, before anybody writes them.
#[derive(Debug)]
pub struct Opened {
    sink: Sink,
    format: Format,
}

/// As many lines as a pipe takes as a whole; one that is longer, as far as that.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let first = &bytes[..bytes.len().min(PIPE)];
    let end = first.iter().rposition(|byte| *byte == b'\n').map_or(first.len(), |at| at + 1);
    &first[..end]
}

impl RequestLog {
    /// As the configuration says, if it does: opened, and nothing more. `becomes`: see [`super::start`].
    ///
    /// # Errors
    /// The file cannot be opened; it names the path.
    pub fn open(config: &Config, becomes: Option<&Identity>) -> Result<Option<Opened>, Error> {
        let Some(path) = config.access_log.as_deref() else { return Ok(None) };
        let cannot = |error: &io::Error| {
            config.error("access_log", format_args!("cannot open access log {path:?}: {}", super::why(path, error)))
        };
        let sink = Sink::open(path, becomes).map_err(|error| cannot(&error))?;
        Ok(Some(Opened { sink, format: config.access_log_format }))
    }

    /// Starts its thread. `unsaid`: what a process before dropped, of which the first line says how many there were.
    ///
    /// # Errors
    /// That cannot be.
    pub fn start(Opened { sink, format }: Opened, unsaid: u64) -> Result<Arc<RequestLog>, Error> {
        let log = RequestLog::to(sink, format, unsaid);
        Ok(Arc::new(log.map_err(|error| Error::runtime(format_args!("cannot start the access log"), error))?))
    }

    fn to(sink: Sink, format: Format, unsaid: u64) -> io::Result<RequestLog> {
        let buffer = Arc::<Shared>::default();
        buffer.buffer().unsaid = unsaid;
        let shared = buffer.clone();
        let thread = thread::Builder::new().name("access-log".into()).stack_size(STACK);
        thread.spawn(move || write_lines(&shared, sink, format))?;
        Ok(RequestLog { format, buffer })
    }

    /// In which form its lines are.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Adds a line, its end included.
    pub fn add(&self, line: &[u8]) {
        let mut buffer = self.buffer.buffer();
        let before = buffer.lines.len();
        if before > ROOM {
            return self.buffer.drop_lines(&mut buffer, 1);
        }
        buffer.lines.extend_from_slice(line);
        let now = buffer.lines.len();
        drop(buffer);
        if before == 0 || (before < ENOUGH && now >= ENOUGH) {
            self.buffer.filled.notify_one();
        }
    }

    /// Opens the file anew, under the same name.
    pub fn reopen(&self) {
        self.buffer.buffer().reopens = true;
        self.buffer.filled.notify_one();
    }

    /// Waits until everything is written, and no longer than that. Answers how many lines nobody will read if this process does
    /// not go on: those that still wait, and those of which the next one was to say that they were dropped.
    pub fn flush(&self, patience: Duration) -> Unwritten {
        let until = Instant::now() + patience;
        let mut buffer = self.buffer.buffer();
        buffer.hurries = true;
        self.buffer.filled.notify_one();
        while buffer.writes || !buffer.lines.is_empty() {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { break };
            let waited = self.buffer.emptied.wait_timeout(buffer, left);
            buffer = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(buffer, _)| buffer);
        }
        buffer.hurries = false;
        Unwritten { waiting: count_lines(&buffer.lines), unsaid: buffer.unsaid }
    }

    /// Lines that were dropped, and bytes that were written.
    pub fn figures(&self) -> (u64, u64) {
        (self.buffer.dropped.load(Ordering::Relaxed), self.buffer.written.load(Ordering::Relaxed))
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        self.flush(PATIENCE);
        self.buffer.buffer().ends = true;
        self.buffer.filled.notify_one();
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn write_lines(shared: &Shared, mut sink: Sink, format: Format) {
    // A line that was cut, the disk being full, ends before the next begins.
    let mut torn = false;
    // Since it was said that lines are dropped, and not yet that there are none any more.
    let mut dropping = shared.buffer().unsaid > 0;
    loop {
        let mut buffer = shared.buffer();
        while buffer.lines.is_empty() && !buffer.ends && !buffer.reopens {
            buffer = shared.filled.wait(buffer).unwrap_or_else(PoisonError::into_inner);
        }
        if mem::take(&mut buffer.reopens) {
            drop(buffer);
            reopen(&mut sink);
            continue;
        }
        if buffer.lines.is_empty() {
            return;
        }
        let until = Instant::now() + PAUSE;
        while buffer.lines.len() < ENOUGH && !buffer.hurries && !buffer.ends && !buffer.reopens {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { break };
            let waited = shared.filled.wait_timeout(buffer, left);
            buffer = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(buffer, _)| buffer);
        }
        let (lines, unsaid) = (mem::take(&mut buffer.lines), mem::take(&mut buffer.unsaid));
        buffer.writes = true;
        drop(buffer);
        let mut before = if torn { b"\n".to_vec() } else { Vec::new() };
        if unsaid > 0 {
            say_dropped(&mut before, unsaid, format);
        }
        let (mut written, mut outcome) = sink.write(&before);
        let said = outcome.is_ok();
        torn &= written == 0;
        let lost = if said {
            (written, outcome) = sink.write(&lines);
            torn = written > 0 && lines[written - 1] != b'\n';
            shared.written.fetch_add((before.len() + written) as u64, Ordering::Relaxed);
            count_lines(&lines[written..])
        } else {
            count_lines(&lines)
        };
        let had_no_room = if said { unsaid } else { 0 };
        say_dropping(&mut dropping, &outcome, had_no_room);
        let mut buffer = shared.buffer();
        shared.drop_lines(&mut buffer, lost);
        // It was counted when it was dropped.
        buffer.unsaid += if said { 0 } else { unsaid };
        buffer.writes = false;
        if buffer.lines.is_empty() {
            // What room a burst took goes back.
            buffer.lines = if lines.capacity() <= 2 * ENOUGH { cleared(lines) } else { Vec::new() };
            shared.emptied.notify_all();
        }
    }
}

/// Says once in the log that lines are dropped, and why, and once that they are written again.
fn say_dropping(dropping: &mut bool, outcome: &io::Result<()>, said: u64) {
    let was = std::mem::replace(dropping, outcome.is_err());
    match outcome {
        Err(error) if !was => log_rate_limited!(warn, "lines of the access log are dropped: {error}"),
        Ok(()) if was => log_rate_limited!(info, "the access log is written again; {said} of its lines were dropped"),
        Ok(()) if said > 0 => {
            log_rate_limited!(
                warn,
                "{said} lines of the access log were dropped: it is written more slowly than they come"
            );
        }
        _ => {}
    }
}

fn cleared(mut lines: Vec<u8>) -> Vec<u8> {
    lines.clear();
    lines
}

fn reopen(sink: &mut Sink) {
    let Sink::File { path, file } = sink else { return };
    match super::open(path, None) {
        Ok(opened) => {
            *file = opened;
            log::info!("reopened access log {path:?}");
        }
        Err(error) => {
            log::error!("cannot reopen access log {path:?}, keeping the old one: {}", super::why(path, &error));
        }
    }
}

/// A line in the same form, so that whoever reads the others reads this.
fn say_dropped(out: &mut Vec<u8>, lines: u64, format: Format) {
    let mut line = String::new();
    // Writing into a string does not fail.
    let _ = match format {
        Format::Combined => {
            let time = common_time(wall_clock());
            writeln!(line, "- - - [{time}] \"\" 000 0 \"-\" \"{lines} lines before this one were dropped\" 0.000")
        }
        Format::Json => {
            writeln!(line, "{{\"time\":\"{}\",\"dropped\":{lines}}}", super::line::Timestamp::since_1970(wall_clock()))
        }
    };
    out.extend_from_slice(line.as_bytes());
}

/// `26/Nov/2026:17:10:44 +0000`, as the Common Log Format has it.
pub fn common_time(since_1970: Duration) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (since_1970.as_secs() / 86_400, since_1970.as_secs() % 86_400);
    let (year, month, day) = super::line::civil(days);
    let month = MONTHS[(month as usize - 1) % 12];
    format!("{day:02}/{month}/{year}:{:02}:{:02}:{:02} +0000", second / 3600, second / 60 % 60, second % 60)
}

/// `2026-11-26T17:10:44.`, as the log has it up to the milliseconds.
pub fn json_second(since_1970: Duration) -> String {
    let mut time = super::line::Timestamp::since_1970(since_1970).to_string();
    time.truncate("2026-11-26T17:10:44.".len());
    time
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("handover-requests-{name}-{}", std::process::id()));
            fs::create_dir(&path).expect("a new directory");
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn log(path: &Path, format: Format) -> RequestLog {
        RequestLog::to(Sink::open(path, None).expect("a file"), format, 0).expect("a thread")
    }

    fn add(log: &RequestLog, line: &str) {
        log.add(format!("{line}\n").as_bytes());
    }

    #[test]
    fn lines_are_written_in_their_order_and_into_the_file_of_that_name_once_it_is_opened_anew() {
        let scratch = Scratch::new("order");
        let (path, moved) = (scratch.0.join("log"), scratch.0.join("log.1"));
        let log = log(&path, Format::Combined);
        add(&log, "one");
        add(&log, "two");
        log.flush(Duration::from_secs(9));
        assert_eq!(fs::read_to_string(&path).expect("the log"), "one\ntwo\n");
        fs::rename(&path, &moved).expect("moved away");
        log.reopen();
        // Whoever waits for a line written behind that waits for it as well.
        while !path.exists() {
            thread::yield_now();
        }
        add(&log, "three");
        drop(log);
        assert_eq!(fs::read_to_string(&path).expect("the log"), "three\n");
        assert_eq!(fs::read_to_string(&moved).expect("the old one"), "one\ntwo\n");
    }

    #[test]
    fn what_a_full_disk_drops_is_counted_and_said_in_the_next_line() {
        for (format, said) in
            [(Format::Combined, "\"2 lines before this one were dropped\""), (Format::Json, "\"dropped\":2}")]
        {
            let scratch = Scratch::new(if format == Format::Json { "full-json" } else { "full" });
            let full = Sink::File {
                path: scratch.0.join("log"),
                file: File::options().write(true).open("/dev/full").expect("it"),
            };
            let log = RequestLog::to(full, format, 0).expect("a thread");
            add(&log, "one");
            add(&log, "two");
            log.flush(Duration::from_secs(9));
            assert_eq!(log.figures(), (2, 0));
            log.reopen();
            while !scratch.0.join("log").exists() {
                thread::yield_now();
            }
            add(&log, "three");
            log.flush(Duration::from_secs(9));
            let text = fs::read_to_string(scratch.0.join("log")).expect("the log");
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.len() == 2 && lines[0].contains(said) && lines[1] == "three", "{text}");
            assert_eq!(log.figures(), (2, text.len() as u64));
        }
    }

    #[test]
    fn what_has_no_room_is_counted_and_nobody_waits() {
        let (reader, pipe) = io::pipe().expect("a pipe");
        // Nobody reads it, so that the thread is busy with the first lines.
        let sink = Sink::File { path: PathBuf::new(), file: std::os::fd::OwnedFd::from(pipe).into() };
        rustix::io::ioctl_fionbio(
            match &sink {
                Sink::File { file, .. } => file,
                Sink::Stdout(_) => unreachable!(),
            },
            true,
        )
        .expect("non-blocking");
        let log = RequestLog::to(sink, Format::Combined, 0).expect("a thread");
        let line = "x".repeat(999);
        for _ in 0..3000 {
            add(&log, &line);
        }
        assert!(log.figures().0 > 0);
        drop(reader);
    }

    #[test]
    fn a_pipe_gets_whole_lines() {
        assert_eq!(whole_lines(b"one\ntwo\nthr"), b"one\ntwo\n");
        assert_eq!(whole_lines(b"one"), b"one");
        let long = [&[b'a'; 3000][..], b"\n", &[b'b'; 3000], b"\n"].concat();
        assert_eq!(whole_lines(&long).len(), 3001);
        assert_eq!(whole_lines(&[b'a'; 5000]).len(), PIPE);
    }

    #[test]
    fn times() {
        let time = Duration::from_millis(1_769_903_999_042);
        assert_eq!(common_time(time), "31/Jan/2026:23:59:59 +0000");
        assert_eq!(json_second(time), "2026-01-31T23:59:59.");
    }
}
