//! `[[cache]]`: what Cache-Control a file is sent with, by its name.

use crate::http::{is_token_byte, list_elements};

/// Fields of Cache-Control for the files that one of the patterns matches.
#[derive(Clone, Debug)]
pub(crate) struct CacheRule {
    pub patterns: Vec<Pattern>,
    pub control: String,
}

impl CacheRule {
    /// Whether it is for the file of that path: decoded and without a slash in front.
    pub fn is_for(&self, path: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(path))
    }
}

/// `*.js`, for files of such a name anywhere, or `/assets/*`, for paths from the root of the site. `*` stands for
/// anything, slashes included; all else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl Pattern {
    /// Reads it. What could never match, and what means more than itself elsewhere, is refused.
    pub fn parse(text: &str) -> Result<Pattern, &'static str> {
        if text.is_empty() || text.ends_with('/') || (text.contains('/') && !text.starts_with('/')) {
            return Err("allowed is a name of files (\"*.js\"), or of a path that begins with a slash (\"/assets/*\")");
        }
        if text.contains("//") || text.contains("/.") && !text.starts_with("/.well-known/") {
            return Err(
                "allowed is a path without empty segments and ones that begin with a dot: nothing has such a path",
            );
        }
        if text.contains(['%', '?', '#', '[', ']', '{', '}', '\\']) || text.chars().any(char::is_control) {
            return Err(
                "allowed is text as it is after decoding, in which * stands for anything, without % ? # [ ] { } \\",
            );
        }
        Ok(Pattern(text.to_owned()))
    }

    fn matches(&self, path: &[u8]) -> bool {
        match self.0.strip_prefix('/') {
            Some(pattern) => matches(pattern, path),
            None => matches(&self.0, path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)),
        }
    }
}

/// Pieces of text with anything between them. Each piece is looked for from where the last one ended, at its first
/// place: a later one leaves less for the others. So it takes no more than text times pattern.
fn matches(pattern: &str, text: &[u8]) -> bool {
    let Some((first, others)) = pattern.split_once('*') else { return pattern.as_bytes() == text };
    let (middle, last) = others.rsplit_once('*').unwrap_or(("", others));
    let Some(rest) = text.strip_prefix(first.as_bytes()) else { return false };
    let Some(mut rest) = rest.strip_suffix(last.as_bytes()) else { return false };
    for piece in middle.split('*').filter(|piece| !piece.is_empty()) {
        let Some(at) = rest.windows(piece.len()).position(|window| window == piece.as_bytes()) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}

/// Whether a Cache-Control field may have that value (RFC 9111 §5.2): directives, and seconds where these are digits.
pub(crate) fn is_cache_control(value: &str) -> bool {
    let mut elements = list_elements(value.as_bytes()).peekable();
    elements.peek().is_some() && elements.all(is_directive)
}

fn is_directive(element: &[u8]) -> bool {
    const SECONDS: [&[u8]; 4] = [b"max-age", b"s-maxage", b"stale-while-revalidate", b"stale-if-error"];
    let is_token = |part: &[u8]| !part.is_empty() && part.iter().all(|&byte| is_token_byte(byte));
    let (name, argument) = match element.iter().position(|&byte| byte == b'=') {
        Some(at) => (&element[..at], Some(&element[at + 1..])),
        None => (element, None),
    };
    if SECONDS.iter().any(|other| other.eq_ignore_ascii_case(name)) {
        return argument.is_some_and(|argument| !argument.is_empty() && argument.iter().all(u8::is_ascii_digit));
    }
    let is_quoted = |argument: &[u8]| {
        // Without escapes and commas, which no directive needs: fields are named in them.
        let inner = argument.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\""));
        inner.is_some_and(|inner| inner.iter().all(|&byte| byte == b' ' || is_token_byte(byte)))
    };
    is_token(name) && argument.is_none_or(|argument| is_token(argument) || is_quoted(argument))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_or_paths() {
        for (pattern, path, expected) in [
            ("*.js", "a.js", true),
            ("*.js", "deep/er/a.min.js", true),
            ("*.js", ".js", true),
            ("*.js", "a.JS", false),
            ("*.js", "a.jsx", false),
            ("*.js", "a.js/b", false),
            ("*", "a/b", true),
            ("*", "", true),
            ("a.js", "b/a.js", true),
            ("a.js", "ba.js", false),
            ("/a.js", "a.js", true),
            ("/a.js", "b/a.js", false),
            ("/assets/*", "assets/a", true),
            ("/assets/*", "assets/deep/a", true),
            ("/assets/*", "assets", false),
            ("/assets/*", "assets-old/a", false),
            ("/assets/*.js", "assets/deep/a.js", true),
            ("/assets/*.js", "assets/a.css", false),
            ("/*/a.js", "x/a.js", true),
            ("/*/a.js", "a.js", false),
            ("/.well-known/*", ".well-known/x", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*a*b*", "xaxxbx", true),
            ("*ab*ba*", "aba", false),
            ("*ab*ab", "abab", true),
            ("*.*.*", "a.b", false),
            ("**.js", "a.js", true),
            ("ä*", "ä.js", true),
        ] {
            let pattern = Pattern::parse(pattern).expect(pattern);
            assert_eq!(pattern.matches(path.as_bytes()), expected, "{pattern:?} {path}");
        }
        for bad in
            ["", "/", "a/", "a/b", "/a//b", "/.git/*", "/a/.b", "a?.js", "%20", "[ab].js", "{a,b}", "a\\*", "a\n"]
        {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_match_takes_no_time_that_explodes() {
        // With backtracking over each star this would not end.
        let pattern = "*a".repeat(40) + "*b";
        assert!(!matches(&pattern, "a".repeat(8000).as_bytes()));
    }

    #[test]
    fn directives() {
        for good in [
            "no-cache",
            "public, max-age=31536000, immutable",
            "max-age=60,s-maxage=600 , stale-while-revalidate=30",
            "private=\"Set-Cookie\"",
            "x-own=1",
        ] {
            assert!(is_cache_control(good), "{good}");
        }
        for bad in [
            "",
            ",",
            "max-age",
            "max-age=",
            "max-age=1d",
            "MAX-AGE=-1",
            "max age=1",
            "no-cache; public",
            "a=\"b",
            "=1",
            "no-cache\r\nA: b",
            "ä",
        ] {
            assert!(!is_cache_control(bad), "{bad:?}");
        }
    }
}
