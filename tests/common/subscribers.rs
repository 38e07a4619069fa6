//! The oracle: subscribers that hold every message of their topics against what was published, all of them in one thread,
//! and publishers that never try anything twice.
//!
//! A message is `TOPIC PUBLISHER NUMBER TIME` and some bytes more; each publisher numbers those of each topic from 1 on. So
//! a subscriber knows of each message whether one is missing before it, and whether it was there already.

use super::{PATIENCE, RawClient};
use handover::Bound;
use rustix::event::{Timespec, epoll};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Who listens to what, and how much is published.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Every fifth of them by HTTP/1.0. Three of forty have several topics and stop reading now and then.
    pub streams: usize,
    pub polls: usize,
    pub topics: usize,
    pub publishers: usize,
    /// Messages a second, of all publishers together.
    pub rate: usize,
    /// Bytes of every sixteenth message; the others have a hundred.
    pub large: usize,
    /// For how long those stop reading that do.
    pub pause: Duration,
}

/// Of a topic what one publisher publishes.
type Row = (usize, usize);

/// What was published.
#[derive(Debug, Default)]
pub struct Published {
    /// The last number of each row.
    pub last: BTreeMap<Row, u64>,
    /// Messages.
    pub messages: usize,
    /// What had another answer than 200, or none.
    pub failures: Vec<String>,
    /// The longest wait for an answer.
    pub slowest: Duration,
}

/// What all subscribers heard together.
#[derive(Debug, Default)]
pub struct Heard {
    pub messages: usize,
    pub missing: usize,
    pub twice: usize,
    /// Gaps that were said.
    pub gaps: usize,
    /// Connections that ended.
    pub reconnects: usize,
    /// Anything else; the first few.
    pub wrong: Vec<String>,
    /// The longest time from a publication to one that does not stop reading.
    pub slowest: Duration,
}

impl Published {
    #[track_caller]
    pub fn expect_no_failure(&self) {
        let first = &self.failures[..self.failures.len().min(3)];
        assert!(first.is_empty(), "{} of {} failed: {first:?}", self.failures.len(), self.messages);
    }
}

impl Heard {
    /// As if there had been no reload.
    #[track_caller]
    pub fn expect_nothing_noticed(&self) {
        let counts = (self.missing, self.twice, self.gaps, self.reconnects);
        assert!(
            counts == (0, 0, 0, 0) && self.wrong.is_empty(),
            "(missing, twice, gaps, reconnects) are {counts:?}: {self:#?}"
        );
    }
}

fn now() -> Duration {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed()
}

/// Messages of which nobody knows whether they were published.
type Uncertain = Arc<Mutex<BTreeSet<(Row, u64)>>>;

/// Threads that publish over connections that stay.
pub struct Publishers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Published>>,
}

impl Publishers {
    /// `subscribers` are told of what is uncertain.
    pub fn start(bound: &[Bound], plan: &Plan, subscribers: &Subscribers) -> Publishers {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..plan.publishers).map(|number| {
            let (stop, answered, plan) = (stop.clone(), answered.clone(), plan.clone());
            let (bound, uncertain) = (bound[number % bound.len()].clone(), subscribers.uncertain.clone());
            thread::spawn(move || publish(number, &bound, &plan, &stop, &answered, &uncertain))
        });
        let threads = threads.collect();
        Publishers { stop, answered, threads }
    }

    /// Waits until that many more have been answered.
    #[track_caller]
    pub fn go_on_for(&self, messages: usize) {
        let before = self.answered.load(Ordering::Relaxed);
        super::eventually("they publish on", || self.answered.load(Ordering::Relaxed) >= before + messages);
    }

    pub fn stop(self) -> Published {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Published::default();
        for thread in self.threads {
            let one = thread.join().expect("a publisher");
            all.last.extend(one.last);
            all.messages += one.messages;
            all.failures.extend(one.failures);
            all.slowest = all.slowest.max(one.slowest);
        }
        all
    }
}

fn publish(
    number: usize,
    bound: &Bound,
    plan: &Plan,
    stop: &AtomicBool,
    answered: &AtomicUsize,
    uncertain: &Uncertain,
) -> Published {
    let mut published = Published::default();
    let mut client = RawClient::to(bound);
    let port = client.local_port();
    let interval = Duration::from_secs(plan.publishers as u64) / plan.rate as u32;
    let mut due = Instant::now();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1);
    for count in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // All of them first.
        let topic = if count < plan.topics { count } else { (random >> 33) as usize % plan.topics };
        let row = (topic, number);
        let message = published.last.get(&row).copied().unwrap_or(0) + 1;
        let length = if count % 16 == 15 { plan.large } else { 100 };
        let began = now();
        let body = format!("{topic} {number} {message} {} ", began.as_micros());
        let body = format!("{body:x<length$}");
        published.last.insert(row, message);
        published.messages += 1;
        // Before it is sent, since it may be heard before the answer is.
        let head = format!("POST /events/t{topic} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
        let outcome = client.try_send([head.as_bytes(), body.as_bytes()].concat()).map(|()| client.try_answer(false));
        published.slowest = published.slowest.max(now() - began);
        match outcome {
            Ok(Ok(answer)) if answer.status == 200 && !answer.closes() => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            other => {
                uncertain.lock().unwrap_or_else(PoisonError::into_inner).insert((row, message));
                published.failures.push(format!("{topic} {number} {message}: {other:?}"));
                if !matches!(&other, Ok(Ok(answer)) if !answer.closes()) {
                    let until = Instant::now() + PATIENCE;
                    while !stop.load(Ordering::Relaxed) && Instant::now() < until {
                        if let Ok(again) = RawClient::try_to(bound) {
                            client = again;
                            break;
                        }
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            }
        }
        due += interval;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    assert!(!published.failures.is_empty() || client.local_port() == port, "it was one connection");
    published
}

/// Subscribers in a thread of their own.
pub struct Subscribers {
    uncertain: Uncertain,
    /// What was published, once it is known.
    goal: Arc<Mutex<Option<BTreeMap<Row, u64>>>>,
    thread: JoinHandle<Heard>,
}

impl Subscribers {
    /// Starts them, over each of those in turn, and waits until all listen.
    pub fn start(bound: &[Bound], plan: &Plan) -> Subscribers {
        super::client::raise_open_files();
        let goal = Arc::new(Mutex::new(None));
        let opened = Arc::new(AtomicUsize::new(0));
        let uncertain = Uncertain::default();
        let all = plan.streams + plan.polls;
        let subscribers = (0..all).map(|number| Subscriber::new(number, bound, plan)).collect();
        let listening = Listening {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll"),
            subscribers,
            publishers: plan.publishers,
            pause: plan.pause,
            heard: Heard::default(),
            uncertain: uncertain.clone(),
            goal: goal.clone(),
            opened: opened.clone(),
        };
        let thread = thread::spawn(move || listening.run());
        super::eventually("all listen", || opened.load(Ordering::Relaxed) >= all || thread.is_finished());
        Subscribers { uncertain, goal, thread }
    }

    /// Waits until each has heard all that was published, as far as it is coming.
    pub fn stop(self, published: &Published) -> Heard {
        *self.goal.lock().unwrap_or_else(PoisonError::into_inner) = Some(published.last.clone());
        self.thread.join().expect("the subscribers")
    }
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// With a small window, if it is to be slow.
    fn connect(bound: &Bound, number: usize, small: bool) -> io::Result<Socket> {
        match bound {
            Bound::Tcp(address) => {
                let domain = socket2::Domain::for_address(*address);
                let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
                if address.ip().is_loopback() && address.is_ipv4() {
                    let source = SocketAddr::from(([127, 0, 0, 1 + (number % 8) as u8], 0));
                    socket.bind(&source.into())?;
                }
                if small {
                    socket.set_recv_buffer_size(128 * 1024)?;
                }
                socket.connect(&(*address).into())?;
                socket.set_tcp_nodelay(true)?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Tcp(socket.into()))
            }
            Bound::Unix(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Unix(socket))
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.read(bytes),
            Socket::Unix(socket) => socket.read(bytes),
        }
    }

    /// A request is small: it is taken whole.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.write_all(bytes),
            Socket::Unix(socket) => socket.write_all(bytes),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stream { minor: u8 },
    Poll,
}

/// How far one is in a row.
#[derive(Clone, Copy)]
struct Heights {
    next: u64,
    /// A gap was said, and nothing of this row has come since.
    gap: bool,
}

struct Subscriber {
    number: usize,
    kind: Kind,
    bound: Bound,
    topics: Vec<usize>,
    stops_reading: bool,
    socket: Option<Socket>,
    /// Not registered while it does not read.
    reads_again: Option<Instant>,
    stops_next: Instant,
    /// As it came, and not yet understood.
    buffer: Vec<u8>,
    in_body: bool,
    /// Everything up to here was heard: its epoch and offset, and that as text.
    position: Option<(u64, u64)>,
    id: String,
    opened: bool,
    heard: BTreeMap<Row, Heights>,
    connects_again: Instant,
}

impl Subscriber {
    fn new(number: usize, bound: &[Bound], plan: &Plan) -> Subscriber {
        let kind = match number {
            poll if poll >= plan.streams => Kind::Poll,
            old if old % 5 == 4 => Kind::Stream { minor: 0 },
            _ => Kind::Stream { minor: 1 },
        };
        let stops_reading = kind != Kind::Poll && matches!(number % 40, 3 | 7 | 28);
        let first = number % plan.topics;
        let topics = if stops_reading { plan.topics.min(8) } else { 1 };
        let topics = (0..topics).map(|next| (first + next) % plan.topics).collect();
        Subscriber {
            number,
            kind,
            bound: bound[number % bound.len()].clone(),
            topics,
            stops_reading,
            socket: None,
            reads_again: None,
            stops_next: Instant::now() + Duration::from_millis(100 + 37 * (number as u64 % 50)),
            buffer: Vec::new(),
            in_body: false,
            position: None,
            id: String::new(),
            opened: false,
            heard: BTreeMap::new(),
            connects_again: Instant::now(),
        }
    }

    fn request(&self) -> String {
        let mut target = match &self.topics[..] {
            [topic] => format!("/events/t{topic}?"),
            topics => topics.iter().fold("/events?".to_owned(), |target, topic| format!("{target}topic=t{topic}&")),
        };
        match (self.kind, self.opened) {
            (Kind::Poll, false) => {
                _ = write!(target, "wait=0");
            }
            (Kind::Poll, true) => {
                _ = write!(target, "since={}&wait=20", self.id);
            }
            _ => {}
        }
        let minor = if let Kind::Stream { minor } = self.kind { minor } else { 1 };
        let mut request = format!("GET {target} HTTP/1.{minor}\r\nHost: test\r\n");
        match self.kind {
            Kind::Poll => request.push_str("Accept: application/json\r\n"),
            Kind::Stream { .. } if self.opened => _ = write!(request, "Last-Event-ID: {}\r\n", self.id),
            Kind::Stream { .. } => {}
        }
        request + "\r\n"
    }
}

struct Listening {
    epoll: std::os::fd::OwnedFd,
    subscribers: Vec<Subscriber>,
    publishers: usize,
    pause: Duration,
    heard: Heard,
    uncertain: Uncertain,
    goal: Arc<Mutex<Option<BTreeMap<Row, u64>>>>,
    opened: Arc<AtomicUsize>,
}

/// What the server says of a subscriber's stream.
#[derive(Default)]
struct Event<'e> {
    id: Option<&'e str>,
    event: Option<&'e str>,
    data: Option<String>,
}

impl Listening {
    fn run(mut self) -> Heard {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(1024);
        let mut until: Option<Instant> = None;
        let mut looked = Instant::now();
        loop {
            events.clear();
            let wait = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("epoll: {error}"),
            }
            for event in &events {
                self.read(event.data.u64() as usize);
            }
            if looked.elapsed() < Duration::from_millis(10) {
                continue;
            }
            looked = Instant::now();
            self.look_at_times();
            let goal = self.goal.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(goal) = goal {
                let until = *until.get_or_insert(Instant::now() + PATIENCE);
                let missing = self.missing(&goal);
                if missing == 0 || Instant::now() >= until {
                    self.heard.missing += missing;
                    return self.heard;
                }
            }
        }
    }

    /// How many messages have not come that have to.
    fn missing(&self, goal: &BTreeMap<Row, u64>) -> usize {
        let uncertain = self.uncertain.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing = 0;
        for subscriber in &self.subscribers {
            for topic in &subscriber.topics {
                for publisher in 0..self.publishers {
                    let row = (*topic, publisher);
                    let next = subscriber.heard.get(&row).map_or(1, |heights| heights.next);
                    let last = goal.get(&row).copied().unwrap_or(0);
                    let comes = |message: &u64| !uncertain.contains(&(row, *message));
                    missing += (next..=last).filter(comes).count();
                }
            }
        }
        missing
    }

    fn look_at_times(&mut self) {
        let now = Instant::now();
        for at in 0..self.subscribers.len() {
            let subscriber = &mut self.subscribers[at];
            match &subscriber.socket {
                None if now >= subscriber.connects_again => self.connect(at),
                Some(socket) if subscriber.stops_reading => match subscriber.reads_again {
                    Some(again) if now >= again => {
                        let data = epoll::EventData::new_u64(at as u64);
                        epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN).expect("epoll");
                        subscriber.reads_again = None;
                        subscriber.stops_next = now + self.pause + self.pause * (at as u32 % 7) / 4;
                    }
                    None if now >= subscriber.stops_next && subscriber.opened => {
                        epoll::delete(&self.epoll, socket).expect("epoll");
                        subscriber.reads_again = Some(now + self.pause);
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }

    fn connect(&mut self, at: usize) {
        let subscriber = &mut self.subscribers[at];
        let request = subscriber.request();
        let connected = Socket::connect(&subscriber.bound, subscriber.number, subscriber.stops_reading);
        let sent = connected.and_then(|mut socket| socket.write(request.as_bytes()).map(|()| socket));
        match sent {
            Ok(socket) => {
                let data = epoll::EventData::new_u64(at as u64);
                epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN).expect("epoll");
                subscriber.socket = Some(socket);
                subscriber.buffer.clear();
                subscriber.in_body = false;
            }
            Err(_) => subscriber.connects_again = Instant::now() + Duration::from_millis(20),
        }
    }

    fn read(&mut self, at: usize) {
        let mut bytes = [0; 64 * 1024];
        let subscriber = &mut self.subscribers[at];
        let Some(socket) = &mut subscriber.socket else { return };
        let ended = match socket.read(&mut bytes) {
            Ok(0) => true,
            Ok(read) => {
                subscriber.buffer.extend_from_slice(&bytes[..read]);
                false
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => false,
            Err(_) => true,
        };
        if ended {
            // Closing takes it out of the epoll.
            subscriber.socket = None;
            subscriber.connects_again = Instant::now() + Duration::from_millis(20);
            subscriber.reads_again = None;
            self.heard.reconnects += 1;
            return;
        }
        self.understand(at);
    }

    fn wrong(&mut self, at: usize, what: impl Into<String>) {
        if self.heard.wrong.len() < 10 {
            self.heard.wrong.push(format!("subscriber {at}: {}", what.into()));
        }
    }

    fn understand(&mut self, at: usize) {
        let mut buffer = std::mem::take(&mut self.subscribers[at].buffer);
        let mut used = 0;
        loop {
            let rest = &buffer[used..];
            let taken = match (self.subscribers[at].kind, self.subscribers[at].in_body) {
                (Kind::Stream { minor }, false) => self.stream_head(at, minor, rest),
                (Kind::Stream { minor: 0 }, true) => self.event_without_chunks(at, rest),
                (Kind::Stream { .. }, true) => self.chunk(at, rest),
                (Kind::Poll, _) => self.answer(at, rest),
            };
            if taken == 0 {
                break;
            }
            used += taken;
        }
        buffer.drain(..used);
        self.subscribers[at].buffer = buffer;
    }

    fn stream_head(&mut self, at: usize, minor: u8, bytes: &[u8]) -> usize {
        let Some(end) = find(bytes, b"\r\n\r\n") else { return 0 };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let chunked = head.contains("\r\ntransfer-encoding: chunked");
        if !head.starts_with("http/1.1 200 ") || chunked != (minor > 0) || !head.contains("text/event-stream") {
            self.wrong(at, head);
        }
        self.subscribers[at].in_body = true;
        end + 4
    }

    fn event_without_chunks(&mut self, at: usize, bytes: &[u8]) -> usize {
        let Some(end) = find(bytes, b"\n\n") else { return 0 };
        self.events(at, &bytes[..end + 2]);
        end + 2
    }

    fn chunk(&mut self, at: usize, bytes: &[u8]) -> usize {
        let Some(line) = find(bytes, b"\r\n") else { return 0 };
        let size = std::str::from_utf8(&bytes[..line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(size) = size else {
            self.wrong(at, format!("no chunk size: {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)])));
            return bytes.len();
        };
        let (from, to) = (line + 2, line + 2 + size);
        if bytes.len() < to + 2 {
            return 0;
        }
        let chunk = &bytes[from..to];
        if &bytes[to..to + 2] != b"\r\n" || (size > 0 && !chunk.ends_with(b"\n\n")) {
            self.wrong(at, format!("no whole chunk: {:?}", String::from_utf8_lossy(&chunk[..chunk.len().min(80)])));
        }
        self.events(at, chunk);
        to + 2
    }

    fn events(&mut self, at: usize, text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else { return self.wrong(at, "no UTF-8") };
        let mut event = Event::default();
        for line in text.lines() {
            match line.split_once(": ") {
                _ if line.is_empty() => self.event(at, std::mem::take(&mut event)),
                Some(("id", id)) => event.id = Some(id),
                Some(("event", name)) => event.event = Some(name),
                Some(("retry", _)) => {}
                Some(("data", data)) => match &mut event.data {
                    None => event.data = Some(data.to_owned()),
                    Some(before) => *before = format!("{before}\n{data}"),
                },
                _ => self.wrong(at, format!("no line of an event: {line:?}")),
            }
        }
    }

    fn event(&mut self, at: usize, event: Event<'_>) {
        if let Some(id) = event.id {
            self.moves_to(at, id, event.event.is_none() && event.data.is_some());
        }
        match (event.event, event.data) {
            (None, None) => self.opens(at),
            (Some("@gap"), Some(_)) => self.gap(at),
            (None, Some(data)) => self.message(at, &data),
            (name, data) => self.wrong(at, format!("an unknown event {name:?}: {data:?}")),
        }
    }

    fn opens(&mut self, at: usize) {
        let subscriber = &mut self.subscribers[at];
        if !subscriber.opened && !subscriber.id.is_empty() {
            subscriber.opened = true;
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Positions of one epoch go up.
    fn moves_to(&mut self, at: usize, id: &str, message: bool) {
        let position = id.split_once('-').and_then(|(epoch, offset)| Some((epoch.parse().ok()?, offset.parse().ok()?)));
        let Some((epoch, offset)): Option<(u64, u64)> = position else {
            return self.wrong(at, format!("no position: {id:?}"));
        };
        let before = self.subscribers[at].position.replace((epoch, offset));
        id.clone_into(&mut self.subscribers[at].id);
        if let Some((same, last)) = before
            && same == epoch
            && (offset < last || (message && offset == last))
        {
            self.wrong(at, format!("from {epoch}-{last} back to {offset}"));
        }
    }

    fn gap(&mut self, at: usize) {
        let Subscriber { topics, heard, .. } = &mut self.subscribers[at];
        for topic in topics {
            for publisher in 0..self.publishers {
                heard.entry((*topic, publisher)).or_insert(Heights { next: 1, gap: true }).gap = true;
            }
        }
        self.heard.gaps += 1;
    }

    fn message(&mut self, at: usize, data: &str) {
        let mut words = data.split(' ');
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (Some(topic), Some(publisher), Some(message), Some(time)) = (number(), number(), number(), number()) else {
            return self.wrong(at, format!("no message: {data:.80?}"));
        };
        let row = (topic as usize, publisher as usize);
        if !self.subscribers[at].topics.contains(&row.0) {
            return self.wrong(at, format!("another's message: {data:.80?}"));
        }
        let subscriber = &mut self.subscribers[at];
        if !subscriber.stops_reading {
            self.heard.slowest = self.heard.slowest.max(now().saturating_sub(Duration::from_micros(time)));
        }
        let heights = subscriber.heard.entry(row).or_insert(Heights { next: 1, gap: false });
        if message < heights.next {
            self.heard.twice += 1;
            return;
        }
        if message > heights.next && !heights.gap {
            let uncertain = self.uncertain.lock().unwrap_or_else(PoisonError::into_inner);
            let comes = |message: &u64| !uncertain.contains(&(row, *message));
            self.heard.missing += (heights.next..message).filter(comes).count();
        }
        *heights = Heights { next: message + 1, gap: false };
        self.heard.messages += 1;
    }

    /// A poll's, and the next question at once.
    fn answer(&mut self, at: usize, bytes: &[u8]) -> usize {
        let Some(end) = find(bytes, b"\r\n\r\n") else { return 0 };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let Some(length): Option<usize> = length else {
            self.wrong(at, head);
            return bytes.len();
        };
        let Some(body) = bytes.get(end + 4..end + 4 + length) else { return 0 };
        let closes = head.contains("\r\nconnection: close");
        match serde_json::from_slice::<serde_json::Value>(body) {
            Ok(answer) if head.starts_with("http/1.1 200 ") => {
                if answer["gap"] == true {
                    self.gap(at);
                }
                for message in answer["messages"].as_array().into_iter().flatten() {
                    self.moves_to(at, message["id"].as_str().unwrap_or_default(), true);
                    self.message(at, message["data"].as_str().unwrap_or_default());
                }
                self.moves_to(at, answer["last"].as_str().unwrap_or_default(), false);
                self.opens(at);
            }
            // It may come back.
            _ if head.starts_with("http/1.1 503 ") => {}
            _ => self.wrong(at, format!("{head}\n{}", String::from_utf8_lossy(body))),
        }
        let subscriber = &mut self.subscribers[at];
        let request = subscriber.request();
        if !closes && let Some(socket) = &mut subscriber.socket {
            // Where it fails, the next read hears of the end.
            let _ = socket.write(request.as_bytes());
        }
        end + 4 + length
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
