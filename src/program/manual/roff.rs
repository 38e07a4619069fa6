//! Manual pages in the macros of man(7), as few of them as there have to be.

use std::fmt::Write;

/// When the text of the pages was last changed by hand.
const DATE: &str = "2026-11-27";
/// What mandoc's lint takes for short; a reader fills the lines anew.
const WIDTH: usize = 78;

/// A page, as it grows.
pub struct Page(String);

impl Page {
    pub fn new(name: &str, section: u8, title: &str) -> Page {
        let begin = "Made from the program's own texts; `HANDOVER_RENEW=1 cargo test --lib manual` writes it anew.";
        let heading = name.to_uppercase();
        let version = env!("CARGO_PKG_VERSION");
        let mut page = Page(format!(
            ".\\\" {begin}\n.TH {heading} {section} {DATE} \"handover {version}\" \"{title}\"\n.nh\n.ad l\n"
        ));
        page.section("name");
        page
    }

    pub fn section(&mut self, title: &str) {
        let _ = writeln!(self.0, ".SH {}", quoted(&title.to_uppercase()));
    }

    pub fn part(&mut self, title: &str) {
        let _ = writeln!(self.0, ".SS {}", quoted(title));
    }

    /// A paragraph in the README's notation.
    pub fn paragraph(&mut self, text: &str) {
        let after_heading = self.0.lines().next_back().is_some_and(|line| line.starts_with(".S"));
        if !after_heading {
            self.0 += ".PP\n";
        }
        self.text(text);
    }

    /// Text that goes on where the page is.
    pub fn text(&mut self, text: &str) {
        self.0 += &lines(&inline(text));
    }

    /// An item of a list: its tags, which are in the README's notation too, and what it says.
    pub fn item(&mut self, tags: &[String], text: &str) {
        for (at, tag) in tags.iter().enumerate() {
            let _ = writeln!(self.0, "{}\n{}", if at == 0 { ".TP" } else { ".TQ" }, guarded(&inline(tag)));
        }
        self.text(text);
    }

    pub fn bullet(&mut self, text: &str) {
        self.0 += ".IP \\(bu 2\n";
        self.text(text);
    }

    /// Lines as they are.
    pub fn verbatim(&mut self, text: &str) {
        self.0 += ".PP\n.RS 4\n.nf\n";
        for line in text.trim_end().lines() {
            let _ = writeln!(self.0, "{}", guarded(&escaped(line)));
        }
        self.0 += ".fi\n.RE\n";
    }

    /// A line of the synopsis.
    pub fn usage(&mut self, lines: &[String]) {
        for (at, line) in lines.iter().enumerate() {
            if at > 0 {
                self.0 += ".br\n";
            }
            self.text(line);
        }
    }

    pub fn finish(self) -> String {
        self.0
    }
}

fn quoted(text: &str) -> String {
    let escaped = escaped(text);
    if escaped.contains(' ') { format!("\"{escaped}\"") } else { escaped }
}

/// Text as it stands, in what a formatter would otherwise take for its own.
fn escaped(text: &str) -> String {
    let mut all = String::new();
    for char in text.chars() {
        match char {
            '\\' => all += "\\e",
            '-' => all += "\\-",
            '^' => all += "\\(ha",
            '~' => all += "\\(ti",
            '`' => all += "\\(ga",
            '\'' => all += "\\(aq",
            '"' => all += "\\(dq",
            char if char.is_ascii() => all.push(char),
            char => drop(write!(all, "\\[u{:04X}]", u32::from(char))),
        }
    }
    all
}

/// A line that begins as a request does would be one.
fn guarded(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
}

/// `code` and **what is strong** become bold, *a word* becomes italic, a link its text.
pub fn inline(text: &str) -> String {
    let text = without_links(text);
    let (mut all, mut font) = (String::new(), 'R');
    let mut rest = text.as_str();
    while let Some(char) = rest.chars().next() {
        let (mark, wanted) = match rest {
            _ if rest.starts_with('`') => ("`", 'B'),
            _ if rest.starts_with("**") => ("**", 'B'),
            _ if is_emphasis(rest, font, &all) => ("*", 'I'),
            _ => ("", font),
        };
        if mark.is_empty() || (font == 'B' && mark == "*") {
            all += &escaped(&char.to_string());
            rest = &rest[char.len_utf8()..];
            continue;
        }
        font = if font == wanted { 'R' } else { wanted };
        let _ = write!(all, "\\f{font}");
        rest = &rest[mark.len()..];
    }
    assert!(font == 'R', "a mark is not closed: {text}");
    all
}

/// A star that stands at a word: one between spaces, or in a pattern, is a star.
fn is_emphasis(rest: &str, font: char, before: &str) -> bool {
    let next = rest.chars().nth(1);
    match (rest.starts_with('*'), font) {
        (true, 'R') => {
            let is_apart = before.is_empty() || before.ends_with([' ', '(', '[', '=']);
            is_apart && next.is_some_and(|next| next.is_alphabetic() || next == '/') && rest[1..].contains('*')
        }
        (true, 'I') => true,
        _ => false,
    }
}

/// `[text](target)` becomes its text, as a target elsewhere is no use on paper; one that only says where to read on goes.
pub fn without_links(text: &str) -> String {
    let text = match text.rsplit_once(": [") {
        Some((before, link)) if link.ends_with(')') && !link.contains(' ') => before,
        _ => text,
    };
    let (mut all, mut rest) = (String::new(), text);
    while let Some(begin) = rest.find("](") {
        let (before, behind) = rest.split_at(begin);
        let Some((open, close)) = before.rfind('[').zip(behind.find(')')) else { break };
        all = all + &before[..open] + &before[open + 1..];
        rest = &behind[close + 1..];
    }
    all + rest
}

/// Each sentence on lines of its own, so that a change of one shows as that.
fn lines(text: &str) -> String {
    let (mut all, mut line) = (String::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && line.len() + 1 + word.len() > WIDTH {
            // At the end of a line a formatter would take it for the end of a sentence.
            let end = if line.ends_with([']', ')', '.']) { "\\&" } else { "" };
            all = all + &guarded(&line) + end + "\n";
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
        if ends_a_sentence(word) {
            all = all + &guarded(&line) + "\n";
            line.clear();
        }
    }
    if line.is_empty() { all } else { all + &guarded(&line) + "\n" }
}

/// Not `...`, nor `*.`, which is a pattern.
fn ends_a_sentence(word: &str) -> bool {
    let word = word.trim_end_matches(')').trim_end_matches("\\fR");
    let before = word.strip_suffix(['.', '?', '!']).and_then(|before| before.chars().next_back());
    before.is_some_and(|before| !matches!(before, '.' | '*'))
}

#[test]
fn text_stands_as_it_is() {
    assert_eq!(inline("`-c`, *FILE* and **both**"), "\\fB\\-c\\fR, \\fIFILE\\fR and \\fBboth\\fR");
    assert_eq!(inline("[the log](#the-log) of `a\\b`: [Logs](#logs)"), "the log of \\fBa\\eb\\fR");
    assert_eq!(inline("2 * 3, \"*.js\""), "2 * 3, \\(dq*.js\\(dq");
    assert_eq!(
        lines(".a is no request. *. is no end. So (it is.) End"),
        "\\&.a is no request.\n*. is no end.\nSo (it is.)\nEnd\n"
    );
}
