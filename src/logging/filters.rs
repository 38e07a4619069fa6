//! Which records are logged: what `RUST_LOG` and `log_level` say, in the grammar of `env_logger`.

use crate::Error;
use crate::closest::closest;
use crate::config::{Config, on_one_line};
use log::LevelFilter;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// What is logged where nobody says anything.
pub const DEFAULT: &str = "info";
/// What is allowed, for messages.
const ALLOWED: &str = "allowed is LEVEL or TARGET=LEVEL, several with commas between, and LEVEL is off, error, warn, info, \
                       debug or trace";

/// What counts: `RUST_LOG` if it says something, or else the configuration.
///
/// # Errors
/// A usage error about `RUST_LOG`, a configuration error about `log_level`.
pub fn of(config: &Config) -> Result<String, Error> {
    if let Some(filters) = of_environment()? {
        return Ok(filters);
    }
    let Some(filters) = &config.log_level else { return Ok(DEFAULT.to_owned()) };
    match refused(filters) {
        None => Ok(filters.clone()),
        Some(why) => Err(config.error("log_level", format_args!("log_level is {filters:?}, {why}"))),
    }
}

/// What `RUST_LOG` says, if it says something.
///
/// # Errors
/// A usage error if that cannot be meant.
pub fn of_environment() -> Result<Option<String>, Error> {
    let Some(filters) = std::env::var_os("RUST_LOG") else { return Ok(None) };
    match filters.to_str() {
        Some(text) if text.trim().is_empty() => Ok(None),
        Some(text) => match misspelt(text, &crate_name(std::env::args_os().next())) {
            None => Ok(Some(text.to_owned())),
            Some(hint) => Err(wrong(&filters, &hint)),
        },
        None => Err(wrong(&filters, "")),
    }
}

fn wrong(filters: &OsStr, hint: &str) -> Error {
    Error::usage(format_args!("RUST_LOG is {filters:?}{hint}; {ALLOWED}"))
}

/// What to know where the configuration has a level and `RUST_LOG` another.
pub fn note(config: &Config) -> Option<String> {
    let (level, filters) = (config.log_level.as_ref()?, of_environment().ok()??);
    (*level != filters).then(|| format!("RUST_LOG is {filters:?} and wins over log_level, which is {level:?}"))
}

/// Why that is no value of `log_level`, to go behind it; `None` if it is one.
pub fn refused(filters: &str) -> Option<String> {
    if filters.split(',').all(|directive| directive.trim().is_empty()) {
        return Some(ALLOWED.to_owned());
    }
    let hint = misspelt(filters, &crate_name(std::env::args_os().next()))?;
    // What is wrong need not be said where it is all that there is.
    let meant = hint.split_once(", did you mean ").map(|(_, meant)| format!("did you mean {meant} "));
    Some(format!("{}{ALLOWED}", meant.unwrap_or_default()))
}

/// The crate of a program with that name, most likely.
fn crate_name(program: Option<OsString>) -> String {
    let program = PathBuf::from(program.unwrap_or_default());
    program.file_name().unwrap_or_default().to_string_lossy().replace('-', "_")
}

/// `env_logger` takes a word that is no level for the name of a crate, and then logs nothing else; a level that it does
/// not know it drops, with a warning on stderr. Neither is what somebody meant.
///
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_is_no_level_says_what_was_meant() {
        let with = |level: &str| of(&Config { log_level: Some(level.to_owned()), ..Config::default() });
        assert_eq!(with("info,handover::site=trace").expect("two filters"), "info,handover::site=trace");
        for (level, says) in [("wran", "did you mean warn? allowed is "), ("", "allowed is "), (",", "allowed is ")] {
            let error = with(level).expect_err(level);
            assert!(error.is_config(), "{error}");
            assert!(error.to_string().starts_with(&format!("log_level is {level:?}, {says}")), "{error}");
        }
    }
}
