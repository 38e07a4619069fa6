//! Making place when connections or descriptors have run out, and taking no more from one address than it may have.

use super::Acceptor;
use crate::engine::connection::Slot;
use crate::engine::connection::transport::{Moved, Transport};
use crate::engine::connection::{CloseReason, Connection, Expiry};
use crate::engine::slot::{Sched, Shed, Word};
use crate::engine::table::ClientNet;
use crate::listener::{Accepted, Listener};
use http1::Reject;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// How long one that is too many for its address waits for another of it to end.
const POSTPONED: Duration = Duration::from_millis(250);

/// Connections chosen at a time, since choosing means a look at all of them.
const CHOSEN: usize = 64;

impl Acceptor {
    /// Closes the connection that costs least to lose; `false` if none can be spared.
    pub(super) fn evict(&mut self) -> bool {
        let mut chosen_anew = false;
        loop {
            match self.victims.pop() {
                Some(slot) => {
                    // Chosen some time ago, it may have become busy since then.
                    let seen = slot.load();
                    if slot.sheds(seen, self.now).is_some() && self.evict_this(&slot, seen) {
                        return true;
                    }
                }
                None if chosen_anew => return false,
                None => {
                    chosen_anew = true;
                    self.victims = self.choose();
                }
            }
        }
    }

    /// What can be spared, the first to go last: of the address that holds most connections the one that has been
    /// idle for longest, and so on with one less for that address.
    fn choose(&self) -> Vec<Arc<Slot>> {
        let mut spared = Vec::new();
        for (source, slot) in self.table.iter_with_sources() {
            if let Some(spare) = slot.sheds(slot.load(), self.now) {
                spared.push((source, (spare, slot.remaining(self.now)), slot.token()));
            }
        }
        spared.sort_unstable();
        // What an address holds, the order of who of it would go next, and all of them.
        let mut groups = BinaryHeap::new();
        for group in spared.chunk_by(|(one, ..), (other, ..)| one == other) {
            // Peers without an address cannot be told apart, so none of them holds much.
            let held = group[0].0.map_or(1, |source| self.held_by(source));
            groups.push((held, Reverse(group[0].1), group));
        }
        let mut chosen = Vec::new();
        while chosen.len() < CHOSEN
            && let Some((held, _, group)) = groups.pop()
        {
            chosen.extend(self.table.get(group[0].2).cloned());
            if let [_, rest @ ..] = group
                && let Some((_, order, _)) = rest.first()
            {
                groups.push((held.saturating_sub(1).max(1), Reverse(*order), rest));
            }
        }
        chosen.reverse();
        chosen
    }

    /// Closes it, if it is as it was seen and nothing has come from its client meanwhile.
    fn evict_this(&mut self, slot: &Arc<Slot>, seen: Word) -> bool {
        if !slot.claim(seen, Sched::Running) {
            return false;
        }
        {
            let mut guard = slot.connection();
            if let Some(connection) = guard.as_mut() {
                if matches!(connection.socket().peek(), Ok(Some(Moved::Bytes(_)))) && !connection.is_lingering() {
                    drop(guard);
                    self.requeue(slot, seen.is_refusable());
                    return false;
                }
                if !connection.is_idle() {
                    connection.give_up(Reject::Overloaded, &self.shared, self.now, self.date.field());
                }
            }
        }
        self.close(slot, CloseReason::Evicted);
        true
    }

    /// Whether one more from that address can be had, if need be for its longest idle one.
    pub(super) fn has_room_for(&mut self, source: ClientNet) -> bool {
        let Some(limit) = self.shared.limits.connections_per_ip else { return true };
        let limit = limit.get() as usize;
        // Looking at each only where it matters.
        while self.held_by(source) >= limit && self.in_use_by(source) + self.beside.held_by(source) >= limit {
            if !self.evict_idle_of(source) {
                self.wish_beside(Some(source));
                return false;
            }
        }
        true
    }

    /// Closes the connection of that address that has been idle for longest; `false` if none is.
    pub(super) fn evict_idle_of(&mut self, source: ClientNet) -> bool {
        loop {
            let held = self.table.iter_of(source).map(|slot| (slot, slot.load()));
            let idle = held.filter(|(slot, seen)| slot.sheds(*seen, self.now) == Some(Shed::Idle));
            let longest = idle.min_by_key(|(slot, _)| slot.remaining(self.now));
            let Some((slot, seen)) = longest.map(|(slot, seen)| (slot.clone(), seen)) else {
                return false;
            };
            if self.evict_this(&slot, seen) {
                return true;
            }
        }
    }

    /// How many of that address's connections are more than an entry that a worker has not yet closed.
    fn in_use_by(&self, source: ClientNet) -> usize {
        let gone = |word: Word| match word.sched() {
            // The worker has closed it, and that is on its way here.
            Sched::Closed => true,
            Sched::Queued | Sched::Running | Sched::RunningAgain => word.is_peer_closed(),
            _ => false,
        };
        self.table.iter_of(source).filter(|slot| !gone(slot.load())).count()
    }

    /// One too many for its address, unless the end of another is on its way: packets of two connections may overtake
    /// each other.
    pub(super) fn postpone(&mut self, fd: OwnedFd, peer: SocketAddr) {
        match self.postponed.len() < CHOSEN {
            true => self.postponed.push((self.now.after(POSTPONED), fd, peer)),
            false => self.turn_away(fd),
        }
    }

    /// Once more those who found no place, if one of their address has ended or their time is over.
    pub(super) fn admit_postponed(&mut self) {
        // Written down for the successor, it is that one's to answer.
        if self.hold.as_ref().is_some_and(|hold| !hold.is_open()) {
            return;
        }
        let freed = std::mem::take(&mut self.freed);
        let over = self.postponed.first().is_some_and(|(first, ..)| self.now >= *first);
        if freed.is_empty() && !over {
            return;
        }
        // Of an address that is full one is asked for, and not each.
        let mut full = Vec::new();
        for (until, fd, peer) in std::mem::take(&mut self.postponed) {
            let source = ClientNet::of(peer);
            let asks = (freed.contains(&source) || self.now >= until) && !full.contains(&source);
            if asks && self.has_room_for(source) {
                self.open(fd, Some(peer));
                continue;
            }
            if asks {
                full.push(source);
            }
            if self.now < until {
                self.postponed.push((until, fd, peer));
            } else {
                self.turn_away(fd);
            }
        }
    }

    /// Descriptors or memory have run out. Answers whether to accept again at once.
    pub(super) fn is_exhausted(&mut self, listener: &Listener, error: &std::io::Error) -> bool {
        if self.evict() {
            return true;
        }
        let since = *self.exhausted.get_or_insert_with(|| {
            log::warn!("cannot accept, trying again until it works: {error}");
            self.now
        });
        // Who has waited for as long as a request may wait for a worker learns that it is no use.
        if self.now.since(since) < self.shared.limits.queue_timeout || self.reserve.take().is_none() {
            return false;
        }
        let accepted = listener.accept();
        let refused = matches!(accepted, Accepted::Connection(..));
        if let Accepted::Connection(fd, _) = accepted {
            self.turn_away(fd);
        }
        self.reserve = reserve();
        refused
    }

    /// Answers 503 before anything was asked, and closes. There is no place in which it could linger.
    pub(super) fn turn_away(&mut self, fd: OwnedFd) {
        // What is here already is read, or the close would be a reset, and that could cost the client its answer.
        let mut connection = Connection::new(Transport::new(fd), None);
        let reject = Reject::Overloaded;
        if connection.give_up(reject, &self.shared, self.now, self.date.field()) == Expiry::HandOver {
            // No worker will have it: the client gets the end alone.
            connection.close(CloseReason::Refused(reject), &self.shared, self.now);
            connection.socket().finish();
            connection.discard();
        }
    }
}

/// A descriptor to give up when there is no other, so that who waits can be told.
pub(super) fn reserve() -> Option<OwnedFd> {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).ok()
}
