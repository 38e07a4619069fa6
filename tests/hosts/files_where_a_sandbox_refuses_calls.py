"""Files arrive whole where a seccomp filter refuses what they are opened and sent with, as sandboxes do that are older than
a call, or do not know it."""

import errno
import os

import harness

SIZE = 1 << 20


site = harness.directory()
(site / "sub").mkdir()
(site / "small").write_bytes(b"small")
large = bytes(range(256)) * (SIZE // 256)
(site / "large").write_bytes(large)
os.symlink(site / "small", site / "absolute")
wrong, tried = [], 0
for call, errors in {
    "sendfile": ("EPERM", "ENOSYS", "EINVAL", "EOPNOTSUPP"),
    "openat2": ("EPERM", "ENOSYS"),
    "statx": ("EPERM", "ENOSYS"),
}.items():
    for error in errors:
        server = harness.Server("--listing", site, preexec_fn=harness.refusing([call], getattr(errno, error)))
        got = {path: server.get(path).partition(b"\r\n\r\n") for path in ("/small", "/large", "/absolute", "/sub/")}
        bodies = {path: body for path, (_, _, body) in got.items()}
        fine = all(head.startswith(b"HTTP/1.1 200 ") for head, _, _ in got.values())
        fine = fine and bodies["/small"] == bodies["/absolute"] == b"small" and bodies["/large"] == large
        tried += 1
        if not fine or server.stop() != 0:
            wrong.append((call, error, {path: (head[9:12], len(body)) for path, (head, _, body) in got.items()}))
harness.verdict(not wrong, f"{tried} filters; {wrong or 'whole files under each'}")
