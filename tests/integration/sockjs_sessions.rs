//! Sessions of SockJS with an application: what it does to them from whichever thread, how they end, and that it hears of
//! each end once.

use crate::common::sockjs::{Session, Transport, ask, messages, new_session, request};
use crate::common::{Gate, Passage, Program, RawClient, Size, TestServer, count, eventually, patient};
use handover::{
    Carried, Client, ClientId, Closed, Conversation, Hub, Incoming, IntoResponse, Request, Response, Router, SendError,
    Server, SockJs, StatusCode,
};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(50);
/// A state that has `wake` wait.
const WAITS: u32 = 1_000_000;
const GO_AWAY: &str = "c[3000,\"Go away!\"]";

/// What was called, in its order, and for whom.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<(ClientId, String)>>>);

impl Calls {
    fn note(&self, client: &Client, call: impl Into<String>) {
        self.0.lock().expect("no panic").push((client.id(), call.into()));
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic").iter().map(|(_, call)| call.clone()).collect()
    }

    /// Who was opened last.
    fn last(&self) -> ClientId {
        let calls = self.0.lock().expect("no panic");
        calls.iter().rfind(|(_, call)| call == "open").expect("one has come").0
    }

    fn ends(&self) -> usize {
        self.all().iter().filter(|call| call.starts_with("close ")).count()
    }

    /// Each client was opened, and then closed once.
    #[track_caller]
    fn expect_each_to_have_ended_once(&self, clients: usize) {
        eventually("all have ended", || self.ends() >= clients);
        let calls = self.0.lock().expect("no panic").clone();
        let mut ids: Vec<ClientId> = calls.iter().map(|(id, _)| *id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), clients, "{calls:#?}");
        for id in ids {
            let of_it: Vec<&str> = calls.iter().filter(|(of, _)| *of == id).map(|(_, call)| &call[..]).collect();
            let ends = of_it.iter().filter(|call| call.starts_with("close ")).count();
            assert!(
                of_it[0] == "open" && ends == 1 && of_it.last().is_some_and(|it| it.starts_with("close ")),
                "{of_it:?}"
            );
        }
    }
}

/// Does what it is told.
struct Obedient {
    calls: Calls,
    passage: Passage,
}

impl Conversation for Obedient {
    type State = u32;

    fn open(&self, client: &Client, request: &mut Request) -> Result<u32, Response> {
        let word = request.query_param("do").unwrap_or_default();
        self.calls.note(client, "open");
        match &word[..] {
            "no" | "late-no" => {
                if word == "late-no" {
                    self.passage.pass();
                }
                return Err((StatusCode(403), "not you\n").into_response());
            }
            "panic" => panic!("in open"),
            "greet" => client.send("welcome").expect("room"),
            "close" => client.close(4001, "not now").expect("open"),
            "wait" => self.passage.pass(),
            "everything" => {
                client.send("first").expect("room");
                client.subscribe("room").expect("a topic");
                client.publish("room", "published").expect("it serves");
                client.wake_in(Duration::ZERO).expect("open");
            }
            _ => {}
        }
        Ok(0)
    }

    fn message(&self, client: &Client, state: &mut u32, message: Incoming<'_>) {
        *state += 1;
        let text = message.text().expect("SockJS has text alone");
        let (word, rest) = match text {
            "wait in wake" => (text, ""),
            text => text.split_once(' ').unwrap_or((text, "")),
        };
        match word {
            "panic" => panic!("in message"),
            "close" => client.close(4000, rest).expect("open"),
            "subscribe" => client.subscribe(rest).expect("a topic"),
            "publish" => _ = client.publish(rest, "published").expect("it serves"),
            "wake" => client.wake_in(SHORT).expect("open"),
            "binary" => {
                assert_eq!(client.send(&b"x"[..]), Err(SendError::NotText));
                client.send("was no text").expect("room");
            }
            "wait" => self.passage.pass(),
            "wait in wake" => {
                *state = WAITS;
                client.wake_in(Duration::ZERO).expect("open");
            }
            "flood" => {
                let sent = (0..100).take_while(|number| client.send(number.to_string()).is_ok()).count();
                client.wake_in(LONG).expect("open");
                self.calls.note(client, format!("sent {sent}"));
            }
            "everything" => {
                client.subscribe("room").expect("a topic");
                client.publish("room", "published").expect("it serves");
                client.wake_in(Duration::ZERO).expect("open");
                let same = client.hub().client(client.id()).expect("it is here");
                same.send("by its number").expect("room");
                same.close(4002, "everything").expect("open");
                assert_eq!(same.send("too late"), Err(SendError::Closed));
            }
            _ => client.send(text).expect("room"),
        }
    }

    fn wake(&self, client: &Client, state: &mut u32) {
        self.calls.note(client, "wake");
        if *state == WAITS {
            self.passage.pass();
        }
        // Closed meanwhile, perhaps.
        let _ = client.send("awake");
    }

    fn close(&self, client: &Client, state: u32, closed: &Closed) {
        assert_eq!(client.send("to nobody"), Err(SendError::Closed));
        self.calls.note(client, format!("close {} {:?} after {state}", closed.code, closed.reason));
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
    gate: Gate,
}

impl Talking {
    /// With a service at `/talk` that is not impatient, but for what is set.
    fn start(set: impl FnOnce(SockJs) -> SockJs) -> Talking {
        Talking::start_with(set, |builder| builder)
    }

    fn start_with(
        set: impl FnOnce(SockJs) -> SockJs,
        build: impl FnOnce(handover::Builder) -> handover::Builder,
    ) -> Talking {
        let (hub, calls, (gate, passage)) = (Hub::new(), Calls::default(), Gate::new());
        let obedient = hub.conversation("obedient", Obedient { calls: calls.clone(), passage });
        let service = obedient.origins(["https://friend.example", "https://other.example"]).sockjs();
        let service = service.jsonp(true).htmlfile(true).disconnect_delay(LONG).heartbeat(LONG);
        let router = Router::new().get("/hello", |_| "hello\n").mount_service("/talk", set(service));
        let builder = Server::builder().limits(patient()).hub(&hub).service(router);
        let server = TestServer::start(build(builder));
        Talking { server, hub, calls, gate }
    }

    #[track_caller]
    fn open(&self, transport: Transport) -> Session {
        Session::open(&self.server.bound, "/talk", transport)
    }

    #[track_caller]
    fn expect_call(&self, call: &str) {
        eventually(call, || self.calls.all().iter().any(|one| one == call));
    }

    /// A URL that no session has.
    fn url(&self) -> String {
        format!("/talk/000/{}/", new_session())
    }

    #[track_caller]
    fn poll(&self, url: &str, fields: &str) -> (u16, String) {
        let answer = ask(&mut self.server.client(), "POST", &format!("{url}xhr"), fields, "");
        (answer.status, answer.text().to_owned())
    }

    /// A poll that waits for that session, or for its opening: of two one is refused.
    #[track_caller]
    fn waiting(&self, url: &str) -> RawClient {
        let mut two = [self.server.client(), self.server.client()];
        two.iter_mut().for_each(|client| _ = client.send(request("POST", &format!("{url}xhr"), "", "")));
        eventually("one is refused", || two.iter().any(RawClient::has_answer));
        let [one, other] = two;
        let (mut refused, waits) = if one.has_answer() { (one, other) } else { (other, one) };
        assert!(refused.answer().text().starts_with("c[2010,"));
        waits
    }

    #[track_caller]
    fn send(&self, url: &str, fields: &str, body: &str) -> u16 {
        ask(&mut self.server.client(), "POST", &format!("{url}xhr_send"), fields, body).status
    }
}

#[test]
fn a_session_that_nobody_asks_for_ends() {
    let talking = Talking::start(|service| service.disconnect_delay(SHORT));
    for transport in [Transport::Xhr, Transport::Jsonp] {
        let session = talking.open(transport);
        let id = talking.calls.last();
        eventually("it has ended", || talking.hub.client(id).is_none());
        assert_eq!(talking.send(&session.url, "", "[\"x\"]"), 404);
        // Its id is another one's then.
        assert_eq!(talking.poll(&session.url, ""), (200, "o\n".to_owned()));
    }
    talking.calls.expect_each_to_have_ended_once(4);
    assert!(talking.calls.all().iter().all(|call| call == "open" || call == "close 1006 \"Connection lost\" after 0"));
    eventually("nobody is left", || talking.hub.subscribers() == 0);
    // One that has a receiver does not.
    let mut session = talking.open(Transport::XhrStreaming);
    let other = talking.open(Transport::Xhr);
    eventually("the other has ended", || talking.send(&other.url, "", "[]") == 404);
    session.say(&["still here"]);
    assert_eq!(session.message(), "still here");
}

#[test]
fn who_is_closed_hears_it_until_the_session_is_gone() {
    let talking = Talking::start(|service| service.disconnect_delay(Duration::from_millis(500)));
    let mut session = talking.open(Transport::Xhr);
    session.say(&["close enough"]);
    let mut heard = 0;
    let last = loop {
        match session.frame() {
            frame if frame == "c[4000,\"enough\"]" => heard += 1,
            frame => break frame,
        }
    };
    assert!(heard > 0 && last == "o", "{heard} {last}");
    talking.expect_call("close 4000 \"enough\" after 1");
}

#[test]
fn who_hears_nothing_gets_heartbeats() {
    let talking = Talking::start(|service| service.heartbeat(SHORT));
    for transport in Transport::ALL {
        let mut session = talking.open(transport);
        assert_eq!([session.frame(), session.frame()], ["h", "h"], "{transport:?}");
        session.say(&["x"]);
        assert_eq!(session.message(), "x");
        assert_eq!(session.frame(), "h");
    }
}

#[test]
fn there_are_so_many_sessions_and_no_more() {
    let talking = Talking::start(|service| service.max_sessions(2));
    let (mut one, _other) = (talking.open(Transport::XhrStreaming), talking.open(Transport::Xhr));
    for _ in 0..3 {
        for transport in Transport::OF_REQUESTS {
            let (method, end) = transport.request();
            let answer = ask(&mut talking.server.client(), method, &format!("{}{end}", talking.url()), "", "");
            assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("5")), "{transport:?}");
        }
    }
    // A WebSocket is none of them.
    let mut socket = talking.open(Transport::WebSocket);
    socket.say(&["x"]);
    assert_eq!(socket.message(), "x");
    one.say(&["y"]);
    assert_eq!(one.message(), "y");
    assert_eq!(talking.calls.all(), ["open", "open", "open"]);
    // One that was refused by the application leaves its place.
    drop(one);
    let talking = Talking::start(|service| service.max_sessions(1).disconnect_delay(SHORT));
    for word in ["no", "panic", "no"] {
        let answer = ask(&mut talking.server.client(), "POST", &format!("{}xhr?do={word}", talking.url()), "", "");
        assert_eq!(answer.status, if word == "no" { 403 } else { 500 });
    }
    drop(talking.open(Transport::Xhr));
    eventually("there is a place", || talking.poll(&talking.url(), "").0 == 200);
    assert_eq!(talking.calls.ends(), 1);
}

#[test]
fn a_question_for_the_head_opens_nothing() {
    let talking = Talking::start(|service| service);
    let mut client = talking.server.client();
    for (transport, url) in Transport::ALL.map(|transport| (transport, talking.url())) {
        let (_, end) = transport.request();
        assert_eq!(ask(&mut client, "HEAD", &format!("{url}{end}"), "", "").status, 405, "{transport:?}");
        assert_eq!(ask(&mut client, "HEAD", &format!("{url}xhr_send"), "", "").status, 405);
    }
    assert_eq!(ask(&mut client, "HEAD", "/talk", "", "").status, 200);
    assert_eq!(ask(&mut client, "HEAD", "/talk/info", "", "").status, 200);
    assert!(talking.calls.all().is_empty());
}

/// By another Authorization, or from a page of another origin.
#[test]
fn a_session_is_whose_it_was_opened_by() {
    let talking = Talking::start(|service| service.jsonp(false));
    let refused = "this session is somebody else's\n".to_owned();
    let fields = |origin: &str, authorization: &str| {
        let field = |name: &str, value: &str| match value {
            "" => String::new(),
            value => format!("{name}: {value}\r\n"),
        };
        field("Origin", origin) + &field("Authorization", authorization)
    };
    let (friend, other) = ("https://friend.example", "https://other.example");
    let (url, own) = (talking.url(), fields(friend, "Basic b25l"));
    assert_eq!(talking.poll(&url, &own), (200, "o\n".to_owned()));
    for foreign in [fields(friend, "Basic dHdv"), fields(friend, ""), fields(other, "Basic b25l")] {
        assert_eq!(talking.poll(&url, &foreign), (403, refused.clone()), "{foreign}");
        // Its page may read why.
        let answer = ask(&mut talking.server.client(), "POST", &format!("{url}xhr"), &foreign, "");
        assert!(answer.header("Access-Control-Allow-Origin").is_some_and(|one| foreign.contains(one)), "{answer:?}");
        assert_eq!(talking.send(&url, &foreign, "[\"x\"]"), 403, "{foreign}");
    }
    // Not every request of a page says where it is from.
    assert_eq!(talking.send(&url, &own, "[\"a\"]"), 204);
    assert_eq!(talking.send(&url, &fields("", "Basic b25l"), "[\"b\"]"), 204);
    assert_eq!(talking.poll(&url, &own), (200, "a[\"a\",\"b\"]\n".to_owned()));
    // One whose first request said nothing is whose says something first.
    let url = talking.url();
    assert_eq!(talking.poll(&url, ""), (200, "o\n".to_owned()));
    assert_eq!(talking.send(&url, &fields(friend, ""), "[\"a\"]"), 204);
    assert_eq!(talking.send(&url, &fields(other, ""), "[\"a\"]"), 403);
    assert_eq!(talking.send(&url, &fields("http://test", ""), "[\"a\"]"), 204, "this server's own page");
    // Pages that are not listed come to nothing.
    let calls = talking.calls.all().len();
    for transport in Transport::ALL.into_iter().filter(|transport| *transport != Transport::Jsonp) {
        for origin in ["https://evil.example", "null", "https://friend.example.evil"] {
            let (method, end) = transport.request();
            let fields = match transport {
                Transport::WebSocket => format!(
                    "Origin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: {}\r\n",
                    crate::common::websocket::KEY
                ),
                _ => fields(origin, ""),
            };
            let answer = ask(&mut talking.server.client(), method, &format!("{}{end}", talking.url()), &fields, "");
            assert_eq!(answer.status, 403, "{transport:?} {origin}");
            assert_eq!(answer.header("Access-Control-Allow-Origin"), None);
        }
    }
    assert_eq!(talking.send(&url, "Origin: https://evil.example\r\n", "[\"a\"]"), 403);
    assert_eq!(talking.calls.all().len(), calls);
}

#[test]
fn an_application_refuses_panics_greets_and_closes_at_once() {
    let talking = Talking::start(|service| service);
    for transport in Transport::OF_REQUESTS {
        let (method, end) = transport.request();
        let mark = if end.contains('?') { '&' } else { '?' };
        let mut client = talking.server.client();
        let mut answer =
            |word: &str| ask(&mut client, method, &format!("{}{end}{mark}do={word}", talking.url()), "", "");
        let refused = answer("no");
        assert_eq!((refused.status, refused.text()), (403, "not you\n"), "{transport:?}");
        assert_eq!(answer("panic").status, 500, "{transport:?}");
    }
    eventually("nobody is left", || talking.hub.subscribers() == 0);
    assert_eq!(talking.calls.ends(), 0, "who was never open is not closed");
    let asked = |word: &str| {
        let url = talking.url();
        let answer = ask(&mut talking.server.client(), "POST", &format!("{url}xhr?do={word}"), "", "");
        assert_eq!((answer.status, answer.text()), (200, "o\n"));
        url
    };
    assert_eq!(talking.poll(&asked("greet"), ""), (200, "a[\"welcome\"]\n".to_owned()));
    let closed = asked("close");
    assert_eq!(talking.poll(&closed, ""), (200, "c[4001,\"not now\"]\n".to_owned()));
    assert_eq!(talking.poll(&closed, ""), (200, "c[4001,\"not now\"]\n".to_owned()));
    talking.expect_call("close 4001 \"not now\" after 0");
    let everything = asked("everything");
    let (mut heard, mut client) = (Vec::new(), talking.server.client());
    while heard.len() < 3 {
        let answer = ask(&mut client, "POST", &format!("{everything}xhr"), "", "");
        heard.extend(messages(answer.text().trim_end()));
    }
    heard.sort();
    assert_eq!(heard, ["awake", "first", "published"]);
}

/// It calls what it may on its client, from inside of a call.
#[test]
fn an_application_may_do_everything_in_a_call() {
    let talking = Talking::start(|service| service);
    for transport in Transport::ALL {
        let mut session = talking.open(transport);
        session.say(&["binary"]);
        assert_eq!(session.message(), "was no text", "{transport:?}");
        session.say(&["wake"]);
        assert_eq!(session.message(), "awake", "{transport:?}");
        session.say(&["everything"]);
        let mut heard = Vec::new();
        let last = loop {
            match session.try_message() {
                Ok(message) => heard.push(message),
                Err(frame) => break frame,
            }
        };
        assert_eq!(last, "c[4002,\"everything\"]", "{transport:?} {heard:?}");
        assert!(heard.contains(&"by its number".to_owned()), "{heard:?}");
    }
    talking.calls.expect_each_to_have_ended_once(Transport::ALL.len());
    assert!(talking.calls.all().iter().all(|call| !call.starts_with("close ") || call.starts_with("close 4002 ")));
}

#[test]
fn what_it_wants_without_a_connection_is_done() {
    let talking = Talking::start(|service| service);
    // Woken, while nobody asks.
    let mut session = talking.open(Transport::Xhr);
    session.say(&["wake"]);
    talking.expect_call("wake");
    assert_eq!(session.message(), "awake");
    // Sent to and closed from another thread, with a receiver and without.
    for transport in Transport::ALL {
        for waits in [true, false] {
            let mut session = talking.open(transport);
            let client = talking.hub.client(talking.calls.last()).expect("it is here");
            if waits {
                session.ask();
            }
            let other = client.clone();
            let from_elsewhere = thread::spawn(move || {
                other.send("from elsewhere").expect("room");
                other.close(4100, "over").expect("open");
                other.send("too late")
            });
            assert_eq!(session.message(), "from elsewhere", "{transport:?}");
            assert_eq!(session.closed(), "c[4100,\"over\"]", "{transport:?}");
            assert_eq!(from_elsewhere.join().expect("no panic"), Err(SendError::Closed));
            eventually("it has gone", || talking.hub.client(client.id()).is_none());
            assert_eq!(client.wake_in(SHORT), Err(SendError::Closed));
        }
    }
    // Its application hears of the end though its client does not come for it.
    let session = talking.open(Transport::Xhr);
    let client = talking.hub.client(talking.calls.last()).expect("it is here");
    client.close(4200, "unheard").expect("open");
    talking.expect_call("close 4200 \"unheard\" after 0");
    assert_eq!(talking.poll(&session.url, ""), (200, "c[4200,\"unheard\"]\n".to_owned()));
}

#[test]
fn a_conversation_subscribes_and_each_transport_hears() {
    let talking = Talking::start(|service| service);
    for transport in Transport::ALL {
        let mut session = talking.open(transport);
        session.say(&["subscribe room", "ready"]);
        assert_eq!(session.message(), "ready");
        let namespace = talking.hub.client(talking.calls.last()).expect("it is here");
        // With a connection, and between two.
        session.ask();
        namespace.publish("room", "é\u{2028}").expect("it serves");
        assert_eq!(session.message(), "é\u{2028}", "{transport:?}");
        for text in ["1", "2", "3"] {
            namespace.publish("room", text).expect("it serves");
        }
        assert_eq!([session.message(), session.message(), session.message()], ["1", "2", "3"], "{transport:?}");
    }
}

#[test]
fn a_panic_closes_and_is_said() {
    let talking = Talking::start(|service| service);
    for transport in Transport::ALL {
        let mut session = talking.open(transport);
        session.say(&["a"]);
        assert_eq!(session.message(), "a", "{transport:?}");
        session.say(&["panic", "not heard"]);
        assert_eq!(session.closed(), "c[1011,\"\"]", "{transport:?}");
        talking.expect_call("close 1011 \"\" after 2");
    }
    talking.calls.expect_each_to_have_ended_once(Transport::ALL.len());
}

#[test]
fn who_does_not_take_it_has_so_much_and_no_more() {
    let talking = Talking::start(|service| service);
    let mut session = talking.open(Transport::Xhr);
    session.say(&["flood"]);
    talking.expect_call("sent 64");
    assert!((0..64).all(|number: u32| session.message() == number.to_string()));
    session.say(&["there?"]);
    assert_eq!(session.message(), "there?");
}

/// What comes while the application is busy waits for it, so much of it, and holds no worker.
#[test]
fn one_that_is_busy_holds_one_worker() {
    let talking = Talking::start_with(|service| service, |builder| builder.workers(2));
    let session = talking.open(Transport::XhrStreaming);
    let url = session.url.clone();
    let mut busy = talking.server.client();
    busy.send(request("POST", &format!("{url}xhr_send"), "", "[\"wait\"]"));
    talking.gate.wait();
    let many = format!("[{}]", ["\"x\""; 1000].join(","));
    assert_eq!(talking.send(&url, "", &many), 204);
    for number in 0..24 {
        assert_eq!(talking.send(&url, "", &format!("[\"{number}\"]")), 204, "{number}");
    }
    assert_eq!(talking.send(&url, "", "[\"too many\"]"), 503);
    talking.server.client().expect_alive("/hello");
    // Neither is it held by a client that asks for frames meanwhile.
    assert!(talking.poll(&url, "").1.starts_with("c[2010,"));
    talking.gate.open();
    assert_eq!(busy.answer().status, 204);
    drop(session);
}

#[test]
fn a_stop_tells_each_that_it_goes_and_its_application_once() {
    for receives in [true, false] {
        let talking = Talking::start(|service| service);
        let mut sessions = Transport::ALL.map(|transport| talking.open(transport));
        let is_poll = |transport: &Transport| matches!(transport, Transport::Xhr | Transport::Jsonp);
        // A request on its way to an idle connection may meet the end of that.
        let of_polls = Transport::ALL.iter().zip(&sessions).filter(|(transport, _)| receives && is_poll(transport));
        let mut polls: Vec<RawClient> = of_polls.map(|(_, session)| talking.waiting(&session.url)).collect();
        talking.server.handle.stop();
        for poll in &mut polls {
            assert_eq!(poll.answer().text(), format!("{GO_AWAY}\n"));
        }
        for (transport, session) in Transport::ALL.into_iter().zip(&mut sessions) {
            if !is_poll(&transport) {
                assert_eq!(session.closed(), GO_AWAY, "{transport:?}");
            }
            if transport == Transport::WebSocket {
                let end = session.try_frame().expect_err("it is closed");
                assert_eq!(end, format!("a frame 8: {:?}", 1012_u16.to_be_bytes()));
            }
        }
        let Talking { server, hub, calls, .. } = talking;
        server.ended();
        calls.expect_each_to_have_ended_once(Transport::ALL.len());
        assert_eq!(hub.subscribers(), 0);
    }
}

/// In whichever way it ends.
#[test]
fn an_application_hears_of_each_end_once() {
    let talking = Talking::start(|service| service.disconnect_delay(SHORT));
    let mut clients = 0;
    for transport in Transport::ALL {
        for way in 0..6 {
            let mut session = talking.open(transport);
            clients += 1;
            match way {
                // It says nothing more.
                0 => drop(session),
                1 => session.into_clients().0.vanish(),
                // Its connection breaks while a response is on its way.
                2 => {
                    session.ask();
                    drop(session.into_clients().0);
                }
                3 => {
                    session.say(&["close it"]);
                    session.closed();
                }
                4 => {
                    session.say(&["panic"]);
                    session.into_clients().0.vanish();
                }
                // From another thread, and at once by its client too.
                _ => {
                    let client = talking.hub.client(talking.calls.last()).expect("it is here");
                    let closes = thread::spawn(move || client.close(4300, ""));
                    drop(session);
                    let _ = closes.join().expect("no panic");
                }
            }
        }
    }
    talking.calls.expect_each_to_have_ended_once(clients);
    eventually("nobody is left", || talking.hub.subscribers() == 0);
}

/// It is there for others as soon as its id is, and before its application has opened it.
#[test]
fn a_session_that_is_being_opened_is_heard_by_nobody() {
    let talking = Talking::start(|service| service);
    let url = talking.url();
    let mut first = talking.server.client();
    first.send(request("POST", &format!("{url}xhr?do=wait"), "", ""));
    talking.gate.wait();
    assert_eq!(talking.send(&url, "", "[\"too early\"]"), 404);
    // It may come before the first one has its answer: it waits.
    let mut second = talking.waiting(&url);
    talking.gate.open();
    assert_eq!(first.answer().text(), "o\n");
    assert_eq!(talking.send(&url, "", "[\"now\"]"), 204);
    assert_eq!(second.answer().text(), "a[\"now\"]\n");
    assert_eq!(talking.calls.all(), ["open"]);
}

/// It waited for ever.
#[test]
fn who_waits_for_a_session_that_is_refused_is_told() {
    let talking = Talking::start(|service| service);
    let url = talking.url();
    let mut first = talking.server.client();
    first.send(request("POST", &format!("{url}xhr?do=late-no"), "", ""));
    talking.gate.wait();
    let mut second = talking.waiting(&url);
    talking.gate.open();
    assert_eq!(first.answer().status, 403);
    assert_eq!(second.answer().text(), "c[1002,\"Connection interrupted\"]\n");
    // Its id is free.
    assert_eq!(talking.poll(&url, ""), (200, "o\n".to_owned()));
}

/// Its worker looks after all sessions, and no other one did.
#[test]
fn a_wake_that_takes_long_holds_up_no_other_session() {
    let talking = Talking::start_with(|service| service.heartbeat(SHORT), |builder| builder.workers(3));
    let mut slow = talking.open(Transport::Xhr);
    slow.say(&["wait in wake"]);
    talking.gate.wait();
    let mut other = talking.open(Transport::XhrStreaming);
    assert_eq!([other.frame(), other.frame()], ["h", "h"]);
    let mut third = talking.open(Transport::Xhr);
    third.say(&["wake"]);
    assert_eq!(third.message(), "awake");
    // What it is told meanwhile waits for it, and holds nobody else.
    (0..10).for_each(|_| _ = slow.say(&["x"]));
    talking.server.client().expect_alive("/hello");
    talking.gate.open();
    assert_eq!(slow.message(), "awake");
    assert_eq!(slow.message(), "x");
}

/// Another worker waited to tell it of the end, with all the others that had ended.
#[test]
fn the_end_of_one_that_is_busy_holds_up_nobody() {
    let talking = Talking::start_with(|service| service, |builder| builder.workers(2));
    let busy = talking.open(Transport::XhrStreaming);
    let id = talking.calls.last();
    let mut sender = talking.server.client();
    sender.send(request("POST", &format!("{}xhr_send", busy.url), "", "[\"wait\",\"not heard\"]"));
    talking.gate.wait();
    let url = busy.url.clone();
    busy.into_clients().0.vanish();
    eventually("it is closed", || talking.poll(&url, "").1.starts_with("c[1002,"));
    for _ in 0..3 {
        let mut other = talking.open(Transport::Xhr);
        other.say(&["close other"]);
        assert_eq!(other.closed(), "c[4000,\"other\"]");
    }
    eventually("they have ended", || talking.calls.ends() == 3);
    talking.server.client().expect_alive("/hello");
    talking.gate.open();
    assert_eq!(sender.answer().status, 204);
    talking.calls.expect_each_to_have_ended_once(4);
    talking.expect_call("close 1002 \"Connection interrupted\" after 1");
    assert!(talking.hub.client(id).is_none());
}

/// What was sent before the stop was lost, and who was opened meanwhile was never closed.
#[test]
fn a_stop_says_first_what_waits() {
    let talking = Talking::start(|service| service);
    let mut sessions = [Transport::XhrStreaming, Transport::EventSource, Transport::WebSocket]
        .map(|transport| (talking.open(transport), talking.hub.client(talking.calls.last()).expect("it is here")));
    let late = talking.url();
    let mut opening = talking.server.client();
    opening.send(request("POST", &format!("{late}xhr?do=wait"), "", ""));
    talking.gate.wait();
    for (_, client) in &sessions {
        (0..50).for_each(|number| client.send(number.to_string()).expect("room"));
    }
    talking.server.handle.stop();
    for (session, _) in &mut sessions {
        (0..50).for_each(|number: u32| assert_eq!(session.message(), number.to_string()));
        assert_eq!(session.closed(), GO_AWAY);
    }
    talking.gate.open();
    assert_eq!(opening.answer().text(), "o\n");
    let Talking { server, hub, calls, .. } = talking;
    server.ended();
    calls.expect_each_to_have_ended_once(4);
    assert_eq!(hub.subscribers(), 0);
}

/// So many as `HANDOVER_VANISHED` says, or as there may be.
#[test]
fn who_opens_sessions_and_vanishes_leaves_nothing() {
    let sessions = count("HANDOVER_VANISHED", 2000);
    let talking = Talking::start(|service| service.disconnect_delay(SHORT));
    let mut opened = 0;
    thread::scope(|scope| {
        let open = |share: usize| {
            let mut client = talking.server.client();
            let mut opened = 0;
            for _ in 0..share / 50 {
                let polls = (0..50).map(|_| request("POST", &format!("{}xhr", talking.url()), "", ""));
                client.send(polls.collect::<String>());
                for _ in 0..50 {
                    match client.answer() {
                        answer if answer.status == 503 => {}
                        answer => opened += usize::from(answer.text() == "o\n"),
                    }
                }
            }
            client.vanish();
            opened
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(move || open(sessions / 4))).collect();
        opened = threads.into_iter().map(|thread| thread.join().expect("all are answered")).sum();
    });
    assert!(opened > 0);
    talking.calls.expect_each_to_have_ended_once(opened);
    eventually("nobody is left", || talking.hub.subscribers() == 0);
    assert_eq!(talking.poll(&talking.url(), ""), (200, "o\n".to_owned()));
}

#[test]
fn what_is_too_large_is_refused_and_ends_nothing() {
    let talking = Talking::start(|service| service);
    let session = talking.open(Transport::Xhr);
    let many = |messages: usize| format!("[{}]", vec!["\"x\""; messages].join(","));
    for body in [format!("[\"{}\"]", "x".repeat(128 << 10)), "x".repeat(1 << 20), many(1025)] {
        let mut client = talking.server.client();
        // It may be answered before it is read.
        let _ = client.try_send(request("POST", &format!("{}xhr_send", session.url), "", &body));
        assert_eq!(client.answer().status, 413);
    }
    let text = "x".repeat((64 << 10) - 10);
    assert_eq!(talking.send(&session.url, "", &format!("[\"{text}\"]")), 204);
    assert_eq!(talking.poll(&session.url, ""), (200, format!("a[\"{text}\"]\n")));
    let mut socket = talking.open(Transport::WebSocket);
    socket.say(&[&"x".repeat(128 << 10)]);
    assert!(socket.try_closed().is_err());
    talking.expect_call("close 1009 \"message too large\" after 0");
}

/// What waits for sessions is of the memory that there is: nobody is let in beyond that, and everybody else is served.
#[test]
fn sessions_fill_the_memory_that_there_is_and_no_more() {
    let program = Program::lab(["--memory", "20M", "--workers", "2"]);
    let mut client = program.client();
    let large = format!("[\"{}\"]", "x".repeat(60_000));
    let open = |client: &mut RawClient| {
        let url = format!("/sockjs/echo/000/{}/", new_session());
        let answer = ask(client, "POST", &format!("{url}xhr"), "", "");
        (answer.status, url)
    };
    let mut last = String::new();
    let mut opened = 0;
    loop {
        let (status, url) = open(&mut client);
        if status == 503 {
            break;
        }
        assert_eq!((status, opened < 2000), (200, true));
        let said = ask(&mut client, "POST", &format!("{url}xhr_send"), "", &large);
        assert!([204, 503].contains(&said.status), "{said:?}");
        (last, opened) = (url, opened + 1);
    }
    client.expect_alive("/hello");
    assert_eq!(open(&mut client).0, 503);
    let answer = ask(&mut client, "POST", &format!("{last}xhr"), "", "");
    assert!(answer.status == 200 && answer.text().starts_with("a[\"xxx"), "{opened}: {answer:?}");
    let resident = Size::of(program.pid()).resident;
    assert!(resident < 20 << 10, "{resident} KiB with {opened} sessions");
    eventually("there is room again", || open(&mut client).0 == 200);
    assert_eq!(program.stop(), Some(0));
}
