"""What is to be bound, looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilot.containers.mounts import SourceKind
from pilot.containers.sources import look_at_sources

pytestmark = pytest.mark.real


async def test_each_source_is_what_it_is(tmp_path: Path) -> None:
    """Links count as what they lead to; names are not read by any shell."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "a b\n$(id)'\"").mkdir()
    os.mkfifo(tmp_path / "fifo")
    expected = {
        "": SourceKind.DIRECTORY,
        "file": SourceKind.FILE,
        "link": SourceKind.FILE,
        "dangling": SourceKind.MISSING,
        "absent": SourceKind.MISSING,
        "a b\n$(id)'\"": SourceKind.DIRECTORY,
        "fifo": SourceKind.FILE,
    }

    found = await look_at_sources([str(tmp_path / name) for name in expected])

    assert found == {str(tmp_path / name): kind for name, kind in expected.items()}


async def test_many_sources_are_looked_at_in_a_few_goes(tmp_path: Path) -> None:
    """More than fit one command line; each once."""
    paths = [str(tmp_path / str(number)) for number in range(1200)]

    found = await look_at_sources([*paths, *paths])

    assert list(found) == paths
    assert set(found.values()) == {SourceKind.MISSING}


async def test_no_source_needs_no_helper() -> None:
    """A job without inputs pays nothing."""
    assert await look_at_sources([]) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    """A directory needs to be entered, too."""
    for name, mode in (("file", 0o200), ("directory", 0o400)):
        path = tmp_path / name
        path.mkdir() if name == "directory" else path.write_text("")
        path.chmod(mode)

    found = await look_at_sources([str(tmp_path / "file"), str(tmp_path / "directory")])

    assert set(found.values()) == {SourceKind.UNREADABLE}
