//! Who waits for a thread that may wait for its client, and who looks after what has waited long for a worker.

use super::Acceptor;
use crate::queue::Producer;
use crate::slot::{Place, Slot, Word};
use crate::table::Table;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// How long a request has waited for a worker when the status thread looks at it, in milliseconds; less where it may not
/// wait for much longer.
const LOOKED_AFTER: i32 = 250;

/// Connections that may wait for a thread, or have gone, before those that have gone are forgotten.
const SOME: usize = 64;

/// When to look again whether the status thread can take more, in milliseconds.
const STATUS_BUSY: u64 = 10;

/// The threads that may wait for clients, as the acceptor sees them.
pub(super) struct Streams {
    jobs: Producer<Arc<Slot>>,
    /// Threads that have nothing to do.
    free: usize,
    /// Connections that wait for one, by token, and the same in no order. Some may have gone, or found out that they need
    /// none.
    waiting: VecDeque<usize>,
    known: HashSet<usize>,
}

impl Streams {
    pub fn new(jobs: Producer<Arc<Slot>>) -> Streams {
        Streams { jobs, free: 0, waiting: VecDeque::new(), known: HashSet::new() }
    }

    /// Sees to it that what was sent is taken.
    pub fn call(&self) {
        self.jobs.call();
    }

    /// Whether everything that was given to these threads is taken.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub fn freed(&mut self, threads: usize) {
        self.free += threads;
    }

    pub fn wait(&mut self, token: usize, table: &Table) {
        // No thread may become free for long, and clients come and go meanwhile.
        if self.waiting.len() >= 2 * table.len() + SOME {
            self.known.retain(|token| table.get(*token).is_some());
            self.waiting.retain(|token| self.known.contains(token));
        }
        if self.known.insert(token) {
            self.waiting.push_back(token);
        }
    }

    /// Gives the threads that are free to those that have waited longest.
    pub fn grant(&mut self, table: &Table) {
        let mut at = 0;
        while self.free > 0 && at < self.waiting.len() {
            let token = self.waiting[at];
            let slot = table.get(token).map(|slot| (slot, slot.load()));
            match slot {
                // It is looked at just now, and says so again when it still waits.
                Some((_, seen)) if matches!(seen.place(), Place::Queued | Place::Running | Place::RunningAgain) => {
                    at += 1;
                    continue;
                }
                // Nobody but this thread takes what is parked. There is room: never more than there are threads.
                Some((slot, seen))
                    if seen.is_parked()
                        && seen.flags().wants_stream
                        && slot.claim(seen, Place::Queued)
                        && self.jobs.try_send(slot.clone()).is_ok() =>
                {
                    self.free -= 1;
                }
                // It has gone, or found out that it needs none.
                _ => {}
            }
            self.waiting.remove(at);
            self.known.remove(&token);
        }
    }
}

impl Acceptor {
    /// How long until the status thread looks at a connection, in milliseconds; `None` if it has, or need not.
    pub(super) fn wait_to_look_after(&self, slot: &Slot, seen: Word) -> Option<i32> {
        let waits = seen.place() == Place::Queued && seen.is_refusable() && !seen.is_looked_after();
        let patience = LOOKED_AFTER.min(self.services.limits.queue_timeout.as_millis() as i32 / 2);
        (waits && self.status.is_some()).then(|| patience - slot.queued_for(self.now))
    }

    /// Shows what has waited long for a worker to the status thread.
    pub(super) fn look_after(&mut self, slot: &Arc<Slot>, seen: Word) {
        let Some(status) = self.status.as_ref().filter(|_| slot.claim(seen, Place::Running)) else { return };
        if let Err(error) = status.try_send(slot.clone()) {
            // It has as much as it can take for now. There is an entry in the channel still, or another is needed.
            let slot = error.into_inner();
            let entry = slot.put_back(false);
            self.scan_within(STATUS_BUSY);
            if entry {
                self.send(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Millis;
    use crate::connection::Connection;
    use crate::slot::Flags;

    /// While every thread was busy, each client that came and went left its token behind.
    #[test]
    fn who_has_gone_while_no_thread_was_free_is_not_remembered() {
        let (jobs, _consumers) = crate::queue::queue(1, 1);
        let (mut streams, mut table) = (Streams::new(jobs), Table::default());
        let come = |table: &mut Table| {
            let make = |token| Slot::new(token, Connection::for_test(), Place::Reading, Flags::default(), Millis(1));
            table.insert(None, make).token()
        };
        let stays = come(&mut table);
        streams.wait(stays, &table);
        for _ in 0..10 * SOME {
            let token = come(&mut table);
            streams.wait(token, &table);
            table.remove(token);
            assert!(streams.waiting.len() <= 4 + SOME && streams.known.len() == streams.waiting.len());
        }
        assert_eq!(streams.waiting.front(), Some(&stays));
    }
}
