"""Where an actor can be told and asked things, and what then waits in its mailbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from actors.deadlines import NoAnswer
from actors.effects import Recipient
from actors.supervision import Ending
from transport.messages import Message

if TYPE_CHECKING:
    from actors.cell import Cell


class Entry(msgspec.Struct):
    """A message in a mailbox, and who waits for it to be handled."""

    message: Message
    on_handled: Callable[[], None] | None = None
    reply: asyncio.Future[Message] | None = None
    take: Callable[[], bool] | None = None
    """Of what an actor told itself: False when it has changed its mind since."""


class Address:
    """Where an actor can be told things; it outlives restarts, and the actor."""

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def __repr__(self) -> str:
        return f"<Address {self._cell.path}>"

    def tell(self, message: Message, on_handled: Callable[[], None] | None = None) -> bool:
        """Put a message into the mailbox; False where it is refused or the actor has ended.

        ``on_handled`` is called when the actor has handled it and its effects are performed.
        """
        return self._cell.put(Entry(message, on_handled), message.delivery)

    def child(self, name: str) -> Recipient:
        """Return where a child of this actor can be told things; gone children take nothing."""
        child = self._cell.children.get(name)
        return NOWHERE if child is None else child.address

    async def ask(self, message: Message, *, timeout_s: float) -> Message:
        """Tell, and wait for the `Reply`; raises `NoAnswer` when none came in time.

        It doesn't wait for its deadline when it is known that none will come: the actor has
        ended, has no handler for the message, or has handled it without a reply.
        """
        cell = self._cell
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        if not cell.put(Entry(message, None, future), message.delivery):
            raise NoAnswer(f"{cell.path} takes no {type(message).__name__}: it is full or gone")
        cell.system.deadlines.add(future, timeout_s, cell.path)
        return await future

    async def wait_ended(self) -> Ending:
        """Wait until the actor has ended for good."""
        return await asyncio.shield(self._cell.ended)


class _Nowhere:
    """The address of an actor that isn't there."""

    def tell(self, message: Message) -> bool:
        """Take nothing."""
        return False


NOWHERE = _Nowhere()
