"""How pages are looked at: on a desk and on a phone, in light and dark, and by axe-core, which knows what somebody who sees,
hears or moves in another way stumbles over.

PICTURES=DIR leaves pictures of them there: those in docs/ are made so.
"""

import base64
import os
import pathlib

from harness import check, equal

DESK = {"width": 1280, "height": 1100, "deviceScaleFactor": 1, "mobile": False}
PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
LOOKS = [(screen, scheme) for screen in (DESK, PHONE) for scheme in ("light", "dark")]

# Everything that axe-core knows, its best practices too. What it cannot decide by itself it says as incomplete.
AXE = """
const done = arguments[arguments.length - 1];
window.axe.run(document, {preload: false, resultTypes: ['violations'], rules: {'target-size': {enabled: true}}}).then(
  (found) => done(found.violations.map((one) => [one.id, one.nodes.map((node) => node.html.slice(0, 120)).slice(0, 5)])),
  (error) => done([['axe', [`${error}`]]]));
"""
OVERFLOW = """
arguments[0](document.documentElement.scrollWidth - window.innerWidth);
"""


def devtools(browser, command, **parameters):
    return browser.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})


def look_by(browser, screen, scheme):
    devtools(browser, "Emulation.setDeviceMetricsOverride", **screen)
    devtools(browser, "Emulation.setScrollbarsHidden", hidden=True)
    devtools(browser, "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


def look_as_usual(browser):
    devtools(browser, "Emulation.clearDeviceMetricsOverride")
    devtools(browser, "Emulation.setEmulatedMedia", features=[])


def axe():
    """Its script, as npm has installed it."""
    return pathlib.Path(os.environ["NODE_PATH"], "axe-core", "axe.min.js").read_text()


def accessible(what, browser):
    """The page that is shown, as it is shown: nobody stumbles, and nothing sticks out."""
    browser.script(axe() + ";arguments[0](0);")
    equal(f"{what}: axe-core finds nothing", browser.script(AXE), [])
    overflow = browser.script(OVERFLOW)
    check(f"{what}: it fits", overflow <= 0, overflow)


def check_the_checker(what, browser):
    """It finds something where there is something."""
    browser.go("data:text/html,<title>faults</title><img src='data:,'><p style='color: silver'>hardly to be read</p>")
    browser.script(axe() + ";arguments[0](0);")
    found = {one for one, _ in browser.script(AXE)}
    check(f"{what}: it sees what is wrong", {"image-alt", "color-contrast", "html-has-lang"} <= found, found)


def accessible_in_each_look(what, browser):
    for screen, scheme in LOOKS:
        look_by(browser, screen, scheme)
        accessible(f"{what}, {screen['width']} px, {scheme}", browser)


def picture(browser, name, height=None):
    """As it is shown, or as much of it from the top."""
    if directory := os.environ.get("PICTURES"):
        options = {"format": "png"}
        if height:
            width = browser.script("arguments[0](window.innerWidth);")
            options["clip"] = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shown = devtools(browser, "Page.captureScreenshot", **options)["data"]
        pathlib.Path(directory, f"{name}.png").write_bytes(base64.b64decode(shown))
