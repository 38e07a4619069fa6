//! What a connection's bytes go through: a socket, TCP or Unix, non-blocking, closed on drop, and what lies upon it.
//!
//! Not everything that a plain socket can do can be done where something lies between the connection's bytes and the
//! socket's: the kernel cannot send a file by itself, what is in the socket is not what was said, and the acceptor may have
//! no part in it. Whoever wants such a thing asks, and has another way.

use crate::sys::readiness;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A connected socket and what lies upon it. All calls but [`Transport::wait`] return at once.
#[derive(Debug)]
pub struct Transport {
    fd: OwnedFd,
    was_cut: AtomicBool,
    layer: Layer,
}

/// What lies between the connection's bytes and the socket's.
#[derive(Clone, Copy, Debug)]
enum Layer {
    /// Nothing.
    Plain,
    /// Nothing either, but it can do no more than read and write.
    #[cfg(test)]
    Opaque,
}

/// What a call learned: an expected event is a value, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// That many bytes; at least one.
    Bytes(usize),
    /// The socket is empty, or full.
    WouldBlock,
    /// The peer has closed its side, or the file has ended.
    End,
}

/// What a worker waits for while it serves a stream.
#[derive(Clone, Copy, Debug)]
pub enum Wait {
    Readable,
    Writable,
}

/// Whether sendfile(2) is missing here, or forbidden to this process: then nobody needs to ask again.
static NO_SENDFILE: AtomicBool = AtomicBool::new(false);

impl Transport {
    pub fn new(fd: OwnedFd) -> Transport {
        Transport { fd, was_cut: AtomicBool::new(false), layer: Layer::Plain }
    }

    /// One that can do no more than read and write.
    #[cfg(test)]
    pub fn opaque(fd: OwnedFd) -> Transport {
        Transport { layer: Layer::Opaque, ..Transport::new(fd) }
    }

    pub fn read(&self, buf: &mut [u8]) -> io::Result<Moved> {
        moved(|| rustix::io::read(&self.fd, &mut *buf))
    }

    /// Reads into the spare room behind what is there. To recv(2) the kernel has a shorter way than to read(2).
    pub fn read_behind(&self, buf: &mut Vec<u8>) -> io::Result<Moved> {
        moved(|| {
            rustix::net::recv(&self.fd, rustix::buffer::spare_capacity(buf), RecvFlags::empty()).map(|(read, _)| read)
        })
    }

    /// Takes out what nobody will ever read; how much that is counts, and not what.
    pub fn throw_away(&self, sink: &mut [u8]) -> io::Result<Moved> {
        self.read(sink)
    }

    /// Whether a read that fills less than it asked for may have left something behind, of which no event will tell.
    pub fn hides_bytes(&self) -> bool {
        match self.layer {
            Layer::Plain => false,
            #[cfg(test)]
            Layer::Opaque => true,
        }
    }

    /// Whether something can be read, without taking it; `None` where only a read tells.
    pub fn peek(&self) -> io::Result<Option<Moved>> {
        let mut byte = [0];
        self.peeked(|| {
            rustix::net::recv(&self.fd, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT).map(|(read, _)| read)
        })
    }

    /// The same as [`Transport::read_behind`], without taking it out; `None` where it has to be taken to be seen.
    pub fn peek_behind(&self, buf: &mut Vec<u8>) -> io::Result<Option<Moved>> {
        self.peeked(|| {
            rustix::net::recv(&self.fd, rustix::buffer::spare_capacity(buf), RecvFlags::PEEK).map(|(read, _)| read)
        })
    }

    fn peeked(&self, call: impl FnMut() -> Result<usize, Errno>) -> io::Result<Option<Moved>> {
        match self.layer {
            Layer::Plain => moved(call).map(Some),
            #[cfg(test)]
            Layer::Opaque => Ok(None),
        }
    }

    /// Sends; `more` keeps the last segment back because more follows at once.
    pub fn send(&self, bytes: &[u8], more: bool) -> io::Result<Moved> {
        let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        moved(|| rustix::net::send(&self.fd, bytes, flags))
    }

    /// Sends two pieces as one.
    pub fn send_two(&self, first: &[u8], second: &[u8]) -> io::Result<Moved> {
        moved(|| rustix::io::writev(&self.fd, &[IoSlice::new(first), IoSlice::new(second)]))
    }

    /// Has the kernel send from a file, and moves `offset` on; `None` where that is not the way to send this file here: it
    /// has to be read.
    pub fn send_file(&self, file: impl AsFd, offset: &mut u64, length: usize) -> io::Result<Option<Moved>> {
        match self.layer {
            Layer::Plain if NO_SENDFILE.load(Ordering::Relaxed) => Ok(None),
            Layer::Plain => match moved(|| rustix::fs::sendfile(&self.fd, file.as_fd(), Some(&mut *offset), length)) {
                Err(error) if is_refused(&error) => Ok(None),
                moved => moved.map(Some),
            },
            #[cfg(test)]
            Layer::Opaque => Ok(None),
        }
    }

    /// For a thread that may not wait, and does nothing more about it: a short last answer, in one write or not at all. If
    /// it does not fit, the client has not read earlier answers either, and gets the end alone. Answers how many bytes were
    /// sent; `None`: nothing was done, a worker has to send it.
    pub fn answer_at_once(&self, answer: &[u8]) -> Option<u64> {
        match self.layer {
            Layer::Plain => match self.send(answer, false) {
                Ok(Moved::Bytes(sent)) => Some(sent as u64),
                Ok(Moved::WouldBlock | Moved::End) | Err(_) => Some(0),
            },
            #[cfg(test)]
            Layer::Opaque => None,
        }
    }

    /// Says that nothing more will come: FIN.
    pub fn finish(&self) {
        // An error means that the connection is gone already, which is what the next read will say.
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
    }

    /// Ends both directions under whoever still uses the socket.
    pub fn cut(&self) {
        self.was_cut.store(true, Ordering::SeqCst);
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
    }

    /// Makes its close a reset: what the kernel still has for a client that does not take it goes at once, and does not
    /// stay for as long as the client answers probes.
    pub fn reset_on_close(&self) {
        // Unix sockets have no such thing, and need none: what is not read goes with the socket.
        let _ = rustix::net::sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }

    /// Whether [`Transport::cut`] was called.
    pub fn was_cut(&self) -> bool {
        self.was_cut.load(Ordering::SeqCst)
    }

    /// Blocks until it is ready, or answers `false` after `timeout`. Only streams wait, never a parked connection.
    pub fn wait(&self, wait: Wait, timeout: Duration) -> io::Result<bool> {
        let events = match wait {
            Wait::Readable => PollFlags::IN,
            Wait::Writable => PollFlags::OUT,
        };
        match readiness::wait(&self.fd, events, timeout) {
            Err(Errno::INTR) => Ok(true),
            ready => Ok(ready?),
        }
    }

    /// Bytes that the peer has not yet acknowledged: how a slow reader that makes progress is told from one that does
    /// not, since the send buffer is only reported writable when a third is free.
    pub fn unsent(&self) -> io::Result<u64> {
        crate::sys::socket_options::unsent(&self.fd)
    }
}

impl AsRawFd for Transport {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether sendfile(2) says that it is not the way to send this file: its file system has no such thing (/proc, some of
/// FUSE), a sandbox forbids the call, or does not know it.
fn is_refused(error: &io::Error) -> bool {
    match Errno::from_io_error(error) {
        Some(Errno::NOSYS | Errno::PERM) => {
            NO_SENDFILE.store(true, Ordering::Relaxed);
            true
        }
        errno => matches!(errno, Some(Errno::INVAL | Errno::OPNOTSUPP)),
    }
}

fn moved(mut call: impl FnMut() -> Result<usize, Errno>) -> io::Result<Moved> {
    loop {
        return match call() {
            Ok(0) => Ok(Moved::End),
            Ok(bytes) => Ok(Moved::Bytes(bytes)),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Ok(Moved::WouldBlock),
            Err(error) => Err(error.into()),
        };
    }
}
