//! A server in the process of a test.

use super::request::{Ask, RequestBuilder};
use super::response::Response;
use crate::server::{Builder, Ended, StopHandle};
use crate::{Bound, Error};
use crossbeam_channel::{Receiver, bounded};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

/// How long anything may take before its test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A real server on a free port of 127.0.0.1, which stops when this is dropped. A process may have several. It takes no
/// signals, whatever the builder says: these are the test program's, and Ctrl-C ends that.
///
/// ```
/// use handover::{Hub, Publishers, Router, test::Server};
///
/// let hub = Hub::new();
/// let events = hub.namespace("news").publishers(Publishers::Anyone);
/// let router = Router::new().mount_service("/events", events.service());
/// let server = Server::start(handover::Server::builder().hub(&hub).service(router))?;
///
/// assert_eq!(server.post("/events/weather").body("rain").send().status(), 200);
/// assert_eq!(server.get("/-/ready").send().text(), "ready\n");
/// assert_eq!(server.stop()?, handover::Ended::Clean);
/// # Ok::<(), handover::Error>(())
/// ```
pub struct Server {
    address: SocketAddr,
    handle: StopHandle,
    ended: Receiver<Result<Ended, Error>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Builds and starts what `builder` describes. Where that has addresses, the server listens at these too.
    ///
    /// # Errors
    /// As [`Builder::build`]; nothing to run, where the configuration only checks.
    pub fn start(builder: Builder) -> Result<Server, Error> {
        let server = builder.signals(false).bind("127.0.0.1:0")?.build()?;
        let handle = server.stop_handle();
        let bound = server.listening().into_iter().rev();
        let address = bound.filter_map(|bound| match bound {
            Bound::Tcp(address) => Some(address),
            Bound::Unix(_) => None,
        });
        let Some(address) = { address }.next() else {
            return Err(Error::usage(format_args!("a test server cannot run with `check` in its configuration")));
        };
        let (sender, ended) = bounded(1);
        let run = move || {
            let _ = sender.send(server.run());
        };
        let thread = thread::Builder::new().name("test server".into()).spawn(run);
        let thread = thread.map_err(|error| Error::runtime(format_args!("cannot start a thread"), error))?;
        Ok(Server { address, handle, ended, thread: Some(thread) })
    }

    /// Where it listens; see the example of [`url`](Server::url).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path there: `http://127.0.0.1:PORT/path`, for a client of another library.
    ///
    /// ```
    /// use handover::test::Server;
    /// let server = Server::start(handover::Server::builder().handler(|_| "hello"))?;
    /// assert_eq!(server.url("/a"), format!("http://{}/a", server.address()));
    /// # Ok::<(), handover::Error>(())
    /// ```
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A connection to it, whose reads fail after 30 s: for what goes on, as an event stream.
    ///
    /// ```
    /// use handover::test::Server;
    /// use std::io::{BufRead, BufReader, Write};
    ///
    /// let server = Server::start(handover::Server::builder().handler(|_| "hello"))?;
    /// let mut connection = server.connect();
    /// connection.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
    /// let status = BufReader::new(connection).lines().next().expect("a line").expect("received");
    /// assert_eq!(status, "HTTP/1.1 200 OK");
    /// # Ok::<(), handover::Error>(())
    /// ```
    ///
    /// # Panics
    /// A server that cannot be reached.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect_timeout(&self.address, PATIENCE).expect("the server can be reached");
        connection.set_read_timeout(Some(PATIENCE)).expect("a time");
        connection.set_write_timeout(Some(PATIENCE)).expect("a time");
        connection
    }

    /// A GET of that target, on a connection of its own.
    pub fn get(&self, target: &str) -> RequestBuilder<'_> {
        self.request("GET", target)
    }

    /// A POST, as [`get`](Server::get).
    pub fn post(&self, target: &str) -> RequestBuilder<'_> {
        self.request("POST", target)
    }

    /// A request of any method, as those in the example [above](Server).
    pub fn request(&self, method: &str, target: &str) -> RequestBuilder<'_> {
        RequestBuilder::new(self, method, target).header("Connection", "close")
    }

    /// One request as bytes, head and body, whatever is in them, on a connection that is read to its end: with
    /// `Connection: close`, or it is waited for.
    ///
    /// ```
    /// use handover::test::Server;
    /// let server = Server::start(handover::Server::builder().handler(|_| "hello"))?;
    /// assert_eq!(server.raw(b"GET / HTTP/1.1\r\n\r\n").status(), 400, "there is no Host");
    /// # Ok::<(), handover::Error>(())
    /// ```
    #[track_caller]
    pub fn raw(&self, request: &[u8]) -> Response {
        self.ask(request)
    }

    /// Stops it gracefully, as TERM would, and says how it ended; see the example [above](Server).
    ///
    /// # Errors
    /// What [`Server::run`](crate::Server::run) had to say.
    ///
    /// # Panics
    /// A server that has not ended after 30 s.
    pub fn stop(mut self) -> Result<Ended, Error> {
        self.handle.stop();
        let ended = self.ended.recv_timeout(PATIENCE).expect("the server ends");
        self.join();
        ended
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic of it has been seen, and shows as a server that has not answered.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.thread.is_none() {
            return;
        }
        self.handle.stop_now();
        // One that hangs is not waited for: the test has failed otherwise, or does not care.
        if self.ended.recv_timeout(PATIENCE).is_ok() {
            self.join();
        }
    }
}

impl Ask for Server {
    fn host(&self) -> String {
        self.address.to_string()
    }

    #[track_caller]
    fn ask(&self, request: &[u8]) -> Response {
        let mut connection = self.connect();
        // Who refuses a request early does not read on: its answer is what counts.
        let _ = connection.write_all(request);
        let mut answer = Vec::new();
        let read = connection.read_to_end(&mut answer);
        if let Err(error) = read {
            assert!(!answer.is_empty(), "no answer: {error}");
        }
        Response::read(&answer, request.starts_with(b"HEAD "))
    }
}
