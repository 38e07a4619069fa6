//! Version 2 of the state: version 1, and behind it the listeners' spare sockets.

use super::{InheritedListener, v1};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub struct Inheritance {
    first: v1::Inheritance,
    spares: Spares,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ExecState {
    first: v1::ExecState,
    spares: Spares,
}

/// One for each listener.
#[derive(Debug, Serialize, Deserialize)]
struct Spares(Vec<Option<i32>>);

impl Spares {
    fn of(listeners: &[InheritedListener]) -> Spares {
        Spares(listeners.iter().map(|listener| listener.spare).collect())
    }

    fn give_to(self, listeners: &mut [InheritedListener]) -> Result<(), &'static str> {
        if self.0.len() != listeners.len() {
            return Err("it has not one spare for each listener");
        }
        for (listener, spare) in listeners.iter_mut().zip(self.0) {
            listener.spare = spare;
        }
        Ok(())
    }
}

impl From<super::Inheritance> for Inheritance {
    fn from(value: super::Inheritance) -> Inheritance {
        Inheritance { spares: Spares::of(&value.listeners), first: value.into() }
    }
}

impl TryFrom<Inheritance> for super::Inheritance {
    type Error = &'static str;

    fn try_from(value: Inheritance) -> Result<super::Inheritance, &'static str> {
        let mut inheritance = super::Inheritance::from(value.first);
        value.spares.give_to(&mut inheritance.listeners)?;
        Ok(inheritance)
    }
}

impl From<super::ExecState> for ExecState {
    fn from(value: super::ExecState) -> ExecState {
        ExecState { spares: Spares::of(&value.inheritance.listeners), first: value.into() }
    }
}

impl TryFrom<ExecState> for super::ExecState {
    type Error = &'static str;

    fn try_from(value: ExecState) -> Result<super::ExecState, &'static str> {
        let mut state = super::ExecState::try_from(value.first)?;
        value.spares.give_to(&mut state.inheritance.listeners)?;
        Ok(state)
    }
}
