"""Bounds on what a port may take: whoever calls one says how long, and what follows then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from transport.errors import OperatorError

T = TypeVar("T")


async def within(bound_s: float, what: str, work: Callable[[], Awaitable[T]]) -> T:
    """Wait for ``work``; raises `OperatorError` when it takes more than ``bound_s``."""
    try:
        async with asyncio.timeout(bound_s):
            return await work()
    except TimeoutError as error:
        raise OperatorError(f"{what} took more than {bound_s:g} s") from error


async def tried(
    bound_s: float,
    what: str,
    work: Callable[[], Awaitable[T]],
    otherwise: T,
    troubles: list[str],
) -> T:
    """Wait for one step of several, which are all to be done whatever becomes of each.

    What it raises, or that it takes too long, is added to ``troubles``; it then returns
    ``otherwise``.
    """
    try:
        async with asyncio.timeout(bound_s):
            return await work()
    except TimeoutError:
        troubles.append(f"{what} took more than {bound_s:g} s")
    except Exception as error:
        troubles.append(f"{what} failed: {str(error) or type(error).__name__}")
    return otherwise
