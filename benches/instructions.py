#!/usr/bin/env python3
"""Instructions of a request outside the kernel, of two builds of this project, by callgrind: the same on a busy machine.

    just bench-instructions OLD NEW     release directories; needs valgrind

32 requests are asked for at a time, so that a request is what is counted, and not how often a connection is parked. What
320 requests cost is taken from what 32,320 do, so that start and stop do not count.
"""

import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile

FEW, MANY, TOGETHER = 320, 32_320, 32


def instructions(build, program, root, path, count):
    with tempfile.NamedTemporaryFile() as profile:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile.name}", f"{build}/{program}"]
        command += ["-l", "127.0.0.1:0", "-w", "2"] + ([root] if program == "handover" else [])
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        port = None
        for line in server.stdout:
            listening = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            port = int(listening[1]) if listening else port
            if line.startswith("ready"):
                break
        if port is None:
            raise SystemExit(server.stderr.read())
        ask(port, path, count)
        server.send_signal(signal.SIGTERM)
        said = server.communicate()[1]
        return int(re.search(r"Collected : (\d+)", said)[1])


def ask(port, path, count):
    request = f"GET {path} HTTP/1.1\r\nHost: test\r\nUser-Agent: wrk\r\nAccept: */*\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as client, client.makefile("rb") as answers:
        client.settimeout(60)
        for number in range(count):
            if number % TOGETHER == 0:
                client.sendall(request * TOGETHER)
            status, length = answers.readline(), 0
            if b" 200 " not in status:
                raise SystemExit(f"{path}: {status!r}")
            while (line := answers.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            answers.read(length)


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    builds = [pathlib.Path(build).resolve() for build in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as root:
        for name, size in (("small", 11), ("ten", 10 * 1024)):
            pathlib.Path(root, name).write_bytes(b"x" * size)
        for name, program, path in (
            ("constant", "examples/lab", "/hello"),
            ("file of 11 B", "handover", "/small"),
            ("file of 10 KiB", "handover", "/ten"),
        ):
            counts = []
            for build in builds:
                few, many = (instructions(build, program, root, path, count) for count in (FEW, MANY))
                counts.append((many - few) / (MANY - FEW))
            old, new = counts
            print(f"{name:<16} {old:,.0f} {new:,.0f}  new/old {new / old:.3f}", flush=True)


if __name__ == "__main__":
    main()
