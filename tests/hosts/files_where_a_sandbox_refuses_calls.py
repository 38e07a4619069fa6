"""Files arrive whole where a seccomp filter refuses what they are opened and sent with, as sandboxes do that are older than
a call, or do not know it."""

import ctypes
import errno
import os
import platform
import struct

import harness

CALLS = {
    "x86_64": {"sendfile": 40, "openat2": 437, "statx": 332},
    "aarch64": {"sendfile": 71, "openat2": 437, "statx": 291},
}.get(platform.machine())
if CALLS is None:
    harness.cannot_be_tried(f"the numbers of the calls on {platform.machine()} are missing here")

SIZE = 1 << 20


def deny(number, error):
    """A filter for this process and all it executes: that call fails with that error."""
    load, equal, answer = 0x20, 0x15, 0x06
    program = b"".join([
        struct.pack("HBBI", load, 0, 0, 0),
        struct.pack("HBBI", equal, 0, 1, number),
        struct.pack("HBBI", answer, 0, 0, 0x00050000 | error),
        struct.pack("HBBI", answer, 0, 0, 0x7FFF0000),
    ])

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    instructions = ctypes.create_string_buffer(program)
    filter = Filter(len(program) // 8, ctypes.cast(instructions, ctypes.c_void_p))
    # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP with SECCOMP_MODE_FILTER.
    if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, ctypes.byref(filter)) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


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
        number = getattr(errno, error)
        server = harness.Server("--listing", site, preexec_fn=lambda: deny(CALLS[call], number))
        got = {path: server.get(path).partition(b"\r\n\r\n") for path in ("/small", "/large", "/absolute", "/sub/")}
        bodies = {path: body for path, (_, _, body) in got.items()}
        fine = all(head.startswith(b"HTTP/1.1 200 ") for head, _, _ in got.values())
        fine = fine and bodies["/small"] == bodies["/absolute"] == b"small" and bodies["/large"] == large
        tried += 1
        if not fine or server.stop() != 0:
            wrong.append((call, error, {path: (head[9:12], len(body)) for path, (head, _, body) in got.items()}))
harness.verdict(not wrong, f"{tried} filters; {wrong or 'whole files under each'}")
