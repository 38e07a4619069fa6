#!/usr/bin/env python3
"""Boots machines with little memory that run the static program, and nothing else but busybox: Debian's kernel under QEMU.

    tests/vm/run.py [--keep] [--only arm|x86_64|x86_64-user-mode] [--memory | --clocks] [MB]...

MB is 64, 48 and 32 unless it is said, or what that kernel needs. Each machine starts the server, keeps clients and subscribers through two reloads in
each mode, and stops it; tests/vm/init is what runs in there. With --memory it is the machine whose memory runs out: a
neighbour takes it all, and then the kernel kills the server, that a supervisor starts again. With --clocks it is one whose clock jumps: 1970, 2040, back, 2100, with a reload in each year. --keep writes what the machines
said to docs/vm/ and the table to docs/small-hosts.md.

It needs Debian's packages (kernels, busybox-static; they are unpacked and not installed) and qemu-system-x86, qemu-system-arm,
and what tests/small builds with. A machine that is not done in time is switched off, and has failed.
"""

import argparse
import datetime
import gzip
import os
import pathlib
import re
import select
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "small"))
sys.dont_write_bytecode = True

import table
from toolchain import ROOT, TARGETS, NotToBeHad, Toolchain, cache, complete, depends, run, unpack

OUTPUTS = ROOT / "docs/vm"
BEGIN, END = "<!-- machines: written by `just vm --keep` -->\n", "<!-- machines: end -->\n"
# An emulated machine takes a minute, and longer where others run beside it.
PATIENCE = 300
# By then a machine whose processor is this one's has said its first word, if it can.
FIRST_WORD = 15
SUBSCRIBERS = 8
CONFIG = b"""root = "/site"
idle_timeout = 600
[[push]]
prefix = "/events"
publish = "local"
heartbeat = 1
"""


class Machine:
    """A kind of machine: of which kernel, and how many megabytes it is tried with."""

    def __init__(self, name, debian, kernel, target, sizes):
        self.name, self.debian, self.kernel, self.target, self.sizes = name, debian, kernel, TARGETS[target], sizes

    def command(self, kernel, packed, megabytes, append, accelerator):
        raise NotImplementedError

    def accelerators(self):
        """How its processor can be had, the better one first."""
        return ["emulated"]


class Arm(Machine):
    """A board as QEMU makes it, whatever processor this host has."""

    tool = "qemu-system-arm"
    # The kernel unpacks itself below, and copies itself behind that first.
    FILES_AT = 0x40000000 + (28 << 20)

    def command(self, kernel, packed, megabytes, append, accelerator):
        # QEMU puts the tree of devices into the middle of the memory, where a kernel that unpacks itself overwrites it if there
        # is less than this; so the kernel is told how much is there. The files are put where they are out of the way too.
        append += f" console=ttyAMA0 mem={megabytes}M initrd={self.FILES_AT:#x},{packed.stat().st_size} {LEAN}"
        return [self.tool, "-M", "virt", "-cpu", "cortex-a15", "-m", "64M", *QUIET, "-kernel", kernel, "-append", append,
                "-device", f"loader,file={packed},addr={self.FILES_AT:#x},force-raw=on"]


class Pc(Machine):
    tool = "qemu-system-x86_64"

    def accelerators(self):
        usable = os.uname().machine == "x86_64" and os.access("/dev/kvm", os.R_OK | os.W_OK)
        return ["kvm", "emulated"] if usable else ["emulated"]

    def command(self, kernel, packed, megabytes, append, accelerator):
        accelerator = "kvm" if accelerator == "kvm" else "tcg"
        return [self.tool, "-M", "pc", "-accel", accelerator, "-m", f"{megabytes}M", *QUIET, "-kernel", kernel,
                "-initrd", packed, "-append", f"{append} console=ttyS0"]


class UserMode(Machine):
    """A kernel that is a process of this one: the same kernel otherwise, at the speed of this host."""

    tool = None

    def accelerators(self):
        return ["user-mode Linux"]

    def command(self, kernel, packed, megabytes, append, accelerator):
        return [kernel, f"mem={megabytes}M", f"initrd={packed}", "con=null", "con0=null,fd:1", "ssl=null", *append.split()]


# A distribution's kernel is made for more: without what a small board would not have either.
LEAN = ("cgroup_disable=memory apparmor=0 security=none audit=0 log_buf_len=16K thash_entries=512 dhash_entries=1024 "
        "ihash_entries=1024 cma=0 initcall_blacklist=tracer_init_tracefs,init_kprobe_trace")
QUIET = ["-nodefaults", "-no-reboot", "-nographic", "-serial", "stdio"]
MACHINES = [
    Arm("arm", "armhf", "linux-image-armmp", "armv7", [64, 48, 32]),
    # Debian's image for it unpacks itself to more than 64 MB.
    Pc("x86_64", "amd64", "linux-image-cloud-amd64", "x86_64", [128]),
    # With 32 MB this kernel stops before it has a process.
    UserMode("x86_64-user-mode", "amd64", "user-mode-linux", "x86_64", [64, 48]),
]


def packages_of(machine):
    """Its kernel and its busybox: apt with lists of that architecture, and nothing of this host's."""

    def fetch(directory):
        if shutil.which("apt-get") is None:
            raise NotToBeHad("there is no apt-get, and the kernels are Debian's")
        state = directory / "apt"
        (state / "lists/partial").mkdir(parents=True)
        apt = ["-o", f"APT::Architecture={machine.debian}", "-o", f"APT::Architectures={machine.debian}",
               "-o", f"Dir::State={state}", "-o", f"Dir::State::status={os.devnull}", "-o", f"Dir::Cache={state}",
               # Of others there may be no list for this architecture, and no kernel.
               "-o", "Dir::Etc::SourceParts=" + str(sources(directory)), "-o", f"Dir::Etc::SourceList={os.devnull}"]
        # A list that cannot be had, of updates for one, is no reason to fail where another has the kernel.
        subprocess.run(["apt-get", *apt, "update", "-qq"], stdin=subprocess.DEVNULL)
        is_user_mode = isinstance(machine, UserMode)
        kernel = machine.kernel if is_user_mode else depends(machine.kernel, r"linux-image-[\w.+-]+", apt)
        unpack(directory, [kernel, "busybox-static"], apt)
        # Modules are most of it, and what they are for is not needed here.
        shutil.rmtree(directory / ("usr/lib/uml" if is_user_mode else "lib/modules"))

    directory = complete(cache() / f"machine-{machine.name}", fetch)
    [kernel] = [*directory.glob("boot/vmlinuz-*"), *directory.glob("usr/bin/linux.uml")]
    return kernel, directory / "bin/busybox"


def sources(directory):
    """Debian's own among this host's sources of packages."""
    own = directory / "sources"
    own.mkdir()
    for source in pathlib.Path("/etc/apt/sources.list.d").glob("debian*"):
        shutil.copy(source, own)
    if pathlib.Path("/etc/apt/sources.list").exists() and pathlib.Path("/etc/apt/sources.list").stat().st_size:
        shutil.copy("/etc/apt/sources.list", own / "debian.list")
    if not list(own.iterdir()):
        raise NotToBeHad("this host gets no packages from Debian")
    return own


def archive(files):
    """What the kernel unpacks as its first file system: cpio's format "newc"."""
    packed = bytearray()
    for number, (name, mode, content) in enumerate([*files, ("TRAILER!!!", 0, b"")], 1):
        name = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0]
        packed += b"070701" + "".join(f"{field:08X}" for field in fields).encode() + name
        packed += bytes(-len(packed) % 4) + content
        packed += bytes(-len(packed) % 4)
    return bytes(packed)


def first_files(machine, program, clock):
    kernel, busybox = packages_of(machine)
    directories = ["bin", "dev", "proc", "sys", "tmp", "site", "run", "run/handover"]
    files = [(name, 0o040755, b"") for name in directories]
    files += [(name, 0o100755, path.read_bytes()) for name, path in
              [("bin/busybox", busybox), ("bin/clock", clock), ("handover", program), ("init", HERE / "init")]]
    files += [("site/index.html", 0o100644, b"small\n"), ("run/handover/handover.toml", 0o100644, CONFIG)]
    packed = cache() / f"machine-{machine.name}.cpio"
    # While it is unpacked both are in memory.
    packed.write_bytes(gzip.compress(archive(files), mtime=0))
    return kernel, packed


def boot(machine, kernel, packed, megabytes, trials, accelerator):
    """What it said, as bytes, and whether it was switched off by itself."""
    append = f"panic=-1 loglevel=4 printk.time=1 subscribers={SUBSCRIBERS} trials={trials}"
    command = [str(part) for part in machine.command(kernel, packed, megabytes, append, accelerator)]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, began = b"", time.monotonic()
    try:
        while True:
            patience = PATIENCE if b"vm: " in said or accelerator != "kvm" else FIRST_WORD
            left = began + patience - time.monotonic()
            if left <= 0 or not select.select([child.stdout], [], [], left)[0]:
                return said, False
            some = os.read(child.stdout.fileno(), 65536)
            if not some:
                return said, True
            said += some
    finally:
        child.kill()
        child.wait()


def trial(machine, program, clock, megabytes, trials):
    """The lines of the machine, whether it passed, and how it ran."""
    kernel, packed = first_files(machine, program, clock)
    for accelerator in machine.accelerators():
        said, ended = boot(machine, kernel, packed, megabytes, trials, accelerator)
        lines = [line for line in re.sub(r"\x1b\S*|\r", "", said.decode(errors="replace")).splitlines() if line.strip()]
        # One that never came to its first word says nothing of the program: only where no other is left it counts.
        if any(line.startswith("vm: ") for line in lines):
            break
    return lines, ended and "vm: passed" in lines, accelerator


def seconds_to_ready(lines):
    """By the kernel's clock, from the program's start, and from the kernel's."""
    stamps = {what: float(at) for at, what in re.findall(r"\[ *([\d.]+)\] handover: (\w+)", "\n".join(lines))[:2]}
    return f"{stamps['ready'] - stamps['start']:.2f} s", f"{stamps['ready']:.1f} s"


def row(machine, megabytes, trials, lines, passed, accelerator):
    def figure(pattern):
        found = re.search(pattern, "\n".join(lines))
        return found[1] if found else "not measured"

    name = f"[{machine.name}, {megabytes} MB](vm/{output(machine, megabytes, trials)}), {accelerator}"
    left = figure(r"vm: \S+, Linux \S+, .* all, (\d+ kB) left")
    if trials == "clocks":
        done = "goes on through 1970, 2040, 2000, 2100, 2106 and 2026, 6 reloads in each mode: none lost, none twice"
        return [name, left, "", "", "", "", done if passed else "FAILED"]
    if trials == "memory":
        return [name, left, "", "", "", "", "goes on when a neighbour is killed; killed, it is started again" if passed else "FAILED"]
    if not passed:
        why = next((line for line in reversed(lines) if "FAILED" in line or "panic" in line), "it said nothing to the end")
        return [name, left, "", "", "", "", f"FAILED: {why.replace('|', '/')}"]
    start, boot_time = seconds_to_ready(lines)
    done = f"{SUBSCRIBERS} subscribers, 2 reloads in each mode: none lost, none twice"
    return [name, left, figure(r"vm: overlap: at rest, (\d+ kB)"), figure(r"vm: exec: (\d+ kB) resident"), start, boot_time, done]


def output(machine, megabytes, trials):
    return f"{machine.name}-{megabytes}{'' if trials == 'reload' else f'-{trials}'}.txt"


def write_table(rows):
    """Beside what stands there, in the order of their names."""
    commit = run("git", "-C", ROOT, "describe", "--always", "--dirty").strip()
    text = table.PAGE.read_text()
    lines = text[text.index(BEGIN):text.index(END)].splitlines()
    before = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("| [")]
    all_rows = {re.search(r"\(vm/([^)]+)\)", cells[0])[1]: cells for cells in before}
    all_rows.update({name: [*cells, f"{datetime.date.today()}, {commit}"] for name, cells in rows.items()})
    # Those of which there is an output.
    shown = [cells for name, cells in sorted(all_rows.items()) if (OUTPUTS / name).exists()]
    head = ["machine", "memory before it starts", "resident at rest", "resident with clients", "start to ready",
            "kernel to ready", "what it did", "measured"]
    table.put(BEGIN, END, "".join(table.lines(head, shown)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("megabytes", nargs="*", type=int, metavar="MB")
    parser.add_argument("--only", choices=[machine.name for machine in MACHINES])
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--memory", dest="trials", action="store_const", const="memory", default="reload", help="let the memory run out")
    other.add_argument("--clocks", dest="trials", action="store_const", const="clocks", help="let the clock jump")
    parser.add_argument("--program", type=pathlib.Path, help="a static one that is built already, of the machine's kind")
    parser.add_argument("--keep", action="store_true", help="write docs/vm/ and docs/small-hosts.md")
    arguments = parser.parse_args()
    wanted = [machine for machine in MACHINES if arguments.only in (None, machine.name)]
    for tool in filter(None, (machine.tool for machine in wanted)):
        if shutil.which(tool) is None:
            sys.exit(f"vm: {tool} is not installed: apt-get install qemu-system-x86 qemu-system-arm")
    rows, failed = {}, 0
    try:
        for machine in wanted:
            toolchain = Toolchain()
            program = arguments.program or toolchain.build(machine.target, "release", "--bin", "handover")["handover"]
            clock = toolchain.compile(machine.target, HERE / "clock.c")
            sizes = arguments.megabytes or machine.sizes
            trials = [(arguments.trials, megabytes) for megabytes in sizes]
            if arguments.keep and arguments.trials == "reload":
                trials += [("memory", sizes[0]), ("clocks", sizes[0])]
            for kind, megabytes in trials:
                lines, passed, accelerator = trial(machine, program, clock, megabytes, kind)
                for line in lines if not passed else (line for line in lines if line.startswith("vm: ")):
                    print(f"    {line}")
                print(f"vm: {machine.name}, {megabytes} MB, {kind}, {accelerator}: {'passed' if passed else 'FAILED'}", flush=True)
                failed += not passed
                rows[output(machine, megabytes, kind)] = row(machine, megabytes, kind, lines, passed, accelerator)
                if arguments.keep:
                    OUTPUTS.mkdir(exist_ok=True)
                    (OUTPUTS / output(machine, megabytes, kind)).write_text("\n".join(line.rstrip() for line in lines) + "\n")
    except NotToBeHad as why:
        print(f"vm: NOT TRIED: {why}")
    except RuntimeError as wrong:
        sys.exit(f"vm: {wrong}")
    if arguments.keep:
        write_table(rows)
    print(f"vm: {len(rows) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not rows else 0)


if __name__ == "__main__":
    main()
