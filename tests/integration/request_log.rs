//! The request log: each request has one line, whatever becomes of it.

use crate::common::sockjs::{Session, Transport};
use crate::common::{
    EventStream, Load, Mode, Program, RawClient, Scratch, TestServer, WebSocket, eventually, parse_bound,
};
use handover::{Config, Hub, Publishers, Request, RequestLogFormat, Router, Server};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn eventually_lines(path: &Path, number: usize) -> Vec<String> {
    eventually(&format!("{number} lines"), || lines(path).len() >= number);
    lines(path)
}

fn serve(path: &Path, format: RequestLogFormat) -> TestServer {
    let hub = Hub::new();
    let events = hub.namespace("public").publishers(Publishers::Anyone);
    let router = Router::new()
        .get("/hello", |_: &mut Request| "hello world")
        .post("/body", |request: &mut Request| request.body_bytes().map(|body| body.len().to_string()))
        .get("/mine", |request: &mut Request| request.set_user("Ada Lovelace\n\"é\""))
        .get("/panic", |_: &mut Request| -> &'static str { panic!("as asked for") })
        .mount_service("/events", events.service());
    let config = Config { access_log: Some(path.to_owned()), access_log_format: format, ..Config::default() };
    TestServer::start(Server::builder().config(config).hub(&hub).service(router))
}

/// What stands between quotes, and the other words.
fn fields(line: &str) -> Vec<String> {
    let mut fields = Vec::new();
    for (number, part) in line.split('"').enumerate() {
        if number % 2 == 1 {
            fields.push(part.to_owned());
        } else {
            fields.extend(part.split(' ').filter(|word| !word.is_empty()).map(str::to_owned));
        }
    }
    fields
}

#[test]
fn each_request_has_a_line_in_the_common_form() {
    let scratch = Scratch::new();
    let path = scratch.path("access");
    let server = serve(&path, RequestLogFormat::Combined);
    let mut client = server.client();
    client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\nUser-Agent: a\x01\r\n\r\n");
    // A control character in a field is refused, which is a request as well.
    assert_eq!(client.answer().status, 400);
    let mut client = server.client();
    client.send(
        "GET /hello?a=b&token=secret HTTP/1.1\r\nHost: x\r\nReferer: http://r/?token=secret\r\nUser-Agent: a \"b\"\\\té\r\n\r\n",
    );
    assert_eq!(client.answer().status, 200);
    client.send("HEAD /hello HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 200);
    let mut client = server.client();
    client.post("/body", "12345");
    assert_eq!(client.answer().text(), "5");
    client.get("/panic");
    assert_eq!(client.answer().status, 500);
    client.get("/nothing");
    assert_eq!(client.answer().status, 404);
    let lines = eventually_lines(&path, 6);
    let said: Vec<Vec<String>> = lines.iter().map(|line| fields(line)).collect();
    assert!(
        said.iter().all(|fields| fields.len() == 11 && fields[0] == "127.0.0.1" && fields[3].starts_with('[')),
        "{lines:#?}"
    );
    // Line, status, bytes, referer, agent; and at the end the seconds.
    let mut short: Vec<String> = said.iter().map(|fields| fields[5..10].join("|")).collect();
    // A client has its answer before the line is there, and may go on with another worker.
    short.sort_unstable();
    assert_eq!(
        short,
        [
            "-|400|34|-|-",
            "GET /hello?a=b&token=... HTTP/1.1|200|11|http://r/?token=...|a \\x22b\\x22\\x5C\\x09\\xC3\\xA9",
            "GET /nothing HTTP/1.1|404|14|-|-",
            "GET /panic HTTP/1.1|500|26|-|-",
            "HEAD /hello HTTP/1.0|200|0|-|-",
            "POST /body HTTP/1.1|200|1|-|-",
        ]
    );
    assert!(said.iter().all(|fields| fields[10].parse::<f64>().is_ok_and(|seconds| seconds < 60.0)), "{lines:#?}");
}

#[test]
fn a_user_has_a_name_in_one_field() {
    let scratch = Scratch::new();
    let (combined, json) = (scratch.path("combined"), scratch.path("json"));
    for (path, format) in [(&combined, RequestLogFormat::Combined), (&json, RequestLogFormat::Json)] {
        let server = serve(path, format);
        let mut client = server.client();
        // The next request of a connection is nobody's.
        for (number, target) in ["/mine", "/hello"].into_iter().enumerate() {
            client.get(target);
            assert!(client.answer().status < 300);
            eventually_lines(path, number + 1);
        }
    }
    let users: Vec<String> = lines(&combined).iter().map(|line| fields(line)[2].clone()).collect();
    assert_eq!(users, ["Ada\\x20Lovelace\\xEF\\xBF\\xBD\\x22\\xC3\\xA9\\x22", "-"]);
    let json: Vec<Value> = lines(&json).iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!((&json[0]["user"], &json[1]["user"]), (&"Ada Lovelace\u{fffd}\"é\"".into(), &Value::Null));
}

#[test]
fn a_line_of_json_says_how_it_ended() {
    let scratch = Scratch::new();
    let path = scratch.path("access");
    let server = serve(&path, RequestLogFormat::Json);
    let mut client = server.client();
    client.send("GET /hello HTTP/1.1\r\nHost: x\r\nX-Request-Id: id-7\r\nUser-Agent: a\"b\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    let mut stream = EventStream::open(&server.bound, "/events/news", "User-Agent: listener\r\n");
    stream.opening();
    let mut other = server.client();
    other.post("/events/news", "hi");
    assert_eq!(other.answer().status, 200);
    stream.next();
    drop(stream);
    let mut bad = server.client();
    bad.send("GET / HTTP/9.9\r\n\r\n");
    let _ = bad.try_answer(false);
    let all: Vec<Value> =
        eventually_lines(&path, 4).iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    let by_target = |target: &str| all.iter().find(|line| line["target"] == target).unwrap_or(&Value::Null);
    let hello = by_target("/hello");
    assert_eq!((&hello["method"], &hello["status"], &hello["bytes"]), (&"GET".into(), &200.into(), &11.into()));
    assert_eq!(
        (&hello["request_id"], &hello["agent"], &hello["end"]),
        (&"id-7".into(), &"a\"b".into(), &"answered".into())
    );
    assert!(hello["time"].as_str().is_some_and(|time| time.ends_with('Z')) && hello["generation"].is_u64());
    let stream = all.iter().find(|line| line["agent"] == "listener").expect("the subscriber");
    assert_eq!((&stream["status"], &stream["target"]), (&200.into(), &"/events/news".into()));
    assert_eq!(stream["end"], "closed by the client");
    assert!(stream["bytes"].as_u64().is_some_and(|bytes| bytes > 20));
    assert!(all.iter().any(|line| line["end"].as_str().is_some_and(|end| end.starts_with("refused: "))), "{all:#?}");
}

/// Whatever a client sends, it is one line that has the fields of one.
#[test]
fn ten_thousand_forged_requests_leave_one_line_each() {
    let scratch = Scratch::new();
    let path = scratch.path("access");
    let server = serve(&path, RequestLogFormat::Combined);
    let mut random = 1_u64;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let odd =
        [&b"\""[..], b"\\", b"%0a", b"\xff", b"\xc3\xa9", b"a", b"]", b"[", b"- -", b"\t", b"%22", b"<", b"\x80", b"#"];
    let (mut sent, mut client) = (0, server.client());
    while sent < 10_000 {
        let mut piece = |spaces: bool| {
            let all = (0..draw(9)).flat_map(|_| odd[draw(odd.len() as u64) as usize].to_vec());
            all.filter(|byte| spaces || !b" \t".contains(byte)).collect::<Vec<u8>>()
        };
        let (target, agent, referer) = (piece(false), piece(true), piece(true));
        let head = [
            &b"GET /x"[..],
            &target,
            b" HTTP/1.1\r\nHost: x\r\nUser-Agent: z",
            &agent,
            b"z\r\nReferer: z",
            &referer,
            b"z\r\n\r\n",
        ];
        client.send(head.concat());
        sent += 1;
        // A target that is none ends the connection.
        match client.try_answer(false) {
            Ok(answer) if !answer.closes() => {}
            _ => client = server.client(),
        }
    }
    let lines = eventually_lines(&path, sent);
    assert_eq!(lines.len(), sent);
    for line in lines {
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
        assert_eq!(fields(&line).len(), 11, "{line}");
    }
}

/// What clients have counted, through reloads and a stop: a line for each, and none twice.
#[test]
fn under_load_reloads_and_a_stop_lose_no_line() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let path = scratch.path("access");
        let flags =
            ["--access-log", path.to_str().expect("text"), "--reload", mode.name(), "--reload-probation", "0.2"];
        let program = Program::lab(flags);
        let bound = program.listening()[0].clone();
        let load = Load::new().keep_alive(&bound, 8).one_shot(&bound, 2);
        for _ in 0..3 {
            load.go_on_for(300);
            program.reload();
        }
        // Opened anew in between.
        let moved = scratch.path("access.1");
        fs::rename(&path, &moved).expect("moved away");
        program.signal_to(program.current(), Signal::USR1);
        load.go_on_for(300);
        let tally = load.stop();
        assert_eq!(tally.failures, Vec::<String>::new());
        assert_eq!(program.stop(), Some(0));
        let hello =
            |path: &Path| lines(path).iter().filter(|line| line.contains("\"GET /hello HTTP/1.1\" 200 11 ")).count();
        assert_eq!(hello(&path) + hello(&moved), tally.answered, "{mode:?}");
        assert!(hello(&path) > 0 && hello(&moved) > 0);
    }
}

#[test]
fn a_subscriber_that_moved_has_its_line_in_the_generation_that_ends_it() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let path = scratch.path("access");
        let file = scratch.path("handover.toml");
        fs::write(&file, format!("access_log = '{}'\naccess_log_format = 'json'\n", path.display())).expect("a file");
        let flags = ["-c", file.to_str().expect("text"), "--reload", mode.name()];
        let program = Program::lab(flags);
        let mut stream = EventStream::open(&program.listening()[0], "/events/tick", "User-Agent: mover\r\n");
        stream.opening();
        program.reload();
        for _ in 0..5 {
            stream.next();
        }
        drop(stream);
        let mover = |line: &Value| line["agent"] == "mover";
        eventually("its line", || lines(&path).iter().any(|line| line.contains("mover")));
        let all: Vec<Value> = lines(&path).iter().map(|line| serde_json::from_str(line).expect(line)).collect();
        let found: Vec<&Value> = all.iter().filter(|line| mover(line)).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0]["status"], &found[0]["generation"]), (&200.into(), &2.into()));
        assert_eq!(found[0]["version"], "HTTP/1.1");
        assert_eq!(program.stop(), Some(0));
    }
}

/// What a subscriber was sent, whatever way it listens: counted on through reloads.
#[test]
fn a_subscribers_line_says_how_many_messages_it_had() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let path = scratch.path("access");
        let file = scratch.path("handover.toml");
        fs::write(&file, format!("access_log = '{}'\naccess_log_format = 'json'\n", path.display())).expect("a file");
        let flags = ["-c", file.to_str().expect("text"), "--reload", mode.name(), "--reload-probation", "0.1"];
        let program = Program::lab(flags);
        let bound = &program.listening()[0];
        let mut stream = EventStream::open(bound, "/events/news", "User-Agent: stream\r\n");
        stream.opening();
        let mut listener = WebSocket::open_with(bound, "/events/news", "User-Agent: listener\r\n");
        let mut talker = WebSocket::open_with(bound, "/ws/echo", "User-Agent: talker\r\n");
        let mut sessions = Transport::ALL.map(|transport| {
            Session::open_with(bound, "/sockjs/echo", transport, &format!("User-Agent: {transport:?}\r\n"))
        });
        let mut publisher = RawClient::to(bound);
        let publish = |publisher: &mut RawClient, text: &str| {
            publisher.post("/events/news", text);
            assert_eq!(publisher.answer().status, 200);
        };
        for round in 0..3 {
            for number in 0..2 {
                let text = format!("{round}-{number}");
                publish(&mut publisher, &text);
                stream.next();
                assert_eq!(listener.text(), text);
                talker.say(&text);
                assert_eq!(talker.text(), text);
                for session in &mut sessions {
                    session.say(&[&text]);
                    assert_eq!(session.message(), text);
                }
            }
            if round < 2 {
                program.reload();
            }
        }
        drop((stream, listener, talker, sessions));
        // A poll that has something at once, and one that waits.
        let mut poll = RawClient::to(bound);
        let mut asks = |since: &str, agent: &str| {
            let fields = format!("Host: x\r\nAccept: application/json\r\nUser-Agent: {agent}\r\n");
            poll.send(format!("GET /events/news?since={since} HTTP/1.1\r\n{fields}\r\n"));
            if agent == "waits" {
                publish(&mut publisher, "last");
            }
            let answer: Value = serde_json::from_str(poll.answer().text()).expect("JSON");
            (answer["messages"].as_array().map_or(0, Vec::len), answer["last"].as_str().expect("a position").to_owned())
        };
        let (at_once, last) = asks("start", "poll");
        assert_eq!((at_once, asks(&last, "waits").0), (6, 1));
        assert_eq!(program.stop(), Some(0));
        let all: Vec<Value> = lines(&path).iter().map(|line| serde_json::from_str(line).expect(line)).collect();
        let had = |agent: &str| -> Vec<u64> {
            let of = all.iter().filter(|line| line["agent"] == agent);
            of.filter_map(|line| line.get("messages")?.as_u64()).collect()
        };
        for (agent, messages) in [("stream", 6), ("listener", 6), ("talker", 6), ("poll", 6), ("waits", 1)] {
            assert_eq!(had(agent), [messages], "{mode:?}: {agent}");
        }
        for transport in Transport::ALL {
            let had = had(&format!("{transport:?}"));
            assert_eq!(had.iter().sum::<u64>(), 6, "{mode:?}: {transport:?}: {had:?}");
        }
        let mut publishers = all.iter().filter(|line| line["method"] == "POST" && line["target"] == "/events/news");
        assert!(publishers.all(|line| line.get("messages").is_none()), "{mode:?}: {all:#?}");
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_said_before_anything_is_served() {
    let scratch = Scratch::new();
    let path = scratch.path("none/access");
    let output = Program::lab_command().args(["--access-log", path.to_str().expect("text")]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("cannot open access log") && said.contains("its directory does not exist"), "{said}");
}

#[test]
fn stdout_takes_it_as_well() {
    let scratch = Scratch::new();
    let path = scratch.path("stdout");
    let stdout = fs::File::create(&path).expect("a file");
    let mut lab = Program::lab_command();
    let mut lab = lab.args(["-l", "127.0.0.1:0", "--access-log", "-"]).stdout(stdout).spawn().expect("it starts");
    eventually("ready", || lines(&path).iter().any(|line| line.starts_with("ready ")));
    let url = lines(&path).iter().find_map(|line| line.strip_prefix("listening on ").map(str::to_owned));
    let mut client = RawClient::to(&parse_bound(&url.expect("it says so")));
    client.get("/hello");
    assert_eq!(client.answer().status, 200);
    eventually("its line", || lines(&path).iter().any(|line| line.contains("\"GET /hello HTTP/1.1\" 200 11 ")));
    rustix::process::kill_process(rustix::process::Pid::from_child(&lab), Signal::TERM).expect("it runs");
    assert_eq!(lab.wait().expect("its end").code(), Some(0));
}

/// A request that is under way when its end comes, whatever that is: one line, which says so.
#[test]
fn a_request_that_is_cut_has_one_line_however_that_comes() {
    let term = |program: &Program| program.signal_to(program.current(), Signal::TERM);
    let twice = |program: &Program| {
        program.signal(Signal::TERM);
        program.logged("stopping: ");
        // Closer together they are one.
        std::thread::sleep(Duration::from_millis(300));
        program.signal(Signal::TERM);
    };
    let quit = |program: &Program| program.signal(Signal::QUIT);
    let reload = |program: &Program| {
        program.signal(Signal::HUP);
        program.generation(2);
    };
    type Act<'a> = &'a dyn Fn(&Program);
    let ways: [(&str, Mode, Act<'_>); 5] = [
        ("the deadline of a stop", Mode::Exec, &term),
        ("a second signal", Mode::Exec, &twice),
        ("QUIT", Mode::Exec, &quit),
        ("the deadline of a reload by exec", Mode::Exec, &reload),
        ("the deadline of a reload by overlap", Mode::Overlap, &reload),
    ];
    for (way, mode, act) in ways {
        let scratch = Scratch::new();
        let (path, file) = (scratch.path("access"), scratch.path("lab.toml"));
        fs::write(&file, format!("access_log = '{}'\naccess_log_format = 'json'\n", path.display())).expect("a file");
        let deadline = if way == "a second signal" { "30" } else { "0.3" };
        let flags = ["-c", file.to_str().expect("text"), "--reload", mode.name(), "--reload-probation", "0.1"];
        let more = ["--stop-deadline", deadline, "--reload-deadline", "0.5", "--exec-stall", "0.1"];
        let program = Program::lab(flags.iter().chain(&more));
        let mut client = program.client();
        client.send("GET /sleep/60000 HTTP/1.1\r\nHost: x\r\n\r\n");
        // It is in its handler when another that came behind it is answered.
        program.client().expect_alive("/hello");
        act(&program);
        if program.generations() > 1 {
            eventually("its line", || lines(&path).iter().any(|line| line.contains("/sleep/60000")));
            program.stop();
        } else {
            program.exit();
        }
        let all: Vec<Value> = lines(&path).iter().map(|line| serde_json::from_str(line).expect(line)).collect();
        let cut: Vec<&Value> = all.iter().filter(|line| line["target"] == "/sleep/60000").collect();
        assert_eq!(cut.len(), 1, "{way}: {all:#?}");
        assert_eq!(cut[0]["generation"], 1, "{way}");
        assert!(cut[0]["end"].as_str().is_some_and(|end| end != "answered"), "{way}: {}", cut[0]);
    }
}

/// Reset in the middle of a head, of a body and of an answer.
#[test]
fn a_client_that_goes_leaves_one_line() {
    let scratch = Scratch::new();
    let path = scratch.path("access");
    let program = Program::lab(["--access-log", path.to_str().expect("text")]);
    for begun in [
        "GET /half",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
        "GET /stream/100000/1 HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let before = lines(&path).len();
        let mut client = program.client();
        client.send(begun);
        if begun.contains("stream") {
            client.read_at_least(200);
        }
        client.vanish();
        eventually("its line", || lines(&path).len() > before);
    }
    assert_eq!(program.stop(), Some(0));
    let lines = lines(&path);
    assert_eq!(lines.len(), 3, "{lines:#?}");
}

/// A disk that is full, and a reader that has gone: lines are lost and counted, and nobody waits.
#[test]
fn an_access_log_that_takes_nothing_costs_lines_and_no_request() {
    for to in ["/dev/full", "-"] {
        let mut command = Program::lab_command();
        command.args(["-l", "127.0.0.1:0", "--access-log", to]);
        let program = Program::start(&mut command);
        let mut client = program.client();
        for _ in 0..3 {
            client.get("/hello");
            assert_eq!(client.answer().status, 200, "{to}");
        }
        drop(client);
        program.signal(Signal::TERM);
        let exit = program.exit();
        assert_eq!(exit.code, Some(0), "{to}");
        assert!(exit.last().contains("stopped: served=3"), "{exit:?}");
        let lost = exit.log.iter().filter(|line| line.contains("access log"));
        let lost: Vec<&str> = lost.filter_map(|line| line.split("] ").nth(1)).collect();
        let why = "lines of the access log are dropped: No space left on device (os error 28)";
        let wanted = [why, "3 lines of the access log could not be written"];
        assert_eq!(lost, if to == "/dev/full" { &wanted[..] } else { &[] }, "{exit:?}");
    }
}

/// What one process could not write, the next one says where that can be written again: a disk that was full, and an exec.
#[test]
fn lines_that_were_dropped_are_said_by_the_process_that_can_write_again() {
    let scratch = Scratch::new();
    let (path, configuration) = (scratch.path("access"), scratch.path("lab.toml"));
    let log_to = |path: &str| fs::write(&configuration, format!("access_log = '{path}'\n")).expect("a file");
    log_to("/dev/full");
    let program = Program::lab(["-c", configuration.to_str().expect("text"), "--reload", "exec"]);
    let mut client = program.client();
    for _ in 0..3 {
        client.get("/hello");
        assert_eq!(client.answer().status, 200);
    }
    program.logged_times("lines of the access log are dropped: No space left on device", 1);
    log_to(path.to_str().expect("text"));
    program.reload();
    client.get("/hello");
    assert_eq!(client.answer().status, 200);
    let lines = eventually_lines(&path, 2);
    assert!(
        lines[0].contains("\"3 lines before this one were dropped\"") && lines[1].contains("GET /hello"),
        "{lines:#?}"
    );
    client.send("GET /-/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let metrics = client.answer();
    assert!(metrics.text().contains("handover_access_log_dropped_lines_total 3\n"), "{}", metrics.text());
    program.logged_times("the access log is written again; 3 of its lines were dropped", 1);
    assert!(!metrics.text().contains("unsaid"), "{}", metrics.text());
    assert_eq!(program.stop(), Some(0));
    assert_eq!(lines.len(), 2, "{lines:#?}");
}

/// The two signals of logrotate and of an upgrade, as close as they can be.
#[test]
fn a_file_that_is_moved_during_a_reload_loses_no_line() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let path = scratch.path("access");
        let flags =
            ["--access-log", path.to_str().expect("text"), "--reload", mode.name(), "--reload-probation", "0.1"];
        let program = Program::lab(flags);
        let bound = program.listening()[0].clone();
        let load = Load::new().keep_alive(&bound, 4);
        let mut files = vec![path.clone()];
        for round in 0..4 {
            load.go_on_for(100);
            let (generations, current) = (program.generations(), program.current());
            let moved = scratch.path(&format!("access.{round}"));
            program.signal_to(current, Signal::HUP);
            // Removed, where others move it: what is written there is lost with it, and nothing else.
            fs::rename(&path, &moved).expect("moved away");
            files.push(moved);
            program.signal_to(current, Signal::USR1);
            program.generation(generations + 1);
            program.signal_to(program.current(), Signal::USR1);
            eventually("a new file", || path.exists());
        }
        let tally = load.stop();
        assert_eq!(tally.failures, Vec::<String>::new());
        assert_eq!(program.stop(), Some(0));
        let hello =
            |path: &PathBuf| lines(path).iter().filter(|line| line.contains("\"GET /hello HTTP/1.1\" 200 ")).count();
        assert_eq!(files.iter().map(hello).sum::<usize>(), tally.answered, "{mode:?}");
    }
}

#[test]
fn one_file_for_two_is_refused_with_its_place() {
    let scratch = Scratch::new();
    let file = scratch.path("handover.toml");
    for (one, other) in [("log_file", "access_log"), ("pid_file", "access_log"), ("pid_file", "log_file")] {
        fs::write(&file, format!("{one} = 'x'\n{other} = './x'\n")).expect("a file");
        for flags in [&["--check"][..], &[]] {
            let output = Program::handover_command().arg("-c").arg(&file).args(flags).output().expect("it runs");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let place = format!("handover.toml:2:{}: {other} is ", other.len() + 4);
            assert_eq!(output.status.code(), Some(78), "{said}");
            assert!(said.contains(&place) && said.contains(&format!("which is the {one} as well")), "{said}");
        }
        assert!(!scratch.path("x").exists(), "nothing was begun");
    }
}
