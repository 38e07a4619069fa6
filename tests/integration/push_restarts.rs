//! Push where a process ends: stops with a history file, crashes, successors that fail at each step, and downgrades.

use crate::common::{
    EventStream, Mode, OnDisk, Plan, Program, Published, Publishers, Scratch, Subscribers, eventually, run_to_its_end,
};
use crate::push::with_hub;
use handover::Bound;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::process::Command;
use std::time::Duration;

fn small() -> Plan {
    Plan { streams: 40, polls: 10, topics: 5, publishers: 2, rate: 200, large: 3000, pause: Duration::from_millis(300) }
}

/// The program, at that address, with that history file in the directory.
fn keeping(scratch: &Scratch, address: &str, file: Option<&str>) -> Command {
    let mut command = Program::handover_command();
    with_hub(&mut command, Mode::Exec, scratch, address, "");
    if let Some(file) = file {
        command.arg("--history-file").arg(scratch.path(file));
    }
    command
}

fn address(program: &Program) -> String {
    let Bound::Tcp(address) = &program.bound[0] else { panic!("{:?}", program.bound) };
    address.to_string()
}

/// Publishes once more to each topic by each publisher, so that whoever waits for what is gone hears of it.
fn finish(publishers: Publishers, plan: &Plan) -> Published {
    publishers.go_on_for(plan.rate / 2);
    publishers.stop()
}

#[test]
fn who_comes_back_after_a_stop_misses_nothing() {
    let (scratch, plan) = (Scratch::new(), small());
    let mut program = Program::start(&mut keeping(&scratch, "127.0.0.1:0", Some("history")));
    let address = address(&program);
    let subscribers = Subscribers::start(&program.bound, &plan);
    let publishers = Publishers::start(&program.bound, &plan, &subscribers);
    for _ in 0..3 {
        publishers.go_on_for(50);
        // A reload in between writes nothing, and loses nothing.
        program.reload();
        publishers.go_on_for(50);
        program.signal(Signal::TERM);
        assert_eq!(program.exit().code, Some(0));
        program = Program::start(&mut keeping(&scratch, &address, Some("history")));
        program.logged("bytes of messages read from");
    }
    let published = finish(publishers, &plan);
    let heard = subscribers.stop(&published);
    assert_eq!((heard.missing, heard.twice, heard.gaps), (0, 0, 0), "{heard:#?}");
    assert!(heard.wrong.is_empty(), "{heard:#?}");
    assert!(heard.reconnects >= 3 * (plan.streams + plan.polls), "{heard:#?}");
    assert_eq!(program.stop(), Some(0));
}

/// What it had not written is gone, and everybody is told.
#[test]
fn who_comes_back_after_a_crash_is_told_of_a_gap() {
    for file in [None, Some("history")] {
        let (scratch, plan) = (Scratch::new(), small());
        let mut program = Program::start(&mut keeping(&scratch, "127.0.0.1:0", file));
        let address = address(&program);
        let subscribers = Subscribers::start(&program.bound, &plan);
        let publishers = Publishers::start(&program.bound, &plan, &subscribers);
        publishers.go_on_for(100);
        program.kill();
        let _ = fs::remove_file(scratch.path("socket"));
        let again = Program::start(&mut keeping(&scratch, &address, file));
        let published = finish(publishers, &plan);
        let heard = subscribers.stop(&published);
        assert_eq!((heard.missing, heard.twice), (0, 0), "{heard:#?}");
        assert!(heard.wrong.is_empty(), "{heard:#?}");
        assert!(heard.gaps >= plan.streams + plan.polls, "each is told: {heard:#?}");
        assert_eq!(again.stop(), Some(0));
    }
}

/// One line says why, and everything else goes on.
#[test]
fn a_history_that_cannot_be_read_is_said_and_started_without() {
    let written = {
        let scratch = Scratch::new();
        let program = Program::start(&mut keeping(&scratch, "127.0.0.1:0", Some("history")));
        assert_eq!(program.client().post("/events/a", "x").answer().status, 200);
        assert_eq!(program.stop(), Some(0));
        fs::read(scratch.path("history")).expect("it was written")
    };
    let changed = |at: usize, byte: u8| {
        let mut bytes = written.clone();
        bytes[at] = byte;
        bytes
    };
    let whole = [
        ([&written[..], b"x"].concat(), "damaged"),
        (b"something else".to_vec(), "damaged, or no history of handover's"),
        (changed(7, b'2'), "damaged, or no history of handover's"),
        (changed(16, 99), "version 99"),
    ];
    // Within the time, the version, what was published, and at each end of these.
    let cut = [1, 8, 15, 16, 17, 20, written.len() / 2, written.len() - 1]
        .map(|length| (written[..length].to_vec(), "damaged"));
    for (bytes, says) in whole.into_iter().chain(cut) {
        let scratch = Scratch::new();
        fs::write(scratch.path("history"), &bytes).expect("a file");
        let program = Program::start(&mut keeping(&scratch, "127.0.0.1:0", Some("history")));
        program.logged("history file");
        let said: Vec<String> = program.log().into_iter().filter(|line| line.contains("history file")).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(says) && said[0].contains("starting without"), "{says}: {said:?}");
        let answer = program.client().post("/events/a", "x").answer();
        assert!(answer.text().contains("-1\""), "an empty one: {answer:?}");
        assert_eq!(program.stop(), Some(0));
        assert_ne!(fs::read(scratch.path("history")).expect("written anew"), bytes);
    }
}

/// A FIFO of somebody's, or `/dev/null`, was replaced by the stop, and a directory was found out about then.
#[test]
fn a_history_file_that_is_no_file_is_refused_by_check_start_and_stop() {
    let scratch = Scratch::new();
    let make_fifo = |name: &str| {
        let made = Command::new("mkfifo").arg(scratch.path(name)).status().expect("mkfifo");
        assert!(made.success());
    };
    let is_fifo = |name: &str| fs::symlink_metadata(scratch.path(name)).expect("there").file_type().is_fifo();
    make_fifo("fifo");
    fs::create_dir(scratch.path("directory")).expect("a directory");
    for (file, says) in [("fifo", "it is not a regular file"), ("directory", "it is a directory")] {
        for flags in [&["--check"][..], &[]] {
            let output = run_to_its_end(keeping(&scratch, "127.0.0.1:0", Some(file)).args(flags));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(78), "{flags:?}: {said}");
            let line = format!("cannot write history file {:?}: {says}\n", scratch.path(file));
            assert!(said.ends_with(&line) && said.lines().count() == 1, "{flags:?}: {said}");
        }
        assert!(!scratch.path("socket").exists(), "what it had bound is gone");
    }
    assert!(is_fifo("fifo"));
    let output = run_to_its_end(keeping(&scratch, "127.0.0.1:0", Some("nowhere/history")).arg("--check"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(78) && said.contains("No such file or directory"), "{said}");
    // One that comes meanwhile stays too, and nobody waits for its reader.
    let program = Program::start(&mut keeping(&scratch, "127.0.0.1:0", Some("later")));
    make_fifo("later");
    program.signal(Signal::TERM);
    let exit = program.exit();
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.log.iter().any(|line| line.contains("it is not a regular file; what push kept is lost")), "{exit:?}");
    assert!(is_fifo("later") && !scratch.path("later.new").exists());
}

/// It is no file of anybody's: what a stop writes takes its place.
#[test]
fn a_history_file_whose_links_lead_in_a_circle_is_started_without() {
    let scratch = Scratch::new();
    std::os::unix::fs::symlink("history", scratch.path("loop")).expect("a link");
    std::os::unix::fs::symlink("loop", scratch.path("history")).expect("a link");
    let program = Program::start(&mut keeping(&scratch, "127.0.0.1:0", Some("loop")));
    let line = program.logged("history file");
    assert!(line.contains("starting without"), "{line}");
    assert_eq!(program.client().post("/events/a", "x").answer().status, 200);
    assert_eq!(program.stop(), Some(0));
    assert!(fs::symlink_metadata(scratch.path("loop")).expect("there").is_file());
}

#[test]
fn a_stop_that_cannot_write_its_history_says_so_by_its_exit_code() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("kept")).expect("a directory");
    let program = Program::start(&mut keeping(&scratch, "127.0.0.1:0", Some("kept/history")));
    let mut stream = EventStream::open(&program.bound[0], "/events/a", "");
    stream.opening();
    fs::remove_dir(scratch.path("kept")).expect("it was empty");
    program.signal(Signal::TERM);
    assert!(stream.event().starts_with("retry: "));
    let exit = program.exit();
    assert_eq!(exit.code, Some(1));
    assert!(
        exit.log.iter().any(|line| line.contains("cannot write history file") && line.contains("is lost")),
        "{exit:?}"
    );
}

/// Before GO it has said nothing to anybody.
#[test]
fn a_successor_that_fails_before_it_serves_is_noticed_by_no_subscriber() {
    let steps = ["successor-promote", "successor-restored"];
    for (variable, step) in steps.iter().flat_map(|step| [("HANDOVER_TEST_KILL", step), ("HANDOVER_TEST_STOP", step)]) {
        let (scratch, plan) = (Scratch::new(), small());
        let mut command = Program::handover_command();
        with_hub(&mut command, Mode::Overlap, &scratch, "127.0.0.1:0", "");
        let program = Program::start(command.env(variable, step).env("HANDOVER_TEST_PROMOTION_TIMEOUT", "0.1"));
        let subscribers = Subscribers::start(&program.bound, &plan);
        let publishers = Publishers::start(&program.bound, &plan, &subscribers);
        for times in 1..=3 {
            publishers.go_on_for(20);
            program.signal(Signal::HUP);
            program.logged_times("reload failed, serving on", times);
        }
        let published = finish(publishers, &plan);
        let heard = subscribers.stop(&published);
        published.expect_no_failure();
        heard.expect_nothing_noticed();
        assert_eq!((program.generations(), program.stop()), (1, Some(0)), "{variable} {step}");
    }
}

/// The program that is executed cannot open its log, and the one before comes back.
#[test]
fn an_exec_that_leads_nowhere_is_noticed_by_no_subscriber() {
    let (scratch, plan) = (Scratch::new(), small());
    let on_disk = OnDisk::of(&Program::handover_command());
    let program = Program::start(with_hub(&mut on_disk.command(), Mode::Exec, &scratch, "127.0.0.1:0", ""));
    let subscribers = Subscribers::start(&program.bound, &plan);
    let publishers = Publishers::start(&program.bound, &plan, &subscribers);
    let (logs, configuration) =
        (scratch.path("logs"), fs::read_to_string(scratch.path("push.toml")).expect("it is there"));
    for times in 1..=3 {
        publishers.go_on_for(20);
        fs::create_dir(&logs).expect("a directory");
        let other = format!("log_file = {:?}\n# {times}\n{configuration}", logs.join("log"));
        fs::write(scratch.path("push.toml"), other).expect("a file");
        on_disk.replace_behind_the_check(&format!("rm -r '{}'; exec \"$REAL\" \"$@\"", logs.display()));
        program.signal(Signal::HUP);
        let line = program.logged_times("reload failed, serving on", times);
        assert!(line.contains("cannot open log file"), "{line}");
    }
    publishers.go_on_for(20);
    fs::write(scratch.path("push.toml"), configuration).expect("a file");
    on_disk.restore();
    program.reload();
    let published = finish(publishers, &plan);
    let heard = subscribers.stop(&published);
    published.expect_no_failure();
    heard.expect_nothing_noticed();
    assert_eq!(program.stop(), Some(0));
}

/// What it published is lost with it. Nobody knows what that was, so everybody is told, and nobody hears a message twice.
#[test]
fn a_successor_that_dies_after_it_served_leaves_gaps_that_are_said() {
    for step in ["successor-go", "successor-connection", "successor-acked", "successor-commit"] {
        let (scratch, plan) = (Scratch::new(), small());
        let mut command = Program::handover_command();
        with_hub(&mut command, Mode::Overlap, &scratch, "127.0.0.1:0", "");
        // It has to come to its step before it is taken for one that lives, on a busy host as well.
        command.args(["--reload-probation", "5"]);
        let program = Program::start(command.env("HANDOVER_TEST_KILL", step));
        let subscribers = Subscribers::start(&program.bound, &plan);
        let publishers = Publishers::start(&program.bound, &plan, &subscribers);
        for times in 1..=3 {
            publishers.go_on_for(20);
            program.signal(Signal::HUP);
            program.logged_times("this process takes over again", times);
        }
        let published = finish(publishers, &plan);
        let heard = subscribers.stop(&published);
        eprintln!("{step}: {} publications failed, {heard:?}", published.failures.len());
        assert_eq!((heard.missing, heard.twice), (0, 0), "{step}: {heard:#?}");
        assert!(heard.wrong.is_empty(), "{step}: {heard:#?}");
        assert!(heard.gaps >= plan.streams + plan.polls, "{step}: each is told: {heard:#?}");
        program.signal(Signal::TERM);
        assert_eq!(program.exit().code, Some(0), "{step}");
    }
}

/// The same when it has had everything for a while.
#[test]
fn a_successor_that_dies_in_standby_leaves_gaps_that_are_said() {
    let (scratch, plan) = (Scratch::new(), small());
    let mut command = Program::handover_command();
    with_hub(&mut command, Mode::Overlap, &scratch, "127.0.0.1:0", "");
    let program = Program::start(command.args(["--reload-probation", "20"]));
    let subscribers = Subscribers::start(&program.bound, &plan);
    let publishers = Publishers::start(&program.bound, &plan, &subscribers);
    for times in 1..=2 {
        publishers.go_on_for(30);
        program.signal(Signal::HUP);
        program.logged_times("took over from the predecessor", times);
        let successor = program.processes().into_iter().find(|pid| *pid != program.pid()).expect("a successor");
        publishers.go_on_for(60);
        program.signal_to(successor, Signal::KILL);
        program.logged_times("this process takes over again", times);
    }
    let published = finish(publishers, &plan);
    let heard = subscribers.stop(&published);
    eprintln!("{} publications failed, {heard:?}", published.failures.len());
    assert_eq!((heard.missing, heard.twice), (0, 0), "{heard:#?}");
    assert!(heard.wrong.is_empty() && heard.gaps >= plan.streams + plan.polls, "{heard:#?}");
    program.signal(Signal::TERM);
    assert_eq!(program.exit().code, Some(0));
}

/// A program that knows no push yet: subscribers end as at a stop, and come back.
#[test]
fn a_downgrade_ends_subscribers_as_a_stop_does() {
    for mode in Mode::BOTH {
        let (scratch, plan) = (Scratch::new(), small());
        let on_disk = OnDisk::of(&Program::handover_command());
        let program = Program::start(with_hub(&mut on_disk.command(), mode, &scratch, "127.0.0.1:0", ""));
        let mut ending: Vec<EventStream> = program
            .bound
            .iter()
            .flat_map(|bound| {
                [0, 1].map(|minor| EventStream::ask(crate::common::RawClient::to(bound), "/events/a", "", minor))
            })
            .collect();
        ending.iter_mut().for_each(|stream| _ = stream.opening());
        let mut poll = program.client();
        poll.send("GET /events/a HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n");
        eventually("it waits", || {
            program.client().post("/events/b", "x").answer();
            let mut client = program.client();
            client.send("GET /events HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n");
            client.answer().text().contains("\"topic\":\"a\",\"subscribers\":5")
        });
        on_disk.replace("export HANDOVER_TEST_NEWEST=2\nexec \"$REAL\" \"$@\"");
        program.reload();
        for stream in &mut ending {
            let event = stream.event();
            let retry = event.strip_prefix("retry: ").and_then(|rest| rest.trim_end().parse::<u32>().ok());
            assert!(retry.is_some_and(|retry| (1000..5000).contains(&retry)), "{mode:?}: {event:?}");
            assert_eq!(stream.try_event(), Ok(None), "{mode:?}");
            stream.client.expect_fin();
        }
        let answer = poll.answer();
        assert!(answer.status == 200 && answer.text().starts_with("{\"messages\":[],"), "{mode:?}: {answer:?}");
        // And back again, with those that have come since.
        let subscribers = Subscribers::start(&program.bound, &plan);
        let publishers = Publishers::start(&program.bound, &plan, &subscribers);
        publishers.go_on_for(20);
        program.reload();
        on_disk.restore();
        program.reload();
        let published = finish(publishers, &plan);
        let heard = subscribers.stop(&published);
        eprintln!("{mode:?}: {} publications failed, {heard:?}", published.failures.len());
        assert_eq!((heard.missing, heard.twice), (0, 0), "{mode:?}: {heard:#?}");
        assert!(heard.wrong.is_empty() && heard.reconnects >= plan.streams + plan.polls, "{mode:?}: {heard:#?}");
        assert_eq!(program.stop(), Some(0));
    }
}

/// Some have moved then, and some have not: what it published to those that had is lost to these.
#[test]
fn a_successor_that_dies_while_connections_move_leaves_gaps_that_are_said() {
    let scratch = Scratch::new();
    let plan = Plan { streams: 500, publishers: 4, rate: 1000, ..small() };
    let mut command = Program::handover_command();
    with_hub(&mut command, Mode::Overlap, &scratch, "127.0.0.1:0", "");
    let program = Program::start(command.args(["--reload-probation", "20"]));
    let subscribers = Subscribers::start(&program.bound, &plan);
    let publishers = Publishers::start(&program.bound, &plan, &subscribers);
    for times in 1..=10 {
        publishers.go_on_for(100);
        program.signal(Signal::HUP);
        program.logged_times("is promoted", times);
        let successor = program.processes().into_iter().find(|pid| *pid != program.pid()).expect("a successor");
        std::thread::sleep(Duration::from_micros(700 * (times as u64 - 1)));
        program.signal_to(successor, Signal::KILL);
        program.logged_times("this process takes over again", times);
    }
    let published = finish(publishers, &plan);
    let heard = subscribers.stop(&published);
    eprintln!("{} of {} publications failed, {heard:?}", published.failures.len(), published.messages);
    assert_eq!((heard.missing, heard.twice), (0, 0), "{heard:#?}");
    assert!(heard.wrong.is_empty() && heard.gaps >= plan.streams + plan.polls, "{heard:#?}");
    program.signal(Signal::TERM);
    assert_eq!(program.exit().code, Some(0));
}
