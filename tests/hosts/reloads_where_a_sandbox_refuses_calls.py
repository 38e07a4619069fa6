"""A sandbox that is older than a call, or does not know it, takes no reload and no connection: the server starts, reloads in
both modes with a connection that stays, and stops with 0. Without memfd_create(2) an exec could not hand over its state,
and without prlimit64(2) nothing started.
"""

import errno
import signal
import socket

import harness

CALLS = ["memfd_create", "prlimit64", "sched_setscheduler", "close_range", "pidfd_open", "statx", "openat2", "faccessat2",
         "rseq", "getrandom", "sched_getaffinity", "madvise", "mincore", "execveat", "sendfile"]


def trial(call, error, mode):
    """What went wrong, or None."""
    site = harness.directory()
    (site / "a").write_bytes(b"a")
    arguments = ["--reload", mode, "--reload-probation", "0.1", site]
    server = harness.Server(*arguments, preexec_fn=harness.refusing([call], getattr(errno, error)))
    with socket.create_connection(("127.0.0.1", server.port), harness.PATIENCE) as client:
        for generation in (1, 2):
            if generation == 2:
                server.signal(signal.SIGHUP)
                server.ready(2)
            client.sendall(b"GET /a HTTP/1.1\r\nHost: test\r\n\r\n")
            answer = client.recv(4096)
            while answer and not answer.endswith(b"\r\n\r\na"):
                answer += (more := client.recv(4096))
                if not more:
                    break
            if not answer.startswith(b"HTTP/1.1 200 "):
                return f"generation {generation} answered {answer[:40]}"
    last = server.pid
    server.signal(signal.SIGTERM)
    code = server.ended()
    harness.until(lambda: not harness.alive(last))
    stopped = [line for line in server.log().splitlines() if "stopped: " in line]
    return None if code == 0 and stopped else f"exit code {code}: {server.log()[-300:]}"


wrong, tried = [], 0
for call in CALLS:
    for error in ("EPERM", "ENOSYS"):
        for mode in ("exec", "overlap"):
            tried += 1
            if (what := trial(call, error, mode)) is not None:
                wrong.append(f"{call} {error} {mode}: {what}")
harness.verdict(not wrong, f"{tried} sandboxes, wrong in {len(wrong)}: {wrong[:3]}")
