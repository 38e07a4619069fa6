//! What `--check` says: all that would run, and the memory that it can take.

use super::settings::SETTINGS;
use crate::config::size_text;
use crate::engine::connection::{connection_buffers, worker_buffers};
use crate::engine::memory::{IDLE, Plan, kibibytes, mebibytes};
use crate::listener::Address;
use crate::logging;
use crate::push::history;
use crate::sys::regular_file::is_exposed;
use crate::{Config, Error};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::fmt::{self, Write};
use std::path::Path;

/// The lines that the table of settings fills.
const LINES: [&str; 12] = [
    "user",
    "status",
    "bus",
    "limits",
    "timeouts",
    "stop",
    "reload",
    "log",
    "log file",
    "access log",
    "pid file",
    "workers",
];

/// Why this user cannot make and remove files in the directory of that one.
pub fn cannot_write_beside(path: &Path) -> Option<String> {
    let directory = match path.parent() {
        None => path,
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    access(directory, Access::WRITE_OK).err().map(|errno| match errno {
        Errno::ACCESS => "no permission to write to its directory".to_owned(),
        errno => logging::why(path, &errno.into()),
    })
}

/// Behind what cannot be written: who would write it, where that is said.
pub fn who_writes(config: &Config) -> String {
    let user = config.user.as_ref();
    user.map_or(String::new(), |user| format!("; user {user} writes it, for which it needs a directory of its own"))
}

/// Whether the files that are written while running can be; nothing is created. `opened`: those that stay open are opened
/// before the server becomes another user.
pub fn can_write(config: &Config, opened: bool) -> Result<(), Error> {
    if let Some(path) = &config.pid_file {
        // It is renamed into place.
        let is_directory = path.is_dir().then_some("it is a directory".to_owned());
        if let Some(why) = is_directory.or(cannot_write_beside(path)) {
            let who = who_writes(config);
            return Err(config.error("pid_file", format_args!("cannot write pid file {path:?}: {why}{who}")));
        }
    }
    if opened {
        return Ok(());
    }
    if let Some(path) = &config.log_file
        && let Err(error) = logging::try_open(path)
    {
        let why = logging::why(path, &error);
        return Err(config.error("log_file", format_args!("cannot open log file {path:?}: {why}")));
    }
    if let Some(path) = config.access_log.as_ref().filter(|path| path.as_os_str() != "-")
        && let Err(error) = logging::try_open(path)
    {
        let why = logging::why(path, &error);
        return Err(config.error("access_log", format_args!("cannot open access log {path:?}: {why}")));
    }
    if let Some(path) = &config.push.history_file
        && let Err(why) = history::can_write(path)
    {
        return Err(config.error("history_file", format_args!("cannot write history file {path:?}: {why}")));
    }
    Ok(())
}

/// Listeners, routes, limits and memory, a line each.
pub fn report(config: &Config, plan: Option<&Plan>, addresses: &[Address], routes: &[String]) -> String {
    let mut report = String::new();
    fn write(report: &mut String, name: &str, what: fmt::Arguments<'_>) {
        // Writing into a string does not fail.
        let _ = writeln!(report, "{name:<10} {what}");
    }
    let mut line = |name: &str, what: fmt::Arguments<'_>| write(&mut report, name, what);
    if let Some(file) = &config.file {
        line("file", format_args!("{}", file.path().display()));
    }
    for address in addresses {
        line("listen", format_args!("{address}"));
    }
    for route in routes {
        line("route", format_args!("{route}"));
    }
    if config.status_routes {
        line("route", format_args!("/-/healthy and /-/ready, by the server itself"));
    }
    if config.push.used {
        let (memory, subscribers) =
            (config.push.room(config.memory), config.push.subscribers(config.limits.connections));
        let message = size_text(config.push.max_message.map_or(64 << 10, |most| most as u64));
        let history = config.push.history_file.as_ref().map_or(String::new(), |path| format!(", history in {path:?}"));
        let memory = size_text(memory as u64);
        line("push", format_args!("memory {memory}, messages of {message}, {subscribers} subscribers{history}"));
    }
    for exposed in config.secret_files().iter().filter_map(|(kind, path)| is_exposed(kind, path)) {
        line("warning", format_args!("{exposed}"));
    }
    if let Some(note) = logging::filters::note(config) {
        line("warning", format_args!("{note}"));
    }
    let mut settings = config.clone();
    for name in LINES {
        let says =
            SETTINGS.iter().filter_map(|setting| setting.check.filter(|(line, _)| *line == name).zip(Some(setting)));
        let says = says.filter_map(|((_, words), setting)| Some(words.replace("{}", &setting.text(&mut settings)?)));
        let says: String = says.collect();
        if !says.is_empty() {
            line(name, format_args!("{says}"));
        }
    }
    if let Some(plan) = plan {
        line("memory", format_args!("{}", plan.describe()));
        return report;
    }
    let memory = Memory::of(config);
    let push = if memory.push > 0 { format!(", push {}", kibibytes(memory.push)) } else { String::new() };
    line(
        "memory",
        format_args!(
            "at most {} of buffers and stacks: {} workers x {}, {} connections x {}{push}",
            mebibytes(memory.most()),
            config.workers,
            kibibytes(memory.worker),
            config.limits.connections,
            kibibytes(memory.connection)
        ),
    );
    line(
        "",
        format_args!(
            "{} while all connections are idle; besides, the program itself, what handlers",
            mebibytes(memory.idle())
        ),
    );
    line("", format_args!("allocate, responses in memory above 16K, and the kernel's socket buffers"));
    report
}

/// Estimates, in bytes, from the sizes that the engine allocates.
struct Memory {
    workers: u64,
    connections: u64,
    /// What push keeps.
    push: u64,
    /// One worker: its stack, if a handler went as deep as it can, and its buffers.
    worker: u64,
    /// One connection in the middle of the largest request whose body is buffered.
    connection: u64,
}

impl Memory {
    fn of(config: &Config) -> Memory {
        Memory {
            workers: config.workers as u64,
            connections: config.limits.connections as u64,
            push: config.push.room(config.memory) as u64,
            worker: (config.worker_stack + worker_buffers(&config.limits)) as u64,
            connection: connection_buffers(&config.limits) as u64 + IDLE,
        }
    }

    fn most(&self) -> u64 {
        self.workers * self.worker + self.connections * self.connection + self.push
    }

    fn idle(&self) -> u64 {
        self.workers * self.worker + self.connections * IDLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_follows_from_the_settings() {
        let memory = Memory::of(&Config::default());
        // 256 + 16 + 16 + 16 + 16 + 16, and 16 + 64 + 16 + 16 with the connection itself.
        assert_eq!(memory.worker, 336 * 1024);
        assert_eq!(memory.connection, 112 * 1024 + IDLE);
        const { assert!(IDLE <= 1024, "ARCHITECTURE.md and the design promise under 1 KiB") };
        assert_eq!(memory.most(), 4 * memory.worker + 1024 * memory.connection);
    }

    #[test]
    fn every_setting_that_says_something_has_a_line_for_it() {
        for setting in SETTINGS {
            assert!(setting.check.is_none_or(|(line, words)| LINES.contains(&line) && words.contains("{}")));
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_found_without_creating_one() {
        let directory = std::env::temp_dir();
        let fine = Config { log_file: Some(directory.join("handover-check-log")), ..Config::default() };
        assert!(can_write(&fine, false).is_ok() && !directory.join("handover-check-log").exists());
        let pid = Config { pid_file: Some("/nowhere/at/all/pid".into()), ..Config::default() };
        let error = can_write(&pid, false).expect_err("no such directory");
        assert!(error.is_config() && error.to_string().contains("/nowhere/at/all/pid"), "{error}");
        assert!(can_write(&Config { log_file: Some(directory), ..Config::default() }, false).is_err());
        assert!(can_write(&Config { log_file: Some("handover-check-log".into()), ..Config::default() }, false).is_ok());
    }
}
