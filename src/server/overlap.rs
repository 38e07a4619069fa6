//! Reloading by overlap: a successor starts beside us, proves itself, and takes the connections one by one.
//!
//! Until PROMOTE nothing is given away, and whatever goes wrong we serve on as if nothing had happened.

use super::reload::{Rests, check_timeout, said_by_the_ready};
use super::running::{Pause, Reloaded, Running, Waited};
use super::stragglers::Stragglers;
use crate::clock::Millis;
use crate::config::Config;
use crate::engine::acceptor::{Command, Holders};
use crate::generation::generation;
use crate::lifecycle::candidate::Candidate;
use crate::lifecycle::link::{
    CLIENTS, HOLDS, HUBS, MAX_DESCRIPTORS, Message, SWITCHES, payload, test_point, test_time,
};
use crate::lifecycle::patience::Patience;
use crate::lifecycle::program::{RELOAD, SAID};
use crate::lifecycle::state::{Inheritance, InheritedListener, SUBSCRIBERS, SavedSessions, encode};
use crate::lifecycle::successor::{PATIENCE, Spoken, Successor};
use crate::lifecycle::{Event, FromSuccessor, Kept};
use crate::listener::WeakListener;
use crate::logging::start_lines;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long a successor may take to restore the state, while every client waits.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a successor may take to say that it has taken over.
const PROMOTION_TIMEOUT: Duration = Duration::from_secs(5);
/// From a packet that is received to its event.
const RECEIVING: Duration = Duration::from_millis(5);
/// How long no connection may have moved, before the reload's deadline cuts what is left: longer than a busy host keeps a
/// process waiting.
const STILL_MOVES: Duration = Duration::from_secs(1);
/// How long a successor that was told to stop on probation may take.
const PROBATION_STOP: Duration = Duration::from_secs(5);
/// How long a successor that has not said READY may take to answer a stop.
const UNREADY_PATIENCE: Duration = Duration::from_millis(250);

impl Running {
    /// Hands over to a successor. If it fails before PROMOTE, everything is as before.
    pub(super) fn reload_by_overlap(&mut self, config: &Config, again: &mut bool) -> Reloaded {
        let began = Instant::now();
        self.stragglers = Stragglers::default();
        let mut until_ready = Patience::new(check_timeout());
        let mut probation = Patience::new(config.reload_probation);
        log::info!("reloading: checking {}", self.context.program.path().display());
        let (candidate, spoken) = match self.check_program(config, &mut until_ready, again) {
            Ok((candidate, reads)) => (candidate, Spoken::with(&reads)),
            Err(no) => return no,
        };
        // Two that serve cannot share a state: one that has any serves until the other has it.
        let has_state = self.context.carry.is_some() || self.context.keeps_messages;
        let switch = has_state && spoken.words >= SWITCHES && spoken.state.is_some();
        let (mut successor, given) = match self.start_successor(&candidate, spoken, switch) {
            Ok(started) => started,
            Err(error) => return Reloaded::Failed(format!("cannot start the successor: {error}")),
        };
        let pid = successor.pid();
        if spoken.words >= HOLDS {
            self.command(Command::Tell(successor.link.clone()));
        }
        let kept = match self.until_ready(&mut successor, &mut until_ready, again) {
            Ok(kept) => kept,
            // It may have accepted already.
            Err(no) => return self.roll_back(successor, false, no, config),
        };
        let removed = not_kept(&given, &kept);
        let milliseconds = (began.elapsed() + Duration::from_micros(500)).as_millis() as u64;
        if switch {
            log::info!("reloading: successor {pid} is ready, {milliseconds} ms after the signal");
            let rests = Rests::new(began, config);
            if let Err(no) = self.switch(&mut successor, spoken, rests, config, again) {
                return self.switch_back(successor, no);
            }
            self.command(Command::AcceptOn(removed.clone()));
            let spent = until_ready.spent();
            let deadline = Patience::new(config.reload_deadline.saturating_sub(spent));
            self.promoted_another(pid);
            return self.move_to(successor, removed, spoken, config, deadline, Some(config.reload_probation), again);
        }
        log::info!("reloading: successor {pid} accepts, {milliseconds} ms after the signal");
        // What it has not is ours to serve until it has taken over: somebody may come there who wants what it has as well.
        self.command(Command::AcceptOn(removed.clone()));
        if let Err(no) = self.probation(&mut successor, &mut probation, again) {
            self.command(Command::AcceptAgain);
            return self.roll_back(successor, true, no, config);
        }
        if let Err(no) = self.end_background(began + config.reload_deadline, again) {
            self.command(Command::AcceptAgain);
            return self.roll_back(successor, true, no, config);
        }
        let time = test_time("HANDOVER_TEST_PROMOTION_TIMEOUT", PROMOTION_TIMEOUT);
        if let Err(reason) = self.promote(&mut successor, spoken, time, again) {
            self.command(Command::AcceptAgain);
            let no = self.roll_back(successor, true, reason, config);
            // It may have written the pid file just before.
            self.became_server();
            return no;
        }
        let spent = until_ready.spent() + probation.spent();
        let deadline = Patience::new(config.reload_deadline.saturating_sub(spent));
        self.promoted_another(pid);
        self.hand_hub_over(None, false);
        self.shared.sessions.close_all(Millis::now().0);
        self.move_to(successor, removed, spoken, config, deadline, None, again)
    }

    /// The switch: with nothing running and nothing given out, the application's state goes over, and then the word that
    /// the successor serves. Until that is said it takes no client, and killing it harms nobody.
    fn switch(
        &mut self,
        successor: &mut Successor,
        spoken: Spoken,
        mut rests: Rests,
        config: &Config,
        again: &mut bool,
    ) -> Result<(), Reloaded> {
        test_point("predecessor-switch");
        // It has nothing of ours yet: without it there is nothing to wait for, and nothing to cut.
        self.beside.set(Some(successor.pid()));
        let rests = self
            .end_background(rests.deadline, again)
            .and_then(|()| self.until_at_rest(&mut rests, config, None, again));
        self.beside.set(None);
        let (at_rest, _) = rests?;
        self.context.status.lineage().holds_since(at_rest.since);
        let time = test_time("HANDOVER_TEST_PROMOTION_TIMEOUT", SWITCH_TIMEOUT);
        self.promote(successor, spoken, time, again)?;
        test_point("predecessor-promoted");
        let said = successor.link.send_within(&Message::Go, &[], PATIENCE);
        said.map_err(|error| Reloaded::Failed(format!("the successor is gone before it serves: {error}")))?;
        self.waits_for_serving = true;
        let link = (spoken.words >= HUBS).then(|| successor.link.clone());
        self.hand_hub_over(link, spoken.words >= CLIENTS);
        self.hand_sessions_over(spoken);
        test_point("predecessor-go");
        Ok(())
    }

    /// The successor has the sessions, or nobody has them any more.
    fn hand_sessions_over(&self, spoken: Spoken) {
        match spoken.knows_sessions() {
            Some(_) => self.shared.sessions.hand_over(),
            None => self.shared.sessions.close_all(Millis::now().0),
        }
    }

    /// Nothing has been given away: the successor is killed, and everybody goes on.
    fn switch_back(&mut self, mut successor: Successor, no: Reloaded) -> Reloaded {
        let how = successor.end(Duration::ZERO);
        log::info!("the successor ended: {how}");
        self.open_hub();
        self.command(Command::StandAlone);
        self.command(Command::Resume);
        no
    }

    /// From here on the successor is the server that supervisors know.
    fn promoted_another(&mut self, pid: u32) {
        self.context.notifier.promoted(pid, &format!("generation {}, taking over", generation() + 1));
        // Two at one file: what one of them writes the other might remove.
        if !self.waits_for_serving {
            self.context.pid_file.handed_over();
            self.context.status.lineage().reload_ends(generation() + 1, false, None);
        }
        // What runs on here runs for one that is the server no longer.
        self.shared.phase.stopping().set(true);
        log::info!("reloading: successor {pid} is promoted");
        self.handed_over_to = Some(pid);
    }

    /// Answers the listeners that it was given, too.
    fn start_successor(
        &self,
        candidate: &Candidate<'_>,
        spoken: Spoken,
        switch: bool,
    ) -> std::io::Result<(Successor, Vec<WeakListener>)> {
        // All listeners, and of the spare sockets as many as find place behind them.
        let open = |listener: &WeakListener| Some((listener.clone(), listener.sockets()?));
        let open: Vec<_> = self.listeners.iter().filter_map(open).take(MAX_DESCRIPTORS - 1).collect();
        let mut descriptors: Vec<BorrowedFd<'_>> = open.iter().map(|(_, sockets)| sockets.listener.as_fd()).collect();
        let mut listeners = Vec::new();
        for (place, (listener, sockets)) in open.iter().enumerate() {
            let has_place = spoken.passes_spares() && descriptors.len() < MAX_DESCRIPTORS - 1;
            let spare = sockets.spare.as_ref().filter(|_| has_place);
            listeners.push(InheritedListener {
                fd: place as i32,
                address: listener.address.clone(),
                file: listener.file,
                spare: spare.map(|_| descriptors.len() as i32),
            });
            descriptors.extend(spare.map(AsFd::as_fd));
        }
        let inheritance = Inheritance {
            generation: generation(),
            pid: std::process::id(),
            counters: self.counters(),
            listeners,
            carried: None,
            reload_again: false,
            figures: self.context.status.saved(false),
        };
        let answers = self.relay();
        let events = self.context.sender.clone();
        let (legacy, said) = (self.context.pid_file.legacy(false), start_lines::variable());
        let told = [(RELOAD, legacy.as_os_str()), (SAID, said.as_os_str())];
        let successor = Successor::start(candidate, spoken, switch, inheritance, &told, &descriptors, events, answers)?;
        Ok((successor, open.into_iter().map(|(listener, _)| listener).collect()))
    }

    /// Waits, and passes by what an earlier successor said. Time is up only when the successor has said nothing that is
    /// still on its way to us.
    fn next_from(&self, successor: &Successor, patience: &mut Patience) -> Waited {
        let (mut over, mut silent) = (false, false);
        loop {
            let until = if over { Instant::now() + RECEIVING } else { patience.next_look() };
            let mut waited = self.wait(Some(until));
            over = patience.is_over();
            if over
                && matches!(waited, Waited::Time)
                && let Ok(event) = self.context.events.try_recv()
            {
                waited = if matches!(event, Event::PoolEnded) { Waited::Over } else { Waited::Event(event) };
            }
            match waited {
                Waited::Event(Event::Successor(from, _)) if from != successor.pid() => {}
                Waited::Time if !over || successor.link.has_unread() => {}
                // What was received a moment ago may not be an event yet.
                Waited::Time if !silent => silent = true,
                other => return other,
            }
        }
    }

    /// Waits until the successor accepts. Answers the listeners it has kept.
    fn until_ready(
        &mut self,
        successor: &mut Successor,
        patience: &mut Patience,
        again: &mut bool,
    ) -> Result<Kept, Reloaded> {
        let mut said = String::new();
        loop {
            match self.next_from(successor, patience) {
                Waited::Event(Event::Successor(_, FromSuccessor::Ready(kept))) => return Ok(kept),
                Waited::Event(Event::Successor(_, FromSuccessor::Failed(reason))) => said = format!(": {reason}"),
                Waited::Event(Event::Successor(..)) => {
                    let how = successor.end(PROBATION_STOP);
                    return Err(Reloaded::Failed(format!("the successor ended before it was ready: {how}{said}")));
                }
                Waited::Event(event) => self.during_reload(event, again)?,
                Waited::Time => {
                    return Err(Reloaded::Failed(format!(
                        "the successor was not ready within {}s",
                        check_timeout().as_secs_f64()
                    )));
                }
                Waited::Over => return Err(Reloaded::StopNow),
            }
        }
    }

    /// The successor accepts; we serve what we have and can take it all back.
    fn probation(
        &mut self,
        successor: &mut Successor,
        patience: &mut Patience,
        again: &mut bool,
    ) -> Result<(), Reloaded> {
        loop {
            match self.next_from(successor, patience) {
                Waited::Time => return Ok(()),
                Waited::Event(Event::Successor(_, FromSuccessor::Gone)) => {
                    let how = successor.end(PROBATION_STOP);
                    return Err(Reloaded::Failed(format!("the successor ended on probation: {how}")));
                }
                Waited::Event(Event::Successor(_, word)) => said_by_the_ready(word)?,
                Waited::Event(event) => self.during_reload(event, again)?,
                Waited::Over => return Err(Reloaded::StopNow),
            }
        }
    }

    /// Everything is ours again; the successor ends first, so that we are the sole holder of the listeners.
    /// One that has not said READY may have nothing: then it gets no longer than it takes to say a word.
    fn roll_back(&mut self, mut successor: Successor, ready: bool, no: Reloaded, config: &Config) -> Reloaded {
        let no = self.end_successor(&mut successor, ready, no, config);
        // It may have bound some beside ours.
        self.command(Command::StandAlone);
        no
    }

    fn end_successor(&mut self, successor: &mut Successor, ready: bool, no: Reloaded, config: &Config) -> Reloaded {
        if successor.has_ended() {
            return no;
        }
        let at_once = matches!(no, Reloaded::StopNow);
        // Passed on over the link, never by kill: a terminal signals the whole group, and twice would be a second stop.
        let _ = successor.link.send_within(&Message::Stop { at_once }, &[], PATIENCE);
        // It has accepted clients, which have the same time as at any stop; ours begin to end as well.
        if matches!(no, Reloaded::Stop) {
            self.shared.phase.drain();
        }
        let time = if at_once { PATIENCE } else { config.stop_deadline };
        let (mut no, mut serves, mut again) = (no, ready, false);
        let mut patience = Patience::new(if serves { time } else { time.min(UNREADY_PATIENCE) });
        loop {
            let event = match self.next_from(successor, &mut patience) {
                Waited::Event(event) => event,
                Waited::Time => break,
                // Without workers there is nothing to go on with.
                Waited::Over => {
                    no = Reloaded::StopNow;
                    break;
                }
            };
            match event {
                Event::Successor(_, FromSuccessor::Gone) => break,
                Event::Successor(_, FromSuccessor::Stop { at_once: true }) => no = Reloaded::StopNow,
                Event::Successor(..) if serves => {}
                Event::Successor(..) => {
                    serves = true;
                    patience = Patience::new(time);
                }
                Event::Reopen => self.reopen_log(),
                Event::Reload => again = true,
                Event::StopNow => no = Reloaded::StopNow,
                Event::Stop if self.is_second_stop() => no = Reloaded::StopNow,
                Event::Stop if !matches!(no, Reloaded::StopNow) => no = Reloaded::Stop,
                _ => {}
            }
            if matches!(no, Reloaded::StopNow) {
                break;
            }
        }
        let how = successor.end(Duration::ZERO);
        log::info!("the successor ended: {how}");
        if serves && successor.was_killed() {
            self.shared.stats.cut();
        }
        if again {
            // The channel cannot be closed: we hold both ends.
            let _ = self.context.sender.send(Event::Reload);
        }
        no
    }

    /// PROMOTE: from here on the successor is the server that supervisors know.
    fn promote(
        &mut self,
        successor: &mut Successor,
        spoken: Spoken,
        time: Duration,
        again: &mut bool,
    ) -> Result<(), Reloaded> {
        let carried = self.carried().map_err(Reloaded::Failed)?;
        let version = carried.as_ref().map(|carried| carried.version);
        let failed = |error: std::io::Error| Reloaded::Failed(format!("cannot promote the successor: {error}"));
        if self.context.keeps_messages
            && spoken.words >= HUBS
            && spoken.state >= Some(SUBSCRIBERS)
            && let Some(hub) = self.freeze_hub()
        {
            let (hub, memfd) = payload(hub).map_err(failed)?;
            let descriptors: Vec<_> = memfd.iter().map(AsFd::as_fd).collect();
            successor.link.send_within(&Message::Hub(hub), &descriptors, PATIENCE).map_err(failed)?;
            // What is sent to their clients waits from here on.
            let sessions = self.shared.sessions.save(Millis::now().0);
            if let Some(version) = spoken.knows_sessions() {
                let (sessions, memfd) = payload(encode(SavedSessions(sessions), version)).map_err(failed)?;
                let descriptors: Vec<_> = memfd.iter().map(AsFd::as_fd).collect();
                successor.link.send_within(&Message::Sessions(sessions), &descriptors, PATIENCE).map_err(failed)?;
            }
        }
        let (carried, memfd) = payload(carried.map(|carried| carried.bytes).unwrap_or_default()).map_err(failed)?;
        let descriptors: Vec<_> = memfd.iter().map(AsFd::as_fd).collect();
        let promote = Message::Promote { carried_version: version, carried };
        successor.link.send_within(&promote, &descriptors, PATIENCE).map_err(failed)?;
        test_point("predecessor-promote");
        let mut patience = Patience::new(time);
        loop {
            match self.next_from(successor, &mut patience) {
                Waited::Event(Event::Successor(_, FromSuccessor::Promoted)) => return Ok(()),
                Waited::Event(Event::Successor(_, FromSuccessor::Gone)) => {
                    let how = successor.end(PATIENCE);
                    return Err(Reloaded::Failed(format!("the successor ended as it was promoted: {how}")));
                }
                Waited::Event(Event::Successor(_, FromSuccessor::Stopping)) => return Err(Reloaded::Stop),
                Waited::Event(Event::Successor(_, FromSuccessor::Failed(reason))) => {
                    return Err(Reloaded::Failed(format!("the successor could not be promoted: {reason}")));
                }
                Waited::Event(Event::Successor(_, FromSuccessor::Stop { at_once: true })) => {
                    return Err(Reloaded::StopNow);
                }
                Waited::Event(Event::Successor(..)) => {}
                Waited::Event(event) => self.during_reload(event, again)?,
                Waited::Time => {
                    return Err(Reloaded::Failed(format!("no answer to the promotion in {}s", time.as_secs_f64())));
                }
                Waited::Over => return Err(Reloaded::StopNow),
            }
        }
    }

    /// Moves every connection as it parks, finishes what is in handlers, and leaves.
    #[expect(clippy::too_many_arguments, reason = "what one reload knows by then")]
    fn move_to(
        &mut self,
        mut successor: Successor,
        removed: Vec<WeakListener>,
        spoken: Spoken,
        config: &Config,
        mut deadline: Patience,
        stands_by: Option<Duration>,
        again: &mut bool,
    ) -> Reloaded {
        let closed = removed.iter().map(|listener| listener.address.as_str()).collect::<Vec<_>>().join(", ");
        // The acceptor closes these.
        self.listeners.retain(|listener| !removed.iter().any(|removed| removed.is_same(listener)));
        if spoken.state.is_none() {
            log::warn!("the successor reads other state versions: connections end with their next response instead");
        }
        self.command(Command::Migrate {
            state: spoken.state,
            batches: spoken.words >= HUBS,
            link: successor.link.clone(),
            stalled: Box::new({
                let (events, pid) = (self.context.sender.clone(), successor.pid());
                move || {
                    let _ = events.send(Event::Successor(pid, FromSuccessor::Stalled));
                }
            }),
            removed,
            patience: config.stop_deadline / 4,
            stands_by,
        });
        let mut stopping = false;
        let mut moved = None;
        loop {
            match self.next_from(&successor, &mut deadline) {
                Waited::Over => break,
                Waited::Event(Event::Successor(_, word @ (FromSuccessor::Gone | FromSuccessor::Stalled))) => {
                    if stopping && matches!(word, FromSuccessor::Gone) {
                        // It has waited for us as long as it could; what is left here still has until the deadline.
                        self.command(Command::TakeBack);
                        continue;
                    }
                    // Reaped, so that nothing it was sent can be served twice.
                    let how = successor.end(Duration::ZERO);
                    self.command(Command::TakeBack);
                    if stopping {
                        continue;
                    }
                    self.take_hub_back_behind_a_hole();
                    self.shared.sessions.take_back(Millis::now().0);
                    self.became_server();
                    self.context.notifier.main_again(std::process::id(), &self.status());
                    // Every connection that was not committed is ours, and the listeners that it kept always were.
                    let closed = match &closed[..] {
                        "" => String::new(),
                        closed => format!("; closed, and bound again only by another reload: {closed}"),
                    };
                    let reason = format!("the successor is gone ({how}); this process takes over again{closed}");
                    return Reloaded::Failed(reason);
                }
                Waited::Event(Event::Successor(_, FromSuccessor::Stop { at_once: true }) | Event::StopNow) => {
                    let ended = self.leave(&mut successor, spoken, Pause::SecondStop, *again);
                    // It is the server, whatever becomes of us.
                    successor.let_go();
                    return Reloaded::Ended(ended);
                }
                Waited::Event(Event::Successor(_, FromSuccessor::Stop { at_once: false }) | Event::Stop) => {
                    if !std::mem::replace(&mut stopping, true) {
                        // The successor stops: what is left here ends here, and it waits for our listeners.
                        deadline.shorten(config.stop_deadline);
                        self.shared.phase.drain();
                        self.command(Command::Drain {
                            patience: Duration::ZERO,
                            holders: Holders::Successor,
                            alone: true,
                        });
                        let _ = successor.link.send_within(&Message::ListenersClosed, &[], PATIENCE);
                    }
                }
                Waited::Event(Event::Reload) => *again = true,
                Waited::Event(Event::Reopen) => self.reopen_log(),
                Waited::Event(Event::Successor(_, FromSuccessor::Serves)) => self.it_serves(),
                Waited::Event(Event::Successor(..) | Event::Predecessor(_) | Event::PoolEnded) => {}
                // It is for what does not come to rest, and not for what has only not had its turn: the successor may
                // have taken all of the time to be ready and to prove itself.
                Waited::Time if !stopping && self.still_moves(&mut moved) => {
                    deadline = Patience::new(STILL_MOVES);
                }
                Waited::Time => {
                    log::warn!("reload deadline: what is left is cut");
                    let ended = self.leave(&mut successor, spoken, Pause::Time, *again);
                    successor.let_go();
                    return Reloaded::Ended(ended);
                }
            }
        }
        self.leave(&mut successor, spoken, Pause::Over, *again);
        successor.let_go();
        Reloaded::HandedOver
    }

    /// The pid file is the successor's, or nobody's any more.
    fn it_serves(&mut self) {
        if std::mem::take(&mut self.waits_for_serving) {
            self.context.pid_file.handed_over();
            self.context.status.lineage().reload_ends(generation() + 1, false, None);
        }
    }

    /// For one that was told to serve and has not said that it does. One that is slow finds our pid file in its place.
    fn until_it_serves(&mut self, successor: &Successor, again: &mut bool) {
        let mut patience = Patience::new(PATIENCE);
        while self.waits_for_serving {
            match self.next_from(successor, &mut patience) {
                Waited::Event(Event::Successor(_, FromSuccessor::Serves)) => self.it_serves(),
                Waited::Event(Event::Successor(_, FromSuccessor::Gone)) | Waited::Time => break,
                Waited::Event(Event::Reload) => *again = true,
                // The pool has ended, which says so once.
                Waited::Event(_) | Waited::Over => {}
            }
        }
        if std::mem::take(&mut self.waits_for_serving) {
            self.context.pid_file.leave_it();
        }
    }

    /// Whether a HUP has come that nobody has acted on: to the last moment, since who sent it read our pid before the
    /// successor's stood in the file, and may have been slow.
    fn hears_of_another_reload(&mut self) -> bool {
        let mut again = false;
        if let Some(signals) = &mut self.context.signals {
            signals.suspend();
            again |= signals.take_pending_reload();
        }
        while let Ok(event) = self.context.events.try_recv() {
            again |= matches!(event, Event::Reload);
        }
        again
    }

    /// Whether connections have moved since the last look, or this is the first.
    fn still_moves(&self, moved: &mut Option<u64>) -> bool {
        let now = self.shared.stats.total_migrated();
        moved.replace(now) != Some(now)
    }

    /// The last words to the successor.
    fn leave(&mut self, successor: &mut Successor, spoken: Spoken, why: Pause, mut again: bool) -> super::Ended {
        let ended = match why {
            Pause::Time => match self.end_at_deadline() {
                super::Ended::Clean => super::Ended::HandedOver,
                other => other,
            },
            Pause::SecondStop => {
                self.cut();
                super::Ended::AtOnce
            }
            Pause::Over | Pause::Reached => super::Ended::HandedOver,
        };
        test_point("predecessor-leaves");
        self.until_it_serves(successor, &mut again);
        // It is the server, whether or not it has said so.
        self.context.status.lineage().reload_ends(generation() + 1, false, None);
        again |= self.hears_of_another_reload();
        let mut counters = self.counters();
        counters.reloads += 1;
        if let Some(version) = spoken.knows_figures()
            && let Ok((figures, memfd)) = payload(encode(self.context.status.saved(false), version))
        {
            let descriptors: Vec<_> = memfd.iter().map(AsFd::as_fd).collect();
            let figures = Message::Figures { number: 0, figures };
            let _ = successor.link.send_within(&figures, &descriptors, PATIENCE);
        }
        let _ = successor.link.send_within(&Message::ListenersClosed, &[], PATIENCE);
        let _ = successor.link.send_within(
            &Message::Finished {
                counters: counters.into(),
                cut: self.shared.stats.total_cut() as u64,
                reload_again: again,
            },
            &[],
            PATIENCE,
        );
        ended
    }
}

/// Of the listeners that a successor was given those that it has no use for.
fn not_kept(given: &[WeakListener], kept: &Kept) -> Vec<WeakListener> {
    let places = given.iter().enumerate();
    places.filter(|(place, one)| !kept.contains(*place, &one.address)).map(|(_, one)| one.clone()).collect()
}
