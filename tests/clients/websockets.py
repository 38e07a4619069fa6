"""WebSockets with clients that others have written: kosoku, which drives the cases of the Autobahn test suite, and ws of npm,
aiohttp and Chromium through reloads."""

import asyncio
import json
import pathlib
import subprocess
import sys

import aiohttp

from harness import Server, check, equal, until
from in_browser import Browser

HERE = pathlib.Path(__file__).resolve().parent
RELOADS = 2
# Those of 12 and 13 are about compressed messages, which the default build has not.
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
# That many there are.
NUMBER = 301
GOOD = {"OK", "INFORMATIONAL"}
COUNTED = 20


def conformance(lab, directory):
    selected = [argument for case in CASES for argument in ("-i", case)]
    kosoku = pathlib.Path(sys.executable).parent / "kosoku"
    address = f"ws://127.0.0.1:{lab.port}/ws/echo"
    command = [kosoku, *selected, "-p", "4", "-o", directory / "report", address]
    answer = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240)
    report = directory / "report/index.json"
    if not report.exists():
        check("kosoku: it has run", False, (answer.stdout + answer.stderr)[-400:])
        return
    (cases,) = json.loads(report.read_text()).values()
    equal("kosoku: cases", len(cases), NUMBER)
    bad = {
        case: (found["behavior"], found["behaviorClose"])
        for case, found in cases.items()
        if not {found["behavior"], found["behaviorClose"]} <= GOOD
    }
    check("kosoku: each is OK or informational", not bad, str(dict(list(bad.items())[:5])))


class Node:
    """ws of npm, in Node."""

    name = "ws"

    def __init__(self, url):
        command = ["node", str(HERE / "counting.mjs"), url]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def look(self):
        self.child.stdin.write("look\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def end(self):
        self.child.stdin.close()
        self.child.wait()


class Python:
    """aiohttp, in a loop of its own that runs while it is looked at."""

    name = "aiohttp"

    def __init__(self, url):
        self.loop, self.seen = asyncio.new_event_loop(), {"answers": 0, "wrong": [], "closed": None}
        self.session, self.socket = self.loop.run_until_complete(self.connect(url))

    async def connect(self, url):
        session = aiohttp.ClientSession()
        return session, await session.ws_connect(url)

    async def count(self):
        for _ in range(COUNTED):
            await self.socket.send_str("next")
            said = await self.socket.receive(timeout=20)
            expected = str(self.seen["answers"] + 1)
            if said.data != expected:
                self.seen["wrong"].append(f"{said} instead of {expected}")
                return
            self.seen["answers"] += 1

    def look(self):
        if not self.seen["wrong"]:
            self.loop.run_until_complete(self.count())
        return self.seen

    def end(self):
        self.loop.run_until_complete(self.socket.close())
        self.loop.run_until_complete(self.session.close())
        self.loop.close()


# In the page: as counting.mjs, with what a page sees of an end.
COUNTING = """
const [url, done] = arguments;
const seen = window.seen = {answers: 0, wrong: [], closed: null};
const socket = window.counts = new WebSocket(url);
socket.onopen = () => socket.send('next');
socket.onmessage = (event) => {
  if (event.data === `${seen.answers + 1}`) seen.answers += 1;
  else seen.wrong.push(`${event.data} instead of ${seen.answers + 1}`);
  setTimeout(() => socket.readyState === WebSocket.OPEN && socket.send('next'), 2);
};
socket.onerror = () => seen.wrong.push('an error');
socket.onclose = (event) => { seen.closed = event.code; };
done();
"""
LOOK = "arguments[0](window.seen);"
# Its own end, which it is to hear of as well.
END = """
const [done] = arguments;
window.counts.onclose = (event) => done([event.code, event.wasClean]);
window.counts.close(1000);
"""


class Chromium:
    """A page in Chromium."""

    name = "chromium"

    def __init__(self, browser, lab):
        self.browser = browser
        browser.go(f"{lab.url}/hello")
        browser.script(COUNTING, f"ws://127.0.0.1:{lab.port}/ws/count")

    def look(self):
        return self.browser.script(LOOK)

    def end(self):
        equal("chromium: its close is answered", self.browser.script(END), [1000, True])
        said = [line for line in self.browser.console() if "WebSocket" in line]
        equal("chromium: nothing of it on the console", said, [])


def goes_on(when, client):
    before = client.look()["answers"]
    # Every answer is the next number: the client looks.
    gone_on = until(lambda: client.look()["answers"] >= before + COUNTED)
    seen = client.look()
    fine = gone_on and not seen["wrong"] and seen["closed"] is None
    check(f"{client.name}, {when}: each answer is the next number", fine, json.dumps(seen)[-300:])


def through_reloads(mode, browser, directory):
    lab = Server(directory / mode, "examples/lab", "--reload", mode, "--reload-probation", "0.2")
    clients = [Node(f"ws://127.0.0.1:{lab.port}/ws/count"), Python(f"{lab.url}/ws/count")]
    clients.append(Chromium(browser, lab))
    for client in clients:
        goes_on(f"{mode}, before", client)
    for reload in range(1, RELOADS + 1):
        check(f"websocket, {mode}: reload {reload}", lab.reload(mode), lab.log()[-400:])
        for client in clients:
            goes_on(f"{mode}, behind reload {reload}", client)
    for client in clients:
        client.end()
    lab.stop()


def checks(lab, directory):
    conformance(lab, directory)
    browser = Browser(directory / "profile")
    try:
        for mode in ("exec", "overlap"):
            through_reloads(mode, browser, directory)
    finally:
        browser.close()
