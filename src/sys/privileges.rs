//! Who the process is, and how it becomes somebody else for good: setresuid(2), setresgid(2), setgroups(2).
//!
//! By the wrappers of libc, which do it for each thread of the process; the system calls themselves are for one thread.

use nix::unistd::{
    Gid, Group, Uid, User, getgrouplist, getgroups, getresgid, getresuid, initgroups, setgroups, setresgid, setresuid,
};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, chownat, fstat, open};
use rustix::thread::{CapabilitySet, capabilities};
use std::collections::VecDeque;
use std::ffi::{CString, OsString};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::thread;

/// Somebody that the process can be: a user, its group, and the others that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    uid: Uid,
    gid: Gid,
    /// For initgroups(3), where the user has a name.
    name: Option<CString>,
    user: String,
    group: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {} ({}), group {} ({})", self.user, self.uid, self.group, self.gid)
    }
}

impl Identity {
    /// The user of that name or number; of that group, or else of the user's own.
    ///
    /// # Errors
    /// In words: there is no such user or group, or a number alone says nothing of its group.
    pub fn look_up(user: &str, group: Option<&str>) -> Result<Identity, String> {
        let failed = |errno: nix::Error| format!("it cannot be looked up: {}", errno.desc());
        let by_number = user.parse::<u32>().ok().map(Uid::from_raw);
        let found = match by_number {
            Some(uid) => User::from_uid(uid).map_err(failed)?,
            None => User::from_name(user).map_err(failed)?,
        };
        let uid = found.as_ref().map(|user| user.uid).or(by_number).ok_or("there is no such user")?;
        if uid.is_root() {
            return Err("that is root itself: leave it out to serve as root".to_owned());
        }
        let (gid, group) = match group {
            Some(group) => {
                let by_number = group.parse::<u32>().ok().map(Gid::from_raw);
                let found = match by_number {
                    Some(gid) => Group::from_gid(gid).map_err(failed)?,
                    None => Group::from_name(group).map_err(failed)?,
                };
                let gid = found.map(|group| group.gid).or(by_number).ok_or(format!("there is no group {group:?}"))?;
                (gid, group.to_owned())
            }
            None => {
                let gid =
                    found.as_ref().map(|user| user.gid).ok_or("no user has that number: say its group as well")?;
                let name = Group::from_gid(gid).ok().flatten().map(|group| group.name);
                (gid, name.unwrap_or_else(|| gid.to_string()))
            }
        };
        let name = found.as_ref().map(|user| user.name.clone());
        Ok(Identity {
            uid,
            gid,
            user: name.clone().unwrap_or_else(|| uid.to_string()),
            name: name.and_then(|name| CString::new(name).ok()),
            group,
        })
    }

    /// The name of the user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether the process is this one already, with no other to go back to.
    pub fn is_ours(&self) -> bool {
        let (Ok(users), Ok(groups)) = (getresuid(), getresgid()) else { return false };
        [users.real, users.effective, users.saved] == [self.uid; 3]
            && [groups.real, groups.effective, groups.saved] == [self.gid; 3]
    }

    /// Becomes this one, and no other ever again. All threads of the process do.
    ///
    /// # Errors
    /// In words; then the process may be half of each, and has to end.
    pub fn assume(&self) -> Result<(), String> {
        let step = |what: &str| {
            let what = what.to_owned();
            move |errno: nix::Error| format!("{what}: {}", errno.desc())
        };
        match &self.name {
            Some(name) => initgroups(name, self.gid).map_err(step("its groups cannot be set"))?,
            None => setgroups(&[self.gid]).map_err(step("its groups cannot be set"))?,
        }
        setresgid(self.gid, self.gid, self.gid).map_err(step("its group cannot be set"))?;
        setresuid(self.uid, self.uid, self.uid).map_err(step("the user cannot be set"))?;
        self.is_final()
    }

    /// Whether it came to that: nothing leads back, for no thread.
    fn is_final(&self) -> Result<(), String> {
        if !self.is_ours() || !Uid::effective().eq(&self.uid) {
            return Err("it is still another user".to_owned());
        }
        if getgroups().is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == 0)) && self.gid.as_raw() != 0 {
            return Err("it is still in the group of root".to_owned());
        }
        if setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
            return Err("it could become root again".to_owned());
        }
        for (thread, status) in statuses() {
            let is_ours = |field: &str, id: u32| {
                let ids = status.lines().find_map(|line| line.strip_prefix(field));
                ids.is_none_or(|ids| ids.split_whitespace().all(|one| one.parse() == Ok(id)))
            };
            let capable = |field: &str| {
                let bits = status.lines().find_map(|line| line.strip_prefix(field));
                bits.is_some_and(|bits| bits.trim().bytes().any(|digit| digit != b'0'))
            };
            if !is_ours("Uid:", self.uid.as_raw()) || !is_ours("Gid:", self.gid.as_raw()) {
                return Err(format!("thread {thread} is still another user"));
            }
            if ["CapPrm:", "CapEff:", "CapAmb:"].into_iter().any(capable) {
                return Err(format!("thread {thread} still has capabilities"));
            }
        }
        Ok(())
    }

    fn owner(&self) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
        (Some(rustix::fs::Uid::from_raw(self.uid.as_raw())), Some(rustix::fs::Gid::from_raw(self.gid.as_raw())))
    }

    /// Opens a file by `open`, which may make it, as that user: who may write to a directory decides what its names lead to,
    /// and a link that this user has put there is not to lead root, to what that user may not write to.
    ///
    /// Where the user may not, root does, if nobody else can change what the path leads to; and what root makes is that user's.
    ///
    /// # Errors
    /// What is in the way, also that another could change it.
    pub fn open_file(
        &self,
        path: &Path,
        open: &(dyn Fn(&mut OpenOptions) -> io::Result<File> + Sync),
    ) -> io::Result<File> {
        let own = self.on_a_thread(|| open(OpenOptions::new().create(true)))?;
        if !own.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return own;
        }
        self.may_leave_it_to_root(path)?;
        match open(OpenOptions::new().create_new(true)) {
            Ok(file) => {
                let (user, group) = self.owner();
                rustix::fs::fchown(&file, user, group)?;
                Ok(file)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open(&mut OpenOptions::new()),
            Err(error) => Err(error),
        }
    }

    /// Whether [`open_file`](Identity::open_file) could be done, by an attempt that leaves no trace.
    ///
    /// # Errors
    /// What is in the way.
    pub fn could_open(&self, path: &Path, attempt: &(dyn Fn(&Path) -> io::Result<()> + Sync)) -> io::Result<()> {
        match self.on_a_thread(|| attempt(path))? {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.may_leave_it_to_root(path).and_then(|()| attempt(path))
            }
            tried => tried,
        }
    }

    fn may_leave_it_to_root(&self, path: &Path) -> io::Result<()> {
        let user = &self.user;
        let why = || format!("user {user} may not, and root opens nothing for it where others can put links");
        if is_of_root_alone(path) { Ok(()) } else { Err(io::Error::other(why())) }
    }

    /// Does something as that user, on a thread of its own, which ends with it: here the system calls themselves are right, and
    /// nothing has to be taken back.
    fn on_a_thread<T: Send>(&self, act: impl FnOnce() -> T + Send) -> io::Result<T> {
        use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
        let ids = |gids: &[Gid]| gids.iter().map(|gid| rustix::fs::Gid::from_raw(gid.as_raw())).collect::<Vec<_>>();
        let groups = match &self.name {
            Some(name) => ids(&getgrouplist(name, self.gid)?),
            None => ids(&[self.gid]),
        };
        let (uid, gid) = (rustix::fs::Uid::from_raw(self.uid.as_raw()), rustix::fs::Gid::from_raw(self.gid.as_raw()));
        let become_it = || -> io::Result<()> {
            set_thread_groups(&groups)?;
            set_thread_res_gid(gid, gid, gid)?;
            Ok(set_thread_res_uid(uid, uid, uid)?)
        };
        let refused = |error| io::Error::other(format!("cannot become {self}: {error}"));
        let run = || become_it().map_err(refused).map(|()| act());
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("as-user".into()).spawn_scoped(scope, run)?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
        })
    }

    /// Gives a socket's file to that user, if it is still the one that was bound there: of that device and inode.
    pub fn own_socket(&self, path: &Path, bound: (u64, u64)) -> io::Result<()> {
        // No link is followed, and what is opened so is what is changed.
        let file = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = fstat(&file)?;
        #[allow(clippy::unnecessary_cast, reason = "of other types elsewhere")]
        let found = (stat.st_dev as u64, stat.st_ino as u64);
        if !FileType::from_raw_mode(stat.st_mode).is_socket() || found != bound {
            return Err(io::Error::new(io::ErrorKind::NotFound, "another file stands there"));
        }
        let (user, group) = self.owner();
        Ok(chownat(&file, c"", user, group, AtFlags::EMPTY_PATH)?)
    }
}

/// Whether nobody but root can change what that path leads to, link by link. What is not there may be made there.
fn is_of_root_alone(path: &Path) -> bool {
    let Ok(path) = std::path::absolute(path) else { return false };
    let mut at = PathBuf::from("/");
    if fs::metadata(&at).is_ok_and(|meta| meta.uid() != 0 || meta.mode() & 0o022 != 0) {
        return false;
    }
    let mut pending: VecDeque<OsString> = path.components().skip(1).map(|part| part.as_os_str().to_owned()).collect();
    let mut links = 0;
    // Of the directory that it has come to: whether others can add names to it.
    let mut is_shared = false;
    while let Some(name) = pending.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(name);
        let is_last = pending.is_empty();
        let meta = match fs::symlink_metadata(&next) {
            Ok(meta) => meta,
            Err(error) => return is_last && error.kind() == io::ErrorKind::NotFound,
        };
        // The name is root's in a directory of root's, whosever file it is; in one that all may write to it has to be its file.
        if meta.is_file() {
            return is_last && (meta.uid() == 0 || !is_shared);
        }
        if meta.uid() != 0 {
            return false;
        }
        if meta.is_symlink() {
            links += 1;
            let Ok(target) = fs::read_link(&next) else { return false };
            // Behind the last of a path stands what root would write to: that has to be named itself.
            if links > 40 || is_last {
                return false;
            }
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            let parts = target.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
            parts.rev().for_each(|part| pending.push_front(part.as_os_str().to_owned()));
            continue;
        }
        is_shared = meta.mode() & 0o022 != 0;
        let is_sticky = meta.mode() & 0o1000 != 0;
        if !meta.is_dir() || is_shared && !is_sticky {
            return false;
        }
        at = next;
    }
    false
}

/// Whether the process may become another user; in a namespace of users root may as well.
pub fn may_become_another() -> bool {
    let both = CapabilitySet::SETUID | CapabilitySet::SETGID;
    capabilities(None).map_or_else(|_| Uid::effective().is_root(), |sets| sets.effective.contains(both))
}

/// Whether the process may do what only root may, on the host itself: in a namespace of users root is nobody in particular.
pub fn is_root() -> bool {
    let own = fs::read_to_string("/proc/self/uid_map");
    let is_hosts = |map: String| map.split_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"];
    Uid::effective().is_root() && own.map_or(true, is_hosts)
}

/// The first port that this process may bind, without what is bound: ip_unprivileged_port_start of ip(7), or any with
/// CAP_NET_BIND_SERVICE.
pub fn first_free_port() -> u16 {
    if capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_BIND_SERVICE)) {
        return 0;
    }
    let start = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    start.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

/// What proc(5) says of each thread; nothing where there is no /proc.
fn statuses() -> Vec<(String, String)> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let status = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        Some((task.file_name().to_string_lossy().into_owned(), status))
    };
    tasks.filter_map(status).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Directory {
            // Not below the temporary one, which is shared, and may stand behind a link.
            let path = std::env::temp_dir()
                .canonicalize()
                .expect("one")
                .join(format!("handover-{test}-{}", std::process::id()));
            fs::create_dir(&path).expect("a directory");
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_others_can_lead_elsewhere_is_not_of_root_alone() {
        assert!(is_of_root_alone(Path::new("/etc/passwd")) && is_of_root_alone(Path::new("/no-such-file")));
        assert!(!is_of_root_alone(Path::new("/no-such-directory/file")) && !is_of_root_alone(Path::new("/etc")));
        if !Uid::effective().is_root() {
            return eprintln!("skipped: files of two users, which only root can make");
        }
        let Directory(top) = &Directory::new("of-root-alone");
        let (own, theirs) = (top.join("own"), top.join("theirs"));
        for directory in [&own, &theirs] {
            fs::create_dir(directory).expect("a directory");
        }
        fs::write(own.join("file"), "").expect("a file");
        for (link, target) in [("in-own", &own), ("in-theirs", &theirs), ("last", &own.join("file"))] {
            std::os::unix::fs::symlink(target, own.join(link)).expect("a link");
        }
        std::os::unix::fs::symlink("../own", theirs.join("back")).expect("a link");
        std::os::unix::fs::symlink("../theirs/back", own.join("around")).expect("a link");
        std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).expect("root may");
        let mut all = vec![("own/file", true), ("own/new", true), ("own/in-own/file", true), ("own/../own/new", true)];
        all.extend([
            ("own/last", false),
            ("theirs/new", false),
            ("own/in-theirs/new", false),
            ("theirs/back/file", false),
        ]);
        all.extend([("own/around/file", false), ("own", false)]);
        for (path, wanted) in all {
            assert_eq!(is_of_root_alone(&top.join(path)), wanted, "{path}");
        }
        // Whosever the file is, only root can put another one there; until others may write to the directory.
        std::os::unix::fs::chown(own.join("file"), Some(65534), None).expect("root may");
        assert!(is_of_root_alone(&own.join("file")));
        fs::set_permissions(&own, fs::Permissions::from_mode(0o1777)).expect("ours");
        assert!(!is_of_root_alone(&own.join("file")) && is_of_root_alone(&own.join("new")));
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).expect("ours");
        assert!(!is_of_root_alone(&own.join("new")));
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        let nobody = Identity::look_up("nobody", None).expect("every host has one");
        let number = nobody.uid.to_string();
        assert_eq!(Identity::look_up(&number, None).as_ref(), Ok(&nobody));
        let grouped = Identity::look_up("nobody", Some("1234")).expect("a number is a group");
        assert_eq!((grouped.uid, grouped.gid.as_raw()), (nobody.uid, 1234));
        assert_eq!(
            Identity::look_up("4000000000", Some("7")).expect("with its group").to_string(),
            "user 4000000000 (4000000000), group 7 (7)"
        );
        for (user, group, what) in [
            ("no-such-user", None, "no such user"),
            ("", None, "no such user"),
            ("nobody", Some("no-such-group"), "no group \"no-such-group\""),
            ("4000000000", None, "say its group as well"),
            ("root", None, "root itself"),
            ("0", Some("7"), "root itself"),
        ] {
            let error = Identity::look_up(user, group).expect_err(user);
            assert!(error.contains(what), "{user}: {error}");
        }
        assert!(!nobody.is_ours() || Uid::effective() == nobody.uid);
    }
}
