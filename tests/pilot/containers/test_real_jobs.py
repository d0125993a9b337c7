"""Whole jobs through the other runtimes: done, seen from the host, killed, nothing left."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot import procfs
from pilot.containers.runtime import Runtime, RuntimeKind
from tests.pilot.containers.real_runtimes import KINDS, docker_daemon, real_runtime
from tests.pilot.pilot_run import (
    Job,
    PilotRun,
    kill_9,
    left_over,
    pilot,
    wait_clean,
)
from tests.pilot.sandbox import make_image, public_directory, script

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]
LONG = """
Executable = "/bin/sh";
Arguments = {"-c", "echo partial result; sleep 1000 & (setsid sleep 1000 &) ; sleep 1001"};
TTL = 120;
"""
WAITING = """
Executable = "/bin/sh";
Arguments = {"-c", "echo $$; while [ ! -e go ]; do sleep 0.1; done"};
TTL = 120;
"""
SHORT = 'Executable = "/bin/sh"; Arguments = {"-c", "echo next"}; TTL = 60;'


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """Give a directory for what the tests share."""
    with public_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def image(shared: Path) -> Path:
    """Give a busybox image."""
    return make_image(shared / "image")


@pytest.fixture(scope="module")
def docker(shared: Path) -> Iterator[str]:
    """Give the address of a Docker daemon."""
    (shared / "docker").mkdir()
    with docker_daemon(shared / "docker") as address:
        yield address


@pytest.fixture(params=KINDS)
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """Give each of them."""
    found = real_runtime(request.param)
    if found.kind is RuntimeKind.DOCKER:
        monkeypatch.setenv("DOCKER_HOST", request.getfixturevalue("docker"))
    return found


def write(path: Path, text: str) -> str:
    """Write a JDL file."""
    path.write_text(text)
    return str(path)


def through(runtimes: str, image: Path) -> tuple[str, ...]:
    """Return the options for jobs in nothing but a container of these."""
    return ("--runtime", runtimes, "--container", "require", "--image", str(image), "--json")


def launcher(agent: int) -> int:
    """Return what the agent launched: its only child, as Docker's wrapper isn't below it."""
    processes = [stat for stat in procfs.all_processes() if stat.state != "Z"]
    children = [stat.pid for stat in processes if stat.parent == agent]
    assert len(children) == 1, children
    return children[0]


def stdout_of(job: Job) -> str:
    """Return what was saved of a job's stdout."""
    for output in job["outputs"]:
        with zipfile.ZipFile(output["location"]) as archive:
            if "stdout" in archive.namelist():
                return archive.read("stdout").decode()
    return ""


def test_a_job_is_done_in_it_and_seen_from_the_host(
    tmp_path: Path, runtime: Runtime, image: Path
) -> None:
    """The PIDs announced inside are found outside, wherever the runtime put the processes."""
    job_file = write(tmp_path / "job.jdl", WAITING)
    with PilotRun(tmp_path / "state", *through(runtime.kind, image), job_file) as run:
        host = run.wait_payload()
        inside = {line["role"]: line["pid"] for line in run.job()["processes"]}
        seen = {role: procfs.innermost_pid(pid) for role, pid in host.items()}
        (run.state / "jobs/1/1/work/go").touch()
        code, _, stderr = run.end()
        job = run.job()

    assert code == 0, stderr
    assert (job["status"], job["container"]) == ("DONE", runtime.kind)
    assert stdout_of(job).split()[0] == str(inside["payload"])
    assert inside["wrapper"] < 10
    assert seen == inside
    assert left_over(run.state) == []


@pytest.mark.parametrize(
    ("runtime", "victim"),
    [*((kind, "launcher") for kind in KINDS), (RuntimeKind.DOCKER, "wrapper")],
    indirect=["runtime"],
)
def test_what_is_killed_leaves_nothing(
    tmp_path: Path, runtime: Runtime, image: Path, victim: str
) -> None:
    """The runtime's client dies, or the wrapper: its job fails, the next one runs."""
    files = (write(tmp_path / "long.jdl", LONG), write(tmp_path / "next.jdl", SHORT))
    with PilotRun(tmp_path / "state", *through(runtime.kind, image), "--cores", "1", *files) as run:
        pids = run.wait_payload()
        kill_9(launcher(run.pid) if victim == "launcher" else pids[victim])
        job = run.wait_until(lambda job: job["status"] == "ERROR_E")
        _, stdout, _ = run.end()

    assert stdout_of(job) == "partial result\n"
    assert {row["id"]: row["status"] for row in map(json.loads, stdout.splitlines())}[2] == "DONE"
    assert left_over(run.state) == []
    assert not list(run.state.glob("jobs/*/*/work"))
    assert not [path for path in Path("/proc/mounts").read_text().split() if str(run.state) in path]


def test_a_killed_agent_leaves_nothing(tmp_path: Path, runtime: Runtime, image: Path) -> None:
    """The wrapper ends with its link, and the container with it."""
    with PilotRun(
        tmp_path / "state", *through(runtime.kind, image), write(tmp_path / "long.jdl", LONG)
    ) as run:
        pids = run.wait_payload()
        kill_9(run.pid)
        run.end()

        wait_clean(run.state)
    assert all(procfs.read_stat(pid) is None for pid in pids.values())


@pytest.mark.parametrize("runtime", [RuntimeKind.PODMAN, RuntimeKind.DOCKER], indirect=True)
def test_a_stopped_job_ends(tmp_path: Path, runtime: Runtime, image: Path) -> None:
    """By its owner's word, through the protocol."""
    with PilotRun(
        tmp_path / "state", *through(runtime.kind, image), write(tmp_path / "long.jdl", LONG)
    ) as run:
        run.wait_payload()
        pilot("kill", "1", "--state", str(run.state), "--why", "seen enough")
        job = run.wait_until(lambda job: job["status"] == "KILLED")
        run.end()

    assert job["reason"] == "seen enough"
    assert left_over(run.state) == []


# --- present, but broken ---------------------------------------------------------------------

BROKEN = {
    "nonsense": ("echo fine; exit 0", "nonsense"),
    "silent": ("exit 0", "silent"),
    "flood": ("exec yes", "flooded"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_one_is_named_and_stepped_over(
    tmp_path: Path, image: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there, it has a version, and it does something else."""
    text, code = BROKEN[how]
    real_runtime(RuntimeKind.CHARLIECLOUD)
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "bwrap", f'[ "$1" != --version ] || exec echo bubblewrap 1.0\n{text}')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    job_file = write(tmp_path / "job.jdl", SHORT)

    with PilotRun(tmp_path / "state", *through("bubblewrap,charliecloud", image), job_file) as run:
        assert run.end()[0] == 0
        job = run.job()

    assert (job["status"], job["container"]) == ("DONE", "charliecloud")
    assert any(f"{tmp_path}/bin/bwrap" in line["text"] for line in job["traces"]), job["traces"]
    assert any(f"[{code}]" in line["text"] for line in job["traces"]), job["traces"]


def test_one_that_works_once_is_stepped_over_after_that(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check succeeds, the launch doesn't: the job runs through the next one."""
    bwrap = real_runtime(RuntimeKind.BUBBLEWRAP)
    real_runtime(RuntimeKind.CHARLIECLOUD)
    (tmp_path / "bin").mkdir()
    script(
        tmp_path / "bin" / "bwrap",
        f'[ "$1" != --version ] || exec echo bubblewrap 1.0\n'
        f'mkdir {tmp_path}/once 2>/dev/null || {{ echo "out of order" >&2; exit 1; }}\n'
        f'exec {bwrap.path} "$@"',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    job_file = write(tmp_path / "job.jdl", SHORT)

    with PilotRun(tmp_path / "state", *through("bubblewrap,charliecloud", image), job_file) as run:
        assert run.end()[0] == 0
        job = run.job()

    assert (job["status"], job["container"]) == ("DONE", "charliecloud")
    assert any("out of order" in line["text"] for line in job["traces"]), job["traces"]


def test_without_any_that_works_each_is_named(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hung one costs its deadline and no more; the sentence says what each one lacks."""
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "ch-run", "echo out of order >&2; exit 1")
    script(tmp_path / "bin" / "podman", "echo out of order >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    code, _, stderr = pilot(
        *("run", "--state", str(tmp_path / "state"), *through("podman,charliecloud", image)),
        write(tmp_path / "job.jdl", SHORT),
    )

    assert code != 0
    for name in ("podman", "ch-run"):
        assert f"{tmp_path}/bin/{name}" in stderr
    assert "out of order" in stderr
