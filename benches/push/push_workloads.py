"""What is asked of the servers: the client's flags for each row, and which of its figures are shown."""

import dataclasses

from wire import Wrong

# What makes a row's other figures worth nothing.
FAULTS = ("missing", "gapped", "doubled", "misordered", "foreign", "reconnects", "strange", "posts_failed")
# So that a server is not made to pay for waking the client for each delivery; said in the method.
NAP = ["--nap", 200]


@dataclasses.dataclass(frozen=True)
class Figure:
    key: str
    """Where it stands in what the client says, with dots between."""
    title: str
    show: callable
    more_is_better: bool = False
    ratios: bool = True

    def of(self, sample):
        value = sample
        for part in self.key.split("."):
            value = value[part]
        return value


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    title: str
    flags: list
    figures: tuple
    kind: str = ""
    """`quiet` starts a server without heartbeats; in `flood` and both of `reload` what is lost is a figure itself. For
    `websocket` and `conversation` only those have a row that speak it."""
    seconds: float = None
    """Where it is not the runner's."""
    references: tuple = ("limit", "nchan-2")
    """To whom the others are compared."""

    def arguments(self, options):
        flags = [*self.flags]
        if "--seconds" not in flags:
            flags += ["--seconds", self.seconds or options.seconds]
        if "--subscribers" not in flags:
            flags += ["--subscribers", options.subscribers]
        return [str(flag) for flag in flags]

    def subscribers(self, options):
        return int(self.arguments(options)[self.arguments(options).index("--subscribers") + 1])

    def check(self, sample):
        if self.kind in ("flood", "reload", "reload-overlap"):
            return
        wrong = [f"{sample[fault]:,} {fault.replace('_', ' ')}" for fault in FAULTS if sample.get(fault)]
        if sample.get("stalled"):
            wrong.append("stood still")
        if wrong:
            said = sample.get("first_strange") or sample.get("post_error")
            raise Wrong(", ".join(wrong) + (f" ({said})" if said else ""))


def micros(value):
    return f"{value:,.1f} µs" if value < 1000 else f"{value / 1000:,.2f} ms"


def millis_of_micros(value):
    return f"{value / 1000:,.1f} ms" if value >= 10_000 else f"{value / 1000:,.2f} ms"


def millis(value):
    return f"{value:,.0f} ms" if value >= 10 else f"{value:,.2f} ms"


def count(value):
    return f"{value:,.0f}"


def size(value):
    return f"{value / 1000:,.1f} kB" if value >= 1000 else f"{value:,.0f} B"


def mebibytes(value):
    return f"{value / 2**20:,.1f} MiB"


def percent(value):
    return f"{value:.2f} %"


CPU = Figure("cpu_us", "CPU for a delivery", micros)
P99 = Figure("latency.p99", "p99", millis_of_micros, ratios=False)
RATE = Figure("rate", "deliveries/s", count, more_is_better=True)

BY_WEBSOCKET = ("axum", "ws", "sockjs-tornado")

RELOADS = "Three reloads at 200 messages/s, 10,000 subscribers on 51 topics"
PAUSES = ["pauses", "--reloads", 3, "--every", 4, "--rate", 200, "--topics", 51]
LOST = (
    Figure("reconnects", "reconnects", count, ratios=False),
    Figure("missing", "missing", count, ratios=False),
    Figure("gapped", "in a gap that was said", count, ratios=False),
    Figure("doubled", "doubled", count, ratios=False),
    Figure("misordered", "out of order", count, ratios=False),
    Figure("posts_failed", "POSTs failed", count, ratios=False),
    Figure("delivery_ms", "longest way of a message", millis, ratios=False),
    Figure("gap_ms", "widest gap of a watcher", millis, ratios=False),
    Figure("post_ms", "longest POST", millis, ratios=False),
)

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "one",
            "One message to 10,000",
            ["one", "--messages", 10, *NAP],
            (
                Figure("last.median", "the last has it", millis_of_micros),
                Figure("cpu_us", "CPU for a delivery", micros),
            ),
        ),
        Workload("steady", "10 messages/s to 10,000", ["rate", "--rate", 10, *NAP], (CPU, P99)),
        Workload("single", "One message in flight", ["window", "--window", 1, *NAP], (RATE, CPU)),
        Workload("backlog", "A backlog of 16", ["window", "--window", 16, *NAP], (RATE, CPU)),
        Workload(
            "topics",
            "1,000 topics of 10 subscribers, 1,000 messages/s",
            ["rate", "--topics", 1000, "--rate", 1000],
            (CPU, Figure("latency.p99", "p99", millis_of_micros)),
        ),
        Workload(
            "posts",
            "Publishing without subscribers, 32 connections",
            ["posts"],
            (Figure("cpu_us", "CPU for a POST", micros), Figure("rate", "POSTs/s", count, True)),
        ),
        Workload(
            "connect",
            "10,000 connect at once",
            ["connect"],
            (Figure("cpu_us", "CPU each", micros), Figure("all_there_ms", "all there", millis)),
        ),
        Workload(
            "idle",
            "10,000 idle",
            ["idle"],
            (
                Figure("bytes_each", "private memory each", size),
                Figure("shared_each", "shared memory each", size, ratios=False),
                Figure("cpu_percent", "CPU of a core", percent, ratios=False),
            ),
            seconds=15,
        ),
        Workload(
            "idle-quiet",
            "10,000 idle, without heartbeats",
            ["idle"],
            (Figure("cpu_percent", "CPU of a core", percent, ratios=False),),
            kind="quiet",
            seconds=5,
        ),
        Workload("reload", RELOADS, PAUSES, LOST, kind="reload"),
        Workload("reload-overlap", f"{RELOADS}; handover by two processes", PAUSES, LOST, kind="reload-overlap"),
        Workload(
            "flood",
            "A flood: one publisher as fast as it goes, 1,000 subscribers; an ordinary client beside it",
            ["flood", "--subscribers", 1000, "--seconds", 4],
            (
                Figure("without.p99", "its p99 without", millis_of_micros, ratios=False),
                Figure("with.p99", "with", millis_of_micros, ratios=False),
                Figure("rate", "POSTs/s", count, True, ratios=False),
                Figure("missing", "missing", count, ratios=False),
                Figure("gapped", "in a gap that was said", count, ratios=False),
                Figure("reconnects", "lost", count, ratios=False),
                Figure("peak", "peak RSS", mebibytes, ratios=False),
            ),
            kind="flood",
        ),
        Workload(
            "echo",
            "1,000 WebSockets: each says 100 bytes, hears them, says the next",
            ["echo", "--subscribers", 1000],
            (Figure("cpu_us", "CPU for a message", micros), Figure("rate", "messages/s", count, True)),
            kind="conversation",
            references=BY_WEBSOCKET,
        ),
        Workload(
            "broadcast",
            "One message in flight to 1,000 WebSockets",
            ["window", "--window", 1, "--subscribers", 1000, *NAP],
            (CPU, RATE),
            kind="websocket",
            references=BY_WEBSOCKET,
        ),
        Workload(
            "ws-idle",
            "10,000 idle WebSockets",
            ["idle"],
            (Figure("bytes_each", "private memory each", size),),
            kind="conversation",
            seconds=1,
            references=BY_WEBSOCKET,
        ),
    )
}
