//! Exec mode: the process becomes the program on disk, with its listeners and connections still open.
//!
//! The state waits in a memfd, the descriptors lose close-on-exec, and every handled signal is blocked, so that what
//! comes meanwhile is pending when the successor unblocks it. Until `execve` succeeds everything can be taken back.

use super::anonymous::{Reader, anonymous_file};
use super::program::Program;
use super::state::{ExecState, SHARES_FILES, decode, encode};
use foldhash::fast::RandomState;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Becomes the program on disk, which reads that version of the state. Returns only if that failed, with everything as
/// before.
pub fn hand_over(program: &Program, mut state: ExecState, version: u32, legacy: &OsStr) -> io::Error {
    let copies = match version < SHARES_FILES {
        true => match each_once(&mut state) {
            Ok(copies) => copies,
            Err(error) => return error,
        },
        false => Vec::new(),
    };
    let error = execute(program, state, version, legacy);
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
            // SAFETY: the connection that sends it is held meanwhile, and with it the file.
            let copy = fcntl_dupfd_cloexec(unsafe { BorrowedFd::borrow_raw(*file) }, 0)?;
            *file = copy.as_raw_fd();
            copies.push(copy);
        }
    }
    Ok(copies)
}

fn execute(program: &Program, state: ExecState, version: u32, legacy: &OsStr) -> io::Error {
    let descriptors = descriptors(&state);
    match prepare(state, version) {
        Ok(memfd) => {
            let error = match pass_on(&descriptors, true) {
                Ok(()) => program.execute(memfd.as_raw_fd(), legacy),
                Err(error) => error,
            };
            // Back to close-on-exec, which cannot fail for a descriptor that is open.
            let _ = pass_on(&descriptors, false);
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

fn pass_on(descriptors: &[RawFd], on: bool) -> io::Result<()> {
    let flags = if on { FdFlags::empty() } else { FdFlags::CLOEXEC };
    for &fd in descriptors {
        // SAFETY: the caller owns these descriptors, which stay open while it waits for this function.
        fcntl_setfd(unsafe { BorrowedFd::borrow_raw(fd) }, flags)?;
    }
    Ok(())
}

/// Reads the state that this process left itself in that descriptor.
pub fn take_over(fd: RawFd) -> Result<ExecState, String> {
    // SAFETY: the variable that names it also names this process as the one it is for, so it was set by ourselves
    // before execve; and this runs before any other descriptor is opened.
    let mut memfd = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut bytes = Vec::new();
    memfd.read_to_end(&mut bytes).map_err(|error| format!("cannot read the state: {error}"))?;
    let state: ExecState = decode(&bytes)?;
    if state.inheritance.pid != std::process::id() {
        return Err("the state was left for another process".into());
    }
    pass_on(&descriptors(&state), false).map_err(|error| format!("an inherited descriptor is not open: {error}"))?;
    Ok(state)
}

/// Takes a descriptor that the state names.
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the predecessor passed this descriptor on for us alone, and the state names each once, but for those of
    // files, which are taken by `Files`; `take_over` has seen that it is open.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Takes a descriptor that the environment names beside the state, if it is open. Before any other is opened.
pub fn own_if_open(fd: RawFd) -> Option<OwnedFd> {
    let open = fd > 2 && pass_on(&[fd], false).is_ok();
    open.then(|| own(fd))
}

/// The files that connections send, each owned once however many of them send it.
#[derive(Default)]
pub struct Files(HashMap<RawFd, Arc<File>, RandomState>);

impl Files {
    /// Takes a file that the state names.
    pub fn own(&mut self, fd: RawFd) -> Arc<File> {
        self.0.entry(fd).or_insert_with(|| Arc::new(own(fd).into())).clone()
    }
}
