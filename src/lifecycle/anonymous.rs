//! A file without a name, for bytes that another process is to read: a memfd, or an unlinked file where sandboxes refuse
//! that (memfd_create(2) is younger than many of their filters).

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, openat};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Another process, which is passed the descriptor.
    Other,
    /// What this process executes: it goes through `execve`.
    Successor,
}

/// A file with these bytes, to be read from its beginning.
pub fn anonymous_file(bytes: &[u8], reader: Reader) -> io::Result<File> {
    let close_on_exec = if reader == Reader::Other { MemfdFlags::CLOEXEC } else { MemfdFlags::empty() };
    match memfd_create("handover", close_on_exec | MemfdFlags::ALLOW_SEALING) {
        Ok(memfd) => {
            let file = written(memfd.into(), bytes)?;
            // What cannot be sealed can be read all the same.
            let _ = fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL);
            Ok(file)
        }
        Err(errno) => {
            log::debug!("memfd_create: {}; an unlinked file has to do", io::Error::from(errno));
            let file = written(unlinked_file()?, bytes)?;
            if reader == Reader::Successor {
                rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
            }
            Ok(file)
        }
    }
}

fn written(mut file: File, bytes: &[u8]) -> io::Result<File> {
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// In the first directory that takes one; those in memory first. Close-on-exec, for this user alone.
fn unlinked_file() -> io::Result<File> {
    let directories = directories();
    let mut why = None;
    for directory in &directories {
        match unlinked_file_in(directory) {
            Ok(file) => return Ok(file),
            Err(error) => _ = why.get_or_insert((directory, error)),
        }
    }
    let (directory, error) = why.unwrap_or((&directories[0], io::ErrorKind::NotFound.into()));
    Err(io::Error::new(
        error.kind(),
        format!("no file for the state, neither by memfd_create nor in {directory:?}: {error}"),
    ))
}

fn unlinked_file_in(directory: &Path) -> io::Result<File> {
    let unnamed = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let opened = openat(CWD, directory, unnamed, Mode::RUSR | Mode::WUSR).map(File::from);
    opened.map_err(io::Error::from).or_else(|_| named_and_unlinked(directory))
}

fn directories() -> [PathBuf; 4] {
    [PathBuf::from("/dev/shm"), PathBuf::from("/run"), std::env::temp_dir(), PathBuf::from("/var/tmp")]
}

/// Where such files are made: nowhere, if memory is what they are in.
pub fn directory_in_use() -> Option<PathBuf> {
    match memfd_create("handover", MemfdFlags::CLOEXEC) {
        Ok(_) => None,
        Err(_) => directories().into_iter().find(|directory| unlinked_file_in(directory).is_ok()),
    }
}

/// Where the file system knows no O_TMPFILE.
fn named_and_unlinked(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!(".handover-{}", std::process::id()));
    // `create_new` follows no link that somebody may have put there.
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn an_unlinked_file_does_where_a_memfd_is_refused() {
        let directory = std::env::temp_dir();
        for file in [unlinked_file().expect("a file"), named_and_unlinked(&directory).expect("a file")] {
            let meta = file.metadata().expect("a file");
            assert_eq!((meta.nlink(), meta.mode() & 0o777), (0, 0o600));
            let file = written(file, b"state").expect("written");
            assert_eq!(io::read_to_string(file).expect("read"), "state");
        }
    }

    #[test]
    fn only_what_is_for_a_successor_goes_through_execve() {
        for (reader, stays) in [(Reader::Successor, true), (Reader::Other, false)] {
            let file = anonymous_file(b"state", reader).expect("a file");
            let flags = rustix::io::fcntl_getfd(&file).expect("flags");
            assert_eq!(!flags.contains(rustix::io::FdFlags::CLOEXEC), stays, "{reader:?}");
        }
    }
}
