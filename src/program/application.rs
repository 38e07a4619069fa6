//! The command line of an application: its own flags beside the server's.

use super::flags::{CommandLine, Parsed, from_process, is_flag_of_the_server};
use super::own_flags::{OwnFlag, OwnSaid};
use crate::{Config, Error};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::str::FromStr;

/// An application's command line: its name and version, and flags of its own beside the server's.
///
/// ```no_run
/// use handover::{Application, Error, Server};
///
/// fn main() -> std::process::ExitCode {
///     let arguments = Application::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
///         .about("says hello")
///         .flag("greeting", "TEXT", "what it says [hello]")
///         .switch("loud", "with an exclamation mark")
///         .from_args();
///     let greeting = arguments.value("greeting").map_or("hello".into(), |text| text.to_string_lossy().into_owned());
///     let mark = if arguments.is_set("loud") { "!" } else { "" };
///     let server = Server::builder().config(arguments.config()).handler(move |_| format!("{greeting}{mark}\n"));
///     handover::exit_code(server.build().and_then(Server::run))
/// }
/// ```
///
/// Its flags stand first in `--help`, a misspelt one is refused with the one that was meant, and `NAME reload --pid-file FILE`
/// is `handover reload` for it. A configuration file has no keys for them.
#[derive(Clone, Debug)]
pub struct Application {
    line: CommandLine,
}

impl Application {
    /// Of that name and version, which `--version` says before the library's. See the example [above](Application).
    pub fn new(name: &str, version: &str) -> Application {
        Application { line: CommandLine::of_application(name, Some(version)) }
    }

    /// What it is for, in a few words behind the version in `--help`.
    pub fn about(mut self, text: &str) -> Application {
        self.line.about = Some(text.to_owned());
        self
    }

    /// A flag `--NAME` that takes a value, which help calls `takes`: `FILE`, `N`. See the example [above](Application).
    ///
    /// # Panics
    /// A name that the server or another flag has, or that has anything but small letters, digits and dashes: the program is
    /// wrong.
    pub fn flag(self, name: &str, takes: &str, help: &str) -> Application {
        self.with(OwnFlag { name: name.to_owned(), takes: Some(takes.to_owned()), help: help.to_owned() })
    }

    /// A flag `--NAME` that takes none. See the example [above](Application).
    ///
    /// # Panics
    /// As [`flag`](Application::flag).
    pub fn switch(self, name: &str, help: &str) -> Application {
        self.with(OwnFlag { name: name.to_owned(), takes: None, help: help.to_owned() })
    }

    fn with(mut self, flag: OwnFlag) -> Application {
        let name = flag.name.as_str();
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = !name.is_empty() && !name.starts_with('-') && name.bytes().all(is_allowed);
        assert!(is_name, "a flag is called {name:?}, allowed are small letters, digits and dashes");
        let is_taken = is_flag_of_the_server(name) || self.line.own.iter().any(|other| other.name == name);
        assert!(!is_taken, "there is a flag --{name} already");
        self.line.own.push(flag);
        self
    }

    /// Reads [`std::env::args_os`], as [`Config::from_args`] does: `--help`, `--version` and `reload` end the process, and so
    /// does a mistake, with one line on stderr. See the example [above](Application).
    pub fn from_args(self) -> Arguments {
        let line = self.line;
        let (config, said) = from_process(&line);
        Arguments { config, said, flags: line.own }
    }

    /// Reads a command line, without the program's name, and neither prints nor exits.
    ///
    /// ```
    /// use handover::{Application, Parsed};
    ///
    /// let application = Application::new("items", "1.2.0").flag("data", "DIR", "where they are kept");
    /// let Parsed::Run(arguments) = application.try_from_args(["--data", "/srv", "-w", "8"].map(Into::into))? else { panic!() };
    /// assert_eq!(arguments.value("data"), Some("/srv".as_ref()));
    /// assert_eq!(arguments.config().workers, 8);
    /// let error = application.try_from_args(["--date=/srv"].map(Into::into)).err().expect("a mistake");
    /// assert_eq!(error.to_string(), "unknown flag --date, did you mean --data?");
    /// # Ok::<(), handover::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Config::try_from_args`], and for a ROOT.
    pub fn try_from_args(&self, args: impl IntoIterator<Item = OsString>) -> Result<Parsed<Arguments>, Error> {
        let (parsed, said) = self.line.parse(args)?;
        let flags = self.line.own.clone();
        Ok(parsed.map(|config| Arguments { config, said, flags }))
    }
}

/// What an application was started with. See the example of [`Application`].
#[derive(Clone, Debug)]
pub struct Arguments {
    config: Config,
    said: OwnSaid,
    flags: Vec<OwnFlag>,
}

impl Arguments {
    /// The server's settings. See the example of [`Application`].
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// The value of a flag of the application's own; of several the last. See the example of [`Application`].
    ///
    /// # Panics
    /// A flag that it has not: the program is wrong. So do the others.
    #[track_caller]
    pub fn value(&self, flag: &str) -> Option<&OsStr> {
        self.values(flag).last()
    }

    /// All values of a flag that may stand several times, in order.
    ///
    /// ```
    /// use handover::{Application, Parsed};
    ///
    /// let application = Application::new("items", "1.2.0").flag("peer", "URL", "may stand several times");
    /// let args = ["--peer=a", "--peer", "b"].map(Into::into);
    /// let Parsed::Run(arguments) = application.try_from_args(args)? else { panic!() };
    /// assert_eq!(arguments.values("peer").collect::<Vec<_>>(), ["a", "b"]);
    /// # Ok::<(), handover::Error>(())
    /// ```
    #[track_caller]
    pub fn values(&self, flag: &str) -> impl Iterator<Item = &OsStr> {
        self.expect(flag);
        self.said.iter().filter(move |(name, _)| name == flag).filter_map(|(_, value)| value.as_deref())
    }

    /// Whether a flag was given; of a switch that is all there is. See the example of [`Application`].
    #[track_caller]
    pub fn is_set(&self, flag: &str) -> bool {
        self.expect(flag);
        self.said.iter().any(|(name, _)| name == flag)
    }

    /// The value of a flag as a number, or whatever else can be read from text; `None` where it was not given.
    ///
    /// ```
    /// use handover::{Application, Parsed};
    ///
    /// let application = Application::new("items", "1.2.0").flag("most", "N", "how many there may be [100]");
    /// let parsed = |value: &str| match application.try_from_args(["--most".into(), value.into()]) {
    ///     Ok(Parsed::Run(arguments)) => arguments.parse::<u16>("most"),
    ///     _ => panic!(),
    /// };
    /// assert_eq!(parsed("7")?, Some(7));
    /// let error = parsed("many").expect_err("no number");
    /// assert_eq!((error.to_string(), error.exit_code()), ("--most is \"many\": invalid digit found in string".into(), 2));
    /// # Ok::<(), handover::Error>(())
    /// ```
    ///
    /// # Errors
    /// A usage error for a value that cannot be read so.
    #[track_caller]
    pub fn parse<T>(&self, flag: &str) -> Result<Option<T>, Error>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let Some(value) = self.value(flag) else { return Ok(None) };
        let Some(text) = value.to_str() else {
            return Err(Error::usage(format_args!("--{flag} is {value:?}, which is not UTF-8")));
        };
        text.parse().map(Some).map_err(|error| Error::usage(format_args!("--{flag} is {text:?}: {error}")))
    }

    #[track_caller]
    fn expect(&self, flag: &str) {
        assert!(self.flags.iter().any(|own| own.name == flag), "the application has no flag --{flag}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Application {
        Application::new("items", "1.2.0")
            .about("keeps items")
            .flag("data", "DIR", "where they are kept, in a text that is so long that it needs another line")
            .switch("read-only", "take none")
    }

    fn parsed(line: &str) -> Result<Parsed<Arguments>, Error> {
        items().try_from_args(line.split_whitespace().map(OsString::from))
    }

    #[track_caller]
    fn refused(line: &str) -> String {
        let error = parsed(line).err().unwrap_or_else(|| panic!("{line} was taken"));
        assert!(error.is_usage(), "{error}");
        error.to_string()
    }

    #[test]
    fn its_own_flags_stand_beside_the_servers() {
        let Ok(Parsed::Run(arguments)) = parsed("-w 8 --data /a --read-only --data=/b --listen 127.0.0.1:0") else {
            panic!("not taken")
        };
        let config = arguments.config();
        assert_eq!((config.workers, config.listen.len(), config.announce), (8, 1, true));
        assert_eq!(arguments.value("data"), Some("/b".as_ref()));
        assert!(arguments.is_set("data") && arguments.is_set("read-only"));
        let Ok(Parsed::Run(arguments)) = parsed("") else { panic!("not taken") };
        assert!(arguments.value("data").is_none() && !arguments.is_set("read-only"));
    }

    #[test]
    fn mistakes_say_what_would_help() {
        for (line, says) in [
            ("--dat /a", "unknown flag --dat, did you mean --data?"),
            ("--readonly", "unknown flag --readonly, did you mean --read-only?"),
            ("--lisen x", "unknown flag --lisen, did you mean --listen?"),
            ("--data", "--data needs a value: --data DIR"),
            ("--data --read-only", "--data needs a value: --data DIR (\"--read-only\" is a flag)"),
            ("--workers --data", "--workers needs a value: --workers N (\"--data\" is a flag)"),
            ("--read-only=yes", "--read-only takes no value, but \"yes\" was given"),
            ("x", "unexpected argument \"x\": items takes only flags"),
            ("--listing", "--listing is not for items, which decides itself what it serves"),
        ] {
            assert_eq!(refused(line), says, "{line}");
        }
    }

    #[test]
    fn help_and_version_say_whose_they_are() {
        let (Ok(Parsed::Help(help)), Ok(Parsed::Version(version))) = (parsed("--help"), parsed("--data x -V")) else {
            panic!("neither")
        };
        let library = env!("CARGO_PKG_VERSION");
        assert_eq!(version, format!("items 1.2.0, built on handover {library}\n"));
        let begins = format!(
            "\
items 1.2.0, built on handover {library}: keeps items

Usage: items [OPTIONS]
       items reload ... (it has a --help of its own)

Of items
      --data DIR           where they are kept, in a text that is so long that
                           it needs another line
      --read-only          take none

Serving
"
        );
        assert!(help.starts_with(&begins), "{help}");
        assert!(!help.contains("ROOT") && help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }

    #[test]
    fn a_flag_that_is_there_already_is_a_mistake_of_the_program() {
        for name in ["listen", "no-status-routes", "data", "Data", "", "-x", "a b"] {
            let added = std::panic::catch_unwind(|| items().switch(name, ""));
            assert!(added.is_err(), "{name:?}");
        }
        let asked = std::panic::catch_unwind(|| match parsed("") {
            Ok(Parsed::Run(arguments)) => arguments.is_set("date"),
            _ => true,
        });
        assert!(asked.is_err());
    }
}
