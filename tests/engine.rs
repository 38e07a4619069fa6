//! Nobody starves, and nothing is forgotten: what the engine owes to each of many clients.

mod common;

use common::{Gate, Passage, RawClient, Scratch, TestServer};
use handover::{Builder, Limits, Router, Server};
use std::time::Duration;

/// Longer than any test: a limit that is not the one under test.
const LATE: Duration = Duration::from_secs(60);

/// Limits that do not interfere, however slow the machine is.
fn patient() -> Limits {
    Limits { head_timeout: LATE, body_timeout: LATE, idle_timeout: LATE, queue_timeout: LATE, ..Limits::default() }
}

fn server(workers: usize) -> Builder {
    Server::builder().workers(workers).limits(patient())
}

fn hello() -> Router {
    Router::new().get("/hello", |_| "hello\n")
}

fn gated(passage: Passage) -> Router {
    hello().get("/gate", move |_| {
        passage.pass();
        "through\n"
    })
}

/// What a request looks like in the socket when its worker comes to it: two pieces, and something between them.
fn is_answered_with_something_between(address: &str, between: impl Fn(&mut RawClient)) {
    let (gate, passage) = Gate::new();
    let server = TestServer::start_at(server(1).service(gated(passage)), address);
    let mut busy = server.client();
    busy.get("/gate");
    gate.wait();
    let mut client = server.client();
    between(&mut client);
    client.send("st: test\r\n\r\n");
    gate.open();
    assert_eq!(busy.answer().text(), "through\n");
    assert_eq!(client.answer().text(), "hello\n");
}

/// A read ends early at the mark, and no event tells of what is behind it: such a request was answered 408.
#[test]
fn a_request_behind_urgent_data_is_not_left_in_the_socket() {
    is_answered_with_something_between("127.0.0.1:0", |client| {
        client.send("GET /hello HTTP/1.1\r\nHo").send_urgent();
    });
}

#[test]
fn a_request_behind_passed_descriptors_is_not_left_in_the_socket() {
    let directory = Scratch::new();
    is_answered_with_something_between(&format!("unix:{}", directory.path("s").display()), |client| {
        client.send_with_descriptor(b"GET /hello HTTP/1.1\r\nHo");
    });
}
