"""The node's processes, as the agent sees them: find, measure, signal, sweep.

Finding: a process inside a PID namespace announces a PID that means nothing here. It is the
one whose innermost PID, PID namespace and start time are those announced; start ticks are
counted from boot in every namespace, so they rule out nearly all others at one glance. It is
looked for below the launched process, and then by the attempt's marker: Docker's daemon starts
a container on the other side of the process tree.

Sweeping: what a finished attempt left behind is known by its environment marker, by
descending from such a process, or - where the agent is a subreaper - by having come to us as
an orphan: only what a dead wrapper left can. A process with another attempt's marker, or one
that this agent started itself, is never touched.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from actors.ports import HostProcess
from pilot import procfs
from pilot.children import OWN_CHILDREN
from pilot.procfs import AGENT_VARIABLE, ProcessStat
from transport.errors import OperatorError
from transport.messages import ProcessIdentity, Usage

EMPTY_LOOKS = 3
"""So often in a row nothing is to be found: what forks and ends in turns hides from one look."""
ORPHAN_AGE_S = 0.5
"""A younger child of ours may be between fork and exec, and look like nobody's."""


class LocalProcessTable:
    """The process table of this machine, read from /proc."""

    def __init__(self, agent_mark: str = "") -> None:
        """With ``agent_mark``, the value of AGENT_VARIABLE, orphans that come to us are swept.

        Without it (embedded in another program) only marked processes and their descendants.
        """
        self._agent_mark = agent_mark
        self._boot_id = procfs.boot_id()

    async def locate(self, launcher_pid: int, process: ProcessIdentity) -> HostProcess | None:
        """Find the host-side PID of a process that announced itself; None if it isn't there."""
        if process.boot_id != self._boot_id or process.start_ticks == 0:
            return None
        return await asyncio.to_thread(find_process, process, launcher_pid)

    async def sample(self, roots: Sequence[HostProcess], *, precise: bool) -> Usage | None:
        """Measure the trees under ``roots``; None when no root is there any more."""
        return await asyncio.to_thread(measure, tuple(roots), precise=precise)

    async def disk_bytes(self, directory: str) -> int:
        """Return the bytes that a directory's files occupy; 0 when it isn't there."""
        return await asyncio.to_thread(disk_bytes, directory)

    def signal(self, process: HostProcess, number: int) -> bool:
        """Signal exactly this process; False when it is gone."""
        return procfs.signal_exactly(process.pid, process.start_ticks, number)

    async def sweep(self, mark: str, launcher_pid: int, *, deadline_s: float) -> int:
        """Kill whatever a finished attempt left running; return how many there were."""
        killed: set[tuple[int, int]] = set()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + deadline_s
        empty_looks = 0
        while empty_looks < EMPTY_LOOKS:
            left = await asyncio.to_thread(self._kill_survivors, mark)
            killed.update((stat.pid, stat.start_ticks) for stat in left)
            empty_looks = 0 if left else empty_looks + 1
            if left and loop.time() >= deadline:
                raise OperatorError(
                    f"{len(left)} processes of the job can't be killed: "
                    f"PID {', '.join(str(stat.pid) for stat in left[:5])}"
                )
            self._reap(left)
        return len(killed)

    def _kill_survivors(self, mark: str) -> list[ProcessStat]:
        left = self._survivors(mark)
        for stat in left:
            procfs.signal_exactly(stat.pid, stat.start_ticks, 9)
        return left

    def _survivors(self, mark: str) -> list[ProcessStat]:
        processes = list(procfs.all_processes())
        me = os.getpid()
        roots = [
            stat.pid
            for stat in processes
            if stat.pid != me and stat.state != "Z" and self._is_left_over(stat, mark, me)
        ]
        found = descendants_but(me, roots, processes)
        return [stat for stat in found if stat.state != "Z"]

    def _is_left_over(self, stat: ProcessStat, mark: str, me: int) -> bool:
        found = procfs.mark_of(stat.pid)
        if mark and found == mark.encode():
            return True
        if not self._agent_mark or stat.parent != me or stat.pid in OWN_CHILDREN:
            return False
        environment = procfs.environment_of(stat.pid)
        is_own = f"{AGENT_VARIABLE}={self._agent_mark}".encode() in environment
        age_s = procfs.uptime_s() - stat.start_ticks / procfs.CLOCK_TICKS_PER_S
        return not OWN_CHILDREN.has_mark(found) and not is_own and age_s >= ORPHAN_AGE_S

    def _reap(self, killed: Iterable[ProcessStat]) -> None:
        """Collect those that had come to us; another's children are not ours to collect."""
        for stat in killed:
            try:
                os.waitpid(stat.pid, os.WNOHANG)
            except ChildProcessError:
                continue


def find_process(process: ProcessIdentity, launcher_pid: int) -> HostProcess | None:
    """Look, among the job's own processes, for what ``process`` announced.

    They are what the launched process started, and, as a daemon or a monitor may have started
    the container for it, what carries the launched process's own marker. Whatever else it may
    resemble: a wrapper can't make the agent follow, or signal, a process that isn't the job's.
    """
    processes = list(procfs.all_processes())
    below = {stat.pid for stat in procfs.descendants([launcher_pid], processes)}
    mark = procfs.mark_of(launcher_pid)
    for stat in processes:
        if stat.start_ticks != process.start_ticks or not _is_the_same(stat.pid, process):
            continue
        if stat.pid in below or (mark and procfs.mark_of(stat.pid) == mark):
            return HostProcess(pid=stat.pid, start_ticks=stat.start_ticks)
    return None


def _is_the_same(pid: int, process: ProcessIdentity) -> bool:
    if procfs.innermost_pid(pid) != process.pid:
        return False
    inode = procfs.pid_namespace(pid)
    # Unreadable (another user's, or hardened): start time and innermost PID have to do.
    return inode is None or inode == process.pid_namespace


def measure(roots: Sequence[HostProcess], *, precise: bool) -> Usage | None:
    """Add up the trees under the roots that are still there."""
    processes = list(procfs.all_processes())
    there = {(stat.pid, stat.start_ticks) for stat in processes if stat.state != "Z"}
    living = [root.pid for root in roots if (root.pid, root.start_ticks) in there]
    if not living:
        return None
    tree = procfs.descendants(living, processes)
    rss = sum(stat.rss_bytes for stat in tree)
    pss = [procfs.pss_bytes(stat.pid) for stat in tree] if precise else []
    has_pss = any(figure is not None for figure in pss)
    return Usage(
        cpu_s=sum(stat.cpu_ticks for stat in tree) / procfs.CLOCK_TICKS_PER_S,
        memory_bytes=sum(figure or 0 for figure in pss) if has_pss else rss,
        rss_bytes=rss,
        processes=len(tree),
        threads=sum(stat.threads for stat in tree),
        source="pss" if has_pss else "rss",
    )


def disk_bytes(directory: str) -> int:
    """Add up the blocks of all files below a directory; links aren't followed."""
    total, seen = 0, set()
    stack = [directory]
    while stack:
        try:
            entries = list(os.scandir(stack.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                stat = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if (stat.st_dev, stat.st_ino) in seen:
                continue
            if stat.st_nlink > 1:
                seen.add((stat.st_dev, stat.st_ino))
            total += stat.st_blocks * 512
            if entry.is_dir(follow_symlinks=False):
                stack.append(entry.path)
    return total


def descendants_but(
    me: int, roots: Iterable[int], processes: Sequence[ProcessStat]
) -> list[ProcessStat]:
    """Return the trees under the roots, never this process itself."""
    return [stat for stat in procfs.descendants(roots, processes) if stat.pid != me]


def own_mark() -> str:
    """Return a new marker value: not to be guessed, of no secret."""
    return Path("/proc/sys/kernel/random/uuid").read_text().strip()
