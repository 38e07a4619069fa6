//! Publishers: one that waits for each answer, one that pipelines, and many without subscribers.

use crate::answer;
use crate::description::Description;
use crate::message::now;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

/// What was published, and how long a POST took at most.
#[derive(Debug, Default)]
pub struct Published {
    /// For each topic.
    pub last: Vec<u64>,
    pub posts: u64,
    pub failed: u64,
    pub error: Option<String>,
    /// When each POST was due, and nanoseconds from there to its answer.
    pub times: Vec<(u64, u64)>,
    pub stalled: bool,
}

/// How many messages everybody has, as the subscribers say it.
#[derive(Debug, Default)]
pub struct Complete {
    pub messages: AtomicU64,
}

/// One keep-alive connection.
pub struct Connection {
    address: std::net::SocketAddrV4,
    stream: Option<TcpStream>,
    input: Vec<u8>,
}

impl Connection {
    pub fn new(address: std::net::SocketAddrV4) -> Connection {
        Connection { address, stream: None, input: Vec::new() }
    }

    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            self.input.clear();
            self.stream = Some(stream);
        }
        self.stream.as_mut().expect("made above").write_all(request)
    }

    /// The next answer, which has to be one that says yes.
    pub fn answer(&mut self) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        loop {
            if let Some((status, length)) = answer::whole(&self.input)? {
                if answer::closes(&self.input) {
                    self.stream = None;
                }
                self.input.drain(..length);
                return match status {
                    200..300 => Ok(()),
                    _ => Err(io::Error::other(format!("status {status}"))),
                };
            }
            let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            match stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.input.extend_from_slice(&piece[..read]),
            }
        }
    }

    pub fn ask(&mut self, request: &[u8]) -> io::Result<()> {
        let asked = self.send(request).and_then(|()| self.answer());
        if asked.is_err() {
            self.stream = None;
        }
        asked
    }
}

pub struct Publisher<'a> {
    description: &'a Description,
    connection: Connection,
    request: Vec<u8>,
    pub published: Published,
}

impl<'a> Publisher<'a> {
    pub fn new(description: &'a Description, topics: u32) -> Publisher<'a> {
        let published = Published { last: vec![0; topics as usize], ..Published::default() };
        let connection = Connection::new(description.publish_address);
        Publisher { description, connection, request: Vec::new(), published }
    }

    fn next(&mut self, topic: u32, nanos: Option<u64>) {
        let last = &mut self.published.last[topic as usize];
        *last += 1;
        self.description.post(topic, *last, nanos, &mut self.request);
    }

    /// One message; `due` is its time where it should have gone before.
    pub fn publish(&mut self, topic: u32, due: Option<u64>) {
        self.request.clear();
        self.next(topic, due);
        let began = due.unwrap_or_else(now);
        let asked = self.connection.ask(&self.request);
        self.published.posts += 1;
        self.published.times.push((began, now().saturating_sub(began)));
        if let Err(error) = asked {
            self.published.failed += 1;
            self.published.error.get_or_insert_with(|| error.to_string());
        }
    }

    /// So many a second, each at its time, also when the one before was late.
    pub fn at_rate(mut self, rate: u64, seconds: f64, stamp_due: bool, topic: impl Fn(u64) -> u32) -> Published {
        let (began, clock) = (Instant::now(), now());
        for number in 0..(rate as f64 * seconds) as u64 {
            let after = Duration::from_nanos(1_000_000_000 * number / rate);
            thread::sleep(after.saturating_sub(began.elapsed()));
            self.publish(topic(number), stamp_due.then_some(clock + after.as_nanos() as u64));
        }
        self.published
    }

    /// As many as `window` ahead of what everybody has.
    pub fn in_window(mut self, window: u64, seconds: f64, complete: &Complete) -> Published {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < until {
            let since = Instant::now();
            while self.published.last[0] >= complete.messages.load(Ordering::Acquire) + window {
                if since.elapsed() > PATIENCE {
                    self.published.stalled = true;
                    return self.published;
                }
                thread::park_timeout(Duration::from_millis(100));
            }
            self.publish(0, None);
        }
        self.published
    }

    /// As fast as the server takes them, so many on their way at once.
    pub fn flood(mut self, pipelined: u64, over: &AtomicBool) -> Published {
        while !over.load(Ordering::Relaxed) {
            self.request.clear();
            for _ in 0..pipelined {
                self.next(0, None);
            }
            let mut asked = self.connection.send(&self.request);
            for _ in 0..pipelined {
                asked = asked.and_then(|()| self.connection.answer());
                self.published.posts += u64::from(asked.is_ok());
            }
            if let Err(error) = asked {
                self.published.failed += 1;
                self.published.error.get_or_insert_with(|| error.to_string());
                break;
            }
        }
        self.published
    }
}

impl Complete {
    pub fn say(&self, messages: u64, publisher: Option<&Thread>) {
        self.messages.store(messages, Ordering::Release);
        if let Some(publisher) = publisher {
            publisher.unpark();
        }
    }
}
