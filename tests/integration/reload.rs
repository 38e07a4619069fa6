//! Reloads that no client notices, in both modes, over TCP and a Unix socket.

use crate::common::{self, Answer, Load, Mode, Program, RawClient, Scratch, Size, count, counter, reloading};
use handover::Bound;
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

/// IPv6 too, where this machine has it.
fn ipv6() -> &'static [&'static str] {
    if std::net::TcpListener::bind("[::1]:0").is_ok() { &["-l", "[::1]:0"] } else { &[] }
}

fn lab(mode: Mode, scratch: &Scratch, more: &[&str]) -> Program {
    common::lab(mode, scratch, &[ipv6(), more].concat())
}

/// The generation that answers on this connection.
#[track_caller]
fn generation(client: &mut RawClient) -> usize {
    generation_in(&client.get("/pid").answer())
}

#[track_caller]
fn generation_in(answer: &Answer) -> usize {
    let text = answer.text();
    let number = text.split("\"generation\":").nth(1).and_then(|rest| rest.split('}').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no generation: {answer:?}"))
}

fn busy_clients_notice_nothing(mode: Mode) {
    let scratch = Scratch::new();
    let program = lab(mode, &scratch, &[]);
    let load = Load::new().keep_alive(&program.bound[0], 12).keep_alive(&program.bound[1], 6);
    let mut idle: Vec<RawClient> = program.bound.iter().map(RawClient::to).collect();
    let mut asked = 0;
    for number in 1..=6 {
        for client in &mut idle {
            assert_eq!(generation(client), number, "each reload adds one");
            asked += 1;
        }
        load.go_on_for(100);
        if number < 6 {
            program.reload();
        }
    }
    let tally = load.stop();
    assert_eq!(tally.failures, [""; 0]);
    assert_eq!(program.stop(), Some(0));
    let stopped = program.logged("stopped: ");
    assert_eq!(counter(&stopped, "served"), tally.answered + asked, "{stopped}");
    assert_eq!(counter(&stopped, "migrated"), 5 * (18 + program.bound.len()), "{stopped}");
    assert_eq!((counter(&stopped, "refused"), counter(&stopped, "cut")), (0, 0), "{stopped}");
}

#[test]
fn busy_clients_notice_nothing_of_overlap_reloads() {
    busy_clients_notice_nothing(Mode::Overlap);
}

#[test]
fn busy_clients_notice_nothing_of_exec_reloads() {
    busy_clients_notice_nothing(Mode::Exec);
}

fn every_id_is_answered_and_executed_once(mode: Mode) {
    let scratch = Scratch::new();
    let program = lab(mode, &scratch, &[]);
    let think = Duration::from_millis(100);
    let load = Load::new().journal(&program.bound[0], 40, think).journal(&program.bound[1], 20, think);
    for _ in 0..5 {
        load.go_on_for(50);
        program.reload();
    }
    load.go_on_for(50);
    load.stop().expect_journal(&scratch.path("journal"));
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn every_id_is_answered_and_executed_once_in_overlap() {
    every_id_is_answered_and_executed_once(Mode::Overlap);
}

#[test]
fn every_id_is_answered_and_executed_once_in_exec() {
    every_id_is_answered_and_executed_once(Mode::Exec);
}

fn nobody_who_connects_is_refused(mode: Mode) {
    let scratch = Scratch::new();
    let program = lab(mode, &scratch, &[]);
    let load = Load::new().one_shot(&program.bound[0], 4).one_shot(&program.bound[1], 4);
    for _ in 0..5 {
        load.go_on_for(100);
        program.reload();
    }
    load.go_on_for(100);
    assert_eq!(load.stop().failures, [""; 0]);
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn nobody_who_connects_is_refused_in_overlap() {
    nobody_who_connects_is_refused(Mode::Overlap);
}

#[test]
fn nobody_who_connects_is_refused_in_exec() {
    nobody_who_connects_is_refused(Mode::Exec);
}

/// Sends the first half of each, reloads, sends the rest in single bytes, and answers what came.
#[track_caller]
fn split_by_a_reload(mode: Mode, requests: &[(&str, &str)], more: &[&str]) -> Vec<Answer> {
    let scratch = Scratch::new();
    let program = lab(mode, &scratch, more);
    let mut clients = Vec::new();
    for bound in &program.bound {
        for (before, after) in requests {
            let mut client = RawClient::to(bound);
            client.try_send_in_steps(before.as_bytes(), 1).expect("an open connection");
            clients.push((client, after));
        }
        // Who comes later is accepted later: the others are in now.
        RawClient::to(bound).expect_alive("/hello");
    }
    program.reload();
    let mut answers = Vec::new();
    for (client, after) in &mut clients {
        client.try_send_in_steps(after.as_bytes(), 1).expect("an open connection");
        answers.push(client.answer());
        assert_eq!(generation(client), 2, "the connection goes on");
    }
    assert_eq!(program.stop(), Some(0));
    answers
}

#[test]
fn a_head_that_trickles_is_answered_by_the_successor() {
    for mode in Mode::BOTH {
        let requests = [
            ("", "GET /pid HTTP/1.1\r\nHost: test\r\n\r\n"),
            ("\r\n", "GET /pid HTTP/1.1\r\nHost: test\r\n\r\n"),
            ("G", "ET /pid HTTP/1.1\r\nHost: test\r\n\r\n"),
            ("GET /pid HTTP/1.1\r\nHo", "st: test\r\n\r\n"),
            ("GET /pid HTTP/1.1\r\nHost: test\r\n\r", "\n"),
        ];
        for answer in split_by_a_reload(mode, &requests, &[]) {
            assert_eq!(generation_in(&answer), 2, "{mode:?}");
        }
    }
}

#[test]
fn a_body_that_is_half_there_is_answered_by_the_successor() {
    for mode in Mode::BOTH {
        let head = "POST /journal HTTP/1.1\r\nHost: test\r\n";
        let length = format!("{head}Content-Length: 10\r\n\r\n");
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
        let pieces = [
            (length.clone(), "0123456789"),
            (format!("{length}0123"), "456789"),
            (chunked.clone(), "a\r\n0123456789\r\n0\r\n\r\n"),
            (format!("{chunked}4"), "\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n"),
            (format!("{chunked}4\r\n01"), "23\r\n6\r\n456789\r\n0\r\n\r\n"),
            (format!("{chunked}a\r\n0123456789\r"), "\n0\r\n\r\n"),
            (format!("{chunked}a\r\n0123456789\r\n0\r\n"), "\r\n"),
        ];
        let requests: Vec<(&str, &str)> = pieces.iter().map(|(before, after)| (before.as_str(), *after)).collect();
        for answer in split_by_a_reload(mode, &requests, &[]) {
            assert_eq!((answer.status, answer.text()), (200, "0123456789\n"), "{mode:?}");
        }
    }
}

#[test]
fn a_client_that_was_told_to_continue_is_not_told_twice() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &[]);
        let mut client = program.client();
        client.send("POST /journal HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(client.answer().status, 100);
        program.reload();
        client.send("id");
        assert_eq!(client.answer().text(), "id\n", "{mode:?}");
        assert_eq!(generation(&mut client), 2);
    }
}

/// Those that were read and had not had their turn once stood in the successor until their deadline.
#[test]
fn pipelined_requests_are_all_answered_in_order() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &["-w", "1"]);
        let mut client = program.client();
        let requests: String =
            (0..200).map(|n| format!("GET /sleep/{} HTTP/1.1\r\nHost: test\r\n\r\n", n % 7)).collect();
        client.send(requests);
        // In the middle of them.
        assert_eq!(client.answer().text(), "slept 0\n");
        program.reload();
        for n in 1..200 {
            assert_eq!(client.answer().text(), format!("slept {}\n", n % 7), "{mode:?}: request {n}");
        }
        assert_eq!(generation(&mut client), 2);
    }
}

/// What a handler runs is finished here; then its connection goes on in the successor.
#[test]
fn a_request_in_a_handler_is_finished_first() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &[]);
        for bound in &program.bound {
            let (before, number) = (program.current(), program.generations() + 1);
            let mut client = RawClient::to(bound);
            // Its head is out when the handler runs.
            client.get("/stream/2/400").read_at_least(100);
            let mut other = RawClient::to(bound);
            other.get("/sleep/400");
            program.signal_to(before, Signal::HUP);
            assert_eq!(client.answer().text(), "chunk 1 of 2\nchunk 2 of 2\n", "{mode:?}");
            assert_eq!(other.answer().text(), "slept 400\n", "{mode:?}");
            let after = program.generation(number);
            if mode == Mode::Overlap {
                program.wait_for_end(before);
            }
            assert_eq!((generation(&mut client), generation(&mut other)), (number, number), "{mode:?}");
            assert_eq!(before == after, mode == Mode::Exec);
        }
        assert_eq!(program.stop(), Some(0));
    }
}

/// A file in which every eight bytes tell their position.
fn large_file(scratch: &Scratch, length: u64) {
    fs::create_dir(scratch.path("root")).expect("a directory");
    let mut file = std::io::BufWriter::new(File::create(scratch.path("root/large.bin")).expect("a file"));
    for position in 0..length / 8 {
        file.write_all(&position.to_le_bytes()).expect("a file");
    }
    file.into_inner().expect("a file");
    // So that it is kept open and all who read it share one descriptor.
    scratch.settle("root/large.bin");
}

#[test]
fn a_file_that_is_half_sent_goes_on() {
    const LENGTH: u64 = 24 << 20;
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        large_file(&scratch, LENGTH);
        let mut command = Program::handover_command();
        let command = reloading(&mut command, mode, &scratch).args(ipv6());
        let program = Program::start(command.arg(scratch.path("root")));
        let mut clients: Vec<RawClient> =
            program.bound.iter().map(|bound| RawClient::to(bound).with_small_window()).collect();
        for client in &mut clients {
            client.get("/large.bin").read_at_least(100_000);
        }
        // Also a reload that finds it as it was taken over.
        program.reload();
        program.reload();
        // The name may be gone; the file is open.
        fs::remove_file(scratch.path("root/large.bin")).expect("the file");
        for client in &mut clients {
            let answer = client.answer();
            assert_eq!(answer.body.len() as u64, LENGTH, "{mode:?}");
            let wrong = answer.body.chunks(8).zip(0_u64..).position(|(got, wanted)| got != wanted.to_le_bytes());
            assert_eq!(wrong, None, "{mode:?}");
            assert_eq!(client.get("/large.bin").answer().status, 404, "the connection goes on");
        }
        assert_eq!(program.stop(), Some(0));
        let stopped = program.logged("stopped: ");
        let expected = (2 * clients.len(), 2 * clients.len());
        assert_eq!((counter(&stopped, "served"), counter(&stopped, "migrated")), expected, "{stopped}");
    }
}

/// An idle connection that is moved again and again ends when it would have ended without.
#[test]
fn an_idle_deadline_is_carried_over() {
    const IDLE: Duration = Duration::from_millis(1500);
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &["--idle-timeout", "1.5"]);
        let watched: Vec<_> = program
            .bound
            .iter()
            .map(|bound| {
                let mut client = RawClient::to(bound);
                client.expect_alive("/hello");
                let began = Instant::now();
                thread::spawn(move || {
                    client.expect_fin();
                    began.elapsed()
                })
            })
            .collect();
        let mut slowest = Duration::ZERO;
        while !watched.iter().all(thread::JoinHandle::is_finished) {
            let began = Instant::now();
            program.reload();
            slowest = slowest.max(began.elapsed());
        }
        for client in watched {
            let lasted = client.join().expect("FIN");
            assert!(lasted > IDLE - Duration::from_millis(100), "{mode:?}: {lasted:?}");
            // A reload may be under way, and takes what it takes on this machine.
            assert!(lasted < IDLE * 2 + slowest, "{mode:?}: {lasted:?}, a reload took {slowest:?}");
        }
        assert!(program.generations() > 3, "it was moved {} times", program.generations() - 1);
    }
}

/// A head's deadline counts from its first byte, wherever that came.
#[test]
fn a_head_deadline_is_carried_over() {
    const DEADLINE: Duration = Duration::from_millis(1500);
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &["--head-timeout", "1.5"]);
        let mut client = program.client();
        client.send("GET /hello HT");
        let began = Instant::now();
        let waiting = thread::spawn(move || client.answer().status);
        // The reload that ends behind the deadline is the last: it counts reloads, which take what they take.
        let mut after = 0;
        while !waiting.is_finished() {
            after += usize::from(began.elapsed() > DEADLINE);
            program.reload();
        }
        assert_eq!(waiting.join().expect("an answer"), 408, "{mode:?}");
        assert!(after <= 5, "{mode:?}: {after} reloads began behind the deadline");
        assert!(program.generations() > 3);
    }
}

#[test]
fn a_client_that_has_gone_meanwhile_is_forgotten() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &[]);
        for bound in &program.bound {
            let mut clients: Vec<RawClient> = (0..8).map(|_| RawClient::to(bound)).collect();
            clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
            let number = program.generations() + 1;
            let old = program.current();
            program.signal_to(old, Signal::HUP);
            for (index, client) in clients.drain(..).enumerate() {
                if index % 2 == 0 { client.vanish() } else { drop(client) }
            }
            if program.generation(number) != old {
                program.wait_for_end(old);
            }
            RawClient::to(bound).expect_alive("/hello");
        }
        assert_eq!(program.stop(), Some(0), "{mode:?}");
    }
}

/// Ten times what it takes, here or on a machine that is busy: the figures are for the eye.
#[test]
fn a_reload_holds_nobody_up() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &[]);
        let without = Load::new().keep_alive(&program.bound[0], 4);
        without.go_on_for(500);
        let without = without.stop().slowest;
        let load = Load::new().keep_alive(&program.bound[0], 4);
        for _ in 0..5 {
            load.go_on_for(20);
            let began = Instant::now();
            program.reload();
            eprintln!("{mode:?}: a reload took {:?}, a probation of 100 ms included", began.elapsed());
        }
        let tally = load.stop();
        eprintln!("{mode:?}: the slowest of {} answers took {:?}", tally.answered, tally.slowest);
        assert_eq!(tally.failures, [""; 0]);
        let most = Duration::from_millis(500).max(without * 10);
        assert!(tally.slowest < most, "{:?}, and {without:?} without a reload", tally.slowest);
        for line in program.log().iter().filter(|line| line.contains(" ms after the signal")) {
            eprintln!("{mode:?}: {line}");
        }
    }
}

/// A configuration that listens there.
fn listen(scratch: &Scratch, addresses: &[&str]) {
    fs::write(scratch.path("lab.toml"), format!("listen = {addresses:?}\n")).expect("a file");
}

/// Connects for each request until that is refused. Whoever connects is served.
fn ask_until_refused(bound: Bound) -> thread::JoinHandle<usize> {
    thread::spawn(move || {
        for asked in 0.. {
            let Ok(mut client) = RawClient::try_to(&bound) else { return asked };
            client.send("GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
            let answer = client.try_answer(false);
            assert!(answer.as_ref().is_ok_and(|answer| answer.status == 200), "{bound}: request {asked}: {answer:?}");
        }
        unreachable!()
    })
}

#[test]
fn listeners_come_and_go_with_the_configuration() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let unix = |name: &str| format!("unix:{}", scratch.path(name).display());
        let (first, second) = (unix("first"), unix("second"));
        listen(&scratch, &["127.0.0.1:0", "127.0.0.2:0", &first]);
        let mut command = Program::lab_command();
        let program = Program::start(mode.flags(&mut command).arg("-c").arg(scratch.path("lab.toml")));
        let mut clients: Vec<RawClient> = program.bound.iter().map(RawClient::to).collect();
        clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
        let going = [1, 1, 2, 2].map(|index| ask_until_refused(program.bound[index].clone()));
        let staying = Load::new().one_shot(&program.bound[0], 2);
        staying.go_on_for(50);

        listen(&scratch, &["127.0.0.1:0", &second, "127.0.0.3:0"]);
        program.reload();
        for client in going {
            assert!(client.join().expect("nobody was reset") > 0, "{mode:?}");
        }
        staying.go_on_for(50);
        assert_eq!(staying.stop().failures, [""; 0], "{mode:?}");
        let listening = program.listening();
        assert_eq!(listening[0], program.bound[0], "it was kept");
        assert_eq!(listening[1], Bound::Unix(scratch.path("second")));
        listening.iter().for_each(|bound| RawClient::to(bound).expect_alive("/hello"));
        assert!(!scratch.path("first").exists(), "{mode:?}");
        // Where it came in does not matter to a connection.
        clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
        assert_eq!(program.stop(), Some(0));
        assert!(!scratch.path("second").exists(), "{mode:?}");
    }
}

/// The reload fails, and what was inherited is not torn down with the successor, or with what was executed in vain.
#[test]
fn a_listener_that_cannot_be_bound_harms_no_other() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let socket = format!("unix:{}", scratch.path("socket").display());
        let nowhere = format!("unix:{}", scratch.path("no/such/directory").display());
        listen(&scratch, &["127.0.0.1:0", &socket]);
        let mut command = Program::lab_command();
        let program = Program::start(mode.flags(&mut command).arg("-c").arg(scratch.path("lab.toml")));
        let mut clients: Vec<RawClient> = program.bound.iter().map(RawClient::to).collect();
        clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
        listen(&scratch, &["127.0.0.1:0", &socket, &nowhere]);
        program.signal(Signal::HUP);
        match mode {
            Mode::Overlap => program.logged_times("the successor ended before it was ready: exit code 69", 1),
            Mode::Exec => program.logged_times("its directory does not exist", 1),
        };
        program.logged_times("reload failed, serving on", 1);
        assert_eq!(program.generations(), 1, "{mode:?}");
        clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
        program.bound.iter().for_each(|bound| RawClient::to(bound).expect_alive("/hello"));
        listen(&scratch, &["127.0.0.1:0", &socket]);
        program.reload();
        clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
        assert_eq!(program.stop(), Some(0));
    }
}

/// All of them within about a second, whatever the state of each.
#[test]
fn many_idle_connections_move() {
    let connections = count("HANDOVER_IDLE", 600);
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let limit = (connections + 100).to_string();
        let program = lab(mode, &scratch, &["--max-connections", &limit]);
        let mut clients: Vec<RawClient> =
            (0..connections).map(|number| RawClient::to(&program.bound[number % program.bound.len()])).collect();
        clients.iter_mut().step_by(3).for_each(|client| client.expect_alive("/hello"));
        program.client().expect_alive("/hello");
        let began = Instant::now();
        let pid = program.reload();
        let peak = fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc");
        let peak = peak.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
        eprintln!(
            "{mode:?}: {connections} connections in {:?}, a probation of 100 ms included; {peak}",
            began.elapsed()
        );
        clients.iter_mut().for_each(|client| assert_eq!(generation(client), 2));
        assert_eq!(program.stop(), Some(0));
        let stopped = program.logged("stopped: ");
        assert!(counter(&stopped, "migrated") >= connections, "{stopped}");
    }
}

fn nothing_grows(mode: Mode) {
    let scratch = Scratch::new();
    let program = lab(mode, &scratch, &[]);
    let think = Duration::from_millis(20);
    let load = Load::new().journal(&program.bound[0], 3, think).journal(&program.bound[1], 3, think);
    let reloads = count("HANDOVER_SOAK", 20);
    program.reload();
    program.reload();
    load.go_on_for(20);
    let before = Size::at_rest(program.current());
    for _ in 0..reloads {
        program.reload();
    }
    load.go_on_for(20);
    let after = Size::at_rest(program.current());
    eprintln!("{mode:?}, {reloads} reloads: {before:?} → {after:?}");
    assert_eq!(program.generations(), reloads + 3);
    assert_eq!((after.descriptors, after.threads), (before.descriptors, before.threads));
    assert_eq!(after.children, 0);
    // It names a pid, which may have more digits by now; anything that grows has grown by hundreds.
    assert!(after.environment.abs_diff(before.environment) < 8, "{before:?} → {after:?}");
    assert!(after.resident < before.resident * 5 / 4 + 512, "{before:?} → {after:?}");
    load.stop().expect_journal(&scratch.path("journal"));
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn nothing_grows_over_many_overlap_reloads() {
    nothing_grows(Mode::Overlap);
}

#[test]
fn nothing_grows_over_many_exec_reloads() {
    nothing_grows(Mode::Exec);
}
