//! How programs are started, and checked before a reload.

use crate::common::{PATIENCE, Scratch};
use handover::{Candidate, Program, Reads};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

fn shell(script: &str) -> Program {
    let args = ["sh", "-c", script].map(OsString::from).to_vec();
    let environment = ["PATH=/nonexistent:/usr/bin:/bin", "NAME=value", "LISTEN_FDS=1", "HANDOVER_CHECK=no"];
    Program::new(args, environment.map(OsString::from).to_vec())
}

fn candidate(program: &Program) -> Candidate<'_> {
    Candidate::read(program, None, 0).expect("a program")
}

/// The versions that the script says it reads, or why it failed.
fn checked(script: &str) -> Result<Vec<u32>, String> {
    reads(script).map(|reads| reads.states)
}

fn reads(script: &str) -> Result<Reads, String> {
    let shell = shell(script);
    let mut check = candidate(&shell).start_check(true).expect("a shell");
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(checked) = check.outcome().expect("a child of ours") {
            return checked.reads();
        }
        assert!(Instant::now() < until, "it does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_check_says_what_it_reads_or_why_it_failed() {
    assert_eq!(checked("echo handover reads state versions 1,2"), Ok(vec![1, 2]));
    let script = "echo handover reads state versions 1; echo handover knows words of versions 1,2";
    assert_eq!(reads(script).map(|reads| reads.words), Ok(vec![1, 2]));
    let older = reads("echo handover reads state versions 1").map(|reads| reads.words);
    assert_eq!(older, Ok(vec![1]), "the first ones, of which nothing was said");
    let failed = checked("echo nothing; echo first >&2; echo last >&2; exit 3");
    assert_eq!(failed, Err("the check failed with exit code 3: last".to_owned()));
    // Ignored here, as in every program in Rust.
    assert_eq!(checked("kill -s PIPE $$"), Err("the check failed with signal 13: it said nothing".to_owned()));
}

#[test]
fn a_check_has_the_environment_without_what_is_for_another() {
    let script = "test $NAME = value && test $HANDOVER_CHECK = 1 && test -z $LISTEN_FDS && \
                  echo handover reads state versions 1";
    assert_eq!(checked(script), Ok(vec![1]));
}

#[test]
fn a_check_that_is_given_up_is_killed() {
    let begun = Instant::now();
    let scratch = Scratch::new();
    let file = scratch.path("pid");
    let script = format!("echo $$ > {0}.new && mv {0}.new {0} && exec sleep 60", file.display());
    let shell = shell(&script);
    let check = candidate(&shell).start_check(true).expect("a shell");
    while !file.exists() {
        assert!(begun.elapsed() < PATIENCE, "it does not start");
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = std::fs::read_to_string(&file).expect("its pid");
    let process = Path::new("/proc").join(pid.trim());
    assert!(process.exists());
    drop(check);
    assert!(begun.elapsed() < PATIENCE);
    // Reaped as well.
    assert!(!process.exists());
}

#[test]
fn a_check_may_say_more_than_a_pipe_holds() {
    let script = "i=0; while [ $i -lt 3000 ]; do echo a line of some more than sixty bytes, so that three thousand fill pipes; \
                  echo and another one for the other stream, which is as long as the first >&2; i=$((i+1)); done; \
                  echo handover reads state versions 7";
    assert_eq!(checked(script), Ok(vec![7]));
}

#[test]
fn a_program_that_is_not_there_is_told_at_once() {
    let program = Program::new(vec!["/nonexistent/program".into()], Vec::new());
    let error = Candidate::read(&program, None, 0).expect_err("no such program");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
