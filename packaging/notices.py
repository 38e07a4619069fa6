#!/usr/bin/env python3
"""Prints the licences of all crates that are in a program: whoever hands the program on has to hand on these too.

    packaging/notices.py [TARGET]

Each crate with its version and the licence that it is used under, then each text once. Of a crate that may be used under
several licences MIT is taken where it is one of them. It asks cargo, offline, and needs the crates' sources, which a
build has fetched.
"""

import json
import pathlib
import re
import subprocess
import sys

# As deny.toml allows them; the first that a crate offers is taken.
TAKEN = ["MIT", "Apache-2.0", "BSD-3-Clause", "Zlib", "Unicode-3.0"]


def ask(*arguments):
    return subprocess.run(["cargo", *arguments], check=True, capture_output=True, text=True).stdout


def host():
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return re.search(r"^host: (.+)$", version, re.M)[1]


def crates(target):
    """The packages that are linked into the program: normal dependencies, and not what builds."""
    found = json.loads(ask("metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", target))
    packages = {package["id"]: package for package in found["packages"]}
    nodes = {node["id"]: node for node in found["resolve"]["nodes"]}
    met, waiting = set(), [found["resolve"]["root"]]
    while waiting:
        at = waiting.pop()
        if at in met:
            continue
        met.add(at)
        # A procedural macro is a program of the compiler's.
        if any("proc-macro" in kind["kind"] for kind in packages[at]["targets"]):
            met.discard(at)
            continue
        for dependency in nodes[at]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    own = set(found["workspace_members"])
    return sorted((packages[at] for at in met - own), key=lambda package: package["name"])


def licence(package):
    offered = package["license"] or ""
    return next((name for name in TAKEN if re.search(rf"\b{re.escape(name)}\b", offered)), offered or "see its text")


def texts(package, name):
    folder = pathlib.Path(package["manifest_path"]).parent
    files = sorted(file for file in folder.iterdir() if re.match(r"(?i)(licen[cs]e|copying|notice|copyright)", file.name) and file.is_file())
    wanted = {"MIT": "mit", "Apache-2.0": "apache", "Zlib": "zlib", "BSD-3-Clause": "bsd"}.get(name, "")
    chosen = [file for file in files if wanted and wanted in file.name.lower()]
    return [file.read_text(errors="replace").strip() for file in chosen or files]


def main():
    target = sys.argv[1] if len(sys.argv) > 1 else host()
    by_text, without = {}, []
    for package in crates(target):
        name = licence(package)
        label = f"{package['name']} {package['version']} ({name})"
        found = texts(package, name)
        if not found:
            authors = ", ".join(package["authors"]) or "its authors"
            without.append(f"{label}, by {authors}: its sources have no text of their own")
        for text in found:
            by_text.setdefault(text, []).append(label)
    print("The program has these crates in it, under the licences that follow.")
    for text, labels in sorted(by_text.items(), key=lambda item: item[1]):
        print("\n" + "-" * 72 + "\n")
        print("\n".join(labels) + "\n\n" + text)
    if without:
        print("\n" + "-" * 72 + "\n")
        print("\n".join(without))


if __name__ == "__main__":
    main()
