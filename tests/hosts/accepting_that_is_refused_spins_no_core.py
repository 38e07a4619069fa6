"""A sandbox that refuses accept4(2) for good made the acceptor ask again at once and for ever, without a word.

Whatever it says: one line at the time, and no core. Where only accept4 is unknown, accept(2) does it.
"""

import errno
import os
import pathlib
import re
import socket
import time

import harness

TICKS = os.sysconf("SC_CLK_TCK")


def processor(pid):
    """Seconds of it that were used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


wrong = []
for calls, error in [
    *((("accept4", "accept"), error) for error in ("EPERM", "ENOSYS", "EINVAL", "EBADF", "ECONNABORTED", "EACCES")),
    (("accept4",), "EPERM"),
    (("accept4",), "ENOSYS"),
]:
    server = harness.Server("--stop-deadline", "1", preexec_fn=harness.refusing(calls, getattr(errno, error)))
    if calls == ("accept4",):
        if not server.get("/").startswith(b"HTTP/1.1 200 ") or server.stop() != 0:
            wrong.append(f"{error} for accept4 alone: {server.log()[-300:]}")
        continue
    with socket.create_connection(("127.0.0.1", server.port)):
        told = harness.until(lambda: "cannot accept on http://127.0.0.1:" in server.log(), 5)
        before, began = processor(server.pid), time.monotonic()
        # How busy it is, not how fast: a share of the time that passes.
        time.sleep(1)
        share = (processor(server.pid) - before) / (time.monotonic() - began)
        said = len(re.findall("cannot accept", server.log()))
        if not told or said != 1 or share > 0.2:
            wrong.append(f"{error}: {share:.0%} of a core, said {said} times: {server.log()[-300:]}")
    if server.stop() is None:
        wrong.append(f"{error}: it does not stop")
harness.verdict(not wrong, wrong or "quiet, and said once, with six errors; accept(2) where accept4(2) is unknown")
