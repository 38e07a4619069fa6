//! The threads that drive connections: the fixed pool, the ones beside it that may wait for clients, and the one that
//! says how the server is while all the others are busy.

use super::job::Job;
use crate::clock::Millis;
use crate::engine::connection::Slot;
use crate::engine::connection::{CloseReason, Connection, InFlight, Role, Shared, Turn, Verdict, WorkerContext};
use crate::engine::pool::work_queue::Consumer;
use crate::engine::slot::Word;
use crate::logging::rate_limit::log_rate_limited;
use crate::sys::landlock::Confinement;
use crossbeam_channel::Sender;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What the acceptor hears from the workers, and from whoever has something for a connection.
#[derive(Clone, Copy, Debug)]
pub enum ToAcceptor {
    /// The connection with that token is gone.
    Closed(usize),
    /// It wants another turn, for which it needs an `entry` in the channel unless one stands there.
    Again { token: usize, entry: bool },
    /// It is parked and waits for a thread that may wait for its client.
    WantsStream(usize),
    /// So many of these threads are free now.
    Streamers(usize),
    /// Subscribers that were given out together have had their turns.
    Delivered,
    /// A subscriber has had its turn, and there is more for it.
    More(usize),
    /// One that was given out has parked, and its deadline is sooner than it was.
    Sooner(usize),
}

/// The way back to the acceptor. It has no part in ending the pool: that is the work channel's alone.
#[derive(Clone)]
pub struct AcceptorHandle {
    messages: Sender<ToAcceptor>,
    waker: Arc<mio::Waker>,
    /// Whether the acceptor waits for places to become free.
    wants_places: Arc<AtomicBool>,
    /// Whether it has more subscribers to give out.
    wants_deliveries: Arc<AtomicBool>,
    /// Whether it looks at what it is told before it waits again: then nobody has to wake it.
    awake: Arc<AtomicBool>,
}

impl AcceptorHandle {
    pub fn new(messages: Sender<ToAcceptor>, waker: Arc<mio::Waker>) -> AcceptorHandle {
        let [wants_places, wants_deliveries, awake] = std::array::from_fn(|_| Arc::default());
        AcceptorHandle { messages, waker, wants_places, wants_deliveries, awake }
    }

    /// Tells the acceptor. It is woken for a closed connection only if it waits for one: else it learns of it soon
    /// enough, and a system call is saved for each connection.
    pub fn send(&self, message: ToAcceptor) {
        // The acceptor goes when no connection is left, so nobody misses what is sent after that.
        let _ = self.messages.send(message);
        let wake = match message {
            ToAcceptor::Closed(_) => self.wants_places.load(Ordering::SeqCst),
            ToAcceptor::Delivered => self.wants_deliveries.load(Ordering::SeqCst),
            ToAcceptor::Again { .. }
            | ToAcceptor::WantsStream(_)
            | ToAcceptor::Streamers(_)
            | ToAcceptor::More(_)
            | ToAcceptor::Sooner(_) => true,
        };
        if wake {
            self.wake();
        }
    }

    /// What it is woken for has to be there before.
    pub fn wake(&self) {
        if self.awake.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the acceptor: {error}");
        }
    }

    /// The acceptor is about to wait: who has something for it from here on wakes it. What came before is there, and it must
    /// look once more whether there is any.
    pub fn rests(&self) {
        self.awake.store(false, Ordering::SeqCst);
    }

    /// It looks at everything before it waits again.
    pub fn is_awake(&self) {
        self.awake.store(true, Ordering::SeqCst);
    }

    /// The acceptor says whether it has more subscribers to give out; it must look at its messages once more afterwards.
    pub fn want_deliveries(&self, wants: bool) {
        self.wants_deliveries.store(wants, Ordering::SeqCst);
    }

    /// The acceptor says whether it waits for closed connections; it must look at its messages once more afterwards.
    pub fn want_places(&self, wants: bool) {
        self.wants_places.store(wants, Ordering::SeqCst);
    }
}

/// What one of these threads is started with.
pub struct Worker<D> {
    pub role: Role,
    /// Of all these threads, in their order.
    pub index: usize,
    pub jobs: Consumer<Job>,
    pub to_acceptor: AcceptorHandle,
    pub shared: Arc<Shared>,
    pub in_flight: Arc<InFlight>,
    /// What it may open, if that is limited.
    pub confinement: Option<Arc<Confinement>>,
    /// Threads that are started when the first connection waits for one.
    pub streamers: Arc<Streamers<D>>,
    /// Its part in the pool, dropped when the thread ends; the last one tells the main thread.
    pub done: D,
}

impl<D: Clone + Send + 'static> Worker<D> {
    /// Starts the thread.
    pub fn spawn(self, stack: usize) -> io::Result<JoinHandle<()>> {
        let name = match self.role {
            Role::Worker => format!("worker-{}", self.index),
            Role::Streamer => format!("stream-{}", self.index),
            Role::Status => "status".to_owned(),
        };
        thread::Builder::new().name(name).stack_size(stack).spawn(move || self.run())
    }

    /// Works until the acceptor has dropped its end of the channel and the channel is empty.
    fn run(self) {
        // One of these starts a streamer, which cannot open more than that.
        if let Some(confinement) = self.confinement.as_ref().filter(|_| self.role != Role::Streamer) {
            confinement.confine_this_thread();
        }
        let mut work = WorkerContext::new(self.shared.clone(), self.role, self.index, self.in_flight.clone());
        self.shared.phase.stopping().is_of_this_thread();
        while let Some(job) = self.jobs.next() {
            match (self.role, job) {
                (Role::Status, Job::Turn(slot)) => self.look_after(&mut work, &slot),
                (_, Job::Turn(slot)) => self.begin(&mut work, &slot, false),
                (_, Job::Deliveries(slots)) => {
                    slots.iter().for_each(|slot| self.begin(&mut work, slot, true));
                    self.to_acceptor.send(ToAcceptor::Delivered);
                }
                (_, Job::Sessions) => {
                    self.shared.sessions.look(|| Millis::now().0, || self.to_acceptor.wake());
                    // It waits for what is due then.
                    self.to_acceptor.wake();
                }
                (_, Job::Ended) => {}
            }
            if self.role == Role::Streamer {
                self.to_acceptor.send(ToAcceptor::Streamers(1));
            }
            if self.role == Role::Worker && self.shared.conversations.tell_of_ended() {
                // It has another turn, behind what waits already.
                self.to_acceptor.wake();
            }
        }
        if self.role == Role::Worker {
            self.shared.sessions.end(Millis::now().0);
            while self.shared.conversations.tell_of_ended() {}
        }
        drop(self.done);
    }

    /// Takes what stood in the channel. `delivery`: others wait behind it for this thread, so a request of its client has to
    /// wait for a turn of its own.
    fn begin(&self, work: &mut WorkerContext, slot: &Slot, delivery: bool) {
        // A stale entry: the acceptor has answered for it.
        let Some(word) = slot.begin() else { return };
        if !delivery {
            let waited = u64::try_from(slot.queued_for(Millis::now())).unwrap_or_default();
            self.shared.stats.waited(self.index, Duration::from_millis(waited));
        }
        let others_wait = || self.jobs.others_wait() || self.shared.phase.is_holding();
        let turn = if delivery { Turn::of_one_request() } else { Turn::new(&others_wait) };
        self.drive(work, slot, word, turn, delivery);
    }

    fn drive(&self, work: &mut WorkerContext, slot: &Slot, mut word: Word, mut turn: Turn<'_>, delivery: bool) {
        loop {
            turn.peer_closed = word.is_peer_closed();
            let verdict = self
                .guarded(work, slot, |connection, work| Some(connection.drive(work, &mut turn, word.hides_bytes())));
            // The acceptor has looked at its deadline, and looks again only then.
            let deadline = match verdict {
                Some(Verdict::Park(parking)) if delivery => Some(parking.deadline),
                _ => None,
            };
            if deadline.is_some_and(|deadline| slot.is_sooner(deadline)) {
                self.to_acceptor.send(ToAcceptor::Sooner(slot.token()));
            }
            match verdict.and_then(|verdict| self.settle(slot, verdict)) {
                Some(again) => word = again,
                None if turn.more => return self.to_acceptor.send(ToAcceptor::More(slot.token())),
                None => return,
            }
        }
    }

    /// Every worker is busy, and this one was taken out of the channel: answers it if it asks for the server's state.
    fn look_after(&self, work: &mut WorkerContext, slot: &Slot) {
        let looked = self.guarded(work, slot, |connection, work| connection.look_after(work));
        let Some(verdict) = looked else {
            // Nobody else may be answered before his turn.
            if slot.put_back(true) {
                self.to_acceptor.send(ToAcceptor::Again { token: slot.token(), entry: true });
            }
            return;
        };
        if self.settle(slot, verdict).is_some() {
            self.settle(slot, Verdict::Requeue { refusable: true });
        }
    }

    /// Does what came of a turn. Answers the word if something has come just now, so that it goes on.
    fn settle(&self, slot: &Slot, verdict: Verdict) -> Option<Word> {
        match verdict {
            Verdict::Park(parking) => {
                if !slot.park(parking) {
                    return Some(slot.look_again());
                }
                if parking.parked.wants_stream {
                    self.streamers.start(&self.done, &self.to_acceptor);
                    self.to_acceptor.send(ToAcceptor::WantsStream(slot.token()));
                }
            }
            Verdict::Requeue { refusable } => {
                let entry = slot.requeue(refusable);
                self.to_acceptor.send(ToAcceptor::Again { token: slot.token(), entry });
            }
            Verdict::Close(reason) => {
                self.shared.stats.closed(reason);
                log::debug!("connection closed: {reason}");
                slot.close();
                self.to_acceptor.send(ToAcceptor::Closed(slot.token()));
            }
        }
        None
    }

    fn guarded(
        &self,
        work: &mut WorkerContext,
        slot: &Slot,
        run: impl FnOnce(&mut Connection, &mut WorkerContext) -> Option<Verdict>,
    ) -> Option<Verdict> {
        let mut guard = slot.connection();
        let Some(connection) = guard.as_mut() else {
            return Some(Verdict::Close(CloseReason::Internal));
        };
        work.token = slot.token();
        work.begin_turn();
        // Handlers are guarded where they are called; this is for a reader that panics, or a mistake of ours.
        let verdict = catch_unwind(AssertUnwindSafe(|| run(connection, work)));
        work.end_turn();
        verdict.unwrap_or_else(|_| {
            log_rate_limited!(error, "a connection was closed because of a panic");
            Some(Verdict::Close(CloseReason::Internal))
        })
    }
}

/// The threads that may wait for clients, started when the first connection waits for one.
pub struct Streamers<D> {
    /// Those that do not run yet.
    missing: Mutex<Vec<MakeStreamer<D>>>,
    running: Mutex<Vec<JoinHandle<()>>>,
    /// Whether any is missing, which is asked for each connection that waits.
    any_missing: AtomicBool,
    stack: usize,
}

/// Makes one of them, its part in the pool excepted, which lasts only while somebody runs.
type MakeStreamer<D> = Box<dyn Fn(D, Arc<Streamers<D>>) -> Worker<D> + Send>;

impl<D: Clone + Send + 'static> Streamers<D> {
    pub fn new(stack: usize, missing: Vec<MakeStreamer<D>>) -> Streamers<D> {
        Streamers {
            any_missing: AtomicBool::new(!missing.is_empty()),
            missing: Mutex::new(missing),
            running: Mutex::default(),
            stack,
        }
    }

    /// Starts those that do not run yet. One that cannot be started is tried again when the next connection waits.
    fn start(self: &Arc<Self>, done: &D, to_acceptor: &AcceptorHandle) {
        if !self.any_missing.load(Ordering::Acquire) {
            return;
        }
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = missing.len();
        missing.retain(|make| match make(done.clone(), self.clone()).spawn(self.stack) {
            Ok(thread) => {
                self.running.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
                false
            }
            Err(error) => {
                log_rate_limited!(error, "cannot start a thread that waits for clients: {error}");
                true
            }
        });
        self.any_missing.store(!missing.is_empty(), Ordering::Release);
        let started = before - missing.len();
        drop(missing);
        to_acceptor.send(ToAcceptor::Streamers(started));
    }

    /// Those that run, for whoever waits for their end.
    pub fn take_running(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
