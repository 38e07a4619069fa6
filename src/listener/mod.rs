//! Where connections come from: binding, and closing without resetting a client that has already connected.

mod address;
mod handshakes;
mod keeping;
mod spare;

pub use address::Address;
pub use keeping::{Kept, beyond_rights, keep_or_bind};

use crate::Error;
use rustix::io::{Errno, FdFlags};
use rustix::net::{Shutdown, SocketAddrAny, SocketFlags};
use socket2::{Domain, SockAddr, Socket, Type};
use spare::Spare;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

/// Connections that may wait in the kernel; it takes the smaller of this and `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Where a listener is bound. See the example of [`Server`](crate::Server).
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
    /// Only the listener has it for longer than a moment; see [`WeakListener`].
    socket: Arc<Socket>,
    /// By which it closes without resetting anyone, where there is one: on TCP, unless we are a successor of somebody
    /// who had none, or the kernel has refused it.
    spare: Option<Spare>,
    bound: Bound,
    /// As it is configured. [`OF_MANAGER`] if it never was.
    address: String,
    /// Device and inode of the socket file.
    file: Option<(u64, u64)>,
    /// Whether that one is ours to remove.
    owns_file: bool,
    /// What a predecessor had it as.
    origin: Option<Origin>,
    /// An address that is bound and does not listen yet takes no client from a listener that overlaps with it.
    listens: bool,
}

/// An inherited listener, as the predecessor knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its place among those that were inherited.
    pub place: u32,
    /// Its address as it was configured there.
    pub address: String,
}

/// What the main thread knows of a listener, which the acceptor owns and closes.
#[derive(Clone, Debug)]
pub struct WeakListener {
    /// As it was configured.
    pub address: String,
    /// Device and inode of its socket file.
    pub file: Option<(u64, u64)>,
    /// If it was inherited.
    pub origin: Option<Origin>,
    socket: Weak<Socket>,
    spare: Weak<Socket>,
}

/// The sockets of a listener, which stay open as long as somebody has these. Not for longer than to pass them on: the
/// acceptor could not close them.
pub struct Sockets {
    pub listener: Arc<Socket>,
    pub spare: Option<Arc<Socket>>,
}

impl WeakListener {
    /// Its sockets, if it is not closed.
    pub fn sockets(&self) -> Option<Sockets> {
        Some(Sockets { listener: self.socket.upgrade()?, spare: self.spare.upgrade() })
    }

    /// Where it is bound, if it is not closed.
    pub fn bound(&self) -> Option<Bound> {
        where_bound(&*self.socket.upgrade()?).ok()
    }

    /// See [`Listener::is_shared`].
    pub fn is_shared(&self) -> bool {
        self.address == OF_MANAGER
    }

    /// Whether both are the same listener.
    pub fn is_same(&self, other: &WeakListener) -> bool {
        self.socket.ptr_eq(&other.socket)
    }

    /// Whether it is that one.
    pub fn is_of(&self, listener: &Listener) -> bool {
        std::ptr::eq(self.socket.as_ptr(), Arc::as_ptr(&listener.socket))
    }
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
    /// Accepting itself is refused, and will be again.
    Refused(io::Error),
}

impl Listener {
    /// From here on it takes connections.
    ///
    /// # Errors
    /// Another one has come before us, since it was bound.
    pub fn listen(&mut self) -> Result<(), Error> {
        if self.listens {
            return Ok(());
        }
        self.socket.listen(BACKLOG).map_err(|error| match &self.bound {
            Bound::Tcp(address) => cannot_listen(*address, error),
            bound => {
                let why = error.to_string();
                Error::bind(format_args!("cannot listen on {bound}: {why}"), error)
            }
        })?;
        self.listens = true;
        Ok(())
    }

    /// A listener that a predecessor had bound. While that one may still serve, the socket file is its.
    pub fn inherit(
        fd: OwnedFd,
        spare: Option<OwnedFd>,
        file: Option<(u64, u64)>,
        owns_file: bool,
        origin: Origin,
    ) -> io::Result<Listener> {
        let socket = Socket::from(fd);
        socket.set_cloexec(true)?;
        let bound = where_bound(&socket)?;
        let spare = spare.and_then(|fd| {
            let inherited = Spare::inherit(fd, &socket);
            inherited.inspect_err(|error| log::warn!("an inherited spare socket of {bound}: {error}")).ok()
        });
        let address = origin.address.clone();
        let origin = Some(origin);
        Ok(Listener { socket: Arc::new(socket), spare, bound, address, file, owns_file, origin, listens: true })
    }

    /// A listener that the service manager bound and keeps.
    pub fn of_manager(socket: Socket) -> io::Result<Listener> {
        let bound = where_bound(&socket)?;
        Ok(Listener {
            socket: Arc::new(socket),
            spare: None,
            bound,
            address: OF_MANAGER.to_owned(),
            file: None,
            owns_file: false,
            origin: None,
            listens: true,
        })
    }

    /// Whether the service manager keeps a copy. Then a stop only closes ours: who connects from here on waits in the
    /// queue for the next start. A successor sees it by the address, and keeps it whatever its configuration says.
    pub fn is_shared(&self) -> bool {
        self.address == OF_MANAGER
    }

    /// Whether a predecessor had it, and may have it yet.
    pub fn is_inherited(&self) -> bool {
        self.origin.is_some()
    }

    /// Lets another of this user's be bound to a part of its addresses, or to more than them (SO_REUSEPORT, socket(7)).
    /// The kernel looks at it when the second is bound and when it begins to listen, so it can be set this late.
    fn let_beside(&self, on: bool) -> io::Result<()> {
        self.socket.set_reuse_port(on)?;
        self.spare.as_ref().map_or(Ok(()), |spare| spare.let_beside(on))
    }

    /// From here on nobody else is bound beside it: a second server is told that the address is in use. What stands
    /// beside it already goes on.
    pub fn stand_alone(&self) {
        if matches!(self.bound, Bound::Tcp(_))
            && !self.is_shared()
            && let Err(error) = self.let_beside(false)
        {
            log::debug!("{} may be bound a second time: {error}", self.bound);
        }
    }

    /// For whoever passes its sockets on to a successor.
    pub fn downgrade(&self) -> WeakListener {
        WeakListener {
            address: self.address.clone(),
            file: self.file,
            origin: self.origin.clone(),
            socket: Arc::downgrade(&self.socket),
            spare: self.spare.as_ref().map(Spare::downgrade).unwrap_or_default(),
        }
    }

    /// Device and inode of a Unix socket's file.
    pub fn file(&self) -> Option<(u64, u64)> {
        self.file
    }

    /// Where it listens.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Takes the next connection, non-blocking and close-on-exec.
    pub fn accept(&self) -> Accepted {
        match accept_from(&self.socket) {
            Ok((fd, peer)) => Accepted::Connection(fd, peer.and_then(to_std)),
            Err(Errno::AGAIN) => Accepted::Empty,
            // A Unix listener that was shut down says so once its queue is empty.
            Err(Errno::INVAL) if matches!(self.bound, Bound::Unix(_)) => Accepted::Empty,
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                Accepted::Exhausted(error.into())
            }
            // ECONNABORTED, and errors of the new connection that accept(2) passes on.
            Err(
                error @ (Errno::CONNABORTED
                | Errno::INTR
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::OPNOTSUPP
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::NONET
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH),
            ) => Accepted::Skipped(error.into()),
            Err(error) => Accepted::Refused(error.into()),
        }
    }

    /// First half of a close that resets nobody: no new handshakes from here on. What has connected already is still
    /// in the queue, and what is in the middle of a handshake still gets there.
    ///
    /// Only for the sole holder of the socket: with another holder alive it would blackhole that one's clients. So a
    /// shared one is left as it is.
    pub fn refuse_new(&mut self) {
        if self.is_shared() {
            return;
        }
        let result = match &self.bound {
            Bound::Tcp(_) => {
                let spared = self.give_to_spare();
                spared.or_else(|error| spare::drop_new(&self.socket).map_err(|_| error))
            }
            Bound::Unix(_) => {
                self.remove_file();
                rustix::net::shutdown(&self.socket, Shutdown::Read).map_err(io::Error::from)
            }
        };
        if let Err(error) = result {
            log::warn!("closing {}: clients that connect just now may be reset: {error}", self.bound);
        }
    }

    fn give_to_spare(&mut self) -> io::Result<()> {
        let mut spare = match self.spare.take() {
            Some(spare) => spare,
            // Our predecessor was of a version that had none. Now one can be bound only under conditions.
            None => {
                self.socket.set_reuse_port(true)?;
                Spare::beside(&self.socket)?
            }
        };
        // If it fails, the spare goes: half of the SYNs would be its.
        spare.take_new(&self.socket)?;
        self.spare = Some(spare);
        Ok(())
    }

    /// Second half: closes it. Answers who came in meanwhile all the same.
    pub fn close(mut self) -> Vec<(OwnedFd, SocketAddr)> {
        let spare = self.spare.take();
        drop(self);
        spare.map(Spare::strangers).unwrap_or_default()
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
            Bound::Tcp(address) => handshakes::under_way(*address),
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
            log::warn!("cannot remove {}: {error}", path.display());
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

/// Non-blocking and close-on-exec.
fn accept_from(socket: &Socket) -> Result<(OwnedFd, Option<SocketAddrAny>), Errno> {
    match rustix::net::acceptfrom_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        // A sandbox that does not know it. A program that is started just then may inherit the connection.
        Err(Errno::NOSYS | Errno::PERM) => {
            let (fd, peer) = rustix::net::acceptfrom(socket)?;
            rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&fd, true)?;
            Ok((fd, peer))
        }
        other => other,
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

/// Binds, and does not listen. `beside` another one that overlaps, which lets it.
fn bind_tcp(address: SocketAddr, text: &str, beside: bool) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_reuse_address(true)?;
    if beside {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // So that `0.0.0.0:80` and `[::]:80` can stand beside each other, whatever bindv6only says.
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit it on Linux, which saves a call for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    // While nobody listens the kernel lets a second one beside it.
    let spare = Spare::beside(&socket);
    let spare = spare.inspect_err(|error| log::debug!("no spare socket for {address}: {error}")).ok();
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Listener {
        socket: Arc::new(socket),
        spare,
        bound: Bound::Tcp(bound),
        address: text.to_owned(),
        file: None,
        owns_file: false,
        origin: None,
        listens: false,
    })
}

/// Whether this host has no such address.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

fn cannot_listen(address: SocketAddr, error: io::Error) -> Error {
    let unzoned = matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0);
    let help = match error.kind() {
        io::ErrorKind::AddrInUse => "address in use; stop the other server or listen on another port with -l",
        io::ErrorKind::PermissionDenied => {
            "no permission; ports below net.ipv4.ip_unprivileged_port_start need root or CAP_NET_BIND_SERVICE, and a \
             restart where the server has become another user"
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this host has that address",
        _ if unzoned => "a link-local address needs its interface: [fe80::1%eth0]:80",
        _ if error.raw_os_error() == Some(libc::ENODEV) => "this host has no interface of that number",
        _ => &error.to_string(),
    };
    Error::bind(format_args!("cannot listen on {address}: {help}"), error)
}

fn bind_unix(path: &Path) -> Result<Listener, Error> {
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
        // At once: until then anybody may take the path for one that was left behind, and nobody was there before.
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
            log::info!("replacing {}, a socket that nobody listens on", path.display());
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
        socket: Arc::new(socket),
        spare: None,
        bound: Bound::Unix(path),
        address: text,
        file: Some((meta.dev(), meta.ino())),
        owns_file: true,
        origin: None,
        listens: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    fn bind(address: &str) -> Vec<Listener> {
        let Kept { mut listeners, .. } =
            keep_or_bind(&[address.parse().expect("an address")], Vec::new(), false).expect("a listener");
        listeners.iter_mut().for_each(|listener| listener.listen().expect("an address that is ours"));
        listeners
    }

    fn origin(address: &str) -> Origin {
        Origin { place: 0, address: address.to_owned() }
    }

    fn tcp(listener: &Listener) -> SocketAddr {
        match listener.bound() {
            Bound::Tcp(address) => *address,
            Bound::Unix(path) => panic!("{path:?}"),
        }
    }

    #[test]
    fn after_the_end_of_handshakes_who_has_connected_is_there_and_nobody_else_connects() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let mut listener = bind(address).remove(0);
            let mut to = tcp(&listener);
            to.set_ip([127, 0, 0, 1].into());
            let client = TcpStream::connect(to).expect("a connection");
            listener.refuse_new();
            let late = TcpStream::connect_timeout(&to, Duration::from_millis(100)).expect_err("it is too late");
            assert_eq!(late.kind(), io::ErrorKind::TimedOut, "neither connected nor refused");
            let taken = TcpListener::bind(to).expect_err("it is not closed yet");
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
            let Accepted::Connection(_, peer) = listener.accept() else { panic!("who has connected is lost") };
            assert_eq!(peer, client.local_addr().ok());
            assert!(matches!(listener.accept(), Accepted::Empty));
            assert_eq!(listener.close().len(), 0, "our own connection is no client");
            let closed = TcpStream::connect(to).expect_err("nobody listens");
            assert_eq!(closed.kind(), io::ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn a_spare_socket_of_another_listener_is_not_inherited() {
        let (mut one, mut other) = (bind("127.0.0.1:0").remove(0), bind("127.0.0.1:0").remove(0));
        let spares = [&mut one, &mut other].map(|listener| {
            let spare = listener.spare.take().expect("a spare socket");
            rustix::io::dup(&spare).expect("a descriptor")
        });
        let [ours, theirs] = spares;
        let inherit = |spare| {
            let fd = rustix::io::dup(&one).expect("a descriptor");
            Listener::inherit(fd, Some(spare), None, true, origin("127.0.0.1:0")).expect("a listener")
        };
        assert!(inherit(ours).spare.is_some());
        assert!(inherit(theirs).spare.is_none());
        let listening = rustix::io::dup(&one).expect("a descriptor");
        assert!(inherit(listening).spare.is_none());
    }

    /// EINVAL is what a socket says that does not listen, for one; it would be asked again at once, and for ever.
    #[test]
    fn accepting_that_does_not_work_is_not_an_empty_queue() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("an address");
        let listener = Listener::inherit(socket.into(), None, None, true, origin("")).expect("a listener");
        let accepted = listener.accept();
        assert!(matches!(accepted, Accepted::Refused(_)), "{accepted:?}");
    }

    #[test]
    fn a_link_local_address_without_its_interface_is_told_what_it_lacks() {
        let listen = |text: &str| {
            let error = keep_or_bind(&[text.parse().expect(text)], Vec::new(), false).expect_err(text);
            assert!(error.is_bind(), "{error}");
            error.to_string()
        };
        if let Err(error) = TcpListener::bind("[::1]:0") {
            eprintln!("skipped: IPv6, which this machine has not: {error}");
            return;
        }
        let unzoned = listen("[fe80::4711]:0");
        assert!(unzoned.ends_with("a link-local address needs its interface: [fe80::1%eth0]:80"), "{unzoned}");
        let unknown = listen("[fe80::4711%4711]:0");
        assert!(unknown.ends_with("this host has no interface of that number"), "{unknown}");
    }
}
