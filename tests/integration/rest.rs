//! What the program gives back when nobody asks for anything, and that it is there again for whoever does.

#[cfg(target_env = "gnu")]
use crate::common::Size;
use crate::common::{Program, eventually};
use std::fs;
use std::thread;
use std::time::Duration;

/// How much there is of the text of the file that `pid` runs, and how much of it is resident, in KiB.
fn text(pid: u32) -> (u64, u64) {
    let path = fs::read_link(format!("/proc/{pid}/exe")).expect("/proc");
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("/proc");
    let is_text = |line: &&str| line.contains(" r-xp ") && line.ends_with(path.to_str().expect("UTF-8"));
    let mut text = maps.lines().skip_while(|line| !is_text(line));
    let mut figure = |name| kib(text.find_map(|line| line.strip_prefix(name)).expect("proc(5)"));
    (figure("Size:"), figure("Rss:"))
}

fn kib(text: &str) -> u64 {
    text.trim().strip_suffix(" kB").and_then(|number| number.parse().ok()).expect("a number of KiB")
}

#[test]
fn pages_of_the_program_go_and_come_back() {
    let lab = Program::lab([""; 0]);
    let mut client = lab.client();
    for _ in 0..2 {
        client.expect_alive("/hello");
        // A start leaves nearly all of it, and requests bring most of that back.
        eventually("a quarter of the program is given back", || {
            let (size, resident) = text(lab.pid());
            resident < size / 4 * 3
        });
    }
    assert_eq!(lab.stop(), Some(0));
}

/// The other allocators are not told.
#[cfg(target_env = "gnu")]
#[test]
fn what_connections_took_goes_back_to_the_system() {
    let lab = Program::lab(["--max-connections", "2000", "--head-timeout", "60"]);
    let before = Size::of(lab.pid()).allocated;
    let mut clients: Vec<_> = (0..800).map(|_| lab.client()).collect();
    for client in &mut clients {
        client.expect_alive("/hello");
        client.send(format!("GET /hello HTTP/1.1\r\nHost: test\r\nX-Long: {}", "x".repeat(3000)));
    }
    // What is left in the end, among others' pieces, the system would not get without being given it.
    let keep = clients.split_off(790);
    lab.client().expect_alive("/hello");
    let most = Size::of(lab.pid()).allocated;
    drop(clients);
    eventually("most of it is given back", || Size::of(lab.pid()).allocated < before + (most - before) / 4);
    for mut client in keep {
        assert_eq!(client.send("\r\n\r\n").answer().status, 200);
    }
    assert_eq!(lab.stop(), Some(0));
}

/// How often threads of that name have gone to sleep.
fn sleeps(pid: u32, name: &str) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("/proc");
    let status = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("status")).expect("it runs on");
    let of_status = |status: String| {
        let figure = |field| status.lines().find_map(|line| line.strip_prefix(field)).map(str::trim);
        figure("Name:").filter(|named| named.starts_with(name))?;
        figure("voluntary_ctxt_switches:")?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(|thread| of_status(status(thread))).sum()
}

/// A session's connections wait without an end, and that was taken for a time long past: they had a turn each second, or four.
#[test]
fn sessions_that_wait_have_no_turn() {
    let lab = Program::lab([""; 0]);
    let mut clients = Vec::new();
    for number in 0..3 {
        let mut client = lab.client();
        client.send(format!("GET /sockjs/echo/0/waits{number}/eventsource HTTP/1.1\r\nHost: test\r\n\r\n"));
        client.read_past(b"data: o\r\n\r\n").expect("it is open");
        clients.push(client);
    }
    let before = sleeps(lab.pid(), "worker");
    assert!(before > 0);
    thread::sleep(Duration::from_secs(5));
    let more = sleeps(lab.pid(), "worker") - before;
    assert!(more < 3, "workers have been woken {more} times");
    assert_eq!(lab.stop(), Some(0));
}
