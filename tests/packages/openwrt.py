#!/usr/bin/env python3
"""Installs, upgrades and removes the OpenWrt package as opkg and procd would, with live clients through the upgrade; as root.

    tests/packages/openwrt.py PACKAGE.ipk

opkg and procd are not to be had off OpenWrt, so what they do with a package stands here, as far as it concerns one: unpack
over what is there by rename, run the scripts with PKG_UPGRADE, start what procd_set_param says, keep its pid, send it
signals. The shell is busybox's, as there.
"""

import io
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "hosts"))

import harness  # noqa: E402
from clients import Clients  # noqa: E402

PORT = 8080
CONFIG = "etc/handover/handover.toml"

# /etc/rc.common and procd.sh, as far as this service calls them.
RC_COMMON = r"""#!/bin/sh
initscript=$1 action=$2
instance=/tmp/procd
procd_open_instance() { rm -f $instance.*; }
procd_set_param() {
	name=$1; shift
	case $name in
	command) printf '%s\n' "$@" >$instance.command ;;
	*) echo "$@" >$instance.$name ;;
	esac
}
procd_close_instance() {
	IFS='
'
	set -- $(cat $instance.command)
	"$@" >/tmp/log 2>&1 </dev/null &
	echo $! >$instance.pid
}
procd_send_signal() { [ ! -e $instance.pid ] || kill -"$3" "$(cat $instance.pid)"; }
procd_add_reload_trigger() { :; }
. "$initscript"
start() { [ -e $instance.pid ] || start_service; }
reload() { reload_service; }
stop() { [ ! -e $instance.pid ] || kill -TERM "$(cat $instance.pid)"; }
enable() { ln -sf ../init.d/handover "/etc/rc.d/S${START}handover"; ln -sf ../init.d/handover "/etc/rc.d/K${STOP}handover"; }
disable() { rm -f /etc/rc.d/S??handover /etc/rc.d/K??handover; }
$action
"""

# /lib/functions.sh: what it does for a package with one service.
FUNCTIONS = r"""
default_postinst() { [ "$PKG_UPGRADE" = 1 ] || /etc/init.d/handover enable; /etc/init.d/handover start; }
default_prerm() { [ "$PKG_UPGRADE" = 1 ] || /etc/init.d/handover disable; /etc/init.d/handover stop; }
"""


def check(holds, what):
    if not holds:
        harness.verdict(False, what)


def members(archive):
    return {entry.name.removeprefix("./"): entry for entry in archive.getmembers() if not entry.isdir()}


class Package:
    def __init__(self, path):
        with tarfile.open(path, "r:gz") as outer:
            names = [entry.name for entry in outer.getmembers()]
            check(names == ["./debian-binary", "./data.tar.gz", "./control.tar.gz"], f"the package has {names}")
            check(outer.extractfile("./debian-binary").read() == b"2.0\n", "debian-binary is another one")
            inner = [io.BytesIO(outer.extractfile(name).read()) for name in names[1:]]
        self.data, self.control = [tarfile.open(fileobj=part, mode="r:gz") for part in inner]
        fields = self.control.extractfile("./control").read().decode()
        self.fields = dict(re.findall(r"^(\S+): (.*)$", fields, re.M))

    def is_right(self):
        modes = {name: entry.mode for name, entry in members(self.data).items()}
        wanted = {"usr/bin/handover": 0o755, "etc/init.d/handover": 0o755, CONFIG: 0o644, "usr/share/doc/handover/crates.gz": 0o644}
        check(modes == wanted, f"the files are {modes}")
        modes = {name: entry.mode for name, entry in members(self.control).items()}
        check(modes == {"control": 0o644, "conffiles": 0o644, "postinst": 0o755, "prerm": 0o755}, f"control has {modes}")
        owners = {(entry.uid, entry.gid) for archive in (self.data, self.control) for entry in archive.getmembers()}
        check(owners == {(0, 0)}, f"they belong to {owners}")
        missing = {"Package", "Version", "Depends", "Architecture", "Installed-Size", "Description"} - set(self.fields)
        check(not missing, f"control lacks {missing}")
        size = sum(entry.size for entry in self.data.getmembers())
        check(int(self.fields["Installed-Size"]) == size, f"it is {size} bytes, and says {self.fields['Installed-Size']}")
        check(self.control.extractfile("./conffiles").read() == f"/{CONFIG}\n".encode(), "conffiles are others")

    def unpack(self, root, keep=()):
        """As opkg does: a file takes the place of another by rename; a configuration that was changed stays."""
        for name, entry in members(self.data).items():
            if name in keep:
                continue
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            new = target.with_name(target.name + ".new")
            new.write_bytes(self.data.extractfile(entry).read())
            os.chmod(new, entry.mode)
            os.rename(new, target)

    def script(self, root, name, upgrade):
        path = root / "tmp" / name
        path.write_bytes(self.control.extractfile(f"./{name}").read())
        os.chmod(path, 0o755)
        in_root(root, f"/tmp/{name}", PKG_UPGRADE="1" if upgrade else "0")


def in_root(root, *command, **environment):
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment}
    done = subprocess.run(["chroot", root, *command], stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60, env=environment)
    check(done.returncode == 0, f"{command} failed with {done.returncode}: {done.stdout}")
    return done.stdout


def device():
    """A root with busybox, as OpenWrt's."""
    root = harness.directory()
    for name in ("bin", "etc/init.d", "etc/rc.d", "lib", "tmp", "www", "proc", "dev", "usr/bin"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    harness.run("chroot", root, "/bin/busybox", "--install", "-s", "/bin")
    (root / "etc/rc.common").write_text(RC_COMMON)
    os.chmod(root / "etc/rc.common", 0o755)
    (root / "lib/functions.sh").write_text(FUNCTIONS)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/ash\nnobody:*:65534:65534:nobody:/var:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (root / "www/index.html").write_text("from /www\n")
    harness.run("mount", "-t", "proc", "proc", root / "proc")
    harness.devices(root / "dev")
    return root


def main():
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} PACKAGE.ipk")
    harness.need_root()
    harness.need("busybox", "ip")
    package = Package(sys.argv[1])
    package.is_right()
    harness.unshare(harness.NEW_MOUNT | harness.NEW_NET)
    harness.run("ip", "link", "set", "lo", "up")
    harness.adopt_descendants()
    root = device()
    log = root / "tmp/log"
    try:
        package.unpack(root)
        # The program here is not optimised, and takes more by itself; that the optimised one has enough is held by units.sh.
        config = root / CONFIG
        text = config.read_text()
        check('memory = "9M"' in text, f"the configuration is another one: {text}")
        config.write_text(text.replace('memory = "9M"', 'memory = "64M"'))
        package.script(root, "postinst", upgrade=False)
        check(harness.until(lambda: "generation=1" in log.read_text()), f"it does not serve: {log.read_text()}")
        check((root / "etc/rc.d/S95handover").is_symlink(), "it is not enabled")
        # What procd is told: to keep it, and to have more patience than the server.
        said = {path.suffix[1:]: path.read_text().split() for path in (root / "tmp").glob("procd.*")}
        check(int(said["term_timeout"][0]) > 10 and said["respawn"] == ["3600", "5", "5"], f"procd is told {said}")
        check("-c" in said["command"] and said["command"][-2:] == ["--user", "nobody"] and "exec" in said["command"],
              f"the command is {said['command']}")
        pid = int(said["pid"][0])
        check(os.stat(f"/proc/{pid}").st_uid == 65534, "it does not serve as nobody")
        with open(config, "a") as file:
            file.write('\n[[push]]\nprefix = "/events"\npublish = "local"\n')
        in_root(root, "/etc/init.d/handover", "reload")
        check(harness.until(lambda: "generation=2" in log.read_text()), f"no reload: {log.read_text()[-600:]}")
        clients = Clients(PORT)
        clients.have_asked()
        inode = os.stat(f"/proc/{pid}/exe").st_ino
        package.script(root, "prerm", upgrade=True)
        package.unpack(root, keep={CONFIG})
        package.script(root, "postinst", upgrade=True)
        check(harness.until(lambda: "generation=3" in log.read_text()), f"no reload: {log.read_text()[-600:]}")
        clients.have_asked()
        lost = clients.end()
        check(not lost, f"an upgrade: {clients}: {lost[:3]} {log.read_text()[-600:]}")
        check(os.stat(f"/proc/{pid}/exe").st_ino != inode, "the pid stays, and the program should be the new one")
        package.script(root, "prerm", upgrade=False)
        check(harness.until(lambda: not harness.alive(pid)), "a removal does not stop it")
        check(re.search(r"stopped: .*cut=0", log.read_text()), f"no clean stop: {log.read_text()[-600:]}")
        check(not list((root / "etc/rc.d").iterdir()), "it is still enabled")
    finally:
        harness.end_descendants()
        harness.run("umount", "--recursive", "--lazy", root / "dev")
        harness.run("umount", "--lazy", root / "proc")
    harness.verdict(True, f"OpenWrt: {package.fields['Architecture']}, {package.fields['Installed-Size']} bytes, upgraded as pid {pid}, {clients}")


if __name__ == "__main__":
    main()
