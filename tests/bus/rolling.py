"""Three hosts behind HAProxy, 600 subscribers and 500 messages/s, while each host in turn is reloaded, stopped or killed.

A reload is noticed by nobody. At a stop the clients of that host go on at another one, with nothing missing and nothing twice;
the same where it is killed, for which no program can prepare."""

import os
import signal
import time

from harness import alive, check, equal, until
from redis_server import Redis
from stack import RATE, Stack, nothing_lost, said

# So many messages between two of what is done to hosts: a second and more, in which everybody has come to rest.
BETWEEN = RATE * 3 // 2


def report(what, look, over=False):
    print(f"bus: {what}: {said(look, over)}", flush=True)


def reloads(what, stack):
    """HUP to each in turn."""
    stack.load.look(mark=True)
    for host in stack.hosts:
        check(f"{what}: {stack.name(host)} reloaded", host.reload(stack.hosts[0].mode), host.log()[-400:])
        check(f"{what}: publishing goes on behind {stack.name(host)}", stack.load.more(BETWEEN), stack.load.look())
    look = stack.load.look()
    report(what, look)
    equal(f"{what}: 0 reconnects", (look["reconnects"], look["losses"]), (0, {}))
    equal(f"{what}: no POST failed", look["failures"], 0)


def stops(what, stack):
    """TERM to each in turn, and its start when it has gone."""
    load = stack.load
    load.look(mark=True)
    for host in stack.hosts:
        name, pid, before = stack.name(host), host.pid(), load.look()
        had = stack.proxy.sessions()[name]
        os.kill(pid, signal.SIGTERM)
        lame = until(lambda: stack.proxy.state()[name] == "NOLB")
        check(f"{what}: {name} is a lame duck, and HAProxy gives it no new client", lame, stack.proxy.state())
        kept = stack.proxy.sessions()[name]
        check(f"{what}: it keeps those it has", 0 < kept and had - kept < 10, f"{kept} of {had}")
        equal(f"{what}: nobody has come back yet", load.look()["reconnects"] - before["reconnects"], 0)
        check(f"{what}: {name} has stopped", until(lambda: not alive(pid)), host.log()[-400:])
        os.waitpid(pid, 0)
        gone = stack.proxy.state()[name]
        # `retry:` says 1 to 5 seconds.
        check(f"{what}: all are at other hosts", load.all_there(), load.look())
        look = load.look()
        came = look["reconnects"] - before["reconnects"]
        check(f"{what}: {came} clients of {name} came to another, at least those that it kept", came > 0 and came >= kept - 10, f"{came} and {kept}")
        print(f"bus: {what}: {name} is {gone} by now; {stack.proxy.sessions()}", flush=True)
        host.start()
        up = until(lambda: stack.proxy.state()[name] == "UP")
        check(f"{what}: {name} is started and takes clients again", up, stack.proxy.state())
        load.more(BETWEEN)
    look = load.look()
    report(what, look)
    equal(f"{what}: each stream has ended behind a whole event, none was cut", look["losses"].get("cut", 0), 0)
    equal(f"{what}: no POST failed", look["failures"], 0)


def kill(what, stack, host):
    """And its start, when its clients are with the others."""
    load, name, before = stack.load, stack.name(host), stack.load.look(mark=True)
    had = stack.proxy.sessions()[name]
    host.kill()
    begun = time.monotonic()
    down = until(lambda: stack.proxy.state()[name] == "DOWN")
    check(f"{what}: HAProxy sees {name} down", down, stack.proxy.state())
    noticed = time.monotonic() - begun
    check(f"{what}: all are at other hosts", load.all_there(), load.look())
    look = load.look()
    came = look["reconnects"] - before["reconnects"]
    check(f"{what}: {came} clients came to another", came > 0 and came >= had - 10, f"{came} and {had}")
    print(f"bus: {what}: HAProxy knew after {noticed:.1f} s; {stack.proxy.sessions()}", flush=True)
    load.more(BETWEEN)
    host.start()
    up = until(lambda: stack.proxy.state()[name] == "UP")
    check(f"{what}: {name} is started and takes clients again", up, stack.proxy.state())
    load.more(BETWEEN)
    report(what, load.look())


def parts(mode, redis, directory, only=("reloads", "stops", "kill")):
    """The three of them in this mode, on the same hosts and under the same load."""
    what = f"three hosts, {mode}"
    stack = Stack(directory / f"rolling-{mode}", f"redis://127.0.0.1:{redis.port}", mode=mode)
    try:
        if "reloads" in only:
            reloads(f"{what}, rolling reload", stack)
        if "stops" in only:
            stops(f"{what}, rolling stop and start", stack)
        if "kill" in only:
            kill(f"{what}, kill -9 of one", stack, stack.hosts[1])
        look = stack.load.over()
        report(f"{what}, in the end", look, over=True)
        nothing_lost(what, look)
        # A load that was not there proves nothing. How much of it a machine has that does something else beside is its own affair.
        check(f"{what}: {look['rate']:.0f} of {RATE} messages/s were published all the time", look["rate"] > 0.2 * RATE, look["posts"])
        stack.stop()
    finally:
        stack.close()


def checks(directory, modes=("exec", "overlap"), **more):
    redis = Redis(directory / "redis")
    try:
        for mode in modes:
            parts(mode, redis, directory, **more)
    finally:
        redis.kill()


def one_host(directory):
    """Everything but the bus: the load, HAProxy and reloads in each mode with one host and its own log."""
    for mode in ("exec", "overlap"):
        what = f"one host, {mode}"
        stack = Stack(directory / f"one-{mode}", many=1, mode=mode)
        try:
            reloads(f"{what}, reload", stack)
            look = stack.load.over()
            report(what, look, over=True)
            nothing_lost(what, look)
            stack.stop()
        finally:
            stack.close()


def without_a_bus(directory):
    """That these checks can fail: three hosts that do not know of each other."""
    what = "three hosts without a bus"
    stack = Stack(directory / "without", None)
    try:
        load, host = stack.load, stack.hosts[0]
        pid = host.pid()
        os.kill(pid, signal.SIGTERM)
        until(lambda: not alive(pid))
        os.waitpid(pid, 0)
        load.all_there()
        host.start()
        load.more(RATE)
        look = load.over()
        report(what, look, over=True)
        check(f"{what}: messages are missing, and the load says so", look["missing"] > look["delivered"] // 4, look)
        check(f"{what}: a position of another host is unknown, and that is said", look["gaps"] > 0, look)
    finally:
        stack.close()
