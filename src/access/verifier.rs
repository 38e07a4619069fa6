//! Between requests and passwords whose hashes are slow on purpose.
//!
//! A hash takes a worker for a part of a second, and anybody may ask for one. So one is computed at a time, and what was
//! found is remembered for a minute since it was last asked for. It cannot become wrong meanwhile: a file of users is read at
//! a start and at a reload, which begins with an empty memory.
//!
//! Whoever comes meanwhile waits, with a worker, for the turn or for the answer to the same question. After a reload these
//! are all who were in before, and none of them is to notice. But as soon as one was wrong, and for a minute after that, a few
//! workers at the most wait, and who comes beyond that is told to come back: the others go on with what needs no password,
//! or one that is known. So who guesses has the whole pool for the time of one hash, and not for a second one.

use crate::clock::Millis;
use foldhash::fast::RandomState;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::HashMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// For so long an answer is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many that were right, and, apart from them, how many that were wrong. Whoever guesses forgets only guesses.
const RIGHT: usize = 1024;
const WRONG: usize = 256;
/// How many workers are in here at the most, however many there are.
const INSIDE: usize = 8;

/// What was asked, by a key that nobody outside can know: no password is kept.
type Question = [u8; 32];

/// Computes hashes one at a time, and remembers what came of it.
pub struct Verifier {
    key: Hmac<Sha256>,
    state: Mutex<State>,
    /// Somebody has left.
    left: Condvar,
    /// How many may wait while somebody guesses.
    seats: usize,
}

struct State {
    right: Memory,
    wrong: Memory,
    /// Whether a hash is being computed.
    busy: bool,
    waiting: usize,
    /// When a hash was last found to be of another password.
    guessed: Option<Millis>,
}

/// Who says to be whom, by which file.
pub struct Claim<'c> {
    pub file: usize,
    pub user: &'c [u8],
    pub password: &'c [u8],
}

impl Verifier {
    /// For a pool of so many workers, of which half stay outside while somebody guesses: of fewer than four nobody waits then.
    ///
    /// # Errors
    /// There is nothing random to be had.
    pub fn new(workers: usize) -> io::Result<Verifier> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        let key = Hmac::new_from_slice(&key).map_err(io::Error::other)?;
        let state =
            State { right: Memory::new(RIGHT), wrong: Memory::new(WRONG), busy: false, waiting: 0, guessed: None };
        let seats = (workers / 2).clamp(1, INSIDE) - 1;
        Ok(Verifier { key, state: Mutex::new(state), left: Condvar::new(), seats })
    }

    /// Whether a claim is right: remembered, or as `verify` finds. `None` if that is for later: too many wait already.
    pub fn check(&self, claim: &Claim<'_>, verify: impl FnOnce() -> bool) -> Option<bool> {
        let question = self.question(claim);
        let mut state = self.state();
        let mut has_waited = false;
        loop {
            let known = state.known(&question);
            // Who waits goes before who comes.
            if known.is_none() && !state.busy && (has_waited || state.waiting == 0) {
                break;
            }
            if known.is_some() || (state.waiting >= self.seats && state.is_guessed_at(Millis::now())) {
                // Whoever came since everybody was woken waits for one of these, and not all take the turn.
                if !state.busy && state.waiting > 0 {
                    self.left.notify_all();
                }
                return known;
            }
            state.waiting += 1;
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
            has_waited = true;
        }
        state.busy = true;
        drop(state);
        // Also where it panics.
        let leave = Leave(self);
        let is_right = verify();
        let mut state = self.state();
        let now = Millis::now();
        if is_right {
            state.right.add(question, now);
        } else {
            state.guessed = Some(now);
            state.wrong.add(question, now);
        }
        drop(state);
        drop(leave);
        Some(is_right)
    }

    fn question(&self, claim: &Claim<'_>) -> Question {
        let mut mac = self.key.clone();
        mac.update(&(claim.file as u64).to_le_bytes());
        mac.update(&(claim.user.len() as u64).to_le_bytes());
        mac.update(claim.user);
        mac.update(claim.password);
        mac.finalize().into_bytes().into()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Leave<'v>(&'v Verifier);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.state().busy = false;
        self.0.left.notify_all();
    }
}

impl State {
    /// Whether somebody was wrong a moment ago, and may be again.
    fn is_guessed_at(&self, now: Millis) -> bool {
        self.guessed.is_some_and(|last| now.since(last) < REMEMBERED)
    }

    fn known(&mut self, question: &Question) -> Option<bool> {
        let now = Millis::now();
        if self.right.has(question, now) {
            return Some(true);
        }
        self.wrong.has(question, now).then_some(false)
    }
}

/// Questions that have one answer, and when each was last asked.
struct Memory {
    most: usize,
    asked: HashMap<Question, Millis, RandomState>,
}

impl Memory {
    fn new(most: usize) -> Memory {
        Memory { most, asked: HashMap::default() }
    }

    fn has(&mut self, question: &Question, now: Millis) -> bool {
        let last = self.asked.get_mut(question).filter(|last| now.since(**last) < REMEMBERED);
        last.map(|last| *last = now).is_some()
    }

    fn add(&mut self, question: Question, now: Millis) {
        if self.asked.len() >= self.most {
            self.asked.retain(|_, last| now.since(*last) < REMEMBERED);
        }
        if self.asked.len() >= self.most
            && let Some(oldest) = self.asked.iter().min_by_key(|(_, last)| **last).map(|(question, _)| *question)
        {
            self.asked.remove(&oldest);
        }
        self.asked.insert(question, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    fn verifier(workers: usize) -> Verifier {
        Verifier::new(workers).expect("something random")
    }

    fn claim(password: &str) -> Claim<'_> {
        Claim { file: 0, user: b"ada", password: password.as_bytes() }
    }

    fn never() -> bool {
        panic!("nobody computes this")
    }

    fn until(condition: impl Fn() -> bool) {
        while !condition() {
            thread::yield_now();
        }
    }

    /// What is computed when a test says so.
    struct Slow {
        began: Receiver<()>,
        go: Sender<bool>,
    }

    fn slow() -> (Slow, impl FnOnce() -> bool + Send) {
        let ((began, has_begun), (go, may_go)) = (channel(), channel());
        let verify = move || {
            began.send(()).expect("a test");
            may_go.recv().expect("a test")
        };
        (Slow { began: has_begun, go }, verify)
    }

    #[test]
    fn what_was_found_is_remembered_for_each_file_user_and_password() {
        let verifier = verifier(4);
        assert_eq!(verifier.check(&claim("right"), || true), Some(true));
        assert_eq!(verifier.check(&claim("wrong"), || false), Some(false));
        for _ in 0..3 {
            assert_eq!(verifier.check(&claim("right"), never), Some(true));
            assert_eq!(verifier.check(&claim("wrong"), never), Some(false));
        }
        let of = |file, user, password| Claim { file, user, password };
        for other in
            [of(1, b"ada", b"right"), of(0, b"adar", b"ight"), of(0, b"ad", b"aright"), of(0, b"eve", b"right")]
        {
            assert_eq!(verifier.check(&other, || false), Some(false));
        }
    }

    #[test]
    fn after_a_minute_without_it_a_question_is_forgotten() {
        let (mut memory, minute) = (Memory::new(4), REMEMBERED.as_millis() as u64);
        memory.add([1; 32], Millis(5));
        assert!(memory.has(&[1; 32], Millis(4 + minute)));
        assert!(memory.has(&[1; 32], Millis(3 + 2 * minute)), "since it was last asked");
        assert!(!memory.has(&[1; 32], Millis(3 + 3 * minute)));
    }

    #[test]
    fn guesses_fill_no_memory_and_make_nobody_forgotten() {
        let verifier = verifier(4);
        assert_eq!(verifier.check(&claim("right"), || true), Some(true));
        for guess in 0..10_000 {
            assert_eq!(verifier.check(&claim(&guess.to_string()), || false), Some(false));
        }
        assert_eq!(verifier.state().wrong.asked.len(), WRONG);
        assert_eq!(verifier.check(&claim("right"), never), Some(true));
        // Nor do those who are right: who asked last is known.
        for user in 0..2 * RIGHT {
            assert_eq!(verifier.check(&claim(&format!("right {user}")), || true), Some(true));
        }
        assert_eq!(verifier.state().right.asked.len(), RIGHT);
    }

    /// Four clients with wrong passwords must not have four workers.
    #[test]
    fn while_somebody_guesses_one_waits_and_the_others_come_back_later() {
        let verifier = verifier(4);
        assert_eq!(verifier.check(&claim("wrong"), || false), Some(false));
        let (first, verify) = slow();
        thread::scope(|scope| {
            let verifier = &verifier;
            let one = scope.spawn(|| verifier.check(&claim("one"), verify));
            first.began.recv().expect("it begins");
            let two = scope.spawn(|| verifier.check(&claim("two"), || false));
            until(|| verifier.state().waiting == 1);
            assert_eq!(verifier.check(&claim("three"), never), None);
            assert_eq!(verifier.check(&claim("wrong"), never), Some(false), "what is known waits for nobody");
            first.go.send(true).expect("it waits");
            assert_eq!(one.join().expect("no panic"), Some(true));
            assert_eq!(two.join().expect("no panic"), Some(false));
        });
        assert_eq!(verifier.check(&claim("three"), || true), Some(true), "there is room again");
    }

    /// As after a reload: those who were in before all ask at once.
    #[test]
    fn while_nobody_guesses_all_wait() {
        let verifier = verifier(4);
        thread::scope(|scope| {
            let verifier = &verifier;
            let all: Vec<_> = (0..64)
                .map(|number| {
                    scope.spawn(move || {
                        let computed = || {
                            thread::yield_now();
                            true
                        };
                        verifier.check(&claim(&(number % 5).to_string()), computed)
                    })
                })
                .collect();
            assert!(all.into_iter().all(|one| one.join().expect("no panic") == Some(true)));
        });
    }

    /// Who comes just when those who asked the same are woken must not be forgotten by them.
    #[test]
    fn nobody_waits_for_ever() {
        let (verifier, (done, is_done)) = (Arc::new(verifier(4)), channel());
        for thread in 0..8 {
            let (verifier, done) = (verifier.clone(), done.clone());
            thread::spawn(move || {
                for turn in 0..2000 {
                    let claimed = if thread % 2 == 0 { turn.to_string() } else { format!("{thread} {turn}") };
                    assert_eq!(verifier.check(&claim(&claimed), || true), Some(true));
                }
                let _ = done.send(());
            });
        }
        for _ in 0..8 {
            assert!(is_done.recv_timeout(Duration::from_secs(60)).is_ok(), "somebody waits, and nobody is busy");
        }
    }

    /// Who has waited while nobody guessed, and is too many as soon as somebody has.
    #[test]
    fn who_guesses_has_the_pool_for_one_hash() {
        let verifier = verifier(4);
        let (first, verify) = slow();
        thread::scope(|scope| {
            let verifier = &verifier;
            let one = scope.spawn(|| verifier.check(&claim("one"), verify));
            first.began.recv().expect("it begins");
            let (second, verify) = slow();
            let two = scope.spawn(|| verifier.check(&claim("two"), verify));
            until(|| verifier.state().waiting == 1);
            let (third, verify) = slow();
            let three = scope.spawn(|| verifier.check(&claim("three"), verify));
            let (fourth, verify) = slow();
            let four = scope.spawn(|| verifier.check(&claim("four"), verify));
            until(|| verifier.state().waiting == 3);
            // Of the three that wait one has its turn, one waits on, and one is told to come back.
            first.go.send(false).expect("it waits");
            assert_eq!(one.join().expect("no panic"), Some(false));
            until(|| verifier.state().waiting == 1);
            for slow in [&second, &third, &fourth] {
                let _ = slow.go.send(true);
            }
            let answers = [two, three, four].map(|one| one.join().expect("no panic"));
            assert_eq!(answers.iter().filter(|answer| answer.is_none()).count(), 1, "{answers:?}");
        });
    }

    #[test]
    fn who_asks_the_same_waits_for_the_one_answer() {
        let verifier = verifier(16);
        let (first, verify) = slow();
        thread::scope(|scope| {
            let verifier = &verifier;
            let one = scope.spawn(|| verifier.check(&claim("same"), verify));
            first.began.recv().expect("it begins");
            let others: Vec<_> = (0..7).map(|_| scope.spawn(|| verifier.check(&claim("same"), never))).collect();
            until(|| verifier.state().waiting == 7);
            first.go.send(true).expect("it waits");
            assert!(others.into_iter().all(|other| other.join().expect("no panic") == Some(true)));
            assert_eq!(one.join().expect("no panic"), Some(true));
        });
    }

    #[test]
    fn the_more_workers_the_more_may_wait_and_half_of_them_stay_outside() {
        for (workers, seats) in [(1, 0), (2, 0), (3, 0), (4, 1), (8, 3), (16, 7), (1024, 7)] {
            assert_eq!(verifier(workers).seats, seats, "{workers}");
        }
    }

    #[test]
    fn a_panic_leaves_the_place_to_others() {
        let verifier = verifier(1);
        let panicked = catch_unwind(AssertUnwindSafe(|| verifier.check(&claim("a"), || panic!("as asked for"))));
        assert!(panicked.is_err());
        assert_eq!(verifier.check(&claim("a"), || true), Some(true));
    }
}
