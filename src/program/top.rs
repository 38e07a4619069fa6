//! `handover top`: the status page for a terminal.
//!
//! It asks a running server for `/-/status.json` again and again, over one connection, which goes on through reloads as any
//! other, and shows what has happened between two answers.

use super::value::MAX_SECONDS;
use crate::config::{DEFAULT_LISTEN, on_one_line};
use crate::listener::Address;
use crate::sys::regular_file;
use http1::number::decimal;
use lexopt::{Arg, Parser};
use rustix::termios::{isatty, tcgetwinsize};
use serde_json::Value;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// The first argument that asks for it. A directory of that name is served as `./top`.
const NAME: &str = "top";
const PATIENCE: Duration = Duration::from_secs(5);
/// The most that is read of an answer.
const LONGEST: usize = 4 << 20;
/// Of a terminal that does not say how large it is, and of what is no terminal.
const SIZE: (usize, usize) = (100, usize::MAX);
/// From the upper left corner on, what was there before is overwritten, and what is left of it goes.
const BEGIN: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K\n";
const END: &str = "\x1b[J";

pub(super) const HELP: &str = "\
Usage: handover top [ADDRESS] [--every SECS] [--once] [--token-file FILE]

Shows a running server in the terminal: requests and how long answers take,
connections, subscribers, what each thread does, the last reloads. Ctrl-C ends
it. It stays connected through reloads.

  ADDRESS                   where the server listens: HOST:PORT, [V6]:PORT or
                            unix:PATH [127.0.0.1:8888]
      --every SECS          how often to look [1]
      --once                show one interval, and end
      --token-file FILE     the server's status_token_file, for one on another
                            host, or whose status is \"nobody\"
  -h, --help                this text

Exit codes  0 it was shown
            1 there is no such server, or it does not say; why stands on stderr
            2 wrong usage
";

/// What the command line asks for, its program's name included, if that is to watch a server.
pub fn top_command(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    (args.next()? == NAME).then(|| run(args))
}

fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let outcome = match parse(args) {
        Ok(None) => io::stdout().write_all(HELP.as_bytes()).map_err(|_| 1),
        Ok(Some(request)) => request.watch().map_err(|why| {
            let _ = writeln!(io::stderr(), "handover top: {why}");
            1
        }),
        Err(mistake) => {
            let _ = writeln!(io::stderr(), "handover top: {mistake} (try handover top --help)");
            Err(2)
        }
    };
    outcome.map_or_else(ExitCode::from, |()| ExitCode::SUCCESS)
}

struct Request {
    address: Address,
    every: Duration,
    once: bool,
    token: Option<String>,
}

/// `None` for `--help`. An error is a mistake in the usage.
fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<Request>, String> {
    let (mut address, mut every, mut once, mut token_file) = (None, Duration::from_secs(1), false, None);
    let mut parser = Parser::from_args(args);
    let told = |error: lexopt::Error| on_one_line(&error.to_string());
    while let Some(argument) = parser.next().map_err(told)? {
        match argument {
            Arg::Long("every") => {
                let value = parser.value().map_err(told)?;
                let seconds = value.to_str().and_then(decimal).filter(|seconds| (1..=MAX_SECONDS).contains(seconds));
                let seconds =
                    seconds.ok_or_else(|| format!("--every is {value:?}, allowed are seconds, 1 to {MAX_SECONDS}"))?;
                every = Duration::from_secs(seconds);
            }
            Arg::Long("once") => once = true,
            Arg::Long("token-file") => token_file = Some(PathBuf::from(parser.value().map_err(told)?)),
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Value(value) if address.is_none() => {
                let text = value.to_str().ok_or_else(|| format!("ADDRESS is {value:?}, which is not UTF-8"))?;
                let wrong = || format!("ADDRESS is {text:?}, allowed is HOST:PORT, [V6]:PORT or unix:PATH");
                address = Some(text.parse::<Address>().map_err(|_| wrong())?);
            }
            other => return Err(told(other.unexpected())),
        }
    }
    let token = match token_file {
        None => None,
        Some(path) => {
            let read = regular_file::read(&path, 4096, "it is not a regular file", "it has more than 4096 bytes");
            let token = read.and_then(|token| String::from_utf8(token).map_err(|_| "it is not UTF-8".to_owned()));
            Some(token.map_err(|why| format!("--token-file {path:?}: {why}"))?.trim().to_owned())
        }
    };
    // What the library listens to is an address.
    let address = address.map_or_else(|| DEFAULT_LISTEN.parse::<Address>().map_err(|error| error.to_string()), Ok)?;
    Ok(Some(Request { address, every, once, token }))
}

impl Request {
    fn watch(&self) -> Result<(), String> {
        let stdout = io::stdout();
        let terminal = isatty(&stdout) && !self.once;
        let mut connection = None;
        let mut before: Option<(Instant, Value)> = None;
        if terminal {
            let _ = stdout.lock().write_all(b"\x1b[2J");
        }
        loop {
            let asked = Instant::now();
            let answer = self.ask(&mut connection);
            let text = match (&answer, &before) {
                (Err(why), None) => return Err(why.clone()),
                // It may be back in a moment: whoever looks wants to see that.
                (Err(why), Some(_)) => format!("{why}; trying again\n"),
                (Ok(now), Some((then, before))) => {
                    let (width, height) = if terminal { size() } else { SIZE };
                    shown(now, before, asked.duration_since(*then), width, height)
                }
                (Ok(_), None) => String::new(),
            };
            let text = match terminal {
                true => format!("{BEGIN}{}{END}", text.replace('\n', END_OF_LINE)),
                false => text,
            };
            match stdout.lock().write_all(text.as_bytes()).and_then(|()| stdout.lock().flush()) {
                Ok(()) => {}
                // Who closes it has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(format!("cannot write to stdout: {error}")),
            }
            match answer {
                Ok(_) if self.once && before.is_some() => return Ok(()),
                Err(why) if self.once => return Err(why),
                Ok(now) => before = Some((asked, now)),
                Err(_) => {}
            }
            thread::sleep(self.every.saturating_sub(asked.elapsed()));
        }
    }

    /// Asks over the connection that there is, or a new one if that has ended.
    fn ask(&self, connection: &mut Option<Box<dyn Stream>>) -> Result<Value, String> {
        let kept = connection.is_some();
        match self.ask_once(connection) {
            Err(Failure::Ended(_)) if kept => self.ask_once(connection),
            answer => answer,
        }
        .map_err(|failure| match failure {
            Failure::Ended(error) => format!("cannot ask the server at {}: {error}", self.address),
            Failure::Refused(why) => why,
        })
    }

    fn ask_once(&self, connection: &mut Option<Box<dyn Stream>>) -> Result<Value, Failure> {
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => connect(&self.address)?,
        };
        let host = match &self.address {
            Address::Tcp(host, port) if !is_here(host) => format!("{host}:{port}"),
            Address::Tcp(..) | Address::Unix(_) => "localhost".to_owned(),
        };
        let token = self.token.as_ref().map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        let question = format!("GET /-/status.json HTTP/1.1\r\nHost: {host}\r\n{token}\r\n");
        stream.write_all(question.as_bytes())?;
        let (status, body) = answer(&mut stream)?;
        let refused = |why: &str| Failure::Refused(format!("the server at {}: {why}", self.address));
        match status {
            200 => {
                let answer =
                    serde_json::from_slice(&body).map_err(|_| refused("this is not handover's /-/status.json"))?;
                *connection = Some(stream);
                Ok(answer)
            }
            404 => Err(refused(
                "there is no /-/status.json: it is another server, its status is \"nobody\", or it answers nothing below /-/",
            )),
            _ => {
                let said: String = String::from_utf8_lossy(&body).trim().chars().take(300).collect();
                Err(refused(&format!("{status}: {}", on_one_line(&said))))
            }
        }
    }
}

trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

enum Failure {
    /// Another connection may do better.
    Ended(io::Error),
    Refused(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Ended(error)
    }
}

fn connect(address: &Address) -> io::Result<Box<dyn Stream>> {
    Ok(match address {
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Box::new(stream)
        }
        Address::Tcp(host, port) => {
            // Who listens everywhere does so here.
            let host = match host.as_str() {
                "0.0.0.0" => "127.0.0.1",
                "::" => "::1",
                host => host,
            };
            let stream = TcpStream::connect((host, *port))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
    })
}

/// Whether an address is of this host, as the server judges it.
fn is_here(host: &str) -> bool {
    matches!(host, "localhost" | "0.0.0.0" | "::" | "::1") || host.starts_with("127.")
}

/// Status and content. The server says how long that is.
fn answer(stream: &mut impl Read) -> io::Result<(u16, Vec<u8>)> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "this is no answer of an HTTP server's");
    let mut bytes = Vec::new();
    let mut more = |bytes: &mut Vec<u8>| {
        let mut piece = [0; 8192];
        match stream.read(&mut piece)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            _ if bytes.len() > LONGEST => Err(malformed()),
            read => {
                bytes.extend_from_slice(&piece[..read]);
                Ok(())
            }
        }
    };
    let end = loop {
        match bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(at) => break at + 4,
            None => more(&mut bytes)?,
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(malformed)?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.filter(|length| *length <= LONGEST).ok_or_else(malformed)?;
    while bytes.len() < end + length {
        more(&mut bytes)?;
    }
    Ok((status, bytes[end..end + length].to_vec()))
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => SIZE,
    }
}

/// One screen, of what was between two answers.
fn shown(now: &Value, before: &Value, between: Duration, width: usize, height: usize) -> String {
    let seconds = between.as_secs_f64().max(1e-3);
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let sum = |value: &Value| value.as_object().map_or(0.0, |all| all.values().map(number).sum());
    let rate = |of: &dyn Fn(&Value) -> f64| (of(now) - of(before)).max(0.0) / seconds;
    let of = |name: &'static str| move |value: &Value| number(&value[name]);
    let class = |name: &'static str| move |value: &Value| number(&value["requests"][name]);
    let limits = &now["limits"];
    let mut lines = Vec::new();
    let state = if now["ready"] == true { "serving" } else { "stopping" };
    lines.push(format!(
        "handover {}  {state}  generation {}  process {}  for {}",
        now["version"].as_str().unwrap_or("?"),
        now["generation"],
        now["pid"],
        time(number(&now["uptime"]))
    ));
    lines.push(String::new());
    lines.push(format!(
        "requests     {}/s  4xx {}/s  5xx {}/s  without an answer {}/s  refused {}/s  in all {}",
        many(rate(&|value| sum(&value["requests"]))),
        many(rate(&class("4xx"))),
        many(rate(&class("5xx"))),
        many(rate(&class("none"))),
        many(rate(&of("refused"))),
        many(sum(&now["requests"]))
    ));
    let quantile = |part| quantile(&now["durations"], &before["durations"], part).map_or("-".to_owned(), time);
    lines.push(format!(
        "answers      median {}  90 % {}  99 % {}  content {}/s",
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        bytes(rate(&of("sent")))
    ));
    let states = now["connections"].as_object().into_iter().flatten().filter(|(_, count)| number(count) > 0.0);
    let states: String = states.fold(String::new(), |mut all, (state, count)| {
        let _ = write!(all, "  {state} {count}");
        all
    });
    lines.push(format!(
        "connections  {} of {}  new {}/s{states}",
        many(sum(&now["connections"])),
        many(number(&limits["connections"])),
        many(rate(&of("accepted")))
    ));
    let kept = match number(&limits["push_memory"]) {
        0.0 => String::new(),
        most => format!("  kept {} of {}", bytes(number(&now["log_bytes"])), bytes(most)),
    };
    lines.push(format!(
        "push         {} of {} subscribers  delivered {}/s  published {}/s{kept}",
        many(number(&now["subscribers"])),
        many(number(&limits["subscribers"])),
        many(rate(&of("delivered"))),
        many(rate(&of("published")))
    ));
    let waits = match limits["memory_budget"].as_f64() {
        Some(budget) => format!("  for what waits {} of {}", bytes(number(&now["budget_used"])), bytes(budget)),
        None => String::new(),
    };
    let files = match limits["open_files"].as_f64() {
        Some(most) => format!("  files {} of {}", now["open_files"], many(most)),
        None => String::new(),
    };
    lines.push(format!(
        "process      processor {:.1} %  memory {}{waits}{files}",
        rate(&of("cpu")) * 100.0,
        bytes(number(&now["resident"]))
    ));
    lines.push(String::new());
    lines.push(format!("{:<12} {:>8}  REQUEST", "THREAD", "FOR"));
    for thread in now["threads"].as_array().into_iter().flatten() {
        let name = thread["name"].as_str().unwrap_or("?");
        match thread["request"].as_str() {
            Some(request) => {
                lines.push(format!("{name:<12} {:>8}  {}", time(number(&thread["age"])), on_one_line(request)));
            }
            None => lines.push(format!("{name:<12} {:>8}", "-")),
        }
    }
    lines.push(String::new());
    lines.push(format!(
        "{:<10} {:>10} {:<8} {:<10} {:>8} {:>8}  WHY",
        "RELOAD", "GENERATION", "MODE", "OUTCOME", "TOOK", "HELD"
    ));
    if now["last_reloads"].as_array().is_none_or(Vec::is_empty) {
        lines.push("none since the start".to_owned());
    }
    let ago = |at: f64| format!("{} ago", time((number(&now["time"]) / 1e3 - at).max(0.0)));
    for reload in now["last_reloads"].as_array().into_iter().flatten() {
        lines.push(format!(
            "{:<10} {:>10} {:<8} {:<10} {:>8} {:>8}  {}",
            ago(number(&reload["at"])),
            reload["generation"].to_string(),
            reload["mode"].as_str().unwrap_or("?"),
            reload["outcome"].as_str().unwrap_or("?"),
            time(number(&reload["duration"])),
            time(number(&reload["hold"])),
            on_one_line(reload["reason"].as_str().unwrap_or_default())
        ));
    }
    // A line of the terminal each, and the last is left free, so that nothing scrolls.
    let lines = lines.into_iter().take(height.saturating_sub(1));
    lines.fold(String::new(), |all, line| {
        let line: String = line.trim_end().chars().take(width).collect();
        all + &line + "\n"
    })
}

/// In which time that part of the answers between two counts was done: buckets have those below them as well, and what lies
/// in one is spread evenly.
fn quantile(now: &Value, before: &Value, part: f64) -> Option<f64> {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let mut bounds: Vec<(f64, f64)> = now
        .as_object()?
        .iter()
        .filter_map(|(bound, count)| Some((bound.parse().ok()?, number(count) - number(&before[bound]))))
        .collect();
    bounds.sort_by(|one, other| one.0.total_cmp(&other.0));
    let wanted = bounds.last().map(|(_, all)| all * part).filter(|wanted| *wanted > 0.0)?;
    let (mut last, mut passed) = (0.0, 0.0);
    for (bound, count) in bounds {
        if count >= wanted {
            // Beyond the last bound nobody knows.
            let bound = if bound.is_finite() { bound } else { last };
            return Some(last + (bound - last) * (wanted - passed) / f64::max(count - passed, 1.0));
        }
        (last, passed) = (bound, count);
    }
    None
}

fn many(number: f64) -> String {
    match number {
        number if number >= 1e6 => format!("{:.1} M", number / 1e6),
        number if number >= 1e4 => format!("{:.1} k", number / 1e3),
        number if number >= 100.0 || number.fract() == 0.0 => format!("{number:.0}"),
        number => format!("{number:.1}"),
    }
}

fn bytes(number: f64) -> String {
    const KIB: f64 = 1024.0;
    match number {
        number if number >= KIB * KIB * KIB => format!("{:.1} GiB", number / KIB / KIB / KIB),
        number if number >= KIB * KIB => format!("{:.1} MiB", number / KIB / KIB),
        number if number >= KIB => format!("{:.0} KiB", number / KIB),
        number => format!("{number:.0} B"),
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        0.0 => "0".to_owned(),
        seconds if seconds < 1e-3 => format!("{:.0} us", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 10.0 => format!("{seconds:.1} s"),
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", (seconds / 60.0).floor()),
        seconds if seconds < 172_800.0 => format!("{:.0} h", (seconds / 3600.0).floor()),
        seconds => format!("{:.0} days", (seconds / 86_400.0).floor()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(line: &str) -> Result<Option<Request>, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_usage() {
        let request = parsed("").expect("right").expect("no help");
        assert!(
            request.address.to_string() == DEFAULT_LISTEN && !request.once && request.every == Duration::from_secs(1)
        );
        let request = parsed("unix:/run/s --once --every 5").expect("right").expect("no help");
        assert!(
            request.address.to_string() == "unix:/run/s" && request.once && request.every == Duration::from_secs(5)
        );
        assert!(matches!(parsed("--help"), Ok(None)));
        for (line, what) in [
            ("nowhere", "ADDRESS is \"nowhere\", allowed is"),
            ("--every 0", "--every is \"0\", allowed are seconds"),
            ("--token-file /nowhere", "there is no such file"),
            ("a:1 b:2", "b:2"),
            ("--often", "often"),
        ] {
            let mistake = parsed(line).err().expect(line);
            assert!(mistake.contains(what) && !mistake.contains('\n'), "{mistake}");
        }
    }

    #[test]
    fn an_answer_is_read_in_any_pieces_and_what_is_none_is_refused() {
        struct Pieces<'a>(&'a [u8]);
        impl Read for Pieces<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
                (out[0], self.0) = (*first, rest);
                Ok(1)
            }
        }
        let good = answer(&mut Pieces(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"));
        assert_eq!(good.expect("an answer"), (200, b"hi".to_vec()));
        for bad in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
        ] {
            assert!(answer(&mut Pieces(bad.as_bytes())).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_lies_in_a_bucket_is_spread_evenly() {
        let before = json!({"0.1": 5, "0.2": 5, "+Inf": 5});
        let now = json!({"0.1": 5, "0.2": 15, "+Inf": 25});
        let quantile = |part| quantile(&now, &before, part).map(|seconds| (seconds * 100.0).round() / 100.0);
        assert_eq!([0.25, 0.5, 0.99].map(quantile), [Some(0.15), Some(0.2), Some(0.2)]);
        assert_eq!(super::quantile(&before, &before, 0.5), None, "there was none");
    }

    #[test]
    fn a_screen_has_a_line_for_each_and_no_more_than_fits() {
        let thread = json!({"name": "worker-0", "request": "GET /a\u{1b}[2J", "age": 0.5});
        let now = json!({
            "version": "1", "generation": 2, "pid": 7, "uptime": 61.0, "ready": true, "requests": {"2xx": 30, "5xx": 10},
            "connections": {"idle": 2, "queued": 0}, "limits": {"connections": 9}, "threads": [thread],
            "last_reloads": [{"at": 1, "generation": 2, "mode": "exec", "outcome": "failed", "duration": 0.1, "reason": "no\nway"}],
        });
        let before = json!({"requests": {"2xx": 10}});
        let screen = shown(&now, &before, Duration::from_secs(2), 100, 40);
        for part in
            ["requests     15/s  4xx 0/s  5xx 5/s", "2 of 9", "idle 2\n", "GET /a\\u{1b}[2J", "no\\nway", "500 ms"]
        {
            assert!(screen.contains(part), "{part}: {screen}");
        }
        let small = shown(&now, &before, Duration::from_secs(2), 20, 5);
        assert!(small.lines().count() == 4 && small.lines().all(|line| line.chars().count() <= 20), "{small}");
        // One of another build says less.
        assert!(!shown(&json!({}), &json!([]), Duration::ZERO, 80, 24).contains("NaN"));
    }
}
