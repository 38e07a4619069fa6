//! The log as a file: written at a graceful stop, read at the next start.

use super::hub::{Hub, new_epoch};
use crate::clock::boot_time;
use crate::sys::regular_file;
use rustix::fs::{Mode, OFlags, ftruncate, open};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file begins with it, and with the time at which it was written: 8 bytes of seconds since 1970, the lowest first.
const MAGIC: &[u8; 8] = b"hdovhis1";
/// The largest that is read.
const MOST: u64 = 1 << 30;

fn wall_clock() -> i64 {
    crate::clock::wall_clock().as_secs().try_into().unwrap_or(i64::MAX)
}

impl Hub {
    /// Goes on with what a stop has written, in an epoch of its own: a crash that comes later must not use a position twice.
    /// Answers whether there was anything.
    ///
    /// # Errors
    /// Why it goes on without, in a line.
    pub(crate) fn read_history(&self, path: &Path) -> Result<bool, String> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            _ => {}
        }
        let bytes = regular_file::read(path, MOST, "it is not a regular file", "it has more than 1 GiB")?;
        // As `forget` leaves it where it can remove nothing.
        if bytes.is_empty() {
            return Ok(false);
        }
        let written = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_at_checked(8));
        let (time, log) = written.ok_or("it is damaged, or no history of handover's")?;
        let written = i64::from_le_bytes(time.try_into().map_err(|_| "it is damaged")?);
        // A clock that was set back says nothing of how long ago that was.
        let older = wall_clock().saturating_sub(written).max(0).saturating_mul(1000);
        let _ = self.inner().read_from(log, boot_time(), older).map_err(|wrong| wrong.to_string())?;
        self.inner().begin_epoch(new_epoch());
        Ok(true)
    }

    /// Writes everything that is kept, so that it is there whole or not at all.
    ///
    /// # Errors
    /// Of the file.
    pub(crate) fn write_history(&self, path: &Path) -> io::Result<()> {
        can_replace(path).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&wall_clock().to_le_bytes());
        bytes.extend_from_slice(&self.inner().write_down(boot_time()));
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        // What another start has left half written.
        let _ = fs::remove_file(&beside);
        let written = write_new(&beside, &bytes).and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // It may have what was published to few.
    let mut file = File::from(open(path, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(bytes)?;
    file.sync_all()
}

/// What was read is out of date from here on, and is not to be read again. Where the directory lets nothing be removed, the
/// file can be emptied all the same.
///
/// # Errors
/// Why it could not be removed.
pub(crate) fn forget(path: &Path) -> io::Result<()> {
    let Err(error) = fs::remove_file(path) else { return Ok(()) };
    // Without waiting, should it have become a FIFO.
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).and_then(|file| ftruncate(file, 0)).map_err(|_| error)
}

/// Whether what stands there, if anything does, may give way to the file of a stop, which is renamed over it: a FIFO of
/// somebody's, or `/dev/null`, was lost by that.
///
/// # Errors
/// What it is instead, in a line.
pub(crate) fn can_replace(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err("it is a directory".into()),
        Ok(found) if !found.is_file() => Err("it is not a regular file".into()),
        // Nothing, or a link that leads nowhere.
        _ => Ok(()),
    }
}

/// Whether a stop could write the file there; nothing is created.
///
/// # Errors
/// Why not, in a line.
pub(crate) fn can_write(path: &Path) -> Result<(), String> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    can_replace(path)?;
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK)
        .map_err(|errno| format!("its directory cannot be written to: {}", io::Error::from(errno)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_a_stop_has_written_is_there_at_the_next_start_in_an_epoch_of_its_own() {
        let path = std::env::temp_dir().join(format!("handover-history-{}", std::process::id()));
        let (first, second) = (Hub::new(), Hub::new());
        assert_eq!(second.read_history(&path), Ok(false));
        first.inner().open();
        let position = first.namespace("n").publish("a", "hello").expect("open");
        first.write_history(&path).expect("written");
        first.write_history(&path).expect("written again");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(second.read_history(&path), Ok(true));
        let now = second.inner().position();
        assert_eq!(now.offset, position.offset);
        assert_ne!(now.epoch, position.epoch);
        assert_eq!(second.namespace("n").topics().len(), 1);
        for damage in [&b"hdovhis1"[..], b"hdovhis10123456", b"hdovhis1012345678", b"something else entirely"] {
            fs::write(&path, damage).expect("written");
            assert!(second.read_history(&path).is_err_and(|error| !error.contains('\n')), "{damage:?}");
        }
        forget(&path).expect("removed");
        assert!(!path.exists() && forget(&path).is_err());
        assert!(second.read_history(&std::env::temp_dir()).is_err());
    }
}
