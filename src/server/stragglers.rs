//! What is published in a process that is the server no longer: asked of its successor, and waited for.

use crate::lifecycle::link::{Link, Message as Word, Publication, PublishedAt, PublishedMessage, payload};
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use pubsub::{Hub, Key, Message, Position, PublishError, Published, Topic};
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the successor may take to read, and to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Publications on their way to a successor. Cheap to clone.
#[derive(Clone, Default)]
pub struct Stragglers(Arc<Mutex<Pending>>);

#[derive(Default)]
struct Pending {
    next: u64,
    waiting: HashMap<u64, Sender<Outcome>>,
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
    use crate::lifecycle::link::Packet;
    use pubsub::{HubLimits, Limits};

    fn hub() -> Hub {
        let hub = Hub::new(7, HubLimits { log: Limits::default(), subscribers: 1 });
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
}
