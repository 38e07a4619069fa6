"""`-l '[fe80::1%eth0]:80'` was malformed, so that a device without a router could not be served on its one address.

RFC 4007 §11.2: a zone behind the address, here an interface by name or number. Also from the configuration file, and a
second one of the same address in another zone.
"""

import socket

import harness

harness.need("ip")
harness.unshare(harness.NEW_NET)
for name in ("lo", "first", "second"):
    if name != "lo":
        harness.run("ip", "tuntap", "add", "dev", name, "mode", "tun")
    harness.run("ip", "link", "set", name, "up")
    harness.run("ip", "address", "add", "fe80::1234/64", "dev", name, "nodad")
one, two = map(socket.if_nametoindex, ("first", "second"))

file = harness.directory() / "handover.toml"
file.write_text(f'listen = ["[fe80::1234%{two}]:8081"]\n')
served = {}
for listen, flags, zones in [
    (["[fe80::1234%first]:8080"], [], [one]),
    ([f"[fe80::1234%{one}]:8080"], [], [one]),
    (["[fe80::1234%first]:8080", "[fe80::1234%second]:8080"], [], [one, two]),
    ([], ["--config", file], [two]),
]:
    server = harness.Server(*flags, listen=listen)
    answers = []
    for zone, port in zip(zones, server.ports):
        if f"listening on http://[fe80::1234%{zone}]:{port}\n" not in server.out():
            harness.verdict(False, f"{listen} says {server.out()!r}")
        with socket.socket(socket.AF_INET6) as client:
            client.connect(("fe80::1234", port, 0, zone))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answers.append(client.recv(15))
    served[" ".join(listen) or "the file"] = answers == [b"HTTP/1.1 200 OK"] * len(zones) and server.stop() == 0

server = harness.Server(listen=["[fe80::1234%third]:8080"], wait=False)
refused = server.ended() == 69 and server.log().count("\n") == 1 and 'has no interface "third"' in server.log()
harness.verdict(all(served.values()) and refused, f"{served}, an unknown one: {server.log().strip()}")
