//! Socket activation, as a service manager does it: the program is executed with a listener as descriptor 3.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Longer than anything here takes, and short enough that a hang is seen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts the program with `fd` as its descriptor 3. `$$` is the shell's pid, and after `exec` the program's; so
/// LISTEN_PID is right without anything running between fork and exec.
fn activated(fd: impl Into<OwnedFd>, variables: &str) -> Child {
    let script = format!("exec 3<&0 </dev/null; {variables} exec \"$0\" -l 127.0.0.1:1 --stop-deadline 10");
    Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_handover")])
        .env("RUST_LOG", "info")
        .stdin(Stdio::from(fd.into()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// Kills the program when a test fails half-way.
struct Running(Option<Child>);

impl Running {
    /// Waits until it is ready. Answers with what it said about listening.
    fn ready(child: Child) -> (Running, Vec<String>) {
        let mut running = Running(Some(child));
        let stdout = running.0.as_mut().and_then(|child| child.stdout.take()).expect("piped");
        let lines = BufReader::new(stdout).lines().map(|line| line.expect("UTF-8"));
        let listening: Vec<String> = lines.take_while(|line| !line.starts_with("ready ")).collect();
        (running, listening)
    }

    fn signal(&self, name: &str) {
        let pid = self.0.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill").success());
    }

    fn stop(mut self) -> Output {
        self.signal("TERM");
        self.0.take().expect("it runs").wait_with_output().expect("it ends")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn ask(mut stream: impl Read + Write) -> String {
    stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn temporary(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
}

#[test]
fn a_passed_listener_replaces_the_configured_ones_and_outlives_a_stop() {
    let ours = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = ours.local_addr().expect("its address");
    let connect = || {
        let stream = std::net::TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        stream
    };
    // Both find it in the queue: it was there before they started.
    for start in 1..=2 {
        let waiting = connect();
        let (running, listening) = Running::ready(activated(
            ours.try_clone().expect("a copy"),
            "LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=web",
        ));
        assert_eq!(listening, [format!("listening on http://{address}")], "start {start}");
        assert!(ask(waiting).starts_with("HTTP/1.1 200 "), "start {start}");
        assert!(ask(connect()).starts_with("HTTP/1.1 200 "), "start {start}");
        let output = running.stop();
        let log = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{log}");
        assert!(log.contains(&format!("the service manager passed http://{address} (\"web\")")), "{log}");
        assert!(log.contains("not those of the configuration") && !log.contains("WARN"), "{log}");
    }
    // No filter and no shutdown is left on it.
    let client = connect();
    ours.set_nonblocking(false).expect("blocking again");
    assert_eq!(ours.accept().expect("the connection").1, client.local_addr().expect("its address"));
}

#[test]
fn a_passed_listener_stays_across_a_reload() {
    let ours = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = ours.local_addr().expect("its address");
    let mut child = activated(ours.try_clone().expect("a copy"), "LISTEN_FDS=1 LISTEN_PID=$$");
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    let running = Running(Some(child));
    let mut lines = stdout.lines().map(|line| line.expect("UTF-8"));
    for generation in 1..=3 {
        let said: Vec<String> = lines.by_ref().take_while(|line| !line.starts_with("ready ")).collect();
        assert_eq!(said, [format!("listening on http://{address}")], "generation {generation}");
        let stream = std::net::TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        assert!(ask(stream).starts_with("HTTP/1.1 200 "), "generation {generation}");
        if generation < 3 {
            running.signal("HUP");
        }
    }
    let log = String::from_utf8(running.stop().stderr).expect("UTF-8");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    let client = std::net::TcpStream::connect(address).expect("connects");
    ours.set_nonblocking(false).expect("blocking again");
    assert_eq!(ours.accept().expect("the connection").1, client.local_addr().expect("its address"));
}

#[test]
fn a_passed_unix_socket_keeps_its_path() {
    let path = temporary("activated.sock");
    let ours = UnixListener::bind(&path).expect("a listener");
    let variables = "LISTEN_FDS=1 LISTEN_PID=$$";
    for _ in 0..2 {
        let (running, listening) = Running::ready(activated(ours.try_clone().expect("a copy"), variables));
        assert_eq!(listening, [format!("listening on http+unix:{}", path.display())]);
        let stream = UnixStream::connect(&path).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        assert!(ask(stream).starts_with("HTTP/1.1 200 "));
        assert!(running.stop().status.success());
        assert!(path.exists());
    }
    fs::remove_file(&path).expect("tidy up");
}

#[test]
fn a_stop_under_activation_does_not_wait_for_the_listener() {
    let ours = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = ours.local_addr().expect("its address");
    let (running, _) = Running::ready(activated(ours.try_clone().expect("a copy"), "LISTEN_FDS=1 LISTEN_PID=$$"));
    let done = std::sync::atomic::AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        // Whoever connects during the stop stays in the queue, and must not keep the stop from ending.
        scope.spawn(|| {
            let mut waiting = Vec::new();
            while !done.load(std::sync::atomic::Ordering::Relaxed) && waiting.len() < 100 {
                waiting.extend(std::net::TcpStream::connect(address));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let output = running.stop();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        output
    });
    let log = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success() && !log.contains("WARN"), "{log}");
}

#[test]
fn what_is_no_listener_exits_78_and_names_the_descriptor() {
    for (fd, variables, says) in [
        (OwnedFd::from(fs::File::open("/dev/null").expect("a file")), "LISTEN_FDS=1 LISTEN_PID=$$", "not a socket"),
        (
            UnixStream::pair().expect("a pair").0.into(),
            "LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=web",
            "descriptor 3 (\"web\") from the service manager: it does not listen",
        ),
        (
            TcpListener::bind("127.0.0.1:0").expect("a listener").into(),
            "LISTEN_FDS=2 LISTEN_PID=$$",
            "descriptor 4 (\"unknown\") from the service manager: it is not open",
        ),
        (fs::File::open("/dev/null").expect("a file").into(), "LISTEN_FDS=x LISTEN_PID=$$", "LISTEN_FDS is \"x\""),
    ] {
        let output = activated(fd, variables).wait_with_output().expect("it ends");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(78), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}
