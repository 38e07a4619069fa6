"""curl: many transfers of one process over one connection."""

import os
import re

from harness import check, equal, run, sha256


def curl(*arguments, **options):
    return run("curl", "-sS", "--max-time", "60", *arguments, **options)


def transfers(answer):
    """What `-w '%{stderr}...'` said of each transfer: connections opened, status, bytes down, bytes up."""
    return [tuple(map(int, line)) for line in re.findall(rb"^=(\d+) (\d+) (\d+) (\d+)$", answer.stderr, re.M)]


# The progress meter of --parallel may stand before it, on the same line.
TELL = ("-w", "%{stderr}\\n=%{num_connects} %{http_code} %{size_download} %{size_upload}\n")


def several_files(site, server, directory):
    names = ["index.html", "data.bin", "empty.txt", "page.html", "small.txt", "data.bin"]
    arguments = []
    for number, name in enumerate(names):
        arguments += ["-o", directory / f"several-{number}", f"{server.url}/{name}"]
    with server.connections("curl, six files", 1):
        answer = curl(*TELL, *arguments)
    found = transfers(answer)
    equal("curl, six files: all are 200", [status for _, status, _, _ in found], [200] * 6)
    equal("curl, six files: connections by its own count: 1", sum(opened for opened, *_ in found), 1)
    bodies = [sha256((directory / f"several-{number}").read_bytes()) for number in range(6)]
    equal("curl, six files: right bytes", bodies, [sha256(site.content[name]) for name in names])


def parallel(site, server, directory):
    with server.connections("curl --parallel, 60 files", (1, 4)):
        answer = curl(*TELL, "--parallel", "--parallel-max", "4", "-o", directory / "parallel-#1",
                      f"{server.url}/page.html?[1-60]")
    found = transfers(answer)
    equal("curl --parallel, 60 files: all are 200", [status for _, status, _, _ in found], [200] * 60)
    bodies = {sha256((directory / f"parallel-{number}").read_bytes()) for number in range(1, 61)}
    equal("curl --parallel, 60 files: right bytes", bodies, {sha256(site.content["page.html"])})


def uploads(site, lab, directory):
    data, page = site.path("data.bin"), site.path("page.html")
    chunked = ["-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue"]
    with lab.connections("curl, uploads", 1):
        answer = curl(
            "-v", *TELL, "--data-binary", f"@{data}", "-H", "Expect: 100-continue", "-o", directory / "up-0",
            f"{lab.url}/echo",
            "--next", "-sSv", *TELL, "-X", "POST", "-T", "-", *chunked, "-o", directory / "up-1", f"{lab.url}/echo",
            "--next", "-sSv", *TELL, "-X", "POST", "-T", page, *chunked, "-o", directory / "up-2", f"{lab.url}/echo",
            "--next", "-sSv", *TELL, "--data-binary", "", "-o", directory / "up-3", f"{lab.url}/echo",
            "--next", "-sSv", *TELL, "-o", directory / "up-4", f"{lab.url}/hello",
            input=site.content["data.bin"],
        )
    found = transfers(answer)
    equal("curl, uploads: all are 200", [status for _, status, _, _ in found], [200] * 5)
    equal("curl, uploads: connections by its own count: 1", sum(opened for opened, *_ in found), 1)
    bodies = [sha256((directory / f"up-{number}").read_bytes()) for number in range(5)]
    expected = [site.content["data.bin"], site.content["data.bin"], site.content["page.html"], b"", b"hello world"]
    equal("curl, uploads by length and chunked: the same bytes came back", bodies, [sha256(body) for body in expected])
    equal("curl, uploads: 100 Continue each time it was asked for", answer.stderr.count(b"< HTTP/1.1 100 Continue"), 3)
    equal("curl, uploads: 100 Continue was waited for", answer.stderr.count(b"Done waiting for 100-continue"), 0)


def refused_upload(site, lab):
    answer = curl(*TELL, "--data-binary", f"@{site.path('data.bin')}", "-H", "Expect: 100-continue",
                  f"{lab.url}/hello")
    equal("curl, upload beyond the limit: 413, and nothing was sent",
          [(status, up) for _, status, _, up in transfers(answer)], [(413, 0)])


def head(site, server):
    with server.connections("curl -I", 1):
        answer = curl("-I", f"{server.url}/data.bin", f"{server.url}/page.html",
                      "--next", "-sS", f"{server.url}/small.txt")
    lengths = [int(length) for length in re.findall(rb"(?i)^content-length: (\d+)\r$", answer.stdout, re.M)]
    equal("curl -I: the lengths that GET would have", lengths,
          [len(site.content[name]) for name in ("data.bin", "page.html")])
    check("curl -I: GET behind it has its body", answer.stdout.endswith(b"\r\n\r\n" + site.content["small.txt"]),
          answer.stdout[-200:])


def ranges(site, server, directory):
    data = site.content["data.bin"]
    url = f"{server.url}/data.bin"
    parts = {"0-0": data[:1], "100-199": data[100:200], "-50": data[-50:], "3000000-": data[3000000:]}
    arguments = []
    for number, wanted in enumerate(parts):
        arguments += ["--next"] if number else []
        arguments += ["-sS", *TELL, "-r", wanted, "-o", directory / f"range-{number}", url]
    with server.connections("curl -r", 1):
        answer = curl(*arguments)
    equal("curl -r: all are 206", [status for _, status, _, _ in transfers(answer)], [206] * 4)
    bodies = [(directory / f"range-{number}").read_bytes() for number in range(4)]
    equal("curl -r: right bytes", [sha256(body) for body in bodies], [sha256(body) for body in parts.values()])
    partly = directory / "partly"
    partly.write_bytes(data[:1234567])
    answer = curl(*TELL, "-C", "-", "-o", partly, url)
    equal("curl -C -: a download goes on where it ended", (transfers(answer)[0][2], sha256(partly.read_bytes())),
          (len(data) - 1234567, sha256(data)))
    answer = curl(*TELL, "-r", f"{len(data)}-", "-o", os.devnull, url)
    equal("curl -r: 416 behind the end", [status for _, status, _, _ in transfers(answer)], [416])


def conditional(site, server, directory):
    url = f"{server.url}/page.html"
    tag = directory / "etag"
    curl("--etag-save", tag, "-o", os.devnull, url)
    with server.connections("curl, conditional", 1):
        answer = curl(*TELL, "--etag-compare", tag, url, "--next", "-sS", *TELL, "-z", site.path("page.html"), url,
                      "--next", "-sS", *TELL, "-z", "1999-12-31", url)
    equal("curl --etag-compare, -z: 304 twice, and 200 for an older date",
          [(status, down) for _, status, down, _ in transfers(answer)],
          [(304, 0), (304, 0), (200, len(site.content["page.html"]))])
    equal("curl, conditional: right bytes", sha256(answer.stdout), sha256(site.content["page.html"]))


def the_rest(site, server):
    page = sha256(site.content["page.html"])
    answer = curl("--compressed", f"{server.url}/page.html")
    equal("curl --compressed: right bytes", sha256(answer.stdout), page)
    with server.connections("curl --http1.0, keep-alive", 1):
        answer = curl("--http1.0", "-H", "Connection: keep-alive", *[f"{server.url}/page.html"] * 3)
    equal("curl --http1.0: right bytes", sha256(answer.stdout), sha256(site.content["page.html"] * 3))
    with server.connections("curl --http2", 1):
        answer = curl("--http2", *TELL, *[f"{server.url}/page.html"] * 2)
    equal("curl --http2: the upgrade is not taken, and HTTP/1.1 goes on",
          ([status for _, status, _, _ in transfers(answer)], sha256(answer.stdout)),
          ([200, 200], sha256(site.content["page.html"] * 2)))
    with server.connections("curl --unix-socket", 1):
        answer = curl("--unix-socket", server.socket_path, *["http://localhost/page.html"] * 2)
    equal("curl --unix-socket: right bytes", sha256(answer.stdout), sha256(site.content["page.html"] * 2))


def checks(site, server, lab, directory):
    several_files(site, server, directory)
    parallel(site, server, directory)
    uploads(site, lab, directory)
    refused_upload(site, lab)
    head(site, server)
    ranges(site, server, directory)
    conditional(site, server, directory)
    the_rest(site, server)
