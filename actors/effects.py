"""What a handler may ask of the runtime: a closed union of effects.

A handler is synchronous. It changes its actor's state and returns effects, which the runtime
performs, in order, when the handler has returned: all of them, or, if it raised, none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Protocol

import msgspec

from transport.messages import Delivery, Message

if TYPE_CHECKING:
    from actors.supervision import ChildSpec


class Recipient(Protocol):
    """Anything that can be told a message: an actor's address, or one end of a link."""

    def tell(self, message: Message) -> bool:
        """Take a message without waiting; False where its policy refuses it."""
        ...


class Tell(msgspec.Struct, frozen=True):
    """Tell a message; one that is refused counts as a dead letter."""

    to: Recipient
    message: Message


class Reply(msgspec.Struct, frozen=True):
    """Answer the `ask` that is being handled; without one it does nothing."""

    message: Message


class Call(msgspec.Struct, frozen=True):
    """Call something that never waits: a port's synchronous method, say."""

    function: Callable[[], object]


class Run(msgspec.Struct, frozen=True):
    """Do long work in a task of the actor's own.

    What ``work`` returns is told to the actor itself (None: nothing is); what it raises comes
    as `WorkFailed`. A second one of the same name, while the first runs, is our own mistake.
    """

    name: str
    work: Callable[[], Awaitable[Message | None]]


class CancelWork(msgspec.Struct, frozen=True):
    """Cancel the work of this name; it tells nothing any more. Unknown names do nothing."""

    name: str


class Schedule(msgspec.Struct, frozen=True):
    """Tell the actor itself a message after some seconds; replaces the one of that key."""

    key: str
    after_s: float
    message: Message


class Unschedule(msgspec.Struct, frozen=True):
    """Forget a scheduled message; unknown keys do nothing."""

    key: str


class SpawnChild(msgspec.Struct, frozen=True):
    """Start a child; when this is performed it has started."""

    spec: ChildSpec


class StopChild(msgspec.Struct, frozen=True):
    """Stop a child; `ChildEnded` tells when it has. Unknown names do nothing."""

    name: str


class StopSelf(msgspec.Struct, frozen=True):
    """End this actor in good order; what is still in its mailbox becomes dead letters."""


Effect = (
    Tell
    | Reply
    | Call
    | Run
    | CancelWork
    | Schedule
    | Unschedule
    | SpawnChild
    | StopChild
    | StopSelf
)
Effects = Iterable[Effect]


class WorkFailed(Message, frozen=True, kw_only=True):
    """Runtime to actor: a `Run` raised. An actor without a handler for it crashes."""

    delivery = Delivery.CONTROL
    name: str
    error: Exception
