//! The page that the program shows when no directory was named.

use super::answer::{About, Representation, refuse};
use super::content::{Content, wall_clock};
use super::path::{self, Name};
use crate::api::{Bytes, Handler, IntoResponse, READ_ONLY, Request, Response, refuse_unless_read};

/// Where its page listens for live figures of the server, and the name of that namespace and topic: published by the server
/// if its hub has that.
pub const FIGURES: &str = "figures";

/// A small built-in site that says what this is, how to serve a directory and how to stop.
///
/// It is part of the program and refers to nothing outside of itself.
///
/// ```
/// use handover::{Router, Welcome};
/// let site = Router::new().fallback(Welcome);
/// # let _ = site;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Welcome;

struct Page {
    content: &'static str,
    content_type: &'static str,
    hash: u64,
}

impl Page {
    const fn new(content: &'static str, content_type: &'static str) -> Page {
        Page { content, content_type, hash: fnv1a(content.as_bytes()) }
    }
}

static INDEX: Page = Page::new(include_str!("welcome/index.html"), "text/html; charset=utf-8");
static ICON: Page = Page::new(include_str!("welcome/icon.svg"), "image/svg+xml");

impl Handler for Welcome {
    fn handle(&self, request: &mut Request) -> Response {
        match path::name(request.path()) {
            Ok(name) => self.answer(request, &name),
            Err(refusal) => refuse(refusal.status()),
        }
    }

    fn allow(&self, _: &Request) -> Option<String> {
        Some(READ_ONLY.to_owned())
    }
}

impl Welcome {
    pub(super) fn answer(&self, request: &Request, name: &Name<'_>) -> Response {
        if let Some(refusal) = refuse_unless_read(request.method()) {
            return refusal;
        }
        let page = match (&*name.bytes, name.directory) {
            (b"", _) | (b"index.html", false) => &INDEX,
            (b"icon.svg", false) => &ICON,
            _ => return refuse(404),
        };
        let etag = format!("\"{:x}\"", page.hash);
        let about = About {
            length: page.content.len() as u64,
            content_type: page.content_type,
            coding: None,
            etag: &etag,
            // When the program was built says nothing about the page.
            modified: None,
            is_dated: false,
            vary: None,
            cache_control: None,
        };
        let representation = Representation { content: Content::Bytes(Bytes::Static(page.content.as_bytes())), about };
        // Bytes of the program cannot fail to be read.
        representation.answer(request, wall_clock()).unwrap_or_else(IntoResponse::into_response)
    }
}

/// FNV-1a, at compile time: the tag must change with the page and with nothing else.
const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::super::testing::{read, request, value};
    use super::*;
    use tiny_http::StatusCode;

    fn send(method: &str, target: &str, fields: &[(&str, &str)]) -> Response {
        Welcome.handle(&mut request(method, target, fields))
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
    fn it_is_cached_and_cut_like_a_file() {
        let first = send("HEAD", "/", &[]);
        let etag = value(&first, "ETag").expect("a tag");
        assert_eq!(send("GET", "/", &[("If-None-Match", etag)]).status_code(), StatusCode(304));
        assert_ne!(value(&send("HEAD", "/icon.svg", &[]), "ETag"), Some(etag));
        let part = send("GET", "/", &[("Range", "bytes=0-14")]);
        assert_eq!(part.status_code(), StatusCode(206));
        assert_eq!(read(part).1, b"<!doctype html>");
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        for reference in ["src=", "url(", "@import", "http:", "https:", "import("] {
            assert!(!INDEX.content.contains(reference), "{reference}");
        }
        let links = INDEX.content.split("href=\"").skip(1);
        assert!(links.into_iter().all(|link| link.starts_with("icon.svg\"")));
    }
}
