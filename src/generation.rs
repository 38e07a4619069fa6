//! Which execution of the program this is.

use std::sync::atomic::{AtomicUsize, Ordering};

static GENERATION: AtomicUsize = AtomicUsize::new(1);

/// Which execution of the program this is, counting from 1; a reload adds one.
///
/// ```
/// assert_eq!(handover::generation(), 1);
/// ```
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed) as u64
}

/// This process is of that generation again.
pub fn resume(generation: u64) {
    GENERATION.store(generation as usize, Ordering::Relaxed);
}

/// This process succeeds one of that generation.
pub fn succeed(predecessor: u64) {
    GENERATION.store(predecessor as usize + 1, Ordering::Relaxed);
}
