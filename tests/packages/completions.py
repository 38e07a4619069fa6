#!/usr/bin/env python3
"""Asks bash, zsh and fish what they complete with the files of contrib/completions, and holds it to what has to come.

    tests/packages/completions.py [bash] [zsh] [fish]

Each shell is started without the user's own files. Of zsh the completion system itself runs, in a terminal of its own.
"""

import os
import pathlib
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = ROOT / "contrib/completions"
PATIENCE = 20

# A line up to the cursor; what has to be offered, and what must not. Files are those of a folder with `a.toml` and `site/`.
CASES = [
    ("handover --rel", {"--reload", "--reload-deadline", "--reload-probation"}, {"--workers", "--pid"}),
    ("handover --reload ", {"auto", "overlap", "exec"}, {"a.toml", "site/"}),
    ("handover --reload=o", {"overlap"}, {"auto"}),
    ("handover --log-level de", {"debug"}, {"info"}),
    ("handover -w 4 --no", {"--no-status-routes"}, {"--version"}),
    ("handover -c ", {"a.toml"}, {"reload"}),
    ("handover --config a", {"a.toml"}, set()),
    ("handover --user roo", {"root"}, set()),
    ("handover --stop-deadline ", set(), {"a.toml", "reload", "auto"}),
    ("handover ", {"reload", "token", "top", "passwd", "site/"}, {"a.toml"}),
    ("handover si", {"site/"}, {"a.toml", "reload"}),
    ("handover -w 4 ", {"site/"}, {"reload"}),
    ("handover reload --", {"--pid-file", "--pid", "--wait", "--program", "--help"}, {"--workers", "--once"}),
    ("handover reload --pid-file ", {"a.toml"}, set()),
    ("handover token --", {"--key-file", "--subscribe", "--publish", "--expires", "--subject"}, {"--workers"}),
    ("handover top --o", {"--once"}, {"--every"}),
    ("handover passwd a", {"a.toml"}, {"reload"}),
    ("handover passwd --c", {"--cost"}, {"--config", "--check"}),
]


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    if done.returncode != 0 or done.stderr:
        sys.exit(f"completions: {command[0]} failed with {done.returncode}: {done.stderr}")
    return done.stdout.splitlines()


def bash(line, folder):
    # As readline hands it over: `=` is a word of its own.
    words = [word for part in line.split(" ") for word in (re.split("(=)", part) if "=" in part else [part])]
    script = """
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _handover
        for word in "${COMPREPLY[@]}"; do [ ! -d "$word" ] || word=$word/; printf '%s\\n' "$word"; done"""
    return run("bash", "--norc", "--noprofile", "-c", script, "bash", FILES / "handover.bash", *words, cwd=folder)


def fish(line, folder):
    lines = run("fish", "--no-config", "-c", f"source '{FILES}/handover.fish'; complete -C '{line}'", cwd=folder)
    # The description stands behind a tab, and `--flag=` before a value that is attached.
    return [re.sub("^--[a-z-]+=(?=.)", "", found.split("\t")[0]) for found in lines]


# What is added is written to a file, and `end` behind it when all is there.
CAPTURE = """
PS1= PS2=
fpath=(%(files)s $fpath)
autoload -Uz compinit
compinit -u -D
compadd() {
    case " $* " in
        *' -O '* | *' -A '* | *' -D '*) builtin compadd "$@"; return ;;
    esac
    local -a hits
    builtin compadd -A hits "$@"
    print -lr -- $hits >>%(out)s
    builtin compadd "$@"
}
capture() { _main_complete; print -r -- '<end>' >>%(out)s; compstate[insert]=; compstate[list]= }
zle -C capture complete-word capture
bindkey '^T' capture
print -r -- '<end>' >>%(out)s
"""


def zsh(line, folder):
    out = folder.parent / "zsh.out"
    script = folder.parent / "capture.zsh"
    out.write_text("")
    script.write_text(CAPTURE % {"files": FILES, "out": out})

    def ended(times):
        deadline = time.monotonic() + PATIENCE
        while out.read_text().count("<end>") < times:
            if time.monotonic() > deadline:
                sys.exit(f"completions: zsh said no end of {line!r}: {out.read_text()!r}, {seen[-400:]!r}")
            if select.select([terminal], [], [], 0.02)[0]:
                try:
                    seen.extend(os.read(terminal, 65536))
                except OSError:
                    sys.exit(f"completions: zsh ended: {seen[-400:]!r}")

    seen = bytearray()
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ["TERM"] = "dumb"
        os.execvp("zsh", ["zsh", "-f", "-i"])
    try:
        os.write(terminal, f"source {script}\n".encode())
        ended(1)
        os.write(terminal, line.encode() + b"\x14")
        ended(2)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)
    lines = [found for found in out.read_text().splitlines() if found not in ("", "<end>")]
    # What it inserts: `/` behind a directory.
    return [found.removesuffix("=") + "/" * (folder / found).is_dir() for found in lines]


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def main():
    wrong = 0
    for name in sys.argv[1:] or SHELLS:
        if shutil.which(name) is None:
            sys.exit(f"completions: {name} is not installed; .ci/run packages installs it")
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary) / "here"
            (folder / "site").mkdir(parents=True)
            (folder / "a.toml").touch()
            for line, wanted, unwanted in CASES:
                found = set(SHELLS[name](line, folder))
                if missing := wanted - found:
                    wrong += 1
                    print(f"completions: {name}: {line!r} lacks {sorted(missing)}, has {sorted(found)}")
                if others := unwanted & found:
                    wrong += 1
                    print(f"completions: {name}: {line!r} should not have {sorted(others)}")
        print(f"completions: {name}: {len(CASES)} lines tried", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
