//! Version 4 of the state: connections may be WebSockets.

use super::{Snapshot, v2};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

#[derive(Debug, Serialize, Deserialize)]
pub struct ExecState {
    inheritance: v2::Inheritance,
    connections: Vec<MovedConnection>,
    hub: Option<ByteBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MovedConnection {
    fd: i32,
    file: Option<i32>,
    snapshot: Snapshot,
}

impl From<super::ExecState> for ExecState {
    fn from(value: super::ExecState) -> ExecState {
        let super::ExecState { inheritance, connections, hub } = value;
        let moved = |super::MovedConnection { fd, file, snapshot }| MovedConnection { fd, file, snapshot };
        let connections = connections.into_iter().map(moved).collect();
        ExecState { inheritance: inheritance.into(), connections, hub: hub.map(ByteBuf::from) }
    }
}

impl TryFrom<ExecState> for super::ExecState {
    type Error = &'static str;

    fn try_from(value: ExecState) -> Result<super::ExecState, &'static str> {
        let ExecState { inheritance, connections, hub } = value;
        let moved = |MovedConnection { fd, file, snapshot }| super::MovedConnection { fd, file, snapshot };
        let connections = connections.into_iter().map(moved).collect();
        Ok(super::ExecState { inheritance: inheritance.try_into()?, connections, hub: hub.map(ByteBuf::into_vec) })
    }
}
