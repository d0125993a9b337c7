"""The kinds of container runtime that the pilot knows, in the order in which they are tried."""

from __future__ import annotations

from pilot.containers.apptainer import APPTAINER, SINGULARITY
from pilot.containers.runtime import Dialect, RuntimeKind
from transport.errors import UserError

DIALECTS: dict[RuntimeKind, Dialect] = {
    dialect.kind: dialect for dialect in (APPTAINER, SINGULARITY)
}


BARE = "bare"
"""In a list of runtimes: none of those after it."""


def split_list(text: str) -> tuple[str, ...]:
    """Return what commas separate, without the blanks around."""
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def chosen_dialects(names: str) -> tuple[Dialect, ...]:
    """Return the kinds that are to be tried, in their order; all for no name.

    Raises `UserError` for a name that is none.
    """
    chosen: list[Dialect] = []
    for name in split_list(names):
        if name == BARE:
            return tuple(chosen)
        if name not in DIALECTS:
            known = ", ".join((*DIALECTS, BARE))
            raise UserError(f"There is no container runtime {name!r}: write some of {known}.")
        chosen.append(DIALECTS[RuntimeKind(name)])
    return tuple(chosen) or tuple(DIALECTS.values())


def dialect_of(kind: RuntimeKind) -> Dialect:
    """Return how one kind is spoken to."""
    return DIALECTS[kind]
