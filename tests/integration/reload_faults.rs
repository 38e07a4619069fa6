//! What can go wrong in a reload, and that the server serves on all the same.

use crate::common::{
    Ending, Load, Mode, OnDisk, PATIENCE, Program, RawClient, Scratch, children, counter, descriptors_with_room_for,
    eventually, lab, limit_open_files, reloading, replaceable_lab,
};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// For the lab as tests build it, which is mapped with all its symbols.
const MEMORY: &str = "18M";

/// A connection to each listener that has had an answer.
fn connected(program: &Program) -> Vec<RawClient> {
    let mut clients: Vec<RawClient> = program.bound.iter().map(RawClient::to).collect();
    clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
    clients
}

/// Everybody who connects is served, and the connection is kept.
#[track_caller]
fn expect_service(program: &Program) {
    for bound in &program.bound {
        let mut client = RawClient::to(bound);
        for _ in 0..2 {
            let answer = client.get("/hello").answer();
            assert!(answer.status == 200 && !answer.closes(), "{answer:?}: {:#?}", program.log());
        }
    }
}

/// A reload fails for that reason, and nobody notices.
#[track_caller]
fn expect_failure(program: &Program, clients: &mut [RawClient], reason: &str) {
    let failures = program.log().iter().filter(|line| line.contains("reload failed")).count();
    let (pid, generations) = (program.current(), program.generations());
    program.signal_to(pid, Signal::HUP);
    let line = program.logged_times("reload failed, serving on", failures + 1);
    assert!(line.contains(reason), "{reason:?} is not in {line:?}");
    assert_eq!((program.current(), program.generations()), (pid, generations));
    clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
    expect_service(program);
    assert_eq!(children(pid), 0, "it was reaped");
    // What a script had started ends when it writes to nobody.
    eventually("nothing is left of it", || program.processes() == [pid]);
}

/// A program on disk that cannot be run, or does not check itself, is no successor.
#[test]
fn a_program_that_fails_its_check_is_not_run() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let on_disk = OnDisk::of(&Program::lab_command());
        let mut command = on_disk.command();
        let program = Program::start(reloading(&mut command, mode, &scratch).env("HANDOVER_TEST_CHECK_TIMEOUT", "1"));
        let mut clients = connected(&program);
        let clients = &mut clients[..];

        on_disk.remove();
        expect_failure(&program, clients, "No such file");
        on_disk.replace("exit 0");
        fs::set_permissions(on_disk.path(), fs::Permissions::from_mode(0o644)).expect("chmod");
        expect_failure(&program, clients, "ermission denied");
        on_disk.replace("exit 0");
        let writing = OpenOptions::new().append(true).open(on_disk.path()).expect("the script");
        expect_failure(&program, clients, "ext file busy");
        drop(writing);
        on_disk.replace("exit 0");
        expect_failure(&program, clients, "does not check itself");
        on_disk.replace("echo first; echo 'it is broken' >&2; exit 7");
        expect_failure(&program, clients, "exit code 7: it is broken");
        on_disk.replace("kill -SEGV $$");
        expect_failure(&program, clients, "signal 11");
        on_disk.replace("exec sleep 1000");
        expect_failure(&program, clients, "the check did not end within 1s");
        on_disk.replace("head -c 100000 /dev/zero; exec sleep 1000");
        expect_failure(&program, clients, "the check did not end within 1s");
        if mode == Mode::Overlap {
            on_disk.replace_behind_the_check("kill -SEGV $$");
            expect_failure(&program, clients, "the successor ended before it was ready: signal 11");
            on_disk.replace_behind_the_check("exit 0");
            expect_failure(&program, clients, "the successor ended before it was ready: exit code 0");
            on_disk.replace_behind_the_check("exec sleep 1000");
            expect_failure(&program, clients, "the successor was not ready within 1s");
        }
        on_disk.restore();
        program.reload();
        clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
        assert_eq!(program.stop(), Some(0));
    }
}

#[test]
fn a_configuration_that_is_broken_changes_nothing() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path("root")).expect("a directory");
        fs::write(scratch.path("root/hello"), "hello").expect("a file");
        let mut command = Program::handover_command();
        let program = Program::start(reloading(&mut command, mode, &scratch).arg(scratch.path("root")));
        let mut clients = connected(&program);
        fs::rename(scratch.path("root"), scratch.path("away")).expect("rename");
        expect_failure(&program, &mut clients, "the check failed with exit code 2");
        fs::rename(scratch.path("away"), scratch.path("root")).expect("rename");
        program.reload();
        clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
    }
}

/// A successor that ends on probation gives everything back: its predecessor accepts again.
#[test]
fn a_successor_that_dies_on_probation_gives_everything_back() {
    let scratch = Scratch::new();
    let program = lab(Mode::Overlap, &scratch, &["--reload-probation", "20"]);
    let mut clients = connected(&program);
    let old = program.current();
    program.signal(Signal::HUP);
    let new = program.generation(2);
    program.logged_times("accepts, ", 1);
    program.signal_to(new, Signal::KILL);
    program.logged_times("the successor ended on probation: signal 9", 1);
    clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
    expect_service(&program);
    assert_eq!(children(old), 0);
    assert!(program.client().get("/pid").answer().text().contains("\"generation\":1"));
    program.signal(Signal::TERM);
    assert_eq!(program.exit().code, Some(0));
    assert!(!scratch.path("socket").exists());
}

/// Who serves on after its predecessor died is the server.
#[test]
fn a_predecessor_that_dies_on_probation_leaves_the_server_to_its_successor() {
    let scratch = Scratch::new();
    let program = lab(Mode::Overlap, &scratch, &["--reload-probation", "20"]);
    let old = program.current();
    program.signal(Signal::HUP);
    let new = program.generation(2);
    program.logged_times("accepts, ", 1);
    program.signal_to(old, Signal::KILL);
    program.logged_times("the predecessor is gone before it handed over", 1);
    expect_service(&program);
    assert_eq!(program.processes(), [new]);
    // It reloads, and stops, as any other.
    program.signal_to(new, Signal::HUP);
    let third = program.generation(3);
    program.signal_to(new, Signal::TERM);
    assert_eq!(program.wait_for_end(new), Some(0));
    program.wait_for_end(third);
    assert!(!scratch.path("socket").exists());
}

#[test]
fn a_successor_that_hangs_on_probation_is_replaced_by_its_predecessor() {
    let scratch = Scratch::new();
    let program = lab(Mode::Overlap, &scratch, &["--reload-probation", "0.5", "--stop-deadline", "1"]);
    let mut clients = connected(&program);
    program.signal(Signal::HUP);
    let new = program.generation(2);
    program.signal_to(new, Signal::STOP);
    program.logged_times("reload failed, serving on", 1);
    clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
    expect_service(&program);
    assert_eq!(program.processes(), [program.pid()]);
}

/// State versions that the successor does not read: its predecessor's connections end with their next response.
#[test]
fn a_successor_that_reads_other_states_gets_no_connections() {
    let other_versions = "if [ -n \"$HANDOVER_CHECK\" ]; then echo 'handover reads state versions 98,99'; exit 0; fi\n\
                          exec \"$REAL\" \"$@\"";
    let scratch = Scratch::new();
    let (program, on_disk) = replaceable_lab(Mode::Exec, &scratch, &[]);
    on_disk.replace(other_versions);
    expect_failure(&program, &mut connected(&program), "reads state versions [98, 99], none of 1 to 5");
    drop(program);

    let scratch = Scratch::new();
    let (program, on_disk) = replaceable_lab(Mode::Overlap, &scratch, &[]);
    let mut clients = connected(&program);
    let mut busy = program.client();
    busy.get("/sleep/700");
    on_disk.replace(other_versions);
    program.reload();
    for client in &mut clients {
        client.expect_fin();
    }
    let answer = busy.answer();
    assert!(answer.status == 200 && answer.closes(), "{answer:?}");
    busy.expect_fin();
    expect_service(&program);
    assert_eq!(program.stop(), Some(0));
}

/// A head that is half here, a response that is half sent, and one connection to each listener: they go on.
#[track_caller]
fn expect_all_to_move(program: &Program, number: usize) {
    let mut idle = connected(program);
    let mut half = program.client();
    half.send("POST /journal HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nha");
    let mut reading = program.client().with_small_window();
    reading.get("/bytes/4000000").read_at_least(100_000);
    let old = program.current();
    program.signal(Signal::HUP);
    let new = program.generation(number);
    if new != old {
        program.logged_times("is promoted", 1);
    }
    idle.iter_mut().for_each(|client| client.expect_alive("/hello"));
    assert_eq!(half.send("lf").answer().text(), "half\n");
    assert_eq!(reading.answer().body.len(), 4_000_000);
    if new != old {
        program.wait_for_end(old);
    }
    assert_eq!(program.stop(), Some(0), "{:#?}", program.log());
}

/// Of the versions of states and words the newest is spoken that both sides know: also an older program keeps the
/// connections, and so does a newer one.
#[test]
fn a_downgrade_and_an_upgrade_keep_their_connections() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let (program, on_disk) = replaceable_lab(mode, &scratch, &[]);
        on_disk.replace("export HANDOVER_TEST_NEWEST=1; exec \"$REAL\" \"$@\"");
        expect_all_to_move(&program, 2);

        let scratch = Scratch::new();
        let on_disk = OnDisk::of(&Program::lab_command());
        let mut command = on_disk.command();
        let program = Program::start(reloading(&mut command, mode, &scratch).env("HANDOVER_TEST_NEWEST", "1"));
        on_disk.replace("unset HANDOVER_TEST_NEWEST; exec \"$REAL\" \"$@\"");
        expect_all_to_move(&program, 2);
    }
}

/// Each download had a descriptor of the file made for it, when the process executed itself and in a successor beside it.
#[test]
fn many_downloads_of_one_file_need_one_descriptor_in_the_successor_too() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path("root")).expect("a directory");
        let large = File::create(scratch.path("root/large")).expect("a file");
        large.set_len(8 << 20).expect("its length");
        // What has changed just now is not kept open for others.
        scratch.settle("root/large");
        let mut command = Program::handover_command();
        let program = Program::start(reloading(&mut command, mode, &scratch).arg(scratch.path("root")));
        let mut reading: Vec<RawClient> = (0..20).map(|_| program.client().with_small_window()).collect();
        for client in &mut reading {
            client.get("/large").read_at_least(100_000);
        }
        let descriptors = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).expect("/proc").count();
        let before = descriptors(program.pid());
        assert!(before < 20 + 30, "{before}: the file is open once");
        if mode == Mode::Exec {
            // The check takes eight, before anything is handed over.
            limit_open_files(program.pid(), descriptors_with_room_for(program.pid(), 10));
        }
        let new = program.reload();
        assert!(descriptors(new) <= before + 5, "{mode:?}: {} instead of {before}", descriptors(new));
        for client in &mut reading {
            assert_eq!(client.answer().body.len(), 8 << 20);
        }
        assert_eq!(program.stop(), Some(0));
    }
}

/// A body that is half here, from so many clients as there is memory for. How many that are depends a little on the
/// pieces in which their bodies come: buffers grow by doubling.
fn fill_memory(program: &Program) -> Vec<RawClient> {
    let mut clients = Vec::new();
    loop {
        let mut client = program.client();
        client.send("POST /journal HTTP/1.1\r\nHost: test\r\nContent-Length: 60000\r\n\r\n");
        client.send([b'a'; 50_000]);
        // Of those that are told to come again the answer comes; of the others it comes with the rest of the body.
        let mut probe = program.client();
        probe.expect_alive("/hello");
        if client.has_answer() {
            assert_eq!(client.answer().status, 503);
            return clients;
        }
        clients.push(client);
        assert!(clients.len() < 1000, "there is no end of memory");
    }
}

/// What moved took nothing of the memory until its client was heard again, so each generation gave it all away anew.
#[test]
fn memory_that_moved_is_not_given_away_again() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &["--memory", MEMORY, "--workers", "1", "--max-connections", "200"]);
        let mut clients = fill_memory(&program);
        let first = clients.len();
        assert!(first > 2, "{:#?}", program.log());
        // A buffer that has grown as it came is copied to what is in it, so there is room for some more.
        for _ in 0..3 {
            program.reload();
            clients.extend(fill_memory(&program));
            assert!(
                clients.len() <= first + first.div_ceil(2),
                "{} instead of {first}: {:#?}",
                clients.len(),
                program.log()
            );
        }
        // What ends gives its part back.
        for client in &mut clients {
            assert_eq!(client.send([b'a'; 10_000]).answer().status, 200, "{:#?}", program.log());
        }
        eventually("all is there again", || fill_memory(&program).len() >= first * 3 / 4);
        assert_eq!(program.stop(), Some(0));
    }
}

/// A generation on probation beside one that has these connections, and time enough.
fn on_probation(
    scratch: &Scratch,
    more: &[&str],
    connect: impl Fn(&Program) -> Vec<RawClient>,
) -> (Program, Vec<RawClient>) {
    let program = lab(Mode::Overlap, scratch, &[&["--reload-probation", "60"], more].concat());
    let clients = connect(&program);
    program.signal(Signal::HUP);
    program.generation(2);
    program.logged_times("accepts, ", 1);
    (program, clients)
}

/// Each generation had all the places for itself, so together they had twice as many connections as the limit says.
#[test]
fn the_limit_of_connections_is_one_for_both_generations() {
    let scratch = Scratch::new();
    let (program, mut clients) = on_probation(&scratch, &["--max-connections", "4"], |program| {
        let mut clients: Vec<RawClient> = (0..4).map(|_| program.client()).collect();
        clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
        clients
    });
    for number in 0..2 {
        // There is a place for it when the predecessor has closed its longest idle one.
        let mut new = program.client();
        new.expect_alive("/hello");
        clients[number].expect_fin();
        clients.push(new);
    }
    clients.drain(..2);
    clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
    program.signal(Signal::TERM);
    assert_eq!(program.exit().code, Some(0));
}

/// The same for each address; in exec mode it always was.
#[test]
fn the_limit_for_each_address_is_one_for_both_generations() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let flags = ["--max-connections-per-ip", "2"];
        let connect = |path: &str, program: &Program| -> Vec<RawClient> {
            let mut clients = vec![program.client(), program.client()];
            clients.iter_mut().for_each(|client| _ = client.get(path).read_at_least(100));
            clients
        };
        let (program, mut clients) = match mode {
            Mode::Overlap => {
                let stream = |program: &Program| connect("/stream/2/1500", program);
                let (program, mut clients) = on_probation(&scratch, &flags, stream);
                let answer = program.client().get("/hello").answer();
                assert_eq!(answer.status, 503, "{answer:?}: {:#?}", program.log());
                clients.iter_mut().for_each(|client| assert_eq!(client.answer().status, 200));
                (program, clients)
            }
            Mode::Exec => {
                let program = lab(mode, &scratch, &flags);
                let mut clients = connect("/hello", &program);
                clients.iter_mut().for_each(|client| assert_eq!(client.answer().status, 200));
                program.reload();
                (program, clients)
            }
        };
        // Until the first has been idle for a while, whose place it gets then. The server's clock is coarse, so the other
        // is idle since a later tick of it, and never for that long, however slow this is.
        assert_eq!(clients[1].get("/sleep/50").answer().status, 200);
        let mut new = program.client();
        eventually("a place", || {
            clients[1].expect_alive("/hello");
            new = program.client();
            new.get("/hello").answer().status == 200
        });
        clients[0].expect_fin();
        clients[1].expect_alive("/hello");
        new.expect_alive("/hello");
        program.signal(Signal::TERM);
        assert_eq!(program.exit().code, Some(0));
    }
}

/// What the predecessor holds is not there for its successor.
#[test]
fn memory_is_one_for_both_generations() {
    let scratch = Scratch::new();
    let flags = ["--memory", MEMORY, "--workers", "1", "--max-connections", "200"];
    let (program, mut clients) = on_probation(&scratch, &flags, fill_memory);
    let found = fill_memory(&program).len();
    assert!(found <= clients.len() / 4, "all of it is the predecessor's, of {} {found} are not", clients.len());
    for client in &mut clients {
        assert_eq!(client.send([b'a'; 10_000]).answer().status, 200, "{:#?}", program.log());
    }
    eventually("it is there again", || fill_memory(&program).len() >= clients.len() * 3 / 4);
    program.signal(Signal::TERM);
    assert_eq!(program.exit().code, Some(0));
}

/// A connection either goes on or ends; what it asked was executed once if it was answered, and never twice.
#[track_caller]
fn expect_once(program: &Program, scratch: &Scratch, clients: Vec<RawClient>) -> usize {
    let mut lost = 0;
    let mut answered = Vec::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let id = format!("after-{number}");
        let request = format!("POST /journal HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{id}", id.len());
        match client.try_send(request).map_err(|_| (Ending::Reset, Vec::new())).and_then(|()| client.try_answer(false))
        {
            Ok(answer) => {
                assert_eq!(answer.text(), format!("{id}\n"));
                answered.push(id);
            }
            Err((Ending::Silence, _)) => panic!("connection {number} is frozen: {:#?}", program.log()),
            Err(_) => lost += 1,
        }
    }
    let journal = fs::read_to_string(scratch.path("journal")).unwrap_or_default();
    let mut executed: Vec<&str> = journal.lines().collect();
    executed.sort_unstable();
    answered.sort_unstable();
    assert_eq!(executed, answered, "{:#?}", program.log());
    lost
}

/// How many connections a process that has ended had given away, as its last line says.
fn migrated(program: &Program, ended: usize) -> usize {
    let line = program.logged_times(" migrated=", ended);
    counter(&line, "migrated")
}

const SUCCESSOR_STEPS: [&str; 3] = ["successor-connection", "successor-acked", "successor-commit"];
const PREDECESSOR_STEPS: [&str; 3] = ["predecessor-sent", "predecessor-acked", "predecessor-commit"];

fn reload_with_fault(variable: &str, step: &str) -> (Program, Scratch, Vec<RawClient>) {
    let scratch = Scratch::new();
    let mut command = Program::lab_command();
    let command = reloading(&mut command, Mode::Overlap, &scratch).env(variable, step);
    let command = command.env("HANDOVER_TEST_ACK_TIMEOUT", "1").env("HANDOVER_TEST_PROMOTION_TIMEOUT", "1");
    let program = Program::start(command);
    let mut clients: Vec<RawClient> = (0..4).flat_map(|_| connected(&program)).collect();
    // One that is in a handler when the others move, so that the predecessor does not end before it is noticed.
    let mut late = program.client();
    late.get("/stream/2/600").read_at_least(100);
    clients.push(late);
    program.signal(Signal::HUP);
    (program, scratch, clients)
}

#[test]
fn a_predecessor_killed_at_any_step_leaves_each_connection_to_one() {
    for step in PREDECESSOR_STEPS {
        let (program, scratch, mut clients) = reload_with_fault("HANDOVER_TEST_KILL", step);
        clients.pop();
        let new = program.generation(2);
        program.wait_for_end(program.pid());
        expect_service(&program);
        let lost = expect_once(&program, &scratch, clients);
        // What was sent is the successor's: all eight go in one packet.
        assert_eq!(lost, 0, "{step}: {:#?}", program.log());
        assert_eq!(program.processes(), [new]);
        assert_eq!(program.stop(), Some(0), "{step}");
    }
}

#[test]
fn a_successor_killed_at_any_step_gives_back_what_was_not_committed() {
    for step in SUCCESSOR_STEPS {
        let (program, scratch, mut clients) = reload_with_fault("HANDOVER_TEST_KILL", step);
        let mut late = clients.pop().expect("one");
        program.logged_times("reload failed, serving on", 1);
        expect_service(&program);
        assert_eq!(late.answer().text(), "chunk 1 of 2\nchunk 2 of 2\n", "{step}");
        late.expect_alive("/hello");
        drop(late);
        expect_what_was_committed_lost(program, &scratch, step, clients);
    }
}

/// The old process serves on, and what was committed to a successor that was killed is lost, and nothing else.
#[track_caller]
fn expect_what_was_committed_lost(program: Program, scratch: &Scratch, step: &str, clients: Vec<RawClient>) {
    let lost = expect_once(&program, scratch, clients);
    assert_eq!(program.processes(), [program.pid()]);
    program.signal(Signal::TERM);
    assert_eq!(lost, migrated(&program, 1), "{step}: {:#?}", program.log());
    // Of the eight, which go in one packet: nothing was acknowledged, or all were and may be committed.
    let expected = match step {
        "successor-connection" => 0..=0,
        "successor-acked" => 0..=8,
        _ => 1..=8,
    };
    assert!(expected.contains(&lost), "{step}: {lost} lost, and not {expected:?}");
    assert_eq!(program.exit().code, Some(0), "{step}");
}

fn a_successor_that_stalls_is_killed(step: &str) {
    let (program, scratch, mut clients) = reload_with_fault("HANDOVER_TEST_STOP", step);
    let mut late = clients.pop().expect("one");
    assert_eq!(late.answer().text(), "chunk 1 of 2\nchunk 2 of 2\n", "{step}");
    program.logged_times("reload failed, serving on", 1);
    expect_service(&program);
    late.expect_alive("/hello");
    drop(late);
    expect_what_was_committed_lost(program, &scratch, step, clients);
}

/// A thread became free while the upload that waited for it was on its way to the successor. When it came back it had
/// lost its place in the line, and its client, who waited for a word, waited in vain.
#[test]
fn an_upload_that_comes_back_from_a_move_waits_for_its_thread_again() {
    let scratch = Scratch::new();
    let mut command = Program::lab_command();
    let command = reloading(&mut command, Mode::Overlap, &scratch).args(["-w", "1"]);
    let command = command.env("HANDOVER_TEST_STOP", "successor-connection").env("HANDOVER_TEST_ACK_TIMEOUT", "2");
    let program = Program::start(command);
    let mut busy = program.client();
    busy.get("/stream/2/1200").read_at_least(100);
    let mut upload = program.client();
    upload.send("POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 70000\r\n\r\n");
    program.signal(Signal::HUP);
    let successor = program.generation(2);
    eventually("the successor has a connection", || is_stopped(successor));
    assert_eq!(busy.answer().text(), "chunk 1 of 2\nchunk 2 of 2\n", "before the move is given up");
    program.logged("reload failed, serving on");
    upload.read_at_least(b"HTTP/1.1 100 Continue\r\n\r\n".len());
    let body = "x".repeat(70_000);
    assert_eq!(upload.send(&body).answer().status, 100);
    assert_eq!(upload.answer().text(), body);
    program.signal(Signal::TERM);
    assert_eq!(program.exit().code, Some(0));
}

/// Whether it is stopped.
fn is_stopped(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| status.contains("State:\tT"))
}

/// The whole host stands still for longer than either side waits for the other, beginning when one of them is at
/// `step`; then one goes on a little earlier than the other, by the order of these generations. With one of them it
/// stands still alone.
fn a_host_that_stands_still(step: &str, order: &[usize]) {
    let (program, scratch, mut clients) = reload_with_fault("HANDOVER_TEST_STOP", step);
    let both = [program.pid(), program.generation(2)];
    let order: Vec<u32> = order.iter().map(|number| both[number - 1]).collect();
    eventually("one is stopped", || both.iter().any(|&pid| is_stopped(pid)));
    order.iter().for_each(|&pid| program.signal_to(pid, Signal::STOP));
    eventually("all are stopped", || order.iter().all(|&pid| is_stopped(pid)));
    // Nothing happens until then, so nothing can be waited for.
    thread::sleep(Duration::from_millis(1500));
    for pid in order {
        program.signal_to(pid, Signal::CONT);
        thread::sleep(Duration::from_millis(100));
    }
    let mut late = clients.pop().expect("one");
    assert_eq!(late.answer().text(), "chunk 1 of 2\nchunk 2 of 2\n", "{step}: {:#?}", program.log());
    program.wait_for_end(program.pid());
    late.expect_alive("/hello");
    drop(late);
    expect_service(&program);
    assert_eq!(expect_once(&program, &scratch, clients), 0, "{step}: {:#?}", program.log());
    assert_eq!(migrated(&program, 1), 9);
    assert_eq!(program.processes(), [both[1]]);
    assert_eq!(program.stop(), Some(0), "{step}");
}

/// All at once, since they mostly wait.
fn at_each_of(steps: impl Iterator<Item = &'static str>, test: impl Fn(&str) + Sync) {
    thread::scope(|scope| {
        for step in steps {
            let test = &test;
            scope.spawn(move || test(step));
        }
    });
}

/// Who woke first once took the other's silence for its end, and killed it with all it had been given.
#[test]
fn a_host_that_stands_still_at_any_step_of_the_predecessor_loses_nothing() {
    at_each_of(PREDECESSOR_STEPS.into_iter().chain(["predecessor-promote"]), |step| {
        a_host_that_stands_still(step, &[1, 2]);
        a_host_that_stands_still(step, &[2, 1]);
    });
}

#[test]
fn a_predecessor_that_stands_still_at_any_step_loses_nothing() {
    at_each_of(PREDECESSOR_STEPS.into_iter().chain(["predecessor-promote"]), |step| {
        a_host_that_stands_still(step, &[1]);
    });
}

#[test]
fn a_host_that_stands_still_at_any_step_of_the_successor_loses_nothing() {
    at_each_of(SUCCESSOR_STEPS.into_iter().chain(["successor-promote"]), |step| {
        a_host_that_stands_still(step, &[1, 2]);
        a_host_that_stands_still(step, &[2, 1]);
    });
}

/// Who sent it had read the pid file a moment ago. It was lost with the process that it reached.
#[test]
fn a_hup_to_a_predecessor_in_its_last_moment_is_not_lost() {
    let scratch = Scratch::new();
    let mut command = Program::lab_command();
    command.env("HANDOVER_TEST_STOP", "predecessor-leaves");
    let program = Program::start(reloading(&mut command, Mode::Overlap, &scratch));
    program.signal(Signal::HUP);
    eventually("it is stopped", || is_stopped(program.pid()));
    program.signal(Signal::HUP);
    program.signal_to(program.pid(), Signal::CONT);
    // The next one stops there too, since it has the same environment.
    let second = program.generation(2);
    program.generation(3);
    eventually("it is stopped", || is_stopped(second));
    program.signal_to(second, Signal::CONT);
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn a_successor_that_stalls_at_a_connection_is_killed() {
    a_successor_that_stalls_is_killed("successor-connection");
}

#[test]
fn a_successor_that_stalls_after_an_ack_is_killed() {
    a_successor_that_stalls_is_killed("successor-acked");
}

#[test]
fn a_successor_that_stalls_at_a_commit_is_killed() {
    a_successor_that_stalls_is_killed("successor-commit");
}

/// Descriptors are short from the first one that a reload needs to the last: it fails cleanly, or it works.
#[test]
fn a_reload_short_of_descriptors_fails_cleanly_or_works() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &[]);
        let mut clients = connected(&program);
        let mut failures = 0;
        for room in 0.. {
            limit_open_files(program.pid(), descriptors_with_room_for(program.pid(), room));
            let generations = program.generations();
            program.signal(Signal::HUP);
            let until = Instant::now() + PATIENCE;
            let failed = loop {
                if program.generations() > generations {
                    break false;
                }
                if program.log().iter().filter(|line| line.contains("reload failed")).count() > failures {
                    break true;
                }
                assert!(Instant::now() < until, "{mode:?}, room {room}: {:#?}", program.log());
                thread::sleep(Duration::from_millis(1));
            };
            limit_open_files(program.pid(), 1024);
            clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
            expect_service(&program);
            if !failed {
                break;
            }
            failures += 1;
        }
        eprintln!("{mode:?}: {failures} failures until there were enough descriptors");
    }
}

/// A successor that cannot take all the descriptors leaves the rest to its predecessor, which ends them politely.
#[test]
fn a_successor_short_of_descriptors_refuses_connections() {
    let scratch = Scratch::new();
    let program = lab(Mode::Overlap, &scratch, &["--reload-probation", "1"]);
    let mut clients: Vec<RawClient> = (0..10).flat_map(|_| connected(&program)).collect();
    program.signal(Signal::HUP);
    let new = program.generation(2);
    program.logged_times("accepts, ", 1);
    limit_open_files(new, descriptors_with_room_for(new, 5));
    program.logged_times("is promoted", 1);
    let stays = "a connection stays with the predecessor: too many open files";
    program.logged_times(stays, 13);
    let mut moved = 0;
    for client in &mut clients {
        match client.try_send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\n").map(|()| client.try_answer(false)) {
            Ok(Ok(answer)) if answer.status == 200 => moved += usize::from(!answer.closes()),
            Ok(Err((Ending::Fin, rest))) if rest.is_empty() => {}
            other => panic!("{other:?}: {:#?}", program.log()),
        }
    }
    program.wait_for_end(program.pid());
    // As many as there was room for; one or two more if files of its own were open when that was counted, and one less if it
    // gave memory back since then: the map of its pages stays open.
    assert!((4..=7).contains(&moved), "{moved}: {:#?}", program.log());
    let refused = program.log().iter().filter(|line| line.contains(stays)).count();
    assert_eq!((migrated(&program, 1), refused), (moved, 20 - moved));
    assert!(program.is_ours(new));
    limit_open_files(new, 1024);
    expect_service(&program);
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn a_working_directory_that_is_gone_is_not_missed() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path("here")).expect("a directory");
        let mut command = Program::lab_command();
        let program = Program::start(reloading(&mut command, mode, &scratch).current_dir(scratch.path("here")));
        let mut clients = connected(&program);
        fs::remove_dir(scratch.path("here")).expect("the directory");
        for _ in 0..3 {
            program.reload();
            clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
        }
        assert_eq!(program.stop(), Some(0));
        assert!(!scratch.path("socket").exists(), "{mode:?}");
    }
}

/// However many come during a reload, one more follows.
#[test]
fn reloads_during_a_reload_become_one_more() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &[]);
        let mut busy = program.client();
        // In exec mode this is what the reload waits for; in overlap mode it keeps the predecessor.
        busy.get("/stream/2/500").read_at_least(100);
        program.signal(Signal::HUP);
        program.logged_times("reloading: checking", 1);
        program.signal(Signal::HUP);
        program.signal(Signal::USR2);
        program.signal(Signal::HUP);
        assert_eq!(busy.answer().status, 200);
        let third = program.generation(3);
        if mode == Mode::Overlap {
            program.wait_for_end(program.generation(2));
        }
        busy.expect_alive("/hello");
        program.signal_to(third, Signal::TERM);
        assert_eq!(program.wait_for_end(third), Some(0));
        assert_eq!(program.generations(), 3, "{mode:?}");
    }
}

/// Nothing of the program is left, and its socket file is gone.
#[track_caller]
fn expect_end(program: &Program, scratch: &Scratch) {
    let until = Instant::now() + PATIENCE;
    while !program.processes().is_empty() {
        assert!(Instant::now() < until, "{:?} still run: {:#?}", program.processes(), program.log());
        thread::sleep(Duration::from_millis(1));
    }
    assert!(!scratch.path("socket").exists());
}

#[test]
fn a_stop_right_behind_a_reload_stops() {
    for mode in Mode::BOTH {
        for round in 0..10 {
            let scratch = Scratch::new();
            let program = lab(mode, &scratch, &[]);
            program.signal(Signal::HUP);
            thread::sleep(Duration::from_millis(round * 3));
            program.signal(Signal::TERM);
            let pid = program.pid();
            assert_eq!(program.wait_for_end(pid), Some(0), "{mode:?} {round}: {:#?}", program.log());
            if mode == Mode::Exec {
                expect_end(&program, &scratch);
            }
        }
    }
}

/// Stops a server whose program on disk hangs. It would never end by itself, and had the stop waited until its time was
/// over, the reload would have failed.
fn a_stop_kills_what_hangs(mode: Mode, replace: impl Fn(&OnDisk, &str)) {
    let scratch = Scratch::new();
    let (program, on_disk) = replaceable_lab(mode, &scratch, &[]);
    let started = scratch.path("started");
    replace(&on_disk, &format!("mkfifo {0}; exec cat {0}", started.display()));
    program.signal(Signal::HUP);
    eventually("it has started", || started.exists());
    program.signal(Signal::TERM);
    assert_eq!(program.wait_for_end(program.pid()), Some(0));
    assert_eq!(program.log().iter().find(|line| line.contains("reload failed")), None);
    expect_end(&program, &scratch);
}

#[test]
fn a_stop_during_the_check_kills_the_check() {
    Mode::BOTH.into_iter().for_each(|mode| a_stop_kills_what_hangs(mode, OnDisk::replace));
}

#[test]
fn a_stop_before_the_successor_is_ready_kills_it() {
    a_stop_kills_what_hangs(Mode::Overlap, OnDisk::replace_behind_the_check);
}

/// Stops one generation on probation; both end, with all that is under way finished.
fn a_stop_on_probation_ends_both(stopped: usize) {
    let scratch = Scratch::new();
    let program = lab(Mode::Overlap, &scratch, &["--reload-probation", "20"]);
    let mut of_predecessor = program.client();
    of_predecessor.get("/stream/2/800").read_at_least(100);
    program.signal(Signal::HUP);
    let new = program.generation(2);
    program.logged_times("accepts, ", 1);
    let mut of_successor = program.client();
    of_successor.get("/stream/2/800").read_at_least(100);
    program.signal_to(program.generation(stopped), Signal::TERM);
    for client in [&mut of_predecessor, &mut of_successor] {
        assert_eq!(client.answer().text(), "chunk 1 of 2\nchunk 2 of 2\n");
        client.expect_fin();
    }
    program.wait_for_end(new);
    assert_eq!(program.wait_for_end(program.pid()), Some(0), "{:#?}", program.log());
    expect_end(&program, &scratch);
}

#[test]
fn a_stop_of_the_predecessor_on_probation_ends_both() {
    a_stop_on_probation_ends_both(1);
}

#[test]
fn a_stop_of_the_successor_on_probation_ends_both() {
    a_stop_on_probation_ends_both(2);
}

/// Stops one generation, or both as a terminal does, while the predecessor still finishes requests. The successor once
/// ended at once, and its predecessor took that as its own end: what was under way was cut, and nobody said so.
fn a_stop_while_connections_move_finishes_them(stop: impl Fn(&Program)) {
    let scratch = Scratch::new();
    let mut command = Program::lab_command();
    let program = Program::start(reloading(&mut command, Mode::Overlap, &scratch).process_group(0));
    let mut of_predecessor = program.client();
    of_predecessor.get("/stream/2/4000").read_at_least(100);
    let mut idle = connected(&program);
    program.signal(Signal::HUP);
    let new = program.generation(2);
    program.logged_times("is promoted", 1);
    program.logged_times("took over from the predecessor", 1);
    idle.iter_mut().for_each(|client| client.expect_alive("/hello"));
    let mut of_successor = program.client();
    of_successor.get("/stream/2/300").read_at_least(100);
    stop(&program);
    for client in [&mut of_predecessor, &mut of_successor] {
        let answer = client.try_answer(false);
        assert!(answer.as_ref().is_ok_and(|it| it.status == 200), "{answer:?}: {:#?}", program.log());
        client.expect_fin();
    }
    idle.iter_mut().for_each(RawClient::expect_fin);
    assert_eq!(program.wait_for_end(program.pid()), Some(0));
    assert_eq!(program.wait_for_end(new), Some(0), "it ends last");
    expect_end(&program, &scratch);
}

#[test]
fn a_stop_of_the_successor_while_connections_move_finishes_them() {
    a_stop_while_connections_move_finishes_them(|program| program.signal_to(program.current(), Signal::TERM));
}

#[test]
fn ctrl_c_while_connections_move_finishes_them() {
    a_stop_while_connections_move_finishes_them(ctrl_c);
}

/// To the whole process group, of which it is the leader.
fn ctrl_c(program: &Program) {
    let group = Pid::from_raw(program.pid() as i32).expect("a pid");
    kill_process_group(group, Signal::INT).expect("the group");
}

/// A TERM to the predecessor, whose successor is the server already, ends only what the predecessor still has.
#[test]
fn a_stop_of_the_predecessor_while_connections_move_leaves_the_server() {
    let scratch = Scratch::new();
    let program = lab(Mode::Overlap, &scratch, &[]);
    let mut busy = program.client();
    busy.get("/stream/2/800").read_at_least(100);
    program.signal(Signal::HUP);
    program.generation(2);
    // A moment before, both would end.
    program.logged_times("is promoted", 1);
    program.signal(Signal::TERM);
    assert_eq!(busy.answer().text(), "chunk 1 of 2\nchunk 2 of 2\n");
    assert_eq!(program.wait_for_end(program.pid()), Some(0));
    expect_service(&program);
    assert_eq!(program.stop(), Some(0));
    expect_end(&program, &scratch);
}

/// A successor that is the server is asked for the next reload; two generations run, never three.
#[test]
fn a_reload_asked_of_the_successor_waits_for_the_predecessor() {
    let scratch = Scratch::new();
    let program = lab(Mode::Overlap, &scratch, &[]);
    let mut busy = program.client();
    busy.get("/stream/2/800").read_at_least(100);
    program.signal(Signal::HUP);
    let new = program.generation(2);
    program.logged_times("is promoted", 1);
    program.signal_to(new, Signal::HUP);
    program.logged_times("remembered until the predecessor is gone", 1);
    assert_eq!(program.generations(), 2);
    assert_eq!(busy.answer().text(), "chunk 1 of 2\nchunk 2 of 2\n");
    let third = program.generation(3);
    assert_eq!(program.wait_for_end(program.pid()), Some(0));
    program.wait_for_end(new);
    busy.expect_alive("/hello");
    drop(busy);
    program.signal_to(third, Signal::TERM);
    assert_eq!(program.wait_for_end(third), Some(0));
    expect_end(&program, &scratch);
}

/// QUIT to one generation, on probation or while connections move, ends both at once.
#[test]
fn a_quit_in_a_reload_ends_both_generations_at_once() {
    for (probation, moment) in [("60", "accepts, "), ("0.1", "is promoted")] {
        for generation in [1, 2] {
            let scratch = Scratch::new();
            let program = lab(Mode::Overlap, &scratch, &["--reload-probation", probation]);
            let mut busy = program.client();
            busy.get("/stream/2/60000").read_at_least(100);
            program.signal(Signal::HUP);
            program.generation(2);
            program.logged_times(moment, 1);
            program.signal_to(program.generation(generation), Signal::QUIT);
            // Sooner than the stream, which takes longer than a test waits.
            let code = program.wait_for_end(program.pid());
            assert_eq!(code, Some(4), "{moment} {generation}: {:#?}", program.log());
            if moment == "is promoted" && generation == 1 {
                // The successor is the server, and was not told to end.
                expect_service(&program);
                assert_eq!(program.stop(), Some(0));
            }
            expect_end(&program, &scratch);
        }
    }
}

#[test]
fn ctrl_c_at_any_moment_of_a_reload_is_one_stop() {
    for mode in Mode::BOTH {
        for round in 0..12 {
            let scratch = Scratch::new();
            let mut command = Program::lab_command();
            let program = Program::start(reloading(&mut command, mode, &scratch).process_group(0));
            let mut busy = program.client();
            busy.get("/stream/2/300").read_at_least(100);
            program.signal(Signal::HUP);
            // From the check to well behind the probation.
            thread::sleep(Duration::from_millis(round * round * 2));
            ctrl_c(&program);
            let answer = busy.try_answer(false);
            assert!(answer.is_ok(), "{mode:?} {round}: {answer:?} {:#?}", program.log());
            drop(busy);
            let code = program.wait_for_end(program.pid());
            assert_eq!(code, Some(0), "{mode:?} {round}: {:#?}", program.log());
            expect_end(&program, &scratch);
        }
    }
}

/// Signals that come just as the process executes itself are neither lost nor fatal.
#[test]
fn no_signal_is_lost_across_execve() {
    let scratch = Scratch::new();
    let log = scratch.path("log");
    let mut command = Program::lab_command();
    let program = Program::start(reloading(&mut command, Mode::Exec, &scratch).arg("--log-file").arg(&log));
    let load = Load::new().keep_alive(&program.bound[0], 1).keep_alive(&program.bound[1], 1);
    let checks = |name: &str| {
        let text = fs::read_to_string(scratch.path(name)).unwrap_or_default();
        text.matches("reloading: checking").count()
    };
    for round in 0..60_usize {
        let generations = program.generations();
        let before = checks("log");
        fs::rename(&log, scratch.path("log.1")).expect("the log");
        program.signal(Signal::HUP);
        // It has been read: another one is another reload.
        let until = Instant::now() + PATIENCE;
        while checks("log.1") + checks("log") == before {
            assert!(Instant::now() < until, "the reload does not begin");
            thread::sleep(Duration::from_micros(200));
        }
        // Around the moment of execve, in small steps.
        thread::sleep(Duration::from_micros(round as u64 * 400));
        program.signal(Signal::HUP);
        program.signal(Signal::USR1);
        program.generation(generations + 2);
        while !log.exists() {
            assert!(Instant::now() < until, "the log was not opened again");
            thread::sleep(Duration::from_micros(200));
        }
    }
    assert_eq!(load.stop().failures, [""; 0]);
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn a_storm_of_signals_does_no_harm() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &[]);
        let load = Load::new().keep_alive(&program.bound[0], 2).keep_alive(&program.bound[1], 2);
        // On a host that is busy with others it is one reload that takes all of a second.
        let until = Instant::now() + Duration::from_secs(30);
        while program.generations() <= 2 && Instant::now() < until {
            let pid = program.current();
            if program.is_ours(pid) {
                program.signal_to(pid, Signal::HUP);
                program.signal_to(pid, Signal::USR1);
            }
            thread::yield_now();
        }
        load.go_on_for(100);
        assert!(program.generations() > 2, "{mode:?}");
        assert_eq!(load.stop().failures, [""; 0], "{mode:?}");
        // It still listens to signals.
        program.reload();
        expect_service(&program);
    }
}

/// `execve` fails when everything is ready for it. The standard library's exec resets SIGPIPE when it fails, and the
/// next client that goes away in the middle of a file then kills the server.
#[test]
fn a_failed_execve_leaves_the_server_as_it_was() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("root")).expect("a directory");
    let file = File::create(scratch.path("root/hello")).expect("a file");
    file.set_len(16 << 20).expect("a file");
    let on_disk = OnDisk::of(&Program::handover_command());
    let mut command = on_disk.command();
    // So late there is no other check of what has changed.
    command.args(["--reload-deadline", "0.001"]);
    let program = Program::start(reloading(&mut command, Mode::Exec, &scratch).arg(scratch.path("root")));
    let mut clients: Vec<RawClient> = program.bound.iter().map(RawClient::to).collect();
    let mut reading: Vec<RawClient> =
        (0..8).flat_map(|_| &program.bound).map(|bound| RawClient::to(bound).with_small_window()).collect();
    for client in &mut reading {
        client.get("/hello").read_at_least(100_000);
    }
    let descriptors = fs::read_dir(format!("/proc/{}/fd", program.pid())).expect("/proc").count();
    on_disk.replace("if [ -n \"$HANDOVER_CHECK\" ]; then chmod 644 \"$0\"; exec \"$REAL\" \"$@\"; fi");
    program.signal(Signal::HUP);
    program.logged_times("reload failed, serving on: cannot execute", 1);
    assert_eq!(fs::read_dir(format!("/proc/{}/fd", program.pid())).expect("/proc").count(), descriptors);
    for (number, client) in reading.into_iter().enumerate() {
        // In the middle of the file: some read a little more first, so that it is just being sent.
        match number % 3 {
            0 => client.vanish(),
            1 => drop(client),
            _ => {
                let mut client = client;
                client.read_at_least(300_000);
                client.vanish();
            }
        }
    }
    for client in &mut clients {
        assert_eq!(client.get("/hello").answer().body.len(), 16 << 20);
    }
    // Signals are handled again.
    on_disk.restore();
    program.reload();
    for client in &mut clients {
        assert_eq!(client.get("/hello").answer().body.len(), 16 << 20);
    }
    assert_eq!(program.stop(), Some(0));
}

/// What is left at the deadline is cut and counted. The socket file belongs to the successor by then.
#[test]
fn the_reload_deadline_cuts_what_is_left_and_leaves_the_socket_file() {
    let scratch = Scratch::new();
    let program = lab(Mode::Overlap, &scratch, &["--reload-deadline", "0.5"]);
    let mut slow = program.client();
    slow.get("/stream/2/20000").read_at_least(100);
    program.signal(Signal::HUP);
    program.generation(2);
    assert_eq!(program.wait_for_end(program.pid()), Some(3), "{:#?}", program.log());
    program.logged_times("cut GET /stream/2/20000", 1);
    assert_ne!(slow.rest().1, Ending::Silence);
    expect_service(&program);
    assert_eq!(program.stop(), Some(0));
    let stopped = program.logged("stopped: ");
    assert!(stopped.ends_with("cut=1"), "{stopped}");
}

/// The deadline counted from the signal, so where probation took all of it what had not moved in the first moment was
/// cut: half a request was told 408, and idle connections were closed.
#[test]
fn a_deadline_that_probation_has_used_up_cuts_nothing_that_can_move() {
    let scratch = Scratch::new();
    let program = lab(Mode::Overlap, &scratch, &["--reload-deadline", "0.05", "--max-connections", "1024"]);
    let half = "x".repeat(30_000);
    let mut clients: Vec<RawClient> = (0..600).map(|_| program.client()).collect();
    for client in &mut clients {
        client.expect_alive("/hello");
        client.send("POST /journal HTTP/1.1\r\nHost: test\r\nContent-Length: 60000\r\n\r\n").send(&half);
    }
    let mut slow = program.client();
    slow.get("/stream/2/60000").read_at_least(100);
    program.signal(Signal::HUP);
    program.generation(2);
    assert_eq!(program.wait_for_end(program.pid()), Some(3), "{:#?}", program.log());
    for client in &mut clients {
        assert_eq!(client.send(&half).answer().status, 200, "{:#?}", program.log());
    }
    drop(clients);
    assert_eq!(program.stop(), Some(0));
    let stopped = program.logged("stopped: ");
    assert!(stopped.ends_with("cut=1"), "{stopped}");
}

/// One that streams for longer than a reload may take once kept every exec from happening, and so did one slow client.
#[test]
fn what_never_rests_does_not_keep_an_exec_from_happening() {
    type Begin = fn(&mut RawClient);
    let slow: [(&str, Begin); 3] = [
        ("GET /stream/2/60000", |client| _ = client.get("/stream/2/60000").read_at_least(100)),
        ("GET /bytes/500000000", |client| _ = client.get("/bytes/500000000").read_at_least(100)),
        ("POST /echo", |client| {
            client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n");
        }),
    ];
    for (request, begin) in slow {
        let scratch = Scratch::new();
        let program = lab(Mode::Exec, &scratch, &["--reload-deadline", "0.7", "--exec-stall", "0.1"]);
        let mut client = program.client();
        begin(&mut client);
        let mut others = connected(&program);
        program.reload();
        program.logged_times("reload deadline: what is left is cut", 1);
        program.logged_times(&format!("cut {request}"), 1);
        assert_ne!(client.rest().1, Ending::Silence);
        for other in &mut others {
            other.expect_alive("/hello");
        }
        assert_eq!(program.stop(), Some(0), "what a reload has cut is no part of how the stop ends");
    }
}

/// What waited in the channel when the deadline cut what ran was begun all the same by the worker that this freed: it
/// ended with the process, and nobody counted it.
#[test]
fn what_waits_for_a_worker_is_not_begun_once_a_reload_has_cut_what_runs() {
    for executes in [true, false] {
        let scratch = Scratch::new();
        let limits = ["-w", "1", "--reload-deadline", "0.5", "--exec-stall", "0.1", "--queue-timeout", "60"];
        let (program, on_disk) = replaceable_lab(Mode::Exec, &scratch, &limits);
        // Each is shorter than what was cut has to notice, and the fourth is in its middle when the deadline cuts it: at 600 ms one
        // of 150 had just ended, or not.
        let mut clients: Vec<RawClient> = (0..15).map(|_| program.client()).collect();
        clients.iter_mut().for_each(|client| _ = client.get("/sleep/170"));
        if executes {
            program.reload();
        } else {
            on_disk.replace("chmod 644 \"$0\"; exec \"$REAL\" \"$@\"");
            program.signal(Signal::HUP);
            program.logged("reload failed, serving on: cannot execute");
        }
        let answered = clients.iter_mut().filter_map(|client| client.try_answer(false).ok()).count();
        let cut = program.log().iter().filter(|line| line.contains("cut GET /sleep/170 after")).count();
        assert_eq!((answered, cut), (clients.len() - 1, 1), "{executes}: {:#?}", program.log());
        assert_eq!(program.stop(), Some(0));
    }
}

/// Handlers longer than a hold may last once stalled everybody for four fifths of the time: a hold begins only when what
/// runs is expected to end, and one in vain is made up for by ten times as long without.
#[test]
fn handlers_that_are_known_to_take_long_are_not_held_for() {
    let scratch = Scratch::new();
    let program = lab(Mode::Exec, &scratch, &["--reload-deadline", "3", "--exec-stall", "0.2"]);
    let until_reloaded = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = program.client();
                client.get("/sleep/700").answer();
                while !until_reloaded.load(Ordering::Relaxed) {
                    // Some are cut at the deadline.
                    if client.try_send("GET /sleep/700 HTTP/1.1\r\nHost: test\r\n\r\n").is_err()
                        || client.try_answer(false).is_err()
                    {
                        client = program.client();
                    }
                }
            });
        }
        program.reload();
        until_reloaded.store(true, Ordering::Relaxed);
    });
    let in_vain = program.log().iter().filter(|line| line.contains("handlers took longer than expected")).count();
    assert!(in_vain <= 2, "{in_vain} holds in vain: {:#?}", program.log());
    assert_eq!(program.stop(), Some(0));
}

/// Such a connection was open and in no state: it was reset.
#[test]
fn who_waits_for_a_place_of_its_address_is_not_reset_by_an_exec() {
    let scratch = Scratch::new();
    let program = lab(Mode::Exec, &scratch, &["--max-connections-per-ip", "1"]);
    let mut busy = program.client();
    busy.get("/sleep/300");
    program.signal(Signal::HUP);
    // One after the other, until long after the reload.
    while program.generations() < 2 {
        let answer = program.client().get("/hello").try_answer(false);
        let answer = answer.expect("each is told 503, or served");
        assert!(matches!(answer.status, 200 | 503), "{answer:?}");
    }
    assert_eq!(busy.answer().text(), "slept 300\n");
    assert_eq!(program.stop(), Some(0));
}

/// A successor that is killed when connections could not move leaves a server that keeps connections again.
#[test]
fn a_drain_for_a_successor_that_died_is_taken_back() {
    let scratch = Scratch::new();
    let (program, on_disk) = replaceable_lab(Mode::Overlap, &scratch, &[]);
    let mut busy = program.client();
    busy.get("/stream/2/2000").read_at_least(100);
    on_disk.replace(
        "if [ -n \"$HANDOVER_CHECK\" ]; then echo 'handover reads state versions 99'; exit 0; fi\nexec \"$REAL\" \"$@\"",
    );
    program.signal(Signal::HUP);
    let new = program.generation(2);
    program.logged_times("took over from the predecessor", 1);
    program.signal_to(new, Signal::KILL);
    program.logged_times("reload failed, serving on", 1);
    expect_service(&program);
    assert_eq!(busy.answer().text(), "chunk 1 of 2\nchunk 2 of 2\n");
    on_disk.restore();
    program.signal(Signal::HUP);
    eventually("another successor", || program.generations() == 3);
    program.wait_for_end(program.pid());
    assert_eq!(program.stop(), Some(0));
}

/// After execve there is no way back, and a log is worth less than the connections; in overlap mode there is one.
#[test]
fn a_log_file_that_cannot_be_opened_any_more_does_not_end_the_server() {
    for mode in Mode::BOTH {
        let (scratch, on_disk) = (Scratch::new(), OnDisk::of(&Program::lab_command()));
        let log = scratch.path("log");
        let mut command = on_disk.command();
        command.args(["-l", "127.0.0.1:0", "--reload-probation", "0", "--log-file"]).arg(&log);
        let program = Program::start(command.args(["--reload", mode.name()]));
        let mut client = program.client();
        client.expect_alive("/hello");
        // The check has seen nothing of this.
        let path = log.display();
        on_disk.replace_behind_the_check(&format!("mv {path} {path}.1; mkdir {path}; exec \"$REAL\" \"$@\""));
        program.signal(Signal::HUP);
        let why = format!("cannot open log file {log:?}: it is a directory");
        match mode {
            Mode::Exec => {
                // What comes back cannot open it either, and says so where it can.
                program.logged(&format!("{why}; the log goes to stderr until USR1"));
                program.logged(&format!("reload failed, serving on: {why}"));
                assert_eq!(program.generations(), 1);
                client.expect_alive("/hello");
                std::fs::remove_dir(&log).expect("an empty directory");
                program.signal(Signal::USR1);
                eventually("the log is opened", || log.is_file());
            }
            Mode::Overlap => {
                // The successor says so on the stderr that it has inherited.
                program.logged(&why);
                eventually("the reload is over", || {
                    let text = std::fs::read_to_string(scratch.path("log.1")).unwrap_or_default();
                    text.contains("reload failed, serving on: ")
                });
            }
        }
        client.expect_alive("/hello");
        assert_eq!(program.stop(), Some(0));
    }
}
