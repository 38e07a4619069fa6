//! handover: in progress
mod acceptor;
mod clock;
mod config;
mod connection;
mod error;
mod handler;
mod http;
mod lifecycle;
mod listener;
mod server;
mod slot;
mod table;
mod worker;
mod cli {
    pub fn program_name() -> String {
        "handover".into()
    }
}
mod logging {
    pub fn reopen() {}
}

pub use config::*;
pub use error::Error;
pub use handler::{Body, Handler, IntoResponse, Request, RequestBody, Response, Router};
pub use listener::{Address, Bound};
pub use server::{Builder, Ended, Server, StopHandle, exit_code, generation};
pub use tiny_http::{HTTPVersion, Header, HeaderField, Method, StatusCode};
