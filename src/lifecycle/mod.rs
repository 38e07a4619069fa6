//! How a server begins, hands over and ends: the phase it is in, the signals that drive it, the state that moves.

pub mod activation;
mod anonymous;
pub mod candidate;
pub mod child;
pub mod configuration;
pub mod exec;
#[cfg(any(test, fuzzing))]
pub mod invariants;
pub mod link;
pub mod notify;
pub mod outcome;
pub mod patience;
mod phase;
pub mod pid_file;
pub mod predecessor;
pub mod process;
pub mod program;
pub mod signals;
pub mod small_file;
pub mod state;
pub mod successor;
pub mod way_back;

pub use phase::Phase;

use state::{Carried, Counters};

/// What can happen to a running server.
pub enum Event {
    /// Stop gracefully; said again, at once.
    Stop,
    /// Stop at once.
    StopNow,
    /// Run the program on disk afresh.
    Reload,
    /// Open the log files again.
    Reopen,
    /// The successor of that process id said something, or is gone. What one says that is no longer ours is passed by.
    Successor(u32, FromSuccessor),
    /// The predecessor said something, or is gone.
    Predecessor(FromPredecessor),
    /// The last worker has ended.
    PoolEnded,
}

/// What a predecessor's main thread hears.
pub enum FromSuccessor {
    Ready {
        kept: Vec<String>,
    },
    Stopping,
    /// Why it ends.
    Failed(String),
    Promoted,
    /// A stop, passed on.
    Stop {
        at_once: bool,
    },
    /// It does not answer any more.
    Stalled,
    Gone,
}

/// What a successor's main thread hears.
pub enum FromPredecessor {
    Promote(Option<Carried>),
    /// A stop, passed on.
    Stop {
        at_once: bool,
    },
    ListenersClosed,
    Finished {
        counters: Counters,
        cut: u64,
        reload_again: bool,
    },
    Gone,
}
