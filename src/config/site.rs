//! What a configuration file says of the site, checked as far as text can be: nothing was opened yet.

pub(crate) use super::cache::{CacheRule, Pattern};
use http1::accept::Coding;
use std::path::{Path, PathBuf};
use tiny_http::Header;

/// What the program serves besides [`root`](crate::Config::root), and how: routes, fields, media types, rules for caches
/// and error pages of a configuration file. Empty without one. An application has a [`Router`](crate::Router) instead.
#[derive(Clone, Debug, Default)]
pub struct SiteConfig {
    pub(crate) routes: Vec<RouteConfig>,
    /// How `root` is served.
    pub(crate) root: DirectoryOptions,
    /// Fields for every answer.
    pub(crate) headers: Vec<Header>,
    /// Extension in lower case to media type.
    pub(crate) mime: Vec<(String, String)>,
    /// Cache-Control by name; the first that matches counts.
    pub(crate) cache: Vec<CacheRule>,
    /// Status to file.
    pub(crate) error_pages: Vec<(u16, PathBuf)>,
}

/// The status for a name that no site is for: where there are hosts, and the top of the file has neither root nor routes
/// (RFC 9110 §15.5.20).
pub(crate) const MISDIRECTED: u16 = 421;

/// A site as it is configured: the one at the top of a file, or that of a `[[host]]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConfiguredSite<'c> {
    /// Of which `[[host]]`; `None` at the top.
    pub host: Option<usize>,
    pub root: Option<&'c Path>,
    pub site: &'c SiteConfig,
}

impl<'c> ConfiguredSite<'c> {
    /// What remembers the place of one of its keys, as `root` or `route[2].prefix`.
    pub fn key(self, key: &str) -> String {
        host_key(self.host, key)
    }

    /// All that it serves files from.
    pub fn directories(self) -> impl Iterator<Item = &'c Path> {
        let routes = self.site.routes.iter().filter_map(|route| match &route.action {
            RouteAction::Directory { path, .. } => Some(path.as_path()),
            RouteAction::Redirect { .. } | RouteAction::Fixed { .. } => None,
        });
        self.root.into_iter().chain(routes)
    }
}

/// The same for the site of that host, or of none.
pub(crate) fn host_key(host: Option<usize>, key: &str) -> String {
    match host {
        Some(number) => format!("host[{number}].{key}"),
        None => key.to_owned(),
    }
}

/// `[[route]]`
#[derive(Clone, Debug)]
pub(crate) struct RouteConfig {
    pub prefix: Prefix,
    pub action: RouteAction,
    /// Fields for its answers, besides those for all.
    pub headers: Vec<Header>,
    /// Whom it lets in; without it, whom the next route above it does.
    pub auth: Option<Auth>,
}

/// `auth` of a `[[route]]` or a `[[push]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    /// `false`
    Anyone,
    /// Who is in a file of users.
    Users { realm: String, file: PathBuf },
}

/// How a directory is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DirectoryOptions {
    /// The variants to look for beside each file; of those that a client likes equally, the first is sent.
    pub precompressed: Vec<Coding>,
    /// Whether a directory without an index shows what is in it.
    pub listing: bool,
    /// The file that answers for a document that is not there.
    pub fallback: Option<String>,
}

impl DirectoryOptions {
    /// Its keys, at the top of a file for `root` and in a route for its directory.
    pub const KEYS: [&'static str; 3] = ["precompressed", "listing", "fallback"];
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RouteAction {
    Directory {
        path: PathBuf,
        options: DirectoryOptions,
    },
    Redirect {
        status: u16,
        target: RedirectTarget,
    },
    /// Without a body, a status has its own text.
    Fixed {
        status: u16,
        body: Option<(String, String)>,
    },
}

/// The path that a route begins at: whole segments, decoded, without slashes around them; empty for all paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// Reads `/a/b` or `/a/b/`, which are the same.
    ///
    /// A path of a request is compared after it was decoded and its dot segments went, so what such a path can never
    /// be is refused: the route would look as if it protected something, and never match.
    pub fn parse(text: &str) -> Result<Prefix, &'static str> {
        let path = text.strip_prefix('/').ok_or("allowed is a path that begins with a slash")?;
        if path.starts_with('/') {
            return Err("allowed is a path that begins with one slash");
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.contains(['%', '?', '#']) || path.chars().any(char::is_control) {
            return Err("allowed is a path as it is after decoding, without %, ? and #");
        }
        for (at, segment) in path.split('/').enumerate().filter(|_| !path.is_empty()) {
            if segment.is_empty() {
                return Err("allowed is a path without empty segments");
            }
            if segment.starts_with('.') && !(at == 0 && segment == ".well-known") {
                return Err("allowed is a path without segments that begin with a dot: they are never served");
            }
        }
        Ok(Prefix(path.to_owned()))
    }

    /// The one for all paths.
    pub fn everything() -> Prefix {
        Prefix(String::new())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it stands for all paths.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// What follows it in `name`, if the name lies below it or is it.
    pub fn rest<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        match name.strip_prefix(self.0.as_bytes())? {
            rest if self.0.is_empty() || rest.is_empty() => Some(rest),
            rest => rest.strip_prefix(b"/"),
        }
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{}", self.0)
    }
}

/// Where a redirect leads: a path or a URL. `{path}` in it stands for what follows the prefix, with the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedirectTarget {
    pub before: String,
    /// With `{path}`: what stands behind it.
    pub after: Option<String>,
}

impl RedirectTarget {
    /// Reads it. The rest of a path must not become a part of the host (`https://example.org{path}` and a request for
    /// `.evil.com`), so it stands behind a slash that is behind the host.
    pub fn parse(text: &str) -> Result<RedirectTarget, &'static str> {
        let host_and_path = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        match host_and_path {
            Some(rest) if rest.is_empty() || rest.starts_with(['/', '?', '#']) => {
                return Err("allowed is a URL with a host");
            }
            None if !text.starts_with('/') || text.starts_with("//") => {
                return Err("allowed is a path that begins with one slash, or a URL with http:// or https://");
            }
            _ => {}
        }
        let (before, after) = match text.split_once("{path}") {
            None => (text, None),
            Some((before, after)) => (before, Some(after)),
        };
        let visible = |part: &str| part.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte));
        if !visible(before) || !after.is_none_or(visible) {
            return Err("allowed are the characters of a URL, others as %XX, and {path} once");
        }
        if after.is_some() {
            let path = match host_and_path {
                Some(rest) => rest.find('/').map_or("", |slash| &rest[slash..]),
                None => text,
            };
            let leading = path.split("{path}").next().unwrap_or_default();
            if !leading.ends_with('/') || leading.contains(['?', '#']) {
                return Err("allowed is {path} behind a slash of the path, as in /new/{path}");
            }
        }
        Ok(RedirectTarget { before: before.to_owned(), after: after.map(str::to_owned) })
    }
}

impl std::fmt::Display for RedirectTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.after {
            None => f.write_str(&self.before),
            Some(after) => write!(f, "{}{{path}}{after}", self.before),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_match_whole_segments() {
        let prefix = Prefix::parse("/a/b/").expect("a prefix");
        assert_eq!(prefix, Prefix::parse("/a/b").expect("a prefix"));
        for (name, rest) in [("a/b", Some("")), ("a/b/c/d", Some("c/d")), ("a/bc", None), ("a", None), ("b/a/b", None)]
        {
            assert_eq!(prefix.rest(name.as_bytes()), rest.map(str::as_bytes), "{name}");
        }
        let all = Prefix::parse("/").expect("a prefix");
        assert!(all.is_everything() && all.rest(b"a/b") == Some(b"a/b") && all.rest(b"") == Some(b""));
        assert!(Prefix::parse("/.well-known/acme-challenge").is_ok() && Prefix::parse("/ä b").is_ok());
        for bad in ["", "a", "//", "/a//b", "/a/../b", "/.git", "/a/.well-known", "/a%20b", "/a?b", "/a#b", "/a\n"] {
            assert!(Prefix::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn targets_lead_where_they_say() {
        for good in
            ["/", "/new/{path}", "/new/{path}#top", "https://example.org", "http://example.org:80/{path}", "/a?b=c"]
        {
            assert_eq!(RedirectTarget::parse(good).expect(good).to_string(), good);
        }
        for bad in [
            "",
            "new",
            "//example.org/",
            "ftp://example.org/",
            "https://",
            "https:///x",
            "https://{path}",
            "https://example.org{path}",
            "https://example.org:{path}",
            "https://a/?b={path}",
            "/new{path}",
            "{path}",
            "/?to=/{path}",
            "/{path}/{path}",
            "/a b",
            "/ä",
            "/a\r\nb",
            "/a\\b",
        ] {
            assert!(RedirectTarget::parse(bad).is_err(), "{bad:?}");
        }
    }
}
