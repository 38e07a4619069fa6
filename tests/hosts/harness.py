"""What the cases share: a server under test, namespaces, and the end of what was started.

A case is a script:

    import harness

    server = harness.Server("-w", "2")
    harness.verdict(server.get("/").startswith(b"HTTP/1.1 200 "), "it answers")
"""

import atexit
import collections
import contextlib
import ctypes
import fcntl
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
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


# A command that runs the rest as nobody, without any capability and without a way to one.
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--inh-caps=-all",
          "--bounding-set=-all")


def capabilities(pid):
    """What capabilities(7) it has or could get, in hexadecimal; nothing if there are none."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    union = 0
    for found in re.findall(r"^Cap\w+:\s*(\w+)", status, re.M):
        union |= int(found, 16)
    return f"{union:x}" if union else ""


class Load:
    """Clients that connect, ask once and are done, over and over, until they are refused.

    Whoever has connected has to be answered. Each is a thread of this process; `within` is where it connects.
    """

    def __init__(self, host, port, clients=32, within=contextlib.nullcontext):
        self.served = 0
        self.lost = []
        self._within = within
        self._counting = threading.Lock()
        self._where = (host, port)
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _client(self):
        with self._within():
            while self._ask():
                pass

    def _ask(self):
        try:
            client = socket.create_connection(self._where, PATIENCE)
        except ConnectionRefusedError:
            return False
        except OSError as error:
            self.lost.append(f"connecting: {error}")
            return False
        answer = b""
        try:
            with client:
                client.sendall(b"GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                while some := client.recv(65536):
                    answer += some
        except OSError as error:
            self.lost.append(f"{error} behind {len(answer)} bytes")
            return True
        if not answer.endswith(b"hello world"):
            self.lost.append(f"the end behind {len(answer)} bytes")
            return True
        with self._counting:
            self.served += 1
        return True

    def has_served(self, least):
        if until(lambda: self.served >= least) is None:
            verdict(False, f"the load does not run: {self.served} served, {self.lost[:3]}")

    def ended(self):
        """Waits until each was refused."""
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))
            if thread.is_alive():
                verdict(False, f"a client was never refused; {self.served} served, lost: {self.lost[:3]}")


# By the name of uname(2): the numbers of system calls that cases refuse.
SYSTEM_CALLS = {
    "x86_64": {
        "mincore": 27, "madvise": 28, "sendfile": 40, "socket": 41, "accept": 43, "setsockopt": 54,
        "setgroups": 116, "sched_setscheduler": 144, "sched_getaffinity": 204, "accept4": 288, "prlimit64": 302, "getrandom": 318,
        "memfd_create": 319, "execveat": 322, "statx": 332, "rseq": 334, "pidfd_open": 434, "close_range": 436,
        "openat2": 437, "faccessat2": 439, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
        "landlock_restrict_self": 446,
    },
    "aarch64": {
        "mincore": 232, "madvise": 233, "sendfile": 71, "socket": 198, "accept": 202, "setsockopt": 208,
        "setgroups": 159, "sched_setscheduler": 119, "sched_getaffinity": 123, "accept4": 242, "prlimit64": 261, "getrandom": 278,
        "memfd_create": 279, "execveat": 281, "statx": 291, "rseq": 293, "pidfd_open": 434, "close_range": 436,
        "openat2": 437, "faccessat2": 439, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
        "landlock_restrict_self": 446,
    },
}


def refusing(calls, error, argument=None):
    """For `preexec_fn`: a sandbox in which these calls fail with that errno, as a seccomp(2) filter makes it.

    With `argument`, a place and a value, only where the argument at that place is this.
    """
    if (numbers := SYSTEM_CALLS.get(os.uname().machine)) is None:
        cannot_be_tried(f"the numbers of system calls of {os.uname().machine} are not known here")
    # Load the number, and for each of the calls jump behind the end of this list.
    program = [(0x20, 0, 0, 0)]
    program += [(0x15, len(calls) - place, 0, numbers[call]) for place, call in enumerate(calls)]
    allow, refuse = (0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | error)
    # The argument's lower half, on a host that has that first.
    if argument is not None:
        place, value = argument
        program += [allow, (0x20, 0, 0, 16 + 8 * place), (0x15, 1, 0, value)]
    program += [allow, refuse]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
    # struct sock_fprog.
    header = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))

    def enter(code=code):
        # PR_SET_NO_NEW_PRIVS; PR_SET_SECCOMP, SECCOMP_MODE_FILTER.
        if _libc.prctl(38, 1, 0, 0, 0) or _libc.prctl(22, 2, header):
            raise OSError(ctypes.get_errno(), "seccomp")

    return enter


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


def sysctl(name, value):
    """Sets what belongs to this thread's network namespace: /proc/sys shows that of the thread that opens it."""
    pathlib.Path("/proc/sys", name).write_text(str(value))


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


def devices(folder):
    """A /dev of its own, with what a program may need: what is done to it is done to no host."""
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    numbers = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
    for name, number in numbers.items():
        os.mknod(folder / name, stat.S_IFCHR, os.makedev(*number))
        os.chmod(folder / name, 0o666)
    # Of which systemd wants to be there whatever it makes private.
    for name in ("pts", "shm", "mqueue", "hugepages"):
        (folder / name).mkdir()
    os.chmod(folder / "shm", 0o1777)
    run("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=666", "devpts", folder / "pts")
    os.symlink("pts/ptmx", folder / "ptmx")
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, folder / name)


class LongWay:
    """Two networks of our own, `near` and `far`, that are joined by a wire on which each packet takes `delay` seconds.

    This kernel may have no netem: the wire is a process that carries packets between two TUN devices.
    """

    NEAR, FAR = ("10.77.0.2", "fd77::2"), ("10.77.0.1", "fd77::1")

    def __init__(self, delay):
        self.near, near = self._end(*self.NEAR)
        self.far, far = self._end(*self.FAR)
        self.wire = os.fork()
        if self.wire == 0:
            try:
                self._carry(near, far, delay)
            finally:
                os._exit(1)
        os.close(near)
        os.close(far)

    @staticmethod
    def _end(v4, v6):
        namespace = new_network()
        with network(namespace):
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            # TUNSETIFF; IFF_TUN | IFF_NO_PI.
            fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"way", 0x1001))
            run("ip", "address", "add", f"{v4}/24", "dev", "way")
            run("ip", "address", "add", f"{v6}/64", "dev", "way", "nodad")
            run("ip", "link", "set", "way", "up", "txqueuelen", "10000")
        return namespace, tun

    @staticmethod
    def _carry(near, far, delay):
        poller = select.epoll()
        other = {near: far, far: near}
        for end in other:
            poller.register(end, select.EPOLLIN)
        under_way = collections.deque()
        while True:
            wait = max(0, under_way[0][0] - time.monotonic()) if under_way else -1
            for end, _ in poller.poll(wait):
                with contextlib.suppress(BlockingIOError):
                    while packet := os.read(end, 65536):
                        under_way.append((time.monotonic() + delay, other[end], packet))
            while under_way and under_way[0][0] <= time.monotonic():
                _, to, packet = under_way.popleft()
                with contextlib.suppress(OSError):
                    os.write(to, packet)


def _enter(namespace):
    if _libc.setns(namespace, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def alive(pid):
    """A zombie is not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


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
