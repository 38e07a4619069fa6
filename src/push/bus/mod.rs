//! The bus between several hosts: a stream in one Redis, which gives messages their order and keeps them, and of which each
//! host's log is a follower.
//!
//! One thread writes and ticks, one reads. A publication is sent by the one, and has its answer when the other has read it
//! back: so what is published is in the log here as well, and in one order everywhere. No request waits on a thread of its
//! own for that (`engine/connection/awaiting.rs`).
//!
//! - `scripts.lua` is what Redis does for all of us, each call in one step.
//! - `redis` is one connection, and what is said on it.
//! - `writer` publishes, and says once a second that this host is there.
//! - `reader` follows, and finds out when the stream is not the one that was followed.

mod reader;
mod redis;
mod writer;

use super::hub::new_epoch;
use crate::config::{BusConfig, BusDown, BusUrl, Config};
use crate::sys::regular_file;
use crossbeam_channel::{Sender, TrySendError, bounded};
use portable_atomic::AtomicU64;
use pubsub::{Bus as PubsubBus, BusFigures, Hub, Message, Position, Publication, PublishError, Ticket, Topic};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Publications that wait for the writer at a time, and bytes of data in them.
const WAITING: usize = 10_000;
const WAITING_BYTES: usize = 16 << 20;
/// Between two attempts: twice as long each time, and somewhere between half of that and all.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// What has worked for so long has worked.
const WORKS: Duration = Duration::from_secs(5);
/// How long a start waits for the first word of it.
const START_PATIENCE: Duration = Duration::from_secs(2);
/// Until it is looked again whether the log is this process's.
const POLL: Duration = Duration::from_millis(100);
/// A host that has not ticked for so long is none.
const LIFETIME: Duration = Duration::from_secs(5);
/// The longest file with a password that is read.
const LONGEST_PASSWORD: u64 = 4096;

/// What it is told.
#[derive(Clone, Debug)]
pub struct Settings {
    url: BusUrl,
    password: Option<String>,
    prefix: String,
    max_length: usize,
    down: BusDown,
    /// Bytes of messages that the log keeps.
    memory: usize,
    host: String,
}

impl Settings {
    /// From a configuration that has one; `None` without.
    ///
    /// # Errors
    /// A password that cannot be read, in a line.
    pub fn of(config: &Config) -> Result<Option<Settings>, String> {
        let BusConfig { url, max_length, down, password_file, .. } = &config.push.bus;
        let Some(url) = url.clone() else { return Ok(None) };
        let password = password_file.as_deref().map(read_password).transpose()?;
        let memory = config.push.room(config.memory);
        // The same through reloads, so that no host is counted twice.
        let addresses = config.addresses().map_err(|error| error.to_string())?;
        let address = addresses.first().map_or_else(String::new, ToString::to_string);
        let host = format!("{} {address}", rustix::system::uname().nodename().to_string_lossy());
        // Where the kernel has chosen the port, nothing else tells two of this machine apart.
        let host = if address.ends_with(":0") { format!("{host} {}", std::process::id()) } else { host };
        let (max_length, down) = (*max_length, *down);
        Ok(Some(Settings {
            url,
            password,
            prefix: config.push.bus.prefix().to_owned(),
            max_length,
            down,
            memory,
            host,
        }))
    }

    /// Messages go through it from here on. `alone`: there is no predecessor, so the log is read before anybody comes for it, if
    /// the bus is there.
    pub fn start(self, hub: &Hub, alone: bool) {
        let bus = Bus::start(self, hub, alone);
        if alone {
            bus.wait_for_first_word();
        }
    }

    /// Connects, and asks how it stands: for a check.
    ///
    /// # Errors
    /// Why it does not, in a line.
    pub fn try_out(&self) -> Result<String, String> {
        let mut link = redis::Link::open(self).map_err(redis::Failure::reason)?;
        let standing = link.look(0).map_err(redis::Failure::reason)?;
        link.read_behind(standing.offset, false).map_err(redis::Failure::reason)?;
        Ok(match &*standing.epoch {
            "" => "answers, and nothing was published".into(),
            epoch => format!("answers, and stands at {epoch}-{}", standing.offset),
        })
    }
}

fn read_password(path: &Path) -> Result<String, String> {
    let cannot = |what: &str| format!("cannot read the password of the bus in {path:?}: {what}");
    let bytes = regular_file::read(path, LONGEST_PASSWORD, "it is not a regular file", "it has more than 4 KiB")
        .map_err(|what| cannot(&what))?;
    let text = String::from_utf8(bytes).map_err(|_| cannot("it is not UTF-8"))?;
    let password = text.lines().next().unwrap_or_default();
    match password {
        "" => Err(cannot("its first line is empty")),
        password => Ok(password.to_owned()),
    }
}

/// A bus of a hub. See the module.
pub struct Bus {
    settings: Settings,
    hub: Hub,
    outgoing: Sender<Outgoing>,
    /// Bytes of data that wait for the writer.
    waiting_bytes: AtomicUsize,
    standing: Mutex<Standing>,
    /// Told of each change of that.
    changed: Condvar,
    /// Publications that are in the stream, by the offset of their last message, until they have come back.
    unread: Mutex<Unread>,
    /// Whether its server has ended.
    over: AtomicBool,
    /// For marks of messages, each another one.
    marks: AtomicU64,
    figures: Figures,
}

/// How long to wait before the next attempt: also where one connects, and is refused then.
#[derive(Default)]
struct Attempts {
    last: Option<(Instant, Duration)>,
}

impl Attempts {
    /// Whether there is nothing to say before the next attempt has failed as well: what has worked for long has ended, as a
    /// connection does that somebody else closes.
    fn may_be_silent(&self, failure: &redis::Failure) -> bool {
        let is_long = self.last.is_none_or(|(began, _)| began.elapsed() >= WORKS);
        is_long && matches!(failure, redis::Failure::Broken(_))
    }

    fn wait(&mut self) {
        let now = Instant::now();
        let pause = match self.last {
            Some((began, pause)) if now.duration_since(began) < WORKS => pause,
            _ => Duration::ZERO,
        };
        // So that those of many hosts do not come together.
        let part = 500 + new_epoch() % 500;
        thread::sleep(pause * u32::try_from(part).unwrap_or(1000) / 1000);
        self.last = Some((Instant::now(), (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)));
    }
}

/// A publication on its way.
pub struct Outgoing {
    pub messages: Vec<(Topic, Message, bool, u64)>,
    pub key: Option<(String, u64)>,
    pub ticket: Arc<Ticket>,
    pub bytes: usize,
}

/// Where a publication is, and whether it was there before it was asked for.
struct OnItsWay {
    ticket: Arc<Ticket>,
    position: Position,
    repeated: bool,
}

#[derive(Default)]
struct Unread {
    /// How far the log has come, and in which epoch.
    read: Option<Position>,
    tickets: BTreeMap<u64, Vec<OnItsWay>>,
}

/// What was last known of both connections.
#[derive(Default)]
struct Standing {
    writer: Side,
    reader: Side,
    /// What the log has been told of.
    up: Option<bool>,
    /// What the last tick said: the epoch, how far it is, and of whom.
    remote: Option<redis::Ticked>,
}

#[derive(Default)]
enum Side {
    #[default]
    NotYet,
    Up,
    Down(String),
}

/// What is counted.
#[derive(Default)]
struct Figures {
    connections: AtomicU64,
    epochs: AtomicU64,
}

impl Bus {
    /// Begins: it connects, and follows as soon as this process is the one that has the log. `alone` says that it is already.
    fn start(settings: Settings, hub: &Hub, alone: bool) -> Arc<Bus> {
        let (outgoing, publications) = bounded(WAITING);
        let bus = Arc::new(Bus {
            settings,
            hub: hub.clone(),
            outgoing,
            waiting_bytes: AtomicUsize::new(0),
            standing: Mutex::default(),
            changed: Condvar::new(),
            unread: Mutex::default(),
            over: AtomicBool::new(false),
            marks: AtomicU64::new(new_epoch() << 16),
            figures: Figures::default(),
        });
        hub.set_bus(bus.clone());
        bus.spawn("bus-writer", move |bus| writer::run(bus, &publications, alone));
        bus.spawn("bus-reader", move |bus| reader::run(bus, alone));
        bus
    }

    fn spawn(self: &Arc<Bus>, name: &str, run: impl FnOnce(&Bus) + Send + 'static) {
        let bus = self.clone();
        let spawned = thread::Builder::new().name(name.into()).stack_size(256 << 10).spawn(move || run(&bus));
        if let Err(error) = spawned {
            log::error!("bus: no thread for it: {error}");
            let down = || Side::Down("there is no thread for it".into());
            self.set(|standing| (standing.writer, standing.reader) = (down(), down()));
        }
    }

    /// Waits until it is up, or known to be down, for a while at most.
    fn wait_for_first_word(&self) {
        let undecided = |standing: &mut Standing| standing.up.is_none();
        drop(self.changed.wait_timeout_while(self.standing(), START_PATIENCE, undecided));
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        // Nothing panics half-way while it is held.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has changed, of which the log gets a line if it is up now and was not, or the other way round.
    fn set(&self, change: impl FnOnce(&mut Standing)) {
        let mut standing = self.standing();
        change(&mut standing);
        let up = match (&standing.writer, &standing.reader) {
            (Side::Up, Side::Up) => Some(true),
            (Side::Down(_), _) | (_, Side::Down(_)) => Some(false),
            _ => standing.up,
        };
        if up != standing.up {
            match (up, &standing.writer, &standing.reader) {
                (Some(true), ..) => log::info!("bus: connected to {}", self.settings.url),
                (Some(false), Side::Down(reason), _) | (Some(false), _, Side::Down(reason)) => {
                    let become_of = match self.settings.down {
                        BusDown::Refuse => "are refused until it is back",
                        BusDown::Wait => "wait a while for it",
                    };
                    log::warn!("bus: down: {reason}; subscribers stay, and publications {become_of}");
                }
                _ => {}
            }
            standing.up = up;
        }
        drop(standing);
        self.changed.notify_all();
    }

    /// A connection, as soon as there is one; `None` when the server has ended.
    fn connect(&self, attempts: &mut Attempts, down: impl Fn(&mut Standing, String)) -> Option<redis::Link> {
        while !self.is_over() {
            attempts.wait();
            match redis::Link::open(&self.settings) {
                Ok(link) => {
                    self.figures.connections.fetch_add(1, Ordering::Relaxed);
                    return Some(link);
                }
                Err(failure) => self.set(|standing| down(standing, failure.reason())),
            }
        }
        None
    }

    /// Says that this host is there, and begins an epoch where there is none.
    fn tick(&self, link: &mut redis::Link) -> Result<redis::Ticked, redis::Failure> {
        link.tick(new_epoch(), self.hub.heard(), &self.settings.host, self.hub.subscribers(), LIFETIME)
    }

    /// It is in the stream. Whoever waits for it is told when it has come back.
    fn placed(&self, ticket: &Arc<Ticket>, position: Position, repeated: bool) {
        let mut unread = self.unread();
        let is_here = unread.read.is_some_and(|read| read.epoch == position.epoch && read.offset >= position.offset);
        // What was published in an epoch before has been read, or is known to be lost.
        let comes = !repeated || unread.read.is_some_and(|read| read.epoch == position.epoch);
        if !is_here && comes && self.hub.may_follow() {
            unread.tickets.entry(position.offset).or_default().push(OnItsWay {
                ticket: ticket.clone(),
                position,
                repeated,
            });
            return;
        }
        drop(unread);
        ticket.published(&self.hub, position, repeated);
    }

    /// The log has come so far.
    fn has_read(&self, read: Position) {
        let mut unread = self.unread();
        let same = unread.read.is_none_or(|before| before.epoch == read.epoch);
        unread.read = Some(read);
        let later = unread.tickets.split_off(&(read.offset + 1));
        let mut ends = std::mem::replace(&mut unread.tickets, later);
        if !same {
            // Of an epoch that is over nobody knows which of them are still there.
            let over = |tickets: &mut Vec<OnItsWay>| tickets.iter().any(|one| one.position.epoch != read.epoch);
            let offsets: Vec<u64> =
                unread.tickets.iter_mut().filter_map(|(offset, tickets)| over(tickets).then_some(*offset)).collect();
            ends.extend(offsets.into_iter().filter_map(|offset| unread.tickets.remove_entry(&offset)));
        }
        drop(unread);
        for OnItsWay { ticket, position, repeated } in ends.into_values().flatten() {
            match position.epoch == read.epoch {
                true => ticket.published(&self.hub, position, repeated),
                false => ticket.end(Err(PublishError::Unanswered)),
            }
        }
    }

    /// Another process has the log: what is in the stream is read there.
    fn is_read_elsewhere(&self) {
        let tickets = std::mem::take(&mut self.unread().tickets);
        for OnItsWay { ticket, position, repeated } in tickets.into_values().flatten() {
            ticket.published(&self.hub, position, repeated);
        }
    }

    /// Whether this process is the one that speaks for its host.
    fn is_ours(&self, alone: bool) -> bool {
        self.hub.wait_until_open(Duration::ZERO) || alone && self.hub.may_follow()
    }

    /// Waits until it is, unless the server has ended.
    fn wait_until_ours(&self, alone: bool) {
        while !self.is_ours(alone) && !self.is_over() {
            self.hub.wait_until_open(POLL);
        }
    }

    fn marks(&self, many: u64) -> u64 {
        self.marks.fetch_add(many, Ordering::Relaxed)
    }
}

impl PubsubBus for Bus {
    fn publish(&self, Publication { messages, key, ticket }: Publication) {
        let refuses = self.settings.down == BusDown::Refuse && self.standing().up == Some(false);
        let bytes = messages.iter().map(|(_, message)| message.data().len() + 64).sum();
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::AcqRel);
        let give_back = || self.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
        if refuses || (waiting > 0 && waiting + bytes > WAITING_BYTES) {
            give_back();
            return ticket.end(Err(PublishError::Unavailable));
        }
        let marks = self.marks(messages.len() as u64);
        let messages = messages.into_iter().zip(marks..).map(|((topic, message), mark)| {
            let retain = self.hub.retention(topic.namespace()).retain;
            (topic, message, retain, mark)
        });
        let outgoing = Outgoing { messages: messages.collect(), key, ticket, bytes };
        if let Err(TrySendError::Full(outgoing) | TrySendError::Disconnected(outgoing)) =
            self.outgoing.try_send(outgoing)
        {
            give_back();
            outgoing.ticket.end(Err(PublishError::Unavailable));
        }
    }

    fn is_up(&self) -> bool {
        self.standing().up == Some(true)
    }

    fn figures(&self) -> BusFigures {
        let standing = self.standing();
        let (up, remote) = (standing.up == Some(true), standing.remote.clone());
        drop(standing);
        let read = self.hub.position();
        let lag = remote.as_ref().filter(|remote| remote.epoch == read.epoch);
        BusFigures {
            up,
            lag: lag.map_or(0, |remote| remote.offset.saturating_sub(read.offset)),
            // The first of each of the two is none.
            reconnects: self.figures.connections.load(Ordering::Relaxed).saturating_sub(2),
            losses: self.figures.epochs.load(Ordering::Relaxed),
            hosts: remote.map_or_else(Vec::new, |remote| remote.hosts),
        }
    }

    fn end(&self) {
        self.over.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
