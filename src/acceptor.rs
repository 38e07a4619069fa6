//! The acceptor thread: it accepts, watches every parked connection, enforces their deadlines, and sends ready ones
//! into the channel. It never parses, never calls a handler and never waits for a client.

use crate::clock::{DateCache, Millis};
use crate::connection::socket::{Moved, Socket};
use crate::connection::{CloseReason, Connection, Discarded, Expiry, Restored, Services, Snapshot};
use crate::http::Reject;
use crate::lifecycle::link::{Link, Message, Sent, payload, test_point};
use crate::lifecycle::state::{MovedConnection, encode};
use crate::listener::{Accepted, Listener};
use crate::slot::{Notified, Place, Readiness, Slot};
use crate::table::Table;
use crate::worker::{Return, Returns};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The poller's token of the waker; listeners follow.
pub const WAKER: Token = Token(Table::special(0));
/// How precisely deadlines are kept while something is under way. Parked connections alone wake nobody before their
/// time.
const TICK: u64 = 250;
/// The same while the server stops.
const DRAIN_TICK: u64 = 25;
/// How long a successor may take to see what was ready, in milliseconds.
const READY_GRACE: i32 = 5000;
/// Connections on their way to the successor at a time.
const UNACKNOWLEDGED: usize = 128;
/// How long the successor may take to acknowledge a connection.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stop's deadline waits for workers that are between two turns.
const RUNNING_GRACE: Duration = Duration::from_millis(100);
/// How often a hold looks whether the pool rests.
const HOLD_TICK: Duration = Duration::from_millis(1);
/// Connections accepted before parked ones are looked at again.
const ACCEPTS: usize = 64;
/// How long to leave the listener alone when descriptors or places have run out.
const BACK_OFF: Duration = Duration::from_millis(100);
/// A connection is not evicted before it has been idle for that long: its request may be on the way.
const EVICTION_GRACE: Duration = Duration::from_secs(1);
/// At least that long passes between the SYN filter and the close: a SYN that the kernel was just handling is in
/// SYN_RECV by then.
const FILTER_SETTLES: Duration = Duration::from_millis(10);
/// How long to wait for handshakes where the kernel does not tell about them.
const BLIND_WAIT: Duration = Duration::from_secs(1);

/// What the main thread, and a link's thread, tell the acceptor.
pub enum Command {
    /// Close the listeners without resetting anyone, within `patience`; let the connections end. With another holder
    /// of the listeners alive, our copies are just closed: the queue is the other's too.
    /// Unless `alone`, the predecessor may still move connections here, and the end waits for its end.
    Drain {
        patience: Duration,
        sole_holder: bool,
        alone: bool,
    },
    /// The predecessor is gone.
    Alone,
    /// End what is left, count what that cuts, and answer when it is done.
    Cut {
        answer: Sender<()>,
    },
    /// Give no more work to the pool, and answer with every connection once the pool rests and all can be moved.
    Hold {
        answer: Sender<Vec<MovedConnection>>,
    },
    /// Go on after a hold.
    Resume,
    /// Leave the listeners to the successor, or take them again.
    Accept(bool),
    /// Move every connection to the successor as it parks; end when none is left.
    /// The listeners in `removed` are nobody's any more. Without `moves` the successor cannot read their state, and
    /// they end politely.
    Migrate {
        moves: bool,
        link: Link,
        stalled: Box<dyn Fn() + Send>,
        removed: Vec<String>,
        patience: Duration,
    },
    /// The successor has that connection, or cannot take it.
    Acked(u64),
    Refused(u64),
    /// The successor is gone and reaped: what was not committed stays here.
    TakeBack,
    /// This process is the server: the files of its Unix sockets are its to remove.
    OwnFiles,
    /// A connection of the predecessor has become ours.
    Adopt(Box<Restored>),
}

/// Connections on their way to the successor.
struct Migration {
    moves: bool,
    link: Link,
    /// Told once when the successor does not answer any more.
    stalled: Option<Box<dyn Fn() + Send>>,
    next_id: u64,
    /// Sent and not yet committed, by id.
    moving: HashMap<u64, Moving>,
    /// Acknowledged, their COMMIT to be sent in this order.
    commits: VecDeque<u64>,
}

struct Moving {
    slot: Arc<Slot>,
    place: Place,
    answerable: bool,
    since: Millis,
}

/// A hold: see [`Command::Hold`].
struct Hold {
    /// Gone once it was answered.
    answer: Option<Sender<Vec<MovedConnection>>>,
    ready: Vec<Arc<Slot>>,
}

/// A listener that takes no new handshakes, and goes once those under way are served.
struct Leaving {
    listener: Listener,
    since: Millis,
    until: Millis,
    /// When to ask for handshakes again: it means reading a table of every socket on the host.
    ask_again: Millis,
}

/// The acceptor's state.
pub struct Acceptor {
    poll: Poll,
    listeners: Vec<Listener>,
    table: Table,
    /// The only sender: when it is dropped, the pool ends.
    jobs: Sender<Arc<Slot>>,
    /// What did not fit into the channel because stale entries stand there.
    overflow: VecDeque<Arc<Slot>>,
    /// While no work is given out: who waits for the pool to rest, and what is ready meanwhile.
    hold: Option<Hold>,
    returned: Receiver<Return>,
    returns: Returns,
    commands: Receiver<Command>,
    services: Arc<Services>,
    date: DateCache,
    now: Millis,
    next_scan: Millis,
    /// Whether a listener may have more.
    ready: bool,
    /// Until then no accepting: places or descriptors have run out.
    accept_again: Millis,
    exhausted: bool,
    /// Whether somebody waits in a listener's queue for a place.
    full: bool,
    /// Whether new connections are ours to take.
    accepting: bool,
    /// Whether no predecessor can move connections here.
    alone: bool,
    migration: Option<Migration>,
    /// Listeners that are being closed.
    leaving: Vec<Leaving>,
    /// Connections of which one look did not throw away everything.
    discarding: Vec<Arc<Slot>>,
    over: bool,
}

impl Acceptor {
    /// `poll` has the waker of `returns` registered.
    pub fn new(
        poll: Poll,
        listeners: Vec<Listener>,
        jobs: Sender<Arc<Slot>>,
        returned: Receiver<Return>,
        returns: Returns,
        commands: Receiver<Command>,
        services: Arc<Services>,
    ) -> io::Result<Acceptor> {
        for (number, listener) in listeners.iter().enumerate() {
            let token = Token(Table::special(number + 1));
            poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), token, Interest::READABLE)?;
        }
        Ok(Acceptor {
            poll,
            listeners,
            table: Table::default(),
            jobs,
            overflow: VecDeque::new(),
            hold: None,
            returned,
            returns,
            commands,
            services,
            date: DateCache::new(),
            now: Millis::now(),
            next_scan: Millis::NEVER,
            ready: true,
            accept_again: Millis(0),
            exhausted: false,
            full: false,
            accepting: true,
            alone: true,
            migration: None,
            leaving: Vec::new(),
            discarding: Vec::new(),
            over: false,
        })
    }

    /// Runs until it was told to drain and nothing is left, or until the poller fails.
    pub fn run(mut self) -> io::Result<()> {
        schedule(Policy::Batch);
        let mut events = Events::with_capacity(256);
        while !self.over {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
            self.now = Millis::now();
            for event in &events {
                match Table::as_special(event.token().0) {
                    Some(0) => {}
                    Some(_) => self.ready = true,
                    None => self.event(event),
                }
            }
            self.take_returns();
            self.take_commands();
            self.send_overflow();
            if self.ready && self.accepting && self.hold.is_none() && self.now >= self.accept_again {
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
            } else if self.now >= self.next_scan {
                self.scan();
            }
            self.migrate();
            let closed = self.listeners.is_empty() && self.leaving.is_empty();
            let ending = match self.migration {
                Some(_) => self.leaving.is_empty(),
                None => self.services.is_draining() && closed && self.alone,
            };
            self.over |= ending && self.table.len() == 0;
        }
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.discarding.is_empty() {
            return Some(Duration::ZERO);
        }
        if let Some(hold) = &self.hold {
            // Workers that come to rest say nothing.
            return hold.answer.is_some().then_some(HOLD_TICK);
        }
        let mut until = self.next_scan;
        if self.ready && self.accepting {
            until = until.min(self.accept_again);
        }
        if self.migration.is_some() || !self.leaving.is_empty() || !self.overflow.is_empty() {
            until = until.min(self.now.after(Duration::from_millis(DRAIN_TICK)));
        }
        // The coarse clock lags by a tick: a millisecond more, or the loop would spin until it has moved.
        (until != Millis::NEVER).then(|| match self.now.until(until) {
            Duration::ZERO => Duration::ZERO,
            wait => wait + Duration::from_millis(1),
        })
    }

    fn scan_within(&mut self, milliseconds: u64) {
        self.next_scan = self.next_scan.min(self.now.after(Duration::from_millis(milliseconds)));
    }

    fn tick(&self) -> u64 {
        if self.services.is_draining() { DRAIN_TICK } else { TICK }
    }

    fn event(&mut self, event: &mio::event::Event) {
        let Some(slot) = self.table.get(event.token().0).cloned() else { return };
        let broken = event.is_error();
        let ready = Readiness {
            readable: event.is_readable() || broken,
            writable: event.is_writable() || event.is_write_closed() || broken,
            closed: event.is_read_closed() || broken,
        };
        let place = slot.place();
        let answerable = slot.is_answerable();
        match slot.notify(ready) {
            // Between two requests of a busy client this is the moment: what has come is still in the socket.
            Notified::Enqueue if self.move_away(&slot, place, answerable) => {}
            Notified::Enqueue => self.enqueue(slot),
            Notified::Nothing => {}
            Notified::Discard => self.discard(slot),
        }
    }

    /// Throws away what a client sends that this thread has answered. A client that is faster than one look goes on
    /// with the next, until its deadline.
    fn discard(&mut self, slot: Arc<Slot>) {
        if slot.place() != Place::Expired {
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
        if let Some(hold) = &mut self.hold {
            hold.ready.push(slot);
            return;
        }
        slot.set_queued_at(self.now);
        self.scan_within(self.tick());
        match self.jobs.try_send(slot) {
            Ok(()) => {}
            Err(TrySendError::Full(slot)) => self.overflow.push_back(slot),
            // The pool ends only after this thread has.
            Err(TrySendError::Disconnected(_)) => self.over = true,
        }
    }

    fn send_overflow(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.ready.extend(self.overflow.drain(..));
            return;
        }
        while let Some(slot) = self.overflow.pop_front() {
            if slot.place() != Place::Queued {
                continue;
            }
            if let Err(error) = self.jobs.try_send(slot) {
                self.overflow.push_front(error.into_inner());
                return;
            }
        }
    }

    fn close(&mut self, slot: &Slot, reason: CloseReason) {
        log::debug!("connection closed: {reason}");
        slot.close();
        self.table.remove(slot.token());
    }

    fn take_returns(&mut self) {
        while let Ok(returned) = self.returned.try_recv() {
            match returned {
                Return::Closed(token) => {
                    self.table.remove(token);
                    if std::mem::take(&mut self.full) {
                        self.accept_again = self.now;
                    }
                }
                Return::Again(token) => {
                    if let Some(slot) = self.table.get(token).cloned() {
                        self.enqueue(slot);
                    }
                }
                Return::Granted(token) => {
                    let slot = self.table.get(token).filter(|slot| slot.take(Place::Waiting, Place::Queued)).cloned();
                    match slot {
                        Some(slot) => self.enqueue(slot),
                        None => self.services.permits.give_back(),
                    }
                }
            }
        }
    }

    fn accept(&mut self) {
        // Edge-triggered: from here on only a listener that is left with some waiting makes this true again.
        self.ready = false;
        let listeners = std::mem::take(&mut self.listeners);
        for listener in &listeners {
            self.accept_from(listener, self.services.limits.connections);
        }
        self.listeners = listeners;
    }

    /// Accepts what waits, as far as there are places. Answers whether the queue is empty now.
    fn accept_from(&mut self, listener: &Listener, limit: usize) -> bool {
        for _ in 0..ACCEPTS {
            if self.table.len() >= limit && !self.make_place(listener, limit) {
                return false;
            }
            match listener.accept() {
                Accepted::Connection(fd, peer) => {
                    self.admit(fd, peer);
                }
                Accepted::Empty => {
                    self.exhausted = false;
                    return true;
                }
                Accepted::Skipped(error) => log::debug!("a connection failed before it was accepted: {error}"),
                Accepted::Exhausted(error) => {
                    if !self.exhausted {
                        log::warn!("cannot accept, trying again until it works: {error}");
                    }
                    self.exhausted = true;
                    self.ready = true;
                    self.accept_again = self.now.after(BACK_OFF);
                    return false;
                }
            }
        }
        self.ready = true;
        false
    }

    fn admit(&mut self, fd: OwnedFd, peer: Option<SocketAddr>) {
        let deadline = self.now.after(self.services.limits.idle_timeout);
        let connection = Connection::new(Socket::new(fd), peer);
        let make = |token| Slot::new(token, connection, Place::Idle, true, deadline);
        let slot = self.table.insert(make).clone();
        self.services.stats.accepted();
        self.watch(&slot);
        self.scan_until(deadline);
    }

    fn watch(&mut self, slot: &Slot) {
        let registered = slot.connection().as_ref().map_or(Ok(()), |connection| {
            let (token, interest) = (Token(slot.token()), Interest::READABLE | Interest::WRITABLE);
            self.poll.registry().register(&mut SourceFd(&connection.socket().as_raw_fd()), token, interest)
        });
        if let Err(error) = registered {
            log::warn!("cannot watch a connection: {error}");
            self.close(slot, CloseReason::Internal);
        }
    }

    /// At the limit: whether there is a place for who waits, if need be by closing the longest idle connection.
    fn make_place(&mut self, listener: &Listener, limit: usize) -> bool {
        self.take_returns();
        if self.table.len() < limit {
            return true;
        }
        // Nobody goes for nobody; who comes later is an event.
        if !has_more(listener) {
            return false;
        }
        if self.evict() {
            return true;
        }
        self.returns.want_places(true);
        self.take_returns();
        if self.table.len() < limit {
            self.returns.want_places(self.services.is_draining());
            return true;
        }
        self.full = true;
        self.ready = true;
        self.accept_again = self.now.after(BACK_OFF);
        false
    }

    fn evict(&mut self) -> bool {
        let fresh = self.services.limits.idle_timeout.saturating_sub(EVICTION_GRACE).as_millis() as i64;
        loop {
            let idle = self.table.iter().filter(|slot| slot.place() == Place::Idle);
            let Some(slot) = idle.min_by_key(|slot| slot.remaining(self.now)).cloned() else { return false };
            if i64::from(slot.remaining(self.now)) > fresh || !slot.take(Place::Idle, Place::Running) {
                return false;
            }
            let is_silent = slot.connection().as_ref().is_none_or(|connection| {
                connection.is_idle() && !matches!(connection.socket().peek(), Ok(Moved::Bytes(_)))
            });
            if is_silent {
                self.close(&slot, CloseReason::Evicted);
                return true;
            }
            slot.requeue(true);
            self.enqueue(slot);
        }
    }

    /// Looks at every deadline, and at when to look again.
    fn scan(&mut self) {
        let draining = self.services.is_draining();
        let linger = crate::config::DRAIN_LINGER.as_millis() as i32;
        let queue_timeout = self.services.limits.queue_timeout.as_millis() as i32;
        let mut next = None::<u64>;
        let mut sooner = |milliseconds: u64| next = Some(next.map_or(milliseconds, |next| next.min(milliseconds)));
        let mut due = Vec::new();
        for slot in self.table.iter() {
            let place = slot.place();
            let remaining = match place {
                Place::Closed | Place::Frozen => continue,
                Place::Running | Place::RunningAgain => self.tick() as i32,
                Place::Queued if !slot.is_answerable() => self.tick() as i32,
                Place::Queued => queue_timeout - slot.queued_for(self.now),
                Place::Idle if draining && slot.remaining(self.now) > linger => {
                    slot.set_deadline(self.now.after(crate::config::DRAIN_LINGER));
                    linger
                }
                _ => slot.remaining(self.now),
            };
            match u64::try_from(remaining) {
                Ok(remaining @ 1..) => sooner(remaining),
                _ => due.push((slot.clone(), place)),
            }
        }
        // Workers shorten deadlines behind our back only for connections that are under way, which tick.
        self.next_scan = next.map_or(Millis::NEVER, |next| self.now.after(Duration::from_millis(next)));
        for (slot, place) in due {
            self.expire(&slot, place);
        }
    }

    fn expire(&mut self, slot: &Arc<Slot>, place: Place) {
        if place == Place::Expired {
            self.close(slot, CloseReason::Refused(Reject::Overloaded));
            return;
        }
        // If a worker or an event was faster there is nothing to do: it has moved on.
        let to = if place == Place::Queued { Place::Expired } else { Place::Running };
        if !slot.take(place, to) {
            self.scan_within(self.tick());
            return;
        }
        let expiry = {
            let mut connection = slot.connection();
            let Some(connection) = connection.as_mut() else { return };
            match place {
                Place::Queued => connection.give_up(Reject::Overloaded, &self.services, self.now, self.date.text()),
                _ => connection.expire(&self.services, self.now, self.date.text()),
            }
        };
        match expiry {
            Expiry::Close(reason) => self.close(slot, reason),
            // A stale entry is in the channel, so it must never go there again: it stays this thread's.
            Expiry::Until(_) | Expiry::Enqueue if place == Place::Queued => {
                let deadline = self.now.after(self.services.limits.linger);
                slot.set_deadline(deadline);
                self.scan_until(deadline);
                if expiry == Expiry::Enqueue {
                    self.discarding.push(slot.clone());
                }
            }
            Expiry::Until(deadline) => {
                let lingers = slot.connection().as_ref().is_some_and(Connection::is_lingering);
                slot.park(if lingers { Place::Idle } else { place }, false, deadline);
                self.scan_until(deadline);
            }
            Expiry::Enqueue => {
                slot.requeue(matches!(place, Place::Idle | Place::Reading));
                self.enqueue(slot.clone());
            }
        }
    }

    fn scan_until(&mut self, deadline: Millis) {
        self.scan_within(self.now.until(deadline).as_millis() as u64);
    }

    fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Alone => self.alone = true,
                Command::Drain { patience, sole_holder, alone } => {
                    self.alone = alone;
                    let mut listeners = std::mem::take(&mut self.listeners);
                    if sole_holder {
                        self.leave(listeners, patience);
                    } else {
                        listeners.iter_mut().for_each(|listener| listener.own_file(false));
                    }
                    self.returns.want_places(true);
                    self.next_scan = self.now;
                }
                Command::Hold { answer } => self.hold = Some(Hold { answer: Some(answer), ready: Vec::new() }),
                Command::Resume => {
                    for slot in self.hold.take().into_iter().flat_map(|hold| hold.ready) {
                        self.enqueue(slot);
                    }
                    self.next_scan = self.now;
                }
                Command::Accept(accepting) => {
                    self.accepting = accepting;
                    self.ready |= accepting;
                }
                Command::Migrate { moves, link, stalled, removed, patience } => {
                    let (gone, kept) = std::mem::take(&mut self.listeners)
                        .into_iter()
                        .partition(|listener| removed.iter().any(|address| address == listener.inheritance().0));
                    self.listeners = kept;
                    // The successor has closed its copies, so we are their sole holder.
                    self.leave(gone, patience);
                    self.own_files(false);
                    self.accepting = false;
                    // What is in handlers now has no other way to learn of it.
                    self.services.phase.keep_no_connection(!moves);
                    self.returns.want_places(true);
                    self.migration = Some(Migration {
                        moves,
                        link,
                        stalled: Some(stalled),
                        next_id: 0,
                        moving: HashMap::new(),
                        commits: VecDeque::new(),
                    });
                }
                Command::Acked(id) => {
                    if let Some(migration) = &mut self.migration {
                        migration.commits.push_back(id);
                    }
                }
                Command::Refused(id) => {
                    let moving = self.migration.as_mut().and_then(|migration| migration.moving.remove(&id));
                    if let Some(moving) = moving {
                        self.unfreeze(&moving);
                        self.end_soon(&moving.slot);
                    }
                }
                Command::TakeBack => {
                    for moving in self.migration.take().into_iter().flat_map(|migration| migration.moving.into_values())
                    {
                        self.unfreeze(&moving);
                    }
                    self.services.phase.keep_no_connection(false);
                    let serving = !self.services.is_draining();
                    self.accepting = serving;
                    self.ready = serving;
                    self.own_files(true);
                    self.returns.want_places(!serving);
                }
                Command::OwnFiles => self.own_files(true),
                Command::Adopt(restored) => self.adopt(*restored),
                Command::Cut { answer } => {
                    self.cut();
                    let _ = answer.send(());
                    self.over = true;
                }
            }
        }
    }

    /// Answers a hold, if the pool rests and every connection can be moved.
    fn answer_hold(&mut self) {
        let Some(Hold { answer: Some(answer), ready }) = &self.hold else { return };
        if !self.jobs.is_empty() {
            return;
        }
        let mut moved = Vec::with_capacity(self.table.len());
        let mut queued = 0;
        for slot in self.table.iter() {
            let place = slot.place();
            match place {
                // Its 503 is out.
                Place::Closed | Place::Expired | Place::Frozen => continue,
                Place::Queued => queued += 1,
                place if place.is_parked() => {}
                _ => return,
            }
            let connection = slot.connection();
            let Some(connection) = connection.as_ref() else { continue };
            // What is ready has no deadline until a worker has seen it.
            let remaining = if place == Place::Queued { READY_GRACE } else { slot.remaining(self.now) };
            let deadline = Millis(self.now.0 + u64::try_from(remaining).unwrap_or(0));
            let Some((snapshot, file)) = connection.snapshot(deadline) else {
                // Code of the application's has to end first, and may take long: no use in holding others up for it.
                if let Some(hold) = &mut self.hold {
                    hold.answer = None;
                }
                return;
            };
            moved.push(MovedConnection { fd: connection.socket().as_raw_fd(), file, snapshot });
        }
        // One that a worker has taken and not yet begun is neither in the channel nor here.
        if queued != ready.len() {
            return;
        }
        // The main thread waits for it, or has given up and sends `Resume`.
        let _ = answer.send(moved);
        if let Some(hold) = &mut self.hold {
            hold.answer = None;
        }
    }

    /// First half of a close that resets nobody: no new handshakes. For the sole holder of the listeners; what the
    /// service manager keeps is left to it, at once and with its queue.
    pub fn leave(&mut self, listeners: Vec<Listener>, patience: Duration) {
        let until = self.now.after(patience);
        for listener in listeners {
            if listener.is_shared() {
                // Closing is not enough: while another copy lives, the poller goes on reporting it.
                let _ = self.poll.registry().deregister(&mut SourceFd(&listener.as_raw_fd()));
                continue;
            }
            listener.refuse_new();
            self.leaving.push(Leaving { listener, since: self.now, until, ask_again: self.now.after(FILTER_SETTLES) });
        }
    }

    /// Moves what is parked, and says COMMIT for what the successor has.
    fn migrate(&mut self) {
        let Some(migration) = &mut self.migration else { return };
        while let Some(&id) = migration.commits.front() {
            test_point("predecessor-acked");
            match migration.link.send(&Message::Commit(id), &[]) {
                Ok(Sent::Yes) => {}
                // An error is the end of the link, which the thread that listens to it notices too.
                Ok(Sent::Later) | Err(_) => break,
            }
            test_point("predecessor-commit");
            migration.commits.pop_front();
            if let Some(moving) = migration.moving.remove(&id) {
                // Only our copy is closed: nothing is shut down, the description lives on in the successor.
                if let Some(connection) = moving.slot.connection().as_mut() {
                    connection.set_moved();
                }
                moving.slot.close();
                self.table.remove(moving.slot.token());
                self.services.stats.migrated();
            }
        }
        let oldest = migration.moving.values().map(|moving| moving.since).min();
        if oldest.is_some_and(|oldest| self.now.since(oldest) > ACK_TIMEOUT)
            && let Some(stalled) = migration.stalled.take()
        {
            stalled();
        }
        if self.services.is_draining() {
            return;
        }
        let movable = |slot: &&Arc<Slot>| {
            let movable = |one: &Connection| !one.holds_application() && !one.ends_soon();
            slot.place().is_parked() && slot.connection().as_ref().is_some_and(movable)
        };
        let room = UNACKNOWLEDGED - migration.moving.len().min(UNACKNOWLEDGED);
        let moves = migration.moves;
        let slots: Vec<Arc<Slot>> = self.table.iter().filter(movable).take(room).cloned().collect();
        for slot in slots {
            if !moves {
                self.end_soon(&slot);
                continue;
            }
            let (place, answerable) = (slot.place(), slot.is_answerable());
            if place.is_parked() && slot.take(place, Place::Queued) && !self.move_away(&slot, place, answerable) {
                slot.park(place, answerable, Millis(self.now.0.saturating_add_signed(slot.remaining(self.now).into())));
            }
        }
    }

    /// FREEZE and SEND for a connection that is this thread's. `false` if it cannot move now.
    fn move_away(&mut self, slot: &Arc<Slot>, place: Place, answerable: bool) -> bool {
        let Some(migration) = &mut self.migration else { return false };
        if migration.moving.len() >= UNACKNOWLEDGED
            || migration.stalled.is_none()
            || !migration.moves
            || self.services.is_draining()
        {
            return false;
        }
        let guard = slot.connection();
        let Some(connection) = guard.as_ref().filter(|connection| !connection.ends_soon()) else { return false };
        let deadline = Millis(self.now.0.saturating_add_signed(slot.remaining(self.now).into()));
        let Some((snapshot, file)) = connection.snapshot(deadline) else { return false };
        let id = migration.next_id;
        match send_connection(&migration.link, id, connection, snapshot, file) {
            Ok(Sent::Yes) => {
                test_point("predecessor-sent");
                // Closing our copy later would not be enough: epoll goes on reporting a description that lives
                // elsewhere. No event can come in between, since this thread is the one that asks for them.
                if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&connection.socket().as_raw_fd())) {
                    log::warn!("cannot stop watching a connection that moves: {error}");
                }
                drop(guard);
                migration.next_id += 1;
                slot.take(Place::Queued, Place::Frozen);
                let moving = Moving { slot: slot.clone(), place, answerable, since: self.now };
                migration.moving.insert(id, moving);
                true
            }
            Ok(Sent::Later) => false,
            Err(error) => {
                log::debug!("a connection could not be sent to the successor: {error}");
                false
            }
        }
    }

    /// A connection that cannot move ends politely: with its next response, or soon.
    fn end_soon(&mut self, slot: &Slot) {
        if let Some(connection) = slot.connection().as_mut() {
            connection.end_soon();
            if connection.is_idle() && slot.place() == Place::Idle {
                slot.set_deadline(self.now.after(crate::config::DRAIN_LINGER));
            }
        }
        self.next_scan = self.now;
    }

    /// A connection on its way stays here after all.
    fn unfreeze(&mut self, moving: &Moving) {
        let slot = &moving.slot;
        let deadline = self.now.after(Duration::from_millis(slot.remaining(self.now).max(0) as u64));
        slot.park(moving.place, moving.answerable, deadline);
        self.watch(slot);
        self.next_scan = self.now;
    }

    fn own_files(&mut self, own: bool) {
        for listener in &mut self.listeners {
            listener.own_file(own);
        }
    }

    /// Goes on with a connection of the predecessor.
    pub fn adopt(&mut self, restored: Restored) {
        let Restored { connection, place, answerable, deadline, ready } = restored;
        let slot = self.table.insert(|token| Slot::new(token, connection, place, answerable, deadline)).clone();
        // Edge-triggered, so registering says at once what is ready already.
        self.watch(&slot);
        self.scan_until(deadline);
        let readable = Readiness { readable: true, writable: false, closed: false };
        if ready && slot.notify(readable) == Notified::Enqueue {
            self.enqueue(slot);
        }
    }

    /// Second half: goes on accepting until no handshake is left and the queue is empty, then closes.
    fn close_leaving(&mut self) {
        for mut leaving in std::mem::take(&mut self.leaving) {
            let settled = self.now.since(leaving.since);
            // First the handshakes, then the queue: what ended its handshake in between is in the queue.
            let ask = self.now >= leaving.ask_again;
            if ask {
                leaving.ask_again = self.now.after(Duration::from_millis(DRAIN_TICK));
            }
            let pending = !ask || leaving.listener.has_handshakes().unwrap_or(settled < BLIND_WAIT);
            // What has connected is served, limit or not.
            let empty = self.accept_from(&leaving.listener, usize::MAX);
            let quiet = empty && !pending;
            if !quiet && self.now < leaving.until {
                self.leaving.push(leaving);
            } else if !quiet {
                let bound = leaving.listener.bound();
                log::warn!("closed {bound} while clients were still connecting; some may be reset");
            }
        }
    }

    /// Ends what is left at the deadline. What a handler executes is cut and logged by the main thread before.
    fn cut(&mut self) {
        self.listeners.clear();
        self.leaving.clear();
        let until = Instant::now() + RUNNING_GRACE;
        // A worker that is between two turns of a download has it parked or queued in a moment.
        while self.cut_parked() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Answers whether workers still run something that nobody has cut.
    fn cut_parked(&mut self) -> bool {
        let mut running = false;
        let slots: Vec<Arc<Slot>> = self.table.iter().cloned().collect();
        for slot in slots {
            let place = slot.place();
            running |= matches!(place, Place::Running | Place::RunningAgain);
            if !(place.is_parked() || place == Place::Queued) || !slot.take(place, Place::Expired) {
                continue;
            }
            let mut guard = slot.connection();
            let Some(connection) = guard.as_mut() else { continue };
            let counted = connection.socket().was_cut();
            let mut ended = connection.cut(&self.services, self.now, self.date.text());
            if ended.is_none() && place == Place::Queued && connection.has_unread() {
                connection.give_up(Reject::Overloaded, &self.services, self.now, self.date.text());
                let waited = Duration::from_millis(slot.queued_for(self.now).max(0) as u64);
                ended = Some(("a request that no worker could take".into(), waited));
            }
            if let Some((request, age)) = ended.filter(|_| !counted) {
                self.services.stats.cut();
                log::warn!("cut {request} after {:.1} s", age.as_secs_f64());
            }
            let stays = connection.holds_application();
            drop(guard);
            if !stays {
                self.close(&slot, CloseReason::Cut);
            }
        }
        running
    }
}

fn send_connection(
    link: &Link,
    id: u64,
    connection: &Connection,
    snapshot: Snapshot,
    file: Option<RawFd>,
) -> io::Result<Sent> {
    let bytes = encode(&snapshot).map_err(io::Error::other)?;
    let (snapshot, memfd) = payload(bytes)?;
    let message = Message::Connection { id, file: file.is_some(), snapshot };
    let mut descriptors = vec![connection.socket().as_fd()];
    // SAFETY: the file belongs to the connection, which is borrowed for the whole call.
    descriptors.extend(file.map(|file| unsafe { BorrowedFd::borrow_raw(file) }));
    descriptors.extend(memfd.as_ref().map(AsFd::as_fd));
    link.send(&message, &descriptors)
}

/// Whether accept(2) would give something.
fn has_more(listener: &Listener) -> bool {
    let mut fds = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// The scheduling policies that matter here.
#[derive(Clone, Copy, Debug)]
pub enum Policy {
    /// Events come in batches: a worker is not preempted for each one. 98 k requests/s without, 149 k with it.
    Batch,
    /// What everything else runs under.
    Other,
}

/// Sets the calling thread's policy (sched_setscheduler(2)), which needs no privilege between these two; where it is
/// refused all the same, things go on a little slower.
pub fn schedule(policy: Policy) {
    // So that no thread or process started from here inherits it.
    let policy = match policy {
        Policy::Batch => libc::SCHED_BATCH | libc::SCHED_RESET_ON_FORK,
        Policy::Other => libc::SCHED_OTHER,
    };
    // SAFETY: an all-zero `sched_param` is valid (some libcs have more fields than the priority).
    let param: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: `param` lives across the call, which only reads it; 0 means the calling thread.
    if unsafe { libc::sched_setscheduler(0, policy, &param) } != 0 {
        log::debug!("scheduling policy unchanged: {}", io::Error::last_os_error());
    }
}
