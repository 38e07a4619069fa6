#!/usr/bin/env python3
"""What a bus costs: from publication to delivery, CPU a message, and where one stream with three readers ends.

    just bench-bus                     everything, a few minutes
    just bench-bus --rounds 5 --seconds 5
    just bench-bus --only local,bus-other

    local        one host, its own log
    bus-same     three hosts with a bus; published and heard on the same one
    bus-other    the same; published on one, heard on another
    nchan        nginx with nchan, one worker, its own memory
    nchan-other  three of them with nchan's Redis; published on one, heard on another

Each is started anew in each round, the rounds take turns, and all of it is on loopback, beside its load. The load is that of
benches/push, which holds every delivery against what was published. CPU is user and system time of the processes from /proc.
nchan needs Debian's nginx-light and libnginx-mod-nchan, and is left out, and that said, where it is not there.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[1:1] = [str(HERE), str(HERE.parent / "clients"), str(ROOT / "benches"), str(ROOT / "benches/peers"), str(ROOT / "benches/push")]

import harness  # noqa: E402  (the path above is needed first)
import push_servers  # noqa: E402
from harness import free_port, until  # noqa: E402
from redis_server import Redis  # noqa: E402
from stack import BUILD, Host, has_bus  # noqa: E402

# So many hear each message, and so many POSTs are on their way at once in all, where it is to be as many as there can be.
SUBSCRIBERS, CONNECTIONS = 10, 48
# A share of the machine, as in benches/push.
DISTURBED = 0.08
EVENTS = ["--subscribe", "/events/{topic}", "--publish", "/events/{topic}"]
QUERY = ["--subscribe", "/subscribe?topic={topic}", "--publish", "/publish?topic={topic}"]
NCHAN = """load_module {module};
daemon off; {user}worker_processes 1; pid {place}/pid; error_log {place}/log;
events {{ worker_connections 4096; }}
http {{
access_log off; keepalive_requests 100000000; keepalive_timeout 600; default_type text/plain;
client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
nchan_message_buffer_length 100; nchan_message_timeout 10m;
{upstream}
server {{
listen 127.0.0.1:{port} backlog=4096;
location = /subscribe {{ nchan_subscriber eventsource; nchan_channel_id $arg_topic; nchan_subscriber_first_message newest; {uses} }}
location = /publish {{ nchan_publisher; nchan_channel_id $arg_topic; {uses} }}
}}
}}
"""


class Nginx:
    """One with nchan, by itself or with a Redis that others have as well."""

    def __init__(self, place, redis):
        place.mkdir()
        self.port = free_port()
        conf = place / "nginx.conf"
        conf.write_text(NCHAN.format(
            module=push_servers.NCHAN, place=place, port=self.port, user="user root; " if os.geteuid() == 0 else "",
            upstream=f"upstream bus {{ nchan_redis_server redis://127.0.0.1:{redis.port}; }}" if redis else "",
            uses="nchan_redis_pass bus;" if redis else "",
        ))
        self.child = subprocess.Popen(["nginx", "-p", place, "-c", conf, "-e", place / "log"])
        if not until(self.answers):
            raise RuntimeError(f"nginx did not start: {(place / 'log').read_text()[-400:]}")

    def answers(self):
        with contextlib.suppress(OSError, RuntimeError):
            return push_client("posts", self.port, self.port, QUERY, "--connections", 1, "--seconds", 0.01)["posts"] > 0
        return False

    def end(self):
        self.child.terminate()
        self.child.wait(20)

    def pids(self):
        return [self.child.pid, *map(int, pathlib.Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split())]


class Handover(Host):
    def end(self):
        os.kill(self.pid(), signal.SIGKILL)
        os.waitpid(self.child.pid, 0)

    def pids(self):
        return [self.pid()]


class Setup:
    def __init__(self, directory, name):
        self.redis, self.servers = None, []
        directory.mkdir()
        many = 1 if name in ("local", "nchan") else 3
        try:
            if many > 1:
                self.redis = Redis(directory / "redis")
            for number in range(many):
                place = directory / f"{number}"
                if name.startswith("nchan"):
                    self.servers.append(Nginx(place, self.redis))
                else:
                    self.servers.append(Handover(place, f"redis://127.0.0.1:{self.redis.port}" if self.redis else None))
            if not name.startswith("nchan") and not until(lambda: all(host.ready() for host in self.servers)):
                raise RuntimeError(f"not ready: {self.servers[0].log()[-400:]}")
        except BaseException:
            self.end()
            raise
        self.publish, self.hear = self.servers[0].port, self.servers[-1 if name.endswith("other") else 0].port
        self.speaks = QUERY if name.startswith("nchan") else EVENTS
        # What they take while nothing is published is theirs as well, and little.
        self.all = {"hosts": [pid for server in self.servers for pid in server.pids()], "redis": [self.redis.child.pid] if self.redis else []}

    def cpu(self):
        """Seconds until now, of hosts and of Redis."""
        return {who: sum(cpu_seconds(pid) for pid in pids) for who, pids in self.all.items()}

    def lag(self):
        return [server.metric("handover_bus_lag_messages") for server in self.servers if isinstance(server, Handover) and self.redis]

    def end(self):
        for server in self.servers:
            server.end()
        if self.redis:
            self.redis.kill()


def cpu_seconds(pid):
    """To the nanosecond where the threads live, which they do."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def command(workload, hear, publish, speaks, *flags):
    address = ["--address", f"127.0.0.1:{hear}", "--publish-address", f"127.0.0.1:{publish}"]
    return [str(part) for part in (push_servers.CLIENT, workload, *address, *speaks, *flags)]


def push_client(*arguments):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-200:])
    return json.loads(done.stdout)


def at_rate(setup, options):
    """Each message to a few subscribers, and what it took."""
    before = setup.cpu()
    said = push_client(
        "rate", setup.hear, setup.publish, setup.speaks, "--rate", options.rate, "--seconds", options.seconds, "--subscribers", SUBSCRIBERS,
    )
    took = {who: seconds - before[who] for who, seconds in setup.cpu().items()}
    wrong = {name: said[name] for name in ("missing", "gapped", "doubled", "misordered", "foreign", "reconnects", "posts_failed") if said.get(name)}
    if wrong:
        raise RuntimeError(f"{wrong} {said.get('post_error') or ''}")
    messages = said["posts"]
    return {"p50": said["latency"]["median"], "p99": said["latency"]["p99"], **{who: seconds / messages * 1e6 for who, seconds in took.items()}}


def with_others(measure):
    """Also how many cores went to processes that are none of this."""
    def measured(setup, options):
        begun, busy = time.monotonic(), machine_busy()
        own = own_cpu() + sum(setup.cpu().values())
        figures = measure(setup, options)
        own = own_cpu() + sum(setup.cpu().values()) - own
        return {**figures, "others": max(0.0, (machine_busy() - busy - own) / (time.monotonic() - begun))}
    return measured


def own_cpu():
    """Of this one, and of the load that has ended."""
    return sum(os.times()[:4])


def as_many_as_can_be(setup, options):
    """POSTs to all servers at once, without subscribers."""
    each = CONNECTIONS // len(setup.servers)
    before, begun = setup.cpu(), time.monotonic()
    busy = machine_busy()
    clients = [
        subprocess.Popen(
            command("posts", server.port, server.port, setup.speaks, "--connections", each, "--seconds", options.seconds),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for server in setup.servers
    ]
    said = []
    for client in clients:
        out, err = client.communicate(timeout=120)
        if client.returncode:
            raise RuntimeError(err.strip()[-200:])
        said.append(json.loads(out))
    wall = time.monotonic() - begun
    took = {who: seconds - before[who] for who, seconds in setup.cpu().items()}
    # The load begins with 0.3 s that it does not count.
    counted = sum(one["posts"] for one in said) * (options.seconds + 0.3) / options.seconds
    behind = until(lambda: not any(setup.lag()), 20)
    return {
        "rate": sum(one["rate"] for one in said),
        "hosts_cores": took["hosts"] / wall, "redis_cores": took["redis"] / wall,
        "machine_cores": (machine_busy() - busy) / wall,
        "hosts": took["hosts"] / counted * 1e6, "redis": took["redis"] / counted * 1e6, "caught_up": behind,
    }


def machine_busy():
    fields = list(map(int, pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


NAMES = ("local", "bus-same", "bus-other", "nchan", "nchan-other")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rate", type=int, default=500, help="messages a second (500)")
    parser.add_argument("--only", default="", help="these, separated by commas")
    options = parser.parse_args()
    names = [name for name in NAMES if not options.only or name in options.only.split(",")]
    if not push_servers.CLIENT.exists() and (why := push_servers.cargo("client")):
        sys.exit(f"bench-bus: the load {why}")
    if not has_bus() and any(name.startswith("bus") for name in names):
        sys.exit(f"bench-bus: the program was built without the feature `redis`: {BUILD}")
    if (why := push_servers.need_nchan()) and any(name.startswith("nchan") for name in names):
        print(f"left out: nchan {why}", flush=True)
        names = [name for name in names if not name.startswith("nchan")]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    harness.adopt_descendants()
    found = {name: {"rate": [], "most": []} for name in names}
    with tempfile.TemporaryDirectory(prefix="bus-") as temporary:
        os.chmod(temporary, 0o755)
        try:
            for number in range(options.rounds):
                for name in names[number % len(names):] + names[:number % len(names)]:
                    for kind, measure in (("rate", with_others(at_rate)), ("most", with_others(as_many_as_can_be))):
                        setup = Setup(pathlib.Path(temporary) / f"{name}-{kind}-{number}", name)
                        try:
                            found[name][kind].append(measure(setup, options))
                            print(f"round {number + 1} {name} {kind}: {rounded(found[name][kind][-1])}", flush=True)
                        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                            print(f"round {number + 1} {name} {kind}: no figure: {error}", flush=True)
                        finally:
                            setup.end()
        finally:
            harness.end_descendants()
    print(table(found, options))


def rounded(figures):
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items())


def table(found, options):
    def middle(name, kind, key):
        samples = found[name][kind]
        quiet = [sample for sample in samples if sample["others"] <= DISTURBED * os.cpu_count()]
        values = [sample[key] for sample in quiet or samples]
        return statistics.median(values) if values else float("nan")

    def disturbed(name):
        both = [sample for kind in ("rate", "most") for sample in found[name][kind]]
        many = sum(sample["others"] > DISTURBED * os.cpu_count() for sample in both)
        return f" ({many} of {len(both)} disturbed)" if many else ""

    lines = [
        f"Medians of {options.rounds} rounds of {options.seconds:g} s. {SUBSCRIBERS} subscribers of one topic at {options.rate} messages/s; then, "
        f"without subscribers, {CONNECTIONS} POSTs on their way all the time, over all hosts. Rounds in which others took more than "
        f"{DISTURBED:.0%} of the machine are disturbed, and not counted where there are better ones.", "",
        "| | publication to delivery, median, p99 | CPU a message at that rate: hosts, Redis | publications/s at most | "
        "cores then: hosts, Redis, machine | CPU a publication then: hosts, Redis |",
        "|---|---|---|---|---|---|",
    ]
    for name in found:
        rate, most = (lambda key: middle(name, "rate", key)), (lambda key: middle(name, "most", key))
        lines.append(
            f"| {name}{disturbed(name)} | {rate('p50') / 1000:.2f} ms, {rate('p99') / 1000:.2f} ms | {rate('hosts'):.0f} µs, {rate('redis'):.0f} µs | "
            f"{most('rate'):,.0f} | {most('hosts_cores'):.2f}, {most('redis_cores'):.2f}, {most('machine_cores'):.2f} | "
            f"{most('hosts'):.0f} µs, {most('redis'):.0f} µs |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
