"""The kinds of container runtime that the pilot knows, in the order in which they are tried.

Apptainer and Singularity come first: sites install them for just this, and they take every form
of an image. Bubblewrap is the smallest of the others and stays in the batch slot's process tree
and cgroup; so does Podman, at ten times the start-up. Charliecloud shows the host's /dev, and
an image must have the mount points that it wants. Docker's daemon starts the job outside the
slot, where the batch system doesn't account for it.
"""

from __future__ import annotations

from pilot.containers.apptainer import APPTAINER, SINGULARITY
from pilot.containers.bubblewrap import BUBBLEWRAP
from pilot.containers.charliecloud import CHARLIECLOUD
from pilot.containers.docker import DOCKER
from pilot.containers.podman import PODMAN
from pilot.containers.runtime import Dialect, RuntimeKind
from transport.errors import UserError

DIALECTS: dict[RuntimeKind, Dialect] = {
    dialect.kind: dialect
    for dialect in (APPTAINER, SINGULARITY, BUBBLEWRAP, PODMAN, CHARLIECLOUD, DOCKER)
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
