//! What a directory without an index shows: its entries, as a page.

use super::path::ENCODED;
use super::root::Root;
use crate::api::{Body, Response, known_header};
use http1::date::Date;
use percent_encoding::percent_encode;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, RawDir, Stat, fstat, statat};
use rustix::io::Errno;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

/// The most bytes of a page, some 600 names: as many as an error page may have, since like that one it is held for as
/// long as its client takes to read it.
const MAX_PAGE: usize = 64 * 1024;

/// The most bytes of names that are held while a page is made.
const MAX_HELD: usize = 48 * 1024;

/// The most names that are read for one page: this takes a worker about a tenth of a second.
const MAX_READ: usize = 100_000;

/// Nothing is loaded and nothing runs; only the page's own style counts. The names are from whoever may write to the
/// directory, and this holds even if one of them should get through as markup.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:1rem auto;padding:0 1rem}\
h1{font-size:1.25rem;overflow-wrap:anywhere}\
table{width:100%;border-collapse:collapse}\
th,td{text-align:left;padding:.25rem .5rem .25rem 0;vertical-align:top}\
td:first-child{overflow-wrap:anywhere}\
th+th,td+td{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
a{unicode-bidi:isolate}\
@media(max-width:32rem){th:nth-child(3),td:nth-child(3){display:none}}";

/// Which directory is shown.
pub(super) struct Place<'p> {
    /// Its path on the site, without slashes around it.
    pub path: &'p [u8],
    /// Its name below the root.
    pub below: &'p [u8],
}

/// Answers with the entries of a directory that is open for reading.
///
/// The page says nothing of its age, as a directory's time does not change with what is in its files; it is small
/// enough to be fetched again.
pub(super) fn answer(root: &Root, directory: &OwnedFd, place: &Place<'_>) -> io::Result<Response> {
    let body = Body::from(page(root, directory, place)?);
    let headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Security-Policy", POLICY),
        ("Cache-Control", "no-cache"),
    ];
    Ok(body.into_response_with(200, headers.iter().map(|(name, value)| known_header(name, value)).collect()))
}

/// An entry of the directory.
///
/// Its order is that of the page: directories first, and names as people sort them, whose case does not matter as long
/// as something else differs.
struct Listed {
    is_directory: bool,
    name: Box<[u8]>,
    /// In bytes, of a file.
    length: u64,
    /// In seconds since 1970.
    modified: u64,
}

impl Ord for Listed {
    fn cmp(&self, other: &Listed) -> Ordering {
        let kind = other.is_directory.cmp(&self.is_directory);
        let folded = || self.name.iter().map(u8::to_ascii_lowercase).cmp(other.name.iter().map(u8::to_ascii_lowercase));
        kind.then_with(folded).then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for Listed {
    fn partial_cmp(&self, other: &Listed) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Listed {
    fn eq(&self, other: &Listed) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Listed {}

/// What was read of a directory.
struct Names {
    /// Those that come first in the order of the page, as many as may be held.
    first: Vec<Listed>,
    /// How many there are; [`MAX_READ`] and one if there are more.
    seen: usize,
}

impl Names {
    fn read(directory: &OwnedFd) -> Result<Names, Errno> {
        let mut buffer = Vec::with_capacity(8 * 1024);
        let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
        // The last one on top, to go when there are too many.
        let mut first: BinaryHeap<Listed> = BinaryHeap::new();
        let (mut held, mut seen) = (0, 0);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name.starts_with(b".") {
                continue;
            }
            seen += 1;
            if seen > MAX_READ {
                break;
            }
            let is_directory = entry.file_type() == FileType::Directory;
            let entry = Listed { is_directory, name: name.into(), length: 0, modified: 0 };
            held += entry.held();
            first.push(entry);
            while held > MAX_HELD
                && let Some(last) = first.pop()
            {
                held -= last.held();
            }
        }
        Ok(Names { first: first.into_vec(), seen })
    }
}

/// What a name stands for, if it would be served. A link counts as what it leads to, and only if that lies below the
/// root, so that nobody learns what is elsewhere.
fn stat_of(root: &Root, directory: &OwnedFd, place: &Place<'_>, name: &[u8]) -> Option<Stat> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let stat = match FileType::from_raw_mode(stat.st_mode as _) {
        FileType::Symlink => {
            let full = match place.below {
                b"" => name.to_vec(),
                below => [below, b"/", name].concat(),
            };
            fstat(root.read(&full).ok()?).ok()?
        }
        _ => stat,
    };
    matches!(FileType::from_raw_mode(stat.st_mode as _), FileType::RegularFile | FileType::Directory).then_some(stat)
}

fn page(root: &Root, directory: &OwnedFd, place: &Place<'_>) -> io::Result<Vec<u8>> {
    let Names { first: mut entries, seen } = Names::read(directory)?;
    let mut is_cut = entries.len() < seen;
    entries.retain_mut(|entry| match stat_of(root, directory, place, &entry.name) {
        Some(stat) => {
            entry.take(&stat);
            true
        }
        None => false,
    });
    // Only now it is known which links lead to directories.
    entries.sort_unstable();
    let path = match place.path {
        b"" => "/".to_owned(),
        path => format!("/{}/", Escaped(path)),
    };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Index of {path}</title>\n<style>{STYLE}</style>\n<h1>Index of {path}</h1>\n\
         <table>\n<tr><th>Name<th>Size<th>Modified (UTC)\n"
    )
    .into_bytes();
    // What is above the root is not ours to link to.
    if !place.below.is_empty() {
        page.extend_from_slice(b"<tr><td><a href=\"../\">../</a><td><td>\n");
    }
    let mut row = Vec::new();
    for entry in &entries {
        row.clear();
        entry.write(&mut row);
        is_cut |= page.len() + row.len() > MAX_PAGE;
        if page.len() + row.len() > MAX_PAGE {
            break;
        }
        page.extend_from_slice(&row);
    }
    page.extend_from_slice(b"</table>\n");
    // A vector takes everything.
    let _ = match (is_cut, seen) {
        (true, 0..=MAX_READ) => writeln!(page, "<p>The page ends here, the directory does not: it has {seen} names."),
        (true, _) => {
            writeln!(page, "<p>The page ends here, the directory does not: it has more than {MAX_READ} names.")
        }
        (false, _) if entries.is_empty() => writeln!(page, "<p>There is nothing here."),
        (false, _) => Ok(()),
    };
    page.shrink_to_fit();
    Ok(page)
}

impl Listed {
    // The types of `Stat` differ from one architecture to the next.
    #[allow(clippy::unnecessary_cast)]
    fn take(&mut self, stat: &Stat) {
        self.is_directory = FileType::from_raw_mode(stat.st_mode as _) == FileType::Directory;
        self.length = stat.st_size as u64;
        self.modified = u64::try_from(stat.st_mtime as i64).unwrap_or(0);
    }

    /// What it takes, its place in a list and what an allocator adds included.
    fn held(&self) -> usize {
        size_of::<Listed>() + self.name.len() + 16
    }

    /// Its row. Relative links, so that they are right behind a proxy that takes a prefix off the path.
    fn write(&self, out: &mut Vec<u8>) {
        let slash = if self.is_directory { "/" } else { "" };
        let (href, name) = (percent_encode(&self.name, ENCODED), Escaped(&self.name));
        let (size, date) = (Size(self), Minute(self.modified));
        // A vector takes everything.
        let _ = writeln!(out, "<tr><td><a href=\"{href}{slash}\">{name}{slash}</a><td>{size}<td>{date}");
    }
}

/// Text for HTML. What is not UTF-8, and what no reader would see, becomes U+FFFD.
struct Escaped<'n>(&'n [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in String::from_utf8_lossy(self.0).chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ if character.is_control() => f.write_char(char::REPLACEMENT_CHARACTER)?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// As people read it: `999 B`, `1.5 KiB`; nothing for a directory.
struct Size<'e>(&'e Listed);

impl fmt::Display for Size<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let length = self.0.length;
        if self.0.is_directory {
            return Ok(());
        }
        match UNITS.into_iter().find(|(unit, _)| length >= *unit) {
            // In tenths, cut off: 1023.99 KiB is not 1024.0. A length is below 2^63, and a tenth of a unit above 100.
            Some((unit, name)) => {
                let (whole, rest) = (length / unit, length % unit);
                write!(f, "{whole}.{} {name}", rest * 10 / unit)
            }
            None => write!(f, "{length} B"),
        }
    }
}

/// `06 Nov 1994 08:49`, in UTC.
struct Minute(u64);

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of `Sun, 06 Nov 1994 08:49:37 GMT`.
        f.write_str(Date(self.0).to_string().get(5..22).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TempDir, read, value};
    use super::*;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    fn page(dir: &TempDir, below: &str) -> String {
        let root = Root::open(dir.path()).expect("a root");
        let directory = root.list(below.as_bytes()).expect("a directory");
        let place = Place { path: below.as_bytes(), below: below.as_bytes() };
        let (length, body) = read(answer(&root, &directory, &place).expect("a page"));
        assert_eq!(length, Some(body.len() as u64));
        String::from_utf8(body).expect("UTF-8")
    }

    /// Links and texts of the rows.
    fn rows(page: &str) -> Vec<(&str, &str)> {
        let rows = page.split("<tr><td><a href=\"").skip(1);
        rows.map(|row| row.split("</a>").next().and_then(|link| link.split_once("\">")).expect("a link")).collect()
    }

    #[test]
    fn directories_come_first_and_case_comes_last() {
        let dir = TempDir::new();
        for name in ["b", "A", "a", "C", "z/x", "Y/x", ".hidden", ".git/x", ".well-known/x", "10", "9"] {
            dir.write(name, "content");
        }
        let page = page(&dir, "");
        let names: Vec<&str> = rows(&page).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["Y/", "z/", "10", "9", "A", "a", "b", "C"]);
        assert!(page.contains("<title>Index of /</title>") && !page.contains("../"));
        assert!(page.contains("name=\"viewport\"") && page.contains("charset=\"utf-8\""));
    }

    #[test]
    fn names_are_text_and_never_markup() {
        let dir = TempDir::new();
        for (name, href, text) in [
            (&b"<script>alert(1)<"[..], "%3Cscript%3Ealert%281%29%3C", "&lt;script&gt;alert(1)&lt;"),
            (b"\" onclick=\"x", "%22%20onclick%3D%22x", "&quot; onclick=&quot;x"),
            (b"' &amp;", "%27%20%26amp%3B", "&#39; &amp;amp;"),
            (b"javascript:alert(1)", "javascript%3Aalert%281%29", "javascript:alert(1)"),
            (b"a?b#c%20d", "a%3Fb%23c%2520d", "a?b#c%20d"),
            (b"\\\\evil.com", "%5C%5Cevil.com", "\\\\evil.com"),
            (b"two\nlines", "two%0Alines", "two\u{fffd}lines"),
            (b"latin \xe4", "latin%20%E4", "latin \u{fffd}"),
            ("ä 日本".as_bytes(), "%C3%A4%20%E6%97%A5%E6%9C%AC", "ä 日本"),
        ] {
            let path = dir.path().join(OsStr::from_bytes(name));
            fs::write(&path, "x").expect("a file");
            assert_eq!(rows(&page(&dir, "")), [(href, text)]);
            fs::remove_file(path).expect("removed");
        }
        fs::create_dir(dir.path().join("<b>&")).expect("a directory");
        let page = page(&dir, "<b>&");
        assert!(page.contains("<title>Index of /&lt;b&gt;&amp;/</title>") && !page.contains("<b>"), "{page}");
        assert_eq!(rows(&page), [("../", "../")]);
        assert!(page.contains("There is nothing here."));
    }

    #[test]
    fn what_would_not_be_served_is_not_shown() {
        use rustix::fs::{CWD, Mode, mknodat};
        let dir = TempDir::new();
        dir.write("outside/secret", "secret");
        dir.write("root/sub/file", "f");
        dir.write("root/deep/directory/file", "f");
        for (name, target) in [
            ("up", "../../outside/secret"),
            ("up-directory", "../../outside"),
            ("absolute", "/etc/passwd"),
            ("dangling", "nothing"),
            ("circle", "circle"),
            ("inside", "file"),
            ("inside-directory", "../deep/directory"),
        ] {
            symlink(target, dir.path().join("root/sub").join(name)).expect("a link");
        }
        mknodat(CWD, dir.path().join("root/sub/fifo"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("a FIFO");
        let root = Root::open(&dir.path().join("root")).expect("a root");
        let place = Place { path: b"a/sub", below: b"sub" };
        let (_, body) = read(answer(&root, &root.list(b"sub").expect("open"), &place).expect("a page"));
        let page = String::from_utf8(body).expect("UTF-8");
        let names: Vec<&str> = rows(&page).into_iter().map(|(href, _)| href).collect();
        assert_eq!(names, ["../", "inside-directory/", "file", "inside"]);
        assert!(page.contains("Index of /a/sub/") && !page.contains("secret"));
    }

    #[test]
    fn of_many_names_the_first_are_shown_and_the_rest_are_counted() {
        // Names that fill what may be held, and names that fill the page.
        for (count, padding) in [(1200, ""), (400, "&&&&&&&&&&&&&&&&&&&&")] {
            let dir = TempDir::new();
            for number in 0..count {
                fs::write(dir.path().join(format!("{number:05}{padding}")), "").expect("a file");
            }
            fs::create_dir(dir.path().join("zzz")).expect("a directory");
            let page = page(&dir, "");
            assert!((MAX_PAGE / 2..MAX_PAGE + 100).contains(&page.len()), "{}", page.len());
            let names: Vec<&str> = rows(&page).into_iter().map(|(href, _)| &href[..href.len().min(5)]).collect();
            let mut expected = vec!["zzz/".to_owned()];
            expected.extend((0..names.len() - 1).map(|number| format!("{number:05}")));
            assert!(names.len() < count && names == expected, "{names:?}");
            let line = format!("<p>The page ends here, the directory does not: it has {} names.\n", count + 1);
            assert!(page.ends_with(&line), "{line}");
        }
    }

    #[test]
    fn sizes_and_dates_are_for_people() {
        let entry = |length, is_directory| Listed { is_directory, name: Box::default(), length, modified: 0 };
        for (length, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (i64::MAX as u64, "8388607.9 TiB"),
        ] {
            assert_eq!(Size(&entry(length, false)).to_string(), text);
        }
        assert_eq!(Size(&entry(4096, true)).to_string(), "");
        assert_eq!(Minute(784_111_777).to_string(), "06 Nov 1994 08:49");
        assert_eq!(Minute(u64::MAX).to_string(), "31 Dec 9999 23:59");
    }

    #[test]
    fn nothing_on_the_page_is_loaded_or_runs() {
        let dir = TempDir::new();
        let root = Root::open(dir.path()).expect("a root");
        let place = Place { path: b"", below: b"" };
        let response = answer(&root, &root.list(b"").expect("open"), &place).expect("a page");
        assert_eq!(value(&response, "Content-Security-Policy"), Some(POLICY));
        assert_eq!(value(&response, "Cache-Control"), Some("no-cache"));
        assert_eq!(value(&response, "X-Content-Type-Options"), Some("nosniff"));
        let (_, body) = read(response);
        let page = String::from_utf8(body).expect("UTF-8");
        for loading in ["src=", "url(", "@import", "<script", "<link"] {
            assert!(!page.contains(loading), "{loading}");
        }
    }
}
