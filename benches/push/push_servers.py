"""The servers of push: how each is built, started, reloaded and spoken to."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

from common import ROOT, TARGET

HERE = pathlib.Path(__file__).resolve().parent
BUILT = ROOT / "target/push"
CLIENT = BUILT / "release/push-client"
WS = BUILT / "ws"
VENV = BUILT / "sockjs-tornado"
# Versions of what is not in a Cargo.lock.
WS_VERSION, SOCKJS_TORNADO, TORNADO = "8.23.0", "1.0.7", "6.6.1"
NCHAN = pathlib.Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
HEARTBEAT = 15


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    about: str
    command: callable
    """From (place, kind of workload, many) to the arguments; `many` is how many subscribers there will be."""
    speaks: dict
    """Flags of the client: where to subscribe and to publish, and in which format."""
    build: tuple = ()
    """What is built first: names of crates of this workspace, or functions that say why it cannot be had."""
    reloads: bool = False
    by_websocket: dict = dataclasses.field(default_factory=dict)
    """The same flags by the workload that asks for WebSockets."""
    cannot: dict = dataclasses.field(default_factory=dict)

    def flags(self, port, workload):
        speaks = {"format": "websocket", **self.by_websocket[workload.name]} if asks_for_websockets(workload) else self.speaks
        flags = {"address": f"127.0.0.1:{port}", **speaks}
        if flags.pop("publishes_beside", False):
            flags["publish-address"] = f"127.0.0.1:{port + 1}"
        return [part for name, value in flags.items() for part in (f"--{name}", value)]

    def takes_part(self, workload):
        return not asks_for_websockets(workload) or workload.name in self.by_websocket

    def why_not(self, workload):
        if workload.kind.startswith("reload") and not self.reloads:
            return "has no reload: all are lost"
        if workload.kind == "reload-overlap" and self.name != "handover":
            return "has one way to reload"
        return self.cannot.get(workload.name)


def asks_for_websockets(workload):
    return workload.kind in ("websocket", "conversation")


def pid_file(place):
    """Of those that reload; another process may serve after it."""
    return place.own / "pid"


# What --handover names instead. Beside it stands the program that has conversations.
handover_program = TARGET / "handover"


def lab_program():
    return handover_program.parent / "examples/lab"


def handover(place, kind, many):
    conf = place.own / "handover.toml"
    heartbeat = 0 if kind == "quiet" else HEARTBEAT
    conf.write_text(f'[[push]]\nprefix = "/events"\npublish = "anyone"\nheartbeat = {heartbeat}\n')
    # Three quarters of the connections may be subscribers.
    connections = min(many * 4 // 3 + 500, 19_500)
    flags = ["--pid-file", pid_file(place), "--max-connections", connections]
    if kind == "conversation":
        return [lab_program(), "-l", place.address, *flags]
    if kind == "flood":
        # What a flood may make of it is part of the question.
        flags += ["--memory", "16M"]
    if kind == "reload-overlap":
        flags += ["--reload", "overlap"]
    return [handover_program, "-l", place.address, "-c", conf, *flags, place.site]


def nchan(workers):
    def command(place, kind, many):
        temporary = "".join(
            f"{name}_temp_path {place.own}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;\n" if os.geteuid() == 0 else ""
        ping = "" if kind == "quiet" else f"nchan_eventsource_ping_interval {HEARTBEAT};"
        conf = place.own / "nginx.conf"
        # With reuseport the kernel spreads connections; else one worker may hold most of them.
        conf.write_text(
            f"load_module {NCHAN};\ndaemon off;\n{user}worker_processes {workers};\npid {pid_file(place)};\n"
            f"error_log {place.own}/nginx.log;\nevents {{ worker_connections 19000; }}\n"
            f"http {{\naccess_log off;\nkeepalive_requests 100000000;\nkeepalive_timeout 600;\ndefault_type text/plain;\n"
            f"{temporary}nchan_message_buffer_length 100;\nnchan_message_timeout 10m;\n"
            f"server {{\nlisten {place.address} backlog=4096{' reuseport' if workers > 1 else ''};\n"
            f'location = /hello {{ return 200 "hello world"; }}\n'
            f"location = /subscribe {{ nchan_subscriber eventsource; nchan_channel_id $arg_topic;"
            f" nchan_subscriber_first_message newest; {ping} }}\n"
            f"location = /publish {{ nchan_publisher; nchan_channel_id $arg_topic; }}\n}}\n}}\n"
        )
        return ["nginx", "-p", place.own, "-c", conf, "-e", place.own / "nginx.log"]

    return command


def rust(name):
    return lambda place, kind, many: [BUILT / "release" / f"push-{name}", place.address]


def need_nchan():
    if not shutil.which("nginx") or not NCHAN.exists():
        return "is not installed (Debian: apt-get install nginx-light libnginx-mod-nchan)"


def need_ws():
    if not shutil.which("npm"):
        return "npm is not installed"
    if not (WS / "node_modules/ws").exists():
        return ran(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", WS, f"ws@{WS_VERSION}"])


def need_sockjs_tornado():
    if (VENV / "done").exists():
        return None
    why = ran([sys.executable, "-m", "venv", "--clear", VENV])
    wanted = [f"sockjs-tornado=={SOCKJS_TORNADO}", f"tornado=={TORNADO}"]
    why = why or ran([VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *wanted])
    if not why:
        (VENV / "done").touch()
    return why


def need_pushpin():
    if not shutil.which("pushpin") or not shutil.which("zurl"):
        return "is not installed (Debian: apt-get install pushpin zurl)"


def need_handover():
    if handover_program == TARGET / "handover":
        return ran(["cargo", "build", "--locked", "--release", "--bins", "--example", "lab"], ROOT)
    missing = [program for program in (handover_program, lab_program()) if not program.exists()]
    return f"there is no {missing[0]}" if missing else None


def ran(command, where=HERE):
    try:
        done = subprocess.run(list(map(str, command)), cwd=where, capture_output=True, text=True, timeout=1200)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"could not be built: {error}"
    if done.returncode:
        print(done.stdout + done.stderr)
        return f"could not be built: {(done.stderr.strip() or done.stdout.strip() or 'nothing was said').splitlines()[-1]}"


def cargo(*crates):
    packages = [part for crate in crates for part in ("-p", f"push-{crate}")]
    return ran(["cargo", "build", "--locked", "--release", "--target-dir", BUILT, *packages])


def build(servers):
    """Builds what is needed; answers with why one cannot be had, by name."""
    missing = {}
    if why := cargo("client"):
        raise SystemExit(f"bench-push: the client {why}")
    for server in servers:
        for step in server.build:
            why = cargo(step) if isinstance(step, str) else step()
            if why:
                missing[server.name] = why
    return missing


EVENTS = {"subscribe": "/events/{topic}", "publish": "/events/{topic}"}
QUERY = {"subscribe": "/subscribe?topic={topic}", "publish": "/publish?topic={topic}"}
ECHO = {"echo": {"subscribe": "/echo"}, "ws-idle": {"subscribe": "/echo"}}
TOO_SLOW = "a second of it would take it many seconds"

SERVERS = {
    server.name: server
    for server in (
        Server(
            "handover",
            "default workers, `[[push]]` with defaults; of conversations `examples/lab`, of which those that are idle count",
            handover,
            EVENTS,
            (need_handover,),
            reloads=True,
            by_websocket={"echo": {"subscribe": "/ws/echo"}, "broadcast": EVENTS, "ws-idle": {"subscribe": "/ws/count"}},
        ),
        Server("limit", "one thread, one epoll loop, a prebuilt frame for each subscriber", rust("limit"), EVENTS, ("limit",)),
        Server("nchan-2", "nginx with nchan, 2 workers, reuseport", nchan(2), QUERY, (need_nchan,), reloads=True),
        Server("nchan-1", "nginx with nchan, 1 worker", nchan(1), QUERY, (need_nchan,), reloads=True),
        Server(
            "axum",
            "its Sse over tokio's broadcast channels, or its WebSockets, a worker for each core",
            rust("axum"),
            EVENTS,
            ("axum",),
            by_websocket={**ECHO, "broadcast": {"subscribe": "/ws/{topic}", "publish": "/events/{topic}"}},
        ),
        Server(
            "ws",
            "WebSocket on Node, one thread, as its documentation broadcasts",
            lambda place, kind, many: ["node", HERE / "ws/server.js", place.port, WS],
            {"subscribe": "/{topic}", "publish": "/{topic}", "format": "websocket"},
            (need_ws,),
            by_websocket={**ECHO, "broadcast": {"subscribe": "/{topic}", "publish": "/{topic}"}},
        ),
        Server(
            "sockjs-tornado",
            "its eventsource transport, or its raw WebSocket, one thread",
            lambda place, kind, many: [VENV / "bin/python", HERE / "sockjs_tornado/server.py", place.port],
            {
                "subscribe": "/push/0/s{number}/eventsource?topic={topic}",
                "publish": "/publish/{topic}",
                "format": "sockjs",
            },
            (need_sockjs_tornado,),
            cannot={"flood": TOO_SLOW},
            by_websocket={
                "echo": {"subscribe": "/echo/websocket"},
                "ws-idle": {"subscribe": "/echo/websocket"},
                "broadcast": {"subscribe": "/push/websocket?topic={topic}", "publish": "/publish/{topic}"},
            },
        ),
        Server(
            "pushpin",
            "Debian's, with condure and zurl, an origin by axum that is asked once for each subscriber",
            lambda place, kind, many: [sys.executable, HERE / "pushpin.py", place.port, BUILT / "release/push-axum", place.own],
            {
                "subscribe": "/held/{topic}",
                "publish": "/publish/",
                "body": '{"items":[{"channel":"{topic}","formats":{"http-stream":{"content":"data: {data}\\n\\n"}}}]}',
                "publishes_beside": True,
            },
            (need_pushpin, "axum"),
        ),
    )
}


def versions():
    """What has been measured with, as each says it itself."""
    found = {}
    for name, command in {
        "nginx": ["nginx", "-v"],
        "node": ["node", "--version"],
        "pushpin": ["pushpin", "--version"],
        "rustc": ["rustc", "--version"],
        "python": [sys.executable, "--version"],
        "libnginx-mod-nchan": ["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"],
    }.items():
        if shutil.which(str(command[0])):
            out = subprocess.run(command, capture_output=True, text=True)
            words = (out.stdout + out.stderr).replace("nginx/", "").split()
            found[name] = next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit()), "unknown")
    found |= {"ws": WS_VERSION, "sockjs-tornado": SOCKJS_TORNADO, "tornado": TORNADO}
    revision = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    found["handover"] = revision.stdout.strip() or "unknown"
    return dict(sorted(found.items()))


