//! What the other generation says about connections, on its way to the acceptor.

use super::status::Status;
use super::stragglers::{Stragglers, do_for_client, publish_for};
use crate::api::Sessions;
use crate::clock::boot_time;
use crate::engine::acceptor::Command;
use crate::engine::connection::{Connection, Restored};
use crate::engine::pool::worker::AcceptorHandle;
use crate::lifecycle::link::{ForClient, Holds, Publication, PublishedAt, Undone};
use crate::lifecycle::predecessor::{Arrivals, Publishing};
use crate::lifecycle::state::{COUNTS, SavedFigures, Snapshot, encode};
use crate::lifecycle::successor::Answers;
use crossbeam_channel::Sender;
use pubsub::Hub;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Passes what the other process says about connections to the acceptor.
pub(super) struct Relay {
    pub(super) commands: Sender<Command>,
    pub(super) to_acceptor: AcceptorHandle,
    pub(super) hub: Option<Hub>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) stragglers: Stragglers,
    pub(super) status: Status,
}

impl Relay {
    fn tell(&self, command: Command) {
        // The acceptor ends only when no connection is left to be acknowledged. One that has ended has no use for a
        // connection that arrives, and dropping it closes it.
        let _ = self.commands.send(command);
        self.to_acceptor.wake();
    }
}

impl Answers for Relay {
    fn acked(&self, ids: Vec<u64>) {
        self.tell(Command::Acked(ids));
    }

    fn refused(&self, ids: Vec<u64>) {
        self.tell(Command::Refused(ids));
    }

    fn published(&self, id: u64, outcome: Result<PublishedAt, String>) {
        self.stragglers.answered(id, outcome);
    }

    fn done_for_client(&self, id: u64, outcome: Result<(), Undone>) {
        self.stragglers.done_for_client(id, outcome);
    }

    fn wishes(&self, address: Option<Vec<u8>>) {
        self.tell(Command::Spare(address));
    }

    fn count(&self) -> Option<Vec<u8>> {
        Some(encode(self.status.saved(false), COUNTS))
    }
}

impl Arrivals for Relay {
    type Restored = Restored;

    fn restore(&self, snapshot: Snapshot, socket: OwnedFd, file: Option<Arc<File>>) -> Option<Restored> {
        Connection::restore(snapshot, socket, file.as_ref(), (self.hub.as_ref(), &self.sessions)).ok()
    }

    fn adopt(&self, restored: Vec<Restored>) {
        self.tell(Command::Adopt(restored));
        self.status.somebody_comes();
    }

    fn counted(&self, number: u64, figures: SavedFigures) {
        self.status.lineage().hear(number, figures);
    }

    fn learn(&self, holds: Holds) {
        self.tell(Command::Learn(holds));
    }

    fn publish(&self, publication: Publication) -> Publishing {
        let hub = self.hub.clone();
        Box::new(move || publish_for(hub.as_ref().ok_or("there is no hub here")?, publication, boot_time()))
    }

    fn publishing_waits(&self) -> bool {
        self.hub.as_ref().is_some_and(Hub::follows)
    }

    fn do_for_client(&self, client: u64, what: ForClient) -> Result<(), Undone> {
        do_for_client(self.sessions.conversations(), client, what)
    }
}
