"""Who starts, watches and ends whom: child specs, restart intensity, three kinds of end.

As in Erlang/OTP: a child is described, not managed. *Stopped* is an end in good order,
*aborted* one without it, *crashed* an exception out of a handler; three things, three names.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from transport.messages import Delivery, Message

if TYPE_CHECKING:
    from actors.runtime import Actor


class Restart(StrEnum):
    """When a child is started again."""

    PERMANENT = "permanent"
    """Always; if it crashes too often, its parent crashes."""
    TRANSIENT = "transient"
    """Only when it crashed; if too often, its parent crashes."""
    TEMPORARY = "temporary"
    """Never; its parent is told and decides."""


class Ending(StrEnum):
    """How an actor ended."""

    STOPPED = "stopped"
    ABORTED = "aborted"
    CRASHED = "crashed"


class Intensity(msgspec.Struct, frozen=True):
    """How many restarts within how many seconds are still believed to help."""

    restarts: int = 3
    within_s: float = 60.0


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An actor to be: its name among its siblings, how to make it, how to treat it."""

    name: str
    make: Callable[[], Actor]
    restart: Restart = Restart.TEMPORARY
    intensity: Intensity = Intensity()
    grace_s: float = 5.0
    """How long its works may take to end when it is stopped; then they are abandoned."""
    mailbox: int = 1024
    control_reserve: int = 64


class ChildEnded(Message, frozen=True, kw_only=True):
    """Runtime to parent: a child ended and won't be started again."""

    delivery = Delivery.CONTROL
    name: str
    ending: Ending
    error: Exception | None = None


class ChildRestarted(Message, frozen=True, kw_only=True):
    """Runtime to parent: a child crashed and begins anew, with no memory."""

    delivery = Delivery.CONTROL
    name: str
    error: Exception


class RestartCounter:
    """Decides whether one more restart is within the intensity."""

    def __init__(self, intensity: Intensity) -> None:
        self._intensity = intensity
        self._times: deque[float] = deque()

    def allows(self, now: float) -> bool:
        """Count a restart at ``now``; False when it is one too many."""
        while self._times and self._times[0] <= now - self._intensity.within_s:
            self._times.popleft()
        self._times.append(now)
        return len(self._times) <= self._intensity.restarts
