"""A digest that is required is no wish: without it the job doesn't run, whatever the policy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pilot.pilot_run import Job, pilot

pytestmark = pytest.mark.real

DIGEST = f"sha256:{'1' * 64}"


def run_job(tmp_path: Path, line: str, *flags: str) -> tuple[int, Job]:
    """Run a job with a line more in its JDL; return its story."""
    (tmp_path / "image").mkdir()
    jdl = tmp_path / "job.jdl"
    jdl.write_text(f'Executable = "/bin/true"; ContainerImageDigest = "{DIGEST}"; {line}')
    state = str(tmp_path / "state")
    code, _, _ = pilot("run", str(jdl), "--state", state, *flags)
    _, out, _ = pilot("show", "1", "--json", "--state", state)
    story: Job = json.loads(out)
    return code, story


@pytest.mark.parametrize("policy", ["prefer", "require"])
def test_an_image_without_the_digest_is_not_replaced_by_none(tmp_path: Path, policy: str) -> None:
    """A plain directory has none; the owner reads which was wanted."""
    code, job = run_job(tmp_path, 'ContainerImage = "image";', "--container", policy)

    assert (code, job["status"]) == (1, "ERROR_A")
    assert DIGEST in job["reason"]


def test_where_containers_are_switched_off_it_is_not_run(tmp_path: Path) -> None:
    """Bare would be another place than the one that was asked for."""
    code, job = run_job(tmp_path, 'ContainerImage = "image";', "--container", "never")

    assert (code, job["status"]) == (1, "ERROR_A")
    assert "switched off" in job["reason"]


def test_a_digest_of_no_image_is_a_mistake(tmp_path: Path) -> None:
    """Somebody forgot the image."""
    code, job = run_job(tmp_path, "")

    assert (code, job["status"]) == (1, "ERROR_A")
    assert "no image is named" in job["reason"]
