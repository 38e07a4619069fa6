//! Thousands of subscribers on one thread, each of which checks what it gets.

use crate::description::Description;
use crate::message::{Message, now};
use crate::publisher::Complete;
use crate::stream::{Seen, Stream};
use crate::tally::{Counts, Tally};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

struct Subscriber {
    socket: Option<OwnedFd>,
    /// The request is written when the connection is there.
    asked: bool,
    opened: bool,
    stream: Stream,
    tally: Tally,
    last: u64,
    widest: u64,
    latest: u64,
}

/// Deliveries that belong to all subscribers of topic 0, for a publisher that waits for them.
pub struct Watched {
    pub complete: Arc<Complete>,
    pub publisher: Option<Thread>,
    /// How many have to get each, and how many have got it, by its number.
    members: u32,
    got: Vec<u32>,
    whole: u64,
}

impl Watched {
    pub fn new(members: usize) -> Watched {
        let complete = Arc::default();
        Watched { complete, publisher: None, members: members as u32, got: Vec::new(), whole: 0 }
    }

    fn got(&mut self, sequence: u64) {
        let index = sequence as usize;
        if self.got.len() <= index {
            self.got.resize(index + 64, 0);
        }
        self.got[index] += 1;
        if sequence != self.whole + 1 || self.got[index] < self.members {
            return;
        }
        while self.got.get(self.whole as usize + 1) == Some(&self.members) {
            self.whole += 1;
        }
        self.complete.say(self.whole, self.publisher.as_ref());
    }
}

pub struct Subscribers<'a> {
    description: &'a Description,
    poller: OwnedFd,
    events: Vec<epoll::Event>,
    input: Vec<u8>,
    all: Vec<Subscriber>,
    sources: u8,
    /// Sets these apart from others of the same process, for `{number}`.
    set: usize,
    retry: Duration,
    /// Who comes back, and when.
    returning: VecDeque<(Instant, usize)>,
    pub opened: usize,
    pub counts: Counts,
    pub reconnects: u64,
    pub strange: u64,
    pub first_strange: Option<String>,
    /// Microseconds from publish to delivery, in the order of delivery.
    pub latencies: Vec<u32>,
    pub last_delivery: u64,
    pub watched: Option<Watched>,
    /// How long it lets more come where there is little, so that a server does not pay for waking it for each delivery.
    pub nap: Duration,
    /// Each says its next message when it has heard the last, which it has to get back.
    pub answers: bool,
    /// How many messages each has said.
    pub said: Vec<u64>,
    pub pongs: usize,
    frame: Vec<u8>,
    /// Whoever loses its connection comes back; else that is counted, and it stays away.
    pub return_when_lost: bool,
}

static SETS: AtomicUsize = AtomicUsize::new(0);

/// Fewer events than this are little.
const FEW: usize = 64;

impl<'a> Subscribers<'a> {
    pub fn new(
        description: &'a Description,
        number: usize,
        sources: u8,
        topic: impl Fn(usize) -> u32,
    ) -> io::Result<Self> {
        let one = |number| Subscriber {
            socket: None,
            asked: false,
            opened: false,
            stream: Stream::new(description.format),
            tally: Tally::new(topic(number)),
            last: 0,
            widest: 0,
            latest: 0,
        };
        Ok(Subscribers {
            description,
            poller: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(256),
            input: vec![0; 256 * 1024],
            all: (0..number).map(one).collect(),
            sources,
            set: SETS.fetch_add(1, Ordering::Relaxed),
            retry: Duration::from_millis(description.retry),
            returning: VecDeque::new(),
            opened: 0,
            counts: Counts::default(),
            reconnects: 0,
            strange: 0,
            first_strange: None,
            latencies: Vec::new(),
            last_delivery: 0,
            watched: None,
            nap: Duration::ZERO,
            answers: false,
            said: vec![0; number],
            pongs: 0,
            frame: Vec::new(),
            return_when_lost: false,
        })
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// All of them; an error where they are not there in time.
    pub fn connect(&mut self, patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        let mut begun = 0;
        while self.opened < self.all.len() {
            while begun < self.all.len() && begun - self.opened < self.description.connecting {
                self.begin(begun)?;
                begun += 1;
            }
            self.turn(Duration::from_millis(100))?;
            if Instant::now() > until || self.reconnects > 0 {
                let (there, of, lost) = (self.opened, self.all.len(), self.reconnects);
                let why = self.first_strange.as_deref().unwrap_or("nothing strange was said");
                return Err(io::Error::other(format!(
                    "{there} of {of} subscribers are there, {lost} were lost; {why}"
                )));
            }
        }
        Ok(())
    }

    fn begin(&mut self, number: usize) -> io::Result<()> {
        let socket = net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?;
        let source = Ipv4Addr::new(127, 0, 0, 2 + (number % usize::from(self.sources)) as u8);
        net::bind(&socket, &SocketAddrV4::new(source, 0))?;
        let connected = net::connect(&socket, &self.description.address);
        let subscriber = &mut self.all[number];
        (subscriber.asked, subscriber.opened) = (false, false);
        subscriber.stream.again();
        let flags = match connected {
            Ok(()) => EventFlags::IN,
            Err(Errno::INPROGRESS) => EventFlags::OUT,
            Err(error) => return self.lost(number, &error.to_string()),
        };
        epoll::add(&self.poller, &socket, EventData::new_u64(number as u64), flags)?;
        subscriber.socket = Some(socket);
        if flags == EventFlags::IN { self.ask(number) } else { Ok(()) }
    }

    fn ask(&mut self, number: usize) -> io::Result<()> {
        let subscriber = &mut self.all[number];
        let request = self.description.subscription(
            self.set * 1_000_000 + number,
            subscriber.tally.topic(),
            subscriber.stream.id(),
        );
        let Some(socket) = &subscriber.socket else { return Ok(()) };
        subscriber.asked = true;
        match net::send(socket, &request, net::SendFlags::NOSIGNAL) {
            Ok(sent) if sent == request.len() => Ok(()),
            Ok(_) => self.lost(number, "half a request was taken"),
            Err(error) => self.lost(number, &error.to_string()),
        }
    }

    fn lost(&mut self, number: usize, why: &str) -> io::Result<()> {
        let subscriber = &mut self.all[number];
        subscriber.socket = None;
        if subscriber.opened {
            self.opened -= 1;
            subscriber.opened = false;
        }
        self.reconnects += 1;
        self.first_strange.get_or_insert_with(|| why.to_owned());
        if self.return_when_lost {
            self.returning.push_back((Instant::now() + self.retry, number));
        }
        Ok(())
    }

    /// One look at what has come, waiting for it at most that long.
    pub fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        while let Some(&(when, number)) = self.returning.front() {
            if when > Instant::now() {
                break;
            }
            self.returning.pop_front();
            self.begin(number)?;
        }
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let timeout =
            rustix::time::Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        match epoll::wait(&self.poller, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if events.len() < FEW && !self.nap.is_zero() && !events.is_empty() {
            std::thread::sleep(self.nap);
            events.clear();
            epoll::wait(&self.poller, spare_capacity(&mut events), Some(&rustix::time::Timespec::default()))?;
        }
        for event in &events {
            self.ready(event.data.u64() as usize)?;
        }
        self.events = events;
        Ok(())
    }

    fn ready(&mut self, number: usize) -> io::Result<()> {
        let subscriber = &mut self.all[number];
        let Some(socket) = &subscriber.socket else { return Ok(()) };
        if !subscriber.asked {
            if let Err(error) = net::sockopt::socket_error(socket)? {
                return self.lost(number, &error.to_string());
            }
            epoll::modify(&self.poller, socket, EventData::new_u64(number as u64), EventFlags::IN)?;
            return self.ask(number);
        }
        let read = match net::recv(socket, &mut self.input, net::RecvFlags::empty()) {
            Ok((0, _)) => return self.lost(number, "the server closed"),
            Ok((read, _)) => read,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return self.lost(number, &error.to_string()),
        };
        let time = now();
        let (mut ended, mut pong, before) = (false, Vec::new(), self.counts.deliveries);
        let Subscriber { stream, tally, opened, last, widest, latest, .. } = subscriber;
        stream.take(&self.input[..read], &mut |seen| match seen {
            Seen::Message(message) => {
                if !tally.message(&message, &mut self.counts) {
                    return;
                }
                let waited = time.saturating_sub(message.nanos);
                self.latencies.push((waited / 1000).min(u32::MAX.into()) as u32);
                if *last > 0 {
                    *widest = (*widest).max(time - *last);
                }
                *latest = (*latest).max(waited);
                *last = time;
                self.last_delivery = time;
                if let Some(watched) = &mut self.watched {
                    watched.got(message.sequence);
                }
            }
            Seen::Opened => {
                *opened = true;
                self.opened += 1;
            }
            Seen::Gap => tally.gap(&mut self.counts),
            Seen::Retry(millis) => self.retry = Duration::from_millis(millis),
            Seen::Ping(payload) => pong = payload.to_vec(),
            Seen::Pong => self.pongs += 1,
            Seen::Strange(what) => {
                self.strange += 1;
                self.first_strange.get_or_insert_with(|| String::from_utf8_lossy(what).into_owned());
            }
            Seen::Ended => ended = true,
        });
        if !pong.is_empty() || ended {
            return self.reply(number, &pong, ended);
        }
        if self.answers && self.counts.deliveries > before { self.say(number) } else { Ok(()) }
    }

    /// One says its next message.
    pub fn say(&mut self, number: usize) -> io::Result<()> {
        let subscriber = &self.all[number];
        let Some(socket) = &subscriber.socket else { return Ok(()) };
        self.said[number] += 1;
        self.frame.clear();
        let message = Message { topic: subscriber.tally.topic(), sequence: self.said[number], nanos: now() };
        message.write_frame(self.description.size, &mut self.frame);
        match net::send(socket, &self.frame, net::SendFlags::NOSIGNAL) {
            Ok(sent) if sent == self.frame.len() => Ok(()),
            Ok(_) => self.lost(number, "half a frame was taken"),
            Err(error) => self.lost(number, &error.to_string()),
        }
    }

    /// Asks each whether the server still has it; who does not answer is missing.
    pub fn ping_all(&mut self, silence: Duration) -> io::Result<()> {
        self.pongs = 0;
        for number in 0..self.all.len() {
            let Some(socket) = &self.all[number].socket else { continue };
            if let Err(error) = net::send(socket, &[0x89, 0x80, 0, 0, 0, 0], net::SendFlags::NOSIGNAL) {
                self.lost(number, &error.to_string())?;
            }
        }
        let (mut before, mut since) = (0, Instant::now());
        while self.pongs < self.all.len() && since.elapsed() < silence {
            self.turn(Duration::from_millis(10))?;
            if self.pongs != before {
                (before, since) = (self.pongs, Instant::now());
            }
        }
        self.counts.missing += self.all.len().saturating_sub(self.pongs) as u64;
        Ok(())
    }

    /// A pong, masked with zeros; after a close its own, and the end.
    fn reply(&mut self, number: usize, pong: &[u8], ended: bool) -> io::Result<()> {
        if ended {
            return self.lost(number, "the server ended the stream");
        }
        let Some(socket) = &self.all[number].socket else { return Ok(()) };
        let frame = [&[0x8a, 0x80 | pong.len() as u8, 0, 0, 0, 0], pong].concat();
        match net::send(socket, &frame, net::SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(error) => self.lost(number, &error.to_string()),
        }
    }

    pub fn turns_for(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left.min(Duration::from_millis(100)))?;
        }
    }

    /// Until everybody has what was published, or nothing more has come for `silence`.
    pub fn drain(&mut self, published: &[u64], silence: Duration) -> io::Result<()> {
        let expected: u64 = self.all.iter().map(|one| published[one.tally.topic() as usize]).sum();
        let mut since = Instant::now();
        let mut before = self.counts.deliveries;
        while self.counts.deliveries + self.counts.gapped < expected && since.elapsed() < silence {
            self.turn(Duration::from_millis(10))?;
            if self.counts.deliveries != before {
                (before, since) = (self.counts.deliveries, Instant::now());
            }
        }
        Ok(())
    }

    /// What was published and has not come is missing.
    pub fn finish(&mut self, published: &[u64]) {
        for one in &self.all {
            one.tally.end(published[one.tally.topic() as usize], &mut self.counts);
        }
    }

    /// The widest gap between two deliveries of each subscriber of a topic, and the longest way of each message of all.
    pub fn pauses(&self, topic: u32) -> (Vec<u64>, Vec<u64>) {
        let of = self.all.iter().filter(|one| one.tally.topic() == topic);
        (of.map(|one| one.widest).collect(), self.all.iter().map(|one| one.latest).collect())
    }

    /// Forgets what pauses there were, for the next reload.
    pub fn forget_pauses(&mut self) {
        for one in &mut self.all {
            (one.widest, one.latest) = (0, 0);
        }
    }
}
