"""A Rust for small hosts: Debian's compiler with the sources of the standard library, unpacked and not installed since it
would take the place of another Rust, and zig, which has musl for each target, as the linker. They are kept in a directory,
HANDOVER_SMALL or target/small, with all that is built: from nothing it takes minutes, later only what has changed.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# What the packages of the compiler need that is not of the smallest Debian, and would be installed with them.
LIBRARIES = ["libgit2-1.5", "libmbedcrypto7", "libmbedtls14", "libmbedx509-1", "libhttp-parser2.9", "libssh2-1", "libz3-4",
             "libedit2"]
LINKER = ["ziglang", "cargo-zigbuild"]


class NotToBeHad(Exception):
    """What this host cannot get or do, so that nothing was tried. It is no failure, and never a success."""


class Target:
    """A kind of host that the program is built for."""

    def __init__(self, name, triple, emulator, flags="", stub=None):
        # `emulator` is the QEMU that runs its programs where this kernel does not.
        self.name, self.triple, self.emulator = name, triple, f"usr/bin/qemu-{emulator}-static"
        # zig brings musl's files, and Debian's compiler has none.
        self.flags = f"-Clink-self-contained=no {flags}".strip()
        # In C, linked instead of what is in musl.
        self.stub = stub


TARGETS = {target.name: target for target in [
    Target("x86_64", "x86_64-unknown-linux-musl", "x86_64"),
    Target("aarch64", "aarch64-unknown-linux-musl", "aarch64"),
    Target("armv7", "armv7-unknown-linux-musleabihf", "arm"),
    Target("riscv64", "riscv64gc-unknown-linux-musl", "riscv64"),
    Target("i686", "i686-unknown-linux-musl", "i386"),
    # zig's linker makes no static program there that can be loaded anywhere. musl's dlsym is of a kind that is called by a
    # register, which zig does not see to where code has a place of its own; in a static program it finds nothing anyway.
    Target("mipsel", "mipsel-unknown-linux-musl", "mipsel", "-Crelocation-model=static",
           stub="void *dlsym(void *handle, const char *name) { return 0; }"),
]}


def named(name):
    """The target with that name, or with that triple."""
    for target in TARGETS.values():
        if name in (target.name, target.triple):
            return target
    sys.exit(f"small: no target {name!r}; there are: {' '.join(TARGETS)}, and all")


def cache():
    build = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return pathlib.Path(os.environ.get("HANDOVER_SMALL") or pathlib.Path(ROOT, build) / "small").resolve()


def run(*command, **options):
    """A command that has to succeed; answers what it printed on stdout."""
    command = [str(part) for part in command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


def complete(directory, fill):
    """That directory, filled by `fill` once: what was broken off before is thrown away and begun again."""
    mark = directory / ".complete"
    if not mark.exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        fill(directory)
        mark.touch()
    return directory


def unpack(directory, packages, apt=()):
    """Downloads these packages and unpacks them there."""
    packed = directory / "packages"
    packed.mkdir()
    run("apt-get", *apt, "download", "-qq", *packages, cwd=packed)
    for package in sorted(packed.glob("*.deb")):
        run("dpkg-deb", "-x", package, directory)
    shutil.rmtree(packed)


def depends(package, pattern, apt=()):
    """The first package that one depends on whose name is like that."""
    found = re.search(rf"^ *Depends: ({pattern})$", run("apt-cache", *apt, "depends", package), re.M)
    if found is None:
        raise NotToBeHad(f"Debian's {package} depends on nothing like {pattern}")
    return found[1]


def fetch_compiler(directory):
    if shutil.which("apt-get") is None:
        raise NotToBeHad("there is no apt-get, and the compiler is Debian's")
    run("apt-get", "update", "-qq")
    if subprocess.run(["apt-cache", "show", "rustc-web"], capture_output=True).returncode != 0:
        raise NotToBeHad("this distribution has no package rustc-web")
    library = depends("libstd-rust-web-dev", r"libstd-rust-web-[\d.]+")
    packages = ["rustc-web", "cargo-web", library, "libstd-rust-web-dev", "rust-web-src", depends(library, r"libllvm\d+")]
    unpack(directory, packages + LIBRARIES)


def fetch_linker(directory):
    run(sys.executable, "-m", "venv", directory)
    run(directory / "bin/pip", "install", "-q", *LINKER)


def emulator_of(target):
    """Its path: unpacked as well, since installing it would register it with this host's kernel."""
    return complete(cache() / "emulators", lambda directory: unpack(directory, ["qemu-user-static"])) / target.emulator


class Toolchain:
    """The compiler and the linker, fetched if need be."""

    def __init__(self):
        self.cache = cache()
        rust = complete(self.cache / "rust", fetch_compiler) / "usr"
        linker = complete(self.cache / "linker", fetch_linker)
        self.environment = {
            **os.environ,
            "PATH": f"{linker}/bin:{rust}/bin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": str(rust / "lib/x86_64-linux-gnu"),
            "RUSTC": str(rust / "bin/rustc"), "RUSTDOC": str(rust / "bin/rustdoc"), "CARGO": str(rust / "bin/cargo"),
            # The standard library is built with the program, which a stable compiler has to be told.
            "RUSTC_BOOTSTRAP": "1",
            "CARGO_TARGET_DIR": str(self.cache / "target"),
            "CARGO_PROFILE_DEV_DEBUG": "0",
            "ZIG_GLOBAL_CACHE_DIR": str(self.cache / "zig"), "ZIG_LOCAL_CACHE_DIR": str(self.cache / "zig"),
        }
        for unwanted in ("RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_BUILD_TARGET"):
            self.environment.pop(unwanted, None)

    def stub_of(self, target):
        source = self.cache / f"stub-{target.name}.c"
        source.write_text(target.stub + "\n")
        compiled = source.with_suffix(".o")
        python = self.cache / "linker/bin/python"
        run(python, "-m", "ziglang", "cc", "-target", f"{target.name}-linux-musleabi", "-c", source, "-o", compiled,
            env=self.environment)
        return compiled

    def compile(self, target, source):
        """A static program of one file in C, for that target."""
        program = self.cache / f"{source.stem}-{target.name}"
        triple = re.sub(r"^armv7", "arm", target.triple).replace("-unknown", "")
        run(self.cache / "linker/bin/python", "-m", "ziglang", "cc", "-target", triple, "-static", "-Os", "-s", source, "-o", program,
            env=self.environment)
        return program

    def build(self, target, profile, *what):
        """Builds for that target; answers the programs by name, that of a test as `test:NAME`. Tests that run meanwhile have
        the processors first."""
        command = ["nice", "-n", "19", "cargo-zigbuild", "rustc" if target.stub else "zigbuild", "--locked", "--profile", profile, "--target",
                   target.triple, "--message-format", "json-render-diagnostics", "-Zbuild-std=std,panic_unwind,test", *what]
        if target.stub:
            command += ["--", f"-Clink-arg={self.stub_of(target)}"]
        output = run(*command, cwd=ROOT, env={**self.environment, "RUSTFLAGS": target.flags})
        programs = {}
        for line in output.splitlines():
            message = json.loads(line) if line.startswith("{") else {}
            if message.get("executable"):
                test = "test:" if message["profile"]["test"] else ""
                programs[test + message["target"]["name"]] = pathlib.Path(message["executable"])
        return programs
