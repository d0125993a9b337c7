"""A directory on a dead file system: whoever touches it waits for ever."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MNT_DETACH = 2


@contextmanager
def hung_directory(place: Path) -> Iterator[Path]:
    """Mount a FUSE file system whose server never says a word; skip who may not mount."""
    directory = place / "dead"
    directory.mkdir()
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"only root may mount a FUSE file system here: /dev/fuse: {error.strerror}")
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={server},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()}"
    if libc.mount(b"dead", os.fsencode(directory), b"fuse.dead", 0, options.encode()):
        os.close(server)
        pytest.skip(f"only root may mount a file system: {os.strerror(ctypes.get_errno())}")
    try:
        yield directory
    finally:
        os.close(server)  # Whoever waits is told that nobody will answer.
        libc.umount2(os.fsencode(directory), _MNT_DETACH)
