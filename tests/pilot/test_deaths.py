"""Something dies, at a random moment: the right status, the outputs there are, nothing left."""

from __future__ import annotations

import json
import random
import signal
import time
import zipfile
from pathlib import Path

import pytest

from pilot import procfs
from tests.pilot.pilot_run import (
    Job,
    PilotRun,
    kill_9,
    launcher_of,
    left_over,
    pilot,
    wait_clean,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

LONG = """
Executable = "/bin/sh";
Arguments = {"-c", "echo partial result; sleep 1000 & (setsid sleep 1000 &) ; sleep 1001"};
TTL = 120;
"""
SHORT = 'Executable = "/bin/sh"; Arguments = {"-c", "echo next"};'


@pytest.fixture(params=["bare", "container"])
def long_job(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A job that would run for long, bare or in a container."""
    image = ""
    if request.param == "container":
        image = f'ContainerImage = "{request.getfixturevalue("busybox_image")}";'
    path = tmp_path / "long.jdl"
    path.write_text(image + LONG)
    return path


@pytest.fixture
def next_job(tmp_path: Path) -> Path:
    """A job that shows whether the agent goes on."""
    path = tmp_path / "next.jdl"
    path.write_text(SHORT)
    return path


def stdout_of(job: Job) -> str:
    """Return what was saved of a job's stdout."""
    for output in job["outputs"]:
        with zipfile.ZipFile(output["location"]) as archive:
            if "stdout" in archive.namelist():
                return archive.read("stdout").decode()
    return ""


def random_moment() -> None:
    """Wait a little, differently each time: death has no favourite moment."""
    time.sleep(random.uniform(0, 0.7))


def assert_goes_on(run: PilotRun) -> None:
    """Assert that the agent ran the next job, and left nothing."""
    code, stdout, _ = run.end()
    rows = {row["id"]: row for row in map(json.loads, stdout.splitlines())}

    assert code == 1
    assert rows[2]["status"] == "DONE"
    assert left_over(run.state) == []
    assert not list(run.state.glob("jobs/*/*/work"))
    assert not list(run.state.glob("jobs/*/*/private"))


@pytest.mark.parametrize("victim", ["payload", "wrapper", "launcher"])
def test_a_killed_process_ends_its_job_and_nothing_else(
    tmp_path: Path, long_job: Path, next_job: Path, victim: str
) -> None:
    """Whoever is killed: ERROR_E, the logs are saved, and the next job runs."""
    with PilotRun(
        tmp_path / "state", "--json", "--cores", "1", str(long_job), str(next_job)
    ) as run:
        pids = run.wait_payload()
        random_moment()
        kill_9(launcher_of(pids["wrapper"], run.pid) if victim == "launcher" else pids[victim])
        job = run.wait_until(lambda job: job["status"] == "ERROR_E")

        assert "signal 9" in job["reason"]
        assert stdout_of(job) == "partial result\n"
        assert_goes_on(run)


def test_a_killed_agent_loses_no_job(tmp_path: Path, long_job: Path) -> None:
    """Its wrappers end by themselves; the lease runs out; the next agent runs a new attempt."""
    patience = {"PILOT_LEASE_S": "2", "PILOT_ZOMBIE_S": "1"}
    state = tmp_path / "state"
    with PilotRun(state, str(long_job), environment=patience) as first:
        first.wait_payload()
        random_moment()
        kill_9(first.pid)
        first.end()
        wait_clean(state)

    with PilotRun(state, environment=patience) as second:
        second.wait_until(lambda job: job["status"] == "RUNNING" and job["attempt"] == 2)
        second.wait_payload()
        pilot("kill", "1", "--state", str(state), "--why", "seen enough")
        job = second.wait_until(lambda job: job["status"] == "KILLED")
        second.signal(signal.SIGINT)

        assert second.end()[0] == 0
    statuses = [line["status"] for line in job["history"]]
    assert statuses.count("KILLED") == 1
    assert [status for status in statuses if status in ("ZOMBIE", "EXPIRED")] == [
        "ZOMBIE",
        "EXPIRED",
    ]
    assert job["reason"] == "seen enough"
    assert left_over(state) == []


def test_everything_of_the_pilot_killed_at_once_is_cleaned_up(
    tmp_path: Path, long_job: Path, next_job: Path
) -> None:
    """Agent and wrapper die in the same instant: the payload dies, the next agent does the rest."""
    state = tmp_path / "state"
    with PilotRun(state, str(long_job)) as run:
        pids = run.wait_payload()
        kill_9(run.pid)
        kill_9(pids["wrapper"])
        run.end()

    # Bare, a grandchild that detached itself has nobody left who would know of it.
    pilot("run", str(next_job), "--state", str(state))

    wait_clean(state)
    assert not list(state.glob("jobs/*/*/work"))
    assert not list(state.glob("jobs/*/*/private"))
    for pid in pids.values():
        # Init may take its time to collect what was left to it.
        stat = procfs.read_stat(pid)
        assert stat is None or stat.state == "Z"


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, long_job: Path, presses: int) -> None:
    """Once drains: the present job is finished. Twice: it is given back to the queue."""
    quick = tmp_path / "quick.jdl"
    quick.write_text(long_job.read_text().replace("1001", "3"))
    jdl = quick if presses == 1 else long_job
    with PilotRun(tmp_path / "state", "--cores", "1", str(jdl), str(quick)) as run:
        run.wait_payload()
        for _ in range(presses):
            run.signal(signal.SIGINT)
            # Two of the same signal at once are one to the kernel.
            run.wait_log("draining")
        code, _, stderr = run.end()

        assert code == 1
        assert "stay in the queue" in stderr
        assert run.job(1)["status"] == ("DONE" if presses == 1 else "WAITING")
        assert run.job(2)["status"] == "WAITING"
        assert left_over(run.state) == []
        assert not list(run.state.glob("jobs/*/*/work"))
