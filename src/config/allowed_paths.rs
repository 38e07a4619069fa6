//! What handlers may open.

use std::fmt;
use std::path::{Path, PathBuf};

/// Files and directories that handlers may open, for [`Builder::confine`](crate::Builder::confine); a directory stands for
/// all that lies below it. Links are followed when the server starts: where one leads later does not count.
///
/// ```
/// use handover::AllowedPaths;
///
/// let allowed = AllowedPaths::default().read("/srv/site").write("/var/lib/guestbook");
/// assert_eq!(allowed.to_string(), r#"no file but in "/srv/site", "/var/lib/guestbook" (also to write)"#);
/// assert_eq!(AllowedPaths::default().to_string(), "no file");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedPaths {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
}

impl AllowedPaths {
    /// Allows to read what that is, and to list directories.
    pub fn read(mut self, path: impl Into<PathBuf>) -> AllowedPaths {
        self.read.push(path.into());
        self
    }

    /// Allows to read it, to write to it, and to create, rename and remove what lies below it.
    pub fn write(mut self, path: impl Into<PathBuf>) -> AllowedPaths {
        self.write.push(path.into());
        self
    }

    /// Both.
    pub(crate) fn and(mut self, other: AllowedPaths) -> AllowedPaths {
        self.read.extend(other.read);
        self.write.extend(other.write);
        self
    }

    pub(crate) fn readable(&self) -> impl Iterator<Item = &Path> {
        self.read.iter().map(PathBuf::as_path)
    }

    pub(crate) fn writable(&self) -> impl Iterator<Item = &Path> {
        self.write.iter().map(PathBuf::as_path)
    }
}

/// As the log says what requests can open.
impl fmt::Display for AllowedPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = self.read.iter().map(|path| format!("{path:?}"));
        let write = self.write.iter().map(|path| format!("{path:?} (also to write)"));
        let all: Vec<String> = read.chain(write).collect();
        if all.is_empty() { f.write_str("no file") } else { write!(f, "no file but in {}", all.join(", ")) }
    }
}
