//! What requests may open where Landlock holds them to it: a handler that opens whatever a client names, and the program
//! through deployments and reloads.

use crate::common::{Answer, Mode, OnDisk, Program, RawClient, Scratch, eventually, run_to_its_end};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// The threads that clients reach.
const CONFINED: [&str; 4] = ["acceptor", "status", "stream-", "worker-"];

fn lab(directory: &Path, mode: Mode) -> Command {
    let mut command = Program::lab_command();
    command.env("LAB_CONFINED", directory).args(["-l", "127.0.0.1:0", "--reload", mode.name()]);
    command.args(["--reload-probation", "0"]);
    command
}

fn handover(mode: Mode) -> Command {
    let mut command = Program::handover_command();
    command.args(["-l", "127.0.0.1:0", "--reload", mode.name(), "--reload-probation", "0"]);
    command
}

fn opens(program: &Program, path: &Path) -> Answer {
    program.client().post("/open", path.to_str().expect("UTF-8")).answer()
}

#[track_caller]
fn is_denied(answer: &Answer) {
    assert_eq!((answer.status, answer.text()), (403, "Permission denied (os error 13)\n"));
}

fn text(program: &Program, path: &str) -> String {
    let answer = program.client().get(path).answer();
    if answer.status == 200 { answer.text().to_owned() } else { answer.status.to_string() }
}

/// What a confined thread of it has is that it gains no privileges: nobody else asks for that.
#[track_caller]
fn only_the_threads_of_clients_are_confined(pid: u32) {
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("a process") {
        let task = task.expect("an entry").path();
        // One may end meanwhile.
        let (Ok(name), Ok(status)) = (fs::read_to_string(task.join("comm")), fs::read_to_string(task.join("status")))
        else {
            continue;
        };
        let is_confined = status.contains("NoNewPrivs:\t1");
        assert_eq!(is_confined, CONFINED.iter().any(|of| name.starts_with(of)), "{name}");
    }
}

/// A directory with a file, a link out and one that stays inside; and a secret beside it.
fn confined_directory() -> Scratch {
    let scratch = Scratch::new();
    for directory in ["in/sub", "in/writable", "inside"] {
        fs::create_dir_all(scratch.path(directory)).expect("directories");
    }
    for file in ["in/file", "secret", "inside/secret"] {
        fs::write(scratch.path(file), file).expect("a file");
    }
    symlink("../secret", scratch.path("in/out")).expect("a link");
    symlink("/etc", scratch.path("in/etc")).expect("a link");
    symlink("../file", scratch.path("in/sub/link")).expect("a link");
    symlink("in/file", scratch.path("into")).expect("a link");
    scratch
}

#[test]
fn no_file_outside_of_what_is_allowed_can_be_opened_by_a_handler() {
    let scratch = confined_directory();
    for mode in Mode::BOTH {
        let program = Program::start(&mut lab(&scratch.path("in"), mode));
        for generation in 1..=4 {
            for good in ["in/file", "in/sub/link", "in/sub/../file", "into"] {
                let answer = opens(&program, &scratch.path(good));
                assert_eq!((answer.status, answer.text()), (200, "in/file"), "{good} in {mode:?} {generation}");
            }
            assert_eq!(opens(&program, &scratch.path("in/sub")).status, 200);
            for bad in ["secret", "inside/secret", "in/../secret", "in/sub/../../secret", "in/out", "in/etc/passwd", ""]
            {
                is_denied(&opens(&program, &scratch.path(bad)));
            }
            let process = format!("/proc/{}", program.current());
            let process = ["environ", "maps", "mem", "cwd/Cargo.toml", "root/etc/passwd", "net/tcp"]
                .map(|name| Path::new(&process).join(name));
            for bad in ["/", "/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/self/exe", "/proc/1/environ"] {
                is_denied(&opens(&program, Path::new(bad)));
            }
            process.iter().for_each(|bad| is_denied(&opens(&program, bad)));
            only_the_threads_of_clients_are_confined(program.current());
            if generation < 4 {
                program.reload();
            }
        }
        assert_eq!(program.stop(), Some(0));
    }
}

#[test]
fn what_may_be_written_is_written_and_nothing_else() {
    let scratch = confined_directory();
    let program = Program::start(&mut lab(&scratch.path("in"), Mode::Exec));
    let write = |name: &str| program.client().post("/open?write", scratch.path(name).to_str().expect("UTF-8")).answer();
    assert_eq!(write("in/writable/new").status, 200);
    assert!(scratch.path("in/writable/new").exists());
    for bad in ["in/file", "in/new", "secret", "new", "in/writable/../new"] {
        is_denied(&write(bad));
    }
    assert_eq!(program.stop(), Some(0));
}

/// They are started by a worker when a client needs one, which has its restriction by then.
#[test]
fn a_thread_that_waits_for_a_client_can_open_no_more_than_a_worker() {
    let scratch = confined_directory();
    let program = Program::start(lab(&scratch.path("in"), Mode::Exec).args(["-w", "1"]));
    let mut slow = program.client();
    slow.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 400000\r\n\r\n").send("x".repeat(200_000));
    slow.head();
    let tasks = format!("/proc/{}/task", program.pid());
    eventually("there is a streamer", || {
        let names = fs::read_dir(&tasks)
            .expect("a process")
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.into_iter().any(|name| name.starts_with("stream-"))
    });
    only_the_threads_of_clients_are_confined(program.pid());
    drop(slow);
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn one_setting_switches_it_off() {
    let scratch = confined_directory();
    let (of, off) = (scratch.path("file.toml"), "landlock = false\n");
    fs::write(&of, off).expect("a file");
    let program = Program::start(lab(&scratch.path("in"), Mode::Exec).arg("-c").arg(&of));
    assert_eq!(opens(&program, &scratch.path("secret")).text(), "secret");
    assert!(!program.log().iter().any(|line| line.contains("Landlock")), "{:?}", program.log());
    // It is what the next generation reads: on, and off again.
    for (text, status) in [("landlock = true\n", 403), (off, 200)] {
        fs::write(&of, text).expect("a file");
        program.reload();
        assert_eq!(opens(&program, &scratch.path("secret")).status, status, "{text}");
    }
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn what_cannot_be_allowed_is_an_error_and_a_reload_that_finds_it_serves_on() {
    let scratch = confined_directory();
    let missing = run_to_its_end(&mut lab(&scratch.path("missing"), Mode::Exec));
    let error = String::from_utf8_lossy(&missing.stderr);
    assert!(!missing.status.success() && error.contains("missing\", which has to be there: No such"), "{error}");
    for mode in Mode::BOTH {
        let program = Program::start(&mut lab(&scratch.path("in"), mode));
        fs::rename(scratch.path("in"), scratch.path("moved")).expect("a rename");
        program.signal(Signal::HUP);
        program.logged("reload failed, serving on: the check failed with exit code 78: ");
        assert_eq!(opens(&program, &scratch.path("moved/file")).text(), "in/file");
        is_denied(&opens(&program, &scratch.path("secret")));
        fs::rename(scratch.path("moved"), scratch.path("in")).expect("a rename");
        program.reload();
        assert_eq!(opens(&program, &scratch.path("in/file")).text(), "in/file");
        assert_eq!(program.stop(), Some(0));
    }
}

/// The new image fails, and the old one finds no directory either: it serves on with what there is.
#[test]
fn who_comes_back_and_finds_no_directory_serves_on() {
    let scratch = confined_directory();
    let on_disk = OnDisk::of(&Program::lab_command());
    let mut command = on_disk.command();
    command.env("LAB_CONFINED", scratch.path("in")).args(["-l", "127.0.0.1:0", "--reload", "exec"]);
    let program = Program::start(&mut command);
    let mut client = program.client();
    client.expect_alive("/hello");
    let (here, moved) = (scratch.path("in"), scratch.path("moved"));
    on_disk.replace_behind_the_check(&format!("mv {here:?} {moved:?}; exec \"$REAL\" \"$@\""));
    program.signal(Signal::HUP);
    program.logged("reload failed, serving on: ");
    program.logged("in\" until a reload: No such file or directory");
    client.expect_alive("/hello");
    is_denied(&opens(&program, &moved.join("file")));
    fs::rename(&moved, &here).expect("a rename");
    is_denied(&opens(&program, &here.join("file")));
    on_disk.restore();
    program.reload();
    assert_eq!(opens(&program, &here.join("file")).text(), "in/file");
    client.expect_alive("/hello");
    assert_eq!(program.stop(), Some(0));
}

fn site(scratch: &Scratch, directory: &str, content: &str) {
    fs::create_dir_all(scratch.path(directory)).expect("directories");
    fs::write(scratch.path(directory).join("a"), content).expect("a file");
}

/// As `ln -sfn` of a careful deployment does: there is always one.
fn swap(scratch: &Scratch, link: &str, target: &Path) {
    symlink(target, scratch.path("new")).expect("a link");
    fs::rename(scratch.path("new"), scratch.path(link)).expect("a rename");
}

#[track_caller]
fn serves(program: &Program, content: &str) {
    eventually(&format!("{content:?} is served"), || text(program, "/a") == content);
}

#[test]
fn the_program_serves_what_a_deployment_puts_in_the_place_of_its_root() {
    let scratch = Scratch::new();
    for number in 1..=3 {
        site(&scratch, &format!("app/releases/{number}/public"), &number.to_string());
        site(&scratch, &format!("app/public/{number}"), &number.to_string());
    }
    for root in ["app/current/public", "app/last"] {
        let (link, target) = match root.strip_suffix("/public") {
            Some(link) => (link, "releases/1"),
            None => (root, "public/1"),
        };
        swap(&scratch, link, Path::new(target));
        let program = Program::start(handover(Mode::Exec).arg(scratch.path(root)));
        serves(&program, "1");
        let releases = scratch.path("app").join(target).parent().expect("a directory").to_owned();
        program.logged(&format!("requests can open no file but in {releases:?} (Landlock)"));
        // Relative, and absolute.
        swap(&scratch, link, Path::new(&target.replace('1', "2")));
        serves(&program, "2");
        swap(&scratch, link, &scratch.path("app").join(target.replace('1', "3")));
        serves(&program, "3");
        // A release that did not exist when the server started.
        site(&scratch, "app/releases/new/public", "new");
        site(&scratch, "app/public/new", "new");
        swap(&scratch, link, Path::new(&target.replace('1', "new")));
        serves(&program, "new");
        for new in ["app/releases/new", "app/public/new"] {
            fs::remove_dir_all(scratch.path(new)).expect("removed");
        }
        assert_eq!(program.stop(), Some(0));
    }
    // The whole directory, by a rename, and made anew.
    site(&scratch, "dist/public", "old");
    site(&scratch, "dist/fresh", "fresh");
    let program = Program::start(handover(Mode::Exec).arg(scratch.path("dist/public")));
    serves(&program, "old");
    fs::rename(scratch.path("dist/public"), scratch.path("dist/before")).expect("a rename");
    fs::rename(scratch.path("dist/fresh"), scratch.path("dist/public")).expect("a rename");
    serves(&program, "fresh");
    fs::remove_dir_all(scratch.path("dist/public")).expect("removed");
    site(&scratch, "dist/public", "anew");
    serves(&program, "anew");
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn a_root_that_comes_to_another_place_is_served_after_a_reload() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        site(&scratch, "app/1", "1");
        site(&scratch, "elsewhere/2", "2");
        swap(&scratch, "current", Path::new("app/1"));
        let program = Program::start(handover(mode).arg(scratch.path("current")));
        serves(&program, "1");
        swap(&scratch, "current", Path::new("elsewhere/2"));
        // Somebody has to ask.
        eventually("it is said", || {
            assert_eq!(text(&program, "/a"), "1");
            program.log().iter().any(|line| line.contains("leads to where requests cannot open anything (Landlock)"))
        });
        assert!(program.logged("(Landlock), serving what it was").contains("a reload serves it"));
        for _ in 0..3 {
            program.reload();
            assert_eq!(text(&program, "/a"), "2");
            only_the_threads_of_clients_are_confined(program.current());
        }
        assert_eq!(program.stop(), Some(0));
    }
}

/// The second line of defence changes nothing of the first.
#[test]
fn the_program_answers_as_without_it() {
    let scratch = Scratch::new();
    site(&scratch, "site/public", "a");
    fs::write(scratch.path("secret"), "secret").expect("a file");
    fs::write(scratch.path("404.html"), "not here").expect("a file");
    symlink("../../secret", scratch.path("site/public/out")).expect("a link");
    symlink("a", scratch.path("site/public/inside")).expect("a link");
    let file = scratch.path("file.toml");
    let answers = ["true", "false"].map(|on| {
        let settings = format!(
            "root = {:?}\nlisting = true\nlandlock = {on}\nerror_pages = {{ 404 = {:?} }}\n",
            scratch.path("site/public"),
            scratch.path("404.html")
        );
        fs::write(&file, settings).expect("a file");
        let program = Program::start(handover(Mode::Exec).arg("-c").arg(&file));
        let of = |path: &str| {
            let answer = program.client().get(path).answer();
            (answer.status, answer.text().to_owned())
        };
        let answers = ["/a", "/inside", "/out", "/", "/missing", "/../../secret", "/%2e%2e/%2e%2e/secret"].map(of);
        // The figures of the process are from /proc, on a worker.
        let ask = "GET /-/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let metrics = program.client().send(ask).answer().text().to_owned();
        assert!(metrics.contains("process_open_fds") && metrics.contains("process_resident_memory_bytes"), "{metrics}");
        assert_eq!(program.stop(), Some(0));
        answers
    });
    let [on, off] = answers;
    assert_eq!(on, off);
    assert_eq!((on[0].0, on[1].0, on[4].1.as_str()), (200, 200, "not here"));
    assert!(on.iter().all(|(_, text)| text != "secret"), "{on:?}");
}

/// The acceptor removes the file when it closes the listener: at a stop, and after a reload that names it no longer.
#[test]
fn the_files_of_unix_sockets_are_removed_all_the_same() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        site(&scratch, "site/public", "a");
        fs::create_dir(scratch.path("run")).expect("a directory");
        let (file, other, socket) = (scratch.path("file.toml"), scratch.path("other"), scratch.path("run/socket"));
        let listen = |addresses: &[&Path]| {
            let more: String = addresses.iter().map(|path| format!(", \"unix:{}\"", path.display())).collect();
            let root = scratch.path("site/public");
            fs::write(&file, format!("listen = [\"127.0.0.1:0\"{more}]\nroot = {root:?}\n")).expect("a file");
        };
        listen(&[&socket, &other]);
        let mut command = Program::handover_command();
        let program = Program::start(mode.flags(&mut command).arg("-c").arg(&file));
        assert_eq!(RawClient::to(&handover::Bound::Unix(socket.clone())).get("/a").answer().text(), "a");
        listen(&[&other]);
        program.reload();
        eventually("the first is gone", || !socket.exists());
        assert!(other.exists());
        assert_eq!(program.stop(), Some(0));
        assert!(!other.exists(), "{mode:?}");
    }
}

#[test]
fn a_check_says_what_may_be_opened() {
    let scratch = Scratch::new();
    site(&scratch, "site/public", "a");
    let output = run_to_its_end(Program::handover_command().arg("--check").arg(scratch.path("site/public")));
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let line =
        format!("landlock   requests can open no file but in {:?}, if the kernel has Landlock\n", scratch.path("site"));
    assert!(output.contains(&line), "{output}");
}
