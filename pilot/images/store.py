"""Images as jobs get them: found or fetched, told apart, and named by what is in them.

What is on the node already is only looked at. What is in a registry or an archive is unpacked
into the cache, once, however many jobs want it at the same time: within this process they wait
for each other here, and processes for each other at the cache's locks. A failure is remembered
for a moment, so that those who waited don't each wait for it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from pilot.clock import SystemClock
from pilot.containers.mounts import LOOKED_FOR, ImageTree
from pilot.containers.runtime import ImageForm
from pilot.containers.search import GLANCE_KEPT_S
from pilot.images.cache import ImageCache
from pilot.images.content import FileKind, tell
from pilot.images.helper import ask_helper
from pilot.images.locks import FileLock
from pilot.images.look import look_into
from pilot.images.look_at_file import Seen, look_at_file
from pilot.images.manifest import node_architecture
from pilot.images.reference import (
    ArchiveReference,
    PathReference,
    Reference,
    RegistryReference,
    check_digest,
    parse_reference,
)
from pilot.images.tasks import (
    Bounds,
    HashFile,
    PullImage,
    ReadArchive,
    Task,
    UnpackFile,
    check_required,
)
from transport.errors import OperatorError, PilotError, UserError
from transport.messages import Record

BYTES_MAX_DEFAULT = 20_000_000_000
_FAILURE_KEPT_S = 30.0
_KEPT_MAX = 256
_HELPERS_MAX = 2
_Kept = TypeVar("_Kept")


class LocalImage(Record, frozen=True, kw_only=True):
    """An image that is there to be run."""

    reference: str
    """As the job or the settings name it."""
    path: str
    form: ImageForm
    state: str
    """Changes when the image becomes another one."""
    digest: str = ""
    """``sha256:...``: of the file, or of the manifest; empty for a plain directory."""


class StoreOptions(Record, frozen=True, kw_only=True):
    """How images are had."""

    bytes_max: int = BYTES_MAX_DEFAULT
    """Of the cache."""
    tag_fresh_s: float = 600.0
    """A tag is looked up in its registry no more often than this."""
    timeout_s: float = 1800.0
    """For fetching, hashing or unpacking one image."""
    look_timeout_s: float = 5.0
    look_kept_s: float = GLANCE_KEPT_S
    """How long a look at a path counts: many jobs a second don't each pay for a helper."""
    registry_wait_s: float = 30.0
    """For each answer of a registry."""
    plain_http: tuple[str, ...] = ()
    """Registries (``host`` or ``host:port``) that are spoken to without TLS."""


class ImageStore:
    """Finds, fetches and keeps the images that jobs name."""

    def __init__(
        self,
        directory: Path | None = None,
        options: StoreOptions = StoreOptions(),  # noqa: B008 - it can't be changed
        *,
        now: Callable[[], float] | None = None,
    ) -> None:
        """``directory`` is for the cache, which other processes may share.

        Without one only images that need no unpacking can be had.
        """
        self._options = options
        self._cache: ImageCache | None = None
        if directory is not None:
            self._cache = ImageCache(directory.absolute(), bytes_max=options.bytes_max)
        self._now = now or SystemClock().now
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._hashes: dict[str, str] = {}
        self._seen: dict[str, tuple[Seen, float]] = {}
        self._failures: dict[str, tuple[PilotError, float]] = {}
        self._trees: dict[str, ImageTree] = {}
        self._helpers = asyncio.Semaphore(_HELPERS_MAX)

    async def get(self, reference: str, *, digest: str = "") -> LocalImage:
        """Return the image that a job names; it has this digest, if one is given.

        Waits until it is fetched, where it must be. Raises `UserError` for an image that can't be
        had or is another one, and `OperatorError` where this node or a registry is the reason.
        """
        parsed = parse_reference(reference)
        if digest:
            check_digest(digest, "The digest that the container image must have")
        with _named(reference):
            image = await self._found(reference, parsed, digest)
            if digest not in ("", image.digest):
                check_required(digest, await asyncio.to_thread(self._names_of, image, digest))
            return image

    async def tree(self, image: LocalImage, also: Sequence[str] = ()) -> ImageTree:
        """Return what is known of the directories that a job could be mounted on.

        ``also`` are further ones to look for: where a site's own are to be seen.
        """
        key = f"{image.path} {image.state} {' '.join(also)}"
        if key not in self._trees:
            places = (*LOOKED_FOR, *also)
            tree = await look_into(image.path, image.form, directories=places)
            _put(self._trees, key, tree)
        return self._trees[key]

    async def as_directory(self, image: LocalImage) -> LocalImage:
        """Return the same image as a directory, for runtimes that take nothing else.

        Waits until it is unpacked. Raises `UserError` where it is broken, and `OperatorError`
        where it can't be unpacked here.
        """
        if image.form is ImageForm.DIRECTORY:
            return image
        with _named(image.reference):
            cache = self._needed_cache()
            digest = image.digest or await self._hash(image.path, image.state)
            bounds = self._bounds()
            task = UnpackFile(bounds=bounds, path=image.path, digest=digest)
            await self._once(f"unpack {digest}", lambda: _found(cache, digest), task)
        return self._cached(image.reference, digest)

    async def hold(self, image: LocalImage) -> FileLock:
        """Keep an image in the cache for as long as the returned lock isn't closed.

        To be held by whoever runs it. A process that inherits the lock's descriptor holds it,
        too. Raises `OperatorError` where the image is gone from the cache by now.
        """
        digest = self._cache.digest_at(image.path) if self._cache else ""
        if self._cache is None or not digest:
            return FileLock.none()
        return await asyncio.to_thread(self._cache.hold, digest)

    # --- the forms ---------------------------------------------------------------------------

    async def _found(self, reference: str, parsed: Reference, required: str) -> LocalImage:
        match parsed:
            case PathReference():
                return await self._path(reference, parsed.path, required)
            case ArchiveReference():
                seen = await self._look(parsed.path)
                return await self._archive(reference, parsed, seen, required)
            case RegistryReference():
                return await self._registry(reference, parsed, required)

    async def _path(self, reference: str, path: str, required: str) -> LocalImage:
        seen = await self._look(path)
        if seen.is_directory:
            return LocalImage(
                reference=reference, path=path, form=ImageForm.DIRECTORY, state=seen.state
            )
        content = tell(seen.head, seen.size)
        if content.kind is FileKind.ARCHIVE:
            archive = ArchiveReference(scheme="oci-archive", path=path)
            return await self._archive(reference, archive, seen, required)
        if content.architecture not in ("", node_architecture()):
            raise UserError(
                f"it is made for linux/{content.architecture}, and this node is "
                f"linux/{node_architecture()}; name an image for this architecture"
            )
        digest = await self._hash(path, seen.state)
        return LocalImage(
            reference=reference, path=path, form=content.form, state=seen.state, digest=digest
        )

    async def _archive(
        self, reference: str, archive: ArchiveReference, seen: Seen, required: str
    ) -> LocalImage:
        if seen.is_directory or tell(seen.head, seen.size).kind is not FileKind.ARCHIVE:
            raise UserError("it is no tar file, so it is no archive of an image")
        name = f"{archive} {seen.state}"
        task = ReadArchive(bounds=self._bounds(), reference=archive, name=name, required=required)
        digest = await self._once(f"{name} {required}", lambda: self._known(name), task)
        return self._cached(reference, digest)

    async def _registry(
        self, reference: str, parsed: RegistryReference, required: str
    ) -> LocalImage:
        since = self._now() - self._options.tag_fresh_s
        exact = parsed.digest or required
        task = PullImage(
            bounds=self._bounds(),
            reference=parsed,
            required=required,
            since=since,
            plain_http=self._options.plain_http,
            wait_s=self._options.registry_wait_s,
        )
        known = (
            (lambda: self._known_digest(exact))
            if exact
            else (lambda: self._known(str(parsed), since=since))
        )
        digest = await self._once(f"{parsed} {required}", known, task)
        return self._cached(reference, digest)

    async def _hash(self, path: str, state: str) -> str:
        name = f"file {path} {state}"
        if name not in self._hashes:
            _put(self._hashes, name, await self._once(name, None, HashFile(path=path)))
        return self._hashes[name]

    # --- what is known -----------------------------------------------------------------------

    def _recalled(self, name: str) -> str:
        known = self._cache.recall(name) if self._cache else None
        return known.digest if known else ""

    def _known(self, name: str, *, since: float = 0.0) -> str:
        """Return the digest of an image that is here and is what a name means."""
        cache = self._needed_cache()
        known = cache.recall(name)
        if known is None or known.at < since:
            return ""
        return _found(cache, known.digest)

    def _known_digest(self, digest: str) -> str:
        """Return the digest of an image that is here: a manifest's, or that of its index."""
        cache = self._needed_cache()
        return _found(cache, digest) or _found(cache, self._recalled(digest))

    def _names_of(self, image: LocalImage, required: str) -> tuple[str, ...]:
        """Return the digests that an image has: its own, and its index's if that is meant."""
        is_index = required and image.digest and self._recalled(required) == image.digest
        return (image.digest, required) if is_index else (image.digest,)

    def _cached(self, reference: str, digest: str) -> LocalImage:
        return LocalImage(
            reference=reference,
            path=str(self._needed_cache().root(digest)),
            form=ImageForm.DIRECTORY,
            state=digest,
            digest=digest,
        )

    def _needed_cache(self) -> ImageCache:
        if self._cache is None:
            raise OperatorError("it must be unpacked, and this pilot has no image cache")
        return self._cache

    def _bounds(self) -> Bounds:
        cache = self._needed_cache()
        return Bounds(
            directory=str(cache.directory),
            bytes_max=cache.bytes_max,
            timeout_s=self._options.timeout_s,
        )

    # --- once --------------------------------------------------------------------------------

    async def _look(self, path: str) -> Seen:
        async with self._lock(f"look {path}"):
            now = asyncio.get_running_loop().time()
            seen, until = self._seen.get(path, (None, 0.0))
            if seen is None or now >= until:
                self._raise_again(f"look {path}")
                try:
                    seen = await look_at_file(path, timeout_s=self._options.look_timeout_s)
                except PilotError as error:
                    self._fail(f"look {path}", error, self._options.look_kept_s)
                    raise
                _put(self._seen, path, (seen, now + self._options.look_kept_s))
            return seen

    async def _once(self, key: str, known: Callable[[], str] | None, task: Task) -> str:
        """Return what is known, or have the task done, by one of all that want it."""
        is_file = known is None
        async with self._lock(key):
            if digest := await asyncio.to_thread(known or (lambda: self._recalled(key))):
                return digest
            self._raise_again(key)
            try:
                async with self._helpers:
                    digest = await ask_helper(task, timeout_s=self._options.timeout_s)
            except PilotError as error:
                self._fail(key, error, _FAILURE_KEPT_S)
                raise
            if is_file and self._cache is not None:
                await asyncio.to_thread(self._cache.remember, key, digest, now=self._now())
            return digest

    def _lock(self, key: str) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    def _fail(self, key: str, error: PilotError, kept_s: float) -> None:
        _put(self._failures, key, (error, asyncio.get_running_loop().time() + kept_s))

    def _raise_again(self, key: str) -> None:
        """Raise what came of this a moment ago, if that was a failure."""
        failure, until = self._failures.get(key, (None, 0.0))
        if failure is not None and asyncio.get_running_loop().time() < until:
            raise type(failure)(str(failure))


def _put(kept: dict[str, _Kept], key: str, value: _Kept) -> None:
    """Keep a value, and not more than some of them."""
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > _KEPT_MAX:
        del kept[next(iter(kept))]


@contextmanager
def _named(reference: str) -> Iterator[None]:
    """Make sentences of the fragments that errors within are."""
    try:
        yield
    except (UserError, OperatorError) as error:
        kind = UserError if isinstance(error, UserError) else OperatorError
        problem = str(error).rstrip(".")
        raise kind(f"The container image {reference} can't be used: {problem}.") from error


def _found(cache: ImageCache, digest: str) -> str:
    return digest if digest and cache.find(digest) is not None else ""
