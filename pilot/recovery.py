"""Cleans up after agents of this state directory that were killed.

A dead agent's wrappers end by themselves, and its jobs' leases run out: no job is lost. What
can stay behind is what nobody was left to sweep: a payload's detached grandchild, a work
directory, a job's key. Each attempt has a file that names its agent (PID, start ticks, boot)
and its processes' marker; the next agent finds those whose agent is gone, and cleans up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import msgspec

from actors.ports import ProcessTable
from pilot import procfs
from pilot.job_files import JobFiles
from pilot.plain_files import read_plain
from transport.errors import OperatorError
from transport.messages import Record

SWEEP_S = 10.0


class Owner(Record, frozen=True, kw_only=True):
    """Who runs an attempt: an agent, told from any later process of its PID."""

    agent_pid: int
    start_ticks: int
    boot_id: str
    mark: str

    @classmethod
    def own(cls, mark: str) -> Owner:
        """Return this process as owner of an attempt with this marker."""
        stat = procfs.read_stat("self")
        return cls(
            agent_pid=os.getpid(),
            start_ticks=0 if stat is None else stat.start_ticks,
            boot_id=procfs.boot_id(),
            mark=mark,
        )

    def is_alive(self) -> bool:
        """Tell whether that agent still runs."""
        stat = procfs.read_stat(self.agent_pid)
        is_there = stat is not None and stat.start_ticks == self.start_ticks and stat.state != "Z"
        return is_there and self.boot_id == procfs.boot_id()


def write_owner(files: JobFiles, mark: str) -> None:
    """Note that this process runs an attempt; before anything of it is started."""
    part = files.owner.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(Owner.own(mark)))
    part.replace(files.owner)


async def clean_up_after_the_dead(state: Path, table: ProcessTable) -> list[str]:
    """Sweep and remove what dead agents left in ``state``; return a line for each attempt."""
    lines = []
    for path, owner in await asyncio.to_thread(_owned, state):
        if owner.is_alive():
            continue
        attempt = "/".join(path.parent.parts[-2:])
        try:
            killed = await table.sweep(owner.mark, 0, deadline_s=SWEEP_S)
            await asyncio.to_thread(JobFiles(root=path.parent).remove_transient)
            lines.append(f"cleaned up after a dead agent: attempt {attempt}, {killed} killed")
        except OperatorError as error:
            lines.append(f"attempt {attempt} of a dead agent can't be cleaned up: {error}")
    return lines


def _owned(state: Path) -> list[tuple[Path, Owner]]:
    found = []
    for path in state.glob("jobs/*/*/owner.json"):
        with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
            text = read_plain(path, bytes_max=4096)
            found.append((path, msgspec.json.decode(text, type=Owner)))
    return found
