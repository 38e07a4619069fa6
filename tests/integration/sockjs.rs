//! SockJS as its protocol's own suite asks for it, row by row of the URLs: status, fields, and bodies byte for byte. The
//! services are the lab's.

use crate::common::sockjs::{Session, Transport, ask, new_session, request};
use crate::common::websocket::{BINARY, CLOSE, TEXT};
use crate::common::{Answer, Ending, Program, RawClient, WebSocket, eventually};

const TEXT_TYPE: Option<&str> = Some("text/plain; charset=UTF-8");
const SCRIPT_TYPE: Option<&str> = Some("application/javascript; charset=UTF-8");
const GO_AWAY: &str = "c[3000,\"Go away!\"]";

fn lab() -> Program {
    Program::lab::<[&str; 0], &str>([])
}

fn session_url(service: &str) -> String {
    format!("/sockjs/{service}/000/{}", new_session())
}

#[track_caller]
fn is_not_cached(answer: &Answer) {
    let wanted = "no-store, no-cache, no-transform, must-revalidate, max-age=0";
    assert_eq!(answer.header("Cache-Control"), Some(wanted), "{answer:?}");
    assert_eq!((answer.header("Expires"), answer.header("Last-Modified")), (None, None), "{answer:?}");
}

#[track_caller]
fn is_cached(answer: &Answer) {
    assert_eq!(answer.header("Cache-Control"), Some("public, max-age=31536000"), "{answer:?}");
    let expires = answer.header("Expires").and_then(|date| httpdate::parse_http_date(date).ok());
    let left = expires.and_then(|date| date.duration_since(std::time::SystemTime::now()).ok());
    assert!(left.is_some_and(|left| left.as_secs() > 31_000_000), "{answer:?}");
    assert_eq!(answer.header("Last-Modified"), None, "{answer:?}");
}

/// What lets a page of that origin read it.
#[track_caller]
fn is_for(answer: &Answer, origin: Option<&str>) {
    assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(origin.unwrap_or("*")), "{answer:?}");
    let credentials = origin.map(|_| "true");
    assert_eq!(answer.header("Access-Control-Allow-Credentials"), credentials, "{answer:?}");
    assert_eq!(answer.header("Vary"), Some("Origin"), "{answer:?}");
}

#[track_caller]
fn has_no_cookie(answer: &Answer) {
    assert_eq!(answer.header("Set-Cookie"), None, "{answer:?}");
}

#[test]
fn the_greeting_and_what_is_nothing() {
    let program = lab();
    let mut client = program.client();
    for path in ["/sockjs/echo", "/sockjs/echo/"] {
        let answer = ask(&mut client, "GET", path, "", "");
        assert_eq!((answer.status, answer.text()), (200, "Welcome to SockJS!\n"));
        assert_eq!(answer.header("Content-Type"), TEXT_TYPE);
        has_no_cookie(&answer);
        assert_eq!(ask(&mut client, "HEAD", path, "", "").status, 200);
        assert_eq!(ask(&mut client, "POST", path, "", "").status, 405);
    }
    for path in ["/a", "/a.html", "//", "///", "/a/a", "/a/a/", "/a/", "/websocket/", "/info/", "/xhr"] {
        for method in ["GET", "POST", "OPTIONS"] {
            let answer = ask(&mut client, method, &format!("/sockjs/echo{path}"), "", "");
            assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
        }
    }
    // Parts of a session's URL that are none.
    for parts in ["//", "/a./a", "/a/a.", "/./.", "/", "///", "/a/a/a"] {
        for (method, end) in [("GET", "/xhr"), ("POST", "/xhr"), ("POST", "/xhr_send"), ("GET", "/websocket")] {
            let answer = ask(&mut client, method, &format!("/sockjs/echo{parts}{end}"), "", "");
            assert_eq!(answer.status, 404, "{method} {parts}{end}: {answer:?}");
        }
    }
    // Anything else is a part, and the session alone says which one it is.
    for parts in ["/a/A", "/_/_", "/1/1", "/abcdefgh_i-j%20/abcdefg_i-j%20"] {
        let answer = ask(&mut client, "POST", &format!("/sockjs/echo{parts}/xhr"), "", "");
        assert_eq!((answer.status, answer.text()), (200, "o\n"), "{parts}");
    }
    let id = new_session();
    assert_eq!(ask(&mut client, "POST", &format!("/sockjs/echo/000/{id}/xhr"), "", "").text(), "o\n");
    assert_eq!(ask(&mut client, "POST", &format!("/sockjs/echo/111/{id}/xhr_send"), "", "[\"x\"]").status, 204);
    assert_eq!(ask(&mut client, "POST", &format!("/sockjs/echo/222/{id}/xhr"), "", "").text(), "a[\"x\"]\n");
}

#[test]
fn the_page_for_frames() {
    let program = lab();
    let mut client = program.client();
    let page = "<!DOCTYPE html>\n<html>\n<head>\n  <meta http-equiv=\"X-UA-Compatible\" content=\"IE=edge\" />\n  \
        <meta http-equiv=\"Content-Type\" content=\"text/html; charset=UTF-8\" />\n  \
        <script src=\"/sockjs.js\"></script>\n  <script>\n    document.domain = document.domain;\n    \
        SockJS.bootstrap_iframe();\n  </script>\n</head>\n<body>\n  <h2>Don't panic!</h2>\n  \
        <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>\n</body>\n</html>";
    let names = [
        "iframe.html",
        "iframe-a.html",
        "iframe-.html",
        "iframe-0.1.2.html",
        "iframe-0.1.2abc-dirty.2144.html",
        "iframe-a.html?t=qweqweq123",
        "iframe-0.1.2.html?t=qweqweq123",
    ];
    let mut known = None;
    for name in names {
        let target = format!("/sockjs/echo/{name}");
        let answer = ask(&mut client, "GET", &target, "", "");
        assert_eq!((answer.status, answer.text()), (200, page), "{name}");
        assert_eq!(answer.header("Content-Type"), Some("text/html; charset=UTF-8"));
        is_cached(&answer);
        has_no_cookie(&answer);
        let etag = answer.header("ETag").expect("a tag").to_owned();
        assert_eq!(*known.get_or_insert(etag.clone()), etag);
        let answer = ask(&mut client, "GET", &target, &format!("If-None-Match: {etag}\r\n"), "");
        assert_eq!((answer.status, answer.header("Content-Type"), answer.text()), (304, None, ""));
        assert_eq!(ask(&mut client, "GET", &target, "If-None-Match: \"x\"\r\n", "").status, 200);
    }
    for name in ["iframe.htm", "iframe", "IFRAME.HTML", "IFRAME", "iframe.HTML", "iframe.xml", "iframe-/.html"] {
        assert_eq!(ask(&mut client, "GET", &format!("/sockjs/echo/{name}"), "", "").status, 404, "{name}");
    }
}

#[test]
fn info_is_fresh_and_for_every_page() {
    let program = lab();
    let mut client = program.client();
    let mut info = |service: &str, fields: &str| {
        let answer = ask(&mut client, "GET", &format!("/sockjs/{service}/info"), fields, "");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("Content-Type"), Some("application/json; charset=UTF-8"));
        is_not_cached(&answer);
        has_no_cookie(&answer);
        let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(json.as_object().expect("an object").len(), 4, "{json}");
        assert_eq!(json["origins"], serde_json::json!(["*:*"]));
        (answer, json)
    };
    let (answer, json) = info("echo", "");
    is_for(&answer, None);
    assert_eq!((&json["websocket"], &json["cookie_needed"]), (&true.into(), &false.into()));
    let others: Vec<u64> = (0..8).map(|_| info("echo", "").1["entropy"].as_u64().expect("a number")).collect();
    assert!(others.iter().all(|entropy| *entropy < 1 << 32) && others.iter().any(|entropy| *entropy != others[0]));
    is_for(&info("echo", "Origin: null\r\n").0, Some("null"));
    is_for(&info("echo", "Origin: test\r\n").0, Some("test"));
    assert_eq!(info("disabled_websocket_echo", "").1["websocket"], false);
    assert_eq!(info("cookie_needed_echo", "").1["cookie_needed"], true);
}

/// The question before a request, at each URL that pages of other origins use.
#[test]
fn preflights_are_answered_for_a_year() {
    let program = lab();
    let mut client = program.client();
    let session = session_url("echo");
    let urls = [
        ("/sockjs/echo/info".to_owned(), "OPTIONS, GET"),
        (format!("{session}/xhr"), "OPTIONS, POST"),
        (format!("{session}/xhr_streaming"), "OPTIONS, POST"),
        (format!("{session}/xhr_send"), "OPTIONS, POST"),
        (format!("{session}/eventsource"), "OPTIONS, GET"),
        (format!("{session}/htmlfile"), "OPTIONS, GET"),
        (format!("{session}/jsonp"), "OPTIONS, GET"),
        (format!("{session}/jsonp_send"), "OPTIONS, POST"),
    ];
    for (url, allowed) in urls {
        for origin in [None, Some("test"), Some("null")] {
            let fields = origin.map_or_else(String::new, |origin| format!("Origin: {origin}\r\n"));
            let answer = ask(&mut client, "OPTIONS", &url, &fields, "");
            assert_eq!((answer.status, answer.text()), (204, ""), "{url}");
            is_cached(&answer);
            is_for(&answer, origin);
            has_no_cookie(&answer);
            assert_eq!(answer.header("Access-Control-Allow-Methods"), Some(allowed), "{url}");
            let age = answer.header("Access-Control-Max-Age").and_then(|age| age.parse::<u32>().ok());
            assert!(age.is_some_and(|age| age > 1_000_000), "{answer:?}");
        }
    }
    // It has opened nothing.
    assert_eq!(ask(&mut client, "POST", &format!("{session}/xhr_send"), "", "[\"x\"]").status, 404);
}

/// The fields that a page wants to send are allowed, if it names some.
#[test]
fn a_page_of_another_origin_may_send_what_it_names() {
    let program = lab();
    let mut client = program.client();
    for (fields, origin, headers) in [
        ("", None, None),
        ("Origin: test\r\nAccess-Control-Request-Headers: a, b, c\r\n", Some("test"), Some("a, b, c")),
        ("Origin: null\r\nAccess-Control-Request-Headers: \r\n", Some("null"), None),
        ("Origin: null\r\n", Some("null"), None),
    ] {
        let url = session_url("echo");
        let answer = ask(&mut client, "POST", &format!("{url}/xhr"), fields, "");
        assert_eq!((answer.status, answer.text()), (200, "o\n"));
        is_for(&answer, origin);
        assert_eq!(answer.header("Access-Control-Allow-Headers"), headers);
        let answer = ask(&mut client, "POST", &format!("{url}/xhr_send"), fields, "[\"x\"]");
        assert_eq!(answer.status, 204);
        is_for(&answer, origin);
        assert_eq!(answer.header("Access-Control-Allow-Headers"), headers);
        // Also what is wrong.
        let answer = ask(&mut client, "POST", &format!("{url}/xhr_send"), fields, "");
        assert_eq!(answer.status, 500);
        is_for(&answer, origin);
        for (end, method) in [("xhr_streaming", "POST"), ("eventsource", "GET")] {
            let mut client = program.client();
            client.send(request(method, &format!("{}/{end}", session_url("echo")), fields, ""));
            is_for(&client.head(), origin);
        }
    }
}

#[test]
fn polls_and_what_is_sent() {
    let program = lab();
    let mut client = program.client();
    let url = session_url("echo");
    let (xhr, send) = (format!("{url}/xhr"), format!("{url}/xhr_send"));
    let unknown = ask(&mut client, "POST", &send, "", "[\"x\"]");
    assert_eq!((unknown.status, unknown.header("Content-Type")), (404, TEXT_TYPE));
    let answer = ask(&mut client, "POST", &xhr, "", "");
    assert_eq!((answer.status, answer.text()), (200, "o\n"));
    assert_eq!(answer.header("Content-Type"), SCRIPT_TYPE);
    assert_eq!(answer.header("Content-Length"), Some("2"));
    is_not_cached(&answer);
    is_for(&answer, None);
    has_no_cookie(&answer);
    let answer = ask(&mut client, "POST", &send, "", "[\"x\"]");
    assert_eq!((answer.status, answer.text(), answer.header("Content-Length")), (204, "", None));
    assert_eq!(answer.header("Content-Type"), TEXT_TYPE);
    is_not_cached(&answer);
    is_for(&answer, None);
    assert_eq!(ask(&mut client, "POST", &xhr, "", "").text(), "a[\"x\"]\n");
    // What is wrong ends nothing.
    for (body, status, text) in [
        ("[\"x", 500, "Broken JSON encoding."),
        ("", 500, "Payload expected."),
        ("[1]", 500, "Payload expected."),
        ("\"x\"", 500, "Payload expected."),
    ] {
        let answer = ask(&mut client, "POST", &send, "", body);
        assert_eq!((answer.status, answer.text()), (status, text), "{body}");
        assert_eq!(answer.header("Content-Type"), TEXT_TYPE);
    }
    // Nothing is taken for what its type says.
    let types =
        ["", "T", "application/json", "application/xml", "application/json; charset=utf-8", "text/xml", "text/plain"];
    for content_type in types {
        let answer = ask(&mut client, "POST", &send, &format!("Content-Type: {content_type}\r\n"), "[\"a\"]");
        assert_eq!((answer.status, answer.text()), (204, ""), "{content_type}");
    }
    let all = ["\"a\""; 7].join(",");
    assert_eq!(ask(&mut client, "POST", &xhr, "", "").text(), format!("a[{all}]\n"));
    // No messages are fine, and none of their own.
    assert_eq!(ask(&mut client, "POST", &send, "", "[]").status, 204);
    assert_eq!(ask(&mut client, "POST", &send, "", "[\"b\",\"c\"]").status, 204);
    assert_eq!(ask(&mut client, "POST", &xhr, "", "").text(), "a[\"b\",\"c\"]\n");
    // One that waits for something.
    client.send(request("POST", &xhr, "", ""));
    assert_eq!(ask(&mut program.client(), "POST", &send, "", "[\"d\"]").status, 204);
    assert_eq!(client.answer().text(), "a[\"d\"]\n");
    for (method, end, allowed) in [("GET", "xhr", "OPTIONS, POST"), ("PUT", "xhr_send", "OPTIONS, POST")] {
        let answer = ask(&mut client, method, &format!("{url}/{end}"), "", "");
        assert_eq!((answer.status, answer.header("Allow")), (405, Some(allowed)));
    }
}

/// What browsers, proxies and JavaScript would change.
#[test]
fn what_is_changed_on_the_way_is_escaped() {
    let program = lab();
    let mut client = program.client();
    let url = session_url("echo");
    assert_eq!(ask(&mut client, "POST", &format!("{url}/xhr"), "", "").text(), "o\n");
    let escaped: Vec<u32> = [0..=0x1f, 0x200c..=0x200f, 0x2028..=0x202f, 0x2060..=0x206f, 0xfff0..=0xffff]
        .into_iter()
        .flatten()
        .filter(|code| ![8, 9, 10, 12, 13].contains(code))
        .collect();
    let text: String = escaped.iter().filter_map(|code| char::from_u32(*code)).collect();
    let sent = serde_json::to_string(&[text]).expect("a string");
    assert_eq!(ask(&mut client, "POST", &format!("{url}/xhr_send"), "", &sent).status, 204);
    let wanted: String = escaped.iter().map(|code| format!("\\u{code:04x}")).collect();
    assert_eq!(ask(&mut client, "POST", &format!("{url}/xhr"), "", "").text(), format!("a[\"{wanted}\"]\n"));
    // Halves of pairs, which a string cannot have here.
    assert_eq!(ask(&mut client, "POST", &format!("{url}/xhr_send"), "", "[\"\\ud800 \\udc00\"]").status, 204);
    assert_eq!(ask(&mut client, "POST", &format!("{url}/xhr"), "", "").text(), "a[\"\\ufffd \\ufffd\"]\n");
}

/// A response that goes on: its head, then each piece a chunk of its own.
#[track_caller]
fn begin(client: &mut RawClient, transport: Transport, url: &str) -> Answer {
    let (method, end) = transport.request();
    client.send(request(method, &format!("{url}/{end}"), "", ""));
    let answer = client.head();
    assert_eq!((answer.status, answer.header("Transfer-Encoding")), (200, Some("chunked")), "{answer:?}");
    is_not_cached(&answer);
    has_no_cookie(&answer);
    answer
}

#[track_caller]
fn chunk(client: &mut RawClient) -> String {
    let chunk = client.chunk().expect("a chunk");
    String::from_utf8(chunk.expect("it goes on")).expect("UTF-8")
}

#[track_caller]
fn send(client: &mut RawClient, url: &str, body: &str) {
    let answer = ask(client, "POST", &format!("{url}/xhr_send"), "", body);
    assert_eq!(answer.status, 204, "{answer:?}");
}

/// It ends at its limit of 4,096 bytes, and the next request goes on over the same connection.
#[test]
fn a_streaming_response_ends_and_goes_on() {
    let (program, url) = (lab(), session_url("echo"));
    let (mut client, mut sender) = (program.client(), program.client());
    let answer = begin(&mut client, Transport::XhrStreaming, &url);
    assert_eq!(answer.header("Content-Type"), SCRIPT_TYPE);
    assert_eq!(answer.header("X-Accel-Buffering"), Some("no"));
    is_for(&answer, None);
    assert!(!answer.closes());
    let prelude = format!("{}\n", "h".repeat(2048));
    assert_eq!([chunk(&mut client), chunk(&mut client)], [prelude.clone(), "o\n".to_owned()]);
    let message = "x".repeat(128);
    for _ in 0..31 {
        send(&mut sender, &url, &format!("[\"{message}\"]"));
        assert_eq!(chunk(&mut client), format!("a[\"{message}\"]\n"));
    }
    assert_eq!(client.chunk(), Ok(None));
    // What is sent before it comes again is there for it.
    send(&mut sender, &url, "[\"between\"]");
    begin(&mut client, Transport::XhrStreaming, &url);
    assert_eq!([chunk(&mut client), chunk(&mut client)], [prelude, "a[\"between\"]\n".to_owned()]);
    send(&mut sender, &url, &format!("[\"{}\"]", "y".repeat(4096)));
    assert_eq!(chunk(&mut client).len(), 4096 + 6);
    assert_eq!(client.chunk(), Ok(None));
    // And by another transport.
    assert_eq!(ask(&mut sender, "POST", &format!("{url}/xhr_send"), "", "[\"end\"]").status, 204);
    assert_eq!(ask(&mut client, "POST", &format!("{url}/xhr"), "", "").text(), "a[\"end\"]\n");
    client.expect_alive("/hello");
}

#[test]
fn event_streams() {
    let (program, url) = (lab(), session_url("echo"));
    let (mut client, mut sender) = (program.client(), program.client());
    let answer = begin(&mut client, Transport::EventSource, &url);
    assert_eq!(answer.header("Content-Type"), Some("text/event-stream"));
    is_for(&answer, None);
    assert_eq!([chunk(&mut client), chunk(&mut client)], ["\r\n", "data: o\r\n\r\n"]);
    send(&mut sender, &url, "[\"test\"]");
    assert_eq!(chunk(&mut client), "data: a[\"test\"]\r\n\r\n");
    send(&mut sender, &url, "[\"  \\u0000\\n\\r  100% \"]");
    assert_eq!(chunk(&mut client), "data: a[\"  \\u0000\\n\\r  100%25 \"]\r\n\r\n");
    let large = "x".repeat(4096);
    send(&mut sender, &url, &format!("[\"{large}\"]"));
    assert_eq!(chunk(&mut client), format!("data: a[\"{large}\"]\r\n\r\n"));
    assert_eq!(client.chunk(), Ok(None));
    begin(&mut client, Transport::EventSource, &url);
    assert_eq!(chunk(&mut client), "\r\n");
    send(&mut sender, &url, "[\"again\"]");
    assert_eq!(chunk(&mut client), "data: a[\"again\"]\r\n\r\n");
}

#[test]
fn pages_that_go_on() {
    let (program, url) = (lab(), session_url("echo"));
    let (mut client, mut sender) = (program.client(), program.client());
    client.send(request("GET", &format!("{url}/htmlfile?c=%63allback"), "", ""));
    let answer = client.head();
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("text/html; charset=UTF-8")));
    is_not_cached(&answer);
    let head = "<!doctype html>\n<html><head>\n  <meta http-equiv=\"X-UA-Compatible\" content=\"IE=edge\" />\n  \
        <meta http-equiv=\"Content-Type\" content=\"text/html; charset=UTF-8\" />\n</head>\
        <body><h2>Don't panic!</h2>\n  <script>\n    document.domain = document.domain;\n    \
        var c = parent.callback;\n    c.start();\n    function p(d) {c.message(d);};\n    \
        window.onload = function() {c.stop();};\n  </script>";
    let first = chunk(&mut client);
    assert!(first.len() > 1024 && first.trim_end() == head, "{first:?}");
    assert_eq!(chunk(&mut client), "<script>\np(\"o\");\n</script>\r\n");
    send(&mut sender, &url, "[\"x\"]");
    assert_eq!(chunk(&mut client), "<script>\np(\"a[\\\"x\\\"]\");\n</script>\r\n");
    // A message is no script.
    send(&mut sender, &url, "[\"</script>\"]");
    assert_eq!(chunk(&mut client), "<script>\np(\"a[\\\"\\u003c\\/script>\\\"]\");\n</script>\r\n");
    let large = "x".repeat(4096);
    send(&mut sender, &url, &format!("[\"{large}\"]"));
    assert_eq!(chunk(&mut client), format!("<script>\np(\"a[\\\"{large}\\\"]\");\n</script>\r\n"));
    assert_eq!(client.chunk(), Ok(None));
    for end in ["htmlfile", "jsonp"] {
        for query in ["", "?c=", "?C=x"] {
            let answer = ask(&mut sender, "GET", &format!("{}/{end}{query}", session_url("echo")), "", "");
            assert_eq!((answer.status, answer.text()), (500, "\"callback\" parameter required"), "{end}{query}");
            is_not_cached(&answer);
        }
        for callback in ["%20", "*", "abc(", "abc%28", "a&c=b"] {
            let url = session_url("echo");
            let answer = ask(&mut sender, "GET", &format!("{url}/{end}?c={callback}"), "", "");
            assert_eq!((answer.status, answer.text()), (500, "invalid \"callback\" parameter"), "{end} {callback}");
            is_not_cached(&answer);
            // It has opened nothing.
            assert_eq!(ask(&mut sender, "POST", &format!("{url}/xhr_send"), "", "[\"x\"]").status, 404);
        }
    }
}

#[test]
fn scripts() {
    let (program, url) = (lab(), session_url("echo"));
    let mut client = program.client();
    let poll = format!("{url}/jsonp?c=%63allback");
    let answer = ask(&mut client, "GET", &poll, "", "");
    assert_eq!((answer.status, answer.text()), (200, "/**/callback(\"o\");\r\n"));
    assert_eq!(answer.header("Content-Type"), SCRIPT_TYPE);
    assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
    is_not_cached(&answer);
    let mut send = |content_type: &str, body: &str| {
        let fields = format!("Content-Type: {content_type}\r\n");
        let answer = ask(&mut client, "POST", &format!("{url}/jsonp_send"), &fields, body);
        if answer.status == 200 {
            assert_eq!((answer.header("Content-Type"), answer.text()), (TEXT_TYPE, "ok"));
            is_not_cached(&answer);
        }
        (answer.status, answer.text().to_owned())
    };
    let form = "application/x-www-form-urlencoded";
    assert_eq!(send(form, "d=%5B%22x%22%5D").0, 200);
    assert_eq!(send("text/plain", "[\"%61bc\"]").0, 200);
    assert_eq!(send(form, "d=%5B%22%25%32%30+%22%5D").0, 200);
    for (content_type, body) in [(form, "d="), (form, ""), (form, "p=p"), ("text/plain", "")] {
        assert_eq!(send(content_type, body), (500, "Payload expected.".to_owned()), "{body}");
    }
    for (content_type, body) in [(form, "d=%5B%22x"), ("text/plain", "[\"x")] {
        assert_eq!(send(content_type, body), (500, "Broken JSON encoding.".to_owned()), "{body}");
    }
    let answer = ask(&mut client, "GET", &poll, "", "");
    assert_eq!(answer.text(), "/**/callback(\"a[\\\"x\\\",\\\"%61bc\\\",\\\"%20 \\\"]\");\r\n");
    let unknown = format!("{}/jsonp_send", session_url("echo"));
    assert_eq!(ask(&mut client, "POST", &unknown, "", "[\"x\"]").status, 404);
    let answer = ask(&mut client, "GET", &format!("{}/jsonp?c=x", session_url("close")), "", "");
    assert_eq!(answer.text(), "/**/x(\"o\");\r\n");
}

#[test]
fn websockets_have_frames() {
    let program = lab();
    let target = format!("{}/websocket", session_url("echo"));
    let mut one = WebSocket::open(&program.bound[0], &target);
    assert_eq!(one.text(), "o");
    // Nothing, and no messages, are nothing.
    one.say("").say("[]").say("[\"a\"]").say("[\"b\",\"c\"]").say("\"d\"");
    let mut heard = Vec::new();
    while heard.len() < 4 {
        heard.extend(crate::common::sockjs::messages(&one.text()));
    }
    assert_eq!(heard, ["a", "b", "c", "d"]);
    // The id of a session means nothing here.
    let mut other = WebSocket::open(&program.bound[0], &target);
    assert_eq!(other.text(), "o");
    other.say("[\"other\"]");
    assert_eq!(other.text(), "a[\"other\"]");
    one.close(1000);
    other.close(3001);
    for broken in ["[\"a", "\"a", "a", "{}", "1"] {
        let mut socket = WebSocket::open(&program.bound[0], &target);
        assert_eq!(socket.text(), "o");
        socket.say(broken);
        assert_eq!(socket.next().0, CLOSE, "{broken}");
        socket.client.expect_fin();
    }
    let mut socket = WebSocket::open(&program.bound[0], &target);
    assert_eq!(socket.text(), "o");
    socket.send(BINARY, b"[\"a\"]");
    assert_eq!(socket.next().0, CLOSE);
    let mut socket = WebSocket::open(&program.bound[0], &format!("{}/websocket", session_url("close")));
    assert_eq!([socket.text(), socket.text()], ["o", GO_AWAY]);
    assert_eq!(socket.closed(), (3000, "Go away!".to_owned()));
    // Each byte by itself.
    let mut socket = WebSocket::open(&program.bound[0], &target);
    assert_eq!(socket.text(), "o");
    for byte in WebSocket::frame(0x80 | TEXT, "[\"ä\",\"b\"]".as_bytes()) {
        socket.client.send([byte]);
    }
    assert_eq!(socket.text(), "a[\"ä\",\"b\"]");
}

#[test]
fn a_websocket_without_frames() {
    let program = lab();
    let mut raw = WebSocket::open(&program.bound[0], "/sockjs/echo/websocket");
    raw.say("Hello world!\u{ffff}");
    assert_eq!(raw.text(), "Hello world!\u{ffff}");
    raw.send(BINARY, b"\xff");
    assert_eq!(raw.next(), (BINARY, b"\xff".to_vec()));
    raw.close(1000);
    let mut raw = WebSocket::open(&program.bound[0], "/sockjs/close/websocket");
    assert_eq!(raw.closed(), (3000, "Go away!".to_owned()));
    raw.send(CLOSE, &3000_u16.to_be_bytes()).client.expect_fin();
}

#[test]
fn what_is_no_websocket_is_told_so() {
    let program = lab();
    let mut client = program.client();
    let url = session_url("echo");
    let answer = ask(&mut client, "GET", &format!("{url}/websocket"), "", "");
    assert_eq!((answer.status, answer.text()), (400, "Can \"Upgrade\" only to \"WebSocket\"."));
    let ask_by = |text: String| {
        let mut client = program.client();
        client.send(text);
        client.answer()
    };
    let asked = WebSocket::request(&format!("{url}/websocket"), "");
    let answer = ask_by(asked.replace("Connection: Upgrade", "Connection: close"));
    assert_eq!((answer.status, answer.text()), (400, "\"Connection\" must be \"Upgrade\"."));
    for (end, method) in [("websocket", "POST"), ("websocket", "PUT")] {
        let answer = ask(&mut client, method, &format!("{url}/{end}"), "", "");
        assert_eq!((answer.status, answer.text()), (405, ""));
        assert_eq!((answer.header("Content-Type"), answer.header("Allow").is_some()), (None, true));
    }
    let answer = ask(&mut client, "POST", "/sockjs/echo/websocket", "", "");
    assert_eq!((answer.status, answer.text(), answer.header("Content-Type")), (405, "", None));
    // Where there are none.
    let disabled = asked.replace("/echo/", "/disabled_websocket_echo/");
    assert_eq!(ask_by(disabled).status, 404);
    assert_eq!(ask_by(WebSocket::request("/sockjs/disabled_websocket_echo/websocket", "")).status, 404);
    // HTTP/1.0 has none.
    let answer = ask_by(asked.replace("HTTP/1.1", "HTTP/1.0"));
    assert!((400..500).contains(&answer.status), "{answer:?}");
}

#[test]
fn who_is_closed_is_told_so_again() {
    let program = lab();
    for transport in Transport::OF_REQUESTS {
        let mut session = Session::open(&program.bound[0], "/sockjs/close", transport);
        for _ in 0..4 {
            assert_eq!(session.frame(), GO_AWAY, "{transport:?}");
        }
        // It does not know yet, and hears why.
        session.say(&["too late"]);
        assert_eq!(session.frame(), GO_AWAY, "{transport:?}");
    }
    // The response of a stream ends behind that.
    let (mut client, url) = (program.client(), session_url("close"));
    begin(&mut client, Transport::XhrStreaming, &url);
    assert_eq!([chunk(&mut client).len(), chunk(&mut client).len()], [2049, 2]);
    assert_eq!((chunk(&mut client), client.chunk()), (format!("{GO_AWAY}\n"), Ok(None)));
    client.expect_alive("/hello");
}

#[test]
fn a_second_receiver_is_refused_and_the_first_one_stays() {
    let program = lab();
    let another = "c[2010,\"Another connection still open\"]";
    for transport in [Transport::XhrStreaming, Transport::EventSource, Transport::HtmlFile] {
        let mut session = Session::open(&program.bound[0], "/sockjs/echo", transport);
        for other in Transport::OF_REQUESTS {
            let mut second = Session::new(&program.bound[0], &session.url, other, "");
            assert_eq!([second.frame(), second.frame()], [another, another], "{transport:?} {other:?}");
        }
        session.say(&["the first"]);
        assert_eq!(session.message(), "the first", "{transport:?}");
    }
    // Of two polls nobody knows which one came first.
    for transport in [Transport::Xhr, Transport::Jsonp] {
        let mut one = Session::open(&program.bound[0], "/sockjs/echo", transport);
        let mut other = Session::new(&program.bound[0], &one.url, Transport::Xhr, "");
        one.ask();
        other.ask();
        eventually("one is refused", || one.client().has_answer() || other.client().has_answer());
        let (first, second) = if one.client().has_answer() { (&mut other, &mut one) } else { (&mut one, &mut other) };
        assert_eq!(second.frame(), another);
        second.say(&["the first"]);
        assert_eq!(first.message(), "the first", "{transport:?}");
    }
}

/// Nobody knows what of it has arrived.
#[test]
fn a_broken_connection_ends_its_session() {
    let program = lab();
    for transport in [Transport::XhrStreaming, Transport::EventSource, Transport::HtmlFile] {
        for vanishes in [false, true] {
            let mut session = Session::open(&program.bound[0], "/sockjs/echo", transport);
            let url = session.url.clone();
            session.say(&["x"]);
            assert_eq!(session.message(), "x");
            let (client, _) = session.into_clients();
            if vanishes {
                client.vanish()
            } else {
                drop(client)
            }
            let mut next = Session::new(&program.bound[0], &url, Transport::Xhr, "");
            let mut frame = next.frame();
            eventually("it has gone", || {
                let over = !frame.starts_with("c[2010,");
                if !over {
                    frame = next.frame();
                }
                over
            });
            assert_eq!(frame, "c[1002,\"Connection interrupted\"]", "{transport:?}");
        }
    }
}

#[test]
fn a_balancer_gets_its_cookie_where_it_is_wanted() {
    let program = lab();
    let mut client = program.client();
    for path in ["", "/", "/info", "/iframe.html"] {
        has_no_cookie(&ask(&mut client, "GET", &format!("/sockjs/cookie_needed_echo{path}"), "", ""));
    }
    for transport in Transport::OF_REQUESTS {
        for (fields, wanted) in [
            ("", "JSESSIONID=dummy; path=/"),
            ("Cookie: JSESSIONID=abcdef\r\n", "JSESSIONID=abcdef; path=/"),
            ("Cookie: a=b; JSESSIONID=x.1; c\r\n", "JSESSIONID=x.1; path=/"),
        ] {
            let (url, (method, end)) = (session_url("cookie_needed_echo"), transport.request());
            let mut client = program.client();
            client.send(request(method, &format!("{url}/{end}"), fields, ""));
            assert_eq!(client.head().header("Set-Cookie"), Some(wanted), "{transport:?}");
            let (end, body) = match transport {
                Transport::Jsonp => ("jsonp_send", "[\"x\"]"),
                _ => ("xhr_send", "[\"x\"]"),
            };
            let answer = ask(&mut program.client(), "POST", &format!("{url}/{end}"), fields, body);
            assert_eq!(answer.header("Set-Cookie"), Some(wanted), "{transport:?}");
        }
    }
    let mut raw = WebSocket::open(&program.bound[0], &format!("{}/websocket", session_url("cookie_needed_echo")));
    assert_eq!(raw.text(), "o");
}

#[test]
fn what_one_says_everybody_hears() {
    let program = lab();
    let mut all = Transport::ALL.map(|transport| Session::open(&program.bound[0], "/sockjs/broadcast", transport));
    for speaker in 0..all.len() {
        let text = format!("from {speaker}");
        all[speaker].say(&[&text]);
        for session in &mut all {
            assert_eq!(session.message(), text);
        }
    }
}

/// The head comes in two reads, or the body, or all of it in single bytes.
#[test]
fn a_request_may_come_in_any_pieces() {
    let (program, url) = (lab(), session_url("echo"));
    let (mut client, mut poller) = (program.client(), program.client());
    assert_eq!(ask(&mut poller, "POST", &format!("{url}/xhr"), "", "").text(), "o\n");
    let sent = request("POST", &format!("{url}/xhr_send"), "", "[\"aé b\"]");
    let polled = request("POST", &format!("{url}/xhr"), "", "");
    for cut in 1..sent.len() {
        client.send(&sent.as_bytes()[..cut]).send(&sent.as_bytes()[cut..]);
        let at = cut % (polled.len() - 1) + 1;
        poller.send(&polled.as_bytes()[..at]).send(&polled.as_bytes()[at..]);
        assert_eq!(client.answer().status, 204);
        assert_eq!(poller.answer().text(), "a[\"aé b\"]\n");
    }
    client.try_send_in_steps(sent.as_bytes(), 1).expect("it is taken");
    poller.try_send_in_steps(polled.as_bytes(), 1).expect("it is taken");
    assert_eq!(client.answer().status, 204);
    assert_eq!(poller.answer().text(), "a[\"aé b\"]\n");
    // A body in chunks.
    let chunks = format!(
        "POST {url}/xhr_send HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[\"\r\n3\r\nx\"]\r\n0\r\n\r\n"
    );
    client.send(chunks);
    assert_eq!(client.answer().status, 204);
    assert_eq!(ask(&mut poller, "POST", &format!("{url}/xhr"), "", "").text(), "a[\"x\"]\n");
}

#[test]
fn requests_in_one_piece_are_answered_in_their_order() {
    let (program, url) = (lab(), session_url("echo"));
    let mut client = program.client();
    let poll = request("POST", &format!("{url}/xhr"), "", "");
    let sent = |text: &str| request("POST", &format!("{url}/xhr_send"), "", &format!("[\"{text}\"]"));
    let hello = "GET /hello HTTP/1.1\r\nHost: test\r\n\r\n";
    client.send([&poll[..], &sent("a"), &poll, &sent("b"), &sent("c"), &poll, hello].concat());
    let mut answers = (0..7).map(|_| client.answer()).collect::<Vec<_>>().into_iter();
    let mut next = || answers.next().map(|answer| (answer.status, answer.text().to_owned())).expect("seven");
    assert_eq!(next(), (200, "o\n".to_owned()));
    assert_eq!(next().0, 204);
    assert_eq!(next(), (200, "a[\"a\"]\n".to_owned()));
    assert_eq!([next().0, next().0], [204, 204]);
    assert_eq!(next(), (200, "a[\"b\",\"c\"]\n".to_owned()));
    assert_eq!(next(), (200, "hello world".to_owned()));
    // Behind a stream they wait for its end.
    let stream = request("POST", &format!("{url}/xhr_streaming"), "", "");
    client.send([&stream[..], hello].concat());
    assert_eq!(client.head().status, 200);
    assert_eq!(chunk(&mut client).len(), 2049);
    send(&mut program.client(), &url, &format!("[\"{}\"]", "x".repeat(4096)));
    assert_eq!((chunk(&mut client).len(), client.chunk()), (4096 + 6, Ok(None)));
    assert_eq!(client.answer().text(), "hello world");
}

#[test]
fn clients_of_http_1_0() {
    let (program, url) = (lab(), session_url("echo"));
    let old = |method: &str, end: &str, body: &str| {
        let mut client = program.client();
        let text = request(method, &format!("{url}/{end}"), "", body).replace("HTTP/1.1", "HTTP/1.0");
        client.send(text);
        client
    };
    let mut client = old("POST", "xhr", "");
    let answer = client.answer();
    assert_eq!((answer.text(), answer.header("Transfer-Encoding"), answer.closes()), ("o\n", None, true));
    client.expect_fin();
    assert_eq!(old("POST", "xhr_send", "[\"x\"]").answer().status, 204);
    let mut client = old("POST", "xhr_streaming", "");
    let head = client.head();
    assert_eq!((head.status, head.header("Transfer-Encoding"), head.header("Content-Length")), (200, None, None));
    let first = format!("{}\na[\"x\"]\n", "h".repeat(2048));
    assert_eq!(client.read_exactly(first.len()), Ok(first.into_bytes()));
    assert_eq!(old("POST", "xhr_send", &format!("[\"{}\"]", "y".repeat(4096))).answer().status, 204);
    let (rest, ending) = client.rest();
    assert_eq!((rest.len(), ending), (4096 + 6, Ending::Fin));
    // And the session goes on.
    assert_eq!(old("POST", "xhr_send", "[\"z\"]").answer().status, 204);
    assert_eq!(old("POST", "xhr", "").answer().text(), "a[\"z\"]\n");
}

#[test]
fn an_id_has_so_many_bytes_and_no_more() {
    let program = lab();
    let mut client = program.client();
    let (longest, longer) = ("x".repeat(128), "x".repeat(129));
    let answer = ask(&mut client, "POST", &format!("/sockjs/echo/000/{longest}/xhr"), "", "");
    assert_eq!((answer.status, answer.text()), (200, "o\n"));
    for end in ["xhr", "xhr_send", "xhr_streaming"] {
        assert_eq!(ask(&mut client, "POST", &format!("/sockjs/echo/000/{longer}/{end}"), "", "[]").status, 404);
    }
    let answer = ask(&mut client, "POST", &format!("/sockjs/echo/{longer}/{longest}y/xhr"), "", "");
    assert_eq!(answer.status, 404);
}
