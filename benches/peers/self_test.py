"""Checks of the runner itself: what it reads and what it writes, from fixed input. `just bench-peers --self-test`."""

import json
import pathlib
import socket
import tempfile
import threading
import unittest
import xml.etree.ElementTree

import instructions
import plot
import report
import run
from servers import SERVERS, cpu_between, crates, family
from wire import Wire, Wrong, expect
from workloads import WORKLOADS, Workload, content, echoed, lua, parse_wrk


class Scripted:
    """A server that sends fixed bytes to whoever connects, piece by piece, and then closes or waits."""

    def __init__(self, *pieces, closes=True):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.pieces, self.closes, self.over = pieces, closes, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        client = self.listener.accept()[0]
        client.recv(65536)
        for piece in self.pieces:
            client.sendall(piece)
        if not self.closes:
            self.over.wait(10)
        client.close()

    def __enter__(self):
        self.thread.start()
        return self.port

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.listener.close()


def answers(*pieces, count=1):
    with Scripted(*pieces) as port, Wire(port) as wire:
        wire.send("GET", "/")
        return [wire.answer() for _ in range(count)]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n"


class Wires(unittest.TestCase):
    def test_framings(self):
        whole = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\n\r\nhelloHTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"
        for cut in range(1, len(whole)):
            first, second = answers(whole[:cut], whole[cut:], count=2)
            self.assertEqual((first.status, first.body), (200, b"hello"))
            self.assertEqual((second.status, second.body, second.field("etag")), (304, b"", '"x"'))
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n"
        self.assertEqual(answers(chunked)[0].body, b"hello!")

    def test_what_is_wrong(self):
        for bad in (b"HTTP/1.1 200 OK\r\n\r\n", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"):
            with self.assertRaises(Wrong, msg=bad):
                answers(bad)
        (answer,) = answers(OK + b"\r\nhello there")
        with self.assertRaisesRegex(Wrong, "status 200 instead of 404"):
            expect(answer, 404)
        with self.assertRaisesRegex(Wrong, "not the 11 expected"):
            expect(answer, 200, b"hello world")

    def test_closing(self):
        close = WORKLOADS["close"]
        with Scripted(OK + b"\r\nhello world") as port:
            self.assertFalse(close.check(port).announced)
        with Scripted(OK + b"Connection: close\r\n\r\nhello world") as port:
            self.assertTrue(close.check(port).announced)
        with Scripted(OK + b"\r\nhello world", closes=False) as port:
            with self.assertRaisesRegex(Wrong, "keeps the connection open"):
                close.check(port)

    def test_a_forgotten_pipelined_request_is_seen(self):
        with Scripted((OK + b"\r\nhello world") * 15) as port:
            with self.assertRaisesRegex(Wrong, "answers 15 of 16"):
                WORKLOADS["pipeline"].check(port)


class Parsing(unittest.TestCase):
    def test_wrk(self):
        output = "Running 2s test\nfigures 1000 2000000 1 2 3 4 0 310 4200 7100\n"
        self.assertEqual(
            parse_wrk(output), {"requests": 1000, "rate": 500.0, "errors": 10, "p50": 310, "p99": 4200, "p999": 7100}
        )
        self.assertEqual(parse_wrk("figures 9 1000000 0 0 0 0 2 1 1 1")["errors"], 2)
        # Where 404 is what is asked for, all the others are errors.
        self.assertEqual(parse_wrk("figures 9 1000000 0 0 0 0 7 1 1 1", 404)["errors"], 2)
        self.assertEqual(parse_wrk("figures 9 1000000 0 9 0 0 0 1 1 1", announced=False)["errors"], 0)
        self.assertEqual(parse_wrk("figures 9 1000000 1 9 0 0 0 1 1 1", announced=False)["errors"], 1)
        with self.assertRaises(Wrong):
            parse_wrk("unable to connect")

    def test_mix(self):
        one = {"count": 10, "p50": 1, "p99": 2, "p999": 3, "max": 4}
        sample = run.parse_mix(json.dumps({"fast": {**one, "count": 90}, "slow": one, "errors": 0, "took": 2_000_000}))
        self.assertEqual((sample["requests"], sample["rate"], sample["p999"]), (100, 50.0, 3))

    def test_callgrind(self):
        self.assertEqual(instructions.total("events: Ir\nfn=(0)\n1 5\n\ntotals: 12345\n"), 12345)
        self.assertEqual(instructions.total("summary: 77\n"), 77)
        with self.assertRaises(Wrong):
            instructions.total("events: Ir\n")

    def test_crates_and_processes(self):
        tree = "peer-x v0.0.0 (/x)\nlibc v0.2.1\nmemchr v2.0.0\nlibc v0.2.1 (*)\nlibc v0.1.0\n"
        self.assertEqual(len(crates(tree)), 4)
        self.assertEqual(sorted(family(10, {10: 1, 11: 10, 12: 11, 13: 1})), [10, 11, 12])

    def test_cpu(self):
        self.assertAlmostEqual(cpu_between((1.00, 1.001), (1.51, 1.503)), 0.502)
        # A thread that ended took 300 ms with it.
        self.assertAlmostEqual(cpu_between((1.00, 1.001), (1.51, 1.203)), 0.51)

    def test_choice(self):
        self.assertEqual([server.name for server in run.chosen("nginx,handover", SERVERS, "server")], ["handover", "nginx"])
        prefixed = run.chosen("constant", WORKLOADS, "workload", prefixes=True)
        self.assertEqual({workload.kind for workload in prefixed}, {"constant"})
        with self.assertRaisesRegex(SystemExit, "no server named 'apache'"):
            run.chosen("apache", SERVERS, "server")


class Workloads(unittest.TestCase):
    def test_bodies(self):
        self.assertEqual(content("11b"), b"hello world")
        for size in ("1k", "10k", "100k", "1m"):
            self.assertEqual(len(content(size)), len(echoed(len(content(size)))), size)
        self.assertEqual(len(content("1m")), 1 << 20)

    def test_scripts(self):
        self.assertIn('wrk.headers["If-None-Match"] = "\\"a\\\\b\\""', WORKLOADS["unchanged"].script([("If-None-Match", '"a\\b"')]))
        # A `request` function makes wrk call Lua for each write.
        self.assertEqual(["request =" in w.script([]) for w in WORKLOADS.values()].count(True), 1)
        self.assertEqual(lua('"'), '"\\""')

    def test_every_reason_is_for_something(self):
        known = {workload.kind for workload in WORKLOADS.values()} | set(WORKLOADS)
        for server in SERVERS.values():
            self.assertLessEqual(set(server.cannot), known, server.name)
        self.assertIsInstance(WORKLOADS["mix"], Workload)


def sample(rate, cpu, **more):
    return {"requests": 1, "rate": rate, "cpu": cpu, "client": 4.0, "errors": 0, "p50": 310, "p99": 4200, "p999": 1.5e6, **more}


def results():
    step = {"rss": 4000, "private": 1000, "threads": 8}
    cells = {
        "handover": {"samples": [sample(300.0, 5.0), sample(100.0, 7.0), sample(200.0, 6.0)], "reason": None},
        "lighttpd": {"samples": [sample(100.0, 12.0, errors=3)], "reason": None},
        "khttp": {"samples": [], "reason": "answers 1 & no more"},
        "limit": {"samples": [sample(400.0, 3.0, p50=None, p99=None, p999=None)], "reason": None},
    }
    rest = {
        "handover": {"starts_ms": [2.0, 9.0, 3.0], "idle": step, "empty": step, "1000": step, "binary": 2048,
                     "10000": {**step, "private": 11000}, "dependencies": 30},
        "tiny_http": {"starts_ms": [1.0], "idle": step, "empty": step, "1000": {"reason": "900 connections, then: x"},
                      "binary": 1 << 30, "dependencies": 6},
        "nginx": {"reason": "nginx is not installed"},
    }  # fmt: skip
    return {
        "date": "2026-01-01", "command": "just bench-peers", "rounds": 3, "seconds": 1, "mix": run.MIX,
        "machine": {"cpu": "a <cpu>", "cores": 2, "memory_mib": 4096, "kernel": "6", "descriptors": 9, "load_before": 0.0},
        "versions": {"wrk": "4.1.0"}, "servers": {"handover": "this"}, "rest": rest,
        "workloads": {"constant-c32": "Constant answer"}, "cells": {"constant-c32": cells},
    }  # fmt: skip


class Reports(unittest.TestCase):
    def test_table(self):
        lines = report.workload_table(results()["cells"]["constant-c32"]).splitlines()
        self.assertIn("| handover | 200 (100–300) | 6.00 (5.00–7.00) | 4.00 | 310 µs | 4.20 ms | 1.50 s | 2.00× / 0.50× | 0.50× / 2.00× |", lines)
        self.assertTrue(any(line.startswith("| lighttpd (3 errors) | 100 |") for line in lines))
        self.assertTrue(any(line.startswith("| khttp | answers 1 & no more |") for line in lines))
        self.assertTrue(any("| – | – | – |" in line for line in lines if line.startswith("| limit")))
        self.assertEqual({line.count("|") for line in lines}, {10})
        alone = {name: cell for name, cell in results()["cells"]["constant-c32"].items() if name in ("handover", "khttp")}
        self.assertEqual({line.count("|") for line in report.workload_table(alone).splitlines()}, {8})

    def test_rest(self):
        lines = report.rest_table(results()["rest"]).splitlines()
        self.assertIn("| handover | 3.0 ms | 8 | 4,000 KiB | 1,000 KiB | 1,000 KiB | 10.7 MiB | 1,024 B | 8 | 2 KiB | 30 |", lines)
        self.assertTrue(any("900 connections, then: x" in line for line in lines))
        self.assertEqual({line.count("|") for line in lines}, {12})

    def test_published(self):
        with tempfile.TemporaryDirectory() as name:
            directory = pathlib.Path(name)
            report.publish(results(), directory)
            text = (directory / "benchmarks.md").read_text()
            self.assertEqual(json.loads((directory / "benchmarks.json").read_text()), results())
            drawn = sorted(directory.glob("*.svg"))
            self.assertEqual(len(drawn), 3)
            for file in drawn:
                self.assertIn(f"]({file.name})", text)
                xml.etree.ElementTree.parse(file)

    def test_plot(self):
        rows = [("handover", 2.0, 1.0, 4.0, "2"), ("a & b", None, 0, 0, "cannot")]
        root = xml.etree.ElementTree.fromstring(plot.bars("T", "u", rows, "handover"))
        space = "{http://www.w3.org/2000/svg}"
        bars = root.findall(f"{space}rect")
        self.assertEqual([bar.get("class") for bar in bars], ["bar ours"])
        # Half of the longest spread, which takes all the width there is.
        self.assertAlmostEqual(float(bars[0].get("width")), (plot.WIDTH - plot.LEFT - plot.RIGHT) / 2)
        self.assertIn("cannot", [text.text for text in root.findall(f"{space}text")])
        for values, longest in (([], 1), ([7], 7), ([1, 3], 3), ([1, 2, 100], 2.4), ([5, 5, 5], 5), ([0], 1)):
            self.assertAlmostEqual(plot.longest_drawn(values), longest)


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(__import__(__name__))
    return 0 if unittest.TextTestRunner().run(suite).wasSuccessful() else 1
