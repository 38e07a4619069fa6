//! Messages to the one thread that reads them when it wakes, which is not by them: the acceptor waits in its poller.
//!
//! A channel that nobody waits at needs no more than this, and each type of message through a `crossbeam-channel` is
//! some 8 KB of program: all of its flavours are compiled for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The writing end, of which there may be many.
pub struct Mailbox<T>(Arc<Mutex<Option<Vec<T>>>>);

/// The reading end. What comes after it was dropped is dropped too.
pub struct Inbox<T>(Mailbox<T>);

/// A mailbox and its reader.
pub fn mailbox<T>() -> (Mailbox<T>, Inbox<T>) {
    let mailbox = Mailbox(Arc::new(Mutex::new(Some(Vec::new()))));
    (mailbox.clone(), Inbox(mailbox))
}

impl<T> Mailbox<T> {
    fn lock(&self) -> MutexGuard<'_, Option<Vec<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a message; wake the reader afterwards.
    pub fn put(&self, message: T) {
        if let Some(messages) = self.lock().as_mut() {
            messages.push(message);
        }
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Mailbox<T> {
        Mailbox(self.0.clone())
    }
}

impl<T> Inbox<T> {
    /// All that has come, in its order.
    pub fn take(&self) -> Vec<T> {
        self.0.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        // Outside of the lock: what a message does when it is dropped is its own affair.
        let unread = self.0.lock().take();
        drop(unread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_order_and_end_with_the_reader() {
        let (mailbox, inbox) = mailbox();
        let (one, two) = (Arc::new(1), Arc::new(2));
        mailbox.put(one.clone());
        mailbox.clone().put(two.clone());
        assert_eq!(inbox.take(), [one.clone(), two.clone()]);
        assert!(inbox.take().is_empty());
        mailbox.put(one.clone());
        drop(inbox);
        mailbox.put(two.clone());
        assert_eq!((Arc::strong_count(&one), Arc::strong_count(&two)), (1, 1));
    }
}
