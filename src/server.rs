//! The server: wires the threads, and owns the order in which they start and stop.

use crate::acceptor::{Acceptor, Command, Policy, WAKER, schedule};
use crate::clock::Millis;
use crate::config::{Config, Limits};
use crate::connection::{InFlight, Permits, Services, Stats};
use crate::handler::{Closure, Handler, IntoResponse, Request};
use crate::lifecycle::signals::SignalThread;
use crate::lifecycle::{Event, Phase};
use crate::listener::{Address, Bound, Listener};
use crate::logging::{Log, init_logging};
use crate::worker::{Return, Returns, Worker};
use crate::{Error, cli};
use crossbeam_channel::{Receiver, Sender, after, bounded, never, select, unbounded};
use std::convert::Infallible;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Two stop signals closer together than this are one: a terminal and a supervisor both signal the whole group.
const SECOND_STOP: Duration = Duration::from_millis(250);
/// How long workers get to notice that their connections were cut.
const CUT_GRACE: Duration = Duration::from_millis(250);
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

    /// Checks the settings and binds the listeners. With `check` set in the configuration nothing is bound.
    ///
    /// # Errors
    /// No handler, settings out of range, an address that cannot be bound.
    pub fn build(self) -> Result<Server, Error> {
        let Builder { config, handler } = self;
        let handler = handler.ok_or_else(|| Error::config("there is no handler; give one with .handler(…)"))?;
        config.validate()?;
        // Who takes the flags takes the log with them; an application that sets things itself has its own logger.
        let log = if config.announce && !config.check { Some(init_logging(&config)?) } else { None };
        let addresses = config.addresses()?;
        let mut listeners = Vec::new();
        if !config.check {
            for address in &addresses {
                listeners.extend(Listener::bind(address)?);
            }
        }
        let (events, received) = unbounded();
        Ok(Server { config, handler, addresses, listeners, log, events, received })
    }
}

/// A server whose listeners are bound: clients can connect, and wait in the kernel's queue until it runs.
pub struct Server {
    config: Config,
    handler: Box<dyn Handler>,
    addresses: Vec<Address>,
    listeners: Vec<Listener>,
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
    1
}

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
        let Server { mut config, handler, listeners, log, events, received, .. } = self;
        raise_descriptor_limit(&mut config.limits);
        // Signals first: whatever starts after this has them blocked.
        let signals = match config.signals {
            true => SignalThread::start(events.clone())?,
            false => None,
        };
        let bound: Vec<Bound> = listeners.iter().map(|listener| listener.bound().clone()).collect();
        let running = Running::start(&config, handler, listeners, log, received);
        let ended = running.and_then(|running| {
            announce(&config, &bound);
            running.supervise(&config)
        });
        if let Some(signals) = signals {
            signals.join();
        }
        ended
    }

    fn print_check(&self) {
        let limits = &self.config.limits;
        let mut out = io::stdout().lock();
        let mut print = |line: String| drop(writeln!(out, "{line}"));
        for address in &self.addresses {
            print(format!("would listen on {address}"));
        }
        print(format!("workers {}, connections {}", self.config.workers, limits.connections));
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

/// A running server, seen from the main thread.
struct Running {
    services: Arc<Services>,
    acceptor: JoinHandle<io::Result<()>>,
    workers: Vec<JoinHandle<()>>,
    in_flight: Vec<Arc<InFlight>>,
    commands: Sender<Command>,
    returns: Returns,
    log: Option<Arc<Log>>,
    events: Receiver<Event>,
    /// Disconnects when the last worker has ended.
    done: Receiver<Infallible>,
}

/// What the main thread waits for.
enum Waited {
    Event(Event),
    Time,
    /// All workers have ended.
    Over,
}

impl Running {
    fn start(
        config: &Config,
        handler: Box<dyn Handler>,
        listeners: Vec<Listener>,
        log: Option<Arc<Log>>,
        events: Receiver<Event>,
    ) -> Result<Running, Error> {
        let failed = |what: &str, error: io::Error| Error::runtime(format!("cannot start {what}: {error}"), error);
        let poll = mio::Poll::new().map_err(|error| failed("the poller", error))?;
        let waker = mio::Waker::new(poll.registry(), WAKER).map_err(|error| failed("the poller", error))?;
        let (returned, from_workers) = unbounded();
        let returns = Returns::new(returned, Arc::new(waker));
        let granted = returns.clone();
        let services = Arc::new(Services {
            limits: config.limits.clone(),
            handler,
            status_routes: config.status_routes,
            phase: Phase::default(),
            stats: Stats::new(config.workers),
            // At most half of the pool may wait for clients.
            permits: Permits::new((config.workers / 2).max(1), move |token| granted.send(Return::Granted(token))),
        });
        let (jobs, work) = bounded(config.limits.connections);
        let (commands, commanded) = unbounded();
        let (done_sender, done) = bounded(0);
        let acceptor = Acceptor::new(poll, listeners, jobs, from_workers, returns.clone(), commanded, services.clone())
            .map_err(|error| failed("the poller", error))?;
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
        Ok(Running { services, acceptor, workers, in_flight, commands, returns, log, events, done })
    }

    fn wait(&self, until: Option<Instant>) -> Waited {
        let time = until.map_or_else(never, |until| after(until.saturating_duration_since(Instant::now())));
        select! {
            recv(self.events) -> event => event.map_or(Waited::Over, Waited::Event),
            recv(self.done) -> _ => Waited::Over,
            recv(time) -> _ => Waited::Time,
        }
    }

    /// Waits for what happens, and stops in the written order.
    fn supervise(self, config: &Config) -> Result<Ended, Error> {
        let ended = loop {
            match self.wait(None) {
                Waited::Event(Event::Stop) => break self.stop(config),
                Waited::Event(Event::StopNow) => break Ended::AtOnce,
                Waited::Event(Event::Reload) => log::warn!("reload is not available"),
                Waited::Event(Event::Reopen) => self.reopen_log(),
                // Nothing ends the pool but a stop: the acceptor has failed.
                Waited::Over | Waited::Time => {
                    let error = match self.acceptor.join() {
                        Ok(Err(error)) => error,
                        _ => io::Error::other("it panicked"),
                    };
                    return Err(Error::runtime(format!("the acceptor failed: {error}"), error));
                }
            }
        };
        let (served, refused, _) = self.services.stats.totals();
        let cut = match ended {
            Ended::Cut(cut) => cut,
            Ended::Clean | Ended::AtOnce => 0,
        };
        if ended == Ended::Clean {
            self.join();
        }
        log::info!("stopped: served={served} migrated=0 refused={refused} cut={cut}");
        log::logger().flush();
        Ok(ended)
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
            Pause::Time => match self.cut() {
                0 => Ended::Clean,
                cut => Ended::Cut(cut),
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
        let mut cut = 0;
        for flight in &self.in_flight {
            if let Some((request, age)) = flight.cut(now) {
                cut += 1;
                log::warn!("cut {request} in its handler after {:.1} s", age.as_secs_f64());
            }
        }
        let (answer, answered) = bounded(1);
        self.command(Command::Cut { answer });
        cut += answered.recv_timeout(CUT_GRACE).unwrap_or(0);
        // Handlers that were streaming notice that their connection has ended; the others end with the process.
        let until = Instant::now() + CUT_GRACE;
        while let Waited::Event(_) = self.wait(Some(until)) {}
        cut
    }

    fn reopen_log(&self) {
        if let Some(log) = &self.log {
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
