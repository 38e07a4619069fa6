//! Descriptors of which a process has nothing but their numbers: those that come and go through execve(2).

use std::fmt;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

/// Below are the standard streams, which belong to nobody.
const FIRST: RawFd = 3;

/// Why none of the descriptors was taken.
#[derive(Debug)]
pub struct Refused {
    /// Which one is in the way.
    pub number: RawFd,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "descriptor {}: {}", self.number, self.why)
    }
}

/// Owns descriptors that came through execve(2), in their order: all of them, or none.
///
/// Each has to be there once, to be none of the standard streams, to be open, and not to be close-on-exec (fcntl(2),
/// F_GETFD). What is close-on-exec has come through no execve: this process has opened it, so it has an owner, or has
/// taken it here before, because here it becomes so. A sandbox that refuses fcntl is one in which nothing else works
/// either; then it is an error like any other.
pub fn own_inherited(numbers: &[RawFd]) -> Result<Vec<OwnedFd>, Refused> {
    // To look whether it is free and to take it are one step.
    static TAKING: Mutex<()> = Mutex::new(());
    let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let refused = |number: RawFd, why: &str| Refused { number, why: why.to_owned() };
    let failed = |number: RawFd, error: io::Error| match error.raw_os_error() {
        Some(libc::EBADF) => refused(number, &format!("it is not open: {error}")),
        _ => refused(number, &format!("it cannot be asked for its flags: {error}")),
    };
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(refused(pair[0], "it is named twice"));
    }
    for &number in numbers {
        if number < FIRST {
            return Err(refused(number, "it is below 3, where the standard streams are"));
        }
        if flags(number).map_err(|error| failed(number, error))? & libc::FD_CLOEXEC != 0 {
            return Err(refused(number, "it is not open, as somebody else's: that number is this process's own"));
        }
    }
    for &number in numbers {
        set_flags(number, libc::FD_CLOEXEC).map_err(|error| failed(number, error))?;
    }
    // SAFETY: each is open, there once, and came through execve: no part of this process has opened it, and nobody has
    // taken it here before. What was opened in this process without close-on-exec could be taken for such a one; neither
    // we nor the standard library open anything like that.
    Ok(numbers.iter().map(|&number| unsafe { OwnedFd::from_raw_fd(number) }).collect())
}

/// The same of one.
pub fn own_one(number: RawFd) -> Result<OwnedFd, Refused> {
    // There is one for each number.
    own_inherited(&[number]).map(|mut owned| owned.remove(0))
}

/// Lets descriptors through the next execve(2), or closes them there (fcntl(2), F_SETFD). Fails for one that is not open.
pub fn pass_through_execve(numbers: &[RawFd], on: bool) -> io::Result<()> {
    numbers.iter().try_for_each(|&number| set_flags(number, if on { 0 } else { libc::FD_CLOEXEC }))
}

/// A second descriptor of the same file, close-on-exec (fcntl(2), F_DUPFD_CLOEXEC). Fails for a number that is not open.
pub fn copy(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: it touches no memory, whatever the number stands for.
    let copy = checked(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

fn flags(number: RawFd) -> io::Result<libc::c_int> {
    // SAFETY: it only asks, whatever the number stands for.
    checked(unsafe { libc::fcntl(number, libc::F_GETFD) })
}

fn set_flags(number: RawFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: it touches no memory, and closes nothing before the next execve.
    checked(unsafe { libc::fcntl(number, libc::F_SETFD, flags) }).map(drop)
}

fn checked(answer: libc::c_int) -> io::Result<libc::c_int> {
    match answer {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{FdFlags, fcntl_getfd};
    use std::io::{PipeReader, Read, Write};
    use std::os::fd::{AsFd, AsRawFd, IntoRawFd};

    /// As if it had come through execve: open, and nobody's.
    fn inherited(file: impl AsFd) -> RawFd {
        rustix::io::dup(file).expect("a descriptor").into_raw_fd()
    }

    fn pipe() -> (PipeReader, RawFd) {
        let (reader, writer) = io::pipe().expect("a pipe");
        (reader, inherited(writer))
    }

    #[track_caller]
    fn is_refused(numbers: &[RawFd], number: RawFd, says: &str) {
        let refused = own_inherited(numbers).expect_err("refused");
        assert_eq!(refused.number, number, "{refused}");
        let text = refused.to_string();
        assert!(text.contains(says) && !text.contains('\n'), "{text}");
    }

    #[test]
    fn inherited_descriptors_are_owned_in_their_order_and_go_no_further() {
        let (mut first, one) = pipe();
        let (mut second, other) = pipe();
        let owned = own_inherited(&[other, one]).expect("both");
        assert_eq!(owned.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>(), [other, one]);
        for (fd, byte) in owned.into_iter().zip([b"2", b"1"]) {
            assert_eq!(fcntl_getfd(&fd), Ok(FdFlags::CLOEXEC));
            std::fs::File::from(fd).write_all(byte).expect("a pipe that is read");
        }
        // They are closed, or this would wait for ever.
        let mut said = String::new();
        first.read_to_string(&mut said).expect("text");
        second.read_to_string(&mut said).expect("text");
        assert_eq!(said, "12");
        assert!(own_inherited(&[]).is_ok_and(|none| none.is_empty()));
    }

    #[test]
    fn what_is_named_twice_or_is_no_inherited_descriptor_is_refused() {
        let (mut reader, number) = pipe();
        let own = io::pipe().expect("a pipe").1;
        is_refused(&[number, own.as_raw_fd()], own.as_raw_fd(), "this process's own");
        is_refused(&[number, 7000, number], number, "it is named twice");
        for stream in [0, 1, 2, -1, RawFd::MIN] {
            is_refused(&[number, stream], stream, "it is below 3");
        }
        is_refused(&[number, RawFd::MAX], RawFd::MAX, "it is not open");
        // None of them was taken, so that it can be taken now, and only once.
        let owned = own_inherited(&[number]).expect("it is open");
        is_refused(&[number], number, "this process's own");
        drop(owned);
        assert_eq!(reader.read(&mut [0]).expect("its end"), 0);
    }

    #[test]
    fn a_copy_is_of_the_same_file_and_a_number_that_is_not_open_has_none() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let copy = copy(writer.as_raw_fd()).expect("a copy");
        drop(writer);
        assert_eq!(fcntl_getfd(&copy), Ok(FdFlags::CLOEXEC));
        pass_through_execve(&[copy.as_raw_fd()], true).expect("it is open");
        assert_eq!(fcntl_getfd(&copy), Ok(FdFlags::empty()));
        pass_through_execve(&[copy.as_raw_fd()], false).expect("it is open");
        assert_eq!(fcntl_getfd(&copy), Ok(FdFlags::CLOEXEC));
        drop(copy);
        assert_eq!(reader.read(&mut [0]).expect("its end"), 0);
        for closed in [RawFd::MAX, -1] {
            assert_eq!(super::copy(closed).expect_err("not open").raw_os_error(), Some(libc::EBADF));
            assert!(pass_through_execve(&[closed], true).is_err());
        }
    }
}
