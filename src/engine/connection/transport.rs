//! What the bytes of a connection go through: a socket, TCP or Unix, non-blocking, closed on drop.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A connected socket. All calls but [`Transport::wait`] return at once.
#[derive(Debug)]
pub struct Transport(OwnedFd, AtomicBool);

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

impl Transport {
    pub fn new(fd: OwnedFd) -> Transport {
        Transport(fd, AtomicBool::new(false))
    }

    pub fn read(&self, buf: &mut [u8]) -> io::Result<Moved> {
        moved(|| rustix::io::read(&self.0, &mut *buf))
    }

    /// Reads into the spare room behind what is there. To recv(2) the kernel has a shorter way than to read(2).
    pub fn read_behind(&self, buf: &mut Vec<u8>) -> io::Result<Moved> {
        moved(|| {
            rustix::net::recv(&self.0, rustix::buffer::spare_capacity(buf), RecvFlags::empty()).map(|(read, _)| read)
        })
    }

    /// Whether something can be read, without taking it.
    pub fn peek(&self) -> io::Result<Moved> {
        let mut byte = [0];
        moved(|| rustix::net::recv(&self.0, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT).map(|(read, _)| read))
    }

    /// The same as [`Transport::read_behind`], without taking it out of the socket.
    pub fn peek_behind(&self, buf: &mut Vec<u8>) -> io::Result<Moved> {
        moved(|| rustix::net::recv(&self.0, rustix::buffer::spare_capacity(buf), RecvFlags::PEEK).map(|(read, _)| read))
    }

    /// Sends; `more` keeps the last segment back because more follows at once.
    pub fn send(&self, bytes: &[u8], more: bool) -> io::Result<Moved> {
        let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        moved(|| rustix::net::send(&self.0, bytes, flags))
    }

    /// Sends two pieces as one.
    pub fn send_two(&self, first: &[u8], second: &[u8]) -> io::Result<Moved> {
        moved(|| rustix::io::writev(&self.0, &[IoSlice::new(first), IoSlice::new(second)]))
    }

    pub fn send_file(&self, file: impl AsFd, offset: &mut u64, length: usize) -> io::Result<Moved> {
        moved(|| rustix::fs::sendfile(&self.0, file.as_fd(), Some(offset), length))
    }

    /// Says that nothing more will come: FIN.
    pub fn finish(&self) {
        // An error means that the connection is gone already, which is what the next read will say.
        let _ = rustix::net::shutdown(&self.0, Shutdown::Write);
    }

    /// Ends both directions under whoever still uses the socket.
    pub fn cut(&self) {
        self.1.store(true, Ordering::SeqCst);
        let _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }

    /// Makes its close a reset: what the kernel still has for a client that does not take it goes at once, and does not
    /// stay for as long as the client answers probes.
    pub fn reset_on_close(&self) {
        // Unix sockets have no such thing, and need none: what is not read goes with the socket.
        let _ = rustix::net::sockopt::set_socket_linger(&self.0, Some(Duration::ZERO));
    }

    /// Whether [`Transport::cut`] was called.
    pub fn was_cut(&self) -> bool {
        self.1.load(Ordering::SeqCst)
    }

    /// Blocks until it is ready, or answers `false` after `timeout`. Only streams wait, never a parked connection.
    pub fn wait(&self, wait: Wait, timeout: Duration) -> io::Result<bool> {
        let events = match wait {
            Wait::Readable => PollFlags::IN,
            Wait::Writable => PollFlags::OUT,
        };
        let timeout = Timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos() as _ };
        let mut fds = [PollFd::new(&self.0, events)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes that the peer has not yet acknowledged: how a slow reader that makes progress is told from one that does
    /// not, since the send buffer is only reported writable when a third is free.
    pub fn unsent(&self) -> io::Result<u64> {
        crate::sys::socket_options::unsent(&self.0)
    }
}

impl AsRawFd for Transport {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
