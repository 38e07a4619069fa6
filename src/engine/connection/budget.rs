//! The memory that parked connections may hold together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What there is for requests that are half here and responses that wait for their client. A connection that waits for
/// its next request holds nothing of it, and neither does one whose request came whole and whose answer went at once.
pub struct Budget {
    limit: usize,
    held: AtomicUsize,
    /// What a predecessor beside us holds.
    beside: AtomicUsize,
}

impl Budget {
    /// `None` is without a limit, which costs nothing.
    pub fn new(limit: Option<u64>) -> Arc<Budget> {
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Arc::new(Budget { limit, held: AtomicUsize::new(0), beside: AtomicUsize::new(0) })
    }

    fn take(&self, bytes: usize) -> bool {
        let left = self.limit.saturating_sub(self.beside.load(Ordering::Relaxed));
        let fits = |held: usize| held.checked_add(bytes).filter(|held| *held <= left);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// How much may be held, if that is limited.
    pub fn limit(&self) -> Option<usize> {
        (self.limit < usize::MAX).then_some(self.limit)
    }

    /// What is held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// So much is held by a predecessor beside us.
    pub fn set_held_beside(&self, bytes: usize) {
        self.beside.store(bytes, Ordering::Relaxed);
    }

    /// So much of that is held here now.
    pub fn give_from_beside(&self, bytes: usize) {
        let _ =
            self.beside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |beside| Some(beside.saturating_sub(bytes)));
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One connection's part of the budget; given back on drop.
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    /// Makes `hold` so many bytes. `false`, and nothing changed, if there are not so many left.
    pub fn resize(hold: &mut Option<Share>, budget: &Arc<Budget>, bytes: usize) -> bool {
        if budget.limit == usize::MAX || bytes == 0 {
            *hold = None;
            return true;
        }
        let held = hold.as_ref().map_or(0, |hold| hold.bytes);
        if bytes > held && !budget.take(bytes - held) {
            return false;
        }
        if bytes < held {
            budget.give_back(held - bytes);
        }
        match hold {
            Some(hold) => hold.bytes = bytes,
            None => *hold = Some(Share { budget: budget.clone(), bytes }),
        }
        true
    }

    /// Takes so many bytes also where there are not so many left: what has moved here is not lost by that. Nobody else
    /// gets any until the sum has come down.
    pub fn overdraw(budget: &Arc<Budget>, bytes: usize) -> Option<Share> {
        if budget.limit == usize::MAX || bytes == 0 {
            return None;
        }
        budget.held.fetch_add(bytes, Ordering::Relaxed);
        Some(Share { budget: budget.clone(), bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_never_exceeds_the_limit_and_comes_back() {
        let budget = Budget::new(Some(100));
        let (mut one, mut other) = (None, None);
        assert!(Share::resize(&mut one, &budget, 60));
        assert!(!Share::resize(&mut other, &budget, 41) && other.is_none());
        assert!(Share::resize(&mut other, &budget, 40));
        assert!(!Share::resize(&mut one, &budget, 61));
        assert!(Share::resize(&mut one, &budget, 20));
        assert!(Share::resize(&mut other, &budget, 80));
        drop(one.take());
        assert!(Share::resize(&mut other, &budget, 100));
        assert!(Share::resize(&mut other, &budget, 0));
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_has_moved_here_is_counted_also_beyond_the_limit() {
        let budget = Budget::new(Some(100));
        let (mut moved, mut new) = (Share::overdraw(&budget, 150), None);
        assert!(!Share::resize(&mut new, &budget, 1));
        // It may become smaller, and waits no more room than it has.
        assert!(!Share::resize(&mut moved, &budget, 151));
        assert!(Share::resize(&mut moved, &budget, 99));
        assert!(!Share::resize(&mut new, &budget, 2) && Share::resize(&mut new, &budget, 1));
        drop((moved, new));
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
        assert!(Share::overdraw(&Budget::new(None), 1).is_none());
    }

    #[test]
    fn what_a_predecessor_holds_is_part_of_the_sum() {
        let budget = Budget::new(Some(100));
        budget.set_held_beside(70);
        let (mut new, mut other) = (None, None);
        assert!(!Share::resize(&mut new, &budget, 31) && Share::resize(&mut new, &budget, 30));
        let moved = Share::overdraw(&budget, 50);
        budget.give_from_beside(50);
        assert!(!Share::resize(&mut other, &budget, 1));
        budget.set_held_beside(0);
        assert!(Share::resize(&mut other, &budget, 20) && budget.held() == 100);
        drop(moved);
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let budget = Budget::new(None);
        let mut hold = None;
        assert!(Share::resize(&mut hold, &budget, usize::MAX) && hold.is_none());
    }
}
