"""A cell: what surrounds one actor - its mailbox, its task, its children, its restarts.

    begin -> serve -> last effects -> clear away -> end
               ^                          |
               +---- crashed, and its restart may help

Actors, works and callbacks raise what they will: each of their steps is guarded, and what it
raises is its actor's crash. Nothing but cancellation ever leaves a cell's task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from actors.actor import Actor
from actors.address import Address, Entry
from actors.deadlines import refuse
from actors.effects import (
    Call,
    CancelWork,
    Effect,
    Effects,
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
from actors.under_way import UnderWay
from transport.errors import InternalError
from transport.messages import Delivery, Message
from transport.queueing import PolicyQueue

if TYPE_CHECKING:
    from actors.runtime import ActorSystem

BATCH = 64
"""Messages that an actor may handle before the others get their turn."""


class MailboxStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor's mailbox holds and has seen."""

    waiting: int
    handled: int
    dropped: int
    refused: int
    replaced: int
    works: int
    restarts: int


class Cell:
    """One actor, through all its lives."""

    def __init__(self, system: ActorSystem, spec: ChildSpec, parent: Cell | None) -> None:
        self.system = system
        self.spec = spec
        self.parent = parent
        self.path: str = spec.name if parent is None else f"{parent.path}/{spec.name}"
        self.children: dict[str, Cell] = {}
        self.ended: asyncio.Future[Ending] = system.loop.create_future()
        self.address = Address(self)
        # In place of one that isn't made yet, or can't be.
        self._actor = Actor()
        self._mailbox: PolicyQueue[Entry] = PolicyQueue(
            spec.mailbox, control_reserve=spec.control_reserve
        )
        self._wake: asyncio.Future[None] | None = None
        self._under_way = UnderWay(self.path, system.spawn_task, self._tell_self)
        self._restarts = RestartCounter(spec.intensity)
        self._life = 0
        self._handled = 0
        self._is_stopping = False
        self._crash: Exception | None = None
        self._asked: asyncio.Future[Message] | None = None
        self._performers: dict[type, Callable[[Any], object]] = {
            Tell: self._tell,
            Reply: self._reply,
            Call: lambda effect: effect.function(),
            Run: self._under_way.run,
            CancelWork: lambda effect: self._under_way.cancel(effect.name),
            Schedule: self._under_way.schedule,
            Unschedule: lambda effect: self._under_way.unschedule(effect.key),
            SpawnChild: lambda effect: system.start(effect.spec, self),
            StopChild: self._stop_child,
            StopSelf: self._stop_self,
        }

    # --- from outside --------------------------------------------------------------------

    def put(self, entry: Entry, delivery: Delivery) -> bool:
        """Take a message without waiting; False, and a dead letter, where it is refused."""
        if self.ended.done() or not self._mailbox.put(entry, delivery, type(entry.message)):
            self.system.dead_letters += 1
            return False
        self._wake_up()
        return True

    def stop(self) -> None:
        """Let the actor end in good order, after the handler that runs now."""
        self._is_stopping = True
        self._wake_up()

    def crash(self, error: Exception) -> None:
        """Let the actor crash of ``error``, after the handler that runs now."""
        self._crash = error
        self._wake_up()

    def tell_if_handled(self, fact: ChildEnded | ChildRestarted) -> None:
        """Tell a fact of supervision to an actor that cares for it, in its present life."""
        life = self._life
        if self._actor.handler(type(fact)) is not None:
            self._tell_self(fact, lambda: self._life == life)

    def statistics(self) -> MailboxStatistics:
        """Return what the mailbox holds and has seen."""
        return MailboxStatistics(
            waiting=len(self._mailbox),
            handled=self._handled,
            dropped=self._mailbox.dropped,
            refused=self._mailbox.refused,
            replaced=self._mailbox.replaced,
            works=self._under_way.works,
            restarts=self._life,
        )

    # --- one life after the other --------------------------------------------------------

    def begin(self) -> None:
        """Make the actor and run its first effects: when this returns, it has started."""
        self._guarded(self._first_effects)

    def _first_effects(self) -> Effects:
        self._actor = Actor()
        actor = self.spec.make()
        actor.me = self.address
        self._actor = actor
        return actor.started()

    async def live(self) -> None:
        """Serve until the actor has ended for good."""
        ending = Ending.ABORTED
        try:
            ending = await self._serve_until_the_end()
        finally:
            self._end(ending)

    async def _serve_until_the_end(self) -> Ending:
        while True:
            crash = await self._serve()
            last = self._last_effects()
            await self._clear_away()
            for effect in last:
                self._perform_last(effect)
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

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _last_effects(self) -> list[Effect]:
        try:
            return list(self._actor.stopping())
        except Exception as error:
            self.system.note_crash(self.path, error)
            return []

    def _perform_last(self, effect: Effect) -> None:
        """Perform an effect of an actor that is ending anyway: what it raises is noted."""
        if not isinstance(effect, Tell | Call):
            error = InternalError(f"{self.path} is stopping: no {type(effect).__name__} any more")
            self.system.note_crash(self.path, error)
            return
        try:
            self._perform(effect)
        except Exception as error:
            self.system.note_crash(self.path, error)

    async def _clear_away(self) -> None:
        """End children (youngest first) and works; nothing waits beyond its grace."""
        works = self._under_way.forget()
        children = list(self.children.values())
        self.children.clear()  # Nobody is to be told of their end.
        for child in reversed(children):
            child.stop()
            await asyncio.shield(child.ended)
        for work in works:
            work.cancel()
        if works:
            await asyncio.wait(works, timeout=self.spec.grace_s)

    def _begin_again(self, crash: Exception) -> bool:
        self.system.note_crash(self.path, crash)
        if self.spec.restart is Restart.TEMPORARY or self._is_stopping:
            return False
        if not self._restarts.allows(self.system.loop.time()):
            return False
        self._life += 1
        self.begin()
        if self.parent is not None:
            self.parent.tell_if_handled(ChildRestarted(name=self.spec.name, error=crash))
        return True

    def _end(self, ending: Ending) -> None:
        self._under_way.forget()
        while len(self._mailbox):
            entry = self._mailbox.get()
            if entry.take is None:
                self.system.dead_letters += 1
            refuse(entry.reply, f"{self.path} has ended")
        self.ended.set_result(ending)
        self.system.forget(self)
        error = self._crash if ending is Ending.CRASHED else None
        if self.parent is not None:
            self._tell_parent(self.parent, ending, error)
        elif error is not None:
            self.system.fail(self.path, error)

    def _tell_parent(self, parent: Cell, ending: Ending, error: Exception | None) -> None:
        if parent.children.pop(self.spec.name, None) is None:
            return  # It is ending itself, or beginning anew.
        if error is None or self.spec.restart is Restart.TEMPORARY or self._is_stopping:
            ended = ChildEnded(name=self.spec.name, ending=ending, error=error)
            parent.tell_if_handled(ended)
        else:
            parent.crash(error)

    # --- one message after the other -----------------------------------------------------

    def _handle(self, entry: Entry) -> None:
        if entry.take is not None and not entry.take():
            return
        handler = self._actor.handler(type(entry.message))
        if handler is None:
            self._leave_unhandled(entry.message)
        else:
            self._handled += 1
            self._asked = entry.reply
            self._guarded(lambda: handler(self._actor, entry.message), entry.on_handled)
            self._asked = None
        if entry.reply is not None:
            refuse(entry.reply, f"{self.path} gave no answer to {type(entry.message).__name__}")

    def _leave_unhandled(self, message: Message) -> None:
        self.system.dead_letters += 1
        if isinstance(message, WorkFailed):
            self._crash = message.error

    def _guarded(self, step: Callable[[], Effects], then: Callable[[], None] | None = None) -> None:
        """Collect a step's effects, then perform them; an exception is the actor's crash."""
        try:
            for effect in list(step()):
                self._perform(effect)
            if then is not None:
                then()
        except Exception as error:
            self._crash = error

    def _tell_self(self, message: Message, take: Callable[[], bool]) -> None:
        """Tell the actor what came of its own doing; that has room, or is a crash.

        To lose it would leave the actor waiting for what has long happened.
        """
        entry = Entry(message, take=take)
        if self.ended.done():
            return
        if not self.put(entry, Delivery.CONTROL):
            what = type(message).__name__
            self.crash(InternalError(f"{self.path} has no room for its own {what}"))

    # --- effects -------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        self._performers[type(effect)](effect)

    def _tell(self, effect: Tell) -> None:
        if not effect.to.tell(effect.message) and not isinstance(effect.to, Address):
            self.system.dead_letters += 1

    def _reply(self, effect: Reply) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(effect.message)

    def _stop_child(self, effect: StopChild) -> None:
        child = self.children.get(effect.name)
        if child is not None:
            child.stop()

    def _stop_self(self, _: StopSelf) -> None:
        if self.spec.restart is Restart.PERMANENT:
            self._crash = InternalError(f"{self.path} is permanent, and ended itself")
        else:
            self.stop()
