//! The bytes of a configuration file, handed to a program that is checked or executed: so that what runs is what was
//! checked, whatever happens to the file meanwhile; and what was come back to runs with what it ran with.

use super::anonymous::{Reader, anonymous_file};
use http1::number::decimal;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Who is to read it, `self` or `child`; the process that says so; the descriptor; and the path that was read.
pub const VARIABLE: &str = "HANDOVER_CONFIGURATION";

/// A configuration that was read, in a file without a name.
#[derive(Debug)]
pub struct Snapshot {
    file: File,
    path: OsString,
}

impl Snapshot {
    /// Of these bytes of the file in that absolute path.
    ///
    /// # Errors
    /// Where there is no place for such a file.
    pub fn new(path: &Path, bytes: &[u8]) -> io::Result<Snapshot> {
        Ok(Snapshot { file: anonymous_file(bytes, Reader::Other)?, path: path.as_os_str().to_owned() })
    }

    /// Its descriptor here.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The variable's value for a child that has it under that number.
    pub fn for_child(&self, number: RawFd) -> OsString {
        self.variable("child", number)
    }

    /// The variable's value for this process after execve.
    pub fn for_itself(&self) -> OsString {
        self.variable("self", self.file.as_raw_fd())
    }

    fn variable(&self, who: &str, number: RawFd) -> OsString {
        let mut value = OsString::from(format!("{who}:{}:{number}:", std::process::id()));
        value.push(&self.path);
        value
    }
}

/// What was handed to this process, if anything was: the descriptor, and of which path it is.
pub fn handed() -> Option<(RawFd, PathBuf)> {
    read(&env::var_os(VARIABLE)?)
}

/// The same of a variable's value.
pub fn read(value: &OsStr) -> Option<(RawFd, PathBuf)> {
    let mut parts = value.as_bytes().splitn(4, |&byte| byte == b':');
    let mut text = || std::str::from_utf8(parts.next()?).ok();
    let (who, pid, number) = (text()?, decimal(text()?)?, decimal(text()?)?);
    let path = PathBuf::from(OsStr::from_bytes(parts.next()?));
    let whose = match who {
        "self" => Some(std::process::id()),
        "child" => rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()),
        _ => None,
    };
    (whose == Some(pid) && number > 2).then_some((number, path))
}

/// Whether the descriptor was closed, and the number may be another file's.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// What was handed to this process is closed.
pub fn closed() {
    CLOSED.store(true, Ordering::Relaxed);
}

/// What this process is to take for the contents of the file in that absolute path, if somebody handed it that.
pub fn contents(path: &Path) -> Option<Vec<u8>> {
    let (number, of) = handed().filter(|_| !CLOSED.load(Ordering::Relaxed))?;
    // Opened anew, so that whoever comes back can read it too. Without /proc there is no way back either.
    if of == path { fs::read(format!("/proc/self/fd/{number}")).ok() } else { None }
}
