//! What is counted: requests by what was asked and answered, how long they took, connections, cuts.

use super::close_reason::{CloseReason, label};
use super::exchange::{Asked, End, Ended};
use http1::Reject;
use portable_atomic::AtomicU64;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tiny_http::Method;

/// What a request asked for, as it is counted: names that anybody may make up are one.
pub const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other", "none"];
/// What answered it: the class of a status, or that its connection ended before there was one.
pub const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];
/// The upper bounds of how long answers took, in microseconds.
pub const DURATIONS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];
/// The same of how long work waited for a thread. The clock behind it moves by 4 ms.
pub const WAITS: [u64; 7] = [5_000, 10_000, 25_000, 100_000, 500_000, 1_000_000, 5_000_000];

const SERVED: usize = 0;
const REQUESTS: usize = SERVED + 1;
const CONTENT: usize = REQUESTS + METHODS.len() * CLASSES.len();
const DELIVERED: usize = CONTENT + 1;
/// Each bucket, one for what is beyond the last bound, and the sum of microseconds.
const TOOK: usize = DELIVERED + 1;
const WAITED: usize = TOOK + DURATIONS.len() + 2;
const COUNTS: usize = WAITED + WAITS.len() + 2;

/// What one thread counts: on cache lines of its own, two of them at a time, as the prefetcher takes them.
#[repr(align(128))]
struct Cell([AtomicU64; COUNTS]);

impl Cell {
    fn new() -> Cell {
        Cell(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    fn get(&self, at: usize) -> u64 {
        self.0[at].load(Ordering::Relaxed)
    }
}

/// Counters. One cell a thread, so that counting a request is never contended.
pub struct Stats {
    /// One for each thread that drives connections, and the last for all others.
    cells: Box<[Cell]>,
    rare: Mutex<Rare>,
    panicked: AtomicU64,
    accepted: AtomicU64,
    cut: AtomicU64,
    /// Of those the ones that a predecessor has cut.
    cut_before: AtomicU64,
    migrated: AtomicU64,
    /// Each exchange that has ended, in its words.
    #[cfg(test)]
    pub(super) ended: std::sync::Mutex<Vec<String>>,
}

/// What ends a connection or a request early, by its reason.
#[derive(Default)]
struct Rare {
    refused: BTreeMap<String, u64>,
    closed: BTreeMap<String, u64>,
}

/// How many took how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Upper bounds in microseconds.
    pub bounds: &'static [u64],
    /// Of each bucket alone, and of what is beyond the last bound.
    pub counts: Vec<u64>,
    /// The sum, in microseconds.
    pub sum: u64,
}

impl Stats {
    /// For so many threads.
    pub fn new(threads: usize) -> Stats {
        Stats {
            cells: (0..=threads).map(|_| Cell::new()).collect(),
            rare: Mutex::default(),
            panicked: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            cut_before: AtomicU64::new(0),
            migrated: AtomicU64::new(0),
            #[cfg(test)]
            ended: std::sync::Mutex::default(),
        }
    }

    /// Counts on that thread, or on one that drives no connections.
    fn add(&self, thread: Option<usize>, at: usize, number: u64) {
        match thread.filter(|thread| *thread + 1 < self.cells.len()) {
            // Only that thread writes it, so nothing is lost between the two.
            Some(thread) => {
                let count = &self.cells[thread].0[at];
                count.store(count.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
            }
            None => _ = self.cells[self.cells.len() - 1].0[at].fetch_add(number, Ordering::Relaxed),
        }
    }

    fn add_time(&self, thread: Option<usize>, first: usize, bounds: &[u64], time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = bounds.iter().position(|bound| micros <= *bound).unwrap_or(bounds.len());
        self.add(thread, first + bucket, 1);
        self.add(thread, first + bounds.len() + 1, micros);
    }

    fn total(&self, at: usize) -> u64 {
        self.cells.iter().fold(0, |sum, cell| sum.wrapping_add(cell.get(at)))
    }

    fn histogram(&self, first: usize, bounds: &'static [u64]) -> Histogram {
        let counts = (first..=first + bounds.len()).map(|at| self.total(at)).collect();
        Histogram { bounds, counts, sum: self.total(first + bounds.len() + 1) }
    }

    /// An exchange has ended, on the thread of that worker or on none of theirs.
    pub(super) fn ended(&self, ended: &Ended<'_>, worker: Option<usize>) {
        let (method, class) = (method(&ended.method()), class(ended.status()));
        self.add(worker, REQUESTS + method * CLASSES.len() + class, 1);
        self.add(worker, CONTENT, ended.bytes());
        if let Some(refusal) = ended.refusal() {
            self.rare(|rare| &mut rare.refused, refusal_name(refusal));
        }
        match ended.end {
            End::Answered if !ended.is_refused() => self.add(worker, SERVED, 1),
            End::Closed(CloseReason::Cut) => self.cut(),
            End::Answered | End::Closed(_) => {}
        }
        // What is there to last says nothing of how fast the others are.
        if ended.end == End::Answered && !ended.lasts() {
            self.add_time(worker, TOOK, &DURATIONS, ended.took);
        }
        #[cfg(test)]
        self.ended.lock().expect("nothing panics with it").push(ended.to_string());
    }

    fn rare(&self, which: impl FnOnce(&mut Rare) -> &mut BTreeMap<String, u64>, name: String) {
        let mut rare = self.rare.lock().unwrap_or_else(PoisonError::into_inner);
        *which(&mut rare).entry(name).or_default() += 1;
    }

    /// A connection was closed.
    pub fn closed(&self, reason: CloseReason) {
        self.rare(|rare| &mut rare.closed, reason.label());
    }

    /// That thread has taken a connection that had waited for it.
    pub fn waited(&self, thread: usize, time: Duration) {
        self.add_time(Some(thread), WAITED, &WAITS, time);
    }

    /// That thread, or one that drives no connections, has sent so many messages to subscribers.
    pub(super) fn delivered(&self, thread: Option<usize>, messages: u64) {
        self.add(thread, DELIVERED, messages);
    }

    pub(super) fn panicked(&self) {
        self.panicked.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was accepted.
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection has moved to the successor.
    pub fn migrated(&self) {
        self.migrated.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that this process has moved to its successor.
    pub fn total_migrated(&self) -> u64 {
        self.migrated.load(Ordering::Relaxed)
    }

    /// Something was cut that is no exchange of this process.
    pub fn cut(&self) {
        self.cut.fetch_add(1, Ordering::Relaxed);
    }

    /// The predecessor has cut that many.
    pub fn cut_before(&self, requests: u64) {
        self.cut.fetch_add(requests, Ordering::Relaxed);
        self.cut_before.fetch_add(requests, Ordering::Relaxed);
    }

    /// Requests that this process itself has cut.
    pub fn total_cut_here(&self) -> u64 {
        self.cut.load(Ordering::Relaxed).saturating_sub(self.cut_before.load(Ordering::Relaxed))
    }

    /// Requests that the stop deadline has cut.
    pub fn total_cut(&self) -> usize {
        usize::try_from(self.cut.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Requests answered by this process, the refused ones excepted.
    pub fn total_served(&self) -> u64 {
        self.total(SERVED)
    }

    /// Requests that the server refused by itself: 4xx and 503.
    pub fn total_refused(&self) -> u64 {
        self.rare.lock().unwrap_or_else(PoisonError::into_inner).refused.values().sum()
    }

    /// Handlers of this process that panicked.
    pub fn total_panicked(&self) -> u64 {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Connections accepted by this process.
    pub fn total_accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Requests that have ended, by method and class; those that there were.
    pub fn requests(&self) -> Vec<(&'static str, &'static str, u64)> {
        let of = |method: usize, class: usize| {
            (METHODS[method], CLASSES[class], self.total(REQUESTS + method * CLASSES.len() + class))
        };
        let all = (0..METHODS.len()).flat_map(|method| (0..CLASSES.len()).map(move |class| of(method, class)));
        all.filter(|(.., count)| *count > 0).collect()
    }

    /// How long requests took that were answered, those of subscribers excepted.
    pub fn took(&self) -> Histogram {
        self.histogram(TOOK, &DURATIONS)
    }

    /// How long work waited for a thread.
    pub fn waits(&self) -> Histogram {
        self.histogram(WAITED, &WAITS)
    }

    /// Bytes of content that were sent.
    pub fn total_content(&self) -> u64 {
        self.total(CONTENT)
    }

    /// Messages that were sent to subscribers.
    pub fn total_delivered(&self) -> u64 {
        self.total(DELIVERED)
    }

    /// Requests that were refused, and connections that were closed, by reason.
    pub fn by_reason(&self) -> [Vec<(String, u64)>; 2] {
        let rare = self.rare.lock().unwrap_or_else(PoisonError::into_inner);
        [&rare.refused, &rare.closed].map(|map| map.iter().map(|(name, count)| (name.clone(), *count)).collect())
    }
}

fn method(asked: &Asked<'_>) -> usize {
    match asked {
        Asked::Method(Method::Get) => 0,
        Asked::Method(Method::Head) => 1,
        Asked::Method(Method::Post) => 2,
        Asked::Method(Method::Put) => 3,
        Asked::Method(Method::Patch) => 4,
        Asked::Method(Method::Delete) => 5,
        Asked::Method(Method::Options) => 6,
        Asked::Method(_) => 7,
        Asked::Name(b"") => METHODS.len() - 1,
        Asked::Name(name) => METHODS[..7].iter().position(|known| known.as_bytes() == *name).unwrap_or(7),
    }
}

fn class(status: Option<u16>) -> usize {
    status
        .map(|status| usize::from(status / 100))
        .and_then(|class| class.checked_sub(1))
        .map_or(5, |class| class.min(5))
}

/// `BareLf` as `bare_lf`: it stays what it is when its text is written anew.
pub(super) fn refusal_name(reject: Reject) -> String {
    label(&format!("{reject:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_classes_are_few_whatever_clients_send() {
        let named = |name| method(&Asked::Name(name));
        assert_eq!([&b"GET"[..], b"OPTIONS", b"BREW", b"get", b""].map(named), [0, 6, 7, 7, 8]);
        for (at, name) in METHODS[..7].iter().enumerate() {
            let known: Method = name.parse().expect("a method");
            assert_eq!(method(&Asked::Method(&known)), at, "{name}");
        }
        assert_eq!(method(&Asked::Method(&Method::Connect)), 7);
        assert_eq!([Some(101), Some(200), Some(599), None, Some(0), Some(999)].map(class), [0, 1, 4, 5, 5, 5]);
    }

    #[test]
    fn names_of_reasons_are_labels() {
        assert_eq!(refusal_name(Reject::BareLf), "bare_lf");
        assert_eq!(refusal_name(Reject::EncodingInHttp10), "encoding_in_http10");
        assert_eq!(CloseReason::Refused(Reject::Overloaded).label(), "refused");
        assert_eq!(CloseReason::PeerClosedInRequest.label(), "peer_closed_in_request");
    }

    #[test]
    fn each_thread_counts_for_itself_and_the_sum_is_of_all() {
        let stats = Stats::new(2);
        stats.waited(0, Duration::from_millis(4));
        stats.waited(1, Duration::from_millis(30));
        stats.waited(1, Duration::from_secs(60));
        // Of a thread that is none of these.
        stats.waited(7, Duration::ZERO);
        let waits = stats.waits();
        assert_eq!(waits.counts, [2, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(waits.sum, 60_034_000);
        stats.delivered(Some(0), u64::from(u32::MAX));
        stats.delivered(Some(1), 2);
        assert_eq!(stats.total_delivered(), u64::from(u32::MAX) + 2);
    }
}
