//! handover(1).

use super::command::{self, Command};
use super::roff::{Page, without_links};
use super::{PROGRAM, README};
use crate::program::settings::{Group, SETTINGS, Setting};

const GROUPS: [(Group, &str); 4] = [
    (Group::Serving, "Serving"),
    (Group::Reloading, "Stopping and reloading"),
    (Group::Limits, "Limits"),
    (Group::About, "About"),
];

const DESCRIPTION: [&str; 3] = [
    "`handover` serves a directory, or what its configuration file says, by HTTP/1.1; without either, a welcome page. It \
     can be stopped, reloaded and upgraded under load: requests under way finish, whoever has connected is answered, and at \
     a reload every live connection goes on in the successor.",
    "A reload runs the program that is on disk now, with the same arguments and its configuration read anew, so that a new \
     configuration and an upgrade are the same thing. The new program checks itself first; if that fails, the log says why and \
     nothing has changed.",
    "When it is ready it says so on stdout, one line for each listener and one for the whole. All else is logged to stderr, or \
     to the file of `--log-file`.",
];

/// In Debian's package, and in the files for service managers.
const FILES: [(&str, &str); 5] = [
    ("*/etc/handover/handover.toml*", "The configuration of the packaged service: see `handover.toml`(5)."),
    ("*/run/handover/handover.pid*", "The process id of that service, where `handover reload --wait` finds it."),
    ("*/run/handover/handover.pid.outcome*", "What came of its last reload."),
    (
        "*/var/log/handover/access.log*",
        "Its log of requests, one line each; logrotate moves it, and USR1 has it opened anew.",
    ),
    ("*/var/lib/handover/history*", "What push keeps while the service is stopped."),
];

const ENVIRONMENT: [(&str, &str); 5] = [
    ("`RUST_LOG`", "What is logged, as *LEVEL* of `--log-level`, over which it wins."),
    (
        "`NOTIFY_SOCKET`",
        "Where a service manager listens for READY=1, STOPPING=1 and MAINPID=: see `sd_notify`(3). With it a reload by \
         `auto` is by overlap.",
    ),
    ("`WATCHDOG_USEC`", "How often that manager has to hear that the server is alive."),
    (
        "`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`",
        "Listeners that a service manager passes: see `sd_listen_fds`(3). `--listen` then counts for nothing.",
    ),
    (
        "`PWD`",
        "The name of the working directory, if it leads there: relative paths start from it in every later reload.",
    ),
];

const EXAMPLES: [(&str, &str); 5] = [
    ("Serve a directory on all addresses:", "handover -l 0.0.0.0:8080 ./public"),
    (
        "Look at what a configuration would run, and run it:",
        "handover -c handover.toml --check\nhandover -c handover.toml",
    ),
    ("Bind port 80 as root, and serve as nobody:", "handover -l 0.0.0.0:80 -l '[::]:80' --user nobody /srv/www"),
    (
        "Reload from a script, and hear whether the new generation serves:",
        "handover --pid-file /run/handover.pid ./public &\nhandover reload --pid-file /run/handover.pid --wait",
    ),
    (
        "Publish a value to everybody who listens at /events/temperature, with [[push]] in the configuration:",
        "curl -d 21.5 http://127.0.0.1:8888/events/temperature",
    ),
];

/// The rows of the table that begins so.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let rows = README.split(heading).nth(1).unwrap_or_else(|| panic!("no table {heading}"));
    let rows = rows.lines().skip_while(|line| line.starts_with("|---") || line.is_empty());
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

fn capitalised(text: &str) -> String {
    let first = text.chars().next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + text.get(1..).unwrap_or_default()
}

/// As a sentence.
fn sentence(text: &str) -> String {
    let text = without_links(text);
    let text = if text.starts_with(|char: char| char.is_ascii_lowercase()) { capitalised(&text) } else { text };
    if text.ends_with(['.', '?']) { text } else { text + "." }
}

fn tag(short: Option<char>, long: &str, takes: &str) -> String {
    let short = short.map(|short| format!("`-{short}`, ")).unwrap_or_default();
    match takes.strip_prefix('[') {
        _ if takes.is_empty() => format!("{short}`--{long}`"),
        // `[=SECS]`: what may be left out.
        Some(optional) => format!("{short}`--{long}`[={}", emphasised(optional.trim_start_matches('='))),
        None => format!("{short}`--{long}` {}", emphasised(takes)),
    }
}

/// The words in capitals, which stand for something.
fn emphasised(text: &str) -> String {
    let (mut all, mut word) = (String::new(), String::new());
    for char in text.chars().chain(['\0']) {
        if char.is_ascii_uppercase() || (char.is_ascii_digit() && !word.is_empty()) {
            word.push(char);
            continue;
        }
        all += &if word.len() > 1 || word == "N" { format!("*{word}*") } else { word.clone() };
        word.clear();
        if char != '\0' {
            all.push(char);
        }
    }
    all
}

/// A line of usage: the program, its command and flags as they are, and what stands for something.
fn usage(line: &str) -> String {
    let words = line.split(' ').enumerate().map(|(at, word)| {
        let bare = word.trim_start_matches('[');
        let before = &word[..word.len() - bare.len()];
        let end = bare.find(|char: char| !char.is_ascii_lowercase() && char != '-').unwrap_or(bare.len());
        match bare.starts_with('-') || (at < 2 && end > 0) {
            true => format!("{before}`{}`{}", &bare[..end], emphasised(&bare[end..])),
            false => emphasised(word),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn option(page: &mut Page, setting: &Setting) {
    let Some(flag) = setting.flag() else { return };
    let takes = setting.takes().unwrap_or_default();
    let short = setting.short.map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let behind = if takes.is_empty() { String::new() } else { format!(" {takes}") };
    let cell = format!("{short}`--{flag}{behind}`");
    let rows = table("| flag | default | |\n");
    let row = rows.iter().find(|row| row[0] == cell).unwrap_or_else(|| panic!("the README has no {cell}"));
    let default = Some(setting.default()).filter(|default| !takes.is_empty() && !default.is_empty());
    let default = default.map(|default| format!(" The default is {default}.")).unwrap_or_default();
    page.item(&[tag(setting.short, &flag, takes)], &(sentence(row[2]) + &default));
}

fn command(page: &mut Page, command: &Command) {
    page.part(&format!("{PROGRAM} {}", command.name));
    page.usage(&command.usage.iter().map(|line| usage(line)).collect::<Vec<_>>());
    for text in &command.paragraphs {
        page.paragraph(text);
    }
    for option in &command.options {
        let tag = match option.is_flag() {
            true => tag(option.short, &option.long, &option.takes),
            false => emphasised(&option.takes),
        };
        page.item(&[tag], &sentence(&option.text));
    }
    page.paragraph("It ends with");
    for (code, text) in &command.exit_codes {
        page.item(&[format!("`{code}`")], &sentence(text));
    }
}

pub fn page() -> String {
    let mut page = Page::new("handover", 1, "User Commands");
    page.text("handover - HTTP/1.1 and push server that is stopped and reloaded without losing a request");
    page.section("synopsis");
    let commands = command::all();
    let own = format!("{PROGRAM} [OPTIONS] [ROOT]");
    let lines = [own].into_iter().chain(commands.iter().flat_map(|command| command.usage.clone()));
    page.usage(&lines.map(|line| usage(&line)).collect::<Vec<_>>());
    page.section("description");
    for text in DESCRIPTION {
        page.paragraph(text);
    }
    page.section("options");
    page.paragraph(
        "Each long flag but those of the last group is a key of the configuration file as well, with `_` for `-`; flags win \
         over the file. Times are in seconds and may have decimals, sizes in bytes or with K, M or G.",
    );
    page.item(&["*ROOT*".to_owned()], "The directory to serve; without it, a welcome page.");
    for (group, title) in GROUPS {
        page.part(title);
        for setting in SETTINGS.iter().filter(|setting| setting.group == group) {
            option(&mut page, setting);
        }
    }
    page.section("commands");
    page.paragraph("Each has a `--help` of its own. A directory of such a name is served as `./reload`.");
    for each in &commands {
        command(&mut page, each);
    }
    page.section("signals");
    for row in table("| signal | |\n") {
        page.item(&[format!("`{}`", row[0])], &sentence(row[1]));
    }
    page.section("exit status");
    for row in table("| exit code | |\n") {
        page.item(&[format!("`{}`", row[0])], &sentence(row[1]));
    }
    page.section("environment");
    for (name, text) in ENVIRONMENT {
        page.item(&[name.to_owned()], text);
    }
    page.section("files");
    page.paragraph("Of the packaged service; the program itself has no file that it looks for.");
    for (name, text) in FILES {
        page.item(&[name.to_owned()], text);
    }
    page.section("examples");
    for (what, lines) in EXAMPLES {
        page.paragraph(what);
        page.verbatim(lines);
    }
    page.section("see also");
    page.text("`handover.toml`(5), `systemd.service`(5), `logrotate`(8)");
    page.finish()
}
