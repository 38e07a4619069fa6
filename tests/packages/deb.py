#!/usr/bin/env python3
"""Installs, upgrades, removes and purges the Debian package, with live clients through the upgrade; as root.

    tests/packages/deb.py FIRST.deb SECOND.deb

Twice: where systemd runs, as pid 1 of namespaces of its own, and where it does not. What is installed goes to a layer above
this host's root, in a mount and a network namespace of this process, and is gone with it.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "hosts"))

import harness  # noqa: E402
from clients import Clients, Connection  # noqa: E402

PORT = 8080
CONFIG = "etc/handover/handover.toml"
PID_FILE = "run/handover/handover.pid"
# What the administrator changes: it has to be kept, and is what the clients need.
CHANGES = [('#root = "/srv/www"', 'root = "/srv/www"'), ("#[[push]]", "[[push]]"), ("#prefix =", "prefix ="),
           ("#publish =", "publish =")]
# The rest of this host's services has nothing to do here.
MASKED = ["systemd-tmpfiles-setup-dev.service", "systemd-udevd.service", "systemd-udev-trigger.service", "systemd-timesyncd.service", "networking.service",
          "systemd-networkd.service", "systemd-resolved.service", "systemd-modules-load.service", "systemd-sysctl.service",
          "systemd-random-seed.service", "systemd-firstboot.service", "systemd-binfmt.service", "systemd-remount-fs.service",
          "dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
          "proc-sys-fs-binfmt_misc.automount", "keyboard-setup.service", "console-setup.service", "apparmor.service",
          "kmod-static-nodes.service", "sys-fs-fuse-connections.mount", "systemd-pcrphase-sysinit.service"]


def check(holds, what, why=lambda: ""):
    """`why` is asked only where it does not hold: it may take a while."""
    if not holds:
        harness.verdict(False, f"{what} {why()}")


class Root:
    """This host's files with a layer above them, and what a start of the host would mount."""

    def __init__(self):
        self.layer = pathlib.Path(tempfile.mkdtemp(prefix="handover-deb-"))
        harness.run("mount", "-t", "tmpfs", "tmpfs", self.layer)
        for name in ("upper", "work", "root"):
            (self.layer / name).mkdir()
        self.path, self.upper = self.layer / "root", self.layer / "upper"
        harness.run("mount", "-t", "overlay", "overlay", "-o",
                    f"lowerdir=/,upperdir={self.upper},workdir={self.layer / 'work'}", self.path)
        for name in ("run", "tmp"):
            harness.run("mount", "-t", "tmpfs", "-o", "mode=755" if name == "run" else "mode=1777", "tmpfs", self.path / name)
        # Nothing may make devices of this host's.
        harness.devices(self.path / "dev")
        # A container's image forbids services to be started, and leaves manual pages out. An index of all pages takes a while.
        for name in ("usr/sbin/policy-rc.d", "etc/dpkg/dpkg.cfg.d", "var/lib/man-db/auto-update"):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                shutil.rmtree(self.path / name) if (self.path / name).is_dir() else (self.path / name).unlink()

    def put(self, first, second):
        """The packages, and a site."""
        for package, name in ((first, "first.deb"), (second, "second.deb")):
            shutil.copy(package, self.path / "srv" / name)
        (self.path / "srv/www").mkdir(exist_ok=True)
        (self.path / "srv/www/index.html").write_text("from /srv/www\n" * 1000)

    def end(self):
        """Nothing is removed file by file: below it is this host's root."""
        harness.run("umount", "--recursive", "--lazy", self.layer)
        self.layer.rmdir()

    def has(self, name):
        return os.path.lexists(self.path / name)

    def text(self, name):
        return (self.path / name).read_text()


class Plain:
    """Commands in a root without systemd."""

    def __init__(self, root):
        self.root = root
        harness.run("mount", "-t", "proc", "proc", root.path / "proc")

    def command(self, *command):
        return ["chroot", self.root.path, *command]

    def run(self, *command):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        done = subprocess.run([str(part) for part in self.command(*command)], stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, env=environment)
        check(done.returncode == 0, f"{command} failed with {done.returncode}: {done.stdout}", self.why)
        return done.stdout

    def why(self):
        return ""


class Systemd(Plain):
    """Commands in a root where systemd is pid 1."""

    def __init__(self, root):
        self.root = root
        for unit in MASKED:
            (root.path / "etc/systemd/system" / unit).unlink(missing_ok=True)
            os.symlink("/dev/null", root.path / "etc/systemd/system" / unit)
        shutil.rmtree(root.path / "etc/systemd/system/sysinit.target.wants", ignore_errors=True)
        shutil.rmtree(root.path / "etc/systemd/system/sockets.target.wants", ignore_errors=True)
        (root.path / "etc/fstab").write_text("")
        # A group of control groups of its own, where the host has the second version of them.
        mounted = re.search(r"^\S+ (\S+) cgroup2 ", pathlib.Path("/proc/mounts").read_text(), re.M)
        check(mounted, "cannot be tried here: there is no cgroup2 for systemd")
        self.group = pathlib.Path(mounted[1]) / f"handover-deb-{os.getpid()}"
        self.group.mkdir()
        inner = f"""
            echo $$ >{self.group}/cgroup.procs
            exec unshare --cgroup --mount --pid --ipc --uts --fork --kill-child bash -euc '
                mount -t proc proc {root.path}/proc
                mount -t sysfs -o ro sysfs {root.path}/sys
                mount -t cgroup2 cgroup2 {root.path}/sys/fs/cgroup
                hostname handover-deb
                cd {root.path}
                mkdir -p mnt/host
                pivot_root . mnt/host
                cd /
                umount -l /mnt/host
                exec /usr/bin/env -i container=handover-tests /lib/systemd/systemd --unit=basic.target
            '"""
        self.pid = None
        self.log = open(root.layer / "systemd.log", "w+")
        self.child = harness.start("bash", "-euc", inner, stdout=self.log, stderr=subprocess.STDOUT)
        try:
            # The first process of the new pid namespace is the child of unshare.
            children = pathlib.Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children")
            check(harness.until(lambda: children.read_text().split()), "systemd does not start", self.why)
            self.pid = int(children.read_text().split()[0])
            started = harness.until(lambda: self.state() in ("running", "degraded") or self.child.poll() is not None)
            check(started and self.child.poll() is None, f"systemd is {self.state()}:", self.why)
        except BaseException:
            self.end()
            raise

    def command(self, *command):
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup", "--ipc", "--uts", "--root", "--wd", *command]

    def state(self):
        asked = subprocess.run([str(part) for part in self.command("systemctl", "is-system-running")], capture_output=True,
                               text=True, timeout=30, stdin=subprocess.DEVNULL)
        return asked.stdout.strip()

    def why(self):
        said = pathlib.Path(self.log.name).read_text()[-1500:]
        if self.pid is None or self.child.poll() is not None:
            return said
        command = self.command("journalctl", "-n30", "--no-pager", "-o", "cat")
        asked = subprocess.run([str(part) for part in command], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
        return said + asked.stdout

    def main_pid(self):
        return int(self.run("systemctl", "show", "--property=MainPID", "--value", "handover.service"))

    def processes(self):
        """Of the service, as systemd counts them."""
        group = self.run("systemctl", "show", "--property=ControlGroup", "--value", "handover.service").strip()
        return [int(pid) for pid in self.run("cat", f"/sys/fs/cgroup{group}/cgroup.procs").split()]

    def is_active(self):
        return self.run("systemctl", "show", "--property=ActiveState", "--value", "handover.service").strip() == "active"

    def end(self):
        # unshare ends with its child, and its child with it.
        self.child.kill()
        self.child.wait(30)
        harness.until(self.group_is_gone)

    def group_is_gone(self):
        # Until the last process has been reaped they are in use.
        with contextlib.suppress(OSError):
            for folder in sorted((folder for folder in self.group.rglob("*") if folder.is_dir()), reverse=True):
                folder.rmdir()
            self.group.rmdir()
            return True
        return False


def configure(root):
    """As an administrator does; answers what then stands there."""
    text = root.text(CONFIG)
    for off, on in CHANGES:
        check(f"\n{off}" in text, f"the configuration has no {off}")
        text = text.replace(f"\n{off}", f"\n{on}")
    (root.path / CONFIG).write_text(text)
    return text


def status():
    """What the server says of itself."""
    return json.loads(Connection(PORT).ask("GET", "/-/status.json"))


def is_refused():
    with contextlib.suppress(ConnectionRefusedError):
        Connection(PORT)
        return False
    return True


def rotates(root, host):
    log = root.path / "var/log/handover/access.log"
    check(harness.until(lambda: log.exists() and log.stat().st_size > 0), "there is no access log", host.why)
    host.run("logrotate", "--force", "/etc/logrotate.d/handover")
    check((log.parent / "access.log.1").stat().st_size > 0, "logrotate has moved nothing", host.why)
    check(harness.until(log.exists), "the log was not opened anew", host.why)
    Connection(PORT).ask("GET", "/")
    check(harness.until(lambda: log.stat().st_size > 0), "nothing is written into the new log", host.why)


def stops_gracefully(host, when):
    """systemd lets a request that is half here be finished, and sees a success."""
    connection = Connection(PORT)
    connection.socket.sendall(b"POST /events/count HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\n\r\nfi")
    stopping = harness.start(*host.command("systemctl", "stop", "handover"))
    check(harness.until(is_refused), f"a stop {when} goes on accepting", host.why)
    connection.socket.sendall(b"rs")
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while some := connection.socket.recv(65536):
            answer += some
    check(answer.startswith(b"HTTP/1.1 200 "), f"a stop {when} cuts a request: {answer!r}", host.why)
    check(stopping.wait(harness.PATIENCE) == 0, f"a stop {when} fails", host.why)
    result = host.run("systemctl", "show", "--property=Result", "--value", "handover.service").strip()
    check(result == "success", f"a stop {when} ends with {result}", host.why)


def left_behind(root):
    """What of the package is still in the layer: not its user, nor what dpkg remembers."""
    known = re.compile(r"var/(lib/dpkg|log/(dpkg|alternatives)|cache)|var/lib/systemd/|^tmp/|^run/")
    found = [path.relative_to(root.upper) for path in root.upper.rglob("*handover*")]
    # Of a file that was there and is not any more overlayfs has a device.
    found = [path for path in found if not (root.upper / path).is_char_device()]
    return [str(path) for path in found if not known.search(str(path))]


def with_systemd(first, second):
    root = Root()
    root.put(first, second)
    host = Systemd(root)
    try:
        host.run("dpkg", "-i", "/srv/first.deb")
        check(host.is_active(), "the service is not active after the installation:", host.why)
        check(host.run("systemctl", "is-enabled", "handover.service").strip() == "enabled", "it is not enabled")
        user = host.run("stat", "-c", "%U", f"/proc/{host.main_pid()}").strip()
        check(user == "handover", f"it runs as {user}")
        for file in ("usr/share/man/man1/handover.1.gz", "usr/share/man/man5/handover.toml.5.gz",
                     "usr/share/bash-completion/completions/handover", "etc/logrotate.d/handover"):
            check(root.has(file), f"{file} is not installed")
        configured = configure(root)
        host.run("systemctl", "reload", "handover")
        before = host.main_pid()
        clients = Clients(PORT)
        clients.have_asked()
        host.run("dpkg", "-i", "/srv/second.deb")
        clients.have_asked()
        after = host.main_pid()
        lost = clients.end()
        check(not lost, f"an upgrade with systemd: {clients}: {lost[:3]}", host.why)
        check(after != before, f"the upgrade reloaded nothing: {before} is still the main process")
        executed = host.run("readlink", f"/proc/{after}/exe").strip()
        check(executed == "/usr/bin/handover", f"it does not run what was installed: {executed}")
        check(root.text(CONFIG) == configured, "the upgrade has changed what was configured")
        generation = status()["generation"]
        check(generation == 3, f"generation {generation} behind two reloads")
        said = f"systemd: upgraded from pid {before} to {after}, {clients}, stops in and behind a reload cut nothing"

        # A reload that fails leaves the package installed and the old program serving.
        (root.path / CONFIG).write_text("workers = 0\n")
        told = host.run("dpkg", "-i", "/srv/first.deb")
        check("the reload failed, and the version before serves on" in told, f"a failed reload was not told: {told}")
        check(status()["generation"] == 3 and host.main_pid() == after, "a failed reload has changed the server")
        (root.path / CONFIG).write_text(configured)

        rotates(root, host)
        host.run("systemctl", "reload", "handover")
        stops_gracefully(host, "in a probation")
        host.run("systemctl", "start", "handover")
        before = host.main_pid()
        host.run("systemctl", "reload", "handover")
        check(harness.until(lambda: before not in host.processes()), "the predecessor does not end", host.why)
        stops_gracefully(host, "behind a probation")
        host.run("systemctl", "start", "handover")
        # And systemd notices the end of one that it has not started.
        before = host.main_pid()
        host.run("systemctl", "reload", "handover")
        check(harness.until(lambda: before not in host.processes()), "the predecessor does not end", host.why)
        after = host.main_pid()
        host.run("kill", "-KILL", after)
        check(harness.until(lambda: host.main_pid() not in (0, after) and host.is_active()), "a crash is not noticed", host.why)

        host.run("dpkg", "--remove", "handover")
        check(is_refused(), "it serves although it was removed")
        check(root.has(CONFIG), "a removal takes the configuration")
        host.run("dpkg", "-i", "/srv/second.deb")
        check(host.is_active(), "it is not started where it was installed again")
        host.run("dpkg", "--purge", "handover")
        check(is_refused(), "it serves although it was purged")
        left = left_behind(root)
        check(not left, f"a purge leaves {left}")
        return said
    finally:
        host.end()
        root.end()


def without_systemd(first, second):
    root = Root()
    root.put(first, second)
    try:
        host = Plain(root)
        host.run("dpkg", "-i", "/srv/first.deb")
        configured = configure(root)
        (root.path / PID_FILE).parent.mkdir()
        host.run("chown", "handover:", "/" + str(pathlib.Path(PID_FILE).parent))
        # A small host has no procps.
        for name in ("pgrep", "pkill"):
            (root.path / "usr/bin" / name).unlink(missing_ok=True)
        # As an administrator would who has another service manager.
        server = harness.Server("-c", "/" + CONFIG, "--pid-file", "/" + PID_FILE, "--user", "handover", executable="/usr/bin/handover",
                                listen=(), prefix=host.command())
        clients = Clients(PORT)
        clients.have_asked()
        host.run("dpkg", "-i", "/srv/second.deb")
        clients.have_asked()
        lost = clients.end()
        check(not lost, f"an upgrade without systemd: {clients}: {lost[:3]} {server.log()[-600:]}")
        check(status()["generation"] == 2, f"the upgrade reloaded nothing: {server.log()[-600:]}")
        said = f"without: upgraded, {clients}"
        rotates(root, host)
        host.run("dpkg", "--purge", "handover")
        check(server.ended() == 0, f"the purge ended it with {server.child.poll()}: {server.log()[-600:]}")
        left = left_behind(root)
        check(not left, f"a purge leaves {left}")
        return said
    finally:
        harness.end_descendants()
        root.end()


def main():
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} FIRST.deb SECOND.deb")
    harness.need_root()
    harness.need("dpkg", "nsenter", "unshare", "logrotate", "ip")
    packages = [pathlib.Path(name).resolve() for name in sys.argv[1:]]
    harness.unshare(harness.NEW_MOUNT | harness.NEW_NET)
    harness.run("ip", "link", "set", "lo", "up")
    harness.adopt_descendants()
    try:
        said = [with_systemd(*packages), without_systemd(*packages)]
    finally:
        harness.end_descendants()
    harness.verdict(True, "; ".join(said))


if __name__ == "__main__":
    main()
