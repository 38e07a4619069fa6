//! Overlap mode as the predecessor sees it: the child, and the thread that listens to it.

use super::candidate::Candidate;
use super::child::{Child, How};
use super::link::{self, CLIENTS, FIGURES, Link, Message, Packet, PublishedAt, SWITCHES, Undone, payload};
use super::patience::Patience;
use super::program::Reads;
use super::state::{COUNTS, Inheritance, WEBSOCKETS, common, encode};
use super::{Event, FromSuccessor, Kept};
use crossbeam_channel::Sender;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long the link may be full: the successor has stopped reading.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// From the end of the link to the end of the process.
const REAPING: Duration = Duration::from_millis(50);
const STACK: usize = 128 * 1024;

/// A running successor. Dropping it kills and reaps it, unless it was let go.
pub struct Successor {
    pub link: Link,
    child: Option<Child>,
    listening: Option<JoinHandle<()>>,
    pid: u32,
    killed: bool,
}

/// The newest versions that both sides know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// Of the state; without one no connection moves.
    pub state: Option<u32>,
    pub words: u32,
}

impl Spoken {
    /// With a program that says that it reads these.
    pub fn with(reads: &Reads) -> Spoken {
        let state = common(&reads.states);
        // From version 2 on the words themselves bring a state.
        let words = link::words().rev().find(|version| state.is_some() && reads.words.contains(version));
        Spoken { state, words: words.unwrap_or(1) }
    }

    /// Whether it hears of spare sockets.
    pub fn passes_spares(self) -> bool {
        self.words >= 2 && self.state >= Some(2)
    }

    /// In which version of the state it hears of figures, if it does.
    pub fn knows_figures(self) -> Option<u32> {
        self.state.filter(|version| self.words >= FIGURES && *version >= COUNTS)
    }

    /// In which version of the state it hears of sessions, if it does.
    pub fn knows_sessions(self) -> Option<u32> {
        self.state.filter(|version| self.words >= CLIENTS && *version >= WEBSOCKETS)
    }
}

/// What the successor says about connections: for whoever moves them.
pub trait Answers: Send + 'static {
    fn acked(&self, ids: Vec<u64>);
    fn refused(&self, ids: Vec<u64>);
    /// What was to be published stands there, or does not.
    fn published(&self, id: u64, outcome: Result<PublishedAt, String>);
    /// What was to be done for a client is, or is not.
    fn done_for_client(&self, id: u64, outcome: Result<(), Undone>);
    /// It wishes for a place, for another connection of that address if there is one.
    fn wishes(&self, address: Option<Vec<u8>>);
    /// What was counted here, as it is written down, if it may be told.
    fn count(&self) -> Option<Vec<u8>>;
}

/// Answers, if there is room: who reads the link waits for nobody, and who asks goes on without an answer.
fn say_figures(link: &Link, number: u64, figures: Vec<u8>) {
    let Ok((figures, memfd)) = payload(figures) else { return };
    let descriptors: Vec<_> = memfd.iter().map(AsFd::as_fd).collect();
    let _ = link.send(&Message::Figures { number, figures }, &descriptors);
}

impl Successor {
    /// Starts the program on disk with the listeners, and speaks to it as it understands.
    #[expect(clippy::too_many_arguments, reason = "what a reload knows by then")]
    pub fn start(
        candidate: &Candidate<'_>,
        spoken: Spoken,
        switch: bool,
        inheritance: Inheritance,
        told: &[(&str, &OsStr)],
        listeners: &[BorrowedFd<'_>],
        events: Sender<Event>,
        answers: impl Answers,
    ) -> io::Result<Successor> {
        let (link, theirs) = Link::pair()?;
        let child = candidate.start_successor(theirs.as_fd(), told)?;
        drop(theirs);
        let pid = child.pid().as_raw_nonzero().get().unsigned_abs();
        let mut successor = Successor { link: link.clone(), child: Some(child), listening: None, pid, killed: false };
        let stdin = io::stdin();
        let mut descriptors = listeners.to_vec();
        descriptors.push(stdin.as_fd());
        let greeting = match spoken {
            Spoken { state: Some(version), words } if words > 1 => {
                Message::Greeting { words, state: encode(inheritance, version) }
            }
            Spoken { .. } => Message::Hello(inheritance.into()),
        };
        let order = (spoken.words >= SWITCHES).then_some(Message::Order { switch });
        let sent = link.send_within(&greeting, &descriptors, PATIENCE);
        match sent.and_then(|()| order.map_or(Ok(()), |order| link.send_within(&order, &[], PATIENCE))) {
            // It has ended already, with or without having read the first of these. Who waits for its word is told so, and
            // how it ended.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
            sent => sent?,
        }
        let listen = move || {
            let mut in_places = None;
            loop {
                let said = match link.receive() {
                    Ok(Some(Packet { message, .. })) => message,
                    Ok(None) => break,
                    Err(error) => {
                        log::error!("cannot hear the successor: {error}");
                        break;
                    }
                };
                let word = match said {
                    Message::Kept { places } => {
                        in_places = Some(places);
                        continue;
                    }
                    Message::Ready { kept } => {
                        FromSuccessor::Ready(in_places.take().map_or(Kept::Addresses(kept), Kept::Places))
                    }
                    Message::Stopping => FromSuccessor::Stopping,
                    Message::Failed(reason) => FromSuccessor::Failed(reason),
                    Message::Promoted => FromSuccessor::Promoted,
                    Message::Serves => FromSuccessor::Serves,
                    Message::Stop { at_once } => FromSuccessor::Stop { at_once },
                    Message::Ack(id) => {
                        answers.acked(vec![id]);
                        continue;
                    }
                    Message::Acks(ids) => {
                        answers.acked(ids);
                        continue;
                    }
                    Message::Refused(id) => {
                        answers.refused(vec![id]);
                        continue;
                    }
                    Message::Refusals(ids) => {
                        answers.refused(ids);
                        continue;
                    }
                    Message::Published { id, outcome } => {
                        answers.published(id, outcome);
                        continue;
                    }
                    Message::ForClientDone { id, outcome } => {
                        answers.done_for_client(id, outcome);
                        continue;
                    }
                    Message::Spare(address) => {
                        answers.wishes(address);
                        continue;
                    }
                    Message::Count(number) => {
                        if let Some(figures) = answers.count() {
                            say_figures(&link, number, figures);
                        }
                        continue;
                    }
                    other => {
                        log::error!("the successor said what is not its to say: {}", other.kind());
                        break;
                    }
                };
                // The main thread goes on listening until the successor is gone, or the process ends.
                let _ = events.send(Event::Successor(pid, word));
            }
            let _ = events.send(Event::Successor(pid, FromSuccessor::Gone));
        };
        let thread = thread::Builder::new().name("successor".into()).stack_size(STACK);
        successor.listening = Some(thread.spawn(listen)?);
        Ok(successor)
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end, at most that long; then kills it. Answers how it ended.
    pub fn end(&mut self, patience: Duration) -> String {
        let mut patience = Patience::new(patience.max(REAPING));
        let Some(child) = &mut self.child else { return String::new() };
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                // Its end of the link closes a moment before it is a zombie.
                Ok(None) if !patience.is_over() => thread::sleep(Duration::from_millis(2)),
                _ => break None,
            }
        };
        let how = match status {
            Some(status) => How(status).to_string(),
            None => {
                child.end();
                self.killed = true;
                "it was killed".to_owned()
            }
        };
        self.child = None;
        self.join();
        how
    }

    /// Whether it has been reaped.
    pub fn has_ended(&self) -> bool {
        self.child.is_none()
    }

    /// Whether it had to be killed, with whatever it was serving.
    pub fn was_killed(&self) -> bool {
        self.killed
    }

    /// Lets it live on without us. It sees our end, also if this process lives on.
    pub fn let_go(mut self) {
        self.child = None;
        self.link.shut_down();
    }

    fn join(&mut self) {
        self.link.shut_down();
        if let Some(thread) = self.listening.take()
            && thread.join().is_err()
        {
            log::error!("the successor's thread panicked");
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.end();
            self.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_speak_the_newest_versions_that_both_know() {
        let with = |states: &[u32], words: &[u32]| {
            let (states, words, conversations) = (states.to_vec(), words.to_vec(), Vec::new());
            let Spoken { state, words } = Spoken::with(&Reads { states, words, comes_back: true, conversations });
            (state, words)
        };
        assert_eq!(with(&[1], &[1]), (Some(1), 1));
        assert_eq!(with(&[1, 2], &[1, 2]), (Some(2), 2));
        assert_eq!(with(&[1, 2, 3, 4], &[1, 2, 3, 4, 5, 6]), (Some(4), 6));
        assert_eq!(with(&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6, 7, 8]), (Some(5), 7));
        assert_eq!(with(&[1, 2], &[1, 2, 3, 4]), (Some(2), 4));
        assert_eq!(with(&[1], &[1, 2]), (Some(1), 2));
        // The greeting of version 2 brings a state.
        assert_eq!(with(&[98], &[1, 2]), (None, 1));
    }
}
