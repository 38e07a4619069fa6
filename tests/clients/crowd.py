"""How long a sockjs-client waits for an echo when a server reloads that has 10,000 other clients: WebSockets of SockJS, or
sessions with an event stream each. On a machine that does nothing else it says what a reload is for those who are there."""

import json
import resource
import selectors
import socket
import time

from harness import Server, check, equal, until
from sockjs import InNode

MANY = 10_000
RELOADS = 3
# Milliseconds between two messages.
PACE = 10
# Seconds that are looked at before the first reload and behind each.
WHILE = 2
# So many ask at once, below what may wait to be accepted.
AT_ONCE = 400
# An event stream of this client's waits 200 ms by itself whenever it has to ask again.
TRANSPORTS = ["websocket", "xhr-streaming", "xhr-polling"]
# The key of RFC 6455's example.
UPGRADE = ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
# What they ask for, and with which bytes the answer to that ends: the frame `o`. And what a reload may make of the wait for an
# echo, in milliseconds: 150 is the goal, and sessions are not there yet.
KINDS = {"websocket": (UPGRADE, b"\x81\x01o", 150), "eventsource": ("", b"data: o\r\n\r\n\r\n", 250)}


class Crowd:
    """Clients that say nothing more, and note what they hear."""

    def __init__(self, kind, port):
        self.kind, self.port, self.sockets = kind, port, []
        for first in range(0, MANY, AT_ONCE):
            self.connect(range(first, min(first + AT_ONCE, MANY)))

    def connect(self, numbers):
        fields, last, _ = KINDS[self.kind]
        waiting = selectors.DefaultSelector()
        for number in numbers:
            client = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            path = f"/sockjs/count/0/c{number}/{self.kind}"
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n".encode())
            waiting.register(client, selectors.EVENT_READ, bytearray())
        while waiting.get_map():
            ready = waiting.select(30)
            if not ready:
                raise RuntimeError(f"{len(waiting.get_map())} clients are not answered")
            for key, _ in ready:
                got = key.fileobj.recv(4096)
                if not got:
                    raise RuntimeError(f"closed at once: {bytes(key.data)}")
                key.data.extend(got)
                if key.data.endswith(last):
                    waiting.unregister(key.fileobj)
                    key.fileobj.setblocking(False)
                    self.sockets.append(key.fileobj)
        waiting.close()

    def lost(self):
        """How many have been closed, or heard that they are."""
        return sum(map(self.is_lost, self.sockets))

    def is_lost(self, client):
        try:
            heard = client.recv(65536)
        except BlockingIOError:
            return False
        # Heartbeats alone.
        return not heard or b"c[" in heard or heard.startswith(b"\x88")

    def close(self):
        for client in self.sockets:
            client.close()


def waits(talker):
    """The longest of each transport since the last look, in milliseconds."""
    return {transport: seen["worst"] for transport, seen in talker.ask("mark").items()}


def said(waits):
    return ", ".join(f"{transport} {wait:.0f} ms" for transport, wait in waits.items())


def among(kind, mode, directory):
    what = f"crowd, {MANY} by {kind}, {mode}"
    flags = ["--reload", mode, "--reload-probation", "0.2", "--max-connections", MANY * 3 // 2]
    # A line for each of them would be work of its own.
    quiet = {"RUST_LOG": "handover=info"}
    lab = Server(directory / f"{kind}-{mode}", "examples/lab", *flags, environment=quiet)
    crowd, (_, _, longest) = Crowd(kind, lab.port), KINDS[kind]
    talker = InNode({transport: f"{lab.url}/sockjs/echo" for transport in TRANSPORTS}, PACE)
    try:
        there = until(lambda: all(seen["heard"] > 20 for seen in talker.ask("look").values()))
        check(f"{what}: all talk", there, json.dumps(talker.ask("look")))
        waits(talker)
        time.sleep(WHILE)
        print(f"clients: {what}, before: {said(waits(talker))}", flush=True)
        for number in range(1, RELOADS + 1):
            check(f"{what}: reload {number}", lab.reload(mode), lab.log()[-400:])
            time.sleep(WHILE)
            worst = waits(talker)
            print(f"clients: {what}, reload {number}: {said(worst)}", flush=True)
            check(f"{what}, reload {number}: nobody waits for {longest} ms", max(worst.values()) < longest, said(worst))
        talker.ask("quiet")
        until(lambda: all(seen["heard"] == seen["sent"] for seen in talker.ask("look").values()))
        for transport, seen in talker.ask("look").items():
            right = seen["heard"] == seen["sent"] and not seen["wrong"] and seen["closed"] is None and seen["opened"] == 1
            check(f"{what}, {transport}: all echoed, in one session", right, json.dumps(seen)[:400])
        equal(f"{what}: lost", crowd.lost(), 0)
    finally:
        talker.end()
        crowd.close()
    lab.stop()


def checks(directory):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for kind in KINDS:
        for mode in ("exec", "overlap"):
            among(kind, mode, directory)
