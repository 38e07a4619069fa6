//! `handover reload`, with the test in the part of the successor: it replaces the pid file.

use crate::common::{Mode, Program, Scratch, eventually, write_script};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

const PROGRAM: &str = env!("CARGO_BIN_EXE_handover");

/// A server with these flags, ready.
fn start(flags: &[&str]) -> Program {
    Program::start(Program::handover_command().args(["-w", "1"]).args(flags))
}

fn plain_server() -> Program {
    start(&["-l", "127.0.0.1:0"])
}

/// A server with the configuration beside that file.
fn configured(mode: Mode, probation: &str, file: &PidFile, more: &[&str]) -> Program {
    let config = file.config();
    let config = config.to_str().expect("UTF-8");
    start(&[&["--reload", mode.name(), "--reload-probation", probation, "-c", config], more].concat())
}

/// A pid file in a directory of its own.
struct PidFile(PathBuf, #[expect(dead_code, reason = "it removes the directory when dropped")] Scratch);

impl PidFile {
    fn new() -> PidFile {
        let scratch = Scratch::new();
        PidFile(scratch.path("server.pid"), scratch)
    }

    fn config(&self) -> PathBuf {
        self.0.with_extension("toml")
    }

    /// Writes a configuration beside it.
    fn configure(&self, text: &str) {
        fs::write(self.config(), text).expect("written");
    }

    /// In the way of a successor: a new file in the place of the old one.
    fn write(&self, content: &str) {
        let temporary = self.0.with_extension("new");
        fs::write(&temporary, content).expect("written");
        fs::rename(&temporary, &self.0).expect("renamed");
    }

    fn outcome(&self) -> PathBuf {
        PathBuf::from(format!("{}.outcome", self.0.display()))
    }

    fn flag(&self) -> String {
        format!("--pid-file={}", self.0.display())
    }
}

fn reload(args: &[&str]) -> Output {
    Command::new(PROGRAM).arg("reload").args(args).stdin(Stdio::null()).output().expect("the program runs")
}

#[track_caller]
fn answers(output: &Output, code: i32, says: &[&str]) {
    let (text, silent) = if code == 0 { (&output.stdout, &output.stderr) } else { (&output.stderr, &output.stdout) };
    let text = String::from_utf8_lossy(text);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(silent.is_empty(), "{output:?}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in says {
        assert!(text.contains(part), "it does not say {part:?}: {text}");
    }
}

#[test]
fn it_signals_the_server_in_the_pid_file_or_of_that_pid() {
    let (server, file) = (plain_server(), PidFile::new());
    let pid = server.pid().to_string();
    // Only the first line counts.
    file.write(&format!("{pid}\nmore\n"));
    answers(&reload(&[&file.flag()]), 0, &[&pid, "was asked to reload"]);
    server.generation(2);
    answers(&reload(&["--pid", &pid]), 0, &[&pid, "was asked to reload"]);
    server.generation(3);
}

#[test]
fn waiting_ends_with_a_new_pid_file_of_the_same_process() {
    let (server, file) = (plain_server(), PidFile::new());
    let line = format!("{}\n", server.pid());
    file.write(&line);
    let flag = file.flag();
    let waiting = thread::spawn(move || reload(&[&flag, "--wait=30"]));
    server.generation(2);
    file.write(&line);
    answers(&waiting.join().expect("no panic"), 0, &["reloaded: process", "runs the program afresh"]);
}

#[test]
fn waiting_ends_when_another_process_has_taken_over() {
    let (mut server, mut successor, file) = (plain_server(), plain_server(), PidFile::new());
    file.write(&format!("{}\n", server.pid()));
    let flag = file.flag();
    let waiting = thread::spawn(move || reload(&[&flag, "--wait=30"]));
    server.generation(2);
    file.write(&format!("{}\n", successor.pid()));
    // As a predecessor does once it has handed over.
    server.kill();
    let says = format!("process {} has taken over from {}", successor.pid(), server.pid());
    answers(&waiting.join().expect("no panic"), 0, &[&says]);
    successor.kill();
}

#[test]
fn no_new_generation_in_time_is_a_failure() {
    let (server, file) = (plain_server(), PidFile::new());
    file.write(&format!("{}\n", server.pid()));
    answers(&reload(&[&file.flag(), "--wait=0"]), 1, &["no new generation after 0 s", "still runs"]);
    server.generation(2);
}

#[test]
fn a_server_that_ends_is_a_failure() {
    let (mut server, file) = (plain_server(), PidFile::new());
    file.write(&format!("{}\n", server.pid()));
    let flag = file.flag();
    let waiting = thread::spawn(move || reload(&[&flag, "--wait"]));
    server.generation(2);
    server.kill();
    answers(&waiting.join().expect("no panic"), 1, &["has ended and no other took over"]);
}

#[test]
fn a_stale_pid_file_harms_nobody() {
    let file = PidFile::new();
    let mut other = Command::new("sleep").arg("60").spawn().expect("sleep");
    file.write(&format!("{}\n", other.id()));
    answers(&reload(&[&file.flag()]), 1, &["is \"sleep\" and not \"handover\"", "--program \"sleep\""]);
    // HUP would end it.
    let pid = other.id().to_string();
    answers(&reload(&["--pid", &pid, "--program", "/somewhere/sleep"]), 1, &["does not handle HUP"]);
    assert!(other.try_wait().expect("asked").is_none());
    other.kill().expect("killed");
    // Ended and not yet waited for.
    while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        thread::yield_now();
    }
    answers(&reload(&[&file.flag()]), 1, &["there is no process"]);
    other.wait().expect("it has ended");
    answers(&reload(&[&file.flag(), "--wait"]), 1, &["there is no process"]);
}

#[test]
fn what_is_no_pid_file_is_named() {
    let file = PidFile::new();
    let path = format!("{:?}", file.0);
    answers(&reload(&[&file.flag()]), 1, &[&path, "is the server running, and with this --pid-file?"]);
    for content in ["", "\n", "handover\n", "-1\n", "+1\n", "0\n", "99999999999\n"] {
        file.write(content);
        answers(&reload(&[&file.flag()]), 1, &["there is no pid in", &path]);
    }
}

#[test]
fn wrong_usage_exits_2_and_help_0() {
    for (args, says) in [
        (&[][..], "give --pid-file FILE or --pid N"),
        (&["--pid", "1", "--pid-file", "x"], "only once"),
        (&["--pid", "1", "--wait"], "--wait needs --pid-file"),
        (&["--pid", "0"], "--pid is \"0\", allowed is a pid"),
        (&["--pid", "-1"], "--pid is \"-1\""),
        (&["--pid-file"], "missing argument"),
        (&["--pid-file", "x", "--wait=1.5"], "--wait is \"1.5\", allowed are whole seconds"),
        (&["--pid-file", "x", "--wait=86401"], "--wait=86400"),
        (&["--frobnicate"], "--frobnicate"),
        (&["./public"], "./public"),
    ] {
        answers(&reload(args), 2, &["handover reload: ", says, "(try handover reload --help)"]);
    }
    let help = reload(&["--help"]);
    assert!(help.status.success() && help.stderr.is_empty());
    let text = String::from_utf8(help.stdout).expect("UTF-8");
    assert!(text.starts_with("Usage: handover reload --pid-file FILE"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "a line is too wide");
}

/// The whole of it, with a real server: both modes, and a program on disk that fails its check.
#[test]
fn a_real_server_is_reloaded_and_a_broken_configuration_is_not() {
    for mode in Mode::BOTH {
        let pid_file = PidFile::new();
        pid_file.configure("listen = [\"127.0.0.1:0\"]\n");
        let server = configured(mode, "0.05", &pid_file, &[&pid_file.flag()]);
        let first = server.pid();

        let output = reload(&["--wait", &pid_file.flag()]);
        assert_eq!(output.status.code(), Some(0), "{mode:?}: {}", String::from_utf8_lossy(&output.stderr));
        server.generation(2);
        let second: u32 = fs::read_to_string(&pid_file.0).expect("a pid file").trim().parse().expect("a pid");
        assert_eq!(second == first, mode == Mode::Exec, "{mode:?}: {first} then {second}");

        pid_file.configure("listen = [\"127.0.0.1:0\"]\nworkers = 0\n");
        let output = reload(&["--wait", &pid_file.flag()]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{mode:?}: {stderr}");
        assert!(stderr.contains("nothing was reloaded") && stderr.contains("workers is 0"), "{mode:?}: {stderr}");

        // It takes its own pid file away last of all, and the outcome before it.
        stop(&pid_file);
        assert!(!pid_file.outcome().exists(), "{mode:?}");
    }
}

/// A script that is called as the program is, and does as it likes when it is asked to check itself or to reload.
struct Impostor {
    child: Child,
    directory: PathBuf,
    file: PidFile,
}

impl Impostor {
    /// `on_hup` is a command of the shell, `$1` being the outcome that it could leave.
    fn start(on_hup: &str) -> Impostor {
        let file = PidFile::new();
        let directory = file.0.with_extension("d");
        fs::create_dir_all(&directory).expect("a directory");
        let script = directory.join("handover");
        let text = format!(
            "if [ -n \"$HANDOVER_CHECK\" ]; then echo run >\"$MARK\"; exit 1; fi\n\
             trap '{on_hup}' HUP\necho ready\nwhile :; do sleep 0.02; done"
        );
        write_script(&script, &text);
        let mut command = Command::new(&script);
        command.arg(file.outcome()).env("MARK", directory.join("mark"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the script starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        assert_eq!(lines.next().expect("a line").expect("UTF-8"), "ready");
        file.write(&format!("{}\n", child.id()));
        Impostor { child, directory, file }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As root that was anybody's way to be root: whoever can write the pid file, or is the process in it.
#[test]
fn the_command_line_of_the_process_in_the_pid_file_was_run() {
    let impostor = Impostor::start(":");
    answers(&reload(&[&impostor.file.flag()]), 0, &["was asked to reload"]);
    let pid = impostor.child.id().to_string();
    answers(&reload(&["--pid", &pid]), 0, &["was asked to reload"]);
    answers(&reload(&[&impostor.file.flag(), "--wait=0"]), 1, &["no new generation after 0 s"]);
    assert!(!impostor.directory.join("mark").exists(), "its program was run");
}

#[test]
fn what_a_server_says_is_printed_as_text_and_not_obeyed() {
    let text = r"outcome=failed\ngeneration=1\npid=1\nbegan=18446744073709551615\nreason=a\033[2Jb\rc\n";
    let impostor = Impostor::start(&format!("printf \"{text}\" >\"$1\""));
    let output = reload(&[&impostor.file.flag(), "--wait=30"]);
    answers(&output, 1, &["nothing was reloaded: a\\u{1b}[2Jb\\rc"]);
}

#[test]
fn an_outcome_that_is_not_the_servers_answer_is_passed_by() {
    let secret = r"outcome=ok\ngeneration=1\npid=1\nbegan=18446744073709551615\n";
    // A link to what only root may read, for example.
    let link = format!("printf \"{secret}\" >\"$1.secret\"; ln -sf \"$1.secret\" \"$1\"");
    // Of a reload that began before this one was asked for.
    let earlier = "printf \"outcome=ok\\ngeneration=9\\npid=1\\nbegan=1\\n\" >\"$1\"".to_owned();
    let no_file = "mkfifo \"$1\"".to_owned();
    for (name, on_hup) in [("link", link), ("earlier", earlier), ("fifo", no_file)] {
        let impostor = Impostor::start(&on_hup);
        let flag = impostor.file.flag();
        let waiting = thread::spawn(move || reload(&[&flag, "--wait=1"]));
        answers(&waiting.join().expect("no panic"), 1, &["no new generation after 1 s", "still runs"]);
        assert!(impostor.file.outcome().symlink_metadata().is_ok(), "{name}: it was not asked");
        let _ = fs::remove_file(format!("{}.secret", impostor.file.outcome().display()));
    }
}

#[test]
fn a_pid_file_that_is_a_link_or_has_two_names_is_refused() {
    let (server, file, other) = (plain_server(), PidFile::new(), PidFile::new());
    file.write(&format!("{}\n", server.pid()));
    std::os::unix::fs::symlink(&file.0, &other.0).expect("a link");
    answers(&reload(&[&other.flag()]), 1, &["it is a symbolic link"]);
    fs::remove_file(&other.0).and_then(|()| fs::hard_link(&file.0, &other.0)).expect("a second name");
    answers(&reload(&[&other.flag()]), 1, &["has other names"]);
}

/// What a successor says goes to the log, which may be a file; the command said to look there, after a minute.
#[test]
fn a_successor_that_cannot_listen_was_waited_for_and_its_words_lost() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (pid_file, port) = (PidFile::new(), taken.local_addr().expect("an address").port());
    let listen = |more: &str| pid_file.configure(&format!("listen = [\"127.0.0.1:0\"{more}]\n"));
    listen("");
    let server = configured(Mode::Overlap, "0.05", &pid_file, &[&pid_file.flag()]);
    listen(&format!(", \"127.0.0.1:{port}\""));
    let output = reload(&["--wait=600", &pid_file.flag()]);
    let says = format!("127.0.0.1:{port}");
    answers(&output, 1, &["nothing was reloaded: the successor ended before it was ready: exit code 69", &says]);
    // The server is the one that it was, and can be reloaded when that is mended.
    assert_eq!(fs::read_to_string(&pid_file.0).expect("a pid file"), format!("{}\n", server.pid()));
    listen("");
    answers(&reload(&["--wait=600", &pid_file.flag()]), 0, &["has taken over from"]);
    stop(&pid_file);
}

/// It may have read what was on disk before this one was asked for. Here it succeeds, and the one that was asked for fails.
#[test]
fn a_reload_that_had_begun_before_was_taken_for_the_answer() {
    let pid_file = PidFile::new();
    pid_file.configure("listen = [\"127.0.0.1:0\"]\n");
    let flag = pid_file.flag();
    let server = configured(Mode::Overlap, "1", &pid_file, &[&flag]);
    answers(&reload(&[&flag]), 0, &["was asked to reload"]);
    // On probation: it has read its configuration.
    server.generation(2);
    pid_file.configure("workers = 0\n");
    answers(&reload(&["--wait=600", &flag]), 1, &["nothing was reloaded", "workers is 0"]);
    let now = fs::read_to_string(&pid_file.0).expect("a pid file");
    assert_ne!(now, format!("{}\n", server.pid()), "the first reload has failed as well");
    stop(&pid_file);
}

/// Under runit it left the server without its supervisor, which then failed to start another every second.
#[test]
fn a_pid_file_alone_made_auto_overlap() {
    let pid_file = PidFile::new();
    let server = start(&["-l", "127.0.0.1:0", &pid_file.flag()]);
    answers(&reload(&["--wait=600", &pid_file.flag()]), 0, &["runs the program afresh"]);
    server.generation(2);
    assert_eq!(fs::read_to_string(&pid_file.0).expect("a pid file"), format!("{}\n", server.pid()));
}

#[test]
fn a_second_start_took_the_pid_file_and_deleted_it_at_its_end() {
    for mode in Mode::BOTH {
        let pid_file = PidFile::new();
        let flag = pid_file.flag();
        let _server = start(&["-l", "127.0.0.1:0", "--reload", mode.name(), "--reload-probation", "0.05", &flag]);
        for generation in 1..3 {
            let line = fs::read_to_string(&pid_file.0).expect("a pid file");
            let output = Command::new(PROGRAM)
                .args(["-l", "127.0.0.1:0", &flag])
                .stdin(Stdio::null())
                .output()
                .expect("the program runs");
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(69), "{mode:?} {generation}: {stderr}");
            let says = format!("names the running process {}; stop it or choose another file", line.trim());
            assert!(stderr.contains(&says), "{mode:?} {generation}: {stderr}");
            assert_eq!(fs::read_to_string(&pid_file.0).expect("a pid file"), line, "{mode:?} {generation}");
            if generation == 1 {
                answers(&reload(&["--wait=600", &flag]), 0, &["reloaded"]);
            }
        }
        stop(&pid_file);
    }
}

/// Each looked before any had written.
#[test]
fn of_those_that_started_at_the_same_moment_all_had_the_pid_file() {
    for left_behind in [false, true] {
        let pid_file = PidFile::new();
        if left_behind {
            // Of a process that has ended and been waited for.
            let mut ended = Command::new("true").spawn().expect("true");
            ended.wait().expect("it ends");
            pid_file.write(&format!("{}\n", ended.id()));
        }
        let start = || {
            let mut command = Command::new(PROGRAM);
            command.args(["-l", "127.0.0.1:0", "-w", "1", &pid_file.flag()]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts")
        };
        let children: Vec<Child> = (0..6).map(|_| start()).collect();
        // Each is ready or has ended, and the end of its stdout says which.
        let is_ready = |child: &mut Child| {
            let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
            lines.map_while(Result::ok).any(|line| line.starts_with("ready "))
        };
        let (mut ready, mut refused) = (Vec::new(), Vec::new());
        for mut child in children {
            if is_ready(&mut child) { ready.push(child) } else { refused.push(child) }
        }
        let line = fs::read_to_string(&pid_file.0);
        let codes: Vec<_> = refused.iter_mut().map(|child| child.wait().expect("ended").code()).collect();
        let pids: Vec<String> = ready.iter().map(|child| format!("{}\n", child.id())).collect();
        for child in &mut ready {
            child.kill().and_then(|()| child.wait().map(drop)).expect("killed");
        }
        assert_eq!(codes, [Some(69); 5], "{left_behind}");
        assert_eq!(pids, [line.expect("a pid file")], "{left_behind}");
    }
}

/// Here a directory is in the way of the new file, for whoever it is; on a full disk or in a directory that has become
/// read-only the same happens.
#[test]
fn a_pid_file_that_could_not_be_written_at_a_reload_was_deleted() {
    let pid_file = PidFile::new();
    let server = start(&["-l", "127.0.0.1:0", "--reload", "exec", &pid_file.flag()]);
    let line = format!("{}\n", server.pid());
    let name = pid_file.0.file_name().expect("a name").to_string_lossy().into_owned();
    let obstacle = pid_file.0.with_file_name(format!(".{name}.{}", server.pid()));
    fs::create_dir(&obstacle).expect("a directory");
    answers(&reload(&["--wait=600", &pid_file.flag()]), 0, &["runs the program afresh"]);
    assert_eq!(fs::read_to_string(&pid_file.0).expect("a pid file"), line);
    fs::remove_dir(&obstacle).expect("the directory");
    answers(&reload(&["--wait=600", &pid_file.flag()]), 0, &["runs the program afresh"]);
    assert_eq!(fs::read_to_string(&pid_file.0).expect("a pid file"), line);
    stop(&pid_file);
}

#[test]
fn a_pid_file_with_a_new_name_in_the_configuration_left_the_old_one_behind() {
    for mode in Mode::BOTH {
        let (old, new) = (PidFile::new(), PidFile::new());
        let configure =
            |file: &PidFile| old.configure(&format!("listen = [\"127.0.0.1:0\"]\npid_file = {:?}\n", file.0));
        configure(&old);
        let server = configured(mode, "0.05", &old, &[]);
        configure(&new);
        let output = reload(&["--wait=600", &old.flag()]);
        answers(&output, 1, &["the pid file", "is gone"]);
        server.generation(2);
        assert!(!old.0.exists() && !old.outcome().exists() && new.0.exists(), "{mode:?}");
        answers(&reload(&["--wait=600", &new.flag()]), 0, &["reloaded"]);
        stop(&new);
        assert!(!new.outcome().exists(), "{mode:?}");
    }
}

/// Ends the server in that file, and waits until it has taken the file away, which it does last of all.
fn stop(file: &PidFile) {
    let pid = fs::read_to_string(&file.0).expect("a pid file").trim().parse().ok();
    kill_process(pid.and_then(Pid::from_raw).expect("a pid"), Signal::TERM).expect("it runs");
    eventually("the server has ended", || !file.0.exists());
}
