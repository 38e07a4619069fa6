//! What this process takes of the host, as proc(5) says. Where there is no /proc, nothing is known.

use super::clock::Clock;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use rustix::param::{clock_ticks_per_second, page_size};
use std::ffi::{CStr, OsStr, c_char};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessFigures {
    /// Processor time, of all its threads, by user and kernel. An execve(2) leaves it as it is.
    pub cpu_micros: u64,
    /// Bytes of memory that are present, and those of its address space.
    pub resident: u64,
    pub virtual_size: u64,
    pub threads: u64,
    /// When it was started, in milliseconds since 1970.
    pub started: u64,
    /// Descriptors, and how many there may be; `None` is without a limit, or where a sandbox does not say it.
    pub open_files: u64,
    pub most_files: Option<u64>,
}

impl ProcessFigures {
    /// Of this process, now.
    pub fn now() -> Option<ProcessFigures> {
        let stat = Stat::read(&fs::read_to_string("/proc/self/stat").ok()?)?;
        let micros = |clock: Clock| clock.now().as_micros() as u64;
        let since_boot = stat.started * 1_000_000 / clock_ticks_per_second().max(1);
        let age = micros(Clock::Boot).saturating_sub(since_boot);
        Some(ProcessFigures {
            // More precise than the ticks that stand there.
            cpu_micros: micros(Clock::Process),
            resident: stat.resident_pages * page_size() as u64,
            virtual_size: stat.virtual_size,
            threads: stat.threads,
            started: micros(Clock::Real).saturating_sub(age) / 1000,
            // The one by which they are read is none of them.
            open_files: (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1),
            most_files: most_files(),
        })
    }
}

/// Not by rustix, which takes it for a call that cannot fail: it may be refused.
fn most_files() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    // Of 32 bits on some hosts.
    #[allow(clippy::unnecessary_cast)]
    (soft != RLIM_INFINITY).then_some(soft as u64)
}

struct Stat {
    threads: u64,
    /// In ticks since the host was started.
    started: u64,
    virtual_size: u64,
    resident_pages: u64,
}

impl Stat {
    /// Fields are counted behind the name of the program, which may have anything in it.
    fn read(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // The third field of proc(5) is the first of these.
        let field = |number: usize| fields.get(number - 3)?.parse().ok();
        Some(Stat { threads: field(20)?, started: field(22)?, virtual_size: field(23)?, resident_pages: field(24)? })
    }
}

/// By which path this process was executed, as the kernel has it (AT_EXECFN of getauxval(3)); empty where it says none. It is
/// asked directly: rustix looks for that function by dlsym, which finds nothing in a static program.
pub fn executed_path() -> &'static Path {
    // SAFETY: it takes any number.
    let at = unsafe { libc::getauxval(libc::AT_EXECFN) };
    if at == 0 {
        return Path::new("");
    }
    // SAFETY: a string that the kernel has put there for as long as the process runs this program.
    let path = unsafe { CStr::from_ptr(at as *const c_char) };
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let behind = "R 1 2 3 0 -1 4 5 0 0 0 6 7 0 0 20 0 9 0 4929863 3133440 427 18446744073709551615";
        for name in ["cat", "a b", ") R 1 (", ""] {
            let stat = Stat::read(&format!("854 ({name}) {behind}")).expect("all fields");
            let all = [stat.threads, stat.started, stat.virtual_size, stat.resident_pages];
            assert_eq!(all, [9, 4_929_863, 3_133_440, 427], "{name}");
        }
        assert!(Stat::read("854 (cat) R 1").is_none() && Stat::read("").is_none());
    }

    #[test]
    fn this_process_takes_something() {
        let figures = ProcessFigures::now().expect("a /proc");
        assert!(figures.resident > 0 && figures.virtual_size > figures.resident && figures.threads > 0);
        assert!(figures.open_files > 0 && figures.most_files.is_none_or(|most| most >= figures.open_files));
        let now = Clock::Real.now().as_millis() as u64;
        assert!(figures.started <= now + 1000 && figures.started + 86_400_000 > now, "{figures:?}");
    }
}
