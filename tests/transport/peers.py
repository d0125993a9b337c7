"""Both ends of a link for the conformance suite: one that watches, one that does as told.

`EchoPeer` stands at the wrapper's end, in this process or in a child of its own
(tests/transport/echo_child.py), and takes its orders over the link itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from tests.transport.factories import fact, only
from transport.events import MessageConfirmed, MessageReceived, SessionEvent
from transport.link import Link
from transport.messages import ConfigureLogging

PATIENCE_S = 20.0
"""A test that waits longer has failed; nothing is expected to take a tenth of it."""

EventType = TypeVar("EventType")


async def turns(count: int = 12) -> None:
    """Let the loop turn a few times, so that what was closed is let go of."""
    for _ in range(count):
        await asyncio.sleep(0)


class End:
    """The watching end: keeps every event and confirms what comes, unless told not to."""

    def __init__(self, link: Link, *, is_confirming: bool = True) -> None:
        self.link = link
        self.events: list[SessionEvent] = []
        self._is_confirming = is_confirming
        self._happened = asyncio.Event()
        link.open(self._take)

    def _take(self, event: SessionEvent) -> None:
        self.events.append(event)
        self._happened.set()
        if self._is_confirming and isinstance(event, MessageReceived):
            self.link.confirm(event.sequence)

    def all(self, kind: type[EventType]) -> list[EventType]:
        """Return the events of a kind so far."""
        return only(self.events, kind)

    def confirm_all(self) -> None:
        """Confirm everything that came, and from now on at once."""
        self._is_confirming = True
        for event in self.all(MessageReceived):
            self.link.confirm(event.sequence)

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait until something is true that only events can make true."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self._happened.clear()
                await self._happened.wait()

    async def wait_for(self, kind: type[EventType], count: int = 1) -> list[EventType]:
        """Wait for so many events of a kind, and return them."""
        await self.wait_until(lambda: len(self.all(kind)) >= count)
        return self.all(kind)


class EchoPeer:
    """The obeying end: each `ConfigureLogging` is an order (level) with an argument (format).

    ``echo`` says the argument back; ``hold`` says "holding" and confirms nothing more until
    that is confirmed; ``close`` closes the link with the argument as reason.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._held: list[int] | None = None
        link.open(self._take)

    def _take(self, event: SessionEvent) -> None:
        if isinstance(event, MessageReceived) and isinstance(event.message, ConfigureLogging):
            self._obey(event.sequence, event.message)
        elif isinstance(event, MessageConfirmed) and self._held is not None:
            held, self._held = self._held, None
            for sequence in held:
                self._link.confirm(sequence)

    def _obey(self, sequence: int, order: ConfigureLogging) -> None:
        if self._held is not None:
            self._held.append(sequence)
        elif order.level == "hold":
            self._held = [sequence]
            self._link.tell(fact("holding"))
        elif order.level == "close":
            self._link.close(order.format)
        else:
            self._link.tell(fact(order.format))
            self._link.confirm(sequence)
