"""The servers: how each is built, started, looked at and ended."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

from common import ROOT, TARGET, TICK, cpu_seconds, private_kib, status
from wire import Wire, Wrong
from workloads import BLOCK_MS, HELLO

HERE = pathlib.Path(__file__).resolve().parent
PEERS = ROOT / "target/peers"
NO_HANDLERS = "has no handlers of its own"
NO_CONDITIONS = "has no conditional requests"
CONSTANT_ONLY = "has only the constant answer"
# For the measurement with many idle connections, where a server has a limit.
MANY = 12_000
# Seconds without a request after which a server rests.
SETTLES = 2.0


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    about: str
    command: callable
    """From (place, kind of workload, many) to the arguments, the port being in `place`."""
    crate: str = ""
    needs: str = ""
    cannot: dict = dataclasses.field(default_factory=dict)
    blocking: tuple = (("", f"/block/{BLOCK_MS}"),)
    """What the mix asks to be blocked, with what to add to the name."""
    processes: tuple = ("",)
    """Kinds of workload that stand for its programs, where it has more than one; with what to add to the name."""

    def why_not(self, workload):
        return self.cannot.get(workload.name) or self.cannot.get(workload.kind)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a server runs: its port, the site, and a directory of its own."""

    port: int
    site: pathlib.Path
    own: pathlib.Path

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"


def rust(name):
    return lambda place, kind, many: [PEERS / "release" / f"peer-{name}", place.address, place.site]


def handover(place, kind, many):
    flags = ["-l", place.address]
    if many:
        flags += ["--max-connections", MANY, "--idle-timeout", 600]
    if kind in ("file", "missing", "unchanged"):
        return [TARGET / "handover", *flags, place.site]
    return [PEERS / "release/peer-handover", *flags]


def lighttpd(place, kind, many):
    conf = place.own / "lighttpd.conf"
    # It takes at most half as many connections as it has descriptors.
    limits = f"server.max-fds = {2 * MANY}\nserver.max-connections = {MANY}\n" if many else "server.max-fds = 4096\n"
    conf.write_text(
        f'server.document-root = "{place.site}"\nserver.bind = "127.0.0.1"\nserver.port = {place.port}\n'
        f"{limits}server.max-keep-alive-requests = 100000000\nserver.max-keep-alive-idle = 600\n"
        f'server.network-backend = "sendfile"\nmimetype.assign = ("" => "text/plain")\n'
    )
    return ["lighttpd", "-D", "-f", conf]


def nginx(place, kind, many):
    temporary = "".join(
        f"{name}_temp_path {place.own}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # A worker that is started as root would run as nobody, who may not enter the site's directory.
    user = "user root;\n" if os.geteuid() == 0 else ""
    conf = place.own / "nginx.conf"
    conf.write_text(
        f"daemon off;\n{user}worker_processes 2;\npid {place.own}/nginx.pid;\n"
        f"error_log {place.own}/nginx.log;\nevents {{ worker_connections {MANY if many else 2048}; }}\n"
        f"http {{\naccess_log off;\nsendfile on;\nkeepalive_requests 100000000;\nkeepalive_timeout 600;\n"
        f"default_type text/plain;\n{temporary}"
        f"server {{\nlisten {place.address};\nroot {place.site};\n"
        f'location = /hello {{ return 200 "{HELLO.decode()}"; }}\n}}\n}}\n'
    )
    return ["nginx", "-p", place.own, "-c", conf, "-e", place.own / "nginx.log"]


FEATURES = ("file", "missing", "unchanged", "echo", "close", "mix")
SERVERS = {
    server.name: server
    for server in (
        Server(
            "handover",
            "4 workers; files by the program, handlers by an application, with their defaults",
            handover,
            crate="handover",
            processes=(("application", "constant"), ("program", "file")),
        ),
        Server(
            "lighttpd",
            "Debian's, sendfile, one process; the constant answer is a file of 11 B",
            lighttpd,
            needs="lighttpd",
            cannot={"echo": NO_HANDLERS, "mix": NO_HANDLERS},
        ),
        Server(
            "nginx",
            "Debian's, sendfile, 2 workers; the constant answer is `return 200`",
            nginx,
            needs="nginx",
            cannot={"echo": NO_HANDLERS, "mix": NO_HANDLERS},
        ),
        Server(
            "axum",
            "on tokio's default runtime, a worker for each core; files by ServeDir of tower-http",
            rust("axum"),
            crate="axum",
            blocking=((", on the loop", f"/block/{BLOCK_MS}"), (", spawn_blocking", f"/block-in-pool/{BLOCK_MS}")),
        ),
        Server(
            "may_minihttp",
            "coroutines of may, a worker for each core; files read whole",
            rust("may_minihttp"),
            crate="may_minihttp",
            cannot={"unchanged": NO_CONDITIONS, "file-100m": "has no streamed bodies: each request holds the file twice"},
        ),
        Server(
            "khttp",
            "epoll loop and a pool of its default size, 10 threads or more",
            rust("khttp"),
            crate="khttp",
            cannot={"unchanged": NO_CONDITIONS},
        ),
        Server(
            "rouille",
            "as its documentation starts it: a thread for each connection and one for each request",
            rust("rouille"),
            crate="rouille",
        ),
        Server(
            "tiny_http",
            "a thread for each connection, then crossbeam-channel and a pool of 4",
            rust("tiny_http"),
            crate="tiny_http",
            cannot={"unchanged": NO_CONDITIONS},
        ),
        Server(
            "limit",
            "one thread, one epoll loop, the same bytes for each request, nothing parsed",
            rust("limit"),
            crate="limit",
            cannot={kind: CONSTANT_ONLY for kind in FEATURES},
        ),
    )
}


def build(servers):
    """Builds what is needed; answers with why one cannot be had, by name."""
    missing = {}
    cargo = ["cargo", "build", "--locked", "--release"]
    for server in servers:
        if server.needs and not shutil.which(server.needs):
            missing[server.name] = f"{server.needs} is not installed (Debian: apt-get install {server.needs})"
        commands = []
        if server.crate:
            commands.append(([*cargo, "-p", f"peer-{server.crate}", "--target-dir", str(PEERS)], HERE))
        if server.name == "handover":
            commands.append(([*cargo, "--bins"], ROOT))
        for command, where in commands:
            built = subprocess.run(command, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if built.returncode:
                print(built.stdout)
                missing[server.name] = "could not be built"
    # The load for the handlers that block.
    if any(server.crate for server in servers):
        subprocess.run([*cargo, "-p", "peer-mix", "--target-dir", str(PEERS)], cwd=HERE, check=True, capture_output=True)
    return missing


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Running:
    """A server's process, and those that it has started."""

    def __init__(self, server, site, own, kind="constant", many=False, before=(), patience=20.0):
        self.server = server
        self.place = Place(free_port(), site, own)
        self.port = self.place.port
        command = [str(part) for part in (*before, *server.command(self.place, kind, many))]
        self.log = open(own / f"{server.name}.log", "ab")
        began = time.perf_counter()
        self.child = subprocess.Popen(command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        try:
            self.wait_until_ready(began + patience)
        except BaseException:
            self.stop()
            raise
        self.ready_after = time.perf_counter() - began

    def wait_until_ready(self, until):
        while time.perf_counter() < until:
            if self.child.poll() is not None:
                raise Wrong(f"ended with {self.child.returncode} before it answered: {self.last_words()}")
            try:
                with Wire(self.port, timeout=5.0) as wire:
                    wire.send("GET", "/hello")
                    if wire.answer().status == 200:
                        return
            except OSError:
                time.sleep(0.0005)
        raise Wrong("did not answer in time")

    def last_words(self):
        lines = pathlib.Path(self.log.name).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing was printed"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def pids(self):
        return family(self.child.pid, parents())

    def cpu(self):
        """User and system time in seconds of all its processes, twice: in ticks, and of the threads that live."""
        return self.sum(cpu_seconds), self.sum(living_seconds)

    def sum(self, figure):
        return sum(figure(pid) for pid in self.pids())

    def at_rest(self):
        # Some give back memory when nothing is to be done.
        time.sleep(SETTLES)
        return {
            "rss": self.sum(lambda pid: status(pid, "VmRSS")),
            "private": self.sum(private_kib),
            "threads": self.sum(lambda pid: status(pid, "Threads")),
        }

    def stop(self):
        """TERM, and after five seconds KILL; only what was started here, by its pid."""
        pids = self.pids() if self.child.poll() is None else []
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.child.wait(5)
        self.log.close()


def living_seconds(pid):
    """To the nanosecond, but without the threads that have ended."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (OSError, IndexError):
            continue
    return total / 1e9


def cpu_between(before, after):
    """The exact figure where it is one: no thread took more with it than the ticks could have lost."""
    ticks, living = (later - earlier for earlier, later in zip(before, after))
    return living if abs(ticks - living) <= 2.5 / TICK else ticks


def parents():
    """The parent of each process, by pid."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    return found


def family(pid, parent_of):
    """`pid` and whoever descends from it."""
    members = [pid]
    for member in members:
        members += [child for child, parent in parent_of.items() if parent == member]
    return members


def program(server, place, kind):
    """The file that is run."""
    command = server.command(place, kind, False)
    return pathlib.Path(shutil.which(str(command[0])) or command[0]).resolve()


def dependencies(server):
    """How many crates it is built from besides itself, build scripts and macros left out."""
    if not server.crate:
        return None
    command = ["cargo", "tree", "--locked", "-p", f"peer-{server.crate}", "-e", "normal,no-proc-macro", "--prefix", "none"]
    out = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True).stdout
    return len(crates(out)) - 1


def crates(tree):
    """The different crates of `cargo tree --prefix none`, with their versions."""
    return {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}


def versions():
    """What has been measured with, as each says it itself."""
    found = {}
    for name, command in {
        "wrk": ["wrk", "-v"],
        "lighttpd": ["lighttpd", "-v"],
        "nginx": ["nginx", "-v"],
        "rustc": ["rustc", "--version"],
        "valgrind": ["valgrind", "--version"],
    }.items():
        if shutil.which(name):
            out = subprocess.run(command, capture_output=True, text=True)
            number = re.search(r"\d+(\.\d+)+", out.stdout + out.stderr)
            found[name] = number[0] if number else "unknown"
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    out = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    if out.returncode == 0:
        wanted = {"axum", "hyper", "tokio", "tower-http", "may", "may_minihttp", "khttp", "rouille", "tiny_http"}
        for package in json.loads(out.stdout)["packages"]:
            if package["name"] in wanted:
                found[package["name"]] = package["version"]
    revision = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    found["handover"] = revision.stdout.strip() or "unknown"
    return dict(sorted(found.items()))
