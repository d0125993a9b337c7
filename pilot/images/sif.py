"""Where in a SIF file the root file system lies.

The format is Sylabs', version 01 (sylabs/sif, pkg/sif/sif.go: the structs Header, Descriptor and
Partition; integers are little-endian, nothing is padded):

    32 s  launch line, #!/usr/bin/env run-singularity
    10 s  magic, SIF_MAGIC     3 s  version     3 s  architecture     16 s  UUID
     2 q  times                 6 q  descriptors free, in all; their offset, length; data's

    a descriptor, 585 bytes: i data type, B used, 3 I ids, 3 q offset, length, room,
    4 q times and owners, 128 s name, 384 s of the type's own; for a partition (0x4004)
    that begins with i file system, i kind: 2 is the primary system
"""

from __future__ import annotations

import struct
from enum import IntEnum

from transport.messages import Record

SIF_HEAD_BYTES = 65536
"""What is to be read of a file: Apptainer's 48 descriptors end at 32,176."""
_MAGIC_AT = 32
_MAGIC = b"SIF_MAGIC\x00"
_HEADER = struct.Struct("<32s10s3s3s16s8q")
_DESCRIPTOR = struct.Struct("<iB3I7q128sii376s")
_PARTITION = 0x4004
_PRIMARY_SYSTEM = 2
_DESCRIPTORS_MAX = 100


class SifFileSystem(IntEnum):
    """What a partition is formatted with."""

    SQUASHFS = 1
    EXT3 = 2
    ARCHIVE = 3
    RAW = 4
    ENCRYPTED_SQUASHFS = 5


class SystemPartition(Record, frozen=True, kw_only=True):
    """The primary system partition of a SIF file."""

    file_system: SifFileSystem
    offset: int
    length: int


def is_sif(head: bytes) -> bool:
    """Return whether a file that begins like this is one."""
    return head[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC


def system_partition(head: bytes) -> SystemPartition | None:
    """Return where the root file system is; None where the head of the file doesn't say it."""
    if not is_sif(head) or len(head) < _HEADER.size:
        return None
    total, descriptors_at = _HEADER.unpack_from(head)[8:10]
    for number in range(min(max(total, 0), _DESCRIPTORS_MAX)):
        at = descriptors_at + number * _DESCRIPTOR.size
        if not 0 <= at <= len(head) - _DESCRIPTOR.size:
            return None
        fields = _DESCRIPTOR.unpack_from(head, at)
        kind, is_used, offset, length = fields[0], fields[1], fields[5], fields[6]
        file_system, partition = fields[13], fields[14]
        if is_used and kind == _PARTITION and partition == _PRIMARY_SYSTEM:
            return _partition(file_system, offset, length)
    return None


def _partition(file_system: int, offset: int, length: int) -> SystemPartition | None:
    if file_system not in set(SifFileSystem) or offset <= 0 or length <= 0:
        return None
    return SystemPartition(file_system=SifFileSystem(file_system), offset=offset, length=length)
