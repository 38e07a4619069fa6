//! A file of users and their hashed passwords, as Apache's `htpasswd` writes it and nginx reads it: `NAME:HASH` a line.
//!
//! What stands behind a second colon is a comment; white space around a line, empty lines and those that begin with `#`
//! are nothing.

use super::password::Hashed;
use crate::sys::regular_file;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;

/// Bytes of a file: some ten thousand users.
pub const MAX_FILE: u64 = 1 << 20;
/// Bytes of a name, as `htpasswd` has it.
pub const LONGEST_NAME: usize = 255;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Who is in a file.
pub struct Users {
    hashed: HashMap<Box<str>, Hashed, RandomState>,
    /// Whose hash takes longest.
    costliest: Option<Box<str>>,
}

impl Users {
    /// Reads a file, or says what is wrong with it, and nothing of what is in it but names.
    pub fn read(path: &Path) -> Result<Users, String> {
        let too_large = format!("it has more than {MAX_FILE} bytes");
        Users::parse(&regular_file::read(path, MAX_FILE, "it is not a regular file", &too_large)?, path)
    }

    /// Reads the text of the file of that name.
    pub fn parse(text: &[u8], path: &Path) -> Result<Users, String> {
        let mut places: HashMap<&str, usize, RandomState> = HashMap::default();
        let mut users = Users { hashed: HashMap::default(), costliest: None };
        let mut heaviest = 0;
        for (line, number) in text.split(|&byte| byte == b'\n').zip(1..) {
            let Some(entry) = entry(line) else { continue };
            let wrong = |what: &str| Err(format!("line {number}: {what}"));
            let Ok(entry) = std::str::from_utf8(entry) else { return wrong("it is not UTF-8") };
            let Some((name, rest)) = entry.split_once(':') else {
                return wrong("there is no colon, allowed is NAME:HASH");
            };
            if let Err(what) = check_name(name) {
                return wrong(&what);
            }
            if let Some(first) = places.insert(name, number) {
                return wrong(&format!("the user {name:?} stands in line {first} already"));
            }
            let hashed = match Hashed::parse(rest.split(':').next().unwrap_or_default()) {
                Ok(hashed) => hashed,
                Err(what) => {
                    let help = format!("handover passwd {} {name}", path.display());
                    return wrong(&format!("the password of {name:?} {what}; this makes one: {help:?}"));
                }
            };
            if hashed.weight() > heaviest {
                (heaviest, users.costliest) = (hashed.weight(), Some(name.into()));
            }
            users.hashed.insert(name.into(), hashed);
        }
        Ok(users)
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.hashed.len()
    }

    /// Whether that is the user's password. One that is wrong costs as much as the costliest here, whoever it is for, so
    /// that no time says who is here: of a cheaper user it costs that besides.
    pub fn have(&self, name: &str, password: &[u8]) -> bool {
        let hashed = self.hashed.get(name);
        if hashed.is_some_and(|hashed| hashed.is_of(password)) {
            return true;
        }
        let costliest = self.costliest.as_ref().and_then(|name| self.hashed.get(name));
        if let Some(costliest) = costliest.filter(|it| hashed.is_none_or(|hashed| hashed.weight() < it.weight())) {
            black_box(costliest.is_of(black_box(password)));
        }
        false
    }
}

/// Whether a user may be called that.
pub fn check_name(name: &str) -> Result<(), String> {
    match name {
        "" => Err("a user has no name".to_owned()),
        name if name.len() > LONGEST_NAME => {
            Err(format!("a name has {} bytes, allowed are {LONGEST_NAME}", name.len()))
        }
        name if name.contains(':') => Err(format!("the name {name:?} has a colon, which ends it")),
        name if name.chars().any(char::is_control) => Err(format!("the name {name:?} has a control character")),
        name if name.starts_with('#') => Err(format!("the name {name:?} begins with #, as a comment does")),
        name if name.trim() != name => Err(format!("the name {name:?} has white space around it")),
        _ => Ok(()),
    }
}

/// The text of a file with another hash for that user, or without the user; and whether it was there. All else stays as it
/// is, byte for byte.
pub fn edited(text: &[u8], name: &str, hash: Option<&str>) -> (Vec<u8>, bool) {
    let mut edited = Vec::with_capacity(text.len() + LONGEST_NAME);
    let mut new = hash.map(|hash| format!("{name}:{hash}"));
    let mut was_there = false;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let of = entry(line).and_then(|entry| entry.split(|&byte| byte == b':').next());
        if of != Some(name.as_bytes()) {
            edited.extend_from_slice(line);
            continue;
        }
        was_there = true;
        // Of a user who stands there twice one line is left, as nobody knows which was meant.
        if let Some(new) = new.take() {
            let end = line.len() - line.iter().rev().take_while(|byte| b"\r\n".contains(byte)).count();
            let start = if line.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
            edited.extend_from_slice(&line[..start]);
            edited.extend_from_slice(new.as_bytes());
            edited.extend_from_slice(&line[end..]);
        }
    }
    if let Some(new) = new {
        if edited.last().is_some_and(|&byte| byte != b'\n') {
            edited.push(b'\n');
        }
        edited.extend_from_slice(new.as_bytes());
        edited.push(b'\n');
    }
    (edited, was_there)
}

/// What a line says, if it is about a user.
fn entry(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).trim_ascii();
    (!line.is_empty() && !line.starts_with(b"#")).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: &str = "$2y$04$Thc/7VngqLJsyIRKJ9Yrv.5zyTQ0QH1XHGtPdbRnYQ2xUGiCFx8Ie";
    const BOB: &str = "$5$rounds=1000$xxxxxxxx$L/tUEU0wG.GzSGL5sCxtd1uN.Owzy1vCB2DMhIiBlx2";

    fn parse(text: &str) -> Result<Users, String> {
        Users::parse(text.as_bytes(), Path::new("/etc/users"))
    }

    #[test]
    fn a_line_is_a_user() {
        let text = format!("\u{feff}# who may\r\n\r\nada:{ADA}\r\n  bob x:{BOB}:since 2020:x \n\n#eve:{ADA}");
        let users = parse(&text).expect("two users");
        assert_eq!(users.len(), 2);
        let password = "x".repeat(72);
        assert!(users.have("ada", password.as_bytes()) && !users.have("ada", b"x"));
        assert!(!users.have("Ada", password.as_bytes()) && !users.have("", b""));
        assert!(users.hashed.contains_key("bob x"));
        assert_eq!(users.costliest.as_deref(), Some("ada"));
        // Who takes the last one out has taken everybody's leave, which must not keep a reload from happening.
        assert!(parse("").is_ok_and(|nobody| nobody.len() == 0 && !nobody.have("ada", b"x")));
    }

    #[test]
    fn a_file_that_is_wrong_says_where_and_what_helps() {
        for (text, says) in [
            ("ada".to_owned(), "line 1: there is no colon"),
            (format!("ada:{ADA}\n:{ADA}"), "line 2: a user has no name"),
            (format!("ada:{ADA}\nbob:{BOB}\nada:{ADA}"), "line 3: the user \"ada\" stands in line 1 already"),
            (format!("{}:{ADA}", "x".repeat(256)), "line 1: a name has 256 bytes, allowed are 255"),
            (format!("a\u{1}b:{ADA}"), "line 1: the name \"a\\u{1}b\" has a control character"),
            (format!("ada :{ADA}"), "has white space around it"),
            ("\nada:secret".to_owned(), "line 2: the password of \"ada\" is plain text"),
            ("ada:secret".to_owned(), "this makes one: \"handover passwd /etc/users ada\""),
        ] {
            let what = parse(&text).err().unwrap_or_else(|| panic!("{text} is read"));
            assert!(what.contains(says) && !what.contains('\n') && !what.contains("secret"), "{text}: {what}");
        }
        assert!(Users::parse(b"a\xff:x", Path::new("x")).is_err_and(|what| what == "line 1: it is not UTF-8"));
    }

    #[test]
    fn one_line_changes_and_no_other() {
        for (text, hash, expected, was_there) in [
            ("", Some("H"), "ada:H\n", false),
            ("bob:B", Some("H"), "bob:B\nada:H\n", false),
            ("# x\r\nada:A:c\r\nbob:B\r\n", Some("H"), "# x\r\nada:H\r\nbob:B\r\n", true),
            ("bob:B\n ada:A", Some("H"), "bob:B\nada:H", true),
            ("ada:A\nada2:B\n#ada:C\nada:D\n", Some("H"), "ada:H\nada2:B\n#ada:C\n", true),
            ("\u{feff}ada:A\n", Some("H"), "\u{feff}ada:H\n", true),
            ("bob:B\nada:A\n\n", None, "bob:B\n\n", true),
            ("bob:B", None, "bob:B", false),
        ] {
            let (edited, there) = edited(text.as_bytes(), "ada", hash);
            assert_eq!((String::from_utf8_lossy(&edited).as_ref(), there), (expected, was_there), "{text:?}");
        }
    }
}
