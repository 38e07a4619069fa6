//! News for subscribers on their way to the workers.
//!
//! The hub says for which topics there is something; this thread makes those ready that wait for it, and nobody else does,
//! or what a worker parks could be missed. Requests go first: only a few batches of subscribers are in the channel at a
//! time, and who has served one says so. Whoever waits for its turn stands in a list of tokens here and is parked
//! meanwhile, so it can move, and hears everything at once when it comes to it.

use super::Acceptor;
use crate::clock::{Millis, boot_time};
use crate::engine::connection::Slot;
use crate::engine::pool::job::Job;
use crate::engine::slot::{Notified, Readiness};
use crate::engine::table::Table;
use crossbeam_channel::TrySendError;
use pubsub::Hub;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Subscribers that are given to a worker at a time: more where thousands wait, since each time costs two threads a switch.
const BATCH: std::ops::RangeInclusive<usize> = 64..=256;
/// How often is looked whether messages are too old, while there are any.
const EXPIRE: Duration = Duration::from_secs(10);
/// Until when one that stands in the list has had its turn; a deadline of its own may have passed.
pub(super) const TURN_COMES: Duration = Duration::from_secs(1);

/// What this thread knows of a hub's subscribers.
pub(super) struct Deliveries {
    hub: Option<Hub>,
    /// Those that are to have a turn, by token, the first first; and the same by index, a bit each.
    waiting: VecDeque<usize>,
    known: Vec<u64>,
    /// Batches that a worker has, or that wait for one.
    given: usize,
    /// How many there may be: more workers than cores would not deliver more.
    most: usize,
    expire: Millis,
    /// Whether who has served a batch wakes this thread for it.
    wants: bool,
}

impl Deliveries {
    pub fn new(hub: Option<Hub>, workers: usize) -> Deliveries {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (waiting, known) = (VecDeque::new(), Vec::new());
        let most = workers.min(cores).max(1);
        Deliveries { hub, waiting, known, given: 0, most, expire: Millis::NEVER, wants: false }
    }

    /// Whether the hub has something.
    pub fn has_news(&self) -> bool {
        self.hub.as_ref().is_some_and(Hub::has_news)
    }

    /// When messages are to be looked at.
    pub fn due(&self) -> Millis {
        self.expire
    }

    /// A batch has been served.
    pub fn served(&mut self) {
        self.given = self.given.saturating_sub(1);
    }

    /// That one is to have a turn, once however often this is said.
    pub fn wait(&mut self, token: usize) {
        let (word, bit) = place(token);
        if word >= self.known.len() {
            self.known.resize(word + 1, 0);
        }
        if self.known[word] & bit == 0 {
            self.known[word] |= bit;
            self.waiting.push_back(token);
        }
    }

    fn next(&mut self) -> Option<usize> {
        let token = self.waiting.pop_front()?;
        let (word, bit) = place(token);
        self.known[word] &= !bit;
        if self.waiting.is_empty() && self.waiting.capacity() > 4096 {
            self.waiting = VecDeque::new();
        }
        Some(token)
    }

    /// Hears what the hub has.
    fn hear(&mut self) {
        let Some(hub) = self.hub.clone().filter(Hub::has_news) else { return };
        hub.take_news(|token| self.wait(token));
    }

    /// Sees to it that nothing stays for longer than it may.
    fn keep_age(&mut self, now: Millis) {
        let Some(hub) = &self.hub else { return };
        if self.expire == Millis::NEVER {
            if hub.bytes() > 0 {
                self.expire = now.after(EXPIRE);
            }
        } else if now >= self.expire {
            hub.expire(boot_time());
            self.expire = if hub.bytes() > 0 { now.after(EXPIRE) } else { Millis::NEVER };
        }
    }
}

fn place(token: usize) -> (usize, u64) {
    let index = Table::index_of(token);
    (index / 64, 1 << (index % 64))
}

impl Acceptor {
    /// Gives those to the workers for whom there is something, as many as may be there at a time.
    pub(super) fn deliver(&mut self) {
        self.deliveries.hear();
        self.deliveries.keep_age(self.now);
        while self.hold.is_none()
            && self.migration.is_none()
            && self.deliveries.given < self.deliveries.most
            && !self.deliveries.waiting.is_empty()
        {
            self.give_a_batch();
        }
        let wants = !self.deliveries.waiting.is_empty();
        if std::mem::replace(&mut self.deliveries.wants, wants) != wants {
            // What came just before is seen before this thread waits.
            self.to_acceptor.want_deliveries(wants);
        }
    }

    fn give_a_batch(&mut self) {
        let waiting = self.deliveries.waiting.len();
        let most = (waiting / (2 * self.deliveries.most)).clamp(*BATCH.start(), *BATCH.end());
        let mut batch: Vec<Arc<Slot>> = Vec::with_capacity(waiting.min(most));
        while batch.len() < most
            && let Some(token) = self.deliveries.next()
        {
            let Some(slot) = self.table.get(token).cloned() else { continue };
            match slot.notify(Readiness { woken: true, ..Readiness::default() }) {
                // Its deadline stays what it was, unless its worker says so.
                Notified::Enqueue(_) => {
                    slot.set_queued_at(self.now);
                    batch.push(slot);
                }
                Notified::Waits => self.waits(&slot),
                // Its worker looks again, or it waits for its client, and its cursor knows.
                Notified::Nothing | Notified::Discard => {}
            }
        }
        if batch.is_empty() {
            return;
        }
        match self.jobs.try_send(Job::Deliveries(batch)) {
            Ok(()) => self.deliveries.given += 1,
            Err(TrySendError::Full(Job::Deliveries(batch))) => {
                batch.iter().for_each(|slot| self.is_under_way(slot));
                self.overflow.extend(batch);
            }
            // The pool ends only after this thread has.
            Err(_) => self.over = true,
        }
    }

    /// It is parked and waits for its turn, of which its deadline is no part.
    pub(super) fn deliver_to(&mut self, slot: &Slot) {
        let deadline = self.now.after(TURN_COMES);
        slot.set_deadline(deadline);
        self.timers.look_at(slot.token(), self.now, deadline);
        self.deliveries.wait(slot.token());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_named_often_has_one_turn() {
        let mut deliveries = Deliveries::new(None, 4);
        for token in [70, 3, 70, 3, 3, 500] {
            deliveries.wait(token);
        }
        assert_eq!(std::iter::from_fn(|| deliveries.next()).collect::<Vec<_>>(), [70, 3, 500]);
        deliveries.wait(3);
        assert_eq!(deliveries.next(), Some(3));
        assert_eq!(deliveries.next(), None);
    }
}
