"""Subscribers that others have written, through reloads, a stop and a start, and a kill: EventSource of npm and of
Chromium, httpx-sse, and long polls by fetch. What each has heard is held against what was published."""

import json
import pathlib
import subprocess
import threading
import time

import httpx
import httpx_sse
import requests

from harness import Server, check, equal, free_port, until
from in_browser import Browser
from recorder import Recorder

HERE = pathlib.Path(__file__).resolve().parent
RELOADS = 3
# What each has to hear before the first reload and behind each.
MESSAGES = 30
# Between two publications.
PAUSE = 0.01
TOPIC = "/events/numbers"
CONFIG = """
idle_timeout = 600
[[push]]
prefix = "/events"
publish = "local"
origins = ["{listed}"]
history = 100000
heartbeat = 1
"""
PAGE = b"""<!doctype html>
<title>subscribers</title>
<script type="module">
  import { stream, poll } from './subscribers.mjs';
  const topic = new URLSearchParams(location.search).get('events');
  window.seen = { stream: stream(EventSource, `${topic}?since=start`), poll: poll(topic) };
</script>
"""
SEEN = "const [done] = arguments; done(window.seen);"
# Nothing that a form could send, so a browser asks before; and what a page may not do, it is told.
PUBLISH = """
const [url, done] = arguments;
fetch(url, {method: 'POST', body: '0', headers: {'Idempotency-Key': 'k'}})
  .then(async (answer) => done([answer.status, await answer.text()]), (error) => done([0, `${error}`]));
"""


class Publisher:
    """The numbers from 1 on, each once: no publication is tried a second time."""

    def __init__(self, url):
        self.url, self.published, self.failures, self.ended = url + TOPIC, 0, [], False
        # Held by whoever wants it quiet.
        self.turn = threading.Lock()
        self.session = requests.Session()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.ended:
            with self.turn:
                self.publish(1)
            time.sleep(PAUSE)

    def publish(self, count):
        numbers = range(self.published + 1, self.published + 1 + count)
        lines = "".join(json.dumps({"topic": "numbers", "data": str(number)}) + "\n" for number in numbers)
        url, body = (self.url, str(numbers[0])) if count == 1 else (self.url.rpartition("/")[0], lines)
        try:
            answer = self.session.post(url, body, timeout=30)
            if answer.status_code != 200:
                raise ValueError(answer.text)
            self.published += count
        except (OSError, ValueError) as error:
            self.failures.append(repr(error))

    def end(self):
        self.ended = True
        self.thread.join()


class Subscriber:
    """What it has seen: `heard`, `opened`, `errors`, and where that is known `connections`."""

    def numbers(self):
        return [what for what in self.seen["heard"] if what != "gap"]

    def gaps(self):
        return self.seen["heard"].count("gap")

    def look(self):
        pass

    def end(self):
        pass


class InNode(Subscriber):
    def __init__(self, name, how, url):
        self.name, self.seen = name, {"heard": [], "opened": 0, "errors": []}
        command = ["node", HERE / "subscribers.mjs", how, url]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        for line in self.child.stdout:
            self.seen = json.loads(line)

    def end(self):
        self.child.stdin.close()
        self.thread.join()
        self.child.wait(30)


class HttpxSse(Subscriber):
    """It is a parser, and comes back as its documentation has it: by a loop around it."""

    name = "httpx-sse"

    def __init__(self, url):
        self.url, self.seen, self.ended = url, {"heard": [], "opened": 0, "errors": []}, False
        self.client = httpx.Client(timeout=30)
        self.id, self.retry = "", 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.ended:
            try:
                self.listen()
                self.seen["errors"].append("the stream ended")
            except httpx.TransportError as error:
                self.seen["errors"].append(repr(error))
            time.sleep(self.retry / 1000)

    def listen(self):
        fields = {"Last-Event-ID": self.id} if self.id else {}
        with httpx_sse.connect_sse(self.client, "GET", self.url, headers=fields) as source:
            source.response.raise_for_status()
            self.seen["opened"] += 1
            for event in source.iter_sse():
                self.id, self.retry = event.id, event.retry or self.retry
                if event.event == "@gap":
                    self.seen["heard"].append("gap")
                # Where others dispatch nothing, at an id alone, it has an event without data.
                elif event.data:
                    self.seen["heard"].append(int(event.data))
                if self.ended:
                    return

    def end(self):
        # It hears the next heartbeat, or comes back to nobody.
        self.ended = True
        self.thread.join()
        self.client.close()


class InPage(Subscriber):
    def __init__(self, name, browser, window, which):
        self.name, self.browser, self.window, self.which = name, browser, window, which
        self.look()

    def look(self):
        self.browser.turn_to(self.window)
        self.seen = self.browser.script(SEEN)[self.which]


def hear(when, subscribers, holds):
    """Waits until all have heard what `holds` looks for."""
    late = list(subscribers)

    def all_there():
        for subscriber in late:
            subscriber.look()
        late[:] = [subscriber for subscriber in late if not holds(subscriber)]
        return not late

    until(all_there)
    check(f"push, {when}: each of {len(subscribers)} subscribers has heard it", not late,
          [(subscriber.name, str(subscriber.seen)[-300:]) for subscriber in late])


def goes_on(when, subscribers):
    goals = {subscriber: len(subscriber.numbers()) + MESSAGES for subscriber in subscribers}
    hear(when, subscribers, lambda subscriber: len(subscriber.numbers()) >= goals[subscriber])


def hear_all(when, publisher, subscribers):
    """With the publisher quiet."""
    last = publisher.published
    equal(f"push, {when}: no publication failed", publisher.failures, [])
    hear(when, subscribers, lambda subscriber: subscriber.numbers()[-1:] == [last])
    for subscriber in subscribers:
        right = subscriber.numbers() == list(range(1, last + 1)) and subscriber.gaps() == 0
        check(f"{subscriber.name}, {when}: all of {last} messages, each once and in order, and no gap", right,
              first_difference(subscriber.seen["heard"]))


def first_difference(heard):
    wrong = [(at, what) for at, what in enumerate(heard, 1) if at != what]
    return f"{len(heard)} heard, the first wrong ones {wrong[:3]}"


def few(what, connections):
    """A poller's pool opens another one when it asks before the first is known to be free."""
    check(f"{what}: connections used: 1 to 3", 1 <= connections <= 3, connections)


def noticed_nothing(when, server, publisher, subscribers, browser, places):
    with publisher.turn:
        hear_all(when, publisher, subscribers)
    for subscriber in subscribers:
        equal(f"{subscriber.name}, {when}: no error", subscriber.seen["errors"], [])
        if "poll" not in subscriber.name:
            equal(f"{subscriber.name}, {when}: streams opened: 1", subscriber.seen["opened"], 1)
        if "connections" in subscriber.seen:
            few(f"{subscriber.name}, {when}", subscriber.seen["connections"])
    responses = browser.responses()
    for place in places:
        for what in ("?since", "?wait"):
            used = {response["connectionId"] for response in responses if response["url"].startswith(place + what)}
            few(f"chromium, {what[1:]} at {place}, {when}", len(used))
    equal(f"push, {when}: no connection was closed", server.closes(), [])


def through_reloads(mode, server, publisher, subscribers, browser, places):
    goes_on(f"{mode}, before", subscribers)
    for reload in range(1, RELOADS + 1):
        check(f"push, {mode}: reload {reload}", server.reload(mode), server.log()[-400:])
        goes_on(f"{mode}, behind reload {reload}", subscribers)
    noticed_nothing(f"across {RELOADS} reloads, {mode}", server, publisher, subscribers, browser, places)


def through_a_stop(mode, server, publisher, subscribers):
    when = f"across a stop and a start, {mode}"
    with publisher.turn:
        # Which nobody may have heard when it stops; and then what comes while they are away.
        publisher.publish(200)
        server.stop()
        server.start()
        publisher.publish(50)
    goes_on(when, subscribers)
    with publisher.turn:
        hear_all(when, publisher, subscribers)
    for subscriber in subscribers:
        if "poll" not in subscriber.name:
            equal(f"{subscriber.name}, {when}: streams opened: 2", subscriber.seen["opened"], 2)


def of_another_origin(mode, browser, recorder, listed, unlisted, window):
    """What a browser asks before a page of another origin may do something, and what such a page gets."""
    what = f"chromium, another origin, {mode}"

    def asked(method, origin):
        return [fields for name, _, fields in recorder.requests if name == method and fields.get("origin") == origin]

    back = [fields["last-event-id"] for fields in asked("GET", listed) if "last-event-id" in fields]
    equal(f"{what}: it came back with Last-Event-ID, once", len(back), 1)
    equal(f"{what}: and asked nothing before", asked("OPTIONS", listed), [])
    browser.turn_to(window)
    status, text = browser.script(PUBLISH, recorder.url + TOPIC)
    check(f"{what}: a page is no client of this host, and is told so", status == 403 and "host" in text, (status, text))
    equal(f"{what}: before that it was asked", len(asked("OPTIONS", listed)), 1)

    window = browser.open(f"{unlisted}/subscribers.html?events={recorder.url}{TOPIC}")
    page = [InPage(which, browser, window, which) for which in ("stream", "poll")]
    hear(f"{mode}, a page of an origin that is not listed", page, lambda subscriber: subscriber.seen["errors"])
    stream, poll = page
    equal(f"{what} that is not listed: EventSource is closed", stream.seen["errors"], ["error, state 2"])
    check(f"{what} that is not listed: a poll fails", "TypeError" in poll.seen["errors"][0], poll.seen)
    heard = [(subscriber.seen["heard"], subscriber.seen["opened"]) for subscriber in page]
    equal(f"{what} that is not listed: nothing is heard", heard, [([], 0)] * 2)
    status, text = browser.script(PUBLISH, recorder.url + TOPIC)
    check(f"{what} that is not listed: may not publish", status == 0, (status, text))
    equal(f"{what} that is not listed: asked before, and then did not", len(asked("POST", unlisted)), 0)


def through_a_kill(mode, server, publisher, subscribers):
    when = f"across a kill and a start, {mode}"
    for subscriber in subscribers:
        equal(f"{subscriber.name}, before {when}: no gap", subscriber.gaps(), 0)
    with publisher.turn:
        before = publisher.published
        hear(f"before {when}", subscribers, lambda subscriber: subscriber.numbers()[-1:] == [before])
        server.kill()
        server.start()
        behind = publisher.published
    hear(when, subscribers, lambda subscriber: subscriber.gaps())
    goes_on(when, subscribers)
    with publisher.turn:
        last = publisher.published
        hear(f"{when}, the last", subscribers, lambda subscriber: subscriber.numbers()[-1:] == [last])
        # One of them is looked at as it is now, and not as it was when it was asked.
        for subscriber in subscribers:
            heard = subscriber.seen["heard"]
            equal(f"{subscriber.name}, {when}: one gap", subscriber.gaps(), 1)
            at = heard.index("gap")
            equal(f"{subscriber.name}, {when}: it was said before anything else", heard[:at], list(range(1, before + 1)))
            equal(f"{subscriber.name}, {when}: then each once", heard[at + 1:], list(range(behind + 1, last + 1)))


def across(mode, browser, site, directory):
    other = Server(directory / f"pages-{mode}", "handover", site.directory)
    listed, unlisted = other.url, other.url.replace("127.0.0.1", "localhost")
    config = directory / f"push-{mode}.toml"
    config.write_text(CONFIG.format(listed=listed))
    flags = ["-c", config, "--history-file", directory / f"history-{mode}"]
    flags += ["--reload", mode, "--reload-probation", "0.2"]
    server = Server(directory / f"push-{mode}-server", "handover", *flags, site.directory, port=free_port())
    recorder = Recorder(server.port)
    publisher = Publisher(server.url)
    topic = server.url + TOPIC
    subscribers = [InNode("eventsource", "stream", f"{topic}?since=start"), InNode("node fetch, poll", "poll", topic)]
    subscribers.append(HttpxSse(f"{topic}?since=start"))
    places = [topic, recorder.url + TOPIC]
    try:
        for what, page, events in zip(("the same origin", "another origin"), (server.url, listed), places):
            window = browser.open(f"{page}/subscribers.html?events={events}")
            subscribers.append(InPage(f"chromium EventSource, {what}", browser, window, "stream"))
            subscribers.append(InPage(f"chromium fetch, poll, {what}", browser, window, "poll"))
        through_reloads(mode, server, publisher, subscribers, browser, places)
        through_a_stop(mode, server, publisher, subscribers)
        of_another_origin(mode, browser, recorder, listed, unlisted, window)
        through_a_kill(mode, server, publisher, subscribers)
    finally:
        publisher.end()
        for subscriber in subscribers:
            subscriber.end()
        browser.close_windows()
        recorder.close()
    server.stop()
    other.stop()


def checks(site, directory):
    site.put("subscribers.html", PAGE)
    site.put("subscribers.mjs", (HERE / "subscribers.mjs").read_bytes())
    browser = Browser(directory / "profile")
    try:
        for mode in ("exec", "overlap"):
            across(mode, browser, site, directory)
    finally:
        browser.close()
