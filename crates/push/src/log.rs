//! The log.

use crate::{Message, Position, Topic};
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Nothing younger goes for the sake of [`Limits::history`], or a pause of a moment at a high rate would be a gap.
const YOUNG: u64 = 10_000;
/// Forgotten topics whose floors are kept, each by a hash of its name; beyond that they share one.
const FORGOTTEN: usize = 4096;
/// Epochs before this one that are known.
const LINEAGE: usize = 64;
/// What a kept message takes besides itself: its places in the log and in its topic.
const ENTRY: usize = 96;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all messages together; the oldest go first, also what is retained.
    pub memory: usize,
    /// Messages of one topic.
    pub history: usize,
    /// How long, in milliseconds.
    pub history_age: u64,
    /// Whether the last message of a topic stays whatever its age.
    pub retain: bool,
    /// The largest message, in bytes.
    pub message: usize,
}

impl Default for Limits {
    /// 4 MiB, 100 messages of a topic, 10 minutes, nothing retained, messages of 64 KiB.
    fn default() -> Limits {
        Limits { memory: 4 << 20, history: 100, history_age: 600_000, retain: false, message: 64 << 10 }
    }
}

/// Messages of all topics in the order of their publication.
#[derive(Debug)]
pub struct Log {
    epoch: u64,
    /// Of the next message.
    next: u64,
    /// Epochs before this one, the latest last, each with the last offset that is known of it.
    lineage: VecDeque<Position>,
    limits: Limits,
    /// By offset: what is kept.
    entries: BTreeMap<u64, Entry>,
    /// What each topic has of it. One exists while it has messages or subscribers.
    topics: HashMap<Topic, Kept, RandomState>,
    /// Floors of topics that are forgotten, by a hash of their names, and one for all the others.
    forgotten: HashMap<u64, u64, RandomState>,
    forgotten_floor: u64,
    hasher: RandomState,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    topic: Topic,
    time: u64,
    message: Arc<Message>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Kept {
    /// Offsets of its messages, the oldest first.
    offsets: VecDeque<u64>,
    /// The highest offset of a message that is gone.
    floor: u64,
    /// The last offset, also of one that is gone.
    last: u64,
    subscribers: usize,
}

/// Why something could not be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// It has more bytes than a message may have.
    TooLarge {
        /// How many it may have.
        most: usize,
    },
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AppendError::TooLarge { most } = self;
        write!(f, "a message has at most {most} bytes")
    }
}

impl std::error::Error for AppendError {}

/// Where a new subscriber begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Behind what there is.
    Now,
    /// With all that is kept of its topics.
    Oldest,
    /// With the last message of each of its topics; older ones that lie between are left out by [`Log::last`].
    Last,
}

/// Whether who comes back hears everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// From this cursor on nothing is missing.
    Complete {
        /// Where it goes on.
        cursor: u64,
    },
    /// Something has gone, or nobody knows: it has to be told, and goes on with what there is.
    Gap {
        /// Where it goes on.
        cursor: u64,
    },
}

/// A message on its way to a subscriber.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its number.
    pub offset: u64,
    /// What it is about.
    pub topic: Topic,
    /// When it was published, in milliseconds of whoever published it.
    pub time: u64,
    /// The message.
    pub message: Arc<Message>,
}

/// Messages behind a cursor.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In their order.
    pub messages: Vec<Delivery>,
    /// Everything up to here was looked at: the next cursor.
    pub cursor: u64,
}

/// What there is of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Who listens.
    pub subscribers: usize,
    /// How many messages are kept.
    pub messages: usize,
    /// The last message's place, 0 for none.
    pub last: u64,
}

impl Log {
    /// An empty one, in an epoch of its own: a random number, unless somebody goes on with the last state of another.
    pub fn new(epoch: u64, limits: Limits) -> Log {
        Log {
            epoch,
            next: 1,
            lineage: VecDeque::new(),
            limits,
            entries: BTreeMap::new(),
            topics: HashMap::default(),
            forgotten: HashMap::default(),
            forgotten_floor: 0,
            hasher: RandomState::default(),
            bytes: 0,
        }
    }

    /// The position of the last message.
    pub fn position(&self) -> Position {
        self.at(self.next - 1)
    }

    /// The position of that cursor.
    pub fn at(&self, offset: u64) -> Position {
        Position { epoch: self.epoch, offset }
    }

    /// Bytes that messages take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// From here on this is another epoch: of somebody who goes on without knowing what another published behind this. What
    /// is known of the one before stays good.
    pub fn begin_epoch(&mut self, epoch: u64) {
        self.lineage.push_back(self.position());
        if self.lineage.len() > LINEAGE {
            self.lineage.pop_front();
        }
        self.epoch = epoch;
    }

    /// Publishes at that time, which is not before those of earlier messages.
    ///
    /// # Errors
    /// A message that is too large. Nothing has happened then.
    pub fn append(&mut self, topic: &Topic, message: Message, now: u64) -> Result<Position, AppendError> {
        if message.data().len() > self.limits.message {
            return Err(AppendError::TooLarge { most: self.limits.message });
        }
        let offset = self.next;
        self.next += 1;
        let bytes = message.bytes() + topic.bytes() + ENTRY;
        self.bytes += bytes;
        self.entries.insert(offset, Entry { topic: topic.clone(), time: now, message: Arc::new(message), bytes });
        let kept = self.known(topic);
        kept.offsets.push_back(offset);
        kept.last = offset;
        self.trim(topic, now);
        self.make_room();
        Ok(self.at(offset))
    }

    /// The topic, which is remembered from here on, with the floor that was remembered for it.
    fn known(&mut self, topic: &Topic) -> &mut Kept {
        if !self.topics.contains_key(topic) {
            let floor = self.forgotten.remove(&self.hasher.hash_one(topic)).unwrap_or(self.forgotten_floor);
            self.topics.insert(topic.clone(), Kept { floor, last: floor, ..Kept::default() });
        }
        self.topics.get_mut(topic).expect("it was just put there")
    }

    /// Drops what one topic has too much of.
    fn trim(&mut self, topic: &Topic, now: u64) {
        while let Some(kept) = self.topics.get(topic)
            && kept.offsets.len() > self.limits.history
            && let Some(oldest) = kept.offsets.front().copied()
            && self.entries.get(&oldest).is_some_and(|entry| now.saturating_sub(entry.time) >= YOUNG)
        {
            self.drop_entry(oldest);
        }
    }

    /// Drops what is too old. To be called now and then: nothing else knows that time passes.
    pub fn expire(&mut self, now: u64) {
        let old: Vec<u64> = self
            .entries
            .iter()
            .take_while(|(_, entry)| now.saturating_sub(entry.time) >= self.limits.history_age)
            .map(|(offset, _)| *offset)
            .collect();
        for offset in old {
            let entry = &self.entries[&offset];
            let is_last = self.topics.get(&entry.topic).is_some_and(|kept| kept.last == offset);
            if !(self.limits.retain && is_last) {
                self.drop_entry(offset);
            }
        }
    }

    /// The oldest go until the rest fits.
    fn make_room(&mut self) {
        while self.bytes > self.limits.memory
            && self.entries.len() > 1
            && let Some(oldest) = self.entries.keys().next().copied()
        {
            self.drop_entry(oldest);
        }
    }

    fn drop_entry(&mut self, offset: u64) {
        let Some(entry) = self.entries.remove(&offset) else {
            return;
        };
        self.bytes -= entry.bytes;
        if let Some(kept) = self.topics.get_mut(&entry.topic) {
            // Mostly the oldest; a retained one may have younger ones before it.
            kept.offsets.retain(|other| *other != offset);
            kept.floor = kept.floor.max(offset);
            self.forget_if_unused(&entry.topic);
        }
    }

    /// A topic that has neither messages nor subscribers is remembered by its floor alone.
    fn forget_if_unused(&mut self, topic: &Topic) {
        if !self.topics.get(topic).is_some_and(|kept| kept.offsets.is_empty() && kept.subscribers == 0) {
            return;
        }
        let Some(kept) = self.topics.remove(topic) else {
            return;
        };
        // One that dropped nothing raises nothing, or everybody who comes back would hear of a gap that is none.
        if kept.floor <= self.forgotten_floor {
            return;
        }
        if self.forgotten.len() < FORGOTTEN {
            self.forgotten.insert(self.hasher.hash_one(topic), kept.floor);
        } else {
            self.forgotten_floor = self.forgotten_floor.max(kept.floor);
        }
    }

    /// The highest offset of a message of these topics that is gone.
    fn floor(&self, topics: &[Topic]) -> u64 {
        let floor = |topic: &Topic| match self.topics.get(topic) {
            Some(kept) => kept.floor,
            None => self.forgotten.get(&self.hasher.hash_one(topic)).copied().unwrap_or(self.forgotten_floor),
        };
        topics.iter().map(floor).max().unwrap_or(0)
    }

    /// Somebody listens.
    pub fn subscribe(&mut self, topics: &[Topic]) {
        topics.iter().for_each(|topic| self.known(topic).subscribers += 1);
    }

    /// Somebody listens no longer.
    pub fn unsubscribe(&mut self, topics: &[Topic]) {
        for topic in topics {
            if let Some(kept) = self.topics.get_mut(topic) {
                kept.subscribers = kept.subscribers.saturating_sub(1);
            }
            self.forget_if_unused(topic);
        }
    }

    /// What there is of a topic, if it exists.
    pub fn topic(&self, topic: &Topic) -> Option<TopicInfo> {
        let Kept { offsets, last, subscribers, .. } = self.topics.get(topic)?;
        Some(TopicInfo { subscribers: *subscribers, messages: offsets.len(), last: *last })
    }

    /// All topics of a namespace that exist, in no order.
    pub fn topics(&self, namespace: &str) -> impl Iterator<Item = &Topic> {
        self.topics.keys().filter(move |topic| topic.namespace() == namespace)
    }

    /// Where a new subscriber of these topics begins.
    pub fn start(&self, topics: &[Topic], start: Start) -> u64 {
        let of = |pick: fn(&VecDeque<u64>) -> Option<&u64>| {
            let kept = topics.iter().filter_map(|topic| self.topics.get(topic));
            kept.filter_map(|kept| pick(&kept.offsets).copied()).min().map_or(self.next - 1, |first| first - 1)
        };
        match start {
            Start::Now => self.next - 1,
            Start::Oldest => of(VecDeque::front),
            Start::Last => of(VecDeque::back),
        }
    }

    /// The last message of each of these topics, in their order: what [`Start::Last`] begins with. The cursor behind them
    /// is that of the last message of all.
    pub fn last(&self, topics: &[Topic]) -> Batch {
        let mut offsets: Vec<u64> =
            topics.iter().filter_map(|topic| self.topics.get(topic)?.offsets.back().copied()).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let messages = offsets.into_iter().filter_map(|offset| self.delivery(offset)).collect();
        Batch { messages, cursor: self.next - 1 }
    }

    /// Goes on from a position that somebody brings.
    pub fn resume(&self, position: Position, topics: &[Topic]) -> Resume {
        let known = match position.epoch == self.epoch {
            true => position.offset < self.next,
            false => self.lineage.iter().any(|old| old.epoch == position.epoch && position.offset <= old.offset),
        };
        let oldest = self.start(topics, Start::Oldest);
        match known {
            true if self.floor(topics) <= position.offset => Resume::Complete { cursor: position.offset },
            true => Resume::Gap { cursor: oldest.max(position.offset) },
            // Whatever it was, it is not of here.
            false => Resume::Gap { cursor: oldest },
        }
    }

    /// What these topics have behind a cursor: at most so many messages, and so many bytes of data unless the first alone
    /// has more. The cursor goes as far as everything was looked at.
    pub fn after(&self, cursor: u64, topics: &[Topic], messages: usize, bytes: usize) -> Batch {
        // Each topic's offsets are in order: merged, the next is the least of their heads.
        let mut heads: Vec<_> = topics
            .iter()
            .enumerate()
            .filter(|(at, topic)| !topics[..*at].contains(topic))
            .filter_map(|(_, topic)| self.topics.get(topic))
            .map(|kept| {
                let from = kept.offsets.partition_point(|offset| *offset <= cursor);
                kept.offsets.range(from..).copied().peekable()
            })
            .collect();
        let mut batch = Batch { messages: Vec::new(), cursor };
        let mut taken = 0;
        loop {
            let next = heads.iter_mut().filter_map(|head| head.peek().copied()).min();
            let Some(offset) = next else {
                batch.cursor = self.next - 1;
                return batch;
            };
            let Some(delivery) = self.delivery(offset) else {
                return batch;
            };
            let size = delivery.message.data().len();
            let is_full = batch.messages.len() >= messages || (!batch.messages.is_empty() && taken + size > bytes);
            if is_full {
                return batch;
            }
            taken += size;
            batch.messages.push(delivery);
            batch.cursor = offset;
            heads.iter_mut().for_each(|head| _ = head.next_if_eq(&offset));
        }
    }

    fn delivery(&self, offset: u64) -> Option<Delivery> {
        let Entry { topic, time, message, .. } = self.entries.get(&offset)?;
        Some(Delivery { offset, topic: topic.clone(), time: *time, message: message.clone() })
    }
}

#[cfg(test)]
mod tests;
