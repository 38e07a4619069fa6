"""`-l localhost:80` ended with 69 in a container where /etc/hosts names ::1 and no interface has it.

That address is left out, and said. Where none of them can be had it is an error, as is one that is in use.
"""

import harness

harness.need("ip", "mount")
harness.unshare(harness.NEW_NET | harness.NEW_MOUNT)
hosts = harness.directory() / "hosts"
hosts.write_text("::1 localhost ip6-localhost\n127.0.0.1 localhost\n192.0.2.1 elsewhere\n192.0.2.2 elsewhere\n")
harness.run("mount", "--bind", hosts, "/etc/hosts")
harness.run("ip", "link", "set", "lo", "up")
harness.run("ip", "address", "del", "::1/128", "dev", "lo")

said = []
for address in ("localhost:8080", "localhost:0"):
    server = harness.Server(listen=[address])
    served = server.get("/").startswith(b"HTTP/1.1 200 ")
    # A port of 0 takes one address that can be had.
    left_out = address.endswith(":0") or "not listening on [::1]:8080, which localhost:8080 stands for too" in server.log()
    if not served or not left_out or len(server.ports) != 1 or server.stop() != 0:
        harness.verdict(False, f"{address}: {server.out()} {server.log()}")
    said.append(server.out().splitlines()[0])

kept = harness.Server(listen=["127.0.0.1:8080"])
for address, why in [("elsewhere:8080", "192.0.2.1:8080: no interface of this host has that address"),
                     ("localhost:8080", "127.0.0.1:8080: address in use")]:
    server = harness.Server(listen=[address], wait=False)
    if server.ended() != 69 or why not in server.log() or server.log().count("\n") != 1:
        harness.verdict(False, f"{address}: {server.ended()} {server.log()}")
    said.append(server.log().strip())
harness.verdict(kept.stop() == 0, said)
