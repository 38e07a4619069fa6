//! `tests/requests/*.http`: what a client sends and what it gets for it, over TCP and a Unix socket, whole, split at
//! every byte, and behind one another. `CONFORMANCE.md` is made from them, see `the_table_says_what_the_cases_say`.
//!
//! The first line of a file cites the section that decides it and says what it is: `# RFC 9112 §5.1: what it is`. Other
//! lines that begin with `#` are comments. `@site`, `@hosts`, `@router` or `@push` names who is asked, instead of a handler. Then comes
//! the request, in which a line end means nothing and `\r`, `\n`, `\0`, `\\` and `\xHH` mean what they say, and
//! `\{3*ab}` is `ababab`; then an expectation for each answer:
//!
//! - `=> [HEAD] STATUS keep-alive|close|cut TEXT`, TEXT being the body without its line end and, for an error, without
//!   the status that stands in front, and a position of a hub's `EPOCH-N`; `cut` is an answer that breaks off behind TEXT;
//! - below it `=+ Name: value` for a field that it has, `=- Name` for one that it has not;
//! - `=> nothing` is for a client that says no more and gets no answer.
//!
//! What stands behind an expectation is sent when the answer has come.

use crate::common::{Answer, Case, Ending, Expected, RawClient, Scratch, Target, TestServer, Then};
use handover::{
    Body, Builder, Config, Header, Hub, IntoResponse, Limits, Method, Publishers, Request, Response, Router, Server,
    Site, StatusCode, Subscribers, TokenKeys,
};
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

/// Says what it understood.
fn describe(request: &mut Request) -> Response {
    let field = |name: &str, value: &str| Header::from_bytes(name, value).expect("tiny_http takes it");
    let path = request.path().to_owned();
    match path.as_str() {
        // A panic, without the message on stderr.
        "/panic" => std::panic::resume_unwind(Box::new("as asked for")),
        "/close" => Body::from("bye\n").with_close().into_response(),
        "/split/value" => "never\n".into_response().with_header(field("A", "b\r\nSet-Cookie: c")),
        "/split/name" => "never\n".into_response().with_header(field("A\r\nSet-Cookie", "c")),
        "/host" => format!("{}\n", request.host().unwrap_or("none")).into_response(),
        "/unknown-length" => Body::reader(&b"five\n"[..], None).into_response(),
        "/short" => Body::reader(&b"five\n"[..], Some(10)).into_response(),
        path if path.starts_with("/quiet") => "quiet\n".into_response(),
        path => match (path.strip_prefix("/status/"), path.strip_prefix("/field/")) {
            (Some(status), _) => StatusCode(status.parse::<u16>().expect("a status")).into_response(),
            (None, Some(name)) => {
                let values = request.header_values(name).map(String::from_utf8_lossy).collect::<Vec<_>>().join("|");
                format!("{values}\n").into_response()
            }
            (None, None) => {
                let body = request.body_bytes().expect("a body that is buffered");
                let line = format!("{} {} {}", request.method(), request.url(), String::from_utf8_lossy(&body));
                format!("{}\n", line.trim_end()).into_response()
            }
        },
    }
}

fn router() -> Router {
    Router::new()
        .get("/alive", |_: &mut Request| "alive\n")
        .get("/item/{id}", |request: &mut Request| format!("item {}\n", request.param("id").unwrap_or("?")))
        .post("/item/{id}", |_: &mut Request| StatusCode(201))
        .route("PURGE".parse::<Method>().expect("a token"), "/cache", |_: &mut Request| "purged\n")
}

/// Topics that anyone may publish to, of which pages of one origin may read; those that nobody may, or this host; and those
/// for tokens, of two keys: 32 times `1`, and `2`.
fn hub() -> Builder {
    let hub = Hub::with_limits(1 << 20, 100);
    let anyone = hub.namespace("anyone").publishers(Publishers::Anyone).origins(["https://example.org"]);
    let local = hub.namespace("local").publishers(Publishers::Local).origins(["*"]);
    let keys = TokenKeys::new([[b'1'; 32], [b'2'; 32]]).expect("two keys");
    let token = hub.namespace("token").tokens(&keys).publishers(Publishers::Token).subscribers(Subscribers::Token);
    let routes = Router::new()
        .get("/alive", |_: &mut Request| "alive\n")
        .mount_service("/token", token.origins(["https://example.org"]).service())
        .mount_service("/events", anyone.service())
        .mount_service("/nobody", hub.namespace("nobody").service())
        .mount_service("/local", local.service());
    Server::builder().hub(&hub).service(routes)
}

/// A server of each kind, on TCP or on Unix sockets in the directory.
struct Servers {
    servers: Vec<(Target, TestServer)>,
    scratch: Scratch,
}

impl Servers {
    fn new(workers: usize, unix: bool) -> Servers {
        let scratch = Scratch::new();
        let root = scratch.path("root");
        for (name, content) in [("index.html", "index\n"), ("a.txt", "0123456789\n"), ("alive", "alive\n")] {
            fs::create_dir_all(&root).expect("a directory");
            fs::write(root.join(name), content).expect("a file");
            let file = fs::File::options().write(true).open(root.join(name)).expect("a file");
            // Sun, 06 Nov 1994 08:49:37 GMT, the RFC's own example.
            file.set_modified(UNIX_EPOCH + Duration::from_secs(784_111_777)).expect("a time");
        }
        fs::create_dir(root.join("directory")).expect("a directory");
        // `ada` has the password "right".
        fs::write(scratch.path("users"), "ada:$2y$04$KTMumZjHjowdF2igPJfvv.rKPYf.AZKKScVZTikohMedhwfGhUHLa\n")
            .expect("a file");
        let text = "root = 'root'\n[[route]]\nprefix = '/private'\nbody = \"private\\n\"\n\
                    auth = { realm = 'the house', file = 'users' }\n";
        fs::write(scratch.path("handover.toml"), text).expect("a file");
        let config = Config::from_file(scratch.path("handover.toml")).expect("a configuration");
        let host = |name: &str, body: &str| {
            format!("[[host]]\nname = '{name}'\n[[host.route]]\nprefix = '/'\nbody = \"{body}\\n\"\n")
        };
        let text = [("test", "test"), ("one.test", "one"), ("*.test", "below"), ("[::1]", "address")]
            .map(|(name, body)| host(name, body));
        fs::write(scratch.path("hosts.toml"), text.concat()).expect("a file");
        let hosts = Config::from_file(scratch.path("hosts.toml")).expect("a configuration");
        // Time enough for a slow machine to read an answer before the server stops lingering.
        let limits = Limits { linger: Duration::from_secs(20), ..Limits::default() };
        let builder = Server::builder;
        let start = |target: Target, builder: Builder| {
            let builder = builder.workers(workers).limits(limits.clone());
            let address = match unix {
                true => format!("unix:{}", scratch.path(&format!("{target:?}")).display()),
                false => "127.0.0.1:0".to_owned(),
            };
            (target, TestServer::start_at(builder, &address))
        };
        let servers = vec![
            start(Target::Handler, builder().handler(describe)),
            start(Target::Site, builder().service(Site::open(&config).expect("a site"))),
            start(Target::Hosts, builder().service(Site::open(&hosts).expect("sites"))),
            start(Target::Router, builder().service(router())),
            start(Target::Push, hub()),
        ];
        Servers { servers, scratch }
    }

    fn client(&self, target: Target) -> RawClient {
        let (_, server) = self.servers.iter().find(|(of, _)| *of == target).expect("one of each");
        server.client()
    }
}

impl Case {
    fn run(&self, client: &mut RawClient, step: usize, how: &str) {
        for part in &self.parts {
            // A server that refuses early may close before it has all.
            let _ = client.try_send_in_steps(&part.bytes, step);
            self.expect(client, &part.answers, how);
        }
        self.expect_end(client, how);
    }

    /// For a case that was sent in one go.
    fn judge(&self, client: &mut RawClient, how: &str) {
        let answers: Vec<Expected> = self.answers().cloned().collect();
        self.expect(client, &answers, how);
        self.expect_end(client, how);
    }

    fn expect(&self, client: &mut RawClient, answers: &[Expected], how: &str) {
        let name = &self.name;
        for (number, expected) in answers.iter().enumerate() {
            if expected.then == Then::Cut {
                let Err((_, rest)) = client.try_answer(expected.to_head) else {
                    panic!("{name}, {how}: answer {number} is whole");
                };
                let rest = String::from_utf8_lossy(&rest);
                let body = rest.split_once("\r\n\r\n").map(|(_, body)| body.trim_end());
                assert_eq!(body, Some(expected.text.as_str()), "{name}, {how}: {rest:?}");
                return;
            }
            let answer = client.try_answer(expected.to_head).unwrap_or_else(|(ending, rest)| {
                panic!("{name}, {how}: {ending:?} instead of answer {number}: {:?}", String::from_utf8_lossy(&rest))
            });
            let text = match self.target {
                Target::Push => without_positions(answer.text().trim_end()),
                _ => answer.text().trim_end().to_owned(),
            };
            let text = text.strip_prefix(&format!("{} ", answer.status)).unwrap_or(&text);
            let got = (answer.status, if answer.closes() { Then::Close } else { Then::KeepAlive }, text);
            let wanted = (expected.status, expected.then, expected.text.as_str());
            assert_eq!(got, wanted, "{name}, {how}, answer {number}: {answer:?}");
            for (field, value) in &expected.fields {
                assert_eq!(answer.header(field), Some(value.as_str()), "{name}, {how}: {field} of {answer:?}");
            }
            for field in &expected.without {
                assert_eq!(answer.header(field), None, "{name}, {how}: {field} of {answer:?}");
            }
            assert!(answer.header("set-cookie").is_none(), "{name}, {how}: a split response");
            if answer.status >= 200 {
                expect_dated(&answer, name);
                expect_framed(&answer, expected, name);
            }
        }
    }

    fn expect_end(&self, client: &mut RawClient, how: &str) {
        let name = &self.name;
        let last = self.answers().last().map(|expected| expected.then);
        if last == Some(Then::KeepAlive) {
            return client.expect_alive("/alive");
        }
        if last.is_none() {
            client.finish();
        }
        let (rest, ending) = client.rest();
        assert!(rest.is_empty(), "{name}, {how}: more than expected: {:?}", String::from_utf8_lossy(&rest));
        assert_eq!(ending, Ending::Fin, "{name}, {how}");
    }
}

/// The text with `EPOCH-N` for each position: those are as random as a hub's epoch.
fn without_positions(text: &str) -> String {
    let words = text.split('"').map(|word| match word.split_once('-') {
        Some((epoch, offset)) if epoch.parse::<u64>().is_ok() && offset.parse::<u64>().is_ok() => "EPOCH-N",
        _ => word,
    });
    words.collect::<Vec<_>>().join("\"")
}

/// RFC 9110 §6.6.1: a Date on every final answer, in the one format that may be sent (§5.6.7).
fn expect_dated(answer: &Answer, name: &str) {
    let date = answer.header("date").unwrap_or_else(|| panic!("{name}: no Date in {answer:?}"));
    let read = httpdate::parse_http_date(date).unwrap_or_else(|error| panic!("{name}: {date:?}: {error}"));
    assert_eq!(httpdate::fmt_http_date(read), date, "{name}");
}

/// RFC 9112 §6.3: where an answer ends is said, unless the case wants it otherwise.
fn expect_framed(answer: &Answer, expected: &Expected, name: &str) {
    let (length, coding) = (answer.header("content-length"), answer.header("transfer-encoding"));
    if matches!(answer.status, 204 | 304) {
        assert_eq!((length, coding), (None, None), "{name}: RFC 9110 §8.6, RFC 9112 §6.1: {answer:?}");
    } else if !expected.without.iter().any(|field| field.eq_ignore_ascii_case("content-length")) {
        assert!(length.is_some() != coding.is_some(), "{name}: no framing, or two: {answer:?}");
    }
}

fn every_request_has_its_answer(servers: &Servers, steps: &[usize]) {
    for case in Case::all() {
        case.run(&mut servers.client(case.target), usize::MAX, "whole");
        for &step in steps {
            case.run(&mut servers.client(case.target), step, &format!("in steps of {step}"));
        }
    }
}

#[test]
fn every_request_has_its_answer_over_tcp() {
    every_request_has_its_answer(&Servers::new(2, false), &[1, 2, 7]);
}

#[test]
fn every_request_has_its_answer_over_a_unix_socket() {
    let servers = Servers::new(2, true);
    every_request_has_its_answer(&servers, &[1]);
    assert!(servers.scratch.path("Site").exists(), "it was over a Unix socket");
}

/// Where to cut: everywhere, but in a long request only where one of its limits can be, and here and there.
fn cuts(length: usize) -> Vec<usize> {
    let here_and_there = length / 64;
    let picked = |at: &usize| length <= 600 || *at <= 64 || length - at <= 64 || at.is_multiple_of(here_and_there);
    (1..length).filter(picked).collect()
}

/// Two pieces of any length: the server has taken the first before the second is sent, since an answer to a later
/// request has come meanwhile over the same, only, worker.
#[test]
fn every_cut_in_two_has_the_same_answer() {
    let servers = Servers::new(1, false);
    // One that waits for an answer in between is cut there already.
    for case in Case::all().into_iter().filter(|case| case.parts.len() == 1) {
        let mut other = servers.client(case.target);
        let bytes = case.bytes();
        let cuts = cuts(bytes.len());
        let mut clients: Vec<RawClient> = cuts.iter().map(|_| servers.client(case.target)).collect();
        // A server that has refused the first piece may be gone when the second comes.
        for (client, &at) in clients.iter_mut().zip(&cuts) {
            let _ = client.try_send(&bytes[..at]);
        }
        other.expect_alive("/alive");
        for (client, &at) in clients.iter_mut().zip(&cuts) {
            let _ = client.try_send(&bytes[at..]);
        }
        for (client, at) in clients.iter_mut().zip(cuts) {
            case.judge(client, &format!("cut at {at}"));
        }
    }
}

/// Several cases on one connection, the next behind one that keeps it alive, in pieces of any length. `HANDOVER_SEED`
/// begins elsewhere; a failure names it.
#[test]
fn cases_behind_one_another_have_their_answers_however_they_are_cut() {
    let seed: u64 = std::env::var("HANDOVER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut state = seed;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let servers = Servers::new(2, false);
    let mut cases = Case::all();
    cases.retain(|case| case.parts.len() == 1);
    let keeps = |case: &&Case| case.answers().last().is_some_and(|answer| answer.then == Then::KeepAlive);
    for round in 0..600 {
        let last = &cases[below(cases.len())];
        let before: Vec<&Case> = cases.iter().filter(|case| case.target == last.target).filter(keeps).collect();
        let mut row: Vec<&Case> = (0..below(4)).map(|_| before[below(before.len())]).collect();
        row.push(last);
        let bytes: Vec<u8> = row.iter().flat_map(|case| case.bytes()).collect();
        let mut ends: Vec<usize> = (0..below(8)).map(|_| below(bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();

        let names: Vec<&str> = row.iter().map(|case| case.name.as_str()).collect();
        let how = format!("HANDOVER_SEED={seed}, round {round}: {names:?} in pieces that end at {ends:?}");
        let mut client = servers.client(last.target);
        let mut from = 0;
        for to in ends {
            // A server that has refused what came before may be gone.
            let _ = client.try_send(&bytes[from..to]);
            from = to;
        }
        for case in &row[..row.len() - 1] {
            case.expect(&mut client, &case.parts[0].answers, &how);
        }
        last.judge(&mut client, &how);
    }
}
