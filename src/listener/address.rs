//! Where to listen, as it is written and what it stands for.

use crate::Error;
use http1::number::decimal;
use socket2::{Domain, Socket, Type};
use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// Where to listen: `HOST:PORT`, `[V6]:PORT` or `unix:PATH`. Port 0 takes a free one. A link-local address stands with its
/// zone, an interface by name or number: `[fe80::1%eth0]:80` (RFC 4007 §11.2).
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
    /// A host, by address or by name, and a port. An IPv6 address may have a zone behind it: `fe80::1%eth0`.
    Tcp(String, u16),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The port, if it has one.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Address::Tcp(_, port) => Some(*port),
            Address::Unix(_) => None,
        }
    }
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
            Some(Some(zoned)) if zoned.contains('%') => match split_zone(zoned) {
                Some((address, zone)) if address.is_unicast_link_local() && !zone.is_empty() => zoned,
                Some((_, "")) => return Err(malformed("there is no interface behind the %")),
                Some(_) => return Err(malformed("only a link-local address, fe80::, has a zone")),
                None => return Err(malformed("the IPv6 address is malformed")),
            },
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
        if let Some((address, zone)) = split_zone(host) {
            let zone = zone_number(zone).map_err(|error| {
                Error::bind(format_args!("cannot listen on {self}: this host has no interface {zone:?}"), error)
            })?;
            return Ok(vec![SocketAddrV6::new(address, *port, 0, zone).into()]);
        }
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

/// An IPv6 address and the zone behind it.
fn split_zone(host: &str) -> Option<(Ipv6Addr, &str)> {
    let (address, zone) = host.split_once('%')?;
    Some((address.parse().ok()?, zone))
}

/// The number of an interface. A name goes first, since also a number may be one; that a number is nobody's is what
/// bind(2) says.
fn zone_number(zone: &str) -> io::Result<u32> {
    // Any socket will do to ask.
    let socket = Socket::new(Domain::UNIX, Type::DGRAM.cloexec(), None)?;
    match rustix::net::netdevice::name_to_index(&socket, zone) {
        Ok(number) => Ok(number),
        Err(error) => decimal(zone).ok_or_else(|| error.into()),
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
        for good in
            ["127.0.0.1:0", "[::]:80", "localhost:8888", "unix:/run/a.sock", "[fe80::1%lo]:80", "[fe80::1%2]:80"]
        {
            assert_eq!(good.parse::<Address>().expect(good).to_string(), good);
        }
        for bad in ["", "80", ":80", "host:", "host:x", "host:+1", "host:65536", "::1:80", "[::1:80", "[x]:1", "unix:"]
            .into_iter()
            .chain([
                "[fe80::1%]:80",
                "[::1%lo]:80",
                "[2001:db8::1%lo]:80",
                "[%lo]:80",
                "[127.0.0.1%lo]:80",
                "fe80::1%lo:80",
            ])
        {
            let error = bad.parse::<Address>().expect_err(bad);
            assert!(error.is_usage() && !error.to_string().contains('\n'), "{error}");
        }
        assert!(format!("unix:/{}", "a".repeat(107)).parse::<Address>().is_err());
    }

    #[test]
    fn a_link_local_address_has_a_zone_by_name_or_number() {
        let zone = |text: &str| match text.parse::<Address>().expect(text).resolve().expect(text)[..] {
            [SocketAddr::V6(address)] => (address.ip().to_string(), address.port(), address.scope_id()),
            ref other => panic!("{text}: {other:?}"),
        };
        // Every host has it, and in each network namespace it is the first.
        assert_eq!(zone("[fe80::1%lo]:80"), ("fe80::1".to_owned(), 80, 1));
        assert_eq!(zone("[fe80::1%4711]:80"), ("fe80::1".to_owned(), 80, 4711));
        let error = "[fe80::1%handover]:80".parse::<Address>().expect("a zone").resolve().expect_err("no interface");
        assert!(error.to_string().contains("has no interface \"handover\""), "{error}");
    }
}
