"""`0.0.0.0:80` and `[::]:80` stand beside each other, whatever net.ipv6.bindv6only says, and each serves its family."""

import pathlib
import socket

import harness

harness.need("ip")
harness.unshare(harness.NEW_NET | harness.NEW_MOUNT)
harness.run("ip", "link", "set", "lo", "up")
# The settings of this namespace are seen through a /proc that was mounted in it.
harness.run("mount", "-t", "proc", "proc", "/proc")
served = []
for only in ("0", "1"):
    pathlib.Path("/proc/sys/net/ipv6/bindv6only").write_text(only)
    server = harness.Server(listen=["0.0.0.0:80", "[::]:80"])
    for host in ("127.0.0.1", "::1"):
        answer = server.get("/", host=host)
        served.append(answer.split(b"\r\n")[0])
    served.append(server.stop())
harness.verdict(served == [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", 0] * 2, served)
