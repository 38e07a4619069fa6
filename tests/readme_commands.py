#!/usr/bin/env python3
"""Runs every command of the README in a fresh clone of this repository, word for word and in their order.

    just test-readme [--long]

What is committed is cloned, with an empty target directory. Blocks of `sh` and `bash` run by bash, in a network of their own,
so that the README's ports are free. A command that serves until it is stopped is asked for a page at each address that it
says, and stopped by Ctrl-C. What takes minutes (the tests, the recipes of `just`) is run with --long; without it, tests/readme.rs
checks that it is there. Needs git, cargo, curl, wrk, unshare and ip, and `just` with --long; what is missing is said and fails.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PORTS = (8888, 8080)
LONG = re.compile(r"(just |cargo test\b)")
SERVES = re.compile(r"(cargo run\b|\./target/release/handover (?!(reload|token|top|passwd)\b)(?!.*--check\b)(?!.*&))")

# What a block has to print that has this command. One that no block has is an error: so this goes with the README.
PRINTS = {
    "-c examples/handover.toml --check": r"configuration is valid",
    "handover top --once": r"# TYPE[\s\S]*\{[\s\S]*generation",
    "curl -s http://127.0.0.1:8888/sleep/2000": r'"generation":1\}[\s\S]*slept 2000[\s\S]*"generation":2\}',
    "cat heard": r"data: ?21\.5[\s\S]*data: ?21\.7[\s\S]*data: ?21\.9",
    "curl http://127.0.0.1:8888/sleep/3000": r"slept 3000[\s\S]*\b0\n",
    "wrk -t1": r"Requests/sec",
}


def blocks(text):
    """The commands of each block, without comments; what a line says stays in it."""
    for language, body in re.findall(r"^```(sh|bash)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language == "bash":
            yield [body]
        else:
            # A comment alone is none.
            yield [line for line in body.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def bare(line):
    return re.sub(r"\s#.*", "", line).strip()


def port_is_taken(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for_the_end_of_servers(seconds=20):
    until = time.monotonic() + seconds
    while taken := [port for port in PORTS if port_is_taken(port)]:
        if time.monotonic() > until:
            raise SystemExit(f"readme: a server is left behind that listens on {taken}")
        time.sleep(0.05)


def ask(url):
    """Whether that address answers with a page."""
    if path := re.match(r"http\+unix:(.*)", url):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path[1])
            client.sendall(b"GET / HTTP/1.1\r\nHost: readme\r\nConnection: close\r\n\r\n")
            return client.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
    with urllib.request.urlopen(url.replace("0.0.0.0", "127.0.0.1"), timeout=20) as answer:
        return answer.status == 200


def serve(command, clone):
    """Starts what serves until it is stopped; what was wrong, if anything was."""
    # The shell becomes the server where there is one command alone; a signal goes to all of them, as from a terminal.
    server = subprocess.Popen(["bash", "-c", command], cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              stdin=subprocess.DEVNULL, start_new_session=True)
    said, urls, wrong = [], [], []
    for line in server.stdout:
        said.append(line)
        if line.startswith("listening on "):
            urls.append(line.split()[2])
        if line.startswith("ready "):
            break
    else:
        wrong.append("it did not become ready")
    wrong += [f"{url} does not answer" for url in urls if not ask(url)]
    if not wrong and not urls:
        wrong.append("it names no address")
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGINT)
    said += server.stdout.readlines()
    if server.wait(timeout=30) != 0:
        wrong.append(f"exit code {server.returncode}")
    return f"{'; '.join(wrong)}: {''.join(said)}" if wrong else None


def run(script, clone):
    """What it printed, and what was wrong."""
    with tempfile.TemporaryFile("w+") as output:
        shell = subprocess.Popen(["bash", "-euo", "pipefail", "-c", script], cwd=clone, stdin=subprocess.DEVNULL, stdout=output,
                                 stderr=subprocess.STDOUT, start_new_session=True)
        code = shell.wait(timeout=3600)
        # What goes on in the background, as a curl whose server has just been stopped, has said all once the ports are free.
        wait_for_the_end_of_servers()
        output.seek(0)
        text = output.read()
    return text, None if code == 0 else f"exit code {code}: {text}"


def run_block(lines, clone, long):
    """How many commands ran, those that were left out, and what was wrong."""
    ran, left_out, wrong, printed, script = 0, [], [], "", []

    def finish():
        nonlocal printed, ran
        if script:
            text, failure = run("\n".join(script), clone)
            printed += text
            wrong.extend([failure] if failure else [])
            ran += len(script)
            script.clear()

    for line in lines:
        command = bare(line) if len(lines) > 1 else line
        if LONG.match(command) and not long:
            left_out.append(command)
        elif SERVES.match(command) and "\n" not in command:
            finish()
            failure = serve(command, clone)
            wait_for_the_end_of_servers()
            wrong.extend([f"{command}: {failure}"] if failure else [])
            ran += 1
        else:
            script.append(command)
    finish()
    for command, wanted in PRINTS.items():
        if any(command in line for line in lines) and not re.search(wanted, printed):
            wrong.append(f"{command}: no {wanted!r} in: {printed}")
    return ran, left_out, wrong


def in_a_network_of_its_own():
    """Becomes this script there."""
    for needed in ("git", "cargo", "curl", "unshare", "ip", "wrk", "bash", *(["just"] if "--long" in sys.argv else [])):
        if not shutil.which(needed):
            sys.exit(f"readme: {needed} is not installed, which commands of the README, or this script, need")
    # What cargo has to download it does before that: there is nobody to ask in there.
    subprocess.run(["cargo", "fetch", "--locked", "--quiet", "--manifest-path", ROOT / "Cargo.toml"], check=True)
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    inside = 'ip link set lo up && exec "$@"'
    os.execvp("unshare", [*unshare, "sh", "-c", inside, "sh", sys.executable, __file__, "--inside", *sys.argv[1:]])


def main():
    if "--inside" not in sys.argv:
        in_a_network_of_its_own()
    long = "--long" in sys.argv
    text = (ROOT / "README.md").read_text()
    missing = [command for command in PRINTS if command not in text]
    if missing:
        sys.exit(f"readme: PRINTS names what the README has not: {missing}")
    environment = {name: value for name, value in os.environ.items() if name not in ("CARGO_TARGET_DIR", "RUST_LOG")}
    os.environ.clear()
    os.environ.update(environment, CARGO_NET_OFFLINE="true", CARGO_TERM_COLOR="never")
    before = {path for path in ("/tmp/handover.log", "/tmp/handover.sock") if os.path.exists(path)}
    total, left_out, failures = 0, [], []
    with tempfile.TemporaryDirectory(prefix="handover-readme-") as scratch:
        clone = pathlib.Path(scratch, "handover")
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        for number, lines in enumerate(blocks((clone / "README.md").read_text()), 1):
            begun = time.monotonic()
            ran, later, wrong = run_block(lines, clone, long)
            total += ran
            left_out += later
            failures += wrong
            first = next((line for line in lines[0].splitlines() if line.strip()), "")
            state = "FAILED" if wrong else "ok"
            print(f"{state:6} block {number}: {ran} run, {len(later)} left out, {time.monotonic() - begun:.0f} s: {bare(first)} ...",
                  flush=True)
            for what in wrong:
                print(f"       {what}", flush=True)
    for path in {"/tmp/handover.log", "/tmp/handover.sock"} - before:
        pathlib.Path(path).unlink(missing_ok=True)
    if left_out:
        print("not run without --long: " + "; ".join(left_out))
    print(f"readme: {total} commands run, {len(failures)} failed, {len(left_out)} left out")
    sys.exit(1 if failures or not total else 0)


main()
