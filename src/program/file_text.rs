//! The text of a configuration file, in which everything has its place: what a value is, and what is wrong with it.

use super::document::{KeyValue, Value, entries, tables, unsigned};
use super::settings::{SETTINGS, meant};
use super::value::{self, Given};
use crate::Error;
use crate::config::{ConfigFile, on_one_line};
use http1::is_token_byte;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::DeValue;

/// The text of a file, and the places of the settings that were read.
pub struct FileText<'t> {
    text: &'t str,
    /// Where each line begins. Of a large file with many keys, to count them for each would take seconds.
    lines: Vec<usize>,
    /// Where relative paths start.
    pub base: PathBuf,
    file: ConfigFile,
}

impl<'t> FileText<'t> {
    /// The text of the file of that absolute path.
    pub fn new(text: &'t str, path: PathBuf) -> FileText<'t> {
        let base = path.parent().unwrap_or(Path::new("/")).to_owned();
        let lines = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(lines).collect();
        FileText { text, lines, base, file: ConfigFile::new(path, text.as_bytes()) }
    }

    /// The file, with its places.
    pub fn into_file(self) -> ConfigFile {
        self.file
    }

    /// The line of a setting that was read.
    pub fn line(&self, key: &str) -> usize {
        self.file.line(key).unwrap_or_default()
    }

    /// The line that a value begins in.
    pub fn line_of(&self, value: &Value) -> usize {
        self.position(value.span().start).0
    }

    /// What stands in `[[key]]`, or in `[[above.key]]`.
    pub fn array_of_tables<'v>(&self, entry: &KeyValue<'v>, above: &str) -> Result<&'v [Value<'v>], Error> {
        let key = entry.key;
        tables(self.text, entry.value)
            .ok_or_else(|| self.refuse(key, entry.value, &format!("allowed is [[{above}{key}]], once or more")))
    }

    pub fn whole(&self, key: &str, value: &Value, low: u64, high: u64) -> Result<u64, Error> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => unsigned(number),
            _ => None,
        };
        let number = number.filter(|number| (low..=high).contains(number));
        number.ok_or_else(|| self.refuse(key, value, &format!("allowed is a whole number, {low} to {high}")))
    }

    pub fn status(&self, value: &Value) -> Option<u16> {
        match value.get_ref() {
            DeValue::Integer(number) => u16::try_from(unsigned(number)?).ok(),
            _ => None,
        }
    }

    pub fn media_type(&self, key: &str, value: &Value) -> Result<String, Error> {
        let text = self.text(key, value)?;
        let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
        let token = |part: &str| !part.is_empty() && part.bytes().all(is_token_byte);
        let valid = essence.trim_end().split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub));
        match valid && parameters.bytes().all(|byte| (b' '..0x7f).contains(&byte)) {
            true => Ok(text.to_owned()),
            false => Err(self.refuse(key, value, "allowed is a media type: \"text/plain; charset=utf-8\"")),
        }
    }

    pub fn path(&self, key: &str, value: &Value) -> Result<PathBuf, Error> {
        let text = self.text(key, value)?;
        let given = value::Value { given: Given::String(text), base: Some(&self.base) };
        given.path().map_err(|_| self.refuse(key, value, "allowed is a path in quotes"))
    }

    pub fn text<'v>(&self, key: &str, value: &'v Value<'v>) -> Result<&'v str, Error> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text),
            _ => Err(self.refuse(key, value, "allowed is text in quotes")),
        }
    }

    /// The entries of a table.
    pub fn table<'v>(&self, key: &str, value: &'v Value<'v>) -> Result<Vec<KeyValue<'v>>, Error> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(entries(table)),
            _ => Err(self.refuse(key, value, "allowed is a table")),
        }
    }

    /// The values of a table that has these keys and no other, in their order.
    pub fn values<'v, const N: usize>(
        &self,
        key: &str,
        value: &'v Value<'v>,
        keys: &[&str; N],
    ) -> Result<[Option<&'v Value<'v>>; N], Error> {
        let table = self.table(key, value)?;
        if let Some(entry) = table.iter().find(|entry| !keys.contains(&entry.key)) {
            return Err(self.unknown(entry, keys));
        }
        Ok(keys.map(|key| table.iter().find(|entry| entry.key == key).map(|entry| entry.value)))
    }

    /// Remembers where a setting stands, for what can only be seen later.
    pub fn note(&mut self, key: &str, value: &Value) {
        let place = self.position(value.span().start);
        self.file.note(key, place);
    }

    pub fn unknown(&self, entry: &KeyValue, known: &[&str]) -> Error {
        let is_flag = SETTINGS.iter().any(|setting| setting.only().is_some() && setting.name == entry.key);
        let help = match meant(entry.key, known) {
            Some(meant) => format!(", did you mean {meant}?"),
            None if is_flag => ", this is for the command line only".to_owned(),
            None => format!(", allowed are {}", known.join(", ")),
        };
        self.error(entry.at, &format!("unknown key {}{help}", on_one_line(entry.key)))
    }

    pub fn wrong_key(&self, entry: &KeyValue, what: &str) -> Error {
        self.error(entry.at, &format!("{} {what}", on_one_line(entry.key)))
    }

    pub fn refuse(&self, key: &str, value: &Value, what: &str) -> Error {
        self.error(value.span().start, &format!("{key} is {}, {what}", self.written(value)))
    }

    pub fn error(&self, at: usize, what: &str) -> Error {
        let (line, column) = self.position(at);
        Error::config(format_args!("{}:{line}:{column}: {what}", self.file.shown()))
    }

    /// Line and column, both from 1, the column in characters as editors count.
    fn position(&self, at: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|&start| start <= at).max(1);
        let before = self.text.get(self.lines[line - 1]..at).unwrap_or_default();
        // A byte order mark is no character of the first line.
        let before = if line == 1 { before.strip_prefix('\u{feff}').unwrap_or(before) } else { before };
        (line, before.chars().count() + 1)
    }

    /// The value as it stands in the file, cut to what a message can bear.
    fn written(&self, value: &Value) -> String {
        const LONGEST: usize = 60;
        let raw = match value.get_ref() {
            DeValue::Table(_) => return "a table".to_owned(),
            DeValue::Array(_) if tables(self.text, value).is_some() => return "a table".to_owned(),
            _ => self.slice(&value.span()),
        };
        match raw.char_indices().nth(LONGEST) {
            Some((end, _)) => on_one_line(&raw[..end]) + "…",
            None => on_one_line(raw),
        }
    }

    fn slice(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or_default()
    }
}
