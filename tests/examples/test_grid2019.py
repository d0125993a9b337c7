from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "grid2019.py"
FIGURES = (
    "10000 nodes at 60 sites",
    "Singularity          78.0 %",
    "loopback mounting    65.8 % disabled, 6.2 % enabled",
    "underlay              1.9 % disabled, 0.1 % enabled",
    "ideal                 0.1 %",
)


@pytest.mark.real
def test_the_example_shows_the_figures_of_the_talk(tmp_path: Path) -> None:
    """The same ones every time, and the same reports."""
    shown = []
    for name in ("one", "two"):
        done = subprocess.run(
            (sys.executable, EXAMPLE, tmp_path / name),
            env={**os.environ, "PYTHONPATH": str(EXAMPLE.parents[1])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        shown.append(done.stdout)

    assert shown[0] == shown[1]
    assert tuple(shown[0].splitlines()[:5]) == FIGURES
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
