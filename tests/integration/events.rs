//! Event streams and polls, byte for byte: what does not end, or takes its time, and so is no case of `tests/requests`.

use crate::common::{Answer, EventStream, Gate, RawClient, Scratch, TestServer, gated_beside, hello};
use handover::{Hub, Publishers, Server};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A hub at `/events` to which anyone may publish, with a heartbeat of so many seconds, and a gate.
fn server_with(heartbeat: u16) -> (TestServer, Gate) {
    let hub = Hub::new();
    let events = hub.namespace("events").publishers(Publishers::Anyone).heartbeat(heartbeat);
    let (gate, routes) = gated_beside(hello().mount_service("/events", events.service()));
    (TestServer::start(Server::builder().workers(2).hub(&hub).service(routes)), gate)
}

fn server() -> TestServer {
    server_with(0).0
}

/// Publishes, and answers the position.
#[track_caller]
fn publish(server: &TestServer, target: &str, data: impl AsRef<[u8]>) -> String {
    let answer = server.client().post(target, data).answer();
    assert_eq!(answer.status, 200, "{answer:?}");
    body(&answer)["id"].as_str().expect("an id").to_owned()
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// Sends a poll.
fn ask(client: &mut RawClient, target: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n"));
}

#[track_caller]
fn poll(server: &TestServer, target: &str) -> Value {
    let mut client = server.client();
    ask(&mut client, target);
    let answer = client.answer();
    assert!(answer.status == 200 && !answer.closes(), "{answer:?}");
    body(&answer)
}

/// The offset of a position behind another of the same epoch.
#[track_caller]
fn distance(from: &str, to: &str) -> i64 {
    let read = |position: &str| {
        let (epoch, offset) = position.split_once('-').expect("EPOCH-OFFSET");
        (epoch.parse::<u64>().expect("a number"), offset.parse::<i64>().expect("a number"))
    };
    let ((one, from), (other, to)) = (read(from), read(to));
    assert_eq!(one, other, "of another epoch");
    to - from
}

#[test]
fn a_stream_says_at_once_when_to_come_back_and_where_it_is() {
    let server = server();
    let mut stream = EventStream::open(&server.bound, "/events/a", "Accept: text/event-stream\r\n");
    let head: Vec<&str> = stream.head.trim_end().split("\r\n").filter(|line| !line.starts_with("Date: ")).collect();
    assert_eq!(
        head,
        [
            "HTTP/1.1 200 OK",
            "Content-Type: text/event-stream",
            "Cache-Control: no-store, no-transform",
            "X-Accel-Buffering: no",
            "X-Content-Type-Options: nosniff",
            "Vary: Origin",
            "Transfer-Encoding: chunked"
        ]
    );
    let position = stream.opening();
    assert!(position.ends_with("-0"), "{position}");
    assert!(position.len() <= 41 && position.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'));
    publish(&server, "/events/a", "x");
    assert_eq!(stream.lines(), "data: x\n\n");
}

#[test]
fn a_stream_by_http_1_0_has_no_chunks_and_ends_with_its_connection() {
    let server = server();
    let mut stream = EventStream::ask(server.client(), "/events/a", "Connection: keep-alive\r\n", 0);
    assert!(!stream.head.contains("Transfer-Encoding") && !stream.head.contains("Content-Length"), "{}", stream.head);
    assert!(!stream.head.contains("keep-alive"), "{}", stream.head);
    stream.opening();
    publish(&server, "/events/a", "x");
    assert_eq!(stream.lines(), "data: x\n\n");
    server.stop();
    assert!(stream.event().starts_with("retry: "));
    assert_eq!(stream.try_event(), Ok(None));
}

/// A publisher cannot put a field into another's event.
#[test]
fn data_is_a_line_for_each_line_whatever_ends_it() {
    let server = server();
    let mut stream = EventStream::open(&server.bound, "/events/a", "");
    stream.opening();
    for (data, lines) in [
        ("one", "data: one\n\n"),
        ("", "data: \n\n"),
        ("\n", "data: \ndata: \n\n"),
        ("a\nb", "data: a\ndata: b\n\n"),
        ("a\r\nb", "data: a\ndata: b\n\n"),
        ("a\rb", "data: a\ndata: b\n\n"),
        ("a\n\rb\r", "data: a\ndata: \ndata: b\ndata: \n\n"),
        ("x\rid: 1\revent: y\n\ndata: z", "data: x\ndata: id: 1\ndata: event: y\ndata: \ndata: data: z\n\n"),
        (" a: é\u{2028}\0", "data:  a: é\u{2028}\0\n\n"),
    ] {
        let position = publish(&server, "/events/a", data);
        assert_eq!(stream.next(), (position, lines.to_owned()), "{data:?}");
    }
    let position = publish(&server, "/events/a?event=a+%C3%A9", "x");
    assert_eq!(stream.next(), (position, "event: a é\ndata: x\n\n".to_owned()));
}

#[test]
fn a_stream_in_json_says_of_which_topic_a_message_is() {
    let server = server();
    let mut stream = EventStream::open(&server.bound, "/events?topic=a&topic=b&format=json", "");
    stream.opening();
    let first = publish(&server, "/events/b?event=news", "\"\r\n");
    let object = format!(r#"{{"id":"{first}","topic":"b","event":"news","data":"\"\r\n"}}"#);
    assert_eq!(stream.next(), (first, format!("event: news\ndata: {object}\n\n")));
    publish(&server, "/events/c", "not for it");
    let second = publish(&server, "/events/a", "x");
    let object = format!(r#"{{"id":"{second}","topic":"a","event":null,"data":"x"}}"#);
    assert_eq!(stream.next(), (second, format!("data: {object}\n\n")));
}

/// Also what was for others moves the position, or who never hears a message could not go on where it is.
#[test]
fn a_heartbeat_says_where_the_stream_is() {
    let (server, _gate) = server_with(1);
    let mut stream = EventStream::open(&server.bound, "/events/a", "");
    let mut beats = EventStream::open(&server.bound, "/events/a?beat=1", "");
    let opened = stream.opening();
    beats.opening();
    assert_eq!(stream.next(), (opened.clone(), "\n".to_owned()));
    let position = publish(&server, "/events/other", "x");
    assert_eq!(distance(&opened, &position), 1);
    let began = Instant::now();
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let (id, lines) = stream.next();
        assert_eq!(lines, "\n");
        heard.push(id);
    }
    assert!(began.elapsed() > Duration::from_millis(1500), "{:?} for three", began.elapsed());
    assert_eq!(heard[1..], [position.clone(), position.clone()]);
    let beat = std::iter::repeat_with(|| beats.next()).find(|(id, _)| *id == position).expect("sooner or later");
    assert_eq!(beat.1, format!("event: @beat\ndata: {position}\n\n"));
}

#[test]
fn a_stream_begins_where_its_client_says() {
    let server = server();
    let positions: Vec<String> = ["1", "2", "3"].iter().map(|data| publish(&server, "/events/a", data)).collect();
    publish(&server, "/events/b", "4");
    let all = "/events?topic=a&topic=b&topic=end";
    let is = |target: &str, fields: &str, expected: &[&str]| {
        let mut stream = EventStream::open(&server.bound, target, fields);
        stream.opening();
        let end = publish(&server, "/events/end", "end");
        let mut heard = Vec::new();
        while let (id, lines) = stream.next()
            && id != end
        {
            // The ends of those before.
            heard.extend((lines != "data: end\n\n").then_some(lines));
        }
        let expected: Vec<String> = expected.iter().map(|data| format!("data: {data}\n\n")).collect();
        assert_eq!(heard, expected, "{target} {fields}");
    };
    is(all, "", &[]);
    is(&format!("{all}&since=start"), "", &["1", "2", "3", "4"]);
    is(&format!("{all}&since=last"), "", &["3", "4"]);
    is(&format!("{all}&since={}", positions[1]), "", &["3", "4"]);
    // What a client has heard last wins over the query, which a browser repeats.
    let last = format!("Last-Event-ID: {}\r\n", positions[2]);
    is(&format!("{all}&since=start"), &last, &["4"]);
    is(&format!("{all}&since=start"), "Last-Event-ID: \r\n", &["1", "2", "3", "4"]);
}

/// A position of elsewhere, or none at all: whoever brings it is told, and gets what there is.
#[test]
fn who_brings_a_position_of_elsewhere_is_told_of_a_gap() {
    let server = server();
    let to = publish(&server, "/events/a", "x");
    let before = format!("{}-0", to.split_once('-').expect("a position").0);
    let ahead = format!("{}-99", to.split_once('-').expect("a position").0);
    for (query, fields, from) in [
        ("?since=7-1", "", json!("7-1")),
        ("?since=last", "Last-Event-ID: 7-1\r\n", json!("7-1")),
        (&format!("?since={ahead}"), "", json!(ahead)),
        ("", "Last-Event-ID: from elsewhere\r\n", Value::Null),
        ("", "Last-Event-ID: 7-01\r\n", Value::Null),
        ("", "Last-Event-ID: \u{e9}\r\n", Value::Null),
    ] {
        let mut stream = EventStream::open(&server.bound, &format!("/events/a{query}"), fields);
        assert_eq!(stream.opening(), before, "{query} {fields}");
        let gap = format!("event: @gap\ndata: {{\"from\":{from},\"to\":\"{before}\"}}\n\n");
        assert_eq!(stream.next(), (before.clone(), gap), "{query} {fields}");
        assert_eq!(stream.next(), (to.clone(), "data: x\n\n".to_owned()));
    }
}

#[test]
fn a_poll_is_answered_at_once_or_when_there_is_something() {
    let server = server();
    let first = publish(&server, "/events/a?event=e", "1");
    let began = Instant::now();
    let message = json!({"id": first, "topic": "a", "event": "e", "data": "1"});
    assert_eq!(poll(&server, "/events/a?since=start"), json!({"messages": [message], "last": first, "gap": false}));
    let mut waiting: Vec<RawClient> = (0..20).map(|_| server.client()).collect();
    for client in &mut waiting {
        ask(client, &format!("/events/a?since={first}"));
    }
    // They hold none of the two workers.
    server.client().expect_alive("/hello");
    let second = publish(&server, "/events/a", "2");
    let message = json!({"id": second, "topic": "a", "event": null, "data": "2"});
    for client in &mut waiting {
        assert_eq!(body(&client.answer()), json!({"messages": [message], "last": second, "gap": false}));
        // The connection lives on.
        client.expect_alive("/hello");
    }
    assert!(began.elapsed() < Duration::from_secs(20), "they did not wait to the end");
}

#[test]
fn a_poll_that_has_waited_long_enough_is_answered_without_messages() {
    let server = server();
    let position = publish(&server, "/events/other", "x");
    let empty = json!({"messages": [], "last": position, "gap": false});
    let began = Instant::now();
    assert_eq!(poll(&server, "/events/a?wait=0"), empty);
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(poll(&server, "/events/a?wait=1"), empty);
    assert!((1000..8000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[test]
fn a_publisher_is_told_who_listens_and_so_is_the_list() {
    let server = server();
    let mut streams: Vec<EventStream> =
        (0..3).map(|_| EventStream::open(&server.bound, "/events?topic=a&topic=b", "")).collect();
    streams.iter_mut().for_each(|stream| _ = stream.opening());
    let mut client = server.client();
    let answer = client.post("/events/a", "x").answer();
    assert_eq!(body(&answer)["subscribers"], 3);
    let batch =
        "{\"topic\":\"a\",\"data\":\"1\"}\n{\"topic\":\"b\",\"data\":\"2\"}\n{\"topic\":\"c\",\"data\":\"3\"}\n";
    let answer = body(&client.post("/events", batch).answer());
    assert_eq!(answer["subscribers"], 6);
    for stream in &mut streams {
        assert_eq!([stream.lines(), stream.lines(), stream.lines()], ["data: x\n\n", "data: 1\n\n", "data: 2\n\n"]);
    }
    let list = poll(&server, "/events");
    assert_eq!(list["last"], answer["id"]);
    let (epoch, last) = answer["id"].as_str().and_then(|id| id.split_once('-')).expect("a position");
    let at = |back: u64| format!("{epoch}-{}", last.parse::<u64>().expect("a number") - back);
    let topic = |name: &str, subscribers: u32, messages: u32, back: u64| json!({"topic": name, "subscribers": subscribers, "messages": messages, "last": at(back)});
    assert_eq!(list["topics"], json!([topic("a", 3, 2, 2), topic("b", 3, 1, 1), topic("c", 0, 1, 0)]));
}

/// What is behind a poll waits for it, and nothing behind a stream is ever answered.
#[test]
fn a_request_behind_a_poll_is_answered_after_it() {
    let server = server();
    let mut client = server.client();
    let request = "GET /events/a HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n";
    client.send(format!("{request}GET /hello HTTP/1.1\r\nHost: test\r\n\r\n"));
    server.client().expect_alive("/hello");
    assert!(!client.has_answer());
    publish(&server, "/events/a", "x");
    assert_eq!(body(&client.answer())["messages"][0]["data"], "x");
    assert_eq!(client.answer().text(), "hello\n");
    client.expect_alive("/hello");
}

/// The body of a request that subscribes is read away, or the connection ends with the poll.
#[test]
fn a_poll_with_a_body_is_answered() {
    let server = server();
    for length in [5, 200_000] {
        let mut client = server.client();
        let head = "GET /events/a?wait=1 HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\nContent-Length: ";
        client.send(format!("{head}{length}\r\n\r\n{}", "x".repeat(length)));
        let answer = client.answer();
        assert_eq!(body(&answer)["messages"], json!([]), "{answer:?}");
        match answer.closes() {
            true => client.expect_fin(),
            false => client.expect_alive("/hello"),
        }
    }
}

/// Over TCP the host has to be one that can be no other's; over a Unix socket there is none.
#[test]
fn a_client_of_this_host_may_publish_where_local_ones_may() {
    let scratch = Scratch::new();
    let socket = format!("unix:{}", scratch.path("socket").display());
    for (address, host, status) in [
        ("127.0.0.1:0", "localhost", 200),
        ("127.0.0.1:0", "127.0.0.1:8888", 200),
        ("127.0.0.1:0", "example.org", 403),
        ("127.0.0.1:0", "localhost.example.org", 403),
        (&*socket, "example.org", 200),
    ] {
        let hub = Hub::new();
        let events = hub.namespace("events").publishers(Publishers::Local);
        let routes = hello().mount_service("/events", events.service());
        let server = TestServer::start_at(Server::builder().workers(1).hub(&hub).service(routes), address);
        let mut client = server.client();
        let head = format!("POST /events/a HTTP/1.1\r\nHost: {host}\r\n");
        let answer = client.send(format!("{head}Content-Length: 1\r\n\r\nx")).answer();
        assert_eq!(answer.status, status, "{address} {host}: {answer:?}");
        // The topics are for who may publish.
        client.send(format!("GET /events HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n\r\n"));
        assert_eq!(client.answer().status, status);
        assert_eq!(
            client.send(format!("{head}Origin: http://{host}\r\nContent-Length: 1\r\n\r\nx")).answer().status,
            403
        );
    }
}
