"""Started as root with `user`: it binds port 80 and its socket, becomes nobody with no way back, and goes through reloads.

In a network namespace, in each mode: under load, with a client that stays connected and one over the Unix socket; no thread
has anything of root's, the logs are opened anew, and the stop loses nothing and leaves nothing behind.
"""

import os
import pathlib
import re
import shutil
import signal
import socket

import harness

NOBODY = 65534
harness.need("ip")
harness.unshare(harness.NEW_NET)
harness.run("ip", "link", "set", "lo", "up")
lab = harness.public("examples/lab")


def ask(client, path):
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += client.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(re.search(rb"Content-Length: (\d+)", head)[1])
    while len(body) < length:
        body += client.recv(65536)
    return int(head.split()[1]), body


def of_root(pid):
    """What a thread of it still has of root's."""
    wrong = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        status = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
        ids = {*status["Uid"].split(), *status["Gid"].split(), *status["Groups"].split()}
        if ids != {str(NOBODY)} or any(int(status[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")):
            wrong.append((status["Name"].strip(), status["Uid"], status["Gid"], status["Groups"], status["CapEff"]))
    return wrong


for mode in ("exec", "overlap"):
    directory = harness.directory() / "run"
    directory.mkdir()
    os.chown(directory, NOBODY, NOBODY)
    names = {name: directory / name for name in ("socket", "pid", "log", "access")}
    server = harness.Server(
        "-l", f"unix:{names['socket']}", "--user", "nobody", "--pid-file", names["pid"], "--log-file", names["log"],
        "--access-log", names["access"], "--reload", mode, "--reload-probation", "0.1",
        executable=lab, listen=["0.0.0.0:80"],
    )
    log = lambda: names["log"].read_text()
    what = lambda: f"{mode}: {log()[-600:]}"
    said = "serving as user nobody (65534)" in log() and "0.0.0.0:80 is below port 1024" in log()
    if not said or "WARN" in log():
        harness.verdict(False, f"it says who it is, and warns of nothing: {what()}")
    if found := {name: path.stat().st_uid for name, path in names.items() if path.stat().st_uid != NOBODY}:
        harness.verdict(False, f"{mode}: these are not nobody's: {found}")
    stays = socket.create_connection(("127.0.0.1", 80), harness.PATIENCE)
    over = socket.socket(socket.AF_UNIX)
    over.connect(str(names["socket"]))
    load = harness.Load("127.0.0.1", 80, clients=8)
    for generation in range(2, 5):
        load.has_served(100 * generation)
        if wrong := of_root(server.pid):
            harness.verdict(False, f"{mode}, generation {generation - 1}: of root's are {wrong}")
        server.signal(signal.SIGHUP)
        server.ready(generation)
        for client in (stays, over):
            status, body = ask(client, "/pid")
            if status != 200:
                harness.verdict(False, f"{mode}: {status} {body}")
        harness.until(lambda: f'"pid":{server.pid},' in ask(stays, "/pid")[1].decode())
        # By overlap its predecessor is to have ended before the next reload.
        harness.until(lambda: int(names["pid"].read_text()) == server.pid)
    if wrong := of_root(server.pid):
        harness.verdict(False, f"{mode}, the last: of root's are {wrong}")
    for name in ("log", "access"):
        shutil.move(names[name], directory / f"{name}.1")
    server.signal(signal.SIGUSR1)
    if not harness.until(lambda: names["log"].exists() and "reopened" in log() and names["access"].exists()):
        harness.verdict(False, f"{mode}: USR1 opens nothing anew: {(directory / 'log.1').read_text()[-300:]}")
    server.signal(signal.SIGTERM)
    load.ended()
    harness.until(lambda: not os.path.exists(f"/proc/{server.pid}"))
    if load.lost or "cut=0" not in log().splitlines()[-1]:
        harness.verdict(False, f"{load.served} served, lost {load.lost[:3]}; {what()}")
    if left := [name for name in ("socket", "pid") if names[name].exists()]:
        harness.verdict(False, f"{mode}: {left} stay behind")
harness.verdict(True, "nobody on port 80 in both modes: three reloads each, nothing lost, nothing of root's left")
