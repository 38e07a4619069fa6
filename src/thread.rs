//! How every thread of ours is started.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread with that name and stack. The closure is boxed, so that what starting takes, some 2 KB, is compiled
/// for each type that a thread ends with and not for each closure.
pub fn start<T: Send + 'static>(
    name: impl Into<String>,
    stack: usize,
    run: Box<dyn FnOnce() -> T + Send>,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.into()).stack_size(stack).spawn(run)
}
