//! The order of the modules, held as a table: what a module may use, and that nothing is used in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of the library from the top to the ground, and what each uses of the others: only what stands below it.
/// A room is a folder or a file; those inside of `engine` are rooms of their own.
const ORDER: &[(&str, &[&str])] = &[
    ("guide", &[]),
    ("test", &["api", "clock", "config", "error", "listener", "pages", "server"]),
    (
        "server",
        &[
            "api",
            "clock",
            "config",
            "engine::acceptor",
            "engine::connection",
            "engine::memory",
            "engine::pool",
            "error",
            "generation",
            "lifecycle",
            "listener",
            "logging",
            "pages",
            "program",
            "push",
            "site",
            "sys",
        ],
    ),
    (
        "program",
        &[
            "access",
            "closest",
            "config",
            "engine::connection",
            "engine::memory",
            "error",
            "lifecycle",
            "listener",
            "logging",
            "push",
            "sys",
        ],
    ),
    ("engine::memory", &["config", "engine::connection", "error", "sys"]),
    (
        "engine::acceptor",
        &[
            "clock",
            "config",
            "engine::connection",
            "engine::pool",
            "engine::slot",
            "engine::table",
            "error",
            "lifecycle",
            "listener",
            "logging",
            "sys",
        ],
    ),
    ("engine::pool", &["clock", "engine::connection", "engine::slot", "engine::sync", "logging", "sys"]),
    ("engine::table", &["engine::connection"]),
    (
        "engine::connection",
        &["api", "clock", "config", "engine::slot", "generation", "lifecycle", "logging", "pages", "sys"],
    ),
    ("engine::slot", &["clock", "engine::sync"]),
    ("engine::sync", &[]),
    ("engine", &[]),
    ("site", &["access", "api", "clock", "config", "error", "generation", "logging", "pages", "push", "sys"]),
    ("pages", &["api"]),
    ("access", &["api", "clock", "logging", "sys"]),
    ("push", &["api", "clock", "config", "error", "lifecycle", "logging", "sys"]),
    ("api", &["clock", "lifecycle", "logging"]),
    ("logging", &["clock", "closest", "config", "error", "generation", "lifecycle", "sys"]),
    ("lifecycle", &["error", "listener", "stopping", "sys"]),
    ("config", &["error", "listener"]),
    ("listener", &["error", "sys"]),
    ("clock", &["sys"]),
    ("sys", &[]),
    ("closest", &[]),
    ("error", &[]),
    ("generation", &[]),
    ("stopping", &[]),
];

/// What is bytes only must not reach for: I/O, clocks, threads.
const OUTSIDE_WORLD: &[&str] =
    &["std::io", "std::net", "std::fs", "std::os", "std::time", "std::thread", "std::env", "rustix", "libc", "mio"];

/// The crates that are.
const BYTES_ONLY: &[&str] = &["http1", "requestlog", "sockjs", "websocket"];

/// The crates of this workspace, and which of the others each may use: what stands below it, and never the library.
const CRATES: &[(&str, &[&str])] = &[
    ("pubsub", &["http1", "websocket"]),
    ("sockjs", &["http1"]),
    ("websocket", &["http1"]),
    ("http1", &[]),
    ("requestlog", &[]),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let rust = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.chain(directories.iter().flat_map(|directory| files_below(directory))).collect()
}

/// What a file is called as a module: `engine::table`, `server::overlap`; of a folder's `mod.rs` the folder.
fn module(file: &Path) -> String {
    let inside = file.strip_prefix(source()).expect("below src").with_extension("");
    let names: Vec<_> = inside.components().map(|name| name.as_os_str().to_string_lossy().into_owned()).collect();
    let names = if names.len() > 1 && names.last().is_some_and(|name| name == "mod") {
        &names[..names.len() - 1]
    } else {
        &names
    };
    names.join("::")
}

/// The room in which a module or an item of one stands.
fn room(path: &str) -> Option<&'static str> {
    ORDER.iter().map(|(room, _)| *room).filter(|room| allows(room, path)).max_by_key(|room| room.len())
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

/// The library's files, without what belongs to unit tests, and the program, which has a test of its own.
fn library_files() -> Vec<PathBuf> {
    let program = program_modules();
    let is_of_tests = |name: &str| name.ends_with("testing") || name.ends_with("::tests") || name == "properties";
    let mut files = files_below(&source());
    files.retain(|file| {
        let name = module(file);
        name != "lib" && !is_of_tests(&name) && !program.contains(&name)
    });
    files
}

/// The full paths of what a file uses by `crate::` and `super::`.
fn uses(file: &Path) -> BTreeSet<String> {
    let (code, exports, module) = (code(file), exports(), module(file));
    let mut paths = BTreeSet::new();
    for path in used(&code) {
        let (first, rest) = path.split_once("::").map_or((path.as_str(), ""), |(first, rest)| (first, rest));
        paths.insert(exports.get(first).map_or(path.clone(), |full| format!("{full}::{rest}")));
    }
    let above = module.rsplit_once("::").map_or("", |(above, _)| above);
    for line in code.split("use super::").skip(1) {
        read_tree(line, above, &mut paths);
    }
    // What a folder's own file takes from those in it, by their names or again from itself.
    let own = if file.ends_with("mod.rs") { module.as_str() } else { "" };
    if !own.is_empty() {
        let inside: Vec<String> =
            files_below(file.parent().expect("a folder")).iter().map(|file| self::module(file)).collect();
        for line in code.split("\nuse ").chain(code.split("\npub use ")).skip(1) {
            let mut found = BTreeSet::new();
            read_tree(line, own, &mut found);
            paths.extend(
                found.into_iter().filter(|path| inside.iter().any(|module| module != own && allows(module, path))),
            );
        }
    }
    paths
}

#[test]
fn each_room_uses_only_what_stands_below_it() {
    let mut wrong = Vec::new();
    let mut needed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in library_files() {
        let module = module(&file);
        let Some(own) = room(&module) else {
            wrong.push(format!("{module} has no place in the order"));
            continue;
        };
        needed.entry(own).or_default();
        for path in uses(&file) {
            match room(&path) {
                Some(other) if other == own => {}
                Some(other) => drop(needed.entry(own).or_default().insert(other)),
                None => wrong.push(format!("{module} uses {path}, which has no place in the order")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let told: BTreeMap<&str, BTreeSet<&str>> =
        ORDER.iter().map(|(room, below)| (*room, below.iter().copied().collect())).collect();
    for (room, uses) in &needed {
        assert_eq!(Some(uses), told.get(room), "what {room} uses, and what the order says");
    }
    assert_eq!(needed.len(), told.len(), "rooms of the order that are not in src");
    let place = |room: &str| ORDER.iter().position(|(other, _)| *other == room);
    for (room, below) in ORDER {
        let back: Vec<_> = below.iter().filter(|below| place(below) <= place(room)).collect();
        assert!(back.is_empty(), "{room} uses what stands above it: {back:?}");
    }
}

/// Files that use each other need a third for what they share. What a folder's own file declares, those in the folder
/// may use.
#[test]
fn no_two_files_use_each_other_in_a_circle() {
    let files = library_files();
    let modules: BTreeSet<String> = files.iter().map(|file| module(file)).collect();
    let file_of = |path: &str| modules.iter().filter(|module| allows(module, path)).max_by_key(|module| module.len());
    let direct: BTreeMap<String, BTreeSet<String>> = files
        .iter()
        .map(|file| {
            let own = module(file);
            let others = uses(file).iter().filter_map(|path| file_of(path).cloned()).collect::<BTreeSet<_>>();
            (own.clone(), others.into_iter().filter(|other| !allows(other, &own)).collect())
        })
        .collect();
    let reaches = |from: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            next.extend(direct[module].iter().filter(|other| seen.insert((*other).clone())));
        }
        seen
    };
    let all: BTreeMap<&String, BTreeSet<String>> = modules.iter().map(|module| (module, reaches(module))).collect();
    let mut circles = Vec::new();
    for module in modules.iter().filter(|module| all[module].contains(*module)) {
        let with = direct[module].iter().filter(|other| all[other].contains(module)).collect::<Vec<_>>();
        circles.push(format!("{module} and {with:?}"));
    }
    assert!(circles.is_empty(), "they use each other: {circles:#?}");
}

/// Where a crate's own sources are.
fn source_of(member: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates").join(member).join("src")
}

#[test]
fn protocols_are_bytes_only() {
    for file in BYTES_ONLY.iter().flat_map(|member| files_below(&source_of(member))) {
        // To read an address is no I/O, and a date is no clock.
        let code = code(&file).replace("std::net::Ipv6Addr", "").replace("std::time::{Duration, UNIX_EPOCH}", "");
        for outside in OUTSIDE_WORLD {
            assert!(!code.contains(outside), "{} uses {outside}", file.display());
        }
    }
}

#[test]
fn each_crate_uses_only_what_stands_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    let folders = fs::read_dir(&root).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let members: BTreeSet<String> = folders.map(|name| name.to_string_lossy().into_owned()).collect();
    assert_eq!(members, CRATES.iter().map(|(member, _)| (*member).to_owned()).collect(), "the crates, and the order");
    for (place, (member, below)) in CRATES.iter().enumerate() {
        let manifest = fs::read_to_string(root.join(member).join("Cargo.toml")).expect("a manifest");
        let dependencies = manifest.split("\n[dependencies]\n").nth(1).and_then(|rest| rest.split("\n[").next());
        let names =
            dependencies.unwrap_or_default().lines().filter_map(|line| Some(line.split_once([' ', '.', '='])?.0));
        let ours = |name: &&str| members.contains(*name) || name.starts_with("handover");
        let used: BTreeSet<&str> = names.filter(ours).collect();
        assert_eq!(used, below.iter().copied().collect(), "what {member} uses of the others, and what the order says");
        for other in *below {
            let stands = CRATES.iter().position(|(name, _)| name == other);
            assert!(stands > Some(place), "{member} uses {other}, which stands above it");
        }
    }
}

/// The poller belongs to the acceptor; the server only makes it.
#[test]
fn only_the_acceptor_watches() {
    for file in files_below(&source()) {
        if room(&module(&file)) != Some("engine::acceptor") {
            let code = code(&file);
            for name in ["Interest", "SourceFd", ".poll(", "Registry"] {
                assert!(!code.contains(name), "{} has {name}", file.display());
            }
        }
    }
}

/// The oldest compiler that is promised drops what it refers to at the end of the statement; those of today do not, so it
/// went in twice before `.ci/run msrv` said so.
#[test]
fn no_arguments_of_a_message_outlive_their_statement() {
    for file in files_below(&source()) {
        let code = code(&file).split_whitespace().collect::<Vec<_>>().join(" ");
        let found = code.split_once("= format_args!(").map(|(_, behind)| behind);
        assert!(found.is_none(), "{}: a `let` of format_args!: {:.80}", file.display(), found.unwrap_or_default());
    }
}

/// What has to be believed, and not only compiled, stands in one place, and is safe for whoever calls it.
#[test]
fn what_is_unsafe_stands_below_sys() {
    let has_it = |code: &str| {
        // A hyphen is part of a word: of `'unsafe-inline'`, for one, in a field of a response.
        code.split(|char: char| !char.is_alphanumeric() && char != '_' && char != '-').any(|word| word == "unsafe")
    };
    assert!(has_it("let x = unsafe{ y };") && !has_it("let unsafe_code = \"'unsafe-inline'\";"));
    let crates = CRATES.iter().flat_map(|(member, _)| files_below(&source_of(member)));
    for file in files_below(&source()).into_iter().chain(crates) {
        let sys = file.starts_with(source().join("sys"));
        assert!(sys || !has_it(&code(&file)), "{} has what belongs below src/sys", file.display());
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

/// Not every host that is built for has atomics of 64 bits: MIPS of 32 bits has none, and there `std` has no such type.
#[test]
fn no_atomic_of_64_bits_is_that_of_the_standard_library() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "crates", "examples", "tests"].map(|folder| files_below(&root.join(folder)));
    let mut wrong = Vec::new();
    for file in folders.iter().flatten().filter(|file| !file.ends_with("tests/layers.rs")) {
        let text = fs::read_to_string(file).expect("a source file");
        // An import may stand over several lines; that of an example in a comment is one as well.
        let imports = text.split("sync::").skip(1).filter_map(|rest| rest.split(';').next());
        if imports.filter(|it| it.contains("atomic::")).any(|it| it.contains("AtomicU64") || it.contains("AtomicI64")) {
            wrong.push(file.strip_prefix(root).expect("inside").display().to_string());
        }
    }
    assert_eq!(wrong, [""; 0], "portable_atomic has them, and so has a number behind a lock");
}
