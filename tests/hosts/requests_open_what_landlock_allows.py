"""Where Landlock is, requests open what is allowed and nothing else, with and without privileges; where the kernel has none, or a
sandbox refuses its calls, serving goes on and one line says so. What the server itself opens on those threads it can open."""

import errno
import os
import pathlib
import re
import signal
import socket

import harness

LINE = "requests can open no file but in "
WITHOUT = "requests can open what this process can, as there is no Landlock here: "
harness.need_root()
top = harness.directory()
top.chmod(0o755)
(top / "in" / "writable").mkdir(parents=True)
(top / "in" / "file").write_text("inside")
(top / "secret").write_text("secret")
(top / "in" / "out").symlink_to("../secret")
for path in (top / "in", top / "in" / "writable"):
    path.chmod(0o755)
lab = harness.public("examples/lab")
environment = {**os.environ, "LAB_CONFINED": str(top / "in")}


def opens(server, path):
    """Status and body."""
    with socket.create_connection(("127.0.0.1", server.port), harness.PATIENCE) as client:
        body = os.fsencode(path)
        client.sendall(b"POST /open HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        answer = b""
        while some := client.recv(65536):
            answer += some
    head, _, body = answer.partition(b"\r\n\r\n")
    return head[9:12].decode(), body.decode()


def figures(server):
    """What the server says of its process, read from /proc on a worker."""
    with socket.create_connection(("127.0.0.1", server.port), harness.PATIENCE) as client:
        client.sendall(b"GET /-/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while some := client.recv(65536):
            answer += some
    return b"process_open_fds" in answer


def trial(confined, prefix=(), **options):
    """What went wrong with a server through reloads in both modes, or nothing."""
    wrong = []
    for mode in ("exec", "overlap"):
        server = harness.Server("--reload", mode, "--reload-probation", "0.1", executable=lab, prefix=prefix,
                                env=environment, **options)
        for generation in (1, 2, 3):
            if generation > 1:
                before = server.pid
                server.signal(signal.SIGHUP)
                server.ready(generation)
                if mode == "overlap":
                    harness.until(lambda: not harness.alive(before))
            denied = ("403", "Permission denied (os error 13)\n")
            seen = {path: opens(server, path) for path in (top / "in/file", top / "secret", top / "in/out", "/etc/hostname")}
            expected = [("200", "inside")] + [denied if confined else ("200", "secret")] * 2
            if list(seen.values())[:3] != expected or (confined and seen["/etc/hostname"] != denied):
                wrong.append(f"{mode} {generation}: {seen}")
            if not figures(server):
                wrong.append(f"{mode} {generation}: no figures of the process")
        last = server.pid
        server.signal(signal.SIGTERM)
        harness.until(lambda: not harness.alive(last))
        log = server.log()
        lines = len(re.findall(re.escape(LINE), log)), len(re.findall(re.escape(WITHOUT), log))
        if lines != ((3, 0) if confined else (0, 3)) or " ERROR " in log or "stopped: " not in log:
            wrong.append(f"{mode}: {lines} {log[-800:]}")
    return wrong


wrong = [*trial(True), *trial(True, prefix=harness.NOBODY)]
tried = 2
for calls in (["landlock_create_ruleset"], ["landlock_add_rule"], ["landlock_restrict_self"],
              ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"]):
    for error in ("ENOSYS", "EOPNOTSUPP", "EPERM"):
        tried += 1
        wrong += [f"{calls} {error}: {what}" for what in trial(False, preexec_fn=harness.refusing(calls, getattr(errno, error)))]
# What these threads open only where something else is refused: random numbers, and files for what moves.
for calls in (["getrandom"], ["memfd_create"]):
    tried += 1
    wrong += [f"{calls}: {what}" for what in trial(True, preexec_fn=harness.refusing(calls, errno.ENOSYS))]
harness.verdict(not wrong, f"{tried} surroundings; {wrong[:3] or 'each serves, and opens what it may'}")
