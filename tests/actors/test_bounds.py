"""Bounds: what takes too long, and steps that are all done whatever becomes of each."""

from __future__ import annotations

import asyncio

import pytest

from actors.bounds import tried, within
from transport.errors import OperatorError, UserError


async def never() -> int:
    """Wait for what doesn't come."""
    await asyncio.Event().wait()
    return 0


async def seven() -> int:
    """Return at once."""
    await asyncio.sleep(0)
    return 7


async def fails() -> int:
    """Raise."""
    await asyncio.sleep(0)
    raise UserError("no such thing")


async def test_what_is_in_time_is_returned() -> None:
    """Nothing else is changed."""
    troubles: list[str] = []

    assert await within(60.0, "it", seven) == 7
    assert await tried(60.0, "it", seven, 0, troubles) == 7
    assert troubles == []


async def test_what_takes_too_long_is_the_operators_to_look_at() -> None:
    """The sentence names it, and the bound."""
    with pytest.raises(OperatorError, match=r"^the answer took more than 0\.01 s$"):
        await within(0.01, "the answer", never)


async def test_a_step_that_fails_is_noted() -> None:
    """And so is one that takes too long; what it was to give has a stand-in."""
    troubles: list[str] = []

    assert await tried(60.0, "cleaning", fails, 1, troubles) == 1
    assert await tried(0.01, "sweeping", never, 2, troubles) == 2
    assert troubles == ["cleaning failed: no such thing", "sweeping took more than 0.01 s"]


async def test_cancellation_is_not_noted_but_raised() -> None:
    """Whoever cancels wants no further step."""
    troubles: list[str] = []
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await tried(60.0, "it", never, 0, troubles)

    assert troubles == []
