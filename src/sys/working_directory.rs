//! The working directory by the name that whoever started the program uses for it, and across reloads.
//!
//! `cd /srv/current && handover public`, where `current` is a link that a deployment swaps: the process stays in the
//! directory that it was started in, and getcwd(3) knows no link. The shell does, and leaves it in `PWD`. So relative paths
//! begin there, and a reload serves the new release, also when the old one is gone.

use http1::number::decimal;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

/// What a process leaves its successor, whose `PWD` leads elsewhere by then: the device and inode of the working
/// directory, and its name. It counts for whoever is in that directory, so a program that goes elsewhere, or is started
/// elsewhere with this in its environment, takes no notice.
pub const VARIABLE: &str = "HANDOVER_DIRECTORY";

/// A working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    device: u64,
    inode: u64,
    name: PathBuf,
}

impl Named {
    /// Of the directory `here`: as the predecessor called it, or as the shell does.
    fn of(here: &Metadata, handed_on: Option<&OsStr>, shell: Option<&OsStr>) -> Option<Named> {
        let same = |device: u64, inode: u64| (device, inode) == (here.dev(), here.ino());
        if let Some(named) = handed_on.and_then(Named::read).filter(|named| same(named.device, named.inode)) {
            return Some(named);
        }
        let name = PathBuf::from(shell?);
        // A path with `..` is none that a shell would leave there, and means something else once a link is swapped.
        let plain = |component: Component<'_>| matches!(component, Component::RootDir | Component::Normal(_));
        if !name.is_absolute() || !name.components().all(plain) {
            return None;
        }
        let there = fs::metadata(&name).ok()?;
        same(there.dev(), there.ino()).then(|| Named { device: here.dev(), inode: here.ino(), name })
    }

    /// Reads what [`write`](Named::write) wrote.
    fn read(text: &OsStr) -> Option<Named> {
        let mut parts = text.as_bytes().splitn(3, |&byte| byte == b':');
        let mut number = || decimal(std::str::from_utf8(parts.next()?).ok()?);
        let (device, inode) = (number()?, number()?);
        let name = PathBuf::from(OsStr::from_bytes(parts.next()?));
        name.is_absolute().then_some(Named { device, inode, name })
    }

    fn write(&self) -> OsString {
        let mut text = format!("{}:{}:", self.device, self.inode).into_bytes();
        text.extend_from_slice(self.name.as_os_str().as_bytes());
        OsString::from_vec(text)
    }
}

/// The working directory of this process, if it has such a name; looked at once, before anything changes.
fn named() -> Option<&'static Named> {
    static NAMED: OnceLock<Option<Named>> = OnceLock::new();
    let look = || {
        // "." and not its path: that directory may be gone.
        let here = fs::metadata(".").ok()?;
        Named::of(&here, env::var_os(VARIABLE).as_deref(), env::var_os("PWD").as_deref())
    };
    let named = NAMED.get_or_init(look).as_ref()?;
    // The application may have gone elsewhere since.
    let here = fs::metadata(".").ok()?;
    ((here.dev(), here.ino()) == (named.device, named.inode)).then_some(named)
}

/// What a successor has to be told, as `NAME=value`.
pub fn variable() -> Option<OsString> {
    let mut variable = OsString::from(format!("{VARIABLE}="));
    variable.push(named()?.write());
    Some(variable)
}

/// The path made absolute, no link of it resolved.
///
/// # Errors
/// Where the working directory is gone and nobody knows its name.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    match named() {
        Some(named) if path.is_relative() => std::path::absolute(named.name.join(path)),
        _ => std::path::absolute(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_name_counts_where_it_leads_to_the_working_directory() {
        let top = env::temp_dir().join(format!("handover-directory-{}", std::process::id()));
        let (v1, v2, current) = (top.join("v1"), top.join("v2"), top.join("current"));
        fs::create_dir_all(&v1).expect("a directory");
        fs::create_dir_all(&v2).expect("a directory");
        symlink("v1", &current).expect("a link");
        let here = fs::metadata(&v1).expect("a directory");
        let named = |handed_on: Option<&OsStr>, shell: &Path| {
            Named::of(&here, handed_on, Some(shell.as_os_str())).map(|named| named.name)
        };
        assert_eq!(named(None, &current), Some(current.clone()));
        assert_eq!(named(None, &v1), Some(v1.clone()));
        // Of another directory, none at all, or one that means something else after a swap.
        for other in [&v2, &top.join("nothing"), Path::new("current"), Path::new(""), &top.join("v2/../v1")] {
            assert_eq!(named(None, other), None, "{other:?}");
        }
        assert_eq!(Named::of(&here, None, None), None);

        // The link is swapped, and the first name is handed on.
        let first = Named::of(&here, None, Some(current.as_os_str())).expect("a name");
        fs::remove_file(&current).expect("a link");
        symlink("v2", &current).expect("a link");
        assert_eq!(named(None, &current), None);
        assert_eq!(named(Some(&first.write()), &current), Some(current.clone()));
        assert_eq!(named(Some(&first.write()), &v1), Some(current.clone()));
        // It is no name of another directory that its bearer is in.
        let there = fs::metadata(&v2).expect("a directory");
        assert_eq!(Named::of(&there, Some(&first.write()), None), None);
        for wrong in ["", "1:2", "x:y:/a", "1:2:relative", "+1:2:/a"] {
            assert_eq!(Named::read(wrong.as_ref()), None, "{wrong}");
        }
        fs::remove_dir_all(&top).expect("gone");
    }
}
