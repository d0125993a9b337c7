from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.ports import Answer, StatusReport, TaskQueue
from pilot.queue import QueueStore, SqliteTaskQueue
from tests.pilot.queue.factories import POLICY, S, beat_of, make_slot, submit
from transport.errors import OperatorError, UserError


class FixedClock:
    """A clock that stands."""

    def now(self) -> float:
        """Return the same time always."""
        return 7.0

    def monotonic(self) -> float:
        """Return the same time always."""
        return 7.0


@asynccontextmanager
async def opened(
    path: Path, *, patience_s: float = 10.0, calls_max: int = 100
) -> AsyncIterator[SqliteTaskQueue]:
    """Give a queue in a file."""
    store = QueueStore.open(path / "queue.db", POLICY)
    queue = SqliteTaskQueue(store, FixedClock(), patience_s=patience_s, calls_max=calls_max)
    async with queue:
        yield queue


@asynccontextmanager
async def busy(queue: SqliteTaskQueue) -> AsyncIterator[asyncio.Future[None]]:
    """Keep the queue's thread from its work."""
    has_begun, go_on = threading.Event(), threading.Event()

    def hold(_store: QueueStore, _now: float) -> None:
        has_begun.set()
        assert go_on.wait(10)

    try:
        running = asyncio.ensure_future(queue.call(hold))
        await asyncio.to_thread(has_begun.wait, 10)
        yield running
    finally:
        go_on.set()


async def test_port_takes_a_job_through_its_life(tmp_path: Path) -> None:
    """Match, report and heartbeat reach the store with the clock's time."""
    async with opened(tmp_path) as opened_queue:
        queue: TaskQueue = opened_queue
        await opened_queue.call(lambda store, now: submit(store, now=now))
        match = await queue.match(make_slot())
        assert match is not None
        report = StatusReport(job_id=1, attempt=1, sequence=1, at=8.0, status=S.STARTED)

        assert await queue.report(report) is Answer.ACCEPTED
        assert await queue.report(report) is Answer.DUPLICATE
        assert await queue.heartbeat(beat_of()) == ()
        assert await queue.match(make_slot()) is None
        job = await opened_queue.call(lambda store, _: store.job(1))
        assert [line.at for line in job.history] == [7.0, 7.0, 8.0]


async def test_errors_of_the_store_come_through(tmp_path: Path) -> None:
    """A user's error stays one."""
    async with opened(tmp_path) as queue:
        with pytest.raises(UserError, match="no job 5"):
            await queue.call(lambda store, _: store.job(5))


async def test_calls_run_one_after_another_in_one_thread(tmp_path: Path) -> None:
    """Whoever comes later waits its turn, and nobody is in two threads."""
    async with opened(tmp_path) as queue:
        threads = await asyncio.gather(
            *(queue.call(lambda _store, _now: threading.get_ident()) for _ in range(20))
        )

        assert len(set(threads)) == 1
        assert threads[0] != threading.get_ident()


async def test_too_many_waiting_calls_are_refused(tmp_path: Path) -> None:
    """The bound is told at once, and calls are taken again later."""
    async with opened(tmp_path, calls_max=1) as queue:
        async with busy(queue) as running:
            with pytest.raises(OperatorError, match="1 calls to the queue are waiting"):
                await queue.match(make_slot())
        await running

        assert await queue.match(make_slot()) is None


async def test_call_that_waits_too_long_is_given_up(tmp_path: Path) -> None:
    """The caller hears of it within its patience."""
    async with opened(tmp_path, patience_s=0.02) as queue, busy(queue) as running:
        with pytest.raises(OperatorError, match=r"did not answer within 0\.02 s"):
            await queue.match(make_slot())
        with pytest.raises(OperatorError):
            await running


async def test_match_that_nobody_waits_for_goes_back(tmp_path: Path) -> None:
    """A match whose asker was cancelled half-way leaves the job WAITING, at no cost."""
    async with opened(tmp_path) as queue:
        await queue.call(lambda store, now: submit(store, now=now))
        has_begun, go_on = threading.Event(), threading.Event()
        store_match = queue._store.match

        def slow_match(*arguments: object) -> object:
            has_begun.set()
            assert go_on.wait(10)
            return store_match(*arguments)  # type: ignore[arg-type]

        queue._store.match = slow_match  # type: ignore[assignment, method-assign]
        asking = asyncio.ensure_future(queue.match(make_slot()))
        await asyncio.to_thread(has_begun.wait, 10)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        go_on.set()

        job = await queue.call(lambda store, _: store.job(1))
        assert (job.status, job.attempt) == (S.WAITING, 1)
        assert "no longer waited" in job.reason
