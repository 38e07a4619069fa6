//! TOML as the tree of the crate `toml`, whose every key and value knows where it stands; what is wrong with a document
//! in our words.

use crate::config::on_one_line;
use std::fmt::Write;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

pub type Value<'t> = Spanned<DeValue<'t>>;
pub type Table<'t> = DeTable<'t>;

/// `key = value`.
#[derive(Clone, Copy, Debug)]
pub struct KeyValue<'t> {
    pub key: &'t str,
    /// Where the key stands.
    pub at: usize,
    pub value: &'t Value<'t>,
}

/// What is wrong, and where.
#[derive(Debug)]
pub struct DocumentError {
    pub at: usize,
    pub what: String,
}

/// Reads a document.
pub fn parse(text: &str) -> Result<Table<'_>, DocumentError> {
    DeTable::parse(text).map(Spanned::into_inner).map_err(|error| bare_text(text, fault(text, &error)))
}

/// The entries of a table in the order of the file, in which mistakes are looked for.
pub fn entries<'t>(table: &'t Table<'t>) -> Vec<KeyValue<'t>> {
    let mut entries: Vec<KeyValue<'t>> =
        table.iter().map(|(key, value)| KeyValue { key: key.get_ref(), at: key.span().start, value }).collect();
    entries.sort_by_key(|entry| entry.at);
    entries
}

/// What stands in `[[name]]`, once or more.
pub fn tables<'t>(text: &str, value: &'t Value<'t>) -> Option<&'t [Value<'t>]> {
    // `[[1], [2]]` begins so too, `[{}]` has tables too.
    let values = value.get_ref().as_array().filter(|_| text[value.span().start..].starts_with("[["))?;
    values.iter().all(|value| value.get_ref().is_table()).then_some(values)
}

/// `None` where it is negative or beyond 64 bits: no setting is.
pub fn unsigned(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn fault(text: &str, error: &toml::de::Error) -> DocumentError {
    let (message, span) = (error.message(), error.span().unwrap_or(0..0));
    let at = span.start;
    if message == "duplicate key" || message.starts_with("cannot extend value") {
        return DocumentError { at, what: twice(text, span, message == "duplicate key") };
    }
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, "nothing"));
    let expected = expected.split(", ").filter(|&expected| expected != "nothing");
    let mut what = on_one_line(what);
    for (at, expected) in expected.enumerate() {
        let comma = if at == 0 { ", expected" } else { "," };
        let expected = if expected == "newline" { "the end of the line" } else { expected };
        let _ = write!(what, "{comma} {expected}");
    }
    DocumentError { at, what }
}

/// What is wrong with a key that stands in the way of an earlier one: the last of its path, or one on the way.
fn twice(text: &str, key: Range<usize>, is_last: bool) -> String {
    let line_start = text[..key.start].rfind('\n').map_or(0, |newline| newline + 1);
    let (earlier, line) = text[..key.end].split_at(line_start);
    // In a header there is nothing else in front of it.
    let is_header = line.trim_start().starts_with('[') && !line.contains(['=', '{']);
    let what = match (is_header, is_last) {
        (false, _) => "stands twice",
        (true, false) => "is no table that can be added to",
        (true, true) if line.trim_start().starts_with("[[") => "is not [[an array of tables]] so far",
        (true, true) if is_array_of_tables(earlier, line) => "stands in [[ ]] so far",
        (true, true) => "stands twice",
    };
    let key = &text[key];
    let line = format!("{key} = 0");
    // Without its quotes and escapes.
    let name = DeTable::parse(&line).ok().and_then(|table| Some(table.get_ref().keys().next()?.get_ref().to_string()));
    format!("{:?} {what}", name.as_deref().unwrap_or(key))
}

/// Whether what the header names stands in `[[ ]]` in the document before it.
fn is_array_of_tables(earlier: &str, header: &str) -> bool {
    let header = format!("{header}]");
    let (Ok(document), Ok(path)) = (DeTable::parse(earlier), DeTable::parse(&header)) else { return false };
    let (mut table, mut path) = (document.get_ref(), path.get_ref());
    while let Some((key, rest)) = path.iter().next()
        && let Some(found) = table.get(&**key.get_ref())
        && let Some(rest) = rest.get_ref().as_table()
    {
        let found = match found.get_ref() {
            DeValue::Array(_) if rest.is_empty() => return tables(earlier, found).is_some(),
            DeValue::Array(values) => values.last().map_or(found, |last| last),
            _ => found,
        };
        let Some(inside) = found.get_ref().as_table() else { return false };
        (table, path) = (inside, rest);
    }
    false
}

/// The parser takes `root = ./public` for a number that is malformed. What was forgotten are the quotes.
fn bare_text(text: &str, fault: DocumentError) -> DocumentError {
    let before = text.get(..fault.at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let value = before[line_start..].find('=').map(|equals| line_start + equals + 1);
    let value = value.map(|at| (at + (text[at..].len() - text[at..].trim_start().len()), text[at..].trim_start()));
    match value {
        Some((at, value)) if value.starts_with(['.', '/', '~', ':', '*', '<', '@']) => {
            DocumentError { at, what: "text stands in quotes".to_owned() }
        }
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree without its places.
    fn show(table: &Table<'_>) -> String {
        let entries = entries(table).into_iter().map(|entry| format!("{}={}", entry.key, show_value(entry.value)));
        format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
    }

    fn show_value(value: &Value<'_>) -> String {
        match value.get_ref() {
            DeValue::String(text) => format!("{text:?}"),
            DeValue::Integer(number) => unsigned(number).map_or("out-of-range".to_owned(), |number| number.to_string()),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(_) => "date".to_owned(),
            DeValue::Array(values) => format!("[{}]", values.iter().map(show_value).collect::<Vec<_>>().join(" ")),
            DeValue::Table(table) => show(table),
        }
    }

    #[test]
    fn documents() {
        for (text, tree) in [
            ("", "{}"),
            ("# nothing\n", "{}"),
            ("b = 1\na = 'x\\y'", "{b=1 a=\"x\\\\y\"}"),
            ("a = \"\\u00e4\\n\"", "{a=\"ä\\n\"}"),
            ("a = \"\"\"\nx\ny\"\"\"", "{a=\"x\\ny\"}"),
            (
                "a = 0x1F\nb = 1_000\nc = +7\nd = -1\ne = 99999999999999999999",
                "{a=31 b=1000 c=7 d=out-of-range e=out-of-range}",
            ),
            ("a = 1.5\nb = true\nc = 1979-05-27\nd = inf", "{a=1.5 b=true c=date d=inf}"),
            ("a = [\n  1, # one\n  [2, 'x'],\n]", "{a=[1 [2 \"x\"]]}"),
            ("a = {}\nb = { c = 1, d.e = 2 }", "{a={} b={c=1 d={e=2}}}"),
            ("a.b = 1\na.c = 2", "{a={b=1 c=2}}"),
            ("\"a b\".'c' = 1", "{a b={c=1}}"),
            ("[a.b]\nc = 1\n[a]\nd = 2", "{a={b={c=1} d=2}}"),
            ("[[a]]\nb = 1\n[a.c]\nd = 2\n[[a]]\n[a.c]\nd = 3", "{a=[{b=1 c={d=2}} {c={d=3}}]}"),
            ("\u{feff}a = 1\r\nb = 2\r\n", "{a=1 b=2}"),
        ] {
            match parse(text) {
                Ok(table) => assert_eq!(show(&table), tree, "{text}"),
                Err(fault) => panic!("{text}: {fault:?}"),
            }
        }
    }

    #[test]
    fn faults_say_where() {
        for (text, at, what) in [
            ("a = 1\na = 2", 6, "\"a\" stands twice"),
            ("a = { b = 1, b = 2 }", 13, "\"b\" stands twice"),
            ("a.b = 1\na.b = 2", 10, "\"b\" stands twice"),
            ("a = 1\na.b = 2", 6, "\"a\" stands twice"),
            ("[a]\n[a]", 5, "\"a\" stands twice"),
            ("a.b = 1\n[a]", 9, "\"a\" stands twice"),
            ("[a]\n[[a]]", 6, "\"a\" is not [[an array of tables]] so far"),
            ("[[a]]\n[a]", 7, "\"a\" stands in [[ ]] so far"),
            ("[x]\n[[x.'a b']]\n[x.'a b'.c]\n[[x.'a b']]\n[x.'a b']", 43, "\"a b\" stands in [[ ]] so far"),
            ("[x]\na = [{ b = 1,\nb = 2 }]", 18, "\"b\" stands twice"),
            ("a = { b = 1 }\n[a.c]", 15, "\"a\" is no table that can be added to"),
            ("a = [1]\n[[a]]", 10, "\"a\" is not [[an array of tables]] so far"),
            ("a = ./public", 4, "text stands in quotes"),
            ("b = 1\na = /var/www", 10, "text stands in quotes"),
            ("a = yes", 4, "string values must be quoted, expected literal string"),
            ("a = \"x", 6, "invalid basic string, expected `\"`"),
            ("a = [1,", 7, "unclosed array, expected `]`"),
            ("[a\n", 2, "unclosed table, expected `]`"),
            ("a\n", 1, "key with no value, expected `=`"),
            ("a = 1 b = 2", 8, "unexpected key or value, expected the end of the line, `#`"),
        ] {
            match parse(text) {
                Ok(table) => panic!("{text}: {}", show(&table)),
                Err(fault) => assert_eq!((fault.at, fault.what.as_str()), (at, what), "{text}"),
            }
        }
        assert!(parse(&format!("a = {}", "[".repeat(100_000))).is_err());
        assert!(parse("a = \"\0\"").is_err() && parse("# \0").is_err());
    }

    #[test]
    fn arrays_of_tables_are_told_from_arrays() {
        for (text, are) in [("[[a]]", true), ("[[a.b]]\n[[a.b]]", false), ("a = [[1]]", false), ("a = [{}]", false)] {
            let table = parse(text).expect(text);
            assert_eq!(tables(text, entries(&table)[0].value).is_some(), are, "{text}");
        }
    }

    /// Whatever is cut off, and wherever: a fault or a tree, never a panic, and places that lie in the text.
    #[test]
    fn a_document_cut_anywhere_is_a_fault_or_a_tree() {
        let text =
            "a = \"ä\\t\"\nb.c = [1, 2.5, { d = '''x''' }]\n[e]\nf = true # note\n[[g.h]]\n\"i\" = 0x1f\n[g.j]\n";
        for (at, _) in text.char_indices() {
            if let Err(fault) = parse(&text[..at]) {
                assert!(fault.at <= at && !fault.what.is_empty() && !fault.what.contains('\n'), "{at}: {fault:?}");
                assert_ne!(fault.what, "malformed", "{}", &text[..at]);
            }
        }
    }
}
