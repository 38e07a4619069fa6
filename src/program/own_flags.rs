//! What a command line has that is an application's and not the server's.

use std::ffi::OsString;

/// A flag of an application's own.
#[derive(Clone, Debug)]
pub struct OwnFlag {
    /// Without its dashes.
    pub name: String,
    /// What it takes, as help and messages call it; a switch takes nothing.
    pub takes: Option<String>,
    pub help: String,
}

/// What was said of them, in order: which, and its value.
pub type OwnSaid = Vec<(String, Option<OsString>)>;
