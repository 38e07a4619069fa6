//! What an application is written with: layers, extensions, answers, and the clients of its tests.

use crate::common::{Gate, Mode, OnDisk, Program, Scratch, TestServer, eventually, run_to_its_end};
use handover::test::{Client, Server};
use handover::{
    Body, Carried, Config, Conversation, Handler, Hub, Incoming, IntoResponse, Json, Next, Redirect, Rejection,
    Request, Response, Router, Site, StatusCode,
};
use rustix::process::Signal;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a newcomer copies, with its tests.
#[path = "../../examples/items.rs"]
#[expect(dead_code, reason = "main is the program's")]
mod items_example;

/// A layer that adds its name to the field X-Seen of the answer, which has the innermost first.
fn seen(name: &'static str) -> impl Fn(&mut Request, Next<'_>) -> Response + Send + Sync {
    move |request, next| {
        let response = next.run(request);
        let before = response.headers().iter().find(|header| header.field.equiv("X-Seen"));
        let all = before.map(|header| header.value.to_string()).unwrap_or_default() + name;
        ([("X-Seen", all)], response).into_response()
    }
}

fn everything() -> Router {
    let mounted = Router::new().get("/mounted/a", |_| "mounted\n").layer(seen("m"));
    Router::new()
        .layer(seen("1"))
        .get("/item/{id}", |request: &mut Request| request.param("id").map(str::to_owned))
        .post("/item/{id}", |_| StatusCode(201))
        .mount_service("/mounted", mounted)
        .layer(seen("2"))
}

#[test]
fn layers_are_around_all_that_a_router_answers_in_the_order_in_which_they_are_written() {
    let server = Server::start(handover::Server::builder().service(everything()).layer(seen("b"))).expect("a server");
    for (method, target, status, layers) in [
        ("GET", "/item/1", 200, "21b"),
        ("HEAD", "/item/1", 200, "21b"),
        ("DELETE", "/item/1", 405, "21b"),
        ("OPTIONS", "/item/1", 204, "21b"),
        ("GET", "/nowhere", 404, "21b"),
        ("BREW", "/nowhere", 501, "21b"),
        ("GET", "/mounted/a", 200, "m21b"),
        ("GET", "/mounted/b", 404, "m21b"),
    ] {
        let answer = server.request(method, target).send();
        assert_eq!((answer.status(), answer.header("X-Seen")), (status, Some(layers)), "{method} {target}");
    }
    assert_eq!(server.get("/-/ready").send().header("X-Seen"), None, "what the server answers itself");
}

#[test]
fn what_says_something_without_a_request_says_the_same_with_layers() {
    struct Counting;
    impl Handler for Counting {
        fn handle(&self, _: &mut Request) -> Response {
            ().into_response()
        }
        fn body_limit(&self, _: &Request) -> Option<u64> {
            Some(3)
        }
        fn allow(&self, _: &Request) -> Option<String> {
            Some("BREW".to_owned())
        }
        fn describe(&self) -> Vec<String> {
            vec!["/coffee BREW".to_owned()]
        }
        fn counters(&self) -> Vec<(String, u64)> {
            vec![("pots_total".to_owned(), 7)]
        }
    }
    let head = Request::from_head(b"BREW /coffee HTTP/1.1\r\nHost: test\r\n\r\n").expect("a head");
    let brew = "BREW".parse().expect("a token");
    let through = [
        Box::new(Counting.layer(seen("1"))) as Box<dyn Handler>,
        Box::new(Router::new().fallback(Counting).layer(seen("1"))),
        Box::new(Router::new().mount_service("/coffee", Counting).layer(seen("1"))),
        Box::new(Router::new().service(brew, "/coffee", Counting).layer(seen("1"))),
    ];
    for (number, handler) in through.iter().enumerate() {
        let says = (handler.body_limit(&head), handler.allow(&head).is_some_and(|allow| allow.contains("BREW")));
        assert_eq!(says, (Some(3), true), "{number}");
        assert_eq!(handler.counters(), [("pots_total".to_owned(), 7)], "{number}");
        assert!(handler.describe().concat().starts_with("/coffee"), "{number}: {:?}", handler.describe());
    }
}

#[test]
fn a_layer_that_panics_costs_one_request_and_no_worker() {
    let panics = |request: &mut Request, next: Next<'_>| -> Response {
        match request.query() {
            Some("before") => std::panic::resume_unwind(Box::new("as asked for")),
            Some("behind") => {
                next.run(request);
                std::panic::resume_unwind(Box::new("as asked for"))
            }
            _ => next.run(request),
        }
    };
    let router = Router::new().get("/", |_| "hello\n").layer(panics);
    let server = TestServer::start(handover::Server::builder().workers(1).service(router));
    let mut client = server.client();
    for _ in 0..20 {
        for (target, status) in [("/?before", 500), ("/?behind", 500), ("/", 200)] {
            client.get(target);
            assert_eq!(client.answer().status, status, "{target}");
        }
    }
}

/// Says when it is dropped, and panics then if it is to.
struct Guard(Arc<AtomicUsize>, bool);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        if self.1 {
            std::panic::resume_unwind(Box::new("as asked for"));
        }
    }
}

/// A connection to a database that a layer lends a request would have been kept until the thread had another.
#[test]
fn what_a_layer_leaves_with_a_request_is_dropped_before_the_answer() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let guards = dropped.clone();
    let lend = move |request: &mut Request, next: Next<'_>| -> Response {
        let panics = request.query() == Some("drop");
        request.extensions_mut().insert(Guard(guards.clone(), panics));
        next.run(request)
    };
    let answer = |request: &mut Request| {
        assert!(request.extensions().get::<Guard>().is_some());
        match request.query() {
            Some("panic") => std::panic::resume_unwind(Box::new("as asked for")),
            _ => "hello\n",
        }
    };
    let router = Router::new().get("/", answer).layer(lend);
    let server = TestServer::start(handover::Server::builder().workers(1).service(router));
    let mut client = server.client();
    for (count, (target, status)) in (1..).zip([("/", 200), ("/?panic", 500), ("/?drop", 500), ("/", 200)]) {
        client.get(target);
        assert_eq!((client.answer().status, dropped.load(Ordering::SeqCst)), (status, count), "{target}");
    }
}

/// What a site or a hub had prepared was not among the headers, and stood beside what was to take its place.
#[test]
fn a_layer_sees_and_replaces_the_fields_of_files_and_of_polls() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("site")).expect("a directory");
    std::fs::write(scratch.path("site/a.css"), "p {}").expect("a file");
    let config = Config { root: Some(scratch.path("site")), ..Config::default() };
    let hub = Hub::new();
    let router = Router::new()
        .mount_service("/events", hub.namespace("events").service())
        .fallback(Site::open(&config).expect("a site"))
        .layer(|request: &mut Request, next: Next<'_>| {
            let response = next.run(request);
            let types = response.headers().iter().filter(|header| header.field.equiv("Content-Type")).count();
            ([("X-Types", types.to_string()), ("Content-Type", "text/x".into())], response)
        });
    let server = TestServer::start(handover::Server::builder().hub(&hub).service(router));
    let mut client = server.client();
    for target in ["/a.css", "/events/a?wait=0"] {
        // The first makes what the others are given.
        for _ in 0..4 {
            client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n"));
            let answer = client.answer();
            let types = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-type"));
            let types: Vec<&str> = types.map(|(_, value)| value.as_str()).collect();
            assert_eq!((answer.status, answer.header("X-Types"), types), (200, Some("1"), vec!["text/x"]), "{target}");
        }
    }
}

/// A poll that had waited said when it was answered beside what a layer had said.
#[test]
fn a_poll_that_waits_has_one_date() {
    let hub = Hub::new();
    let events = hub.namespace("events");
    let router =
        Router::new().mount_service("/events", events.service()).layer(|request: &mut Request, next: Next<'_>| {
            ([("date", "Sun, 06 Nov 1994 08:49:37 GMT")], next.run(request))
        });
    let server = TestServer::start(handover::Server::builder().hub(&hub).service(router));
    let mut client = server.client();
    client.send("GET /events/a HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n");
    eventually("it listens", || events.listeners("a") == 1);
    events.publish("a", "x").expect("it serves");
    let answer = client.answer();
    let dates = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("date"));
    assert_eq!((answer.status, dates.count()), (200, 1), "{answer:?}");
}

/// Hears everybody, and says nothing.
struct Silent;

impl Conversation for Silent {
    type State = ();

    fn open(&self, _: &handover::Client, _: &mut Request) -> Result<(), Response> {
        Ok(())
    }

    fn message(&self, _: &handover::Client, (): &mut (), _: Incoming<'_>) {}

    fn save(&self, (): &()) -> Carried {
        Carried { version: 1, bytes: Vec::new() }
    }

    fn restore(&self, _: &handover::Client, _: Carried) -> Option<()> {
        Some(())
    }
}

/// A layer that puts a status before every answer left a head behind which nothing ever came, and the next response was its
/// content.
#[test]
fn a_stream_or_a_websocket_with_another_status_is_a_500_and_the_connection_goes_on() {
    let hub = Hub::new();
    let events = hub.namespace("events");
    let room = hub.conversation("room", Silent);
    let says = |request: &mut Request, next: Next<'_>| {
        let status = request.query_param("status").and_then(|status| status.parse().ok()).unwrap_or(200);
        (StatusCode(status), next.run(request))
    };
    let router = Router::new()
        .layer(says)
        .get("/", |_| "hello\n")
        .get("/room", room.websocket())
        .mount_service("/sockjs", room.sockjs())
        .mount_service("/events", events.service());
    let server = TestServer::start(handover::Server::builder().hub(&hub).service(router));
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (line, fields) in [
        ("GET /events/a?status=202", ""),
        ("GET /events/a?status=404", "Accept: application/json\r\n"),
        ("GET /room", websocket),
        ("GET /room?status=404", websocket),
        ("POST /sockjs/0/a/xhr_streaming?status=206", "Content-Length: 0\r\n"),
    ] {
        let mut client = server.client();
        client.send(format!("{line} HTTP/1.1\r\nHost: test\r\n{fields}\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n"));
        let (refused, next) = (client.answer(), client.answer());
        assert_eq!((refused.status, next.status, next.text()), (500, 200, "hello\n"), "{line}");
    }
}

/// Who rewrites a path by a request of its own answered HEAD with content, or kept a connection of which the client waited for
/// the end.
#[test]
fn a_request_that_a_layer_exchanges_is_answered_as_the_one_that_came() {
    let rewrite = |request: &mut Request, next: Next<'_>| -> Response {
        if let Some(line) = request.query_param("as") {
            *request = Request::from_head(format!("{line}\r\nHost: test\r\n\r\n").as_bytes()).expect("a head");
        }
        next.run(request)
    };
    let routes = || Router::new().get("/", |_| "hello\n").get("/a", |_| "of a\n").layer(rewrite);
    let (server, client) = (TestServer::start(handover::Server::builder().service(routes())), Client::new(routes()));
    let target = "/?as=GET%20/a%20HTTP/1.1";
    assert_eq!(client.head(target).send().bytes(), b"");
    let mut raw = server.client();
    raw.send(format!("HEAD {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    let head = raw.answer_to_head();
    assert_eq!((head.status, head.header("Content-Length")), (200, Some("5")));
    raw.send("GET /?as=HEAD%20/a%20HTTP/1.0 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(raw.answer().text(), "of a\n");
    raw.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
    assert!(raw.answer().closes());
}

fn answers() -> Router {
    fn add(request: &mut Request) -> Result<Json<u64>, Rejection> {
        let numbers: Vec<u64> = request.json()?;
        Ok(Json(numbers.iter().sum()))
    }
    fn fails(request: &mut Request) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let number: u32 = request.param_as("number")?;
        Ok(format!("{}\n", std::fs::read_to_string(format!("/nowhere/{number}"))?))
    }
    Router::new()
        .get("/text", |_| "hello\n")
        .get("/nothing", |_| ())
        .get("/reset", |_| StatusCode(205))
        .get("/chunks", |_| Body::reader(&b"read"[..], None))
        .get("/short", |_| Body::reader(&b"read"[..], Some(10)))
        .get("/pushed", |_| Body::stream(|writer| writer.write_all(b"pushed")))
        .get("/empty", |_| Body::stream(|_| Ok(())))
        .get("/panic", |_| -> () { std::panic::resume_unwind(Box::new("as asked for")) })
        .get("/split", |_| ([("X-A", "b\r\nX-C: d")], "never"))
        .get("/status/{status}", |request: &mut Request| request.param_as::<u16>("status").map(StatusCode))
        .get("/moved", |_| Redirect::permanent("/text"))
        .get("/fails/{number}", fails)
        .post("/add", add)
        .max_body(100)
        .post("/echo", |request: &mut Request| request.body_bytes().map(|body| (StatusCode(201), body)))
}

/// Whatever a request is, the client without a socket gets for it what a server sends.
#[test]
fn the_client_of_a_handler_is_answered_as_one_of_a_server() {
    let (client, server) = (
        Client::new(answers()),
        Server::start(handover::Server::builder().status_routes(false).service(answers())).expect("a server"),
    );
    let chunked = "Transfer-Encoding: chunked";
    let long = "x".repeat(20_000);
    let requests = [
        ("GET /text HTTP/1.1", "", ""),
        ("HEAD /text HTTP/1.1", "", ""),
        ("HEAD /pushed HTTP/1.1", "", ""),
        ("OPTIONS /text HTTP/1.1", "", ""),
        ("OPTIONS * HTTP/1.1", "", ""),
        ("TRACE /text HTTP/1.1", "", ""),
        ("PUT /text HTTP/1.1", "", ""),
        ("GET /none HTTP/1.1", "", ""),
        ("GET /none HTTP/1.1", "Accept: text/html,*/*;q=0.8", ""),
        ("HEAD /none HTTP/1.1", "Accept: text/html", ""),
        ("POST /text HTTP/1.1", "Accept: text/html", ""),
        ("GET /panic HTTP/1.1", "Accept: text/html", ""),
        ("GET /status/507 HTTP/1.1", "Accept: text/html", ""),
        ("POST /add HTTP/1.1", "Accept: text/html\r\nContent-Length: 101", ""),
        ("BREW /text HTTP/1.1", "Accept: text/html", ""),
        ("GET /nothing HTTP/1.1", "", ""),
        ("GET /reset HTTP/1.1", "", ""),
        ("GET /chunks HTTP/1.1", "", ""),
        ("GET /chunks HTTP/1.0", "", ""),
        ("GET /short HTTP/1.1", "", ""),
        ("GET /pushed HTTP/1.1", "", ""),
        ("GET /empty HTTP/1.1", "", ""),
        ("GET /panic HTTP/1.1", "", ""),
        ("GET /split HTTP/1.1", "", ""),
        ("GET /status/101 HTTP/1.1", "", ""),
        ("GET /status/404 HTTP/1.1", "", ""),
        ("GET /status/x HTTP/1.1", "", ""),
        ("GET /moved HTTP/1.1", "", ""),
        ("GET /fails/x HTTP/1.1", "", ""),
        ("GET /fails/1 HTTP/1.1", "", ""),
        ("POST /add HTTP/1.1", "Content-Type: application/json\r\nContent-Length: 5", "[1,2]"),
        ("POST /add HTTP/1.1", "Content-Type: application/json\r\nContent-Length: 5", "[1,-]"),
        ("POST /add HTTP/1.1", "Content-Type: text/plain\r\nContent-Length: 5", "[1,2]"),
        ("POST /add HTTP/1.1", "Content-Length: 101", ""),
        ("POST /echo HTTP/1.1", chunked, "3\r\nabc\r\n0\r\n\r\n"),
        ("POST /echo HTTP/1.1", chunked, "x\r\n"),
        ("POST /echo HTTP/1.1", "Content-Length: +3", "abc"),
        ("POST /echo HTTP/1.1", "Content-Length: 3\r\nContent-Length: 3", "abc"),
        ("POST /echo HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 3", "abc"),
        ("GET /text HTTP/2.0", "", ""),
        ("GET  /text HTTP/1.1", "", ""),
        ("GET /text HTTP/1.1", "A : b", ""),
        ("GET /text HTTP/1.1", "Host: another", ""),
        ("GET /text HTTP/1.1", &format!("A: {long}"), ""),
    ];
    for (line, fields, body) in requests {
        let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
        let request = format!("{line}\r\nHost: test\r\n{fields}Connection: close\r\n\r\n{body}");
        let both = [client.raw(request.as_bytes()), server.raw(request.as_bytes())].map(|answer| {
            let ours = |name: &str| ["Date", "Connection"].contains(&name);
            let fields: Vec<_> = answer.headers().iter().filter(|(name, _)| !ours(name)).cloned().collect();
            (answer.status(), fields, String::from_utf8_lossy(answer.bytes()).into_owned(), answer.is_complete())
        });
        assert_eq!(both[0], both[1], "{line} {fields}");
    }
}

#[test]
fn what_needs_a_server_says_so_to_a_client_without_one() {
    let hub = Hub::new();
    let router = Router::new().mount_service("/events", hub.namespace("events").service());
    let client = Client::new(router);
    let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.get("/events/a").send()));
    let says =
        asked.expect_err("nobody is there to be sent anything").downcast_ref::<&str>().map(|text| (*text).to_owned());
    assert_eq!(says.as_deref(), Some("push needs a server: handover::test::Server"));
}

#[test]
fn several_test_servers_run_in_one_process_and_stop_when_they_are_dropped() {
    let names = ["a", "b", "c"];
    let server = |name: &'static str| Server::start(handover::Server::builder().workers(1).handler(move |_| name));
    let servers = names.map(|name| server(name).expect("a server"));
    let addresses = servers.each_ref().map(Server::address);
    thread::scope(|scope| {
        for (server, name) in servers.iter().zip(names) {
            scope.spawn(move || assert_eq!(server.get("/").send().text(), name));
        }
    });
    drop(servers);
    for address in addresses {
        assert!(std::net::TcpStream::connect(address).is_err(), "{address} still listens");
    }
}

/// With a handler under way: a drop does not wait for it longer than a stop at once does.
#[test]
fn a_test_server_that_is_dropped_cuts_what_is_under_way() {
    let (gate, passage) = Gate::new();
    let handler = move |_: &mut Request| {
        passage.pass();
        "late\n"
    };
    let server = Server::start(handover::Server::builder().workers(1).handler(handler)).expect("a server");
    let mut connection = server.connect();
    std::io::Write::write_all(&mut connection, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
    gate.wait();
    drop(server);
    gate.open();
}

/// The first of two states was not handed over, and nobody was told.
#[test]
fn a_second_state_to_carry_over_is_a_mistake_of_the_program() {
    let (one, other) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new("two".to_owned())));
    let both = || handover::Server::builder().carry_over_json(&one).carry_over_json(&other);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(both)).err().expect("a panic");
    let says = panic.downcast_ref::<&str>().copied();
    assert_eq!(says, Some("something is carried over already: put both into one state"));
}

fn items() -> Command {
    Program::example_command("items")
}

/// What an application says before it serves: exit code, stdout and stderr.
fn says(args: &[&str]) -> (Option<i32>, String, String) {
    let output = run_to_its_end(items().args(args));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn an_application_has_a_version_flags_and_a_reload_of_its_own() {
    let version = env!("CARGO_PKG_VERSION");
    let line = format!("items {version}, built on handover {version}\n");
    assert_eq!(says(&["--version"]), (Some(0), line.clone(), String::new()));
    let (code, help, _) = says(&["--help"]);
    assert!(code == Some(0) && help.starts_with(&line), "{help}");
    assert!(help.contains("--token TOKEN        what one has to know"), "{help}");
    let wrong = |says: &str| (Some(2), String::new(), says.to_owned());
    assert_eq!(says(&["--tokn", "x"]), wrong("items: unknown flag --tokn, did you mean --token? (try --help)\n"));
    let which = "items reload: which server? give --pid-file FILE or --pid N (try items reload --help)\n";
    assert_eq!(says(&["reload"]), wrong(which));
    let (code, help, _) = says(&["reload", "--help"]);
    assert!(code == Some(0) && help.starts_with("Usage: items reload --pid-file FILE"), "{help}");
}

#[test]
fn the_items_of_the_example_go_through_its_own_reload() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let pid_file = format!("--pid-file={}", scratch.path("pid").display());
        let mut command = items();
        let program = Program::start(
            mode.flags(&mut command)
                .args(["-l", "127.0.0.1:0", "--token", "secret", "--pid-file"])
                .arg(scratch.path("pid")),
        );
        let mut client = program.client();
        let body = r#"{"name":"bolt","price":2}"#;
        let head = "POST /items HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n";
        client.send(format!("{head}Authorization: Bearer secret\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        assert_eq!(client.answer().status, 201, "{mode:?}");
        let (code, out, err) = says(&["reload", &pid_file, "--wait"]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{mode:?}");
        assert!(out.starts_with("reloaded: "), "{mode:?}: {out}");
        // On the same connection, by another generation.
        client.get("/items/1");
        let answer = client.answer();
        assert_eq!((answer.status, answer.text(), answer.header("X-Request-Id")), (200, body, Some("2-0")), "{mode:?}");
    }
}

/// What cannot be read does not become the server, with an empty state.
#[test]
fn a_successor_that_cannot_read_the_state_does_not_take_over() {
    for mode in Mode::BOTH {
        let lab = OnDisk::of(&Program::lab_command());
        let mut command = lab.command();
        let program = Program::start(mode.flags(&mut command).args(["-l", "127.0.0.1:0"]).env("RUST_BACKTRACE", "0"));
        let mut client = program.client();
        client.post("/map/a", "kept");
        assert_eq!(client.answer().status, 201);
        lab.replace(&format!("exec '{}' \"$@\"", items().get_program().to_string_lossy()));
        program.signal(Signal::HUP);
        program.logged("reload failed, serving on");
        let log = program.log().join("\n");
        assert!(log.contains("what was handed over is not this state: "), "{mode:?}: {log}");
        client.get("/map/a");
        assert_eq!((client.answer().text(), program.generations()), ("kept", 1), "{mode:?}");
    }
}
