//! What a reload is to become: the program on disk, opened once, and its configuration, read once. What is checked is
//! what is executed, whatever happens to both meanwhile.
//!
//! A descriptor pins a file and not its bytes, so its size and times are compared before it is used; and a program that
//! begins with `#!` is opened anew by its interpreter, so it is executed by its path.

use super::before::{self, Before};
use super::child::Child;
use super::configuration;
use super::program::{CHECK, Check, PATH, Program, STATE, SUCCESSOR, WAY_BACK};
use super::way_back::{self, Failures};
use crate::sys::regular_file;
use rustix::fs::{Mode, OFlags, Stat, fstat, stat};
use rustix::io::{FdFlags, fcntl_setfd};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// The program on disk and its configuration, as they were when they were looked at.
#[derive(Debug)]
pub struct Candidate<'p> {
    program: &'p Program,
    /// `None` for what has to be executed by its path.
    file: Option<OwnedFd>,
    identity: Identity,
    configuration: Option<Configuration>,
}

#[derive(Debug)]
struct Configuration {
    path: PathBuf,
    bytes: Vec<u8>,
    snapshot: configuration::Snapshot,
}

/// Which file it is, and which bytes, as far as a file system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    file: (u64, u64),
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[allow(clippy::unnecessary_cast, reason = "of other sizes on other hosts")]
impl From<Stat> for Identity {
    fn from(stat: Stat) -> Identity {
        Identity {
            file: (stat.st_dev as u64, stat.st_ino as u64),
            size: stat.st_size as i64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }
}

/// What goes to a new image beside the state.
pub struct WayBack {
    /// What this process ran with.
    pub configuration: Option<configuration::Snapshot>,
    /// Arguments and environment.
    pub started_with: File,
    /// What has failed before.
    pub failures: Failures,
}

impl WayBack {
    /// Of the process that runs, with that configuration file.
    ///
    /// # Errors
    /// Where there is no place for what it needs.
    pub fn of(program: &Program, configuration: Option<(&Path, &[u8])>, failures: Failures) -> io::Result<WayBack> {
        let configuration = configuration.map(|(path, bytes)| configuration::Snapshot::new(path, bytes)).transpose()?;
        Ok(WayBack { configuration, started_with: way_back::started_with(program)?, failures })
    }
}

impl<'p> Candidate<'p> {
    /// Opens the program and reads its configuration, if it has that file. One that cannot be read is left to the check,
    /// which says why.
    ///
    /// # Errors
    /// What open(2) says of the program.
    pub fn read(program: &'p Program, configuration: Option<&Path>, most: u64) -> io::Result<Candidate<'p>> {
        let opened = rustix::fs::open(program.executable().as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let identity = fstat(&opened)?.into();
        let by_descriptor = Path::new("/proc/self/fd").is_dir() && !is_script(program.path());
        let read = |path: &Path| {
            let bytes = regular_file::read(path, most, "", "").ok()?;
            let snapshot = configuration::Snapshot::new(path, &bytes).ok()?;
            Some(Configuration { path: path.to_owned(), bytes, snapshot })
        };
        let file = Some(opened).filter(|_| by_descriptor);
        Ok(Candidate { program, file, identity, configuration: configuration.and_then(read) })
    }

    /// What is different from when it was read, in words: then what would be executed is not what was checked, or not
    /// what somebody wants by now.
    pub fn changed(&self) -> Option<String> {
        let path = self.program.executable();
        let there: Option<Identity> = stat(path.as_c_str()).ok().map(Into::into);
        let held = self.file.as_ref().and_then(|file| fstat(file).ok()).map(Identity::from);
        if held.is_some_and(|held| held != self.identity) || there != Some(self.identity) {
            return Some(format!("{} has changed since it was checked", self.program.path().display()));
        }
        let configuration = self.configuration.as_ref()?;
        let most = configuration.bytes.len() as u64;
        let same =
            regular_file::read(&configuration.path, most, "", "").is_ok_and(|bytes| bytes == configuration.bytes);
        (!same).then(|| format!("{} has changed since it was checked", configuration.path.display()))
    }

    /// The same for the same program and configuration, by their bytes or by their times: what has failed twice is not tried
    /// again until it is another.
    pub fn fingerprint(&self) -> u64 {
        // Not by its last change, which another link to it is too.
        let Identity { file, size, modified, .. } = self.identity;
        let mut text = format!("{file:?} {size} {modified:?} ").into_bytes();
        if let Some(configuration) = &self.configuration {
            let modified = stat(&configuration.path).ok().map(|stat| Identity::from(stat).modified);
            text.extend_from_slice(format!("{modified:?} ").as_bytes());
            text.extend_from_slice(&configuration.bytes);
        }
        way_back::hash(&text)
    }

    fn path(&self) -> CString {
        match &self.file {
            // A descriptor that is not there in the new image yet, since it is found before the old one's are closed.
            Some(file) => CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default(),
            None => self.program.executable(),
        }
    }

    /// Starts it with these descriptors under these numbers, and the configuration under one more.
    fn start(
        &self,
        variables: &[(&str, &OsStr)],
        streams: &[(BorrowedFd<'_>, RawFd)],
        own_group: bool,
    ) -> io::Result<Child> {
        let own = self.file.as_ref().map(AsRawFd::as_raw_fd);
        // The one above the standard streams that is not the program's: that has to be found behind this.
        let number = if own == Some(3) { 4 } else { 3 };
        let mut streams = streams.to_vec();
        let mut variables = variables.to_vec();
        variables.push((PATH, self.program.path().as_os_str()));
        let handed = self.configuration.as_ref().map(|it| (it.snapshot.for_child(number), it.snapshot.file()));
        if let Some((variable, file)) = &handed {
            streams.push((file.as_fd(), number));
            variables.push((configuration::VARIABLE, variable));
        }
        let environment = self.program.environment_with(&variables);
        Child::start(&self.path(), self.program.args(), &environment, &streams, own_group)
    }

    /// Starts the program to check itself, in a process group of its own where a Ctrl-C at the terminal is for us to pass
    /// on. It is told what is to be succeeded.
    ///
    /// # Errors
    /// What posix_spawn(3) says, or that there are no more pipes.
    pub fn start_check(&self, before: &Before, own_group: bool) -> io::Result<Check> {
        let before = before.text();
        Check::start(|streams| self.start(&[(CHECK, "1".as_ref()), (before::VARIABLE, &before)], streams, own_group))
    }

    /// Starts the successor, `link` being its stdin.
    ///
    /// # Errors
    /// What posix_spawn(3) says.
    pub fn start_successor(&self, link: BorrowedFd<'_>, told: &[(&str, &OsStr)]) -> io::Result<Child> {
        let ours = std::process::id().to_string();
        self.start(&[&[(SUCCESSOR, ours.as_ref())], told].concat(), &[(link, 0)], false)
    }

    /// Becomes the program. Returns only if that failed.
    ///
    /// Not by `CommandExt::exec`, which resets SIGPIPE and the signal mask also when it fails: the next sendfile to a
    /// closed peer would then kill the server.
    pub fn execute(&self, state: RawFd, told: &[(&str, &OsStr)], way_back: Option<&WayBack>) -> io::Error {
        let state = OsString::from(format!("{state}:{}", std::process::id()));
        let path = self.program.path().as_os_str().to_owned();
        let mut variables = vec![(STATE, state), (PATH, path)];
        variables.extend(told.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let mut passed = Vec::new();
        if let Some(configuration) = &self.configuration {
            variables.push((configuration::VARIABLE, configuration.snapshot.for_itself()));
            passed.push(configuration.snapshot.file().as_fd());
        }
        if let (Some(way_back), Some(image)) = (way_back, self.program.image()) {
            let old = way_back.configuration.as_ref();
            let configuration = old.map(configuration::Snapshot::for_itself).unwrap_or_default();
            let (image_fd, started_with) = (image.as_raw_fd(), way_back.started_with.as_raw_fd());
            let (failures, candidate) = (way_back.failures, self.fingerprint());
            let value = way_back::variable(image_fd, started_with, failures, candidate, &configuration);
            variables.push((WAY_BACK, value));
            passed.extend([image, way_back.started_with.as_fd()]);
            passed.extend(old.map(|old| old.file().as_fd()));
        }
        let variables: Vec<(&str, &OsStr)> = variables.iter().map(|(name, value)| (*name, value.as_os_str())).collect();
        let environment = self.program.environment_with(&variables);
        let pass = |on: bool| {
            let flags = if on { FdFlags::empty() } else { FdFlags::CLOEXEC };
            // It cannot fail for a descriptor that is open.
            passed.iter().for_each(|fd| _ = fcntl_setfd(fd, flags));
        };
        pass(true);
        let error = match nix::unistd::execve(&self.path(), self.program.args(), &environment) {
            Err(errno) => errno.into(),
        };
        pass(false);
        error
    }
}

/// Whether its interpreter would open it anew. One that may not be read is none.
fn is_script(path: &Path) -> bool {
    let mut first = [0; 2];
    regular_file::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && &first == b"#!"
}

#[cfg(test)]
mod tests {
    use super::super::program::Reads;
    use super::*;
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Program {
        let args = ["sh", "-c", script].map(OsString::from).to_vec();
        let environment = ["PATH=/nonexistent:/usr/bin:/bin", "NAME=value", "LISTEN_FDS=1", "HANDOVER_CHECK=no"];
        Program::new(args, environment.map(OsString::from).to_vec())
    }

    fn candidate(program: &Program) -> Candidate<'_> {
        Candidate::read(program, None, 0).expect("a program")
    }

    /// The versions that the script says it reads, or why it failed.
    fn checked(script: &str) -> Result<Vec<u32>, String> {
        reads(script).map(|reads| reads.states)
    }

    fn reads(script: &str) -> Result<Reads, String> {
        let shell = shell(script);
        let mut check = candidate(&shell).start_check(&Before::default(), true).expect("a shell");
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(checked) = check.outcome().expect("a child of ours") {
                return checked.reads();
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_check_says_what_it_reads_or_why_it_failed() {
        assert_eq!(checked("echo handover reads state versions 1,2"), Ok(vec![1, 2]));
        let script = "echo handover reads state versions 1; echo handover knows words of versions 1,2";
        assert_eq!(reads(script).map(|reads| reads.words), Ok(vec![1, 2]));
        let script = "echo handover reads state versions 1; printf '%s\\n' 'handover goes on with conversation \"a b\"' \
                      'handover goes on with conversation \"\\n\\u00e9\"' 'handover goes on with conversation c'";
        let names = ["a b".to_owned(), "\n\u{e9}".to_owned()];
        assert_eq!(reads(script).map(|reads| reads.conversations), Ok(names.to_vec()));
        let older = reads("echo handover reads state versions 1").map(|reads| reads.words);
        assert_eq!(older, Ok(vec![1]), "the first ones, of which nothing was said");
        let failed = checked("echo nothing; echo first >&2; echo last >&2; exit 3");
        assert_eq!(failed, Err("the check failed with exit code 3: last".to_owned()));
        let panics =
            "echo first; echo; echo \"thread 'main' (7) panicked at src/main.rs:1:2:\"; echo no time; echo note: run";
        let failed = checked(&format!("{{ {panics}; }} >&2; exit 101"));
        let why = "thread 'main' (7) panicked at src/main.rs:1:2: no time";
        assert_eq!(failed, Err(format!("the check failed with exit code 101: {why}")));
        // Ignored here, as in every program in Rust.
        assert_eq!(checked("kill -s PIPE $$"), Err("the check failed with signal 13: it said nothing".to_owned()));
    }

    #[test]
    fn a_check_has_the_environment_without_what_is_for_another() {
        let script = "test $NAME = value && test $HANDOVER_CHECK = 1 && test -z $LISTEN_FDS && \
                      echo handover reads state versions 1";
        assert_eq!(checked(script), Ok(vec![1]));
    }

    #[test]
    fn a_check_that_is_given_up_is_killed() {
        let begun = Instant::now();
        let file = std::env::temp_dir().join(format!("handover-check-{}", std::process::id()));
        let script = format!("echo $$ > {0}.new && mv {0}.new {0} && exec sleep 60", file.display());
        let shell = shell(&script);
        let check = candidate(&shell).start_check(&Before::default(), true).expect("a shell");
        while !file.exists() {
            assert!(begun.elapsed() < PATIENCE, "it does not start");
            std::thread::sleep(Duration::from_millis(1));
        }
        let pid = std::fs::read_to_string(&file).expect("its pid");
        let process = Path::new("/proc").join(pid.trim());
        assert!(process.exists());
        drop(check);
        assert!(begun.elapsed() < PATIENCE);
        // Reaped as well.
        assert!(!process.exists());
        std::fs::remove_file(file).expect("it is there");
    }

    #[test]
    fn a_check_may_say_more_than_a_pipe_holds() {
        let script = "i=0; while [ $i -lt 3000 ]; do echo a line of some more than sixty bytes, so that three thousand fill pipes; \
                      echo and another one for the other stream, which is as long as the first >&2; i=$((i+1)); done; \
                      echo handover reads state versions 7";
        assert_eq!(checked(script), Ok(vec![7]));
    }

    #[test]
    fn a_program_that_is_not_there_is_told_at_once() {
        let program = Program::new(vec!["/nonexistent/program".into()], Vec::new());
        let error = Candidate::read(&program, None, 0).expect_err("no such program");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
