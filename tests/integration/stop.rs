//! The stop, on the lab in a process of its own and on a server in this one: what is pending finishes, nobody who has
//! connected is reset, and what could not finish is named.
//!
//! `HANDOVER_STOPS=20 cargo test --test integration under_load` runs the stops under load that often, instead of 3 times.

use crate::common::{Ending, Program, RawClient, Scratch, TestServer, count, eventually, gated};
use handover::{Bound, Ended, Limits, Server};
use rustix::process::Signal;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// From here on, a second stop signal is a second one.
const SECOND: Duration = Duration::from_millis(300);
/// Everything that lingers has gone by then, on a slow machine as well.
const PROMPTLY: Duration = Duration::from_secs(10);

/// Asks for something and makes sure that a worker has it: what is asked for later has been answered.
fn under_way(lab: &Program, path: &str) -> RawClient {
    let mut client = lab.client();
    client.get(path);
    lab.client().expect_alive("/hello");
    client
}

fn stop(lab: &Program) {
    lab.signal(Signal::TERM);
    lab.logged("stopping: waiting up to");
}

// What is pending finishes

#[test]
fn a_request_in_a_handler_is_finished() {
    for signal in [Signal::TERM, Signal::INT] {
        let lab = Program::lab([""; 0]);
        let mut client = under_way(&lab, "/sleep/500");
        lab.signal(signal);
        let answer = client.answer();
        assert_eq!((answer.status, answer.text(), answer.closes()), (200, "slept 500\n", true));
        client.expect_fin();
        drop(client);
        let exit = lab.exit_within(PROMPTLY);
        assert_eq!(exit.code, Some(0), "{:#?}", exit.log);
        assert!(exit.last().ends_with("stopped: served=2 migrated=0 refused=0 cut=0"), "{:#?}", exit.log);
    }
}

#[test]
fn requests_that_wait_for_a_worker_are_finished() {
    let lab = Program::lab(["--workers", "1"]);
    let mut clients: Vec<RawClient> = (0..5).map(|_| lab.client()).collect();
    for client in &mut clients {
        client.get("/sleep/100").get("/sleep/1");
    }
    stop(&lab);
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!(answer.text(), "slept 100\n");
        // Once an answer has said close, what came behind it is not run.
        if !answer.closes() {
            assert!(client.answer().closes());
        }
        client.expect_fin();
    }
    assert_eq!(lab.exit_within(PROMPTLY).code, Some(0));
}

#[test]
fn streams_and_downloads_are_finished() {
    const LARGE: usize = 60_000_000;
    let lab = Program::lab([""; 0]);
    let mut stream = lab.client();
    stream.get("/stream/5/100").read_at_least(200);
    let mut download = lab.client().with_small_window();
    download.get(&format!("/bytes/{LARGE}")).read_at_least(1000);
    stop(&lab);
    let text = stream.answer().text().to_owned();
    assert!(text.starts_with("chunk 1 of 5\n") && text.ends_with("chunk 5 of 5\n"), "{text}");
    let answer = download.answer();
    assert_eq!(answer.body.len(), LARGE);
    drop((stream, download));
    let exit = lab.exit_within(PROMPTLY);
    assert_eq!(exit.code, Some(0), "{:#?}", exit.log);
}

#[test]
fn a_half_read_request_is_finished() {
    let lab = Program::lab([""; 0]);
    let mut head = lab.client();
    head.send("GET /hello HTTP/1.1\r\nHo");
    let mut body = lab.client();
    body.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\nhello");
    let mut streamed = lab.client();
    streamed.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\nhello");
    let mut kept = lab.client();
    kept.expect_alive("/hello");
    kept.send("GET /he");
    lab.client().expect_alive("/hello");
    let mut probe = lab.client();
    stop(&lab);
    // That is said a moment before connections end.
    while !probe.get("/hello").answer().closes() {}
    assert_eq!(head.send("st: test\r\n\r\n").answer().text(), "hello world");
    assert_eq!(body.send(" world").answer().text(), "hello world");
    assert_eq!(streamed.send(vec![b'x'; 99_995]).answer().body.len(), 100_000);
    let answer = kept.send("llo HTTP/1.1\r\nHost: test\r\n\r\n").answer();
    assert_eq!((answer.text(), answer.closes()), ("hello world", true));
    for mut client in [head, body, kept] {
        client.expect_fin();
    }
    drop(streamed);
    let exit = lab.exit_within(PROMPTLY);
    assert_eq!(exit.code, Some(0), "{:#?}", exit.log);
}

// Idle connections

/// Where the lab can listen here; IPv6 is left out, and that said, where the machine has none.
fn everywhere(scratch: &Scratch) -> Vec<String> {
    let mut addresses = vec!["127.0.0.1:0".to_owned(), format!("unix:{}", scratch.path("socket").display())];
    match TcpListener::bind("[::1]:0") {
        Ok(_) => addresses.push("[::1]:0".to_owned()),
        Err(error) => eprintln!("skipped: IPv6, which this machine has not: {error}"),
    }
    addresses
}

#[test]
fn an_idle_connection_gets_fin_and_what_it_sends_then_is_not_run() {
    let scratch = Scratch::new();
    for address in everywhere(&scratch) {
        let journal = scratch.path("journal");
        let lab = Program::start(Program::lab_command().env("LAB_JOURNAL", &journal).args(["-l", &address]));
        let mut silent = lab.client();
        let mut kept = lab.client();
        kept.expect_alive("/hello");
        let began = Instant::now();
        stop(&lab);
        for client in [&mut kept, &mut silent] {
            client.expect_fin();
            // It may be too late even for the connection, but never may it run.
            let _ = client.try_send("POST /journal HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nlate");
        }
        assert!(began.elapsed() < PROMPTLY, "{address}: {:?}", began.elapsed());
        drop((silent, kept));
        let exit = lab.exit_within(PROMPTLY);
        assert_eq!(exit.code, Some(0), "{address}: {:#?}", exit.log);
        assert!(!journal.exists(), "{address}: it ran a request behind its FIN");
    }
}

#[test]
fn an_idle_connection_that_does_not_close_does_not_hold_the_stop() {
    let lab = Program::lab([""; 0]);
    let mut kept = lab.client();
    kept.expect_alive("/hello");
    stop(&lab);
    let exit = lab.exit_within(PROMPTLY);
    assert_eq!(exit.code, Some(0), "{:#?}", exit.log);
    kept.expect_fin();
}

/// It lingers a second for it: whatever is in the socket by then is answered. A machine that was so busy that this test
/// sent it later says nothing, so there is another try.
#[test]
fn a_request_on_an_idle_connection_is_answered_while_it_lingers() {
    const LINGER: Duration = Duration::from_secs(1);
    for _ in 0..20 {
        let lab = Program::lab([""; 0]);
        let mut clients: Vec<RawClient> = (0..4).map(|_| lab.client()).collect();
        clients[0].expect_alive("/hello");
        clients[1].expect_alive("/hello");
        let mut probe = lab.client();
        let began = Instant::now();
        stop(&lab);
        // The line in the log comes a moment before what it says.
        while !probe.get("/hello").answer().closes() {}
        let sent: Vec<bool> = clients
            .iter_mut()
            .map(|client| client.try_send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\n").is_ok())
            .collect();
        if began.elapsed() >= LINGER {
            continue;
        }
        assert_eq!(sent, [true; 4]);
        for client in &mut clients {
            let answer = client.answer();
            assert!(answer.closes() && answer.text() == "hello world", "{answer:?}");
            client.expect_fin();
        }
        drop((clients, probe));
        assert_eq!(lab.exit_within(PROMPTLY).code, Some(0));
        return;
    }
    panic!("this machine was never fast enough to send a request within {LINGER:?}");
}

// What cannot finish

#[test]
fn the_deadline_cuts_and_names_what_is_left() {
    let lab = Program::lab(["--stop-deadline", "0.5"]);
    let mut head = lab.client();
    head.send("GET /half HTTP/1.1\r\nHo");
    let mut body = lab.client();
    body.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\nhello");
    let mut unread = lab.client().with_small_window();
    unread.get("/bytes/60000000").read_at_least(1000);
    let mut stream = lab.client();
    stream.get("/stream/2/30000").read_at_least(100);
    let mut idle = lab.client();
    idle.expect_alive("/hello");
    let mut sleeping = under_way(&lab, "/sleep/30000");
    let began = Instant::now();
    lab.signal(Signal::TERM);

    let (ending, rest) = sleeping.try_answer(false).expect_err("it was cut");
    assert_eq!((ending, rest.len()), (Ending::Fin, 0));
    for client in [&mut head, &mut body] {
        assert_eq!(client.answer().status, 408, "what has not run is told so");
    }
    assert!(unread.try_answer(false).is_err() && stream.try_answer(false).is_err());
    idle.expect_fin();
    let exit = lab.exit_within(PROMPTLY);
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    assert_eq!(exit.code, Some(3), "{:#?}", exit.log);
    for request in ["GET /sleep/30000", "GET /half", "POST /echo", "GET /bytes/60000000", "GET /stream/2/30000"] {
        let cut: Vec<&String> =
            exit.log.iter().filter(|line| line.contains("cut ") && line.contains(request)).collect();
        assert_eq!(cut.len(), 1, "{request}: {:#?}", exit.log);
        let (_, age) = cut[0].rsplit_once(" after ").expect("its age");
        let age = age.strip_suffix(" s").and_then(|age| age.parse::<f64>().ok());
        assert!(cut[0].contains("WARN") && age.is_some_and(|age| (0.4..30.0).contains(&age)), "{}", cut[0]);
    }
    assert!(exit.last().ends_with(" cut=5"), "{:#?}", exit.log);
}

#[test]
fn a_second_signal_stops_at_once() {
    for second in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let lab = Program::lab([""; 0]);
        let mut client = under_way(&lab, "/sleep/30000");
        stop(&lab);
        thread::sleep(SECOND);
        lab.signal(second);
        let exit = lab.exit_within(PROMPTLY);
        assert_eq!(exit.code, Some(4), "{:#?}", exit.log);
        assert!(exit.last().contains("stopped: served="), "{:#?}", exit.log);
        assert!(client.try_answer(false).is_err());
    }
}

#[test]
fn two_signals_in_one_moment_are_one() {
    let lab = Program::lab([""; 0]);
    let mut client = under_way(&lab, "/sleep/500");
    // A terminal and a supervisor both signal the whole group.
    lab.signal(Signal::TERM);
    lab.signal(Signal::INT);
    assert_eq!(client.answer().text(), "slept 500\n");
    drop(client);
    assert_eq!(lab.exit_within(PROMPTLY).code, Some(0));
}

#[test]
fn quit_stops_at_once() {
    let lab = Program::lab([""; 0]);
    let _client = under_way(&lab, "/sleep/30000");
    lab.signal(Signal::QUIT);
    let exit = lab.exit_within(PROMPTLY);
    assert_eq!(exit.code, Some(4), "{:#?}", exit.log);
    assert!(exit.last().contains("stopped: served="), "{:#?}", exit.log);
}

// Other signals, logs and what is left behind

#[test]
fn a_terminals_signals_are_ignored() {
    let lab = Program::lab([""; 0]);
    for signal in [Signal::TTIN, Signal::TTOU, Signal::WINCH, Signal::PIPE] {
        lab.signal(signal);
        lab.client().expect_alive("/hello");
    }
    stop(&lab);
    assert_eq!(lab.exit_within(PROMPTLY).code, Some(0));
}

#[test]
fn usr1_opens_the_log_file_again() {
    let scratch = Scratch::new();
    let (path, rotated) = (scratch.path("log"), scratch.path("log.1"));
    let lab = Program::lab(["--log-file".as_ref(), path.as_os_str()]);
    fs::rename(&path, &rotated).expect("a log file");
    lab.signal(Signal::USR1);
    eventually("a new log file", || fs::read_to_string(&path).is_ok_and(|log| log.contains("reopened log file")));
    lab.signal(Signal::TERM);
    let exit = lab.exit_within(PROMPTLY);
    assert_eq!((exit.code, exit.log), (Some(0), Vec::new()), "nothing on stderr");
    let log = fs::read_to_string(&path).expect("the log");
    assert!(log.lines().last().is_some_and(|line| line.ends_with("served=0 migrated=0 refused=0 cut=0")), "{log}");
    assert!(fs::read_to_string(&rotated).expect("the rotated log").contains("ready with"));
}

#[test]
fn a_lame_duck_serves_and_says_that_it_will_not() {
    let lab = Program::lab(["--lame-duck", "60"]);
    let mut kept = lab.client();
    kept.expect_alive("/-/ready");
    lab.signal(Signal::TERM);
    eventually("/-/ready says 503", || kept.get("/-/ready").answer().status == 503);
    // To the load balancer's check, which connects anew, as well; and the service goes on.
    let mut fresh = lab.client();
    let answer = fresh.get("/-/ready").answer();
    assert_eq!((answer.status, answer.text(), answer.closes()), (503, "stopping\n", false));
    fresh.expect_alive("/-/healthy");
    fresh.expect_alive("/hello");
    thread::sleep(SECOND);
    lab.signal(Signal::TERM);
    assert_eq!(lab.exit_within(PROMPTLY).code, Some(4));

    let lab = Program::lab(["--lame-duck", "0.2"]);
    lab.signal(Signal::TERM);
    assert_eq!(lab.exit_within(PROMPTLY).code, Some(0), "then it stops");
}

#[test]
fn the_last_line_counts() {
    let lab = Program::lab([""; 0]);
    let mut client = lab.client();
    for _ in 0..3 {
        client.expect_alive("/hello");
    }
    assert_eq!(client.send("nonsense\r\n\r\n").answer().status, 400);
    drop(client);
    lab.signal(Signal::TERM);
    let exit = lab.exit_within(PROMPTLY);
    assert!(exit.last().ends_with("stopped: served=3 migrated=0 refused=1 cut=0"), "{:#?}", exit.log);
}

#[test]
fn a_unix_socket_is_removed_unless_it_is_somebody_elses() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let address = format!("unix:{}", path.display());
    let start = || Program::start(Program::lab_command().args(["-l", &address]));

    let lab = start();
    lab.client().expect_alive("/hello");
    lab.signal(Signal::TERM);
    assert_eq!(lab.exit_within(PROMPTLY).code, Some(0));
    assert!(!path.exists(), "removed");

    let lab = start();
    fs::remove_file(&path).expect("the socket");
    let other = UnixListener::bind(&path).expect("another server");
    lab.signal(Signal::TERM);
    assert_eq!(lab.exit_within(PROMPTLY).code, Some(0));
    UnixStream::connect(&path).expect("the other server's is still there");

    // Nobody listens on what is left when that one goes.
    drop(other);
    assert!(UnixStream::connect(&path).is_err() && path.exists());
    let lab = start();
    lab.client().expect_alive("/hello");
    lab.logged("a socket that nobody listens on");
    lab.signal(Signal::QUIT);
    assert_eq!(lab.exit_within(PROMPTLY).code, Some(4));
}

#[test]
fn an_address_in_use_is_69() {
    let scratch = Scratch::new();
    for address in everywhere(&scratch) {
        let first = Program::start(Program::lab_command().args(["-l", &address]));
        let taken = match &first.bound[0] {
            Bound::Tcp(address) => address.to_string(),
            Bound::Unix(path) => format!("unix:{}", path.display()),
        };
        let second = Program::spawn(Program::lab_command().args(["-l", &taken]).stdout(Stdio::null()));
        let exit = second.exit();
        assert_eq!(exit.code, Some(69), "{:#?}", exit.log);
        assert_eq!(exit.log.len(), 1, "one line: {:#?}", exit.log);
        assert!(exit.log[0].contains("address in use") && exit.log[0].contains(&taken), "{:#?}", exit.log);
        first.client().expect_alive("/hello");
    }
}

/// Whoever read them has gone, or they never were.
#[test]
fn closed_standard_streams_are_not_fatal() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let address = format!("unix:{}", path.display());
    let closed = |script: &str| {
        let mut shell = std::process::Command::new("sh");
        let lab = Program::lab_command().get_program().to_owned();
        shell.args(["-c", script]).arg(lab).args(["-l", &address]).stdout(Stdio::null());
        shell
    };
    let deaf = |command: &mut std::process::Command| {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        command.stdout(writer.try_clone().expect("a descriptor"));
        writer
    };
    for way in ["closed", "broken"] {
        let mut command = match way {
            "closed" => closed("exec \"$0\" \"$@\" <&- >&- 2>&-"),
            _ => closed("exec \"$0\" \"$@\" 2>&1"),
        };
        let writer = (way == "broken").then(|| deaf(&mut command));
        let lab = Program::spawn(&mut command);
        drop((command, writer));
        eventually("it listens", || UnixStream::connect(&path).is_ok());
        let mut client = RawClient::to(&Bound::Unix(path.clone()));
        client.expect_alive("/hello");
        assert_eq!(client.get("/panic").answer().status, 500, "{way}: its message cannot be written");
        client.expect_alive("/hello");
        drop(client);
        lab.signal(Signal::TERM);
        assert_eq!(lab.exit_within(PROMPTLY).code, Some(0), "{way}");
    }
}

// Under load

/// Connects, asks once and is done, over and over, until nobody listens. Answers how often it was served.
fn one_shot(bound: &Bound, served: &AtomicUsize) -> usize {
    let mut count = 0;
    loop {
        let mut client = match RawClient::try_to(bound) {
            Ok(client) => client,
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                return count;
            }
            Err(error) => panic!("after {count} requests, connecting: {error}"),
        };
        // It has connected: from here on it is served.
        if let Err(error) = client.try_send("GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n") {
            panic!("after {count} requests, sending: {error}");
        }
        match client.try_answer(false) {
            Ok(answer) => assert_eq!(answer.text(), "hello world"),
            Err((ending, rest)) => panic!("after {count} requests, {ending:?} behind {} bytes", rest.len()),
        }
        count += 1;
        served.fetch_add(1, Ordering::Relaxed);
    }
}

fn stop_under_one_shot_load(flags: &[&str]) {
    const CLIENTS: usize = 32;
    let scratch = Scratch::new();
    let addresses = everywhere(&scratch);
    for round in 0..count("HANDOVER_STOPS", 3) {
        let address = &addresses[round % addresses.len()];
        let lab = Program::start(Program::lab_command().args(["-l", address]).args(flags));
        let served = AtomicUsize::new(0);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| one_shot(&lab.bound[0], &served))).collect();
            eventually("the load", || served.load(Ordering::Relaxed) > 10 * CLIENTS);
            lab.signal(Signal::TERM);
            let failed = clients.into_iter().filter_map(|client| client.join().err()).count();
            assert_eq!(failed, 0, "clients lost, round {round} on {address}; served {served:?}");
        });
        let exit = lab.exit_within(PROMPTLY);
        assert_eq!(exit.code, Some(0), "{address}: {:#?}", exit.log);
        let said = format!("served={} ", served.load(Ordering::Relaxed));
        assert!(exit.last().contains(&said), "{address}: {said}, but {}", exit.last());
        // Whoever runs this: it needs no privilege.
        let resets = exit.log.iter().find(|line| line.contains("may be reset"));
        assert_eq!(resets, None, "{address}");
    }
}

#[test]
fn no_client_that_connected_is_lost_under_load() {
    stop_under_one_shot_load(&[]);
}

/// With fewer places than clients most of them wait in the kernel's queue.
#[test]
fn no_client_in_the_accept_queue_is_lost_under_load() {
    stop_under_one_shot_load(&["--max-connections", "4", "--workers", "2"]);
}

/// Keeps its connection and posts a line every few milliseconds until told to close. Answers which lines were
/// answered, and the one that was not, if there is one.
fn journal_client(bound: &Bound, number: usize, stopping: &AtomicBool) -> (Vec<String>, Option<String>) {
    let mut answered = Vec::new();
    let mut client = RawClient::to(bound);
    for turn in 0.. {
        let line = format!("{number}-{turn}");
        // Thinking: 0 to 10 ms, differently for each.
        thread::sleep(Duration::from_millis((number * 7 + turn * 3) as u64 % 11));
        let request = format!("POST /journal HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{line}", line.len());
        if client.try_send(request).is_err() {
            return (answered, Some(line));
        }
        match client.try_answer(false) {
            Ok(answer) => {
                assert_eq!((answer.status, answer.text().trim_end()), (200, line.as_str()));
                answered.push(line);
                if answer.closes() {
                    assert!(stopping.load(Ordering::SeqCst), "closed before the stop");
                    client.expect_fin();
                    return (answered, None);
                }
            }
            Err((_, rest)) => {
                assert!(rest.is_empty(), "half an answer");
                return (answered, Some(line));
            }
        }
    }
    unreachable!("it ends with the connection")
}

#[test]
fn no_request_is_executed_without_being_answered_under_load() {
    const CLIENTS: usize = 32;
    let scratch = Scratch::new();
    for round in 0..count("HANDOVER_STOPS", 3) {
        let journal = scratch.path(&format!("journal-{round}"));
        let address = everywhere(&scratch).swap_remove(round % 2);
        let lab = Program::start(Program::lab_command().env("LAB_JOURNAL", &journal).args(["-l", &address]));
        let stopping = AtomicBool::new(false);
        let outcomes: Vec<(Vec<String>, Option<String>)> = thread::scope(|scope| {
            let (lab, stopping) = (&lab, &stopping);
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| scope.spawn(move || journal_client(&lab.bound[0], number, stopping)))
                .collect();
            let length = || fs::metadata(&journal).map_or(0, |journal| journal.len());
            eventually("the load", || length() > 5_000);
            stopping.store(true, Ordering::SeqCst);
            lab.signal(Signal::TERM);
            clients.into_iter().map(|client| client.join().expect("a client")).collect()
        });
        let exit = lab.exit_within(PROMPTLY);
        assert_eq!(exit.code, Some(0), "{:#?}", exit.log);

        let mut executed: HashMap<String, usize> = HashMap::new();
        for line in fs::read_to_string(&journal).expect("the journal").lines() {
            *executed.entry(line.to_owned()).or_default() += 1;
        }
        let answered: HashSet<&String> = outcomes.iter().flat_map(|(answered, _)| answered).collect();
        for line in &answered {
            assert_eq!(executed.get(*line), Some(&1), "{line} was answered");
        }
        for line in outcomes.iter().filter_map(|(_, unanswered)| unanswered.as_ref()) {
            assert_eq!(executed.get(line), None, "{line} was executed and not answered");
        }
        assert_eq!(executed.len(), answered.len(), "round {round}");
    }
}

// In this process

#[test]
fn a_stop_handle_stops_gracefully() {
    let (gate, routes) = gated();
    let server = TestServer::start(Server::builder().service(routes));
    let mut client = server.client_at(&gate);
    let handle = server.handle.clone();
    // Said again within 250 ms it is the same stop.
    thread::spawn(move || {
        handle.stop();
        handle.stop();
    });
    eventually("nobody listens", || RawClient::try_to(&server.bound).is_err());
    gate.open();
    let answer = client.answer();
    assert_eq!((answer.text(), answer.closes()), ("through\n", true));
    client.expect_fin();
    let handle = server.handle.clone();
    assert_eq!(server.ended(), Ended::Clean);
    // It is stopped.
    handle.stop();
    handle.stop_now();
}

#[test]
fn a_stop_handle_cuts_at_the_deadline() {
    let (gate, routes) = gated();
    let server = TestServer::start(Server::builder().stop_deadline(Duration::from_millis(200)).service(routes));
    let mut clients = [server.client_at(&gate), server.client_at(&gate)];
    let bound = server.bound.clone();
    assert_eq!(server.stop(), Ended::Cut(2));
    for client in &mut clients {
        assert!(matches!(client.try_answer(false), Err((Ending::Fin, rest)) if rest.is_empty()));
    }
    assert!(RawClient::try_to(&bound).is_err(), "nobody listens");
    assert_eq!([Ended::Clean, Ended::Cut(2), Ended::AtOnce].map(Ended::exit_code), [0, 3, 4]);
}

/// The process goes on after `run` has returned, so the threads and the listener must not.
#[test]
fn a_server_that_was_stopped_at_once_serves_nobody() {
    let (gate, routes) = gated();
    let server = TestServer::start(Server::builder().limits(Limits::default()).service(routes));
    let mut idle = server.client();
    idle.expect_alive("/hello");
    let mut busy = server.client_at(&gate);
    let bound = server.bound.clone();
    server.handle.stop_now();
    assert_eq!(server.ended(), Ended::AtOnce);
    eventually("nobody listens", || RawClient::try_to(&bound).is_err());
    let (rest, ending) = idle.rest();
    assert!(rest.is_empty() && ending != Ending::Silence, "{ending:?}");
    assert!(busy.try_answer(false).is_err_and(|(ending, _)| ending != Ending::Silence));
}

/// Two servers in one process, of which one stops.
#[test]
fn servers_in_one_process_stop_alone() {
    let [first, second] =
        [(); 2].map(|()| TestServer::start(Server::builder().handler(|_: &mut handover::Request| "hello\n")));
    let mut client = second.client();
    client.expect_alive("/");
    assert_eq!(first.stop(), Ended::Clean);
    client.expect_alive("/");
    drop(client);
    assert_eq!(second.stop(), Ended::Clean);
}

/// The program itself, not only the lab.
#[test]
fn the_program_finishes_a_file_that_is_half_sent() {
    const LARGE: u64 = 60_000_000;
    let scratch = Scratch::new();
    let root = scratch.path("root");
    fs::create_dir(&root).expect("a directory");
    File::create(root.join("large.bin")).and_then(|file| file.set_len(LARGE)).expect("a large file");
    let program = Program::start(Program::handover_command().args(["-l", "127.0.0.1:0"]).arg(Path::new(&root)));
    let mut client = program.client().with_small_window();
    client.get("/large.bin").read_at_least(1000);
    stop(&program);
    assert_eq!(client.answer().body.len() as u64, LARGE);
    drop(client);
    let exit = program.exit_within(PROMPTLY);
    assert_eq!(exit.code, Some(0), "{:#?}", exit.log);
}

// What push keeps

/// What was kept then is told to everybody a second time, and a value of last week is the current one.
#[test]
fn what_a_stop_has_written_is_read_once_and_not_again_behind_a_crash() {
    let scratch = Scratch::new();
    let file = scratch.path("history");
    let start = || {
        let mut command = Program::lab_command();
        Program::start(command.args(["-l", "127.0.0.1:0", "--history-file"]).arg(&file))
    };
    let kept = |program: &Program| {
        let mut client = program.client();
        client.send("GET /events/a?since=start&wait=0 HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n");
        client.answer().text().matches("\"data\":\"hello\"").count()
    };
    let first = start();
    assert_eq!(first.client().post("/events/a", "hello").answer().status, 200);
    assert_eq!(first.stop(), Some(0));
    assert!(file.exists());
    let mut second = start();
    assert_eq!(kept(&second), 1);
    eventually("the file is removed", || !file.exists());
    second.kill();
    drop(second);
    let third = start();
    assert_eq!(kept(&third), 0);
    assert_eq!(third.stop(), Some(0));
}

/// It is what the next start goes on with.
#[test]
fn what_a_stop_has_written_stays_when_the_next_start_cannot_listen() {
    let scratch = Scratch::new();
    let file = scratch.path("history");
    let start =
        |address: &str| Program::spawn(Program::lab_command().args(["-l", address, "--history-file"]).arg(&file));
    let first = Program::start(Program::lab_command().args(["-l", "127.0.0.1:0", "--history-file"]).arg(&file));
    assert_eq!(first.stop(), Some(0));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    assert_eq!(start(&address).exit().code, Some(69));
    assert!(file.exists());
}
