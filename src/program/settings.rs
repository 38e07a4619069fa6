//! Every setting, one row each: its names, what it may be and where it goes, what `--help` and `--check` say of it. The
//! flags, the configuration file and both texts follow from this table; README.md and examples/handover.toml are held
//! to it by the tests below. Its default is what `Config::default()` has.

use super::value::{Value, ValueError};
use crate::closest::closest;
use crate::config::push::{MAX_MESSAGE, PUSH_MEMORY};
use crate::config::{
    BODY_RATE, BUFFERED_BODY, BUS_LENGTH, BusDown, Config, DEFAULT_LISTEN, HEAD_SIZE, HEADER_COUNT, LogFormat,
    MAX_CONNECTIONS, MAX_WORKERS, ReloadMode, RequestLogFormat, StatusAccess, WORKER_STACK, size_text,
};
use crate::logging::filters;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// The table. `--help` shows the flags of a group in this order.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "config",
        short: Some('c'),
        group: Group::Serving,
        help: Some("read settings from this TOML file; flags win over it"),
        kind: Kind::Only(Only::Config),
        ..ROW
    },
    Setting {
        name: "listen",
        short: Some('l'),
        group: Group::Serving,
        help: Some("HOST:PORT, [V6]:PORT or unix:PATH; may stand several times; port 0 takes a free one"),
        unset: DEFAULT_LISTEN,
        elsewhere: &["address", "bind", "host", "port"],
        kind: Kind::Addresses,
        ..ROW
    },
    Setting {
        name: "workers",
        short: Some('w'),
        group: Group::Serving,
        help: Some("threads that run handlers"),
        check: Some(("workers", "{}")),
        elsewhere: &["threads"],
        kind: Kind::Number(|config| &mut config.workers, 1..=MAX_WORKERS),
        ..ROW
    },
    Setting {
        name: "worker-stack",
        group: Group::Serving,
        check: Some(("workers", ", stack {} each")),
        kind: Kind::Room(|config| &mut config.worker_stack, WORKER_STACK),
        ..ROW
    },
    Setting {
        name: "listing",
        group: Group::Serving,
        help: Some("show what is in a directory without an index"),
        kind: Kind::On(|config| &mut config.site.root.listing),
        ..ROW
    },
    Setting {
        name: "status-routes",
        group: Group::Serving,
        help: Some("answer nothing below /-/: ready, status, metrics"),
        // Who writes a key like the flag.
        elsewhere: &["no-status-routes"],
        kind: Kind::Off(|config| &mut config.status_routes),
        ..ROW
    },
    Setting {
        name: "status",
        group: Group::Serving,
        check: Some(("status", "/-/status and /-/metrics for {}")),
        kind: Kind::Status,
        ..ROW
    },
    Setting {
        name: "status-token-file",
        check: Some(("status", ", and who has the token in {}")),
        kind: Kind::Path(|config| &mut config.status_token_file),
        ..ROW
    },
    Setting {
        name: "user",
        group: Group::Serving,
        help: Some("bind as root, then serve as this user"),
        check: Some(("user", "{}")),
        unset: "who starts it",
        kind: Kind::Name(|config| &mut config.user),
        ..ROW
    },
    Setting {
        name: "group",
        check: Some(("user", ", group {}")),
        unset: "the user's own",
        kind: Kind::Name(|config| &mut config.group),
        ..ROW
    },
    Setting {
        name: "log-file",
        group: Group::Serving,
        help: Some("append the log to FILE; USR1 opens it anew"),
        check: Some(("log file", "{}")),
        unset: "stderr",
        kind: Kind::Path(|config| &mut config.log_file),
        ..ROW
    },
    Setting {
        name: "log-level",
        group: Group::Serving,
        help: Some("off, error, warn, info, debug, trace"),
        check: Some(("log", "{}")),
        elsewhere: &["verbosity", "loglevel"],
        kind: Kind::Level,
        ..ROW
    },
    Setting { name: "log-format", group: Group::Serving, check: Some(("log", ", {}")), kind: Kind::LogFormat, ..ROW },
    Setting {
        name: "access-log",
        group: Group::Serving,
        help: Some("a line for each request to FILE, or - for stdout"),
        check: Some(("access log", "{}")),
        kind: Kind::PathOrStdout(|config| &mut config.access_log),
        ..ROW
    },
    Setting { name: "access-log-format", group: Group::Serving, kind: Kind::Format, ..ROW },
    Setting {
        name: "pid-file",
        group: Group::Serving,
        help: Some("write the process id to FILE"),
        check: Some(("pid file", "{}")),
        kind: Kind::Path(|config| &mut config.pid_file),
        ..ROW
    },
    Setting {
        name: "history-file",
        group: Group::Serving,
        help: Some("a stop writes there what push keeps, and the next start reads it"),
        kind: Kind::Path(|config| &mut config.push.history_file),
        ..ROW
    },
    Setting {
        name: "bus",
        group: Group::Serving,
        help: Some("share messages with other hosts through this Redis"),
        check: Some(("bus", "{}")),
        elsewhere: &["redis", "redis-url", "bus-url", "broker"],
        kind: Kind::Url,
        ..ROW
    },
    Setting {
        name: "bus-prefix",
        check: Some(("bus", ", keys {}")),
        unset: "handover",
        kind: Kind::Word(|config| &mut config.push.bus.prefix),
        ..ROW
    },
    Setting { name: "bus-max-length", kind: Kind::Number(|config| &mut config.push.bus.max_length, BUS_LENGTH), ..ROW },
    Setting { name: "bus-down", kind: Kind::Down, ..ROW },
    Setting { name: "bus-password-file", kind: Kind::Path(|config| &mut config.push.bus.password_file), ..ROW },
    Setting {
        name: "landlock",
        group: Group::Serving,
        elsewhere: &["sandbox"],
        kind: Kind::Off(|config| &mut config.landlock),
        ..ROW
    },
    Setting {
        name: "stop-deadline",
        group: Group::Reloading,
        help: Some("wait that long for requests under way"),
        check: Some(("stop", "deadline {} s")),
        elsewhere: &["graceful-timeout"],
        kind: Kind::Seconds(|config| &mut config.stop_deadline, FROM_ZERO),
        ..ROW
    },
    Setting {
        name: "lame-duck",
        group: Group::Reloading,
        help: Some("before that, serve on with /-/ready at 503"),
        check: Some(("stop", ", lame duck {} s")),
        kind: Kind::Seconds(|config| &mut config.lame_duck, FROM_ZERO),
        ..ROW
    },
    Setting {
        name: "reload",
        group: Group::Reloading,
        help: Some("overlap (two processes) or exec (one); auto is exec unless there is NOTIFY_SOCKET"),
        check: Some(("reload", "{}")),
        kind: Kind::Mode,
        ..ROW
    },
    Setting {
        name: "reload-probation",
        group: Group::Reloading,
        help: Some("the old process could still go on"),
        check: Some(("reload", ", probation {} s")),
        kind: Kind::Seconds(|config| &mut config.reload_probation, FROM_ZERO),
        ..ROW
    },
    Setting {
        name: "reload-deadline",
        group: Group::Reloading,
        help: Some("what the old process still has is cut"),
        check: Some(("reload", ", deadline {} s")),
        kind: Kind::Seconds(|config| &mut config.reload_deadline, FROM_A_MILLISECOND),
        ..ROW
    },
    Setting {
        name: "exec-stall",
        group: Group::Reloading,
        help: Some("hold new work at most that long for exec"),
        check: Some(("reload", ", exec stall {} s")),
        kind: Kind::Seconds(|config| &mut config.exec_stall, FROM_A_MILLISECOND),
        ..ROW
    },
    Setting {
        name: "memory",
        help: Some("for the whole process; connections, buffers, stacks are derived from it"),
        unset: "no limit",
        // Below, no program fits; above is a slip.
        kind: Kind::MaybeSize(|config| &mut config.memory, 1 << 20..=1 << 40),
        ..ROW
    },
    Setting {
        name: "file-cache",
        unset: "1M",
        kind: Kind::MaybeRoom(|config| &mut config.file_cache, 0..=1 << 30),
        ..ROW
    },
    Setting {
        name: "push-memory",
        unset: "4M",
        kind: Kind::MaybeRoom(|config| &mut config.push.memory, PUSH_MEMORY),
        ..ROW
    },
    Setting {
        name: "max-message",
        unset: "64K",
        kind: Kind::MaybeRoom(|config| &mut config.push.max_message, MAX_MESSAGE),
        ..ROW
    },
    Setting {
        name: "max-subscribers",
        unset: "three quarters of the connections",
        kind: Kind::AtMost(|config| &mut config.push.max_subscribers, 0..=MAX_CONNECTIONS),
        ..ROW
    },
    Setting {
        name: "max-connections",
        help: Some("open connections"),
        check: Some(("limits", "{} connections")),
        elsewhere: &["connections"],
        kind: Kind::Number(|config| &mut config.limits.connections, 1..=MAX_CONNECTIONS),
        ..ROW
    },
    Setting {
        name: "max-connections-per-ip",
        help: Some("of them from one address"),
        check: Some(("limits", " ({} from one address)")),
        unset: "no limit",
        kind: Kind::AtMost(|config| &mut config.limits.connections_per_ip, 0..=MAX_CONNECTIONS),
        ..ROW
    },
    Setting {
        name: "max-requests-per-connection",
        check: Some(("limits", " of {} requests")),
        unset: "no limit",
        kind: Kind::AtMost(|config| &mut config.limits.requests, 0..=u32::MAX as usize),
        ..ROW
    },
    Setting {
        name: "max-head",
        check: Some(("limits", ", head {}")),
        elsewhere: &["head-size"],
        kind: Kind::Room(|config| &mut config.limits.head_size, HEAD_SIZE),
        ..ROW
    },
    Setting {
        name: "max-target",
        check: Some(("limits", ", target {}")),
        elsewhere: &["target-size"],
        kind: Kind::Room(|config| &mut config.limits.target_size, 16..=65_535),
        ..ROW
    },
    Setting {
        name: "max-headers",
        check: Some(("limits", ", {} header fields")),
        elsewhere: &["header-count"],
        kind: Kind::Number(|config| &mut config.limits.header_count, HEADER_COUNT),
        ..ROW
    },
    Setting {
        name: "max-body",
        help: Some("request body, bytes or with K, M, G"),
        check: Some(("limits", ", body {}")),
        elsewhere: &["body-size"],
        kind: Kind::Size(|config| &mut config.limits.body_size, 0..=u64::MAX),
        ..ROW
    },
    Setting {
        name: "buffered-body",
        check: Some(("limits", ", {} of it buffered")),
        kind: Kind::Room(|config| &mut config.limits.buffered_body, BUFFERED_BODY),
        ..ROW
    },
    Setting {
        name: "head-timeout",
        help: Some("for a request head to arrive"),
        check: Some(("timeouts", "head {} s")),
        kind: Kind::Seconds(|config| &mut config.limits.head_timeout, FROM_A_MILLISECOND),
        ..ROW
    },
    Setting {
        name: "body-timeout",
        check: Some(("timeouts", ", body {} s")),
        kind: Kind::Seconds(|config| &mut config.limits.body_timeout, FROM_A_MILLISECOND),
        ..ROW
    },
    Setting {
        name: "body-rate",
        check: Some(("timeouts", " and then {} bytes/s")),
        kind: Kind::Rate(|config| &mut config.limits.body_rate, BODY_RATE),
        ..ROW
    },
    Setting {
        name: "idle-timeout",
        help: Some("between requests of a connection"),
        check: Some(("timeouts", ", idle {} s")),
        elsewhere: &["keep-alive"],
        kind: Kind::Seconds(|config| &mut config.limits.idle_timeout, FROM_A_MILLISECOND),
        ..ROW
    },
    Setting {
        name: "write-timeout",
        help: Some("for a client that takes too little of an answer"),
        check: Some(("timeouts", ", write {} s")),
        kind: Kind::Seconds(|config| &mut config.limits.write_timeout, FROM_A_MILLISECOND),
        ..ROW
    },
    Setting {
        name: "write-rate",
        check: Some(("timeouts", " at {} bytes/s")),
        kind: Kind::Rate(|config| &mut config.limits.write_rate, 0..=1 << 30),
        ..ROW
    },
    Setting {
        name: "queue-timeout",
        help: Some("for a request to wait for a worker, then 503"),
        check: Some(("timeouts", ", queue {} s")),
        kind: Kind::Seconds(|config| &mut config.limits.queue_timeout, FROM_A_MILLISECOND),
        ..ROW
    },
    Setting {
        name: "stream-wait",
        check: Some(("timeouts", ", stream wait {} s")),
        kind: Kind::Seconds(|config| &mut config.limits.stream_wait, FROM_A_MILLISECOND),
        ..ROW
    },
    Setting {
        name: "linger",
        check: Some(("timeouts", ", linger {} s")),
        kind: Kind::Seconds(|config| &mut config.limits.linger, FROM_ZERO),
        ..ROW
    },
    Setting {
        name: "check",
        group: Group::About,
        help: Some("check all settings, say what would run, and exit"),
        kind: Kind::Only(Only::Check),
        ..ROW
    },
    Setting {
        name: "version",
        short: Some('V'),
        group: Group::About,
        help: Some("say which version this is"),
        kind: Kind::Only(Only::Version),
        ..ROW
    },
    Setting {
        name: "help",
        short: Some('h'),
        group: Group::About,
        help: Some("this text"),
        kind: Kind::Only(Only::Help),
        ..ROW
    },
];

/// What a row has that says nothing else: a limit that only a file sets.
const ROW: Setting = Setting {
    name: "",
    short: None,
    group: Group::Limits,
    help: None,
    check: None,
    unset: "",
    elsewhere: &[],
    kind: Kind::Addresses,
};

const FROM_ZERO: Duration = Duration::ZERO;
/// Deadlines count in milliseconds; a timeout that rounds to none would refuse every request.
const FROM_A_MILLISECOND: Duration = Duration::from_millis(1);

/// What only the program has: an application decides itself what it serves. But for `listing` these are keys that have
/// more than one value, or a place of their own.
pub const SITE_KEYS: [&str; 11] = [
    "root",
    "precompressed",
    "listing",
    "fallback",
    "headers",
    "mime",
    "cache",
    "error_pages",
    "route",
    "host",
    "push",
];

/// As `elsewhere` of a row, for keys that are none.
const SITE_KEYS_ELSEWHERE: [(&str, &str); 6] = [
    ("document-root", "root"),
    ("redirects", "route"),
    ("server", "host"),
    ("vhost", "host"),
    ("virtual-host", "host"),
    ("server-name", "name"),
];

/// A setting.
pub struct Setting {
    /// As a flag, without the dashes; as a key with `_` for `-`.
    pub name: &'static str,
    pub short: Option<char>,
    pub group: Group,
    /// What `--help` says of the flag. Without it there is only a key, and the text is in the example.
    pub help: Option<&'static str>,
    /// The line of `--check` that it stands in, and the words around its value, in the order of the rows.
    pub check: Option<(&'static str, &'static str)>,
    /// What counts where nothing is set.
    unset: &'static str,
    /// What people type who come from another server, or who think of its other name.
    elsewhere: &'static [&'static str],
    pub(super) kind: Kind,
}

/// Under which title `--help` has a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Serving,
    Reloading,
    Limits,
    About,
}

/// Where a value goes, and what it may be.
pub(super) enum Kind {
    /// Of a file one of an array.
    Addresses,
    Number(fn(&mut Config) -> &mut usize, RangeInclusive<usize>),
    /// 0 switches it off.
    AtMost(fn(&mut Config) -> &mut Option<NonZeroU32>, RangeInclusive<usize>),
    Size(fn(&mut Config) -> &mut u64, RangeInclusive<u64>),
    MaybeSize(fn(&mut Config) -> &mut Option<u64>, RangeInclusive<u64>),
    /// A size in memory.
    Room(fn(&mut Config) -> &mut usize, RangeInclusive<u64>),
    MaybeRoom(fn(&mut Config) -> &mut Option<usize>, RangeInclusive<u64>),
    /// Bytes a second.
    Rate(fn(&mut Config) -> &mut u64, RangeInclusive<u64>),
    /// From that on.
    Seconds(fn(&mut Config) -> &mut Duration, Duration),
    Path(fn(&mut Config) -> &mut Option<PathBuf>),
    /// Of somebody, or a number.
    Name(fn(&mut Config) -> &mut Option<String>),
    Word(fn(&mut Config) -> &mut Option<String>),
    PathOrStdout(fn(&mut Config) -> &mut Option<PathBuf>),
    Mode,
    Level,
    LogFormat,
    /// Where a bus is.
    Url,
    /// What happens while it is down.
    Down,
    Format,
    Status,
    /// The flag `--NAME` switches it on.
    On(fn(&mut Config) -> &mut bool),
    /// The flag `--no-NAME` switches it off.
    Off(fn(&mut Config) -> &mut bool),
    /// A flag, and no key.
    Only(Only),
}

/// What only a command line can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    Config,
    Check,
    Version,
    Help,
}

impl Setting {
    /// The name in a file, if it may stand there.
    pub fn key(&self) -> Option<String> {
        self.only().is_none().then(|| self.name.replace('-', "_"))
    }

    /// The long flag, without its dashes.
    pub fn flag(&self) -> Option<String> {
        self.help?;
        Some(match self.kind {
            Kind::Off(_) => format!("no-{}", self.name),
            _ => self.name.to_owned(),
        })
    }

    /// What the flag takes, as help and messages call it; a switch takes nothing.
    pub fn takes(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Addresses => Some("ADDRESS"),
            Kind::Number(..) | Kind::AtMost(..) => Some("N"),
            Kind::Size(..) | Kind::MaybeSize(..) | Kind::Room(..) | Kind::MaybeRoom(..) | Kind::Rate(..) => {
                Some("SIZE")
            }
            Kind::Seconds(..) => Some("SECS"),
            Kind::Path(_) | Kind::PathOrStdout(_) | Kind::Only(Only::Config) => Some("FILE"),
            Kind::Mode => Some("MODE"),
            Kind::Level => Some("LEVEL"),
            Kind::LogFormat | Kind::Format => Some("FORMAT"),
            Kind::Status => Some("WHO"),
            Kind::Url => Some("URL"),
            Kind::Down => Some("WHAT"),
            Kind::Name(_) | Kind::Word(_) => Some("NAME"),
            Kind::On(_) | Kind::Off(_) | Kind::Only(_) => None,
        }
    }

    pub fn only(&self) -> Option<Only> {
        match self.kind {
            Kind::Only(only) => Some(only),
            _ => None,
        }
    }

    /// Whether it says what the program serves.
    pub fn is_of_site(&self) -> bool {
        SITE_KEYS.contains(&self.name)
    }

    /// Whether a file has an array of them.
    pub fn is_array(&self) -> bool {
        matches!(self.kind, Kind::Addresses)
    }

    /// Reads the value, and sets it.
    pub fn apply(&self, config: &mut Config, value: &Value<'_>) -> Result<(), ValueError> {
        match &self.kind {
            Kind::Addresses => config.listen.push(value.address()?),
            Kind::Number(place, allowed) => *place(config) = value.number(allowed)?,
            Kind::AtMost(place, allowed) => *place(config) = at_most(value.number(allowed)?),
            Kind::Size(place, allowed) | Kind::Rate(place, allowed) => *place(config) = value.size(allowed)?,
            Kind::MaybeSize(place, allowed) => *place(config) = Some(value.size(allowed)?),
            Kind::Room(place, allowed) => *place(config) = value.size(allowed)? as usize,
            Kind::MaybeRoom(place, allowed) => *place(config) = Some(value.size(allowed)? as usize),
            Kind::Seconds(place, least) => *place(config) = value.seconds(*least)?,
            Kind::Path(place) => *place(config) = Some(value.path()?),
            Kind::Name(place) | Kind::Word(place) => *place(config) = Some(value.name()?),
            Kind::PathOrStdout(place) => *place(config) = Some(value.path_or_stdout()?),
            Kind::Mode => config.reload = value.one_of(&ReloadMode::ALL)?,
            Kind::Level => config.log_level = Some(value.log_level()?),
            Kind::LogFormat => config.log_format = value.one_of(&LogFormat::ALL)?,
            Kind::Format => config.access_log_format = value.one_of(&RequestLogFormat::ALL)?,
            Kind::Status => config.status = value.one_of(&StatusAccess::ALL)?,
            Kind::Url => config.push.bus.url = Some(value.bus_url()?),
            Kind::Down => config.push.bus.down = value.one_of(&BusDown::ALL)?,
            Kind::On(place) | Kind::Off(place) => *place(config) = value.boolean()?,
            Kind::Only(_) => {}
        }
        Ok(())
    }

    /// Does what the flag of a switch says.
    pub fn switch(&self, config: &mut Config) {
        match self.kind {
            Kind::On(place) => *place(config) = true,
            Kind::Off(place) => *place(config) = false,
            Kind::Only(Only::Check) => config.check = true,
            _ => {}
        }
    }

    /// Its value as text, if it is set.
    pub fn text(&self, config: &mut Config) -> Option<String> {
        match &self.kind {
            Kind::Addresses if config.listen.is_empty() => None,
            Kind::Addresses => Some(config.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            Kind::Number(place, _) => Some(place(config).to_string()),
            Kind::AtMost(place, _) => place(config).map(|most| most.to_string()),
            Kind::Size(place, _) => Some(size_text(*place(config))),
            Kind::MaybeSize(place, _) => place(config).map(size_text),
            Kind::Room(place, _) => Some(size_text(*place(config) as u64)),
            Kind::MaybeRoom(place, _) => place(config).map(|room| size_text(room as u64)),
            Kind::Rate(place, _) => Some(place(config).to_string()),
            Kind::Seconds(place, _) => Some(place(config).as_secs_f64().to_string()),
            Kind::Path(place) | Kind::PathOrStdout(place) => {
                place(config).as_ref().map(|path| path.display().to_string())
            }
            Kind::Name(place) | Kind::Word(place) => place(config).clone(),
            Kind::Mode => name(&ReloadMode::ALL, config.reload),
            Kind::Level => Some(config.log_level.as_deref().unwrap_or(filters::DEFAULT).to_owned()),
            Kind::LogFormat => name(&LogFormat::ALL, config.log_format),
            Kind::Format => name(&RequestLogFormat::ALL, config.access_log_format),
            Kind::Status => name(&StatusAccess::ALL, config.status),
            Kind::Url => config.push.bus.url.as_ref().map(ToString::to_string),
            Kind::Down => name(&BusDown::ALL, config.push.bus.down),
            Kind::On(place) | Kind::Off(place) => Some(place(config).to_string()),
            Kind::Only(_) => None,
        }
    }

    /// What counts if nobody says anything, as text; empty if that is nothing.
    pub fn default(&self) -> String {
        self.text(&mut Config::default()).unwrap_or_else(|| self.unset.to_owned())
    }
}

/// What a value is called, of a few words.
fn name<T: PartialEq>(all: &[(&str, T)], value: T) -> Option<String> {
    all.iter().find(|(_, other)| *other == value).map(|(name, _)| (*name).to_owned())
}

/// A limit that 0 switches off.
fn at_most(number: usize) -> Option<NonZeroU32> {
    u32::try_from(number).ok().and_then(NonZeroU32::new)
}

/// The one of `known`, which are flags or keys, that was meant: by the name it has elsewhere, or by likeness.
pub fn meant<'k>(typed: &str, known: &[&'k str]) -> Option<&'k str> {
    let dashed = typed.replace('_', "-");
    let row = SETTINGS.iter().find(|setting| setting.elsewhere.contains(&&*dashed)).map(|setting| setting.name);
    let site = SITE_KEYS_ELSEWHERE.iter().find(|(elsewhere, _)| *elsewhere == dashed).map(|(_, name)| *name);
    let by_name = row.or(site).and_then(|name| known.iter().copied().find(|known| known.replace('_', "-") == name));
    by_name.or_else(|| closest(typed, known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::value::MAX_SECONDS;
    use crate::program::{document, file};
    use crate::{Error, Parsed};
    use std::ffi::OsString;

    const README: &str = include_str!("../../README.md");
    const EXAMPLE: &str = include_str!("../../examples/handover.toml");

    /// A value as an argument and in a file, and what is shown of it.
    struct Sample {
        argument: String,
        toml: String,
        shown: Option<String>,
    }

    fn sample(argument: impl ToString, toml: impl ToString, shown: impl ToString) -> Sample {
        Sample { argument: argument.to_string(), toml: toml.to_string(), shown: Some(shown.to_string()) }
    }

    fn sizes(allowed: &RangeInclusive<u64>, shown: fn(u64) -> String) -> (Vec<Sample>, Vec<String>) {
        let (low, high) = allowed.clone().into_inner();
        let beyond = [low.checked_sub(1), high.checked_add(1)].into_iter().flatten().map(|size| size.to_string());
        ([low, high].map(|size| sample(size, size, shown(size))).into(), beyond.collect())
    }

    /// The ends of what it may be, and what lies just beyond, as an argument and as a number of a file.
    fn samples(setting: &Setting) -> (Vec<Sample>, Vec<String>) {
        let plain = |values: &[&str]| values.iter().map(|value| sample(value, format!("'{value}'"), value)).collect();
        match &setting.kind {
            Kind::Addresses => (vec![sample("127.0.0.1:1", "['127.0.0.1:1']", "127.0.0.1:1")], vec!["1".to_owned()]),
            Kind::Number(_, allowed) => {
                sizes(&(*allowed.start() as u64..=*allowed.end() as u64), |number| number.to_string())
            }
            Kind::AtMost(_, allowed) => {
                let (mut good, bad) = sizes(&(0..=*allowed.end() as u64), |number| number.to_string());
                good[0].shown = None;
                (good, bad)
            }
            Kind::Rate(_, allowed) => sizes(allowed, |rate| rate.to_string()),
            Kind::Size(_, allowed)
            | Kind::MaybeSize(_, allowed)
            | Kind::Room(_, allowed)
            | Kind::MaybeRoom(_, allowed) => sizes(allowed, size_text),
            Kind::Seconds(_, least) => {
                let low = least.as_secs_f64().to_string();
                let below = (!least.is_zero()).then(|| "0".to_owned());
                let good = vec![sample(&low, &low, &low), sample(MAX_SECONDS, MAX_SECONDS, MAX_SECONDS)];
                (good, below.into_iter().chain([(MAX_SECONDS + 1).to_string()]).collect())
            }
            Kind::Path(_) => (plain(&["/a/b"]), Vec::new()),
            Kind::PathOrStdout(_) => (plain(&["/a/b", "-"]), Vec::new()),
            Kind::Name(_) => (plain(&["nobody", "65534"]), Vec::new()),
            Kind::Word(_) => (plain(&["news", "a.b-c"]), Vec::new()),
            Kind::Mode => (plain(&["auto", "overlap", "exec"]), vec!["never".to_owned()]),
            Kind::Level => (plain(&["off", "trace", "warn,handover::site=debug"]), vec!["never".to_owned()]),
            Kind::LogFormat => (plain(&["text", "json"]), vec!["never".to_owned()]),
            Kind::Format => (plain(&["combined", "json"]), vec!["never".to_owned()]),
            Kind::Status => (plain(&["local", "anyone", "nobody"]), vec!["never".to_owned()]),
            Kind::Url => (plain(&["redis://127.0.0.1:6379/1", "redis+unix:///run/redis.sock"]), Vec::new()),
            Kind::Down => (plain(&["refuse", "wait"]), vec!["never".to_owned()]),
            Kind::On(_) => (vec![sample("", true, true)], Vec::new()),
            Kind::Off(_) => (vec![sample("", false, false)], Vec::new()),
            Kind::Only(_) => (Vec::new(), Vec::new()),
        }
    }

    fn from_flag(setting: &Setting, argument: &str) -> Result<Config, Error> {
        let flag = format!("--{}", setting.flag().expect("a flag"));
        let value = setting.takes().map(|_| OsString::from(argument));
        match Config::try_from_args([OsString::from(flag)].into_iter().chain(value))? {
            Parsed::Run(config) => Ok(config),
            other => panic!("{}: {other:?}", setting.name),
        }
    }

    fn from_file(setting: &Setting, value: &str) -> Result<Config, Error> {
        // A target has to fit into the head, subscribers into the connections, of which memory may make more; and `listing`
        // needs no root before the site is opened.
        let room = match setting.name {
            "max-target" => "max_head = 65535\n",
            "max-subscribers" => "memory = '1G'\n",
            _ => "",
        };
        file::read(&format!("{room}{} = {value}", setting.key().expect("a key")), "/dir/file".into(), None)
    }

    #[test]
    fn names_are_flags_and_keys() {
        let mut shorts = Vec::new();
        for (at, setting) in SETTINGS.iter().enumerate() {
            assert!(setting.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", setting.name);
            assert!(SETTINGS[..at].iter().all(|other| other.name != setting.name), "{} twice", setting.name);
            assert!(setting.help.is_some() || setting.short.is_none());
            assert!(setting.help.is_some() || setting.only().is_none(), "{} is neither flag nor key", setting.name);
            if let Some(short) = setting.short {
                assert!(!shorts.contains(&short), "-{short} twice");
                shorts.push(short);
            }
        }
    }

    /// Each row by flag and by key, at both ends of its range: it sets its own place and no other.
    #[test]
    fn every_setting_takes_what_it_says_and_reaches_its_place() {
        let all = |mut config: Config| SETTINGS.iter().map(|setting| setting.text(&mut config)).collect::<Vec<_>>();
        let defaults = all(Config::default());
        for (row, setting) in SETTINGS.iter().enumerate() {
            let (good, bad) = samples(setting);
            // Where the program has no bus there is nothing to say of one.
            if matches!(setting.kind, Kind::Url) && !cfg!(feature = "redis") {
                let error = from_file(setting, &good[0].toml).expect_err("no bus").to_string();
                assert!(error.contains("bus: this program has no bus"), "{error}");
                continue;
            }
            for Sample { argument, toml, shown } in good {
                let mut config = from_file(setting, &toml).expect(setting.name);
                assert_eq!(setting.text(&mut config), shown, "{} = {toml}", setting.name);
                if setting.help.is_some() {
                    let mut wanted = defaults.clone();
                    wanted[row] = shown;
                    assert_eq!(all(from_flag(setting, &argument).expect(setting.name)), wanted, "--{}", setting.name);
                }
            }
            for value in bad {
                let key = setting.key().expect("a key");
                let error = from_file(setting, &value).expect_err(&key).to_string();
                assert!(error.contains(&format!("{key} is {value}, allowed ")) || value == "never", "{error}");
                if setting.help.is_some() {
                    let error = from_flag(setting, &value).expect_err(&key).to_string();
                    assert!(error.starts_with(&format!("--{}", setting.name)), "{error}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_set_counts_as_it_says() {
        let row = |name: &str| SETTINGS.iter().find(|setting| setting.name == name).expect(name).default();
        let config = Config::default();
        assert_eq!(row("file-cache"), size_text(config.file_cache() as u64));
        let listen = config.addresses().expect("an address").iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(row("listen"), listen.join(", "));
        assert!(config.memory.is_none() && row("memory") == "no limit");
    }

    /// The table of flags in README.md: each flag with its default, and nothing else.
    #[test]
    fn the_readme_has_each_flag_with_its_default() {
        let table = README.split("| flag | default | |\n|---|---|---|\n").nth(1).expect("a table of flags");
        let rows = table.lines().take_while(|line| line.starts_with('|')).map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            assert!(cells.len() == 5 && !cells[3].is_empty(), "{line}");
            (cells[1].to_owned(), cells[2].trim_matches('`').to_owned())
        });
        let flags = SETTINGS.iter().filter_map(|setting| {
            let short = setting.short.map(|short| format!("`-{short}`, ")).unwrap_or_default();
            let takes = setting.takes().map(|takes| format!(" {takes}")).unwrap_or_default();
            let default = setting.takes().map(|_| setting.default()).unwrap_or_default();
            Some((format!("{short}`--{}{takes}`", setting.flag()?), default))
        });
        let (mut rows, mut flags): (Vec<_>, Vec<_>) = (rows.collect(), flags.collect());
        rows.sort();
        flags.sort();
        assert_eq!(rows, flags);
    }

    /// examples/handover.toml: each key with its default, or as a line that is off where nothing is set; and nothing
    /// else but the site.
    #[test]
    fn the_example_has_each_setting_with_its_default() {
        let off =
            |line: &str| line.strip_prefix('#').and_then(|line| line.split_once(" = ")).map(|(key, _)| key.to_owned());
        let off: Vec<String> = EXAMPLE.lines().filter_map(off).filter(|key| !key.starts_with(' ')).collect();
        let document = document::parse(EXAMPLE).expect("TOML");
        let set: Vec<&str> = document::entries(&document).iter().map(|entry| entry.key).collect();
        let mut config = file::read(EXAMPLE, "/dir/file".into(), None).expect("a configuration");
        // One of [[push]] goes with another value than the one that is shown, and one of routes with a file that is not there.
        let mut known: Vec<String> =
            SITE_KEYS.iter().chain(&["token_key_file", "auth"]).map(|key| (*key).to_owned()).collect();
        for setting in SETTINGS {
            let Some(key) = setting.key() else { continue };
            let default = setting.default();
            match set.contains(&&*key) {
                true => assert_eq!(setting.text(&mut config).unwrap_or(setting.unset.to_owned()), default, "{key}"),
                false => {
                    assert!(off.contains(&key), "{key} is missing");
                    assert!(setting.text(&mut Config::default()).is_none(), "{key} is {default} and not off");
                }
            }
            known.push(key);
        }
        let unknown =
            set.iter().copied().chain(off.iter().map(String::as_str)).find(|key| !known.iter().any(|k| k == key));
        assert_eq!(unknown, None);
    }

    #[test]
    fn the_one_that_was_meant() {
        let known = ["listen", "workers", "max_connections", "log-file", "status_routes"];
        for (typed, wanted) in [
            ("lisen", Some("listen")),
            ("port", Some("listen")),
            ("no_status_routes", Some("status_routes")),
            ("keep_alive", None),
            ("document_root", None),
            // An address, where it stands for one.
            ("host", Some("listen")),
        ] {
            assert_eq!(meant(typed, &known), wanted, "{typed}");
        }
        assert_eq!(meant("document_root", &["root"]), Some("root"));
    }
}
