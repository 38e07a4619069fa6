//! Version 3 of the state: connections may be subscribers, and there is the log of their hub. Version 4 has it with other
//! snapshots.

use super::{Snapshot, v2};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::fmt;

/// `S` is a snapshot as its version has it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExecState<S> {
    inheritance: v2::Inheritance,
    connections: Vec<MovedConnection<S>>,
    hub: Option<ByteBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MovedConnection<S> {
    fd: i32,
    file: Option<i32>,
    snapshot: S,
}

impl<S: From<Snapshot>> From<super::ExecState> for ExecState<S> {
    fn from(value: super::ExecState) -> ExecState<S> {
        let super::ExecState { inheritance, connections, hub, sessions: _ } = value;
        let moved = |super::MovedConnection { fd, file, snapshot }| {
            let snapshot = snapshot.into();
            MovedConnection { fd, file, snapshot }
        };
        let connections = connections.into_iter().map(moved).collect();
        ExecState { inheritance: inheritance.into(), connections, hub: hub.map(ByteBuf::from) }
    }
}

impl<S: TryInto<Snapshot, Error: fmt::Display>> TryFrom<ExecState<S>> for super::ExecState {
    type Error = String;

    fn try_from(value: ExecState<S>) -> Result<super::ExecState, String> {
        let ExecState { inheritance, connections, hub } = value;
        let moved = |MovedConnection { fd, file, snapshot }| {
            let snapshot = TryInto::<Snapshot>::try_into(snapshot).map_err(|error: S::Error| error.to_string())?;
            Ok(super::MovedConnection { fd, file, snapshot })
        };
        let connections = connections.into_iter().map(moved).collect::<Result<_, String>>()?;
        let inheritance = inheritance.try_into().map_err(str::to_owned)?;
        Ok(super::ExecState { inheritance, connections, hub: hub.map(ByteBuf::into_vec), sessions: Vec::new() })
    }
}
