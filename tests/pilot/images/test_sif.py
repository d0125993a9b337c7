"""SIF headers: real ones in the look at images, odd ones here."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.images.sif import (
    SIF_HEAD_BYTES,
    SifFileSystem,
    SystemPartition,
    is_sif,
    system_partition,
)

AT = 4096
"""Where Apptainer puts descriptors."""


def descriptor(
    *,
    kind: int = 0x4004,
    is_used: int = 1,
    offset: int = 36864,
    length: int = 1_000_000,
    file_system: int = 1,
    partition: int = 2,
) -> bytes:
    """Pack a data object's descriptor."""
    common = struct.pack("<iB3I7q", kind, is_used, 1, 1, 0, offset, length, length, 0, 0, 0, 0)
    return common + bytes(128) + struct.pack("<ii", file_system, partition) + bytes(376)


def head(
    *descriptors: bytes, magic: bytes = b"SIF_MAGIC\0", total: int = 48, at: int = AT
) -> bytes:
    """Pack the beginning of a SIF file."""
    launch = b"#!/usr/bin/env run-singularity\n\0"
    header = launch + magic + b"01\0" + b"02\0" + bytes(16)
    header += struct.pack("<8q", 0, 0, 45, total, at, 48 * 585, 32176, 0)
    return (header.ljust(AT, b"\0") + b"".join(descriptors)).ljust(SIF_HEAD_BYTES, b"\0")


def test_the_primary_system_is_found_among_others() -> None:
    """A definition file, a data partition and one that was deleted come before it."""
    data = head(
        descriptor(kind=0x4001),
        descriptor(partition=3),
        descriptor(is_used=0),
        descriptor(offset=40960, length=123, file_system=5),
    )

    assert is_sif(data)
    assert system_partition(data) == SystemPartition(
        file_system=SifFileSystem.ENCRYPTED_SQUASHFS, offset=40960, length=123
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hsqs" + bytes(5000),
        head(),
        head(descriptor(), magic=b"SIF_MAGIK\0"),
        head(descriptor(partition=1)),
        head(descriptor(), total=0),
        head(descriptor(), total=-1),
        head(descriptor(), at=-5),
        head(descriptor(), at=1 << 60),
        head(descriptor(), at=SIF_HEAD_BYTES),
        head(descriptor(file_system=9)),
        head(descriptor(offset=-1)),
        head(descriptor(length=0)),
        head(descriptor())[: AT + 100],
        head(descriptor())[:64],
    ],
)
def test_a_head_that_does_not_say_is_unknown(data: bytes) -> None:
    """Cut short, of another format, or made up by somebody."""
    assert system_partition(data) is None


@given(st.binary(max_size=2000), st.integers(0, AT + 585))
def test_no_head_is_too_odd(noise: bytes, at: int) -> None:
    """Whatever stands in it, the answer is a partition or none."""
    good = head(descriptor())
    found = system_partition(good[:at] + noise + good[at + len(noise) :])

    assert found is None or found.offset > 0
