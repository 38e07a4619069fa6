//! The one scheduling policy that is not the default.

use std::io;
use std::sync::Once;

static SAID: Once = Once::new();

/// The scheduling policies that matter here.
#[derive(Clone, Copy, Debug)]
pub enum Policy {
    /// Events come in batches: a thread is not preempted for each one. 98 k requests/s without, 149 k with it.
    Batch,
    /// What everything else runs under.
    Other,
}

/// Sets the calling thread's policy (sched_setscheduler(2)), which needs no privilege between these two; where it is
/// refused all the same, things go on a little slower, and that is said once. It is the system call itself: musl's function of
/// that name does nothing but say ENOSYS, since POSIX means by it a process and not a thread. What the thread starts
/// inherits it: SCHED_RESET_ON_FORK is for real-time policies alone (sched(7)).
pub fn schedule(policy: Policy) {
    let policy = match policy {
        Policy::Batch => libc::SCHED_BATCH,
        Policy::Other => libc::SCHED_OTHER,
    };
    // What the kernel reads is the priority alone, which these two have none of.
    let priority: libc::c_int = 0;
    // SAFETY: `priority` lives across the call, which only reads it; 0 means the calling thread.
    if unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) } != 0 {
        let error = io::Error::last_os_error();
        SAID.call_once(|| {
            log::info!(
                "the scheduling policy for batches is refused, which costs up to a third of the requests/s: {error}"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> i32 {
        // SAFETY: the call takes a number and gives one; 0 means the calling thread.
        unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) as i32 }
    }

    #[test]
    fn a_thread_has_the_policy_that_was_set_and_so_has_what_it_starts() {
        let thread = std::thread::spawn(|| {
            let before = policy();
            schedule(Policy::Batch);
            let batch = policy();
            let beside = std::thread::spawn(policy).join().expect("a policy");
            schedule(Policy::Other);
            (before, batch, beside, policy())
        });
        let wanted = (libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_BATCH, libc::SCHED_OTHER);
        assert_eq!(thread.join().expect("it ends"), wanted);
    }
}
