//! What an application does besides answering: threads that run only in the process that is the server.

use crossbeam_channel::{Receiver, Sender, bounded};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Of an application's code.
const STACK: usize = 512 * 1024;

/// Says to a thread of the application whether it is to go on. See [`Builder::background`](crate::Builder::background).
///
/// ```
/// use std::time::Duration;
///
/// let server = handover::Server::builder().handler(|_| "hello").background("sums", |background| {
///     while background.sleep(Duration::from_secs(60)) {
///         for _ in (0..1_000_000).take_while(|_| !background.is_over()) { /* a step of a long sum */ }
///     }
/// });
/// # let _ = server;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Background(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    over: Mutex<bool>,
    /// Whether [`rest`](Background::rest) is to end.
    stirred: AtomicBool,
    changed: Condvar,
}

impl Background {
    /// Sleeps so long, or until it is to end. Answers whether to go on.
    pub fn sleep(&self, duration: Duration) -> bool {
        let until = Instant::now() + duration;
        let mut over = self.0.over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*over {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            over = self.0.changed.wait_timeout(over, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Rests until it is to end, or somebody has [`stir`](Background::stir)red it. Answers whether to go on.
    pub(super) fn rest(&self) -> bool {
        let mut over = self.0.over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*over {
            if self.0.stirred.swap(false, Ordering::SeqCst) {
                return true;
            }
            over = self.0.changed.wait(over).unwrap_or_else(PoisonError::into_inner);
        }
        false
    }

    /// There is something for it to do.
    pub(super) fn stir(&self) {
        self.0.stirred.store(true, Ordering::SeqCst);
        // Under the lock, or it could come between the other's look and its sleep.
        drop(self.0.over.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.notify_all();
    }

    /// Whether it is to end: this process is the server no longer.
    pub fn is_over(&self) -> bool {
        *self.0.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        *self.0.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

/// What is to run.
struct Job {
    name: String,
    run: Box<dyn Fn(&Background) + Send + Sync>,
}

/// All of them, and those that run.
#[derive(Default)]
pub struct BackgroundThreads {
    jobs: Vec<Arc<Job>>,
    running: Vec<Running>,
}

struct Running {
    job: Arc<Job>,
    background: Background,
    /// Has no sender any more when it has ended.
    ended: Receiver<()>,
}

impl BackgroundThreads {
    /// One more, which does not run yet.
    pub fn add(&mut self, name: &str, run: impl Fn(&Background) + Send + Sync + 'static) {
        self.jobs.push(Arc::new(Job { name: name.to_owned(), run: Box::new(run) }));
    }

    /// Starts those that do not run. One that was told to end and has not is waited for by its next start alone.
    pub fn start(&mut self) {
        self.running.retain(|running| !running.has_ended());
        for job in &self.jobs {
            if self.running.iter().any(|running| Arc::ptr_eq(&running.job, job) && !running.background.is_over()) {
                continue;
            }
            let (background, (sender, ended)) = (Background::default(), bounded(0));
            match start(job.clone(), background.clone(), sender) {
                Ok(()) => self.running.push(Running { job: job.clone(), background, ended }),
                Err(error) => log::error!("cannot start the background thread {:?}: {error}", job.name),
            }
        }
    }

    /// Tells all of them to end.
    pub fn end(&self) {
        self.running.iter().for_each(|running| running.background.end());
    }

    /// Those that have not ended.
    pub fn left(&self) -> Vec<&str> {
        let left = self.running.iter().filter(|running| !running.has_ended());
        left.map(|running| running.job.name.as_str()).collect()
    }

    /// Waits for all that were told to end, until then at the latest.
    pub fn join(&self, until: Instant) {
        for running in &self.running {
            // Nothing is ever sent.
            let _ = running.ended.recv_deadline(until);
        }
    }
}

impl Running {
    fn has_ended(&self) -> bool {
        matches!(self.ended.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected))
    }
}

fn start(job: Arc<Job>, background: Background, ended: Sender<()>) -> std::io::Result<()> {
    let run = move || {
        let _ended = ended;
        // A panic is said by the hook; this is for who reads the log alone.
        if catch_unwind(AssertUnwindSafe(|| (job.run)(&background))).is_err() {
            log::error!("the background thread {:?} panicked; it runs again after the next reload", job.name);
        }
    };
    thread::Builder::new().name("background".into()).stack_size(STACK).spawn(run).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_job_runs_until_it_is_told_to_end_and_again_after_that() {
        let mut jobs = BackgroundThreads::default();
        let (started, seen) = crossbeam_channel::unbounded();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        jobs.add("one", move |background| {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            started.send(number).expect("the test listens");
            while background.sleep(LONG) {}
            assert!(background.is_over());
        });
        for number in 1..=3 {
            jobs.start();
            jobs.start();
            assert_eq!(seen.recv(), Ok(number), "once");
            assert_eq!(jobs.left(), ["one"]);
            jobs.end();
            jobs.join(Instant::now() + LONG);
            assert!(jobs.left().is_empty());
        }
        assert_eq!(count.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn one_that_rests_goes_on_when_it_is_stirred_also_before_it_rests() {
        let background = Background::default();
        background.stir();
        assert!(background.rest());
        let other = background.clone();
        let rests = thread::spawn(move || (other.rest(), other.rest()));
        background.stir();
        while background.0.stirred.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        background.end();
        assert_eq!(rests.join().expect("no panic"), (true, false));
    }

    #[test]
    fn one_that_does_not_end_is_named_and_not_waited_for_beyond_the_deadline() {
        let mut jobs = BackgroundThreads::default();
        let (end, ends) = bounded::<()>(0);
        jobs.add("stuck", move |_| _ = ends.recv());
        jobs.add("broken", |_| panic!("as a test asks"));
        jobs.start();
        jobs.end();
        jobs.join(Instant::now() + Duration::from_millis(1));
        assert_eq!(jobs.left()[..1], ["stuck"]);
        drop(end);
        jobs.join(Instant::now() + LONG);
        assert!(jobs.left().is_empty());
    }
}
