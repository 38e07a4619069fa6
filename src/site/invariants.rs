//! What holds for any path, range and date. Each function panics where it does not: the fuzz targets call them with
//! what a fuzzer makes up, the tests with mutated requests.

use super::conditional::{self, Validators, Verdict};
use super::files::ENCODED;
use super::path::name;
use super::range::{self, MAX_RANGES, Part, Selection};
use super::root::{Resolver, Root};
use crate::date::{self, Date};
use crate::handler::Request;
use crate::http::head::HeadLimits;
use percent_encoding::{percent_decode, percent_encode};
use rustix::fs::{fstat, stat};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A request with these fields, if they can stand in one.
fn request(method: &str, fields: &[(&str, &[u8])]) -> Option<Request> {
    let mut head = format!("{method} / HTTP/1.1\r\nHost: x\r\n").into_bytes();
    for (name, value) in fields {
        if value.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            return None;
        }
        head.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    head.extend_from_slice(b"\r\n");
    let mut request = Request::empty();
    let limits = HeadLimits { size: 60_000, target: 100, fields: 100 };
    (head.len() < limits.size && request.parse(&head, &limits, None).is_ok()).then_some(request)
}

/// Range fields, one a line, behind eight bytes that are the size of the representation.
pub fn range(bytes: &[u8]) {
    let Some((size, values)) = bytes.split_first_chunk() else { return };
    // Small sizes are where the edges are.
    let size = u64::from_le_bytes(*size);
    let size = if size % 2 == 0 { size >> 56 } else { size };
    let values: Vec<&[u8]> = values.split(|&byte| byte == b'\n').collect();
    let again = |value: String| range::select([value.as_bytes()].into_iter(), size);
    let selection = range::select(values.iter().copied(), size);
    assert!(values.len() == 1 || selection == Selection::Whole);
    let inside = |part: &Part| {
        assert!(part.length > 0 && part.start.checked_add(part.length).is_some_and(|end| end <= size));
        let shown = part.content_range(size);
        let (first, last) = (part.start, part.start + part.length - 1);
        assert_eq!(shown, format!("bytes {first}-{last}/{size}"));
        format!("{first}-{last}")
    };
    match &selection {
        Selection::Whole | Selection::Unsatisfiable => {}
        Selection::Part(part) => assert_eq!(again(format!("bytes={}", inside(part))), selection),
        Selection::Parts(parts) => {
            assert!((2..=MAX_RANGES).contains(&parts.len()));
            assert!(parts.is_sorted_by(|one, next| one.start + one.length <= next.start));
            let asked: Vec<String> = parts.iter().map(inside).collect();
            assert_eq!(again(format!("bytes={}", asked.join(", "))), selection);
        }
    }
    // What selects something for a file selects the same for a longer one, unless it counts from the end.
    if let (Selection::Part(part), false) = (&selection, values[0].contains(&b'-') && values[0].contains(&b',')) {
        let suffix = values[0].iter().position(|&byte| byte == b'-').is_some_and(|at| values[0][..at].ends_with(b"="));
        if let (false, Some(larger)) = (suffix || part.start + part.length == size, size.checked_mul(2)) {
            assert_eq!(range::select(values.iter().copied(), larger), selection);
        }
    }
}

/// A value of a conditional field.
pub fn dates(value: &[u8]) {
    const ETAG: &str = "\"tag\"";
    let Some(probe) = request("GET", &[("If-Modified-Since", value)]) else { return };
    // As the head gives it, without the white space around it.
    let date = conditional::parse_date(probe.header_bytes("If-Modified-Since").unwrap_or_default());
    let evaluate = |method: &str, field: &str, modified: u64| {
        let request = request(method, &[(field, value)]).expect("as before");
        conditional::evaluate(&request, Validators { etag: ETAG, modified: Some(modified), is_dated: true })
    };
    if let Some(date) = date {
        assert!(date <= date::LAST);
        let written = Date(date).to_string();
        assert_eq!(conditional::parse_date(written.as_bytes()), Some(date), "{written}");
    }
    for modified in [0, date.unwrap_or(7).saturating_sub(1), date.unwrap_or(7), date.unwrap_or(7) + 1] {
        let (seen, unseen) = match date {
            Some(date) if modified <= date => (Verdict::NotModified, Verdict::Proceed),
            Some(_) => (Verdict::Proceed, Verdict::Failed),
            None => (Verdict::Proceed, Verdict::Proceed),
        };
        assert_eq!(evaluate("GET", "If-Modified-Since", modified), seen);
        assert_eq!(evaluate("POST", "If-Modified-Since", modified), Verdict::Proceed);
        assert_eq!(evaluate("GET", "If-Unmodified-Since", modified), unseen);

        // What matches a tag strongly matches it weakly.
        let (if_match, if_none) = (evaluate("GET", "If-Match", modified), evaluate("GET", "If-None-Match", modified));
        assert!(if_match != Verdict::NotModified && if_none != Verdict::Failed);
        assert!(if_match == Verdict::Failed || if_none == Verdict::NotModified);
        assert_eq!(evaluate("POST", "If-None-Match", modified) == Verdict::Failed, if_none == Verdict::NotModified);

        let request = request("GET", &[("If-Range", value)]).expect("as before");
        let holds = |now: u64, is_dated: bool| {
            let validators = Validators { etag: ETAG, modified: Some(modified), is_dated };
            conditional::if_range_holds(&request, validators, now)
        };
        let tagged = value.trim_ascii() == ETAG.as_bytes();
        assert_eq!(holds(modified + 1, true), tagged || date == Some(modified));
        assert_eq!(holds(modified, true), tagged);
        assert_eq!(holds(modified + 1, false), tagged);
    }
}

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
