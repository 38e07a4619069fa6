//! A server in this process.

use super::{PATIENCE, RawClient};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use handover::{Bound, Builder, Ended, Error, Limits, Router, Server, StopHandle};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Longer than any test: a limit that is not the one under test.
pub const LATE: Duration = Duration::from_secs(60);

/// Limits that do not interfere, however slow the machine is.
pub fn patient() -> Limits {
    Limits { head_timeout: LATE, body_timeout: LATE, idle_timeout: LATE, queue_timeout: LATE, ..Limits::default() }
}

/// An application that says hello.
pub fn hello() -> Router {
    Router::new().get("/hello", |_| "hello\n")
}

/// The same, with a handler behind a gate as well.
pub fn gated() -> (Gate, Router) {
    gated_beside(hello())
}

/// That application, with a handler behind a gate as well.
pub fn gated_beside(routes: Router) -> (Gate, Router) {
    let (gate, passage) = Gate::new();
    let routes = routes.get("/gate", move |_| {
        passage.pass();
        "through\n"
    });
    (gate, routes)
}

/// A server on a free port of 127.0.0.1, without signals, stopped on drop.
pub struct TestServer {
    pub bound: Bound,
    pub handle: StopHandle,
    thread: Option<JoinHandle<()>>,
    ended: Receiver<Result<Ended, Error>>,
}

impl TestServer {
    /// Starts what `builder` describes; it must have a handler and no listener.
    pub fn start(builder: Builder) -> TestServer {
        TestServer::start_at(builder, "127.0.0.1:0")
    }

    /// Starts it on `address`.
    pub fn start_at(builder: Builder, address: &str) -> TestServer {
        let server: Server = builder.signals(false).bind(address).expect("an address").build().expect("a server");
        let bound = server.listening().remove(0);
        let handle = server.stop_handle();
        let (sender, ended) = bounded(1);
        let thread = thread::spawn(move || {
            let _ = sender.send(server.run());
        });
        TestServer { bound, handle, thread: Some(thread), ended }
    }

    pub fn client(&self) -> RawClient {
        RawClient::to(&self.bound)
    }

    /// A client whose request a handler has, behind that gate.
    pub fn client_at(&self, gate: &Gate) -> RawClient {
        let mut client = self.client();
        client.get("/gate");
        gate.wait();
        client
    }

    /// A client with another address of this host, all of 127.0.0.0/8 being such.
    pub fn client_from(&self, source: &str) -> RawClient {
        RawClient::from(source, &self.bound)
    }

    /// Waits until it has ended.
    pub fn ended(mut self) -> Ended {
        let ended = self.ended.recv_timeout(PATIENCE).expect("the server ends").expect("it ran");
        self.join();
        ended
    }

    /// Stops it gracefully and waits.
    pub fn stop(self) -> Ended {
        self.handle.stop();
        self.ended()
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let joined = thread.join();
            assert!(joined.is_ok() || thread::panicking(), "the server's main thread panicked");
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.handle.stop_now();
        if self.thread.is_some() && self.ended.recv_timeout(PATIENCE).is_ok() {
            self.join();
        }
    }
}

/// Holds handlers back until the test lets them go, and tells the test that they have come.
///
/// A gate that is dropped opens, so that a failing test leaves no handler behind.
pub struct Gate {
    came: Receiver<()>,
    go: Sender<()>,
}

/// The handlers' side of a [`Gate`].
#[derive(Clone)]
pub struct Passage {
    came: Sender<()>,
    go: Receiver<()>,
}

impl Gate {
    pub fn new() -> (Gate, Passage) {
        let ((came, has_come), (go, may_go)) = (unbounded(), unbounded());
        (Gate { came: has_come, go }, Passage { came, go: may_go })
    }

    /// Waits until a handler stands there.
    pub fn wait(&self) {
        self.came.recv_timeout(PATIENCE).expect("a handler comes to the gate");
    }

    /// Whether a handler came that nobody has waited for.
    pub fn has_come(&self) -> bool {
        !self.came.is_empty()
    }

    /// Lets one through.
    pub fn open(&self) {
        let _ = self.go.send(());
    }
}

impl Passage {
    /// Says that a handler is here, and waits until it may go.
    pub fn pass(&self) {
        let _ = self.came.send(());
        let _ = self.go.recv_timeout(PATIENCE);
    }
}
