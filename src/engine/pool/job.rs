//! What stands in the channel to the workers.

use crate::engine::connection::Slot;
use std::sync::Arc;

/// What a worker takes at a time.
pub enum Job {
    /// A connection's turn.
    Turn(Arc<Slot>),
    /// The turns of several subscribers: a place in the channel for each would cost more than what it is for.
    Deliveries(Vec<Arc<Slot>>),
    /// A look at the sessions for which something is due.
    Sessions,
    /// Connections have ended on the acceptor, and their application is to be told, which each worker does after a job: this
    /// is one where there is no other.
    Ended,
}
