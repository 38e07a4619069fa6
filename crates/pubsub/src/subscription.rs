//! A subscriber: topics and a cursor, and how it gets what lies behind that.

use crate::encoding;
use crate::hub::{Full, Hub, State};
use crate::log::{Log, MessageLog, Resume, Start, Stored};
use crate::{Position, Topic};
use http1::response::push_chunk_size;
use std::mem;
use std::ops::Deref;
use std::slice;
use std::str;
use std::sync::RwLockReadGuard;
use websocket::{Opcode, frame_header};

/// Messages that are joined at a time, and bytes, unless the first alone has more.
const MESSAGES: usize = 64;
const BYTES: usize = 64 << 10;

/// What a topic takes that nobody else subscribes to, besides its place here: in the log and in the index.
const TOPIC: usize = 320;

/// In which form messages leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// Each event is a chunk of its own (RFC 9112 §7.1).
    pub chunked: bool,
    /// The data of an event is the message as JSON; of a WebSocket each message is.
    pub json: bool,
    /// Heartbeats are events.
    pub beat: bool,
    /// It is a poll: one answer in JSON, and no events.
    pub poll: bool,
    /// Each message is one of a WebSocket. Without JSON it is the data alone, and of what is missing nothing is said:
    /// [`Pulled::gap`].
    pub websocket: bool,
    /// The same without a frame around it, for whoever makes his own: see [`Joined::texts`].
    pub bare: bool,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// There.
    At(Start),
    /// Where the client was, as it says.
    From(Position),
    /// Where the client was, which is none of ours.
    Unknown,
}

/// A subscriber. It is counted from the beginning, and told of news once it has entered the hub's index under its token.
pub struct Subscription {
    hub: Hub,
    topics: Topics,
    token: Option<usize>,
    /// Everything up to here was looked at.
    cursor: u64,
    /// Of what is gone it was told up to here.
    told: u64,
    form: Form,
    /// What is to be said before anything else.
    opening: Option<Box<Opening>>,
    /// Topics that were added when the log was further than the cursor, and where it was then: what they had before is not
    /// for this one.
    recent: Recent,
    /// Where its client was, in an epoch that the log may come to: mostly none.
    sought: Option<Box<Sought>>,
    /// Whether it is one of those of whom there may be so many; if not, whoever has it is.
    counted: bool,
}

/// A place in an epoch that the log may come to.
struct Sought {
    /// In which it was asked for, and until which look at the bus there is hope.
    asked_in: u64,
    until: u64,
    /// `None` for behind all that a log has that has read nothing of its bus yet.
    place: Option<Position>,
}

/// What has come of it.
enum Found {
    /// There is none, or it was found.
    All,
    /// Something may be missing.
    Missed,
    /// There is nothing to say yet but where its client is.
    Waits(Position),
}

impl Sought {
    fn end_of_first(state: &State) -> Option<Box<Sought>> {
        let is_cold = state.follower.as_ref().is_some_and(|follower| !follower.has_read);
        is_cold.then(|| Box::new(Sought { asked_in: state.log.epoch, until: 0, place: None }))
    }

    fn of(log: &mut Log, place: Position) -> Option<Box<Sought>> {
        if !log.may_come_to(place.epoch) {
            return None;
        }
        log.sought_until = log.looks + 2;
        Some(Box::new(Sought { asked_in: log.epoch, until: log.sought_until, place: Some(place) }))
    }
}

/// See [`Subscription`]; mostly there are none.
#[derive(Clone, Default)]
#[allow(clippy::box_collection, reason = "each subscriber has one, and mostly nothing in it")]
struct Recent(Option<Box<Vec<(Topic, u64)>>>);

impl Recent {
    fn all(&self) -> &[(Topic, u64)] {
        self.0.as_ref().map_or(&[], |all| all)
    }

    /// Up to where that topic's messages are not for this one.
    fn from(&self, topic: &Topic) -> u64 {
        self.all().iter().find(|(recent, _)| recent == topic).map_or(0, |(_, from)| *from)
    }

    fn add(&mut self, topic: Topic, from: u64) {
        self.0.get_or_insert_default().push((topic, from));
    }

    /// Forgets those to which that does not apply.
    fn keep(&mut self, applies: impl Fn(&Topic, u64) -> bool) {
        if let Some(all) = &mut self.0 {
            all.retain(|(topic, from)| applies(topic, *from));
            if all.is_empty() {
                self.0 = None;
            }
        }
    }
}

/// What it subscribes to: mostly one, which takes no room elsewhere.
#[derive(Clone)]
enum Topics {
    One(Topic),
    Many(Box<[Topic]>),
}

impl Topics {
    fn new(mut topics: Vec<Topic>) -> Topics {
        match topics.len() {
            1 => Topics::One(topics.remove(0)),
            _ => Topics::Many(topics.into()),
        }
    }
}

impl Deref for Topics {
    type Target = [Topic];

    fn deref(&self) -> &[Topic] {
        match self {
            Topics::One(topic) => slice::from_ref(topic),
            Topics::Many(topics) => topics,
        }
    }
}

/// How a stream begins.
struct Opening {
    /// Where the client was, if something is missing since then.
    gap: Option<Option<Position>>,
    /// The last messages of the topics.
    last: Vec<u64>,
}

/// A subscription as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Of all its topics.
    pub namespace: String,
    /// Their names.
    pub topics: Vec<String>,
    /// Everything up to here was looked at.
    pub cursor: u64,
    /// Of what is gone it was told up to here.
    pub told: u64,
    /// How its messages leave.
    pub form: Form,
    /// Of these topics nothing up to there is for it, although that is behind the cursor.
    pub recent: Vec<(String, u64)>,
}

/// What [`Subscription::pull`] has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulled {
    /// Whether there was anything.
    pub some: bool,
    /// Whether there may be more.
    pub more: bool,
    /// Something is missing of which its form cannot tell: its client has to be told otherwise. Nothing behind that was
    /// written.
    pub gap: bool,
    /// How many times something was missing, be it told or not.
    pub gaps: usize,
}

/// Where an event ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// So many bytes are before it and in it.
    pub at: usize,
    /// The cursor behind it.
    pub cursor: u64,
    /// How many messages it has: one, none if it only says where its reader stands, and an opening those that come with it.
    pub messages: u32,
}

/// What was joined for a subscriber. For the next one that stands where it stood it is the same, unless the hub has changed
/// since: of a topic with thousands of subscribers it is made once, and without another look at the hub.
#[derive(Default)]
pub struct Joined {
    bytes: Vec<u8>,
    ends: Vec<End>,
    pulled: Pulled,
    of: Option<Of>,
}

/// For whom something was joined.
struct Of {
    hub: Hub,
    version: u64,
    topic: Topic,
    form: Form,
    /// Cursor, and what it was told of, before and behind it.
    place: (u64, u64),
    reached: (u64, u64),
}

impl Joined {
    /// What was joined.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where in it each event ends; an opening and what belongs to it are one.
    pub fn ends(&self) -> &[End] {
        &self.ends
    }

    /// The messages, joined [`Form::bare`] and with no opening; what is no text is replaced, as on an event stream.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        let mut began = 0;
        self.ends.iter().map(move |end| {
            let message = &self.bytes[mem::replace(&mut began, end.at)..end.at];
            String::from_utf8_lossy(message).into_owned()
        })
    }

    /// Nothing was.
    pub fn clear(&mut self) {
        self.forget();
        self.pulled = Pulled::default();
    }

    fn forget(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.of = None;
    }

    /// Where that one stands behind this, if this is for it.
    fn reached_by(&self, one: &Subscription) -> Option<(u64, u64)> {
        let of = self.of.as_ref()?;
        let (Topics::One(topic), None, None, None) = (&one.topics, &one.opening, &one.recent.0, &one.sought) else {
            return None;
        };
        let is_for_it = of.place == (one.cursor, one.told)
            && of.form == one.form
            && of.topic.is(topic)
            && of.hub.is(&one.hub)
            // Last, so that whoever was woken by a change sees it.
            && of.version == of.hub.version();
        is_for_it.then_some(of.reached)
    }
}

impl Subscription {
    /// A subscriber of these topics, of which one is named once, and all are of one namespace.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn new(hub: &Hub, mut topics: Vec<Topic>, begin: Begin, form: Form) -> Result<Subscription, Full> {
        hub.count_in()?;
        topics.sort_unstable();
        topics.dedup();
        let mut state = hub.write();
        state.log.subscribe(&topics);
        let topics = Topics::new(topics.iter().map(|topic| state.log.shared(topic)).collect());
        let (mut last, mut sought) = (Vec::new(), None);
        if let Begin::From(position) = begin {
            sought = Sought::of(&mut state.log, position);
        }
        let log = &state.log;
        let (cursor, gap) = match begin {
            Begin::At(Start::Last) => {
                last = log.last(&topics);
                (log.position().offset, None)
            }
            Begin::At(start) => {
                sought = if start == Start::Now { Sought::end_of_first(&state) } else { None };
                (log.start(&topics, start), None)
            }
            Begin::From(position) => match log.resume(position, &topics) {
                Resume::Complete { cursor } => (cursor, None),
                // What is missing is said when it is known.
                Resume::Gap { cursor } => (cursor, sought.is_none().then_some(Some(position))),
            },
            Begin::Unknown => (log.start(&topics, Start::Oldest), Some(None)),
        };
        // What is gone before the beginning was told, or was never asked for.
        let told = log.floor(&topics);
        drop(state);
        let opening = Some(Box::new(Opening { gap, last }));
        let (recent, counted) = (Recent::default(), true);
        Ok(Subscription { hub: hub.clone(), topics, token: None, cursor, told, form, opening, recent, sought, counted })
    }

    /// A subscriber of what a topic has from now on, which is part of one that is counted. It has nothing to say at its
    /// beginning.
    pub(crate) fn part_of_another(hub: &Hub, topic: &Topic, form: Form) -> Subscription {
        let mut state = hub.write();
        state.log.subscribe(slice::from_ref(topic));
        let (topics, cursor) = (Topics::One(state.log.shared(topic)), state.log.position().offset);
        let sought = Sought::end_of_first(&state);
        drop(state);
        let (recent, counted) = (Recent::default(), false);
        Subscription {
            hub: hub.clone(),
            topics,
            token: None,
            cursor,
            told: cursor,
            form,
            opening: None,
            recent,
            sought,
            counted,
        }
    }

    /// Subscribes to another topic of its namespace: to what it has from now on. Answers whether it did not before.
    pub(crate) fn add(&mut self, topic: &Topic) -> bool {
        if self.topics.contains(topic) {
            return false;
        }
        let mut state = self.hub.write();
        state.log.subscribe(slice::from_ref(topic));
        let (topic, now) = (state.log.shared(topic), state.log.position().offset);
        if let Some(token) = self.token {
            state.enter(slice::from_ref(&topic), token);
        }
        drop(state);
        if now > self.cursor {
            self.recent.add(topic.clone(), now);
        }
        let mut topics = self.topics.to_vec();
        topics.push(topic);
        topics.sort_unstable();
        self.topics = Topics::new(topics);
        true
    }

    /// Hears no more of a topic. Answers whether it did; `false` as well for its last one, which only its end ends.
    pub(crate) fn remove(&mut self, topic: &Topic) -> bool {
        if self.topics.len() < 2 || !self.topics.contains(topic) {
            return false;
        }
        let mut state = self.hub.write();
        if let Some(token) = self.token {
            state.leave(slice::from_ref(topic), token);
        }
        state.log.unsubscribe(slice::from_ref(topic));
        drop(state);
        self.recent.keep(|recent, _| recent != topic);
        self.topics = Topics::new(self.topics.iter().filter(|one| *one != topic).cloned().collect());
        true
    }

    /// One that goes on as it was written down, whatever the limit. `None` where its namespace is no longer, or its topics
    /// are none.
    pub fn restore(hub: &Hub, saved: Saved) -> Option<Subscription> {
        let Saved { namespace, topics, cursor, told, form, recent } = saved;
        let topics = topics.iter().map(|name| Topic::new(namespace.as_str(), name).ok());
        let mut topics: Vec<Topic> = topics.collect::<Option<_>>()?;
        topics.sort_unstable();
        topics.dedup();
        if topics.is_empty() || !hub.has_namespace(&namespace) {
            return None;
        }
        hub.count_in_anyway();
        let mut state = hub.write();
        state.log.subscribe(&topics);
        let topics = Topics::new(topics.iter().map(|topic| state.log.shared(topic)).collect());
        drop(state);
        let mut one = Subscription {
            hub: hub.clone(),
            topics,
            token: None,
            cursor,
            told,
            form,
            opening: None,
            recent: Recent::default(),
            sought: None,
            counted: true,
        };
        for (name, from) in recent {
            let topic = one.topics.iter().find(|topic| topic.name() == name).cloned();
            topic.into_iter().for_each(|topic| one.recent.add(topic, from));
        }
        Some(one)
    }

    /// The same as part of one that is counted.
    pub(crate) fn into_part(mut self) -> Subscription {
        if mem::take(&mut self.counted) {
            self.hub.count_out();
        }
        self
    }

    /// What has to be known to go on elsewhere; `None` before anything was said.
    pub fn save(&self) -> Option<Saved> {
        self.has_begun().then(|| Saved {
            namespace: self.topics.first().map(|topic| topic.namespace().to_owned()).unwrap_or_default(),
            topics: self.topics.iter().map(|topic| topic.name().to_owned()).collect(),
            cursor: self.cursor,
            told: self.told,
            form: self.form,
            recent: self.recent.all().iter().map(|(topic, from)| (topic.name().to_owned(), *from)).collect(),
        })
    }

    /// From here on the hub's news name this token. Whoever does this looks at the log afterwards.
    pub fn enter(&mut self, token: usize) {
        let mut state = self.hub.write();
        if let Some(before) = self.token.replace(token) {
            state.leave(&self.topics, before);
        }
        state.enter(&self.topics, token);
    }

    /// News do not reach it any more, until it enters again.
    pub fn leave(&mut self) {
        if let Some(token) = self.token.take() {
            self.hub.write().leave(&self.topics, token);
        }
    }

    /// Whether news reach it.
    pub fn has_entered(&self) -> bool {
        self.token.is_some()
    }

    /// Under which name.
    pub fn token(&self) -> Option<usize> {
        self.token
    }

    /// How many topics.
    pub(crate) fn topics(&self) -> usize {
        self.topics.len()
    }

    pub(crate) fn listens_to(&self, topic: &Topic) -> bool {
        self.topics.contains(topic)
    }

    /// Everything up to here was looked at.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Whose it is.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// How its messages leave.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The same with events that are chunks, or are not.
    #[must_use]
    pub fn chunked(mut self, chunked: bool) -> Subscription {
        self.form.chunked = chunked;
        self
    }

    /// Whether its beginning was said: the opening, and what belongs to it.
    pub fn has_begun(&self) -> bool {
        self.opening.is_none()
    }

    /// Bytes that it keeps on the heap, with what the hub has because of it: who subscribes to topics of his own makes each
    /// of them exist.
    pub fn held(&self) -> usize {
        self.topics.len() * (size_of::<Topic>() + TOPIC)
    }

    /// Goes back to a cursor that [`Subscription::pull`] has noted: what was written behind it was not sent.
    pub fn go_back(&mut self, cursor: u64) {
        self.cursor = cursor;
    }

    /// Whether something lies behind the cursor, or is to be said.
    pub fn is_behind(&self) -> bool {
        let state = self.hub.read();
        let mut behind = has_missed(&state.log, &self.topics, (self.cursor, self.told), &self.recent)
            || state.log.hole_behind(self.cursor).is_some();
        state.log.visit(self.cursor, &self.topics, |topic, stored| {
            behind |= stored.offset > self.recent.from(topic);
            !behind
        });
        behind
    }

    /// What is next on an event stream: the opening, a gap, messages, as many as are joined at a time.
    pub fn pull(&mut self, joined: &mut Joined) -> Pulled {
        if let Some(reached) = joined.reached_by(self) {
            (self.cursor, self.told) = reached;
            self.hub.count_gaps(joined.pulled.gaps);
            return joined.pulled;
        }
        joined.forget();
        let (hub, place) = (self.hub.clone(), (self.cursor, self.told));
        let is_first = !self.has_begun() || self.recent.0.is_some() || self.sought.is_some();
        let state = hub.read();
        joined.pulled = self.join(&state.log, &mut joined.bytes, &mut joined.ends);
        if let (Topics::One(topic), false) = (&self.topics, is_first) {
            let (topic, form, reached) = (topic.clone(), self.form, (self.cursor, self.told));
            joined.of = Some(Of { version: hub.version(), topic, form, place, reached, hub: hub.clone() });
        }
        make_room(&hub, state);
        hub.count_gaps(joined.pulled.gaps);
        joined.pulled
    }

    /// The log may have come to the epoch from which its client came: what that has heard it does not hear again. Until it is
    /// known whether it does, it hears nothing: also what comes in the epoch before that it may have heard.
    fn find(&mut self, log: &Log) -> Found {
        let Some(sought) = self.sought.as_deref() else { return Found::All };
        let Some(place) = sought.place else {
            if sought.asked_in == log.epoch {
                return Found::All;
            }
            // What was there when it was first read came before, or meanwhile.
            self.cursor = self.cursor.max(log.joined);
            self.sought = None;
            return Found::Missed;
        };
        if log.may_come_to(place.epoch) && log.looks < sought.until {
            return Found::Waits(place);
        }
        self.sought = None;
        match log.resume(place, &self.topics) {
            Resume::Complete { cursor } => {
                self.cursor = cursor;
                Found::All
            }
            Resume::Gap { cursor } => {
                self.cursor = cursor;
                Found::Missed
            }
        }
    }

    /// Appends that, and notes where each event ends; the opening and what belongs to it are one.
    fn join(&mut self, log: &Log, out: &mut Vec<u8>, ends: &mut Vec<End>) -> Pulled {
        let may_have_missed = match self.find(log) {
            Found::All => false,
            Found::Missed => true,
            Found::Waits(place) => {
                let mut pulled = Pulled::default();
                if self.opening.take().is_some() {
                    push_opening(out, place, self.form);
                    ends.push(End { at: out.len(), cursor: self.cursor, messages: 0 });
                    pulled.some = !out.is_empty();
                }
                return pulled;
            }
        };
        let Subscription { topics, cursor, told, opening, recent, .. } = self;
        let (form, topics) = (self.form, &**topics);
        let mut pulled = Pulled::default();
        let end = |out: &Vec<u8>, cursor: u64, messages: u32| End { at: out.len(), cursor, messages };
        if let Some(Opening { gap, last }) = opening.take().map(|opening| *opening) {
            // Whoever hears no more than this has not heard the last messages either, and comes back for them.
            let at = last.first().map_or(*cursor, |first| first - 1);
            push_opening(out, log.at(at), form);
            if let Some(from) = gap {
                pulled.gaps += 1;
                pulled.gap = !push_gap(out, from, log.at(*cursor), form);
                if pulled.gap {
                    ends.push(end(out, *cursor, 0));
                    return pulled;
                }
            }
            let (began, mut messages) = (out.len(), 0);
            for (topic, stored) in last.iter().filter_map(|offset| log.get(*offset)) {
                let frame = frame(log, topic, stored, form);
                if out.len() > began && out.len() - began + frame.len() > BYTES {
                    // The others come as all that follows does, with what lies between them.
                    *cursor = stored.offset - 1;
                    pulled.more = true;
                    break;
                }
                messages += 1;
                push(out, frame, form);
            }
            ends.push(end(out, *cursor, messages));
            // A WebSocket of bare data says nothing.
            pulled.some = !out.is_empty();
            if pulled.more {
                return pulled;
            }
        }
        if may_have_missed || has_missed(log, topics, (*cursor, *told), recent) {
            let from = log.at(*cursor);
            *cursor = log.start(topics, Start::Oldest).max(*cursor);
            *told = log.floor(topics);
            pulled.gaps += 1;
            pulled.gap = !push_gap(out, Some(from), log.at(*cursor), form);
            if pulled.gap {
                return pulled;
            }
            ends.push(end(out, *cursor, 0));
            pulled.some = true;
        }
        let (mut messages, began) = (0, out.len());
        let hole = log.hole_behind(*cursor);
        let until = hole.unwrap_or(u64::MAX);
        let reached = log.visit(*cursor, topics, |topic, stored| {
            if stored.offset >= until {
                return false;
            }
            if stored.offset <= recent.from(topic) {
                return true;
            }
            let frame = frame(log, topic, stored, form);
            if messages == MESSAGES || (messages > 0 && out.len() - began + frame.len() > BYTES) {
                pulled.more = true;
                return false;
            }
            messages += 1;
            push(out, frame, form);
            ends.push(end(out, stored.offset, 1));
            true
        });
        *cursor = reached.min(until - 1);
        recent.keep(|_, from| from > *cursor);
        pulled.some |= messages > 0;
        if let Some(hole) = hole.filter(|_| !pulled.more) {
            let from = log.at(mem::replace(cursor, hole));
            pulled.gaps += 1;
            pulled.gap = !push_gap(out, Some(from), log.at(hole), form);
            if pulled.gap {
                return pulled;
            }
            ends.push(end(out, hole, 0));
            (pulled.some, pulled.more) = (true, true);
        }
        pulled
    }

    /// Where it is: where its client was, as long as the log may come to that.
    fn position(&self) -> Position {
        let place = self.sought.as_ref().and_then(|sought| sought.place);
        place.unwrap_or_else(|| self.hub.read().log.at(self.cursor))
    }

    /// Appends where it is, for a client that hears nothing else.
    pub fn push_heartbeat(&self, out: &mut Vec<u8>) {
        let position = self.position();
        let mut text = String::new();
        match self.form {
            Form { websocket: true, json: false, .. } => return,
            Form { websocket: true, .. } => encoding::place(&mut text, position),
            Form { beat: true, .. } => encoding::beat(&mut text, position),
            _ => encoding::heartbeat(&mut text, position),
        }
        push(out, text.as_bytes(), self.form);
    }

    /// Appends that the stream ends, and that its client is to come back after so many milliseconds.
    pub fn push_farewell(&self, out: &mut Vec<u8>, retry: u32) {
        push_farewell(out, retry, self.form.chunked);
    }

    /// The answer to a poll, if there is something to say; or in any case. And how many messages are in it.
    pub fn answer(&mut self, in_any_case: bool) -> Option<(Vec<u8>, usize)> {
        let hub = self.hub.clone();
        let state = hub.read();
        let log = &state.log;
        let may_have_missed = match self.find(log) {
            Found::All => false,
            Found::Missed => true,
            Found::Waits(place) => return in_any_case.then(|| (empty_answer(place, false), 0)),
        };
        let Subscription { topics, cursor, told, opening, .. } = self;
        let mut out = b"{\"messages\":[".to_vec();
        let (mut messages, began) = (0, out.len());
        let push = |out: &mut Vec<u8>, object: &[u8]| {
            if out.len() > began {
                out.push(b',');
            }
            out.extend_from_slice(object);
        };
        let mut gap = false;
        if let Some(Opening { gap: missing, last }) = opening.take().map(|opening| *opening) {
            gap = missing.is_some();
            for (topic, stored) in last.iter().filter_map(|offset| log.get(*offset)) {
                let object = object(log, topic, stored);
                if messages > 0 && out.len() - began + object.len() > BYTES {
                    // The others are in the next answer, with what lies between them.
                    *cursor = stored.offset - 1;
                    break;
                }
                messages += 1;
                push(&mut out, object);
            }
        }
        if may_have_missed || has_missed(log, topics, (*cursor, *told), &Recent::default()) {
            gap = true;
            *told = log.floor(topics);
        }
        // A hole ends the answer, unless it is the first that there is to say.
        loop {
            let hole = log.hole_behind(*cursor);
            let end = hole.unwrap_or(u64::MAX);
            let reached = log.visit(*cursor, topics, |topic, stored| {
                let object = object(log, topic, stored);
                let full = messages == MESSAGES || (messages > 0 && out.len() - began + object.len() > BYTES);
                if full || stored.offset >= end {
                    return false;
                }
                messages += 1;
                push(&mut out, object);
                true
            });
            *cursor = reached.min(end - 1);
            match hole {
                Some(hole) if messages == 0 => (*cursor, gap) = (hole, true),
                _ => break,
            }
        }
        if messages == 0 && !gap && !in_any_case {
            return None;
        }
        out.extend_from_slice(format!("],\"last\":\"{}\",\"gap\":{gap}}}\n", log.at(*cursor)).as_bytes());
        make_room(&hub, state);
        hub.count_gaps(usize::from(gap));
        Some((out, messages))
    }

    /// The answer to a poll that ends where nothing can be looked up any more: no messages, and where it was, so that its
    /// client misses nothing.
    pub fn empty_answer(&self) -> Vec<u8> {
        empty_answer(self.position(), false)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.hub.write();
        if let Some(token) = self.token {
            state.leave(&self.topics, token);
        }
        state.log.unsubscribe(&self.topics);
        drop(state);
        if self.counted {
            self.hub.count_out();
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.topics.iter().map(Topic::name).collect();
        write!(f, "Subscription({names:?} behind {}, {:?})", self.cursor, self.form)
    }
}

/// The answer to a poll whose hub is not here: no messages, and a position that is nobody's, so that its client hears of a
/// gap when it asks again.
pub fn lost_answer() -> Vec<u8> {
    empty_answer(Position { epoch: 0, offset: 0 }, true)
}

fn empty_answer(last: Position, gap: bool) -> Vec<u8> {
    format!("{{\"messages\":[],\"last\":\"{last}\",\"gap\":{gap}}}\n").into_bytes()
}

/// Appends the end of an event stream: its client is to come back after so many milliseconds.
pub fn push_farewell(out: &mut Vec<u8>, retry: u32, chunked: bool) {
    push(out, encoding::farewell(retry).as_bytes(), Form { chunked, ..Form::default() });
    if chunked {
        out.extend_from_slice(http1::response::LAST_CHUNK);
    }
}

/// Ends a look at the log, in which forms of messages may have been made: where these are more than there is room for, the
/// oldest messages go at once. Nobody may publish for a long time.
fn make_room(hub: &Hub, state: RwLockReadGuard<'_, State>) {
    let is_full = state.log.is_beyond_room();
    drop(state);
    if is_full {
        hub.write().log.make_room();
    }
}

/// Whether something is gone behind the cursor that it was not told of.
fn has_missed(log: &Log, topics: &[Topic], (cursor, told): (u64, u64), recent: &Recent) -> bool {
    let heard = cursor.max(told);
    match recent.all() {
        [] => log.floor(topics) > heard,
        _ => topics.iter().any(|topic| log.floor(slice::from_ref(topic)) > heard.max(recent.from(topic))),
    }
}

fn push_opening(out: &mut Vec<u8>, at: Position, form: Form) {
    let mut text = String::new();
    match form {
        Form { websocket: true, json: false, .. } => return,
        Form { websocket: true, .. } => encoding::place(&mut text, at),
        _ => encoding::opening(&mut text, at),
    }
    push(out, text.as_bytes(), form);
}

/// Appends that something is missing. Answers whether that can be said in this form.
fn push_gap(out: &mut Vec<u8>, from: Option<Position>, to: Position, form: Form) -> bool {
    let mut text = String::new();
    match form {
        Form { websocket: true, json: false, .. } => return false,
        Form { websocket: true, .. } => encoding::gap_object(&mut text, from, to),
        _ => encoding::gap(&mut text, from, to),
    }
    push(out, text.as_bytes(), form);
    true
}

fn push(out: &mut Vec<u8>, event: &[u8], form: Form) {
    if form.websocket && !form.bare {
        // Bytes that are no text cannot be said to be it (RFC 6455 §8.1).
        let opcode = if str::from_utf8(event).is_ok() { Opcode::Text } else { Opcode::Binary };
        out.extend_from_slice(&frame_header(opcode, false, event.len()));
    } else if form.chunked {
        push_chunk_size(out, event.len());
    }
    out.extend_from_slice(event);
    if form.chunked {
        out.extend_from_slice(b"\r\n");
    }
}

fn object<'l>(log: &Log, topic: &Topic, stored: &'l Stored) -> &'l [u8] {
    log.frame(stored, encoding::JSON, |_| encoding::json(log, topic, stored))
}

fn frame<'l>(log: &Log, topic: &Topic, stored: &'l Stored, form: Form) -> &'l [u8] {
    match form.json {
        _ if form.websocket && form.json => object(log, topic, stored),
        _ if form.websocket => stored.message.data(),
        false => log.frame(stored, encoding::EVENT, |message| encoding::event(log, stored, &encoding::text(message))),
        true => log.frame(stored, encoding::JSON_EVENT, |_| {
            let object = encoding::json(log, topic, stored);
            encoding::event(log, stored, &String::from_utf8_lossy(&object))
        }),
    }
}

#[cfg(test)]
mod tests;
