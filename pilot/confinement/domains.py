"""The two Landlock domains of a bare job: the wrapper's, and the payload's within it.

The wrapper, and all below it, writes in the attempt's work, output and private directories only,
and doesn't read the agent's state. The payload writes in its work directory only. With ABI 6
neither can signal a process outside of its own domain.
"""

from __future__ import annotations

import os

from pilot.confinement.landlock import (
    READ,
    READ_DIRECTORY,
    WRITE_FILE,
    Ruleset,
    granted_write,
    restrict_self,
    scopes,
    write_rights,
)
from pilot.confinement.plan import Confinement, beside

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
"""What anybody opens for writing."""
_ACCELERATORS = ("nvidia", "dri", "kfd")
"""What the names of those begin with that a job computes on. Who may is still the mode's say."""


def enter_wrapper_domain(
    confinement: Confinement, devices: tuple[str, ...], *, is_hidden: bool
) -> None:
    """Confine this process; ``is_hidden``: something else is mounted where the state was.

    ``devices`` are the job's own ones. Raises `OSError` where the kernel refuses.
    """
    abi = confinement.landlock
    with Ruleset(READ | write_rights(abi), scopes(abi)) as ruleset:
        if is_hidden:
            ruleset.allow(["/"], READ)
        else:
            # Names may be listed everywhere: an import looks through each directory on its path.
            ruleset.allow(["/"], READ_DIRECTORY)
            # A link beside the way may lead back to what is to be hidden.
            ruleset.allow(beside(confinement.hide, _names_in), READ, follow=False)
            ruleset.allow(confinement.read, READ)
        ruleset.allow(confinement.write, READ | granted_write(abi))
        _allow_devices(ruleset, abi, devices)
        restrict_self(ruleset.descriptor)


def payload_domain(abi: int, devices: tuple[str, ...], work_directory: str) -> Ruleset:
    """Return what a payload is confined to, for `landlock.restrict_self` between fork and exec."""
    ruleset = Ruleset(write_rights(abi), scopes(abi))
    ruleset.allow([work_directory], granted_write(abi))
    _allow_devices(ruleset, abi, devices)
    return ruleset


def _allow_devices(ruleset: Ruleset, abi: int, own: tuple[str, ...]) -> None:
    devices = [
        f"/dev/{name}"
        for name in _names_in("/dev")
        if name in _DEVICES or name.startswith(_ACCELERATORS)
    ]
    ruleset.allow(devices, READ | WRITE_FILE)
    ruleset.allow(own, READ | granted_write(abi))


def _names_in(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
