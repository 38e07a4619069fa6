//! Where a connection is among the threads: one atomic word, and the steps that may be taken from each state.
//!
//! ```text
//!            event                pop               event
//!  parked ──────────▶ Queued ──────────▶ Running ──────────▶ RunningAgain
//!    ▲                  │ │                 │ ▲                  │
//!    │   queue deadline │ └── looked after ─┤ └──── look again ───┘
//!    │                  ▼                   │
//!    │               Expired                │
//!    ├──────────────────────────────────────┴──▶ Closed
//!    └──▶ Frozen ──▶ parked again │ Closed (moved)
//! ```
//! Parked is one of `Idle` (waiting for a request), `Reading` (inside one), `Writing` (the client has to read first)
//! and `Waiting` (for a thread that may wait for its client). Whoever moves the word out of parked or `Queued` owns the
//! connection until moving it back: a worker by popping it from the channel, the acceptor and the status thread by
//! [`AtomicWord::claim`].
//!
//! To look and to act are one step: a claim names the word that was seen, all of it, with its flags and the number of
//! its turn, and fails if anything about it has changed since. `loom/` checks this file with every order of its steps.

use crate::sync::{AtomicU32, Ordering};

/// What a connection's word says; see the graph above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Place {
    /// Parked, nothing of a request has arrived.
    Idle,
    /// Parked inside a request, or lingering.
    Reading,
    /// Parked until the client has read.
    Writing,
    /// Parked with a response to push, until a thread is free that may wait for its client.
    Waiting,
    /// In the channel, or on its way there.
    Queued,
    /// A worker has it, or for a moment the acceptor or the status thread.
    Running,
    /// As `Running`, and an event came meanwhile: look again before parking.
    RunningAgain,
    /// Its queue deadline passed: the acceptor answered and owns it; a worker that pops it drops the entry.
    Expired,
    /// On its way to the successor: events and deadlines pass it by.
    Frozen,
    /// Gone.
    Closed,
}

const PLACES: [Place; 10] = [
    Place::Idle,
    Place::Reading,
    Place::Writing,
    Place::Waiting,
    Place::Queued,
    Place::Running,
    Place::RunningAgain,
    Place::Expired,
    Place::Frozen,
    Place::Closed,
];

const PLACE: u32 = 0xff;
/// The peer has closed its side.
const PEER_CLOSED: u32 = 0x100;
/// The peer has sent urgent data, at whose mark a read ends early.
const URGENT: u32 = 0x200;
/// An entry of it stands in the channel, or is on its way there: there is never a second one.
const IN_CHANNEL: u32 = 0x400;
/// The status thread has looked at it since it was queued.
const LOOKED_AFTER: u32 = 0x800;
/// Nothing of a response is written and nobody has seen its request: a 503 may still be said.
const REFUSABLE: u32 = 0x1000;
/// Parked and waiting for a thread that may wait for its client.
const WANTS_STREAM: u32 = 0x2000;
/// What stays when its owner gives it back.
const KEPT: u32 = PEER_CLOSED | URGENT | IN_CHANNEL | TURNS;
/// The number of its turn, around the wrap: so that a word that was seen is not taken for one that only looks the same.
const TURNS: u32 = 0xffff_0000;
const ONE_TURN: u32 = 0x1_0000;

/// How an owner parks a connection, besides its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Nothing of a response is written: a 503 may still be said.
    pub refusable: bool,
    /// It waits for a thread that may wait for its client.
    pub wants_stream: bool,
}

impl Flags {
    const fn bits(self) -> u32 {
        (if self.refusable { REFUSABLE } else { 0 }) | (if self.wants_stream { WANTS_STREAM } else { 0 })
    }
}

/// The word as it was seen at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(u32);

impl Word {
    pub fn place(self) -> Place {
        PLACES[(self.0 & PLACE) as usize]
    }

    /// Whether nobody has it and an event or deadline decides what comes next.
    pub fn is_parked(self) -> bool {
        matches!(self.place(), Place::Idle | Place::Reading | Place::Writing | Place::Waiting)
    }

    pub fn flags(self) -> Flags {
        Flags { refusable: self.0 & REFUSABLE != 0, wants_stream: self.0 & WANTS_STREAM != 0 }
    }

    pub fn is_refusable(self) -> bool {
        self.flags().refusable
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

    fn at(self, place: Place) -> Word {
        Word(self.0 & !PLACE | place as u32)
    }

    fn next_turn(self) -> Word {
        Word(self.0.wrapping_add(ONE_TURN))
    }
}

/// What the poller learned about a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readiness {
    pub readable: bool,
    pub writable: bool,
    /// The peer closed its side, or both are gone.
    pub closed: bool,
    pub urgent: bool,
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
    pub fn parked(place: Place, flags: Flags) -> AtomicWord {
        AtomicWord(AtomicU32::new(place as u32 | flags.bits()))
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

    /// The acceptor saw an event.
    pub fn notify(&self, ready: Readiness) -> Notified {
        let learned = (if ready.closed { PEER_CLOSED } else { 0 }) | (if ready.urgent { URGENT } else { 0 });
        let (_, notified) = self.update(|seen| {
            let word = Word(seen.0 | learned);
            let wakes = match seen.place() {
                Place::Idle | Place::Reading => ready.readable || ready.closed || ready.urgent,
                Place::Writing => ready.writable,
                _ => false,
            };
            match seen.place() {
                // An entry that the status thread has left behind serves for this as well.
                _ if wakes && seen.0 & IN_CHANNEL != 0 => (word.at(Place::Queued), Notified::Waits),
                _ if wakes => (Word(word.at(Place::Queued).0 | IN_CHANNEL), Notified::Enqueue(seen)),
                Place::Running => (word.at(Place::RunningAgain), Notified::Nothing),
                Place::Expired => (word, Notified::Discard),
                _ => (word, Notified::Nothing),
            }
        });
        notified
    }

    /// A worker popped its entry. `None` if the entry is stale; else the worker owns it.
    pub fn begin(&self) -> Option<Word> {
        let (_, begun) = self.update(|seen| {
            let word = Word(seen.0 & !IN_CHANNEL);
            match seen.place() {
                Place::Queued => {
                    let next = Word(word.next_turn().at(Place::Running).0 & KEPT | Place::Running as u32);
                    (next, Some(next))
                }
                _ => (word, None),
            }
        });
        begun
    }

    /// The owner parks it. `false` if an event came meanwhile: then it is still the owner's.
    pub fn park(&self, place: Place, flags: Flags) -> bool {
        let (_, parked) = self.update(|seen| match seen.place() {
            Place::RunningAgain => (seen, false),
            _ => (Word(seen.0 & KEPT | flags.bits() | place as u32), true),
        });
        parked
    }

    /// The owner looks again after [`AtomicWord::park`] refused.
    pub fn look_again(&self) -> Word {
        let (_, word) = self.update(|seen| (seen.at(Place::Running), seen.at(Place::Running)));
        word
    }

    /// Takes it as it was seen, to act on what was seen. `false` if anything about it has changed since.
    pub fn claim(&self, seen: Word, to: Place) -> bool {
        let next = match seen.place() {
            // A turn begins, though not by a pop.
            Place::Queued if to == Place::Running => seen.next_turn(),
            _ => seen,
        };
        // Out of parked into the channel without an event: an entry follows.
        let entry = if to == Place::Queued { IN_CHANNEL } else { 0 };
        let next = next.at(to).0 | entry;
        self.0.compare_exchange(seen.0, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The owner wants another turn. `true`: an entry has to be put into the channel; `false`: one stands there.
    pub fn requeue(&self, flags: Flags) -> bool {
        let (seen, ()) =
            self.update(|seen| (Word(seen.0 & KEPT | IN_CHANNEL | flags.bits() | Place::Queued as u32), ()));
        seen.0 & IN_CHANNEL == 0
    }

    /// Gives it back as it was when it was claimed out of `Queued`; `looked` if the status thread has had a look. Answers
    /// as [`AtomicWord::requeue`].
    pub fn put_back(&self, looked: bool) -> bool {
        let flags = IN_CHANNEL | REFUSABLE | if looked { LOOKED_AFTER } else { 0 };
        let (seen, ()) = self.update(|seen| (Word(seen.0 & KEPT | flags | Place::Queued as u32), ()));
        seen.0 & IN_CHANNEL == 0
    }

    /// It is on its way to the successor. For the acceptor, when it owns what was parked as said and has put no entry
    /// into the channel. One that the status thread has left there stays, and there must not be a second.
    pub fn freeze(&self, parked: Word) {
        let entry = parked.0 & IN_CHANNEL;
        self.update(|seen| (Word(seen.0 & (KEPT & !IN_CHANNEL | entry) | Place::Frozen as u32), ()));
    }

    /// The owner has closed it.
    pub fn close(&self) {
        self.0.store(Place::Closed as u32, Ordering::Release);
    }
}
