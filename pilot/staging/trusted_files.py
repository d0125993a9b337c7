"""Opening what a payload left, and making files that are whole or not there.

What must stay true, of all staging:

* The payload is not trusted, and may still be running. What it left is opened one component
  at a time, never through a symbolic link; a link is resolved first, and used only when it
  ends within the work directory. What isn't a regular file is never waited for. The work and
  output directories' own places may hold no link either: that is the operator's to look at.
* What a payload can make the wrapper do is bounded: files, bytes and notes.
* A file takes its final name only when it is whole; until then it has one that nobody can
  guess, so no other file is in its way, or it in another's. Checksums are of the bytes as
  written; an archive's, which isn't written in order, are of the file as read again before it
  is named.
* What can't be *read* costs that one file, and a note to the job's owner; what can't be
  *written* ends the staging, as the operator's error.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from transport.errors import OperatorError, UserError

_CHUNK_BYTES = 1 << 20

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


_IS_DIRECTORY = "it is a directory; name the files in it"


class Unreadable(Exception):
    """Raised when a file can't be read; the text goes into a sentence that names the file."""


class Stopped(Exception):
    """Raised in the thread when nobody waits for its work any more."""


class Sink:
    """Where a new file's bytes go, counted and summed on the way.

    Who can't write them in order writes to ``file`` itself, and then calls `sum_anew`.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.is_wanted = True
        self._start()

    def write(self, data: bytes) -> int:
        """Write all of it."""
        self.file.write(data)
        self._count(data)
        return len(data)

    def sum_anew(self, stop: threading.Event) -> None:
        """Count and sum the whole file, by reading it; raises `Stopped` between two chunks."""
        self._start()
        self.file.seek(0)
        check_wanted(stop)
        while chunk := self.file.read(_CHUNK_BYTES):
            self._count(chunk)
            check_wanted(stop)

    def _start(self) -> None:
        self._sha256 = hashlib.sha256()
        self._adler32 = zlib.adler32(b"")
        self.bytes = 0

    def _count(self, data: bytes) -> None:
        self._sha256.update(data)
        self._adler32 = zlib.adler32(data, self._adler32)
        self.bytes += len(data)

    @property
    def sha256(self) -> str:
        """In hexadecimal, of what was counted so far."""
        return self._sha256.hexdigest()

    @property
    def adler32(self) -> str:
        """In hexadecimal, of what was counted so far."""
        return f"{self._adler32:08x}"


def check_wanted(stop: threading.Event) -> None:
    """Raise `Stopped` once nobody waits any more; to be called between two steps."""
    if stop.is_set():
        raise Stopped


def parts_inside(name: str) -> tuple[str, ...]:
    """Split a relative name; nothing is left of one that would leave its directory."""
    parts = PurePosixPath(name).parts
    is_inside = ".." not in parts and not name.startswith("/") and "\0" not in name
    return parts if is_inside else ()


def inside(name: str, what: str) -> str:
    """Return a relative name in its plain form; raises `UserError` where it would lead out."""
    parts = parts_inside(name)
    if not parts:
        raise UserError(f"{what} {name!r} can't be called so: give it a name inside its directory.")
    return "/".join(parts)


def open_directory(root: str, parts: Sequence[str], *, create: bool = False) -> int:
    """Open a directory below ``root``, following no symbolic link there or below it.

    Raises `OperatorError` when ``root`` itself is a link, or else no directory.
    """
    held = _open_root(root)
    for part in parts:
        above = held
        try:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=above)
            held = os.open(part, _DIRECTORY, dir_fd=above)
        finally:
            os.close(above)
    return held


def _open_root(root: str) -> int:
    root = root.rstrip("/") or "/"  # a slash at its end would have a link followed
    try:
        return os.open(root, _DIRECTORY)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise OperatorError(
            f"{root} is not a directory, or a link stands in its place. Look at who put it there."
        ) from error


def sync_directory(root: str, parts: Sequence[str]) -> None:
    """Have the names in a directory below ``root`` outlive a crash of the machine; it blocks."""
    directory = open_directory(root, parts)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def real_place(directory: str) -> str:
    """Resolve the way to a directory, but not what stands in its own place."""
    above, name = os.path.split(directory.rstrip("/"))
    return os.path.join(os.path.realpath(above), name)


def open_inside(root: str, path: str) -> BinaryIO:
    """Open a regular file that ends within ``root``, itself a `real_place`."""
    real = Path(os.path.realpath(f"{root}/{path}"))
    if real == Path(root):
        raise Unreadable(_IS_DIRECTORY)
    if not real.is_relative_to(root):
        raise Unreadable("it is a symbolic link that leaves the work directory")
    directory = open_directory(root, real.parent.relative_to(root).parts)
    try:
        _check_regular(os.stat(real.name, dir_fd=directory, follow_symlinks=False))
        return regular_file(os.open(real.name, READ | os.O_NOFOLLOW, dir_fd=directory))
    finally:
        os.close(directory)


def regular_file(descriptor: int) -> BinaryIO:
    """Return the open file if it is a regular one; else close it."""
    try:
        _check_regular(os.fstat(descriptor))
    except Unreadable:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb", buffering=0)


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise Unreadable(_IS_DIRECTORY)
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("it is not a regular file")


def chunks(source: BinaryIO, limit: int | None, stop: threading.Event) -> Iterator[bytes]:
    """Read up to ``limit`` bytes, or to the end."""
    left = limit
    while left is None or left > 0:
        check_wanted(stop)
        try:
            chunk = source.read(_CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES))
        except OSError as error:
            raise Unreadable(error.strerror) from error
        if not chunk:
            return
        left = None if left is None else left - len(chunk)
        yield chunk


@contextmanager
def new_file(
    root: str, name: str, *, mode: int = 0o644, is_durable: bool = False
) -> Iterator[Sink]:
    """Give a file below ``root`` its final name when the block ends well, and no file else.

    That a durable one's bytes outlive a crash is seen to here; for its name, `sync_directory`.
    """
    from secrets import token_hex

    part = f".staging.{token_hex(8)}.part"
    *parents, last = PurePosixPath(name).parts
    directory = open_directory(root, parents, create=True)
    try:
        with os.fdopen(os.open(part, _CREATE, mode, dir_fd=directory), "w+b") as file:
            is_named = False
            try:
                sink = Sink(file)
                yield sink
                file.flush()
                if is_durable:
                    os.fsync(file.fileno())
                if sink.is_wanted:
                    os.rename(part, last, src_dir_fd=directory, dst_dir_fd=directory)
                    is_named = True
            finally:
                if not is_named:
                    with suppress(FileNotFoundError):
                        os.unlink(part, dir_fd=directory)
    finally:
        os.close(directory)


_NAME_ERRORS = frozenset(
    {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST, errno.EILSEQ}
)


@contextmanager
def destination(what: str) -> Iterator[None]:
    """Say who must act when a file can't be written: its name is the user's, the disk isn't."""
    try:
        yield
    except OSError as error:
        sentence = f"{what} can't be written: {error.strerror}."
        if error.errno in _NAME_ERRORS:
            raise UserError(f"{sentence} Give it a name that is free.") from error
        raise OperatorError(f"{sentence} Look at the space and the rights there.") from error
