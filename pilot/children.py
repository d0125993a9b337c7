"""Own child processes: started into a session of their own, waited for without polling."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


class LaunchedChildren:
    """The children that this process started itself and still waits for.

    Whoever starts one adds it, a process table looks into it: what comes to the agent as an
    orphan is told from what the agent started, whatever that makes of its own environment
    (Apptainer's starter hides it).
    """

    def __init__(self) -> None:
        self._pids: set[int] = set()
        self._marks: set[bytes] = set()

    def __contains__(self, pid: int) -> bool:
        return pid in self._pids

    def add(self, pid: int) -> None:
        """Take a child that was just started."""
        self._pids.add(pid)

    def discard(self, pid: int) -> None:
        """Forget a child when its end was seen: its PID may soon be another's."""
        self._pids.discard(pid)

    def add_mark(self, mark: str) -> None:
        """Take the marker of an attempt that begins: its processes are its own sweep's."""
        self._marks.add(mark.encode())

    def discard_mark(self, mark: str) -> None:
        """Forget the marker of an attempt that is over."""
        self._marks.discard(mark.encode())

    def has_mark(self, mark: bytes) -> bool:
        """Tell whether this is the marker of an attempt that isn't over."""
        return mark in self._marks


OWN_CHILDREN = LaunchedChildren()
"""Of this process. One registry for the whole process is what the kernel has, too."""


def become_subreaper() -> bool:
    """Let orphaned descendants come to this process, instead of to init (Linux 3.4)."""
    return int(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0


def die_with_parent(parent: int) -> None:
    """For a child, before its exec: be killed when the thread that forked it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)


async def wait_child(child: subprocess.Popen[bytes]) -> int:
    """Wait for a child's end; return its exit code, or the negative of a signal's number."""
    try:
        descriptor = os.pidfd_open(child.pid)
    except OSError:
        # Before Linux 5.3: a thread waits.
        return await asyncio.get_running_loop().run_in_executor(None, child.wait)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(descriptor, _resolve, ended)
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return child.wait()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
