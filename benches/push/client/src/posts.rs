//! POSTs on many keep-alive connections, each with one on its way, from one thread.

use crate::answer;
use crate::description::Description;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

struct One {
    stream: TcpStream,
    input: Vec<u8>,
    sequence: u64,
}

/// How many were answered in that time; the first that is refused ends it.
pub fn run(description: &Description, connections: u32, seconds: f64) -> io::Result<u64> {
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut all = Vec::new();
    let mut request = Vec::new();
    for number in 0..connections {
        let stream = TcpStream::connect(description.publish_address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&poller, &stream, epoll::EventData::new_u64(number.into()), epoll::EventFlags::IN)?;
        all.push(One { stream, input: Vec::new(), sequence: 0 });
    }
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    for (topic, one) in all.iter_mut().enumerate() {
        one.send(description, topic as u32, &mut request)?;
    }
    let mut events = Vec::with_capacity(256);
    let (mut answered, mut waiting) = (0, connections);
    let mut piece = [0; 4096];
    while waiting > 0 {
        events.clear();
        let timeout = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
        epoll::wait(&poller, spare_capacity(&mut events), Some(&timeout))?;
        if events.is_empty() {
            return Err(io::Error::other("no answer to a POST for 10 s"));
        }
        let over = Instant::now() >= until;
        for event in &events {
            let topic = event.data.u64() as u32;
            let one = &mut all[topic as usize];
            match one.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => one.input.extend_from_slice(&piece[..read]),
            }
            let Some((status, length)) = answer::whole(&one.input)? else { continue };
            if !(200..300).contains(&status) {
                return Err(io::Error::other(format!("status {status}")));
            }
            one.input.drain(..length);
            answered += 1;
            if over {
                waiting -= 1;
            } else {
                one.send(description, topic, &mut request)?;
            }
        }
    }
    Ok(answered)
}

impl One {
    fn send(&mut self, description: &Description, topic: u32, request: &mut Vec<u8>) -> io::Result<()> {
        request.clear();
        self.sequence += 1;
        description.post(topic, self.sequence, None, request);
        self.stream.write_all(request)
    }
}
