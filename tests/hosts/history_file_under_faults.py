"""A history file that cannot be read is said in a line, and the server starts without; one that cannot be written is said in
a line at the stop, the exit code is 1, and what stood there before is as it was, and can be read."""

import json
import os
import socket
import stat
import subprocess

import harness

harness.need("mount", "setpriv")
harness.unshare(harness.NEW_MOUNT)
NOBODY = 65534
configuration = harness.directory() / "push.toml"
configuration.write_text('[[push]]\nprefix = "/events"\npublish = "anyone"\nhistory = 1000\n')
program = harness.public("handover")
evidence = []
wrong = []


class Kept:
    """A directory, and the history file in it."""

    def __init__(self, mount=None):
        self.directory = harness.directory()
        if mount:
            harness.run("mount", "-t", "tmpfs", "-o", mount, "none", self.directory)
        self.file = self.directory / "history"
        self.beside = self.directory / "history.new"

    def server(self, prefix=()):
        arguments = ("-c", configuration, "--history-file", self.file)
        return harness.Server(*arguments, executable=program, prefix=prefix)


def ask(server, line, body=""):
    with socket.create_connection(("127.0.0.1", server.port), harness.PATIENCE) as client:
        fields = f"Host: test\r\nAccept: application/json\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        client.sendall(f"{line} HTTP/1.1\r\n{fields}\r\n{body}".encode())
        answer = b""
        while some := client.recv(65536):
            answer += some
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        harness.verdict(False, f"{line}: {answer!r}")
    return json.loads(body)


def publish(server, text):
    ask(server, "POST /events/a", text)


def kept(server):
    """What somebody hears who asks for all that there is."""
    messages = ask(server, "GET /events/a?since=start&wait=0")["messages"]
    return [message["data"] for message in messages if len(message["data"]) < 10]


def lines(server, words):
    return [line for line in server.log().splitlines() if words in line]


def expect(case, **held):
    """Each of them has to be true."""
    missing = [name for name, holds in held.items() if not holds]
    evidence.append(case)
    wrong.extend(f"{case}: not {name};" for name in missing)


def history(text):
    """The bytes of a history file, as a stop has written them."""
    place = Kept()
    server = place.server()
    publish(server, text)
    if server.stop() != 0:
        harness.verdict(False, f"a stop failed: {server.log()[-600:]}")
    return place.file.read_bytes()


def refused(case, place, server, older, why):
    """Stops it, and looks at what it says and leaves."""
    code = server.stop()
    said = lines(server, "cannot write history file")
    said = [line for line in said if not line.endswith("; a stop would lose what push keeps")]
    logged = [line for line in said if f'history file "{place.file}": {why}' in line and line.endswith("kept is lost")]
    last = server.log().splitlines()[-1]
    expect(
        case, exit_code_1=code == 1, one_line_in_the_log=len(logged) == 1,
        said_once=said == logged, and_then_the_last=" stopped: served=" in last,
        the_older_one_as_it_was=place.file.read_bytes() == older, nothing_left_beside=not place.beside.exists(),
    )


old = history("old")

# Unreadable at the start.
place = Kept()
place.file.write_bytes(old)
os.chmod(place.file, 0)
os.chown(place.directory, NOBODY, NOBODY)
server = place.server(harness.NOBODY)
said = lines(server, "history file")
nothing = kept(server) == []
publish(server, "new")
code = server.stop()
left = place.file.stat()
private = (left.st_uid, stat.S_IMODE(left.st_mode)) == (NOBODY, 0o600)
expect(
    "unreadable", one_line=len(said) == 1, in_words=said[0].endswith("this user may not read it; starting without"),
    started_without=nothing, exit_code_0=code == 0, written_anew=private,
)
server = place.server(harness.NOBODY)
expect("read again", what_was_new=kept(server) == ["new"], the_file_gone=not place.file.exists())

# The directory is closed by the time of the stop, beside an older file.
place.file.write_bytes(old)
os.chmod(place.directory, 0o555)
refused("closed directory", place, server, old, "Permission denied")

# It is closed at the start already. What was read is not told a second time, though the file cannot be removed.
os.chown(place.file, NOBODY, NOBODY)
server = place.server(harness.NOBODY)
warned = lines(server, "a stop would lose what push keeps")
expect("closed at the start", said=len(warned) == 1, read=kept(server) == ["old"])
refused("closed throughout", place, server, b"", "Permission denied")
server = place.server(harness.NOBODY)
expect("closed again", told_nothing_twice=kept(server) == [], no_more_said=len(lines(server, "history file")) == 1)
server.stop()

# A file system that has become read-only, as one does behind an error of its disk.
place = Kept("size=1m")
server = place.server()
publish(server, "new")
place.file.write_bytes(old)
harness.run("mount", "-o", "remount,ro", place.directory)
refused("read-only", place, server, old, "Read-only file system")

# A disk on which there is room for a part of it, for no byte of it, and for no name.
for case, options, room in (("half", "size=64k", 3), ("full", "size=64k", 0), ("no name", "size=1m,nr_inodes=3", None)):
    place = Kept(options)
    server = place.server()
    for _ in range(20):
        publish(server, "x" * 10_000)
    place.file.write_bytes(old)
    filler = place.directory / "filler"
    filler.touch()
    if room is not None:
        space = os.statvfs(place.directory)
        filler.write_bytes(bytes((space.f_bavail - room) * space.f_frsize))
    refused(case, place, server, old, "No space left on device")
    # What is there is good, once there is room again.
    filler.unlink()
    server = place.server()
    expect(f"{case}, and again", read=kept(server) == ["old"], exit_code_0=server.stop() == 0, written=place.file.exists())

# One that is damaged stays until there is another.
place = Kept("size=64k")
for damaged in (b"hdovhis2" + old[8:], old[: len(old) // 2], b"something else"):
    place.file.write_bytes(damaged)
    server = place.server()
    said = lines(server, "history file")
    one_line = len(said) == 1 and said[0].endswith("starting without")
    expect("damaged", one_line=one_line, stays=place.file.read_bytes() == damaged)
    for _ in range(20):
        publish(server, "x" * 10_000)
    refused("damaged on a full disk", place, server, damaged, "No space left on device")

# What a stop that was killed has left half written is in nobody's way.
place = Kept()
place.beside.write_bytes(old[:20])
server = place.server()
publish(server, "new")
expect("half written", exit_code_0=server.stop() == 0, gone=not place.beside.exists())
server = place.server()
expect("half written, and again", read=kept(server) == ["new"])

# It is nobody's file: it would be replaced by one.
null = harness.directory() / "null"
os.mknod(null, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
for check in ((), ("--check",)):
    command = (program, "-l", "127.0.0.1:0", "-c", configuration, "--history-file", null, *check)
    child = harness.start(*command, stderr=subprocess.PIPE, text=True)
    said = child.communicate(timeout=harness.PATIENCE)[1]
    expect(" ".join(["a device", *check]), exit_code_78=child.returncode == 78, in_words="it is not a regular file\n" in said)

harness.verdict(not wrong, " ".join(wrong) or f"as documented: {', '.join(dict.fromkeys(evidence))}")
