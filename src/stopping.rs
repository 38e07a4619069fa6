//! Whether the server that a thread works for is to end: for handlers that run long.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a server tells its threads.
#[derive(Clone, Debug, Default)]
pub struct Stopping(Arc<AtomicBool>);

thread_local! {
    static OWN: RefCell<Option<Stopping>> = const { RefCell::new(None) };
}

impl Stopping {
    /// It is to end, or is to go on after all.
    pub fn set(&self, stopping: bool) {
        self.0.store(stopping, Ordering::Release);
    }

    /// This thread works for it.
    pub fn is_of_this_thread(&self) {
        OWN.with_borrow_mut(|own| *own = Some(self.clone()));
    }
}

/// Whether the server of this thread stops, or another process is the server: what a handler that runs long, or pushes
/// without an end, asks now and then, so that it need not be cut at the deadline. On a thread that is none of a server's it
/// is false.
///
/// ```
/// use handover::{Body, Request};
///
/// let ticks = |_: &mut Request| {
///     Body::stream(|writer| {
///         while !handover::stopping() {
///             writeln!(writer, "tick")?;
///             writer.flush()?;
///             std::thread::sleep(std::time::Duration::from_secs(1));
///         }
///         Ok(())
///     })
/// };
/// let server = handover::Server::builder().handler(ticks);
/// # let _ = server;
/// ```
pub fn stopping() -> bool {
    OWN.with_borrow(|own| own.as_ref().is_some_and(|own| own.0.load(Ordering::Acquire)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_asks_its_own_server() {
        let (one, other) = (Stopping::default(), Stopping::default());
        assert!(!stopping());
        one.is_of_this_thread();
        other.set(true);
        assert!(!stopping());
        one.set(true);
        assert!(stopping());
        assert!(!std::thread::spawn(stopping).join().expect("an answer"));
    }
}
