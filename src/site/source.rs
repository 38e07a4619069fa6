//! The files below the root: from a name, and what a client accepts, to an open file.

use super::root::Root;
use crate::http::accept::{Coding, Ranking};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Stat, fstat};
use rustix::io::Errno;
use std::fs::File;

/// A root, and the variants that files in it may have beside them.
pub(super) struct Source {
    pub root: Root,
    /// Of those that a client likes equally, the first is taken.
    pub precompressed: Vec<Coding>,
}

/// What a name stands for.
pub(super) enum Found {
    /// A regular file, or the variant of it that the client likes best.
    File(Selected),
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

impl Source {
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
        let plain = Selected { file: opened.into(), version: Version::of(&stat), coding: None, varies: false };
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
        Ok((is_file && version.seconds >= plain.seconds).then_some((opened, version)))
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
    seconds: i64,
    nanoseconds: u64,
    pub length: u64,
    inode: u64,
    device: u64,
}

impl Version {
    // The types of `Stat` differ from one architecture to the next.
    #[allow(clippy::unnecessary_cast)]
    fn of(stat: &Stat) -> Version {
        Version {
            seconds: stat.st_mtime as i64,
            nanoseconds: stat.st_mtime_nsec as u64,
            length: stat.st_size as u64,
            inode: stat.st_ino as u64,
            device: stat.st_dev as u64,
        }
    }

    /// A strong entity tag (RFC 9110 §8.8.3). The inode tells apart what is renamed into place within one tick of the
    /// file system's clock, and a file from its variants; only a rewrite in place, to the same length and within one
    /// tick (4 ms at most), escapes.
    pub fn etag(&self) -> String {
        let time = (self.seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(self.nanoseconds);
        format!("\"{time:x}-{:x}-{:x}\"", self.length, self.inode)
    }

    /// Whether it has not changed for that many seconds.
    pub fn is_older_than(&self, now: u64, seconds: i64) -> bool {
        i64::try_from(now).is_ok_and(|now| self.seconds.saturating_add(seconds) <= now)
    }

    /// Last-Modified: never later than Date (RFC 9110 §8.8.2.1), and not before 1970, where no HTTP date is.
    pub fn modified(&self, now: u64) -> u64 {
        u64::try_from(self.seconds).unwrap_or(0).min(now)
    }
}
