//! Every state of a connection, over raw sockets against a server in this process. What one request file can say is
//! in `tests/requests/`; here is what takes time, size, several clients or a handler that waits.

use crate::common::{
    self, Answer, Ending, Gate, LATE, PATIENCE, Passage, RawClient, Scratch, TestServer, gated_beside, hello,
};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use handover::{Body, Builder, Ended, IntoResponse, Limits, Request, Response, Router, Server};
use std::fs::File;
use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

/// Short, for what a test waits for.
const SOON: Duration = Duration::from_millis(300);
/// Limits that do not interfere, those of responses among them.
fn patient() -> Limits {
    Limits { write_timeout: LATE, stream_wait: LATE, linger: LATE, ..common::patient() }
}

fn server(workers: usize) -> Builder {
    Server::builder().workers(workers).limits(patient())
}

/// Bytes that tell their position.
fn pattern(length: usize) -> Vec<u8> {
    const PERIOD: usize = 251 * 256;
    let period: Vec<u8> = (0..PERIOD).map(|at| (at % 251) as u8).collect();
    let mut bytes = period.repeat(length.div_ceil(PERIOD));
    bytes.truncate(length);
    bytes
}

/// Not assert_eq: nobody wants to read megabytes.
#[track_caller]
fn expect_pattern(body: &[u8], length: usize) {
    assert_eq!(body.len(), length);
    let wanted = pattern(length);
    if body != wanted {
        panic!("byte {:?} is wrong", body.iter().zip(wanted).position(|(got, wanted)| *got != wanted));
    }
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// A reader that tells when it is dropped.
struct Watched<R>(R, #[expect(dead_code, reason = "it disconnects when dropped")] Sender<()>);

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

/// Waits until the sender's owner has gone.
#[track_caller]
fn expect_dropped(dropped: &Receiver<()>) {
    let left = dropped.recv_timeout(PATIENCE);
    assert_eq!(left, Err(RecvTimeoutError::Disconnected));
}

// Bodies

fn sum(request: &mut Request) -> io::Result<String> {
    summed(request, 3000)
}

/// Less than what is read ahead, and more: then it is read to the handler's room at once. 0 collects it.
fn summed(request: &mut Request, room: usize) -> io::Result<String> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; room]);
    if room == 0 {
        bytes = request.body_bytes()?;
    }
    loop {
        match request.as_reader().read(&mut buffer)? {
            0 => break,
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(format!("{} {}\n", bytes.len(), if bytes == pattern(bytes.len()) { "right" } else { "wrong" }))
}

/// The ways in which a handler takes its body.
const SUMS: [&str; 3] = ["/sum", "/sum-at-once", "/sum-whole"];

fn body_server() -> TestServer {
    let limits = Limits { body_size: 32 << 20, ..patient() };
    let routes = hello()
        .post("/sum", sum)
        .post("/sum-at-once", |request: &mut Request| summed(request, 100_000))
        .post("/sum-whole", |request: &mut Request| summed(request, 0))
        .post("/echo", |request: &mut Request| {
            let length = request.body_length().map(|length| length as u64);
            Body::reader(request.take_body(), length)
        })
        .post("/ignore", |_| "ignored\n")
        .post("/small", sum)
        .max_body(100_000);
    TestServer::start(server(2).limits(limits).service(routes))
}

#[test]
fn a_body_of_any_size_arrives_whole() {
    let server = body_server();
    let mut client = server.client();
    for path in SUMS {
        // Around the buffer, around a read, and far beyond.
        for length in [1, 16_384, 65_535, 65_536, 65_537, 100_000, 3_000_000] {
            let body = pattern(length);
            let answer = client.post(path, &body).answer();
            assert_eq!(answer.text(), format!("{length} right\n"), "{path} by length");
            for size in [1000, 65_536, 1 << 20] {
                client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"));
                let answer = client.send(chunked(&body, size)).answer();
                assert_eq!(answer.text(), format!("{length} right\n"), "{path} in chunks of {size}");
                assert!(!answer.closes());
            }
        }
    }
}

#[test]
fn a_body_that_is_collected_takes_no_more_room_than_it_has_bytes() {
    let room =
        |request: &mut Request| request.body_bytes().map(|bytes| format!("{} of {}\n", bytes.len(), bytes.capacity()));
    let limits = Limits { body_size: 32 << 20, ..patient() };
    let server = TestServer::start(server(2).limits(limits).service(hello().post("/room", room)));
    let mut client = server.client();
    for length in [70_000, 200_000, 1_000_000, 1 << 20, 3_000_000] {
        // With what would fill room that was too large.
        client.send(format!("POST /room HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n"));
        client.send([pattern(length), b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n".repeat(3)].concat());
        assert_eq!(client.answer().text(), format!("{length} of {length}\n"));
        for _ in 0..3 {
            assert_eq!(client.answer().text(), "hello\n");
        }
    }
}

#[test]
fn a_body_in_tiny_pieces_arrives_whole() {
    let server = body_server();
    let body = pattern(70_000);
    let mut client = server.client();
    for path in SUMS {
        client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"));
        client.try_send_in_steps(&chunked(&body, 100), 13).expect("the server reads");
        assert_eq!(client.answer().text(), "70000 right\n", "{path}");
        client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()));
        client.try_send_in_steps(&body, 7).expect("the server reads");
        assert_eq!(client.answer().text(), "70000 right\n", "{path}");
    }
}

#[test]
fn what_follows_a_streamed_body_is_the_next_request() {
    let server = body_server();
    let mut client = server.client();
    // More than is collected without a copy of it.
    let body = pattern(1_100_000);
    let next = "GET /hello HTTP/1.1\r\nHost: test\r\n\r\n".repeat(3);
    for path in SUMS {
        let head = format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
        client.send([head.as_bytes(), &body, next.as_bytes()].concat());
        let head = format!("POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send([head.as_bytes(), &chunked(&body, 5000), next.as_bytes()].concat());
        for _ in 0..2 {
            assert_eq!(client.answer().text(), "1100000 right\n", "{path}");
            for _ in 0..3 {
                assert_eq!(client.answer().text(), "hello\n", "{path}");
            }
        }
    }
    client.expect_alive("/hello");
}

#[test]
fn a_body_is_echoed_while_it_arrives() {
    let server = body_server();
    let length = 8 << 20;
    for head in [format!("Content-Length: {length}"), "Transfer-Encoding: chunked".to_owned()] {
        let mut client = server.client();
        let mut sender = client.clone();
        let sending = thread::spawn(move || {
            let body = pattern(length);
            let body = if head.starts_with("T") { chunked(&body, 60_000) } else { body };
            sender.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\n{head}\r\n\r\n")).send(body);
        });
        let answer = client.answer();
        sending.join().expect("the client sends");
        assert_eq!(answer.status, 200);
        expect_pattern(&answer.body, length);
        client.expect_alive("/hello");
    }
}

#[test]
fn nothing_is_buffered_where_the_limit_says_so() {
    let limits = Limits { buffered_body: 0, ..patient() };
    let server = TestServer::start(server(2).limits(limits).service(hello().post("/sum", sum)));
    let mut client = server.client();
    assert_eq!(client.post("/sum", pattern(5)).answer().text(), "5 right\n");
    client.send("POST /sum HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n").send(chunked(&pattern(9), 2));
    assert_eq!(client.answer().text(), "9 right\n");
    client.expect_alive("/hello");
}

// Refusals while the client is still sending: the answer must be readable, so no reset may overtake it.

fn send_all_then_read(client: &mut RawClient, head: &str, body: &[u8]) -> Answer {
    client.send(head).send(body);
    client.answer()
}

#[test]
fn an_early_413_is_readable_by_a_client_that_sends_on() {
    let server = body_server();
    let body = pattern(8 << 20);
    let mut client = server.client();
    let head = format!("POST /small HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = send_all_then_read(&mut client, &head, &body);
    assert_eq!((answer.status, answer.text(), answer.closes()), (413, "413 request body too large\n", true));
    client.expect_fin();

    // In chunks it shows only when the limit is passed, with the handler already reading.
    let mut client = server.client();
    let head = "POST /small HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = send_all_then_read(&mut client, head, &chunked(&body, 10_000));
    assert_eq!((answer.status, answer.text(), answer.closes()), (413, "413 request body too large\n", true));
    client.expect_fin();
}

#[test]
fn an_answer_to_an_unread_body_is_readable_by_a_client_that_sends_on() {
    let server = body_server();
    let body = pattern(8 << 20);
    let mut client = server.client();
    let head = format!("POST /ignore HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = send_all_then_read(&mut client, &head, &body);
    assert_eq!((answer.status, answer.text(), answer.closes()), (200, "ignored\n", true));
    client.expect_fin();
}

#[test]
fn a_400_in_the_middle_of_a_body_is_readable_by_a_client_that_sends_on() {
    let server = body_server();
    let mut body = chunked(&pattern(4 << 20), 10_000);
    let start = body.windows(8).skip(90_000).position(|window| window == b"\r\n2710\r\n").expect("a size line");
    body[90_000 + start + 2] = b'!';
    let mut client = server.client();
    let head = "POST /sum HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = send_all_then_read(&mut client, head, &body);
    assert_eq!((answer.status, answer.text(), answer.closes()), (400, "400 malformed chunk\n", true));
    client.expect_fin();
}

#[test]
fn an_oversized_head_is_refused_with_the_reason() {
    let server = TestServer::start(server(2).service(hello()));
    let field = |length: usize| format!("GET /hello HTTP/1.1\r\nHost: test\r\nA: {}\r\n\r\n", "x".repeat(length));
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(length - 1));
    let fields = |count: usize| format!("GET /hello HTTP/1.1\r\nHost: test\r\n{}\r\n", "A: b\r\n".repeat(count - 1));
    let fixed = field(0).len();
    for (request, status, text) in [
        (field(16 * 1024 - fixed), 200, "hello\n"),
        (field(16 * 1024 - fixed + 1), 431, "431 request head too large\n"),
        (field(1 << 20), 431, "431 request head too large\n"),
        (fields(100), 200, "hello\n"),
        (fields(101), 431, "431 too many header fields\n"),
        (target(8 * 1024), 404, "404 Not Found\n"),
        (target(8 * 1024 + 1), 414, "414 request target too long\n"),
        (target(1 << 20), 414, "414 request target too long\n"),
        // It never ends its method.
        ("x".repeat(1 << 20), 501, "501 method not implemented\n"),
    ] {
        for step in [usize::MAX, 100] {
            let mut client = server.client();
            client.try_send_in_steps(request.as_bytes(), step).expect("the server lingers");
            let answer = client.answer();
            assert_eq!((answer.status, answer.text()), (status, text), "{:.60}", request);
            assert_eq!(answer.closes(), status != 200 && status != 404);
            if answer.closes() {
                client.expect_fin();
            }
        }
    }
}

// Expect: 100-continue

const EXPECT: &str = "Host: test\r\nExpect: 100-continue\r\n";

#[test]
fn a_client_that_waits_is_told_to_continue() {
    let server = body_server();
    let mut client = server.client();
    for length in [5, 100_000] {
        client.send(format!("POST /sum HTTP/1.1\r\n{EXPECT}Content-Length: {length}\r\n\r\n"));
        let interim = client.answer();
        assert_eq!(interim.head, "HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(client.send(pattern(length)).answer().text(), format!("{length} right\n"));

        client.send(format!("POST /sum HTTP/1.1\r\n{EXPECT}Transfer-Encoding: chunked\r\n\r\n"));
        assert_eq!(client.answer().status, 100);
        assert_eq!(client.send(chunked(&pattern(length), 999)).answer().text(), format!("{length} right\n"));
    }
}

#[test]
fn a_client_that_did_not_wait_is_not_told_to_continue() {
    let server = body_server();
    let mut client = server.client();
    client.send(format!("POST /sum HTTP/1.1\r\n{EXPECT}Content-Length: 1\r\n\r\n\0"));
    assert_eq!(client.answer().text(), "1 right\n");
    client.send(format!("POST /sum HTTP/1.1\r\n{EXPECT}Transfer-Encoding: chunked\r\n\r\n1\r\n\0\r\n0\r\n\r\n"));
    assert_eq!(client.answer().text(), "1 right\n");
}

#[test]
fn a_body_that_nobody_wants_is_not_asked_for() {
    let server = body_server();
    let mut client = server.client();
    client.send(format!("POST /ignore HTTP/1.1\r\n{EXPECT}Content-Length: 100000\r\n\r\n"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.text(), answer.closes()), (200, "ignored\n", true));
    client.expect_fin();

    let mut client = server.client();
    client.send(format!("POST /small HTTP/1.1\r\n{EXPECT}Content-Length: 100001\r\n\r\n"));
    assert_eq!(client.answer().status, 413);
    client.expect_fin();
}

// Responses

fn source_error() -> io::Error {
    io::Error::other("the source failed")
}

/// Fails behind what it has.
struct Failing(io::Cursor<Vec<u8>>);

impl Read for Failing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf)? {
            0 => Err(source_error()),
            read => Ok(read),
        }
    }
}

struct Panicking;

impl Read for Panicking {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        std::panic::resume_unwind(Box::new("as asked for"))
    }
}

/// More than the kernel takes for a client that does not read: 4 MiB at both ends together, as it comes.
const LONG: usize = 12_000_000;

fn answers() -> Router {
    let cursor = |length| io::Cursor::new(pattern(length));
    hello()
        .get("/bytes", |_| pattern(LONG))
        .get("/known", move |_| Body::reader(cursor(LONG), Some(LONG as u64)))
        .get("/unknown", move |_| Body::reader(cursor(LONG), None))
        .get("/longer", move |_| Body::reader(cursor(LONG), Some(1000)))
        .get("/nothing", |_| Body::reader(io::empty(), None))
        .get("/pushed", |_| {
            Body::stream(|writer| pattern(LONG).chunks(7777).try_for_each(|piece| writer.write_all(piece)))
        })
        .get("/pushed-nothing", |_| Body::stream(|_| Ok(())))
        .get("/short", move |_| Body::reader(cursor(1000), Some(1001)))
        .get("/failing", move |_| Body::reader(Failing(cursor(1000)), None))
        .get("/panicking", |_| Body::reader(Panicking, None))
        .get("/push-fails", |_| {
            Body::stream(|writer| {
                writer.write_all(&pattern(1000))?;
                writer.flush()?;
                Err(source_error())
            })
        })
        .get("/push-panics", |_| {
            Body::stream(|writer| {
                writer.write_all(&pattern(1000))?;
                writer.flush()?;
                std::panic::resume_unwind(Box::new("as asked for"))
            })
        })
        .get("/panic", |_| -> &str { std::panic::resume_unwind(Box::new("as asked for")) })
}

#[test]
fn a_body_of_any_kind_arrives_whole() {
    let server = TestServer::start(server(2).service(answers()));
    let mut client = server.client();
    for (path, length, known) in [
        ("/bytes", LONG, true),
        ("/known", LONG, true),
        ("/longer", 1000, true),
        ("/unknown", LONG, false),
        ("/nothing", 0, false),
        ("/pushed", LONG, false),
        ("/pushed-nothing", 0, false),
    ] {
        let answer = client.get(path).answer();
        assert_eq!(answer.header("content-length").is_some(), known, "{path}");
        assert_eq!(answer.header("transfer-encoding"), (!known).then_some("chunked"), "{path}");
        expect_pattern(&answer.body, length);

        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let head = client.answer_to_head();
        assert_eq!(head.header("content-length"), answer.header("content-length"), "HEAD {path}");
        assert_eq!(head.header("transfer-encoding"), answer.header("transfer-encoding"), "HEAD {path}");

        // HTTP/1.0 has no chunks: there the end of the connection ends a body of unknown length.
        let mut old = server.client();
        old.send(format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
        let answer = old.answer();
        assert_eq!(answer.header("content-length").is_some(), known, "{path}");
        assert_eq!(answer.header("transfer-encoding"), None, "{path}");
        assert_eq!(answer.header("connection"), Some(if known { "keep-alive" } else { "close" }), "{path}");
        expect_pattern(&answer.body, length);
    }
    client.expect_alive("/hello");
}

#[test]
fn a_body_that_breaks_off_is_seen_to_break_off() {
    let server = TestServer::start(server(1).service(answers()));
    for path in ["/short", "/failing", "/push-fails", "/push-panics", "/panicking"] {
        let mut client = server.client();
        let (ending, rest) = client.get(path).try_answer(false).expect_err(path);
        assert_eq!(ending, Ending::Fin, "{path}");
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{path} has a last chunk");
        // The only worker lives.
        server.client().expect_alive("/hello");
    }
}

#[test]
fn a_file_that_is_shorter_than_promised_is_seen_to_break_off() {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    std::fs::write(&path, pattern(100_000)).expect("a file");
    let routes = hello().get("/file", move |_| File::open(&path).map(|file| Body::file_range(file, 0, 100_001)));
    let server = TestServer::start(server(1).service(routes));
    let mut client = server.client();
    let (ending, rest) = client.get("/file").try_answer(false).expect_err("too short");
    assert_eq!(ending, Ending::Fin);
    assert!(rest.ends_with(&pattern(100_000)[99_000..]), "all there was came");
    server.client().expect_alive("/hello");
}

#[test]
fn a_panicking_handler_costs_one_request() {
    let server = TestServer::start(server(1).service(answers()));
    let mut client = server.client();
    for _ in 0..20 {
        let answer = client.get("/panic").answer();
        assert_eq!((answer.status, answer.closes()), (500, false));
        client.expect_alive("/hello");
    }
}

#[test]
fn status_routes_can_be_switched_off() {
    let server = TestServer::start(server(1).status_routes(false).service(hello()));
    let mut client = server.client();
    assert_eq!(client.get("/-/ready").answer().status, 404);
    assert_eq!(client.get("/-/healthy").answer().status, 404);
}

/// The server decides to close, and the client, which does not know yet, sends its next request: a reset for that
/// would take what is still on its way of the answer with it.
#[test]
fn an_answer_that_ends_the_connection_is_not_lost_to_the_next_request() {
    let routes = Router::new()
        .get("/last", |_| Body::from(pattern(LONG)).with_close())
        .get("/small", |_| Body::from(pattern(60_000)).with_close())
        .get("/file", |_| Body::reader(io::repeat(b'x').take(LONG as u64), None));
    let server = TestServer::start(server(1).service(routes));
    for (path, length) in [("/last", LONG), ("/small", 60_000)] {
        let mut client = server.client().with_small_window();
        client.get(path).read_at_least(10_000);
        // Ignored: the server may have closed, that is what this is about.
        let _ = client.try_send("GET /next HTTP/1.1\r\nHost: test\r\n\r\n");
        expect_pattern(&client.answer().body, length);
        client.expect_fin();
    }
    let mut client = server.client().with_small_window();
    client.send("GET /file HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").read_at_least(10_000);
    let _ = client.try_send("GET /next HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer().body.len(), LONG);
}

// Clients that leave

#[test]
fn a_client_that_half_closes_gets_its_answer() {
    let (gate, routes) = gated_beside(answers());
    let server = TestServer::start(server(1).service(routes));
    let mut client = server.client();
    assert_eq!(client.get("/hello").finish().answer().text(), "hello\n");
    client.expect_fin();

    let mut client = server.client();
    client.get("/gate");
    gate.wait();
    client.finish();
    gate.open();
    assert_eq!(client.answer().text(), "through\n");
    client.expect_fin();

    let mut client = server.client().with_small_window();
    client.get("/bytes").get("/pushed").get("/hello").finish();
    expect_pattern(&client.answer().body, LONG);
    expect_pattern(&client.answer().body, LONG);
    assert_eq!(client.answer().text(), "hello\n");
    client.expect_fin();
}

/// Room for one connection: the next is served only because the one before is gone.
#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    let limits = Limits { connections: 1, ..patient() };
    let (watch, dropped) = unbounded::<()>();
    let watch = std::sync::Mutex::new(Some(watch));
    let routes = answers().post("/sum", sum).get("/watched", move |_| {
        let watch = watch.lock().expect("not poisoned").take().expect("asked for once");
        Body::reader(Watched(io::repeat(b'x'), watch), None)
    });
    let server = TestServer::start(server(2).limits(limits).service(routes));

    let mut client = server.client();
    client.send("GET /hello HTTP/1.1\r\nHo");
    client.vanish();
    let mut client = server.client();
    client.send("POST /sum HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc");
    client.vanish();
    let mut client = server.client();
    client.send("POST /sum HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\nabc");
    client.vanish();
    for path in ["/bytes", "/known", "/unknown", "/pushed"] {
        let mut client = server.client().with_small_window();
        client.get(path).read_at_least(1000);
        client.vanish();
    }
    let mut client = server.client();
    client.get("/watched").read_at_least(100_000);
    client.vanish();
    expect_dropped(&dropped);
    server.client().expect_alive("/hello");
    assert_eq!(server.stop(), Ended::Clean);
}

// Clients that are slow, and workers that are few

#[test]
fn a_client_that_pipelines_without_reading_waits_and_loses_nothing() {
    let routes = hello().get("/n/{n}", |request: &mut Request| {
        format!("{} {}\n", request.param("n").unwrap_or("?"), "x".repeat(10_000))
    });
    let server = TestServer::start(server(1).service(routes));
    let mut client = server.client().with_small_window();
    let requests: String = (0..1000).map(|n| format!("GET /n/{n} HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
    client.send(requests);
    // Ten megabytes of answers wait for it, and hold nobody up.
    let mut other = server.client();
    for _ in 0..10 {
        other.expect_alive("/hello");
    }
    for n in 0..1000 {
        let answer = client.answer();
        assert!(answer.text().starts_with(&format!("{n} ")), "answer {n}: {:.20}", answer.text());
    }
    client.expect_alive("/hello");
}

#[test]
fn slow_readers_hold_no_worker() {
    const LENGTH: u64 = 32 << 20;
    let scratch = Scratch::new();
    let path = scratch.path("large");
    let mut file = File::create(&path).expect("a file");
    file.write_all(&pattern(100_000)).expect("its beginning");
    file.set_len(LENGTH).expect("a large file");
    let routes = answers()
        .get("/file", move |_| File::open(&path).and_then(Body::try_from))
        .get("/endless", |_| Body::reader(io::repeat(b'x'), None));
    let server = TestServer::start(server(1).service(routes));
    let mut slow: Vec<RawClient> = (0..12).map(|_| server.client().with_small_window()).collect();
    for (client, path) in slow.iter_mut().zip(["/file", "/endless", "/bytes"].into_iter().cycle()) {
        client.get(path).read_at_least(1000);
    }
    let mut other = server.client();
    for _ in 0..20 {
        other.expect_alive("/hello");
    }
    let answer = slow[0].answer();
    assert_eq!(answer.body.len() as u64, LENGTH);
    expect_pattern(&answer.body[..100_000], 100_000);
    expect_pattern(&slow[2].answer().body, LONG);
    slow[0].expect_alive("/hello");
}

fn gated_stream(passage: Passage) -> impl Fn(&mut Request) -> Body {
    move |_| {
        let passage = passage.clone();
        Body::stream(move |writer| {
            writer.write_all(b"begun ")?;
            writer.flush()?;
            passage.pass();
            writer.write_all(b"ended\n")
        })
    }
}

#[test]
fn more_streams_than_there_are_threads_for_leave_the_pool_to_others() {
    let (gate, passage) = Gate::new();
    let routes = hello().get("/stream", gated_stream(passage)).post("/sum", sum);
    let server = TestServer::start(server(2).service(routes));
    let mut streams: Vec<RawClient> = (0..4).map(|_| server.client()).collect();
    for client in &mut streams {
        client.get("/stream");
    }
    // A large body may have to wait for the same threads.
    let mut reader = server.client();
    reader.send("POST /sum HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n");
    gate.wait();
    let mut other = server.client();
    for _ in 0..20 {
        other.expect_alive("/hello");
    }
    assert!(!gate.has_come(), "only one of them streams");
    for _ in 0..4 {
        gate.open();
    }
    // Before the others are waited for: which of them comes first is nobody's promise.
    reader.send(pattern(100_000));
    for client in &mut streams {
        assert_eq!(client.answer().text(), "begun ended\n");
        client.expect_alive("/hello");
    }
    assert_eq!(reader.answer().text(), "100000 right\n");
}

#[test]
fn a_pushed_body_waits_for_its_client() {
    let server = TestServer::start(server(2).service(answers()));
    let mut slow: Vec<RawClient> = (0..3).map(|_| server.client().with_small_window()).collect();
    for client in &mut slow {
        client.get("/pushed");
    }
    let mut other = server.client();
    for _ in 0..20 {
        other.expect_alive("/hello");
    }
    // All at once: which of them streams first is nobody's promise, and the others wait for that one's client.
    std::thread::scope(|scope| {
        for client in &mut slow {
            scope.spawn(|| expect_pattern(&client.answer().body, LONG));
        }
    });
}

#[test]
fn a_stream_whose_client_vanishes_gives_its_permit_back() {
    let (gate, passage) = Gate::new();
    let (ended, outcome) = unbounded();
    let routes = hello().get("/stream", gated_stream(passage)).get("/endless", move |_| {
        let ended = ended.clone();
        Body::stream(move |writer| {
            let failed = loop {
                if let Err(error) = writer.write_all(&[b'x'; 10_000]) {
                    break error;
                }
            };
            let _ = ended.send(failed.kind());
            Err(failed)
        })
    });
    let server = TestServer::start(server(2).service(routes));
    let mut client = server.client();
    client.get("/endless").read_at_least(1000);
    let mut next = server.client();
    next.get("/stream");
    client.vanish();
    outcome.recv_timeout(PATIENCE).expect("the stream ends");
    gate.wait();
    gate.open();
    assert_eq!(next.answer().text(), "begun ended\n");
}

#[test]
fn a_stream_that_waits_too_long_for_a_permit_is_told_to_come_again() {
    let (gate, passage) = Gate::new();
    let limits = Limits { stream_wait: SOON, body_size: 1 << 30, ..patient() };
    let routes = hello().get("/stream", gated_stream(passage)).post("/sum", sum);
    let server = TestServer::start(server(2).limits(limits).service(routes));
    let mut first = server.client();
    first.get("/stream");
    gate.wait();

    let mut second = server.client();
    let answer = second.get("/stream").answer();
    assert_eq!((answer.status, answer.header("retry-after"), answer.closes()), (503, Some("1"), true));
    second.expect_fin();

    // A client that is sending can read the answer when it has sent everything.
    let mut third = server.client();
    let answer = third.post("/sum", pattern(8 << 20)).answer();
    assert_eq!((answer.status, answer.header("retry-after"), answer.closes()), (503, Some("1"), true));
    third.expect_fin();

    gate.open();
    assert_eq!(first.answer().text(), "begun ended\n");
    assert_eq!(first.post("/sum", pattern(100_000)).answer().text(), "100000 right\n");
}

#[test]
fn a_request_that_waits_too_long_for_a_worker_is_told_to_come_again() {
    let limits = Limits { queue_timeout: SOON, body_size: 1 << 30, ..patient() };
    let (gate, routes) = gated_beside(hello().post("/sum", sum));
    let server = TestServer::start(server(1).limits(limits).service(routes));
    let mut idle = server.client();
    idle.expect_alive("/hello");
    let mut first = server.client();
    first.get("/gate");
    gate.wait();

    for client in [&mut server.client(), &mut idle] {
        let answer = client.get("/hello").answer();
        assert_eq!((answer.status, answer.header("retry-after"), answer.closes()), (503, Some("1"), true));
        client.expect_fin();
    }
    let mut sending = server.client();
    let answer = sending.post("/sum", pattern(8 << 20)).answer();
    assert_eq!((answer.status, answer.closes()), (503, true), "to a client that sends on");
    sending.expect_fin();

    gate.open();
    assert_eq!(first.answer().text(), "through\n");
    first.expect_alive("/hello");
    server.client().expect_alive("/hello");
}

// Deadlines

/// Sends a byte now and then, until it is dropped or the connection has ended.
struct Trickle(Option<thread::JoinHandle<()>>, Option<Sender<()>>);

impl Trickle {
    fn new(client: &RawClient) -> Trickle {
        let mut client = client.clone();
        let (stop, stopped) = unbounded();
        let run = move || {
            let goes_on = || stopped.recv_timeout(Duration::from_millis(10)) == Err(RecvTimeoutError::Timeout);
            while goes_on() && client.try_send("x").is_ok() {}
        };
        Trickle(Some(thread::spawn(run)), Some(stop))
    }

    /// Waits until the server has ended the connection.
    fn expect_end(mut self) {
        let stop = self.1.take();
        self.0.take().expect("once").join().expect("it sends");
        drop(stop);
    }
}

impl Drop for Trickle {
    fn drop(&mut self) {
        drop(self.1.take());
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_head_that_does_not_come_in_time_is_408() {
    let limits = Limits { head_timeout: SOON, ..patient() };
    let server = TestServer::start(server(1).limits(limits).service(hello()));
    let mut client = server.client();
    client.expect_alive("/hello");
    let answer = client.send("GET /hello HTTP/1.1\r\nHo").answer();
    assert_eq!((answer.status, answer.text()), (408, "408 request head not received in time\n"));
    assert!(answer.closes());
    client.expect_fin();

    // A byte now and then does not help.
    let mut client = server.client();
    client.send("GET /hello HTTP/1.1\r\nA: ");
    let _trickle = Trickle::new(&client);
    assert_eq!(client.answer().status, 408);
    client.expect_fin();
}

#[test]
fn a_body_that_does_not_come_in_time_is_408() {
    let limits = Limits { body_timeout: SOON, body_rate: 1000, ..patient() };
    let server = TestServer::start(server(2).limits(limits).service(hello().post("/sum", sum)));
    for length in [1000, 100_000] {
        for trickles in [false, true] {
            let mut client = server.client();
            client.send(format!("POST /sum HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\nab"));
            let _trickle = trickles.then(|| Trickle::new(&client));
            let answer = client.answer();
            assert_eq!((answer.status, answer.text()), (408, "408 request body not received in time\n"));
            assert!(answer.closes());
            client.expect_fin();
        }
    }
    server.client().expect_alive("/hello");
}

#[test]
fn an_idle_connection_ends_in_time() {
    let limits = Limits { idle_timeout: SOON, ..patient() };
    let server = TestServer::start(server(1).limits(limits).service(hello()));
    let mut silent = server.client();
    let mut served = server.client();
    served.expect_alive("/hello");
    let mut blank = server.client();
    blank.send("\r\n");
    silent.expect_fin();
    served.expect_fin();
    blank.expect_fin();
}

#[test]
fn a_client_that_takes_nothing_is_cut() {
    let limits = Limits { write_timeout: SOON, ..patient() };
    let (watch, dropped) = unbounded();
    let watch = std::sync::Mutex::new(Some(watch));
    let (ended, outcome) = unbounded();
    let routes = hello()
        .get("/endless", move |_| {
            let watch = watch.lock().expect("not poisoned").take().expect("asked for once");
            Body::reader(Watched(io::repeat(b'x'), watch), None)
        })
        .get("/pushed", move |_| {
            let ended = ended.clone();
            Body::stream(move |writer| {
                let failed = loop {
                    if let Err(error) = writer.write_all(&[b'x'; 10_000]) {
                        break error;
                    }
                };
                let _ = ended.send(failed.kind());
                Err(failed)
            })
        });
    let server = TestServer::start(server(2).limits(limits).service(routes));
    let mut client = server.client().with_small_window();
    client.get("/endless");
    expect_dropped(&dropped);
    assert!(matches!(client.try_answer(false), Err((Ending::Fin | Ending::Reset, _))));

    let mut client = server.client().with_small_window();
    client.get("/pushed");
    assert_eq!(outcome.recv_timeout(PATIENCE), Ok(io::ErrorKind::TimedOut));
    assert!(matches!(client.try_answer(false), Err((Ending::Fin | Ending::Reset, _))));
    server.client().expect_alive("/hello");
}

/// The kernel calls a socket writable only when a good part of it is free: a client may be slower than that within the
/// write timeout, and still be reading.
#[test]
fn a_client_that_reads_slowly_is_not_cut() {
    let limits = Limits { write_timeout: Duration::from_secs(1), ..patient() };
    let server = TestServer::start(server(1).limits(limits).service(answers()));
    let mut client = server.client().with_small_window();
    client.get("/known");
    // Three times the timeout, in which it reads less than the kernel holds.
    for step in 1..=60 {
        client.read_at_least(step * 32 * 1024);
        thread::sleep(Duration::from_millis(50));
    }
    expect_pattern(&client.answer().body, LONG);
}

/// It reads, in every window a little, and less than it must.
#[test]
fn a_client_that_reads_a_trickle_is_cut() {
    let limits = Limits { write_timeout: Duration::from_millis(500), write_rate: 1 << 40, ..patient() };
    let (ended, outcome) = unbounded();
    let routes = answers().get("/endless", move |_| {
        let ended = ended.clone();
        Body::stream(move |writer| {
            let pushed = (0..LONG / 10_000).try_for_each(|_| writer.write_all(&[b'x'; 10_000]));
            let _ = ended.send(pushed.as_ref().err().map(io::Error::kind));
            pushed
        })
    });
    let server = TestServer::start(server(2).limits(limits).service(routes));
    for path in ["/known", "/endless"] {
        let mut client = server.client().with_small_window();
        client.get(path);
        let mut read = 0;
        // The whole answer is far more than is read here.
        while let Ok(bytes) = client.try_read_at_least(read + 1) {
            read = bytes.len();
            assert!(read < LONG / 2, "{path}: never cut");
            thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(outcome.recv_timeout(PATIENCE), Ok(Some(io::ErrorKind::TimedOut)));
    server.client().expect_alive("/hello");
}

#[test]
fn a_client_that_is_not_done_reading_ends_with_the_linger_time() {
    let limits = Limits { linger: Duration::from_millis(50), ..patient() };
    let server = TestServer::start(server(1).limits(limits).service(hello()));
    let mut client = server.client();
    assert_eq!(client.send("nonsense\r\n\r\n").answer().status, 400);
    client.expect_fin();
    // It keeps its side open and sends for ever: the server goes all the same.
    Trickle::new(&client).expect_end();
}

/// For ever, says the application: the deadlines are kept in a 32-bit word, which must not wrap into the past.
#[test]
fn limits_of_for_ever_never_pass() {
    for ever in [Duration::MAX, Duration::from_secs(30 * 24 * 3600), Duration::from_millis(u32::MAX.into())] {
        let limits = Limits {
            head_timeout: ever,
            body_timeout: ever,
            idle_timeout: ever,
            write_timeout: ever,
            queue_timeout: ever,
            stream_wait: ever,
            linger: ever,
            ..Limits::default()
        };
        let (gate, passage) = Gate::new();
        let routes = answers().get("/stream", gated_stream(passage)).post("/sum", sum);
        let server = TestServer::start(server(2).limits(limits).service(routes));
        let mut idle = server.client();
        let mut reading = server.client().with_small_window();
        reading.get("/known").read_at_least(1000);
        let mut client = server.client();
        client.send("GET /hello HT");
        let mut sending = server.client();
        sending.send("POST /sum HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n\0");
        let mut streams = [server.client(), server.client()];
        for stream in &mut streams {
            stream.get("/stream");
        }
        gate.wait();
        // Deadlines are looked at every 250 ms; none of these has passed by then.
        thread::sleep(Duration::from_millis(600));
        assert_eq!(client.send("TP/1.1\r\nHost: test\r\n\r\n").answer().text(), "hello\n");
        assert_eq!(sending.send([1, 2]).answer().text(), "3 right\n");
        expect_pattern(&reading.answer().body, LONG);
        idle.expect_alive("/hello");
        gate.open();
        gate.open();
        for stream in &mut streams {
            assert_eq!(stream.answer().text(), "begun ended\n");
        }
    }
}

/// What tiny_http cannot say, our `Body` says: no promise is broken by converting.
#[test]
fn tiny_http_responses_go_out_as_they_are() {
    let routes = Router::new()
        .get("/string", |_| tiny_http::Response::from_string("text").with_status_code(202))
        .get("/data", |_| tiny_http::Response::from_data(pattern(100_000)))
        .get("/empty", |_| tiny_http::Response::empty(404))
        .get("/boxed", |_| tiny_http::Response::from_string("boxed").boxed())
        .get("/result", |_| -> Result<Response, io::Error> { Err(source_error()) })
        .get("/option", |_| None::<&str>)
        .get("/unit", |_| ())
        .get("/typed", |_| ("text").into_response());
    let server = TestServer::start(server(1).service(routes));
    let mut client = server.client();
    let mut ask = |path: &str| client.get(path).answer();
    let answer = ask("/string");
    assert_eq!((answer.status, answer.text()), (202, "text"));
    expect_pattern(&ask("/data").body, 100_000);
    assert_eq!((ask("/empty").status, ask("/empty").header("content-length")), (404, Some("0")));
    assert_eq!(ask("/boxed").text(), "boxed");
    assert_eq!(ask("/result").status, 500);
    assert_eq!(ask("/option").status, 404);
    assert_eq!(ask("/unit").status, 204);
    assert_eq!(ask("/typed").header("content-type"), Some("text/plain; charset=utf-8"));
}
