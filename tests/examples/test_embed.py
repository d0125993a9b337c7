from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pilot import embedding
from pilot.embedding import (
    Answer,
    AnyReport,
    Command,
    FinalReport,
    Heartbeat,
    JobDescription,
    JobStatus,
    Match,
    Settings,
    Slot,
    StatusReport,
    local_node,
)

pytestmark = pytest.mark.real

EXAMPLE = Path(__file__).parents[2] / "examples" / "embed.py"
PR_GET_CHILD_SUBREAPER = 37
DETACHED = """
import os, time
if os.fork() == 0:
    os.setsid()
    os.closerange(0, 3)
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""


class OneJob:
    """A queue of one job, which is given back and forgotten when it says WAITING."""

    def __init__(self, *command: str) -> None:
        executable, *arguments = command
        self._description = JobDescription(
            executable=executable, arguments=tuple(arguments), ttl_s=60
        )
        self._is_given = False
        self.statuses: list[JobStatus] = []
        self.is_running = asyncio.Event()
        self.is_final = asyncio.Event()

    async def match(self, slot: Slot) -> Match | None:
        if self._is_given:
            return None
        self._is_given = True
        return Match(job_id=1, attempt=1, description=self._description, lease_s=60)

    async def report(self, report: AnyReport) -> Answer:
        if isinstance(report, StatusReport | FinalReport):
            self.statuses.append(report.status)
            if report.status is JobStatus.RUNNING:
                self.is_running.set()
            if report.status in embedding.FINAL:
                self.is_final.set()
        return Answer.ACCEPTED

    async def heartbeat(self, beat: Heartbeat) -> tuple[Command, ...]:
        return ()


def is_subreaper() -> bool:
    """Return whether orphans come to this process."""
    answer = ctypes.c_int()
    ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    return bool(answer.value)


def processes_of(state: Path) -> list[str]:
    """Return the command lines of the processes that were told of a state directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(state) in told and int(process.name) != os.getpid():
            found.append((process / "cmdline").read_bytes().decode(errors="replace"))
    return found


def handlers() -> list[object]:
    """Return what this process does about each signal."""
    return [signal.getsignal(number) for number in sorted(signal.valid_signals())]


def test_the_example_shows_each_job_to_its_end() -> None:
    """It ends by itself, every job in its status, the killed one too."""
    ran = subprocess.run(
        (sys.executable, EXAMPLE),
        env={**os.environ, "PYTHONPATH": str(EXAMPLE.parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    for job, *statuses in (
        ("1", "STARTED", "RUNNING", "SAVING", "DONE"),
        ("2", "STARTED", "RUNNING", "SAVING", "ERROR_E the payload exited with code 3"),
        ("3", "STARTED", "RUNNING", "SAVING", "KILLED a whim"),
    ):
        lines = [line for line in ran.stdout.splitlines() if line.startswith(f"job {job}: ")]
        assert lines == [f"job {job}: {status}" for status in statuses]


async def test_an_embedded_node_leaves_the_program_as_it_is(tmp_path: Path) -> None:
    """No signal handlers, no adoption of orphans, no variables, and other children stay."""
    before = (handlers(), is_subreaper(), dict(os.environ))
    queue = OneJob("/bin/true")
    node = local_node(queue, Settings(state=str(tmp_path), cores=1))
    other = await asyncio.create_subprocess_exec("/bin/sleep", "600")
    async with asyncio.TaskGroup() as group:
        group.create_task(node.run())
        await queue.is_final.wait()
        during = (handlers(), is_subreaper(), dict(os.environ))
        node.drain("done")
    was_alive = other.returncode is None
    other.kill()
    await other.wait()

    assert queue.statuses[-1] is JobStatus.DONE
    # asyncio itself may wake by a descriptor, but no handler is ours.
    assert during == before
    assert was_alive


async def test_a_cancelled_node_leaves_no_process(tmp_path: Path) -> None:
    """Its jobs are given back, and what they started is gone, detached or not."""
    queue = OneJob(sys.executable, "-c", DETACHED)
    node = local_node(queue, Settings(state=str(tmp_path), cores=1, stop_grace_s=1))
    running = asyncio.get_running_loop().create_task(node.run())
    async with asyncio.timeout(30):
        await queue.is_running.wait()
        while len(processes_of(tmp_path)) < 2:  # noqa: ASYNC110 - a fork that nobody tells of
            await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert processes_of(tmp_path) == []
    assert queue.statuses[-1] is JobStatus.WAITING
