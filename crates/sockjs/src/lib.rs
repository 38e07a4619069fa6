//! SockJS without sockets: its URLs, answers, frames and payloads.
//!
//! What it is held against is the protocol's own suite, [sockjs-protocol](https://github.com/sockjs/sockjs-protocol), in its
//! main branch, and what sockjs-client 1.6 does. No I/O and no clock: requests and times arrive as arguments, and what is to
//! be written is a value.
//!
//! - [`route`] says what a method and a path ask for.
//! - [`Service`] answers whatever needs no session, and has the fields of what does.
//! - [`payload`] reads the messages that clients send.
//! - [`Frame`] is what clients get, and [`Form`] how each transport has it.

mod answer;
mod frame;
pub mod payload;
mod refusal;
mod route;
mod transport;

pub use answer::{Answer, Asked, Field, Origins, Service, check_upgrade};
pub use frame::{Frame, quote};
pub use refusal::Refusal;
pub use route::{Endpoint, Features, Route, SESSION_ID, route};
pub use transport::{Callback, Form, Transport};
