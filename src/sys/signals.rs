//! What signals do to this process, as far as `nix` has no safe call for it.

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use std::io;

/// Ignores a signal, in the whole process (signal(2)). Refused for KILL and STOP alone, which changes nothing.
pub fn ignore(ignored: Signal) -> io::Result<()> {
    // SAFETY: to ignore it runs no code of anybody's, and the handler that was set before is only forgotten.
    unsafe { signal(ignored, SigHandler::SigIgn) }?;
    Ok(())
}

/// Lets children be waited for (sigaction(2)). Whoever ignores CHLD, as a parent may have done before it executed this
/// program, or has set SA_NOCLDWAIT, cannot wait for a child: it is gone with its status, and no check of a reload could
/// be said to have succeeded. A handler stays. Refused nowhere; it would be an error.
pub fn wait_for_children() -> io::Result<()> {
    // SAFETY: all zero is a value of it, and the kernel writes it.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set, and `action` is there to be written.
    if unsafe { libc::sigaction(libc::SIGCHLD, std::ptr::null(), &mut action) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if action.sa_sigaction != libc::SIG_IGN && action.sa_flags & libc::SA_NOCLDWAIT == 0 {
        return Ok(());
    }
    if action.sa_sigaction == libc::SIG_IGN {
        action.sa_sigaction = libc::SIG_DFL;
    }
    action.sa_flags &= !libc::SA_NOCLDWAIT;
    // SAFETY: the default, or the handler that is set already.
    match unsafe { libc::sigaction(libc::SIGCHLD, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes those of these signals that are pending, for the calling thread or for the process (sigtimedwait(2)), and says
/// whether there were any. Only what the caller blocks can be. Where the call is refused, there were none.
pub fn take_pending(signals: &SigSet) -> bool {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut any = false;
    // SAFETY: both arguments live across the call, which only reads them, and no information is asked for.
    while unsafe { libc::sigtimedwait(signals.as_ref(), std::ptr::null_mut(), &now) } > 0 {
        any = true;
    }
    any
}
