//! The recipe's demo: "hello world" on port 8888; TERM waits up to 10 s for pending requests.
//!
//! ```text
//! cargo run --release --example hello
//! curl http://127.0.0.1:8888/
//! ```

use handover::{Config, Server};
use std::process::ExitCode;

fn main() -> ExitCode {
    let server = Server::builder().config(Config::from_args()).handler(|_| "hello world").build();
    handover::exit_code(server.and_then(Server::run))
}
