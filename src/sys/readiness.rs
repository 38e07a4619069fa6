//! Waiting for one descriptor (poll(2)). Milliseconds are an integer on every host; the times of ppoll(2) are not what rustix
//! takes them for with musl on MIPS.

use rustix::event::PollFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Waits until it is ready for one of these, or has failed, or until that time is over: then it is `false`.
///
/// # Errors
/// INTR, where a signal came.
pub fn wait(fd: impl AsFd, events: PollFlags, patience: Duration) -> Result<bool, Errno> {
    let mut waited = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: events.bits() as libc::c_short, revents: 0 };
    // Not a little less, again and again.
    let millis = patience.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(libc::c_int::MAX);
    // SAFETY: the call reads and writes this one, and the descriptor is open as long as it is borrowed.
    match unsafe { libc::poll(&mut waited, 1, millis) } {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        ready => Ok(ready > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Write, pipe};
    use std::time::Instant;

    #[test]
    fn what_is_ready_is_said_at_once_and_the_rest_when_the_time_is_over() {
        let (reader, mut writer) = pipe().expect("a pipe");
        assert_eq!(wait(&writer, PollFlags::OUT, Duration::MAX), Ok(true));
        for patience in [Duration::ZERO, Duration::from_micros(1), Duration::from_millis(20)] {
            let began = Instant::now();
            assert_eq!(wait(&reader, PollFlags::IN, patience), Ok(false));
            assert!(began.elapsed() >= patience, "{patience:?}");
        }
        writer.write_all(b"x").expect("room");
        assert_eq!(wait(&reader, PollFlags::IN, Duration::ZERO), Ok(true));
        drop(reader);
        assert_eq!(wait(&writer, PollFlags::empty(), Duration::MAX), Ok(true), "nobody reads any more");
    }
}
