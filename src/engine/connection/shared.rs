//! What all connections share, and the routes that the server answers itself.

use super::budget::Budget;
use super::exchange::Ended;
use super::in_flight::{Durations, InFlight, Unfinished};
use super::stats::Stats;
use crate::api::{
    Conversations, Handler, IntoResponse, READ_ONLY, Request, Response, Sessions, known_header, refuse_unless_read,
};
use crate::clock::Millis;
use crate::config::Limits;
use crate::lifecycle::Phase;
use crate::logging::requests::{RequestLog, Unwritten};
use pubsub::Hub;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long the request log may take to be written.
const REQUEST_LOG_PATIENCE: Duration = Duration::from_millis(250);

/// Answers for the server's figures, on workers and, while those are all busy, on the thread that says so.
pub trait StatusRoutes: Send + Sync {
    /// Whether this path is one of its.
    fn is_route(&self, path: &[u8]) -> bool;
    /// The answer to GET and HEAD for it.
    fn answer(&self, request: &Request) -> Response;
}

/// What all connections share.
pub struct Shared {
    pub limits: Limits,
    pub handler: Box<dyn Handler>,
    /// Of those that subscribe.
    pub hub: Option<Hub>,
    /// Of that hub.
    pub conversations: Arc<Conversations>,
    /// Their clients that outlive connections.
    pub sessions: Arc<Sessions>,
    pub status_routes: bool,
    /// What answers for the server's figures, once it runs, if anything does.
    pub status: OnceLock<Box<dyn StatusRoutes>>,
    pub phase: Phase,
    pub stats: Stats,
    /// A line for each request, if somebody wants that.
    pub request_log: Option<Arc<RequestLog>>,
    /// What each thread executes, by its index.
    pub in_flight: Vec<Arc<InFlight>>,
    pub durations: Durations,
    /// What parked connections may hold together.
    pub budget: Arc<Budget>,
    /// What bodies may hold together that are collected while they wait for a thread: part of it, if there is a limit.
    pub collected: Arc<Budget>,
}

impl Shared {
    /// For an application and two threads, with so many bytes for what waits.
    #[cfg(test)]
    pub fn for_test(limits: Limits, handler: impl Handler, memory: Option<u64>) -> Arc<Shared> {
        let sessions = Arc::<Sessions>::default();
        Arc::new(Shared {
            limits,
            handler: Box::new(handler),
            hub: None,
            conversations: sessions.conversations().clone(),
            sessions,
            status_routes: true,
            status: OnceLock::new(),
            phase: Phase::default(),
            stats: Stats::new(2),
            request_log: None,
            in_flight: [(); 2].map(|()| Arc::default()).to_vec(),
            durations: Durations::default(),
            budget: Budget::new(memory),
            collected: Budget::new(None),
        })
    }

    /// Whether its subscribers are woken here.
    pub(super) fn has_hub(&self, hub: &Hub) -> bool {
        self.hub.as_ref().is_some_and(|own| own.is(hub))
    }

    /// Whether every response now says `Connection: close`.
    pub fn is_draining(&self) -> bool {
        self.phase.is_draining()
    }

    /// Whether a connection may have another request.
    pub fn keeps_connections(&self) -> bool {
        self.phase.keeps_connections()
    }

    /// Whether somebody wants to know how long requests take, more precisely than the clock of deadlines tells.
    pub(super) fn is_measured(&self) -> bool {
        self.request_log.is_some() || self.status.get().is_some()
    }

    /// The end of an exchange: all come through here, once each, and whoever counts or logs requests is told here. `worker`
    /// says whose thread this is, if it is a worker's.
    pub(super) fn end(&self, ended: &Ended<'_>, worker: Option<usize>) {
        self.stats.ended(ended, worker);
        if let Some(log) = &self.request_log {
            ended.log_to(log);
        }
        log::debug!("{ended} ({})", ended.times());
    }

    /// Waits a moment until the request log is written, before the process ends or becomes another.
    pub fn flush_request_log(&self) -> Unwritten {
        self.request_log.as_ref().map(|log| log.flush(REQUEST_LOG_PATIENCE)).unwrap_or_default()
    }

    /// Cuts what the threads execute, and logs each.
    pub fn cut_in_flight(&self, now: Millis) {
        for flight in &self.in_flight {
            if let Some(cut) = flight.cut(now) {
                log_cut(&cut.unfinished);
                self.end(&cut.ended, None);
            }
        }
    }

    pub(super) fn body_limit(&self, head: &Request) -> u64 {
        self.handler.body_limit(head).unwrap_or(self.limits.body_size)
    }

    /// What Allow says where TRACE is refused, if that is known.
    pub(super) fn allow(&self, head: &Request) -> Option<String> {
        match self.is_status_route(head.path_bytes()) {
            true => Some(READ_ONLY.to_owned()),
            false => self.handler.allow(head),
        }
    }

    pub(super) fn is_status_route(&self, path: &[u8]) -> bool {
        // Nearly all requests are for something else.
        self.status_routes && path.starts_with(b"/-/") && self.is_below_status(path)
    }

    fn is_below_status(&self, path: &[u8]) -> bool {
        matches!(path, b"/-/healthy" | b"/-/ready") || self.status.get().is_some_and(|status| status.is_route(path))
    }

    /// What the server answers itself: `OPTIONS *`, and its state for load balancers and supervisors.
    ///
    /// `stuck`: every worker is busy, and has been for a while.
    pub(super) fn own_route(&self, request: &Request, stuck: bool) -> Option<Response> {
        let path = request.path_bytes();
        if path == b"*" {
            return Some(().into_response());
        }
        if !self.is_status_route(path) {
            return None;
        }
        if let Some(refusal) = refuse_unless_read(request.method()) {
            return Some(refusal);
        }
        let (status, text) = match path {
            b"/-/healthy" => (200, "healthy\n"),
            b"/-/ready" if !self.phase.is_ready() => (503, "stopping\n"),
            b"/-/ready" if self.hub.as_ref().is_some_and(Hub::is_cut_off) => (503, "bus down\n"),
            b"/-/ready" if stuck => (503, "busy\n"),
            b"/-/ready" => (200, "ready\n"),
            _ => return self.status.get().map(|status| status.answer(request)),
        };
        let no_store = known_header("Cache-Control", "no-store");
        Some(text.into_response().with_status_code(status).with_header(no_store))
    }
}

/// What a deadline has cut is said to whoever runs the server.
pub(super) fn log_cut(cut: &Unfinished) {
    log::warn!("cut {} after {:.1} s", cut.what, cut.age.as_secs_f64());
}
