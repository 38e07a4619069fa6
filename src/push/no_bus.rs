//! In place of the bus where it was left out of the program (feature `redis`): there is none. A configuration that wants
//! one is refused before (`Config::validate`).

use crate::config::Config;

/// None.
#[derive(Clone, Debug)]
pub enum Settings {}

impl Settings {
    /// None.
    ///
    /// # Errors
    /// None.
    pub fn of(_: &Config) -> Result<Option<Settings>, String> {
        Ok(None)
    }

    /// None.
    ///
    /// # Errors
    /// None.
    pub fn try_out(&self) -> Result<String, String> {
        match *self {}
    }

    /// None.
    pub fn start(self, _: &pubsub::Hub, _: bool) {
        match self {}
    }
}
