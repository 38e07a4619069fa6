//! The order of the modules, held as a table: what a module may use, and that nothing is used in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each module of `src` may use of the others. A whole module stands below; a single item, written with its
/// path, is a plain value or function that may be named from anywhere.
const ORDER: &[(&str, &[&str])] = &[
    (
        "server",
        &[
            "acceptor",
            "activation",
            "clock",
            "config",
            "connection",
            "error",
            "generation",
            "handler",
            "lifecycle",
            "listener",
            "logging",
            "mailbox",
            "memory",
            "program",
            "queue",
            "stdio",
            "worker",
        ],
    ),
    (
        "acceptor",
        &[
            "clock",
            "config",
            "connection",
            "http",
            "lifecycle",
            "listener",
            "mailbox",
            "queue",
            "resident",
            "slot",
            "table",
            "worker",
            "seldom",
        ],
    ),
    ("activation", &["error", "listener", "number"]),
    // How settings are read, and what `--check` says of them; `config` is their values.
    (
        "program",
        &[
            "closest",
            "config",
            "connection",
            "error",
            "http",
            "listener",
            "logging",
            "memory",
            "number",
            "regular_file",
            "stdio",
            "working_directory",
        ],
    ),
    ("memory", &["config", "connection", "error", "number", "slot"]),
    ("worker", &["connection", "mailbox", "queue", "slot", "seldom"]),
    ("table", &["slot"]),
    ("slot", &["clock", "connection", "sync"]),
    // Its `Phase` stands below the connections, what it moves to a successor above them.
    ("lifecycle", &["connection", "error", "number", "working_directory"]),
    (
        "connection",
        &[
            "clock",
            "config",
            "handler",
            "http",
            "lifecycle::Phase",
            "slot::Parked",
            "slot::Parking",
            "slot::Shed",
            "seldom",
        ],
    ),
    ("site", &["clock", "config", "date", "error", "handler", "http", "regular_file", "seldom", "working_directory"]),
    ("logging", &["closest", "config", "error", "generation", "seldom", "stdio", "clock", "working_directory"]),
    ("config", &["error", "http::accept::Coding", "http::head::HeadLimits", "listener::Address"]),
    ("listener", &["error", "number"]),
    ("handler", &["http", "seldom"]),
    ("http", &["number"]),
    ("closest", &[]),
    ("date", &[]),
    ("mailbox", &[]),
    ("number", &[]),
    ("queue", &["sync"]),
    ("regular_file", &[]),
    ("resident", &[]),
    ("sync", &[]),
    ("working_directory", &["number"]),
    ("stdio", &[]),
    ("seldom", &["clock"]),
    ("clock", &["date"]),
    ("error", &[]),
    ("generation", &[]),
];

/// What is bytes only must not reach for: I/O, clocks, threads.
const OUTSIDE_WORLD: &[&str] =
    &["std::io", "std::net", "std::fs", "std::os", "std::time", "std::thread", "std::env", "rustix", "libc", "mio"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let rust = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.chain(directories.iter().flat_map(|directory| files_below(directory))).collect()
}

/// The module of `src` that a file belongs to.
fn module(file: &Path) -> String {
    let inside = file.strip_prefix(source()).expect("below src");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy();
    first.strip_suffix(".rs").unwrap_or(&first).to_owned()
}

/// Without comments, and without the unit tests, which may look where they like.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a source file");
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .fold(String::new(), |code, line| code + line + "\n")
}

/// Every path that begins with `crate::`, a tree in braces taken apart.
fn used(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if !before.is_some_and(|char| char.is_alphanumeric() || char == '_') {
            read_tree(&code[at + "crate::".len()..], "", &mut paths);
        }
    }
    paths
}

/// Reads one branch, and answers what stands behind it.
fn read_tree<'c>(mut code: &'c str, prefix: &str, paths: &mut BTreeSet<String>) -> &'c str {
    let mut path = prefix.to_owned();
    loop {
        code = code.trim_start();
        if let Some(mut branches) = code.strip_prefix('{') {
            while !branches.trim_start().starts_with('}') {
                branches = read_tree(branches, &path, paths).trim_start();
                branches = branches.strip_prefix(',').unwrap_or(branches);
            }
            return &branches.trim_start()[1..];
        }
        let length = code.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(code.len());
        let (name, behind) = code.split_at(length);
        if !name.is_empty() && name != "self" {
            path = if path.is_empty() { name.to_owned() } else { format!("{path}::{name}") };
        }
        let Some(next) = behind.strip_prefix("::") else {
            paths.insert(path);
            let behind = behind.strip_prefix('*').unwrap_or(behind);
            let renamed = behind.trim_start().strip_prefix("as ").map(str::trim_start);
            return renamed
                .map_or(behind, |name| name.trim_start_matches(|char: char| char.is_alphanumeric() || char == '_'));
        };
        code = next;
    }
}

/// Where the short names lead that `lib.rs` re-exports.
fn exports() -> BTreeMap<String, String> {
    let library = code(&source().join("lib.rs"));
    let mut paths = BTreeSet::new();
    for branch in library.split("pub use ").skip(1) {
        read_tree(branch, "", &mut paths);
    }
    paths.into_iter().filter_map(|path| Some((path.rsplit("::").next()?.to_owned(), path))).collect()
}

fn allows(allowed: &str, path: &str) -> bool {
    path.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn each_module_uses_only_what_stands_below_it() {
    let order: BTreeMap<&str, &[&str]> = ORDER.iter().copied().collect();
    let (program, exports) = (program_modules(), exports());
    let mut wrong = Vec::new();
    let mut needed = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for file in files_below(&source()) {
        let module = module(&file);
        let name = file.strip_prefix(source()).expect("below src").display().to_string();
        // `lib.rs` re-exports; `testing.rs` and `properties.rs` belong to unit tests; the program has a test of its own.
        if name == "lib.rs" || name == "properties.rs" || name.ends_with("/testing.rs") || program.contains(&module) {
            continue;
        }
        let Some(allowed) = order.get(module.as_str()) else {
            wrong.push(format!("{name}: module {module} has no place in the order"));
            continue;
        };
        seen.insert(module.clone());
        let code = code(&file);
        for path in used(&code) {
            let (first, rest) = path.split_once("::").map_or((path.as_str(), ""), |(first, rest)| (first, rest));
            let path = exports.get(first).map_or(path.clone(), |full| format!("{full}::{rest}"));
            let own = path.split("::").next() == Some(module.as_str());
            match allowed.iter().find(|allowed| allows(allowed, &path)) {
                Some(allowed) => drop(needed.insert((module.clone(), *allowed))),
                None if own => {}
                None => wrong.push(format!("{name}: {module} must not use {path}")),
            }
        }
        // A file of its own at the top would leave its module by one step, one in a directory by two.
        let steps = if name.contains('/') { "super::super::" } else { "super::" };
        if code.contains(steps) {
            wrong.push(format!("{name}: {steps} hides what it uses, write crate::"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let allowed = ORDER.iter().flat_map(|(module, below)| below.iter().map(|below| ((*module).to_owned(), *below)));
    let idle: Vec<_> = allowed.filter(|allowed| !needed.contains(allowed)).collect();
    assert!(idle.is_empty(), "in the order, but not used: {idle:?}");
    let missing: Vec<&&str> = order.keys().filter(|module| !seen.contains(**module)).collect();
    assert!(missing.is_empty(), "in the order, but not in src: {missing:?}");
}

#[test]
fn the_order_has_no_circle() {
    let mut left: BTreeMap<&str, Vec<&str>> = ORDER
        .iter()
        .map(|(module, below)| (*module, below.iter().copied().filter(|below| !below.contains("::")).collect()))
        .collect();
    while !left.is_empty() {
        let lowest = left.iter().find(|(_, below)| below.iter().all(|below| !left.contains_key(below)));
        let lowest = *lowest.unwrap_or_else(|| panic!("a circle among {:?}", left.keys())).0;
        left.remove(lowest);
    }
}

#[test]
fn http_is_bytes_only() {
    for file in files_below(&source().join("http")) {
        // To read an address is no I/O.
        let code = code(&file).replace("std::net::Ipv6Addr", "");
        for outside in OUTSIDE_WORLD {
            assert!(!code.contains(outside), "{} uses {outside}", file.display());
        }
    }
}

/// The poller belongs to the acceptor; the server only makes it.
#[test]
fn only_the_acceptor_watches() {
    for file in files_below(&source()) {
        if module(&file) != "acceptor" {
            let code = code(&file);
            for name in ["Interest", "SourceFd", ".poll(", "Registry"] {
                assert!(!code.contains(name), "{} has {name}", file.display());
            }
        }
    }
}

/// `main` and the modules it declares: the program, which is a user of the library like any other.
fn program_modules() -> Vec<String> {
    let main = code(&source().join("main.rs"));
    let declared = main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    declared.chain(["main"]).map(str::to_owned).collect()
}

#[test]
fn the_program_uses_only_what_the_library_exports() {
    let program = program_modules();
    for file in files_below(&source()).iter().filter(|file| program.contains(&module(file))) {
        let inside: Vec<String> = used(&code(file)).into_iter().collect();
        let foreign = |path: &&String| !program.iter().any(|module| allows(module, path));
        assert_eq!(inside.iter().find(foreign), None, "{}: use handover:: for it", file.display());
    }
}

#[test]
fn the_library_file_only_declares() {
    let library = code(&source().join("lib.rs"));
    for item in ["fn ", "struct ", "enum ", "trait ", "impl ", "static ", "const "] {
        assert!(!library.contains(item), "lib.rs has {item}");
    }
}

#[test]
fn paths_are_found() {
    let code = "use crate::{Error, cli};\nuse crate::http::{self, head::{Head as H, Scanner}, chunked::*};\n\
        pub(crate) fn f() { crate::config::LIMIT; let x = crate::a::b(1); } $crate::no; mycrate::no";
    let found: Vec<String> = used(code).into_iter().collect();
    let wanted = [
        "Error",
        "a::b",
        "cli",
        "config::LIMIT",
        "http",
        "http::chunked",
        "http::head::Head",
        "http::head::Scanner",
        "no",
    ];
    assert_eq!(found, wanted);
}

/// The first word in backquotes of each item of a list that stands below that heading.
fn named_below(heading: &str, marker: fn(&str) -> bool) -> Vec<String> {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).expect("the map");
    let section = map.split("\n## ").find_map(|section| section.strip_prefix(heading)).expect("the heading");
    let items = section.lines().filter(|line| line.split_once('`').is_some_and(|(before, _)| marker(before)));
    items.filter_map(|item| item.split('`').nth(1)).map(str::to_owned).collect()
}

/// Folders below that one, each with a `/` behind it.
fn folders_below(folder: &Path, found: &mut BTreeSet<String>) {
    for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("below the root");
            found.insert(format!("{}/", name.display()));
            folders_below(&path, found);
        }
    }
}

#[test]
fn the_map_names_each_room_of_the_tree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut rooms = BTreeSet::new();
    folders_below(&source(), &mut rooms);
    let files = fs::read_dir(source()).expect("src").map(|entry| entry.expect("an entry").path());
    rooms.extend(
        files
            .filter(|path| path.is_file())
            .map(|path| format!("src/{}", path.file_name().expect("a name").to_string_lossy())),
    );
    // A crate is a room, and so is each folder of its sources.
    for member in fs::read_dir(root.join("crates")).into_iter().flatten().map(|entry| entry.expect("an entry").path()) {
        rooms.insert(format!("crates/{}/", member.file_name().expect("a name").to_string_lossy()));
        folders_below(&member.join("src"), &mut rooms);
    }
    let named = named_below("Code map", |before| before == "- ");
    let named: Vec<&String> =
        named.iter().filter(|name| name.starts_with("src/") || name.starts_with("crates/")).collect();
    let listed: BTreeSet<String> = named.iter().map(|name| (*name).clone()).collect();
    assert_eq!(listed.len(), named.len(), "a room is named twice in {named:?}");
    let missing: Vec<_> = rooms.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&rooms).collect();
    assert!(missing.is_empty() && gone.is_empty(), "ARCHITECTURE.md, code map: lacks {missing:?}, names {gone:?}");
}

#[test]
fn the_walk_goes_through_ten_files_at_most() {
    let is_number = |before: &str| before.strip_suffix(". ").is_some_and(|number| number.parse::<u32>().is_ok());
    let files = named_below("From accept to response", is_number);
    assert!((5..=10).contains(&files.len()), "{files:?}");
    let gone: Vec<_> =
        files.iter().filter(|file| !Path::new(env!("CARGO_MANIFEST_DIR")).join(file).is_file()).collect();
    assert!(gone.is_empty(), "the walk in ARCHITECTURE.md names {gone:?}");
}
