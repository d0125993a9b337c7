"""The deadlines of all asks of a system: one heap, one timer.

An ask is mostly answered long before its deadline, so a timer for each would cost more than
the answer. Those that were answered are met and dropped when their time comes, or, under a
flood of asks, when they would make up most of the heap.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import NamedTuple, Protocol

from transport.errors import PilotError
from transport.messages import Message

ANSWERED_MAX = 1024
"""Answered asks that may wait for their deadline, beside as many as are unanswered."""


class NoAnswer(PilotError):
    """Raised when an `ask` got no reply: in time, or because none will ever come."""


class TimerLoop(Protocol):
    """As much of an event loop as deadlines need."""

    def time(self) -> float:
        """Return seconds of the clock that timers go by."""
        ...

    def call_at(self, when: float, callback: Callable[[], object], /) -> asyncio.TimerHandle:
        """Start a timer."""
        ...


class _Deadline(NamedTuple):
    at: float
    number: int
    future: asyncio.Future[Message]
    path: str


def refuse(future: asyncio.Future[Message] | None, why: str) -> None:
    """Tell an asker, if there is one and it still waits, that no answer will come."""
    if future is not None and not future.done():
        future.set_exception(NoAnswer(why))
        future.exception()  # Seen: its asker may have been cancelled in this very turn.


class Deadlines:
    """Ends the asks that weren't answered in time."""

    def __init__(self, loop: TimerLoop) -> None:
        self._loop = loop
        self._heap: list[_Deadline] = []
        self._count = 0
        self._heap_max = ANSWERED_MAX
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, future: asyncio.Future[Message], timeout_s: float, path: str) -> None:
        """Let ``future`` raise `NoAnswer` after some seconds, should it still wait then."""
        self._count += 1
        deadline = _Deadline(self._loop.time() + timeout_s, self._count, future, path)
        heapq.heappush(self._heap, deadline)
        if len(self._heap) > self._heap_max:
            self._drop_answered()
        if self._timer is None or self._timer.when() > deadline.at:
            self._arm()

    def close(self) -> None:
        """End all asks: nobody will answer any more."""
        if self._timer is not None:
            self._timer.cancel()
        for deadline in self._heap:
            refuse(deadline.future, f"{deadline.path} did not answer before its system ended")
        self._heap.clear()

    def _drop_answered(self) -> None:
        self._heap = [deadline for deadline in self._heap if not deadline.future.done()]
        heapq.heapify(self._heap)
        self._heap_max = ANSWERED_MAX + 2 * len(self._heap)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._heap and self._heap[0].future.done():
            heapq.heappop(self._heap)
        if self._heap:
            self._timer = self._loop.call_at(self._heap[0].at, self._sweep)

    def _sweep(self) -> None:
        now = self._loop.time()
        while self._heap and self._heap[0].at <= now:
            deadline = heapq.heappop(self._heap)
            refuse(deadline.future, f"{deadline.path} did not answer in time")
        self._arm()
