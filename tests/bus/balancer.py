"""The file of contrib/haproxy/ by itself: what its comments claim, with real HAProxy and hosts that need no bus."""

import http.client
import os
import signal
import socket
import subprocess
import time

from harness import check, equal, until
from stack import HAPROXY, NAMES, HaProxy, Host

SESSIONS = 30
LOCAL = '[[push]]\nprefix = "/local"\npublish = "local"\n'


def ask(port, path, method="GET", body=None):
    """The status and the body, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body=body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


class Stream:
    """One event stream, whose end is looked for."""

    def __init__(self, port, path):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode())
        self.heard = b""
        while b"\nid: " not in self.heard:
            self.heard += self.socket.recv(65536)
        self.socket.setblocking(False)
        self.over = False

    def look(self):
        """Whether it is still open."""
        try:
            while not self.over:
                piece = self.socket.recv(65536)
                self.heard += piece
                # HAProxy keeps the connection for the next request.
                self.over = not piece or self.heard.endswith(b"\r\n0\r\n\r\n")
        except BlockingIOError:
            pass
        return not self.over


class Session:
    """A session of SockJS by polls, each request on a connection of its own."""

    def __init__(self, port, number):
        self.port, self.path, self.said = port, f"/sockjs/echo/000/s{number:03}-{os.getpid()}", 0

    def open(self):
        return ask(self.port, f"{self.path}/xhr", "POST") == (200, "o\n")

    def echo(self):
        self.said += 1
        sent = ask(self.port, f"{self.path}/xhr_send", "POST", f'["m{self.said}"]')
        return sent[0] == 204 and ask(self.port, f"{self.path}/xhr", "POST") == (200, f'a["m{self.said}"]\n')


def stop(proxy, hosts):
    if proxy:
        proxy.stop()
    for host in hosts:
        os.kill(host.pid(), signal.SIGKILL)


def is_valid():
    said = subprocess.run(["haproxy", "-c", "-f", HAPROXY], capture_output=True, text=True)
    check("haproxy -c has nothing to say of contrib/haproxy/haproxy.cfg", said.returncode == 0 and "WARNING" not in said.stderr, said.stderr)


def sticky_sessions(directory):
    hosts = [Host(directory / f"lab-{name}", None, program="examples/lab") for name in NAMES]
    proxy = None
    try:
        # Without them it has to go wrong, or the check says nothing.
        proxy = HaProxy(directory / "not-sticky", hosts, lambda text: text.replace("    stick on path,field(-2,/)\n", ""))
        proxy.all_up()
        sessions = [Session(proxy.port, number) for number in range(SESSIONS)]
        right = sum(session.open() and session.echo() for session in sessions)
        check("balancer: without `stick on` sessions of SockJS are lost between hosts", right < SESSIONS // 2, f"{right} of {SESSIONS} were right")
        proxy.stop()

        proxy = HaProxy(directory / "sticky", hosts)
        proxy.all_up()
        sessions = [Session(proxy.port, SESSIONS + number) for number in range(SESSIONS)]
        equal("balancer: each session of SockJS is opened", sum(session.open() for session in sessions), SESSIONS)
        for turn in range(3):
            equal(f"balancer: each comes back to its host, {turn + 1}", sum(session.echo() for session in sessions), SESSIONS)
        rows = {row["svname"]: int(row["stot"]) for row in proxy.table() if row["pxname"] == "sockjs"}
        check("balancer: the sessions are on all hosts", all(rows[name] > SESSIONS for name in NAMES), rows)

        lame = hosts[0]
        os.kill(lame.pid(), signal.SIGTERM)
        seen = until(lambda: proxy.state("sockjs")["a"] == "NOLB")
        check("balancer: a lame duck takes no new session", seen, proxy.state("sockjs"))
        before = int(next(row["stot"] for row in proxy.table() if (row["pxname"], row["svname"]) == ("sockjs", "a")))
        new = Session(proxy.port, 1000)
        right = new.open() and new.echo()
        after = int(next(row["stot"] for row in proxy.table() if (row["pxname"], row["svname"]) == ("sockjs", "a")))
        equal("balancer: a new session is opened elsewhere", (right, after - before), (True, 0))
        echoes = sum(session.echo() for session in sessions)
        equal("balancer: its own sessions go on as long as it serves", (echoes, proxy.state("sockjs")["a"]), (SESSIONS, "NOLB"))
    finally:
        stop(proxy, hosts)


def lame_ducks(directory):
    """One, then all: the last host that lives is asked also where it is not ready."""
    hosts = [Host(directory / f"duck-{name}", None) for name in NAMES]
    proxy = None
    try:
        proxy = HaProxy(directory / "ducks", hosts)
        proxy.all_up()
        streams = [Stream(proxy.port, "/events/x") for _ in range(9)]
        equal("balancer: each host has its third of the streams", [proxy.sessions()[name] for name in NAMES], [3, 3, 3])
        for host in hosts:
            os.kill(host.pid(), signal.SIGTERM)
        ducks = until(lambda: all(proxy.state()[name] == "NOLB" for name in NAMES))
        check("balancer: all are lame ducks", ducks, proxy.state())
        equal("balancer: a host that lives is asked where none is ready", ask(proxy.port, "/")[0], 200)
        check("balancer: and the streams are still there", all(stream.look() for stream in streams), proxy.state())
        ended = until(lambda: not any(stream.look() for stream in streams))
        check("balancer: they end with the hosts, behind a whole event and the last chunk", ended and all(
            stream.heard.endswith(b"\n\n\r\n0\r\n\r\n") and stream.heard.count(b"retry: ") == 2 for stream in streams
        ), [stream.heard[-60:] for stream in streams[:2]])
        equal("balancer: without any host the answer is 503", ask(proxy.port, "/")[0], 503)
    finally:
        stop(proxy, [host for host in hosts if host.pid_path.exists()])


def time_outs(directory):
    """A stream lives longer than `timeout client` and `timeout server` because it says something in between."""
    short = 2

    def shorter(text):
        for name in ("client", "server", "tunnel"):
            if f"    timeout {name} 60s\n" not in text:
                raise RuntimeError(f"there is no timeout {name}")
            text = text.replace(f"    timeout {name} 60s\n", f"    timeout {name} {short}s\n")
        return text

    hosts = [Host(directory / f"beat-{beat}", None, heartbeat=beat) for beat in (1, 0)]
    proxies = []
    try:
        proxies = [HaProxy(directory / f"time-out-{number}", [host], shorter) for number, host in enumerate(hosts)]
        for proxy in proxies:
            proxy.all_up()
        streams = [Stream(proxy.port, "/events/x") for proxy in proxies]
        begun = time.monotonic()
        cut = until(lambda: not streams[1].look(), 3 * short)
        check("balancer: a stream without heartbeats is cut", cut and not streams[1].heard.endswith(b"0\r\n\r\n"), streams[1].heard[-60:])
        # Until three times of it are over, by which it would have been.
        until(lambda: time.monotonic() - begun > 3 * short or not streams[0].look(), 4 * short)
        check("balancer: one with heartbeats is not", streams[0].look(), streams[0].heard[-60:])
    finally:
        for proxy in proxies:
            proxy.stop()
        stop(None, hosts)


def who_is_local(directory):
    """HAProxy stands on the host itself, and its clients are not of this host all the same."""
    host = Host(directory / "local", None, LOCAL, push=False)
    proxy = None
    try:
        proxy = HaProxy(directory / "local-proxy", [host])
        proxy.all_up()
        equal("balancer: this host publishes", ask(host.port, "/local/x", "POST", "1")[0], 200)
        equal("balancer: who comes through HAProxy is not \"local\"", ask(proxy.port, "/local/x", "POST", "1")[0], 403)
    finally:
        stop(proxy, [host])


def checks(directory):
    is_valid()
    sticky_sessions(directory)
    lame_ducks(directory)
    time_outs(directory)
    who_is_local(directory)
