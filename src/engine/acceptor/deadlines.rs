//! Deadlines: of parked connections, of work that waits for the pool, and the one that ends a stop.

use super::Acceptor;
use crate::clock::Millis;
use crate::engine::connection::Slot;
use crate::engine::connection::{CloseReason, Expiry, Unfinished};
use crate::engine::slot::{Sched, Shed, Word};
use http1::Reject;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a stop's deadline waits for workers that are between two turns.
const RUNNING_GRACE: Duration = Duration::from_millis(100);

impl Acceptor {
    /// Looks at every deadline, and at when to look again.
    pub(super) fn scan(&mut self) {
        let draining = self.shared.is_draining();
        let linger = crate::config::DRAIN_LINGER.as_millis() as i32;
        let queue_timeout = self.shared.limits.queue_timeout.as_millis() as i32;
        let mut next = None::<u64>;
        let mut sooner = |milliseconds: u64| next = Some(next.map_or(milliseconds, |next| next.min(milliseconds)));
        let mut due = Vec::new();
        let mut waiting = Vec::new();
        for slot in self.table.iter() {
            let seen = slot.load();
            if let Some(wait) = self.wait_to_look_after(slot, seen) {
                match u64::try_from(wait) {
                    Ok(wait @ 1..) => sooner(wait),
                    _ => {
                        // Before its queue deadline counts, however late this thread is.
                        waiting.push((slot.clone(), seen));
                        sooner(self.tick());
                        continue;
                    }
                }
            }
            let remaining = match seen.sched() {
                Sched::Closed | Sched::Frozen => continue,
                Sched::Running | Sched::RunningAgain => self.tick() as i32,
                Sched::Queued if !seen.is_refusable() => self.tick() as i32,
                Sched::Queued => queue_timeout - slot.queued_for(self.now),
                Sched::Parked
                    if draining
                        && slot.remaining(self.now) > linger
                        && seen.parked().is_some_and(|parked| parked.shed == Some(Shed::Idle)) =>
                {
                    slot.set_deadline(self.now.after(crate::config::DRAIN_LINGER));
                    linger
                }
                _ => slot.remaining(self.now),
            };
            match u64::try_from(remaining) {
                Ok(remaining @ 1..) => sooner(remaining),
                _ => due.push((slot.clone(), seen)),
            }
        }
        // Workers shorten deadlines behind our back only for connections that are under way, which tick.
        self.next_scan = next.map_or(Millis::NEVER, |next| self.now.after(Duration::from_millis(next)));
        for (slot, seen) in due {
            self.expire(&slot, seen);
        }
        for (slot, seen) in waiting {
            self.look_after(&slot, seen);
        }
    }

    /// Acts on the deadline of a connection that is as it was seen.
    pub(super) fn expire(&mut self, slot: &Arc<Slot>, seen: Word) {
        let sched = seen.sched();
        if sched == Sched::Expired {
            self.close(slot, CloseReason::Refused(Reject::Overloaded));
            return;
        }
        // If a worker or an event was faster there is nothing to do: it has moved on.
        let to = if sched == Sched::Queued { Sched::Expired } else { Sched::Running };
        if !slot.claim(seen, to) {
            self.scan_within(self.tick());
            return;
        }
        let expiry = {
            let mut connection = slot.connection();
            let Some(connection) = connection.as_mut() else { return };
            match sched {
                Sched::Queued => connection.give_up(Reject::Overloaded, &self.shared, self.now, self.date.field()),
                _ => connection.expire(&self.shared, self.now, self.date.field()),
            }
        };
        match expiry {
            Expiry::Close(reason) => self.close(slot, reason),
            // A stale entry is in the channel, so it must never go there again: it stays this thread's.
            Expiry::Park | Expiry::Enqueue if sched == Sched::Queued => {
                let deadline = self.now.after(self.shared.limits.linger);
                slot.set_deadline(deadline);
                self.scan_until(deadline);
                if expiry == Expiry::Enqueue {
                    self.discarding.push(slot.clone());
                }
            }
            Expiry::Park => {
                let parking = slot.connection().as_ref().map(|one| one.parking(&self.shared, self.now));
                if let Some(parking) = parking {
                    slot.park(parking);
                    self.scan_until(parking.deadline);
                }
            }
            Expiry::Enqueue => self.requeue(slot, seen.is_refusable()),
        }
    }

    /// Ends what is left at the deadline. What a handler executes is cut and logged by the main thread before.
    pub(super) fn cut(&mut self) {
        self.listeners.clear();
        self.leaving.clear();
        let until = Instant::now() + RUNNING_GRACE;
        // A worker that is between two turns of a download has it parked or queued in a moment.
        while self.cut_parked() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Answers whether workers still run something that nobody has cut.
    pub(super) fn cut_parked(&mut self) -> bool {
        let mut running = false;
        let slots: Vec<Arc<Slot>> = self.table.iter().cloned().collect();
        for slot in slots {
            let seen = slot.load();
            let sched = seen.sched();
            running |= matches!(sched, Sched::Running | Sched::RunningAgain);
            if !(seen.is_parked() || sched == Sched::Queued) {
                continue;
            }
            if !slot.claim(seen, Sched::Expired) {
                // A worker was faster.
                running = true;
                continue;
            }
            let mut guard = slot.connection();
            let Some(connection) = guard.as_mut() else { continue };
            let counted = connection.socket().was_cut();
            let mut ended = connection.cut(&self.shared, self.now, self.date.field());
            // What comes behind a last answer is thrown away, and no request.
            if ended.is_none() && sched == Sched::Queued && !connection.is_lingering() && connection.has_unread() {
                connection.give_up(Reject::Overloaded, &self.shared, self.now, self.date.field());
                let age = Duration::from_millis(slot.queued_for(self.now).max(0) as u64);
                ended = Some(Unfinished { what: "a request that no worker could take".into(), age });
            }
            if let Some(cut) = ended.filter(|_| !counted) {
                self.shared.cut(&cut);
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
