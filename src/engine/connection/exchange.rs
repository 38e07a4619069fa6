//! One request and its response, from the first byte of the one to the last of the other: what counters and a log are
//! told of it.

use super::close_reason::CloseReason;
use crate::api::{Request, without_token};
use crate::clock::Millis;
use http1::Reject;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;
use tiny_http::Method;

/// A request that is dealt with. Whoever has it owes it an end, which takes it ([`Shared::end`]): so none ends twice,
/// although it goes through several hands. In a turn it is the worker's; while its handler runs, or its response is
/// written, it stands where whoever cuts that finds it ([`InFlight`]); and while it waits it is in the connection's state.
/// What moves to a successor has no end here: the successor begins a new one with what is written down.
///
/// The line is not in it while the request is, because to copy it would cost each request an allocation.
///
/// [`Shared::end`]: super::Shared
/// [`InFlight`]: super::InFlight
pub struct Exchange {
    /// When its first byte came.
    began: Millis,
    /// When its head was complete.
    head: Option<Step>,
    /// The minor version, once the head was found to be right; only then it can be said what was asked for.
    minor: Option<u8>,
    /// When its handler began.
    handler: Option<Step>,
    /// Method and target, when the request itself has gone; behind line ends what a request log wants besides.
    line: Box<str>,
}

/// When something happened, in four bytes also where it has not: each subscriber waits with several. What is kept are the
/// lowest bits of the milliseconds, from which follows how long it was after another time, up to 49 days. It is only told.
#[derive(Clone, Copy, Debug)]
struct Step(NonZeroU32);

impl Step {
    fn at(now: Millis) -> Step {
        // There is no zero: once in 49 days it is a millisecond later.
        Step(NonZeroU32::new(now.0 as u32).unwrap_or(NonZeroU32::MIN))
    }

    /// Milliseconds.
    fn since(self, then: Millis) -> u32 {
        self.0.get().wrapping_sub(then.0 as u32)
    }
}

impl Exchange {
    /// How long it has taken until then.
    pub(super) fn age(&self, now: Millis) -> Duration {
        now.since(self.began)
    }

    pub(super) fn new(began: Millis) -> Exchange {
        Exchange { began, head: None, minor: None, handler: None, line: Box::default() }
    }

    /// One of which a successor knows that this is asked for, and no more.
    pub(super) fn of_line(began: Millis, line: String) -> Exchange {
        Exchange { line: line.into(), ..Exchange::new(began) }
    }

    /// What a successor is told of it and of its answer so far: its line, and for a request log the rest.
    pub(super) fn moved_line(&self, answer: Answer) -> String {
        let minor = self.minor.map_or(String::new(), |minor| minor.to_string());
        let status = answer.status.map_or(String::new(), |status| status.to_string());
        // The name of the user stands last: a program that knows of none reads what stands before. Where no request log wants
        // these fields there are none.
        let without = || format!("{}\n\n\n", self.line);
        let (line, user) = match self.line.rsplit_once('\n') {
            Some((line, user)) => (line.to_owned(), user),
            None => (without(), ""),
        };
        let messages = answer.messages().map_or(String::new(), |messages| format!("\n{messages}"));
        format!("{line}\n{minor}\n{status}\n{}\n{}\n{user}{messages}", answer.head, answer.content)
    }

    /// One that goes on with what was told of it, and its answer.
    pub(super) fn of_moved_line(began: Millis, line: String) -> (Exchange, Answer) {
        let mut parts = line.splitn(1 + MOVED_FIELDS, '\n');
        let mut kept: Vec<&str> = parts.by_ref().take(MOVED_FIELDS).collect();
        let Some(rest) = parts.next() else { return (Exchange::of_line(began, line), Answer::uncounted()) };
        let mut numbers = rest.split('\n');
        let minor = numbers.next().and_then(|minor| minor.parse().ok());
        let mut answer = Answer { status: numbers.next().and_then(|status| status.parse().ok()), ..Answer::default() };
        answer.head = numbers.next().and_then(|head| head.parse().ok()).unwrap_or_default();
        answer.content = numbers.next().and_then(|content| content.parse().ok()).unwrap_or_default();
        kept.push(numbers.next().unwrap_or_default());
        let exchange = Exchange { minor, ..Exchange::of_line(began, kept.join("\n")) };
        match numbers.next().and_then(|messages| messages.parse().ok()) {
            Some(messages) => answer.delivers(messages),
            // Of a predecessor that does not count them, or of one that is no subscriber.
            None => answer.messages = Answer::uncounted().messages,
        }
        (exchange, answer)
    }

    /// The head was complete then.
    pub(super) fn head_ended(&mut self, now: Millis) {
        self.head = Some(Step::at(now));
    }

    /// The head is right: it is this one's.
    pub(super) fn understood(&mut self, request: &Request) {
        self.minor = Some(request.head().0.minor);
    }

    /// The handler begins.
    pub(super) fn handler_begins(&mut self, now: Millis) {
        self.handler = Some(Step::at(now));
    }

    /// Method and target for when the request has gone, which is asked for them if that has not happened before.
    pub(super) fn keep_line(&mut self, line: impl FnOnce() -> String) {
        if self.line.is_empty() {
            self.line = line().into();
        }
    }

    /// The same, of that request; where no head was understood there is none that it is about. `logged`: whole, and with
    /// what a request log says besides.
    pub(super) fn keep_line_of(&mut self, request: &Request, logged: bool) {
        if self.minor.is_none() {
            return;
        }
        self.keep_line(|| match logged {
            false => format!("{} {:.200}", request.method(), request.shown_url()),
            true => {
                let fields = fields_of(request).map(String::from_utf8_lossy);
                format!("{} {}\n{}", request.method(), request.shown_url(), fields.join("\n"))
            }
        });
    }

    /// What was kept.
    pub(super) fn kept_line(&self) -> &str {
        &self.line
    }

    /// The minor version, if the head was right.
    pub(super) fn minor(&self) -> Option<u8> {
        self.minor
    }

    /// Referer, User-Agent, X-Request-Id and the name of the user, each empty where nothing is known of it.
    pub(super) fn fields<'l>(&'l self, request: Option<&'l Request>) -> [&'l [u8]; 4] {
        match request {
            Some(request) if self.line.is_empty() && self.minor.is_some() => fields_of(request),
            _ => {
                let mut parts = self.line.split('\n').skip(1).map(str::as_bytes);
                std::array::from_fn(|_| parts.next().unwrap_or_default())
            }
        }
    }

    /// Method and target, if there is anything to say; `request` is the one that it is about, if that is still there.
    pub(super) fn line<'l>(&'l self, request: Option<&'l Request>) -> &'l [u8] {
        match request {
            Some(request) if self.line.is_empty() && self.minor.is_some() => request.line_bytes(),
            _ => first_line(&self.line).as_bytes(),
        }
    }

    /// Bytes that it keeps on the heap.
    pub(super) fn held(&self) -> usize {
        self.line.len()
    }
}

/// What is known of the response so far. A worker goes on with it while the exchange is in flight.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    status: Option<u16>,
    /// Why the server itself refused the request.
    refused: Option<Reject>,
    /// When the handler had ended, what it pushed included.
    handled: Option<Step>,
    /// Bytes of its head that have not been sent.
    head: u32,
    /// Bytes behind the head that were sent: the content, and the chunks' own where it has them.
    content: u64,
    /// Whether it is there to last: a subscriber's.
    lasts: bool,
    /// Of a subscriber, one more than the messages that it was sent.
    messages: Option<NonZeroU32>,
}

impl Answer {
    /// Of which nobody knows how many messages there were before: none will ever be told.
    fn uncounted() -> Answer {
        Answer { messages: Some(NonZeroU32::MAX), ..Answer::default() }
    }

    /// It is a subscriber's, and so many more messages are on their way to it: sent, or begun and kept for it.
    pub(super) fn delivers(&mut self, messages: usize) {
        let before = self.messages.map_or(1, NonZeroU32::get);
        self.messages = NonZeroU32::new(before.saturating_add(messages.try_into().unwrap_or(u32::MAX)));
    }

    /// The messages that a subscriber was sent; `None` for any other answer, and where they were not counted.
    pub(super) fn messages(self) -> Option<u32> {
        self.messages.filter(|messages| *messages != NonZeroU32::MAX).map(|messages| messages.get() - 1)
    }

    /// The handler has ended.
    pub(super) fn handler_ended(&mut self, now: Millis) {
        self.handled = Some(Step::at(now));
    }

    /// It is a subscriber's, and ends when that does.
    pub(super) fn begins_to_last(&mut self) {
        self.lasts = true;
    }

    /// Its head is encoded, and so long.
    pub(super) fn begins(&mut self, status: u16, head: usize) {
        (self.status, self.head) = (Some(status), head.try_into().unwrap_or(u32::MAX));
    }

    /// It is a refusal, encoded.
    pub(super) fn refuses(&mut self, reject: Reject, encoded: &[u8]) {
        self.refused = Some(reject);
        self.begins(reject.status(), head_length(encoded));
    }

    /// So much of it was given to the kernel.
    pub(super) fn sent(&mut self, bytes: u64) {
        let of_head = bytes.min(self.head.into());
        self.head -= of_head as u32;
        self.content += bytes - of_head;
    }
}

/// What is under way, for a message: method and target, or what stands for them where no head was understood.
pub(super) fn named(line: &str) -> &str {
    if line.is_empty() { "a refused request" } else { first_line(line) }
}

fn first_line(line: &str) -> &str {
    line.split_once('\n').map_or(line, |(line, _)| line)
}

/// What stands before the numbers in a moved line: the line, and what [`fields_of`] has but for the user.
const MOVED_FIELDS: usize = 4;

/// What a request log says of a request besides its line. None of these has a line end.
fn fields_of(request: &Request) -> [&[u8]; 4] {
    let [referer, agent, id] = request.first_values(["Referer", "User-Agent", "X-Request-Id"]);
    [referer, agent, id, request.user().unwrap_or_default().as_bytes()]
}

/// Where the head of an encoded response ends.
pub(super) fn head_length(encoded: &[u8]) -> usize {
    encoded.windows(4).position(|window| window == b"\r\n\r\n").map_or(encoded.len(), |at| at + 4)
}

/// How an exchange ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The response is out, be it the handler's or a refusal.
    Answered,
    /// The connection is closed before that.
    Closed(CloseReason),
}

/// What a request asked for.
pub(super) enum Asked<'e> {
    Method(&'e Method),
    /// Nothing, where no head was understood.
    Name(&'e [u8]),
}

/// An exchange that has ended, as it is shown to whoever counts or logs.
pub struct Ended<'e> {
    pub(super) exchange: Exchange,
    pub(super) peer: Option<SocketAddr>,
    pub(super) answer: Answer,
    /// The one that it is about, if that is still there.
    pub(super) request: Option<&'e Request>,
    pub(super) end: End,
    pub(super) at: Millis,
    pub(super) took: Duration,
}

impl Ended<'_> {
    /// The method, as far as a head was understood: of the request itself, or what is kept of that.
    pub(super) fn method(&self) -> Asked<'_> {
        match self.request.filter(|_| self.exchange.line.is_empty() && self.exchange.minor.is_some()) {
            Some(request) => Asked::Method(request.method()),
            None => {
                let line = self.exchange.line(None);
                Asked::Name(&line[..line.iter().position(|byte| *byte == b' ').unwrap_or(0)])
            }
        }
    }

    /// Whether it was there to last, as a subscriber's.
    pub(super) fn lasts(&self) -> bool {
        self.answer.lasts
    }

    /// The status of the answer, if there is one.
    pub(super) fn status(&self) -> Option<u16> {
        self.answer.status
    }

    /// Bytes of content that were sent.
    pub(super) fn bytes(&self) -> u64 {
        self.answer.content
    }

    /// Messages that a subscriber was sent.
    pub(super) fn messages(&self) -> Option<u32> {
        self.answer.messages()
    }

    /// Why the server itself refused it, if it did.
    pub(super) fn refusal(&self) -> Option<Reject> {
        self.answer.refused
    }

    /// Whether the server itself refused it.
    pub fn is_refused(&self) -> bool {
        self.answer.refused.is_some()
    }

    /// When its steps were, in milliseconds since it began; what is left out has not been, or not here.
    pub(super) fn times(&self) -> impl fmt::Display {
        let since = |step: Option<Step>| step.map(|step| step.since(self.exchange.began));
        let steps = [
            ("head", since(self.exchange.head)),
            ("handler", since(self.exchange.handler)),
            ("handled", since(self.answer.handled)),
            ("end", since(Some(Step::at(self.at)))),
        ];
        let steps = steps.into_iter().filter_map(|(name, at)| Some(format!("{name} {}", at?)));
        steps.collect::<Vec<_>>().join(", ")
    }
}

/// In one line: `GET /a HTTP/1.1 from 192.0.2.1:4000: 200, 5 bytes, answered`.
impl fmt::Display for Ended<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exchange.line(self.request) {
            [] => f.write_str("no request line")?,
            line => write!(f, "{:.200}", without_token(&String::from_utf8_lossy(line)))?,
        }
        if let Some(minor) = self.exchange.minor {
            write!(f, " HTTP/1.{minor}")?;
        }
        if let Some(peer) = self.peer {
            write!(f, " from {peer}")?;
        }
        match self.answer.status {
            Some(status) => write!(f, ": {status}, {} bytes, ", self.answer.content)?,
            None => write!(f, ": no status, {} bytes, ", self.answer.content)?,
        }
        if let Some(reject) = self.answer.refused {
            write!(f, "refused: {reject}, ")?;
        }
        match self.end {
            End::Answered => f.write_str("answered"),
            End::Closed(reason) => write!(f, "{reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A build that knows of no user wrote, and reads, eight lines.
    #[test]
    fn what_moves_has_its_user_behind_all_that_others_read() {
        let began = Millis(5);
        let mut request =
            Request::from_head(b"GET /a HTTP/1.1\r\nHost: x\r\nUser-Agent: agent\r\n\r\n").expect("a head");
        let mut answer = Answer::default();
        answer.begins(200, 30);
        let moved = |request: &Request| {
            let mut exchange = Exchange::new(began);
            exchange.understood(request);
            exchange.keep_line_of(request, true);
            exchange.moved_line(answer)
        };
        assert_eq!(moved(&request), "GET /a\n\nagent\n\n1\n200\n30\n0\n");
        request.set_user("ada\nx");
        let line = moved(&request);
        assert_eq!(line, "GET /a\n\nagent\n\n1\n200\n30\n0\nada\u{fffd}x");
        for (line, user) in [(line.as_str(), "ada\u{fffd}x"), ("GET /a\n\nagent\n\n1\n200\n30\n0", "")] {
            let (exchange, answer) = Exchange::of_moved_line(began, line.to_owned());
            assert_eq!(exchange.fields(None), [&b""[..], b"agent", b"", user.as_bytes()], "{line:?}");
            assert_eq!((exchange.line(None), exchange.minor, answer.status), (&b"GET /a"[..], Some(1), Some(200)));
            let (again, _) = Exchange::of_moved_line(began, exchange.moved_line(answer));
            assert_eq!(again.fields(None), exchange.fields(None));
        }
        let (plain, _) = Exchange::of_moved_line(began, "GET /a".to_owned());
        // Where no request log wants the fields there are none, and how far the answer is is said all the same.
        let said = "GET /a\n\n\n\n\n200\n30\n0\n".to_owned();
        assert_eq!((plain.fields(None), plain.moved_line(answer)), ([&b""[..]; 4], said));
    }

    #[test]
    fn a_moved_line_says_the_messages_and_one_that_does_not_is_read_as_well() {
        let mut exchange = Exchange::of_line(Millis(0), "GET /a\nreferer\nagent\nid\nada".to_owned());
        exchange.minor = Some(1);
        let mut answer = Answer { status: Some(200), content: 70, ..Answer::default() };
        assert_eq!(exchange.moved_line(answer), "GET /a\nreferer\nagent\nid\n1\n200\n0\n70\nada");
        answer.delivers(0);
        answer.delivers(3);
        let line = exchange.moved_line(answer);
        assert_eq!(line, "GET /a\nreferer\nagent\nid\n1\n200\n0\n70\nada\n3");
        let (again, moved) = Exchange::of_moved_line(Millis(0), line.clone());
        assert_eq!((moved.messages(), moved.content, again.moved_line(moved)), (Some(3), 70, line));
        let (_, mut old) = Exchange::of_moved_line(Millis(0), "GET /a\nreferer\nagent\nid\n1\n200\n0\n70".to_owned());
        old.delivers(5);
        assert_eq!((old.messages(), old.content), (None, 70), "those before were not counted");
    }

    #[test]
    fn a_step_says_how_long_it_was_whatever_the_clock_shows() {
        let around = u64::from(u32::MAX);
        for began in [0, 7, around - 1, around, 5 * around] {
            let step = Step::at(Millis(began + 100));
            assert_eq!(step.since(Millis(began)), 100);
        }
        assert_eq!(Step::at(Millis(around + 1)).since(Millis(around)), 2, "there is no zero");
    }
}
