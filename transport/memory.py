"""The memory link: two ends in one process, encoded and decoded on every hop."""

from __future__ import annotations

import asyncio

from transport.link import Link
from transport.session import LinkOptions, Role, Session


class _MemoryStream:
    """One direction: hands bytes to the other end's link, one loop turn later.

    What is on its way when the other end lets go of the opposite direction is lost, as in a
    pipe: a new stream never carries an old one's bytes.
    """

    def __init__(self, peer: Link, loop: asyncio.AbstractEventLoop) -> None:
        self._peer = peer
        self._loop = loop
        self._unwritten = 0
        self._is_closed = False
        self.opposite = self

    def write(self, data: bytes) -> None:
        if not self._is_closed:
            self._unwritten += len(data)
            self._loop.call_soon(self._arrive, data)

    def unwritten_bytes(self) -> int:
        return self._unwritten

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._loop.call_soon(self._end)

    def _arrive(self, data: bytes) -> None:
        self._unwritten -= len(data)
        if self._peer.is_attached_to(self.opposite):
            self._peer.data_received(data)

    def _end(self) -> None:
        if self._peer.is_attached_to(self.opposite):
            self._peer.eof_received()


def memory_link(
    *, epoch: int, options: LinkOptions | None = None, release: str = ""
) -> tuple[Link, Link]:
    """Return the agent's and the wrapper's end of a link within this process."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    agent = Link(Session(Role.AGENT, now=now, epoch=epoch, options=options), loop=loop)
    wrapper = Link(Session(Role.WRAPPER, now=now, options=options, release=release), loop=loop)
    join_in_memory(agent, wrapper)
    return agent, wrapper


def join_in_memory(agent: Link, wrapper: Link) -> None:
    """Connect two ends; again, after both were detached, to let them resume."""
    loop = asyncio.get_running_loop()
    down, up = _MemoryStream(wrapper, loop), _MemoryStream(agent, loop)
    down.opposite, up.opposite = up, down
    agent.attach(down)
    wrapper.attach(up)
