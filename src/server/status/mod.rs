//! What the server says of itself to whoever runs it: `/-/metrics`, `/-/status` and the stream behind that page,
//! `/-/status.json`.
//!
//! - `totals` is what only grows, `lineage` how that goes on in a successor, `now` the server as it is at a moment.
//! - `metrics` writes them for Prometheus; the page in `page.html` and `handover top` show them to people.

mod lineage;
mod metrics;
mod now;
mod totals;

pub use lineage::Lineage;
pub use now::Sources;
pub use totals::{ACCEPTED, CUT, DROPPED_LINES, MOVED, REQUESTS, UNSAID_LINES};

use super::Background;
use crate::api::{IntoResponse, Request, Response, known_header};
use crate::config::StatusAccess;
use crate::engine::connection::StatusRoutes;
use crate::lifecycle::state::SavedFigures;
use crate::pages;
use crate::push::{Hub, Namespace, bearer, is_local};
use now::Now;
use sha2::{Digest, Sha256};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The namespace of the page's stream, a name that no prefix has, and its topic.
const NAMESPACE: &str = "-/status";
const TOPIC: &str = "now";
/// Between two samples, and how many of them who comes later is shown: a minute.
const EACH: Duration = Duration::from_secs(1);
const SHOWN: usize = 60;
/// Bytes that a hub may keep that is there for this stream alone.
const ROOM: usize = 128 << 10;
/// Who comes listens soon after, or not at all.
const COMES: Duration = Duration::from_secs(5);

const METRICS: &str = "/-/metrics";
const PAGE_PATH: &str = "/-/status";
const JSON: &str = "/-/status.json";
const EVENTS: &str = "/-/status/events";

static PAGE: LazyLock<String> = LazyLock::new(|| pages::complete(include_str!("page.html")));
static POLICY: LazyLock<String> = LazyLock::new(|| pages::policy(&PAGE));

/// A hub for a server that has no other: for the status page alone.
pub fn hub_of_its_own() -> Hub {
    Hub::with_limits(ROOM, ROOM / 4)
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Status(Arc<Inner>);

struct Inner {
    access: Access,
    lineage: Lineage,
    sources: OnceLock<Sources>,
    stream: Option<Namespace>,
    /// The thread that publishes, while it runs, and until when it looks whether somebody listens.
    publisher: Mutex<(Option<Background>, Option<Instant>)>,
}

/// Who may look.
#[derive(Debug)]
pub struct Access {
    pub who: StatusAccess,
    /// The digest of a token that lets in from anywhere.
    pub token: Option<[u8; 32]>,
}

impl Access {
    /// Of a token as it stands in its file.
    pub fn digest(token: &[u8]) -> [u8; 32] {
        Sha256::digest(token).into()
    }

    /// Whether somebody could be let in.
    pub fn is_possible(&self) -> bool {
        self.who != StatusAccess::Nobody || self.token.is_some()
    }

    fn lets_in(&self, request: &Request) -> Result<(), Response> {
        // How long digests take to compare says nothing of the token.
        let by_token = |token: &[u8; 32]| bearer(request).is_some_and(|given| Access::digest(&given) == *token);
        let good = match self.who {
            StatusAccess::Anyone => true,
            StatusAccess::Local => is_local(request),
            StatusAccess::Nobody => false,
        };
        if good || self.token.as_ref().is_some_and(by_token) {
            return Ok(());
        }
        Err(match self.token {
            Some(_) => {
                let text = "a token is needed: as Authorization: Bearer, or token=\n";
                let challenge = known_header("WWW-Authenticate", "Bearer realm=\"status\"");
                text.into_response().with_status_code(401).with_header(challenge)
            }
            None => "only clients of this host may see this: over a Unix socket or for a loopback host, and no proxy; \
                     see status and status_token_file of the configuration\n"
                .into_response()
                .with_status_code(403),
        })
    }
}

impl Status {
    /// For whoever may look, with a stream of that hub's. `shared`: other messages are kept there, which samples are not to
    /// push out.
    pub fn new(access: Access, hub: Option<&Hub>, shared: bool) -> Status {
        let kept = if shared { 1 } else { SHOWN };
        let stream = hub
            .filter(|_| access.is_possible())
            .map(|hub| hub.namespace(NAMESPACE).history(kept).history_age(EACH * SHOWN as u32).heartbeat(0));
        let (lineage, sources) = (Lineage::default(), OnceLock::new());
        Status(Arc::new(Inner { access, lineage, sources, stream, publisher: Mutex::default() }))
    }

    /// What the generations before have counted.
    pub fn lineage(&self) -> &Lineage {
        &self.0.lineage
    }

    /// The server runs: its figures come from there.
    pub fn begins(&self, sources: Sources) {
        // It begins once.
        let _ = self.0.sources.set(sources);
    }

    /// Whether somebody may look.
    pub fn is_possible(&self) -> bool {
        self.0.access.is_possible()
    }

    /// What a successor goes on with. `exec`: it is this process.
    pub fn saved(&self, exec: bool) -> SavedFigures {
        let (mut totals, reloads) = self.0.lineage.known_before();
        if let Some(own) = self.own(exec) {
            totals.add(&own);
        }
        SavedFigures { totals: totals.into(), reloads, begun: self.0.lineage.begun() }
    }

    /// What all generations have counted, while the server runs.
    pub fn totals(&self) -> Option<totals::Totals> {
        let (mut totals, _) = self.0.lineage.before();
        totals.add(&self.own(false)?);
        Some(totals)
    }

    fn own(&self, exec: bool) -> Option<totals::Totals> {
        let own = self.0.sources.get()?.own_totals()?;
        Some(if exec { own.without_cpu() } else { own })
    }

    fn look(&self) -> Option<Now> {
        Now::look(self.0.sources.get()?, &self.0.lineage)
    }

    /// Publishes a sample each second while somebody listens, and waits for somebody as long as nobody does.
    pub fn publish(&self, background: &Background) {
        let Some(stream) = &self.0.stream else { return };
        self.publisher().0 = Some(background.clone());
        loop {
            let goes_on = if stream.listeners(TOPIC) > 0 {
                if let Some(now) = self.look() {
                    // Numbers can be written; and who stops publishes no more.
                    let _ = stream.publish(TOPIC, serde_json::to_string(&now.sample(false)).unwrap_or_default());
                }
                background.sleep(EACH)
            } else if self.publisher().1.is_some_and(|until| Instant::now() < until) {
                background.sleep(EACH)
            } else {
                background.rest()
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Somebody may be about to listen: a new client, or one that comes from the predecessor.
    pub fn somebody_comes(&self) {
        let mut publisher = self.publisher();
        publisher.1 = Some(Instant::now() + COMES);
        if let Some(background) = &publisher.0 {
            background.stir();
        }
    }

    fn publisher(&self) -> MutexGuard<'_, (Option<Background>, Option<Instant>)> {
        self.0.publisher.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StatusRoutes for Status {
    fn is_route(&self, path: &[u8]) -> bool {
        [METRICS, PAGE_PATH, JSON, EVENTS].iter().any(|route| route.as_bytes() == path)
    }

    fn answer(&self, request: &Request) -> Response {
        let no_store = |response: Response| response.with_header(known_header("Cache-Control", "no-store"));
        if let Err(refusal) = self.0.access.lets_in(request) {
            return no_store(refusal);
        }
        let path = request.path_bytes();
        if path == PAGE_PATH.as_bytes() {
            let page =
                PAGE.as_str().into_response().with_header(known_header("Content-Type", "text/html; charset=utf-8"));
            let page = page.with_header(known_header("Content-Security-Policy", &POLICY));
            return no_store(page.with_header(known_header("Referrer-Policy", "no-referrer")));
        }
        if path == EVENTS.as_bytes()
            && let Some(stream) = &self.0.stream
        {
            let response = stream.subscribe(request).topic(TOPIC).respond();
            self.somebody_comes();
            return response;
        }
        let Some(now) = self.look() else {
            return no_store("the server begins or ends\n".into_response().with_status_code(503));
        };
        let (text, content_type) = match path {
            // With a bus there is no stream of this host's own: each sample is a short one, and a browser comes for the next.
            path if path == EVENTS.as_bytes() => {
                let sample = serde_json::to_string(&now.sample(false)).unwrap_or_default();
                let wait = EACH.as_millis();
                (format!("retry: {wait}\n\ndata: {sample}\n\nevent: again\ndata\n\n"), "text/event-stream")
            }
            path if path == METRICS.as_bytes() => (metrics::page(&now), metrics::CONTENT_TYPE),
            _ => (serde_json::to_string(&now.whole()).unwrap_or_default() + "\n", "application/json"),
        };
        no_store(text.into_response().with_header(known_header("Content-Type", content_type)))
    }
}
