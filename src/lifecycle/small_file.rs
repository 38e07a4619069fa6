//! Files of a few bytes that one process leaves for others: replaced whole, and read without trust.

use rustix::fs::{Mode, OFlags, open};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Whoever monitors a server may be another user.
pub const MODE: u32 = 0o644;

/// What changes whenever a file is replaced. The inode alone could be the one of a file before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    written: (i64, i64),
}

impl Stamp {
    /// Of the file that this is said of.
    pub fn of(meta: &Metadata) -> Stamp {
        Stamp { device: meta.dev(), inode: meta.ino(), written: (meta.mtime(), meta.mtime_nsec()) }
    }
}

/// Opens what is in that place, to be read or also written.
///
/// Who may write to the directory decides what has that name: so no link is followed, nothing but a regular file is
/// opened, and nothing is waited for.
///
/// # Errors
/// What the file system says, and [`io::ErrorKind::InvalidInput`] for what is no regular file.
pub fn open_there(path: &Path, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::LOOP) => return Err(no_file("it is a symbolic link")),
        opened => File::from(opened?),
    };
    if !file.metadata()?.is_file() {
        return Err(no_file("it is not a regular file"));
    }
    Ok(file)
}

/// What stands in a file, at most so many bytes of it, and what the file system says of this very file.
///
/// # Errors
/// As for [`open_there`].
pub fn read(path: &Path, most: u64) -> io::Result<(String, Metadata)> {
    let file = open_there(path, OFlags::RDONLY)?;
    let meta = file.metadata()?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), meta))
}

fn no_file(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Writes a file beside `path` that is to be renamed to it: in the same directory, because a rename does not cross file
/// systems.
///
/// # Errors
/// What the file system says. Then there is no such file.
pub fn write_beside(path: &Path, text: &str) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    // From a process that had our pid and was killed just here.
    let _ = fs::remove_file(&temporary);
    // `create_new` follows no link that somebody may have put there.
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(&temporary)?;
    // In one step with the mode that the umask may have narrowed.
    let written = file.set_permissions(Permissions::from_mode(MODE)).and_then(|()| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => Ok((temporary, file)),
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}
