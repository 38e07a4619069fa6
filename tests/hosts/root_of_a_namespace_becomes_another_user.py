"""Root of a user namespace, as in a container without a root of the host's, may become each user that is mapped: `user` was
refused there with "only root can".
"""

import ctypes
# What the standard library would look for later, where that user may not.
import encodings.idna
import os
import pathlib
import tempfile

import harness

harness.need("ip")
harness.need_root()
handover = harness.public("handover")
# For a user who is no root of this host's.
(room := harness.directory()).chmod(0o777)
tempfile.tempdir = str(room)
ready, mapped = os.pipe(), os.pipe()
libc = ctypes.CDLL(None, use_errno=True)


def within():
    """In a new namespace, as its root: a user of the host's that is nobody in particular."""
    if libc.unshare(harness.NEW_USER | harness.NEW_NET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    os.write(ready[1], b"x")
    os.read(mapped[0], 1)
    os.setgroups([0])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


child = os.fork()
if child == 0:
    # It maps who has left for another namespace, since nobody can do that from inside.
    os.close(ready[1])
    pid = int(os.read(ready[0], 1) and os.getppid())
    for kind in ("uid", "gid"):
        pathlib.Path(f"/proc/{pid}/{kind}_map").write_text("0 100000 65536")
    os.write(mapped[1], b"x")
    os._exit(0)
try:
    within()
except OSError as error:
    harness.cannot_be_tried(error)
os.waitpid(child, 0)
harness.run("ip", "link", "set", "lo", "up")
server = harness.Server("--user", "nobody", executable=handover, listen=["127.0.0.1:80"])
status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{server.pid}/status").read_text().splitlines())
if {*status["Uid"].split(), *status["Gid"].split()} != {"65534"} or int(status["CapPrm"], 16) != 0:
    harness.verdict(False, f"it is {status['Uid']} {status['Gid']} with {status['CapPrm']}")
answers = server.get("/").startswith(b"HTTP/1.1 200 ")
harness.verdict(answers and server.stop() == 0, f"nobody of the namespace serves on port 80: {server.log()[-300:]}")
