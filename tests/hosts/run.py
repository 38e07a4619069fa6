#!/usr/bin/env python3
"""Runs the cases beside it: what needs root, namespaces, mounts or other programs.

    tests/hosts/run.py DIRECTORY [CASE]...

DIRECTORY is where the programs are, target/release or target/debug: cargo build --release --bins --examples. Without a
CASE all run. A case is a script of its own, `python3 tests/hosts/CASE.py DIRECTORY`: it exits with 0 when it is right,
and its last line is the evidence. One that cannot be tried on this host fails, unless it stands in LEFT_OUT.
"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import harness

HERE = pathlib.Path(__file__).resolve().parent
# Several times what a case takes; so nothing that hangs is waited for without an end.
DEADLINE = 300
NO_CASES = {"run", "harness"}

# What cannot be tried anywhere that this is run, and why. Whoever adds a line says where it was tried instead.
LEFT_OUT = {}


def run(case, directory):
    """Whether it passed, and its evidence."""
    with tempfile.TemporaryDirectory() as temporary:
        # Others have to get through it: a server that has given up its privileges, for one.
        os.chmod(temporary, 0o755)
        environment = {**os.environ, "TMPDIR": temporary, "PYTHONDONTWRITEBYTECODE": "1"}
        child = subprocess.Popen(
            [sys.executable, HERE / f"{case}.py", directory], env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )
        try:
            output, _ = child.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            child.kill()
            # What it started may hold the pipe.
            harness.end_descendants()
            output = (child.communicate()[0] or "") + f"\nnot done after {DEADLINE} s"
        left = harness.end_descendants()
    lines = output.strip().splitlines() or ["it said nothing"]
    if child.returncode != 0:
        # The rest says how it came to that.
        return False, "\n    ".join([lines[-1], *lines[-30:-1]])
    if left:
        return False, f"it left {left} processes behind; {lines[-1]}"
    return True, lines[-1]


def main(arguments):
    if not arguments or not pathlib.Path(arguments[0]).is_dir():
        sys.exit("hosts: give the directory of the programs: tests/hosts/run.py target/release [CASE]...")
    directory = pathlib.Path(arguments[0]).resolve()
    for program in ("handover", "examples/lab"):
        if not os.access(directory / program, os.X_OK):
            sys.exit(f"hosts: there is no {directory / program}; build it: cargo build --release --bins --examples")
    cases = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NO_CASES)
    names = [pathlib.Path(name).stem for name in arguments[1:]]
    if unknown := sorted(set(names) - set(cases)):
        sys.exit(f"hosts: no case named {unknown[0]}; there are: {' '.join(cases)}")
    if strays := sorted(set(LEFT_OUT) - set(cases)):
        sys.exit(f"hosts: {strays[0]} is left out, and there is no such case")
    # So that what is started here is ended here, also when we are.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    harness.adopt_descendants()
    passed = failed = 0
    try:
        for case in names or cases:
            if case in LEFT_OUT:
                print(f"left out {case}: {LEFT_OUT[case]}", flush=True)
                continue
            right, evidence = run(case, directory)
            passed += right
            failed += not right
            print(f"{'ok      ' if right else 'FAILED  '} {case}: {evidence}", flush=True)
    finally:
        harness.end_descendants()
    print(f"hosts: {passed} passed, {failed} failed", flush=True)
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
