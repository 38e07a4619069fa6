//! The server as it is now: what the metrics, the status page and `handover top` show.

use super::lineage::Lineage;
use super::totals::{ACCEPTED, DURATION, REQUESTS, Totals};
use crate::clock::{Millis, wall_clock};
use crate::config::Config;
use crate::engine::acceptor::{Census, Command};
use crate::engine::connection::Shared;
use crate::engine::pool::worker::AcceptorHandle;
use crate::generation::generation;
use crate::lifecycle::state::SavedReload;
use crate::logging::Log;
use crate::push::Hub;
use crate::sys::process::ProcessFigures;
use crossbeam_channel::{Sender, bounded};
use pubsub::BusFigures;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long the acceptor may take to count the connections. While it does not, the last count stands.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where the figures come from.
pub struct Sources {
    /// It answers for itself, so nobody keeps it alive for that.
    shared: Weak<Shared>,
    commands: Sender<Command>,
    to_acceptor: AcceptorHandle,
    hub: Option<Hub>,
    keeps_messages: bool,
    log: Option<Arc<Log>>,
    workers: usize,
    streamers: usize,
    subscribers_limit: usize,
    began: Instant,
    /// What costs the more the more connections there are, and when it was last looked up.
    glance: Mutex<Option<(Instant, Glance)>>,
}

/// How long what costs much to look up is good for: however many ask, the acceptor counts so often and no more.
const GLANCE: Duration = Duration::from_millis(200);

#[derive(Clone, Copy)]
struct Glance {
    connections: Census,
    process: Option<ProcessFigures>,
}

impl Sources {
    /// From the settings of the server.
    pub(in crate::server) fn new(
        config: &Config,
        shared: &Arc<Shared>,
        (commands, to_acceptor): (Sender<Command>, AcceptorHandle),
        (hub, log): (Option<&Hub>, Option<&Arc<Log>>),
    ) -> Sources {
        Sources {
            shared: Arc::downgrade(shared),
            commands,
            to_acceptor,
            hub: hub.cloned(),
            keeps_messages: config.push.used,
            log: log.cloned(),
            workers: config.workers,
            streamers: config.streamers(),
            subscribers_limit: config.push.subscribers(config.limits.connections),
            began: Instant::now(),
            glance: Mutex::default(),
        }
    }

    /// Connections and the process, as they were a moment ago. Who asks while another looks has what that finds.
    fn glance(&self) -> Glance {
        let mut last = self.glance.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, glance)) = *last
            && at.elapsed() < GLANCE
        {
            return glance;
        }
        // Where the acceptor does not count, the last count stands.
        let before = last.map(|(_, glance)| glance.connections);
        let connections = self.census().or(before).unwrap_or_default();
        let glance = Glance { connections, process: ProcessFigures::now() };
        *last = Some((Instant::now(), glance));
        glance
    }

    fn publishers(&self) -> (Option<&Hub>, Option<&Log>) {
        (self.hub.as_ref(), self.log.as_deref())
    }

    fn census(&self) -> Option<Census> {
        let (answer, answered) = bounded(1);
        self.commands.send(Command::Count(answer)).ok()?;
        self.to_acceptor.wake();
        answered.recv_timeout(PATIENCE).ok()
    }

    /// What this process has counted by now.
    pub fn own_totals(&self) -> Option<Totals> {
        let shared = self.shared.upgrade()?;
        Some(Totals::of(&shared, self.publishers(), ProcessFigures::now().as_ref()))
    }
}

/// See the module.
pub struct Now {
    pub generation: u64,
    pub uptime: Duration,
    pub ready: bool,
    pub totals: Totals,
    /// The names of an application's own.
    pub own_counters: Vec<String>,
    pub reloads: Vec<SavedReload>,
    pub connections: Census,
    pub connections_limit: usize,
    pub workers: usize,
    pub threads: Vec<Thread>,
    pub budget: Option<u64>,
    pub budget_used: usize,
    pub subscribers: usize,
    pub subscribers_limit: usize,
    pub log_bytes: usize,
    pub log_limit: usize,
    pub bus: Option<BusFigures>,
    pub process: Option<ProcessFigures>,
}

/// What a thread of the pool does.
#[derive(Debug, Serialize)]
pub struct Thread {
    pub name: String,
    /// Method and target, and since how many seconds; nothing while it waits for work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<f64>,
}

impl Now {
    /// Looks. `None` once the server has ended.
    pub fn look(sources: &Sources, lineage: &Lineage) -> Option<Now> {
        let shared = sources.shared.upgrade()?;
        let Glance { connections, process } = sources.glance();
        // First those before: what has moved meanwhile is counted once more here, and not missed.
        let (mut totals, reloads) = lineage.before();
        totals.add(&Totals::of(&shared, sources.publishers(), process.as_ref()));
        let now = Millis::now();
        let name = |index: usize| match index {
            index if index < sources.workers => format!("worker-{index}"),
            index if index < sources.workers + sources.streamers => format!("stream-{index}"),
            _ => "status".to_owned(),
        };
        let threads = shared.in_flight.iter().enumerate().map(|(index, flight)| {
            let (request, age) = flight.shown(now).map(|(what, age)| (what, age.as_secs_f64())).unzip();
            Thread { name: name(index), request, age }
        });
        let hub = sources.hub.as_ref().map(Hub::inner);
        // What is there for the page alone is nobody's messages.
        let kept = hub.filter(|_| sources.keeps_messages);
        Some(Now {
            generation: generation(),
            uptime: sources.began.elapsed(),
            ready: shared.phase.is_ready() && !hub.is_some_and(pubsub::Hub::is_cut_off),
            totals,
            own_counters: shared.handler.counters().into_iter().map(|(name, _)| name).collect(),
            reloads,
            connections,
            connections_limit: shared.limits.connections,
            workers: sources.workers,
            threads: threads.collect(),
            budget: shared.budget.limit().map(|limit| limit as u64),
            budget_used: shared.budget.held(),
            subscribers: hub.map_or(0, pubsub::Hub::subscribers),
            subscribers_limit: sources.subscribers_limit,
            log_bytes: kept.map_or(0, pubsub::Hub::bytes),
            log_limit: kept.map_or(0, |hub| hub.limits().memory),
            bus: hub.and_then(pubsub::Hub::bus_figures),
            process,
        })
    }

    /// Workers that run a handler, or send its response.
    pub fn busy(&self) -> usize {
        self.threads[..self.workers.min(self.threads.len())].iter().filter(|thread| thread.request.is_some()).count()
    }

    /// What changes from moment to moment, as the status page's stream has it; of the threads those that have something to do,
    /// or all.
    pub fn sample(&self, idle: bool) -> Sample<'_> {
        let buckets = self.totals.family(DURATION).filter(|(series, _)| series.contains("_bucket"));
        let bound = |series: &str| series.split('"').nth(1).unwrap_or_default().to_owned();
        Sample {
            time: wall_clock().as_millis() as u64,
            pid: std::process::id(),
            generation: self.generation,
            uptime: self.uptime.as_secs_f64(),
            ready: self.ready,
            requests: self.by_status(),
            durations: buckets.map(|(series, count)| (bound(series), count)).collect(),
            sent: self.totals.get("handover_http_response_content_bytes_total"),
            refused: self.totals.sum("handover_http_requests_refused_total"),
            accepted: self.totals.get(ACCEPTED),
            connections: self.connections.each().into_iter().collect(),
            subscribers: self.subscribers,
            published: self.totals.get("handover_push_messages_published_total"),
            delivered: self.totals.get("handover_push_messages_delivered_total"),
            log_bytes: self.log_bytes,
            budget_used: self.budget_used,
            cpu: self.totals.get("process_cpu_seconds_total") as f64 / 1e6,
            resident: self.process.map(|process| process.resident),
            open_files: self.process.map(|process| process.open_files),
            threads: self.threads.iter().filter(|thread| idle || thread.request.is_some()).collect(),
            reloads: self.totals.sum(super::totals::RELOADS),
            bus: self.bus.as_ref().map(Bus::from),
        }
    }

    /// The same and what hardly changes: `/-/status.json`.
    pub fn whole(&self) -> Whole<'_> {
        Whole {
            version: env!("CARGO_PKG_VERSION"),
            sample: self.sample(true),
            limits: Limits {
                connections: self.connections_limit,
                subscribers: self.subscribers_limit,
                workers: self.workers,
                push_memory: self.log_limit,
                memory_budget: self.budget,
                open_files: self.process.and_then(|process| process.most_files),
            },
            last_reloads: self.reloads.iter().rev().map(Reload::from).collect(),
        }
    }

    fn by_status(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (series, count) in self.totals.family(REQUESTS) {
            let status = series.split("status=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            *all.entry(status.to_owned()).or_default() += count;
        }
        all
    }
}

/// See [`Now::sample`]. Totals are of all generations; times are in seconds, and `time` in milliseconds since 1970.
#[derive(Serialize)]
pub struct Sample<'n> {
    time: u64,
    pid: u32,
    generation: u64,
    uptime: f64,
    ready: bool,
    /// By class of status.
    requests: BTreeMap<String, u64>,
    /// Those that took no longer than so many seconds.
    durations: BTreeMap<String, u64>,
    sent: u64,
    refused: u64,
    accepted: u64,
    connections: BTreeMap<&'static str, usize>,
    subscribers: usize,
    published: u64,
    delivered: u64,
    log_bytes: usize,
    budget_used: usize,
    cpu: f64,
    resident: Option<u64>,
    open_files: Option<u64>,
    threads: Vec<&'n Thread>,
    reloads: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bus: Option<Bus<'n>>,
}

/// See [`BusFigures`].
#[derive(Serialize)]
struct Bus<'n> {
    up: bool,
    lag: u64,
    reconnects: u64,
    losses: u64,
    /// Of all hosts.
    subscribers: u64,
    /// Of each.
    hosts: BTreeMap<&'n str, u64>,
}

impl<'n> From<&'n BusFigures> for Bus<'n> {
    fn from(BusFigures { up, lag, reconnects, losses, hosts }: &'n BusFigures) -> Bus<'n> {
        let (up, lag, reconnects, losses) = (*up, *lag, *reconnects, *losses);
        let subscribers = hosts.iter().map(|(_, number)| number).sum();
        let hosts = hosts.iter().map(|(name, number)| (name.as_str(), *number)).collect();
        Bus { up, lag, reconnects, losses, subscribers, hosts }
    }
}

/// See [`Now::whole`].
#[derive(Serialize)]
pub struct Whole<'n> {
    version: &'static str,
    #[serde(flatten)]
    sample: Sample<'n>,
    limits: Limits,
    /// The newest first.
    last_reloads: Vec<Reload<'n>>,
}

#[derive(Serialize)]
struct Limits {
    connections: usize,
    subscribers: usize,
    workers: usize,
    push_memory: usize,
    memory_budget: Option<u64>,
    open_files: Option<u64>,
}

#[derive(Serialize)]
struct Reload<'n> {
    /// In seconds since 1970.
    at: u64,
    /// That served then.
    generation: u64,
    mode: &'static str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'n str>,
    duration: f64,
    hold: f64,
}

impl<'n> From<&'n SavedReload> for Reload<'n> {
    fn from(reload: &'n SavedReload) -> Reload<'n> {
        Reload {
            at: reload.at,
            generation: reload.generation,
            mode: if reload.exec { "exec" } else { "overlap" },
            outcome: if reload.failure.is_none() { "succeeded" } else { "failed" },
            reason: reload.failure.as_deref(),
            duration: reload.took as f64 / 1e3,
            hold: reload.held as f64 / 1e3,
        }
    }
}
