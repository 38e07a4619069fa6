//! What only grows: one number for each series of the metrics, by its name and labels as Prometheus has them.
//!
//! Those whose name ends in `_seconds`, `_seconds_total` or `_seconds_sum` are kept in microseconds.

use crate::engine::connection::{Histogram, Shared};
use crate::logging::Log;
use crate::push::Hub;
use crate::sys::process::ProcessFigures;
use std::collections::BTreeMap;

/// Reloads, by mode and outcome.
pub const RELOADS: &str = "handover_reloads_total";
/// Requests that have ended, by method and class of status.
pub const REQUESTS: &str = "handover_http_requests_total";
/// How long answers took.
pub const DURATION: &str = "handover_http_request_duration_seconds";
/// Connections that were accepted.
pub const ACCEPTED: &str = "handover_connections_accepted_total";
/// Requests that were cut.
pub const CUT: &str = "handover_http_requests_cut_total";
/// Connections that have moved to a successor.
pub const MOVED: &str = "handover_connections_moved_total";
/// Lines of the access log that nobody will read.
pub const DROPPED_LINES: &str = "handover_access_log_dropped_lines_total";
/// Of them, those of which the access log does not say so yet: for the next program, and no metric.
pub const UNSAID_LINES: &str = "handover_access_log_unsaid_lines";
const WAIT: &str = "handover_queue_wait_seconds";
/// Processor time of the process and those before.
const CPU: &str = "process_cpu_seconds_total";

/// Numbers by series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals(BTreeMap<String, u64>);

impl From<Vec<(String, u64)>> for Totals {
    fn from(all: Vec<(String, u64)>) -> Totals {
        Totals(all.into_iter().collect())
    }
}

impl From<Totals> for Vec<(String, u64)> {
    fn from(totals: Totals) -> Vec<(String, u64)> {
        totals.0.into_iter().collect()
    }
}

impl Totals {
    /// What this process has counted itself.
    pub(super) fn of(
        shared: &Shared,
        (hub, log): (Option<&Hub>, Option<&Log>),
        process: Option<&ProcessFigures>,
    ) -> Totals {
        let mut totals = Totals::default();
        let stats = &shared.stats;
        for (method, status, count) in stats.requests() {
            totals.count(format!("{REQUESTS}{{method=\"{method}\",status=\"{status}\"}}"), count);
        }
        totals.count_histogram(DURATION, &stats.took());
        totals.count_histogram(WAIT, &stats.waits());
        let [refused, closed] = stats.by_reason();
        for (reason, count) in refused {
            totals.count(format!("handover_http_requests_refused_total{{reason=\"{reason}\"}}"), count);
        }
        for (reason, count) in closed {
            totals.count(format!("handover_connections_closed_total{{reason=\"{reason}\"}}"), count);
        }
        for (name, count) in [
            ("handover_http_response_content_bytes_total", stats.total_content()),
            (ACCEPTED, stats.total_accepted()),
            (MOVED, stats.total_migrated()),
            ("handover_handler_panics_total", stats.total_panicked()),
            ("handover_push_messages_delivered_total", stats.total_delivered()),
            (CUT, stats.total_cut_here()),
        ] {
            totals.count(name, count);
        }
        if let Some(hub) = hub {
            let (published, gaps) = hub.inner().counted();
            if let Some(bus) = hub.inner().bus_figures() {
                totals.count("handover_bus_reconnects_total", bus.reconnects);
                totals.count("handover_bus_losses_total", bus.losses);
            }
            totals.count("handover_push_messages_published_total", published);
            totals.count("handover_push_gaps_total", gaps as u64);
        }
        if let Some((dropped, written)) = shared.request_log.as_ref().map(|log| log.figures()) {
            totals.count(DROPPED_LINES, dropped);
            totals.count("handover_access_log_written_bytes_total", written);
        }
        if let Some((lost, written)) = log.map(Log::figures) {
            totals.count("handover_log_dropped_lines_total", lost);
            totals.count("handover_log_written_bytes_total", written);
        }
        for (name, count) in shared.handler.counters() {
            totals.count(name, count);
        }
        if let Some(process) = process {
            totals.count(CPU, process.cpu_micros);
        }
        totals
    }

    /// Of a histogram each bucket has those below it as well.
    fn count_histogram(&mut self, name: &str, Histogram { bounds, counts, sum }: &Histogram) {
        let mut below = 0;
        for (at, count) in counts.iter().enumerate() {
            below += count;
            let bound = bounds.get(at).map_or("+Inf".to_owned(), |micros| seconds(*micros));
            self.count(format!("{name}_bucket{{le=\"{bound}\"}}"), below);
        }
        self.count(format!("{name}_sum"), *sum);
        self.count(format!("{name}_count"), below);
    }

    /// Whether a series is one of that family.
    pub fn is_of(series: &str, name: &str) -> bool {
        let Some(rest) = series.strip_prefix(name) else { return false };
        let rest = ["_bucket", "_sum", "_count"].iter().find_map(|part| rest.strip_prefix(part)).unwrap_or(rest);
        rest.is_empty() || rest.starts_with('{')
    }

    /// Adds to one.
    pub fn count(&mut self, series: impl Into<String>, number: u64) {
        *self.0.entry(series.into()).or_default() += number;
    }

    /// Adds each to its own.
    pub fn add(&mut self, other: &Totals) {
        for (series, number) in &other.0 {
            self.count(series.as_str(), *number);
        }
    }

    /// Without the processor time, which a process that is executed anew goes on counting itself.
    pub fn without_cpu(mut self) -> Totals {
        self.0.remove(CPU);
        self
    }

    /// The series of a family: those of that name, and of a histogram or summary its parts.
    pub fn family<'t>(&'t self, name: &'t str) -> impl Iterator<Item = (&'t str, u64)> {
        let near = self.0.range(name.to_owned()..).take_while(move |(series, _)| series.starts_with(name));
        near.filter(move |(series, _)| Totals::is_of(series, name)).map(|(series, number)| (series.as_str(), *number))
    }

    /// One of them; nothing has happened where there is none.
    pub fn get(&self, series: &str) -> u64 {
        self.0.get(series).copied().unwrap_or_default()
    }

    /// The sum of a family without parts.
    pub fn sum(&self, name: &str) -> u64 {
        self.family(name).map(|(_, number)| number).sum()
    }
}

/// Microseconds as seconds, without digits that say nothing.
pub fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_written_as_they_are() {
        assert_eq!(
            [0, 1, 250, 1_000_000, 2_500_000, 10_000_000].map(seconds),
            ["0", "0.000001", "0.00025", "1", "2.5", "10"]
        );
    }

    #[test]
    fn a_family_has_its_own_series_and_no_others() {
        let mut totals = Totals::default();
        for series in [
            "a_total",
            "a_total{x=\"1\"}",
            "a_totals",
            "a",
            "b_seconds_sum",
            "b_seconds_bucket{le=\"1\"}",
            "b_secondss",
        ] {
            totals.count(series, 1);
        }
        let family = |name| totals.family(name).map(|(series, _)| series).collect::<Vec<_>>();
        assert_eq!(family("a_total"), ["a_total", "a_total{x=\"1\"}"]);
        assert_eq!(family("a"), ["a"]);
        assert_eq!(family("b_seconds"), ["b_seconds_bucket{le=\"1\"}", "b_seconds_sum"]);
        assert_eq!(totals.sum("a_total"), 2);
    }

    #[test]
    fn buckets_are_of_all_below_also_when_generations_are_added() {
        let histogram = Histogram { bounds: &[100, 1000], counts: vec![1, 2, 3], sum: 9 };
        let mut totals = Totals::default();
        totals.count_histogram("t_seconds", &histogram);
        let once = totals.clone();
        totals.add(&once);
        let all: Vec<_> = totals.family("t_seconds").collect();
        assert_eq!(
            all,
            [
                ("t_seconds_bucket{le=\"+Inf\"}", 12),
                ("t_seconds_bucket{le=\"0.0001\"}", 2),
                ("t_seconds_bucket{le=\"0.001\"}", 6),
                ("t_seconds_count", 12),
                ("t_seconds_sum", 18),
            ]
        );
    }
}
