"""What has to notice nothing of an upgrade: clients that keep their connection, and a subscriber beside a publisher.

Raw sockets, and no second try: whatever is not the whole answer, in order, on the first connection, is a loss.
"""

import re
import socket
import threading
import time

PATIENCE = 30


class Connection:
    """One connection, and answers by Content-Length on it."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.buffer = b""

    def read_until(self, mark):
        while mark not in self.buffer:
            some = self.socket.recv(65536)
            if not some:
                raise EOFError(f"closed behind {self.buffer[-80:]!r}")
            self.buffer += some
        before, self.buffer = self.buffer.split(mark, 1)
        return before

    def ask(self, method, path, body=b""):
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        self.socket.sendall(head.encode() + body)
        head = self.read_until(b"\r\n\r\n").decode()
        length = int(re.search(r"(?im)^content-length: (\d+)", head)[1])
        while len(self.buffer) < length:
            some = self.socket.recv(65536)
            if not some:
                raise EOFError(f"closed behind {len(self.buffer)} of {length} bytes")
            self.buffer += some
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        if not head.startswith("HTTP/1.1 2"):
            raise ValueError(head.splitlines()[0])
        if "connection: close" in head.lower():
            raise EOFError("the server closes")
        return body


class Clients:
    """`count` clients that ask for `path` again and again, and unless `topic` is None who publishes and who listens."""

    def __init__(self, port, count=8, path="/", topic="/events/count"):
        self.port, self.path, self.topic = port, path, topic
        self.answers, self.published, self.heard, self.last = 0, 0, 0, None
        self.lost, self.ended, self.counting = [], threading.Event(), threading.Lock()
        self.listening = threading.Event()
        work = [self.ask_on] * count + ([self.listen, self.publish] if topic else [])
        self.threads = [threading.Thread(target=self.guarded, args=(one,), daemon=True) for one in work]
        for thread in self.threads:
            thread.start()

    def guarded(self, work):
        try:
            work()
        except Exception as error:
            self.lost.append(f"{work.__name__}: {error!r}")

    def ask_on(self):
        connection = Connection(self.port)
        expected = connection.ask("GET", self.path)
        while not self.ended.is_set():
            if connection.ask("GET", self.path) != expected:
                raise ValueError("another body")
            with self.counting:
                self.answers += 1
            time.sleep(0.002)

    def publish(self):
        if not self.listening.wait(PATIENCE):
            raise TimeoutError("nobody listens")
        connection = Connection(self.port)
        while not self.ended.is_set():
            connection.ask("POST", self.topic, str(self.published + 1).encode())
            self.published += 1
            time.sleep(0.005)

    def listen(self):
        connection = Connection(self.port)
        connection.socket.sendall(f"GET {self.topic} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        connection.read_until(b"\r\n\r\n")
        self.listening.set()
        # Until the last one, which is not known before the others have ended; one that never comes is a time-out.
        while self.heard != self.last:
            for line in connection.read_until(b"\n").decode().splitlines():
                if "@gap" in line:
                    raise ValueError("a gap")
                if found := re.match(r"data: ?(\d+)", line):
                    if int(found[1]) != self.heard + 1:
                        raise ValueError(f"{found[1]} behind {self.heard}")
                    self.heard += 1

    def have_asked(self, more=200):
        """Waits until they were answered so often again, or somebody has lost something."""
        wanted, deadline = self.answers + more, time.monotonic() + PATIENCE
        while self.answers < wanted and not self.lost:
            if time.monotonic() > deadline:
                self.lost.append(f"no more than {self.answers} answers")
            time.sleep(0.01)

    def end(self):
        """Answers what was lost."""
        self.ended.set()
        if self.topic and not self.lost:
            self.threads[-1].join(PATIENCE)
            self.last = self.published + 1
            Connection(self.port).ask("POST", self.topic, str(self.last).encode())
            self.published += 1
        for thread in self.threads:
            thread.join(PATIENCE)
            if thread.is_alive():
                self.lost.append(f"a client does not end: {self.heard} heard of {self.published}")
                break
        return self.lost

    def __str__(self):
        listened = f", {self.heard} of {self.published} messages heard" if self.topic else ""
        return f"{self.answers} answers{listened}, {len(self.lost)} lost"
