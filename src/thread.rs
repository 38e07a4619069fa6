//! How every thread of ours is started.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread with that name and stack. The closure is boxed, and all threads end with the same type, so that what
/// starting takes, some 2 KB, is compiled once and not for each closure.
pub fn start(name: impl Into<String>, stack: usize, run: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).stack_size(stack).spawn(run)
}
