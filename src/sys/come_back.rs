//! The way back from an `execve` that led nowhere: whatever ends this process before it has said that it serves executes
//! another image in its place, with the same pid and the same open files.
//!
//! Three things end a process, and each leads back: exit(3), as behind the end of `main` or a panic of it (atexit(3)); a
//! signal that says that it crashed (sigaction(2), on the alternate stack that std gives to each thread, so that an
//! overflow of a stack comes back too); and a start that hangs (setitimer(2), whose signal is ALRM). What cannot come
//! back: `_exit`, KILL, and what fails before the first line of `main`, as a library that the loader does not find.
//!
//! execve(2) keeps the signal mask, the interval timer, ignored signals, the working directory and the umask, so all are
//! set anew first: in the handler of a signal that very signal is blocked, and a timer would end the image that it comes
//! back to. ALRM and its timer are ours until [`disarm`], unless the application has taken them meanwhile.

use rustix::io::Errno;
use std::cell::UnsafeCell;
use std::ffi::{CString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What says that a process crashed, or that its start took too long.
const SIGNALS: [(c_int, &str); 5] = [
    (libc::SIGSEGV, "it crashed (SIGSEGV)"),
    (libc::SIGBUS, "it crashed (SIGBUS)"),
    (libc::SIGILL, "it crashed (SIGILL)"),
    (libc::SIGABRT, "it crashed (SIGABRT)"),
    (libc::SIGALRM, "it did not serve in time"),
];

/// What to execute.
pub struct Image {
    /// An open descriptor of the program, which stays open.
    pub program: RawFd,
    pub args: Vec<CString>,
    pub environment: Vec<CString>,
    /// The variable that gets the reason, `NAME=` and what stands before the reason in it.
    pub reason: String,
}

/// Everything that a signal handler needs, made before it can run.
struct Prepared {
    program: RawFd,
    /// `/proc/self/fd/N`, for kernels and sandboxes without execveat(2).
    path: CString,
    args: Pointers,
    /// For each of `SIGNALS`, with its reason.
    environments: Vec<Pointers>,
    /// Whatever else there is to say is said in this one.
    environment: Vec<CString>,
    reason: String,
    mask: libc::sigset_t,
    pid: libc::pid_t,
    before: Vec<libc::sigaction>,
    timer_before: libc::itimerval,
    /// The working directory, or -1.
    directory: RawFd,
    umask: Option<libc::mode_t>,
}

/// Strings, and their addresses with a null behind them, as execve(2) wants them.
struct Pointers {
    addresses: Vec<*const c_char>,
    _strings: Vec<CString>,
}

impl Pointers {
    fn new(strings: Vec<CString>) -> Pointers {
        // The bytes of a CString stay where they are when it is moved.
        let addresses = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Pointers { addresses, _strings: strings }
    }
}

/// Written once, before `STATE` says so, and only read after that.
struct Once(UnsafeCell<MaybeUninit<Prepared>>);

// SAFETY: see `Once`: whoever reads it has seen `ARMED`, which is stored with Release behind the one write.
unsafe impl Sync for Once {}

static PREPARED: Once = Once(UnsafeCell::new(MaybeUninit::uninit()));
static STATE: AtomicU32 = AtomicU32::new(UNUSED);
static AT_EXIT: AtomicBool = AtomicBool::new(false);
/// Descriptors that go back too, although they are close-on-exec by now.
static KEPT: AtomicPtr<Vec<RawFd>> = AtomicPtr::new(ptr::null_mut());
/// Why nothing will come of this process, as far as it was said.
static WHY: Mutex<Option<String>> = Mutex::new(None);

const UNUSED: u32 = 0;
const ARMING: u32 = 1;
const ARMED: u32 = 2;
/// One thread is on its way back, or this process serves.
const OVER: u32 = 3;

/// From here on, and until [`disarm`], whatever ends this process executes that image instead; at the latest after
/// `limit`. Once in a process.
///
/// # Errors
/// What sigaction(2), setitimer(2) or atexit(3) say. Then a part of it may be in force.
pub fn arm(image: Image, limit: Duration) -> io::Result<()> {
    if STATE.compare_exchange(UNUSED, ARMING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let Image { program, args, environment, reason } = image;
    let with = |text: &str| Pointers::new([environment.clone(), vec![variable(&reason, text)]].concat());
    let environments = SIGNALS.iter().map(|(_, text)| with(text)).collect();
    // SAFETY: all zero is a value of it, and the call writes it.
    let mut mask: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set, and `mask` is there to be written.
    checked(unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), &mut mask) })?;
    for (signal, _) in SIGNALS {
        // SAFETY: `mask` was filled by the call above, and these are signals.
        unsafe { libc::sigdelset(&mut mask, signal) };
    }
    // Whoever executed this may have had them blocked, and then a start that hangs would not be heard.
    // SAFETY: `mask` was filled above.
    checked(unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &mask, ptr::null_mut()) })?;
    let mut prepared = Prepared {
        program,
        path: CString::new(format!("/proc/self/fd/{program}"))?,
        args: Pointers::new(args),
        environments,
        environment,
        reason,
        mask,
        // SAFETY: it only answers a number.
        pid: unsafe { libc::getpid() },
        before: Vec::new(),
        // SAFETY: all zero is a value of it: no timer.
        timer_before: unsafe { std::mem::zeroed() },
        // SAFETY: the path is a string; a directory that cannot be opened is -1.
        directory: unsafe { libc::open(c".".as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) },
        umask: umask(),
    };
    // SAFETY: it only writes what is there to be written.
    unsafe { libc::getitimer(libc::ITIMER_REAL, &mut prepared.timer_before) };
    for (signal, _) in SIGNALS {
        // SAFETY: all zero is a value of it, the fields that count are set below.
        let (mut action, mut before): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as extern "C" fn(c_int) as usize;
        action.sa_flags = libc::SA_ONSTACK;
        // SAFETY: `on_signal` does nothing until `STATE` says that what it needs is there, and then only calls what
        // signal-safety(7) allows; both structures live across the call.
        if unsafe { libc::sigaction(signal, &action, &mut before) } != 0 {
            return Err(io::Error::last_os_error());
        }
        prepared.before.push(before);
    }
    // SAFETY: `STATE` is ARMING, so nobody reads it, and nobody else writes it.
    unsafe { (*PREPARED.0.get()).write(prepared) };
    STATE.store(ARMED, Ordering::Release);
    // What it calls stays for as long as the process, and asks `STATE`.
    // SAFETY: the function takes nothing and does not unwind.
    if !AT_EXIT.swap(true, Ordering::SeqCst) && unsafe { libc::atexit(on_exit) } != 0 {
        return Err(io::Error::other("no room for a handler at exit"));
    }
    set_timer(limit)
}

/// This process serves: nothing leads back any more, and signals are handled as before.
pub fn disarm() {
    if !is_armed() {
        return;
    }
    // SAFETY: `STATE` is ARMED, so it was written, and it is never written again.
    let prepared = unsafe { (*PREPARED.0.get()).assume_init_ref() };
    // Before anything else, so that no alarm comes of a start that is over. Where the application has a handler of its own by
    // now, it has a timer of its own.
    let (ours, nobodys) = handled_by(libc::SIGALRM);
    if ours || nobodys {
        // A timer that cannot be disarmed was never armed.
        let _ = set_timer(Duration::ZERO);
    }
    if ours {
        // One that is pending goes when it is ignored.
        // SAFETY: no handler is set.
        unsafe { libc::signal(libc::SIGALRM, libc::SIG_IGN) };
    }
    if STATE.compare_exchange(ARMED, OVER, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return;
    }
    for ((signal, _), before) in SIGNALS.iter().zip(&prepared.before) {
        if handled_by(*signal).0 || (ours && *signal == libc::SIGALRM) {
            // SAFETY: what stood there before.
            unsafe { libc::sigaction(*signal, before, ptr::null_mut()) };
        }
    }
    if ours {
        // SAFETY: it reads what was read from there.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &prepared.timer_before, ptr::null_mut()) };
    }
    if prepared.directory >= 0 {
        // SAFETY: it was opened here, and is used on the way back only, which there is none of any more.
        unsafe { libc::close(prepared.directory) };
    }
}

/// These descriptors too are needed on the way back, so they go through its execve even if they are close-on-exec. They
/// have to stay open until [`disarm`]. By one thread at a time.
pub fn keep(numbers: &[RawFd]) {
    let kept = KEPT.load(Ordering::Acquire);
    // SAFETY: what was stored is never freed nor changed: a handler may read it at any moment.
    let before: &[RawFd] = unsafe { kept.as_ref() }.map_or(&[], |kept| kept);
    KEPT.store(Box::into_raw(Box::new([before, numbers].concat())), Ordering::Release);
}

/// What went wrong, for the moment at which this process ends; the first that is said counts.
pub fn remember(why: &str) {
    if is_armed() {
        WHY.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_owned());
    }
}

/// Whether something leads back.
pub fn is_armed() -> bool {
    STATE.load(Ordering::Acquire) == ARMED
}

/// Goes back, for that reason. Returns only if nothing leads back, or if the image cannot be executed.
pub fn go(why: &str) -> Option<io::Error> {
    let prepared = begin()?;
    let environment = Pointers::new([prepared.environment.clone(), vec![variable(&prepared.reason, why)]].concat());
    Some(execute(prepared, &environment).into())
}

fn variable(name: &str, value: &str) -> CString {
    let value: String = value.chars().map(|char| if char.is_control() { ' ' } else { char }).take(2000).collect();
    // Neither has a NUL any more.
    CString::new(format!("{name}{value}")).unwrap_or_default()
}

/// The one who leads back, if this is the process that is to come back.
fn begin() -> Option<&'static Prepared> {
    // A child that was forked since then is not.
    // SAFETY: it only answers a number.
    let pid = unsafe { libc::getpid() };
    if STATE.load(Ordering::Acquire) != ARMED {
        return None;
    }
    // SAFETY: `STATE` is ARMED, so it was written, and it is never written again.
    let prepared = unsafe { (*PREPARED.0.get()).assume_init_ref() };
    let first = prepared.pid == pid && STATE.compare_exchange(ARMED, OVER, Ordering::AcqRel, Ordering::Acquire).is_ok();
    first.then_some(prepared)
}

/// Only what signal-safety(7) allows.
fn execute(prepared: &Prepared, environment: &Pointers) -> Errno {
    let _ = set_timer(Duration::ZERO);
    let kept = KEPT.load(Ordering::Acquire);
    // SAFETY: what was stored is never freed nor changed.
    for number in unsafe { kept.as_ref() }.into_iter().flatten() {
        // SAFETY: it touches no memory, whatever the number stands for.
        unsafe { libc::fcntl(*number, libc::F_SETFD, 0) };
    }
    // The image that was executed may have gone elsewhere.
    // SAFETY: neither touches memory.
    unsafe {
        libc::fchdir(prepared.directory);
        if let Some(umask) = prepared.umask {
            libc::umask(umask);
        }
    }
    // An alarm that is pending goes when it is ignored; and what is handled is at its default after execve.
    // SAFETY: neither runs code.
    unsafe {
        libc::signal(libc::SIGALRM, libc::SIG_IGN);
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::pthread_sigmask(libc::SIG_SETMASK, &prepared.mask, ptr::null_mut());
    }
    let (args, environment) = (prepared.args.addresses.as_ptr(), environment.addresses.as_ptr());
    // SAFETY: both lists end with a null and live as long as the process, or as `environment`; the path is empty.
    unsafe {
        libc::syscall(libc::SYS_execveat, prepared.program, c"".as_ptr(), args, environment, libc::AT_EMPTY_PATH);
        libc::execve(prepared.path.as_ptr(), args, environment);
    }
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

extern "C" fn on_signal(signal: c_int) {
    match begin() {
        Some(prepared) => {
            let at = SIGNALS.iter().position(|(other, _)| *other == signal).unwrap_or(0);
            execute(prepared, &prepared.environments[at]);
        }
        // Another thread is on its way back, and this one ends with it; what would crash again has to wait for that.
        // SAFETY: no descriptors are looked at.
        None if STATE.load(Ordering::Acquire) == OVER => _ = unsafe { libc::poll(ptr::null_mut(), 0, 2000) },
        None => {}
    }
    // There is no way: it does what it does by default, as soon as this handler has ended.
    // SAFETY: neither runs code, and a signal that was raised here waits for the end of its handler.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

extern "C" fn on_exit() {
    let why = WHY.lock().unwrap_or_else(PoisonError::into_inner).take();
    let _ = go(why.as_deref().unwrap_or("it ended before it served"));
}

/// Whether it is ours to handle that signal, and whether nobody does.
fn handled_by(signal: c_int) -> (bool, bool) {
    // SAFETY: all zero is a value of it.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set, and `action` is there to be written.
    unsafe { libc::sigaction(signal, ptr::null(), &mut action) };
    let handler = action.sa_sigaction;
    (handler == on_signal as extern "C" fn(c_int) as usize, handler == libc::SIG_DFL)
}

/// As /proc says it: umask(2) only tells it by changing it, for every thread.
fn umask() -> Option<libc::mode_t> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    libc::mode_t::from_str_radix(umask.trim(), 8).ok()
}

fn set_timer(limit: Duration) -> io::Result<()> {
    // Of the C library's own types, which are of 32 bits on some hosts; their names are about to change with musl.
    let value =
        libc::timeval { tv_sec: limit.as_secs().min(i32::MAX as u64) as _, tv_usec: limit.subsec_micros() as _ };
    let timer = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: it is read, and nothing is written.
    match unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn checked(answer: c_int) -> io::Result<()> {
    match answer {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_a_variable() {
        let long = format!("a\nb\0c{}", "é".repeat(3000));
        let variable = variable("NAME=7:", &long).into_string().expect("text");
        assert!(variable.starts_with("NAME=7:a b c\u{e9}") && variable.chars().count() == 2007, "{variable}");
    }

    #[test]
    fn lists_end_with_a_null() {
        let pointers = Pointers::new(vec![c"a".to_owned(), c"b".to_owned()]);
        assert_eq!(pointers.addresses.len(), 3);
        assert!(pointers.addresses[2].is_null() && !pointers.addresses[0].is_null());
    }
}
