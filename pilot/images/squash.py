"""Unpacking the squashfs of an image file with ``unsquashfs``, for runtimes that take directories.

The listing comes first: what it adds up to must fit, so that a small file can't become a full
disk. Devices, which an ordinary user can't make, are left out; the rest gets the rights that
layers get, too.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

from pilot.images.layers import Budget, kept_mode
from transport.errors import OperatorError, UserError

_LISTED = re.compile(rb"([-dlbcps])[-rwxsStT]{9} \S+\s+(\d+)")
_HARMLESS = re.compile(rb"superuser|xattr|^\s*$|^Parallel unsquashfs|inodes .* to write")
_STDERR_MAX = 1 << 16
_QUOTED_MAX = 200


def unsquash(image: Path, offset: int, target: Path, budget: Budget) -> None:
    """Unpack the squashfs that begins at ``offset`` of a file; ``target`` isn't there yet.

    Raises `UserError` (a fragment of a sentence) for a broken one or one that is too big, and
    `OperatorError` where the node has no unsquashfs. It runs as long as that takes.
    """
    program = shutil.which("unsquashfs", path=os.environ.get("PATH", os.defpath))
    if program is None:
        raise OperatorError(
            "it has to be unpacked for this runtime, and the node has no unsquashfs; install "
            "squashfs-tools"
        )
    offset_option = ("-offset", str(offset)) if offset else ()
    _count([program, *offset_option, "-lls", str(image)], budget)
    _run([program, *offset_option, "-no-progress", "-no-xattrs", "-d", str(target), str(image)])
    tame(target)


def tame(root: Path) -> None:
    """Give all below a directory our rights to read and remove it; remove what is no file."""
    left = [str(root)]
    while left:
        directory = left.pop()
        os.chmod(directory, kept_mode(os.lstat(directory).st_mode, is_directory=True))
        with os.scandir(directory) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    left.append(entry.path)
                elif stat.S_ISREG(mode):
                    os.chmod(entry.path, kept_mode(mode, is_directory=False))
                elif not stat.S_ISLNK(mode):
                    os.unlink(entry.path)


def _count(command: list[str], budget: Budget) -> None:
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if (found := _LISTED.match(line)) is not None:
                    budget.take(int(found[2]) if found[1] == b"-" else 0)
        except BaseException:
            process.kill()
            raise
    if process.returncode or not budget.entries:
        raise UserError("its squashfs can't be listed: it is corrupt; copy or build it again")


def _run(command: list[str]) -> None:
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read(_STDERR_MAX)
        while process.stderr.read(_STDERR_MAX):
            pass
    lines = [line for line in said.splitlines() if not _HARMLESS.search(line)]
    if process.returncode not in (0, 2) or (process.returncode and lines):
        last = lines[-1][:_QUOTED_MAX].decode(errors="replace") if lines else "it says nothing"
        if b"No space left" in said:
            raise OperatorError("there is no room on the disk to unpack it")
        raise UserError(f"its squashfs can't be unpacked ({last}); copy or build it again")
