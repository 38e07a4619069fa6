"""Tables and plots from the figures of a run."""

import json
import statistics

import plot

REFERENCES = {"lighttpd": "to lighttpd", "limit": "to the limit"}


class Column:
    """One figure of a cell over its rounds."""

    def __init__(self, cell, key):
        values = [sample[key] for sample in cell["samples"] if sample[key] is not None]
        self.median = statistics.median(values) if values else None
        self.low, self.high = min(values, default=None), max(values, default=None)

    def said(self, show):
        if self.median is None:
            return "–"
        return show(self.median) if self.low == self.high else f"{show(self.median)} ({show(self.low)}–{show(self.high)})"


def count(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def micros(value):
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def latency(value):
    """Microseconds, in the unit that reads best."""
    if value < 1000:
        return f"{value:.0f} µs"
    return f"{value / 1e3:.2f} ms" if value < 1e6 else f"{value / 1e6:.2f} s"


def kib(value):
    return f"{value:,} KiB" if value < 10240 else f"{value / 1024:,.1f} MiB"


def table(head, lines):
    out = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(out + ["| " + " | ".join(line) + " |" for line in lines])


def ratio(cells, name, reference):
    """Requests and CPU against the reference of the same workload."""
    other = cells.get(reference)
    if name == reference or not other or not other["samples"]:
        return "–"
    rate = Column(cells[name], "rate").median / Column(other, "rate").median
    cpu = Column(other, "cpu").median
    return f"{rate:.2f}×" + (f" / {Column(cells[name], 'cpu').median / cpu:.2f}×" if cpu else "")


def workload_table(cells):
    lines = []
    references = [name for name in REFERENCES if cells.get(name, {}).get("samples")]
    for name, cell in cells.items():
        if not cell["samples"]:
            lines.append([name, cell["reason"] or "not measured", *[""] * (6 + len(references) - 1)])
            continue
        errors = sum(sample["errors"] for sample in cell["samples"])
        notes = [f"{errors:,} errors"] if errors else []
        notes += sorted({sample["note"] for sample in cell["samples"] if "note" in sample})
        lines.append(
            [
                name + (f" ({', '.join(notes)})" if notes else ""),
                Column(cell, "rate").said(count),
                Column(cell, "cpu").said(micros),
                Column(cell, "client").said(micros),
                Column(cell, "p50").said(latency),
                Column(cell, "p99").said(latency),
                Column(cell, "p999").said(latency),
                *(ratio(cells, name, reference) for reference in references),
            ]
        )
    head = ["server", "requests/s", "CPU µs/request", "client's", "p50", "p99", "p99.9"]
    return table(head + [REFERENCES[name] for name in references], lines)


def rest_table(rest):
    lines = []
    for name, found in rest.items():
        if "idle" not in found:
            lines.append([name, found["reason"], *[""] * 9])
            continue
        grown = [found.get(goal, {"reason": "not reached"}) for goal in ("1000", "10000")]
        last = grown[-1] if "private" in grown[-1] else None
        each = (last["private"] - found["empty"]["private"]) * 1024 / 10_000 if last else None
        crates = found["dependencies"]
        lines.append(
            [
                name,
                f"{statistics.median(found['starts_ms']):.1f} ms",
                str(found["idle"]["threads"]),
                kib(found["idle"]["rss"]),
                kib(found["idle"]["private"]),
                *(kib(step["private"]) if "private" in step else step["reason"] for step in grown),
                f"{each:,.0f} B" if each is not None else "–",
                str(last["threads"]) if last else "–",
                kib(found["binary"] // 1024),
                "–" if crates is None else str(crates),
            ]
        )
    head = ["server", "start to ready", "threads", "RSS", "private", "with 1,000 idle", "with 10,000 idle"]
    return table(head + ["for each", "threads then", "program", "crates"], lines)


METHOD = """Each cell starts its server anew on a free port, checks an answer byte for byte, runs wrk with one thread on the same
machine, and ends the server; the servers take turns, round after round. A cell is the median, in brackets the least and
the most of {rounds} rounds of {seconds} s. *CPU* is the user and system time of all the server's processes over the
requests answered, and *the client's* that of wrk: what the kernel does for a connection it does in whose time it happens
to be, so a server that sends little by itself has a client that works for both. *To lighttpd* and *to the limit* are ratios of requests/s and of CPU for each request, in that order.
With a client as fast as the servers on {cores} cores, CPU for each request says more than requests/s. wrk has no
latencies for pipelined requests; to the others it adds what requests waited that a slow answer kept from being sent.

In the mix, requests come at {rate:,} a second over {connections} connections, and a latency counts from the time that a
request was due, so that a server that stands still cannot hide it; one in {one_in}, drawn from a fixed seed, blocks its
handler for 20 ms. The latencies are those of the others.

At rest, *RSS* and *private* memory (clean and dirty, `smaps_rollup`) are summed over all processes, RSS thus counting
shared pages once for each. Each idle connection has had one answer. Servers that limit
their connections have the limit raised for this, and only for this. *Program* is the executable alone, without shared libraries; *crates* are those it is linked from."""


def markdown(results, plots=()):
    machine, mix = results["machine"], results["mix"]
    parts = ["# Benchmarks", ""]
    parts.append(
        f"{results['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_mib']:,} MiB, Linux"
        f" {machine['kernel']}, {machine['descriptors']:,} descriptors for each process; load"
        f" {machine['load_before']:.2f} before. Made by `{results['command']}` in"
        f" {results.get('took_minutes', '?')} minutes."
    )
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    parts += ["", f"Versions: {versions}.", ""]
    parts += [f"- **{name}**: {about}" for name, about in results["servers"].items()]
    parts += ["", METHOD.format(rounds=results["rounds"], seconds=results["seconds"], cores=machine["cores"], **mix), ""]
    for title, file in plots:
        parts += [f"![{title}]({file})", ""]
    if results["rest"]:
        parts += ["## At rest", "", rest_table(results["rest"]), ""]
    for name, cells in results["cells"].items():
        parts += [f"## {results['workloads'][name]}", "", f"`{name}`", "", workload_table(cells), ""]
    return "\n".join(parts)


# What is drawn: workload, figure, how it is said, and which direction is good.
CHARTS = [
    ("constant-c32", "rate", "requests/s", count, "more is better"),
    ("constant-c32", "cpu", "CPU µs for each request", micros, "less is better"),
    ("file-10k-c32", "rate", "requests/s", count, "more is better"),
    ("file-10k-c32", "cpu", "CPU µs for each request", micros, "less is better"),
    ("file-1m", "cpu", "CPU µs for each request", micros, "less is better"),
    ("mix", "p99", "p99 of the requests that do not block", latency, "less is better"),
]


def chart(cells, key, show, more_is_better):
    rows = []
    for name, cell in cells.items():
        if cell["samples"]:
            column = Column(cell, key)
            rows.append((name, column.median, column.low, column.high, show(column.median)))
        else:
            rows.append((name, None, 0, 0, cell["reason"] or "not measured"))
    have = sorted((row for row in rows if row[1] is not None), key=lambda row: row[1], reverse=more_is_better)
    return have + [row for row in rows if row[1] is None]


def memory_chart(rest):
    rows = []
    for name, found in rest.items():
        step = found.get("10000", {})
        if "private" in step:
            rows.append((name, step["private"], step["private"], step["private"], kib(step["private"])))
        else:
            rows.append((name, None, 0, 0, step.get("reason") or found.get("reason") or "not reached"))
    have = sorted((row for row in rows if row[1] is not None), key=lambda row: row[1])
    return have + [row for row in rows if row[1] is None]


def charts(results):
    """Name of the file, title and SVG of each plot that there are figures for."""
    for name, key, what, show, direction in CHARTS:
        if name in results["cells"]:
            rows = chart(results["cells"][name], key, show, direction.startswith("more"))
            title = results["workloads"][name]
            yield f"benchmarks-{name}-{key}.svg", f"{title}: {what}", plot.bars(title, f"{what}; {direction}", rows, "handover")
    if results["rest"]:
        title = "Private memory with 10,000 idle connections"
        svg = plot.bars(title, "all processes; less is better", memory_chart(results["rest"]), "handover")
        yield "benchmarks-idle-memory.svg", title, svg


def kept_between(text, begin, end):
    """What stands between two marks, with them; nothing where they are not there."""
    start, stop = text.find(begin), text.find(end)
    return text[start : stop + len(end)] if 0 <= start < stop else ""


def publish(results, directory):
    directory.mkdir(exist_ok=True)
    page = directory / "benchmarks.md"
    # Another benchmark's part stands at the end.
    push = kept_between(page.read_text(), "<!-- push: begin", "<!-- push: end -->") if page.exists() else ""
    plots = []
    for file, title, svg in charts(results):
        (directory / file).write_text(svg)
        plots.append((title, file))
    (directory / "benchmarks.json").write_text(json.dumps(results, indent=1) + "\n")
    page.write_text(markdown(results, plots) + (f"\n{push}\n" if push else ""))
