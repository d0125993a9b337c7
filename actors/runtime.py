"""The actor runtime: mailboxes, dispatch, effects, supervision.

An actor is a class with handlers, one for each type of message:

    class Greeter(Actor):
        @handles(Greet)
        def greet(self, message: Greet) -> Effects:
            yield Reply(Greeted(text=f"hello {message.name}"))

Rules, and what must stay true:

* One handler of an actor runs at a time, to completion; it never awaits. Its effects are
  collected first and performed after, so a handler that raises has had no effect.
* `tell` never waits. A mailbox is bounded, and what happens at the bound is the message's own
  `Delivery`. What nobody handles is a dead letter: counted, never lost without a trace.
* Long work is a task of its actor (`Run`), and ends with it. Its result is a message; what an
  actor cancels, it isn't told of any more.
* `ask` always has a deadline.
* A crash concerns the actor and its children, then the spec decides. A mailbox outlives a
  restart; the message that crashed the actor doesn't, and neither does what came of its
  former life's own doing (works, timers, children).
* Children end before their parent, youngest first.
* All tasks live in one task group: leaving the `ActorSystem` leaves nothing running.

Where it is: `actors.actor` is what an actor is, `actors.address` how it is reached,
`actors.cell` what surrounds it, `actors.under_way` its works and timers; here is what holds
them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType

import msgspec

from actors.actor import Actor, handles
from actors.address import Address
from actors.cell import BATCH, Cell, MailboxStatistics
from actors.deadlines import Deadlines, NoAnswer
from actors.supervision import ChildSpec
from transport.errors import InternalError

__all__ = [
    "BATCH",
    "Actor",
    "ActorCrashed",
    "ActorSystem",
    "Address",
    "MailboxStatistics",
    "NoAnswer",
    "SystemStatistics",
    "handles",
]


class ActorCrashed(InternalError):
    """Raised by the system when a top-level actor crashed for good; its cause is chained."""


class SystemStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The whole system: each actor by path, and what nobody took."""

    actors: dict[str, MailboxStatistics]
    dead_letters: int


class ActorSystem:
    """The actors of one process; an async context that ends only when they all have.

    Left by an exception, or cancelled, it aborts them and lets the exception pass. Raises
    `ActorCrashed` on leaving when a top-level actor crashed for good.
    """

    def __init__(self, on_crash: Callable[[str, Exception], None] | None = None) -> None:
        """Make a system; ``on_crash`` is told each crash (actor's path, error), for the log."""
        self._on_crash = on_crash
        self._roots: list[Cell] = []
        self._cells: dict[str, Cell] = {}
        self._failure: ActorCrashed | None = None
        self._group = asyncio.TaskGroup()
        self.dead_letters = 0
        self.loop: asyncio.AbstractEventLoop
        self.deadlines: Deadlines

    async def __aenter__(self) -> ActorSystem:
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self.loop)
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            try:
                await self.stop()
            except asyncio.CancelledError as cancelled:
                error, kind, traceback = cancelled, type(cancelled), cancelled.__traceback__
        try:
            await self._group.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            # No task of ours raises, so this is the body's own error, and it goes on as it was.
            if group.exceptions != (error,):
                raise
        finally:
            self.deadlines.close()
        if self._failure is not None and error is None:
            raise self._failure

    def spawn(self, spec: ChildSpec) -> Address:
        """Start a top-level actor; when this returns, it has started."""
        return self.start(spec, None)

    async def stop(self) -> None:
        """Stop all actors, the youngest first, and wait until they have ended."""
        for cell in reversed(self._roots.copy()):
            cell.stop()
            await asyncio.shield(cell.ended)

    def statistics(self) -> SystemStatistics:
        """Return what each mailbox holds and has seen."""
        return SystemStatistics(
            actors={path: cell.statistics() for path, cell in self._cells.items()},
            dead_letters=self.dead_letters,
        )

    def __iter__(self) -> Iterator[str]:
        """Yield the path of each actor."""
        return iter(tuple(self._cells))

    # --- for cells -----------------------------------------------------------------------

    def start(self, spec: ChildSpec, parent: Cell | None) -> Address:
        """Start an actor under ``parent``; raises where the name is taken."""
        cell = Cell(self, spec, parent)
        if cell.path in self._cells:
            raise InternalError(f"there is an actor called {cell.path} already")
        self._cells[cell.path] = cell
        if parent is None:
            self._roots.append(cell)
        else:
            parent.children[spec.name] = cell
        cell.begin()
        self.spawn_task(cell.live(), name=cell.path)
        return cell.address

    def spawn_task(self, work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
        """Run a coroutine in the system's scope."""
        return self._group.create_task(work, name=name)

    def forget(self, cell: Cell) -> None:
        """Drop an ended cell."""
        del self._cells[cell.path]
        if cell.parent is None:
            self._roots.remove(cell)

    def note_crash(self, path: str, error: Exception) -> None:
        """Tell whoever keeps the log."""
        if self._on_crash is not None:
            self._on_crash(path, error)

    def fail(self, path: str, error: Exception) -> None:
        """Remember that a top-level actor is lost, and stop the rest."""
        if self._failure is None:
            self._failure = ActorCrashed(f"actor {path} crashed for good: {error!r}")
            self._failure.__cause__ = error
        for cell in self._roots:
            cell.stop()
