//! The channel from the acceptor to the workers, and which of them are awake for it.
//!
//! A worker that finds the channel empty rests, and to wake one costs more than a small request does. So no more than
//! one worker at a time is on the way to a job that it does not yet have: it was woken for one, or looks whether there
//! is another before it rests. While somebody searches nobody else is woken; who has found a job and sees that there
//! are more wakes the next. Thus a burst of small requests stays with the workers that are awake, and a handler that
//! blocks keeps nobody waiting, since whoever took its job has seen to the rest first. (The scheduler of Go does this
//! for its threads.) Who rested last is woken first: its caches are warm.

use crate::engine::sync::{Arc, AtomicBool, AtomicUsize, Mutex, MutexGuard, OnceLock, Ordering, PoisonError};
use crate::engine::sync::{Receiver, Sender, Thread, TryRecvError, TrySendError, bounded, fence, thread};

/// A channel of that capacity: the end of the acceptor and one for each worker.
pub fn queue<T>(capacity: usize, workers: usize) -> (Producer<T>, Vec<Consumer<T>>) {
    let (sender, receiver) = bounded(capacity);
    let idle = Arc::new(IdleWorkers {
        searching: AtomicBool::new(false),
        rest: AtomicUsize::new(0),
        resting: Mutex::new(Vec::with_capacity(workers)),
        parkers: (0..workers).map(|_| Parker::default()).collect(),
    });
    let consumer = |index| Consumer { receiver: receiver.clone(), idle: idle.clone(), index };
    let consumers = (0..workers).map(consumer).collect();
    (Producer { sender, idle: WakeAllOnDrop(idle) }, consumers)
}

/// What both ends know of the workers.
struct IdleWorkers {
    /// Whether somebody is on the way to a job, or looks for one.
    searching: AtomicBool,
    /// How many rest.
    rest: AtomicUsize,
    /// Those that rest, in the order in which they came to.
    resting: Mutex<Vec<usize>>,
    parkers: Box<[Parker]>,
}

/// A worker while it rests.
#[derive(Default)]
struct Parker {
    thread: OnceLock<Thread>,
    rests: AtomicBool,
}

impl IdleWorkers {
    fn resting(&self) -> MutexGuard<'_, Vec<usize>> {
        // Nothing panics half-way while it is held.
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes one that rests, unless somebody searches. What it is woken for has to be in the channel before.
    fn wake_one(&self) {
        // Either this sees a worker that rests, or that worker sees the job, since it looks once more; and either this
        // sees that nobody searches any more, or who did sees the job.
        fence(Ordering::SeqCst);
        if self.searching.load(Ordering::SeqCst) || self.rest.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut resting = self.resting();
        if !resting.is_empty() && !self.searching.swap(true, Ordering::SeqCst) {
            self.wake(&mut resting);
        }
    }

    fn wake(&self, resting: &mut Vec<usize>) {
        if let Some(index) = resting.pop() {
            self.rest.store(resting.len(), Ordering::SeqCst);
            let parker = &self.parkers[index];
            parker.rests.store(false, Ordering::SeqCst);
            if let Some(thread) = parker.thread.get() {
                thread.unpark();
            }
        }
    }

    /// From here on it may be woken.
    fn begin_rest(&self, index: usize) {
        let parker = &self.parkers[index];
        parker.thread.get_or_init(thread::current);
        let mut resting = self.resting();
        parker.rests.store(true, Ordering::SeqCst);
        resting.push(index);
        self.rest.store(resting.len(), Ordering::SeqCst);
    }

    /// It does not rest after all. Answers whether it was woken meanwhile, and so is the one that searches.
    fn end_rest(&self, index: usize) -> bool {
        let mut resting = self.resting();
        match resting.iter().position(|&other| other == index) {
            Some(place) => {
                resting.remove(place);
                self.rest.store(resting.len(), Ordering::SeqCst);
                false
            }
            None => true,
        }
    }

    /// Rests until it is woken.
    fn rest(&self, index: usize) {
        while self.parkers[index].rests.load(Ordering::SeqCst) {
            thread::park();
        }
    }
}

/// The acceptor's end. When it is dropped, and what is in the channel has been taken, the workers end.
pub struct Producer<T> {
    sender: Sender<T>,
    /// Behind the sender, because fields are dropped in their order.
    idle: WakeAllOnDrop,
}

/// Wakes all of them when it is dropped: there is nothing to rest for any more.
struct WakeAllOnDrop(Arc<IdleWorkers>);

impl Drop for WakeAllOnDrop {
    fn drop(&mut self) {
        fence(Ordering::SeqCst);
        let mut resting = self.0.resting();
        while !resting.is_empty() {
            self.0.wake(&mut resting);
        }
    }
}

impl<T> Producer<T> {
    /// Puts a job into the channel; [`Producer::wake_one`] has to follow.
    pub fn try_send(&self, job: T) -> Result<(), TrySendError<T>> {
        self.sender.try_send(job)
    }

    /// Whether everything was taken.
    pub fn is_empty(&self) -> bool {
        self.sender.is_empty()
    }

    /// Sees to it that what was sent is taken.
    pub fn wake_one(&self) {
        if !self.is_empty() {
            self.idle.0.wake_one();
        }
    }
}

/// A worker's end. A clone is for a thread that is started in the place of one that could not be.
pub struct Consumer<T> {
    receiver: Receiver<T>,
    idle: Arc<IdleWorkers>,
    index: usize,
}

impl<T> Clone for Consumer<T> {
    fn clone(&self) -> Consumer<T> {
        Consumer { receiver: self.receiver.clone(), idle: self.idle.clone(), index: self.index }
    }
}

impl<T> Consumer<T> {
    /// Whether a job stands in the channel.
    pub fn others_wait(&self) -> bool {
        !self.receiver.is_empty()
    }

    /// The next job; rests until there is one. `None` when there will be none.
    pub fn next(&self) -> Option<T> {
        if let Some(taken) = self.take() {
            return taken;
        }
        let mut searches = !self.idle.searching.swap(true, Ordering::SeqCst);
        loop {
            if searches {
                let found = self.search();
                self.end_search(found.is_some());
                if let Some(taken) = found {
                    return taken;
                }
            }
            if let Some(taken) = self.begin_rest() {
                return taken;
            }
            self.idle.rest(self.index);
            searches = true;
        }
    }

    /// From here on it may be woken, if there is not a job after all.
    fn begin_rest(&self) -> Option<Option<T>> {
        self.idle.begin_rest(self.index);
        fence(Ordering::SeqCst);
        let taken = self.take()?;
        if self.idle.end_rest(self.index) {
            self.idle.searching.store(false, Ordering::SeqCst);
        }
        // Who sent it may have called nobody, because this one still searched then.
        self.look_after_the_rest();
        Some(taken)
    }

    /// A job, `None` within if there will be none any more; `None` if there is none now.
    fn take(&self) -> Option<Option<T>> {
        match self.receiver.try_recv() {
            Ok(job) => Some(Some(job)),
            Err(TryRecvError::Disconnected) => Some(None),
            Err(TryRecvError::Empty) => None,
        }
    }

    /// Lets others have the processor once before it gives up: the acceptor, if both share one, has the next events by
    /// then.
    fn search(&self) -> Option<Option<T>> {
        self.take().or_else(|| {
            thread::yield_now();
            self.take()
        })
    }

    /// It has a job, and others look after what else there is; or it goes to rest, and looks once more after that.
    fn end_search(&self, found: bool) {
        self.idle.searching.store(false, Ordering::SeqCst);
        if found {
            self.look_after_the_rest();
        }
    }

    /// What it has may block, and what else is there is not to wait for that.
    fn look_after_the_rest(&self) {
        if !self.receiver.is_empty() {
            self.idle.wake_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender as Told, channel};
    use std::thread::JoinHandle;
    use std::time::Duration;

    const PATIENT: Duration = Duration::from_secs(20);

    fn start<T: Send + 'static>(
        consumers: Vec<Consumer<T>>,
        run: impl Fn(T) + Clone + Send + 'static,
    ) -> Vec<JoinHandle<()>> {
        let start = |consumer: Consumer<T>| {
            let run = run.clone();
            thread::spawn(move || {
                while let Some(job) = consumer.next() {
                    run(job);
                }
            })
        };
        consumers.into_iter().map(start).collect()
    }

    #[test]
    fn every_job_is_taken_however_they_come() {
        let (producer, consumers) = queue(64, 4);
        let (done, finished) = channel();
        let workers = start(consumers, move |job: usize| done.send(job).expect("somebody counts"));
        let mut sum = 0;
        let mut next = 0;
        for round in 0..3000 {
            // Bursts of every size; each is waited for, so that the workers rest again and again.
            let burst = 1 + round % 7;
            for _ in 0..burst {
                producer.try_send(next).expect("room");
                next += 1;
            }
            producer.wake_one();
            for _ in 0..burst {
                sum += finished.recv_timeout(PATIENT).expect("a job was forgotten");
            }
            if round % 3 == 0 {
                thread::yield_now();
            }
        }
        assert_eq!(sum, next * (next - 1) / 2);
        drop(producer);
        workers.into_iter().for_each(|worker| worker.join().expect("a worker that ended well"));
    }

    #[test]
    fn a_job_that_blocks_keeps_no_other_waiting() {
        let (producer, consumers) = queue(8, 3);
        let workers = start(consumers, |(told, until): (Told<()>, std::sync::mpsc::Receiver<()>)| {
            told.send(()).expect("somebody waits");
            until.recv().expect("to be told");
        });
        for _ in 0..200 {
            let (told, all) = channel();
            // One call for three jobs, each of which blocks until all have begun.
            let ends: Vec<_> = (0..3)
                .map(|_| {
                    let (end, until) = channel();
                    producer.try_send((told.clone(), until)).expect("room");
                    end
                })
                .collect();
            producer.wake_one();
            for _ in 0..3 {
                all.recv_timeout(PATIENT).expect("a job waits for one that blocks");
            }
            ends.into_iter().for_each(|end| end.send(()).expect("somebody waits"));
        }
        drop(producer);
        workers.into_iter().for_each(|worker| worker.join().expect("a worker that ended well"));
    }

    #[test]
    fn who_finds_a_job_just_before_it_rests_looks_after_the_rest() {
        let (producer, mut consumers) = queue(8, 2);
        let late = consumers.remove(0);
        let (done, finished) = channel();
        let idle = late.idle.clone();
        let workers = start(consumers, move |job: usize| done.send(job).expect("somebody counts"));
        while idle.rest.load(Ordering::SeqCst) == 0 || idle.searching.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        // It has just looked for the last time when two jobs come, for which nobody is woken.
        idle.searching.store(true, Ordering::SeqCst);
        producer.try_send(1).expect("room");
        producer.try_send(2).expect("room");
        producer.wake_one();
        late.end_search(false);
        assert_eq!(late.begin_rest(), Some(Some(1)));
        assert_eq!(finished.recv_timeout(PATIENT), Ok(2), "left in the channel");
        drop(producer);
        workers.into_iter().for_each(|worker| worker.join().expect("a worker that ended well"));
    }

    #[test]
    fn what_was_sent_is_taken_before_the_end() {
        let (producer, consumers) = queue(100, 2);
        let (done, finished) = channel();
        (0..100).for_each(|job| producer.try_send(job).expect("room"));
        assert!(matches!(producer.try_send(100), Err(TrySendError::Full(100))));
        let workers = start(consumers, move |job: usize| done.send(job).expect("somebody counts"));
        drop(producer);
        workers.into_iter().for_each(|worker| worker.join().expect("a worker that ended well"));
        assert_eq!(finished.into_iter().count(), 100);
    }
}
