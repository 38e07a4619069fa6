#!/usr/bin/env python3
"""Builds the static program for small hosts and runs it: started, served, reloaded in both modes under live clients,
stopped.

    tests/small/run.py [--suite] [--dev] [--build] [--table] [TARGET]...

A TARGET is one of x86_64, aarch64, armv7, riscv64, i686, mipsel; `all` is all of them, and writes the table of
docs/small-hosts.md. With --table others write it too: of each target with what was last measured of it. Without a TARGET it is x86_64 and armv7. It builds what is released, with --dev what is quicker to build.
With --suite (of itself with `all`) the integration tests run as well, built for the target, where this kernel executes
that. Others run under QEMU, whose programs this kernel has to execute by themselves, since a reload executes one: binfmt_misc
in a user namespace, Linux 6.7. It needs Debian's packages, python3-venv, mount and unshare, and installs nothing.

With --build what would run is built, and no more. One of these waits for another in the same cache.

What this host cannot get or do is NOT TRIED, with the reason, and does not count as passed.
"""

import argparse
import datetime
import fcntl
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait

import table
from toolchain import ROOT, TARGETS, NotToBeHad, Toolchain, cache, emulator_of, named

HERE = pathlib.Path(__file__).resolve().parent
MODES = ("overlap", "exec")
# Several times what it takes, under an emulator on a busy host.
PATIENCE = 240
SUITE_PATIENCE = 1500


def runs_here(program):
    """Whether this kernel executes it."""
    try:
        return subprocess.run([program, "--version"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def smoke(program, mode, emulator, *more):
    """Its figures; it ends the whole where something is wrong."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
               sys.executable, HERE / "smoke.py", program, mode, *more]
    if emulator is not None:
        command += ["--emulator", emulator]
    try:
        done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                              timeout=PATIENCE, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"reloads by {mode}: not done after {PATIENCE} s") from None
    lines = done.stdout.strip().splitlines() or [""]
    if done.returncode == 75:
        raise NotToBeHad(lines[-1])
    if done.returncode != 0:
        raise RuntimeError(f"reloads by {mode}: " + "\n    ".join(lines[-40:]))
    return json.loads(lines[-1])


def suite_programs(toolchain, target):
    return toolchain.build(target, "dev", "--bins", "--examples", "--test", "integration")


def suite(toolchain, target, meanwhile):
    """The integration tests: how many have passed. They wait more than they work, so something is built meanwhile."""
    programs = suite_programs(toolchain, target)
    # Most of them wait for processes that they have started, and not for a core.
    threads = str(2 * len(os.sched_getaffinity(0)))
    child = subprocess.Popen([programs["test:integration"]], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             text=True, env={**os.environ, "RUST_TEST_THREADS": threads})
    meanwhile()
    began, passed = time.monotonic(), None
    for line in child.stdout:
        # What fails, and the line that counts: a thousand that passed are not to be read by anybody.
        if not line.rstrip().endswith("... ok"):
            print(line, end="", flush=True)
        if found := re.match(r"test result: \w+\. (\d+) passed; (\d+) failed", line):
            passed = int(found[1])
        if time.monotonic() - began > SUITE_PATIENCE:
            child.kill()
    if child.wait() != 0 or not passed:
        raise RuntimeError(f"the integration tests failed with {child.returncode}")
    return passed


def build(toolchain, target, profile):
    began = time.monotonic()
    program = toolchain.build(target, profile, "--bin", "handover")["handover"]
    print(f"small: {target.triple}: built in {time.monotonic() - began:.0f} s ({profile})", flush=True)
    return program


def trial(toolchain, target, arguments, meanwhile):
    """Builds for a target and runs it; what was measured is kept for the table."""
    profile = profile_of(arguments)
    program = build(toolchain, target, profile)
    native = runs_here(program)
    row = {"triple": target.triple, "native": native, "size": program.stat().st_size, "profile": profile}
    for mode in MODES:
        row[mode] = smoke(program, mode, None if native else emulator_of(target))
        print(f"small: {target.triple}: {mode}: {row[mode]['said']}", flush=True)
    if native and os.uname().machine == "x86_64":
        old = [smoke(program, mode, None, "--old-calls") for mode in MODES]
        row["old"] = sum(figures["reloads"] for figures in old)
        print(f"small: {target.triple}: with the system calls of Linux 4.14 alone: {row['old']} reloads", flush=True)
    if arguments.suite:
        if native:
            row["tests"] = suite(toolchain, target, meanwhile)
        else:
            print(f"small: {target.triple}: NOT TRIED: the integration tests, which would take hours under an emulator")
    table.keep(target, {**row, "measured": str(datetime.date.today())})


def profile_of(arguments):
    return "dev" if arguments.dev else "release"


def turn():
    """Two would build into one place."""
    cache().mkdir(parents=True, exist_ok=True)
    lock = open(cache() / "lock", "w", encoding="utf-8")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", default=["x86_64", "armv7"])
    parser.add_argument("--dev", action="store_true", help="not optimised")
    parser.add_argument("--build", action="store_true", help="build what would run, and no more")
    parser.add_argument("--table", action="store_true", help="write the table of docs/small-hosts.md")
    parser.add_argument("--suite", action="store_true", help="run the integration tests where the kernel executes them")
    arguments = parser.parse_args()
    everything = "all" in arguments.targets
    targets = list(TARGETS.values()) if everything else [named(name) for name in arguments.targets]
    arguments.suite |= everything
    failed, not_tried = [], []
    # Held until this process ends.
    _alone = turn()
    try:
        toolchain = Toolchain()
    except NotToBeHad as why:
        # Said for each: whoever reads the end of this sees that nothing was tried.
        toolchain = None
        not_tried = [(target, str(why)) for target in targets]
    except RuntimeError as wrong:
        sys.exit(f"small: {wrong}")
    builder = ThreadPoolExecutor(1)
    ahead = []
    for number, target in enumerate(targets if toolchain else []):
        # What it has built is there when its turn comes; what it could not is tried, and said, again.
        wait(ahead)
        following = targets[number + 1:number + 2]

        if arguments.build:
            program = build(toolchain, target, profile_of(arguments))
            if arguments.suite and runs_here(program):
                suite_programs(toolchain, target)
            continue

        def meanwhile():
            ahead.extend(builder.submit(build, toolchain, target, profile_of(arguments)) for target in following)

        try:
            trial(toolchain, target, arguments, meanwhile)
        except NotToBeHad as why:
            not_tried.append((target, str(why)))
        except RuntimeError as wrong:
            print(f"small: {target.triple}: FAILED: {wrong}", flush=True)
            failed.append(target)
    for target, why in not_tried:
        print(f"small: {target.triple}: NOT TRIED: {why}", flush=True)
    if arguments.build:
        sys.exit(0 if toolchain else 1)
    if everything or arguments.table:
        table.write()
    tried = len(targets) - len(not_tried)
    print(f"small: {tried - len(failed)} passed, {len(failed)} failed, {len(not_tried)} not tried")
    # A run in which nothing was tried has shown nothing.
    sys.exit(1 if failed or not tried else 0)


if __name__ == "__main__":
    main()
