"""Where reports come from: files, directories, stdin; plain or compressed with gzip.

Everything that can't be read is a `Trouble`, and the next one is read. Within a directory only
regular files with a known ending are read, and a directory that links lead to twice is read
once, so that a link to its own parent ends there.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple, cast

from pilot.survey.splitting import REPORT_BYTES_MAX, Piece, split

STDIN = "-"
ENDINGS = tuple(
    f"{ending}{packed}" for ending in (".json", ".jsonl", ".ndjson") for packed in ("", ".gz")
)
_GZIP_MAGIC = b"\x1f\x8b"
_TOO_LONG = f"it is longer than a report may be ({REPORT_BYTES_MAX:,} bytes)"


class Found(NamedTuple):
    """A report as it was written, and its place."""

    file: str
    line: int
    text: bytes


class Trouble(NamedTuple):
    """Why something wasn't counted. Line 0 is the file itself."""

    file: str
    line: int
    reason: str


def found_in(paths: Iterable[str]) -> Iterator[Found | Trouble]:
    """Yield the reports in these files and directories ("-" is stdin), one after the other."""
    for path in paths:
        if path == STDIN:
            yield from _read("stdin", lambda: os.fdopen(os.dup(0), "rb"))
        elif os.path.isdir(path):
            yield from _in_directory(path)
        else:
            yield from _in_file(path)


def _in_directory(top: str) -> Iterator[Found | Trouble]:
    troubles: list[Trouble] = []
    seen: set[tuple[int, int]] = set()

    def not_readable(error: OSError) -> None:
        troubles.append(Trouble(str(error.filename), 0, _why(error)))

    for directory, names, file_names in os.walk(top, onerror=not_readable, followlinks=True):
        names[:] = [name for name in sorted(names) if _is_new(os.path.join(directory, name), seen)]
        for name in sorted(file_names):
            path = os.path.join(directory, name)
            if name.lower().endswith(ENDINGS):
                yield from _in_regular_file(path)
        yield from troubles
        troubles.clear()
    yield from troubles


def _is_new(directory: str, seen: set[tuple[int, int]]) -> bool:
    try:
        status = os.stat(directory)
    except OSError:
        return True  # The walk meets the same error, and names it.
    known = (status.st_dev, status.st_ino)
    is_new = known not in seen
    seen.add(known)
    return is_new


def _in_regular_file(path: str) -> Iterator[Found | Trouble]:
    """Read a file that nobody named: a pipe, say, would be waited for without end."""
    try:
        is_regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        yield Trouble(path, 0, _why(error))
        return
    if is_regular:
        yield from _in_file(path)
    else:
        yield Trouble(path, 0, "it isn't a regular file")


def _in_file(path: str) -> Iterator[Found | Trouble]:
    return _read(path, lambda: open(path, "rb"))


def _read(name: str, opened: Callable[[], BinaryIO]) -> Iterator[Found | Trouble]:
    is_empty = True
    try:
        with opened() as file:
            for piece in split(_unpacked(file)):
                is_empty = False
                yield _told(name, piece)
    except (OSError, EOFError, zlib.error) as error:
        yield Trouble(name, 0, _why(error))
    else:
        if is_empty:
            yield Trouble(name, 0, "it is empty")


def _told(name: str, piece: Piece) -> Found | Trouble:
    if piece.text is None:
        return Trouble(name, piece.line, _TOO_LONG)
    return Found(name, piece.line, piece.text)


def _unpacked(file: BinaryIO) -> BinaryIO:
    """Return the stream without its compression, if it has one; by its first bytes."""
    buffered = cast("io.BufferedReader", file)
    if buffered.peek(2)[:2] != _GZIP_MAGIC:
        return file
    return cast("BinaryIO", io.BufferedReader(gzip.GzipFile(fileobj=file), 1 << 16))


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"it can't be read: {error.strerror}"
    return f"it can't be unpacked: {error}"
