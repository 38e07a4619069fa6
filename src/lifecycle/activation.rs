//! Socket activation: listeners that the service manager bound and keeps, by the protocol of sd_listen_fds(3).

use crate::Error;
use crate::listener::Listener;
use crate::sys::descriptors::{Refused, own_inherited};
use http1::number::decimal;
use socket2::{Domain, Socket, Type};
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the descriptors begin: `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;
/// More is a mistake; nobody has that many listeners.
const MOST: usize = 1024;

/// Whether the descriptors have been taken. They are this process's once.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The listeners that the service manager passed to this process by `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES`;
/// none without a manager, none when another process is meant, and none the second time. They are
/// [shared](Listener::is_shared).
///
/// The environment stays as it is. Children see another pid in it than their own and leave it alone, but a successor in
/// `exec` mode has our pid, so it must not get these variables.
///
/// # Errors
/// A configuration error for a malformed variable, and for a descriptor that is not a listening stream socket.
pub fn inherited_from_env() -> Result<Vec<Listener>, Error> {
    let passed = passed(|name| env::var_os(name), std::process::id())?;
    if passed.is_empty() || TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let numbers: Vec<RawFd> = passed.iter().map(|passed| passed.fd).collect();
    let owned = own_inherited(&numbers).map_err(|Refused { number, why }| {
        let name = passed.iter().find(|passed| passed.fd == number).map_or("", |passed| &passed.name);
        refused(number, name, &why)
    })?;
    let mut listeners = Vec::new();
    for (Passed { fd, name }, owned) in passed.into_iter().zip(owned) {
        listeners.push(adopt(owned).map_err(|why| refused(fd, &name, &why))?);
        log::info!("the service manager passed {} ({name:?})", listeners[listeners.len() - 1].bound());
    }
    Ok(listeners)
}

#[derive(Debug, PartialEq, Eq)]
struct Passed {
    fd: RawFd,
    name: String,
}

/// What the variables say.
fn passed(var: impl Fn(&str) -> Option<OsString>, own_pid: u32) -> Result<Vec<Passed>, Error> {
    let (Some(pid), Some(count)) = (var("LISTEN_PID"), var("LISTEN_FDS")) else { return Ok(Vec::new()) };
    let malformed = |name: &str, value: &OsStr, allowed: &str| {
        Error::config(format_args!("{name} is {value:?}, allowed is {allowed}: it is the service manager's to set"))
    };
    let Some(meant) = pid.to_str().and_then(decimal::<u64>) else { return Err(malformed("LISTEN_PID", &pid, "a pid")) };
    if meant != u64::from(own_pid) {
        return Ok(Vec::new());
    }
    let Some(count) = count.to_str().and_then(decimal).filter(|&count| count <= MOST) else {
        return Err(malformed("LISTEN_FDS", &count, &format!("a number of descriptors, 0 to {MOST}")));
    };
    let names: Vec<String> = match var("LISTEN_FDNAMES") {
        Some(names) => names.to_string_lossy().split(':').map(str::to_owned).collect(),
        // As sd_listen_fds_with_names(3) calls them.
        None => vec!["unknown".to_owned(); count],
    };
    if names.len() != count && count > 0 {
        return Err(Error::config(format_args!("LISTEN_FDNAMES has {} names for {count} descriptors", names.len())));
    }
    Ok(names.into_iter().take(count).zip(FIRST..).map(|(name, fd)| Passed { fd, name }).collect())
}

fn describe(error: io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOTSOCK) => "it is not a socket".to_owned(),
        _ => error.to_string(),
    }
}

/// Makes a descriptor a listener, or says why it is none.
fn adopt(fd: OwnedFd) -> Result<Listener, String> {
    let socket = Socket::from(fd);
    if socket.r#type().map_err(describe)? != Type::STREAM {
        return Err("it is not a stream socket; use ListenStream=".to_owned());
    }
    let domain = socket.domain().map_err(describe)?;
    if ![Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&domain) {
        return Err("it is neither an IPv4, IPv6 nor Unix socket".to_owned());
    }
    if !socket.is_listener().map_err(describe)? {
        return Err("it does not listen; use Accept=no".to_owned());
    }
    let prepare = || -> io::Result<Listener> {
        // The manager clears it so that it survives its execve; nothing that we start may get it.
        socket.set_cloexec(true)?;
        // On the description that the manager shares. It only polls it, so this is no surprise to anyone.
        socket.set_nonblocking(true)?;
        if domain != Domain::UNIX {
            // Accepted sockets inherit it on Linux.
            socket.set_tcp_nodelay(true)?;
        }
        Listener::of_manager(socket)
    };
    prepare().map_err(describe)
}

fn refused(fd: RawFd, name: &str, why: &str) -> Error {
    Error::config(format_args!("cannot listen on descriptor {fd} ({name:?}) from the service manager: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::{Accepted, Bound};
    use std::fs::File;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    const OWN_PID: u32 = 4711;

    fn read(vars: &[(&str, &str)]) -> Result<Vec<Passed>, Error> {
        passed(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()), OWN_PID)
    }

    #[test]
    fn descriptors_are_for_the_process_that_is_meant() {
        for vars in [
            &[][..],
            &[("LISTEN_FDS", "1")],
            &[("LISTEN_PID", "4711")],
            &[("LISTEN_FDS", "1"), ("LISTEN_PID", "4712")],
            &[("LISTEN_FDS", "nonsense"), ("LISTEN_PID", "4712")],
            &[("LISTEN_FDS", "0"), ("LISTEN_PID", "4711")],
            &[("LISTEN_FDS", "0"), ("LISTEN_PID", "4711"), ("LISTEN_FDNAMES", "")],
        ] {
            assert_eq!(read(vars).expect("not for us"), [], "{vars:?}");
        }
        let two = read(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "4711")]).expect("two");
        let unknown = || "unknown".to_owned();
        assert_eq!(two, [Passed { fd: 3, name: unknown() }, Passed { fd: 4, name: unknown() }]);
        let named = read(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "4711"), ("LISTEN_FDNAMES", "web:")]).expect("two");
        assert_eq!(named[0], Passed { fd: 3, name: "web".to_owned() });
        assert_eq!(named[1], Passed { fd: 4, name: String::new() });
    }

    #[test]
    fn malformed_variables_are_configuration_errors() {
        for (vars, says) in [
            (&[("LISTEN_FDS", "x"), ("LISTEN_PID", "4711")][..], "LISTEN_FDS is \"x\", allowed is"),
            (&[("LISTEN_FDS", "+1"), ("LISTEN_PID", "4711")], "LISTEN_FDS is \"+1\""),
            (&[("LISTEN_FDS", "1025"), ("LISTEN_PID", "4711")], "0 to 1024"),
            (&[("LISTEN_FDS", "1"), ("LISTEN_PID", "self")], "LISTEN_PID is \"self\", allowed is a pid"),
            (
                &[("LISTEN_FDS", "2"), ("LISTEN_PID", "4711"), ("LISTEN_FDNAMES", "one")],
                "LISTEN_FDNAMES has 1 names for 2 descriptors",
            ),
        ] {
            let error = read(vars).expect_err("malformed");
            assert!(error.is_config() && error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn listening_stream_sockets_of_each_family_are_adopted() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let name = format!("handover-activation-{}", std::process::id());
        let path = env::temp_dir().join(&name);
        let unix = UnixListener::bind(&path).expect("a listener");
        let abstract_name = SocketAddr::from_abstract_name(&name).expect("a name");
        let anonymous = UnixListener::bind_addr(&abstract_name).expect("a listener");
        let expected = [
            Bound::Tcp(tcp.local_addr().expect("its address")),
            Bound::Unix(path.clone()),
            Bound::Unix(format!("@{name}").into()),
        ];
        for (fd, bound) in [OwnedFd::from(tcp), unix.into(), anonymous.into()].into_iter().zip(expected) {
            let listener = adopt(fd).expect("a listener");
            assert_eq!(listener.bound(), &bound);
            assert!(listener.is_shared());
            // Without O_NONBLOCK this would wait for ever.
            assert!(matches!(listener.accept(), Accepted::Empty));
            assert!(rustix::io::fcntl_getfd(&listener).expect("flags").contains(rustix::io::FdFlags::CLOEXEC));
            assert_eq!(listener.has_handshakes(), Some(false));
            drop(listener);
        }
        assert!(path.exists(), "the manager's path is the manager's to remove");
        std::fs::remove_file(path).expect("tidy up");
    }

    #[test]
    fn a_shared_listener_is_not_refused_to_the_one_that_keeps_it() {
        let kept = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let mut listener = adopt(kept.try_clone().expect("a copy").into()).expect("a listener");
        listener.refuse_new();
        drop(listener);
        kept.set_nonblocking(false).expect("blocking again");
        let client = TcpStream::connect(kept.local_addr().expect("its address")).expect("no filter is in the way");
        assert_eq!(kept.accept().expect("the connection").1, client.local_addr().expect("its address"));
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        let unconnected = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (connected, _other) = UnixStream::pair().expect("a pair");
        let file = File::open("/dev/null").expect("a file");
        for (fd, says) in [
            (OwnedFd::from(unconnected), "does not listen"),
            (datagrams.into(), "not a stream socket"),
            (connected.into(), "does not listen"),
            (file.into(), "not a socket"),
        ] {
            let why = adopt(fd).expect_err(says);
            assert!(why.contains(says), "{why}");
        }
    }
}
