"""Laying an image's layers over each other in a directory, whatever is in them.

This runs in a helper process as the pilot's own user: owners and devices are left out, rights
are kept as far as `pilot.images.layers.kept_mode` says. An entry's parent directories are
followed as a process in the image would see them: a symlink of an earlier layer leads on, but
from the image's root and never above it. The last part of a name is never followed; what is
there already is removed first, so nothing is written through a link.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, cast

from pilot.images.layers import (
    Budget,
    Member,
    Opaque,
    Whiteout,
    kept_mode,
    meaning,
    split_name,
)
from pilot.plain_files import remove_tree
from transport.errors import UserError

_LINKS_MAX = 40
_CHUNK_BYTES = 1 << 20
_TIME_MAX = 2**33
_OF_THE_LAYER = frozenset(
    (
        errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EMLINK,
        errno.ENAMETOOLONG, errno.ELOOP, errno.EILSEQ,
    )
)  # fmt: skip
"""Errors for which the layer is the reason and not the node's disk."""
_MOUNT_POINTS = ("dev", "proc", "sys", "tmp", "var/tmp", "mnt", "home", "root", "etc")
"""What runtimes mount things on; images from registries often lack some."""


class Tree:
    """A directory that layers are unpacked into, one after the other."""

    def __init__(self, root: Path, budget: Budget) -> None:
        """``root`` is an empty directory that nobody else writes to."""
        self._root = str(root)
        self._budget = budget
        self._directories: set[str] = set()
        self._own: set[str] = set()

    def add_layer(self, file: IO[bytes], diff_id: str) -> None:
        """Lay one layer over what is there; ``diff_id`` is the digest that it has, unpacked.

        Raises `UserError` (a fragment of a sentence) for one that is broken or hostile.
        """
        self._own = set()
        with _explained():
            stream = _Unpacked(_decompressed(file), self._budget.stream_bytes_max)
            with tarfile.open(
                fileobj=cast(IO[bytes], stream), mode="r|", errors="surrogateescape"
            ) as tar:
                while (member := tar.next()) is not None:
                    self._add(tar, member)
                    # It keeps each, and a layer may have a million.
                    tar.members = []  # type: ignore[attr-defined] # the stubs leave it out
            stream.read_to_the_end()
        if stream.digest != diff_id:
            raise UserError(
                f"a layer is {stream.digest}, unpacked, and {diff_id} is what it should be; "
                "push the image again"
            )

    def add_mount_points(self) -> None:
        """Make the directories that runtimes mount things on, where the image has none."""
        for name in _MOUNT_POINTS:
            with _explained():
                parent = self._parent(tuple(name.split("/")))
                path = f"{parent}/{name.rpartition('/')[2]}"
                if not os.path.lexists(path):
                    os.mkdir(path, 0o755)

    # --- one entry ---------------------------------------------------------------------------

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if member.size < 0:
            raise UserError("a layer holds a file of less than no bytes")
        self._budget.take(member.size if member.isreg() else 0)
        match meaning(member.name):
            case Whiteout(parts=parts):
                self._hide(parts)
            case Opaque(parts=parts):
                self._hide_all(parts)
            case Member(parts=parts) if parts:
                self._put(parts, tar, member)
            case _:
                pass

    def _put(self, parts: tuple[str, ...], tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        writers: dict[Callable[[], bool], Callable[[str], None]] = {
            member.isreg: lambda path: _write(path, tar, member),
            member.isdir: lambda path: _make_directory(path, member.mode),
            member.issym: lambda path: os.symlink(member.linkname, path),
            member.islnk: lambda path: self._link(path, member.linkname),
        }
        write = next((write for fits, write in writers.items() if fits()), None)
        if write is None:
            return  # a device or pipe, which is the runtime's to make
        path = f"{self._parent(parts)}/{parts[-1]}"
        self._own_all(path)
        if not (member.isdir() and _is_directory(path)):
            self._remove(path)
        write(path)

    def _link(self, path: str, name: str) -> None:
        parts = split_name(name)
        parent = self._find(parts[:-1])
        target = f"{parent}/{parts[-1]}" if parts else ""
        if parent is None or not os.path.lexists(target) or _is_directory(target):
            raise UserError(f"a layer holds a link to a file that isn't there: {name[:100]!a}")
        os.link(target, path, follow_symlinks=False)

    # --- whiteouts ---------------------------------------------------------------------------

    def _hide(self, parts: tuple[str, ...]) -> None:
        parent = self._find(parts[:-1])
        if parent is not None:
            self._remove_lower([f"{parent}/{parts[-1]}"])

    def _hide_all(self, parts: tuple[str, ...]) -> None:
        directory = self._find(parts)
        if directory is not None:
            self._remove_lower([f"{directory}/{name}" for name in os.listdir(directory)])

    def _remove_lower(self, paths: list[str]) -> None:
        """Remove all but what this layer itself has brought."""
        while paths:
            path = paths.pop()
            if path not in self._own:
                self._remove(path)
            elif _is_directory(path):
                paths += [f"{path}/{name}" for name in os.listdir(path)]

    def _remove(self, path: str) -> None:
        if _is_directory(path):
            self._directories.clear()
            remove_tree(Path(path))
        elif os.path.lexists(path):
            os.unlink(path)

    def _own_all(self, path: str) -> None:
        while path != self._root and path not in self._own:
            self._own.add(path)
            path = path.rpartition("/")[0]

    # --- where a name leads ------------------------------------------------------------------

    def _parent(self, parts: tuple[str, ...]) -> str:
        found = self._walk(parts[:-1], makes=True)
        assert found is not None, "what is missing is made"
        return found

    def _find(self, parts: tuple[str, ...]) -> str | None:
        return self._walk(parts, makes=False)

    def _walk(self, parts: Sequence[str], *, makes: bool) -> str | None:
        """Return the real directory, below the root; None where it isn't there."""
        path, left, links = self._root, list(reversed(parts)), 0
        while left:
            part = left.pop()
            if part == "..":
                path = path.rpartition("/")[0] if path != self._root else path
                continue
            inner = f"{path}/{part}"
            target = self._target(inner, makes=makes)
            if target is None:
                return None
            if not target:
                path = inner
                continue
            links += 1
            if links > _LINKS_MAX:
                raise UserError(f"a layer writes through a ring of links at {part[:100]!a}")
            path = self._root if target.startswith("/") else path
            left += [name for name in reversed(target.split("/")) if name not in ("", ".")]
        return path

    def _target(self, path: str, *, makes: bool) -> str | None:
        """Return where a link leads, nothing for a directory; None where there is neither."""
        if path in self._directories:
            return ""
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            if not makes:
                return None
            os.mkdir(path, 0o755)
            self._budget.take(0)
            mode = stat.S_IFDIR
        if stat.S_ISLNK(mode):
            return os.readlink(path)
        if stat.S_ISDIR(mode):
            self._directories.add(path)
            return ""
        if makes:
            name = path.removeprefix(self._root)
            raise UserError(f"a layer puts a file below {name[:100]!a}, which is no directory")
        return None


class _Unpacked:
    """A layer's tar stream: hashed as it is read, and never longer than it may be."""

    def __init__(self, file: IO[bytes], bytes_max: int) -> None:
        self._file = file
        self._left = bytes_max
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise UserError("a layer is far longer, unpacked, than the files in it may be")
        self._hash.update(data)
        return data

    def read_to_the_end(self) -> None:
        while self.read(_CHUNK_BYTES):
            pass


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    """Return the tar stream of a layer, told by its first bytes and not by its media type."""
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if magic == b"\x28\xb5\x2f\xfd":
        return _zstd(file)
    return file


def _zstd(file: IO[bytes]) -> IO[bytes]:
    try:
        module = import_module("compression.zstd")
    except ModuleNotFoundError:
        raise UserError(
            "a layer is packed with zstd, which this node's pilot can't unpack (Python 3.14 can); "
            "push the image with gzip layers"
        ) from None
    return cast(IO[bytes], module.open(file))


def _write(path: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    source = tar.extractfile(member)
    assert source is not None, "a regular file has content"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as target:
        shutil.copyfileobj(source, target, _CHUNK_BYTES)
        if target.tell() != member.size:
            raise UserError("a layer is cut short in the middle of a file; push the image again")
        target.flush()
        os.fchmod(target.fileno(), kept_mode(member.mode, is_directory=False))
        time = member.mtime if 0 <= member.mtime < _TIME_MAX else 0
        os.utime(target.fileno(), (time, time))


def _make_directory(path: str, mode: int) -> None:
    if not os.path.lexists(path):
        os.mkdir(path, 0o700)
    os.chmod(path, kept_mode(mode, is_directory=True))


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what a broken layer does to its readers into a fragment of a sentence."""
    try:
        yield
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"a layer is corrupt ({error}); push the image again") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"a layer holds what no file can be ({error})") from error
    except OSError as error:
        if error.errno in _OF_THE_LAYER:
            raise UserError(f"a layer holds what no file can be ({error.strerror})") from error
        raise
