//! A regular file that is read whole, and what is in the way in words.

use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Opens a file that is a regular one, and never waits: to open a FIFO would be to wait for its writer, for ever.
///
/// # Errors
/// What open(2) says; [`io::ErrorKind::InvalidInput`] for what is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    // Not opened at all where it is known beforehand, since some devices take notice of that.
    let no = || io::ErrorKind::InvalidInput.into();
    if !std::fs::metadata(path)?.is_file() {
        return Err(no());
    }
    // It may have become another one since.
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(no()) }
}

/// Reads a regular file whole, or says what is in the way, in these words if that is its kind or its size.
pub fn read(path: &Path, most: u64, not_regular: &str, too_large: &str) -> Result<Vec<u8>, String> {
    let said = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        io::ErrorKind::InvalidInput => not_regular.to_owned(),
        _ => error.to_string(),
    };
    let mut bytes = Vec::new();
    open(path).and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut bytes)).map_err(said)?;
    if bytes.len() as u64 > most { Err(too_large.to_owned()) } else { Ok(bytes) }
}

/// Whether others than its owner and its group may read or write a file that is nobody else's business, in words; `kind`
/// is what it is.
pub fn is_exposed(kind: &str, path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    let may = match mode & 0o006 {
        0 => return None,
        0o004 => "read",
        _ => "write to",
    };
    Some(format!("everybody on this host may {may} the {kind} {path:?} (mode {:03o}): chmod 600", mode & 0o777))
}
