//! The phase that every thread can ask for.

use std::sync::atomic::{AtomicU8, Ordering};

const SERVING: u8 = 0;
const LAME_DUCK: u8 = 1;
const DRAINING: u8 = 2;

/// Serving, then perhaps a lame duck, then draining. It only goes forward.
#[derive(Debug, Default)]
pub struct Phase(AtomicU8);

impl Phase {
    /// Still serving everything, but `/-/ready` says 503.
    pub fn become_lame_duck(&self) {
        self.0.fetch_max(LAME_DUCK, Ordering::SeqCst);
    }

    /// From here on every response says `Connection: close`.
    pub fn drain(&self) {
        self.0.fetch_max(DRAINING, Ordering::SeqCst);
    }

    /// Whether a load balancer should send more.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire) == SERVING
    }

    /// Whether connections are being ended.
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire) == DRAINING
    }
}
