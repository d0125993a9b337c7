"""Where a job's processes were seen: what the wrapper announced, and what the Monitor found.

A payload may end before anyone looks for it, and its owner still wants to know that it ran and
under which PID. So what was announced and never found is told at the end. In the wrapper's own
PID namespace it has the same PID on the host as long as the wrapper has.
"""

from __future__ import annotations

from actors.ports import HostProcess
from transport.messages import ProcessIdentity, ProcessRole

PROCESSES_MAX = 50
"""Told of one attempt: its processes change now and then, not for ever."""


class Sightings:
    """The processes of one attempt, by role: announced, seen, told."""

    def __init__(self) -> None:
        self._unseen: dict[ProcessRole, ProcessIdentity] = {}
        self._wrapper: tuple[ProcessIdentity, HostProcess] | None = None
        self._told = 0

    @property
    def wrapper(self) -> HostProcess | None:
        """The wrapper on the host, as it was last seen."""
        return None if self._wrapper is None else self._wrapper[1]

    def announced(self, role: ProcessRole, process: ProcessIdentity) -> None:
        """Take what a process says of itself."""
        self._unseen[role] = process

    def seen(self, role: ProcessRole, process: ProcessIdentity, host: HostProcess | None) -> bool:
        """Take where it is on the host, None where it was not found; say whether to tell it."""
        if self._unseen.get(role) == process:
            del self._unseen[role]
        if role is ProcessRole.WRAPPER and host is not None:
            self._wrapper = (process, host)
        self._told += 1
        return self._told <= PROCESSES_MAX

    def unseen(self) -> tuple[tuple[ProcessRole, ProcessIdentity], ...]:
        """Return what nobody found in time, as far as it may still be told."""
        room = max(0, PROCESSES_MAX - self._told)
        return tuple(self._unseen.items())[:room]

    def must_have_been(self, process: ProcessIdentity) -> HostProcess | None:
        """Return where a process was that nobody found, None where that can't be known."""
        if self._wrapper is None:
            return None
        wrapper, host = self._wrapper
        if wrapper.pid != host.pid or wrapper.pid_namespace != process.pid_namespace:
            return None
        return HostProcess(pid=process.pid, start_ticks=process.start_ticks)
