"""What a site's package manager prints becomes the payload's environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.packages import packages_environment
from tests.pilot.pilot_run import pilot
from transport.errors import OperatorError, UserError

pytestmark = pytest.mark.real
PATH = "/usr/bin:/bin"


def manager(tmp_path: Path, text: str) -> str:
    """Write a package manager; return the command."""
    path = tmp_path / "alienv"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"{path} printenv"


async def test_what_it_exports_is_what_packages_add(tmp_path: Path) -> None:
    """Shell code is evaluated; it is given the packages joined by commas."""
    command = manager(
        tmp_path,
        'echo "PATH=/cvmfs/bin:\\$PATH; export PATH; ASKED=$1:$2; export ASKED; LOCAL=1"',
    )
    found = await packages_environment(command, ("VO_ALICE@A::v1", "VO_ALICE@B::v2"), path=PATH)

    assert found == {
        "PATH": f"/cvmfs/bin:{PATH}",
        "ASKED": "printenv:VO_ALICE@A::v1,VO_ALICE@B::v2",
    }


async def test_packages_that_are_not_there_are_the_users_error(tmp_path: Path) -> None:
    """The manager's own last line says why."""
    command = manager(tmp_path, "echo 'no such package' >&2; exit 1")
    with pytest.raises(UserError, match=r"VO_ALICE@A::v1 can't be had: no such package"):
        await packages_environment(command, ("VO_ALICE@A::v1",), path=PATH)


async def test_a_manager_that_hangs_is_given_up(tmp_path: Path) -> None:
    """A dead /cvmfs doesn't hang the agent."""
    command = manager(tmp_path, "sleep 1000")
    with pytest.raises(OperatorError, match="no answer"):
        await packages_environment(command, ("A",), path=PATH, timeout_s=0.2)


async def test_a_command_that_is_no_words_is_named() -> None:
    """The setting is named."""
    with pytest.raises(OperatorError, match="packages_command"):
        await packages_environment("alienv 'printenv", ("A",), path=PATH)


def test_a_job_sees_the_environment_of_its_packages(tmp_path: Path) -> None:
    """End to end; the job's own variables win over a package's."""
    command = manager(tmp_path, "echo 'export ROOTSYS=/cvmfs/root HOME=/elsewhere'")
    jdl = tmp_path / "job.jdl"
    jdl.write_text(
        'Executable = "/bin/sh"; Arguments = {"-c", "echo $ROOTSYS $HOME"};'
        'Packages = {"VO_ALICE@ROOT::v6"};'
    )
    state = str(tmp_path / "state")
    environment = {"PILOT_PACKAGES_COMMAND": command}
    code, stdout, stderr = pilot("run", str(jdl), "--state", state, environment=environment)
    _, logs, _ = pilot("logs", "1", "--state", state, "--which", "stdout")

    assert code == 0, stdout + stderr
    assert logs.split() == ["/cvmfs/root", f"{state}/jobs/1/1/work"]
