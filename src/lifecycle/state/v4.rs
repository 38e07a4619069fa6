//! Version 4 of the state: version 3 with snapshots that know WebSockets and sessions, and the sessions behind it.

use super::connection::SavedSession;
use super::{Snapshot, v3};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub struct ExecState {
    state: v3::ExecState<Snapshot>,
    sessions: Vec<SavedSession>,
}

impl From<super::ExecState> for ExecState {
    fn from(mut value: super::ExecState) -> ExecState {
        let sessions = std::mem::take(&mut value.sessions);
        ExecState { state: value.into(), sessions }
    }
}

impl TryFrom<ExecState> for super::ExecState {
    type Error = String;

    fn try_from(ExecState { state, sessions }: ExecState) -> Result<super::ExecState, String> {
        Ok(super::ExecState { sessions, ..state.try_into()? })
    }
}
