"""The kinds of container runtime that the pilot knows, in the order in which they are tried."""

from __future__ import annotations

from pilot.containers.apptainer import APPTAINER, SINGULARITY
from pilot.containers.runtime import Dialect, RuntimeKind

DIALECTS: dict[RuntimeKind, Dialect] = {
    dialect.kind: dialect for dialect in (APPTAINER, SINGULARITY)
}


def dialect_of(kind: RuntimeKind) -> Dialect:
    """Return how one kind is spoken to."""
    return DIALECTS[kind]
