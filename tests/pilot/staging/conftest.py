"""The two directories that staging moves files between."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Give a work directory, with a neighbour that is none of the job's."""
    (tmp_path / "secret").write_text("none of yours")
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Give an output directory."""
    directory = tmp_path / "out"
    directory.mkdir()
    return directory
