"""Debian's redis-server in a directory of its own, and as much of its protocol as is needed to ask it something."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

from harness import free_port, until


class RedisError(Exception):
    """What it has said behind a minus."""


class Connection:
    def __init__(self, port, timeout=5.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.file = self.socket.makefile("rb")

    def ask(self, *words):
        parts = [str(word).encode() if not isinstance(word, bytes) else word for word in words]
        frame = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self.socket.sendall(frame)
        return self._answer()

    def _answer(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("redis closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == b"-1":
                return None
            return self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self._answer() for _ in range(int(rest))]
        raise ConnectionError(f"redis said {line!r}")

    def close(self):
        self.file.close()
        self.socket.close()


class Redis:
    """Without `save` points: what is on its disk is what `persistent` or a test has it write."""

    def __init__(self, directory, *flags, persistent=False, port=None, environment=None, password=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir()
        self.port = port or free_port()
        self.environment = {**os.environ, **(environment or {})}
        self.password = password
        self.flags = ["--appendonly", "yes" if persistent else "no", "--appendfsync", "always", *map(str, flags)]
        self.start()

    def start(self, wait=True):
        command = ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--dir", self.directory, "--save", ""]
        command += ["--logfile", self.directory / "log", *self.flags]
        self.child = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, env=self.environment)
        if wait and not until(self.answers):
            raise RuntimeError(f"redis-server did not start: {self.log()[-400:]}")

    def log(self):
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def answers(self):
        with contextlib.suppress(OSError, RedisError):
            return self.ask("PING") == "PONG"
        return False

    def ask(self, *words):
        connection = Connection(self.port)
        try:
            if self.password:
                connection.ask("AUTH", self.password)
            return connection.ask(*words)
        finally:
            connection.close()

    def kill(self):
        """The end that it cannot prepare for; also at the end of a test, since TERM is refused while it writes its first file."""
        self.child.kill()
        self.child.wait()

    def is_written(self):
        """A file begins anew in the background after a replica has got all."""
        told = self.ask("INFO", "persistence").decode()
        return "aof_rewrite_in_progress:0" in told and "aof_rewrite_scheduled:0" in told

    @contextlib.contextmanager
    def frozen(self):
        """Its connections stay open and nothing is answered."""
        os.kill(self.child.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.child.pid, signal.SIGCONT)

    def keys(self):
        return sorted(key.decode() for key in self.ask("KEYS", "*"))


class Clock:
    """The wall clock of a Redis, which is moved while it runs: clock.c."""

    def __init__(self, directory):
        self.library, self.file = directory / "clock.so", directory / "clock"
        source = pathlib.Path(__file__).with_name("clock.c")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", source, "-o", self.library], check=True)
        self.file.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(self.library), "BUS_CLOCK": str(self.file)}

    def move(self, seconds):
        """Not a new file: the one that is there is in its memory."""
        with open(self.file, "r+b") as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


class Stranger:
    """Something that listens where a Redis should, and says what it is told to."""

    def __init__(self, says=b""):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.says, self.kept = self.listener.getsockname()[1], says, []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.kept.append(client)
                if self.says:
                    client.sendall(self.says)

    def close(self):
        # Wakes the thread that accepts.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for client in self.kept:
            client.close()
