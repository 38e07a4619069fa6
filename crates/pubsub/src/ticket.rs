//! A publication on its way through a bus, and whoever waits for what becomes of it.

use crate::hub::{Hub, PublishError, Published};
use crate::{Position, Topic};
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What became of a publication.
pub type Outcome = Result<Published, PublishError>;

/// A publication that is under way. It has one outcome, whoever comes first: the bus, or who waits for it no longer.
pub struct Ticket {
    topics: Vec<Topic>,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    /// Whether it has left, so that nobody knows what becomes of it.
    sent: bool,
    /// Who is called when it has ended.
    waits: Option<(Hub, usize)>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({:?})", self.outcome())
    }
}

impl Ticket {
    /// For a publication to these topics, each as often as it has a message.
    pub fn new(topics: Vec<Topic>) -> Ticket {
        Ticket { topics, state: Mutex::default(), ended: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics half-way while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It leaves now. `false` if nobody waits for it any more: then it must not.
    pub fn leaves(&self) -> bool {
        let mut state = self.state();
        state.sent |= state.outcome.is_none();
        state.outcome.is_none()
    }

    /// What became of it, as soon as that is known.
    pub fn outcome(&self) -> Option<Outcome> {
        self.state().outcome
    }

    /// It was published.
    pub fn published(&self, hub: &Hub, position: Position, repeated: bool) {
        let subscribers = self.topics.iter().map(|topic| hub.listeners(topic)).sum();
        if !repeated {
            hub.count_published(self.topics.len());
        }
        self.end(Ok(Published { position, subscribers, repeated }));
    }

    /// That became of it, unless it is known already.
    pub fn end(&self, outcome: Outcome) {
        let _ = self.end_as(|_| outcome);
    }

    /// What becomes of it depends on how far it is. Answers what has become of it.
    fn end_as(&self, outcome: impl FnOnce(&State) -> Outcome) -> Outcome {
        let mut state = self.state();
        if let Some(outcome) = state.outcome {
            return outcome;
        }
        let outcome = outcome(&state);
        state.outcome = Some(outcome);
        let waits = state.waits.take();
        drop(state);
        self.ended.notify_all();
        if let Some((hub, token)) = waits {
            hub.call(token);
        }
        outcome
    }

    /// Nobody waits any more: it did not leave and will not, or nobody knows.
    pub fn give_up(&self) -> Outcome {
        // Looked at and ended in one step: it may be leaving at this moment.
        self.end_as(|state| Err(if state.sent { PublishError::Unanswered } else { PublishError::Unavailable }))
    }

    /// From here on the hub names that token when it has ended, unless it has.
    pub fn enter(&self, hub: &Hub, token: usize) -> Option<Outcome> {
        let mut state = self.state();
        if state.outcome.is_none() {
            state.waits = Some((hub.clone(), token));
        }
        state.outcome
    }

    /// Waits for what becomes of it, at most so long.
    pub fn wait(&self, most: Duration) -> Outcome {
        let undecided = |state: &mut State| state.outcome.is_none();
        let (state, _) =
            self.ended.wait_timeout_while(self.state(), most, undecided).unwrap_or_else(PoisonError::into_inner);
        let outcome = state.outcome;
        drop(state);
        outcome.unwrap_or_else(|| self.give_up())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HubLimits, Limits};
    use std::sync::Arc;

    fn hub() -> Hub {
        Hub::new(7, HubLimits { log: Limits::default(), subscribers: 2 })
    }

    #[test]
    fn it_has_one_outcome() {
        let ticket = Ticket::new(Vec::new());
        assert_eq!((ticket.outcome(), ticket.leaves()), (None, true));
        assert_eq!(ticket.give_up(), Err(PublishError::Unanswered));
        ticket.published(&hub(), Position { epoch: 7, offset: 1 }, false);
        assert_eq!(ticket.outcome(), Some(Err(PublishError::Unanswered)));
        // What has not left does not leave behind that.
        let ticket = Ticket::new(Vec::new());
        assert_eq!(ticket.wait(Duration::ZERO), Err(PublishError::Unavailable));
        assert!(!ticket.leaves());
    }

    /// Whoever is told that nothing was published publishes it again.
    #[test]
    fn what_leaves_while_its_publisher_gives_up_is_not_said_to_have_stayed() {
        let tickets: Vec<Ticket> =
            (0..if cfg!(miri) { 50 } else { 100_000 }).map(|_| Ticket::new(Vec::new())).collect();
        let at = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let leave = scope.spawn(|| {
                let leaves = |(number, ticket): (usize, &Ticket)| {
                    while at.load(std::sync::atomic::Ordering::Acquire) < number {
                        std::hint::spin_loop();
                    }
                    ticket.leaves()
                };
                tickets.iter().enumerate().map(leaves).collect::<Vec<bool>>()
            });
            for (number, ticket) in tickets.iter().enumerate() {
                at.store(number, std::sync::atomic::Ordering::Release);
                let _ = ticket.give_up();
            }
            for (left, ticket) in leave.join().expect("whether they left").into_iter().zip(&tickets) {
                let expected = if left { PublishError::Unanswered } else { PublishError::Unavailable };
                assert_eq!(ticket.outcome(), Some(Err(expected)));
            }
        });
    }

    #[test]
    fn who_waits_is_called_once_or_told_at_once() {
        let (hub, ticket) = (hub(), Arc::new(Ticket::new(Vec::new())));
        assert_eq!(ticket.enter(&hub, 5), None);
        let waits = {
            let ticket = ticket.clone();
            std::thread::spawn(move || ticket.wait(Duration::from_secs(60)))
        };
        ticket.published(&hub, Position { epoch: 7, offset: 1 }, true);
        assert!(waits.join().expect("its outcome").is_ok_and(|published| published.repeated));
        let mut called = Vec::new();
        hub.take_news(|token| called.push(token));
        assert_eq!(called, [5]);
        assert!(ticket.enter(&hub, 6).is_some() && !hub.has_news());
    }
}
