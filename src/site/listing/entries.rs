//! What is in a directory: of any number of names those that come next on a page, in memory that has a bound.

use super::super::root::Root;
use super::Place;
use super::order::{By, Key, Order, View};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom, Stat, fstat, seek, statat};
use rustix::io::Errno;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The most bytes of names that are held while a page is made.
pub const MAX_HELD: usize = 48 * 1024;

/// The most names that are read for one page: this takes a worker about a tenth of a second.
pub const MAX_READ: usize = 100_000;

/// The most entries that are looked at for one page before it is known which it shows: links, and all where they are sorted by
/// what names do not say.
pub const MAX_LOOKED: usize = 10_000;

/// An entry of the directory.
pub struct Entry {
    pub name: Box<[u8]>,
    /// By which it has its place; what a link is, that there were too many of to look at, is not known to it.
    is_directory: bool,
    order: Order,
    /// If it was looked at.
    found: Option<Found>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub is_directory: bool,
    /// In bytes, of a file.
    pub length: u64,
    /// In seconds since 1970.
    pub modified: u64,
}

impl Found {
    // The types of `Stat` differ from one architecture to the next.
    #[allow(clippy::unnecessary_cast)]
    fn of(stat: &Stat) -> Option<Found> {
        let is_directory = match FileType::from_raw_mode(stat.st_mode as _) {
            FileType::RegularFile => false,
            FileType::Directory => true,
            // It would not be served.
            _ => return None,
        };
        let length = if is_directory { 0 } else { stat.st_size as u64 };
        Some(Found { is_directory, length, modified: u64::try_from(stat.st_mtime as i64).unwrap_or(0) })
    }

    /// What it is sorted by.
    fn number(&self, by: By) -> u64 {
        match by {
            By::Name => 0,
            By::Size => self.length,
            By::Modified => self.modified,
        }
    }
}

impl Entry {
    pub fn key(&self) -> Key<'_> {
        let number = self.found.map_or(0, |found| found.number(self.order.by));
        Key { is_directory: self.is_directory, number, name: &self.name }
    }

    /// What it is, by now; nothing if it would not be served.
    pub fn look(&self, directory: &Directory<'_>) -> Option<Found> {
        self.found.or_else(|| directory.look(&self.name))
    }

    /// What it takes, its place in a list and what an allocator adds included.
    fn held(&self) -> usize {
        size_of::<Entry>() + self.name.len() + 16
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        self.order.compare(self.key(), other.key())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

/// A directory that is open to be read.
pub struct Directory<'d> {
    pub root: &'d Root,
    pub opened: &'d OwnedFd,
    pub place: &'d Place<'d>,
}

/// What was read of one.
pub struct Entries {
    /// Those that come next, as many as may be held, in their order.
    pub next: Vec<Entry>,
    /// Those that come before.
    pub before: usize,
    /// How many there are, as far as they were read.
    pub count: usize,
    /// Whether all were.
    pub is_all: bool,
    /// By name where there were too many to be sorted by anything else.
    pub order: Order,
}

impl Directory<'_> {
    pub fn read(&self, view: &View) -> Result<Entries, Errno> {
        if let Some(entries) = self.gather(view)? {
            return Ok(entries);
        }
        seek(self.opened, SeekFrom::Start(0))?;
        let entries = self.gather(&View { order: Order::NAMES, after: None })?;
        // By name nothing is too much.
        entries.ok_or(Errno::OVERFLOW)
    }

    /// Nothing if that would be to look at too many.
    fn gather(&self, view: &View) -> Result<Option<Entries>, Errno> {
        let order = view.order;
        let mut buffer = Vec::with_capacity(8 * 1024);
        let mut entries = RawDir::new(self.opened, buffer.spare_capacity_mut());
        // The last one on top, to go when there are too many; and the first of those that have gone, behind which nothing is
        // taken any more, so that none is missing in between.
        let (mut next, mut gone): (BinaryHeap<Entry>, Option<Entry>) = (BinaryHeap::new(), None);
        let (mut held, mut read, mut looked, mut before, mut count) = (0, 0, 0, 0, 0);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let (name, kind) = (entry.file_name().to_bytes(), entry.file_type());
            if name.starts_with(b".") {
                continue;
            }
            if read == MAX_READ {
                return Ok(Some(Entries { next: next.into_sorted_vec(), before, count, is_all: false, order }));
            }
            read += 1;
            let looks = match kind {
                FileType::RegularFile | FileType::Directory => order.by != By::Name,
                FileType::Symlink | FileType::Unknown => true,
                _ => continue,
            };
            let mut found = None;
            if looks && looked < MAX_LOOKED {
                looked += 1;
                found = self.look(name);
                if found.is_none() {
                    continue;
                }
            } else if looks && order.by != By::Name {
                return Ok(None);
            }
            count += 1;
            let is_directory = found.map_or(kind == FileType::Directory, |found| found.is_directory);
            let key = Key { is_directory, number: found.map_or(0, |found| found.number(order.by)), name };
            if view.after.as_ref().is_some_and(|after| order.compare(key, after.key()).is_le()) {
                before += 1;
                continue;
            }
            if gone.as_ref().is_some_and(|gone| order.compare(key, gone.key()).is_ge()) {
                continue;
            }
            let entry = Entry { name: name.into(), is_directory, order, found };
            held += entry.held();
            next.push(entry);
            while held > MAX_HELD
                && let Some(last) = next.pop()
            {
                held -= last.held();
                gone = Some(last);
            }
        }
        Ok(Some(Entries { next: next.into_sorted_vec(), before, count, is_all: true, order }))
    }

    /// What a name stands for, if it would be served. A link counts as what it leads to, and only if that lies below the
    /// root, so that nobody learns what is elsewhere.
    // The types of `Stat` differ from one architecture to the next.
    #[allow(clippy::unnecessary_cast)]
    fn look(&self, name: &[u8]) -> Option<Found> {
        let stat = statat(self.opened, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if FileType::from_raw_mode(stat.st_mode as _) != FileType::Symlink {
            return Found::of(&stat);
        }
        let full = match self.place.below {
            b"" => name.to_vec(),
            below => [below, b"/", name].concat(),
        };
        Found::of(&fstat(self.root.read(&full).ok()?).ok()?)
    }
}
