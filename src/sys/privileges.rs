//! Who the process is, and how it becomes somebody else for good: setresuid(2), setresgid(2), setgroups(2).
//!
//! By the wrappers of libc, which do it for each thread of the process; the system calls themselves are for one thread.

use nix::unistd::{
    Gid, Group, Uid, User, getgroups, getresgid, getresuid, initgroups, setgroups, setresgid, setresuid,
};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, chownat, fstat, open};
use rustix::thread::{CapabilitySet, capabilities};
use std::ffi::CString;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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

    /// Makes a file of that user's where there is none, so that it can go on with it. One that is there stays as it is.
    pub fn create_file(&self, path: &Path) {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path);
        // What is in the way is said by who opens it.
        if let Ok(file) = made {
            let _ = rustix::fs::fchown(file, self.owner().0, self.owner().1);
        }
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

/// The first port that anybody may bind, ip_unprivileged_port_start of ip(7).
pub fn first_free_port() -> u16 {
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
