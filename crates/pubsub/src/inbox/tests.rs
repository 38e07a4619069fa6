use super::*;
use crate::{HubLimits, Limits, Retention};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

fn hub() -> Hub {
    let hub = Hub::new(7, HubLimits { log: Limits::default(), subscribers: 2 });
    hub.add_namespace(&"n".into(), Retention::default());
    hub.open();
    hub
}

fn inbox(hub: &Hub) -> Arc<Inbox> {
    Inbox::new(hub, 1).expect("room")
}

fn topic(name: &str) -> Topic {
    Topic::new("n", name).expect("a topic")
}

fn publish(hub: &Hub, name: &str, text: &str) {
    hub.publish(&topic(name), crate::Message::new(text), 0, None).expect("open");
}

fn text(text: &str) -> Message {
    Message::Text(text.to_owned())
}

/// The texts of all frames that are there.
fn heard(inbox: &Inbox) -> Vec<String> {
    let (mut joined, mut all) = (Joined::default(), Vec::new());
    loop {
        let (pulled, _) = inbox.pull(&mut joined);
        let mut rest = joined.bytes();
        while let [0x81, length, behind @ ..] = rest {
            let (text, behind) = behind.split_at(usize::from(*length));
            all.push(String::from_utf8_lossy(text).into_owned());
            rest = behind;
        }
        assert!(rest.is_empty() && !pulled.gap, "{rest:?}");
        if !pulled.more {
            return all;
        }
    }
}

#[test]
fn messages_come_in_order_and_are_so_many() {
    let hub = hub();
    let inbox = inbox(&hub);
    assert_eq!(hub.subscribers(), 1);
    (0..64).for_each(|number| inbox.send(text(&number.to_string())).expect("room"));
    assert_eq!(inbox.send(text("x")), Err(SendError::Full));
    assert!((0..64).all(|number| inbox.take() == Some(text(&number.to_string()))) && inbox.take().is_none());
    // The first may have any size.
    inbox.send(Message::Binary(vec![0; BYTES + 1])).expect("room");
    assert_eq!(inbox.send(text("")), Err(SendError::Full));
    drop(inbox);
    assert_eq!(hub.subscribers(), 0);
}

#[test]
fn a_client_that_has_gone_keeps_no_place_whoever_still_has_its_inbox() {
    let hub = hub();
    let inbox = inbox(&hub);
    let kept = inbox.clone();
    inbox.end();
    assert_eq!((hub.subscribers(), kept.send(text("x"))), (0, Err(SendError::Closed)));
    inbox.end();
    drop((inbox, kept));
    assert_eq!(hub.subscribers(), 0, "it is counted out once");
}

#[test]
fn nothing_is_put_behind_the_end() {
    let hub = hub();
    let inbox = inbox(&hub);
    inbox.send(text("x")).expect("room");
    inbox.wake_at(Some(5)).expect("open");
    inbox.shut();
    assert_eq!((inbox.send(text("y")), inbox.wake_at(Some(7))), (Err(SendError::Closed), Err(SendError::Closed)));
    assert_eq!((inbox.take(), inbox.wake_time(), hub.subscribers()), (None, None, 1), "it is still connected");
}

#[test]
fn who_sends_has_the_connection_look_once() {
    let hub = hub();
    let wakes = Arc::new(AtomicUsize::new(0));
    let counted = wakes.clone();
    hub.wakes(move || _ = counted.fetch_add(1, Ordering::Relaxed));
    let inbox = inbox(&hub);
    inbox.send(text("before it has one")).expect("room");
    assert!(inbox.enter(5) && inbox.take().is_some() && !inbox.contents().has_something());
    (0..3).for_each(|_| inbox.send(text("x")).expect("room"));
    let mut news = Vec::new();
    hub.take_news(|token| news.push(token));
    assert_eq!((news, wakes.load(Ordering::Relaxed)), (vec![5], 1));
    inbox.close(4000, "bye").expect("open");
    assert_eq!((inbox.close(4001, ""), inbox.send(text("x"))), (Err(SendError::Closed), Err(SendError::Closed)));
    assert_eq!(inbox.close_asked(), None, "what waits comes first");
    while inbox.take().is_some() {}
    assert_eq!(inbox.close_asked(), Some((4000, "bye".to_owned())));
}

/// Each answer of an application woke the acceptor for a connection that was in a worker's hands.
#[test]
fn who_answers_a_client_that_is_attended_to_wakes_nobody() {
    let hub = hub();
    let inbox = inbox(&hub);
    inbox.enter(5);
    let called = || {
        let mut news = Vec::new();
        hub.take_news(|token| news.push(token));
        news
    };
    let answered = inbox.attended(|| {
        inbox.wake_at(Some(9)).expect("open");
        inbox.send(text("x"))
    });
    assert_eq!((answered, called()), (Ok(()), vec![]));
    assert_eq!((inbox.take(), inbox.wake_time()), (Some(text("x")), Some(9)));
    inbox.attended(|| inbox.subscribe(&topic("a"))).expect("open");
    assert_eq!(called(), [5], "something may have been published meanwhile");
    inbox.send(text("y")).expect("room");
    assert_eq!(called(), [5]);
}

#[test]
fn a_topic_is_heard_from_the_moment_on_at_which_it_was_asked_for() {
    let hub = hub();
    let inbox = inbox(&hub);
    publish(&hub, "a", "before");
    inbox.subscribe(&topic("a")).expect("room");
    inbox.enter(1);
    for number in 0..3 {
        publish(&hub, "a", &format!("a{number}"));
        publish(&hub, "b", &format!("b{number}"));
    }
    // Its cursor stands before these.
    inbox.subscribe(&topic("b")).expect("room");
    inbox.subscribe(&topic("b")).expect("it is the same");
    publish(&hub, "b", "b3");
    publish(&hub, "a", "a3");
    let saved = inbox.save();
    assert_eq!(heard(&inbox), ["a0", "a1", "a2", "b3", "a3"]);
    publish(&hub, "b", "b4");
    inbox.unsubscribe(&topic("b")).expect("open");
    publish(&hub, "b", "b5");
    publish(&hub, "a", "a4");
    assert_eq!(heard(&inbox), ["a4"]);
    inbox.unsubscribe(&topic("a")).expect("open");
    publish(&hub, "a", "a5");
    assert!(heard(&inbox).is_empty() && hub.listeners(&topic("a")) == 0);
    // As it was written down.
    drop(inbox);
    let moved = Inbox::restore(&hub, saved.clone());
    assert_eq!(moved.save(), saved);
    assert!(moved.enter(2) && hub.subscribers() == 1);
    assert_eq!(heard(&moved), ["a0", "a1", "a2", "b3", "a3", "b4", "b5", "a4", "a5"]);
}

#[test]
fn a_topic_that_has_dropped_messages_before_is_no_gap() {
    let hub = Hub::new(7, HubLimits { log: Limits { memory: 2000, ..Limits::default() }, subscribers: 2 });
    hub.add_namespace(&"n".into(), Retention::default());
    hub.open();
    let inbox = inbox(&hub);
    inbox.subscribe(&topic("a")).expect("room");
    (0..50).for_each(|_| publish(&hub, "b", "x"));
    inbox.subscribe(&topic("b")).expect("room");
    publish(&hub, "b", "y");
    assert_eq!(heard(&inbox), ["y"]);
    (0..50).for_each(|_| publish(&hub, "b", "z"));
    assert!(inbox.pull(&mut Joined::default()).0.gap);
}

#[test]
fn who_sends_while_it_is_written_down_waits() {
    let hub = hub();
    let inbox = inbox(&hub);
    hub.freeze();
    let saved = inbox.save();
    let other = inbox.clone();
    let sends = thread::spawn(move || other.send(text("x")));
    hub.hand_over();
    assert_eq!(sends.join().expect("no panic"), Err(SendError::HandedOver));
    assert_eq!(inbox.save(), saved);
    hub.open();
    inbox.send(text("y")).expect("open again");
    inbox.wake_at(Some(10)).expect("open");
    assert!(!inbox.take_wake(9) && inbox.take_wake(10) && !inbox.take_wake(11));
    inbox.end();
    assert_eq!((inbox.send(text("z")), inbox.held() < 500), (Err(SendError::Closed), true));
}

#[test]
fn a_client_listens_to_so_many_topics() {
    let hub = hub();
    let inbox = inbox(&hub);
    (0..TOPICS).for_each(|number| inbox.subscribe(&topic(&number.to_string())).expect("room"));
    assert_eq!(inbox.subscribe(&topic("one more")), Err(SendError::Topics));
}
