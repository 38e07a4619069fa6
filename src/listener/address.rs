//! Where to listen, as it is written and what it stands for.

use crate::Error;
use crate::number::decimal;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// Where to listen: `HOST:PORT`, `[V6]:PORT` or `unix:PATH`. Port 0 takes a free one.
///
/// ```
/// use handover::Address;
/// let address: Address = "[::1]:8888".parse()?;
/// assert_eq!(address.to_string(), "[::1]:8888");
/// assert!("unix:/run/app.sock".parse::<Address>().is_ok());
/// assert!("8888".parse::<Address>().is_err());
/// # Ok::<(), handover::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host, by address or by name, and a port.
    Tcp(String, u16),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address, Error> {
        let malformed = |why: &str| {
            Error::usage(format_args!("cannot listen on {text:?}: {why}; give HOST:PORT, [V6]:PORT or unix:PATH"))
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.len() {
                0 => Err(malformed("the path is empty")),
                // sun_path holds 108 bytes with the NUL (unix(7)).
                1..=107 => Ok(Address::Unix(path.into())),
                _ => Err(malformed("a socket path has at most 107 bytes")),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| malformed("there is no port"))?;
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed("the port is not a number"));
        }
        let port = decimal(port).ok_or_else(|| malformed("the port is above 65535"))?;
        let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
            Some(Some(v6)) if v6.parse::<Ipv6Addr>().is_ok() => v6,
            Some(_) => return Err(malformed("the IPv6 address is malformed")),
            None if host.contains(':') => return Err(malformed("an IPv6 address stands in brackets")),
            None if host.is_empty() => return Err(malformed("there is no host")),
            None => host,
        };
        Ok(Address::Tcp(host.to_owned(), port))
    }
}

impl Address {
    /// The socket addresses that a host stands for, each once; none for a path.
    pub(super) fn resolve(&self) -> Result<Vec<SocketAddr>, Error> {
        let Address::Tcp(host, port) = self else { return Ok(Vec::new()) };
        let resolved = (host.as_str(), *port).to_socket_addrs().map_err(|error| {
            let why = error.to_string();
            Error::bind(format_args!("cannot listen on {self}: the host name does not resolve: {why}"), error)
        })?;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for resolved in resolved {
            if !addresses.contains(&resolved) {
                addresses.push(resolved);
            }
        }
        Ok(addresses)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["127.0.0.1:0", "[::]:80", "localhost:8888", "unix:/run/a.sock"] {
            assert_eq!(good.parse::<Address>().expect(good).to_string(), good);
        }
        for bad in ["", "80", ":80", "host:", "host:x", "host:+1", "host:65536", "::1:80", "[::1:80", "[x]:1", "unix:"]
        {
            let error = bad.parse::<Address>().expect_err(bad);
            assert!(error.is_usage() && !error.to_string().contains('\n'), "{error}");
        }
        assert!(format!("unix:/{}", "a".repeat(107)).parse::<Address>().is_err());
    }
}
