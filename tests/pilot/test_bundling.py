"""`pilot bundle`, as a person and a script use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pilot.pilot_run import pilot

pytestmark = pytest.mark.real


def test_a_bundle_is_made_once_and_described(tmp_path: Path) -> None:
    """A line for a person the first time, an object for a script the second."""
    code, line, stderr = pilot("bundle", str(tmp_path))
    assert code == 0, stderr
    code, text, stderr = pilot("bundle", str(tmp_path), "--json")
    assert code == 0, stderr

    made = json.loads(text)
    assert line.startswith(f"{made['path']}: ")
    assert made["path"] == f"{tmp_path}/bundle-{made['hash']}"
    assert 10_000_000 < made["bytes"] <= 40_000_000
    assert set(made) == {
        *("path", "hash", "bytes", "files", "seconds", "python", "glibc", "architecture")
    }


def test_a_place_where_none_can_be_made_is_a_sentence(tmp_path: Path) -> None:
    """The node's operator is told where and why."""
    (tmp_path / "file").write_text("")

    code, _, stderr = pilot("bundle", str(tmp_path / "file"))

    assert code == 3
    assert "No bundle can be made in" in stderr
    assert "Traceback" not in stderr
