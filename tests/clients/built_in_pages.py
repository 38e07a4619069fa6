"""The pages that the program itself has, in Chromium: the welcome page through reloads, listings of two thousand odd names,
and the pages of errors."""

import os
import re
import urllib.error
import urllib.parse
import urllib.request

from harness import Server, check, equal, until
from looks import DESK, PHONE, accessible, accessible_in_each_look, check_the_checker, look_as_usual, look_by, picture

RELOADS = 3
LIVE = """
const [done] = arguments;
const text = (id) => document.getElementById(id).textContent;
const ids = ['generation', 'process', 'state', 'seen', 'moved', 'lost', 'uptime', 'requests', 'reload'];
done({...Object.fromEntries(ids.map((id) => [id, text(id)])),
      reloads: [...document.querySelectorAll('#reloads p')].map((line) => line.textContent)});
"""
ICON = """
const [done] = arguments;
const icon = new Image();
icon.src = document.querySelector('link[rel=icon]').href;
icon.decode().then(() => done('decoded'), (error) => done(`${error}`));
"""
COPY = """
const [done] = arguments;
const button = document.querySelector('.command button');
button.click();
const look = () => button.textContent === 'Copy' ? setTimeout(look, 10) : done([button.textContent, `${getSelection()}`]);
look();
"""
# What a listing shows, and where it leads: each row's link as the browser has it, its size and its date.
LISTED = """
const [done] = arguments;
const rows = [...document.querySelectorAll('tbody tr')].map((row) => [row.querySelector('a').href,
  ...[...row.cells].map((cell) => cell.textContent)]);
const next = [...document.querySelectorAll('nav[aria-label=Pages] a')].find((a) => a.textContent.startsWith('The next'));
const sorted = [...document.querySelectorAll('th')].map((head) => head.getAttribute('aria-sort'));
done({rows, next: next ? next.href : null, sorted,
      heading: document.querySelector('h1').textContent, wide: document.querySelector('td + td + td').getBoundingClientRect().width});
"""
CLICK = """
const [selector, done] = arguments;
document.querySelector(selector).click();
done();
"""


def elsewhere(what, browser, server):
    """Nothing on the console, and nothing is asked of anybody else. Answers what was asked for."""
    asked = [response["url"] for response in browser.responses()]
    others = [url for url in asked if not url.startswith(server.url) and not url.startswith("data:")]
    equal(f"{what}: nothing is asked of others", others, [])
    return asked


def welcome(mode, browser, directory):
    for screen, scheme in ((DESK, "light"), (PHONE, "dark")):
        what = f"chromium, the welcome page, {mode}, {screen['width']} px, {scheme}"
        name = f"welcome-{mode}-{screen['width']}"
        server = Server(directory / name, "handover", "--reload", mode, "--reload-probation", "0.2")
        look_by(browser, screen, scheme)
        browser.go("about:blank")
        browser.responses()
        browser.go(server.url)
        look = lambda: browser.script(LIVE)
        equal(f"{what}: its title", browser.ask("GET", "/title"), "handover is running")
        equal(f"{what}: its icon is an image", browser.script(ICON), "decoded")
        check(f"{what}: it shows the server", until(lambda: look()["state"] == "Live." and look()["uptime"] != "–"), look())
        equal(f"{what}: the command that reloads it", look()["reload"], f"kill -HUP {server.pid()}")
        copied = browser.script(COPY)
        check(f"{what}: a click copies it, or selects it", copied[0] in ("Copied", "Selected"), copied)
        for reload in range(1, RELOADS + 1):
            check(f"{what}: reload", server.reload(mode), server.log()[-400:])
            shown = lambda: (look()["generation"], look()["seen"]) == (str(reload + 1), str(reload))
            check(f"{what}: it shows the reload happen", until(shown), look())
        page = look()
        equal(f"{what}: nothing is lost", page["lost"], "0")
        check(f"{what}: something has moved", until(lambda: int(look()["moved"]) >= RELOADS), look())
        equal(f"{what}: the process that serves", page["process"], str(server.pid()))
        equal(f"{what}: the command is for that process", page["reload"], f"kill -HUP {server.pid()}")
        said = [re.sub(r"^.*?: |, process.*| in process.*", "", line) for line in page["reloads"]]
        wanted = [f"generation {new} has taken over from {new - 1}" for new in range(RELOADS + 1, 1, -1)]
        equal(f"{what}: it says each reload", said, wanted)
        check(f"{what}: with nothing lost", all(" 0 connections lost." in line for line in page["reloads"]), page["reloads"])
        if mode == "overlap":
            browser.script("getSelection().empty(); arguments[0](0);")
            picture(browser, f"welcome-{screen['width']}", 785 if screen is DESK else None)
        equal(f"{what}: nothing on the console", browser.console(), [])
        asked = elsewhere(what, browser, server)
        equal(f"{what}: one stream, on one connection", len([url for url in asked if "/figures" in url]), 1)
        accessible_in_each_look(what, browser)
        browser.go("about:blank")
        server.stop()
    look_as_usual(browser)


def without_script(browser, directory):
    """What somebody sees whose browser runs no script."""
    what = "chromium, the welcome page without scripts"
    server = Server(directory / "welcome-still", "handover")
    page = urllib.request.urlopen(server.url, timeout=30).read().decode()
    still = re.sub(r"(?s)<script>.*?</script>", "", page)
    check(f"{what}: it says which process to reload", f'kill -HUP <span class="pid">{server.pid()}</span>' in still, still)
    check(f"{what}: and what to do then", "<noscript>" in still and 'id="live" hidden' in still, still)
    server.stop()


# Names of any bytes but NUL and a slash, which begin with no dot.
PIECES = [b"a", b"Z", b"7", b"10", b" ", b"'", b'"', b"<", b"&amp;", b"%41", b"\xff", "ä".encode(), "日本".encode(), b"\\", b"\n",
          b"+", b"?", b"#", b";", b":"]


def odd_names():
    names = set()
    for number in range(2000):
        name = b"".join(PIECES[number // 20**at % 20] for at in range(3)) + b"%d" % number
        if number % 23 == 0:
            name += (b"\xff" if number % 2 else b"'") * (255 - len(name))
        names.add(name)
    return sorted(names)


def natural(name):
    """As the page sorts: numbers as numbers, letters of ASCII whatever their case is, then by bytes."""
    parts = [(0x30, int(part)) if part.isdigit() else (part.lower()[0], 0) for part in re.findall(rb"[0-9]+|[^0-9]", name, re.S)]
    return parts, name


def prepare(directory):
    """Each file has its own name in it, some are larger, and of several the time is the same."""
    directory.mkdir()
    files = {}
    for number, name in enumerate(odd_names()):
        path = os.path.join(os.fsencode(directory), name)
        content = name + b"x" * (number * 7919 % 3000)
        time = 1_700_000_000 + number * 7919 % 1500 * 60
        with open(path, "wb") as file:
            file.write(content)
        os.utime(path, (time, time))
        files[name] = (content, time)
    for name in ("d2", "d10", ".hidden"):
        (directory / name).mkdir()
        (directory / name / "inside.txt").write_text(name)
    return files


def pages(browser):
    """All pages from the one that is shown, and the names of their files in that order."""
    found = []
    while True:
        page = browser.script(LISTED)
        found.append(page)
        if page["next"] is None:
            return found
        browser.go(page["next"])


def name_of(href):
    return urllib.parse.unquote_to_bytes(urllib.parse.urlsplit(href).path.lstrip("/"))


def listing(browser, directory):
    what = "chromium, a listing"
    root = directory / "odd"
    files = prepare(root)
    server = Server(directory / "listing", "handover", "--listing", root)
    browser.go("about:blank")
    browser.responses()
    browser.go(server.url)
    look_by(browser, DESK, "light")
    all_pages = pages(browser)
    rows = [row for page in all_pages for row in page["rows"]]
    check(f"{what}: it goes on over pages", len(all_pages) > 3, len(all_pages))
    equal(f"{what}: directories first, then each name once, as people sort them",
          [name_of(row[0]) for row in rows], [b"d2/", b"d10/"] + sorted(files, key=natural))
    wrong = []
    for href, _, size, date in rows[2:]:
        (content, _), size, date = files[name_of(href)], size.strip(), date.strip()
        got = urllib.request.urlopen(href, timeout=30).read()
        if got != content or (len(content) < 1024 and size != f"{len(content)} B") or not re.fullmatch(r"2023-\d\d-\d\d \d\d:\d\d", date):
            wrong.append((href, size, date))
    equal(f"{what}: each of {len(rows) - 2} links leads to its file, by its bytes", wrong, [])
    shown = {name_of(row[0]): row[1] for row in rows}
    equal(f"{what}: names are shown as they are", {name for name in files if shown[name] != re.sub(
        r"[\x00-\x1f]", "\ufffd", name.decode(errors="replace"))}, set())

    # Each head of a column by a click, twice.
    columns = [("Size", 2, lambda name: len(files[name][0])), ("Modified", 3, lambda name: files[name][1]), ("Name", 1, None)]
    for title, column, number in columns:
        for turn in range(2):
            browser.script(CLICK, f"th:nth-child({column}) a")
            until(lambda: (browser.script(LISTED)["sorted"][column - 1] is not None)
                  and (turn == 0 or browser.script(LISTED)["sorted"] != before))
            before = browser.script(LISTED)["sorted"]
            descending = before[column - 1] == "descending"
            found = [name_of(row[0]) for page in pages(browser) for row in page["rows"]]
            if number:
                expected = sorted(sorted(files, key=natural), key=number, reverse=descending)
                # What is equal stands by name, in either direction.
                expected = sorted(expected, key=lambda name: (-number(name) if descending else number(name), natural(name)))
            else:
                expected = sorted(files, key=natural, reverse=descending)
            equal(f"{what}: by {title}, {before[column - 1]}", found[2:], expected)
            browser.go(f"{server.url}/?sort={'size' if column == 2 else 'modified' if column == 3 else 'name'}"
                       f"&order={'desc' if descending else 'asc'}")

    browser.go(f"{server.url}/d10/")
    page = browser.script(LISTED)
    equal(f"{what}: below", (page["heading"], [name_of(row[0]) for row in page["rows"]]), ("Index of /d10/", [b"", b"d10/inside.txt"]))
    accessible_in_each_look(f"{what}, below", browser)
    for query in ("", "?sort=size&order=desc"):
        browser.go(f"{server.url}/{query}")
        accessible_in_each_look(f"{what} {query}", browser)
        check(f"{what}: sizes and dates are there on a phone", browser.script(LISTED)["wide"] > 40, browser.script(LISTED)["wide"])
    equal(f"{what}: nothing on the console", browser.console(), [])
    elsewhere(what, browser, server)
    server.stop()
    look_as_usual(browser)


def a_picture_of_a_listing(browser, directory):
    """Of something that looks like what people have."""
    root = directory / "shown"
    root.mkdir()
    for name in ("archive", "photos"):
        (root / name).mkdir()
        os.utime(root / name, (1_790_000_000, 1_790_000_000))
    for number, (name, size) in enumerate([("LICENSE", 1071), ("notes 2.txt", 212), ("notes 10.txt", 3418), ("report.pdf", 881_203),
                                           ("backup.tar.zst", 48_318_382), ("lights.png", 1211), ("größer & <kleiner>.txt", 64)]):
        with open(root / name, "wb") as file:
            file.truncate(size)
        os.utime(root / name, (1_780_000_000 + number * 777_777,) * 2)
    server = Server(directory / "listing-shown", "handover", "--listing", root)
    for screen, scheme in ((DESK, "light"), (PHONE, "dark")):
        look_by(browser, screen, scheme)
        browser.go(f"{server.url}/?sort=modified&order=desc" if screen is DESK else server.url)
        accessible(f"chromium, a listing, {screen['width']} px", browser)
        picture(browser, f"listing-{screen['width']}", 420 if screen is DESK else None)
    look_by(browser, PHONE, "light")
    browser.go(f"{server.url}/nothing")
    picture(browser, "error-360", 300)
    browser.console()
    server.stop()
    look_as_usual(browser)


def errors(browser, directory):
    what = "chromium, errors"
    root = directory / "few"
    root.mkdir()
    (root / "index.html").write_text("<!doctype html><title>few</title>")
    config = directory / "errors.toml"
    routes = "".join(f"[[route]]\nprefix = '/{status}'\nstatus = {status}\n" for status in (403, 410, 500, 503))
    config.write_text(f"root = {str(root)!r}\n{routes}")
    server = Server(directory / "errors", "handover", "-c", config)
    browser.console()
    for path, status, phrase in (("/nothing", 404, "Not Found"), ("/403", 403, "Forbidden"), ("/410", 410, "Gone"),
                                 ("/500", 500, "Internal Server Error"), ("/503", 503, "Service Unavailable")):
        browser.go("about:blank")
        browser.responses()
        browser.go(server.url + path)
        equal(f"{what}: {path}", browser.ask("GET", "/title"), f"{status} {phrase}")
        accessible_in_each_look(f"{what}: {path}", browser)
        asked = elsewhere(f"{what}: {path}", browser, server)
        equal(f"{what}: {path} is all that is asked for", asked, [server.url + path])
        # Of the page itself a browser says that it was an error; of nothing else.
        console = [line for line in browser.console() if not line.startswith(f"{server.url}{path} - Failed to load resource")]
        equal(f"{what}: {path}: nothing else on the console", console, [])
    answers = {}
    for accept in (None, "*/*", "application/json"):
        try:
            urllib.request.urlopen(urllib.request.Request(f"{server.url}/nothing", headers={"Accept": accept} if accept else {}), timeout=30)
        except urllib.error.HTTPError as error:
            answers[accept] = (error.code, error.headers["Content-Type"], error.read())
    equal(f"{what}: everybody else has a line of text", set(answers.values()),
          {(404, "text/plain; charset=utf-8", b"404 Not Found\n")})
    browser.go("about:blank")
    server.stop()
    look_as_usual(browser)


def checks(browser, directory):
    check_the_checker("chromium, axe-core", browser)
    for mode in ("exec", "overlap"):
        welcome(mode, browser, directory)
    without_script(browser, directory)
    errors(browser, directory)
    listing(browser, directory)
    a_picture_of_a_listing(browser, directory)
