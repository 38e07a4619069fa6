#!/usr/bin/env python3
"""handover beside its peers: every workload, every server in turn, round after round; medians with their spread.

    just bench-peers                                              everything, about half an hour
    just bench-peers --only handover,lighttpd --workload constant-c32,file-1m --rounds 5 --seconds 2
    just bench-peers --publish                                    and writes docs/benchmarks.md with its plots
    just bench-peers --list                                       the names of servers and workloads
    just bench-peers --self-test                                  checks this runner itself; measures nothing

Each cell starts its server anew on a free port, checks an answer byte for byte, runs wrk with one thread, and ends the
server; nothing else of it runs meanwhile. What a server cannot do stands in its cell. Figures are saved as JSON, from
which `--report FILE` prints the tables again. Needs wrk and, for two of the peers, lighttpd and nginx.
"""

import argparse
import datetime
import itertools
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from common import ROOT  # noqa: E402  (the path above is needed first)
import report  # noqa: E402
import servers as all_servers  # noqa: E402
from servers import PEERS, SERVERS, Running, cpu_between  # noqa: E402
from wire import Wire, Wrong, expect  # noqa: E402
from workloads import FILES, HELLO, MIX, WORKLOADS, content, parse_wrk  # noqa: E402

IDLE = (1_000, 10_000)
STARTS = 5
DESCRIPTORS = 65_536
# A cell that failed in this many rounds in a row is not tried again.
GIVE_UP = 2


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each cell is measured (5)")
    parser.add_argument("--seconds", type=int, default=2, help="how long each time, in whole seconds (2)")
    parser.add_argument("--only", default="", metavar="SERVERS", help="these servers, separated by commas")
    parser.add_argument("--workload", default="", metavar="WORKLOADS", help="these workloads, or prefixes of them")
    parser.add_argument("--no-rest", action="store_true", help="leave out memory, threads and start")
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "target/bench-peers.json", help="where figures go")
    parser.add_argument("--publish", action="store_true", help="write docs/benchmarks.{md,json} and the plots")
    parser.add_argument("--report", type=pathlib.Path, metavar="FILE", help="only print the tables of this file")
    parser.add_argument("--list", action="store_true", help="say the names of servers and workloads")
    parser.add_argument("--self-test", action="store_true", help="check the runner itself")
    return parser.parse_args()


def chosen(names, known, what, prefixes=False):
    """Those that are named, in the order that they are known in; all where none is."""
    if not names:
        return list(known.values())
    wanted = names.split(",")
    fits = lambda name, known_name: known_name == name or (prefixes and known_name.startswith(name))
    for name in wanted:
        if not any(fits(name, known_name) for known_name in known):
            raise SystemExit(f"bench-peers: no {what} named {name!r}; there are: {', '.join(known)}")
    return [value for known_name, value in known.items() if any(fits(name, known_name) for name in wanted)]


def rows(server, workload):
    """The cells of a server: their names, and what a blocking request asks for."""
    if workload.kind == "mix":
        return [(server.name + suffix, path) for suffix, path in server.blocking]
    return [(server.name, None)]


class Bench:
    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.site = directory / "site"
        self.site.mkdir()
        (self.site / "hello").write_bytes(HELLO)
        for name in FILES:
            (self.site / f"{name}.txt").write_bytes(content(name))
        self.numbers = itertools.count()

    def own(self):
        directory = self.directory / f"run-{next(self.numbers)}"
        directory.mkdir()
        return directory

    def measure(self, server, workload, slow_path):
        with Running(server, self.site, self.own(), workload.kind) as running:
            checked = workload.check(running.port, slow_path)
            before, client_before = running.cpu(), client_cpu()
            if workload.kind == "mix":
                sample = self.mix(running.port, workload, slow_path)
            else:
                sample = self.wrk(running.port, workload, checked)
            if not checked.announced:
                sample["note"] = "closes without saying so"
            if not sample["requests"]:
                raise Wrong("answered no request")
            sample["cpu"] = cpu_between(before, running.cpu()) * 1e6 / sample["requests"]
            sample["client"] = (client_cpu() - client_before) * 1e6 / sample["requests"]
            return sample

    def wrk(self, port, workload, checked):
        script = self.directory / "wrk.lua"
        script.write_text(workload.script(checked.fields))
        url = f"http://127.0.0.1:{port}{workload.path()}"
        seconds = self.options.seconds
        command = ["wrk", "-t1", f"-c{workload.connections}", f"-d{seconds}", "--timeout", "10", "-s", str(script), url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
        if done.returncode:
            raise Wrong(f"wrk failed: {(done.stderr or done.stdout).strip()[-200:]}")
        sample = parse_wrk(done.stdout, workload.expected_status(), checked.announced)
        if workload.kind == "pipeline":
            # wrk times a batch but corrects it by the interval between single requests: no figure of anything.
            sample.update(p50=None, p99=None, p999=None)
        return sample

    def mix(self, port, workload, slow_path):
        seconds = self.options.seconds
        numbers = [MIX["rate"], MIX["connections"], seconds, MIX["one_in"]]
        command = [PEERS / "release/peer-mix", f"127.0.0.1:{port}", workload.path(), slow_path, *numbers]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=seconds + 120)
        if done.returncode:
            raise Wrong(f"mix failed: {done.stderr.strip()[-200:]}")
        return parse_mix(done.stdout)

    def run(self, servers, workloads, missing):
        """Every cell once a round, the servers in turn."""
        cells = {}
        plan = []
        for workload in workloads:
            cells[workload.name] = {}
            for server in servers:
                reason = missing.get(server.name) or server.why_not(workload)
                for name, slow_path in rows(server, workload):
                    cells[workload.name][name] = {"samples": [], "reason": reason, "failed": 0}
                    if not reason:
                        plan.append((workload, server, name, slow_path))
        total, number, began = len(plan) * self.options.rounds, 0, time.monotonic()
        for workload in workloads:
            for round_number in range(1, self.options.rounds + 1):
                for _, server, name, slow_path in (entry for entry in plan if entry[0] is workload):
                    number += 1
                    cell = cells[workload.name][name]
                    if cell["failed"] >= GIVE_UP:
                        continue
                    try:
                        sample = self.measure(server, workload, slow_path)
                        cell["samples"].append(sample)
                        cell["failed"] = 0
                        said = f"{sample['rate']:12,.0f}/s {sample['cpu']:9.2f} us CPU"
                        said += f"  {sample['errors']} errors" if sample["errors"] else ""
                    except (Wrong, OSError, subprocess.TimeoutExpired) as error:
                        cell["failed"] += 1
                        cell["reason"] = said = str(error)
                    left = (time.monotonic() - began) / number * (total - number)
                    print(f"{number:4}/{total}, {clock(left)} left: {workload.name:16} round {round_number} {name:22} {said}", flush=True)
        for cell in itertools.chain.from_iterable(by_name.values() for by_name in cells.values()):
            del cell["failed"]
            if cell["samples"]:
                cell["reason"] = None
        return cells

    def at_rest(self, server, kind):
        """Start, threads and memory of one program, then with many idle connections."""
        starts = []
        for start in range(STARTS):
            with Running(server, self.site, self.own(), kind) as running:
                starts.append(running.ready_after * 1e3)
                if start == STARTS - 1:
                    idle = running.at_rest()
        file = all_servers.program(server, running.place, kind)
        found = {"starts_ms": starts, "idle": idle, "binary": file.stat().st_size}
        with Running(server, self.site, self.own(), kind, many=True) as running:
            found["empty"] = running.at_rest()
            connections = []
            try:
                for goal in IDLE:
                    try:
                        open_until(goal, running.port, connections)
                        found[str(goal)] = running.at_rest()
                    except (Wrong, OSError) as error:
                        found[str(goal)] = {"reason": f"{len(connections):,} connections, then: {error}"}
                        break
            finally:
                for wire in connections:
                    wire.socket.close()
        return found

    def rest(self, servers, missing):
        found = {}
        for server in servers:
            for suffix, kind in [("", "constant")] if len(server.processes) == 1 else server.processes:
                name = f"{server.name}, {suffix}" if suffix else server.name
                if server.name in missing:
                    found[name] = {"reason": missing[server.name]}
                    continue
                try:
                    found[name] = self.at_rest(server, kind)
                    # The program serves files and needs what the library needs, whose count is the application's.
                    found[name]["dependencies"] = all_servers.dependencies(server)
                    said = f"{found[name]['idle']['private']:,} KiB private"
                except (Wrong, OSError) as error:
                    found[name] = {"reason": str(error)}
                    said = str(error)
                print(f"at rest: {name:24} {said}", flush=True)
        return found


def client_cpu():
    """Seconds of every program that has ended: the load, since a server still runs when its load has."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def open_until(goal, port, connections):
    """Keep-alive connections that have each had an answer."""
    while len(connections) < goal:
        wire = Wire(port)
        connections.append(wire)
        wire.send("GET", "/hello")
        expect(wire.answer(), 200, HELLO)


def parse_mix(output):
    """What the others waited is the figure; CPU is for every request, those that block included."""
    figures = json.loads(output)
    fast, slow = figures["fast"], figures["slow"]
    requests = fast["count"] + slow["count"]
    sample = {"requests": requests, "rate": requests * 1e6 / figures["took"], "errors": figures["errors"]}
    return {**sample, **{key: fast[key] for key in ("p50", "p99", "p999")}, "blocked": slow}


def raise_descriptors():
    """For 10,000 connections here and, as the servers inherit it, there; some take two or more for each."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, max(hard, DESCRIPTORS)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def machine():
    model = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = int(pathlib.Path("/proc/meminfo").read_text().split()[1]) // 1024
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory,
        "kernel": os.uname().release,
        "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "load_before": os.getloadavg()[0],
    }


def main():
    options = arguments()
    if options.self_test:
        import self_test

        raise SystemExit(self_test.main())
    if options.list:
        print("servers:  ", ", ".join(SERVERS))
        print("workloads:", ", ".join(WORKLOADS))
        return
    if options.report:
        print(report.markdown(json.loads(options.report.read_text())))
        return
    servers = chosen(options.only, SERVERS, "server")
    workloads = chosen(options.workload, WORKLOADS, "workload", prefixes=True)
    if options.publish and (len(servers), len(workloads)) != (len(SERVERS), len(WORKLOADS)):
        raise SystemExit("bench-peers: --publish is for a whole run, without --only and --workload")
    if not shutil.which("wrk"):
        raise SystemExit("bench-peers: wrk is not installed; Debian: apt-get install wrk")
    raise_descriptors()
    began = time.monotonic()
    results = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "command": " ".join(["just bench-peers", *sys.argv[1:]]),
        "machine": machine(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "mix": MIX,
    }
    missing = all_servers.build(servers)
    # Pages of a program that was built only just now would count as dirty.
    os.sync()
    results["versions"] = all_servers.versions()
    results["servers"] = {server.name: server.about for server in servers}
    results["workloads"] = {workload.name: workload.title for workload in workloads}
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as name:
        os.chmod(name, 0o755)
        bench = Bench(options, pathlib.Path(name))
        results["rest"] = {} if options.no_rest else bench.rest(servers, missing)
        results["cells"] = bench.run(servers, workloads, missing)
    results["took_minutes"] = round((time.monotonic() - began) / 60, 1)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print()
    print(report.markdown(results))
    print(f"took {results['took_minutes']} minutes; figures in {os.path.relpath(options.json)}")
    if options.publish:
        report.publish(results, ROOT / "docs")
        print("wrote docs/benchmarks.md, docs/benchmarks.json and the plots")


if __name__ == "__main__":
    main()
