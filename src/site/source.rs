//! The files below the root: from a name, and what a client accepts, to an open file.

use super::content::read_at_once;
use super::root::Root;
use http1::accept::{Coding, Ranking};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Stat, fstat};
use rustix::io::Errno;
use std::fs::File;

/// A root, and the variants that files in it may have beside them.
#[derive(Clone, Copy)]
pub(super) struct Source<'s> {
    pub root: &'s Root,
    /// Of those that a client likes equally, the first is taken.
    pub precompressed: &'s [Coding],
}

/// What a name stands for.
pub(super) enum Found {
    /// A regular file, or the variant of it that the client likes best.
    File(Selected),
    /// A regular file that does not know its length, as most of /proc: it says 0, and there is something to read.
    Unmeasured(File),
    /// A directory.
    Directory,
    /// A FIFO, a device, a socket: nothing that has a representation.
    Nothing,
}

/// The bytes that represent a file.
pub(super) struct Selected {
    pub file: File,
    pub version: Version,
    /// How they are coded; `None` for the file itself.
    pub coding: Option<Coding>,
    /// Whether another Accept-Encoding could have selected others.
    pub varies: bool,
}

impl Source<'_> {
    /// Opens what represents the name for a client with that ranking.
    ///
    /// Nothing else of the request has a part in it: so what it found may be kept, under name and ranking, for as long
    /// as it does not change; see [`Cache`](super::cache::Cache).
    pub fn find(&self, name: &[u8], ranking: Ranking) -> Result<Found, Errno> {
        let opened = self.root.read(name)?;
        let stat = fstat(&opened)?;
        match FileType::from_raw_mode(stat.st_mode as _) {
            FileType::RegularFile => {}
            FileType::Directory => return Ok(Found::Directory),
            _ => return Ok(Found::Nothing),
        }
        let (file, version) = (File::from(opened), Version::of(&stat));
        if version.length == 0 && !read_at_once(&file, 0, 1)?.is_empty() {
            return Ok(Found::Unmeasured(file));
        }
        let plain = Selected { file, version, coding: None, varies: false };
        Ok(Found::File(self.select(name, plain, ranking)))
    }

    /// The best variant, or the file itself.
    ///
    /// It stops at the first variant there is: that one is sent, or, if the client does not accept it, is reason
    /// enough to say Vary. Comparing sizes would mean to open them all, each time.
    fn select(&self, name: &[u8], plain: Selected, ranking: Ranking) -> Selected {
        // A download that is compressed already has no variants: nobody makes `a.tar.gz.br`.
        if self.precompressed.iter().any(|coding| name.ends_with(suffix(*coding))) {
            return plain;
        }
        let others = self.precompressed.iter().copied().filter(|coding| !ranking.has(*coding));
        for coding in ranking.codings().chain(others) {
            match self.variant(name, coding, &plain.version) {
                Ok(Some((file, version))) if ranking.has(coding) => {
                    return Selected { file: file.into(), version, coding: Some(coding), varies: true };
                }
                // What could not be opened now (descriptors ran out) may be there for the next client.
                Ok(Some(_)) | Err(_) => return Selected { varies: true, ..plain },
                Ok(None) => {}
            }
        }
        plain
    }

    /// Opens a variant, which follows the rules of every other name below the root, and must not be older than the
    /// file: who edits a page and forgets to compress it again would go on serving the old one.
    ///
    /// Times are compared in whole seconds, since compressors and archives that hand the file's time on may cut it.
    fn variant(&self, name: &[u8], coding: Coding, plain: &Version) -> Result<Option<(OwnedFd, Version)>, Errno> {
        let opened = match self.root.read(&[name, suffix(coding)].concat()) {
            Ok(opened) => opened,
            Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::AGAIN)) => return Err(errno),
            Err(_) => return Ok(None),
        };
        let stat = fstat(&opened)?;
        let version = Version::of(&stat);
        let is_file = FileType::from_raw_mode(stat.st_mode as _) == FileType::RegularFile;
        Ok((is_file && version.modified.seconds >= plain.modified.seconds).then_some((opened, version)))
    }
}

/// What the name of a variant ends in.
fn suffix(coding: Coding) -> &'static [u8] {
    match coding {
        Coding::Brotli => b".br",
        Coding::Zstd => b".zst",
        Coding::Gzip => b".gz",
    }
}

/// What tells one state of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// When its content was written. Anybody may set this to what they like, and builds that are to be the same each
    /// time do, as do `cp -p`, `tar` and `rsync -t`.
    modified: Time,
    /// When anything of it changed, also its name or its permissions. The kernel alone sets it.
    changed: Time,
    pub length: u64,
    inode: u64,
    device: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Time {
    seconds: i64,
    nanoseconds: u64,
}

impl Time {
    /// In nanoseconds since 1970, around the wrap.
    fn since_1970(self) -> u64 {
        (self.seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(self.nanoseconds)
    }
}

impl Version {
    // The types of `Stat` differ from one architecture to the next.
    #[allow(clippy::unnecessary_cast)]
    fn of(stat: &Stat) -> Version {
        Version {
            modified: Time { seconds: stat.st_mtime as i64, nanoseconds: stat.st_mtime_nsec as u64 },
            changed: Time { seconds: stat.st_ctime as i64, nanoseconds: stat.st_ctime_nsec as u64 },
            length: stat.st_size as u64,
            inode: stat.st_ino as u64,
            device: stat.st_dev as u64,
        }
    }

    /// That of an open file, as it is now.
    pub fn now(file: &File) -> Result<Version, Errno> {
        fstat(file).map(|stat| Version::of(&stat))
    }

    /// A strong entity tag (RFC 9110 §8.8.3). The time of the last change tells apart what has the same length and a time
    /// that was set; the time of modification is for file systems that know no other. The inode tells apart what is
    /// renamed into place within one tick of the file system's clock, and a file from its variants; only a rewrite in
    /// place, to the same length and within one tick (4 ms at most), escapes. Other permissions or another link make
    /// another tag too: a client then fetches once what it has.
    pub fn etag(&self) -> String {
        let (modified, changed) = (self.modified.since_1970(), self.changed.since_1970());
        format!("\"{modified:x}-{changed:x}-{:x}-{:x}\"", self.length, self.inode)
    }

    /// Whether it has not changed for that many seconds, by either time: one may have been set, the other may stand
    /// still where the file system does not keep it.
    pub fn is_older_than(&self, now: u64, seconds: i64) -> bool {
        let last = self.modified.max(self.changed);
        i64::try_from(now).is_ok_and(|now| last.seconds.saturating_add(seconds) <= now)
    }

    /// Whether Last-Modified is from when the bytes were written, as far as one can know: it was not set since.
    pub fn is_dated(&self) -> bool {
        self.changed.seconds <= self.modified.seconds
    }

    /// Last-Modified: never later than Date (RFC 9110 §8.8.2.1), and not before 1970, where no HTTP date is.
    pub fn modified(&self, now: u64) -> u64 {
        u64::try_from(self.modified.seconds).unwrap_or(0).min(now)
    }
}
