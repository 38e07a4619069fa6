#!/usr/bin/env python3
"""What one acceptor costs a request, and at which rate it would fill a core: for hosts with more of them than this one.

Each workload in turn, round after round; the lab's /hello, wrk with one thread. CPU is that of the threads as the
scheduler counts it (/proc/PID/task/*/schedstat), in nanoseconds.   just bench-acceptor [ROUNDS]
"""

import pathlib
import re
import shutil
import subprocess
import sys

from common import Server, median

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
SECONDS = 2
WORKLOADS = {
    "keep-alive, c=8": ["-c8"],
    "keep-alive, c=32": ["-c32"],
    "keep-alive, c=256": ["-c256"],
    "a connection each, c=32": ["-c32", "-H", "Connection: close"],
}

if not shutil.which("wrk"):
    raise SystemExit("wrk is not installed; Debian: apt-get install wrk")


def by_thread(pid):
    """Nanoseconds on a processor of the acceptor, and of all threads."""
    acceptor = total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        spent = int((task / "schedstat").read_text().split()[0])
        total += spent
        if (task / "comm").read_text().strip() == "acceptor":
            acceptor = spent
    return acceptor, total


def measure(lab, flags):
    before = by_thread(lab.pid)
    command = ["wrk", "-t1", f"-d{SECONDS}", *flags, f"http://127.0.0.1:{lab.port}/hello"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests = int(re.search(r"(\d+) requests in", out)[1])
    acceptor, total = (later - earlier for earlier, later in zip(before, by_thread(lab.pid)))
    return requests / SECONDS, acceptor / 1e3 / requests, total / 1e3 / requests


lab = Server("examples/lab")
try:
    runs = {name: [] for name in WORKLOADS}
    for _ in range(ROUNDS):
        for name, flags in WORKLOADS.items():
            runs[name].append(measure(lab, flags))
    print(f"{ROUNDS} rounds of {SECONDS} s in turn, medians")
    print(f"{'':26}{'requests/s':>12}{'CPU us':>9}{'acceptor us':>13}{'share':>8}{'fills a core at':>18}")
    for name, figures in runs.items():
        rate, acceptor, total = (median(column) for column in zip(*figures))
        print(f"{name:26}{rate:12,.0f}{total:9.2f}{acceptor:13.2f}{acceptor / total:8.0%}{1e6 / acceptor:16,.0f}/s")
finally:
    lab.stop()
