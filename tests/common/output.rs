//! A program that is to end by itself: what it says and how it ends.

use super::PATIENCE;
use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

/// Runs a program to its end. If it wrongly goes on, by starting to serve for example, it is killed and the test fails.
#[track_caller]
pub fn run_to_its_end(command: &mut Command) -> Output {
    if !command.get_envs().any(|(name, _)| name == "RUST_LOG") {
        command.env_remove("RUST_LOG");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let read = out.read_to_end(&mut stdout).and_then(|_| err.read_to_end(&mut stderr));
        let _ = sender.send(read.map(|_| (stdout, stderr)));
    });
    let Ok(read) = ended.recv_timeout(PATIENCE) else {
        child.kill().expect("it runs");
        panic!("{command:?} did not end");
    };
    let (stdout, stderr) = read.expect("its output");
    Output { status: child.wait().expect("it ended"), stdout, stderr }
}
