"""What an entry of a layer means, decided from its name alone; and how much an image may be.

A layer is a tar file that is laid over those before it. A file ``.wh.NAME`` (a whiteout) says
that NAME of a lower layer is gone, ``.wh..wh..opq`` that the directory begins empty; other
names with ``.wh..wh.`` are notes of a file system and mean nothing. Both apply to lower layers
only, wherever they stand in the tar file. A name may begin with ``/`` or ``./``, which mean the
image's root, but not climb: ``..`` is refused, in a whiteout's NAME too.
"""

from __future__ import annotations

import os
import stat

from transport.errors import UserError
from transport.messages import Record

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_NOTE = ".wh..wh."
_NAME_BYTES_MAX = 255
_BLOCK_BYTES = 4096


class Member(Record, frozen=True, kw_only=True):
    """An ordinary entry: a file, directory or link at this place; no parts mean the root."""

    parts: tuple[str, ...]


class Whiteout(Record, frozen=True, kw_only=True):
    """What lower layers have here is gone."""

    parts: tuple[str, ...]


class Opaque(Record, frozen=True, kw_only=True):
    """What lower layers have in this directory is gone."""

    parts: tuple[str, ...]


def meaning(name: str) -> Member | Whiteout | Opaque | None:
    """Return what an entry of this name means, None for nothing.

    Raises `UserError` (a fragment of a sentence) for a name that leads out of the image.
    """
    parts = split_name(name)
    if not parts or not parts[-1].startswith(_WHITEOUT):
        return Member(parts=parts)
    *parents, last = parts
    if last == _OPAQUE:
        return Opaque(parts=tuple(parents))
    if last.startswith(_NOTE):
        return None
    hidden = last.removeprefix(_WHITEOUT)
    if hidden in ("", ".", ".."):
        raise UserError(f"a layer holds a whiteout of nothing: {_shown(name)}")
    return Whiteout(parts=(*parents, hidden))


def split_name(name: str) -> tuple[str, ...]:
    """Return a name's parts; raises `UserError` for one that leads out, or can't be a file's."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise UserError(f"a layer holds a name that leads out of the image: {_shown(name)}")
    if "\0" in name or any(len(os.fsencode(part)) > _NAME_BYTES_MAX for part in parts):
        raise UserError(f"a layer holds a name that no file can have: {_shown(name)}")
    return parts


def kept_mode(mode: int, *, is_directory: bool) -> int:
    """Return the rights that an unpacked file gets: its own, and always ours to read and remove.

    Nobody else may write, and no program changes its user: the image's owner isn't ours.
    """
    needed = stat.S_IRWXU if is_directory else stat.S_IRUSR | stat.S_IWUSR
    return (mode & 0o755) | needed


class Budget:
    """Counts what an image takes, and ends it where that is too much."""

    def __init__(self, bytes_max: int, entries_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries_max = entries_max
        self.bytes = 0
        self.entries = 0

    @property
    def stream_bytes_max(self) -> int:
        """What layers may be, unpacked: more than the files by headers and padding."""
        return self._bytes_max + self._entries_max * _BLOCK_BYTES

    def take(self, size: int) -> None:
        """Count one entry of this size; raises `UserError` where it is one too many."""
        self.entries += 1
        self.bytes += -(-size // _BLOCK_BYTES) * _BLOCK_BYTES + _BLOCK_BYTES // 8
        if self.bytes > self._bytes_max:
            raise UserError(
                f"unpacked it is more than {self._bytes_max} bytes, which is the most that this "
                "node keeps of images"
            )
        if self.entries > self._entries_max:
            raise UserError(f"it has more than {self._entries_max} files and directories")


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 100 else f"{name[:97]}...")
