//! What a reload does not change, said to the check of the program that is to come: whose rights there are, and where the
//! server listens already. Only a restart, by root, can have another user or another port below 1024.

use crate::listener::Bound;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The environment variable that has it, for the check alone. A check without it is nobody's successor: somebody has typed
/// it, or the server is of a version that does not say.
pub const VARIABLE: &str = "HANDOVER_BEFORE";

/// What the server has that is to be succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Whom its configuration has had it become.
    pub user: Option<String>,
    /// Whether its listeners are the service manager's, and not those of any configuration.
    pub is_of_manager: bool,
    pub bound: Vec<Bound>,
}

impl Before {
    /// If this process was started by such a server to check itself.
    pub fn of_this_check() -> Option<Before> {
        std::env::var_os(VARIABLE).map(|text| Before::read(&text))
    }

    /// As it stands in the environment, an item a line.
    pub fn text(&self) -> OsString {
        let mut text = Vec::new();
        if let Some(user) = &self.user {
            text.extend_from_slice(format!("user {user}\n").as_bytes());
        }
        if self.is_of_manager {
            text.extend_from_slice(b"manager\n");
        }
        for bound in &self.bound {
            match bound {
                Bound::Tcp(address) => text.extend_from_slice(format!("tcp {address}\n").as_bytes()),
                Bound::Unix(path) => {
                    text.extend_from_slice(b"unix ");
                    text.extend_from_slice(path.as_os_str().as_bytes());
                    text.push(b'\n');
                }
            }
        }
        OsString::from_vec(text)
    }

    /// Reads it. What a later version says besides is passed by.
    fn read(text: &OsStr) -> Before {
        let mut before = Before::default();
        for line in text.as_bytes().split(|&byte| byte == b'\n') {
            let word = line.split(|&byte| byte == b' ').next().unwrap_or_default();
            let rest = line.get(word.len() + 1..).unwrap_or_default();
            let text = std::str::from_utf8(rest).unwrap_or_default();
            match word {
                b"user" => before.user = Some(text.to_owned()),
                b"manager" => before.is_of_manager = true,
                b"tcp" => before.bound.extend(text.parse::<SocketAddr>().map(Bound::Tcp)),
                b"unix" => before.bound.push(Bound::Unix(PathBuf::from(OsString::from_vec(rest.to_vec())))),
                _ => {}
            }
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read() {
        let address = |text: &str| Bound::Tcp(text.parse().expect("an address"));
        let bound = vec![address("0.0.0.0:80"), address("[fe80::1%2]:80"), Bound::Unix("/run/a b/s".into())];
        for (user, is_of_manager) in [(Some("ada".to_owned()), false), (None, true)] {
            let before = Before { user, is_of_manager, bound: bound.clone() };
            assert_eq!(Before::read(&before.text()), before);
        }
        let later = Before::read(OsStr::new("something new\ntcp nowhere\n\nunix /s"));
        assert_eq!(later, Before { bound: vec![Bound::Unix("/s".into())], ..Before::default() });
    }
}
