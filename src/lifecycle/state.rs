//! The versioned state that a predecessor hands to its successor.
//!
//! Four bytes of magic, the version as a little-endian u32, then the fields as `wire.rs` writes them. A reader takes the
//! versions it knows and nothing else; a predecessor asks by the check which these are, before it gives anything away,
//! and writes the newest that both know, so that also an older program keeps the connections.
//!
//! - Version 1 was the first.
//! - Version 2 is version 1, and behind it what that did not know ([`State`]): the listeners' spare sockets. Several
//!   connections may name the same descriptor of a file, which an exec'ed successor then owns once.

use crate::connection::Snapshot;
use crate::number::decimal;
use crate::wire::{Malformed, Wire, wire};
use std::ops::RangeInclusive;
use std::sync::OnceLock;

/// The newest version that this build reads and writes. It reads those before it as well.
const NEWEST: u32 = 2;
/// From here on several connections may name the same descriptor of a file.
pub const SHARES_FILES: u32 = 2;
/// The most that an application may carry over.
pub const CARRY_LIMIT: usize = 16 * 1024 * 1024;

const MAGIC: [u8; 4] = *b"hdov";

/// The versions of states that this process reads. A test that sets `HANDOVER_TEST_NEWEST` makes it as old as a build
/// that knows no later one, also in what the two say to each other.
pub fn versions() -> RangeInclusive<u32> {
    static NEWEST_HERE: OnceLock<u32> = OnceLock::new();
    let older = || std::env::var("HANDOVER_TEST_NEWEST").ok().and_then(|version| decimal(&version));
    1..=*NEWEST_HERE.get_or_init(|| older().unwrap_or(NEWEST).min(NEWEST))
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

/// What an application carries over: a byte string of its own and the version of its format.
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
}

wire! { struct Inheritance { generation, pid, counters, listeners, carried, reload_again } }
wire! { struct Counters { served, refused, connections, migrated, reloads } }
wire! { struct InheritedListener { fd, address, file; spare } }
wire! { struct Carried { version, bytes } }
wire! { struct MovedConnection { fd, file, snapshot } }
wire! { struct ExecState { inheritance, connections } }

/// What is written with magic and version. As [`Wire`] it is what version 1 knew.
pub trait State: Wire {
    /// Appends what version 2 adds.
    fn put_second(&self, _bytes: &mut Vec<u8>) {}

    /// Takes what version 2 adds.
    fn take_second(&mut self, _bytes: &mut &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

/// What version 2 adds to an [`Inheritance`].
struct InheritanceSecond {
    /// One for each listener.
    spares: Vec<Option<i32>>,
}

wire! { struct InheritanceSecond { spares } }

impl State for Inheritance {
    fn put_second(&self, bytes: &mut Vec<u8>) {
        InheritanceSecond { spares: self.listeners.iter().map(|listener| listener.spare).collect() }.put(bytes);
    }

    fn take_second(&mut self, bytes: &mut &[u8]) -> Result<(), Malformed> {
        let InheritanceSecond { spares } = Wire::take(bytes)?;
        if spares.len() != self.listeners.len() {
            return Err(Malformed::Kind);
        }
        for (listener, spare) in self.listeners.iter_mut().zip(spares) {
            listener.spare = spare;
        }
        Ok(())
    }
}

impl State for ExecState {
    fn put_second(&self, bytes: &mut Vec<u8>) {
        self.inheritance.put_second(bytes);
    }

    fn take_second(&mut self, bytes: &mut &[u8]) -> Result<(), Malformed> {
        self.inheritance.take_second(bytes)
    }
}

impl State for Snapshot {}

/// What a value of that version is written behind.
pub fn preamble(version: u32) -> Vec<u8> {
    [MAGIC, version.to_le_bytes()].concat()
}

/// Writes a value with its magic, in that version.
pub fn encode<T: State>(value: &T, version: u32) -> Vec<u8> {
    let mut bytes = preamble(version);
    value.put(&mut bytes);
    if version >= 2 {
        value.put_second(&mut bytes);
    }
    bytes
}

/// Reads a value, if its version is known.
pub fn decode<T: State>(bytes: &[u8]) -> Result<T, String> {
    let malformed = |malformed: Malformed| format!("the state is malformed: {}", malformed.reason());
    let (version, mut fields) = fields(bytes)?;
    let mut value = T::take(&mut fields).map_err(malformed)?;
    if version >= 2 {
        value.take_second(&mut fields).map_err(malformed)?;
    }
    if !fields.is_empty() {
        return Err("the state is followed by bytes that do not belong to it".into());
    }
    Ok(value)
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

    #[test]
    fn what_is_written_is_read() {
        let state = ExecState {
            inheritance: Inheritance { generation: 7, reload_again: true, ..Inheritance::default() },
            connections: Vec::new(),
        };
        for version in versions() {
            let bytes = encode(&state, version);
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
        assert_eq!(common(&[2, 3, 1]), Some(2));
        assert_eq!(common(&[3]), None);
    }

    #[test]
    fn a_spare_for_no_listener_is_refused() {
        let mut bytes = encode(&Inheritance::default(), 1);
        bytes[4] = 2;
        bytes.extend(b"\x01\x00");
        assert!(decode::<Inheritance>(&bytes).is_err_and(|error| error.contains("malformed")));
    }

    #[test]
    fn an_unknown_version_is_refused_by_name() {
        let mut bytes = encode(&Inheritance::default(), 1);
        bytes[4] = 99;
        let error = decode::<Inheritance>(&bytes).expect_err("version 99");
        assert!(error.contains("version 99"), "{error}");
    }

    /// A change here is a new version: the other process may be of another build.
    #[test]
    fn each_version_is_written_as_it_was_at_first() {
        let connection = b"\x01\x00\x7f\x00\x00\x01\x01\x01\x01\x01\x02\x11GET /b HTTP/1.1\r\n";
        let moments: [&[u8]; 7] = [
            b"\x00",
            b"\x013POST /a HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n\x00\x06\x03abc\x01\x80\x80@\x01\x09\x01",
            b"\x013POST /a HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n\x01\x00\x00\x00\x00\x03abc\x01\x80\x80@\x01\x09\x01",
            b"\x02\x11HTTP/1.1 200 OK\r\n\x00\x01\x06GET /a",
            b"\x02\x11HTTP/1.1 200 OK\r\n\x01\x05hello\x01\x06GET /a",
            b"\x02\x11HTTP/1.1 200 OK\r\n\x02\x01\x09\x01\x06GET /a",
            b"\x03\x02",
        ];
        let snapshots = moments.map(|moment| [connection, moment].concat());
        let moved = snapshots.iter().map(|snapshot| [b"\x08\x01\x0a", &snapshot[..]].concat());
        let state = [
            b"\x01\x00\x00\x00\x00\x00\x00\x01\x06\x0e127.0.0.1:8888\x01\x01\x02\x00\x00\x07".to_vec(),
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
        for (written, expected) in invariants::states().iter().zip(&expected) {
            assert_eq!(written.escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
        assert_eq!(invariants::states().len(), expected.len());
    }
}
