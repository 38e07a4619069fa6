//! What an exec leaves behind it so that it can come back: the image that ran, the configuration that it ran with, and
//! where the state is.
//!
//! Until the new image serves, the old one is executed again whatever ends the new one; see [`come_back`]. It finds the
//! state as it was left, since nobody has taken anything of it, and the reason beside it.

use super::anonymous::{Reader, anonymous_file};
use super::program::{CAME_BACK, PATH, Program, RELOAD, SAID, STATE, WAY_BACK};
use super::{configuration, link};
use crate::sys::come_back::{self, Image};
use crate::sys::descriptors;
use http1::number::decimal;
use serde_bytes::ByteBuf;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, Once, OnceLock, PoisonError};
use std::time::Duration;

/// How long a new image may take until it serves. Every client waits meanwhile.
const START_LIMIT: Duration = Duration::from_secs(10);

/// What is in use as a copy and needed as it is on the way back: open until this process serves.
static ORIGINALS: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// What has failed, one time after the other: which candidate, how many times, and for which reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// See [`Candidate::fingerprint`](super::candidate::Candidate::fingerprint).
    pub candidate: u64,
    pub count: u64,
    /// A hash of the reason.
    pub reason: u64,
}

impl Failures {
    /// One more.
    pub fn and(self, candidate: u64, reason: &str) -> Failures {
        let reason = hash(reason.as_bytes());
        let again = (self.candidate, self.reason) == (candidate, reason);
        Failures { candidate, reason, count: if again { self.count + 1 } else { 1 } }
    }

    fn read(text: &str) -> Option<Failures> {
        let mut numbers = text.split(',').map(decimal);
        let mut next = || numbers.next().flatten();
        Some(Failures { candidate: next()?, count: next()?, reason: next()? })
    }

    fn text(self) -> String {
        format!("{},{},{}", self.candidate, self.count, self.reason)
    }
}

/// The same in every process of this build.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What the image was started with, in a file without a name: what executes it again may have been started with something
/// else, by a script for example.
///
/// # Errors
/// Where there is no place for such a file.
pub fn started_with(program: &Program) -> io::Result<File> {
    let bytes = |list: &[CString]| list.iter().map(|it| ByteBuf::from(it.as_bytes())).collect::<Vec<_>>();
    let written = postcard::to_allocvec(&(bytes(program.args()), bytes(program.environment())));
    anonymous_file(&written.map_err(io::Error::other)?, Reader::Other)
}

/// The variable for a new image.
pub fn variable(
    image: RawFd,
    started_with: RawFd,
    failures: Failures,
    candidate: u64,
    configuration: &OsStr,
) -> OsString {
    let (pid, failures) = (std::process::id(), failures.text());
    let mut value = OsString::from(format!("{pid}:{image}:{started_with}:{failures}:{candidate}:"));
    value.push(configuration);
    value
}

/// What was left behind, as the variable says it.
struct Left {
    image: RawFd,
    started_with: RawFd,
    failures: String,
    candidate: String,
    configuration: OsString,
}

impl Left {
    fn of_this_process() -> Option<Left> {
        let value = env::var_os(WAY_BACK)?;
        let mut parts = value.as_bytes().splitn(6, |&byte| byte == b':');
        let mut text = || std::str::from_utf8(parts.next()?).ok();
        let (pid, image, started_with) = (decimal::<u32>(text()?)?, decimal(text()?)?, decimal(text()?)?);
        let (failures, candidate) = (text()?.to_owned(), text()?.to_owned());
        let configuration = OsString::from_vec(parts.next()?.to_vec());
        let left = Left { image, started_with, failures, candidate, configuration };
        Some(left).filter(|_| pid == std::process::id() && image > 2 && started_with > 2)
    }

    /// The descriptors that were opened for this attempt alone.
    fn of_this_attempt(&self) -> Vec<RawFd> {
        let configuration = configuration::handed().map(|(number, _)| number);
        let old = configuration::read(&self.configuration).map(|(number, _)| number);
        [Some(self.image), Some(self.started_with), configuration, old].into_iter().flatten().collect()
    }

    /// Arguments and environment.
    fn started_with(&self) -> io::Result<(Vec<CString>, Vec<CString>)> {
        // Opened anew: without /proc there would be no image either.
        let bytes = fs::read(format!("/proc/self/fd/{}", self.started_with))?;
        let (args, environment): (Vec<ByteBuf>, Vec<ByteBuf>) =
            postcard::from_bytes(&bytes).map_err(io::Error::other)?;
        let strings = |list: Vec<ByteBuf>| -> Result<Vec<CString>, _> {
            list.into_iter().map(|it| CString::new(it.into_vec())).collect()
        };
        Ok((strings(args)?, strings(environment)?))
    }
}

/// Sees to it that this process comes back, if it was executed by one that can be come back to. Called by whatever an
/// application calls first.
pub fn arm() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Some(left) = Left::of_this_process() else { return };
        // Before anything else is opened.
        let _ = Program::of_this_process();
        let (args, mut environment) = match left.started_with() {
            Ok(both) => both,
            Err(error) => return take_down(&error),
        };
        for name in [STATE, RELOAD, SAID, PATH] {
            environment.extend(env::var_os(name).map(|value| entry(name, &value)));
        }
        if !left.configuration.is_empty() {
            environment.push(entry(configuration::VARIABLE, &left.configuration));
        }
        let numbers: Vec<String> = left.of_this_attempt().iter().map(RawFd::to_string).collect();
        let (pid, numbers) = (std::process::id(), numbers.join(","));
        let reason = format!("{CAME_BACK}={pid}:{numbers}:{}:{}:", left.failures, left.candidate);
        let image = Image { program: left.image, args, environment, reason };
        let limit = link::test_time("HANDOVER_TEST_START_LIMIT", START_LIMIT);
        if let Err(error) = come_back::arm(image, limit) {
            take_down(&error);
        }
        remember_panics();
    });
}

fn entry(name: &str, value: &OsStr) -> CString {
    CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).unwrap_or_default()
}

/// Why there is no way back, until there is a log for it.
static NOTE: Mutex<Option<String>> = Mutex::new(None);

fn take_down(error: &io::Error) {
    let note = format!("there is no way back from this reload: {error}");
    *NOTE.lock().unwrap_or_else(PoisonError::into_inner) = Some(note);
}

/// What the log is to say of the way back.
pub fn take_note() -> Option<String> {
    NOTE.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A panic hook.
pub type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send + 'static>;

/// The one that was there before ours, and whether it was std's.
static HOOK_BEFORE: OnceLock<(Hook, bool)> = OnceLock::new();

/// A panic that ends a process says why.
fn remember_panics() {
    let (hook, is_std) = taken_hook();
    if HOOK_BEFORE.set((hook, is_std)).is_ok() {
        panic::set_hook(own_hook());
    }
}

/// Takes away the hook that somebody has set: not std's, nor ours over that.
pub fn take_hook() -> Option<Hook> {
    let (hook, is_std) = taken_hook();
    let is_own = std::ptr::eq(&raw const *hook, &raw const *own_hook());
    let over_std = HOOK_BEFORE.get().is_some_and(|(_, is_std)| *is_std);
    let is_nobodys = is_std || (is_own && over_std);
    (!is_nobodys).then_some(hook)
}

/// The hook that was set, and whether that was std's.
fn taken_hook() -> (Hook, bool) {
    let set = panic::take_hook();
    // With none set any more this is std's: the same function, which is no more than its table.
    let default = panic::take_hook();
    let is_std = std::ptr::eq(&raw const *set, &raw const *default);
    (set, is_std)
}

/// In one place, so that it is always the same function with the same table.
#[inline(never)]
fn own_hook() -> Hook {
    Box::new(|panic| {
        remember_panic(panic);
        if let Some((before, _)) = HOOK_BEFORE.get() {
            before(panic);
        }
    })
}

/// Remembers what a panic says, as long as it may be why there is a way back.
pub fn remember_panic(panic: &PanicHookInfo<'_>) {
    if come_back::is_armed() {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        come_back::remember(&format!("it panicked: {text}"));
    }
}

/// Whether this process has not served yet, and comes back if it ends.
pub fn is_armed() -> bool {
    come_back::is_armed()
}

/// Goes back for what has gone wrong. Returns if nothing leads back.
pub fn go(why: &str) {
    come_back::remember(why);
    if let Some(error) = come_back::go(why) {
        log::error!("cannot come back from a reload that failed ({why}): {error}");
    }
}

/// These are needed on the way back, and stay open until this process serves.
pub fn keep(numbers: &[RawFd]) {
    if come_back::is_armed() {
        come_back::keep(numbers);
    }
}

/// A copy to be used and closed at will, while the original stays as it is until this process serves.
///
/// # Errors
/// There are no more descriptors.
pub fn copy(original: OwnedFd) -> io::Result<OwnedFd> {
    if !come_back::is_armed() {
        return Ok(original);
    }
    let copy = original.as_fd().try_clone_to_owned()?;
    keep_open(original);
    Ok(copy)
}

/// It stays open, and goes back, until this process serves.
pub fn keep_open(original: OwnedFd) {
    if come_back::is_armed() {
        come_back::keep(&[original.as_raw_fd()]);
        ORIGINALS.lock().unwrap_or_else(PoisonError::into_inner).push(original);
    }
}

/// This process serves: see [`come_back::disarm`]. What was kept for the way back is closed.
pub fn serves() {
    let armed = come_back::is_armed();
    come_back::disarm();
    ORIGINALS.lock().unwrap_or_else(PoisonError::into_inner).clear();
    if armed {
        let numbers = Left::of_this_process().map(|left| left.of_this_attempt());
        close(&numbers.unwrap_or_default());
    }
}

/// Descriptors of which nothing is left but their numbers.
fn close(numbers: &[RawFd]) {
    configuration::closed();
    for &number in numbers {
        // One that is not there any more is closed.
        drop(descriptors::own_one(number));
    }
}

/// What an attempt that led back here has left.
#[derive(Debug)]
pub struct CameBack {
    /// Why the program that was executed did not serve.
    pub reason: String,
    /// Together with what was before.
    pub failures: Failures,
}

/// Whether this process has come back. Asked once: it closes what the attempt had opened.
pub fn came_back() -> Option<CameBack> {
    let value = env::var_os(CAME_BACK)?;
    let mut parts = value.to_str()?.splitn(5, ':');
    let mut text = || parts.next();
    let (pid, numbers) = (decimal::<u32>(text()?)?, text()?);
    let (failures, candidate, reason) = (Failures::read(text()?)?, decimal(text()?)?, text()?);
    if pid != std::process::id() {
        return None;
    }
    let numbers: Vec<RawFd> = numbers.split(',').filter_map(decimal).collect();
    close(&numbers);
    Some(CameBack { reason: reason.to_owned(), failures: failures.and(candidate, reason) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_for_the_same_reason_is_counted() {
        let once = Failures::default().and(7, "a");
        assert_eq!(once.count, 1);
        assert_eq!(once.and(7, "a").count, 2);
        assert_eq!(once.and(7, "b").count, 1);
        assert_eq!(once.and(8, "a").count, 1);
        assert_eq!(Failures::read(&once.text()), Some(once));
        assert_eq!(Failures::read("1,2"), None);
    }
}
