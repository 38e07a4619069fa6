#!/usr/bin/env python3
"""One program in one mode: started, served, reloaded under live clients, stopped. Its last line is what was measured.

    unshare --user --map-root-user --mount --net --pid --fork --kill-child --mount-proc smoke.py PROGRAM MODE [--emulator QEMU] [--old-calls]

The clients speak raw sockets, keep their connections through all reloads, and hold what they get against what has to come:
nothing missing, nothing twice. As process 1 of its namespace this one gets every generation's exit code, and what it has
started ends with it.
"""

import argparse
import base64
import calendar
import ctypes
import email.utils
import errno
import fcntl
import json
import os
import pathlib
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

RELOADS = 3
# Longer than anything takes, also under an emulator, and short enough to see a hang.
PATIENCE = 60
# How far a clock may be from ours: what is said of it is cut to seconds, and was said a little ago.
CLOCK_SLACK = 3
# How many messages are published between two steps at least.
MESSAGES = 20
# Between two publications.
PAUSE = 0.01
# More than sockets hold between a server that sends and a client that does not read.
DOWNLOAD = 12_000_000
CANNOT_BE_TRIED = 75

# A half request waits for as long as a reload takes, which under an emulator on a busy host is more than the defaults give.
CONFIG = """
root = "site"
idle_timeout = 600
head_timeout = 600
body_timeout = 600
[[push]]
prefix = "/events"
publish = "local"
history = 100000
heartbeat = 1
"""


class Wrong(Exception):
    """What the server has done that it should not."""


def check(holds, what):
    if not holds:
        raise Wrong(what)


def until(holds, what, patience=PATIENCE):
    """Looks again and again until it holds, and answers what it was then."""
    deadline = time.monotonic() + patience
    while not (held := holds()):
        check(time.monotonic() < deadline, f"not within {patience} s: {what}")
        time.sleep(0.005)
    return held


def loopback_up():
    with socket.socket() as any_socket:
        request = struct.pack("16sH14x", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS


def emulate(program, emulator):
    """From here on this namespace's kernel runs programs of that kind by the emulator: at a reload too, which executes one.
    The emulator is opened now, so it need not be there where the program runs (F).
    """
    try:
        subprocess.run(["mount", "-t", "binfmt_misc", "none", "/proc/sys/fs/binfmt_misc"], check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        # Linux 6.7 has one for each user namespace.
        print(f"no binfmt_misc in a user namespace: {error.stderr.decode().strip()}")
        sys.exit(CANNOT_BE_TRIED)
    head = pathlib.Path(program).read_bytes()[:20]
    # Class and byte order, and the machine: type and version are any, and so is the rest of e_ident but for the ABI.
    magic = head[:6] + bytes(12) + head[18:20]
    mask = b"\xff" * 6 + bytes(12) + b"\xff" * 2
    escaped = lambda some: "".join(f"\\x{byte:02x}" for byte in some)
    # O opens the program for it, which is a descriptor that closes with the exec; P keeps argv[0] as the program is to see it.
    line = f":handover:M::{escaped(magic)}:{escaped(mask)}:{emulator}:OFP"
    pathlib.Path("/proc/sys/fs/binfmt_misc/register").write_text(line)


# The highest number of a system call in Linux 4.14, by AUDIT_ARCH: x86_64 and i386.
OF_4_14 = {0xC000003E: 332, 0x40000003: 384}


def calls_of_4_14_alone():
    """For `preexec_fn`: every younger call says ENOSYS, as that kernel does. Flags and options that came later are there all
    the same.
    """
    allow, refuse = (0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | errno.ENOSYS)
    # Load the architecture; where it is this one, load the number and refuse what is greater.
    filters = [(0x20, 0, 0, 4)]
    for architecture, last in OF_4_14.items():
        filters += [(0x15, 0, 4, architecture), (0x20, 0, 0, 0), (0x25, 0, 1, last), refuse, allow]
    filters.append(allow)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in filters))
    header = ctypes.create_string_buffer(struct.pack("HP", len(filters), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(code=code):
        # PR_SET_NO_NEW_PRIVS; PR_SET_SECCOMP, SECCOMP_MODE_FILTER.
        if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, header):
            raise OSError(ctypes.get_errno(), "seccomp")
        # pidfd_open
        check(libc.syscall(434, os.getpid(), 0) == -1 and ctypes.get_errno() == errno.ENOSYS, "nothing is refused")

    return enter


class Answer:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body


class Client:
    """A connection that is kept, and what is asked on it in whole or in halves."""

    def __init__(self, server, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", server.port))
        self.pending = b""

    def send(self, text):
        self.socket.sendall(text.encode())

    def more(self):
        some = self.socket.recv(65536)
        check(some, f"the connection was closed behind {self.pending[-200:]!r}")
        self.pending += some

    def read_until(self, end):
        while end not in self.pending:
            self.more()
        before, self.pending = self.pending.split(end, 1)
        return before

    def read(self, length):
        while len(self.pending) < length:
            self.more()
        some, self.pending = self.pending[:length], self.pending[length:]
        return some

    def head(self):
        first, *lines = self.read_until(b"\r\n\r\n").decode().split("\r\n")
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return int(first.split(" ")[1]), fields

    def answer(self):
        status, fields = self.head()
        return Answer(status, fields, self.read(int(fields.get("content-length", 0))))

    def get(self, path, more=""):
        self.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}\r\n")
        return self.answer()

    def ask(self):
        """What every connection has to be good for."""
        answer = self.get("/")
        check((answer.status, answer.body) == (200, b"small\n"), f"/ is answered {answer.status} {answer.body!r}")
        check_clock(email.utils.parsedate_to_datetime(answer.fields["date"]).timestamp(), "Date")
        return answer


def check_clock(said, what):
    check(abs(said - time.time()) <= CLOCK_SLACK, f"{what} is {said - time.time():+.0f} s off")


class Server:
    def __init__(self, program, mode, directory, before_it):
        self.mode, self.directory = mode, directory
        self.lines, self.exit_codes, self.pids = [], {}, []
        # Whoever waits for a child and whoever sends a signal must not do it at once: the pid would be another's.
        self.turn = threading.Lock()
        (directory / "handover.toml").write_text(CONFIG)
        command = [program, "-c", "handover.toml", "-l", "127.0.0.1:0", "--reload", mode, "--reload-probation", "0.2"]
        self.log_file = directory / "log"
        began = time.monotonic()
        with open(self.log_file, "wb") as log:
            self.child = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                          stderr=log, preexec_fn=before_it)
        threading.Thread(target=self.listen, daemon=True).start()
        self.ready(1)
        self.start_to_ready = time.monotonic() - began
        self.port = int(next(line for line in self.lines if line.startswith("listening on ")).rpartition(":")[2])

    def listen(self):
        for line in self.child.stdout:
            self.lines.append(line.decode().rstrip())

    def log(self):
        return self.log_file.read_text(errors="replace")

    def reap(self):
        """Takes the exit code of each generation that has ended: orphans are children of process 1."""
        with self.turn:
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return
                if pid == 0:
                    return
                self.exit_codes[pid] = os.waitstatus_to_exitcode(status)

    def ready(self, generation):
        def said():
            self.reap()
            if generation == 1:
                check(self.child.pid not in self.exit_codes, f"it did not start: {self.log()}")
            return next((line for line in self.lines if line.endswith(f" generation={generation}")), None)

        line = until(said, f"generation {generation} is ready")
        pid = int(re.match(r"ready pid=(\d+) ", line)[1])
        self.pids.append(pid)
        return pid

    @property
    def pid(self):
        return self.pids[-1]

    def ended(self, pid):
        """Waits for its exit code."""
        def code():
            self.reap()
            return pid in self.exit_codes

        until(code, f"process {pid} has ended")
        return self.exit_codes[pid]

    def reload(self):
        old, generation = self.pid, len(self.pids) + 1
        os.kill(old, signal.SIGHUP)
        new = self.ready(generation)
        check((new == old) == (self.mode == "exec"), f"pid {old} became {new}")
        if new != old:
            check(self.ended(old) == 0, f"generation {generation - 1} ended with {self.exit_codes[old]}")

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)
        code = self.ended(self.pid)
        check(code == 0, f"a stop ended with {code}")
        last = self.log().strip().splitlines()[-1]
        check("stopped: " in last and " cut=0" in last, f"the last line is {last}")

    def resident(self):
        """KiB at rest: when they have not changed for two seconds, behind which nothing is given back."""
        last, since = None, time.monotonic()

        def rests():
            nonlocal last, since
            figure = re.search(r"^VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{self.pid}/status").read_text(), re.M)[1]
            if figure != last:
                last, since = figure, time.monotonic()
            return time.monotonic() - since > 2

        until(rests, "its memory stays the same")
        return int(last)


class Publisher(threading.Thread):
    """The numbers from 1 on, each once, on one connection: no publication is tried a second time."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.client, self.published, self.failure, self.ends = Client(server), 0, None, False
        self.start()

    def run(self):
        try:
            while not self.ends:
                self.publish("numbers", str(self.published + 1))
                self.published += 1
                time.sleep(PAUSE)
        except (Wrong, OSError) as error:
            self.failure = error

    def publish(self, topic, text):
        self.client.send(f"POST /events/{topic} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(text)}\r\n\r\n{text}")
        answer = self.client.answer()
        check(answer.status == 200, f"a publication is answered {answer.status} {answer.body!r}")

    def has_more(self):
        """Waits until a number of messages have been published that were not before."""
        wanted = self.published + MESSAGES
        until(lambda: self.failure or self.published >= wanted, f"message {wanted} is published")
        check(self.failure is None, f"publishing: {self.failure}")

    def end(self):
        self.ends = True
        self.join(PATIENCE)
        check(self.failure is None and not self.is_alive(), f"publishing: {self.failure}")


class Subscriber(threading.Thread):
    """What it hears, on one connection, as long as that lasts."""

    def __init__(self, server, fields=""):
        super().__init__(daemon=True)
        self.client, self.heard, self.failure = Client(server), [], None
        self.client.send(f"GET /events/numbers HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n")
        self.status, self.fields = self.client.head()
        self.start()

    def run(self):
        try:
            while True:
                self.hear()
        except (Wrong, OSError, ValueError) as error:
            self.failure = error

    def hold_against(self, published):
        """That it has heard each once, in their order, and nothing else."""
        name, wanted = type(self).__name__, [str(number) for number in range(1, published + 1)]
        try:
            until(lambda: self.failure or len(self.heard) >= len(wanted), f"{name} has heard all")
        except Wrong:
            pass
        check(self.failure is None, f"{name}: {self.failure}")
        missing = [number for number in wanted if number not in set(self.heard)]
        check(self.heard == wanted, f"{name} has heard {len(self.heard)} of {published}; {missing[:5]} are missing")


class EventStream(Subscriber):
    def __init__(self, server):
        self.stream = b""
        super().__init__(server, "Accept: text/event-stream\r\n")
        check(self.status == 200 and self.fields.get("transfer-encoding") == "chunked", f"a stream begins {self.fields}")

    def hear(self):
        length = int(self.client.read_until(b"\r\n"), 16)
        check(length, "its stream ends")
        self.stream += self.client.read(length + 2)[:-2]
        *events, self.stream = self.stream.split(b"\n\n")
        for event in events:
            lines = event.decode().split("\n")
            check(not any(line == "event: @gap" for line in lines), "a gap")
            self.heard += [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


class WebSocket(Subscriber):
    """Data alone, so that a message that is missing closes it."""

    def __init__(self, server):
        key = base64.b64encode(os.urandom(16)).decode()
        super().__init__(server, f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                                 f"Sec-WebSocket-Key: {key}\r\n")
        check(self.status == 101, f"a handshake is answered {self.status}")

    def hear(self):
        first, length = self.client.read(2)
        check(length < 126, f"a frame of {length} bytes")
        text = self.client.read(length)
        if first == 0x89:  # a ping
            mask = os.urandom(4)
            masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
            self.client.socket.sendall(bytes([0x8A, 0x80 | length]) + mask + masked)
            return
        check(first == 0x81, f"a frame that begins with {first:#x}: {text!r}")
        self.heard.append(text.decode())


def check_log(server, began):
    """That each line says when it was written."""
    stamps = re.findall(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d{3}Z ", server.log(), re.M)
    check(stamps, "no line of the log has a time")
    for stamp in stamps:
        said = calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S"))
        check(began - CLOCK_SLACK <= said <= time.time() + CLOCK_SLACK, f"the log says {stamp}")


def trial(program, arguments, directory):
    began = time.time()
    site = directory / "site"
    site.mkdir()
    (site / "index.html").write_bytes(b"small\n")
    big = random.Random(18).randbytes(DOWNLOAD)
    (site / "big").write_bytes(big)
    (site / "later").write_bytes(b"later\n")
    # A time that no clock shows now, and one that 32 bits do not hold.
    os.utime(site / "index.html", (1_234_567_890, 1_234_567_890))
    os.utime(site / "later", (2_500_000_000, 2_500_000_000))
    server = Server(program, arguments.mode, directory, calls_of_4_14_alone() if arguments.old_calls else None)
    kept = Client(server)
    modified = kept.ask().fields["last-modified"]
    check(modified == "Fri, 13 Feb 2009 23:31:30 GMT", f"Last-Modified is {modified}")
    later = kept.get("/later")
    check((later.status, later.body) == (200, b"later\n"), f"a file of 2049 is answered {later.status}")
    resident = None if arguments.emulator else server.resident()

    subscribers = [EventStream(server), WebSocket(server)]
    publisher = Publisher(server)
    publisher.has_more()
    download = Client(server, receive_buffer=16384)
    download.send("GET /big HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    status, fields = download.head()
    check((status, fields["content-length"]) == (200, str(DOWNLOAD)), f"/big is answered {status} {fields}")
    downloaded = download.read(100_000)
    half_head, half_body, poll = Client(server), Client(server), Client(server)
    clients = [kept, half_head, half_body, poll, download, publisher.client] + [one.client for one in subscribers]
    for reload in range(1, RELOADS + 1):
        half_head.send("GET / HTTP/1.1\r\nHo")
        half_body.send("POST /events/halves HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nfirst")
        poll.send("GET /events/polled?wait=60 HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n\r\n")
        publisher.has_more()
        server.reload()
        publisher.has_more()
        kept.ask()
        half_head.send("st: 127.0.0.1\r\n\r\n")
        answer = half_head.answer()
        check((answer.status, answer.body) == (200, b"small\n"), f"half a head became {answer.status}")
        half_body.send("other")
        check(half_body.answer().status == 200, "half a body is not answered as a whole one")
        text = f"after {reload}"
        asker = Client(server)
        asker.ask()
        asker.send(f"POST /events/polled HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(text)}\r\n\r\n{text}")
        check(asker.answer().status == 200, "a publication failed")
        answer = poll.answer()
        messages = [message["data"] for message in json.loads(answer.body)["messages"]]
        check(messages == [text], f"a poll through a reload has {messages}")
        downloaded += download.read(100_000)
    downloaded += download.read(DOWNLOAD - len(downloaded))
    check(downloaded == big, "a download through reloads differs from the file")
    publisher.end()
    for subscriber in subscribers:
        subscriber.hold_against(publisher.published)
    for client in clients[:-len(subscribers)]:
        client.ask()
    server.stop()
    check_log(server, began)
    moved = sum(int(number) for number in re.findall(r"migrated=(\d+)", server.log()))
    said = (f"ready after {server.start_to_ready * 1000:.0f} ms, {RELOADS} reloads under {len(clients)} connections, each "
            f"of {publisher.published} messages heard once by {len(subscribers)} subscribers, stopped with 0")
    return {"said": said, "ready": server.start_to_ready, "resident": resident, "reloads": RELOADS, "moved": moved,
            "connections": len(clients), "messages": publisher.published}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("mode", choices=["overlap", "exec"])
    parser.add_argument("--emulator", help="what runs it, where this kernel does not")
    parser.add_argument("--old-calls", action="store_true", help="with the system calls of Linux 4.14 and no others")
    arguments = parser.parse_args()
    program = str(pathlib.Path(arguments.program).resolve())
    if os.getpid() != 1:
        sys.exit("smoke: it is to be process 1 of a namespace of its own; see the top of this file")
    loopback_up()
    if arguments.emulator is not None:
        emulate(program, arguments.emulator)
    with tempfile.TemporaryDirectory(prefix="handover-small-") as directory:
        directory = pathlib.Path(directory)
        try:
            print(json.dumps(trial(program, arguments, directory)))
        except (Wrong, OSError) as wrong:
            log = directory / "log"
            print(log.read_text(errors="replace") if log.exists() else "no log")
            print(f"{type(wrong).__name__}: {wrong}")
            sys.exit(1)


if __name__ == "__main__":
    main()
