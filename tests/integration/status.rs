//! What the server says of itself: metrics, the status page and its stream; and that they go on through reloads.

use crate::common::{
    Answer, EventStream, Gate, Load, Mode, OnDisk, Program, RawClient, Scratch, TestServer, eventually, gated, hello,
    lab, reloading,
};
use handover::{Bound, Config, Handler, IntoResponse, Request, Response, Server, StatusAccess};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Asks as a client of this host does.
fn ask(client: &mut RawClient, target: &str, fields: &str) -> Answer {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).answer()
}

fn look(bound: &Bound, target: &str) -> String {
    let answer = ask(&mut RawClient::to(bound), target, "");
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    answer.text().to_owned()
}

fn status(bound: &Bound) -> Value {
    serde_json::from_str(&look(bound, "/-/status.json")).expect("JSON")
}

/// Each series with its number, of counters and of the parts of histograms and summaries alone, or of gauges as well.
fn metrics(page: &str, gauges: bool) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    let mut kind = "";
    for line in page.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            kind = family.split(' ').nth(1).expect("a type");
        } else if !line.starts_with('#') && (gauges || kind != "gauge") {
            let (series, number) = line.rsplit_once(' ').expect("a series and its number");
            assert!(all.insert(series.to_owned(), number.parse().expect("a number")).is_none(), "{series} twice");
        }
    }
    all
}

fn number(page: &str, series: &str) -> f64 {
    metrics(page, true).get(series).copied().unwrap_or_else(|| panic!("no {series} in {page}"))
}

fn requests(page: &str) -> f64 {
    let all = metrics(page, false);
    all.iter().filter(|(series, _)| series.starts_with("handover_http_requests_total{")).map(|(_, count)| count).sum()
}

#[test]
fn who_may_look_is_of_this_host_unless_it_is_said_otherwise() {
    let server = TestServer::start(Server::builder().service(hello()));
    for path in ["/-/metrics", "/-/status", "/-/status.json"] {
        let mut client = server.client();
        assert_eq!(ask(&mut client, path, "").status, 200, "{path}");
        for fields in ["X-Forwarded-For: 192.0.2.1\r\n", "Via: 1.1 proxy\r\n", "Origin: http://localhost\r\n"] {
            assert_eq!(ask(&mut client, path, fields).status, 403, "{path} {fields}");
        }
        client.send(format!("GET {path} HTTP/1.1\r\nHost: example.org\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("Cache-Control")), (403, Some("no-store")), "{path}");
        assert!(answer.text().contains("status_token_file"), "{}", answer.text());
        client.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(client.answer().status, 405, "{path}");
        client.send(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.answer().status, 403, "{path} by a proxy's HTTP");
    }
    let config = Config { status: StatusAccess::Nobody, ..Config::default() };
    let server = TestServer::start(Server::builder().config(config).service(hello()));
    for path in ["/-/metrics", "/-/status", "/-/status.json", "/-/status/events"] {
        assert_eq!(ask(&mut server.client(), path, "").status, 404, "{path}: it is the application's to answer");
    }
    assert_eq!(ask(&mut server.client(), "/-/ready", "").status, 200);
    let config = Config { status_routes: false, ..Config::default() };
    let server = TestServer::start(Server::builder().config(config).service(hello()));
    assert_eq!(ask(&mut server.client(), "/-/metrics", "").status, 404);
    let config = Config { status: StatusAccess::Anyone, ..Config::default() };
    let server = TestServer::start(Server::builder().config(config).service(hello()));
    assert_eq!(server.client().get("/-/metrics").answer().status, 200);
}

#[test]
fn a_token_lets_in_from_anywhere() {
    let scratch = Scratch::new();
    let file = scratch.path("token");
    fs::write(&file, "0123456789abcdef\n").expect("a file");
    let config = Config { status: StatusAccess::Nobody, status_token_file: Some(file.clone()), ..Config::default() };
    let server = TestServer::start(Server::builder().config(config.clone()).service(hello()));
    let ask = |target: &str, fields: &str| {
        server.client().send(format!("GET {target} HTTP/1.1\r\nHost: example.org\r\n{fields}\r\n")).answer()
    };
    let answer = ask("/-/metrics", "");
    assert_eq!((answer.status, answer.header("WWW-Authenticate")), (401, Some("Bearer realm=\"status\"")));
    for fields in
        ["Authorization: Bearer 0123456789abcdeg\r\n", "Authorization: Basic x\r\n", "Authorization: Bearer\r\n"]
    {
        assert_eq!(ask("/-/metrics", fields).status, 401, "{fields}");
    }
    assert_eq!(ask("/-/metrics", "Authorization: Bearer 0123456789abcdef\r\n").status, 200);
    assert_eq!(ask("/-/status.json?token=0123456789abcdef", "").status, 200);
    for (bad, what) in [("short", "16 or more"), ("", "16 or more"), ("0123456789 abcdef", "allowed is one token")] {
        fs::write(&file, bad).expect("a file");
        let error = Server::builder().config(config.clone()).service(hello()).build().err().expect(bad).to_string();
        assert!(error.contains("status_token_file") && error.contains(what) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn what_happens_is_counted() {
    let server = TestServer::start(
        Server::builder().service(hello().get("/panic", |_: &mut Request| -> &str { panic!("as asked for") })),
    );
    for (target, status) in [("/hello", 200), ("/hello", 200), ("/nothing", 404), ("/panic", 500)] {
        assert_eq!(server.client().get(target).answer().status, status);
    }
    server.client().send("BREW / HTTP/1.1\r\nHost: x\r\n\r\n").answer();
    server.client().send("GET / HTTP/9.9\r\n\r\n").answer();
    server.client().vanish();
    eventually("all of it", || {
        let page = look(&server.bound, "/-/metrics");
        let all = metrics(&page, true);
        let is = |series: &str, count: f64| all.get(series) == Some(&count);
        is("handover_http_requests_total{method=\"GET\",status=\"4xx\"}", 1.0)
            && is("handover_http_requests_total{method=\"GET\",status=\"5xx\"}", 1.0)
            && is("handover_http_requests_total{method=\"other\",status=\"5xx\"}", 1.0)
            && is("handover_http_requests_total{method=\"none\",status=\"5xx\"}", 1.0)
            && is("handover_http_requests_refused_total{reason=\"version\"}", 1.0)
            && is("handover_handler_panics_total", 1.0)
            && all.contains_key("handover_connections_closed_total{reason=\"peer_closed\"}")
            && is("handover_connections{state=\"running\"}", 1.0)
            && is("handover_generation", 1.0)
            && is("handover_ready", 1.0)
    });
    let page = look(&server.bound, "/-/metrics");
    assert_eq!(number(&page, "handover_http_request_duration_seconds_count"), requests(&page), "all were answered");
    assert!(page.ends_with('\n') && !page.contains("NaN"));
}

/// A counter of an application's own stands beside ours.
#[test]
fn an_application_counts_as_well() {
    #[derive(Default)]
    struct Printer(AtomicUsize);
    impl Handler for Printer {
        fn handle(&self, _: &mut Request) -> Response {
            self.0.fetch_add(1, Ordering::Relaxed);
            "printed\n".into_response()
        }

        fn counters(&self) -> Vec<(String, u64)> {
            let jobs = self.0.load(Ordering::Relaxed) as u64;
            vec![("printer_jobs_total{tray=\"1\"}".into(), jobs), ("printer_jobs_total{tray=\"2\"}".into(), 0)]
        }
    }
    let server = TestServer::start(Server::builder().service(Printer::default()));
    assert_eq!(server.client().get("/").answer().status, 200);
    let page = look(&server.bound, "/-/metrics");
    assert_eq!(page.matches("# TYPE printer_jobs_total counter\n").count(), 1, "{page}");
    assert_eq!(number(&page, "printer_jobs_total{tray=\"1\"}"), 1.0);
}

/// While every worker is busy it is said what they do.
#[test]
fn a_server_that_is_stuck_says_in_what() {
    let (gate, routes): (Gate, _) = gated();
    let server = TestServer::start(Server::builder().workers(2).service(routes));
    let stuck: Vec<RawClient> = (0..2).map(|_| server.client_at(&gate)).collect();
    let seen = status(&server.bound);
    let busy: Vec<&Value> =
        seen["threads"].as_array().expect("a list").iter().filter(|one| one["request"] == "GET /gate").collect();
    assert_eq!(busy.len(), 2, "{seen}");
    assert!(busy.iter().all(|one| one["age"].is_f64()));
    assert_eq!(number(&look(&server.bound, "/-/metrics"), "handover_workers_busy"), 2.0);
    drop(stuck);
    gate.open();
}

/// Twenty reloads under load: no counter falls, for whoever asks on one connection or on a new one each time, and in the
/// end there are as many requests as lines in the request log.
#[test]
fn counters_go_on_through_reloads_and_agree_with_the_request_log() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let path = scratch.path("access");
        let program = lab(mode, &scratch, &["--access-log", path.to_str().expect("text")]);
        let bound = program.bound[0].clone();
        let load = Load::new().keep_alive(&bound, 4).one_shot(&bound, 1);
        let mut stays = RawClient::to(&bound);
        let (mut last, mut last_new) = (BTreeMap::new(), BTreeMap::new());
        let reloads = crate::common::count("HANDOVER_RELOADS", 20);
        for _ in 0..reloads {
            load.go_on_for(50);
            program.reload();
            for _ in 0..3 {
                let now = metrics(ask(&mut stays, "/-/metrics", "").text(), false);
                let new = metrics(&look(&bound, "/-/metrics"), false);
                for (before, now) in [(&last, &now), (&last_new, &new)] {
                    let fell = before.iter().find(|(series, count)| now.get(*series).is_none_or(|now| now < count));
                    assert!(fell.is_none(), "{mode:?}: {fell:?}");
                }
                (last, last_new) = (now, new);
            }
        }
        assert_eq!(load.stop().failures, Vec::<String>::new());
        drop(stays);
        let lines = || fs::read_to_string(&path).unwrap_or_default().lines().count() as f64;
        // This question is no line before it is answered, and no request either.
        eventually("as many requests as lines", || {
            let page = look(&bound, "/-/metrics");
            let counted = requests(&page);
            eventually("its line", || lines() > counted);
            lines() == counted + 1.0
        });
        let page = look(&bound, "/-/metrics");
        let outcome = format!("handover_reloads_total{{mode=\"{}\",outcome=\"succeeded\"}}", mode.name());
        assert_eq!(number(&page, &outcome), reloads as f64);
        assert_eq!(number(&page, "handover_generation"), reloads as f64 + 1.0);
        let seen = status(&bound);
        assert_eq!(seen["last_reloads"].as_array().map(Vec::len), Some(10));
        assert_eq!(seen["last_reloads"][0]["generation"], Value::from(reloads + 1));
        assert_eq!(program.stop(), Some(0));
    }
}

#[test]
fn a_reload_that_came_to_nothing_is_listed_with_its_reason() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let on_disk = OnDisk::of(&Program::lab_command());
        let mut command = on_disk.command();
        let program = Program::start(reloading(&mut command, mode, &scratch).env("LAB_TRAP", scratch.path("trap")));
        on_disk.replace("echo no >&2; exit 3");
        program.signal(rustix::process::Signal::HUP);
        program.logged_times("reload failed, serving on", 1);
        on_disk.restore();
        // The program that was executed has gone, and this one has come back.
        fs::write(scratch.path("trap"), "panic").expect("a file");
        program.signal(rustix::process::Signal::HUP);
        program.logged_times("reload failed, serving on", 2);
        fs::remove_file(scratch.path("trap")).expect("it is there");
        program.reload();
        let bound = &program.bound[0];
        eventually("all three", || status(bound)["last_reloads"].as_array().map(Vec::len) == Some(3));
        let seen = status(bound);
        let outcomes: Vec<&str> = seen["last_reloads"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["outcome"].as_str().expect("text"))
            .collect();
        assert_eq!(outcomes, ["succeeded", "failed", "failed"], "{mode:?}: {seen}");
        assert!(seen["last_reloads"][2]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{seen}");
        let page = look(bound, "/-/metrics");
        let failed = format!("handover_reloads_total{{mode=\"{}\",outcome=\"failed\"}}", mode.name());
        assert_eq!(number(&page, &failed), 2.0);
        assert_eq!(number(&page, "handover_reload_last_success"), 1.0);
    }
}

/// The program alone, whose hub is there for the page, and an application with one of its own.
#[test]
fn the_stream_of_the_page_goes_on_through_reloads() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        fs::write(scratch.path("index.html"), "home").expect("a file");
        let mut command = Program::handover_command();
        mode.flags(&mut command).args(["-l", "127.0.0.1:0"]).arg(scratch.path(""));
        for program in [Program::start(&mut command), lab(mode, &scratch, &[])] {
            let bound = program.bound[0].clone();
            let mut client = RawClient::to(&bound);
            client.send("GET /-/status/events?since=start HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let mut stream = EventStream::answered(client);
            let port = stream.client.local_port();
            for generation in 1..=3 {
                let mut seen = 0;
                while seen < 2 {
                    let event = stream.event();
                    let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else { continue };
                    let Ok(sample) = serde_json::from_str::<Value>(data) else { panic!("{event}") };
                    // A gap says so in another form.
                    seen += usize::from(sample["generation"] == generation);
                }
                if generation < 3 {
                    program.reload();
                }
            }
            assert_eq!(stream.client.local_port(), port);
            drop(stream);
            assert_eq!(program.stop(), Some(0));
        }
    }
}

/// On one connection, and no number falls; the page itself says which generation it is of, and is another one then.
#[test]
fn the_welcome_page_and_its_figures_go_on_through_reloads() {
    for mode in Mode::BOTH {
        let program = Program::start(mode.flags(&mut Program::handover_command()).args(["-l", "127.0.0.1:0"]));
        let bound = program.bound[0].clone();
        let mut stream = EventStream::open(&bound, "/-/figures/figures?since=last", "");
        let mut visitor = program.client();
        let (mut before, mut tag) = (Value::Null, "\"none\"".to_owned());
        for generation in 1..=3 {
            // By overlap connections still move when the next generation serves.
            loop {
                let event = stream.event();
                let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else { continue };
                let figures: Value = serde_json::from_str(data).expect("JSON");
                for name in ["generation", "requests", "connections", "moved", "cut"] {
                    let number = |figures: &Value| figures[name].as_u64();
                    assert!(number(&figures) >= number(&before), "{mode:?}, {name}: {before}, then {figures}");
                }
                before = figures;
                if before["generation"] == generation && before["moved"].as_u64() >= Some(2 * (generation - 1)) {
                    break;
                }
            }
            assert_eq!((&before["cut"], before["pid"].as_u64()), (&Value::from(0), Some(program.current().into())));
            let asked = format!("GET / HTTP/1.1\r\nHost: test\r\nIf-None-Match: {tag}\r\n\r\n");
            let answer = visitor.send(asked).answer();
            let page = answer.text();
            assert!(page.contains(&format!("kill -HUP <span class=\"pid\">{}<", program.current())), "{page}");
            assert!(page.contains(&format!("generation <b id=\"generation\">{generation}</b>")), "{page}");
            tag = answer.header("ETag").expect("a tag").to_owned();
            let again = format!("GET / HTTP/1.1\r\nHost: test\r\nIf-None-Match: {tag}\r\n\r\n");
            assert_eq!(visitor.send(again).answer().status, 304);
            if generation < 3 {
                program.reload();
            }
        }
        drop((stream, visitor));
        assert_eq!(program.stop(), Some(0));
    }
}

/// Its figures were there for whoever knew the URL, whatever the settings said.
#[test]
fn the_welcome_page_of_a_server_that_says_nothing_of_itself_has_no_figures() {
    for (settings, figures) in [("", true), ("status_routes = false\n", false), ("status = 'nobody'\n", false)] {
        let scratch = Scratch::new();
        std::fs::write(scratch.path("handover.toml"), settings).expect("a file");
        let config = scratch.path("handover.toml");
        let program = Program::start(Program::handover_command().args(["-l", "127.0.0.1:0", "-c"]).arg(config));
        let mut client = program.client();
        client.send("GET /-/figures/figures?wait=0 HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n");
        assert_eq!(client.answer().status, if figures { 200 } else { 404 }, "{settings}");
        let page = client.get("/").answer();
        assert_eq!((page.status, page.text().contains("data-stream")), (200, figures), "{settings}");
    }
}

/// `handover top`, over a socket and over TCP.
#[test]
fn the_terminal_shows_the_same() {
    let scratch = Scratch::new();
    let program = lab(Mode::Exec, &scratch, &[]);
    let top = |arguments: &[&str]| {
        let output = Program::handover_command().arg("top").args(arguments).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let socket = format!("unix:{}", scratch.path("socket").display());
    program.reload();
    let port = program.bound[0].to_string().rsplit(':').next().expect("a port").to_owned();
    for address in [socket.clone(), format!("127.0.0.1:{port}")] {
        let (code, shown, said) = top(&[&address, "--once"]);
        assert_eq!((code, &*said), (Some(0), ""), "{shown}");
        for part in [
            "  serving  generation 2  process ",
            "\nrequests     ",
            " of 768 subscribers",
            "\nworker-0 ",
            "exec     succeeded",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
    assert_eq!(program.stop(), Some(0));
    let (code, shown, said) = top(&[&socket, "--once"]);
    assert!(
        code == Some(1) && shown.is_empty() && said.starts_with("handover top: cannot ask the server at unix:"),
        "{said}"
    );
    let config = Config { status: StatusAccess::Nobody, ..Config::default() };
    let server = TestServer::start(Server::builder().config(config).service(hello()));
    let port = server.bound.to_string().rsplit(':').next().expect("a port").to_owned();
    let (code, _, said) = top(&[&format!("127.0.0.1:{port}")]);
    assert!(code == Some(1) && said.contains("its status is \"nobody\""), "{said}");
    assert!(top(&["--help"]).1.starts_with("Usage: handover top"));
    assert_eq!(top(&["nowhere"]).0, Some(2));
}

/// It was counted once more by each generation behind the one that had cut it.
#[test]
fn what_a_reload_has_cut_is_counted_once() {
    let scratch = Scratch::new();
    let program = lab(Mode::Overlap, &scratch, &["--reload-deadline", "0.5"]);
    let bound = program.bound[0].clone();
    let mut client = RawClient::to(&bound);
    client.get("/sleep/30000");
    eventually("it is in its handler", || look(&bound, "/-/status.json").contains("/sleep/30000"));
    for _ in 0..3 {
        program.reload();
        eventually("it is cut, once", || {
            number(&look(&bound, "/-/metrics"), "handover_http_requests_cut_total") == 1.0
        });
    }
    assert_eq!(program.stop(), Some(0));
}
