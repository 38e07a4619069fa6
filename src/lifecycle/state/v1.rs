//! Version 1 of the state. The link's first words have parts of it, too.

use super::InheritedListener;
use super::connection::Unsubscribed;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub struct Inheritance {
    generation: u64,
    pid: u32,
    counters: Counters,
    listeners: Vec<Listener>,
    carried: Option<Carried>,
    reload_again: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Counters {
    served: u64,
    refused: u64,
    connections: u64,
    migrated: u64,
    reloads: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Listener {
    fd: i32,
    address: String,
    file: Option<(u64, u64)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Carried {
    version: u32,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ExecState {
    inheritance: Inheritance,
    connections: Vec<MovedConnection>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MovedConnection {
    fd: i32,
    file: Option<i32>,
    snapshot: Unsubscribed,
}

impl From<super::Inheritance> for Inheritance {
    fn from(value: super::Inheritance) -> Inheritance {
        let super::Inheritance { generation, pid, counters, listeners, carried, reload_again, figures: _ } = value;
        Inheritance {
            generation,
            pid,
            counters: counters.into(),
            listeners: listeners.into_iter().map(Into::into).collect(),
            carried: carried.map(|super::Carried { version, bytes }| Carried { version, bytes }),
            reload_again,
        }
    }
}

impl From<Inheritance> for super::Inheritance {
    fn from(value: Inheritance) -> super::Inheritance {
        let Inheritance { generation, pid, counters, listeners, carried, reload_again } = value;
        super::Inheritance {
            generation,
            pid,
            counters: counters.into(),
            listeners: listeners.into_iter().map(Into::into).collect(),
            carried: carried.map(|Carried { version, bytes }| super::Carried { version, bytes }),
            reload_again,
            figures: super::SavedFigures::default(),
        }
    }
}

impl From<super::Counters> for Counters {
    fn from(value: super::Counters) -> Counters {
        let super::Counters { served, refused, connections, migrated, reloads } = value;
        Counters { served, refused, connections, migrated, reloads }
    }
}

impl From<Counters> for super::Counters {
    fn from(value: Counters) -> super::Counters {
        let Counters { served, refused, connections, migrated, reloads } = value;
        super::Counters { served, refused, connections, migrated, reloads }
    }
}

impl From<InheritedListener> for Listener {
    fn from(value: InheritedListener) -> Listener {
        // A spare socket is what this version does not know.
        let InheritedListener { fd, address, file, spare: _ } = value;
        Listener { fd, address, file }
    }
}

impl From<Listener> for InheritedListener {
    fn from(value: Listener) -> InheritedListener {
        let Listener { fd, address, file } = value;
        InheritedListener { fd, address, file, spare: None }
    }
}

impl From<super::ExecState> for ExecState {
    fn from(value: super::ExecState) -> ExecState {
        let moved =
            |super::MovedConnection { fd, file, snapshot }| MovedConnection { fd, file, snapshot: snapshot.into() };
        ExecState {
            inheritance: value.inheritance.into(),
            connections: value.connections.into_iter().map(moved).collect(),
        }
    }
}

impl TryFrom<ExecState> for super::ExecState {
    type Error = &'static str;

    fn try_from(value: ExecState) -> Result<super::ExecState, &'static str> {
        let moved = |MovedConnection { fd, file, snapshot }| {
            Ok(super::MovedConnection { fd, file, snapshot: snapshot.try_into()? })
        };
        Ok(super::ExecState {
            inheritance: value.inheritance.into(),
            connections: value.connections.into_iter().map(moved).collect::<Result<_, &'static str>>()?,
            hub: None,
            sessions: Vec::new(),
        })
    }
}
