//! When each connection is to be looked at, so that what a look costs goes by what is due, and not by what is open.
//!
//! A connection leaves *parked* only by this thread, and from then on a worker may give it any deadline without a word:
//! it is under way, and looked at once a tick until it is parked again. Else it has a timer, no later than its deadline.
//! A deadline that has moved on leaves the timer where it is: the look at that time finds it, and asks for another.
//! So a busy connection costs one look a tick at the most, and a step in the heap once in its idle timeout.

use crate::clock::Millis;
use crate::engine::slot::FARTHEST;
use crate::engine::table::Table;

/// See above.
pub(super) struct Timers {
    /// A binary heap: no timer is later than the two below it, at `2n + 1` and `2n + 2`. A connection has one at most.
    heap: Vec<Timer>,
    /// By the index in the table.
    known: Vec<Known>,
    /// By index. Who has gone stays here until the tick: then whoever has its entry is looked at, which does no harm.
    under_way: Vec<u32>,
    /// When those under way are looked at.
    tick: Millis,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    at: u32,
    index: u32,
}

/// What is known about a connection, in four bytes: each open connection has them. The place of its timer in the heap,
/// counted from 1, or 0 without one; and whether it is under way.
#[derive(Clone, Copy, Default)]
struct Known(u32);

const UNDER_WAY: u32 = 1 << 31;

impl Known {
    fn place(self) -> Option<usize> {
        (self.0 & !UNDER_WAY).checked_sub(1).map(|place| place as usize)
    }

    fn set_place(&mut self, place: Option<usize>) {
        self.0 = self.0 & UNDER_WAY | place.map_or(0, |place| place as u32 + 1);
    }

    fn is_under_way(self) -> bool {
        self.0 & UNDER_WAY != 0
    }

    fn set_under_way(&mut self, is: bool) {
        self.0 = self.0 & !UNDER_WAY | if is { UNDER_WAY } else { 0 };
    }
}

impl Timer {
    fn is_before(self, other: Timer) -> bool {
        is_before(self.at, other.at)
    }
}

fn is_before(at: u32, other: u32) -> bool {
    (at.wrapping_sub(other) as i32) < 0
}

impl Timers {
    pub fn new() -> Timers {
        Timers { heap: Vec::new(), known: Vec::new(), under_way: Vec::new(), tick: Millis::NEVER }
    }

    /// When something is to be looked at next.
    pub fn next(&self, now: Millis) -> Millis {
        let first = self.heap.first().map_or(Millis::NEVER, |timer| {
            let wait = timer.at.wrapping_sub(now.0 as u32) as i32;
            Millis(now.0.saturating_add_signed(wait.into()))
        });
        self.tick.min(first)
    }

    /// It is looked at then, if not sooner.
    pub fn look_at(&mut self, token: usize, now: Millis, then: Millis) {
        let index = Table::index_of(token);
        let timer = Timer { at: then.min(now.after(FARTHEST)).0 as u32, index: index as u32 };
        let place = match self.known(index).place() {
            Some(place) if !timer.is_before(self.heap[place]) => return,
            Some(place) => place,
            None => {
                self.heap.push(timer);
                self.heap.len() - 1
            }
        };
        self.raise(place, timer);
    }

    /// It has left *parked*, and is looked at when those under way are, which is then at the latest.
    pub fn goes_on(&mut self, token: usize, tick: Millis) {
        self.tick_by(tick);
        let index = Table::index_of(token);
        let known = self.known(index);
        if !known.is_under_way() {
            known.set_under_way(true);
            self.under_way.push(index as u32);
        }
    }

    /// Those under way are looked at then, if not sooner.
    pub fn tick_by(&mut self, tick: Millis) {
        self.tick = self.tick.min(tick);
    }

    /// Those under way, by index, if their tick has come. Each of which this is still true has to be said again.
    pub fn take_under_way(&mut self, now: Millis) -> Vec<u32> {
        if now < self.tick {
            return Vec::new();
        }
        self.tick = Millis::NEVER;
        let under_way = std::mem::take(&mut self.under_way);
        for index in &under_way {
            self.known[*index as usize].set_under_way(false);
        }
        under_way
    }

    /// The connections whose time has come, the first of them first and not more than so many, by index. They have no
    /// timer any more.
    pub fn take_due(&mut self, now: Millis, most: usize) -> Vec<u32> {
        let mut due = Vec::new();
        while let Some(first) = self.heap.first()
            && due.len() < most
            && !is_before(now.0 as u32, first.at)
        {
            due.push(first.index);
            self.remove(0);
        }
        due
    }

    /// It goes from the table, and its timer with it.
    pub fn forget(&mut self, token: usize) {
        if let Some(place) = self.known(Table::index_of(token)).place() {
            self.remove(place);
        }
    }

    fn known(&mut self, index: usize) -> &mut Known {
        if index >= self.known.len() {
            self.known.resize(index + 1, Known::default());
        }
        &mut self.known[index]
    }

    fn remove(&mut self, place: usize) {
        let removed = self.heap.swap_remove(place);
        self.known[removed.index as usize].set_place(None);
        // The last one stands there now, unless it was this.
        let Some(&timer) = self.heap.get(place) else { return };
        if timer.is_before(removed) { self.raise(place, timer) } else { self.lower(place, timer) }
    }

    fn put(&mut self, place: usize, timer: Timer) {
        self.heap[place] = timer;
        self.known[timer.index as usize].set_place(Some(place));
    }

    /// Puts it there, or above: those above that are later come down.
    fn raise(&mut self, mut place: usize, timer: Timer) {
        while place > 0 {
            let above = (place - 1) / 2;
            if !timer.is_before(self.heap[above]) {
                break;
            }
            self.put(place, self.heap[above]);
            place = above;
        }
        self.put(place, timer);
    }

    /// Puts it there, or below: those below that are sooner come up.
    fn lower(&mut self, mut place: usize, timer: Timer) {
        while let Some(&left) = self.heap.get(2 * place + 1) {
            let right = self.heap.get(2 * place + 2).filter(|right| right.is_before(left));
            let (below, sooner) = right.map_or((2 * place + 1, left), |right| (2 * place + 2, *right));
            if !sooner.is_before(timer) {
                break;
            }
            self.put(place, sooner);
            place = below;
        }
        self.put(place, timer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const ALL: usize = usize::MAX;

    fn is_a_heap(timers: &Timers) {
        for (place, timer) in timers.heap.iter().enumerate() {
            assert_eq!(timers.known[timer.index as usize].place(), Some(place));
            assert!(place == 0 || !timer.is_before(timers.heap[(place - 1) / 2]), "{place} of {:?}", timers.heap);
        }
    }

    #[test]
    fn a_look_is_at_what_is_due_and_at_nothing_else() {
        let mut timers = Timers::new();
        for token in 0..50_000 {
            timers.look_at(token, Millis(0), Millis(30_000 + token as u64));
        }
        assert_eq!(timers.next(Millis(0)), Millis(30_000));
        assert!(timers.take_due(Millis(29_999), ALL).is_empty());
        assert_eq!(timers.take_due(Millis(30_002), ALL), [0, 1, 2]);
        assert!(timers.take_under_way(Millis(40_000)).is_empty());
        assert_eq!(timers.take_due(Millis(90_000), 1000), (3..1003).collect::<Vec<_>>(), "the rest stays due");
        assert_eq!(timers.next(Millis(90_000)), Millis(31_003));
    }

    /// One that was idle for 30 seconds to come parks in the middle of a head, which has 10.
    #[test]
    fn a_deadline_that_a_worker_shortens_is_seen_with_the_next_tick() {
        let mut timers = Timers::new();
        timers.look_at(7, Millis(0), Millis(30_000));
        timers.goes_on(7, Millis(1250));
        timers.goes_on(7, Millis(1400));
        assert_eq!(timers.next(Millis(1000)), Millis(1250));
        assert!(timers.take_under_way(Millis(1249)).is_empty());
        assert_eq!(timers.take_under_way(Millis(1250)), [7], "once");
        timers.look_at(7, Millis(1250), Millis(11_000));
        assert_eq!(timers.next(Millis(1250)), Millis(11_000));
        assert_eq!(timers.take_due(Millis(11_000), ALL), [7]);
        assert_eq!(timers.next(Millis(11_000)), Millis::NEVER, "nobody is woken for the first one");
    }

    #[test]
    fn a_deadline_that_moves_on_costs_no_step() {
        let mut timers = Timers::new();
        timers.look_at(7, Millis(0), Millis(30_000));
        for now in (1000..30_000).step_by(1000) {
            timers.look_at(7, Millis(now), Millis(now + 30_000));
        }
        assert_eq!(timers.take_due(Millis(30_000), ALL), [7]);
        timers.look_at(7, Millis(30_000), Millis(59_000));
        assert_eq!(timers.next(Millis(30_000)), Millis(59_000));
    }

    #[test]
    fn what_has_gone_leaves_nothing_to_who_has_its_place_then() {
        let mut timers = Timers::new();
        timers.look_at(7, Millis(0), Millis(100));
        timers.goes_on(7, Millis(250));
        timers.forget(7);
        assert!(timers.heap.is_empty());
        timers.look_at(7, Millis(0), Millis(200));
        timers.goes_on(7, Millis(250));
        assert_eq!(timers.next(Millis(0)), Millis(200));
        assert_eq!(timers.take_under_way(Millis(250)), [7], "once");
    }

    #[test]
    fn times_are_compared_around_the_wrap_and_never_too_far_apart() {
        let mut timers = Timers::new();
        let now = Millis(u64::from(u32::MAX) - 10);
        timers.look_at(1, now, Millis(now.0 + 100));
        timers.look_at(2, now, Millis(now.0 + 5));
        timers.look_at(3, now, Millis::NEVER);
        assert_eq!(timers.next(now), Millis(now.0 + 5));
        assert_eq!(timers.next(Millis(now.0 + 8)), Millis(now.0 + 5), "it is late");
        assert_eq!(timers.take_due(Millis(now.0 + 100), ALL), [2, 1]);
        assert_eq!(timers.next(now), now.after(FARTHEST));
    }

    /// The same as a list that is looked through, whatever is set, goes and comes due in between.
    #[test]
    fn any_order_of_steps_finds_what_is_due() {
        let (mut timers, mut model) = (Timers::new(), BTreeMap::<u32, u64>::new());
        let mut random = 1_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut now = u64::from(u32::MAX) - 3000;
        for _ in 0..20_000 {
            let token = draw(200) as u32;
            match draw(8) {
                0..5 => {
                    let then = now + draw(500);
                    timers.look_at(token as usize, Millis(now), Millis(then));
                    model.entry(token).and_modify(|at| *at = then.min(*at)).or_insert(then);
                }
                5 | 6 => {
                    timers.forget(token as usize);
                    model.remove(&token);
                }
                _ => {
                    now += draw(20);
                    let due: BTreeSet<u32> = timers.take_due(Millis(now), ALL).into_iter().collect();
                    let expected = model.iter().filter(|(_, at)| **at <= now).map(|(token, _)| *token).collect();
                    assert_eq!(due, expected);
                    model.retain(|_, at| *at > now);
                }
            }
            is_a_heap(&timers);
            let first = model.values().min().map_or(Millis::NEVER, |at| Millis(*at));
            assert_eq!(timers.next(Millis(now)), first);
        }
    }
}
