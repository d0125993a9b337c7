"""The pilot's own cache of unpacked images: bounded, filled once, never half filled.

    images/                       0700, of this user
        entries/HEX/root          the image, as a directory
        entries/HEX/entry.json    what it is, how big; its time is when it was last used
        names/HASH.json           what a name meant, and when: a tag, an index, a file
        locks/HEX.lock            exclusive: who fills or removes it; shared: who uses it
        filling-HEX-*             on its way; of a process that holds the lock, or to be swept
        removing-HEX-*            on its way out

HEX is the digest that the image is known by. An entry appears by one rename, when all of it is
on the disk. What is used is never removed: its users hold its lock, and a user that dies has
given it back. Several processes may share the directory; nothing here knows how many.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from pilot.images.locks import FileLock, try_lock, wait_a_moment, wait_lock
from pilot.plain_files import remove_tree
from transport.errors import OperatorError
from transport.messages import Record

_NAMES_MAX = 1000
_ENTRY_BYTES_MAX = 1 << 20
_BRIEFLY_S = 60.0
_Kind = TypeVar("_Kind", bound=Record)


class Entry(Record, frozen=True, kw_only=True):
    """An image in the cache."""

    digest: str
    bytes: int
    """What it takes on the disk, about."""
    source: str = ""
    """Who asked for it first, for a person who looks into the directory."""


class Name(Record, frozen=True, kw_only=True):
    """What a name meant when it was last looked up."""

    name: str
    digest: str
    at: float
    """UTC seconds."""


class ImageCache:
    """A directory of unpacked images, shared with other processes."""

    def __init__(self, directory: Path, *, bytes_max: int) -> None:
        """``directory`` is the pilot's own, and made if need be; on the node's own disk."""
        self.directory = directory
        self.bytes_max = bytes_max

    # --- reading -----------------------------------------------------------------------------

    def root(self, digest: str) -> Path:
        """Return where an image is, or would be."""
        return self._entry(digest) / "root"

    def find(self, digest: str) -> Entry | None:
        """Return an image that is here, and note that it is wanted."""
        entry = self._read(self._entry(digest))
        if entry is not None:
            with suppress(OSError):
                os.utime(self._entry(digest) / "entry.json")
        return entry

    def digest_at(self, path: str) -> str:
        """Return the digest of the image that is at this path; empty for a path elsewhere."""
        parts = Path(path).parts
        known = (self.directory / "entries").parts
        if parts[:-2] != known or parts[-1] != "root":
            return ""
        return f"sha256:{parts[-2]}"

    def entries(self) -> list[Entry]:
        """Return all images that are here, the longest unused first."""
        with suppress(FileNotFoundError):
            found = [(_used(path), self._read(path)) for path in self._places()]
            return [entry for _, entry in sorted(found, key=lambda pair: pair[0]) if entry]
        return []

    def hold(self, digest: str, *, timeout_s: float = _BRIEFLY_S) -> FileLock:
        """Keep an image from being removed until the lock is closed; it blocks.

        Raises `OperatorError` where it is gone already.
        """
        self._make()
        lock = self.lock(digest, is_shared=True, timeout_s=timeout_s)
        if self.find(digest) is None:
            lock.close()
            raise OperatorError(
                f"The image {digest} was removed from {self.directory} before it could be used: "
                "the cache is too small for what runs here. Raise its bound."
            )
        return lock

    # --- names -------------------------------------------------------------------------------

    def remember(self, name: str, digest: str, *, now: float) -> None:
        """Keep what a name means."""
        self._make()
        data = msgspec.json.encode(Name(name=name, digest=digest, at=now))
        _write_whole(self._name(name), data)

    def recall(self, name: str) -> Name | None:
        """Return what a name meant, however long ago."""
        found = _read_as(self._name(name), Name)
        return found if found is not None and found.name == name else None

    # --- filling -----------------------------------------------------------------------------

    def lock(
        self, name: str, *, is_shared: bool = False, timeout_s: float = _BRIEFLY_S
    ) -> FileLock:
        """Return the lock of an image or of any name; it blocks, for ``timeout_s`` at most."""
        self._make()
        return wait_lock(self._lock_file(name), is_shared=is_shared, timeout_s=timeout_s)

    def lock_to_fill(self, digest: str, *, timeout_s: float) -> FileLock | None:
        """Return the lock of an image that isn't here, or None once it is; it blocks.

        Its users hold the lock too, for hours, so it isn't waited for when the image is here.
        """
        self._make()
        deadline = time.monotonic() + timeout_s
        while self.find(digest) is None:
            lock = try_lock(self._lock_file(digest))
            if lock is None and time.monotonic() >= deadline:
                raise OperatorError(
                    f"another process has been fetching it for more than {timeout_s:g} s"
                )
            if lock is None:
                wait_a_moment()
            elif self.find(digest) is None:
                return lock
            else:
                lock.close()
        return None

    @contextmanager
    def filling(self, digest: str) -> Iterator[Path]:
        """Give a directory to make ``root`` in; for who holds the lock. It is gone afterwards.

        `keep` makes an entry of it before that.
        """
        self._make()
        self.sweep(own=digest)
        place = Path(tempfile.mkdtemp(prefix=f"filling-{_hex(digest)}-", dir=self.directory))
        try:
            yield place
        finally:
            _remove(place)

    def keep(self, place: Path, entry: Entry) -> None:
        """Make an entry of a directory that was filled, and make room for it.

        Raises `OperatorError` where there is no room for it beside what is in use.
        """
        _write_whole(place / "entry.json", msgspec.json.encode(entry))
        _sync(place)
        with self.lock("all"):
            self.make_room(entry.bytes)
            target = self._entry(entry.digest)
            if target.exists():  # without a readable entry.json, or it would have been found
                self._move_out(target)
            place.rename(target)
            _sync_directory(target.parent)

    def make_room(self, wanted: int) -> None:
        """Remove images, the longest unused first, until this many bytes more may be kept."""
        entries = self.entries()
        total = sum(entry.bytes for entry in entries)
        for entry in entries:
            if total + wanted <= self.bytes_max:
                break
            if self._evict(entry.digest):
                total -= entry.bytes
        if total + wanted > self.bytes_max:
            raise OperatorError(
                f"it takes {wanted} bytes, and of the {self.bytes_max} that the cache "
                f"{self.directory} may hold {total} are in use; raise its bound"
            )

    def sweep(self, *, own: str = "") -> None:
        """Remove what killed processes left half done."""
        for place in [*self.directory.glob("filling-*"), *self.directory.glob("removing-*")]:
            digest = f"sha256:{place.name.split('-')[1]}"
            if place.name.startswith("removing-") or digest == own:
                _remove(place)
            elif (lock := try_lock(self._lock_file(digest))) is not None:
                with lock:
                    _remove(place)
        names = sorted((self.directory / "names").iterdir(), key=_changed)
        for name in names[:-_NAMES_MAX]:
            name.unlink(missing_ok=True)

    def _evict(self, digest: str) -> bool:
        lock = try_lock(self._lock_file(digest))
        if lock is None:
            return False
        with lock:
            self._move_out(self._entry(digest))
            lock.remove()
        return True

    def _move_out(self, entry: Path) -> None:
        place = Path(tempfile.mkdtemp(prefix=f"removing-{entry.name}-", dir=self.directory))
        with suppress(FileNotFoundError):
            entry.rename(place / "entry")
        _remove(place)

    # --- places ------------------------------------------------------------------------------

    def _make(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.directory.lstat()
            for name in ("entries", "names", "locks"):
                (self.directory / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise OperatorError(
                f"the image cache {self.directory} can't be made: {error.strerror}"
            ) from error
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise OperatorError(
                f"the image cache {self.directory} may be written by others; name a directory of "
                "the pilot's own"
            )

    def _places(self) -> list[Path]:
        return list((self.directory / "entries").iterdir())

    def _entry(self, digest: str) -> Path:
        return self.directory / "entries" / _hex(digest)

    def _name(self, name: str) -> Path:
        return self.directory / "names" / f"{_hashed(name)}.json"

    def _lock_file(self, name: str) -> Path:
        called = _hex(name) if name.startswith("sha256:") else _hashed(name)
        return self.directory / "locks" / f"{called}.lock"

    def _read(self, place: Path) -> Entry | None:
        return _read_as(place / "entry.json", Entry)


def _read_as(path: Path, kind: type[_Kind]) -> _Kind | None:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_ENTRY_BYTES_MAX), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _write_whole(path: Path, data: bytes) -> None:
    fd, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    Path(temporary).replace(path)


def _sync(place: Path) -> None:
    """Bring all of a file system to its disk: one call, where a tree has many thousand files."""
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(place))
    finally:
        os.close(fd)


def _sync_directory(place: Path) -> None:
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(place: Path) -> None:
    with suppress(OperatorError):  # another process sweeps it, too, or the next one will
        remove_tree(place)


def _used(place: Path) -> int:
    return _changed(place / "entry.json")


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _hashed(name: str) -> str:
    return "name-" + hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
