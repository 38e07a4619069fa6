"""sockjs-client in Node and in Chromium, each of its transports by name, through reloads: every message is echoed, once and
in order, in one session. SOCKJS_MESSAGES and SOCKJS_RELOADS say how many for each transport and mode."""

import json
import os
import pathlib
import subprocess

import requests

from harness import Server, check, equal, free_port, until
from in_browser import Browser

HERE = pathlib.Path(__file__).resolve().parent
TALKERS = HERE / "talkers.cjs"
SOCKJS = pathlib.Path(os.environ.get("NODE_PATH", "")) / "sockjs-client/dist/sockjs.min.js"
MESSAGES = int(os.environ.get("SOCKJS_MESSAGES", 90))
RELOADS = int(os.environ.get("SOCKJS_RELOADS", 2))
# Milliseconds between two messages of a transport.
PACE = 40
IN_NODE = ["websocket", "xhr-streaming", "eventsource", "xhr-polling"]
SAME_ORIGIN = ["xhr-streaming", "eventsource", "htmlfile", "xhr-polling"]
OTHER_ORIGIN = ["websocket", "xhr-streaming", "eventsource", "iframe-eventsource", "iframe-htmlfile", "xhr-polling",
                "iframe-xhr-polling", "jsonp-polling"]
SERVICE = "/sockjs/echo"
# Behind the talkers' own text, which ends in functions.
LOAD = """
const [sockjs, pace, urls, done] = arguments;
const script = document.createElement('script');
script.onload = () => { window.ask = talk(SockJS, pace, urls); done('loaded'); };
script.onerror = () => done('not loaded');
script.src = sockjs;
document.head.append(script);
"""
ASK = "const [what, done] = arguments; done(window.ask(what));"


class InNode:
    name = "node"

    def __init__(self, urls, pace=PACE):
        command = ["node", TALKERS, str(pace), json.dumps(urls)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what):
        self.child.stdin.write(what + "\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def end(self):
        self.child.stdin.close()
        self.child.wait(30)


class InPage:
    def __init__(self, browser, where, page, lab, urls):
        self.name, self.browser = f"chromium, {where}", browser
        self.window = browser.open(page)
        script = TALKERS.read_text() + LOAD
        equal(f"sockjs, {self.name}: the client is loaded", browser.script(script, f"{lab.url}/sockjs.js", PACE, urls), "loaded")

    def ask(self, what):
        self.browser.turn_to(self.window)
        return self.browser.script(ASK, what)

    def end(self):
        pass


class All:
    """All talkers of a mode, by where they are and how they talk."""

    def __init__(self, places):
        self.places = places

    def ask(self, what="look"):
        return {(place.name, name): seen for place in self.places for name, seen in place.ask(what).items()}

    def hear(self, when, more):
        """Until each has heard so many more."""
        goals = {talker: seen["heard"] + more for talker, seen in self.ask().items()}

        def late():
            return {talker: seen for talker, seen in self.ask().items() if seen["heard"] < goals[talker]}

        heard = until(lambda: not late(), 60)
        return check(f"sockjs, {when}: each of {len(goals)} has heard {more} more", heard, heard or str(late())[:600])


def who_serves(lab):
    said = requests.get(f"{lab.url}/pid", timeout=30).json()
    return said["pid"], said["generation"]


def reload(when, mode, lab):
    pid, generation = who_serves(lab)
    reloaded = check(f"sockjs, {when}", lab.reload(mode), lab.log()[-400:])
    behind, next_generation = who_serves(lab)
    equal(f"sockjs, {when}: it is the next generation", next_generation, generation + 1)
    check(f"sockjs, {when}: in the process that there should be", (behind == pid) == (mode == "exec"), (pid, behind))
    return reloaded


def through_reloads(mode, talkers, lab):
    part = -(-MESSAGES // (RELOADS + 1))
    # What it takes to open them all is no wait.
    if not talkers.hear(f"{mode}, at first", 5):
        return
    talkers.ask("mark")
    talkers.hear(f"{mode}, before", part)
    otherwise = {talker: seen["worst"] for talker, seen in talkers.ask("mark").items()}
    for number in range(1, RELOADS + 1):
        if not reload(f"{mode}, reload {number}", mode, lab):
            return
        talkers.hear(f"{mode}, behind reload {number}", part)
    talkers.ask("quiet")
    until(lambda: all(seen["heard"] == seen["sent"] for seen in talkers.ask().values()))
    for (where, name), seen in talkers.ask().items():
        right = seen["heard"] == seen["sent"] >= MESSAGES and not seen["wrong"]
        check(f"sockjs, {mode}, {where}, {name}: all echoed, each once and in order", right, json.dumps(seen)[:400])
        equal(f"sockjs, {mode}, {where}, {name}: one session, by that transport",
              (seen["opened"], seen["closed"], seen["transport"]), (1, None, name))
        print(f"clients: sockjs, {mode}, {where}, {name}: {seen['heard']} messages, {RELOADS} reloads; the longest until an "
              f"echo: {seen['worst']:.0f} ms, before them {otherwise[where, name]:.0f} ms", flush=True)


def across(mode, browser, site, directory):
    other = Server(directory / f"pages-{mode}", "handover", site.directory)
    # A browser has six connections to an address, and a stream is one of them all the time.
    port = free_port()
    hosts = [f"127.0.0.{number}" for number in range(2, 2 + len(OTHER_ORIGIN))]
    listeners = [part for host in hosts for part in ("-l", f"{host}:{port}")]
    flags = [*listeners, "--reload", mode, "--reload-probation", "0.2"]
    lab = Server(directory / f"lab-{mode}", "examples/lab", *flags, port=port, environment={"LAB_SOCKJS": str(SOCKJS)})
    places = []
    try:
        places.append(InNode({name: lab.url + SERVICE for name in IN_NODE}))
        own = {name: lab.url + SERVICE for name in SAME_ORIGIN}
        places.append(InPage(browser, "the same origin", f"{lab.url}/hello", lab, own))
        urls = {name: f"http://{host}:{port}{SERVICE}" for name, host in zip(OTHER_ORIGIN, hosts)}
        places.append(InPage(browser, "another origin", other.url, lab, urls))
        through_reloads(mode, All(places), lab)
    finally:
        for place in places:
            place.end()
        browser.close_windows()
    lab.stop()
    other.stop()


def checks(site, directory):
    browser = Browser(directory / "profile", ["browser"])
    try:
        for mode in ("exec", "overlap"):
            across(mode, browser, site, directory)
    finally:
        browser.close()
