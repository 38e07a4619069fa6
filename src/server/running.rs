//! A server that runs, seen from the main thread: its threads, what it waits for, and how it stops.

use super::background::BackgroundThreads;
use super::confinement::Confinements;
use super::relay::Relay;
use super::role::Inherited;
use super::status::{Sources, Status};
use super::stragglers::Stragglers;
use super::{Carry, Ended, figures};
use crate::Error;
use crate::api::{Handler, Sessions};
use crate::clock::Millis;
use crate::config::{AllowedPaths, Config, ReloadMode};
use crate::engine::acceptor::{Acceptor, Command, Holders, Jobs, WAKER};
use crate::engine::connection::{Budget, Connection, Durations, Restored, Role, Shared, Stats};
use crate::engine::memory::{ACCEPTOR_STACK, STATUS_STACK};
use crate::engine::pool::work_queue::queue;
use crate::engine::pool::worker::{AcceptorHandle, Streamers, Worker};
use crate::generation::generation;
use crate::lifecycle::exec::InheritedConnection;
use crate::lifecycle::link::{Message, test_point};
use crate::lifecycle::notify::Notifier;
use crate::lifecycle::pid_file::PidFile;
use crate::lifecycle::predecessor::Predecessor;
use crate::lifecycle::program::Program;
use crate::lifecycle::signals::SignalThread;
use crate::lifecycle::state::{Counters, SavedSession, SavedSessions, decode};
use crate::lifecycle::way_back::{self, Failures};
use crate::lifecycle::{Event, FromPredecessor, Phase};
use crate::listener::{Bound, Listener, Origin, WeakListener};
use crate::logging::requests::RequestLog;
use crate::logging::{Log, early};
use crate::push::{Hub, bus, history};
use crate::sys::landlock::Confinement;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::cell::Cell;
use std::io;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Two stop signals closer together than this are one: a terminal and a supervisor both signal the whole group.
const SECOND_STOP: Duration = Duration::from_millis(250);
/// How long workers get to notice that their connections were cut.
const CUT_GRACE: Duration = Duration::from_millis(250);
/// How long the acceptor gets to cut, and to log, what may be very many connections.
const CUT_PATIENCE: Duration = Duration::from_secs(2);
/// How often a service manager hears our figures.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// By then the predecessor has told the manager which process is the main one.
const PROMOTION_SETTLES: Duration = Duration::from_millis(200);
/// How much longer than the deadline a stop waits for a predecessor that has the same deadline.
const PREDECESSOR_GRACE: Duration = Duration::from_secs(1);
/// Bytes that bodies may hold together that are collected while they wait for a thread, if `--memory` does not say less.
const COLLECTED: u64 = 16 << 20;
/// Requests that the status thread may have before it.
const STATUS_QUEUE: usize = 64;
/// How long the application's threads have before it is said that they are waited for.
const BACKGROUND_GRACE: Duration = Duration::from_secs(1);
const BACKGROUND_POLL: Duration = Duration::from_millis(2);
/// How long the word that we serve may be on its way to us.
const GO_PATIENCE: Duration = Duration::from_secs(2);
/// How long the predecessor may be slow to read from us.
const LINK_PATIENCE: Duration = Duration::from_secs(1);

/// What a running server has besides its threads.
pub struct ProcessContext {
    /// Whom it serves as, if that is said.
    pub user: Option<String>,
    pub program: &'static Program,
    pub carry: Option<Arc<Carry>>,
    pub background: BackgroundThreads,
    pub hub: Option<Hub>,
    /// Whether what that keeps is to go on: it is the application's, and no page's alone.
    pub keeps_messages: bool,
    /// What requests may open, if that is limited.
    pub allowed: Option<AllowedPaths>,
    pub status: Status,
    pub log: Option<Arc<Log>>,
    pub request_log: Option<Arc<RequestLog>>,
    /// Until it has begun.
    pub bus: Option<bus::Settings>,
    pub pid_file: PidFile,
    pub notifier: Notifier,
    pub signals: Option<SignalThread>,
    pub sender: Sender<Event>,
    pub events: Receiver<Event>,
}

/// A running server, seen from the main thread.
pub struct Running {
    pub(super) shared: Arc<Shared>,
    acceptor: AcceptorThread,
    pub(super) workers: Vec<JoinHandle<()>>,
    streamers: Arc<Streamers<Arc<Pool>>>,
    pub(super) commands: Sender<Command>,
    pub(super) to_acceptor: AcceptorHandle,
    /// What a successor is to have of the listeners, which the acceptor owns.
    pub(super) listeners: Vec<WeakListener>,
    pub(super) context: ProcessContext,
    /// Of the generations before.
    pub(super) before: Counters,
    /// While it still runs beside us.
    pub(super) predecessor: Option<Predecessor>,
    /// Whether this process is the server, and not one on probation.
    pub(super) promoted: bool,
    /// The successor that is the server now, whatever this process has left to do.
    pub(super) handed_over_to: Option<u32>,
    /// What is published here while a successor is the server.
    pub(super) stragglers: Stragglers,
    /// Where a stop writes what the hub keeps.
    history_file: Option<PathBuf>,
    /// The same, if what is there was read, and is not to be read a second time.
    read_history: Option<PathBuf>,
    /// Whether nobody else has our listeners.
    pub(super) sole_holder: bool,
    /// When the service manager is told next, and when with figures.
    beat: Cell<Option<Instant>>,
    status_due: Cell<Instant>,
    /// Requests that reloads have cut which are over.
    cut_by_reloads: usize,
    /// When the first stop came, if that was during a reload.
    pub(super) first_stop: Cell<Option<Instant>>,
    /// A HUP that came while the predecessor still ran.
    pub(super) reload_later: bool,
    /// Whether the predecessor has to say first that we serve.
    waits_for_go: bool,
    /// Whether it was told that we can: then that word may be on its way.
    can_serve: bool,
    /// Whether the successor was told to serve, and has not said that it does.
    pub(super) waits_for_serving: bool,
    /// A successor that is ready while we wait until nothing runs here.
    pub(super) beside: Cell<Option<u32>>,
    /// What is said then.
    announcement: Option<Box<dyn FnOnce()>>,
    /// Execs that led back here.
    pub(super) failures: Failures,
    /// Why the last one did, until that has been said.
    came_back: Option<String>,
    /// Has no owner any more when the last worker has ended.
    pub(super) pool: Weak<Pool>,
}

/// Every worker has a part in it: the last one to end says so.
pub struct Pool(Sender<Event>);

impl Drop for Pool {
    fn drop(&mut self) {
        // We hold the other end for as long as there is somebody to be told.
        let _ = self.0.send(Event::PoolEnded);
    }
}

/// What the main thread waits for.
pub enum Waited {
    Event(Event),
    Time,
    /// All workers have ended.
    Over,
}

impl Running {
    pub(super) fn start(
        config: &Config,
        budget: Option<u64>,
        handler: Box<dyn Handler>,
        listeners: Vec<Listener>,
        obsolete: Vec<Listener>,
        inherited: Inherited,
        context: ProcessContext,
    ) -> Result<Running, Error> {
        let failed = |what: &str, error: io::Error| {
            // Threads are refused for want of memory for their stacks, or of processes.
            let hint = match error.raw_os_error() {
                Some(libc::EAGAIN | libc::ENOMEM) => {
                    " (fewer workers, or a smaller worker_stack; see ulimit -d, -v and -u)"
                }
                _ => "",
            };
            Error::runtime(format_args!("cannot start {what}{hint}"), error)
        };
        let Inherited { inheritance, connections, hub, sessions, predecessor, came_back, waits_for_go, .. } = inherited;
        let first = predecessor.is_none() && generation() == 1;
        let is_cold = first && came_back.is_none();
        let kept = context.hub.as_ref().filter(|_| context.keeps_messages);
        let read = begin_hub(config, kept, hub.as_deref(), first)?;
        if let Some(own) = context.hub.as_ref().filter(|_| !context.keeps_messages) {
            own.inner().set_most_subscribers(config.push.subscribers(config.limits.connections));
        }
        let beside = predecessor.as_ref().filter(|predecessor| predecessor.counts());
        let status = context.status.clone();
        status.lineage().begin(inheritance.figures, beside.map(|predecessor| predecessor.link.clone()));
        if predecessor.is_some() {
            // It is the predecessor's to tell.
            status.lineage().forget_begun();
        }
        if let (Some(carry), Some(carried)) = (&context.carry, inheritance.carried) {
            (carry.restore)(carried);
        }
        if inheritance.reload_again {
            // The channel cannot be closed: we hold both ends.
            let _ = context.sender.send(Event::Reload);
        }
        let poll = mio::Poll::new().map_err(|error| failed("the poller", error))?;
        let waker = mio::Waker::new(poll.registry(), WAKER).map_err(|error| failed("the poller", error))?;
        let (messages, from_workers) = unbounded();
        let to_acceptor = AcceptorHandle::new(messages, Arc::new(waker));
        let streamers = config.streamers();
        let threads = config.workers + streamers + 1;
        let sessions_of_hub = context.hub.as_ref().map_or_else(Arc::default, |hub| hub.sessions().clone());
        let shared = Arc::new(Shared {
            limits: config.limits.clone().clamped(),
            handler,
            hub: context.hub.as_ref().map(|hub| hub.inner().clone()),
            conversations: sessions_of_hub.conversations().clone(),
            sessions: sessions_of_hub,
            status_routes: config.status_routes,
            status: OnceLock::new(),
            phase: Phase::default(),
            stats: Stats::new(threads),
            request_log: context.request_log.clone(),
            in_flight: (0..threads).map(|_| Arc::default()).collect(),
            durations: Durations::default(),
            collected: Budget::new(Some(budget.map_or(COLLECTED, |budget| (budget / 2).min(COLLECTED)))),
            budget: Budget::new(budget),
        });
        if status.is_possible() {
            // Nothing is set before.
            let _ = shared.status.set(Box::new(status.clone()));
        }
        // The predecessor's limit may have been higher.
        let (jobs, consumers) = queue(config.limits.connections.max(connections.len()), config.workers);
        let (stream_jobs, stream_consumers) = queue(streamers, streamers);
        let (status_jobs, status_consumers) = queue(STATUS_QUEUE, 1);
        let (commands, commanded) = unbounded();
        let pool = Arc::new(Pool(context.sender.clone()));
        let passed_on = listeners.iter().map(Listener::downgrade).collect();
        let jobs = Jobs { workers: jobs, streamers: stream_jobs, status: config.status_routes.then_some(status_jobs) };
        let bound: Vec<Bound> = listeners.iter().chain(&obsolete).map(|listener| listener.bound().clone()).collect();
        let mut acceptor =
            Acceptor::new(poll, listeners, jobs, from_workers, to_acceptor.clone(), commanded, shared.clone())
                .map_err(|error| failed("the poller", error))?;
        if config.give_back_at_rest {
            acceptor.give_back_at_rest();
        }
        if let Some(predecessor) = predecessor.as_ref().filter(|predecessor| predecessor.tells()) {
            acceptor.succeed(predecessor.link.clone());
        }
        let confinements = match &context.allowed {
            Some(allowed) => Confinements::new(allowed, bound.iter()),
            None => Confinements::default(),
        };
        let make = {
            let confinement = confinements.workers;
            let (to_acceptor, shared) = (to_acceptor.clone(), shared.clone());
            Arc::new(move |role, index: usize, jobs, done, streamers| Worker {
                role,
                index,
                jobs,
                to_acceptor: to_acceptor.clone(),
                shared: shared.clone(),
                confinement: confinement.clone(),
                in_flight: shared.in_flight[index].clone(),
                streamers,
                done,
            })
        };
        // Behind the workers in the order of threads.
        let missing = stream_consumers.into_iter().zip(config.workers..).map(|(jobs, index)| {
            let make = make.clone();
            let make = move |done, streamers| make(Role::Streamer, index, jobs.clone(), done, streamers);
            Box::new(make) as Box<dyn Fn(_, _) -> _ + Send>
        });
        let streamers = Arc::new(Streamers::new(config.worker_stack, missing.collect()));
        let mut workers = Vec::new();
        for (index, jobs) in consumers.into_iter().enumerate() {
            let worker = make(Role::Worker, index, jobs, pool.clone(), streamers.clone());
            workers.push(worker.spawn(config.worker_stack).map_err(|error| failed("a worker", error))?);
        }
        for jobs in status_consumers.into_iter().filter(|_| config.status_routes) {
            let status = make(Role::Status, threads - 1, jobs, pool.clone(), streamers.clone());
            workers.push(status.spawn(STATUS_STACK).map_err(|error| failed("the status thread", error))?);
        }
        let thread = AcceptorThread::start(confinements.acceptor).map_err(|error| failed("the acceptor", error))?;
        // Everything that can fail has not: what is left is done at once.
        let mut context = context;
        if let Some(hub) = &context.hub {
            if let Some(publisher) = figures::publisher(hub, &status) {
                context.background.add("figures", publisher);
            }
            if status.is_possible() {
                let status = status.clone();
                context.background.add("status", move |background| status.publish(background));
            }
            let waker = to_acceptor.clone();
            hub.inner().wakes(move || waker.wake());
        }
        let publishers = (context.hub.as_ref(), context.log.as_ref());
        status.begins(Sources::new(config, &shared, (commands.clone(), to_acceptor.clone()), publishers));
        // Before the first client comes for what the others have.
        if let (Some(hub), Some(bus)) = (&context.hub, context.bus.take()) {
            bus.start(hub.inner(), is_cold);
        }
        // Before the connections that have them.
        take_sessions_over(sessions, (shared.hub.as_ref(), &shared.sessions));
        let restored = restore(connections, (shared.hub.as_ref(), &shared.sessions))?;
        shared.conversations.restore_at_once();
        acceptor.listen(predecessor.is_none() && !way_back::is_armed())?;
        way_back::serves();
        restored.into_iter().for_each(|restored| acceptor.restore(ManuallyDrop::into_inner(restored)));
        match predecessor {
            // It serves them until we have taken over, and closes them when nobody else has any.
            Some(_) => drop(obsolete),
            None => {
                acceptor.leave(owning_files(obsolete), config.stop_deadline / 4);
                // What goes needs it until here, to keep new clients out.
                acceptor.stand_alone();
            }
        }
        if waits_for_go {
            acceptor.wait_for_go();
        }
        // Before the first client comes: one that publishes at once is not to hear that nobody serves.
        // A predecessor that says no GO has no messages for us.
        if let Some(hub) = context.hub.as_ref().filter(|_| !waits_for_go) {
            hub.inner().open();
        }
        let acceptor = thread.run(acceptor);
        Ok(Running {
            shared,
            acceptor,
            workers,
            streamers,
            commands,
            to_acceptor,
            listeners: passed_on,
            context,
            before: inheritance.counters,
            promoted: predecessor.is_none(),
            handed_over_to: None,
            stragglers: Stragglers::default(),
            history_file: config.push.history_file.clone(),
            read_history: read.map(Path::to_owned),
            sole_holder: predecessor.is_none(),
            reload_later: false,
            beat: Cell::new(None),
            status_due: Cell::new(Instant::now()),
            cut_by_reloads: 0,
            first_stop: Cell::new(None),
            predecessor,
            waits_for_go,
            can_serve: false,
            waits_for_serving: false,
            beside: Cell::new(None),
            announcement: None,
            failures: came_back.as_ref().map(|it| it.failures).unwrap_or_default(),
            came_back: came_back.map(|it| it.reason),
            pool: Arc::downgrade(&pool),
        })
    }

    pub(super) fn wait(&self, until: Option<Instant>) -> Waited {
        loop {
            // First, so that no stream of events keeps a deadline from being seen.
            let now = Instant::now();
            if self.beat.get().is_some_and(|beat| beat <= now) {
                self.tell_manager(now);
            }
            if until.is_some_and(|until| until <= now) {
                return Waited::Time;
            }
            let next = [until, self.beat.get()].into_iter().flatten().min();
            let event = match next {
                Some(next) => self.context.events.recv_deadline(next),
                None => self.context.events.recv().map_err(RecvTimeoutError::from),
            };
            match event {
                Ok(Event::PoolEnded) | Err(RecvTimeoutError::Disconnected) => return Waited::Over,
                Ok(event) => return Waited::Event(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// What a service manager hears now and then: that we live, and live figures.
    fn tell_manager(&self, now: Instant) {
        let notifier = &self.context.notifier;
        if !notifier.is_active() {
            self.beat.set(None);
            return;
        }
        notifier.watchdog();
        if self.status_due.get() <= now {
            notifier.status(&self.status());
            self.status_due.set(now + STATUS_INTERVAL);
        }
        self.beat.set(Some(now + notifier.watchdog_interval().unwrap_or(STATUS_INTERVAL).min(STATUS_INTERVAL)));
    }

    pub(super) fn status(&self) -> String {
        let Counters { served, connections, .. } = self.counters();
        format!("generation {}, {served} requests served, {connections} connections accepted", generation())
    }

    /// A successor starts to listen to its predecessor, and says that it accepts.
    pub(super) fn accept(&mut self) -> Result<(), Error> {
        if let Some(reason) = self.came_back.take() {
            let times = match self.failures.count {
                0 | 1 => String::new(),
                times => format!(" ({times} times now)"),
            };
            log::error!("reload failed, serving on: {reason}{times}");
            self.context.status.lineage().execed(Some(&reason));
            self.command(Command::OwnFiles);
            self.context.pid_file.came_back(generation(), &reason);
            self.context.notifier.ready(&format!("reload failed: {reason}"));
            self.tell_manager(Instant::now());
            self.open_hub();
            self.context.background.start();
            return Ok(());
        }
        let Some(predecessor) = &self.predecessor else {
            match self.become_server() {
                // Another has started at the same moment, and is the one that supervisors know.
                Err(error) if generation() == 1 && error.is_bind() => return Err(error),
                Err(error) => log::error!("{error}"),
                Ok(()) => {}
            }
            self.forget_history();
            self.context.status.lineage().execed(None);
            self.context.notifier.ready(&self.status());
            self.tell_manager(Instant::now());
            return Ok(());
        };
        let arrivals = self.relay();
        // It ends when the predecessor does.
        predecessor
            .listen(self.context.sender.clone(), arrivals)
            .map_err(|error| Error::runtime(format_args!("cannot listen to the predecessor"), error))?;
        let origins = self.listeners.iter().filter_map(|listener| listener.origin.clone());
        let kept = origins.map(|Origin { place, address }| (place, address)).collect();
        predecessor
            .hears_ready(kept, LINK_PATIENCE)
            .map_err(|error| Error::runtime(format_args!("the predecessor does not listen"), error))
    }

    /// What a stop had written is out of date from here on. A start behind a crash would take it for the last that there
    /// was, and everybody would hear it again.
    fn forget_history(&mut self) {
        let Some(path) = self.read_history.take() else { return };
        if let Err(error) = history::forget(&path) {
            log::warn!("cannot remove history file {path:?}: {error}; what is in it is told again by the next start");
        }
    }

    /// From here on this process is the one that supervisors know.
    pub(super) fn became_server(&mut self) {
        if let Err(error) = self.become_server() {
            log::error!("{error}");
        }
    }

    fn become_server(&mut self) -> Result<(), Error> {
        self.promoted = true;
        self.shared.phase.stopping().set(self.shared.is_draining());
        self.handed_over_to = None;
        self.waits_for_serving = false;
        self.open_hub();
        self.context.background.start();
        self.command(Command::OwnFiles);
        self.context.pid_file.became_server(generation())
    }

    /// What the other generation says of connections goes there.
    pub(super) fn relay(&self) -> Relay {
        let (commands, to_acceptor) = (self.commands.clone(), self.to_acceptor.clone());
        let (hub, sessions) = (self.shared.hub.clone(), self.shared.sessions.clone());
        let (stragglers, status) = (self.stragglers.clone(), self.context.status.clone());
        Relay { commands, to_acceptor, hub, sessions, stragglers, status }
    }

    /// Goes on with the predecessor's messages, or says that it cannot, and is ended for that.
    fn take_hub_over(&self, written: &[u8]) {
        let Some(hub) = &self.context.hub else { return };
        // What is asked of us for the predecessor waits for the word that this process publishes.
        hub.inner().freeze();
        if let Err(wrong) = hub.go_on_with(written) {
            let why = format!("its messages cannot be read: {wrong}");
            log::error!("{why}");
            self.tell_predecessor(&Message::Failed(why));
        }
    }

    /// From here on this process publishes.
    pub(super) fn open_hub(&self) {
        if let Some(hub) = &self.context.hub {
            hub.inner().open();
        }
    }

    /// Waits for what happens until the server has ended; `None` if its threads failed.
    pub(super) fn supervise(&mut self, config: &Config) -> Option<Ended> {
        loop {
            match self.wait(None) {
                Waited::Event(Event::Stop) => {
                    return Some(match self.hear_go() {
                        Event::StopNow => self.stop_at_once(),
                        _ => self.stop(config),
                    });
                }
                Waited::Event(Event::StopNow) => return Some(self.stop_at_once()),
                Waited::Event(Event::Reopen) => self.reopen_log(),
                Waited::Event(Event::Successor(..) | Event::PoolEnded) => {}
                Waited::Event(Event::Predecessor(word)) => {
                    if let Some(stop) = self.on_predecessor(word) {
                        return Some(match stop {
                            Event::StopNow => self.stop_at_once(),
                            _ => self.stop(config),
                        });
                    }
                }
                // Nothing ends the pool but a stop: the acceptor has failed.
                Waited::Over | Waited::Time => return None,
                Waited::Event(Event::Reload) if self.predecessor.is_some() => {
                    log::info!("reload: remembered until the predecessor is gone");
                    self.reload_later = true;
                }
                Waited::Event(Event::Reload) => {
                    if let Some(ended) = self.reload(config) {
                        return Some(ended);
                    }
                }
            }
        }
    }

    /// A stop came. Where the predecessor may have said that we serve, it is the server's: supervisors know us as that before we
    /// have heard it, and one that ends on probation is not missed. Answers which stop it is.
    fn hear_go(&mut self) -> Event {
        let until = Instant::now() + GO_PATIENCE;
        if self.waits_for_go && self.can_serve {
            log::info!("stopping, once the predecessor has said that this process serves");
        }
        while self.waits_for_go && self.can_serve {
            match self.wait(Some(until)) {
                Waited::Event(Event::StopNow) => return Event::StopNow,
                Waited::Event(Event::Predecessor(word)) => {
                    if let Some(stop) = self.on_predecessor(word) {
                        return stop;
                    }
                }
                Waited::Event(_) => {}
                Waited::Time | Waited::Over => break,
            }
        }
        Event::Stop
    }

    /// Does what the predecessor says. Answers the stop that it passes on, if it does.
    fn on_predecessor(&mut self, word: FromPredecessor) -> Option<Event> {
        match word {
            FromPredecessor::Promote(carried) => {
                if let (Some(carry), Some(carried)) = (&self.context.carry, carried) {
                    (carry.restore)(carried);
                }
                if self.waits_for_go {
                    // Connections arrive behind GO, and may be served before this thread has heard of it: who publishes
                    // then waits for that, and was refused.
                    if let Some(hub) = &self.context.hub {
                        hub.inner().freeze();
                    }
                    test_point("successor-restored");
                    self.can_serve = true;
                    self.tell_predecessor(&Message::Promoted);
                } else {
                    self.became_server();
                    self.tell_predecessor(&Message::Promoted);
                    self.takes_over();
                }
            }
            FromPredecessor::Hub(written) => self.take_hub_over(&written),
            FromPredecessor::Sessions(written) => match decode::<SavedSessions>(&written) {
                Ok(SavedSessions(sessions)) => {
                    take_sessions_over(sessions, (self.shared.hub.as_ref(), &self.shared.sessions));
                }
                Err(wrong) => log::error!("the predecessor's sessions cannot be read, and are lost: {wrong}"),
            },
            FromPredecessor::Go => self.serve(),
            FromPredecessor::Stop { at_once } => {
                // It says so only while it is the server.
                self.promoted = false;
                return Some(if at_once { Event::StopNow } else { Event::Stop });
            }
            FromPredecessor::ListenersClosed => self.sole_holder = true,
            FromPredecessor::Finished { counters, cut, reload_again } => {
                self.before = counters;
                self.shared.stats.cut_before(cut);
                if self.shared.phase.is_ready() {
                    self.cut_by_reloads = self.shared.stats.total_cut();
                }
                self.reload_later |= reload_again;
            }
            FromPredecessor::Gone => {
                self.predecessor = None;
                self.context.status.lineage().is_alone();
                self.sole_holder = true;
                self.command(Command::Alone);
                // Behind PROMOTED it need not have been said: it serves no longer.
                if self.waits_for_go {
                    // What it may have published behind what we know has another's positions.
                    self.take_hub_back();
                    log::warn!("the predecessor is gone before it said that we serve; serving");
                    self.serve();
                }
                if !self.promoted {
                    self.take_hub_back();
                    log::warn!("the predecessor is gone before it handed over; serving on");
                    self.became_server();
                }
                if std::mem::take(&mut self.reload_later) {
                    let _ = self.context.sender.send(Event::Reload);
                }
            }
        }
        None
    }

    /// The predecessor serves no longer, so that we may.
    fn serve(&mut self) {
        if std::mem::take(&mut self.waits_for_go) {
            // First: whoever is accepted may publish.
            self.open_hub();
            self.command(Command::Serve);
            self.became_server();
            self.tell_predecessor(&Message::Serves);
            self.takes_over();
            if let Some(announce) = self.announcement.take() {
                announce();
            }
        }
    }

    /// For one that has to wait until it is told.
    pub(super) fn announce_when_it_serves(&mut self, announce: impl FnOnce() + 'static) {
        self.announcement = Some(Box::new(announce));
    }

    /// The application's threads end before anything of it is saved or handed over, while everything serves on. At the
    /// deadline it goes without.
    pub(super) fn end_background(&mut self, deadline: Instant, again: &mut bool) -> Result<(), Reloaded> {
        self.context.background.end();
        let mut said = Instant::now() + BACKGROUND_GRACE;
        loop {
            let left = self.context.background.left();
            let now = Instant::now();
            if left.is_empty() {
                return Ok(());
            }
            if now >= deadline {
                log::warn!("reload deadline: going on without the end of the background threads {left:?}");
                return Ok(());
            }
            if now >= said {
                log::info!("reload waits for the background threads {left:?}");
                said = now + 5 * BACKGROUND_GRACE;
            }
            self.serve_for(BACKGROUND_POLL, again)?;
        }
    }

    fn takes_over(&mut self) {
        self.beat.set(Some(Instant::now() + PROMOTION_SETTLES));
        log::info!("took over from the predecessor");
    }

    fn tell_predecessor(&self, message: &Message) {
        if let Some(predecessor) = &self.predecessor
            && let Err(error) = predecessor.link.send_within(message, &[], LINK_PATIENCE)
        {
            log::debug!("the predecessor does not listen: {error}");
        }
    }

    /// A stop came. Whether it is the second: two within a moment are one.
    pub(super) fn is_second_stop(&self) -> bool {
        let now = Instant::now();
        match self.first_stop.get() {
            Some(first) => now.duration_since(first) >= SECOND_STOP,
            None => {
                self.first_stop.set(Some(now));
                false
            }
        }
    }

    fn stop_at_once(&mut self) -> Ended {
        self.tell_predecessor(&Message::Stop { at_once: true });
        // The process need not end with the server.
        self.cut();
        Ended::AtOnce
    }

    /// Reloads as configured. `None` if the server serves on.
    fn reload(&mut self, config: &Config) -> Option<Ended> {
        loop {
            let mut again = false;
            self.context.pid_file.reload_begins();
            self.context.notifier.reloading();
            let mode = self.reload_mode(config);
            let begun = self.context.status.lineage().reload_begins();
            let reloaded = match mode {
                ReloadMode::Overlap => self.reload_by_overlap(config, &mut again),
                _ => self.reload_by_exec(config, &mut again),
            };
            match reloaded {
                Reloaded::HandedOver => return Some(Ended::HandedOver),
                Reloaded::Ended(ended) => return Some(ended),
                Reloaded::Stop => {
                    self.context.pid_file.reload_failed(generation(), "the server was told to stop");
                    return Some(self.stop(config));
                }
                Reloaded::StopNow => {
                    self.context.pid_file.reload_failed(generation(), "the server was told to stop at once");
                    return Some(self.stop_at_once());
                }
                Reloaded::Failed(reason) => {
                    self.context.status.lineage().reload_fails(
                        begun,
                        generation(),
                        mode != ReloadMode::Overlap,
                        &reason,
                    );
                    // Where it was told to end.
                    self.context.background.start();
                    self.context.pid_file.reload_failed(generation(), &reason);
                    self.cut_by_reloads = self.shared.stats.total_cut();
                    log::error!("reload failed, serving on: {reason}");
                    self.context.notifier.ready(&format!("reload failed: {reason}"));
                }
            }
            if !again {
                return None;
            }
        }
    }

    /// `Auto` decided: a new process only for a service manager that is told its pid, and where nothing else watches the
    /// old one. A pid file says nothing about who does: runit, for one, would miss the server that it started and start
    /// another every second.
    fn reload_mode(&self, config: &Config) -> ReloadMode {
        if config.reload == ReloadMode::Overlap && std::process::id() == 1 {
            log::warn!("this is pid 1, whose end is that of the successor too: the reload is by exec");
            return ReloadMode::Exec;
        }
        if config.reload != ReloadMode::Auto {
            return config.reload;
        }
        // The variable may have been meant for the one who started us.
        let watched = std::process::id() == 1 || std::env::var_os("SUPERVISOR_ENABLED").is_some() || in_foreground();
        if self.context.notifier.is_active() && !watched { ReloadMode::Overlap } else { ReloadMode::Exec }
    }

    /// Ends the threads and says the last line.
    pub(super) fn finish(mut self, ended: Option<Ended>) -> Result<Ended, Error> {
        let history = self.history_file.take().zip(self.context.hub.take());
        let keeps = self.promoted && self.handed_over_to.is_none() && self.context.keeps_messages;
        let history = history.filter(|_| keeps);
        if let Some(hub) = &self.shared.hub {
            hub.end_bus();
        }
        let (signals, shared) = (self.context.signals.take(), self.shared.clone());
        let (log, request_log) = (self.context.log.take(), self.context.request_log.take());
        let counters = self.counters();
        let cut = self.shared.stats.total_cut();
        let panicked = self.shared.stats.total_panicked();
        // "stopped: " is said where nobody serves on.
        let end = match self.handed_over_to {
            Some(pid) => format!("handed over to {pid}"),
            None if self.promoted || ended.is_none() => "stopped".to_owned(),
            None => "ended on probation".to_owned(),
        };
        let ended = match ended {
            Some(ended) => {
                // Threads that do not end, because a handler does not, end with the process.
                if self.pool_has_ended() {
                    self.join();
                }
                Ok(ended)
            }
            None => {
                let error = self.acceptor.join().err().unwrap_or_else(|| io::Error::other("it has ended"));
                let error = Error::runtime(format_args!("the acceptor failed"), error);
                log::error!("{error}");
                Err(error)
            }
        };
        let ended = keep_history(ended, history);
        if ended.is_err() {
            early::has_said_why();
        }
        let Counters { served, refused, migrated, .. } = counters;
        match panicked {
            0 => {}
            panicked => log::warn!("handlers have panicked {panicked} times"),
        }
        let waiting = shared.flush_request_log().waiting;
        let of_requests = request_log.map_or(0, |log| log.figures().0) + waiting;
        for (lines, what) in [(log.map_or(0, |log| log.figures().0), "log"), (of_requests, "access log")] {
            if lines > 0 {
                log::warn!("{lines} lines of the {what} could not be written");
            }
        }
        log::info!("{end}: served={served} migrated={migrated} refused={refused} cut={cut}");
        log::logger().flush();
        if let Some(signals) = signals {
            signals.join();
        }
        ended
    }

    /// Counted by this generation and those before.
    pub(super) fn counters(&self) -> Counters {
        let (stats, before) = (&self.shared.stats, &self.before);
        Counters {
            served: before.served + stats.total_served(),
            refused: before.refused + stats.total_refused(),
            connections: before.connections + stats.total_accepted(),
            migrated: before.migrated + stats.total_migrated(),
            reloads: before.reloads,
        }
    }

    /// The stop of the contract; see `ARCHITECTURE.md`.
    pub(super) fn stop(&mut self, config: &Config) -> Ended {
        let began = self.first_stop.get().unwrap_or_else(Instant::now);
        log::info!("stopping: waiting up to {:.1} s for what is pending", config.stop_deadline.as_secs_f64());
        self.shared.phase.become_lame_duck();
        self.context.background.end();
        if self.promoted {
            self.context.notifier.stopping();
        }
        // On probation: then the predecessor stops too. Promoted: it may still have connections of its own.
        self.tell_predecessor(&if self.promoted { Message::Stop { at_once: false } } else { Message::Stopping });
        if self.promoted
            && !config.lame_duck.is_zero()
            && self.wait_or_second_stop(began, began + config.lame_duck, &|_| false) == Pause::SecondStop
        {
            return self.stop_at_once();
        }
        // A successor on probation may have used some of the time already.
        let since = if self.promoted { began + config.lame_duck } else { began };
        let deadline = (since + config.stop_deadline).max(Instant::now() + CUT_GRACE);
        if self.promoted && !self.sole_holder {
            // It closes its copies of the listeners at once, and then we can close ours without resetting anyone.
            let until = Instant::now() + config.stop_deadline / 4;
            if self.wait_or_second_stop(began, until, &|running| running.sole_holder) == Pause::SecondStop {
                return self.stop_at_once();
            }
        }
        self.shared.phase.drain();
        self.command(Command::Drain {
            patience: config.stop_deadline / 4,
            holders: if self.sole_holder { Holders::WeAlone } else { Holders::Predecessor },
            // One that waits for us cannot be waited for.
            alone: self.predecessor.is_none() || !self.promoted,
        });
        // What the predecessor still serves is part of this stop: it has the same time, and a moment to say how it ended.
        let waits = self.predecessor.is_some() && self.promoted;
        let until = if waits { deadline + PREDECESSOR_GRACE } else { deadline };
        let pause = self.wait_or_second_stop(began, until, &|_| false);
        if matches!(pause, Pause::Over | Pause::Reached) {
            self.context.background.join(deadline);
        }
        let left = self.context.background.left();
        if !left.is_empty() {
            log::warn!("stopping without the end of the background threads {left:?}");
        }
        match pause {
            Pause::Over | Pause::Reached => match self.cut_now() {
                0 => Ended::Clean,
                cut => Ended::Cut(cut),
            },
            Pause::SecondStop => self.stop_at_once(),
            Pause::Time => self.end_at_deadline(),
        }
    }

    /// Requests that were cut by what is going on now. What a reload cut that is over is no part of how we end.
    fn cut_now(&self) -> usize {
        self.shared.stats.total_cut() - self.cut_by_reloads
    }

    /// Cuts what is left, and says how that ended.
    pub(super) fn end_at_deadline(&self) -> Ended {
        self.cut();
        match (self.cut_now(), self.pool_has_ended()) {
            (0, true) => Ended::Clean,
            // Whatever a worker hangs in, it is something that did not finish.
            (cut, _) => Ended::Cut(cut.max(1)),
        }
    }

    pub(super) fn wait_or_second_stop(
        &mut self,
        began: Instant,
        until: Instant,
        reached: &dyn Fn(&Running) -> bool,
    ) -> Pause {
        loop {
            if reached(self) {
                return Pause::Reached;
            }
            match self.wait(Some(until)) {
                Waited::Time => return Pause::Time,
                Waited::Over => return Pause::Over,
                Waited::Event(Event::StopNow) => return Pause::SecondStop,
                Waited::Event(Event::Stop) if began.elapsed() >= SECOND_STOP => return Pause::SecondStop,
                Waited::Event(Event::Stop | Event::Successor(..) | Event::PoolEnded) => {}
                Waited::Event(Event::Reopen) => self.reopen_log(),
                Waited::Event(Event::Reload) => {
                    log::warn!("no reload: the server is stopping");
                    if self.promoted {
                        self.context.pid_file.reload_begins();
                        self.context.pid_file.reload_failed(generation(), "the server is stopping");
                    }
                }
                Waited::Event(Event::Predecessor(word)) => {
                    if let Some(Event::StopNow) = self.on_predecessor(word) {
                        return Pause::SecondStop;
                    }
                }
            }
        }
    }

    /// Ends what is left at the deadline, each request logged.
    pub(super) fn cut(&self) -> usize {
        let now = Millis::now();
        let stats = &self.shared.stats;
        self.shared.cut_in_flight(now);
        let (done, cut) = bounded(0);
        self.command(Command::Cut { done });
        let _ = cut.recv_timeout(CUT_PATIENCE);
        // Handlers that were streaming notice that their connection has ended; the others end with the process.
        let until = Instant::now() + CUT_GRACE;
        while !self.pool_has_ended()
            && let Waited::Event(_) = self.wait(Some(until))
        {}
        stats.total_cut()
    }

    pub(super) fn pool_has_ended(&self) -> bool {
        self.pool.strong_count() == 0
    }

    pub(super) fn reopen_log(&self) {
        if let Some(log) = &self.context.log {
            log.reopen();
        }
        if let Some(log) = &self.context.request_log {
            log.reopen();
        }
    }

    pub(super) fn command(&self, command: Command) {
        // An acceptor that has failed is noticed by the pool's end.
        // An acceptor that has ended does nothing any more.
        let _ = self.commands.send(command);
        self.to_acceptor.wake();
    }

    fn join(self) {
        for thread in self.workers.into_iter().chain(self.streamers.take_running()) {
            if thread.join().is_err() {
                log::error!("a worker panicked");
            }
        }
        if let Err(error) = self.acceptor.join() {
            log::error!("the acceptor failed: {error}");
        }
    }
}

/// What a graceful stop leaves to the next start.
fn keep_history(ended: Result<Ended, Error>, history: Option<(PathBuf, Hub)>) -> Result<Ended, Error> {
    let (Ok(Ended::Clean | Ended::Cut(_)), Some((path, hub))) = (&ended, history) else { return ended };
    hub.inner().hand_over();
    match hub.write_history(&path) {
        Ok(()) => ended,
        Err(error) => {
            log::error!("cannot write history file {path:?}: {error}; what push kept is lost");
            Err(Error::runtime(format_args!("cannot write history file {path:?}"), error))
        }
    }
}

/// The hub gets its limits, and goes on with what its predecessor has written down, or a stop before this `first` start.
/// Answers the file of that, if it was read.
fn begin_hub<'c>(
    config: &'c Config,
    hub: Option<&Hub>,
    inherited: Option<&[u8]>,
    first: bool,
) -> Result<Option<&'c Path>, Error> {
    let Some(hub) = hub else { return Ok(None) };
    hub.configure(&config.push, config.memory, config.limits.connections);
    if let Some(written) = inherited {
        let what = "the messages of the predecessor cannot be read";
        if let Err(wrong) = hub.go_on_with(written) {
            if way_back::is_armed() {
                return Err(Error::runtime(format_args!("{what}"), io::Error::other(wrong)));
            }
            log::error!("{what}, going on without: {wrong}");
        }
    } else if let Some(path) = config.push.history_file.as_deref().filter(|_| first) {
        let cannot = format!("cannot write history file {path:?}");
        // What never can be is a mistake. A directory may be another one by the time of the stop.
        history::can_replace(path).map_err(|why| config.error("history_file", format_args!("{cannot}: {why}")))?;
        if let Err(why) = history::can_write(path) {
            log::warn!("{cannot}: {why}; a stop would lose what push keeps");
        }
        match hub.read_history(path) {
            Ok(true) => {
                log::info!("{} bytes of messages read from {path:?}", hub.inner().bytes());
                return Ok(Some(path));
            }
            Ok(false) => {}
            Err(why) => log::error!("history file {path:?}: {why}; starting without"),
        }
    }
    Ok(None)
}

/// The sessions that were inherited go on.
fn take_sessions_over(saved: Vec<SavedSession>, (hub, sessions): (Option<&pubsub::Hub>, &Arc<Sessions>)) {
    let Some(hub) = hub else { return };
    let now = Millis::now().0;
    saved.into_iter().for_each(|saved| sessions.restore(hub, saved, now));
}

/// Each connection that was inherited, still closed by nobody: one that cannot be restored is a reason to go back, or, where
/// nothing leads back, is lost alone.
fn restore(
    connections: Vec<InheritedConnection>,
    hub: (Option<&pubsub::Hub>, &Sessions),
) -> Result<Vec<ManuallyDrop<Restored>>, Error> {
    let mut all = Vec::with_capacity(connections.len());
    for InheritedConnection { snapshot, socket, file } in connections {
        let (socket, file) = (ManuallyDrop::into_inner(socket), file.map(ManuallyDrop::into_inner));
        let what = "a connection of the predecessor could not be restored";
        match Connection::restore(snapshot, socket, file.as_ref(), hub) {
            Ok(restored) => all.push(ManuallyDrop::new(restored)),
            Err(socket) if way_back::is_armed() => {
                let _open = (ManuallyDrop::new(socket), ManuallyDrop::new(file));
                way_back::go(what);
                return Err(Error::runtime(format_args!("{what}"), io::ErrorKind::InvalidData.into()));
            }
            Err(_) => log::error!("{what}"),
        }
    }
    Ok(all)
}

/// Listeners whose socket files go with them.
fn owning_files(mut listeners: Vec<Listener>) -> Vec<Listener> {
    listeners.iter_mut().for_each(|listener| listener.own_file(true));
    listeners
}

/// The acceptor's thread before it has anything to run.
struct WaitingThread {
    thread: AcceptorThread,
    acceptor: Sender<Acceptor>,
}

impl WaitingThread {
    fn run(self, acceptor: Acceptor) -> AcceptorThread {
        // It waits for this, and there is room for one.
        let _ = self.acceptor.send(acceptor);
        self.thread
    }
}

/// The acceptor's thread, and why it has failed, if it has.
struct AcceptorThread {
    thread: JoinHandle<()>,
    failure: Arc<OnceLock<io::Error>>,
}

impl AcceptorThread {
    /// A thread that waits for what it is to run: to start one can fail, and to run is the last step.
    fn start(confinement: Option<Arc<Confinement>>) -> io::Result<WaitingThread> {
        let failure = Arc::new(OnceLock::new());
        let outcome = failure.clone();
        let (acceptor, waits) = bounded::<Acceptor>(1);
        let run = move || {
            if let Some(confinement) = &confinement {
                confinement.confine_this_thread();
            }
            // Without one the server has not started.
            if let Ok(acceptor) = waits.recv()
                && let Err(error) = acceptor.run()
            {
                // It ends once, so nothing stands there yet.
                let _ = outcome.set(error);
            }
        };
        let thread = thread::Builder::new().name("acceptor".into()).stack_size(ACCEPTOR_STACK).spawn(run)?;
        Ok(WaitingThread { thread: AcceptorThread { thread, failure }, acceptor })
    }

    fn join(self) -> io::Result<()> {
        self.thread.join().map_err(|_| io::Error::other("it panicked"))?;
        // The thread's own reference has gone with it.
        match Arc::into_inner(self.failure).and_then(OnceLock::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    Time,
    /// What was waited for has happened.
    Reached,
    /// All workers have ended.
    Over,
    SecondStop,
}

/// What came of a reload.
pub enum Reloaded {
    HandedOver,
    /// This process has ended in another way.
    Ended(Ended),
    Failed(String),
    /// A stop came first.
    Stop,
    StopNow,
}

/// Whether this process is in the foreground of a terminal, where a shell waits for its pid.
fn in_foreground() -> bool {
    use rustix::termios::{isatty, tcgetpgrp};
    let stdin = io::stdin();
    isatty(&stdin) && tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp())
}
