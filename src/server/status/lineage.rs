//! What the generations before have counted, and how each became the next: it goes on in this one, and in those behind.
//!
//! While the predecessor still runs beside this process, it goes on counting, and is asked each time: so a counter never
//! falls for whoever looks at this process after that one. What a successor has counted that fails on probation is lost with
//! it.

use super::totals::{RELOADS, Totals};
use crate::clock::{Millis, wall_clock};
use crate::generation::generation;
use crate::lifecycle::link::{Link, Message};
use crate::lifecycle::state::{SavedBegun, SavedFigures, SavedReload};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Reloads that are remembered.
const REMEMBERED: usize = 10;
/// How long the predecessor may take to answer.
const PATIENCE: Duration = Duration::from_millis(50);
/// One that did not is not waited for again before that: it may be stopped, and many may look.
const SILENCE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub struct Lineage {
    known: Mutex<Known>,
    answered: Condvar,
}

#[derive(Default)]
struct Known {
    /// Of all generations before.
    before: Totals,
    reloads: Vec<SavedReload>,
    /// The one by which this process became what it is, or is about to become another.
    begun: Option<SavedBegun>,
    /// The predecessor, while it can be asked.
    beside: Option<Link>,
    /// The number of the last question, and of the last that was answered.
    asked: u64,
    answered: u64,
    /// When it did not answer in time, until it does.
    silent: Option<Instant>,
}

impl Lineage {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with what was inherited. `beside`: the predecessor, if it runs and can be asked.
    pub fn begin(&self, figures: SavedFigures, beside: Option<Link>) {
        let SavedFigures { totals, reloads, begun } = figures;
        *self.known() = Known { before: totals.into(), reloads, begun, beside, ..Known::default() };
    }

    /// What the predecessor has counted by then, in answer to that question, or as one of its last words.
    pub fn hear(&self, number: u64, figures: SavedFigures) {
        let mut known = self.known();
        known.before = figures.totals.into();
        known.reloads = figures.reloads;
        known.answered = known.answered.max(number);
        known.silent = None;
        drop(known);
        self.answered.notify_all();
    }

    /// The predecessor answers no more.
    pub fn is_alone(&self) {
        self.known().beside = None;
        self.answered.notify_all();
    }

    /// The totals of all generations before, as they are now; and the last reloads.
    pub fn before(&self) -> (Totals, Vec<SavedReload>) {
        let mut known = self.known();
        let silent = known.silent.is_some_and(|since| since.elapsed() < SILENCE);
        if let Some(link) = known.beside.clone().filter(|_| !silent) {
            known.asked += 1;
            let (number, until) = (known.asked, Instant::now() + PATIENCE);
            // Under the lock, so that the answers come in the order of the questions. It does not wait.
            let _ = link.send(&Message::Count(number), &[]);
            while known.answered < number && known.beside.is_some() {
                let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                    break;
                };
                let waited = self.answered.wait_timeout(known, left);
                known = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(known, _)| known);
            }
            known.silent = (known.answered < number).then(Instant::now);
        }
        (known.before.clone(), known.reloads.clone())
    }

    /// The same, asking nobody.
    pub fn known_before(&self) -> (Totals, Vec<SavedReload>) {
        let known = self.known();
        (known.before.clone(), known.reloads.clone())
    }

    /// A reload begins, by a signal that came just now.
    pub fn reload_begins(&self) -> SavedBegun {
        let begun = SavedBegun { at: Millis::now().0, held: None };
        self.known().begun = Some(begun);
        begun
    }

    /// The reload that began so has come to nothing, also where it seemed to be over.
    pub fn reload_fails(&self, begun: SavedBegun, generation: u64, exec: bool, reason: &str) {
        self.known().begun.get_or_insert(begun);
        self.reload_ends(generation, exec, Some(reason));
    }

    /// From then on no work is given out.
    pub fn holds_since(&self, since: Millis) {
        if let Some(begun) = &mut self.known().begun {
            begun.held = Some(since.0);
        }
    }

    /// What is to be known of it by a successor that this process becomes.
    pub fn begun(&self) -> Option<SavedBegun> {
        self.known().begun
    }

    /// It is over: that generation serves, or why this one still does.
    pub fn reload_ends(&self, generation: u64, exec: bool, failure: Option<&str>) {
        let mut known = self.known();
        let Some(SavedBegun { at, held }) = known.begun.take() else { return };
        let now = Millis::now().0;
        // What was held for nothing was felt as well.
        let (took, held) = (now.saturating_sub(at), held.map_or(0, |held| now.saturating_sub(held)));
        let failure = failure.map(str::to_owned);
        let outcome = if failure.is_none() { "succeeded" } else { "failed" };
        let mode = if exec { "exec" } else { "overlap" };
        known.before.count(format!("{RELOADS}{{mode=\"{mode}\",outcome=\"{outcome}\"}}"), 1);
        if failure.is_none() {
            for (name, time) in [("duration", took), ("hold", held)] {
                known.before.count(format!("handover_reload_{name}_seconds_sum"), time * 1000);
                known.before.count(format!("handover_reload_{name}_seconds_count"), 1);
            }
        }
        known.reloads.push(SavedReload { at: wall_clock().as_secs(), generation, exec, failure, took, held });
        let old = known.reloads.len().saturating_sub(REMEMBERED);
        known.reloads.drain(..old);
    }

    /// The reload by which this process was executed is over: it serves, or it has come back for that reason.
    pub fn execed(&self, failure: Option<&str>) {
        self.reload_ends(generation(), true, failure);
    }

    /// Whoever begins without a predecessor that has said so was in no reload.
    pub fn forget_begun(&self) {
        mem::take(&mut self.known().begun);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reloads_are_remembered_and_all_are_counted() {
        let lineage = Lineage::default();
        lineage.reload_ends(1, true, None);
        assert!(lineage.before().1.is_empty(), "none had begun");
        for generation in 2..14 {
            lineage.reload_begins();
            lineage.holds_since(Millis::now());
            lineage.reload_ends(generation, generation % 2 == 0, (generation == 5).then_some("no"));
        }
        let (totals, reloads) = lineage.before();
        assert_eq!(reloads.iter().map(|reload| reload.generation).collect::<Vec<_>>(), (4..14).collect::<Vec<_>>());
        assert_eq!(reloads[1].failure.as_deref(), Some("no"));
        assert_eq!(totals.get("handover_reloads_total{mode=\"exec\",outcome=\"succeeded\"}"), 6);
        assert_eq!(totals.get("handover_reloads_total{mode=\"overlap\",outcome=\"failed\"}"), 1);
        assert_eq!(totals.get("handover_reload_duration_seconds_count"), 11);
    }

    #[test]
    fn a_predecessor_is_asked_and_one_that_does_not_answer_is_not_waited_for() {
        let (ours, theirs) = Link::pair().expect("a pair");
        let theirs = Link::of(theirs).expect("a link");
        let lineage = std::sync::Arc::new(Lineage::default());
        let counted = |number: u64| SavedFigures { totals: vec![("a".into(), number)], ..SavedFigures::default() };
        lineage.begin(counted(1), Some(ours));
        assert_eq!(lineage.before().0.get("a"), 1, "what it had said before");
        assert_eq!(lineage.known().asked, 1);
        lineage.before();
        assert_eq!(lineage.known().asked, 1, "it is not asked again at once");
        lineage.known().silent = None;
        let answers = {
            let lineage = lineage.clone();
            std::thread::spawn(move || {
                let mut number = 0;
                while number < 2 {
                    let Ok(Some(packet)) = theirs.receive() else { panic!("the link has ended") };
                    let Message::Count(asked) = packet.message else { panic!("{:?}", packet.message) };
                    number = asked;
                    // The first was given up on.
                    if number == 2 {
                        lineage.hear(number, counted(7));
                    }
                }
            })
        };
        assert_eq!(lineage.before().0.get("a"), 7);
        answers.join().expect("its assertions");
        lineage.is_alone();
        assert_eq!(lineage.before().0.get("a"), 7);
    }
}
