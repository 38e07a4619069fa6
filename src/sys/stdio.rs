//! stdout and stderr, written without waiting for whoever reads them.
//!
//! A pipe, a terminal or a socket that nobody reads is full some day, and a write that waits for room waits for ever,
//! with all that waits for it: a stop, its deadline, a reload. O_NONBLOCK is of the open file description, which the
//! shell, the supervisor and the other generations share, so it is not for us to set. Instead
//!
//! - a socket takes MSG_DONTWAIT for each message;
//! - a pipe or a terminal is opened once more, as a description of our own. That is refused where it belongs to another
//!   user or there is no `/proc`;
//! - then RWF_NOWAIT is tried, which pipes know since Linux 6.4;
//! - then it is asked whether there is room, and no more is written than a pipe with room takes as a whole. Only here
//!   can another process that writes to the same pipe be faster, and make us wait for the reader.
//!
//! Files, and devices other than terminals, wait for nobody.

use super::readiness;
use rustix::event::PollFlags;
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, open};
use rustix::io::{Errno, ReadWriteFlags, pwritev2, write};
use rustix::net::{SendFlags, send};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long one that is full may take to have room again. Who calls gives it once, and again only after something could
/// be written: a reader that is merely busy misses nothing, and one that is gone costs this once.
pub const MOMENT: Duration = Duration::from_millis(50);

/// What a pipe that can be written to takes as a whole: PIPE_BUF.
const PIPE_BUF: usize = 4096;

/// One of the two standard streams that are written to.
#[derive(Debug)]
pub struct Stream {
    fd: BorrowedFd<'static>,
    own: Option<Own>,
}

/// The stream's pipe or terminal, opened once more. The application may have put another in its place since.
#[derive(Debug)]
struct Own {
    of: (u64, u64),
    fd: OwnedFd,
}

impl Stream {
    pub fn stdout() -> Stream {
        Stream { fd: rustix::stdio::stdout(), own: None }
    }

    pub fn stderr() -> Stream {
        Stream { fd: rustix::stdio::stderr(), own: None }
    }

    /// Writes as much as can be written within that time. Fails if nothing could be.
    pub fn write_within(&mut self, bytes: &[u8], patience: Duration) -> io::Result<usize> {
        let fd = self.fd;
        write_within(fd, bytes, patience, |bytes| self.write_now(bytes))
    }

    fn write_now(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let stat = fstat(self.fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            // A reader that is gone is an error and not SIGPIPE, which a server ignores anyway.
            FileType::Socket => send(self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            FileType::Fifo => self.write_without_waiting(bytes, &stat),
            FileType::CharacterDevice if rustix::termios::isatty(self.fd) => self.write_without_waiting(bytes, &stat),
            _ => write(self.fd, bytes),
        }
    }

    fn write_without_waiting(&mut self, bytes: &[u8], stat: &Stat) -> Result<usize, Errno> {
        if let Some(own) = self.own(stat) {
            return write(own, bytes);
        }
        match pwritev2(self.fd, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT) {
            Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::SPIPE) => self.write_if_there_is_room(bytes),
            written => written,
        }
    }

    fn own(&mut self, stat: &Stat) -> Option<&OwnedFd> {
        let of = identity(stat);
        if self.own.as_ref().is_none_or(|own| own.of != of) {
            let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            self.own = match open(path, flags, Mode::empty()) {
                // Whatever stands there meanwhile.
                Ok(fd) if fstat(&fd).is_ok_and(|stat| identity(&stat) == of) => Some(Own { of, fd }),
                _ => None,
            };
        }
        self.own.as_ref().map(|own| &own.fd)
    }

    fn write_if_there_is_room(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match has_room_within(self.fd, Duration::ZERO) {
            true => write(self.fd, &bytes[..bytes.len().min(PIPE_BUF)]),
            false => Err(Errno::AGAIN),
        }
    }
}

/// Whether stdout and stderr lead to the same place: a terminal, a pipe, a journal.
pub fn are_one() -> bool {
    let of = |fd| fstat(fd).ok().map(|stat| identity(&stat));
    of(rustix::stdio::stdout()).is_some_and(|stdout| of(rustix::stdio::stderr()) == Some(stdout))
}

fn identity(stat: &Stat) -> (u64, u64) {
    #[allow(clippy::unnecessary_cast, reason = "narrower on some platforms")]
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// Writes as much as can be written within that time, in as many calls of `now` as that takes; `now` does not wait.
pub fn write_within(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    patience: Duration,
    mut now: impl FnMut(&[u8]) -> Result<usize, Errno>,
) -> io::Result<usize> {
    let until = Instant::now() + patience;
    let mut written = 0;
    while written < bytes.len() {
        let error = match now(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => {
                written += more;
                continue;
            }
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() && has_room_within(fd, left) {
                    continue;
                }
                Errno::AGAIN
            }
            Err(error) => error,
        };
        return if written > 0 { Ok(written) } else { Err(error.into()) };
    }
    Ok(written)
}

/// Whether it can be written to before that time is over. What fails then does so in the write.
fn has_room_within(fd: BorrowedFd<'_>, patience: Duration) -> bool {
    // No signal interrupts it in a thread of ours; if one does, the time is over.
    readiness::wait(fd, PollFlags::OUT, patience).unwrap_or(false)
}

/// The same for what was opened with O_NONBLOCK, or is a file.
pub fn write_to(file: impl AsFd, bytes: &[u8], patience: Duration) -> io::Result<usize> {
    let fd = file.as_fd();
    write_within(fd, bytes, patience, |bytes| write(fd, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, Read};

    /// A pipe of one page that is full but for so much.
    fn pipe_with_room(room: usize) -> (PipeReader, Stream) {
        let (reader, writer) = io::pipe().expect("a pipe");
        rustix::pipe::fcntl_setpipe_size(&writer, PIPE_BUF).expect("F_SETPIPE_SZ");
        write(&writer, &vec![b'x'; PIPE_BUF - room]).expect("an empty pipe takes it");
        // A stream's descriptor is there as long as the process; so is this one.
        let writer: &'static _ = Box::leak(Box::new(writer));
        (reader, Stream { fd: writer.as_fd(), own: None })
    }

    #[test]
    fn a_pipe_that_cannot_be_opened_once_more_is_written_to_only_if_it_has_room() {
        let (mut reader, stream) = pipe_with_room(0);
        assert_eq!(stream.write_if_there_is_room(b"line\n"), Err(Errno::AGAIN));
        reader.read_exact(&mut [0; PIPE_BUF]).expect("what filled it");
        assert_eq!(stream.write_if_there_is_room(&[b'y'; 3 * PIPE_BUF]), Ok(PIPE_BUF), "what it takes without waiting");
        drop(reader);
        assert_eq!(stream.write_if_there_is_room(b"line\n"), Err(Errno::PIPE), "nobody will ever read it");
    }

    #[test]
    fn a_full_pipe_is_waited_for_no_longer_than_said_and_keeps_its_flags() {
        let (mut reader, mut stream) = pipe_with_room(0);
        let begun = Instant::now();
        let full = stream.write_within(b"line\n", MOMENT).expect_err("it is full");
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(begun.elapsed() >= MOMENT);
        assert!(!rustix::fs::fcntl_getfl(stream.fd).expect("flags").contains(OFlags::NONBLOCK));
        let busy = std::thread::spawn(move || reader.read_exact(&mut [0; PIPE_BUF]).map(|()| reader));
        // Long enough for a thread that begins to read, whatever else this host does.
        assert_eq!(stream.write_within(b"line\n", MOMENT * 600).expect("somebody reads"), 5);
        drop(busy.join().expect("no panic").expect("what filled it"));
    }

    /// The application may put another file there at any time.
    #[test]
    fn a_stream_that_became_another_is_seen() {
        let ((first, mut stream), (mut second, other)) = (pipe_with_room(100), pipe_with_room(100));
        assert_eq!(stream.write_within(b"one\n", Duration::ZERO).expect("there is room"), 4);
        stream.fd = other.fd;
        assert_eq!(stream.write_within(b"two\n", Duration::ZERO).expect("there is room"), 4);
        let mut read = vec![0; PIPE_BUF - 96];
        second.read_exact(&mut read).expect("both");
        assert!(read.ends_with(b"xtwo\n"));
        drop(first);
    }
}
