//! What the program serves ([`Site`]): the routes of a configuration, a directory ([`Files`]), or, without one, a page
//! that says how ([`Welcome`]).
//!
//! A request for a file goes through the modules in this order, and each is the only one to decide its matter:
//!
//! ```text
//! routes ─▶ path ─▶ root ─▶ files ─▶ answer ─▶ conditional ─▶ range
//! ```
//!
//! - `routes` finds what answers the path, and gives the answer the configured fields and error pages.
//! - `path` turns the path of the request into a name below the root, or refuses it: text only.
//! - `root` opens that name without ever leaving the root, whatever symbolic links say.
//! - `files` sees what was opened: a file, a directory to redirect to, something not to be served.
//! - `answer` makes the response of a [`Representation`](answer::Representation): validators, 304, 206, 416, 200.
//! - `conditional` and `range` read the fields of the request (RFC 9110 §13 and §14): no I/O, no clock.
//! - `content_type` knows the media types.
//!
//! The joints for what is not here yet: pre-compressed variants, a cache of hot files and a directory listing belong
//! between `root` and `answer`, where `files` chooses; cache rules are fields of the representation.

mod answer;
mod conditional;
mod content_type;
mod files;
#[cfg(any(test, fuzzing))]
pub mod invariants;
mod path;
mod range;
mod root;
mod routes;
mod welcome;

pub use files::Files;
pub use routes::Site;
pub use welcome::Welcome;

#[cfg(test)]
mod testing;
