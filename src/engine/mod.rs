//! The engine: one thread that accepts and watches, a pool that drives connections, and what lies between them.

pub mod acceptor;
pub mod connection;
pub mod memory;
pub mod pool;
mod slot;
mod sync;
mod table;
