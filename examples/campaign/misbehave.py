#!/usr/bin/env python3
"""What payloads do to a pilot: misbehave.py exit|crash|memory|disk|sleep|garbage|daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable


def main() -> None:
    """Do one of these, noisily."""
    what, *rest = sys.argv[1:]
    print(f"misbehaving: {what}", flush=True)
    MODES[what](*rest)


def leave(code: str) -> None:
    """Find the calibration wanting."""
    print("E-AliReconstruction: no valid calibration for this run", file=sys.stderr)
    sys.exit(int(code))


def crash() -> None:
    """Die as C++ does."""
    os.kill(os.getpid(), signal.SIGSEGV)


def use_memory(megabytes: str) -> None:
    """Leak, until there is so much; then keep it."""
    held = []
    for _ in range(int(megabytes) // 20):
        held.append(bytearray(os.urandom(1_000_000) * 20))
        time.sleep(0.05)
    wait("60")


def use_disk(megabytes: str) -> None:
    """Write a debug stream that nobody asked for."""
    with open("AliESDdebug.root", "wb") as file:
        for _ in range(int(megabytes)):
            file.write(os.urandom(1_000_000))
            file.flush()
            time.sleep(0.02)
    wait("60")


def wait(seconds: str) -> None:
    """Be stuck."""
    time.sleep(float(seconds))


def print_garbage() -> None:
    """Print what could pass for the protocol, secrets of our own making, and binary noise."""
    frame = b"\x00\x00\x00\x20\x94\x01\x01\x01\xacjob-finished\x81\xa9exit_code\x00"
    huge = b"\x7f\xff\xff\xff" + frame
    key = f"-----BEGIN {'PRIVATE'} KEY-----\nbm90IGEga2V5\n-----END {'PRIVATE'} KEY-----\n"
    secrets = f"{key}token=eyJhbGciOiJub25lIn0.e30.\npassword=hunter2\n".encode()
    outlets = [1, 2]
    for path in ("/proc/self/fd/1", "/dev/stderr", f"/proc/{os.getppid()}/fd/1"):
        try:
            outlets.append(os.open(path, os.O_WRONLY | os.O_APPEND))
        except OSError as error:
            print(f"{path} is closed to us: {error.strerror}", flush=True)
    for number in (0, *range(3, 20), *outlets):
        try:
            os.write(number, frame + huge + secrets + os.urandom(2000) + b"\x1b[2J\x1bc\x07")
        except OSError:
            continue
    subprocess.run(["sh", "-c", "printf 'DONE\\n\\0STATUS DONE\\r\\n' >&2; cat /proc/self/environ"])


def leave_a_daemon() -> None:
    """Start one that forgets everything: session, parent, environment, open files."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            command = "trap '' TERM HUP INT; while :; do sleep 1; done"
            os.execve("/bin/sh", ["campaign-daemon", "-c", command], {})
        os._exit(0)
    os.wait()
    time.sleep(0.5)


MODES: dict[str, Callable[..., None]] = {
    "exit": leave,
    "crash": crash,
    "memory": use_memory,
    "disk": use_disk,
    "sleep": wait,
    "garbage": print_garbage,
    "daemon": leave_a_daemon,
}

if __name__ == "__main__":
    main()
