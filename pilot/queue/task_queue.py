"""The embedded queue as an agent's port: one worker thread, and calls that wait their turn.

SQLite has one writer at a time, so one thread is all that helps. A call waits for those
before it, at most ``patience_s``, and no more than ``calls_max`` may wait; at either bound it
is an `OperatorError`, after which the agent tries again. A call that was given up may still
take effect: reports and heartbeats may come twice anyway, and a match that nobody waits for
any more goes back into the queue.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from actors.ports import (
    Answer,
    AnyReport,
    Clock,
    Command,
    Heartbeat,
    Match,
    Slot,
    StatusReport,
)
from pilot.queue.store import QueueStore
from transport.errors import OperatorError
from transport.messages import JobStatus

T = TypeVar("T")

PATIENCE_S = 30.0
CALLS_MAX = 1000


class SqliteTaskQueue:
    """`actors.ports.TaskQueue` over a `QueueStore`, which is its own from now on.

    Use it in an ``async with`` statement: leaving it closes the store.
    """

    def __init__(
        self,
        store: QueueStore,
        clock: Clock,
        *,
        patience_s: float = PATIENCE_S,
        calls_max: int = CALLS_MAX,
    ) -> None:
        self._store = store
        self._clock = clock
        self._patience_s = patience_s
        self._calls_max = calls_max
        self._calls = 0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="queue")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the store; waits for the call that is running, and drops those in line."""
        await asyncio.shield(asyncio.to_thread(self._close))

    async def match(self, slot: Slot) -> Match | None:
        """Take the best waiting job that fits ``slot``, atomically, or None."""
        is_given_up = threading.Event()

        def claim(store: QueueStore, now: float) -> Match | None:
            match = store.match(slot, now)
            if match is None or not is_given_up.is_set():
                return match
            store.report(_unwanted(match, now), now)
            return None

        try:
            return await self.call(claim)
        except (asyncio.CancelledError, OperatorError):
            is_given_up.set()
            raise

    async def report(self, report: AnyReport) -> Answer:
        """Take one fact: idempotent by (job, attempt, sequence), fenced by the attempt."""
        return await self.call(lambda store, now: store.report(report, now))

    async def heartbeat(self, beat: Heartbeat) -> tuple[Command, ...]:
        """Renew the leases and return what the node has to do."""
        return await self.call(lambda store, now: store.heartbeat(beat, now))

    async def call(self, work: Callable[[QueueStore, float], T]) -> T:
        """Run ``work(store, now)`` in the worker thread, in its turn.

        For what the port doesn't have: submitting, reading, killing. Raises what ``work``
        raises, and `transport.errors.OperatorError` at the bounds.
        """
        if self._calls >= self._calls_max:
            raise OperatorError(f"{self._calls} calls to the queue are waiting; try again later")
        loop = asyncio.get_running_loop()
        self._calls += 1
        try:
            running = loop.run_in_executor(self._worker, work, self._store, self._clock.now())
            return await asyncio.wait_for(running, self._patience_s)
        except TimeoutError as error:
            raise OperatorError(
                f"the queue did not answer within {self._patience_s:g} s; try again later"
            ) from error
        finally:
            self._calls -= 1

    def _close(self) -> None:
        self._worker.shutdown(cancel_futures=True)
        self._store.close()


def _unwanted(match: Match, now: float) -> StatusReport:
    return StatusReport(
        job_id=match.job_id,
        attempt=match.attempt,
        sequence=1,
        at=now,
        status=JobStatus.WAITING,
        reason="given back: the agent no longer waited for a match",
    )
