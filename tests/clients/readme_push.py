"""The README's example of push, word for word: the program that is built and a free port in the place of those that stand
there, the page in a browser, and what they say in the end."""

import re
import subprocess

from harness import RELEASE, ROOT, check, equal, free_port, until
from in_browser import Browser

SHOWN = "const [done] = arguments; done(document.querySelector('output').textContent);"


def block(language):
    text = (ROOT / "README.md").read_text().split("\n## Push\n")[1].split("\n## ")[0]
    return re.search(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1]


def script(port):
    """What is built already is not built again."""
    lines = block("bash").replace("cargo build --release\n", "")
    lines = lines.replace("./target/release/handover", f"{RELEASE.resolve()}/handover -l 127.0.0.1:{port}")
    return lines.replace("8888", str(port))


def values(heard):
    """The data of the events that have some, each with its id."""
    events = [dict(line.partition(": ")[::2] for line in event.splitlines()) for event in heard.split("\n\n")]
    return [event["data"] for event in events if "data" in event and event.get("id")]


def checks(directory):
    (directory / "examples").symlink_to(ROOT / "examples")
    port = free_port()
    browser = Browser(directory / "profile-readme")
    # A shell that waits for what it has started; -e, so that no line fails unnoticed.
    said = open(directory / "said", "wb")
    shell = subprocess.Popen(["sh", "-e"], stdin=subprocess.PIPE, stdout=said, stderr=said, cwd=directory, text=True)
    try:
        # The page is opened while the lines run, by somebody who has the browser beside the terminal.
        lines = script(port).splitlines(keepends=True)
        started = next(number for number, line in enumerate(lines) if "server=$!" in line) + 1
        shell.stdin.write("".join(lines[:started]) + "echo started\n")
        shell.stdin.flush()
        until(lambda: "started" in (directory / "said").read_text())
        browser.go(f"http://127.0.0.1:{port}/")
        shell.stdin.write("".join(lines[started:]))
        shell.stdin.close()
        code = shell.wait(60)
        text, heard = (directory / "said").read_text(), (directory / "heard").read_text()
        equal("readme, push: each line ended well", code, 0)
        equal("readme, push: three values, each with its id", values(heard), ["21.5", "21.7", "21.9"])
        check("readme, push: and when to come back", re.search(r"retry: \d+\n\n$", heard), heard[-200:])
        check("readme, push: it was a new generation", "generation=2" in text, text[-400:])
        equal("readme, push: the page shows the last value", browser.script(SHOWN), "21.9")
        log = [line for line in text.splitlines() if re.search(r"ERROR|panicked", line)]
        equal("readme, push: no error in the log", log, [])
    finally:
        browser.close()
        said.close()
        if shell.poll() is None:
            shell.kill()
            shell.wait(30)
