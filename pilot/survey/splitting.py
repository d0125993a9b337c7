"""Dividing a stream of bytes into reports, with a bound on what is held of it. Pure.

Three forms are known by their first bytes:

* JSON lines, a report a line: what `pilot probe --json` prints, put together with `cat`. A line
  that is broken costs that line.
* One array of reports. Its brackets and strings are followed, nothing else; so it may be longer
  than any memory.
* Indented objects, one after the other. As their first lines are a lone ``{``, which an indented
  object never has inside, one that was cut off ends where the next begins.

What is divided isn't judged here: whether a piece is JSON, its decoder says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

REPORT_BYTES_MAX = 1 << 20
_LINE_BYTES_MAX = 4 << 30
_CHUNK_BYTES = 1 << 18
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BETWEEN = b" \t\r\n,[]"
_INDENTED = re.compile(rb"\{[ \t\r]*\n(?P<indent>[ \t]?)")
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}"]', re.DOTALL)


class Piece(NamedTuple):
    """Where it begins, and its bytes; None when there were more than a report may have."""

    line: int
    text: bytes | None


def split(stream: BinaryIO, bytes_max: int = REPORT_BYTES_MAX) -> Iterator[Piece]:
    """Yield what each report of a stream is made of; reads as it goes."""
    head = stream.readline(bytes_max + 1)
    head = head.removeprefix(_BYTE_ORDER_MARK)
    blank_lines = 0
    while head and not head.strip():
        blank_lines += head.count(b"\n")
        head = stream.readline(bytes_max + 1)
    if head.lstrip().startswith(b"["):
        scanner = _Scanner(blank_lines + 1, bytes_max, is_indented=False)
        yield from scanner.pieces(stream, head)
    elif _INDENTED.fullmatch(head.lstrip()):
        head += stream.readline(bytes_max + 1)
        is_indented = bool((found := _INDENTED.match(head.lstrip())) and found["indent"])
        scanner = _Scanner(blank_lines + 1, bytes_max, is_indented=is_indented)
        yield from scanner.pieces(stream, head)
    else:
        yield from _lines(stream, head, blank_lines + 1, bytes_max)


def _lines(stream: BinaryIO, line: bytes, number: int, bytes_max: int) -> Iterator[Piece]:
    while line:
        if len(line) > bytes_max and not line.endswith(b"\n"):
            yield Piece(number, None)
            if not _skip_line(stream):
                return
        elif stripped := line.strip():
            yield Piece(number, stripped)
        line = stream.readline(bytes_max + 1)
        number += 1


def _skip_line(stream: BinaryIO) -> bool:
    """Read to the line's end; False for a line that seems to have none."""
    skipped = 0
    while skipped < _LINE_BYTES_MAX:
        part = stream.readline(_CHUNK_BYTES)
        if not part or part.endswith(b"\n"):
            return True
        skipped += len(part)
    return False


class _Scanner:
    """Finds top-level objects by their brackets."""

    def __init__(self, line: int, bytes_max: int, *, is_indented: bool) -> None:
        self._line = line
        self._bytes_max = bytes_max
        self._is_indented = is_indented
        self._rest = b""
        self._at = 0  # up to here the rest was looked at
        self._depth = 0

    def pieces(self, stream: BinaryIO, head: bytes) -> Iterator[Piece]:
        """Yield the objects, and what stands between them but shouldn't."""
        chunk = head
        while chunk:
            self._rest += chunk
            yield from self._found()
            if len(self._rest) > self._bytes_max:
                yield Piece(self._line, None)
                return
            chunk = stream.read(_CHUNK_BYTES)
        if left := self._rest.strip(_BETWEEN):
            yield Piece(self._line + self._lines_before(left), left)

    def _found(self) -> Iterator[Piece]:
        begin = 0  # of what hasn't been given out yet
        position = self._at
        while token := _TOKEN.search(self._rest, position):
            kind = token[0]
            if kind == b'"':  # A string that goes on in the next chunk.
                position = token.start()
                break
            position = token.end()
            if kind == b"{":
                if self._depth and self._is_indented and self._is_first(token.start()):
                    self._depth = 0  # The one before was cut off.
                if not self._depth:
                    yield from self._piece(begin, token.start())
                    begin = token.start()
                self._depth += 1
            elif kind == b"}" and self._depth:
                self._depth -= 1
                if not self._depth:
                    yield from self._piece(begin, position)
                    begin = position
        else:
            position = len(self._rest)
        self._rest, self._at = self._rest[begin:], position - begin

    def _piece(self, begin: int, end: int) -> Iterator[Piece]:
        text = self._rest[begin:end]
        if stripped := text.strip(_BETWEEN):
            before = text[: text.index(stripped)].count(b"\n")
            is_short = len(stripped) <= self._bytes_max
            yield Piece(self._line + before, stripped if is_short else None)
        self._line += text.count(b"\n")

    def _is_first(self, position: int) -> bool:
        return self._rest[position - 1 : position] == b"\n"

    def _lines_before(self, text: bytes) -> int:
        return self._rest[: self._rest.index(text)].count(b"\n")
