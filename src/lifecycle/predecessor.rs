//! Overlap mode as the successor sees it: what it inherits, and the thread that listens to its predecessor.

use super::link::{
    self, FIGURES, ForClient, HOLDS, Holds, Link, Message, PLACES, Packet, Payload, Publication, PublishedAt, SWITCHES,
    Sent, Snapshots, Undone, test_point,
};
use super::patience::Patience;
use super::state::{Carried, Inheritance, SavedFigures, Snapshot, decode};
use super::{Event, FromPredecessor};
use crate::Error;
use crossbeam_channel::Sender;
use foldhash::fast::RandomState;
use rustix::fs::FileType;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long the predecessor may not read our answers, before we go on with what is ours.
const PATIENCE: Duration = Duration::from_secs(30);
const STACK: usize = 128 * 1024;

/// The predecessor of this process.
#[derive(Clone)]
pub struct Predecessor {
    pub link: Link,
    /// The version of the words that we speak.
    words: u32,
}

/// Connections that have not been committed, by id. The predecessor has a limit of them, and most go in the order they
/// came.
struct Arriving<R>(Vec<(u64, R)>);

impl<R> Arriving<R> {
    /// All of them.
    fn into_all(self) -> Vec<R> {
        self.0.into_iter().map(|(_, restored)| restored).collect()
    }

    fn take(&mut self, id: u64) -> Option<R> {
        let at = self.0.iter().position(|(other, _)| *other == id)?;
        Some(self.0.remove(at).1)
    }
}

/// Files that connections send. Each comes with a descriptor of its own, of which one is enough for all that send the
/// same file: it is only ever read, from where each says.
#[derive(Default)]
struct Files(HashMap<(u64, u64), Weak<File>, RandomState>);

impl Files {
    /// Files that are remembered, before those that nobody sends any more are forgotten.
    const SOME: usize = 256;

    fn share(&mut self, fd: OwnedFd) -> Arc<File> {
        let file = Arc::new(File::from(fd));
        let Ok(stat) = rustix::fs::fstat(&*file) else { return file };
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return file;
        }
        if self.0.len() >= Files::SOME {
            self.0.retain(|_, file| file.strong_count() > 0);
        }
        let known = self.0.entry((stat.st_dev, stat.st_ino)).or_default();
        known.upgrade().unwrap_or_else(|| {
            *known = Arc::downgrade(&file);
            file
        })
    }
}

/// Publishes, and says what became of it.
pub type Publishing = Box<dyn FnOnce() -> Result<PublishedAt, String> + Send>;

/// What the predecessor says about connections: for whoever takes them over.
pub trait Arrivals: Send + 'static {
    /// A connection that can go on here.
    type Restored: Send;

    /// Makes one of what was written down and its descriptors. `None` if the pieces do not fit together.
    fn restore(&self, snapshot: Snapshot, socket: OwnedFd, file: Option<Arc<File>>) -> Option<Self::Restored>;
    /// These have become ours.
    fn adopt(&self, restored: Vec<Self::Restored>);
    /// So many are its own.
    fn learn(&self, holds: Holds);
    /// Publishes for it, once this process does.
    fn publish(&self, publication: Publication) -> Publishing;
    /// Whether that may wait for others than this process.
    fn publishing_waits(&self) -> bool;
    /// What it has counted, in answer to that question, or as one of its last words.
    fn counted(&self, number: u64, figures: SavedFigures);
    /// Does that for a client that has come from it.
    fn do_for_client(&self, client: u64, what: ForClient) -> Result<(), Undone>;
}

/// What a successor begins with.
pub struct Hello {
    pub predecessor: Predecessor,
    pub inheritance: Inheritance,
    /// Each with its spare socket.
    pub listeners: Vec<(OwnedFd, Option<OwnedFd>)>,
    /// Whether it serves until it says `Go`, and we do not before.
    pub switch: bool,
}

impl Predecessor {
    /// Hears what we inherit. Our stdin is the link; the real one takes its place.
    pub fn receive_hello() -> Result<Hello, String> {
        let stdin = io::stdin();
        let link = rustix::io::fcntl_dupfd_cloexec(&stdin, 3).map_err(|error| format!("no link: {error}"))?;
        let link = Link::of(link).map_err(|error| format!("stdin is no link: {error}"))?;
        let packet = link.receive().map_err(|error| format!("cannot hear the predecessor: {error}"))?;
        let Some(Packet { message, mut descriptors, truncated: false }) = packet else {
            return Err("the predecessor said nothing, or its descriptors did not arrive".into());
        };
        let (inheritance, words) = match message {
            Message::Hello(inheritance) => (inheritance.into(), 1),
            Message::Greeting { words, state } if link::words().contains(&words) => (decode(&state)?, words),
            other => return Err(format!("the predecessor began with what we do not know: {}", other.kind())),
        };
        let real = descriptors.pop().ok_or("the predecessor passed on no stdin")?;
        rustix::stdio::dup2_stdin(&real).map_err(|error| format!("cannot take over stdin: {error}"))?;
        let listeners = with_spares(&inheritance, descriptors);
        let mut switch = false;
        if words >= SWITCHES {
            match link.receive().map_err(|error| format!("cannot hear the predecessor: {error}"))? {
                Some(Packet { message: Message::Order { switch: ordered }, .. }) => switch = ordered,
                Some(Packet { message: other, .. }) => {
                    return Err(format!("the predecessor went on with what we do not know: {}", other.kind()));
                }
                None => return Err("the predecessor ended".into()),
            }
        }
        Ok(Hello { predecessor: Predecessor { link, words }, inheritance, listeners, switch })
    }

    /// Whether it says what it holds.
    pub fn tells(&self) -> bool {
        self.words >= HOLDS
    }

    /// Whether it can be asked what it has counted.
    pub fn counts(&self) -> bool {
        self.words >= FIGURES
    }

    /// Says that we accept, and which of the inherited listeners are ours too: their places, and their addresses as they
    /// were configured there.
    pub fn hears_ready(&self, kept: Vec<(u32, String)>, patience: Duration) -> io::Result<()> {
        let (places, kept) = kept.into_iter().unzip();
        if self.words >= PLACES {
            self.link.send_within(&Message::Kept { places }, &[], patience)?;
        }
        self.link.send_within(&Message::Ready { kept }, &[], patience)
    }

    /// Says why we end before we were ready, so that whoever asked for the reload is told.
    pub fn hears_why(&self, error: &Error) {
        if self.words > 1 {
            // It hears the end of the link in any case.
            let _ = self.link.send(&Message::Failed(error.to_string()), &[]);
        }
    }

    /// Starts to listen.
    pub fn listen(&self, events: Sender<Event>, arrivals: impl Arrivals) -> io::Result<JoinHandle<()>> {
        let link = self.link.clone();
        let run = move || {
            let mut arriving = Arriving(Vec::new());
            if let Err(error) = listen(&link, &events, &arrivals, &mut arriving) {
                log::error!("cannot hear the predecessor: {error}");
            }
            // It ended without taking these back, so nobody else will ever serve them.
            arrivals.adopt(arriving.into_all());
            let _ = events.send(Event::Predecessor(FromPredecessor::Gone));
        };
        thread::Builder::new().name("predecessor".into()).stack_size(STACK).spawn(run)
    }
}

/// The listeners, which come first, each with the spare socket that it names by its place.
fn with_spares(inheritance: &Inheritance, descriptors: Vec<OwnedFd>) -> Vec<(OwnedFd, Option<OwnedFd>)> {
    let mut descriptors: Vec<Option<OwnedFd>> = descriptors.into_iter().map(Some).collect();
    let mut spares = descriptors.split_off(inheritance.listeners.len().min(descriptors.len()));
    let mut take = |place: i32| spares.get_mut(usize::try_from(place).ok()?.checked_sub(descriptors.len())?)?.take();
    let spares: Vec<_> = inheritance.listeners.iter().map(|listener| listener.spare.and_then(&mut take)).collect();
    descriptors.into_iter().flatten().zip(spares).collect()
}

fn listen<A: Arrivals>(
    link: &Link,
    events: &Sender<Event>,
    arrivals: &A,
    arriving: &mut Arriving<A::Restored>,
) -> io::Result<()> {
    let mut files = Files::default();
    while let Some(Packet { message, mut descriptors, truncated }) = link.receive()? {
        let word = match message {
            Message::Connection { id, file, snapshot } => {
                test_point("successor-connection");
                let answer = match restore(arrivals, snapshot, file, &mut descriptors, truncated, &mut files) {
                    Ok(restored) => {
                        arriving.0.push((id, restored));
                        Message::Ack(id)
                    }
                    Err(reason) => {
                        log::warn!("a connection stays with the predecessor: {reason}");
                        Message::Refused(id)
                    }
                };
                reply(link, &answer, arriving, arrivals, Patience::new(PATIENCE));
                test_point("successor-acked");
                continue;
            }
            Message::Connections { first, snapshots } => {
                test_point("successor-connection");
                let all = Snapshots::read(&snapshots.open(&mut descriptors)?)?;
                // In the order in which they are named.
                let mut descriptors = descriptors.into_iter();
                let (mut acks, mut refusals) = (Vec::new(), Vec::new());
                for ((file, snapshot), id) in all.0.into_iter().zip(first..) {
                    let mut own: Vec<OwnedFd> = descriptors.by_ref().take(1 + usize::from(file)).collect();
                    // Where this process may open no more, the kernel passes the first of them, and those go on here.
                    let missing = truncated && own.len() < 1 + usize::from(file);
                    match restore(arrivals, Payload::Inline(snapshot.into_vec()), file, &mut own, missing, &mut files) {
                        Ok(restored) => {
                            arriving.0.push((id, restored));
                            acks.push(id);
                        }
                        Err(reason) => {
                            log::warn!("a connection stays with the predecessor: {reason}");
                            refusals.push(id);
                        }
                    }
                }
                for answer in [Message::Acks(acks), Message::Refusals(refusals)] {
                    if !answer.ids().is_empty() {
                        reply(link, &answer, arriving, arrivals, Patience::new(PATIENCE));
                    }
                }
                test_point("successor-acked");
                continue;
            }
            Message::Commit(id) => {
                test_point("successor-commit");
                arrivals.adopt(arriving.take(id).into_iter().collect());
                continue;
            }
            Message::Commits(ids) => {
                test_point("successor-commit");
                arrivals.adopt(ids.iter().filter_map(|id| arriving.take(*id)).collect());
                continue;
            }
            Message::Holds(holds) => {
                arrivals.learn(holds);
                continue;
            }
            Message::Publish { id, publication } => {
                let publication = Publication::read(&publication.open(&mut descriptors)?)?;
                let publish = arrivals.publish(publication);
                if arrivals.publishing_waits() {
                    publish_beside(link, id, publish);
                    continue;
                }
                let answer = Message::Published { id, outcome: publish() };
                reply(link, &answer, arriving, arrivals, Patience::new(PATIENCE));
                continue;
            }
            Message::ForClient { id, client, what } => {
                let what = ForClient::read(&what.open(&mut descriptors)?)?;
                let answer = Message::ForClientDone { id, outcome: arrivals.do_for_client(client, what) };
                reply(link, &answer, arriving, arrivals, Patience::new(PATIENCE));
                continue;
            }
            Message::Abort(id) => {
                arriving.take(id);
                continue;
            }
            Message::Figures { number, figures } => {
                match decode(&figures.open(&mut descriptors)?) {
                    Ok(figures) => arrivals.counted(number, figures),
                    Err(wrong) => log::error!("the predecessor's figures cannot be read: {wrong}"),
                }
                continue;
            }
            Message::Promote { carried_version, carried } => {
                test_point("successor-promote");
                let bytes = carried.open(&mut descriptors)?;
                FromPredecessor::Promote(carried_version.map(|version| Carried { version, bytes }))
            }
            Message::Hub(log) => FromPredecessor::Hub(log.open(&mut descriptors)?),
            Message::Sessions(sessions) => FromPredecessor::Sessions(sessions.open(&mut descriptors)?),
            Message::Stop { at_once } => FromPredecessor::Stop { at_once },
            Message::Go => {
                test_point("successor-go");
                FromPredecessor::Go
            }
            Message::ListenersClosed => FromPredecessor::ListenersClosed,
            Message::Finished { counters, cut, reload_again } => {
                FromPredecessor::Finished { counters: counters.into(), cut, reload_again }
            }
            other => return Err(io::Error::other(format!("it said what is not its to say: {}", other.kind()))),
        };
        let _ = events.send(Event::Predecessor(word));
    }
    Ok(())
}

/// Publishes on a thread of its own: a bus may take seconds, and what else the predecessor says waits for nobody.
/// There are no more of these than it has threads that publish.
fn publish_beside(link: &Link, id: u64, publish: Publishing) {
    let link = link.clone();
    let run = move || {
        let answer = Message::Published { id, outcome: publish() };
        if let Err(error) = link.send_within(&answer, &[], PATIENCE) {
            log::debug!("the predecessor hears no answer: {error}");
        }
    };
    if let Err(error) = thread::Builder::new().name("publishes".into()).stack_size(STACK).spawn(run) {
        // It hears nothing, and knows that it does not know.
        log::error!("no thread to publish for the predecessor: {error}");
    }
}

/// Says so as soon as there is room. If the predecessor reads nothing for long, what it knows to be acknowledged is run
/// without its word: it takes nothing of that back while this process lives, and says COMMIT to nobody when it wakes.
fn reply<A: Arrivals>(
    link: &Link,
    answer: &Message,
    arriving: &mut Arriving<A::Restored>,
    arrivals: &A,
    mut patience: Patience,
) {
    loop {
        match link.send(answer, &[]) {
            Ok(Sent::Yes) => return,
            Ok(Sent::Later) => {}
            // It is gone, and there is more to hear of what it has said.
            Err(error) => return log::debug!("the predecessor hears no answer: {error}"),
        }
        if patience.is_over() {
            let unanswered = answer.ids().iter().filter_map(|id| Some((*id, arriving.take(*id)?)));
            let unanswered: Vec<_> = unanswered.collect();
            arrivals.adopt(Arriving(std::mem::take(&mut arriving.0)).into_all());
            arriving.0.extend(unanswered);
            patience.renew();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn restore<A: Arrivals>(
    arrivals: &A,
    snapshot: Payload,
    file: bool,
    descriptors: &mut Vec<OwnedFd>,
    truncated: bool,
    files: &mut Files,
) -> Result<A::Restored, String> {
    if truncated {
        return Err("too many open files".into());
    }
    let bytes = snapshot.open(descriptors).map_err(|error| format!("cannot read its state: {error}"))?;
    let snapshot: Snapshot = decode(&bytes)?;
    let file = if file { Some(descriptors.pop().ok_or("its file did not arrive")?) } else { None };
    let file = file.map(|file| files.share(file));
    let socket = descriptors.pop().ok_or("its socket did not arrive")?;
    arrivals.restore(snapshot, socket, file).ok_or_else(|| "its state does not fit together".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::link::payload;
    use std::sync::mpsc;

    struct Ports(mpsc::SyncSender<u16>);

    impl Arrivals for Ports {
        type Restored = u16;

        fn restore(&self, snapshot: Snapshot, _: OwnedFd, _: Option<Arc<File>>) -> Option<u16> {
            snapshot.peer.map(|peer| peer.port())
        }

        fn adopt(&self, restored: Vec<u16>) {
            restored.into_iter().for_each(|port| _ = self.0.send(port));
        }

        fn learn(&self, _: Holds) {}

        fn publish(&self, _: Publication) -> Publishing {
            let adopt = self.0.clone();
            Box::new(move || {
                // Its channel is full until somebody looks, as a bus is that stands still.
                let _ = adopt.send(1);
                Err("nothing is published here".into())
            })
        }

        fn publishing_waits(&self) -> bool {
            true
        }

        fn do_for_client(&self, _: u64, _: ForClient) -> Result<(), Undone> {
            Err(Undone::Absent)
        }

        fn counted(&self, _: u64, _: SavedFigures) {}
    }

    /// A predecessor that is stopped and lives: once the link was given up, and it killed us when it woke.
    #[test]
    fn a_predecessor_that_reads_nothing_keeps_nobody_waiting_and_is_not_given_up() {
        let (theirs, ours) = Link::pair().expect("a pair");
        let ours = Link::of(ours).expect("a link");
        let mut acked = 0;
        while ours.send(&Message::Ack(acked), &[]).expect("an open link") == Sent::Yes {
            acked += 1;
        }
        let (sender, adopted) = mpsc::sync_channel(3);
        let answer = thread::spawn(move || {
            let mut arriving = Arriving(vec![(1, 11), (2, 12), (3, 13)]);
            let patience = Patience::new(Duration::from_millis(50));
            reply(&ours, &Message::Ack(3), &mut arriving, &Ports(sender), patience);
            assert_eq!(arriving.0.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [3]);
        });
        // Those that it knows to be acknowledged run; this one is not ours before it knows.
        assert_eq!((adopted.recv(), adopted.recv()), (Ok(11), Ok(12)));
        for _ in 0..acked {
            assert!(matches!(theirs.receive(), Ok(Some(Packet { message: Message::Ack(_), .. }))));
        }
        assert!(matches!(theirs.receive(), Ok(Some(Packet { message: Message::Ack(3), .. }))));
        answer.join().expect("its assertions");
        assert!(adopted.recv().is_err());
    }

    #[test]
    fn what_a_bus_does_not_publish_yet_keeps_nothing_waiting_that_is_said_behind_it() {
        let (theirs, ours) = Link::pair().expect("a pair");
        let ours = Link::of(ours).expect("a link");
        let (sender, stands_still) = mpsc::sync_channel(0);
        let (events, heard) = crossbeam_channel::unbounded();
        let listens = thread::spawn(move || listen(&ours, &events, &Ports(sender), &mut Arriving(Vec::new())).is_ok());
        let nothing = Publication { messages: Vec::new(), key: None };
        let (publication, _) = payload(nothing.written().expect("its bytes")).expect("it is small");
        theirs.send(&Message::Publish { id: 7, publication }, &[]).expect("room");
        theirs.send(&Message::ListenersClosed, &[]).expect("room");
        let next = heard.recv_timeout(Duration::from_secs(20));
        assert!(matches!(next, Ok(Event::Predecessor(FromPredecessor::ListenersClosed))));
        assert_eq!(stands_still.recv(), Ok(1));
        let answer = theirs.receive();
        assert!(matches!(answer, Ok(Some(Packet { message: Message::Published { id: 7, outcome: Err(_) }, .. }))));
        drop(theirs);
        listens.join().expect("its end");
    }
}
