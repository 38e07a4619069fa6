//! The manual pages and the completions of shells in `contrib/`, made from what the program says elsewhere: the table of
//! settings, the tables of the README, the comments of `examples/handover.toml`, the help of its commands.
//!
//! A test, and so no part of the program: `HANDOVER_RENEW=1 cargo test --lib manual` writes the files anew.

mod command;
mod completions;
mod page_of_file;
mod page_of_program;
mod roff;
mod tables;

use super::settings::{Kind, Only, Setting};
use crate::config::{BusDown, LogFormat, ReloadMode, RequestLogFormat, StatusAccess, size_text};
use crate::program::value::MAX_SECONDS;
use std::fs;
use std::path::Path;

const README: &str = include_str!("../../../README.md");
const EXAMPLE: &str = include_str!("../../../examples/handover.toml");
const PROGRAM: &str = env!("CARGO_PKG_NAME");

/// Each file, and what has to be in it.
fn files() -> [(&'static str, String); 5] {
    [
        ("contrib/man/handover.1", page_of_program::page()),
        ("contrib/man/handover.toml.5", page_of_file::page()),
        ("contrib/completions/handover.bash", completions::bash()),
        ("contrib/completions/_handover", completions::zsh()),
        ("contrib/completions/handover.fish", completions::fish()),
    ]
}

#[test]
fn pages_and_completions_say_what_the_program_says() {
    for (name, made) in files() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        if std::env::var_os("HANDOVER_RENEW").is_some() {
            fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            fs::write(&file, &made).expect(name);
        }
        let there = fs::read_to_string(&file).unwrap_or_default();
        let place = there.lines().zip(made.lines()).take_while(|(there, made)| there == made).count() + 1;
        assert!(
            there == made,
            "{name}:{place} is not what the program says; `HANDOVER_RENEW=1 cargo test --lib manual` renews it"
        );
    }
}

/// What a shell can complete a value with.
enum Completed {
    File,
    User,
    Words(Vec<&'static str>),
    /// What nobody but the user knows.
    Nothing,
}

fn names<T>(all: &[(&'static str, T)]) -> Vec<&'static str> {
    all.iter().map(|(name, _)| *name).collect()
}

/// The words that a setting may be, if there are few.
fn words(setting: &Setting) -> Option<Vec<&'static str>> {
    match setting.kind {
        Kind::Mode => Some(names(&ReloadMode::ALL)),
        Kind::LogFormat => Some(names(&LogFormat::ALL)),
        Kind::Format => Some(names(&RequestLogFormat::ALL)),
        Kind::Status => Some(names(&StatusAccess::ALL)),
        Kind::Down => Some(names(&BusDown::ALL)),
        Kind::Level => Some(vec!["off", "error", "warn", "info", "debug", "trace"]),
        _ => None,
    }
}

fn completed(setting: &Setting) -> Completed {
    match setting.kind {
        Kind::Path(_) | Kind::PathOrStdout(_) | Kind::Only(Only::Config) => Completed::File,
        Kind::Name(_) => Completed::User,
        _ => words(setting).map_or(Completed::Nothing, Completed::Words),
    }
}

/// What a key may be, in words.
fn allowed(setting: &Setting) -> String {
    let sizes = |low: u64, high: u64| match high {
        u64::MAX => "size".to_owned(),
        _ => format!("size, {} to {}", size_text(low), size_text(high)),
    };
    match &setting.kind {
        Kind::Addresses => "array of addresses".to_owned(),
        Kind::Number(_, allowed) => format!("whole number, {} to {}", allowed.start(), allowed.end()),
        // On a host of 32 bits the number is the same.
        Kind::AtMost(_, allowed) => format!("whole number, {} to {}", allowed.start(), allowed.end()),
        Kind::Size(_, allowed) | Kind::MaybeSize(_, allowed) | Kind::Room(_, allowed) | Kind::MaybeRoom(_, allowed) => {
            sizes(*allowed.start(), *allowed.end())
        }
        Kind::Rate(_, allowed) => format!("bytes a second, {} to {}", allowed.start(), size_text(*allowed.end())),
        Kind::Seconds(_, least) => format!("seconds, {} to {MAX_SECONDS}", least.as_secs_f64()),
        Kind::Path(_) => "path".to_owned(),
        Kind::PathOrStdout(_) => "path, or \"-\"".to_owned(),
        Kind::Name(_) => "name or number".to_owned(),
        Kind::Word(_) => "name".to_owned(),
        Kind::Url => "redis://[USER@]HOST[:PORT][/DB], the same with rediss, or redis+unix:///PATH".to_owned(),
        Kind::Level => "level, or TARGET=LEVEL".to_owned(),
        Kind::On(_) | Kind::Off(_) => "true or false".to_owned(),
        Kind::Mode | Kind::LogFormat | Kind::Format | Kind::Status | Kind::Down => {
            words(setting).expect("it has some").iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
        }
        Kind::Only(_) => String::new(),
    }
}
