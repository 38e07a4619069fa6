//! The C library's allocator: how much it keeps. glibc has the calls; another allocator has one arena, gives back by
//! itself or cannot be told, and there each of these does nothing and says that all is well.

/// Has at most so many arenas (mallopt(3), M_ARENA_MAX). `false` where that is refused, and there are as many as before.
#[cfg(target_env = "gnu")]
pub fn limit_arenas(arenas: u16) -> bool {
    set(libc::M_ARENA_MAX, arenas.into())
}

/// Blocks from that size on go back to the system when they are freed, and so does four times as much of what is free at
/// the heap's end (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD). `false` where that is refused.
#[cfg(target_env = "gnu")]
pub fn give_back_from(bytes: u16) -> bool {
    let large = libc::c_int::from(bytes);
    set(libc::M_MMAP_THRESHOLD, large) && set(libc::M_TRIM_THRESHOLD, 4 * large)
}

#[cfg(target_env = "gnu")]
fn set(parameter: libc::c_int, value: libc::c_int) -> bool {
    // SAFETY: it sets a number of the allocator's under the lock of its first arena. A thread that allocates meanwhile
    // reads the old one or the new, and goes on with either.
    unsafe { libc::mallopt(parameter, value) == 1 }
}

/// Gives back whole pages of what was freed (malloc_trim(3)): 3,500 connections that are gone leave 2.2 MB behind
/// otherwise. Where nothing could be given back, nothing was.
#[cfg(target_env = "gnu")]
pub fn give_back_freed() {
    // SAFETY: it only touches what is free, under the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
pub fn limit_arenas(_: u16) -> bool {
    true
}

#[cfg(not(target_env = "gnu"))]
pub fn give_back_from(_: u16) -> bool {
    true
}

#[cfg(not(target_env = "gnu"))]
pub fn give_back_freed() {}
