#!/usr/bin/env python3
"""Redis, three servers and HAProxy, 600 subscribers and 500 messages/s: reloads all three and prints what everybody heard.

    just bus-demo                 a reload of each in both modes
    just bus-demo --stay          and stays until Enter, with the addresses, to be tried by hand
"""

import pathlib
import signal
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE), str(HERE.parent / "clients")]

import harness  # noqa: E402  (the path above is needed first)
from redis_server import Redis  # noqa: E402
from stack import BUILD, RATE, Stack, has_bus  # noqa: E402


def line(look, before):
    """What is new since then, of what is a fault where it is not 0."""
    names = {"reconnects": "reconnects", "missing": "missing", "doubled": "twice", "gaps": "gaps said", "failures": "POSTs failed"}
    return ", ".join(f"{look[name] - before[name]} {word}" for name, word in names.items())


def show(mode, directory, redis, stay):
    stack = Stack(directory / mode, f"redis://127.0.0.1:{redis.port}", mode=mode)
    try:
        print(f"{mode}: HAProxy at http://127.0.0.1:{stack.proxy.port}, hosts at ports {[host.port for host in stack.hosts]}", flush=True)
        before = stack.load.look(mark=True)
        for host in stack.hosts:
            if not host.reload(mode):
                raise RuntimeError(f"{stack.name(host)} was not reloaded: {host.log()[-400:]}")
            stack.load.more(RATE)
            now = stack.load.look()
            print(f"  {stack.name(host)} reloaded: generation {host.generations()}, {now['published']} messages so far", flush=True)
        over = stack.load.over()
        print(
            f"  {over['published']} messages at {over['rate']:.0f}/s to {over['subscribers']} subscribers, {over['delivered']} deliveries "
            f"({over['deliveries_per_second']:.0f}/s), p99 {over['latency_ms']['p99']:.1f} ms, longest {over['latency_ms']['max']:.0f} ms",
        )
        print(f"  {line(over, {**before, 'missing': 0})}", flush=True)
        if stay:
            print(f"  curl -N http://127.0.0.1:{stack.proxy.port}/events/a &  curl -d hello http://127.0.0.1:{stack.proxy.port}/events/a")
            input("  Enter ends it. ")
        return not any(over[name] for name in ("reconnects", "missing", "doubled", "gaps", "failures"))
    finally:
        stack.close()


def main():
    if not has_bus():
        sys.exit(f"bus-demo: the program was built without the feature `redis`: {BUILD}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    harness.adopt_descendants()
    with tempfile.TemporaryDirectory(prefix="bus-") as temporary:
        directory = pathlib.Path(temporary)
        try:
            redis = Redis(directory / "redis")
            right = [show(mode, directory, redis, "--stay" in sys.argv[1:]) for mode in ("exec", "overlap")]
        finally:
            harness.end_descendants()
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
