//! Which pages may read and publish, and which clients are of this host.

use crate::api::{Request, Response, known_header};
use http1::is_same_name;
use std::net::{IpAddr, Ipv6Addr};

/// Fields of whoever passes a request on.
const PASSED_ON: [&str; 6] =
    ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via"];
/// For how long a browser may keep what it was told about methods and fields, in seconds.
const PREFLIGHT_AGE: &str = "7200";

/// Adds what a browser wants to know before a page of another origin may see an answer. That it depends on the origin, also
/// where that is missing, the answer says already.
pub(super) fn allow_origin(response: Response, request: &Request, origins: &[String]) -> Response {
    let Some(origin) = request.header("Origin") else { return response };
    let listed = |name: &str| origins.iter().any(|allowed| allowed == name);
    let (value, credentials) = match () {
        () if listed(origin) => (origin, true),
        () if listed("*") => ("*", false),
        () => return response,
    };
    let response = response.with_header(known_header("Access-Control-Allow-Origin", value));
    match credentials {
        true => response.with_header(known_header("Access-Control-Allow-Credentials", "true")),
        false => response,
    }
}

/// Whether a request comes from no page, from one of this server's own origin, or from one that may.
pub(super) fn may_come_from(request: &Request, origins: &[String]) -> bool {
    let Some(origin) = request.header_bytes("Origin") else { return true };
    let Ok(origin) = std::str::from_utf8(origin) else { return false };
    is_same_origin(request) || origins.iter().any(|allowed| allowed == origin || allowed == "*")
}

/// Whether a request comes from a page of this server's own origin, and says so.
pub(super) fn is_same_origin(request: &Request) -> bool {
    let own = request.header("Origin").and_then(|origin| origin.split_once("://"));
    own.zip(request.host()).is_some_and(|((_, own), host)| own.eq_ignore_ascii_case(host))
}

/// Adds what the question before a request asks for (Fetch, CORS-preflight).
pub(super) fn allow_preflight(response: Response, methods: &str) -> Response {
    response
        .with_header(known_header("Access-Control-Allow-Methods", methods))
        .with_header(known_header(
            "Access-Control-Allow-Headers",
            "Content-Type, Idempotency-Key, Last-Event-ID, Authorization",
        ))
        .with_header(known_header("Access-Control-Max-Age", PREFLIGHT_AGE))
}

/// Whether a client is of this host, and no page in a browser of this host, nor a proxy on it for others.
pub(crate) fn is_local(request: &Request) -> bool {
    if request.header_bytes("Origin").is_some() || PASSED_ON.iter().any(|name| request.header_bytes(name).is_some()) {
        return false;
    }
    // So nginx passes on what anybody asks, for the host of its `proxy_pass` and without a field that says so, unless it is
    // told otherwise by `proxy_http_version` and `proxy_set_header`.
    if is_old(request) {
        return false;
    }
    match request.remote_addr() {
        None => request.is_by_unix_socket(),
        Some(peer) => is_loopback(peer.ip()) && request.host().is_some_and(is_loopback_host),
    }
}

/// Whether it came by HTTP/1.0.
pub(super) fn is_old(request: &Request) -> bool {
    *request.http_version() < (1, 1)
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// A host that can be no other's, so that no name that leads here was asked for (DNS rebinding).
fn is_loopback_host(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let address = rest.split_once(']').map_or(rest, |(address, _)| address);
        return address.parse::<Ipv6Addr>().is_ok_and(|address| is_loopback(address.into()));
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    is_same_name(name.as_bytes(), b"localhost") || name.parse::<IpAddr>().is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_lead_here_whoever_is_asked() {
        for host in ["localhost", "LocalHost:8888", "127.0.0.1:80", "127.1.2.3", "[::1]:8888", "[::ffff:127.0.0.1]"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["", "example.org", "localhost.example.org:80", "10.0.0.1", "[fe80::1]", "127.0.0.1.example.org"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_origin_may_only_if_it_is_listed() {
        let ask = |origin: &str, origins: &[&str]| {
            let head = format!("POST /a HTTP/1.1\r\nHost: here:80\r\n{origin}\r\n");
            let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
            may_come_from(&Request::from_head(head.as_bytes()).expect("a head"), &origins)
        };
        assert!(ask("", &[]) && ask("Origin: http://here:80\r\n", &[]) && ask("Origin: https://HERE:80\r\n", &[]));
        assert!(ask("Origin: https://a\r\n", &["https://a"]) && ask("Origin: null\r\n", &["*"]));
        for origin in ["https://a", "http://here", "null", "", "http://here:80.a"] {
            assert!(!ask(&format!("Origin: {origin}\r\n"), &["https://b"]), "{origin}");
        }
    }

    #[test]
    fn a_page_and_a_proxy_are_not_of_this_host() {
        let by_unix_socket = |head: &str| {
            let mut request = Request::empty();
            request.parse(head.as_bytes(), &crate::config::Limits::default().head(), None).expect("a head");
            request
        };
        let ask =
            |fields: &str| is_local(&by_unix_socket(&format!("POST /a HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")));
        assert!(ask(""));
        for field in [
            "Origin: http://localhost",
            "Origin: null",
            "Forwarded: for=1",
            "X-Forwarded-For: 1",
            "X-Forwarded-Host: a",
            "X-Forwarded-Proto: https",
            "X-Real-IP: 192.0.2.1",
            "Via: 1.1 a",
        ] {
            assert!(!ask(&format!("{field}\r\n")), "{field}");
        }
        assert!(!is_local(&by_unix_socket("POST /a HTTP/1.0\r\nHost: localhost\r\n\r\n")));
    }

    /// A layer that rewrites paths puts such a one into the place of each, and everybody was of this host.
    #[test]
    fn a_request_that_was_made_here_is_of_nobody() {
        let made = Request::from_head(b"POST /a HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a head");
        assert!(!is_local(&made));
    }
}
