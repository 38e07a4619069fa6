//! Push through reloads: every subscriber holds what it hears against what was published.
//!
//! `HANDOVER_PUSH_STREAMS`, `_POLLS`, `_TOPICS`, `_PUBLISHERS`, `_RATE` (messages a second) and `_UPGRADES` (in each mode)
//! say how much; `.ci/run soak` and `.ci/run deep` set them.

use crate::common::{Mode, Plan, Program, Publishers, Scratch, Subscribers, count};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// The program with a hub at `/events`, over TCP and a Unix socket. `more` is of the configuration, before `[[push]]`.
pub fn command(mode: Mode, scratch: &Scratch, more: &str) -> Command {
    let mut command = Program::handover_command();
    with_hub(&mut command, mode, scratch, "127.0.0.1:0", more);
    command
}

/// The same of that program, at that address. Its streams have no heartbeats, which would come between what a test waits
/// for.
pub fn with_hub<'c>(
    command: &'c mut Command,
    mode: Mode,
    scratch: &Scratch,
    address: &str,
    more: &str,
) -> &'c mut Command {
    let file = scratch.path("push.toml");
    let text = format!("{more}\n[[push]]\nprefix = \"/events\"\npublish = \"anyone\"\nheartbeat = 0\n");
    fs::write(&file, text).expect("a file");
    mode.flags(command).args(["-l", address, "-l"]);
    command.arg(format!("unix:{}", scratch.path("socket").display())).arg("-c").arg(file)
}

pub fn plan() -> Plan {
    Plan {
        streams: count("HANDOVER_PUSH_STREAMS", 100),
        polls: count("HANDOVER_PUSH_POLLS", 20),
        topics: count("HANDOVER_PUSH_TOPICS", 10),
        publishers: count("HANDOVER_PUSH_PUBLISHERS", 2),
        rate: count("HANDOVER_PUSH_RATE", 200),
        large: 3000,
        pause: Duration::from_secs(1),
    }
}

/// Nothing missing, nothing twice, no gap, no reconnect, no publication that failed.
fn expect_no_upgrade_noticed(mode: Mode, plan: &Plan, upgrades: usize) {
    let scratch = Scratch::new();
    let connections = (plan.streams + plan.polls) * 3 / 2 + 100;
    let room = format!("max_connections = {connections}\npush_memory = \"64M\"");
    let mut command = command(mode, &scratch, &room);
    let file = scratch.path("push.toml");
    let text = fs::read_to_string(&file).expect("it was written");
    fs::write(&file, text.replace("heartbeat = 0", "heartbeat = 1")).expect("a file");
    let program = Program::start(&mut command);
    let subscribers = Subscribers::start(&program.bound, plan);
    let publishers = Publishers::start(&program.bound, plan, &subscribers);
    for _ in 0..upgrades {
        publishers.go_on_for(plan.rate / 4);
        program.reload();
    }
    publishers.go_on_for(plan.rate / 4);
    let published = publishers.stop();
    let heard = subscribers.stop(&published);
    eprintln!(
        "{upgrades} upgrades by {}, {} streams and {} polls on {} topics: {} messages published, {} failed, slowest {:?}; \
         {} heard, {} missing, {} twice, {} gaps, {} reconnects, slowest {:?}",
        mode.name(),
        plan.streams,
        plan.polls,
        plan.topics,
        published.messages,
        published.failures.len(),
        published.slowest,
        heard.messages,
        heard.missing,
        heard.twice,
        heard.gaps,
        heard.reconnects,
        heard.slowest
    );
    published.expect_no_failure();
    heard.expect_nothing_noticed();
    assert_eq!((program.generations(), program.stop()), (upgrades + 1, Some(0)), "{mode:?}");
}

#[test]
fn no_subscriber_notices_an_upgrade() {
    for mode in Mode::BOTH {
        expect_no_upgrade_noticed(mode, &plan(), count("HANDOVER_PUSH_UPGRADES", 4));
    }
}

/// A part of an event is with the client, the rest moves, and what is behind it waits in the log.
#[test]
fn who_stops_reading_in_the_middle_of_an_event_notices_no_upgrade() {
    let plan = Plan {
        streams: 48,
        polls: 4,
        topics: 4,
        publishers: 2,
        rate: 200,
        large: 60_000,
        pause: Duration::from_millis(600),
    };
    for mode in Mode::BOTH {
        expect_no_upgrade_noticed(mode, &plan, 6);
    }
}
