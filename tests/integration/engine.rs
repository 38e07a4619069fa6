//! Nobody starves, and nothing is forgotten: what the engine owes to each of many clients.

use crate::common::{Gate, LATE, Passage, RawClient, Scratch, TestServer, gated, patient};
use handover::{Body, Builder, Ended, Limits, Request, Router, Server, StatusCode};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

fn server(workers: usize) -> Builder {
    Server::builder().workers(workers).limits(patient())
}

/// Notes who is served when.
fn noting(passage: Passage) -> (Router, Arc<Mutex<Vec<&'static str>>>) {
    let order = Arc::new(Mutex::new(Vec::new()));
    let (ours, theirs) = (order.clone(), order.clone());
    let routes = Router::new()
        .get("/hog", move |_| {
            ours.lock().expect("no panic").push("hog");
            passage.pass();
            // Longer than a turn.
            thread::sleep(Duration::from_millis(30));
            "hog\n"
        })
        .get("/other", move |_| {
            theirs.lock().expect("no panic").push("other");
            "other\n"
        });
    (routes, order)
}

/// A turn knew requests and bytes but no time: sixteen of 0.2 s were one, and the others waited for 3.2 s.
#[test]
fn who_pipelines_slow_requests_lets_others_in_between() {
    let (gate, passage) = Gate::new();
    let (routes, order) = noting(passage);
    let server = TestServer::start(server(1).service(routes));
    let mut hog = server.client();
    hog.send("GET /hog HTTP/1.1\r\nHost: test\r\n\r\n".repeat(3));
    gate.wait();
    let mut other = server.client();
    other.get("/other");
    (0..3).for_each(|_| gate.open());
    assert_eq!(other.answer().text(), "other\n");
    (0..3).for_each(|_| assert_eq!(hog.answer().text(), "hog\n"));
    assert_eq!(order.lock().expect("no panic")[..2], ["hog", "other"]);
}

/// A park that was refused, because the next request had come just then, began a turn with a budget of its own; so a
/// client at the service rate kept its worker for ever.
#[test]
fn who_sends_the_next_request_just_in_time_does_not_keep_its_worker() {
    let (gate, passage) = Gate::new();
    let (routes, order) = noting(passage);
    let server = TestServer::start(server(1).service(routes));
    let mut hog = server.client();
    hog.get("/hog");
    gate.wait();
    let mut other = server.client();
    other.get("/other");
    hog.get("/hog");
    (0..2).for_each(|_| gate.open());
    assert_eq!(other.answer().text(), "other\n");
    (0..2).for_each(|_| assert_eq!(hog.answer().text(), "hog\n"));
    assert_eq!(order.lock().expect("no panic")[..], ["hog", "other", "hog"]);
}

/// The head and the beginning of an upload that its handler takes, and that goes no further.
fn begin_upload(server: &TestServer) -> RawClient {
    let mut client = server.client();
    client.send("POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nbegun");
    client
}

fn uploads() -> Router {
    let stuck = Router::new().post("/upload", |request: &mut Request| match request.body_bytes() {
        Ok(body) => Ok(format!("{} bytes\n", body.len())),
        Err(error) => Err((StatusCode(400), error.to_string())),
    });
    stuck.get("/hello", |_| "hello\n").get("/push", |_| {
        Body::stream(|writer| {
            let piece = [b'x'; 8192];
            (0..1 << 14).try_for_each(|_| writer.write_all(&piece))
        })
    })
}

/// With one worker a slow upload was the whole pool, and everybody else was told 503.
#[test]
fn a_slow_upload_is_not_the_whole_pool() {
    let server = TestServer::start(server(1).service(uploads()));
    let _slow: Vec<RawClient> = (0..3).map(|_| begin_upload(&server)).collect();
    for _ in 0..3 {
        server.client().expect_alive("/hello");
    }
}

/// A client that waited to be told to send its body was told 408, as if it had been slow.
#[test]
fn an_upload_that_was_never_asked_for_is_told_503_and_not_408() {
    let limits = Limits { stream_wait: Duration::from_millis(100), ..patient() };
    let server = TestServer::start(server(1).limits(limits).service(uploads()));
    let _slow = begin_upload(&server);
    let mut waiting = server.client();
    waiting.send("POST /upload HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 70000\r\n\r\n");
    assert_eq!(waiting.answer().status, 503);
}

#[test]
fn a_pushed_answer_that_nobody_reads_is_not_the_whole_pool() {
    let server = TestServer::start(server(1).service(uploads()));
    let mut slow = server.client().with_small_window();
    slow.get("/push").read_at_least(1);
    let mut waiting = server.client();
    waiting.get("/push");
    server.client().expect_alive("/hello");
    drop(slow);
    // The one behind it gets the thread.
    waiting.read_at_least(1);
}

/// One or two slow uploads denied all others above 64 KiB.
#[test]
fn an_upload_is_taken_while_slow_ones_have_every_thread_that_waits() {
    let server = TestServer::start(server(4).service(uploads()));
    let mut slow: Vec<RawClient> = (0..3).map(|_| begin_upload(&server)).collect();
    let mut other = server.client();
    for size in [100_000, 65_537, 1_000_000] {
        other.post("/upload", vec![b'y'; size]);
        assert_eq!(other.answer().text(), format!("{size} bytes\n"));
    }
    // The slow ones are none the worse for it: two have a thread, one is collected.
    for client in &mut slow {
        client.send(vec![b'x'; 999_995]);
        assert_eq!(client.answer().text(), "1000000 bytes\n");
    }
}

/// Each had a part of the room, none had enough, and all of them waited for each other.
#[test]
fn bodies_that_are_collected_do_not_wait_for_each_other() {
    let server = TestServer::start(server(2).service(uploads()));
    let _slow = begin_upload(&server);
    let mut others: Vec<RawClient> = (0..40).map(|_| server.client()).collect();
    for client in &mut others {
        client.send("POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 900000\r\n\r\n");
    }
    thread::scope(|scope| {
        for client in &mut others {
            scope.spawn(move || {
                client.send(vec![b'y'; 900_000]);
                assert_eq!(client.answer().text(), "900000 bytes\n");
            });
        }
    });
}

/// What comes behind a last answer is thrown away. One connection with such bytes, and no worker to throw them away,
/// was counted as a request that the stop had cut.
#[test]
fn a_connection_that_lingers_is_no_request_that_was_cut() {
    let (gate, routes) = gated();
    let limits = Limits { linger: LATE, ..patient() };
    let builder = Server::builder().workers(1).limits(limits).stop_deadline(Duration::from_millis(300));
    let server = TestServer::start(builder.service(routes));
    let mut refused = server.client();
    assert_eq!(refused.send("GET  /hello HTTP/1.1\r\n\r\n").answer().status, 400);
    let _busy = server.client_at(&gate);
    refused.send("and what a client sends all the same");
    assert_eq!(server.stop(), Ended::Cut(1));
}

/// What a request looks like in the socket when its worker comes to it: two pieces, and something between them.
fn is_answered_with_something_between(address: &str, between: impl Fn(&mut RawClient)) {
    let (gate, routes) = gated();
    let server = TestServer::start_at(server(1).service(routes), address);
    let mut busy = server.client_at(&gate);
    let mut client = server.client();
    between(&mut client);
    client.send("st: test\r\n\r\n");
    gate.open();
    assert_eq!(busy.answer().text(), "through\n");
    assert_eq!(client.answer().text(), "hello\n");
}

/// A read ends early at the mark, and no event tells of what is behind it: such a request was answered 408.
#[test]
fn a_request_behind_urgent_data_is_not_left_in_the_socket() {
    is_answered_with_something_between("127.0.0.1:0", |client| {
        client.send("GET /hello HTTP/1.1\r\nHo").send_urgent();
    });
}

#[test]
fn a_request_behind_passed_descriptors_is_not_left_in_the_socket() {
    let directory = Scratch::new();
    is_answered_with_something_between(&format!("unix:{}", directory.path("s").display()), |client| {
        client.send_with_descriptor(b"GET /hello HTTP/1.1\r\nHo");
    });
}
