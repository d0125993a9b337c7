"""A job's limits, held against what it uses.

JAliEn kills at 1.2 times the memory asked for; so do we, since what a user writes into
Memorysize is a round number. Disk is taken as written. Wall time isn't here: it needs no
sample, only the work unit's timer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from transport.messages import KillCode, Limits, Usage

MEMORY_FACTOR = 1.2


class Exceeded(NamedTuple):
    """One limit that a job is over."""

    code: KillCode
    why: str


class LimitWatch:
    """Compares samples with the limits; says each limit once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._said: set[KillCode] = set()

    def needs_precise(self, usage: Usage) -> bool:
        """Tell whether the cheap memory figure is so high that the dear one has to decide."""
        return usage.rss_bytes > self._limits.memory_bytes

    def check(self, usage: Usage) -> tuple[Exceeded, ...]:
        """Return the limits that this sample is the first to be over."""
        new = tuple(found for found in self._over(usage) if found.code not in self._said)
        self._said.update(found.code for found in new)
        return new

    def _over(self, usage: Usage) -> Iterator[Exceeded]:
        memory_max = int(self._limits.memory_bytes * MEMORY_FACTOR)
        if usage.memory_bytes > memory_max:
            yield Exceeded(
                KillCode.MEMORY,
                f"used {megabytes(usage.memory_bytes)} of memory ({usage.source}); "
                f"asked for {megabytes(self._limits.memory_bytes)}, "
                f"stopped above {megabytes(memory_max)}",
            )
        if usage.disk_bytes > self._limits.disk_bytes:
            yield Exceeded(
                KillCode.DISK,
                f"used {megabytes(usage.disk_bytes)} of disk; "
                f"the limit is {megabytes(self._limits.disk_bytes)}",
            )


def megabytes(size: int) -> str:
    """Return a size for a person."""
    return f"{size / 1e6:,.0f} MB"
