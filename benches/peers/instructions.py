#!/usr/bin/env python3
"""Instructions for each request, counted by valgrind: the constant answer, and a file of 11 bytes.

Start and stop cancel out: a server answers N requests, then another one 2N, and the difference over N is what one
costs in its steady state. The requests come one by one on one connection, which for handover is the dearest way: each
wakes the acceptor and then a worker. Only instructions outside the kernel are counted.

    just instructions                        handover, lighttpd, nginx and the limit
    just instructions --only handover,axum --requests 2000
"""

import argparse
import pathlib
import re
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import servers as all_servers  # noqa: E402  (the path above is needed first)
from run import chosen  # noqa: E402
from servers import SERVERS, Running  # noqa: E402
from wire import Wire, Wrong, expect  # noqa: E402
from workloads import HELLO, WORKLOADS  # noqa: E402

MEASURED = ("constant-c1", "file-11b-c32")


def total(text):
    """What callgrind says at the end of its file."""
    found = re.search(r"^(?:totals|summary): (\d+)", text, re.M)
    if not found:
        raise Wrong("callgrind wrote no total")
    return int(found[1])


def count(server, workload, requests, directory):
    """All instructions of a server's life in which it answered that many requests."""
    own = pathlib.Path(tempfile.mkdtemp(dir=directory))
    before = ["valgrind", "--tool=callgrind", "--trace-children=yes", f"--callgrind-out-file={own}/callgrind.%p"]
    with Running(server, directory / "site", own, workload.kind, before=before, patience=60.0) as running:
        with Wire(running.port) as wire:
            for _ in range(requests):
                wire.send("GET", workload.path())
                expect(wire.answer(), 200, HELLO)
    # One file for each process; all of them have ended.
    return sum(total(file.read_text()) for file in own.glob("callgrind.*"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="handover,lighttpd,nginx,limit", metavar="SERVERS")
    parser.add_argument("--requests", type=int, default=1000, help="N (1000)")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        raise SystemExit("instructions: valgrind is not installed; Debian: apt-get install valgrind")
    servers = chosen(options.only, SERVERS, "server")
    missing = all_servers.build(servers)
    print(f"{'instructions a request':24}" + "".join(f"{WORKLOADS[name].title.split(',')[0]:>32}" for name in MEASURED))
    with tempfile.TemporaryDirectory(prefix="instructions-") as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        (directory / "site").mkdir()
        for file in ("hello", "11b.txt"):
            (directory / "site" / file).write_bytes(HELLO)
        for server in servers:
            said = []
            for workload in (WORKLOADS[name] for name in MEASURED):
                try:
                    if reason := missing.get(server.name) or server.why_not(workload):
                        raise Wrong(reason)
                    once = count(server, workload, options.requests, directory)
                    twice = count(server, workload, 2 * options.requests, directory)
                    said.append(f"{(twice - once) / options.requests:,.0f}")
                except (Wrong, OSError) as error:
                    said.append(str(error))
            print(f"{server.name:24}" + "".join(f"{text:>32}" for text in said), flush=True)


if __name__ == "__main__":
    main()
