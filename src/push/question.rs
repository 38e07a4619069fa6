//! What a client asks for: topics, where to begin, and in which form.

use crate::api::{IntoResponse, Request, Response, known_header};
use percent_encoding::percent_decode_str;
use pubsub::{Begin, Form, KEY_LENGTH, Position, Start};
use std::time::Duration;
use tiny_http::StatusCode;

/// How long a poll waits, unless it says so, and at most.
const WAIT: Duration = Duration::from_secs(25);
const LONGEST_WAIT: u64 = 60;
/// Topics of one subscriber.
pub(super) const TOPICS: usize = 32;

/// What is wrong with a request: a status and one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub status: u16,
    pub what: String,
    /// Of an answer to who has no token, or a wrong one (RFC 6750 §3).
    pub challenge: Option<&'static str>,
}

impl Wrong {
    pub fn new(status: u16, what: impl Into<String>) -> Wrong {
        Wrong { status, what: what.into(), challenge: None }
    }

    pub fn with_challenge(self, challenge: &'static str) -> Wrong {
        Wrong { challenge: Some(challenge), ..self }
    }

    /// The same, with this in front.
    pub fn behind(self, said: std::fmt::Arguments<'_>) -> Wrong {
        Wrong { what: format!("{said}: {}", self.what), ..self }
    }

    pub fn into_response(self) -> Response {
        let Wrong { status, what, challenge } = self;
        let text = format!("{status} {}: {what}\n", StatusCode(status).default_reason_phrase());
        let response = (StatusCode(status), text).into_response();
        let response = response.with_header(known_header("Cache-Control", "no-store"));
        let response = response.with_header(known_header("Vary", "Origin"));
        let response = match challenge {
            Some(challenge) => response.with_header(known_header("WWW-Authenticate", challenge)),
            None => response,
        };
        match status {
            503 => response.with_header(known_header("Retry-After", "1")),
            _ => response,
        }
    }
}

/// What was asked, as far as a request says it.
#[derive(Debug)]
pub(super) struct Question {
    pub topics: Vec<String>,
    pub begin: Begin,
    pub form: Form,
    /// Of a poll.
    pub wait: Duration,
    /// Of a publication.
    pub event: Option<String>,
}

impl Question {
    /// Reads the query and the fields of who subscribes.
    pub fn read(request: &Request) -> Result<Question, Wrong> {
        let mut question = Question::read_query(request)?;
        question.form.poll = wants_json(request);
        // An EventSource repeats the query whenever it comes back, with what it has heard last beside it. What it says is
        // what some server gave it: an error would end it for good.
        if let Some(id) = request.header_bytes("Last-Event-ID").filter(|id| !id.is_empty()) {
            let position = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
            question.begin = position.map_or(Begin::Unknown, Begin::From);
        }
        Ok(question)
    }

    /// Reads the query alone: a publication has no more.
    pub fn read_query(request: &Request) -> Result<Question, Wrong> {
        let mut question = Question {
            topics: Vec::new(),
            begin: Begin::At(Start::Now),
            form: Form::default(),
            wait: WAIT,
            event: None,
        };
        for (name, value) in request.query().unwrap_or_default().split('&').filter_map(pair) {
            let value =
                || strictly_decoded(value, true).map_err(|()| bad(name, value, "UTF-8 that is percent-encoded"));
            match name {
                "topic" => question.topics.push(value()?),
                "since" => question.begin = since(&value()?)?,
                "wait" => question.wait = wait(&value()?)?,
                "event" => question.event = Some(value()?),
                "format" => match &*value()? {
                    "json" => question.form.json = true,
                    other => return Err(bad("format", other, "json")),
                },
                "beat" => match &*value()? {
                    "1" => question.form.beat = true,
                    "0" => question.form.beat = false,
                    other => return Err(bad("beat", other, "1")),
                },
                // A token, which is looked for elsewhere, or a browser's cache buster: not ours to refuse.
                _ => {}
            }
        }
        Ok(question)
    }
}

pub(super) fn pair(pair: &str) -> Option<(&str, &str)> {
    (!pair.is_empty()).then(|| pair.split_once('=').unwrap_or((pair, "")))
}

fn bad(name: &str, value: &str, allowed: &str) -> Wrong {
    Wrong::new(400, format!("{name} is {:.80?}, allowed is {allowed}", value))
}

fn since(text: &str) -> Result<Begin, Wrong> {
    Ok(match text {
        "start" => Begin::At(Start::Oldest),
        "last" => Begin::At(Start::Last),
        position => {
            let position: Position = position
                .parse()
                .map_err(|_| bad("since", position, "start, last, or a position as it was given: EPOCH-OFFSET"))?;
            Begin::From(position)
        }
    })
}

fn wait(text: &str) -> Result<Duration, Wrong> {
    let seconds = http1::number::decimal(text).filter(|seconds: &u64| *seconds <= LONGEST_WAIT);
    seconds.map(Duration::from_secs).ok_or_else(|| bad("wait", text, "0 to 60 seconds"))
}

/// Decodes what is percent-encoded; what is not rightly so, or no UTF-8, is an error. In a query `+` is a space.
pub(super) fn strictly_decoded(text: &str, query: bool) -> Result<String, ()> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Ok(text.to_owned());
    }
    let text = if query { text.replace('+', " ") } else { text.to_owned() };
    let mut escapes = text.split('%').skip(1);
    let right = |escape: &str| escape.len() >= 2 && escape.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !escapes.all(right) {
        return Err(());
    }
    percent_decode_str(&text).decode_utf8().map(Into::into).map_err(drop)
}

/// Whether a poll is asked for: JSON is, and more than an event stream. Without a word of either it is a stream.
fn wants_json(request: &Request) -> bool {
    let (mut json, mut stream) = (0.0, 0.0);
    let values = request.header_values("Accept").filter_map(|value| std::str::from_utf8(value).ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let quality: f32 = quality.and_then(|quality| quality.parse().ok()).unwrap_or(1.0);
        if media_type.eq_ignore_ascii_case("application/json") {
            json = quality;
        } else if media_type.eq_ignore_ascii_case("text/event-stream") {
            stream = quality;
        }
    }
    json > stream
}

/// The Idempotency-Key, quoted as the draft of that field wants it, or not.
pub(super) fn key(request: &Request) -> Result<Option<String>, Wrong> {
    let mut keys = request.header_values("Idempotency-Key");
    let Some(key) = keys.next() else { return Ok(None) };
    let key = std::str::from_utf8(key).unwrap_or_default();
    let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    let fits = (1..=KEY_LENGTH).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    match fits && keys.next().is_none() {
        true => Ok(Some(key.to_owned())),
        false => {
            let allowed = format!("allowed is one of 1 to {KEY_LENGTH} visible ASCII characters, quoted or not");
            Err(Wrong::new(400, format!("Idempotency-Key: {allowed}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(query: &str, fields: &str) -> Result<Question, Wrong> {
        let head = format!("GET /events{query} HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
        Question::read(&Request::from_head(head.as_bytes()).expect("a head"))
    }

    #[test]
    fn a_query_says_what_is_wanted() {
        let question = ask("?topic=a+b&topic=%C3%A9%2B&since=last&wait=0&format=json&beat=1&_=7&", "").expect("right");
        assert_eq!(question.topics, ["a b", "é+"]);
        assert_eq!((question.begin, question.wait), (Begin::At(Start::Last), Duration::ZERO));
        assert_eq!(question.form, Form { json: true, beat: true, ..Form::default() });
        let position = |epoch, offset| Begin::From(Position { epoch, offset });
        assert_eq!(ask("?since=7-1", "Last-Event-ID: 7-9\r\n").expect("right").begin, position(7, 9));
        assert_eq!(ask("", "Last-Event-ID: from elsewhere\r\n").expect("right").begin, Begin::Unknown);
        assert_eq!(ask("?since=7-1", "Last-Event-ID: \r\n").expect("right").begin, position(7, 1));
    }

    #[test]
    fn what_nobody_can_mean_is_told_in_a_line() {
        for (query, says) in [
            ("?since=x", "since is \"x\", allowed is start, last"),
            ("?wait=61", "wait is \"61\", allowed is 0 to 60 seconds"),
            ("?wait=-1", "wait"),
            ("?format=xml", "allowed is json"),
            ("?topic=%ff", "topic is \"%ff\", allowed is UTF-8"),
            ("?topic=%2", "topic"),
            ("?beat=yes", "beat"),
        ] {
            let Err(Wrong { status, what, .. }) = ask(query, "") else { panic!("{query}") };
            assert!(status == 400 && what.contains(says) && !what.contains('\n'), "{query}: {what}");
        }
    }

    #[test]
    fn accept_says_whether_it_is_a_poll() {
        for (accept, poll) in [
            ("", false),
            ("Accept: text/event-stream\r\n", false),
            ("Accept: */*\r\n", false),
            ("Accept: application/json\r\n", true),
            ("Accept: Application/JSON;q=0.5, text/html\r\n", true),
            ("Accept: application/json, text/event-stream\r\n", false),
            ("Accept: text/event-stream;q=0.1, application/json\r\n", true),
            ("Accept: application/json;q=0\r\n", false),
        ] {
            assert_eq!(ask("", accept).expect("right").form.poll, poll, "{accept}");
        }
    }

    #[test]
    fn a_key_is_quoted_or_not_and_has_a_length() {
        let key = |fields: &str| {
            let head = format!("POST / HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
            key(&Request::from_head(head.as_bytes()).expect("a head"))
        };
        assert_eq!(key(""), Ok(None));
        assert_eq!(key("Idempotency-Key: \"a b\"\r\n"), Ok(Some("a b".into())));
        assert_eq!(key("Idempotency-Key: abc\r\n"), Ok(Some("abc".into())));
        for wrong in ["", "\"\"", &"x".repeat(300), "é"] {
            let answer = key(&format!("Idempotency-Key: {wrong}\r\n"));
            assert!(answer.is_err_and(|wrong| wrong.status == 400 && wrong.what.contains("1 to 128")), "{wrong:?}");
        }
        assert!(key("Idempotency-Key: a\r\nIdempotency-Key: b\r\n").is_err());
    }
}
