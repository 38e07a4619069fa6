//! The smallest application, and what it has already.
//!
//! ```no_run
//! use handover::{Config, Server};
//!
//! fn main() -> std::process::ExitCode {
//!     let server = Server::builder().config(Config::from_args()).handler(|_| "hello world\n").build();
//!     handover::exit_code(server.and_then(Server::run))
//! }
//! ```
//!
//! In its `Cargo.toml`, with the repository of this library beside it:
//!
//! ```toml
//! [dependencies]
//! handover = { path = "../handover" }
//! serde = { version = "1", features = ["derive"] } # for bodies as types
//! ```
//!
//! A handler takes a request and answers something: text, bytes, a file, JSON. It runs on one of a few threads, and may
//! block; a slow client holds memory and never a thread.
//!
//! [`Config::from_args`](crate::Config::from_args) gives the program the server's flags, `--help` lists them:
//!
//! ```text
//! $ hello --listen 127.0.0.1:8080 --workers 8 --pid-file hello.pid
//! listening on http://127.0.0.1:8080
//! ready pid=4242 workers=8 generation=1
//! ```
//!
//! - Ctrl-C and TERM stop it: what is under way is finished, for up to 10 s, and nobody who has connected is reset.
//! - HUP reloads it: a fresh execution of the program on disk goes on with the connections. See [`deployment`](super::deployment).
//! - `/-/ready` is answered by the server itself, and for clients of this host `/-/status` and `/-/metrics` as well.
//! - Limits stand for whatever a client does; a body is 1 MiB at the most, for one. `--check` says them all.
//! - [`exit_code`](crate::exit_code) tells a supervisor whether something was lost, or prints what is wrong in one line.
//!
//! With a version and flags of its own it is an [`Application`](crate::Application).
//!
//! Next: [`routes`](super::routes).
