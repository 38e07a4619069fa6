//! The program: arguments → `Config` → `Server` → exit code; or `handover reload`, `token`, `top` or `passwd`.

use handover::{Config, Ended, Error, Server, Site};
use std::process::ExitCode;

fn main() -> ExitCode {
    handover::require_stack();
    run()
}

// Apart from what is looked at before, which may be all that there is room for.
#[inline(never)]
fn run() -> ExitCode {
    let command = handover::reload_command(std::env::args_os());
    let command = command.or_else(|| handover::token_command(std::env::args_os()));
    let command = command.or_else(|| handover::top_command(std::env::args_os()));
    match command.or_else(|| handover::passwd_command(std::env::args_os())) {
        Some(exit_code) => exit_code,
        None => handover::exit_code(serve(Config::from_args_with_root())),
    }
}

/// What cannot be served fails before anything is bound.
fn serve(config: Config) -> Result<Ended, Error> {
    let site = Site::open(&config)?;
    let mut server = Server::builder();
    if let Some(hub) = site.hub() {
        server = server.hub(hub);
    }
    server = server.confine(Site::allowed_paths(&config));
    // It has no children but those of a reload; as pid 1 of a container it gets everybody's. And its memory is the server's.
    server.service(site).config(config).reap_orphans(true).give_back_at_rest(true).build()?.run()
}
