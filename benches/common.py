"""What the benchmark scripts share: a server as a child process, and its figures from /proc. Only Python's own library."""

import multiprocessing
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
TICK = os.sysconf("SC_CLK_TCK")


class Server:
    """A server of this project, on a port that the kernel picks."""

    def __init__(self, program, *args, env=None):
        self.log = open(os.environ.get("BENCH_LOG", os.devnull), "ab")
        command = [str(TARGET / program), "-l", "127.0.0.1:0", *map(str, args)]
        self.child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, text=True, env={**os.environ, **(env or {})}
        )
        self.pid = self.child.pid
        for line in self.child.stdout:
            found = re.match(r"listening on http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found[1])
            if line.startswith("ready "):
                return
        raise SystemExit(f"{command} did not start")

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(30)


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def get(connection, path):
    """One request on a keep-alive connection; the time it took."""
    began = time.perf_counter()
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    data = b""
    while True:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError(f"closed after {data!r}")
        data += piece
        head, end, body = data.partition(b"\r\n\r\n")
        if end:
            length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
            if len(body) >= length:
                return time.perf_counter() - began


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def status(pid, key):
    return int(re.search(rf"^{key}:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def private_kib(pid):
    """Memory that only this process has, in KiB."""
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(found) for found in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+)", rollup, re.M))


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def behave(port, path, seconds, results):
    """One request a millisecond."""
    connection = connect(port)
    times = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        times.append(get(connection, path))
        time.sleep(0.001)
    results.put(times)


def well_behaved(port, path, seconds, meanwhile=lambda: None):
    """Latencies of a client of its own, while `meanwhile` is called again and again."""
    results = multiprocessing.Queue()
    client = multiprocessing.Process(target=behave, args=(port, path, seconds, results))
    client.start()
    while client.is_alive() and results.empty():
        meanwhile()
        time.sleep(0.05)
    times = results.get()
    client.join()
    return f"p50 {percentile(times, 0.5) * 1e3:.2f} ms, p99 {percentile(times, 0.99) * 1e3:.2f} ms, {len(times)} requests"


median = statistics.median
