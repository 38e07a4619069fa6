//! Clients in threads of their own that never try anything twice.

use super::{Ending, RawClient};
use handover::Bound;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Clients that go on until told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Tally>>,
}

/// What clients saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that were answered as they should.
    pub answered: usize,
    /// What else happened; a client that fails ends there.
    pub failures: Vec<String>,
    /// Bodies that were posted and answered.
    pub ids: Vec<String>,
    /// The longest wait for an answer.
    pub slowest: Duration,
}

impl Load {
    pub fn new() -> Load {
        Load { stop: Arc::default(), answered: Arc::default(), clients: Vec::new() }
    }

    fn spawn(&mut self, run: impl FnOnce(&AtomicBool, &mut dyn FnMut()) -> Tally + Send + 'static) {
        let (stop, answered) = (self.stop.clone(), self.answered.clone());
        let mut count = move || {
            answered.fetch_add(1, Ordering::Relaxed);
        };
        self.clients.push(thread::spawn(move || run(&stop, &mut count)));
    }

    /// Clients that each send one request after the other on one connection.
    pub fn keep_alive(mut self, bound: &Bound, clients: usize) -> Load {
        for _ in 0..clients {
            let mut client = RawClient::to(bound);
            self.spawn(move |stop, count| {
                let mut tally = Tally::default();
                let port = client.local_port();
                while !stop.load(Ordering::Relaxed) {
                    if !tally.ask(&mut client, b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n", b"hello world") {
                        break;
                    }
                    assert_eq!(client.local_port(), port);
                    count();
                }
                tally
            });
        }
        self
    }

    /// Clients that each post one id after the other on one connection, and think in between.
    pub fn journal(mut self, bound: &Bound, clients: usize, think: Duration) -> Load {
        for _ in 0..clients {
            let mut client = RawClient::to(bound);
            let name = self.clients.len();
            self.spawn(move |stop, count| {
                let mut tally = Tally::default();
                let mut random = 0x9e37_79b9_u64.wrapping_mul(name as u64 + 1);
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    thread::sleep(think.mul_f64((random >> 40) as f64 / (1_u64 << 24) as f64));
                    let id = format!("{name}-{number}");
                    let request =
                        format!("POST /journal HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{id}", id.len());
                    if !tally.ask(&mut client, request.as_bytes(), format!("{id}\n").as_bytes()) {
                        break;
                    }
                    tally.ids.push(id);
                    count();
                }
                tally
            });
        }
        self
    }

    /// Clients that connect for each request.
    pub fn one_shot(mut self, bound: &Bound, clients: usize) -> Load {
        for _ in 0..clients {
            let bound = bound.clone();
            self.spawn(move |stop, count| {
                let mut tally = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    let request = b"GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
                    match RawClient::try_to(&bound) {
                        Ok(mut client) => {
                            tally.ask(&mut client, request, b"hello world");
                            if client.rest() != (Vec::new(), Ending::Fin) {
                                tally.failures.push("no orderly end".into());
                            }
                        }
                        Err(error) => tally.failures.push(format!("cannot connect: {error}")),
                    }
                    count();
                }
                tally
            });
        }
        self
    }

    /// Waits until that many requests more have been answered, and answers how many were before.
    pub fn go_on_for(&self, requests: usize) -> usize {
        let before = self.answered.load(Ordering::Relaxed);
        let until = Instant::now() + super::PATIENCE;
        while self.answered.load(Ordering::Relaxed) < before + requests {
            assert!(Instant::now() < until, "the clients make no progress");
            thread::sleep(Duration::from_millis(1));
        }
        before
    }

    /// Stops the clients, and answers what they saw together.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            let tally = client.join().expect("a client");
            all.answered += tally.answered;
            all.failures.extend(tally.failures);
            all.ids.extend(tally.ids);
            all.slowest = all.slowest.max(tally.slowest);
        }
        all
    }
}

impl Tally {
    /// One request. A `Connection: close` that nobody asked for is a failure.
    fn ask(&mut self, client: &mut RawClient, request: &[u8], expected: &[u8]) -> bool {
        let began = Instant::now();
        let asked_to_close = request.windows(17).any(|window| window == b"Connection: close");
        let outcome = match client.try_send(request) {
            Ok(()) => client.try_answer(false),
            Err(error) => {
                self.failures.push(format!("cannot send: {error}"));
                return false;
            }
        };
        self.slowest = self.slowest.max(began.elapsed());
        match outcome {
            Ok(answer) if answer.status == 200 && answer.body == expected && answer.closes() == asked_to_close => {
                self.answered += 1;
                true
            }
            other => {
                self.failures.push(format!("{:?} after {} answers", other, self.answered));
                false
            }
        }
    }

    /// Nothing went wrong, and every id that was answered was executed once, in the file at `journal`.
    #[track_caller]
    pub fn expect_journal(&self, journal: &Path) {
        assert_eq!(self.failures, [""; 0]);
        let text = std::fs::read_to_string(journal).expect("the journal");
        let executed: Vec<&str> = text.lines().collect();
        let once: BTreeSet<&str> = executed.iter().copied().collect();
        assert_eq!(executed.len(), once.len(), "an id was executed twice");
        let answered: BTreeSet<&str> = self.ids.iter().map(String::as_str).collect();
        assert_eq!(answered, once, "an id was executed and not answered, or the other way round");
    }
}
