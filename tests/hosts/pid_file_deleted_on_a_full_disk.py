"""A pid file that could not be written anew at an exec reload, because the disk was full, was deleted. It stays, it is
written over, and `handover reload --wait` still sees that there is a new generation."""

import subprocess

import harness

harness.unshare(harness.NEW_MOUNT)
disk = harness.directory()
# So few names that the pid file takes the last but one.
harness.run("mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=4", "tmpfs", disk)
pid_file = disk / "pid"
server = harness.Server("--reload", "exec", "--pid-file", pid_file)
for filler in range(10):
    try:
        (disk / f"filler{filler}").touch()
    except OSError:
        break
else:
    harness.cannot_be_tried("the disk does not get full")

command = [harness.program("handover"), "reload", "--pid-file", pid_file, "--wait=20"]
done = subprocess.run(command, capture_output=True, text=True, timeout=harness.PATIENCE)
said = (done.stdout + done.stderr).strip()
server.ready(generation=2)
there = pid_file.exists() and pid_file.read_text() == f"{server.pid}\n"
logged = "it was written over" in server.log()
stopped = server.stop()
gone = not pid_file.exists()
harness.verdict(
    done.returncode == 0 and there and logged and stopped == 0 and gone,
    f"the command said: {said}; the file stayed: {there}, was logged: {logged}, and went at the stop: {gone}",
)
