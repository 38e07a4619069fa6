//! A hold before an exec: no work is given out until the pool rests and every connection can be written down.
//!
//! Everybody waits meanwhile, so it begins only when what runs is expected to end soon; and because the moment before new
//! work is given out is the one when least runs, this thread chooses it.

use super::Acceptor;
use crate::clock::Millis;
use crate::engine::connection::Slot;
use crate::engine::connection::{Restored, Unfinished, fresh};
use crate::engine::slot::Sched;
use crate::engine::table::ClientNet;
use crate::lifecycle::state::MovedConnection;
use crossbeam_channel::Sender;
use std::collections::{HashMap, HashSet};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

/// How long a successor may take to see what was ready, in milliseconds.
const READY_GRACE: i32 = 5000;
/// How often is looked for what no hold could wait for: it means a look at every connection.
const LOOK: Duration = Duration::from_millis(50);
/// How much longer than expected a hold may last, besides a quarter.
const MARGIN: Duration = Duration::from_millis(50);
/// How long what was cut has to notice.
const CUT_GRACE: Duration = Duration::from_millis(250);
/// How often is said what is waited for.
const SAYS: Duration = Duration::from_secs(5);
/// So many of what is waited for are named.
const NAMED: usize = 3;

/// What the main thread asks for: see [`Command::Hold`](super::Command::Hold).
pub struct HoldOrder {
    /// Told how it ended, once.
    pub answer: Sender<Held>,
    /// A hold does not begin while what runs is expected to take longer.
    pub patience: Duration,
    /// How long it may last.
    pub most: Duration,
    /// Until when it may begin.
    pub within: Duration,
    /// Begins at once, and cuts what has not ended when it has lasted that long.
    pub cuts: bool,
    /// The version of the state that connections are written in; `None` where they are not, and only the pool is to rest.
    pub version: Option<u32>,
}

/// How a hold ended.
pub type Held = Result<AtRest, NotHeld>;

/// The pool rests, and here is every connection.
pub struct AtRest {
    pub connections: Vec<MovedConnection>,
    /// From when on no work was given out.
    pub since: Millis,
}

/// The pool did not come to rest, or the moment for it did not come.
pub struct NotHeld {
    /// For how long work was held back.
    pub lasted: Duration,
}

/// A hold that may begin.
pub(super) struct Asked {
    order: HoldOrder,
    until: Millis,
    look_again: Millis,
    /// Whether something was there that no hold could wait for.
    hindered: bool,
}

/// A hold: no work is given out.
pub(super) struct Hold {
    /// Gone once it was answered.
    answer: Option<Sender<Held>>,
    version: Option<u32>,
    until: Millis,
    /// What happens then: it is given up, or what still runs is cut, or it goes without what was cut.
    then: Then,
    began: Millis,
    pub(super) ready: Vec<Arc<Slot>>,
    /// What was in a channel when the deadline came, by token, and is this thread's now.
    taken: HashMap<usize, (Arc<Slot>, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GiveUp,
    Cut,
    GoWithout,
}

impl Hold {
    /// Whether nobody has been told how it ends.
    pub(super) fn is_open(&self) -> bool {
        self.answer.is_some()
    }

    /// Everything that it holds back.
    pub(super) fn into_slots(self) -> impl Iterator<Item = Arc<Slot>> {
        self.ready.into_iter().chain(self.taken.into_values().map(|(slot, _)| slot))
    }

    fn has_taken(&self, slot: &Slot) -> bool {
        self.taken.contains_key(&slot.token())
    }
}

impl Acceptor {
    pub(super) fn ask_for_hold(&mut self, order: HoldOrder) {
        if order.cuts {
            let most = order.most;
            self.begin_hold(order, most, Then::Cut);
            return;
        }
        let until = self.now.after(order.within);
        self.asked = Some(Asked { order, until, look_again: self.now, hindered: false });
    }

    fn begin_hold(&mut self, HoldOrder { answer, version, .. }: HoldOrder, lasts: Duration, then: Then) {
        self.shared.phase.hold(true);
        let until = self.now.after(lasts);
        let (answer, began) = (Some(answer), self.now);
        self.hold = Some(Hold { answer, version, until, then, began, ready: Vec::new(), taken: HashMap::new() });
    }

    /// Goes on after a hold, or does without one.
    pub(super) fn resume(&mut self) {
        self.asked = None;
        self.shared.phase.hold(false);
        let Hold { ready, taken, .. } = match self.hold.take() {
            Some(hold) => hold,
            None => return,
        };
        for (slot, refusable) in taken.into_values() {
            self.requeue(&slot, refusable);
        }
        for slot in ready {
            self.enqueue(slot);
        }
    }

    /// Begins the hold that was asked for, if now is the moment. To be asked before work is given out.
    pub(super) fn may_begin_hold(&mut self) {
        let Some(asked) = &mut self.asked else { return };
        if self.now >= asked.look_again {
            asked.look_again = self.now.after(LOOK);
            let hindered = self.hinders_hold();
            if let Some(asked) = &mut self.asked {
                asked.hindered = hindered;
            }
        }
        let Some(asked) = &self.asked else { return };
        let flights = self.shared.in_flight.iter();
        let expected = flights.filter_map(|flight| flight.expected(self.now, &self.shared.durations)).max();
        let expected = expected.unwrap_or_default();
        let tells = self.shared.conversations.untold() > 0;
        let begins = !asked.hindered && !tells && expected <= asked.order.patience;
        if !begins && self.now < asked.until {
            return;
        }
        let Some(Asked { order, .. }) = self.asked.take() else { return };
        if begins {
            let lasts = (expected * 5 / 4 + MARGIN).min(order.most);
            self.begin_hold(order, lasts, Then::GiveUp);
        } else {
            // The main thread waits for it, or does not want it any more.
            let _ = order.answer.send(Err(NotHeld { lasted: Duration::ZERO }));
        }
    }

    /// Whether something is there that ends by itself, but not soon: a listener that is closing, or a connection that holds
    /// code of the application's.
    fn hinders_hold(&self) -> bool {
        let holds_application = |slot: &Arc<Slot>| slot.load().parked().is_some_and(|parked| !parked.movable);
        !self.leaving.is_empty() || self.table.iter().any(holds_application)
    }

    /// Answers a hold, if the pool rests and every connection can be moved, or if it has lasted long enough.
    pub(super) fn answer_hold(&mut self) {
        let Some(hold) = self.hold.as_ref().filter(|hold| hold.is_open()) else { return };
        let (then, over) = (hold.then, self.now >= hold.until);
        let without = then == Then::GoWithout && over;
        if without {
            // What a thread had taken from its channel, and only began after the first cut.
            self.shared.cut_in_flight(self.now);
        }
        if let Some(moved) = self.all_at_rest(without) {
            // The main thread waits for it, or has given up and sends `Resume`.
            if let Some(hold) = &mut self.hold
                && let Some(answer) = hold.answer.take()
            {
                let _ = answer.send(Ok(AtRest { connections: moved, since: hold.began }));
            }
            return;
        }
        if !over {
            return;
        }
        match then {
            Then::GiveUp => {
                let Some(hold) = &mut self.hold else { return };
                let lasted = self.now.since(hold.began);
                if let Some(answer) = hold.answer.take() {
                    let _ = answer.send(Err(NotHeld { lasted }));
                }
                self.resume();
            }
            Then::Cut => {
                log::warn!("reload deadline: what is left is cut");
                // First, so that no thread that is freed by the cut begins what would have to be cut too.
                self.take_queued();
                self.shared.cut_in_flight(self.now);
                let until = self.now.after(CUT_GRACE);
                if let Some(hold) = &mut self.hold {
                    (hold.until, hold.then) = (until, Then::GoWithout);
                }
            }
            // It goes without: seen above.
            Then::GoWithout => {}
        }
    }

    /// Takes back what is in a channel, where its entries are stale from here on: nothing of it has begun, and it is the
    /// successor's.
    fn take_queued(&mut self) {
        let Some(hold) = &mut self.hold else { return };
        let ready: HashSet<usize> = hold.ready.iter().map(|slot| slot.token()).collect();
        for slot in self.table.iter() {
            let seen = slot.load();
            let queued = seen.sched() == Sched::Queued && !ready.contains(&slot.token());
            if queued && slot.claim(seen, Sched::Running) {
                hold.taken.insert(slot.token(), (slot.clone(), seen.is_refusable()));
            }
        }
    }

    /// Every connection, if all of them can be written down now; `None` if something still runs, or is closing.
    /// `without` what was cut, and what only this process could go on with, which is cut now.
    fn all_at_rest(&mut self, without: bool) -> Option<Vec<MovedConnection>> {
        // Who tells the application of an end, or looks at its sessions, has no connection for that.
        let calls = self.shared.conversations.untold() > 0 || self.shared.sessions.is_asked();
        let taken = self.jobs.is_empty() && self.streams.is_empty() && !calls;
        if !without && (!taken || !self.leaving.is_empty()) {
            return None;
        }
        // First whether it is worth looking closely: this is asked every millisecond.
        let has_taken = |slot: &Slot| self.hold.as_ref().is_some_and(|hold| hold.has_taken(slot));
        let mut queued = 0;
        for slot in self.table.iter() {
            match slot.load().sched() {
                Sched::Running | Sched::RunningAgain if !without && !has_taken(slot) => return None,
                Sched::Queued => queued += 1,
                _ => {}
            }
        }
        // One that a worker has taken and not yet begun is neither in the channel nor here.
        let is_queued = |slot: &&Arc<Slot>| slot.load().sched() == Sched::Queued;
        let ready = self.hold.as_ref().map_or(0, |hold| hold.ready.iter().filter(is_queued).count());
        if !without && queued != ready {
            return None;
        }
        let version = self.hold.as_ref().and_then(|hold| hold.version);
        let mut moved = Vec::with_capacity(self.table.len());
        for slot in self.table.iter() {
            let (seen, taken) = (slot.load(), has_taken(slot));
            match seen.sched() {
                Sched::Running | Sched::RunningAgain if taken => {}
                Sched::Closed | Sched::Frozen | Sched::Running | Sched::RunningAgain => continue,
                // Its 503 is out, and what its client still sends is thrown away there as it is here.
                Sched::Expired | Sched::Queued => {}
                _ => debug_assert!(seen.is_parked()),
            }
            let mut guard = slot.connection();
            let Some(connection) = guard.as_mut() else { continue };
            // What is ready has no deadline until a worker has seen it.
            let waits = taken || seen.sched() == Sched::Queued;
            let remaining = if waits { READY_GRACE } else { slot.remaining(self.now) };
            let deadline = Millis(self.now.0 + u64::try_from(remaining).unwrap_or(0));
            // Where nothing is written, no more than that nothing is in the way.
            let Some(version) = version else {
                match connection.holds_application() {
                    true if without => _ = connection.cut(&self.shared, self.now, self.date.field()),
                    true => return None,
                    false => {}
                }
                continue;
            };
            match connection.snapshot(deadline, version) {
                Some((snapshot, file)) => {
                    let (fd, file) = (connection.socket().as_raw_fd(), file.map(|file| file.as_raw_fd()));
                    moved.push(MovedConnection { fd, file, snapshot });
                }
                None if without => {
                    connection.cut(&self.shared, self.now, self.date.field());
                }
                // Code of the application's has to end first, and may take long.
                None => return None,
            }
        }
        // Who is one too many for its address is so there as well.
        for (until, fd, peer) in &self.postponed {
            moved.push(MovedConnection { fd: fd.as_raw_fd(), file: None, snapshot: fresh(*peer, *until) });
        }
        Some(moved)
    }

    /// Goes on with a connection that was written down before an exec. One that waited for a place of its address, because
    /// that has as many as it may, waits on.
    pub fn restore(&mut self, mut restored: Restored) {
        if let Some(peer) = restored.connection.peer()
            && !self.has_room_for(ClientNet::of(peer))
        {
            match restored.connection.into_fresh() {
                Ok(fd) => return self.postpone(fd, peer),
                Err(connection) => restored.connection = *connection,
            }
        }
        self.adopt(restored);
    }

    /// Every few seconds a reload or a stop says what it waits for.
    pub(super) fn say_what_is_waited_for(&mut self) {
        let what = match (&self.migration, self.asked.is_some() || self.hold.is_some()) {
            (_, true) | (Some(_), _) => "reload",
            (None, false) if self.shared.is_draining() => "stop",
            _ => {
                self.says_again = Millis::NEVER;
                return;
            }
        };
        if self.says_again == Millis::NEVER {
            self.says_again = self.now.after(SAYS);
        }
        if self.now < self.says_again {
            return;
        }
        self.says_again = self.now.after(SAYS);
        let mut unfinished = self.unfinished();
        unfinished.sort_by_key(|unfinished| std::cmp::Reverse(unfinished.age));
        let more = unfinished.len().saturating_sub(NAMED);
        let named = unfinished.iter().take(NAMED);
        let mut said: Vec<String> = named.map(|one| format!("{} ({:.1} s)", one.what, one.age.as_secs_f64())).collect();
        if more > 0 {
            said.push(format!("{more} more"));
        }
        match self.shared.conversations.untold() {
            0 => {}
            ends => said.push(format!("the application to hear of {ends} ends of conversations")),
        }
        if !said.is_empty() {
            log::info!("the {what} waits for {}", said.join(", "));
        }
    }

    /// What is in handlers, and what of a request or a response waits for its client.
    fn unfinished(&self) -> Vec<Unfinished> {
        let running = self.shared.in_flight.iter().filter_map(|flight| flight.current(self.now));
        let parked = self.table.iter().filter(|slot| slot.load().is_parked());
        let waiting = parked.filter_map(|slot| slot.connection().as_ref()?.unfinished(self.now));
        running.chain(waiting).collect()
    }
}
