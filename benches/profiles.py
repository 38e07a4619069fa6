#!/usr/bin/env python3
"""Size, memory and cost of the program by profile and features; `--publish` writes them into docs/small-hosts.md.

    just bench-profiles [--publish] [PROFILE...]     release and small; needs valgrind

Each is built, started with two workers, and asked. Resident is VmRSS, private what of it no other process shares
(Private_Clean and Private_Dirty of smaps_rollup): when it is ready, and behind 1,000 answers. Instructions are those of a
request outside the kernel, by callgrind, as `just bench-instructions` counts them: the same on a busy machine.
"""

import gzip
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

import instructions

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PAGE = ROOT / "docs/small-hosts.md"
BEGIN, END = "<!-- profiles: written by `just bench-profiles --publish` -->", "<!-- profiles: end -->"
PROFILES = ["release", "small"]
FEATURES = [("as they are", []), ("none", ["--no-default-features"])]


def build(profile, flags):
    """A copy of the program, in a directory of its own."""
    subprocess.run(["cargo", "build", "--locked", "--quiet", "--bin", "handover", "--profile", profile, *flags], cwd=ROOT, check=True)
    directory = pathlib.Path(tempfile.mkdtemp())
    program = directory / "handover"
    program.write_bytes((TARGET / profile / "handover").read_bytes())
    program.chmod(0o755)
    return directory


def started(program, root):
    """A server that is ready, and its port."""
    server = subprocess.Popen([program, "-l", "127.0.0.1:0", "-w", "2", root], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    port = None
    for line in server.stdout:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            port = int(found[1])
        if line.startswith("ready"):
            return server, port
    raise SystemExit(f"{program} does not start")


def memory(pid):
    """Resident and private, in KiB."""
    resident = int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return resident, sum(int(size) for size in re.findall(r"^Private_\w+:\s+(\d+)", rollup, re.M))


def ended(server):
    server.send_signal(signal.SIGTERM)
    if server.wait(30) != 0:
        raise SystemExit(f"a stop ended with {server.returncode}")


def measure(directory, root):
    program = directory / "handover"
    bytes_of = program.read_bytes()
    server, port = started(program, root)
    at_start = memory(server.pid)
    instructions.ask(port, "/small", 1000)
    behind = memory(server.pid)
    ended(server)
    calls = instructions.instructions(directory, "handover", root, "/small", instructions.FEW)
    more = instructions.instructions(directory, "handover", root, "/small", instructions.MANY)
    each = (more - calls) / (instructions.MANY - instructions.FEW)
    return [
        f"{len(bytes_of):,}", f"{len(gzip.compress(bytes_of, 9)):,}", f"{at_start[0]:,}", f"{at_start[1]:,}",
        f"{behind[0]:,}", f"{behind[1]:,}", f"{each:,.0f}",
    ]


def main():
    profiles = [name for name in sys.argv[1:] if not name.startswith("--")] or PROFILES
    rows = ["| profile | features | bytes | gzipped | resident, KiB | private | behind 1,000 answers | private | instructions |",
            "|---|---|---|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as root:
        pathlib.Path(root, "small").write_bytes(b"hello world")
        for profile in profiles:
            for name, flags in FEATURES:
                rows.append(f"| `{profile}` | {name} | " + " | ".join(measure(build(profile, flags), root)) + " |")
                print(rows[-1], flush=True)
    if "--publish" in sys.argv:
        machine = os.uname().machine
        cores = os.cpu_count()
        made = f"{BEGIN}\n\nOn {machine} with {cores} cores, glibc; a file of 11 bytes.\n\n" + "\n".join(rows) + "\n"
        page = PAGE.read_text()
        begin = page.index(BEGIN)
        end = page.index(END)
        PAGE.write_text(page[:begin] + made + "\n" + page[end:])


main()
