"""Running a program that isn't trusted to end, to be brief, or to leave quietly.

Used for probes: a container runtime that hangs, writes for ever or sits on a dead network file
system must cost its deadline and no more. The program has a session of its own, which is
killed as a whole afterwards, whatever happened.

It is started through /bin/sh: the fork then waits for the start of a shell on the local disk,
and not for a file on a dead mount, which can take for ever. The work is done in a thread, as
asyncio's own processes wait in the event loop for just that start.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from pilot.children import OWN_CHILDREN
from transport.messages import Record

_POLL_S = 0.05
_DRAIN_S = 0.5  # how long output is still read when the program has ended but not its children
_REAP_S = 2.0  # a process that isn't gone this long after SIGKILL is stuck in the kernel
_KILL_ROUNDS = 5
_CHUNK_BYTES = 65536


class Finished(Record, frozen=True, kw_only=True):
    """What came of it. ``exit_code`` is negative for a signal, None when it had to be killed."""

    exit_code: int | None
    stdout: bytes
    stderr: bytes
    seconds: float
    is_timed_out: bool = False
    is_flooded: bool = False
    """True when it was killed for writing more than it may."""


async def run_bounded(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    timeout_s: float,
    output_bytes_max: int = 65536,
) -> Finished:
    """Run a program in /, without stdin, and return what it wrote.

    Waits for ``timeout_s`` at most, and some seconds more for what can't be killed at once.
    Each of stdout and stderr may be ``output_bytes_max`` long. Cancelling kills it, too.
    """
    run = _Run(arguments, environment, output_bytes_max)
    try:
        return await asyncio.to_thread(run.to_the_end, timeout_s)
    finally:
        run.is_cancelled.set()


class _Run:
    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], bytes_max: int
    ) -> None:
        self.is_cancelled = threading.Event()
        self._arguments = ["/bin/sh", "-c", 'exec "$@"', "sh", *arguments]
        self._environment = dict(environment)
        self._bytes_max = bytes_max
        self._stdout = bytearray()
        self._stderr = bytearray()

    def to_the_end(self, timeout_s: float) -> Finished:
        begun = time.monotonic()
        process = subprocess.Popen(
            self._arguments,
            env=self._environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        OWN_CHILDREN.add(process.pid)
        assert process.stdout is not None
        assert process.stderr is not None
        with process.stdout as stdout, process.stderr as stderr:
            try:
                has_ended = self._follow(process.pid, stdout, stderr, begun + timeout_s)
            finally:
                _kill_session(process.pid)
                with suppress(subprocess.TimeoutExpired):  # stuck in the kernel: left to init
                    process.wait(_REAP_S)
                OWN_CHILDREN.discard(process.pid)
        is_flooded = max(len(self._stdout), len(self._stderr)) > self._bytes_max
        return Finished(
            exit_code=process.returncode if has_ended else None,
            stdout=bytes(self._stdout[: self._bytes_max]),
            stderr=bytes(self._stderr[: self._bytes_max]),
            seconds=time.monotonic() - begun,
            is_timed_out=not has_ended and not is_flooded,
            is_flooded=is_flooded,
        )

    def _follow(self, pid: int, stdout: IO[bytes], stderr: IO[bytes], deadline: float) -> bool:
        """Read until the program has ended; False where it must be ended."""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ, self._stdout)
            selector.register(stderr, selectors.EVENT_READ, self._stderr)
            drained_at = None
            while time.monotonic() < deadline and not self.is_cancelled.is_set():
                if not self._read(selector):
                    return False
                if _has_ended(pid):
                    drained_at = drained_at or time.monotonic() + _DRAIN_S
                    if not selector.get_map() or time.monotonic() >= drained_at:
                        return True
        return False

    def _read(self, selector: selectors.BaseSelector) -> bool:
        """Read what has come, for a moment; False where that was too much."""
        if not selector.get_map():
            time.sleep(_POLL_S / 10)
        for key, _ in selector.select(_POLL_S if selector.get_map() else 0):
            chunk = os.read(key.fd, _CHUNK_BYTES)
            buffer: bytearray = key.data
            buffer.extend(chunk)
            if not chunk:
                selector.unregister(key.fileobj)
            elif len(buffer) > self._bytes_max:
                return False
        return True


def _has_ended(pid: int) -> bool:
    # Without reaping it: as long as it is a zombie, its PID and its session's are its own.
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_session(session: int) -> None:
    for _ in range(_KILL_ROUNDS):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(session, signal.SIGKILL)
        members = [pid for pid in _session_members(session) if pid != session]
        for pid in members:
            # A setuid runtime's own processes may not be ours to kill; they end with their child.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not members:
            return
        time.sleep(_POLL_S)


def _session_members(session: int) -> list[int]:
    """Return the living processes of a session, in whatever process group."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                state, _, _, sid = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(sid) == session and state != "Z":
                    members.append(int(entry.name))
    return members
