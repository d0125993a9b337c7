"""Process binding: which host processes are a job's, as they announce themselves anew.

A PID alone names nothing: it is another one in a container, and is used again. So a process
is what announced itself - (role, PID, PID namespace, start ticks, boot) - and is bound to a
host process once one is found for *exactly* that announcement. An answer for an earlier
announcement changes nothing. "Not there" is an ordinary answer: yet, or any more.
"""

from __future__ import annotations

from collections.abc import Collection

from actors.ports import HostProcess
from transport.messages import ProcessIdentity, ProcessRole


class Bindings:
    """The processes of one job by role: announced, and found or given up."""

    def __init__(self, tries_max: int) -> None:
        """Look for each announcement ``tries_max`` times before giving it up."""
        self._tries_max = tries_max
        self._announced: dict[ProcessRole, ProcessIdentity] = {}
        self._tries: dict[ProcessRole, int] = {}
        self._bound: dict[ProcessRole, HostProcess] = {}

    def announce(self, role: ProcessRole, process: ProcessIdentity) -> bool:
        """Take an announcement; False when it says nothing new."""
        if self._announced.get(role) == process:
            return False
        self._announced[role] = process
        self._tries[role] = self._tries_max
        self._bound.pop(role, None)
        return True

    def wanted(self) -> tuple[tuple[ProcessRole, ProcessIdentity], ...]:
        """Return the announcements that are still to be found."""
        return tuple(
            (role, process)
            for role, process in self._announced.items()
            if role not in self._bound and self._tries[role] > 0
        )

    def found(self, role: ProcessRole, process: ProcessIdentity, host: HostProcess | None) -> bool:
        """Take an answer; True when it settles the announcement (bound, or given up)."""
        if self._announced.get(role) != process or role in self._bound or not self._tries[role]:
            return False
        if host is not None:
            self._bound[role] = host
            return True
        self._tries[role] -= 1
        return self._tries[role] == 0

    def bound(self) -> tuple[HostProcess, ...]:
        """Return the host processes that are bound now."""
        return tuple(self._bound.values())

    def process(self, role: ProcessRole) -> HostProcess | None:
        """Return the host process of a role, if it is bound."""
        return self._bound.get(role)

    def lost_all(self, hosts: Collection[HostProcess]) -> tuple[ProcessRole, ...]:
        """Unbind these, since none of them is there any more; return their roles.

        What was bound since they were looked at stays bound.
        """
        gone = tuple(role for role, host in self._bound.items() if host in hosts)
        for role in gone:
            del self._bound[role]
            self._tries[role] = 0
        return gone
