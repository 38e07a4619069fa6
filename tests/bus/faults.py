"""What happens to Redis and to hosts, one function for each, and what subscribers and publishers hear of it.

`UNDER_LOAD` are faults of a Redis or a host in the middle of 500 messages/s; `AT_A_START` are those that one host finds when it
starts, without a load. After each of them: no message twice, none missing without a gap that was said, and everybody goes on.
"""

import contextlib
import dataclasses
import http.client
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import threading
import time

from harness import alive, check, equal, failures, free_port, guarded, until
from redis_server import Clock, Connection, Redis, RedisError, Stranger
from stack import HEARTBEAT, NAMES, PROGRAM, RATE, Host, Stack, said

# What one second of a fault's load is, which is an event and not a time.
SECOND = RATE
FROZEN = 10
# The stream of the default prefix.
LOG = "{handover}:log"
POSTS = 100


@dataclasses.dataclass
class Row:
    """One line of the table."""

    fault: str
    subscribers: str
    publishers: str
    hosts: str


ROWS = []


def tried(name, function, *arguments):
    """One of them, with what of it has failed."""
    before, rows = len(failures()), len(ROWS)
    with guarded(name):
        function(*arguments)
    wrong = failures()[before:]
    if wrong and len(ROWS) == rows:
        row(name, "no figure", "no figure", "no figure")
    if wrong:
        ROWS[-1].fault = f"**FAILED**: {ROWS[-1].fault} ({len(wrong)} of its checks)"


def row(fault, subscribers, publishers, hosts):
    ROWS.append(Row(fault, subscribers, publishers, hosts))
    print(f"bus: {fault}: subscribers: {subscribers}; publishers: {publishers}; hosts: {hosts}", flush=True)


class Fault:
    """What was counted when it began, and how each of the hosts' logs stood."""

    def __init__(self, stack, what):
        self.stack, self.what = stack, what
        self.load = stack.load
        self.load.publish()
        check(f"{what}: publishing goes on before", self.load.more(SECOND), self.load.look())
        self.before = self.load.look(mark=True)
        self.lines = {host: len(host.bus_lines()) for host in stack.hosts}

    def hosts_are(self, ready, patience=30, hosts=None):
        """By /-/ready and by the metric, which say the same."""
        hosts = hosts or self.stack.hosts

        def as_said():
            return all(host.ready() == ready and host.metric("handover_bus_up") == float(ready) for host in hosts)

        word = "up" if ready else "down"
        return check(f"{self.what}: /-/ready and the metric say that the bus is {word}", until(as_said, patience), [
            (host.ready(), host.metric("handover_bus_up"), host.bus_lines()[-2:]) for host in hosts
        ])

    def heartbeats(self):
        """Longer than there is between two of them."""
        beats = self.load.look()["beats"]
        heard = until(lambda: self.load.look()["beats"] - beats >= self.load.settings["subscribers"], 3 * HEARTBEAT + 2)
        check(f"{self.what}: all subscribers hear heartbeats meanwhile", heard, self.load.look()["beats"] - beats)

    def said(self):
        """What the hosts' logs have of it, each line once."""
        lines = []
        for host in self.stack.hosts:
            for line in host.bus_lines()[self.lines[host]:]:
                if line not in lines:
                    lines.append(line)
        return lines

    def over(self, reconnects=False, gaps=None, failures=None, keys_lost=False, quick=30):
        """Everybody has it all. `gaps` and `failures` say whether there have to be some, where that is known. Where a Redis has
        lost what it had, it has lost the Idempotency-Keys as well (`keys_lost`): a publication of unknown outcome that is tried
        again comes a second time to those whose host had read the first."""
        what, load = self.what, self.load
        begun = time.monotonic()
        check(f"{what}: publishing goes on", load.more(SECOND, quick), load.look())
        waited = time.monotonic() - begun
        load.all_there()
        quiet = load.ask("quiet")
        after = load.ask("settle")
        new = {name: after[name] - self.before[name] for name in (
            "missing", "doubled", "misordered", "foreign", "gapped", "gaps", "reconnects", "failures", "delivered",
        )}
        posts = {why: count - self.before["posts"].get(why, 0) for why, count in after["posts"].items()}
        failed = {why: count for why, count in posts.items() if count and why != "200"}
        # What was missing before this fault began was on its way.
        check(f"{what}: none is missing without a gap said", after["missing"] == 0, f"{after['missing']} missing; {self.said()}")
        equal(f"{what}: none in another order, none of another topic", (new["misordered"], new["foreign"]), (0, 0))
        unknown = sum(count for why, count in failed.items() if "unknown" in why) if keys_lost else 0
        each = load.settings["subscribers"] * load.settings["each"] // load.settings["topics"]
        allowed = f", but for {unknown} of unknown outcome whose keys were lost" if unknown else ""
        check(f"{what}: no message twice{allowed}", new["doubled"] <= unknown * each, f"{new['doubled']} times")
        equal(f"{what}: each publication was accepted in the end", quiet["not_accepted"], 0)
        equal(f"{what}: all are there", after["open"], after["subscribers"])
        if not reconnects:
            equal(f"{what}: nobody had to reconnect", new["reconnects"], 0)
        if gaps is not None:
            check(f"{what}: gaps were said: {'yes' if gaps else 'none'}", bool(new["gaps"]) == gaps, new)
        if failures is not None:
            check(f"{what}: publishers were refused: {'yes' if failures else 'never'}", bool(failed) == failures, failed)
        if after["strange"]:
            check(f"{what}: nothing strange", False, after["strange"])
        heard = [f"{new['gaps']} gaps said, {new['gapped']} messages in them" if new["gaps"] else "no gap"]
        if new["reconnects"]:
            heard.append(f"{new['reconnects']} reconnects")
        if new["doubled"]:
            heard.append(f"{new['doubled']} messages twice, which were published again without the lost Idempotency-Key")
        heard.append(f"{new['delivered']} messages once each, the longest way {after['latency_ms'].get('max', 0) / 1000:.1f} s")
        told = [f"{count} × {why}" for why, count in sorted(failed.items())] or ["no failure"]
        told.append(f"longest wait {after['longest_post']:.1f} s")
        lines = self.said()
        row(self.what, ", ".join(heard), ", ".join(told), "; ".join(f"`{line}`" for line in lines[:6]) or "no line")
        print(f"bus: {what}: a second of messages took {waited:.1f} s afterwards; {said(after)}", flush=True)
        return after


# Under load. Each gets the stack and its Redis, and leaves both as they were.


def killed_with_data(stack, redis):
    fault = Fault(stack, "Redis killed (kill -9), started with its data")
    redis.kill()
    fault.hosts_are(ready=False)
    fault.heartbeats()
    redis.start()
    fault.hosts_are(ready=True)
    # What Redis had not written may have been read by a host: appendfsync everysec writes at each turn of its loop.
    fault.over(failures=True)


def killed_without_data(stack, redis):
    fault = Fault(stack, "Redis killed (kill -9), started without its data")
    redis.kill()
    fault.hosts_are(ready=False)
    shutil.rmtree(redis.directory / "appendonlydir")
    redis.start()
    fault.hosts_are(ready=True)
    fault.over(failures=True, gaps=True, keys_lost=True)


def frozen(stack, redis):
    fault = Fault(stack, f"Redis stopped (SIGSTOP) for {FROZEN} s")
    with redis.frozen():
        begun = time.monotonic()
        fault.hosts_are(ready=False)
        noticed = time.monotonic() - begun
        fault.heartbeats()
        # As long as the issue says, whatever the steps before have taken.
        time.sleep(max(0.0, FROZEN - (time.monotonic() - begun)))
    fault.hosts_are(ready=True)
    print(f"bus: {fault.what}: noticed after {noticed:.1f} s", flush=True)
    fault.over(failures=True)


def paused(stack, redis):
    """Slower than anybody wants, and not dead: what waits is answered."""
    fault = Fault(stack, "Redis answers nothing for 0.7 s (CLIENT PAUSE), three times")
    for _ in range(3):
        redis.ask("CLIENT", "PAUSE", 700, "ALL")
        fault.load.more(SECOND)
    fault.over(gaps=False)


def client_kill(stack, redis):
    fault = Fault(stack, "Its connections are closed (CLIENT KILL), three times")
    connection = Connection(redis.port)
    for _ in range(3):
        killed = sum(connection.ask("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes") for kind in ("normal", "pubsub"))
        check(f"{fault.what}: hosts had {killed} connections", killed >= len(stack.hosts), killed)
        fault.hosts_are(ready=True)
        fault.load.more(SECOND)
    connection.close()
    fault.over(gaps=False)


def flushed(stack, redis):
    fault = Fault(stack, "FLUSHALL")
    redis.ask("FLUSHALL")
    fault.load.more(SECOND)
    fault.hosts_are(ready=True)
    fault.over(gaps=True, keys_lost=True)


def promoted(stack, redis):
    """A replica takes over the address that has not got the last second of what was written."""
    fault = Fault(stack, "A replica promoted, the last writes missing")
    replica = Redis(redis.directory.with_name("replica"), "--replicaof", "127.0.0.1", redis.port, persistent=True)
    try:
        until(lambda: "master_link_status:up" in replica.ask("INFO", "replication").decode())
        until(replica.is_written)
        fault.load.more(SECOND)
        replica.ask("REPLICAOF", "NO", "ONE")
        fault.load.more(SECOND)
        redis.kill()
        fault.hosts_are(ready=False)
        # Its data, at the address that the hosts know.
        replica.kill()
        shutil.rmtree(redis.directory / "appendonlydir")
        shutil.copytree(replica.directory / "appendonlydir", redis.directory / "appendonlydir")
        redis.start()
        fault.hosts_are(ready=True)
        fault.over(failures=True, gaps=True, keys_lost=True)
    finally:
        if replica.child.poll() is None:
            replica.kill()
        shutil.rmtree(replica.directory, ignore_errors=True)


def read_only(stack, redis):
    fault = Fault(stack, "Redis becomes a read-only replica, and a master again")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        # Of a master that does not answer: so it keeps what it has.
        redis.ask("REPLICAOF", "127.0.0.1", nobody.getsockname()[1])
        fault.hosts_are(ready=False)
        redis.ask("REPLICAOF", "NO", "ONE")
    fault.hosts_are(ready=True)
    fault.over(failures=True, gaps=False)


def out_of_memory(stack, redis):
    fault = Fault(stack, "maxmemory reached, and raised again")
    redis.ask("CONFIG", "SET", "maxmemory", "100kb")
    heard = until(lambda: fault.load.look()["failures"] > fault.before["failures"])
    check(f"{fault.what}: publishers are refused", heard, fault.load.look()["posts"])
    redis.ask("CONFIG", "SET", "maxmemory", "0")
    fault.hosts_are(ready=True)
    fault.over(failures=True, gaps=False)


def reloaded_while_down(stack, redis):
    """A connection that cannot be opened is no reason to fail a reload."""
    fault = Fault(stack, "All hosts reload while Redis is down")
    redis.kill()
    fault.hosts_are(ready=False)
    for host in stack.hosts:
        check(f"{fault.what}: {stack.name(host)} reloaded", host.reload(host.mode), host.log()[-400:])
    redis.start()
    fault.hosts_are(ready=True)
    fault.over(failures=True)


def large_messages(stack, redis):
    """As large as one may be (65,536 bytes), fewer of them: each goes to 20 subscribers."""
    fault = Fault(stack, "Messages of 64 KiB")
    fault.load.publish(rate=8, size=65_536)
    check(f"{fault.what}: they are published", fault.load.more(40), fault.load.look())
    fault.load.publish(rate=RATE)
    fault.over(gaps=False, failures=False)


def slow_host(stack, redis):
    """One host is stopped for as long as it takes to trim what it has not read."""
    fault = Fault(stack, "One host stopped (SIGSTOP) until what it has not read is trimmed")
    host = stack.hosts[2]
    os.kill(host.pid(), signal.SIGSTOP)
    try:
        fault.load.more(3 * SECOND)
        trimmed = redis.ask("XTRIM", LOG, "MAXLEN", 100)
    finally:
        os.kill(host.pid(), signal.SIGCONT)
    check(f"{fault.what}: there was something to trim", trimmed > SECOND, trimmed)
    fault.hosts_are(ready=True)
    until(lambda: stack.proxy.state()["c"] == "UP")
    fault.over(gaps=True)


def two_deployments(stack, redis):
    """Another three hosts in the same Redis, with a prefix of their own, and their own load."""
    fault = Fault(stack, "Two deployments in one Redis")
    other = Stack(
        stack.directory / "other", f"redis://127.0.0.1:{redis.port}", settings='bus_prefix = "other"', rate=100, subscribers=60,
    )
    try:
        fault.load.more(SECOND)
        keys = redis.keys()
        check(f"{fault.what}: each key begins with the prefix of one", keys and all(
            key.startswith(("{handover}:", "{other}:")) for key in keys
        ) and {LOG, "{other}:log"} <= set(keys), keys[:10])
        look = other.load.over()
        equal(f"{fault.what}: the other hears its own, all and once", (
            look["missing"], look["doubled"], look["foreign"], look["gaps"], look["delivered"] > 0,
        ), (0, 0, 0, 0, True))
    finally:
        other.close()
    redis.ask("DEL", *[key for key in redis.keys() if key.startswith("{other}:")])
    fault.over(gaps=False, failures=False)


def clocks(stack, redis):
    """Redis's wall clock jumps by days while it runs; hosts are started anew that say they have run for a month and a year."""
    fault = Fault(stack, "Redis's clock jumps a day ahead and two days back; hosts that have run for other times")
    for days in (1, -1, 0):
        redis.clock.move(days * 86400)
        told = (int(redis.ask("TIME")[0]) - time.time()) / 86400
        equal(f"{fault.what}: Redis's clock is {days} days ahead", round(told), days)
        fault.load.more(SECOND)
    for host, days in zip(stack.hosts[:2], (30, 365)):
        command, offset = host.command, days * 86400
        host.command = ["unshare", "--time", "--boottime", offset, "--monotonic", offset, *command]
        restart(stack, host)
        up = int(pathlib.Path(f"/proc/{host.pid()}/timens_offsets").read_text().split()[1])
        equal(f"{fault.what}: {stack.name(host)} has run for {days} days more", up, offset)
        host.command = command
        fault.load.more(SECOND)
    fault.over(reconnects=True, gaps=False)


def restart(stack, host):
    """A stop with lame duck and a start, and until HAProxy has seen both."""
    pid, name = host.pid(), stack.name(host)
    os.kill(pid, signal.SIGTERM)
    until(lambda: not alive(pid))
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    stack.load.all_there()
    host.start()
    until(lambda: stack.proxy.state()[name] == "UP")


UNDER_LOAD = {
    function.__name__: function
    for function in (
        killed_with_data, killed_without_data, frozen, paused, client_kill, flushed, promoted, read_only, out_of_memory,
        reloaded_while_down, large_messages, slow_host, two_deployments, clocks,
    )
}


# At a start, one host each.


class Refused:
    """A program that is to end at once, with what it said."""

    def __init__(self, *arguments):
        command = [PROGRAM, "-l", "127.0.0.1:0", *arguments]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=20)
        self.code, self.said = done.returncode, (done.stderr + done.stdout).strip()


def check_bus(directory, url, settings=""):
    """What --check=bus says of it."""
    config = directory / "check.toml"
    config.write_text(settings + "\n[[push]]\nprefix = \"/events\"\n")
    return Refused("--check=bus", "--bus", url, "-c", config)


def publishes(host):
    status, fields, body = host.ask("/events/x", "POST", b"1")
    return status, "Retry-After" in fields, body.strip()


def starts_without(what, url, directory, repair, settings="", found=True):
    """A bus that cannot be used at a start: the host serves all the same, says so, and is there when it can. `--check=bus` does
    not write, so it does not find what only a writer is told."""
    checked = check_bus(directory.parent, url, settings)
    asked = short(checked.said) if checked.code else "finds nothing, since it does not write"
    equal(f"{what}: --check=bus {'finds it' if found else 'does not write'}", checked.code != 0, found)
    host = Host(directory, url, settings)
    try:
        down = until(lambda: any(line.startswith("down: ") for line in host.bus_lines()), 10)
        why = next((line for line in host.bus_lines() if line.startswith("down: ")), "nothing")
        check(f"{what}: the log says why", down, host.log()[-300:])
        equal(f"{what}: /-/ready is 503, and it is alive", (host.ask("/-/ready")[0], host.ask("/-/healthy")[0]), (503, 200))
        equal(f"{what}: the rest is served", host.ask("/")[0], 200)
        status, after, body = publishes(host)
        equal(f"{what}: a publication is 503 with Retry-After", (status, after), (503, True))
        stream = socket.create_connection(("127.0.0.1", host.port), timeout=20)
        stream.sendall(b"GET /events/x HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
        opened = stream.recv(65536)
        check(f"{what}: a subscriber is taken", opened.startswith(b"HTTP/1.1 200"), opened[:80])
        repair()
        check(f"{what}: it goes on when that is mended", until(host.ready), host.bus_lines()[-3:])
        # At first by a connection that the other Redis has closed, of which it knows after a second.
        check(f"{what}: and publishes", until(lambda: publishes(host)[0] == 200, 3), host.bus_lines()[-3:])
        heard, patience = b"", time.monotonic() + 10
        while b"data: 1\n" not in heard and time.monotonic() < patience:
            piece = stream.recv(65536)
            if not piece:
                break
            heard += piece
        check(f"{what}: its first subscriber hears that", b"data: 1\n" in heard, heard[-200:])
        stream.close()
        row(what, "taken, and hear what comes later", f"{status} with Retry-After: {body}", f"`{why}`; --check=bus: {asked}")
    finally:
        with contextlib.suppress(OSError):
            os.kill(host.pid(), signal.SIGKILL)


def short(text):
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else "nothing"
    return f"`{last[:160]}`"


def nobody_there(directory):
    port = free_port()
    made = []
    starts_without(
        "Nobody listens at the URL", f"redis://127.0.0.1:{port}", directory / "host",
        lambda: made.append(Redis(directory / "redis", port=port)),
    )
    for redis in made:
        redis.kill()


def hangs(directory):
    """A listener that accepts and says nothing; then it goes, and a Redis comes."""
    gives_way("Who listens there says nothing", Stranger(), directory)


def no_redis(directory):
    """A server of something else."""
    stranger = Stranger(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    gives_way("Who listens there is no Redis", stranger, directory)


def gives_way(what, stranger, directory):
    made = []

    def repair():
        stranger.close()
        made.append(Redis(directory / "redis", port=stranger.port))

    starts_without(what, f"redis://127.0.0.1:{stranger.port}", directory / "host", repair)
    for redis in made:
        redis.kill()


def wrong_urls(directory):
    """What is no URL of a Redis is an error of the configuration, and nothing starts."""
    said_of = []
    for url in ("localhost:6379", "http://127.0.0.1", "redis://", "redis://127.0.0.1:0", "redis://127.0.0.1:99999",
                "redis://127.0.0.1/x", "redis+unix://relative", "redis://user:secret@127.0.0.1"):
        refused = Refused("--bus", url)
        right = refused.code in (2, 78) and refused.said and "secret" not in refused.said
        check(f"--bus {url}: refused, and what was said has no password", right, (refused.code, refused.said[-200:]))
        said_of.append(short(refused.said))
    row("A URL that is none, or has a password", "-", "-", f"do not start (exit code 2 or 78): {said_of[0]}, {said_of[-1]}")


def credentials(directory):
    redis = Redis(directory / "redis", "--requirepass", "right", password="right")
    redis.ask("ACL", "SETUSER", "bus", "on", ">other", "~{handover}:*", "&*", "+@all")
    url = f"redis://127.0.0.1:{redis.port}"
    password = directory / "password"
    password.write_text("wrong\n")
    password.chmod(0o600)
    try:
        missing = check_bus(directory, url)
        check("no password where one is wanted: --check=bus says so", missing.code != 0, missing.said)

        def repair():
            # What was wrong is right from here on.
            redis.ask("CONFIG", "SET", "requirepass", "wrong")
            redis.password = "wrong"

        of_file = f'bus_password_file = "{password}"'
        starts_without("A wrong password", url, directory / "host", repair, of_file)
        password.write_text("other\n")
        user = check_bus(directory, f"redis://bus@127.0.0.1:{redis.port}/3", of_file)
        equal("a user, a password from a file and a database: --check=bus is content", user.code, 0)
        nowhere = check_bus(directory, url, of_file.replace("password\"", "none\""))
        check("a password file that is not there: an error of the configuration", nowhere.code in (2, 78), (nowhere.code, nowhere.said[-200:]))
    finally:
        redis.kill()


def too_old(directory):
    """As Redis below 5 says it, which had no streams."""
    redis = Redis(directory / "redis", "--rename-command", "XADD", "", "--rename-command", "XREAD", "")
    made = []

    def repair():
        redis.kill()
        made.append(Redis(directory / "newer", port=redis.port))

    try:
        starts_without("A Redis without streams, as before version 5", f"redis://127.0.0.1:{redis.port}", directory / "host", repair)
    finally:
        for one in made:
            one.kill()


def another_type(directory):
    redis = Redis(directory / "redis")
    redis.ask("SET", LOG, "something else")
    try:
        starts_without(
            "The stream's key has another type", f"redis://127.0.0.1:{redis.port}", directory / "host",
            lambda: redis.ask("DEL", LOG),
        )
    finally:
        redis.kill()


def loading(directory):
    """A Redis that reads its file for some seconds, and says LOADING meanwhile."""
    redis = Redis(directory / "redis")
    connection = Connection(redis.port, timeout=60)
    for number in range(20_000):
        connection.ask("SET", f"other:{number}", "x" * 20)
    connection.ask("SAVE")
    connection.close()
    redis.kill()
    # 20,000 keys at 400 µs each are 8 seconds.
    redis.flags += ["--key-load-delay", "400", "--loading-process-events-interval-bytes", "1024"]
    redis.start(wait=False)
    try:
        until(lambda: is_loading(redis))
        starts_without(
            "A Redis that is loading", f"redis://127.0.0.1:{redis.port}", directory / "host", lambda: until(redis.answers),
        )
    finally:
        redis.kill()


def is_loading(redis):
    try:
        redis.ask("PING")
    except RedisError as error:
        return "LOADING" in str(error)
    except OSError:
        pass
    return False


def replica(directory):
    master = Redis(directory / "master")
    redis = Redis(directory / "redis", "--replicaof", "127.0.0.1", master.port)
    until(lambda: "master_link_status:up" in redis.ask("INFO", "replication").decode())
    try:
        starts_without(
            "A read-only replica", f"redis://127.0.0.1:{redis.port}", directory / "host", lambda: redis.ask("REPLICAOF", "NO", "ONE"), found=False,
        )
    finally:
        redis.kill()
        master.kill()


def full(directory):
    redis = Redis(directory / "redis", "--maxmemory", "100kb", "--maxmemory-policy", "noeviction")
    try:
        starts_without(
            "A Redis that is full (maxmemory)", f"redis://127.0.0.1:{redis.port}", directory / "host",
            lambda: redis.ask("CONFIG", "SET", "maxmemory", "0"), found=False,
        )
    finally:
        redis.kill()


def unix_socket(directory):
    redis = Redis(directory / "redis", "--unixsocket", directory / "socket")
    hosts = []
    try:
        for name in NAMES[:2]:
            hosts.append(Host(directory / name, f"redis+unix://{directory / 'socket'}"))
        check("a bus by a Unix socket: both hosts are ready", until(lambda: all(host.ready() for host in hosts)), hosts[0].bus_lines())
        topics = "&".join(f"topic=many{number}" for number in range(32))
        stream = socket.create_connection(("127.0.0.1", hosts[1].port), timeout=20)
        stream.sendall(f"GET /events?{topics} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode())
        heard = stream.recv(65536)
        for number in range(32):
            status = hosts[0].ask(f"/events/many{number}", "POST", f"{number}".encode())[0]
            if status != 200:
                break
        equal("32 topics: each is published on one host", status, 200)
        while heard.count(b"data: ") < 32:
            heard += stream.recv(65536)
        found = [int(line[6:]) for line in heard.split(b"\n") if line.startswith(b"data: ")]
        equal("32 topics: a subscriber of all, on another host, has each once and in order", found, list(range(32)))
        stream.close()
        row("A subscriber of 32 topics, a bus by a Unix socket", "32 messages once each, in order", "no failure", "no line")
    finally:
        for host in hosts:
            os.kill(host.pid(), signal.SIGKILL)
        redis.kill()


def many_posts_wait(directory):
    """With Redis stopped and 100 POSTs that wait, GETs of the same host are answered as before."""
    what = f"Redis stopped and {POSTS} POSTs that wait: GETs"
    redis = Redis(directory / "redis")
    host = Host(directory / "host", f"redis://127.0.0.1:{redis.port}", 'bus_down = "wait"')
    # What else the machine does makes both wait, and Redis only one.
    other = Host(directory / "other", None)
    try:
        check(f"{what}: the host is ready", until(host.ready), host.bus_lines())
        equal(f"{what}: a POST is answered before", publishes(host)[0], 200)
        before, _ = gets((host, other), 4.5)
        stop = threading.Event()
        waiters = [Waiter(host, stop) for _ in range(POSTS)]
        with redis.frozen():
            for waiter in waiters:
                waiter.start()
            # Nothing is answered before some seconds are over, so all of them wait.
            on_their_way = until(lambda: all(waiter.sent for waiter in waiters), 10)
            begun = time.monotonic()
            during, beside = gets((host, other), 3)
            still = sum(waiter.waits for waiter in waiters)
            took = time.monotonic() - begun
            check(f"{what}: {still} of {POSTS} wait all the time", on_their_way and still == POSTS, still)
            answered = until(lambda: all(waiter.answers for waiter in waiters), 20)
            stop.set()
        check(f"{what}: each was answered, after 5 s at most", answered, sum(bool(waiter.answers) for waiter in waiters))
        longest = max(answer[0] for waiter in waiters for answer in waiter.answers)
        kinds = {}
        for waiter in waiters:
            for _, status, retry, unknown in waiter.answers:
                kind = f"{status}{' with Retry-After' if retry else ''}{', outcome unknown' if unknown else ''}"
                kinds[kind] = kinds.get(kind, 0) + 1
        check(f"{what}: with 503, Retry-After", all(kind.startswith("503 with Retry-After") for kind in kinds), kinds)
        check(f"{what}: after about 5 s at most", longest < 10, f"{longest:.1f} s")
        # A host that made GETs wait for Redis would make them wait for seconds; what else a machine does, for milliseconds. The
        # figure is for who reads it.
        held = during["p99"] <= 500
        figures = f"p99 {during['p99']:.2f} ms, {before['p99']:.2f} ms before, {beside['p99']:.2f} ms at a host without a bus at the same time"
        check(f"{what}: {figures}", held, (before, during, beside))
        row(
            f"Redis stopped (SIGSTOP), {POSTS} POSTs wait (`bus_down = \"wait\"`)",
            f"GETs beside them in {took:.0f} s: {figures}; medians {during['p50']:.2f}, {before['p50']:.2f} and {beside['p50']:.2f} ms",
            ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items())) + f", longest wait {longest:.1f} s",
            "; ".join(f"`{line}`" for line in host.bus_lines()[:4]),
        )
        check(f"{what}: it publishes again", until(host.ready) and publishes(host)[0] == 200, host.bus_lines()[-3:])
    finally:
        for one in (host, other):
            os.kill(one.pid(), signal.SIGKILL)
        redis.kill()


class Waiter(threading.Thread):
    """A client that publishes, and again when it has been answered, until it is told to stop."""

    def __init__(self, host, stop):
        super().__init__(daemon=True)
        self.host, self.stop, self.sent, self.waits, self.answers = host, stop, False, False, []

    def run(self):
        while not self.stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.host.port, timeout=30)
            begun = time.monotonic()
            connection.request("POST", "/events/waits", b"1")
            self.sent = self.waits = True
            answer = connection.getresponse()
            body = answer.read().lower()
            self.waits = False
            fields = answer.getheader("Retry-After") is not None
            self.answers.append((time.monotonic() - begun, answer.status, fields, b"outcome unknown" in body))
            connection.close()
            if answer.status != 503:
                return


def gets(hosts, seconds):
    """Some 100 GETs a second to each of two hosts in turn: what they took, in milliseconds."""
    clients = [(http.client.HTTPConnection("127.0.0.1", host.port, timeout=20), []) for host in hosts]
    until_then = time.monotonic() + seconds
    while time.monotonic() < until_then:
        for connection, times in clients:
            begun = time.perf_counter()
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            times.append((time.perf_counter() - begun) * 1000)
            if answer.status != 200:
                raise RuntimeError(f"a GET was answered with {answer.status}")
            time.sleep(0.003)
    figures = []
    for connection, times in clients:
        connection.close()
        times.sort()
        figures.append({"p50": statistics.median(times), "p99": times[int(len(times) * 0.99)], "longest": times[-1]})
    return figures


AT_A_START = {
    function.__name__: function
    for function in (
        wrong_urls, nobody_there, hangs, no_redis, credentials, too_old, another_type, loading, replica, full, unix_socket, many_posts_wait,
    )
}
FAULTS = {**UNDER_LOAD, **AT_A_START}


def checks(directory, names, write=None):
    loaded = [name for name in names if name in UNDER_LOAD]
    if loaded:
        clock = Clock(directory)
        redis = Redis(directory / "redis-under-load", "--appendfsync", "everysec", persistent=True, environment=clock.environment)
        redis.clock = clock
        stack = Stack(directory / "under-load", f"redis://127.0.0.1:{redis.port}")
        try:
            for name in loaded:
                tried(name, UNDER_LOAD[name], stack, redis)
        finally:
            stack.close()
            redis.kill()
    for name in names:
        if name in AT_A_START:
            own = directory / name
            own.mkdir()
            tried(name, AT_A_START[name], own)
    text = table()
    print(text, flush=True)
    if write:
        write.write_text(text)


def table():
    lines = [
        "# What is heard when the bus fails", "",
        "Made by `just bus-faults`: three servers, Debian's redis-server and HAProxy with the file of",
        "[contrib/haproxy](../contrib/haproxy/haproxy.cfg) on one machine with 2 cores, all on loopback. 600 subscribers of two of 60 topics,",
        f"four publishers, {RATE} messages/s; heartbeats every {HEARTBEAT} s. A publication that failed is tried again, with its",
        "Idempotency-Key; the longest way is from its first try to a subscriber. In each row none was missing without a gap that was said, none",
        "came twice (but for what is said where Redis has lost its keys), and everybody went on; one in which something did not hold says",
        "FAILED. The last rows are of one host that finds it so when it starts.", "",
        "| fault | subscribers | publishers | what the hosts' logs say |", "|---|---|---|---|",
    ]
    lines += [f"| {one.fault} | {one.subscribers} | {one.publishers} | {one.hosts} |".replace("\n", " ") for one in ROWS]
    return "\n".join(lines) + "\n"
