//! The data files `tests/requests/*.http`; their format is told in `tests/integration/requests.rs`.

use std::fs;
use std::path::{Path, PathBuf};

/// One data file: what a client sends and what it gets for it.
pub struct Case {
    /// The file's name without its extension.
    pub name: String,
    /// Where the outcome is decided.
    pub section: Section,
    /// What the file is about, in one line.
    pub what: String,
    /// Who is asked.
    pub target: Target,
    /// What is sent, and the answers to it. Only a client that waits in between has more than one.
    pub parts: Vec<Part>,
}

/// A section of an RFC.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Section {
    pub rfc: u16,
    pub number: Vec<u8>,
}

/// The server that a case is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A handler that says what it understood.
    Handler,
    /// The program's site, on a directory.
    Site,
    /// Several sites of the program's, each for other names.
    Hosts,
    /// A `Router`.
    Router,
    /// A hub, in a `Router`.
    Push,
}

/// Bytes, then the answers that the client waits for.
pub struct Part {
    pub bytes: Vec<u8>,
    pub answers: Vec<Expected>,
}

/// An answer as it has to be.
#[derive(Clone)]
pub struct Expected {
    pub to_head: bool,
    pub status: u16,
    pub then: Then,
    pub text: String,
    pub fields: Vec<(String, String)>,
    pub without: Vec<String>,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    KeepAlive,
    Close,
    /// It ends before the answer does.
    Cut,
}

impl Case {
    /// All of them, in the order of their names.
    pub fn all() -> Vec<Case> {
        Case::all_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("requests"))
    }

    /// All of that directory.
    pub fn all_in(directory: &Path) -> Vec<Case> {
        let entries = fs::read_dir(directory).expect("tests/requests");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "http"));
        paths.sort();
        assert!(paths.len() > 50, "tests/requests has the cases");
        paths.iter().map(|path| Case::load(path)).collect()
    }

    fn load(path: &Path) -> Case {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(path).expect("a case");
        let first = text.lines().next().unwrap_or_default();
        let (section, what) = first
            .strip_prefix("# RFC ")
            .and_then(|cited| cited.split_once(": "))
            .and_then(|(section, what)| Some((Section::parse(section)?, what.to_owned())))
            .unwrap_or_else(|| panic!("{name} begins with {first:?} and not with `# RFC 9112 §5.1: what it is`"));
        let mut target = Target::Handler;
        let mut parts = vec![Part { bytes: Vec::new(), answers: Vec::new() }];
        // Whether the part has its expectations, so that what follows is another.
        let mut judged = false;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let part = parts.last_mut().expect("there is one at least");
            match line.split_once(' ') {
                _ if line == "@site" => target = Target::Site,
                _ if line == "@hosts" => target = Target::Hosts,
                _ if line == "@router" => target = Target::Router,
                _ if line == "@push" => target = Target::Push,
                Some(("=>", "nothing")) => judged = true,
                Some(("=>", expected)) => {
                    judged = true;
                    part.answers.push(Expected::parse(expected));
                }
                Some((sign @ ("=+" | "=-"), field)) => {
                    let answer = part.answers.last_mut().unwrap_or_else(|| panic!("{name}: {line:?} has no answer"));
                    match (sign, field.split_once(": ")) {
                        ("=+", Some((field, value))) => answer.fields.push((field.to_owned(), value.to_owned())),
                        ("=-", None) => answer.without.push(field.to_owned()),
                        _ => panic!("{name}: {line:?} is neither `=+ Name: value` nor `=- Name`"),
                    }
                }
                _ if judged => {
                    judged = false;
                    parts.push(Part { bytes: unescape(line), answers: Vec::new() });
                }
                _ => part.bytes.extend(unescape(line)),
            }
        }
        assert!(judged, "{name} does not end with what it expects, not even with `nothing`");
        Case { name, section, what, target, parts }
    }

    /// All that is sent.
    pub fn bytes(&self) -> Vec<u8> {
        self.parts.iter().flat_map(|part| part.bytes.iter().copied()).collect()
    }

    /// Everything expected, in order.
    pub fn answers(&self) -> impl Iterator<Item = &Expected> {
        self.parts.iter().flat_map(|part| &part.answers)
    }
}

impl Section {
    fn parse(text: &str) -> Option<Section> {
        let (rfc, number) = text.split_once(" §")?;
        let number = number.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u8>>>()?;
        Some(Section { rfc: rfc.parse().ok()?, number })
    }
}

impl std::fmt::Display for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number: Vec<String> = self.number.iter().map(u8::to_string).collect();
        write!(f, "RFC {} §{}", self.rfc, number.join("."))
    }
}

impl Expected {
    fn parse(line: &str) -> Expected {
        let (to_head, line) = match line.strip_prefix("HEAD ") {
            Some(line) => (true, line),
            None => (false, line),
        };
        let mut words = line.splitn(3, ' ');
        let status = words.next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no status: {line:?}"));
        let then = match words.next() {
            Some("keep-alive") => Then::KeepAlive,
            Some("close") => Then::Close,
            Some("cut") => Then::Cut,
            _ => panic!("keep-alive, close or cut: {line:?}"),
        };
        let text = words.next().unwrap_or_default().to_owned();
        Expected { to_head, status, then, text, fields: Vec::new(), without: Vec::new() }
    }
}

fn unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let length = match escape.as_bytes().first() {
            Some(b'r') => push(&mut bytes, b'\r'),
            Some(b'n') => push(&mut bytes, b'\n'),
            Some(b'0') => push(&mut bytes, 0),
            Some(b'\\') => push(&mut bytes, b'\\'),
            Some(b'x') => {
                let byte = escape.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
                push(&mut bytes, byte.unwrap_or_else(|| panic!("\\xHH: {line:?}"))) + 2
            }
            Some(b'{') => {
                let inside = escape[1..].split_once('}').and_then(|(inside, _)| inside.split_once('*'));
                let (count, what) = inside.unwrap_or_else(|| panic!("\\{{COUNT*WHAT}}: {line:?}"));
                let times = count.parse().unwrap_or_else(|_| panic!("not a count: {count:?}"));
                bytes.extend(unescape(what).repeat(times));
                count.len() + what.len() + 3
            }
            _ => panic!("an unknown escape: {line:?}"),
        };
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Answers the length of the escape.
fn push(bytes: &mut Vec<u8>, byte: u8) -> usize {
    bytes.push(byte);
    1
}
