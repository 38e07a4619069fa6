//! The chat of the examples: what a newcomer copies has to hold.

use crate::common::{Mode, PATIENCE, Program, RawClient, WebSocket};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The chat in that mode, by a switch or an exec.
fn chat(mode: Mode) -> Program {
    Program::start(mode.flags(&mut Program::example_command("chat")).args(["-l", "127.0.0.1:0"]))
}

/// One who chats.
struct Chatter {
    by: Transport,
    /// Heard, and not yet asked for.
    heard: VecDeque<Value>,
    /// What the server said of itself.
    servers: Vec<Value>,
}

enum Transport {
    WebSocket(WebSocket),
    /// A session of SockJS: polled over one connection, and what it says over another.
    Polls {
        receiver: RawClient,
        sender: RawClient,
        session: String,
    },
}

impl Chatter {
    fn by(by: Transport) -> Chatter {
        Chatter { by, heard: VecDeque::new(), servers: Vec::new() }
    }

    #[track_caller]
    fn websocket(program: &Program) -> Chatter {
        Chatter::by(Transport::WebSocket(WebSocket::open(&program.bound[0], "/chat")))
    }

    #[track_caller]
    fn polls(program: &Program, session: &str) -> Chatter {
        let (mut receiver, sender, session) = (program.client(), program.client(), format!("/sockjs/000/{session}"));
        assert_eq!(receiver.post(&format!("{session}/xhr"), "").answer().text(), "o\n");
        // The next poll is on its way, as it always is with a client that waits.
        receiver.post(&format!("{session}/xhr"), "");
        Chatter::by(Transport::Polls { receiver, sender, session })
    }

    #[track_caller]
    fn ask(&mut self, message: &Value) {
        match &mut self.by {
            Transport::WebSocket(socket) => _ = socket.say(&message.to_string()),
            Transport::Polls { sender, session, .. } => {
                let body = json!([message.to_string()]).to_string();
                assert_eq!(sender.post(&format!("{session}/xhr_send"), body).answer().status, 204);
            }
        }
    }

    #[track_caller]
    fn hear(&mut self) -> Value {
        while self.heard.is_empty() {
            let texts: Vec<String> = match &mut self.by {
                Transport::WebSocket(socket) => vec![socket.text()],
                Transport::Polls { receiver, session, .. } => {
                    let frame = receiver.answer().text().to_owned();
                    receiver.post(&format!("{session}/xhr"), "");
                    let messages = frame.strip_prefix('a').unwrap_or_else(|| panic!("{frame:?} instead of messages"));
                    serde_json::from_str(messages).expect("JSON")
                }
            };
            self.heard.extend(texts.iter().map(|text| serde_json::from_str::<Value>(text).expect("JSON")));
        }
        self.heard.pop_front().expect("one")
    }

    /// The next message, which is of that kind. What the server says of itself may come before.
    #[track_caller]
    fn told(&mut self, kind: &str) -> Value {
        loop {
            let message = self.hear();
            match message["type"].as_str() {
                Some(is) if is == kind => return message,
                Some("server") => self.servers.push(message),
                Some("beat") => {}
                _ => panic!("{message} instead of {kind}"),
            }
        }
    }

    #[track_caller]
    fn join(&mut self, room: &str, name: &str) -> Value {
        self.ask(&join(room, name));
        self.welcomed()
    }

    /// Asks until its name is free.
    #[track_caller]
    fn join_in_the_end(&mut self, room: &str, name: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            self.ask(&join(room, name));
            let answer = self.hear();
            if answer["type"] == "welcome" {
                self.heard.push_front(answer);
                return self.welcomed();
            }
            assert!(answer["type"] == "refused" && Instant::now() < until, "{answer}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// And told which server that is.
    #[track_caller]
    fn welcomed(&mut self) -> Value {
        let (welcome, server) = (self.told("welcome"), self.hear());
        assert_eq!(server["type"], "server");
        self.servers.push(server);
        welcome
    }

    #[track_caller]
    fn say(&mut self, text: &str) {
        self.ask(&json!({"type": "say", "text": text}));
    }

    #[track_caller]
    fn refused(&mut self, message: &Value) -> String {
        self.ask(message);
        self.told("refused")["why"].as_str().expect("a reason").to_owned()
    }

    fn ports(&self) -> Vec<u16> {
        match &self.by {
            Transport::WebSocket(socket) => vec![socket.client.local_port()],
            Transport::Polls { receiver, sender, .. } => vec![receiver.local_port(), sender.local_port()],
        }
    }

    /// Its WebSocket ends: with that status, if the server says one.
    #[track_caller]
    fn closed(self) -> (u16, String) {
        let Transport::WebSocket(mut socket) = self.by else { panic!("this is none") };
        socket.closed()
    }

    #[track_caller]
    fn close(self) {
        let Transport::WebSocket(socket) = self.by else { panic!("this is none") };
        socket.close(1000);
    }
}

fn join(room: &str, name: &str) -> Value {
    json!({"type": "join", "room": room, "name": name})
}

fn texts(welcome: &Value) -> Vec<&str> {
    welcome["lines"].as_array().expect("lines").iter().map(|line| line["text"].as_str().expect("text")).collect()
}

/// Two say something in turn, and both hear each line once and in order.
#[derive(Default)]
struct Talk {
    said: Vec<String>,
    at: u64,
}

impl Talk {
    #[track_caller]
    fn goes_on(&mut self, ann: &mut Chatter, bob: &mut Chatter) {
        let (text, is_anns) = (format!("line {}", self.said.len()), self.said.len().is_multiple_of(2));
        if is_anns {
            ann.say(&text)
        } else {
            bob.say(&text)
        }
        let line = ann.told("said");
        assert_eq!(line, bob.told("said"));
        assert_eq!((&line["text"], &line["name"]), (&json!(text), &json!(if is_anns { "Ann" } else { "Bob" })));
        let at = line["at"].as_u64().expect("a time");
        assert!(at > self.at, "{line} behind {}", self.at);
        self.at = at;
        self.said.push(text);
    }
}

fn goes_on_through_reloads(mode: Mode) {
    let program = chat(mode);
    let (mut ann, mut bob) = (Chatter::websocket(&program), Chatter::polls(&program, "bob"));
    assert_eq!(ann.join("lobby", "Ann")["here"], json!(["Ann"]));
    assert_eq!(bob.join("lobby", "Bob")["here"], json!(["Ann", "Bob"]));
    assert_eq!(ann.told("joined")["name"], "Bob");
    let (ports, mut talk) = ([ann.ports(), bob.ports()], Talk::default());
    let mut generations = vec![json!({"type": "server", "generation": 1, "pid": program.pid()})];
    for generation in 2..5 {
        talk.goes_on(&mut ann, &mut bob);
        thread::scope(|scope| {
            let reloads = scope.spawn(|| program.reload());
            while !reloads.is_finished() {
                talk.goes_on(&mut ann, &mut bob);
            }
        });
        let server = json!({"type": "server", "generation": generation, "pid": program.current()});
        let until = Instant::now() + PATIENCE;
        while [&ann, &bob].iter().any(|chatter| chatter.servers.last() != Some(&server)) {
            assert!(Instant::now() < until, "{server} is missing: {:?} {:?}", ann.servers, bob.servers);
            talk.goes_on(&mut ann, &mut bob);
        }
        generations.push(server);
    }
    // Each of them has said so once, but for the first to who joins just when it begins to.
    for chatter in [&mut ann, &mut bob] {
        let again = chatter.servers.iter().skip(1).take_while(|server| **server == generations[0]).count();
        assert!(again <= 1, "{:?}", chatter.servers);
        assert_eq!(chatter.servers.split_off(again), generations);
    }
    assert_eq!([ann.ports(), bob.ports()], ports);
    // Who comes later is told the last lines, and who is here.
    let mut eve = Chatter::websocket(&program);
    let welcome = eve.join("lobby", "Eve");
    assert_eq!(welcome["here"], json!(["Ann", "Bob", "Eve"]));
    assert_eq!(texts(&welcome), talk.said[talk.said.len().saturating_sub(50)..]);
    assert_eq!([ann.told("joined"), bob.told("joined")].map(|it| it["name"].clone()), ["Eve", "Eve"]);
    ann.close();
    assert_eq!([bob.told("left"), eve.told("left")].map(|it| it["name"].clone()), ["Ann", "Ann"]);
    // A session ends some seconds after its connections.
    drop(bob);
    assert_eq!(eve.told("left")["name"], "Bob");
    eve.close();
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn a_chat_goes_on_through_an_exec() {
    goes_on_through_reloads(Mode::Exec);
}

#[test]
fn a_chat_goes_on_through_an_overlap() {
    goes_on_through_reloads(Mode::Overlap);
}

#[test]
fn a_chat_refuses_what_it_does_not_take() {
    let program = chat(Mode::Exec);
    let (mut ann, mut bob) = (Chatter::websocket(&program), Chatter::polls(&program, "bob"));
    let long = "x".repeat(25);
    for bad in ["", " Ann", "Ann ", "A\u{202e}nn", "A\nnn", "<b>", "A\u{200b}nn", &long] {
        for message in [join("lobby", bad), join(bad, "Ann")] {
            assert!(ann.refused(&message).starts_with("a name has "), "{message}");
        }
    }
    let unknown = ["join a room, then say something"; 5];
    let others = [json!({"type": "say", "text": "x"}), json!({"type": "x"}), json!({}), json!(1), json!(null)];
    assert_eq!(others.map(|message| ann.refused(&message)), unknown);
    assert_eq!(ann.join("Zürich 1.0", &"ü".repeat(24))["lines"], json!([]));
    assert_eq!(bob.refused(&join("Zürich 1.0", &"ü".repeat(24))), "somebody here has that name");
    // The same name in another room is another.
    bob.join("lobby", &"ü".repeat(24));
    assert_eq!(ann.refused(&join("lobby", "Ann")), unknown[0]);
    for text in ["", " \n", "a\u{7}b", &"é".repeat(501)] {
        assert_eq!(ann.refused(&json!({"type": "say", "text": text})), "a line is text of 1 to 1000 bytes", "{text:?}");
    }
    ann.say(&("é".repeat(500) + " \n"));
    assert_eq!(ann.told("said")["text"], json!("é".repeat(500)));
    let Transport::WebSocket(socket) = &mut ann.by else { unreachable!("it is one") };
    socket.send(crate::common::websocket::BINARY, b"\xff");
    assert_eq!(ann.told("refused")["why"], unknown[0]);
    ann.say(&"x".repeat(8000));
    assert_eq!(ann.closed().0, 1009);
    // There are so many rooms, until nobody is in one.
    let full = "there are as many rooms as there may be";
    let mut others: Vec<Chatter> = (0..63).map(|_| Chatter::websocket(&program)).collect();
    others.iter_mut().enumerate().for_each(|(at, one)| _ = one.join(&format!("room {at}"), "Bob"));
    let mut last = Chatter::websocket(&program);
    assert_eq!(last.refused(&join("one more", "Ann")), full);
    last.join("lobby", "Ann");
    others.remove(0).close();
    let mut next = Chatter::websocket(&program);
    next.join_in_the_end("one more", "Ann");
}

/// A program that knows no WebSockets tells them to come back, and they have their names again.
fn comes_back_under_its_name_or_has_left(mode: Mode) {
    let mut command: Command = Program::example_command("chat");
    command.env("HANDOVER_TEST_NEWEST", "3");
    let program = Program::start(mode.flags(&mut command).args(["-l", "127.0.0.1:0"]));
    let (mut ann, mut bob) = (Chatter::websocket(&program), Chatter::websocket(&program));
    ann.join("lobby", "Ann");
    bob.join("lobby", "Bob");
    assert_eq!(ann.told("joined")["name"], "Bob");
    ann.say("before");
    assert_eq!([ann.told("said"), bob.told("said")].map(|line| line["text"].clone()), ["before", "before"]);
    program.reload();
    assert_eq!([ann.closed().0, bob.closed().0], [1012, 1012]);
    let mut ann = Chatter::websocket(&program);
    let welcome = ann.join("lobby", "Ann");
    assert_eq!((&welcome["here"], texts(&welcome)), (&json!(["Ann", "Bob"]), vec!["before"]));
    // Bob has not come back by the time of the next heartbeat.
    assert_eq!(ann.told("left")["name"], "Bob");
}

#[test]
fn who_does_not_move_by_exec_comes_back_or_has_left() {
    comes_back_under_its_name_or_has_left(Mode::Exec);
}

#[test]
fn who_does_not_move_by_overlap_comes_back_or_has_left() {
    comes_back_under_its_name_or_has_left(Mode::Overlap);
}

/// What has moved is lost with its new server; who comes back finds its name free, and the others leave.
#[test]
fn who_was_lost_with_a_successor_has_left() {
    let mut command = Program::example_command("chat");
    let program =
        Program::start(command.args(["-l", "127.0.0.1:0", "--reload", "overlap", "--reload-probation", "30"]));
    let (mut ann, mut bob) = (Chatter::websocket(&program), Chatter::polls(&program, "bob"));
    ann.join("lobby", "Ann");
    bob.join("lobby", "Bob");
    assert_eq!(ann.told("joined")["name"], "Bob");
    program.signal_to(program.pid(), Signal::HUP);
    let successor = program.generation(2);
    bob.say("moved");
    assert_eq!([ann.told("said"), bob.told("said")].map(|line| line["text"].clone()), ["moved", "moved"]);
    program.signal_to(successor, Signal::KILL);
    program.logged("this process takes over again");
    let mut ann = Chatter::websocket(&program);
    let here = ann.join_in_the_end("lobby", "Ann")["here"].clone();
    if here != json!(["Ann"]) {
        // His session is closed by whoever has it again, which may not have come to it.
        assert_eq!(here, json!(["Ann", "Bob"]));
        assert_eq!(ann.told("left")["name"], "Bob");
    }
    let mut eve = Chatter::websocket(&program);
    assert_eq!(eve.join("lobby", "Eve")["here"], json!(["Ann", "Eve"]));
}
