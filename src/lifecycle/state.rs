//! The versioned state that a predecessor hands to its successor.
//!
//! Four bytes of magic, the version as a little-endian u32, then the fields as `wire.rs` writes them. A reader takes the
//! versions it knows and nothing else; a predecessor asks by the check which these are, before it gives anything away.

use crate::connection::Snapshot;
use crate::wire::{Wire, wire};

/// The versions that this build reads; it writes the last one.
pub const VERSIONS: [u32; 1] = [1];
/// The most that an application may carry over.
pub const CARRY_LIMIT: usize = 16 * 1024 * 1024;

const MAGIC: [u8; 4] = *b"hdov";
const VERSION: u32 = VERSIONS[VERSIONS.len() - 1];

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
#[derive(Debug)]
pub struct InheritedListener {
    /// In exec mode the descriptor's number; in overlap mode its place among those that came with the message.
    pub fd: i32,
    /// The address as it was configured.
    pub address: String,
    /// Device and inode of a Unix socket's file.
    pub file: Option<(u64, u64)>,
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
wire! { struct InheritedListener { fd, address, file } }
wire! { struct Carried { version, bytes } }
wire! { struct MovedConnection { fd, file, snapshot } }
wire! { struct ExecState { inheritance, connections } }

/// What a value is written behind.
pub fn preamble() -> Vec<u8> {
    [MAGIC, VERSION.to_le_bytes()].concat()
}

/// Writes a value with its magic and version.
pub fn encode<T: Wire>(value: &T) -> Vec<u8> {
    let mut bytes = preamble();
    value.put(&mut bytes);
    bytes
}

/// Reads a value, if its version is known.
pub fn decode<T: Wire>(bytes: &[u8]) -> Result<T, String> {
    let mut fields = fields(bytes)?;
    let value = T::take(&mut fields).map_err(|malformed| format!("the state is malformed: {}", malformed.reason()))?;
    if !fields.is_empty() {
        return Err("the state is followed by bytes that do not belong to it".into());
    }
    Ok(value)
}

/// What stands behind the preamble, if the version is known.
fn fields(bytes: &[u8]) -> Result<&[u8], String> {
    let Some((head, fields)) = bytes.split_at_checked(8) else {
        return Err("the state is cut short".into());
    };
    let (magic, version) = head.split_at(4);
    if magic != MAGIC {
        return Err("this is no state of handover's".into());
    }
    let version = u32::from_le_bytes([version[0], version[1], version[2], version[3]]);
    if !VERSIONS.contains(&version) {
        return Err(format!("the state has version {version}, this program reads {VERSIONS:?}"));
    }
    Ok(fields)
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
        let bytes = encode(&state);
        let read: ExecState = decode(&bytes).expect("what was written");
        assert_eq!((read.inheritance.generation, read.inheritance.reload_again), (7, true));
        for cut in 0..bytes.len() {
            assert!(decode::<ExecState>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(decode::<ExecState>(&longer).is_err());
    }

    #[test]
    fn an_unknown_version_is_refused_by_name() {
        let mut bytes = encode(&Counters::default());
        bytes[4] = 99;
        let error = decode::<Counters>(&bytes).expect_err("version 99");
        assert!(error.contains("version 99"), "{error}");
    }

    /// A change here is a new version: the other process may be of another build.
    #[test]
    fn the_first_version_is_written_as_it_was_at_first() {
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
        let versioned = |fields: &[u8]| [b"hdov\x01\0\0\0", fields].concat();
        let mut expected: Vec<_> = snapshots.iter().map(|snapshot| versioned(snapshot)).collect();
        expected.extend([
            b"\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00".to_vec(),
            b"\x01\x01\x0e127.0.0.1:8888".to_vec(),
            b"\n\x01".to_vec(),
            b"\x08\x01".to_vec(),
        ]);
        expected.push(versioned(&state.concat()));
        for (written, expected) in invariants::states().iter().zip(&expected) {
            assert_eq!(written.escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
        assert_eq!(invariants::states().len(), expected.len());
    }
}
