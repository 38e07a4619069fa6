//! Who waits for a thread that may wait for its client, and who looks after what has waited long for a worker.

use super::Acceptor;
use crate::clock::Millis;
use crate::engine::connection::Slot;
use crate::engine::pool::job::Job;
use crate::engine::pool::work_queue::Producer;
use crate::engine::slot::{Sched, Word};
use crate::engine::table::Table;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How long a request has waited for a worker when the status thread looks at it, in milliseconds; less where it may not
/// wait for much longer.
const LOOKED_AFTER: i32 = 250;

/// Connections that may wait for a thread, or have gone, before those that have gone are forgotten.
const SOME: usize = 64;

/// When to look again whether the status thread can take more.
const STATUS_BUSY: Duration = Duration::from_millis(10);

/// How often a few of those look again that found no room to be collected, and how many.
const ROOM_AGAIN: Duration = Duration::from_millis(50);
const ROOM_FOR: usize = 4;

/// The threads that may wait for clients, as the acceptor sees them.
pub(super) struct Streams {
    jobs: Producer<Job>,
    /// Threads that have nothing to do.
    free: usize,
    /// Connections that wait for one, by token, and the same in no order. Some may have gone, or found out that they need
    /// none.
    waiting: VecDeque<usize>,
    known: HashSet<usize>,
    /// When those that found no room to be collected are to look again.
    look_again: Millis,
}

impl Streams {
    pub fn new(jobs: Producer<Job>) -> Streams {
        Streams { jobs, free: 0, waiting: VecDeque::new(), known: HashSet::new(), look_again: Millis(0) }
    }

    /// Sees to it that what was sent is taken.
    pub fn wake_one(&self) {
        self.jobs.wake_one();
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

    /// When to look for room again, if somebody waits.
    pub fn due(&self) -> Option<Millis> {
        (!self.waiting.is_empty()).then_some(self.look_again)
    }

    /// Those that have waited longest of them that found no room to be collected: what others had may be free by now.
    fn lack_room(&mut self, now: Millis, table: &Table) -> Vec<Arc<Slot>> {
        if now < self.look_again {
            return Vec::new();
        }
        self.look_again = now.after(ROOM_AGAIN);
        let lacks_room = |slot: &&Arc<Slot>| {
            slot.load().parked().is_some_and(|parked| parked.wants_stream && parked.movable && !parked.on_readable)
        };
        let waiting = self.waiting.iter().filter_map(|token| table.get(*token));
        waiting.filter(lacks_room).take(ROOM_FOR).cloned().collect()
    }

    /// Gives the threads that are free to those that have waited longest, and answers who these are.
    pub fn grant(&mut self, table: &Table) -> Vec<Arc<Slot>> {
        let mut granted = Vec::new();
        let mut at = 0;
        while self.free > 0 && at < self.waiting.len() {
            let token = self.waiting[at];
            let slot = table.get(token).map(|slot| (slot, slot.load()));
            match slot {
                // It is looked at just now, and says so again when it still waits.
                Some((_, seen)) if matches!(seen.sched(), Sched::Queued | Sched::Running | Sched::RunningAgain) => {
                    at += 1;
                    continue;
                }
                // Nobody but this thread takes what is parked. There is room: never more than there are threads.
                Some((slot, seen))
                    if seen.parked().is_some_and(|parked| parked.wants_stream)
                        && slot.claim(seen, Sched::Queued)
                        && self.jobs.try_send(Job::Turn(slot.clone())).is_ok() =>
                {
                    self.free -= 1;
                    granted.push(slot.clone());
                }
                // It has gone, or found out that it needs none.
                _ => {}
            }
            self.waiting.remove(at);
            self.known.remove(&token);
        }
        granted
    }
}

impl Acceptor {
    /// Lets a few of those look again that found no room to be collected while they wait for a thread.
    pub(super) fn look_for_room(&mut self) {
        if self.hold.is_some() || self.streams.due().is_none() {
            return;
        }
        for slot in self.streams.lack_room(self.now, &self.table) {
            if slot.claim(slot.load(), Sched::Queued) {
                self.enqueue(slot);
            }
        }
    }

    /// How long until the status thread looks at a connection, in milliseconds; `None` if it has, or need not.
    pub(super) fn wait_to_look_after(&self, slot: &Slot, seen: Word) -> Option<i32> {
        let waits = seen.sched() == Sched::Queued && seen.is_refusable() && !seen.is_looked_after();
        let patience = LOOKED_AFTER.min(self.shared.limits.queue_timeout.as_millis() as i32 / 2);
        (waits && self.status.is_some()).then(|| patience - slot.queued_for(self.now))
    }

    /// Shows what has waited long for a worker to the status thread.
    pub(super) fn look_after(&mut self, slot: &Arc<Slot>, seen: Word) {
        self.is_under_way(slot);
        let Some(status) = self.status.as_ref().filter(|_| slot.claim(seen, Sched::Running)) else { return };
        if status.try_send(Job::Turn(slot.clone())).is_err() {
            // It has as much as it can take for now. There is an entry in the channel still, or another is needed.
            let entry = slot.put_back(false);
            self.timers.tick_by(self.now.after(STATUS_BUSY));
            if entry {
                self.send(slot.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::connection::Connection;
    use crate::engine::slot::{Parked, Parking};

    /// While every thread was busy, each client that came and went left its token behind.
    #[test]
    fn who_has_gone_while_no_thread_was_free_is_not_remembered() {
        let (jobs, _consumers) = crate::engine::pool::work_queue::queue(1, 1);
        let (mut streams, mut table) = (Streams::new(jobs), Table::default());
        let come = |table: &mut Table| {
            let parked = Parked { on_readable: true, ..Parked::default() };
            let parking = Parking { parked, deadline: Millis(1), sheddable_at: Millis(1) };
            let make = |token| Slot::new(token, Connection::for_test(), parking);
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
