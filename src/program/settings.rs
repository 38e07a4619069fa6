//! Every setting that has one value: its name, what it takes, and where it goes. The command line and the
//! configuration file both read this table, so that they cannot differ.

use crate::config::{
    BODY_RATE, BUFFERED_BODY, Config, HEAD_SIZE, HEADER_COUNT, MAX_CONNECTIONS, MAX_WORKERS, ReloadMode, WORKER_STACK,
    size_text,
};
use crate::listener::Address;
use crate::number::decimal;
use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A setting.
pub struct Setting {
    /// As a flag, without the dashes; as a key with `_` for `-`.
    pub name: &'static str,
    pub short: Option<char>,
    /// What it takes, as help and messages call it.
    pub takes: &'static str,
    /// Whether there is a flag, or only a key.
    pub is_flag: bool,
    target: Target,
}

/// Where a value goes, and what it may be.
enum Target {
    /// Of a file one of an array.
    Listen,
    Number(fn(&mut Config) -> &mut usize, RangeInclusive<usize>),
    /// 0 switches it off.
    AtMost(fn(&mut Config) -> &mut Option<NonZeroU32>, RangeInclusive<usize>),
    Size(fn(&mut Config) -> &mut u64, RangeInclusive<u64>),
    /// A size in memory.
    Room(fn(&mut Config) -> &mut usize, RangeInclusive<u64>),
    Memory,
    FileCache,
    /// From that on.
    Seconds(fn(&mut Config) -> &mut Duration, Duration),
    Path(fn(&mut Config) -> &mut Option<PathBuf>),
    StatusRoutes,
    Reload,
}

impl Setting {
    /// The name in a file.
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Reads the value, and sets it.
    pub fn apply(&self, config: &mut Config, value: &Value<'_>) -> Result<(), Wrong> {
        match &self.target {
            Target::Listen => config.listen.push(value.address()?),
            Target::Number(place, allowed) => *place(config) = value.number(allowed)?,
            Target::AtMost(place, allowed) => *place(config) = at_most(value.number(allowed)?),
            Target::Size(place, allowed) => *place(config) = value.size(allowed)?,
            Target::Room(place, allowed) => *place(config) = value.size(allowed)? as usize,
            Target::Memory => config.memory = Some(value.size(&MEMORY)?),
            Target::FileCache => config.file_cache = Some(value.size(&FILE_CACHE)? as usize),
            Target::Seconds(place, least) => *place(config) = value.seconds(*least)?,
            Target::Path(place) => *place(config) = Some(value.path()?),
            Target::StatusRoutes => config.status_routes = value.boolean()?,
            Target::Reload => config.reload = value.reload_mode()?,
        }
        Ok(())
    }
}

/// A year. Longer is a slip of the finger, and sums of such deadlines stay far from any overflow.
const MAX_SECONDS: u64 = 365 * 24 * 60 * 60;
const FROM_ZERO: Duration = Duration::ZERO;
/// Deadlines count in milliseconds; a timeout that rounds to none would refuse every request.
const FROM_A_MILLISECOND: Duration = Duration::from_millis(1);

/// What a whole process may take: below, no program fits; above is a slip.
const MEMORY: RangeInclusive<u64> = 1 << 20..=1 << 40;
const FILE_CACHE: RangeInclusive<u64> = 0..=1 << 30;
const TARGET_SIZE: RangeInclusive<u64> = 16..=65_535;
const WRITE_RATE: RangeInclusive<u64> = 0..=1 << 30;

pub const SETTINGS: &[Setting] = &[
    Setting { short: Some('l'), ..flag("listen", "ADDRESS", Target::Listen) },
    Setting { short: Some('w'), ..flag("workers", "N", Target::Number(|config| &mut config.workers, 1..=MAX_WORKERS)) },
    key("worker-stack", "SIZE", Target::Room(|config| &mut config.worker_stack, WORKER_STACK)),
    key("status-routes", "true or false", Target::StatusRoutes),
    flag("log-file", "FILE", Target::Path(|config| &mut config.log_file)),
    flag("pid-file", "FILE", Target::Path(|config| &mut config.pid_file)),
    flag("stop-deadline", "SECS", Target::Seconds(|config| &mut config.stop_deadline, FROM_ZERO)),
    flag("lame-duck", "SECS", Target::Seconds(|config| &mut config.lame_duck, FROM_ZERO)),
    flag("reload", "MODE", Target::Reload),
    flag("reload-probation", "SECS", Target::Seconds(|config| &mut config.reload_probation, FROM_ZERO)),
    flag("reload-deadline", "SECS", Target::Seconds(|config| &mut config.reload_deadline, FROM_A_MILLISECOND)),
    flag("exec-stall", "SECS", Target::Seconds(|config| &mut config.exec_stall, FROM_A_MILLISECOND)),
    flag("memory", "SIZE", Target::Memory),
    key("file-cache", "SIZE", Target::FileCache),
    flag("max-connections", "N", Target::Number(|config| &mut config.limits.connections, 1..=MAX_CONNECTIONS)),
    flag(
        "max-connections-per-ip",
        "N",
        Target::AtMost(|config| &mut config.limits.connections_per_ip, 0..=MAX_CONNECTIONS),
    ),
    key(
        "max-requests-per-connection",
        "N",
        Target::AtMost(|config| &mut config.limits.requests, 0..=u32::MAX as usize),
    ),
    flag("max-body", "SIZE", Target::Size(|config| &mut config.limits.body_size, 0..=u64::MAX)),
    key("max-head", "SIZE", Target::Room(|config| &mut config.limits.head_size, HEAD_SIZE)),
    key("max-target", "SIZE", Target::Room(|config| &mut config.limits.target_size, TARGET_SIZE)),
    key("max-headers", "N", Target::Number(|config| &mut config.limits.header_count, HEADER_COUNT)),
    key("buffered-body", "SIZE", Target::Room(|config| &mut config.limits.buffered_body, BUFFERED_BODY)),
    flag("head-timeout", "SECS", Target::Seconds(|config| &mut config.limits.head_timeout, FROM_A_MILLISECOND)),
    key("body-timeout", "SECS", Target::Seconds(|config| &mut config.limits.body_timeout, FROM_A_MILLISECOND)),
    key("body-rate", "SIZE", Target::Size(|config| &mut config.limits.body_rate, BODY_RATE)),
    flag("idle-timeout", "SECS", Target::Seconds(|config| &mut config.limits.idle_timeout, FROM_A_MILLISECOND)),
    flag("write-timeout", "SECS", Target::Seconds(|config| &mut config.limits.write_timeout, FROM_A_MILLISECOND)),
    key("write-rate", "SIZE", Target::Size(|config| &mut config.limits.write_rate, WRITE_RATE)),
    flag("queue-timeout", "SECS", Target::Seconds(|config| &mut config.limits.queue_timeout, FROM_A_MILLISECOND)),
    key("stream-wait", "SECS", Target::Seconds(|config| &mut config.limits.stream_wait, FROM_A_MILLISECOND)),
    key("linger", "SECS", Target::Seconds(|config| &mut config.limits.linger, FROM_ZERO)),
];

const fn flag(name: &'static str, takes: &'static str, target: Target) -> Setting {
    Setting { name, short: None, takes, is_flag: true, target }
}

/// A setting that only a file has.
const fn key(name: &'static str, takes: &'static str, target: Target) -> Setting {
    Setting { name, short: None, takes, is_flag: false, target }
}

/// A limit that 0 switches off.
fn at_most(number: usize) -> Option<NonZeroU32> {
    u32::try_from(number).ok().and_then(NonZeroU32::new)
}

/// What is wrong with a value; whoever reads it knows the name and how it was written.
#[derive(Debug)]
pub enum Wrong {
    /// To go behind "NAME is VALUE, ".
    Value(String),
    /// To go behind "NAME: ".
    Whole(String),
}

/// A value on its way into the settings.
pub struct Value<'v> {
    pub given: Given<'v>,
    /// What a relative path starts from; the working directory without it.
    pub base: Option<&'v Path>,
}

/// How a value was given: an argument is text whatever it means, a file has types.
#[derive(Clone, Copy)]
pub enum Given<'v> {
    Argument(&'v OsStr),
    String(&'v str),
    Integer(u64),
    /// As it is written.
    Float(&'v str),
    Boolean(bool),
    /// Something that no setting is.
    Other,
}

impl Value<'_> {
    fn address(&self) -> Result<Address, Wrong> {
        let text = match self.given {
            Given::Argument(argument) => argument.to_str().ok_or_else(not_utf8)?,
            Given::String(text) => text,
            _ => return Err(Wrong::Value("allowed is HOST:PORT, [V6]:PORT or unix:PATH in quotes".into())),
        };
        let whole = |error: crate::Error| Wrong::Whole(error.to_string());
        match (text.parse().map_err(whole)?, self.base.and_then(Path::to_str)) {
            // Once more, since what the path became may be too long for a socket.
            (Address::Unix(path), Some(base)) if path.is_relative() => {
                format!("unix:{base}/{}", path.display()).parse().map_err(whole)
            }
            (address, _) => Ok(address),
        }
    }

    /// A path; of a file, relative to the directory that the file is in.
    pub fn path(&self) -> Result<PathBuf, Wrong> {
        let path = match self.given {
            Given::Argument(argument) => Path::new(argument),
            Given::String(text) if !text.is_empty() && !text.contains('\0') => Path::new(text),
            _ => return Err(Wrong::Value("allowed is a path in quotes".into())),
        };
        Ok(self.base.map_or_else(|| path.to_owned(), |base| base.join(path)))
    }

    fn number(&self, allowed: &RangeInclusive<usize>) -> Result<usize, Wrong> {
        let number = match self.given {
            Given::Argument(argument) => decimal(argument.to_str().ok_or_else(not_utf8)?),
            Given::Integer(number) => usize::try_from(number).ok(),
            _ => None,
        };
        let number = number.filter(|number| allowed.contains(number));
        number
            .ok_or_else(|| Wrong::Value(format!("allowed is a whole number, {} to {}", allowed.start(), allowed.end())))
    }

    /// Bytes, or with K, M or G that many times 1,024.
    fn size(&self, allowed: &RangeInclusive<u64>) -> Result<u64, Wrong> {
        let size = match self.given {
            Given::Argument(argument) => bytes(argument.to_str().ok_or_else(not_utf8)?),
            Given::String(text) => bytes(text),
            Given::Integer(number) => Some(number),
            _ => None,
        };
        let size = size.ok_or_else(|| match self.given {
            Given::Argument(_) => Wrong::Value("allowed are bytes, or a number with K, M or G: 64K, 10M".into()),
            _ => Wrong::Value("allowed are bytes, or a number with K, M or G in quotes: \"64K\", \"10M\"".into()),
        })?;
        if allowed.contains(&size) {
            return Ok(size);
        }
        let (low, high) = (size_text(*allowed.start()), size_text(*allowed.end()));
        Err(Wrong::Value(format!("allowed is {low} to {high}")))
    }

    /// An argument has no exponent and no sign.
    fn seconds(&self, least: Duration) -> Result<Duration, Wrong> {
        let seconds = match self.given {
            Given::Argument(argument) => {
                let text = argument.to_str().ok_or_else(not_utf8)?;
                let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
                plain.then(|| seconds(text)).flatten()
            }
            Given::Integer(number) => Some(Duration::from_secs(number)),
            // Of a sign, `-0.0` is the least that is allowed.
            Given::Float(text) => seconds(text),
            _ => None,
        };
        let allowed = least..=Duration::from_secs(MAX_SECONDS);
        seconds
            .filter(|seconds| allowed.contains(seconds))
            .ok_or_else(|| Wrong::Value(format!("allowed are seconds, {} to {MAX_SECONDS}", least.as_secs_f64())))
    }

    fn boolean(&self) -> Result<bool, Wrong> {
        match self.given {
            Given::Boolean(value) => Ok(value),
            _ => Err(Wrong::Value("allowed is true or false".into())),
        }
    }

    fn reload_mode(&self) -> Result<ReloadMode, Wrong> {
        let text = match self.given {
            Given::Argument(argument) => argument.to_str(),
            Given::String(text) => Some(text),
            _ => None,
        };
        match (text, self.given) {
            (Some("auto"), _) => Ok(ReloadMode::Auto),
            (Some("overlap"), _) => Ok(ReloadMode::Overlap),
            (Some("exec"), _) => Ok(ReloadMode::Exec),
            (_, Given::Argument(_)) => Err(Wrong::Value("allowed is auto, overlap or exec".into())),
            _ => Err(Wrong::Value("allowed is \"auto\", \"overlap\" or \"exec\"".into())),
        }
    }
}

fn not_utf8() -> Wrong {
    Wrong::Value("which is not UTF-8".into())
}

fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = match text.bytes().last()?.to_ascii_uppercase() {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    decimal::<u64>(number)?.checked_mul(unit)
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_flags_and_keys() {
        for (at, setting) in SETTINGS.iter().enumerate() {
            assert!(setting.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", setting.name);
            assert!(SETTINGS[..at].iter().all(|other| other.name != setting.name), "{} twice", setting.name);
            assert!(setting.is_flag || setting.short.is_none());
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [("0", Some(0)), ("64k", Some(65_536)), ("2G", Some(2 << 30)), ("", None), ("K", None)] {
            assert_eq!(bytes(text), size, "{text}");
        }
        for text in ["1.5M", "+1", "1T", "é", "18446744073709551615K"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_have_decimals_and_in_a_file_an_exponent() {
        let read = |given| Value { given, base: None }.seconds(FROM_ZERO).ok().map(|time| time.as_nanos());
        for (text, nanoseconds) in [
            ("0", 0),
            ("00.50", 500_000_000),
            ("1.", 1_000_000_000),
            (".5", 500_000_000),
            ("0.001", 1_000_000),
            ("0.3", 300_000_000),
            ("10.25", 10_250_000_000),
            ("31536000", 31_536_000_000_000_000),
        ] {
            assert_eq!(read(Given::Argument(OsStr::new(text))), Some(nanoseconds), "{text}");
        }
        let arguments =
            ["", ".", "1.2.3", "e1", "1e3", "x", "1.x", " 1", "+1", "-0", "inf", "31536001", "99999999999999999999"];
        for text in arguments {
            assert_eq!(read(Given::Argument(OsStr::new(text))), None, "{text}");
        }
        for (text, nanoseconds) in [
            ("1e3", 1_000_000_000_000),
            ("1.5e-3", 1_500_000),
            ("25E+1", 250_000_000_000),
            ("+1.0", 1_000_000_000),
            ("-0.0", 0),
            ("1e-400", 0),
        ] {
            assert_eq!(read(Given::Float(text)), Some(nanoseconds), "{text}");
        }
        for text in ["-1.0", "1e99", "1e2147483647", "inf", "-inf", "nan", "+nan"] {
            assert_eq!(read(Given::Float(text)), None, "{text}");
        }
    }
}
