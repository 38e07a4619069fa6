"""Chromium without a window, driven through chromedriver by the WebDriver protocol."""

import contextlib
import json
import re
import subprocess
import urllib.error
import urllib.request

import built_in_pages
import chat_page
import movie
import status_page
from harness import Server, check, equal

FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
    "--disable-extensions", "--no-proxy-server", "--autoplay-policy=no-user-gesture-required",
    # Several windows are open at a time, and none is a background.
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
]

# In the page: both end with an answer, also when nothing comes of it.
SEEK = """
const [time, done] = arguments;
const video = document.querySelector('video');
const tell = (event) => done({event, time: video.currentTime, duration: video.duration, state: video.readyState,
                              width: video.videoWidth, error: video.error && video.error.message});
const seek = () => {
  video.addEventListener('seeked', () => tell('seeked'), {once: true});
  video.currentTime = time;
};
video.addEventListener('error', () => tell('error'), {once: true});
setTimeout(() => tell('nothing for 20 s'), 20000);
if (video.error) tell('error'); else if (video.readyState >= 1) seek();
else video.addEventListener('loadedmetadata', seek, {once: true});
"""
FETCH = """
const [path, done] = arguments;
fetch(path, {cache: 'no-store'}).then(async (answer) => done([answer.status, await answer.text()]))
  .catch((error) => done([0, `${error}`]));
"""


class Browser:
    def __init__(self, directory, logs=("browser", "performance")):
        self.profile = directory
        self.profile.mkdir()
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        for line in self.driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                break
        else:
            raise RuntimeError("chromedriver did not start")
        self.url = f"http://127.0.0.1:{found[1]}/session"
        options = {"args": [*FLAGS, f"--user-data-dir={self.profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": dict.fromkeys(logs, "ALL")}
        session = self.ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self.url += "/" + session["sessionId"]
        self.first = self.ask("GET", "/window")
        self.version = session["capabilities"]["browserVersion"]

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            # Not through a proxy that the environment may name.
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:400]) from None

    def go(self, url):
        self.ask("POST", "/url", {"url": url})

    def open(self, url):
        """Another window, which is the one that is driven from now on. Answers how to come back to it."""
        window = self.ask("POST", "/window/new", {"type": "tab"})["handle"]
        self.turn_to(window)
        self.go(url)
        return window

    def turn_to(self, window):
        self.ask("POST", "/window", {"handle": window})

    def close_windows(self):
        """All that were opened."""
        for window in self.ask("GET", "/window/handles"):
            if window != self.first:
                self.turn_to(window)
                self.ask("DELETE", "/window")
        self.turn_to(self.first)

    def script(self, script, *arguments):
        return self.ask("POST", "/execute/async", {"script": script, "args": list(arguments)})

    def console(self):
        return [entry["message"] for entry in self.ask("POST", "/se/log", {"type": "browser"})]

    def responses(self):
        """What came over the network since the last look, from DevTools."""
        entries = self.ask("POST", "/se/log", {"type": "performance"})
        events = [json.loads(entry["message"])["message"] for entry in entries]
        return [event["params"]["response"] for event in events if event["method"] == "Network.responseReceived"]

    def close(self):
        with contextlib.suppress(OSError, RuntimeError):
            self.ask("DELETE", "")
        self.driver.terminate()
        self.driver.wait(30)


def first_byte(response):
    fields = {name.lower(): value for name, value in response["headers"].items()}
    found = re.match(r"bytes (\d+)-", fields.get("content-range", ""))
    return int(found[1]) if found else -1


def seek(what, browser, time):
    found = browser.script(SEEK, time)
    equal(f"{what}: seeked to {time}, and a picture there",
          (found["event"], found["time"], found["state"] >= 2, found["width"], found["error"]),
          ("seeked", time, True, movie.WIDTH, None))
    return found


def film(mode, browser, site, directory):
    what = f"chromium, a film, {mode}"
    flags = ["--reload", mode, "--reload-probation", "0.2"]
    server = Server(directory / f"film-{mode}", "handover", site.directory, *flags)
    browser.go(f"{server.url}/movie.html")
    browser.responses()
    found = seek(what, browser, movie.SECONDS / 2)
    equal(f"{what}: its length", found["duration"], movie.SECONDS)
    parts = [response for response in browser.responses() if response["url"].endswith("/movie.webm")]
    middle = len(site.content["movie.webm"]) // 2
    far = [response for response in parts if response["status"] == 206 and first_byte(response) > middle // 2]
    check(f"{what}: the seek was a range that was answered 206", far,
          [(response["status"], first_byte(response)) for response in parts])

    small = [200, site.content["small.txt"].decode()]
    equal(f"{what}: fetch before a reload", browser.script(FETCH, "/small.txt?before"), small)
    check(f"{what}: reload", server.reload(mode), server.log()[-400:])
    equal(f"{what}: fetch behind a reload", browser.script(FETCH, "/small.txt?behind"), small)
    fetched = {response["url"].rpartition("?")[2]: response["connectionId"] for response in browser.responses()}
    check(f"{what}: both on one connection", fetched.get("before", "none") == fetched.get("behind", ""), fetched)
    seek(f"{what}, behind a reload", browser, movie.SECONDS - 10)
    equal(f"{what}: nothing on the console", browser.console(), [])
    browser.go("about:blank")
    server.stop()


def checks(site, directory):
    browser = Browser(directory / "profile")
    try:
        built_in_pages.checks(browser, directory)
        for mode in ("exec", "overlap"):
            film(mode, browser, site, directory)
            chat_page.checks(mode, browser, directory)
            status_page.checks(mode, browser, directory)
    finally:
        browser.close()
