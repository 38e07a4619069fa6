//! What the threads that clients reach may open, by Landlock. Main, which reloads, and the threads for signals, the log and
//! the application's background have no part in it: a domain cannot be left again, and goes through an exec.

use crate::Error;
use crate::config::AllowedPaths;
use crate::lifecycle::anonymous;
use crate::listener::Bound;
use crate::sys::landlock::{self, Confinement, Rights};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// For each kind of these threads; `None` where it may open what the process may.
#[derive(Default)]
pub struct Confinements {
    /// Those that run handlers, or answer for the server's state.
    pub workers: Option<Arc<Confinement>>,
    pub acceptor: Option<Arc<Confinement>>,
}

/// What the server itself opens on a worker: for the figures of a process, for what is thrown away, and for random numbers
/// where a sandbox refuses getrandom(2).
const WORKERS_OWN: [(&str, Rights); 4] = [
    ("/proc/self/stat", Rights::Read),
    ("/proc/self/fd", Rights::Read),
    ("/dev/null", Rights::Write),
    ("/dev/urandom", Rights::Read),
];

/// What the acceptor opens: which pages may be given back at rest, and who is in a handshake where sock_diag(7) is refused.
const ACCEPTORS_OWN: [(&str, Rights); 4] = [
    ("/proc/self/pagemap", Rights::Read),
    ("/proc/net/tcp", Rights::Read),
    ("/proc/net/tcp6", Rights::Read),
    ("/dev/urandom", Rights::Read),
];

impl Confinements {
    /// Says what is allowed, or that the kernel does not know how: then serving goes on without. A path that is gone since
    /// [`check`] is said and left out, since who comes back from an exec has connections to lose.
    pub fn new<'b>(allowed: &AllowedPaths, bound: impl Iterator<Item = &'b Bound>) -> Confinements {
        let mut rules: Vec<(PathBuf, Rights)> = there(WORKERS_OWN);
        rules.extend(temporary());
        rules.extend(allowed.readable().map(|path| (path.to_owned(), Rights::Read)));
        rules.extend(allowed.writable().map(|path| (path.to_owned(), Rights::Write)));
        let Some(workers) = made(&rules) else { return Confinements::default() };
        let mut rules: Vec<(PathBuf, Rights)> = there(ACCEPTORS_OWN);
        rules.extend(temporary());
        // It removes the files of sockets that it closes.
        rules.extend(bound.filter_map(directory).filter(|path| path.is_dir()).map(|path| (path, Rights::Remove)));
        let Some(acceptor) = made(&rules) else { return Confinements::default() };
        log::info!("requests can open {allowed} (Landlock)");
        Confinements { workers: Some(Arc::new(workers)), acceptor: Some(Arc::new(acceptor)) }
    }
}

/// Whether all of it is there.
///
/// # Errors
/// What is not.
pub fn check(allowed: &AllowedPaths) -> Result<(), Error> {
    for path in allowed.readable().chain(allowed.writable()) {
        landlock::open_path(path).map_err(|error| {
            Error::config(format_args!("requests cannot be allowed to open {path:?}, which has to be there: {error}"))
        })?;
    }
    Ok(())
}

fn made(rules: &[(PathBuf, Rights)]) -> Option<Confinement> {
    let left_out = |path: &Path, error| log::warn!("requests cannot open {path:?} until a reload: {error}");
    Confinement::new(rules, left_out)
        .inspect_err(|why| {
            log::info!("requests can open what this process can, as there is no Landlock here: {why}");
        })
        .ok()
}

/// Those of them that there are: not everybody has a /proc.
fn there(paths: [(&str, Rights); 4]) -> Vec<(PathBuf, Rights)> {
    paths.into_iter().map(|(path, rights)| (PathBuf::from(path), rights)).filter(|(path, _)| path.exists()).collect()
}

/// Where a connection that moves is written down, if that cannot be in memory alone.
fn temporary() -> impl Iterator<Item = (PathBuf, Rights)> {
    anonymous::directory_in_use().into_iter().map(|path| (path, Rights::Temporary))
}

/// Of a socket's file.
fn directory(bound: &Bound) -> Option<PathBuf> {
    let Bound::Unix(path) = bound else { return None };
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }.to_owned())
}
