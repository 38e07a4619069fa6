//! Answers requests below a prefix: GET subscribes, POST publishes.

use super::conversation::{asks_for_websocket, handshake, switch, too_many};
use super::hub::Namespace;
use super::origin::{allow_origin, allow_preflight};
use super::question::{self, Question, TOPICS, Wrong, strictly_decoded};
use super::token::Claims;
use crate::api::{
    AnswerTo, Body, Converse, Handler, IntoResponse, Later, Listener, Request, Response, Side, Subscribe, known_header,
};
use crate::clock::{Millis, boot_time};
use http1::response::{push_decimal, push_field};
use pubsub::{Begun, Form, Key, Message, Outcome, PublishError, Published, Subscription, Topic};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tiny_http::{Header, Method, StatusCode};
use websocket::{Limits, Offer};

const METHODS: &str = "GET, HEAD, POST, OPTIONS";
/// Messages that are published together.
const BATCH: usize = 1000;
/// Bytes of a batch, unless one message may have more.
const BATCH_BYTES: u64 = 1 << 20;
/// The subprotocol of a WebSocket whose messages say where they stand.
const PROTOCOL: &str = "handover.json";
/// The longest message of a client to whom nobody listens.
const LISTENERS_MESSAGE: usize = 64 << 10;
/// Within which a client is told to come back that comes when there are as many subscribers as may be, in milliseconds.
const FULL_RETRIES: std::ops::Range<u32> = 5_000..15_000;

/// See [`Namespace::service`].
#[derive(Clone)]
pub(super) struct Service {
    namespace: Namespace,
    /// Whether others put fields onto its answers, so that its own must be there to be replaced.
    bare: bool,
}

/// A line of a batch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    topic: String,
    event: Option<String>,
    data: String,
}

#[derive(Serialize)]
struct Listed {
    topics: Vec<ListedTopic>,
    last: String,
}

#[derive(Serialize)]
struct ListedTopic {
    topic: String,
    subscribers: usize,
    messages: usize,
    last: Option<String>,
}

impl Namespace {
    /// What clients speak to, below a prefix of a [`Router`](crate::Router::mount_service): GET subscribes to the topic that
    /// the rest of the path names, or to those of `topic=`, POST publishes.
    pub fn service(&self) -> impl Handler + use<> {
        Service::new(self.clone())
    }

    /// The same for somebody who puts fields of his own onto its answers.
    pub(crate) fn bare_service(&self) -> impl Handler + use<> {
        Service { bare: true, ..Service::new(self.clone()) }
    }
}

/// What is subscribed to: the topic of the path, or those of the query.
fn one_or_listed(topic: String, question: &Question) -> Result<Vec<String>, Wrong> {
    match (&*topic, &question.topics[..]) {
        ("", topics) => Ok(topics.to_vec()),
        (_, []) => Ok(vec![topic]),
        (..) => Err(Wrong::new(400, "topics are in the path or in topic=, not in both")),
    }
}

impl Service {
    pub fn new(namespace: Namespace) -> Service {
        Service { namespace, bare: false }
    }

    fn answer(&self, request: &mut Request) -> Result<Response, Wrong> {
        let rest = request.rest_of_path();
        let topic = strictly_decoded(rest, false)
            .map_err(|()| Wrong::new(400, "the path is no topic: allowed is UTF-8 that is percent-encoded"))?;
        match request.method() {
            Method::Get if asks_for_websocket(request) => self.upgrade(request, topic),
            Method::Get | Method::Head => {
                let question = Question::read(request)?;
                if topic.is_empty() && question.topics.is_empty() && question.form.poll {
                    return self.list(request);
                }
                let topics = one_or_listed(topic, &question)?;
                let lasts = self.may_subscribe(request, &topics)?;
                Ok(self.subscribe(request, &topics, &question, lasts))
            }
            Method::Post => self.publish(request, &topic),
            Method::Options => Ok(().into_response().with_header(known_header("Allow", METHODS)).with_header(vary())),
            Method::NonStandard(_) => Ok(StatusCode(501).into_response().with_header(vary())),
            _ => Ok(StatusCode(405).into_response().with_header(known_header("Allow", METHODS)).with_header(vary())),
        }
    }

    /// Whether that client may hear all of these, and for how long if there is an end to that.
    fn may_subscribe(&self, request: &Request, topics: &[String]) -> Result<Option<Duration>, Wrong> {
        let Some(claims) = self.namespace.may_subscribe(request)? else { return Ok(None) };
        match topics.iter().find(|topic| !claims.may_subscribe(topic)) {
            Some(topic) => Err(Wrong::not_allowed(format_args!("subscribe to {topic:.80?}"))),
            None => Ok(Some(claims.lasts)),
        }
    }

    /// A stream, or the answer to a poll, which may have to be waited for. Neither lasts longer than that.
    pub fn subscribe(
        &self,
        request: &Request,
        topics: &[String],
        question: &Question,
        lasts: Option<Duration>,
    ) -> Response {
        self.try_subscribe(request, topics, question, lasts).unwrap_or_else(Wrong::into_response)
    }

    fn try_subscribe(
        &self,
        request: &Request,
        topics: &[String],
        question: &Question,
        lasts: Option<Duration>,
    ) -> Result<Response, Wrong> {
        let topics = self.topics(topics)?;
        let poll = question.form.poll;
        if *request.method() == Method::Head {
            // Not of no bytes: a length in an answer to HEAD would have to be that of the stream (RFC 9110 §8.6).
            return Ok(self.described(Body::reader(io::empty(), None), poll));
        }
        let subscription = Subscription::new(self.namespace.hub.inner(), topics, question.begin, question.form);
        let Ok(mut subscription) = subscription else {
            // Any error would be the end of a browser's EventSource.
            return match poll {
                true => Err(Wrong::new(503, "there are as many subscribers as there may be")),
                false => Ok(self.described(format!("retry: {}\n\n", full_retry()).into(), poll)),
            };
        };
        if poll && let Some((answer, messages)) = subscription.answer(question.wait.is_zero()) {
            return Ok(self.described(Body::messages(answer, messages), poll));
        }
        let (heartbeat, wait) = (self.namespace.heartbeat, question.wait);
        Ok(self.described(Body::subscription(Subscribe { subscription, heartbeat, wait, lasts }), poll))
    }

    /// A WebSocket that says what is published, and hears nothing.
    fn upgrade(&self, request: &Request, topic: String) -> Result<Response, Wrong> {
        let offer = Offer { protocols: &[PROTOCOL], deflate: false };
        let fields = match handshake(request, offer, &self.namespace.origins) {
            Ok((fields, _)) => fields,
            Err(refused) => return Ok(refused),
        };
        let question = Question::read_query(request)?;
        let topics = one_or_listed(topic, &question)?;
        let lasts = self.may_subscribe(request, &topics)?;
        let topics = self.topics(&topics)?;
        let json = fields.iter().any(|field| field.field.equiv("Sec-WebSocket-Protocol"));
        let form = Form { websocket: true, json, ..Form::default() };
        let Ok(subscription) = Subscription::new(self.namespace.hub.inner(), topics, question.begin, form) else {
            return Ok(too_many());
        };
        let limits = Limits { max_message: LISTENERS_MESSAGE, deflate: false };
        let heartbeat = if json { self.namespace.heartbeat } else { 0 };
        let (beat, expires) = (Millis::NEVER, lasts.map_or(Millis::NEVER, |lasts| Millis::now().after(lasts)));
        let side = Side::Listener(Box::new(Listener { subscription, heartbeat, beat, expires }));
        Ok(switch(fields, Converse { side, limits }))
    }

    fn topics(&self, names: &[String]) -> Result<Vec<Topic>, Wrong> {
        if !(1..=TOPICS).contains(&names.len()) {
            let how = "in the path, or as topic=";
            return Err(Wrong::new(400, format!("there are {} topics, allowed is 1 to {TOPICS}, {how}", names.len())));
        }
        let topics: Result<Vec<Topic>, _> = names.iter().map(|name| self.namespace.topic(name)).collect();
        topics.map_err(|wrong| Wrong::new(400, wrong.to_string()))
    }

    fn publish(&self, request: &mut Request, topic: &str) -> Result<Response, Wrong> {
        let claims = self.namespace.may_publish(request)?;
        let claims = claims.as_ref();
        if let Some(coding) = request.content_coding() {
            return Err(Wrong::new(415, format!("a body with Content-Encoding {coding:.40?} is not decoded here")));
        }
        let (question, key) = (Question::read_query(request)?, question::key(request)?);
        let body =
            request.body_bytes().map_err(|error| Wrong::new(400, format!("the body cannot be read: {error}")))?;
        let body = String::from_utf8(body).map_err(|_| Wrong::new(415, "the body is no UTF-8"))?;
        let principal = claims.map_or("", Claims::principal);
        let key = key.as_deref().map(|key| Key { principal, key });
        let (hub, event) = (self.namespace.hub.inner(), question.event.as_deref());
        let one = |topic: &str, data| Ok(vec![self.message(claims, topic, event, data)?]);
        let messages = match (topic, &question.topics[..]) {
            ("", []) if event.is_some() => {
                return Err(Wrong::new(400, "event= is for one topic: of a batch each line says its own"));
            }
            ("", []) => self.batch(claims, &body)?,
            ("", [topic]) => one(topic, body)?,
            (topic, []) => one(topic, body)?,
            (..) => return Err(Wrong::new(400, "one topic is published to at a time, or a batch without one")),
        };
        match hub.begin_publishing(messages, boot_time(), key) {
            Begun::Ended(outcome) => Ok(self.published(outcome.map_err(refused)?)),
            Begun::Waits(ticket) => {
                let service = self.clone();
                let answer_to: AnswerTo = Arc::new(move |outcome: Outcome| match outcome {
                    Ok(published) => service.published(published),
                    Err(error) => refused(error).into_response(),
                });
                Ok(Body::later(Later { ticket, hub: hub.clone(), answer_to }).into_response())
            }
        }
    }

    /// Where it stands, and who listens.
    fn published(&self, published: Published) -> Response {
        let mut text = Vec::with_capacity(96);
        text.extend_from_slice(b"{\"id\":\"");
        push_decimal(&mut text, published.position.epoch);
        text.push(b'-');
        push_decimal(&mut text, published.position.offset);
        text.extend_from_slice(b"\",\"subscribers\":");
        push_decimal(&mut text, published.subscribers as u64);
        text.extend_from_slice(b"}\n");
        self.described(text.into(), true)
    }

    fn message(
        &self,
        claims: Option<&Claims>,
        topic: &str,
        event: Option<&str>,
        data: String,
    ) -> Result<(Topic, Message), Wrong> {
        if claims.is_some_and(|claims| !claims.may_publish(topic)) {
            return Err(Wrong::not_allowed(format_args!("publish to {topic:.80?}")));
        }
        let topic = self.namespace.topic(topic).map_err(refused)?;
        let message = Message::new(data);
        match event {
            None => Ok((topic, message)),
            Some(event) => {
                let message = message.with_event(event).map_err(|wrong| Wrong::new(400, wrong.to_string()))?;
                Ok((topic, message))
            }
        }
    }

    /// One message a line, all or none.
    fn batch(&self, claims: Option<&Claims>, body: &str) -> Result<Vec<(Topic, Message)>, Wrong> {
        let mut messages = Vec::new();
        let most = self.namespace.hub.inner().most_bytes();
        for (line, number) in body.lines().zip(1..) {
            if line.trim().is_empty() {
                continue;
            }
            let at = |wrong: Wrong| wrong.behind(format_args!("line {number}"));
            // Text of its fields in their order would be one as well.
            let read = match line.trim_start().starts_with('{') {
                true => serde_json::from_str(line).map_err(|error| without_line(&error)),
                false => Err("it is no object".to_owned()),
            };
            let Envelope { topic, event, data } = read.map_err(|wrong| {
                let allowed = "without a topic in the path each line is {\"topic\":…,\"event\":…,\"data\":…}, all of them \
                               strings and the event as you like";
                at(Wrong::new(400, format!("{wrong}; {allowed}")))
            })?;
            if data.len() > most {
                return Err(at(refused(PublishError::TooLarge { most })));
            }
            if messages.len() == BATCH {
                return Err(Wrong::new(413, format!("line {number}: a batch has at most {BATCH} messages")));
            }
            messages.push(self.message(claims, &topic, event.as_deref(), data).map_err(at)?);
        }
        match messages.is_empty() {
            true => Err(Wrong::new(
                400,
                "there is no message; one topic is published to by its path, several by lines of JSON",
            )),
            false => Ok(messages),
        }
    }

    /// The topics there are: for who may publish to them, because a name may be a secret.
    fn list(&self, request: &Request) -> Result<Response, Wrong> {
        let behind = |wrong: Wrong| wrong.behind(format_args!("topics are listed for who may publish"));
        let claims = self.namespace.may_publish(request).map_err(behind)?;
        if claims.as_ref().is_some_and(|claims| !claims.publishes()) {
            return Err(behind(Wrong::not_allowed(format_args!("publish to any topic"))));
        }
        let hub = self.namespace.hub.inner();
        let last = hub.position();
        let topics = self.namespace.topics().into_iter();
        let topics =
            topics.filter(|figures| claims.as_ref().is_none_or(|claims| claims.may_publish(figures.topic.name())));
        let topics = topics.map(|figures| ListedTopic {
            topic: figures.topic.name().to_owned(),
            subscribers: figures.info.subscribers,
            messages: figures.info.messages,
            last: (figures.info.last > 0)
                .then(|| pubsub::Position { epoch: last.epoch, offset: figures.info.last }.to_string()),
        });
        let listed = Listed { topics: topics.collect(), last: last.to_string() };
        // Text and numbers cannot fail to be written.
        let mut text = serde_json::to_vec(&listed).unwrap_or_default();
        text.push(b'\n');
        Ok(self.described(text.into(), true))
    }

    /// With what pages of other origins are told.
    pub fn with_origin(&self, request: &Request, response: Response) -> Response {
        allow_origin(response, request, &self.namespace.origins)
    }

    /// With the fields of a stream, or of an answer in JSON.
    fn described(&self, mut body: Body, poll: bool) -> Response {
        if self.bare {
            let fields = fields(poll).iter().map(|(name, value)| known_header(name, value));
            return body.into_response_with(200, fields.collect());
        }
        // To make each of them anew takes longer than to publish.
        static JSON: LazyLock<Arc<[u8]>> = LazyLock::new(|| encoded(fields(true)));
        static STREAM: LazyLock<Arc<[u8]>> = LazyLock::new(|| encoded(fields(false)));
        body.fields = Some(if poll { JSON.clone() } else { STREAM.clone() });
        body.into_response_with(200, Vec::new())
    }
}

/// Another one for each: those that were refused together would come back together.
fn full_retry() -> u32 {
    static REFUSED: AtomicU32 = AtomicU32::new(0);
    let mixed = REFUSED.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9) >> 8;
    FULL_RETRIES.start + mixed % (FULL_RETRIES.end - FULL_RETRIES.start)
}

fn refused(error: PublishError) -> Wrong {
    let status = match error {
        PublishError::TooLarge { .. } => 413,
        PublishError::KeyReused => 422,
        PublishError::Topic(_) => 400,
        _ => 503,
    };
    match error {
        PublishError::NotServing => Wrong::new(status, "the server does not publish yet"),
        _ => Wrong::new(status, error.to_string()),
    }
}

/// What the parser says, without its place: a line has one of its own.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

fn vary() -> Header {
    known_header("Vary", "Origin")
}

fn fields(poll: bool) -> &'static [(&'static str, &'static str)] {
    match poll {
        true => &[
            ("Content-Type", "application/json"),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Vary", "Origin"),
        ],
        false => &[
            ("Content-Type", "text/event-stream"),
            ("Cache-Control", "no-store, no-transform"),
            // nginx would collect it.
            ("X-Accel-Buffering", "no"),
            ("X-Content-Type-Options", "nosniff"),
            ("Vary", "Origin"),
        ],
    }
}

fn encoded(fields: &[(&str, &str)]) -> Arc<[u8]> {
    let mut bytes = Vec::new();
    fields.iter().for_each(|(name, value)| push_field(&mut bytes, name.as_bytes(), value.as_bytes()));
    bytes.into()
}

impl Handler for Service {
    fn handle(&self, request: &mut Request) -> Response {
        let mut response = self.answer(request).unwrap_or_else(Wrong::into_response);
        if *request.method() == Method::Options {
            response = allow_preflight(response, METHODS);
        }
        self.with_origin(request, response)
    }

    fn body_limit(&self, _: &Request) -> Option<u64> {
        Some(BATCH_BYTES.max(self.namespace.hub.inner().most_bytes() as u64))
    }

    fn allow(&self, _: &Request) -> Option<String> {
        Some(METHODS.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use crate::push::{Hub, Publishers};
    use crate::test::Server;
    use crate::{Next, Request, Router};
    use pubsub::{Begun, Bus, BusFigures, Position, Publication, PublishError};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    /// A bus that says what the test says.
    struct Scripted {
        given: crossbeam_channel::Sender<Publication>,
        up: AtomicBool,
    }

    impl Bus for Scripted {
        fn publish(&self, publication: Publication) {
            self.given.send(publication).expect("the test is there");
        }

        fn is_up(&self) -> bool {
            self.up.load(Ordering::SeqCst)
        }

        fn figures(&self) -> BusFigures {
            BusFigures::default()
        }

        fn end(&self) {}
    }

    struct Fixture {
        hub: Hub,
        bus: Arc<Scripted>,
        given: crossbeam_channel::Receiver<Publication>,
        server: Server,
    }

    impl Fixture {
        /// With one worker.
        fn new() -> Fixture {
            let (sender, given) = crossbeam_channel::unbounded();
            let (hub, bus) = (Hub::new(), Arc::new(Scripted { given: sender, up: AtomicBool::new(true) }));
            hub.inner().set_bus(bus.clone());
            let events = hub.namespace("n").publishers(Publishers::Anyone).origins(["http://page"]);
            let router = Router::new()
                .layer(|request: &mut Request, next: Next<'_>| ([("X-Layer", "there")], next.run(request)))
                .mount_service("/events", events.service())
                .get("/hello", |_: &mut Request| "hello");
            let server =
                Server::start(crate::Server::builder().workers(1).hub(&hub).service(router)).expect("a server");
            let fixture = Fixture { hub, bus, given, server };
            // Before it serves nothing is published.
            assert_eq!(fixture.server.get("/hello").send().text(), "hello");
            fixture
        }

        fn ask(&self, request: &str) -> BufReader<TcpStream> {
            let mut client = TcpStream::connect(self.server.address()).expect("a connection");
            client.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
            client.write_all(request.as_bytes()).expect("room");
            BufReader::new(client)
        }

        fn next(&self) -> Publication {
            self.given.recv_timeout(Duration::from_secs(20)).expect("a publication")
        }
    }

    fn answer(client: &mut BufReader<TcpStream>) -> (String, String) {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            client.read_line(&mut line).expect("a line");
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().expect("a length");
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        client.read_exact(&mut body).expect("its content");
        (head, String::from_utf8(body).expect("text"))
    }

    fn post(more: &str) -> String {
        format!("POST /events/t HTTP/1.1\r\nHost: x\r\n{more}Content-Length: 1\r\n\r\nx")
    }

    const HELLO: &str = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
    const AT: Position = Position { epoch: 7, offset: 5 };

    #[test]
    fn a_publication_that_waits_for_its_bus_holds_no_worker() {
        let fixture = Fixture::new();
        let mut publishers: Vec<_> = (0..20).map(|_| fixture.ask(&(post("") + HELLO))).collect();
        let publications: Vec<_> = publishers.iter().map(|_| fixture.next()).collect();
        let mut other = fixture.ask(HELLO);
        assert_eq!(answer(&mut other).1, "hello");
        for publication in publications {
            publication.ticket.published(fixture.hub.inner(), AT, false);
        }
        for publisher in &mut publishers {
            let (head, body) = answer(publisher);
            assert!(head.starts_with("HTTP/1.1 200") && head.contains("\r\nDate: "), "{head}");
            assert_eq!(body, "{\"id\":\"7-5\",\"subscribers\":0}\n");
            // What came behind it waited for that.
            assert_eq!(answer(publisher).1, "hello");
        }
    }

    #[test]
    fn what_others_put_onto_the_answer_is_on_it_whatever_it_becomes() {
        let fixture = Fixture::new();
        let outcomes = [
            (None, "HTTP/1.1 200", "{\"id\":\"7-5\""),
            (Some(PublishError::Unavailable), "HTTP/1.1 503", "nothing was published"),
            (Some(PublishError::Unanswered), "HTTP/1.1 503", "outcome unknown"),
            (Some(PublishError::KeyReused), "HTTP/1.1 422", "another message"),
        ];
        for (error, status, text) in outcomes {
            let mut client = fixture.ask(&post("Origin: http://page\r\nIdempotency-Key: k\r\n"));
            let publication = fixture.next();
            assert!(publication.key.is_some());
            match error {
                None => publication.ticket.published(fixture.hub.inner(), AT, false),
                Some(error) => publication.ticket.end(Err(error)),
            }
            let (head, body) = answer(&mut client);
            assert!(head.starts_with(status) && body.contains(text), "{head}{body}");
            assert!(
                head.contains("X-Layer: there") && head.contains("Access-Control-Allow-Origin: http://page"),
                "{head}"
            );
            assert_eq!(head.matches("\r\nDate: ").count(), 1, "{head}");
            assert_eq!(head.contains("Retry-After"), status.ends_with("503"), "{head}");
        }
    }

    #[test]
    fn who_goes_takes_nothing_with_him_and_http_1_0_is_answered() {
        let fixture = Fixture::new();
        drop(fixture.ask(&post("")));
        let gone = fixture.next();
        let mut old = fixture.ask(&post("").replace("HTTP/1.1", "HTTP/1.0"));
        fixture.next().ticket.published(fixture.hub.inner(), AT, false);
        gone.ticket.published(fixture.hub.inner(), AT, false);
        assert!(answer(&mut old).0.contains("Connection: close"));
        assert_eq!(old.read(&mut [0]).expect("its end"), 0);
        assert_eq!(answer(&mut fixture.ask(HELLO)).1, "hello");
    }

    #[test]
    fn a_server_whose_bus_is_down_is_not_ready() {
        let fixture = Fixture::new();
        assert_eq!(fixture.server.get("/-/ready").send().text(), "ready\n");
        fixture.bus.up.store(false, Ordering::SeqCst);
        let answer = fixture.server.get("/-/ready").send();
        assert_eq!((answer.status(), answer.text()), (503, "bus down\n"));
        assert_eq!(fixture.server.get("/hello").send().text(), "hello");
    }

    /// The library's own way waits on its thread.
    #[test]
    fn a_thread_that_publishes_waits_for_its_bus() {
        let fixture = Fixture::new();
        let events = fixture.hub.namespace("n");
        let publisher = std::thread::spawn(move || events.publish("t", "x"));
        fixture.next().ticket.published(fixture.hub.inner(), AT, false);
        assert_eq!(publisher.join().expect("its end"), Ok(AT));
        let begun = fixture.hub.inner().begin_publishing(Vec::new(), 0, None);
        assert!(matches!(begun, Begun::Waits(_)), "{begun:?}");
    }
}
