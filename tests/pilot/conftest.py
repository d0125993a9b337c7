"""What the tests of the pilot's adapters share."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

MAKE_IMAGE = Path(__file__).parents[2] / "examples" / "campaign" / "make-image"


@pytest.fixture(scope="session")
def busybox_image(apptainer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a tiny image directory, made from this machine's busybox."""
    image = tmp_path_factory.mktemp("image") / "busybox"
    done = subprocess.run(
        [str(MAKE_IMAGE), str(image)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no image for {apptainer} can be made here: {done.stderr.strip()}")
    return image
