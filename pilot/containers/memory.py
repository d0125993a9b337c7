"""What was verified on this node, kept in a file for the pilots that come after.

A verification is remembered by a digest of all that it depends on: change the runtime's
program, its configuration, the kernel, the image or the bundle, and it is another key. So a
success stays true for as long as it is kept; a failure is kept for some minutes only, as a
busy node may fail once. The file is a cache: one that can't be read is as good as none, and
of two pilots that write at once one wins.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from pilot.containers.check import Verification
from pilot.plain_files import read_plain
from transport.messages import Record

FAILURE_KEPT_S = 300.0
SUCCESS_KEPT_S = 86400.0
REMEMBERED_MAX = 256
_BYTES_MAX = 4 * 1024 * 1024


class Remembered(Record, frozen=True, kw_only=True):
    """A verification, and when it was made (Unix time)."""

    verification: Verification
    at: float

    def is_fresh(self, now: float) -> bool:
        """Return whether it still counts; one from the future doesn't."""
        kept_s = SUCCESS_KEPT_S if self.verification.works else FAILURE_KEPT_S
        return 0 <= now - self.at < kept_s


def key_of(facts: Mapping[str, object]) -> str:
    """Return the key of a verification that depends on these facts."""
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


class Memory:
    """Verifications by key: in memory, and in a file if one is given."""

    def __init__(self, file: Path | None = None) -> None:
        """Read the file; it blocks for as long as a local disk does."""
        self._file = file
        self._entries: dict[str, Remembered] = {} if file is None else _read(file)

    def get(self, key: str, now: float) -> Verification | None:
        """Return what is remembered, None where that is nothing or too old."""
        entry = self._entries.get(key)
        return entry.verification if entry is not None and entry.is_fresh(now) else None

    def put(self, key: str, verification: Verification, now: float) -> None:
        """Remember; the oldest goes where there are too many."""
        self._entries.pop(key, None)
        self._entries[key] = Remembered(verification=verification, at=now)
        while len(self._entries) > REMEMBERED_MAX:
            del self._entries[next(iter(self._entries))]
        if self._file is not None:
            # A full disk makes the next pilot try again, which is all right.
            with suppress(OSError):
                _write(self._file, self._entries)


def _read(file: Path) -> dict[str, Remembered]:
    try:
        text = read_plain(file, bytes_max=_BYTES_MAX)
        return msgspec.json.decode(text, type=dict[str, Remembered])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _write(file: Path, entries: Mapping[str, Remembered]) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        part.write_bytes(msgspec.json.encode(entries))
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
