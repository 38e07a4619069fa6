//! What a process is given by whoever started it: a name, a disposition of SIGCHLD, children.

use crate::common::{Mode, OnDisk, Program, Scratch, children, eventually, run_to_its_end};
use rustix::process::Signal;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn with_flags(command: &mut Command, mode: Mode) -> &mut Command {
    command.args(["-l", "127.0.0.1:0", "--reload", mode.name(), "--reload-probation", "0"])
}

/// `exec -a`, systemd's `@`, a login shell; and a label that happens to be a program in PATH.
#[test]
fn a_name_that_is_only_a_label_does_not_keep_the_program_from_reloading() {
    for mode in Mode::BOTH {
        for label in ["web-frontend", "-handover", "sh", "", "./nowhere/at all"] {
            let mut command = Program::lab_command();
            let program = Program::start(with_flags(&mut command, mode).arg0(label));
            for _ in 0..2 {
                program.reload();
            }
            program.client().expect_alive("/hello");
            assert_eq!(program.stop(), Some(0));
            let notes: Vec<String> = program.log().into_iter().filter(|line| line.contains("argv[0] is ")).collect();
            assert_eq!(notes.len(), 1, "said once: {notes:?}");
            assert!(
                notes[0].contains(&format!("argv[0] is {label:?}")) && notes[0].ends_with("examples/lab"),
                "{notes:?}"
            );
        }
    }
}

#[test]
fn a_program_behind_a_label_that_was_taken_away_reloads_its_configuration_all_the_same() {
    for mode in Mode::BOTH {
        let on_disk = OnDisk::of(&Program::lab_command());
        let program = Program::start(with_flags(&mut on_disk.command(), mode).arg0("label"));
        on_disk.remove();
        for _ in 0..2 {
            program.reload();
        }
        // What is there again is an upgrade.
        on_disk.replace("echo it is another >&2; exit 3");
        program.signal_to(program.current(), Signal::HUP);
        program.logged("reload failed, serving on: the check failed with exit code 3: it is another");
        on_disk.restore();
        program.reload();
        assert_eq!(program.stop(), Some(0));
    }
}

#[test]
fn an_upgrade_by_symlink_is_seen_behind_a_label_too() {
    let (scratch, on_disk) = (Scratch::new(), OnDisk::of(&Program::lab_command()));
    let current = scratch.path("current");
    symlink(on_disk.path(), &current).expect("a link");
    let program =
        Program::start(with_flags(&mut Command::new(&current), Mode::Exec).env_remove("RUST_LOG").arg0("label"));
    program.reload();
    let other = OnDisk::of(&Program::lab_command());
    other.replace("echo it is another >&2; exit 3");
    std::fs::remove_file(&current).expect("the link");
    symlink(other.path(), &current).expect("a link");
    program.signal(Signal::HUP);
    program.logged("reload failed, serving on: the check failed with exit code 3: it is another");
    assert_eq!(program.stop(), Some(0));
}

/// It is inherited through `execve`, and then nobody can wait for a child.
#[test]
fn a_parent_that_ignores_sigchld_does_not_keep_the_program_from_reloading() {
    for mode in Mode::BOTH {
        let mut command = Program::lab_command();
        let ignore = || {
            // SAFETY: no code runs for it.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            Ok(())
        };
        // SAFETY: signal(2) may be called between fork and execve.
        let command = unsafe { with_flags(&mut command, mode).pre_exec(ignore) };
        let program = Program::start(command);
        for _ in 0..2 {
            program.reload();
        }
        assert_eq!(program.stop(), Some(0));
    }
}

/// Children of whoever executed the program, which it knows nothing of, end before, during and after reloads.
#[test]
fn children_that_the_program_has_not_started_do_not_stay_zombies() {
    for mode in Mode::BOTH {
        // They end by themselves, in the middle of what follows.
        let script = "i=0; while [ $i -lt 40 ]; do sleep 0.$i & i=$((i+1)); done; exec \"$@\"";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "sh"]).arg(Program::handover_command().get_program()).env_remove("RUST_LOG");
        let program = Program::start(with_flags(&mut command, mode));
        let first = program.current();
        if mode == Mode::Exec {
            // A check that somebody else has waited for would be a reload that failed.
            for _ in 0..10 {
                program.reload();
            }
        }
        eventually("no child is left", || children(first) == 0);
        program.reload();
        assert_eq!(program.stop(), Some(0));
        assert!(!program.log().iter().any(|line| line.contains("reload failed")), "{:#?}", program.log());
    }
}

/// An application may wait for its own: nobody does it for it unless it says so.
#[test]
fn an_application_keeps_the_exit_status_of_its_children() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "sleep 0 & exec \"$@\"", "sh"]).arg(Program::lab_command().get_program());
    let program = Program::start(with_flags(&mut command, Mode::Exec).env_remove("RUST_LOG"));
    let lab = program.current();
    let zombie = || {
        let children = std::fs::read_to_string(format!("/proc/{lab}/task/{lab}/children")).expect("/proc");
        let state = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        children.split_whitespace().any(|pid| state(pid).contains(") Z "))
    };
    eventually("it has ended", zombie);
    program.reload();
    assert!(zombie(), "somebody has waited for it");
    assert_eq!(program.stop(), Some(0));
}

/// The program, started by a shell that has set a limit before. Without this environment, which stands on the first
/// thread's stack: half of one of 16K is no place for a dynamic linker, before any of our code runs.
fn limited(limit: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("ulimit {limit} && exec \"$@\""), "sh"])
        .arg(Program::handover_command().get_program());
    command.env_clear().args(["-l", "127.0.0.1:0"]);
    command
}

/// One said it was ready and could accept nobody, another was ended by a signal.
#[test]
fn a_start_with_too_little_of_the_host_says_so_and_is_never_ready() {
    let needed = [
        ("-n 16", "cannot serve: only 16 files may be open, and 32 have to be (see ulimit -n)"),
        // Of 16K the kernel takes up to a half, to begin at another place each time, and what is left is little for code that
        // is not optimised, of 32 bits.
        ("-s 24", "the main thread may have a stack of 24K, and needs 128K (see ulimit -s)"),
        ("-d 8192", "cannot serve: 64 workers take "),
    ];
    for (limit, said) in needed {
        let ended = run_to_its_end(limited(limit).args(["--workers", "64"]));
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert!(stderr.lines().any(|line| line.contains(&format!("handover: {said}"))), "{limit}: {stderr}");
        assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stdout).as_ref()), (Some(1), ""), "{limit}");
    }
}

#[test]
fn a_soft_limit_of_the_stack_is_raised() {
    let program = Program::start(&mut limited("-S -s 16"));
    program.client().expect_alive("/");
    program.reload();
    assert_eq!(program.stop(), Some(0));
}
