"""In a chroot with the program and its libraries, and neither /proc nor /dev/null, it serves, reloads and stops."""

import os
import pathlib
import shutil
import signal

import harness

harness.need("ldd", "chroot")
harness.need_root()
root = harness.directory()
shutil.copy(harness.program("handover"), root / "handover")
libraries = harness.run("ldd", root / "handover").split()
for library in {word for word in libraries if word.startswith("/")}:
    place = root / library.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(pathlib.Path(library).resolve(), place)
evidence = []
for mode in ("exec", "overlap"):
    server = harness.Server(
        "--reload", mode, "--reload-probation", "0", executable="/handover", prefix=("chroot", root)
    )
    first = server.pid
    server.signal(signal.SIGHUP)
    server.ready(generation=2)
    answer = server.get("/").split(b"\r\n")[0]
    os.kill(server.pid, signal.SIGTERM)
    stopped = harness.until(lambda: "stopped: " in server.log())
    evidence.append((mode, answer, bool(stopped), server.ended(), (server.pid == first) == (mode == "exec")))
holds = all(case[1:] == (b"HTTP/1.1 200 OK", True, 0, True) for case in evidence)
harness.verdict(holds, evidence)
