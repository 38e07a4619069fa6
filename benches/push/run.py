#!/usr/bin/env python3
"""Push: handover beside its peers and a bare loop; every workload, every server in turn, round after round.

    just bench-push                                               everything
    just bench-push --only handover,limit --workload one,steady --rounds 3
    just bench-push --handover target/other/release/handover      another build of it
    just bench-push --publish                                     and writes its part of docs/benchmarks.md
    just bench-push --workload echo --publish                     only these rows of it, the others stay
    just bench-push --list                                        the names of servers and workloads
    just bench-push --self-test                                   checks the client and this runner; measures nothing

Each cell starts its server anew on a free port and ends it. The load checks each delivery; where one is missing, doubled
or out of order, the cell says so and has no figure. What cannot be installed is said and left out. Figures are saved as
JSON, from which `--report FILE` prints the tables again.
"""

import argparse
import datetime
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE.parent), str(HERE.parent / "peers")]

from common import ROOT, TICK  # noqa: E402  (the path above is needed first)
import push_report  # noqa: E402
import push_servers  # noqa: E402
from push_servers import CLIENT, SERVERS  # noqa: E402
from push_workloads import WORKLOADS  # noqa: E402
from servers import Running  # noqa: E402
from wire import Wrong  # noqa: E402


def peers_runner():
    """What the other runner has that this one needs as well; it has this one's name."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("peers_run", HERE.parent / "peers/run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


peers_run = peers_runner()
# A cell that failed in this many rounds in a row is not tried again, and no load takes longer than this.
GIVE_UP, LONGEST = 2, 180
LONGEST_REASON = 160


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each cell is measured (5)")
    parser.add_argument("--seconds", type=float, default=3, help="how long each time (3)")
    parser.add_argument("--subscribers", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--only", default="", metavar="SERVERS", help="these servers, separated by commas")
    parser.add_argument("--workload", default="", metavar="WORKLOADS", help="these workloads, or prefixes of them")
    parser.add_argument("--handover", type=pathlib.Path, metavar="FILE", help="this program instead of one built here")
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "target/bench-push.json", help="where figures go")
    parser.add_argument("--publish", action="store_true", help="write docs/benchmarks.md, its plots and figures")
    parser.add_argument("--report", type=pathlib.Path, metavar="FILE", help="only print the tables of this file")
    parser.add_argument("--list", action="store_true", help="say the names of servers and workloads")
    parser.add_argument("--self-test", action="store_true", help="check the client and the runner")
    return parser.parse_args()


def in_turn(servers, round_number):
    """Each round begins with another one."""
    start = (round_number - 1) % len(servers)
    return servers[start:] + servers[:start]


class Bench:
    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.site = directory / "site"
        self.site.mkdir()
        (self.site / "hello").write_text("hello world")
        self.numbers = itertools.count()

    def own(self):
        directory = self.directory / f"run-{next(self.numbers)}"
        directory.mkdir()
        return directory

    def measure(self, server, workload):
        many = workload.subscribers(self.options)
        with Running(server, self.site, self.own(), workload.kind, many) as running:
            pid = running.child.pid
            flags = [*server.flags(running.port, workload), "--pid", pid]
            busy, own, began = busy_seconds(), running.cpu()[0] + peers_run.client_cpu(), time.monotonic()
            try:
                if workload.kind.startswith("reload"):
                    flags += ["--reload", push_servers.pid_file(running.place)]
                sample = load(workload.arguments(self.options) + flags)
                took = (time.monotonic() - began) * os.cpu_count()
                own = running.cpu()[0] + peers_run.client_cpu() - own if running.child.poll() is None else took
                sample["others"] = max(0.0, (busy_seconds() - busy - own) / took)
            finally:
                stop_successor(running)
        workload.check(sample)
        return sample

    def run(self, servers, workloads, missing):
        """Every cell once a round, the servers in turn."""
        cells = {
            workload.name: {
                server.name: {"samples": [], "reason": missing.get(server.name) or server.why_not(workload), "failures": 0}
                for server in servers
                if server.takes_part(workload)
            }
            for workload in workloads
        }
        possible = {
            workload.name: [
                server for server in servers
                if server.takes_part(workload) and not cells[workload.name][server.name]["reason"]
            ]
            for workload in workloads
        }
        total = sum(map(len, possible.values())) * self.options.rounds
        number, began, in_a_row = 0, time.monotonic(), {}
        for workload in workloads:
            for round_number in range(1, self.options.rounds + 1):
                for server in in_turn(possible[workload.name], round_number) if possible[workload.name] else ():
                    number += 1
                    cell, key = cells[workload.name][server.name], (workload.name, server.name)
                    if in_a_row.get(key, 0) >= GIVE_UP:
                        continue
                    try:
                        sample = self.measure(server, workload)
                        cell["samples"].append({"round": round_number, **sample})
                        in_a_row[key] = 0
                        said = ", ".join(f"{figure.title} {figure.show(figure.of(sample))}" for figure in workload.figures)
                        if sample["others"] > push_report.DISTURBED:
                            said += f"; disturbed, {sample['others']:.0%} of the machine went to others"
                    except (Wrong, OSError, subprocess.TimeoutExpired, KeyError) as error:
                        in_a_row[key] = in_a_row.get(key, 0) + 1
                        cell["failures"] += 1
                        cell["reason"] = said = str(error).replace(f"{self.directory}/", "")[:LONGEST_REASON]
                    left = peers_run.clock((time.monotonic() - began) / number * (total - number))
                    print(f"{number:4}/{total}, {left} left: {workload.name:10} round {round_number} {server.name:14} {said}", flush=True)
        return cells


def busy_seconds():
    """What all processes of the machine have taken, and what its host has kept."""
    fields = list(map(int, pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / TICK


def stop_successor(running):
    """Ends the process that serves after a reload by two; it is no child of this one by then."""
    file = push_servers.pid_file(running.place)
    pid = int(file.read_text()) if file.exists() else running.child.pid
    if pid == running.child.pid:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
            for _ in range(100):
                time.sleep(0.1)
                os.kill(pid, 0)
        except ProcessLookupError:
            return


def load(flags):
    """One run of the client."""
    command = [str(part) for part in (CLIENT, *flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
    if done.returncode:
        raise Wrong(done.stderr.strip().removeprefix("push-client: ")[-300:] or f"the client ended with {done.returncode}")
    return json.loads(done.stdout)


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
        print(push_report.markdown(json.loads(options.report.read_text())))
        return
    servers = peers_run.chosen(options.only, SERVERS, "server")
    workloads = peers_run.chosen(options.workload, WORKLOADS, "workload", prefixes=True)
    if options.publish and not all(server in servers for server in SERVERS.values() if any(map(server.takes_part, workloads))):
        raise SystemExit("bench-push: --publish is for all servers of a workload, without --only")
    if options.handover:
        push_servers.handover_program = options.handover.resolve()
    peers_run.raise_descriptors()
    began = time.monotonic()
    results = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "command": " ".join(["just bench-push", *sys.argv[1:]]),
        "machine": peers_run.machine(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "subscribers": options.subscribers,
    }
    missing = push_servers.build(servers)
    for name, why in missing.items():
        print(f"left out: {name}: {why}", flush=True)
    os.sync()
    results["versions"] = push_servers.versions()
    results["servers"] = {server.name: server.about for server in servers}
    with tempfile.TemporaryDirectory(prefix="bench-push-") as name:
        os.chmod(name, 0o755)
        results["cells"] = Bench(options, pathlib.Path(name)).run(servers, workloads, missing)
    results["took_minutes"] = round((time.monotonic() - began) / 60, 1)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print()
    print(push_report.markdown(results))
    print(f"took {results['took_minutes']} minutes; figures in {os.path.relpath(options.json)}")
    if options.publish:
        if len(workloads) < len(WORKLOADS):
            results = push_report.among_the_others(results, ROOT / "docs")
        push_report.publish(results, ROOT / "docs")
        print("wrote docs/benchmarks.md, docs/benchmarks-push.json and the plots")


if __name__ == "__main__":
    main()
