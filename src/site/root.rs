//! The directory that is served, as a descriptor: names are resolved below it, and never above.

use crate::Error;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::path::Path;

/// The root directory.
///
/// Its descriptor is kept, so a symbolic link that ROOT goes through is followed once: a deployment that swaps the link
/// is seen after a reload, all of it at once.
pub(super) struct Root {
    directory: OwnedFd,
    resolver: Resolver,
}

/// Who keeps a name below the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolver {
    /// The kernel, in one call: openat2(2), Linux 5.6 and later.
    Kernel,
    /// We, component by component: older kernels, and sandboxes that know the call by number only.
    Walk,
}

/// As many symbolic links as the kernel follows in one path (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// The longest name that the kernel takes, with its NUL (`PATH_MAX`).
const MAX_NAME: usize = 4096;

/// How a served file is opened: O_NONBLOCK, so that a FIFO without a writer does not hold the worker; O_NOCTTY, so that
/// a terminal does not become ours.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A directory to look names up in; unlike O_RDONLY it needs no permission to list it.
const SEARCH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Root {
    /// Opens the root and finds out whether the kernel has openat2 for us.
    pub fn open(path: &Path) -> Result<Root, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // The lookup of "." asks for what every later one needs: permission to search the directory.
        let opened = openat(CWD, path, flags, Mode::empty())
            .and_then(|root| openat(&root, ".", SEARCH, Mode::empty()).map(|_| root));
        let directory = opened.map_err(|errno| {
            let reason = match errno {
                Errno::NOENT => "there is no such directory; create it or name another".to_owned(),
                Errno::NOTDIR => "it is not a directory; name the directory that holds the files".to_owned(),
                Errno::ACCESS => "it may not be read; give this user read and search permission (chmod +rx)".to_owned(),
                errno => std::io::Error::from(errno).to_string(),
            };
            Error::usage(format_args!("cannot serve {path:?}: {reason}"))
        })?;
        let mut root = Root { directory, resolver: Resolver::Kernel };
        if root.kernel(b".", SEARCH).is_err_and(is_missing) {
            root.resolver = Resolver::Walk;
        }
        Ok(root)
    }

    /// The same root with that resolver.
    #[cfg(any(test, fuzzing))]
    pub fn with_resolver(self, resolver: Resolver) -> Root {
        Root { resolver, ..self }
    }

    /// Opens what has that name for reading. It may be of any type.
    pub fn read(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        self.resolve(name, READ)
    }

    /// Opens the directory of that name, empty for the root itself, to list it.
    pub fn list(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        self.resolve(if name.is_empty() { b"." } else { name }, READ | OFlags::DIRECTORY)
    }

    /// Whether there is a directory of that name, also one that may be searched but not listed.
    pub fn has_directory(&self, name: &[u8]) -> bool {
        self.resolve(name, SEARCH).is_ok()
    }

    fn resolve(&self, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        if self.resolver == Resolver::Walk {
            return self.walk(name, flags);
        }
        match self.kernel(name, flags) {
            // A seccomp filter may have been installed since. EAGAIN: a rename raced with a `..` in a link, and the
            // kernel cannot be sure; the walk can, as it holds every directory that it came through.
            Err(errno) if is_missing(errno) || errno == Errno::AGAIN => self.walk(name, flags),
            result => result,
        }
    }

    fn kernel(&self, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        // NO_MAGICLINKS: a link of /proc jumps anywhere, without a path that could be checked.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.directory, name, flags, Mode::empty(), resolve)
    }

    /// What [`kernel`](Root::kernel) does, in user space.
    ///
    /// No component is opened through a link; links are read and their targets walked in turn. `..`, which only
    /// targets can hold, goes back to the directory that the walk came from, so a directory moved elsewhere meanwhile
    /// does not take the walk out of the root.
    fn walk(&self, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        if name.len() >= MAX_NAME {
            return Err(Errno::NAMETOOLONG);
        }
        let mut below: Vec<OwnedFd> = Vec::new();
        let mut pending: VecDeque<Vec<u8>> = components(name).collect();
        let mut links = 0;
        while let Some(component) = pending.pop_front() {
            let last = pending.is_empty();
            let component = match component.as_slice() {
                b".." => {
                    below.pop().ok_or(Errno::XDEV)?;
                    &b"."[..]
                }
                b"" | b"." => b".",
                component => component,
            };
            if component == b"." && !last {
                continue;
            }
            let directory = below.last().unwrap_or(&self.directory);
            let how = if last { flags } else { SEARCH };
            match openat(directory, component, how | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(opened) if last => return Ok(opened),
                Ok(opened) => below.push(opened),
                // ELOOP says that it is a link; with O_DIRECTORY it is ENOTDIR.
                Err(errno @ (Errno::LOOP | Errno::NOTDIR)) => {
                    let target = readlinkat(directory, component, Vec::new()).map_err(|_| errno)?.into_bytes();
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    if target.starts_with(b"/") {
                        return Err(Errno::XDEV);
                    }
                    for component in components(&target).rev() {
                        pending.push_front(component);
                    }
                }
                Err(errno) => return Err(errno),
            }
        }
        // `components` gives at least one, and the last one returns.
        Err(Errno::NOENT)
    }
}

/// A trailing slash gives an empty last component, which stands for the directory itself.
fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|&byte| byte == b'/').map(<[u8]>::to_vec)
}

/// Whether the error means that there is no openat2 here. Seccomp filters older than the call answer EPERM.
fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::PERM)
}

#[cfg(test)]
mod tests {
    use super::super::testing::TempDir;
    use super::*;
    use rustix::fs::fstat;
    use std::os::unix::fs::symlink;

    fn both(dir: &TempDir) -> [Root; 2] {
        let root = || Root::open(dir.path()).expect("a root");
        [root().with_resolver(Resolver::Kernel), root().with_resolver(Resolver::Walk)]
    }

    /// The inode that a name leads to.
    fn inode(root: &Root, name: &str) -> Result<u64, Errno> {
        root.read(name.as_bytes()).map(|file| fstat(file).expect("fstat").st_ino)
    }

    #[test]
    fn the_walk_answers_as_the_kernel_does() {
        let dir = TempDir::new();
        dir.write("file", "f");
        dir.write("a/b/c", "c");
        for (link, target) in [
            ("inside", "a/b/c"),
            ("directory", "a/b"),
            ("slash", "a/b/"),
            ("file-slash", "file/"),
            ("file-dot", "file/."),
            ("a/b/up", "../../file"),
            ("a/b/up-and-down", "../../a/./b/../b/c"),
            ("a/b/root", "../.."),
            ("a/b/root-slash", "../../"),
            ("a/b/out", "../../../x"),
            ("out", "../"),
            ("passwd", "../../../../../../../../../../etc/passwd"),
            ("absolute", "/etc/passwd"),
            ("self", "self"),
            ("one", "two"),
            ("two", "one"),
            ("dangling", "nothing"),
            ("dot", "."),
            ("chain0", "file"),
        ] {
            symlink(target, dir.path().join(link)).expect("symlink");
        }
        symlink(dir.path().join("file"), dir.path().join("absolute-inside")).expect("symlink");
        for at in 1..=41 {
            let (target, link) = (format!("chain{}", at - 1), dir.path().join(format!("chain{at}")));
            symlink(target, link).expect("symlink");
        }
        let [kernel, walk] = both(&dir);
        let (long, longer) = ("x".repeat(300), "nothing/".repeat(512));
        for name in [
            "file",
            "a",
            "a/b",
            "a/b/c",
            "a/b/c/d",
            "file/x",
            "nothing",
            "nothing/x",
            "inside",
            "inside/x",
            "directory",
            "directory/c",
            "slash",
            "slash/c",
            "file-slash",
            "file-dot",
            "a/b/up",
            "a/b/up-and-down",
            "directory/up",
            "a/b/root",
            "a/b/root/file",
            "a/b/root-slash/a",
            "a/b/out",
            "out",
            "out/x",
            "passwd",
            "absolute",
            "absolute-inside",
            "self",
            "self/x",
            "one",
            "dangling",
            "dot",
            "dot/dot/dot/file",
            "chain39",
            "chain40",
            "chain41",
            "dot/chain39",
            "dot/chain40",
            ".",
            &long,
            &longer,
            &longer[..4095],
        ] {
            assert_eq!(inode(&walk, name), inode(&kernel, name), "{name}");
            assert_eq!(walk.has_directory(name.as_bytes()), kernel.has_directory(name.as_bytes()), "{name}");
        }
        assert_eq!(inode(&walk, "inside"), inode(&walk, "a/b/c"));
        for name in ["a/b/out", "out", "passwd", "absolute", "absolute-inside"] {
            assert_eq!(inode(&walk, name), Err(Errno::XDEV), "{name}");
        }
        assert_eq!(inode(&walk, "self"), Err(Errno::LOOP));
        assert!(inode(&walk, "chain39").is_ok(), "40 links");
        assert_eq!(inode(&walk, "chain40"), Err(Errno::LOOP), "41 links");
    }

    #[test]
    fn a_walk_leaks_no_descriptor_to_children() {
        let dir = TempDir::new();
        dir.write("a/b", "b");
        for root in both(&dir) {
            let file = root.read(b"a/b").expect("a file");
            let flags = rustix::io::fcntl_getfd(&file).expect("flags");
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn a_root_that_cannot_be_served_says_why() {
        let dir = TempDir::new();
        dir.write("file", "f");
        for (name, reason) in [("nothing", "no such directory"), ("file", "not a directory")] {
            let path = dir.path().join(name);
            let error = Root::open(&path).err().expect("an error");
            assert!(error.is_usage());
            let message = error.to_string();
            assert!(message.contains(reason) && message.contains(&format!("{path:?}")), "{message}");
            assert_eq!(message.lines().count(), 1);
        }
    }
}
