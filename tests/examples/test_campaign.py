from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.lifecycle import FINAL
from pilot.jdl import parse_jdl, unknown_keys_note
from tests.pilot.sandbox import public_directory
from transport.messages import JobDescription, JobStatus

CAMPAIGN = Path(__file__).parents[2] / "examples" / "campaign"
JDLS = sorted(CAMPAIGN.glob("*.jdl"))
HAS_CONTAINERS = shutil.which("apptainer") is not None and shutil.which("busybox") is not None


def describe(jdl: Path) -> JobDescription:
    """Parse a JDL of the campaign, with the campaign's own catalogue."""
    catalogue = tomllib.loads((CAMPAIGN / "pilot.toml").read_text())["catalogue"]
    directories = {prefix: CAMPAIGN / directory for prefix, directory in catalogue.items()}
    return parse_jdl(jdl.read_text(), source=jdl.name, directory=CAMPAIGN, catalogue=directories)


def expected(jdl: Path) -> JobStatus:
    """Return the status that a JDL says it ends in."""
    (tag,) = [tag for tag in describe(jdl).tags if tag.startswith("expect:")]
    return JobStatus(tag.removeprefix("expect:"))


@pytest.mark.parametrize("jdl", JDLS, ids=lambda jdl: jdl.stem)
def test_a_jdl_tells_what_it_is_for_and_how_it_ends(jdl: Path) -> None:
    """Its first line is a comment, its tag a final status; no key is without an effect."""
    assert jdl.read_text().startswith("# ")
    assert expected(jdl) in FINAL
    assert unknown_keys_note(describe(jdl)) == ""


@pytest.mark.parametrize("jdl", JDLS, ids=lambda jdl: jdl.stem)
def test_all_inputs_are_there_but_the_one_that_must_miss(jdl: Path) -> None:
    """Programs, conditions and partial histograms are part of the clone."""
    description = describe(jdl)
    files = [file.source for file in (*description.inputs, *description.input_data)]
    missing = [Path(file).name for file in files if not Path(file).is_file()]

    assert missing == (["beam-OO-lost.json"] if jdl.stem == "fail-input" else [])


def test_every_way_to_end_has_its_jdl() -> None:
    """Eight seeds or more, and each failure that a pilot must tell from the others."""
    ends = [expected(jdl) for jdl in JDLS]
    seeds = {
        description.arguments[description.arguments.index("--seed") + 1]
        for description in map(describe, JDLS)
        if "--seed" in description.arguments
    }
    wanted = {"DONE", "ERROR_E", "ERROR_V", "ERROR_IB", "ERROR_S", "KILLED"}

    assert set(ends) == {JobStatus(status) for status in wanted}
    assert len(seeds) >= 8


class Ran:
    """What a run of the whole campaign left."""

    def __init__(self, state: Path) -> None:
        self._state = state
        command = (sys.executable, str(CAMPAIGN / "run.py"), "--state", str(state), "--cores", "3")
        self.run = subprocess.run(command, capture_output=True, text=True, check=False)
        self.jobs = {Path(row["jdl"]).stem: row for row in self.pilot("jobs", "--json")}

    def pilot(self, *arguments: str) -> list[Any]:
        """Return what a command of the pilot prints with --json."""
        command = (sys.executable, "-m", "pilot", *arguments, "--state", str(self._state))
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=CAMPAIGN.parents[1]
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def archive(self, name: str) -> zipfile.ZipFile:
        """Open the root_archive.zip of a job."""
        (job,) = self.pilot("show", str(self.jobs[name]["id"]), "--json")
        (saved,) = [file for file in job["outputs"] if file["name"] == "root_archive.zip"]
        return zipfile.ZipFile(saved["location"])


@pytest.fixture(scope="module")
def ran() -> Iterator[Ran]:
    """Give the campaign, run once."""
    with public_directory() as directory:
        yield Ran(directory / "state")


@pytest.mark.real
@pytest.mark.timeout(300)
def test_every_job_of_the_campaign_ends_as_meant(ran: Ran) -> None:
    """The whole campaign, for real: each status and reason, nothing left, exit code 0."""
    verdict = ran.run.stdout.partition("meant ")[2]

    assert ran.run.returncode == 0, verdict + ran.run.stderr
    assert {name: row["status"] for name, row in ran.jobs.items()} == {
        jdl.stem: expected(jdl).value for jdl in JDLS
    }
    assert f"{len(JDLS)} of {len(JDLS)} jobs ended as meant." in verdict
    assert "still there" not in verdict


@pytest.mark.real
@pytest.mark.timeout(300)
def test_jobs_with_an_image_run_in_a_container_where_there_is_one(ran: Ran) -> None:
    """The others run bare; without Apptainer or busybox all do."""
    wanted = {
        jdl.stem: "apptainer" if describe(jdl).container_image and HAS_CONTAINERS else None
        for jdl in JDLS
    }

    assert {name: row["container"] for name, row in ran.jobs.items()} == wanted


@pytest.mark.real
@pytest.mark.timeout(300)
def test_the_archives_hold_physics(ran: Ran) -> None:
    """Hits of the right size, the JDL's variables in the summary, all tracks in the merged file."""
    with ran.archive("sim-2") as archive:
        summary = json.loads(archive.read("summary.json"))
        hits = archive.getinfo("hits.bin").file_size
    with ran.archive("merge") as archive:
        merged = sum(json.loads(archive.read("merged.json"))["counts"]["pt"])
        printed = re.match(r"(\d+) tracks from 4 files", archive.read("stdout").decode())

    assert hits == summary["hits"] * summary["hit_bytes"] > 100_000
    assert summary["variables"]["ALIEN_JDL_RUNNUMBER"] == "544116"
    assert printed is not None
    assert int(printed[1]) == merged > 9_000
