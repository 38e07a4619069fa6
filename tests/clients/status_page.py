"""The status page in Chromium, on a desk and on a phone, under load through reloads; and its metrics by the parser of
Prometheus's own client.
"""

import contextlib
import http.client
import threading
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from harness import Server, check, equal, free_port, until
from looks import DESK, PHONE, accessible_in_each_look, look_as_usual, look_by, picture

RELOADS = 3
# Besides what the server says, whether each plot has a line that has changed since the last look.
LOOK = """
const [done] = arguments;
const text = (id) => document.getElementById(id).textContent;
const paths = [...document.querySelectorAll('#plots path')].map((path) => path.getAttribute('d') || '');
const labels = [...document.querySelectorAll('#plots svg')].map((svg) => svg.getAttribute('aria-label') || '');
done({
  state: text('state'), generation: text('generation'), opened: text('opened'), seen: text('seen'),
  version: text('version'), paths, labels,
  marks: document.querySelectorAll('#plots line.reload').length / document.querySelectorAll('#plots figure').length,
  reloads: [...document.querySelectorAll('#reloads tr')].map((row) => [...row.cells].map((cell) => cell.textContent)),
  threads: document.querySelectorAll('#threads tr').length,
  meters: [...document.querySelectorAll('#limits label:not([hidden]) meter')].map((meter) => meter.value / meter.max),
  overflow: document.documentElement.scrollWidth - window.innerWidth,
});
"""


class Load:
    """Some requests, and some that are refused, until it is left."""

    def __init__(self, server):
        self.server, self.ends, self.failures = server, threading.Event(), []

    def __enter__(self):
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(3)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        for thread in self.threads:
            thread.join(30)

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        number = 0
        while not self.ends.wait(0.002):
            number += 1
            path = "/nowhere" if number % 10 == 0 else "/hello"
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                if answer.status != (404 if number % 10 == 0 else 200):
                    self.failures.append(f"{path}: {answer.status}")
            except OSError as error:
                self.failures.append(f"{path}: {error}")
                return


def metrics(server):
    """Each sample by its name and labels, as Prometheus's own parser has it."""
    page = urllib.request.urlopen(f"{server.url}/-/metrics", timeout=30).read().decode()
    found = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            key = (family.type, sample.name, tuple(sorted(sample.labels.items())))
            equal_once = key not in found
            if not equal_once:
                check(f"metrics: {key} stands once", False)
            found[key] = sample.value
    return found


def grown(before, after):
    """What counts and has become less, or is not there any more."""
    counts = {key: value for key, value in before.items() if key[0] in ("counter", "histogram", "summary")}
    return [(key, value, after.get(key)) for key, value in counts.items() if after.get(key, -1) < value]


def checks(mode, browser, directory):
    for screen, scheme in ((DESK, "light"), (PHONE, "dark")):
        width = screen["width"]
        what = f"chromium, the status page, {mode}, {width} px"
        server = Server(directory / f"status-{mode}-{width}", "examples/lab", "--reload", mode, "--reload-probation", "0.5",
                        port=free_port())
        look_by(browser, screen, scheme)
        browser.responses()
        look = lambda: browser.script(LOOK)
        with Load(server) as load, contextlib.ExitStack() as stack:
            slow = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            stack.callback(slow.close)
            browser.go(f"{server.url}/-/status")
            check(f"{what}: it shows the server", until(lambda: look()["state"] == "serving"), look())
            counted = metrics(server)
            falls = []
            for reload in range(1, RELOADS + 1):
                before = look()["paths"]
                moved = lambda: sum(now != then for now, then in zip(look()["paths"], before))
                check(f"{what}: the plots move", until(lambda: moved() >= 8), (before, look()["paths"]))
                check(f"{what}: reload", server.reload(mode), server.log()[-400:])
                shown = lambda: look()["generation"] == str(reload + 1) and look()["marks"] == reload
                check(f"{what}: it shows the reload happen", until(shown), look())
                now = metrics(server)
                falls += grown(counted, now)
                counted = now
            listed = lambda: [row[1:4] for row in look()["reloads"]]
            wanted = [[str(generation), mode, "succeeded"] for generation in range(RELOADS + 1, 1, -1)]
            check(f"{what}: it lists the reloads", until(lambda: listed() == wanted), listed())
            # Something to see.
            slow.request("GET", "/sleep/2000")
            until(lambda: "/sleep/2000" in browser.ask("GET", "/source"))
            picture(browser, f"status-{width}")
            page = look()
            equal(f"{what}: on one connection through {RELOADS} reloads", (page["opened"], page["seen"]), ("1", str(RELOADS)))
            check(f"{what}: no number is none", not any("NaN" in label for label in page["labels"]), page["labels"])
            check(f"{what}: every limit has a place", page["meters"] and all(0 <= one <= 1 for one in page["meters"]), page)
            check(f"{what}: it fits", page["overflow"] <= 0, page["overflow"])
            accessible_in_each_look(what, browser)
        equal(f"{what}: nobody else noticed", load.failures, [])
        equal(f"{what}: no counter fell", falls, [])
        equal(f"{what}: nothing on the console", browser.console(), [])
        asked = [response["url"] for response in browser.responses()]
        elsewhere = [url for url in asked if not url.startswith(server.url) and not url.startswith("data:")]
        equal(f"{what}: nothing is asked of others", elsewhere, [])
        equal(f"{what}: one stream", len([url for url in asked if "/-/status/events" in url]), 1)
        browser.go("about:blank")
        server.stop()
    look_as_usual(browser)
