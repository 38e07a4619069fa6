"""The page of the chat, in two windows of Chromium: somebody types while the server reloads."""

from harness import Server, check, equal, free_port, until

JOIN = """
const [name, done] = arguments;
document.getElementById('name').value = name;
document.getElementById('join').requestSubmit();
done();
"""
# As fast as the page takes it: what it cannot send stays in the field.
TYPE = """
const [done] = arguments;
const field = document.getElementById('text');
let number = 0;
window.typing = setInterval(() => {
  field.value = `line ${number}`;
  document.getElementById('say').requestSubmit();
  if (!field.value) number += 1;
}, 10);
done();
"""
STOP = """
const [done] = arguments;
clearInterval(window.typing);
done();
"""
SAY = """
const [text, done] = arguments;
document.getElementById('text').value = text;
document.getElementById('say').requestSubmit();
done();
"""
LOOK = """
const [done] = arguments;
const text = (id) => document.getElementById(id).textContent;
const lines = [...document.querySelectorAll('#lines li')];
const said = (line) => line.textContent.replace(/^.*? (?=Ann|Bob)/, '');
done({
  state: text('state'), here: text('here'), server: text('server').split(',')[0],
  lines: lines.filter((line) => line.className !== 'event').map(said),
  events: lines.filter((line) => line.className === 'event').map((line) => line.textContent),
  made: document.querySelectorAll('#lines img, #lines script').length,
  overflow: document.documentElement.scrollWidth - window.innerWidth,
});
"""
PHONE = {"width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": True}


def checks(mode, browser, directory):
    what = f"chromium, the chat, {mode}"
    port = free_port()
    server = Server(directory / f"chat-{mode}", "examples/chat", "--reload", mode, "--reload-probation", "0.2", port=port)
    look = lambda: browser.script(LOOK)
    joined = lambda here: until(lambda: (look()["state"], look()["here"]) == ("connected", here))
    browser.go(f"{server.url}/?transport=plain")
    browser.script(JOIN, "Ann")
    check(f"{what}: one joins by a plain WebSocket", joined("Ann"), look())
    bob = browser.open(f"{server.url}/?transport=xhr-polling")
    browser.ask("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": PHONE})
    browser.script(JOIN, "Bob")
    check(f"{what}: another joins by a polled session of SockJS", joined("Ann, Bob"), look())
    browser.script(TYPE)
    for generation in ("2", "3"):
        before = len(look()["lines"])
        until(lambda: len(look()["lines"]) > before + 10)
        check(f"{what}: reload", server.reload(mode), server.log()[-400:])
        before = len(look()["lines"])
        check(f"{what}: it goes on", until(lambda: len(look()["lines"]) > before + 10), look())
        equal(f"{what}: the page says which generation serves", look()["server"], f"generation {generation}")
    browser.script(STOP)
    browser.script(SAY, "<img src=x onerror=alert(1)><b>bold</b>")
    last = "Bob <img src=x onerror=alert(1)><b>bold</b>"
    until(lambda: look()["lines"][-1:] == [last])
    heard = {"Bob": look()}
    equal(f"{what}: nothing on the console of one", browser.console(), [])
    browser.turn_to(browser.first)
    until(lambda: look()["lines"][-1:] == [last])
    heard["Ann"] = look()
    equal(f"{what}: nothing on the console of the other", browser.console(), [])
    for name, page in heard.items():
        wanted = [f"Bob line {number}" for number in range(len(page["lines"]) - 1)] + [last]
        check(f"{what}: {name} has heard each line once, in order", page["lines"] == wanted, page["lines"])
        equal(f"{what}: {name} has not come back for that", (page["state"], page["here"]), ("connected", "Ann, Bob"))
        equal(f"{what}: what is said to {name} is text", page["made"], 0)
    check(f"{what}: the page fits a phone", heard["Bob"]["overflow"] <= 0, heard["Bob"]["overflow"])
    # The end that nobody can prepare for: the pages come back by themselves, and say so.
    server.kill()
    until(lambda: look()["state"].startswith("not connected"))
    server.start()
    for window in (browser.first, bob):
        browser.turn_to(window)
        check(f"{what}: behind a crash it comes back", until(lambda: look()["state"] == "connected again"), look())
        equal(f"{what}: and says what it cannot know", "some lines may be missing here" in look()["events"], True)
    equal(f"{what}: both are here again", look()["here"], "Ann, Bob")
    # What it says of the crash is for nobody else.
    browser.console()
    browser.close_windows()
    browser.go("about:blank")
    server.stop()
