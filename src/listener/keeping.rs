//! Which listeners go on at a reload: those that are bound to what the configuration names, however it is spelled there.
//!
//! What is compared is a socket's address, or device and inode of a socket file. A name stands for several sockets, each
//! of which is kept, bound or left alone. What overlaps with one that goes (`127.0.0.1:80` and `0.0.0.0:80`) is bound beside
//! it, so that nobody is without the one before the other serves.

use super::{Address, Bound, Listener, bind_tcp, bind_unix, cannot_listen, is_missing};
use crate::Error;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What has become of the inherited listeners, and what is new.
#[derive(Debug, Default)]
pub struct Kept {
    /// In the order of the configuration. New ones are bound, and may not [`listen`](Listener::listen) yet.
    pub listeners: Vec<Listener>,
    /// Those that the configuration does not name any more. They listen as before.
    pub obsolete: Vec<Listener>,
}

/// One address of the configuration.
struct Wanted<'a> {
    address: &'a Address,
    text: String,
    resolved: Vec<SocketAddr>,
    listeners: Vec<Listener>,
}

/// Keeps the inherited listeners that the configuration still names, binds the others, and answers which have become
/// obsolete. Where the service manager passed listeners it decides, and the configuration's are not bound.
///
/// `forgiving`: what cannot be bound is left out, with a line in the log, and what it was to take the place of stays.
///
/// # Errors
/// An address that cannot be resolved or bound, unless this is forgiving. Some of what was inherited may let others be
/// bound beside it then ([`Listener::stand_alone`]).
pub fn keep_or_bind(addresses: &[Address], mut inherited: Vec<Listener>, forgiving: bool) -> Result<Kept, Error> {
    let of_manager: Vec<Listener> = inherited.extract_if(.., |listener| listener.is_shared()).collect();
    if !of_manager.is_empty() {
        log::info!("the listeners are the service manager's, not those of the configuration");
        return Ok(Kept { listeners: of_manager, obsolete: inherited });
    }
    let mut all = Vec::new();
    for address in addresses {
        match Wanted::find(address, &mut inherited) {
            Ok(wanted) => all.push(wanted),
            Err(error) if forgiving => log::error!("{error}; serving without it"),
            Err(error) => return Err(error),
        }
    }
    // Behind the others: the port that was taken for one of these may be named by now.
    for wanted in all.iter_mut().filter(|wanted| matches!(wanted.address, Address::Tcp(_, 0))) {
        let same = inherited.iter().position(|listener| listener.address == wanted.text);
        wanted.listeners.extend(same.map(|at| inherited.remove(at)));
    }
    for at in 0..all.len() {
        match bind_missing(&mut all, at, &inherited) {
            Ok(()) => {}
            Err(error) if forgiving => {
                log::error!("{error}; serving without it");
                let resolved = &all[at].resolved;
                let instead = inherited.extract_if(.., |one| resolved.iter().any(|address| overlap(*address, one)));
                let instead: Vec<Listener> = instead.collect();
                all[at].listeners.extend(instead);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Kept { listeners: all.into_iter().flat_map(|wanted| wanted.listeners).collect(), obsolete: inherited })
}

impl<'a> Wanted<'a> {
    /// With those of the inherited that are bound to what it stands for.
    fn find(address: &'a Address, inherited: &mut Vec<Listener>) -> Result<Wanted<'a>, Error> {
        let text = address.to_string();
        let is_named = |listener: &mut Listener| listener.address == text;
        let (resolved, mut listeners) = match address {
            Address::Unix(path) => {
                (Vec::new(), inherited.extract_if(.., |one| is_bound_to(one, path)).collect::<Vec<_>>())
            }
            Address::Tcp(_, port) => match address.resolve() {
                Ok(resolved) if *port == 0 => (resolved, Vec::new()),
                Ok(resolved) => {
                    let is_one = |one: &mut Listener| resolved.iter().any(|address| one.bound == Bound::Tcp(*address));
                    let kept = inherited.extract_if(.., is_one).collect();
                    (resolved, kept)
                }
                // A name server that is away is no reason to give up what the name has stood for.
                Err(error) if inherited.iter_mut().any(is_named) => {
                    log::warn!("{error}; going on with what it stood for");
                    (Vec::new(), inherited.extract_if(.., is_named).collect())
                }
                Err(error) => return Err(error),
            },
        };
        for listener in &mut listeners {
            if listener.address != text {
                log::info!("{} goes on as {text}", listener.address);
                listener.address.clone_from(&text);
            }
            if let Address::Unix(path) = address {
                // Its file is removed by the name that is ours now.
                listener.bound = Bound::Unix(std::path::absolute(path).unwrap_or_else(|_| path.clone()));
            }
        }
        Ok(Wanted { address, text, resolved, listeners })
    }
}

/// Binds what one of them has not yet.
fn bind_missing(all: &mut [Wanted<'_>], at: usize, going: &[Listener]) -> Result<(), Error> {
    let Wanted { address, text, resolved, .. } = &all[at];
    let mut new = Vec::new();
    let mut missing = Vec::new();
    match address {
        Address::Unix(path) if all[at].listeners.is_empty() => new.push(bind_unix(path)?),
        Address::Unix(_) => {}
        // A free port is one port: with several addresses it would be several.
        Address::Tcp(_, 0) if !all[at].listeners.is_empty() => {}
        Address::Tcp(_, port) => {
            for &resolved in resolved {
                if *port == 0 && !new.is_empty() {
                    break;
                }
                if all[at].listeners.iter().any(|one| one.bound == Bound::Tcp(resolved)) {
                    continue;
                }
                let mut others = all.iter().flat_map(|wanted| &wanted.listeners).chain(&new);
                if let Some(other) = others.find(|one| one.bound == Bound::Tcp(resolved) || overlap(resolved, one)) {
                    let other = if other.address == *text { other.bound.to_string() } else { other.address.clone() };
                    return Err(Error::bind(
                        format_args!("cannot listen on {resolved}: {other} is configured too, and covers it"),
                        io::ErrorKind::AddrInUse.into(),
                    ));
                }
                match bind_beside(resolved, text, going)? {
                    Ok(listener) => new.push(listener),
                    // As `localhost` where one family is compiled in, or stands in /etc/hosts, and no interface has it.
                    Err(error) => missing.push((resolved, error)),
                }
            }
        }
    }
    for (resolved, error) in missing {
        if new.is_empty() && all[at].listeners.is_empty() {
            return Err(cannot_listen(resolved, error));
        }
        log::warn!("not listening on {resolved}, which {address} stands for too: {error}");
    }
    all[at].listeners.append(&mut new);
    Ok(())
}

/// Binds, if need be beside some that go. An address that this host has not is an answer.
fn bind_beside(address: SocketAddr, text: &str, going: &[Listener]) -> Result<Result<Listener, io::Error>, Error> {
    let beside: Vec<&Listener> = going.iter().filter(|one| overlap(address, one)).collect();
    let let_beside = beside.iter().try_for_each(|one| one.let_beside(true));
    match let_beside.and_then(|()| bind_tcp(address, text, !beside.is_empty())) {
        Ok(listener) => Ok(Ok(listener)),
        Err(error) if is_missing(&error) => Ok(Err(error)),
        // The kernel lets nobody but the same user (socket(7)), whatever the right that it was bound with.
        Err(error) if !beside.is_empty() && error.kind() == io::ErrorKind::AddrInUse => {
            let old = &beside[0].bound;
            Err(Error::bind(
                format_args!(
                    "cannot listen on {address} beside {old}, which is open until it is taken over from: another user \
                     has bound that one, or a server of another's listens there; a restart is needed"
                ),
                error,
            ))
        }
        Err(error) => Err(cannot_listen(address, error)),
    }
}

/// Whether there are connections that both could take. Sockets of one family never take those of the other here.
fn overlap(address: SocketAddr, listener: &Listener) -> bool {
    let Bound::Tcp(other) = listener.bound else { return false };
    let one_is_all = address.ip().is_unspecified() != other.ip().is_unspecified();
    address.port() == other.port() && address.is_ipv4() == other.is_ipv4() && one_is_all
}

/// Whether this process could bind what is not among what is bound: it may be a port below the first that is free for all, or a
/// socket in a directory that it may not write to. What else is in the way is said by whoever binds.
///
/// # Errors
/// Of binding, for the first that it could not.
pub fn beyond_rights(addresses: &[Address], bound: &[Bound], first_free_port: u16) -> Result<(), Error> {
    let refused = |what: &str, why: &str| {
        let error = io::ErrorKind::PermissionDenied.into();
        Error::bind(format_args!("cannot listen on {what}: {why}; a restart, by a user that may, is needed"), error)
    };
    for address in addresses {
        match address {
            Address::Tcp(_, port) if *port == 0 || *port >= first_free_port => {}
            Address::Tcp(..) => {
                // A name server that is away is no reason: then what the name has stood for is kept.
                let resolved = address.resolve().unwrap_or_default();
                if let Some(new) = resolved.into_iter().find(|&one| !bound.contains(&Bound::Tcp(one))) {
                    return Err(refused(&new.to_string(), &format!("ports below {first_free_port} need root")));
                }
            }
            Address::Unix(path) => {
                let meta = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
                let is_it = |one: &Bound| match one {
                    Bound::Unix(other) => {
                        std::path::absolute(path).is_ok_and(|path| path == *other)
                            || meta(path).is_some_and(|it| meta(other) == Some(it))
                    }
                    Bound::Tcp(_) => false,
                };
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                if !bound.iter().any(is_it) && access(parent, Access::WRITE_OK) == Err(Errno::ACCESS) {
                    return Err(refused(&address.to_string(), "no permission to write to its directory"));
                }
            }
        }
    }
    Ok(())
}

/// Whether whoever connects to that path comes to this listener.
fn is_bound_to(listener: &Listener, path: &Path) -> bool {
    let Bound::Unix(bound) = &listener.bound else { return false };
    let same_path = || std::path::absolute(path).is_ok_and(|path| path == *bound);
    match fs::symlink_metadata(path) {
        Ok(meta) => listener.file == Some((meta.dev(), meta.ino())),
        // Somebody has removed it. Where a new one has no place, the old one is what there is.
        Err(error) if error.kind() == io::ErrorKind::NotFound => !has_directory(path) && same_path(),
        // Behind a directory that this user may not enter.
        Err(_) => same_path(),
    }
}

fn has_directory(path: &Path) -> bool {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The working directory may be one that was removed; then it is there, and nothing can be made in it.
    fs::metadata(parent).is_ok_and(|meta| meta.nlink() > 0)
}

#[cfg(test)]
mod tests {
    use super::super::{Accepted, Origin};
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn bind(addresses: &[&str], inherited: Vec<Listener>) -> Result<Kept, Error> {
        let addresses: Vec<Address> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        keep_or_bind(&addresses, inherited, false)
    }

    fn listening(addresses: &[&str]) -> Vec<Listener> {
        let mut listeners = bind(addresses, Vec::new()).expect("free addresses").listeners;
        listeners.iter_mut().for_each(|listener| listener.listen().expect("an address that is ours"));
        listeners
    }

    /// One of that host, with a port that nobody has on any address, and that no connection gets by itself.
    fn listening_alone(host: &str) -> Listener {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let first = range.split_whitespace().next().and_then(|port| port.parse().ok()).unwrap_or(32768);
        let any = if host.starts_with('[') { "[::]" } else { "0.0.0.0" };
        // Not where another test of these begins, nor one of another process.
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        loop {
            let mixed = std::process::id().wrapping_mul(97).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
            let port = 10_000 + mixed % (u32::max(first, 20_000) - 10_000);
            if TcpListener::bind(format!("{any}:{port}")).is_ok()
                && let Ok(mut kept) = bind(&[&format!("{host}:{port}")], Vec::new())
                && kept.listeners[0].listen().is_ok()
            {
                return kept.listeners.remove(0);
            }
        }
    }

    /// As a successor gets them, while the predecessor has them too.
    fn inherit(listeners: &[Listener]) -> Vec<Listener> {
        let copies = listeners.iter().zip(0..).map(|(listener, place)| {
            let spare = listener.spare.as_ref().map(|spare| rustix::io::dup(spare).expect("a descriptor"));
            let origin = Origin { place, address: listener.address.clone() };
            let socket = rustix::io::dup(listener).expect("a descriptor");
            Listener::inherit(socket, spare, listener.file, false, origin).expect("a listener")
        });
        copies.collect()
    }

    fn texts(listeners: &[Listener]) -> Vec<&str> {
        listeners.iter().map(|listener| listener.address.as_str()).collect()
    }

    /// The places of those that go on, and how many are new.
    fn places(listeners: &[Listener]) -> (Vec<u32>, usize) {
        let places: Vec<u32> = listeners.iter().filter_map(|one| one.origin.as_ref().map(|it| it.place)).collect();
        let new = listeners.len() - places.len();
        (places, new)
    }

    fn port(listener: &Listener) -> u16 {
        match listener.bound {
            Bound::Tcp(address) => address.port(),
            Bound::Unix(_) => 0,
        }
    }

    fn has_v6() -> bool {
        let has = TcpListener::bind("[::1]:0").is_ok();
        if !has {
            eprintln!("skipped: IPv6, which this machine has not");
        }
        has
    }

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("handover-keep-{}-{name}", std::process::id()));
            fs::create_dir(&path).expect("a new directory");
            Scratch(path)
        }

        fn unix(&self, name: &str) -> String {
            format!("unix:{}", self.0.join(name).display())
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_listener_goes_on_under_another_spelling_and_in_another_place() {
        let first = listening(&["127.0.0.1:0", "127.0.0.2:0"]);
        let (one, other) = (format!("127.1:{}", port(&first[0])), format!("127.0.0.2:{}", port(&first[1])));
        let Kept { listeners, obsolete } = bind(&[&other, &one], inherit(&first)).expect("no new ones");
        assert_eq!(texts(&listeners), [&other, &one]);
        assert_eq!((places(&listeners), obsolete.len()), ((vec![1, 0], 0), 0));
    }

    #[test]
    fn a_free_port_is_kept_by_its_text_unless_another_names_it() {
        let first = listening(&["127.0.0.1:0"]);
        let named = format!("127.0.0.1:{}", port(&first[0]));
        let kept = bind(&["127.0.0.1:0"], inherit(&first)).expect("no new one");
        assert_eq!(places(&kept.listeners), (vec![0], 0));
        let kept = bind(&["127.0.0.1:0", &named], inherit(&first)).expect("a free port");
        assert_eq!((places(&kept.listeners), port(&kept.listeners[1])), ((vec![0], 1), port(&first[0])));
        // Another host's.
        let kept = bind(&["127.0.0.2:0"], inherit(&first)).expect("a free port");
        assert_eq!((places(&kept.listeners), kept.obsolete.len()), ((vec![], 1), 1));
    }

    #[test]
    fn each_socket_that_a_name_stands_for_is_matched_alone() {
        if !has_v6() {
            return;
        }
        let v4 = [listening_alone("127.0.0.1")];
        let (name, v6) = (format!("localhost:{}", port(&v4[0])), format!("[::1]:{}", port(&v4[0])));
        let mut both = bind(&[&name], inherit(&v4)).expect("the other family").listeners;
        both.iter_mut().for_each(|listener| listener.listen().expect("an address that is ours"));
        if both.len() != 2 {
            return eprintln!("skipped: localhost, which stands for one address here");
        }
        assert_eq!((texts(&both), places(&both)), (vec![&name[..]; 2], (vec![0], 1)));
        let kept = bind(&[&v4[0].bound.to_string()["http://".len()..]], inherit(&both)).expect("no new one");
        assert_eq!((kept.listeners[0].bound(), kept.obsolete[0].bound()), (both[0].bound(), both[1].bound()));
        let kept = bind(&[&v6], inherit(&both)).expect("no new one");
        assert_eq!((kept.listeners[0].bound(), kept.obsolete[0].bound()), (both[1].bound(), both[0].bound()));
    }

    #[test]
    fn a_socket_file_is_recognised_by_any_path_to_it() {
        let scratch = Scratch::new("alias");
        fs::create_dir(scratch.0.join("run")).expect("a directory");
        std::os::unix::fs::symlink("run", scratch.0.join("alias")).expect("a link");
        let first = listening(&[&scratch.unix("run/s")]);
        let alias = scratch.unix("alias/s");
        let Kept { listeners, obsolete } = bind(&[&alias], inherit(&first)).expect("no new one");
        assert_eq!((texts(&listeners), places(&listeners), obsolete.len()), (vec![&alias[..]], (vec![0], 0), 0));
        assert_eq!(*listeners[0].bound(), Bound::Unix(scratch.0.join("alias/s")));
    }

    /// Whoever connects to the path would come to nobody.
    #[test]
    fn a_socket_file_that_was_removed_is_made_anew() {
        let scratch = Scratch::new("removed");
        let path = scratch.0.join("s");
        let first = listening(&[&scratch.unix("s")]);
        fs::remove_file(&path).expect("a file");
        let Kept { listeners, obsolete } = bind(&[&scratch.unix("s")], inherit(&first)).expect("a new one");
        assert_eq!((places(&listeners), obsolete.len()), ((vec![], 1), 1));
        // It is not its file any more.
        drop((first, obsolete));
        UnixStream::connect(&path).expect("somebody listens");
        // Where no file can be made, what is there is kept.
        let first = listeners;
        fs::remove_dir_all(&scratch.0).expect("a directory");
        let Kept { listeners, .. } = bind(&[&scratch.unix("s")], inherit(&first)).expect("no new one");
        assert_eq!(places(&listeners), (vec![0], 0));
    }

    #[test]
    fn what_overlaps_with_one_that_goes_is_bound_beside_it_and_nobody_elses_is() {
        let mut pairs = vec![("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")];
        if has_v6() {
            pairs.extend([("[::]", "[::1]"), ("[::1]", "[::]")]);
        }
        for (old, new) in pairs {
            let predecessors = [listening_alone(old)];
            let port = port(&predecessors[0]);
            let [old, new] = [old, new].map(|host| format!("{host}:{port}"));
            let to = if old.starts_with('[') { format!("[::1]:{port}") } else { format!("127.0.0.1:{port}") };
            let is_taken = || {
                [&old, &new].iter().for_each(|address| {
                    let error = TcpListener::bind(address.as_str()).expect_err("it is in use");
                    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{address} beside {old}");
                });
            };
            is_taken();
            let Kept { mut listeners, mut obsolete } = bind(&[&new], inherit(&predecessors)).expect(&new);
            assert_eq!((places(&listeners), places(&obsolete)), ((vec![], 1), (vec![0], 0)));
            // Nobody comes to the new one before it listens.
            let _first = TcpStream::connect(&to).expect("a connection");
            let Accepted::Connection(..) = predecessors[0].accept() else { panic!("{new} took it from {old}") };
            listeners[0].listen().expect("an address that is ours");
            is_taken();
            // The sole holder, as in an exec.
            drop(predecessors);
            obsolete[0].refuse_new();
            assert!(obsolete[0].spare.as_ref().is_some_and(|spare| spare.listens()), "{old} beside {new}");
            obsolete.remove(0).close();
            listeners[0].stand_alone();
            let _second = TcpStream::connect(&to).expect("a connection");
            let Accepted::Connection(..) = listeners[0].accept() else { panic!("nobody has it") };
            is_taken();
            // And that one can go in its turn.
            listeners[0].refuse_new();
            assert!(listeners[0].spare.as_ref().is_some_and(|spare| spare.listens()), "{new}");
            listeners.remove(0).close();
            TcpListener::bind(&old).expect("it is free");
        }
    }

    #[test]
    fn what_cannot_be_bound_leaves_the_old_one_as_it_was() {
        let first = [listening_alone("127.0.0.1")];
        let port = port(&first[0]);
        let all = format!("0.0.0.0:{port}");
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = taken.local_addr().expect("its address").to_string();
        let error = bind(&[&all, &taken], inherit(&first)).expect_err("another's");
        assert!(error.is_bind() && error.to_string().contains("address in use"), "{error}");
        inherit(&first).iter().for_each(Listener::stand_alone);
        assert!(TcpListener::bind(&all).is_err());
        TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        // Without a way back the old one is better than nobody.
        let other = listening(&["127.0.0.2:0"]);
        let addresses = [taken, "127.0.0.2:0".into()].map(|text| text.parse().expect("an address"));
        let kept = keep_or_bind(&addresses, inherit(&other), true).expect("what can be had");
        assert_eq!(places(&kept.listeners), (vec![0], 0));
    }

    /// As after a start as root: the right to bind is gone with it, and so is that to bind beside.
    #[test]
    fn beside_another_users_nothing_is_bound_and_the_reason_is_said() {
        let first = [listening_alone("127.0.0.1")];
        let nobody = rustix::fs::Uid::from_raw(65534);
        if rustix::fs::fchown(&first[0], Some(nobody), None).is_err() || rustix::process::geteuid() == nobody {
            return eprintln!("skipped: another user, whom only root can make of this one");
        }
        let all = format!("0.0.0.0:{}", port(&first[0]));
        let error = bind(&[&all], inherit(&first)).expect_err("another user's");
        assert!(error.is_bind() && error.to_string().contains("another user has bound that one"), "{error}");
    }

    #[test]
    fn what_is_new_below_the_first_free_port_is_named() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<_>>();
        let bound = [Bound::Tcp("127.0.0.1:80".parse().expect("an address")), Bound::Unix("/proc/no/s".into())];
        let beyond = |texts: &[&str], first| beyond_rights(&addresses(texts), &bound, first);
        beyond(&["127.1:80", "127.0.0.1:0", "127.0.0.1:1024", "unix:/proc/no/s"], 1024).expect("nothing is new");
        let error = beyond(&["127.0.0.1:80", "127.0.0.2:80"], 1024).expect_err("that one");
        assert!(
            error.is_bind() && error.to_string().starts_with("cannot listen on 127.0.0.2:80: ports below"),
            "{error}"
        );
        beyond(&["127.0.0.2:80"], 0).expect("it may");
    }

    #[test]
    fn what_another_of_the_same_configuration_covers_is_refused() {
        let first = [listening_alone("127.0.0.1")];
        let port = port(&first[0]);
        let [all, one, other] = ["0.0.0.0", "127.0.0.1", "127.1"].map(|host| format!("{host}:{port}"));
        for addresses in [[&all, &one], [&one, &all], [&one, &other]] {
            let error = bind(&addresses.map(String::as_str), inherit(&first)).expect_err("twice the same");
            assert!(error.is_bind() && error.to_string().contains("is configured too"), "{error}");
        }
    }
}
