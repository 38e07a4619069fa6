//! The acceptor thread: it accepts, watches every parked connection, enforces their deadlines, and sends ready ones
//! into the channel. It never parses, never calls a handler and never waits for a client.

mod accepting;
mod beside;
mod census;
mod deadlines;
mod deliveries;
mod eviction;
mod holding;
mod moving;
mod resting;
mod sessions;
mod streams;
mod timers;

pub use census::Census;
pub use holding::{AtRest, Held, HoldOrder, NotHeld};

use crate::clock::{DateCache, Millis};
use crate::engine::connection::Slot;
use crate::engine::connection::{CloseReason, Connection, Discarded, Restored, Share, Shared};
use crate::engine::pool::job::Job;
use crate::engine::pool::work_queue::Producer;
use crate::engine::pool::worker::{AcceptorHandle, ToAcceptor};
use crate::engine::slot::{Notified, Readiness, Sched};
use crate::engine::table::{ClientNet, Table};
use crate::lifecycle::link::{Holds, Link};
use crate::listener::{Listener, WeakListener};
use crate::logging::rate_limit::log_rate_limited;
use crate::sys::scheduling::{Policy, schedule};
use accepting::Leaving;
use beside::{Beside, Telling};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use deliveries::Deliveries;
use foldhash::fast::RandomState;
use holding::{Asked, Hold};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use moving::Migration;
use resting::Resting;
use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use streams::Streams;
use timers::Timers;

/// The poller's token of the waker; listeners follow.
pub const WAKER: Token = Token(Table::special(0));
/// How precisely deadlines are kept while something is under way. Parked connections alone wake nobody before their
/// time.
const TICK: u64 = 250;
/// The same while the server stops.
const DRAIN_TICK: u64 = 25;
/// How often a hold looks whether the pool rests.
const HOLD_TICK: Duration = Duration::from_millis(1);
/// How often is looked whether a hold may begin, where nothing else happens.
const ASKED_TICK: Duration = Duration::from_millis(5);

/// What the main thread, and a link's thread, tell the acceptor.
pub enum Command {
    /// Close the listeners without resetting anyone, within `patience`; let the connections end. What another holds too
    /// is just closed: the queue is the other's as well.
    /// Unless `alone`, the predecessor may still move connections here, and the end waits for its end.
    Drain {
        patience: Duration,
        holders: Holders,
        alone: bool,
    },
    /// The predecessor is gone.
    Alone,
    /// End what is left, count what that cuts, and drop `done` then.
    Cut {
        done: Sender<()>,
    },
    /// When what runs is short, give no more work to the pool, and answer with every connection once the pool
    /// rests and all can be moved; or [`NotHeld`], and go on.
    Hold(HoldOrder),
    /// Go on after a hold that was answered, or do without one.
    Resume,
    /// Leave the listeners to the successor, but for those that it does not keep.
    AcceptOn(Vec<WeakListener>),
    /// Accept on all of them again.
    AcceptAgain,
    /// The successor has ended: nobody's is to be bound beside ours any more.
    StandAlone,
    /// Move every connection to the successor as it parks, written in that version of the state; end when none is left.
    /// The listeners in `removed` are nobody's any more. Without a version the successor cannot read their state, and
    /// they end politely.
    Migrate {
        state: Option<u32>,
        /// Whether several may move at a time.
        batches: bool,
        link: Link,
        stalled: Box<dyn Fn() + Send>,
        removed: Vec<WeakListener>,
        patience: Duration,
        /// After a switch: how long to stay for the case that the successor dies.
        stands_by: Option<Duration>,
    },
    /// A successor that has waited for it takes clients.
    Serve,
    /// The successor has that connection, or cannot take it.
    Acked(Vec<u64>),
    Refused(Vec<u64>),
    /// The successor is gone and reaped: what was not committed stays here.
    TakeBack,
    /// This process is the server: the files of its Unix sockets are its to remove.
    OwnFiles,
    /// From here on the successor hears what we hold.
    Tell(Link),
    /// The predecessor holds that much.
    Learn(Holds),
    /// The successor wishes for a place, for another connection of that address if there is one.
    Spare(Option<Vec<u8>>),
    /// Say how many connections there are.
    Count(Sender<Census>),
    /// Connections of the predecessor have become ours.
    Adopt(Vec<Restored>),
}

/// Who has the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holders {
    WeAlone,
    /// A predecessor too, of those that were inherited.
    Predecessor,
    /// A successor too.
    Successor,
}

/// The ways to the threads that drive connections.
pub struct Jobs {
    pub workers: Producer<Job>,
    pub streamers: Producer<Job>,
    pub status: Option<Producer<Job>>,
}

/// The acceptor's state.
pub struct Acceptor {
    poll: Poll,
    listeners: Vec<Listener>,
    table: Table,
    /// The only sender: when it is dropped, the pool ends.
    jobs: Producer<Job>,
    /// Subscribers for whom there is something.
    deliveries: Deliveries,
    /// The threads that may wait for clients.
    streams: Streams,
    /// The thread that answers for the server's state while every worker is busy.
    status: Option<Producer<Job>>,
    /// What did not fit into the channel because stale entries stand there.
    overflow: VecDeque<Arc<Slot>>,
    /// A hold that begins at its moment.
    asked: Option<Asked>,
    /// While no work is given out: who waits for the pool to rest, and what is ready meanwhile.
    hold: Option<Hold>,
    messages: Receiver<ToAcceptor>,
    to_acceptor: AcceptorHandle,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    date: DateCache,
    now: Millis,
    /// When each connection is to be looked at.
    timers: Timers,
    /// Whether every connection was looked at since the stop began.
    draining: bool,
    /// A part of the time that a stop has.
    stop_patience: Duration,
    /// Whether a listener may have more.
    ready: bool,
    /// Until then no accepting: places or descriptors have run out.
    accept_again: Millis,
    /// Since when there is no descriptor, or no memory, for another connection.
    exhausted: Option<Millis>,
    /// When it was last said that accepting is refused, while it is.
    refused: Option<Millis>,
    /// A descriptor to give up then.
    reserve: Option<OwnedFd>,
    /// Who goes next when place has to be made; see [`Acceptor::evict`].
    victims: Vec<Arc<Slot>>,
    /// Accepted, and one too many for their address unless another ends by then.
    postponed: Vec<(Millis, OwnedFd, SocketAddr)>,
    /// Addresses of which one has ended or is about to since these were looked at.
    freed: HashSet<ClientNet, RandomState>,
    /// Whether somebody waits in a listener's queue for a place.
    full: bool,
    /// Whether new connections are ours to take.
    accepting: bool,
    /// If they are not: listeners whose connections are ours all the same.
    accepting_on: Vec<WeakListener>,
    /// Whether the predecessor has to say first that we serve.
    waits_for_go: bool,
    /// Whether no predecessor can move connections here.
    alone: bool,
    migration: Option<Migration>,
    /// Connections of the predecessor's that are ours and have no place yet.
    adopting: VecDeque<Restored>,
    /// What the predecessor beside us holds.
    beside: Beside,
    /// Who is told what we hold.
    telling: Option<Telling>,
    /// Listeners that are being closed.
    leaving: Vec<Leaving>,
    /// Connections of which one look did not throw away everything.
    discarding: Vec<Arc<Slot>>,
    resting: Resting,
    /// What sessions take of the memory for what waits, and how much that was when it was counted.
    sessions_share: Option<Share>,
    sessions_held: usize,
    /// Whether some may have connections that have not come here yet.
    awaits_sessions: bool,
    /// When to say next what is waited for.
    says_again: Millis,
    over: bool,
}

impl Acceptor {
    /// `poll` has the waker of `to_acceptor` registered.
    pub fn new(
        poll: Poll,
        listeners: Vec<Listener>,
        Jobs { workers: jobs, streamers, status }: Jobs,
        messages: Receiver<ToAcceptor>,
        to_acceptor: AcceptorHandle,
        commands: Receiver<Command>,
        shared: Arc<Shared>,
    ) -> io::Result<Acceptor> {
        for (number, listener) in listeners.iter().enumerate() {
            let token = Token(Table::special(number + 1));
            poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), token, Interest::READABLE)?;
        }
        Ok(Acceptor {
            poll,
            listeners,
            table: Table::default(),
            deliveries: Deliveries::new(shared.hub.clone(), shared.in_flight.len()),
            jobs,
            streams: Streams::new(streamers),
            status,
            overflow: VecDeque::new(),
            asked: None,
            hold: None,
            messages,
            to_acceptor,
            commands,
            shared,
            date: DateCache::new(),
            now: Millis::now(),
            timers: Timers::new(),
            draining: false,
            stop_patience: Duration::ZERO,
            ready: true,
            accept_again: Millis(0),
            exhausted: None,
            refused: None,
            reserve: eviction::reserve(),
            victims: Vec::new(),
            postponed: Vec::new(),
            freed: HashSet::default(),
            full: false,
            accepting: true,
            accepting_on: Vec::new(),
            waits_for_go: false,
            alone: true,
            migration: None,
            adopting: VecDeque::new(),
            beside: Beside::default(),
            telling: None,
            leaving: Vec::new(),
            discarding: Vec::new(),
            resting: Resting::default(),
            sessions_share: None,
            sessions_held: 0,
            awaits_sessions: true,
            says_again: Millis::NEVER,
            over: false,
        })
    }

    /// Takes no client until [`Command::Serve`].
    pub fn wait_for_go(&mut self) {
        self.waits_for_go = true;
    }

    /// Gives back memory whenever there is nothing to do for a while: for a process that is the server's alone.
    pub fn give_back_at_rest(&mut self) {
        self.resting = Resting::of_this_process();
    }

    /// Runs until it was told to drain and nothing is left, or until the poller fails.
    pub fn run(mut self) -> io::Result<()> {
        schedule(Policy::Batch);
        let mut events = Events::with_capacity(256);
        self.resting.stir(self.now);
        while !self.over {
            self.have_ends_told();
            self.wake_pools();
            self.resting.rest(self.now);
            let timeout = self.timeout();
            self.to_acceptor.rests();
            let is_told = !self.messages.is_empty() || !self.commands.is_empty() || self.deliveries.has_news();
            match self.poll.poll(&mut events, if is_told { Some(Duration::ZERO) } else { timeout }) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
            self.to_acceptor.is_awake();
            self.now = Millis::now();
            if !events.is_empty() {
                self.resting.stir(self.now);
            }
            for event in &events {
                match Table::as_special(event.token().0) {
                    Some(0) => {}
                    Some(_) => self.ready = true,
                    None => self.event(event),
                }
            }
            self.take_messages();
            // What comes after this may take a while.
            self.wake_pools();
            self.take_commands();
            self.adopt_some();
            self.send_overflow();
            self.deliver();
            self.look_at_sessions();
            self.admit_postponed();
            self.look_for_room();
            if self.ready && self.accepts() && self.hold.is_none() && self.now >= self.accept_again {
                self.accept();
            }
            if !self.leaving.is_empty() && self.hold.is_none() {
                self.close_leaving();
            }
            for slot in std::mem::take(&mut self.discarding) {
                self.discard(slot);
            }
            if self.hold.is_some() {
                self.answer_hold();
            } else {
                self.keep_deadlines();
            }
            self.may_begin_hold();
            self.say_what_is_waited_for();
            self.migrate();
            self.tell();
            let closed = self.listeners.is_empty() && self.leaving.is_empty();
            let ending = match &self.migration {
                Some(migration) => self.leaving.is_empty() && migration.may_end(self.now),
                None => self.shared.is_draining() && closed && self.alone,
            };
            let empty = self.table.len() == 0 && self.postponed.is_empty() && self.adopting.is_empty();
            self.over |= ending && empty;
        }
        Ok(())
    }

    /// Has a worker tell the application of connections that have ended on this thread. Also in a hold, which waits for that;
    /// not in one that was answered: nothing of the application's begins then.
    fn have_ends_told(&mut self) {
        if self.hold.as_ref().is_some_and(|hold| !hold.is_open()) || !self.shared.conversations.take_wish_for_worker() {
            return;
        }
        // Where there is no room, who takes what stands there tells of them behind it.
        if let Err(TrySendError::Disconnected(_)) = self.jobs.try_send(Job::Ended) {
            self.over = true;
        }
    }

    /// Sees to it that what was given to the threads is taken.
    fn wake_pools(&self) {
        self.jobs.wake_one();
        self.streams.wake_one();
        if let Some(status) = &self.status {
            status.wake_one();
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.discarding.is_empty() || !self.adopting.is_empty() {
            return Some(Duration::ZERO);
        }
        if let Some(hold) = &self.hold {
            // Workers that come to rest say nothing.
            return hold.is_open().then_some(HOLD_TICK);
        }
        if self.asked.is_some() {
            return Some(ASKED_TICK);
        }
        let mut until = self.timers.next(self.now).min(self.resting.due()).min(self.deliveries.due());
        until = until.min(self.sessions_due());
        if let Some(due) = self.streams.due() {
            until = until.min(due);
        }
        if let Some((first, ..)) = self.postponed.first() {
            until = until.min(*first);
        }
        if self.ready && self.accepts() {
            until = until.min(self.accept_again);
        }
        for leaving in &self.leaving {
            until = until.min(leaving.ask_again);
        }
        if let Some(telling) = &self.telling {
            until = until.min(telling.due);
        }
        if self.migration.is_some() || !self.overflow.is_empty() {
            until = until.min(self.now.after(Duration::from_millis(DRAIN_TICK)));
        }
        // The coarse clock lags by a tick: a millisecond more, or the loop would spin until it has moved.
        (until != Millis::NEVER).then(|| match self.now.until(until) {
            Duration::ZERO => Duration::ZERO,
            wait => wait + Duration::from_millis(1),
        })
    }

    fn event(&mut self, event: &mio::event::Event) {
        let Some(slot) = self.table.get(event.token().0).cloned() else { return };
        let broken = event.is_error();
        let ready = Readiness {
            readable: event.is_readable() || broken,
            writable: event.is_writable() || event.is_write_closed() || broken,
            closed: event.is_read_closed() || broken,
            urgent: event.is_priority(),
            woken: false,
        };
        if ready.closed {
            self.free_place_of(self.table.source_of(slot.token()));
        }
        self.notify(slot, ready);
    }

    pub(super) fn notify(&mut self, slot: Arc<Slot>, ready: Readiness) {
        match slot.notify(ready) {
            // Between two requests of a busy client this is the moment: what has come is still in the socket.
            Notified::Enqueue(parked) if self.move_away(&slot, parked) => {}
            Notified::Enqueue(_) => self.enqueue(slot),
            Notified::Waits => self.waits(&slot),
            Notified::Nothing => {}
            Notified::Discard => self.discard(slot),
        }
    }

    /// Throws away what a client sends that this thread has answered. A client that is faster than one look goes on
    /// with the next, until its deadline.
    fn discard(&mut self, slot: Arc<Slot>) {
        if slot.load().sched() != Sched::Expired {
            return;
        }
        let discarded = slot.connection().as_mut().map(Connection::discard);
        match discarded {
            Some(Discarded::Some) => self.discarding.push(slot),
            Some(Discarded::End(reason)) => self.close(&slot, reason),
            Some(Discarded::All) | None => {}
        }
    }

    fn enqueue(&mut self, slot: Arc<Slot>) {
        self.may_begin_hold();
        if let Some(hold) = &mut self.hold {
            hold.ready.push(slot);
            return;
        }
        if self.has_switched() {
            self.leave_unread(&slot);
            return;
        }
        self.waits(&slot);
        self.send(slot);
    }

    /// This thread has it, and a worker has to take a turn.
    fn requeue(&mut self, slot: &Arc<Slot>, refusable: bool) {
        match slot.requeue(refusable) {
            true => self.enqueue(slot.clone()),
            // An entry stands there, left by the status thread or by what had expired.
            false => self.waits(slot),
        }
    }

    /// Puts its entry into the channel.
    fn send(&mut self, slot: Arc<Slot>) {
        match self.jobs.try_send(Job::Turn(slot)) {
            Err(TrySendError::Full(Job::Turn(slot))) => self.overflow.push_back(slot),
            // The pool ends only after this thread has.
            Err(TrySendError::Disconnected(_)) => self.over = true,
            Ok(()) | Err(TrySendError::Full(Job::Deliveries(_) | Job::Ended | Job::Sessions)) => {}
        }
    }

    /// It waits for a worker from now on.
    fn waits(&mut self, slot: &Slot) {
        slot.set_queued_at(self.now);
        self.is_under_way(slot);
    }

    fn send_overflow(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.ready.extend(self.overflow.drain(..));
            return;
        }
        while let Some(slot) = self.overflow.pop_front() {
            if slot.load().sched() != Sched::Queued {
                continue;
            }
            if let Err(error) = self.jobs.try_send(Job::Turn(slot)) {
                if let Job::Turn(slot) = error.into_inner() {
                    self.overflow.push_front(slot);
                }
                return;
            }
        }
    }

    fn close(&mut self, slot: &Slot, reason: CloseReason) {
        self.shared.stats.closed(reason);
        log::debug!("connection closed: {reason}");
        if let Some(connection) = slot.connection().as_mut() {
            connection.close(reason, &self.shared, self.now);
        }
        slot.close();
        self.forget(slot.token());
    }

    /// It has gone: somebody of its address may wait for its place.
    fn forget(&mut self, token: usize) {
        // Else the timer would be that of who has its entry by now.
        if self.table.get(token).is_none() {
            return;
        }
        self.timers.forget(token);
        let source = self.table.remove(token);
        self.free_place_of(source);
    }

    fn free_place_of(&mut self, source: Option<ClientNet>) {
        if !self.postponed.is_empty() {
            self.freed.extend(source);
        }
    }

    fn take_messages(&mut self) {
        for message in waiting(&self.messages) {
            match message {
                ToAcceptor::Closed(token) => {
                    self.forget(token);
                    if std::mem::take(&mut self.full) {
                        self.accept_again = self.now;
                    }
                }
                ToAcceptor::Again { token, entry } => {
                    if let Some(slot) = self.table.get(token).cloned() {
                        match entry {
                            true => self.enqueue(slot),
                            false => self.waits(&slot),
                        }
                    }
                }
                ToAcceptor::WantsStream(token) => self.streams.wait(token, &self.table),
                ToAcceptor::Streamers(free) => self.streams.freed(free),
                ToAcceptor::Delivered => self.deliveries.served(),
                ToAcceptor::More(token) => self.deliveries.wait(token),
                ToAcceptor::Sooner(token) => {
                    if let Some(slot) = self.table.get(token).cloned() {
                        self.is_under_way(&slot);
                    }
                }
            }
        }
        if self.hold.is_none() {
            for slot in self.streams.grant(&self.table) {
                self.is_under_way(&slot);
            }
        }
    }

    fn watch(&mut self, slot: &Slot) {
        let registered = slot.connection().as_ref().map_or(Ok(()), |connection| {
            // Urgent data too: a read ends early at its mark.
            let (token, interest) = (Token(slot.token()), Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY);
            self.poll.registry().register(&mut SourceFd(&connection.socket().as_raw_fd()), token, interest)
        });
        if let Err(error) = registered {
            log_rate_limited!(warn, "cannot watch a connection: {error}");
            self.close(slot, CloseReason::Internal);
        }
    }

    fn take_commands(&mut self) {
        for command in waiting(&self.commands) {
            match command {
                Command::Alone => self.is_alone(),
                Command::Tell(link) => self.begin_telling(link),
                Command::Learn(holds) => self.learn(holds),
                Command::Spare(address) => self.spare_for(address),
                // Who asked may have gone on without it.
                Command::Count(answer) => _ = answer.send(self.census()),
                Command::Drain { patience, holders, alone } => {
                    self.alone = alone;
                    self.stop_patience = patience;
                    if let Some(migration) = &mut self.migration {
                        migration.stands_by_no_more(self.now);
                    }
                    let (ours, mut shared): (Vec<_>, Vec<_>) =
                        std::mem::take(&mut self.listeners).into_iter().partition(|listener| match holders {
                            Holders::WeAlone => true,
                            Holders::Predecessor => !listener.is_inherited(),
                            Holders::Successor => false,
                        });
                    self.leave(ours, patience);
                    shared.iter_mut().for_each(|listener| listener.own_file(false));
                    self.to_acceptor.want_places(true);
                }
                Command::Hold(order) => self.ask_for_hold(order),
                Command::Resume => self.resume(),
                Command::AcceptOn(listeners) => {
                    self.accepting = false;
                    self.accepting_on = listeners;
                }
                Command::AcceptAgain => {
                    self.accepting_on.clear();
                    self.accepting = true;
                    self.ready = true;
                }
                Command::StandAlone => self.stand_alone(),
                Command::Serve => {
                    self.waits_for_go = false;
                    self.ready = true;
                }
                Command::Migrate { state, batches, link, stalled, removed, patience, stands_by } => {
                    let (gone, kept) = std::mem::take(&mut self.listeners)
                        .into_iter()
                        .partition(|listener| removed.iter().any(|weak| weak.is_of(listener)));
                    self.listeners = kept;
                    // The successor has closed its copies, so we are their sole holder.
                    self.leave(gone, patience);
                    self.own_files(false);
                    self.accepting = false;
                    self.accepting_on.clear();
                    // What is in handlers now has no other way to learn of it.
                    self.shared.phase.keep_no_connection(state.is_none());
                    self.to_acceptor.want_places(true);
                    let stands_by = stands_by.map(|time| self.now.after(time));
                    self.migration = Some(Migration::new(state, batches, link, stalled, stands_by));
                    if self.has_switched() {
                        self.move_held();
                    }
                }
                Command::Acked(ids) => {
                    if let Some(migration) = &mut self.migration {
                        migration.commits.extend(ids);
                        migration.goes_on();
                    }
                }
                Command::Refused(ids) => {
                    for id in ids {
                        let moving = self.migration.as_mut().and_then(|migration| {
                            migration.goes_on();
                            migration.take(id)
                        });
                        if let Some(moving) = moving {
                            self.unfreeze(&moving);
                            self.end_soon(&moving.slot);
                            self.go_on_with_what_was_read(moving.slot);
                        }
                    }
                }
                Command::TakeBack => {
                    let switched = self.has_switched();
                    for moving in self.migration.take().into_iter().flat_map(|migration| migration.moving) {
                        self.unfreeze(&moving);
                        self.go_on_with_what_was_read(moving.slot);
                    }
                    self.shared.phase.keep_no_connection(false);
                    let serving = !self.shared.is_draining();
                    self.accepting = serving;
                    self.ready = serving;
                    self.own_files(true);
                    self.stand_alone();
                    self.to_acceptor.want_places(!serving);
                    if switched {
                        self.watch_anew();
                    }
                }
                Command::OwnFiles => self.own_files(true),
                Command::Adopt(restored) => self.adopting.extend(restored),
                Command::Cut { done } => {
                    self.cut();
                    drop(done);
                    self.over = true;
                }
            }
        }
    }
}

/// What has come until now: what comes meanwhile wakes this thread again.
fn waiting<T>(messages: &Receiver<T>) -> Vec<T> {
    messages.try_iter().take(messages.len()).collect()
}

#[cfg(test)]
mod tests;
