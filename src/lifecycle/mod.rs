//! How a server begins and ends: the phase it is in, the signals that drive it.

pub mod exec;
#[cfg_attr(not(test), expect(dead_code, reason = "for the reload, which is being built"))]
pub mod notify;
mod phase;
#[cfg_attr(not(test), expect(dead_code, reason = "for the reload, which is being built"))]
pub mod pid_file;
pub mod program;
pub mod signals;
pub mod state;

pub use phase::Phase;

/// What can happen to a running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Stop gracefully; said again, at once.
    Stop,
    /// Stop at once.
    StopNow,
    /// Run the program on disk afresh.
    Reload,
    /// Open the log files again.
    Reopen,
}
