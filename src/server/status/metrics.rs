//! `/-/metrics`: the figures in the text format of Prometheus, version 0.0.4.

use super::now::Now;
use super::totals::{DROPPED_LINES, DURATION, MOVED, RELOADS, REQUESTS, Totals, seconds};
use std::fmt::Write;

/// What it is sent as.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Of what only grows: name, type and text of each family, in the order of the page.
const GROWING: &[(&str, &str, &str)] = &[
    (REQUESTS, "counter", "Requests that have ended, by method and class of status; none where there was no answer."),
    (DURATION, "histogram", "From the first byte of a request to the last of its answer; subscribers are not in it."),
    ("handover_http_response_content_bytes_total", "counter", "Bytes of content that were sent."),
    ("handover_http_requests_refused_total", "counter", "Requests that the server itself refused, by reason."),
    ("handover_http_requests_cut_total", "counter", "Requests that the deadline of a stop or a reload has cut."),
    ("handover_handler_panics_total", "counter", "Handlers that panicked."),
    ("handover_connections_accepted_total", "counter", "Connections that were accepted."),
    ("handover_connections_closed_total", "counter", "Connections that were closed, by reason."),
    (MOVED, "counter", "Connections that moved to a successor."),
    ("handover_queue_wait_seconds", "histogram", "How long work waited for a thread."),
    ("handover_file_cache_hits_total", "counter", "Files that were found in the cache."),
    ("handover_file_cache_misses_total", "counter", "Files that were looked for on disk."),
    ("handover_push_messages_published_total", "counter", "Messages that were published."),
    ("handover_push_messages_delivered_total", "counter", "Messages that were sent to subscribers, one for each."),
    ("handover_push_gaps_total", "counter", "Subscribers that were told that messages are missing."),
    ("handover_bus_reconnects_total", "counter", "How many times the bus was connected to again."),
    (
        "handover_bus_losses_total",
        "counter",
        "How many times the bus was not what was followed, or had lost something.",
    ),
    ("handover_access_log_written_bytes_total", "counter", "Bytes of the access log that were written."),
    (DROPPED_LINES, "counter", "Lines of the access log that could not be written."),
    ("handover_log_written_bytes_total", "counter", "Bytes of the log that were written."),
    ("handover_log_dropped_lines_total", "counter", "Lines of the log that could not be written."),
    (RELOADS, "counter", "Reloads, by mode and outcome."),
    ("handover_reload_duration_seconds", "summary", "From the signal to the moment in which the successor serves."),
    ("handover_reload_hold_seconds", "summary", "For how much of that no new work was given out."),
    ("process_cpu_seconds_total", "counter", "Processor time, that of the generations before included."),
];

/// The whole page.
pub fn page(now: &Now) -> String {
    let mut page = String::with_capacity(16 * 1024);
    for (name, kind, help) in GROWING {
        let mut series: Vec<(&str, u64)> = now.totals.family(name).collect();
        // Buckets stand in the order of their bounds, and before their sum.
        series.sort_by(|(one, _), (other, _)| bound(one).total_cmp(&bound(other)));
        if !series.is_empty() {
            begin(&mut page, name, kind, help);
            series.into_iter().for_each(|(series, number)| push_total(&mut page, series, number));
        }
    }
    let known = |series: &str| GROWING.iter().any(|(name, ..)| Totals::is_of(series, name));
    for name in now.own_counters.iter().filter(|name| !known(name)) {
        let name = name.split('{').next().unwrap_or_default();
        if !page.contains(&format!("# TYPE {name} ")) {
            let _ = writeln!(page, "# TYPE {name} counter");
            now.totals.family(name).for_each(|(series, number)| push_total(&mut page, series, number));
        }
    }
    for Gauge { name, help, values } in gauges(now) {
        begin(&mut page, name, "gauge", help);
        for (labels, value) in values {
            let _ = writeln!(page, "{name}{labels} {value}");
        }
    }
    page
}

/// The bound of a bucket; what is none has the order that it has.
fn bound(series: &str) -> f64 {
    let bound = series.split_once("_bucket{le=\"").and_then(|(_, rest)| rest.split('"').next());
    bound.and_then(|bound| bound.parse().ok()).unwrap_or(f64::INFINITY)
}

fn begin(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn push_total(page: &mut String, series: &str, number: u64) {
    let name = series.split('{').next().unwrap_or_default();
    let _ = match name.ends_with("_seconds_total") || name.ends_with("_seconds_sum") {
        true => writeln!(page, "{series} {}", seconds(number)),
        false => writeln!(page, "{series} {number}"),
    };
}

struct Gauge {
    name: &'static str,
    help: &'static str,
    values: Vec<(String, String)>,
}

fn gauges(now: &Now) -> Vec<Gauge> {
    let mut gauges = Vec::new();
    let mut gauge = |name, help, values: Vec<(String, String)>| {
        if !values.is_empty() {
            gauges.push(Gauge { name, help, values });
        }
    };
    let one = |value: &dyn ToString| vec![(String::new(), value.to_string())];
    let some = |value: Option<u64>| value.map(|value| one(&value)).unwrap_or_default();
    gauge(
        "handover_build_info",
        "The version of the program.",
        vec![(format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), "1".to_owned())],
    );
    gauge(
        "handover_generation",
        "Which execution of the program this is, counted from the start.",
        one(&now.generation),
    );
    gauge("handover_ready", "Whether it takes new work: what /-/ready says.", one(&u8::from(now.ready)));
    let states = now.connections.each().into_iter();
    let states = states.map(|(state, number)| (format!("{{state=\"{state}\"}}"), number.to_string()));
    gauge("handover_connections", "Open connections, by what they wait for.", states.collect());
    gauge("handover_connections_limit", "How many there may be.", one(&now.connections_limit));
    gauge("handover_workers", "Threads that run handlers.", one(&now.workers));
    gauge("handover_workers_busy", "Those of them that are in a handler.", one(&now.busy()));
    gauge("handover_queue_depth", "Work that waits for a thread.", one(&now.connections.queued));
    gauge("handover_memory_budget_bytes", "Memory for what waits, where it is limited.", some(now.budget));
    gauge(
        "handover_memory_budget_used_bytes",
        "What of that is taken.",
        now.budget.map_or(vec![], |_| one(&now.budget_used)),
    );
    gauge("handover_push_subscribers", "Subscribers.", one(&now.subscribers));
    gauge("handover_push_subscribers_limit", "How many there may be.", one(&now.subscribers_limit));
    if now.log_limit > 0 {
        gauge("handover_push_log_bytes", "Memory that messages take.", one(&now.log_bytes));
        gauge("handover_push_log_limit_bytes", "How much that may be.", one(&now.log_limit));
    }
    if let Some(bus) = &now.bus {
        gauge("handover_bus_up", "Whether messages go through the bus.", one(&u8::from(bus.up)));
        gauge("handover_bus_lag_messages", "Messages of the bus that this host has not read.", one(&bus.lag));
        let label = |name: &str| name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let hosts =
            bus.hosts.iter().map(|(name, number)| (format!("{{host=\"{}\"}}", label(name)), number.to_string()));
        gauge(
            "handover_bus_subscribers",
            "Subscribers of each host that has said lately that it is there.",
            hosts.collect(),
        );
    }
    if let Some(last) = now.reloads.last() {
        gauge("handover_reload_last_timestamp_seconds", "When the last reload was over.", one(&last.at));
        gauge("handover_reload_last_success", "Whether it succeeded.", one(&u8::from(last.failure.is_none())));
        gauge("handover_reload_last_duration_seconds", "How long it took.", one(&seconds(last.took * 1000)));
        gauge(
            "handover_reload_last_hold_seconds",
            "For how long no new work was given out.",
            one(&seconds(last.held * 1000)),
        );
    }
    if let Some(process) = &now.process {
        gauge("process_resident_memory_bytes", "Memory that is present.", one(&process.resident));
        gauge("process_virtual_memory_bytes", "The address space.", one(&process.virtual_size));
        gauge("process_threads", "Threads.", one(&process.threads));
        gauge("process_open_fds", "Open descriptors.", one(&process.open_files));
        gauge("process_max_fds", "How many there may be.", some(process.most_files));
        gauge(
            "process_start_time_seconds",
            "When the process was started, since 1970.",
            one(&seconds(process.started * 1000)),
        );
    }
    gauges
}
