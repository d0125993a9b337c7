#!/usr/bin/env python3
"""A payload that tries everything it must not be able to do, and what it must.

It waits for targets.json beside the state, writes verdict.json: a word for each attempt, "did"
where it succeeded.
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH = 16
CLONE_NEWUSER_AND_NEWNS = 0x10020000


def main() -> None:
    """Try it all."""
    beside = Path(sys.argv[1])
    while not (beside / "targets.json").exists():
        time.sleep(0.05)
    targets = json.loads((beside / "targets.json").read_text())
    state, work = Path(targets["state"]), Path.cwd()
    home = pwd.getpwuid(os.getuid()).pw_dir
    forbidden: dict[str, Callable[[], object]] = {
        "read the queue": lambda: (state / "queue.sqlite").read_bytes(),
        "read the authority's key": lambda: (state / "authority/authority.pem").read_bytes(),
        "read the agent's log": lambda: (state / "agent.log").read_bytes(),
        "read another job's file": lambda: (state / "jobs/1/1/work/own.txt").read_bytes(),
        "read another job's key": lambda: (state / "jobs/1/1/private/job.key").read_bytes(),
        "read by a link": lambda: link_to(state / "queue.sqlite").read_bytes(),
        "write to the home directory": lambda: Path(home, ".planted").write_text("x"),
        "write to /tmp": lambda: Path("/tmp/.planted").write_text("x"),
        "write to /var/tmp": lambda: Path("/var/tmp/.planted").write_text("x"),
        "write to the outputs": lambda: (work.parent / "output/planted").write_text("x"),
        "write to the private directory": lambda: (work.parent / "private/planted").write_text("x"),
        "replace the certificate": lambda: (work.parent / "private/job.pem").unlink(),
        "write beside the state": lambda: (beside / "planted").write_text("x"),
        "rename the outputs away": lambda: (work.parent / "output").rename(work / "taken"),
        "kill the agent": lambda: os.kill(targets["agent"], signal.SIGKILL),
        "kill the other job": lambda: os.kill(targets["other"], signal.SIGKILL),
        "kill the other job's wrapper": lambda: os.kill(targets["wrapper"], signal.SIGKILL),
        "kill the own wrapper": lambda: os.kill(os.getppid(), signal.SIGKILL),
        "trace the agent": lambda: trace(targets["agent"]),
        "trace the other job": lambda: trace(targets["other"]),
        "trace the own wrapper": lambda: trace(os.getppid()),
        "read the wrapper's environment": lambda: read_proc(os.getppid(), "environ"),
        "read the wrapper's memory": lambda: read_proc(os.getppid(), "mem"),
        "take the wrapper's descriptors": lambda: take_descriptor(os.getppid()),
        "look through the agent's root": lambda: os.listdir(f"/proc/{targets['agent']}/root/"),
        "unmount what hides": lambda: unmount(state),
        "mount in a namespace of its own": lambda: unshare_and_mount(work),
        "talk to an abstract socket": lambda: connect(targets["socket"]),
    }
    if targets["has_mounts"]:  # Landlock alone has no say in these.
        forbidden |= {
            "make a file setuid": lambda: (beside / "targets.json").chmod(0o4755),
            "give a file away": lambda: os.chown(beside / "targets.json", -1, os.getgid()),
            "set a file's times": lambda: os.utime(beside / "targets.json", (1, 1)),
        }
    allowed: dict[str, Callable[[], object]] = {
        "write in its work directory": lambda: (work / "a").write_text("x"),
        "move between directories": lambda: move(work),
        "write in TMPDIR": lambda: Path(os.environ["TMPDIR"], "t").write_text("x"),
        "read its certificate": lambda: Path(os.environ["X509_USER_PROXY"]).read_text(),
        "write to /dev/null": lambda: Path("/dev/null").write_text("x"),
        "use a pipe in a shell": lambda: subprocess.run(
            "echo one | cat | grep -q one && echo two > two", shell=True, check=True
        ),
        "signal its own child": signal_child,
        "share memory": lambda: Path("/dev/shm", f"own-{os.getpid()}").write_text("x"),
        "read what is beside the state": lambda: (beside / "targets.json").read_text(),
        "list /": lambda: os.listdir("/"),
        "connect to a socket of its own": own_socket,
    }
    verdict = {name: tried(attempt) for name, attempt in sorted({**forbidden, **allowed}.items())}
    (work / "verdict.json").write_text(
        json.dumps({"verdict": verdict, "allowed": sorted(allowed), "uid": os.getuid()})
    )


def tried(attempt: Callable[[], object]) -> str:
    """Return "did", or how it failed."""
    try:
        attempt()
    except Exception as error:
        return type(error).__name__
    return "did"


def link_to(target: Path) -> Path:
    """Make a link."""
    link = Path("link")
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    return link


def move(work: Path) -> None:
    """Move a file from one directory to another."""
    for name in ("from", "to"):
        (work / name).mkdir()
    (work / "from/x").write_text("x")
    (work / "from/x").rename(work / "to/x")


def trace(pid: int) -> None:
    """Attach to a process."""
    checked(libc.ptrace(PTRACE_ATTACH, pid, None, None))


def read_proc(pid: int, name: str) -> None:
    """Open one of a process's files."""
    Path(f"/proc/{pid}/{name}").open("rb").close()
    if name == "environ":
        assert Path(f"/proc/{pid}/environ").read_bytes()


def take_descriptor(pid: int) -> None:
    """Open what another process has open."""
    outcomes = [tried(opener(f"/proc/{pid}/fd/{name}")) for name in os.listdir(f"/proc/{pid}/fd")]
    if "did" not in outcomes:
        raise PermissionError


def opener(path: str) -> Callable[[], object]:
    """Return what opens a file."""
    return lambda: os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def unmount(directory: Path) -> None:
    """Unmount, lazily."""
    checked(libc.umount2(os.fsencode(directory), 2))


def unshare_and_mount(work: Path) -> None:
    """Take the rights of a new user namespace, in a child, and mount."""
    child = os.fork()
    if child == 0:
        try:
            checked(libc.unshare(CLONE_NEWUSER_AND_NEWNS))
            checked(libc.mount(b"none", os.fsencode(work), b"tmpfs", 0, None))
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise PermissionError


def connect(name: str) -> None:
    """Connect to an abstract socket."""
    with socket.socket(socket.AF_UNIX) as own:
        own.connect(f"\0{name}")


def own_socket() -> None:
    """Listen and connect, abstractly."""
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as own:
        listening.bind(f"\0own-{os.getpid()}-{time.time()}")
        listening.listen()
        own.connect(listening.getsockname())


def signal_child() -> None:
    """End a child."""
    child = subprocess.Popen(["sleep", "60"])
    child.send_signal(signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM


def checked(result: int) -> None:
    """Raise what the C library says."""
    if result:
        raise OSError(ctypes.get_errno(), "refused")


if __name__ == "__main__":
    main()
