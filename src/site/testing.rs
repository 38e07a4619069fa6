//! What the tests of the site share.

use crate::api::{Request, Response};
use http1::head::HeadLimits;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A request as the engine would hand it over.
pub(super) fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> Request {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
    let mut request = Request::empty();
    let limits = HeadLimits { size: 16 * 1024, target: 8 * 1024, fields: 100 };
    request.parse(head.as_bytes(), &limits, None).expect("a valid request");
    request
}

/// A directory of its own for each test, removed at the end.
pub(super) struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("handover-site-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary directory");
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, and makes the directories above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(&path, content).expect("a file");
        path
    }
}

/// Returns when what changes now has another time than what changed before, in that directory's file system.
pub(super) fn next_tick(dir: &TempDir) {
    let time = || {
        let stat = rustix::fs::stat(dir.write("tick", "")).expect("stat");
        (stat.st_ctime, stat.st_ctime_nsec)
    };
    let first = time();
    while time() == first {
        std::thread::yield_now();
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The value of a field of a response.
pub(super) fn value<'r>(response: &'r Response, name: &'static str) -> Option<&'r str> {
    response.headers().iter().find(|header| header.field.equiv(name)).map(|header| header.value.as_str())
}

/// The length that a response says, and its body as far as it can be read.
pub(super) fn read(response: Response) -> (Option<u64>, Vec<u8>) {
    let mut body = response.into_reader();
    let length = body.len();
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes).expect("a readable body");
    (length, bytes)
}
