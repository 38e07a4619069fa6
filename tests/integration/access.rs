//! `auth`, through the program: what the log says, reloads, who guesses for ever, and `handover passwd`.

use crate::common::{Answer, EventStream, Mode, Program, RawClient, Scratch, eventually, run_to_its_end};
use rustix::process::Signal;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PASSWORD: &str = "correct horse";

/// A configuration, and a file of users that `handover passwd` has made, with `ada` in it.
struct House(Scratch);

impl House {
    fn new(cost: &str) -> House {
        let house = House(Scratch::new());
        let made = house.passwd(&["--cost", cost, "users", "ada"], PASSWORD);
        assert!(made.status.success(), "{made:?}");
        house.configure("");
        house
    }

    /// Runs the command in the house, with that line on stdin.
    fn passwd(&self, args: &[&str], stdin: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
        command.arg("passwd").args(args).current_dir(self.0.path(""));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        // One that fails before it reads is gone.
        let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
        child.wait_with_output().expect("it ends")
    }

    fn configure(&self, more: &str) {
        let text = format!(
            "listen = ['127.0.0.1:0']\naccess_log = 'access'\n{more}\n\
             [[route]]\nprefix = '/open'\nbody = 'open'\n\
             [[route]]\nprefix = '/private'\nbody = 'private'\nauth = {{ realm = 'the house', file = 'users' }}\n\
             [[push]]\nprefix = '/private/events'\npublish = 'anyone'\nheartbeat = 0\n"
        );
        fs::write(self.0.path("handover.toml"), text).expect("a file");
    }

    fn command(&self, mode: Mode) -> Command {
        let mut command = Program::handover_command();
        mode.flags(&mut command).arg("-c").arg(self.0.path("handover.toml"));
        command
    }

    fn users(&self) -> String {
        fs::read_to_string(self.0.path("users")).expect("a file")
    }

    /// The lines of the request log about that target: the user and the status of each.
    fn logged(&self, target: &str, times: usize) -> Vec<String> {
        let lines = || {
            let text = fs::read_to_string(self.0.path("access")).unwrap_or_default();
            let of = text.lines().filter(|line| line.contains(&format!(" {target} HTTP/1.1\"")));
            let words = of.map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
            words.map(|words| format!("{} {}", words[2], words[8])).collect::<Vec<_>>()
        };
        eventually("its lines", || lines().len() >= times);
        lines()
    }
}

/// As a client sends it, by a coding of its own.
fn basic(user: &str, password: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = format!("{user}:{password}");
    let mut coded = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let value = DIGITS[(bits >> (18 - 6 * digit) & 63) as usize];
            coded.push(if digit <= three.len() { value.into() } else { '=' });
        }
    }
    format!("Authorization: Basic {coded}\r\n")
}

#[track_caller]
fn ask(client: &mut RawClient, target: &str, fields: &str) -> Answer {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
    client.answer()
}

#[test]
fn the_log_has_the_names_and_nothing_of_a_password() {
    let house = House::new("4");
    let mut command = house.command(Mode::Exec);
    let program = Program::start(command.env("RUST_LOG", "trace"));
    let mut client = program.client();
    let answer = ask(&mut client, "/private", "");
    assert_eq!((answer.status, answer.header("Cache-Control")), (401, Some("no-store")));
    assert_eq!(answer.header("WWW-Authenticate"), Some("Basic realm=\"the house\", charset=\"UTF-8\""));
    let right = ask(&mut client, "/private", &basic("ada", PASSWORD));
    assert_eq!((right.status, right.text(), right.header("Cache-Control")), (200, "private", Some("private")));
    for (user, password) in [("ada", "sesame one"), ("e ve", "sesame two")] {
        assert_eq!(ask(&mut client, "/private", &basic(user, password)).status, 401);
    }
    assert_eq!(ask(&mut client, "/open", &basic("ada", "sesame three")).status, 200, "nobody has asked");
    // The status and the Allow of what the server refuses by itself say nothing of what is there.
    client.send("TRACE /private HTTP/1.1\r\nHost: test\r\n\r\n");
    let traced = client.answer();
    assert_eq!(traced.status, 405);
    assert!(traced.header("Allow").is_some_and(|allow| allow.contains("DELETE")), "{traced:?}");
    assert_eq!(house.logged("/open", 1), ["- 200"]);
    let mut names = house.logged("/private", 5);
    names.sort_unstable();
    assert_eq!(names, ["- 401", "- 405", "ada 200", "ada 401", "e\\x20ve 401"]);
    program.logged("no such user, or a wrong password: \"e ve\" from 127.0.0.1 (GET /private)");
    assert_eq!(program.stop(), Some(0));
    let all = fs::read_to_string(house.0.path("access")).expect("a log") + &program.log().join("\n");
    for secret in [PASSWORD, "sesame", &basic("ada", PASSWORD)[21..30], &basic("ada", "sesame")[21..30], "$2y$"] {
        assert!(!all.contains(secret), "{secret:?} is in the log");
    }
}

/// With what waits, and what moves.
#[test]
fn a_subscriber_keeps_its_name_through_reloads() {
    for mode in Mode::BOTH {
        let house = House::new("4");
        let program = Program::start(&mut house.command(mode));
        let bound = program.listening()[0].clone();
        let mut client = RawClient::to(&bound);
        assert_eq!(ask(&mut client, "/private/events/news", "").status, 401);
        let mut stream = EventStream::open(&bound, "/private/events/news", &basic("ada", PASSWORD));
        stream.opening();
        program.reload();
        client.send(format!(
            "POST /private/events/news HTTP/1.1\r\nHost: test\r\n{}Content-Length: 2\r\n\r\nhi",
            basic("ada", PASSWORD)
        ));
        assert_eq!(client.answer().status, 200);
        assert_eq!(stream.lines(), "data: hi\n\n");
        program.reload();
        drop(stream);
        let mut lines = house.logged("/private/events/news", 3);
        lines.sort_unstable();
        assert_eq!(lines, ["- 401", "ada 200", "ada 200"], "{mode:?}");
        assert_eq!(program.stop(), Some(0));
    }
}

#[test]
fn a_reload_takes_the_file_up_and_one_that_is_wrong_changes_nothing() {
    for mode in Mode::BOTH {
        let house = House::new("4");
        let program = Program::start(&mut house.command(mode));
        let mut client = program.client();
        let mut status = |user: &str| ask(&mut client, "/private", &basic(user, PASSWORD)).status;
        assert!(house.passwd(&["--cost=4", "users", "bob"], PASSWORD).status.success());
        assert_eq!((status("ada"), status("bob")), (200, 401), "{mode:?}: not yet");
        program.reload();
        // What was remembered is forgotten with the file.
        assert_eq!((status("ada"), status("bob")), (200, 200), "{mode:?}");
        let good = house.users();
        fs::write(house.0.path("users"), good.replace("$2y$", "$apr1$")).expect("a file");
        program.signal_to(program.current(), Signal::HUP);
        program.logged("reload failed, serving on");
        assert_eq!((status("ada"), status("bob")), (200, 200), "{mode:?}: the old one goes on");
        fs::write(house.0.path("users"), good).expect("a file");
        assert!(house.passwd(&["--delete", "users", "ada"], "").status.success());
        program.reload();
        assert_eq!((status("ada"), status("bob")), (401, 200), "{mode:?}");
        assert_eq!(program.stop(), Some(0));
    }
}

/// What was remembered is gone with a reload, and they all ask at once.
#[test]
fn a_reload_is_noticed_by_nobody_who_is_in() {
    for mode in Mode::BOTH {
        let house = House::new("8");
        for user in ["bob", "eve"] {
            assert!(house.passwd(&["--cost=8", "users", user], PASSWORD).status.success());
        }
        let program = Program::start(&mut house.command(mode));
        let bound = program.listening()[0].clone();
        let (goes_on, answered) = (AtomicBool::new(true), AtomicUsize::new(0));
        thread::scope(|scope| {
            let clients: Vec<_> = (0..24)
                .map(|number| {
                    let (bound, goes_on, answered) = (&bound, &goes_on, &answered);
                    scope.spawn(move || {
                        let mut client = RawClient::to(bound);
                        let fields = basic(["ada", "bob", "eve"][number % 3], PASSWORD);
                        while goes_on.load(Ordering::Relaxed) {
                            assert_eq!(ask(&mut client, "/private", &fields).status, 200);
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            for _ in 0..3 {
                let before = answered.load(Ordering::Relaxed);
                program.reload();
                eventually("more answers", || {
                    answered.load(Ordering::Relaxed) > before + 100 || clients.iter().any(|client| client.is_finished())
                });
            }
            goes_on.store(false, Ordering::Relaxed);
        });
        assert_eq!(program.stop(), Some(0), "{mode:?}");
    }
}

/// Eight clients on four workers, each with a wrong password after the other, or all with the same one. A hash takes longer
/// than a request may wait, so that one that has to wait for them all is told 503.
#[test]
fn who_guesses_for_ever_keeps_nobody_else_waiting() {
    let house = House::new("13");
    house.configure("queue_timeout = 2");
    let program = Program::start(&mut house.command(Mode::Exec));
    let bound = program.listening()[0].clone();
    let right = basic("ada", PASSWORD);
    let mut ada = program.client();
    assert_eq!(ask(&mut ada, "/private", &right).status, 200);
    // While nobody has guessed, those who guess have the pool for one hash.
    assert_eq!(ask(&mut ada, "/private", &basic("ada", "the first")).status, 401);
    let (goes_on, wrong, later) = (AtomicBool::new(true), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..8 {
            let (bound, goes_on, wrong, later) = (&bound, &goes_on, &wrong, &later);
            scope.spawn(move || {
                let mut client = RawClient::to(bound);
                for guess in 0.. {
                    if !goes_on.load(Ordering::Relaxed) {
                        return;
                    }
                    let password = if number < 4 { format!("{number} {guess}") } else { "the same".to_owned() };
                    let answer = ask(&mut client, "/private", &basic("ada", &password));
                    match answer.status {
                        401 => _ = wrong.fetch_add(1, Ordering::Relaxed),
                        429 => {
                            assert_eq!(answer.header("Retry-After"), Some("1"));
                            later.fetch_add(1, Ordering::Relaxed);
                        }
                        other => panic!("{other}: {answer:?}"),
                    }
                }
            });
        }
        let seen = |least: usize| wrong.load(Ordering::Relaxed) >= least && later.load(Ordering::Relaxed) >= least;
        let mut other = RawClient::to(&bound);
        let mut slowest = Duration::ZERO;
        let mut asked = 0;
        while asked < 50 || !seen(5) {
            let began = Instant::now();
            let (open, private) = (ask(&mut other, "/open", "").status, ask(&mut ada, "/private", &right).status);
            slowest = slowest.max(began.elapsed());
            if (open, private) != (200, 200) || asked > 100_000 {
                goes_on.store(false, Ordering::Relaxed);
                panic!("{open} {private}, {asked} requests, {wrong:?} wrong, {later:?} later, slowest {slowest:?}");
            }
            asked += 1;
        }
        goes_on.store(false, Ordering::Relaxed);
    });
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn the_command_writes_what_the_server_reads() {
    let house = House::new("4");
    let mode = |name: &str| fs::metadata(house.0.path(name)).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode("users"), 0o600);
    assert!(house.users().starts_with("ada:$2y$04$"));
    // By its name, a link stays one, and what it leads to keeps its mode.
    symlink(house.0.path("users"), house.0.path("link")).expect("a link");
    fs::set_permissions(house.0.path("users"), Permissions::from_mode(0o640)).expect("ours");
    let before = house.users();
    let output = house.passwd(&["--cost", "5", "link", "bob"], "pass\r\n");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "\"bob\" is new in \"link\"; a running server takes it up at its next reload\n");
    assert!(fs::symlink_metadata(house.0.path("link")).expect("a link").is_symlink());
    assert_eq!((mode("users"), house.users().starts_with(&(before.clone() + "bob:$2y$05$"))), (0o640, true));
    let output = house.passwd(&["--cost=4", "--", "users", "ada"], "another");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("\"ada\" has a new password in"), "{output:?}");
    assert!(house.users() != before && house.users().lines().count() == 2);
    let output = house.passwd(&["--delete", "users", "bob"], "");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(house.users().lines().count(), 1);
    assert!(fs::read_dir(house.0.path("")).expect("a directory").all(|entry| {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        !name.starts_with('.')
    }));
    let program = Program::start(&mut house.command(Mode::Exec));
    let mut client = program.client();
    assert_eq!(ask(&mut client, "/private", &basic("ada", "another")).status, 200);
    assert_eq!(ask(&mut client, "/private", &basic("ada", PASSWORD)).status, 401);
    assert_eq!(program.stop(), Some(0));
    // What would stop a server is said, also if it is none of this user's.
    fs::write(house.0.path("users"), "old:secret\n").expect("a file");
    let output = house.passwd(&["--cost=4", "users", "ada"], "x");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("but it is of no use like that: line 1: the password of \"old\""));
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn the_command_says_what_is_wrong_and_leaves_the_file_alone() {
    let house = House::new("4");
    fs::create_dir(house.0.path("directory")).expect("a directory");
    symlink("nowhere", house.0.path("dangling")).expect("a link");
    let before = house.users();
    let (long, name) = ("x".repeat(73), "x".repeat(256));
    for (args, stdin, code, says) in [
        (&[][..], "", 2, "give FILE and USER"),
        (&["users"], "", 2, "give FILE and USER"),
        (&["users", "ada", "secret"], "", 2, "FILE and USER are all: the password is asked for"),
        (&["--cost", "3", "users", "ada"], "", 2, "--cost is \"3\", allowed is 4 to 14"),
        (&["--cost", "15", "users", "ada"], "", 2, "--cost is \"15\""),
        (&["--cost", "5", "--cost", "5", "users", "ada"], "", 2, "--cost stands twice"),
        (&["--cost", "5", "--delete", "users", "ada"], "", 2, "--cost does not go with --delete"),
        (&["--delte", "users", "ada"], "", 2, "--delte"),
        (&["users", "a:b"], "", 2, "has a colon"),
        (&["users", "a\nb"], "", 2, "\"a\\nb\" has a control character"),
        (&["users", "#a"], "", 2, "begins with #"),
        (&["users", " a"], "", 2, "white space"),
        (&["users", ""], "", 2, "a user has no name"),
        (&["users", &name], "", 2, "a name has 256 bytes"),
        (&["users", "ada"], "", 1, "there is no password"),
        (&["users", "ada"], "\n", 1, "there is no password"),
        (&["users", "ada"], "one\ntwo\n", 1, "a second line"),
        (&["users", "ada"], &long, 1, "more than 72 bytes"),
        (&["users", "ada"], "a\u{1}", 1, "a control character"),
        (&["--delete", "users", "eve"], "", 1, "there is no user \"eve\""),
        (&["--delete", "none", "eve"], "", 1, "there is no user \"eve\""),
        (&["--cost=4", "directory", "ada"], "x", 1, "it is not a regular file"),
        (&["--cost=4", "/dev/null", "ada"], "x", 1, "it is not a regular file"),
        (&["--cost=4", "dangling", "ada"], "x", 1, "a link that leads nowhere"),
        (&["--cost=4", "nowhere/users", "ada"], "x", 1, "there is no such directory"),
    ] {
        let output = house.passwd(args, stdin);
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{args:?}: {text}");
        assert!(text.starts_with("handover passwd: ") && text.contains(says), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    }
    assert_eq!(house.users(), before);
    assert!(!Path::new(&house.0.path("none")).exists());
    let help = house.passwd(&["--help"], "");
    let text = String::from_utf8(help.stdout).expect("UTF-8");
    assert!(help.status.success() && text.starts_with("Usage: handover passwd"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "a line is too wide");
}

#[test]
fn many_commands_at_once_lose_no_user() {
    let house = House::new("4");
    thread::scope(|scope| {
        let all: Vec<_> = (0..16)
            .map(|number| {
                let house = &house;
                scope.spawn(move || house.passwd(&["--cost=4", "users", &format!("user{number}")], "x"))
            })
            .collect();
        for one in all {
            let output = one.join().expect("no panic");
            assert!(output.status.success(), "{output:?}");
        }
    });
    assert_eq!(house.users().lines().count(), 17);
}

#[test]
fn a_check_says_what_is_guarded_and_who_could_read_it() {
    let house = House::new("4");
    let check = || run_to_its_end(house.command(Mode::Exec).arg("--check"));
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let fine = said(&check());
    let users = house.0.path("users");
    for line in [
        format!("/private status 200, 7 bytes of text/plain; charset=utf-8, for users of {users:?} (1)"),
        format!("600 s, for users of {users:?} (1)"),
    ] {
        assert!(fine.contains(&line), "{line}: {fine}");
    }
    assert!(
        fine.lines().any(|line| line.ends_with("/open status 200, 4 bytes of text/plain; charset=utf-8")),
        "{fine}"
    );
    assert!(!fine.contains("warning"), "{fine}");
    fs::set_permissions(&users, Permissions::from_mode(0o644)).expect("ours");
    let exposed = said(&check());
    let warning = format!("everybody on this host may read the file of users {users:?} (mode 644): chmod 600");
    assert!(exposed.contains(&warning), "{exposed}");
    let program = Program::start(&mut house.command(Mode::Exec));
    program.logged("may read the file of users");
    assert_eq!(program.stop(), Some(0));
    fs::write(&users, format!("{}ada:x\n", house.users())).expect("a file");
    let output = check();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), message.lines().count()), (Some(78), 1), "{message}");
    assert!(message.contains("handover.toml:10:8: file of users") && message.contains("line 2: "), "{message}");
}
