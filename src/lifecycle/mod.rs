//! How a server begins, hands over and ends: the phase it is in, the signals that drive it, the state that moves.

pub mod activation;
pub mod anonymous;
pub mod before;
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
    /// It accepts, and of the listeners that it was given these are its too.
    Ready(Kept),
    Stopping,
    /// Why it ends.
    Failed(String),
    Promoted,
    /// It was told to serve, and does: the pid file is its.
    Serves,
    /// A stop, passed on.
    Stop {
        at_once: bool,
    },
    /// It does not answer any more.
    Stalled,
    Gone,
}

/// Which of the listeners that it was given a successor goes on with.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    Places(Vec<u32>),
    /// By their addresses as they were configured: what a successor says that knows no places.
    Addresses(Vec<String>),
}

impl Kept {
    /// Whether it is among them: the one in that place, configured like that.
    pub fn contains(&self, place: usize, address: &str) -> bool {
        match self {
            Kept::Places(places) => places.iter().any(|&kept| kept as usize == place),
            Kept::Addresses(addresses) => addresses.iter().any(|kept| kept == address),
        }
    }
}

/// What a successor's main thread hears.
pub enum FromPredecessor {
    /// What its hub has written down.
    Hub(Vec<u8>),
    /// The sessions of SockJS, as the state has them.
    Sessions(Vec<u8>),
    Promote(Option<Carried>),
    /// It serves no longer, so that we may.
    Go,
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
