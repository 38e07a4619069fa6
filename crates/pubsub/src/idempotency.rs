//! Keys by which a publisher that tries again is known, so that nothing is published twice.

use crate::Position;
use foldhash::fast::RandomState;
use std::collections::{HashMap, VecDeque};

/// The longest key, in bytes.
pub const KEY_LENGTH: usize = 128;
/// Keys that are remembered.
pub const KEYS: usize = 1000;
/// How long, in milliseconds.
pub const LIFETIME: i64 = 600_000;

/// What was published under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    /// Of what was published.
    pub(crate) hash: u64,
    pub(crate) position: Position,
    pub(crate) time: i64,
}

/// Keys that were used lately.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    used: HashMap<String, Used, RandomState>,
    /// The oldest first.
    order: VecDeque<String>,
}

impl Keys {
    /// What was published under that key, if that was lately.
    pub(crate) fn get(&mut self, key: &str, now: i64) -> Option<&Used> {
        self.expire(now);
        self.used.get(key)
    }

    /// It is used, for the first time.
    pub(crate) fn put(&mut self, key: String, used: Used) {
        if self.order.len() >= KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.used.remove(&oldest);
        }
        if self.used.insert(key.clone(), used).is_none() {
            self.order.push_back(key);
        }
    }

    fn expire(&mut self, now: i64) {
        while let Some(oldest) = self.order.front()
            && self.used.get(oldest).is_none_or(|used| now.saturating_sub(used.time) >= LIFETIME)
        {
            self.used.remove(oldest);
            self.order.pop_front();
        }
    }

    /// All of them, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Used)> {
        self.order.iter().filter_map(|key| Some((key, self.used.get(key)?)))
    }
}

/// Of what is published under a key: it has to be the same the next time.
pub(crate) fn hash<'b>(parts: impl IntoIterator<Item = &'b [u8]>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        let bytes = (part.len() as u64).to_le_bytes().into_iter().chain(part.iter().copied());
        hash = bytes.fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(time: i64) -> Used {
        Used { hash: 1, position: Position { epoch: 1, offset: 1 }, time }
    }

    #[test]
    fn a_key_is_known_for_ten_minutes_and_a_thousand_others() {
        let mut keys = Keys::default();
        keys.put("a".into(), used(0));
        assert!(keys.get("a", LIFETIME - 1).is_some() && keys.get("b", 0).is_none());
        assert!(keys.get("a", LIFETIME).is_none());
        for number in 0..=KEYS {
            keys.put(number.to_string(), used(LIFETIME));
        }
        assert!(keys.get("0", LIFETIME).is_none() && keys.get("1", LIFETIME).is_some());
        assert_eq!(keys.iter().count(), KEYS);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(hash([&b"ab"[..], b"c"]), hash([&b"a"[..], b"bc"]));
        assert_eq!(hash([&b"ab"[..]]), hash([&b"ab"[..]]));
    }
}
