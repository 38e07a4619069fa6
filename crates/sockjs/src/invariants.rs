//! What holds whatever clients, applications and the network do: the fuzz targets call this with what a fuzzer makes up, the
//! tests with random bytes.

use crate::payload::{Limits, jsonp_send, websocket_message, xhr_send};
use crate::{
    Asked, Callback, Close, Features, Form, Frame, Outcome, Saved, SendError, Service, Session, Settings, Write, route,
};
use std::collections::HashMap;

/// Numbers that look random and are the same each time (xorshift).
pub struct Random(u64);

impl Random {
    /// From a seed, which is not 0.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Less than that.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Any bytes as a body: what is taken is what a JSON reader finds, and comes back from a frame in each transport.
///
/// # Panics
/// Where that does not hold.
pub fn payload(bytes: &[u8]) {
    let limits = Limits { messages: 16, bytes: 4096 };
    let _ = jsonp_send(Some("application/x-www-form-urlencoded"), bytes, limits);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(messages) = websocket_message(text, limits)
    {
        assert!(messages.len() <= limits.messages);
    }
    let Ok(messages) = xhr_send(bytes, limits) else {
        let valid = serde_json::from_slice::<Vec<String>>(bytes);
        assert!(valid.is_err() || bytes.len() > limits.bytes || valid.is_ok_and(|all| all.len() > limits.messages));
        return;
    };
    assert!(messages.len() <= limits.messages && messages.iter().map(String::len).sum::<usize>() <= bytes.len());
    // Halves of surrogate pairs are all that is read besides.
    match serde_json::from_slice::<Vec<String>>(bytes) {
        Ok(valid) => assert_eq!(valid, messages),
        Err(_) => assert!(bytes.windows(3).any(|three| three.eq_ignore_ascii_case(b"\\ud"))),
    }
    for form in forms() {
        let mut out = Vec::new();
        form.push(Frame::Messages(&messages), &mut out);
        assert_eq!(read(&form, &out), Heard::Messages(messages.clone()));
    }
}

/// Any bytes as a request's line, and as fields: nothing but what fields may have comes back in them.
///
/// # Panics
/// Where that does not hold.
pub fn request(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let service =
        Service { features: Features::ALL, cookie: true, origins: crate::Origins::new(["*"]), ..Service::default() };
    let asked =
        Asked { origin: Some(&text), request_headers: Some(&text), cookie: Some(&text), if_none_match: Some(&text) };
    for method in ["GET", "POST", "OPTIONS"] {
        let found = route(method, &text, Features::ALL);
        if let crate::Route::Session { server, session, .. } = found {
            assert!(!session.is_empty() && session.len() <= crate::SESSION_ID && !server.is_empty());
            assert!(!session.contains(['/', '.']) && !server.contains(['/', '.']));
        }
        let answer =
            service.answer(found, asked, 0, 0).unwrap_or_else(|| service.receiving(crate::Transport::Xhr, asked));
        for (name, value) in &answer.fields {
            assert!(value.bytes().all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte)), "{name}: {value:?}");
        }
    }
    for transport in crate::Transport::ALL {
        if let Ok(Form::Jsonp(callback) | Form::HtmlFile(callback)) = Form::new(transport, Some(&text)) {
            assert_eq!(Callback::new(callback.as_str()).as_ref(), Ok(&callback));
        }
    }
}

/// Any bytes as a session that was saved: what is read is written as the same bytes, and goes on.
///
/// # Panics
/// Where that does not hold.
pub fn saved(bytes: &[u8]) {
    let Ok(saved) = Saved::from_bytes(bytes) else { return };
    assert_eq!(Saved::from_bytes(&saved.to_bytes()).as_ref(), Ok(&saved));
    let Ok(mut session) = Session::restore(saved, settings(), 1000) else { return };
    let again = Session::restore(session.save(1000), settings(), 1000);
    assert_eq!(again.as_ref(), Ok(&session));
    let known: Vec<u64> = session.receivers().collect();
    for step in 0..4_u64 {
        let now = 1000 + step * 10;
        let _ = session.send(step.to_string());
        let _ = session.flush(now);
        for id in &known {
            let _ = session.written(*id, now);
        }
        let _ = session.arrive(u64::MAX - step, Form::Xhr, now);
        assert!(session.is_sound());
    }
    let _ = session.close(Close::go_away());
    for _ in 0..8 {
        for id in session.receivers().collect::<Vec<_>>() {
            let _ = session.written(id, 2000);
        }
        let _ = session.tick(u64::MAX - 1);
        assert!(session.is_sound());
    }
    assert!(session.is_gone());
}

/// Sessions of each kind, to begin with.
///
/// # Panics
/// Never.
pub fn samples() -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    for form in forms() {
        let mut session = Session::new(settings(), 1000);
        let mut sample = |session: &Session| samples.push(session.save(1000).to_bytes());
        let _ = session.send("one".to_owned());
        sample(&session);
        let _ = session.arrive(1, form, 1000);
        let _ = session.send("two".to_owned());
        let _ = session.arrive(2, Form::Xhr, 1000);
        sample(&session);
        let _ = session.close(Close::go_away());
        sample(&session);
        let _ = session.written(1, 1000);
        sample(&session);
    }
    samples
}

fn settings() -> Settings {
    Settings { heartbeat: 40, disconnect: 20, response_limit: 60, queue_messages: 4, queue_bytes: 40 }
}

fn forms() -> [Form; 6] {
    let callback = Callback::new("cb").expect("a name");
    [
        Form::Xhr,
        Form::XhrStreaming,
        Form::EventSource,
        Form::HtmlFile(callback.clone()),
        Form::Jsonp(callback),
        Form::WebSocket,
    ]
}

/// A frame as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Open,
    Heartbeat,
    Messages(Vec<String>),
    Close(u16),
}

/// What a client makes of one piece.
fn read(form: &Form, piece: &[u8]) -> Heard {
    let text = std::str::from_utf8(piece).expect("text");
    let between = |before: &str, behind: &str| {
        text.strip_prefix(before).and_then(|rest| rest.strip_suffix(behind)).expect("its form").to_owned()
    };
    let called = |argument: String| serde_json::from_str::<String>(&argument).expect("a string");
    let frame = match form {
        Form::WebSocket => text.to_owned(),
        Form::Xhr | Form::XhrStreaming => between("", "\n"),
        Form::EventSource => {
            let data = between("data: ", "\r\n\r\n");
            percent_encoding::percent_decode_str(&data).decode_utf8().expect("text").into_owned()
        }
        Form::HtmlFile(_) => {
            let argument = between("<script>\np(", ");\n</script>\r\n");
            assert!(!argument.contains('<') && !argument.replace("\\/", "").contains('/'));
            called(argument)
        }
        Form::Jsonp(_) => called(between("/**/cb(", ");\r\n")),
    };
    assert!(!frame.contains(['\n', '\r', '\0', '\u{2028}', '\u{2029}']), "{frame:?}");
    match frame.split_at(1) {
        ("o", "") => Heard::Open,
        ("h", "") => Heard::Heartbeat,
        ("a", json) => Heard::Messages(serde_json::from_str(json).expect("an array of strings")),
        ("c", json) => Heard::Close(serde_json::from_str::<(u16, String)>(json).expect("a code and a reason").0),
        _ => panic!("{frame:?}"),
    }
}

/// How often something has happened, so that a test can say that it did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen([u32; 8]);

const OPENED: usize = 0;
const MESSAGES: usize = 1;
const FULL: usize = 2;
const SECOND: usize = 3;
const WAITED: usize = 4;
const INTERRUPTED: usize = 5;
const LIMIT: usize = 6;
const GONE: usize = 7;

impl Seen {
    /// What has happened elsewhere as well.
    pub fn add(&mut self, other: Seen) {
        self.0.iter_mut().zip(other.0).for_each(|(one, other)| *one += other);
    }

    /// Whether each has happened more often.
    pub fn is_more_than(&self, times: u32) -> bool {
        self.0.iter().all(|one| *one > times)
    }
}

/// The life of a session, each byte an event: what receivers got, one behind the other, is what the application sent, or the
/// session was closed.
///
/// # Panics
/// Where that does not hold.
pub fn session(bytes: &[u8]) -> Seen {
    let mut world = World {
        session: Session::new(settings(), 0),
        now: 0,
        clients: HashMap::new(),
        next: 0,
        sent: Vec::new(),
        heard: Vec::new(),
        opened: 0,
        closed: 0,
        gone: false,
        was_lost: false,
        seen: Seen::default(),
    };
    let mut bytes = bytes.iter().copied();
    while let Some(byte) = bytes.next() {
        world.step(byte, &mut bytes);
        if world.gone {
            break;
        }
    }
    world.finish();
    world.seen
}

/// A session, its application and its clients.
struct World {
    session: Session,
    now: u64,
    clients: HashMap<u64, Client>,
    next: u64,
    /// What the application has sent, and what all clients have heard.
    sent: Vec<String>,
    heard: Vec<String>,
    opened: u32,
    closed: u32,
    gone: bool,
    /// A receiver's connection broke.
    was_lost: bool,
    seen: Seen,
}

struct Client {
    form: Form,
    /// It has got its prelude, if there is one.
    begun: bool,
    frames: u64,
    bytes: usize,
    in_flight: bool,
    ended: bool,
}

impl World {
    fn step(&mut self, byte: u8, rest: &mut impl Iterator<Item = u8>) {
        let argument = byte / 16;
        match byte % 16 {
            0..=2 => self.arrive(usize::from(argument)),
            3..=6 => {
                let id = self.some(argument);
                self.written(id);
            }
            7 => {
                let id = self.some(argument);
                if argument < 5 {
                    self.lose(id);
                }
            }
            8..=10 => self.send(usize::from(rest.next().unwrap_or(3))),
            11 => {
                let outcome = self.session.flush(self.now);
                self.take(outcome);
            }
            12 if argument < 3 => {
                let was_open = !self.gone && self.closed == 0;
                let outcome = self.session.close(Close::go_away());
                assert_eq!(outcome.closed.is_some(), was_open && self.opened == 1);
                self.take(outcome);
            }
            13 => {
                self.now += u64::from(argument) * 3;
                let due = self.session.deadline().is_some_and(|deadline| deadline <= self.now);
                let outcome = self.session.tick(self.now);
                assert_eq!(outcome != Outcome::default(), due);
                self.take(outcome);
            }
            14 => self.move_away(argument),
            15 if argument < 6 => {
                let outcome = self.session.ask_again();
                self.take(outcome);
            }
            _ => {
                let delivered = self.session.receive(vec!["x".to_owned()]);
                assert_eq!(delivered == Ok(vec!["x".to_owned()]), self.opened == 1 && self.closed == 0);
            }
        }
        assert!(self.session.is_sound(), "{:?}", self.session);
        assert!(self.session.receivers().all(|id| self.clients.contains_key(&id)));
    }

    /// One of those that have come lately.
    fn some(&self, argument: u8) -> u64 {
        match argument {
            // Mostly who holds the session.
            0..=9 => self.session.receivers().next().unwrap_or(0),
            10..=12 => self.session.receivers().last().unwrap_or(0),
            _ => self.next.saturating_sub(u64::from(argument - 12)),
        }
    }

    fn arrive(&mut self, which: usize) {
        self.next += 1;
        let form = forms()[which % 6].clone();
        let client = Client { form: form.clone(), begun: false, frames: 0, bytes: 0, in_flight: false, ended: false };
        self.clients.insert(self.next, client);
        let holders = self.session.receivers().count();
        let outcome = self.session.arrive(self.next, form, self.now);
        let waits = self.session.receivers().nth(1) == Some(self.next);
        assert!(!waits || (holders == 1 && outcome == Outcome::default()));
        self.seen.0[WAITED] += u32::from(waits);
        self.take(outcome);
    }

    fn written(&mut self, id: u64) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.in_flight = false;
        }
        let outcome = self.session.written(id, self.now);
        self.take(outcome);
    }

    fn lose(&mut self, id: u64) {
        let holds = self.session.receivers().next() == Some(id);
        if let Some(client) = self.clients.get_mut(&id) {
            client.ended = true;
        }
        let was_open = self.session.is_open();
        let outcome = if self.now.is_multiple_of(2) {
            self.session.lost(id, self.now)
        } else {
            self.session.left(id, Close::new(1001, ""), self.now)
        };
        assert_eq!(outcome.closed.is_some(), holds && was_open);
        self.was_lost |= holds;
        self.seen.0[INTERRUPTED] += u32::from(holds);
        self.take(outcome);
    }

    fn send(&mut self, length: usize) {
        let text = format!("{}{}", self.sent.len(), "</\u{2028}%é\n".repeat(length % 3));
        match self.session.send(text.clone()) {
            Ok(()) => self.sent.push(text),
            Err(SendError::Closed) => {
                assert!(self.closed == 1 || self.session.close(Close::go_away()) == Outcome::default())
            }
            Err(SendError::Full) => self.seen.0[FULL] += 1,
            Err(SendError::TooLarge) => panic!("{text}"),
        }
    }

    /// To a successor, where connections may have other names.
    fn move_away(&mut self, argument: u8) {
        let bytes = self.session.save(self.now).to_bytes();
        let saved = Saved::from_bytes(&bytes).expect("what was saved");
        let other = Session::restore(saved, settings(), self.now).expect("what was saved");
        assert_eq!(other.save(self.now).to_bytes(), bytes);
        if self.session.deadline().is_none_or(|deadline| deadline >= self.now) {
            assert_eq!(other.deadline(), self.session.deadline());
        }
        self.session = other;
        let holder = self.session.receivers().next();
        if let Some(id) = holder.filter(|_| argument.is_multiple_of(2)) {
            self.next += 1;
            self.session.rename(id, self.next);
            let client = self.clients.remove(&id).expect("it has come");
            self.clients.insert(self.next, client);
        }
    }

    /// Does what an outcome says, as an engine would.
    fn take(&mut self, outcome: Outcome) {
        let Outcome { writes, opened, closed, gone } = outcome;
        self.opened += u32::from(opened);
        self.closed += u32::from(closed.is_some());
        assert!(self.opened <= 1 && self.closed <= self.opened);
        assert!(!gone || !self.gone);
        self.gone |= gone;
        assert_eq!(self.gone, self.session.is_gone());
        assert!(!self.gone || self.closed == self.opened);
        self.seen.0[OPENED] += u32::from(opened);
        self.seen.0[GONE] += u32::from(gone);
        let mut receivers: Vec<u64> = writes.iter().map(|write| write.receiver).collect();
        receivers.dedup();
        assert_eq!(receivers.len(), writes.len());
        for write in writes {
            self.write(write);
        }
    }

    fn write(&mut self, write: Write) {
        let holders: Vec<u64> = self.session.receivers().collect();
        let client = self.clients.get_mut(&write.receiver).expect("one that has come");
        assert!(!client.in_flight && !client.ended, "{write:?}");
        let holds = holders.first() == Some(&write.receiver);
        client.in_flight = holds;
        client.ended = write.ends;
        let mut pieces = &write.pieces[..];
        let is_first = !std::mem::replace(&mut client.begun, true);
        if let Some(prelude) = client.form.prelude().filter(|_| is_first) {
            assert_eq!(pieces[0], prelude);
            pieces = &pieces[1..];
        }
        for (number, piece) in pieces.iter().enumerate() {
            let heard = read(&client.form, piece);
            client.bytes += piece.len();
            client.frames += 1;
            let is_last = number + 1 == pieces.len();
            match heard {
                Heard::Open => assert!(self.opened == 1 && self.heard.is_empty() && number == 0),
                Heard::Heartbeat => {}
                Heard::Messages(messages) => {
                    assert!(holds && self.opened <= 1 && !messages.is_empty());
                    self.seen.0[MESSAGES] += 1;
                    self.heard.extend(messages);
                    // In their order, and each once.
                    assert_eq!(self.heard[..], self.sent[..self.heard.len()]);
                    assert!(!self.was_lost);
                }
                Heard::Close(2010) => {
                    assert!(!holds && !holders.is_empty() && is_last && write.ends);
                    self.seen.0[SECOND] += 1;
                }
                Heard::Close(code) => {
                    assert!(is_last && write.ends && !self.session.is_open());
                    assert!(code == 1002 || code == 1001 || (code == 3000 && self.heard == self.sent));
                }
            }
        }
        let transport = client.form.transport();
        assert!(!transport.is_polling() || (client.frames == 1 && write.ends));
        if transport.is_streaming() && client.bytes as u64 >= settings().response_limit {
            assert!(write.ends);
            self.seen.0[LIMIT] += 1;
        }
    }

    /// Somebody comes until nothing waits any more.
    fn finish(&mut self) {
        for _ in 0..8 {
            if self.gone {
                break;
            }
            for id in self.session.receivers().collect::<Vec<_>>() {
                self.written(id);
            }
            let outcome = self.session.flush(self.now);
            self.take(outcome);
            if self.session.receivers().next().is_none() {
                self.arrive(0);
            }
        }
        let is_closed = self.gone || !self.session.is_open();
        assert!(is_closed || self.heard == self.sent, "{:?}", self.session);
        // And nothing keeps it for ever.
        for _ in 0..8 {
            for id in self.session.receivers().collect::<Vec<_>>() {
                self.lose(id);
            }
            self.now += 1000;
            let outcome = self.session.tick(self.now);
            self.take(outcome);
        }
        assert!(self.gone && self.closed == self.opened);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_goes_on_whatever_a_byte_became() {
        for sample in samples() {
            saved(&sample);
            for at in 0..sample.len() {
                for byte in [0, 1, 2, 3, 5, 0x7f, 0x80, 0xff] {
                    let mut changed = sample.clone();
                    changed[at] = byte;
                    saved(&changed);
                }
                saved(&sample[..at]);
            }
        }
    }

    #[test]
    fn payloads_of_anything() {
        let words: [&[u8]; 24] = [
            b"[",
            b"]",
            b"\"",
            b",",
            b"\\",
            b"\\ud83d",
            b"\\ude00",
            b"\\ud8",
            b"\\uD800",
            b"\\n",
            b"a",
            b"<",
            b"/",
            b"%",
            b" ",
            b"\n",
            b"\xe2\x80\xa8",
            b"\xef\xbf\xbf",
            b"\xff",
            b"[\"",
            b"\",\"",
            b"\"]",
            b"{",
            b"1",
        ];
        let mut random = Random::new(2);
        for _ in 0..20_000 {
            let mut body = Vec::new();
            for _ in 0..random.below(12) {
                body.extend_from_slice(words[random.below(24) as usize]);
            }
            payload(&body);
            let quoted = [b"[\"", &body[..], b"\"]"].concat();
            payload(&quoted);
        }
    }

    #[test]
    fn requests_of_anything() {
        let words = [
            "/",
            "a",
            ".",
            "%2e",
            "xhr",
            "/xhr",
            "_send",
            "iframe",
            ".html",
            "info",
            "websocket",
            "\r\n",
            ";",
            "JSESSIONID=",
            "*",
            "c=",
            "&",
            "\"",
            "W/",
            "null",
            " ",
            ",",
        ];
        let mut random = Random::new(3);
        for _ in 0..20_000 {
            let text: String = (0..random.below(8)).map(|_| words[random.below(22) as usize]).collect();
            request(text.as_bytes());
        }
    }
}
