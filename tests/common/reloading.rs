//! Reloads in both modes.

use super::{OnDisk, Program, Scratch};
use std::process::Command;

/// How a reload is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Overlap,
    Exec,
}

impl Mode {
    pub const BOTH: [Mode; 2] = [Mode::Overlap, Mode::Exec];

    /// As the setting has it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Overlap => "overlap",
            Mode::Exec => "exec",
        }
    }

    /// Reloads in this mode, with a probation as short as tests want it.
    pub fn flags(self, command: &mut Command) -> &mut Command {
        command.args(["--reload", self.name(), "--reload-probation", "0.1"])
    }
}

/// The program listens on a port and a Unix socket, has a journal, and reloads in that mode. The lab carries nothing over,
/// so that by overlap two generations serve beside each other; what does has tests of its own.
pub fn reloading<'c>(command: &'c mut Command, mode: Mode, scratch: &Scratch) -> &'c mut Command {
    mode.flags(command).args(["-l", "127.0.0.1:0", "-l"]);
    command.arg(format!("unix:{}", scratch.path("socket").display()));
    command.env("LAB_STATELESS", "1").env("LAB_JOURNAL", scratch.path("journal"))
}

/// The lab, so.
pub fn lab(mode: Mode, scratch: &Scratch, more: &[&str]) -> Program {
    Program::start(reloading(&mut Program::lab_command(), mode, scratch).args(more))
}

/// The same, of a program on disk that can be replaced.
pub fn replaceable_lab(mode: Mode, scratch: &Scratch, more: &[&str]) -> (Program, OnDisk) {
    let on_disk = OnDisk::of(&Program::lab_command());
    let program = Program::start(reloading(&mut on_disk.command(), mode, scratch).args(more));
    (program, on_disk)
}

/// `migrated=N` and the like in the last line of a log.
#[track_caller]
pub fn counter(line: &str, name: &str) -> usize {
    let number = line.split(&format!("{name}=")).nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no {name}: {line}"))
}
