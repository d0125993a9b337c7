"""Image files of a directory: squashfs, and SIF around it."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pilot.sandbox import APPTAINER

needs_squashfs = pytest.mark.skipif(
    shutil.which("mksquashfs") is None or shutil.which("unsquashfs") is None,
    reason="squashfs-tools are not on this machine; tests/engines/install-apptainer brings them.",
)
_MACHINES = {"x86_64": "2", "aarch64": "4"}


def squashed(root: Path) -> Path:
    """Make a squashfs file of a directory, beside it."""
    made = root.with_suffix(".sqfs")
    command = ["mksquashfs", str(root), str(made), "-quiet", "-no-progress", "-all-root"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return made


def wrapped_in_sif(squashfs: Path) -> Path:
    """Make a SIF of a squashfs file as it is: `apptainer build` would add mount points."""
    made = squashfs.with_suffix(".sif")
    options = ["--datatype", "4", "--parttype", "2", "--partfs", "1"]
    options += ["--partarch", _MACHINES[platform.machine()]]
    for arguments in (["new", str(made)], ["add", *options, str(made), str(squashfs)]):
        subprocess.run([str(APPTAINER), "sif", *arguments], check=True)
    return made
