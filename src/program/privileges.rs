//! Who the server is: what `user` and `group` ask for, and what that user cannot do again that root has done at the start.

use super::check;
use crate::Error;
use crate::config::Config;
use crate::lifecycle::before::Before;
use crate::lifecycle::program::{self, Program};
use crate::listener::{Address, Bound, Listener, beyond_rights};
use crate::logging;
use crate::push::history;
use crate::sys::privileges::{Identity, first_free_port, may_become_another};
use rustix::fs::{Access, access};
use std::fs::File;
use std::io;
use std::path::Path;

/// Whom the configuration wants to serve, if it names somebody.
///
/// # Errors
/// A configuration error: there is no such user, or this process cannot become that one.
pub fn identity(config: &Config) -> Result<Option<Identity>, Error> {
    let Some(user) = &config.user else {
        return match &config.group {
            Some(group) => {
                Err(config.error("group", format_args!("group {group:?} goes with a user: user = \"NAME\"")))
            }
            None => Ok(None),
        };
    };
    let key = if config.group.is_some() && config.line("user").is_none() { "group" } else { "user" };
    let identity = Identity::look_up(user, config.group.as_deref())
        .map_err(|why| config.error(key, format_args!("user {user:?}: {why}")))?;
    Ok(Some(identity))
}

/// For a check. What is opened at a start is opened as root, and was; from here on it is that user who looks what could be
/// done again. For a reload the server is that one already, or would have to become it, which a reload cannot do.
///
/// # Errors
/// A configuration error.
pub fn check_as(config: &Config, identity: &Identity) -> Result<(), Error> {
    if identity.is_ours() {
        return Ok(());
    }
    if program::is_check() {
        return Err(is_another(config, identity));
    }
    // What would run can be said all the same.
    if !may_become_another() {
        return Ok(());
    }
    for (key, what, path) in logs(config) {
        identity.could_open(path, &|path| logging::try_open(path)).map_err(|error| {
            config.error(key, format_args!("cannot open {what} {path:?}: {}", logging::why(path, &error)))
        })?;
    }
    become_user(config, identity)
}

fn is_another(config: &Config, identity: &Identity) -> Error {
    config.error("user", format_args!("the server is to be {identity}, and is another one: that needs a restart"))
}

/// Whether a successor of such a server can have all of the configuration, with the rights that are left.
///
/// # Errors
/// What needs a restart: a user that is not named any more, an address that this user may not listen on.
pub fn can_succeed(before: &Before, config: &Config, addresses: &[Address]) -> Result<(), Error> {
    if let (Some(user), None) = (&before.user, &config.user) {
        // Nothing of the file is wrong, and something is not there: so without a place.
        return Err(Error::config(format_args!(
            "the server has become user {user}, and user is not set any more, which needs a restart"
        )));
    }
    match before.is_of_manager {
        true => Ok(()),
        false => beyond_rights(addresses, &before.bound, first_free_port()),
    }
}

/// Key, words and path of each log that is a file.
fn logs(config: &Config) -> impl Iterator<Item = (&'static str, &'static str, &Path)> {
    let logs = [("log_file", "log file", &config.log_file), ("access_log", "access log", &config.access_log)];
    let logs = logs.into_iter().filter_map(|(key, what, path)| Some((key, what, path.as_deref()?)));
    logs.filter(|(_, _, path)| path.as_os_str() != "-")
}

/// A successor has its predecessor's user: only a start, by root, is to become another.
///
/// # Errors
/// It is to be another one.
pub fn is_who_it_should_be(config: &Config, identity: &Identity) -> Result<(), Error> {
    if identity.is_ours() { Ok(()) } else { Err(is_another(config, identity)) }
}

/// From here on the process is that user. Nobody has started a thread.
///
/// # Errors
/// A configuration error where that is refused.
pub fn become_user(config: &Config, identity: &Identity) -> Result<(), Error> {
    if identity.is_ours() {
        return Ok(());
    }
    if !may_become_another() {
        return Err(config.error(
            "user",
            format_args!(
                "cannot become {identity}: only root can; start it as root, or as that user without this setting"
            ),
        ));
    }
    identity.assume().map_err(|why| config.error("user", format_args!("cannot become {identity}: {why}")))
}

/// Sockets are that user's: who may connect to them is said by their owner, group and mode.
pub fn give_sockets(listeners: &[Listener], identity: &Identity) {
    for listener in listeners {
        if let (Bound::Unix(path), Some(file)) = (listener.bound(), listener.file())
            && let Err(error) = identity.own_socket(path, file)
        {
            log::warn!("{path:?} stays root's: {error}");
        }
    }
}

/// What the user that this process has become cannot do again, one line each, and whether that is more than a note: a reload
/// would fail by it, or go without.
pub fn needs_restart(config: &Config, addresses: &[Address], user: &str) -> Vec<(bool, String)> {
    let mut all = Vec::new();
    let mut cannot_read = |what: &str, path: &Path| {
        if let Err(error) = File::open(path) {
            let so = "a reload fails, and what changes there needs a restart";
            all.push((true, format!("user {user} cannot read {what} {path:?} ({error}): {so}")));
        }
    };
    if let Some(file) = &config.file {
        cannot_read("configuration file", file.path());
    }
    config.secret_files().into_iter().for_each(|(what, path)| cannot_read(what, path));
    for site in config.sites() {
        site.directories().for_each(|path| cannot_read("directory", path));
        site.site.error_pages.iter().for_each(|(_, path)| cannot_read("error page", path));
    }
    let program = Program::of_this_process().path();
    if let Err(errno) = access(program, Access::EXEC_OK) {
        let (why, so) = (std::io::Error::from(errno), "every reload fails");
        all.push((true, format!("user {user} cannot execute the program {program:?} ({why}): {so}")));
    }
    for (_, what, path) in logs(config) {
        // What is not there yet is made at the start.
        let made_at_start = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied && !path.exists();
        let tried = logging::try_open(path).or_else(|error| if made_at_start(&error) { Ok(()) } else { Err(error) });
        if let Err(error) = tried {
            let (why, so) =
                (logging::why(path, &error), "USR1 keeps the old one, and a reload needs a restart instead");
            all.push((true, format!("user {user} cannot open {what} {path:?} anew ({why}): {so}")));
        } else if let Some(why) = check::cannot_write_beside(path) {
            let so = "who rotates it has to make the next one, for that user, or a reload fails";
            all.push((true, format!("user {user} cannot make {what} {path:?} anew ({why}): {so}")));
        }
    }
    if let Some(path) = &config.push.history_file
        && let Err(why) = history::can_write(path)
    {
        all.push((
            true,
            format!("user {user} cannot write history file {path:?} ({why}): a stop loses what push keeps"),
        ));
    }
    let free = first_free_port();
    for address in addresses {
        match address {
            Address::Unix(path) => {
                if let Some(why) = check::cannot_write_beside(path) {
                    let so = "a stop leaves it there, and another one needs a restart";
                    all.push((true, format!("user {user} cannot remove {address} ({why}): {so}")));
                }
            }
            Address::Tcp(_, 1..) if address.port().is_some_and(|port| port < free) => {
                let so = format!("user {user} keeps it through reloads, and another one needs a restart");
                all.push((false, format!("{address} is below port {free}: {so}")));
            }
            Address::Tcp(..) => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn who_cannot_be_is_a_configuration_error() {
        let of = |user: Option<&str>, group: Option<&str>| Config {
            user: user.map(str::to_owned),
            group: group.map(str::to_owned),
            ..Config::default()
        };
        assert!(identity(&of(None, None)).expect("nobody in particular").is_none());
        assert!(identity(&of(Some("nobody"), None)).expect("every host has one").is_some());
        for (user, group, what) in [
            (None, Some("nogroup"), "goes with a user"),
            (Some("no-such-user"), None, "user \"no-such-user\": there is no such user"),
            (Some("nobody"), Some("no-such-group"), "no group"),
        ] {
            let error = identity(&of(user, group)).expect_err(what);
            assert!(error.is_config() && error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn what_a_host_serves_is_what_a_user_has_to_read_again() {
        let text = "[[host]]\nname = 'a'\nroot = '/nowhere/root'\nerror_pages = { 404 = '/nowhere/404.html' }\n\
                    [[host.route]]\nprefix = '/b'\ndirectory = '/nowhere/b'\n\
                    auth = { realm = 'b', file = '/nowhere/users' }\n";
        let config = file::read(text, "/nowhere/handover.toml".into(), None).expect("a configuration");
        let said = needs_restart(&config, &[], "ada");
        for what in [
            "directory \"/nowhere/root\"",
            "directory \"/nowhere/b\"",
            "error page \"/nowhere/404.html\"",
            "file of users \"/nowhere/users\"",
        ] {
            let line = format!("user ada cannot read {what} (");
            assert!(said.iter().any(|(warns, said)| *warns && said.starts_with(&line)), "{line}: {said:?}");
        }
    }

    #[test]
    fn what_a_user_cannot_do_again_is_named() {
        let config = Config {
            log_file: Some("/nowhere/log".into()),
            status_token_file: Some("/nowhere/token".into()),
            ..Config::default()
        };
        let addresses = ["0.0.0.0:1".parse().expect("an address"), "unix:/nowhere/s".parse().expect("an address")];
        let said = needs_restart(&config, &addresses, "ada");
        let warnings: Vec<&str> = said.iter().filter(|(warns, _)| *warns).map(|(_, line)| line.as_str()).collect();
        for part in ["token file \"/nowhere/token\"", "log file \"/nowhere/log\" anew", "remove unix:/nowhere/s"] {
            assert!(
                warnings.iter().any(|line| line.starts_with("user ada cannot ") && line.contains(part)),
                "{said:?}"
            );
        }
        let note = said.iter().find(|(warns, _)| !warns);
        assert!(
            first_free_port() < 2 || note.is_some_and(|(_, line)| line.starts_with("0.0.0.0:1 is below port")),
            "{said:?}"
        );
    }
}
