//! The values of settings, their defaults and where these come from. How they are read is `crate::program`.
//!
//! `site` is what a file says of the site, `host` of those for some names alone, `push` what it says of push, and `bus` of
//! that between several hosts.

mod allowed_paths;
pub mod bus;
mod cache;
pub mod host;
pub mod push;
pub mod site;

pub use allowed_paths::AllowedPaths;
pub use bus::{BUS_LENGTH, BusConfig, BusDown, BusUrl};
pub use host::HostConfig;
pub use push::PushConfig;
pub use site::SiteConfig;

use crate::Error;
use crate::listener::Address;
use http1::head::HeadLimits;
use site::{Auth, ConfiguredSite};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where a server listens unless told otherwise: the port of the Tornado recipe. As all of these, in [`Config`].
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8888";
/// Threads in the pool. Parked connections hold none, so a few serve thousands. In [`Config`].
pub const DEFAULT_WORKERS: usize = 4;
/// How long a stop waits for what is pending: `max_wait` of the Tornado recipe. In [`Config`].
pub const DEFAULT_STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How long a predecessor keeps its connections after its successor accepts, ready to take over again. In [`Config`].
pub const DEFAULT_RELOAD_PROBATION: Duration = Duration::from_secs(2);
/// How long a reload may take until what is left is cut: it must end long before the next one. In [`Config`].
pub const DEFAULT_RELOAD_DEADLINE: Duration = Duration::from_secs(60);
/// How long an exec reload may hold new work back. In [`Config`].
pub const DEFAULT_EXEC_STALL: Duration = Duration::from_secs(2);
/// What files that are asked for often may take together. Nothing of it is taken before they are asked for.
pub const DEFAULT_FILE_CACHE: usize = 1024 * 1024;
/// Stack of a worker. Only pages that were touched count; a handler may go about 200 KiB deep. In [`Config`].
pub const DEFAULT_WORKER_STACK: usize = 256 * 1024;
/// How long a stop waits for a request on an idle connection before it says FIN.
pub const DRAIN_LINGER: Duration = Duration::from_secs(1);
/// The most workers a pool may have, in [`Config`].
pub const MAX_WORKERS: usize = 1024;
/// The most connections a server may hold open, in [`Limits`].
pub const MAX_CONNECTIONS: usize = 1 << 20;
/// What a worker's stack may be: below, a handler does not get far; above is a slip.
pub const WORKER_STACK: RangeInclusive<u64> = 64 << 10..=1 << 30;
/// Spans in a head are 16 bits wide.
pub const HEAD_SIZE: RangeInclusive<u64> = 256..=65_535;
pub const HEADER_COUNT: RangeInclusive<usize> = 1..=10_000;
pub const BUFFERED_BODY: RangeInclusive<u64> = 0..=1 << 30;
pub const BODY_RATE: RangeInclusive<u64> = 1..=1 << 30;

/// What one client may cost. Every limit is on by default.
///
/// ```
/// let limits = handover::Limits { body_size: 10 << 20, ..Default::default() };
/// assert_eq!(limits.head_size, 16 * 1024);
/// ```
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request head, at most 65,535; more is 431. Default 16 KiB.
    pub head_size: usize,
    /// Bytes of a request target; more is 414. Default 8 KiB.
    pub target_size: usize,
    /// Header fields in a request; more is 431. Default 100.
    pub header_count: usize,
    /// Bytes of a request body, unless the handler says otherwise; more is 413. Default 1 MiB.
    pub body_size: u64,
    /// Bytes of a body collected before the handler starts; a larger one is streamed to it, on a thread that may wait
    /// for the client, and while none is free it is collected too, up to 1 MiB. Default 64 KiB.
    pub buffered_body: usize,
    /// From the first byte of a head to its last; later is 408. Default 10 s.
    pub head_timeout: Duration,
    /// What a body may take before `body_rate` counts; later is 408. Default 10 s.
    pub body_timeout: Duration,
    /// Bytes per second that a body must bring on average once `body_timeout` has passed.
    /// Default 500, as in Apache's `mod_reqtimeout`.
    pub body_rate: u64,
    /// How long a connection may wait between requests. Default 30 s.
    pub idle_timeout: Duration,
    /// The window in which a client has to take its share of a response that waits for it. Default 30 s.
    pub write_timeout: Duration,
    /// Bytes per second that a client has to take on average in each such window, and in any case one byte.
    /// Default 100: a tenth of what the slowest modem link brings.
    pub write_rate: u64,
    /// How long a ready request may wait for a worker; then 503 with Retry-After. Default 5 s.
    pub queue_timeout: Duration,
    /// How long a request may wait for a thread that may wait for its client, while all of them (half as many as workers,
    /// at least one) do so for others and nothing more of it can be collected; then 503. Default 30 s.
    pub stream_wait: Duration,
    /// After the last answer: how long what the client still sends is read and thrown away,
    /// so that the answer is not lost to a reset. Default 1 s.
    pub linger: Duration,
    /// Open connections. At the limit the longest idle one of the address that holds most goes for a new one; if
    /// none is idle, a request that is late in coming. Default 1,024.
    pub connections: usize,
    /// Open connections from one address, of IPv6 from one /64. At the limit its longest idle one goes for a new
    /// one; if none is idle, the new one is told 503. Default none. Behind a proxy all come from one address.
    pub connections_per_ip: Option<NonZeroU32>,
    /// Requests that a connection may have; the last answer says `Connection: close`. Default none.
    pub requests: Option<NonZeroU32>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_size: 16 * 1024,
            target_size: 8 * 1024,
            header_count: 100,
            body_size: 1024 * 1024,
            buffered_body: 64 * 1024,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            body_rate: 500,
            idle_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            write_rate: 100,
            queue_timeout: Duration::from_secs(5),
            stream_wait: Duration::from_secs(30),
            linger: Duration::from_secs(1),
            connections: 1024,
            connections_per_ip: None,
            requests: None,
        }
    }
}

/// The longest deadline: they are kept in 32 bits of milliseconds.
const LONGEST: Duration = Duration::from_secs(20 * 24 * 60 * 60);

impl Limits {
    /// With every deadline at most 20 days; whoever asks for more means never.
    pub(crate) fn clamped(mut self) -> Limits {
        for deadline in [
            &mut self.head_timeout,
            &mut self.body_timeout,
            &mut self.idle_timeout,
            &mut self.write_timeout,
            &mut self.queue_timeout,
            &mut self.stream_wait,
            &mut self.linger,
        ] {
            *deadline = (*deadline).min(LONGEST);
        }
        self
    }

    pub(crate) fn head(&self) -> HeadLimits {
        HeadLimits { size: self.head_size, target: self.target_size, fields: self.header_count }
    }
}

/// How a reload runs the program afresh. See the example of [`Config`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReloadMode {
    /// `Overlap` where a service manager is told the new pid (NOTIFY_SOCKET) and nothing else watches the old one; else
    /// `Exec`.
    #[default]
    Auto,
    /// The successor is a new process that runs beside its predecessor for a while.
    Overlap,
    /// The process executes the program itself: the pid stays, and there is one process's memory.
    Exec,
}

impl ReloadMode {
    pub(crate) const ALL: [(&'static str, ReloadMode); 3] =
        [("auto", ReloadMode::Auto), ("overlap", ReloadMode::Overlap), ("exec", ReloadMode::Exec)];
}

/// Who may see `/-/metrics` and `/-/status`. See the example of [`Config`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatusAccess {
    /// Clients of this host: over a Unix socket, or from a loopback address for a loopback host. What came through a proxy
    /// that says so by a field, or by HTTP/1.0, is not, nor a page of another origin.
    #[default]
    Local,
    /// Whoever reaches the server.
    Anyone,
    /// Nobody, but for who has the token.
    Nobody,
}

impl StatusAccess {
    pub(crate) const ALL: [(&'static str, StatusAccess); 3] =
        [("local", StatusAccess::Local), ("anyone", StatusAccess::Anyone), ("nobody", StatusAccess::Nobody)];
}

/// What a line of the log looks like. See the example of [`Config`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: `2026-01-31T23:59:59.042Z INFO  [4711.2] message`, with process id and generation.
    #[default]
    Text,
    /// An object of JSON, with the same in `time`, `level`, `target`, `pid`, `generation` and `message`.
    Json,
}

impl LogFormat {
    pub(crate) const ALL: [(&'static str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
}

/// What a line of the request log looks like. See the example of [`Config`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestLogFormat {
    /// As nginx, lighttpd and Apache write it by default, the Common Log Format with referer and agent, and behind it the
    /// seconds that the request took.
    #[default]
    Combined,
    /// An object of JSON, which says more.
    Json,
}

impl RequestLogFormat {
    pub(crate) const ALL: [(&'static str, RequestLogFormat); 2] =
        [("combined", RequestLogFormat::Combined), ("json", RequestLogFormat::Json)];
}

/// Everything the program's flags and its configuration file say; an application gets the same by
/// [`Config::from_args`].
///
/// ```
/// use handover::{Config, LogFormat, ReloadMode, RequestLogFormat, StatusAccess};
///
/// let config = Config {
///     reload: ReloadMode::Exec,
///     log_format: LogFormat::Json,
///     access_log: Some("/var/log/app/access".into()),
///     access_log_format: RequestLogFormat::Json,
///     status: StatusAccess::Nobody,
///     ..Config::default()
/// };
/// config.validate()?;
/// assert!(Config { workers: 0, ..config }.validate().is_err());
/// # Ok::<(), handover::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; empty means [`DEFAULT_LISTEN`].
    pub listen: Vec<Address>,
    /// The positional ROOT, or `root` of the file, if given: the directory that the program serves.
    pub root: Option<PathBuf>,
    /// What else the program serves.
    pub site: SiteConfig,
    /// What it serves instead under some names.
    pub hosts: Vec<HostConfig>,
    /// What push may hold.
    pub push: PushConfig,
    /// Threads in the pool, 1 to 1,024. Default 4. Half as many, at least one, are started beside them when the first
    /// request needs one: for handlers that read a large body while it arrives, and for those that push.
    pub workers: usize,
    /// Stack of a worker in bytes. Default 256 KiB.
    pub worker_stack: usize,
    /// What one client may cost.
    pub limits: Limits,
    /// The most that the process may keep resident, in bytes; connections, buffers and stacks that are at their
    /// defaults are derived from it. What an application's own handlers allocate comes on top. Default none.
    pub memory: Option<u64>,
    /// What files that are asked for often may take of it, in bytes; 0 keeps none. Default a sixteenth of `memory`, or
    /// 1 MiB without it.
    pub file_cache: Option<usize>,
    /// How long a stop waits for what is pending. Default 10 s.
    pub stop_deadline: Duration,
    /// How long to go on serving, with `/-/ready` at 503, before a stop. Default 0.
    pub lame_duck: Duration,
    /// How a reload runs the program afresh. Default `Auto`.
    pub reload: ReloadMode,
    /// How long a predecessor stays ready to take over again. Default 2 s.
    pub reload_probation: Duration,
    /// How long a reload may take until what is left is cut. Default 60 s.
    pub reload_deadline: Duration,
    /// How long an exec reload may hold new work back. Default 2 s.
    pub exec_stall: Duration,
    /// Where the pid of the serving process stands; beside it, with `.outcome` behind the name, what came of the last
    /// reload.
    pub pid_file: Option<PathBuf>,
    /// Where the log goes; `None` is stderr.
    pub log_file: Option<PathBuf>,
    /// What is logged: `off`, `error`, `warn`, `info`, `debug` or `trace`, or `TARGET=LEVEL` for a part of the program,
    /// several with commas between. `None`, the default, is `info`. The environment variable `RUST_LOG` wins over it.
    pub log_level: Option<String>,
    /// What a line of the log looks like. Default `Text`.
    pub log_format: LogFormat,
    /// Where a line for each request goes: a file, or `-` for stdout. `None`, the default, is nowhere.
    pub access_log: Option<PathBuf>,
    /// What such a line looks like. Default `Combined`.
    pub access_log_format: RequestLogFormat,
    /// The configuration file that the settings came from, if there is one.
    pub file: Option<ConfigFile>,
    /// Check the settings, print what would run, bind nothing.
    pub check: bool,
    /// A check connects to the bus as well.
    pub check_bus: bool,
    /// Answer `/-/healthy` and `/-/ready`. Default true.
    pub status_routes: bool,
    /// Who may see `/-/metrics`, `/-/status` and `/-/status.json`, if there are routes of that kind. Default `Local`.
    pub status: StatusAccess,
    /// A file with a token of at least 16 characters; who has that may see them from anywhere. Default none.
    pub status_token_file: Option<PathBuf>,
    /// Whom to serve as, by name or number: root binds, and then is that user for good. Default: who starts it.
    pub user: Option<String>,
    /// The group of that user. Default its own.
    pub group: Option<String>,
    /// Take TERM, INT, QUIT, HUP, USR1 and USR2 for this process. Default true; the first server to run gets them.
    pub signals: bool,
    /// Wait for processes that the server has not started, as pid 1 has to. Default false: it is not for an application
    /// that has children of its own.
    pub reap_orphans: bool,
    /// Give back memory when nothing has happened for a second: what is free in the allocator, and pages of the program's
    /// own file. Default false: it is about the whole process, so for one that is the server's alone.
    pub give_back_at_rest: bool,
    /// Keep to what [`Builder::confine`](crate::Builder::confine) allows, if that was called, as the program does. Default
    /// true.
    pub landlock: bool,
    /// Print `listening on …` and `ready …` on stdout. Default false; true when the settings came from the command line.
    pub announce: bool,
}

impl Default for Config {
    // It stands in several places and is large.
    fn default() -> Config {
        Config {
            listen: Vec::new(),
            root: None,
            site: SiteConfig::default(),
            hosts: Vec::new(),
            push: PushConfig::default(),
            workers: DEFAULT_WORKERS,
            worker_stack: DEFAULT_WORKER_STACK,
            limits: Limits::default(),
            memory: None,
            file_cache: None,
            stop_deadline: DEFAULT_STOP_DEADLINE,
            lame_duck: Duration::ZERO,
            reload: ReloadMode::default(),
            reload_probation: DEFAULT_RELOAD_PROBATION,
            reload_deadline: DEFAULT_RELOAD_DEADLINE,
            exec_stall: DEFAULT_EXEC_STALL,
            pid_file: None,
            log_file: None,
            log_level: None,
            log_format: LogFormat::default(),
            access_log: None,
            access_log_format: RequestLogFormat::default(),
            file: None,
            check: false,
            check_bus: false,
            status_routes: true,
            status: StatusAccess::default(),
            status_token_file: None,
            user: None,
            group: None,
            signals: true,
            reap_orphans: false,
            give_back_at_rest: false,
            landlock: true,
            announce: false,
        }
    }
}

impl Config {
    /// Threads that may wait for clients.
    pub(crate) fn streamers(&self) -> usize {
        (self.workers / 2).max(1)
    }

    /// All that is served, that of the top of the file first.
    pub(crate) fn sites(&self) -> impl Iterator<Item = ConfiguredSite<'_>> {
        let top = ConfiguredSite { host: None, root: self.root.as_deref(), site: &self.site };
        let hosts = self.hosts.iter().zip(0..).map(|(host, number)| ConfiguredSite {
            host: Some(number),
            root: host.root.as_deref(),
            site: &host.site,
        });
        std::iter::once(top).chain(hosts)
    }

    /// What has users and passwords, each once.
    pub(crate) fn password_files(&self) -> Vec<&PathBuf> {
        let routes = self.sites().flat_map(|site| &site.site.routes).map(|route| &route.auth);
        let files = routes.chain(self.push.namespaces.iter().map(|namespace| &namespace.auth));
        once_each(files.filter_map(|auth| match auth {
            Some(Auth::Users { file, .. }) => Some(file),
            Some(Auth::Anyone) | None => None,
        }))
    }

    /// What is nobody else's business, and what it is.
    pub(crate) fn secret_files(&self) -> Vec<(&'static str, &PathBuf)> {
        let keys = once_each(self.push.namespaces.iter().filter_map(|namespace| namespace.token_key_file.as_ref()));
        let keys = keys.into_iter().map(|path| ("key file", path));
        let keys = keys.chain(self.push.bus.password_file.iter().map(|path| ("password file", path)));
        let keys = keys.chain(self.status_token_file.iter().map(|path| ("token file", path)));
        keys.chain(self.password_files().into_iter().map(|path| ("file of users", path))).collect()
    }

    /// Refuses what cannot work, naming the setting and what is allowed.
    pub fn validate(&self) -> Result<(), Error> {
        let limits = &self.limits;
        let within = |key: &str, field: &str, value: u64, low: u64, high: u64| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(self.out_of_range(key, field, value, low, high)),
        };
        within("workers", "workers", self.workers as u64, 1, MAX_WORKERS as u64)?;
        within("worker_stack", "worker_stack", self.worker_stack as u64, *WORKER_STACK.start(), *WORKER_STACK.end())?;
        within("max_head", "head_size", limits.head_size as u64, *HEAD_SIZE.start(), *HEAD_SIZE.end())?;
        within("max_target", "target_size", limits.target_size as u64, 16, limits.head_size as u64)?;
        let (low, high) = HEADER_COUNT.into_inner();
        within("max_headers", "header_count", limits.header_count as u64, low as u64, high as u64)?;
        within("max_connections", "connections", limits.connections as u64, 1, MAX_CONNECTIONS as u64)?;
        within("body_rate", "body_rate", limits.body_rate, *BODY_RATE.start(), *BODY_RATE.end())?;
        let buffered = limits.buffered_body as u64;
        within("buffered_body", "buffered_body", buffered, *BUFFERED_BODY.start(), *BUFFERED_BODY.end())?;
        // With memory the connections may be derived from that.
        if let (Some(allowed), None) = (self.push.subscribers_beyond(limits.connections), self.memory) {
            return Err(self.error(
                "max_subscribers",
                format_args!("max_subscribers is too large, allowed is three quarters of max_connections: {allowed}"),
            ));
        }
        self.validate_bus()?;
        match self.push.message_beyond_room(self.memory) {
            // It would be all that is kept, and more.
            Some((message, room)) => Err(self.error(
                "max_message",
                format_args!(
                    "max_message is {}, allowed is push_memory at the most: {}",
                    size_text(message),
                    size_text(room)
                ),
            )),
            None => Ok(()),
        }
    }

    fn validate_bus(&self) -> Result<(), Error> {
        let bus = &self.push.bus;
        if let Some(wrong) = bus.wrong_prefix() {
            return Err(self.error("bus_prefix", format_args!("{wrong}")));
        }
        let Some(url) = &bus.url else { return Ok(()) };
        if !cfg!(feature = "redis") {
            let what =
                "bus: this program has no bus; it was built without the feature redis (cargo build --features redis)";
            return Err(self.error("bus", format_args!("{what}")));
        }
        if url.as_str().starts_with("rediss:") && !cfg!(feature = "redis-tls") {
            let what = "bus: this program speaks no TLS with Redis; it was built without the feature redis-tls";
            return Err(self.error("bus", format_args!("{what}")));
        }
        if self.push.history_file.is_some() {
            let what = "history_file is for one host: with a bus Redis keeps what push keeps; leave one of them out";
            return Err(self.error("history_file", format_args!("{what}")));
        }
        Ok(())
    }

    fn out_of_range(&self, key: &str, field: &str, value: u64, low: u64, high: u64) -> Error {
        // Somebody who wrote a file knows the key, an application the field.
        let name = self.line(key).map_or(field, |_| key);
        self.error(key, format_args!("{name} is {value}, allowed is {low} to {high}"))
    }

    /// A configuration error about what that key of the file says; with its place, if it came from there.
    pub(crate) fn error(&self, key: &str, what: std::fmt::Arguments<'_>) -> Error {
        match self.file.as_ref().and_then(|file| Some((file, file.place(key)?))) {
            Some((file, (line, column))) => Error::config(format_args!("{}:{line}:{column}: {what}", file.shown())),
            None => Error::config(what),
        }
    }

    /// The line of the file that says it.
    pub(crate) fn line(&self, key: &str) -> Option<usize> {
        self.file.as_ref()?.line(key)
    }

    /// A flag says otherwise than the file.
    pub(crate) fn overrule(&mut self, key: &str) {
        if let Some(file) = &mut self.file {
            file.places.remove(key);
        }
    }

    /// What files that are asked for often may take, the default filled in.
    pub(crate) fn file_cache(&self) -> usize {
        let share = self.memory.map_or(DEFAULT_FILE_CACHE, |memory| (memory / 16).min(64 << 20) as usize);
        self.file_cache.unwrap_or(share)
    }

    /// Where to listen, the default filled in.
    pub(crate) fn addresses(&self) -> Result<Vec<Address>, Error> {
        if self.listen.is_empty() {
            return Ok(vec![DEFAULT_LISTEN.parse()?]);
        }
        // The same twice would be kept once and bound once more with each reload.
        let mut addresses: Vec<Address> = Vec::new();
        for address in &self.listen {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        Ok(addresses)
    }
}

/// Larger is no configuration file.
pub const MAX_CONFIGURATION: u64 = 1024 * 1024;

/// The configuration file that settings came from: [`Config::from_file`], or `--config`.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    /// As they were read.
    bytes: Arc<[u8]>,
    /// Line and column of the value of each key, of which a file with many hosts has many.
    places: HashMap<String, (usize, usize)>,
}

fn once_each<'p>(files: impl Iterator<Item = &'p PathBuf>) -> Vec<&'p PathBuf> {
    let mut files: Vec<&PathBuf> = files.collect();
    files.sort_unstable();
    files.dedup();
    files
}

impl ConfigFile {
    /// Its path, absolute even where it was named by a relative one; see [`Config::from_file`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// With places still to be noted.
    pub(crate) fn new(path: PathBuf, bytes: &[u8]) -> ConfigFile {
        ConfigFile { path, bytes: bytes.into(), places: HashMap::new() }
    }

    /// What was read, for whoever comes back to it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Remembers line and column of a key's value.
    pub(crate) fn note(&mut self, key: &str, place: (usize, usize)) {
        self.places.entry(key.to_owned()).or_insert(place);
    }

    /// The path as it stands in messages.
    pub(crate) fn shown(&self) -> String {
        on_one_line(&self.path.to_string_lossy())
    }

    /// The line of a key's value.
    pub(crate) fn line(&self, key: &str) -> Option<usize> {
        self.place(key).map(|(line, _)| line)
    }

    fn place(&self, key: &str) -> Option<(usize, usize)> {
        self.places.get(key).copied()
    }
}

/// Text for a message, which is one line, without the quotes and escapes of `{:?}`.
pub fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    push_on_one_line(&mut line, text);
    line
}

/// The same behind what stands there already.
pub fn push_on_one_line(line: &mut String, text: &str) {
    for character in text.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
}

/// Bytes the way that sizes are written: with K, M or G where that is exact.
pub fn size_text(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        _ if bytes.is_multiple_of(1 << 30) => format!("{}G", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}K", bytes >> 10),
        _ => bytes.to_string(),
    }
}
