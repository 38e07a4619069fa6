//! The keys of the tables of a configuration file, which have no rows in the table of settings: what each may be, and what
//! it says. That none is missing and none is too many is held to what reads the file.

use crate::config::site::DirectoryOptions;
use crate::program::{file, settings, site};
use std::collections::BTreeSet;

/// A key of a table.
pub struct Key {
    pub name: &'static str,
    pub allowed: &'static str,
    /// What counts without it; empty for nothing, or for a key that there has to be.
    pub default: &'static str,
    /// Empty where the example says it.
    pub text: &'static str,
}

const fn key(name: &'static str, allowed: &'static str, default: &'static str, text: &'static str) -> Key {
    Key { name, allowed, default, text }
}

/// What stands at the top of a file, and is neither in the table of settings nor a table itself.
pub const TOP: &[Key] = &[
    key("root", "path", "", ""),
    key("precompressed", "true, false or an array of \"br\", \"zstd\", \"gzip\"", "false", ""),
    key("fallback", "path below root", "", ""),
];

const HEADERS: &[Key] = &[key("NAME", "text", "", "The value of that field: printable ASCII.")];
const MIME: &[Key] = &[key("EXTENSION", "media type", "", "The type of files whose name ends so, in any case.")];
const CACHE: &[Key] = &[
    key("match", "pattern, or array of patterns", "", "The files that the rule is for. There has to be one."),
    key("control", "text", "", "The value of Cache-Control. There has to be one."),
];
const ERROR_PAGES: &[Key] = &[key(
    "STATUS",
    "path",
    "",
    "The file for that error: 400, 403, 404, 405, 412, 416, 500, 503, or one that a route answers.",
)];
const ROUTE: &[Key] = &[
    key("prefix", "path", "", "The paths that it answers. There has to be one."),
    key("directory", "path", "", "Serve the files of this directory."),
    key(
        "precompressed",
        "true, false or an array of \"br\", \"zstd\", \"gzip\"",
        "false",
        "As at the top, for a directory.",
    ),
    key("listing", "true or false", "false", "As at the top, for a directory."),
    key("fallback", "path below directory", "", "As at the top, for a directory."),
    key("redirect", "URL or path", "", "Send clients there; {path} is what follows the prefix, with the query."),
    key(
        "status",
        "200 to 205, 301, 302, 303, 307, 308 or 400 to 599",
        "302 with redirect, else 200",
        "The status of the answer.",
    ),
    key("body", "text", "", "The answer itself."),
    key("content_type", "media type", "text/plain; charset=utf-8", "That of the body."),
    key(
        "headers",
        "table",
        "",
        "Fields for its answers, as in [headers], of which one with the same name is replaced.",
    ),
    key(
        "auth",
        "table, or false",
        "as a route above it says",
        "Who may come in: the table below; false is for everybody.",
    ),
];
const AUTH: &[Key] = &[
    key("realm", "text", "", "What browsers show to who is asked. There has to be one."),
    key("file", "path", "", "The file of users and hashes that handover passwd writes. There has to be one."),
];
const HOST: &[Key] = &[
    key("name", "name, or array of names", "", "The names that it answers for. There has to be one."),
    key("root", "path", "", "The directory to serve. There has to be one, or a route."),
    key("precompressed", "true, false or an array of \"br\", \"zstd\", \"gzip\"", "false", "As at the top."),
    key("listing", "true or false", "false", "As at the top."),
    key("fallback", "path below root", "", "As at the top."),
    key("headers", "table", "", "As [headers], before those."),
    key("mime", "table", "", "As [mime], before that."),
    key("cache", "array of tables", "", "As [[cache]], before those: [[host.cache]]."),
    key("error_pages", "table", "", "As [error_pages], before those: [host.error_pages]."),
    key("route", "array of tables", "", "As [[route]], instead of those: [[host.route]]."),
];
const PUSH: &[Key] = &[
    key("prefix", "path", "", "Where it is: topics are below it. There has to be one."),
    key("publish", "\"nobody\", \"local\", \"token\", \"anyone\"", "\"nobody\"", ""),
    key("subscribe", "\"anyone\", \"token\"", "\"anyone\"", ""),
    key("token_key_file", "path", "", ""),
    key("origins", "array of origins", "[]", ""),
    key("history", "whole number, 0 to 1000000", "100", ""),
    key("history_age", "seconds, 0 to 31536000", "600", ""),
    key("retain", "true or false", "false", ""),
    key("heartbeat", "seconds, 0 to 3600", "15", ""),
    key("auth", "table, or false", "as a route above it says", ""),
];

/// The tables in the order of the example. `auth` stands in others, and is shown where it is first met.
pub const TABLES: [(&str, &[Key]); 8] = [
    ("headers", HEADERS),
    ("mime", MIME),
    ("cache", CACHE),
    ("error_pages", ERROR_PAGES),
    ("route", ROUTE),
    ("auth", AUTH),
    ("host", HOST),
    ("push", PUSH),
];

pub fn of(table: &str) -> &'static [Key] {
    TABLES.iter().find(|(name, _)| *name == table).map(|(_, keys)| *keys).unwrap_or_else(|| panic!("no table {table}"))
}

#[test]
fn the_keys_are_those_that_are_read() {
    fn names(keys: &[Key]) -> BTreeSet<&str> {
        keys.iter().map(|key| key.name).collect()
    }
    for (table, read) in [
        ("cache", &site::CACHE_KEYS[..]),
        ("route", &site::ROUTE_KEYS),
        ("auth", &site::AUTH_KEYS),
        ("host", &file::HOST_KEYS),
        ("push", &file::PUSH_KEYS),
    ] {
        assert_eq!(names(of(table)), read.iter().copied().collect(), "{table}");
    }
    let tables: BTreeSet<&str> = TABLES.iter().map(|(name, _)| *name).filter(|name| *name != "auth").collect();
    let settings = settings::SETTINGS.iter().filter_map(settings::Setting::key).collect::<Vec<_>>();
    let top = settings::SITE_KEYS.iter().copied().filter(|key| !settings.iter().any(|setting| setting == key));
    assert_eq!(top.collect::<BTreeSet<_>>(), names(TOP).union(&tables).copied().collect());
    for name in DirectoryOptions::KEYS {
        assert!(names(of("route")).contains(name) && names(of("host")).contains(name), "{name}");
    }
}
