"""Members of an output archive: their attributes, and whether they are worth deflating.

Deflating takes some 30 MB/s of a core, storing 600: 10 GB of data that is compressed already
would overrun the time for saving, and be no smaller for it. So pieces from all over a file are
deflated first; where they hardly shrink, the member is stored.

Archives are read with ROOT (TZIPFile), which has two wishes of its own. It rejects members with
a data descriptor, which zipfile writes wherever it can't go back to a member's header: so
archives are written to a file that seeks. And it reads a ROOT file in place, so it must be stored.
"""

from __future__ import annotations

import os
import stat
import time
import zlib
from typing import IO, TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

_TIMES = (315_532_800, 4_354_819_198)
"""The first and the last second that a zip archive can tell: in 1980 and in 2107."""

_SAMPLES = 32
_SAMPLE_BYTES = 1 << 15
_SHRUNK_MAX = 0.95
"""What a sample may still be of itself for deflating to be worth it."""


def open_member(archive: ZipFile, path: str, source: BinaryIO, status: os.stat_result) -> IO[bytes]:
    """Open the member that will hold ``source``, of which it takes ``status.st_size`` bytes.

    Reading samples blocks, and leaves the source's position where it is.
    """
    from zipfile import ZIP_DEFLATED, ZIP_STORED

    info = _zip_info(path, status)
    is_deflated = not path.endswith(".root") and _does_shrink(source.fileno(), status.st_size)
    info.compress_type = ZIP_DEFLATED if is_deflated else ZIP_STORED
    return archive.open(info, "w")


def _zip_info(path: str, status: os.stat_result) -> ZipInfo:
    from zipfile import ZipInfo

    first, last = _TIMES
    changed = time.gmtime(min(max(status.st_mtime, first), last))
    info = ZipInfo(path, date_time=changed[:6])
    info.external_attr = (stat.S_IFREG | stat.S_IMODE(status.st_mode)) << 16
    info.file_size = status.st_size  # zipfile chooses zip64 by it
    return info


def _does_shrink(descriptor: int, size: int) -> bool:
    """Tell whether deflating is worth it, by pieces that are evenly spread over the file."""
    step = max(size // _SAMPLES, _SAMPLE_BYTES)
    try:
        pieces = [os.pread(descriptor, _SAMPLE_BYTES, at) for at in range(0, size, step)]
    except OSError:
        return True  # whoever copies it will meet the error, and say so
    sample = b"".join(pieces[:_SAMPLES])
    return len(zlib.compress(sample, 1)) < _SHRUNK_MAX * len(sample)
