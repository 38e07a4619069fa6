//! What happens when there is not enough for everybody: connections, descriptors, workers.

use crate::common::{Program, RawClient, Scratch, Size, TestServer, gated, hello, patient};
use handover::{Builder, Ended, Limits, Server};
use rustix::process::Signal;
use std::fs::File;
use std::num::NonZeroU32;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// A connection may be evicted after a second.
const PAST_THE_GRACE: Duration = Duration::from_millis(1100);

fn server(workers: usize) -> Builder {
    Server::builder().workers(workers)
}

#[test]
fn at_the_connection_limit_the_longest_idle_one_goes() {
    let limits = Limits { connections: 3, ..patient() };
    let server = TestServer::start(server(1).limits(limits).service(hello()));
    let mut longest = server.client();
    longest.expect_alive("/hello");
    let mut partial = server.client();
    partial.send("GET /hello HTTP/1.1\r\n");
    let mut shorter = server.client();
    shorter.expect_alive("/hello");
    let mut fresh = server.client();
    fresh.expect_alive("/hello");
    longest.expect_fin();
    shorter.expect_alive("/hello");
    assert_eq!(partial.send("Host: test\r\n\r\n").answer().text(), "hello\n");
}

#[test]
fn at_the_connection_limit_with_none_idle_new_ones_wait() {
    let limits = Limits { connections: 2, ..patient() };
    let (gate, routes) = gated();
    let server = TestServer::start(server(3).limits(limits).service(routes));
    let mut busy = [server.client_at(&gate), server.client_at(&gate)];
    let mut waiting = server.client();
    waiting.get("/gate");
    gate.open();
    gate.open();
    // One of the busy ones becomes the longest idle.
    gate.wait();
    gate.open();
    assert_eq!(waiting.answer().text(), "through\n");
    for client in &mut busy {
        assert_eq!(client.answer().text(), "through\n");
    }
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let lab = Program::lab(["--workers", "1"]);
    // Room for two connections.
    lab.limit_open_files(lab.descriptors_with_room_for(2));
    let mut first = lab.client();
    first.expect_alive("/hello");
    let mut second = lab.client();
    second.expect_alive("/hello");
    let mut third = lab.client();
    third.get("/hello");
    let said = lab.logged("cannot accept, trying again until it works");
    assert!(said.contains("WARN"), "{said}");
    second.expect_alive("/hello");
    drop(first);
    assert_eq!(third.answer().text(), "hello world");
    second.expect_alive("/hello");

    let mut fourth = lab.client();
    fourth.get("/hello");
    lab.limit_open_files(1024);
    assert_eq!(fourth.answer().text(), "hello world");
    lab.signal(rustix::process::Signal::TERM);
    let exit = lab.exit();
    assert_eq!(exit.code, Some(0), "{:#?}", exit.log);
}

#[test]
fn at_the_connection_limit_a_request_that_is_late_goes_where_none_is_idle() {
    let limits = Limits { connections: 2, ..patient() };
    let server = TestServer::start(server(1).limits(limits).service(hello()));
    let mut late = server.client();
    late.send("GET /hello HTTP/1.1\r\n");
    thread::sleep(PAST_THE_GRACE);
    let mut later = server.client();
    later.send("GET /hello HTTP/1.1\r\n");
    server.client().expect_alive("/hello");
    let answer = late.answer();
    assert_eq!((answer.status, answer.header("retry-after"), answer.closes()), (503, Some("1"), true));
    late.expect_fin();
    assert_eq!(later.send("Host: test\r\n\r\n").answer().text(), "hello\n", "it was not late yet");
}

#[test]
fn at_the_connection_limit_who_holds_most_gives_way() {
    let limits = Limits { connections: 4, ..patient() };
    let server = TestServer::start(server(1).limits(limits).service(hello()));
    let mut single = server.client_from("127.0.0.2");
    single.expect_alive("/hello");
    let mut many = [server.client(), server.client(), server.client()];
    for client in &mut many {
        client.expect_alive("/hello");
    }
    thread::sleep(PAST_THE_GRACE);
    server.client_from("127.0.0.3").expect_alive("/hello");
    many[0].expect_fin();
    single.expect_alive("/hello");
    many[2].expect_alive("/hello");
}

#[test]
fn an_address_has_no_more_connections_than_it_may() {
    let limits = Limits { connections_per_ip: NonZeroU32::new(2), ..patient() };
    let (gate, routes) = gated();
    let server = TestServer::start(server(3).limits(limits).service(routes));
    let mut busy = [server.client_at(&gate), server.client_at(&gate)];
    let mut third = server.client();
    let answer = third.answer();
    assert_eq!((answer.status, answer.header("retry-after"), answer.closes()), (503, Some("1"), true));
    third.expect_fin();
    server.client_from("127.0.0.2").expect_alive("/hello");
    gate.open();
    gate.open();
    for client in &mut busy {
        assert_eq!(client.answer().text(), "through\n");
    }
    // Its longest idle one makes place.
    thread::sleep(PAST_THE_GRACE);
    busy[0].expect_alive("/hello");
    server.client().expect_alive("/hello");
    busy[1].expect_fin();
    busy[0].expect_alive("/hello");
}

/// One whose client has closed is as good as gone, however fresh.
#[test]
fn a_client_that_closes_one_connection_may_open_another() {
    let limits = Limits { connections_per_ip: NonZeroU32::new(1), ..patient() };
    let server = TestServer::start(server(1).limits(limits).service(hello()));
    for _ in 0..200 {
        server.client().expect_alive("/hello");
    }
}

#[test]
fn a_connection_has_as_many_requests_as_it_may() {
    let limits = Limits { requests: NonZeroU32::new(2), ..patient() };
    let server = TestServer::start(server(1).limits(limits).service(hello()));
    let mut client = server.client();
    assert!(!client.get("/hello").answer().closes());
    assert!(client.get("/hello").answer().closes());
    client.expect_fin();
}

#[test]
fn without_descriptors_for_long_who_waits_is_told() {
    let lab = Program::lab(["--workers", "2", "--queue-timeout", "0.3"]);
    lab.limit_open_files(lab.descriptors_with_room_for(1));
    let mut busy = lab.client();
    busy.get("/sleep/2000");
    let mut waiting = lab.client();
    let answer = waiting.answer();
    assert_eq!((answer.status, answer.header("retry-after"), answer.closes()), (503, Some("1"), true));
    waiting.expect_fin();
    assert_eq!(busy.answer().text(), "slept 2000\n");
    lab.limit_open_files(1024);
    lab.client().expect_alive("/hello");
    lab.signal(Signal::TERM);
    assert_eq!(lab.exit().code, Some(0));
}

/// The limit of descriptors was raised for the connections alone, and each download of its own file takes two.
#[test]
fn downloads_of_a_file_each_do_not_use_up_the_descriptors() {
    const DOWNLOADS: usize = 90;
    let scratch = Scratch::new();
    for number in 0..DOWNLOADS {
        // Larger than what a socket takes, and without blocks.
        let file = File::create(scratch.path(&number.to_string())).expect("a file");
        file.set_len(64 << 20).expect("room");
    }
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 128 && exec \"$@\"", "sh"]).arg(Program::handover_command().get_program());
    command.args(["-l", "127.0.0.1:0", "--max-connections", "100"]).arg(scratch.path(""));
    let program = Program::start(&mut command);
    let mut downloads: Vec<RawClient> = (0..DOWNLOADS).map(|_| program.client().with_small_window()).collect();
    for (number, client) in downloads.iter_mut().enumerate() {
        let begun = client.get(&format!("/{number}")).read_at_least(15);
        assert!(begun.starts_with(b"HTTP/1.1 200 OK"), "{:?}", String::from_utf8_lossy(begun));
    }
    program.client().expect_alive("/-/healthy");
    drop(downloads);
    assert_eq!(program.stop(), Some(0));
}

/// Every worker blocked for ever: what a pool cannot mend must not take the rest along.
#[test]
fn handlers_that_never_end_leave_the_server_answering() {
    let limits = Limits { queue_timeout: Duration::from_secs(1), ..patient() };
    let (gate, routes) = gated();
    let server = server(2).limits(limits).stop_deadline(Duration::from_millis(500)).service(routes);
    let server = TestServer::start(server);
    let mut idle = server.client();
    idle.expect_alive("/hello");
    let _stuck = [server.client_at(&gate), server.client_at(&gate)];
    let mut silent = server.client();
    let mut half = server.client();
    // Loses nothing: it may be said again.
    half.send("GET /hello HTTP/1.1\r\n");
    // Whoever asks how the server is has an answer all the same, again and again, and nobody else does.
    for client in [&mut idle, &mut server.client()] {
        for _ in 0..2 {
            assert_eq!(client.get("/-/healthy").answer().text(), "healthy\n");
            let answer = client.get("/-/ready").answer();
            assert_eq!((answer.status, answer.text(), answer.closes()), (503, "busy\n", false));
        }
        let answer = client
            .send("GET /-/healthy HTTP/1.1\r\nHost: test\r\n\r\nGET /hello HTTP/1.1\r\nHost: test\r\n\r\n")
            .answer();
        assert_eq!(answer.status, 200);
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "the one behind it has to wait");
        client.expect_fin();
    }
    assert_eq!(half.answer().status, 503, "no worker could even look at it");
    assert_eq!(server.stop(), Ended::Cut(2));
    silent.expect_fin();
}

/// Hundreds of requests that are nearly here, many times what there is room for: who finds none is told so, the others
/// wait on, and the process stays within what it was given.
#[test]
fn what_clients_make_it_hold_stays_within_the_memory() {
    const MEMORY_KIB: usize = 28 << 10;
    let lab = Program::lab(["--memory", "28M", "--head-timeout", "60"]);
    let mut served = lab.client();
    served.expect_alive("/hello");
    let head = "GET /hello HTTP/1.1\r\nHost: test\r\nX-Slow: ".to_owned() + &"x".repeat(15_000);
    let body = "POST /journal HTTP/1.1\r\nHost: test\r\nContent-Length: 65000\r\n\r\n".to_owned() + &"x".repeat(60_000);
    let mut slow = Vec::new();
    for _ in 0..200 {
        for begun in [&head, &body] {
            let mut client = lab.client();
            // One that is turned away may find the connection closed.
            let _ = client.try_send(begun);
            slow.push(client);
        }
        served.expect_alive("/hello");
    }
    lab.client().expect_alive("/hello");
    let (mut refused, mut waiting) = (0, 0);
    for client in &mut slow {
        if client.has_answer() {
            let answer = client.answer();
            assert_eq!((answer.status, answer.header("retry-after"), answer.closes()), (503, Some("1"), true));
            refused += 1;
        } else {
            waiting += 1;
        }
    }
    assert!(refused > 50 && waiting > 50, "{refused} refused, {waiting} waiting");
    // The first head came when there was room.
    assert_eq!(slow[0].send("\r\n\r\n").answer().text(), "hello world");
    let peak = Size::of(lab.pid()).peak;
    assert!(peak <= MEMORY_KIB, "{peak} KiB were resident");
}

/// A client that finds a handler that panics must not fill the disk.
#[test]
fn a_flood_of_panics_is_a_few_lines_and_a_count() {
    let lab = Program::lab(["--workers", "2"]);
    let mut client = lab.client();
    for _ in 0..200 {
        assert_eq!(client.get("/panic").answer().status, 500);
    }
    client.expect_alive("/hello");
    lab.signal(Signal::TERM);
    let exit = lab.exit();
    assert_eq!(exit.code, Some(0), "{:#?}", exit.log);
    let lines = |text: &str| exit.log.iter().filter(|line| line.contains(text)).count();
    // Two windows, if it took that long.
    assert!((10..=20).contains(&lines("handler panicked: as asked for")), "{:#?}", exit.log);
    assert!((10..=20).contains(&lines("panicked at examples/lab.rs")), "{:#?}", exit.log);
    assert_eq!(lines("] handlers have panicked 200 times"), 1, "{:#?}", exit.log);
}
