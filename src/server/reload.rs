//! Reloading by exec: the process becomes the program on disk, and everything it holds stays open.

use super::generation;
use super::running::{Reloaded, Running, Waited};
use crate::acceptor::Command;
use crate::channel::{Nothing, channel};
use crate::config::Config;
use crate::connection::InFlight;
use crate::lifecycle::link::test_time;
use crate::lifecycle::program::Reads;
use crate::lifecycle::state::{self, CARRY_LIMIT, Carried, ExecState, Inheritance, MovedConnection};
use crate::lifecycle::{Event, exec};
use crate::report;
use crate::seconds::Seconds;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the program on disk may take to check itself and, in overlap mode, to be ready.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a check is looked at.
const CHECK_POLL: Duration = Duration::from_millis(2);
/// How often handlers that ran at HUP are looked at.
const HANDLER_POLL: Duration = Duration::from_millis(5);
/// How often events are looked at while everything is held.
const EVENT_POLL: Duration = Duration::from_millis(5);
/// How long to serve between two holds.
const HOLD_PAUSE: Duration = Duration::from_millis(500);

/// [`CHECK_TIMEOUT`], which tests shorten.
pub fn check_timeout() -> Duration {
    test_time("HANDOVER_TEST_CHECK_TIMEOUT", CHECK_TIMEOUT)
}

impl Running {
    /// Becomes the program on disk. Returns only if that did not happen; then everything goes on as before.
    pub(super) fn reload_by_exec(&mut self, config: &Config, again: &mut bool) -> Reloaded {
        let began = Instant::now();
        let deadline = began + config.reload_deadline;
        report::info!("reloading: checking {}", self.outside.program.path().display());
        let version = match self.check_program(began + check_timeout(), again) {
            Ok(Reads { states, .. }) => match state::common(&states) {
                Some(version) => version,
                // There is no way back from execve, so a successor that could not read the state is none.
                None => {
                    let newest = state::versions().end().to_owned();
                    let reason = format!("the program on disk reads state versions {states:?}, none of 1 to {newest}");
                    return Reloaded::Failed(reason);
                }
            },
            Err(no) => return no,
        };
        // Handlers that run now would only hold everything up: wait for them while serving.
        let running: Vec<_> = self.in_flight.iter().map(|flight| flight.current()).collect();
        let still = |flights: &[Arc<InFlight>]| {
            flights.iter().zip(&running).any(|(flight, number)| number.is_some() && flight.current() == *number)
        };
        while still(&self.in_flight) {
            if Instant::now() >= deadline {
                return Reloaded::Failed("a handler ran until the reload deadline".into());
            }
            if let Err(no) = self.pause(HANDLER_POLL, again) {
                return no;
            }
        }
        loop {
            match self.hold(config.exec_stall.min(deadline.saturating_duration_since(Instant::now())), again) {
                Ok(Some(connections)) => {
                    let no = self.execute(connections, version, again);
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
                return Reloaded::Failed("handlers were busy until the reload deadline".into());
            }
            report::info!("reload: handlers are busy, trying again");
            if let Err(no) = self.pause(HOLD_PAUSE, again) {
                return no;
            }
        }
    }

    /// Goes on serving for a while, and sees what happens meanwhile.
    pub(super) fn pause(&self, duration: Duration, again: &mut bool) -> Result<(), Reloaded> {
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
    fn look_up(&self, again: &mut bool) -> Result<(), Reloaded> {
        while let Some(event) = self.outside.events.try_receive() {
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
            // Of an attempt that is over.
            Event::Successor(..) | Event::Predecessor(_) | Event::Held(_) => {}
        }
        Ok(())
    }

    /// Runs the program on disk as a check. It is killed if it takes too long, or if we are to stop.
    /// Answers what it reads.
    pub(super) fn check_program(&self, deadline: Instant, again: &mut bool) -> Result<Reads, Reloaded> {
        let program = self.outside.program;
        let mut check = program
            .start_check(true)
            .map_err(|error| Reloaded::Failed(format!("cannot run {}: {error}", program.path().display())))?;
        loop {
            let outcome =
                check.outcome().map_err(|error| Reloaded::Failed(format!("cannot wait for the check: {error}")))?;
            match outcome {
                Some(checked) => return checked.reads().map_err(Reloaded::Failed),
                None if Instant::now() >= deadline => {
                    return Err(Reloaded::Failed(format!(
                        "the check did not end within {}s",
                        Seconds(check_timeout())
                    )));
                }
                None => self.pause(CHECK_POLL, again)?,
            }
        }
    }

    /// Holds new work back until the pool rests: every connection, or `None` if it did not within `stall`.
    fn hold(&self, stall: Duration, again: &mut bool) -> Result<Option<Vec<MovedConnection>>, Reloaded> {
        let (answer, answered) = channel();
        self.command(Command::Hold { answer });
        let until = Instant::now() + stall;
        loop {
            // Everybody waits for this answer; what else comes can wait a moment.
            match answered.receive(Some(until.min(Instant::now() + EVENT_POLL))) {
                Ok(Event::Held(connections)) => return Ok(Some(connections)),
                Ok(_) | Err(Nothing::Ever) => return Ok(None),
                Err(Nothing::Yet) => {}
            }
            self.look_up(again)?;
            if until <= Instant::now() {
                return Ok(None);
            }
        }
    }

    fn execute(&mut self, connections: Vec<MovedConnection>, version: u32, again: &mut bool) -> Reloaded {
        // From here on signals are pending in the kernel: the successor gets them.
        if let Some(signals) = &mut self.outside.signals {
            signals.suspend();
        }
        let no = self.execute_quietly(connections, version, again);
        if let Some(signals) = &mut self.outside.signals
            && let Err(error) = signals.resume()
        {
            report::error!("{error}");
        }
        no
    }

    fn execute_quietly(&self, connections: Vec<MovedConnection>, version: u32, again: &mut bool) -> Reloaded {
        if let Err(no) = self.look_up(again) {
            return no;
        }
        let carried = match self.carried() {
            Ok(carried) => carried,
            Err(reason) => return Reloaded::Failed(reason),
        };
        let mut counters = self.counters();
        counters.migrated += connections.len() as u64;
        counters.reloads += 1;
        let inheritance = Inheritance {
            generation: generation(),
            pid: std::process::id(),
            counters,
            listeners: self.inherited_listeners(),
            carried,
            reload_again: *again,
        };
        let moved = connections.len();
        report::info!("reloading: executing {} with {moved} connections", self.outside.program.path().display());
        log::logger().flush();
        let error = exec::hand_over(self.outside.program, ExecState { inheritance, connections }, version);
        Reloaded::Failed(format!("cannot execute {}: {error}", self.outside.program.path().display()))
    }

    /// What the application carries over.
    pub(super) fn carried(&self) -> Result<Option<Carried>, String> {
        let carried = self.outside.carry.as_ref().map(|carry| (carry.save)());
        match carried {
            Some(carried) if carried.bytes.len() > CARRY_LIMIT => {
                Err(format!("the application carries over more than {CARRY_LIMIT} bytes"))
            }
            carried => Ok(carried),
        }
    }
}
