//! New connections: taking them, making place for them, and closing a listener without resetting any.

use super::{Acceptor, DRAIN_TICK};
use crate::Error;
use crate::clock::Millis;
use crate::engine::connection::Connection;
use crate::engine::connection::Slot;
use crate::engine::connection::transport::Transport;
use crate::engine::table::ClientNet;
use crate::listener::{Accepted, Listener};
use crate::sys::readiness;
use mio::unix::SourceFd;
use rustix::event::PollFlags;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Connections accepted before parked ones are looked at again.
const ACCEPTS: usize = 64;

/// How long to leave the listener alone when descriptors or places have run out.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Between two lines that say that accepting is refused.
const REMINDER: Duration = Duration::from_secs(60);

/// At least that long passes between the end of new handshakes and the close: a SYN that the kernel was just handling is
/// in SYN_RECV by then.
const REFUSAL_SETTLES: Duration = Duration::from_millis(10);

/// How long to wait for handshakes where the kernel does not tell about them.
const BLIND_WAIT: Duration = Duration::from_secs(1);

/// How many times as long as the last question for handshakes took is waited before the next: it means a look at every
/// socket on the host, by the kernel and, where it tells only by a file, by this thread.
const ASKS: u32 = 9;

/// A listener that takes no new handshakes, and goes once those under way are served.
pub(super) struct Leaving {
    pub(super) listener: Listener,
    pub(super) since: Millis,
    pub(super) until: Millis,
    /// When to ask for handshakes again.
    pub(super) ask_again: Millis,
}

impl Acceptor {
    /// Begins to listen where that was not done yet: the last step before serving that may fail. `forgiving` goes on
    /// without what fails.
    ///
    /// # Errors
    /// Of the first that cannot listen.
    pub fn listen(&mut self, forgiving: bool) -> Result<(), Error> {
        let mut outcome = Ok(());
        self.listeners.retain_mut(|listener| match listener.listen() {
            Err(error) if forgiving => {
                log::error!("{error}; serving without it");
                false
            }
            Err(error) => {
                outcome = Err(error);
                true
            }
            Ok(()) => true,
        });
        outcome
    }

    /// Nobody's is bound beside ours any more.
    pub fn stand_alone(&self) {
        self.listeners.iter().for_each(Listener::stand_alone);
    }

    /// Whether new connections on some listener are ours to take.
    pub(super) fn accepts(&self) -> bool {
        !self.waits_for_go && (self.accepting || !self.accepting_on.is_empty())
    }

    pub(super) fn accept(&mut self) {
        // Edge-triggered: from here on only a listener that is left with some waiting makes this true again.
        self.ready = false;
        let listeners = std::mem::take(&mut self.listeners);
        for listener in &listeners {
            if !self.accepting && !self.accepting_on.iter().any(|ours| ours.is_of(listener)) {
                continue;
            }
            self.accept_from(listener, self.shared.limits.connections);
        }
        self.listeners = listeners;
    }

    /// Accepts what waits, as far as there are places. Answers whether the queue is empty now.
    pub(super) fn accept_from(&mut self, listener: &Listener, limit: usize) -> bool {
        let mut skipped = 0;
        for _ in 0..ACCEPTS {
            if self.open_connections() >= limit && !self.make_place(listener, limit) {
                return false;
            }
            match listener.accept() {
                Accepted::Connection(fd, peer) => {
                    self.refused = None;
                    self.admit(fd, peer);
                }
                Accepted::Empty => {
                    self.exhausted = None;
                    self.refused = None;
                    return true;
                }
                // Nobody fails as often as that: it is no error of the connections.
                Accepted::Skipped(error) if skipped + 1 == ACCEPTS => return self.is_refused(listener, &error),
                Accepted::Skipped(error) => {
                    skipped += 1;
                    log::debug!("a connection failed before it was accepted: {error}");
                }
                Accepted::Refused(error) => return self.is_refused(listener, &error),
                Accepted::Exhausted(error) => {
                    if self.is_exhausted(listener, &error) {
                        continue;
                    }
                    self.ready = true;
                    self.accept_again = self.now.after(BACK_OFF);
                    return false;
                }
            }
        }
        self.ready = true;
        false
    }

    /// Accepting does not work at all: tries again later, and says so now and then. Answers that the queue is not known
    /// to be empty.
    fn is_refused(&mut self, listener: &Listener, error: &std::io::Error) -> bool {
        if self.refused.is_none_or(|said| self.now.since(said) >= REMINDER) {
            log::error!("cannot accept on {}, trying again until it works: {error}", listener.bound());
            self.refused = Some(self.now);
        }
        self.ready = true;
        self.accept_again = self.now.after(BACK_OFF);
        false
    }

    pub(super) fn admit(&mut self, fd: OwnedFd, peer: Option<SocketAddr>) {
        let source = peer.map(ClientNet::of);
        self.shared.stats.accepted();
        match (peer, source) {
            (Some(peer), Some(source)) if !self.has_room_for(source) => self.postpone(fd, peer),
            _ => self.open(fd, peer),
        }
    }

    /// Gives a new connection its place.
    pub(super) fn open(&mut self, fd: OwnedFd, peer: Option<SocketAddr>) {
        let source = peer.map(ClientNet::of);
        let connection = Connection::new(Transport::new(fd), peer);
        let parking = connection.parking(&self.shared, self.now);
        let slot = self.table.insert(source, |token| Slot::new(token, connection, parking)).clone();
        self.timers.look_at(slot.token(), self.now, parking.deadline);
        self.watch(&slot);
    }

    /// At the limit: whether there is a place for who waits, if need be by closing a connection.
    pub(super) fn make_place(&mut self, listener: &Listener, limit: usize) -> bool {
        self.take_messages();
        if self.open_connections() < limit {
            return true;
        }
        // Nobody goes for nobody; who comes later is an event.
        if !has_more(listener) {
            return false;
        }
        if !self.wish_beside(None) && self.evict() {
            return true;
        }
        self.to_acceptor.want_places(true);
        self.take_messages();
        if self.open_connections() < limit {
            self.to_acceptor.want_places(self.shared.is_draining());
            return true;
        }
        self.full = true;
        self.ready = true;
        self.accept_again = self.now.after(BACK_OFF);
        false
    }

    /// First half of a close that resets nobody: no new handshakes. For the sole holder of the listeners; what the
    /// service manager keeps is left to it, at once and with its queue.
    pub fn leave(&mut self, listeners: Vec<Listener>, patience: Duration) {
        let until = self.now.after(patience);
        for mut listener in listeners {
            if listener.is_shared() {
                // Closing is not enough: while another copy lives, the poller goes on reporting it.
                let _ = self.poll.registry().deregister(&mut SourceFd(&listener.as_raw_fd()));
                continue;
            }
            listener.refuse_new();
            self.leaving.push(Leaving { listener, since: self.now, until, ask_again: self.now.after(REFUSAL_SETTLES) });
        }
    }

    /// Second half: goes on accepting until no handshake is left and the queue is empty, then closes.
    pub(super) fn close_leaving(&mut self) {
        let all = std::mem::take(&mut self.leaving);
        let listeners = all.len() as u32;
        for mut leaving in all {
            let settled = self.now.since(leaving.since);
            // First the handshakes, then the queue: what ended its handshake in between is in the queue.
            let ask = self.now >= leaving.ask_again;
            let began = Instant::now();
            let pending = !ask || leaving.listener.has_handshakes().unwrap_or(settled < BLIND_WAIT);
            if ask {
                // A last time when its time is over: it may long be quiet.
                leaving.ask_again = self.now.after(pause_after(began.elapsed(), listeners)).min(leaving.until);
            }
            // What has connected is served, limit or not.
            let empty = self.accept_from(&leaving.listener, usize::MAX);
            let quiet = empty && !pending;
            if !quiet && self.now < leaving.until {
                self.leaving.push(leaving);
                continue;
            }
            if !quiet {
                let bound = leaving.listener.bound();
                log::warn!("closed {bound} while clients were still connecting; some may be reset");
            }
            for (fd, peer) in leaving.listener.close() {
                self.admit(fd, Some(peer));
            }
        }
    }

    pub(super) fn own_files(&mut self, own: bool) {
        for listener in &mut self.listeners {
            listener.own_file(own);
        }
    }
}

/// How long not to ask for handshakes after a question that took so long, one of so many listeners each: together they are
/// a tenth of the time at the most.
fn pause_after(took: Duration, listeners: u32) -> Duration {
    Duration::from_millis(DRAIN_TICK).max(took * ASKS * listeners)
}

/// Whether accept(2) would give something.
fn has_more(listener: &Listener) -> bool {
    readiness::wait(listener, PollFlags::IN, Duration::ZERO).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_ask_for_handshakes_takes_a_tenth_of_the_time_at_the_most() {
        let milliseconds = Duration::from_millis;
        assert_eq!(pause_after(Duration::ZERO, 1), milliseconds(DRAIN_TICK));
        assert_eq!(pause_after(milliseconds(2), 1), milliseconds(DRAIN_TICK));
        for (took, listeners) in [(40, 1), (300, 1), (40, 5)] {
            let round = milliseconds(took) * listeners + pause_after(milliseconds(took), listeners);
            assert!(milliseconds(took) * listeners * 10 <= round, "{took} ms, {listeners} listeners: {round:?}");
        }
    }
}
