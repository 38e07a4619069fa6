//! Reloading by exec: the process becomes the program on disk, and everything it holds stays open.

use super::running::{Reloaded, Running, Waited};
use super::status::{DROPPED_LINES, MOVED, UNSAID_LINES};
use crate::clock::{Millis, boot_time};
use crate::config::{Config, ConfigFile, MAX_CONFIGURATION};
use crate::engine::acceptor::{AtRest, Command, Held, HoldOrder, NotHeld};
use crate::engine::connection::Connection;
use crate::generation::generation;
use crate::lifecycle::before::Before;
use crate::lifecycle::candidate::{Candidate, WayBack};
use crate::lifecycle::link::{Link, test_time};
use crate::lifecycle::patience::Patience;
use crate::lifecycle::program::{RELOAD, Reads, SAID};
use crate::lifecycle::state::{
    self, CARRY_LIMIT, Carried, ExecState, Inheritance, InheritedListener, MovedConnection, SavedState,
};
use crate::lifecycle::way_back::Failures;
use crate::lifecycle::{Event, FromSuccessor, exec};
use crate::listener::{Sockets, WeakListener};
use crate::logging::requests::Unwritten;
use crate::logging::start_lines;
use crate::push::new_epoch;
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, select};
use std::io;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

/// How long the program on disk may take to check itself and, in overlap mode, to be ready.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a check is looked at.
const CHECK_POLL: Duration = Duration::from_millis(2);
/// How long an application may take to save what it carries over.
const SAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// It is the application's code.
const SAVE_STACK: usize = 256 * 1024;
/// How long to wait for the end of a pool whose acceptor has ended.
const HOLD_PAUSE: Duration = Duration::from_millis(500);
/// A hold that is expected to last no longer may begin at once.
const SHORT_HOLD: Duration = Duration::from_millis(100);
/// How long the acceptor looks for the moment before the patience grows.
const ASKED: Duration = Duration::from_secs(1);
/// After a hold in vain, everybody is served for so many times as long.
const HOLD_SHARE: u32 = 10;

/// [`CHECK_TIMEOUT`], which tests shorten.
pub fn check_timeout() -> Duration {
    test_time("HANDOVER_TEST_CHECK_TIMEOUT", CHECK_TIMEOUT)
}

/// How long a reload has waited for the pool to rest, and may.
pub struct Rests {
    began: Instant,
    pub deadline: Instant,
}

impl Rests {
    pub fn new(began: Instant, config: &Config) -> Rests {
        Rests { began, deadline: began + config.reload_deadline }
    }
}

/// What was checked, for an exec.
struct Checked {
    candidate: Candidate<'static>,
    /// Of the state that it is left.
    version: u32,
    /// Whether it comes back if nothing comes of it.
    comes_back: bool,
}

impl Running {
    /// Becomes the program on disk. Returns only if that did not happen; then everything goes on as before.
    pub(super) fn reload_by_exec(&mut self, config: &Config, again: &mut bool) -> Reloaded {
        let began = Instant::now();
        log::info!("reloading: checking {}", self.context.program.path().display());
        let mut checked = match self.check_for_exec(config, again) {
            Ok(checked) => checked,
            Err(no) => return no,
        };
        let mut rests = Rests::new(began, config);
        if let Err(no) = self.end_background(rests.deadline, again) {
            return no;
        }
        loop {
            let (at_rest, cut) = match self.until_at_rest(&mut rests, config, Some(checked.version), again) {
                Ok(held) => held,
                Err(no) => return no,
            };
            self.context.status.lineage().holds_since(at_rest.since);
            let connections = at_rest.connections;
            // Whoever changed it wants that, and nobody has checked it. Not while everybody is held back.
            if !cut && let Some(change) = checked.candidate.changed() {
                self.command(Command::Resume);
                log::info!("reload: {change}, checking again");
                checked = match self.check_for_exec(config, again) {
                    Ok(checked) => checked,
                    Err(no) => return no,
                };
                continue;
            }
            let no = self.execute(config, &checked, connections, again);
            self.command(Command::Resume);
            return no;
        }
    }

    /// Serves on until what runs is expected to end within the patience, which grows: at first no client is to wait longer
    /// than a moment, and in the end no reload is to wait for ever. Answers every connection, with new work held back, and
    /// whether what ran was cut.
    pub(super) fn until_at_rest(
        &self,
        rests: &mut Rests,
        config: &Config,
        version: Option<u32>,
        again: &mut bool,
    ) -> Result<(AtRest, bool), Reloaded> {
        loop {
            let now = Instant::now();
            let cuts = now >= rests.deadline;
            let (answer, answered) = bounded(1);
            let whole = config.reload_deadline.as_secs_f64().max(1e-3);
            let waited = now.duration_since(rests.began).as_secs_f64() / whole;
            let patience = config.exec_stall.mul_f64((2.0 * waited).min(1.0)).max(SHORT_HOLD).min(config.exec_stall);
            let within = ASKED.min(rests.deadline.saturating_duration_since(now));
            let order = HoldOrder { answer, patience, most: config.exec_stall, within, cuts, version };
            let lasted = match self.hold(order, &answered, again) {
                Ok(Ok(at_rest)) => return Ok((at_rest, cuts)),
                Ok(Err(NotHeld { lasted })) => lasted,
                Err(no) => {
                    self.command(Command::Resume);
                    return Err(no);
                }
            };
            if !lasted.is_zero() {
                log::info!("reload: handlers took longer than expected, trying again");
            }
            // So that clients wait for a small part of the time only.
            let serve_for = (lasted * HOLD_SHARE).min(rests.deadline.saturating_duration_since(Instant::now()));
            self.serve_for(serve_for, again)?;
        }
    }

    /// What an exec needs: a program that has checked itself, and that reads the state.
    fn check_for_exec(&self, config: &Config, again: &mut bool) -> Result<Checked, Reloaded> {
        let (candidate, reads) = self.check_program(config, &mut Patience::new(check_timeout()), again)?;
        let Failures { count, candidate: failed, .. } = self.failures;
        if count >= 2 && failed == candidate.fingerprint() {
            let reason = "this program did not serve twice, for the same reason; it is tried again when it or its \
                          configuration has changed (touch does)";
            return Err(Reloaded::Failed(reason.into()));
        }
        log::debug!("reload: checked");
        match state::common(&reads.states) {
            Some(version) => Ok(Checked { candidate, version, comes_back: reads.comes_back }),
            None => {
                let (states, newest) = (reads.states, state::versions().end().to_owned());
                let reason = format!("the program on disk reads state versions {states:?}, none of 1 to {newest}");
                Err(Reloaded::Failed(reason))
            }
        }
    }

    /// Goes on serving for a while, and sees what happens meanwhile.
    pub(super) fn serve_for(&self, duration: Duration, again: &mut bool) -> Result<(), Reloaded> {
        let until = Instant::now() + duration;
        loop {
            match self.wait(Some(until)) {
                Waited::Time => return Ok(()),
                Waited::Over => return Err(Reloaded::StopNow),
                Waited::Event(event) => self.during_reload(event, again)?,
            }
        }
    }

    /// Sees what has happened meanwhile.
    fn poll_events(&self, again: &mut bool) -> Result<(), Reloaded> {
        while let Ok(event) = self.context.events.try_recv() {
            self.during_reload(event, again)?;
        }
        Ok(())
    }

    pub(super) fn during_reload(&self, event: Event, again: &mut bool) -> Result<(), Reloaded> {
        match event {
            Event::Stop => {
                self.is_second_stop();
                return Err(Reloaded::Stop);
            }
            Event::StopNow | Event::PoolEnded => return Err(Reloaded::StopNow),
            Event::Reload => *again = true,
            Event::Reopen => self.reopen_log(),
            Event::Successor(pid, word) if self.beside.get() == Some(pid) => return said_by_the_ready(word),
            // Of an attempt that is over.
            Event::Successor(..) | Event::Predecessor(_) => {}
        }
        Ok(())
    }

    /// Runs the program on disk as a check. It is killed if it takes too long, or if we are to stop.
    /// Answers what was checked, and what it reads.
    pub(super) fn check_program(
        &self,
        config: &Config,
        patience: &mut Patience,
        again: &mut bool,
    ) -> Result<(Candidate<'static>, Reads), Reloaded> {
        let program = self.context.program;
        let cannot_run =
            |error: io::Error| Reloaded::Failed(format!("cannot run {}: {error}", program.path().display()));
        let configuration = config.file.as_ref().map(ConfigFile::path);
        let candidate = Candidate::read(program, configuration, MAX_CONFIGURATION).map_err(cannot_run)?;
        let mut check = candidate.start_check(&self.before(), true).map_err(cannot_run)?;
        loop {
            let outcome =
                check.outcome().map_err(|error| Reloaded::Failed(format!("cannot wait for the check: {error}")))?;
            match outcome {
                Some(checked) => {
                    let reads = checked.reads().map_err(Reloaded::Failed)?;
                    self.say_who_is_closed(&reads);
                    return Ok((candidate, reads));
                }
                None if patience.is_over() => {
                    return Err(Reloaded::Failed(format!(
                        "the check did not end within {}s",
                        check_timeout().as_secs_f64()
                    )));
                }
                None => self.serve_for(CHECK_POLL, again)?,
            }
        }
    }

    /// What a successor cannot have otherwise.
    fn before(&self) -> Before {
        let bound = self.listeners.iter().filter_map(WeakListener::bound).collect();
        let is_of_manager = self.listeners.iter().any(WeakListener::is_shared);
        Before { user: self.context.user.clone(), is_of_manager, bound }
    }

    /// Clients of conversations that the program on disk does not have are to come back: before anything moves, somebody may
    /// want to know that.
    fn say_who_is_closed(&self, reads: &Reads) {
        let others = self.shared.conversations.clients_but_of(&reads.conversations);
        if !others.is_empty() {
            let others: Vec<String> =
                others.into_iter().map(|(name, clients)| format!("{name:?} ({clients})")).collect();
            log::warn!(
                "reloading: the program on disk does not have these conversations, whose clients are closed with 1012: {}",
                others.join(", ")
            );
        }
    }

    /// Holds new work back when the moment has come: every connection, or for how long it was held back in vain.
    fn hold(&self, order: HoldOrder, answered: &Receiver<Held>, again: &mut bool) -> Result<Held, Reloaded> {
        self.command(Command::Hold(order));
        loop {
            select! {
                recv(answered) -> answer => match answer {
                    Ok(answer) => return Ok(answer),
                    // The acceptor has ended, which is noticed as the end of the pool.
                    Err(_) => self.serve_for(HOLD_PAUSE, again)?,
                },
                // We hold a sender, so there is one.
                recv(self.context.events) -> event => self.during_reload(event.unwrap_or(Event::StopNow), again)?,
            }
        }
    }

    fn execute(
        &mut self,
        config: &Config,
        checked: &Checked,
        connections: Vec<MovedConnection>,
        again: &mut bool,
    ) -> Reloaded {
        // From here on signals are pending in the kernel: the successor gets them.
        if let Some(signals) = &mut self.context.signals {
            signals.suspend();
        }
        let no = self.execute_quietly(config, checked, connections, again);
        if let Some(signals) = &mut self.context.signals
            && let Err(error) = signals.resume()
        {
            log::error!("{error}");
        }
        no
    }

    fn execute_quietly(
        &self,
        config: &Config,
        checked: &Checked,
        mut connections: Vec<MovedConnection>,
        again: &mut bool,
    ) -> Reloaded {
        if let Err(no) = self.poll_events(again) {
            return no;
        }
        let way_back = match self.way_back(config, checked) {
            Ok(way_back) => way_back,
            Err(error) => return Reloaded::Failed(format!("no room for what a way back needs: {error}")),
        };
        let carried = match self.carried() {
            Ok(carried) => carried,
            Err(reason) => return Reloaded::Failed(reason),
        };
        let mut counters = self.counters();
        counters.migrated += connections.len() as u64;
        counters.reloads += 1;
        let listeners = self.listeners.iter().filter_map(|listener| {
            // The acceptor closes none before it is told to, so the numbers stay what they are.
            let Sockets { listener: socket, spare } = listener.sockets()?;
            let (address, file) = (listener.address.clone(), listener.file);
            Some(InheritedListener {
                fd: socket.as_raw_fd(),
                address,
                file,
                spare: spare.map(|spare| spare.as_raw_fd()),
            })
        });
        let listeners = listeners.collect();
        let moved = connections.len();
        log::info!("reloading: executing {} with {moved} connections", self.context.program.path().display());
        let Unwritten { waiting, unsaid } = self.shared.flush_request_log();
        if waiting + unsaid > 0 {
            log::warn!("{} lines of the access log could not be written before the exec", waiting + unsaid);
        }
        log::logger().flush();
        let mut figures = self.context.status.saved(true);
        // What is counted by this alone.
        figures.count(MOVED, moved as u64);
        figures.count(DROPPED_LINES, waiting);
        figures.count(UNSAID_LINES, waiting + unsaid);
        let inheritance = Inheritance {
            generation: generation(),
            pid: std::process::id(),
            counters,
            listeners,
            carried,
            reload_again: *again,
            figures,
        };
        let hub = self.freeze_hub();
        // What the applications have saved, and what was sent to their clients until now.
        for MovedConnection { snapshot, .. } in &mut connections {
            if let SavedState::Conversing(one) = &mut snapshot.state {
                Connection::refresh(one, &self.shared);
            }
        }
        let sessions = self.shared.sessions.save(Millis::now().0);
        let state = ExecState { inheritance, connections, hub, sessions };
        let (legacy, said) = (self.context.pid_file.legacy(true), start_lines::variable());
        let told = [(RELOAD, legacy.as_os_str()), (SAID, said.as_os_str())];
        let error = exec::hand_over(&checked.candidate, state, checked.version, &told, way_back.as_ref());
        self.open_hub();
        self.context.pid_file.keep();
        Reloaded::Failed(format!("cannot execute {}: {error}", self.context.program.path().display()))
    }

    /// What this process ran with, so that it can run with it again. `None` where there is no way back from an exec, as
    /// without /proc; where there is one it is what was promised.
    fn way_back(&self, config: &Config, checked: &Checked) -> io::Result<Option<WayBack>> {
        let program = self.context.program;
        let configuration = config.file.as_ref().map(|file| (file.path(), file.bytes()));
        let has_one = checked.comes_back && program.image().is_some();
        has_one.then(|| WayBack::of(program, configuration, self.failures)).transpose()
    }

    /// What the application saves, on a thread of its own: a handler that was cut may hold a lock that it waits for.
    fn saved<T: Send + 'static>(&self, save: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let (saved, carried) = bounded(1);
        let save = move || {
            let outcome = catch_unwind(AssertUnwindSafe(save));
            // Nobody has waited for it that long.
            let _ = saved.send(outcome.ok());
        };
        let thread = thread::Builder::new().name("save".into()).stack_size(SAVE_STACK);
        thread.spawn(save).map_err(|error| format!("cannot start a thread to save: {error}"))?;
        match carried.recv_timeout(SAVE_TIMEOUT) {
            Ok(Some(carried)) => Ok(carried),
            Ok(None) | Err(RecvTimeoutError::Disconnected) => Err("the application's save panicked".into()),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("the application did not save within {}s", SAVE_TIMEOUT.as_secs_f64()))
            }
        }
    }

    /// The successor publishes from here on: for those that still do so here as well, if it knows that word; and what is for
    /// a client that it has goes there too, if it knows those.
    pub(super) fn hand_hub_over(&self, link: Option<Link>, clients: bool) {
        match (&self.context.hub, link) {
            (Some(hub), Some(link)) => {
                if clients {
                    let conversations = self.shared.conversations.clone();
                    self.stragglers.begin_for_clients(hub.inner(), conversations, link.clone());
                }
                self.stragglers.begin(hub.inner(), link);
            }
            (Some(hub), None) => hub.inner().hand_over(),
            (None, _) => {}
        }
    }

    /// Another process is gone, and nobody here knows what it has published: what is published from here on is in another
    /// epoch.
    pub(super) fn take_hub_back(&self) {
        self.stragglers.end();
        if let Some(hub) = &self.context.hub {
            hub.inner().begin_epoch(new_epoch());
        }
    }

    /// The same where it served: what it has published is gone, also what was acknowledged, and everybody is told.
    pub(super) fn take_hub_back_behind_a_hole(&self) {
        self.stragglers.end();
        if let Some(hub) = &self.context.hub {
            hub.inner().begin_epoch_behind_a_hole(new_epoch());
        }
    }

    /// Nothing is published from here on until the hub is open again. What there is, written down.
    pub(super) fn freeze_hub(&self) -> Option<Vec<u8>> {
        let hub = self.context.hub.as_ref()?.inner();
        hub.freeze();
        Some(hub.write_down(boot_time()))
    }

    /// What the application carries over; and what it saves of the clients of its conversations stands behind each of them.
    pub(super) fn carried(&self) -> Result<Option<Carried>, String> {
        if self.shared.conversations.have_clients() {
            let conversations = self.shared.conversations.clone();
            self.saved(move || conversations.save())?;
        }
        let carried = match self.context.carry.clone() {
            None => None,
            Some(carry) => Some(self.saved(move || (carry.save)())?),
        };
        match carried {
            Some(carried) if carried.bytes.len() > CARRY_LIMIT => {
                Err(format!("the application carries over more than {CARRY_LIMIT} bytes"))
            }
            carried => Ok(carried),
        }
    }
}

/// What becomes of a reload by what its successor says before it is promoted.
pub fn said_by_the_ready(word: FromSuccessor) -> Result<(), Reloaded> {
    match word {
        FromSuccessor::Stopping => {
            log::info!("the successor was told to stop, and so are we");
            Err(Reloaded::Stop)
        }
        FromSuccessor::Stop { at_once: true } => Err(Reloaded::StopNow),
        FromSuccessor::Failed(reason) => {
            Err(Reloaded::Failed(format!("the successor ended before it served: {reason}")))
        }
        FromSuccessor::Gone => Err(Reloaded::Failed("the successor ended before it served".into())),
        _ => Ok(()),
    }
}
