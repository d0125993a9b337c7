from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from pilot.bounded_process import Finished
from pilot.probe import host as host_module
from pilot.probe.host import GROUPS, look_at_host, merge
from pilot.probe.look import LOOKS
from tests.pilot.probe.hung import hung_directory
from tests.pilot.sandbox import script

GROUP = ("system", "kernel")


def finished(stdout: str, *, is_timed_out: bool = False, stderr: str = "") -> Finished:
    """Make a process's end."""
    code = None if is_timed_out else 0
    return Finished(
        exit_code=code,
        stdout=stdout.encode(),
        stderr=stderr.encode(),
        seconds=4.0,
        is_timed_out=is_timed_out,
    )


def line(look: str, facts: str = "{}", more: str = "") -> str:
    """Make a look's line."""
    return f'{{"look": "{look}", "facts": {facts}{more}}}\n'


def test_the_lines_of_all_groups_become_one_host() -> None:
    """Each field is one look's."""
    found = merge(
        {
            ("system",): finished(line("system", '{"cores": 8, "os_release": {"ID": "el9"}}')),
            ("gpu",): finished(line("gpu", '{"gpu": "none"}')),
        }
    )

    assert found.missing == ()
    assert found.host.cores == 8
    assert found.host.os_release == {"ID": "el9"}
    assert found.host.gpu == "none"
    assert found.host.landlock_abi is None


def test_a_look_that_hung_does_not_take_those_before_it() -> None:
    """What it was about is named."""
    found = merge({GROUP: finished(line("system", '{"cores": 8}'), is_timed_out=True)})

    assert found.host.cores == 8
    assert found.missing == ("what the kernel allows: no answer in 4 s",)


def test_a_look_that_failed_says_how() -> None:
    """In its line, or on stderr where there is none."""
    told = line("system", more=', "problem": "OSError: no"')
    found = merge({GROUP: finished(told, stderr="Traceback\nKilled")})

    assert found.missing == (
        "processors and operating system: OSError: no",
        "what the kernel allows: the look failed (Killed)",
    )


@pytest.mark.parametrize(
    "stdout",
    ["", "nonsense\n", "{}\n", "\xff\n", line("other"), line("system", '{"cores": "many"}')],
)
def test_nonsense_is_no_harm(stdout: str) -> None:
    """A probe never fails for what a look prints."""
    found = merge({("system",): finished(stdout)})

    assert found.host.cores is None
    assert len(found.missing) == 1


def test_a_cvmfs_that_does_not_answer_is_hung() -> None:
    """And not merely unknown."""
    assert merge({("cvmfs",): finished("", is_timed_out=True)}).host.cvmfs_hung
    assert not merge({("cvmfs",): finished("")}).host.cvmfs_hung


def test_every_look_is_taken() -> None:
    """In one of the groups."""
    assert sorted(look for group in GROUPS for look in group) == sorted(LOOKS)


@pytest.mark.real
async def test_this_machine_is_looked_at(tmp_path: Path) -> None:
    """Everything that any Linux has is there; CVMFS is not."""
    found = await look_at_host(
        {**os.environ, "TMPDIR": str(tmp_path)}, cvmfs=str(tmp_path), timeout_s=60
    )

    host = found.host
    assert found.missing == ()
    assert host.cores == len(os.sched_getaffinity(0))
    assert host.kernel == os.uname().release
    assert host.is_root == (os.geteuid() == 0)
    assert host.temp_directory == str(tmp_path)
    assert host.temp_free_bytes
    assert host.cvmfs_mounted is False
    assert "MemTotal" in host.memory_kb
    assert host.landlock_abi is not None
    assert host.user_namespace == "yes" or host.user_namespace.startswith("E")  # type: ignore[union-attr]
    assert None not in (host.running_in, host.cgroup_v2_available, host.cgroup_delegated, host.gpu)


@pytest.mark.real
@pytest.mark.parametrize(
    ("environment", "seen"),
    [
        ({"APPTAINER_CONTAINER": "/x.sif"}, "Singularity"),
        ({"SINGULARITY_CONTAINER": "/x"}, "Singularity"),
    ],
)
async def test_a_container_around_the_pilot_is_seen(
    environment: Mapping[str, str], seen: str
) -> None:
    """By what it leaves in the environment."""
    found = await look_at_host(environment, timeout_s=60)

    assert found.host.running_in == seen


@pytest.mark.real
@pytest.mark.parametrize(
    ("smi", "gpu"),
    [
        ("echo 'GPU 0: Tesla'; echo 'GPU 1: Tesla'", "nvidia x 2"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "none"),
    ],
)
async def test_a_gpu_is_what_its_own_program_lists(tmp_path: Path, smi: str, gpu: str) -> None:
    """A program that fails, without a device, is no GPU."""
    if any(name.startswith("nvidia") for name in os.listdir("/dev")):
        pytest.skip("this machine has an NVIDIA device of its own")
    script(tmp_path / "nvidia-smi", smi)

    found = await look_at_host({"PATH": f"{tmp_path}:/usr/bin:/bin"}, timeout_s=60)

    assert found.host.gpu == gpu


@pytest.mark.real
async def test_a_repository_of_cvmfs_is_gone_into(tmp_path: Path) -> None:
    """Autofs mounts it then; a directory that says nothing of itself has no version."""
    (tmp_path / "alice.cern.ch").mkdir()

    found = await look_at_host({}, cvmfs=str(tmp_path), timeout_s=60)

    assert found.host.cvmfs_mounted is True
    assert found.host.cvmfs_version is None


@pytest.mark.real
async def test_a_dead_cvmfs_costs_its_deadline(tmp_path: Path) -> None:
    """A FUSE file system that nobody answers for; all else is there."""
    with hung_directory(tmp_path) as dead:
        found = await look_at_host({}, cvmfs=str(dead), timeout_s=2)

    assert found.host.cvmfs_hung
    assert found.host.cvmfs_mounted is None
    assert found.host.cores
    assert [text.partition(":")[0] for text in found.missing] == ["CVMFS"]


@pytest.mark.real
async def test_a_helper_that_sleeps_for_ever_costs_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every look is named as missing."""
    sleeper = tmp_path / "look.py"
    sleeper.write_text("import time\ntime.sleep(3600)\n")
    monkeypatch.setattr(host_module, "LOOK_PROGRAM", sleeper)

    found = await look_at_host({}, timeout_s=0.5)

    assert len(found.missing) == len(LOOKS)
