//! `handover passwd`: writes a user and a password into a file of users.

use crate::access::{COSTS, DEFAULT_COST, MAX_FILE, Users, check_name, edited, hash};
use crate::sys::regular_file;
use crate::sys::terminal::{Hidden, is_terminal};
use http1::number::decimal;
use lexopt::{Arg, Parser};
use rustix::fs::{FlockOperation, Gid, Uid, fchown, flock};
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The first argument that asks for it. A directory of that name is served as `./passwd`.
const NAME: &str = "passwd";
/// bcrypt takes no more, so that whatever stands behind would be no part of the password.
const LONGEST_PASSWORD: u64 = 72;
/// Of a file that is new. Whoever runs the server has to be let in by its group, or own it.
const MODE: u32 = 0o600;

pub(super) const HELP: &str = "\
Usage: handover passwd [--cost N] FILE USER
       handover passwd --delete FILE USER

Writes a user into FILE, which is made if there is none: for auth of a
[[route]], of a [[push]], and for Apache and nginx as well. The password is
asked for twice, or is the line on stdin where that is no terminal. A running
server takes FILE up at its next reload.

      --cost N   of bcrypt, 4 to 14: each step takes twice as long [10]
      --delete   take the user out
  -h, --help     this text

Exit codes  0 FILE is written
            1 FILE is as it was; the reason stands on stderr in one line
            2 wrong usage
";

/// What the command line asks for, its program's name included, if that is a password.
pub fn passwd_command(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    (args.next()? == NAME).then(|| run(args))
}

/// Runs the command; `args` are what follows `passwd`.
fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let (text, code) = match parse(args) {
        Ok(None) => (HELP.to_owned(), 0),
        Err(mistake) => (format!("handover passwd: {mistake} (try handover passwd --help)\n"), 2),
        Ok(Some(order)) => match order.carry_out() {
            Ok(done) => (done, 0),
            Err(why) => (format!("handover passwd: {why}\n"), 1),
        },
    };
    // What is done is done, whether or not somebody reads that.
    let _ = match code {
        0 => io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()),
        _ => io::stderr().write_all(text.as_bytes()),
    };
    code.into()
}

struct Order {
    file: PathBuf,
    user: String,
    /// `None` takes the user out.
    cost: Option<u32>,
}

/// `None` for `--help`. An error is a mistake in the usage.
fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<Order>, String> {
    let (mut cost, mut delete) = (None, false);
    let mut words = Vec::new();
    let mut parser = Parser::from_args(args);
    let told = |error: lexopt::Error| {
        // On one line, whatever is in the argument.
        let quoted = format!("{:?}", error.to_string());
        quoted[1..quoted.len() - 1].replace("\\\"", "\"")
    };
    while let Some(argument) = parser.next().map_err(told)? {
        match argument {
            Arg::Long("cost") => {
                let value = parser.value().map_err(told)?;
                let number = value.to_str().and_then(decimal).filter(|number| COSTS.contains(number));
                let (low, high) = COSTS.into_inner();
                let number = number.ok_or_else(|| format!("--cost is {value:?}, allowed is {low} to {high}"))?;
                if cost.replace(number).is_some() {
                    return Err("--cost stands twice".to_owned());
                }
            }
            Arg::Long("delete") => delete = true,
            Arg::Value(word) if words.len() < 2 => words.push(word),
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            // A password among the arguments would be seen by everybody on this host.
            Arg::Value(_) => return Err("FILE and USER are all: the password is asked for".to_owned()),
            other => return Err(told(other.unexpected())),
        }
    }
    if delete && cost.is_some() {
        return Err("--cost does not go with --delete".to_owned());
    }
    let mut words = words.into_iter();
    let (Some(file), Some(user)) = (words.next(), words.next()) else {
        return Err("whose password, and where? give FILE and USER".to_owned());
    };
    let user = user.into_string().map_err(|user| format!("USER is {user:?}, which is not UTF-8"))?;
    check_name(&user)?;
    Ok(Some(Order { file: file.into(), user, cost: if delete { None } else { cost.or(Some(DEFAULT_COST)) } }))
}

impl Order {
    /// Answers what there is to say of it.
    fn carry_out(&self) -> Result<String, String> {
        let hashed = match self.cost {
            None => None,
            Some(cost) => {
                let hashed = hash(password(&self.user)?.as_bytes(), cost);
                Some(hashed.map_err(|error| format!("there is nothing random to be had: {error}"))?)
            }
        };
        let (was_there, text) =
            self.edit(hashed.as_deref()).map_err(|what| format!("file of users {:?}: {what}", self.file))?;
        let what = match (self.cost, was_there) {
            (None, _) => "is taken out of",
            (Some(_), true) => "has a new password in",
            (Some(_), false) => "is new in",
        };
        let mut done =
            format!("{:?} {what} {:?}; a running server takes it up at its next reload\n", self.user, self.file);
        // It is no worse than before, but no server starts with it.
        if let Err(what) = Users::parse(&text, &self.file) {
            done.push_str(&format!("but it is of no use like that: {what}\n"));
        }
        Ok(done)
    }

    /// Replaces the file by one in which the user stands with that hash, or not at all: whole, or not at all. Answers
    /// whether the user was there, and what stands there now.
    fn edit(&self, hashed: Option<&str>) -> Result<(bool, Vec<u8>), String> {
        let said = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => "there is no such directory".to_owned(),
            io::ErrorKind::PermissionDenied => "this user may not write there".to_owned(),
            _ => error.to_string(),
        };
        // A link stays, and what it leads to is replaced.
        let path = match fs::canonicalize(&self.file) {
            Ok(path) => path,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(said(error)),
            Err(_) if fs::symlink_metadata(&self.file).is_ok() => {
                return Err("it is a link that leads nowhere".to_owned());
            }
            Err(_) => self.file.clone(),
        };
        let name = path.file_name().ok_or("it is a directory")?.to_owned();
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = File::open(above).map_err(said)?;
        // Two of us, one behind the other. Where locks are unknown, the look below has to do.
        let _ = flock(&directory, FlockOperation::LockExclusive);
        let (before, text) = read(&path)?;
        let (text, was_there) = edited(&text, &self.user, hashed);
        if !was_there && hashed.is_none() {
            return Err(format!("there is no user {:?}", self.user));
        }
        if text.len() as u64 > MAX_FILE {
            return Err(format!("it would have more than {MAX_FILE} bytes"));
        }
        let mut beside = OsString::from(".");
        beside.push(&name);
        beside.push(format!(".{}", std::process::id()));
        let beside = path.with_file_name(beside);
        // From a process that had our pid and was killed just here.
        let _ = fs::remove_file(&beside);
        let replaced = write(&beside, before.as_ref(), &text).map_err(said).and_then(|()| {
            let now = fs::metadata(&path).ok();
            if now.as_ref().map(stamp) != before.as_ref().map(stamp) {
                return Err("somebody else has changed it just now; try again".to_owned());
            }
            fs::rename(&beside, &path).map_err(said)
        });
        if replaced.is_err() {
            let _ = fs::remove_file(&beside);
        }
        replaced?;
        // So that it is there after a power cut too, if the file system can say that.
        let _ = directory.sync_all();
        Ok((was_there, text))
    }
}

/// What stands there, and of which file that is.
fn read(path: &Path) -> Result<(Option<Metadata>, Vec<u8>), String> {
    let not_regular = "it is not a regular file";
    let file = match regular_file::open(path) {
        Ok(file) => file,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound => Ok((None, Vec::new())),
                io::ErrorKind::PermissionDenied => Err("this user may not read it".to_owned()),
                io::ErrorKind::InvalidInput => Err(not_regular.to_owned()),
                _ => Err(error.to_string()),
            };
        }
    };
    let mut text = Vec::new();
    let meta = file.metadata();
    let read = (&file).take(MAX_FILE + 1).read_to_end(&mut text);
    match (meta, read) {
        (Ok(_), Ok(length)) if length as u64 > MAX_FILE => Err(format!("it has more than {MAX_FILE} bytes")),
        (Ok(meta), Ok(_)) => Ok((Some(meta), text)),
        (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
    }
}

/// What changes whenever somebody writes a file or puts another in its place.
fn stamp(meta: &Metadata) -> [i64; 7] {
    let (device, inode, size) = (meta.dev() as i64, meta.ino() as i64, meta.size() as i64);
    [device, inode, size, meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()]
}

/// Writes a new file, with the owner and the mode of the one that it is to replace.
fn write(path: &Path, before: Option<&Metadata>, text: &[u8]) -> io::Result<()> {
    // `create_new` follows no link that somebody may have put there. Nobody reads it before it has its mode.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    if let Some(before) = before {
        let now = file.metadata()?;
        if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
            let (owner, group) = (Uid::from_raw(before.uid()), Gid::from_raw(before.gid()));
            fchown(&file, Some(owner), Some(group)).map_err(|errno| {
                let (owner, group) = (before.uid(), before.gid());
                let what = format!("its owner {owner} and its group {group} would change: {}", io::Error::from(errno));
                io::Error::other(what)
            })?;
        }
        file.set_permissions(Permissions::from_mode(before.mode() & 0o777))?;
    }
    file.write_all(text)?;
    file.sync_all()
}

/// Asks for it, or reads it where nobody can be asked.
fn password(user: &str) -> Result<String, String> {
    let cannot = |error: io::Error| format!("the password cannot be read: {error}");
    let password = if is_terminal() {
        let hidden = Hidden::begin().map_err(cannot)?;
        let first = ask(&format!("Password for {user}: ")).map_err(cannot)?;
        let second = ask("The same again: ").map_err(cannot)?;
        drop(hidden);
        if first != second {
            return Err("these are two passwords".to_owned());
        }
        first
    } else {
        let mut line = Vec::new();
        io::stdin().lock().take(2 * LONGEST_PASSWORD).read_to_end(&mut line).map_err(cannot)?;
        line
    };
    let password = password.strip_suffix(b"\n").unwrap_or(&password);
    let password = password.strip_suffix(b"\r").unwrap_or(password);
    let password = std::str::from_utf8(password).map_err(|_| "the password is not UTF-8")?;
    match password {
        "" => Err("there is no password".to_owned()),
        long if long.len() as u64 > LONGEST_PASSWORD => {
            Err(format!("the password has more than {LONGEST_PASSWORD} bytes, and bcrypt takes no more"))
        }
        odd if odd.chars().any(char::is_control) => {
            Err("the password has a control character or a second line, which no client sends".to_owned())
        }
        password => Ok(password.to_owned()),
    }
}

/// One line, and the end of it that was not shown.
fn ask(prompt: &str) -> io::Result<Vec<u8>> {
    let say = |text: &str| io::stderr().write_all(text.as_bytes());
    say(prompt)?;
    let mut line = Vec::new();
    io::stdin().lock().read_until(b'\n', &mut line)?;
    say("\n")?;
    Ok(line)
}
