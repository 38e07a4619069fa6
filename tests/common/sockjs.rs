//! One session of SockJS, byte for byte, over whichever transport.

use super::{Answer, Ending, RawClient, WebSocket};
use handover::Bound;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How it gets its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Xhr,
    XhrStreaming,
    EventSource,
    HtmlFile,
    Jsonp,
    WebSocket,
}

impl Transport {
    pub const ALL: [Transport; 6] = [
        Transport::Xhr,
        Transport::XhrStreaming,
        Transport::EventSource,
        Transport::HtmlFile,
        Transport::Jsonp,
        Transport::WebSocket,
    ];
    /// Those whose session outlives a connection.
    pub const OF_REQUESTS: [Transport; 5] =
        [Transport::Xhr, Transport::XhrStreaming, Transport::EventSource, Transport::HtmlFile, Transport::Jsonp];

    /// The method and the end of the URL.
    pub fn request(self) -> (&'static str, &'static str) {
        match self {
            Transport::Xhr => ("POST", "xhr"),
            Transport::XhrStreaming => ("POST", "xhr_streaming"),
            Transport::EventSource => ("GET", "eventsource"),
            Transport::HtmlFile => ("GET", "htmlfile?c=callback"),
            Transport::Jsonp => ("GET", "jsonp?c=callback"),
            Transport::WebSocket => ("GET", "websocket"),
        }
    }

    fn is_polling(self) -> bool {
        matches!(self, Transport::Xhr | Transport::Jsonp)
    }

    /// The frame in what a response has of one.
    #[track_caller]
    fn unwrap(self, piece: &str) -> String {
        let (before, after) = match self {
            Transport::Xhr | Transport::XhrStreaming => ("", "\n"),
            Transport::EventSource => ("data: ", "\r\n\r\n"),
            Transport::HtmlFile => ("<script>\np(", ");\n</script>\r\n"),
            Transport::Jsonp => ("/**/callback(", ");\r\n"),
            Transport::WebSocket => ("", ""),
        };
        let inner = piece.strip_prefix(before).and_then(|piece| piece.strip_suffix(after));
        let inner = inner.unwrap_or_else(|| panic!("no frame of {self:?}: {piece:?}"));
        match self {
            Transport::HtmlFile | Transport::Jsonp => serde_json::from_str(inner).expect("a string"),
            Transport::EventSource => percent_encoding::percent_decode_str(inner).decode_utf8_lossy().into_owned(),
            _ => inner.to_owned(),
        }
    }
}

/// An id that no other session of this process has.
pub fn new_session() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("s{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A request with these fields, each with its line end.
pub fn request(method: &str, target: &str, fields: &str, body: &str) -> String {
    let length = match method {
        "POST" => format!("Content-Length: {}\r\n", body.len()),
        _ => String::new(),
    };
    format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{length}{fields}\r\n{body}")
}

/// Its answer, over a connection that goes on.
#[track_caller]
pub fn ask(client: &mut RawClient, method: &str, target: &str, fields: &str, body: &str) -> Answer {
    client.send(request(method, target, fields, body));
    if method == "HEAD" { client.answer_to_head() } else { client.answer() }
}

/// The messages of a frame, which has some.
#[track_caller]
pub fn messages(frame: &str) -> Vec<String> {
    let json = frame.strip_prefix('a').unwrap_or_else(|| panic!("no messages: {frame:?}"));
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {frame:?}"))
}

/// A session, and the connections that its client has for it.
pub struct Session {
    transport: Transport,
    /// The URL of the session, with its slash at the end.
    pub url: String,
    fields: String,
    line: Line,
    sender: RawClient,
    /// What has come and was not asked for.
    waiting: VecDeque<String>,
}

enum Line {
    /// What it asks on, and whether a response is on its way there.
    Requests {
        client: RawClient,
        asked: bool,
    },
    WebSocket(Box<WebSocket>),
}

impl Session {
    /// Opens one below that prefix.
    #[track_caller]
    pub fn open(bound: &Bound, base: &str, transport: Transport) -> Session {
        Session::open_with(bound, base, transport, "")
    }

    /// The same, with these fields in each request.
    #[track_caller]
    pub fn open_with(bound: &Bound, base: &str, transport: Transport, fields: &str) -> Session {
        let mut session = Session::new(bound, &format!("{base}/000/{}/", new_session()), transport, fields);
        assert_eq!(session.frame(), "o", "{transport:?}");
        session
    }

    /// One with that URL, for which nothing was asked yet; or a WebSocket.
    #[track_caller]
    pub fn new(bound: &Bound, url: &str, transport: Transport, fields: &str) -> Session {
        let line = match transport {
            Transport::WebSocket => {
                let target = format!("{url}{}", transport.request().1);
                Line::WebSocket(Box::new(WebSocket::open_with(bound, &target, fields)))
            }
            _ => Line::Requests { client: RawClient::to(bound), asked: false },
        };
        let (url, fields, sender) = (url.to_owned(), fields.to_owned(), RawClient::to(bound));
        Session { transport, url, fields, line, sender, waiting: VecDeque::new() }
    }

    /// The connection on which it gets its frames.
    pub fn client(&mut self) -> &mut RawClient {
        match &mut self.line {
            Line::Requests { client, .. } => client,
            Line::WebSocket(socket) => &mut socket.client,
        }
    }

    /// Leaves its connections to whoever wants to break one: that of its frames, and that of what it sends.
    pub fn into_clients(self) -> (RawClient, RawClient) {
        match self.line {
            Line::Requests { client, .. } => (client, self.sender),
            Line::WebSocket(socket) => (socket.client, self.sender),
        }
    }

    /// Asks for frames, unless a response is on its way.
    #[track_caller]
    pub fn ask(&mut self) -> &mut Session {
        let (method, name) = self.transport.request();
        if let Line::Requests { client, asked: asked @ false } = &mut self.line {
            client.send(request(method, &format!("{}{name}", self.url), &self.fields, ""));
            *asked = true;
            if !self.transport.is_polling() {
                let answer = client.head();
                assert_eq!(answer.status, 200, "{answer:?}");
                let prelude = client.chunk().expect("a chunk");
                assert!(prelude.is_some_and(|prelude| !prelude.starts_with(b"data: ")));
            }
        }
        self
    }

    /// The next frame; where a response ends before it comes, another is asked for.
    #[track_caller]
    pub fn frame(&mut self) -> String {
        self.try_frame().unwrap_or_else(|wrong| panic!("{:?}: {wrong}", self.transport))
    }

    /// The same, or what came instead.
    pub fn try_frame(&mut self) -> Result<String, String> {
        loop {
            self.ask();
            let (client, asked) = match &mut self.line {
                Line::WebSocket(socket) => {
                    return match socket.try_next() {
                        Ok((super::websocket::TEXT, payload)) => Ok(String::from_utf8(payload).expect("UTF-8")),
                        Ok((opcode, payload)) => Err(format!("a frame {opcode}: {payload:?}")),
                        Err((ending, _)) => Err(format!("{ending:?}")),
                    };
                }
                Line::Requests { client, asked } => (client, asked),
            };
            if self.transport.is_polling() {
                let answer = client.try_answer(false).map_err(|(ending, rest)| said(ending, &rest))?;
                *asked = false;
                if answer.status != 200 {
                    return Err(format!("{answer:?}"));
                }
                return Ok(self.transport.unwrap(answer.text()));
            }
            match client.chunk().map_err(|(ending, rest)| said(ending, &rest))? {
                Some(piece) => return Ok(self.transport.unwrap(std::str::from_utf8(&piece).expect("UTF-8"))),
                None => *asked = false,
            }
        }
    }

    /// The next message, whatever heartbeats come before.
    #[track_caller]
    pub fn message(&mut self) -> String {
        self.try_message().unwrap_or_else(|wrong| panic!("{:?}: {wrong}", self.transport))
    }

    /// The same, or what came instead.
    pub fn try_message(&mut self) -> Result<String, String> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Ok(message);
            }
            match self.try_frame()? {
                frame if frame == "h" => {}
                frame if frame.starts_with('a') => self.waiting.extend(messages(&frame)),
                frame => return Err(frame),
            }
        }
    }

    /// The next frame that is no heartbeat.
    #[track_caller]
    pub fn closed(&mut self) -> String {
        self.try_closed().unwrap_or_else(|wrong| panic!("{:?}: {wrong}", self.transport))
    }

    /// The same, or what came instead.
    pub fn try_closed(&mut self) -> Result<String, String> {
        loop {
            match self.try_frame()? {
                frame if frame == "h" => {}
                frame => return Ok(frame),
            }
        }
    }

    /// Sends messages.
    #[track_caller]
    pub fn say(&mut self, texts: &[&str]) -> &mut Session {
        self.try_say(texts).unwrap_or_else(|wrong| panic!("{:?}: {wrong}", self.transport));
        self
    }

    /// The same, or what came instead.
    pub fn try_say(&mut self, texts: &[&str]) -> Result<(), String> {
        let json = serde_json::to_string(texts).expect("strings");
        let sender = &mut self.sender;
        match (&mut self.line, self.transport) {
            (Line::WebSocket(socket), _) => _ = socket.say(&json),
            (_, Transport::Jsonp) => {
                let body = percent_encoding::utf8_percent_encode(&json, percent_encoding::NON_ALPHANUMERIC);
                let form = format!("Content-Type: application/x-www-form-urlencoded\r\n{}", self.fields);
                sender.send(request("POST", &format!("{}jsonp_send", self.url), &form, &format!("d={body}")));
                let answer = sender.try_answer(false).map_err(|(ending, rest)| said(ending, &rest))?;
                if (answer.status, answer.text()) != (200, "ok") {
                    return Err(format!("{answer:?}"));
                }
            }
            _ => {
                sender.send(request("POST", &format!("{}xhr_send", self.url), &self.fields, &json));
                let answer = sender.try_answer(false).map_err(|(ending, rest)| said(ending, &rest))?;
                if answer.status != 204 {
                    return Err(format!("{answer:?}"));
                }
            }
        }
        Ok(())
    }
}

fn said(ending: Ending, rest: &[u8]) -> String {
    format!("{ending:?} after {:.300}", String::from_utf8_lossy(rest))
}
