"""Twenty stops, as nobody and without a capability, under 32 clients that connect with round trips of 50 ms.

A handshake takes as long as a round trip here, so that some are under way at every stop: they have to end, and who has
connected by then has to be served. A client next to us may send with the highest TTL there is. Where the kernel knows no
signatures (TCP_MD5SIG), as in every third stop, one that does not has to be held off by that, also without a loopback
interface.
"""

import errno
import os

import harness

harness.need("ip", "setpriv")
lab = harness.public("examples/lab")
way = harness.LongWay(0.025)
TCP_MD5SIG_EXT = 32
UNSIGNED = harness.refusing(["setsockopt"], errno.ENOPROTOOPT, (2, TCP_MD5SIG_EXT))
KINDS = [
    ("0.0.0.0:8080", 0, 64, None, "up"),
    ("[fd77::1]:8080", 1, 255, None, "down"),
    ("0.0.0.0:8080", 0, 64, UNSIGNED, "up"),
    ("[::]:8080", 1, 64, None, "up"),
    ("10.77.0.1:8080", 0, 255, None, "down"),
    ("[::]:8080", 1, 64, UNSIGNED, "down"),
]
ROUNDS = int(os.environ.get("HANDOVER_STOPS", 20))

lost, served, wrong = [], 0, []
for number in range(ROUNDS):
    address, family, ttl, sandbox, loopback = KINDS[number % len(KINDS)]
    with harness.network(way.near):
        harness.sysctl("net/ipv4/ip_default_ttl", ttl)
        harness.sysctl("net/ipv6/conf/all/hop_limit", ttl)
        harness.sysctl("net/ipv6/conf/way/hop_limit", ttl)
    with harness.network(way.far):
        harness.run("ip", "link", "set", "lo", loopback)
        server = harness.Server(executable=lab, listen=[address], prefix=harness.NOBODY, preexec_fn=sandbox)
    load = harness.Load(way.FAR[family], server.port, within=lambda: harness.network(way.near))
    load.has_served(100)
    code = server.stop()
    load.ended()
    lost += [f"{address} {ttl}: {one}" for one in load.lost]
    served += load.served
    if code != 0 or "may be reset" in server.log() or "some may" in server.log():
        wrong.append(server.log()[-300:])
harness.verdict(not lost and not wrong, f"{ROUNDS} stops: {served} served, {len(lost)} lost {lost[:3]} {wrong[:2]}")
