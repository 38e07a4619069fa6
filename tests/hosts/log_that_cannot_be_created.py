"""logrotate has moved the log away and there is no inode left for a new one: a reload is refused, in words, and every
connection is kept; once there is room, it works."""

import os
import signal
import socket

import harness

harness.need("mount")
harness.unshare(harness.NEW_MOUNT)
CONNECTIONS = 20
REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
evidence = []
holds = True


def answered(clients):
    good = 0
    for client in clients:
        client.sendall(REQUEST)
        head, body = b"", b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(body) < length:
            body += client.recv(length - len(body))
        good += head.startswith(b"HTTP/1.1 200 ")
    return good


for mode in ("exec", "overlap"):
    small = harness.directory()
    harness.run("mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=8", "none", small)
    log = small / "log"
    server = harness.Server("--reload", mode, "--reload-probation", "0", "--log-file", log)
    clients = [socket.create_connection(("127.0.0.1", server.port), harness.PATIENCE) for _ in range(CONNECTIONS)]
    before = answered(clients)
    log.rename(small / "log.1")
    fillers = []
    try:
        while True:
            filler = small / f"filler{len(fillers)}"
            filler.touch()
            fillers.append(filler)
    except OSError:
        pass
    server.signal(signal.SIGHUP)
    words = f'cannot open log file "{log}": the disk is full'
    refused = harness.until(lambda: f"reload failed, serving on: " in (small / "log.1").read_text())
    said = words in (small / "log.1").read_text()
    after = answered(clients)
    for filler in fillers:
        filler.unlink()
    server.signal(signal.SIGHUP)
    server.ready(generation=2)
    last = answered(clients)
    os.kill(server.pid, signal.SIGTERM)
    harness.until(lambda: "stopped: " in log.read_text())
    holds &= bool(fillers and refused and said) and (before, after, last) == (CONNECTIONS,) * 3
    evidence.append(f"{mode}: refused {refused}, in words {said}, {before}, {after} and {last} answers;")
    harness.run("umount", "-l", small)
harness.verdict(holds, " ".join(evidence))
