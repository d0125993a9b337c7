from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pilot.containers.apptainer import ApptainerDialect
from pilot.containers.runtime import Runtime, RuntimeKind
from pilot.containers.search import find_runtimes, inspect_file
from tests.pilot.sandbox import script

pytestmark = pytest.mark.real


def version(name: str) -> str:
    """Make the text of a program that only says its version."""
    return f"echo {name} version 1.2.3"


async def test_runtimes_come_in_the_order_of_preference(tmp_path: Path) -> None:
    """PATH before CVMFS, Apptainer before Singularity; the version tells which it is."""
    singularity = script(tmp_path / "singularity", version("singularity-ce"))
    apptainer = script(tmp_path / "apptainer", version("apptainer"))
    other = script(tmp_path / "elsewhere", version("apptainer"))

    dialects = (
        ApptainerDialect(
            kind=RuntimeKind.APPTAINER, programs=("apptainer", "/nonexistent/apptainer")
        ),
        ApptainerDialect(kind=RuntimeKind.SINGULARITY, programs=("singularity", str(other))),
    )
    found = await find_runtimes(f"/nonexistent:{tmp_path}", dialects)

    assert found == (
        Runtime(path=str(apptainer), kind=RuntimeKind.APPTAINER, version="apptainer version 1.2.3"),
        Runtime(
            path=str(singularity),
            kind=RuntimeKind.SINGULARITY,
            version="singularity-ce version 1.2.3",
        ),
        Runtime(path=str(other), kind=RuntimeKind.APPTAINER, version="apptainer version 1.2.3"),
    )


async def test_one_program_under_two_names_is_one_runtime(tmp_path: Path) -> None:
    """Apptainer installs itself as singularity, too."""
    apptainer = script(tmp_path / "apptainer", version("apptainer"))
    (tmp_path / "singularity").symlink_to(apptainer)

    (found,) = await find_runtimes(str(tmp_path))

    assert found.path == str(apptainer)
    assert found.kind is RuntimeKind.APPTAINER


async def test_a_node_without_runtimes_has_none(tmp_path: Path) -> None:
    """What can't be executed is none, and neither is a directory."""
    (tmp_path / "apptainer").mkdir()
    (tmp_path / "singularity").write_text("")

    assert await find_runtimes(str(tmp_path)) == ()


async def test_a_version_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    """It is there; whether it works is for the check to say."""
    script(tmp_path / "apptainer", "sleep 1000")
    begun = time.monotonic()

    (found,) = await find_runtimes(str(tmp_path), timeout_s=0.5)

    assert found.version == ""
    assert found.kind is RuntimeKind.APPTAINER
    assert time.monotonic() - begun < 5


async def test_a_file_is_known_again_and_a_changed_one_is_not(tmp_path: Path) -> None:
    """The state is what a remembered check is held against."""
    image = tmp_path / "image.sif"
    image.write_text("one")
    before = await inspect_file(str(image))
    again = await inspect_file(str(image))
    image.write_text("another")
    after = await inspect_file(str(image))

    assert before == again
    assert before.problem == after.problem == ""
    assert before.state != after.state


async def test_a_missing_file_is_said(tmp_path: Path) -> None:
    """The problem is the end of a sentence that names the file."""
    found = await inspect_file(str(tmp_path / "x"))

    assert found.problem == "there is no such file or directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="Root may read everything.")
async def test_an_unreadable_file_is_said(tmp_path: Path) -> None:
    """A directory that may not be entered is no image either."""
    (tmp_path / "x").mkdir(mode=0o600)

    assert (await inspect_file(str(tmp_path / "x"))).problem == "it may not be read"


async def test_a_file_system_that_hangs_costs_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead mount is told apart from a file that isn't there."""
    monkeypatch.setattr("pilot.containers.search._LOOK_AT_FILE", "sleep 1000")

    found = await inspect_file("/cvmfs/dead", timeout_s=0.3)

    assert found.is_hung
    assert "doesn't answer" in found.problem
