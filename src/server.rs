//! The server: wires the threads, and owns the order in which they start and stop.

use crate::acceptor::{Acceptor, Command, Policy, WAKER, schedule};
use crate::clock::Millis;
use crate::config::{Config, Limits};
use crate::connection::{Connection, InFlight, Permits, Services, Stats};
use crate::handler::{Closure, Handler, IntoResponse, Request};
use crate::lifecycle::program::{self, Program};
use crate::lifecycle::signals::SignalThread;
use crate::lifecycle::state::{
    CARRY_LIMIT, Carried, Counters, ExecState, Inheritance, InheritedListener, MovedConnection, VERSIONS,
};
use crate::lifecycle::{Event, Phase, exec};
use crate::listener::{Address, Bound, Listener};
use crate::logging::{Log, init_logging};
use crate::worker::{Return, Returns, Worker};
use crate::{Error, activation, cli};
use crossbeam_channel::{Receiver, Sender, TryRecvError, after, bounded, never, select, unbounded};
use std::convert::Infallible;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long the program on disk may take to check itself.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a check is looked at.
const CHECK_POLL: Duration = Duration::from_millis(2);
/// How often handlers that ran at HUP are looked at.
const HANDLER_POLL: Duration = Duration::from_millis(5);
/// How long to serve between two holds.
const HOLD_PAUSE: Duration = Duration::from_millis(500);
/// Two stop signals closer together than this are one: a terminal and a supervisor both signal the whole group.
const SECOND_STOP: Duration = Duration::from_millis(250);
/// How long workers get to notice that their connections were cut.
const CUT_GRACE: Duration = Duration::from_millis(250);
/// How long the acceptor gets to cut, and to log, what may be very many connections.
const CUT_PATIENCE: Duration = Duration::from_secs(2);
/// The acceptor only moves descriptors and deadlines.
const ACCEPTOR_STACK: usize = 128 * 1024;
/// Descriptors besides the connections: listeners, log, poller, the application's own files.
const DESCRIPTOR_RESERVE: u64 = 64;

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
#[derive(Default)]
pub struct Builder {
    config: Config,
    handler: Option<Box<dyn Handler>>,
    carry: Option<Carry>,
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

    /// Whether the server takes the process's signals when it runs. Default true.
    pub fn signals(mut self, on: bool) -> Builder {
        self.config.signals = on;
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

    /// Hands bytes of the application's own to its successor at a reload: `save` makes them, `restore` gets them.
    ///
    /// `save` is called in the last moment before the successor takes over, when the handlers of this generation rest
    /// or finish; `restore` before the successor serves. The version is the application's own, so that a successor
    /// can tell what it reads. More than 16 MiB is an error of the reload, which then does not happen.
    ///
    /// ```
    /// use handover::{Carried, Server};
    /// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
    ///
    /// let visits = Arc::new(AtomicU64::new(0));
    /// let (saved, restored) = (visits.clone(), visits.clone());
    /// let server = Server::builder()
    ///     .carry_over(
    ///         move || Carried { version: 1, bytes: saved.load(Ordering::Relaxed).to_le_bytes().to_vec() },
    ///         move |carried: Carried| {
    ///             if let (1, Ok(bytes)) = (carried.version, carried.bytes.try_into()) {
    ///                 restored.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
    ///             }
    ///         },
    ///     )
    ///     .handler(move |_| format!("{}\n", visits.fetch_add(1, Ordering::Relaxed)));
    /// # let _ = server;
    /// ```
    pub fn carry_over(
        mut self,
        save: impl Fn() -> Carried + Send + Sync + 'static,
        restore: impl Fn(Carried) + Send + Sync + 'static,
    ) -> Builder {
        self.carry = Some(Carry { save: Box::new(save), restore: Box::new(restore) });
        self
    }

    /// Checks the settings and binds the listeners. With `check` set in the configuration nothing is bound. Listeners
    /// that the service manager passed (socket activation: `LISTEN_FDS` and `LISTEN_PID`) take the place of the
    /// configured ones, for the first server of the process that is built, and stay so across reloads.
    ///
    /// # Errors
    /// No handler, settings out of range, an address that cannot be bound, a passed descriptor that is no listener.
    pub fn build(self) -> Result<Server, Error> {
        let Builder { mut config, handler, carry } = self;
        let program = Program::of_this_process();
        let handler = handler.ok_or_else(|| Error::config("there is no handler; give one with .handler(…)"))?;
        config.validate()?;
        config.check |= Role::is_check();
        // Who takes the flags takes the log with them; an application that sets things itself has its own logger.
        let log = if config.announce && !config.check { Some(init_logging(&config)?) } else { None };
        let addresses = config.addresses()?;
        let (mut listeners, mut obsolete) = (Vec::new(), Vec::new());
        let mut inherited = None;
        if !config.check {
            let mut state = Role::take_state()?;
            let kept = match &mut state {
                Some(state) => inherit_listeners(state),
                None => activation::inherited_from_env()?,
            };
            (listeners, obsolete) = bind_or_keep(&addresses, kept, state.is_some())?;
            inherited = state;
        }
        let (events, received) = unbounded();
        Ok(Server { config, handler, addresses, listeners, obsolete, inherited, carry, program, log, events, received })
    }
}

/// What this process was started as, by its predecessor or by nobody.
struct Role;

impl Role {
    fn is_check() -> bool {
        std::env::var_os(program::CHECK).is_some()
    }

    /// The state that this process left itself by execve, for the first server that is built.
    fn take_state() -> Result<Option<ExecState>, Error> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let Some(number) = std::env::var(program::STATE).ok().filter(|_| !TAKEN.swap(true, Ordering::SeqCst)) else {
            return Ok(None);
        };
        let state = exec::take_over(&number)
            .map_err(|error| Error::runtime(format!("cannot take over: {error}"), io::Error::other(error)))?;
        GENERATION.store(state.inheritance.generation as usize + 1, Ordering::Relaxed);
        Ok(Some(state))
    }
}

fn inherit_listeners(state: &mut ExecState) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for inherited in std::mem::take(&mut state.inheritance.listeners) {
        match Listener::inherit(exec::own(inherited.fd), inherited.address, inherited.file) {
            Ok(listener) => listeners.push(listener),
            Err(error) => log::error!("cannot go on with an inherited listener: {error}"),
        }
    }
    listeners
}

/// Keeps the inherited listeners that the configuration still names, binds the others, and answers which have become
/// obsolete. Where the service manager passed listeners it decides, and the configuration's are not bound. `succeeding`: there is no predecessor to go back to, so one that cannot be bound is an error in the log.
fn bind_or_keep(
    addresses: &[Address],
    inherited: Vec<Listener>,
    succeeding: bool,
) -> Result<(Vec<Listener>, Vec<Listener>), Error> {
    let (mut listeners, mut inherited): (Vec<_>, Vec<_>) = inherited.into_iter().partition(Listener::is_shared);
    if !listeners.is_empty() {
        log::info!("the listeners are the service manager's, not those of the configuration");
        return Ok((listeners, inherited));
    }
    for address in addresses {
        let text = address.to_string();
        let (kept, others): (Vec<_>, Vec<_>) =
            inherited.into_iter().partition(|listener| listener.inheritance().0 == text);
        inherited = others;
        if !kept.is_empty() {
            listeners.extend(kept);
            continue;
        }
        match Listener::bind(address) {
            Ok(bound) => listeners.extend(bound),
            Err(error) if succeeding => log::error!("{error}; serving without it"),
            Err(error) => return Err(error),
        }
    }
    Ok((listeners, inherited))
}

/// A server whose listeners are bound: clients can connect, and wait in the kernel's queue until it runs.
pub struct Server {
    config: Config,
    handler: Box<dyn Handler>,
    addresses: Vec<Address>,
    listeners: Vec<Listener>,
    /// Inherited ones that the configuration no longer names.
    obsolete: Vec<Listener>,
    inherited: Option<ExecState>,
    carry: Option<Carry>,
    program: &'static Program,
    log: Option<Arc<Log>>,
    events: Sender<Event>,
    received: Receiver<Event>,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was stopped and everything pending was finished; or it only checked its settings.
    Clean,
    /// The stop deadline cut that many requests.
    Cut(usize),
    /// It was stopped at once, by a second signal or QUIT.
    AtOnce,
}

impl Ended {
    /// The exit code for it: 0 clean, 3 requests were cut at the deadline, 4 stopped at once.
    pub fn exit_code(self) -> u8 {
        match self {
            Ended::Clean => 0,
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
            // A closed stderr is no reason to fail in another way.
            let line = format!("{}: {error}\n", cli::program_name());
            let _ = io::stderr().write_all(line.as_bytes());
            error.exit_code().into()
        }
    }
}

/// Stops a server from another thread, without any signal.
#[derive(Clone, Debug)]
pub struct StopHandle(Sender<Event>);

impl StopHandle {
    /// Stops gracefully, as TERM does; said again after 250 ms or more, at once.
    pub fn stop(&self) {
        // A server that has ended is stopped.
        let _ = self.0.send(Event::Stop);
    }

    /// Stops at once, as QUIT does.
    pub fn stop_now(&self) {
        let _ = self.0.send(Event::StopNow);
    }
}

/// Which execution of the program this is, counting from 1; a reload adds one.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed) as u64
}

static GENERATION: AtomicUsize = AtomicUsize::new(1);

impl Server {
    /// Begins a server.
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
        if self.config.check {
            self.print_check();
            return Ok(Ended::Clean);
        }
        // An exec'ing predecessor may have left us its acceptor's policy; threads inherit it.
        schedule(Policy::Other);
        // Signals first: whatever starts after this has them blocked.
        let signals = match self.config.signals {
            true => SignalThread::start(self.events.clone())?,
            false => None,
        };
        let Server {
            mut config, handler, listeners, obsolete, inherited, carry, program, log, events, received, ..
        } = self;
        raise_descriptor_limit(&mut config.limits);
        let bound: Vec<Bound> = listeners.iter().map(|listener| listener.bound().clone()).collect();
        let ExecState { inheritance, connections } = inherited.unwrap_or_default();
        if let (Some(carry), Some(carried)) = (&carry, inheritance.carried) {
            (carry.restore)(carried);
        }
        if inheritance.reload_again {
            // The channel cannot be closed: we hold the other end.
            let _ = events.send(Event::Reload);
        }
        let outside = Outside { program, carry, log, signals, events: received, counters: inheritance.counters };
        let mut running = Running::start(&config, handler, listeners, obsolete, connections, outside)?;
        announce(&config, &bound);
        let ended = running.supervise(&config);
        running.finish(ended)
    }

    fn print_check(&self) {
        let limits = &self.config.limits;
        let mut out = io::stdout().lock();
        let mut print = |line: String| drop(writeln!(out, "{line}"));
        for address in &self.addresses {
            print(format!("would listen on {address}"));
        }
        print(format!("workers {}, connections {}", self.config.workers, limits.connections));
        print(format!("{}{}", program::VERSIONS_LINE, VERSIONS.map(|version| version.to_string()).join(",")));
        print("configuration is valid".to_owned());
    }
}

fn announce(config: &Config, bound: &[Bound]) {
    for bound in bound {
        log::info!("listening on {bound}");
    }
    log::info!("ready with {} workers", config.workers);
    if config.announce {
        let mut out = io::stdout().lock();
        for bound in bound {
            let _ = writeln!(out, "listening on {bound}");
        }
        let (pid, workers) = (std::process::id(), config.workers);
        let _ = writeln!(out, "ready pid={pid} workers={workers} generation={}", generation());
        let _ = out.flush();
    }
}

/// Raises the soft limit of descriptors for the connections and a reserve; lowers the connections where it cannot.
fn raise_descriptor_limit(limits: &mut Limits) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limits.connections as u64 + DESCRIPTOR_RESERVE;
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let possible = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    limit.current = Some(possible);
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::warn!("cannot raise the limit of open files to {possible}: {error}");
    }
    let possible = getrlimit(Resource::Nofile).current.unwrap_or(wanted);
    if possible < wanted {
        let connections = possible.saturating_sub(DESCRIPTOR_RESERVE).max(1);
        log::warn!("only {possible} files may be open: the limit is {connections} connections (see ulimit -n)");
        limits.connections = usize::try_from(connections).unwrap_or(usize::MAX);
    }
}

/// What a running server has besides its threads.
struct Outside {
    program: &'static Program,
    carry: Option<Carry>,
    log: Option<Arc<Log>>,
    signals: Option<SignalThread>,
    events: Receiver<Event>,
    /// Of the generations before.
    counters: Counters,
}

/// A running server, seen from the main thread.
struct Running {
    services: Arc<Services>,
    acceptor: JoinHandle<io::Result<()>>,
    workers: Vec<JoinHandle<()>>,
    in_flight: Vec<Arc<InFlight>>,
    commands: Sender<Command>,
    returns: Returns,
    /// The listeners' descriptors, which the acceptor owns, for a successor.
    listeners: Vec<Descriptor>,
    outside: Outside,
    /// Disconnects when the last worker has ended.
    done: Receiver<Infallible>,
}

/// A listener's descriptor, its address as configured, and its socket file's device and inode.
type Descriptor = (RawFd, String, Option<(u64, u64)>);

/// What the main thread waits for.
enum Waited {
    Event(Event),
    Time,
    /// All workers have ended.
    Over,
}

/// Why a reload did not happen.
enum NoReload {
    Failed(String),
    Stop,
    StopNow,
}

impl Running {
    fn start(
        config: &Config,
        handler: Box<dyn Handler>,
        listeners: Vec<Listener>,
        obsolete: Vec<Listener>,
        connections: Vec<MovedConnection>,
        outside: Outside,
    ) -> Result<Running, Error> {
        let failed = |what: &str, error: io::Error| Error::runtime(format!("cannot start {what}: {error}"), error);
        let poll = mio::Poll::new().map_err(|error| failed("the poller", error))?;
        let waker = mio::Waker::new(poll.registry(), WAKER).map_err(|error| failed("the poller", error))?;
        let (returned, from_workers) = unbounded();
        let returns = Returns::new(returned, Arc::new(waker));
        let granted = returns.clone();
        let services = Arc::new(Services {
            limits: config.limits.clone().clamped(),
            handler,
            status_routes: config.status_routes,
            phase: Phase::default(),
            stats: Stats::new(config.workers),
            // At most half of the pool may wait for clients.
            permits: Permits::new((config.workers / 2).max(1), move |token| granted.send(Return::Granted(token))),
        });
        // The predecessor's limit may have been higher.
        let (jobs, work) = bounded(config.limits.connections.max(connections.len()));
        let (commands, commanded) = unbounded();
        let (done_sender, done) = bounded(0);
        let descriptors = listeners.iter().map(|listener| {
            let (address, file) = listener.inheritance();
            (listener.as_raw_fd(), address.to_owned(), file)
        });
        let descriptors = descriptors.collect();
        let mut acceptor =
            Acceptor::new(poll, listeners, jobs, from_workers, returns.clone(), commanded, services.clone())
                .map_err(|error| failed("the poller", error))?;
        acceptor.leave(obsolete, config.stop_deadline / 4);
        for MovedConnection { fd, file, snapshot } in connections {
            match Connection::restore(snapshot, exec::own(fd), file.map(exec::own)) {
                Some(restored) => acceptor.adopt(restored),
                None => log::error!("a connection of the predecessor could not be restored"),
            }
        }
        let mut workers = Vec::new();
        let mut in_flight = Vec::new();
        for index in 0..config.workers {
            let flight = Arc::new(InFlight::default());
            in_flight.push(flight.clone());
            let worker = Worker {
                index,
                jobs: work.clone(),
                returns: returns.clone(),
                services: services.clone(),
                in_flight: flight,
                done: done_sender.clone(),
            };
            workers.push(worker.spawn(config.worker_stack).map_err(|error| failed("a worker", error))?);
        }
        let acceptor = thread::Builder::new()
            .name("acceptor".into())
            .stack_size(ACCEPTOR_STACK)
            .spawn(move || acceptor.run())
            .map_err(|error| failed("the acceptor", error))?;
        Ok(Running { services, acceptor, workers, in_flight, commands, returns, listeners: descriptors, outside, done })
    }

    fn wait(&self, until: Option<Instant>) -> Waited {
        let time = until.map_or_else(never, |until| after(until.saturating_duration_since(Instant::now())));
        select! {
            recv(self.outside.events) -> event => event.map_or(Waited::Over, Waited::Event),
            recv(self.done) -> _ => Waited::Over,
            recv(time) -> _ => Waited::Time,
        }
    }

    /// Waits for what happens until the server has ended; `None` if its threads failed.
    fn supervise(&mut self, config: &Config) -> Option<Ended> {
        loop {
            match self.wait(None) {
                Waited::Event(Event::Stop) => return Some(self.stop(config)),
                Waited::Event(Event::StopNow) => return Some(Ended::AtOnce),
                Waited::Event(Event::Reopen) => self.reopen_log(),
                // Nothing ends the pool but a stop: the acceptor has failed.
                Waited::Over | Waited::Time => return None,
                Waited::Event(Event::Reload) => loop {
                    let mut again = false;
                    match self.reload_by_exec(config, &mut again) {
                        NoReload::Stop => return Some(self.stop(config)),
                        NoReload::StopNow => return Some(Ended::AtOnce),
                        NoReload::Failed(reason) => log::error!("reload failed, serving on: {reason}"),
                    }
                    if !again {
                        break;
                    }
                },
            }
        }
    }

    /// Ends the threads and says the last line.
    fn finish(mut self, ended: Option<Ended>) -> Result<Ended, Error> {
        let signals = self.outside.signals.take();
        let counters = self.counters();
        let ended = match ended {
            Some(ended) => {
                // Threads that do not end, because a handler does not, end with the process.
                if self.pool_has_ended() {
                    self.join();
                }
                Ok(ended)
            }
            None => {
                let error = match self.acceptor.join() {
                    Ok(Err(error)) => error,
                    _ => io::Error::other("it panicked"),
                };
                Err(Error::runtime(format!("the acceptor failed: {error}"), error))
            }
        };
        let cut = match ended {
            Ok(Ended::Cut(cut)) => cut,
            _ => 0,
        };
        let Counters { served, refused, migrated, .. } = counters;
        log::info!("stopped: served={served} migrated={migrated} refused={refused} cut={cut}");
        log::logger().flush();
        if let Some(signals) = signals {
            signals.join();
        }
        ended
    }

    /// Becomes the program on disk. Returns only if that did not happen; then everything goes on as before.
    fn reload_by_exec(&mut self, config: &Config, again: &mut bool) -> NoReload {
        let began = Instant::now();
        let deadline = began + config.reload_deadline;
        log::info!("reloading: checking {}", self.outside.program.path().display());
        if let Err(no) = self.check_program(began + CHECK_TIMEOUT, again) {
            return no;
        }
        // Handlers that run now would only hold everything up: wait for them while serving.
        let running: Vec<_> = self.in_flight.iter().map(|flight| flight.current()).collect();
        let still = |flights: &[Arc<InFlight>]| {
            flights.iter().zip(&running).any(|(flight, number)| number.is_some() && flight.current() == *number)
        };
        while still(&self.in_flight) {
            if Instant::now() >= deadline {
                return NoReload::Failed("a handler ran until the reload deadline".into());
            }
            if let Err(no) = self.pause(HANDLER_POLL, again) {
                return no;
            }
        }
        loop {
            match self.hold(config.exec_stall.min(deadline.saturating_duration_since(Instant::now())), again) {
                Ok(Some(connections)) => {
                    let no = self.execute(connections, again);
                    self.command(Command::Resume);
                    return no;
                }
                Ok(None) => self.command(Command::Resume),
                Err(no) => {
                    self.command(Command::Resume);
                    return no;
                }
            }
            if Instant::now() >= deadline {
                return NoReload::Failed("handlers were busy until the reload deadline".into());
            }
            log::info!("reload: handlers are busy, trying again");
            if let Err(no) = self.pause(HOLD_PAUSE, again) {
                return no;
            }
        }
    }

    /// Goes on serving for a while, and sees what happens meanwhile.
    fn pause(&self, duration: Duration, again: &mut bool) -> Result<(), NoReload> {
        let until = Instant::now() + duration;
        loop {
            match self.wait(Some(until)) {
                Waited::Time => return Ok(()),
                Waited::Over => return Err(NoReload::StopNow),
                Waited::Event(event) => self.during_reload(event, again)?,
            }
        }
    }

    fn during_reload(&self, event: Event, again: &mut bool) -> Result<(), NoReload> {
        match event {
            Event::Stop => return Err(NoReload::Stop),
            Event::StopNow => return Err(NoReload::StopNow),
            Event::Reload => *again = true,
            Event::Reopen => self.reopen_log(),
        }
        Ok(())
    }

    /// Runs the program on disk as a check. It is killed if it takes too long, or if we are to stop.
    fn check_program(&self, deadline: Instant, again: &mut bool) -> Result<(), NoReload> {
        let program = self.outside.program;
        let mut check = program
            .start_check()
            .map_err(|error| NoReload::Failed(format!("cannot run {}: {error}", program.path().display())))?;
        loop {
            match check.outcome() {
                Some(Ok(versions)) if versions.contains(&VERSIONS[VERSIONS.len() - 1]) => return Ok(()),
                Some(Ok(versions)) => {
                    let ours = VERSIONS[VERSIONS.len() - 1];
                    return Err(NoReload::Failed(format!(
                        "the program on disk reads state versions {versions:?}, this one writes {ours}"
                    )));
                }
                Some(Err(reason)) => return Err(NoReload::Failed(reason)),
                None if Instant::now() >= deadline => {
                    return Err(NoReload::Failed(format!("the check did not end within {CHECK_TIMEOUT:?}")));
                }
                None => self.pause(CHECK_POLL, again)?,
            }
        }
    }

    /// Holds new work back until the pool rests: every connection, or `None` if it did not within `stall`.
    fn hold(&self, stall: Duration, again: &mut bool) -> Result<Option<Vec<MovedConnection>>, NoReload> {
        let (answer, answered) = bounded(1);
        self.command(Command::Hold { answer });
        let until = after(stall);
        loop {
            select! {
                recv(answered) -> connections => return Ok(connections.ok()),
                recv(until) -> _ => return Ok(None),
                recv(self.outside.events) -> event => match event {
                    Ok(event) => self.during_reload(event, again)?,
                    Err(_) => return Err(NoReload::StopNow),
                },
            }
        }
    }

    fn execute(&mut self, connections: Vec<MovedConnection>, again: &mut bool) -> NoReload {
        // From here on signals are pending in the kernel: the successor gets them.
        if let Some(signals) = &mut self.outside.signals {
            signals.suspend();
        }
        let no = self.execute_quietly(connections, again);
        if let Some(signals) = &mut self.outside.signals
            && let Err(error) = signals.resume()
        {
            log::error!("{error}");
        }
        no
    }

    fn execute_quietly(&self, connections: Vec<MovedConnection>, again: &mut bool) -> NoReload {
        while let Ok(event) = self.outside.events.try_recv() {
            if let Err(no) = self.during_reload(event, again) {
                return no;
            }
        }
        let carried = self.outside.carry.as_ref().map(|carry| (carry.save)());
        if carried.as_ref().is_some_and(|carried| carried.bytes.len() > CARRY_LIMIT) {
            return NoReload::Failed(format!("the application carries over more than {CARRY_LIMIT} bytes"));
        }
        let mut counters = self.counters();
        counters.migrated += connections.len() as u64;
        counters.reloads += 1;
        let listeners = self.listeners.iter().map(|(fd, address, file)| InheritedListener {
            fd: *fd,
            address: address.clone(),
            file: *file,
        });
        let inheritance = Inheritance {
            generation: generation(),
            pid: std::process::id(),
            counters,
            listeners: listeners.collect(),
            carried,
            reload_again: *again,
        };
        let moved = connections.len();
        log::info!("reloading: executing {} with {moved} connections", self.outside.program.path().display());
        log::logger().flush();
        let error = exec::hand_over(self.outside.program, &ExecState { inheritance, connections });
        NoReload::Failed(format!("cannot execute {}: {error}", self.outside.program.path().display()))
    }

    /// Counted by this generation and those before.
    fn counters(&self) -> Counters {
        let (stats, before) = (&self.services.stats, &self.outside.counters);
        Counters {
            served: before.served + stats.total_served() as u64,
            refused: before.refused + stats.total_refused() as u64,
            connections: before.connections + stats.total_accepted() as u64,
            ..*before
        }
    }

    /// The stop of the contract; see `ARCHITECTURE.md`.
    fn stop(&self, config: &Config) -> Ended {
        let began = Instant::now();
        log::info!("stopping: waiting up to {:.1} s for what is pending", config.stop_deadline.as_secs_f64());
        self.services.phase.become_lame_duck();
        if !config.lame_duck.is_zero() && self.wait_or_second_stop(began, began + config.lame_duck) == Pause::SecondStop
        {
            return Ended::AtOnce;
        }
        let deadline = Instant::now() + config.stop_deadline;
        self.services.phase.drain();
        self.command(Command::Drain { patience: config.stop_deadline / 4 });
        match self.wait_or_second_stop(began, deadline) {
            Pause::Over => Ended::Clean,
            Pause::SecondStop => Ended::AtOnce,
            Pause::Time => match (self.cut(), self.pool_has_ended()) {
                (0, true) => Ended::Clean,
                // Whatever a worker hangs in, it is something that did not finish.
                (cut, _) => Ended::Cut(cut.max(1)),
            },
        }
    }

    fn wait_or_second_stop(&self, began: Instant, until: Instant) -> Pause {
        loop {
            match self.wait(Some(until)) {
                Waited::Time => return Pause::Time,
                Waited::Over => return Pause::Over,
                Waited::Event(Event::StopNow) => return Pause::SecondStop,
                Waited::Event(Event::Stop) if began.elapsed() >= SECOND_STOP => return Pause::SecondStop,
                Waited::Event(Event::Stop) => {}
                Waited::Event(Event::Reopen) => self.reopen_log(),
                Waited::Event(Event::Reload) => log::warn!("reload is not available: the server is stopping"),
            }
        }
    }

    /// Ends what is left at the deadline, each request logged.
    fn cut(&self) -> usize {
        let now = Millis::now();
        let stats = &self.services.stats;
        for flight in &self.in_flight {
            if let Some((request, age)) = flight.cut(now) {
                stats.cut();
                log::warn!("cut {request} after {:.1} s", age.as_secs_f64());
            }
        }
        let (answer, answered) = bounded(1);
        self.command(Command::Cut { answer });
        let _ = answered.recv_timeout(CUT_PATIENCE);
        // Handlers that were streaming notice that their connection has ended; the others end with the process.
        let until = Instant::now() + CUT_GRACE;
        while let Waited::Event(_) = self.wait(Some(until)) {}
        stats.total_cut()
    }

    fn pool_has_ended(&self) -> bool {
        matches!(self.done.try_recv(), Err(TryRecvError::Disconnected))
    }

    fn reopen_log(&self) {
        if let Some(log) = &self.outside.log {
            log.reopen();
        }
    }

    fn command(&self, command: Command) {
        // An acceptor that has failed is noticed by the pool's end.
        let _ = self.commands.send(command);
        self.returns.wake();
    }

    fn join(self) {
        for thread in self.workers {
            if thread.join().is_err() {
                log::error!("a worker panicked");
            }
        }
        match self.acceptor.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::error!("the acceptor failed: {error}"),
            Err(_) => log::error!("the acceptor panicked"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    Time,
    Over,
    SecondStop,
}
