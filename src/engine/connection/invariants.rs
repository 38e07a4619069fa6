//! What holds for any snapshot that a connection is to go on with.

use super::Connection;
use super::exchange::Exchange;
use crate::api::Sessions;
use crate::clock::Millis;
use crate::lifecycle::invariants as lifecycle;
use crate::lifecycle::state::{SavedSide, SavedState, SavedTopics, Snapshot, encode, versions};
use pubsub::{Hub, HubLimits, Limits, Retention};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Whatever a successor is given: see [`lifecycle::state`].
pub fn state(bytes: &[u8]) {
    lifecycle::state(bytes, restored);
}

/// A connection that could be restored is written down as it was.
fn restored(snapshot: Snapshot) {
    let version = *versions().end();
    let hub = Hub::new(1, HubLimits { log: Limits::default(), subscribers: 0 });
    let mut expected = snapshot.clone();
    if let SavedState::Subscribed(subscriber) = &mut expected.state {
        hub.add_namespace(&subscriber.namespace.as_str().into(), Retention::default());
        subscriber.topics.sort_unstable();
        subscriber.topics.dedup();
    }
    if let SavedState::Conversing(one) = &mut expected.state {
        match &mut one.side {
            SavedSide::Listener { subscription, .. } => {
                hub.add_namespace(&subscription.namespace.as_str().into(), Retention::default());
                subscription.topics.sort_unstable();
                subscription.topics.dedup();
                // What is known of other topics than these is not.
                let SavedTopics { topics, recent, .. } = subscription;
                recent.retain(|(topic, _)| topics.contains(topic));
            }
            // Nobody here has that conversation, so it ends.
            SavedSide::Talker(_) => {}
        }
        if one.close_received {
            one.close_sent = false;
        }
    }
    let line = match &mut expected.state {
        SavedState::Writing { line, .. } => Some(line),
        SavedState::Subscribed(one) => Some(&mut one.line),
        SavedState::Conversing(one) => Some(&mut one.line),
        SavedState::Attached(one) => Some(&mut one.line),
        _ => None,
    };
    if let Some(line) = line {
        // What a request log wants is written in one way alone.
        let (exchange, answer) = Exchange::of_moved_line(Millis::default(), std::mem::take(line));
        *line = exchange.moved_line(answer);
    }
    let written = encode(expected.clone(), version);
    let null = || OwnedFd::from(File::open("/dev/null").expect("/dev/null"));
    if let Ok(restored) =
        Connection::restore(snapshot, null(), Some(&Arc::new(null().into())), (Some(&hub), &Sessions::default()))
    {
        let again = restored.connection.snapshot(restored.deadline, version);
        let (again, _) = again.expect("nothing in it is the application's");
        // One whose topics are none ends.
        if restored.connection.is_subscribed()
            || !matches!(
                expected.state,
                SavedState::Subscribed(_) | SavedState::Conversing(_) | SavedState::Attached(_)
            )
        {
            assert_eq!(encode(again, version), written);
        }
    }
}
