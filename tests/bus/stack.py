"""What stands on the machine while something is tried: Redis, three hosts, HAProxy in front of them, and the load."""

import contextlib
import csv
import http.client
import io
import json
import os
import pathlib
import re
import select
import socket
import subprocess
import sys
import time

from harness import RELEASE, ROOT, Server, check, equal, free_port, until

HERE = pathlib.Path(__file__).resolve().parent
HAPROXY = ROOT / "contrib/haproxy/haproxy.cfg"
# In a directory of its own, since what others test in `target/release` is the program without the feature.
PROGRAM = pathlib.Path(os.environ.get("BUS_PROGRAM", RELEASE.parent / "bus/release/handover")).resolve()
BUILD = "cargo build --release --features redis --bin handover --target-dir target/bus"
NAMES = "abc"
# Longer than HAProxy's `inter` and what a check takes.
LAME_DUCK = 3
HEARTBEAT = 2
CONFIG = """
[[push]]
prefix = "/events"
publish = "anyone"
heartbeat = {heartbeat}
"""
# What is on the machine all the time: 60 topics of which each subscriber has two, so each message goes to 20 of them.
LOAD = {"subscribers": 600, "topics": 60, "each": 2, "publishers": 4}
RATE = 500


def has_bus():
    """Whether the program was built with the feature `redis`."""
    said = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
    return "--bus " in said


class Host(Server):
    """One of the hosts: a process, or two while it reloads, on an address that stays."""

    def __init__(self, directory, bus, settings="", *flags, mode="exec", program=PROGRAM, heartbeat=HEARTBEAT, push=True):
        """`settings` are lines of the configuration, above `[[push]]`."""
        self.place = pathlib.Path(directory)
        self.place.mkdir()
        arguments = ["--reload", mode, "--reload-probation", "0.2", "--lame-duck", LAME_DUCK, "--stop-deadline", 10]
        if program == PROGRAM:
            config = self.place / "handover.toml"
            config.write_text(settings + (CONFIG.format(heartbeat=heartbeat) if push else ""))
            arguments += ["-c", config]
        if bus:
            arguments += ["--bus", bus]
        self.mode = mode
        # A line for each connection would be work of its own.
        quiet = {"RUST_LOG": "handover=info"}
        super().__init__(self.place / "own", program, *arguments, *flags, port=free_port(), environment=quiet)

    def ask(self, path, method="GET", body=None, fields=None, timeout=20):
        """The status, the fields and the body of one answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=fields or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode(errors="replace")
        finally:
            connection.close()

    def ready(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("/-/ready")[0] == 200
        return False

    def metric(self, name):
        found = re.search(rf"^{name} (\S+)$", self.ask("/-/metrics")[2], re.M)
        return float(found[1]) if found else None

    def bus_lines(self):
        """What the log says of the bus, without the times."""
        return re.findall(r"\bbus: (.*)", self.log())

    def ended_well(self):
        """After a TERM: all of them have a lame duck to wait for, at the same time. The pid file goes at the end of it."""
        gone = until(lambda: not self.pid_path.exists(), 20)
        last = self.log().strip().splitlines()[-1]
        check(f"{self.place.name}: stopped, nothing cut", gone and re.search(r"stopped: .* cut=0$", last), self.log()[-300:])
        noise = [line for line in self.log().splitlines() if re.search(r"ERROR|panicked", line)]
        check(f"{self.place.name}: no error in the log", not noise, noise[:3])


class HaProxy:
    """Debian's, with the file of contrib/haproxy/ on other addresses."""

    def __init__(self, directory, hosts, change=lambda text: text):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir()
        self.port, self.socket = free_port(), self.directory / "admin.sock"
        text = HAPROXY.read_text()
        for line, instead in (
            ("    log /dev/log local0\n", ""), ("    user haproxy\n", ""), ("    group haproxy\n", ""),
            ("/run/haproxy/admin.sock mode 660", f"{self.socket} mode 600"), ("bind :80\n", f"bind 127.0.0.1:{self.port}\n"),
            # Open files are few where tests run.
            ("    maxconn 20000\n", "    maxconn 4000\n"),
        ):
            if line not in text:
                raise RuntimeError(f"{HAPROXY} has no {line!r}")
            text = text.replace(line, instead)
        for number, name in enumerate(NAMES, 1):
            # One that is not there is down from the beginning, and nothing is sent to it.
            port = hosts[number - 1].port if number <= len(hosts) else 1
            text = text.replace(f"192.0.2.{number}:8080", f"127.0.0.1:{port}")
        self.names = NAMES[:len(hosts)]
        file = self.directory / "haproxy.cfg"
        file.write_text(change(text))
        said = subprocess.run(["haproxy", "-c", "-q", "-f", file], capture_output=True, text=True)
        if said.returncode:
            raise RuntimeError(f"haproxy -c: {said.stderr or said.stdout}")
        with open(self.directory / "log", "wb") as log:
            self.child = subprocess.Popen(["haproxy", "-db", "-f", file], stdout=log, stderr=log)
        # Until a host has been asked it counts as one that is there.
        absent = set(NAMES) - set(self.names)
        if not until(lambda: self.state().keys() >= set(self.names) and all(self.state()[name] == "DOWN" for name in absent)):
            raise RuntimeError(f"haproxy did not start: {(self.directory / 'log').read_text()[-400:]}")

    def table(self):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(5)
            asked.connect(str(self.socket))
            asked.sendall(b"show stat\n")
            with asked.makefile("rb") as answer:
                return list(csv.DictReader(io.StringIO(answer.read().decode().lstrip("# "))))
        return []

    def state(self, backend="hosts"):
        """UP, NOLB (takes no new client) or DOWN, by name. Behind UP and DOWN may stand how far a change has come."""
        rows = [row for row in self.table() if row["pxname"] == backend]
        return {row["svname"]: row["status"].split(" ")[0] for row in rows}

    def all_up(self):
        return until(lambda: all(self.state().get(name) == "UP" for name in self.names))

    def sessions(self, backend="hosts"):
        """What each has at this moment."""
        return {row["svname"]: int(row["scur"]) for row in self.table() if row["pxname"] == backend}

    def stop(self):
        self.child.terminate()
        self.child.wait(20)


class Load:
    """The process of load.py."""

    def __init__(self, port, **settings):
        settings = {"host": "127.0.0.1", "port": port, **LOAD, **settings}
        self.settings = settings
        self.child = subprocess.Popen(
            [sys.executable, HERE / "load.py", json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )

    def ask(self, what, patience=120, **more):
        self.child.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self.child.stdin.flush()
        if not select.select([self.child.stdout], [], [], patience)[0]:
            raise RuntimeError(f"the load does not answer to {what}")
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError("the load has ended")
        return json.loads(line)

    def connect(self):
        said = self.ask("connect")
        if said["open"] != said["subscribers"]:
            raise RuntimeError(f"{said['open']} of {said['subscribers']} subscribers are there: {said['losses']}, {said['strange']}")

    def publish(self, rate=RATE, **more):
        self.ask("publish", rate=rate, **more)

    def look(self, **more):
        return self.ask("look", **more)

    def more(self, messages, patience=60):
        """Until so many more have been published, which is an event, and not a time."""
        begun = self.look()["published"]
        return until(lambda: self._wait() and self.look()["published"] >= begun + messages, patience)

    def _wait(self):
        # Each look counts all that everybody has: not a hundred times a second.
        time.sleep(0.2)
        return True

    def all_there(self, patience=60):
        return until(lambda: self._wait() and self.look()["open"] == self.settings["subscribers"], patience)

    def over(self):
        """No more publications; what everybody has in the end."""
        quiet = self.ask("quiet")
        return {**self.ask("settle"), "not_accepted": quiet["not_accepted"]}

    def end(self):
        with contextlib.suppress(OSError, RuntimeError):
            self.child.stdin.write('{"do": "end"}\n')
            self.child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(5)
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()


class Stack:
    """Hosts behind HAProxy, with the load on them that is running."""

    def __init__(self, directory, bus=None, many=3, mode="exec", settings="", change=lambda text: text, rate=RATE, **load):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir()
        self.hosts, self.proxy, self.load = [], None, None
        try:
            for name in NAMES[:many]:
                self.hosts.append(Host(self.directory / name, bus, settings, mode=mode))
            self.proxy = HaProxy(self.directory / "haproxy", self.hosts, change)
            if not self.proxy.all_up():
                raise RuntimeError(f"haproxy sees {self.proxy.state()}")
            self.load = Load(self.proxy.port, **load)
            self.load.connect()
            if rate:
                self.load.publish(rate)
                if not self.load.more(rate):
                    raise RuntimeError(f"nothing is published: {self.load.look()}")
        except BaseException:
            self.close()
            raise

    def name(self, host):
        return NAMES[self.hosts.index(host)]

    def close(self):
        """Without a word; what is looked at is looked at before."""
        self._end_clients()
        for host in self.hosts:
            with contextlib.suppress(OSError):
                os.kill(host.pid(), 9)

    def _end_clients(self):
        for part, end in ((self.load, Load.end), (self.proxy, HaProxy.stop)):
            if part:
                end(part)
        self.load = self.proxy = None

    def stop(self):
        """The load is over, and each host ends well."""
        self._end_clients()
        for host in self.hosts:
            os.kill(host.pid(), 15)
        for host in self.hosts:
            host.ended_well()


def said(look, over=True):
    """One line of figures. Before the load is over, what has not come is on its way or missing, and nobody knows yet."""
    latency = look["latency_ms"] or {"p50": 0, "p99": 0, "max": 0}
    return (
        f"{look['subscribers']} subscribers, {look['published']} messages published at {look['rate']:.0f}/s, "
        f"{look['deliveries_per_second']:.0f} deliveries/s, {look['delivered']} delivered; {'missing' if over else 'not there yet'} {look['missing']}, "
        f"twice {look['doubled']}, out of order {look['misordered']}, in a gap that was said {look['gapped']}, "
        f"reconnects {look['reconnects']} {look['losses'] or ''}; POSTs {look['posts']}, longest {look['longest_post'] * 1000:.0f} ms; "
        f"p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms, longest {latency['max']:.0f} ms, "
        f"of which the load itself {look['longest_turn'] * 1000:.0f} ms"
    )


def nothing_lost(what, look):
    """Each subscriber has each message of its topics once, in its order, and nobody was told otherwise."""
    wrong = {name: look[name] for name in ("missing", "doubled", "misordered", "foreign", "gapped", "gaps", "not_accepted") if look[name]}
    check(f"{what}: 0 missing, 0 twice, 0 gaps", not wrong and not look["strange"] and look["delivered"] > 0, f"{wrong} {look['strange'] or ''}")
    refused = {why: count for why, count in look["losses"].items() if why.startswith("refused") or why == "strange"}
    equal(f"{what}: no subscriber was refused", refused, {})
    equal(f"{what}: all are there in the end", look["open"], look["subscribers"])
