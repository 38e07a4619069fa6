"""What can be said of contrib/kubernetes/ without a cluster: its arguments and its configuration are right, and its times fit."""

import re
import subprocess

from harness import ROOT, check, equal
from stack import PROGRAM

FILE = ROOT / "contrib/kubernetes/deployment.yaml"


def checks(directory):
    text = FILE.read_text()
    arguments = re.findall(r"^            - (--\S+)$", text, re.M)
    equal("kubernetes: its arguments are found", len(arguments), 3)
    password = directory / "password"
    password.write_text("secret\n")
    password.chmod(0o440)
    settings = re.search(r"^  handover.toml: \|\n((?:    .*\n|\n)+)", text, re.M)[1]
    check("kubernetes: the password is a file", "/run/secrets/handover-bus/password" in settings, settings)
    config = directory / "handover.toml"
    config.write_text(settings.replace("/run/secrets/handover-bus/password", str(password)))
    given = [argument.replace("/etc/handover/handover.toml", str(config)) for argument in arguments]
    equal("kubernetes: the configuration is at that place", sum(argument not in given for argument in arguments), 1)
    for path in ("/etc/handover", "/run/secrets/handover-bus"):
        check(f"kubernetes: {path} is mounted", f"mountPath: {path}," in text)
    # As the image begins, and with --check, which connects to nothing.
    done = subprocess.run([PROGRAM, "-l", "127.0.0.1:8080", *given, "--check"], capture_output=True, text=True)
    equal("kubernetes: the program would run with them", done.returncode, 0)
    check("kubernetes: and takes the address of the bus", "handover-redis" in done.stdout + done.stderr, done.stdout[-300:] + done.stderr[-300:])
    seconds = {name: int(found) for name, found in re.findall(r"--(lame-duck|stop-deadline)=(\d+)", text)}
    grace = int(re.search(r"terminationGracePeriodSeconds: (\d+)", text)[1])
    period = int(re.search(r"/-/ready.*\n\s+periodSeconds: (\d+)", text)[1])
    check("kubernetes: KILL comes after the stop's deadline", grace > sum(seconds.values()), (grace, seconds))
    check("kubernetes: the lame duck is longer than the probe needs", seconds["lame-duck"] > 2 * period, (seconds, period))
