"""Files of users that Apache's htpasswd and Debian's mkpasswd have made are understood, and htpasswd understands those of
`handover passwd`. At a terminal that asks twice, shows nothing, and leaves the terminal as it was, also when a signal
ends it."""

import base64
import os
import pty
import signal
import subprocess
import termios

import harness

harness.need("htpasswd", "mkpasswd")
PASSWORD = "correct horse ö"
house = harness.directory()
handover = harness.program("handover")
users = house / "users"
config = house / "handover.toml"


def of_other_programs():
    """Users and hashes by each way that is allowed."""
    made = {"htpasswd": harness.run("htpasswd", "-nbB", "-C", "6", "htpasswd", PASSWORD).strip().split(":", 1)[1]}
    made["htpasswd-5"] = harness.run("htpasswd", "-nb5", "-r", "5000", "x", PASSWORD).strip().split(":", 1)[1]
    made["htpasswd-2"] = harness.run("htpasswd", "-nb2", "x", PASSWORD).strip().split(":", 1)[1]
    for method, rounds in (("sha512crypt", None), ("sha256crypt", None), ("sha512crypt", "20000"), ("bcrypt", "5"),
                           ("bcrypt-a", "5")):
        more = [] if rounds is None else ["-R", rounds]
        name = f"mkpasswd-{method}-{rounds}"
        made[name] = harness.run("mkpasswd", "-m", method, *more, PASSWORD).strip()
    return made


def refused_by_name():
    """What --check says of each way that is not allowed."""
    wrong = {
        "MD5": harness.run("htpasswd", "-nbm", "x", PASSWORD),
        "SHA-1": harness.run("htpasswd", "-nbs", "x", PASSWORD),
        "plain text": harness.run("htpasswd", "-nbp", "x", PASSWORD),
        "DES": "x:" + harness.run("mkpasswd", "-m", "descrypt", PASSWORD),
        "not known here": "x:" + harness.run("mkpasswd", "-m", "yescrypt", PASSWORD),
    }
    for name, line in wrong.items():
        users.write_text(line)
        done = subprocess.run([handover, "-c", config, "--check"], capture_output=True, text=True)
        fine = done.returncode == 78 and done.stderr.count("\n") == 1
        if not (fine and name in done.stderr and "handover passwd" in done.stderr and PASSWORD not in done.stderr):
            return f"{name}: {done.returncode} {done.stderr}"
    return None


def at_a_terminal(answers, end=None):
    """What `handover passwd` shows there, its exit code, and whether the terminal is as it was. With `end` it gets that
    signal in place of the second answer."""
    parent, child = pty.openpty()
    before = termios.tcgetattr(child)
    asks = subprocess.Popen([handover, "passwd", "--cost", "4", users, "typed"], stdin=child, stdout=child, stderr=child)
    shown = b""
    for number, answer in enumerate(answers):
        # Once it has asked, nothing is shown any more.
        while shown.count(b": ") <= number:
            shown += os.read(parent, 4096)
        if termios.tcgetattr(child)[3] & termios.ECHO:
            return shown, "the terminal shows what is typed", False
        if number and end:
            asks.send_signal(end)
            break
        os.write(parent, answer.encode() + b"\n")
    code = asks.wait(harness.PATIENCE)
    same = termios.tcgetattr(child) == before
    os.set_blocking(parent, False)
    try:
        shown += os.read(parent, 4096)
    except BlockingIOError:
        pass
    os.close(parent)
    os.close(child)
    return shown, code, same


config.write_text(f"[[route]]\nprefix = '/'\nbody = 'in'\nauth = {{ realm = 'the house', file = '{users}' }}\n")
wrong = refused_by_name()
made = of_other_programs()
users.write_text("".join(f"{name}:{hashed}\n" for name, hashed in made.items()))
done = subprocess.run([handover, "passwd", "--cost", "5", users, "ours"], input=PASSWORD, text=True, capture_output=True)
wrong = wrong or (done.returncode and done.stderr)
verified = subprocess.run(["htpasswd", "-vb", users, "ours", PASSWORD], capture_output=True).returncode == 0
denied = subprocess.run(["htpasswd", "-vb", users, "ours", PASSWORD + "x"], capture_output=True).returncode == 3

typed = at_a_terminal(["typed horse", "typed horse"])
differ = at_a_terminal(["typed horse", "other horse"])
ended = {number.name: at_a_terminal(["typed horse", ""], number) for number in (signal.SIGINT, signal.SIGTERM)}
terminal = (
    typed[1:] == (0, True) and differ[1:] == (1, True) and b"two passwords" in differ[0]
    and all(one[1:] == (128 + signal.Signals[name], True) for name, one in ended.items())
    and not any(b"horse" in one[0] for one in (typed, differ, *ended.values()))
)

server = harness.Server("-c", config)


def status(user, password):
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    return server.get(f"/ HTTP/1.1\r\nAuthorization: Basic {credentials}\r\nX:")[9:12].decode()


passwords = {**{name: PASSWORD for name in (*made, "ours")}, "typed": "typed horse"}
answers = {name: (status(name, password), status(name, password + "x")) for name, password in passwords.items()}
known = all(answer == ("200", "401") for answer in answers.values())
code = server.stop()
harness.verdict(
    not wrong and verified and denied and terminal and known and code == 0,
    f"{len(answers)} kinds let in: {known and 'yes' or answers}; htpasswd verifies ours: {verified and denied}; "
    f"at a terminal: {terminal and 'hidden and left as it was' or (typed, differ, ended)}; {wrong or 'others refused by name'}",
)
