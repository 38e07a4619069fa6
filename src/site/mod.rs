//! What the program serves ([`Site`]): the routes of a configuration, a directory ([`Files`]), or, without one, a page
//! that says how ([`Welcome`]).
//!
//! A request for a file goes through the modules in this order, and each is the only one to decide its matter:
//!
//! ```text
//! hosts ─▶ routes ─▶ path ─▶ files ─▶ current ─▶ source ─▶ root ─▶ answer ─▶ conditional ─▶ range
//! ```
//!
//! - `hosts` finds the site that a request is for, by its name, which `names` knows.
//! - `routes` finds what of a site answers the path, and gives the answer the configured fields and error pages.
//! - `guards` knows whom a route lets in, before anything of it is looked at.
//! - `path` turns the path of the request into a name below the root, or refuses it: text only.
//! - `files` decides what answers the name: a file, the index of a directory, a redirect.
//! - `current` knows which directory the path of a root leads to, and sees within a second that it is another one.
//! - `source` opens the file, or the compressed variant of it that the client likes best. `cache` stands in front of it:
//!   files that are asked for often.
//! - `root` opens a name without ever leaving the root, whatever symbolic links say.
//! - `answer` makes the response of a [`Representation`](answer::Representation): validators, 304, 206, 416, 200.
//! - `conditional` and `range` read the fields of the request (RFC 9110 §13 and §14): no I/O, no clock.
//! - `push` gives a path below a prefix of `[[push]]` to its namespace, before all others.
//! - `allowed` says what of the file system that needs, for the threads that may open nothing else.
//! - `listing` shows what is in a directory that has no index, if it may.
//! - `content_type` knows the media types.

mod allowed;
mod answer;
mod cache;
mod content;
mod content_type;
mod current;
mod fields;
mod files;
mod guards;
mod hosts;
#[cfg(any(test, fuzzing))]
pub mod invariants;
mod listing;
mod names;
mod path;
mod push;
mod root;
mod routes;
mod source;
mod welcome;

pub use files::Files;
pub use hosts::Site;
pub use welcome::{FIGURES, Welcome};

#[cfg(test)]
mod testing;
