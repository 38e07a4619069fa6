//! Clients of push that behave badly: what they do is bounded, costs no worker, and is nobody else's loss.

use crate::common::{Ending, EventStream, Mode, Program, RawClient, Scratch, TestServer, eventually, hello, patient};
use crate::push::command;
use handover::{Bound, Builder, Hub, Namespace, Publishers, Server};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A server with a hub of so many bytes at `/events`.
fn hub(memory: usize) -> (Hub, Namespace, Builder) {
    let hub = Hub::with_limits(memory, 64 << 10);
    let events = hub.namespace("events").publishers(Publishers::Anyone).heartbeat(0);
    let builder = Server::builder().workers(2).hub(&hub).service(hello().mount_service("/events", events.service()));
    (hub, events, builder)
}

/// Where the client took nothing yet of the response's head, the kernel's buffer being full of what stood before it, the
/// opening was lost, and with it the gap and the last messages.
#[test]
fn a_stream_behind_responses_that_were_not_read_begins_with_its_opening() {
    let scratch = Scratch::new();
    let (_hub, events, builder) = hub(1 << 20);
    let address = format!("unix:{}", scratch.path("socket").display());
    let server = TestServer::start_at(builder.limits(patient()), &address);
    server.client().expect_alive("/hello");
    events.publish("a", "x").expect("it serves");
    let (stream, before) =
        ("GET /events/a?since=7-1 HTTP/1.1\r\nHost: test\r\n\r\n", "GET /hello HTTP/1.1\r\nHost: test\r\n\r\n");
    let clients: Vec<(usize, RawClient)> = (200..600)
        .step_by(1)
        .map(|count| {
            let mut client = server.client();
            client.send(before.repeat(count) + stream);
            (count, client)
        })
        .collect();
    // Most wait for their clients by now, each at another place.
    server.client().expect_alive("/hello");
    for (count, mut client) in clients {
        for _ in 0..count {
            assert_eq!(client.answer().status, 200);
        }
        let mut stream = EventStream::answered(client);
        stream.opening();
        assert!(stream.lines().starts_with("event: @gap\n"), "behind {count}");
        assert_eq!(stream.lines(), "data: x\n\n", "behind {count}");
    }
}

/// A stream of that many bytes is more than a Unix socket takes.
const MORE_THAN_A_SOCKET: usize = 1 << 20;

/// The program over a Unix socket and TCP, with this in its configuration.
fn program(scratch: &Scratch, config: &str, flags: &[&str]) -> Program {
    Program::start(command(Mode::Exec, scratch, config).env("RUST_LOG", "debug").args(flags))
}

/// How many subscribe, as the program says.
fn subscribers(program: &Program) -> usize {
    let mut client = program.client();
    client.send("GET /events HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n");
    let list: serde_json::Value = serde_json::from_slice(&client.answer().body).expect("JSON");
    let topics = list["topics"].as_array().expect("topics");
    topics.iter().map(|topic| topic["subscribers"].as_u64().expect("a number") as usize).sum()
}

#[track_caller]
fn publish(client: &mut RawClient, topic: &str, data: &str) {
    let answer = client.post(&format!("/events/{topic}"), data).answer();
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Processor time that a process has taken.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("/proc");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("proc(5)").1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

#[test]
fn who_never_reads_is_closed_and_nobody_waits_for_it() {
    let scratch = Scratch::new();
    let program = program(&scratch, "push_memory = \"256K\"\nwrite_timeout = 0.5\nworkers = 1", &[]);
    let mut slow: Vec<EventStream> =
        program.bound.iter().map(|bound| EventStream::open(bound, "/events/a", "")).collect();
    slow.iter_mut().for_each(|stream| _ = stream.opening());
    let mut reader = EventStream::open(&program.bound[0], "/events/a", "");
    reader.opening();
    let (mut publisher, data) = (program.client(), "x".repeat(60_000));
    // More than both kinds of sockets take. Who reads hears all of it, though one worker serves everybody.
    for _ in 0..200 {
        publish(&mut publisher, "a", &data);
        assert_eq!(reader.lines().len(), 60_008);
    }
    program.logged_times("connection closed: write timeout", 2);
    eventually("only the one that reads is left", || subscribers(&program) == 1);
    for mut stream in slow {
        let (_, ending) = stream.client.rest();
        assert!(matches!(ending, Ending::Reset | Ending::Fin), "{ending:?}");
    }
    publish(&mut publisher, "a", "last");
    assert_eq!(reader.lines(), "data: last\n\n");
    assert_eq!(program.stop(), Some(0));
}

/// What it sends is its next request, if its response ends. It stays in the socket, and wakes nobody again and again.
#[test]
fn who_sends_while_it_listens_is_not_heard_and_goes_on_listening() {
    let scratch = Scratch::new();
    let program = program(&scratch, "", &[]);
    let mut stream = EventStream::open(&program.bound[0], "/events/a", "");
    stream.opening();
    stream.client.send("GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n".repeat(200));
    let mut publisher = program.client();
    publish(&mut publisher, "a", "1");
    assert_eq!(stream.lines(), "data: 1\n\n");
    let before = processor_time(program.pid());
    // Polls that wait for a second make it a second.
    publisher.send("GET /events/b?wait=1 HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n");
    assert_eq!(publisher.answer().status, 200);
    let taken = processor_time(program.pid()) - before;
    assert!(taken < Duration::from_millis(300), "{taken:?} in a second of nothing");
    stream.client.send("more");
    publish(&mut publisher, "a", "2");
    assert_eq!(stream.lines(), "data: 2\n\n");
    // Through a reload as well.
    program.reload();
    publish(&mut publisher, "a", "3");
    assert_eq!(stream.lines(), "data: 3\n\n");
    assert_eq!(program.stop(), Some(0));
}

/// Nobody reads what is sent to a stream whose client has closed. One that polls may read on, and is answered at once.
#[test]
fn who_half_closes_ends_its_stream_and_its_poll_is_answered() {
    let (hub, events, builder) = hub(1 << 20);
    let server = TestServer::start(builder.limits(patient()));
    let mut stream = EventStream::open(&server.bound, "/events/a", "");
    stream.opening();
    let mut poll = server.client();
    poll.send("GET /events/a?wait=60 HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n");
    eventually("both listen", || events.listeners("a") == 2);
    stream.client.finish().expect_fin();
    let answer = poll.finish().answer();
    assert!(answer.status == 200 && answer.text().starts_with("{\"messages\":[],"), "{answer:?}");
    poll.expect_fin();
    eventually("nobody is left", || (hub.subscribers(), events.topics().len()) == (0, 0));
}

#[test]
fn who_disappears_is_forgotten() {
    let (hub, events, builder) = hub(1 << 20);
    let server = TestServer::start(builder.limits(patient()));
    for minor in [0, 1] {
        let mut stream = EventStream::ask(server.client(), "/events/a", "", minor);
        stream.opening();
        stream.client.vanish();
        let mut poll = server.client();
        poll.send("GET /events/a HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n");
        eventually("it listens", || events.listeners("a") >= 1);
        poll.vanish();
        eventually("nobody is left", || (hub.subscribers(), events.topics().len()) == (0, 0));
    }
}

#[test]
fn a_thousand_that_connect_and_leave_at_once_leave_nothing() {
    let (hub, events, builder) = hub(1 << 20);
    let server = TestServer::start(builder.limits(patient()));
    for number in 0..1000 {
        let mut client = server.client();
        let accept = if number % 3 == 0 { "Accept: application/json\r\n" } else { "" };
        client.send(format!("GET /events/{} HTTP/1.1\r\nHost: test\r\n{accept}\r\n", number % 7));
        if number % 2 == 0 {
            client.vanish();
        }
    }
    eventually("nobody is left", || (hub.subscribers(), events.topics().len()) == (0, 0));
    server.client().expect_alive("/hello");
}

/// An error would be the end of a browser's EventSource.
#[test]
fn beyond_the_most_a_stream_is_told_to_come_back_and_a_poll_is_refused() {
    let scratch = Scratch::new();
    let program = program(&scratch, "max_subscribers = 2", &[]);
    let mut first: Vec<EventStream> =
        program.bound.iter().map(|bound| EventStream::open(bound, "/events/a", "")).collect();
    first.iter_mut().for_each(|stream| _ = stream.opening());
    let mut late = program.client();
    // All at the same time would be a stampede.
    let mut retries = std::collections::BTreeSet::new();
    for _ in 0..10 {
        late.get("/events/a");
        let answer = late.answer();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
        let retry = answer.text().strip_prefix("retry: ").and_then(|retry| retry.trim_end().parse::<u32>().ok());
        retries.insert(retry.expect("when to come back"));
    }
    assert!(retries.len() > 8 && retries.iter().all(|retry| (5_000..15_000).contains(retry)), "{retries:?}");
    let poll = "GET /events/a?wait=30 HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n";
    let answer = late.send(poll).answer();
    assert_eq!((answer.status, answer.header("retry-after"), answer.closes()), (503, Some("1"), false));
    assert_eq!(answer.text(), "503 Service Unavailable: there are as many subscribers as there may be\n");
    // A reload is no way around it, and loses nobody.
    program.reload();
    assert_eq!(late.send(poll).answer().status, 503);
    drop(first.pop());
    eventually("there is room for one", || subscribers(&program) == 1);
    late.send(poll);
    eventually("it waits", || subscribers(&program) == 2);
    let mut publisher = program.client();
    publish(&mut publisher, "a", "x");
    assert!(late.answer().text().contains("\"data\":\"x\""));
    assert_eq!(first[0].lines(), "data: x\n\n");
    assert_eq!(program.stop(), Some(0));
}

/// The log is bounded whoever reads slowly: such a one is told once what it has missed, and goes on with what there is.
#[test]
fn who_reads_too_slowly_is_told_of_one_gap_and_hears_the_rest_in_order() {
    let scratch = Scratch::new();
    let program = program(&scratch, "push_memory = \"64K\"", &[]);
    let mut slow = EventStream::open(&program.bound[1], "/events/a", "");
    let opened = slow.opening();
    let (mut publisher, count) = (program.client(), MORE_THAN_A_SOCKET / 500);
    let mut position = String::new();
    for number in 1..=count {
        let answer = publisher.post("/events/a", format!("{number:0500}")).answer();
        position = answer.text().split('"').nth(3).expect("an id").to_owned();
    }
    let (mut heard, mut gaps, mut last) = (Vec::new(), Vec::new(), (opened, String::new()));
    while last.0 != position {
        let before = last.0;
        last = slow.next();
        match last.1.strip_prefix("event: @gap\ndata: ") {
            Some(gap) => {
                gaps.push((gap.trim_end().to_owned(), format!("{{\"from\":\"{before}\",\"to\":\"{}\"}}", last.0)))
            }
            None => heard.push(last.1.trim_start_matches("data: ").trim_end().parse::<usize>().expect("a number")),
        }
    }
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0].0, gaps[0].1, "from the last that it heard to the one before the next");
    let jumps: Vec<_> = heard.windows(2).filter(|pair| pair[0] + 1 != pair[1]).collect();
    assert!(heard[0] == 1 && jumps.len() == 1 && jumps[0][0] < jumps[0][1], "{jumps:?}");
    assert_eq!(heard.last(), Some(&count));
    // Who comes back from before hears the same; who comes back from behind the gap hears no other.
    let mut polls = program.client();
    for (since, gap) in [(&*gaps[0].0[9..].split('"').next().expect("a position").to_owned(), true), (&position, false)]
    {
        polls.send(format!(
            "GET /events/a?since={since}&wait=0 HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n"
        ));
        let answer = polls.answer();
        assert!(answer.text().ends_with(&format!("\"gap\":{gap}}}\n")), "{answer:?}");
    }
    assert_eq!(program.stop(), Some(0));
}

/// A byte now and then keeps nobody's place.
#[test]
fn who_reads_a_byte_at_a_time_is_closed() {
    let scratch = Scratch::new();
    let program = program(&scratch, "push_memory = \"256K\"\nwrite_timeout = 0.5", &[]);
    let Bound::Tcp(address) = program.bound[0] else { panic!("{:?}", program.bound) };
    let mut trickle = TcpStream::connect(address).expect("it listens");
    trickle.write_all(b"GET /events/a HTTP/1.1\r\nHost: test\r\n\r\n").expect("a request");
    // More than the sockets take: as fast as one hears it that reads, so that nothing is dropped for the other.
    let mut reader = EventStream::open(&program.bound[1], "/events/a", "");
    reader.opening();
    eventually("both listen", || subscribers(&program) == 2);
    let (closed, is_closed) = mpsc::channel::<()>();
    let reads = thread::spawn(move || {
        trickle.set_read_timeout(Some(Duration::from_secs(1))).expect("an open socket");
        // That it is closed would be seen only behind all that has come.
        while let Err(mpsc::RecvTimeoutError::Timeout) = is_closed.recv_timeout(Duration::from_millis(10)) {
            let _ = trickle.read(&mut [0]);
        }
    });
    let (mut publisher, data) = (program.client(), "x".repeat(60_000));
    for _ in 0..200 {
        publish(&mut publisher, "a", &data);
        assert_eq!(reader.lines().len(), 60_008);
    }
    program.logged("connection closed: write timeout");
    drop(closed);
    reads.join().expect("it read");
    assert_eq!((subscribers(&program), program.stop()), (1, Some(0)));
}
