//! The file that says which process serves.

use super::outcome::{self, Outcome, path_beside};
use super::process::Process;
use super::small_file::{open_there, write_beside};
use super::way_back;
use crate::Error;
use http1::number::decimal;
use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::Pid;
use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

/// The most that is read of a pid file.
const MOST: usize = 64;
/// How often to try for the turn to replace a file that nobody's server holds, and how long to wait between.
const TRIES: usize = 600;
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// A pid file: one line, the pid in decimal. It is replaced by a rename, so that a reader sees a whole pid at every
/// moment, and so that a new file (its inode, its time) says that a new generation serves, even where the pid stays.
///
/// Whose it is, a lock says that the server holds on it (flock(2)) and that goes with the process: a second server with
/// the same file is refused, a file that was left behind is replaced. Anybody who can read the file can lock it, so the
/// lock counts only together with the pid: of a process that lives, of the user that the file belongs to.
///
/// Dropping it removes the file, but only while it is the one that was written here, with our pid in it: after a reload
/// it is the successor's. What came of a reload goes with it.
#[derive(Debug)]
pub struct PidFile {
    /// Where it is to be, absolute; `None` without one.
    path: Option<PathBuf>,
    /// The one that says that this process serves: since it was written, or what the program that this process was
    /// before execve has left, perhaps under another name.
    ours: Option<Written>,
    /// Of what the predecessor left: besides our own it may stand in the file.
    predecessor: Option<u32>,
    /// When the reload began that made this process the server, until that has been said.
    succeeds: Option<u64>,
    /// When the reload began that is going on here.
    began: u64,
    /// Whether it has been said that an outcome cannot be left.
    complained: Cell<bool>,
}

/// What a predecessor tells its successor, in the environment.
#[derive(Debug, Default)]
pub struct Legacy {
    /// When the reload began; `None` if the predecessor does not say.
    began: Option<u64>,
    /// The open pid file: it goes through execve, and its lock with it.
    file: Option<Written>,
}

/// A pid file in its place, locked.
#[derive(Debug)]
struct Written {
    path: PathBuf,
    file: File,
}

/// Whose turn it is to put a pid file into its place.
#[derive(Debug)]
enum Turn {
    /// It is there: nothing had to be replaced.
    Done,
    /// Ours, as long as the old file is held. `None` where none can be.
    Ours(Option<File>),
}

impl Legacy {
    /// Reads what [`PidFile::legacy`] wrote. `own` takes a descriptor that is open.
    pub fn read(text: &OsStr, own: impl FnOnce(RawFd) -> Option<File>) -> Legacy {
        let mut parts = text.as_bytes().splitn(3, |&byte| byte == b':');
        let mut number = || parts.next().and_then(|part| decimal::<u64>(std::str::from_utf8(part).ok()?));
        let (began, fd) = (number(), number().and_then(|fd| RawFd::try_from(fd).ok()));
        let path = parts.next().map(|path| PathBuf::from(OsString::from_vec(path.to_vec())));
        let file = fd.and_then(own).zip(path).map(|(file, path)| Written { path, file });
        Legacy { began, file }
    }
}

impl PidFile {
    /// For the first generation and for one that starts beside its predecessor. Finds out whether the file could be
    /// written, and leaves what stands there alone: a process has to know before it says that it is ready, and must not
    /// write before it is the server.
    ///
    /// # Errors
    /// A configuration error if it could not, and one of binding if it is another server's.
    pub fn prepare(path: Option<&Path>, predecessor: Option<(u32, Legacy)>) -> Result<PidFile, Error> {
        let (predecessor, succeeds) = match predecessor {
            Some((pid, legacy)) => (Some(pid), legacy.began),
            None => (None, None),
        };
        let path = path.map(absolute).transpose()?;
        let pid_file = PidFile::new(path, None, predecessor, succeeds);
        if let Some(path) = &pid_file.path {
            if path.is_dir() {
                return Err(refused(path, &io::ErrorKind::IsADirectory.into()));
            }
            if let Some(pid) = pid_file.holder(path) {
                return Err(held(path, pid));
            }
            let (temporary, _) = write_beside(path, &own_line()).map_err(|error| refused(path, &error))?;
            // A name nobody reads: what cannot be removed now is replaced by the next write.
            let _ = fs::remove_file(temporary);
        }
        Ok(pid_file)
    }

    /// For a process that has executed the program afresh. There is no way back, and the connections are worth more: what
    /// cannot be written is said when it is written, and the file that there is stays.
    pub fn after_exec(path: Option<&Path>, legacy: Legacy) -> PidFile {
        let path = path.and_then(|path| absolute(path).inspect_err(|error| log::error!("{error}")).ok());
        // A predecessor that did not pass it on has left it in its place.
        let left = || Written::find(path.as_deref()?);
        let ours = legacy.file.filter(Written::is_there).or_else(left);
        PidFile::new(path, ours, None, legacy.began)
    }

    fn new(path: Option<PathBuf>, ours: Option<Written>, predecessor: Option<u32>, succeeds: Option<u64>) -> PidFile {
        PidFile { path, ours, predecessor, succeeds, began: 0, complained: Cell::new(false) }
    }

    /// Writes our pid into a new file in the place of the old one, and says that the reload which led to this process has
    /// succeeded. For every promotion, also where the pid stays. One under a name that is not configured any more goes.
    ///
    /// # Errors
    /// One of binding if it is another server's; then, and if it cannot be written, what there is stays.
    pub fn became_server(&mut self, generation: u64) -> Result<(), Error> {
        let written = self.write();
        if let Some(began) = self.succeeds.take() {
            self.leave(Outcome { began, pid: process::id(), generation, failure: None });
        }
        written
    }

    fn write(&mut self) -> Result<(), Error> {
        let Some(path) = self.path.clone() else {
            self.withdraw();
            return Ok(());
        };
        let error = match self.replace(&path) {
            Ok(file) => {
                if self.ours.as_ref().is_some_and(|ours| ours.path != path) {
                    self.withdraw();
                }
                if self.began == 0 && self.ours.is_none() && self.predecessor.is_none() {
                    // Of a server that was killed.
                    let _ = fs::remove_file(path_beside(&path));
                }
                self.ours = Some(Written { path, file });
                return Ok(());
            }
            Err(error) => error,
        };
        if let Some(pid) = self.holder(&path) {
            return Err(held(&path, pid));
        }
        // On a full disk, or in a directory that has become read-only, there is still room for a pid where one stands.
        match overwrite(&path) {
            Ok(file) => {
                log::warn!("cannot replace the pid file {path:?}: {error}; it was written over");
                self.ours = Some(Written { path, file });
                Ok(())
            }
            Err(_) => match self.ours.as_ref().filter(|ours| ours.is_there()) {
                Some(ours) => {
                    let stays = format!("{error}; {:?} stays", ours.path);
                    Err(refused(&path, &io::Error::new(error.kind(), stays)))
                }
                None => Err(refused(&path, &error)),
            },
        }
    }

    /// Puts a new file into that place, unless it is another server's.
    fn replace(&self, path: &Path) -> io::Result<File> {
        let (temporary, file) = write_beside(path, &own_line())?;
        // Before anybody can see it there. Where a file system has no locks, a second server is not refused.
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        match self.put(&temporary, path) {
            Ok(()) => Ok(file),
            Err(error) => {
                let _ = fs::remove_file(temporary);
                Err(error)
            }
        }
    }

    /// Of two that start at the same moment one gets it: they take turns at what stands there, and where nothing does, a
    /// rename that replaces nothing decides.
    fn put(&self, temporary: &Path, path: &Path) -> io::Result<()> {
        match self.turn(temporary, path)? {
            Turn::Done => Ok(()),
            // It is over when the new file is in its place: whoever waits for it looks at the place again.
            Turn::Ours(_held) => fs::rename(temporary, path),
        }
    }

    /// Waits for the turn to replace what stands in that place.
    fn turn(&self, temporary: &Path, path: &Path) -> io::Result<Turn> {
        for tries in 1.. {
            let there = match open_there(path, OFlags::RDONLY) {
                Ok(there) => there,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
                        Err(Errno::EXIST) if tries < TRIES => continue,
                        Ok(()) => return Ok(Turn::Done),
                        // Not every file system can.
                        Err(_) => break,
                    }
                }
                // A link, for example: it is replaced.
                Err(_) => break,
            };
            if self.holder(path).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let ours = pid_in(&there).is_some_and(|pid| self.knows(pid));
            if !ours && flock(&there, FlockOperation::NonBlockingLockExclusive).is_err() && tries < TRIES {
                std::thread::sleep(BETWEEN_TRIES);
                continue;
            }
            if is_at(&there, path) || tries >= TRIES {
                return Ok(Turn::Ours(Some(there)));
            }
        }
        Ok(Turn::Ours(None))
    }

    /// The process of another server that holds the file in that place.
    fn holder(&self, path: &Path) -> Option<u32> {
        let there = open_there(path, OFlags::RDONLY).ok()?;
        let pid = pid_in(&there).filter(|&pid| !self.knows(pid))?;
        if flock(&there, FlockOperation::NonBlockingLockShared) != Err(Errno::WOULDBLOCK) {
            return None;
        }
        let process = Process::find(Pid::from_raw(pid.try_into().ok()?)?)?;
        let owner = there.metadata().ok()?.uid();
        (process.effective_user == owner || process.real_user == owner).then_some(pid)
    }

    fn knows(&self, pid: u32) -> bool {
        pid == process::id() || Some(pid) == self.predecessor
    }

    /// The successor is the server now. A file that still is ours names a process that is about to end: the successor has
    /// another, or none.
    pub fn handed_over(&mut self) {
        self.withdraw();
    }

    /// For a successor that is about to replace it: it stays, whatever becomes of us.
    pub fn leave_it(&mut self) {
        self.ours = None;
    }

    /// Takes our file away, and the outcome beside it, if it still is ours.
    fn withdraw(&mut self) {
        if let Some(ours) = self.ours.take().filter(Written::is_there) {
            for path in [path_beside(&ours.path), ours.path] {
                // Nobody writes it between the look and the removal: a second server is refused, and a successor has
                // been waited for, or does not exist.
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        log::warn!("cannot remove {path:?}: {error}");
                    }
                    _ => {}
                }
            }
        }
    }

    /// The program that this process had become did not serve, and it came back: the file stays as it is.
    pub fn came_back(&mut self, generation: u64, reason: &str) {
        self.began = self.succeeds.take().unwrap_or_else(outcome::now);
        self.reload_failed(generation, reason);
    }

    /// Whoever asks for a reload from now on is not answered by the one that begins now.
    pub fn reload_begins(&mut self) {
        self.began = outcome::now();
    }

    /// Says that the reload which has begun has failed, and why.
    pub fn reload_failed(&self, generation: u64, reason: &str) {
        let failure = Some(reason.to_owned());
        self.leave(Outcome { began: self.began, pid: process::id(), generation, failure });
    }

    fn leave(&self, outcome: Outcome) {
        if let Some(ours) = &self.ours
            && let Err(error) = outcome.leave(&ours.path)
            && !self.complained.replace(true)
        {
            log::warn!("cannot leave the outcome of a reload in {:?}: {error}", path_beside(&ours.path));
        }
    }

    /// What a successor is told. The one that this process becomes gets the file itself, which is then open across
    /// execve, until [`PidFile::keep`].
    pub fn legacy(&self, becomes: bool) -> OsString {
        let mut text = OsString::from(format!("{}:", self.began));
        if becomes
            && let Some(Written { path, file }) = &self.ours
            && fcntl_setfd(file, FdFlags::empty()).is_ok()
        {
            text.push(format!("{}:", file.as_raw_fd()));
            text.push(path);
        }
        text
    }

    /// No execve has happened: no process that is started from here on gets the file.
    pub fn keep(&self) {
        if let Some(Written { file, .. }) = &self.ours {
            // It cannot fail for a descriptor that is open.
            let _ = fcntl_setfd(file, FdFlags::CLOEXEC);
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Who comes back still has it.
        if !way_back::is_armed() {
            self.withdraw();
        }
    }
}

impl Written {
    /// The file in that place, if our pid stands in it.
    fn find(path: &Path) -> Option<Written> {
        let file = open_there(path, OFlags::RDONLY).ok()?;
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        Some(Written { path: path.to_owned(), file }).filter(Written::is_there)
    }

    /// Whether it still is in its place, and our pid in it.
    fn is_there(&self) -> bool {
        is_at(&self.file, &self.path) && pid_in(&self.file) == Some(process::id())
    }
}

/// The pid in the first line.
fn pid_in(file: &File) -> Option<u32> {
    let mut bytes = [0; MOST];
    // It is given whole by every file system there is.
    let read = file.read_at(&mut bytes, 0).ok()?;
    decimal(std::str::from_utf8(&bytes[..read]).ok()?.lines().next()?.trim())
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Writes our pid over another. Its line is whole at every moment; what is left of a longer one is a second line.
fn overwrite(path: &Path) -> io::Result<File> {
    let file = open_there(path, OFlags::RDWR)?;
    if pid_in(&file).is_none() || file.metadata()?.nlink() != 1 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let line = own_line();
    file.write_all_at(line.as_bytes(), 0)?;
    file.set_len(line.len() as u64)?;
    // The predecessor has it as long as it runs.
    let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
    Ok(file)
}

fn own_line() -> String {
    format!("{}\n", process::id())
}

/// The working directory may be another one, or gone, by the time the file is removed.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    crate::sys::working_directory::absolute(path).map_err(|error| refused(path, &error))
}

fn held(path: &Path, pid: u32) -> Error {
    Error::bind(
        format_args!("the pid file {path:?} names the running process {pid}; stop it or choose another file"),
        io::ErrorKind::AddrInUse.into(),
    )
}

fn refused(path: &Path, error: &io::Error) -> Error {
    let help = match error.kind() {
        _ if error.get_ref().is_some() => error.to_string(),
        io::ErrorKind::NotFound => "its directory does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "no permission to write to its directory".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory; give the path of a file".to_owned(),
        _ => error.to_string(),
    };
    Error::config(format_args!("cannot write the pid file {path:?}: {help}"))
}

#[cfg(test)]
mod tests {
    use super::super::small_file::MODE;
    use super::*;
    use std::env;
    use std::os::unix::fs::symlink;

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

    fn written(path: &Path) -> PidFile {
        let mut pid_file = PidFile::prepare(Some(path), None).expect("a pid file");
        pid_file.became_server(1).expect("written");
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
        let path = directory.0.join("pid");
        let mut pid_file = written(&path);
        // Held open, so that its inode cannot be used again.
        let old = fs::File::open(&path).expect("the file");
        pid_file.became_server(1).expect("again");
        let inode = |meta: io::Result<fs::Metadata>| meta.expect("the file").ino();
        assert_ne!(inode(old.metadata()), inode(fs::metadata(&path)));
    }

    #[test]
    fn a_successors_file_is_not_removed() {
        let directory = Directory::new("other");
        let path = directory.0.join("pid");
        for other in ["1\n", "", "no pid\n", &format!("{}0\n", process::id())] {
            let pid_file = written(&path);
            fs::write(&path, other).expect("the successor's");
            drop(pid_file);
            assert!(path.exists(), "{other:?}");
            fs::remove_file(&path).expect("gone");
        }
        // Not even one with the same pid.
        let pid_file = written(&path);
        let another = directory.0.join("another");
        fs::write(&another, own_line()).and_then(|()| fs::rename(&another, &path)).expect("in its place");
        drop(pid_file);
        assert!(path.exists());
    }

    #[test]
    fn preparing_leaves_what_stands_there() {
        let directory = Directory::new("prepare");
        let path = directory.0.join("pid");
        fs::write(&path, "1\n").expect("the predecessor's");
        drop(PidFile::prepare(Some(&path), None).expect("writable"));
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
            let error = PidFile::prepare(Some(&path), None).expect_err("refused");
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
        let path = pid_file.path.as_ref().expect("a path");
        assert!(path.is_absolute() && path.ends_with(&below), "{pid_file:?}");
        assert_eq!(directory.names(), ["pid"]);
    }

    /// A process that holds that file as a server does, until it is dropped.
    struct Holder(std::process::Child);

    impl Holder {
        fn of(path: &Path) -> Holder {
            let mut command = std::process::Command::new("sleep");
            let (_, file) = write_beside(path, "").expect("a file");
            flock(&file, FlockOperation::NonBlockingLockExclusive).expect("locked");
            // It has the only descriptor when this one is gone.
            let child = command.arg("60").stdin(file.try_clone().expect("another")).spawn().expect("sleep");
            file.write_all_at(format!("{}\n", child.id()).as_bytes(), 0).expect("written");
            let temporary = path.with_file_name(format!(".pid.{}", process::id()));
            fs::rename(temporary, path).expect("in its place");
            Holder(child)
        }
    }

    impl Drop for Holder {
        fn drop(&mut self) {
            let _ = self.0.kill().and_then(|()| self.0.wait());
        }
    }

    #[test]
    fn a_second_start_took_the_file_of_a_living_server() {
        let directory = Directory::new("held");
        let path = directory.0.join("pid");
        let holder = Holder::of(&path);
        let line = fs::read_to_string(&path).expect("the file");
        let error = PidFile::prepare(Some(&path), None).expect_err("held");
        let says = format!("the pid file {path:?} names the running process {}; stop it", holder.0.id());
        assert!(error.is_bind() && error.to_string().starts_with(&says), "{error}");
        // Nor where it was not there yet when that was looked at.
        let mut late = PidFile::new(Some(path.clone()), None, None, None);
        assert!(late.became_server(1).expect_err("held").is_bind());
        drop(late);
        assert_eq!(fs::read_to_string(&path).expect("the file"), line);
        // A successor is not refused.
        let mut successor = PidFile::prepare(Some(&path), Some((holder.0.id(), Legacy::default()))).expect("its own");
        successor.became_server(2).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("the file"), own_line());
        drop((successor, holder));
        assert!(directory.names().is_empty());
    }

    /// It was waited for a tenth of a second, which a busy host takes as well: then two had the file.
    #[test]
    fn another_that_starts_at_the_same_moment_may_be_slow() {
        let (directory, elsewhere) = (Directory::new("slow"), Directory::new("elsewhere"));
        let (path, other) = (directory.0.join("pid"), elsewhere.0.join("pid"));
        fs::write(&path, "1 stale\n").expect("an old file");
        // As one does that is about to put its own in this place.
        let stale = File::open(&path).expect("the old file");
        flock(&stale, FlockOperation::NonBlockingLockExclusive).expect("nobody has it");
        let late = std::thread::spawn({
            let path = path.clone();
            move || PidFile::new(Some(path), None, None, None).became_server(1)
        });
        std::thread::sleep(BETWEEN_TRIES * 80);
        assert!(!late.is_finished());
        let _holder = Holder::of(&other);
        fs::rename(&other, &path).expect("put there");
        drop(stale);
        assert!(late.join().expect("it ends").expect_err("held").is_bind());
    }

    /// It was given up just before the rename: then another looked at the old file, and replaced the new one.
    #[test]
    fn a_turn_lasts_until_the_file_is_in_its_place() {
        let directory = Directory::new("turn");
        let path = directory.0.join("pid");
        fs::write(&path, "1 stale\n").expect("an old file");
        let stale = File::open(&path).expect("the old file");
        let free = || flock(&stale, FlockOperation::NonBlockingLockShared) != Err(Errno::WOULDBLOCK);
        let one = PidFile::new(Some(path.clone()), None, None, None);
        let turn = one.turn(&directory.0.join("new"), &path).expect("its turn");
        assert!(matches!(turn, Turn::Ours(Some(_))) && !free());
        drop(turn);
        assert!(free());
    }

    #[test]
    fn a_file_that_was_left_behind_refuses_nobody() {
        let directory = Directory::new("left");
        let path = directory.0.join("pid");
        let holder = Holder::of(&path);
        let left = fs::File::open(&path).expect("the file");
        drop(holder);
        // Whoever can read it can lock it.
        flock(&left, FlockOperation::NonBlockingLockExclusive).expect("free");
        fs::write(path_beside(&path), "outcome=failed\n").expect("an outcome");
        drop(written(&path));
        // A process that lives and has nothing to do with it has got the pid.
        let mut other = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        fs::write(&path, format!("{}\n", other.id())).expect("written");
        let pid_file = written(&path);
        other.kill().and_then(|()| other.wait()).expect("ended");
        assert_eq!(directory.names(), ["pid"]);
        drop(pid_file);
    }

    #[test]
    fn one_that_could_not_be_written_after_exec_was_deleted() {
        let directory = Directory::new("exec");
        let path = directory.0.join("pid");
        let before = written(&path);
        let file = before.ours.as_ref().expect("written").file.try_clone().expect("another");
        // The new name is a directory's; a user who may do anything is refused as well.
        let other = directory.0.join("other");
        fs::create_dir(&other).expect("a directory");
        let legacy = || Legacy {
            began: Some(1),
            file: Some(Written { path: path.clone(), file: file.try_clone().expect("one") }),
        };
        let mut after = PidFile::after_exec(Some(&other), legacy());
        let error = after.became_server(2).expect_err("a directory").to_string();
        assert!(error.contains("other") && error.contains(&format!("{path:?} stays")), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("the file"), own_line());
        // And it is where the outcome is looked for.
        let outcome = Outcome::find(&path).expect("an outcome").outcome.expect("readable");
        assert_eq!((outcome.began, outcome.generation, outcome.failure), (1, 2, None));
        drop(after);
        assert!(!path.exists() && !path_beside(&path).exists());
    }

    #[test]
    fn one_that_was_renamed_in_the_configuration_stayed_behind() {
        let directory = Directory::new("renamed");
        let (old, new) = (directory.0.join("old"), directory.0.join("new"));
        for becomes in [Some(new.as_path()), None] {
            let before = written(&old);
            let Written { path, file } = before.ours.as_ref().expect("written");
            let legacy = Legacy {
                began: Some(1),
                file: Some(Written { path: path.clone(), file: file.try_clone().expect("another") }),
            };
            let mut after = PidFile::after_exec(becomes, legacy);
            assert!(old.exists());
            after.became_server(2).expect("written");
            assert_eq!((old.exists(), new.exists()), (false, becomes.is_some()));
            drop((after, before));
            assert!(directory.names().is_empty(), "{:?}", directory.names());
        }
    }

    #[test]
    fn without_room_for_a_new_file_the_pid_is_written_over_the_old_one() {
        let directory = Directory::new("over");
        let path = directory.0.join("pid");
        fs::write(&path, "1234567890\n").expect("a longer one");
        drop(overwrite(&path).expect("written over"));
        assert_eq!(fs::read_to_string(&path).expect("the file"), own_line());
        fs::write(&path, "no pid\n").expect("another's");
        assert!(overwrite(&path).is_err());
        fs::write(&path, "1\n").and_then(|()| fs::hard_link(&path, directory.0.join("name"))).expect("two names");
        assert!(overwrite(&path).is_err());
    }
}
