//! The fixed pool: each worker takes a ready connection, drives it as far as it goes, and gives it back.

use crate::connection::{CloseReason, InFlight, Services, Verdict, Workspace};
use crate::mailbox::Mailbox;
use crate::queue::Consumer;
use crate::seldom::log_seldom;
use crate::slot::{Flags, Place, Slot, Word};
use crate::thread;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// What the acceptor hears from the workers.
#[derive(Clone, Copy, Debug)]
pub enum Return {
    /// The connection with that token is gone.
    Closed(usize),
    /// It wants another turn.
    Again(usize),
    /// It got the permit to stream that it waits for.
    Granted(usize),
}

/// The way back to the acceptor. It has no part in ending the pool: that is the work channel's alone.
#[derive(Clone)]
pub struct Returns {
    mailbox: Mailbox<Return>,
    waker: Arc<mio::Waker>,
    /// Whether the acceptor waits for places to become free.
    wants_places: Arc<AtomicBool>,
}

impl Returns {
    pub fn new(mailbox: Mailbox<Return>, waker: Arc<mio::Waker>) -> Returns {
        Returns { mailbox, waker, wants_places: Arc::new(AtomicBool::new(false)) }
    }

    /// Tells the acceptor. It is woken for a closed connection only if it waits for one: else it learns of it soon
    /// enough, and a system call is saved for each connection.
    pub fn send(&self, returned: Return) {
        // The acceptor goes when no connection is left, so nobody misses what is sent after that.
        self.mailbox.put(returned);
        let wake = match returned {
            Return::Closed(_) => self.wants_places.load(Ordering::SeqCst),
            Return::Again(_) | Return::Granted(_) => true,
        };
        if wake {
            self.wake();
        }
    }

    pub fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the acceptor: {error}");
        }
    }

    /// The acceptor says whether it waits for closed connections; it must look at the mailbox once more afterwards.
    pub fn want_places(&self, wants: bool) {
        self.wants_places.store(wants, Ordering::SeqCst);
    }
}

/// What a worker is started with.
pub struct Worker<D> {
    pub index: usize,
    pub jobs: Consumer<Arc<Slot>>,
    pub returns: Returns,
    pub services: Arc<Services>,
    pub in_flight: Arc<InFlight>,
    /// Its part in the pool, dropped when the worker ends; the last one tells the main thread.
    pub done: D,
}

impl<D: Send + 'static> Worker<D> {
    /// Starts the thread.
    pub fn spawn(self, stack: usize) -> io::Result<JoinHandle<()>> {
        let name = format!("worker-{}", self.index);
        thread::start(name, stack, Box::new(move || self.run()))
    }

    /// Works until the acceptor has dropped its end of the channel and the channel is empty.
    fn run(self) {
        let mut work = Workspace::new(self.services.clone(), self.index, self.in_flight.clone());
        while let Some(slot) = self.jobs.next() {
            // A stale entry: the acceptor has answered for it.
            if let Some(word) = slot.begin() {
                self.turns(&mut work, &slot, word);
            }
        }
        drop(self.done);
    }

    fn turns(&self, work: &mut Workspace, slot: &Slot, mut word: Word) {
        let mut first = true;
        loop {
            match self.turn(work, slot, word.hides_bytes(), first) {
                Verdict::Park { place, flags, deadline } => {
                    if slot.park(place, flags, deadline) {
                        if place == Place::Waiting {
                            self.services.permits.wait(slot.token());
                        }
                        return;
                    }
                    word = slot.look_again();
                }
                Verdict::Requeue => {
                    // It may be in the middle of an answer.
                    if slot.requeue(Flags::default()) {
                        self.returns.send(Return::Again(slot.token()));
                    }
                    return;
                }
                Verdict::Close(reason) => {
                    log::debug!("connection closed: {reason}");
                    slot.close();
                    self.returns.send(Return::Closed(slot.token()));
                    return;
                }
            }
            first = false;
        }
    }

    fn turn(&self, work: &mut Workspace, slot: &Slot, hides_bytes: bool, first: bool) -> Verdict {
        let mut guard = slot.connection();
        let Some(connection) = guard.as_mut() else {
            return Verdict::Close(CloseReason::Internal);
        };
        // Out of `Waiting` there is no way into the channel but a permit.
        work.begin_turn(first && connection.is_waiting());
        // Handlers are guarded where they are called; this is for a reader that panics, or a mistake of ours.
        let verdict = catch_unwind(AssertUnwindSafe(|| connection.drive(work, hides_bytes)));
        work.end_turn();
        verdict.unwrap_or_else(|_| {
            log_seldom!(error, "a connection was closed because of a panic");
            Verdict::Close(CloseReason::Internal)
        })
    }
}
