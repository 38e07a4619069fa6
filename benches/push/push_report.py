"""Tables and plots of push; ratios are paired within a round."""

import json
import statistics

import plot
from push_workloads import WORKLOADS
from report import kept_between, table

BEGIN, END = "<!-- push: begin, written by `just bench-push --publish` -->", "<!-- push: end -->"


# A round in which other processes took more than this share of the machine is said to be disturbed.
DISTURBED = 0.08


def spread(values, show):
    """The median, in brackets the least and the most."""
    low, high = show(min(values)), show(max(values))
    said = show(statistics.median(values))
    return said if low == high else f"{said} ({low}–{high})"


def ratio(cells, name, reference, figure):
    """The median of what each round's pair says; nothing where they never met, or the other took nothing."""
    other = {sample["round"]: figure.of(sample) for sample in cells.get(reference, {"samples": []})["samples"]}
    pairs = [
        figure.of(sample) / other[sample["round"]]
        for sample in cells[name]["samples"]
        if other.get(sample["round"], 0) > 0
    ]
    return statistics.median(pairs) if pairs and name != reference else None


def workload_table(workload, cells):
    rated = [figure for figure in workload.figures if figure.ratios]
    references = [name for name in workload.references if cells.get(name, {}).get("samples")] if rated else []
    head = ["server", *(figure.title for figure in workload.figures), *(f"to {name}" for name in references)]
    lines = []
    for name, cell in cells.items():
        if not cell["samples"]:
            lines.append([name, cell["reason"] or "not measured", *[""] * (len(head) - 2)])
            continue
        line = [f"{name} ({cell['reason']}, {cell['failures']} times)" if cell["failures"] else name]
        disturbed = sum(sample.get("others", 0) > DISTURBED for sample in cell["samples"])
        if disturbed:
            line[0] += f" ({disturbed} of {len(cell['samples'])} rounds disturbed)"
        line += [spread([figure.of(sample) for sample in cell["samples"]], figure.show) for figure in workload.figures]
        for reference in references:
            found = [ratio(cells, name, reference, figure) for figure in rated]
            line.append(" / ".join("–" if value is None else f"{value:.2f}×" for value in found))
        lines.append(line)
    return table(head, lines)


METHOD = """Each cell starts its server anew, and nothing else of the benchmark runs meanwhile but its load: one thread that holds the
subscribers from several loopback addresses, and one that publishes. *Every delivery is checked*: a row in which one was
missing, doubled, out of order or on another topic, or in which a subscriber was lost, is no figure. A message has
{size} bytes with its number and the time at which it was published. The servers take turns in each round, each round
beginning with another one; a cell is the median, in brackets the least and the most of {rounds} rounds of {seconds} s,
and a ratio the median of those within each round. *CPU* is the user and system time of all processes of the server.
Where one message goes to thousands the client lets deliveries come together for {nap} µs when there are few, or each of
them would have its server wake the client: with {cores} cores that is a good part of what is measured. In `echo` they
do not wait. By WebSocket everybody does the same: what a client says is masked, nothing is compressed, what is broadcast
comes by a POST, and at the end each idle one is asked by a ping whether its server still has it. *Private
memory* is RssAnon of all processes, with all subscribers less before. A round is *disturbed* where processes that are not
of the benchmark, or the machine's host, took more than {disturbed:.0%} of its time."""


def markdown(results):
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    method = METHOD.format(
        size=100, disturbed=DISTURBED, rounds=results["rounds"], seconds=results["seconds"], nap=200, cores=machine["cores"]
    )
    parts = [
        "## Push",
        "",
        f"{results['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_mib']:,} MiB, Linux"
        f" {machine['kernel']}; load {machine['load_before']:.2f} before. {results['subscribers']:,} subscribers. Made by"
        f" `{results['command']}` in {results.get('took_minutes', '?')} minutes. Versions: {versions}.",
        "",
        *(f"- **{name}**: {about}" for name, about in results["servers"].items()),
        "",
        method,
        "",
    ]
    for title, file in results.get("plots", ()):
        parts += [f"![{title}]({file})", ""]
    for name, cells in results["cells"].items():
        workload = WORKLOADS[name]
        parts += [f"### {workload.title}", "", f"`{name}`{made_later(results, name)}", "", workload_table(workload, cells), ""]
    return "\n".join(parts)


def made_later(results, name):
    """When and how, if not with most of the others."""
    later = results.get("later", {}).get(name)
    if not later:
        return ""
    rounds = f"{later['rounds']} rounds of {later['seconds']:g} s"
    return f", {later['date']}, handover {later['versions']['handover']}, {rounds}, by `{later['command']}`"


def among_the_others(results, directory):
    """What is published, with these workloads instead of its own or besides them."""
    file = directory / "benchmarks-push.json"
    if not file.exists():
        return results
    old = json.loads(file.read_text())
    how = {key: results[key] for key in ("date", "command", "rounds", "seconds", "versions")}
    cells = {**old["cells"], **results["cells"]}
    return {
        **old,
        "servers": {**old["servers"], **results["servers"]},
        "cells": {name: cells[name] for name in WORKLOADS if name in cells},
        "later": {**old.get("later", {}), **{name: how for name in results["cells"]}},
    }


def charts(results):
    """Name of the file, title and SVG of the first figure of each row that is one to compare."""
    for name, cells in results["cells"].items():
        workload = WORKLOADS[name]
        figure = workload.figures[0]
        if not figure.ratios:
            continue
        rows = []
        for server, cell in cells.items():
            values = [figure.of(sample) for sample in cell["samples"]]
            if values:
                middle = statistics.median(values)
                rows.append((server, middle, min(values), max(values), figure.show(middle)))
            else:
                rows.append((server, None, 0, 0, (cell["reason"] or "not measured")[:60]))
        have = sorted((row for row in rows if row[1] is not None), key=lambda row: row[1], reverse=figure.more_is_better)
        rows = have + [row for row in rows if row[1] is None]
        direction = "more is better" if figure.more_is_better else "less is better"
        svg = plot.bars(workload.title, f"{figure.title}; {direction}", rows, "handover")
        yield f"benchmarks-push-{name}.svg", f"{workload.title}: {figure.title}", svg


def publish(results, directory):
    """Between its marks in benchmarks.md, at its end where there are none yet."""
    plots = []
    for file, title, svg in charts(results):
        (directory / file).write_text(svg)
        plots.append((title, file))
    (directory / "benchmarks-push.json").write_text(json.dumps(results, indent=1) + "\n")
    file = directory / "benchmarks.md"
    text = file.read_text() if file.exists() else "# Benchmarks\n"
    part = "\n".join([BEGIN, "", markdown({**results, "plots": plots}).rstrip(), "", END])
    old = kept_between(text, BEGIN, END)
    text = text.replace(old, part) if old else f"{text.rstrip()}\n\n{part}\n"
    file.write_text(text)
