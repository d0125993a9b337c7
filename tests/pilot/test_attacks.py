"""Payloads that attack the agent itself: each was a real hole once, and stays here."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.pilot.pilot_run import Job, PilotRun, left_over, pilot

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


def run_job(
    tmp_path: Path,
    script: str,
    head: str = "",
    *flags: str,
    environment: dict[str, str] | None = None,
) -> Job:
    """Run one shell job to its end; return its story."""
    text = script.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    jdl = tmp_path / "attack.jdl"
    jdl.write_text(f'{head} Executable = "/bin/sh"; Arguments = {{"-c", "{text}"}}; TTL = 60;')
    with PilotRun(tmp_path / "state", "--json", str(jdl), *flags, environment=environment) as run:
        _, stdout, stderr = run.end()
        assert stdout, stderr
        job = run.job()
    assert left_over(tmp_path / "state") == []
    return job


def saved_bytes(job: Job) -> bytes:
    """Return all that was saved, unpacked."""
    found = b""
    for output in job["outputs"]:
        path = Path(output["location"])
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found += b"".join(archive.read(name) for name in archive.namelist())
        else:
            found += path.read_bytes()
    return found


@pytest.mark.apptainer
def test_a_contained_payload_cannot_make_the_agent_read_for_it(
    tmp_path: Path, busybox_image: Path
) -> None:
    """It puts a link in its work directory's place and kills the wrapper."""
    head = f'ContainerImage = "{busybox_image}"; OutputErrorE = {{"*"}};'
    script = (
        "cd /tmp/job; mv work work2; rm -rf work; ln -s ../../../authority work; kill -9 $PPID;"
        " sleep 30"
    )
    job = run_job(tmp_path, script, head)

    assert job["status"] == "ERROR_E"
    assert b"PRIVATE KEY" not in saved_bytes(job)


@pytest.mark.apptainer
def test_a_contained_payload_cannot_make_the_agent_write_for_it(
    tmp_path: Path, busybox_image: Path
) -> None:
    """It puts a link in its output directory's place and kills the wrapper."""
    target = tmp_path / "target"
    target.mkdir()
    head = f'ContainerImage = "{busybox_image}";'
    script = f"cd /tmp/job; mv output o2; ln -s {target} output; kill -9 $PPID; sleep 30"
    run_job(tmp_path, script, head)

    assert list(target.iterdir()) == []


@pytest.mark.apptainer
def test_a_contained_payload_does_not_see_what_the_agent_keeps(
    tmp_path: Path, busybox_image: Path
) -> None:
    """Its marker's owner and the wrapper's log are out of reach."""
    job = run_job(tmp_path, "ls /tmp/job", f'ContainerImage = "{busybox_image}";')

    assert job["container"] == "apptainer"
    assert saved_bytes(job).split() == [b"output", b"private", b"work"]


def test_a_deep_tree_does_not_keep_the_key_or_stop_the_next_agent(tmp_path: Path) -> None:
    """Six thousand levels, made by a payload; in Landlock each costs as much as it is deep."""
    maker = "import os\nfor i in range(6000): os.mkdir(chr(100)); os.chdir(chr(100))"
    payload = tmp_path / "deep.py"
    payload.write_text(f"#!/usr/bin/env python3\n{maker}\n")
    jdl = tmp_path / "deep.jdl"
    jdl.write_text('Executable = "deep.py"; TTL = 60;')
    state = tmp_path / "state"
    code, stdout, stderr = pilot("run", str(jdl), "--state", str(state), "--json")

    assert json.loads(stdout)["status"] == "DONE", stderr
    assert {path.name for path in (state / "jobs/1/1").iterdir()} == {"log", "output"}
    assert code == 0


def test_the_pilots_own_state_is_no_input(tmp_path: Path) -> None:
    """Nobody is shown the authority's key by naming it."""
    state = tmp_path / "state"
    head = f'InputFile = {{"{state}/authority/authority.pem"}}; OutputFile = {{"authority.pem"}};'
    job = run_job(tmp_path, "cat authority.pem", head)

    assert job["status"] == "ERROR_A"
    assert "the pilot's own" in job["reason"]
    assert job["outputs"] == []


def test_an_image_that_holds_the_pilots_state_is_refused(tmp_path: Path) -> None:
    """The whole machine as an image would show it all."""
    job = run_job(tmp_path, "ls /root", 'ContainerImage = "/";')

    assert job["status"] == "ERROR_A"


def test_a_forged_marker_hides_nothing(tmp_path: Path) -> None:
    """It wears another attempt's marker and kills the wrapper: it is swept all the same.

    Where the wrapper isn't confined: else it couldn't.
    """
    script = (
        "env -i PILOT_MARK=somebody-elses /bin/sh -c '(exec sleep 7771)&'; sleep 1;"
        " kill -9 $PPID; sleep 30"
    )
    job = run_job(tmp_path, script, environment={"PILOT_BARE_CONFINEMENT": "never"})
    still = subprocess.run(
        ["pgrep", "-f", "^sleep 7771$"], capture_output=True, text=True, check=False
    )

    assert job["status"] == "ERROR_E"
    assert still.stdout == ""


def test_terminal_escapes_in_names_are_not_printed(tmp_path: Path) -> None:
    """A file name can't move an operator's cursor."""
    script = "touch \"$(printf 'evil\\033[2Jname')\"; echo done"
    job = run_job(tmp_path, script, 'OutputFile = {"evil*"};')
    _, shown, _ = pilot("show", "1", "--state", str(tmp_path / "state"))

    assert job["status"] == "DONE"
    assert "evil" in shown
    assert "\033" not in shown
