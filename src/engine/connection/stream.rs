//! The two ways in which a handler is bound to its worker while the client is slow: reading a large request body,
//! and pushing a response. Both wait with a deadline, and both end when the socket is cut under them.

use super::pace::{Pace, Window};
use super::transport::{Moved, Transport, Wait};
use crate::api::ReadBehind;
use crate::clock::Millis;
use crate::config::Limits;
use http1::chunked::Decoder;
use http1::framing::BodyFraming;
use http1::{Reject, response};
use portable_atomic::AtomicU64;
use std::io::{self, Cursor, Read, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes collected before a pushed body leaves as one chunk without having been flushed.
const CHUNK: usize = 8 * 1024;
/// Bytes read ahead of the handler, and the least room to read its body to directly.
const READ_AHEAD: usize = 16 * 1024;

/// A request body that is still on its way, shared by the handler that reads it and the connection that goes on
/// after it.
#[derive(Clone)]
pub struct SharedBody(Arc<Mutex<BodySource>>);

/// The body's source: what was read ahead, then the socket.
pub struct BodySource {
    socket: Arc<Transport>,
    decoded: Cursor<Vec<u8>>,
    framing: Incoming,
    buffer: Vec<u8>,
    at: usize,
    expects_continue: bool,
    /// Its beginning, moved on by the time in which nobody waited for the client.
    since: Millis,
    /// When the handler was last given something.
    left_off: Millis,
    received: u64,
    limit: u64,
    timeout: Duration,
    rate: u64,
    failed: Option<Reject>,
    ended: bool,
}

/// Where in its framing a request body is.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// Bytes still to come.
    Length(u64),
    Chunked(Decoder),
}

impl Incoming {
    pub fn new(framing: BodyFraming) -> Incoming {
        match framing {
            BodyFraming::None => Incoming::Length(0),
            BodyFraming::Length(length) => Incoming::Length(length),
            BodyFraming::Chunked => Incoming::Chunked(Decoder::default()),
        }
    }

    /// Takes what belongs to the body from the front of `input`: how much is done with, the data in it, and
    /// whether the body is complete.
    pub fn take<'i>(&mut self, input: &'i [u8]) -> Result<(usize, &'i [u8], bool), Reject> {
        match self {
            Incoming::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= length as u64;
                Ok((length, &input[..length], *left == 0))
            }
            Incoming::Chunked(decoder) => {
                let step = decoder.decode(input)?;
                Ok((step.consumed, &input[step.data], step.done))
            }
        }
    }
}

/// When a body that began at `since` and has brought `received` bytes is too slow: its grace, then its least rate.
pub fn body_deadline(since: Millis, received: u64, timeout: Duration, rate: u64) -> Millis {
    since.after(timeout).after(Duration::from_millis(received.saturating_mul(1000) / rate.max(1)))
}

impl From<BodySource> for SharedBody {
    fn from(source: BodySource) -> SharedBody {
        SharedBody(Arc::new(Mutex::new(source)))
    }
}

impl SharedBody {
    fn source(&self) -> MutexGuard<'_, BodySource> {
        // A handler that panicked while reading leaves a source that is at worst shorter: it is still consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody else can still read it.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Bytes that it keeps on the heap.
    pub fn held(&self) -> usize {
        let source = self.source();
        size_of::<BodySource>() + source.buffer.capacity() + source.decoded.get_ref().capacity()
    }

    /// Why reading it failed, if it did.
    pub fn failure(&self) -> Option<Reject> {
        self.source().failed
    }

    /// What the client sent behind the body, if the body was read to its end.
    pub fn into_rest(self) -> Option<Vec<u8>> {
        let mut source = self.source();
        if !source.ended {
            return None;
        }
        let at = source.at;
        Some(source.buffer.split_off(at))
    }

    /// Whether it was read to its end.
    pub fn is_finished(&self) -> bool {
        self.source().ended
    }
}

impl Read for SharedBody {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.source().read(buf)
    }
}

impl ReadBehind for SharedBody {
    fn read_behind(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        self.source().read_behind(bytes)
    }
}

impl BodySource {
    pub fn new(socket: Arc<Transport>, framing: Incoming, since: Millis, limit: u64, limits: &Limits) -> BodySource {
        BodySource {
            socket,
            decoded: Cursor::default(),
            framing,
            buffer: Vec::new(),
            at: 0,
            expects_continue: false,
            since,
            left_off: since,
            received: 0,
            limit,
            timeout: limits.body_timeout,
            rate: limits.body_rate,
            failed: None,
            ended: false,
        }
    }

    /// What has arrived already: data that was decoded, and what was read behind it.
    pub fn starting_with(mut self, decoded: Vec<u8>, rest: Vec<u8>) -> BodySource {
        self.received = decoded.len() as u64;
        self.decoded = Cursor::new(decoded);
        self.buffer = rest;
        self
    }

    /// Says `100 Continue` when the handler first has to wait for the body.
    pub fn expecting_continue(mut self, expects: bool) -> BodySource {
        self.expects_continue = expects;
        self
    }

    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        if let Some(reject) = self.failed {
            return Err(refused(reject));
        }
        if let read @ 1.. = self.decoded.read(out)? {
            return Ok(read);
        }
        while !self.ended {
            if self.at == self.buffer.len() {
                // Nothing behind the body may be read to the handler's room, and a small one is not worth a call.
                if let Some(left) = self.left().filter(|_| out.len() >= READ_AHEAD) {
                    let room = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let read = self.receive(|socket| socket.read(&mut out[..room]))?;
                    return self.take(read).map(|()| read);
                }
                self.fill()?;
            }
            let input = &self.buffer[self.at..];
            let room = input.len().min(out.len());
            // Chunk overhead is skipped in the same window, which is never larger than what fits into `out`.
            let taken = self.framing.take(&input[..room]);
            let (consumed, data, ended) = match taken {
                Ok(taken) => taken,
                Err(reject) => return Err(self.fail(reject)),
            };
            out[..data.len()].copy_from_slice(data);
            let read = data.len();
            self.at += consumed;
            self.ended = ended;
            self.count(read)?;
            if read > 0 {
                return Ok(read);
            }
        }
        Ok(0)
    }

    fn read_behind(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let before = bytes.len();
        let decoded = self.decoded.position() < self.decoded.get_ref().len() as u64;
        let ahead = self.failed.is_some() || decoded || self.at < self.buffer.len();
        if let Some(left) = self.left().filter(|_| !ahead) {
            if self.ended {
                return Ok(0);
            }
            // Never more room than the body needs, so that nothing behind it is read.
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            if before == bytes.capacity() {
                bytes.reserve_exact(left.min(before.max(READ_AHEAD)));
            }
            if bytes.capacity() - before <= left {
                let read = self.receive(|socket| socket.read_behind(bytes))?;
                return self.take(read).map(|()| read);
            }
        }
        // From what was read before, or through the decoder.
        let room = match bytes.capacity() - before {
            0 => READ_AHEAD,
            spare => spare.min(READ_AHEAD),
        };
        bytes.resize(before + room, 0);
        let read = self.read(&mut bytes[before..]);
        bytes.truncate(before + *read.as_ref().unwrap_or(&0));
        read
    }

    /// Bytes that are still to come of a body whose length is known.
    fn left(&self) -> Option<u64> {
        match self.framing {
            Incoming::Length(left) => Some(left),
            Incoming::Chunked(_) => None,
        }
    }

    /// Takes note of bytes of a body of known length that were read past the buffer.
    fn take(&mut self, read: usize) -> io::Result<()> {
        if let Incoming::Length(left) = &mut self.framing {
            *left -= read as u64;
            self.ended = *left == 0;
        }
        self.count(read)
    }

    /// Counts what the handler gets, up to the limit.
    fn count(&mut self, read: usize) -> io::Result<()> {
        self.received += read as u64;
        match self.received > self.limit {
            true => Err(self.fail(Reject::BodyTooLarge)),
            false => Ok(()),
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.reserve(READ_AHEAD);
        self.at = 0;
        let filled = self.receive(|socket| socket.read_behind(&mut buffer));
        self.buffer = buffer;
        filled.map(drop)
    }

    /// Waits until `read` has got something.
    fn receive(&mut self, read: impl FnMut(&Transport) -> io::Result<Moved>) -> io::Result<usize> {
        if std::mem::take(&mut self.expects_continue) {
            // No part of the response.
            let sent = AtomicU64::new(0);
            send_all(&self.socket, CONTINUE, Pace::any(self.timeout), &mut Window::default(), &sent)?;
        }
        // Only waiting for the client counts, not what the handler did meanwhile.
        self.since = self.since.after(Millis::now().since(self.left_off));
        let received = self.wait_for_bytes(read);
        self.left_off = Millis::now();
        received
    }

    fn wait_for_bytes(&mut self, mut read: impl FnMut(&Transport) -> io::Result<Moved>) -> io::Result<usize> {
        loop {
            match read(&self.socket) {
                Ok(Moved::Bytes(read)) => return Ok(read),
                Ok(Moved::WouldBlock) => {
                    let deadline = body_deadline(self.since, self.received, self.timeout, self.rate);
                    let left = Millis::now().until(deadline);
                    if left.is_zero() || !self.socket.wait(Wait::Readable, left)? && Millis::now() >= deadline {
                        return Err(self.fail(Reject::BodyTimeout));
                    }
                }
                Ok(Moved::End) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => return Err(error),
            }
        }
    }

    fn fail(&mut self, reject: Reject) -> io::Error {
        self.failed = Some(reject);
        refused(reject)
    }
}

fn refused(reject: Reject) -> io::Error {
    let kind = match reject {
        Reject::BodyTimeout => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, reject.name())
}

/// The interim answer (RFC 9110 §15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Sends everything, waiting for the client; one that is slower than `pace` is an error. What has left is added to `out`.
fn send_all(socket: &Transport, mut bytes: &[u8], pace: Pace, window: &mut Window, out: &AtomicU64) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.send(bytes, false)? {
            Moved::Bytes(sent) => {
                bytes = &bytes[sent..];
                window.handed(sent as u64);
                out.fetch_add(sent as u64, Ordering::Relaxed);
            }
            Moved::WouldBlock => {
                let now = Millis::now();
                let unsent = || socket.unsent().unwrap_or(0);
                let until = window.wait(now, pace, unsent).ok_or(io::ErrorKind::TimedOut)?;
                socket.wait(Wait::Writable, now.until(until) + Duration::from_millis(1))?;
            }
            Moved::End => return Err(io::ErrorKind::WriteZero.into()),
        }
    }
    Ok(())
}

/// How a pushed body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delimiter {
    Chunks,
    /// Bytes still owed.
    Length(u64),
    EndOfConnection,
}

/// What a pushing handler writes to.
pub struct StreamWriter<'a> {
    socket: &'a Transport,
    /// The unsent head is in front until the first flush.
    out: &'a mut Vec<u8>,
    pending: Vec<u8>,
    delimiter: Delimiter,
    pace: Pace,
    /// Runs on from one piece to the next, so that small ones do not make a slow client look fast.
    window: Window,
    /// Bytes that have left, for whoever looks at them meanwhile.
    sent: &'a AtomicU64,
    /// The first error. After it nothing is sent any more: part of a chunk may be out.
    failed: Option<io::ErrorKind>,
}

impl<'a> StreamWriter<'a> {
    pub fn new(
        socket: &'a Transport,
        out: &'a mut Vec<u8>,
        delimiter: Delimiter,
        pace: Pace,
        sent: &'a AtomicU64,
    ) -> StreamWriter<'a> {
        StreamWriter {
            socket,
            out,
            pending: Vec::new(),
            delimiter,
            pace,
            window: Window::default(),
            sent,
            failed: None,
        }
    }

    /// Sends what is left and the last chunk.
    pub fn end(mut self) -> io::Result<()> {
        self.encode_pending();
        match self.delimiter {
            Delimiter::Chunks => self.out.extend_from_slice(response::LAST_CHUNK),
            Delimiter::Length(0) | Delimiter::EndOfConnection => {}
            Delimiter::Length(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        self.send()
    }

    fn encode_pending(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if self.delimiter == Delimiter::Chunks {
            response::push_chunk_size(self.out, self.pending.len());
            self.pending.extend_from_slice(b"\r\n");
        }
        self.out.append(&mut self.pending);
    }

    fn send(&mut self) -> io::Result<()> {
        self.check()?;
        let sent = send_all(self.socket, self.out, self.pace, &mut self.window, self.sent);
        self.out.clear();
        self.failed = sent.as_ref().err().map(io::Error::kind);
        sent
    }

    fn check(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl Write for StreamWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        let mut bytes = &bytes[..bytes.len().min(CHUNK)];
        if let Delimiter::Length(left) = &mut self.delimiter {
            bytes = &bytes[..bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX))];
            *left -= bytes.len() as u64;
        }
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encode_pending();
        self.send()
    }
}
