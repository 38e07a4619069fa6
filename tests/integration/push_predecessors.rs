//! Push where a predecessor dies, or stands still, at each of its own steps of a switch.

use crate::common::{Heard, Mode, Plan, Program, Published, Publishers, Scratch, Subscribers, eventually};
use crate::push::with_hub;
use rustix::process::Signal;
use std::fs;
use std::thread;
use std::time::Duration;

/// In their order.
const STEPS: [&str; 8] = [
    "predecessor-switch",
    "predecessor-promote",
    "predecessor-promoted",
    "predecessor-go",
    "predecessor-sent",
    "predecessor-acked",
    "predecessor-commit",
    "predecessor-leaves",
];

/// How often each is tried: a process that was a successor becomes a predecessor with the same fault.
const TIMES: usize = 2;

fn is_before(step: &str, other: &str) -> bool {
    let place = |step: &str| STEPS.iter().position(|one| *one == step).expect("a step");
    place(step) < place(other)
}

/// Everybody listens and publishes, and each generation has that fault as a predecessor.
struct Faulty {
    scratch: Scratch,
    plan: Plan,
    program: Program,
    subscribers: Subscribers,
    publishers: Publishers,
    /// What was published besides, to each topic.
    besides: u64,
}

impl Faulty {
    fn start(variable: &str, step: &str, plan: Plan) -> Faulty {
        let scratch = Scratch::new();
        let mut command = Program::handover_command();
        with_hub(&mut command, Mode::Overlap, &scratch, "127.0.0.1:0", "");
        command.arg("--pid-file").arg(scratch.path("pid"));
        let program = Program::start(command.env(variable, step));
        let listened_to = Plan { publishers: plan.publishers + 1, ..plan.clone() };
        let subscribers = Subscribers::start(&program.bound, &listened_to);
        let publishers = Publishers::start(&program.bound, &plan, &subscribers);
        Faulty { scratch, plan, program, subscribers, publishers, besides: 0 }
    }

    /// Whoever was ready last reloads. Answers its pid.
    fn reload(&self) -> u32 {
        self.publishers.go_on_for(20);
        let old = self.program.current();
        self.program.signal_to(old, Signal::HUP);
        old
    }

    /// By clients that have just come: those that stay may wait for a predecessor.
    fn publish_besides(&mut self) {
        self.besides += 1;
        for topic in 0..self.plan.topics {
            let body = format!("{topic} {} {} 0 ", self.plan.publishers, self.besides);
            let answer = self.program.client().post(&format!("/events/t{topic}"), body).answer();
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }

    /// The successor is all that there is, and what supervisors know.
    #[track_caller]
    fn expect_alone(&self, new: u32) {
        assert_eq!(self.program.processes(), [new]);
        let pid = || fs::read_to_string(self.scratch.path("pid")).unwrap_or_default();
        eventually("the pid file is its own", || pid() == format!("{new}\n"));
    }

    /// Nothing missing and nothing twice. Answers what was published and heard.
    #[track_caller]
    fn finish(self, step: &str) -> (Published, Heard) {
        let Faulty { scratch: _scratch, plan, program, subscribers, publishers, besides } = self;
        // So that whoever waits for what is gone hears of it.
        publishers.go_on_for(plan.rate / 4);
        let mut published = publishers.stop();
        published.last.extend((0..plan.topics).map(|topic| ((topic, plan.publishers), besides)));
        let heard = subscribers.stop(&published);
        let failed = published.failures.len();
        eprintln!("{step}: {failed} publications failed, {} gaps, {} reconnects", heard.gaps, heard.reconnects);
        assert_eq!((heard.missing, heard.twice), (0, 0), "{step}: {heard:#?}");
        assert!(heard.wrong.is_empty(), "{step}: {heard:#?}");
        assert_eq!(program.stop(), Some(0), "{step}");
        (published, heard)
    }
}

fn plan() -> Plan {
    Plan { streams: 40, polls: 10, topics: 5, publishers: 2, rate: 400, large: 3000, pause: Duration::from_millis(100) }
}

/// Whether it is stopped.
fn is_stopped(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| status.contains("State:\tT"))
}

/// The predecessor has ended at that step, or is made to.
#[track_caller]
fn expect_the_successor_to_serve(variable: &str, step: &str, end: impl Fn(&mut Faulty, u32)) {
    let mut faulty = Faulty::start(variable, step, plan());
    let all = faulty.plan.streams + faulty.plan.polls;
    for times in 1..=TIMES {
        let old = faulty.reload();
        end(&mut faulty, old);
        faulty.program.wait_for_end(old);
        let new = faulty.program.generation(times + 1);
        faulty.expect_alone(new);
    }
    let (_, heard) = faulty.finish(step);
    // Whoever is not reading just then may come back once for both times.
    let each = all..=TIMES * all;
    // Without the predecessor's log there is nothing to go on with, and everybody is told. With it nothing is lost.
    let gaps = if step == "predecessor-switch" { each.clone() } else { 0..=0 };
    // All go in one packet, which is the successor's once it was sent.
    let reconnects = if is_before(step, "predecessor-sent") { each } else { 0..=0 };
    let holds = gaps.contains(&heard.gaps) && reconnects.contains(&heard.reconnects);
    assert!(holds, "{step}: not {gaps:?} gaps and {reconnects:?} reconnects: {heard:#?}");
}

#[test]
fn a_predecessor_that_is_killed_leaves_everybody_to_its_successor() {
    for step in STEPS {
        expect_the_successor_to_serve("HANDOVER_TEST_KILL", step, |_, _| {});
    }
}

/// Its successor is as far as it gets by then, and has published what the others hear when they come.
#[test]
fn a_predecessor_that_is_killed_while_it_stands_still_leaves_everybody_to_its_successor() {
    for step in STEPS {
        expect_the_successor_to_serve("HANDOVER_TEST_STOP", step, |faulty, old| {
            eventually("it stands still", || is_stopped(old));
            if !is_before(step, "predecessor-go") {
                faulty.publish_besides();
            }
            faulty.program.signal_to(old, Signal::KILL);
        });
    }
}

/// It goes on where it was. From GO on its successor serves whoever comes meanwhile.
#[test]
fn a_predecessor_that_stands_still_for_a_while_is_noticed_by_nobody() {
    for step in STEPS {
        let mut faulty = Faulty::start("HANDOVER_TEST_STOP", step, plan());
        for times in 1..=TIMES {
            let old = faulty.reload();
            eventually("it stands still", || is_stopped(old));
            if !is_before(step, "predecessor-go") {
                faulty.publish_besides();
            }
            thread::sleep(Duration::from_millis(150));
            faulty.program.signal_to(old, Signal::CONT);
            let new = faulty.program.generation(times + 1);
            faulty.program.wait_for_end(old);
            faulty.expect_alone(new);
        }
        let (published, heard) = faulty.finish(step);
        published.expect_no_failure();
        heard.expect_nothing_noticed();
    }
}

/// Some have moved then, and some have not: these come back to the successor, which has what they have not heard.
#[test]
fn a_predecessor_that_dies_while_connections_move_loses_no_message() {
    let plan = Plan { streams: 500, publishers: 4, rate: 1000, ..plan() };
    let faulty = Faulty::start("HANDOVER_TEST_KILL", "nowhere", plan);
    for times in 1..=6 {
        let old = faulty.reload();
        faulty.program.logged_times("is promoted", times);
        thread::sleep(Duration::from_micros(700 * (times as u64 - 1)));
        // It may be done.
        if faulty.program.is_ours(old) {
            faulty.program.signal_to(old, Signal::KILL);
        }
        faulty.program.wait_for_end(old);
        let new = faulty.program.generation(times + 1);
        faulty.expect_alone(new);
    }
    let (_, heard) = faulty.finish("while they move");
    assert_eq!(heard.gaps, 0, "{heard:#?}");
}
