//! A log that follows a bus: another program gives the messages their order, for several hosts, and each host reads them into
//! its own log. So a position is good on every host.
//!
//! What publishes here is a [`Bus`], and what reads it says what it has read by [`Hub::follow`]. Where the bus is not the one
//! that was followed, or has lost something, [`Hub::rebase`] goes on with what it has.

use crate::hub::{Hub, Key, Phase, PublishError, State};
use crate::idempotency;
use crate::log::{FORGOTTEN, LINEAGE, Log, Stored};
use crate::ticket::{Outcome, Ticket};
use crate::{Message, Position, Topic};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Marks of the last messages that are kept, so that it can be found how far two histories are the same.
const MARKS: usize = 1024;
/// How far a position may be ahead of a log that follows: what another host has read already.
pub(crate) const AHEAD: u64 = 1 << 16;

/// What publications go through, instead of straight into the log.
pub trait Bus: Send + Sync {
    /// Takes a publication, without waiting for anything. What becomes of it is said to its ticket.
    fn publish(&self, publication: Publication);

    /// Whether messages go through it.
    fn is_up(&self) -> bool;

    /// What it says of itself.
    fn figures(&self) -> BusFigures;

    /// Its server ends.
    fn end(&self);
}

/// What a bus says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BusFigures {
    /// Whether it is as it should be.
    pub up: bool,
    /// How many messages it has that this host has not read.
    pub lag: u64,
    /// How many times it was connected to again.
    pub reconnects: u64,
    /// How many times it was not the one that was followed, or had lost something.
    pub losses: u64,
    /// How many subscribers each host has that has said lately that it is there.
    pub hosts: Vec<(String, u64)>,
}

/// Messages on their way to a bus: all of them, or none, and nothing of others between.
#[derive(Debug)]
pub struct Publication {
    /// Each with its topic.
    pub messages: Vec<(Topic, Message)>,
    /// Under which key, and a hash of all that is published under it.
    pub key: Option<(String, u64)>,
    /// What is told what became of it.
    pub ticket: Arc<Ticket>,
}

/// What a publication has come to when it was begun.
#[derive(Clone, Debug)]
pub enum Begun {
    /// Its end.
    Ended(Outcome),
    /// The bus has it.
    Waits(Arc<Ticket>),
}

/// A message that a bus has.
#[derive(Debug)]
pub struct Followed {
    /// Its place there.
    pub offset: u64,
    /// What it is about.
    pub topic: Topic,
    /// What it says.
    pub message: Message,
    /// When it was published, in this host's time.
    pub time: i64,
    /// Another number for each message, also where two have the same place.
    pub mark: u64,
}

/// What of a bus was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// How far: the position of the last message, which others may not have yet.
    pub position: Option<Position>,
    /// The marks of the last messages, by their offsets.
    pub marks: Vec<(u64, u64)>,
}

/// What a log goes on with.
#[derive(Debug)]
pub struct Rebase {
    /// The epoch of the bus.
    pub epoch: u64,
    /// Epochs before it, each with the last offset that is the same everywhere.
    pub lineage: Vec<Position>,
    /// What is known here up to there stays.
    pub keep: u64,
    /// Up to there something may be missing: who has not heard more is told.
    pub floor: u64,
    /// The last offset that was given out; what is published comes behind it.
    pub last: u64,
    /// Messages behind `keep`, in their order.
    pub messages: Vec<Followed>,
}

/// What a log knows of the bus that it follows.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    /// Whether it has read anything of it.
    pub(crate) has_read: bool,
    pub(crate) marks: VecDeque<(u64, u64)>,
}

impl Follower {
    fn mark(&mut self, offset: u64, mark: u64) {
        if self.marks.len() >= MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back((offset, mark));
    }
}

impl Hub {
    /// From here on publications go through that bus, and the log has what [`Hub::follow`] says.
    pub fn set_bus(&self, bus: Arc<dyn Bus>) {
        self.set_follows(true);
        *self.bus_slot() = Some(bus);
    }

    /// The log goes on as one that follows a bus, be it there already or not; or as one of its own.
    pub fn set_follows(&self, follows: bool) {
        let mut state = self.write();
        match follows {
            true => _ = state.follower.get_or_insert_default(),
            false => state.follower = None,
        }
        state.log.follows = follows;
    }

    /// Whether it has a bus that is down, or that has said nothing yet.
    pub fn is_cut_off(&self) -> bool {
        self.bus_slot().as_ref().is_some_and(|bus| !bus.is_up())
    }

    /// What its bus says of itself, if it has one.
    pub fn bus_figures(&self) -> Option<BusFigures> {
        let bus = self.bus_slot().clone()?;
        Some(bus.figures())
    }

    /// Its server ends: from here on it has no bus, and publishes nothing: in this log alone that would have the place of another.
    pub fn end_bus(&self) {
        let bus = self.bus_slot().take();
        if let Some(bus) = bus {
            bus.end();
            self.close();
        }
    }

    /// Whether it follows a bus.
    pub fn follows(&self) -> bool {
        self.read().follower.is_some()
    }

    /// Begins to publish all of them, or none. Without a bus that is all.
    pub fn begin_publishing(&self, messages: Vec<(Topic, Message)>, now: i64, key: Option<Key<'_>>) -> Begun {
        let bus = self.bus_slot().clone();
        match bus {
            None => Begun::Ended(self.publish_here(messages, now, key)),
            Some(bus) => match self.give(&*bus, messages, key) {
                Ok(begun) => begun,
                Err(error) => Begun::Ended(Err(error)),
            },
        }
    }

    /// Gives it to the bus, if this process is the one that publishes.
    pub(crate) fn give(
        &self,
        bus: &dyn Bus,
        messages: Vec<(Topic, Message)>,
        key: Option<Key<'_>>,
    ) -> Result<Begun, PublishError> {
        let most = match self.open_state() {
            Ok(state) => state.log.limits.message,
            Err(PublishError::HandedOver) => {
                return self.publish_elsewhere(messages, key).map(|it| Begun::Ended(Ok(it)));
            }
            Err(error) => return Err(error),
        };
        if messages.iter().any(|(_, message)| message.data().len() > most) {
            return Err(PublishError::TooLarge { most });
        }
        let key = key.and_then(|key| key.of(&messages));
        let ticket = Arc::new(Ticket::new(messages.iter().map(|(topic, _)| topic.clone()).collect()));
        bus.publish(Publication { messages, key, ticket: ticket.clone() });
        Ok(Begun::Waits(ticket))
    }

    /// How far the bus was read: the offset of the last message, 0 for nothing.
    pub fn heard(&self) -> u64 {
        let state = self.read();
        let has_read = state.follower.as_ref().is_some_and(|follower| follower.has_read);
        if has_read { state.log.position().offset } else { 0 }
    }

    /// What was read of the bus.
    pub fn has_read(&self) -> Read {
        let state = self.read();
        match &state.follower {
            Some(follower) if follower.has_read => {
                Read { position: Some(state.log.position()), marks: follower.marks.iter().copied().collect() }
            }
            _ => Read::default(),
        }
    }

    /// Whether this process reads the bus: another one does once it has the log, and nobody while that is written down.
    /// Waits for that to be over.
    pub fn may_follow(&self) -> bool {
        self.wait_until_thawed();
        *self.phase() != Phase::Gone
    }

    /// Waits until this process is the one that publishes, at most so long. Answers whether it is.
    pub fn wait_until_open(&self, most: Duration) -> bool {
        let waits = |phase: &mut Phase| *phase != Phase::Open;
        let waited = self.thawed().wait_timeout_while(self.phase(), most, waits);
        let (phase, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *phase == Phase::Open
    }

    /// Puts what was read behind what was read before. `false` if another process has the log.
    pub fn follow(&self, messages: Vec<Followed>, now: i64) -> bool {
        let Some(mut state) = self.following_state() else { return false };
        let mut marks = false;
        for message in messages {
            marks |= state.take(message, now);
        }
        state.log.make_room();
        drop(state);
        if marks {
            self.tell();
        }
        true
    }

    /// The bus is still in the epoch of this log. Who waits for another one waits in vain, after two of these: the first may have
    /// been under way when he came.
    pub fn confirm(&self) {
        let mut state = self.write();
        state.log.looks += 1;
        let waits = state.log.looks <= state.log.sought_until;
        if waits {
            state.mark_all();
        }
        drop(state);
        if waits {
            self.tell();
        }
    }

    /// Goes on with what the bus has. Everybody who listens looks at the log then. `false` if another process has it.
    pub fn rebase(&self, rebase: Rebase, now: i64) -> bool {
        let Some(mut state) = self.following_state() else { return false };
        let Rebase { epoch, lineage, keep, floor, last, messages } = rebase;
        state.log.go_on_in(epoch, lineage, keep);
        let follower = state.follower.get_or_insert_default();
        follower.has_read = true;
        follower.marks.retain(|(offset, _)| *offset <= keep);
        for message in messages {
            state.take(message, now);
        }
        state.log.raise_floors(floor);
        state.log.next = state.log.next.max(last + 1);
        state.log.joined = state.log.next - 1;
        state.log.make_room();
        state.mark_all();
        drop(state);
        self.tell();
        true
    }

    /// The log where this process reads into it: before it serves, and while it does.
    fn following_state(&self) -> Option<std::sync::RwLockWriteGuard<'_, State>> {
        loop {
            let state = self.write();
            match state.phase() {
                Phase::Before | Phase::Open => return Some(state),
                Phase::Gone => return None,
                Phase::Frozen => {}
            }
            drop(state);
            self.wait_until_thawed();
        }
    }
}

impl State {
    /// Puts a message into the log, and marks its topic. Answers whether it was not marked before.
    fn take(&mut self, message: Followed, now: i64) -> bool {
        let Followed { offset, topic, message, time, mark } = message;
        if offset < self.log.next {
            // It is here: a bus that has been asked again.
            return false;
        }
        let time = time.min(now);
        self.log.next = offset + 1;
        if self.log.put(&topic, Stored { offset, time, message: Arc::new(message) }) {
            self.log.trim(&topic, now);
        }
        if let Some(follower) = &mut self.follower {
            follower.mark(offset, mark);
        }
        self.mark(topic)
    }
}

impl Key<'_> {
    /// The key as a text that nobody else's is, and a hash of what is published under it. `None` for no message.
    pub(crate) fn of(self, messages: &[(Topic, Message)]) -> Option<(String, u64)> {
        let (first, _) = messages.first()?;
        let topic = if messages.len() == 1 { first.name() } else { "" };
        let key = [first.namespace(), self.principal, topic, self.key].join("\n");
        let said = messages.iter().flat_map(|(topic, message)| {
            [topic.name().as_bytes(), message.event().unwrap_or_default().as_bytes(), message.data()]
        });
        Some((key, idempotency::hash(said)))
    }
}

impl Log {
    /// From here on this is another's epoch: what is here up to there stays.
    fn go_on_in(&mut self, epoch: u64, lineage: Vec<Position>, keep: u64) {
        let gone: Vec<u64> = self.order.range(keep.saturating_add(1)..).map(|(offset, _)| *offset).collect();
        gone.into_iter().for_each(|offset| self.drop_message(offset));
        self.holes.retain(|hole| *hole <= keep);
        self.next = self.next.min(keep.saturating_add(1));
        if self.epoch != epoch {
            self.epoch = epoch;
            self.lineage = lineage.into();
            while self.lineage.len() > LINEAGE {
                self.lineage.pop_front();
            }
        }
    }

    /// Of each topic something may be missing up to there.
    fn raise_floors(&mut self, floor: u64) {
        self.topics.values_mut().for_each(|kept| kept.floor = kept.floor.max(floor));
        self.forgotten_floor = self.forgotten_floor.max(floor);
        self.forgotten.retain(|_, own| *own > floor);
        debug_assert!(self.forgotten.len() <= FORGOTTEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Begin, Form, HubLimits, Joined, Limits, Retention, Start, Subscription};
    use std::sync::Mutex;

    #[derive(Default)]
    struct Kept(Mutex<Vec<Publication>>);

    impl Bus for Kept {
        fn publish(&self, publication: Publication) {
            self.0.lock().expect("whole").push(publication);
        }

        fn is_up(&self) -> bool {
            true
        }

        fn figures(&self) -> BusFigures {
            BusFigures::default()
        }

        fn end(&self) {}
    }

    fn hub() -> Hub {
        let hub = Hub::new(7, HubLimits { log: Limits::default(), subscribers: 10 });
        hub.add_namespace(&"n".into(), Retention::default());
        hub.set_follows(true);
        hub.open();
        hub
    }

    fn topic(name: &str) -> Topic {
        Topic::new("n", name).expect("a topic")
    }

    fn message(offset: u64, text: &str) -> Followed {
        Followed { offset, topic: topic("a"), message: Message::new(text), time: 0, mark: offset * 10 }
    }

    fn rebase(epoch: u64, messages: Vec<Followed>) -> Rebase {
        let last = messages.last().map_or(0, |message| message.offset);
        Rebase { epoch, lineage: Vec::new(), keep: 0, floor: 0, last, messages }
    }

    fn subscribe(hub: &Hub, begin: Begin) -> Subscription {
        Subscription::new(hub, vec![topic("a")], begin, Form::default()).expect("room")
    }

    fn from(epoch: u64, offset: u64) -> Begin {
        Begin::From(Position { epoch, offset })
    }

    fn hears(one: &mut Subscription) -> String {
        let (mut heard, mut joined) = (String::new(), Joined::default());
        loop {
            let pulled = one.pull(&mut joined);
            heard.push_str(std::str::from_utf8(joined.bytes()).expect("text"));
            if !pulled.more {
                return heard;
            }
        }
    }

    fn data(heard: &str) -> Vec<&str> {
        heard.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| !data.starts_with('{')).collect()
    }

    #[test]
    fn what_is_published_has_its_place_when_it_has_come_back() {
        let (hub, bus) = (hub(), Arc::new(Kept::default()));
        hub.set_bus(bus.clone());
        hub.rebase(rebase(9, Vec::new()), 0);
        let mut one = subscribe(&hub, Begin::At(Start::Now));
        one.enter(3);
        hears(&mut one);
        let key = Key { principal: "p", key: "k" };
        let begun = hub.begin_publishing(vec![(topic("a"), Message::new("x"))], 0, Some(key));
        let Begun::Waits(ticket) = begun else { panic!("{begun:?}") };
        assert!(ticket.outcome().is_none() && hears(&mut one).is_empty());
        let given = bus.0.lock().expect("whole").pop().expect("a publication");
        assert_eq!(given.key.as_ref().map(|(key, _)| key.as_str()), Some("n\np\na\nk"));
        assert!(hub.follow(vec![message(41, "x")], 0));
        given.ticket.published(&hub, Position { epoch: 9, offset: 41 }, false);
        let published = ticket.wait(std::time::Duration::ZERO).expect("published");
        assert_eq!((published.position, published.subscribers), (Position { epoch: 9, offset: 41 }, 1));
        let mut woken = Vec::new();
        hub.take_news(|token| woken.push(token));
        assert_eq!(woken, [3]);
        assert_eq!(data(&hears(&mut one)), ["x"]);
        let large = hub.begin_publishing(vec![(topic("a"), Message::new(vec![b'x'; 70_000]))], 0, None);
        assert!(matches!(large, Begun::Ended(Err(PublishError::TooLarge { .. }))), "{large:?}");
        // Asked again, a bus says what it has said.
        assert!(hub.follow(vec![message(41, "x"), message(42, "y")], 0));
        assert_eq!(data(&hears(&mut one)), ["y"]);
    }

    #[test]
    fn who_has_heard_more_elsewhere_waits_here() {
        let hub = hub();
        hub.rebase(rebase(9, vec![message(1, "one")]), 0);
        let mut ahead = subscribe(&hub, from(9, 3));
        assert!(!hears(&mut ahead).contains("@gap"));
        hub.follow(vec![message(2, "two"), message(3, "three")], 0);
        assert!(hears(&mut ahead).is_empty());
        hub.follow(vec![message(4, "four")], 0);
        assert_eq!(data(&hears(&mut ahead)), ["four"]);
        // Nobody has read so much more.
        assert!(hears(&mut subscribe(&hub, from(9, 4 + AHEAD + 1))).contains("@gap"));
        let mut strange = subscribe(&hub, from(8, 2));
        strange.enter(1);
        for known in [false, false, true] {
            assert_eq!(hears(&mut strange).contains("@gap"), known, "another epoch");
            hub.confirm();
        }
        assert!(hub.has_news());
    }

    #[test]
    fn a_cold_host_has_the_tail_and_says_what_is_before() {
        let hub = hub();
        let tail = Rebase { floor: 10, ..rebase(9, vec![message(11, "eleven"), message(12, "twelve")]) };
        hub.rebase(tail, 0);
        assert_eq!(data(&hears(&mut subscribe(&hub, from(9, 11)))), ["twelve"]);
        let heard = hears(&mut subscribe(&hub, from(9, 10)));
        assert!(!heard.contains("@gap") && data(&heard) == ["eleven", "twelve"], "{heard}");
        let heard = hears(&mut subscribe(&hub, from(9, 9)));
        assert!(heard.contains("@gap") && data(&heard) == ["eleven", "twelve"], "{heard}");
    }

    /// A replica without the last writes has become the master: what was heard of those is nobody's, and others have their
    /// places.
    #[test]
    fn what_the_bus_has_lost_is_dropped_and_everybody_is_told() {
        let hub = hub();
        hub.rebase(rebase(9, (1..=5).map(|at| message(at, &format!("old {at}"))).collect()), 0);
        let mut live = subscribe(&hub, Begin::At(Start::Now));
        live.enter(1);
        hears(&mut live);
        let (lineage, keep) = (vec![Position { epoch: 9, offset: 3 }], 3);
        let behind = Rebase { lineage, keep, floor: 1000, last: 1000, ..rebase(10, vec![message(4, "new 4")]) };
        hub.rebase(behind, 0);
        assert!(hub.has_news());
        let heard = hears(&mut live);
        assert!(heard.contains("@gap") && data(&heard).is_empty(), "{heard}");
        hub.follow(vec![message(1001, "next")], 0);
        assert_eq!(data(&hears(&mut live)), ["next"]);
        // Who comes back is told, and hears nothing twice.
        let heard = hears(&mut subscribe(&hub, from(9, 2)));
        assert!(heard.contains("@gap") && data(&heard) == ["old 3", "new 4", "next"], "{heard}");
        // It may be the other history of which it has heard five.
        let heard = hears(&mut subscribe(&hub, from(9, 5)));
        assert!(heard.contains("@gap") && data(&heard) == ["next"], "{heard}");
        let heard = hears(&mut subscribe(&hub, from(10, 1000)));
        assert!(!heard.contains("@gap") && data(&heard) == ["next"], "{heard}");
    }

    /// One has lost something and goes on; this one has not read of that yet.
    #[test]
    fn who_comes_from_an_epoch_that_is_not_known_here_yet_hears_nothing_twice() {
        let hub = hub();
        hub.rebase(rebase(9, vec![message(1, "one"), message(2, "two")]), 0);
        let mut back = subscribe(&hub, from(10, 1001));
        back.enter(1);
        let heard = hears(&mut back);
        assert!(heard.contains("id: 10-1001\n") && !heard.contains("@gap"), "{heard}");
        // What was here before that epoch it may have heard as well.
        hub.follow(vec![message(3, "three")], 0);
        assert!(data(&hears(&mut back)).is_empty());
        let there = Rebase { keep: 2, floor: 1000, ..rebase(10, vec![message(1001, "heard"), message(1002, "new")]) };
        hub.rebase(there, 0);
        assert_eq!(data(&hears(&mut back)), ["new"]);
        hub.follow(vec![message(1003, "next")], 0);
        assert_eq!(data(&hears(&mut back)), ["next"]);
    }

    #[test]
    fn who_comes_before_anything_was_read_hears_what_comes_then() {
        let hub = hub();
        let mut new = subscribe(&hub, Begin::At(Start::Now));
        let mut back = subscribe(&hub, from(9, 1));
        let mut strange = subscribe(&hub, from(8, 5));
        let mut all = subscribe(&hub, Begin::At(Start::Oldest));
        for one in [&mut new, &mut back, &mut strange, &mut all] {
            hears(one);
        }
        hub.rebase(rebase(9, vec![message(1, "one"), message(2, "two")]), 0);
        hub.follow(vec![message(3, "three")], 0);
        // Of two nobody knows whether it came before or meanwhile.
        let heard = hears(&mut new);
        assert!(heard.contains("@gap") && data(&heard) == ["three"], "{heard}");
        assert!(hears(&mut strange).is_empty());
        (0..2).for_each(|_| hub.confirm());
        assert!(hears(&mut strange).contains("@gap"));
        hub.follow(vec![message(4, "four")], 0);
        assert_eq!(data(&hears(&mut strange)), ["four"]);
        let heard = hears(&mut back);
        assert!(!heard.contains("@gap") && data(&heard) == ["two", "three", "four"], "{heard}");
        assert_eq!(data(&hears(&mut all)), ["one", "two", "three", "four"]);
    }

    #[test]
    fn nothing_is_published_beside_a_bus_that_has_ended() {
        let (hub, bus) = (hub(), Arc::new(Kept::default()));
        hub.set_bus(bus);
        hub.end_bus();
        assert_eq!(hub.publish(&topic("a"), Message::new("x"), 0, None), Err(PublishError::NotServing));
        assert_eq!(hub.position().offset, 0);
    }

    #[test]
    fn a_successor_knows_what_was_read() {
        let (first, second) = (hub(), hub());
        first.rebase(rebase(9, vec![message(1, "one"), message(2, "two")]), 0);
        assert_eq!(second.read_from(&first.write_down(0), 0, 0), Ok(false));
        assert_eq!(second.has_read(), first.has_read());
        let position = Some(Position { epoch: 9, offset: 2 });
        assert_eq!(second.has_read(), Read { position, marks: vec![(1, 10), (2, 20)] });
        assert_eq!((second.heard(), hub().heard()), (2, 0));
        assert!(!hears(&mut subscribe(&second, from(9, 3))).contains("@gap"));
        // Who follows no more must not go on in an epoch in which others do.
        let alone = Hub::new(1, HubLimits { log: Limits::default(), subscribers: 10 });
        assert_eq!(alone.read_from(&first.write_down(0), 0, 0), Ok(true));
        // One that has read nothing yet is like any other.
        let third = hub();
        assert_eq!(third.read_from(&hub().write_down(0), 0, 0), Ok(false));
        assert_eq!(third.has_read(), Read::default());
    }

    #[test]
    fn nobody_reads_while_the_log_is_written_down() {
        let hub = hub();
        hub.freeze();
        let reads = {
            let hub = hub.clone();
            std::thread::spawn(move || hub.follow(vec![message(1, "x")], 0))
        };
        assert_eq!(hub.position().offset, 0);
        hub.hand_over();
        assert!(!reads.join().expect("its answer") && hub.position().offset == 0);
        assert!(!hub.may_follow() && !hub.wait_until_open(Duration::ZERO) && !hub.rebase(rebase(9, Vec::new()), 0));
    }
}
