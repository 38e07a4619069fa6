"""Subscribers and publishers, on one thread: a process that is told what to do by lines of JSON, and answers with one each.

    {"do": "connect"}     all subscribers; answers when all are there
    {"do": "publish", "rate": 500, "size": 100}     from now on
    {"do": "look"}        what everybody has heard so far; with "mark", how long what takes is counted from now on
    {"do": "quiet"}       no new publication; answers when each has been accepted, or after `patience`
    {"do": "settle"}      answers when everybody has all that was published, or nothing came for some seconds
    {"do": "end"}

Three of four subscribers are as a browser's EventSource: when their stream has ended they wait as long as `retry:` has said, and
say `Last-Event-ID`. The others come back at once, with `since=`. Four publishers have one POST on its way each, and try a
publication that failed again, with its Idempotency-Key, until it is accepted. All times are CLOCK_MONOTONIC, in seconds.
"""

import errno
import heapq
import itertools
import json
import os
import random
import select
import socket
import sys
import time

from tally import COUNTS, Tally

# Where the server has said none, as browsers do.
RETRY = 3.0
# For one that does not wait, so that not all come in one moment.
AT_ONCE = 0.15
# What a page does that was refused: it makes a new EventSource, which it has to think of itself.
REFUSED = 1.0
# Longer than a host lets a publication wait (5 s), and a proxy in front an answer.
POST = 15.0
# So many are on their way at once, below what may wait to be accepted.
CONNECTING = 100
# How far behind a publisher may come before it gives up its place in time: what was not sent while nothing was accepted is not
# sent in a burst after it.
BEHIND = 0.25
# Whoever hears nothing for so long has nothing more.
SILENCE = 4.0


def key_of(publisher, topic):
    return publisher * 100_000 + topic


class Subscriber:
    def __init__(self, load, number, topics):
        self.load, self.number, self.topics = load, number, topics
        self.eager = number % 4 == 3
        self.tally = Tally([key_of(publisher, topic) for publisher in range(load.many_publishers) for topic in topics])
        self.socket, self.open, self.last, self.retry = None, False, None, RETRY
        self.path = "&".join(f"topic=t{topic}" for topic in topics)

    def connect(self):
        path, field = f"{self.load.prefix}?{self.path}", ""
        if self.last is not None and self.eager:
            path += f"&since={self.last}"
        elif self.last is not None:
            field = f"Last-Event-ID: {self.last}\r\n"
        head = f"GET {path} HTTP/1.1\r\nHost: {self.load.host}\r\nAccept: text/event-stream\r\n{field}\r\n"
        self.output, self.input, self.text, self.headed, self.ended = head.encode(), b"", b"", False, False
        self.socket = self.load.begin(self)

    def writable(self):
        sent = self.socket.send(self.output)
        self.output = self.output[sent:]
        if not self.output:
            self.load.only_read(self)

    def readable(self):
        length = self.socket.recv_into(self.load.buffer)
        if not length:
            return self.lost("ended" if self.ended else "cut")
        data = self.input + self.load.buffer[:length]
        at = 0
        if not self.headed:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self.input = data
                return None
            head, at = data[:end].lower(), end + 4
            if head[9:12] != b"200":
                return self.lost(f"refused {head[9:12].decode()}")
            if b"transfer-encoding: chunked" not in head:
                return self.lost("strange")
            self.headed = True
        pieces = [self.text]
        while not self.ended:
            line = data.find(b"\r\n", at)
            if line < 0:
                break
            length = int(data[at:line].split(b";")[0], 16)
            if len(data) < line + 4 + length:
                break
            self.ended = length == 0
            pieces.append(data[line + 2:line + 2 + length])
            at = line + 4 + length
        self.input = data[at:]
        *events, self.text = b"".join(pieces).split(b"\n\n")
        now = time.monotonic_ns()
        for event in events:
            self.event(event, now)
        if self.ended:
            return self.lost("ended" if not self.text else "strange")
        return None

    def event(self, event, now):
        data, name = None, None
        for line in event.split(b"\n"):
            if line.startswith(b"id: "):
                self.last = line[4:].decode()
            elif line.startswith(b"data: "):
                data = line[6:]
            elif line.startswith(b"event: "):
                name = line[7:]
            elif line.startswith(b"retry: "):
                self.retry = int(line[7:]) / 1000
        if name == b"@gap":
            return self.tally.gap()
        if data is None:
            if not self.open:
                self.open = True
                self.load.opened += 1
            else:
                self.load.beats += 1
            return None
        publisher, topic, number, sent, _ = data.split(b".", 4)
        load = self.load
        if self.tally.message(int(publisher) * 100_000 + int(topic), int(number)):
            load.deliveries += 1
            tenths = (now - int(sent)) // 100_000
            load.latencies[tenths] = load.latencies.get(tenths, 0) + 1
        return None

    def lost(self, why):
        self.load.close(self)
        if self.open:
            self.open = False
            self.load.opened -= 1
        self.load.count_loss(self, why)
        wait = REFUSED if why.startswith("refused") else random.uniform(0.05, AT_ONCE) if self.eager else self.retry
        self.load.later(wait, self.connect)


class Publisher:
    """One POST on its way at most."""

    def __init__(self, load, number):
        self.load, self.number = load, number
        self.numbers = {}
        self.turn = itertools.count(number * 15)
        self.socket, self.current, self.output, self.tries = None, None, b"", 0
        self.deadline = None

    def next(self):
        load = self.load
        if not load.publishing or self.current:
            return
        topic = next(self.turn) % load.many_topics
        key = key_of(self.number, topic)
        number = self.numbers[key] = self.numbers.get(key, 0) + 1
        self.current, self.tries, self.since = (key, topic, number), 0, time.monotonic()
        self.send()

    def send(self):
        key, topic, number = self.current
        if self.tries == 0:
            head = f"{self.number}.{topic}.{number}.{time.monotonic_ns()}."
            self.body = head.encode() + b"x" * max(0, self.load.size - len(head))
        self.tries += 1
        # A new run against a Redis with the keys of another would be told that it has published already.
        name = f"{self.load.run}-{key}-{number}"
        self.output = (
            f"POST {self.load.prefix}/t{topic} HTTP/1.1\r\nHost: {self.load.host}\r\nIdempotency-Key: {name}\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {len(self.body)}\r\n\r\n"
        ).encode() + self.body
        self.input = b""
        deadline = self.deadline = object()
        self.load.later(POST, lambda: self.late(deadline))
        if self.socket is None:
            self.socket = self.load.begin(self)
        else:
            self.load.also_write(self)
            self.writable()

    def late(self, deadline):
        if self.deadline is deadline:
            self.failed(f"no answer in {POST:.0f} s")

    def writable(self):
        try:
            sent = self.socket.send(self.output)
        except BlockingIOError:
            return
        except OSError as error:
            return self.failed(errno.errorcode.get(error.errno, "error"))
        self.output = self.output[sent:]
        if not self.output:
            self.load.only_read(self)

    def readable(self):
        data = self.socket.recv(65536)
        if not data:
            # A connection that waits for the next request may be closed by either side at any time.
            return self.failed("closed without an answer") if self.current and self.deadline else self.load.close(self)
        self.input += data
        end = self.input.find(b"\r\n\r\n")
        if end < 0:
            return None
        head, body = self.input[:end].lower(), self.input[end + 4:]
        length = int(next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))[15:])
        if len(body) < length:
            return None
        status = int(head[9:12])
        closes = b"connection: close" in head
        if status == 200:
            self.load.accepted(self, body)
            self.deadline = None
            waited, self.current = time.monotonic() - self.since, None
            self.load.longest_post = max(self.load.longest_post, waited)
            if closes:
                self.load.close(self)
            self.schedule()
            return None
        after = next((int(line[12:]) for line in head.split(b"\r\n") if line.startswith(b"retry-after:")), None)
        said = f"{status}"
        if b"outcome unknown" in body.lower():
            said += ", outcome unknown"
        if status == 503 and after is None:
            # Of a proxy that has no host.
            said += " without Retry-After"
        return self.failed(said, closes, after)

    def failed(self, why, closes=True, after=None):
        if closes and self.socket is not None:
            self.load.close(self)
        self.deadline = None
        self.load.posts[why] = self.load.posts.get(why, 0) + 1
        self.load.failures += 1
        if self.load.giving_up:
            self.current = None
            return
        # The field is whole seconds; more than one of them would be a test that waits.
        self.load.later(min(1.0, after if after is not None else 0.2), self.again)

    def again(self):
        if self.current and self.deadline is None:
            self.send()

    def schedule(self):
        now = time.monotonic()
        self.due = max(self.due + self.load.interval, now - BEHIND)
        self.load.later(max(0.0, self.due - now), self.next)

    def lost(self, why):
        self.failed(why)


class Load:
    def __init__(self, settings):
        self.host, self.port = settings["host"], settings["port"]
        self.prefix = settings.get("prefix", "/events")
        self.many_topics, self.many_publishers = settings["topics"], settings["publishers"]
        self.run = f"{os.getpid()}-{time.monotonic_ns()}"
        self.poll, self.fds, self.timers, self.order = select.epoll(), {}, [], itertools.count()
        self.subscribers = [
            Subscriber(self, number, topics_of(number, self.many_topics, settings["each"]))
            for number in range(settings["subscribers"])
        ]
        self.publishers = [Publisher(self, number) for number in range(self.many_publishers)]
        self.publishing, self.giving_up, self.size, self.interval = False, False, 100, 1.0
        # One for all: to make one of this size costs more than to read what has come.
        self.buffer = bytearray(131_072)
        self.opened = self.beats = self.deliveries = self.failures = self.reconnects = 0
        # How many took so many tenths of a millisecond.
        self.losses, self.posts, self.published, self.latencies = {}, {}, {}, {}
        # How long has been published, and since when it is.
        self.longest_post, self.published_for, self.since = 0.0, 0.0, None
        self.first_strange = None
        self.last_turn, self.longest_turn = time.monotonic(), 0.0

    # Sockets and timers.

    def begin(self, owner):
        made = socket.socket()
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = made.connect_ex((self.host, self.port))
        if code not in (0, errno.EINPROGRESS):
            made.close()
            self.later(0.0, lambda: owner.lost(errno.errorcode.get(code, "error")))
            return None
        self.fds[made.fileno()] = owner
        self.poll.register(made.fileno(), select.EPOLLIN | select.EPOLLOUT)
        return made

    def only_read(self, owner):
        self.poll.modify(owner.socket.fileno(), select.EPOLLIN)

    def also_write(self, owner):
        self.poll.modify(owner.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def close(self, owner):
        if owner.socket is not None:
            self.fds.pop(owner.socket.fileno(), None)
            owner.socket.close()
            owner.socket = None

    def later(self, seconds, what):
        heapq.heappush(self.timers, (time.monotonic() + seconds, next(self.order), what))

    def turn(self, longest=0.05):
        now = time.monotonic()
        # What clients waited for because of themselves: a machine that did something else, or a long look.
        self.longest_turn = max(self.longest_turn, now - self.last_turn)
        self.last_turn = now
        while self.timers and self.timers[0][0] <= now:
            heapq.heappop(self.timers)[2]()
        wait = min(longest, max(0.0, self.timers[0][0] - time.monotonic())) if self.timers else longest
        for fd, events in self.poll.poll(wait):
            owner = self.fds.get(fd)
            if owner is None:
                continue
            try:
                if events & select.EPOLLOUT:
                    owner.writable()
                if events & ~select.EPOLLOUT and owner.socket is not None and owner.socket.fileno() == fd:
                    owner.readable()
            except BlockingIOError:
                pass
            except OSError as error:
                owner.lost("cut" if isinstance(owner, Subscriber) else errno.errorcode.get(error.errno, "error"))
            except (ValueError, StopIteration) as error:
                self.first_strange = self.first_strange or f"{type(error).__name__}: {error}"
                owner.lost("strange")

    # What the clients say of themselves.

    def count_loss(self, subscriber, why):
        self.losses[why] = self.losses.get(why, 0) + 1
        self.reconnects += not why.startswith("refused")

    def accepted(self, publisher, body):
        key, _, number = publisher.current
        self.posts["200"] = self.posts.get("200", 0) + 1
        self.published[key] = number
        if not json.loads(body).get("id"):
            raise ValueError(f"an answer without an id: {body[:80]}")

    # What is asked.

    def connect(self, patience=30.0):
        until, begun = time.monotonic() + patience, 0
        while self.opened < len(self.subscribers) and time.monotonic() < until:
            while begun < len(self.subscribers) and begun - self.opened < CONNECTING:
                self.subscribers[begun].connect()
                begun += 1
            self.turn()
        return self.look()

    def publish(self, rate, size=100):
        self.interval, self.size = self.many_publishers / rate, size
        now = time.monotonic()
        was, self.publishing, self.giving_up = self.publishing, True, False
        if not was:
            self.since = now
            for publisher in self.publishers:
                publisher.due = now + self.interval * publisher.number / self.many_publishers
                self.later(publisher.due - now, publisher.next)
        return {}

    def quiet(self, patience=40.0):
        if self.publishing:
            self.published_for += time.monotonic() - self.since
        self.publishing = False
        until = time.monotonic() + patience
        while any(publisher.current for publisher in self.publishers) and time.monotonic() < until:
            self.turn()
        self.giving_up = True
        pending = sum(publisher.current is not None for publisher in self.publishers)
        return {**self.look(), "not_accepted": pending}

    def left(self):
        return sum(subscriber.tally.left(self.published) for subscriber in self.subscribers)

    def settle(self, silence=SILENCE):
        before, since, looked = self.deliveries, time.monotonic(), 0.0
        while time.monotonic() - since < silence:
            self.turn()
            if self.deliveries != before:
                before, since = self.deliveries, time.monotonic()
            # Who is away comes back, and what it has missed is on its way.
            if self.opened < len(self.subscribers) and time.monotonic() - since < 4 * silence:
                since = max(since, time.monotonic() - silence / 2)
            if time.monotonic() - looked > 0.1:
                looked = time.monotonic()
                if self.opened == len(self.subscribers) and not self.left():
                    break
        return self.look()

    def look(self, mark=False):
        counts = dict.fromkeys(COUNTS, 0)
        for subscriber in self.subscribers:
            for name, count in subscriber.tally.counts(self.published).items():
                counts[name] += count
        published = sum(self.published.values())
        took = max(0.001, self.published_for + (time.monotonic() - self.since if self.publishing else 0))
        latency = quantiles(self.latencies)
        longest, turn = self.longest_post, self.longest_turn
        if mark:
            self.latencies, self.longest_post, self.longest_turn = {}, 0.0, 0.0
        return {
            **counts, "open": self.opened, "subscribers": len(self.subscribers), "reconnects": self.reconnects,
            "losses": self.losses, "beats": self.beats, "published": published, "posts": self.posts,
            "failures": self.failures, "longest_post": longest, "latency_ms": latency, "strange": self.first_strange,
            "rate": published / took, "deliveries_per_second": self.deliveries / took, "cpu": time.process_time(),
            "longest_turn": turn,
        }


def quantiles(tenths):
    """In milliseconds."""
    parts, said, seen = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)], {}, 0
    total = sum(tenths.values())
    for value in sorted(tenths):
        seen += tenths[value]
        while parts and seen >= total * parts[0][1]:
            said[parts.pop(0)[0]] = value / 10
    return said


def topics_of(number, many, each):
    """Each topic has the same number of subscribers, of both."""
    first = number % many
    return [first] if each == 1 else [first, (first + 1 + number // many % (many - 1)) % many]


def serve(load):
    """Commands come as lines; between them the clients go on."""
    load.poll.register(0, select.EPOLLIN)
    os.set_blocking(0, False)
    pending = b""
    does = {"connect": load.connect, "publish": load.publish, "look": load.look, "quiet": load.quiet, "settle": load.settle}
    while True:
        load.turn()
        try:
            data = os.read(0, 65536)
        except BlockingIOError:
            continue
        if not data:
            return
        pending += data
        while b"\n" in pending:
            line, _, pending = pending.partition(b"\n")
            command = json.loads(line)
            what = command.pop("do")
            if what == "end":
                return
            print(json.dumps(does[what](**command)), flush=True)


if __name__ == "__main__":
    serve(Load(json.loads(sys.argv[1])))
