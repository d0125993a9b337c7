"""The bundle that an agent uses: a published one, or its own; and what becomes of old ones.

A published bundle is used as it is, whoever owns it. It is looked at by a helper process with a
deadline, as a dead network file system never answers. A directory in which anybody may write is
no place to take programs from: such a one is passed over.

In its own state an agent removes bundles of other names, which earlier releases or another
Python left. One that an agent uses is safe: each holds a shared lock on its bundle's directory
as long as it lives, and only who gets that lock alone may remove. A wrapper needs no lock of
its own: wrappers of a dead agent are ended before its successor asks for a bundle.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pilot.bounded_process import run_bounded
from pilot.bundle.build import Bundle, build_bundle, bundle_at, locked
from pilot.bundle.inputs import find_inputs, name_of
from pilot.plain_files import remove_tree
from transport.errors import OperatorError
from transport.messages import Record

_LOOK_S = 10.0
_REMOVED_MAX = 8
"""At a time: what is left goes the next time."""
_TRIES = 3
_OTHERS_MAY_WRITE = 0o002
_EXPECTED = "bin/../so/../app/pilot/wrapper_boot.py"
"""Seen through every part that a launch names."""


class TakenBundle(Record, frozen=True, kw_only=True):
    """The bundle to use, and one sentence about where it is from, without a full stop."""

    bundle: Bundle
    note: str


async def take_bundle(
    state: Path, published: Path | None, environment: Mapping[str, str], *, look_s: float = _LOOK_S
) -> TakenBundle:
    """Return the bundle of this code: the published one, else one in ``state``, built if need be.

    Waits ``look_s`` at most for the published one, and as long as `build_bundle` does. The
    bundle in ``state`` stays as long as this process lives; older ones there that no process
    uses are removed.

    Raises `OperatorError` as `build_bundle` does.
    """
    why_not = ""
    if published is not None:
        inputs = await asyncio.to_thread(find_inputs)
        root = published / await asyncio.to_thread(name_of, inputs)
        why_not = await _look(root, environment, look_s)
        if not why_not:
            return TakenBundle(bundle=bundle_at(root, inputs), note=f"bundle: {root}, published")
    bundle = await asyncio.to_thread(_own_bundle, state)
    return TakenBundle(bundle=bundle, note=f"bundle: {bundle.root}" + (why_not and f": {why_not}"))


async def _look(root: Path, environment: Mapping[str, str], look_s: float) -> str:
    """Say why a published bundle can't be used; nothing where it can."""
    looked = await run_bounded(
        ["stat", "-L", "-c", "%a", str(root.parent), str(root), str(root / _EXPECTED)],
        environment={"PATH": environment.get("PATH", os.defpath), "LC_ALL": "C"},
        timeout_s=look_s,
    )
    modes = looked.stdout.split()
    if looked.is_timed_out:
        return f"{root.parent} gave no answer in {look_s:g} s"
    if len(modes) != 3:
        return f"{root} isn't there, or can't be read"
    if any(int(mode, 8) & _OTHERS_MAY_WRITE for mode in modes):
        return f"{root} isn't used, as anybody may write there; chmod o-w it and its directory"
    return ""


def _own_bundle(state: Path) -> Bundle:
    for _ in range(_TRIES):
        bundle = build_bundle(state)
        if _hold(bundle.root):
            _remove_others(bundle.root)
            return bundle
    raise OperatorError(f"Bundles in {state} are removed again and again: who cleans up there?")


def _hold(root: Path) -> bool:
    """Lock a bundle until this process ends; False where it is being removed."""
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except OSError:  # This file system has no such locks, so nobody removes anything either.
        return True
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), root.stat()):
            return True
    os.close(descriptor)
    return False


def _remove_others(root: Path) -> None:
    others = [path for path in root.parent.glob("bundle-*") if path.is_dir() and path != root]
    with suppress(OSError, OperatorError), locked(root.parent, 0.0):
        for other in sorted(others)[:_REMOVED_MAX]:
            _remove_unused(other)


def _remove_unused(root: Path) -> None:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Under another name first: half a bundle must never have a bundle's.
        going = root.with_name(f"{root.name}.building-removed")
        root.rename(going)
        remove_tree(going)
    except BlockingIOError:
        return
    finally:
        os.close(descriptor)
