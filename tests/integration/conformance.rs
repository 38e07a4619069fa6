//! `CONFORMANCE.md` is what the cases in `tests/requests` say, by the section that decides each, around the text of
//! `tests/requests/conformance.in.md`. `HANDOVER_RENEW=1 cargo test --test integration conformance` writes it anew.

use crate::common::{Case, Expected, Target, Then};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Every section that a case cites, by its title: a number that was mistyped is found here.
const SECTIONS: &[(&str, &str)] = &[
    ("RFC 3986 §2", "Characters"),
    ("RFC 3986 §2.1", "Percent-Encoding"),
    ("RFC 3986 §2.2", "Reserved Characters"),
    ("RFC 3986 §2.4", "When to Encode or Decode"),
    ("RFC 3986 §3.2.2", "Host"),
    ("RFC 3986 §3.2.3", "Port"),
    ("RFC 3986 §5.2.4", "Remove Dot Segments"),
    ("RFC 3986 §6.2.2.1", "Case Normalization"),
    ("RFC 3986 §6.2.2.2", "Percent-Encoding Normalization"),
    ("RFC 5789 §2", "The PATCH Method"),
    ("RFC 6265 §5.4", "The Cookie Header"),
    ("RFC 6454 §7", "The HTTP Origin Header Field"),
    ("RFC 6585 §5", "431 Request Header Fields Too Large"),
    ("RFC 6750 §2", "Authenticated Requests"),
    ("RFC 6750 §2.1", "Authorization Request Header Field"),
    ("RFC 6750 §2.3", "URI Query Parameter"),
    ("RFC 6750 §3", "The WWW-Authenticate Response Header Field"),
    ("RFC 6750 §3.1", "Error Codes"),
    ("RFC 7239 §4", "Forwarded HTTP Header Field"),
    ("RFC 7515 §2", "Terminology"),
    ("RFC 7515 §4.1.1", "\"alg\" (Algorithm) Header Parameter"),
    ("RFC 7515 §4.1.11", "\"crit\" (Critical) Header Parameter"),
    ("RFC 7515 §5.2", "Message Signature or MAC Validation"),
    ("RFC 7519 §4.1.3", "\"aud\" (Audience) Claim"),
    ("RFC 7519 §4.1.4", "\"exp\" (Expiration Time) Claim"),
    ("RFC 7519 §4.1.5", "\"nbf\" (Not Before) Claim"),
    ("RFC 7519 §7.2", "Validating a JWT"),
    ("RFC 7617 §2", "The 'Basic' Authentication Scheme"),
    ("RFC 8725 §3.1", "Perform Algorithm Verification"),
    ("RFC 9110 §2.5", "Protocol Version"),
    ("RFC 9110 §4.2.1", "http URI Scheme"),
    ("RFC 9110 §4.2.4", "Deprecation of userinfo in http(s) URIs"),
    ("RFC 9110 §5.1", "Field Names"),
    ("RFC 9110 §5.3", "Field Order"),
    ("RFC 9110 §5.5", "Field Values"),
    ("RFC 9110 §5.6.1", "Lists"),
    ("RFC 9110 §5.6.7", "Date/Time Formats"),
    ("RFC 9110 §6.5.1", "Limitations on Use of Trailers"),
    ("RFC 9110 §7.2", "Host and :authority"),
    ("RFC 9110 §7.4", "Rejecting Misdirected Requests"),
    ("RFC 9110 §7.6.1", "Connection"),
    ("RFC 9110 §7.8", "Upgrade"),
    ("RFC 9110 §8.6", "Content-Length"),
    ("RFC 9110 §9.1", "Methods: Overview"),
    ("RFC 9110 §9.2.2", "Idempotent Methods"),
    ("RFC 9110 §9.3.1", "GET"),
    ("RFC 9110 §9.3.2", "HEAD"),
    ("RFC 9110 §9.3.3", "POST"),
    ("RFC 9110 §9.3.7", "OPTIONS"),
    ("RFC 9110 §9.3.8", "TRACE"),
    ("RFC 9110 §10.1.1", "Expect"),
    ("RFC 9110 §11.1", "Authentication Scheme"),
    ("RFC 9110 §12.5.1", "Accept"),
    ("RFC 9110 §13.1.1", "If-Match"),
    ("RFC 9110 §13.1.2", "If-None-Match"),
    ("RFC 9110 §13.1.3", "If-Modified-Since"),
    ("RFC 9110 §13.1.4", "If-Unmodified-Since"),
    ("RFC 9110 §14.1.2", "Byte Ranges"),
    ("RFC 9110 §14.2", "Range"),
    ("RFC 9110 §15.2.2", "101 Switching Protocols"),
    ("RFC 9110 §15.3.5", "204 No Content"),
    ("RFC 9110 §15.3.6", "205 Reset Content"),
    ("RFC 9110 §15.4.2", "301 Moved Permanently"),
    ("RFC 9110 §15.4.5", "304 Not Modified"),
    ("RFC 9110 §15.5.1", "400 Bad Request"),
    ("RFC 9110 §15.5.2", "401 Unauthorized"),
    ("RFC 9110 §15.5.4", "403 Forbidden"),
    ("RFC 9110 §15.5.6", "405 Method Not Allowed"),
    ("RFC 9110 §15.5.14", "413 Content Too Large"),
    ("RFC 9110 §15.5.15", "414 URI Too Long"),
    ("RFC 9110 §15.5.16", "415 Unsupported Media Type"),
    ("RFC 9110 §15.5.17", "416 Range Not Satisfiable"),
    ("RFC 9110 §15.5.20", "421 Misdirected Request"),
    ("RFC 9110 §15.5.21", "422 Unprocessable Content"),
    ("RFC 9110 §15.6.1", "500 Internal Server Error"),
    ("RFC 9110 §15.6.2", "501 Not Implemented"),
    ("RFC 9110 §15.6.6", "505 HTTP Version Not Supported"),
    ("RFC 9112 §2.2", "Message Parsing"),
    ("RFC 9112 §2.3", "HTTP Version"),
    ("RFC 9112 §3", "Request Line"),
    ("RFC 9112 §3.1", "Method"),
    ("RFC 9112 §3.2", "Request Target"),
    ("RFC 9112 §3.2.1", "origin-form"),
    ("RFC 9112 §3.2.2", "absolute-form"),
    ("RFC 9112 §3.2.3", "authority-form"),
    ("RFC 9112 §3.2.4", "asterisk-form"),
    ("RFC 9112 §5", "Field Syntax"),
    ("RFC 9112 §5.1", "Field Line Parsing"),
    ("RFC 9112 §5.2", "Obsolete Line Folding"),
    ("RFC 9112 §6.1", "Transfer-Encoding"),
    ("RFC 9112 §6.2", "Content-Length"),
    ("RFC 9112 §6.3", "Message Body Length"),
    ("RFC 9112 §7", "Transfer Codings"),
    ("RFC 9112 §7.1", "Chunked Transfer Coding"),
    ("RFC 9112 §7.1.1", "Chunk Extensions"),
    ("RFC 9112 §7.1.2", "Chunked Trailer Section"),
    ("RFC 9112 §8", "Handling Incomplete Messages"),
    ("RFC 9112 §9.3", "Persistence"),
    ("RFC 9112 §9.3.2", "Pipelining"),
    ("RFC 9112 §9.5", "Failures and Timeouts"),
    ("RFC 9112 §9.6", "Tear-down"),
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn template() -> String {
    fs::read_to_string(path("tests/requests/conformance.in.md")).expect("the template")
}

fn table(cases: &[Case]) -> String {
    let titles: BTreeMap<&str, &str> = SECTIONS.iter().copied().collect();
    let mut sections: BTreeMap<_, Vec<&Case>> = BTreeMap::new();
    for case in cases {
        sections.entry(case.section.clone()).or_default().push(case);
    }
    let mut table = String::new();
    for (section, cases) in &sections {
        let section = section.to_string();
        let title = titles.get(section.as_str()).unwrap_or_else(|| panic!("no title for {section}, cited by a case"));
        write!(table, "## {section}: {title}\n\n| case | request | answer |\n|---|---|---|\n").expect("a string");
        for case in cases {
            let answers: Vec<String> = case.answers().map(shown).collect();
            let answers = if answers.is_empty() { "none".to_owned() } else { answers.join("; ") };
            let target = match case.target {
                Target::Handler => "",
                Target::Site => "*site* ",
                Target::Hosts => "*hosts* ",
                Target::Router => "*router* ",
                Target::Push => "*push* ",
            };
            writeln!(table, "| `{}` | {target}{} | {answers} |", case.name, case.what.replace('|', "\\|"))
                .expect("a string");
        }
        table.push('\n');
    }
    table
}

/// The status, the reason of a refusal, the fields that matter, and whether that was all.
fn shown(expected: &Expected) -> String {
    let mut shown = expected.status.to_string();
    if expected.status >= 400 && !expected.text.is_empty() {
        write!(shown, " {}", expected.text).expect("a string");
    }
    for (name, value) in &expected.fields {
        write!(shown, ", `{name}: {value}`").expect("a string");
    }
    for name in &expected.without {
        write!(shown, ", no {name}").expect("a string");
    }
    shown.push_str(match expected.then {
        Then::KeepAlive => "",
        Then::Close => ", closes",
        Then::Cut => ", breaks off",
    });
    shown
}

#[test]
fn the_table_says_what_the_cases_say() {
    let made = template().replace("{cases}\n", &table(&Case::all()));
    let file = path("CONFORMANCE.md");
    if std::env::var_os("HANDOVER_RENEW").is_some() {
        fs::write(&file, &made).expect("CONFORMANCE.md");
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    let differing = made.lines().zip(written.lines()).find(|(made, written)| made != written);
    assert!(
        made == written,
        "CONFORMANCE.md is not what the cases say; `HANDOVER_RENEW=1 cargo test --test integration conformance` renews it. \
         The first line that differs: {differing:?}"
    );
}

#[test]
fn every_section_with_a_title_is_cited() {
    let cited: BTreeSet<String> = Case::all().iter().map(|case| case.section.to_string()).collect();
    let idle: Vec<_> = SECTIONS.iter().filter(|(section, _)| !cited.contains(*section)).collect();
    assert!(idle.is_empty(), "{idle:?}");
}

#[test]
fn every_choice_names_cases_that_are_there() {
    let cases = Case::all();
    let template = template();
    let (_, choices) = template.split_once("| what | why | cases |\n|---|---|---|\n").expect("the choices");
    for choice in choices.lines() {
        let named = choice.trim_end_matches(" |").rsplit(" | ").next().expect("a last cell");
        let names: Vec<&str> = named.split(' ').map(|name| name.trim_matches('`')).collect();
        assert!(!names.is_empty());
        for name in names {
            assert!(cases.iter().any(|case| case.name == name), "no case {name:?}, named by: {choice}");
        }
    }
}

/// What was decided is decided once: no two cases send the same bytes to the same server.
#[test]
fn no_case_stands_twice() {
    let mut seen: BTreeMap<(String, Vec<u8>), String> = BTreeMap::new();
    for case in Case::all() {
        let key = (format!("{:?}", case.target), case.bytes());
        if let Some(other) = seen.insert(key, case.name.clone()) {
            panic!("{other} and {} are the same request", case.name);
        }
    }
}
