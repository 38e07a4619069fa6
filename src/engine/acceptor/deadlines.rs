//! Deadlines: of parked connections, of work that waits for the pool, and the one that ends a stop.

use super::{Acceptor, DRAIN_TICK, TICK};
use crate::engine::connection::Slot;
use crate::engine::connection::{CloseReason, Expiry};
use crate::engine::slot::{Sched, Shed, Word};
use http1::Reject;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Deadlines that are acted on before events are looked at again: many may come due at once.
const AT_ONCE: usize = 1024;

/// Over so many milliseconds the ends of subscriptions are spread at a stop.
const SPREAD: u64 = 1000;

/// How long a stop's deadline waits for workers that are between two turns.
const RUNNING_GRACE: Duration = Duration::from_millis(100);

impl Acceptor {
    /// Acts on what is due, and looks at what is under way once a tick.
    pub(super) fn keep_deadlines(&mut self) {
        let under_way = self.timers.take_under_way(self.now);
        for index in under_way {
            if let Some(slot) = self.table.at(index as usize).cloned() {
                self.look(&slot, slot.load());
            }
        }
        // Who was parked before the stop began has more time than it gives. Who is under way then is looked at when it parks.
        if self.shared.is_draining() && !std::mem::replace(&mut self.draining, true) {
            self.shared.sessions.stop(self.now.0);
            let slots: Vec<Arc<Slot>> = self.table.iter().cloned().collect();
            for slot in slots {
                let seen = slot.load();
                if seen.parked().is_some_and(|parked| parked.on_wake) {
                    // Its stream ends, but not all in one moment: their clients come back.
                    let wait = (slot.token() as u64).wrapping_mul(0x9e37_79b9) % SPREAD;
                    slot.set_deadline(self.now.after(Duration::from_millis(wait).min(self.stop_patience)));
                }
                self.look(&slot, seen);
            }
        }
        for index in self.timers.take_due(self.now, AT_ONCE) {
            let Some(slot) = self.table.at(index as usize).cloned() else { continue };
            let seen = slot.load();
            match self.wait_of(&slot, seen) {
                // Before its queue deadline counts, however late this thread is.
                Some(..=0) if self.wait_to_look_after(&slot, seen).is_some() => self.look_after(&slot, seen),
                Some(..=0) => self.expire(&slot, seen),
                _ => self.look(&slot, seen),
            }
        }
    }

    /// Sets when to look again at a connection that is as it was seen. An idle one has no longer than a stop gives it.
    fn look(&mut self, slot: &Slot, seen: Word) {
        if matches!(seen.sched(), Sched::Queued | Sched::Running | Sched::RunningAgain) {
            self.is_under_way(slot);
        }
        let linger = crate::config::DRAIN_LINGER;
        let is_idle = seen.parked().is_some_and(|parked| parked.shed == Some(Shed::Idle));
        if is_idle && self.shared.is_draining() && slot.remaining(self.now) > linger.as_millis() as i32 {
            slot.set_deadline(self.now.after(linger));
        }
        if let Some(wait) = self.wait_of(slot, seen) {
            let then = self.now.after(Duration::from_millis(u64::try_from(wait).unwrap_or(0)));
            self.timers.look_at(slot.token(), self.now, then);
        }
    }

    /// In how many milliseconds to act on a connection that is as it was seen, if it stays like this.
    fn wait_of(&self, slot: &Slot, seen: Word) -> Option<i32> {
        match seen.sched() {
            Sched::Closed | Sched::Frozen | Sched::Running | Sched::RunningAgain => None,
            Sched::Queued => self.wait_to_look_after(slot, seen).or_else(|| {
                let queue_timeout = self.shared.limits.queue_timeout.as_millis() as i32;
                seen.is_refusable().then(|| queue_timeout - slot.queued_for(self.now))
            }),
            Sched::Parked | Sched::Expired => Some(slot.remaining(self.now)),
        }
    }

    /// It is looked at before this thread waits again.
    pub(super) fn look_soon(&mut self, slot: &Slot) {
        self.timers.look_at(slot.token(), self.now, self.now);
    }

    /// It has left *parked*: what it waits for then, and until when, is seen with the next tick.
    pub(super) fn is_under_way(&mut self, slot: &Slot) {
        let tick = if self.shared.is_draining() { DRAIN_TICK } else { TICK };
        self.timers.goes_on(slot.token(), self.now.after(Duration::from_millis(tick)));
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
            self.is_under_way(slot);
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
        self.act_on(slot, seen, expiry);
    }

    /// Does what was decided about a connection that was claimed as it was seen.
    pub(super) fn act_on(&mut self, slot: &Arc<Slot>, seen: Word, expiry: Expiry) {
        let sched = seen.sched();
        match expiry {
            Expiry::Close(reason) => self.close(slot, reason),
            // A stale entry is in the channel, so it must never go there again: it stays this thread's.
            Expiry::Park | Expiry::Enqueue | Expiry::Deliver if sched == Sched::Queued => {
                let deadline = self.now.after(self.shared.limits.linger);
                slot.set_deadline(deadline);
                self.timers.look_at(slot.token(), self.now, deadline);
                if expiry == Expiry::Enqueue {
                    self.discarding.push(slot.clone());
                }
            }
            Expiry::Park => {
                let parking = slot.connection().as_ref().map(|one| one.parking(&self.shared, self.now));
                if let Some(parking) = parking {
                    slot.park(parking);
                    self.timers.look_at(slot.token(), self.now, parking.deadline);
                }
            }
            Expiry::Deliver => {
                let parking = slot.connection().as_ref().map(|one| one.parking(&self.shared, self.now));
                if let Some(parking) = parking {
                    slot.park(parking);
                    self.deliver_to(slot);
                }
            }
            Expiry::Enqueue => self.requeue(slot, seen.is_refusable()),
            Expiry::HandOver => self.requeue(slot, false),
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
            // Its client knows where it was: nothing of it is lost.
            let reason = if connection.is_subscribed() { CloseReason::Stopping } else { CloseReason::Cut };
            let cut = connection.cut(&self.shared, self.now, self.date.field());
            // What comes behind a last answer is thrown away, and no request.
            let is_answered = connection.is_lingering() || connection.holds_application();
            if !cut && sched == Sched::Queued && !is_answered && connection.has_unread() {
                let age = Duration::from_millis(slot.queued_for(self.now).max(0) as u64);
                connection.cut_unread(&self.shared, self.now, self.date.field(), age);
            }
            let stays = connection.holds_application();
            drop(guard);
            if !stays {
                self.close(&slot, reason);
            }
        }
        running
    }
}
