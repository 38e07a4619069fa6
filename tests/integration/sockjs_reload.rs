//! Sessions of SockJS through reloads: each answer is the next number, whatever is reloaded meanwhile and how.

use crate::common::sockjs::{Session, Transport, ask, messages, new_session, request};
use crate::common::{Mode, OnDisk, Program, RawClient, count, eventually};
use rustix::process::Signal;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const GO_AWAY: &str = "c[3000,\"Go away!\"]";
const COUNT: &str = "/sockjs/count";

/// In that mode, with these variables.
fn starts(command: &mut Command, mode: Mode, variables: &[(&str, &str)]) -> Program {
    let command = mode.flags(command).args(["-l", "127.0.0.1:0"]);
    Program::start(command.envs(variables.iter().copied()))
}

fn lab(mode: Mode) -> Program {
    starts(&mut Program::lab_command(), mode, &[])
}

#[track_caller]
fn open(program: &Program, transport: Transport) -> Session {
    Session::open(&program.bound[0], COUNT, transport)
}

/// The next number, which is that one; or what is wrong instead.
fn counts(session: &mut Session, number: usize) -> Result<(), String> {
    session.try_say(&["next"])?;
    match session.try_message()? {
        text if text == number.to_string() => Ok(()),
        text => Err(format!("{text} instead of {number}")),
    }
}

/// `HANDOVER_SESSIONS` says how many there are, a third of each transport, and `HANDOVER_UPGRADES` how many reloads in each
/// mode.
fn counts_through_reloads(mode: Mode) {
    const THREADS: usize = 4;
    const PAUSE: Duration = Duration::from_millis(50);
    const TRANSPORTS: [Transport; 3] = [Transport::Xhr, Transport::XhrStreaming, Transport::WebSocket];
    let (sessions, upgrades) = (count("HANDOVER_SESSIONS", 48), count("HANDOVER_UPGRADES", 3));
    let most = (sessions * 4 + 100).to_string();
    let program = starts(Program::lab_command().args(["--max-connections", &most]), mode, &[]);
    let (rounds, ends) = (AtomicUsize::new(0), AtomicBool::new(false));
    let answers: usize = thread::scope(|scope| {
        let talk = |share: usize| {
            let mut sessions: Vec<Session> =
                (0..share).map(|number| open(&program, TRANSPORTS[number % TRANSPORTS.len()])).collect();
            let ports: Vec<u16> = sessions.iter_mut().map(|session| session.client().local_port()).collect();
            let mut answers = 0;
            while !ends.load(Ordering::Relaxed) {
                let began = Instant::now();
                answers += 1;
                // Half of the polls are there before what they bring, and all of them at the end of each other round.
                for (number, session) in sessions.iter_mut().enumerate() {
                    if (number + answers) % 2 == 0 {
                        session.ask();
                    }
                    let said = session.try_say(&["next"]);
                    said.unwrap_or_else(|wrong| panic!("{mode:?} {number} {answers}: {wrong}"));
                }
                for (number, session) in sessions.iter_mut().enumerate() {
                    let message = session.try_message();
                    assert_eq!(message, Ok(answers.to_string()), "{mode:?} {number}");
                    if answers % 2 == 0 {
                        session.ask();
                    }
                }
                rounds.fetch_add(1, Ordering::Relaxed);
                thread::sleep(PAUSE.saturating_sub(began.elapsed()));
            }
            let now: Vec<u16> = sessions.iter_mut().map(|session| session.client().local_port()).collect();
            assert_eq!(now, ports);
            answers * share
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(move || talk(sessions / THREADS))).collect();
        for _ in 0..=upgrades {
            let before = rounds.load(Ordering::Relaxed);
            eventually("all go on", || {
                rounds.load(Ordering::Relaxed) >= before + 3 * THREADS || threads.iter().any(|one| one.is_finished())
            });
            if program.generations() <= upgrades {
                program.reload();
            }
        }
        ends.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("each answer was the next")).sum()
    });
    println!("{mode:?}: {sessions} sessions, {upgrades} upgrades, {answers} answers, each the next number");
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn every_answer_of_a_session_is_the_next_number_by_exec() {
    counts_through_reloads(Mode::Exec);
}

#[test]
fn every_answer_of_a_session_is_the_next_number_by_overlap() {
    counts_through_reloads(Mode::Overlap);
}

/// What was sent to it waits for the poll behind the reload, and one that nobody asks for any more ends there.
#[test]
fn a_session_between_two_polls_goes_through_a_reload() {
    for mode in Mode::BOTH {
        let program = lab(mode);
        let mut sessions = [Transport::Xhr, Transport::Jsonp].map(|transport| open(&program, transport));
        let forgotten = open(&program, Transport::Xhr);
        for round in 0..3_usize {
            for session in &mut sessions {
                session.say(&["next"]);
            }
            program.reload();
            for session in &mut sessions {
                assert_eq!(session.message(), (3 * round + 1).to_string(), "{mode:?}");
                for more in 2..=3 {
                    assert_eq!(counts(session, 3 * round + more), Ok(()), "{mode:?}");
                }
            }
        }
        eventually("the other has ended", || {
            let target = format!("{}xhr_send", forgotten.url);
            ask(&mut program.client(), "POST", &target, "", "[]").status == 404
        });
        assert_eq!(program.stop(), Some(0));
    }
}

/// It does not read what it asks for, again and again: what it has not had yet stays in the log.
#[test]
fn a_stream_that_nobody_reads_goes_through_a_reload() {
    const SENT: usize = 60;
    for mode in Mode::BOTH {
        let program = lab(mode);
        let url = format!("/sockjs/broadcast/000/{}", new_session());
        let mut client = RawClient::to(&program.bound[0]).with_small_window();
        assert_eq!(ask(&mut client, "POST", &format!("{url}/xhr"), "", "").text(), "o\n");
        let stream = request("POST", &format!("{url}/xhr_streaming"), "", "");
        client.send(stream.repeat(SENT));
        let text = |number: usize| format!("{number} {}", "x".repeat(50_000));
        let mut sender = program.client();
        for number in 0..SENT {
            let body = format!("[\"{}\"]", text(number));
            assert_eq!(ask(&mut sender, "POST", &format!("{url}/xhr_send"), "", &body).status, 204);
            if number % 20 == 19 {
                program.reload();
            }
        }
        let mut came = 0;
        while came < SENT {
            let head = client.head();
            assert_eq!(head.status, 200, "{mode:?} {head:?}");
            assert_eq!(client.chunk().expect("a prelude").map(|chunk| chunk.len()), Some(2049));
            while came < SENT
                && let Some(frame) = client.chunk().expect("a piece")
            {
                for message in messages(std::str::from_utf8(&frame).expect("UTF-8")) {
                    assert!(message == text(came), "{mode:?}: {message:.40} instead of {came}");
                    came += 1;
                }
            }
        }
        assert_eq!(program.stop(), Some(0));
    }
}

/// Before GO it has said nothing to anybody.
#[test]
fn a_successor_that_fails_before_it_serves_is_noticed_by_no_session() {
    for step in ["successor-promote", "successor-restored"] {
        for variable in ["HANDOVER_TEST_KILL", "HANDOVER_TEST_STOP"] {
            let variables = [(variable, step), ("HANDOVER_TEST_PROMOTION_TIMEOUT", "0.1")];
            let program = starts(&mut Program::lab_command(), Mode::Overlap, &variables);
            let mut sessions = Transport::ALL.map(|transport| open(&program, transport));
            for times in 1..=2 {
                sessions.iter_mut().for_each(|session| assert_eq!(counts(session, 2 * times - 1), Ok(())));
                if times == 1 {
                    sessions.iter_mut().for_each(|session| _ = session.ask());
                }
                program.signal(Signal::HUP);
                program.logged_times("reload failed, serving on", times);
                sessions.iter_mut().for_each(|session| assert_eq!(counts(session, 2 * times), Ok(()), "{step}"));
            }
            assert_eq!((program.generations(), program.stop()), (1, Some(0)));
        }
    }
}

/// The program that is executed cannot start, and the one before comes back.
#[test]
fn an_exec_that_leads_nowhere_is_noticed_by_no_session() {
    let on_disk = OnDisk::of(&Program::lab_command());
    let program = starts(&mut on_disk.command(), Mode::Exec, &[]);
    let mut sessions = Transport::ALL.map(|transport| open(&program, transport));
    for times in 1..=2 {
        sessions.iter_mut().for_each(|session| assert_eq!(counts(session, 2 * times - 1), Ok(())));
        on_disk.replace_behind_the_check(&format!("exec \"$REAL\" --no-such-flag-{times} \"$@\""));
        program.signal(Signal::HUP);
        program.logged_times("reload failed, serving on", times);
        sessions.iter_mut().for_each(|session| assert_eq!(counts(session, 2 * times), Ok(())));
    }
    on_disk.restore();
    program.reload();
    sessions.iter_mut().for_each(|session| assert_eq!(counts(session, 5), Ok(())));
    assert_eq!(program.stop(), Some(0));
}

/// Nobody knows what it has done with them: each is told, or sees its connection end, and nobody waits.
#[test]
fn a_successor_that_dies_after_it_served_closes_sessions() {
    for step in ["successor-go", "successor-connection", "successor-acked", "successor-commit"] {
        let mut command = Program::lab_command();
        let mut program = Mode::Overlap.flags(&mut command).args(["-l", "127.0.0.1:0", "--reload-probation", "5"]);
        program = program.env("HANDOVER_TEST_KILL", step);
        let program = Program::start(program);
        for times in 1..=2 {
            let mut sessions = Transport::ALL.map(|transport| open(&program, transport));
            sessions.iter_mut().for_each(|session| assert_eq!(counts(session, 1), Ok(())));
            sessions.iter_mut().for_each(|session| _ = session.ask());
            let mut polls = [Transport::Xhr, Transport::Jsonp].map(|transport| open(&program, transport));
            program.signal(Signal::HUP);
            program.logged_times("this process takes over again", times);
            let told = |said: &str| said == GO_AWAY || said.starts_with("c[1002,");
            for (transport, session) in Transport::ALL.into_iter().zip(&mut sessions) {
                // A WebSocket that had not moved goes on.
                let outcome = match transport {
                    Transport::WebSocket => counts(session, 2).map(|()| GO_AWAY.to_owned()),
                    _ => session.try_closed(),
                };
                match outcome {
                    Ok(frame) => assert!(told(&frame), "{step}: {frame}"),
                    Err(ending) => assert!(!ending.starts_with("Silence"), "{step}: {ending}"),
                }
            }
            // Of them it is known for 5 seconds only.
            for session in &mut polls {
                match session.try_closed() {
                    Ok(frame) => assert!(told(&frame) || frame == "o", "{step}: {frame}"),
                    Err(ending) => assert!(!ending.starts_with("Silence"), "{step}: {ending}"),
                }
            }
            let mut again = Transport::ALL.map(|transport| open(&program, transport));
            again.iter_mut().for_each(|session| assert_eq!(counts(session, 1), Ok(())));
        }
        program.signal(Signal::TERM);
        assert_eq!(program.exit().code, Some(0), "{step}");
    }
}

/// A program that knows no sessions yet.
#[test]
fn a_downgrade_closes_sessions_politely() {
    for mode in Mode::BOTH {
        for newest in ["2", "3"] {
            let on_disk = OnDisk::of(&Program::lab_command());
            let program = starts(&mut on_disk.command(), mode, &[]);
            let mut sessions = Transport::ALL.map(|transport| open(&program, transport));
            sessions.iter_mut().for_each(|session| assert_eq!(counts(session, 1), Ok(())));
            sessions.iter_mut().for_each(|session| _ = session.ask());
            let mut poll = open(&program, Transport::Xhr);
            on_disk.replace(&format!("export HANDOVER_TEST_NEWEST={newest}\nexec \"$REAL\" \"$@\""));
            program.reload();
            for (transport, session) in Transport::ALL.into_iter().zip(&mut sessions) {
                assert_eq!(session.closed(), GO_AWAY, "{mode:?} {newest} {transport:?}");
                if transport == Transport::WebSocket {
                    let end = session.try_frame().expect_err("it is closed");
                    assert_eq!(end, format!("a frame 8: {:?}", 1012_u16.to_be_bytes()));
                }
            }
            assert_eq!(poll.frame(), "o", "nobody knows it here");
            // And back.
            let mut again = Transport::ALL.map(|transport| open(&program, transport));
            on_disk.restore();
            program.reload();
            for session in &mut again {
                match session.try_say(&["next"]).and_then(|()| session.try_closed()) {
                    Ok(frame) => assert!([GO_AWAY, "o"].contains(&&frame[..]), "{mode:?}: {frame}"),
                    Err(ending) => assert!(!ending.starts_with("Silence"), "{mode:?}: {ending}"),
                }
            }
            assert_eq!(program.stop(), Some(0));
        }
    }
}
