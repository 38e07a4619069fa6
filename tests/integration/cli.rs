//! The program's mistakes: one clear line on stderr, and the exit code that `--help` lists.

use crate::common::run_to_its_end;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

fn handover(args: &[&str]) -> Output {
    run_to_its_end(Command::new(env!("CARGO_BIN_EXE_handover")).args(args))
}

#[track_caller]
fn fails(args: &[&str], code: i32, says: &[&str]) {
    let output = handover(args);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?} wrote to stdout");
    assert!(stderr.starts_with("handover: ") && stderr.ends_with('\n'), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    for part in says {
        assert!(stderr.contains(part), "{args:?} does not say {part:?}: {stderr}");
    }
}

#[test]
fn usage_errors_exit_2_and_say_what_would_help() {
    let help = "(try --help)";
    fails(&["--lisen", "127.0.0.1:0"], 2, &["unknown flag --lisen, did you mean --listen?", help]);
    fails(&["-x"], 2, &["unknown flag -x", help]);
    fails(&["--workers"], 2, &["--workers needs a value: --workers N", help]);
    fails(&["--workers", "many"], 2, &["--workers is \"many\"", "1 to 1024", help]);
    fails(&["--stop-deadline", "-1"], 2, &["--stop-deadline is \"-1\"", "seconds", help]);
    fails(&["--check=yes"], 2, &["--check takes no value", help]);
    fails(&["--listen", "nowhere"], 2, &["--listen", "nowhere", help]);
    fails(&["one", "two"], 2, &["unexpected argument \"two\"", help]);
}

#[test]
fn a_missing_root_exits_2_and_names_it() {
    fails(&["-l", "127.0.0.1:0", "/nowhere/at/all"], 2, &["/nowhere/at/all"]);
}

#[test]
fn an_address_in_use_exits_69_and_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    fails(&["-l", &address], 69, &[&address, "in use"]);
}

#[test]
fn a_log_file_that_cannot_be_opened_exits_78_and_says_why_in_words() {
    let in_the_way = ("/", "it is a directory");
    for (path, words) in [("/nowhere/at/all.log", "its directory does not exist"), in_the_way] {
        fails(&["-l", "127.0.0.1:0", "--log-file", path], 78, &[path, words]);
        fails(&["--check", "--log-file", path], 78, &[path, words]);
    }
}

/// `env_logger` takes it for the name of a crate, and logs nothing else, errors included.
#[test]
fn a_misspelt_log_level_exits_2_instead_of_switching_the_log_off() {
    for (level, hint) in
        [("inof", "did you mean info?"), ("handover=debgu", "did you mean debug?"), ("nonsense", "LEVEL")]
    {
        for flags in [&["-l", "127.0.0.1:0"][..], &["--check"]] {
            let output =
                run_to_its_end(Command::new(env!("CARGO_BIN_EXE_handover")).args(flags).env("RUST_LOG", level));
            let stderr = String::from_utf8(output.stderr).expect("UTF-8");
            assert_eq!(output.status.code(), Some(2), "{level}: {stderr}");
            let begins = format!("handover: RUST_LOG is \"{level}\" with ");
            assert!(stderr.starts_with(&begins) && stderr.contains(hint) && stderr.lines().count() == 1, "{stderr}");
        }
    }
    for level in ["INFO", "handover=debug", "handover::site", "mio=off,warn", ""] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
        let output = run_to_its_end(command.arg("--check").env("RUST_LOG", level));
        assert!(output.status.success(), "{level}: {output:?}");
    }
}

#[test]
fn help_and_version_go_to_stdout_and_exit_0() {
    for (flag, says) in [("--help", "Usage: handover [OPTIONS] [ROOT]"), ("-V", env!("CARGO_PKG_VERSION"))] {
        let output = handover(&[flag]);
        assert!(output.status.success() && output.stderr.is_empty(), "{flag}: {output:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(text.contains(says), "{flag} does not say {says:?}: {text}");
    }
}

#[test]
fn check_binds_nothing_and_exits_0() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let output = handover(&["--check", "-l", &address, root.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{output:?}");
}
