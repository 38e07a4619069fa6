//! Exec mode: the process becomes the program on disk, with its listeners and connections still open.
//!
//! The state waits in a memfd, the descriptors lose close-on-exec, and every handled signal is blocked, so that what
//! comes meanwhile is pending when the successor unblocks it. Until `execve` succeeds everything can be taken back.

use super::anonymous::{Reader, anonymous_file};
use super::candidate::{Candidate, WayBack};
use super::state::{ExecState, Inheritance, MovedConnection, SHARES_FILES, SavedSession, Snapshot, decode, encode};
use super::way_back;
use crate::sys::descriptors::{copy, own_inherited, own_one, pass_through_execve};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Becomes the program on disk, which reads that version of the state, and these variables besides its own. Returns only if
/// that failed, with everything as before.
pub fn hand_over(
    candidate: &Candidate<'_>,
    mut state: ExecState,
    version: u32,
    told: &[(&str, &OsStr)],
    way_back: Option<&WayBack>,
) -> io::Error {
    let copies = match version < SHARES_FILES {
        true => match each_once(&mut state) {
            Ok(copies) => copies,
            Err(error) => return error,
        },
        false => Vec::new(),
    };
    let error = execute(candidate, state, version, told, way_back);
    drop(copies);
    error
}

/// Several connections may send the same open file; a successor that reads only version 1 owns what each names.
fn each_once(state: &mut ExecState) -> io::Result<Vec<OwnedFd>> {
    // By descriptor: the kernel gives out the lowest numbers.
    let mut seen = Vec::new();
    let mut copies = Vec::new();
    for file in state.connections.iter_mut().filter_map(|moved| moved.file.as_mut()) {
        let number = usize::try_from(*file).unwrap_or_default();
        if number >= seen.len() {
            seen.resize(number + 1, false);
        }
        if std::mem::replace(&mut seen[number], true) {
            // The connection that sends it is held meanwhile, and with it the file.
            let copy = copy(*file)?;
            *file = copy.as_raw_fd();
            copies.push(copy);
        }
    }
    Ok(copies)
}

fn execute(
    candidate: &Candidate<'_>,
    state: ExecState,
    version: u32,
    told: &[(&str, &OsStr)],
    way_back: Option<&WayBack>,
) -> io::Error {
    let descriptors = descriptors(&state);
    match prepare(state, version) {
        Ok(memfd) => {
            let error = match pass_through_execve(&descriptors, true) {
                Ok(()) => candidate.execute(memfd.as_raw_fd(), told, way_back),
                Err(error) => error,
            };
            // Back to close-on-exec, which cannot fail for a descriptor that is open.
            let _ = pass_through_execve(&descriptors, false);
            error
        }
        Err(error) => error,
    }
}

fn prepare(state: ExecState, version: u32) -> io::Result<File> {
    anonymous_file(&encode(state, version), Reader::Successor)
}

fn descriptors(state: &ExecState) -> Vec<RawFd> {
    let listeners = state.inheritance.listeners.iter().flat_map(|listener| [Some(listener.fd), listener.spare]);
    let connections = state.connections.iter().flat_map(|moved| [Some(moved.fd), moved.file]);
    listeners.chain(connections).flatten().collect()
}

/// What this process has left itself, owned.
pub struct TakenOver {
    pub inheritance: Inheritance,
    /// Of each listener of `inheritance`, and of its spare socket.
    pub listeners: Vec<(OwnedFd, Option<OwnedFd>)>,
    pub connections: Vec<InheritedConnection>,
    pub hub: Option<Vec<u8>>,
    pub sessions: Vec<SavedSession>,
}

/// A connection as it was written down, and its descriptors. They are closed by nobody but who takes them out: on the way
/// back they are needed.
pub struct InheritedConnection {
    pub snapshot: Snapshot,
    pub socket: ManuallyDrop<OwnedFd>,
    pub file: Option<ManuallyDrop<Arc<File>>>,
}

/// Reads the state that this process left itself in that descriptor, and owns what that names.
pub fn take_over(fd: RawFd) -> Result<TakenOver, String> {
    // Open until the others are owned: one of them that has its number is refused.
    way_back::keep(&[fd]);
    let memfd = own_one(fd).map(File::from).map_err(|refused| format!("cannot read the state: {refused}"))?;
    let bytes = read_whole(&memfd).map_err(|error| format!("cannot read the state: {error}"))?;
    let state: ExecState = decode(&bytes)?;
    if state.inheritance.pid != std::process::id() {
        return Err("the state was left for another process".into());
    }
    way_back::keep(&descriptors(&state));
    let taken = own(state);
    way_back::keep_open(memfd.into());
    taken
}

/// From its beginning, and without moving the place that whoever comes back reads from.
fn read_whole(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.metadata()?.len().try_into().unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Owns every descriptor of a state, in one step: a listener that is taken for a connection as well must be neither.
fn own(state: ExecState) -> Result<TakenOver, String> {
    let ExecState { inheritance, connections, hub, sessions } = state;
    // Several connections may send the same file.
    let mut files: Vec<RawFd> = connections.iter().filter_map(|moved| moved.file).collect();
    files.sort_unstable();
    files.dedup();
    let mut numbers: Vec<RawFd> = inheritance.listeners.iter().map(|listener| listener.fd).collect();
    numbers.extend(inheritance.listeners.iter().filter_map(|listener| listener.spare));
    numbers.extend(connections.iter().map(|moved| moved.fd));
    numbers.extend(&files);
    let owned = own_inherited(&numbers).map_err(|refused| format!("what the state names is not there: {refused}"))?;
    // In the same order.
    let mut owned = owned.into_iter();
    let listening: Vec<OwnedFd> = owned.by_ref().take(inheritance.listeners.len()).collect();
    let spares: Vec<_> =
        inheritance.listeners.iter().map(|listener| listener.spare.and_then(|_| owned.next())).collect();
    let listeners = listening.into_iter().zip(spares);
    let sockets: Vec<OwnedFd> = owned.by_ref().take(connections.len()).collect();
    let files: HashMap<RawFd, Arc<File>, RandomState> =
        files.into_iter().zip(owned.map(|fd| Arc::new(File::from(fd)))).collect();
    let with_descriptors = |(moved, socket)| {
        let MovedConnection { file, snapshot, .. } = moved;
        let file = file.and_then(|number| files.get(&number).cloned()).map(ManuallyDrop::new);
        InheritedConnection { snapshot, socket: ManuallyDrop::new(socket), file }
    };
    let connections = connections.into_iter().zip(sockets).map(with_descriptors).collect();
    // To be used and closed at will, whoever comes back.
    let copy = |(listener, spare): (OwnedFd, Option<OwnedFd>)| {
        Ok((way_back::copy(listener)?, spare.map(way_back::copy).transpose()?))
    };
    let copies: io::Result<_> = listeners.map(copy).collect();
    let listeners = copies.map_err(|error| format!("cannot take the listeners: {error}"))?;
    Ok(TakenOver { inheritance, listeners, connections, hub, sessions })
}

#[cfg(test)]
mod tests {
    use super::super::state::InheritedListener;
    use super::*;
    use std::os::fd::{AsFd, IntoRawFd};

    /// As if it had come through execve: open, and nobody's.
    fn inherited(file: impl AsFd) -> RawFd {
        rustix::io::dup(file).expect("a descriptor").into_raw_fd()
    }

    fn state(listener: (RawFd, Option<RawFd>), connections: &[(RawFd, Option<RawFd>)]) -> ExecState {
        let (fd, spare) = listener;
        let listeners = vec![InheritedListener { fd, address: "127.0.0.1:0".into(), file: None, spare }];
        let moved = |&(fd, file)| MovedConnection { fd, file, snapshot: Snapshot::samples().remove(0) };
        let inheritance = Inheritance { listeners, ..Inheritance::default() };
        ExecState { inheritance, connections: connections.iter().map(moved).collect(), ..ExecState::default() }
    }

    #[test]
    fn each_gets_its_own_descriptors_and_a_shared_file_is_owned_once() {
        let null = File::open("/dev/null").expect("a file");
        let [listener, spare, one, two, three, file, other] = std::array::from_fn(|_| inherited(&null));
        let state = state((listener, Some(spare)), &[(one, Some(other)), (two, Some(file)), (three, Some(other))]);
        let TakenOver { listeners, connections, .. } = own(state).expect("all are there");
        let listeners: Vec<_> =
            listeners.iter().map(|(fd, spare)| (fd.as_raw_fd(), spare.as_ref().map(AsRawFd::as_raw_fd))).collect();
        assert_eq!(listeners, [(listener, Some(spare))]);
        let numbers: Vec<_> = connections
            .iter()
            .map(|connection| {
                let file = connection.file.as_ref().expect("a file");
                (connection.socket.as_raw_fd(), file.as_raw_fd(), Arc::strong_count(file))
            })
            .collect();
        assert_eq!(numbers, [(one, other, 2), (two, file, 1), (three, other, 2)]);
    }

    #[test]
    fn a_state_that_names_a_descriptor_twice_or_one_that_is_none_is_refused_in_a_line() {
        let null = File::open("/dev/null").expect("a file");
        let [listener, socket] = std::array::from_fn(|_| inherited(&null));
        let twice = format!("descriptor {listener}: it is named twice");
        for (state, says) in [
            (state((listener, Some(listener)), &[]), &twice[..]),
            (state((listener, None), &[(listener, None)]), &twice),
            (state((listener, None), &[(socket, Some(listener))]), &twice),
            (state((listener, None), &[(0, None)]), "descriptor 0: it is below 3"),
            (state((listener, None), &[(socket, Some(-1))]), "descriptor -1: it is below 3"),
            (state((listener, None), &[(RawFd::MAX, None)]), "descriptor 2147483647: it is not open"),
            (state((null.as_raw_fd(), None), &[(socket, None)]), "this process's own"),
        ] {
            let Err(error) = own(state) else { panic!("taken, and not: {says}") };
            assert!(error.contains(says) && !error.contains('\n'), "{error}");
        }
        // None of it was taken.
        assert!(own(state((listener, None), &[(socket, None)])).is_ok());
    }
}
