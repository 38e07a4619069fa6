//! The server: wires the threads, and owns the order in which they start and stop.

mod background;
mod confinement;
mod figures;
mod overlap;
mod relay;
mod reload;
mod role;
mod running;
mod status;
mod stragglers;

use crate::Error;
use crate::api::{Closure, Handler, IntoResponse, Layered, Layers, Next, Request};
use crate::config::site::ConfiguredSite;
use crate::config::{AllowedPaths, Config, Limits, StatusAccess, size_text};
use crate::engine::memory::{self, Plan};
use crate::generation::generation;
use crate::lifecycle::Event;
use crate::lifecycle::before::Before;
use crate::lifecycle::notify::Notifier;
use crate::lifecycle::pid_file::PidFile;
use crate::lifecycle::program::{self, Program};
use crate::lifecycle::signals::SignalThread;
use crate::lifecycle::state::Carried;
use crate::lifecycle::{link, state, way_back};
use crate::listener::{Address, Bound, Listener};
use crate::logging::requests::RequestLog;
use crate::logging::{self, Log, early, filters, start_lines};
use crate::program::{check, flags, privileges};
use crate::push::{Hub, bus};
use crate::sys::limits::data_left;
use crate::sys::privileges::{Identity, is_root};
use crate::sys::regular_file::{self, is_exposed};
use crate::sys::resident;
use crate::sys::scheduling::{Policy, schedule};
use crate::sys::stdio::{MOMENT, Stream};
pub use background::Background;
use background::BackgroundThreads;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use log::Level;
use role::Role;
use running::{ProcessContext, Running};
use status::{Access, Status, UNSAID_LINES};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
#[cfg(feature = "json")]
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a server is made of.
///
/// ```
/// use handover::{Request, Server};
/// use std::time::Duration;
///
/// let server = Server::builder()
///     .bind("127.0.0.1:0")?
///     .workers(2)
///     .stop_deadline(Duration::from_secs(5))
///     .handler(|request: &mut Request| format!("you asked for {}\n", request.path()))
///     .build()?;
/// println!("{:?}", server.listening());
/// # Ok::<(), handover::Error>(())
/// ```
///
/// Settings come as a whole, and then one by one:
///
/// ```
/// use handover::{Address, Config, Limits, Server};
/// use std::time::Duration;
///
/// let builder = Server::builder()
///     .config(Config { workers: 2, ..Config::default() })
///     .limits(Limits { body_size: 10 << 20, ..Limits::default() })
///     .listen(Address::Tcp("127.0.0.1".into(), 0))
///     .lame_duck(Duration::from_secs(5))
///     .status_routes(false)
///     .signals(false)
///     .reap_orphans(false)
///     .give_back_at_rest(false);
/// # let _ = builder;
/// ```
#[derive(Default)]
pub struct Builder {
    config: Config,
    handler: Option<Box<dyn Handler>>,
    layers: Layers,
    carry: Option<Arc<Carry>>,
    background: BackgroundThreads,
    hub: Option<Hub>,
    allowed: Option<AllowedPaths>,
}

/// An application's hooks for what it carries over.
struct Carry {
    save: Box<dyn Fn() -> Carried + Send + Sync>,
    restore: Box<dyn Fn(Carried) + Send + Sync>,
}

impl Builder {
    /// Takes all settings from `config`; what was set before is forgotten, but for the handler.
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// Adds a listener: `HOST:PORT`, `[V6]:PORT` or `unix:PATH`. Without any it is `127.0.0.1:8888`.
    ///
    /// # Errors
    /// A malformed address is a usage error. Binding happens in [`Builder::build`].
    pub fn bind(self, address: &str) -> Result<Builder, Error> {
        Ok(self.listen(address.parse()?))
    }

    /// Adds a listener.
    pub fn listen(mut self, address: Address) -> Builder {
        self.config.listen.push(address);
        self
    }

    /// Threads in the pool, 1 to 1,024. Default 4.
    pub fn workers(mut self, workers: usize) -> Builder {
        self.config.workers = workers;
        self
    }

    /// What one client may cost.
    pub fn limits(mut self, limits: Limits) -> Builder {
        self.config.limits = limits;
        self
    }

    /// How long a stop waits for what is pending. Default 10 s.
    pub fn stop_deadline(mut self, deadline: Duration) -> Builder {
        self.config.stop_deadline = deadline;
        self
    }

    /// How long to go on serving, with `/-/ready` at 503, before a stop. Default 0.
    pub fn lame_duck(mut self, duration: Duration) -> Builder {
        self.config.lame_duck = duration;
        self
    }

    /// Whether the server answers `/-/healthy` and `/-/ready` itself. Default true.
    pub fn status_routes(mut self, on: bool) -> Builder {
        self.config.status_routes = on;
        self
    }

    /// Whether the server takes the process's signals when it runs. Default true. SIGCHLD is among them only if it is
    /// ignored, which it may be since before the process was executed: then nobody could wait for a child, and no reload
    /// would work, so it is set to its default.
    pub fn signals(mut self, on: bool) -> Builder {
        self.config.signals = on;
        self
    }

    /// Whether the server waits for processes that it has not started, and so clears away orphans: as pid 1 of a
    /// container it gets those of all others, and they stay zombies until somebody does. Default false: the exit status of
    /// an application's own children would be lost. It takes the signals, [`Builder::signals`].
    pub fn reap_orphans(mut self, on: bool) -> Builder {
        self.config.reap_orphans = on;
        self
    }

    /// Whether memory is given back when nothing has happened for a second: what is free in the allocator, and pages of
    /// the program's own file, which the next request finds again in some 60 us. Default false: it is about the whole
    /// process, so for one that is the server's alone, as the program is.
    pub fn give_back_at_rest(mut self, on: bool) -> Builder {
        self.config.give_back_at_rest = on;
        self
    }

    /// Answers requests with a closure.
    pub fn handler<F, R>(mut self, handler: F) -> Builder
    where
        F: Fn(&mut Request) -> R + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        self.handler = Some(Box::new(Closure(handler)));
        self
    }

    /// Answers requests with a [`Handler`], a [`Router`](crate::Router) for example.
    pub fn service(mut self, handler: impl Handler) -> Builder {
        self.handler = Some(Box::new(handler));
        self
    }

    /// Puts a layer around the handler, whenever that is given: around all that the application answers, and not what the
    /// server answers itself, `/-/ready` for one. Of several the first written sees a request first; see
    /// [`Router::layer`](crate::Router::layer).
    ///
    /// ```
    /// use handover::{Next, Request, Server};
    ///
    /// let server = Server::builder()
    ///     .handler(|_| "hello\n")
    ///     .layer(|request: &mut Request, next: Next<'_>| ([("X-Generation", handover::generation().to_string())], next.run(request)));
    /// # let _ = server;
    /// ```
    pub fn layer<F, R>(mut self, layer: F) -> Builder
    where
        F: Fn(&mut Request, Next<'_>) -> R + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        self.layers.add(layer);
        self
    }

    /// Hands bytes of the application's own to its successor at a reload: `save` makes them, `restore` gets them.
    ///
    /// `save` is called in the last moment before the successor takes over, when no handler runs, and `restore` before the
    /// successor serves, in both modes: so nobody sees an empty state, and no write that was answered is lost. A handler that
    /// is cut at [`reload_deadline`](Config::reload_deadline) may run on, and what it writes then is lost. If the successor
    /// dies as the server, and its predecessor takes over again, what it has done meanwhile is lost with it. A predecessor
    /// of a version before this one saves when its successor serves already: then `restore` has to add. The version is the
    /// application's own, so that a successor can tell what it reads. More than 16 MiB is an error of the reload, which then does not happen, and so
    /// is a `save` that panics or takes more than 2 s. There is one: what is several states is carried over as one that has them.
    ///
    /// # Panics
    /// The second time: what was to be carried over before would be lost. So does [`carry_over_json`](Builder::carry_over_json).
    ///
    /// ```
    /// use handover::{Carried, Server};
    /// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
    ///
    /// let visits = Arc::new(AtomicU32::new(0));
    /// let (saved, restored) = (visits.clone(), visits.clone());
    /// let server = Server::builder()
    ///     .carry_over(
    ///         move || Carried { version: 1, bytes: saved.load(Ordering::Relaxed).to_le_bytes().to_vec() },
    ///         move |carried: Carried| {
    ///             if let (1, Ok(bytes)) = (carried.version, carried.bytes.try_into()) {
    ///                 restored.store(u32::from_le_bytes(bytes), Ordering::Relaxed);
    ///             }
    ///         },
    ///     )
    ///     .handler(move |_| format!("{}\n", visits.fetch_add(1, Ordering::Relaxed)));
    /// # let _ = server;
    /// ```
    #[track_caller]
    pub fn carry_over(
        mut self,
        save: impl Fn() -> Carried + Send + Sync + 'static,
        restore: impl Fn(Carried) + Send + Sync + 'static,
    ) -> Builder {
        assert!(self.carry.is_none(), "something is carried over already: put both into one state");
        self.carry = Some(Arc::new(Carry { save: Box::new(save), restore: Box::new(restore) }));
        self
    }

    /// Hands a state to the successor at a reload, written and read as JSON: [`carry_over`](Builder::carry_over) in one line.
    /// With the feature `json`, which is on.
    ///
    /// A program that has come to know another field says `#[serde(default)]` of it. One that cannot read what was handed over
    /// does not become the server: the reload fails, and the predecessor goes on with its state. 16 MiB of JSON are the most.
    ///
    /// ```
    /// use handover::Server;
    /// use std::sync::{Arc, Mutex};
    ///
    /// let visits = Arc::new(Mutex::new(0_u64));
    /// let server = Server::builder().carry_over_json(&visits).handler(move |_| {
    ///     let mut visits = visits.lock().expect("nobody panics with it");
    ///     *visits += 1;
    ///     format!("{visits}\n")
    /// });
    /// # let _ = server;
    /// ```
    #[cfg(feature = "json")]
    #[track_caller]
    pub fn carry_over_json<T>(self, state: &Arc<Mutex<T>>) -> Builder
    where
        T: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
    {
        let (saved, restored) = (state.clone(), state.clone());
        // Both panic in vain: a reload fails by that, and nothing is lost.
        let save = move || {
            let state = saved.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = serde_json::to_vec(&*state).unwrap_or_else(|error| panic!("the state is no JSON: {error}"));
            Carried { version: 1, bytes }
        };
        let restore = move |carried: Carried| {
            let read = serde_json::from_slice(&carried.bytes);
            let state = read.unwrap_or_else(|error| panic!("what was handed over is not this state: {error}"));
            *restored.lock().unwrap_or_else(PoisonError::into_inner) = state;
        };
        self.carry_over(save, restore)
    }

    /// The hub whose subscribers this server serves. What it keeps, and those that listen, move to the successor at a
    /// reload, at the same moment as what is carried over.
    ///
    /// ```
    /// use handover::{Hub, Publishers, Router, Server};
    ///
    /// let hub = Hub::new();
    /// let events = hub.namespace("public").publishers(Publishers::Local);
    /// let server = Server::builder().hub(&hub).service(Router::new().mount_service("/events", events.service()));
    /// # let _ = server;
    /// ```
    pub fn hub(mut self, hub: &Hub) -> Builder {
        self.hub = Some(hub.clone());
        self
    }

    /// Runs a closure on a thread of its own, in the process that *is* the server and in no other: while two generations
    /// stand beside each other, a sensor that is read by both would be read twice.
    ///
    /// It starts when this process serves as the server. Before a reload saves anything, or hands over, it is told to end,
    /// by [`Background::sleep`] and [`Background::is_over`], and is waited for as a handler is; if nothing comes of the
    /// reload, or this process takes over again, it starts anew. At a stop it is joined within the deadline. One that does
    /// not end is named in the log.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let server = handover::Server::builder()
    ///     .handler(|_| "hello")
    ///     .background("sensor", |background| while background.sleep(Duration::from_secs(1)) { /* read it */ });
    /// # let _ = server;
    /// ```
    pub fn background(mut self, name: &str, run: impl Fn(&Background) + Send + Sync + 'static) -> Builder {
        self.background.add(name, run);
        self
    }

    /// Keeps handlers to these paths, where the kernel has Landlock (5.13 and later) and nothing forbids it; else a line of
    /// the log says that they may open what the process may. Each call is for more paths, and without one there is no
    /// limit. The threads that run handlers, the acceptor, and the threads and processes that those start, are refused
    /// (EACCES) to open anything else, but for little that the server itself needs, and gain no privileges by what they
    /// execute (no_new_privs). A library that opens files while it is used (time zones, names of hosts, certificates)
    /// needs their paths here, and a process that a handler starts its program.
    ///
    /// It guards paths, and not execution: a handler that opens what a client names gets nothing else, but code that an
    /// attacker runs in this process has its other threads, which are not limited: main, which reloads, and those of
    /// [`Builder::background`]. What is open already stays open, and whether a file exists can be seen. It cannot be
    /// undone, so what is allowed changes with a reload. [`Config::landlock`] switches it off.
    ///
    /// ```
    /// use handover::{AllowedPaths, Request, Server};
    ///
    /// let server = Server::builder()
    ///     .confine(AllowedPaths::default().read("/srv/notes"))
    ///     .handler(|request: &mut Request| std::fs::read(format!("/srv/notes/{}", request.path())).ok());
    /// # let _ = server;
    /// ```
    ///
    /// # Errors
    /// A path that is not there is an error of [`Builder::build`], and so of the check before a reload.
    pub fn confine(mut self, allowed: AllowedPaths) -> Builder {
        self.allowed = Some(self.allowed.unwrap_or_default().and(allowed));
        self
    }

    /// Checks the settings and binds the listeners. With `check` set in the configuration nothing is bound. Those
    /// that a predecessor had bound are kept, and new addresses of a successor begin to listen when it runs. Listeners
    /// that the service manager passed (socket activation: `LISTEN_FDS` and `LISTEN_PID`) take the place of the
    /// configured ones, for the first server of the process that is built, and stay so across reloads.
    ///
    /// # Errors
    /// No handler, settings out of range, less memory than is needed, an address that cannot be bound, a passed descriptor that is no listener,
    /// a pid file that cannot be written or is another server's.
    pub fn build(self) -> Result<Server, Error> {
        way_back::arm();
        self.build_server().inspect_err(|error| way_back::go(&error.to_string()))
    }

    fn build_server(self) -> Result<Server, Error> {
        let Builder { mut config, handler, layers, carry, background, hub, allowed } = self;
        let allowed = allowed.filter(|_| config.landlock);
        let program = Program::of_this_process();
        let handler =
            handler.ok_or_else(|| Error::config(format_args!("there is no handler; give one with .handler(…)")))?;
        let handler =
            if layers.is_empty() { handler } else { Box::new(Layered::new(layers, handler)) as Box<dyn Handler> };
        config.validate()?;
        if config.announce {
            memory::bound_arenas();
        }
        config.push.used = hub.is_some();
        let access = status_access(&config)?;
        let keeps_messages = hub.is_some();
        // The page's stream needs one, and a server that checks itself has no page.
        let hub = hub.or_else(|| access.is_possible().then(status::hub_of_its_own));
        let bus =
            bus::Settings::of(&config).map_err(|what| config.error("bus_password_file", format_args!("{what}")))?;
        // The stream of the page is this host's, and on a bus it would be everybody's.
        let status = Status::new(access, hub.as_ref().filter(|_| bus.is_none()), keeps_messages);
        let memory = Plan::apply(&mut config)?;
        let identity = privileges::identity(&config)?;
        config.check |= program::is_check();
        if let Some(identity) = identity.as_ref().filter(|_| config.check) {
            privileges::check_as(&config, identity)?;
        }
        // Who takes the flags takes the log with them; an application that sets things itself has its own logger.
        let role = if config.check { None } else { Some(Role::take()?) };
        // The same for the log of requests, and for files that are one.
        let at_any_rate = matches!(role, Some(Role::Exec(..))) && !way_back::is_armed();
        if !at_any_rate {
            logging::are_different(&config).inspect_err(|error| role.iter().for_each(|role| role.hears_why(error)))?;
        }
        let becomes = match (&identity, &role) {
            (Some(identity), Some(Role::First)) => Some(identity).filter(|identity| !identity.is_ours()),
            (Some(identity), Some(role)) if !at_any_rate => {
                let who = privileges::is_who_it_should_be(&config, identity);
                who.inspect_err(|error| role.hears_why(error)).map(|()| None)?
            }
            _ => None,
        };
        if becomes.is_some() && config.give_back_at_rest {
            resident::before_another_user();
        }
        let log = match (&role, config.announce) {
            (_, false) => None,
            (None, true) => {
                filters::of(&config)?;
                None
            }
            // Where there is no way back, the connections are worth more than a log.
            (Some(role), true) => {
                let log = logging::start(&config, becomes, at_any_rate);
                Some(log.inspect_err(|error| role.hears_why(error))?)
            }
        };
        if let Some(allowed) = &allowed
            && (way_back::is_armed() || !matches!(role, Some(Role::Exec(..))))
        {
            confinement::check(allowed).inspect_err(|error| {
                if let Some(role) = &role {
                    role.hears_why(error);
                }
            })?;
        }
        let request_log = match &role {
            None => None,
            Some(role) => match RequestLog::open(&config, becomes) {
                Err(error) if at_any_rate => {
                    log::error!("{error}; requests are not logged until the next reload");
                    None
                }
                opened => opened.inspect_err(|error| role.hears_why(error))?,
            },
        };
        let addresses = config.addresses()?;
        let role::Startup { listeners, obsolete, mut inherited } = match role {
            None => role::Startup::default(),
            Some(role) => role.begin(&addresses)?,
        };
        // Behind all that only root may do, and before the first thread.
        if let Some(identity) = becomes {
            privileges::give_sockets(&listeners, identity);
            privileges::become_user(&config, identity)?;
        }
        let unsaid = inherited.inheritance.figures.take(UNSAID_LINES);
        let request_log = request_log.map(|opened| RequestLog::start(opened, unsaid)).transpose()?;
        // It is written when this process has become the server: not before a predecessor has promoted it.
        let path = config.pid_file.as_deref().filter(|_| !config.check);
        let legacy = std::mem::take(&mut inherited.legacy);
        let pid_file = match (&inherited.predecessor, generation()) {
            (Some(predecessor), _) => PidFile::prepare(path, Some((inherited.inheritance.pid, legacy)))
                .inspect_err(|error| predecessor.hears_why(error))?,
            // Not of one that has come back to its first generation.
            (None, 1) if inherited.came_back.is_none() => {
                PidFile::prepare(path, None).map_err(|error| match error.is_bind() {
                    true => error,
                    false => config.error("pid_file", format_args!("{error}{}", check::who_writes(&config))),
                })?
            }
            (None, _) => PidFile::after_exec(path, legacy),
        };
        let (events, received) = unbounded();
        Ok(Server {
            config,
            memory,
            handler,
            addresses,
            listeners,
            obsolete,
            inherited,
            carry,
            background,
            hub,
            bus,
            keeps_messages,
            allowed,
            status,
            identity,
            program,
            log,
            request_log,
            pid_file,
            events,
            received,
        })
    }
}

/// Who may see the server's figures, and by which token.
fn status_access(config: &Config) -> Result<Access, Error> {
    if !config.status_routes {
        return Ok(Access { who: StatusAccess::Nobody, token: None });
    }
    let read = |path: &PathBuf| {
        let wrong = |what: &str| config.error("status_token_file", format_args!("status_token_file {path:?}: {what}"));
        let token = regular_file::read(path, 4096, "it is not a regular file", "it has more than 4096 bytes");
        let token = token.map_err(|what| wrong(&what))?;
        let token = token.trim_ascii();
        let is_token = |byte: &u8| byte.is_ascii_graphic() && !b"\"%&+".contains(byte);
        if token.len() < SHORTEST_TOKEN || !token.iter().all(is_token) {
            let allowed = "allowed is one token of 16 or more letters, digits and signs: openssl rand -hex 32";
            return Err(wrong(allowed));
        }
        Ok(Access::digest(token))
    };
    let token = config.status_token_file.as_ref().map(read).transpose()?;
    Ok(Access { who: config.status, token })
}

/// Bytes of a token that nobody guesses.
const SHORTEST_TOKEN: usize = 16;

/// A server whose listeners are bound: clients can connect, and wait in the kernel's queue until it runs.
///
/// ```
/// use handover::{Ended, Server};
///
/// let server = Server::builder().bind("127.0.0.1:0")?.signals(false).handler(|_| "hello").build()?;
/// println!("{}", server.listening()[0]);
/// let handle = server.stop_handle();
/// let thread = std::thread::spawn(move || server.run());
/// handle.stop();
/// let ended = thread.join().expect("no panic")?;
/// assert_eq!((ended, ended.exit_code()), (Ended::Clean, 0));
/// # Ok::<(), handover::Error>(())
/// ```
pub struct Server {
    config: Config,
    /// How its memory is divided, if that was given.
    memory: Option<Plan>,
    handler: Box<dyn Handler>,
    addresses: Vec<Address>,
    listeners: Vec<Listener>,
    /// Inherited ones that the configuration no longer names.
    obsolete: Vec<Listener>,
    inherited: role::Inherited,
    carry: Option<Arc<Carry>>,
    background: BackgroundThreads,
    hub: Option<Hub>,
    /// Through what its messages go, where several hosts serve them.
    bus: Option<bus::Settings>,
    /// Whether that is the application's, and no page's alone.
    keeps_messages: bool,
    /// What requests may open; `None` is whatever the process may.
    allowed: Option<AllowedPaths>,
    status: Status,
    /// Whom it serves as, if that is said.
    identity: Option<Identity>,
    program: &'static Program,
    log: Option<Arc<Log>>,
    request_log: Option<Arc<RequestLog>>,
    pid_file: PidFile,
    events: Sender<Event>,
    received: Receiver<Event>,
}

/// How a server ended. See the example of [`Server`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was stopped and everything pending was finished; or it only checked its settings.
    Clean,
    /// The stop deadline cut that many requests.
    Cut(usize),
    /// It was stopped at once, by a second signal or QUIT.
    AtOnce,
    /// A successor serves on, with the connections; it is the server now.
    HandedOver,
}

impl Ended {
    /// The exit code for it: 0 clean or handed over, 3 requests were cut at the deadline, 4 stopped at once. See the example
    /// of [`Server`].
    pub fn exit_code(self) -> u8 {
        match self {
            Ended::Clean | Ended::HandedOver => 0,
            Ended::Cut(_) => 3,
            Ended::AtOnce => 4,
        }
    }
}

/// Turns how a server ended into an exit code; an error is printed on stderr as one line.
///
/// ```no_run
/// use handover::{Config, Server};
///
/// fn main() -> std::process::ExitCode {
///     let server = Server::builder().config(Config::from_args()).handler(|_: &mut handover::Request| "hello world");
///     handover::exit_code(server.build().and_then(Server::run))
/// }
/// ```
pub fn exit_code(result: Result<Ended, Error>) -> ExitCode {
    match result {
        Ok(ended) => ended.exit_code().into(),
        Err(error) => {
            way_back::go(&error.to_string());
            early::last_words(&flags::program_name(), format_args!("{error}"));
            error.exit_code().into()
        }
    }
}

/// Stops a server from another thread, without any signal. See the example of [`Server`].
#[derive(Clone, Debug)]
pub struct StopHandle(Sender<Event>);

impl StopHandle {
    /// Stops gracefully, as TERM does, in the example of [`Server`]; said again after 250 ms or more, at once.
    pub fn stop(&self) {
        // A server that has ended is stopped.
        let _ = self.0.send(Event::Stop);
    }

    /// Stops at once, as QUIT does; otherwise as [`stop`](StopHandle::stop) in the example of [`Server`].
    pub fn stop_now(&self) {
        let _ = self.0.send(Event::StopNow);
    }
}

impl Server {
    /// Begins a server. See the example of [`Builder`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where it listens, with the ports that were taken.
    pub fn listening(&self) -> Vec<Bound> {
        self.listeners.iter().map(|listener| listener.bound().clone()).collect()
    }

    /// A handle that stops it.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.events.clone())
    }

    /// Serves until stopped, and answers how it ended.
    ///
    /// # Errors
    /// A thread cannot be started, or the poller fails.
    pub fn run(self) -> Result<Ended, Error> {
        self.run_server().inspect_err(|error| way_back::go(&error.to_string()))
    }

    fn run_server(self) -> Result<Ended, Error> {
        if self.config.check {
            self.print_check()?;
            return Ok(Ended::Clean);
        }
        // An exec'ing predecessor may have left us its acceptor's policy; threads inherit it.
        schedule(Policy::Other);
        // Signals first: whatever starts after this has them blocked.
        if self.inherited.came_back.is_some() {
            start_lines::nothing_is_new();
        }
        let notes = self.program.note().into_iter().chain(filters::note(&self.config));
        let secret = self.config.secret_files();
        let exposed = secret.iter().filter_map(|(kind, path)| is_exposed(kind, path));
        notes.chain(exposed).for_each(|note| start_lines::say(Level::Warn, note));
        // What is pending stays so for whoever comes back, until this process serves.
        let (serving, serves) = bounded::<()>(0);
        let signals = match self.config.signals {
            true => SignalThread::start(self.events.clone(), self.config.reap_orphans, serves)?,
            false => None,
        };
        let Server {
            mut config,
            memory,
            handler,
            listeners,
            obsolete,
            inherited,
            carry,
            background,
            hub,
            bus,
            keeps_messages,
            allowed,
            status,
            identity,
            addresses,
            program,
            log,
            request_log,
            pid_file,
            events,
            received,
        } = self;
        let directories = config.sites().flat_map(ConfiguredSite::directories).count() as u64;
        let is_first = inherited.predecessor.is_none() && generation() == 1 && inherited.came_back.is_none();
        let possible = raise_descriptor_limit(&mut config.limits, directories, inherited.predecessor.is_some());
        // One that goes on with connections does so with what it has.
        if possible < LEAST_DESCRIPTORS && is_first {
            let wrong =
                format!("only {possible} files may be open, and {LEAST_DESCRIPTORS} have to be (see ulimit -n)");
            return Err(Error::runtime(format_args!("cannot serve"), io::Error::other(wrong)));
        }
        // Before there are any: what is refused in one that begins to work ends the process.
        let needed = memory::threads(&config);
        if let Some(left) = data_left().filter(|left| *left < needed && is_first) {
            let (workers, needed, left) = (config.workers, size_text(needed), size_text(left));
            let wrong = format!(
                "{workers} workers take {needed} of memory, and {left} are left \
                 (fewer workers, or a smaller worker_stack; see ulimit -d)"
            );
            return Err(Error::runtime(format_args!("cannot serve"), io::Error::other(wrong)));
        }
        let of = |listeners: &[Listener]| listeners.iter().map(|listener| listener.bound().clone()).collect();
        let announcement = Announcement {
            bound: of(&listeners),
            gone: of(&obsolete),
            workers: config.workers,
            on_stdout: config.announce,
            log: log.clone(),
        };
        let notifier = Notifier::from_env();
        let context = ProcessContext {
            user: identity.as_ref().map(|identity| identity.user().to_owned()),
            program,
            carry,
            background,
            hub,
            bus: bus.filter(|_| keeps_messages),
            keeps_messages,
            allowed,
            status,
            log,
            request_log,
            pid_file,
            notifier,
            signals,
            sender: events,
            events: received,
        };
        let predecessor = inherited.predecessor.clone();
        let (came_back, waits_for_go) = (inherited.came_back.is_some(), inherited.waits_for_go);
        let mut running = Running::start(
            &config,
            memory.as_ref().map(Plan::budget),
            handler,
            listeners,
            obsolete,
            inherited,
            context,
        )
        .inspect_err(|error| predecessor.iter().for_each(|predecessor| predecessor.hears_why(error)))?;
        drop(predecessor);
        drop(serving);
        running.accept()?;
        if generation() == 1 && !came_back {
            say_who_serves(&config, &addresses, identity.as_ref());
        }
        if let Some(memory) = &memory {
            start_lines::say_if_new(Level::Info, &memory.asked_for(), &format!("memory {}", memory.describe()));
        }
        // One that came back is as ready as before, and nobody has heard that it was not.
        if waits_for_go {
            running.announce_when_it_serves(move || announcement.make());
        } else if !came_back {
            announcement.make();
        }
        let ended = running.supervise(&config);
        running.finish(ended)
    }

    fn print_check(&self) -> Result<(), Error> {
        // What root opens before it becomes another user, and is kept through reloads, is another matter than what a reload
        // opens anew.
        let identity = self.identity.as_ref().filter(|_| !program::is_check());
        check::can_write(&self.config, identity.is_some())?;
        if let Some(before) = Before::of_this_check() {
            privileges::can_succeed(&before, &self.config, &self.addresses)?;
        }
        let asked = self.bus.as_ref().filter(|_| self.config.check_bus).map(bus::Settings::try_out).transpose();
        let asked = asked.map_err(|why| self.config.error("bus", format_args!("cannot use the bus: {why}")))?;
        if self.config.check_bus && asked.is_none() {
            return Err(Error::usage(format_args!(
                "--check=bus: there is no bus to ask; say where it is with --bus URL"
            )));
        }
        let mut report = check::report(&self.config, self.memory.as_ref(), &self.addresses, &self.handler.describe());
        if let Some(allowed) = &self.allowed {
            report.push_str(&format!("landlock   requests can open {allowed}, if the kernel has Landlock\n"));
        }
        if let Some(asked) = asked {
            report.push_str(&format!("{:<10} {asked}\n", "bus"));
        }
        let list =
            |versions: RangeInclusive<u32>| versions.map(|version| version.to_string()).collect::<Vec<_>>().join(",");
        let (states, words) = (list(state::versions()), list(link::words()));
        if let Some(identity) = identity {
            if !identity.is_ours() {
                report.push_str(&format!("warning    not checked as {identity}: only root can become another user\n"));
            }
            for (warns, line) in privileges::needs_restart(&self.config, &self.addresses, identity.user()) {
                report.push_str(&format!("{:<10} {line}\n", if warns { "warning" } else { "note" }));
            }
        }
        let (of_states, of_words) = (program::VERSIONS_LINE, program::WORDS_LINE);
        report.push_str(&format!("{of_states}{states}\n{of_words}{words}\n{}\n", program::WAY_BACK_LINE));
        let conversations = self.hub.as_ref().map_or_else(Vec::new, |hub| hub.conversations().names());
        for name in conversations {
            report.push_str(&format!("{}{}\n", program::CONVERSATION_LINE, serde_json::Value::from(&*name)));
        }
        report.push_str("configuration is valid\n");
        // Who asked for it reads it, so it may wait for that. A closed stdout is no reason to fail: the exit code says the
        // same.
        let _ = io::stdout().write_all(report.as_bytes());
        Ok(())
    }
}

/// And what that cannot do again.
fn say_who_serves(config: &Config, addresses: &[Address], identity: Option<&Identity>) {
    let Some(identity) = identity else {
        if is_root() {
            log::warn!("serving as root: whatever goes wrong has all rights of this host; --user NAME gives them up");
        }
        return;
    };
    log::info!("serving as {identity}");
    for (warns, line) in privileges::needs_restart(config, addresses, identity.user()) {
        log::log!(if warns { log::Level::Warn } else { log::Level::Info }, "{line}");
    }
}

/// What a server says when it serves.
struct Announcement {
    bound: Vec<Bound>,
    /// Where its predecessor listened, and it does not.
    gone: Vec<Bound>,
    workers: usize,
    on_stdout: bool,
    log: Option<Arc<Log>>,
}

impl Announcement {
    fn make(self) {
        let Announcement { bound, gone, workers, on_stdout, log } = self;
        for gone in gone {
            log::info!("no longer listening on {gone}");
        }
        // What stands on stdout in the same place need not stand there twice.
        if !(on_stdout && log.is_some_and(|log| log.is_beside_stdout())) {
            bound.iter().for_each(|bound| start_lines::say(Level::Info, format_args!("listening on {bound}")));
            log::info!("ready with {workers} workers");
        }
        if on_stdout {
            let mut text: String = bound.iter().map(|bound| format!("listening on {bound}\n")).collect();
            let pid = std::process::id();
            text.push_str(&format!("ready pid={pid} workers={workers} generation={}\n", generation()));
            // A supervisor that has read the first generation's need not read on, and its pipe is full one day.
            match Stream::stdout().write_within(text.as_bytes(), MOMENT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    log::warn!("nobody reads stdout: it is full, and \"ready\" is said in the log alone");
                }
                // One that is closed, or on a full disk, is no reason to fail.
                _ => {}
            }
        }
    }
}

/// Descriptors besides those of connections: listeners, log, poller, files that are kept open, the application's own.
const DESCRIPTOR_RESERVE: u64 = 128;

/// With fewer nothing is served: a start has half of these open, and then there are the first connection and its file.
const LEAST_DESCRIPTORS: u64 = 32;

/// Raises the soft limit of descriptors for connections that each send a file of their own, the directories that are served,
/// and a reserve; lowers the connections where not even they have one each. A successor gets the predecessor's connections
/// besides its own. Answers how many there may be.
fn raise_descriptor_limit(limits: &mut Limits, directories: u64, succeeds: bool) -> u64 {
    use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
    // Of 32 bits on some hosts.
    #[allow(clippy::unnecessary_cast)]
    let current = || getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, hard)| (soft as u64, hard as u64));
    let (soft, hard) = match current() {
        Ok(limit) => limit,
        Err(error) => {
            log::warn!("cannot read the limit of open files, going on as it is: {error}");
            return u64::MAX;
        }
    };
    let connections = limits.connections as u64;
    let reserve = DESCRIPTOR_RESERVE / 2 + directories;
    let least = connections + reserve;
    let generations = if succeeds { 2 } else { 1 };
    let wished = (2 * connections * generations + reserve + DESCRIPTOR_RESERVE / 2).min(hard);
    if soft < wished
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, wished as rlim_t, hard as rlim_t)
    {
        log::warn!("cannot raise the limit of open files to {wished}: {error}");
    }
    let possible = current().map_or(soft, |(soft, _)| soft);
    if possible < least {
        let connections = possible.saturating_sub(reserve).max(1);
        let line = format!("only {possible} files may be open: the limit is {connections} connections (see ulimit -n)");
        start_lines::say(Level::Warn, line);
        limits.connections = usize::try_from(connections).unwrap_or(usize::MAX);
    } else if possible < 2 * connections {
        let files = possible - least;
        let line = format!("{possible} files may be open: of {connections} connections, {files} can send a file each");
        start_lines::say(Level::Info, line);
    }
    possible
}
