"""As pid 1 the program waits for the orphans of its container, before and after a reload, and is its server for good:
also with `--reload overlap`, which would end the container with the predecessor."""

import os
import pathlib
import signal

import harness

harness.need("unshare", "nsenter", "sh")
harness.need_root()
ORPHANS = 30
# Each is left by its parent at once, as `docker exec sh -c 'sleep 1 &'` leaves one, and ends within the next 0.3 s.
LEAVE = f"i=0; while [ $i -lt {ORPHANS} ]; do ( ( sleep 0.$i & ) & ); i=$((i+1)); done"
evidence = []
holds = True
for mode in ("exec", "overlap"):
    prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", LEAVE + '; exec "$@"', "sh"]
    server = harness.Server("--reload", mode, "--reload-probation", "0", prefix=prefix)
    # Outside of its namespace it has another number.
    children = lambda pid: pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    server.pid = int(children(server.child.pid)[0])
    first = harness.until(lambda: not children(server.pid))
    os.kill(server.pid, signal.SIGHUP)
    again = harness.until(lambda: "generation=2" in server.out()) is not None
    inside = ["nsenter", "--pid", "--mount", "--target", str(server.pid), "sh", "-c"]
    harness.run(*inside, LEAVE)
    second = harness.until(lambda: not children(server.pid))
    answer = server.get("/").split(b"\r\n")[0]
    os.kill(server.pid, signal.SIGTERM)
    code = server.ended()
    holds &= bool(first and again and second) and answer == b"HTTP/1.1 200 OK" and code == 0
    evidence.append(f"{mode}: {first}, reloaded {again}, {second}, {answer}, exit code {code};")
harness.verdict(holds, "every orphan was waited for; " + " ".join(evidence))
