//! Fixtures: a server in this process ([`TestServer`]), one in a process of its own ([`Program`]), a client that
//! speaks raw bytes and never waits for ever ([`RawClient`]), the data files ([`Case`]), and the oracle of push
//! ([`Subscribers`]).

mod cases;
mod client;
mod event_stream;
mod load;
mod output;
mod program;
mod reloading;
mod server;
pub mod sockjs;
mod subscribers;
pub mod websocket;

pub use cases::{Case, Expected, Target, Then};
pub use client::{Answer, Ending, RawClient, parse_bound};
pub use event_stream::EventStream;
pub use load::Load;
pub use output::run_to_its_end;
pub use program::{
    AS_ROOT, OnDisk, Program, Scratch, Size, children, count, descriptors_with_room_for, limit_open_files, write_script,
};
pub use reloading::{Mode, counter, lab, reloading, replaceable_lab};
pub use server::{Gate, LATE, Passage, TestServer, gated, gated_beside, hello, patient};
pub use subscribers::{Heard, Plan, Published, Publishers, Subscribers};
pub use websocket::WebSocket;

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before its test fails. Nothing waits for it to pass, so it costs only a failing test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds, for what has no event to wait for.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
