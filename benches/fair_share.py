#!/usr/bin/env python3
"""What clients that keep every worker busy cost the others: four that pipeline requests at the service rate, with the
default settings, beside one that asks for little. The others' share is handler time x clients / workers; their p99 has to
stay below twice that, and /-/healthy has to be answered all the while, also with every worker blocked.

  just bench-fair [SECONDS]
"""

import signal
import sys
import threading
import time

from common import Server, connect, percentile

HOGS, WORKERS = 4, 4
# Requests that a hog has under way.
DEPTH = 24


def hog(lab, path, stop):
    client = connect(lab.port)
    request = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path
    client.sendall(request * DEPTH)
    reader = client.makefile("rb")
    while not stop.is_set():
        length = 0
        while (line := reader.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        reader.read(length)
        client.sendall(request)
    client.close()


def ask(lab, path):
    """Status and seconds of one request on a new connection."""
    began = time.monotonic()
    client = connect(lab.port)
    client.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path)
    answer = b""
    while piece := client.recv(65536):
        answer += piece
    client.close()
    return int(answer[9:12] or 0), time.monotonic() - began


def beside(milliseconds, seconds):
    """Waits of another client, and what /-/healthy and /-/ready said, beside hogs of that handler time."""
    lab = Server("examples/lab")
    stop = threading.Event()
    hogs = [threading.Thread(target=hog, args=(lab, b"/sleep/%d" % milliseconds, stop)) for _ in range(HOGS)]
    for thread in hogs:
        thread.start()
    time.sleep(0.5)
    waits, healthy, ready = [], [], []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        status, took = ask(lab, b"/hello")
        assert status == 200, status
        waits.append(took)
        healthy.append(ask(lab, b"/-/healthy"))
        ready.append(ask(lab, b"/-/ready")[0])
    stop.set()
    for thread in hogs:
        thread.join()
    lab.stop()
    return waits, healthy, ready


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 15
    failed = False
    for milliseconds in (20, 100, 200):
        waits, healthy, _ = beside(milliseconds, seconds)
        share = milliseconds / 1000 * (HOGS + 1) / WORKERS
        p99 = percentile(waits, 0.99)
        unhealthy = sum(status != 200 for status, _ in healthy)
        fine = p99 < 2 * share and not unhealthy
        failed |= not fine
        print(f"{HOGS} clients that pipeline {milliseconds} ms requests: others' p99 {p99 * 1000:.0f} ms of {len(waits)}, "
              f"fair share {share * 1000:.0f} ms; /-/healthy {len(healthy) - unhealthy} of {len(healthy)} are 200: "
              f"{'fine' if fine else 'TOO MUCH'}")
    lab = Server("examples/lab")
    stuck = []
    for _ in range(WORKERS):
        client = connect(lab.port)
        client.sendall(b"GET /sleep/20000 HTTP/1.1\r\nHost: x\r\n\r\n")
        stuck.append(client)
    time.sleep(0.2)
    said = [(ask(lab, b"/-/healthy"), ask(lab, b"/-/ready")) for _ in range(5)]
    worst = max(took for pair in said for _, took in pair)
    fine = all(healthy[0] == 200 and ready[0] == 503 for healthy, ready in said) and worst < 1
    failed |= not fine
    print(f"every worker blocked: /-/healthy {[healthy[0] for healthy, _ in said]}, /-/ready "
          f"{[ready[0] for _, ready in said]}, at most {worst * 1000:.0f} ms: {'fine' if fine else 'TOO MUCH'}")
    for client in stuck:
        client.close()
    lab.child.send_signal(signal.SIGQUIT)
    lab.child.wait(30)
    sys.exit(failed)


main()
