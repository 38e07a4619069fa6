"""One answer read byte for byte, and what each workload expects of it."""

import re
import socket


class Wrong(Exception):
    """An answer that is not the one asked for, and in a few words why."""


class Answer:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    def field(self, name):
        return self.fields.get(name.lower())


class Wire:
    """A connection that reads whole answers, however they are framed."""

    def __init__(self, port, timeout=10.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, method, path, fields=(), body=b"", times=1):
        head = [f"{method} {path} HTTP/1.1", "Host: bench", *(f"{name}: {value}" for name, value in fields)]
        if body:
            head.append(f"Content-Length: {len(body)}")
        self.socket.sendall(("\r\n".join(head) + "\r\n\r\n").encode() * times + body)

    def more(self):
        try:
            piece = self.socket.recv(1 << 20)
        except TimeoutError:
            raise Wrong(f"silent for {self.socket.gettimeout():.0f} s") from None
        if not piece:
            raise Wrong("the connection ended before the answer did")
        self.data += piece

    def until(self, mark):
        while mark not in self.data:
            self.more()
        taken, _, rest = bytes(self.data).partition(mark)
        self.data = bytearray(rest)
        return taken

    def take(self, length):
        while len(self.data) < length:
            self.more()
        taken = bytes(self.data[:length])
        del self.data[:length]
        return taken

    def answer(self):
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        found = re.match(r"HTTP/1\.[01] (\d{3})", lines[0])
        if not found:
            raise Wrong(f"no status line: {lines[0]!r}")
        status = int(found[1])
        pairs = (line.partition(":") for line in lines[1:])
        fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if status in (204, 304):
            body = b""
        elif fields.get("transfer-encoding", "").lower() == "chunked":
            body = self.chunks()
        elif "content-length" in fields:
            body = self.take(int(fields["content-length"]))
        else:
            raise Wrong("an answer without a length")
        return Answer(status, fields, body)

    def chunks(self):
        body = bytearray()
        while size := int(self.until(b"\r\n").split(b";")[0], 16):
            body += self.take(size)
            if self.take(2) != b"\r\n":
                raise Wrong("a chunk longer than it says")
        while self.until(b"\r\n"):
            pass
        return bytes(body)

    def ended(self):
        """Whether the server closes, now that it has answered."""
        self.socket.settimeout(2.0)
        try:
            return not self.data and self.socket.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionResetError:
            return True


def expect(answer, status, body=None):
    if answer.status != status:
        raise Wrong(f"status {answer.status} instead of {status}")
    if body is not None and answer.body != body:
        raise Wrong(f"a body of {len(answer.body)} bytes that is not the {len(body)} expected")
