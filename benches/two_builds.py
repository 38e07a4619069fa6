#!/usr/bin/env python3
"""Two builds of this project in turn, pair by pair: requests/s and CPU a request, so that a comparison holds when the
machine's speed drifts. "As before" is a median ratio within 3 %, or within its interquartile range.

    just bench-two-builds OLD NEW [ROUNDS [ROW]]     OLD and NEW are release directories; ROW picks rows; needs wrk

Rows: a constant answer of the lab at 8, 32 and 256 connections, a new connection for each request, files of 11 bytes, 10 KiB
and 1 MiB, 1,000 idle connections beside 32 (what slow clients cost), and reloads in each mode under 32 keep-alive clients.
"""

import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import common
from common import connect, cpu_seconds, get

SECONDS = 2


class Build(common.Server):
    def __init__(self, directory, program, *args):
        common.TARGET = pathlib.Path(directory).resolve()
        super().__init__(program, *args)


def wrk(server, path, connections, *more):
    before = cpu_seconds(server.pid)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", *more, f"http://127.0.0.1:{server.port}{path}"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if re.search(r"Non-2xx", out):
        raise SystemExit(out)
    requests = int(re.search(r"(\d+) requests in", out)[1])
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])
    return rate, (cpu_seconds(server.pid) - before) * 1e6 / requests


def row(name, measure, builds, rounds):
    """The ratios new/old of what `measure` answers for a build, pair by pair."""
    pairs = []
    for number in range(rounds + 1):
        order = builds if number % 2 else builds[::-1]
        figures = {build: measure(build) for build in order}
        # The first is a warm-up.
        if number:
            pairs.append([new / old if old else 1.0 for old, new in zip(figures[builds[0]], figures[builds[1]])])
    words = []
    for what, ratios in zip(("requests/s", "CPU"), zip(*pairs)):
        low, middle, high = statistics.quantiles(ratios, n=4)
        as_before = abs(middle - 1) <= 0.03 or low <= 1 <= high
        better = middle > 1 if what == "requests/s" else middle < 1
        words.append(f"{what} {middle:.3f} [{low:.3f}-{high:.3f}] "
                     f"{'as before' if as_before else 'better' if better else 'WORSE'}")
    print(f"{name:24} {'; '.join(words)}", flush=True)
    return "WORSE" not in "".join(words)


def served(program, path, connections, *args, idle=0, more=()):
    def measure(build):
        server = Build(build, program, *args)
        kept = []
        for _ in range(idle):
            kept.append(connect(server.port))
            get(kept[-1], path)
        try:
            return wrk(server, path, connections, *more)
        finally:
            for connection in kept:
                connection.close()
            server.stop()

    return measure


def reloaded(mode):
    """Requests/s while it is reloaded five times, on connections that stay."""

    def measure(build):
        with tempfile.TemporaryDirectory() as directory:
            pid_file = pathlib.Path(directory) / "pid"
            server = Build(build, "examples/lab", "--reload", mode, "--reload-probation", "0.1", "--pid-file", pid_file)
            load = subprocess.Popen(["wrk", "-t1", "-c32", "-d4s", f"http://127.0.0.1:{server.port}/hello"],
                                    stdout=subprocess.PIPE, text=True)
            for _ in range(5):
                time.sleep(0.6)
                common.os.kill(int(pid_file.read_text()), signal.SIGHUP)
            out = load.communicate()[0]
            if "Socket errors" in out:
                raise SystemExit(out)
            common.os.kill(int(pid_file.read_text()), signal.SIGTERM)
            server.child.wait(30)
            return (float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),)

    return measure


def main():
    if len(sys.argv) < 3 or not shutil.which("wrk"):
        raise SystemExit(__doc__)
    builds, rounds = sys.argv[1:3], int(sys.argv[3]) if len(sys.argv) > 3 else 7
    fine = True
    with tempfile.TemporaryDirectory() as site:
        for name, size in (("11", 11), ("10k", 10 << 10), ("1m", 1 << 20)):
            (pathlib.Path(site) / name).write_bytes(b"x" * size)
            common.os.utime(pathlib.Path(site) / name, (1e9, 1e9))
        time.sleep(2.5)
        rows = [
            ("constant, c=8", served("examples/lab", "/hello", 8)),
            ("constant, c=32", served("examples/lab", "/hello", 32)),
            ("constant, c=256", served("examples/lab", "/hello", 256)),
            ("constant, 1000 idle", served("examples/lab", "/hello", 32, "--max-connections", "2000", idle=1000)),
            ("new connection each", served("examples/lab", "/hello", 32, more=["-H", "Connection: close"])),
            ("file of 11 B, c=32", served("handover", "/11", 32, site)),
            ("file of 10 KiB, c=32", served("handover", "/10k", 32, site)),
            ("file of 1 MiB, c=16", served("handover", "/1m", 16, site)),
            ("5 exec reloads", reloaded("exec")),
            ("5 overlap reloads", reloaded("overlap")),
        ]
        wanted = sys.argv[4] if len(sys.argv) > 4 else ""
        for name, measure in rows:
            if wanted not in name:
                continue
            fine &= row(name, measure, builds, rounds)
    sys.exit(not fine)


main()
