//! `tests/requests/*.http`: what a client sends and what it gets for it, over TCP and a Unix socket, whole and split
//! at every byte.
//!
//! A file has comments (`#`), then the request, in which a line end means nothing and `\r`, `\n`, `\0`, `\\` and
//! `\xHH` mean what they say, then an expectation for each answer:
//! `=> [HEAD] STATUS keep-alive|close TEXT`, TEXT being the body without its line end and, for an error, without the
//! status that stands in front. `=> nothing` is for a client that says no more and gets no answer.

mod common;

use common::{Ending, RawClient, Scratch, TestServer};
use handover::{Body, Header, IntoResponse, Limits, Request, Response, Server, StatusCode};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Says what it understood.
fn describe(request: &mut Request) -> Response {
    let field = |name: &str, value: &str| Header::from_bytes(name, value).expect("tiny_http takes it");
    match request.path() {
        // A panic, without the message on stderr.
        "/panic" => std::panic::resume_unwind(Box::new("as asked for")),
        "/close" => Body::from("bye\n").with_close().into_response(),
        "/split/value" => "never\n".into_response().with_header(field("A", "b\r\nSet-Cookie: c")),
        "/split/name" => "never\n".into_response().with_header(field("A\r\nSet-Cookie", "c")),
        path => match path.strip_prefix("/status/") {
            Some(status) => StatusCode(status.parse::<u16>().expect("a status")).into_response(),
            None => {
                let body = request.body_bytes().expect("a body that is buffered");
                let line = format!("{} {} {}", request.method(), request.url(), String::from_utf8_lossy(&body));
                format!("{}\n", line.trim_end()).into_response()
            }
        },
    }
}

struct Case {
    name: String,
    request: Vec<u8>,
    answers: Vec<Expected>,
}

#[derive(Clone)]
struct Expected {
    to_head: bool,
    status: u16,
    keep_alive: bool,
    text: String,
}

impl Case {
    fn load(path: &Path) -> Case {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(path).expect("a case");
        let lines = || text.lines().filter(|line| !line.starts_with('#'));
        let request = lines().filter(|line| !line.starts_with("=> ")).flat_map(unescape).collect();
        let expectations: Vec<&str> = lines().filter_map(|line| line.strip_prefix("=> ")).collect();
        assert!(!expectations.is_empty(), "{name} expects nothing, not even `nothing`");
        let answers = expectations.into_iter().filter(|line| *line != "nothing").map(Expected::parse).collect();
        Case { name, request, answers }
    }

    fn run(&self, client: &mut RawClient, step: usize, how: &str) {
        // A server that refuses early may close before it has all.
        let _ = client.try_send_in_steps(&self.request, step);
        self.judge(client, how);
    }

    fn judge(&self, client: &mut RawClient, how: &str) {
        let Case { name, answers, .. } = self;
        if answers.is_empty() {
            client.finish();
        }
        let mut lives = !answers.is_empty();
        for (number, expected) in answers.iter().enumerate() {
            let answer = client.try_answer(expected.to_head).unwrap_or_else(|(ending, rest)| {
                panic!("{name}, {how}: {ending:?} instead of answer {number}: {:?}", String::from_utf8_lossy(&rest))
            });
            let text = answer.text().trim_end();
            let text = text.strip_prefix(&format!("{} ", answer.status)).unwrap_or(text);
            let got = (answer.status, !answer.closes(), text);
            let wanted = (expected.status, expected.keep_alive, expected.text.as_str());
            assert_eq!(got, wanted, "{name}, {how}, answer {number}: {answer:?}");
            assert!(answer.header("set-cookie").is_none(), "{name}, {how}: a split response");
            lives = expected.keep_alive;
        }
        if lives {
            client.expect_alive("/alive");
        } else {
            let (rest, ending) = client.rest();
            assert!(rest.is_empty(), "{name}, {how}: more than expected: {:?}", String::from_utf8_lossy(&rest));
            assert_eq!(ending, Ending::Fin, "{name}, {how}");
        }
    }
}

impl Expected {
    fn parse(line: &str) -> Expected {
        let (to_head, line) = match line.strip_prefix("HEAD ") {
            Some(line) => (true, line),
            None => (false, line),
        };
        let mut words = line.splitn(3, ' ');
        let status = words.next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no status: {line:?}"));
        let keep_alive = match words.next() {
            Some("keep-alive") => true,
            Some("close") => false,
            _ => panic!("keep-alive or close: {line:?}"),
        };
        Expected { to_head, status, keep_alive, text: words.next().unwrap_or_default().to_owned() }
    }
}

fn unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b'0') => 0,
                Some(b'\\') => b'\\',
                Some(b'x') => {
                    let digits: String = rest.by_ref().take(2).map(char::from).collect();
                    u8::from_str_radix(&digits, 16).unwrap_or_else(|_| panic!("\\xHH: {line:?}"))
                }
                _ => panic!("an unknown escape: {line:?}"),
            },
            byte => byte,
        };
        bytes.push(byte);
    }
    bytes
}

fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("requests");
    let entries = fs::read_dir(directory).expect("tests/requests");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "http"));
    paths.sort();
    assert!(paths.len() > 50, "tests/requests has the cases");
    paths.iter().map(|path| Case::load(path)).collect()
}

/// Two workers; time enough for a slow machine to read an answer before the server stops lingering.
fn server(address: &str) -> TestServer {
    let limits = Limits { linger: Duration::from_secs(20), ..Limits::default() };
    TestServer::start_at(Server::builder().workers(2).limits(limits).handler(describe), address)
}

#[test]
fn every_request_has_its_answer_over_tcp() {
    let server = server("127.0.0.1:0");
    for case in cases() {
        case.run(&mut server.client(), usize::MAX, "whole");
        for step in [1, 2, 7] {
            case.run(&mut server.client(), step, &format!("in steps of {step}"));
        }
    }
}

#[test]
fn every_request_has_its_answer_over_a_unix_socket() {
    let scratch = Scratch::new();
    let server = server(&format!("unix:{}", scratch.path("socket").display()));
    for case in cases() {
        case.run(&mut server.client(), usize::MAX, "whole");
        case.run(&mut server.client(), 1, "in steps of 1");
    }
}

/// Two pieces of any length: the server has taken the first before the second is sent, since an answer to a later
/// request has come meanwhile over the same, only, worker.
#[test]
fn every_cut_in_two_has_the_same_answer() {
    let limits = Limits { linger: Duration::from_secs(20), ..Limits::default() };
    let server = TestServer::start(Server::builder().workers(1).limits(limits).handler(describe));
    let mut other = server.client();
    for case in cases() {
        let cuts = 1..case.request.len();
        let mut clients: Vec<RawClient> = cuts.clone().map(|_| server.client()).collect();
        // A server that has refused the first piece may be gone when the second comes.
        for (client, at) in clients.iter_mut().zip(cuts.clone()) {
            let _ = client.try_send(&case.request[..at]);
        }
        other.expect_alive("/other");
        for (client, at) in clients.iter_mut().zip(cuts.clone()) {
            let _ = client.try_send(&case.request[at..]);
        }
        for (client, at) in clients.iter_mut().zip(cuts) {
            case.judge(client, &format!("cut at {at}"));
        }
    }
}
