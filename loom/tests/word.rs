//! The slot's word: the acceptor (the model's main thread), workers and the status thread at one connection.

use handover_loom::check;
use handover_loom::word::{AtomicWord, Notified, Parked, Readiness, Sched, Shed, Word};
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use loom::thread;
use std::sync::{Arc, Mutex};

const PREEMPTIONS: usize = 4;

const READABLE: Readiness = Readiness { readable: true, writable: true, closed: false, urgent: false, woken: false };
const READING: Parked = Parked {
    on_readable: true,
    on_writable: false,
    on_wake: false,
    refusable: true,
    wants_stream: false,
    movable: true,
    shed: Some(Shed::Idle),
};
const WOKEN: Readiness = Readiness { readable: false, writable: false, woken: true, ..READABLE };
/// For news that are published, and for its client.
const SUBSCRIBED: Parked = Parked { on_wake: true, refusable: false, shed: None, ..READING };
const WAITING: Parked =
    Parked { on_readable: false, wants_stream: true, refusable: false, movable: false, shed: None, ..READING };

/// The steps as they are, or with one fault.
trait Steps: Copy + Send + Sync + 'static {
    fn notify(self, word: &AtomicWord) -> Notified {
        word.notify(READABLE)
    }

    fn wake(self, word: &AtomicWord) -> Notified {
        word.notify(WOKEN)
    }

    /// Whether who publishes tells the acceptor, and does not wake by itself.
    fn tells_the_acceptor(self) -> bool {
        true
    }

    /// An event, and as what the connection is parked again if it could not be moved then.
    fn notify_to_move(self, word: &AtomicWord) -> Option<(Word, Option<Parked>)> {
        match self.notify(word) {
            Notified::Enqueue(seen) => Some((seen, seen.parked())),
            _ => None,
        }
    }

    fn claim(self, word: &AtomicWord, seen: Word, to: Sched) -> bool {
        word.claim(seen, to)
    }

    fn park(self, word: &AtomicWord, parked: Parked) -> bool {
        word.park(parked)
    }

    fn freeze(self, word: &AtomicWord, parked: Word) {
        word.freeze(parked);
    }

    /// Whether what is queued has to be in the hold's list for the pool to rest.
    fn hold_counts(self) -> bool {
        true
    }
}

#[derive(Clone, Copy)]
struct Right;

impl Steps for Right {}

/// As the queue deadline once was: it saw a word, and claimed whatever was in the same place when it acted.
#[derive(Clone, Copy)]
struct ClaimsThePlace;

impl Steps for ClaimsThePlace {
    fn claim(self, word: &AtomicWord, seen: Word, to: Sched) -> bool {
        loop {
            let now = word.load();
            if now.sched() != seen.sched() {
                return false;
            }
            if word.claim(now, to) {
                return true;
            }
        }
    }
}

/// As a move once was: where the connection was parked had been read before the event was noted.
#[derive(Clone, Copy)]
struct LooksBeforeTheEvent;

impl Steps for LooksBeforeTheEvent {
    fn notify_to_move(self, word: &AtomicWord) -> Option<(Word, Option<Parked>)> {
        let before = word.load().parked();
        match self.notify(word) {
            Notified::Enqueue(seen) => Some((seen, before)),
            _ => None,
        }
    }
}

/// What runs is left alone, as if it read to the end anyway.
#[derive(Clone, Copy)]
struct PassesByWhatRuns;

impl Steps for PassesByWhatRuns {
    fn notify(self, word: &AtomicWord) -> Notified {
        match word.load().sched() {
            Sched::Running => Notified::Nothing,
            _ => word.notify(READABLE),
        }
    }

    fn wake(self, word: &AtomicWord) -> Notified {
        match word.load().sched() {
            Sched::Running => Notified::Nothing,
            _ => word.notify(WOKEN),
        }
    }
}

/// Who publishes wakes who waits for that, whatever the acceptor does meanwhile.
#[derive(Clone, Copy)]
struct WakesByItself;

impl Steps for WakesByItself {
    fn tells_the_acceptor(self) -> bool {
        false
    }
}

/// It parks whatever has come meanwhile.
#[derive(Clone, Copy)]
struct ParksAnyway;

impl Steps for ParksAnyway {
    fn park(self, word: &AtomicWord, parked: Parked) -> bool {
        while !word.park(parked) {
            word.look_again();
        }
        true
    }
}

/// A move once forgot the entry that the status thread had left in the channel.
#[derive(Clone, Copy)]
struct ForgetsTheEntry;

impl Steps for ForgetsTheEntry {
    fn freeze(self, word: &AtomicWord, _: Word) {
        // As if there had been none when it was parked.
        word.freeze(AtomicWord::parked(READING).load());
    }
}

/// It takes an empty channel for a pool that rests.
#[derive(Clone, Copy)]
struct LooksAtTheChannelAlone;

impl Steps for LooksAtTheChannelAlone {
    fn hold_counts(self) -> bool {
        false
    }
}

/// What only the owner touches.
#[derive(Default)]
struct Held {
    half_written: bool,
    finished: bool,
    refused: bool,
    handed_over: bool,
    written_down: bool,
}

/// A connection, and what stands of it in the channel and in the acceptor's messages.
struct Connection<S> {
    steps: S,
    word: AtomicWord,
    owned: AtomicBool,
    held: Mutex<Held>,
    /// Bytes in the socket, or news, that nobody has read.
    unread: AtomicU32,
    entries: AtomicUsize,
    /// As `ToAcceptor::Again` with an entry.
    again: AtomicUsize,
    /// As `ToAcceptor::Wake`.
    wakes: AtomicUsize,
    /// How a worker parks it when it has read.
    parks: Parked,
}

impl<S: Steps> Connection<S> {
    fn new(steps: S) -> Arc<Connection<S>> {
        Connection::parked(steps, READING)
    }

    fn parked(steps: S, parks: Parked) -> Arc<Connection<S>> {
        Arc::new(Connection {
            steps,
            word: AtomicWord::parked(parks),
            owned: AtomicBool::new(false),
            held: Mutex::default(),
            unread: AtomicU32::new(0),
            entries: AtomicUsize::new(0),
            again: AtomicUsize::new(0),
            wakes: AtomicUsize::new(0),
            parks,
        })
    }

    /// For whoever owns it by the word.
    fn own<R>(&self, act: impl FnOnce(&mut Held) -> R) -> R {
        assert!(!self.owned.swap(true, Ordering::AcqRel), "two own it");
        let done = act(&mut self.held.try_lock().expect("nobody else has it"));
        self.owned.store(false, Ordering::Release);
        done
    }

    fn read(&self) {
        self.own(|held| {
            assert!(!held.written_down, "a worker runs what is written down for the successor");
            self.unread.swap(0, Ordering::AcqRel);
        });
    }

    fn push(&self) {
        assert_eq!(self.entries.fetch_add(1, Ordering::AcqRel), 0, "a second entry in the channel");
    }

    fn pop(&self) -> bool {
        self.entries.compare_exchange(1, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The client sends something, and the acceptor hears of it.
    fn arrives(&self) {
        self.unread.fetch_add(1, Ordering::AcqRel);
        self.event();
    }

    fn event(&self) {
        if let Notified::Enqueue(_) = self.steps.notify(&self.word) {
            self.push();
        }
    }

    /// On any thread.
    fn publish(&self) {
        self.unread.fetch_add(1, Ordering::AcqRel);
        match self.steps.tells_the_acceptor() {
            true => drop(self.wakes.fetch_add(1, Ordering::AcqRel)),
            false => self.wake(),
        }
    }

    fn wake(&self) {
        if let Notified::Enqueue(_) = self.steps.wake(&self.word) {
            self.push();
        }
    }

    fn take_wakes(&self) {
        if self.wakes.swap(0, Ordering::AcqRel) != 0 {
            self.wake();
        }
    }

    fn take_returns(&self) {
        if self.again.swap(0, Ordering::AcqRel) != 0 {
            self.push();
        }
    }

    fn requeue(&self, refusable: bool) {
        if self.word.requeue(refusable) {
            self.again.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// A worker looks into the channel once. Answers whether there was anything.
    fn work(&self) -> bool {
        let popped = self.pop();
        if popped && self.word.begin().is_some() {
            self.drive();
        }
        popped
    }

    fn drive(&self) {
        loop {
            self.read();
            if self.steps.park(&self.word, self.parks) {
                return;
            }
            self.word.look_again();
        }
    }

    /// Every other thread has ended: whatever stands in the channel and the messages is seen to.
    fn settle(&self, work: impl Fn(&Self) -> bool) {
        self.take_returns();
        self.take_wakes();
        while work(self) {
            self.take_returns();
            self.take_wakes();
        }
    }

    fn assert_rests(&self) {
        let word = self.word.load();
        assert!(word.is_parked(), "nobody has it, and it is {:?}", word.sched());
        assert_eq!(self.unread.load(Ordering::Acquire), 0, "an event was lost");
    }
}

fn spawn<S: Steps>(
    connection: &Arc<Connection<S>>,
    run: impl FnOnce(&Connection<S>) + 'static,
) -> thread::JoinHandle<()> {
    let connection = connection.clone();
    thread::spawn(move || run(&connection))
}

fn events_while_a_worker_parks<S: Steps>(steps: S) {
    check(PREEMPTIONS, move || {
        let connection = Connection::new(steps);
        connection.arrives();
        let worker = spawn(&connection, |it| {
            it.work();
            it.work();
        });
        connection.arrives();
        connection.arrives();
        worker.join().unwrap();
        connection.settle(Connection::work);
        connection.assert_rests();
    });
}

/// Somebody publishes while a worker looks and parks.
fn publications_while_a_worker_parks<S: Steps>(steps: S) {
    check(PREEMPTIONS, move || {
        let connection = Connection::parked(steps, SUBSCRIBED);
        connection.publish();
        connection.take_wakes();
        let worker = spawn(&connection, |it| {
            it.work();
            it.work();
        });
        let publisher = spawn(&connection, |it| it.publish());
        connection.take_wakes();
        connection.take_wakes();
        publisher.join().unwrap();
        worker.join().unwrap();
        connection.settle(Connection::work);
        connection.assert_rests();
    });
}

/// Somebody publishes while the acceptor has it for a moment, as it does to see whether it may go for another.
fn a_publication_while_the_acceptor_looks<S: Steps>(steps: S) {
    check(PREEMPTIONS, move || {
        let connection = Connection::parked(steps, SUBSCRIBED);
        let publisher = spawn(&connection, |it| it.publish());
        let seen = connection.word.load();
        if seen.is_parked() && steps.claim(&connection.word, seen, Sched::Running) {
            connection.own(|_| ());
            connection.word.park(SUBSCRIBED);
        }
        connection.take_wakes();
        publisher.join().unwrap();
        connection.settle(Connection::work);
        connection.assert_rests();
    });
}

/// What has waited long is shown to the status thread, which answers it or gives it back, while a worker comes to its
/// entry all the same and more arrives.
fn a_look_by_the_status_thread<S: Steps>(steps: S, answers: bool) {
    check(PREEMPTIONS, move || {
        let connection = Connection::new(steps);
        connection.arrives();
        let worker = spawn(&connection, |it| {
            it.work();
            it.work();
        });
        let seen = connection.word.load();
        let waits = seen.sched() == Sched::Queued && seen.is_refusable() && !seen.is_looked_after();
        let status = (waits && steps.claim(&connection.word, seen, Sched::Running)).then(|| {
            spawn(&connection, move |it| {
                if !answers {
                    it.own(|_| ());
                    if it.word.put_back(true) {
                        it.again.fetch_add(1, Ordering::AcqRel);
                    }
                    return;
                }
                it.read();
                if !it.steps.park(&it.word, READING) {
                    it.word.look_again();
                    it.requeue(true);
                }
            })
        });
        connection.arrives();
        connection.take_returns();
        worker.join().unwrap();
        status.into_iter().for_each(|status| status.join().unwrap());
        connection.settle(Connection::work);
        connection.assert_rests();
    });
}

/// The queue deadline passes while a worker takes it, writes half of an answer and queues it again. The acceptor answers
/// it, or hands it over to a worker with the answer.
fn a_queue_deadline_and_a_worker<S: Steps>(steps: S, hands_over: bool) {
    fn work<S: Steps>(it: &Connection<S>) -> bool {
        let popped = it.pop();
        if popped && it.word.begin().is_some() {
            let goes_on = it.own(|held| {
                if std::mem::take(&mut held.handed_over) {
                    held.refused = true;
                    return false;
                }
                assert!(!held.refused, "an answer behind a 503");
                held.finished |= held.half_written;
                held.half_written = !held.half_written && !held.finished;
                held.half_written
            });
            match goes_on {
                true => it.requeue(false),
                false => assert!(it.word.park(READING), "nothing came"),
            }
        }
        popped
    }
    check(PREEMPTIONS, move || {
        let connection = Connection::new(steps);
        connection.event();
        let worker = spawn(&connection, |it| {
            work(it);
            work(it);
        });
        let seen = connection.word.load();
        connection.take_returns();
        if seen.sched() == Sched::Queued && seen.is_refusable() && steps.claim(&connection.word, seen, Sched::Expired) {
            connection.own(|held| {
                assert!(!held.half_written, "a 503 in the middle of an answer");
                assert!(!held.finished, "a 503 behind an answer");
                held.refused = !hands_over;
                held.handed_over = hands_over;
            });
            if hands_over && connection.word.requeue(false) {
                connection.push();
            }
        }
        worker.join().unwrap();
        connection.settle(work);
        let held = connection.held.lock().unwrap();
        assert!(held.refused != held.finished, "answered once");
    });
}

/// An event finds it parked and so it is to move, but the successor refuses it.
fn a_move_that_is_refused<S: Steps>(steps: S) {
    check(PREEMPTIONS, move || {
        let connection = Connection::new(steps);
        connection.arrives();
        let worker = spawn(&connection, |it| {
            it.work();
        });
        connection.unread.fetch_add(1, Ordering::AcqRel);
        if let Some((seen, parked)) = steps.notify_to_move(&connection.word) {
            connection.own(|_| ());
            connection.word.freeze(seen);
            if let Some(parked) = parked {
                connection.word.park(parked);
            }
            // Watched anew, it has an event for what is there.
            connection.event();
        }
        worker.join().unwrap();
        connection.settle(Connection::work);
        connection.assert_rests();
    });
}

/// The status thread has answered and parked it, its entry still stands in the channel, and it is to move.
fn a_move_with_an_entry_in_the_channel<S: Steps>(steps: S) {
    check(PREEMPTIONS, move || {
        let connection = Connection::new(steps);
        connection.arrives();
        assert!(connection.word.claim(connection.word.load(), Sched::Running));
        connection.read();
        assert!(connection.word.park(READING));
        let worker = spawn(&connection, |it| {
            it.work();
            it.work();
        });
        let seen = connection.word.load();
        if seen.is_parked() && steps.claim(&connection.word, seen, Sched::Running) {
            connection.own(|_| ());
            steps.freeze(&connection.word, seen);
            connection.word.park(seen.parked().expect("it was parked"));
        }
        connection.arrives();
        worker.join().unwrap();
        connection.settle(Connection::work);
        connection.assert_rests();
    });
}

/// A hold looks whether the pool rests, and what is parked or held back is written down.
fn a_hold_before_an_exec<S: Steps>(steps: S) {
    check(PREEMPTIONS, move || {
        let connection = Connection::new(steps);
        connection.arrives();
        let worker = spawn(&connection, |it| {
            it.work();
        });
        connection.unread.fetch_add(1, Ordering::AcqRel);
        let held_back = matches!(steps.notify(&connection.word), Notified::Enqueue(_));
        let rests = connection.entries.load(Ordering::Acquire) == 0 && {
            let seen = connection.word.load();
            match seen.sched() {
                Sched::Queued => held_back || !steps.hold_counts(),
                _ => seen.is_parked(),
            }
        };
        if rests {
            connection.own(|held| held.written_down = true);
            worker.join().unwrap();
            return;
        }
        // It is let go.
        if held_back {
            connection.push();
        }
        worker.join().unwrap();
        connection.settle(Connection::work);
        connection.assert_rests();
    });
}

/// Its turn is over and it queues again by way of the acceptor, which hears of more, and may have claimed it to evict
/// it.
fn a_turn_that_is_over<S: Steps>(steps: S) {
    check(PREEMPTIONS, move || {
        let connection = Connection::new(steps);
        connection.arrives();
        let worker = spawn(&connection, |it| {
            if it.pop() && it.word.begin().is_some() {
                it.read();
                it.requeue(false);
            }
            it.work();
        });
        connection.arrives();
        connection.take_returns();
        let seen = connection.word.load();
        if seen.is_parked() && steps.claim(&connection.word, seen, Sched::Running) {
            connection.own(|_| ());
            if connection.word.requeue(seen.is_refusable()) {
                connection.push();
            }
        }
        worker.join().unwrap();
        connection.settle(Connection::work);
        connection.assert_rests();
    });
}

/// A worker parks it for a thread that may wait for its client, and the acceptor gives it to one.
fn a_grant_of_a_stream<S: Steps>(steps: S) {
    check(PREEMPTIONS, move || {
        let connection = Connection::new(steps);
        connection.arrives();
        let worker = spawn(&connection, |it| {
            assert!(it.pop() && it.word.begin().is_some());
            loop {
                it.read();
                if it.steps.park(&it.word, WAITING) {
                    return;
                }
                it.word.look_again();
            }
        });
        connection.arrives();
        let grant = |it: &Connection<S>| {
            let seen = it.word.load();
            let grants =
                seen.parked().is_some_and(|parked| parked.wants_stream) && steps.claim(&it.word, seen, Sched::Queued);
            if grants {
                it.push();
            }
            grants
        };
        let streamer =
            grant(&connection).then(|| spawn(&connection, |it| assert!(it.work(), "it was given to this one")));
        connection.arrives();
        worker.join().unwrap();
        streamer.into_iter().for_each(|streamer| streamer.join().unwrap());
        grant(&connection);
        connection.settle(Connection::work);
        connection.assert_rests();
    });
}

#[test]
fn no_event_is_lost_while_a_worker_parks() {
    events_while_a_worker_parks(Right);
}

#[test]
fn no_wake_is_lost_while_a_worker_parks() {
    publications_while_a_worker_parks(Right);
}

#[test]
fn no_wake_is_lost_while_the_acceptor_looks() {
    a_publication_while_the_acceptor_looks(Right);
}

#[test]
fn what_the_status_thread_gives_back_has_one_entry() {
    a_look_by_the_status_thread(Right, false);
}

#[test]
fn what_the_status_thread_answers_has_one_entry() {
    a_look_by_the_status_thread(Right, true);
}

#[test]
fn a_queue_deadline_or_a_worker_answers() {
    a_queue_deadline_and_a_worker(Right, false);
}

#[test]
fn what_a_queue_deadline_hands_over_is_answered_by_a_worker() {
    a_queue_deadline_and_a_worker(Right, true);
}

#[test]
fn what_does_not_move_goes_on() {
    a_move_that_is_refused(Right);
}

#[test]
fn what_does_not_move_has_one_entry() {
    a_move_with_an_entry_in_the_channel(Right);
}

#[test]
fn nobody_runs_what_is_written_down() {
    a_hold_before_an_exec(Right);
}

#[test]
fn another_turn_comes_once() {
    a_turn_that_is_over(Right);
}

#[test]
fn a_stream_is_granted_once() {
    a_grant_of_a_stream(Right);
}

#[test]
#[should_panic(expected = "a 503 in the middle of an answer")]
fn found_a_queue_deadline_that_claims_by_the_place() {
    a_queue_deadline_and_a_worker(ClaimsThePlace, false);
}

#[test]
#[should_panic(expected = "nobody has it, and it is")]
fn found_a_place_that_was_read_before_the_event() {
    a_move_that_is_refused(LooksBeforeTheEvent);
}

#[test]
#[should_panic(expected = "a second entry in the channel")]
fn found_a_move_that_forgets_the_entry() {
    a_move_with_an_entry_in_the_channel(ForgetsTheEntry);
}

#[test]
#[should_panic(expected = "an event was lost")]
fn found_an_event_that_passes_by_what_runs() {
    events_while_a_worker_parks(PassesByWhatRuns);
}

#[test]
#[should_panic(expected = "an event was lost")]
fn found_a_wake_that_passes_by_what_runs() {
    publications_while_a_worker_parks(PassesByWhatRuns);
}

#[test]
#[should_panic(expected = "nobody has it, and it is RunningAgain")]
fn found_a_wake_that_is_not_the_acceptors() {
    a_publication_while_the_acceptor_looks(WakesByItself);
}

#[test]
#[should_panic(expected = "an event was lost")]
fn found_a_worker_that_parks_whatever_came() {
    events_while_a_worker_parks(ParksAnyway);
}

#[test]
#[should_panic(expected = "two own it")]
fn found_a_hold_that_looks_at_the_channel_alone() {
    a_hold_before_an_exec(LooksAtTheChannelAlone);
}
