//! The limit: one thread, one epoll loop, and the same bytes for each request, which is read only up to its end.
//!
//! It parses nothing, checks nothing and has no deadlines: whoever does the work of a server is behind it.

use std::env;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 11\r\n\r\nhello world";

struct Client {
    stream: TcpStream,
    /// How much of the empty line that ends a head has been seen.
    matched: usize,
}

fn main() -> io::Result<()> {
    let address = env::args().nth(1).expect("ADDRESS");
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // SAFETY: no pointers are passed; the descriptor is used until the process ends.
    let poller = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if poller < 0 {
        return Err(io::Error::last_os_error());
    }
    watch(poller, listener.as_raw_fd())?;
    // By descriptor, which the kernel keeps small.
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 512];
    let mut input = vec![0; 64 * 1024];
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
            let Some(client) = clients[descriptor].as_mut() else { continue };
            if !client.serve(&mut input) {
                clients[descriptor] = None;
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
        clients[descriptor] = Some(Client { stream, matched: 0 });
    }
}

impl Client {
    /// Answers what has come; `false` when the client is gone, or does not take what it asked for.
    fn serve(&mut self, input: &mut [u8]) -> bool {
        let read = match self.stream.read(input) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        };
        let mut requests = 0;
        for &byte in &input[..read] {
            self.matched = match (self.matched, byte) {
                (0 | 2, b'\r') | (1 | 3, b'\n') => self.matched + 1,
                (_, b'\r') => 1,
                _ => 0,
            };
            if self.matched == 4 {
                self.matched = 0;
                requests += 1;
            }
        }
        match requests {
            0 => true,
            1 => self.stream.write_all(ANSWER).is_ok(),
            _ => self.stream.write_all(&ANSWER.repeat(requests)).is_ok(),
        }
    }
}
