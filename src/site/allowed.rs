//! What the threads that answer requests have to open for a configuration, wherever a deployment puts it.

use crate::config::site::ConfiguredSite;
use crate::config::{AllowedPaths, Config};
use crate::sys::working_directory;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// The root and the directories of routes; and of each the directory that it stands in, since a deployment puts another one
/// in its place, by a rename, or by a link that leads to one beside it. What else stands there can then be opened too: so
/// not where that is the system's, somebody's home, or has keys or messages of this server in it, and not where anybody
/// may write.
pub(super) fn allowed(config: &Config) -> AllowedPaths {
    let private = private(config);
    let mut paths: Vec<PathBuf> = Vec::new();
    for directory in config.sites().flat_map(ConfiguredSite::directories) {
        // One that leads nowhere was not opened either.
        let Ok(absolute) = working_directory::absolute(directory) else { continue };
        let (directory, led_to) = resolved(&absolute);
        let around = led_to.iter().chain([&directory]).filter_map(|path| around(path, &private));
        paths.extend(around.map(Path::to_owned).collect::<Vec<_>>());
        // By its own name, where a directory above may not be searched.
        paths.push(if directory.exists() { directory } else { absolute });
    }
    paths.sort_unstable();
    // What lies below another stands behind it.
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths {
        if !kept.last().is_some_and(|above| path.starts_with(above)) {
            kept.push(path);
        }
    }
    kept.into_iter().fold(AllowedPaths::default(), AllowedPaths::read)
}

/// Directories of the system, in which others have theirs.
const SYSTEM: [&str; 16] = [
    "/", "/boot", "/dev", "/etc", "/home", "/lib", "/media", "/mnt", "/proc", "/root", "/run", "/sys", "/tmp", "/usr",
    "/var", "/var/lib",
];

/// As many links as the kernel follows in one path (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// What no directory may hold that is allowed for the sake of another in it.
fn private(config: &Config) -> Vec<PathBuf> {
    let files = config.secret_files().into_iter().map(|(_, path)| path).chain(&config.push.history_file);
    let files = files.filter_map(|path| {
        let path = working_directory::absolute(path).ok()?;
        // One that is not written yet is known by its directory.
        let by_directory = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
        Some(path.canonicalize().ok().or_else(by_directory).unwrap_or(path))
    });
    files.chain(std::env::home_dir().and_then(|home| home.canonicalize().ok())).collect()
}

/// The directory that it stands in, if all of that may be opened.
fn around<'p>(path: &'p Path, private: &[PathBuf]) -> Option<&'p Path> {
    let parent = path.parent()?;
    // Whoever started this may have another home than whose files these are.
    let is_home = parent.parent() == Some(Path::new("/home"));
    let is_private = is_home || SYSTEM.iter().any(|system| parent == Path::new(system));
    let is_private = is_private || private.iter().any(|it| it.starts_with(parent));
    let is_for_all = || fs::metadata(parent).map_or(true, |stat| stat.mode() & 0o002 != 0);
    (!is_private && !is_for_all()).then_some(parent)
}

/// Where an absolute path leads, and each link on the way.
fn resolved(path: &Path) -> (PathBuf, Vec<PathBuf>) {
    let mut here = PathBuf::from("/");
    let mut pending: VecDeque<OsString> = names(path).collect();
    let (mut links, mut led_to) = (0, Vec::new());
    while let Some(name) = pending.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        let Some(target) = fs::read_link(&next).ok().filter(|_| links < MAX_LINKS) else {
            here = next;
            continue;
        };
        links += 1;
        led_to.extend(next.canonicalize().ok());
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
            pending.push_front(name);
        }
    }
    (here, led_to)
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::site::{DirectoryOptions, Prefix, RouteAction, RouteConfig};
    use crate::site::testing::TempDir;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn config(root: &Path) -> Config {
        Config { root: Some(root.to_owned()), ..Config::default() }
    }

    /// Below the directory of the test, whatever that is called.
    fn allowed_in(dir: &TempDir, config: &Config) -> Vec<String> {
        let top = dir.path().canonicalize().expect("a directory");
        let shown = |path: &Path| match path.strip_prefix(&top) {
            Ok(path) => path.to_str().expect("UTF-8").to_owned(),
            Err(_) => path.display().to_string(),
        };
        allowed(config).readable().map(shown).collect()
    }

    fn tree(names: &[&str]) -> TempDir {
        let dir = TempDir::new();
        names.iter().for_each(|name| drop(dir.write(&format!("{name}/file"), "")));
        dir
    }

    #[test]
    fn a_directory_is_allowed_with_those_beside_it() {
        let dir = tree(&["site/public", "other/assets"]);
        let mut config = config(&dir.path().join("site/public"));
        assert_eq!(allowed_in(&dir, &config), ["site"]);
        let assets =
            RouteAction::Directory { path: dir.path().join("other/assets"), options: DirectoryOptions::default() };
        let prefix = Prefix::parse("/assets").expect("a prefix");
        config.site.routes.push(RouteConfig { prefix, action: assets, headers: Vec::new(), auth: None });
        assert_eq!(allowed_in(&dir, &config), ["other", "site"]);
        // And those of hosts, whose passwords are as private.
        let text = "[[host]]\nname = 'a'\nroot = 'hosts/a'\n[[host]]\nname = 'b'\n[[host.route]]\nprefix = '/b'\n\
                    directory = 'more/b'\nauth = { realm = 'b', file = 'more/users' }\n";
        let with_hosts = Config::from_file(dir.write("handover.toml", text)).expect("a configuration");
        for name in ["hosts/a/file", "more/b/file", "more/users"] {
            dir.write(name, "");
        }
        assert_eq!(allowed_in(&dir, &with_hosts), ["hosts", "more/b"]);
        assert!(allowed(&Config::default()).readable().next().is_none());
    }

    #[test]
    fn where_a_link_leads_is_allowed_with_what_stands_beside_it() {
        let dir = tree(&["app/releases/1/public", "app/shared"]);
        for (name, target) in [("relative", "app/releases/1"), ("dots", "app/shared/../releases/1/.")] {
            symlink(target, dir.path().join(name)).expect("a link");
            assert_eq!(allowed_in(&dir, &config(&dir.path().join(name))), ["app/releases"], "{name}");
            // In the middle of the path.
            assert_eq!(allowed_in(&dir, &config(&dir.path().join(name).join("public"))), ["app/releases"], "{name}");
        }
        symlink(dir.path().join("app/releases/1"), dir.path().join("absolute")).expect("a link");
        assert_eq!(allowed_in(&dir, &config(&dir.path().join("absolute/public"))), ["app/releases"]);
        // A link to a link.
        symlink("relative/public", dir.path().join("chain")).expect("a link");
        assert_eq!(allowed_in(&dir, &config(&dir.path().join("chain"))), ["app/releases"]);
        // One that leads in a circle ends.
        symlink("circle", dir.path().join("circle")).expect("a link");
        allowed(&config(&dir.path().join("circle/public")));
    }

    #[test]
    fn what_is_private_or_for_all_is_not_allowed_for_its_neighbour() {
        let dir = tree(&["site/public", "keys", "shared/public"]);
        let mut config = config(&dir.path().join("site/public"));
        config.status_token_file = Some(dir.write("site/status.token", ""));
        assert_eq!(allowed_in(&dir, &config), ["site/public"]);
        // Also by another name, and before there is one.
        symlink("../site/status.token", dir.path().join("keys/token")).expect("a link");
        config.status_token_file = Some(dir.path().join("keys/token"));
        assert_eq!(allowed_in(&dir, &config), ["site/public"]);
        config.status_token_file = None;
        config.push.history_file = Some(dir.path().join("keys/../site/history"));
        assert_eq!(allowed_in(&dir, &config), ["site/public"]);
        config.push.history_file = Some(dir.path().join("keys/history"));
        assert_eq!(allowed_in(&dir, &config), ["site"]);
        config.root = Some(dir.path().join("shared/public"));
        fs::set_permissions(dir.path().join("shared"), fs::Permissions::from_mode(0o1777)).expect("permissions");
        assert_eq!(allowed_in(&dir, &config), ["shared/public"]);
        for (root, expected) in
            [("/srv", "/srv"), ("/home/me/public", "/home/me/public"), ("/usr/share", "/usr/share"), ("/", "/")]
        {
            config.root = Some(root.into());
            assert_eq!(allowed_in(&dir, &config), [expected]);
        }
    }
}
