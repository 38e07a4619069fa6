"""What the checks share: a server under test, the site it serves, and the lines that are printed."""

import contextlib
import ctypes
import gc
import hashlib
import itertools
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import threading
import time

import movie

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
# Longer than anything takes here, and short enough to see a hang.
PATIENCE = 30

_passed = []
_failed = []
_printing = threading.Lock()


def check(what, holds, detail=""):
    """One line for one thing that has to hold. The detail says what there was instead."""
    with _printing:
        (_passed if holds else _failed).append(what)
        print(f"ok      {what}" if holds else f"FAILED  {what}: {detail}", flush=True)
    return holds


def equal(what, found, expected):
    return check(what, found == expected, _difference(found, expected))


def _difference(found, expected):
    if not (isinstance(found, list) and isinstance(expected, list) and len(found) + len(expected) > 20):
        return f"{_short(found)} and not {_short(expected)}"
    pairs = itertools.zip_longest(found, expected, fillvalue="nothing")
    at = next((at for at, (one, other) in enumerate(pairs) if one != other), 0)
    both = f"{_short(found[at:at + 10])} and not {_short(expected[at:at + 10])}"
    return f"of {len(found)} and not {len(expected)}, from the one with index {at} on: {both}"


def _short(value):
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"


def failures():
    """What has failed so far."""
    return list(_failed)


def result(group="clients"):
    """The last line, and the exit code."""
    print(f"{group}: {len(_passed)} passed, {len(_failed)} failed", flush=True)
    return 1 if _failed or not _passed else 0


@contextlib.contextmanager
def guarded(group):
    """A client that throws has failed, and the others still have their turn."""
    try:
        yield
    except Exception as error:
        check(f"{group}: no exception", False, f"{type(error).__name__}: {error}")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def until(holds, patience=PATIENCE):
    """Looks again and again until it holds, and says whether it did."""
    deadline = time.monotonic() + patience
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def run(*command, **options):
    """A client that runs to its end, with what it printed."""
    options = {"capture_output": True, "timeout": 120, **options}
    return subprocess.run([str(part) for part in command], **options)


class Site:
    """A directory with known content: sizes on both sides of every buffer, and each file's bytes."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir()
        self.content = {}
        # The same bytes at each run.
        generator = random.Random(2616)
        page = "<!doctype html><title>page</title>" + "".join(
            f"<p>paragraph {number} of a page that is easy to compress</p>" for number in range(400)
        )
        self.put("index.html", b"<!doctype html><title>a prepared site</title><p>hello")
        self.put("page.html", page.encode())
        self.put("small.txt", b"hello from a file\n")
        self.put("empty.txt", b"")
        self.put("data.bin", generator.randbytes(3 << 20))
        self.put("big.bin", generator.randbytes(24 << 20))
        self.put("movie.webm", movie.webm())
        self.put("movie.html", movie.PAGE)

    def put(self, name, content):
        (self.directory / name).write_bytes(content)
        self.content[name] = content

    def path(self, name):
        return self.directory / name


class Server:
    """One of this project's programs, ready, on a port that the kernel picks or on the one that is said."""

    def __init__(self, directory, program, *arguments, port=0, environment=None):
        self.name = pathlib.Path(program).name
        directory = pathlib.Path(directory)
        directory.mkdir()
        self.log_path = directory / "log"
        self.pid_path = directory / "pid"
        self.socket_path = directory / "socket"
        self.command = [RELEASE / program, "-l", f"127.0.0.1:{port}", "-l", f"unix:{self.socket_path}"]
        self.command += ["--pid-file", self.pid_path, *arguments]
        # At debug it says of each connection why it has closed.
        self.environment = {**os.environ, "RUST_LOG": "handover=debug", **(environment or {})}
        self.start()

    def start(self):
        """Also again, when it has ended."""
        command = [str(part) for part in self.command]
        with open(self.log_path, "ab") as log:
            self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment)
        self.url = None
        for line in self.child.stdout:
            if found := re.match(r"listening on (http://127\.0\.0\.1:(\d+))", line):
                self.url, self.port = found[1], int(found[2])
            if line.startswith("ready "):
                break
        else:
            raise RuntimeError(f"{command} did not start: {self.log()[-400:]}")
        self.sockets = self._count_sockets()

    def log(self):
        return self.log_path.read_text(errors="replace")

    def pid(self):
        return int(self.pid_path.read_text())

    def _count_sockets(self):
        count = 0
        for entry in pathlib.Path(f"/proc/{self.pid()}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                count += os.readlink(entry).startswith("socket:")
        return count

    def closes(self):
        """Why each connection that is gone has ended, by the log."""
        return re.findall(r"connection closed: (.*)", self.log())

    def at_rest(self):
        """Waits until every connection is gone. Its line is written before its socket is closed."""
        return until(lambda: self._count_sockets() == self.sockets)

    @contextlib.contextmanager
    def connections(self, who, expected, by=("closed by the client", "reset by the client")):
        """Counts, by the server's log, the connections of what runs in here, and looks at why they ended."""
        # The one before may have ended a moment ago.
        self.at_rest()
        before = len(self.closes())
        yield
        # A Python client may keep its pool in a cycle of references, and with it the socket.
        gc.collect()
        at_rest = self.at_rest()
        closes = self.closes()[before:]
        if isinstance(expected, int):
            equal(f"{who}: connections used: {expected}", len(closes), expected)
        else:
            low, high = expected
            check(f"{who}: connections used: {low} to {high}", low <= len(closes) <= high, f"{len(closes)}")
        others = sorted({close for close in closes if close not in by})
        check(f"{who}: each connection was ended by the client", at_rest and not others, f"{others}, rest: {at_rest}")

    def generations(self):
        """How many have been ready so far, by the log."""
        return len(re.findall(r"\bready with \d+ workers", self.log()))

    def reload(self, mode):
        """HUP, and until the next generation has it all. Says whether it came to that."""
        pid, generation = self.pid(), self.generations()
        os.kill(pid, signal.SIGHUP)
        if not until(lambda: self.generations() == generation + 1):
            return False
        if mode == "exec":
            return self.pid() == pid
        # The old process ends when its last connection has moved.
        return until(lambda: not alive(pid) and self.pid() != pid)

    def kill(self):
        """The end that no program can prepare for."""
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        # Not until its first thread is gone: the others may still hold its sockets. It is a child of ours, or adopted.
        os.waitpid(pid, 0)

    def stop(self):
        """Ends whichever generation serves now, and says how that went."""
        pid = self.pid()
        os.kill(pid, signal.SIGTERM)
        clean = until(lambda: not alive(pid), 20)
        log = self.log()
        check(f"{self.name}: stopped, nothing cut", clean and re.search(r"stopped: .* cut=0$", log.strip()), log[-300:])
        noise = [line for line in log.splitlines() if re.search(r"ERROR|panicked", line)]
        check(f"{self.name}: no error in the log", not noise, noise[:3])


def free_port():
    """For a server that is to come back to it: below those that the kernel gives to clients, which could take it meanwhile."""
    while True:
        port = random.randrange(10000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def alive(pid):
    """A zombie is not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def adopt_descendants():
    """A successor outlives its parent; with PR_SET_CHILD_SUBREAPER it becomes a child of ours, and is ended with us."""
    if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the reaper of descendants")


def end_descendants():
    """Kills by pid what is still there, until nothing is: what is orphaned by it comes to us."""
    while pids := _children():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children():
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.append(int(entry.name))
    return found
