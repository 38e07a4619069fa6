//! Where a connection is among the threads: one atomic word, and the steps that may be taken from each state.
//!
//! ```text
//!            event                pop               event
//!  parked ──────────▶ Queued ──────────▶ Running ──────────▶ RunningAgain
//!    ▲                  │ ▲ │               │ ▲                  │
//!    │   queue deadline │ │ └ looked after ─┤ └──── look again ───┘
//!    │                  ▼ │ handed over     │
//!    │               Expired                │
//!    ├──────────────────────────────────────┴──▶ Closed
//!    └──▶ Frozen ──▶ parked again │ Closed (moved)
//! ```
//! What a parked connection waits for stands in the word as well ([`Parked`]). Whoever moves the word out of parked or
//! `Queued` owns the connection until moving it back: a worker by popping it from the channel, the acceptor and the
//! status thread by [`AtomicWord::claim`].
//!
//! To look and to act are one step: a claim names the word that was seen, all of it, with its flags and the number of
//! its turn, and fails if anything about it has changed since. `loom/` checks this file with every order of its steps.

use crate::engine::sync::{AtomicU32, Ordering};

/// What a connection's word says; see the graph above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Sched {
    /// Nobody has it: an event that it waits for, or its deadline, decides what comes next. See [`Parked`].
    Parked,
    /// In the channel, or on its way there.
    Queued,
    /// A worker has it, or for a moment the acceptor or the status thread.
    Running,
    /// As `Running`, and an event came meanwhile: look again before parking.
    RunningAgain,
    /// Its queue deadline passed: the acceptor answered and owns it; a worker that pops it drops the entry. What it cannot
    /// answer it hands over: queued again, with the answer.
    Expired,
    /// On its way to the successor: events and deadlines pass it by.
    Frozen,
    /// Gone.
    Closed,
}

const SCHEDS: [Sched; 7] =
    [Sched::Parked, Sched::Queued, Sched::Running, Sched::RunningAgain, Sched::Expired, Sched::Frozen, Sched::Closed];

const SCHED: u32 = 0x7;
/// The peer has closed its side.
const PEER_CLOSED: u32 = 0x8;
/// The peer has sent urgent data, at whose mark a read ends early.
const URGENT: u32 = 0x10;
/// An entry of it stands in the channel, or is on its way there: there is never a second one.
const IN_CHANNEL: u32 = 0x20;
/// The status thread has looked at it since it was queued.
const LOOKED_AFTER: u32 = 0x40;
/// Of [`Parked`], one each.
const ON_READABLE: u32 = 0x80;
const ON_WRITABLE: u32 = 0x100;
const REFUSABLE: u32 = 0x200;
const WANTS_STREAM: u32 = 0x400;
const MOVABLE: u32 = 0x800;
const SHED_IDLE: u32 = 0x1000;
const SHED_LATE: u32 = 0x2000;
const ON_WAKE: u32 = 0x4000;
/// What stays when its owner gives it back.
const KEPT: u32 = PEER_CLOSED | URGENT | IN_CHANNEL | TURNS;
/// The number of its turn, around the wrap: so that a word that was seen is not taken for one that only looks the same.
const TURNS: u32 = 0xffff_0000;
const ONE_TURN: u32 = 0x1_0000;

/// Why a connection can be spared when places run out, what costs its client less standing first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shed {
    /// No request has begun: the client expects that such a connection may close (RFC 9112 §9.5).
    Idle,
    /// A request that is late and that nobody has executed: it may be repeated (RFC 9110 §15.6.4).
    Late,
}

/// What a parked connection waits for, and what may be done with it meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parked {
    /// Bytes of its client, or the client's end, wake it.
    pub on_readable: bool,
    /// Room to write wakes it.
    pub on_writable: bool,
    /// Word from another thread that there is something for it wakes it, and its client's end.
    pub on_wake: bool,
    /// Nothing of a response is written and nobody has seen its request: once it is queued, a 503 may still be said.
    pub refusable: bool,
    /// It waits for a thread that may wait for its client.
    pub wants_stream: bool,
    /// It holds no code of the application's: another process can go on with it.
    pub movable: bool,
    /// Whether it may go for another, once it has been waited for.
    pub shed: Option<Shed>,
}

#[cfg(test)]
impl Parked {
    /// Between two requests: what the tests of those who look at a slot begin with.
    pub const READING: Parked = Parked {
        on_readable: true,
        on_writable: false,
        on_wake: false,
        refusable: true,
        wants_stream: false,
        movable: true,
        shed: Some(Shed::Idle),
    };
}

impl Parked {
    const fn bits(self) -> u32 {
        let shed = match self.shed {
            None => 0,
            Some(Shed::Idle) => SHED_IDLE,
            Some(Shed::Late) => SHED_LATE,
        };
        bits(self.on_readable, ON_READABLE)
            | bits(self.on_writable, ON_WRITABLE)
            | bits(self.on_wake, ON_WAKE)
            | bits(self.refusable, REFUSABLE)
            | bits(self.wants_stream, WANTS_STREAM)
            | bits(self.movable, MOVABLE)
            | shed
    }
}

const fn bits(is: bool, bits: u32) -> u32 {
    if is { bits } else { 0 }
}

/// The word as it was seen at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(u32);

impl Word {
    pub fn sched(self) -> Sched {
        SCHEDS[(self.0 & SCHED) as usize]
    }

    /// Whether nobody has it and an event or deadline decides what comes next.
    pub fn is_parked(self) -> bool {
        self.sched() == Sched::Parked
    }

    /// How it is parked, if it is.
    pub fn parked(self) -> Option<Parked> {
        let has = |bits: u32| self.0 & bits != 0;
        self.is_parked().then(|| Parked {
            on_readable: has(ON_READABLE),
            on_writable: has(ON_WRITABLE),
            on_wake: has(ON_WAKE),
            refusable: has(REFUSABLE),
            wants_stream: has(WANTS_STREAM),
            movable: has(MOVABLE),
            shed: has(SHED_IDLE).then_some(Shed::Idle).or(has(SHED_LATE).then_some(Shed::Late)),
        })
    }

    pub fn is_refusable(self) -> bool {
        self.0 & REFUSABLE != 0
    }

    pub fn is_peer_closed(self) -> bool {
        self.0 & PEER_CLOSED != 0
    }

    /// Whether a read that fills less than it asked for may have left something in the socket.
    pub fn hides_bytes(self) -> bool {
        self.0 & (PEER_CLOSED | URGENT) != 0
    }

    /// Whether the status thread has looked at it since it was queued.
    pub fn is_looked_after(self) -> bool {
        self.0 & LOOKED_AFTER != 0
    }

    fn at(self, sched: Sched) -> Word {
        Word(self.0 & !SCHED | sched as u32)
    }

    fn next_turn(self) -> Word {
        Word(self.0.wrapping_add(ONE_TURN))
    }
}

/// What the poller learned about a connection, or another thread has said of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readiness {
    pub readable: bool,
    pub writable: bool,
    /// The peer closed its side, or both are gone.
    pub closed: bool,
    pub urgent: bool,
    /// It is woken: another thread has something for it. Who runs looks again before it parks; who is parked and does not
    /// wait for that finds it when it next looks.
    pub woken: bool,
}

/// What the acceptor does with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notified {
    /// It was parked and is `Queued` now: put it into the channel. With the word as it was parked.
    Enqueue(Word),
    /// It is `Queued` now by an entry that the status thread has left in the channel.
    Waits,
    /// Nothing; whoever has it, or pops it, will see it.
    Nothing,
    /// The acceptor owns it: throw away what it sends.
    Discard,
}

/// The word.
pub struct AtomicWord(AtomicU32);

impl AtomicWord {
    /// Of a connection that is parked until its first event.
    pub fn parked(parked: Parked) -> AtomicWord {
        AtomicWord(AtomicU32::new(Sched::Parked as u32 | parked.bits()))
    }

    pub fn load(&self) -> Word {
        Word(self.0.load(Ordering::Acquire))
    }

    /// Replaces the word by what `change` makes of it, tried anew whenever it has changed meanwhile. Answers the word
    /// as it was, and what `change` said about the last one.
    fn update<R>(&self, mut change: impl FnMut(Word) -> (Word, R)) -> (Word, R) {
        let mut seen = self.load();
        loop {
            let (next, said) = change(seen);
            match self.0.compare_exchange_weak(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return (seen, said),
                Err(actual) => seen = Word(actual),
            }
        }
    }

    /// The acceptor saw an event, or was told to wake it. Nobody else does this: what the acceptor has for a moment it parks
    /// again without asking what came meanwhile, because nothing can have.
    pub fn notify(&self, ready: Readiness) -> Notified {
        let learned = (if ready.closed { PEER_CLOSED } else { 0 }) | (if ready.urgent { URGENT } else { 0 });
        let (_, notified) = self.update(|seen| {
            let word = Word(seen.0 | learned);
            let read = seen.0 & ON_READABLE != 0 && (ready.readable || ready.closed || ready.urgent);
            let written = seen.0 & ON_WRITABLE != 0 && ready.writable;
            let woken = seen.0 & ON_WAKE != 0 && (ready.woken || ready.closed);
            let wakes = seen.is_parked() && (read || written || woken);
            match seen.sched() {
                // An entry that the status thread has left behind serves for this as well.
                _ if wakes && seen.0 & IN_CHANNEL != 0 => (word.at(Sched::Queued), Notified::Waits),
                _ if wakes => (Word(word.at(Sched::Queued).0 | IN_CHANNEL), Notified::Enqueue(seen)),
                Sched::Running => (word.at(Sched::RunningAgain), Notified::Nothing),
                Sched::Expired => (word, Notified::Discard),
                _ => (word, Notified::Nothing),
            }
        });
        notified
    }

    /// A worker popped its entry. `None` if the entry is stale; else the worker owns it.
    pub fn begin(&self) -> Option<Word> {
        let (_, begun) = self.update(|seen| {
            let word = Word(seen.0 & !IN_CHANNEL);
            match seen.sched() {
                Sched::Queued => {
                    let next = Word(word.next_turn().0 & KEPT | Sched::Running as u32);
                    (next, Some(next))
                }
                _ => (word, None),
            }
        });
        begun
    }

    /// The owner parks it. `false` if an event came meanwhile: then it is still the owner's.
    pub fn park(&self, parked: Parked) -> bool {
        let waits = parked.on_readable || parked.on_writable || parked.on_wake || parked.wants_stream;
        debug_assert!(waits, "nothing would ever wake it");
        let (_, is_parked) = self.update(|seen| match seen.sched() {
            Sched::RunningAgain => (seen, false),
            sched => {
                debug_assert!(matches!(sched, Sched::Running | Sched::Frozen), "{sched:?} has another owner");
                (Word(seen.0 & KEPT | parked.bits() | Sched::Parked as u32), true)
            }
        });
        is_parked
    }

    /// The owner looks again after [`AtomicWord::park`] refused.
    pub fn look_again(&self) -> Word {
        let (_, word) = self.update(|seen| (seen.at(Sched::Running), seen.at(Sched::Running)));
        word
    }

    /// Takes it as it was seen, to act on what was seen. `false` if anything about it has changed since.
    pub fn claim(&self, seen: Word, to: Sched) -> bool {
        let next = match seen.sched() {
            // A turn begins, though not by a pop.
            Sched::Queued if to == Sched::Running => seen.next_turn(),
            _ => seen,
        };
        // Out of parked into the channel without an event: an entry follows.
        let entry = if to == Sched::Queued { IN_CHANNEL } else { 0 };
        let next = next.at(to).0 | entry;
        self.0.compare_exchange(seen.0, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The owner wants another turn. `true`: an entry has to be put into the channel; `false`: one stands there.
    ///
    /// `refusable`: nothing of a response is written, and a 503 may be said.
    pub fn requeue(&self, refusable: bool) -> bool {
        self.queue(bits(refusable, REFUSABLE))
    }

    /// Gives it back as it was when it was claimed out of `Queued`; `looked` if the status thread has had a look. Answers
    /// as [`AtomicWord::requeue`].
    pub fn put_back(&self, looked: bool) -> bool {
        self.queue(REFUSABLE | bits(looked, LOOKED_AFTER))
    }

    fn queue(&self, flags: u32) -> bool {
        let (seen, ()) = self.update(|seen| {
            let owned = matches!(seen.sched(), Sched::Running | Sched::RunningAgain | Sched::Expired);
            debug_assert!(owned, "{seen:?}");
            (Word(seen.0 & KEPT | IN_CHANNEL | flags | Sched::Queued as u32), ())
        });
        seen.0 & IN_CHANNEL == 0
    }

    /// It is on its way to the successor. For the acceptor, when it owns what was parked as said and has put no entry
    /// into the channel. One that the status thread has left there stays, and there must not be a second.
    pub fn freeze(&self, parked: Word) {
        let entry = parked.0 & IN_CHANNEL;
        self.update(|seen| (Word(seen.0 & (KEPT & !IN_CHANNEL | entry) | Sched::Frozen as u32), ()));
    }

    /// The owner has closed it.
    pub fn close(&self) {
        self.0.store(Sched::Closed as u32, Ordering::Release);
    }
}
