//! Which host a request is for.

use crate::config::host::{HostName, name_of};
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// The names of all hosts, and whose they are.
#[derive(Default)]
pub(super) struct Names {
    exact: HashMap<String, usize, RandomState>,
    /// By what stands behind the `*.`
    below: HashMap<String, usize, RandomState>,
    /// As `--check` shows those of each host.
    shown: Vec<String>,
}

impl Names {
    /// Of hosts in their order. No two have the same name.
    pub fn new<'n>(hosts: impl Iterator<Item = &'n [HostName]>) -> Names {
        let mut all = Names::default();
        for (number, names) in hosts.enumerate() {
            for name in names {
                match name {
                    HostName::One(name) => all.exact.insert(name.clone(), number),
                    HostName::Below(name) => all.below.insert(name.clone(), number),
                };
            }
            let shown: Vec<String> = names.iter().map(HostName::to_string).collect();
            all.shown.push(shown.join(", "));
        }
        all
    }

    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// The names of that host.
    pub fn of(&self, number: usize) -> &str {
        self.shown.get(number).map_or("", String::as_str)
    }

    /// The number of the host that has the name in the authority: itself, or else the longest that it lies below. As many
    /// look-ups as the name has dots, of 253 bytes at the most.
    pub fn find(&self, authority: &str) -> Option<usize> {
        let name = name_of(authority);
        if let Some(number) = self.exact.get(&*name) {
            return Some(*number);
        }
        if self.below.is_empty() {
            return None;
        }
        let mut label = 0;
        for (dot, _) in name.match_indices('.') {
            // No name has an empty label, so that this is none.
            if dot == label {
                return None;
            }
            label = dot + 1;
            if let Some(number) = self.below.get(&name[label..]) {
                return Some(*number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(hosts: &[&[&str]]) -> Names {
        let parse = |name: &&str| HostName::parse(name).unwrap_or_else(|what| panic!("{name}: {what}"));
        let hosts: Vec<Vec<HostName>> = hosts.iter().map(|names| names.iter().map(parse).collect()).collect();
        Names::new(hosts.iter().map(Vec::as_slice))
    }

    #[test]
    fn what_is_exact_goes_first_and_then_the_longest() {
        let all = names(&[
            &["*.example.org"],
            &["example.org", "a.example.org"],
            &["*.b.example.org"],
            &["127.0.0.1", "[::1]"],
            &["*.org"],
            &["localhost"],
        ]);
        for (authority, host) in [
            ("example.org", Some(1)),
            ("EXAMPLE.org:8080", Some(1)),
            ("example.org.", Some(1)),
            ("Example.Org.:80", Some(1)),
            ("example.org:", Some(1)),
            ("a.example.org", Some(1)),
            ("b.example.org", Some(0)),
            ("x.a.example.org", Some(0)),
            ("x.y.z.example.org", Some(0)),
            ("x.B.example.org", Some(2)),
            ("x.y.b.example.org:1", Some(2)),
            ("other.org", Some(4)),
            ("org", None),
            ("badexample.org", Some(4)),
            ("example.org.evil.com", None),
            ("127.0.0.1:80", Some(3)),
            ("127.0.0.2", None),
            ("[::1]:80", Some(3)),
            ("[0:0::1]", Some(3)),
            ("[::2]", None),
            ("::1", None),
            ("localhost:8888", Some(5)),
            ("a.localhost", None),
            ("", None),
            (".", None),
            (":80", None),
            (".example.org", None),
            ("a..example.org", None),
            ("example.org..", None),
            ("*.example.org", Some(0)),
            ("ex%61mple.org", Some(4)),
            ("%65xample.com", None),
        ] {
            assert_eq!(all.find(authority), host, "{authority}");
        }
        assert_eq!((all.of(1), all.of(6)), ("example.org, a.example.org", ""));
        assert!(!all.is_empty() && Names::default().is_empty());
    }

    #[test]
    fn what_is_longer_than_a_name_is_nobodys() {
        let all = names(&[&["*.a"]]);
        let labels = |count: usize| "b.".repeat(count) + "a";
        assert_eq!(all.find(&labels(126)), Some(0));
        for count in [127, 30_000] {
            assert_eq!(all.find(&labels(count)), None);
        }
        assert_eq!(names(&[&["example.org"]]).find(&"a.".repeat(200)), None);
    }
}
