//! A client that speaks raw bytes, with deadlines.

use super::PATIENCE;
use handover::Bound;
use rustix::net::RecvFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Once;

/// A connection to a server. Every read and write fails after [`PATIENCE`].
pub struct RawClient {
    stream: Stream,
    /// Read and not yet asked for.
    buffer: Vec<u8>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// How a connection ended, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// FIN: an orderly end.
    Fin,
    /// RST, or a broken pipe.
    Reset,
    /// Nothing came in time.
    Silence,
}

/// A response.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The head as it came.
    pub head: String,
}

impl Answer {
    /// One whose body is still to come.
    fn of_head(bytes: &[u8]) -> Answer {
        let head = String::from_utf8(bytes.to_vec()).expect("a head in ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .unwrap_or_else(|| panic!("no status line: {status_line:?}"));
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no header line: {line:?}")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Answer { status, headers, body: Vec::new(), head }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// Whether it says `Connection: close`.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:.300}", self.head, String::from_utf8_lossy(&self.body))
    }
}

impl RawClient {
    /// Connects.
    pub fn to(bound: &Bound) -> RawClient {
        RawClient::try_to(bound).unwrap_or_else(|error| panic!("cannot connect to {bound}: {error}"))
    }

    /// Connects, if somebody listens.
    pub fn try_to(bound: &Bound) -> io::Result<RawClient> {
        raise_open_files();
        let stream = match bound {
            Bound::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Stream::Tcp(stream)
            }
            Bound::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Stream::Unix(stream)
            }
        };
        Ok(RawClient { stream, buffer: Vec::new() })
    }

    /// Connects over TCP from that address of this host.
    #[track_caller]
    pub fn from(source: &str, bound: &Bound) -> RawClient {
        let Bound::Tcp(address) = bound else { panic!("only TCP has addresses: {bound}") };
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let source = std::net::SocketAddr::new(source.parse().expect("an address"), 0);
        socket.bind(&source.into()).expect("an address of this host");
        socket.connect(&(*address).into()).expect("somebody listens");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("an open socket");
        RawClient { stream: Stream::Tcp(stream), buffer: Vec::new() }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut RawClient {
        self.try_send(bytes).expect("the server takes what is sent");
        self
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes.as_ref()),
            Stream::Unix(stream) => stream.write_all(bytes.as_ref()),
        }
    }

    /// Sends one byte of urgent data over TCP (tcp(7)): it is no part of the stream.
    pub fn send_urgent(&mut self) {
        let Stream::Tcp(stream) = &self.stream else { panic!("only TCP has urgent data") };
        assert_eq!(rustix::net::send(stream, b"!", rustix::net::SendFlags::OOB), Ok(1));
    }

    /// Sends with a descriptor beside the bytes, over a Unix socket (unix(7)).
    pub fn send_with_descriptor(&mut self, bytes: &[u8]) {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let Stream::Unix(stream) = &self.stream else { panic!("only Unix sockets pass descriptors") };
        let file = std::fs::File::open("/dev/null").expect("/dev/null");
        let descriptors = [std::os::fd::AsFd::as_fd(&file)];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let sent = sendmsg(stream, &[io::IoSlice::new(bytes)], &mut ancillary, SendFlags::empty());
        assert_eq!(sent, Ok(bytes.len()));
    }

    /// Sends in pieces of `step` bytes, each in a segment of its own. A server that has answered already may be gone.
    pub fn try_send_in_steps(&mut self, bytes: &[u8], step: usize) -> io::Result<()> {
        bytes.chunks(step).try_for_each(|piece| self.try_send(piece))
    }

    /// A GET that keeps the connection.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> &mut RawClient {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    /// A POST that keeps the connection.
    #[track_caller]
    pub fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> &mut RawClient {
        let body = body.as_ref();
        let head = format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send([head.as_bytes(), body].concat())
    }

    /// Says that nothing more will come, and goes on reading.
    pub fn finish(&mut self) -> &mut RawClient {
        let done = match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
        done.expect("shutdown");
        self
    }

    /// Goes away with a reset, as a client does that dies with bytes unread.
    pub fn vanish(self) {
        if let Stream::Tcp(stream) = &self.stream {
            let socket = socket2::SockRef::from(stream);
            socket.set_linger(Some(std::time::Duration::ZERO)).expect("SO_LINGER");
        }
    }

    /// The same connection for another thread, which sees nothing of what this one has buffered.
    pub fn clone(&self) -> RawClient {
        let stream = match &self.stream {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone().expect("a descriptor")),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone().expect("a descriptor")),
        };
        RawClient { stream, buffer: Vec::new() }
    }

    /// A window that does not grow, so that a large response soon has to wait for this client. It holds more than
    /// one segment of the loopback interface: less, and the kernels wait for each other.
    pub fn with_small_window(self) -> RawClient {
        if let Stream::Tcp(stream) = &self.stream {
            socket2::SockRef::from(stream).set_recv_buffer_size(128 * 1024).expect("SO_RCVBUF");
        }
        self
    }

    pub fn local_port(&self) -> u16 {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().expect("an address").port(),
            Stream::Unix(_) => 0,
        }
    }

    /// The next response, to a request that was not HEAD.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer(false).map_err(|failure| incomplete(&failure)).expect("an answer")
    }

    /// The next response, to a HEAD request.
    #[track_caller]
    pub fn answer_to_head(&mut self) -> Answer {
        self.try_answer(true).map_err(|failure| incomplete(&failure)).expect("an answer")
    }

    /// The next response; or how the connection ended instead, and what had come of one.
    pub fn try_answer(&mut self, to_head: bool) -> Result<Answer, (Ending, Vec<u8>)> {
        let end = self.read_until(|buffer| find(buffer, b"\r\n\r\n").map(|at| at + 4))?;
        let mut answer = Answer::of_head(&self.buffer[..end]);
        let status = answer.status;
        let without_body = to_head || matches!(status, 100..=199 | 204 | 304);
        if without_body {
            self.buffer.drain(..end);
        } else if answer.header("transfer-encoding").is_some() {
            assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
            assert_eq!(answer.header("content-length"), None);
            let length = self.read_until(|buffer| chunks_end(&buffer[end..]).map(|length| end + length))?;
            answer.body = dechunk(&self.buffer[end..length]);
            self.buffer.drain(..length);
        } else if let Some(length) = answer.header("content-length") {
            let length = end + length.parse::<usize>().expect("a length");
            self.read_until(|buffer| (buffer.len() >= length).then_some(length))?;
            answer.body = self.buffer[end..length].to_vec();
            self.buffer.drain(..length);
        } else {
            match self.read_until(|_| None) {
                Err((Ending::Fin, buffer)) => answer.body = buffer[end..].to_vec(),
                other => panic!("a body that FIN ends ended otherwise: {other:?}"),
            }
        }
        Ok(answer)
    }

    /// The head of the next response, whose body is for the caller to read.
    #[track_caller]
    pub fn head(&mut self) -> Answer {
        let head = self.read_past(b"\r\n\r\n").map_err(|failure| incomplete(&failure)).expect("a head");
        Answer::of_head(&head)
    }

    /// The next chunk of a body, `None` for the last; or how the connection ended instead.
    pub fn chunk(&mut self) -> Result<Option<Vec<u8>>, (Ending, Vec<u8>)> {
        let size = self.read_past(b"\r\n")?;
        let size = std::str::from_utf8(&size).expect("a chunk size").trim_end();
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("no chunk size: {size:?}"));
        let mut chunk = self.read_exactly(size + 2)?;
        assert_eq!(chunk.split_off(size), b"\r\n", "a chunk ends in CRLF");
        Ok((size > 0).then_some(chunk))
    }

    /// Reads until `done` answers where; that much stays in front of the buffer.
    fn read_until(&mut self, done: impl Fn(&[u8]) -> Option<usize>) -> Result<usize, (Ending, Vec<u8>)> {
        loop {
            if let Some(at) = done(&self.buffer) {
                return Ok(at);
            }
            if let Err(ending) = self.read_more() {
                return Err((ending, std::mem::take(&mut self.buffer)));
            }
        }
    }

    /// Reads at least `count` bytes more than are buffered, whatever they are, and answers all that are.
    pub fn read_at_least(&mut self, count: usize) -> &[u8] {
        while self.buffer.len() < count {
            let read = self.read_more();
            assert_eq!(read, Ok(()), "{} of {count} bytes came", self.buffer.len());
        }
        &self.buffer
    }

    /// The same, or how the connection ended before.
    pub fn try_read_at_least(&mut self, count: usize) -> Result<&[u8], Ending> {
        while self.buffer.len() < count {
            self.read_more()?;
        }
        Ok(&self.buffer)
    }

    /// Reads up to those bytes, and answers what came with them at its end; or how the connection ended before.
    pub fn read_past(&mut self, end: &[u8]) -> Result<Vec<u8>, (Ending, Vec<u8>)> {
        let at = self.read_until(|buffer| find(buffer, end).map(|at| at + end.len()))?;
        Ok(self.buffer.drain(..at).collect())
    }

    /// Reads so many bytes; or how the connection ended before.
    pub fn read_exactly(&mut self, count: usize) -> Result<Vec<u8>, (Ending, Vec<u8>)> {
        self.read_until(|buffer| (buffer.len() >= count).then_some(count))?;
        Ok(self.buffer.drain(..count).collect())
    }

    /// Whether something has come already.
    pub fn has_answer(&self) -> bool {
        let mut byte = [0];
        let peeked = match &self.stream {
            Stream::Tcp(stream) => rustix::net::recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT),
            Stream::Unix(stream) => rustix::net::recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT),
        };
        !self.buffer.is_empty() || peeked.is_ok()
    }

    fn read_more(&mut self) -> Result<(), Ending> {
        let mut bytes = [0; 64 * 1024];
        let read = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut bytes),
            Stream::Unix(stream) => stream.read(&mut bytes),
        };
        match read {
            Ok(0) => Err(Ending::Fin),
            Ok(read) => {
                self.buffer.extend_from_slice(&bytes[..read]);
                Ok(())
            }
            // With a timeout set, a stop and SIGCONT of the process are enough (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(Ending::Silence)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                Err(Ending::Reset)
            }
            Err(error) => panic!("cannot read: {error}"),
        }
    }

    /// Reads to the end: what came, and how it ended.
    pub fn rest(&mut self) -> (Vec<u8>, Ending) {
        loop {
            if let Err(ending) = self.read_more() {
                return (std::mem::take(&mut self.buffer), ending);
            }
        }
    }

    /// The server closes in an orderly way and says nothing more.
    #[track_caller]
    pub fn expect_fin(&mut self) {
        let (mut rest, ending) = self.rest();
        rest.truncate(300);
        assert_eq!((String::from_utf8_lossy(&rest).as_ref(), ending), ("", Ending::Fin));
    }

    /// The connection lives: another request gets its answer.
    #[track_caller]
    pub fn expect_alive(&mut self, path: &str) {
        let answer = self.get(path).answer();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// The clients of all tests are in one process, and some tests have many hundreds.
pub(super) fn raise_open_files() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let wanted = maximum.map_or(4096, |maximum| maximum.min(4096));
        if current.is_some_and(|current| current < wanted) {
            setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).expect("up to what is allowed");
        }
    });
}

/// Nobody wants to read megabytes.
fn incomplete((ending, rest): &(Ending, Vec<u8>)) -> String {
    let beginning = String::from_utf8_lossy(&rest[..rest.len().min(300)]).into_owned();
    format!("no complete answer but {ending:?} after {} bytes: {beginning:?}", rest.len())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Where a chunked body without trailers ends, if all of it is there.
fn chunks_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = at + find(&bytes[at..], b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..line]).expect("a chunk size");
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("no chunk size: {size:?}"));
        let end = line + 2 + size + 2;
        let tail = bytes.get(end - 2..end)?;
        assert_eq!(tail, b"\r\n", "a chunk ends in CRLF");
        if size == 0 {
            return Some(end);
        }
        at = end;
    }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = find(bytes, b"\r\n") {
        let size = std::str::from_utf8(&bytes[..line]).expect("a chunk size");
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        body.extend_from_slice(&bytes[line + 2..line + 2 + size]);
        bytes = &bytes[line + 2 + size + 2..];
    }
    body
}

/// A Unix socket or an address, as `listening on` says it.
pub fn parse_bound(url: &str) -> Bound {
    match url.strip_prefix("http+unix:") {
        Some(path) => Bound::Unix(PathBuf::from(path)),
        None => {
            let address = url.strip_prefix("http://").unwrap_or_else(|| panic!("no URL: {url:?}"));
            Bound::Tcp(address.parse().unwrap_or_else(|_| panic!("no address: {url:?}")))
        }
    }
}
