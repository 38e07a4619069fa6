//! What stays resident while nobody asks for anything: not the program's own file.
//!
//! A start goes through most of the program once, and the kernel maps up to sixteen pages for each that is touched.
//! They are pages of the page cache, unchanged, so nothing is lost with giving them back: who needs one again finds it
//! there, or has it read from the file where memory was short meanwhile. The pages of libc stay: every process has them.

use rustix::param::page_size;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use std::ffi::{CStr, c_int, c_void};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::thread;

/// What `/proc/PID/pagemap` says of a page: that it is in memory, that it is swapped out, and that its content is the
/// file's and not a private copy.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FROM_FILE: u64 = 1 << 61;
const ENTRY: usize = size_of::<u64>();

/// In the path of libgcc's part that is loaded.
const UNWINDER: &[u8] = b"/libgcc_s.so";

/// How many pages are judged together.
const TOGETHER: usize = 64;

/// Opened at the first call and kept: in a process that has become another user it is root's, until it executes a program.
fn page_map() -> Option<&'static File> {
    static PAGE_MAP: OnceLock<Option<File>> = OnceLock::new();
    PAGE_MAP.get_or_init(|| File::open("/proc/self/pagemap").ok()).as_ref()
}

/// For a process that is about to become another user, and has done nothing as that one yet: what it is to read of itself is
/// opened. On a thread without a capability, or it would show where in the memory of the host each page is.
pub fn before_another_user() {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    let open = move || set_capabilities(None, sets).map(|()| page_map().is_some());
    // Without it nothing is given back before the first reload.
    let _ = thread::Builder::new().name("page-map".into()).spawn(open).map(thread::JoinHandle::join);
}

/// The read-only parts of the file that this process runs.
pub struct Executable {
    parts: Vec<Part>,
    page: usize,
}

/// At most [`TOGETHER`] pages of it.
struct Part {
    pages: Range<usize>,
    /// Whether they may go.
    unchanged: bool,
}

impl Executable {
    /// Finds them: text, constants, the tables of the linker and for unwinding. What the linker relocates is in a
    /// writable segment, also where it is made read-only afterwards (RELRO), and so is none of them.
    pub fn of_this_process() -> Executable {
        let mut executable = Executable { parts: Vec::new(), page: page_size() };
        // SAFETY: `add` is called until this returns, with the executable that is lent to it.
        unsafe { libc::dl_iterate_phdr(Some(add), (&raw mut executable).cast()) };
        executable
    }

    /// Gives back what is resident of them. Whoever runs there meanwhile takes a page fault that reads nothing.
    pub fn give_back(&mut self) {
        // Where there is no /proc, or it is not ours to read, nobody knows what would be lost with a page.
        let Some(pagemap) = page_map() else { return };
        // All are judged before any goes: judging would bring back what it needs itself.
        for part in &mut self.parts {
            part.unchanged = are_unchanged(pagemap, &part.pages, self.page);
        }
        for Part { pages, .. } in self.parts.iter().filter(|part| part.unchanged) {
            // SAFETY: nobody writes to these pages, and what is read there next is the same from the file. A debugger
            // that has set a breakpoint since we looked, some microseconds ago, loses that and nothing more. Where it
            // fails, as after mlockall(2), everything stays.
            unsafe { libc::madvise(pages.start as *mut c_void, pages.len(), libc::MADV_DONTNEED) };
        }
    }

    /// From whole pages to whole pages.
    fn add(&mut self, segment: Range<usize>) {
        for from in segment.clone().step_by(TOGETHER * self.page) {
            let pages = from..segment.end.min(from + TOGETHER * self.page);
            self.parts.push(Part { pages, unchanged: false });
        }
    }
}

/// Whether any of at most [`TOGETHER`] pages is in memory, and none of them is a private copy, as a breakpoint, a probe
/// or a relocation makes one.
fn are_unchanged(pagemap: &File, pages: &Range<usize>, page: usize) -> bool {
    let mut entries = [0; TOGETHER * ENTRY];
    let entries = &mut entries[..pages.len() / page * ENTRY];
    if pagemap.read_exact_at(entries, (pages.start / page * ENTRY) as u64).is_err() {
        return false;
    }
    let mut present = false;
    for entry in entries.chunks_exact(ENTRY) {
        let entry = entry.try_into().map_or(SWAPPED, u64::from_ne_bytes);
        if entry & (PRESENT | SWAPPED) != 0 && entry & FROM_FILE == 0 {
            return false;
        }
        present |= entry & PRESENT != 0;
    }
    present
}

/// Called for each object that is loaded (dl_iterate_phdr(3)), the executable first. Beside it we want what unwinds the
/// stack of a handler that panics: programs in C have none, so it is often resident for us alone. Both are linked to and
/// stay as long as the process.
unsafe extern "C" fn add(object: *mut libc::dl_phdr_info, _size: usize, executable: *mut c_void) -> c_int {
    // SAFETY: both are lent for this call, `executable` by `of_this_process`; the headers stay as long as the object.
    let (object, executable) = unsafe { (&*object, &mut *executable.cast::<Executable>()) };
    // SAFETY: a string, or nothing.
    let name = (!object.dlpi_name.is_null()).then(|| unsafe { CStr::from_ptr(object.dlpi_name) }.to_bytes());
    let unwinds = name.is_some_and(|name| name.windows(UNWINDER.len()).any(|part| part == UNWINDER));
    if !executable.parts.is_empty() && !unwinds {
        return 0;
    }
    // SAFETY: as above.
    let headers = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0) {
        // A page at an edge may be another segment's, which may be written to.
        // A library that was linked for an address may be loaded below it.
        let from = (object.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
        let to = from.wrapping_add(header.p_filesz as usize);
        executable.add(from.next_multiple_of(executable.page)..to / executable.page * executable.page);
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    fn pagemap() -> File {
        File::open("/proc/self/pagemap").expect("/proc")
    }

    /// Three pages of a file, mapped privately and looked at.
    struct Mapped(Range<usize>);

    impl Mapped {
        fn new() -> Mapped {
            let page = page_size();
            let fd = rustix::fs::memfd_create("handover-test", rustix::fs::MemfdFlags::CLOEXEC).expect("a file");
            let mut file = File::from(fd);
            file.write_all(&vec![b'f'; 3 * page]).expect("written");
            let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
            // SAFETY: a new mapping, where the kernel finds room.
            let at = unsafe { libc::mmap(std::ptr::null_mut(), 3 * page, access, libc::MAP_PRIVATE, fd, 0) };
            assert_ne!(at, libc::MAP_FAILED);
            let mapped = Mapped(at as usize..at as usize + 3 * page);
            assert_eq!(mapped.first_bytes(), "fff");
            mapped
        }

        fn first_bytes(&self) -> String {
            // SAFETY: inside of the mapping, which only this test has.
            self.0
                .clone()
                .step_by(page_size())
                .map(|at| char::from(unsafe { (at as *const u8).read_volatile() }))
                .collect()
        }

        fn write(&mut self, number: usize) {
            // SAFETY: as above.
            unsafe { ((self.0.start + number * page_size()) as *mut u8).write_volatile(b'w') };
        }

        fn are_present(&self) -> bool {
            let mut entries = [0; 3 * ENTRY];
            let at = self.0.start / page_size() * ENTRY;
            pagemap().read_exact_at(&mut entries, at as u64).expect("readable");
            let mut entries = entries.chunks_exact(ENTRY).map(|entry| entry.try_into().map(u64::from_ne_bytes));
            entries.all(|entry| entry.expect("eight bytes") & PRESENT != 0)
        }

        fn give_back(&self) {
            let mut executable = Executable { parts: Vec::new(), page: page_size() };
            executable.add(self.0.clone());
            executable.give_back();
        }
    }

    impl Drop for Mapped {
        fn drop(&mut self) {
            // SAFETY: our own mapping, of which nothing is lent.
            unsafe { libc::munmap(self.0.start as *mut c_void, self.0.len()) };
        }
    }

    #[test]
    fn unchanged_pages_go_and_come_back() {
        let mapped = Mapped::new();
        assert!(mapped.are_present());
        mapped.give_back();
        assert!(!mapped.are_present());
        assert_eq!(mapped.first_bytes(), "fff");
    }

    #[test]
    fn a_page_that_was_changed_stays_with_its_neighbours() {
        let mut mapped = Mapped::new();
        mapped.write(1);
        mapped.give_back();
        assert!(mapped.are_present());
        assert_eq!(mapped.first_bytes(), "fwf");
    }

    #[test]
    fn text_and_constants_are_parts_and_what_is_written_to_is_none() {
        static mut WRITTEN: u32 = 7;
        static RELOCATED: &&str = &"an address";
        static CONSTANT: [u8; 3] = [3, 2, 1];
        let executable = Executable::of_this_process();
        let has = |address: usize| executable.parts.iter().any(|part| part.pages.contains(&address));
        assert!(has(page_size as *const () as usize) && has(CONSTANT.as_ptr() as usize));
        assert!(!has((&raw const WRITTEN) as usize) && !has((&raw const *RELOCATED) as usize));
    }
}
