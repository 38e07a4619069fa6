#!/usr/bin/env python3
"""Runs what the tarball's Dockerfile makes of the tarball, as a container would; as root.

    tests/packages/container.py TARBALL [ENGINE]

The file is read here as an engine reads it, as far as it goes: FROM scratch, COPY, USER, HEALTHCHECK, ENTRYPOINT and CMD. The
root is what was copied and nothing else, the server is pid 1 of namespaces of its own. Where there is an engine it builds
the image too.
"""

import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "hosts"))

import harness  # noqa: E402
from clients import Clients, Connection  # noqa: E402

PORT = 8080


def check(holds, what):
    if not holds:
        harness.verdict(False, what)


def unpacked(path):
    sums = dict(reversed(line.split()) for line in path.with_name("SHA256SUMS").read_text().splitlines())
    check(sums.get(path.name) == hashlib.sha256(path.read_bytes()).hexdigest(), "SHA256SUMS says something else")
    with tarfile.open(path, "r:gz") as archive:
        check({(entry.uid, entry.gid) for entry in archive} == {(0, 0)}, "not all belongs to root")
        folder = harness.directory()
        archive.extractall(folder, filter="tar") if hasattr(tarfile, "tar_filter") else archive.extractall(folder)
    context = folder / path.name.removesuffix(".tar.gz")
    for name in ("handover", "Dockerfile", "LICENSE-MIT", "LICENSE-APACHE", "LICENSES-OF-CRATES", "man/handover.1", "handover.toml",
                 "completions/_handover", "systemd/handover.service", "README.md"):
        check((context / name).is_file(), f"the tarball lacks {name}")
    check("rustix" in (context / "LICENSES-OF-CRATES").read_text(), "licences of crates are missing")
    return context


class Image:
    def __init__(self, context):
        self.context, self.root = context, harness.directory()
        self.user, self.health, self.entrypoint, self.command = None, None, [], []
        text = (context / "Dockerfile").read_text()
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        check(lines[0] == "FROM scratch", f"it begins with {lines[0]}")
        for line in lines[1:]:
            word, rest = line.split(None, 1)
            match word:
                case "COPY":
                    source, target = shlex.split(rest)
                    (self.root / target.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(context / source, self.root / target.lstrip("/"))
                case "USER":
                    self.user = rest.strip()
                case "HEALTHCHECK":
                    self.health = json.loads(rest[rest.index("CMD ") + 4:])
                case "ENTRYPOINT":
                    self.entrypoint = json.loads(rest)
                case "CMD":
                    self.command = json.loads(rest)
                case "EXPOSE" | "STOPSIGNAL":
                    pass
                case _:
                    check(False, f"an instruction that is not known here: {line}")
        # What an engine mounts, and what the first lines of the file say to mount.
        for name in ("proc", "dev", "srv/www"):
            (self.root / name).mkdir(parents=True)
        (self.root / "srv/www/index.html").write_text("from a volume\n")
        harness.devices(self.root / "dev")

    def start(self):
        inner = f"mount -t proc proc {self.root}/proc; exec chroot --userspec={self.user} {self.root} " + \
            shlex.join(self.entrypoint + self.command)
        with open(self.root.parent / f"{self.root.name}.log", "wb") as log:
            self.log = pathlib.Path(log.name)
            self.child = harness.start("unshare", "--pid", "--fork", "--mount", "--kill-child", "sh", "-euc", inner, stdout=log,
                                       stderr=subprocess.STDOUT, env={"PATH": os.environ["PATH"]})
        self.says("generation=1")
        children = pathlib.Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children")
        self.pid = int(children.read_text().split()[0])

    def says(self, text):
        check(harness.until(lambda: text in self.log.read_text() or self.child.poll() is not None) and text in self.log.read_text(),
              f"it does not say {text}: {self.log.read_text()}")

    def run(self, *command):
        """As `docker exec`."""
        return subprocess.run(["nsenter", f"--target={self.pid}", "--pid", "--mount", "chroot", f"--userspec={self.user}", self.root,
                               *command], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def built(context, engine):
    """What an engine says of the same file."""
    if not engine:
        return "NOT BUILT: there is no engine"
    done = subprocess.run([engine, "build", "-q", "-t", "handover-tests", context], capture_output=True, text=True, timeout=120,
                          stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        # An engine that is there and cannot build is no fault of the file's only if nothing answers at all.
        check(re.search(r"(?i)cannot connect|daemon|permission denied|not permitted", why), f"{engine} does not build it: {why}")
        return f"NOT BUILT: {engine} has no daemon"
    return f"built by {engine}: {done.stdout.strip()[:19]}"


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(f"usage: {sys.argv[0]} TARBALL [ENGINE]")
    harness.need_root()
    context = unpacked(pathlib.Path(sys.argv[1]).resolve())
    image_of_engine = built(context, sys.argv[2] if len(sys.argv) > 2 else None)
    harness.unshare(harness.NEW_MOUNT | harness.NEW_NET)
    harness.run("ip", "link", "set", "lo", "up")
    harness.adopt_descendants()
    image = Image(context)
    check(image.user == "65534:65534", f"it runs as {image.user}")
    try:
        image.start()
        check(Connection(PORT).ask("GET", "/") == b"from a volume\n", "it serves something else")
        # Of a server of which nothing is asked the health is known all the same.
        health = image.run(*image.health)
        check(health.returncode == 0, f"it is not healthy: {health.stderr}")
        clients = Clients(PORT, topic=None)
        clients.have_asked()
        asked = image.run("/usr/local/bin/handover", "reload", "--pid", "1")
        check(asked.returncode == 0, f"it cannot be reloaded from inside: {asked.stderr}")
        image.says("generation=2")
        os.kill(image.pid, signal.SIGHUP)
        image.says("generation=3")
        clients.have_asked()
        lost = clients.end()
        check(not lost, f"two reloads: {clients}: {lost[:3]} {image.log.read_text()[-600:]}")
        os.kill(image.pid, signal.SIGTERM)
        check(image.child.wait(30) == 0, f"a stop ends with {image.child.returncode}: {image.log.read_text()[-600:]}")
        health = subprocess.run(["chroot", image.root, *image.health], capture_output=True, text=True, timeout=60)
        check(health.returncode == 1, "a server that has ended is healthy")
    finally:
        harness.end_descendants()
        harness.run("umount", "--recursive", "--lazy", image.root / "dev")
    harness.verdict(True, f"container: from scratch, pid 1 as {image.user}, two reloads, {clients}; image {image_of_engine}")


if __name__ == "__main__":
    main()
