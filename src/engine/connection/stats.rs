//! What is counted: requests, connections, cuts.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counters. One cell a worker, so that counting a request is never contended.
pub struct Stats {
    served: Box<[AtomicUsize]>,
    refused: AtomicUsize,
    panicked: AtomicUsize,
    accepted: AtomicUsize,
    cut: AtomicUsize,
    migrated: AtomicUsize,
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
        }
    }

    pub(super) fn served(&self, worker: usize) {
        // Only that worker writes it, so nothing is lost between the two.
        let cell = &self.served[worker * 16];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// A request was refused by the server itself.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
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

    /// A request was cut.
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
