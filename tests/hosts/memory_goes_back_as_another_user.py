"""A process that has become another user may not read its part of /proc: nothing of the program went back at rest until the
first reload by exec. Now it does from the start, and the descriptor by which it does shows no place in the host's memory.
"""

import pathlib
import re
import struct

import harness

harness.need_root()
handover = harness.public("handover")


def resident(pid):
    return int(re.search(r"RssFile:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


# It rests after a second.
at_rest = lambda server, start: harness.until(lambda: resident(server.pid) < start * 3 // 4, patience=10)
for flags in ((), ("--user", "nobody")):
    server = harness.Server(*flags, executable=handover)
    start = resident(server.pid)
    if not at_rest(server, start):
        harness.verdict(False, f"{flags}: {start} KiB of files at the start, {resident(server.pid)} KiB at rest")
    rest = resident(server.pid)
    if server.stop() != 0:
        harness.verdict(False, f"it does not stop: {server.log()[-300:]}")
harness.verdict(True, f"as nobody {start} KiB of files at the start, {rest} KiB at rest")
