"""Runs the groups of checks, all or those that are named. tests/clients/run.sh prepares what it needs."""

import pathlib
import re
import signal
import subprocess
import sys
import tempfile

import across_reload
import crowd
import harness
import in_browser
import load_tools
import readme_push
import slow_attacks
import sockjs
import subscribers
import websockets
import with_curl
import with_python

DEADLINE = 600
HERE = pathlib.Path(__file__).resolve().parent

# What says its version on its own. The Python clients are pinned in requirements.txt, undici in package.json.
VERSIONS = [
    ("curl", "--version"), ("node", "--version"), ("ab", "-V"), ("wrk", "--version"), ("h2load", "--version"),
    ("chromium", "--version"), ("slowhttptest", "-h"),
]


def say_versions():
    for command in VERSIONS:
        answer = harness.run(*command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, capture_output=False)
        lines = re.sub(r"\x1b\[[\d;]*m", "", answer.stdout.decode(errors="replace")).splitlines()
        versions = [found[1] for line in lines if (found := re.search(r"(\d+\.\d[\w.+-]*)", line))]
        print(f"clients: {command[0]} {versions[0] if versions else 'says no version'}", flush=True)


def node(mode, site, server, lab):
    """The lines of with_node.mjs count as ours."""
    answer = harness.run("node", HERE / "with_node.mjs", mode, server.url, lab.url, site.directory)
    for line in answer.stdout.decode().splitlines():
        verdict, what, detail = line.split("\t")
        harness.check(what, verdict == "ok", detail)
    harness.equal(f"node {mode}: ended well", (answer.returncode, answer.stderr.decode()[-400:]), (0, ""))


def run_curl(site, server, lab, directory):
    with_curl.checks(site, server, lab, directory)


def run_python(site, server, lab, directory):
    with_python.checks(site, server, lab)


def run_node(site, server, lab, directory):
    # Its pool opens another connection when it asks before the first is known to be free.
    with server.connections("node fetch", (1, 3)):
        node("fetch", site, server, lab)
    with lab.connections("node fetch, uploads", (1, 2)):
        node("uploads", site, server, lab)
    with server.connections("node http.Agent", 1):
        node("agent", site, server, lab)
    with server.connections("undici Pool", 2):
        node("pool", site, server, lab)


def run_load(site, server, lab, directory):
    load_tools.checks(site, server, directory)


def run_reload(site, server, lab, directory):
    across_reload.checks(site, directory)


def run_browser(site, server, lab, directory):
    in_browser.checks(site, directory)


def run_push(site, server, lab, directory):
    subscribers.checks(site, directory)
    readme_push.checks(directory)


def run_websocket(site, server, lab, directory):
    websockets.checks(lab, directory)


def run_sockjs(site, server, lab, directory):
    sockjs.checks(site, directory)


def run_crowd(site, server, lab, directory):
    crowd.checks(directory)


def run_slow(site, server, lab, directory):
    slow_attacks.checks(site, server, lab, directory)


GROUPS = {
    "curl": run_curl, "python": run_python, "node": run_node, "load": run_load, "reload": run_reload,
    "browser": run_browser, "push": run_push, "websocket": run_websocket, "sockjs": run_sockjs, "slow": run_slow,
}
# They run where they are named: .ci/run deep.
DEEP = {"crowd": run_crowd}


def main(names):
    groups = {**GROUPS, **DEEP}
    unknown = [name for name in names if name not in groups]
    if unknown:
        sys.exit(f"clients: no group named {unknown[0]}; there are: {' '.join(groups)}")
    # So that what is started here is ended here, also when we are.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Several times what it takes; so nothing that hangs is waited for without an end.
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"FAILED  clients: not done after {DEADLINE} s"))
    signal.alarm(DEADLINE)
    harness.adopt_descendants()
    say_versions()
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        try:
            site = harness.Site(temporary / "site")
            for name in names or GROUPS:
                directory = temporary / name
                directory.mkdir()
                with harness.guarded(name):
                    server = harness.Server(directory / "handover", "handover", site.directory)
                    lab = harness.Server(directory / "lab", "examples/lab")
                    with harness.guarded(name):
                        groups[name](site, server, lab, directory)
                    server.stop()
                    lab.stop()
        finally:
            harness.end_descendants()
    return harness.result()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
