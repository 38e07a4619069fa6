"""`handover reload` as root read arguments and environment of the process in the pid file, and ran that to check itself:
whoever may write the file, or is that process, was root. It runs nothing, and signals no process of another user than the
one that the file belongs to."""

import os
import subprocess

import harness

NOBODY = 65534

harness.need_root()
directory = harness.directory()
os.chmod(directory, 0o777)

# Called as the program is, and it would leave a mark if it were asked to check itself.
impostor = directory / "handover"
impostor.write_text(
    f"""#!/bin/sh
if [ -n "$HANDOVER_CHECK" ]; then id >{directory}/mark; exit 1; fi
trap 'echo asked >>{directory}/asked' HUP
echo ready >{directory}/ready
while :; do sleep 0.02; done
"""
)
impostor.chmod(0o755)
child = harness.start(impostor, user=NOBODY, group=NOBODY, extra_groups=[])
harness.until((directory / "ready").exists) or harness.verdict(False, "the impostor did not start")


def pid_file(name, pid, owner):
    path = directory / name
    path.write_text(f"{pid}\n")
    os.chown(path, owner, owner)
    return path


def reload(path):
    command = [harness.program("handover"), "reload", "--pid-file", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=harness.PATIENCE)
    return done.returncode, (done.stdout + done.stderr).strip()


faults = []
code, said = reload(pid_file("theirs", child.pid, NOBODY))
if code != 0 or not harness.until((directory / "asked").exists):
    faults.append(f"a process of the file's user was not asked: {said}")
if (directory / "mark").exists():
    faults.append(f"its program was run: {(directory / 'mark').read_text().strip()}")

# A server of root's, in a file that somebody else can write.
server = harness.Server()
code, refusal = reload(pid_file("root's", server.pid, NOBODY))
if code != 1 or "nothing is signalled" not in refusal:
    faults.append(f"root's server was signalled for another user: {refusal}")
code, said = reload(pid_file("own", server.pid, 0))
if code != 0:
    faults.append(f"root's own file was refused: {said}")
server.ready(generation=2)
if "generation=3" in server.out():
    faults.append("it was signalled twice")
harness.verdict(not faults, "; ".join(faults) or f"nothing was run, and of root's server it said: {refusal}")
