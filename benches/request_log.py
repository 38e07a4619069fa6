#!/usr/bin/env python3
"""What the request log costs: CPU of a constant answer without it, and with it in each form, on tmpfs and on a disk.

    just bench-request-log [ROUNDS [DIRECTORY]]     at least 9 rounds; DIRECTORY is on the disk; needs wrk, and valgrind for
                                                    the second table

One server for each kind, all of them at the same time and measured in turn, since a machine's speed drifts; the order turns from
round to round. CPU is utime and stime of the whole process, the log's own thread included, and a round ends when that
has written all. A ratio is of one round. Behind it the instructions outside the kernel, by callgrind: the same on a busy machine.
"""

import os
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
import instructions
from common import cpu_seconds

SECONDS, CONNECTIONS, PATH = 2, 32, "/hello"
WRITTEN = 0.5
"""Longer than lines wait to be written together."""
FEW, MANY = 320, 32_320


def measured(server):
    before = cpu_seconds(server.pid)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-H", "User-Agent: a-browser-of-some-kind/1.0 (of a common length)",
               "-H", "Referer: http://127.0.0.1/a/page/before", f"http://127.0.0.1:{server.port}{PATH}"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if re.search(r"Non-2xx|Socket errors", out):
        raise SystemExit(out)
    time.sleep(WRITTEN)
    requests = int(re.search(r"(\d+) requests in", out)[1])
    return (cpu_seconds(server.pid) - before) * 1e6 / requests, requests


def missing(path, requests):
    """How many of its lines are not there: one that was dropped has cost less. The file begins anew."""
    with open(path, "rb") as file:
        lines = sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))
    os.truncate(path, 0)
    return max(0, requests - lines)


def kinds(directory):
    """Each with its flags, and where its lines are."""
    yield "none", [], None
    for place, root in (("tmpfs", pathlib.Path("/dev/shm")), ("disk", directory)):
        for form in ("combined", "json"):
            path = pathlib.Path(tempfile.mkdtemp(prefix="handover-log-", dir=root)) / "access"
            configuration = path.with_name("lab.toml")
            configuration.write_text(f"access_log = '{path}'\naccess_log_format = '{form}'\n")
            yield f"{form}, {place}", ["-c", configuration], path


def cpu(all_kinds, rounds):
    servers = {name: common.Server("examples/lab", "-w", "2", *flags) for name, flags, _ in all_kinds}
    paths = {name: path for name, _, path in all_kinds}
    figures, lost, asked = {name: [] for name in servers}, dict.fromkeys(servers, 0), dict.fromkeys(servers, 0)
    try:
        for number in range(rounds + 1):
            order = list(servers)[number % len(servers):] + list(servers)[:number % len(servers)]
            for name in order:
                used, requests = measured(servers[name])
                asked[name] += requests
                if paths[name]:
                    lost[name] += missing(paths[name], requests)
                # The first is a warm-up.
                if number:
                    figures[name].append(used)
    finally:
        for server in servers.values():
            server.stop()
    print(f"{'request log':<18} CPU us a request  against none [quartiles]  missing, {rounds} rounds, {CONNECTIONS} connections")
    for name, used in figures.items():
        ratios = [mine / none for mine, none in zip(used, figures["none"])]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:<18} {statistics.median(used):16.2f}  {middle:.3f} [{low:.3f}-{high:.3f}]"
              f"       {lost[name] / asked[name]:.2%}", flush=True)


def instructions_a_request(flags):
    def collected(count):
        with tempfile.NamedTemporaryFile() as profile:
            command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile.name}",
                       str(common.TARGET / "examples/lab"), "-l", "127.0.0.1:0", "-w", "2", *map(str, flags)]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            port = None
            for line in server.stdout:
                listening = re.search(r"http://127\.0\.0\.1:(\d+)", line)
                port = int(listening[1]) if listening else port
                if line.startswith("ready"):
                    break
            if port is None:
                raise SystemExit(server.stderr.read())
            instructions.ask(port, PATH, count)
            server.send_signal(signal.SIGTERM)
            return int(re.search(r"Collected : (\d+)", server.communicate()[1])[1])

    return (collected(MANY) - collected(FEW)) / (MANY - FEW)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    if rounds < 9 or not shutil.which("wrk"):
        raise SystemExit(__doc__)
    directory = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else common.TARGET
    all_kinds = list(kinds(directory))
    try:
        cpu(all_kinds, rounds)
        if not shutil.which("valgrind"):
            print("no valgrind: instructions were not counted")
            return
        print("\ninstructions a request outside the kernel")
        none = None
        for name, flags, _ in all_kinds[:3]:
            counted = instructions_a_request(flags)
            none = none or counted
            print(f"{name.split(',')[0]:<18} {counted:16,.0f}  {counted - none:+,.0f}", flush=True)
    finally:
        for _, _, path in all_kinds:
            if path:
                shutil.rmtree(path.parent)


main()
