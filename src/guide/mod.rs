//! How an application is written, in six short chapters, each of which needs those before it.
//!
//! 1. [`hello`]: the smallest application, and what it has already.
//! 2. [`routes`]: paths, bodies, answers, layers.
//! 3. [`state`]: what handlers share, and how it goes through a reload.
//! 4. [`push`]: telling clients what happens, when it happens.
//! 5. [`testing`]: with and without sockets.
//! 6. [`deployment`]: stopping, reloading, upgrading.
//!
//! A whole application in below 70 lines is `examples/items.rs`; one with clients that answer is `examples/chat.rs`.

pub mod deployment;
pub mod hello;
pub mod push;
pub mod routes;
pub mod state;
pub mod testing;
