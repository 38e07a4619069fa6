//! The kernel's clocks, right on every host: in 64 bits also where the C library has 32, and without a panic.
//!
//! The standard library panics where the time of day does not fit what the C library has for it (musl on 32-bit hosts, from
//! 2038 on), and rustix takes that for 64 bits on MIPS, where it is not.

use std::time::Duration;

/// Which clock (clock_gettime(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Since the host was started, without its sleep.
    Monotonic,
    /// The same to a few milliseconds: it costs no system call and no time-stamp counter.
    MonotonicCoarse,
    /// Since the host was started, its sleep included.
    Boot,
    /// Since 1970.
    Real,
    /// The same, as the kernel's files are dated.
    RealCoarse,
    /// What the threads of this process have run.
    Process,
}

impl Clock {
    /// What it shows. Nothing, where it shows a time before its beginning, or is not there.
    pub fn now(self) -> Duration {
        #[cfg(all(target_pointer_width = "32", not(any(target_arch = "arm", target_arch = "x86"))))]
        return by_system_call(self);
        #[cfg(not(all(target_pointer_width = "32", not(any(target_arch = "arm", target_arch = "x86")))))]
        return by_rustix(self);
    }

    #[cfg(any(test, all(target_pointer_width = "32", not(any(target_arch = "arm", target_arch = "x86")))))]
    fn number(self) -> libc::clockid_t {
        match self {
            Clock::Monotonic => libc::CLOCK_MONOTONIC,
            Clock::MonotonicCoarse => libc::CLOCK_MONOTONIC_COARSE,
            Clock::Boot => libc::CLOCK_BOOTTIME,
            Clock::Real => libc::CLOCK_REALTIME,
            Clock::RealCoarse => libc::CLOCK_REALTIME_COARSE,
            Clock::Process => libc::CLOCK_PROCESS_CPUTIME_ID,
        }
    }
}

/// A time that has not begun is none.
fn duration(seconds: i64, nanoseconds: i64) -> Duration {
    match (u64::try_from(seconds), u32::try_from(nanoseconds)) {
        (Ok(seconds), Ok(nanoseconds @ ..1_000_000_000)) => Duration::new(seconds, nanoseconds),
        _ => Duration::ZERO,
    }
}

/// Where rustix makes the call itself, or the C library has 64 bits.
#[cfg(not(all(target_pointer_width = "32", not(any(target_arch = "arm", target_arch = "x86")))))]
fn by_rustix(clock: Clock) -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(match clock {
        Clock::Monotonic => ClockId::Monotonic,
        Clock::MonotonicCoarse => ClockId::MonotonicCoarse,
        Clock::Boot => ClockId::Boottime,
        Clock::Real => ClockId::Realtime,
        Clock::RealCoarse => ClockId::RealtimeCoarse,
        Clock::Process => ClockId::ProcessCPUTime,
    });
    duration(time.tv_sec, time.tv_nsec)
}

/// The system call that has 64 bits, since Linux 5.1; before that the one of the C library.
#[cfg(any(test, all(target_pointer_width = "32", not(any(target_arch = "arm", target_arch = "x86")))))]
fn by_system_call(clock: Clock) -> Duration {
    // On 32-bit hosts clock_gettime64, which has the same number everywhere but for the 4000 of MIPS.
    #[cfg(target_pointer_width = "64")]
    const CLOCK_GETTIME: libc::c_long = libc::SYS_clock_gettime;
    #[cfg(all(target_pointer_width = "32", target_arch = "mips"))]
    const CLOCK_GETTIME: libc::c_long = 4403;
    #[cfg(all(target_pointer_width = "32", not(target_arch = "mips")))]
    const CLOCK_GETTIME: libc::c_long = 403;

    let mut time = [0_i64; 2];
    // SAFETY: the call writes two numbers of 64 bits, for which there is room, and keeps nothing.
    if unsafe { libc::syscall(CLOCK_GETTIME, clock.number(), time.as_mut_ptr()) } == 0 {
        return duration(time[0], time[1]);
    }
    // SAFETY: zeros are a `timespec`.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes the one that it is given, which is the C library's own.
    match unsafe { libc::clock_gettime(clock.number(), &mut time) } {
        0 => duration(time.tv_sec as i64, time.tv_nsec as i64),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    const ALL: [Clock; 6] =
        [Clock::Monotonic, Clock::MonotonicCoarse, Clock::Boot, Clock::Real, Clock::RealCoarse, Clock::Process];

    #[test]
    fn both_ways_show_the_same_times() {
        for clock in ALL {
            let (before, there, after) = (clock.now(), by_system_call(clock), clock.now());
            assert!(before <= there && there <= after, "{clock:?}: {before:?} {there:?} {after:?}");
            assert!(after - before < Duration::from_secs(60), "{clock:?}: {before:?} {after:?}");
        }
    }

    #[test]
    fn the_time_of_day_is_that_of_others() {
        let others = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        for clock in [Clock::Real, Clock::RealCoarse] {
            assert!(clock.now().abs_diff(others) < Duration::from_secs(60), "{clock:?}: {:?}", clock.now());
        }
    }

    #[test]
    fn a_time_of_any_year_is_one_and_nonsense_is_none() {
        for seconds in [0, 1, i64::from(i32::MAX) + 1, 4_102_444_800, 253_402_300_800] {
            assert_eq!(duration(seconds, 999_999_999), Duration::new(seconds as u64, 999_999_999));
        }
        for (seconds, nanoseconds) in [(-1, 0), (i64::MIN, 0), (1, -1), (1, 1_000_000_000), (1, i64::MAX)] {
            assert_eq!(duration(seconds, nanoseconds), Duration::ZERO);
        }
    }
}
