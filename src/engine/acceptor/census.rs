//! How many connections there are, by what they wait for: a look at each of their words, for whoever asks.

use super::Acceptor;
use crate::engine::slot::{Sched, Shed};

/// Connections by what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Between two requests.
    pub idle: usize,
    /// In the middle of a request, for the rest of it.
    pub reading: usize,
    /// With something ready, for a thread.
    pub queued: usize,
    /// For a thread that may wait for its client.
    pub streaming: usize,
    /// For nothing: a thread has it.
    pub running: usize,
    /// In the middle of a response, for its client to read.
    pub writing: usize,
    /// For messages.
    pub subscribed: usize,
    /// Behind its last response, for its client's end.
    pub lingering: usize,
}

impl Census {
    /// Each, with its name.
    pub fn each(&self) -> [(&'static str, usize); 8] {
        let Census { idle, reading, queued, streaming, running, writing, subscribed, lingering } = *self;
        [
            ("idle", idle),
            ("reading", reading),
            ("queued", queued),
            ("streaming", streaming),
            ("running", running),
            ("writing", writing),
            ("subscribed", subscribed),
            ("lingering", lingering),
        ]
    }
}

impl Acceptor {
    /// Counts them. At fifty thousand it takes a few milliseconds, and somebody looks at most once a second.
    pub(super) fn census(&self) -> Census {
        let mut census = Census::default();
        for slot in self.table.iter() {
            let word = slot.load();
            let number = match (word.parked(), word.sched()) {
                (Some(parked), _) if parked.wants_stream => &mut census.streaming,
                (Some(parked), _) if parked.on_wake => &mut census.subscribed,
                (Some(parked), _) if parked.on_writable => &mut census.writing,
                (Some(parked), _) if parked.shed == Some(Shed::Idle) && parked.refusable => &mut census.idle,
                (Some(parked), _) if parked.shed == Some(Shed::Late) => &mut census.reading,
                (Some(_), _) => &mut census.lingering,
                (None, Sched::Running | Sched::RunningAgain) => &mut census.running,
                (None, Sched::Closed) => continue,
                (None, _) => &mut census.queued,
            };
            *number += 1;
        }
        census
    }
}
