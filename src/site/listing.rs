//! What a directory without an index shows: its entries, as a page.

mod entries;
mod order;

use super::answer::answer_made;
use super::path::ENCODED;
use super::root::Root;
use crate::api::{Bytes, Request, Response};
use crate::pages;
use entries::{Directory, Entries, Entry, Found, MAX_READ};
use http1::date::Date;
use order::{By, Key, Order, View};
use percent_encoding::percent_encode;
use rustix::fd::OwnedFd;
use std::fmt::{self, Display, Write as _};
use std::io;
use std::sync::LazyLock;

/// The most bytes of a page, some 450 names: as many as an error page may have, since like that one it is held for as
/// long as its client takes to read it. The others are on the next one.
const MAX_PAGE: usize = 64 * 1024;

/// What is left of that for what stands behind the rows: a link to the next page has a name in it.
const FOOT: usize = 2 * 1024;

/// Directories on the way to the one that is shown, besides the first; of more the last. A path may have two thousand, and
/// each link to one is the longer the farther up it leads.
const MAX_STEPS: usize = 8;

/// The beginning of each page, up to its title, and what stands between that and its heading.
static HEAD: LazyLock<String> = LazyLock::new(|| pages::complete("{head}<title>Index of "));
static STYLE: LazyLock<String> =
    LazyLock::new(|| pages::complete(&format!("</title>\n{{icon}}\n<style>{{style}}{OWN_STYLE}</style>\n{ICONS}")));

/// Nothing is loaded and nothing runs; only the page's own style counts. The names are from whoever may write to the
/// directory, and this holds even if one of them should get through as markup.
static POLICY: LazyLock<String> = LazyLock::new(|| pages::policy(&STYLE));

const OWN_STYLE: &str = "\
nav h1 { font-size: 1.25rem }
table { width: 100%; margin: .5rem 0; border-collapse: collapse }
th, td { padding: .25rem 1rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
th { font-weight: 500; white-space: nowrap }
th:first-child { width: 99% }
th[aria-sort=ascending] a::after { content: ' \\2191' }
th[aria-sort=descending] a::after { content: ' \\2193' }
td:first-child { overflow-wrap: anywhere }
td a { display: inline-block; position: relative; padding-left: 1.75rem; text-decoration: none }
td a:hover { text-decoration: underline }
th + th, td + td { padding-right: 0; padding-left: 1rem; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
td + td { color: var(--soft) }
a { unicode-bidi: isolate }
svg { position: absolute; left: 0; top: .1875rem; width: 1.125rem; height: 1.125rem; fill: none; stroke: currentColor; stroke-width: 1.25 }
@media (max-width: 32rem) {
  th + th, td + td { padding-left: .625rem }
  td + td { font-size: .8125rem; line-height: 1.875 }
  th + th + th, td + td + td { white-space: normal }
  td + td + td { min-width: 5.75rem; line-height: 1.35; padding-top: .4375rem }
}
";

/// Drawn once, and used in each row: a directory, a file, the way up.
const ICONS: &str = "<svg hidden><symbol id=\"d\" viewBox=\"0 0 16 16\"><path d=\"M1.5 13V3.5H6L7.5 5.5h7V13z\"/></symbol>\
<symbol id=\"f\" viewBox=\"0 0 16 16\"><path d=\"M3.5 1.5h6l3 3v10h-9zM9.5 1.5v3h3\"/></symbol>\
<symbol id=\"u\" viewBox=\"0 0 16 16\"><path d=\"M8 13.5V3M4 7l4-4 4 4\"/></symbol></svg>\n";

/// Which directory is shown.
pub(super) struct Place<'p> {
    /// Its path on the site, without slashes around it.
    pub path: &'p [u8],
    /// Its name below the root.
    pub below: &'p [u8],
}

/// Answers with the entries of a directory that is open for reading.
///
/// The page says nothing of its age, as a directory's time does not change with what is in its files. Its tag is of what it
/// shows.
pub(super) fn answer(request: &Request, root: &Root, opened: &OwnedFd, place: &Place<'_>) -> io::Result<Response> {
    let directory = Directory { root, opened, place };
    let page = page(&directory, &View::of(request.query()))?;
    Ok(answer_made(request, Bytes::Owned(page.into_bytes()), "text/html; charset=utf-8", &POLICY))
}

fn page(directory: &Directory<'_>, view: &View) -> io::Result<String> {
    let Entries { next, before, count, is_all, order } = directory.read(view)?;
    // As much as it will have, so that it need not grow to twice that.
    let mut page = String::with_capacity(MAX_PAGE.min(8 * 1024 + 160 * next.len()));
    let steps = Steps::to(directory.place);
    // A string takes everything, here and below.
    let _ =
        write!(page, "{}{}{}<main>\n<nav aria-label=\"Path\">{}</nav>\n", *HEAD, steps.text(), *STYLE, steps.heading());
    let number = Grouped(count);
    let _ = match (count, is_all) {
        (0, true) => writeln!(page, "<p class=\"soft\">There is nothing here.</p>"),
        (1, true) => writeln!(page, "<p class=\"soft\">1 name</p>"),
        (_, true) => writeln!(page, "<p class=\"soft\">{number} names</p>"),
        (_, false) => {
            writeln!(page, "<p class=\"soft\">More than {} names, of which {number} are shown</p>", Grouped(MAX_READ))
        }
    };
    if order.by != view.order.by {
        let _ = writeln!(page, "<p class=\"soft\">They are sorted by name: there are too many to look at each.</p>");
    }
    page.push_str("<table>\n<thead><tr>");
    for by in By::ALL {
        column(&mut page, by, order);
    }
    page.push_str("</tr></thead>\n");
    // What is above the root is not ours to link to.
    if !directory.place.below.is_empty() {
        page.push_str("<tr><td><a href=\"../\"><svg><use href=\"#u\"/></svg>Parent directory</a><td><td>\n");
    }
    let (mut row, mut shown, mut passed, mut last) = (String::new(), 0, 0, None);
    for entry in &next {
        if let Some(found) = entry.look(directory) {
            row.clear();
            write_row(&mut row, &entry.name, found);
            if page.len() + row.len() > MAX_PAGE - FOOT {
                break;
            }
            page.push_str(&row);
            shown += 1;
        }
        passed += 1;
        last = Some(entry);
    }
    page.push_str("</table>\n");
    let rest = count - before - passed;
    if before > 0 || rest > 0 || view.after.is_some() {
        page.push_str("<nav aria-label=\"Pages\"><p>");
        let _ = match shown {
            0 => write!(page, "Nothing comes behind that. "),
            _ => write!(page, "Names {} to {} of {number}. ", Grouped(before + 1), Grouped(before + shown)),
        };
        if let Some(last) = last.filter(|_| rest > 0) {
            let _ = write!(
                page,
                "<a href=\"{}\">The next of {} more</a>. ",
                Query { order, after: Some(last) },
                Grouped(rest)
            );
        }
        if before > 0 || view.after.is_some() {
            let _ = write!(page, "<a href=\"{}\">From the beginning</a>.", Query { order, after: None });
        }
        page.push_str("</p></nav>\n");
    }
    page.push_str("</main>\n");
    page.shrink_to_fit();
    Ok(page)
}

/// The head of a column, which sorts by it, and the other way round if that is so already.
fn column(page: &mut String, by: By, order: Order) {
    let (title, at_first) = match by {
        By::Name => ("Name", false),
        // What is looked for mostly is large, or new.
        By::Size => ("Size", true),
        By::Modified => ("Modified (UTC)", true),
    };
    let (sorted, descending) = match (order.by == by, order.descending) {
        (false, _) => ("", at_first),
        (true, true) => (" aria-sort=\"descending\"", false),
        (true, false) => (" aria-sort=\"ascending\"", true),
    };
    let query = Query { order: Order { by, descending }, after: None };
    let _ = write!(page, "<th scope=\"col\"{sorted}><a href=\"{query}\">{title}</a></th>");
}

/// A row. Relative links, so that they are right behind a proxy that takes a prefix off the path.
fn write_row(row: &mut String, name: &[u8], found: Found) {
    let (icon, slash) = if found.is_directory { ("d", "/") } else { ("f", "") };
    let (href, name) = (percent_encode(name, ENCODED), Escaped(name));
    let (size, date) = (Size(found), Minute(found.modified));
    let _ = writeln!(
        row,
        "<tr><td><a href=\"{href}{slash}\"><svg><use href=\"#{icon}\"/></svg>{name}{slash}</a><td>{size}<td>{date}"
    );
}

/// The link to another page of the same directory, as it stands in HTML.
struct Query<'e> {
    order: Order,
    after: Option<&'e Entry>,
}

impl Display for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Order { by, descending } = self.order;
        if self.order == Order::NAMES && self.after.is_none() {
            return f.write_str("./");
        }
        write!(f, "?sort={}&amp;order={}", by.word(), if descending { "desc" } else { "asc" })?;
        let Some(Key { is_directory, number, name }) = self.after.map(Entry::key) else { return Ok(()) };
        write!(f, "&amp;after={}{}", percent_encode(name, ENCODED), if is_directory { "/" } else { "" })?;
        if by == By::Name { Ok(()) } else { write!(f, "&amp;at={number}") }
    }
}

/// The way to a directory.
struct Steps<'p> {
    /// The path that the root stands for.
    root: &'p [u8],
    /// The last of the directories below it, and how many there are.
    last: Vec<&'p [u8]>,
    depth: usize,
}

impl<'p> Steps<'p> {
    fn to(place: &Place<'p>) -> Steps<'p> {
        let Place { path, below } = *place;
        let root = path.strip_suffix(below).unwrap_or(path);
        let all: Vec<&[u8]> = below.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).collect();
        let last = all[all.len().saturating_sub(MAX_STEPS)..].to_vec();
        Steps { root: root.strip_suffix(b"/").unwrap_or(root), last, depth: all.len() }
    }

    /// What the root is called.
    fn root(&self) -> String {
        if self.root.is_empty() { "/".to_owned() } else { format!("/{}/", Escaped(self.root)) }
    }

    fn is_cut(&self) -> bool {
        self.depth > self.last.len()
    }

    fn text(&self) -> String {
        let mut text = self.root();
        text.push_str(if self.is_cut() { "\u{2026}/" } else { "" });
        for name in &self.last {
            let _ = write!(text, "{}/", Escaped(name));
        }
        text
    }

    /// The same, each a link to it but the last.
    fn heading(&self) -> String {
        let mut text = "<h1>Index of ".to_owned();
        let mut step = |up: usize, name: &dyn Display| {
            let _ = match up {
                0 => write!(text, "{name}"),
                up => write!(text, "<a href=\"{}\">{name}</a>", "../".repeat(up)),
            };
        };
        step(self.depth, &self.root());
        if self.is_cut() {
            step(0, &"\u{2026}/");
        }
        for (at, name) in self.last.iter().enumerate() {
            step(self.last.len() - 1 - at, &format_args!("{}/", Escaped(name)));
        }
        text + "</h1>"
    }
}

/// Text for HTML. What is not UTF-8, and what no reader would see, becomes U+FFFD.
struct Escaped<'n>(&'n [u8]);

impl Display for Escaped<'_> {
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
struct Size(Found);

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let Found { is_directory, length, .. } = self.0;
        if is_directory {
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

/// `1994-11-06 08:49`, in UTC.
struct Minute(u64);

impl Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of `Sun, 06 Nov 1994 08:49:37 GMT`.
        let date = Date(self.0).to_string();
        let part = |range: std::ops::Range<usize>| date.get(range).unwrap_or_default();
        let month = "JanFebMarAprMayJunJulAugSepOctNovDec".find(part(8..11)).unwrap_or(0) / 3 + 1;
        write!(f, "{}-{month:02}-{} {}", part(12..16), part(5..7), part(17..22))
    }
}

/// `12,345`
struct Grouped(usize);

impl Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TempDir, read, request, value};
    use super::entries::{MAX_HELD, MAX_LOOKED};
    use super::*;
    use percent_encoding::percent_decode_str;
    use rustix::fs::FileType;
    use std::collections::BTreeSet;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, UNIX_EPOCH};

    fn send(method: &str, dir: &TempDir, below: &str, query: &str, fields: &[(&str, &str)]) -> Response {
        let root = Root::open(dir.path()).expect("a root");
        let directory = root.list(below.as_bytes()).expect("a directory");
        let place = Place { path: below.as_bytes(), below: below.as_bytes() };
        answer(&request(method, &format!("/{query}"), fields), &root, &directory, &place).expect("a page")
    }

    fn page(dir: &TempDir, below: &str, query: &str) -> String {
        let (length, body) = read(send("GET", dir, below, query, &[]));
        assert_eq!(length, Some(body.len() as u64));
        String::from_utf8(body).expect("UTF-8")
    }

    /// Links and texts of the rows.
    fn rows(page: &str) -> Vec<(&str, &str)> {
        let row = |row| -> Option<(&str, &str)> {
            let (href, rest) = str::split_once(row, "\"><svg><use href=\"#")?;
            Some((href, rest.split_once("</svg>")?.1.split_once("</a>")?.0))
        };
        page.split("<tr><td><a href=\"").skip(1).map(|text| row(text).expect("a row")).collect()
    }

    fn names(page: &str) -> Vec<&str> {
        rows(page).into_iter().map(|(_, name)| name).collect()
    }

    /// The query of a link that says that.
    fn link(page: &str, text: &str) -> Option<String> {
        let before = page.split(&format!("\">{text}")).next().filter(|before| before.len() < page.len())?;
        Some(before.rsplit("href=\"").next()?.replace("&amp;", "&"))
    }

    #[test]
    fn directories_come_first_numbers_count_and_case_comes_last() {
        let dir = TempDir::new();
        for name in ["b", "A", "a", "C", "z/x", "Y/x", ".hidden", ".git/x", ".well-known/x", "10", "9", "a10", "a2"] {
            dir.write(name, "content");
        }
        let page = page(&dir, "", "");
        assert_eq!(names(&page), ["Y/", "z/", "9", "10", "A", "a", "a2", "a10", "b", "C"]);
        assert!(page.contains("<title>Index of /</title>") && !page.contains("../"));
        assert!(page.contains("name=\"viewport\"") && page.contains("charset=\"utf-8\""));
        assert!(page.contains("<p class=\"soft\">10 names</p>") && !page.contains("aria-label=\"Pages\""), "{page}");
    }

    #[test]
    fn a_click_sorts() {
        let dir = TempDir::new();
        for (name, length, age) in [("one", 1, 10), ("two", 2000, 30), ("three", 300, 20), ("empty", 0, 40)] {
            let file = fs::File::create(dir.write(name, vec![b'x'; length])).expect("a file");
            file.set_len(length as u64).expect("a length");
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1_600_000_000 - age)).expect("a time");
        }
        for name in ["d", "e"] {
            dir.write(&format!("{name}/x"), "");
        }
        for (query, expected) in [
            ("", "d/ e/ empty one three two"),
            ("?sort=name&order=desc", "e/ d/ two three one empty"),
            ("?sort=size", "d/ e/ empty one three two"),
            ("?sort=size&order=desc", "d/ e/ two three one empty"),
            ("?sort=modified&order=asc", "empty two three one"),
            ("?sort=modified&order=desc", "one three two empty"),
            ("?sort=colour&order=sideways&x=y", "d/ e/ empty one three two"),
        ] {
            let page = page(&dir, "", query);
            let shown = names(&page).join(" ");
            // Which of the directories is newer is the file system's affair.
            let shown = if query.contains("modified") { &shown[6..] } else { &shown };
            assert_eq!(shown, expected, "{query}");
        }
        let page = page(&dir, "", "?sort=size&order=desc");
        assert_eq!(page.matches("\" aria-sort=").count(), 1);
        assert!(page.contains("aria-sort=\"descending\"><a href=\"?sort=size&amp;order=asc\">Size"), "{page}");
        assert_eq!(link(&page, "Name").as_deref(), Some("./"));
        assert_eq!(link(&page, "Modified").as_deref(), Some("?sort=modified&order=desc"));
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
            assert_eq!(rows(&page(&dir, "", "")), [(href, text)]);
            fs::remove_file(path).expect("removed");
        }
        fs::create_dir(dir.path().join("<b>&")).expect("a directory");
        let page = page(&dir, "<b>&", "");
        assert!(page.contains("<title>Index of /&lt;b&gt;&amp;/</title>") && !page.contains("<b>"), "{page}");
        assert_eq!(rows(&page), [("../", "Parent directory")]);
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
        for query in ["", "?sort=size"] {
            let opened = root.list(b"sub").expect("open");
            let (_, body) =
                read(answer(&request("GET", &format!("/{query}"), &[]), &root, &opened, &place).expect("a page"));
            let page = String::from_utf8(body).expect("UTF-8");
            let links: Vec<&str> = rows(&page).into_iter().map(|(href, _)| href).collect();
            assert_eq!(links, ["../", "inside-directory/", "file", "inside"]);
            assert!(page.contains("<p class=\"soft\">3 names</p>") && !page.contains("secret"), "{page}");
        }
    }

    #[test]
    fn the_way_up_is_links_and_leads_to_the_root_and_no_further() {
        let steps = |path: &[u8], below: &[u8]| Steps::to(&Place { path, below }).heading();
        assert_eq!(steps(b"", b""), "<h1>Index of /</h1>");
        assert_eq!(steps(b"docs", b""), "<h1>Index of /docs/</h1>");
        assert_eq!(
            steps(b"docs/a/<b>", b"a/<b>"),
            "<h1>Index of <a href=\"../../\">/docs/</a><a href=\"../\">a/</a>&lt;b&gt;/</h1>"
        );
        let deep = vec!["'"; 2000].join("/");
        let place = Place { path: deep.as_bytes(), below: deep.as_bytes() };
        let (heading, text) = (Steps::to(&place).heading(), Steps::to(&place).text());
        assert!(heading.len() < 8 * 1024 && heading.contains(&"../".repeat(2000)), "{} bytes", heading.len());
        assert_eq!(text, format!("/\u{2026}/{}", "&#39;/".repeat(MAX_STEPS)));
    }

    /// Names of any bytes but NUL and a slash, and of each length that there is.
    fn odd_names(count: usize) -> BTreeSet<Vec<u8>> {
        const PIECES: [&[u8]; 16] = [
            b"a",
            b"Z",
            b"7",
            b"10",
            b" ",
            b"'",
            b"\"",
            b"<",
            b"&amp;",
            b"%41",
            b"\xff",
            "ä".as_bytes(),
            "日".as_bytes(),
            b"\\",
            b"\n",
            b"+",
        ];
        let mut names = BTreeSet::new();
        for number in 0..count {
            let mut name: Vec<u8> = (0..4).flat_map(|at| PIECES[(number >> (3 * at)) & 15]).copied().collect();
            name.extend_from_slice(number.to_string().as_bytes());
            if number % 19 == 0 {
                name.extend(vec![if number % 2 == 0 { b'\'' } else { 0xff }; 255 - name.len()]);
            }
            names.insert(name);
        }
        names
    }

    #[test]
    fn two_thousand_odd_names_are_each_shown_once_in_each_order() {
        let (dir, names) = (TempDir::new(), odd_names(2000));
        assert_eq!(names.len(), 2000);
        for (number, name) in names.iter().enumerate() {
            let path = dir.path().join(OsStr::from_bytes(name));
            match number % 7 {
                0 => fs::create_dir(path).expect("a directory"),
                1 => symlink(".", path).expect("a link"),
                length => fs::write(path, vec![b'x'; length % 4]).expect("a file"),
            }
        }
        for first in ["", "?order=desc", "?sort=size&order=desc", "?sort=size", "?sort=modified"] {
            let (mut query, mut seen, mut pages) = (first.to_owned(), Vec::new(), 0);
            loop {
                let page = page(&dir, "", &query);
                assert!(page.len() <= MAX_PAGE && page.contains("2,000 names"), "{} bytes", page.len());
                assert!(pages == 0 || page.len() > MAX_PAGE / 2 || link(&page, "The next").is_none());
                let shown = rows(&page);
                assert!(page.contains(&format!(
                    "Names {} to {} of",
                    Grouped(seen.len() + 1),
                    Grouped(seen.len() + shown.len())
                )));
                seen.extend(shown.into_iter().map(|(href, _)| percent_decode_str(href).collect::<Vec<u8>>()));
                pages += 1;
                match link(&page, "The next") {
                    Some(next) => query = next,
                    None => break,
                }
            }
            let bare: Vec<Vec<u8>> = seen.iter().map(|name| name.strip_suffix(b"/").unwrap_or(name).to_vec()).collect();
            assert_eq!(bare.len(), 2000, "{first}");
            assert!(bare.iter().collect::<BTreeSet<_>>() == names.iter().collect(), "{first}");
            assert!((4..20).contains(&pages), "{pages}");
            // Directories, and links to one, are in front.
            assert!(seen.is_sorted_by_key(|name| !name.ends_with(b"/")), "{first}");
        }
    }

    /// What makes room for others must not be missing between them.
    #[test]
    fn names_that_are_long_leave_no_gap_where_short_ones_follow() {
        let dir = TempDir::new();
        let mut expected = Vec::new();
        for number in 0..600 {
            let name = if number % 2 == 0 { format!("{number:04}") } else { format!("{number:04}{}", "x".repeat(250)) };
            fs::write(dir.path().join(&name), "").expect("a file");
            expected.push(name);
        }
        let page = page(&dir, "", "");
        let shown = names(&page);
        assert!(shown.len() < 600 && MAX_HELD < 600 * 130, "{}", shown.len());
        assert_eq!(shown, expected[..shown.len()]);
    }

    #[test]
    fn a_page_goes_on_where_the_one_before_has_ended_whatever_has_become_of_it() {
        let dir = TempDir::new();
        for name in ["d/x", "e/x", "a", "b", "c"] {
            dir.write(name, name);
        }
        for (query, expected) in [
            ("?after=a", "b c"),
            ("?after=aa", "b c"),
            ("?after=d/", "e/ a b c"),
            ("?after=dd/", "e/ a b c"),
            ("?order=desc&after=b", "a"),
            ("?sort=size&after=b&at=1", "c"),
            ("?sort=size&after=b&at=0", "a b c"),
            ("?sort=size&after=b", "d/ e/ a b c"),
            ("?after=", "d/ e/ a b c"),
            ("?after=%FF", ""),
        ] {
            assert_eq!(names(&page(&dir, "", query)).join(" "), expected, "{query}");
        }
        let last = page(&dir, "", "?after=%FF&sort=size&order=desc&at=0");
        assert!(last.contains("Nothing comes behind that.") && last.contains("5 names"), "{last}");
        assert_eq!(link(&last, "From the beginning").as_deref(), Some("?sort=size&order=desc"));
        assert!(page(&dir, "", "?after=b").contains("Names 5 to 5 of 5."));
    }

    #[test]
    fn what_are_too_many_to_look_at_stand_by_name() {
        let dir = TempDir::new();
        for number in 0..=MAX_LOOKED {
            fs::File::create(dir.path().join(number.to_string())).expect("a file");
        }
        let sorted = page(&dir, "", "?sort=size&order=desc&after=5&at=0");
        assert!(sorted.contains("They are sorted by name") && sorted.contains("10,001 names"));
        assert_eq!(names(&sorted)[..3], ["0", "1", "2"]);
        assert!(link(&sorted, "The next").is_some_and(|next| next.starts_with("?sort=name&order=asc&after=")));
        fs::remove_file(dir.path().join("0")).expect("removed");
        assert!(!page(&dir, "", "?sort=size").contains("They are sorted by name"));
    }

    #[test]
    fn sizes_dates_and_counts_are_for_people() {
        let found = |length, is_directory| Found { is_directory, length, modified: 0 };
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
            assert_eq!(Size(found(length, false)).to_string(), text);
        }
        assert_eq!(Size(found(4096, true)).to_string(), "");
        assert_eq!(Minute(784_111_777).to_string(), "1994-11-06 08:49");
        assert_eq!(Minute(0).to_string(), "1970-01-01 00:00");
        assert_eq!(Minute(u64::MAX).to_string(), "9999-12-31 23:59");
        assert_eq!(
            [0, 999, 1000, 123_456, 1_234_567].map(|number| Grouped(number).to_string()),
            ["0", "999", "1,000", "123,456", "1,234,567"]
        );
    }

    #[test]
    fn nothing_on_the_page_is_loaded_or_runs() {
        let response = send("GET", &TempDir::new(), "", "", &[]);
        let policy = value(&response, "Content-Security-Policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none';") && policy.contains("style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("script-src") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(value(&response, "Cache-Control"), Some("no-cache"));
        assert_eq!(value(&response, "X-Content-Type-Options"), Some("nosniff"));
        let (_, body) = read(response);
        let page = String::from_utf8(body).expect("UTF-8");
        for loading in ["src=", "url(", "@import", "<script"] {
            assert!(!page.contains(loading), "{loading}");
        }
        assert_eq!(page.matches("<link").count(), 1, "the icon, which stands in the page");
    }

    #[test]
    fn a_page_that_is_still_the_same_is_not_sent_again() {
        let dir = TempDir::new();
        dir.write("a", "content");
        let first = send("GET", &dir, "", "", &[]);
        let tag = value(&first, "ETag").expect("a tag").to_owned();
        let head = send("HEAD", &dir, "", "", &[]);
        assert_eq!(value(&head, "ETag"), Some(&*tag));
        assert_eq!(head.into_reader().len(), first.into_reader().len());
        let status = |query: &str| send("GET", &dir, "", query, &[("If-None-Match", &tag)]).status_code().0;
        assert_eq!((status(""), status("?x")), (304, 304));
        assert_eq!(status("?order=desc"), 200);
        dir.write("a", "more content");
        assert_eq!(status(""), 200, "the directory has not changed, but what it shows");
    }
}
