"""Whole runs with a runtime that is there and broken: the job ends well all the same."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.pilot.pilot_run import Job, pilot
from tests.pilot.sandbox import APPTAINER, make_image, needs_apptainer, public_directory, script

pytestmark = pytest.mark.real


def run_with(place: Path, runtime: str, *flags: str) -> tuple[int, Job]:
    """Run a job in a busybox image where ``apptainer`` is this script; return its story."""
    (place / "bin").mkdir()
    script(place / "bin" / "apptainer", runtime)
    image = make_image(place / "image")
    jdl = place / "job.jdl"
    jdl.write_text('Executable = "/bin/sh"; Arguments = {"-c", "echo done"};')
    environment = {
        "PATH": f"{place / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        "PILOT_CONTAINER_CHECK_S": "5",
    }
    state = str(place / "state")
    arguments = ("--image", str(image), "--runtime", "apptainer", "--state", state, *flags)
    code, _, _ = pilot("run", str(jdl), *arguments, environment=environment)
    _, out, _ = pilot("show", "1", "--json", "--state", state)
    story: Job = json.loads(out) if out else {}
    return code, story


def traces(job: Job) -> str:
    """Return all lines of a job's trace."""
    return "\n".join(line["text"] for line in job["traces"])


@pytest.mark.parametrize(
    ("runtime", "reason"),
    [
        ("sleep 1000", "[no-answer]"),
        ("echo all is well", "[nonsense]"),
        ("exit 0", "[silent]"),
        ("exec head -c 1000000000 /dev/zero", "[flooded]"),
        ("exec head -c 1000000000 /dev/zero >&2", "[flooded]"),
        ("echo 'FATAL: no loop devices available: loop device' >&2; exit 255", "image-unmountable"),
    ],
)
def test_a_broken_runtime_costs_a_job_nothing_but_its_container(
    tmp_path: Path, runtime: str, reason: str
) -> None:
    """It runs bare, and its trace says why, with the code."""
    code, job = run_with(tmp_path, runtime)

    assert (code, job["status"], job["container"]) == (0, "DONE", None)
    assert reason in traces(job)


def test_a_node_that_must_have_a_container_and_has_none_takes_no_job(tmp_path: Path) -> None:
    """It ends with the pilot's own exit code, before it asks for work."""
    code, job = run_with(tmp_path, "exit 0", "--container", "require")

    assert code == 3
    assert job == {}


@pytest.mark.apptainer
@needs_apptainer
def test_a_runtime_that_works_once_and_then_not_is_left() -> None:
    """Its check was right, its launch was not: the job is given back, and goes another way."""
    broken = f"""
case " $* " in
  *" check "*) exec {APPTAINER} "$@" ;;
esac
echo 'FATAL: it broke' >&2
exit 255
"""
    with public_directory() as place:
        code, job = run_with(place, broken)

    assert (code, job["status"], job["container"]) == (0, "DONE", None)
    assert job["attempt"] > 1
    assert "[broke-later]" in traces(job)
    assert "it broke" in traces(job)
