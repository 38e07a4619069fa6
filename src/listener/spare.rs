//! A listener's spare socket, by which it stops taking handshakes. That needs no privilege.
//!
//! It is bound to the same address before the listener listens, and does nothing until the stop. Then both become a
//! group (SO_REUSEPORT) in which a program says who gets a packet: each new SYN goes to the spare, which drops it because
//! it is not signed (TCP_MD5SIG, RFC 2385). Handshakes that have begun end on the listener, which is drained and closed.
//! Who was dropped tries again a second later, as TCP does, and is refused.
//!
//! Where the kernel is built without such signatures, the spare wants the highest TTL that there is, and a connection of
//! our own fills its queue. Only a client next to us that sends with that TTL, in the moment before, may still be reset.
//!
//! A socket filter on the listener (SO_ATTACH_FILTER) does the same alone, and was what did it; but newer kernels want
//! CAP_NET_ADMIN for one.

use crate::sys::socket_options::{choose_by, want_hops_v6, want_signatures, want_ttl_v4};
use rustix::net::SocketFlags;
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

/// What a packet's TTL is where it has passed no router, and has begun with the most there is.
const MOST_HOPS: u8 = 255;

/// A socket that is bound where a listener is.
#[derive(Debug)]
pub struct Spare {
    socket: Arc<Socket>,
    /// The connection that fills its queue.
    own: Option<Socket>,
}

impl Spare {
    /// Bound where `listener` is, which does not listen yet. With its SO_REUSEPORT set it may, if the port is one that
    /// we may bind now, and the user has not changed since the listener was made.
    pub fn beside(listener: &Socket) -> io::Result<Spare> {
        let address = listener.local_addr()?;
        let domain = address.domain();
        let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(listener.reuse_port()?)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(listener.only_v6()?)?;
        }
        socket.bind(&address)?;
        Ok(Spare { socket: Arc::new(socket), own: None })
    }

    /// The one that a predecessor has bound, if it is what it should be.
    pub fn inherit(fd: OwnedFd, listener: &Socket) -> io::Result<Spare> {
        let socket = Socket::from(fd);
        socket.set_cloexec(true)?;
        let belongs =
            socket.local_addr()?.as_socket() == listener.local_addr()?.as_socket() && !socket.is_listener()?;
        match belongs {
            true => Ok(Spare { socket: Arc::new(socket), own: None }),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no spare socket of this listener")),
        }
    }

    /// See [`Listener::stand_alone`](super::Listener::stand_alone).
    pub fn let_beside(&self, on: bool) -> io::Result<()> {
        self.socket.set_reuse_port(on)
    }

    #[cfg(test)]
    pub fn listens(&self) -> bool {
        self.socket.is_listener().unwrap_or(false)
    }

    /// For whoever passes it on to a successor.
    pub fn downgrade(&self) -> Weak<Socket> {
        Arc::downgrade(&self.socket)
    }

    /// From here on every new SYN comes to us and is dropped. For the sole holder of both sockets, and once.
    pub fn take_new(&mut self, listener: &Socket) -> io::Result<()> {
        let Some(bound) = listener.local_addr()?.as_socket() else { return Err(io::ErrorKind::Unsupported.into()) };
        // So late, because a second server could join the group, and would not be told that the address is in use.
        listener.set_reuse_port(true)?;
        self.socket.set_reuse_port(true)?;
        let signed = want_signatures(&self.socket, bound.is_ipv4());
        if let Err(error) = &signed {
            log::debug!("no signatures for {bound}, but a queue that is full: {error}");
            // Who comes in before our own connection does is served (`strangers`), so this may be refused.
            let _ = match bound {
                SocketAddr::V4(_) => want_ttl_v4(&self.socket, MOST_HOPS),
                SocketAddr::V6(_) => want_hops_v6(&self.socket, MOST_HOPS),
            };
        }
        // A queue of 0 takes one connection.
        self.socket.listen(0)?;
        choose_by(&self.socket, if bound.is_ipv4() { &V4 } else { &V6 })?;
        if signed.is_err() {
            let own = connect(bound);
            // Without a loopback interface, for one; few come as close as the TTL wants it.
            self.own = own.inspect_err(|error| log::debug!("no connection of our own to {bound}: {error}")).ok();
        }
        Ok(())
    }

    /// Who came in here beside ourselves. The listener is closed by now.
    pub fn strangers(self) -> Vec<(OwnedFd, SocketAddr)> {
        let ourselves = self.own.as_ref().and_then(|own| own.local_addr().ok()?.as_socket());
        let mut strangers = Vec::new();
        while let Ok((fd, peer)) =
            rustix::net::acceptfrom_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        {
            let Some(peer) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) else { continue };
            if Some(peer) != ourselves {
                // Inherited, and their way here may change.
                let _ = want_ttl_v4(&fd, 0);
                let _ = want_hops_v6(&fd, 0);
                strangers.push((fd, peer));
            }
        }
        strangers
    }
}

impl AsFd for Spare {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Begins a connection to a listener of this host. Over loopback it is there at once.
fn connect(bound: SocketAddr) -> io::Result<Socket> {
    let mut to = bound;
    if bound.ip().is_unspecified() {
        to.set_ip(match bound {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking().cloexec(), None)?;
    match to {
        SocketAddr::V4(_) => socket.set_ttl_v4(MOST_HOPS.into())?,
        SocketAddr::V6(_) => socket.set_unicast_hops_v6(MOST_HOPS.into())?,
    }
    match socket.connect(&SockAddr::from(to)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Of the group's sockets 0 is the listener, which was there first, and 1 the spare: that one gets what has SYN and not
/// ACK (RFC 9293 §3.1). The rest is of handshakes that have begun; the kernel asks for it where it keeps none of them,
/// and the client brings its cookie.
///
/// The packet is seen from behind its TCP header on; the IP header is found by an offset of its own.
const V4: [SockFilter; 6] = [
    SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, IP_HEADER),
    SockFilter::new(LOAD_BYTE_BEHIND, 0, 0, IP_HEADER + TCP_FLAGS),
    SockFilter::new(AND, 0, 0, SYN | ACK),
    SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
    SockFilter::new(RETURN, 0, 0, 1),
    SockFilter::new(RETURN, 0, 0, 0),
];

/// The same for IPv6. Behind an extension header, which no client sends, a packet counts as a SYN.
const V6: [SockFilter; 7] = [
    SockFilter::new(LOAD_BYTE, 0, 0, IP_HEADER + 6),
    SockFilter::new(JUMP_IF_EQUAL, 0, 3, libc::IPPROTO_TCP as u32),
    SockFilter::new(LOAD_BYTE, 0, 0, IP_HEADER + 40 + TCP_FLAGS),
    SockFilter::new(AND, 0, 0, SYN | ACK),
    SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
    SockFilter::new(RETURN, 0, 0, 1),
    SockFilter::new(RETURN, 0, 0, 0),
];

/// Drops a TCP segment that has SYN and not ACK: socket filters see the packet from the TCP header on.
const DROP_SYN: [SockFilter; 5] = [
    SockFilter::new(LOAD_BYTE, 0, 0, TCP_FLAGS),
    SockFilter::new(AND, 0, 0, SYN | ACK),
    SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
    SockFilter::new(RETURN, 0, 0, 0),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
];

const LOAD_BYTE: u16 = 0x30;
const LOAD_BYTE_BEHIND: u16 = 0x50;
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// SKF_NET_OFF.
const IP_HEADER: u32 = -0x10_0000_i32 as u32;
const TCP_FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

/// What needs a privilege on newer kernels: the listener itself drops new SYNs.
pub fn drop_new(listener: &Socket) -> io::Result<()> {
    listener.attach_filter(&DROP_SYN)
}
