#!/usr/bin/env python3
"""Says which public items have no example: neither of their own, nor in that of their type, nor by a link to one.

The argument is the library's documentation as JSON, as `.ci/public-api` has it made by a nightly rustdoc.
"""

import json
import re
import sys

NAMED = ("struct", "enum", "trait", "function", "constant", "macro", "type_alias", "module")


def examples(docs):
    """The code of all blocks that are compiled, or stand for what is run."""
    return "\n".join(re.findall(r"^```[^\n]*\n(.*?)^```", docs or "", re.S | re.M))


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        crate = json.load(file)
    index = crate["index"]
    found = []

    def kind(item):
        return next(iter(item["inner"]))

    def has_example(item):
        return bool(examples(item["docs"]))

    def is_shown(item, page):
        """`page`: the item whose page it stands on, if that is not its own."""
        if has_example(item):
            return True
        name = re.compile(rf"\b{re.escape(item['name'])}\b")
        if page is not None and name.search(examples(page["docs"])):
            return True
        linked = (index.get(str(target)) for target in item["links"].values())
        return any(other is not None and has_example(other) for other in linked)

    def look(item, path, page=None):
        if not is_shown(item, page):
            found.append(path)

    def members(item, path):
        inner = item["inner"][kind(item)]
        if kind(item) == "trait":
            for at in inner["items"]:
                member = index[str(at)]
                if kind(member) == "function":
                    look(member, f"{path}::{member['name']}", item)
        for at in inner.get("impls", []):
            implementation = index[str(at)]["inner"]["impl"]
            if implementation["trait"] is None:
                for at in implementation["items"]:
                    member = index[str(at)]
                    if member["visibility"] == "public":
                        look(member, f"{path}::{member['name']}", item)

    def walk(module, path):
        for at in module["inner"]["module"]["items"]:
            item = index.get(str(at))
            if item is None or item["visibility"] != "public":
                continue
            if kind(item) == "use":
                used = index.get(str(item["inner"]["use"]["id"]))
                # Of another crate, which shows its own.
                if used is None:
                    continue
                name, item = item["inner"]["use"]["name"], used
            else:
                name = item["name"]
            here = f"{path}::{name}"
            if kind(item) == "module":
                walk(item, here)
            elif kind(item) in NAMED:
                look(item, here)
                if kind(item) in ("struct", "enum", "trait"):
                    members(item, here)

    root = index[str(crate["root"])]
    walk(root, root["name"])
    for path in sorted(found):
        print(path)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
