use super::*;
use crate::{HubLimits, Limits, Message, Retention};

fn hub(memory: usize) -> Hub {
    let hub = Hub::new(7, HubLimits { log: Limits { memory, ..Limits::default() }, subscribers: 10 });
    hub.add_namespace(&"n".into(), Retention::default());
    hub.open();
    hub
}

fn topic(name: &str) -> Topic {
    Topic::new("n", name).expect("a topic")
}

fn publish(hub: &Hub, name: &str, text: &str) {
    hub.publish(&topic(name), Message::new(text), 0, None).expect("open");
}

fn subscribe(hub: &Hub, names: &[&str], begin: Begin, form: Form) -> Subscription {
    Subscription::new(hub, names.iter().map(|name| topic(name)).collect(), begin, form).expect("room")
}

fn pull(one: &mut Subscription) -> String {
    let mut joined = Joined::default();
    one.pull(&mut joined);
    text(&joined)
}

fn text(joined: &Joined) -> String {
    String::from_utf8(joined.bytes().to_vec()).expect("text")
}

#[test]
fn a_stream_begins_with_its_position_and_goes_on_with_each_message() {
    let hub = hub(1 << 20);
    publish(&hub, "a", "before");
    let mut one = subscribe(&hub, &["a"], Begin::At(Start::Now), Form::default());
    assert!(one.save().is_none(), "nothing was said");
    assert_eq!(pull(&mut one), "retry: 2000\nid: 7-1\n\n");
    assert!(!one.is_behind());
    publish(&hub, "b", "for others");
    publish(&hub, "a", "x\ny");
    assert!(one.is_behind());
    assert_eq!(pull(&mut one), "id: 7-3\ndata: x\ndata: y\n\n");
    assert_eq!(pull(&mut one), "");
}

#[test]
fn each_event_is_a_chunk_of_its_own() {
    let hub = hub(1 << 20);
    let mut one = subscribe(&hub, &["a"], Begin::At(Start::Now), Form { chunked: true, ..Form::default() });
    let mut joined = Joined::default();
    publish(&hub, "a", "x");
    publish(&hub, "a", "y");
    one.pull(&mut joined);
    let opening = "15\r\nretry: 2000\nid: 7-0\n\n\r\n";
    let event = |id, data| format!("11\r\nid: 7-{id}\ndata: {data}\n\n\r\n");
    assert_eq!(text(&joined), format!("{opening}{}{}", event(1, "x"), event(2, "y")));
    let (first, second) = (opening.len() + event(1, "x").len(), joined.bytes().len());
    let end = |at, cursor, messages| End { at, cursor, messages };
    assert_eq!(joined.ends(), [end(opening.len(), 0, 0), end(first, 1, 1), end(second, 2, 1)]);
    // The client took only the first: the rest is said again.
    one.go_back(1);
    one.pull(&mut joined);
    assert_eq!(text(&joined), event(2, "y"));
    let mut out = Vec::new();
    one.push_farewell(&mut out, 1500);
    assert_eq!(String::from_utf8_lossy(&out), "d\r\nretry: 1500\n\n\r\n0\r\n\r\n");
}

/// Whatever happens between two subscribers that stand at the same place, each gets what is there by then.
#[test]
fn what_was_joined_for_another_is_the_same_or_is_joined_anew() {
    let (hub, mut joined) = (hub(2000), Joined::default());
    let mut all: Vec<Subscription> = (0..9)
        .map(|number| {
            let form = Form { chunked: number == 7, json: number == 8, ..Form::default() };
            subscribe(&hub, if number == 6 { &["b"] } else { &["a"] }, Begin::At(Start::Now), form)
        })
        .collect();
    let mut next = |one: &mut Subscription| {
        one.pull(&mut joined);
        text(&joined)
    };
    let opening = "retry: 2000\nid: 7-0\n\n";
    all.iter_mut().for_each(|one| assert!(next(one).contains(opening)));
    publish(&hub, "a", "1");
    let (first, second) = ("id: 7-1\ndata: 1\n\n", "id: 7-2\ndata: 2\n\n");
    assert_eq!([next(&mut all[0]), next(&mut all[1])], [first, first]);
    publish(&hub, "a", "2");
    assert_eq!(next(&mut all[2]), [first, second].concat(), "more has come");
    assert_eq!([next(&mut all[0]), next(&mut all[1])], [second, second]);
    assert_eq!([next(&mut all[0]), next(&mut all[6])], ["", ""], "of another topic");
    assert_eq!(next(&mut all[7]), "11\r\nid: 7-1\ndata: 1\n\n\r\n11\r\nid: 7-2\ndata: 2\n\n\r\n");
    assert!(next(&mut all[8]).contains("\"topic\":\"a\""), "in another form");
    // What has gone meanwhile is a gap for who has not heard it, and for nobody else.
    (0..30).for_each(|_| publish(&hub, "a", "x"));
    all[3..5].iter_mut().for_each(|one| assert!(next(one).contains("{\"from\":\"7-0\"")));
    all[..2].iter_mut().for_each(|one| assert!(next(one).contains("{\"from\":\"7-2\"")));
}

#[test]
fn who_comes_back_goes_on_or_is_told() {
    let hub = hub(1 << 20);
    for text in ["1", "2", "3"] {
        publish(&hub, "a", text);
    }
    let begin = |epoch, offset| Begin::From(Position { epoch, offset });
    let stream = |begin| pull(&mut subscribe(&hub, &["a", "a", "b"], begin, Form::default()));
    assert_eq!(stream(begin(7, 2)), "retry: 2000\nid: 7-2\n\nid: 7-3\ndata: 3\n\n");
    let all = "id: 7-1\ndata: 1\n\nid: 7-2\ndata: 2\n\nid: 7-3\ndata: 3\n\n";
    let gap = |from: &str| {
        format!("retry: 2000\nid: 7-0\n\nid: 7-0\nevent: @gap\ndata: {{\"from\":{from},\"to\":\"7-0\"}}\n\n{all}")
    };
    assert_eq!(stream(begin(7, 9)), gap("\"7-9\""));
    assert_eq!(stream(Begin::Unknown), gap("null"));
    assert_eq!(stream(Begin::At(Start::Oldest)), format!("retry: 2000\nid: 7-0\n\n{all}"));
    publish(&hub, "b", "4");
    let last = "retry: 2000\nid: 7-2\n\nid: 7-3\ndata: 3\n\nid: 7-4\ndata: 4\n\n";
    assert_eq!(stream(Begin::At(Start::Last)), last);
}

/// A client notes the opening's id as soon as it has come. One whose connection breaks there comes back with it.
#[test]
fn who_hears_no_more_than_the_opening_comes_back_for_the_last_messages() {
    let hub = hub(1 << 20);
    publish(&hub, "a", "21.5");
    publish(&hub, "elsewhere", "x");
    let opening = pull(&mut subscribe(&hub, &["a"], Begin::At(Start::Last), Form::default()));
    let id = opening.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id");
    let again = Begin::From(id.parse().expect("a position"));
    assert!(pull(&mut subscribe(&hub, &["a"], again, Form::default())).ends_with("id: 7-1\ndata: 21.5\n\n"));
}

/// What was joined is kept for a client that takes it slowly: no more than of anything else.
#[test]
fn last_messages_are_joined_as_far_as_all_others() {
    let (hub, names) = (hub(4 << 20), ["a", "b", "c", "d", "e", "f"]);
    for name in names {
        publish(&hub, name, "old");
        publish(&hub, name, &name.repeat(30_000));
    }
    let heard = |text: &str| -> Vec<char> {
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| data.len() == 30_000).filter_map(|data| data.chars().next()).collect()
    };
    let mut one = subscribe(&hub, &names, Begin::At(Start::Last), Form::default());
    let mut all = Vec::new();
    loop {
        let mut joined = Joined::default();
        let pulled = one.pull(&mut joined);
        let out = joined.bytes();
        assert!(out.len() < BYTES + 1000, "{}", out.len());
        all.extend_from_slice(out);
        if !pulled.more {
            break;
        }
    }
    assert_eq!(heard(&String::from_utf8_lossy(&all)), ['a', 'b', 'c', 'd', 'e', 'f']);
    // The same in polls.
    let poll = Form { poll: true, ..Form::default() };
    let (mut begin, mut times) = (Begin::At(Start::Last), [0; 6]);
    loop {
        let answer = subscribe(&hub, &names, begin, poll).answer(true).map(|(answer, _)| answer).expect("in any case");
        assert!(answer.len() < BYTES + 1000, "{}", answer.len());
        let answer = String::from_utf8(answer).expect("text");
        (0..6).for_each(|at| times[at] += answer.matches(&names[at].repeat(30_000)).count());
        let last = answer.rsplit("\"last\":\"").next().and_then(|rest| rest.split('"').next()).expect("a position");
        if last == hub.position().to_string() {
            break;
        }
        begin = Begin::From(last.parse().expect("a position"));
    }
    assert_eq!(times, [1; 6]);
}

/// A message of control characters has six times its size in JSON, and there are three forms.
#[test]
fn what_is_made_for_those_that_read_is_within_what_may_be_kept() {
    let hub = hub(1 << 20);
    (0..30).for_each(|_| publish(&hub, "a", &"\u{1}".repeat(30_000)));
    let mut one = subscribe(&hub, &["a"], Begin::At(Start::Oldest), Form { json: true, ..Form::default() });
    while one.pull(&mut Joined::default()).more {
        assert!(hub.bytes() <= 1 << 20, "{}", hub.bytes());
    }
    subscribe(&hub, &["a"], Begin::At(Start::Oldest), Form { poll: true, ..Form::default() })
        .answer(true)
        .map(|(answer, _)| answer);
    assert!(hub.bytes() <= 1 << 20, "{}", hub.bytes());
    assert_eq!(one.cursor(), hub.position().offset);
}

#[test]
fn who_is_too_slow_is_told_of_the_gap_once() {
    let hub = hub(2000);
    let mut one = subscribe(&hub, &["a", "b"], Begin::At(Start::Now), Form::default());
    pull(&mut one);
    publish(&hub, "b", "old");
    for number in 0..20 {
        publish(&hub, "a", &number.to_string());
    }
    publish(&hub, "b", "new");
    // Another has read them all: no more is made, and nothing has to go for it.
    pull(&mut subscribe(&hub, &["a", "b"], Begin::At(Start::Oldest), Form::default()));
    let (mut out, mut gaps, mut heard, mut joined) = (Vec::new(), 0, Vec::new(), Joined::default());
    loop {
        one.pull(&mut joined);
        let some = joined.bytes();
        // Not more than one event at a time.
        let Some(End { at: end, cursor, .. }) = joined.ends().first().copied() else { break };
        one.go_back(cursor);
        let event = String::from_utf8_lossy(&some[..end]).into_owned();
        gaps += usize::from(event.contains("@gap"));
        heard.extend(event.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned));
        out.extend_from_slice(&some[..end]);
    }
    assert_eq!(gaps, 1, "{}", String::from_utf8_lossy(&out));
    assert!(heard.len() > 3 && heard.last().is_some_and(|last| last == "new"), "{heard:?}");
}

#[test]
fn a_poll_is_answered_once_there_is_something() {
    let hub = hub(1 << 20);
    let poll = Form { poll: true, ..Form::default() };
    let text = |answer: Option<Vec<u8>>| answer.map(|answer| String::from_utf8(answer).expect("text"));
    let mut one = subscribe(&hub, &["a"], Begin::At(Start::Now), poll);
    assert_eq!(one.answer(false).map(|(answer, _)| answer), None);
    publish(&hub, "a", "say \"x\"\n");
    let said = "{\"messages\":[{\"id\":\"7-1\",\"topic\":\"a\",\"event\":null,\"data\":\"say \\\"x\\\"\\n\"}],\
                \"last\":\"7-1\",\"gap\":false}\n";
    assert_eq!(text(one.answer(false).map(|(answer, _)| answer)).as_deref(), Some(said));
    assert_eq!(
        text(one.answer(true).map(|(answer, _)| answer)).as_deref(),
        Some("{\"messages\":[],\"last\":\"7-1\",\"gap\":false}\n")
    );
    let mut other = subscribe(&hub, &["a"], Begin::Unknown, poll);
    assert!(
        text(other.answer(false).map(|(answer, _)| answer)).is_some_and(|answer| answer.ends_with("\"gap\":true}\n"))
    );
    // More than one answer has: the next question brings the rest.
    (0..100).for_each(|_| publish(&hub, "a", "x"));
    let answers: Vec<usize> = std::iter::from_fn(|| text(one.answer(false).map(|(answer, _)| answer)))
        .map(|answer| answer.matches("\"id\"").count())
        .collect();
    assert_eq!(answers, [64, 36]);
}

#[test]
fn what_is_written_down_goes_on_elsewhere() {
    let (hub, other) = (hub(1 << 20), hub(1 << 20));
    let mut one = subscribe(&hub, &["a"], Begin::At(Start::Now), Form { json: true, ..Form::default() });
    pull(&mut one);
    publish(&hub, "a", "x");
    let saved = one.save().expect("it has begun");
    other.read_from(&hub.write_down(0), 0, 0).expect("what was written");
    let mut moved = Subscription::restore(&other, saved.clone()).expect("its namespace is there");
    let event = "id: 7-1\ndata: {\"id\":\"7-1\",\"topic\":\"a\",\"event\":null,\"data\":\"x\"}\n\n";
    assert_eq!((pull(&mut moved), other.subscribers()), (event.to_owned(), 1));
    assert!(Subscription::restore(&other, Saved { namespace: "m".into(), ..saved.clone() }).is_none());
    assert!(Subscription::restore(&other, Saved { topics: vec![], ..saved }).is_none());
    assert_eq!(other.subscribers(), 1);
}

/// Whoever goes on without another's last state says where that was, among the messages, and once.
#[test]
fn a_hole_is_told_where_it_is() {
    let hub = hub(1 << 20);
    publish(&hub, "a", "1");
    let mut one = subscribe(&hub, &["a"], Begin::At(Start::Now), Form::default());
    pull(&mut one);
    publish(&hub, "a", "2");
    hub.begin_epoch_behind_a_hole(8);
    publish(&hub, "a", "3");
    assert!(one.is_behind());
    let gap = "id: 8-3\nevent: @gap\ndata: {\"from\":\"8-2\",\"to\":\"8-3\"}\n\n";
    let mut joined = Joined::default();
    assert!(one.pull(&mut joined).more);
    assert_eq!(text(&joined), format!("id: 8-2\ndata: 2\n\n{gap}"));
    assert_eq!(joined.ends().last(), Some(&End { at: joined.bytes().len(), cursor: 3, messages: 0 }));
    assert_eq!(pull(&mut one), "id: 8-4\ndata: 3\n\n");
    assert_eq!((pull(&mut one), one.is_behind()), (String::new(), false));
    // Also where no message lies behind it; and in a poll in an answer of its own, with what comes behind.
    let poll = |offset| {
        let begin = Begin::From(Position { epoch: 7, offset });
        let mut poll = subscribe(&hub, &["a"], begin, Form { poll: true, ..Form::default() });
        String::from_utf8(poll.answer(true).map(|(answer, _)| answer).expect("in any case")).expect("text")
    };
    assert!(poll(1).contains("\"data\":\"2\"}],\"last\":\"8-2\",\"gap\":false}"), "{}", poll(1));
    assert!(poll(2).contains("\"data\":\"3\"}],\"last\":\"8-4\",\"gap\":true}"), "{}", poll(2));
    assert!(poll(7).contains("\"data\":\"3\"}],\"last\":\"8-4\",\"gap\":true}"), "{}", poll(7));
    let mut two = subscribe(&hub, &["b"], Begin::From(Position { epoch: 7, offset: 2 }), Form::default());
    assert!(two.is_behind());
    assert_eq!(pull(&mut two), format!("retry: 2000\nid: 8-2\n\n{gap}"));
    assert_eq!(pull(&mut two), "");
}

#[test]
fn messages_without_frames_are_texts_again() {
    let hub = hub(1 << 20);
    let form = Form { websocket: true, bare: true, ..Form::default() };
    let mut one = Subscription::part_of_another(&hub, &topic("a"), form);
    let mut joined = Joined::default();
    assert_eq!(joined.texts().next(), None);
    for message in [&b"x\ny"[..], b"", b"a\xffb"] {
        hub.publish(&topic("a"), Message::new(message), 0, None).expect("open");
    }
    one.pull(&mut joined);
    assert_eq!(joined.texts().collect::<Vec<_>>(), ["x\ny", "", "a\u{fffd}b"]);
}
