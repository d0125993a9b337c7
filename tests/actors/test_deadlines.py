"""The deadlines of all asks: one heap, one timer, nothing that piles up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from actors.deadlines import ANSWERED_MAX, Deadlines, NoAnswer, refuse
from tests.actors.probe import Note
from transport.messages import Message


class ManualTimer(asyncio.TimerHandle):
    """A timer that fires when the test's loop is told to move."""

    def __init__(self, at: float, callback: Callable[[], object]) -> None:
        super().__init__(at, callback, (), asyncio.get_running_loop())
        self.fire = callback


class ManualLoop:
    """A loop whose time moves when it is told to."""

    def __init__(self) -> None:
        self.at = 0.0
        self.timers: list[ManualTimer] = []

    def time(self) -> float:
        return self.at

    def call_at(self, when: float, callback: Callable[[], object], /) -> ManualTimer:
        self.timers.append(ManualTimer(when, callback))
        return self.timers[-1]

    @property
    def armed(self) -> list[float]:
        """When timers are to fire."""
        return [timer.when() for timer in self.timers if not timer.cancelled()]

    def move(self, at: float) -> None:
        self.at = at
        due = [timer for timer in self.timers if timer.when() <= at]
        self.timers = [timer for timer in self.timers if timer.when() > at]
        for timer in due:
            if not timer.cancelled():
                timer.fire()


Asked = asyncio.Future[Message]


def asked(deadlines: Deadlines, timeout_s: float, path: str = "probe") -> Asked:
    """Return an ask that waits for its answer."""
    future: Asked = asyncio.get_running_loop().create_future()
    deadlines.add(future, timeout_s, path)
    return future


async def test_an_unanswered_ask_ends_at_its_deadline() -> None:
    """Not before; and the message names who didn't answer."""
    loop = ManualLoop()
    future = asked(Deadlines(loop), 5.0, "agent/job-7")

    loop.move(4.9)
    assert not future.done()
    loop.move(5.0)

    with pytest.raises(NoAnswer, match="agent/job-7 did not answer in time"):
        await future


async def test_an_answered_ask_is_left_alone() -> None:
    """Its answer stays what it was when its time comes."""
    loop = ManualLoop()
    deadlines = Deadlines(loop)
    future = asked(deadlines, 5.0)
    future.set_result(Note(text="answer"))
    loop.move(5.0)

    assert await future == Note(text="answer")
    assert len(deadlines) == 0


async def test_deadlines_end_in_their_own_order() -> None:
    """A shorter one that comes later isn't held up by a longer one before it."""
    loop = ManualLoop()
    deadlines = Deadlines(loop)
    long, short, middle = (asked(deadlines, timeout_s) for timeout_s in (20.0, 1.0, 10.0))

    loop.move(1.0)
    assert (long.done(), short.done(), middle.done()) == (False, True, False)
    loop.move(10.0)
    assert (long.done(), middle.done()) == (False, True)
    loop.move(20.0)
    assert long.done()


async def test_all_deadlines_share_one_timer() -> None:
    """It stands at the earliest of those that still wait, or there is none."""
    loop = ManualLoop()
    deadlines = Deadlines(loop)
    futures = [asked(deadlines, float(timeout_s)) for timeout_s in (3, 1, 2, 4)]
    assert loop.armed == [1.0]

    futures[2].set_result(Note())
    loop.move(1.0)
    assert loop.armed == [3.0]
    loop.move(4.0)
    assert loop.armed == []
    assert all(future.done() for future in futures)


async def test_answered_asks_do_not_pile_up_until_their_deadlines() -> None:
    """A hundred thousand answers don't wait in memory for an hour; what is unanswered does."""
    loop = ManualLoop()
    deadlines = Deadlines(loop)
    waiting = [asked(deadlines, 3600.0) for _ in range(10)]
    for _ in range(100_000):
        asked(deadlines, 3600.0).set_result(Note())

    assert len(deadlines) <= 2 * (ANSWERED_MAX + len(waiting))
    loop.move(3600.0)
    assert all(isinstance(future.exception(), NoAnswer) for future in waiting)


async def test_many_unanswered_asks_cost_no_more_each_than_one() -> None:
    """The heap is looked through each time it has doubled, not at each ask."""
    loop = ManualLoop()
    deadlines = Deadlines(loop)
    waiting = [asked(deadlines, 10.0) for _ in range(5000)]

    loop.move(10.0)
    assert all(isinstance(future.exception(), NoAnswer) for future in waiting)


async def test_closing_ends_every_ask() -> None:
    """Nobody will answer any more, and no timer is left."""
    loop = ManualLoop()
    deadlines = Deadlines(loop)
    Deadlines(loop).close()
    future = asked(deadlines, 3600.0)
    deadlines.close()

    with pytest.raises(NoAnswer, match="before its system ended"):
        await future
    assert loop.armed == []


async def test_an_asker_that_went_away_is_refused_nothing() -> None:
    """Nor is one that was answered, or that never was."""
    gone: Asked = asyncio.get_running_loop().create_future()
    gone.cancel()
    refuse(gone, "too late")
    refuse(None, "nobody asked")

    assert gone.cancelled()
