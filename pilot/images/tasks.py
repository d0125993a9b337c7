"""What a helper process does for the image store: pull, read, hash, unpack.

All of it may take minutes or hang for ever - a registry, a file on a dead mount, a layer of
gigabytes - so it is done by a process of its own, which is killed at a deadline. It may be
killed anywhere: locks go with it, and what it left half done is swept by the next.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol

from pilot.images.archive import Archive
from pilot.images.cache import Entry, ImageCache
from pilot.images.content import HEAD_BYTES, FileKind, squashfs_offset, tell
from pilot.images.layers import Budget
from pilot.images.manifest import Descriptor, Resolved, node_architecture
from pilot.images.reference import ArchiveReference, RegistryReference
from pilot.images.squash import unsquash
from pilot.images.unpack import Tree
from transport.errors import OperatorError, UserError
from transport.messages import Record

ENTRIES_MAX = 2_000_000
_MIN_ROOM = 1 << 20


class Bounds(Record, frozen=True, kw_only=True):
    """What every task is given."""

    directory: str
    """Of the cache."""
    bytes_max: int
    timeout_s: float
    """For waiting on another process that does the same."""


class PullImage(Record, frozen=True, kw_only=True, tag="pull"):
    """Bring an image from a registry into the cache."""

    bounds: Bounds
    reference: RegistryReference
    required: str = ""
    """The digest it must have; empty: whatever it is."""
    since: float
    """A tag that was looked up after this need not be looked up again."""
    plain_http: tuple[str, ...] = ()
    wait_s: float = 30.0
    """For each answer of the registry."""


class ReadArchive(Record, frozen=True, kw_only=True, tag="read"):
    """Bring an image from an archive into the cache."""

    bounds: Bounds
    reference: ArchiveReference
    name: str
    """By which what it holds is remembered; another one when the file is another."""
    required: str = ""


class HashFile(Record, frozen=True, kw_only=True, tag="hash"):
    """Compute a file's digest."""

    path: str


class UnpackFile(Record, frozen=True, kw_only=True, tag="unpack"):
    """Unpack a SIF or squashfs file into the cache."""

    bounds: Bounds
    path: str
    digest: str


Task = PullImage | ReadArchive | HashFile | UnpackFile


class Answer(Record, frozen=True, kw_only=True):
    """What came of a task: a digest, or a problem."""

    digest: str = ""
    problem: str = ""
    """A fragment of a sentence, without a full stop."""
    is_users: bool = False
    """Whose problem it is."""


class Source(Protocol):
    """Where layers come from."""

    def layer(self, descriptor: Descriptor, directory: Path) -> AbstractContextManager[IO[bytes]]:
        """Give a layer's bytes, verified."""
        ...


def perform(task: Task, *, now: Callable[[], float], sleep: Callable[[float], None]) -> str:
    """Do it, and return the digest; it blocks for as long as it takes.

    Raises `UserError` and `OperatorError`, both with a fragment of a sentence.
    """
    match task:
        case PullImage():
            return _pull(task, now, sleep)
        case ReadArchive():
            return _read(task, now)
        case HashFile():
            return _hash(Path(task.path))
        case UnpackFile():
            return _unpack(task)


def _pull(task: PullImage, now: Callable[[], float], sleep: Callable[[float], None]) -> str:
    from pilot.images.registry import Registry

    cache, name = _cache(task.bounds), str(task.reference)
    with cache.lock(name, timeout_s=task.bounds.timeout_s):
        known = cache.recall(name)
        if known is not None and known.at > task.since and cache.find(known.digest):
            return known.digest  # another process was faster
        with Registry(
            task.reference, sleep=sleep, timeout_s=task.wait_s, plain_http=task.plain_http
        ) as registry:
            try:
                resolved = registry.resolve(node_architecture())
            except OperatorError:
                if known is None or cache.find(known.digest) is None:
                    raise
                cache.remember(name, known.digest, now=now())  # asked again as late as any tag
                return known.digest
            check_required(task.required, (resolved.digest, *resolved.also))
            _fill(cache, resolved, registry, task.bounds, name)
        for alias in (name, *resolved.also):
            cache.remember(alias, resolved.digest, now=now())
    return resolved.digest


def _read(task: ReadArchive, now: Callable[[], float]) -> str:
    cache = _cache(task.bounds)
    with cache.lock(task.name, timeout_s=task.bounds.timeout_s):
        known = cache.recall(task.name)
        if known is not None and cache.find(known.digest):
            return known.digest
        with Archive(Path(task.reference.path)) as archive:
            resolved = archive.resolve(node_architecture(), tag=task.reference.tag)
            check_required(task.required, (resolved.digest, *resolved.also))
            _fill(cache, resolved, archive, task.bounds, str(task.reference))
        for alias in (task.name, *resolved.also):
            cache.remember(alias, resolved.digest, now=now())
    return resolved.digest


def _fill(
    cache: ImageCache, resolved: Resolved, source: Source, bounds: Bounds, asked: str
) -> None:
    packed = sum(max(layer.size, 0) for layer in resolved.layers)
    if packed > bounds.bytes_max:
        raise UserError(
            f"its layers have {packed} bytes, and this node keeps {bounds.bytes_max} of images"
        )
    lock = cache.lock_to_fill(resolved.digest, timeout_s=bounds.timeout_s)
    if lock is None:
        return
    with lock, cache.filling(resolved.digest) as place:
        budget = Budget(bounds.bytes_max, ENTRIES_MAX)
        root = place / "root"
        root.mkdir(mode=0o755)
        tree = Tree(root, budget)
        for layer, diff_id in zip(resolved.layers, resolved.diff_ids, strict=True):
            with source.layer(layer, place) as file:
                tree.add_layer(file, diff_id)
        tree.add_mount_points()
        cache.keep(place, Entry(digest=resolved.digest, bytes=budget.bytes, source=asked))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UserError("it changes while it is read; wait until it is written whole")
    return f"sha256:{digest}"


def _unpack(task: UnpackFile) -> str:
    cache, path = _cache(task.bounds), Path(task.path)
    lock = cache.lock_to_fill(task.digest, timeout_s=task.bounds.timeout_s)
    if lock is None:
        return task.digest
    with lock, cache.filling(task.digest) as place:
        budget = Budget(task.bounds.bytes_max, ENTRIES_MAX)
        unsquash(path, _offset(path), place / "root", budget)
        cache.keep(place, Entry(digest=task.digest, bytes=budget.bytes, source=task.path))
    return task.digest


def _offset(path: Path) -> int:
    with path.open("rb") as file:
        content = tell(file.read(HEAD_BYTES), os.fstat(file.fileno()).st_size)
        if content.kind is not FileKind.SIF:
            return content.offset
        file.seek(content.table_offset)
        return squashfs_offset(file.read(content.table_bytes))


def _cache(bounds: Bounds) -> ImageCache:
    return ImageCache(Path(bounds.directory), bytes_max=max(bounds.bytes_max, _MIN_ROOM))


def check_required(required: str, found: tuple[str, ...]) -> None:
    """Raise `UserError` for an image of another digest than is required; names both."""
    if not required or required in found:
        return
    if not any(found):
        raise UserError(
            f"its digest must be {required}, and a plain directory has none; name a SIF or "
            "squashfs file, an archive or a registry's image"
        )
    raise UserError(f"its digest must be {required}, and it is {' in '.join(found)}")
