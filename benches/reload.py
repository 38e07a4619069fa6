#!/usr/bin/env python3
"""Reloads under keep-alive load: handover in both modes over TCP and a Unix socket, and nginx and gunicorn beside it.

Each client keeps one connection and never retries: what fails is counted, then it connects anew. The figures are
requests, failed requests, connections made beyond the first, and the p99 latency between reloads and around them.

    just reload-demo                      the lab alone, five reloads
    just bench-reload                     everybody; nginx and gunicorn are left out where they are not installed
    reload.py journal                     200 clients thinking 0-4 s, and clients that connect for each request
    reload.py idle 10000                  how long that many idle connections take to move, and what it costs
"""

import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from common import TARGET, percentile, status

CLIENTS, RELOADS = 32, 5
SECONDS = float(os.environ.get("RELOAD_SECONDS", "20"))
AROUND = 0.5


class Client(threading.Thread):
    def __init__(self, address, until, path):
        super().__init__()
        self.address, self.until = address, until
        self.request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        self.samples, self.failed, self.reconnects, self.error = [], 0, -1, None

    def connect(self):
        self.reconnects += 1
        if isinstance(self.address, str):
            connection = socket.socket(socket.AF_UNIX)
        else:
            connection = socket.socket()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(15)
        connection.connect(self.address)
        return connection

    def run(self):
        connection = self.connect()
        while time.monotonic() < self.until:
            began = time.monotonic()
            try:
                connection.sendall(self.request)
                data = b""
                while not complete(data):
                    piece = connection.recv(65536)
                    if not piece:
                        raise ConnectionError("end of connection instead of an answer")
                    data += piece
                if not data.startswith(b"HTTP/1.1 200"):
                    raise ConnectionError(data[:40])
                self.samples.append((began, time.monotonic() - began))
                if b"connection: close" in data.lower():
                    connection.close()
                    connection = self.connect()
            except OSError as error:
                self.failed += 1
                self.error = error
                connection.close()
                try:
                    connection = self.connect()
                except OSError:
                    time.sleep(0.01)


def complete(data):
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(length) and len(body) >= int(length[1])


def measure(name, address, reload, path="/hello"):
    until = time.monotonic() + SECONDS
    clients = [Client(address, until, path) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    times = []
    for number in range(RELOADS):
        time.sleep(max(0.0, until - SECONDS + (number + 0.7) * SECONDS / (RELOADS + 0.5) - time.monotonic()))
        times.append(time.monotonic())
        reload()
    for client in clients:
        client.join()
    during, between = [], []
    for began, took in (sample for client in clients for sample in client.samples):
        near = any(-took <= began - moment < AROUND for moment in times)
        (during if near else between).append(took * 1e3)
    failed, reconnects = sum(client.failed for client in clients), sum(client.reconnects for client in clients)
    print(
        f"{name:26} {len(during) + len(between):9,} {failed:7} {reconnects:11}"
        f" {percentile(between, 0.99):11.2f} ms {percentile(during, 0.99):10.2f} ms",
        flush=True,
    )
    return failed + reconnects


class Lab:
    """The lab, followed through its generations by its pid file."""

    def __init__(self, directory, mode, *flags):
        self.pid_file = directory / f"{mode}.pid"
        self.socket = str(directory / f"{mode}.sock")
        self.log = open(directory / f"{mode}.log", "ab")
        command = [TARGET / "examples/lab", "-l", "127.0.0.1:0", "-l", f"unix:{self.socket}", "--reload", mode]
        command += ["--pid-file", self.pid_file, "--reload-probation", "0.5", *flags]
        self.child = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=self.log, text=True)
        for line in self.child.stdout:
            found = re.match(r"listening on http://127\.0\.0\.1:(\d+)", line)
            self.port = int(found[1]) if found else self.port
            if line.startswith("ready "):
                break
        # Later generations print here too.
        threading.Thread(target=self.child.stdout.read, daemon=True).start()

    def pid(self):
        return int(self.pid_file.read_text())

    def reload(self):
        os.kill(self.pid(), signal.SIGHUP)

    def generation(self):
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"GET /pid HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            return int(re.search(rb'"generation":(\d+)', connection.makefile("rb").read())[1])

    def stop(self):
        pid = self.pid()
        os.kill(pid, signal.SIGTERM)
        while pathlib.Path(f"/proc/{pid}").exists() and self.child.poll() is None:
            time.sleep(0.02)


def handover(directory, mode, unix):
    lab = Lab(directory, mode)
    try:
        where = lab.socket if unix else ("127.0.0.1", lab.port)
        bad = measure(f"handover {mode} {'Unix' if unix else 'TCP'}", where, lab.reload)
        reached = lab.generation()
        if reached != RELOADS + 1:
            print(f"  only generation {reached} was reached; see {lab.log.name}")
            bad += 1
        return bad
    finally:
        lab.stop()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    for _ in range(500):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
    raise SystemExit("a peer did not start")


def peer(name, command, directory, port, path="/hello"):
    child = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        measure(name, ("127.0.0.1", port), lambda: child.send_signal(signal.SIGHUP), path)
    finally:
        child.terminate()
        child.wait()


def nginx(directory):
    port = free_port()
    (directory / "www").mkdir()
    (directory / "www/hello").write_text("hello world")
    (directory / "nginx.conf").write_text(
        f"daemon off; worker_processes 2; pid {directory}/nginx.pid; error_log {directory}/nginx.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {directory}/t1;\n"
        f"proxy_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3; uwsgi_temp_path {directory}/t4;\n"
        f"scgi_temp_path {directory}/t5;\nserver {{ listen 127.0.0.1:{port}; root {directory}/www; }} }}\n"
    )
    os.chmod(directory, 0o755)
    peer("nginx", ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")], directory, port)


def gunicorn(directory):
    port = free_port()
    (directory / "app.py").write_text(
        "def app(environ, start):\n"
        "    start('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '11')])\n"
        "    return [b'hello world']\n"
    )
    command = ["gunicorn", "-k", "gthread", "-w", "2", "--threads", "32", "--keep-alive", "30"]
    peer("gunicorn gthread", [*command, "-b", f"127.0.0.1:{port}", "app:app"], directory, port)


def idle(count):
    """That many idle connections through one overlap reload."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 1000), hard))
    with tempfile.TemporaryDirectory() as name:
        lab = Lab(pathlib.Path(name), "overlap", "--max-connections", str(count + 100), "--idle-timeout", "600")
        connections = []
        for number in range(count):
            # A source address of its own for each 20,000, as ports are 16 bits.
            source = (f"127.0.0.{2 + number // 20000}", 0)
            connections.append(socket.create_connection(("127.0.0.1", lab.port), source_address=source))
            connections[-1].sendall(b"GET /hello HTTP/1.1\r\nHost: bench\r\n\r\n")
            connections[-1].recv(4096)
        old = lab.pid()
        print(f"{count} idle connections; {status(old, 'VmRSS')} KiB RSS before")
        began = time.monotonic()
        lab.reload()
        while lab.pid() == old:
            time.sleep(0.001)
        promoted = time.monotonic()
        new, peaks = lab.pid(), [0, 0]
        while pathlib.Path(f"/proc/{old}").exists() and lab.child.poll() is None:
            try:
                peaks = [max(peaks[0], status(old, "VmHWM")), max(peaks[1], status(new, "VmHWM"))]
            except (OSError, TypeError):
                break
            time.sleep(0.002)
        moved = time.monotonic()
        print(f"promoted {promoted - began:.2f} s after HUP (0.5 s of that on probation), all moved {moved - promoted:.2f} s later")
        print(f"peak RSS: predecessor {peaks[0]} KiB, successor {max(peaks[1], status(new, 'VmHWM'))} KiB")
        lost = 0
        for connection in connections:
            try:
                connection.sendall(b"GET /hello HTTP/1.1\r\nHost: bench\r\n\r\n")
                lost += not connection.recv(4096).startswith(b"HTTP/1.1 200")
            except OSError:
                lost += 1
        print(f"lost: {lost}")
        for connection in connections:
            connection.close()
        lab.stop()
        return lost


class Writer(threading.Thread):
    """Posts ids of its own to /journal, on one connection or on one for each."""

    def __init__(self, port, number, until, think):
        super().__init__()
        self.port, self.number, self.until, self.think = port, number, until, think
        self.answered, self.sent, self.error = [], 0, None

    def run(self):
        connection = None
        try:
            while time.monotonic() < self.until:
                if connection is None:
                    connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
                self.sent += 1
                name = f"{self.number}-{self.sent}"
                last = "Connection: close\r\n" if self.think is None else ""
                request = f"POST /journal HTTP/1.1\r\nHost: bench\r\n{last}Content-Length: {len(name)}\r\n\r\n{name}"
                connection.sendall(request.encode())
                data = b""
                while not complete(data):
                    piece = connection.recv(4096)
                    if not piece:
                        raise ConnectionError(f"end of connection instead of an answer to {name}")
                    data += piece
                self.answered.append(data.partition(b"\r\n\r\n")[2].decode().strip())
                if self.think is None:
                    connection.close()
                    connection = None
                else:
                    time.sleep(random.random() * self.think)
        except OSError as error:
            self.error = error


def journal():
    bad = 0
    for mode in ("overlap", "exec"):
        with tempfile.TemporaryDirectory() as name:
            os.environ["LAB_JOURNAL"] = f"{name}/journal"
            lab = Lab(pathlib.Path(name), mode)
            until = time.monotonic() + SECONDS
            writers = [Writer(lab.port, f"k{number}", until, 4) for number in range(200)]
            writers += [Writer(lab.port, f"o{number}", until, None) for number in range(8)]
            for writer in writers:
                writer.start()
            for _ in range(RELOADS):
                time.sleep(SECONDS / (RELOADS + 1))
                lab.reload()
            for writer in writers:
                writer.join()
            reached = lab.generation()
            lab.stop()
            executed = pathlib.Path(f"{name}/journal").read_text().split()
            answered = [one for writer in writers for one in writer.answered]
            sent = sum(writer.sent for writer in writers)
            errors = [writer.error for writer in writers if writer.error]
            print(
                f"{mode:8} {RELOADS} reloads, generation {reached}: {sent} sent, {len(answered)} answered,"
                f" {len(executed)} executed, {len(set(executed))} different; {len(errors)} clients failed {errors[:2]}"
            )
            right = sorted(executed) == sorted(answered) and len(set(executed)) == len(executed) == sent
            bad += not right or bool(errors) or reached != RELOADS + 1
    return bad


def main(what):
    if what[:1] == ["journal"]:
        return journal()
    if what[:1] == ["idle"]:
        return idle(int(what[1]))
    print(f"{CLIENTS} keep-alive clients without retry, {SECONDS:.0f} s, {RELOADS} reloads")
    print(f"{'':26} {'requests':>9} {'failed':>7} {'reconnects':>11} {'p99 between':>14} {'p99 around':>13}")
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        for mode in ("overlap", "exec"):
            for unix in (False, True):
                bad += handover(directory, mode, unix)
        if what[:1] == ["peers"]:
            for program, run in (("nginx", nginx), ("gunicorn", gunicorn)):
                if shutil.which(program):
                    run(directory)
                else:
                    print(f"{program:26} not installed (Debian: apt-get install nginx gunicorn)")
    return bad


sys.exit(1 if main(sys.argv[1:]) else 0)
