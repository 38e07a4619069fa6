//! The versioned state that a predecessor hands to its successor.
//!
//! Four bytes of magic, the version as a little-endian u32, then the fields as postcard writes them: numbers as varints,
//! text and lists with their length first. A reader takes the versions it knows and nothing else; a predecessor asks by
//! the check which these are, before it gives anything away, and writes the newest that both know, so that also an older
//! program keeps the connections.
//!
//! Each version has types of its own, in a file of its own, and what it has once been stays. What stands here is what
//! the server works with.
//!
//! - Version 1 was the first.
//! - Version 2 is version 1, and behind it what that did not know: the listeners' spare sockets. Several connections may
//!   name the same descriptor of a file, which an exec'ed successor then owns once.
//! - Version 3 knows subscribers, and the log of their hub. In those before a subscriber ends with what its client has a
//!   part of, and is told to come back.
//! - Version 4 knows WebSockets, the clients of conversations, and sessions of SockJS. In those before each is closed.
//! - Version 5 has the figures of the generations before, for the metrics. Behind those before they begin anew.

mod connection;
mod figures;
pub mod v1;
mod v2;
mod v3;
mod v4;
mod v5;

#[cfg(any(test, fuzzing))]
pub use connection::SavedDecoder;
pub use connection::{
    RemainingBody, SavedAttached, SavedClient, SavedFragments, SavedFrames, SavedFraming, SavedSession, SavedSessions,
    SavedSide, SavedState, SavedSubscriber, SavedTopics, SavedWebSocket, SavedWrite, Snapshot,
};

pub use figures::{SavedBegun, SavedFigures, SavedReload};

use connection::{Unsubscribed, Unupgraded};
use http1::number::decimal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

/// The newest version that this build reads and writes. It reads those before it as well.
const NEWEST: u32 = 5;
/// From here on several connections may name the same descriptor of a file.
pub const SHARES_FILES: u32 = 2;
/// From here on there are subscribers, and a hub.
pub const SUBSCRIBERS: u32 = 3;
/// From here on there are WebSockets, and sessions.
pub const WEBSOCKETS: u32 = 4;
/// From here on there are figures.
pub const COUNTS: u32 = 5;
/// The most that an application may carry over.
pub const CARRY_LIMIT: usize = 16 * 1024 * 1024;

/// What each version begins with.
pub const MAGIC: [u8; 4] = *b"hdov";

/// The versions of states that this process reads.
pub fn versions() -> RangeInclusive<u32> {
    1..=newest_of_test().map_or(NEWEST, |newest| NEWEST.min(newest))
}

/// A test that sets `HANDOVER_TEST_NEWEST` makes this process as old as a build that knows no later version, of the state
/// and of what the two say to each other.
pub fn newest_of_test() -> Option<u32> {
    static NEWEST_HERE: OnceLock<Option<u32>> = OnceLock::new();
    *NEWEST_HERE.get_or_init(|| std::env::var("HANDOVER_TEST_NEWEST").ok().and_then(|version| decimal(&version)))
}

/// The newest version that this process and one that reads `theirs` have in common.
pub fn common(theirs: &[u32]) -> Option<u32> {
    versions().rev().find(|version| theirs.contains(version))
}

/// What every successor inherits.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// The predecessor's; ours is one more.
    pub generation: u64,
    /// The process that wrote it: in exec mode our own.
    pub pid: u32,
    pub counters: Counters,
    pub listeners: Vec<InheritedListener>,
    pub carried: Option<Carried>,
    /// A HUP that came when it was too late for the predecessor to act on it.
    pub reload_again: bool,
    /// Since version 5.
    pub figures: SavedFigures,
}

/// Counters that go on across generations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub served: u64,
    pub refused: u64,
    pub connections: u64,
    pub migrated: u64,
    pub reloads: u64,
}

/// A listener's descriptor, and what it was bound for.
#[derive(Clone, Debug)]
pub struct InheritedListener {
    /// In exec mode the descriptor's number; in overlap mode its place among those that came with the message.
    pub fd: i32,
    /// The address as it was configured.
    pub address: String,
    /// Device and inode of a Unix socket's file.
    pub file: Option<(u64, u64)>,
    /// Of a second socket that is bound to the same address and does not listen, named as `fd` is. Since version 2.
    pub spare: Option<i32>,
}

/// What an application carries over: a byte string of its own and the version of its format. See the example of
/// [`Builder::carry_over`](crate::Builder::carry_over).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The application's own version of what the bytes mean.
    pub version: u32,
    /// At most 16 MiB.
    pub bytes: Vec<u8>,
}

/// A connection and the numbers of its descriptors.
#[derive(Debug)]
pub struct MovedConnection {
    pub fd: i32,
    pub file: Option<i32>,
    pub snapshot: Snapshot,
}

/// The whole state in exec mode.
#[derive(Debug, Default)]
pub struct ExecState {
    pub inheritance: Inheritance,
    pub connections: Vec<MovedConnection>,
    /// The log of the hub, as that writes it down. Since version 3.
    pub hub: Option<Vec<u8>>,
    /// Since version 4.
    pub sessions: Vec<SavedSession>,
}

/// What is written with magic and version: as what, in each of them.
pub trait State: Sized {
    type V1: Serialize + DeserializeOwned + From<Self> + TryInto<Self, Error: fmt::Display>;
    type V2: Serialize + DeserializeOwned + From<Self> + TryInto<Self, Error: fmt::Display>;
    type V3: Serialize + DeserializeOwned + From<Self> + TryInto<Self, Error: fmt::Display>;
    type V4: Serialize + DeserializeOwned + From<Self> + TryInto<Self, Error: fmt::Display>;
    type V5: Serialize + DeserializeOwned + From<Self> + TryInto<Self, Error: fmt::Display>;
}

impl State for Inheritance {
    type V1 = v1::Inheritance;
    type V2 = v2::Inheritance;
    type V3 = v2::Inheritance;
    type V4 = v2::Inheritance;
    type V5 = v5::Inheritance;
}

impl State for ExecState {
    type V1 = v1::ExecState;
    type V2 = v2::ExecState;
    type V3 = v3::ExecState<Unupgraded>;
    type V4 = v4::ExecState;
    type V5 = v5::ExecState;
}

/// It is made to be written.
impl State for Snapshot {
    type V1 = Unsubscribed;
    type V2 = Unsubscribed;
    type V3 = Unupgraded;
    type V4 = Snapshot;
    type V5 = Snapshot;
}

/// They are sent in no version before the fourth.
impl State for SavedSessions {
    type V1 = SavedSessions;
    type V2 = SavedSessions;
    type V3 = SavedSessions;
    type V4 = SavedSessions;
    type V5 = SavedSessions;
}

/// They are sent in no version before the fifth.
impl State for SavedFigures {
    type V1 = SavedFigures;
    type V2 = SavedFigures;
    type V3 = SavedFigures;
    type V4 = SavedFigures;
    type V5 = SavedFigures;
}

/// Writes a value with its magic, in that version.
pub fn encode<T: State>(value: T, version: u32) -> Vec<u8> {
    // Arrays are written as they are.
    let head = (MAGIC, version.to_le_bytes());
    let written = match version {
        1 => postcard::to_allocvec(&(head, T::V1::from(value))),
        2 => postcard::to_allocvec(&(head, T::V2::from(value))),
        3 => postcard::to_allocvec(&(head, T::V3::from(value))),
        4 => postcard::to_allocvec(&(head, T::V4::from(value))),
        _ => postcard::to_allocvec(&(head, T::V5::from(value))),
    };
    written.expect("a vector takes all, and each list knows its length")
}

/// Reads a value, if its version is known.
pub fn decode<T: State>(bytes: &[u8]) -> Result<T, String> {
    match fields(bytes)? {
        (1, fields) => read::<T::V1>(fields)?.try_into().map_err(malformed),
        (2, fields) => read::<T::V2>(fields)?.try_into().map_err(malformed),
        (3, fields) => read::<T::V3>(fields)?.try_into().map_err(malformed),
        (4, fields) => read::<T::V4>(fields)?.try_into().map_err(malformed),
        (_, fields) => read::<T::V5>(fields)?.try_into().map_err(malformed),
    }
}

fn read<T: DeserializeOwned>(fields: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(fields).map_err(malformed)? {
        (value, []) => Ok(value),
        _ => Err("the state is followed by bytes that do not belong to it".into()),
    }
}

fn malformed(error: impl fmt::Display) -> String {
    format!("the state is malformed: {error}")
}

/// The version, if it is known, and what stands behind it.
fn fields(bytes: &[u8]) -> Result<(u32, &[u8]), String> {
    let Some((head, fields)) = bytes.split_at_checked(8) else {
        return Err("the state is cut short".into());
    };
    let (magic, version) = head.split_at(4);
    if magic != MAGIC {
        return Err("this is no state of handover's".into());
    }
    let version = u32::from_le_bytes([version[0], version[1], version[2], version[3]]);
    if !versions().contains(&version) {
        let newest = versions().end().to_owned();
        return Err(format!("the state has version {version}, this program reads 1 to {newest}"));
    }
    Ok((version, fields))
}

#[cfg(test)]
mod tests {
    use super::super::invariants;
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn what_is_written_is_read() {
        for version in versions() {
            let inheritance = Inheritance { generation: 7, reload_again: true, ..Inheritance::default() };
            let bytes = encode(ExecState { inheritance, ..ExecState::default() }, version);
            let read: ExecState = decode(&bytes).expect("what was written");
            assert_eq!((read.inheritance.generation, read.inheritance.reload_again), (7, true));
            for cut in 0..bytes.len() {
                assert!(decode::<ExecState>(&bytes[..cut]).is_err(), "cut at {cut}");
            }
            let longer = [&bytes[..], b"x"].concat();
            assert!(decode::<ExecState>(&longer).is_err());
        }
    }

    #[test]
    fn the_newest_version_that_both_read_is_written() {
        assert_eq!(common(&[1]), Some(1));
        assert_eq!(common(&[1, 2]), Some(2));
        assert_eq!(common(&[2, 9, 1]), Some(2));
        assert_eq!(common(&[2, 3, 1]), Some(3));
        assert_eq!(common(&[4, 2, 3, 1]), Some(4));
        assert_eq!(common(&[4, 2, 5, 3, 1, 6]), Some(5));
        assert_eq!(common(&[9]), None);
    }

    #[test]
    fn a_spare_for_no_listener_is_refused() {
        let mut bytes = encode(Inheritance::default(), 1);
        bytes[4] = 2;
        bytes.extend(b"\x01\x00");
        assert!(decode::<Inheritance>(&bytes).is_err_and(|error| error.contains("malformed")));
    }

    #[test]
    fn an_unknown_version_is_refused_by_name() {
        let mut bytes = encode(Inheritance::default(), 1);
        bytes[4] = 99;
        let error = decode::<Inheritance>(&bytes).expect_err("version 99");
        assert!(error.contains("version 99"), "{error}");
    }

    /// A change here is a new version: the other process may be of another build.
    #[test]
    fn each_version_is_written_as_it_was_at_first() {
        let connection = b"\x01\x00\x7f\x00\x00\x01\x01\x01\x01\x01\x02\x11GET /b HTTP/1.1\r\n";
        // A WebSocket, as one that ends.
        let ended = b"\x02\x01\x81\x00\x00\x07GET /ws";
        // A session's as well.
        let detached = b"\x02\x00\x00\x00\x0ePOST /0/x7/xhr";
        let moments: [&[u8]; 11] = [
            b"\x00",
            b"\x013POST /a HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n\x00\x06\x03abc\x01\x80\x80@\x01\x09\x01",
            b"\x013POST /a HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n\x01\x00\x00\x00\x00\x03abc\x01\x80\x80@\x01\x09\x01",
            b"\x02\x11HTTP/1.1 200 OK\r\n\x00\x01\x06GET /a",
            b"\x02\x11HTTP/1.1 200 OK\r\n\x01\x05hello\x01\x06GET /a",
            b"\x02\x11HTTP/1.1 200 OK\r\n\x02\x01\x09\x01\x06GET /a",
            b"\x03\x02",
            // A subscriber, as one that ends.
            b"\x02\x04id: \x00\x00\x08GET /n/a",
            ended,
            ended,
            detached,
        ];
        let subscriber: &[u8] =
            b"\x04\x01n\x02\x01a\x01b\xac\x02\x07\x01\x00\x01\x00\x04id: \x0f\x09\x00\x01\x01\x08GET /n/a";
        let snapshots = moments.map(|moment| [connection, moment].concat());
        let moved = snapshots.iter().map(|snapshot| [b"\x08\x01\x0a", &snapshot[..]].concat());
        let state = [
            b"\x01\x00\x00\x00\x00\x00\x00\x01\x06\x0e127.0.0.1:8888\x01\x01\x02\x00\x00\x0b".to_vec(),
            moved.collect::<Vec<_>>().concat(),
        ];
        let first = |fields: &[u8]| [b"hdov\x01\0\0\0", fields].concat();
        let mut expected: Vec<_> = snapshots.iter().map(|snapshot| first(snapshot)).collect();
        expected.extend([
            b"\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00".to_vec(),
            b"\x01\x01\x0e127.0.0.1:8888".to_vec(),
            b"\n\x01".to_vec(),
            b"\x08\x01".to_vec(),
        ]);
        expected.push(first(&state.concat()));
        let second = |fields: &[u8]| [b"hdov\x02\0\0\0", fields].concat();
        expected.extend(snapshots.iter().map(|snapshot| second(snapshot)));
        let inheritance = b"\x01\x00\x00\x00\x00\x00\x00\x01\x06\x0e127.0.0.1:8888\x01\x01\x02\x00\x00";
        expected.push([&b"\x0d\x02\x28"[..], &second(inheritance), b"\x01\x01\x0c"].concat());
        expected.push(second(&[&state.concat()[..], b"\x01\x01\x0c"].concat()));
        let third = |fields: &[u8]| [b"hdov\x03\0\0\0", fields].concat();
        let mut moments = moments;
        moments[7] = subscriber;
        let snapshots = moments.map(|moment| [connection, moment].concat());
        expected.extend(snapshots.iter().map(|snapshot| third(snapshot)));
        let moved: Vec<u8> = snapshots.iter().flat_map(|one| [b"\x08\x01\x0a", &one[..]].concat()).collect();
        let state = [&inheritance[..], b"\x01\x01\x0c\x0b", &moved, b"\x01\x03log"].concat();
        expected.push(third(&state));
        let fourth = |fields: &[u8]| [b"hdov\x04\0\0\0", fields].concat();
        let websocket = b"\x01\x81\x01\x00\x00\x09\x0f\x0a\x00\x80\x80\x04\x07GET /ws";
        let topics = b"\x01n\x02\x01a\x01b\xac\x02\x07\x01\x01b\xad\x02";
        let listener = [&b"\x05\x00\x00\x00\x00\x00"[..], websocket, b"\x00", topics, b"\x01"].concat();
        let client = b"\x01\x04chat\xac\x02\x01\x01\x05state\x01";
        let waits = b"\x02\x01\x02hi\x00\x01\x00\x01\xa0\x1f\x03bye\x01\x05\x00";
        let frames = b"\x05\x06\x89\x81abcd\x00\x00\x01\x01\x00\x04half\x00";
        let talker = [&frames[..], websocket, client, topics, waits].concat();
        let attached = b"\x06\x04chat\x02x7\xac\x02\x11HTTP/1.1 200 OK\r\n\x00\x00\x01\x01\x01\x0ePOST /0/x7/xhr";
        (moments[8], moments[9], moments[10]) = (&listener, &talker, attached);
        let snapshots = moments.map(|moment| [connection, moment].concat());
        expected.extend(snapshots.iter().map(|snapshot| fourth(snapshot)));
        let moved: Vec<u8> = snapshots.iter().flat_map(|one| [b"\x08\x01\x0a", &one[..]].concat()).collect();
        let state = [&inheritance[..], b"\x01\x01\x0c\x0b", &moved, b"\x01\x03log"].concat();
        let session = b"\x01\x04chat\x02x7\x08\x00machine\x01\xac\x02\x01\x02o\n\x01\x00\x01\x04null\x00";
        let settings = b"\xa8\xc3\x01\x88\x27\x80\x80\x08";
        let whole = [&state[..], session, settings].concat();
        expected.push(fourth(&whole));
        let fifth = |fields: &[u8]| [b"hdov\x05\0\0\0", fields].concat();
        let figures = b"\x01\x01a\xac\x02\x01\x09\x02\x01\x01\x03why\x05\x04\x01\x07\x01\x08";
        expected.extend(snapshots.iter().map(|snapshot| fifth(snapshot)));
        expected.push(fifth(&[&whole[..], figures].concat()));
        expected.push(fifth(figures));
        for (written, expected) in invariants::states().iter().zip(&expected) {
            assert_eq!(written.escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
        assert_eq!(invariants::states().len(), expected.len());
    }

    #[track_caller]
    fn is<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: T, written: &[u8]) {
        assert_eq!(postcard::to_allocvec(&value).as_deref(), Ok(written), "{value:?}");
        assert_eq!(postcard::take_from_bytes(written), Ok((value, &[][..])));
        for cut in 0..written.len() {
            let error = postcard::from_bytes::<T>(&written[..cut]);
            assert_eq!(error, Err(postcard::Error::DeserializeUnexpectedEnd), "cut at {cut}");
        }
    }

    #[test]
    fn values_are_written_as_they_were_at_first() {
        is(0u64, &[0]);
        is(127u32, &[127]);
        is(128u16, &[0x80, 1]);
        is(u64::MAX, &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        is(200u8, &[200]);
        is(-1i32, &[1]);
        is(1i32, &[2]);
        is(i32::MIN, &[255, 255, 255, 255, 15]);
        is(i32::MAX, &[254, 255, 255, 255, 15]);
        is(true, &[1]);
        is(None::<u64>, &[0]);
        is(Some((300u64, "é".to_owned())), &[1, 0xac, 2, 2, 0xc3, 0xa9]);
        is(vec![1u8, 200], &[2, 1, 200]);
        is(serde_bytes::ByteBuf::from([1, 200]), &[2, 1, 200]);
        is(vec![1u64, 200], &[2, 1, 200, 1]);
        // The scope of an address of version 6 is not written.
        is(SocketAddr::from(([127, 0, 0, 1], 1)), &[0, 127, 0, 0, 1, 1]);
        let version_6 = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 8080));
        is(version_6, &[1, 32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x90, 63]);
    }

    #[track_caller]
    fn is_not<T: DeserializeOwned + PartialEq + fmt::Debug>(bytes: &[u8], why: postcard::Error) {
        assert_eq!(postcard::from_bytes::<T>(bytes), Err(why));
    }

    #[test]
    fn what_nobody_wrote_is_refused() {
        use postcard::Error;
        assert_eq!(postcard::from_bytes(&[0x80, 0]), Ok(0u64), "longer than need be");
        is_not::<u16>(&[255, 255, 4], Error::DeserializeBadVarint);
        is_not::<u64>(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 2], Error::DeserializeBadVarint);
        is_not::<u64>(&[128; 11], Error::DeserializeBadVarint);
        is_not::<bool>(&[2], Error::DeserializeBadBool);
        is_not::<SocketAddr>(&[2, 0, 0, 0, 0, 0], Error::SerdeDeCustom);
        is_not::<String>(&[1, 0xff], Error::DeserializeBadUtf8);
        // It says how many there are, and there are none: nothing of that size may be asked for.
        let many = [255, 255, 255, 255, 255, 255, 255, 255, 127];
        is_not::<Vec<u64>>(&many, Error::DeserializeUnexpectedEnd);
        is_not::<Vec<u8>>(&many, Error::DeserializeUnexpectedEnd);
        is_not::<serde_bytes::ByteBuf>(&many, Error::DeserializeUnexpectedEnd);
    }
}
