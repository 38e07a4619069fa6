//! The command line: arguments in, [`Config`] out.
//!
//! The flags and what `--help` says of them come from the table of settings, which the configuration file reads too. It
//! is written by hand on top of `lexopt` because the errors are meant for people: each names the flag, what was wrong, and what would help.

use super::file;
use super::own_flags::{OwnFlag, OwnSaid};
use super::reload::reload_command_of;
use super::settings::{Group, Only, SETTINGS, Setting, meant};
use super::value::{Given, Value, ValueError};
use crate::config::{on_one_line, size_text};
use crate::lifecycle::way_back;
use crate::logging::{self, early};
use crate::sys::limits::make_room_for_stack;
use crate::{Config, Error};
use lexopt::{Arg, Parser};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

impl Config {
    /// The program's flags, for an application built on the library: `--listen`, `--workers`, `--log-file`, the
    /// limits, `--config`, `--help` and the rest. A ROOT is refused, since the application decides what it serves, and
    /// so are the keys for it in a configuration file. Flags win over the file.
    ///
    /// It reads [`std::env::args_os`]. `--help` and `--version` print to stdout and exit with 0; a mistake prints
    /// one line to stderr and exits with 2, or with 78 if it is in the configuration file. Where the first argument is
    /// `reload` it does what `handover reload` does, for a server of this program, and exits.
    /// [`announce`](Config::announce) is set.
    ///
    /// An application with a version or flags of its own has [`Application`](crate::Application).
    ///
    /// ```no_run
    /// use handover::{Config, Server};
    ///
    /// fn main() -> std::process::ExitCode {
    ///     let server = Server::builder().config(Config::from_args()).handler(|_| "hello world").build();
    ///     handover::exit_code(server.and_then(Server::run))
    /// }
    /// ```
    pub fn from_args() -> Config {
        from_process(&CommandLine::of_application(&program_name(), None)).0
    }

    /// [`from_args`](Config::from_args) with the program's `[ROOT]`: what stands there, or in the configuration file, is
    /// in [`root`](Config::root) and [`site`](Config::site), and nobody has looked yet whether it exists.
    pub fn from_args_with_root() -> Config {
        from_process(&CommandLine::of_program(&program_name())).0
    }

    /// Reads a command line, `[ROOT]` included, and neither prints nor exits. The program's name is not part of
    /// `args`.
    ///
    /// ```
    /// use handover::{Config, Parsed};
    ///
    /// let Parsed::Run(config) = Config::try_from_args(["-w", "8", "./public"].map(Into::into))? else { panic!() };
    /// assert_eq!(config.workers, 8);
    /// assert_eq!(config.root.as_deref(), Some("./public".as_ref()));
    /// # Ok::<(), handover::Error>(())
    /// ```
    ///
    /// # Errors
    /// A usage error for an unknown flag, a missing or malformed value, and a second ROOT; a configuration error for
    /// what is wrong with the configuration file.
    pub fn try_from_args(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, Error> {
        CommandLine::of_program(PROGRAM).parse(args).map(|(parsed, _)| parsed)
    }
}

/// What a command line asks for. See the examples of [`Config::try_from_args`] and
/// [`Application::try_from_args`](crate::Application::try_from_args).
#[derive(Clone, Debug)]
pub enum Parsed<T = Config> {
    /// To run with these settings.
    Run(T),
    /// `--help`: the text to print.
    Help(String),
    /// `--version`: the line to print.
    Version(String),
}

impl<T> Parsed<T> {
    /// With other settings.
    pub(super) fn map<U>(self, settings: impl FnOnce(T) -> U) -> Parsed<U> {
        match self {
            Parsed::Run(own) => Parsed::Run(settings(own)),
            Parsed::Help(text) => Parsed::Help(text),
            Parsed::Version(line) => Parsed::Version(line),
        }
    }
}

const PROGRAM: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whose command line it is, and what may stand in it.
#[derive(Clone, Debug)]
pub struct CommandLine {
    name: String,
    /// The application's own, if it says one.
    version: Option<String>,
    pub(super) about: Option<String>,
    root: Root,
    pub(super) own: Vec<OwnFlag>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Optional,
    Refused,
}

/// What was said, to be said once more on top of a configuration file.
enum Said {
    Takes(&'static Setting, OsString),
    Switches(&'static Setting),
    Root(PathBuf),
}

impl Said {
    fn apply(&self, config: &mut Config) -> Result<(), Error> {
        match self {
            Said::Takes(setting, raw) => {
                let flag = setting.name;
                let value = Value { given: Given::Argument(raw), base: None };
                let wrong = |wrong| match wrong {
                    ValueError::Value(what) => Error::usage(format_args!("--{flag} is {raw:?}, {what}")),
                    ValueError::Whole(what) => Error::usage(format_args!("--{flag}: {what}")),
                };
                overrule(config, setting);
                setting.apply(config, &value).map_err(wrong)
            }
            Said::Switches(setting) => {
                overrule(config, setting);
                setting.switch(config);
                Ok(())
            }
            Said::Root(root) => {
                config.overrule("root");
                config.root = Some(root.clone());
                Ok(())
            }
        }
    }
}

fn overrule(config: &mut Config, setting: &Setting) {
    if let Some(key) = setting.key() {
        config.overrule(&key);
    }
}

/// The row of a long flag.
fn find(long: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.flag().is_some_and(|flag| flag == long))
}

fn find_short(short: char) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.short == Some(short))
}

/// Whether an application can have no flag of that name.
pub fn is_flag_of_the_server(long: &str) -> bool {
    find(long).is_some()
}

impl CommandLine {
    /// Of the program, or of an application that takes a ROOT as well.
    fn of_program(name: &str) -> CommandLine {
        CommandLine { root: Root::Optional, ..CommandLine::of_application(name, None) }
    }

    /// Of an application, without flags of its own so far.
    pub(super) fn of_application(name: &str, version: Option<&str>) -> CommandLine {
        CommandLine {
            name: name.to_owned(),
            version: version.map(str::to_owned),
            about: None,
            root: Root::Refused,
            own: Vec::new(),
        }
    }

    /// What it asks for, and what was said of the application's own flags.
    pub(super) fn parse(&self, args: impl IntoIterator<Item = OsString>) -> Result<(Parsed, OwnSaid), Error> {
        let CommandLine { name, root, .. } = self;
        let mut config = Config { announce: true, ..Config::default() };
        let mut file: Option<PathBuf> = None;
        let (mut all_said, mut own_said, mut check_bus) = (Vec::new(), Vec::new(), false);
        let mut parser = Parser::from_args(args);
        while let Some(argument) = parser.next().map_err(unexpected)? {
            let setting = match argument {
                Arg::Long(long) => match self.own.iter().find(|own| own.name == long) {
                    Some(own) => {
                        let takes = own.takes.as_deref();
                        let value = takes.map(|takes| self.value(&mut parser, &own.name, takes)).transpose()?;
                        own_said.push((own.name.clone(), value));
                        continue;
                    }
                    None => find(long).ok_or_else(|| self.unknown(long))?,
                },
                Arg::Short(short) => find_short(short)
                    .ok_or_else(|| Error::usage(format_args!("unknown flag -{}", on_one_line(&short.to_string()))))?,
                Arg::Value(value) => {
                    all_said.push(take_root(&mut config, *root, name, value.into())?);
                    continue;
                }
            };
            if setting.is_of_site() && *root == Root::Refused {
                return Err(Error::usage(format_args!(
                    "--{} is not for {name}, which decides itself what it serves",
                    setting.name
                )));
            }
            let value = match setting.takes() {
                Some(takes) => Some(self.value(&mut parser, setting.name, takes)?),
                None => None,
            };
            if setting.only() == Some(Only::Check)
                && let Some(more) = parser.optional_value()
            {
                check_bus = more == "bus";
                if !check_bus {
                    let what = "--check takes no value but bus, which connects to that as well";
                    return Err(Error::usage(format_args!("{what}; {more:?} was given")));
                }
            }
            let said = match (setting.only(), value) {
                (Some(Only::Help), _) => return Ok((Parsed::Help(self.help()), own_said)),
                (Some(Only::Version), _) => return Ok((Parsed::Version(self.version() + "\n"), own_said)),
                (Some(Only::Config), Some(path)) => {
                    if let Some(first) = file.replace(path.into()) {
                        return Err(Error::usage(format_args!(
                            "--config stands twice, there is one file: first it is {first:?}"
                        )));
                    }
                    continue;
                }
                (_, Some(value)) => Said::Takes(setting, value),
                (_, None) => Said::Switches(setting),
            };
            said.apply(&mut config)?;
            all_said.push(said);
        }
        config.check_bus = check_bus;
        let Some(file) = file else { return Ok((Parsed::Run(config), own_said)) };
        // Only now, so that a wrong flag is the first thing to hear of, and `--help` needs no file that is right.
        let application = (*root == Root::Refused).then_some(name.as_str());
        let mut from_file = file::load(&file, application)?;
        (from_file.announce, from_file.check_bus) = (true, check_bus);
        if !config.listen.is_empty() {
            from_file.listen.clear();
        }
        for said in &all_said {
            said.apply(&mut from_file)?;
        }
        Ok((Parsed::Run(from_file), own_said))
    }

    /// The value of a flag.
    fn value(&self, parser: &mut Parser, flag: &str, takes: &str) -> Result<OsString, Error> {
        let missing = |note: String| Error::usage(format_args!("--{flag} needs a value: --{flag} {takes}{note}"));
        let raw = match parser.optional_value() {
            Some(attached) => attached,
            // `--log-file --check` would otherwise log to a file of that name.
            None => match parser.value() {
                Ok(next) if self.is_flag(&next) => return Err(missing(format!(" ({next:?} is a flag)"))),
                Ok(next) => next,
                Err(_) => return Err(missing(String::new())),
            },
        };
        if raw.is_empty() { Err(missing(String::new())) } else { Ok(raw) }
    }

    fn is_flag(&self, argument: &OsString) -> bool {
        let Some(text) = argument.to_str() else { return false };
        let is_known = |long: &str| find(long).is_some() || self.own.iter().any(|own| own.name == long);
        match (text.strip_prefix("--"), text.as_bytes()) {
            (Some(long), _) => long.split('=').next().is_some_and(is_known),
            (None, &[b'-', short]) => find_short(short.into()).is_some(),
            _ => false,
        }
    }

    fn unknown(&self, long: &str) -> Error {
        let flags: Vec<String> = SETTINGS.iter().filter_map(Setting::flag).collect();
        let own = self.own.iter().map(|own| own.name.as_str());
        let known: Vec<&str> = own.chain(flags.iter().map(String::as_str)).collect();
        let hint = meant(long, &known);
        let hint = hint.map(|flag| format!(", did you mean --{flag}?")).unwrap_or_default();
        Error::usage(format_args!("unknown flag --{}{hint}", on_one_line(long)))
    }
}

fn take_root(config: &mut Config, root: Root, name: &str, value: PathBuf) -> Result<Said, Error> {
    if root == Root::Refused {
        return Err(Error::usage(format_args!("unexpected argument {value:?}: {name} takes only flags")));
    }
    if let Some(first) = &config.root {
        return Err(Error::usage(format_args!("unexpected argument {value:?}: ROOT is already {first:?}")));
    }
    config.root = Some(value.clone());
    Ok(Said::Root(value))
}

fn unexpected(error: lexopt::Error) -> Error {
    match error {
        lexopt::Error::UnexpectedValue { option, value } => {
            Error::usage(format_args!("{option} takes no value, but {value:?} was given"))
        }
        other => Error::usage(format_args!("{}", on_one_line(&other.to_string()))),
    }
}

impl CommandLine {
    fn version(&self) -> String {
        match (self.name.as_str(), &self.version) {
            (PROGRAM, None) => format!("{PROGRAM} {VERSION}"),
            (name, Some(version)) => format!("{name} {version}, built on {PROGRAM} {VERSION}"),
            (name, None) => format!("{name}, built on {PROGRAM} {VERSION}"),
        }
    }

    /// One screen, and the application's own flags. The flags, their texts and defaults come from the table.
    fn help(&self) -> String {
        let (name, root) = (&self.name, self.root);
        let (title, usage, root_line, example) = match root {
            Root::Optional => (
                ": an HTTP/1.1 server; a stop and a reload lose no request".to_owned(),
                "[OPTIONS] [ROOT]\n       handover reload | token | top | passwd ... (each has a --help of its own)"
                    .to_owned(),
                "  ROOT                     directory to serve; without it, a welcome site\n".to_owned(),
                " ./public",
            ),
            Root::Refused => {
                let own = self.own_options();
                let own = if own.is_empty() { own } else { format!("\nOf {name}\n{own}") };
                let about = self.about.as_ref().map(|about| format!(": {about}")).unwrap_or_default();
                (about, format!("[OPTIONS]\n       {name} reload ... (it has a --help of its own)"), own, "")
            }
        };
        format!(
            "\
{version}{title}

Usage: {name} {usage}
{root_line}
Serving
{serving}
Stopping and reloading
{reloading}
Limits
{limits}
{about}
Defaults stand in brackets. SECS may have decimals. RUST_LOG wins over LEVEL.

Signals     TERM, INT (Ctrl-C): stop gracefully, a second one at once
            HUP, USR2: reload  QUIT: stop at once  USR1: open the log anew
Exit codes  0 stopped, nothing lost    3 a deadline cut requests (log)
            1 failed while running     4 stopped at once (second signal, QUIT)
            2 wrong usage             78 bad configuration
            69 cannot listen, or the pid file is a running server's

Examples
  {name}{example}
  {name} -l 127.0.0.1:8080 -l '[::1]:8080' -w 8{example}
  {name} -l unix:/run/{name}.sock --stop-deadline 30{example}
  {name} --check -c /etc/{name}.toml
",
            version = self.version(),
            serving = options(root, Group::Serving),
            reloading = options(root, Group::Reloading),
            limits = options(root, Group::Limits),
            about = options(root, Group::About),
        )
    }

    fn own_options(&self) -> String {
        let line = |own: &OwnFlag| {
            let takes = own.takes.as_ref().map(|takes| format!(" {takes}")).unwrap_or_default();
            option(&format!("      --{}{takes}", own.name), &own.help, None)
        };
        self.own.iter().map(line).collect()
    }
}

/// Where the texts of flags begin, and how wide a line may be.
const TEXT_COLUMN: usize = 27;
const WIDTH: usize = 80;

/// The flags of a group, each with its text and default.
fn options(root: Root, group: Group) -> String {
    let mut all = String::new();
    let rows = SETTINGS.iter().filter(|setting| setting.group == group);
    for setting in rows.filter(|setting| root == Root::Optional || !setting.is_of_site()) {
        let (Some(flag), Some(help)) = (setting.flag(), setting.help) else { continue };
        let short = setting.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
        let takes = setting.takes().map(|takes| format!(" {takes}")).unwrap_or_default();
        // A switch is off; a default stays together.
        let default = Some(setting.default()).filter(|default| setting.takes().is_some() && !default.is_empty());
        let default = default.map(|default| format!("[{default}]"));
        all += &option(&format!("  {short}--{flag}{takes}"), help, default.as_deref());
    }
    all
}

/// The lines of a flag: itself, and what it does.
fn option(flag: &str, help: &str, default: Option<&str>) -> String {
    let (mut all, mut line) = (String::new(), flag.to_owned());
    let behind = if line.len() < TEXT_COLUMN { TEXT_COLUMN } else { line.len() + 2 };
    line.push_str(&" ".repeat(behind - line.len()));
    let mut is_first = true;
    for word in help.split(' ').chain(default) {
        if !is_first && line.len() + 1 + word.len() > WIDTH {
            all = all + &line + "\n";
            line = " ".repeat(TEXT_COLUMN);
            is_first = true;
        }
        line = line + if is_first { "" } else { " " } + word;
        is_first = false;
    }
    all + &line + "\n"
}

/// The file name that the program was called by: what messages begin with.
pub fn program_name() -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    Path::new(&program).file_name().unwrap_or(PROGRAM.as_ref()).to_string_lossy().into_owned()
}

/// What the thread that starts everything takes of its stack at most, and as much again.
const MAIN_STACK: u64 = 128 << 10;

/// Reads this process's own command line, and says here what only asks for a text, or is wrong. `reload` of an application
/// is done here too.
pub fn from_process(line: &CommandLine) -> (Config, OwnSaid) {
    require_stack();
    read_own(line)
}

/// Ends the process where its first thread may not have the stack that a start takes.
///
/// It is asked before there is anything on that stack; what it does itself takes a few kilobytes.
#[inline(never)]
pub fn require_stack() {
    if let Err(bytes) = make_room_for_stack(MAIN_STACK) {
        let (has, needs) = (size_text(bytes), size_text(MAIN_STACK));
        early::last_words(
            &program_name(),
            format_args!("the main thread may have a stack of {has}, and needs {needs} (see ulimit -s)"),
        );
        process::exit(1);
    }
}

#[inline(never)]
fn read_own(line: &CommandLine) -> (Config, OwnSaid) {
    if line.root == Root::Refused
        && let Some(exit_code) = reload_command_of(&program_name(), std::env::args_os())
    {
        process::exit(exit_code.into());
    }
    logging::begin();
    let mut args = std::env::args_os();
    args.next();
    // A closed stdout is no reason to fail: whoever closed it does not want the text.
    match line.parse(args) {
        Ok((Parsed::Run(config), said)) => (config, said),
        Ok((Parsed::Help(text) | Parsed::Version(text), _)) => {
            let _ = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
            process::exit(0);
        }
        Err(error) => {
            way_back::go(&error.to_string());
            let hint = if error.is_usage() { " (try --help)" } else { "" };
            early::last_words(&program_name(), format_args!("{error}{hint}"));
            process::exit(error.exit_code().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReloadMode;
    use crate::config::{DEFAULT_STOP_DEADLINE, DEFAULT_WORKERS};
    use std::os::unix::ffi::OsStringExt;
    use std::time::Duration;

    fn parsed(line: &str) -> Result<Parsed, Error> {
        Config::try_from_args(line.split_whitespace().map(OsString::from))
    }

    #[track_caller]
    fn config(line: &str) -> Config {
        match parsed(line) {
            Ok(Parsed::Run(config)) => config,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[track_caller]
    fn refused(line: &str) -> String {
        let error = parsed(line).expect_err(line);
        assert!(error.is_usage(), "{line}: {error}");
        let message = error.to_string();
        assert!(!message.contains('\n'), "{line}: more than one line: {message}");
        message
    }

    #[test]
    fn nothing_said_is_the_default() {
        let config = config("");
        assert!(config.announce && config.status_routes && config.signals && !config.check);
        assert!(config.listen.is_empty() && config.root.is_none() && config.log_file.is_none());
        assert_eq!(config.workers, DEFAULT_WORKERS);
        assert_eq!(config.stop_deadline, DEFAULT_STOP_DEADLINE);
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        let config = config(
            "-l 127.0.0.1:0 --listen=[::1]:0 -lunix:/tmp/s -w8 --stop-deadline 2.5 --lame-duck 0 \
             --max-connections 2000 --log-file log --no-status-routes --check --max-body 10M --head-timeout .5 \
             --idle-timeout 7 --write-timeout 8 --queue-timeout 0.001 --pid-file pid --reload exec \
             --reload-probation 0 --reload-deadline 9 --exec-stall 0.5 public",
        );
        let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["127.0.0.1:0", "[::1]:0", "unix:/tmp/s"]);
        assert_eq!(config.workers, 8);
        assert_eq!(config.stop_deadline, Duration::from_millis(2500));
        assert_eq!(config.lame_duck, Duration::ZERO);
        assert_eq!(config.limits.connections, 2000);
        assert_eq!(config.log_file, Some("log".into()));
        assert!(!config.status_routes && config.check);
        assert_eq!(config.limits.body_size, 10 << 20);
        assert_eq!(config.limits.head_timeout, Duration::from_millis(500));
        assert_eq!(config.limits.idle_timeout, Duration::from_secs(7));
        assert_eq!(config.limits.write_timeout, Duration::from_secs(8));
        assert_eq!(config.limits.queue_timeout, Duration::from_millis(1));
        assert_eq!(config.pid_file, Some("pid".into()));
        assert_eq!(config.reload, ReloadMode::Exec);
        assert_eq!(config.reload_probation, Duration::ZERO);
        assert_eq!(config.reload_deadline, Duration::from_secs(9));
        assert_eq!(config.exec_stall, Duration::from_millis(500));
        assert_eq!(config.root, Some("public".into()));
    }

    #[test]
    fn reload_modes() {
        for (text, mode) in [("auto", ReloadMode::Auto), ("overlap", ReloadMode::Overlap), ("exec", ReloadMode::Exec)] {
            assert_eq!(config(&format!("--reload {text}")).reload, mode);
        }
        assert_eq!(refused("--reload never"), "--reload is \"never\", allowed is auto, overlap or exec");
    }

    #[test]
    fn there_is_one_configuration_file_and_it_is_read_last() {
        assert!(refused("-c a.toml --config=b.toml").starts_with("--config stands twice"));
        assert_eq!(refused("-c"), "--config needs a value: --config FILE");
        // The flags are looked at first, and what only asks for help needs no file.
        assert_eq!(refused("-c /nowhere.toml -w 0"), refused("-w 0"));
        assert!(matches!(parsed("-c /nowhere.toml -h"), Ok(Parsed::Help(_))));
        let error = parsed("-c /nowhere.toml").expect_err("no such file");
        assert!(error.is_config() && error.to_string().contains("\"/nowhere.toml\""), "{error}");
    }

    #[test]
    fn root_may_look_like_a_flag_after_two_dashes() {
        assert_eq!(config("-- --check").root, Some("--check".into()));
    }

    #[test]
    fn unknown_flags_name_the_one_that_was_meant() {
        for (typed, meant) in [
            ("--lisen", "listen"),
            ("--worker", "workers"),
            ("--stop", "stop-deadline"),
            ("--max-conections", "max-connections"),
            ("--port", "listen"),
            ("--logfile", "log-file"),
        ] {
            assert_eq!(refused(typed), format!("unknown flag {typed}, did you mean --{meant}?"));
        }
        assert_eq!(refused("--frobnicate"), "unknown flag --frobnicate");
        assert_eq!(refused("-x"), "unknown flag -x");
        assert_eq!(refused("--="), "unknown flag --");
    }

    #[test]
    fn numbers_out_of_range_or_not_numbers_say_what_is_allowed() {
        assert_eq!(refused("-w 0"), "--workers is \"0\", allowed is a whole number, 1 to 1024");
        for value in ["1025", "-1", "+4", "four", "4.0", "0x4", "99999999999999999999999"] {
            assert!(refused(&format!("--workers {value}")).starts_with("--workers is"), "{value}");
        }
        assert!(refused("--max-connections 2000000").ends_with("1 to 1048576"));
    }

    #[test]
    fn seconds_are_plain_decimals_up_to_a_year() {
        for value in ["-1", "+1", "NaN", "inf", "1e3", "1e400", "31536001", "10s", ".", "1.2.3", "１"] {
            let message = refused(&format!("--stop-deadline {value}"));
            assert!(message.ends_with("allowed are seconds, 0 to 31536000"), "{value}: {message}");
        }
        assert_eq!(config("--stop-deadline 31536000").stop_deadline, Duration::from_secs(31_536_000));
        assert_eq!(config("--stop-deadline 0").stop_deadline, Duration::ZERO);
        assert!(refused("--idle-timeout 0").ends_with("0.001 to 31536000"));
    }

    #[test]
    fn sizes_take_a_unit() {
        for (text, bytes) in [("0", 0), ("1000", 1000), ("64k", 65_536), ("1M", 1 << 20), ("2G", 2 << 30)] {
            assert_eq!(config(&format!("--max-body {text}")).limits.body_size, bytes, "{text}");
        }
        for value in ["K", "1T", "-1M", "+1", "1.5M", "99999999999999999999", "18446744073709551615K", "1MB", "é"] {
            assert!(refused(&format!("--max-body {value}")).starts_with("--max-body is"), "{value}");
        }
    }

    #[test]
    fn a_missing_value_is_not_the_next_flag() {
        assert_eq!(refused("--workers"), "--workers needs a value: --workers N");
        assert_eq!(refused("--log-file --check"), "--log-file needs a value: --log-file FILE (\"--check\" is a flag)");
        assert!(refused("-l -w=4").starts_with("--listen"));
        assert_eq!(refused("--log-file="), "--log-file needs a value: --log-file FILE");
        assert_eq!(config("--log-file=--check").log_file, Some("--check".into()));
    }

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        for wrong in ["redis://me:secret@host", "redis://:secret@host:0", "http://me:secret@host"] {
            let error = refused(&format!("--bus {wrong}"));
            assert!(error.starts_with("--bus: ") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_switch_takes_no_value() {
        assert_eq!(refused("--listing=yes"), "--listing takes no value, but \"yes\" was given");
        assert!(refused("--check=yes").starts_with("--check takes no value but bus"));
        assert!(!config("--check").check_bus && config("--check=bus").check_bus && config("--check=bus").check);
    }

    #[test]
    fn a_bad_address_names_the_flag() {
        assert!(refused("--listen nowhere").starts_with("--listen: "));
        let raw = OsString::from_vec(b"unix:/\xff".to_vec());
        let error = Config::try_from_args(["-l".into(), raw]).expect_err("not UTF-8");
        assert!(error.to_string().ends_with("which is not UTF-8"), "{error}");
    }

    #[test]
    fn there_is_one_root_or_none() {
        assert_eq!(refused("a b"), "unexpected argument \"b\": ROOT is already \"a\"");
        let error = CommandLine::of_application("lab", None).parse(["a".into()]).expect_err("no ROOT");
        assert_eq!(error.to_string(), "unexpected argument \"a\": lab takes only flags");
        let error = CommandLine::of_application("lab", None).parse(["--listing".into()]).expect_err("no listing");
        assert_eq!(error.to_string(), "--listing is not for lab, which decides itself what it serves");
    }

    #[test]
    fn arguments_that_are_not_utf8_or_have_newlines_stay_one_line() {
        for raw in [&b"--\xff\n"[..], b"-\xff", b"-\n", b"--check=\n"] {
            let error = Config::try_from_args([OsString::from_vec(raw.to_vec())]).expect_err("no such flag");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn help_shows_every_flag_on_one_screen() {
        let Ok(Parsed::Help(text)) = parsed("-w 4 --help --nonsense") else { panic!("no help") };
        for setting in SETTINGS {
            let Some(flag) = setting.flag() else { continue };
            let shown = match setting.takes() {
                Some(takes) => format!("--{flag} {takes} "),
                None => format!("--{flag} "),
            };
            assert!(text.contains(&shown), "{shown} is not in the help");
        }
        assert!(text.lines().count() <= 60, "{} lines", text.lines().count());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "a line is too wide");
        for line in text
            .lines()
            .chain(CommandLine::of_application("lab", None).help().lines())
            .filter(|line| line.trim().starts_with('-'))
        {
            let begin = line.len() - line.trim_start().len();
            let is_long = line.trim().starts_with("--");
            assert_eq!(begin, if is_long { 6 } else { 2 }, "an indentation was lost: {line}");
        }
        let application = CommandLine::of_application("lab", None).help();
        assert!(
            !application.contains("ROOT") && !application.contains("--listing") && !application.contains("./public"),
            "{application}"
        );
    }

    #[test]
    fn version_names_the_library_in_an_application() {
        let Ok(Parsed::Version(text)) = parsed("-V") else { panic!("no version") };
        assert_eq!(text, format!("handover {VERSION}\n"));
        assert_eq!(CommandLine::of_application("lab", None).version(), format!("lab, built on handover {VERSION}"));
    }
}
