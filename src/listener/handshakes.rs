//! Handshakes that have begun and not ended: who is in one has no connection yet, and would be reset by a close.

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};

/// TCP_SYN_RECV in include/net/tcp_states.h.
const SYN_RECV: u8 = 3;

/// Whether one with that address is under way; `None` where the kernel does not tell. One of all addresses has those of
/// each, also of a listener for one of them beside it.
pub fn under_way(bound: SocketAddr) -> Option<bool> {
    // The table is of every socket on the host as text: with 15,000 of them that takes 40 ms, and this 5.
    ask(bound).ok().or_else(|| {
        let table = if bound.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
        has_syn_recv(table, bound)
    })
}

/// By sock_diag(7): only sockets in that state are listed. Some kernels are built without it, some sandboxes refuse it.
fn ask(bound: SocketAddr) -> io::Result<bool> {
    const LENGTH: usize = 16 + 56;
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_DUMP: u16 = 0x301;
    let family = if bound.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let netlink = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    // struct nlmsghdr, then struct inet_diag_req_v2, of which the rest is for a single socket.
    let mut request = Vec::with_capacity(LENGTH);
    request.extend((LENGTH as u32).to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family.as_raw() as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    request.extend((1u32 << SYN_RECV).to_ne_bytes());
    request.resize(LENGTH, 0);
    rustix::net::send(&netlink, &request, SendFlags::empty())?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        // The kernel makes the next part while it is asked for, so there is nothing to wait for.
        let (length, _) = rustix::net::recv(&netlink, &mut buffer[..], RecvFlags::DONTWAIT)?;
        match read(&buffer[..length], bound) {
            Part::Found => return Ok(true),
            Part::End => return Ok(false),
            Part::Nothing => {}
            Part::Refused => return Err(Errno::OPNOTSUPP.into()),
        }
    }
}

/// What one packet of the answer says.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Found,
    Nothing,
    End,
    Refused,
}

fn read(mut packet: &[u8], bound: SocketAddr) -> Part {
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    while let Some((header, _)) = packet.split_at_checked(16) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        match u16::from_ne_bytes([header[4], header[5]]) {
            DONE => return Part::End,
            ERROR => return Part::Refused,
            _ => {}
        }
        // struct inet_diag_msg: four bytes, of which the second is the state, the ports, and the local address, of sixteen
        // bytes whatever its family. In network order.
        let Some(&[_, SYN_RECV, _, _, high, low, _, _, ref local @ ..]) = packet.get(16..40).filter(|_| length >= 40)
        else {
            return Part::Refused;
        };
        if u16::from_be_bytes([high, low]) == bound.port() && is_local(bound, local) {
            return Part::Found;
        }
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Part::Nothing
}

/// Whether a socket with that local address is one of a listener that is bound so.
fn is_local(bound: SocketAddr, local: &[u8]) -> bool {
    match bound.ip() {
        ip if ip.is_unspecified() => true,
        IpAddr::V4(ip) => local.starts_with(&ip.octets()),
        IpAddr::V6(ip) => local.starts_with(&ip.octets()),
    }
}

/// Whether a table as in proc(5), `/proc/net/tcp`, has a socket of that address in SYN_RECV.
fn has_syn_recv(table: &str, bound: SocketAddr) -> Option<bool> {
    let mut table = BufReader::new(fs::File::open(table).ok()?);
    let port = format!(":{:04X}", bound.port());
    let octets = match bound.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    // Numbers of 32 bits, as this host has them in memory.
    let numbers = octets.chunks(4).map(|four| u32::from_ne_bytes([four[0], four[1], four[2], four[3]]));
    let address: String = numbers.map(|number| format!("{number:08X}")).collect();
    let is_ours =
        |local: &str| local.strip_suffix(&port).is_some_and(|local| bound.ip().is_unspecified() || local == address);
    let mut line = String::new();
    while let Ok(1..) = table.read_line(&mut line) {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let local = columns.next().unwrap_or_default();
        if is_ours(local) && columns.nth(1) == Some("03") {
            return Some(true);
        }
        line.clear();
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket_options::defer_accept;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_syn_table_is_read_by_port_and_state() {
        let path = std::env::temp_dir().join(format!("handover-syn-{}", std::process::id()));
        let line = "   0: 0100007F:22B8 0100007F:D431 03 00000000:00000000 01:00000064 00000000     0        0 0";
        fs::write(&path, format!("  sl  local_address rem_address   st\n{line}\n")).expect("a file");
        let table = path.to_str().expect("UTF-8");
        let at = |ip: [u8; 4], port: u16| has_syn_recv(table, SocketAddr::from((ip, port)));
        // As a host with the low byte first writes it.
        if cfg!(target_endian = "little") {
            assert_eq!(at([127, 0, 0, 1], 0x22b8), Some(true));
            assert_eq!(at([127, 0, 0, 2], 0x22b8), Some(false));
        }
        assert_eq!(at([0; 4], 0x22b8), Some(true));
        assert_eq!(at([0; 4], 0xd431), Some(false));
        fs::remove_file(&path).expect("the file");
        assert_eq!(at([0; 4], 1), None);
    }

    /// By TCP_DEFER_ACCEPT the handshake goes on until the client has sent something.
    #[test]
    fn a_handshake_is_seen_until_it_has_ended() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = match TcpListener::bind(address) {
                Ok(listener) => listener,
                Err(error) => {
                    eprintln!("skipped: {address}, which this machine has not: {error}");
                    continue;
                }
            };
            let bound = listener.local_addr().expect("its address");
            let table = if bound.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
            let seen = || {
                let asked = ask(bound).inspect_err(|error| eprintln!("skipped: sock_diag, which is not here: {error}"));
                (has_syn_recv(table, bound), asked.ok(), under_way(bound))
            };
            let everywhere = |holds| (Some(holds), ask(bound).ok().map(|_| holds), Some(holds));
            defer_accept(&listener, 30).expect("an option of every kernel");
            assert_eq!(seen(), everywhere(false));
            let mut client = TcpStream::connect(bound).expect("a connection");
            assert_eq!(seen(), everywhere(true));
            client.write_all(b"x").expect("a byte");
            listener.accept().expect("the connection");
            assert_eq!(seen(), everywhere(false));
        }
    }

    #[test]
    fn an_answer_that_is_cut_or_an_error_is_no_answer() {
        let mut entry = vec![72, 0, 0, 0, 20, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, SYN_RECV, 0, 0, 0x22, 0xb8];
        if cfg!(target_endian = "big") {
            entry[..8].copy_from_slice(&[0, 0, 0, 72, 0, 20, 0, 2]);
        }
        entry.resize(72, 0);
        entry[24..28].copy_from_slice(&[127, 0, 0, 1]);
        let [bound, all, other_port] =
            [([127, 0, 0, 1], 0x22b8), ([0; 4], 0x22b8), ([127, 0, 0, 1], 0x22b9)].map(SocketAddr::from);
        assert_eq!(read(&entry, bound), Part::Found);
        assert_eq!(read(&entry, all), Part::Found);
        assert_eq!(read(&entry, SocketAddr::from(([127, 0, 0, 2], 0x22b8))), Part::Nothing);
        assert_eq!(read(&entry, other_port), Part::Nothing);
        assert_eq!(read(&[&entry[..], &entry].concat(), other_port), Part::Nothing);
        assert_eq!(read(&entry[..20], bound), Part::Refused);
        let kind = if cfg!(target_endian = "big") { 5 } else { 4 };
        for (number, part) in [(2, Part::Refused), (3, Part::End)] {
            entry[kind] = number;
            assert_eq!(read(&entry, bound), part);
        }
    }
}
