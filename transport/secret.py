"""A value that has no printable form."""

from __future__ import annotations

import hmac
from typing import NoReturn, final


@final
class Secret:
    """A key or a token that can be handed on but never shown.

    It has no readable ``repr`` or ``str``, refuses formatting with a width, pickling and
    copying into a container by accident; whoever truly needs the text calls `reveal`, and a
    search for that one word finds every place that does.

    >>> Secret("hunter2")
    <Secret>
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret's text; the caller must not let it reach a log, argv or a trace."""
        return self._value

    def __repr__(self) -> str:
        return "<Secret>"

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = (secret._value.encode("utf-8", "surrogatepass") for secret in (self, other))
        return hmac.compare_digest(mine, theirs)

    def __hash__(self) -> int:
        return hash(Secret)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled or copied")
