"""A hostile payload in a bare wrapper: with all that the kernel has, and where it has less."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pilot import procfs
from pilot.confinement.landlock import supported_abi
from tests.pilot.confinement.test_ladder import has_namespaces
from tests.pilot.pilot_run import PATIENCE_S, PilotRun, kill_9, launcher_of, pilot_environment

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not has_namespaces(), reason="no user namespaces for this user here"),
    pytest.mark.skipif(supported_abi() < 6, reason="this kernel has no Landlock of ABI 6"),
]
HOSTILE = Path(__file__).with_name("hostile.py")

# As in docker and Kubernetes: something of /proc is masked, so no other may be mounted.
MASKED_PROC = (
    "unshare",
    "-Urm",
    "sh",
    "-c",
    'mount --bind /dev/null /proc/version; exec "$@"',
    "sh",
)
# As where the administrator forbids them.
NO_NAMESPACES = (
    *("unshare", "-Ur", "sh", "-c"),
    *('echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"', "sh"),
)

NEIGHBOUR = """
Executable = "/bin/sh";
Arguments = {"-c", "echo mine > own.txt; while [ ! -e BESIDE/over ]; do sleep 0.1; done"};
TTL = 120;
"""


@contextmanager
def agent(prefix: tuple[str, ...], state: Path, *jdl: Path) -> Iterator[PilotRun]:
    """Run an agent in surroundings that a prefix makes."""
    run = PilotRun.__new__(PilotRun)
    run.state = state
    run._environment = None
    run._child = subprocess.Popen(
        [
            *prefix,
            *(sys.executable, "-m", "pilot", "run", "--state", str(state), "--json"),
            *("--cores", str(len(jdl)), *map(str, jdl)),
        ],
        env=pilot_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    run.pid = run._child.pid
    with run:
        yield run


@pytest.mark.parametrize(
    ("prefix", "namespaces", "reasons"),
    [
        ((), "yes yes yes", ()),
        (MASKED_PROC, "no yes yes", ("no-pid-namespace",)),
        (NO_NAMESPACES, "no no no", ("no-user-namespace",)),
    ],
    ids=["everything", "masked-proc", "landlock-alone"],
)
def test_a_hostile_payload_can_do_its_work_and_nothing_else(
    tmp_path: Path, prefix: tuple[str, ...], namespaces: str, reasons: tuple[str, ...]
) -> None:
    """Beside a job of the same user; on each rung of the ladder."""
    state, beside = tmp_path / "state", tmp_path / "beside"
    beside.mkdir()
    shutil.copy(HOSTILE, tmp_path / "hostile.py")
    (tmp_path / "neighbour.jdl").write_text(NEIGHBOUR.replace("BESIDE", str(beside)))
    (tmp_path / "hostile.jdl").write_text(
        f'Executable = "hostile.py"; Arguments = "{beside}"; OutputFile = {{"verdict.json"}};'
        " TTL = 120;"
    )
    jobs = (tmp_path / "neighbour.jdl", tmp_path / "hostile.jdl")
    with socket.socket(socket.AF_UNIX) as listening, agent(prefix, state, *jobs) as run:
        listening.bind(f"\0pilot-test-{os.getpid()}")
        listening.listen()
        other = run.wait_payload(1)
        run.wait_payload(2)
        targets = {
            "state": str(state),
            "agent": run.pid,
            "other": other["payload"],
            "wrapper": other["wrapper"],
            "has_mounts": namespaces.endswith("yes"),
            "socket": f"pilot-test-{os.getpid()}",
        }
        write_whole(beside / "targets.json", targets)
        job = run.wait_until(lambda job: job["status"] in ("DONE", "ERROR_E"), 2)
        write_whole(beside / "over", {})
        code, stdout, stderr = run.end()

    said = verdict_of(job)
    did = sorted(name for name, outcome in said["verdict"].items() if outcome == "did")
    assert did == said["allowed"], said["verdict"]
    assert code == 0, stdout + stderr
    traces = [line["text"] for line in job["traces"]]
    told = next(text for text in traces if text.startswith("confinement: "))
    for kind, held in zip(("PID", "user", "mount"), namespaces.split(), strict=True):
        assert f"own {kind} namespace {held}" in told
    assert f"Landlock ABI {supported_abi()}, the payload's own ABI" in told
    assert "no_new_privs yes" in told
    assert [text.split("[")[1].split("]")[0] for text in traces if "doesn't work [" in text] == [
        *reasons
    ]
    assert not list(Path("/tmp").glob(".planted"))


def write_whole(path: Path, content: dict[str, object]) -> None:
    """Write a file that is whole when it is there."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content))
    part.replace(path)


def verdict_of(job: dict[str, Any]) -> dict[str, Any]:
    """Return what the hostile payload wrote."""
    for output in job["outputs"]:
        if output["name"] == "verdict.json":
            content: dict[str, Any] = json.loads(Path(output["location"]).read_text())
            return content
    raise AssertionError(f"{job['status']}: {job['reason']}")


CHAIN = """#!/usr/bin/env python3
import os, sys
if os.fork() == 0:
    os.setsid()
    for name in ("PILOT_MARK", "PILOT_AGENT"):
        os.environ.pop(name, None)
    if os.fork() == 0:
        os.execvpe(sys.executable, ["MARK", "-c", '''
import os, time
if os.fork() == 0:
    while True:
        time.sleep(60)
while True:
    if os.fork():
        os._exit(0)
    time.sleep(0.001)
'''], {})
    os._exit(0)
os.wait()
HERE
"""


def living(mark: str) -> list[int]:
    """Return the processes whose command line begins with a mark."""
    found = []
    for stat in procfs.all_processes():
        try:
            text = Path(f"/proc/{stat.pid}/cmdline").read_bytes()
        except OSError:
            continue
        if text.startswith(mark.encode()) and stat.state != "Z":
            found.append(stat.pid)
    return found


def assert_none_lives(mark: str) -> None:
    """Look so often that what forks and ends in turns can't hide."""
    deadline = time.monotonic() + 10
    while living(mark):
        assert time.monotonic() < deadline, "a process of the job lives"
    for _ in range(30):
        assert living(mark) == []


def write_chain(directory: Path, mark: str, then: str) -> Path:
    """Write a job that leaves a chain of forks and a daemon behind."""
    (directory / "chain.py").write_text(CHAIN.replace("MARK", mark).replace("HERE", then))
    jdl = directory / "chain.jdl"
    jdl.write_text('Executable = "chain.py"; TTL = 120;')
    return jdl


def test_what_forks_and_exits_for_ever_ends_with_its_job(tmp_path: Path) -> None:
    """A daemon, and a chain that no look at /proc would catch, without the attempt's marker."""
    mark = f"chain-{os.getpid()}-a"
    with agent((), tmp_path / "state", write_chain(tmp_path, mark, "pass")) as run:
        code, _, stderr = run.end()

    assert code == 0, stderr
    assert_none_lives(mark)


def test_nothing_of_a_job_outlives_its_killed_pilot(tmp_path: Path) -> None:
    """Agent and launcher die at once: the kernel ends the rest, and nobody has to look."""
    mark = f"chain-{os.getpid()}-b"
    jdl = write_chain(tmp_path, mark, "import time; time.sleep(1000)")
    with agent((), tmp_path / "state", jdl) as run:
        pids = run.wait_payload()
        launcher = launcher_of(pids["wrapper"], run.pid)
        deadline = time.monotonic() + PATIENCE_S
        while not living(mark):
            assert time.monotonic() < deadline
        os.kill(run.pid, signal.SIGSTOP)
        kill_9(launcher)
        kill_9(run.pid)
        run._child.communicate()

    assert_none_lives(mark)
