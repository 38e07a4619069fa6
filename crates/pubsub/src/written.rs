//! A hub's log as it is written down: for a successor, and in a file for the next start.
//!
//! A byte with the version, then the fields as postcard writes them. Times are ages, since a clock of one start of the host
//! says nothing in another. What is read is checked: it may be a file that somebody has cut.

use crate::hub::{Hub, State};
use crate::idempotency::{KEYS, Keys, Used};
use crate::log::{FORGOTTEN, LINEAGE, Log, Stored};
use crate::topic::check_name;
use crate::{Message, Position, Topic};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

const VERSION: u8 = 1;
/// Of a log that follows a bus: behind it stands what was read of that.
const FOLLOWING: u8 = 2;
/// No log has come further, so that what is published behind it has numbers.
const FURTHEST: u64 = 1 << 62;

/// What is no log that was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadWritten {
    /// Of another version.
    Version(u8),
    /// Cut short, or damaged.
    Malformed,
}

impl fmt::Display for BadWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadWritten::Version(version) => {
                write!(f, "it has version {version}, this program reads {VERSION} and {FOLLOWING}")
            }
            BadWritten::Malformed => f.write_str("it is damaged, or no history of handover's"),
        }
    }
}

impl std::error::Error for BadWritten {}

#[derive(Serialize, Deserialize)]
struct WrittenLog {
    epoch: u64,
    next: u64,
    lineage: Vec<(u64, u64)>,
    forgotten: Vec<(u64, u64)>,
    forgotten_floor: u64,
    topics: Vec<WrittenTopic>,
    messages: Vec<WrittenMessage>,
    keys: Vec<WrittenKey>,
    holes: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
struct WrittenTopic {
    namespace: String,
    name: String,
    floor: u64,
    last: u64,
}

#[derive(Serialize, Deserialize)]
struct WrittenMessage {
    offset: u64,
    /// By its place among the topics.
    topic: u32,
    age: i64,
    event: Option<String>,
    #[serde(with = "serde_bytes")]
    data: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct WrittenKey {
    key: String,
    hash: u64,
    position: (u64, u64),
    age: i64,
}

impl Hub {
    /// Writes down everything that a successor has to know, but for the subscribers.
    pub fn write_down(&self, now: i64) -> Vec<u8> {
        let state = self.read();
        let State { log, keys, .. } = &*state;
        let mut places = HashMap::new();
        let mut topics = Vec::new();
        for (topic, kept) in &log.topics {
            // Others are as unknown there as here.
            if kept.messages.is_empty() && kept.floor <= log.forgotten_floor {
                continue;
            }
            places.insert(topic, topics.len() as u32);
            let (namespace, name) = (topic.namespace().to_owned(), topic.name().to_owned());
            topics.push(WrittenTopic { namespace, name, floor: kept.floor, last: kept.last });
        }
        let kept = log.order.keys().filter_map(|offset| log.get(*offset));
        let messages = kept.map(|(topic, stored)| WrittenMessage {
            offset: stored.offset,
            topic: places[topic],
            age: now.saturating_sub(stored.time),
            event: stored.message.event().map(str::to_owned),
            data: stored.message.data().to_vec(),
        });
        let keys = keys.iter().map(|(key, used)| WrittenKey {
            key: key.clone(),
            hash: used.hash,
            position: (used.position.epoch, used.position.offset),
            age: now.saturating_sub(used.time),
        });
        let written = WrittenLog {
            epoch: log.epoch,
            next: log.next,
            lineage: log.lineage.iter().map(|position| (position.epoch, position.offset)).collect(),
            forgotten: log.forgotten.iter().map(|(topic, floor)| (*topic, *floor)).collect(),
            forgotten_floor: log.forgotten_floor,
            topics,
            messages: messages.collect(),
            keys: keys.collect(),
            holes: log.holes.iter().copied().collect(),
        };
        let all = match &state.follower {
            Some(follower) if follower.has_read => {
                let marks: Vec<(u64, u64)> = follower.marks.iter().copied().collect();
                postcard::to_allocvec(&(FOLLOWING, written, marks))
            }
            _ => postcard::to_allocvec(&(VERSION, written)),
        };
        all.expect("a vector takes all, and each list knows its length")
    }

    /// Goes on with what was written down, in its epoch, instead of what is here. Everything is `older` than it says by so
    /// many milliseconds. Answers whether it followed a bus, which this one does not: others go on in that epoch, so it needs
    /// another.
    ///
    /// # Errors
    /// What is not as it would be written; nothing has happened then.
    pub fn read_from(&self, bytes: &[u8], now: i64, older: i64) -> Result<bool, BadWritten> {
        let (version, fields) = bytes.split_first().ok_or(BadWritten::Malformed)?;
        let (followed, (written, marks, rest)) = match *version {
            VERSION => (false, take(fields).map(|(written, rest)| (written, Vec::new(), rest))?),
            FOLLOWING => (true, take(fields).map(|((written, marks), rest)| (written, marks, rest))?),
            other => return Err(BadWritten::Version(other)),
        };
        if !rest.is_empty() {
            return Err(BadWritten::Malformed);
        }
        let mut state = self.write();
        debug_assert!(self.subscribers() == 0, "a subscriber's cursor would mean another log");
        let (log, keys) = restore(written, &state.log, now.saturating_sub(older)).ok_or(BadWritten::Malformed)?;
        let namespaces = std::mem::replace(&mut state.log, log).into_retention();
        state.log.take_retention(namespaces);
        state.keys = keys;
        let topics: Vec<Topic> = state.log.topics.keys().cloned().collect();
        topics.iter().for_each(|topic| state.log.trim(topic, now));
        state.log.expire(now);
        state.log.follows = state.follower.is_some();
        if let Some(follower) = &mut state.follower {
            (follower.has_read, follower.marks) = (followed, marks.into());
        }
        Ok(followed && state.follower.is_none())
    }
}

fn take<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<(T, &'b [u8]), BadWritten> {
    postcard::take_from_bytes(bytes).map_err(|_| BadWritten::Malformed)
}

/// `None` where the pieces do not fit together.
fn restore(written: WrittenLog, like: &Log, now: i64) -> Option<(Log, Keys)> {
    let WrittenLog { epoch, next, lineage, forgotten, forgotten_floor, topics, messages, keys, holes } = written;
    let fits = |offset: u64| (offset < next).then_some(offset);
    if next == 0 || next > FURTHEST || lineage.len() > LINEAGE || forgotten.len() > FORGOTTEN || keys.len() > KEYS {
        return None;
    }
    let mut log = Log::new(epoch, like.limits);
    log.next = next;
    for (epoch, offset) in lineage {
        // Who came back from further on would wait there, and miss in silence what is published before.
        log.lineage.push_back(Position { epoch, offset: fits(offset)? });
    }
    if holes.len() > LINEAGE || !holes.is_sorted() || holes.iter().any(|hole| *hole == 0 || *hole >= next) {
        return None;
    }
    log.holes = holes.into();
    for (topic, floor) in forgotten {
        log.forgotten.insert(topic, fits(floor)?);
    }
    log.forgotten_floor = fits(forgotten_floor)?;
    let mut names = Vec::new();
    let mut known: Vec<Arc<str>> = Vec::new();
    for WrittenTopic { namespace, name, floor, last } in topics {
        let namespace = match known.iter().find(|known| known[..] == namespace) {
            Some(known) => known.clone(),
            None => {
                known.push(namespace.into());
                known.last()?.clone()
            }
        };
        names.push((Topic::new(namespace, &name).ok()?, fits(floor)?, fits(last)?));
    }
    let (mut before, mut latest) = (0, i64::MIN);
    for WrittenMessage { offset, topic, age, event, data } in messages {
        let (topic, ..) = names.get(topic as usize)?;
        if offset <= before || (event.as_ref().is_some_and(|event| check_name(event).is_err())) {
            return None;
        }
        before = fits(offset)?;
        // Of a time to come it would stay for ever, and all behind it.
        latest = latest.max(now.saturating_sub(age.max(0)));
        let message = Arc::new(Message::of_parts(event, data));
        log.put(topic, Stored { offset, time: latest, message });
    }
    for (topic, floor, last) in names {
        match log.topics.get_mut(&topic) {
            Some(kept) => (kept.floor, kept.last) = (floor, last.max(kept.last)),
            // It has neither messages nor subscribers: it is forgotten but for this.
            None => log.remember(topic.fingerprint(), floor),
        }
    }
    let mut used = Keys::default();
    for WrittenKey { key, hash, position: (epoch, offset), age } in keys {
        used.put(key, Used { hash, position: Position { epoch, offset }, time: now.saturating_sub(age.max(0)) });
    }
    Some((log, used))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Begin, Form, HubLimits, Joined, Key, Limits, Retention, Start, Subscription};

    fn hub(limits: Limits) -> Hub {
        let hub = Hub::new(9, HubLimits { log: limits, subscribers: 10 });
        hub.add_namespace(&"n".into(), Retention { retain: true, ..Retention::default() });
        hub.open();
        hub
    }

    fn topic(name: &str) -> Topic {
        Topic::new("n", name).expect("a topic")
    }

    fn full() -> Hub {
        let hub = hub(Limits::default());
        for number in 0..50_i64 {
            let message = Message::new(format!("message {number}")).with_event("e").expect("a name");
            let key = number.to_string();
            let key = Key { principal: "", key: &key };
            hub.publish(&topic(&format!("t{}", number % 7)), message, number * 20_000, Some(key)).expect("open");
        }
        hub.expire(1_000_000);
        hub.begin_epoch(10);
        hub
    }

    /// Everything from the beginning on, as a subscriber of all topics gets it.
    fn heard(hub: &Hub, from: Position) -> String {
        let topics = (0..7).map(|number| topic(&format!("t{number}"))).collect();
        let mut one = Subscription::new(hub, topics, Begin::From(from), Form::default()).expect("room");
        let (mut out, mut joined) = (Vec::new(), Joined::default());
        while one.pull(&mut joined).more {
            out.extend_from_slice(joined.bytes());
        }
        out.extend_from_slice(joined.bytes());
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_is_written_is_read() {
        let (first, other) = (full(), hub(Limits::default()));
        let written = first.write_down(1_000_000);
        other.read_from(&written, 5_000_000, 0).expect("what was written");
        assert_eq!(other.write_down(5_000_000).len(), written.len());
        for (epoch, offset) in [(10, 50), (9, 50), (9, 20), (9, 3), (9, 51), (8, 1)] {
            let from = Position { epoch, offset };
            assert_eq!(heard(&first, from), heard(&other, from), "{from}");
        }
        // A key that was used is used.
        let message = Message::new("message 49").with_event("e").expect("a name");
        let again =
            other.publish(&topic("t0"), message, 5_000_000, Some(Key { principal: "", key: "49" })).expect("open");
        assert!(again.repeated && again.position == Position { epoch: 9, offset: 50 });
    }

    #[test]
    fn who_has_less_room_keeps_the_youngest_and_says_what_is_missing() {
        let other = hub(Limits { memory: 1500, ..Limits::default() });
        other.read_from(&full().write_down(0), 0, 0).expect("what was written");
        assert!(other.bytes() <= 1500);
        assert!(heard(&other, Position { epoch: 9, offset: 0 }).contains("@gap"));
    }

    #[test]
    fn what_was_away_is_older() {
        let other = hub(Limits::default());
        other.read_from(&full().write_down(1_000_000), 0, 3_600_000).expect("what was written");
        let last = Subscription::new(&other, vec![topic("t1")], Begin::At(Start::Oldest), Form::default());
        let mut joined = Joined::default();
        last.expect("room").pull(&mut joined);
        // The last one is retained, and the others are too old.
        assert_eq!(String::from_utf8_lossy(joined.bytes()).matches("data: ").count(), 1);
    }

    #[test]
    fn what_nobody_wrote_is_refused_and_nothing_has_happened() {
        let written = full().write_down(1_000_000);
        let other = hub(Limits::default());
        for cut in 0..written.len() {
            assert!(other.read_from(&written[..cut], 0, 0).is_err(), "cut at {cut}");
        }
        assert_eq!(other.read_from(&[&written[..], b"x"].concat(), 0, 0), Err(BadWritten::Malformed));
        assert_eq!(other.read_from(&[3, 0], 0, 0), Err(BadWritten::Version(3)));
        assert_eq!(other.position(), Position { epoch: 9, offset: 0 });
        // Whatever a byte becomes, it is read or refused.
        for at in 0..written.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = written.clone();
                changed[at] = byte;
                let other = hub(Limits::default());
                let _ = other.read_from(&changed, 1_000_000, 0);
                heard(&other, Position { epoch: 9, offset: 3 });
            }
        }
    }

    /// What a file says that has the right form.
    fn written(change: impl FnOnce(&mut WrittenLog)) -> Vec<u8> {
        let whole = full().write_down(1_000_000);
        let mut written: WrittenLog = postcard::from_bytes(&whole[1..]).expect("what was written");
        change(&mut written);
        postcard::to_allocvec(&(VERSION, written)).expect("a list knows its length")
    }

    #[test]
    fn a_log_at_the_end_of_all_numbers_is_none() {
        let last = written(|log| log.next = u64::MAX);
        assert_eq!(hub(Limits::default()).read_from(&last, 0, 0), Err(BadWritten::Malformed));
    }

    #[test]
    fn nobody_goes_on_in_front_of_the_log_from_an_epoch_before() {
        let ahead = written(|log| log.lineage.push((8, 1000)));
        assert_eq!(hub(Limits::default()).read_from(&ahead, 0, 0), Err(BadWritten::Malformed));
    }

    #[test]
    fn a_message_of_a_time_to_come_is_of_now() {
        let future = written(|log| log.messages[0].age = i64::MIN);
        let other = hub(Limits::default());
        other.read_from(&future, 0, 0).expect("it has its form");
        other.expire(600_000);
        // What is retained of each topic, the first of them among the rest.
        assert_eq!(other.topics("n").iter().map(|topic| topic.info.messages).sum::<usize>(), 7);
    }
}
