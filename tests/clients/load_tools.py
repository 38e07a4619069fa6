"""ab, wrk and h2load: many requests on few connections, and not one may fail."""

import re

from harness import check, equal, run

# wrk gives each answer to the script; it runs in each thread of its own, so one thread.
WRK_SCRIPT = """
local expected = io.open("{path}", "rb"):read("*a")
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function init() wrong, right = 0, 0 end
function response(status, headers, body)
  if status == 200 and body == expected then right = right + 1 else wrong = wrong + 1 end
end
function done()
  print("right: " .. threads[1]:get("right") .. " wrong: " .. threads[1]:get("wrong"))
end
"""


def figure(pattern, answer):
    found = re.search(pattern, answer.stdout.decode(errors="replace"), re.M)
    return found[1] if found else None


def bodies(answer, content):
    return answer.stdout.count(content)


def ab(site, server):
    content = site.content["page.html"]
    url = f"{server.url}/page.html"
    with server.connections("ab -k -c 16", 16):
        answer = run("ab", "-q", "-k", "-n", 20000, "-c", 16, url)
    equal("ab -k: 20000 complete", figure(r"^Complete requests:\s+(\d+)", answer), "20000")
    equal("ab -k: none failed", figure(r"^Failed requests:\s+(\d+)", answer), "0")
    equal("ab -k: all kept alive", figure(r"^Keep-Alive requests:\s+(\d+)", answer), "20000")
    check("ab -k: all are 2xx", answer.returncode == 0 and b"Non-2xx" not in answer.stdout, answer.stdout[-400:])
    equal("ab -k: bytes of all bodies", figure(r"^HTML transferred:\s+(\d+)", answer), str(20000 * len(content)))
    # It prints bodies as text up to a zero byte or a full buffer, so this is a small one.
    small = site.content["small.txt"]
    answer = run("ab", "-k", "-n", 10, "-c", 1, "-v", 4, f"{server.url}/small.txt")
    equal("ab -k -v 4: ten times the right body", bodies(answer, b"\r\n\r\n" + small), 10)


def wrk(site, server, directory):
    script = directory / "wrk.lua"
    script.write_text(WRK_SCRIPT.format(path=site.path("page.html")))
    # And one with which wrk tries whether the address answers at all.
    with server.connections("wrk -c 32", 33):
        answer = run("wrk", "-t1", "-c32", "-d3s", "-s", script, f"{server.url}/page.html")
    text = answer.stdout.decode(errors="replace")
    right, wrong = re.search(r"right: (\d+) wrong: (\d+)", text).groups()
    check("wrk: right bytes in 1000 answers or more", int(right) >= 1000, text)
    equal("wrk: wrong answers", wrong, "0")
    check("wrk: no errors", answer.returncode == 0 and not re.search(r"Socket errors|Non-2xx", text), text)


def h2load(site, server):
    content = site.content["page.html"]
    with server.connections("h2load --h1 -c 8", 8):
        answer = run("h2load", "--h1", "-n", 8000, "-c", 8, "-m", 4, f"{server.url}/page.html")
    equal("h2load --h1, pipelined by 4: requests", figure(r"^(requests: .*)", answer),
          "requests: 8000 total, 8000 started, 8000 done, 8000 succeeded, 0 failed, 0 errored, 0 timeout")
    equal("h2load --h1: all are 200", figure(r"^(status codes: .*)", answer),
          "status codes: 8000 2xx, 0 3xx, 0 4xx, 0 5xx")
    equal("h2load --h1: bytes of all bodies", figure(r"\((\d+)\) data$", answer), str(8000 * len(content)))
    # It prints bodies as they come, with its progress between two reads: so a small one.
    answer = run("h2load", "--h1", "-v", "-n", 20, "-c", 1, "-m", 4, f"{server.url}/small.txt")
    equal("h2load --h1 -v: twenty times the right body", bodies(answer, site.content["small.txt"]), 20)


def checks(site, server, directory):
    ab(site, server)
    wrk(site, server, directory)
    h2load(site, server)
