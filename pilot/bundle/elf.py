"""As much of the ELF format as a bundle needs: the loader that is asked for, and what is loaded.

A program is loaded by its segments. What lies behind the last of them, symbols and what a
debugger wants, can be cut off: no program named ``strip`` is needed for that.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

_MAGIC = b"\x7fELF\x02\x01"
"""A 64-bit file, little-endian: no other is made of a Python by this pilot."""
_HEADER_BYTES = 64
_PT_INTERP = 3


def requested_loader(elf: Path) -> Path | None:
    """Return the dynamic loader that a 64-bit ELF file names; None where it names none."""
    with elf.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        for place in _entries(header):
            file.seek(place)
            kind, offset, size = _segment(file.read(40))
            if kind == _PT_INTERP:
                file.seek(offset)
                return Path(os.fsdecode(file.read(size).rstrip(b"\0")))
    return None


def loaded_part(content: bytes) -> bytes:
    """Return an ELF file up to the end of its last segment, without its table of sections."""
    entries = list(_entries(content[:_HEADER_BYTES]))
    if not entries:
        return content
    end = entries[-1] + 56
    for place in entries:
        _, offset, size = _segment(content[place : place + 40])
        end = max(end, offset + size)
    cut = bytearray(content[:end])
    struct.pack_into("<Q", cut, 40, 0)  # where the sections' table is, then how many there are
    struct.pack_into("<HH", cut, 60, 0, 0)
    return bytes(cut)


def _entries(header: bytes) -> Iterator[int]:
    """Yield where each entry of the segments' table is; nothing for another kind of file."""
    if len(header) == _HEADER_BYTES and header.startswith(_MAGIC):
        (table,) = struct.unpack_from("<Q", header, 32)
        entry_bytes, count = struct.unpack_from("<HH", header, 54)
        yield from (table + index * entry_bytes for index in range(count))


def _segment(entry: bytes) -> tuple[int, int, int]:
    kind, _, offset, _, _, size = struct.unpack("<IIQQQQ", entry)
    return kind, offset, size
