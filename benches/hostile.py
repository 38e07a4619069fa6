#!/usr/bin/env python3
"""All that a client can make a server hold, at once, against `--memory`: what others notice, and how much it takes.

1,000 idle connections; 200 each that send a head of nearly 16 KiB and not its end, send a body and not its end, upload
to a handler that reads, read an answer of a reader and one that is pushed at a trickle, and pipeline requests without reading. A pool of
4; the well-behaved client runs in a process of its own.   just bench-hostile [MEMORY]
"""

import os
import signal
import socket
import sys
import time

from common import Server, connect, get, status, well_behaved

MEMORY = sys.argv[1] if len(sys.argv) > 1 else "16M"
IDLE, EACH, SECONDS = 1000, 200, 25


def reader(port):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    return connection


class Hostile:
    """One client; connects again when the server has got rid of it."""

    def __init__(self, port, kind):
        self.port, self.kind = port, kind
        self.turned_away = 0
        self.begin()

    def begin(self):
        self.socket = reader(self.port) if self.kind in ("read", "pushed", "pipeline") else connect(self.port)
        self.socket.setblocking(False)
        first = {
            "idle": b"GET /hello HTTP/1.1\r\nHost: bench\r\n\r\n",
            "head": b"GET /hello HTTP/1.1\r\nHost: bench\r\n" + (b"X-Slow: " + b"x" * 1000 + b"\r\n") * 15,
            "body": b"POST /journal HTTP/1.1\r\nHost: bench\r\nContent-Length: 65000\r\n\r\n" + b"x" * 60_000,
            "upload": b"POST /echo HTTP/1.1\r\nHost: bench\r\nContent-Length: 900000000\r\n\r\n" + b"x" * 60_000,
            "read": b"GET /bytes/100000000 HTTP/1.1\r\nHost: bench\r\n\r\n",
            "pushed": b"GET /stream/1000000/0 HTTP/1.1\r\nHost: bench\r\n\r\n",
            "pipeline": b"GET /bytes/60000 HTTP/1.1\r\nHost: bench\r\n\r\n" * 1000,
        }[self.kind]
        self.more = {"head": b"x", "body": b"x", "upload": b"x" * 700}.get(self.kind, b"")
        self.send(first)

    def send(self, data):
        try:
            self.socket.send(data)
        except BlockingIOError:
            pass
        except OSError:
            self.again()

    def again(self):
        self.turned_away += 1
        self.socket.close()
        try:
            self.begin()
        except OSError:
            pass

    def step(self):
        """A trickle, once a second."""
        if self.more:
            self.send(self.more)
        try:
            if not self.socket.recv(200) and self.kind != "idle":
                self.again()
        except BlockingIOError:
            pass
        except OSError:
            self.again()


def main():
    lab = Server("examples/lab", "-w", 4, "--memory", MEMORY, env={"LAB_JOURNAL": os.devnull})
    threads = status(lab.pid, "Threads")
    get(connect(lab.port), "/hello")
    print(f"--memory {MEMORY}: at rest VmRSS {status(lab.pid, 'VmRSS')} KiB, {threads} threads")
    print("alone:       ", well_behaved(lab.port, "/hello", 5))
    clients = [Hostile(lab.port, "idle") for _ in range(IDLE)]
    for kind in ("head", "body", "upload", "read", "pushed", "pipeline"):
        clients += [Hostile(lab.port, kind) for _ in range(EACH)]
    state = {"next": time.monotonic(), "at": 0}

    def trickle():
        # Each client once a second, spread out.
        for _ in range(len(clients) // 20):
            clients[state["at"] % len(clients)].step()
            state["at"] += 1

    print("with them:   ", well_behaved(lab.port, "/hello", SECONDS, trickle))
    print(f"threads {status(lab.pid, 'Threads')}, VmHWM {status(lab.pid, 'VmHWM')} KiB")
    for kind in ("idle", "head", "body", "upload", "read", "pushed", "pipeline"):
        away = sum(client.turned_away for client in clients if client.kind == kind)
        print(f"  {kind}: turned away {away} times")
    lab.child.send_signal(signal.SIGQUIT)
    lab.child.wait(10)


main()
