"""The table of docs/small-hosts.md, between two marks; what stands around it is written by hand."""

import json

from toolchain import ROOT, TARGETS, cache

PAGE = ROOT / "docs/small-hosts.md"
BEGIN, END = "<!-- targets: written by `just small all` -->\n", "<!-- targets: end -->\n"
HEAD = ["target", "size", "resident at rest", "start to ready", "integration tests", "reloads by overlap", "reloads by exec",
        "with the calls of Linux 4.14 alone", "measured"]
UNDER = "not tried: the emulator's own {what} would be measured"


def reloads(figures):
    return f"{figures['reloads']}, {figures['connections']} connections, {figures['messages']} messages: none lost, none twice"


def cells(target):
    """What stands in the columns for one target."""
    try:
        row = json.loads(kept(target).read_text())
    except FileNotFoundError:
        return [f"`{target.triple}`"] + ["not tried: no run of it was kept"] * (len(HEAD) - 1)
    best = lambda what: min(row[mode][what] for mode in ("overlap", "exec"))
    unoptimised = "not tried: it was built with --dev" if row["profile"] == "dev" else None
    return [
        f"`{row['triple']}`",
        unoptimised or f"{row['size'] / 1024:,.0f} KiB",
        UNDER.format(what="memory") if not row["native"] else unoptimised or f"{best('resident'):,} KiB",
        UNDER.format(what="time") if not row["native"] else unoptimised or f"{best('ready') * 1000:.0f} ms",
        f"{row['tests']} passed" if "tests" in row else "not tried" if row["native"] else "not tried: hours under an emulator",
        reloads(row["overlap"]),
        reloads(row["exec"]),
        f"{row['old']} reloads, the same" if "old" in row else "not tried: the emulator makes the calls",
        row["measured"],
    ]


def kept(target):
    return cache() / f"measured-{target.name}.json"


def keep(target, row):
    """Keeps what was measured, for a table that is written later. What was built to be released stays beside the tests, which
    are built with --dev.
    """
    before = json.loads(kept(target).read_text()) if kept(target).exists() else {}
    if row["profile"] == "dev" and before.get("profile") == "release":
        row = {**before, **({"tests": row["tests"]} if "tests" in row else {})}
    kept(target).write_text(json.dumps(row))


def lines(head, rows):
    return ["| " + " | ".join(row) + " |\n" for row in [head, ["---"] * len(head), *rows]]


def put(begin, end, text):
    """Writes the text between two marks of the page."""
    before, rest = PAGE.read_text().split(begin)
    _, after = rest.split(end)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def write():
    put(BEGIN, END, "".join(lines(HEAD, map(cells, TARGETS.values()))))
