#!/usr/bin/env python3
"""What time says of names and passwords, and what a password costs that is known.

For each kind of hash a file of users: a name that is not there and a wrong password, asked for in turn, each with a
password of its own, so that nothing is remembered. Then a small answer on one keep-alive connection: from a route for
everybody, and from one whose user is remembered.   just bench-passwords [PAIRS]
"""

import base64
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from common import TARGET, Server, connect

PAIRS = int(sys.argv[1]) if len(sys.argv) > 1 else 100
REQUESTS = 20_000


def made_by(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().split(":", 1)[-1]


def ours(directory, cost):
    file = directory / f"cost{cost}"
    command = [TARGET / "handover", "passwd", "--cost", str(cost), file, "ada"]
    subprocess.run(command, check=True, input="correct horse", text=True, capture_output=True)
    return file.read_text().strip().split(":", 1)[1]


def ask(connection, path, user=None, password=None):
    """The status of one request, and the time that it took."""
    field = ""
    if user is not None:
        field = "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() + "\r\n"
    head = f"GET {path} HTTP/1.1\r\nHost: bench\r\n{field}\r\n".encode()
    began = time.perf_counter()
    connection.sendall(head)
    data = b""
    # What is answered here ends in a line.
    while b"\r\n\r\n" not in data or not data.endswith(b"\n") or data.endswith(b"\r\n"):
        data += connection.recv(65536)
    return data[9:12], time.perf_counter() - began


def serve(directory, name, users):
    (directory / "users").write_text(users)
    config = directory / "handover.toml"
    config.write_text(
        "[[route]]\nprefix = '/open'\nbody = \"small\\n\"\n[[route]]\nprefix = '/private'\nbody = \"small\\n\"\n"
        "auth = { realm = 'bench', file = 'users' }\n"
    )
    return Server("handover", "-c", config, env={"RUST_LOG": "error"})


def pairs(server, known, unknown):
    connection = connect(server.port)
    times = {known: [], unknown: []}
    for number in range(PAIRS):
        for user in (known, unknown) if number % 2 else (unknown, known):
            status, took = ask(connection, "/private", user, f"wrong {number}")
            assert status == b"401", status
            times[user].append(took * 1000)
    medians = [statistics.median(times[user]) for user in (known, unknown)]
    quartiles = [statistics.quantiles(times[user], n=4) for user in (known, unknown)]
    spread = ", ".join(f"{low:.3f} to {high:.3f}" for low, _, high in quartiles)
    return f"{medians[0]:.3f} ms, unknown user {medians[1]:.3f} ms, ratio {medians[1] / medians[0]:.4f} (quartiles {spread})"


def main():
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        kinds = {f"bcrypt, cost {cost}": ours(directory, cost) for cost in (5, 8, 10)}
        for method in ("sha256crypt", "sha512crypt"):
            kinds[f"{method}, 5000 rounds"] = made_by("mkpasswd", "-m", method, "correct horse")
        for kind, hashed in kinds.items():
            server = serve(directory, name, f"ada:{hashed}\n")
            print(f"{kind}: wrong password {pairs(server, 'ada', 'eve')}", flush=True)
            server.stop()
        # One whose hash costs less than the highest in the file.
        mixed = f"ada:{kinds['sha512crypt, 5000 rounds']}\nbob:{kinds['bcrypt, cost 8']}\n"
        server = serve(directory, name, mixed)
        print(f"sha512crypt beside bcrypt of cost 8: wrong password {pairs(server, 'ada', 'eve')}", flush=True)
        connection = connect(server.port)
        known = ("/private", "ada", "correct horse")
        assert ask(connection, *known)[0] == b"200"
        # In turn, in pieces: what else the machine does is in both.
        times = {"open": [], "known": []}
        for _ in range(20):
            for which, question in (("open", ("/open",)), ("known", known)):
                times[which] += [ask(connection, *question)[1] for _ in range(REQUESTS // 20)]
        everybody, remembered = (statistics.median(times[which]) * 1e6 for which in ("open", "known"))
        print(f"a small answer: for everybody {everybody:.1f} us, for a user who is remembered {remembered:.1f} us, "
              f"{remembered - everybody:+.1f} us, with what the client does for its field")
        server.stop()


main()
