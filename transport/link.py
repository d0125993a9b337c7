"""A link: the confirmed session on an event loop, over anything that moves bytes.

The shell is thin on purpose. Time, confirmation and refusal live in `transport.session`; here
are one timer, one write per loop turn, and the hand-over of events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from transport.events import CloseCause, Closed, SessionEvent
from transport.frames import FRAME_BYTES_MAX
from transport.messages import Message
from transport.session import Session, SessionState, SessionStatistics

UNREAD_BYTES_MAX = 4 * FRAME_BYTES_MAX
"""What may wait to be written to a peer that doesn't read."""


class ByteStream(Protocol):
    """What a link writes to."""

    def write(self, data: bytes) -> None:
        """Take bytes to be written; never waits."""
        ...

    def unwritten_bytes(self) -> int:
        """Return how much of what was taken isn't written yet."""
        ...

    def close(self) -> None:
        """Write what is left, then close; a second time does nothing."""
        ...


class Link:
    """One end of a confirmed link, running on the current event loop.

    Events reach ``deliver`` in order, from `open` on; before that they are kept. ``deliver``
    must not wait. Each `MessageReceived` is to be answered with `confirm` when handled.
    """

    def __init__(self, session: Session, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._session = session
        self._loop = loop or asyncio.get_running_loop()
        self._stream: ByteStream | None = None
        self._deliver: Callable[[SessionEvent], None] | None = None
        self._kept: list[SessionEvent] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_flushing = False
        self._closed = asyncio.Event()
        self._settled = asyncio.Event()

    @property
    def is_closed(self) -> bool:
        """True when nothing can be sent or received any more."""
        return self._session.state is SessionState.CLOSED

    def statistics(self) -> SessionStatistics:
        """Return the session's counters."""
        return self._session.statistics()

    # --- for the owner -------------------------------------------------------------------

    def open(self, deliver: Callable[[SessionEvent], None]) -> None:
        """Hand events to ``deliver`` from now on, those that were kept first."""
        assert self._deliver is None, "a link has one owner"
        self._deliver = deliver
        kept, self._kept = self._kept, []
        for event in kept:
            deliver(event)

    def tell(self, message: Message) -> bool:
        """Send a message; False where its policy refuses it or the link is closed."""
        accepted = self._session.send(message, self._loop.time())
        self._act()
        return accepted

    def confirm(self, sequence: int) -> None:
        """Echo the message of this sequence: its actor has handled it."""
        self._session.confirm(sequence, self._loop.time())
        self._act()

    def close(self, why: str) -> None:
        """Say goodbye and close; what isn't confirmed by now is given up."""
        self._session.close(why, self._loop.time())
        self._shut()

    async def wait_settled(self) -> None:
        """Wait until everything sent is confirmed, or the link is closed."""
        while not (self._session.is_settled or self.is_closed):
            self._settled.clear()
            await self._settled.wait()

    async def wait_closed(self) -> None:
        """Wait until the link is closed, by either side."""
        await self._closed.wait()

    # --- for the stream ------------------------------------------------------------------

    def attach(self, stream: ByteStream) -> None:
        """Write to ``stream`` from now on; a detached session greets again over it."""
        self._stream = stream
        self._session.attach(self._loop.time())
        self._act()

    def data_received(self, data: bytes) -> None:
        """Take bytes that came over the stream."""
        self._session.receive_data(data, self._loop.time())
        self._act()

    def eof_received(self) -> None:
        """Take the end of the stream."""
        self._stream = None
        self._session.receive_eof(self._loop.time())
        self._act()

    def is_attached_to(self, stream: ByteStream) -> bool:
        """Return whether ``stream`` is what this end writes to, and not one that was replaced."""
        return self._stream is stream

    # --- the shell itself ----------------------------------------------------------------

    def _act(self) -> None:
        for event in self._session.events_received():
            self._hand_over(event)
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)
        if self._session.is_settled:
            self._settled.set()
        self._arm()

    def _hand_over(self, event: SessionEvent) -> None:
        if self._closed.is_set():
            return  # Its owner closed it while it handled an earlier event.
        if self._deliver is None:
            self._kept.append(event)
        else:
            self._deliver(event)
        if isinstance(event, Closed):
            # The owner first acts on what it was told in this turn.
            self._loop.call_soon(self._shut)

    def _flush(self) -> None:
        self._is_flushing = False
        if self._stream is None:
            return  # What is said before there is a stream waits for it.
        data = self._session.data_to_send()
        if not data:
            return
        self._stream.write(data)
        if self._stream.unwritten_bytes() > UNREAD_BYTES_MAX and not self.is_closed:
            detail = f"{UNREAD_BYTES_MAX} bytes wait for the peer to read them"
            self._session.fail(CloseCause.NOT_READING, detail, self._loop.time())
            self._act()

    def _arm(self) -> None:
        """Keep one timer, at or before the session's next deadline.

        Deadlines mostly move away; a timer that fires early looks and is set again, which is
        cheaper than moving it with each message.
        """
        deadline = self._session.next_deadline()
        if deadline is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None or self._timer.when() > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._session.handle_timer(self._loop.time())
        self._act()

    def _shut(self) -> None:
        self._flush()  # The goodbye, if one was said.
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        self._closed.set()
        self._settled.set()
        self._arm()
