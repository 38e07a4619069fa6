//! `handover token`: makes a token for who is to subscribe or publish.

use super::value::MAX_SECONDS;
use crate::push::{Token, TokenKeys};
use http1::number::decimal;
use lexopt::{Arg, Parser};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The first argument that asks for it. A directory of that name is served as `./token`.
const NAME: &str = "token";
const DEFAULT_EXPIRES: Duration = Duration::from_secs(3600);

pub(super) const HELP: &str = "\
Usage: handover token --key-file FILE [--subscribe TOPIC...]
                      [--publish TOPIC...] [--expires SECS] [--subject NAME]

Prints a token for push: an HS256 JSON Web Token that lets its owner subscribe
and publish to these topics. It needs no server.

      --key-file FILE       the token_key_file of [[push]]; its first key signs
      --subscribe TOPIC...  may subscribe to these; '*' is every topic
      --publish TOPIC...    may publish to these; '*' is every topic
      --expires SECS        is good for so long [3600]
      --subject NAME        whose it is: each has Idempotency-Keys of their own
  -h, --help                this text

A key file has one key a line, in base64, and a second one while keys are
replaced:  (umask 077; openssl rand -base64 32 > push.key)

Exit codes  0 the token stands on stdout
            1 there is none; the reason stands on stderr in one line
            2 wrong usage
";

/// What the command line asks for, its program's name included, if that is a token.
pub fn token_command(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    (args.next()? == NAME).then(|| run(args))
}

/// Runs the command; `args` are what follows `token`.
fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let failed = |why: String| (format!("handover token: {why}\n"), 1_u8);
    let (text, code) = match parse(args) {
        Ok(None) => (HELP.to_owned(), 0),
        Err(mistake) => (format!("handover token: {mistake} (try handover token --help)\n"), 2),
        Ok(Some(Request { key_file, token })) => match TokenKeys::read(key_file) {
            Ok(keys) => (format!("{}\n", token.sign(&keys)), 0),
            Err(error) => failed(error.to_string()),
        },
    };
    let written = match code {
        0 => io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()),
        _ => io::stderr().write_all(text.as_bytes()),
    };
    // A script that has no token has to know.
    if written.is_ok() { code.into() } else { code.max(1).into() }
}

struct Request {
    key_file: PathBuf,
    token: Token,
}

/// `None` for `--help`. An error is a mistake in the usage.
fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<Request>, String> {
    let (mut key_file, mut expires, mut subject) = (None, None, None);
    let (mut subscribe, mut publish) = (Vec::new(), Vec::new());
    let mut parser = Parser::from_args(args);
    let told = |error: lexopt::Error| {
        // On one line, whatever is in the argument.
        let quoted = format!("{:?}", error.to_string());
        quoted[1..quoted.len() - 1].replace("\\\"", "\"")
    };
    let text = |flag: &str, value: OsString| {
        value.into_string().map_err(|value| format!("--{flag} is {value:?}, which is not UTF-8"))
    };
    let twice = |flag: &str| format!("--{flag} stands twice");
    while let Some(argument) = parser.next().map_err(told)? {
        match argument {
            Arg::Long("key-file") => {
                if key_file.replace(PathBuf::from(parser.value().map_err(told)?)).is_some() {
                    return Err(twice("key-file"));
                }
            }
            Arg::Long(flag @ ("subscribe" | "publish")) => {
                let flag = flag.to_owned();
                let topics = if flag == "publish" { &mut publish } else { &mut subscribe };
                for value in parser.values().map_err(told)? {
                    topics.push(text(&flag, value)?);
                }
            }
            Arg::Long("expires") => {
                let value = parser.value().map_err(told)?;
                let seconds = value.to_str().and_then(decimal).filter(|seconds| (1..=MAX_SECONDS).contains(seconds));
                let seconds = seconds
                    .ok_or_else(|| format!("--expires is {value:?}, allowed are seconds, 1 to {MAX_SECONDS}"))?;
                if expires.replace(Duration::from_secs(seconds)).is_some() {
                    return Err(twice("expires"));
                }
            }
            Arg::Long("subject") => {
                if subject.replace(text("subject", parser.value().map_err(told)?)?).is_some() {
                    return Err(twice("subject"));
                }
            }
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            other => return Err(told(other.unexpected())),
        }
    }
    let key_file = key_file.ok_or("which key? give --key-file FILE")?;
    if subscribe.is_empty() && publish.is_empty() {
        return Err("what for? give --subscribe TOPIC, --publish TOPIC, or both".to_owned());
    }
    let token = subscribe.into_iter().fold(Token::new(expires.unwrap_or(DEFAULT_EXPIRES)), Token::subscribe);
    let token = publish.into_iter().fold(token, Token::publish);
    let token = subject.into_iter().fold(token, Token::subject);
    match token.wrong() {
        Some(wrong) => Err(wrong),
        None => Ok(Some(Request { key_file, token })),
    }
}
