//! The page that the program shows when no directory was named.

use super::answer::{answer_made, refuse};
use super::path::{self, Name};
use crate::api::{Bytes, Handler, READ_ONLY, Request, Response, refuse_unless_read};
use crate::generation::generation;
use crate::pages;
use std::process;
use std::sync::{Arc, OnceLock};

/// Where its page listens for live figures of the server, and the name of that namespace and topic: published by the server
/// if its hub has that.
pub const FIGURES: &str = "figures";

/// A small built-in site that says what this is, how to reload it while one looks, how to serve a directory and how to stop.
///
/// It is part of the program and refers to nothing outside of itself. Where the program serves no directory it is the same
/// page, with live figures of the server.
///
/// ```
/// use handover::{Router, Welcome};
/// let site = Router::new().fallback(Welcome);
/// # let _ = site;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Welcome;

/// Nobody publishes the figures of an application, and where it has a status page is its own affair.
static OF_AN_APPLICATION: WelcomeSite = WelcomeSite::new(false);

impl Handler for Welcome {
    fn handle(&self, request: &mut Request) -> Response {
        match path::name(request.path()) {
            Ok(name) => OF_AN_APPLICATION.answer(request, &name),
            Err(refusal) => refuse(refusal.status()),
        }
    }

    fn allow(&self, _: &Request) -> Option<String> {
        Some(READ_ONLY.to_owned())
    }
}

/// The page and its icon.
pub(super) struct WelcomeSite {
    /// Whether the server says anything of itself: the stream of [`FIGURES`], and the status page to whoever may see it.
    pub tells: bool,
    /// Made for the first who asks: by then it is known of which generation this process is, which stays so.
    index: OnceLock<Index>,
}

struct Index {
    page: Arc<[u8]>,
    policy: String,
}

impl Index {
    fn new(tells: bool) -> Index {
        let pid = process::id();
        let container = if pid == 1 { " (the commands here are for inside its container)" } else { "" };
        let stream = match tells {
            true => format!(" data-stream=\"-/{FIGURES}/{FIGURES}?since=last\""),
            false => String::new(),
        };
        let page = pages::complete(include_str!("welcome/index.html"))
            .replace("{version}", env!("CARGO_PKG_VERSION"))
            .replace("{generation}", &generation().to_string())
            .replace("{pid}", &pid.to_string())
            .replace("{container}", container)
            .replace("{stream}", &stream)
            .replace("{status}", if tells { STATUS } else { "" });
        Index { policy: pages::policy(&page), page: page.into_bytes().into() }
    }
}

/// The row that leads to what the server says of itself.
const STATUS: &str = "<tr><th scope=\"row\">the server in full, live</th><td><a href=\"-/status\">the status page</a>, \
    <a href=\"-/metrics\">metrics</a>; for clients of this host, unless the configuration says otherwise</td></tr>\n";

const ICON: &str = include_str!("welcome/icon.svg");

impl WelcomeSite {
    pub const fn new(tells: bool) -> WelcomeSite {
        WelcomeSite { tells, index: OnceLock::new() }
    }

    /// Answers for a name.
    pub fn answer(&self, request: &Request, name: &Name<'_>) -> Response {
        if let Some(refusal) = refuse_unless_read(request.method()) {
            return refusal;
        }
        match (&*name.bytes, name.directory) {
            (b"", _) | (b"index.html", false) => {
                let Index { page, policy } = self.index.get_or_init(|| Index::new(self.tells));
                answer_made(request, Bytes::Shared(page.clone()), "text/html; charset=utf-8", policy)
            }
            (b"icon.svg", false) => {
                answer_made(request, Bytes::Static(ICON.as_bytes()), "image/svg+xml", "default-src 'none'")
            }
            _ => refuse(404),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{read, request, value};
    use super::*;
    use tiny_http::StatusCode;

    fn send(method: &str, target: &str, fields: &[(&str, &str)]) -> Response {
        Welcome.handle(&mut request(method, target, fields))
    }

    fn page(tells: bool) -> String {
        let request = request("GET", "/", &[]);
        let name = path::name("/").expect("a name");
        String::from_utf8(read(WelcomeSite::new(tells).answer(&request, &name)).1).expect("UTF-8")
    }

    #[test]
    fn the_page_and_its_icon() {
        for target in ["/", "/index.html", "/?x", "//", "/%69ndex.html"] {
            let response = send("GET", target, &[]);
            assert_eq!(response.status_code(), StatusCode(200), "{target}");
            assert_eq!(value(&response, "Content-Type"), Some("text/html; charset=utf-8"));
            let (length, body) = read(response);
            assert_eq!(length, Some(body.len() as u64));
            assert!(String::from_utf8_lossy(&body).contains("handover ./public"));
        }
        assert_eq!(value(&send("GET", "/icon.svg", &[]), "Content-Type"), Some("image/svg+xml"));
        for target in ["/nothing", "/index.html/", "/icon.svg/", "/../x"] {
            assert_eq!(send("GET", target, &[]).status_code(), StatusCode(404), "{target}");
        }
        assert_eq!(send("POST", "/", &[]).status_code(), StatusCode(405));
        assert_eq!(send("OPTIONS", "/", &[]).status_code(), StatusCode(204));
    }

    #[test]
    fn it_is_cached_and_cut_like_a_file_and_asked_for_again() {
        let first = send("HEAD", "/", &[]);
        assert_eq!(value(&first, "Cache-Control"), Some("no-cache"));
        let etag = value(&first, "ETag").expect("a tag");
        assert_eq!(send("GET", "/", &[("If-None-Match", etag)]).status_code(), StatusCode(304));
        assert_ne!(value(&send("HEAD", "/icon.svg", &[]), "ETag"), Some(etag));
        let part = send("GET", "/", &[("Range", "bytes=0-14")]);
        assert_eq!(part.status_code(), StatusCode(206));
        assert_eq!(read(part).1, b"<!doctype html>");
    }

    #[test]
    fn without_a_script_it_says_which_process_this_is_and_how_to_reload_it() {
        let page = page(true);
        let (pid, version) = (process::id(), env!("CARGO_PKG_VERSION"));
        let still = page.split("<script>").next().expect("a page");
        assert!(still.contains(&format!("kill -HUP <span class=\"pid\">{pid}</span>")), "{page}");
        assert!(still.contains(&format!("Version {version}, generation <b id=\"generation\">{}</b>", generation())));
        assert!(still.contains(&format!("process <b id=\"process\">{pid}</b>")));
        assert!(still.contains("data-stream=\"-/figures/figures?since=last\"") && still.contains("href=\"-/status\""));
        for left in ["{head}", "{style}", "{pid}", "{generation}", "{version}", "{container}", "{stream}", "{status}"] {
            assert!(!page.contains(left), "{left}");
        }
    }

    #[test]
    fn it_leads_only_to_what_is_there() {
        let page = page(false);
        assert!(!page.contains("data-stream") && !page.contains("-/status"), "{page}");
        let links: Vec<&str> =
            page.split("href=\"").skip(1).map(|rest| rest.split('"').next().expect("a link")).collect();
        assert_eq!(links, ["icon.svg"]);
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let page = page(true);
        for reference in ["src=", "url(", "@import", "http:", "https:", "import("] {
            assert!(!page.contains(reference), "{reference}");
        }
        let policy = value(&send("GET", "/", &[]), "Content-Security-Policy").expect("a policy").to_owned();
        assert!(policy.starts_with("default-src 'none';") && policy.contains("script-src 'sha256-"), "{policy}");
        // The icon is its own file here.
        assert!(policy.contains("img-src 'self' data:"), "{policy}");
    }
}
