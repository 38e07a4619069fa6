"""Passes a server's connections on, and notes each request that goes through: what a browser asks, it tells nobody."""

import contextlib
import re
import socket
import threading


class Recorder:
    def __init__(self, port):
        self.upstream = ("127.0.0.1", port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        # The method, the target, and the fields by their names in small letters.
        self.requests = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.pass_on, args=(client,), daemon=True).start()

    def pass_on(self, client):
        with client:
            try:
                server = socket.create_connection(self.upstream)
            except OSError:
                # As refused as it gets behind a listener.
                return
            with server:
                threading.Thread(target=pump, args=(server, client), daemon=True).start()
                self.note_and_pump(client, server)

    def note_and_pump(self, client, server):
        begun = b""
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                begun += data
                while head := re.match(rb"(\w+) (\S+) [^\r]*\r\n(.*?)\r\n\r\n", begun, re.DOTALL):
                    lines = [line.partition(":") for line in head[3].decode().split("\r\n")]
                    fields = {name.lower(): value.strip() for name, _, value in lines}
                    end = head.end() + int(fields.get("content-length", 0))
                    if len(begun) < end:
                        break
                    begun = begun[end:]
                    self.requests.append((head[1].decode(), head[2].decode(), fields))
                server.sendall(data)
        shut(server)

    def close(self):
        self.listener.close()


def pump(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    shut(target)


def shut(connection):
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
