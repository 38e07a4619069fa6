//! WebSockets: conversations of an application, and what a hub says over one.

use crate::common::websocket::{BINARY, CLOSE, PING, PONG, TEXT};
use crate::common::{
    Ending, Gate, Mode, OnDisk, Program, RawClient, Scratch, TestServer, WebSocket, count, eventually, gated_beside,
};
use handover::{
    Carried, Client, ClientId, Closed, Conversation, Hub, Incoming, Request, Response, Router, SendError, Server,
};
use rustix::process::Signal;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What was called, in its order.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    fn note(&self, call: impl Into<String>) {
        self.0.lock().expect("no panic").push(call.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }
}

/// Does what it is told.
struct Obedient {
    calls: Calls,
    last: Arc<Mutex<Option<ClientId>>>,
}

impl Conversation for Obedient {
    type State = u32;

    fn open(&self, client: &Client, request: &mut Request) -> Result<u32, Response> {
        *self.last.lock().expect("no panic") = Some(client.id());
        match request.query().unwrap_or_default() {
            "no" => return Err(handover::IntoResponse::into_response((handover::StatusCode(403), "not you\n"))),
            "panic" => panic!("in open"),
            "greet" => client.send("welcome").expect("room"),
            _ => {}
        }
        self.calls.note("open");
        Ok(0)
    }

    fn message(&self, client: &Client, state: &mut u32, message: Incoming<'_>) {
        *state += 1;
        let Incoming::Text(text) = message else {
            let Incoming::Binary(bytes) = message else { return };
            return client.send(bytes).expect("room");
        };
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "panic" => panic!("in message"),
            "close" => client.close(4000, rest).expect("open"),
            "subscribe" => client.subscribe(rest).expect("a topic"),
            "unsubscribe" => client.unsubscribe(rest).expect("a topic"),
            "publish" => _ = client.publish(rest, "published").expect("it serves"),
            "wake" => client.wake_in(Duration::from_millis(10)).expect("open"),
            "flood" => {
                let sent = (0..100).take_while(|number| client.send(number.to_string()).is_ok()).count();
                self.calls.note(format!("sent {sent}"));
            }
            "number" => client.send(state.to_string()).expect("room"),
            _ => client.send(text).expect("room"),
        }
    }

    fn wake(&self, client: &Client, _: &mut u32) {
        client.send("awake").expect("room");
    }

    fn close(&self, _: &Client, state: u32, closed: &Closed) {
        self.calls.note(format!("close {} {:?} after {state}", closed.code, closed.reason));
    }

    fn save(&self, state: &u32) -> Carried {
        Carried { version: 1, bytes: state.to_le_bytes().to_vec() }
    }

    fn restore(&self, _: &Client, saved: Carried) -> Option<u32> {
        Some(u32::from_le_bytes(saved.bytes.try_into().ok()?))
    }
}

struct Talking {
    server: TestServer,
    hub: Hub,
    calls: Calls,
    last: Arc<Mutex<Option<ClientId>>>,
    /// Of a handler besides.
    gate: Gate,
}

impl Talking {
    fn start() -> Talking {
        let (hub, calls, last) = (Hub::new(), Calls::default(), Arc::default());
        let service = hub.conversation("obedient", Obedient { calls: calls.clone(), last: Arc::clone(&last) });
        let events = hub.namespace("public").heartbeat(1);
        let router = Router::new()
            .get("/talk", service.max_message(1000).websocket())
            .mount_service("/events", events.service());
        let (gate, router) = gated_beside(router);
        let server = TestServer::start(Server::builder().hub(&hub).service(router));
        Talking { server, hub, calls, last, gate }
    }

    #[track_caller]
    fn open(&self) -> WebSocket {
        WebSocket::open(&self.server.bound, "/talk")
    }

    #[track_caller]
    fn expect_call(&self, call: &str) {
        eventually(call, || self.calls.all().iter().any(|one| one == call));
    }

    fn ask(&self, head: &str) -> String {
        let mut client = self.server.client();
        client.send(head);
        let answer = client.answer();
        format!("{} {}", answer.status, answer.text())
    }
}

#[test]
fn a_client_is_answered_in_order_and_its_end_is_told() {
    let talking = Talking::start();
    let mut client = talking.open();
    assert!(!client.head.contains("Content-Length") && client.head.contains("\r\nConnection: Upgrade\r\n"));
    for text in ["a", "b", "number"] {
        client.say(text);
    }
    assert_eq!([client.text(), client.text(), client.text()], ["a", "b", "3"]);
    client.send(BINARY, b"\xff\x00");
    assert_eq!(client.next(), (BINARY, b"\xff\x00".to_vec()));
    client.send(PING, b"there?");
    assert_eq!(client.next(), (PONG, b"there?".to_vec()));
    // A message in fragments with a ping between them, byte by byte.
    let frames = [
        WebSocket::frame(TEXT, b"in "),
        WebSocket::frame(0x80 | PING, b""),
        WebSocket::frame(0, b"three "),
        WebSocket::frame(0x80, b"parts"),
    ];
    for byte in frames.concat() {
        client.client.send([byte]);
    }
    assert_eq!(client.next(), (PONG, Vec::new()));
    assert_eq!(client.text(), "in three parts");
    client.close(4321);
    talking.expect_call("close 4321 \"\" after 5");
    // One that vanishes, and one that only says that it sends nothing more.
    talking.open().client.vanish();
    talking.expect_call("close 1006 \"\" after 0");
    let mut client = talking.open();
    client.say("x").client.finish();
    assert_eq!(client.text(), "x");
    talking.expect_call("close 1006 \"\" after 1");
    // What was sent behind the request, before the answer.
    let mut client = talking.server.client();
    client.send([WebSocket::request("/talk?greet", "").as_bytes(), &WebSocket::frame(0x81, b"early")].concat());
    let mut client = WebSocket::answered(client);
    assert_eq!([client.text(), client.text()], ["welcome", "early"]);
}

#[test]
fn an_application_closes_refuses_and_panics() {
    let talking = Talking::start();
    let mut client = talking.open();
    client.say("a").say("close bye").say("too late");
    assert_eq!(client.text(), "a");
    assert_eq!(client.closed(), (4000, "bye".to_owned()));
    client.send(CLOSE, &4000_u16.to_be_bytes()).client.expect_fin();
    talking.expect_call("close 4000 \"bye\" after 2");
    let mut client = talking.open();
    client.say("panic");
    assert_eq!(client.closed().0, 1011);
    // Nothing follows that, and whoever sends is told.
    let id = talking.last.lock().expect("no panic").expect("one has come");
    assert_eq!(talking.hub.client(id).expect("it is connected").send("x"), Err(SendError::Closed));
    client.send(CLOSE, &1011_u16.to_be_bytes());
    talking.expect_call("close 1011 \"\" after 1");
    let answer = talking.ask(&WebSocket::request("/talk?no", ""));
    assert_eq!(answer, "403 not you\n");
    assert!(talking.ask(&WebSocket::request("/talk?panic", "")).starts_with("500 "));
    let id = talking.last.lock().expect("no panic").expect("one has come");
    assert!(talking.hub.client(id).is_none() && talking.hub.subscribers() <= 2);
    eventually("nobody is left", || talking.hub.subscribers() == 0);
}

#[test]
fn what_is_no_websocket_is_told_so() {
    let talking = Talking::start();
    let plain = "GET /talk HTTP/1.1\r\nHost: test\r\n\r\n";
    assert_eq!(talking.ask(plain), "426 there is a WebSocket here, and nothing else\n");
    let other = WebSocket::request("/talk", "").replace("Version: 13", "Version: 8");
    let mut client = talking.server.client();
    client.send(other);
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("Sec-WebSocket-Version")), (426, Some("13")));
    assert!(talking.ask(&WebSocket::request("/talk", "").replace("HTTP/1.1", "HTTP/1.0")).starts_with("426 "));
    assert!(talking.ask(&WebSocket::request("/talk", "Origin: http://evil\r\n")).starts_with("403 "));
    assert!(talking.ask(&WebSocket::request("/talk", "").replace("GET", "POST")).starts_with("405 "));
    WebSocket::open_with(&talking.server.bound, "/talk", "Origin: http://test\r\n").close(1000);
}

#[test]
fn what_a_client_may_not_send_closes_it_and_says_why() {
    let talking = Talking::start();
    let unmasked = b"\x81\x01a".to_vec();
    let large = WebSocket::frame(0x82, &[0; 1001]);
    for (bytes, code) in [
        (unmasked, 1002),
        (large, 1009),
        (WebSocket::frame(0x81, b"\xff"), 1007),
        (WebSocket::frame(0xc1, b"x"), 1002),
        (WebSocket::frame(0x83, b"x"), 1002),
        (WebSocket::frame(0x88, b"x"), 1002),
        (WebSocket::frame(0x09, b"x"), 1002),
        (WebSocket::frame(0x80, b"x"), 1002),
        (WebSocket::frame(0x88, &1005_u16.to_be_bytes()), 1002),
    ] {
        let mut client = talking.open();
        client.client.send(&bytes);
        assert_eq!(client.closed().0, code, "{bytes:?}");
        client.client.expect_fin();
        eventually("it is told", || talking.calls.all().iter().any(|call| call.starts_with(&format!("close {code} "))));
    }
    assert_eq!(talking.calls.all().iter().filter(|call| call.starts_with("close")).count(), 9);
    // What came before it is answered.
    let mut client = talking.open();
    client.client.send([WebSocket::frame(0x81, b"first"), WebSocket::frame(0x83, b"x")].concat());
    assert_eq!((client.text(), client.closed().0), ("first".to_owned(), 1002));
    let mut client = talking.open();
    client.client.send([WebSocket::frame(0x81, b"last"), WebSocket::frame(0x88, b"")].concat());
    assert_eq!((client.text(), client.closed().0), ("last".to_owned(), 1005));
}

#[test]
fn topics_of_a_conversation_reach_those_that_subscribe() {
    let talking = Talking::start();
    let (mut one, mut other) = (talking.open(), talking.open());
    other.say("publish room");
    one.say("subscribe room").say("ready");
    assert_eq!(one.text(), "ready");
    other.say("publish room").say("publish elsewhere").say("publish room");
    assert_eq!([one.text(), one.text()], ["published", "published"]);
    // One that publishes to itself.
    one.say("publish room");
    assert_eq!(one.text(), "published");
    one.say("unsubscribe room").say("done");
    assert_eq!(one.text(), "done");
    other.say("publish room").say("number");
    assert_eq!(other.text(), "6");
    one.say("wake");
    assert_eq!(one.text(), "awake");
    let id = talking.last.lock().expect("no panic").expect("one has come");
    let client = talking.hub.client(id).expect("it is here");
    client.send("from anywhere").expect("room");
    assert_eq!(other.text(), "from anywhere");
    other.close(1000);
    eventually("it has gone", || client.send("x").is_err() && talking.hub.client(id).is_none());
}

#[test]
fn who_does_not_read_has_so_much_and_no_more() {
    let talking = Talking::start();
    let mut client = talking.open();
    client.say("flood");
    // All of it comes from one call, before anything is sent.
    talking.expect_call("sent 64");
    assert!((0..64).all(|number: u32| client.text() == number.to_string()));
    client.close(1000);
}

#[test]
fn a_hub_says_what_is_published_and_hears_nothing() {
    let talking = Talking::start();
    let events = talking.hub.namespace("public");
    let mut json =
        WebSocket::open_with(&talking.server.bound, "/events/a", "Sec-WebSocket-Protocol: x, handover.json\r\n");
    assert!(json.head.contains("\r\nSec-WebSocket-Protocol: handover.json\r\n"), "{}", json.head);
    let opening = json.text();
    let last = opening.strip_prefix("{\"last\":\"").and_then(|rest| rest.strip_suffix("\"}"));
    let last = last.unwrap_or_else(|| panic!("{opening}")).to_owned();
    let mut bare = WebSocket::open(&talking.server.bound, "/events/a");
    bare.send(PING, b"").next();
    let position = events.publish("a", "hé\"llo").expect("it serves");
    assert_eq!(json.text(), format!("{{\"id\":\"{position}\",\"topic\":\"a\",\"event\":null,\"data\":\"hé\\\"llo\"}}"));
    assert_eq!(bare.text(), "hé\"llo");
    events.publish("a", vec![0xff]).expect("it serves");
    assert_eq!(bare.next(), (BINARY, vec![0xff]));
    assert!(json.text().contains("\"data\":\"\u{fffd}\""));
    // It says where it is while nothing happens.
    let beat = json.text();
    assert!(beat.starts_with("{\"last\":\""), "{beat}");
    bare.say("hello?");
    assert_eq!(bare.closed().0, 1008);
    // Who comes back goes on where it was.
    let target = format!("/events?topic=a&since={last}");
    let mut again = WebSocket::open(&talking.server.bound, &target);
    assert_eq!(again.text(), "hé\"llo");
    let mut unknown = WebSocket::open(&talking.server.bound, "/events/a?since=1-1");
    assert_eq!(unknown.closed().0, 4001);
    let mut unknown =
        WebSocket::open_with(&talking.server.bound, "/events/a?since=1-1", "Sec-WebSocket-Protocol: handover.json\r\n");
    unknown.text();
    let gap = unknown.text();
    assert!(gap.starts_with("{\"gap\":{\"from\":\"1-1\",\"to\":\""), "{gap}");
    json.close(1000);
    let several = talking.ask(&WebSocket::request("/events", ""));
    assert!(several.starts_with("400 "), "{several}");
}

#[test]
fn a_stop_tells_every_client_to_come_back() {
    let talking = Talking::start();
    let mut clients = vec![
        talking.open(),
        WebSocket::open(&talking.server.bound, "/events/a"),
        WebSocket::open_with(&talking.server.bound, "/events/a", "Sec-WebSocket-Protocol: handover.json\r\n"),
    ];
    clients[2].text();
    talking.server.handle.stop();
    for client in &mut clients {
        loop {
            let (opcode, payload) = client.next();
            if opcode == CLOSE {
                assert_eq!(payload, 1012_u16.to_be_bytes());
                break;
            }
        }
        client.client.expect_fin();
    }
    drop(clients);
    let calls = talking.calls.clone();
    let (server, hub) = (talking.server, talking.hub);
    server.ended();
    assert_eq!(calls.all(), ["open", "close 1012 \"\" after 0"]);
    assert_eq!(hub.subscribers(), 0);
}

/// Its application heard of it with the next request, and there was none.
#[test]
fn an_end_that_no_worker_has_brought_about_is_told_while_nothing_else_happens() {
    let talking = Talking::start();
    let (mut client, mut busy) = (talking.open(), talking.server.client_at(&talking.gate));
    // A worker sees this one's end.
    talking.open().client.vanish();
    talking.expect_call("close 1006 \"\" after 0");
    talking.server.handle.stop();
    assert_eq!(client.closed().0, 1012);
    talking.expect_call("close 1012 \"\" after 0");
    talking.gate.open();
    assert_eq!(busy.answer().text(), "through\n");
    drop((client, busy));
    talking.server.ended();
}

/// The lab in that mode, by a switch or an exec.
fn lab(mode: Mode) -> Program {
    let mut command = Program::lab_command();
    Program::start(mode.flags(&mut command).args(["-l", "127.0.0.1:0"]))
}

fn count_on(client: &mut WebSocket, from: u32, to: u32) {
    for number in from..=to {
        client.say("next");
        assert_eq!(client.text(), number.to_string());
    }
}

fn goes_through_reloads(mode: Mode) {
    let program = lab(mode);
    let mut counts = WebSocket::open(&program.bound[0], "/ws/count");
    let mut half = WebSocket::open(&program.bound[0], "/ws/count");
    let mut listener = WebSocket::open(&program.bound[0], "/events/news");
    let ports: Vec<u16> = [&counts, &half, &listener].map(|one| one.client.local_port()).into();
    listener.send(PING, b"").next();
    count_on(&mut counts, 1, 3);
    count_on(&mut half, 1, 1);
    let mut publisher = RawClient::to(&program.bound[0]);
    for round in 0..3_u32 {
        // Two fragments are there, and one byte of the third.
        half.client.send(WebSocket::frame(TEXT, b"a"));
        half.client.send(WebSocket::frame(0, "é".as_bytes().split_at(1).0));
        let last = WebSocket::frame(0x80, "é".as_bytes().split_at(1).1);
        half.client.send(&last[..1 + round as usize * 2]);
        half.client.send([]);
        program.reload();
        half.client.send(&last[1 + round as usize * 2..]);
        assert_eq!(half.text(), (2 + round).to_string());
        count_on(&mut counts, 4 + round * 2, 5 + round * 2);
        let answer = publisher.post("/events/news", format!("news {round}")).answer();
        assert_eq!(answer.status, 200);
        assert_eq!(listener.text(), format!("news {round}"));
    }
    let now: Vec<u16> = [&counts, &half, &listener].map(|one| one.client.local_port()).into();
    assert_eq!(now, ports);
    counts.close(1000);
    half.close(1000);
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn a_conversation_goes_through_an_exec_at_any_byte() {
    goes_through_reloads(Mode::Exec);
}

#[test]
fn a_conversation_goes_through_an_overlap_at_any_byte() {
    goes_through_reloads(Mode::Overlap);
}

/// A client that reads nothing while its answers go to another process.
#[test]
fn what_a_client_has_a_part_of_moves_and_comes_whole() {
    for mode in Mode::BOTH {
        let program = lab(mode);
        let client = RawClient::to(&program.bound[0]).with_small_window();
        let mut client = {
            let mut client = client;
            client.send(WebSocket::request("/ws/echo", ""));
            WebSocket::answered(client)
        };
        let text = |number: usize| format!("{number} {}", "x".repeat(50_000));
        (0..20).for_each(|number| _ = client.say(&text(number)));
        program.reload();
        for number in 0..20 {
            assert!(client.text() == text(number), "{mode:?} {number}");
        }
        client.close(1000);
    }
}

#[test]
fn to_a_program_that_knows_no_websockets_it_goes_as_one_that_ends() {
    for mode in Mode::BOTH {
        let mut command: Command = Program::lab_command();
        command.env("HANDOVER_TEST_NEWEST", "3");
        let program = Program::start(mode.flags(&mut command).args(["-l", "127.0.0.1:0"]));
        let mut client = WebSocket::open(&program.bound[0], "/ws/count");
        count_on(&mut client, 1, 2);
        program.reload();
        assert_eq!(client.closed().0, 1012, "{mode:?}");
        assert_eq!(client.client.rest().1, Ending::Fin);
    }
}

/// It was told that another process had the client, and the client heard no more of it.
#[test]
fn what_a_thread_of_the_predecessor_sends_to_clients_that_have_moved_is_heard_once_and_in_order() {
    let mut command = Program::lab_command();
    // It stands by for longer than this takes.
    command.args(["-l", "127.0.0.1:0", "--reload", "overlap", "--reload-probation", "60"]);
    let program = Program::start(&mut command);
    let mut clients: Vec<WebSocket> = (0..4).map(|_| WebSocket::open(&program.bound[0], "/ws/thread")).collect();
    clients.iter_mut().for_each(|client| _ = client.say("go"));
    let (old, mut number, mut left) = (program.current(), 0, 200);
    while left > 0 {
        number += 1;
        for client in &mut clients {
            assert_eq!(client.text(), format!("{number} {old}"));
        }
        match number {
            20 => program.signal(Signal::HUP),
            _ if program.generations() > 1 => left -= 1,
            _ => {}
        }
    }
    for client in &mut clients {
        client.say("enough");
        let mut number = number;
        let closed = loop {
            match client.next() {
                (CLOSE, payload) => break payload,
                (_, text) => {
                    number += 1;
                    assert_eq!(String::from_utf8_lossy(&text), format!("{number} {old}"));
                }
            }
        };
        assert_eq!(closed, [&4000_u16.to_be_bytes()[..], b"enough"].concat());
    }
    let new = program.current();
    program.signal_to(new, Signal::TERM);
    program.wait_for_end(old);
    assert_eq!(program.wait_for_end(new), Some(0));
}

/// Nobody said so before, and its client was the one who learned of it.
#[test]
fn a_reload_to_a_program_without_a_conversation_says_whose_clients_are_closed() {
    for mode in Mode::BOTH {
        let on_disk = OnDisk::of(&Program::lab_command());
        let program = Program::start(mode.flags(&mut on_disk.command()).args(["-l", "127.0.0.1:0"]));
        let mut counts = WebSocket::open(&program.bound[0], "/ws/count");
        let mut gone = WebSocket::open(&program.bound[0], "/ws/thread");
        count_on(&mut counts, 1, 2);
        program.reload();
        let says = |program: &Program| program.log().iter().filter(|line| line.contains("closed with 1012: ")).count();
        assert_eq!(says(&program), 0, "it has them all");
        on_disk.replace("export LAB_WITHOUT_THREAD=1; exec \"$REAL\" \"$@\"");
        program.reload();
        program.logged("these conversations, whose clients are closed with 1012: \"thread\" (1)");
        assert_eq!((gone.closed().0, says(&program)), (1012, 1));
        count_on(&mut counts, 3, 4);
        // There is nobody left to be closed.
        program.reload();
        assert_eq!(says(&program), 1);
        counts.close(1000);
        assert_eq!(program.stop(), Some(0));
    }
}

/// It ran on the thread that reads the link, and whoever moved behind it waited for its end.
#[test]
fn an_application_that_takes_long_to_go_on_with_a_client_keeps_no_other_waiting() {
    let scratch = Scratch::new();
    let mut command = Program::lab_command();
    command.env("LAB_RESTORES_AFTER", scratch.path("restores"));
    let program = Program::start(Mode::Overlap.flags(&mut command).args(["-l", "127.0.0.1:0"]));
    let mut slow = WebSocket::open(&program.bound[0], "/ws/thread");
    slow.send(PING, b"").next();
    let open = |_| WebSocket::open(&program.bound[0], "/ws/count");
    let mut counts: Vec<WebSocket> = (0..20).map(open).collect();
    counts.iter_mut().for_each(|client| count_on(client, 1, 1));
    let mut other = program.client();
    program.reload();
    counts.iter_mut().for_each(|client| count_on(client, 2, 3));
    other.expect_alive("/hello");
    slow.say("go");
    std::fs::write(scratch.path("restores"), "").expect("a file");
    assert_eq!(slow.text(), format!("1 {}", program.current()));
    slow.say("enough");
    while slow.next().0 != CLOSE {}
    assert_eq!(program.stop(), Some(0));
}

/// Each answer is the next number, over one connection, whatever is reloaded meanwhile. Every frame is sent in two pieces,
/// so that some are half there at each moment. `HANDOVER_CONVERSATIONS` says how many clients there are, and
/// `HANDOVER_UPGRADES` how many reloads in each mode.
fn counts_through_reloads(mode: Mode) {
    const THREADS: usize = 4;
    const PAUSE: Duration = Duration::from_millis(100);
    let (clients, upgrades) = (count("HANDOVER_CONVERSATIONS", 100), count("HANDOVER_UPGRADES", 3));
    let mut command = Program::lab_command();
    let most = (clients * 4 / 3 + 100).to_string();
    let program = Program::start(mode.flags(&mut command).args(["-l", "127.0.0.1:0", "--max-connections", &most]));
    let (rounds, ends) = (AtomicUsize::new(0), AtomicBool::new(false));
    let answers: usize = thread::scope(|scope| {
        let talk = |share: usize| {
            let open = |_| WebSocket::open(&program.bound[0], "/ws/count");
            let mut clients: Vec<WebSocket> = (0..share).map(open).collect();
            let ports: Vec<u16> = clients.iter().map(|client| client.client.local_port()).collect();
            let (mut answers, frame) = (0, WebSocket::frame(0x80 | TEXT, b"next"));
            while !ends.load(Ordering::Relaxed) {
                let began = Instant::now();
                let cut = |at: usize| (at + answers) % (frame.len() - 1) + 1;
                clients.iter_mut().enumerate().for_each(|(at, one)| _ = one.client.send(&frame[..cut(at)]));
                clients.iter_mut().enumerate().for_each(|(at, one)| _ = one.client.send(&frame[cut(at)..]));
                answers += 1;
                for client in &mut clients {
                    assert_eq!(client.text(), answers.to_string(), "{mode:?}");
                }
                rounds.fetch_add(1, Ordering::Relaxed);
                thread::sleep(PAUSE.saturating_sub(began.elapsed()));
            }
            assert_eq!(clients.iter().map(|client| client.client.local_port()).collect::<Vec<_>>(), ports);
            answers * share
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(move || talk(clients / THREADS))).collect();
        for _ in 0..=upgrades {
            let before = rounds.load(Ordering::Relaxed);
            eventually("all go on", || {
                rounds.load(Ordering::Relaxed) >= before + 3 * THREADS || threads.iter().any(|one| one.is_finished())
            });
            if program.generations() <= upgrades {
                program.reload();
            }
        }
        ends.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("each answer was the next")).sum()
    });
    println!("{mode:?}: {clients} clients, {upgrades} upgrades, {answers} answers, each the next number");
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn every_answer_is_the_next_number_by_exec() {
    counts_through_reloads(Mode::Exec);
}

#[test]
fn every_answer_is_the_next_number_by_overlap() {
    counts_through_reloads(Mode::Overlap);
}
