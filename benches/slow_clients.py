#!/usr/bin/env python3
"""What slow clients cost the others: 1,000 idle connections, 200 that trickle a header, 200 that read at 1 KB/s.

A pool of 4; the well-behaved client runs in a process of its own.   just bench-slow
"""

import pathlib
import signal
import socket
import tempfile
import time

from common import Server, connect, get, private_kib, status, well_behaved

IDLE, SLOW, SECONDS = 1000, 200, 8


def idle_and_trickling():
    lab = Server("examples/lab", "-w", 4, "--max-connections", 2000)
    threads = status(lab.pid, "Threads")
    get(connect(lab.port), "/hello")
    print("alone:                    ", well_behaved(lab.port, "/hello", SECONDS))
    before = private_kib(lab.pid)
    idle = [connect(lab.port) for _ in range(IDLE)]
    for connection in idle:
        get(connection, "/hello")
    grown = private_kib(lab.pid) - before
    trickling = []
    head = b"GET /hello HTTP/1.1\r\nHost: bench\r\nX-Slow: " + b"x" * 1000
    for _ in range(SLOW):
        trickling.append([connect(lab.port), 0, time.monotonic()])

    def trickle():
        for client in trickling:
            if client[2] <= time.monotonic():
                client[0].send(head[client[1] : client[1] + 1])
                client[1] += 1
                client[2] += 1

    print(f"{IDLE} idle, {SLOW} trickling:", well_behaved(lab.port, "/hello", SECONDS, trickle))
    print(f"threads {threads} before, {status(lab.pid, 'Threads')} with them")
    print(f"private memory grown by {grown} KiB: {grown * 1024 / IDLE:.0f} bytes for each idle connection")
    for connection in idle:
        get(connection, "/hello")
    print(f"all {IDLE} idle connections are still served")
    lab.stop()


def slow_readers():
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        (root / "small").write_text("hello world")
        with open(root / "large", "wb") as file:
            file.truncate(50_000_000)
        server = Server("handover", "-w", 4, root)
        print("alone:                    ", well_behaved(server.port, "/small", SECONDS))
        readers = []
        for _ in range(SLOW):
            reader = socket.socket()
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", server.port))
            reader.sendall(b"GET /large HTTP/1.1\r\nHost: bench\r\n\r\n")
            readers.append(reader)
        last = [time.monotonic()]

        def read():
            if time.monotonic() - last[0] >= 0.1:
                last[0] += 0.1
                for reader in readers:
                    reader.recv(100)

        print(f"{SLOW} reading at 1 KB/s:    ", well_behaved(server.port, "/small", SECONDS, read))
        server.child.send_signal(signal.SIGQUIT)
        server.child.wait(10)


idle_and_trickling()
slow_readers()
