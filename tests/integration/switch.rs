//! Reloads of an application that carries a state over: nobody sees an empty one, and nothing that was acknowledged is lost.

use crate::common::{Ending, Mode, Program, RawClient, Scratch, count, eventually};
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

fn lab(mode: Mode, scratch: &Scratch, variables: &[(&str, &str)]) -> Program {
    let mut command = Program::lab_command();
    // Who is to die at a step has to come to it before its predecessor takes it for one that lives, on a busy host as well.
    let dies = variables.iter().any(|(name, _)| *name == "HANDOVER_TEST_KILL");
    command.args(["--reload", mode.name(), "--reload-probation", if dies { "5" } else { "0.1" }]);
    command.args(["-l", "127.0.0.1:0", "-l"]).arg(format!("unix:{}", scratch.path("socket").display()));
    command.arg("--pid-file").arg(scratch.path("pid"));
    Program::start(command.envs(variables.iter().copied()))
}

/// What the application itself carries over, by its own hooks.
#[test]
fn what_an_application_carries_over_goes_on() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &[]);
        let mut client = program.client();
        for count in 1..=9 {
            assert_eq!(client.get("/count").answer().text(), format!("{count}\n"), "{mode:?}");
            if count % 3 == 0 {
                program.reload();
            }
        }
        assert_eq!(program.stop(), Some(0));
    }
}

/// Clients that write, and read what was acknowledged: over a connection that stays, and over a new one each time.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(program: &Program) -> Writers {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = Vec::new();
        for (number, bound) in program.bound.iter().cycle().take(4).cloned().enumerate() {
            let (stop, written) = (stop.clone(), written.clone());
            clients.push(thread::spawn(move || {
                let mut kept = RawClient::to(&bound);
                let mut own = 0;
                for key in 0.. {
                    own = key;
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let path = format!("/map/{number}-{key}");
                    let answer = kept.post(&path, key.to_string()).answer();
                    assert_eq!(answer.status, 201, "{path}: {answer:?}");
                    // By who has never been here, in turn.
                    let answer = match key % 2 {
                        0 => kept.get(&path).answer(),
                        _ => RawClient::to(&bound).get(&path).answer(),
                    };
                    assert_eq!((answer.status, answer.text()), (200, &*key.to_string()), "{path}");
                    written.fetch_add(1, Ordering::Relaxed);
                }
                // All of it.
                for key in 0..own.min(50) {
                    let answer = kept.get(&format!("/map/{number}-{key}")).answer();
                    assert_eq!((answer.status, answer.text()), (200, &*key.to_string()), "{number}-{key}");
                }
            }));
        }
        Writers { stop, written, clients }
    }

    fn go_on_for(&self, more: usize) {
        let before = self.written.load(Ordering::Relaxed);
        eventually("they write on", || self.written.load(Ordering::Relaxed) >= before + more);
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("nothing that was acknowledged is missing");
        }
    }
}

/// `HANDOVER_SWITCHES` says how many reloads.
#[test]
fn no_write_that_was_acknowledged_is_lost_by_a_reload() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &[]);
        let writers = Writers::start(&program);
        let mut counting = program.client();
        let mut next = 1;
        for _ in 0..count("HANDOVER_SWITCHES", 6) {
            for _ in 0..5 {
                assert_eq!(counting.get("/count").answer().text(), format!("{next}\n"), "{mode:?}");
                next += 1;
            }
            writers.go_on_for(20);
            program.reload();
        }
        writers.go_on_for(20);
        writers.stop();
        assert_eq!(program.stop(), Some(0));
    }
}

/// Two generations beside each other would both count. `HANDOVER_SWITCHES` says how many reloads.
#[test]
fn what_runs_in_the_background_runs_in_one_process_at_a_time() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let ticks = scratch.path("ticks");
        let read =
            || std::fs::read_to_string(&ticks).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
        let program = lab(mode, &scratch, &[("LAB_TICKS", ticks.to_str().expect("UTF-8"))]);
        for _ in 0..count("HANDOVER_SWITCHES", 6) {
            let before = read().len();
            eventually("it counts on", || read().len() > before + 2);
            program.reload();
        }
        let before = read().len();
        eventually("it counts on", || read().len() > before + 2);
        assert_eq!(program.stop(), Some(0));
        let wanted: Vec<String> = (1..=read().len()).map(|number| number.to_string()).collect();
        assert_eq!(read(), wanted, "{mode:?}: doubled or missing");
    }
}

/// The lab's `tick`, as one subscriber hears it on one connection. `HANDOVER_SWITCHES` says how many reloads.
#[test]
fn what_the_background_publishes_is_heard_once_and_in_order_through_reloads() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &[]);
        let mut subscriber = program.client();
        subscriber.send("GET /events/tick?since=start HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut heard = 0;
        let mut hear = |ticks: usize| {
            for _ in 0..ticks {
                let event = subscriber.read_past(b"\ndata: ").and_then(|_| subscriber.read_past(b"\n"));
                let event = event.expect("the stream goes on");
                let number = String::from_utf8_lossy(&event).trim().parse::<u64>().expect("a number");
                heard += 1;
                assert_eq!(number, heard, "{mode:?}: doubled or missing");
            }
        };
        for _ in 0..count("HANDOVER_SWITCHES", 4) {
            hear(2);
            program.reload();
        }
        hear(3);
        assert_eq!(program.stop(), Some(0));
    }
}

/// As if there had been no reload.
#[test]
fn what_runs_in_the_background_goes_on_when_nothing_came_of_a_reload() {
    for (mode, variable, step) in [
        (Mode::Overlap, "HANDOVER_TEST_KILL", "successor-promote"),
        (Mode::Overlap, "HANDOVER_TEST_KILL", "successor-go"),
        (Mode::Exec, "LAB_TRAP", "panic"),
    ] {
        let scratch = Scratch::new();
        let (ticks, trap) = (scratch.path("ticks"), scratch.path("trap"));
        std::fs::write(&trap, step).expect("a file");
        let value = if mode == Mode::Exec { trap.to_str().expect("UTF-8") } else { step };
        // The first start falls into no trap.
        std::fs::remove_file(&trap).expect("it is there");
        let read = || std::fs::read_to_string(&ticks).unwrap_or_default().lines().count();
        let program = lab(mode, &scratch, &[("LAB_TICKS", ticks.to_str().expect("UTF-8")), (variable, value)]);
        std::fs::write(&trap, step).expect("a file");
        eventually("it counts", || read() > 2);
        program.signal(Signal::HUP);
        program.logged("reload failed, serving on");
        let before = read();
        eventually("it counts on", || read() > before + 2);
        assert_eq!(program.stop(), Some(0));
        let text = std::fs::read_to_string(&ticks).expect("the ticks");
        let wanted: Vec<String> = (1..=text.lines().count()).map(|number| number.to_string()).collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), wanted, "{step}");
    }
}

/// It stayed for the case that the successor died, up to the deadline of the stop, and the successor waited for it.
#[test]
fn a_stop_does_not_wait_for_who_stands_by() {
    let mut command = Program::lab_command();
    command.args(["-l", "127.0.0.1:0", "--reload", "overlap", "--reload-probation", "60"]);
    let program = Program::start(&mut command);
    let mut client = program.client();
    client.expect_alive("/hello");
    let old = program.current();
    program.signal(Signal::HUP);
    let new = program.generation(2);
    client.expect_alive("/hello");
    program.signal_to(new, Signal::TERM);
    program.wait_for_end(old);
    assert_eq!(program.wait_for_end(new), Some(0));
    assert!(!program.log().iter().any(|line| line.contains("reload deadline")), "{:#?}", program.log());
}

/// It ended as one on probation, and its predecessor, which had said that it serves, took over again: the stop was lost.
#[test]
fn a_stop_just_before_it_hears_that_it_serves_stops_all() {
    let scratch = Scratch::new();
    let program = lab(Mode::Overlap, &scratch, &[("HANDOVER_TEST_STOP", "predecessor-promoted")]);
    program.client().expect_alive("/hello");
    let old = program.current();
    program.signal(Signal::HUP);
    let stands_still = || {
        let status = std::fs::read_to_string(format!("/proc/{old}/status")).unwrap_or_default();
        status.contains("State:\tT")
    };
    eventually("its predecessor stands still before it says so", stands_still);
    let new = *program.processes().iter().find(|&&pid| pid != old).expect("a successor");
    program.signal_to(new, Signal::TERM);
    program.logged("stopping, once the predecessor has said");
    program.signal_to(old, Signal::CONT);
    program.wait_for_end(old);
    assert_eq!(program.wait_for_end(new), Some(0));
    assert!(!program.log().iter().any(|line| line.contains("reload failed")), "{:#?}", program.log());
}

/// Steps at which the successor dies, each before it serves: then nobody notices anything.
#[test]
fn a_successor_that_dies_before_it_serves_is_not_missed() {
    for step in ["successor-promote", "successor-restored"] {
        let scratch = Scratch::new();
        let program = lab(Mode::Overlap, &scratch, &[("HANDOVER_TEST_KILL", step)]);
        let writers = Writers::start(&program);
        writers.go_on_for(10);
        for times in 1..=2 {
            program.signal(Signal::HUP);
            program.logged_times("reload failed, serving on", times);
            writers.go_on_for(20);
        }
        writers.stop();
        assert_eq!((program.generations(), program.stop()), (1, Some(0)), "{step}");
    }
}

/// One that dies as it begins to serve has answered nobody: the other one has everything, and takes over again.
#[test]
fn a_successor_that_dies_as_it_begins_to_serve_is_replaced_by_its_predecessor() {
    let scratch = Scratch::new();
    let program = lab(Mode::Overlap, &scratch, &[("HANDOVER_TEST_KILL", "successor-go")]);
    let writers = Writers::start(&program);
    writers.go_on_for(10);
    for times in 1..=2 {
        program.signal(Signal::HUP);
        program.logged_times("this process takes over again", times);
        writers.go_on_for(20);
    }
    writers.stop();
    let pid = std::fs::read_to_string(scratch.path("pid")).expect("the pid file");
    assert_eq!(pid.trim(), program.pid().to_string());
    assert_eq!((program.generations(), program.stop()), (1, Some(0)));
}

/// It went on waiting, cut what ran at the deadline, and only then saw that nobody was there.
#[test]
fn a_successor_that_ends_while_its_predecessor_waits_cuts_nothing() {
    for (signal, said) in [
        (Signal::KILL, "reload failed, serving on: the successor ended before it served"),
        (Signal::TERM, "the successor was told to stop, and so are we"),
    ] {
        let scratch = Scratch::new();
        let mut command = Program::lab_command();
        Mode::Overlap.flags(&mut command).args(["-l", "127.0.0.1:0", "--reload-deadline", "30", "--pid-file"]);
        let program = Program::start(command.arg(scratch.path("pid")).args(["--exec-stall", "0.1"]));
        let mut busy = program.client();
        busy.get("/sleep/2500");
        program.client().expect_alive("/hello");
        program.signal(Signal::HUP);
        program.logged("is ready");
        let successor = program.processes().into_iter().find(|&pid| pid != program.pid()).expect("a successor");
        program.signal_to(successor, signal);
        program.logged(said);
        assert_eq!(busy.answer().status, 200, "{said}");
        match signal {
            Signal::TERM => assert_eq!(program.exit().code, Some(0)),
            _ => assert_eq!((program.generations(), program.stop()), (1, Some(0))),
        }
    }
}

/// The predecessor removed the pid file while its successor was writing its own, and sometimes that one.
#[test]
fn the_pid_file_stays_until_the_successor_has_written_its_own() {
    let scratch = Scratch::new();
    let program = lab(Mode::Overlap, &scratch, &[("HANDOVER_TEST_STOP", "successor-go")]);
    let stands = || std::fs::read_to_string(scratch.path("pid")).ok();
    let line = |pid: u32| Some(format!("{pid}\n"));
    program.signal(Signal::HUP);
    program.logged("is promoted");
    assert_eq!(stands(), line(program.pid()));
    let successor = program.processes().into_iter().find(|&pid| pid != program.pid()).expect("a successor");
    // Also when it has waited for that as long as it does.
    program.wait_for_end(program.pid());
    assert_eq!(stands(), line(program.pid()));
    program.signal_to(successor, Signal::CONT);
    eventually("it is the successor's", || stands() == line(successor));
    assert_eq!(program.generation(2), successor);
    assert_eq!(program.stop(), Some(0));
    assert_eq!(stands(), None);
}

/// One that hangs keeps everybody waiting for the time that it has to restore the state, and no longer.
#[test]
fn a_successor_that_hangs_before_it_serves_is_killed() {
    let scratch = Scratch::new();
    let variables = [("HANDOVER_TEST_STOP", "successor-promote"), ("HANDOVER_TEST_PROMOTION_TIMEOUT", "0.2")];
    let program = lab(Mode::Overlap, &scratch, &variables);
    let writers = Writers::start(&program);
    writers.go_on_for(10);
    program.signal(Signal::HUP);
    program.logged("reload failed, serving on: no answer to the promotion in 0.2s");
    writers.go_on_for(20);
    writers.stop();
    assert_eq!((program.generations(), program.stop()), (1, Some(0)));
}

/// A stop at any moment of it is a stop.
#[test]
fn a_stop_in_the_middle_of_a_switch_stops() {
    let scratch = Scratch::new();
    let variables = [("HANDOVER_TEST_STOP", "successor-promote"), ("HANDOVER_TEST_PROMOTION_TIMEOUT", "20")];
    let program = lab(Mode::Overlap, &scratch, &variables);
    program.client().expect_alive("/hello");
    program.signal(Signal::HUP);
    program.logged("is ready");
    program.signal(Signal::TERM);
    assert_eq!(program.exit().code, Some(0));
    assert!(!scratch.path("pid").exists());
}

/// A client that comes in the moment in which the successor takes its first one: it had been accepted before its hub was
/// open, and was told that nobody serves.
#[test]
fn who_publishes_at_once_hears_from_no_generation_that_it_does_not_serve() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let program = lab(mode, &scratch, &[]);
        let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let publishers: Vec<_> = (0..4)
            .map(|number| {
                let (stop, published) = (stop.clone(), published.clone());
                let bound = program.bound[number % program.bound.len()].clone();
                thread::spawn(move || {
                    let mut kept = RawClient::to(&bound);
                    while !stop.load(Ordering::Relaxed) {
                        let answer = kept.post("/events/numbers", "1").answer();
                        assert_eq!(answer.status, 200, "{answer:?}");
                        let answer = RawClient::to(&bound).post("/events/numbers", "1").answer();
                        assert_eq!(answer.status, 200, "{answer:?}");
                        published.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for _ in 0..count("HANDOVER_SWITCHES", 6) {
            let before = published.load(Ordering::Relaxed);
            eventually("they publish on", || published.load(Ordering::Relaxed) >= before + 20);
            program.reload();
        }
        stop.store(true, Ordering::Relaxed);
        for publisher in publishers {
            publisher.join().expect("every message was taken");
        }
        assert_eq!(program.stop(), Some(0));
    }
}

/// What a worker had read when everything was held, and did not begin with any more, was in no socket, so no event told of
/// it when the switch came to nothing: its client was told 408 ten seconds later.
#[test]
fn what_was_read_before_a_switch_that_comes_to_nothing_is_answered() {
    for step in ["successor-restored", "successor-go", "successor-connection", "successor-acked"] {
        let scratch = Scratch::new();
        let program = lab(Mode::Overlap, &scratch, &[("HANDOVER_TEST_KILL", step)]);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for bound in program.bound.iter().cycle().take(8) {
                let stop = &stop;
                scope.spawn(move || {
                    let mut client = RawClient::to(bound);
                    'all: while !stop.load(Ordering::Relaxed) {
                        let _ = client.try_send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\n".repeat(50));
                        for _ in 0..50 {
                            // One that had been moved goes with the successor.
                            match client.try_answer(false) {
                                Ok(answer) => assert_eq!(answer.status, 200, "{step}: {answer:?}"),
                                Err((Ending::Fin | Ending::Reset, _)) => {
                                    client = RawClient::to(bound);
                                    continue 'all;
                                }
                                Err(other) => panic!("{step}: {other:?}"),
                            }
                        }
                    }
                });
            }
            for times in 1..=10 {
                program.signal(Signal::HUP);
                program.logged_times("reload failed, serving on", times);
            }
            stop.store(true, Ordering::Relaxed);
        });
        program.signal(Signal::TERM);
        assert_eq!(program.exit().code, Some(0));
    }
}
