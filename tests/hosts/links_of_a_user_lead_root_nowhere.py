"""Started as root with `user`, where that user owns the directory of a log: a link that it has put there, or on the way there,
made root append to any file, or make one anywhere and give it away. Now such a start fails, --check says so, and nothing is
touched. Where only root decides what the path leads to, root opens and makes the file as before.
"""

import os
import signal
import subprocess

import harness

NOBODY = 65534
harness.need_root()
handover = harness.public("handover")
roots = harness.directory()
theirs = roots / "theirs"
theirs.mkdir()
os.chown(theirs, NOBODY, NOBODY)
secret = roots / "secret"
secret.write_text("root's\n")
secret.chmod(0o600)
(roots / "own").mkdir()
(theirs / "link").symlink_to(secret)
(theirs / "nowhere").symlink_to(roots / "own" / "made")
(theirs / "way").symlink_to(roots / "own")
(roots / "around").symlink_to("theirs/way")


def start(key, path, *flags):
    return harness.Server(f"--{key}", path, "--user", "nobody", *flags, executable=handover, wait=False)


tried = 0
for key in ("log-file", "access-log"):
    for path in (theirs / "link", theirs / "nowhere", theirs / "way" / "made", roots / "around" / "made"):
        for flags in ((), ("--check",)):
            tried += 1
            server = start(key, path, *flags)
            code = server.ended()
            if code != 78 or f'{path}"' not in server.log() or "root opens nothing" not in server.log():
                harness.verdict(False, f"{key} {path} {flags}: {code} {server.log()[-300:]} {server.out()[-300:]}")
    if secret.read_text() != "root's\n" or (made := list((roots / "own").iterdir())):
        harness.verdict(False, f"{key}: {secret.read_text()!r}, made {made}")
# What is right: a file of the user's, one that root makes for it, and one of root's that is there already.
(roots / "old").write_text("")
(roots / "old").chmod(0o600)
(roots / "in").symlink_to("own")
for path, owner in ((theirs / "new", NOBODY), (roots / "own" / "new", NOBODY), (roots / "in" / "other", NOBODY),
                    (roots / "old", 0)):
    tried += 1
    server = start("log-file", path).ready()
    said, owned = path.read_text(), path.stat().st_uid
    if "serving as user nobody" not in said or owned != owner or server.stop() != 0:
        harness.verdict(False, f"{path} is {owned}'s: {said[-300:]} {server.log()[-300:]}")
harness.verdict(True, f"{tried} starts: no link of the user's was followed by root, and the log is where it should be")
