"""What is said to each version of Singularity and Apptainer, and what old ones do with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilot.containers.apptainer import APPTAINER, SINGULARITY, version_of
from pilot.containers.check import Asked, find_cause, verify
from pilot.containers.runtime import (
    Bind,
    ContainerLaunch,
    Reason,
    Rung,
    Runtime,
    RuntimeKind,
)
from tests.pilot.sandbox import fake_runtime
from transport.errors import OperatorError

WORK = Bind(source="/s/work", destination="/tmp/job/work")
BUNDLE = Bind(source="/s/bundle", destination="/tmp/pilot", read_only=True)
BEST = Rung()
ODD = Bind(source="/s/a:b", destination="/tmp/inputs/0", read_only=True)
PLAIN = "-B /s/work:/tmp/job/work -B /s/bundle:/tmp/pilot:ro --pwd /tmp/job/work /image"


def runtime(version: str, *arguments: str) -> Runtime:
    """Make a runtime that says this of itself."""
    kind = RuntimeKind.APPTAINER if "apptainer" in version else RuntimeKind.SINGULARITY
    return Runtime(path=f"/usr/bin/{kind}", kind=kind, version=version, arguments=arguments)


def said(
    version: str, *arguments: str, rung: Rung = BEST, binds: tuple[Bind, ...] = (WORK, BUNDLE)
) -> str:
    """Return the command line for a version."""
    used = runtime(version, *arguments)
    launch = ContainerLaunch(
        runtime=used,
        image="/image",
        binds=binds,
        working_directory="/tmp/job/work",
        scratch_directory="/s/scratch",
        rung=rung,
    )
    dialect = APPTAINER if used.kind is RuntimeKind.APPTAINER else SINGULARITY
    return " ".join(dialect.command(launch))


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("2.4.2-dist", "-C --workdir /s/scratch"),
        ("2.6.1-dist", "-C --no-home --workdir /s/scratch"),
        ("singularity version 3.0.1", "-C --no-home --no-privs --workdir /s/scratch"),
        ("singularity version 3.8.7-1.el7", "-C --no-home --no-privs --workdir /s/scratch"),
        ("singularity-ce version 4.1.5-sid", "-C --no-home --no-privs --workdir /s/scratch"),
        ("apptainer version 1.0.0-rc.2", "-C --no-home --no-privs --workdir /s/scratch"),
        ("apptainer version 1.4.5", "-C --no-home --no-privs --workdir /s/scratch"),
        ("", "-C --no-home --no-privs --workdir /s/scratch"),
        ("apptainer of whatever version", "-C --no-home --no-privs --workdir /s/scratch"),
    ],
)
def test_a_version_is_asked_for_what_it_knows(version: str, options: str) -> None:
    """An option that it doesn't know would end the launch."""
    name = "apptainer" if "apptainer" in version else "singularity"

    assert said(version) == f"/usr/bin/{name} exec {options} {PLAIN}"


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("2.6.1-dist", "--contain --ipc --cleanenv --no-home -u --workdir /s/scratch"),
        (
            "singularity version 3.8.7",
            "--contain --ipc --cleanenv --no-home --no-privs --userns --workdir /s/scratch",
        ),
    ],
)
def test_the_last_rung_in_each_generation(version: str, options: str) -> None:
    """Without a PID namespace, in a user namespace."""
    rung = Rung(own_pid_namespace=False, use_userns=True)

    assert said(version, rung=rung) == f"/usr/bin/singularity exec {options} {PLAIN}"


def test_a_runtimes_own_arguments_come_before_the_command() -> None:
    """-c is the program's, not exec's."""
    assert said("apptainer version 1.4.5", "-c", "/s/conf").startswith(
        "/usr/bin/apptainer -c /s/conf exec -C "
    )


@pytest.mark.parametrize(
    "version",
    [
        "singularity version 3.9.0",
        "SingularityPRO version 3.9-8.el7",
        "singularity-ce version 4.2.1",
        "apptainer version 1.0.3",
        "apptainer",
    ],
)
def test_an_odd_path_goes_by_mount_and_takes_the_others_along(version: str) -> None:
    """Some versions do all of one kind before the other, and parents must come first."""
    command = said(version, binds=(WORK, ODD))

    assert '--mount "type=bind","source=/s/work","destination=/tmp/job/work" --mount ' in command
    assert '"type=bind","source=/s/a:b","destination=/tmp/inputs/0","ro" --pwd' in command
    assert " -B " not in command


@pytest.mark.parametrize("version", ["2.6.1-dist", "singularity version 3.8.7", ""])
def test_an_odd_path_is_refused_where_it_cannot_be_said(version: str) -> None:
    """The sentence names the path and what it must be free of."""
    with pytest.raises(OperatorError, match=r"'/s/a:b' can't be bound .* by singularity"):
        said(version, binds=(WORK, ODD))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2.6.1-dist", (2, 6, 1)),
        ("2.6-HEAD.9103f01", (2, 6, 0)),
        ("singularity version 3.5.0~rc.1-1.el7", (3, 5, 0)),
        ("SingularityPRO version 3.9-8.el7", (3, 9, 0)),
        ("apptainer version 1.4.5", (1, 4, 5)),
        ("apptainer version 1.10.0+12-gabc", (1, 10, 0)),
        ("singularity", (3, 0, 0)),
        ("apptainer", (1, 0, 0)),
    ],
)
def test_a_version_is_found_in_whatever_it_says(text: str, expected: tuple[int, int, int]) -> None:
    """Builders put their own before and after it."""
    assert version_of(runtime(text)) == expected


def test_variables_and_settings_have_the_programs_prefix() -> None:
    """SINGULARITYENV_ has been read since 2.x; Apptainer warns of it."""
    launch = ContainerLaunch(
        runtime=runtime("2.6.1-dist"),
        image="/image",
        binds=(),
        working_directory="/",
        scratch_directory="/s",
        environment={"MARK": "m"},
    )

    assert SINGULARITY.environment(launch, {"PATH": "/bin", "SINGULARITY_BIND": "/etc"}) == {
        "PATH": "/bin",
        "SINGULARITY_TMPDIR": "/s",
        "SINGULARITY_CACHEDIR": "/s",
        "SINGULARITYENV_MARK": "m",
    }


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("/usr/bin/apptainer", "/etc/apptainer/apptainer.conf"),
        ("/usr/local/bin/apptainer", "/usr/local/etc/apptainer/apptainer.conf"),
        ("/opt/apptainer/1.3/bin/apptainer", "/opt/apptainer/1.3/etc/apptainer/apptainer.conf"),
    ],
)
def test_a_configuration_file_lies_below_the_programs_prefix(path: str, first: str) -> None:
    """Of a package, of a build from source, of a directory of its own."""
    files = APPTAINER.configuration(Runtime(path=path, kind=RuntimeKind.APPTAINER))

    assert first in files
    assert all(file.endswith("etc/apptainer/apptainer.conf") for file in files)


def test_an_installation_in_cvmfs_has_one_a_machine_type() -> None:
    """Its bin holds a script that goes on to BASE/x86_64/bin."""
    path = APPTAINER.programs[1]

    files = APPTAINER.configuration(Runtime(path=path, kind=RuntimeKind.APPTAINER))

    base = path.removesuffix("/bin/apptainer")
    assert f"{base}/{os.uname().machine}/etc/apptainer/apptainer.conf" in files


@pytest.mark.parametrize("option", ["-c", "--config"])
def test_a_configuration_that_is_told_is_the_only_one(option: str) -> None:
    """It is what the memory of a verification depends on."""
    used = runtime("apptainer version 1.4.5", option, "/s/conf")

    assert APPTAINER.configuration(used) == ("/s/conf",)


# --- what old ones do ------------------------------------------------------------------------

SKIPS_OUTPUT = """
while [ "$1" != check ]; do shift; done
printf '%s' '{"nonce":"'$2'","pid":14,"namespaces":{"pid":1},"uid":0,"uid_map":"","cgroup":"",'
printf '%s' '"mounts":1,"no_new_privileges":true,"python":"3.11","directories":['
printf '%s' '{"path":"/tmp/job/work","nonce":"","is_writable":true}]}'
"""


@pytest.mark.real
@pytest.mark.parametrize(
    ("warning", "meaning"),
    [
        ("", ""),
        (
            "WARNING: Skipping user bind, non existent bind point (directory) in container: '/x'",
            "the image lacks a directory that is bound",
        ),
    ],
)
async def test_a_bind_that_was_skipped_is_noticed(
    tmp_path: Path, warning: str, meaning: str
) -> None:
    """3.1 said nothing and exited with 0, 2.x warned (singularity #3797): the check reads."""
    skips = fake_runtime(tmp_path, f'echo "{warning}" >&2\n{SKIPS_OUTPUT}\nexit 0')
    launch = ContainerLaunch(
        runtime=skips, image="/image", binds=(WORK,), working_directory="/tmp/job/work"
    )

    verification = await verify(
        launch,
        ("loader", "check"),
        Asked(nonce="n0nce", writable=("/tmp/job/work",)),
        host=os.environ,
        timeout_s=30.0,
    )

    assert verification.reason is Reason.NOT_MOUNTED
    assert "/tmp/job/work inside is not what was bound there" in verification.detail
    assert meaning in verification.detail


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ERROR  : Unknown image format/type: /image.sif", Reason.IMAGE_FORMAT),
        (
            "ERROR  : Failed invoking the NEWUSER namespace runtime: Invalid argument",
            Reason.NO_USER_NAMESPACE,
        ),
        (
            "FATAL:   container creation failed: mount /a b->/x error: while mounting /a b: "
            "destination /x y doesn't exist in container",
            Reason.NO_MOUNT_POINT,
        ),
    ],
)
def test_what_old_and_new_say_has_a_reason(line: str, reason: Reason) -> None:
    """2.x, 3.x and 1.x alike."""
    assert find_cause(line.encode(), SINGULARITY.causes)[0] is reason
