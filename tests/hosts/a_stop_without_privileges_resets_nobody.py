"""A socket filter wants CAP_NET_ADMIN on newer kernels; without one, clients that connected during a stop were reset.

Twenty stops over loopback under 32 clients that connect, as nobody and with no capability at all: on one address and on
all of them, on a port that it could not bind any more, and as a successor, which has its sockets from its predecessor.
"""

import os
import signal

import harness

harness.need("ip", "setpriv")
harness.unshare(harness.NEW_NET)
harness.run("ip", "link", "set", "lo", "up")
lab = harness.public("examples/lab")

# Address, where clients connect, the mode of a reload before the stop, and the newest state that both know.
KINDS = [
    ("127.0.0.1:0", "127.0.0.1", None, ""),
    ("0.0.0.0:80", "127.0.0.1", None, ""),
    ("[::1]:0", "::1", None, ""),
    ("[::]:80", "::1", None, ""),
    ("0.0.0.0:80", "127.0.0.1", "exec", ""),
    ("0.0.0.0:80", "127.0.0.1", "overlap", ""),
    # One of a version that had no spare socket: then it is bound at the stop, where that is allowed.
    ("0.0.0.0:8080", "127.0.0.1", "exec", "1"),
]
ROUNDS = int(os.environ.get("HANDOVER_STOPS", 21))

lost, served, wrong = [], 0, []
for number in range(ROUNDS):
    address, host, reload, newest = KINDS[number % len(KINDS)]
    flags = ["--reload", reload, "--reload-probation", "0.1"] if reload else []
    environment = {**os.environ, "HANDOVER_TEST_NEWEST": newest} if newest else None
    harness.sysctl("net/ipv4/ip_unprivileged_port_start", 0)
    server = harness.Server(*flags, executable=lab, listen=[address], prefix=harness.NOBODY, env=environment)
    # As if it had given up the privilege to bind it.
    harness.sysctl("net/ipv4/ip_unprivileged_port_start", 1024)
    if has := harness.capabilities(server.pid):
        harness.verdict(False, f"it was to have no capability, and has {has}")
    if reload:
        server.signal(signal.SIGHUP)
        server.ready(generation=2)
        if reload == "overlap":
            # It is the sole holder when its predecessor has ended.
            server.ended()
    load = harness.Load(host, server.port)
    load.has_served(300)
    server.signal(signal.SIGTERM)
    load.ended()
    harness.until(lambda: not harness.alive(server.pid))
    lost += [f"{address} {reload}: {one}" for one in load.lost]
    served += load.served
    if "may be reset" in server.log() or "cut=0" not in server.log().splitlines()[-1]:
        wrong.append(server.log()[-300:])
harness.verdict(not lost and not wrong, f"{ROUNDS} stops: {served} served, {len(lost)} lost {lost[:3]} {wrong[:2]}")
