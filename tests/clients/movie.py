"""A WebM film for seeking in: two minutes, 12 MB, made in a moment and without an encoder.

Each second is one cluster with the same VP8 key frame, and filled up with a Void element to the size that a real film
has; so a player that seeks has to ask for a range. Element ids are those of RFC 9559.
"""

import base64
import struct

SECONDS = 120
FILL = 100_000
WIDTH, HEIGHT = 64, 48

# A key frame of one colour, 64 by 48.
FRAME = base64.b64decode(
    "UAMAnQEqQAAwAABHCIWFiJmEiAICAnWqA/gCBwjcwgpjZ4WA/vtol/9Js8TZ4mz5JH/7R9+0fftH3/tBIA=="
)

PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>a film</title><link rel="icon" href="data:,"></head>
<body><video src="movie.webm" preload="metadata" muted></video></body></html>
"""


def element(identity, content):
    """An EBML element with a size of eight bytes, so that no offset depends on a size."""
    return bytes.fromhex(identity) + struct.pack(">Q", 1 << 56 | len(content)) + content


def number(identity, value):
    return element(identity, struct.pack(">Q", value))


def cluster(second):
    block = b"\x81" + struct.pack(">h", 0) + b"\x80" + FRAME
    return element("1F43B675", number("E7", second * 1000) + element("A3", block) + element("EC", bytes(FILL)))


def cues(start, length):
    points = b""
    for second in range(SECONDS):
        place = number("F7", 1) + number("F1", start + second * length)
        points += element("BB", number("B3", second * 1000) + element("B7", place))
    return element("1C53BB6B", points)


def webm():
    head = element("1A45DFA3", number("4286", 1) + number("42F7", 1) + number("42F2", 4) + number("42F3", 8)
                   + element("4282", b"webm") + number("4287", 2) + number("4285", 2))
    info = element("1549A966", number("2AD7B1", 1_000_000) + element("4489", struct.pack(">d", SECONDS * 1000))
                   + element("4D80", b"handover") + element("5741", b"handover"))
    video = element("E0", number("B0", WIDTH) + number("BA", HEIGHT))
    track = element("AE", number("D7", 1) + number("73C5", 1) + number("83", 1) + element("86", b"V_VP8") + video)
    tracks = element("1654AE6B", track)
    clusters = [cluster(second) for second in range(SECONDS)]
    # Offsets count from where the segment's content begins, and behind the cues come the clusters.
    before = len(info) + len(tracks)
    start = before + len(cues(0, 0))
    return head + element("18538067", info + tracks + cues(start, len(clusters[0])) + b"".join(clusters))
