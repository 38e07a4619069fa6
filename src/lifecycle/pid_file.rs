//! The file that says which process serves.

use crate::Error;
use crate::number::decimal;
use crate::report;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

/// Whoever monitors a server may be another user.
const MODE: u32 = 0o644;

/// A pid file: one line, the pid in decimal. It is replaced by a rename, so that a reader sees a whole pid at every
/// moment, and so that a new file (its inode, its time) says that a new generation serves, even where the pid stays.
/// Dropping it removes the file, but only while our pid stands there: after a reload it is the successor's.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Finds out whether the file could be written, and leaves what stands there alone. A process has
    /// to know before it says that it is ready, and must not write before it is the server.
    ///
    /// # Errors
    /// A configuration error if it could not.
    pub fn prepare(path: &Path) -> Result<PidFile, Error> {
        // Absolute: the working directory may be another one, or gone, by the time the file is removed.
        let path = crate::working_directory::absolute(path).map_err(|error| refused(path, error))?;
        if path.is_dir() {
            return Err(refused(&path, io::ErrorKind::IsADirectory.into()));
        }
        let pid_file = PidFile { path };
        let temporary = pid_file.write_temporary().map_err(|error| refused(&pid_file.path, error))?;
        // A name nobody reads: what cannot be removed now is replaced by the next write.
        let _ = fs::remove_file(temporary);
        Ok(pid_file)
    }

    /// Writes our pid into a new file in the place of the old one. For every promotion, also where the pid stays:
    /// `handover reload --wait` sees by it that the reload has succeeded.
    ///
    /// # Errors
    /// What the file system says. The old file is left as it was.
    pub fn write(&self) -> io::Result<()> {
        let temporary = self.write_temporary()?;
        fs::rename(&temporary, &self.path).inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    /// Where it is, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// In the same directory, because a rename does not cross file systems.
    fn write_temporary(&self) -> io::Result<PathBuf> {
        let name = self.path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
        let temporary = self.path.with_file_name(format!(".{name}.{}", process::id()));
        // From a process that had our pid and was killed just here.
        let _ = fs::remove_file(&temporary);
        // `create_new` follows no link that somebody may have put there.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&temporary)?;
        // In one step with the mode that the umask may have narrowed.
        let written = file
            .set_permissions(Permissions::from_mode(MODE))
            .and_then(|()| file.write_all(format!("{}\n", process::id()).as_bytes()));
        written.map(|()| temporary.clone()).inspect_err(|_| drop(fs::remove_file(&temporary)))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Nobody writes it between the look and the removal: a successor has been waited for, or does not exist.
        if read_pid(&self.path) == Some(process::id())
            && let Err(error) = fs::remove_file(&self.path)
        {
            report::warn!("cannot remove the pid file {:?}: {error}", self.path);
        }
    }
}

fn read_pid(path: &Path) -> Option<u32> {
    decimal(fs::read_to_string(path).ok()?.lines().next()?.trim())
}

fn refused(path: &Path, error: io::Error) -> Error {
    let help = match error.kind() {
        io::ErrorKind::NotFound => "its directory does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "no permission to write to its directory".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory; give the path of a file".to_owned(),
        _ => error.to_string(),
    };
    Error::config(format_args!("cannot write the pid file {path:?}: {help}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::os::unix::fs::{MetadataExt, symlink};

    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Directory {
            let directory = env::temp_dir().join(format!("handover-pid-{test}-{}", process::id()));
            fs::create_dir_all(&directory).expect("a directory");
            Directory(directory)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).expect("the directory");
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn own_line() -> String {
        format!("{}\n", process::id())
    }

    fn written(path: &Path) -> PidFile {
        let pid_file = PidFile::prepare(path).expect("a pid file");
        pid_file.write().expect("written");
        pid_file
    }

    #[test]
    fn it_holds_our_pid_and_goes_with_us() {
        let directory = Directory::new("own");
        let path = directory.0.join("pid");
        fs::write(&path, "1 stale\n").expect("an old file");
        let pid_file = written(&path);
        assert_eq!(fs::read_to_string(&path).expect("the file"), own_line());
        assert_eq!(fs::metadata(&path).expect("the file").mode() & 0o7777, MODE);
        assert_eq!(directory.names(), ["pid"]);
        drop(pid_file);
        assert!(directory.names().is_empty());
    }

    #[test]
    fn each_write_is_a_new_file() {
        let directory = Directory::new("new");
        let pid_file = written(&directory.0.join("pid"));
        // Held open, so that its inode cannot be used again.
        let old = fs::File::open(pid_file.path()).expect("the file");
        pid_file.write().expect("again");
        let inode = |meta: io::Result<fs::Metadata>| meta.expect("the file").ino();
        assert_ne!(inode(old.metadata()), inode(fs::metadata(pid_file.path())));
    }

    #[test]
    fn a_successors_file_is_not_removed() {
        let directory = Directory::new("other");
        let path = directory.0.join("pid");
        let pid_file = written(&path);
        for other in ["1\n", "", "no pid\n", &format!("{}0\n", process::id())] {
            fs::write(&path, other).expect("the successor's");
            drop(PidFile { path: path.clone() });
            assert!(path.exists(), "{other:?}");
        }
        fs::remove_file(&path).expect("gone");
        drop(pid_file);
    }

    #[test]
    fn preparing_leaves_what_stands_there() {
        let directory = Directory::new("prepare");
        let path = directory.0.join("pid");
        fs::write(&path, "1\n").expect("the predecessor's");
        drop(PidFile::prepare(&path).expect("writable"));
        assert_eq!(fs::read_to_string(&path).expect("the file"), "1\n");
        assert_eq!(directory.names(), ["pid"]);
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let directory = Directory::new("link");
        let (path, target) = (directory.0.join("pid"), directory.0.join("target"));
        fs::write(&target, "mine\n").expect("a file");
        symlink(&target, &path).expect("a link");
        let pid_file = written(&path);
        assert!(!fs::symlink_metadata(&path).expect("the file").is_symlink());
        assert_eq!(fs::read_to_string(&target).expect("the file"), "mine\n");
        drop(pid_file);
    }

    #[test]
    fn what_cannot_be_written_is_a_configuration_error_with_its_path() {
        let directory = Directory::new("refused");
        for (path, says) in [
            (PathBuf::from("/nowhere/at/all.pid"), "its directory does not exist"),
            (directory.0.clone(), "it is a directory"),
            (PathBuf::from("/proc/handover.pid"), ""),
            (directory.0.join("a".repeat(255)), ""),
        ] {
            let error = PidFile::prepare(&path).expect_err("refused");
            let start = format!("cannot write the pid file {path:?}: {says}");
            assert!(error.is_config() && error.to_string().starts_with(&start), "{error}");
        }
        assert!(directory.names().is_empty());
    }

    #[test]
    fn a_relative_path_is_made_absolute() {
        let directory = Directory::new("relative");
        let up = "../".repeat(env::current_dir().expect("a working directory").components().count());
        let below = directory.0.strip_prefix("/").expect("absolute").join("pid");
        let pid_file = written(&Path::new(&up).join(&below));
        assert!(pid_file.path().is_absolute() && pid_file.path().ends_with(&below), "{pid_file:?}");
        assert_eq!(directory.names(), ["pid"]);
    }
}
