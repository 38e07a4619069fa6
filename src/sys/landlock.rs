//! What a thread may open, by landlock(7): Linux 5.13 and later, where it is built in, switched on and not refused by a
//! sandbox. It cannot be undone, and counts for the thread that asks for it and for what that thread starts, threads and
//! processes; no other thread is touched. What is open already stays open, and what can be looked at without an open
//! (stat, readlink) can be looked at.

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetStatus,
};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

/// What threads may open. It is made once, and each thread that is to keep to it does so itself.
pub struct Confinement {
    ruleset: RulesetCreated,
    /// A rule is about an inode, and /proc makes a new one when nobody has the old one open.
    _held: Vec<OwnedFd>,
}

/// What may be done with a file, or with whatever lies below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// To read files and list directories.
    Read,
    /// The same, and to write, create, rename and remove.
    Write,
    /// To remove files, and not to open them.
    Remove,
    /// To create a file, to use it and to remove it.
    Temporary,
}

impl Rights {
    fn of_kernel(self) -> BitFlags<AccessFs> {
        match self {
            Rights::Read => AccessFs::ReadFile | AccessFs::ReadDir,
            Rights::Write => AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::from_write(KNOWN),
            Rights::Remove => AccessFs::RemoveFile.into(),
            Rights::Temporary => {
                AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::Truncate
            }
        }
    }
}

/// The rights that are refused where no rule gives them; what a kernel does not know of them it cannot refuse. Those of
/// later kernels are about sockets.
const KNOWN: ABI = ABI::V5;
/// Enough for one call.
const TRIAL_STACK: usize = 64 << 10;

impl Confinement {
    /// To these paths, with links followed, and with these rights; everything else is refused. Whether the kernel does so
    /// is tried on a thread that ends. `left_out` hears of a path that is not there: what comes there later is refused.
    ///
    /// # Errors
    /// The kernel has none for us, and why.
    pub fn new(rules: &[(PathBuf, Rights)], mut left_out: impl FnMut(&Path, io::Error)) -> Result<Confinement, String> {
        // The kernel has all of the first version, or nothing.
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let ruleset = ruleset.handle_access(AccessFs::from_all(ABI::V1)).map_err(|error| error.to_string())?;
        let ruleset = ruleset.set_compatibility(CompatLevel::BestEffort);
        let ruleset = ruleset.handle_access(AccessFs::from_all(KNOWN)).map_err(|error| error.to_string())?;
        let mut ruleset = ruleset.create().map_err(|error| error.to_string())?;
        let mut held = Vec::new();
        for (path, rights) in rules {
            let looked_at = open_path(path).and_then(|opened| Ok((fstat(&opened)?, opened)));
            let (stat, opened) = match looked_at {
                Ok(both) => both,
                Err(error) => {
                    left_out(path, error);
                    continue;
                }
            };
            let rights = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => rights.of_kernel(),
                _ => rights.of_kernel() & AccessFs::from_file(KNOWN),
            };
            ruleset = ruleset.add_rule(PathBeneath::new(&opened, rights)).map_err(|error| error.to_string())?;
            if path.starts_with("/proc") {
                held.push(opened);
            }
        }
        let confinement = Confinement { ruleset, _held: held };
        let trial = thread::scope(|scope| {
            let trial = thread::Builder::new().stack_size(TRIAL_STACK);
            let trial = trial.spawn_scoped(scope, || confinement.try_this_thread())?;
            trial.join().map_err(|_| io::Error::other("it panicked"))?
        });
        trial.map_err(|error| error.to_string())?;
        Ok(confinement)
    }

    /// From here on the calling thread, and what it starts, can open nothing else, nor gain privileges by what it
    /// executes.
    pub fn confine_this_thread(&self) {
        // It was tried: what is left is that there is no memory, and then serving is more than a second line of defence.
        if let Err(error) = self.try_this_thread() {
            let thread = thread::current();
            log::error!("thread {:?} can open what this process can: {error}", thread.name().unwrap_or_default());
        }
    }

    fn try_this_thread(&self) -> io::Result<()> {
        let status = self.ruleset.try_clone()?.restrict_self().map_err(io::Error::other)?;
        match status.ruleset {
            RulesetStatus::NotEnforced => Err(io::Error::from(io::ErrorKind::Unsupported)),
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        }
    }
}

/// Looks whether that path can be allowed.
pub fn open_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::ErrorKind::PermissionDenied;
    use std::os::unix::fs::symlink;

    /// A directory of this test, with a file inside and one beside what is allowed.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let path = std::env::temp_dir().join(format!("handover-landlock-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("in/side")).expect("directories");
            for file in ["in/side/file", "secret"] {
                fs::write(path.join(file), "text").expect("a file");
            }
            Dir(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// What `run` says on a thread that may do no more than that.
    fn confined<T: Send>(rules: &[(PathBuf, Rights)], run: impl FnOnce() -> T + Send) -> T {
        let confinement =
            Confinement::new(rules, |path, error| panic!("{path:?}: {error}")).expect("this kernel has Landlock");
        let confined = || {
            confinement.try_this_thread().expect("confined");
            run()
        };
        thread::scope(|scope| scope.spawn(confined).join().expect("no panic"))
    }

    fn denied<T>(result: io::Result<T>) -> bool {
        matches!(result, Err(error) if error.kind() == PermissionDenied)
    }

    #[test]
    fn what_lies_below_is_read_and_nothing_else() {
        let dir = Dir::new("read");
        let within = |name: &str| dir.0.join("in").join(name);
        symlink("../secret", within("out")).expect("a link");
        symlink(within("side/file"), dir.0.join("into")).expect("a link");
        confined(&[(dir.0.join("in"), Rights::Read)], || {
            for good in [within("side/file"), within("side/../side/file"), dir.0.join("into")] {
                assert_eq!(fs::read_to_string(&good).expect("a file"), "text", "{good:?}");
            }
            assert_eq!(fs::read_dir(within("side")).expect("a directory").count(), 1);
            let etc = PathBuf::from("/etc/passwd");
            for bad in [dir.0.join("secret"), within("../secret"), within("side/../../secret"), within("out"), etc] {
                assert!(denied(File::open(&bad)), "{bad:?}");
            }
            assert!(denied(fs::read_dir(&dir.0)));
            let write = || File::options().append(true).open(within("side/file"));
            assert!(denied(write()) && denied(fs::write(within("new"), "")) && denied(fs::remove_file(within("out"))));
            // A thread that starts here is no freer.
            let dir = dir.0.clone();
            assert!(thread::spawn(move || denied(File::open(dir.join("secret")))).join().expect("no panic"));
        });
        // Nobody else is touched.
        assert!(File::open(dir.0.join("secret")).is_ok());
    }

    #[test]
    fn each_right_is_for_what_it_says() {
        let dir = Dir::new("rights");
        let within = |name: &str| dir.0.join("in").join(name);
        confined(&[(dir.0.join("in"), Rights::Write)], || {
            fs::create_dir(within("new")).expect("a directory");
            fs::write(within("new/file"), "new").expect("a file");
            fs::rename(within("new/file"), within("side/new")).expect("renamed");
            fs::remove_dir(within("new")).expect("removed");
            assert!(denied(fs::write(dir.0.join("secret"), "")));
        });
        confined(&[(dir.0.join("in"), Rights::Remove)], || {
            assert!(denied(File::open(within("side/file"))));
            fs::remove_file(within("side/file")).expect("removed");
            assert!(denied(fs::remove_file(dir.0.join("secret"))));
        });
        confined(&[(dir.0.join("in"), Rights::Temporary)], || {
            File::options().read(true).write(true).create_new(true).open(within("a")).expect("a file");
            fs::remove_file(within("a")).expect("removed");
            assert!(denied(fs::create_dir(within("b"))));
        });
        confined(&[(dir.0.join("secret"), Rights::Read)], || {
            assert!(File::open(dir.0.join("secret")).is_ok() && denied(File::open(within("side/new"))));
        });
    }

    #[test]
    fn what_is_not_there_is_refused_when_it_is() {
        let dir = Dir::new("missing");
        let (missing, mut left_out) = (dir.0.join("missing"), Vec::new());
        let rules = [(missing.clone(), Rights::Read), (dir.0.join("in"), Rights::Read)];
        let confinement = Confinement::new(&rules, |path, _| left_out.push(path.to_owned())).expect("Landlock");
        assert_eq!(left_out, std::slice::from_ref(&missing));
        fs::write(&missing, "").expect("a file");
        let run = || {
            confinement.confine_this_thread();
            assert!(denied(File::open(&missing)) && File::open(dir.0.join("in/side/file")).is_ok());
        };
        thread::scope(|scope| scope.spawn(run).join().expect("no panic"));
    }
}
