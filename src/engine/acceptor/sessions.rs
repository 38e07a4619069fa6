//! Sessions of SockJS: what is due for them without a connection is a worker's to do, and this thread has one do it.

use super::Acceptor;
use crate::clock::Millis;
use crate::engine::connection::Share;
use crate::engine::pool::job::Job;
use crossbeam_channel::TrySendError;

impl Acceptor {
    /// When a worker is to look at them, unless work is held back.
    pub(super) fn sessions_due(&self) -> Millis {
        match self.gives_sessions() {
            true => Millis(self.shared.sessions.due()),
            false => Millis::NEVER,
        }
    }

    /// Not while they are written down, and not once another process has them.
    fn gives_sessions(&self) -> bool {
        self.hold.is_none() && !self.waits_for_go && !self.has_switched()
    }

    /// Has a worker look at those for which something is due, and counts the memory that all of them keep.
    pub(super) fn look_at_sessions(&mut self) {
        let Some(hub) = &self.shared.hub else { return };
        let sessions = &self.shared.sessions;
        sessions.called(hub.take_absent());
        // Beyond the limit those that are there stay, and no other comes.
        let held = sessions.held();
        if held != self.sessions_held {
            let fits = Share::resize(&mut self.sessions_share, &self.shared.budget, held);
            sessions.set_full(!fits);
            self.sessions_held = if fits { held } else { usize::MAX };
        }
        if self.alone && self.adopting.is_empty() && std::mem::take(&mut self.awaits_sessions) {
            sessions.nobody_comes(self.now.0);
        }
        if !self.gives_sessions() || sessions.due() > self.now.0 {
            return;
        }
        sessions.ask();
        match self.jobs.try_send(Job::Sessions) {
            Ok(()) => {}
            // Somebody else takes its place, and it is asked again then.
            Err(TrySendError::Full(_)) => sessions.give_up(),
            // The pool ends only after this thread has.
            Err(TrySendError::Disconnected(_)) => self.over = true,
        }
    }
}
