//! What holds for any bytes that are read as a log that was written down: the fuzz target calls this with what a fuzzer makes
//! up, the tests with mutations.

use crate::{Begin, Form, Hub, HubLimits, Joined, Limits, Message, Position, Retention, Start, Subscription, Topic};

/// One that is read is written as what is read again as the same, and goes on: messages are published and heard.
///
/// # Panics
/// Where that does not hold.
pub fn written(bytes: &[u8]) {
    let Some(hub) = read(bytes) else { return };
    let written = hub.write_down(0);
    let again = read(&written).expect("what was written");
    assert_eq!(again.write_down(0).len(), written.len());
    assert_eq!(again.position(), hub.position());
    let topic = Topic::new("n", "a").expect("a topic");
    let begin = Begin::From(Position { epoch: 1, offset: 3 });
    for begin in [begin, Begin::Unknown, Begin::At(Start::Oldest), Begin::At(Start::Last)] {
        let mut one = Subscription::new(&again, vec![topic.clone()], begin, Form::default()).expect("room");
        let mut joined = Joined::default();
        while one.pull(&mut joined).more {}
        if again.position().offset < u64::MAX - 9 {
            again.open();
            let published = again.publish(&topic, Message::new("x"), 0, None).expect("it is open");
            one.pull(&mut joined);
            assert_eq!(joined.ends().last().map(|end| end.cursor), Some(published.position.offset));
        }
    }
}

fn read(bytes: &[u8]) -> Option<Hub> {
    let limits = HubLimits { log: Limits { memory: 1 << 20, ..Limits::default() }, subscribers: 9 };
    let hub = Hub::new(1, limits);
    hub.add_namespace(&"n".into(), Retention { history: 1000, age: i64::MAX, retain: true });
    hub.read_from(bytes, 0, 0).ok().map(|_| hub)
}

/// A log with something of everything, to begin with.
///
/// # Panics
/// Never.
pub fn sample() -> Vec<u8> {
    let hub =
        read(&Hub::new(1, HubLimits { log: Limits::default(), subscribers: 0 }).write_down(0)).expect("it is empty");
    hub.open();
    for number in 0..9 {
        let topic = Topic::new("n", ["a", "b", "c"][number % 3]).expect("a topic");
        let message = Message::new(number.to_string()).with_event("e").expect("a name");
        let key = number.to_string();
        hub.publish(&topic, message, 0, Some(crate::Key { principal: "", key: &key })).expect("it is open");
    }
    hub.begin_epoch_behind_a_hole(2);
    hub.write_down(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_goes_on_whatever_a_byte_became() {
        let sample = sample();
        written(&sample);
        for at in 0..sample.len() {
            for byte in [0, 1, 2, 0x7f, 0x80, 0xff] {
                let mut changed = sample.clone();
                changed[at] = byte;
                written(&changed);
            }
        }
    }
}
