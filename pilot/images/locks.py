"""Locks between processes that a dead one can't leave behind: flock on a file.

The file may be removed by who holds it exclusively, so whoever gets a lock looks whether the
file is still the one of that name, and otherwise begins again.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from transport.errors import OperatorError

_POLL_S = 0.05


class FileLock:
    """A lock that is held; a context manager that gives it back at the end."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def none(cls) -> FileLock:
        """Return one that locks nothing, for what needs no lock."""
        return cls(Path(os.devnull), -1)

    def fileno(self) -> int:
        """Return its descriptor: a process that inherits it holds the lock as well."""
        return self._fd

    def close(self) -> None:
        """Give it back; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Remove the file of a lock that is held exclusively."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def try_lock(path: Path, *, is_shared: bool = False) -> FileLock | None:
    """Return the lock, or None where another process has it; never waits."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        if _is_still_there(path, fd):
            return FileLock(path, fd)
        os.close(fd)


def wait_lock(path: Path, *, is_shared: bool = False, timeout_s: float) -> FileLock:
    """Return the lock once it is to be had.

    It blocks, so not in an event loop; raises `OperatorError` after ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while (lock := try_lock(path, is_shared=is_shared)) is None:
        if time.monotonic() >= deadline:
            raise OperatorError(
                f"another process has held {path} for more than {timeout_s:g} s; find it with fuser"
            )
        wait_a_moment()
    return lock


def wait_a_moment() -> None:
    """Wait before trying a lock again; blocks."""
    time.sleep(_POLL_S)


def _is_still_there(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
