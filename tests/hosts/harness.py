"""What the cases share: a server under test, namespaces, and the end of what was started.

A case is a script:

    import harness

    server = harness.Server("-w", "2")
    harness.verdict(server.get("/").startswith(b"HTTP/1.1 200 "), "it answers")
"""

import atexit
import contextlib
import ctypes
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

# Longer than anything takes here, and short enough to see a hang.
PATIENCE = 30

# unshare(2), setns(2).
NEW_NET = 0x40000000
NEW_MOUNT = 0x00020000
NEW_USER = 0x10000000

_libc = ctypes.CDLL(None, use_errno=True)
_children = []
_directories = []


def verdict(holds, evidence):
    """The last line of a case, and its end."""
    print(" ".join(str(evidence).split()), flush=True)
    sys.exit(0 if holds else 1)


def cannot_be_tried(why):
    """For a host that lacks what a case needs. It fails all the same: a check that skips itself checks nothing."""
    verdict(False, f"cannot be tried here: {why}")


def need(*tools):
    for tool in tools:
        if shutil.which(tool) is None:
            cannot_be_tried(f"{tool} is not installed; .ci/run hosts installs it")


def need_root():
    if os.geteuid() != 0:
        cannot_be_tried("it needs root")


def program(name):
    """The path of `handover` or of `examples/…`."""
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} DIRECTORY, where the programs are, as target/release")
    path = pathlib.Path(sys.argv[1]).resolve() / name
    if not os.access(path, os.X_OK):
        verdict(False, f"there is no {path}; build it: cargo build --release --bins --examples")
    return path


def public(name):
    """A copy of a program that a user without privileges can reach: the directory of the build may be closed to it."""
    copy = directory() / pathlib.Path(name).name
    shutil.copy(program(name), copy)
    os.chmod(copy, 0o755)
    return copy


def directory():
    """A directory that everybody may read, and that goes with the case."""
    made = pathlib.Path(tempfile.mkdtemp(prefix="handover-hosts-"))
    os.chmod(made, 0o755)
    _directories.append(made)
    return made


def until(holds, patience=PATIENCE):
    """Looks again and again until it holds, and answers what it was then, or None."""
    deadline = time.monotonic() + patience
    while not (held := holds()):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)
    return held


def run(*command, **options):
    """A command that has to succeed; answers what it printed."""
    command = [str(part) for part in command]
    done = subprocess.run(command, **{"capture_output": True, "text": True, "timeout": PATIENCE, **options})
    if done.returncode != 0:
        verdict(False, f"{command} failed with {done.returncode}: {done.stdout} {done.stderr}")
    return done.stdout


def start(*command, **options):
    """A process that is ended with the case, unless it has ended before."""
    options = {"stdin": subprocess.DEVNULL, **options}
    child = subprocess.Popen([str(part) for part in command], **options)
    _children.append(child)
    return child


class Server:
    """One of this project's programs, ready, unless `wait` says no. Its output goes to files.

    `prefix` is a command that executes the rest, as `unshare --net`. With an empty `listen` the arguments say where.
    """

    def __init__(self, *arguments, executable=None, listen=("127.0.0.1:0",), prefix=(), wait=True, **options):
        self.directory = directory()
        command = [*prefix, executable or program("handover")]
        for address in listen:
            command += ["-l", address]
        with open(self.directory / "out", "wb") as out, open(self.directory / "err", "wb") as err:
            self.child = start(*command, *arguments, **{"stdout": out, "stderr": err, **options})
        self.ports = []
        if wait:
            self.ready()

    def out(self):
        return (self.directory / "out").read_text(errors="replace")

    def log(self):
        return (self.directory / "err").read_text(errors="replace")

    def ready(self, generation=1):
        """Waits until that generation serves, and learns its ports. A case whose server does not start ends."""
        wanted = rf"ready pid=(\d+) .*\bgeneration={generation}\b"
        ended = lambda: self.child.poll() is not None and generation == 1
        until(lambda: ended() or re.search(wanted, self.out()))
        if not (found := re.search(wanted, self.out())):
            verdict(False, f"not ready, exit code {self.child.poll()}: {self.log()[-600:]}")
        self.pid = int(found[1])
        self.ports = [int(port) for port in re.findall(r"listening on http://\S+:(\d+)", self.out())]
        return self

    @property
    def port(self):
        return self.ports[0]

    def get(self, path, host="127.0.0.1", port=None, patience=PATIENCE):
        """The whole answer to one request, head and body."""
        with socket.create_connection((host, port or self.port), patience) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while some := client.recv(65536):
                answer += some
            return answer

    def signal(self, number):
        os.kill(self.pid, number)

    def stop(self, patience=PATIENCE):
        """TERM, and the exit code of the first generation; None if it does not end."""
        self.signal(signal.SIGTERM)
        return self.ended(patience)

    def ended(self, patience=PATIENCE):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.child.wait(patience)


def unshare(flags):
    """This process gets namespaces of its own, which end with it."""
    need_root()
    if _libc.unshare(flags) != 0:
        cannot_be_tried(f"unshare: {os.strerror(ctypes.get_errno())}")
    if flags & NEW_MOUNT:
        # What is mounted here stays here.
        run("mount", "--make-rprivate", "/")


@contextlib.contextmanager
def network(namespace):
    """Within, this thread is in another network namespace: `namespace` is an open descriptor of one."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _enter(namespace)
        yield
    finally:
        _enter(here)
        os.close(here)


def new_network():
    """A descriptor of a new network namespace whose loopback is up; this thread stays where it is."""
    need_root()
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        unshare(NEW_NET)
        made = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        run("ip", "link", "set", "lo", "up")
        return made
    finally:
        _enter(here)
        os.close(here)


def _enter(namespace):
    if _libc.setns(namespace, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def adopt_descendants():
    """A successor outlives its parent; with PR_SET_CHILD_SUBREAPER it becomes a child of ours, and is ended with us."""
    if _libc.prctl(36, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the reaper of descendants")


def end_descendants():
    """Kills by pid what is still there, until nothing is: what is orphaned by it comes to us. Answers how many ran."""
    ran = 0
    while found := _descendants():
        for pid, zombie in found:
            ran += not zombie
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
    return ran


def _descendants():
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid():
                found.append((int(entry.name), state == "Z"))
    return found


@atexit.register
def _tidy():
    for child in _children:
        if child.poll() is None:
            child.kill()
            child.wait()
    end_descendants()
    for made in _directories:
        shutil.rmtree(made, ignore_errors=True)


# A case is a script; run.py looks after its own descendants.
adopt_descendants()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
