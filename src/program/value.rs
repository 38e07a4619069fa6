//! A value on its way into the settings: text of an argument, or what a file has.

use crate::config::{BusUrl, size_text};
use crate::listener::Address;
use crate::logging::filters;
use http1::number::decimal;
use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A year. Longer is a slip of the finger, and sums of such deadlines stay far from any overflow.
pub const MAX_SECONDS: u64 = 365 * 24 * 60 * 60;

/// What is wrong with a value; whoever reads it knows the name and how it was written.
#[derive(Debug)]
pub enum ValueError {
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
    pub fn address(&self) -> Result<Address, ValueError> {
        let text = match self.given {
            Given::Argument(argument) => argument.to_str().ok_or_else(not_utf8)?,
            Given::String(text) => text,
            _ => return Err(ValueError::Value("allowed is HOST:PORT, [V6]:PORT or unix:PATH in quotes".into())),
        };
        let whole = |error: crate::Error| ValueError::Whole(error.to_string());
        match (text.parse().map_err(whole)?, self.base.and_then(Path::to_str)) {
            // Once more, since what the path became may be too long for a socket.
            (Address::Unix(path), Some(base)) if path.is_relative() => {
                format!("unix:{base}/{}", path.display()).parse().map_err(whole)
            }
            (address, _) => Ok(address),
        }
    }

    /// A path; of a file, relative to the directory that the file is in.
    pub fn path(&self) -> Result<PathBuf, ValueError> {
        let path = match self.given {
            Given::Argument(argument) => Path::new(argument),
            Given::String(text) if !text.is_empty() && !text.contains('\0') => Path::new(text),
            _ => return Err(ValueError::Value("allowed is a path in quotes".into())),
        };
        Ok(self.base.map_or_else(|| path.to_owned(), |base| base.join(path)))
    }

    pub fn number(&self, allowed: &RangeInclusive<usize>) -> Result<usize, ValueError> {
        let number = match self.given {
            Given::Argument(argument) => decimal(argument.to_str().ok_or_else(not_utf8)?),
            Given::Integer(number) => usize::try_from(number).ok(),
            _ => None,
        };
        let number = number.filter(|number| allowed.contains(number));
        number.ok_or_else(|| {
            ValueError::Value(format!("allowed is a whole number, {} to {}", allowed.start(), allowed.end()))
        })
    }

    /// Bytes, or with K, M or G that many times 1,024.
    pub fn size(&self, allowed: &RangeInclusive<u64>) -> Result<u64, ValueError> {
        let size = match self.given {
            Given::Argument(argument) => bytes(argument.to_str().ok_or_else(not_utf8)?),
            Given::String(text) => bytes(text),
            Given::Integer(number) => Some(number),
            _ => None,
        };
        let size = size.ok_or_else(|| match self.given {
            Given::Argument(_) => ValueError::Value("allowed are bytes, or a number with K, M or G: 64K, 10M".into()),
            _ => ValueError::Value("allowed are bytes, or a number with K, M or G in quotes: \"64K\", \"10M\"".into()),
        })?;
        if allowed.contains(&size) {
            return Ok(size);
        }
        let (low, high) = (size_text(*allowed.start()), size_text(*allowed.end()));
        Err(ValueError::Value(format!("allowed is {low} to {high}")))
    }

    /// An argument has no exponent and no sign.
    pub fn seconds(&self, least: Duration) -> Result<Duration, ValueError> {
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
            .ok_or_else(|| ValueError::Value(format!("allowed are seconds, {} to {MAX_SECONDS}", least.as_secs_f64())))
    }

    pub fn boolean(&self) -> Result<bool, ValueError> {
        match self.given {
            Given::Boolean(value) => Ok(value),
            _ => Err(ValueError::Value("allowed is true or false".into())),
        }
    }

    /// A name; of a file, a number as well.
    pub fn name(&self) -> Result<String, ValueError> {
        match (self.word(), self.given) {
            (_, Given::Integer(number)) => Ok(number.to_string()),
            (Some(word), _) if !word.is_empty() && !word.contains(|one: char| one.is_control() || one == ':') => {
                Ok(word.to_owned())
            }
            _ => Err(ValueError::Value("allowed is a name or a number".into())),
        }
    }

    /// The same, or `-`, which is stdout.
    pub fn path_or_stdout(&self) -> Result<PathBuf, ValueError> {
        if self.word() == Some("-") { Ok(PathBuf::from("-")) } else { self.path() }
    }

    /// A word, as it was given.
    fn word(&self) -> Option<&str> {
        match self.given {
            Given::Argument(argument) => argument.to_str(),
            Given::String(text) => Some(text),
            _ => None,
        }
    }

    /// Where a bus is.
    pub fn bus_url(&self) -> Result<BusUrl, ValueError> {
        let Some(word) = self.word() else {
            return Err(ValueError::Value("allowed is an address in quotes: \"redis://127.0.0.1\"".into()));
        };
        // What could have a password in it is not shown.
        BusUrl::parse(word).map_err(if word.contains('@') { ValueError::Whole } else { ValueError::Value })
    }

    /// A level of the log, or what `RUST_LOG` takes besides.
    pub fn log_level(&self) -> Result<String, ValueError> {
        let Some(word) = self.word() else {
            return Err(ValueError::Value("allowed is a level in quotes: \"info\"".into()));
        };
        match filters::refused(word) {
            None => Ok(word.to_owned()),
            Some(why) => Err(ValueError::Value(why)),
        }
    }

    /// One of these words.
    pub fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, ValueError> {
        if let Some((_, value)) = words.iter().find(|(word, _)| self.word() == Some(word)) {
            return Ok(*value);
        }
        let quote = if matches!(self.given, Given::Argument(_)) { "" } else { "\"" };
        let words: Vec<String> = words.iter().map(|(word, _)| format!("{quote}{word}{quote}")).collect();
        let (last, others) = words.split_last().map_or(("", &[][..]), |(last, others)| (last, others));
        Err(ValueError::Value(format!("allowed is {} or {last}", others.join(", "))))
    }
}

fn not_utf8() -> ValueError {
    ValueError::Value("which is not UTF-8".into())
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
        let read = |given| Value { given, base: None }.seconds(Duration::ZERO).ok().map(|time| time.as_nanos());
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
