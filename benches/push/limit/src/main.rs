//! The limit of push: one thread, one epoll loop, and one prebuilt frame that is written to each subscriber of a topic.
//!
//! It keeps nothing, parses what it must and has no deadlines: whoever does the work of a server is behind it. A
//! subscriber that does not take what it is sent is closed.
//!
//! `GET /hello` answers; any other GET subscribes to its path, and a POST publishes its body there.

use std::collections::HashMap;
use std::env;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world";
const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
    Transfer-Encoding: chunked\r\n\r\n";

struct Client {
    stream: TcpStream,
    /// What has come of a request; empty again when it is whole.
    input: Vec<u8>,
    topic: Option<u32>,
}

#[derive(Default)]
struct Topics {
    numbers: HashMap<Vec<u8>, u32>,
    /// Descriptors of the subscribers.
    of: Vec<Vec<i32>>,
}

impl Topics {
    fn number(&mut self, path: &[u8]) -> u32 {
        if let Some(&number) = self.numbers.get(path) {
            return number;
        }
        let number = self.of.len() as u32;
        self.numbers.insert(path.to_vec(), number);
        self.of.push(Vec::new());
        number
    }
}

fn main() -> io::Result<()> {
    let address = env::args().nth(1).expect("ADDRESS");
    let listener = TcpListener::bind(address)?;
    // As many as the kernel lets wait, as servers do that are made for many.
    // SAFETY: no pointers are passed; the descriptor is open.
    unsafe { libc::listen(listener.as_raw_fd(), 4096) };
    listener.set_nonblocking(true)?;
    // SAFETY: no pointers are passed; the descriptor is used until the process ends.
    let poller = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if poller < 0 {
        return Err(io::Error::last_os_error());
    }
    watch(poller, listener.as_raw_fd())?;
    // By descriptor, which the kernel keeps small.
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut topics = Topics::default();
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 512];
    let mut input = vec![0; 64 * 1024];
    let mut frame = Vec::new();
    loop {
        // SAFETY: the pointer and the number are those of `events`, which lives through the call.
        let ready = unsafe { libc::epoll_wait(poller, events.as_mut_ptr(), events.len() as i32, -1) };
        if ready < 0 {
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                error => return Err(error),
            }
        }
        for event in &events[..ready as usize] {
            let descriptor = event.u64 as usize;
            if descriptor == listener.as_raw_fd() as usize {
                accept(poller, &listener, &mut clients)?;
                continue;
            }
            // It is put back after its turn, since a publication writes to others.
            let Some(mut client) = clients[descriptor].take() else { continue };
            if client.serve(&mut input, &mut frame, &mut topics, &mut clients) {
                clients[descriptor] = Some(client);
            } else if let Some(topic) = client.topic {
                topics.of[topic as usize].retain(|&other| other != descriptor as i32);
            }
        }
    }
}

fn watch(poller: i32, descriptor: i32) -> io::Result<()> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: descriptor as u64 };
    // SAFETY: `event` lives through the call; both descriptors are open.
    match unsafe { libc::epoll_ctl(poller, libc::EPOLL_CTL_ADD, descriptor, &mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn accept(poller: i32, listener: &TcpListener, clients: &mut Vec<Option<Client>>) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let descriptor = stream.as_raw_fd() as usize;
        if clients.len() <= descriptor {
            clients.resize_with(descriptor + 1, || None);
        }
        watch(poller, stream.as_raw_fd())?;
        clients[descriptor] = Some(Client { stream, input: Vec::new(), topic: None });
    }
}

impl Client {
    /// Takes what has come; `false` when the client is gone, or does not take its answer.
    fn serve(
        &mut self,
        input: &mut [u8],
        frame: &mut Vec<u8>,
        topics: &mut Topics,
        clients: &mut [Option<Client>],
    ) -> bool {
        let read = match self.stream.read(input) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        };
        // A request mostly comes whole, and is then read where it is.
        if self.input.is_empty() {
            let Some(taken) = self.requests(&input[..read], frame, topics, clients) else { return false };
            self.input.extend_from_slice(&input[taken..read]);
        } else {
            let mut whole = std::mem::take(&mut self.input);
            whole.extend_from_slice(&input[..read]);
            let Some(taken) = self.requests(&whole, frame, topics, clients) else { return false };
            whole.drain(..taken);
            self.input = whole;
        }
        true
    }

    fn requests(
        &mut self,
        mut input: &[u8],
        frame: &mut Vec<u8>,
        topics: &mut Topics,
        clients: &mut [Option<Client>],
    ) -> Option<usize> {
        let all = input.len();
        loop {
            let Some(end) = find(input, b"\r\n\r\n") else { return Some(all - input.len()) };
            let (head, body) = (&input[..end], &input[end + 4..]);
            let path = head.split(|&byte| byte == b' ').nth(1)?;
            if head.starts_with(b"GET /hello ") {
                self.stream.write_all(HELLO).ok()?;
                input = body;
            } else if head.starts_with(b"GET ") {
                let topic = topics.number(path);
                topics.of[topic as usize].push(self.stream.as_raw_fd());
                self.topic = Some(topic);
                self.stream.write_all(STREAM).ok()?;
                input = body;
            } else {
                let length = find(head, b"Content-Length: ")? + 16;
                let digits = head[length..].split(|&byte| byte == b'\r').next()?;
                let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
                let Some(data) = body.get(..length) else { return Some(all - input.len()) };
                if let Some(&topic) = topics.numbers.get(path) {
                    publish(data, frame, &mut topics.of[topic as usize], clients);
                }
                self.stream.write_all(TAKEN).ok()?;
                input = &body[length..];
            }
        }
    }
}

fn publish(data: &[u8], frame: &mut Vec<u8>, subscribers: &mut Vec<i32>, clients: &mut [Option<Client>]) {
    frame.clear();
    write!(frame, "{:x}\r\ndata: ", data.len() + 8).expect("memory takes it");
    frame.extend_from_slice(data);
    frame.extend_from_slice(b"\n\n\r\n");
    subscribers.retain(|&descriptor| {
        let client = &mut clients[descriptor as usize];
        let Some(taken) = client.as_mut().map(|client| client.stream.write(frame)) else { return false };
        if !matches!(taken, Ok(length) if length == frame.len()) {
            *client = None;
            return false;
        }
        true
    });
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}
