//! All tests that start servers, the program or the lab, in one program: to link it anew is most of what a change costs.
//!
//! They run beside each other in one process, so none changes what belongs to the process: its environment, its log, its
//! signals, its working directory. What does is a program of its own, `tests/logging.rs`. Two things are changed once and
//! for all: this process adopts orphans (PR_SET_CHILD_SUBREAPER, see [`common::Program`]), and may have more files open.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod activation;
mod application;
mod chat;
mod cli;
mod config;
mod conformance;
mod engine;
mod events;
mod hosts;
mod landlock;
mod listeners;
mod log;
mod notify;
mod overload;
mod push;
mod push_clients;
mod push_predecessors;
mod push_restarts;
mod push_tokens;
mod reload;
mod reload_command;
mod reload_faults;
mod request_log;
mod requests;
mod rest;
mod site;
mod sockjs;
mod sockjs_reload;
mod sockjs_sessions;
mod status;
mod stop;
mod surroundings;
mod switch;
mod unread;
mod way_back;
mod websocket;
mod wire;

/// The compiler says nothing of a file that nobody declares, and its tests would not run.
#[test]
fn every_file_here_is_a_module() {
    let declared: Vec<&str> =
        include_str!("main.rs").lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).collect();
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration");
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("UTF-8");
        assert!(name == "main" || declared.contains(&name), "{} is in no program", path.display());
    }
}
