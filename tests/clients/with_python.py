"""requests, httpx and aiohttp: sessions, uploads and downloads that stream, ranges, 304."""

import asyncio
import concurrent.futures

import aiohttp
import httpx
import requests

from harness import check, equal, sha256

PIECE = 65536


def pieces(data):
    for at in range(0, len(data), PIECE):
        yield data[at:at + PIECE]


async def pieces_async(data):
    for piece in pieces(data):
        yield piece


def requests_files(site, server):
    data, page = site.content["data.bin"], site.content["page.html"]
    with requests.Session() as session:
        bodies = [session.get(f"{server.url}/{name}", timeout=30).content == site.content[name]
                  for name in ["page.html", "data.bin", "empty.txt", "small.txt"] * 5]
        equal("requests, 20 files: right bytes", bodies, [True] * 20)
        with session.get(f"{server.url}/data.bin", stream=True, timeout=30) as answer:
            equal("requests, streaming download: right bytes",
                  sha256(b"".join(answer.iter_content(PIECE))), sha256(data))
        answer = session.get(f"{server.url}/data.bin", headers={"Range": "bytes=1000000-1999999"}, timeout=30)
        equal("requests, range: 206, right bytes", (answer.status_code, sha256(answer.content)),
              (206, sha256(data[1000000:2000000])))
        answer = session.get(f"{server.url}/page.html", timeout=30)
        again = session.get(f"{server.url}/page.html", headers={"If-None-Match": answer.headers["ETag"]}, timeout=30)
        equal("requests, If-None-Match: 304 without a body", (again.status_code, again.content), (304, b""))
        answer = session.head(f"{server.url}/page.html", timeout=30)
        equal("requests, HEAD: the length", (answer.headers["Content-Length"], answer.content), (str(len(page)), b""))
        equal("requests, 404", session.get(f"{server.url}/nothing", timeout=30).status_code, 404)
        pools = session.get_adapter(server.url).poolmanager.pools
        pools = [pools[key] for key in pools.keys()]
        equal("requests: connections by its own count: 1", [pool.num_connections for pool in pools], [1])
        equal("requests: answers by its own count: 26", [pool.num_requests for pool in pools], [26])


def requests_uploads(site, lab):
    data, page = site.content["data.bin"], site.content["page.html"]
    with requests.Session() as session:
        for what, body, expected in [
            ("by length", data, data),
            ("chunked", pieces(data), data),
            ("of one byte", b"x", b"x"),
            ("chunked, small", pieces(page), page),
        ]:
            answer = session.post(f"{lab.url}/echo", data=body, timeout=30)
            equal(f"requests, upload {what}: the same bytes came back", sha256(answer.content), sha256(expected))
        answer = session.get(f"{lab.url}/stream/20/5", timeout=30)
        equal("requests, chunked answer", answer.text, "".join(f"chunk {n} of 20\n" for n in range(1, 21)))


def with_requests(site, server, lab):
    page = site.content["page.html"]
    # In functions of their own: an answer that somebody still holds keeps the pool open.
    with server.connections("requests", 1):
        requests_files(site, server)
    with lab.connections("requests, uploads", 1):
        requests_uploads(site, lab)

    def own_session(_):
        with requests.Session() as session:
            return [session.get(f"{server.url}/page.html", timeout=30).content == page for _ in range(50)]

    with server.connections("requests, 8 threads", 8), concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [right for answers in pool.map(own_session, range(8)) for right in answers]
    equal("requests, 8 threads: 400 right answers", answers, [True] * 400)


def with_httpx(site, server, lab):
    data, page = site.content["data.bin"], site.content["page.html"]
    with server.connections("httpx", 1), httpx.Client(timeout=30) as client:
        bodies = [client.get(f"{server.url}/{name}").content == site.content[name]
                  for name in ["page.html", "data.bin", "empty.txt"] * 5]
        equal("httpx, 15 files: right bytes", bodies, [True] * 15)
        with client.stream("GET", f"{server.url}/data.bin") as answer:
            equal("httpx, streaming download: right bytes", sha256(b"".join(answer.iter_raw())), sha256(data))
        answer = client.get(f"{server.url}/data.bin", headers={"Range": "bytes=-1000"})
        equal("httpx, range: 206, right bytes", (answer.status_code, answer.content), (206, data[-1000:]))
        tag = client.head(f"{server.url}/page.html").headers["ETag"]
        answer = client.get(f"{server.url}/page.html", headers={"If-None-Match": tag})
        equal("httpx, If-None-Match: 304 without a body", (answer.status_code, answer.content), (304, b""))
    with lab.connections("httpx, uploads", 1), httpx.Client(timeout=30) as client:
        for what, body in [("by length", data), ("chunked", pieces(data)), ("of nothing", b"")]:
            answer = client.post(f"{lab.url}/echo", content=body)
            equal(f"httpx, upload {what}: the same bytes came back", sha256(answer.content),
                  sha256(data if body else b""))

    async def at_once():
        limits = httpx.Limits(max_connections=4, max_keepalive_connections=4)
        async with httpx.AsyncClient(timeout=30, limits=limits) as client:
            answers = await asyncio.gather(*(client.get(f"{server.url}/page.html") for _ in range(200)))
            return [answer.content == page for answer in answers]

    with server.connections("httpx, 200 at once over 4", (1, 4)):
        answers = asyncio.run(at_once())
    equal("httpx, 200 at once over 4: right bytes", answers, [True] * 200)


async def aiohttp_files(site, server):
    data, page = site.content["data.bin"], site.content["page.html"]
    opened = []
    trace = aiohttp.TraceConfig()

    async def created(*_):
        opened.append(1)

    trace.on_connection_create_end.append(created)
    connector = aiohttp.TCPConnector(limit=4)
    async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as session:

        async def fetch(name, **options):
            async with session.get(f"{server.url}/{name}", **options) as answer:
                return answer.status, await answer.read()

        answers = await asyncio.gather(*(fetch("page.html") for _ in range(200)))
        equal("aiohttp, 200 at once over 4: right bytes", answers, [(200, page)] * 200)
        whole = b""
        async with session.get(f"{server.url}/data.bin") as answer:
            async for piece in answer.content.iter_any():
                whole += piece
        equal("aiohttp, streaming download: right bytes", sha256(whole), sha256(data))
        status, body = await fetch("data.bin", headers={"Range": "bytes=7-1048582"})
        equal("aiohttp, range: 206, right bytes", (status, sha256(body)), (206, sha256(data[7:1048583])))
        async with session.head(f"{server.url}/page.html") as answer:
            tag, length = answer.headers["ETag"], answer.headers["Content-Length"]
        equal("aiohttp, HEAD: the length", length, str(len(page)))
        equal("aiohttp, If-None-Match: 304 without a body",
              await fetch("page.html", headers={"If-None-Match": tag}), (304, b""))
        check("aiohttp: connections by its own count: 1 to 4", 1 <= len(opened) <= 4, len(opened))


async def aiohttp_uploads(site, lab):
    data = site.content["data.bin"]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        for what, body, options in [
            ("by length", data, {}),
            ("chunked", pieces_async(data), {}),
            ("chunked, expecting 100", pieces_async(data), {"expect100": True}),
            ("by length, expecting 100", data, {"expect100": True}),
        ]:
            async with session.post(f"{lab.url}/echo", data=body, **options) as answer:
                equal(f"aiohttp, upload {what}: the same bytes came back", sha256(await answer.read()), sha256(data))
        async with session.get(f"{lab.url}/stream/20/5") as answer:
            equal("aiohttp, chunked answer", await answer.text(), "".join(f"chunk {n} of 20\n" for n in range(1, 21)))


def checks(site, server, lab):
    with_requests(site, server, lab)
    with_httpx(site, server, lab)
    with server.connections("aiohttp", (1, 4)):
        asyncio.run(aiohttp_files(site, server))
    with lab.connections("aiohttp, uploads", 1):
        asyncio.run(aiohttp_uploads(site, lab))
