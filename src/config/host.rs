//! `[[host]]`: a site of its own for some names.

use super::site::SiteConfig;
use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// A site of its own for the requests that are for some names: a `[[host]]` of a configuration file, which a
/// [`Site`](crate::Site) serves. An application, which decides itself what it serves, looks at
/// [`Request::host`](crate::Request::host).
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// At least one.
    pub(crate) names: Vec<HostName>,
    pub(crate) root: Option<PathBuf>,
    pub(crate) site: SiteConfig,
}

/// The names that requests are for, as [`name_of`] writes them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HostName {
    /// `example.org`, `127.0.0.1` or `[::1]`.
    One(String),
    /// All below that one, at any depth, and not itself: of `*.example.org` this has `example.org`.
    Below(String),
}

/// As long as a name can be (RFC 1035 §2.3.4, without the length of the root), and one of its labels.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

impl HostName {
    /// Reads `example.org` or `*.example.org`. A dot at the end and the case mean nothing.
    pub fn parse(text: &str) -> Result<HostName, &'static str> {
        if !text.is_ascii() {
            return Err(
                "allowed is the form that browsers send of such a name: xn--bcher-kva.example for bücher.example",
            );
        }
        if text.contains("://") {
            return Err("allowed is a name without a scheme: example.org");
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err("allowed is an IPv6 address in brackets: [::1]");
        }
        if let Some(literal) = text.strip_prefix('[') {
            return match literal.split_once(']') {
                Some((address, "")) if address.parse::<Ipv6Addr>().is_ok() => Ok(HostName::One(name_of(text).into())),
                Some((_, port)) if port.starts_with(':') => Err(WITHOUT_PORT),
                _ => Err("allowed is an IPv6 address in brackets: [::1]"),
            };
        }
        if text.contains('/') {
            return Err("allowed is a name without a path, which is for [[host.route]]");
        }
        if text.contains(':') {
            return Err(WITHOUT_PORT);
        }
        let (name, is_below) = text.strip_prefix("*.").map_or((text, false), |below| (below, true));
        if text == "*" {
            return Err("allowed is a name: what no [[host]] has is answered by what stands at the top of the file");
        }
        if name.contains('*') || is_below && name.is_empty() {
            return Err("allowed is one * with a dot behind it, in front of a name: *.example.org");
        }
        let name = name_of(name).into_owned();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let label = |label: &str| (1..=LONGEST_LABEL).contains(&label.len()) && label.bytes().all(plain);
        if name.len() > LONGEST_NAME || !name.split('.').all(label) {
            return Err("allowed are letters, digits, - and _ with dots between, as in example.org and *.example.org");
        }
        // Browsers take that for an address, and for no other than that of four numbers.
        let is_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        if is_number && (is_below || name.parse::<Ipv4Addr>().is_err()) {
            return Err("allowed is an IPv4 address of four numbers: 127.0.0.1");
        }
        Ok(if is_below { HostName::Below(name) } else { HostName::One(name) })
    }
}

const WITHOUT_PORT: &str = "allowed is a name without a port: a [[host]] is for all that the server listens on";

/// As the file says it.
impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostName::One(name) => f.write_str(name),
            HostName::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// The name in an authority, which is valid, in the one way in which names are compared: without its port and the dot at its
/// end, in lower case (RFC 3986 §6.2.2.1), an IPv6 address at its shortest. Empty for what is longer than a name can be.
pub(crate) fn name_of(authority: &str) -> Cow<'_, str> {
    if let Some(literal) = authority.strip_prefix('[') {
        let address = literal.split(']').next().and_then(|address| address.parse::<Ipv6Addr>().ok());
        return address.map_or(Cow::Borrowed(""), |address| format!("[{address}]").into());
    }
    let end = authority.bytes().position(|byte| byte == b':').unwrap_or(authority.len());
    let name = &authority[..end];
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        _ if name.len() > LONGEST_NAME => Cow::Borrowed(""),
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_one_way() {
        for (text, shown) in [
            ("example.org", "example.org"),
            ("Example.ORG.", "example.org"),
            ("localhost", "localhost"),
            ("my_app", "my_app"),
            ("*.example.org", "*.example.org"),
            ("*.Example.org.", "*.example.org"),
            ("*.localhost", "*.localhost"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("[2001:DB8::0001]", "[2001:db8::1]"),
            ("4711.example", "4711.example"),
        ] {
            assert_eq!(HostName::parse(text).expect(text).to_string(), shown, "{text}");
        }
        let long = format!("{}.example", "a".repeat(63));
        assert!(HostName::parse(&long).is_ok() && HostName::parse(&format!("a{long}")).is_err());
        let longest = format!("{}abc", "a.".repeat(125));
        assert!(HostName::parse(&longest).is_ok() && HostName::parse(&format!("b{longest}")).is_err());
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_helps() {
        for (text, says) in [
            ("", "letters, digits"),
            (".", "letters, digits"),
            (".example.org", "letters, digits"),
            ("example..org", "letters, digits"),
            ("example.org..", "letters, digits"),
            ("exa mple.org", "letters, digits"),
            ("example.org ", "letters, digits"),
            ("ex%61mple.org", "letters, digits"),
            ("me@example.org", "letters, digits"),
            ("*", "at the top of the file"),
            ("*example.org", "in front of a name: *.example.org"),
            ("a.*.org", "in front of a name: *.example.org"),
            ("*.*.org", "in front of a name: *.example.org"),
            ("example.*", "in front of a name: *.example.org"),
            ("*.", "in front of a name: *.example.org"),
            ("*..", "letters, digits"),
            ("example.org:80", "without a port"),
            ("*.example.org:", "without a port"),
            ("[::1]:80", "without a port"),
            ("127.0.0.1:80", "without a port"),
            ("::1", "in brackets: [::1]"),
            ("[::1", "in brackets: [::1]"),
            ("[::g]", "in brackets: [::1]"),
            ("[fe80::1%eth0]", "in brackets: [::1]"),
            ("[127.0.0.1]", "in brackets: [::1]"),
            ("http://example.org", "without a scheme"),
            ("example.org/a", "[[host.route]]"),
            ("bücher.example", "xn--"),
            ("127.1", "of four numbers"),
            ("300.0.0.1", "of four numbers"),
            ("*.0.0.1", "of four numbers"),
        ] {
            let what = HostName::parse(text).expect_err(text);
            assert!(what.starts_with("allowed ") && what.contains(says), "{text}: {what}");
        }
    }

    #[test]
    fn the_name_of_an_authority_has_no_port_no_dot_and_no_case() {
        for (authority, name) in [
            ("example.org", "example.org"),
            ("EXAMPLE.org:8080", "example.org"),
            ("example.org.", "example.org"),
            ("example.org.:80", "example.org"),
            ("example.org:", "example.org"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[0::1]:80", "[::1]"),
            ("[::FFFF]:", "[::ffff]"),
            ("", ""),
            (".", ""),
            (":80", ""),
            ("ex%61mple.org", "ex%61mple.org"),
        ] {
            assert_eq!(name_of(authority), name, "{authority}");
        }
        assert_eq!(name_of(&"a.".repeat(200)), "");
    }
}
