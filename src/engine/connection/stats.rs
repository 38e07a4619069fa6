//! What is counted: requests, connections, cuts.

use super::close_reason::CloseReason;
use super::exchange::{End, Ended};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counters. One cell a worker, so that counting a request is never contended.
pub struct Stats {
    served: Box<[AtomicUsize]>,
    refused: AtomicUsize,
    panicked: AtomicUsize,
    accepted: AtomicUsize,
    cut: AtomicUsize,
    migrated: AtomicUsize,
    /// Each exchange that has ended, in its words.
    #[cfg(test)]
    pub(super) ended: std::sync::Mutex<Vec<String>>,
}

impl Stats {
    pub fn new(workers: usize) -> Stats {
        // 16 words apart: 128 bytes on 64 bits, which is two cache lines, as the prefetcher takes them.
        Stats {
            served: (0..workers * 16).map(|_| AtomicUsize::new(0)).collect(),
            refused: AtomicUsize::new(0),
            panicked: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            migrated: AtomicUsize::new(0),
            #[cfg(test)]
            ended: std::sync::Mutex::default(),
        }
    }

    /// An exchange has ended, on the thread of that worker or on none of theirs.
    pub(super) fn ended(&self, ended: &Ended<'_>, worker: Option<usize>) {
        if ended.is_refused() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        match ended.end {
            End::Answered if !ended.is_refused() => self.served(worker),
            End::Closed(CloseReason::Cut) => self.cut(),
            End::Answered | End::Closed(_) => {}
        }
        #[cfg(test)]
        self.ended.lock().expect("nothing panics with it").push(ended.to_string());
    }

    fn served(&self, worker: Option<usize>) {
        debug_assert!(worker.is_some(), "only workers answer, and each counts in its own cell");
        let Some(worker) = worker else { return };
        // Only that worker writes it, so nothing is lost between the two.
        let cell = &self.served[worker * 16];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
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
    pub fn total_migrated(&self) -> usize {
        self.migrated.load(Ordering::Relaxed)
    }

    /// Something was cut that is no exchange of this process.
    pub fn cut(&self) {
        self.cut.fetch_add(1, Ordering::Relaxed);
    }

    /// The predecessor has cut that many.
    pub fn cut_before(&self, requests: usize) {
        self.cut.fetch_add(requests, Ordering::Relaxed);
    }

    /// Requests that the stop deadline has cut.
    pub fn total_cut(&self) -> usize {
        self.cut.load(Ordering::Relaxed)
    }

    /// Requests answered by this process, the refused ones among them.
    pub fn total_served(&self) -> usize {
        self.served.iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }

    /// Requests that the server refused by itself: 4xx and 503.
    pub fn total_refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Handlers of this process that panicked.
    pub fn total_panicked(&self) -> usize {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Connections accepted by this process.
    pub fn total_accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}
