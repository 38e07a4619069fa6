//! A connection without a server: each test drives it turn by turn, and says what each turn ended with.
//!
//! The client is the other end of a pair of Unix sockets, in the same thread: what it sends is there when the turn begins,
//! and what is sent to it is there when the turn has ended. The limits differ, so that a deadline tells which it is.

use super::transport::{Moved, Transport};
use super::writing::ResponseBody;
use super::{CloseReason, Connection, Expiry, Role, Shared, State, Turn};
use super::{Verdict, WorkerContext};
use crate::api::{Body, Handler, Request, Router};
use crate::clock::Millis;
use crate::config::{DRAIN_LINGER, Limits};
use crate::engine::slot::{Parked, Parking, Shed};
use http1::Reject;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const HELLO: &str = "GET /hello HTTP/1.1\r\nHost: test\r\n\r\n";
const READS: Parked = Parked {
    on_readable: true,
    on_writable: false,
    on_wake: false,
    refusable: false,
    wants_stream: false,
    movable: true,
    shed: None,
};
/// No request has begun.
const IDLE: Parked = Parked { refusable: true, shed: Some(Shed::Idle), ..READS };
const IN_HEAD: Parked = Parked { refusable: true, shed: Some(Shed::Late), ..READS };
const IN_BODY: Parked = Parked { shed: Some(Shed::Late), ..READS };
/// A body that a thread is to wait for.
const UPLOAD: Parked = Parked { wants_stream: true, ..IN_BODY };
/// A handler's own writing, for which a thread is to wait.
const PUSH: Parked = Parked { on_readable: false, wants_stream: true, movable: false, ..READS };
const WRITING: Parked = Parked { on_readable: false, on_writable: true, ..READS };
const LINGERING: Parked = Parked { shed: Some(Shed::Idle), ..READS };

fn limits() -> Limits {
    Limits {
        head_timeout: Duration::from_secs(100),
        body_timeout: Duration::from_secs(200),
        body_rate: 1000,
        idle_timeout: Duration::from_secs(300),
        write_timeout: Duration::from_secs(400),
        stream_wait: Duration::from_secs(500),
        linger: Duration::from_secs(600),
        buffered_body: 1000,
        ..Limits::default()
    }
}

fn routes() -> Router {
    Router::new()
        .get("/hello", |_| "hello\n")
        .post("/echo", |request: &mut Request| request.body_bytes())
        .get("/large", |_| vec![b'x'; 1_000_000])
        .get("/push", |_| Body::stream(|writer| writer.write_all(b"pushed\n")))
        .get("/read", |_| Body::reader(std::io::repeat(b'x'), None))
        .get("/file", |_| Body::file_range(file(), 1000, FILE))
}

/// What is sent of it.
const FILE: u64 = 1_000_000;

/// A file in memory, of bytes that differ.
fn file() -> File {
    let fd = rustix::fs::memfd_create("file", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
    let mut file = File::from(fd);
    let bytes: Vec<u8> = (0..1000 + FILE + 1000).map(|at| b'a' + (at % 23) as u8).collect();
    file.write_all(&bytes).expect("memory");
    file
}

/// A connection, its client, and the threads that drive it in turn.
struct Driven {
    connection: Connection,
    worker: WorkerContext,
    streamer: WorkerContext,
    client: UnixStream,
}

impl Driven {
    fn new() -> Driven {
        Driven::with(routes(), None)
    }

    /// With that application, and so many bytes for what waits.
    fn with(handler: impl Handler, memory: Option<u64>) -> Driven {
        Driven::through(Transport::new, handler, memory)
    }

    /// With a transport that can do no more than read and write.
    fn opaque() -> Driven {
        Driven::through(Transport::opaque, routes(), None)
    }

    fn through(transport: fn(OwnedFd) -> Transport, handler: impl Handler, memory: Option<u64>) -> Driven {
        Driven::of(transport, Shared::for_test(limits(), handler, memory))
    }

    /// With an application that has conversations in that hub.
    fn with_hub(handler: impl Handler, hub: &crate::push::Hub) -> Driven {
        let mut shared = Shared::for_test(limits(), handler, None);
        let own = Arc::get_mut(&mut shared).expect("nobody else has it");
        (own.hub, own.conversations) = (Some(hub.inner().clone()), hub.conversations().clone());
        own.sessions = hub.sessions().clone();
        Driven::of(Transport::new, shared)
    }

    fn of(transport: fn(OwnedFd) -> Transport, shared: Arc<Shared>) -> Driven {
        let context =
            |role, index: usize| WorkerContext::new(shared.clone(), role, index, shared.in_flight[index].clone());
        let (worker, streamer) = (context(Role::Worker, 0), context(Role::Streamer, 1));
        let (ours, client) = UnixStream::pair().expect("a socket pair");
        ours.set_nonblocking(true).expect("an open socket");
        client.set_nonblocking(true).expect("an open socket");
        Driven { connection: Connection::new(transport(ours.into()), None), worker, streamer, client }
    }

    fn shared(&self) -> &Shared {
        &self.worker.shared
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Driven {
        self.client.write_all(bytes.as_ref()).expect("room in the socket");
        self
    }

    /// A turn on a worker, for which nobody else waits.
    fn turn(&mut self) -> Verdict {
        self.worker.begin_turn();
        self.turn_at(self.worker.now)
    }

    /// The same, at that time.
    fn turn_at(&mut self, now: Millis) -> Verdict {
        self.worker.now = now;
        let verdict = self.connection.drive(&mut self.worker, &mut Turn::new(&|| false), false);
        self.worker.end_turn();
        verdict
    }

    /// A turn on a worker that ends after one request.
    fn short_turn(&mut self) -> Verdict {
        self.worker.begin_turn();
        self.connection.drive(&mut self.worker, &mut Turn::of_one_request(), false)
    }

    /// A turn on a thread that may wait for the client.
    fn streamers_turn(&mut self) -> Verdict {
        self.streamer.begin_turn();
        self.connection.drive(&mut self.streamer, &mut Turn::new(&|| false), false)
    }

    /// The acceptor finds that a deadline has passed.
    fn expire_at(&mut self, now: Millis) -> Expiry {
        self.connection.expire(&self.worker.shared, now, b"")
    }

    /// What has come at the client since the last time.
    fn received(&mut self) -> String {
        let mut bytes = Vec::new();
        // It ends with WouldBlock, or with FIN.
        let _ = self.client.read_to_end(&mut bytes);
        String::from_utf8(bytes).expect("UTF-8")
    }

    /// One answer has come, and it is that.
    #[track_caller]
    fn expect_answer(&mut self, status: &str, ends: &str) {
        let received = self.received();
        assert!(received.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{received:?}");
        assert!(received.ends_with(ends), "{received:?}");
        assert_eq!(received.matches("HTTP/1.1 ").count(), 1, "{received:?}");
    }

    /// What has ended since the last time, each in its words.
    fn ended(&self) -> Vec<String> {
        std::mem::take(&mut self.shared().stats.ended.lock().expect("no panic with it"))
    }

    /// Served, refused and cut so far.
    fn counted(&self) -> (u64, u64, usize) {
        let stats = &self.shared().stats;
        (stats.total_served(), stats.total_refused(), stats.total_cut())
    }

    /// The client sees FIN behind all that it was sent.
    #[track_caller]
    fn expect_fin(&mut self) {
        assert_eq!(self.client.read(&mut [0]).expect("FIN and no WouldBlock"), 0);
    }

    /// Its deadline has come and it waits on: until when.
    #[track_caller]
    fn waits_on_at(&mut self, at: Millis) -> Millis {
        assert_eq!(self.expire_at(at), Expiry::Park);
        self.connection.parking(&self.worker.shared, at).deadline
    }

    /// So long after the time at which the last turn of the worker ended.
    fn after(&self, duration: Duration) -> Millis {
        self.worker.now.after(duration)
    }
}

/// What it waits for, and until when.
#[track_caller]
fn park(verdict: Verdict) -> (Parked, Millis) {
    match verdict {
        Verdict::Park(parking) => (parking.parked, parking.deadline),
        _ => panic!("{verdict:?}, and not parked"),
    }
}

/// It waits for that, and answers until when.
#[track_caller]
fn parked(verdict: Verdict, parked: Parked) -> Millis {
    let (found, deadline) = park(verdict);
    assert_eq!(found, parked);
    deadline
}

#[test]
fn a_request_is_answered_and_the_next_one_waited_for() {
    let mut driven = Driven::new();
    assert_eq!(park(driven.turn()), (IDLE, driven.after(limits().idle_timeout)));
    for served in 1..=3 {
        let verdict = driven.send(HELLO).turn();
        assert_eq!(park(verdict), (IDLE, driven.after(limits().idle_timeout)));
        driven.expect_answer("200 OK", "\r\n\r\nhello\n");
        assert!(driven.connection.is_idle() && driven.connection.held() == 0, "it holds nothing while it is idle");
        assert_eq!(driven.shared().stats.total_served(), served);
    }
}

#[test]
fn a_head_in_pieces_has_one_deadline_from_its_first_byte() {
    let mut driven = Driven::new();
    driven.turn();
    let began = driven.worker.now;
    for (at, byte) in HELLO.bytes().enumerate() {
        let verdict = driven.send([byte]).turn_at(began.after(Duration::from_secs(at as u64)));
        if at + 1 < HELLO.len() {
            assert_eq!(park(verdict), (IN_HEAD, began.after(limits().head_timeout)), "at {at}");
            assert!(!driven.connection.is_idle());
        }
    }
    driven.expect_answer("200 OK", "hello\n");
    assert!(driven.connection.is_idle());
}

#[test]
fn a_head_that_is_late_is_refused_by_the_worker_and_by_the_acceptor() {
    for by_worker in [true, false] {
        let mut driven = Driven::new();
        let deadline = parked(driven.send("GET /hel").turn(), IN_HEAD);
        assert!(driven.connection.unfinished(deadline).is_some_and(|it| it.what.contains("GET /hel")));
        let until = deadline.after(limits().linger);
        if by_worker {
            // A trickle keeps the acceptor from seeing it parked.
            assert_eq!(park(driven.send("lo").turn_at(deadline)), (LINGERING, until));
        } else {
            assert_eq!(driven.waits_on_at(deadline), until);
        }
        driven.expect_answer("408 Request Timeout", "request head not received in time\n");
        driven.expect_fin();
        assert!(driven.connection.is_lingering() && driven.connection.unfinished(deadline).is_none());
    }
}

#[test]
fn a_body_in_pieces_is_collected_before_its_handler_runs() {
    let mut driven = Driven::new();
    driven.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n");
    let verdict = driven.turn();
    let began = driven.worker.now;
    assert_eq!(park(verdict), (IN_BODY, began.after(limits().body_timeout)));
    // Each byte buys time: a thousand of them a second.
    let verdict = driven.send("12345").turn_at(began.after(Duration::from_secs(7)));
    let later = began.after(limits().body_timeout + Duration::from_millis(5));
    assert_eq!(park(verdict), (IN_BODY, later));
    assert_eq!(driven.received(), "");
    // What stands behind it is the next request.
    let verdict = driven.send("67890").send(HELLO).turn();
    assert_eq!(park(verdict), (IDLE, driven.after(limits().idle_timeout)));
    let received = driven.received();
    assert!(received.contains("\r\n\r\n1234567890HTTP/1.1 200 OK\r\n") && received.ends_with("hello\n"), "{received}");
}

#[test]
fn requests_that_come_together_have_their_turns_when_others_wait() {
    let mut driven = Driven::new();
    driven.send(HELLO.repeat(3));
    for left in (0..3).rev() {
        let verdict = driven.short_turn();
        if left > 0 {
            // The request that is here and has not begun may still be refused.
            assert_eq!(verdict, Verdict::Requeue { refusable: true });
        } else {
            assert_eq!(park(verdict), (IDLE, driven.after(limits().idle_timeout)));
        }
        driven.expect_answer("200 OK", "hello\n");
        assert_eq!(driven.connection.is_idle(), left == 0);
    }
}

#[test]
fn a_body_that_is_late_is_refused() {
    let mut driven = Driven::new();
    driven.send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab");
    let deadline = parked(driven.turn(), IN_BODY);
    assert_eq!(driven.waits_on_at(deadline), deadline.after(limits().linger));
    driven.expect_answer("408 Request Timeout", "\n");
    driven.expect_fin();
    assert_eq!(driven.shared().stats.total_refused(), 1);
}

#[test]
fn a_client_that_waits_to_be_told_is_told_once() {
    let mut driven = Driven::new();
    driven.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    parked(driven.turn(), IN_BODY);
    assert_eq!(driven.received(), "HTTP/1.1 100 Continue\r\n\r\n");
    parked(driven.send("bo").turn(), IN_BODY);
    assert_eq!(driven.received(), "");
    parked(driven.send("dy").turn(), IDLE);
    driven.expect_answer("200 OK", "\r\n\r\nbody");
}

#[test]
fn a_body_that_outgrows_its_buffer_is_collected_until_a_thread_that_waits_is_free() {
    let mut driven = Driven::new();
    let body = "b".repeat(3000);
    driven.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3000\r\n\r\n{}", &body[..500]));
    let deadline = parked(driven.turn(), UPLOAD);
    let more = parked(driven.send(&body[..2000]).turn(), UPLOAD);
    assert_eq!(more, deadline.after(Duration::from_secs(2)), "a thousand bytes buy a second");
    assert_eq!(driven.received(), "", "its handler has not run");
    driven.send(&body[..500]);
    let verdict = driven.streamers_turn();
    assert_eq!(park(verdict), (IDLE, driven.streamer.now.after(limits().idle_timeout)));
    driven.expect_answer("200 OK", &format!("\r\n\r\n{body}"));
}

#[test]
fn a_pushed_response_waits_for_a_thread_that_waits() {
    let mut driven = Driven::new();
    let verdict = driven.send("GET /push HTTP/1.1\r\nHost: test\r\n\r\n").turn();
    assert_eq!(park(verdict), (PUSH, driven.after(limits().stream_wait)));
    assert!(driven.connection.holds_application());
    // What has come behind it waits too, and no worker pushes.
    parked(driven.send(HELLO).turn(), PUSH);
    assert_eq!(driven.received(), "", "a head leaves when what follows is decided");
    // Threads that may wait are for those that need them: the next request is a worker's.
    assert_eq!(driven.streamers_turn(), Verdict::Requeue { refusable: true });
    driven.expect_answer("200 OK", "\r\n\r\n7\r\npushed\n\r\n0\r\n\r\n");
    parked(driven.turn(), IDLE);
    driven.expect_answer("200 OK", "hello\n");
}

/// Dropping what an application pushes runs its code, which the acceptor must not.
#[test]
fn a_pushed_response_that_waited_too_long_is_dropped_by_a_worker() {
    let kept = Arc::new(());
    let given = kept.clone();
    let routes = Router::new().get("/push", move |_| {
        let given = given.clone();
        Body::stream(move |writer| {
            let _given = &given;
            writer.write_all(b"pushed\n")
        })
    });
    let mut driven = Driven::with(routes, None);
    let deadline = parked(driven.send("GET /push HTTP/1.1\r\nHost: test\r\n\r\n").turn(), PUSH);
    assert_eq!(Arc::strong_count(&kept), 3);
    assert_eq!(driven.expire_at(deadline), Expiry::Enqueue);
    driven.expect_answer("503 Service Unavailable", "\n");
    driven.expect_fin();
    assert!(Arc::strong_count(&kept) == 3 && driven.connection.holds_application());
    assert_eq!(park(driven.turn_at(deadline)), (LINGERING, deadline.after(limits().linger)));
    assert!(Arc::strong_count(&kept) == 2 && !driven.connection.holds_application());
}

#[test]
fn a_response_that_is_not_read_waits_for_its_client_and_goes_on() {
    let mut driven = Driven::new();
    driven.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut received = String::new();
    let mut waits = 0;
    while let Verdict::Park(Parking { parked: WRITING, deadline, .. }) = driven.turn() {
        assert!(deadline <= driven.after(limits().write_timeout) && driven.connection.unfinished(deadline).is_some());
        waits += 1;
        received += &driven.received();
    }
    received += &driven.received();
    let (_, body) = received.split_once("\r\n\r\n").expect("a head");
    assert!(waits > 1 && body.len() == 1_000_000 && body.bytes().all(|byte| byte == b'x'), "{waits}, {}", body.len());
    assert!(driven.connection.is_idle() && driven.connection.held() == 0);
}

#[test]
fn a_client_that_takes_nothing_of_a_response_is_closed() {
    let mut driven = Driven::new();
    let deadline = parked(driven.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n").turn(), WRITING);
    assert_eq!(deadline, driven.after(limits().write_timeout));
    assert_eq!(driven.expire_at(deadline), Expiry::Close(CloseReason::WriteTimeout));
    // What a reader gives is the application's, so a worker ends it.
    let mut driven = Driven::new();
    driven.send("GET /read HTTP/1.1\r\nHost: test\r\n\r\n");
    let deadline = parked(driven.turn(), Parked { movable: false, ..WRITING });
    assert_eq!(driven.expire_at(deadline), Expiry::Enqueue);
    assert_eq!(driven.turn_at(deadline), Verdict::Close(CloseReason::WriteTimeout));
}

#[test]
fn a_refused_request_lingers_as_long_as_bytes_come_and_not_for_ever() {
    let mut driven = Driven::new();
    let mut until = parked(driven.send("GET  /hello HTTP/1.1\r\n\r\n").turn(), LINGERING);
    let began = driven.worker.now;
    assert_eq!(until, began.after(limits().linger));
    driven.expect_answer("400 Bad Request", "\n");
    driven.expect_fin();
    loop {
        // Just before its time is up.
        let next = parked(driven.send(HELLO).turn_at(Millis(until.0 - 1)), LINGERING);
        if next == until {
            break;
        }
        until = next;
    }
    assert_eq!(until, began.after(limits().linger * 10));
    assert_eq!(driven.received(), "", "what comes behind it is not run");
    let reason = CloseReason::Refused(Reject::RequestLine);
    assert_eq!(driven.expire_at(until), Expiry::Close(reason));
    assert_eq!(driven.turn_at(until), Verdict::Close(reason));
}

#[test]
fn a_client_that_asks_for_the_end_is_closed_when_nothing_more_has_come() {
    let last = "GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let mut driven = Driven::new();
    assert_eq!(driven.send(last).turn(), Verdict::Close(CloseReason::Finished));
    driven.expect_answer("200 OK", "hello\n");
    // With bytes unread a close would be a reset, so it lingers.
    let mut driven = Driven::new();
    let verdict = driven.send(last).send(HELLO).turn();
    assert_eq!(park(verdict), (LINGERING, driven.after(limits().linger)));
    driven.expect_answer("200 OK", "hello\n");
    driven.expect_fin();
    drop(driven.client.shutdown(std::net::Shutdown::Write));
    assert_eq!(driven.turn(), Verdict::Close(CloseReason::Finished));
}

#[test]
fn a_client_that_goes_is_told_apart_by_where_it_was() {
    for (sent, reason) in [
        ("", CloseReason::PeerClosed),
        ("\r\n", CloseReason::PeerClosed),
        (HELLO, CloseReason::PeerClosed),
        ("GET /he", CloseReason::PeerClosedInRequest),
        ("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\na", CloseReason::PeerClosedInRequest),
    ] {
        for at_once in [true, false] {
            let mut driven = Driven::new();
            driven.send(sent);
            if !at_once {
                assert!(matches!(driven.turn(), Verdict::Park(_)), "{sent:?}");
            }
            driven.client.shutdown(std::net::Shutdown::Write).expect("FIN");
            assert_eq!(driven.turn(), Verdict::Close(reason), "{sent:?}, {at_once}");
        }
    }
}

#[test]
fn an_idle_connection_ends_in_order_and_a_request_that_came_just_then_is_served() {
    let mut driven = Driven::new();
    let deadline = parked(driven.turn(), IDLE);
    driven.send(HELLO);
    assert_eq!(driven.expire_at(deadline), Expiry::Enqueue);
    let deadline = parked(driven.turn(), IDLE);
    driven.expect_answer("200 OK", "hello\n");
    assert_eq!(driven.waits_on_at(deadline), deadline.after(limits().linger));
    driven.expect_fin();
    assert!(driven.connection.is_lingering());
}

#[test]
fn while_the_server_drains_an_answer_is_the_last() {
    let mut driven = Driven::new();
    driven.turn();
    driven.shared().phase.drain();
    assert_eq!(park(driven.turn()), (IDLE, driven.after(DRAIN_LINGER)));
    let verdict = driven.send(HELLO).turn();
    assert_eq!(park(verdict), (LINGERING, driven.after(limits().linger)));
    let received = driven.received();
    assert!(received.contains("Connection: close\r\n") && received.ends_with("hello\n"), "{received}");
    driven.expect_fin();
}

#[test]
fn a_request_that_there_is_no_memory_to_keep_is_told_to_come_again() {
    let mut driven = Driven::with(routes(), Some(1000));
    parked(driven.turn(), IDLE);
    parked(driven.send(format!("GET /hello HTTP/1.1\r\nX-A: {}", "a".repeat(500))).turn(), IN_HEAD);
    assert!((500..=1000).contains(&driven.shared().budget.held()), "{}", driven.shared().budget.held());
    let verdict = driven.send("b".repeat(500)).turn();
    assert_eq!(park(verdict), (LINGERING, driven.after(limits().linger)));
    driven.expect_answer("503 Service Unavailable", "\n");
    driven.expect_fin();
    assert_eq!(driven.shared().budget.held(), 0);
}

/// For the thread that answers while every worker is busy.
#[test]
fn only_a_question_for_the_servers_state_is_answered_out_of_turn() {
    let mut driven = Driven::new();
    driven.worker.role = Role::Status;
    driven.send(HELLO);
    driven.worker.begin_turn();
    assert_eq!(driven.connection.look_after(&mut driven.worker), None);
    assert_eq!(driven.received(), "");
    driven.worker.role = Role::Worker;
    parked(driven.turn(), IDLE);
    driven.expect_answer("200 OK", "hello\n");
    driven.worker.role = Role::Status;
    driven.send("GET /-/healthy HTTP/1.1\r\nHost: test\r\n\r\n").send(HELLO);
    assert_eq!(driven.connection.look_after(&mut driven.worker), Some(Verdict::Requeue { refusable: true }));
    driven.expect_answer("200 OK", "healthy\n");
    assert_eq!(driven.connection.look_after(&mut driven.worker), None);
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// What a request log would have: each request that began ends once, whichever way it goes.
#[test]
fn what_is_answered_ends_when_it_is_out() {
    let mut driven = Driven::new();
    driven.turn();
    assert!(driven.ended().is_empty(), "nothing has begun");
    driven.send(HELLO).turn();
    assert_eq!(driven.ended(), ["GET /hello HTTP/1.1: 200, 6 bytes, answered"]);
    driven.send("HEAD /hello HTTP/1.0\r\n\r\n").turn();
    assert_eq!(driven.ended(), ["HEAD /hello HTTP/1.0: 200, 0 bytes, answered"]);
    driven.client.shutdown(std::net::Shutdown::Write).expect("FIN");
    driven.turn();
    assert!(driven.ended().is_empty());
    assert_eq!(driven.counted(), (2, 0, 0));
}

#[test]
fn requests_that_come_together_end_one_by_one() {
    let mut driven = Driven::new();
    driven.send(HELLO).send(get("/none")).turn();
    assert_eq!(
        driven.ended(),
        ["GET /hello HTTP/1.1: 200, 6 bytes, answered", "GET /none HTTP/1.1: 404, 14 bytes, answered"]
    );
    driven.send(HELLO.repeat(2));
    for _ in 0..2 {
        driven.short_turn();
        assert_eq!(driven.ended().len(), 1);
    }
    assert_eq!(driven.counted(), (4, 0, 0));
}

#[test]
fn an_answer_without_content_has_none() {
    let routes = Router::new().get("/{status}", |request: &mut Request| {
        let status = request.param("status").and_then(|status| status.parse().ok()).expect("a status");
        tiny_http::StatusCode(status)
    });
    let mut driven = Driven::with(routes, None);
    for status in [204, 205, 304] {
        driven.send(get(&format!("/{status}"))).turn();
        assert_eq!(driven.ended(), [format!("GET /{status} HTTP/1.1: {status}, 0 bytes, answered")]);
    }
}

#[test]
fn a_body_on_its_way_belongs_to_the_request_before_it() {
    let mut driven = Driven::new();
    driven.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").turn();
    driven.send("bo").turn();
    assert!(driven.ended().is_empty(), "it waits for the rest");
    driven.send("dy").turn();
    assert_eq!(driven.ended(), ["POST /echo HTTP/1.1: 200, 4 bytes, answered"]);
    driven.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3000\r\n\r\n{}", "b".repeat(3000)));
    driven.turn();
    driven.streamers_turn();
    assert_eq!(driven.ended(), ["POST /echo HTTP/1.1: 200, 3000 bytes, answered"]);
    assert_eq!(driven.counted(), (2, 0, 0));
}

#[test]
fn a_response_that_goes_on_in_another_turn_ends_with_the_last() {
    let path = std::env::temp_dir().join(format!("handover-exchange-{}", std::process::id()));
    std::fs::write(&path, vec![b'f'; 3_000_000]).expect("a file");
    let file = path.clone();
    let routes = Router::new()
        .get("/file", move |_| Body::file_range(File::open(&file).expect("a file"), 0, 3_000_000))
        .get("/bytes", |_| vec![b'x'; 3_000_000])
        .get("/read", |_| Body::reader(std::io::repeat(b'x').take(100_000), None));
    let mut driven = Driven::with(routes, None);
    for (path, bytes) in [("/file", 3_000_000), ("/bytes", 3_000_000), ("/read", 100_060)] {
        let mut turns = 1;
        driven.send(get(path));
        driven.short_turn();
        while !driven.connection.is_idle() {
            assert!(driven.ended().is_empty(), "{path} is not out");
            driven.received();
            driven.short_turn();
            turns += 1;
        }
        assert!(turns > 1, "{path}");
        assert_eq!(driven.ended(), [format!("GET {path} HTTP/1.1: 200, {bytes} bytes, answered")]);
        driven.received();
    }
    std::fs::remove_file(path).expect("removed");
    assert_eq!(driven.counted(), (3, 0, 0));
}

#[test]
fn what_is_pushed_is_one_with_the_request_that_waited_for_its_thread() {
    let mut driven = Driven::new();
    parked(driven.send(get("/push")).turn(), PUSH);
    assert!(driven.ended().is_empty());
    driven.streamers_turn();
    assert_eq!(driven.ended(), ["GET /push HTTP/1.1: 200, 17 bytes, answered"], "with its chunks' own bytes");
    let deadline = parked(driven.send(get("/push")).turn(), PUSH);
    driven.expire_at(deadline);
    driven.turn_at(deadline);
    let refused = "refused: overloaded, try again later, answered";
    assert_eq!(driven.ended(), [format!("GET /push HTTP/1.1: 503, 32 bytes, {refused}")]);
    assert_eq!(driven.counted(), (1, 1, 0));
}

#[test]
fn what_is_refused_ends_once_with_its_line_if_it_has_one() {
    let late = "refused: request head not received in time, answered";
    for (sent, bytes, ended) in [
        ("GET  /hello HTTP/1.1\r\n\r\n", 400, ""),
        ("HEAD  /hello HTTP/1.1\r\n\r\n", 400, ""),
        ("TRACE / HTTP/1.1\r\nHost: test\r\n\r\n", 405, "TRACE / HTTP/1.1"),
        ("POST /echo HTTP/1.1\r\nHost: test\r\nExpect: more\r\n\r\n", 417, "POST /echo HTTP/1.1"),
        ("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nx", 400, "POST /echo HTTP/1.1"),
    ] {
        let mut driven = Driven::new();
        driven.send(sent).turn();
        let answer = driven.received();
        let (_, content) = answer.split_once("\r\n\r\n").expect("a head");
        let found = driven.ended();
        let line = if ended.is_empty() { "no request line" } else { ended };
        let begins = format!("{line}: {bytes}, {} bytes, refused: ", content.len());
        assert!(found.len() == 1 && found[0].starts_with(&begins), "{found:?}, {begins}");
        driven.send(HELLO).turn();
        assert!(driven.ended().is_empty(), "what comes behind it is not dealt with");
        assert_eq!(driven.counted(), (0, 1, 0));
    }
    // By the acceptor, and by a worker.
    let mut driven = Driven::new();
    let deadline = parked(driven.send("GET /hel").turn(), IN_HEAD);
    driven.expire_at(deadline);
    driven.connection.close(CloseReason::Refused(Reject::HeadTimeout), &driven.worker.shared, deadline);
    assert_eq!(driven.ended(), [format!("no request line: 408, 38 bytes, {late}")]);
    let mut driven = Driven::new();
    // Of its own: on a busy machine it begins later than the one before.
    let deadline = parked(driven.send("HEAD /hel").turn(), IN_HEAD);
    driven.send("lo").turn_at(deadline);
    assert_eq!(driven.ended(), [format!("no request line: 408, 0 bytes, {late}")]);
    for by_worker in [true, false] {
        let mut driven = Driven::new();
        driven.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n");
        let deadline = parked(driven.turn(), IN_BODY);
        match by_worker {
            true => assert_eq!(park(driven.turn_at(deadline)).0, LINGERING),
            false => assert_eq!(driven.expire_at(deadline), Expiry::Park),
        }
        assert_eq!(driven.ended().len(), 1);
        assert_eq!(driven.counted(), (0, 1, 0));
    }
}

/// The acceptor's queue deadline, and its answer where there is no place or no memory.
#[test]
fn what_no_worker_has_read_is_refused_without_a_line() {
    let overloaded = "503, 32 bytes, refused: overloaded, try again later, answered";
    let mut driven = Driven::new();
    driven.send(HELLO);
    driven.connection.give_up(Reject::Overloaded, &driven.worker.shared, driven.worker.now, b"");
    assert_eq!(driven.ended(), [format!("no request line: {overloaded}")]);
    driven.turn();
    assert!(driven.ended().is_empty());
    let mut driven = Driven::with(routes(), Some(1000));
    driven.send(format!("GET /hello HTTP/1.1\r\nX-A: {}", "a".repeat(1000))).turn();
    assert_eq!(driven.ended(), [format!("no request line: {overloaded}")]);
    driven.send("POST /echo HTTP/1.1\r\n");
    let mut driven = Driven::with(routes(), Some(1000));
    driven.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n{}", "b".repeat(999))).turn();
    assert_eq!(driven.ended(), [format!("POST /echo HTTP/1.1: {overloaded}")]);
    let mut driven = Driven::with(routes(), Some(1000));
    assert_eq!(driven.send(get("/large")).turn(), Verdict::Close(CloseReason::Memory));
    let sent = driven.received().split_once("\r\n\r\n").expect("a head").1.len();
    let memory = CloseReason::Memory;
    assert_eq!(driven.ended(), [format!("GET /large HTTP/1.1: 200, {sent} bytes, {memory}")]);
}

#[test]
fn a_client_that_goes_ends_what_it_had_begun() {
    let body = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\na";
    for (sent, line) in [("GET /he", "no request line"), (body, "POST /echo HTTP/1.1")] {
        for at_once in [true, false] {
            let mut driven = Driven::new();
            driven.send(sent);
            if !at_once {
                driven.turn();
            }
            driven.client.shutdown(std::net::Shutdown::Write).expect("FIN");
            driven.turn();
            let reason = CloseReason::PeerClosedInRequest;
            assert_eq!(driven.ended(), [format!("{line}: no status, 0 bytes, {reason}")], "{at_once}");
            assert_eq!(driven.counted(), (0, 0, 0));
        }
    }
    let mut driven = Driven::new();
    parked(driven.send(get("/large")).turn(), WRITING);
    let sent = driven.received().split_once("\r\n\r\n").expect("a head").1.len();
    driven.client.shutdown(std::net::Shutdown::Both).expect("closed");
    assert_eq!(driven.turn(), Verdict::Close(CloseReason::Reset));
    assert_eq!(driven.ended(), [format!("GET /large HTTP/1.1: 200, {sent} bytes, {}", CloseReason::Reset)]);
    assert_eq!(driven.counted(), (0, 0, 0));
}

#[test]
fn a_client_that_is_too_slow_ends_what_waits_for_it() {
    let slow = CloseReason::WriteTimeout;
    for path in ["/large", "/read"] {
        let mut driven = Driven::new();
        let (_, deadline) = park(driven.send(get(path)).turn());
        let sent = driven.received().split_once("\r\n\r\n").expect("a head").1.len();
        assert!(driven.ended().is_empty());
        let mut deadline = deadline;
        // What was taken just now counts for the first window.
        loop {
            match driven.expire_at(deadline) {
                Expiry::Park => deadline = driven.connection.parking(&driven.worker.shared, deadline).deadline,
                Expiry::Enqueue => break assert_eq!(driven.turn_at(deadline), Verdict::Close(slow)),
                expiry => break assert_eq!(expiry, Expiry::Close(slow)),
            }
        }
        driven.connection.close(slow, &driven.worker.shared, deadline);
        assert_eq!(driven.ended(), [format!("GET {path} HTTP/1.1: 200, {sent} bytes, {slow}")]);
        assert_eq!(driven.counted(), (0, 0, 0));
    }
}

#[test]
fn a_panic_is_the_end_of_its_request_and_of_no_other() {
    struct Panics;
    impl Read for Panics {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("a reader")
        }
    }
    let routes = Router::new()
        .get("/handler", |_| -> &str { panic!("a handler") })
        .get("/reader", |_| Body::reader(Panics, None))
        .get("/push", |_| {
            Body::stream(|writer| {
                writer.write_all(b"pushed\n")?;
                writer.flush()?;
                panic!("a push")
            })
        });
    let mut driven = Driven::with(routes, None);
    driven.send(get("/handler")).turn();
    assert_eq!(driven.ended(), ["GET /handler HTTP/1.1: 500, 26 bytes, answered"]);
    assert_eq!(driven.counted(), (1, 0, 0));
    driven.received();
    driven.send(get("/push")).turn();
    assert_eq!(driven.streamers_turn(), Verdict::Close(CloseReason::Internal));
    assert_eq!(driven.ended(), ["GET /push HTTP/1.1: 200, 12 bytes, internal error"]);
    driven.send(get("/reader"));
    // As the worker that drives it is guarded.
    assert!(catch_unwind(AssertUnwindSafe(|| driven.turn())).is_err());
    driven.worker.end_turn();
    assert_eq!(driven.ended(), ["GET /reader HTTP/1.1: 200, 0 bytes, internal error"]);
    assert_eq!(driven.counted(), (1, 0, 0));
}

#[test]
fn what_is_cut_while_it_waits_ends_once() {
    let body = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n";
    let cut = CloseReason::Cut;
    for (sent, line, refused) in [
        ("GET /he", "no request line: 408, 38 bytes, refused: request head not received in time".to_owned(), 1),
        (body, "POST /echo HTTP/1.1: 408, 38 bytes, refused: request head not received in time".to_owned(), 1),
        (&get("/push"), "GET /push HTTP/1.1: 200, 0 bytes".to_owned(), 0),
        (&get("/large"), "GET /large HTTP/1.1: 200, ".to_owned(), 0),
        (&get("/read"), "GET /read HTTP/1.1: 200, ".to_owned(), 0),
    ] {
        let mut driven = Driven::new();
        park(driven.send(sent).turn());
        let now = driven.worker.now;
        for again in [false, true] {
            driven.connection.cut(&driven.worker.shared, now, b"");
            driven.connection.close(cut, &driven.worker.shared, now);
            let ended = driven.ended();
            if again {
                assert!(ended.is_empty(), "{ended:?}");
            } else {
                let right = ended.len() == 1 && ended[0].starts_with(&line) && ended[0].ends_with(&format!(", {cut}"));
                assert!(right, "{ended:?}");
            }
        }
        assert_eq!(driven.counted(), (0, refused, 1));
    }
    let mut driven = Driven::new();
    driven.send(HELLO);
    driven.connection.cut_unread(&driven.worker.shared, driven.worker.now, b"", Duration::ZERO);
    assert_eq!(driven.ended().len(), 1);
    assert_eq!(driven.counted(), (0, 1, 1));
    let mut idle = Driven::new();
    idle.turn();
    assert!(!idle.connection.cut(&idle.worker.shared, idle.worker.now, b""));
    assert!(idle.ended().is_empty());
}

/// Whoever cuts a handler says its end at once, because the handler may never come back; when it does there is nothing left
/// to end.
#[test]
fn what_is_cut_under_its_handler_ends_once() {
    let requests = [
        (get("/handler"), "GET /handler HTTP/1.1: no status, 0 bytes"),
        (get("/before"), "GET /before HTTP/1.1: no status, 0 bytes"),
        (get("/within"), "GET /within HTTP/1.1: 200, 12 bytes"),
        (
            "POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: 5000\r\n\r\n".into(),
            "POST /body HTTP/1.1: no status, 0 bytes",
        ),
    ];
    for (sent, ended) in requests {
        let server = Arc::new(OnceLock::<Arc<Shared>>::new());
        let its = server.clone();
        let cut = Arc::new(move || {
            // As often as somebody wants to be sure.
            let shared = its.get().expect("it is there");
            (0..2).for_each(|_| shared.cut_in_flight(Millis::now()));
        });
        let (before, within, body) = (cut.clone(), cut.clone(), cut.clone());
        let routes = Router::new()
            .get("/handler", move |_| cut())
            .get("/before", move |_| {
                before();
                Body::stream(|writer| writer.write_all(b"pushed\n"))
            })
            .get("/within", move |_| {
                let within = within.clone();
                Body::stream(move |writer| {
                    writer.write_all(b"pushed\n")?;
                    writer.flush()?;
                    within();
                    writer.write_all(b"more\n")
                })
            })
            .post("/body", move |request: &mut Request| {
                body();
                request.body_bytes()
            });
        let mut driven = Driven::with(routes, None);
        assert!(server.set(driven.worker.shared.clone()).is_ok());
        let mut verdict = driven.send(sent).turn();
        if let Verdict::Park(_) = verdict {
            verdict = driven.streamers_turn();
        }
        assert!(matches!(verdict, Verdict::Close(_)), "{verdict:?}");
        assert_eq!(driven.ended(), [format!("{ended}, {}", CloseReason::Cut)]);
        assert_eq!(driven.counted(), (0, 0, 1));
    }
}

/// The successor knows what was written down: what is asked for, and how far the answer had come.
#[test]
fn what_moves_ends_with_the_successor_alone() {
    let body = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\na";
    for (sent, rest, ended) in [
        (body, "b", "POST /echo HTTP/1.1: 200, 2 bytes, answered"),
        (&get("/large"), "", "GET /large HTTP/1.1: 200, "),
        ("GET /hel", "lo HTTP/1.1\r\nHost: test\r\n\r\n", "GET /hello HTTP/1.1: 200, 6 bytes, answered"),
    ] {
        let mut driven = Driven::new();
        let (_, deadline) = park(driven.send(sent).turn());
        let (snapshot, file) = driven.connection.snapshot(deadline, 3).expect("nothing of the application's");
        let socket = driven.connection.socket.as_fd().try_clone_to_owned().expect("a descriptor");
        let restored = Connection::restore(
            snapshot,
            socket,
            file.map(|_| unreachable!()),
            (None, &crate::api::Sessions::default()),
        );
        let restored = restored.expect("what was written");
        driven.connection.set_moved(&Shared::for_test(Limits::default(), crate::api::Router::new(), None), None);
        driven.connection = restored.connection;
        assert!(driven.ended().is_empty(), "the predecessor ends nothing");
        driven.send(rest);
        for _ in 0..100 {
            driven.turn();
            driven.received();
        }
        let found = driven.ended();
        assert!(found.len() == 1 && found[0].starts_with(ended) && found[0].ends_with(", answered"), "{found:?}");
        assert_eq!(driven.counted(), (1, 0, 0));
    }
}

/// What waits has its exchange in a box.
#[test]
fn an_idle_connection_has_no_room_for_an_exchange() {
    assert!(size_of::<Connection>() <= 21 * size_of::<u64>(), "{}", size_of::<Connection>());
}

/// Something lies upon the socket: the kernel sends no file by itself.
#[test]
fn a_file_is_read_where_the_transport_does_not_send_it() {
    for opaque in [false, true] {
        let mut driven = if opaque { Driven::opaque() } else { Driven::new() };
        driven.send("GET /file HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut received = String::new();
        while let Verdict::Park(Parking { parked: WRITING, .. }) = driven.turn() {
            received += &driven.received();
            let State::Writing(writing) = &driven.connection.state else { panic!("it waits to write") };
            assert!(
                matches!(writing.source, ResponseBody::File { by_reading, .. } if by_reading == opaque),
                "{opaque}"
            );
        }
        received += &driven.received();
        let (head, body) = received.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("Content-Length: {FILE}")), "{head}");
        assert!(
            body.len() == FILE as usize && body.bytes().zip(1000u64..).all(|(byte, at)| byte == b'a' + (at % 23) as u8)
        );
        assert!(driven.connection.is_idle() && driven.connection.held() == 0);
        parked(driven.send(HELLO).turn(), IDLE);
        driven.expect_answer("200 OK", "hello\n");
    }
}

/// Something lies upon the socket: the acceptor can say nothing through it.
#[test]
fn what_the_acceptor_cannot_answer_a_worker_does() {
    let body = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nab";
    for (late, line, reject) in [
        ("GET /hel", "no request line", "request head not received in time"),
        (body, "POST /echo HTTP/1.1", "request body not received in time"),
    ] {
        let mut driven = Driven::opaque();
        let (_, deadline) = park(driven.send(late).turn());
        assert_eq!(driven.expire_at(deadline), Expiry::HandOver);
        assert_eq!(driven.received(), "", "nothing was sent by this thread");
        assert!(driven.ended().is_empty(), "it ends when that is out");
        assert!(driven.connection.held() > 0 && !driven.connection.is_idle());
        // What comes meanwhile is not run.
        assert_eq!(park(driven.send(HELLO).turn_at(deadline)), (LINGERING, deadline.after(limits().linger)));
        driven.expect_answer("408 Request Timeout", "not received in time\n");
        driven.expect_fin();
        assert_eq!((driven.shared().stats.total_refused(), driven.shared().stats.total_served()), (1, 0));
        assert_eq!(driven.ended(), [format!("{line}: 408, {} bytes, refused: {reject}, answered", reject.len() + 5)]);
    }
    // A handler's closure goes first, and then its client is told.
    let mut driven = Driven::opaque();
    let deadline = parked(driven.send("GET /push HTTP/1.1\r\nHost: test\r\n\r\n").turn(), PUSH);
    assert_eq!(driven.expire_at(deadline), Expiry::HandOver);
    assert!(driven.received().is_empty() && driven.connection.holds_application());
    assert!(driven.ended().is_empty() && driven.connection.unfinished(deadline).is_some());
    assert_eq!(park(driven.turn_at(deadline)), (LINGERING, deadline.after(limits().linger)));
    assert!(!driven.connection.holds_application());
    driven.expect_answer("503 Service Unavailable", "\n");
    driven.expect_fin();
    let refused = "refused: overloaded, try again later, answered";
    assert_eq!(driven.ended(), [format!("GET /push HTTP/1.1: 503, 32 bytes, {refused}")]);
    assert_eq!(driven.counted(), (0, 1, 0));
}

/// Whichever way it goes from there, its exchange ends once.
#[test]
fn what_is_handed_over_and_never_written_ends_once() {
    let body = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nab";
    for (sent, ended) in [
        ("GET /hel", "no request line: 408, 0 bytes, refused: request head not received in time"),
        (body, "POST /echo HTTP/1.1: 408, 0 bytes, refused: request body not received in time"),
        (&get("/push"), "GET /push HTTP/1.1: 503, 0 bytes, refused: overloaded, try again later"),
    ] {
        for cut in [true, false] {
            let mut driven = Driven::opaque();
            let (_, deadline) = park(driven.send(sent).turn());
            assert_eq!(driven.expire_at(deadline), Expiry::HandOver);
            let reason = if cut { CloseReason::Cut } else { CloseReason::Evicted };
            for _ in 0..2 {
                if cut {
                    driven.connection.cut(&driven.worker.shared, deadline, b"");
                }
                driven.connection.close(reason, &driven.worker.shared, deadline);
            }
            assert_eq!(driven.ended(), [format!("{ended}, {reason}")]);
            assert_eq!(driven.counted(), (0, 1, usize::from(cut)));
        }
        // Who cuts it does not wait for a worker that would tell its client.
        let mut driven = Driven::opaque();
        let (_, deadline) = park(driven.send(sent).turn());
        assert!(driven.connection.cut(&driven.worker.shared, deadline, b""));
        driven.connection.close(CloseReason::Cut, &driven.worker.shared, deadline);
        let ended = driven.ended();
        assert!(ended.len() == 1 && ended[0].ends_with(&format!(", {}", CloseReason::Cut)), "{ended:?}");
        assert_eq!(driven.counted().2, 1);
    }
    // Its client goes before a worker comes to it.
    let mut driven = Driven::opaque();
    let (_, deadline) = park(driven.send("GET /hel").turn());
    assert_eq!(driven.expire_at(deadline), Expiry::HandOver);
    driven.client.shutdown(std::net::Shutdown::Both).expect("closed");
    assert_eq!(driven.turn_at(deadline), Verdict::Close(CloseReason::Reset));
    let reset = CloseReason::Reset;
    let refused = "refused: request head not received in time";
    assert_eq!(driven.ended(), [format!("no request line: 408, 0 bytes, {refused}, {reset}")]);
}

/// A worker that drops what the application made for a request may find that this panics: the end is that request's.
#[test]
fn what_is_handed_over_ends_although_the_application_panics() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "a closure that is dropped");
        }
    }
    let routes = Router::new().get("/push", |_| {
        let panics = Panics;
        Body::stream(move |_| {
            let _panics = &panics;
            Ok(())
        })
    });
    let mut driven = Driven::through(Transport::opaque, routes, None);
    let deadline = parked(driven.send(get("/push")).turn(), PUSH);
    assert_eq!(driven.expire_at(deadline), Expiry::HandOver);
    assert!(catch_unwind(AssertUnwindSafe(|| driven.turn_at(deadline))).is_err());
    driven.worker.end_turn();
    let internal = CloseReason::Internal;
    let refused = "refused: overloaded, try again later";
    assert_eq!(driven.ended(), [format!("GET /push HTTP/1.1: 503, 0 bytes, {refused}, {internal}")]);
}

/// The worker had another request before, and its line is that one's.
#[test]
fn a_refusal_without_a_line_that_waits_is_not_given_anothers() {
    for by_worker in [true, false] {
        let mut driven = if by_worker { Driven::new() } else { Driven::opaque() };
        driven.send(HELLO).turn();
        driven.received();
        assert_eq!(driven.ended().len(), 1);
        while let Ok(Moved::Bytes(_)) = driven.connection.socket.send(&[b'x'; 4096], false) {}
        let verdict = match by_worker {
            true => driven.send("GET  /hello HTTP/1.1\r\n\r\n").turn(),
            false => {
                let (_, deadline) = park(driven.send("GET /hel").turn());
                assert_eq!(driven.expire_at(deadline), Expiry::HandOver);
                driven.turn_at(deadline)
            }
        };
        let deadline = parked(verdict, WRITING);
        assert!(driven.ended().is_empty());
        let unfinished = driven.connection.unfinished(deadline).expect("it waits");
        assert_eq!(unfinished.what, "a refused request (its response was not taken)");
        driven.received();
        parked(driven.turn(), LINGERING);
        let ended = driven.ended();
        assert!(ended.len() == 1 && ended[0].starts_with("no request line: 40"), "{ended:?}");
        assert_eq!(driven.counted(), (1, 1, 0));
    }
}

/// Something lies upon the socket: what has come is known when it has been read.
#[test]
fn what_cannot_be_looked_at_is_read_and_kept_for_its_turn() {
    let mut driven = Driven::through(Transport::opaque, routes(), Some(100_000));
    driven.worker.role = Role::Status;
    driven.worker.begin_turn();
    for piece in [&HELLO[..10], &HELLO[10..]] {
        driven.send(piece);
        assert_eq!(driven.connection.look_after(&mut driven.worker), None);
        assert_eq!(driven.received(), "");
    }
    assert!(driven.shared().budget.held() >= HELLO.len(), "it takes its part of the memory");
    driven.worker.role = Role::Worker;
    parked(driven.turn(), IDLE);
    driven.expect_answer("200 OK", "hello\n");
    driven.worker.role = Role::Status;
    driven.send("GET /-/healthy HTTP/1.1\r\nHost: test\r\n\r\n").send(HELLO);
    assert_eq!(driven.connection.look_after(&mut driven.worker), Some(Verdict::Requeue { refusable: true }));
    driven.expect_answer("200 OK", "healthy\n");
    assert_eq!(driven.connection.look_after(&mut driven.worker), None);
    driven.worker.role = Role::Worker;
    parked(driven.turn(), IDLE);
    driven.expect_answer("200 OK", "hello\n");
    assert_eq!(driven.shared().budget.held(), 0);
}

#[test]
fn what_is_read_to_be_looked_at_and_cannot_be_kept_is_told_to_come_again() {
    let mut driven = Driven::through(Transport::opaque, routes(), Some(100));
    driven.worker.role = Role::Status;
    driven.worker.begin_turn();
    driven.send(format!("GET /hello HTTP/1.1\r\nX-A: {}", "a".repeat(500)));
    let verdict = driven.connection.look_after(&mut driven.worker);
    assert_eq!(verdict, Some(Verdict::Requeue { refusable: false }));
    assert!(driven.ended().is_empty());
    driven.worker.role = Role::Worker;
    parked(driven.turn(), LINGERING);
    driven.expect_answer("503 Service Unavailable", "\n");
    driven.expect_fin();
    assert_eq!(driven.ended().len(), 1);
    assert_eq!(driven.counted(), (0, 1, 0));
}

#[test]
fn what_cannot_be_peeked_at_ends_in_order() {
    let mut driven = Driven::opaque();
    let deadline = parked(driven.turn(), IDLE);
    assert_eq!(driven.waits_on_at(deadline), deadline.after(limits().linger));
    driven.expect_fin();
    // It may have sent more, for all that is known: it lingers.
    let mut driven = Driven::opaque();
    let verdict = driven.send("GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").turn();
    assert_eq!(park(verdict), (LINGERING, driven.after(limits().linger)));
    driven.expect_answer("200 OK", "hello\n");
    driven.expect_fin();
}

mod conversations {
    use super::*;
    use crate::push::Hub;
    use crate::{Carried, Client, Conversation, Incoming, Response};

    /// Sends as much as it is told, and closes if that is a round number.
    struct Large;

    impl Conversation for Large {
        type State = ();

        fn open(&self, _: &Client, _: &mut Request) -> Result<(), Response> {
            Ok(())
        }

        fn message(&self, client: &Client, (): &mut (), message: Incoming<'_>) {
            let bytes: usize = message.text().and_then(|text| text.parse().ok()).expect("a number");
            client.send(vec![b'x'; bytes]).expect("room");
            if bytes.is_multiple_of(10) {
                client.close(1000, "").expect("open");
            }
        }

        fn save(&self, (): &()) -> Carried {
            Carried { version: 1, bytes: Vec::new() }
        }

        fn restore(&self, _: &Client, _: Carried) -> Option<()> {
            Some(())
        }
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
    }

    /// One whose handshake is out.
    fn opened() -> Driven {
        let hub = Hub::new();
        hub.inner().open();
        let service = hub.conversation("large", Large);
        let mut driven = Driven::with_hub(Router::new().get("/talk", service.websocket()), &hub);
        driven.send(
            "GET /talk HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        );
        assert!(matches!(driven.turn(), Verdict::Park(_)));
        assert!(driven.received().starts_with("HTTP/1.1 101 "));
        driven
    }

    /// What has come at the client, as bytes.
    fn bytes(driven: &mut Driven, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = (&driven.client).take(most as u64).read_to_end(&mut bytes);
        bytes
    }

    /// It reads little by little, as far as its window lets it, and is not taken for dead or done meanwhile.
    fn reads_slowly(bytes_sent: usize) -> Driven {
        let mut driven = opened();
        driven.send(frame(0x81, bytes_sent.to_string().as_bytes()));
        let mut verdict = driven.turn();
        let (began, mut read) = (driven.worker.now, 0);
        for second in 1.. {
            let Verdict::Park(parking) = verdict else { panic!("{verdict:?} after {second} s and {read} bytes") };
            read += bytes(&mut driven, 100_000).len();
            if read >= bytes_sent + 10 {
                break;
            }
            if !parking.parked.on_writable {
                continue;
            }
            verdict = driven.turn_at(began.after(Duration::from_secs(second)));
        }
        assert!(driven.worker.now >= began.after(Duration::from_secs(45)), "it was slow");
        driven
    }

    /// The question whether it is there stood behind what it read, and its answer was not heard.
    #[test]
    fn a_client_that_reads_slowly_is_not_taken_for_one_that_has_gone() {
        let mut driven = reads_slowly(5_000_001);
        bytes(&mut driven, usize::MAX);
        driven.send(frame(0x8a, b""));
        let now = driven.worker.now;
        assert!(matches!(driven.turn_at(now), Verdict::Park(_)));
        driven.send(frame(0x81, b"1"));
        assert!(matches!(driven.turn_at(now), Verdict::Park(_)));
        assert_eq!(bytes(&mut driven, 100), b"\x82\x01x");
    }

    /// It was cut five seconds after it was told to close, with most of what it was sent before that still on the way.
    #[test]
    fn who_is_closed_gets_what_was_sent_before_that_however_slowly_it_reads() {
        let mut driven = reads_slowly(5_000_000);
        driven.send(frame(0x88, &1000_u16.to_be_bytes()));
        let now = driven.worker.now;
        assert_eq!(park(driven.turn_at(now)).0, LINGERING);
    }

    /// Where this server did not run for a while, all of them had answered.
    #[test]
    fn an_answer_that_has_come_is_heard_before_it_is_late() {
        for answers in [true, false] {
            let mut driven = opened();
            let (_, due) = park(driven.turn());
            let (_, due) = park(driven.turn_at(due));
            assert_eq!(bytes(&mut driven, 100), b"\x89\0");
            if answers {
                driven.send(frame(0x8a, b""));
            }
            let verdict = driven.turn_at(due.after(Duration::from_secs(60)));
            match answers {
                true => assert!(matches!(verdict, Verdict::Park(_)), "{verdict:?}"),
                false => assert_eq!(verdict, Verdict::Close(CloseReason::IdleTimeout)),
            }
        }
    }

    /// It was failed for what it may send, as it was told.
    #[test]
    #[cfg(not(feature = "deflate"))]
    fn a_client_that_compresses_is_closed_politely_where_nobody_reads_that() {
        let mut driven = opened();
        let _ = driven.turn();
        let (mut snapshot, _) = driven.connection.snapshot(Millis(0), 4).expect("it can move");
        let crate::lifecycle::state::SavedState::Conversing(saved) = &mut snapshot.state else {
            panic!("{snapshot:?}")
        };
        saved.deflate = true;
        let crate::lifecycle::state::SavedSide::Talker(client) = &mut saved.side else { panic!("{saved:?}") };
        client.state = Some((1, Vec::new().into()));
        let shared = driven.shared();
        let (hub, sessions) = (shared.hub.as_ref(), &shared.sessions);
        let (one, _) = UnixStream::pair().expect("a socket pair");
        let restored = Connection::restore(snapshot, one.into(), None, (hub, sessions)).expect("it is answered");
        assert!(matches!(restored.connection.state, State::Writing(_)));
    }
}
