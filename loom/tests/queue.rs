//! The work queue: nothing that was sent is forgotten, and nobody waits for a job that blocks.

use handover_loom::sync::thread::{Thread, current, park};
use handover_loom::{check, faulty, queue};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use std::sync::{Arc, Mutex};

/// The queue, or one with a fault.
trait Queue: 'static {
    type Producer;
    type Consumer: Send;
    fn queue(capacity: usize, workers: usize) -> (Self::Producer, Vec<Self::Consumer>);
    fn send(producer: &Self::Producer);
    fn wake_one(producer: &Self::Producer);
    fn next(consumer: &Self::Consumer) -> Option<()>;
}

macro_rules! queue {
    ($name:ident, $($module:ident)::+) => {
        struct $name;

        impl Queue for $name {
            type Producer = $($module)::+::Producer<()>;
            type Consumer = $($module)::+::Consumer<()>;

            fn queue(capacity: usize, workers: usize) -> (Self::Producer, Vec<Self::Consumer>) {
                $($module)::+::queue(capacity, workers)
            }

            fn send(producer: &Self::Producer) {
                producer.try_send(()).expect("room");
            }

            fn wake_one(producer: &Self::Producer) {
                producer.wake_one();
            }

            fn next(consumer: &Self::Consumer) -> Option<()> {
                consumer.next()
            }
        }
    };
}

queue!(Real, queue);
queue!(NoSecondLook, faulty::no_second_look);
queue!(NobodyWakesTheNext, faulty::nobody_wakes_the_next);
queue!(NoLookAfterTheLast, faulty::no_look_after_the_last);
queue!(SearchesForEver, faulty::searches_for_ever);
queue!(WokenBeforeTheEnd, faulty::woken_before_the_end);

/// How many jobs have begun, and who waits for that. Without guards that a failing model would drop once more.
#[derive(Clone)]
struct Begun(Arc<(AtomicUsize, Mutex<Vec<Thread>>)>);

impl Begun {
    fn new() -> Begun {
        Begun(Arc::new((AtomicUsize::new(0), Mutex::default())))
    }

    fn one_more(&self) {
        self.0.0.fetch_add(1, Ordering::AcqRel);
        let waiting = self.0.1.lock().unwrap().clone();
        waiting.iter().for_each(Thread::unpark);
    }

    /// To wait for ever is a deadlock, which loom finds.
    fn wait_for(&self, jobs: usize) {
        let current = current();
        // Whoever finds this thread in the list has counted after this.
        self.count();
        self.0.1.lock().unwrap().push(current);
        while self.count() < jobs {
            park();
        }
    }

    fn count(&self) -> usize {
        // What is read and written back is the last there is.
        self.0.0.fetch_add(0, Ordering::AcqRel)
    }
}

/// Ends the workers when it is dropped, but not while a model fails: no thread runs any more then.
struct Sends<Q: Queue>(Option<Q::Producer>);

impl<Q: Queue> Sends<Q> {
    fn send(&self) {
        Q::send(self.0.as_ref().expect("it is there until the end"));
    }

    fn wake_one(&self) {
        Q::wake_one(self.0.as_ref().expect("it is there until the end"));
    }
}

impl<Q: Queue> Drop for Sends<Q> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}

fn queue_for<Q: Queue>(capacity: usize) -> (Sends<Q>, Vec<Q::Consumer>) {
    let (producer, consumers) = Q::queue(capacity, 2);
    (Sends(Some(producer)), consumers)
}

fn start<Q: Queue>(
    consumers: Vec<Q::Consumer>,
    run: impl Fn() + Clone + Send + 'static,
) -> Vec<thread::JoinHandle<()>> {
    let start = |consumer: Q::Consumer| {
        let run = run.clone();
        thread::spawn(move || {
            while Q::next(&consumer).is_some() {
                run();
            }
        })
    };
    consumers.into_iter().map(start).collect()
}

/// The acceptor says that there is a job after each; all are taken while it still might send more.
fn every_job_is_taken<Q: Queue>() {
    check(3, || {
        let (producer, consumers) = queue_for::<Q>(2);
        let begun = Begun::new();
        let told = begun.clone();
        let workers = start::<Q>(consumers, move || told.one_more());
        for _ in 0..2 {
            producer.send();
            producer.wake_one();
        }
        begun.wait_for(2);
        drop(producer);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!(begun.count(), 2);
    });
}

/// One call for two jobs, or one for each, and each blocks until both have begun.
fn a_job_that_blocks_keeps_no_other_waiting<Q: Queue>(calls: bool) {
    check(2, move || {
        let (producer, consumers) = queue_for::<Q>(2);
        let begun = Begun::new();
        let told = begun.clone();
        let workers = start::<Q>(consumers, move || {
            told.one_more();
            told.wait_for(2);
        });
        producer.send();
        if calls {
            producer.wake_one();
        }
        producer.send();
        producer.wake_one();
        begun.wait_for(2);
        drop(producer);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

/// The acceptor goes while they work, search or rest.
fn what_was_sent_is_taken_before_the_end<Q: Queue>() {
    check(3, || {
        let (producer, consumers) = queue_for::<Q>(1);
        let begun = Begun::new();
        let told = begun.clone();
        let workers = start::<Q>(consumers, move || told.one_more());
        producer.send();
        drop(producer);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!(begun.count(), 1);
    });
}

#[test]
fn no_job_is_forgotten() {
    every_job_is_taken::<Real>();
}

#[test]
fn two_jobs_of_one_call_that_block_both_begin() {
    a_job_that_blocks_keeps_no_other_waiting::<Real>(false);
}

#[test]
fn two_jobs_of_two_calls_that_block_both_begin() {
    a_job_that_blocks_keeps_no_other_waiting::<Real>(true);
}

#[test]
fn all_end_when_there_will_be_no_more() {
    what_was_sent_is_taken_before_the_end::<Real>();
}

#[test]
#[should_panic(expected = "deadlock")]
fn found_a_worker_that_rests_without_a_second_look() {
    every_job_is_taken::<NoSecondLook>();
}

#[test]
#[should_panic(expected = "deadlock")]
fn found_that_nobody_wakes_the_next() {
    a_job_that_blocks_keeps_no_other_waiting::<NobodyWakesTheNext>(false);
}

#[test]
#[should_panic(expected = "deadlock")]
fn found_a_last_job_that_hides_the_rest() {
    a_job_that_blocks_keeps_no_other_waiting::<NoLookAfterTheLast>(false);
}

#[test]
#[should_panic(expected = "deadlock")]
fn found_somebody_who_searches_for_ever() {
    every_job_is_taken::<SearchesForEver>();
}

#[test]
#[should_panic(expected = "deadlock")]
fn found_workers_that_are_woken_before_the_end() {
    what_was_sent_is_taken_before_the_end::<WokenBeforeTheEnd>();
}
