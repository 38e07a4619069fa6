"""Checks of the client and the runner: a server that loses, doubles and swaps must be found out. `just bench-push --self-test`."""

import json
import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import unittest
import xml.etree.ElementTree

import push_report
import push_servers
import run
from push_servers import SERVERS
from push_workloads import FAULTS, WORKLOADS
from wire import Wrong

SUBSCRIBERS, SECONDS, RATE = 5, 1, 20
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Fake:
    """A server that delivers what is published, but for what `fault` makes of the tenth for its first subscriber."""

    def __init__(self, fault):
        self.fault, self.published, self.kept = fault, 0, b""
        self.clients, self.lock = [], threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        data = b""
        while piece := client.recv(65536):
            data += piece
            head, end, body = data.partition(b"\r\n\r\n")
            if end and head.startswith(b"GET"):
                client.sendall(HEAD + chunk(b"retry: 50\nid: e-0\n\n"))
                with self.lock:
                    self.clients.append(client)
                data = b""
            elif end and len(body) >= (length := int(re.search(rb"Content-Length: (\d+)", head)[1])):
                with self.lock:
                    self.publish(body[:length])
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                data = body[length:]

    def publish(self, data):
        self.published += 1
        event = b"id: e-%d\ndata: %s\n\n" % (self.published, data)
        for number, client in enumerate(self.clients):
            try:
                client.sendall(self.frames(event, number))
            except OSError:
                pass

    def frames(self, event, number):
        if number or self.published not in (10, 11):
            return chunk(event)
        tenth = self.published == 10
        if self.fault == "missing":
            return b"" if tenth else chunk(event)
        if self.fault == "doubled":
            return chunk(event) * (2 if tenth else 1)
        if self.fault == "misordered":
            if tenth:
                self.kept = event
                return b""
            return chunk(event + self.kept)
        if self.fault == "gap":
            return b"" if tenth else chunk(b'event: @gap\ndata: {"from":"e-9"}\n\n') + chunk(event)
        if self.fault == "foreign":
            return chunk(event) + (chunk(event.replace(b"data: 000000.", b"data: 000007.")) if tenth else b"")
        if self.fault == "strange":
            return chunk(event) + (chunk(b"data: hello\n\n") if tenth else b"")
        if self.fault == "closes" and not tenth:
            client = self.clients[0]
            client.sendall(chunk(event) + b"0\r\n\r\n")
            client.shutdown(socket.SHUT_RDWR)
            return b""
        if self.fault == "ends early" and tenth:
            self.clients[0] = socket.socket()
        return chunk(event)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


class FakeEcho(Fake):
    """A server of WebSockets that says what it hears, but for what `fault` makes of the tenth of its first client."""

    def serve(self, client):
        with self.lock:
            self.clients.append(client)
            number = len(self.clients)
        data, heard = b"", 0
        while piece := client.recv(65536):
            data += piece
            if data.startswith(b"GET"):
                client.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                data = b""
            while len(data) >= 6 and len(data) >= (whole := 6 + (data[1] & 0x7F)):
                mask, text = data[2:6], bytes(byte ^ data[2 + place % 4] for place, byte in enumerate(data[6:whole]))
                opcode, data, heard = data[0] & 0x0F, data[whole:], heard + 1
                if opcode == 9:
                    # The first of all comes alone and is not asked.
                    client.sendall(b"" if self.fault == "silent" and number == 2 else b"\x8a\x00")
                else:
                    assert any(mask)
                    client.sendall(self.answer(text) if number == 1 and heard == 10 else frame(text))

    def answer(self, text):
        return {
            "missing": b"",
            "doubled": frame(text) * 2,
            "foreign": frame(b"000007" + text[6:]) + frame(text),
            "strange": frame(b"hello") + frame(text),
            "early": frame(text[:7] + b"%010d" % 11 + text[17:]),
        }.get(self.fault, frame(text))


def frame(text):
    return bytes([0x81, len(text)]) + text


def chunk(text):
    return b"%x\r\n%s\r\n" % (len(text), text)


def flags(port):
    return ["--address", f"127.0.0.1:{port}", "--subscribe", "/events/{topic}", "--publish", "/events/{topic}"]


def faults(fault, *more):
    """What the client says about a server that does this, without what is zero."""
    with Fake(fault) as fake:
        load = ["--subscribers", SUBSCRIBERS, "--sources", 2, "--seconds", SECONDS]
        sample = run.load([*(more or ("rate", "--rate", RATE)), *load, *flags(fake.port)])
    found = {name: sample[name] for name in (*FAULTS, "gaps") if sample.get(name)}
    return sample, found


ALL = SUBSCRIBERS * SECONDS * RATE


class Client(unittest.TestCase):
    def test_what_is_right_is_said_to_be(self):
        sample, found = faults("")
        self.assertEqual((sample["deliveries"], sample["posts"], found), (ALL, SECONDS * RATE, {}))
        self.assertLess(sample["latency"]["last"], 1_000_000)
        WORKLOADS["steady"].check(sample)

    def test_each_fault_is_found(self):
        for fault, expected, delivered in (
            ("missing", {"missing": 1}, ALL - 1),
            ("doubled", {"doubled": 1}, ALL),
            ("misordered", {"misordered": 1}, ALL),
            ("gap", {"gapped": 1, "gaps": 1}, ALL - 1),
            ("foreign", {"foreign": 1}, ALL),
            ("strange", {"strange": 1}, ALL),
            ("closes", {"missing": SECONDS * RATE - 11, "reconnects": 1}, ALL - SECONDS * RATE + 11),
            # Nothing after its tenth, and no later one that would show it.
            ("ends early", {"missing": SECONDS * RATE - 10}, ALL - SECONDS * RATE + 10),
        ):
            sample, found = faults(fault)
            self.assertEqual((found, sample["deliveries"]), (expected, delivered), fault)
            with self.assertRaises(Wrong, msg=fault):
                WORKLOADS["steady"].check(sample)

    def test_a_window_does_not_wait_for_ever(self):
        sample, found = faults("missing", "window", "--window", 1)
        self.assertEqual((sample["stalled"], found["missing"]), (True, 1))

    def echoed(self, fault, workload="echo"):
        with FakeEcho(fault) as fake:
            flags = ["--address", f"127.0.0.1:{fake.port}", "--subscribe", "/", "--format", "websocket"]
            sample = run.load([workload, "--subscribers", SUBSCRIBERS, "--sources", 2, "--seconds", SECONDS, *flags])
        return sample, {name: sample[name] for name in FAULTS if sample.get(name)}

    def test_each_fault_of_an_echo_is_found(self):
        sample, found = self.echoed("")
        self.assertEqual(found, {})
        self.assertGreater(sample["deliveries"], 10 * SUBSCRIBERS)
        WORKLOADS["echo"].check(sample)
        for fault, expected in (
            ("missing", {"missing": 1}),
            ("doubled", {"doubled": 1}),
            ("foreign", {"foreign": 1}),
            ("strange", {"strange": 1}),
            # It is taken for the next one, which then comes as well.
            ("early", {"missing": 1, "doubled": 1}),
        ):
            sample, found = self.echoed(fault)
            self.assertEqual(found, expected, fault)
            with self.assertRaises(Wrong, msg=fault):
                WORKLOADS["echo"].check(sample)

    def test_who_is_idle_and_does_not_answer_is_missing(self):
        self.assertEqual(self.echoed("", "idle")[1], {})
        self.assertEqual(self.echoed("silent", "idle")[1], {"missing": 1})

    def test_no_server(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        with self.assertRaisesRegex(Wrong, "0 of 3 subscribers"):
            run.load(["connect", "--subscribers", 3, *flags(port)])

    def test_unit_tests(self):
        command = ["cargo", "test", "--quiet", "--locked", "-p", "push-client", "--target-dir", push_servers.BUILT]
        subprocess.run(list(map(str, command)), cwd=push_servers.HERE, check=True, capture_output=True)


def sample(round_number, cpu, p99=100.0):
    return {"round": round_number, "cpu_us": cpu, "latency": {"p99": p99}}


def results():
    cells = {
        "handover": {"samples": [sample(1, 8.0), sample(2, 20.0), sample(3, 9.0)], "reason": None, "failures": 0},
        "limit": {"samples": [sample(1, 8.0), sample(2, 10.0), sample(3, 10.0)], "reason": None, "failures": 0},
        "nchan-2": {"samples": [sample(3, 18.0)], "reason": "1 missing", "failures": 2},
        "pushpin": {"samples": [], "reason": "is not installed", "failures": 0},
    }
    return {
        "date": "2026-01-01", "command": "just bench-push", "rounds": 3, "seconds": 1, "subscribers": 10,
        "machine": {"cpu": "a <cpu>", "cores": 2, "memory_mib": 4096, "kernel": "6", "load_before": 0.0},
        "versions": {"ws": "8"}, "servers": {"handover": "this"}, "cells": {"steady": cells},
    }  # fmt: skip


class Reports(unittest.TestCase):
    def test_ratios_are_paired_within_the_round(self):
        lines = push_report.workload_table(WORKLOADS["steady"], results()["cells"]["steady"]).splitlines()
        # 1.0, 2.0 and 0.9: the median of the pairs, not the pair of the medians.
        self.assertIn("| handover | 9.0 µs (8.0 µs–20.0 µs) | 0.10 ms | 1.00× | 0.50× |", lines)
        self.assertIn("| nchan-2 (1 missing, 2 times) | 18.0 µs | 0.10 ms | 1.80× | – |", lines)
        cells = {"limit": {"samples": [{**sample(1, 8.0), "others": 0.4}, sample(2, 8.0)], "reason": None, "failures": 0}}
        self.assertIn("limit (1 of 2 rounds disturbed)", push_report.workload_table(WORKLOADS["steady"], cells))
        self.assertTrue(any(line.startswith("| pushpin | is not installed |") for line in lines))
        self.assertEqual({line.count("|") for line in lines}, {6})

    def test_its_part_of_the_page(self):
        with tempfile.TemporaryDirectory() as name:
            directory = pathlib.Path(name)
            page = directory / "benchmarks.md"
            page.write_text("# Benchmarks\n\nothers\n")
            push_report.publish(results(), directory)
            first = page.read_text()
            push_report.publish(results(), directory)
            self.assertEqual(page.read_text(), first)
            self.assertTrue(first.startswith("# Benchmarks\n\nothers\n\n<!-- push: begin"))
            self.assertEqual(json.loads((directory / "benchmarks-push.json").read_text()), results())
            for file in directory.glob("*.svg"):
                self.assertIn(f"]({file.name})", first)
                xml.etree.ElementTree.parse(file)

    def test_some_rows_are_published_among_the_others(self):
        with tempfile.TemporaryDirectory() as name:
            directory = pathlib.Path(name)
            push_report.publish(results(), directory)
            cell = {"samples": [{"round": 1, "cpu_us": 5.0, "rate": 9.0}], "reason": None, "failures": 0}
            some = {**results(), "date": "2026-02-02", "cells": {"echo": {"handover": cell, "axum": cell}}}
            some["versions"] = {"handover": "abc"}
            push_report.publish(push_report.among_the_others(some, directory), directory)
            page = (directory / "benchmarks.md").read_text()
            self.assertIn("| handover | 9.0 µs (8.0 µs–20.0 µs) |", page)
            self.assertIn("`echo`, 2026-02-02, handover abc, 3 rounds of 1 s, by `just bench-push`", page)
            self.assertIn("| axum | 5.0 µs | 9 | – / – |", page)
            self.assertIn("\n`steady`\n", page)
            self.assertNotIn("| ws |", page)
            self.assertTrue((directory / "benchmarks-push-echo.svg").exists())

    def test_turns(self):
        self.assertEqual([run.in_turn([1, 2, 3], number) for number in (1, 2, 4)], [[1, 2, 3], [2, 3, 1], [1, 2, 3]])

    def test_every_reason_is_for_something(self):
        for server in SERVERS.values():
            self.assertLessEqual(set(server.cannot) | set(server.by_websocket), set(WORKLOADS), server.name)


def main():
    if why := push_servers.cargo("client"):
        raise SystemExit(f"bench-push: the client {why}")
    suite = unittest.defaultTestLoader.loadTestsFromModule(__import__(__name__))
    return 0 if unittest.TextTestRunner().run(suite).wasSuccessful() else 1
