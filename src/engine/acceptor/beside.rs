//! Two generations side by side: each limit is one for both.
//!
//! The predecessor says what it holds, and says so again whenever that has changed; the successor counts it as its own.
//! What moves goes from the one sum to the other: the figures and the COMMITs come over the same link in their order, so
//! nothing is counted twice or not at all.

use super::Acceptor;
use crate::clock::Millis;
use crate::engine::table::ClientNet;
use crate::lifecycle::link::{Holds, Link, Message, Sent};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::time::Duration;

/// How often the successor is told at the most.
const TELL: Duration = Duration::from_millis(100);
/// Figures of addresses in one packet.
const ADDRESSES: usize = 2000;
/// How long a predecessor may take to spare a connection. Then one of ours goes, or whoever waits goes on waiting.
const SPARES_WITHIN: Duration = Duration::from_millis(100);
/// Wishes under way at a time.
const WISHES: usize = 64;

/// What a predecessor holds, as its successor knows it.
#[derive(Default)]
pub(super) struct Beside {
    link: Option<Link>,
    /// Whether it has not said it yet.
    awaited: bool,
    connections: usize,
    by_address: HashMap<ClientNet, usize, RandomState>,
    /// For whom it has been asked to spare a connection, and when: for anybody, or for another of that address.
    wishes: Vec<(Option<ClientNet>, Millis)>,
}

impl Beside {
    pub(super) fn len(&self) -> usize {
        self.connections
    }

    pub(super) fn held_by(&self, source: ClientNet) -> usize {
        self.by_address.get(&source).copied().unwrap_or(0)
    }

    /// Takes new figures. Those of addresses that are not named are as before.
    fn learn(&mut self, holds: Holds) {
        let Holds { connections, addresses, .. } = holds;
        if connections < std::mem::replace(&mut self.connections, connections) {
            self.granted(None);
        }
        for (address, held) in addresses {
            let Some(source) = ClientNet::from_octets(&address) else { continue };
            let before = match held {
                0 => self.by_address.remove(&source),
                held => self.by_address.insert(source, held),
            };
            if before.is_some_and(|before| before > held) {
                self.granted(Some(source));
            }
        }
    }

    fn granted(&mut self, of: Option<ClientNet>) {
        self.wishes.retain(|(wished, _)| *wished != of);
    }

    /// One of its connections has become ours.
    fn gave(&mut self, source: Option<ClientNet>) {
        self.connections = self.connections.saturating_sub(1);
        if let Some(source) = source
            && let Some(held) = self.by_address.get_mut(&source)
        {
            *held = held.saturating_sub(1);
        }
    }
}

/// A successor that is told what this process holds.
pub(super) struct Telling {
    link: Link,
    pub(super) due: Millis,
    /// What it knows, but for the addresses, of which the table knows what has changed.
    told: Option<(usize, usize)>,
}

impl Acceptor {
    /// Counts what the predecessor at the other end holds as ours. It has said so already, or does in a moment; until
    /// it is heard nobody is let in.
    pub fn succeed(&mut self, link: Link) {
        self.beside = Beside { link: Some(link), awaited: true, ..Beside::default() };
        self.accepting = false;
    }

    /// Open connections, here and beside us.
    pub(super) fn open_connections(&self) -> usize {
        self.table.len() + self.beside.len()
    }

    /// How many that address has, here and beside us.
    pub(super) fn held_by(&self, source: ClientNet) -> usize {
        self.table.held_by(source) + self.beside.held_by(source)
    }

    /// New figures of the predecessor's.
    pub(super) fn learn(&mut self, holds: Holds) {
        self.shared.budget.set_held_beside(holds.bytes);
        self.beside.learn(holds);
        self.freed.extend(self.postponed.iter().map(|(_, _, peer)| ClientNet::of(*peer)));
        self.let_in();
    }

    /// Somebody may wait for a place.
    fn let_in(&mut self) {
        if std::mem::take(&mut self.beside.awaited) {
            self.accepting = true;
            self.ready = true;
        }
        if std::mem::take(&mut self.full) {
            self.accept_again = self.now;
        }
    }

    /// A connection of the predecessor, with so many bytes, has become ours.
    pub(super) fn gave(&mut self, source: Option<ClientNet>, bytes: usize) {
        self.shared.budget.give_from_beside(bytes);
        self.beside.gave(source);
    }

    /// The predecessor is gone, and with it what it held.
    pub(super) fn is_alone(&mut self) {
        self.shared.budget.set_held_beside(0);
        self.beside = Beside { awaited: self.beside.awaited, ..Beside::default() };
        self.alone = true;
        self.stand_alone();
        self.let_in();
    }

    /// Asks the predecessor to spare a connection: its idle ones are older than ours. Answers whether it may still do
    /// so; if it has none to spare, that is no once in a while, and one of ours has to go.
    pub(super) fn wish_beside(&mut self, of: Option<ClientNet>) -> bool {
        let held = of.map_or(self.beside.len(), |source| self.beside.held_by(source));
        let Some(link) = self.beside.link.as_ref().filter(|_| held > 0) else { return false };
        let wishes = &mut self.beside.wishes;
        if let Some(at) = wishes.iter().position(|(wished, _)| *wished == of) {
            let waits = self.now.since(wishes[at].1) < SPARES_WITHIN;
            if !waits {
                wishes.swap_remove(at);
            }
            return waits;
        }
        let wish = Message::Spare(of.map(ClientNet::octets));
        if wishes.len() >= WISHES || !matches!(link.send(&wish, &[]), Ok(Sent::Yes)) {
            return false;
        }
        wishes.push((of, self.now));
        true
    }

    /// The successor wishes for a place, for anybody or for another connection of that address.
    pub(super) fn spare_for(&mut self, address: Option<Vec<u8>>) {
        match address {
            None => self.evict(),
            Some(address) => ClientNet::from_octets(&address).is_some_and(|source| self.evict_idle_of(source)),
        };
        // It waits for this.
        if let Some(telling) = &mut self.telling {
            telling.due = self.now;
        }
    }

    /// From here on the successor at the other end hears what we hold.
    pub(super) fn begin_telling(&mut self, link: Link) {
        self.table.follow_changes(true);
        self.telling = Some(Telling { link, due: self.now, told: None });
    }

    /// Tells the successor what has changed.
    pub(super) fn tell(&mut self) {
        let Some(telling) = self.telling.as_mut().filter(|telling| telling.due <= self.now) else { return };
        telling.due = self.now.after(TELL);
        let (connections, bytes) = (self.table.len(), self.shared.budget.held());
        let addresses = self.table.take_changes(ADDRESSES);
        if telling.told == Some((connections, bytes)) && addresses.is_empty() {
            return;
        }
        // There may be more.
        if addresses.len() == ADDRESSES {
            telling.due = self.now;
        }
        let figures = addresses.iter().map(|source| (source.octets(), self.table.held_by(*source))).collect();
        match telling.link.send(&Message::Holds(Holds { connections, bytes, addresses: figures }), &[]) {
            Ok(Sent::Yes) => telling.told = Some((connections, bytes)),
            Ok(Sent::Later) => {
                self.table.put_back_changes(addresses);
                telling.due = self.now.after(TELL);
            }
            Err(_) => {
                self.table.follow_changes(false);
                self.telling = None;
            }
        }
    }
}
