//! Files that are asked for often, kept open or in memory: a hit opens nothing, and of what is in memory it asks the file
//! system nothing.
//!
//! An entry is looked up anew at most once a second, so what replaces a file is served within a second. What was
//! changed only just now is not kept at all: a second change within the same tick of the file system's clock would leave
//! no trace, and the first would be served for ever.
//!
//! What is in memory belongs to its tag, however old both are. The bytes of an open file are those of the moment at which
//! they are sent, so with each hit it is asked whether it is as it was when it was opened.

use super::content::{Content, read_at_once, wall_clock};
use super::source::{Selected, Version};
use crate::api::Bytes;
use crate::clock::Millis;
use foldhash::fast::RandomState;
use http1::accept::{Coding, Ranking};
use portable_atomic::AtomicU64;
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// Up to this size a file is kept in memory, a larger one open. It is what leaves together with its head.
pub(super) const SMALL: u64 = 16 * 1024;

/// How long an entry is believed without a look at the file system, in milliseconds.
const BELIEVED: u32 = 1000;

/// How long a file must not have changed for being kept, in seconds: more than any file system's clock ticks by.
const SETTLED: i64 = 2;

/// Files that are kept open, at the most.
const OPEN: usize = 64;

/// What an entry takes besides its content: itself, its name twice in the tables, its encoded fields.
const ENTRY: usize = 768;

/// The files of all roots of a site that are kept.
pub(super) struct Cache {
    shelves: RwLock<Shelves>,
    /// Bytes that entries may take together; 0 keeps nothing.
    room: usize,
    /// How long a file must not have changed for being kept, in seconds.
    settled: i64,
    /// How often a file was found here, and how often it was looked for on disk.
    hits: AtomicU64,
    misses: AtomicU64,
}

/// By name.
type Shelf = HashMap<Arc<[u8]>, Arc<CachedFile>, RandomState>;

#[derive(Default)]
struct Shelves {
    /// By root and by what the client accepts, in the order of the roots; a lookup by name then needs no copy of it.
    shelves: Vec<((usize, Ranking), Shelf)>,
    /// In the order in which they go, but for those that were used since they were last looked at.
    clock: VecDeque<Arc<CachedFile>>,
    bytes: usize,
    open: usize,
}

/// A file, or the variant of it that some client likes best, as it was when last looked up.
pub(super) struct CachedFile {
    pub content: Content,
    pub version: Version,
    pub etag: String,
    pub coding: Option<Coding>,
    pub varies: bool,
    /// The encoded fields of its usual answer, 200 to a GET without conditions.
    pub fields: OnceLock<Arc<[u8]>>,
    key: (usize, Ranking, Arc<[u8]>),
    /// When it was last looked up; several workers may see that this is too long ago, and one goes.
    checked: AtomicU32,
    used: AtomicBool,
    kept: bool,
}

impl Cache {
    pub fn new(room: usize) -> Cache {
        let (hits, misses) = (AtomicU64::new(0), AtomicU64::new(0));
        Cache { shelves: RwLock::default(), room, settled: SETTLED, hits, misses }
    }

    /// How many times a file was found here, and how many times it was looked for on disk.
    pub fn counted(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// What `find` would find, perhaps as it was up to a second ago.
    ///
    /// `find` answers the file, or what else there is.
    pub fn find<E>(
        &self,
        root: usize,
        name: &[u8],
        ranking: Ranking,
        now: Millis,
        find: impl FnOnce() -> Result<Selected, E>,
    ) -> Result<Arc<CachedFile>, E>
    where
        E: From<Errno>,
    {
        if self.room == 0 {
            return find().map(|selected| Arc::new(CachedFile::new((root, ranking, name.into()), selected)));
        }
        let known = self.get(root, name, ranking);
        if let Some(entry) = known.as_ref().filter(|entry| entry.is_believed(now) && entry.is_unchanged()) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            entry.use_again();
            return Ok(entry.clone());
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let selected = match find() {
            Ok(selected) => selected,
            Err(error) => {
                known.iter().for_each(|entry| self.remove(entry));
                return Err(error);
            }
        };
        if let Some(entry) = known {
            if entry.version == selected.version && (entry.coding, entry.varies) == (selected.coding, selected.varies) {
                entry.use_again();
                return Ok(entry);
            }
            self.remove(&entry);
        }
        let mut entry = CachedFile::new((root, ranking, name.into()), selected);
        if entry.version.is_older_than(wall_clock(), self.settled) {
            entry.content.load(&entry.version)?;
            entry.kept = entry.bytes() <= self.room;
        }
        let entry = Arc::new(entry);
        if entry.kept {
            self.insert(entry.clone());
        }
        Ok(entry)
    }

    /// One that keeps also what has changed just now.
    #[cfg(test)]
    pub fn settled(room: usize) -> Cache {
        Cache { settled: -10, ..Cache::new(room) }
    }

    /// How many files are kept.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.shelves.read().unwrap_or_else(PoisonError::into_inner).clock.len()
    }

    fn get(&self, root: usize, name: &[u8], ranking: Ranking) -> Option<Arc<CachedFile>> {
        let shelves = self.shelves.read().unwrap_or_else(PoisonError::into_inner);
        let (_, shelf) = &shelves.shelves[shelves.place(root, ranking)?];
        shelf.get(name).cloned()
    }

    fn insert(&self, entry: Arc<CachedFile>) {
        let mut shelves = self.shelves.write().unwrap_or_else(PoisonError::into_inner);
        // Another worker may have been as fast.
        shelves.take(&entry);
        shelves.bytes += entry.bytes();
        shelves.open += usize::from(entry.is_open());
        let (root, ranking, name) = &entry.key;
        let place = shelves.place(*root, *ranking).unwrap_or_else(|| {
            let place = shelves.first_of(*root);
            shelves.shelves.insert(place, ((*root, *ranking), Shelf::default()));
            place
        });
        shelves.shelves[place].1.insert(name.clone(), entry.clone());
        shelves.clock.push_back(entry);
        while shelves.bytes > self.room || shelves.open > OPEN {
            let Some(oldest) = shelves.clock.pop_front() else { return };
            if oldest.used.swap(false, Ordering::Relaxed) {
                shelves.clock.push_back(oldest);
            } else {
                shelves.take_this(&oldest);
            }
        }
    }

    /// Lets go of everything of a root.
    pub fn forget(&self, root: usize) {
        let mut shelves = self.shelves.write().unwrap_or_else(PoisonError::into_inner);
        let (gone, clock): (VecDeque<_>, _) = shelves.clock.drain(..).partition(|entry| entry.key.0 == root);
        shelves.clock = clock;
        for entry in &gone {
            shelves.take_this(entry);
        }
    }

    fn remove(&self, entry: &Arc<CachedFile>) {
        let mut shelves = self.shelves.write().unwrap_or_else(PoisonError::into_inner);
        if shelves.take_this(entry) {
            shelves.clock.retain(|other| !Arc::ptr_eq(other, entry));
        }
    }
}

impl Shelves {
    /// Where the shelf of that root and ranking is. A root has few of them.
    fn place(&self, root: usize, ranking: Ranking) -> Option<usize> {
        let first = self.first_of(root);
        let mut of_root = self.shelves[first..].iter().take_while(|((other, _), _)| *other == root);
        of_root.position(|((_, other), _)| *other == ranking).map(|at| first + at)
    }

    /// Where the shelves of that root begin, or would.
    fn first_of(&self, root: usize) -> usize {
        self.shelves.partition_point(|((other, _), _)| *other < root)
    }

    /// Takes out what stands under its key.
    fn take(&mut self, entry: &CachedFile) {
        let (root, ranking, name) = &entry.key;
        let place = self.place(*root, *ranking);
        let known = place.and_then(|place| self.shelves[place].1.get(name)).cloned();
        if let Some(known) = known {
            self.take_this(&known);
            self.clock.retain(|other| !Arc::ptr_eq(other, &known));
        }
    }

    /// Takes it out of the tables, if it is still there.
    fn take_this(&mut self, entry: &Arc<CachedFile>) -> bool {
        let (root, ranking, name) = &entry.key;
        let Some(place) = self.place(*root, *ranking) else { return false };
        let shelf = &mut self.shelves[place].1;
        if !shelf.get(name).is_some_and(|known| Arc::ptr_eq(known, entry)) {
            return false;
        }
        shelf.remove(name);
        if shelf.is_empty() {
            self.shelves.remove(place);
        }
        self.bytes -= entry.bytes();
        self.open -= usize::from(entry.is_open());
        true
    }
}

impl CachedFile {
    fn new(key: (usize, Ranking, Arc<[u8]>), selected: Selected) -> CachedFile {
        let Selected { file, version, coding, varies } = selected;
        CachedFile {
            content: Content::File(Arc::new(file)),
            etag: version.etag(),
            version,
            coding,
            varies,
            fields: OnceLock::new(),
            key,
            checked: AtomicU32::new(Millis::now().0 as u32),
            used: AtomicBool::new(false),
            kept: false,
        }
    }

    /// Whether it was looked up not long ago; if not, whoever asked first has to.
    fn is_believed(&self, now: Millis) -> bool {
        let (now, checked) = (now.0 as u32, self.checked.load(Ordering::Relaxed));
        now.wrapping_sub(checked) < BELIEVED
            || self.checked.compare_exchange(checked, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
    }

    /// Whether what would be sent is still what its tag says.
    fn is_unchanged(&self) -> bool {
        match &self.content {
            Content::Bytes(_) => true,
            Content::File(file) => Version::now(file).is_ok_and(|version| version == self.version),
        }
    }

    fn use_again(&self) {
        // A store only where it changes something: the line is shared by all workers.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether others will find it, so that what is prepared for it is not in vain.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    fn is_open(&self) -> bool {
        matches!(self.content, Content::File(_))
    }

    /// What it takes of the room.
    fn bytes(&self) -> usize {
        let content = match &self.content {
            Content::File(_) => 0,
            Content::Bytes(bytes) => bytes.len(),
        };
        ENTRY + self.key.2.len() + content
    }
}

impl Content {
    /// Reads what is small. A file that has changed since its version was asked for stays a file: the next hit sees it.
    /// One that is shorter the engine sees to, which cuts the connection, so that the client does not take the remains
    /// for the whole.
    fn load(&mut self, version: &Version) -> Result<(), Errno> {
        let Content::File(file) = self else { return Ok(()) };
        if version.length > SMALL {
            return Ok(());
        }
        let bytes = read_at_once(file, 0, version.length as usize)?;
        if bytes.len() as u64 == version.length && Version::now(file)? == *version {
            *self = Content::Bytes(Bytes::Shared(bytes.into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::Root;
    use super::super::source::{Found, Source};
    use super::super::testing::{TempDir, next_tick};
    use super::*;
    use std::cell::Cell;
    use std::fs;
    use std::time::{Duration, SystemTime};

    struct Fixture {
        dir: TempDir,
        root: Root,
        cache: Cache,
        lookups: Cell<usize>,
    }

    impl Fixture {
        /// With files that have settled: nobody can set the time of their last change, so it does not count here.
        fn new(room: usize) -> Fixture {
            Fixture::of(Cache::settled(room))
        }

        fn of(cache: Cache) -> Fixture {
            let dir = TempDir::new();
            let root = Root::open(dir.path()).expect("a root");
            Fixture { dir, root, cache, lookups: Cell::new(0) }
        }

        /// A file that has not changed for a while.
        fn write(&self, name: &str, content: impl AsRef<[u8]>, age: u64) {
            let path = self.dir.write(name, content);
            let file = fs::File::options().write(true).open(path).expect("a file");
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("a time");
        }

        fn find(&self, name: &str) -> Option<Arc<CachedFile>> {
            self.find_ranked(name, Ranking::default())
        }

        fn find_ranked(&self, name: &str, ranking: Ranking) -> Option<Arc<CachedFile>> {
            let find = || {
                self.lookups.set(self.lookups.get() + 1);
                let source = Source { root: &self.root, precompressed: &Coding::ALL };
                match source.find(name.as_bytes(), ranking)? {
                    Found::File(selected) => Ok(selected),
                    Found::Unmeasured(_) | Found::Directory | Found::Nothing => Err(Errno::ISDIR),
                }
            };
            self.cache.find::<Errno>(0, name.as_bytes(), ranking, Millis::now(), find).ok()
        }

        fn text(&self, name: &str) -> Option<String> {
            self.find(name).map(|entry| match &entry.content {
                Content::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Content::File(_) => "a file".to_owned(),
            })
        }

        /// As if a second had passed.
        fn wait(&self) {
            for (_, shelf) in self.cache.shelves.read().expect("not poisoned").shelves.iter() {
                for entry in shelf.values() {
                    entry.checked.fetch_sub(BELIEVED, Ordering::Relaxed);
                }
            }
        }

        /// Whether the figures are those of what is there.
        fn check(&self) {
            let shelves = self.cache.shelves.read().expect("not poisoned");
            let entries: Vec<_> = shelves.shelves.iter().flat_map(|(_, shelf)| shelf.values()).collect();
            assert_eq!(shelves.clock.len(), entries.len());
            assert_eq!(shelves.bytes, entries.iter().map(|entry| entry.bytes()).sum::<usize>());
            assert_eq!(shelves.open, entries.iter().filter(|entry| entry.is_open()).count());
            assert!(shelves.bytes <= self.cache.room && shelves.open <= OPEN);
        }
    }

    #[test]
    fn a_hit_looks_nothing_up_and_a_change_is_seen_within_a_second() {
        let fixture = Fixture::new(1 << 20);
        fixture.write("a", "one", 10);
        for _ in 0..5 {
            assert_eq!(fixture.text("a").as_deref(), Some("one"));
        }
        assert_eq!(fixture.lookups.get(), 1);
        fixture.wait();
        assert_eq!(fixture.text("a").as_deref(), Some("one"));
        assert_eq!(fixture.text("a").as_deref(), Some("one"));
        assert_eq!(fixture.lookups.get(), 2, "once a second");
        fixture.write("new", "two", 5);
        fs::rename(fixture.dir.path().join("new"), fixture.dir.path().join("a")).expect("a rename");
        assert_eq!(fixture.text("a").as_deref(), Some("one"), "not yet");
        fixture.wait();
        assert_eq!(fixture.text("a").as_deref(), Some("two"));
        fs::remove_file(fixture.dir.path().join("a")).expect("a file");
        fixture.wait();
        assert_eq!(fixture.text("a"), None);
        assert_eq!(fixture.text("a"), None);
        fixture.check();
    }

    #[test]
    fn what_changed_just_now_is_not_kept() {
        let fixture = Fixture::of(Cache::new(1 << 20));
        // However old it says it is.
        for (text, age) in [("one", 0), ("two", 1_000_000_000)] {
            fixture.write("a", text, age);
            let entry = fixture.find("a").expect("a file");
            assert!(!entry.is_kept() && entry.is_open());
        }
        assert_eq!(fixture.lookups.get(), 2);
        let fixture = Fixture::new(1 << 20);
        // Nor what claims to be of the future.
        fixture.write("a", "three", 0);
        let file = fs::File::options().write(true).open(fixture.dir.path().join("a")).expect("a file");
        file.set_modified(SystemTime::now() + Duration::from_secs(1000)).expect("a time");
        assert!(!fixture.find("a").expect("a file").is_kept());
        fixture.check();
    }

    /// A build that is to be the same each time, copied with its times.
    #[test]
    fn what_has_the_same_length_and_time_is_served_and_not_what_it_replaced() {
        let fixture = Fixture::new(1 << 20);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let deploy = |text: &str, how: &str| {
            let path = fixture.dir.path().join("a");
            if how == "rm and create" {
                let _ = fs::remove_file(&path);
            }
            fs::write(&path, text).expect("a file");
            fs::File::options().write(true).open(path).and_then(|file| file.set_modified(time)).expect("a time");
        };
        for how in ["in place", "rm and create"] {
            let mut before = None;
            for text in ["version=1", "version=2"] {
                next_tick(&fixture.dir);
                deploy(text, how);
                fixture.wait();
                let entry = fixture.find("a").expect("a file");
                assert!(entry.is_kept() && before.as_ref() != Some(&entry.etag), "{how}: {}", entry.etag);
                before = Some(entry.etag.clone());
                assert_eq!(fixture.text("a").as_deref(), Some(text), "{how}");
            }
        }
        fixture.check();
    }

    #[test]
    fn a_file_that_is_kept_open_and_rewritten_in_place_has_another_tag_at_once() {
        let fixture = Fixture::new(1 << 20);
        let large = |byte: u8| vec![byte; SMALL as usize + 1];
        fixture.write("film", large(b'a'), 10);
        let first = fixture.find("film").expect("a file");
        assert!(first.is_kept() && Arc::ptr_eq(&first, &fixture.find("film").expect("a file")));
        // In place, and no second passes.
        next_tick(&fixture.dir);
        fixture.write("film", large(b'b'), 10);
        let second = fixture.find("film").expect("a file");
        assert_ne!(first.etag, second.etag);
        assert_eq!(fixture.lookups.get(), 2);
        // Also what has only lost its name.
        next_tick(&fixture.dir);
        fixture.write("new", large(b'c'), 10);
        fs::rename(fixture.dir.path().join("new"), fixture.dir.path().join("film")).expect("a rename");
        assert_ne!(second.etag, fixture.find("film").expect("a file").etag);
        fixture.check();
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_not_kept_in_memory_under_the_old_tag() {
        let fixture = Fixture::new(1 << 20);
        fixture.write("a", "one", 10);
        let source = Source { root: &fixture.root, precompressed: &[] };
        let Ok(Found::File(selected)) = source.find(b"a", Ranking::default()) else { panic!("a file") };
        let mut content = Content::File(Arc::new(selected.file));
        next_tick(&fixture.dir);
        fixture.write("a", "two", 10);
        content.load(&selected.version).expect("no I/O");
        assert!(matches!(content, Content::File(_)));
    }

    #[test]
    fn an_empty_file_is_kept_too() {
        let fixture = Fixture::new(1 << 20);
        fixture.write("empty", "", 10);
        for _ in 0..2 {
            assert_eq!(fixture.text("empty").as_deref(), Some(""));
        }
        assert_eq!(fixture.lookups.get(), 1);
    }

    #[test]
    fn what_is_forgotten_of_one_root_leaves_the_others() {
        let fixture = Fixture::new(1 << 20);
        fixture.write("a", "one", 10);
        fixture.write("large", vec![b'x'; SMALL as usize + 1], 10);
        fixture.find("large").expect("a file");
        fixture.find("a").expect("a file");
        fixture.cache.forget(1);
        fixture.find("a").expect("a file");
        assert_eq!(fixture.lookups.get(), 2);
        fixture.cache.forget(0);
        fixture.check();
        fixture.find("a").expect("a file");
        assert_eq!(fixture.lookups.get(), 3);
    }

    #[test]
    fn large_files_stay_open_and_are_few() {
        let fixture = Fixture::new(1 << 20);
        for number in 0..2 * OPEN {
            let name = format!("large{number}");
            fixture.write(&name, vec![b'x'; SMALL as usize + 1], 10);
            assert_eq!(fixture.text(&name).as_deref(), Some("a file"));
        }
        fixture.check();
        assert_eq!(fixture.cache.shelves.read().expect("not poisoned").open, OPEN);
    }

    #[test]
    fn the_room_is_kept_and_what_is_used_stays() {
        let fixture = Fixture::new(20_000);
        fixture.write("often", "o", 10);
        for number in 0..100 {
            assert_eq!(fixture.text("often").as_deref(), Some("o"));
            let name = format!("seldom{number}");
            fixture.write(&name, vec![b'x'; 5000], 10);
            fixture.find(&name).expect("a file");
            fixture.check();
        }
        assert_eq!(fixture.lookups.get(), 101, "the one that is used was looked up once");
        fixture.write("too-large", vec![b'x'; 16_000], 10);
        let small = Fixture::new(10_000);
        small.write("too-large", vec![b'x'; 16_000], 10);
        assert!(!small.find("too-large").expect("a file").is_kept());
        small.check();
    }

    #[test]
    fn variants_are_entries_of_their_own() {
        let fixture = Fixture::new(1 << 20);
        fixture.write("a.js", "plain", 10);
        fixture.write("a.js.gz", "coded", 10);
        let gzip = Ranking::of([&b"gzip"[..]].into_iter(), &Coding::ALL);
        for _ in 0..2 {
            let coded = fixture.find_ranked("a.js", gzip).expect("a variant");
            let plain = fixture.find("a.js").expect("a file");
            assert_eq!((coded.coding, plain.coding), (Some(Coding::Gzip), None));
            assert!(coded.varies && plain.varies && coded.etag != plain.etag);
        }
        assert_eq!(fixture.lookups.get(), 2);
        fs::remove_file(fixture.dir.path().join("a.js.gz")).expect("a file");
        fixture.wait();
        assert_eq!(fixture.find_ranked("a.js", gzip).expect("a file").coding, None);
        assert!(!fixture.find("a.js").expect("a file").varies);
        fixture.check();
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let fixture = Fixture::new(0);
        fixture.write("a", "one", 10);
        fixture.find("a").expect("a file");
        fixture.find("a").expect("a file");
        assert_eq!(fixture.lookups.get(), 2);
    }
}
