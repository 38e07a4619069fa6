//! What stands in the place of `src/sync.rs`: the same names, of loom's types.

pub use loom::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
pub use loom::sync::{Mutex, MutexGuard};
pub use std::sync::{Arc, PoisonError};
// Loom has none. What is set under a mutex and read under it needs none of its orders.
pub use std::sync::OnceLock;

pub use channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
pub use thread::Thread;

/// Loom takes `SeqCst` for `AcqRel`, and then lets a load see what a `swap` has written although a store came behind it
/// that the load has to see. A store that reads what it replaces stands in the one order of all.
#[derive(Debug, Default)]
pub struct AtomicBool(loom::sync::atomic::AtomicBool);

impl AtomicBool {
    pub fn new(value: bool) -> AtomicBool {
        AtomicBool(loom::sync::atomic::AtomicBool::new(value))
    }

    pub fn load(&self, ordering: Ordering) -> bool {
        self.0.load(ordering)
    }

    pub fn store(&self, value: bool, ordering: Ordering) {
        assert_eq!(ordering, Ordering::SeqCst, "this one is stronger than it should be");
        self.0.swap(value, ordering);
    }

    pub fn swap(&self, value: bool, ordering: Ordering) -> bool {
        self.0.swap(value, ordering)
    }
}

/// Loom's `park` and `unpark`, of which the second would also wake a thread that waits for a mutex.
pub mod thread {
    use loom::sync::atomic::AtomicBool;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool as Plain, Ordering};

    pub use loom::thread::yield_now;

    #[derive(Clone)]
    pub struct Thread(Arc<Parker>);

    struct Parker {
        thread: loom::thread::Thread,
        token: AtomicBool,
        /// Whether it is in `park`. Not loom's: it changes together with the step before it.
        parked: Plain,
    }

    impl Thread {
        pub fn unpark(&self) {
            self.0.token.swap(true, Ordering::AcqRel);
            if self.0.parked.load(Ordering::Relaxed) {
                self.0.thread.unpark();
            }
        }
    }

    loom::thread_local! {
        static CURRENT: Thread = Thread(Arc::new(Parker {
            thread: loom::thread::current(),
            token: AtomicBool::new(false),
            parked: Plain::new(false),
        }));
    }

    pub fn current() -> Thread {
        CURRENT.with(Thread::clone)
    }

    pub fn park() {
        let Thread(parker) = current();
        while !parker.token.swap(false, Ordering::AcqRel) {
            parker.parked.store(true, Ordering::Relaxed);
            loom::thread::park();
            parker.parked.store(false, Ordering::Relaxed);
        }
    }
}

/// What crossbeam's bounded channel promises, and no more: a mutex would order what that does not. Of one sender, and
/// for as many jobs in all as it has room for.
mod channel {
    use super::{AtomicUsize, Ordering, fence};
    use std::sync::{Arc, Mutex, PoisonError};

    /// In the bounds: where the first job stands that was not taken, one bit more for the sender that has gone, and
    /// where the next one will stand. In one word, since each further one has its own orders to go through.
    const HEAD: usize = 1 << 16;
    const DISCONNECTED: usize = 1 << 15;

    struct Channel<T> {
        bounds: AtomicUsize,
        /// Not loom's mutexes: the bounds say whose a place is.
        places: Box<[Mutex<Option<T>>]>,
    }

    #[derive(Clone, Copy)]
    struct Bounds(usize);

    impl Bounds {
        fn head(self) -> usize {
            self.0 / HEAD
        }

        fn tail(self) -> usize {
            self.0 % DISCONNECTED
        }

        fn is_empty(self) -> bool {
            self.head() == self.tail()
        }

        fn is_disconnected(self) -> bool {
            self.0 & DISCONNECTED != 0
        }
    }

    pub struct Sender<T>(Arc<Channel<T>>);

    pub struct Receiver<T>(Arc<Channel<T>>);

    #[derive(Debug)]
    pub enum TrySendError<T> {
        Full(T),
    }

    #[derive(Debug, PartialEq, Eq)]
    pub enum TryRecvError {
        Empty,
        Disconnected,
    }

    pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let places = (0..capacity).map(|_| Mutex::new(None)).collect();
        let channel = Arc::new(Channel { bounds: AtomicUsize::new(0), places });
        (Sender(channel.clone()), Receiver(channel))
    }

    impl<T> Channel<T> {
        /// In the one order of all such steps, as crossbeam reads them.
        fn bounds(&self) -> Bounds {
            fence(Ordering::SeqCst);
            Bounds(self.bounds.load(Ordering::Acquire))
        }
    }

    impl<T> Sender<T> {
        pub fn try_send(&self, job: T) -> Result<(), TrySendError<T>> {
            let tail = Bounds(self.0.bounds.load(Ordering::Relaxed)).tail();
            let Some(place) = self.0.places.get(tail) else { return Err(TrySendError::Full(job)) };
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
            self.0.bounds.fetch_add(1, Ordering::AcqRel);
            Ok(())
        }

        pub fn is_empty(&self) -> bool {
            self.0.bounds().is_empty()
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.bounds.fetch_or(DISCONNECTED, Ordering::AcqRel);
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Receiver<T> {
            Receiver(self.0.clone())
        }
    }

    impl<T> Receiver<T> {
        pub fn try_recv(&self) -> Result<T, TryRecvError> {
            let mut bounds = self.0.bounds();
            loop {
                if bounds.is_empty() {
                    return Err(match bounds.is_disconnected() {
                        true => TryRecvError::Disconnected,
                        false => TryRecvError::Empty,
                    });
                }
                let taken = bounds.0 + HEAD;
                match self.0.bounds.compare_exchange(bounds.0, taken, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => break,
                    Err(actual) => bounds = Bounds(actual),
                }
            }
            let job = self.0.places[bounds.head()].lock().unwrap_or_else(PoisonError::into_inner).take();
            Ok(job.expect("a place between the bounds is filled, and is nobody else's"))
        }

        pub fn is_empty(&self) -> bool {
            self.0.bounds().is_empty()
        }
    }
}
