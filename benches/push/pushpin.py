#!/usr/bin/env python3
"""Pushpin with the two programs that it needs, as one that ends when it is told to: pushpin.py PORT ORIGIN DIRECTORY.

Debian's Pushpin asks its origin through zurl; the origin is what a subscription costs an application: one request.
"""

import pathlib
import signal
import subprocess
import sys
import time

CONF = """[global]
include=/usr/lib/pushpin/internal.conf
rundir={own}
ipc_prefix=p-
port_offset=0
stats_connection_ttl=120
[runner]
services=condure,pushpin-proxy,pushpin-handler
http_port=127.0.0.1:{port}
logdir={own}
log_level=1
client_buffer_size=8192
client_maxconn=19000
condure_bin=condure
[proxy]
routesfile={own}/routes
zurl_out_specs=ipc://{own}/zurl-in
zurl_out_stream_specs=ipc://{own}/zurl-in-stream
zurl_in_specs=ipc://{own}/zurl-out
[handler]
push_in_spec=tcp://127.0.0.1:{first}
push_in_sub_specs=tcp://127.0.0.1:{second}
command_spec=tcp://127.0.0.1:{third}
push_in_http_addr=127.0.0.1
push_in_http_port={publish}
push_in_http_max_headers_size=10000
push_in_http_max_body_size=1000000
message_rate=100000000
message_hwm=1000000
message_wait=5000
connection_subscription_max=20
stats_report_interval=10
"""

ZURL = """[General]
in_spec=ipc://{own}/zurl-in
in_stream_spec=ipc://{own}/zurl-in-stream
out_spec=ipc://{own}/zurl-out
in_req_spec=ipc://{own}/zurl-req
defpolicy=allow
max_open_requests=2000
in_hwm=20000
out_hwm=20000
"""


def main():
    port, origin_program, own = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
    ports = dict(zip(("publish", "origin", "first", "second", "third"), range(port + 1, port + 6)))
    (own / "pushpin.conf").write_text(CONF.format(own=own, port=port, **ports))
    (own / "zurl.conf").write_text(ZURL.format(own=own))
    (own / "routes").write_text(f"* 127.0.0.1:{ports['origin']}\n")
    children = [
        subprocess.Popen(command)
        for command in (
            [origin_program, f"127.0.0.1:{ports['origin']}"],
            ["zurl", f"--config={own}/zurl.conf"],
            ["pushpin", f"--config={own}/pushpin.conf"],
        )
    ]

    def stop(*_):
        for child in children:
            child.terminate()

    signal.signal(signal.SIGTERM, stop)
    while all(child.poll() is None for child in children):
        time.sleep(0.2)
    stop()
    for child in children:
        child.wait()


if __name__ == "__main__":
    main()
