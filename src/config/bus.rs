//! What a configuration says of the bus between several hosts.

use std::fmt;
use std::path::PathBuf;

/// Entries that the stream of a bus keeps, about.
const MAX_LENGTH: usize = 100_000;
/// What may be asked for: fewer would be gone before a host has read them, more is a slip.
pub const BUS_LENGTH: std::ops::RangeInclusive<usize> = 1000..=100_000_000;
/// The names of its keys begin with it.
const PREFIX: &str = "handover";
const LONGEST_PREFIX: usize = 64;
const PASSWORD: &str = "a password is not for an address: it stands in the file of bus_password_file";
const SCHEMES: [&str; 4] = ["redis", "rediss", "redis+unix", "unix"];

/// Through which bus messages go, where several hosts serve them (feature `redis`).
///
/// ```
/// use handover::{BusConfig, BusDown, BusUrl, Config};
///
/// let bus = BusConfig {
///     url: Some(BusUrl::parse("redis://127.0.0.1:6379")?),
///     prefix: Some("news".into()),
///     down: BusDown::Wait,
///     ..BusConfig::default()
/// };
/// let mut config = Config::default();
/// config.push.bus = bus;
/// assert!(BusUrl::parse("redis://:secret@127.0.0.1").is_err(), "a password is in a file");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug)]
pub struct BusConfig {
    /// Where it is. Default none: messages stay on this host.
    pub url: Option<BusUrl>,
    /// The names of its keys begin with it: each deployment in one Redis has another. Default `handover`.
    pub prefix: Option<String>,
    /// Messages that it keeps, about. Default 100,000.
    pub max_length: usize,
    /// What becomes of a publication while it is down.
    pub down: BusDown,
    /// A file with its password.
    pub password_file: Option<PathBuf>,
}

impl Default for BusConfig {
    fn default() -> BusConfig {
        BusConfig { url: None, prefix: None, max_length: MAX_LENGTH, down: BusDown::default(), password_file: None }
    }
}

impl BusConfig {
    /// What the names of its keys begin with, the default filled in.
    pub(crate) fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or(PREFIX)
    }

    /// What is wrong with the prefix.
    pub(crate) fn wrong_prefix(&self) -> Option<String> {
        let prefix = self.prefix();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        let is_one = (1..=LONGEST_PREFIX).contains(&prefix.len()) && prefix.bytes().all(is_name);
        (!is_one)
            .then(|| format!("bus_prefix is {prefix:?}, allowed are 1 to {LONGEST_PREFIX} letters, digits and -_.:"))
    }
}

/// What becomes of a publication while the bus is down; see the example of [`BusConfig`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BusDown {
    /// It is refused at once.
    #[default]
    Refuse,
    /// It waits some seconds for the bus to come back, and is refused then.
    Wait,
}

impl BusDown {
    pub(crate) const ALL: [(&'static str, BusDown); 2] = [("refuse", BusDown::Refuse), ("wait", BusDown::Wait)];
}

/// Where a bus is; see the example of [`BusConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusUrl(String);

impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BusUrl {
    /// Reads one, as in the example of [`BusConfig`]: `redis://[USER@]HOST[:PORT][/DB]`, the same with `rediss` for TLS (feature `redis-tls`), or `redis+unix:///PATH`.
    ///
    /// # Errors
    /// What is wrong with it, in a line.
    pub fn parse(text: &str) -> Result<BusUrl, String> {
        let allowed = "allowed is redis://[USER@]HOST[:PORT][/DB], rediss:// for TLS, or redis+unix:///PATH";
        let (scheme, rest) = text.split_once("://").ok_or(allowed)?;
        if !SCHEMES.contains(&scheme) || text.chars().any(|one| one.is_control() || one.is_whitespace()) {
            return Err(allowed.into());
        }
        if scheme.ends_with("unix") {
            let (path, question) = rest.split_once('?').unwrap_or((rest, ""));
            let known = |one: &str| one.is_empty() || one.starts_with("db=") || one.starts_with("user=");
            if !question.split('&').all(known) {
                return Err(format!("behind the path is allowed ?db=NUMBER&user=NAME; {PASSWORD}"));
            }
            return match path.starts_with('/') && path.len() > 1 {
                true => Ok(BusUrl(text.to_owned())),
                false => Err("a Unix socket's path begins with /: redis+unix:///run/redis/redis.sock".into()),
            };
        }
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let host = match authority.rsplit_once('@') {
            // Everybody on the host sees it in a list of processes, and it would be in the log.
            Some((user, _)) if user.contains(':') => {
                return Err(PASSWORD.into());
            }
            Some((_, host)) => host,
            None => authority,
        };
        let (name, port) = match host.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((name, "")) => (name, None),
            Some((name, rest)) => (name, Some(rest.strip_prefix(':').ok_or(allowed)?)),
            None => host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
        };
        if name.is_empty() || (name.contains(':') && !host.starts_with('[')) {
            return Err(allowed.into());
        }
        if let Some(port) = port.filter(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(format!("the port is {port:?}, allowed is 1 to 65535"));
        }
        let (database, more) = database.split_once('?').unwrap_or((database, ""));
        if !more.is_empty() || !(database.is_empty() || database.parse::<u16>().is_ok()) {
            return Err(format!("behind the port is {database:?}, allowed is the number of a database"));
        }
        Ok(BusUrl(text.to_owned()))
    }

    /// The text that was read, in the example of [`BusConfig`] `redis://127.0.0.1:6379`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_passwords_are_not_for_them() {
        for good in [
            "redis://127.0.0.1",
            "redis://redis:6379",
            "rediss://me@redis.example.org:6380/3",
            "redis://[::1]:6379/0",
            "redis://[::1]",
            "redis+unix:///run/redis/redis.sock",
            "unix:///run/redis?db=1&user=me",
        ] {
            assert_eq!(BusUrl::parse(good).map(|url| url.to_string()).as_deref(), Ok(good));
        }
        for (bad, why) in [
            ("", "allowed is redis://"),
            ("redis.example.org", "allowed is redis://"),
            ("http://redis", "allowed is redis://"),
            ("redis://", "allowed is redis://"),
            ("redis://:6379", "allowed is redis://"),
            ("redis://::1", "allowed is redis://"),
            ("redis://a b", "allowed is redis://"),
            ("redis://host:0", "the port is \"0\""),
            ("redis://host:99999", "the port is \"99999\""),
            ("redis://host/db", "the number of a database"),
            ("redis://host/0?protocol=resp3", "the number of a database"),
            ("redis://me:secret@host", "bus_password_file"),
            ("redis://:secret@host", "bus_password_file"),
            ("redis+unix:///run/redis?pass=secret", "bus_password_file"),
            ("unix:///run/redis?db=1&p%61ss=secret", "bus_password_file"),
            ("redis+unix://run/redis", "begins with /"),
        ] {
            let wrong = BusUrl::parse(bad).expect_err(bad);
            assert!(wrong.contains(why) && !wrong.contains("secret"), "{bad}: {wrong}");
        }
    }

    #[test]
    fn a_prefix_is_a_name() {
        for (prefix, is_one) in [("a", true), ("a:b-c_d.1", true), ("", false), ("a{b}", false), ("a b", false)] {
            let config = BusConfig { prefix: Some(prefix.into()), ..BusConfig::default() };
            assert_eq!(config.wrong_prefix().is_none(), is_one, "{prefix:?}");
        }
        assert!(BusConfig::default().wrong_prefix().is_none());
    }
}
