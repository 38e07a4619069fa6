//! The log as an operator meets it: its level and its form, each line with process and generation, and a start said once.

use crate::common::{AS_ROOT, Mode, OnDisk, Program, Scratch, eventually, run_to_its_end};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

/// The lab with a configuration file, and its log.
struct Lab {
    scratch: Scratch,
    program: Program,
}

impl Lab {
    fn start(mode: Mode, configuration: &str, environment: &[(&str, &str)]) -> Lab {
        let (scratch, mut command) = (Scratch::new(), Program::lab_command());
        let (file, log) = (scratch.path("lab.toml"), scratch.path("log"));
        fs::write(&file, configuration).expect("a file");
        command.arg("-c").arg(file).args(["--listen", "127.0.0.1:0", "--log-file"]).arg(log);
        let command = mode.flags(&mut command).env("RUST_BACKTRACE", "0").envs(environment.iter().copied());
        Lab { program: Program::start(command), scratch }
    }

    fn configure(&self, configuration: &str) {
        fs::write(self.scratch.path("lab.toml"), configuration).expect("a file");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.scratch.path("log")).expect("the log")
    }

    /// The part of the log that this adds.
    fn adds(&self, act: impl FnOnce()) -> String {
        let before = self.log().len();
        act();
        self.log().split_off(before)
    }

    fn asks(&self, path: &str) -> u16 {
        let mut client = self.program.client();
        client.get(path);
        client.answer().status
    }
}

#[test]
fn the_level_is_what_the_configuration_says_and_a_reload_reads_it_again() {
    for mode in Mode::BOTH {
        let lab = Lab::start(mode, "log_level = 'error'\n", &[]);
        assert_eq!(lab.asks("/hello"), 200);
        assert_eq!(lab.log(), "", "{mode:?}");
        lab.configure("log_level = 'warn,handover::engine=debug'\n");
        // What the predecessor says of itself is said at its level.
        lab.program.reload();
        assert_eq!(lab.asks("/hello"), 200);
        eventually("its line", || lab.log().contains("GET /hello HTTP/1.1"));
        assert!(lab.log().lines().all(|line| line.contains(".2] handover::engine::")), "{mode:?}: {}", lab.log());
        lab.configure("log_level = 'off'\n");
        lab.program.reload();
        let added = lab.adds(|| {
            assert_eq!(lab.asks("/panic"), 500);
            assert_eq!(lab.program.stop(), Some(0));
        });
        assert!(!added.contains(".3] "), "{mode:?}: {added}");
    }
}

/// It is part of how the program was started, and no reload changes that: so whoever edits the file has to be told.
#[test]
fn the_environment_wins_over_the_configuration_and_that_is_said_once() {
    for mode in Mode::BOTH {
        let lab = Lab::start(mode, "log_level = 'debug'\n", &[("RUST_LOG", "warn")]);
        assert_eq!(lab.asks("/hello"), 200);
        lab.program.reload();
        let warned = "RUST_LOG is \"warn\" and wins over log_level, which is \"debug\"";
        let lines = lab.log();
        let others = lines.lines().filter(|line| !line.contains(AS_ROOT)).count();
        assert!(others == 1 && lines.contains(".1] ") && lines.contains(warned), "{mode:?}: {lines}");
        lab.configure("log_level = 'warn'\n");
        lab.program.reload();
        lab.configure("log_level = 'trace'\n");
        let added = lab.adds(|| _ = lab.program.reload());
        assert!(added.contains("which is \"trace\""), "{mode:?}: {added}");
    }
    let mut check = Program::handover_command();
    let check = run_to_its_end(check.args(["--log-level", "info", "--check"]).env("RUST_LOG", "debug"));
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("warning    RUST_LOG is \"debug\" and wins over log_level, which is \"info\"\n"), "{said}");
    assert!(said.contains("\nlog        info, text\n"), "{said}");
}

#[test]
fn a_level_that_is_none_is_refused_with_its_place_and_at_a_reload_as_well() {
    let scratch = Scratch::new();
    let file = scratch.path("handover.toml");
    for (text, says) in [
        (
            r#"log_level = "inof""#,
            ":1:13: log_level is \"inof\", did you mean info? allowed is LEVEL or TARGET=LEVEL, ",
        ),
        ("\nlog_level = \"info,handover=trcae\"", ":2:13: log_level is \"info,handover=trcae\", did you mean trace? "),
        (r#"log_level = """#, "log_level is \"\", allowed is "),
        ("log_level = 3", "log_level is 3, allowed is a level in quotes: \"info\""),
        (r#"log_format = "jsn""#, "log_format is \"jsn\", allowed is \"text\" or \"json\""),
        ("loglevel = 'info'", "unknown key loglevel, did you mean log_level?"),
    ] {
        fs::write(&file, text).expect("a file");
        let output = run_to_its_end(Program::handover_command().arg("-c").arg(&file));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(78) && said.contains(says) && said.lines().count() == 1, "{text}: {said}");
    }
    let lab = Lab::start(Mode::Exec, "", &[]);
    lab.configure("log_level = \"wran\"\n");
    lab.program.signal(Signal::HUP);
    eventually("its refusal", || lab.log().contains("lab.toml:1:13: log_level is \"wran\", did you mean warn? "));
    assert_eq!(lab.asks("/hello"), 200);
}

/// Panics, a reload that fails and one that does not, an end: all there is to be said.
fn a_life(lab: &Lab) {
    assert_eq!(lab.asks("/panic"), 500);
    let good = fs::read_to_string(lab.scratch.path("lab.toml")).expect("it is there");
    lab.configure("workers = \"\\u001b[1m\\\"\"\n");
    lab.program.signal_to(lab.program.current(), Signal::HUP);
    eventually("a reload that fails", || lab.log().contains("reload failed"));
    lab.configure(&good);
    lab.program.reload();
    assert_eq!(lab.asks("/panic"), 500);
    assert_eq!(lab.program.stop(), Some(0));
}

#[test]
fn each_line_of_json_is_an_object_with_the_same_six_keys() {
    for mode in Mode::BOTH {
        let lab = Lab::start(mode, "log_format = 'json'\nlog_level = 'trace'\n", &[]);
        let first = lab.program.current();
        a_life(&lab);
        let last = lab.program.current();
        let text = lab.log();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let keys = BTreeSet::from(["generation", "level", "message", "pid", "target", "time"]);
        let mut from = BTreeSet::new();
        for line in &lines {
            let object = line.as_object().expect("an object");
            assert_eq!(object.keys().map(String::as_str).collect::<BTreeSet<_>>(), keys, "{mode:?}: {line}");
            assert!(line["time"].as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{line}");
            assert!(
                ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&line["level"].as_str().unwrap_or("")),
                "{line}"
            );
            from.insert((line["pid"].as_u64().expect("a number"), line["generation"].as_u64().expect("a number")));
        }
        assert_eq!(from, BTreeSet::from([(first.into(), 1), (last.into(), 2)]), "{mode:?}");
        let says = |generation: u64, part: &str| {
            let said = |line: &&Value| line["message"].as_str().is_some_and(|message| message.contains(part));
            lines.iter().filter(said).filter(|line| line["generation"] == generation).count()
        };
        for generation in [1, 2] {
            assert_eq!(says(generation, "panicked at examples/lab.rs"), 1, "{mode:?}: {text}");
        }
        assert_eq!(says(2, "stopped: served="), 1, "{mode:?}");
        let wrong = "workers is \"\\u001b[1m\\\"\", allowed is a whole number";
        assert_eq!(says(1, wrong), 1, "{mode:?}: {text}");
    }
}

/// A panic behind an exec went to stderr as std has it, in several lines.
#[test]
fn no_line_is_without_process_and_generation() {
    for mode in Mode::BOTH {
        let lab = Lab::start(mode, "", &[]);
        let (first, at_first) = (lab.program.current(), lab.log().lines().count());
        assert!(at_first > 0);
        a_life(&lab);
        let from = [format!(" [{first}.1] "), format!(" [{}.2] ", lab.program.current())];
        let text = lab.log();
        assert!(text.lines().all(|line| from.iter().any(|from| line.contains(from))), "{mode:?}: {text}");
        for from in &from {
            let panics =
                text.lines().filter(|line| line.contains(from) && line.contains("panicked at examples/lab.rs"));
            assert_eq!(panics.count(), 1, "{mode:?}: {text}");
        }
        let stderr = lab.program.log();
        assert_eq!(stderr, Vec::<String>::new(), "{mode:?}: it has a log");
    }
}

/// Its stderr is its predecessor's, and most likely that one's log.
#[test]
fn what_a_successor_says_before_it_has_a_log_is_a_line_of_one() {
    let (scratch, on_disk) = (Scratch::new(), OnDisk::of(&Program::lab_command()));
    let mut command = on_disk.command();
    let command = Mode::Overlap.flags(&mut command).env("LAB_TRAP", scratch.path("trap")).env("RUST_BACKTRACE", "0");
    let program = Program::start(command.args(["-l", "127.0.0.1:0"]));
    fs::write(scratch.path("trap"), "panic").expect("a file");
    program.signal(Signal::HUP);
    let line = program.logged("panicked at examples/lab.rs");
    assert!(line.contains(" ERROR [") && line.contains(".2] thread main panicked at "), "{line}");
    program.logged("reload failed, serving on");
    assert!(program.log().iter().all(|line| line.contains(".1] ") || line.contains(".2] ")), "{:#?}", program.log());
    program.client().expect_alive("/hello");
}

#[test]
fn a_start_is_said_once_and_a_reload_says_what_has_become_different() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let (one, other) = (scratch.path("one"), scratch.path("other"));
        let configuration = |paths: &[&PathBuf], more: &str| {
            let listen: Vec<String> = paths.iter().map(|path| format!("'unix:{}'", path.display())).collect();
            format!("listen = [{}]\n{more}", listen.join(", "))
        };
        let (file, log) = (scratch.path("handover.toml"), scratch.path("log"));
        fs::write(&file, configuration(&[&one], "memory = '64M'\n")).expect("a file");
        let mut command = Program::handover_command();
        command.arg("-c").arg(&file).arg("--log-file").arg(&log);
        let program = Program::start(mode.flags(&mut command));
        let begins = || fs::read_to_string(&log).expect("the log").len();
        let since = |begin: usize| fs::read_to_string(&log).expect("the log").split_off(begin);
        let count = |text: &str, part: &str| text.matches(part).count();
        let first = since(0);
        for part in ["listening on http+unix:", "] memory 64M: ", "ready with 4 workers"] {
            assert_eq!(count(&first, part), 1, "{mode:?}: {part} in {first}");
        }
        // The same again.
        let begin = begins();
        program.reload();
        let same = since(begin);
        for (part, times) in [("listening on", 0), ("memory", 0), ("may be open", 0), ("ready with 4 workers", 1)] {
            assert_eq!(count(&same, part), times, "{mode:?}: {part} in {same}");
        }
        let begin = begins();
        fs::write(&file, configuration(&[&one, &other], "memory = '65M'\nworkers = 2\n")).expect("a file");
        program.reload();
        let more = since(begin);
        let listens = format!("] listening on http+unix:{}\n", other.display());
        for (part, times) in [(&*listens, 1), ("listening on", 1), ("] memory 65M: ", 1), ("ready with 2 workers", 1)] {
            assert_eq!(count(&more, part), times, "{mode:?}: {part} in {more}");
        }
        let begin = begins();
        fs::write(&file, configuration(&[&other], "memory = '65M'\nworkers = 2\n")).expect("a file");
        program.reload();
        let less = since(begin);
        let gone = format!("] no longer listening on http+unix:{}\n", one.display());
        assert!(count(&less, &gone) == 1 && count(&less, "listening on") == 1, "{mode:?}: {less}");
        // What is true again is said again.
        let begin = begins();
        fs::write(&file, configuration(&[&one, &other], "memory = '65M'\nworkers = 2\n")).expect("a file");
        program.reload();
        assert_eq!(count(&since(begin), "] listening on http+unix:"), 1, "{mode:?}");
        assert_eq!(program.stop(), Some(0));
        // And all of it by the next start.
        let begin = begins();
        let again = Program::start(&mut command);
        assert_eq!(count(&since(begin), "] listening on http+unix:"), 2, "{mode:?}");
        assert_eq!(again.stop(), Some(0));
    }
}

/// A terminal, a journal, `>log 2>&1`: there it stood twice.
#[test]
fn where_stdout_is_the_log_as_well_a_start_stands_there_once() {
    let scratch = Scratch::new();
    for (format, listening) in [("text", 1), ("json", 2)] {
        let path = scratch.path(format);
        let file = fs::OpenOptions::new().create(true).append(true).open(&path).expect("a file");
        let configuration = scratch.path("handover.toml");
        fs::write(&configuration, format!("log_format = '{format}'\n")).expect("a file");
        let mut command = Program::handover_command();
        command.args(["-l", "127.0.0.1:0", "-c"]).arg(&configuration);
        let stderr = file.try_clone().expect("the same");
        let mut child = command.stdout(file).stderr(stderr).spawn().expect("it starts");
        let text = || fs::read_to_string(&path).expect("the log");
        eventually("ready", || text().lines().any(|line| line.starts_with("ready pid=")));
        assert_eq!(text().matches("listening on http://").count(), listening, "{format}: {}", text());
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).expect("it runs");
        assert_eq!(child.wait().expect("its end").code(), Some(0));
    }
}

/// Why a start came to nothing: to who typed it, and to who reads the log.
#[test]
fn the_last_words_of_a_start_are_for_who_started_it_and_in_the_log() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address");
    let (log, configuration) = (scratch.path("log"), scratch.path("handover.toml"));
    let fails = |more: &[&str]| {
        let mut command = Program::handover_command();
        let output = run_to_its_end(command.args(["-l", &address.to_string()]).args(more));
        assert_eq!(output.status.code(), Some(69));
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let plain = fails(&["--log-file", log.to_str().expect("text")]);
    assert!(plain.starts_with("handover: ") && plain.lines().count() == 1, "{plain}");
    let logged = fs::read_to_string(&log).expect("the log");
    assert!(logged.contains(" ERROR [") && logged.contains(&plain["handover: ".len()..]), "{logged}");
    // A machine that reads it wants nothing else.
    fs::write(&configuration, "log_format = 'json'\n").expect("a file");
    let line: Value = serde_json::from_str(&fails(&["-c", configuration.to_str().expect("text")])).expect("JSON");
    assert!(line["level"] == "ERROR" && line["message"].as_str().is_some_and(|why| why.contains("in use")), "{line}");
    // One that logs nothing says it all the same.
    assert!(fails(&["--log-level", "off"]).starts_with("handover: "));
}
