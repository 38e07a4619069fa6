"""What root has done at the start and nobody cannot do again: each is said by name, at the first start and by --check, and a
reload that needs it fails with the reason while the server goes on. What cannot be become is a clear error.
"""

import errno
import os
import signal
import subprocess

import harness

harness.need("ip")
harness.unshare(harness.NEW_NET)
harness.run("ip", "link", "set", "lo", "up")
handover = harness.public("handover")
own = harness.directory()
open_to_nobody = own / "run"
open_to_nobody.mkdir()
os.chown(open_to_nobody, 65534, 65534)
closed = own / "closed"
closed.mkdir()
site = own / "site"
site.mkdir()
(site / "index.html").write_text("home")
for name in ("token", "push.key"):
    (own / name).write_text("MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTE=\n")
    (own / name).chmod(0o600)
configuration = own / "handover.toml"
TEXT = f"""
listen = ["127.0.0.1:80", "unix:{own}/socket"]
user = "nobody"
root = "{site}"
log_file = "{own}/log"
access_log = "{own}/access"
history_file = "{own}/history"
status_token_file = "{own}/token"
pid_file = "{open_to_nobody}/pid"
[[push]]
prefix = "/events"
publish = "token"
token_key_file = "{own}/push.key"
"""
configuration.write_text(TEXT)
configuration.chmod(0o600)
WANTED = [
    f'user nobody cannot read configuration file "{configuration}"', f'user nobody cannot read key file "{own}/push.key"',
    f'user nobody cannot read token file "{own}/token"', f'log file "{own}/log" anew', f'access log "{own}/access" anew',
    f'user nobody cannot write history file "{own}/history"', f"user nobody cannot remove unix:{own}/socket",
    "127.0.0.1:80 is below port 1024: user nobody keeps it through reloads",
]
# Made by root for nobody: there is nothing to say of the log that is there, and everything of one that is rotated.
checked = subprocess.run([handover, "--check", "-c", configuration], capture_output=True, text=True)
# The check is nobody's too: it cannot have read the configuration before it knew whose it is.
missing = [line for line in WANTED if line not in checked.stdout]
if checked.returncode != 0 or missing:
    harness.verdict(False, f"--check, {checked.returncode}: not said {missing}: {checked.stdout} {checked.stderr}")
for mode in ("exec", "overlap"):
    server = harness.Server("-c", configuration, "--reload", mode, executable=handover, listen=[])
    log = lambda: (own / "log").read_text()
    missing = [line for line in WANTED if line not in log()]
    if missing:
        harness.verdict(False, f"{mode}, at the start: not said {missing}: {log()}")
    for change, wanted in [
        (lambda: None, "cannot read configuration file"),
        (lambda: (configuration.chmod(0o644), configuration.write_text(TEXT)), "this user may not read it"),
        (lambda: (os.chmod(own / "push.key", 0o644), os.chmod(own / "token", 0o644), os.chown(own, 65534, 65534)), None),
        (lambda: configuration.write_text(TEXT.replace('"127.0.0.1:80"', '"127.0.0.1:80", "127.0.0.1:81"')),
         "cannot listen on 127.0.0.1:81: ports below 1024 need root; a restart"),
        (lambda: configuration.write_text(TEXT.replace('"]\nuser', f'", "unix:{closed}/new"]\nuser')),
         f"cannot listen on unix:{closed}/new: no permission to write to its directory; a restart"),
        (lambda: configuration.write_text(TEXT.replace('user = "nobody"\n', "")),
         "the server has become user nobody, and user is not set any more, which needs a restart"),
        (lambda: configuration.write_text(TEXT.replace('"nobody"\nroot', '"daemon"\nroot')),
         "the server is to be user daemon"),
    ]:
        change()
        before = log().count("reload failed, serving on")
        generation = log().count("ready with")
        server.signal(signal.SIGHUP)
        if wanted is None:
            if not harness.until(lambda: log().count("ready with") > generation):
                harness.verdict(False, f"{mode}: no reload where everything may be read: {log()[-400:]}")
            server.ready(generation=2)
        else:
            failed = lambda: [line for line in log().splitlines() if "reload failed, serving on" in line][before:]
            harness.until(failed)
            # By the check, and not by what was checked: then no client has waited.
            if not failed() or wanted not in failed()[-1] or "the check failed with" not in failed()[-1]:
                harness.verdict(False, f"{mode}: {wanted!r} is not said: {log()[-600:]}")
        if b"200 OK" not in server.get("/", port=80):
            harness.verdict(False, f"{mode}: it does not go on")
    if server.stop() is None:
        harness.verdict(False, f"{mode}: it does not stop")
    harness.until(lambda: not os.path.exists(f"/proc/{server.pid}"))
    os.chown(own, 0, 0)
    for name in ("token", "push.key"):
        (own / name).chmod(0o600)
    configuration.write_text(TEXT)
    configuration.chmod(0o600)
    for name in ("log", "access", "history", "socket"):
        (own / name).unlink(missing_ok=True)
# Where somebody else may not be become.
refused = subprocess.run(
    [handover, "-l", "127.0.0.1:8080", "--user", "nobody", site], capture_output=True, text=True,
    preexec_fn=harness.refusing(["setgroups"], errno.EPERM),
)
if refused.returncode != 78 or "cannot become user nobody (65534)" not in refused.stderr:
    harness.verdict(False, f"refused setgroups: {refused.returncode} {refused.stderr}")
other = subprocess.run(
    [*harness.NOBODY, handover, "-l", "127.0.0.1:8080", "--user", "daemon", site], capture_output=True, text=True
)
if other.returncode != 78 or "only root can" not in other.stderr:
    harness.verdict(False, f"not root: {other.returncode} {other.stderr}")
harness.verdict(True, f"{len(WANTED)} things are said by name at a start and by --check, and reloads fail by them alone")
