"""Files that a job may have tampered with: read only what is plain, remove whatever is there.

A payload can leave links, pipes that block whoever opens them, trees deeper than any path may
be long, and directories without rights. None of these is followed, waited for or left.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from itertools import count
from pathlib import Path

from transport.errors import OperatorError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def read_plain(path: Path, *, bytes_max: int) -> bytes:
    """Return the end of a regular file; raises `OSError` for anything that isn't one."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(22, "not a regular file", str(path))
        file.seek(max(0, status.st_size - bytes_max))
        return file.read(bytes_max)


def is_plain_directory(path: Path) -> bool:
    """Tell whether this is a directory itself, not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def remove_tree(path: Path) -> None:
    """Remove a directory and all below it, however deep, whatever its modes; no link is followed.

    Sub-directories are moved up to the top before they are emptied, so that neither the depth
    nor a path's length matters. Raises `OperatorError` when something stays.
    """
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
        path.chmod(0o700)
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OperatorError(f"{path} can't be removed: {error.strerror}") from error
    try:
        _empty(top)
        path.rmdir()
    except OSError as error:
        raise OperatorError(f"{path} can't be removed: {error.strerror}") from error
    finally:
        os.close(top)


def _empty(top: int) -> None:
    numbers = count()
    left = _unlink_files(top)
    while left:
        name = left.pop()
        with suppress(OSError):
            os.chmod(name, 0o700, dir_fd=top)
        below = os.open(name, _DIRECTORY, dir_fd=top)
        try:
            for child in _unlink_files(below):
                # To be moved a directory must be writable itself: its ".." changes.
                os.chmod(child, 0o700, dir_fd=below)
                moved = f".removing-{os.getpid()}-{next(numbers)}"
                os.rename(child, moved, src_dir_fd=below, dst_dir_fd=top)
                left.append(moved)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=top)


def _unlink_files(directory: int) -> list[str]:
    """Unlink what isn't a directory; return the names of those that are."""
    directories = []
    with os.scandir(directory) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=directory)
    return directories
