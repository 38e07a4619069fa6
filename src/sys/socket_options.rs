//! Options of sockets, and a question to them, for which no crate has a method (socket(7), ip(7), ipv6(7), tcp(7)).

use socket2::SockFilter;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Lets that program choose among the sockets of a group: SO_ATTACH_REUSEPORT_CBPF (socket(7)), since Linux 4.5. An
/// error on older ones, for a socket that is in no group, and for a program that the kernel does not take.
pub fn choose_by(socket: impl AsFd, program: &[SockFilter]) -> io::Result<()> {
    /// As in asm-generic/socket.h, for every architecture that Rust knows but sparc.
    const SO_ATTACH_REUSEPORT_CBPF: libc::c_int = if cfg!(target_arch = "sparc64") { 0x35 } else { 51 };
    // Longer than any that the kernel takes, and never more than there are.
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog {
        len: length,
        // The kernel only reads it. SockFilter is a transparent wrapper.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the value points to as many instructions as it says, which are borrowed until the call has returned.
    unsafe { setsockopt(socket, libc::SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program) }
}

/// Lets nobody in whose packets are not signed, and so nobody: whoever does sign knows no key of ours. TCP_MD5SIG_EXT
/// (linux/tcp.h), since Linux 4.14. An error on older ones, and on kernels built without such signatures.
pub fn want_signatures(socket: impl AsFd, v4: bool) -> io::Result<()> {
    /// struct tcp_md5sig in linux/tcp.h.
    #[repr(C)]
    struct Signature {
        family: libc::sa_family_t,
        address: [u8; 126],
        flags: u8,
        prefix: u8,
        key_length: u16,
        interface: libc::c_int,
        key: [u8; 80],
    }
    const FLAG_PREFIX: u8 = 1;
    let family = if v4 { libc::AF_INET } else { libc::AF_INET6 } as libc::sa_family_t;
    // Of every address: a prefix of no bit.
    let signature = Signature {
        family,
        address: [0; 126],
        flags: FLAG_PREFIX,
        prefix: 0,
        key_length: 80,
        interface: 0,
        key: std::array::from_fn(|_| RandomState::new().hash_one(()) as u8),
    };
    // SAFETY: it is laid out as the kernel's and points to nothing; its first field is a sockaddr_storage, of 128 bytes.
    unsafe { setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG_EXT, &signature) }
}

/// Drops packets that come with less than this TTL: IP_MINTTL (ip(7)), since Linux 2.6.34. An error where that is unknown.
pub fn want_ttl_v4(socket: impl AsFd, least: u8) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, least.into())
}

/// The same for IPv6: IPV6_MINHOPCOUNT (linux/in6.h), since Linux 2.6.35. An error for a socket of IPv4.
pub fn want_hops_v6(socket: impl AsFd, least: u8) -> io::Result<()> {
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, least.into())
}

/// Lets handshakes go on until the client has sent something, for some seconds: TCP_DEFER_ACCEPT (tcp(7)), of every Linux.
#[cfg(test)]
pub fn defer_accept(socket: impl AsFd, seconds: u8) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds.into())
}

/// Bytes that the peer has not yet acknowledged: SIOCOUTQ (tcp(7), unix(7)), of every Linux. An error for what is no
/// socket; a sandbox that refuses it cannot tell a slow reader from one that reads nothing.
pub fn unsent(socket: impl AsFd) -> io::Result<u64> {
    const SIOCOUTQ: rustix::ioctl::Opcode = libc::TIOCOUTQ as rustix::ioctl::Opcode;
    // SAFETY: SIOCOUTQ writes one int through the pointer, which is what `Getter` gives it, and so does what has the same
    // number for a terminal or a serial line (TIOCOUTQ).
    let queued = unsafe {
        let getter = rustix::ioctl::Getter::<SIOCOUTQ, libc::c_int>::new();
        rustix::ioctl::ioctl(socket, getter)?
    };
    Ok(queued.max(0) as u64)
}

fn set(socket: impl AsFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: a number points to nothing.
    unsafe { setsockopt(socket, level, name, &value) }
}

/// # Safety
/// What the value points to has to be as the option wants it.
unsafe fn setsockopt<T>(socket: impl AsFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads that many bytes of a value that is borrowed; for the rest the caller has promised.
    match unsafe { libc::setsockopt(socket, level, name, (&raw const *value).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
