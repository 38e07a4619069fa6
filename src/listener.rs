//! Where connections come from: binding, and closing without resetting a client that has already connected.

use crate::Error;
use crate::number::decimal;
use crate::report;
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketAddrAny, SocketFlags};
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Connections that may wait in the kernel; it takes the smaller of this and `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

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

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where a listener is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// An address with the port that was taken.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Tcp(address) => write!(f, "http://{address}"),
            Bound::Unix(path) => write!(f, "http+unix:{}", path.display()),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    bound: Bound,
    /// As it was configured: a successor keeps it if its own configuration says the same. [`OF_MANAGER`] if it never
    /// was.
    address: String,
    /// Device and inode of the socket file.
    file: Option<(u64, u64)>,
    /// Whether that one is ours to remove.
    owns_file: bool,
}

/// Stands for the address of a listener that the service manager passed. No configured one can read like this.
const OF_MANAGER: &str = "the service manager's";

/// What accepting learned.
#[derive(Debug)]
pub enum Accepted {
    Connection(OwnedFd, Option<SocketAddr>),
    /// The queue is empty.
    Empty,
    /// No descriptor or no memory for another connection: try again later.
    Exhausted(io::Error),
    /// That connection failed before we had it; others may not.
    Skipped(io::Error),
}

impl Listener {
    /// Binds every address that `address` stands for.
    pub fn bind(address: &Address) -> Result<Vec<Listener>, Error> {
        match address {
            Address::Unix(path) => Ok(vec![bind_unix(path)?]),
            Address::Tcp(host, port) => {
                let resolved = (host.as_str(), *port).to_socket_addrs().map_err(|error| {
                    let why = error.to_string();
                    Error::bind(
                        format_args!("cannot listen on {address}: the host name does not resolve: {why}"),
                        error,
                    )
                })?;
                let mut addresses: Vec<SocketAddr> = Vec::new();
                for resolved in resolved {
                    if !addresses.contains(&resolved) {
                        addresses.push(resolved);
                    }
                }
                // A free port is one port: with several addresses it would be several.
                addresses.truncate(if *port == 0 { 1 } else { addresses.len() });
                let mut listeners = Vec::new();
                for resolved in addresses {
                    listeners.push(bind_tcp(resolved, &address.to_string())?);
                }
                Ok(listeners)
            }
        }
    }

    /// A listener that a predecessor had bound for `address`. While that one may still serve, the socket file is its.
    pub fn inherit(fd: OwnedFd, address: String, file: Option<(u64, u64)>, owns_file: bool) -> io::Result<Listener> {
        let socket = Socket::from(fd);
        socket.set_cloexec(true)?;
        let bound = where_bound(&socket)?;
        Ok(Listener { socket, bound, address, file, owns_file })
    }

    /// A listener that the service manager bound and keeps.
    pub fn of_manager(socket: Socket) -> io::Result<Listener> {
        let bound = where_bound(&socket)?;
        Ok(Listener { socket, bound, address: OF_MANAGER.to_owned(), file: None, owns_file: false })
    }

    /// Whether the service manager keeps a copy. Then a stop only closes ours: who connects from here on waits in the
    /// queue for the next start. A successor sees it by the address, and keeps it whatever its configuration says.
    pub fn is_shared(&self) -> bool {
        self.address == OF_MANAGER
    }

    /// The address as it was configured, and what its socket file is recognised by.
    pub fn inheritance(&self) -> (&str, Option<(u64, u64)>) {
        (&self.address, self.file)
    }

    /// Where it listens.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Takes the next connection, non-blocking and close-on-exec.
    pub fn accept(&self) -> Accepted {
        match rustix::net::acceptfrom_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok((fd, peer)) => Accepted::Connection(fd, peer.and_then(to_std)),
            Err(Errno::AGAIN) => Accepted::Empty,
            // A Unix listener that was shut down says EINVAL once its queue is empty.
            Err(Errno::INVAL) => Accepted::Empty,
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                Accepted::Exhausted(error.into())
            }
            // ECONNABORTED, and errors of the new connection that accept(2) passes on.
            Err(error) => Accepted::Skipped(error.into()),
        }
    }

    /// First half of a close that resets nobody: no new handshakes from here on. What has connected already is still
    /// in the queue, and what is in the middle of a handshake still gets there.
    ///
    /// Only for the sole holder of the socket: the filter is on the socket itself, and with another holder alive it
    /// would blackhole that one's clients. So a shared one is left as it is.
    pub fn refuse_new(&self) {
        if self.is_shared() {
            return;
        }
        let result = match &self.bound {
            Bound::Tcp(_) => self.socket.attach_filter(&drop_syn_filter()),
            Bound::Unix(_) => {
                self.remove_file();
                rustix::net::shutdown(&self.socket, Shutdown::Read).map_err(io::Error::from)
            }
        };
        if let Err(error) = result {
            report::warn!("closing {}: clients that connect just now may be reset: {error}", self.bound);
        }
    }

    /// Leaves the socket file to a successor, whatever its inode says, or takes it over.
    pub fn own_file(&mut self, owns: bool) {
        self.owns_file = owns;
    }

    /// Whether a handshake has begun and not ended; `None` where that cannot be read.
    pub fn has_handshakes(&self) -> Option<bool> {
        if self.is_shared() {
            // They end in the queue of whoever holds the socket then.
            return Some(false);
        }
        match &self.bound {
            Bound::Unix(_) => Some(false),
            Bound::Tcp(address) => {
                let v4 = has_syn_recv("/proc/net/tcp", address.port());
                let v6 = has_syn_recv("/proc/net/tcp6", address.port());
                match (v4, v6) {
                    (Some(one), other) | (other, Some(one)) => Some(one || other.unwrap_or(false)),
                    (None, None) => None,
                }
            }
        }
    }

    fn remove_file(&self) {
        let Bound::Unix(path) = &self.bound else { return };
        if !self.owns_file {
            return;
        }
        let ours = |meta: fs::Metadata| Some((meta.dev(), meta.ino())) == self.file;
        if fs::symlink_metadata(path).is_ok_and(ours)
            && let Err(error) = fs::remove_file(path)
        {
            report::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.remove_file();
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn to_std(peer: SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(peer).ok()
}

fn where_bound(socket: &Socket) -> io::Result<Bound> {
    let local = socket.local_addr()?;
    Ok(match (local.as_socket(), local.as_pathname(), local.as_abstract_namespace()) {
        (Some(address), _, _) => Bound::Tcp(address),
        (_, Some(path), _) => Bound::Unix(std::path::absolute(path).unwrap_or_else(|_| path.to_owned())),
        // With an `@`, as service managers write it.
        (_, _, Some(name)) => Bound::Unix(OsStr::from_bytes(&[b"@", name].concat()).into()),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is bound to nothing")),
    })
}

fn bind_tcp(address: SocketAddr, text: &str) -> Result<Listener, Error> {
    let bind = || -> io::Result<Listener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // So that `0.0.0.0:80` and `[::]:80` can stand beside each other, whatever bindv6only says.
            socket.set_only_v6(true)?;
        }
        // Accepted sockets inherit it on Linux, which saves a call for each.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(Listener { socket, bound: Bound::Tcp(bound), address: text.to_owned(), file: None, owns_file: false })
    };
    bind().map_err(|error| {
        let help = match error.kind() {
            io::ErrorKind::AddrInUse => "address in use; stop the other server or listen on another port with -l",
            io::ErrorKind::PermissionDenied => {
                "no permission; ports below net.ipv4.ip_unprivileged_port_start need root or CAP_NET_BIND_SERVICE"
            }
            io::ErrorKind::AddrNotAvailable => "no interface of this host has that address",
            _ => &error.to_string(),
        };
        Error::bind(format_args!("cannot listen on {address}: {help}"), error)
    })
}

fn bind_unix(path: &Path) -> Result<Listener, Error> {
    #[cold]
    #[inline(never)]
    fn failed(path: &Path, help: &str, error: io::Error) -> Error {
        Error::bind(format_args!("cannot listen on unix:{}: {help}", path.display()), error)
    }
    let fail = |help: &str, error: io::Error| failed(path, help, error);
    let said = |error: io::Error| fail(&error.to_string(), error);
    let stream = || Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None);
    let address = SockAddr::unix(path).map_err(said)?;
    let bind = || -> io::Result<Socket> {
        let socket = stream()?;
        socket.bind(&address)?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    };
    let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    let socket = match bind() {
        Err(error) if in_use(&error) => {
            if fs::symlink_metadata(path).is_ok_and(|meta| !meta.file_type().is_socket()) {
                return Err(fail("the path exists and is no socket; remove it or choose another path", error));
            }
            // A path whose server is gone refuses; one that answers, or is too busy to, belongs to somebody.
            let probe = stream().and_then(|probe| probe.connect(&address));
            if probe.err().map(|error| error.kind()) != Some(io::ErrorKind::ConnectionRefused) {
                return Err(fail("address in use; stop the other server or choose another path", error));
            }
            report::info!("replacing {}, a socket that nobody listens on", path.display());
            fs::remove_file(path).and_then(|()| bind())
        }
        other => other,
    };
    let socket = socket.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => fail("its directory does not exist", error),
        io::ErrorKind::PermissionDenied => fail("no permission to write to its directory", error),
        _ => said(error),
    })?;
    let meta = fs::symlink_metadata(path).map_err(said)?;
    let text = Address::Unix(path.to_owned()).to_string();
    // Absolute, so that it is still ours to remove when the working directory has changed.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Ok(Listener {
        socket,
        bound: Bound::Unix(path),
        address: text,
        file: Some((meta.dev(), meta.ino())),
        owns_file: true,
    })
}

/// Drops a TCP segment that has SYN and not ACK: socket filters see the packet from the TCP header on, whose byte 13
/// has the flags (RFC 9293 §3.1).
fn drop_syn_filter() -> [SockFilter; 5] {
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// Whether a table as in proc(5), `/proc/net/tcp`, has a socket of that port in SYN_RECV.
fn has_syn_recv(table: &str, port: u16) -> Option<bool> {
    let mut table = BufReader::new(fs::File::open(table).ok()?);
    let local_port = format!(":{port:04X}");
    let mut line = String::new();
    while let Ok(1..) = table.read_line(&mut line) {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let local = columns.next().unwrap_or_default();
        if local.ends_with(&local_port) && columns.nth(1) == Some("03") {
            return Some(true);
        }
        line.clear();
    }
    Some(false)
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

    #[test]
    fn the_syn_table_is_read_by_port_and_state() {
        let path = std::env::temp_dir().join(format!("handover-syn-{}", std::process::id()));
        let line = "   0: 0100007F:22B8 0100007F:D431 03 00000000:00000000 01:00000064 00000000     0        0 0";
        fs::write(&path, format!("  sl  local_address rem_address   st\n{line}\n")).expect("a file");
        let table = path.to_str().expect("UTF-8");
        assert_eq!(has_syn_recv(table, 0x22b8), Some(true));
        assert_eq!(has_syn_recv(table, 0xd431), Some(false));
        fs::remove_file(&path).expect("the file");
        assert_eq!(has_syn_recv(table, 1), None);
    }
}
