//! Version 5 of the state: what each has, and behind it the figures that go on.

use super::{SavedFigures, v2, v4};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub struct Inheritance {
    before: v2::Inheritance,
    figures: SavedFigures,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ExecState {
    before: v4::ExecState,
    figures: SavedFigures,
}

impl From<super::Inheritance> for Inheritance {
    fn from(mut value: super::Inheritance) -> Inheritance {
        let figures = std::mem::take(&mut value.figures);
        Inheritance { before: value.into(), figures }
    }
}

impl TryFrom<Inheritance> for super::Inheritance {
    type Error = &'static str;

    fn try_from(Inheritance { before, figures }: Inheritance) -> Result<super::Inheritance, &'static str> {
        Ok(super::Inheritance { figures, ..before.try_into()? })
    }
}

impl From<super::ExecState> for ExecState {
    fn from(mut value: super::ExecState) -> ExecState {
        let figures = std::mem::take(&mut value.inheritance.figures);
        ExecState { before: value.into(), figures }
    }
}

impl TryFrom<ExecState> for super::ExecState {
    type Error = String;

    fn try_from(ExecState { before, figures }: ExecState) -> Result<super::ExecState, String> {
        let mut state = super::ExecState::try_from(before)?;
        state.inheritance.figures = figures;
        Ok(state)
    }
}
