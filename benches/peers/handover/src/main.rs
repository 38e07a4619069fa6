//! An application on handover, with its flags: `-l ADDRESS`. Files are the program's own matter.

use handover::{Config, Request, Router, Server};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

fn main() -> ExitCode {
    let routes = Router::new()
        .get("/hello", |_| "hello world")
        .get("/block/{ms}", |request: &mut Request| {
            let ms = request.param("ms").and_then(|ms| ms.parse().ok()).unwrap_or(0);
            thread::sleep(Duration::from_millis(ms));
            "blocked"
        })
        .post("/echo", |request: &mut Request| request.body_bytes());
    let server = Server::builder().config(Config::from_args()).service(routes).build();
    handover::exit_code(server.and_then(Server::run))
}
