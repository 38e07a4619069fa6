//! What receivers get, step by step. What holds whatever happens is in `invariants.rs`.

use super::*;
use crate::Callback;
use crate::invariants::{Random, session};

const HEARTBEAT: u64 = 25_000;
const DISCONNECT: u64 = 5_000;

fn settings() -> Settings {
    Settings { response_limit: 4096, ..Settings::default() }
}

fn new() -> Session {
    Session::new(settings(), 0)
}

/// One that was opened by a poll, which is over.
fn opened() -> Session {
    let mut session = new();
    assert!(session.arrive(1, Form::Xhr, 0).opened);
    assert_eq!(session.written(1, 0), Outcome::default());
    session
}

fn callback() -> Callback {
    Callback::new("cb").expect("a name")
}

#[track_caller]
fn got(outcome: &Outcome, receiver: u64, pieces: &[&str], ends: bool) {
    assert_eq!(outcome.writes.len(), 1, "{outcome:?}");
    let write = &outcome.writes[0];
    let texts: Vec<&str> = write.pieces.iter().map(|piece| std::str::from_utf8(piece).expect("text")).collect();
    assert_eq!((write.receiver, &texts[..], write.ends), (receiver, pieces, ends));
}

fn send(session: &mut Session, texts: &[&str]) -> Outcome {
    for text in texts {
        session.send((*text).to_owned()).expect("room");
    }
    session.flush(0)
}

fn interrupted() -> Option<Close> {
    Some(Close::new(1002, "Connection interrupted"))
}

#[test]
fn a_poll_gets_a_frame_and_ends() {
    let mut session = new();
    let outcome = session.arrive(1, Form::Xhr, 0);
    got(&outcome, 1, &["o\n"], true);
    assert!(outcome.opened && !outcome.gone && outcome.closed.is_none());
    assert_eq!(session.written(1, 0), Outcome::default());

    // What waits comes in one frame.
    assert_eq!(send(&mut session, &["a", "b"]), Outcome::default());
    got(&session.arrive(2, Form::Xhr, 10), 2, &["a[\"a\",\"b\"]\n"], true);
    assert_eq!(session.written(2, 10), Outcome::default());

    // Who waits gets it when it comes.
    assert_eq!(session.arrive(3, Form::Jsonp(callback()), 20), Outcome::default());
    got(&send(&mut session, &["c"]), 3, &["/**/cb(\"a[\\\"c\\\"]\");\r\n"], true);
}

#[test]
fn a_stream_goes_on() {
    let mut session = new();
    let prelude = "h".repeat(2048) + "\n";
    got(&session.arrive(1, Form::XhrStreaming, 0), 1, &[&prelude, "o\n"], false);
    // What it was handed is not written yet.
    assert_eq!(send(&mut session, &["a"]), Outcome::default());
    assert_eq!(send(&mut session, &["b"]), Outcome::default());
    got(&session.written(1, 0), 1, &["a[\"a\",\"b\"]\n"], false);
    assert_eq!(session.written(1, 0), Outcome::default());
    got(&send(&mut session, &["c"]), 1, &["a[\"c\"]\n"], false);
}

/// `test_response_limit` of the suite: 31 messages, and the prelude does not count.
#[test]
fn a_stream_ends_at_its_limit() {
    let mut session = new();
    assert!(!session.arrive(1, Form::XhrStreaming, 0).writes[0].ends);
    let text = "x".repeat(128);
    for number in 0..31 {
        assert_eq!(session.written(1, 0), Outcome::default());
        got(&send(&mut session, &[&text]), 1, &[&format!("a[\"{text}\"]\n")], number == 30);
    }
    for form in [Form::EventSource, Form::HtmlFile(callback())] {
        let mut session = new();
        assert!(!session.arrive(1, form, 0).writes[0].ends);
        assert_eq!(session.written(1, 0), Outcome::default());
        assert!(send(&mut session, &[&"x".repeat(4096)]).writes[0].ends);
        // The next one begins at nothing.
        assert_eq!(session.written(1, 0), Outcome::default());
        assert!(!session.arrive(2, Form::EventSource, 0).writes[0].ends);
    }
}

#[test]
fn a_websocket_has_no_limit_and_no_prelude() {
    let mut session = new();
    got(&session.arrive(1, Form::WebSocket, 0), 1, &["o"], false);
    assert_eq!(session.written(1, 0), Outcome::default());
    let text = "x".repeat(5000);
    got(&send(&mut session, &[&text]), 1, &[&format!("a[\"{text}\"]")], false);
    assert_eq!(session.written(1, 0), Outcome::default());
    let outcome = session.close(Close::go_away());
    got(&outcome, 1, &["c[3000,\"Go away!\"]"], true);
    assert_eq!(outcome.closed, Some(Close::go_away()));
    let outcome = session.written(1, 0);
    assert!(outcome.gone && outcome.closed.is_none() && session.is_gone());
}

#[test]
fn a_websocket_that_ends_takes_the_session_with_it() {
    for by_client in [true, false] {
        let mut session = new();
        assert!(session.arrive(1, Form::WebSocket, 0).opened);
        let close = Close::new(1001, "leaving");
        let outcome = if by_client { session.left(1, close.clone(), 0) } else { session.lost(1, 0) };
        assert!(outcome.gone && outcome.writes.is_empty());
        assert_eq!(outcome.closed, Some(if by_client { close } else { Close::new(1006, "Connection lost") }));
    }
}

#[test]
fn a_second_receiver_is_told_so_and_the_first_stays() {
    for form in [Form::Xhr, Form::XhrStreaming] {
        let mut session = opened();
        let _ = session.arrive(2, form.clone(), 0);
        let _ = session.written(2, 0);
        got(&session.arrive(3, Form::Xhr, 0), 3, &["c[2010,\"Another connection still open\"]\n"], true);
        // How that one ends is nothing to the session.
        assert_eq!(session.lost(3, 0), Outcome::default());
        got(&send(&mut session, &["a"]), 2, &["a[\"a\"]\n"], form == Form::Xhr);
    }
}

#[test]
fn a_client_may_be_faster_than_the_news_that_its_response_was_written() {
    let mut session = new();
    assert!(session.arrive(1, Form::Xhr, 0).opened);
    assert_eq!(session.arrive(2, Form::Xhr, 0), Outcome::default());
    assert_eq!(send(&mut session, &["a"]), Outcome::default());
    // One more is one too many.
    got(&session.arrive(3, Form::Xhr, 0), 3, &["c[2010,\"Another connection still open\"]\n"], true);
    got(&session.written(1, 0), 2, &["a[\"a\"]\n"], true);
    // And who waits hears it if the response had broken.
    assert_eq!(session.arrive(4, Form::EventSource, 0), Outcome::default());
    let outcome = session.lost(2, 0);
    got(&outcome, 4, &["\r\n", "data: c[1002,\"Connection interrupted\"]\r\n\r\n"], true);
    assert_eq!(outcome.closed, interrupted());
    // Of one that waits nothing is missing.
    let mut session = new();
    assert!(session.arrive(1, Form::Xhr, 0).opened);
    assert_eq!(session.arrive(2, Form::Xhr, 0), Outcome::default());
    assert_eq!(session.lost(2, 0), Outcome::default());
    assert_eq!(session.written(1, 0), Outcome::default());
    assert!(session.is_open());
}

/// `test_close_frame` of the suite: a new request gets the close, and not 2010, and both end.
#[test]
fn a_close_is_said_to_each_until_the_session_is_gone() {
    let mut session = new();
    assert!(session.arrive(1, Form::EventSource, 0).opened);
    let outcome = session.close(Close::go_away());
    assert_eq!((outcome.writes.len(), outcome.closed), (0, Some(Close::go_away())));
    assert_eq!(session.close(Close::new(1000, "again")), Outcome::default());
    got(&session.written(1, 0), 1, &["data: c[3000,\"Go away!\"]\r\n\r\n"], true);
    got(&session.arrive(2, Form::Xhr, 0), 2, &["c[3000,\"Go away!\"]\n"], true);
    assert_eq!(session.written(1, 100), Outcome::default());
    for receiver in 3..9 {
        got(&session.arrive(receiver, Form::Xhr, 4000), receiver, &["c[3000,\"Go away!\"]\n"], true);
        assert_eq!(session.written(receiver, 4000), Outcome::default());
    }
    // Polls do not keep it.
    assert_eq!(session.deadline(), Some(100 + DISCONNECT));
    assert_eq!(session.tick(99 + DISCONNECT), Outcome::default());
    let outcome = session.tick(100 + DISCONNECT);
    assert!(outcome.gone && outcome.closed.is_none());
    assert_eq!(session.deadline(), None);
    got(&session.arrive(9, Form::Xhr, 9999), 9, &["c[1002,\"Connection interrupted\"]\n"], true);
}

#[test]
fn what_was_sent_before_a_close_comes_before_it() {
    let mut session = opened();
    assert_eq!(send(&mut session, &["a"]), Outcome::default());
    assert_eq!(session.close(Close::go_away()).closed, Some(Close::go_away()));
    assert_eq!(session.send("b".to_owned()), Err(SendError::Closed));
    let mut polled = session.clone();
    got(&polled.arrive(2, Form::Xhr, 10), 2, &["a[\"a\"]\n"], true);
    assert_eq!(polled.written(2, 10), Outcome::default());
    got(&polled.arrive(3, Form::Xhr, 20), 3, &["c[3000,\"Go away!\"]\n"], true);
    got(&session.arrive(2, Form::WebSocket, 10), 2, &["a[\"a\"]", "c[3000,\"Go away!\"]"], true);
}

#[test]
fn whoever_breaks_closes_the_session() {
    // Also one that waited for nothing but news.
    for (form, sends) in [(Form::Xhr, false), (Form::Xhr, true), (Form::XhrStreaming, true)] {
        let mut session = opened();
        let _ = session.arrive(2, form, 10);
        if sends {
            let _ = send(&mut session, &["a", "b"]);
        }
        let outcome = session.lost(2, 100);
        assert_eq!((outcome.closed, outcome.gone, outcome.writes.len()), (interrupted(), false, 0));
        assert_eq!(session.send("c".to_owned()), Err(SendError::Closed));
        // Nothing of it is said again.
        got(&session.arrive(3, Form::Xhr, 200), 3, &["c[1002,\"Connection interrupted\"]\n"], true);
        assert_eq!(session.written(3, 200), Outcome::default());
        assert!(session.tick(200 + DISCONNECT).gone);
    }
}

#[test]
fn messages_that_broke_before_a_close_change_its_reason() {
    let mut session = opened();
    let _ = session.arrive(2, Form::XhrStreaming, 0);
    let _ = session.written(2, 0);
    got(&send(&mut session, &["a"]), 2, &["a[\"a\"]\n"], false);
    assert_eq!(session.close(Close::go_away()).closed, Some(Close::go_away()));
    assert_eq!(session.lost(2, 0), Outcome::default());
    got(&session.arrive(3, Form::Xhr, 0), 3, &["c[1002,\"Connection interrupted\"]\n"], true);
}

#[test]
fn nobody_there_for_five_seconds_ends_it() {
    let mut session = opened();
    assert_eq!(session.deadline(), Some(DISCONNECT));
    assert_eq!(send(&mut session, &["a"]), Outcome::default());
    assert_eq!(session.tick(DISCONNECT - 1), Outcome::default());
    let outcome = session.tick(DISCONNECT);
    assert_eq!((outcome.closed, outcome.gone), (Some(Close::new(1006, "Connection lost")), true));
    assert_eq!(session.send("b".to_owned()), Err(SendError::Closed));

    // One that nobody has heard of ends without a word to the application.
    let outcome = new().tick(DISCONNECT);
    assert_eq!(outcome, Outcome { gone: true, ..Outcome::default() });
}

#[test]
fn heartbeats() {
    let mut session = opened();
    assert_eq!(session.arrive(2, Form::Xhr, 100), Outcome::default());
    assert_eq!(session.deadline(), Some(100 + HEARTBEAT));
    assert_eq!(session.tick(99 + HEARTBEAT), Outcome::default());
    got(&session.tick(100 + HEARTBEAT), 2, &["h\n"], true);
    assert_eq!(session.deadline(), None);
    assert_eq!(session.written(2, 30_000), Outcome::default());
    assert_eq!(session.deadline(), Some(30_000 + DISCONNECT));

    assert_eq!(session.arrive(3, Form::EventSource, 30_000).writes.len(), 1);
    assert_eq!(session.tick(90_000), Outcome::default());
    assert_eq!(session.written(3, 90_000), Outcome::default());
    got(&session.tick(90_000 + HEARTBEAT), 3, &["data: h\r\n\r\n"], false);
    assert_eq!(session.written(3, 120_000), Outcome::default());
    // What was sent meanwhile counts as one.
    session.send("a".to_owned()).expect("room");
    got(&session.flush(130_000), 3, &["data: a[\"a\"]\r\n\r\n"], false);
    assert_eq!(session.written(3, 130_000), Outcome::default());
    assert_eq!(session.deadline(), Some(130_000 + HEARTBEAT));
}

#[test]
fn a_queue_has_a_bound() {
    let mut session = opened();
    for _ in 0..64 {
        session.send("x".to_owned()).expect("room");
    }
    assert_eq!(session.send(String::new()), Err(SendError::Full));
    assert_eq!(session.arrive(2, Form::Xhr, 0).writes.len(), 1);
    session.send("x".repeat(65_536)).expect("room");
    assert_eq!(session.send("x".to_owned()), Err(SendError::Full));
    session.send(String::new()).expect("room");
    assert_eq!(session.send("x".repeat(65_537)), Err(SendError::TooLarge));
    assert!(session.memory() > 65_536 && opened().memory() < 400, "{}", opened().memory());
}

#[test]
fn what_clients_send_is_for_sessions_that_are_open() {
    let texts = vec!["a".to_owned()];
    assert_eq!(new().receive(texts.clone()), Err(Refusal::UnknownSession));
    let mut session = opened();
    assert_eq!(session.receive(texts.clone()), Ok(texts.clone()));
    let _ = session.close(Close::go_away());
    assert_eq!(session.receive(texts.clone()), Ok(vec![]));
    let _ = session.tick(DISCONNECT);
    assert_eq!(session.receive(texts), Err(Refusal::UnknownSession));
}

#[test]
fn who_is_asked_to_come_again_ends_at_a_boundary() {
    let mut session = opened();
    assert_eq!(session.ask_again(), Outcome::default());
    assert_eq!(session.arrive(2, Form::Xhr, 0), Outcome::default());
    got(&session.ask_again(), 2, &["h\n"], true);
    assert_eq!(session.written(2, 0), Outcome::default());

    assert_eq!(session.arrive(3, Form::EventSource, 0).writes.len(), 1);
    assert_eq!(session.ask_again(), Outcome::default());
    assert_eq!(send(&mut session, &["a"]), Outcome::default());
    got(&session.written(3, 0), 3, &["data: a[\"a\"]\r\n\r\n"], true);
    assert_eq!(session.written(3, 0), Outcome::default());

    assert_eq!(session.arrive(4, Form::EventSource, 0).writes.len(), 1);
    assert_eq!(session.written(4, 0), Outcome::default());
    got(&session.ask_again(), 4, &[], true);
    assert_eq!(session.written(4, 0), Outcome::default());

    assert_eq!(session.arrive(5, Form::WebSocket, 0), Outcome::default());
    assert_eq!(session.ask_again(), Outcome::default());
    got(&send(&mut session, &["b"]), 5, &["a[\"b\"]"], false);
}

#[test]
fn receivers_have_other_names_elsewhere() {
    let mut session = new();
    assert!(session.arrive(1, Form::Xhr, 0).opened);
    assert_eq!(session.arrive(2, Form::Xhr, 0), Outcome::default());
    assert_eq!(session.receivers().collect::<Vec<_>>(), [1, 2]);
    session.rename(1, 7);
    session.rename(2, 1);
    assert_eq!(session.receivers().collect::<Vec<_>>(), [7, 1]);
    assert_eq!(session.written(1, 0), Outcome::default());
    assert_eq!(session.written(7, 0), Outcome::default());
    got(&send(&mut session, &["a"]), 1, &["a[\"a\"]\n"], true);
}

#[test]
fn reasons_are_cut_where_a_character_ends() {
    assert_eq!(Close::new(1000, &"é".repeat(70)).reason.len(), 122);
    assert_eq!(Close::new(1000, &"x".repeat(124)).reason.len(), 123);
    assert_eq!(Close::new(1000, "x").reason, "x");
}

/// What receivers got is what the application has sent, in its order and once, or the session was closed: for ten thousand
/// lives of a session.
#[test]
fn whatever_happens_nothing_is_missing_or_comes_twice() {
    let mut random = Random::new(1);
    let mut seen = crate::invariants::Seen::default();
    for _ in 0..10_000 {
        let bytes: Vec<u8> = (0..random.below(120)).map(|_| random.below(256) as u8).collect();
        seen.add(session(&bytes));
    }
    // Each of them has happened often, or the model would try little.
    assert!(seen.is_more_than(100), "{seen:?}");
}
