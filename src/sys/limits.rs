//! What a process may have of the host (getrlimit(2)).

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};
use rustix::param::page_size;
use std::fs;

/// Sees to it that the stack of the first thread can grow to so many bytes: that limit is looked at each time it grows, and
/// may be raised up to the hard one.
///
/// # Errors
/// How many it can grow to, where that is less.
pub fn make_room_for_stack(bytes: u64) -> Result<(), u64> {
    // One that cannot be read is none that we know of.
    let Some((soft, hard)) = limits_of_stack() else { return Ok(()) };
    if soft >= bytes {
        return Ok(());
    }
    let raised = bytes.min(hard);
    match setrlimit(Resource::RLIMIT_STACK, raised as rlim_t, hard as rlim_t) {
        Ok(()) if raised == bytes => Ok(()),
        Ok(()) => Err(raised),
        Err(_) => Err(soft),
    }
}

/// The soft one and the hard one.
fn limits_of_stack() -> Option<(u64, u64)> {
    // Of 32 bits on some hosts.
    #[allow(clippy::unnecessary_cast)]
    getrlimit(Resource::RLIMIT_STACK).map(|(soft, hard)| (soft as u64, hard as u64)).ok()
}

/// Bytes of data that this process may still have: heaps and stacks of threads (RLIMIT_DATA of getrlimit(2)). `None` where
/// these are not limited, or it cannot be known.
pub fn data_left() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_DATA).ok()?;
    if soft == RLIM_INFINITY {
        return None;
    }
    // The sixth field of statm of proc(5), in pages.
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split_ascii_whitespace().nth(5)?.parse().ok()?;
    #[allow(clippy::unnecessary_cast)]
    Some((soft as u64).saturating_sub(pages * page_size() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only up, so that no other test of this process is short of stack; more than anybody has is what there is.
    #[test]
    fn a_stack_has_the_room_that_it_may_have() {
        assert_eq!(make_room_for_stack(16 << 10), Ok(()));
        let (_, hard) = limits_of_stack().expect("limits");
        if let Some(more) = hard.checked_add(1) {
            assert_eq!(make_room_for_stack(more), Err(hard));
        }
    }
}
