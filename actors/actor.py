"""What every actor is: a class with handlers, one for each type of message."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from actors.effects import Effects
from transport.messages import Message

if TYPE_CHECKING:
    from actors.address import Address

M = TypeVar("M", bound=Message)
A = TypeVar("A", bound="Actor")


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

    @classmethod
    def handler(cls, kind: type) -> Callable[[Any, Any], Effects] | None:
        """Return the handler of a type of message, if there is one."""
        return cls._handlers.get(kind)

    def started(self) -> Effects:
        """Return the first effects; called before any message, and again after a restart."""
        return ()

    def stopping(self) -> Effects:
        """Return the last effects (`Tell` and `Call`), when the actor stops or has crashed."""
        return ()
