//! Answers requests below a prefix: GET subscribes, POST publishes.

use super::conversation::{asks_for_websocket, handshake, switch, too_many};
use super::hub::Namespace;
use super::origin::{allow_origin, allow_preflight};
use super::question::{self, Question, TOPICS, Wrong, strictly_decoded};
use super::token::Claims;
use crate::api::{Body, Converse, Handler, IntoResponse, Listener, Request, Response, Side, Subscribe, known_header};
use crate::clock::{Millis, boot_time};
use http1::response::{push_decimal, push_field};
use pubsub::{Form, Key, Message, PublishError, Subscription, Topic};
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
        let publish_to = |topic: &str, data| {
            let (topic, message) = self.message(claims, topic, event, data)?;
            hub.publish(&topic, message, boot_time(), key).map_err(refused)
        };
        let published = match (topic, &question.topics[..]) {
            ("", []) if event.is_some() => {
                return Err(Wrong::new(400, "event= is for one topic: of a batch each line says its own"));
            }
            ("", []) => hub.publish_all(self.batch(claims, &body)?, boot_time(), key).map_err(refused)?,
            ("", [topic]) => publish_to(topic, body)?,
            (topic, []) => publish_to(topic, body)?,
            (..) => return Err(Wrong::new(400, "one topic is published to at a time, or a batch without one")),
        };
        let mut text = Vec::with_capacity(96);
        text.extend_from_slice(b"{\"id\":\"");
        push_decimal(&mut text, published.position.epoch);
        text.push(b'-');
        push_decimal(&mut text, published.position.offset);
        text.extend_from_slice(b"\",\"subscribers\":");
        push_decimal(&mut text, published.subscribers as u64);
        text.extend_from_slice(b"}\n");
        Ok(self.described(text.into(), true))
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
