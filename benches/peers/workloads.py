"""What is asked of the servers: each workload, how it is checked, and the script that wrk runs it with."""

import dataclasses

from wire import Wire, Wrong, expect

HELLO = b"hello world"
FILES = {"11b": 11, "1k": 1 << 10, "10k": 10 << 10, "100k": 100 << 10, "1m": 1 << 20, "100m": 100 << 20}
PIPELINED = 16
BLOCK_MS = 20
MIX = {"rate": 2000, "connections": 64, "one_in": 100}


def content(name):
    """What the file holds: the constant answer, or a text that is the same nowhere within a page."""
    size = FILES[name]
    if name == "11b":
        return HELLO
    line = "".join(f"{number:06x}" for number in range(997)).encode()
    return (line * (size // len(line) + 1))[:size]


def echoed(size):
    return bytes(97 + number % 26 for number in range(26)) * (size // 26) + b"x" * (size % 26)


CLOSE = [("Connection", "close")]


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a check learned: the fields that wrk has to send, and whether the server says that it will close."""

    fields: list = dataclasses.field(default_factory=list)
    announced: bool = True


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    title: str
    kind: str
    """What a server must be able to do: constant, file, missing, unchanged, echo, close, pipeline or mix."""
    connections: int = 32
    size: str = ""

    def path(self):
        if self.kind in ("file", "unchanged"):
            return f"/{self.size}.txt"
        return {"missing": "/nowhere.txt", "echo": "/echo"}.get(self.kind, "/hello")

    def body(self):
        return echoed(FILES[self.size]) if self.kind == "echo" else b""

    def check(self, port, slow_path=None):
        """Raises `Wrong` where the answer is not what it should be."""
        with Wire(port) as wire:
            if self.kind == "file":
                wire.send("GET", self.path())
                expect(wire.answer(), 200, content(self.size))
            elif self.kind == "missing":
                wire.send("GET", self.path())
                expect(wire.answer(), 404)
            elif self.kind == "unchanged":
                return self.check_unchanged(wire)
            elif self.kind == "echo":
                wire.send("POST", self.path(), body=self.body())
                expect(wire.answer(), 200, self.body())
            elif self.kind == "close":
                wire.send("GET", self.path(), CLOSE)
                answer = wire.answer()
                expect(answer, 200, HELLO)
                if not wire.ended():
                    raise Wrong("keeps the connection open after `Connection: close`")
                announced = (answer.field("Connection") or "").lower() == "close"
                return Checked(CLOSE, announced)
            elif self.kind == "pipeline":
                self.check_pipeline(wire)
            else:
                wire.send("GET", self.path())
                expect(wire.answer(), 200, HELLO)
                if self.kind == "mix":
                    wire.send("GET", slow_path)
                    expect(wire.answer(), 200, b"blocked")
        return Checked()

    def check_unchanged(self, wire):
        wire.send("GET", self.path())
        answer = wire.answer()
        expect(answer, 200, content(self.size))
        if tag := answer.field("ETag"):
            fields = [("If-None-Match", tag)]
        elif date := answer.field("Last-Modified"):
            fields = [("If-Modified-Since", date)]
        else:
            raise Wrong("sends neither ETag nor Last-Modified")
        wire.send("GET", self.path(), fields)
        expect(wire.answer(), 304, b"")
        return Checked(fields)

    def check_pipeline(self, wire):
        wire.socket.settimeout(2.0)
        wire.send("GET", self.path(), times=PIPELINED)
        for number in range(PIPELINED):
            try:
                expect(wire.answer(), 200, HELLO)
            except Wrong as wrong:
                raise Wrong(f"answers {number} of {PIPELINED} pipelined requests: {wrong}") from None

    def expected_status(self):
        return {"missing": 404, "unchanged": 304}.get(self.kind, 200)

    def script(self, fields):
        """Lua for wrk. It says `request` only for pipelining, because then wrk calls it for every write."""
        lines = [f'wrk.headers["{name}"] = {lua(value)}' for name, value in fields]
        if self.kind == "echo":
            size = FILES[self.size]
            letters = "abcdefghijklmnopqrstuvwxyz"
            body = f'string.rep("{letters}", {size // 26}) .. string.rep("x", {size % 26})'
            lines += ['wrk.method = "POST"', f"wrk.body = {body}"]
        if self.kind == "pipeline":
            lines += [
                "init = function(args)",
                "  local all = {}",
                f"  for number = 1, {PIPELINED} do all[number] = wrk.format() end",
                "  pipelined = table.concat(all)",
                "end",
                "request = function() return pipelined end",
            ]
        return "\n".join(lines) + DONE


DONE = """
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("figures %d %d %d %d %d %d %d %d %d %d\\n", summary.requests, summary.duration,
    errors.connect, errors.read, errors.write, errors.timeout, errors.status,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""


def lua(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def parse_wrk(output, status=200, announced=True):
    """The line that the script above prints: requests a second, latencies in microseconds, errors.

    A server that closes without having said so is a failed read to wrk, after an answer that was whole.
    """
    for line in output.splitlines():
        if line.startswith("figures "):
            values = [int(value) for value in line.split()[1:]]
            requests, duration, *errors, p50, p99, p999 = values
            connect, read, write, timeout, statuses = errors
            broken = connect + write + timeout + (read if announced else max(0, read - requests))
            # wrk counts every status above 399 as an error, and nothing that is below.
            wrong = requests - statuses if status >= 400 else statuses
            rate = requests * 1e6 / duration if duration else 0.0
            return {"requests": requests, "rate": rate, "errors": broken + wrong, "p50": p50, "p99": p99, "p999": p999}
    raise Wrong("wrk printed no figures")


def _all():
    for connections in (1, 8, 32, 256, 1000):
        yield Workload(f"constant-c{connections}", f"Constant answer, {connections} connections", "constant", connections)
    for size, title in (("11b", "11 B"), ("1k", "1 KiB"), ("10k", "10 KiB")):
        for connections in (32, 256):
            name = f"file-{size}-c{connections}"
            yield Workload(name, f"File of {title}, {connections} connections", "file", connections, size)
    yield Workload("file-100k", "File of 100 KiB, 32 connections", "file", 32, "100k")
    yield Workload("file-1m", "File of 1 MiB, 32 connections", "file", 32, "1m")
    yield Workload("file-100m", "File of 100 MiB, 4 connections", "file", 4, "100m")
    yield Workload("missing", "404, 32 connections", "missing")
    yield Workload("unchanged", "304, 32 connections", "unchanged", size="1k")
    yield Workload("echo-1k", "POST of 1 KiB echoed, 32 connections", "echo", size="1k")
    yield Workload("echo-1m", "POST of 1 MiB echoed, 32 connections", "echo", size="1m")
    yield Workload("close", "A new connection for each request, 32 at a time", "close")
    yield Workload("pipeline", f"{PIPELINED} requests pipelined, 32 connections", "pipeline")
    title = f"One request in {MIX['one_in']} blocks its handler for {BLOCK_MS} ms: the others"
    yield Workload("mix", title, "mix", MIX["connections"])


WORKLOADS = {workload.name: workload for workload in _all()}
