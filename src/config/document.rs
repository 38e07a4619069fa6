//! TOML as a tree whose every key and value knows where it stands.
//!
//! What is valid TOML decides `toml_parser`, the parser that the crate `toml` is made of; here its events become tables.
//! The crate `toml` itself would do that too, for 70 KB more of program, or 270 KB with `serde`; see `ARCHITECTURE.md`.

use crate::number;
use std::borrow::Cow;
use std::ops::Range;
use toml_parser::decoder::{IntegerRadix, ScalarKind};
use toml_parser::parser::{Event, EventKind, RecursionGuard, ValidateWhitespace, parse_document};
use toml_parser::{Expected, ParseError, Source, Span};

/// Arrays and tables inside of each other. The deepest that a setting goes is 3.
const MAX_DEPTH: u32 = 16;

/// A table: its entries in the order of the file.
#[derive(Debug, Default)]
pub struct Table {
    pub entries: Vec<Entry>,
    made: Made,
}

/// `key = value`.
#[derive(Debug)]
pub struct Entry {
    pub key: String,
    pub key_span: Range<usize>,
    pub value: Value,
}

/// A value and where it stands; for a table, where its header does.
#[derive(Debug)]
pub struct Value {
    pub span: Range<usize>,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    String(String),
    /// `None` where it is negative or beyond 64 bits: no setting is.
    Integer(Option<u64>),
    /// As it is written, without `_`.
    Float(String),
    Boolean(bool),
    DateTime,
    Array(Vec<Value>),
    Table(Table),
    /// `[[name]]`, once or more.
    Tables(Vec<Value>),
}

/// How a table came to be, which says what may still be added to it (TOML 1.0, "Table", "Inline Table").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Made {
    /// On the way to `[a.b]`: `[a]` may still follow, once.
    #[default]
    OnTheWay,
    /// `[a]`, or an element of `[[a]]`.
    Header,
    /// `a.b = …`: more such keys may follow.
    Dotted,
    /// `{ … }`: complete.
    Inline,
}

/// What is wrong, and where.
#[derive(Debug)]
pub struct Fault {
    pub at: usize,
    pub what: String,
}

impl Table {
    fn find(&mut self, key: &str) -> Option<&mut Value> {
        self.entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
    }

    fn insert(&mut self, key: Key, value: Value) -> Result<(), Fault> {
        if self.find(&key.name).is_some() {
            return Err(key.fault("stands twice"));
        }
        self.entries.push(Entry { key: key.name, key_span: key.span, value });
        Ok(())
    }
}

/// Reads a document.
pub fn parse(text: &str) -> Result<Table, Fault> {
    let source = Source::new(text);
    let tokens = source.lex().into_vec();
    let mut events: Vec<Event> = Vec::with_capacity(tokens.len());
    // The first error: what follows it is mostly a consequence.
    let mut error: Option<ParseError> = None;
    let mut checked = ValidateWhitespace::new(&mut events, source);
    parse_document(&tokens, &mut RecursionGuard::new(&mut checked, MAX_DEPTH), &mut error);
    if let Some(error) = error {
        return Err(bare_text(text, fault(&error)));
    }
    let said =
        |event: &&Event| !matches!(event.kind(), EventKind::Whitespace | EventKind::Comment | EventKind::Newline);
    let events: Vec<Event> = events.iter().filter(said).copied().collect();
    Builder { source, events: &events }.document().map_err(|fault| bare_text(text, fault))
}

fn fault(error: &ParseError) -> Fault {
    let mut what = error.description().to_owned();
    for (at, expected) in error.expected().unwrap_or_default().iter().enumerate() {
        what.push_str(if at == 0 { ", expected " } else { ", " });
        match expected {
            Expected::Literal("\n") => what.push_str("the end of the line"),
            Expected::Literal(literal) => what.push_str(&format!("`{}`", super::on_one_line(literal))),
            Expected::Description(description) => what.push_str(description),
            _ => what.push_str("something else"),
        }
    }
    Fault { at: error.unexpected().or(error.context()).map_or(0, |span| span.start()), what }
}

/// The parser takes `root = ./public` for a number that is malformed. What was forgotten are the quotes.
fn bare_text(text: &str, fault: Fault) -> Fault {
    let before = text.get(..fault.at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let value = before[line_start..].find('=').map(|equals| line_start + equals + 1);
    let value = value.map(|at| (at + (text[at..].len() - text[at..].trim_start().len()), text[at..].trim_start()));
    match value {
        Some((at, value)) if value.starts_with(['.', '/', '~', ':', '*', '<', '@']) => {
            Fault { at, what: "text stands in quotes".to_owned() }
        }
        _ => fault,
    }
}

fn range(span: Span) -> Range<usize> {
    span.start()..span.end()
}

struct Key {
    name: String,
    span: Range<usize>,
}

impl Key {
    fn fault(&self, what: &str) -> Fault {
        Fault { at: self.span.start, what: format!("{:?} {what}", self.name) }
    }
}

/// Takes the events of a document that has no errors, front to back.
struct Builder<'e, 's> {
    source: Source<'s>,
    events: &'e [Event],
}

impl Builder<'_, '_> {
    fn next(&mut self) -> Option<Event> {
        let (first, rest) = self.events.split_first()?;
        self.events = rest;
        Some(*first)
    }

    fn next_is(&self, kind: EventKind) -> bool {
        self.events.first().is_some_and(|event| event.kind() == kind)
    }

    /// The parser has let nothing else through, so this is a mistake of ours; it costs a message, not a panic.
    fn unexpected(event: Option<Event>) -> Fault {
        Fault { at: event.map_or(0, |event| event.span().start()), what: "malformed".to_owned() }
    }

    fn document(mut self) -> Result<Table, Fault> {
        let mut root = Table { made: Made::Header, ..Table::default() };
        // Where the keys that follow belong to.
        let mut current: Vec<String> = Vec::new();
        while let Some(event) = self.events.first().copied() {
            match event.kind() {
                EventKind::StdTableOpen | EventKind::ArrayTableOpen => {
                    self.next();
                    let keys = self.keys()?;
                    let end = self.next().map_or(event.span(), |close| close.span());
                    current = keys.iter().map(|key| key.name.clone()).collect();
                    let span = event.span().start()..end.end();
                    open(&mut root, keys, span, event.kind() == EventKind::ArrayTableOpen)?;
                }
                EventKind::SimpleKey => {
                    let table = current.iter().try_fold(&mut root, |table, name| table.find(name).and_then(inside));
                    let table = table.ok_or_else(|| Builder::unexpected(Some(event)))?;
                    self.assignment(table)?;
                }
                _ => return Err(Builder::unexpected(Some(event))),
            }
        }
        Ok(root)
    }

    /// `a.b.c`
    fn keys(&mut self) -> Result<Vec<Key>, Fault> {
        let mut keys = Vec::new();
        loop {
            let event = self.next();
            let raw = event.and_then(|event| self.source.get(event)).ok_or_else(|| Builder::unexpected(event))?;
            let (mut name, mut error) = (Cow::Borrowed(""), None);
            raw.decode_key(&mut name, &mut error);
            if let Some(error) = error {
                return Err(fault(&error));
            }
            let span = event.map_or(0..0, |event| range(event.span()));
            keys.push(Key { name: name.into_owned(), span });
            if !self.next_is(EventKind::KeySep) {
                return Ok(keys);
            }
            self.next();
        }
    }

    /// `a.b = value`
    fn assignment(&mut self, table: &mut Table) -> Result<(), Fault> {
        let mut keys = self.keys()?;
        let last = keys.pop().ok_or_else(|| Builder::unexpected(None))?;
        let equals = self.next();
        if equals.is_none_or(|event| event.kind() != EventKind::KeyValSep) {
            return Err(Builder::unexpected(equals));
        }
        let value = self.value()?;
        let mut table = table;
        for key in keys {
            if table.find(&key.name).is_none() {
                let made = Table { made: Made::Dotted, ..Table::default() };
                let value = Value { span: key.span.clone(), kind: Kind::Table(made) };
                table.entries.push(Entry { key: key.name.clone(), key_span: key.span.clone(), value });
            }
            table = match table.find(&key.name).map(|value| &mut value.kind) {
                Some(Kind::Table(table)) if table.made == Made::Dotted => table,
                _ => return Err(key.fault("stands twice")),
            };
        }
        table.insert(last, value)
    }

    fn value(&mut self) -> Result<Value, Fault> {
        let event = self.next().ok_or_else(|| Builder::unexpected(None))?;
        let start = event.span().start();
        match event.kind() {
            EventKind::Scalar => Ok(Value { span: range(event.span()), kind: self.scalar(event)? }),
            EventKind::ArrayOpen => {
                let mut values = Vec::new();
                while !self.next_is(EventKind::ArrayClose) {
                    values.push(self.value()?);
                    if self.next_is(EventKind::ValueSep) {
                        self.next();
                    }
                }
                let end = self.next().map_or(start, |close| close.span().end());
                Ok(Value { span: start..end, kind: Kind::Array(values) })
            }
            EventKind::InlineTableOpen => {
                let mut table = Table::default();
                while !self.next_is(EventKind::InlineTableClose) {
                    self.assignment(&mut table)?;
                    if self.next_is(EventKind::ValueSep) {
                        self.next();
                    }
                }
                table.made = Made::Inline;
                let end = self.next().map_or(start, |close| close.span().end());
                Ok(Value { span: start..end, kind: Kind::Table(table) })
            }
            _ => Err(Builder::unexpected(Some(event))),
        }
    }

    fn scalar(&self, event: Event) -> Result<Kind, Fault> {
        let raw = self.source.get(event).ok_or_else(|| Builder::unexpected(Some(event)))?;
        let (mut text, mut error) = (Cow::Borrowed(""), None);
        let kind = raw.decode_scalar(&mut text, &mut error);
        if let Some(error) = error {
            return Err(fault(&error));
        }
        Ok(match kind {
            ScalarKind::String => Kind::String(text.into_owned()),
            ScalarKind::Boolean(value) => Kind::Boolean(value),
            ScalarKind::DateTime => Kind::DateTime,
            ScalarKind::Float => Kind::Float(text.into_owned()),
            ScalarKind::Integer(radix) => Kind::Integer(integer(&text, radix)),
        })
    }
}

fn integer(text: &str, radix: IntegerRadix) -> Option<u64> {
    let radix = match radix {
        IntegerRadix::Dec => 10,
        IntegerRadix::Hex => 16,
        IntegerRadix::Oct => 8,
        IntegerRadix::Bin => 2,
    };
    number::parse(text.strip_prefix('+').unwrap_or(text).as_bytes(), radix)
}

/// The table that a header's path goes on in: of `[[a]]`, the last one.
fn inside(value: &mut Value) -> Option<&mut Table> {
    match &mut value.kind {
        Kind::Table(table) if table.made != Made::Inline => Some(table),
        Kind::Tables(tables) => tables.last_mut().and_then(inside),
        _ => None,
    }
}

/// `[a.b]` or `[[a.b]]`
fn open(root: &mut Table, mut keys: Vec<Key>, span: Range<usize>, of_many: bool) -> Result<(), Fault> {
    let last = keys.pop().ok_or_else(|| Builder::unexpected(None))?;
    let mut table = root;
    for key in keys {
        if table.find(&key.name).is_none() {
            let value = Value { span: key.span.clone(), kind: Kind::Table(Table::default()) };
            table.entries.push(Entry { key: key.name.clone(), key_span: key.span.clone(), value });
        }
        let found = table.find(&key.name).and_then(inside);
        table = found.ok_or_else(|| key.fault("is no table that can be added to"))?;
    }
    let new = Value { span, kind: Kind::Table(Table { made: Made::Header, ..Table::default() }) };
    match (table.find(&last.name), of_many) {
        (None, false) => table.insert(last, new),
        (None, true) => {
            let span = new.span.clone();
            table.insert(last, Value { span, kind: Kind::Tables(vec![new]) })
        }
        (Some(Value { kind: Kind::Tables(tables), .. }), true) => {
            tables.push(new);
            Ok(())
        }
        (Some(Value { kind: Kind::Table(table), span }), false) if table.made == Made::OnTheWay => {
            table.made = Made::Header;
            *span = new.span;
            Ok(())
        }
        (Some(_), true) => Err(last.fault("is not [[an array of tables]] so far")),
        (Some(Value { kind: Kind::Tables(_), .. }), false) => Err(last.fault("stands in [[ ]] so far")),
        (Some(_), false) => Err(last.fault("stands twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree without its places.
    fn show(table: &Table) -> String {
        let entries = table.entries.iter().map(|entry| format!("{}={}", entry.key, show_value(&entry.value)));
        format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
    }

    fn show_value(value: &Value) -> String {
        match &value.kind {
            Kind::String(text) => format!("{text:?}"),
            Kind::Integer(number) => number.map_or("out-of-range".to_owned(), |number| number.to_string()),
            Kind::Float(number) => number.clone(),
            Kind::Boolean(value) => value.to_string(),
            Kind::DateTime => "date".to_owned(),
            Kind::Array(values) | Kind::Tables(values) => {
                format!("[{}]", values.iter().map(show_value).collect::<Vec<_>>().join(" "))
            }
            Kind::Table(table) => show(table),
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
