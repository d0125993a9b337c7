"""Tiny factories and recording fakes of what the actors are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from transport.messages import Message, ProcessIdentity

GIB = 1 << 30


class ManualClock:
    """A clock that moves when it is told to."""

    def __init__(self, at: float = 1000.0) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class Mailbox:
    """A recipient that keeps what it is told, and can be waited on."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._changed = asyncio.Event()

    def tell(self, message: Message) -> bool:
        self.messages.append(message)
        self._changed.set()
        return True

    def of(self, kind: type[Message]) -> list[Message]:
        return [message for message in self.messages if type(message) is kind]

    async def wait_for(self, kind: type[Message], count: int = 1) -> list[Message]:
        """Wait until so many messages of a kind have come."""
        async with asyncio.timeout(5):
            while len(self.of(kind)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.of(kind)


def identity(pid: int = 13, **changes: int) -> ProcessIdentity:
    """Return a process as it announces itself from inside a namespace."""
    named = {"pid_namespace": 4026531836, "start_ticks": 100 + pid} | changes
    return ProcessIdentity(pid=pid, boot_id="boot", **named)


async def settle(turns: int = 30) -> None:
    """Let everything that is ready run."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something is so; a failure is a clear one."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - whatever it is, it has no event
            await asyncio.sleep(0.0005)
