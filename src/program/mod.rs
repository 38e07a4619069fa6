//! How settings are read: the table of them, the flags and the file that both follow it, and what `--check` says.
//!
//! The values themselves, and their defaults, are `crate::config`.

pub mod application;
mod cache_control;
pub mod check;
mod document;
mod file;
mod file_text;
pub mod flags;
#[cfg(test)]
mod manual;
mod own_flags;
pub mod passwd;
pub mod privileges;
pub mod reload;
mod settings;
mod site;
pub mod token;
pub mod top;
mod value;
