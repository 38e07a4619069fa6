//! A synchronous HTTP/1.1 server for small hosts: a fixed pool of workers, no async runtime, and a stop under load
//! that no client notices.
//!
//! ```no_run
//! use handover::{Config, Request, Server};
//!
//! fn main() -> std::process::ExitCode {
//!     let server = Server::builder()
//!         .config(Config::from_args())
//!         .handler(|request: &mut Request| format!("hello from {}\n", request.path()));
//!     handover::exit_code(server.build().and_then(Server::run))
//! }
//! ```
//!
//! # The data path
//!
//! ```text
//! listener ─▶ acceptor ─▶ channel ─▶ worker ─▶ connection ─▶ parser ─▶ handler ─▶ response writer
//!    ▲           ▲  (crossbeam)                                                        │
//!    │           └────────────────── park: wait for the next readiness ◀───────────────┘
//!   bind
//! ```
//!
//! The acceptor thread accepts, watches every parked connection and enforces the deadlines. A worker takes a ready
//! connection, drives its state machine as far as it goes without waiting for the client, and gives it back. So a slow
//! client holds memory, never a worker; only handlers may block.
//!
//! Requests and responses speak `tiny_http`'s vocabulary: [`Method`], [`StatusCode`], [`Header`], and [`Response`],
//! which is `tiny_http::Response` with our [`Body`].

mod access;
mod api;
mod clock;
mod closest;
mod config;
mod engine;
mod error;
mod generation;
pub mod guide;
mod lifecycle;
mod listener;
mod logging;
mod pages;
mod program;
mod push;
mod server;
mod site;
mod stopping;
mod sys;
pub mod test;

/// The examples of the README are compiled as those here are.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// What the fuzz targets call; in no other build.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::engine::connection::invariants::state;
    pub use crate::lifecycle::invariants::{decoder, states};
    pub use crate::site::invariants::{below, path};
}

#[cfg(test)]
#[path = "../tests/common/cases.rs"]
#[allow(dead_code, reason = "what judges answers is for the tests of a server")]
mod cases;
#[cfg(test)]
mod properties;

#[cfg(feature = "json")]
pub use api::Json;
pub use api::{
    Body, Closed, Extensions, Handler, Html, IntoResponse, Layered, Next, Redirect, Rejection, Request, RequestBody,
    Response, Router,
};
pub use config::{
    AllowedPaths, BusConfig, BusDown, BusUrl, Config, ConfigFile, DEFAULT_EXEC_STALL, DEFAULT_LISTEN,
    DEFAULT_RELOAD_DEADLINE, DEFAULT_RELOAD_PROBATION, DEFAULT_STOP_DEADLINE, DEFAULT_WORKER_STACK, DEFAULT_WORKERS,
    HostConfig, Limits, LogFormat, MAX_CONNECTIONS, MAX_WORKERS, PushConfig, ReloadMode, RequestLogFormat, SiteConfig,
    StatusAccess,
};
pub use error::Error;
pub use generation::generation;
/// For the tests of how a program checks itself.
#[doc(hidden)]
pub use lifecycle::candidate::Candidate;
pub use lifecycle::program::CHECK as CHECK_VARIABLE;
#[doc(hidden)]
pub use lifecycle::program::{Program, Reads};
pub use lifecycle::signals::spawn;
pub use lifecycle::state::Carried;
pub use listener::{Address, Bound};
pub use logging::{Log, init_logging};
pub use program::application::{Application, Arguments};
pub use program::flags::Parsed;
/// The program's own: what it does that is no server.
#[doc(hidden)]
pub use program::flags::require_stack;
#[doc(hidden)]
pub use program::passwd::passwd_command;
#[doc(hidden)]
pub use program::reload::reload_command;
#[doc(hidden)]
pub use program::token::token_command;
#[doc(hidden)]
pub use program::top::top_command;
pub use push::{
    BadEvent, BadTopic, Client, ClientId, Conversation, ConversationService, Hub, Incoming, Message, Namespace,
    Outgoing, Position, PublishError, Publishers, SendError, SockJs, Subscribe, SubscribeError, Subscribers, Token,
    TokenKeys, TopicFigures,
};
pub use server::{Background, Builder, Ended, Server, StopHandle, exit_code};
pub use site::{Files, Site, Welcome};
pub use stopping::stopping;
pub use tiny_http::{HTTPVersion, Header, HeaderField, Method, StatusCode};
