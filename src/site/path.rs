//! The path of a request as a name below the root. Text only: nothing here looks at a file.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use std::borrow::Cow;

/// Everything but the unreserved characters of RFC 3986 §2.3.
pub(super) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name<'p> {
    /// Decoded, relative, without dot segments or empty ones; empty for the root itself.
    pub bytes: Cow<'p, [u8]>,
    /// Whether the path says that this is a directory: it ends in a slash or a dot segment.
    pub directory: bool,
}

/// Why a path names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathError {
    /// A `%` without two hexadecimal digits: no URI at all (RFC 3986 §2.1), so 400.
    Malformed,
    /// A segment with an encoded slash or NUL. It is a valid URI, in which `%2F` is data and no delimiter
    /// (RFC 3986 §2.2), but no file has such a name, so 404. Read as a delimiter it would be the classic way around a
    /// rule for a prefix.
    NoSuchName,
    /// A segment that begins with a dot: `.git`, `.env`, `.htpasswd`. 404 rather than 403, so that nobody learns what
    /// is there (RFC 9110 §15.5.4).
    Hidden,
}

impl PathError {
    /// The status that answers it.
    pub fn status(self) -> u16 {
        match self {
            PathError::Malformed => 400,
            PathError::NoSuchName | PathError::Hidden => 404,
        }
    }
}

/// The one hidden name that is meant to be seen, and only at the root (RFC 8615 §3).
const WELL_KNOWN: &[u8] = b".well-known";

/// Reads the path of a request, percent-encoded as sent.
///
/// Escapes are decoded exactly once and before dot segments go, since `%2e` is the same as `.` (RFC 3986 §6.2.2.2).
/// Dot segments go as in RFC 3986 §5.2.4, where `..` at the root stays at the root; so what comes out never points
/// above it. Empty segments are dropped after that, as the file system would. A backslash is a character like others.
pub(super) fn name(path: &str) -> Result<Name<'_>, PathError> {
    // `*` and the like are no paths.
    let relative = path.strip_prefix('/').ok_or(PathError::NoSuchName)?.as_bytes();
    if is_plain(relative) {
        let directory = relative.is_empty() || relative.ends_with(b"/");
        let bytes = relative.strip_suffix(b"/").unwrap_or(relative);
        return Ok(Name { bytes: bytes.into(), directory });
    }
    let mut kept: Vec<Cow<'_, [u8]>> = Vec::new();
    let mut directory = false;
    for segment in relative.split(|&byte| byte == b'/') {
        let segment = decode(segment)?;
        directory = matches!(&*segment, b"" | b"." | b"..");
        match &*segment {
            b"." => {}
            // An empty segment counts as one here: `/a//../b` is `/a/b`.
            b".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let mut bytes = Vec::with_capacity(relative.len());
    for segment in kept.iter().filter(|segment| !segment.is_empty()) {
        if segment.starts_with(b".") && !(bytes.is_empty() && &**segment == WELL_KNOWN) {
            return Err(PathError::Hidden);
        }
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(segment);
    }
    Ok(Name { bytes: bytes.into(), directory })
}

/// Whether there is nothing to decode, to remove or to refuse: the usual path, which needs no copy.
fn is_plain(relative: &[u8]) -> bool {
    let mut before = b'/';
    for &byte in relative {
        if byte == b'%' || (before == b'/' && (byte == b'.' || byte == b'/')) {
            return false;
        }
        before = byte;
    }
    true
}

/// Percent-decodes one segment; unlike `percent_encoding`, which lets malformed escapes through as they are.
fn decode(segment: &[u8]) -> Result<Cow<'_, [u8]>, PathError> {
    if !segment.contains(&b'%') {
        return Ok(segment.into());
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let [high, low, tail @ ..] = tail else { return Err(PathError::Malformed) };
        match hex(*high)? << 4 | hex(*low)? {
            0 | b'/' => return Err(PathError::NoSuchName),
            byte => decoded.push(byte),
        }
        rest = tail;
    }
    Ok(decoded.into())
}

fn hex(digit: u8) -> Result<u8, PathError> {
    char::from(digit).to_digit(16).map(|value| value as u8).ok_or(PathError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &str) -> Result<Name<'static>, PathError> {
        Ok(Name { bytes: bytes.as_bytes().to_vec().into(), directory: false })
    }

    fn directory(bytes: &str) -> Result<Name<'static>, PathError> {
        Ok(Name { bytes: bytes.as_bytes().to_vec().into(), directory: true })
    }

    #[test]
    fn names() {
        assert_eq!(name("/"), directory(""));
        assert_eq!(name("/a"), file("a"));
        assert_eq!(name("/a/b.html"), file("a/b.html"));
        assert_eq!(name("/a/"), directory("a"));
        assert_eq!(name("/a%20b/c%C3%A4"), file("a b/cä"));
        assert_eq!(name("/%61"), file("a"));
        assert_eq!(name("/a.b..c"), file("a.b..c"));
        assert_eq!(name("/a\\..\\b"), file("a\\..\\b"));
        assert_eq!(name("*"), Err(PathError::NoSuchName));
    }

    #[test]
    fn escapes_are_decoded_once() {
        assert_eq!(name("/%252e%252e/a"), file("%2e%2e/a"));
        assert_eq!(name("/%2525"), file("%25"));
        for path in ["/%", "/a%2", "/%zz", "/%2", "/%+1", "/%-1", "/a/%%"] {
            assert_eq!(name(path), Err(PathError::Malformed), "{path}");
        }
        for path in ["/a%00", "/%00/..", "/a%2Fb", "/..%2f..%2fetc", "/%2e%2e%2f"] {
            assert_eq!(name(path), Err(PathError::NoSuchName), "{path}");
        }
    }

    #[test]
    fn dot_segments_go_and_never_leave_the_root() {
        assert_eq!(name("/.."), directory(""));
        assert_eq!(name("/../../../etc/passwd"), file("etc/passwd"));
        assert_eq!(name("/%2e%2E/%2e./.%2e/etc/passwd"), file("etc/passwd"));
        assert_eq!(name("/a/./b/../c"), file("a/c"));
        assert_eq!(name("/a/."), directory("a"));
        assert_eq!(name("/a/b/.."), directory("a"));
        assert_eq!(name("/a/%2e"), directory("a"));
    }

    #[test]
    fn empty_segments_go_last() {
        assert_eq!(name("//etc/passwd"), file("etc/passwd"));
        assert_eq!(name("/a//b"), file("a/b"));
        assert_eq!(name("/a//../b"), file("a/b"));
        assert_eq!(name("/a//"), directory("a"));
        assert_eq!(name("//"), directory(""));
    }

    #[test]
    fn hidden_names_stay_hidden() {
        for path in ["/.git/config", "/.env", "/a/.b", "/%2eenv", "/...", "/.well-known/.a", "/a/.well-known/b", "//.e"]
        {
            assert_eq!(name(path), Err(PathError::Hidden), "{path}");
        }
        assert_eq!(name("/.well-known/acme"), file(".well-known/acme"));
        assert_eq!(name("/.well-known/"), directory(".well-known"));
        assert_eq!(name("/.git/../a"), file("a"));
    }

    /// Every path of up to six of the bytes that matter comes out relative, without `..`, and in one reading only.
    #[test]
    fn nothing_escapes() {
        const PIECES: [&str; 8] = ["/", ".", "..", "%2e", "%2F", "a", "\\", "%"];
        for number in 0..8u32.pow(6) {
            let path = (0..6).map(|at| PIECES[(number >> (3 * at)) as usize & 7]).collect::<String>();
            let path = format!("/{path}");
            if let Ok(name) = name(&path) {
                let hidden = |segment: &[u8]| segment.starts_with(b".");
                assert!(!name.bytes.starts_with(b"/") && !name.bytes.ends_with(b"/"), "{path}");
                assert!(!name.bytes.split(|&byte| byte == b'/').any(hidden), "{path}");
            }
        }
    }
}
