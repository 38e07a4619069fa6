//! Who may come in by name and password: HTTP's Basic authentication (RFC 7617).
//!
//! - `basic` reads the Authorization of a request and says whether it comes in, or what it is told instead.
//! - `verifier` stands between requests and hashes that are slow on purpose: it remembers what it has found, and lets one
//!   hash be computed at a time.
//! - `users` is a file of users, one a line, as `htpasswd` and nginx know it.
//! - `password` is one of its hashed passwords.

mod basic;
mod password;
mod users;
mod verifier;

pub use basic::{BasicAuth, Refusal, UsersFile};
pub use password::{COSTS, DEFAULT_COST, hash};
pub use users::{MAX_FILE, Users, check_name, edited};
pub use verifier::Verifier;
