//! Clients of push that behave badly: what they do is bounded, costs no worker, and is nobody else's loss.

use crate::common::{Ending, EventStream, Mode, Program, RawClient, Scratch, TestServer, eventually, hello, patient};
use crate::push::command;
use handover::{Builder, Hub, Limits, Namespace, Publishers, Server};
use std::time::Duration;

/// A server with a hub of so many bytes at `/events`.
fn hub(memory: usize) -> (Hub, Namespace, Builder) {
    let hub = Hub::with_limits(memory, 64 << 10);
    let events = hub.namespace("events").publishers(Publishers::Anyone).heartbeat(0);
    let builder = Server::builder().workers(2).hub(&hub).service(hello().mount_service("/events", events.service()));
    (hub, events, builder)
}

/// Where the client took nothing yet of the response's head, the kernel's buffer being full of what stood before it, the
/// opening was lost, and with it the gap and the last messages.
#[test]
fn a_stream_behind_responses_that_were_not_read_begins_with_its_opening() {
    let scratch = Scratch::new();
    let (_hub, events, builder) = hub(1 << 20);
    let address = format!("unix:{}", scratch.path("socket").display());
    let server = TestServer::start_at(builder.limits(patient()), &address);
    server.client().expect_alive("/hello");
    events.publish("a", "x").expect("it serves");
    let (stream, before) =
        ("GET /events/a?since=7-1 HTTP/1.1\r\nHost: test\r\n\r\n", "GET /hello HTTP/1.1\r\nHost: test\r\n\r\n");
    let clients: Vec<(usize, RawClient)> = (200..600)
        .step_by(1)
        .map(|count| {
            let mut client = server.client();
            client.send(before.repeat(count) + stream);
            (count, client)
        })
        .collect();
    // Most wait for their clients by now, each at another place.
    server.client().expect_alive("/hello");
    for (count, mut client) in clients {
        for _ in 0..count {
            assert_eq!(client.answer().status, 200);
        }
        let mut stream = EventStream::answered(client);
        stream.opening();
        assert!(stream.lines().starts_with("event: @gap\n"), "behind {count}");
        assert_eq!(stream.lines(), "data: x\n\n", "behind {count}");
    }
}
