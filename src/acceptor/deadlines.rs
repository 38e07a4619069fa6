//! Deadlines: of parked connections, of work that waits for the pool, and the one that ends a stop.

use super::Acceptor;
use crate::clock::Millis;
use crate::connection::{CloseReason, Connection, Expiry, Unfinished};
use crate::http::Reject;
use crate::slot::{Flags, Place, Slot, Word};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a stop's deadline waits for workers that are between two turns.
const RUNNING_GRACE: Duration = Duration::from_millis(100);

impl Acceptor {
    /// Looks at every deadline, and at when to look again.
    pub(super) fn scan(&mut self) {
        let draining = self.services.is_draining();
        let linger = crate::config::DRAIN_LINGER.as_millis() as i32;
        let queue_timeout = self.services.limits.queue_timeout.as_millis() as i32;
        let mut next = None::<u64>;
        let mut sooner = |milliseconds: u64| next = Some(next.map_or(milliseconds, |next| next.min(milliseconds)));
        let mut due = Vec::new();
        let mut waiting = Vec::new();
        for slot in self.table.iter() {
            let seen = slot.load();
            if let Some(wait) = self.wait_to_look_after(slot, seen) {
                match u64::try_from(wait) {
                    Ok(wait @ 1..) => sooner(wait),
                    _ => waiting.push((slot.clone(), seen)),
                }
            }
            let remaining = match seen.place() {
                Place::Closed | Place::Frozen => continue,
                Place::Running | Place::RunningAgain => self.tick() as i32,
                Place::Queued if !seen.is_refusable() => self.tick() as i32,
                Place::Queued => queue_timeout - slot.queued_for(self.now),
                Place::Idle if draining && slot.remaining(self.now) > linger => {
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
        let place = seen.place();
        if place == Place::Expired {
            self.close(slot, CloseReason::Refused(Reject::Overloaded));
            return;
        }
        // If a worker or an event was faster there is nothing to do: it has moved on.
        let to = if place == Place::Queued { Place::Expired } else { Place::Running };
        if !slot.claim(seen, to) {
            self.scan_within(self.tick());
            return;
        }
        let expiry = {
            let mut connection = slot.connection();
            let Some(connection) = connection.as_mut() else { return };
            match place {
                Place::Queued => connection.give_up(Reject::Overloaded, &self.services, self.now, self.date.field()),
                _ => connection.expire(&self.services, self.now, self.date.field()),
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
                slot.park(if lingers { Place::Idle } else { place }, Flags::default(), deadline);
                self.scan_until(deadline);
            }
            Expiry::Enqueue => {
                if slot.requeue(seen.flags()) {
                    self.enqueue(slot.clone());
                }
            }
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
            let place = seen.place();
            running |= matches!(place, Place::Running | Place::RunningAgain);
            if !(seen.is_parked() || place == Place::Queued) {
                continue;
            }
            if !slot.claim(seen, Place::Expired) {
                // A worker was faster.
                running = true;
                continue;
            }
            let mut guard = slot.connection();
            let Some(connection) = guard.as_mut() else { continue };
            let counted = connection.socket().was_cut();
            let mut ended = connection.cut(&self.services, self.now, self.date.field());
            // What comes behind a last answer is thrown away, and no request.
            if ended.is_none() && place == Place::Queued && !connection.is_lingering() && connection.has_unread() {
                connection.give_up(Reject::Overloaded, &self.services, self.now, self.date.field());
                let age = Duration::from_millis(slot.queued_for(self.now).max(0) as u64);
                ended = Some(Unfinished { what: "a request that no worker could take".into(), age });
            }
            if let Some(cut) = ended.filter(|_| !counted) {
                self.services.cut(&cut);
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
