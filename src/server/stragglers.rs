//! What is published, and done for clients that have moved, in a process that is the server no longer: asked of its
//! successor, and waited for.

use crate::api::Conversations;
use crate::lifecycle::link::{
    ForClient as Errand, Link, Message as Word, Publication, PublishedAt, PublishedMessage, Undone, payload,
};
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use pubsub::{ForClient, Hub, Key, Message, Position, PublishError, Published, SendError, Topic};
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the successor may take to read, and to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often is asked again for a client that is on its way.
const MOVES: Duration = Duration::from_millis(2);

/// Publications, and what is for clients, on their way to a successor. Cheap to clone.
#[derive(Clone, Default)]
pub struct Stragglers(Arc<Mutex<Pending>>);

#[derive(Default)]
struct Pending {
    next: u64,
    waiting: HashMap<u64, Sender<Outcome>>,
    /// The same, for clients.
    for_clients: HashMap<u64, Sender<Result<(), Undone>>>,
    /// Whether nobody answers any more.
    over: bool,
}

type Outcome = Result<PublishedAt, String>;

impl Stragglers {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is published from here on goes over that link.
    pub fn begin(&self, hub: &Hub, link: Link) {
        let own = self.clone();
        hub.hand_over_to(move |messages, key| own.publish(&link, &messages, key));
    }

    /// The successor has answered.
    pub fn answered(&self, id: u64, outcome: Outcome) {
        if let Some(waits) = self.pending().waiting.remove(&id) {
            // Who has waited for too long is gone.
            let _ = waits.send(outcome);
        }
    }

    /// It answers no more.
    pub fn end(&self) {
        let mut pending = self.pending();
        pending.over = true;
        pending.waiting.clear();
        pending.for_clients.clear();
    }

    /// What is done for clients from here on goes over that link, where they have moved.
    pub fn begin_for_clients(&self, hub: &Hub, conversations: Arc<Conversations>, link: Link) {
        let own = self.clone();
        hub.hand_clients_over_to(move |client, what| {
            let (errand, began) = (written(what), Instant::now());
            loop {
                // Before it is asked: who has moved by then is there, or is nowhere.
                let on_its_way = conversations.has(client);
                return match own.ask(&link, client, &errand)? {
                    Ok(()) => Ok(()),
                    Err(Undone::Absent) if on_its_way && began.elapsed() < PATIENCE => {
                        thread::sleep(MOVES);
                        continue;
                    }
                    Err(Undone::Absent) if on_its_way => Err(SendError::HandedOver),
                    Err(Undone::Absent | Undone::Closed) => Err(SendError::Closed),
                    Err(Undone::Full) => Err(SendError::Full),
                    Err(Undone::Topics) => Err(SendError::Topics),
                    Err(Undone::NotText) => Err(SendError::NotText),
                };
            }
        });
    }

    /// The successor has answered.
    pub fn done_for_client(&self, id: u64, outcome: Result<(), Undone>) {
        if let Some(waits) = self.pending().for_clients.remove(&id) {
            // Who has waited for too long is gone.
            let _ = waits.send(outcome);
        }
    }

    /// Asks once.
    fn ask(&self, link: &Link, client: u64, errand: &Errand) -> Result<Result<(), Undone>, SendError> {
        let (sender, answer) = bounded(1);
        let id = {
            let mut pending = self.pending();
            if pending.over {
                return Err(SendError::HandedOver);
            }
            pending.next += 1;
            let id = pending.next;
            pending.for_clients.insert(id, sender);
            id
        };
        let sent = send_for_client(link, id, client, errand);
        let outcome = sent.map(|()| answer.recv_timeout(PATIENCE));
        self.pending().for_clients.remove(&id);
        match outcome {
            // Nothing has left.
            Err(_) => Err(SendError::HandedOver),
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => Err(SendError::Unknown),
        }
    }

    fn publish(
        &self,
        link: &Link,
        messages: &[(Topic, Message)],
        key: Option<Key<'_>>,
    ) -> Result<Published, PublishError> {
        let (sender, answer) = bounded(1);
        let id = {
            let mut pending = self.pending();
            if pending.over {
                return Err(PublishError::HandedOver);
            }
            pending.next += 1;
            let id = pending.next;
            pending.waiting.insert(id, sender);
            id
        };
        let sent = send(link, id, messages, key);
        let outcome = sent.map(|()| answer.recv_timeout(PATIENCE));
        self.pending().waiting.remove(&id);
        match outcome {
            // Nothing has left.
            Err(_) => Err(PublishError::HandedOver),
            Ok(Ok(Ok(PublishedAt { epoch, offset, subscribers, repeated }))) => {
                let subscribers = usize::try_from(subscribers).unwrap_or(usize::MAX);
                Ok(Published { position: Position { epoch, offset }, subscribers, repeated })
            }
            Ok(Ok(Err(why))) => {
                // A bus may have it, or have refused it.
                let known = [PublishError::Unanswered, PublishError::Unavailable, PublishError::KeyReused];
                if let Some(error) = known.into_iter().find(|known| known.to_string() == why) {
                    return Err(error);
                }
                log::warn!("the successor did not publish for us: {why}");
                Err(PublishError::HandedOver)
            }
            Ok(Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => Err(PublishError::Unknown),
        }
    }
}

fn send(link: &Link, id: u64, messages: &[(Topic, Message)], key: Option<Key<'_>>) -> std::io::Result<()> {
    let messages = messages.iter().map(|(topic, message)| PublishedMessage {
        namespace: topic.namespace().to_owned(),
        topic: topic.name().to_owned(),
        event: message.event().map(str::to_owned),
        data: message.data().to_vec(),
    });
    let key = key.map(|Key { principal, key }| (principal.to_owned(), key.to_owned()));
    let publication = Publication { messages: messages.collect(), key };
    let (publication, memfd) = payload(publication.written()?)?;
    let descriptors: Vec<_> = memfd.iter().map(AsFd::as_fd).collect();
    link.send_within(&Word::Publish { id, publication }, &descriptors, PATIENCE)
}

fn written(what: ForClient) -> Errand {
    let names = |topic: &Topic| (topic.namespace().to_owned(), topic.name().to_owned());
    match what {
        ForClient::Send(websocket::Message::Text(text)) => Errand::Text(text),
        ForClient::Send(websocket::Message::Binary(bytes)) => Errand::Binary(bytes),
        ForClient::Close(code, reason) => Errand::Close { code, reason },
        ForClient::Wake(when) => Errand::Wake(when),
        ForClient::Subscribe(topic) => {
            let (namespace, topic) = names(&topic);
            Errand::Subscribe { namespace, topic }
        }
        ForClient::Unsubscribe(topic) => {
            let (namespace, topic) = names(&topic);
            Errand::Unsubscribe { namespace, topic }
        }
    }
}

fn send_for_client(link: &Link, id: u64, client: u64, errand: &Errand) -> std::io::Result<()> {
    let (what, memfd) = payload(errand.written()?)?;
    let descriptors: Vec<_> = memfd.iter().map(AsFd::as_fd).collect();
    link.send_within(&Word::ForClient { id, client, what }, &descriptors, PATIENCE)
}

/// Does that for a client, for a predecessor.
pub fn do_for_client(conversations: &Conversations, client: u64, errand: Errand) -> Result<(), Undone> {
    let talker = conversations.client(client).ok_or(Undone::Absent)?;
    // It was a topic there.
    let topic = |namespace: String, topic: String| Topic::new(namespace, &topic).map_err(|_| Undone::Closed);
    let what = match errand {
        Errand::Text(text) => ForClient::Send(websocket::Message::Text(text)),
        Errand::Binary(bytes) => ForClient::Send(websocket::Message::Binary(bytes)),
        Errand::Close { code, reason } => ForClient::Close(code, reason),
        Errand::Wake(when) => ForClient::Wake(when),
        Errand::Subscribe { namespace, topic: name } => ForClient::Subscribe(topic(namespace, name)?),
        Errand::Unsubscribe { namespace, topic: name } => ForClient::Unsubscribe(topic(namespace, name)?),
    };
    talker.inbox.act(what).map_err(|error| match error {
        SendError::Full => Undone::Full,
        SendError::NotText => Undone::NotText,
        SendError::Topics => Undone::Topics,
        // This process has none of its own that it could ask: while it has a predecessor it is not reloaded.
        _ => Undone::Closed,
    })
}

/// Publishes for a predecessor.
pub fn publish_for(hub: &Hub, publication: Publication, now: i64) -> Outcome {
    let Publication { messages, key } = publication;
    let messages = messages.into_iter().map(|PublishedMessage { namespace, topic, event, data }| {
        let topic = Topic::new(namespace, &topic).map_err(|wrong| wrong.to_string())?;
        let message = Message::new(data);
        let message = match event {
            None => message,
            Some(event) => message.with_event(&event).map_err(|wrong| wrong.to_string())?,
        };
        Ok((topic, message))
    });
    let messages = messages.collect::<Result<_, String>>()?;
    let key = key.as_ref().map(|(principal, key)| Key { principal, key });
    let published = hub.publish_all(messages, now, key).map_err(|error| error.to_string())?;
    let Published { position: Position { epoch, offset }, subscribers, repeated } = published;
    Ok(PublishedAt { epoch, offset, subscribers: subscribers as u64, repeated })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Closed, Talk, Talker};
    use crate::lifecycle::link::Packet;
    use crate::lifecycle::state::Carried;
    use pubsub::{HubLimits, Inbox, Limits};
    use std::sync::mpsc::channel;

    fn hub() -> Hub {
        let hub = Hub::new(7, HubLimits { log: Limits::default(), subscribers: 2 });
        hub.open();
        hub
    }

    #[test]
    fn who_publishes_late_publishes_in_the_successor() {
        let (ours, theirs) = Link::pair().expect("a pair");
        let (theirs, stragglers) = (Link::of(theirs).expect("a link"), Stragglers::default());
        let (old, new) = (hub(), hub());
        stragglers.begin(&old, ours.clone());
        let successor = {
            let new = new.clone();
            std::thread::spawn(move || {
                let Ok(Some(Packet { message: Word::Publish { id, publication }, mut descriptors, .. })) =
                    theirs.receive()
                else {
                    panic!("a publication");
                };
                let bytes = publication.open(&mut descriptors).expect("its bytes");
                let outcome = publish_for(&new, Publication::read(&bytes).expect("what was written"), 0);
                theirs.send(&Word::Published { id, outcome }, &[]).expect("room");
                theirs
            })
        };
        let answers = {
            let stragglers = stragglers.clone();
            std::thread::spawn(move || {
                while let Ok(Some(Packet { message: Word::Published { id, outcome }, .. })) = ours.receive() {
                    stragglers.answered(id, outcome);
                }
                stragglers.end();
            })
        };
        let topic = Topic::new("n", "t").expect("a topic");
        let large = Message::new(vec![b'x'; 60_000]).with_event("e").expect("a name");
        let published = old.publish(&topic, large, 0, None).expect("the successor does it");
        assert_eq!((published.position, new.position()), (new.position(), Position { epoch: 7, offset: 1 }));
        assert_eq!(old.position().offset, 0);
        drop(successor.join().expect("its answer"));
        answers.join().expect("its end");
        assert_eq!(old.publish(&topic, Message::new("x"), 0, None), Err(PublishError::HandedOver));
    }

    /// Who hears that nothing has happened publishes it again.
    #[test]
    fn what_the_bus_of_the_successor_may_have_is_not_said_to_be_nowhere() {
        let (ours, theirs) = Link::pair().expect("a pair");
        let (theirs, stragglers) = (Link::of(theirs).expect("a link"), Stragglers::default());
        let old = hub();
        stragglers.begin(&old, ours.clone());
        for error in [PublishError::Unanswered, PublishError::Unavailable] {
            let (answering, link) = (stragglers.clone(), theirs.clone());
            let successor = std::thread::spawn(move || {
                let Ok(Some(Packet { message: Word::Publish { id, .. }, .. })) = link.receive() else {
                    panic!("a publication");
                };
                answering.answered(id, Err(error.to_string()));
            });
            let topic = Topic::new("n", "t").expect("a topic");
            assert_eq!(old.publish(&topic, Message::new("x"), 0, None), Err(error));
            successor.join().expect("its end");
        }
    }

    struct Silent;

    impl Talk for Silent {
        fn message(&mut self, _: &websocket::Message) {}

        fn wake(&mut self) {}

        fn close(self: Box<Self>, _: &Closed) {}

        fn save(&self) -> Carried {
            Carried { version: 1, bytes: Vec::new() }
        }

        fn go_on(self: Box<Self>, _: &Arc<Inbox>) -> Option<Box<dyn Talk>> {
            Some(self)
        }
    }

    /// A process with a client of that number.
    fn with_client(id: u64) -> (Hub, Arc<Conversations>, Arc<Talker>) {
        let (hub, all) = (hub(), Arc::new(Conversations::default()));
        let inbox = Inbox::new(&hub, id).expect("room");
        let talker = Talker::new(&all, "silent".into(), inbox, Box::new(Silent));
        (hub, all, talker)
    }

    /// It was told that another process had the client, and nothing was done.
    #[test]
    fn what_is_done_late_for_a_client_is_done_in_the_successor() {
        let (ours, theirs) = Link::pair().expect("a pair");
        let (theirs, stragglers) = (Link::of(theirs).expect("a link"), Stragglers::default());
        let ((old, here, moves), (_new, there, moved)) = (with_client(5), with_client(5));
        let inbox = moves.inbox.clone();
        stragglers.begin_for_clients(&old, here.clone(), ours.clone());
        stragglers.begin(&old, ours.clone());
        let (came, has_come) = channel();
        let successor = {
            let there = there.clone();
            thread::spawn(move || {
                let mut asked = 0;
                while let Ok(Some(Packet { message, mut descriptors, .. })) = theirs.receive() {
                    let Word::ForClient { id, client, what } = message else { panic!("for a client") };
                    let errand = Errand::read(&what.open(&mut descriptors).expect("its bytes")).expect("an errand");
                    // It has come when it is asked for the third time.
                    asked += 1;
                    let outcome = if asked < 3 { Err(Undone::Absent) } else { do_for_client(&there, client, errand) };
                    if asked == 3 {
                        came.send(()).expect("somebody waits");
                    }
                    if client == 6 {
                        return;
                    }
                    theirs.send(&Word::ForClientDone { id, outcome }, &[]).expect("room");
                }
            })
        };
        let answers = {
            let stragglers = stragglers.clone();
            thread::spawn(move || {
                while let Ok(Some(Packet { message: Word::ForClientDone { id, outcome }, .. })) = ours.receive() {
                    stragglers.done_for_client(id, outcome);
                }
                stragglers.end();
            })
        };
        let large = websocket::Message::Text("x".repeat(60_000));
        assert_eq!(inbox.send(large.clone()), Ok(()), "it was on its way");
        has_come.recv().expect("it was asked for");
        here.has_ended(moves, None);
        here.tell_of_ended();
        let topic = Topic::new("n", "t").expect("a topic");
        assert_eq!(inbox.send(websocket::Message::Binary(vec![7; 9000])), Err(SendError::Full));
        assert_eq!(moved.inbox.take(), Some(large));
        assert_eq!((inbox.subscribe(&topic), inbox.wake_at(Some(8))), (Ok(()), Ok(())));
        let saved = moved.inbox.save();
        assert_eq!((saved.wake, saved.subscription.map(|one| one.topics.len())), (Some(8), Some(1)));
        assert_eq!((inbox.unsubscribe(&topic), inbox.close(4000, "bye")), (Ok(()), Ok(())));
        assert_eq!(moved.inbox.close_asked(), Some((4000, "bye".to_owned())));
        assert_eq!(inbox.send(websocket::Message::Text("late".into())), Err(SendError::Closed));
        drop(moved);
        assert_eq!(inbox.wake_at(None), Err(SendError::Closed), "it has gone");
        // The successor ends before it has said what became of that, and then there is none.
        let other = Inbox::new(&old, 6).expect("room");
        assert_eq!(other.close(1000, ""), Err(SendError::Unknown));
        successor.join().expect("its answers");
        answers.join().expect("its end");
        assert_eq!(inbox.close(1000, ""), Err(SendError::HandedOver));
        old.open();
        assert_eq!(inbox.close(1000, ""), Err(SendError::Closed), "it is the server again, and the client has gone");
    }
}
