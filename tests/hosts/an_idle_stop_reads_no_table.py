"""An idle server took up to 0.65 s to stop: it read /proc/net/tcp, which is every socket on the host as text.

It asks by sock_diag(7), which lists handshakes alone; where that is refused, it still reads the table. And between the
signal and the end it waits for nothing but the time in which a SYN that was being handled settles.
"""

import errno
import re
import socket

import harness

harness.need("strace", "ip")
harness.unshare(harness.NEW_NET)
harness.run("ip", "link", "set", "lo", "up")


def stop(**options):
    """What the system calls between TERM and the end were."""
    trace = harness.directory() / "trace"
    server = harness.Server(prefix=["strace", "-f", "-qq", "-o", trace], **options)
    if server.stop() != 0:
        harness.verdict(False, f"it did not end well: {server.log()}")
    _, signal, stopping = trace.read_text().partition("--- SIGTERM")
    return stopping if signal else harness.verdict(False, "no signal in the trace")


asked = stop()
# From where new handshakes are refused.
waits = re.findall(r"epoll_wait.*, 256, (\d+)\) *=", asked.partition("setsockopt(")[2])
tables = [call for call in asked.splitlines() if "/proc/net/tcp" in call]
refused = stop(preexec_fn=harness.refusing(["socket"], errno.EAFNOSUPPORT, (0, socket.AF_NETLINK)))
evidence = f"waits {waits} ms, tables read: {len(tables)}; where sock_diag is refused: {'/proc/net/tcp' in refused}"
short = 0 < sum(map(int, waits)) <= 20
harness.verdict(short and not tables and "NETLINK" in asked and "/proc/net/tcp" in refused, evidence)
