//! A response on its way out: pulled as the client makes room, never pushed against it.

use super::close_reason::CloseReason;
use super::context::SCRATCH;
use super::exchange::{Answer, Exchange};
use super::pace::Window;
use super::stream::Delimiter;
use super::transport::{Moved, Transport};
use super::turn::{self, Turn};
use crate::api::Bytes;
use http1::response;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A response that is being written. What was encoded and not sent is in the worker's buffer during a turn, and in
/// `unsent` while parked.
pub(super) struct Writing {
    pub unsent: Vec<u8>,
    pub source: ResponseBody,
    pub after: After,
    /// The client has taken too little for too long; only a worker may drop what is left.
    pub expired: bool,
    /// In which the client has to take its share.
    pub window: Window,
    /// While it waits, unless it was cut; in a turn it is the worker's.
    pub exchange: Option<Exchange>,
    pub answer: Answer,
}

/// Where the rest of a body comes from.
pub(super) enum ResponseBody {
    None,
    Bytes {
        bytes: Bytes,
        at: usize,
    },
    /// Sent by the kernel, or, where it does not do that, by reading it.
    File {
        file: Arc<File>,
        offset: u64,
        end: u64,
        by_reading: bool,
    },
    Reader {
        reader: Box<dyn Read + Send>,
        left: Option<u64>,
        delimiter: Delimiter,
        ended: bool,
    },
}

impl ResponseBody {
    pub fn file(file: Arc<File>, offset: u64, end: u64) -> ResponseBody {
        ResponseBody::File { file, offset, end, by_reading: false }
    }
}

/// What follows a response.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    /// The next request.
    Head,
    /// Close: the client expects it and has sent nothing more.
    Close(CloseReason),
    /// FIN, then wait for the client to close.
    Linger(CloseReason),
}

pub(super) enum Progress {
    Done,
    /// The client has to read first.
    Blocked,
    /// Others first.
    TurnOver,
    Failed(CloseReason),
}

impl Writing {
    pub fn new(source: ResponseBody, after: After) -> Writing {
        Writing {
            unsent: Vec::new(),
            source,
            after,
            expired: false,
            window: Window::default(),
            exchange: None,
            answer: Answer::default(),
        }
    }

    /// What a successor is told of the exchange.
    pub fn moved_line(&self) -> String {
        self.exchange.as_ref().map_or_else(String::new, |exchange| exchange.moved_line(self.answer))
    }

    /// Method and target of what it answers, while it waits; empty where no head was understood.
    pub fn line(&self) -> &str {
        self.exchange.as_ref().map_or("", Exchange::kept_line)
    }

    /// Bytes that it keeps on the heap.
    pub fn held(&self) -> usize {
        let source = match &self.source {
            ResponseBody::Bytes { bytes: Bytes::Owned(bytes), .. } => bytes.capacity(),
            // A copy is in `unsent` by now, or others have it too; but it may be the last that keeps it.
            ResponseBody::Bytes { bytes: Bytes::Shared(bytes), .. } => bytes.len(),
            _ => 0,
        };
        self.unsent.capacity() + self.exchange.as_ref().map_or(0, Exchange::held) + source
    }

    /// Sends as much as the client and the turn's budget allow.
    pub fn advance(
        &mut self,
        socket: &Transport,
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
        turn: &mut Turn<'_>,
        sent: &mut u64,
    ) -> Progress {
        loop {
            match self.step(socket, out, scratch) {
                Ok(Step::Done) => return Progress::Done,
                Ok(Step::Moved(Moved::Bytes(bytes))) => {
                    *sent += bytes as u64;
                    turn.moved(bytes as u64);
                }
                Ok(Step::Moved(Moved::WouldBlock)) => return Progress::Blocked,
                // The file or the reader ended before the length that the head promised (RFC 9112 §6.3: the
                // client must see that it is incomplete, so the connection ends here).
                Ok(Step::Moved(Moved::End)) => return Progress::Failed(CloseReason::Truncated),
                Err(error) => return Progress::Failed(CloseReason::from_error(&error)),
            }
            if !self.is_out(out) && turn.is_over() {
                return Progress::TurnOver;
            }
        }
    }

    /// Whether nothing is left: a turn more would be for nothing.
    fn is_out(&self, out: &[u8]) -> bool {
        out.is_empty()
            && match &self.source {
                ResponseBody::None => true,
                ResponseBody::Bytes { bytes, at } => *at == bytes.len(),
                ResponseBody::File { offset, end, .. } => offset == end,
                ResponseBody::Reader { ended, .. } => *ended,
            }
    }

    fn step(&mut self, socket: &Transport, out: &mut Vec<u8>, scratch: &mut Vec<u8>) -> io::Result<Step> {
        match &mut self.source {
            ResponseBody::Bytes { bytes, at } if !out.is_empty() && *at < bytes.len() => {
                let moved = socket.send_two(out, &bytes[*at..])?;
                if let Moved::Bytes(sent) = moved {
                    let of_head = sent.min(out.len());
                    out.drain(..of_head);
                    *at += sent - of_head;
                }
                Ok(Step::Moved(moved))
            }
            source if !out.is_empty() => {
                let more = matches!(source, ResponseBody::File { offset, end, .. } if *offset < *end);
                let moved = socket.send(out, more)?;
                if let Moved::Bytes(sent) = moved {
                    out.drain(..sent);
                }
                Ok(Step::Moved(moved))
            }
            ResponseBody::Bytes { bytes, at } if *at < bytes.len() => {
                let moved = socket.send(&bytes[*at..], false)?;
                if let Moved::Bytes(sent) = moved {
                    *at += sent;
                }
                Ok(Step::Moved(moved))
            }
            ResponseBody::File { file, offset, end, by_reading } if *offset < *end => {
                let left = usize::try_from(*end - *offset).unwrap_or(usize::MAX);
                if !*by_reading {
                    // One call moves at most a turn's worth: sendfile(2) would go on to 2 GiB.
                    if let Some(moved) = socket.send_file(&*file, offset, left.min(turn::BYTES as usize))? {
                        return Ok(Step::Moved(moved));
                    }
                    *by_reading = true;
                }
                // What the socket does not take is read again: nothing has to be kept while the client is slow.
                scratch.resize(SCRATCH, 0);
                let read = read_some(&mut At { file, offset: *offset }, &mut scratch[..left.min(SCRATCH)])?;
                if read == 0 {
                    return Ok(Step::Moved(Moved::End));
                }
                let moved = socket.send(&scratch[..read], read < left)?;
                if let Moved::Bytes(sent) = moved {
                    *offset += sent as u64;
                }
                Ok(Step::Moved(moved))
            }
            ResponseBody::Reader { reader, left, delimiter, ended } if !*ended => {
                scratch.resize(SCRATCH, 0);
                let room = left.map_or(SCRATCH, |left| usize::try_from(left).unwrap_or(SCRATCH).min(SCRATCH));
                let read = if room == 0 { 0 } else { read_some(reader, &mut scratch[..room])? };
                *ended = read == 0;
                match (*delimiter, read, &mut *left) {
                    (_, 0, Some(1..)) => return Ok(Step::Moved(Moved::End)),
                    (Delimiter::Chunks, 0, _) => out.extend_from_slice(response::LAST_CHUNK),
                    (Delimiter::Chunks, _, _) => {
                        response::push_chunk_size(out, read);
                        out.extend_from_slice(&scratch[..read]);
                        out.extend_from_slice(b"\r\n");
                    }
                    (_, _, left) => {
                        if let Some(left) = left {
                            *left -= read as u64;
                        }
                        out.extend_from_slice(&scratch[..read]);
                    }
                }
                Ok(if out.is_empty() { Step::Done } else { Step::Moved(Moved::Bytes(0)) })
            }
            _ => Ok(Step::Done),
        }
    }
}

enum Step {
    Done,
    Moved(Moved),
}

/// A file from there on, whatever others that send it do.
struct At<'f> {
    file: &'f File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buf, self.offset)
    }
}

fn read_some(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{OFlags, fcntl_setfl};
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    /// What a client gets of a file, and whether it was read at the end. `refused`: sendfile(2) says EINVAL, which it does
    /// to a descriptor with O_APPEND as to a file system without.
    fn sent(path: &Path, length: u64, refused: bool) -> (Vec<u8>, bool) {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        let append = if refused { OFlags::APPEND } else { OFlags::empty() };
        fcntl_setfl(&ours, OFlags::NONBLOCK | append).expect("flags");
        theirs.set_nonblocking(true).expect("not blocking");
        let socket = Transport::new(ours.into());
        let file = Arc::new(File::open(path).expect("a file"));
        let mut writing = Writing::new(ResponseBody::file(file, 0, length), After::Head);
        let (mut out, mut scratch, mut received) = (b"head ".to_vec(), Vec::new(), Vec::new());
        let mut taken = [0; 3000];
        loop {
            let mut turn = Turn::new(&|| true);
            let progress = writing.advance(&socket, &mut out, &mut scratch, &mut turn, &mut 0);
            // Not all of it each time, so that the socket is mostly full.
            while let Ok(read @ 1..) = theirs.read(&mut taken) {
                received.extend_from_slice(&taken[..read]);
                if matches!(progress, Progress::Blocked) && received.len() % 4 != 0 {
                    break;
                }
            }
            match progress {
                Progress::Done => break,
                Progress::Failed(reason) => panic!("{reason:?} after {} bytes", received.len()),
                Progress::Blocked | Progress::TurnOver => {}
            }
        }
        let ResponseBody::File { by_reading, .. } = writing.source else { panic!("a file") };
        (received, by_reading)
    }

    #[test]
    fn a_file_that_sendfile_refuses_is_read_and_not_left_out_behind_its_head() {
        let path = std::env::temp_dir().join(format!("handover-writing-{}", std::process::id()));
        let content: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &content).expect("a file");
        for refused in [true, false] {
            let (received, by_reading) = sent(&path, content.len() as u64, refused);
            assert_eq!(by_reading, refused);
            assert!(received == [b"head ", &content[..]].concat(), "{refused}");
        }
        std::fs::remove_file(path).expect("removed");
    }

    #[test]
    fn a_file_of_proc_is_sent() {
        let path = Path::new("/proc/version");
        let content = std::fs::read(path).expect("a file");
        let (received, _) = sent(path, content.len() as u64, false);
        assert_eq!(received, [b"head ", &content[..]].concat());
    }
}
