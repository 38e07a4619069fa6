//! handover.toml(5): the example, which has everything there is, with its comments as text.

use super::roff::Page;
use super::tables::{self, Key};
use super::{EXAMPLE, allowed};
use crate::program::settings::{SETTINGS, Setting};
use std::collections::BTreeSet;

const DESCRIPTION: [&str; 2] = [
    "The configuration file of `handover`(1), in TOML. It is named by `--config`; there is no place where it is looked for. Every \
     long flag is a key with `_` for `-`, and flags win over the file. It is read anew at each start, and so at each reload.",
    "To try it without binding anything: `handover -c FILE --check`. A mistake is one line with its place and what is allowed there, \
     and the exit code 78; at a reload the server goes on as it was.",
];

const GENERAL: [&str; 3] = [
    "Relative paths, of Unix sockets too, start from the directory that the file is in.",
    "Times are seconds and may have decimals: 30, 0.5. Sizes are bytes, or text with K, M or G: 65536, \"64K\".",
    "An unknown key, a wrong type and a value out of range are mistakes.",
];

/// One line of the example.
enum Line<'e> {
    /// `# --- Title ---`
    Heading(&'e str),
    Comment(&'e str),
    /// `[[route]]`: the name, and the line.
    Table(&'e str, &'e str),
    /// `key = value`, on or off: the key, and the line.
    Key(&'e str, &'e str),
    /// What a value of several lines goes on with.
    More(&'e str),
    Blank,
}

fn read(line: &str) -> Line<'_> {
    let is_key = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if let Some(title) = line.strip_prefix("# --- ") {
        let title = title.trim_end_matches(" ---");
        return Line::Heading(title.split(':').next().unwrap_or(title));
    }
    if let Some(comment) = line.strip_prefix("# ").or(line.strip_prefix('#').filter(|rest| rest.is_empty())) {
        return Line::Comment(comment);
    }
    let on = line.strip_prefix('#').unwrap_or(line);
    match on.split_once(" = ") {
        Some((key, _)) if is_key(key) => Line::Key(key, on),
        _ if on.starts_with('[') => Line::Table(on.trim_matches(['[', ']']), on),
        _ if on.is_empty() => Line::Blank,
        _ => Line::More(on),
    }
}

/// What is not written yet.
#[derive(Default)]
struct Pending<'e> {
    /// Paragraphs of comments.
    text: Vec<String>,
    /// The keys behind them.
    keys: Vec<&'e str>,
    /// The lines of a table that is shown as it is.
    shown: String,
    /// Whether the next comment begins a paragraph.
    is_apart: bool,
}

/// How `TABLE.KEY` is introduced: with what it may be.
fn tag(name: &str, allowed: &str, default: &str) -> String {
    let default = if default.is_empty() { String::new() } else { format!("; default {default}") };
    format!("`{name}` ({allowed}{default})")
}

fn tag_of_setting(setting: &Setting, key: &str) -> String {
    tag(key, &allowed(setting), &setting.default())
}

fn tag_of_key(key: &Key) -> String {
    tag(key.name, key.allowed, key.default)
}

/// Of a key at the top, or of the table.
fn tag_of(table: Option<&str>, name: &str) -> String {
    let setting = SETTINGS.iter().find(|setting| setting.key().is_some_and(|key| key == name));
    match (table, setting) {
        (None, Some(setting)) => tag_of_setting(setting, name),
        (None, None) => tag_of_key(tables::TOP.iter().find(|key| key.name == name).unwrap_or_else(|| panic!("{name}"))),
        (Some(table), _) => {
            let keys = tables::of(table);
            tag_of_key(keys.iter().find(|key| key.name == name).unwrap_or_else(|| panic!("{table}.{name}")))
        }
    }
}

/// Whose keys are said one by one in the example, each behind its comment.
fn is_said_key_by_key(table: Option<&str>) -> bool {
    matches!(table, None | Some("push"))
}

struct Writer<'e> {
    page: Page,
    table: Option<&'e str>,
    met: BTreeSet<&'e str>,
    pending: Pending<'e>,
}

impl<'e> Writer<'e> {
    /// Writes what came so far: a text with its keys, or paragraphs and an example.
    fn flush(&mut self) {
        let Pending { text, keys, shown, .. } = std::mem::take(&mut self.pending);
        if !keys.is_empty() {
            let tags: Vec<String> = keys.iter().map(|key| tag_of(self.table, key)).collect();
            self.page.item(&tags, &text.join(" "));
            return;
        }
        for paragraph in &text {
            self.page.paragraph(paragraph);
        }
        if !shown.is_empty() {
            self.page.verbatim(&shown);
        }
    }

    fn keys_of(&mut self, table: &str) {
        for key in tables::of(table).iter().filter(|key| !key.text.is_empty()) {
            self.page.item(&[tag_of_key(key)], key.text);
        }
    }

    fn line(&mut self, line: &'e str) {
        match read(line) {
            Line::Heading(title) => {
                self.flush();
                self.table = None;
                self.page.section(title);
            }
            Line::Comment(text) => {
                let is_behind_a_table = !self.pending.shown.is_empty() && self.pending.is_apart;
                if !self.pending.keys.is_empty() || is_behind_a_table {
                    self.flush();
                }
                // Within a table that is shown, it is about the whole of it, and goes before it.
                match self.pending.text.last_mut() {
                    Some(last) if !self.pending.is_apart && !text.is_empty() => *last = format!("{last} {text}"),
                    _ if text.is_empty() => self.pending.is_apart = true,
                    _ => self.pending.text.push(text.to_owned()),
                }
                self.pending.is_apart = text.is_empty();
            }
            Line::Table(name, line) => {
                // Below a table that is shown, as `[[host.route]]`, it is a part of the example.
                if name.contains('.') {
                    self.show("");
                    self.show(line);
                    return;
                }
                if !self.pending.shown.is_empty() {
                    self.flush();
                }
                self.table = Some(name);
                if self.met.insert(name) {
                    // The text before it is about it.
                    self.page.part(line);
                    for paragraph in std::mem::take(&mut self.pending.text) {
                        self.page.paragraph(&paragraph);
                    }
                    self.keys_of(name);
                    if name == "route" {
                        self.page.paragraph("The keys of `auth`:");
                        self.keys_of("auth");
                    }
                }
                if !is_said_key_by_key(self.table) {
                    self.show(line);
                }
            }
            Line::Key(_, line) if !is_said_key_by_key(self.table) => self.show(line),
            Line::Key(key, _) => {
                let has_a_text =
                    |table| tables::of(table).iter().any(|other| other.name == key && !other.text.is_empty());
                if !self.table.is_some_and(has_a_text) {
                    self.pending.keys.push(key);
                }
            }
            Line::More(line) => self.show(line),
            Line::Blank => {
                // A comment alone stays with what it introduces, and a table with those below it.
                if !self.pending.keys.is_empty() {
                    self.flush();
                }
                self.pending.is_apart = true;
            }
        }
    }

    fn show(&mut self, line: &str) {
        self.pending.shown = format!("{}{line}\n", self.pending.shown);
        self.pending.is_apart = false;
    }
}

pub fn page() -> String {
    let mut page = Page::new("handover.toml", 5, "File Formats");
    page.text("handover.toml - configuration file of handover");
    page.section("description");
    for text in DESCRIPTION {
        page.paragraph(text);
    }
    for text in GENERAL {
        page.bullet(text);
    }
    page.section("serving");
    let mut writer = Writer { page, table: None, met: BTreeSet::new(), pending: Pending::default() };
    // What the file says of itself stands above.
    let body = EXAMPLE.split_once("\n\n").expect("a header").1;
    for line in body.lines() {
        writer.line(line);
    }
    writer.flush();
    let mut page = writer.page;
    page.section("files");
    page.item(&["*/etc/handover/handover.toml*".to_owned()], "That of the packaged service.");
    page.section("see also");
    page.text("`handover`(1)");
    page.finish()
}

#[test]
fn each_key_has_its_place() {
    let page = page();
    let keys = SETTINGS.iter().filter_map(Setting::key);
    let keys = keys.chain(tables::TOP.iter().map(|key| key.name.to_owned()));
    let keys = keys.chain(tables::TABLES.iter().flat_map(|(_, keys)| keys.iter().map(|key| key.name.to_owned())));
    let missing: Vec<String> = keys.filter(|key| !page.contains(&format!("\n\\fB{key}\\fR ("))).collect();
    assert_eq!(missing, [""; 0]);
    for (table, _) in tables::TABLES.iter().filter(|(table, _)| *table != "auth") {
        assert!(page.contains(&format!("\n.SS [{table}]")) || page.contains(&format!("\n.SS [[{table}]]")), "{table}");
    }
}
