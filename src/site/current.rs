//! The directory behind a path, as it is now: a deployment that swaps a symbolic link is seen within a second.

use super::root::{Root, cannot_serve};
use crate::Error;
use crate::clock::Millis;
use crate::logging::rate_limit::log_rate_limited;
use crate::sys::working_directory;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// How long the directory is believed without a look at its path, in milliseconds.
const BELIEVED: u32 = 1000;

/// A path, and the directory that it leads to.
///
/// Which one that is counts for whole requests: each has the root that was served when it came. What a request needs to
/// know of it at a hit is the number, one atomic load; the lock is for what has to be opened.
pub(super) struct Current {
    /// Absolute, so that it means the same whatever the working directory becomes.
    path: PathBuf,
    served: RwLock<Arc<Served>>,
    /// The number of that.
    number: AtomicUsize,
    /// When its path was last looked at; several workers may see that this is too long ago, and one goes.
    looked: AtomicU32,
    /// Whether the last look failed, and this was said.
    failing: AtomicBool,
}

/// A directory that is served, or was. No two have the same number, so what is kept of one is never taken for
/// another's.
pub(super) struct Served {
    pub number: usize,
    pub root: Root,
}

impl Served {
    fn new(root: Root) -> Served {
        static ROOTS: AtomicUsize = AtomicUsize::new(0);
        Served { number: ROOTS.fetch_add(1, Ordering::Relaxed), root }
    }
}

impl Current {
    /// Opens the directory.
    pub fn open(path: &Path) -> Result<Current, Error> {
        // Where there is no working directory any more a relative path leads nowhere, and opening it says so.
        let absolute = working_directory::absolute(path).unwrap_or_else(|_| path.to_owned());
        let root = Root::open(&absolute).map_err(|errno| cannot_serve(path, errno))?;
        Ok(Current::of(absolute, root))
    }

    fn of(path: PathBuf, root: Root) -> Current {
        let served = Served::new(root);
        Current {
            path,
            number: AtomicUsize::new(served.number),
            served: RwLock::new(Arc::new(served)),
            looked: AtomicU32::new(Millis::now().0 as u32),
            failing: AtomicBool::new(false),
        }
    }

    /// The same with this root.
    #[cfg(test)]
    pub fn with_root(self, change: impl FnOnce(Root) -> Root) -> Current {
        let served = self.served.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Ok(Served { root, .. }) = Arc::try_unwrap(served) else { panic!("nobody else has it yet") };
        Current::of(self.path, change(root))
    }

    pub fn number(&self) -> usize {
        self.number.load(Ordering::Acquire)
    }

    pub fn get(&self) -> Arc<Served> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks where the path leads, if the last time is a second ago. Answers the number of what was served until now and
    /// is not any more.
    ///
    /// What cannot be opened does not replace what is served: a deployment may be half done, and the files that are open
    /// already are better than none.
    pub fn look_again(&self, now: Millis) -> Option<usize> {
        let (now, looked) = (now.0 as u32, self.looked.load(Ordering::Relaxed));
        if now.wrapping_sub(looked) < BELIEVED
            || self.looked.compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return None;
        }
        let served = self.get();
        let found = match served.root.look_again(&self.path) {
            Ok(found) => found,
            Err(errno) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    let path = &self.path;
                    match errno == Errno::ACCESS && may_be_opened(path) {
                        true => log_rate_limited!(
                            warn,
                            "{path:?} leads to where requests cannot open anything (Landlock), serving what it was; \
                             a reload serves it"
                        ),
                        false => {
                            let error = std::io::Error::from(errno);
                            log_rate_limited!(
                                warn,
                                "cannot open {path:?} anew, serving what it was until it can be: {error}"
                            );
                        }
                    }
                }
                return None;
            }
        };
        self.failing.store(false, Ordering::Relaxed);
        let new = Arc::new(Served::new(found?));
        log::info!("{:?} leads to another directory now, which is served from here on", self.path);
        let mut current = self.served.write().unwrap_or_else(PoisonError::into_inner);
        // A look that took longer than a second may have been overtaken.
        if current.number != served.number {
            return None;
        }
        self.number.store(new.number, Ordering::Release);
        *current = new;
        Some(served.number)
    }

    /// As if a second had passed.
    #[cfg(test)]
    pub fn wait(&self) {
        self.looked.fetch_sub(BELIEVED, Ordering::Relaxed);
    }
}

/// Whether the permissions of the directory allow it: then it is this thread that may not.
fn may_be_opened(path: &Path) -> bool {
    accessat(CWD, path, Access::READ_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

/// The root of one request: of this number, and opened only if something has to be looked up.
pub(super) struct Held<'c> {
    current: &'c Current,
    pub number: usize,
    served: OnceCell<Arc<Served>>,
}

impl<'c> Held<'c> {
    pub fn new(current: &'c Current) -> Held<'c> {
        Held { current, number: current.number(), served: OnceCell::new() }
    }

    /// The root, unless it was replaced after its number was read and before somebody needed it.
    pub fn root(&self) -> Option<&Root> {
        let served = self.served.get_or_init(|| self.current.get());
        (served.number == self.number).then_some(&served.root)
    }

    /// What [`root`](Held::root) got instead.
    pub fn renewed(self) -> Held<'c> {
        let number = self.served.get().map_or_else(|| self.current.number(), |served| served.number);
        Held { number, ..self }
    }

    /// Whether something was looked up in a root that is not the current one any more.
    pub fn is_outdated(&self) -> bool {
        self.served.get().is_some() && self.number != self.current.number()
    }
}
