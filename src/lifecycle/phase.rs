//! The phase that every thread can ask for.

use crate::stopping::Stopping;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

const SERVING: u8 = 0;
const LAME_DUCK: u8 = 1;
const DRAINING: u8 = 2;

/// Serving, then perhaps a lame duck, then draining. It only goes forward.
#[derive(Debug, Default)]
pub struct Phase {
    phase: AtomicU8,
    keeps_none: AtomicBool,
    holds: AtomicBool,
    stopping: Stopping,
}

impl Phase {
    /// Still serving everything, but `/-/ready` says 503.
    pub fn become_lame_duck(&self) {
        self.phase.fetch_max(LAME_DUCK, Ordering::SeqCst);
        self.stopping.set(true);
    }

    /// From here on every response says `Connection: close`.
    pub fn drain(&self) {
        self.phase.fetch_max(DRAINING, Ordering::SeqCst);
        self.stopping.set(true);
    }

    /// What handlers ask.
    pub fn stopping(&self) -> &Stopping {
        &self.stopping
    }

    /// Whether responses say `Connection: close` although the server serves on: a successor runs that cannot take
    /// connections over.
    pub fn keep_no_connection(&self, none: bool) {
        self.keeps_none.store(none, Ordering::SeqCst);
    }

    /// Whether no work is given out: what runs ends its turn at the next request.
    pub fn hold(&self, holds: bool) {
        self.holds.store(holds, Ordering::SeqCst);
    }

    /// See [`Phase::hold`].
    pub fn is_holding(&self) -> bool {
        self.holds.load(Ordering::Acquire)
    }

    /// Whether a connection may have another request.
    pub fn keeps_connections(&self) -> bool {
        !self.is_draining() && !self.keeps_none.load(Ordering::Acquire)
    }

    /// Whether a load balancer should send more.
    pub fn is_ready(&self) -> bool {
        self.phase.load(Ordering::Acquire) == SERVING
    }

    /// Whether connections are being ended.
    pub fn is_draining(&self) -> bool {
        self.phase.load(Ordering::Acquire) == DRAINING
    }
}
