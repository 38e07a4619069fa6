#!/usr/bin/env python3
"""Several hosts with Redis between them: three servers, HAProxy, 600 subscribers and 500 messages/s, all on loopback.

    tests/bus/run.py                  what .ci/run bus does: HAProxy's file, rolling reload, stop and kill, some of the faults
    tests/bus/run.py rolling          the first of them in both modes of a reload
    tests/bus/run.py faults [NAME …]  each fault of faults.py, or those that are named
    tests/bus/run.py faults --write docs/bus-faults.md     and writes what was heard as a table
    tests/bus/run.py balancer         the file of contrib/haproxy/ by itself; needs no bus
    tests/bus/run.py load             the load by itself, with one host; and that it finds what is missing. Needs no bus

It needs redis-server and haproxy (.ci/run bus installs them) and a program with the feature `redis`:
cargo build --release --features redis --bin handover --target-dir target/bus, or what BUS_PROGRAM names. What it starts it ends by pid, and all it writes is in a temporary directory.
Each thing that has to hold is a line, ok or FAILED.
"""

import argparse
import pathlib
import signal
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE), str(HERE.parent / "clients")]

import harness  # noqa: E402  (the path above is needed first)
import balancer  # noqa: E402
import faults  # noqa: E402
import kubernetes  # noqa: E402
import rolling  # noqa: E402
import tally  # noqa: E402
from stack import BUILD, PROGRAM, has_bus  # noqa: E402

# Several times what each takes; so nothing that hangs is waited for without an end.
DEADLINE = 1500
# What the stage of CI has of it, in three minutes.
CHOSEN = ("killed_with_data", "frozen", "client_kill", "flushed", "many_posts_wait")


def run_load(directory, options):
    harness.equal("the tally tells each fault from the others", tally.self_test(), [])
    rolling.one_host(directory)
    rolling.without_a_bus(directory)


def run_rolling(directory, options):
    rolling.checks(directory)


def run_faults(directory, options):
    faults.checks(directory, options.names or list(faults.FAULTS), options.write)


def run_balancer(directory, options):
    balancer.checks(directory)


def run_ci(directory, options):
    harness.equal("the tally tells each fault from the others", tally.self_test(), [])
    balancer.checks(directory)
    kubernetes.checks(directory)
    rolling.checks(directory, modes=("exec",))
    faults.checks(directory, CHOSEN)


GROUPS = {"ci": run_ci, "rolling": run_rolling, "faults": run_faults, "balancer": run_balancer, "load": run_load}
WITHOUT_A_BUS = ("balancer", "load")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", nargs="?", default="ci", choices=GROUPS)
    parser.add_argument("names", nargs="*", help="of faults")
    parser.add_argument("--write", type=pathlib.Path, metavar="FILE", help="the table of faults")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in faults.FAULTS]:
        sys.exit(f"bus: no fault named {unknown[0]}; there are: {' '.join(faults.FAULTS)}")
    if not PROGRAM.exists():
        sys.exit(f"bus: there is no {PROGRAM}; build it: {BUILD}")
    if options.group not in WITHOUT_A_BUS and not has_bus():
        sys.exit(f"bus: the program was built without the feature `redis`: {BUILD}")
    # So that what is started here is ended here, also when we are.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"FAILED  bus: not done after {DEADLINE} s"))
    signal.alarm(DEADLINE)
    harness.adopt_descendants()
    for command in (("redis-server", "--version"), ("haproxy", "-v")):
        print(f"bus: {harness.run(*command).stdout.decode().splitlines()[0]}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bus-") as temporary:
        try:
            with harness.guarded(options.group):
                GROUPS[options.group](pathlib.Path(temporary), options)
        finally:
            harness.end_descendants()
    return harness.result("bus")


if __name__ == "__main__":
    sys.exit(main())
