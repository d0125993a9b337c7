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
* Long work is a task of its actor (`Run`), and ends with it. Its result is a message.
* `ask` always has a deadline.
* A crash concerns the actor and its children, then the spec decides. A mailbox outlives a
  restart; the message that crashed the actor doesn't.
* Children end before their parent, youngest first.
* All tasks live in one task group: leaving the `ActorSystem` leaves nothing running.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import msgspec

from actors.effects import (
    Call,
    CancelWork,
    Effect,
    Effects,
    Recipient,
    Reply,
    Run,
    Schedule,
    SpawnChild,
    StopChild,
    StopSelf,
    Tell,
    Unschedule,
    WorkFailed,
)
from actors.supervision import (
    ChildEnded,
    ChildRestarted,
    ChildSpec,
    Ending,
    Restart,
    RestartCounter,
)
from transport.errors import InternalError, PilotError
from transport.messages import Message
from transport.queueing import PolicyQueue

BATCH = 64
"""Messages that an actor may handle before the others get their turn."""

M = TypeVar("M", bound=Message)
A = TypeVar("A", bound="Actor")


class NoAnswer(PilotError):
    """Raised when an `ask` got no reply: in time, or because the actor ended."""


class ActorCrashed(InternalError):
    """Raised by the system when a top-level actor crashed for good; its cause is chained."""


def handles(kind: type[M]) -> Callable[[Callable[[A, M], Effects]], Callable[[A, M], Effects]]:
    """Mark a method as the handler of one type of message (not of its subclasses)."""

    def mark(method: Callable[[A, M], Effects]) -> Callable[[A, M], Effects]:
        method.__dict__.setdefault("_handles", []).append(kind)
        return method

    return mark


class Actor:
    """Base of actors; state is the instance's own, and only its handlers touch it."""

    me: Address
    _handlers: ClassVar[dict[type, Callable[[Any, Any], Effects]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Build the table of handlers, the base's first."""
        super().__init_subclass__(**options)
        cls._handlers = dict(cls._handlers)
        for member in list(vars(cls).values()):
            for kind in getattr(member, "_handles", ()):
                cls._handlers[kind] = member

    def started(self) -> Effects:
        """Return the first effects; called before any message, and again after a restart."""
        return ()

    def stopping(self) -> Effects:
        """Return the last effects (`Tell` and `Call`), when the actor stops or has crashed."""
        return ()


class MailboxStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor's mailbox holds and has seen."""

    waiting: int
    handled: int
    dropped: int
    refused: int
    replaced: int
    works: int
    restarts: int


class SystemStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The whole system: each actor by path, and what nobody took."""

    actors: dict[str, MailboxStatistics]
    dead_letters: int


class _Entry(msgspec.Struct):
    message: Message
    on_handled: Callable[[], None] | None = None
    reply: asyncio.Future[Message] | None = None


class Address:
    """Where an actor can be told things; it outlives restarts, and the actor."""

    __slots__ = ("_cell",)

    def __init__(self, cell: _Cell) -> None:
        self._cell = cell

    def __repr__(self) -> str:
        return f"<Address {self._cell.path}>"

    def tell(self, message: Message, on_handled: Callable[[], None] | None = None) -> bool:
        """Put a message into the mailbox; False where it is refused or the actor has ended.

        ``on_handled`` is called when the actor has handled it and its effects are performed.
        """
        return self._cell.put(_Entry(message, on_handled))

    def child(self, name: str) -> Recipient:
        """Return where a child of this actor can be told things; gone children take nothing."""
        child = self._cell.children.get(name)
        return self._cell.system.nowhere if child is None else child.address

    async def ask(self, message: Message, *, timeout_s: float) -> Message:
        """Tell, and wait for the `Reply`; raises `NoAnswer` when none came in time."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        if not self._cell.put(_Entry(message, None, future)):
            raise NoAnswer(
                f"{self._cell.path} takes no {type(message).__name__}: it is full or gone"
            )
        self._cell.system.deadlines.add(future, timeout_s, self._cell.path)
        return await future

    async def wait_ended(self) -> Ending:
        """Wait until the actor has ended for good."""
        return await asyncio.shield(self._cell.ended)


class _Nowhere:
    """The address of an actor that isn't there."""

    def tell(self, message: Message) -> bool:
        """Take nothing."""
        return False


class _Deadlines:
    """All asks' deadlines in one heap with one timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, asyncio.Future[Message], str]] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, future: asyncio.Future[Message], timeout_s: float, path: str) -> None:
        self._count += 1
        deadline = self._loop.time() + timeout_s
        heapq.heappush(self._heap, (deadline, self._count, future, path))
        if self._timer is None or self._timer.when() > deadline:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._heap and self._heap[0][2].done():
            heapq.heappop(self._heap)
        if self._heap:
            self._timer = self._loop.call_at(self._heap[0][0], self._sweep)

    def _sweep(self) -> None:
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now:
            _, _, future, path = heapq.heappop(self._heap)
            if not future.done():
                future.set_exception(NoAnswer(f"{path} did not answer in time"))
        self._arm()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class _Cell:
    """What surrounds one actor: its mailbox, task, children, works and timers."""

    def __init__(self, system: ActorSystem, spec: ChildSpec, parent: _Cell | None) -> None:
        self.system = system
        self.spec = spec
        self.parent = parent
        self.path: str = spec.name if parent is None else f"{parent.path}/{spec.name}"
        self.children: dict[str, _Cell] = {}
        self.ended: asyncio.Future[Ending] = system.loop.create_future()
        self.address = Address(self)
        self._mailbox: PolicyQueue[_Entry] = PolicyQueue(
            spec.mailbox, control_reserve=spec.control_reserve
        )
        self._wake: asyncio.Future[None] | None = None
        self._works: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._restarts = RestartCounter(spec.intensity)
        self._restart_count = 0
        self._handled = 0
        self._is_stopping = False
        self._crash: Exception | None = None
        self._asked: asyncio.Future[Message] | None = None
        self._performers: dict[type, Callable[[Any], None]] = {
            Tell: self._tell,
            Reply: self._reply,
            Run: self._run_work,
            CancelWork: lambda effect: self._cancel_work(effect.name),
            Schedule: self._schedule,
            Unschedule: lambda effect: self._unschedule(effect.key),
            SpawnChild: self._spawn_child,
            Call: lambda effect: effect.function(),
            StopChild: lambda effect: self._stop_child(effect.name),
            StopSelf: lambda effect: self.stop(),
        }
        self._make_actor()

    # --- from outside --------------------------------------------------------------------

    def put(self, entry: _Entry) -> bool:
        message = entry.message
        if self.ended.done() or not self._mailbox.put(entry, message.delivery, type(message)):
            self.system.dead_letters += 1
            return False
        self._wake_up()
        return True

    def stop(self) -> None:
        self._is_stopping = True
        self._wake_up()

    def statistics(self) -> MailboxStatistics:
        return MailboxStatistics(
            waiting=len(self._mailbox),
            handled=self._handled,
            dropped=self._mailbox.dropped,
            refused=self._mailbox.refused,
            replaced=self._mailbox.replaced,
            works=len(self._works),
            restarts=self._restart_count,
        )

    # --- the actor's life ----------------------------------------------------------------

    def _make_actor(self) -> None:
        self._actor = self.spec.make()
        self._actor.me = self.address

    def begin(self) -> None:
        """Run the actor's first effects: when this returns, it has started."""
        self._guarded(self._actor.started)

    async def live(self) -> None:
        ending = Ending.ABORTED
        try:
            ending = await self._serve_until_the_end()
        finally:
            self._end(ending)

    async def _serve_until_the_end(self) -> Ending:
        while True:
            crash = await self._serve()
            last = self._last_effects(crash)
            await self._clear_away()
            for effect in last:
                self._perform(effect)
            if crash is None:
                return Ending.STOPPED
            if not self._begin_again(crash):
                self._crash = crash
                return Ending.CRASHED

    async def _serve(self) -> Exception | None:
        """Handle messages until the actor is to stop, or has crashed: then return why."""
        while not self._must_end():
            if not len(self._mailbox):
                self._wake = self.system.loop.create_future()
                await self._wake
                self._wake = None
            for _ in range(min(len(self._mailbox), BATCH)):
                if self._must_end():
                    break
                self._handle(self._mailbox.get())
            await asyncio.sleep(0)
        crash, self._crash = self._crash, None
        return crash

    def _must_end(self) -> bool:
        return self._is_stopping or self._crash is not None

    def _handle(self, entry: _Entry) -> None:
        handler = self._actor._handlers.get(type(entry.message))
        if handler is None:
            if type(entry.message) is WorkFailed:
                self._crash = entry.message.error
            self.system.dead_letters += 1
            return
        self._handled += 1
        self._asked = entry.reply
        self._guarded(lambda: handler(self._actor, entry.message))
        self._asked = None
        if entry.on_handled is not None and self._crash is None:
            entry.on_handled()

    def _guarded(self, step: Callable[[], Effects]) -> None:
        """Collect a step's effects, then perform them; an exception is the actor's crash."""
        try:
            for effect in list(step()):
                self._perform(effect)
        except Exception as error:
            self._crash = error

    def _last_effects(self, crash: Exception | None) -> list[Effect]:
        try:
            return list(self._actor.stopping())
        except Exception as error:
            self.system.note_crash(self.path, crash or error)
            return []

    def _begin_again(self, crash: Exception) -> bool:
        self.system.note_crash(self.path, crash)
        if self.spec.restart is Restart.TEMPORARY or self._is_stopping:
            return False
        if not self._restarts.allows(self.system.loop.time()):
            return False
        self._restart_count += 1
        self._make_actor()
        self.begin()
        if self.parent is not None:
            self.parent.tell_if_handled(ChildRestarted(name=self.spec.name, error=crash))
        return True

    async def _clear_away(self) -> None:
        """End children (youngest first), works and timers; nothing waits beyond its grace."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for child in reversed(list(self.children.values())):
            child.stop()
            await asyncio.shield(child.ended)
        works = list(self._works.values())
        for work in works:
            work.cancel()
        if works:
            await asyncio.wait(works, timeout=self.spec.grace_s)

    def _end(self, ending: Ending) -> None:
        while len(self._mailbox):
            entry = self._mailbox.get()
            self.system.dead_letters += 1
            if entry.reply is not None and not entry.reply.done():
                entry.reply.set_exception(NoAnswer(f"{self.path} has ended"))
        if not self.ended.done():
            self.ended.set_result(ending)
        self.system.forget(self)
        error = self._crash if ending is Ending.CRASHED else None
        if self.parent is None:
            if error is not None:
                self.system.fail(self.path, error)
            return
        self.parent.children.pop(self.spec.name, None)
        if error is not None and self.spec.restart is not Restart.TEMPORARY:
            self.parent.crash(error)
        else:
            self.parent.tell_if_handled(ChildEnded(name=self.spec.name, ending=ending, error=error))

    def crash(self, error: Exception) -> None:
        """Take a child's crash as one's own: it was restarted too often to help."""
        self._crash = error
        self._wake_up()

    def tell_if_handled(self, message: Message) -> None:
        """Tell a fact of supervision to an actor that cares for it."""
        if type(message) in self._actor._handlers:
            self.put(_Entry(message))

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # --- effects, one method each --------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        self._performers[type(effect)](effect)

    def _tell(self, effect: Tell) -> None:
        if not effect.to.tell(effect.message) and not isinstance(effect.to, Address):
            self.system.dead_letters += 1

    def _reply(self, effect: Reply) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(effect.message)

    def _run_work(self, effect: Run) -> None:
        if effect.name in self._works:
            raise InternalError(f"{self.path} already runs {effect.name!r}")
        self._works[effect.name] = self.system.spawn_task(
            self._work(effect), name=f"{self.path}:{effect.name}"
        )

    async def _work(self, effect: Run) -> None:
        task = asyncio.current_task()
        try:
            result = await effect.work()
        except Exception as error:
            result = WorkFailed(name=effect.name, error=error)
        # A work that was cancelled and still ended of itself has nothing to say any more.
        if self._works.get(effect.name) is task:
            del self._works[effect.name]
            if result is not None:
                self.put(_Entry(result))

    def _cancel_work(self, name: str) -> None:
        task = self._works.pop(name, None)
        if task is not None:
            task.cancel()

    def _schedule(self, effect: Schedule) -> None:
        self._unschedule(effect.key)
        self._timers[effect.key] = self.system.loop.call_later(
            effect.after_s, self._fire, effect.key, effect.message
        )

    def _fire(self, key: str, message: Message) -> None:
        self._timers.pop(key, None)
        self.put(_Entry(message))

    def _unschedule(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _spawn_child(self, effect: SpawnChild) -> None:
        self.system.start(effect.spec, self)

    def _stop_child(self, name: str) -> None:
        child = self.children.get(name)
        if child is not None:
            child.stop()


class ActorSystem:
    """The actors of one process; an async context that ends only when they all have.

    Raises `ActorCrashed` on leaving when a top-level actor crashed for good.
    """

    def __init__(self, on_crash: Callable[[str, Exception], None] | None = None) -> None:
        """Make a system; ``on_crash`` is told each crash (actor's path, error), for the log."""
        self._on_crash = on_crash
        self._roots: list[_Cell] = []
        self._cells: dict[str, _Cell] = {}
        self._failure: ActorCrashed | None = None
        self._group = asyncio.TaskGroup()
        self.dead_letters = 0
        self.nowhere = _Nowhere()
        self.loop: asyncio.AbstractEventLoop
        self.deadlines: _Deadlines

    async def __aenter__(self) -> ActorSystem:
        self.loop = asyncio.get_running_loop()
        self.deadlines = _Deadlines(self.loop)
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

    # --- for cells -----------------------------------------------------------------------

    def start(self, spec: ChildSpec, parent: _Cell | None) -> Address:
        """Start an actor under ``parent``; raises where the name is taken."""
        cell = _Cell(self, spec, parent)
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

    def spawn_task(self, work: Any, *, name: str) -> asyncio.Task[None]:
        """Run a coroutine in the system's scope."""
        return self._group.create_task(work, name=name)

    def forget(self, cell: _Cell) -> None:
        """Drop an ended cell."""
        self._cells.pop(cell.path, None)
        if cell in self._roots:
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

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._cells))
