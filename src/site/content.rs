//! The bytes of a file, and how they are read.

use crate::api::Bytes;
use crate::sys::clock::Clock;
use rustix::io::Errno;
use std::fs::File;
use std::sync::Arc;

/// The bytes of a file: in memory, or to be had from it.
#[derive(Clone)]
pub(super) enum Content {
    File(Arc<File>),
    Bytes(Bytes),
}

/// Now in seconds since 1970: from the clock that the Date field is made of, so that no Last-Modified that is cut off at
/// "now" can be later than Date.
pub(super) fn wall_clock() -> u64 {
    Clock::RealCoarse.now().as_secs()
}

/// One pread(2). It gives less where the file ends before.
pub(super) fn read_at_once(file: &File, offset: u64, length: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes: Vec<u8> = Vec::with_capacity(length);
    if length == 0 {
        return Ok(bytes);
    }
    loop {
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), offset) {
            // A network file system may be interrupted.
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(_) => {
                // The capacity, and so what was read, may be more; and the file may have grown.
                bytes.truncate(length);
                return Ok(bytes);
            }
        }
    }
}
