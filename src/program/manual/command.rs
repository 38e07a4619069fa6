//! `reload`, `token`, `top` and `passwd`, as their own `--help` says it.

use super::{Completed, PROGRAM};
use crate::program::{passwd, reload, token, top};

/// What a command's help says.
pub struct Command {
    pub name: &'static str,
    /// What it does, in a few words.
    pub short: &'static str,
    /// What may stand behind the program's name.
    pub usage: Vec<String>,
    pub paragraphs: Vec<String>,
    pub options: Vec<Opt>,
    /// The exit codes, and what each says.
    pub exit_codes: Vec<(String, String)>,
}

/// A flag of a command, or an argument that has a text of its own.
pub struct Opt {
    pub short: Option<char>,
    /// Empty for what is no flag.
    pub long: String,
    /// What it takes, as it is written: `FILE`, `[=SECS]`.
    pub takes: String,
    pub text: String,
}

impl Opt {
    pub fn completed(&self) -> Completed {
        if self.takes == "FILE" { Completed::File } else { Completed::Nothing }
    }

    pub fn is_flag(&self) -> bool {
        !self.long.is_empty()
    }
}

/// Where a text begins behind the option: two spaces, and never one.
fn split_option(line: &str) -> (&str, &str) {
    line.split_once("  ").map_or((line, ""), |(option, text)| (option, text.trim()))
}

impl Command {
    fn read(name: &'static str, short: &'static str, help: &str) -> Command {
        let mut command = Command {
            name,
            short,
            usage: Vec::new(),
            paragraphs: Vec::new(),
            options: Vec::new(),
            exit_codes: Vec::new(),
        };
        for block in help.split("\n\n") {
            let first = block.trim_start();
            if let Some(usage) = block.strip_prefix("Usage: ") {
                for line in usage.lines() {
                    match (line.trim().strip_prefix(PROGRAM), command.usage.last_mut()) {
                        (None, Some(last)) => *last = format!("{last} {}", line.trim()),
                        _ => command.usage.push(line.trim().to_owned()),
                    }
                }
            } else if let Some(codes) = first.strip_prefix("Exit codes") {
                for line in codes.lines().map(str::trim) {
                    match line.split_once(' ').filter(|(code, _)| code.bytes().all(|byte| byte.is_ascii_digit())) {
                        Some((code, text)) => command.exit_codes.push((code.to_owned(), text.to_owned())),
                        None => panic!("{name}: {line}"),
                    }
                }
            } else if block.starts_with(' ') {
                for line in block.lines() {
                    command.option_line(line);
                }
            } else {
                command.paragraphs.push(block.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
        command
    }

    fn option_line(&mut self, line: &str) {
        let text = line.trim_start();
        if line.len() - text.len() > 6 {
            let last = self.options.last_mut().expect("a text has an option");
            last.text = format!("{} {text}", last.text);
            return;
        }
        let (option, text) = split_option(text);
        let (short, option) = match option.split_once(", ") {
            Some((short, long)) => (short.chars().nth(1), long),
            None => (None, option),
        };
        let (long, takes) = match option.strip_prefix("--") {
            Some(flag) => flag.find([' ', '[']).map_or((flag, ""), |end| (&flag[..end], flag[end..].trim())),
            None => ("", option),
        };
        self.options.push(Opt { short, long: long.to_owned(), takes: takes.to_owned(), text: text.to_owned() });
    }
}

pub fn all() -> [Command; 4] {
    [
        Command::read("reload", "run the program on disk afresh", &reload::help(PROGRAM)),
        Command::read("token", "make a token for push", token::HELP),
        Command::read("top", "show a running server", top::HELP),
        Command::read("passwd", "write a user into a file of users", passwd::HELP),
    ]
}

#[test]
fn each_help_is_read_to_the_end() {
    let flags = |command: &Command| {
        command.options.iter().filter(|option| option.is_flag()).map(|option| option.long.clone()).collect::<Vec<_>>()
    };
    let [reload, token, top, passwd] = all();
    assert_eq!(flags(&reload), ["pid-file", "pid", "wait", "program", "help"]);
    assert_eq!(flags(&token), ["key-file", "subscribe", "publish", "expires", "subject", "help"]);
    assert_eq!(flags(&top), ["every", "once", "token-file", "help"]);
    assert_eq!(flags(&passwd), ["cost", "delete", "help"]);
    let wait = &reload.options[2];
    assert_eq!((wait.takes.as_str(), wait.text.ends_with("in FILE.outcome")), ("[=SECS]", true));
    assert_eq!(reload.exit_codes.iter().map(|(code, _)| code.as_str()).collect::<Vec<_>>(), ["0", "1", "2"]);
    assert_eq!(token.usage.len(), 1);
    assert_eq!(passwd.usage.len(), 2);
}
