"""A wrapper as a child process: started with two pipes, held until it has gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from actors.ports import WrapperExit
from pilot.children import OWN_CHILDREN, wait_child
from pilot.containers.check import classify_stderr
from pilot.containers.runtime import RuntimeKind
from pilot.job_files import JobFiles
from pilot.launching.plan import LaunchPlan
from pilot.plain_files import read_plain
from transport.errors import OperatorError
from transport.link import Link

DIAGNOSIS_BYTES_MAX = 16_384

Spawned = tuple[subprocess.Popen[bytes], int, int]
"""A child, and our ends of its stdout and its stdin."""


class ChildWrapper:
    """A wrapper that was started as a child process; `actors.ports.LaunchedWrapper`."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        link: Link,
        plan: LaunchPlan,
        files: JobFiles,
        mark: str,
    ) -> None:
        """``plan`` is how it was launched, ``mark`` is in its environment."""
        self._child = child
        self._plan = plan
        self._files = files
        self.link = link
        self.launcher_pid = child.pid
        self.container = plan.container
        self.image = plan.image
        self.traces = plan.traces
        # All that the job can write: a container's /tmp and the outputs count, too.
        self.work_directory = str(files.root)
        self.paths = plan.paths
        self.mark = mark

    async def wait(self) -> WrapperExit:
        """Wait until the launched process has ended, and say what it left in its log."""
        try:
            code = await wait_child(self._child)
        finally:
            OWN_CHILDREN.discard(self._child.pid)
        diagnosis = await asyncio.to_thread(self._diagnose) if code else ""
        if code < 0:
            return WrapperExit(signal=-code, diagnosis=diagnosis)
        return WrapperExit(exit_code=code, diagnosis=diagnosis)

    def host_path(self, location: str) -> str:
        """Return where a saved file is on the host: in the attempt's output directory.

        Where that directory is, the wrapper isn't asked; a place outside it is taken as a name.
        """
        inside = os.path.relpath(location, self.paths.output_directory)
        if inside.split("/")[0] == "..":
            inside = os.path.basename(location)
        return str(self._files.output / inside)

    def signal(self, number: int) -> None:
        """Signal the launched process; its session is its own, so KILL takes all of that."""
        if self._child.returncode is not None:
            return
        with suppress(ProcessLookupError, PermissionError):
            if number == signal.SIGKILL:
                os.killpg(self._child.pid, number)
            else:
                self._child.send_signal(number)

    def failed_to_start(self, why: str) -> bool:
        """Tell whoever chose its container; see `actors.ports.LaunchedWrapper`."""
        return self._plan.launch_failed(why)

    def _diagnose(self) -> str:
        try:
            text = read_plain(self._files.log, bytes_max=DIAGNOSIS_BYTES_MAX)
        except OSError:
            return ""
        kind = None if self.container is None else RuntimeKind(self.container)
        said = classify_stderr(text, kind)
        return f"it said: {said}" if said else ""


async def spawned(plan: LaunchPlan, log: Path) -> Spawned:
    """Start the plan's command in a thread; cancelled, end what is started all the same."""
    spawning = asyncio.get_running_loop().run_in_executor(None, _spawn, plan, log)
    try:
        return await asyncio.shield(spawning)
    except asyncio.CancelledError:
        spawning.add_done_callback(_undo)
        raise


def _undo(spawning: asyncio.Future[Spawned]) -> None:
    if not spawning.cancelled() and spawning.exception() is None:
        child, read_fd, write_fd = spawning.result()
        os.close(read_fd)
        os.close(write_fd)
        abandon(child)


def abandon(child: subprocess.Popen[bytes]) -> None:
    """Kill a child that nobody will hold."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    OWN_CHILDREN.discard(child.pid)


def _spawn(plan: LaunchPlan, log: Path) -> Spawned:
    """Start the plan's command; return the child and our ends of its stdout and stdin."""
    child_reads, write_fd = os.pipe()
    read_fd, child_writes = os.pipe()
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "ab") as stderr:
            child = subprocess.Popen(
                plan.command,
                env=plan.environment,
                stdin=child_reads,
                stdout=child_writes,
                stderr=stderr,
                cwd="/",
                start_new_session=True,
            )
            OWN_CHILDREN.add(child.pid)
    except OSError as error:
        os.close(write_fd)
        os.close(read_fd)
        raise OperatorError(f"{plan.command[0]} can't be started: {error.strerror}") from error
    finally:
        os.close(child_reads)
        os.close(child_writes)
    return child, read_fd, write_fd
