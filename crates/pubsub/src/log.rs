//! The log.

use crate::follow::AHEAD;
use crate::{Message, Position, Topic};
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Nothing younger goes for the sake of [`Retention::history`], or a pause of a moment at a high rate would be a gap.
const YOUNG: i64 = 10_000;
/// Forgotten topics whose floors are kept, each by a hash of its name; beyond that they share one.
pub(crate) const FORGOTTEN: usize = 4096;
/// Places for messages of one topic that are not given back.
const PLACES: usize = 32;
/// Epochs before this one that are known.
pub(crate) const LINEAGE: usize = 64;
/// What a kept message takes besides itself: its places in the order and in its topic, and what an allocator adds.
const ENTRY: usize = 160;
/// What a topic that has messages takes besides its names.
const TOPIC: usize = 256;

/// How much is kept in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all messages together, the forms in which they leave included; the oldest go first, also what is retained.
    pub memory: usize,
    /// The largest message, in bytes.
    pub message: usize,
}

impl Default for Limits {
    /// 4 MiB, and messages of 64 KiB.
    fn default() -> Limits {
        Limits { memory: 4 << 20, message: 64 << 10 }
    }
}

/// How much is kept of each topic of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Messages. What is younger than ten seconds stays beyond that.
    pub history: usize,
    /// How long, in milliseconds.
    pub age: i64,
    /// Whether the last message of a topic stays whatever its age.
    pub retain: bool,
}

impl Default for Retention {
    /// 100 messages, 10 minutes, nothing retained.
    fn default() -> Retention {
        Retention { history: 100, age: 600_000, retain: false }
    }
}

impl Retention {
    /// How many messages there are room for: the last one has to stay also where no history is kept beside it.
    fn messages(self) -> usize {
        self.history.max(usize::from(self.retain))
    }
}

/// What gives messages their order and keeps them for those that come later: a [`Log`] of this process, or one that follows
/// a bus across hosts.
pub trait MessageLog {
    /// Publishes at that time, which is not before those of earlier messages.
    ///
    /// # Errors
    /// A message that is too large. Nothing has happened then.
    fn append(&mut self, topic: &Topic, message: Message, now: i64) -> Result<Position, AppendError>;

    /// Goes on from a position that somebody brings.
    fn resume(&self, position: Position, topics: &[Topic]) -> Resume;

    /// What these topics have behind a cursor: at most so many messages, and so many bytes of data unless the first alone
    /// has more. The cursor goes as far as everything was looked at.
    fn after(&self, cursor: u64, topics: &[Topic], messages: usize, bytes: usize) -> Batch;
}

/// Messages of all topics in the order of their publication.
#[derive(Debug)]
pub struct Log {
    pub(crate) epoch: u64,
    /// Of the next message.
    pub(crate) next: u64,
    /// Epochs before this one, the latest last, each with the last offset that is known of it.
    pub(crate) lineage: VecDeque<Position>,
    /// Offsets, in their order, at which another has published what nobody here knows.
    pub(crate) holes: VecDeque<u64>,
    pub(crate) limits: Limits,
    /// Whether it follows a bus, so that somebody may bring a position that this log has not come to.
    pub(crate) follows: bool,
    /// How far it was when it went on in another's epoch.
    pub(crate) joined: u64,
    /// How many times it was seen that the bus is still in this epoch.
    pub(crate) looks: u64,
    /// Up to which of these somebody waits for another epoch.
    pub(crate) sought_until: u64,
    retention: HashMap<Arc<str>, Retention, RandomState>,
    /// By offset: of which topic what is kept is.
    pub(crate) order: BTreeMap<u64, Topic>,
    /// What each topic has of it. One exists while it has messages or subscribers.
    pub(crate) topics: HashMap<Topic, Kept, RandomState>,
    /// Floors of topics that are forgotten, by a hash of their names, and one for all the others.
    pub(crate) forgotten: HashMap<u64, u64, RandomState>,
    pub(crate) forgotten_floor: u64,
    bytes: usize,
    /// Of the forms in which messages leave, which are made while others read.
    frames: AtomicUsize,
}

/// A message as it is kept.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) offset: u64,
    pub(crate) time: i64,
    pub(crate) message: Arc<Message>,
}

#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Its messages, the oldest first.
    pub(crate) messages: VecDeque<Stored>,
    /// The highest offset of a message that is gone.
    pub(crate) floor: u64,
    /// The last offset, also of one that is gone.
    pub(crate) last: u64,
    pub(crate) subscribers: usize,
    /// How many messages it is to have.
    history: usize,
}

impl Kept {
    /// Whether its oldest message goes for the sake of [`Retention::history`].
    fn has_too_much(&self, now: i64) -> bool {
        let is_old = |oldest: &Stored| now.saturating_sub(oldest.time) >= YOUNG;
        self.messages.len() > self.history && self.messages.front().is_some_and(is_old)
    }
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
    /// From this cursor on nothing is missing but where there is a hole, see [`Log::hole_behind`].
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
    pub time: i64,
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
            holes: VecDeque::new(),
            limits,
            follows: false,
            joined: 0,
            looks: 0,
            sought_until: 0,
            retention: HashMap::default(),
            order: BTreeMap::new(),
            topics: HashMap::default(),
            forgotten: HashMap::default(),
            forgotten_floor: 0,
            bytes: 0,
            frames: AtomicUsize::new(0),
        }
    }

    /// How much is kept of the topics of a namespace; the default where nobody has said.
    pub fn set_retention(&mut self, namespace: impl Into<Arc<str>>, retention: Retention) {
        let namespace = namespace.into();
        let topics = self.topics.iter_mut().filter(|(topic, _)| topic.namespace() == &*namespace);
        topics.for_each(|(_, kept)| kept.history = retention.messages());
        self.retention.insert(namespace, retention);
    }

    /// What was said of namespaces.
    pub(crate) fn into_retention(self) -> HashMap<Arc<str>, Retention, RandomState> {
        self.retention
    }

    /// The same as another.
    pub(crate) fn take_retention(&mut self, retention: HashMap<Arc<str>, Retention, RandomState>) {
        retention.into_iter().for_each(|(namespace, retention)| self.set_retention(namespace, retention));
    }

    pub(crate) fn retention_of(&self, namespace: &str) -> Retention {
        self.retention.get(namespace).copied().unwrap_or_default()
    }

    fn retention(&self, topic: &Topic) -> Retention {
        self.retention_of(topic.namespace())
    }

    /// The position of the last message.
    pub fn position(&self) -> Position {
        self.at(self.next - 1)
    }

    /// The position of that cursor.
    pub fn at(&self, offset: u64) -> Position {
        Position { epoch: self.epoch, offset }
    }

    /// Bytes that messages take, and the forms in which they leave.
    pub fn bytes(&self) -> usize {
        self.bytes + self.frames.load(Ordering::Relaxed)
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

    /// The same where another has published behind this to some that listened, or may have: it is gone, and nobody here
    /// knows of which topics it was. There is a hole, and whoever comes to it is told.
    pub fn begin_epoch_behind_a_hole(&mut self, epoch: u64) {
        self.begin_epoch(epoch);
        self.holes.push_back(self.next);
        self.next += 1;
        if self.holes.len() > LINEAGE
            && let Some(hole) = self.holes.pop_front()
        {
            // Said as of what is dropped: too early, and not where it is.
            self.topics.values_mut().for_each(|kept| kept.floor = kept.floor.max(hole));
            self.forgotten.values_mut().for_each(|floor| *floor = (*floor).max(hole));
            self.forgotten_floor = self.forgotten_floor.max(hole);
        }
    }

    /// The first hole behind a cursor: an offset that no message has.
    pub fn hole_behind(&self, cursor: u64) -> Option<u64> {
        self.holes.get(self.holes.partition_point(|hole| *hole <= cursor)).copied()
    }

    /// Puts a message at the end, which has that offset. Answers whether its topic has something to [`trim`](Log::trim) then.
    pub(crate) fn put(&mut self, topic: &Topic, stored: Stored) -> bool {
        let (offset, now, bytes) = (stored.offset, stored.time, stored.message.bytes() + ENTRY);
        let kept = match self.topics.get_mut(topic) {
            Some(kept) => kept,
            None => self.known(topic),
        };
        let first = kept.messages.is_empty();
        kept.messages.push_back(stored);
        kept.last = offset;
        let has_too_much = kept.has_too_much(now);
        self.order.insert(offset, topic.clone());
        self.bytes += bytes + if first { TOPIC + topic.bytes() } else { 0 };
        has_too_much
    }

    /// The topic, which is remembered from here on, with the floor that was remembered for it.
    fn known(&mut self, topic: &Topic) -> &mut Kept {
        if !self.topics.contains_key(topic) {
            let floor = self.forgotten.remove(&topic.fingerprint()).unwrap_or(self.forgotten_floor);
            let history = self.retention(topic).messages();
            self.topics.insert(topic.clone(), Kept { floor, last: floor, history, ..Kept::default() });
        }
        self.topics.get_mut(topic).expect("it was just put there")
    }

    /// Drops what one topic has too much of.
    pub(crate) fn trim(&mut self, topic: &Topic, now: i64) {
        while let Some(kept) = self.topics.get(topic)
            && kept.has_too_much(now)
            && let Some(oldest) = kept.messages.front()
        {
            self.drop_message(oldest.offset);
        }
    }

    /// Drops what is too old, and what there is no room for. To be called now and then: nothing else knows that time passes.
    pub fn expire(&mut self, now: i64) {
        let least = self.retention.values().map(|retention| retention.age).min().unwrap_or(Retention::default().age);
        let is_old = |offset: u64, topic: &Topic| {
            let kept = self.topics.get(topic)?;
            let at = kept.messages.binary_search_by_key(&offset, |stored| stored.offset).ok()?;
            let (age, retention) = (now.saturating_sub(kept.messages[at].time), self.retention(topic));
            let stays = retention.retain && kept.last == offset;
            Some((age >= least, age >= retention.age && !stays))
        };
        let looked = self.order.iter().map(|(offset, topic)| (*offset, is_old(*offset, topic)));
        let old = looked.take_while(|(_, age)| age.is_some_and(|(may_be, _)| may_be));
        let old: Vec<u64> = old.filter(|(_, age)| age.is_some_and(|(_, is)| is)).map(|(offset, _)| offset).collect();
        old.into_iter().for_each(|offset| self.drop_message(offset));
        self.make_room();
    }

    /// Whether there is more than may be, and something that can go: the last message stays.
    pub(crate) fn is_beyond_room(&self) -> bool {
        self.bytes() > self.limits.memory && self.order.len() > 1
    }

    /// The oldest go until the rest fits.
    pub(crate) fn make_room(&mut self) {
        while self.is_beyond_room()
            && let Some(oldest) = self.order.keys().next().copied()
        {
            self.drop_message(oldest);
        }
    }

    pub(crate) fn drop_message(&mut self, offset: u64) {
        let Some(topic) = self.order.remove(&offset) else { return };
        let Some(kept) = self.topics.get_mut(&topic) else { return };
        // Mostly the oldest; a retained one may have younger ones before it.
        let dropped = match kept.messages.front() {
            Some(oldest) if oldest.offset == offset => kept.messages.pop_front(),
            _ => {
                let at = kept.messages.binary_search_by_key(&offset, |stored| stored.offset);
                at.ok().and_then(|at| kept.messages.remove(at))
            }
        };
        let Some(dropped) = dropped else { return };
        // A flood is over: its topic lives on as long as somebody listens, and nothing else counts these places.
        if kept.messages.capacity() > PLACES && kept.messages.len() * 8 < kept.messages.capacity() {
            kept.messages.shrink_to(kept.messages.len() * 2);
        }
        kept.floor = kept.floor.max(offset);
        self.bytes -= dropped.message.bytes() + ENTRY;
        self.frames.fetch_sub(dropped.message.frame_bytes(), Ordering::Relaxed);
        if kept.messages.is_empty() {
            self.bytes -= TOPIC + topic.bytes();
            self.forget_if_unused(&topic);
        }
    }

    /// A topic that has neither messages nor subscribers is remembered by its floor alone.
    fn forget_if_unused(&mut self, topic: &Topic) {
        if !self.topics.get(topic).is_some_and(|kept| kept.messages.is_empty() && kept.subscribers == 0) {
            return;
        }
        let Some(kept) = self.topics.remove(topic) else { return };
        // One that dropped nothing raises nothing, or everybody who comes back would hear of a gap that is none.
        if kept.floor > self.forgotten_floor {
            self.remember(topic.fingerprint(), kept.floor);
        }
    }

    /// Keeps the floor of a topic that is forgotten. Where there is no room the lower half becomes one: whoever was here
    /// lately has heard all of that, and is told of no gap that is none.
    pub(crate) fn remember(&mut self, topic: u64, floor: u64) {
        if self.forgotten.len() >= FORGOTTEN {
            let mut floors: Vec<u64> = self.forgotten.values().copied().collect();
            let (_, middle, _) = floors.select_nth_unstable(FORGOTTEN / 2);
            self.forgotten_floor = self.forgotten_floor.max(*middle);
            let shared = self.forgotten_floor;
            self.forgotten.retain(|_, floor| *floor > shared);
        }
        if floor > self.forgotten_floor {
            self.forgotten.insert(topic, floor);
        }
    }

    /// The highest offset of a message of these topics that is gone.
    pub fn floor(&self, topics: &[Topic]) -> u64 {
        let floor = |topic: &Topic| match self.topics.get(topic) {
            Some(kept) => kept.floor,
            None => self.forgotten.get(&topic.fingerprint()).copied().unwrap_or(self.forgotten_floor),
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

    /// The same topic, with the names that are kept already.
    pub(crate) fn shared(&self, topic: &Topic) -> Topic {
        self.topics.get_key_value(topic).map_or(topic, |(known, _)| known).clone()
    }

    /// What there is of a topic, if it exists.
    pub fn topic(&self, topic: &Topic) -> Option<TopicInfo> {
        let Kept { messages, last, subscribers, .. } = self.topics.get(topic)?;
        Some(TopicInfo { subscribers: *subscribers, messages: messages.len(), last: *last })
    }

    /// All topics of a namespace that exist, in no order.
    pub fn topics(&self, namespace: &str) -> impl Iterator<Item = &Topic> {
        self.topics.keys().filter(move |topic| topic.namespace() == namespace)
    }

    /// Whether nothing is known of that epoch: one that follows a bus may hear of it later.
    pub(crate) fn may_come_to(&self, epoch: u64) -> bool {
        self.follows && epoch != self.epoch && !self.lineage.iter().any(|old| old.epoch == epoch)
    }

    /// Where a new subscriber of these topics begins.
    pub fn start(&self, topics: &[Topic], start: Start) -> u64 {
        let of = |pick: fn(&VecDeque<Stored>) -> Option<&Stored>| {
            let kept = topics.iter().filter_map(|topic| self.topics.get(topic));
            let first = kept.filter_map(|kept| pick(&kept.messages).map(|stored| stored.offset)).min();
            first.map_or(self.next - 1, |first| first - 1)
        };
        match start {
            Start::Now => self.next - 1,
            Start::Oldest => of(VecDeque::front),
            Start::Last => of(VecDeque::back),
        }
    }

    /// Offsets of the last message of each of these topics, in their order: what [`Start::Last`] begins with. The cursor
    /// behind them is that of the last message of all.
    pub fn last(&self, topics: &[Topic]) -> Vec<u64> {
        let last = topics.iter().filter_map(|topic| Some(self.topics.get(topic)?.messages.back()?.offset));
        let mut offsets: Vec<u64> = last.collect();
        offsets.sort_unstable();
        offsets.dedup();
        offsets
    }

    /// The message of that offset, if it is kept.
    pub(crate) fn get(&self, offset: u64) -> Option<(&Topic, &Stored)> {
        let topic = self.order.get(&offset)?;
        let messages = &self.topics.get(topic)?.messages;
        let at = messages.binary_search_by_key(&offset, |stored| stored.offset).ok()?;
        Some((topic, &messages[at]))
    }

    /// Shows what these topics have behind a cursor, in its order, until `takes` refuses one. Answers the cursor behind
    /// what was taken; if that is all there is, behind everything. One that is ahead of the log stays there.
    pub(crate) fn visit<'l>(
        &'l self,
        cursor: u64,
        topics: &[Topic],
        mut takes: impl FnMut(&'l Topic, &'l Stored) -> bool,
    ) -> u64 {
        let behind = |topic: &Topic| {
            let (topic, kept) = self.topics.get_key_value(topic)?;
            if kept.messages.back().is_none_or(|last| last.offset <= cursor) {
                return None;
            }
            let from = kept.messages.partition_point(|stored| stored.offset <= cursor);
            Some((topic, kept.messages.range(from..)))
        };
        let mut reached = cursor;
        if let [topic] = topics {
            for (topic, stored) in behind(topic).into_iter().flat_map(|(topic, all)| all.map(move |one| (topic, one))) {
                if !takes(topic, stored) {
                    return reached;
                }
                reached = stored.offset;
            }
            return cursor.max(self.next - 1);
        }
        // Each topic's are in order: merged, the next is the least of their heads.
        let distinct = topics.iter().enumerate().filter(|(at, topic)| !topics[..*at].contains(topic));
        let mut heads: Vec<_> = distinct
            .filter_map(|(_, topic)| behind(topic))
            .filter_map(|(topic, mut all)| Some((all.next()?, topic, all)))
            .collect();
        while let Some(at) = (0..heads.len()).min_by_key(|at| heads[*at].0.offset) {
            let (stored, topic, rest) = &mut heads[at];
            if !takes(topic, stored) {
                return reached;
            }
            reached = stored.offset;
            match rest.next() {
                Some(next) => *stored = next,
                None => drop(heads.swap_remove(at)),
            }
        }
        cursor.max(self.next - 1)
    }

    /// The form of that number of a message that is kept.
    pub(crate) fn frame<'l>(
        &self,
        stored: &'l Stored,
        form: usize,
        encode: impl FnOnce(&Message) -> Arc<[u8]>,
    ) -> &'l [u8] {
        let (frame, made) = stored.message.frame(form, encode);
        if made {
            self.frames.fetch_add(frame.len(), Ordering::Relaxed);
        }
        frame
    }
}

impl MessageLog for Log {
    fn append(&mut self, topic: &Topic, message: Message, now: i64) -> Result<Position, AppendError> {
        if message.data().len() > self.limits.message {
            return Err(AppendError::TooLarge { most: self.limits.message });
        }
        let offset = self.next;
        self.next += 1;
        if self.put(topic, Stored { offset, time: now, message: Arc::new(message) }) {
            self.trim(topic, now);
        }
        self.make_room();
        Ok(self.at(offset))
    }

    fn resume(&self, position: Position, topics: &[Topic]) -> Resume {
        // Up to where both know the same: of an earlier epoch another may have published more.
        let known = match position.epoch == self.epoch {
            true => {
                // Another host has read that already, and here it comes.
                let ahead = if self.follows { AHEAD } else { 0 };
                (position.offset < self.next.saturating_add(ahead)).then_some(position.offset)
            }
            false => {
                let old = self.lineage.iter().rfind(|old| old.epoch == position.epoch);
                old.map(|old| old.offset.min(position.offset))
            }
        };
        let oldest = self.start(topics, Start::Oldest);
        // The places of a bus grow, whatever becomes of it: what it has heard, here or elsewhere, lies before its own.
        let heard = if self.follows { position.offset.min(self.next - 1) } else { 0 };
        match known {
            Some(known) if known == position.offset && self.floor(topics) <= known => {
                Resume::Complete { cursor: known }
            }
            // What it has heard it does not hear again. Where it had heard more there may be a hole, which is said by this.
            Some(known) => {
                let hole = self.hole_behind(known).filter(|hole| *hole == known + 1 && known < position.offset);
                Resume::Gap { cursor: oldest.max(hole.unwrap_or(known)).max(heard) }
            }
            // Whatever it was, it is not of here.
            None => Resume::Gap { cursor: oldest.max(heard) },
        }
    }

    fn after(&self, cursor: u64, topics: &[Topic], messages: usize, bytes: usize) -> Batch {
        let (mut taken, mut deliveries) = (0, Vec::new());
        let cursor = self.visit(cursor, topics, |topic, stored| {
            let size = stored.message.data().len();
            if deliveries.len() >= messages || (!deliveries.is_empty() && taken + size > bytes) {
                return false;
            }
            taken += size;
            let Stored { offset, time, message } = stored;
            let (topic, message) = (topic.clone(), message.clone());
            deliveries.push(Delivery { offset: *offset, topic, time: *time, message });
            true
        });
        Batch { messages: deliveries, cursor }
    }
}

#[cfg(test)]
mod tests;
