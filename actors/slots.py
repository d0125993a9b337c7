"""Slot accounting: what a node has, what its jobs hold, what is left to offer.

What must stay true: nothing is ever over-committed, and what a job held comes back once.
"""

from __future__ import annotations

import msgspec

from actors.ports import Slot
from transport.errors import InternalError
from transport.messages import JobDescription


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """Cores, memory and disk: of a node, or held by a job."""

    cpu_cores: int
    memory_bytes: int
    disk_bytes: int

    def __sub__(self, other: Resources) -> Resources:
        return Resources(
            cpu_cores=self.cpu_cores - other.cpu_cores,
            memory_bytes=self.memory_bytes - other.memory_bytes,
            disk_bytes=self.disk_bytes - other.disk_bytes,
        )

    def holds(self, other: Resources) -> bool:
        """Tell whether ``other`` fits in."""
        return (
            self.cpu_cores >= other.cpu_cores
            and self.memory_bytes >= other.memory_bytes
            and self.disk_bytes >= other.disk_bytes
        )


class SlotBook:
    """Who holds what; a job that asks for the whole node (0 cores) holds every core."""

    def __init__(self, total: Resources) -> None:
        self._total = total
        self._held: dict[int, Resources] = {}

    @property
    def free(self) -> Resources:
        """What is left."""
        left = self._total
        for held in self._held.values():
            left -= held
        return left

    @property
    def is_empty(self) -> bool:
        """True when no job holds anything."""
        return not self._held

    def needs(self, description: JobDescription) -> Resources:
        """Return what a job would hold."""
        return Resources(
            cpu_cores=description.cpu_cores or self._total.cpu_cores,
            memory_bytes=description.memory_bytes,
            disk_bytes=description.disk_bytes,
        )

    def take(self, job_id: int, description: JobDescription) -> bool:
        """Let a job hold what it needs; False when that isn't free."""
        if job_id in self._held:
            raise InternalError(f"job {job_id} holds its slot already")
        needs = self.needs(description)
        if not self.free.holds(needs):
            return False
        self._held[job_id] = needs
        return True

    def give_back(self, job_id: int) -> None:
        """Take back what a job held; a second time does nothing."""
        self._held.pop(job_id, None)

    def offer(self, *, node: str, site: str, time_left_s: float) -> Slot | None:
        """Return what to offer in a match request, or None when no core is free."""
        free = self.free
        if free.cpu_cores <= 0 or free.memory_bytes <= 0 or free.disk_bytes <= 0:
            return None
        return Slot(
            node=node,
            site=site,
            cpu_cores=free.cpu_cores,
            memory_bytes=free.memory_bytes,
            disk_bytes=free.disk_bytes,
            time_left_s=time_left_s,
            is_whole_node=self.is_empty,
        )
