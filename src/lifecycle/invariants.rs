//! What holds for any state that a successor is given. Each function panics where it does not: the fuzz targets call
//! them with what a fuzzer makes up, the tests with mutated states.

use super::link::Message;
use super::state::{
    ExecState, Inheritance, InheritedListener, MAGIC, MovedConnection, SavedBegun, SavedDecoder, SavedFigures,
    SavedReload, Snapshot, State, decode, encode, versions,
};
use http1::chunked::Decoder;

/// The state of exec mode, a snapshot and a message of overlap mode, with and without magic and version.
///
/// `restored`: what holds for a connection that goes on with a snapshot.
pub fn state(bytes: &[u8], restored: impl Fn(Snapshot)) {
    let versioned = versions().map(|version| [&MAGIC, &version.to_le_bytes(), bytes].concat());
    for bytes in versioned.chain([bytes.to_vec()]) {
        let bytes = &bytes[..];
        if let Some(state) = stable::<ExecState>(bytes) {
            for MovedConnection { snapshot, .. } in state.connections {
                restored(snapshot);
            }
        }
        stable::<Inheritance>(bytes);
        stable::<SavedFigures>(bytes);
        if let Some(snapshot) = stable::<Snapshot>(bytes) {
            restored(snapshot);
        }
    }
    if let Ok(message) = postcard::from_bytes::<Message>(bytes) {
        let message = written(&message);
        let again = postcard::from_bytes(&message).expect("what was written");
        assert_eq!(written(&again), message);
    }
}

fn written(message: &Message) -> Vec<u8> {
    postcard::to_allocvec(message).expect("plain data")
}

/// What is read, if anything is, is written in each version as what is read again as the same.
fn stable<T: State>(bytes: &[u8]) -> Option<T> {
    for version in versions() {
        let written = encode(decode::<T>(bytes).ok()?, version);
        let again: T = decode(&written).expect("what was written can be read");
        assert_eq!(encode(again, version), written);
        for cut in [written.len() - 1, written.len() / 2, 3] {
            assert!(decode::<T>(&written[..cut]).is_err(), "cut at {cut}");
        }
    }
    decode(bytes).ok()
}

/// A state of each kind, to begin with, in each version.
pub fn states() -> Vec<Vec<u8>> {
    let listener = InheritedListener { fd: 3, address: "127.0.0.1:8888".into(), file: Some((1, 2)), spare: Some(6) };
    let failed = SavedReload { at: 9, generation: 2, exec: true, failure: Some("why".into()), took: 5, held: 4 };
    let begun = SavedBegun { at: 7, held: Some(8) };
    let figures = SavedFigures { totals: vec![("a".into(), 300)], reloads: vec![failed], begun: Some(begun) };
    let inheritance = || Inheritance { generation: 1, listeners: vec![listener.clone()], ..Inheritance::default() };
    let moved = |snapshot| MovedConnection { fd: 4, file: Some(5), snapshot };
    let state = |version| {
        let connections = Snapshot::samples().into_iter().map(moved).collect();
        let (hub, sessions) = (Some(b"log".to_vec()), vec![Snapshot::sample_of_session()]);
        let inheritance = Inheritance { figures: figures.clone(), ..inheritance() };
        encode(ExecState { inheritance, connections, hub, sessions }, version)
    };
    let snapshots =
        |version| Snapshot::samples().into_iter().map(move |snapshot| encode(snapshot, version)).collect::<Vec<_>>();
    let hello = Message::Hello(Inheritance { generation: 1, ..Inheritance::default() }.into());
    let messages = [
        hello,
        Message::Ready { kept: vec!["127.0.0.1:8888".into()] },
        Message::Stop { at_once: true },
        Message::Commit(1),
    ];
    let messages = messages.iter().map(written).collect();
    let greeting = Message::Greeting { words: 2, state: encode(inheritance(), 2) };
    let all = [snapshots(1), messages, vec![state(1)], snapshots(2), vec![written(&greeting), state(2)]];
    let last = vec![state(5), encode(figures.clone(), 5)];
    [all.concat(), snapshots(3), vec![state(3)], snapshots(4), vec![state(4)], snapshots(5), last].concat()
}

/// A decoder as a successor gets it, perhaps from who means it ill, and what it then reads. The first byte says how long
/// the decoder is.
pub fn decoder(bytes: &[u8]) {
    let Some((&length, rest)) = bytes.split_first() else { return };
    let Some((written, input)) = rest.split_at_checked(usize::from(length % 32)) else { return };
    let Ok(decoder) = postcard::from_bytes::<SavedDecoder>(written) else { return };
    http1::invariants::decoder(&Decoder::from(decoder), input);
}
