//! The versioned state that a predecessor hands to its successor.
//!
//! Four bytes of magic, the version as a little-endian u32, then the fields in postcard's format. A reader takes the
//! versions it knows and nothing else; a predecessor asks by the check which these are, before it gives anything away.

use crate::connection::Snapshot;
use serde::{Deserialize, Serialize};

/// The versions that this build reads; it writes the last one.
pub const VERSIONS: [u32; 1] = [1];
/// The most that an application may carry over.
pub const CARRY_LIMIT: usize = 16 * 1024 * 1024;

const MAGIC: [u8; 4] = *b"hdov";
const VERSION: u32 = VERSIONS[VERSIONS.len() - 1];

/// What every successor inherits.
#[derive(Debug, Default, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub served: u64,
    pub refused: u64,
    pub connections: u64,
    pub migrated: u64,
    pub reloads: u64,
}

/// A listener's descriptor, and what it was bound for.
#[derive(Debug, Serialize, Deserialize)]
pub struct InheritedListener {
    /// In exec mode the descriptor's number; in overlap mode its place among those that came with the message.
    pub fd: i32,
    /// The address as it was configured.
    pub address: String,
    /// Device and inode of a Unix socket's file.
    pub file: Option<(u64, u64)>,
}

/// What an application carries over: a byte string of its own and the version of its format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The application's own version of what the bytes mean.
    pub version: u32,
    /// At most 16 MiB.
    pub bytes: Vec<u8>,
}

/// A connection and the numbers of its descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub struct MovedConnection {
    pub fd: i32,
    pub file: Option<i32>,
    pub snapshot: Snapshot,
}

/// The whole state in exec mode.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ExecState {
    pub inheritance: Inheritance,
    pub connections: Vec<MovedConnection>,
}

/// Writes a value with its magic and version.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    postcard::to_extend(value, bytes).map_err(|error| format!("cannot write the state: {error}"))
}

/// Reads a value, if its version is known.
pub fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, String> {
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
    match postcard::take_from_bytes(fields) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err("the state is followed by bytes that do not belong to it".into()),
        Err(error) => Err(format!("the state is malformed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let state = ExecState {
            inheritance: Inheritance { generation: 7, reload_again: true, ..Inheritance::default() },
            connections: Vec::new(),
        };
        let bytes = encode(&state).expect("plain data");
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
        let mut bytes = encode(&Counters::default()).expect("plain data");
        bytes[4] = 99;
        let error = decode::<Counters>(&bytes).expect_err("version 99");
        assert!(error.contains("version 99"), "{error}");
    }
}
