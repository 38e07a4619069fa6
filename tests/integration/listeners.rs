//! Listeners that change at a reload: what is bound to the same goes on, what overlaps is bound beside it, and nobody who
//! connects to an address that stays is without a server for a moment.

use crate::common::{AS_ROOT, Load, Mode, OnDisk, Program, RawClient, Scratch, count, eventually};
use handover::Bound;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// A port that is free on all addresses of this host. Not one of those that the kernel gives out: other tests would get
/// it while nobody listens there.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32768_u16);
    let spread = (std::process::id() % 97) as u16 * 100;
    loop {
        let port = first.wrapping_sub(1 + NEXT.fetch_add(1, Ordering::Relaxed) + spread % (first / 2));
        let free = |host: &str| match TcpListener::bind((host, port)) {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::AddrInUse,
        };
        if free("0.0.0.0") && free("::") {
            return port;
        }
    }
}

fn has_v6() -> bool {
    let has = TcpListener::bind("[::1]:0").is_ok();
    if !has {
        eprintln!("skipped: IPv6, which this machine has not");
    }
    has
}

/// What it stands for is this host's to say.
fn localhost_is_both() -> bool {
    let addresses =
        ("localhost", 80).to_socket_addrs().map(|all| all.map(|one| one.is_ipv4()).collect::<BTreeSet<_>>());
    let both = addresses.is_ok_and(|families| families.len() == 2) && has_v6();
    if !both {
        eprintln!("skipped: localhost as two addresses, which it is not here");
    }
    both
}

fn tcp(address: &str) -> Bound {
    Bound::Tcp(address.parse::<SocketAddr>().unwrap_or_else(|_| panic!("no address: {address:?}")))
}

/// A lab whose listeners are in a file.
struct Lab {
    scratch: Scratch,
    program: Program,
    mode: Mode,
}

impl Lab {
    fn start(mode: Mode, listen: &[String]) -> Lab {
        Lab::start_with(mode, listen, |_| Program::lab_command())
    }

    fn start_with(mode: Mode, listen: &[String], command: impl FnOnce(&Scratch) -> Command) -> Lab {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path("run")).expect("a directory");
        symlink("run", scratch.path("alias")).expect("a link");
        write(&scratch, listen);
        let mut command = command(&scratch);
        let program = Program::start(mode.flags(&mut command).arg("-c").arg(scratch.path("lab.toml")));
        Lab { scratch, program, mode }
    }

    fn listen(&self, listen: &[String]) {
        write(&self.scratch, listen);
    }

    /// The next generation is there. In exec mode what is no longer configured is being closed by then.
    #[track_caller]
    fn reload(&self, listen: &[String]) {
        self.listen(listen);
        self.program.reload();
    }

    /// The reload fails for that reason, and nothing has changed.
    #[track_caller]
    fn refuses(&self, listen: &[String], reason: &str) {
        let failed = |lines: &[String]| lines.iter().filter(|line| line.contains("reload failed")).count();
        let (failures, generations) = (failed(&self.program.log()), self.program.generations());
        self.listen(listen);
        self.program.signal_to(self.program.current(), Signal::HUP);
        let line = self.program.logged_times("reload failed, serving on", failures + 1);
        assert!(line.contains(reason), "{:?}: {reason:?} is not in {line:?}", self.mode);
        assert_eq!(self.program.generations(), generations);
    }
}

fn write(scratch: &Scratch, listen: &[String]) {
    let listen: Vec<String> =
        listen.iter().map(|one| one.replace("unix:", &format!("unix:{}/", root(scratch)))).collect();
    fs::write(scratch.path("lab.toml"), format!("listen = {listen:?}\n")).expect("a file");
}

fn root(scratch: &Scratch) -> String {
    scratch.path("").display().to_string().trim_end_matches('/').to_owned()
}

#[track_caller]
fn expect_nobody(bound: &Bound) {
    eventually(&format!("{bound} is refused"), || match RawClient::try_to(bound) {
        Ok(_) => false,
        Err(error) => matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound),
    });
}

/// A second server is told that the address is in use.
#[track_caller]
fn expect_taken(address: &str) {
    let mut second = Program::lab_command();
    let status = second.args(["-l", address]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert_eq!(status.expect("the lab").code(), Some(69), "{address}");
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// One change, and back: who is at `stays` sees neither.
struct Change {
    before: Vec<String>,
    after: Vec<String>,
    stays: Vec<Bound>,
    /// Served before alone, and after alone.
    goes: Vec<Bound>,
    comes: Vec<Bound>,
}

fn nobody_notices(mode: Mode, change: &Change) {
    let lab = Lab::start(mode, &change.before);
    let unix = |bound: &Bound| match bound {
        Bound::Unix(path) => Bound::Unix(lab.scratch.path(path.to_str().expect("UTF-8"))),
        tcp => tcp.clone(),
    };
    let all = |bounds: &[Bound]| bounds.iter().map(unix).collect::<Vec<_>>();
    let (stays, goes, comes) = (all(&change.stays), all(&change.goes), all(&change.comes));
    let mut clients: Vec<RawClient> = stays.iter().chain(&goes).map(RawClient::to).collect();
    let mut load = Load::new();
    for bound in &stays {
        load = load.one_shot(bound, 2).keep_alive(bound, 2);
    }
    for (listen, served, nobody) in
        [(&change.after, &comes, &goes), (&change.before, &goes, &comes), (&change.after, &comes, &goes)]
    {
        load.go_on_for(50 * stays.len());
        lab.reload(listen);
        stays.iter().chain(served).for_each(|bound| RawClient::to(bound).expect_alive("/hello"));
        nobody.iter().for_each(expect_nobody);
        clients.iter_mut().for_each(|client| client.expect_alive("/hello"));
        for address in listen.iter().filter(|text| !text.starts_with("unix:")) {
            expect_taken(address);
        }
        load.go_on_for(50 * stays.len());
    }
    let tally = load.stop();
    assert_eq!(tally.failures, [""; 0], "{mode:?}: {:?} and {:?}", change.before, change.after);
    assert_eq!(lab.program.stop(), Some(0));
    stays.iter().chain(&comes).for_each(expect_nobody);
    for path in stays.iter().chain(&comes).chain(&goes) {
        assert!(!matches!(path, Bound::Unix(path) if path.exists()), "{path} was left behind");
    }
    let log = lab.program.log();
    let warns = |line: &&String| line.contains(" WARN ") || line.contains(" ERROR ");
    let warnings: Vec<_> = log.iter().filter(warns).filter(|line| !line.contains(AS_ROOT)).collect();
    assert_eq!(warnings, [""; 0], "{mode:?}");
}

fn in_both_modes(change: &Change) {
    Mode::BOTH.iter().for_each(|&mode| nobody_notices(mode, change));
}

#[test]
fn another_spelling_of_the_same_address_changes_nothing() {
    let port = free_port();
    let (before, after) = (vec![format!("127.0.0.1:{port}")], vec![format!("127.1:{port}")]);
    let stays = vec![tcp(&format!("127.0.0.1:{port}"))];
    in_both_modes(&Change { before, after, stays, goes: vec![], comes: vec![] });
}

#[test]
fn what_a_name_stands_for_besides_comes_and_goes_alone() {
    let port = free_port();
    let (before, after) = (vec![format!("127.0.0.1:{port}")], vec![format!("localhost:{port}")]);
    let stays = vec![tcp(&format!("127.0.0.1:{port}"))];
    let comes = if localhost_is_both() { vec![tcp(&format!("[::1]:{port}"))] } else { vec![] };
    in_both_modes(&Change { before, after, stays, goes: vec![], comes });
}

fn wildcard(one: &str, all: &str, beside: &str) {
    let port = free_port();
    let [one, all, beside] = [one, all, beside].map(|host| format!("{host}:{port}"));
    let beside = if beside.starts_with(':') { vec![] } else { vec![tcp(&beside)] };
    let (before, after, stays) = (vec![one.clone()], vec![all], vec![tcp(&one)]);
    in_both_modes(&Change { before, after, stays, goes: vec![], comes: beside });
}

#[test]
fn one_address_becomes_all_and_back() {
    wildcard("127.0.0.1", "0.0.0.0", "127.0.0.2");
}

#[test]
fn one_address_of_version_6_becomes_all_and_back() {
    if has_v6() {
        wildcard("[::1]", "[::]", "");
    }
}

#[test]
fn another_port_is_served_before_the_old_one_is_not() {
    let (port, other) = (free_port(), free_port());
    let [before, after, anchor] =
        [format!("127.0.0.1:{port}"), format!("127.0.0.1:{other}"), format!("127.0.0.2:{port}")];
    let (goes, comes, stays) = (vec![tcp(&before)], vec![tcp(&after)], vec![tcp(&anchor)]);
    in_both_modes(&Change { before: vec![before, anchor.clone()], after: vec![after, anchor], stays, goes, comes });
}

#[test]
fn a_unix_socket_is_the_same_by_another_path() {
    let (before, after) = (strings(&["unix:run/s"]), strings(&["unix:alias/s"]));
    let stays = vec![Bound::Unix("run/s".into())];
    in_both_modes(&Change { before, after, stays, goes: vec![], comes: vec![] });
}

#[test]
fn the_order_changes_nothing() {
    let port = free_port();
    let [one, other] = [format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}")];
    let (before, after) =
        (vec![one.clone(), other.clone(), "unix:run/s".into()], vec!["unix:run/s".into(), other.clone(), one.clone()]);
    let stays = vec![tcp(&one), tcp(&other), Bound::Unix("run/s".into())];
    in_both_modes(&Change { before, after, stays, goes: vec![], comes: vec![] });
}

/// It was bound beside the old one, which is alone again.
#[test]
fn a_reload_that_fails_leaves_the_old_listener_as_it_was() {
    for mode in Mode::BOTH {
        let port = free_port();
        let [one, all] = [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}")];
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = taken.local_addr().expect("its address").to_string();
        for (before, after) in [(&one, &all), (&all, &one)] {
            let socket = "unix:run/s".to_owned();
            let lab = Lab::start_with(mode, &[before.clone(), socket.clone()], |scratch| {
                let mut command = Program::lab_command();
                command.env("LAB_TRAP", scratch.path("trap"));
                command
            });
            let stays = [tcp(&one), Bound::Unix(lab.scratch.path("run/s"))];
            let load = Load::new().one_shot(&stays[0], 2).keep_alive(&stays[0], 2).one_shot(&stays[1], 1);
            load.go_on_for(50);
            lab.refuses(&[after.clone(), taken.clone()], "address in use");
            load.go_on_for(50);
            expect_taken(after);
            // In overlap mode that trap is for a successor that has served.
            if mode == Mode::Exec {
                fs::write(lab.scratch.path("trap"), "restore").expect("a file");
                lab.refuses(std::slice::from_ref(after), "it panicked");
                load.go_on_for(50);
                expect_taken(after);
                fs::write(lab.scratch.path("trap"), "").expect("a file");
            }
            assert_eq!(load.stop().failures, [""; 0], "{mode:?}: {before} and {after}");
            lab.reload(&[after.clone(), "unix:alias/s".to_owned()]);
            stays.iter().for_each(|bound| RawClient::to(bound).expect_alive("/hello"));
            assert_eq!(lab.program.stop(), Some(0));
        }
    }
}

/// The kernel gives it the clients of its one address, which are those of the new one as well: they once waited in its
/// queue for as long as the successor had to prove itself.
#[test]
fn who_comes_to_the_old_listener_on_probation_is_served_at_once() {
    let port = free_port();
    let [one, all] = [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}")];
    let scratch = Scratch::new();
    write(&scratch, std::slice::from_ref(&one));
    let mut command = Program::lab_command();
    // One that carries nothing over proves itself on clients first.
    command.env("LAB_STATELESS", "1");
    let command = command.args(["--reload", "overlap", "--reload-probation", "60", "-c"]);
    let program = Program::start(command.arg(scratch.path("lab.toml")));
    let mut before = program.client();
    write(&scratch, &[all]);
    program.signal(Signal::HUP);
    program.logged("accepts, ");
    RawClient::to(&tcp(&one)).expect_alive("/hello");
    before.expect_alive("/hello");
    RawClient::to(&tcp(&format!("127.0.0.2:{port}"))).expect_alive("/hello");
    assert!(!program.log().iter().any(|line| line.contains("is promoted")));
    // The new one takes nobody with it, either: what it has bound is the more general one.
    program.signal_to(program.generation(2), Signal::TERM);
    assert_eq!(program.exit().code, Some(0));
}

/// Of whom nobody knows which of its places are kept.
#[test]
fn an_older_version_on_either_side_keeps_the_listeners_too() {
    for older_first in [true, false] {
        let (port, on_disk) = (free_port(), OnDisk::of(&Program::lab_command()));
        let [one, again, other] = ["127.0.0.1", "127.1", "127.0.0.2"].map(|host| format!("{host}:{port}"));
        let older = "export HANDOVER_TEST_NEWEST=2; exec \"$REAL\" \"$@\"";
        let lab = Lab::start_with(Mode::Overlap, &[one.clone(), other.clone()], |_| {
            let mut command = on_disk.command();
            if older_first {
                command.env("HANDOVER_TEST_NEWEST", "2");
            }
            command
        });
        on_disk.replace(if older_first { "unset HANDOVER_TEST_NEWEST; exec \"$REAL\" \"$@\"" } else { older });
        let load = Load::new().one_shot(&tcp(&one), 2).keep_alive(&tcp(&one), 2);
        load.go_on_for(50);
        lab.reload(std::slice::from_ref(&again));
        expect_nobody(&tcp(&other));
        load.go_on_for(50);
        lab.reload(&[again, other.clone()]);
        RawClient::to(&tcp(&other)).expect_alive("/hello");
        load.go_on_for(50);
        assert_eq!(load.stop().failures, [""; 0], "older first: {older_first}");
        assert_eq!(lab.program.stop(), Some(0));
    }
}

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// A configuration, and who can be reached with it.
struct Drawn {
    listen: Vec<String>,
    served: BTreeSet<String>,
}

/// Somebody is always there, so that not all can go at once.
const ANCHOR: &str = "127.0.0.9";

impl Drawn {
    fn new(random: &mut Random, ports: &[u16], v6: bool, localhost: bool) -> Drawn {
        let (mut listen, mut served) = (Vec::new(), BTreeSet::new());
        let anchor = format!("{ANCHOR}:{}", ports[0]);
        for &port in ports {
            let mut add = |host: &str, serves: &[&str]| {
                listen.push(format!("{host}:{port}"));
                served.extend(serves.iter().map(|host| format!("{host}:{port}")));
            };
            let names: &[&str] = if localhost { &["127.0.0.1", "127.1"] } else { &["127.0.0.1", "127.1", "localhost"] };
            let (v4, v6) = (random.below(6), if v6 { random.below(3) } else { 0 });
            let is_both = localhost && matches!((v4, v6), (2 | 4, 1)) && random.below(2) == 0;
            match v4 {
                0 => add(random.one_of(&["0.0.0.0", "0"]), &["127.0.0.1", "127.0.0.2", ANCHOR]),
                1 => add("127.0.0.2", &["127.0.0.2"]),
                2 | 4 if is_both => add("localhost", &["127.0.0.1", "[::1]"]),
                2 | 4 => add(random.one_of(names), &["127.0.0.1"]),
                3 => {
                    add("127.0.0.2", &["127.0.0.2"]);
                    add(random.one_of(&["127.0.0.1", "127.0.1"]), &["127.0.0.1"]);
                }
                _ => {}
            }
            match v6 {
                1 if !is_both => add(random.one_of(&["[::1]", "[0:0:0:0:0:0:0:1]"]), &["[::1]"]),
                2 => add("[::]", &["[::1]"]),
                _ => {}
            }
        }
        for (name, alias) in [("unix:run/s", "unix:alias/s"), ("unix:run/t", "unix:alias/../run/t")] {
            if random.below(3) > 0 {
                listen.push(random.one_of(&[name, alias]).to_owned());
                served.insert(name.to_owned());
            }
        }
        if served.insert(anchor.clone()) {
            listen.push(anchor);
        }
        for at in (1..listen.len()).rev() {
            listen.swap(at, random.below(at + 1));
        }
        Drawn { listen, served }
    }
}

/// `HANDOVER_SEED` and `HANDOVER_CHANGES` say which changes, and how many.
fn always_what_the_configuration_says(mode: Mode) {
    let seed = count("HANDOVER_SEED", 13);
    let (mut random, v6, localhost) = (Random(seed as u64), has_v6(), localhost_is_both());
    let ports = [free_port(), free_port()];
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("its address").to_string();
    let mut now = Drawn::new(&mut random, &ports, v6, localhost);
    let lab = Lab::start(mode, &now.listen);
    let bound = |text: &str| match text.strip_prefix("unix:") {
        Some(path) => Bound::Unix(lab.scratch.path(path)),
        None => tcp(text),
    };
    let hosts: &[&str] =
        if v6 { &["127.0.0.1", "127.0.0.2", ANCHOR, "[::1]"] } else { &["127.0.0.1", "127.0.0.2", ANCHOR] };
    let mut everywhere: BTreeSet<String> =
        ports.iter().flat_map(|port| hosts.iter().map(move |host| format!("{host}:{port}"))).collect();
    everywhere.extend(strings(&["unix:run/s", "unix:run/t"]));
    let all_the_time = Load::new().keep_alive(&tcp(&format!("{ANCHOR}:{}", ports[0])), 2);
    let mut idle: Vec<RawClient> = Vec::new();
    let (mut answered, mut refused) = (0, 0);
    let changes = count("HANDOVER_CHANGES", 50);
    for change in 1..=changes {
        let next = Drawn::new(&mut random, &ports, v6, localhost);
        let fails = random.below(8) == 0;
        let said = || format!("{mode:?}, seed {seed}, change {change}: {:?} → {:?}", now.listen, next.listen);
        let stays: Vec<Bound> =
            now.served.iter().filter(|one| fails || next.served.contains(*one)).map(|one| bound(one)).collect();
        let served: Vec<&str> = now.served.iter().map(String::as_str).collect();
        let mut load = Load::new();
        for one in &stays {
            load = load.one_shot(one, 1);
        }
        load = load.keep_alive(&bound(random.one_of(&served)), 2);
        idle.push(RawClient::to(&bound(random.one_of(&served))));
        load.go_on_for(20);
        if fails {
            let mut listen = next.listen.clone();
            listen.insert(random.below(listen.len() + 1), taken.clone());
            lab.refuses(&listen, "address in use");
            refused += 1;
        } else {
            lab.reload(&next.listen);
        }
        load.go_on_for(20);
        let tally = load.stop();
        assert_eq!(tally.failures, [""; 0], "{}", said());
        answered += tally.answered;
        let served = if fails { &now.served } else { &next.served };
        served.iter().for_each(|one| RawClient::to(&bound(one)).expect_alive("/hello"));
        everywhere.difference(served).for_each(|one| expect_nobody(&bound(one)));
        idle.iter_mut().for_each(|client| client.expect_alive("/hello"));
        idle.truncate(20);
        if !fails {
            now = next;
        }
    }
    let tally = all_the_time.stop();
    assert_eq!(tally.failures, [""; 0], "{mode:?}, seed {seed}");
    answered += tally.answered;
    eprintln!("{mode:?}, seed {seed}: {changes} changes, {refused} of them refused, {answered} requests, 0 failed");
    assert_eq!(lab.program.stop(), Some(0));
    assert!(lab.program.logged("stopped: ").contains("cut=0"));
}

#[test]
fn always_what_the_configuration_says_in_overlap() {
    always_what_the_configuration_says(Mode::Overlap);
}

#[test]
fn always_what_the_configuration_says_in_exec() {
    always_what_the_configuration_says(Mode::Exec);
}
