"""What an actor has under way: its works and its timers.

Both end in a message from the actor to itself. They are under way until that message is
*handled*, so an actor that cancels one, replaces it, or is restarted, isn't told of it any
more, even if the message waits in the mailbox already. And a name is free again exactly when
the actor knows that its work has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Protocol, TypeVar

from actors.effects import Run, Schedule, WorkFailed
from transport.errors import InternalError
from transport.messages import Message

T = TypeVar("T")


class Spawner(Protocol):
    """Runs a coroutine in the scope that all tasks live in."""

    def __call__(self, work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
        """Return its task."""
        ...


class UnderWay:
    """The works and timers of one actor."""

    def __init__(
        self, path: str, spawn_task: Spawner, tell: Callable[[Message, Callable[[], bool]], None]
    ) -> None:
        """``tell`` is given a message and how to take it: False when nobody wants it any more."""
        self._path = path
        self._spawn_task = spawn_task
        self._tell = tell
        self._works: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def works(self) -> int:
        """How many works there are."""
        return len(self._works)

    def run(self, effect: Run) -> None:
        """Start a work; raises `InternalError` while there is one of its name."""
        if effect.name in self._works:
            raise InternalError(f"{self._path} already runs {effect.name!r}")
        task = self._spawn_task(self._work(effect), name=f"{self._path}:{effect.name}")
        self._works[effect.name] = task

    def cancel(self, name: str) -> None:
        """Cancel a work: it tells nothing any more."""
        task = self._works.pop(name, None)
        if task is not None:
            task.cancel()

    def schedule(self, effect: Schedule) -> None:
        """Start a timer, in place of the one of its key."""
        self.unschedule(effect.key)
        self._timers[effect.key] = asyncio.get_running_loop().call_later(
            effect.after_s, self._fire, effect.key, effect.message
        )

    def unschedule(self, key: str) -> None:
        """Cancel a timer: it tells nothing any more."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def forget(self) -> list[asyncio.Task[None]]:
        """Cancel all timers, want to hear of no work any more, and return those to be ended."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        works = list(self._works.values())
        self._works.clear()
        return works

    def _fire(self, key: str, message: Message) -> None:
        self._tell(message, partial(_take, self._timers, key, self._timers[key]))

    async def _work(self, effect: Run) -> None:
        task = asyncio.current_task()
        assert task is not None, "a work is a task"
        result = await _result_of(effect, task)
        take = partial(_take, self._works, effect.name, task)
        if result is None:
            take()
        elif self._works.get(effect.name) is task:
            self._tell(result, take)


async def _result_of(effect: Run, task: asyncio.Task[None]) -> Message | None:
    try:
        return await effect.work()
    except asyncio.CancelledError:
        if task.cancelling():
            raise
        # Something that it waited for was cancelled; its actor has to know that it failed.
        error = InternalError(f"{effect.name!r} waited for what somebody else cancelled")
        return WorkFailed(name=effect.name, error=error)
    except Exception as error:
        return WorkFailed(name=effect.name, error=error)


def _take(kept: dict[str, T], key: str, value: T) -> bool:
    """Remove exactly this value; False when it isn't the present one of its key."""
    if kept.get(key) is not value:
        return False
    del kept[key]
    return True
