use super::*;
use std::collections::BTreeSet;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn topic(number: u64) -> Topic {
    Topic::new("n", &format!("t{number}")).expect("a topic")
}

fn log_with(epoch: u64, limits: Limits, retention: Retention) -> Log {
    let mut log = Log::new(epoch, limits);
    log.set_retention("n", retention);
    log
}

fn offsets(batch: &Batch) -> Vec<u64> {
    batch.messages.iter().map(|delivery| delivery.offset).collect()
}

/// All behind a cursor, in batches of any size.
fn all_after(log: &Log, mut cursor: u64, topics: &[Topic], random: &mut Random) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let (most, bytes) = (1 + random.below(9) as usize, 1 + random.below(200) as usize);
        let batch = log.after(cursor, topics, most, bytes);
        assert!(batch.messages.len() <= most && batch.cursor >= cursor);
        all.extend(offsets(&batch));
        if batch.messages.is_empty() {
            assert_eq!(batch.cursor, log.position().offset);
            return all;
        }
        cursor = batch.cursor;
    }
}

/// What was published, and what was heard, whatever is dropped in between: complete, or a gap that was said, and no gap that
/// is none.
#[test]
fn who_comes_back_hears_everything_or_is_told_of_a_gap() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let limits = Limits { memory: [1200, 6000, 1 << 20][random.below(3) as usize], message: 300 };
        let retention = Retention {
            history: [1, 5, 1000][random.below(3) as usize],
            age: [20_000, 1 << 40][random.below(2) as usize],
            retain: random.below(2) == 0,
        };
        let mut log = log_with(seed, limits, retention);
        let mut published: Vec<(u64, Topic)> = Vec::new();
        // Places of subscribers that have gone, and may come back.
        let mut left: Vec<(Position, Vec<Topic>)> = Vec::new();
        let mut now = 0;
        for step in 0..400 {
            now += [0, 1, 5000, 30_000][random.below(4) as usize];
            match random.below(6) {
                0..3 => {
                    let topic = topic(random.below(6));
                    let data = vec![b'x'; random.below(120) as usize];
                    let position = log.append(&topic, Message::new(data), now).expect("small enough");
                    assert_eq!(position.offset, published.len() as u64 + 1);
                    published.push((position.offset, topic));
                }
                3 => log.expire(now),
                4 => {
                    let topics: Vec<Topic> = (0..1 + random.below(3)).map(|_| topic(random.below(6))).collect();
                    left.push((log.at(random.below(log.next)), topics));
                }
                _ if left.is_empty() => {}
                _ => {
                    let (position, topics) = &left[random.below(left.len() as u64) as usize];
                    if random.below(2) == 0 {
                        log.subscribe(topics);
                    }
                    let wanted: Vec<u64> = published
                        .iter()
                        .filter(|(offset, topic)| *offset > position.offset && topics.contains(topic))
                        .map(|(offset, _)| *offset)
                        .collect();
                    let kept = |offset: &u64| log.order.contains_key(offset);
                    match log.resume(*position, topics) {
                        Resume::Complete { cursor } => {
                            assert_eq!(cursor, position.offset);
                            assert_eq!(
                                all_after(&log, cursor, topics, &mut random),
                                wanted,
                                "seed {seed}, step {step}"
                            );
                        }
                        Resume::Gap { cursor } => {
                            assert!(!wanted.iter().all(kept), "seed {seed}, step {step}: a gap that is none");
                            let there: Vec<u64> = wanted.iter().copied().filter(|offset| kept(offset)).collect();
                            assert_eq!(all_after(&log, cursor, topics, &mut random), there, "seed {seed}, step {step}");
                        }
                    }
                }
            }
            check(&log);
        }
    }
}

/// What holds at each moment.
fn check(log: &Log) {
    let stored = || log.topics.values().flat_map(|kept| &kept.messages);
    let with_messages = log.topics.iter().filter(|(_, kept)| !kept.messages.is_empty());
    let bytes = stored().map(|stored| stored.message.bytes() + ENTRY).sum::<usize>()
        + with_messages.map(|(topic, _)| TOPIC + topic.bytes()).sum::<usize>();
    let frames: usize = stored().map(|stored| stored.message.frame_bytes()).sum();
    assert_eq!((bytes, frames), (log.bytes, log.frames.load(Ordering::Relaxed)));
    let of_topics: BTreeSet<u64> = stored().map(|stored| stored.offset).collect();
    assert_eq!(of_topics, log.order.keys().copied().collect());
    for (topic, kept) in &log.topics {
        let last = kept.messages.back().map_or(0, |last| last.offset);
        assert!(kept.messages.iter().map(|stored| stored.offset).is_sorted() && last <= kept.last);
        assert!(!kept.messages.is_empty() || kept.subscribers > 0, "{topic:?} is remembered for nothing");
    }
}

#[test]
fn another_epoch_knows_of_the_one_before_as_much_as_there_was() {
    let (mut log, news) = (Log::new(1, Limits::default()), topic(0));
    let topics = [news.clone()];
    for _ in 0..3 {
        log.append(&news, Message::new("x"), 0).expect("small");
    }
    log.begin_epoch(2);
    log.append(&news, Message::new("y"), 0).expect("small");
    let at = |epoch, offset| log.resume(Position { epoch, offset }, &topics);
    assert_eq!(at(1, 3), Resume::Complete { cursor: 3 });
    // Of what another published behind that in the old epoch nobody here knows; what was before it was heard.
    assert_eq!(at(1, 4), Resume::Gap { cursor: 3 });
    assert_eq!(at(2, 4), Resume::Complete { cursor: 4 });
    assert_eq!(at(2, 5), Resume::Gap { cursor: 0 });
    assert_eq!(at(3, 1), Resume::Gap { cursor: 0 });
    for epoch in 3..100 {
        log.begin_epoch(epoch);
    }
    assert_eq!(log.resume(Position { epoch: 1, offset: 3 }, &topics), Resume::Gap { cursor: 0 }, "long ago");
}

/// What another has published was acknowledged, and is nowhere.
#[test]
fn another_epoch_behind_what_is_gone_has_a_hole() {
    let (mut log, news) = (Log::new(1, Limits::default()), topic(0));
    let topics = [news.clone()];
    for _ in 0..3 {
        log.append(&news, Message::new("x"), 0).expect("small");
    }
    log.begin_epoch_behind_a_hole(2);
    let at = |log: &Log, epoch, offset| log.resume(Position { epoch, offset }, &topics);
    assert_eq!((at(&log, 1, 3), log.hole_behind(3)), (Resume::Complete { cursor: 3 }, Some(4)));
    // Who had heard of it is told at once, and not again where the hole is.
    assert_eq!((at(&log, 1, 4), at(&log, 1, 9)), (Resume::Gap { cursor: 4 }, Resume::Gap { cursor: 4 }));
    assert_eq!((log.hole_behind(4), log.position()), (None, Position { epoch: 2, offset: 4 }));
    assert_eq!(log.start(&topics, Start::Now), 4, "who comes now");
    log.append(&news, Message::new("y"), 0).expect("small");
    assert_eq!(at(&log, 2, 4), Resume::Complete { cursor: 4 });
    // Those that are not remembered one by one are said as what is dropped is.
    for epoch in 3..3 + LINEAGE as u64 {
        log.begin_epoch_behind_a_hole(epoch);
    }
    assert_eq!((log.hole_behind(0), log.floor(&topics), log.floor(&[topic(1)])), (Some(6), 4, 4));
}

#[test]
fn what_is_young_is_no_history_to_drop() {
    let retention = Retention { history: 2, ..Retention::default() };
    let (mut log, news) = (log_with(1, Limits::default(), retention), topic(0));
    let info = |log: &Log| log.topic(&news).expect("it exists").messages;
    for time in 0..50 {
        log.append(&news, Message::new("x"), time).expect("small");
    }
    assert_eq!(info(&log), 50, "none is ten seconds old");
    log.append(&news, Message::new("x"), 20_000).expect("small");
    assert_eq!(info(&log), 2);
}

#[test]
fn what_is_retained_stays_whatever_its_age_and_goes_for_want_of_room() {
    let retention = Retention { retain: true, history: 1, age: 1000 };
    let (mut log, sensor) = (log_with(1, Limits::default(), retention), topic(0));
    log.append(&sensor, Message::new("20"), 0).expect("small");
    log.append(&sensor, Message::new("21"), 1).expect("small");
    log.expire(1_000_000);
    let last = log.last(std::slice::from_ref(&sensor));
    assert_eq!((&last[..], log.get(2).map(|(_, stored)| stored.message.data())), (&[2][..], Some(&b"21"[..])));
    log.limits.memory = 1;
    log.append(&topic(1), Message::new("x"), 1_000_000).expect("small");
    assert_eq!(log.topic(&sensor), None);
    assert_eq!(log.resume(log.at(1), &[sensor]), Resume::Gap { cursor: 3 });
}

#[test]
fn a_topic_that_is_forgotten_and_has_dropped_nothing_makes_no_gap() {
    let mut log = Log::new(1, Limits::default());
    let (quiet, loud) = (topic(0), topic(1));
    log.subscribe(std::slice::from_ref(&quiet));
    let left = log.position();
    log.unsubscribe(std::slice::from_ref(&quiet));
    assert_eq!(log.topic(&quiet), None);
    log.append(&loud, Message::new("x"), 0).expect("small");
    assert_eq!(log.resume(left, &[quiet]), Resume::Complete { cursor: 0 });
}

#[test]
fn more_forgotten_topics_than_are_remembered_share_a_floor() {
    let retention = Retention { age: 10, ..Retention::default() };
    let mut log = log_with(1, Limits::default(), retention);
    let count = FORGOTTEN as u64 + 50;
    for number in 0..count {
        log.append(&topic(number), Message::new("x"), 0).expect("small");
    }
    log.expire(100);
    assert!(log.topics.is_empty() && log.order.is_empty() && log.forgotten.len() <= FORGOTTEN);
    for number in [0, count - 1] {
        assert!(matches!(log.resume(log.at(0), &[topic(number)]), Resume::Gap { .. }));
        assert_eq!(log.resume(log.position(), &[topic(number)]), Resume::Complete { cursor: count });
    }
}

#[test]
fn a_topic_that_was_never_published_to_makes_no_gap_whatever_was_forgotten_before() {
    let retention = Retention { age: 10, ..Retention::default() };
    let mut log = log_with(1, Limits::default(), retention);
    let publish = |log: &mut Log, from: u64, now: i64| {
        (from..from + 2 * FORGOTTEN as u64).for_each(|number| {
            log.append(&topic(number), Message::new("x"), now).expect("small");
        });
        let left = log.position();
        log.expire(now + 100);
        left
    };
    let early = publish(&mut log, 1, 0);
    let later = publish(&mut log, 100_000, 1000);
    assert_eq!(log.resume(later, &[topic(0)]), Resume::Complete { cursor: later.offset });
    // Of this nobody knows any more.
    assert!(matches!(log.resume(log.at(early.offset / 2), &[topic(0)]), Resume::Gap { .. }));
    log.append(&topic(999_999), Message::new("x"), 2000).expect("small");
    log.expire(3000);
    assert_eq!(log.resume(later, &[topic(0)]), Resume::Complete { cursor: later.offset });
}

#[test]
fn what_is_retained_stays_where_no_history_is_kept() {
    let mut log = log_with(1, Limits::default(), Retention { history: 0, retain: true, ..Retention::default() });
    log.append(&topic(0), Message::new("x"), 0).expect("small");
    log.trim(&topic(0), YOUNG);
    log.expire(1_000_000);
    assert_eq!(log.topic(&topic(0)).map(|info| info.messages), Some(1));
    log.append(&topic(0), Message::new("y"), 2_000_000).expect("small");
    assert_eq!(log.topic(&topic(0)).map(|info| info.messages), Some(1));
}

/// Who listens keeps a topic there, and nothing else counts the places of messages that are gone.
#[test]
fn a_topic_has_no_room_for_a_flood_that_is_over() {
    let mut log = Log::new(1, Limits { memory: 1 << 20, ..Limits::default() });
    log.subscribe(&[topic(0)]);
    (0..10_000).for_each(|_| _ = log.append(&topic(0), Message::new(""), 0).expect("small"));
    (0..10_000).for_each(|_| _ = log.append(&topic(1), Message::new(""), 0).expect("small"));
    assert_eq!(log.topic(&topic(0)).map(|info| info.messages), Some(0));
    assert!(log.topics[&topic(0)].messages.capacity() <= PLACES);
}

#[test]
fn a_message_that_is_too_large_is_refused_and_nothing_has_happened() {
    let mut log = Log::new(1, Limits { message: 3, ..Limits::default() });
    let error = log.append(&topic(0), Message::new("four"), 0).expect_err("too large");
    assert_eq!(error.to_string(), "a message has at most 3 bytes");
    assert_eq!((log.position().offset, log.topic(&topic(0))), (0, None));
}
