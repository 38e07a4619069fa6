//! A channel whose one reader waits with a deadline: how everybody reaches the main thread.
//!
//! What goes to the workers is `crossbeam-channel`'s affair. A second type through that is 33 KB more of program, with
//! all of its flavours and the waiting for several at once; of those the main thread needs none.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The writing end, of which there may be many.
pub struct Sender<T>(Arc<Channel<T>>);

/// The reading end. What comes after it was dropped is dropped too.
pub struct Receiver<T>(Arc<Channel<T>>);

struct Channel<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    messages: VecDeque<T>,
    senders: usize,
    is_read: bool,
}

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// There was none until then.
    Yet,
    /// The last sender has been dropped.
    Ever,
}

/// A channel without a limit.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { messages: VecDeque::new(), senders: 1, is_read: true };
    let channel = Arc::new(Channel { state: Mutex::new(state), changed: Condvar::new() });
    (Sender(channel.clone()), Receiver(channel))
}

impl<T> Channel<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics half-way while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Leaves a message, and wakes the reader.
    pub fn send(&self, message: T) {
        let mut state = self.0.lock();
        if state.is_read {
            state.messages.push_back(message);
            self.0.changed.notify_one();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.0.lock().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        if state.senders == 0 {
            self.0.changed.notify_one();
        }
    }
}

impl<T> Receiver<T> {
    /// The next message, in the order in which they came. Waits until then at most; without a deadline as long as there
    /// are senders.
    pub fn receive(&self, until: Option<Instant>) -> Result<T, Nothing> {
        let mut state = self.0.lock();
        loop {
            if let Some(message) = state.messages.pop_front() {
                return Ok(message);
            }
            if state.senders == 0 {
                return Err(Nothing::Ever);
            }
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(time) if time.is_zero() => return Err(Nothing::Yet),
                Some(time) => self.0.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// The next message, if one has come.
    pub fn try_receive(&self) -> Option<T> {
        self.0.lock().messages.pop_front()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_read = false;
        let unread = std::mem::take(&mut state.messages);
        // Outside of the lock: what a message does when it is dropped is its own affair.
        drop(state);
        drop(unread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn messages_come_in_order_and_then_nothing() {
        let (sender, receiver) = channel();
        let other = sender.clone();
        sender.send(1);
        other.send(2);
        drop((sender, other));
        assert_eq!((receiver.receive(None), receiver.try_receive()), (Ok(1), Some(2)));
        assert_eq!((receiver.receive(None), receiver.try_receive()), (Err(Nothing::Ever), None));
    }

    #[test]
    fn a_wait_ends_by_a_message_by_time_and_by_the_last_sender() {
        let (sender, receiver) = channel();
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(receiver.receive(Some(soon)), Err(Nothing::Yet));
        assert!(Instant::now() >= soon);
        assert_eq!(receiver.receive(Some(Instant::now())), Err(Nothing::Yet));
        let (told, wait) = (sender.clone(), Some(Instant::now() + Duration::from_secs(30)));
        let thread = thread::spawn(move || told.send("hello"));
        assert_eq!(receiver.receive(wait), Ok("hello"));
        thread.join().expect("no panic");
        let thread = thread::spawn(move || drop(sender));
        assert_eq!(receiver.receive(wait), Err(Nothing::Ever));
        thread.join().expect("no panic");
    }

    #[test]
    fn what_nobody_reads_is_dropped() {
        let (sender, receiver) = channel();
        let message = Arc::new(());
        sender.send(message.clone());
        drop(receiver);
        sender.send(message.clone());
        assert_eq!(Arc::strong_count(&message), 1);
    }
}
