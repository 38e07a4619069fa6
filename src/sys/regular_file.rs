//! A regular file that is read whole, and what is in the way in words.

use std::fs;
use std::io;
use std::path::Path;

/// Reads a regular file whole, or says what is in the way, in these words if that is its kind or its size.
pub fn read(path: &Path, most: u64, not_regular: &str, too_large: &str) -> Result<Vec<u8>, String> {
    let said = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        _ => error.to_string(),
    };
    // Before it is opened: opening a FIFO would wait for its writer.
    let meta = fs::metadata(path).map_err(said)?;
    match meta.is_file() {
        false => Err(not_regular.to_owned()),
        true if meta.len() > most => Err(too_large.to_owned()),
        true => fs::read(path).map_err(said),
    }
}
