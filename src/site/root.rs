//! The directory that is served, as a descriptor: names are resolved below it, and never above.

use crate::Error;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, readlinkat, stat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The root directory.
///
/// Its descriptor is kept, so a symbolic link that its path goes through is followed once, for all names below it; where
/// the path leads later is for [`Current`](super::current::Current) to see.
pub(super) struct Root {
    directory: OwnedFd,
    resolver: Resolver,
    /// Device and inode.
    identity: (u64, u64),
    /// What it is called in the targets of absolute links: the components of the path that it was opened by, and of the
    /// one without links.
    names: Vec<Vec<Vec<u8>>>,
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
    pub fn open(path: &Path) -> Result<Root, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, path, flags, Mode::empty())?;
        // The lookup of "." asks for what every later one needs: permission to search the directory.
        openat(&directory, ".", SEARCH, Mode::empty())?;
        let identity = identity(&fstat(&directory)?);
        // Both are only ever compared with: what lies below the root is found from its descriptor. A path that leads
        // elsewhere by now is no name of it.
        let real =
            path.canonicalize().ok().filter(|real| stat(real).is_ok_and(|stat| self::identity(&stat) == identity));
        let mut names: Vec<Vec<Vec<u8>>> =
            [Some(path), real.as_deref()].into_iter().flatten().filter(|path| path.is_absolute()).map(named).collect();
        names.dedup();
        let mut root = Root { directory, resolver: Resolver::Kernel, identity, names };
        if root.kernel(b".", SEARCH).is_err_and(is_missing) {
            root.resolver = Resolver::Walk;
        }
        Ok(root)
    }

    /// The root that the path leads to, if it is another one.
    pub fn look_again(&self, path: &Path) -> Result<Option<Root>, Errno> {
        match identity(&stat(path)?) == self.identity {
            true => Ok(None),
            false => Root::open(path).map(|root| Some(root).filter(|root| root.identity != self.identity)),
        }
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
            // kernel cannot be sure; the walk can, as it holds every directory that it came through. EXDEV: it leads
            // out, or is an absolute link, of which the kernel does not know that it may lead back in.
            Err(errno) if is_missing(errno) || matches!(errno, Errno::AGAIN | Errno::XDEV) => self.walk(name, flags),
            result => result,
        }
    }

    fn kernel(&self, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        // NO_MAGICLINKS: a link of /proc jumps anywhere, without a path that could be checked.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.directory, name, flags, Mode::empty(), resolve)
    }

    /// What [`kernel`](Root::kernel) does, in user space; and absolute links that lead into the root.
    ///
    /// No component is opened through a link; links are read and their targets walked in turn. `..`, which only
    /// targets can hold, goes back to the directory that the walk came from, so a directory moved elsewhere meanwhile
    /// does not take the walk out of the root. An absolute target is compared with what the root is called, as text, and
    /// what follows is walked from the root's descriptor: so it cannot lead out either, whoever has that name by now.
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
                component if is_here(component) => b".",
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
                    let mut target: Vec<Vec<u8>> = components(&target).collect();
                    // Nothing stands before the slash of an absolute one.
                    if target.len() > 1 && target[0].is_empty() {
                        target = self.below(&target).ok_or(Errno::XDEV)?;
                        below.clear();
                    }
                    for component in target.into_iter().rev() {
                        pending.push_front(component);
                    }
                }
                Err(errno) => return Err(errno),
            }
        }
        // `components` gives at least one, and the last one returns.
        Err(Errno::NOENT)
    }

    /// What follows the root's name in an absolute path; at least one component.
    fn below(&self, path: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
        let below = |name: &Vec<Vec<u8>>| {
            let mut rest = path;
            for component in name {
                while let [first, others @ ..] = rest
                    && is_here(first)
                {
                    rest = others;
                }
                let [first, others @ ..] = rest else { return None };
                if first != component {
                    return None;
                }
                rest = others;
            }
            Some(if rest.is_empty() { vec![b".".to_vec()] } else { rest.to_vec() })
        };
        self.names.iter().find_map(below)
    }
}

/// Why a directory of that path, as it was named, is not served.
pub(super) fn cannot_serve(path: &Path, errno: Errno) -> Error {
    let reason = match errno {
        Errno::NOENT => "there is no such directory; create it or name another".to_owned(),
        Errno::NOTDIR => "it is not a directory; name the directory that holds the files".to_owned(),
        Errno::ACCESS => "it may not be read; give this user read and search permission (chmod +rx)".to_owned(),
        Errno::MFILE => {
            "no more can be held open; raise what this process may have (ulimit -n, LimitNOFILE)".to_owned()
        }
        errno => std::io::Error::from(errno).to_string(),
    };
    Error::usage(format_args!("cannot serve {path:?}: {reason}"))
}

/// Device and inode.
// The types of `Stat` differ from one architecture to the next.
#[allow(clippy::unnecessary_cast)]
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// The components of an absolute path that say something.
fn named(path: &Path) -> Vec<Vec<u8>> {
    components(path.as_os_str().as_bytes()).filter(|component| !is_here(component)).collect()
}

/// Whether a component leads nowhere.
fn is_here(component: &[u8]) -> bool {
    matches!(component, b"" | b".")
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
            ("absolute-root", "/"),
        ] {
            symlink(target, dir.path().join(link)).expect("symlink");
        }
        let own = dir.path().to_str().expect("UTF-8");
        for (link, target) in [
            ("absolute-inside", format!("{own}/file")),
            ("absolute-directory", format!("/.{own}//./a/b")),
            ("absolute-self", own.to_owned()),
            ("absolute-slash", format!("{own}/")),
            ("a/b/absolute-up", format!("{own}/a/../file")),
            ("absolute-out", format!("{own}/..")),
            ("absolute-out-and-in", format!("{own}/../{}/file", dir.path().file_name().expect("a name").display())),
            ("absolute-beside", format!("{own}x/file")),
            ("absolute-short", own[..own.len() - 1].to_owned()),
            ("absolute-circle", format!("{own}/absolute-circle")),
            ("absolute-file-slash", format!("{own}/file/")),
        ] {
            symlink(target, dir.path().join(link)).expect("symlink");
        }
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
            "absolute-directory",
            "absolute-directory/c",
            "absolute-directory/absolute-up",
            "absolute-self",
            "absolute-self/absolute-slash/absolute-inside",
            "absolute-slash",
            "absolute-out",
            "absolute-out/x",
            "absolute-out-and-in",
            "absolute-beside",
            "absolute-short",
            "absolute-circle",
            "absolute-file-slash",
            "absolute-root",
            "absolute-root/etc/passwd",
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
        for name in [
            "a/b/out",
            "out",
            "passwd",
            "absolute",
            "absolute-root",
            "absolute-root/etc/passwd",
            "absolute-out",
            "absolute-out-and-in",
            "absolute-beside",
            "absolute-short",
        ] {
            assert_eq!(inode(&walk, name), Err(Errno::XDEV), "{name}");
        }
        for (name, same) in [
            ("absolute-inside", "file"),
            ("absolute-directory/c", "a/b/c"),
            ("absolute-directory/absolute-up", "file"),
            ("absolute-self", "."),
            ("absolute-slash", "."),
        ] {
            assert_eq!(inode(&walk, name), inode(&walk, same), "{name}");
            assert!(inode(&walk, name).is_ok(), "{name}");
        }
        assert_eq!(inode(&walk, "absolute-file-slash"), Err(Errno::NOTDIR));
        assert_eq!(inode(&walk, "self"), Err(Errno::LOOP));
        assert_eq!(inode(&walk, "absolute-circle"), Err(Errno::LOOP));
        assert!(inode(&walk, "chain39").is_ok(), "40 links");
        assert_eq!(inode(&walk, "chain40"), Err(Errno::LOOP), "41 links");
    }

    /// As configured, by a link that is swapped, and as it is without links.
    #[test]
    fn an_absolute_link_knows_the_root_by_both_its_names_and_never_leaves_it() {
        let dir = TempDir::new();
        for name in ["v1/file", "v2/file"] {
            dir.write(name, name);
        }
        symlink("v1", dir.path().join("current")).expect("symlink");
        for (link, target) in [("by-link", "current/file"), ("by-place", "v1/file"), ("other", "v2/file")] {
            symlink(dir.path().join(target), dir.path().join("v1").join(link)).expect("symlink");
        }
        let open = || Root::open(&dir.path().join("current")).expect("a root");
        for root in [open(), open().with_resolver(Resolver::Walk)] {
            let file = inode(&root, "file");
            assert!(file.is_ok());
            for _ in 0..2 {
                assert_eq!((inode(&root, "by-link"), inode(&root, "by-place")), (file, file));
                assert_eq!(inode(&root, "other"), Err(Errno::XDEV));
                // Another has its name now. It is still this one's file, or none.
                symlink("v2", dir.path().join("new")).expect("symlink");
                std::fs::rename(dir.path().join("new"), dir.path().join("current")).expect("a rename");
            }
            std::fs::remove_file(dir.path().join("current")).expect("a link");
            symlink("v1", dir.path().join("current")).expect("symlink");
        }
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
            let error = cannot_serve(&path, Root::open(&path).err().expect("an error"));
            assert!(error.is_usage());
            let message = error.to_string();
            assert!(message.contains(reason) && message.contains(&format!("{path:?}")), "{message}");
            assert_eq!(message.lines().count(), 1);
        }
    }
}
