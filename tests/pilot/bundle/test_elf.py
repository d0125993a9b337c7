from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pilot.bundle.elf import loaded_part, requested_loader


def elf(interpreter: str) -> bytes:
    """Make the part of a 64-bit ELF file that names a loader, after an entry of another kind."""
    name = interpreter.encode() + b"\0"
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, 2)
    other = struct.pack("<IIQQQQQQ", 1, 0, 0, 0, 0, 0, 0, 0)
    entry = struct.pack("<IIQQQQQQ", 3, 0, 64 + 112, 0, 0, len(name), 0, 0)
    return bytes(header) + other + entry + name


def test_the_loader_is_read_from_the_program(tmp_path: Path) -> None:
    """The loader is what the file itself names, in whatever place of its table."""
    program = tmp_path / "program"
    program.write_bytes(elf("/lib/ld-musl-x86_64.so.1"))

    assert requested_loader(program) == Path("/lib/ld-musl-x86_64.so.1")


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(58)])
def test_what_is_no_64_bit_program_names_no_loader(tmp_path: Path, content: bytes) -> None:
    """Scripts, empty files and 32-bit programs have no loader that we could use."""
    program = tmp_path / "program"
    program.write_bytes(content)

    assert requested_loader(program) is None


def test_what_a_debugger_wants_is_cut_off() -> None:
    """All that a segment holds stays; the table of sections, behind it, is gone and unnamed."""
    content = bytearray(elf("/lib/ld.so"))
    loaded = len(content)
    struct.pack_into("<Q", content, 40, loaded + 100)
    struct.pack_into("<HH", content, 60, 7, 6)

    cut = loaded_part(bytes(content) + b"symbols" * 100)

    assert len(cut) == loaded
    assert cut[64:] == bytes(content[64:])
    assert cut[40:48] == bytes(8)
    assert cut[60:64] == bytes(4)


def test_what_is_no_program_stays_as_it_is() -> None:
    """A file of another kind is copied as a whole."""
    assert loaded_part(b"#!/bin/sh\n") == b"#!/bin/sh\n"
