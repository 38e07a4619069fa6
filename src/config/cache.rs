//! `[[cache]]`: what Cache-Control a file is sent with, by its name.

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
}
