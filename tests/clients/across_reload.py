"""Clients that keep their connections through reloads, in both modes, and notice nothing."""

import asyncio
import contextlib
import json
import pathlib
import re
import signal
import subprocess
import threading
import time

import aiohttp
import requests

from harness import Server, check, equal, sha256, until

HERE = pathlib.Path(__file__).resolve().parent
RELOADS = 3
# What each client has to have been answered before the first reload and behind each.
ANSWERS = 20
BODY = b"body" * 25000
ASKED = [
    ("GET", "/hello", None, b"hello world"),
    ("POST", "/echo", BODY, BODY),
    ("GET", "/bytes/200000", None, b"x" * 200000),
]
# Between two rounds, so that a round is also found idle by a reload.
PAUSE = 0.002


class Requests:
    name = "requests"

    def __init__(self, url, _directory):
        self.url, self.answers, self.failures, self.connections, self.ended = url, 0, [], None, False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        with requests.Session() as session:
            while not self.ended:
                for method, path, body, expected in ASKED:
                    self.ask(session, method, path, body, expected)
                time.sleep(PAUSE)
            pools = session.get_adapter(self.url).poolmanager.pools
            self.connections = sum(pools[key].num_connections for key in pools.keys())

    def ask(self, session, method, path, body, expected):
        try:
            answer = session.request(method, self.url + path, data=body, timeout=30)
            if answer.status_code != 200 or answer.content != expected:
                raise ValueError(f"{answer.status_code} with {len(answer.content)} bytes")
            self.answers += 1
        except Exception as error:
            self.failures.append(f"{method} {path}: {error!r}")

    def end(self):
        self.ended = True
        self.thread.join()


class Aiohttp(Requests):
    name = "aiohttp"

    def run(self):
        asyncio.run(self.session())

    async def session(self):
        self.connections = 0
        trace = aiohttp.TraceConfig()

        async def created(*_):
            self.connections += 1

        trace.on_connection_create_end.append(created)
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as session:
            while not self.ended:
                for asked in ASKED:
                    await self.ask_async(session, *asked)
                await asyncio.sleep(PAUSE)

    async def ask_async(self, session, method, path, body, expected):
        try:
            async with session.request(method, self.url + path, data=body) as answer:
                content = await answer.read()
                if answer.status != 200 or content != expected:
                    raise ValueError(f"{answer.status} with {len(content)} bytes")
            self.answers += 1
        except Exception as error:
            self.failures.append(f"{method} {path}: {error!r}")


class Undici:
    name = "undici, pipelining"

    def __init__(self, url, _directory):
        self.answers, self.failures, self.connections = 0, [], None
        command = ["node", HERE / "with_node.mjs", "session", url]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        for line in self.child.stdout:
            said = json.loads(line)
            if isinstance(said, int):
                self.answers = said
            else:
                self.answers, self.failures, self.connections = said["requests"], said["failures"], said["connections"]

    def end(self):
        self.child.stdin.close()
        self.thread.join()
        if self.child.wait(30) != 0:
            self.failures.append(f"node ended with {self.child.returncode}")


class Curl:
    name = "curl"
    first, last = 100_000, 120_000

    def __init__(self, url, directory):
        self.directory = directory / "curl"
        self.directory.mkdir()
        self.told = self.directory / "told"
        # More than there is time for; it is ended in the middle.
        command = ["curl", "-sS", "--rate", "200/s", "-o", self.directory / "#1"]
        command += ["-w", "%{stderr}=%{num_connects} %{http_code} %{size_download} %{url}\n"]
        with open(self.told, "wb") as told:
            self.child = subprocess.Popen([*command, f"{url}/bytes/[{self.first}-{self.last}]"], stderr=told)

    def lines(self):
        # Without what comes behind the last end of a line: it is killed while it writes.
        return self.told.read_text().split("\n")[:-1]

    @property
    def answers(self):
        return len(self.lines())

    @property
    def connections(self):
        return sum(int(found[1]) for line in self.lines() if (found := re.match(r"=(\d+) ", line)))

    @property
    def failures(self):
        expected = iter(range(self.first, self.last + 1))
        wrong = []
        for line in self.lines():
            length = next(expected)
            right = re.fullmatch(rf"=\d 200 {length} http\S*/bytes/{length}", line)
            if not right or (self.directory / str(length)).read_bytes() != b"x" * length:
                wrong.append(line)
        return wrong

    def end(self):
        if self.child.poll() is not None:
            check("curl: it ran to the end of the reloads", False, self.child.returncode)
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(30)


def sessions(mode, directory):
    lab = Server(directory / f"lab-{mode}", "examples/lab", "--reload", mode, "--reload-probation", "0.2")
    clients = [kind(lab.url, lab.log_path.parent) for kind in (Requests, Aiohttp, Undici, Curl)]
    try:
        goes_on(f"{mode}, before", clients)
        for reload in range(1, RELOADS + 1):
            check(f"{mode}: reload {reload}", lab.reload(mode), lab.log()[-400:])
            goes_on(f"{mode}, behind reload {reload}", clients)
    finally:
        for client in clients:
            client.end()
    for client in clients:
        what = f"{client.name} across {RELOADS} reloads, {mode}"
        equal(f"{what}: none of {client.answers} requests failed", client.failures[:3], [])
        equal(f"{what}: connections used: 1", client.connections, 1)
    lab.stop()


def goes_on(when, clients):
    goals = [client.answers + ANSWERS for client in clients]
    for client, goal in zip(clients, goals):
        if not until(lambda: client.answers >= goal):
            check(f"{client.name} goes on, {when}", False, f"{client.answers} answers, not {goal}")


def download(mode, site, directory):
    """A file that is half sent: the kernel's buffers hold a few of its 24 MB, the client takes the rest afterwards."""
    flags = ["--reload", mode, "--reload-probation", "0.2"]
    server = Server(directory / f"site-{mode}", "handover", site.directory, *flags)
    what = f"requests, a file half sent at a reload, {mode}"
    with requests.Session() as session:
        with contextlib.closing(session.get(f"{server.url}/big.bin", stream=True, timeout=30)) as answer:
            parts = answer.iter_content(1 << 16)
            content = next(parts)
            check(f"{what}: reload", server.reload(mode), server.log()[-400:])
            content += b"".join(parts)
        equal(f"{what}: right bytes", sha256(content), sha256(site.content["big.bin"]))
        equal(f"{what}: the next answer", session.get(f"{server.url}/small.txt", timeout=30).content,
              site.content["small.txt"])
        pools = session.get_adapter(server.url).poolmanager.pools
        equal(f"{what}: connections used: 1", [pools[key].num_connections for key in pools.keys()], [1])
    server.stop()


def checks(site, directory):
    for mode in ("exec", "overlap"):
        sessions(mode, directory)
        download(mode, site, directory)
