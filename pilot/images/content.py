"""What a file is, told by its content: its first bytes, and for SIF its table of contents.

Formats: SIF as sylabs' and Apptainer's library writes it (a launcher line of 32 bytes, the
magic, versions, then a table of descriptors of 585 bytes); squashfs 4 (a superblock of 96
bytes); the image files of Singularity 2, a squashfs behind a launcher line; tar and gzip.
"""

from __future__ import annotations

import struct
from enum import StrEnum

from pilot.containers.runtime import ImageForm
from transport.errors import UserError
from transport.messages import Record

HEAD_BYTES = 512
TABLE_BYTES_MAX = 1 << 20
_SIF = struct.Struct("<32s10s3s3s16s8q")
_SIF_MAGIC = b"SIF_MAGIC\0"
_SIF_ENTRY = struct.Struct("<iBIII7q128s384s")
_SIF_PARTITION = 0x4004
_SIF_SQUASHFS = 1
_SIF_ENCRYPTED = 4
_SIF_SYSTEM = (1, 2)
_SIF_ARCHITECTURES = {
    b"01": "386", b"02": "amd64", b"03": "arm", b"04": "arm64", b"05": "ppc64", b"06": "ppc64le",
    b"07": "mips", b"08": "mipsle", b"09": "mips64", b"10": "mips64le", b"11": "s390x",
    b"12": "riscv64",
}  # fmt: skip
_SQUASHFS = struct.Struct("<4s4I6H8Q")
_SQUASHFS_VERSION = 4
_LAUNCHER = b"#!/usr/bin/env run-singularity\n"


class FileKind(StrEnum):
    """What a file is, as far as images go."""

    SIF = "sif"
    SQUASHFS = "squashfs"
    ARCHIVE = "archive"
    """A tar file: an OCI archive, perhaps."""


class Content(Record, frozen=True, kw_only=True):
    """What the first bytes of a file say."""

    kind: FileKind
    architecture: str = ""
    """As OCI calls it; empty where it isn't said."""
    table_offset: int = 0
    table_bytes: int = 0
    """Of a SIF's table of contents."""
    offset: int = 0
    """Of the squashfs in the file."""

    @property
    def form(self) -> ImageForm:
        """The form of image; only for those that runtimes know."""
        return ImageForm(self.kind.value)


def tell(head: bytes, size: int) -> Content:
    """Return what a file of this size with these first `HEAD_BYTES` is.

    Raises `UserError` (a fragment of a sentence) for what is no image, or is cut short.
    """
    if head[32:42] == _SIF_MAGIC:
        return _sif(head, size)
    for offset in (0, len(_LAUNCHER)):
        if head[offset : offset + 4] == b"hsqs" and (not offset or head.startswith(_LAUNCHER)):
            return _squashfs(head[offset:], size, offset)
    if head[257:262] == b"ustar":
        return Content(kind=FileKind.ARCHIVE)
    raise UserError(_no_image(head, size))


def squashfs_offset(table: bytes) -> int:
    """Return where in a SIF file its system's squashfs begins, given its table of contents.

    Raises `UserError` (a fragment of a sentence) where there is none.
    """
    for at in range(0, len(table) - _SIF_ENTRY.size + 1, _SIF_ENTRY.size):
        kind, is_used, _, _, _, offset, *_, extra = _SIF_ENTRY.unpack_from(table, at)
        if kind != _SIF_PARTITION or not is_used:
            continue
        file_system, part = struct.unpack_from("<ii", extra)
        if part in _SIF_SYSTEM and file_system == _SIF_ENCRYPTED:
            raise UserError("it is encrypted, and the pilot has no key for it")
        if part in _SIF_SYSTEM and file_system == _SIF_SQUASHFS and isinstance(offset, int):
            return offset
    raise UserError("its SIF table names no squashfs to unpack")


def _sif(head: bytes, size: int) -> Content:
    if len(head) < _SIF.size:
        raise UserError("it is cut short: not even its SIF header is whole")
    fields = _SIF.unpack_from(head)
    architecture = _SIF_ARCHITECTURES.get(fields[3][:2], "")
    table_offset, table_bytes, data_offset, data_bytes = fields[9:13]
    if min(table_offset, table_bytes, data_offset, data_bytes) < 0:
        raise UserError("its SIF header is corrupt; make it again")
    if max(table_offset + table_bytes, data_offset + data_bytes) > size:
        raise UserError(
            f"it is cut short: it has {size} of at least {data_offset + data_bytes} bytes; "
            "copy it again"
        )
    return Content(
        kind=FileKind.SIF,
        architecture=architecture,
        table_offset=table_offset,
        table_bytes=min(table_bytes, TABLE_BYTES_MAX),
    )


def _squashfs(head: bytes, size: int, offset: int) -> Content:
    if len(head) < _SQUASHFS.size:
        raise UserError("it is cut short: not even its squashfs header is whole")
    fields = _SQUASHFS.unpack_from(head)
    version, bytes_used = fields[9], fields[12]
    if version != _SQUASHFS_VERSION:
        raise UserError(f"its squashfs is of version {version}, and only 4 can be used")
    if offset + bytes_used > size:
        raise UserError(
            f"it is cut short: it has {size} of {offset + bytes_used} bytes; copy it again"
        )
    return Content(kind=FileKind.SQUASHFS, offset=offset)


def _no_image(head: bytes, size: int) -> str:
    if not size:
        return "it is empty"
    if head.startswith(b"\x1f\x8b"):
        return "it is packed with gzip; unpack it with gunzip and name the result"
    if head.startswith(_LAUNCHER):
        return "it is an image of Singularity's old ext3 form; build it again as SIF"
    return "it is neither a directory nor a SIF, squashfs or OCI archive file, by its content"
