#!/usr/bin/env python3
"""The lab's /hello against lighttpd with an 11-byte file: wrk -t1 -c32, the two in turn, medians and ratios.

Needs wrk and lighttpd (Debian: apt-get install wrk lighttpd).   just bench-lighttpd [ROUNDS] [CONNECTIONS]
"""

import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from common import Server, connect, cpu_seconds, get, median, status

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 7
CONNECTIONS = sys.argv[2] if len(sys.argv) > 2 else "32"
SECONDS = 3

for needed in ("wrk", "lighttpd"):
    if not shutil.which(needed):
        raise SystemExit(f"{needed} is not installed; Debian: apt-get install wrk lighttpd")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_lighttpd(directory):
    port = free_port()
    (directory / "hello").write_text("hello world")
    conf = directory / "lighttpd.conf"
    conf.write_text(
        f'server.document-root = "{directory}"\nserver.bind = "127.0.0.1"\nserver.port = {port}\n'
        'server.max-keep-alive-requests = 100000000\nserver.max-fds = 4096\nmimetype.assign = ("" => "text/plain")\n'
    )
    child = subprocess.Popen(["lighttpd", "-D", "-f", str(conf)], stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            get(connect(port), "/hello")
            return child, port
        except OSError:
            time.sleep(0.02)
    raise SystemExit("lighttpd did not start")


def measure(pid, port):
    before = cpu_seconds(pid)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}", f"http://127.0.0.1:{port}/hello"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests = int(re.search(r"(\d+) requests in", out)[1])
    if re.search(r"Non-2xx|Socket errors", out):
        raise SystemExit(out)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), (cpu_seconds(pid) - before) * 1e6 / requests


with tempfile.TemporaryDirectory() as directory:
    peer, peer_port = start_lighttpd(pathlib.Path(directory))
    lab = Server("examples/lab")
    try:
        peers, ours = [], []
        for _ in range(ROUNDS):
            peers.append(measure(peer.pid, peer_port))
            ours.append(measure(lab.pid, lab.port))
        rate, cpu = (lambda runs: median(run[0] for run in runs)), (lambda runs: median(run[1] for run in runs))
        print(f"wrk -t1 -c{CONNECTIONS} -d{SECONDS}, {ROUNDS} rounds in turn, medians")
        for name, runs, pid in (("lighttpd", peers, peer.pid), ("handover", ours, lab.pid)):
            print(f"{name:10} {rate(runs):10,.0f} requests/s {cpu(runs):7.2f} us CPU/request {status(pid, 'VmRSS'):7,} KiB RSS")
        print(f"ratio      {rate(ours) / rate(peers):10.2f}            {cpu(ours) / cpu(peers):7.2f}")
    finally:
        peer.terminate()
        peer.wait()
        lab.stop()
