//! What holds for any path. Each function panics where it does not: the fuzz targets call them with
//! what a fuzzer makes up, the tests with mutated requests.

use super::path::{ENCODED, name};
use super::root::{Resolver, Root};
use percent_encoding::{percent_decode, percent_encode};
use rustix::fs::{fstat, stat};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// RFC 3986 §5.2.4, step by step.
fn remove_dot_segments(path: &str) -> String {
    let (mut input, mut output) = (path.to_owned(), String::new());
    while !input.is_empty() {
        if let Some(rest) = input.strip_prefix("../").or(input.strip_prefix("./")) {
            input = rest.to_owned();
        } else if let Some(rest) = input.strip_prefix("/./") {
            input = format!("/{rest}");
        } else if input == "/." {
            input = "/".to_owned();
        } else if let Some(rest) = input.strip_prefix("/../") {
            input = format!("/{rest}");
            output.truncate(output.rfind('/').unwrap_or(0));
        } else if input == "/.." {
            input = "/".to_owned();
            output.truncate(output.rfind('/').unwrap_or(0));
        } else if input == "." || input == ".." {
            input.clear();
        } else {
            let end = input[1..].find('/').map_or(input.len(), |at| at + 1);
            output.push_str(&input[..end]);
            input.drain(..end);
        }
    }
    output
}

/// The name by the letter of the RFC: decode each segment, remove dot segments, then the empty ones. `None` where a
/// segment cannot be a name, or is hidden.
fn name_by_the_book(path: &str) -> Option<(Vec<u8>, bool)> {
    let mut normal = String::new();
    for segment in path.strip_prefix('/')?.split('/') {
        for (at, _) in segment.match_indices('%') {
            u8::from_str_radix(segment.get(at + 1..at + 3)?, 16).ok()?;
            (!segment[at + 1..].starts_with(['+', '-'])).then_some(())?;
        }
        let decoded: Vec<u8> = percent_decode(segment.as_bytes()).collect();
        (!decoded.contains(&b'/') && !decoded.contains(&0)).then_some(())?;
        normal.push('/');
        normal.extend(percent_encode(&decoded, ENCODED));
    }
    let normal = remove_dot_segments(&normal);
    let directory = normal.ends_with('/');
    let segments: Vec<&str> = normal.split('/').filter(|segment| !segment.is_empty()).collect();
    let hidden = |(at, segment): (usize, &&str)| segment.starts_with('.') && !(at == 0 && *segment == ".well-known");
    (!segments.iter().enumerate().any(hidden)).then_some(())?;
    Some((percent_decode(segments.join("/").as_bytes()).collect(), directory))
}

/// A path as it can stand in a request.
pub fn path(bytes: &[u8]) {
    if !bytes.iter().all(u8::is_ascii_graphic) {
        return;
    }
    let path = format!("/{}", String::from_utf8_lossy(bytes));
    let read = name(&path).ok();
    let found = read.as_ref().map(|name| (name.bytes.to_vec(), name.directory));
    assert_eq!(found, name_by_the_book(&path), "{path}");
    let Some(read) = read else { return };
    for (at, segment) in read.bytes.split(|&byte| byte == b'/').enumerate() {
        assert!(!segment.is_empty() || read.bytes.is_empty(), "{path}");
        assert!(!segment.starts_with(b".") || (at == 0 && segment == b".well-known"), "{path}");
        assert!(!segment.contains(&0), "{path}");
    }
    // Written down again it is the same name.
    let encoded: Vec<String> =
        read.bytes.split(|&byte| byte == b'/').map(|segment| percent_encode(segment, ENCODED).to_string()).collect();
    let slash = if read.directory && !read.bytes.is_empty() { "/" } else { "" };
    assert_eq!(name(&format!("/{}{slash}", encoded.join("/"))).as_ref(), Ok(&read), "{path}");
}

/// A directory to be served, beside one that must never be.
struct Prepared {
    top: PathBuf,
    root: PathBuf,
    roots: [Root; 2],
    inside: BTreeSet<u64>,
}

impl Prepared {
    fn new() -> Prepared {
        let top = std::env::temp_dir().join(format!("handover-below-{}", std::process::id()));
        let root = top.join("root");
        let _ = fs::remove_dir_all(&top);
        for directory in ["root/a/b/c", "root/d", "outside/a/b"] {
            fs::create_dir_all(top.join(directory)).expect("a directory");
        }
        for file in ["root/f", "root/a/f", "root/a/b/f", "root/a/b/c/f", "root/d/index.html", "outside/a/f", "secret"] {
            fs::write(top.join(file), file).expect("a file");
        }
        for (link, target) in
            [("out", "../outside"), ("up", "a/../.."), ("in", "a/b"), ("a/back", "../d"), ("a/b/loop", "loop")]
        {
            symlink(target, root.join(link)).expect("a link");
        }
        let open = |resolver| Root::open(&root).expect("a root").with_resolver(resolver);
        let roots = [open(Resolver::Kernel), open(Resolver::Walk)];
        let mut inside = BTreeSet::new();
        gather(&root, &mut inside);
        Prepared { top, root, roots, inside }
    }
}

/// The inodes of a directory and all below it, no link followed.
fn gather(path: &Path, inodes: &mut BTreeSet<u64>) {
    inodes.insert(stat(path).expect("stat").st_ino);
    for entry in fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry")) {
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            gather(&entry.path(), inodes);
        } else if kind.is_file() {
            inodes.insert(stat(entry.path()).expect("stat").st_ino);
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.top);
    }
}

/// Resolves below a prepared directory: lines of the input are the targets of symbolic links `l0`, `l1`, `a/l2` and
/// `a/b/l3`, `~` at the beginning of one being what the root is called; the last line is the path of a request. What is
/// opened lies inside, and the kernel's way and ours agree.
pub fn below(bytes: &[u8]) {
    static PREPARED: Mutex<Option<Prepared>> = Mutex::new(None);
    const LINKS: [&str; 4] = ["l0", "l1", "a/l2", "a/b/l3"];
    let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    let Some(asked) = lines.pop() else { return };
    if !asked.iter().all(u8::is_ascii_graphic) || lines.len() > LINKS.len() {
        return;
    }
    // One input at a time has the links to itself.
    let mut prepared = PREPARED.lock().unwrap_or_else(PoisonError::into_inner);
    let prepared = prepared.get_or_insert_with(Prepared::new);
    for (link, target) in LINKS.iter().zip(lines) {
        let link = prepared.root.join(link);
        let _ = fs::remove_file(&link);
        let target = match target.strip_prefix(b"~") {
            Some(rest) => [prepared.root.as_os_str().as_bytes(), rest].concat(),
            None => target.to_vec(),
        };
        // One that no file system takes is not there.
        let _ = symlink(std::ffi::OsStr::from_bytes(&target), link);
    }
    let path = format!("/{}", String::from_utf8_lossy(asked));
    let Ok(name) = name(&path) else { return };
    // The root itself is asked for by its index.
    let names = match name.bytes.is_empty() {
        true => vec![b"index.html".to_vec()],
        false => vec![name.bytes.to_vec(), [&name.bytes[..], b"/index.html"].concat()],
    };
    for name in names {
        let [kernel, walk] = prepared.roots.each_ref().map(|root| {
            let opened = root.read(&name).map(|opened| fstat(opened).expect("fstat").st_ino);
            (opened, root.has_directory(&name))
        });
        let shown = String::from_utf8_lossy(&name);
        assert!(
            kernel.0.is_err() || kernel.0.is_ok_and(|inode| prepared.inside.contains(&inode)),
            "{shown} is outside"
        );
        assert_eq!(walk, kernel, "{shown}");
    }
}
