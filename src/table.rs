//! The acceptor's table of connections, by token.

use crate::slot::Slot;
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
}

#[derive(Default)]
struct Entry {
    generation: usize,
    slot: Option<Arc<Slot>>,
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
    pub fn insert(&mut self, make: impl FnOnce(usize) -> Slot) -> &Arc<Slot> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            self.entries.len() - 1
        });
        self.open += 1;
        let entry = &mut self.entries[index];
        entry.slot.insert(Arc::new(make(entry.generation << INDEX_BITS | index)))
    }

    pub fn get(&self, token: usize) -> Option<&Arc<Slot>> {
        let entry = self.entries.get(token & INDEX_MASK)?;
        entry.slot.as_ref().filter(|slot| slot.token() == token)
    }

    pub fn remove(&mut self, token: usize) {
        if self.get(token).is_none() {
            return;
        }
        let index = token & INDEX_MASK;
        let entry = &mut self.entries[index];
        entry.slot = None;
        entry.generation = (entry.generation + 1) % RESERVED;
        self.free.push(index);
        self.open -= 1;
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.entries.iter().filter_map(|entry| entry.slot.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Millis;
    use crate::connection::Connection;
    use crate::slot::Place;

    #[test]
    fn a_stale_token_finds_nothing() {
        let mut table = Table::default();
        let make = |token| Slot::new(token, Connection::for_test(), Place::Idle, true, Millis(0));
        let first = table.insert(make).token();
        table.remove(first);
        let second = table.insert(make).token();
        assert_ne!(first, second);
        assert!(table.get(first).is_none() && table.get(second).is_some());
        table.remove(first);
        assert_eq!(table.len(), 1);
        assert_eq!(Table::as_special(second), None);
        assert_eq!(Table::as_special(Table::special(3)), Some(3));
    }
}
