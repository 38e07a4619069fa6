//! What the pages for people have in common: one look, in light and dark, and a policy by which nothing is loaded from
//! elsewhere and nothing runs but what stands in the page.
//!
//! - [`complete`] and [`policy`] are for the pages of others: the welcome page, listings, the status page.
//! - `errors` has a page for each status that says what went wrong.

mod errors;

pub use errors::for_people;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

/// The look: colours, type and width.
const STYLE: &str = include_str!("style.css");

/// The icon stands in each page, so that no browser asks for a `favicon.ico` that is not there.
const ICON: &str = "<link rel=\"icon\" href=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E\
    %3Crect width='32' height='32' rx='7' fill='%230f766e'/%3E%3Cpath d='M6 12h14m-5-5 5 5-5 5M26 20H12m5-5-5 5 5 5' fill='none' \
    stroke='%23fff' stroke-width='2.6' stroke-linecap='round' stroke-linejoin='round'/%3E%3C/svg%3E\">";

/// The beginning of each page, up to its title.
const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
    <meta name=\"color-scheme\" content=\"light dark\">\n";

/// A page in whose text `{head}` stands for what each begins with, `{icon}` for the icon and `{style}` for the common style.
pub fn complete(page: &str) -> String {
    // In this order: what is put in has braces of its own.
    page.replacen("{head}", HEAD, 1).replacen("{icon}", ICON, 1).replacen("{style}", STYLE, 1)
}

/// The Content-Security-Policy of a page (CSP, level 3): its own style and its own script, by their digests, and a stream
/// or a request to the server that it came from if it has a script.
pub fn policy(page: &str) -> String {
    let digest = |tag: &str| {
        let inside = page.split_once(&format!("<{tag}>"))?.1.split_once(&format!("</{tag}>"))?.0;
        Some(BASE64_STANDARD.encode(Sha256::digest(inside)))
    };
    let style = digest("style").map(|digest| format!(" style-src 'sha256-{digest}';"));
    let script = digest("script").map(|digest| format!(" script-src 'sha256-{digest}'; connect-src 'self';"));
    format!(
        "default-src 'none'; img-src 'self' data:;{}{} base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        style.unwrap_or_default(),
        script.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_what_stands_in_the_page_and_nothing_else() {
        // The digests are those of `printf a | openssl sha256 -binary | base64`, and of b.
        let (a, b) = ("ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs=", "PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0=");
        assert_eq!(
            policy("<style>a</style><script>b</script>"),
            format!(
                "default-src 'none'; img-src 'self' data:; style-src 'sha256-{a}'; script-src 'sha256-{b}'; connect-src 'self'; \
                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            )
        );
        let still = policy("<style>a</style><p>b");
        assert!(!still.contains("script") && !still.contains("connect"), "{still}");
    }

    #[test]
    fn a_page_is_completed() {
        let page = complete("{head}<title>a</title>{icon}<style>{style} b {}</style>{head}");
        assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">"), "{page}");
        assert!(
            page.contains("rel=\"icon\"") && page.contains("prefers-color-scheme: dark") && page.ends_with("{head}")
        );
    }
}
