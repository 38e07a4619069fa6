//! The acceptor's table of connections, by token.

use crate::engine::connection::Slot;
use foldhash::fast::RandomState;
use std::collections::hash_map::Entry::Occupied;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

/// Bits of a token that are the index; the rest is the entry's generation, so that an event for a connection that has
/// gone never hits the one that came after it. On 32 bits a million connections, and 4,096 generations.
const INDEX_BITS: u32 = if usize::BITS == 64 { 32 } else { 20 };
const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;
/// The highest generation, which is left to tokens that are no connections.
const RESERVED: usize = usize::MAX >> INDEX_BITS;

/// Open connections.
#[derive(Default)]
pub struct Table {
    entries: Vec<Entry>,
    free: Vec<usize>,
    open: usize,
    /// What each address has.
    held: HashMap<ClientNet, Held, RandomState>,
    /// Addresses of which that has changed, while somebody follows it.
    changed: Option<HashSet<ClientNet, RandomState>>,
}

#[derive(Default)]
struct Entry {
    generation: u32,
    slot: Option<Arc<Slot>>,
    source: Option<ClientNet>,
    /// Its neighbours among the entries of its address.
    before: Option<Index>,
    behind: Option<Index>,
}

/// The entries of one address: how many, and the first of them.
#[derive(Default)]
struct Held {
    count: usize,
    first: Option<Index>,
}

/// An entry's index, in four bytes also where there is none: each open connection has two of them.
#[derive(Clone, Copy)]
struct Index(NonZeroU32);

impl Index {
    fn new(index: usize) -> Option<Index> {
        u32::try_from(index + 1).ok().and_then(NonZeroU32::new).map(Index)
    }

    fn get(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Whom a connection is from, as far as an address tells: of IPv6 the first 64 bits, which one host has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientNet {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl ClientNet {
    pub fn of(peer: SocketAddr) -> ClientNet {
        match peer.ip().to_canonical() {
            IpAddr::V4(address) => ClientNet::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                ClientNet::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

impl ClientNet {
    /// As bytes, for another process.
    pub fn octets(self) -> Vec<u8> {
        match self {
            ClientNet::V4(octets) => octets.to_vec(),
            ClientNet::V6(octets) => octets.to_vec(),
        }
    }

    /// What these bytes stand for.
    pub fn from_octets(octets: &[u8]) -> Option<ClientNet> {
        match octets.len() {
            4 => octets.try_into().ok().map(ClientNet::V4),
            8 => octets.try_into().ok().map(ClientNet::V6),
            _ => None,
        }
    }
}

impl Table {
    /// A token that no connection has: `number` counts from 0.
    pub const fn special(number: usize) -> usize {
        usize::MAX - number
    }

    /// Which special token it is, if it is one.
    pub const fn as_special(token: usize) -> Option<usize> {
        if token >> INDEX_BITS == RESERVED { Some(usize::MAX - token) } else { None }
    }

    pub fn len(&self) -> usize {
        self.open
    }

    /// Makes a place and puts the slot that `make` builds for its token there.
    pub fn insert(&mut self, source: Option<ClientNet>, make: impl FnOnce(usize) -> Slot) -> &Arc<Slot> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            self.entries.len() - 1
        });
        self.open += 1;
        let mut behind = None;
        if let Some(source) = source {
            let held = self.held.entry(source).or_default();
            held.count += 1;
            behind = std::mem::replace(&mut held.first, Index::new(index));
            if let Some(behind) = behind {
                self.entries[behind.get()].before = Index::new(index);
            }
            self.changed.iter_mut().for_each(|changed| _ = changed.insert(source));
        }
        let entry = &mut self.entries[index];
        (entry.source, entry.before, entry.behind) = (source, None, behind);
        entry.slot.insert(Arc::new(make((entry.generation as usize) << INDEX_BITS | index)))
    }

    /// The index of a token's entry: open connections have the lowest that were free.
    pub const fn index_of(token: usize) -> usize {
        token & INDEX_MASK
    }

    /// Who has that entry now.
    pub fn at(&self, index: usize) -> Option<&Arc<Slot>> {
        self.entries.get(index)?.slot.as_ref()
    }

    pub fn get(&self, token: usize) -> Option<&Arc<Slot>> {
        self.at(Table::index_of(token)).filter(|slot| slot.token() == token)
    }

    /// Takes it out. Answers its address.
    pub fn remove(&mut self, token: usize) -> Option<ClientNet> {
        self.get(token)?;
        let index = Table::index_of(token);
        let entry = &mut self.entries[index];
        entry.slot = None;
        entry.generation = ((entry.generation as usize + 1) % RESERVED) as u32;
        let (before, behind) = (entry.before.take(), entry.behind.take());
        let source = entry.source.take();
        if let Some(source) = source
            && let Occupied(mut held) = self.held.entry(source)
        {
            held.get_mut().count -= 1;
            match before {
                Some(before) => self.entries[before.get()].behind = behind,
                None => held.get_mut().first = behind,
            }
            if let Some(behind) = behind {
                self.entries[behind.get()].before = before;
            }
            if held.get().count == 0 {
                held.remove();
            }
            self.changed.iter_mut().for_each(|changed| _ = changed.insert(source));
        }
        self.free.push(index);
        self.open -= 1;
        source
    }

    /// The address of a connection.
    pub fn source_of(&self, token: usize) -> Option<ClientNet> {
        self.get(token)?;
        self.entries[Table::index_of(token)].source
    }

    /// How many that address has.
    pub fn held_by(&self, source: ClientNet) -> usize {
        self.held.get(&source).map_or(0, |held| held.count)
    }

    /// Those of that address, and no others are looked at.
    pub fn iter_of(&self, source: ClientNet) -> impl Iterator<Item = &Arc<Slot>> {
        let entry = |index: Index| &self.entries[index.get()];
        let first = self.held.get(&source).and_then(|held| held.first);
        let all = std::iter::successors(first.map(entry), move |one| one.behind.map(entry));
        all.filter_map(|entry| entry.slot.as_ref())
    }

    /// Begins or ends to remember the addresses of which the number changes; in the beginning these are all.
    pub fn follow_changes(&mut self, follow: bool) {
        self.changed = follow.then(|| self.held.keys().copied().collect());
    }

    /// Some of the addresses of which the number has changed.
    pub fn take_changes(&mut self, most: usize) -> Vec<ClientNet> {
        let Some(changed) = &mut self.changed else { return Vec::new() };
        let some: Vec<ClientNet> = changed.iter().take(most).copied().collect();
        some.iter().for_each(|source| _ = changed.remove(source));
        some
    }

    /// Nobody has heard of these changes.
    pub fn put_back_changes(&mut self, sources: Vec<ClientNet>) {
        self.changed.iter_mut().for_each(|changed| changed.extend(&sources));
    }

    pub fn iter_with_sources(&self) -> impl Iterator<Item = (Option<ClientNet>, &Arc<Slot>)> {
        self.entries.iter().filter_map(|entry| Some((entry.source, entry.slot.as_ref()?)))
    }

    /// All of them once, beginning at that index and around; each with the index behind it.
    pub fn iter_from(&self, index: usize) -> impl Iterator<Item = (usize, &Arc<Slot>)> {
        let (before, behind) = self.entries.split_at(index.min(self.entries.len()));
        let at = before.len();
        let behind = behind.iter().enumerate().map(move |(number, entry)| (at + number + 1, entry));
        let before = before.iter().enumerate().map(|(number, entry)| (number + 1, entry));
        behind.chain(before).filter_map(|(next, entry)| Some((next, entry.slot.as_ref()?)))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.entries.iter().filter_map(|entry| entry.slot.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Millis;
    use crate::engine::connection::Connection;
    use crate::engine::slot::{Parked, Parking};

    const PARKING: Parking =
        Parking { parked: Parked { shed: None, ..Parked::READING }, deadline: Millis(0), sheddable_at: Millis(0) };

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 4 * size_of::<u64>(), "{}", size_of::<Entry>());
    }

    #[test]
    fn a_stale_token_finds_nothing() {
        let mut table = Table::default();
        let make = |token| Slot::new(token, Connection::for_test(), PARKING);
        let first = table.insert(None, make).token();
        table.remove(first);
        let second = table.insert(None, make).token();
        assert_ne!(first, second);
        assert!(table.get(first).is_none() && table.get(second).is_some());
        table.remove(first);
        assert_eq!(table.len(), 1);
        assert_eq!(Table::as_special(second), None);
        assert_eq!(Table::as_special(Table::special(3)), Some(3));
    }

    #[test]
    fn connections_are_counted_by_address() {
        let mut table = Table::default();
        let make = |token| Slot::new(token, Connection::for_test(), PARKING);
        let source = |text: &str| ClientNet::of(text.parse().expect("an address"));
        assert_eq!(source("[::ffff:10.0.0.1]:5"), source("10.0.0.1:6"));
        assert_eq!(source("[2001:db8:0:1::1]:5"), source("[2001:db8:0:1:ffff::2]:5"));
        assert_ne!(source("[2001:db8:0:1::1]:5"), source("[2001:db8:0:2::1]:5"));
        let one = source("10.0.0.1:1");
        let first = table.insert(Some(one), make).token();
        table.insert(Some(one), make);
        table.insert(None, make);
        assert_eq!(table.held_by(one), 2);
        table.remove(first);
        table.remove(first);
        assert_eq!((table.held_by(one), table.iter_with_sources().count()), (1, 2));
    }

    #[test]
    fn those_of_an_address_are_found_without_a_look_at_others() {
        let mut table = Table::default();
        let make = |token| Slot::new(token, Connection::for_test(), PARKING);
        let source = |last| ClientNet::V4([10, 0, 0, last]);
        let tokens: Vec<usize> = (0..12).map(|number| table.insert(Some(source(number % 3)), make).token()).collect();
        let of = |table: &Table, last| {
            let mut tokens: Vec<usize> = table.iter_of(source(last)).map(|slot| slot.token()).collect();
            tokens.sort_unstable();
            tokens
        };
        assert_eq!(of(&table, 1), [tokens[1], tokens[4], tokens[7], tokens[10]]);
        // The first, the last and one between, in the order of the list.
        for (gone, left) in [(10, vec![1, 4, 7]), (4, vec![1, 7]), (1, vec![7]), (7, vec![])] {
            table.remove(tokens[gone]);
            assert_eq!(of(&table, 1), left.iter().map(|at| tokens[*at]).collect::<Vec<_>>());
            assert_eq!(table.held_by(source(1)), left.len());
        }
        assert_eq!(of(&table, 0).len() + of(&table, 2).len(), 8);
        table.insert(Some(source(1)), make);
        assert_eq!(of(&table, 1).len(), 1);
    }

    #[test]
    fn a_look_goes_on_where_the_last_one_ended() {
        let mut table = Table::default();
        let make = |token| Slot::new(token, Connection::for_test(), PARKING);
        let tokens: Vec<usize> = (0..5).map(|_| table.insert(None, make).token()).collect();
        table.remove(tokens[3]);
        let from = |index| table.iter_from(index).map(|(_, slot)| slot.token()).collect::<Vec<_>>();
        assert_eq!(from(0), [tokens[0], tokens[1], tokens[2], tokens[4]]);
        let (behind, _) = table.iter_from(0).nth(1).expect("a second one");
        assert_eq!(from(behind), [tokens[2], tokens[4], tokens[0], tokens[1]]);
        assert_eq!(from(99), from(0));
    }

    #[test]
    fn changes_by_address_are_followed() {
        let mut table = Table::default();
        let make = |token| Slot::new(token, Connection::for_test(), PARKING);
        let source = |last| ClientNet::V4([10, 0, 0, last]);
        let first = table.insert(Some(source(1)), make).token();
        assert!(table.take_changes(9).is_empty(), "nobody follows them");
        table.follow_changes(true);
        assert_eq!(table.take_changes(9), [source(1)], "all that there are");
        table.insert(Some(source(2)), make);
        table.insert(Some(source(2)), make);
        table.remove(first);
        let one = table.take_changes(1);
        assert_eq!((one.len(), table.take_changes(9).len()), (1, 1));
        table.put_back_changes(one.clone());
        assert_eq!(table.take_changes(9), one);
        for source in [source(1), ClientNet::V6([1; 8])] {
            assert_eq!(ClientNet::from_octets(&source.octets()), Some(source));
        }
        assert_eq!(ClientNet::from_octets(b"five!"), None);
    }
}
