"""What the runtimes beside Apptainer are told: command lines and environments, without them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pilot.containers.dialects import DIALECTS, dialect_of
from pilot.containers.runtime import Bind, ContainerLaunch, Rung, Runtime, RuntimeKind
from pilot.containers.search import find_runtimes
from tests.pilot.containers.real_runtimes import KINDS
from tests.pilot.sandbox import script
from transport.errors import OperatorError, UserError

WORK = Bind(source="/scratch/1/work", destination="/tmp/job/work")
BUNDLE = Bind(source="/scratch/bundle", destination="/tmp/pilot", read_only=True)
NEEDY = [kind for kind in KINDS if kind is not RuntimeKind.BUBBLEWRAP]
"""Those that need a directory of the launch's."""
IN_FIELDS = (RuntimeKind.PODMAN, RuntimeKind.DOCKER)


def launch(
    kind: RuntimeKind,
    *binds: Bind,
    image: str = "/images/el9",
    scratch_directory: str = "/scratch/1/tmp",
    program: str = "/opt/it",
    own_pid_namespace: bool = True,
    environment: dict[str, str] | None = None,
) -> ContainerLaunch:
    """Make a launch in which only what a test is about has to be said."""
    return ContainerLaunch(
        runtime=Runtime(path=program, kind=kind, arguments=("--own",)),
        image=image,
        binds=binds or (WORK, BUNDLE),
        working_directory="/tmp/job/work",
        scratch_directory=scratch_directory,
        rung=Rung(own_pid_namespace=own_pid_namespace),
        environment=environment or {},
    )


def said(kind: RuntimeKind, tmp_path: Path, *binds: Bind, own_pid_namespace: bool = True) -> str:
    """Return what the program is told, after all shell, by one that only repeats it."""
    program = tmp_path / "it"
    program.write_text('#!/bin/sh\nfor word; do printf "%s|" "$word"; done\n')
    program.chmod(0o755)
    (tmp_path / "image" / "bin").mkdir(parents=True)
    (tmp_path / "image" / "lib").symlink_to("usr/lib")
    planned = launch(
        kind,
        *binds,
        image=str(tmp_path / "image"),
        program=str(program),
        own_pid_namespace=own_pid_namespace,
    )
    done = subprocess.run(
        [*dialect_of(kind).command(planned), "wrapper", "a b"],
        env=dialect_of(kind).environment(planned, {}),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.replace(str(tmp_path), "")


@pytest.mark.real
def test_bubblewrap_is_told_the_entries_then_the_mounts_then_the_command(tmp_path: Path) -> None:
    """In this order: a mount is made in what was mounted before it."""
    assert said(RuntimeKind.BUBBLEWRAP, tmp_path) == (
        "--own|--tmpfs|/|--symlink|usr/lib|/lib|--ro-bind|/image/bin|/bin|"
        "--unshare-ipc|--unshare-uts|--cap-drop|ALL|--proc|/proc|--dev|/dev|--unshare-pid|"
        "--ro-bind-try|/sys|/sys|--ro-bind-try|/etc/hosts|/etc/hosts|"
        "--ro-bind-try|/etc/resolv.conf|/etc/resolv.conf|--bind|/scratch/1/tmp|/tmp|"
        "--bind|/scratch/1/work|/tmp/job/work|--ro-bind|/scratch/bundle|/tmp/pilot|"
        "--remount-ro|/|--chdir|/tmp/job/work|wrapper|a b|"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_value_of_a_variable_is_in_argv(kind: RuntimeKind) -> None:
    """Which everybody on the node may read; the environment only its owner may."""
    planned = launch(kind, environment={"PILOT_MARK": "s3cret"})
    dialect = dialect_of(kind)

    assert not any("s3cret" in word for word in dialect.command(planned))
    assert dialect.environment(planned, {})["PILOT_MARK"] == "s3cret"


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_pilots_environment_is_handed_on(kind: RuntimeKind) -> None:
    """But for what finds a daemon, and who the user is."""
    host = {"X509_USER_PROXY": "/tmp/x", "LD_PRELOAD": "x", "PODMAN_USERNS": "y", "TERM": "t"}

    assert not host.keys() & dialect_of(kind).environment(launch(kind), host).keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["PATH", "HOME", "A=B", "A B", ""])
def test_a_variable_that_is_the_runtimes_own_is_refused(kind: RuntimeKind, name: str) -> None:
    """It would change the runtime, or not arrive."""
    planned = launch(kind, environment={name: "x"})
    dialect = dialect_of(kind)

    with pytest.raises(OperatorError, match="can't be handed into a container"):
        dialect.environment(planned, {})


@pytest.mark.parametrize("kind", IN_FIELDS)
@pytest.mark.parametrize("path", ["/data/a,b", '/data/a"b', "/data/a\nb", "data"])
def test_a_bind_that_cannot_be_said_is_refused(kind: RuntimeKind, path: str) -> None:
    """A comma would begin another field."""
    with pytest.raises(OperatorError, match="can't be bound"):
        dialect_of(kind).command(launch(kind, Bind(source=path, destination="/tmp/in")))


def test_charliecloud_splits_at_colons() -> None:
    """It has no escape for them."""
    bind = Bind(source="/data/a:b", destination="/tmp/in")

    with pytest.raises(OperatorError, match="can't be bound"):
        dialect_of(RuntimeKind.CHARLIECLOUD).command(launch(RuntimeKind.CHARLIECLOUD, bind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image", ["docker://alpine", "el9", "-x", "/a\nb", ""])
def test_an_image_that_is_no_path_is_the_users_business(kind: RuntimeKind, image: str) -> None:
    """Nothing is pulled, and nothing that looks like an option reaches the runtime."""
    with pytest.raises(UserError, match="not an absolute path"):
        dialect_of(kind).command(launch(kind, image=image))


@pytest.mark.parametrize("kind", NEEDY)
def test_those_that_need_a_directory_say_so(kind: RuntimeKind) -> None:
    """For /tmp, and for what they are to mount on."""
    with pytest.raises(OperatorError, match="can't be used without a directory"):
        dialect_of(kind).command(launch(kind, scratch_directory=""))


def test_bubblewrap_makes_a_tmp_in_memory_where_it_has_to() -> None:
    """It is the only one that can do without a directory."""
    command = dialect_of(RuntimeKind.BUBBLEWRAP).command(
        launch(RuntimeKind.BUBBLEWRAP, scratch_directory="")
    )

    at = command.index("--tmpfs")
    assert command[at + 1] == "/tmp"


@pytest.mark.parametrize("is_root", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_rung_has_all_that_there_is(kind: RuntimeKind, is_root: bool) -> None:
    """And none is there twice."""
    rungs = dialect_of(kind).rungs(Runtime(path="/opt/it", kind=kind), is_root=is_root)

    assert rungs[0].own_pid_namespace
    assert len(set(rungs)) == len(rungs)


def test_docker_finds_the_daemon_that_the_pilot_was_told() -> None:
    """The client's variables are its own business and don't go inside."""
    planned = launch(RuntimeKind.DOCKER)
    dialect = dialect_of(RuntimeKind.DOCKER)

    assert dialect.environment(planned, {"DOCKER_HOST": "unix:///x"})["DOCKER_HOST"] == "unix:///x"
    assert "--env=DOCKER_HOST" not in dialect.command(planned)


def test_a_daemon_outside_the_slot_comes_last() -> None:
    """The batch system doesn't see what it starts."""
    assert list(DIALECTS) == [
        "apptainer",
        "singularity",
        "bubblewrap",
        "podman",
        "charliecloud",
        "docker",
    ]


@pytest.mark.real
async def test_a_podman_by_the_name_of_docker_is_podman(tmp_path: Path) -> None:
    """A package of Podman's installs it; what it says of itself counts."""
    script(tmp_path / "docker", "echo podman version 4.3.1")

    found = await find_runtimes(str(tmp_path), (dialect_of(RuntimeKind.DOCKER),))

    assert [runtime.kind for runtime in found] == ["podman"]
