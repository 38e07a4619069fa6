//! Tokens, through the program: the key file, its rotation, the end of a token, what the log says, and `handover token`.

use crate::common::websocket::CLOSE;
use crate::common::{EventStream, Mode, Program, RawClient, Scratch, WebSocket, eventually, run_to_its_end};
use handover::{Token, TokenKeys};
use rustix::process::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Duration;

const KEY: &str = "MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTE=\n";
const OTHER: &str = "MjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjI=\n";

fn keys(byte: u8) -> TokenKeys {
    TokenKeys::new([[byte; 32]]).expect("a key")
}

/// A token that the first key signs, for everything.
fn token(seconds: u64) -> String {
    Token::new(Duration::from_secs(seconds)).subscribe("*").publish("*").sign(&keys(b'1'))
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// A configuration with a key file of its own.
struct Guarded(Scratch);

impl Guarded {
    fn new(key: &str) -> Guarded {
        let guarded = Guarded(Scratch::new());
        guarded.write_key(key);
        let text = "listen = [\"127.0.0.1:0\"]\n[[push]]\nprefix = \"/events\"\npublish = \"token\"\n\
                    subscribe = \"token\"\nheartbeat = 0\ntoken_key_file = \"push.key\"\n";
        fs::write(guarded.0.path("handover.toml"), text).expect("a file");
        guarded
    }

    fn write_key(&self, key: &str) {
        let path = self.0.path("push.key");
        fs::write(&path, key).expect("a file");
        self.set_mode(0o600);
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.0.path("push.key"), Permissions::from_mode(mode)).expect("ours");
    }

    fn command(&self, mode: Mode) -> Command {
        let mut command = Program::handover_command();
        mode.flags(&mut command).arg("-c").arg(self.0.path("handover.toml"));
        command
    }

    fn check(&self) -> Output {
        run_to_its_end(self.command(Mode::Exec).arg("--check"))
    }
}

/// The status of a poll that does not wait, with these fields.
#[track_caller]
fn status(client: &mut RawClient, target: &str, fields: &str) -> u16 {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n{fields}\r\n"));
    client.answer().status
}

#[track_caller]
fn publish(client: &mut RawClient, topic: &str, fields: &str, data: &str) -> (u16, String) {
    let length = data.len();
    let head = format!("POST /events/{topic} HTTP/1.1\r\nHost: test\r\n{fields}Content-Length: {length}\r\n\r\n");
    client.send(format!("{head}{data}"));
    let answer = client.answer();
    (answer.status, answer.text().to_owned())
}

#[test]
fn a_key_file_that_cannot_be_used_is_told_in_a_line_at_the_start_and_in_a_check() {
    for (key, says) in [
        ("", "there is no key"),
        ("MTEx", "line 1 has 3 bytes of a key, allowed is 32 or more"),
        (&[KEY, OTHER, KEY].concat(), "there are 3 keys, allowed is one, or 2 while it is replaced"),
        ("correct horse battery staple, and then some", "line 1 is no base64"),
        (&"k".repeat(5000), "it has more than 4096 bytes"),
    ] {
        let guarded = Guarded::new(key);
        for output in [guarded.check(), run_to_its_end(&mut guarded.command(Mode::Exec))] {
            let text = String::from_utf8(output.stderr).expect("UTF-8");
            assert_eq!(output.status.code(), Some(78), "{text}");
            assert!(text.contains("handover.toml:7:18: token_key_file ") && text.contains(says), "{key:?}: {text}");
            assert!(text.lines().count() == 1 && !text.contains("MT") && !text.contains("horse"), "{text}");
        }
    }
    let guarded = Guarded::new(KEY);
    fs::remove_file(guarded.0.path("push.key")).expect("it is there");
    let text = String::from_utf8(guarded.check().stderr).expect("UTF-8");
    assert!(text.contains("push.key\": there is no such file"), "{text}");
    fs::create_dir(guarded.0.path("push.key")).expect("nothing is there");
    let output = guarded.check();
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.code() == Some(78) && text.contains("it is not a regular file"), "{text}");
}

#[test]
fn a_key_file_that_everybody_may_read_is_warned_of() {
    let guarded = Guarded::new(KEY);
    for (mode, may) in [(0o600, None), (0o640, None), (0o644, Some("read")), (0o666, Some("write to"))] {
        guarded.set_mode(mode);
        let output = guarded.check();
        let report = String::from_utf8(output.stdout).expect("UTF-8");
        let says = may.map(|may| format!("warning    everybody on this host may {may} the key file"));
        assert!(output.status.success(), "{report}");
        assert_eq!(says.is_some(), report.contains("warning"), "{mode:o}: {report}");
        assert!(says.is_none_or(|says| report.contains(&says)), "{mode:o}: {report}");
        assert!(
            report.contains("/events push, who has a token may publish, who has a token may subscribe"),
            "{report}"
        );
    }
    let program = Program::start(&mut guarded.command(Mode::Exec));
    program.logged("WARN");
    assert!(program.logged("everybody on this host").contains("(mode 666): chmod 600"));
    assert_eq!(program.stop(), Some(0));
}

/// Whoever hears more than a token allows, by moving to a successor that does not know when it ends, would hear it for ever.
#[test]
fn a_stream_ends_when_its_token_does_through_reloads_as_well() {
    for mode in Mode::BOTH {
        let guarded = Guarded::new(KEY);
        let program = Program::start(guarded.command(mode).env("RUST_LOG", "debug"));
        let (short, long) = (token(6), bearer(&token(600)));
        let mut streams: Vec<EventStream> = [&bearer(&short), &long]
            .iter()
            .map(|fields| EventStream::open(&program.bound[0], "/events/a", fields))
            .collect();
        streams.iter_mut().for_each(|stream| _ = stream.opening());
        // One that says where it stands by itself, and one that has nothing to say.
        let mut websockets: Vec<WebSocket> = ["", "Sec-WebSocket-Protocol: handover.json\r\n"]
            .iter()
            .map(|protocol| {
                let fields = format!("{protocol}Cookie: handover_token={short}\r\n");
                WebSocket::open_with(&program.bound[0], "/events/a", &fields)
            })
            .collect();
        let mut poll = program.client();
        poll.send(format!(
            "GET /events/b?wait=60&token={short} HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n"
        ));
        program.reload();
        let mut client = program.client();
        assert_eq!(publish(&mut client, "a", &long, "1").0, 200);
        streams.iter_mut().for_each(|stream| assert_eq!(stream.lines(), "data: 1\n\n"));
        assert_eq!(websockets[0].text(), "1");
        program.reload();
        // At its end, and no earlier than that.
        let farewell = streams[0].event();
        let retry = farewell.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n"));
        let retry: u32 = retry.and_then(|retry| retry.parse().ok()).unwrap_or_else(|| panic!("{farewell:?}"));
        assert!((1000..5000).contains(&retry), "{retry}");
        assert_eq!(streams[0].try_event().expect("an orderly end"), None);
        assert_eq!(status(&mut client, "/events/a?wait=0", &bearer(&short)), 401, "it ended too early");
        // Whatever a WebSocket has said of where it stands, and of the message.
        for websocket in &mut websockets {
            let closed = std::iter::from_fn(|| Some(websocket.next())).find(|(opcode, _)| *opcode == CLOSE);
            assert_eq!(closed.map(|(_, payload)| payload[..2].to_vec()), Some(4002_u16.to_be_bytes().to_vec()));
        }
        let answer = poll.answer();
        assert!(answer.status == 200 && answer.text().starts_with("{\"messages\":[]"), "{answer:?}");
        // The other one goes on.
        assert_eq!(publish(&mut client, "a", &long, "2").0, 200);
        assert_eq!(streams[1].lines(), "data: 2\n\n");
        assert_eq!(program.stop(), Some(0));
    }
}

/// One whose client does not read hears no more of what comes after the end than the event that it has a part of.
#[test]
fn who_does_not_read_hears_nothing_behind_the_end_of_its_token() {
    let guarded = Guarded::new(KEY);
    let program = Program::start(&mut guarded.command(Mode::Exec));
    let short = bearer(&token(3));
    let mut stream = EventStream::open(&program.bound[0], "/events/a", &short);
    stream.opening();
    let (mut client, long, data) = (program.client(), bearer(&token(600)), "x".repeat(60_000));
    for _ in 0..100 {
        assert_eq!(publish(&mut client, "a", &long, &data).0, 200);
    }
    eventually("its token has ended", || status(&mut client, "/events/b?wait=0", &short) == 401);
    let mut heard = 0;
    let farewell = loop {
        let event = stream.event();
        if event.starts_with("retry: ") {
            break event;
        }
        heard += 1;
    };
    assert!((1..100).contains(&heard), "{heard} of 100 messages, then {farewell:?}");
    assert_eq!(stream.try_event().expect("an orderly end"), None);
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn keys_are_replaced_by_reloads_and_a_broken_file_changes_nothing() {
    let guarded = Guarded::new(KEY);
    let program = Program::start(&mut guarded.command(Mode::Exec));
    let (old, new) = (bearer(&token(600)), Token::new(Duration::from_secs(600)).subscribe("a").sign(&keys(b'2')));
    let new = bearer(&new);
    let poll = |fields: &str| status(&mut program.client(), "/events/a?wait=0", fields);
    assert_eq!((poll(&old), poll(&new)), (200, 401));
    let mut stream = EventStream::open(&program.bound[0], "/events/a", &old);
    stream.opening();
    guarded.write_key(&[OTHER, KEY].concat());
    program.reload();
    assert_eq!((poll(&old), poll(&new)), (200, 200));
    guarded.write_key("no key at all");
    program.signal(Signal::HUP);
    assert!(program.logged("reload failed").contains("line 1 is no base64"));
    assert_eq!((poll(&old), poll(&new)), (200, 200));
    // What was checked when a stream began stays so until the token ends.
    assert_eq!(publish(&mut program.client(), "a", &old, "1").0, 200);
    guarded.write_key(OTHER);
    program.reload();
    assert_eq!((poll(&old), poll(&new)), (401, 200));
    assert_eq!(stream.lines(), "data: 1\n\n");
    assert_eq!(program.stop(), Some(0));
}

/// Each owner has keys of his own: what one of them has published is not repeated to the other.
#[test]
fn an_idempotency_key_is_the_owners() {
    let guarded = Guarded::new(KEY);
    let program = Program::start(&mut guarded.command(Mode::Exec));
    let of = |name: &str| {
        let token = Token::new(Duration::from_secs(600)).publish("a").subject(name).sign(&keys(b'1'));
        format!("{}Idempotency-Key: 1\r\n", bearer(&token))
    };
    let mut client = program.client();
    let first = publish(&mut client, "a", &of("ada"), "x");
    assert_eq!(first.0, 200);
    assert_eq!(publish(&mut client, "a", &of("ada"), "x"), first);
    assert_eq!(publish(&mut client, "a", &of("ada"), "y").0, 422);
    let other = publish(&mut client, "a", &of("bob"), "y");
    assert!(other.0 == 200 && other.1 != first.1, "{other:?}");
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn topics_are_listed_as_far_as_a_token_publishes_to_them() {
    let guarded = Guarded::new(KEY);
    let program = Program::start(&mut guarded.command(Mode::Exec));
    let mut client = program.client();
    for topic in ["a", "b", "c"] {
        assert_eq!(publish(&mut client, topic, &bearer(&token(600)), "x").0, 200);
    }
    for (topics, listed) in [(&["a"][..], &["a"][..]), (&["b", "c", "d"], &["b", "c"]), (&["*"], &["a", "b", "c"])] {
        let token = Token::new(Duration::from_secs(600)).subscribe("*");
        let token = topics.iter().copied().fold(token, Token::publish).sign(&keys(b'1'));
        let head = format!("GET /events HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n{}\r\n", bearer(&token));
        let answer = client.send(head).answer();
        let list: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let names =
            list["topics"].as_array().expect("topics").iter().map(|topic| topic["topic"].as_str().expect("text"));
        assert_eq!(names.collect::<Vec<_>>(), listed, "{answer:?}");
    }
    assert_eq!(program.stop(), Some(0));
}

/// Lines of the log are read by many, and kept for long.
#[test]
fn nothing_of_a_token_is_in_the_log() {
    for mode in Mode::BOTH {
        let guarded = Guarded::new(KEY);
        let flags = ["--stop-deadline", "0.3", "--head-timeout", "0.3"];
        let program = Program::start(guarded.command(mode).args(flags).env("RUST_LOG", "trace"));
        let good = token(600);
        let bad = format!("{}{}", &good[..good.len() - 4], "AAAA");
        let mut client = program.client();
        for token in [&good, &bad] {
            let expected = if *token == good { 200 } else { 401 };
            let cookie = format!("Cookie: handover_token={token}\r\n");
            assert_eq!(status(&mut client, "/events/a?wait=0", &bearer(token)), expected);
            assert_eq!(status(&mut client, "/events/a?wait=0", &cookie), expected);
            assert_eq!(status(&mut client, &format!("/events/a?wait=0&token={token}"), ""), expected);
            assert_eq!(status(&mut client, &format!("/elsewhere?token={token}&a=1"), ""), 404);
            assert_eq!(publish(&mut client, &format!("a?token={token}"), "", "x").0, expected);
            let mut upgrade = program.client();
            upgrade.send(WebSocket::request(&format!("/events/a?token={token}"), ""));
            let switched = upgrade.read_past(b"\r\n\r\n").expect("a head").starts_with(b"HTTP/1.1 101 ");
            assert_eq!(switched, expected == 200);
            assert_eq!(status(&mut client, &format!("/events/a?token={token}&token=x"), ""), 400);
            // Refused before anybody looks at it.
            let mut refused = program.client();
            refused.send(format!("GET /events/a?token={token} HTTP/2.0\r\n\r\n"));
            refused.rest();
            // Its head is late.
            let mut late = program.client();
            late.send(format!("GET /events/a?token={token}"));
            late.rest();
        }
        let target = format!("/events/a?token={good}");
        let mut stream = EventStream::open(&program.bound[0], &target, "");
        stream.opening();
        let mut poll = program.client();
        poll.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n"));
        program.reload();
        let mut gone = EventStream::open(&program.bound[0], &target, "");
        gone.opening();
        drop(gone);
        // At a stop: what is half here is cut.
        let mut late = program.client();
        late.send(format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nx"));
        let mut head = program.client();
        head.send(format!("GET {target}"));
        program.logged("token=...");
        let pid = program.current();
        program.signal_to(pid, Signal::TERM);
        let exit = match mode {
            Mode::Exec => program.exit(),
            Mode::Overlap => {
                program.wait_for_end(pid);
                program.exit()
            }
        };
        let log = exit.log.join("\n");
        let shown = log.matches("token=...").count();
        assert!(shown > 10, "what has one is logged without it, {shown} times: {log}");
        for part in good.split('.').chain(bad.split('.')) {
            // Also what is left of it where a line is cut.
            assert!(!log.contains(&part[..8]), "{part}: {log}");
        }
    }
}

fn run(args: &[&str]) -> Output {
    run_to_its_end(Program::handover_command().arg("token").args(args))
}

#[test]
fn the_command_makes_a_token_that_the_server_accepts() {
    let guarded = Guarded::new(&[KEY, OTHER].concat());
    let key = guarded.0.path("push.key").to_str().expect("UTF-8").to_owned();
    let output =
        run(&["--key-file", &key, "--subscribe", "a", "b", "--publish=a", "--subject", "ada", "--expires", "60"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let token = String::from_utf8(output.stdout).expect("UTF-8");
    let token = bearer(token.strip_suffix('\n').expect("a line"));
    let program = Program::start(&mut guarded.command(Mode::Exec));
    let mut client = program.client();
    assert_eq!(status(&mut client, "/events?topic=a&topic=b&wait=0", &token), 200);
    assert_eq!(status(&mut client, "/events/c?wait=0", &token), 403);
    assert_eq!((publish(&mut client, "a", &token, "x").0, publish(&mut client, "b", &token, "x").0), (200, 403));
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn the_command_says_what_is_wrong() {
    let guarded = Guarded::new("MTEx");
    let key = guarded.0.path("push.key").to_str().expect("UTF-8").to_owned();
    let long = "x".repeat(256);
    for (args, code, says) in [
        (&[][..], 2, "give --key-file FILE"),
        (&["--key-file", "k"], 2, "give --subscribe TOPIC, --publish TOPIC, or both"),
        (&["--key-file", "k", "--key-file", "k"], 2, "--key-file stands twice"),
        (&["--key-file", "k", "--subscribe"], 2, "missing argument"),
        (
            &["--key-file", "k", "--subscribe", "a", "--expires", "0"],
            2,
            "--expires is \"0\", allowed are seconds, 1 to",
        ),
        (&["--key-file", "k", "--subscribe", "a", "--expires", "1h"], 2, "--expires is \"1h\""),
        (&["--key-file", "k", "--publish", "a\nb"], 2, "\"a\\nb\": a topic has no control characters"),
        (&["--key-file", "k", "--publish", "a", "--subject", &long], 2, "sub has more than 255 bytes"),
        (&["--key-file", "k", "a"], 2, "unexpected argument"),
        (&["--key-file", "/nowhere/k", "--publish", "a"], 1, "/nowhere/k\": there is no such file"),
        (&["--key-file", &key, "--publish", "a"], 1, "line 1 has 3 bytes of a key"),
    ] {
        let output = run(args);
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{args:?}: {text}");
        assert!(text.starts_with("handover token: ") && text.contains(says) && text.lines().count() == 1, "{text}");
    }
    let help = run(&["--help"]);
    assert!(help.status.success() && help.stderr.is_empty());
    let text = String::from_utf8(help.stdout).expect("UTF-8");
    assert!(text.starts_with("Usage: handover token --key-file FILE"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "a line is too wide");
}
