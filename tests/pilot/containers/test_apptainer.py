from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pilot.containers.dialects import dialect_of
from pilot.containers.runtime import (
    Bind,
    ContainerLaunch,
    Rung,
    Runtime,
    RuntimeKind,
)
from tests.pilot.sandbox import (
    USERS,
    make_image,
    needs_apptainer,
    needs_userns,
    owned_directory,
    public_directory,
    site_runtime,
)
from transport.errors import OperatorError, UserError


def launch_command(planned: ContainerLaunch) -> tuple[str, ...]:
    """Return the command line, as its runtime's dialect has it."""
    return dialect_of(planned.runtime.kind).command(planned)


def launch_environment(planned: ContainerLaunch, host: Mapping[str, str]) -> dict[str, str]:
    """Return the environment, as its runtime's dialect has it."""
    return dialect_of(planned.runtime.kind).environment(planned, host)


APPTAINER = Runtime(path="/usr/bin/apptainer", kind=RuntimeKind.APPTAINER)
SINGULARITY = Runtime(path="/usr/bin/singularity", kind=RuntimeKind.SINGULARITY)
WORK = Bind(source="/scratch/1/work", destination="/tmp/job")
BUNDLE = Bind(source="/scratch/bundle-1", destination="/tmp/pilot", read_only=True)


def launch(
    *,
    runtime: Runtime = APPTAINER,
    image: str = "/images/el9",
    binds: tuple[Bind, ...] = (WORK, BUNDLE),
    scratch_directory: str = "",
    own_pid_namespace: bool = True,
    use_userns: bool = False,
    environment: dict[str, str] | None = None,
) -> ContainerLaunch:
    """Make a launch plan in which only what a test is about has to be said."""
    return ContainerLaunch(
        runtime=runtime,
        image=image,
        binds=binds,
        scratch_directory=scratch_directory,
        working_directory="/tmp/job",
        rung=Rung(own_pid_namespace=own_pid_namespace, use_userns=use_userns),
        environment=environment or {},
    )


# --- the plan --------------------------------------------------------------------------------


def test_the_command_line_of_an_ordinary_launch() -> None:
    """This line was seen working under every mix of overlay and underlay."""
    command = launch_command(launch(scratch_directory="/scratch/1/tmp"))

    assert " ".join(command) == (
        "/usr/bin/apptainer exec -C --no-home --no-privs --workdir /scratch/1/tmp "
        "-B /scratch/1/work:/tmp/job -B /scratch/bundle-1:/tmp/pilot:ro --pwd /tmp/job "
        "/images/el9"
    )


def test_without_a_pid_namespace_all_else_is_asked_for() -> None:
    """-C is these three and --pid."""
    command = launch_command(launch(own_pid_namespace=False))

    assert command[2:5] == ("--contain", "--ipc", "--cleanenv")
    assert "-C" not in command
    assert "--pid" not in command


def test_a_user_namespace_is_asked_for_only_where_it_must_be() -> None:
    """A setuid installation may be the only one that works for an ordinary user."""
    assert "--userns" in launch_command(launch(use_userns=True))
    assert "--userns" not in launch_command(launch())


def test_separators_in_paths_are_quoted_for_apptainer() -> None:
    """-B has no escape for a destination or a backslash; --mount quotes whatever it is."""
    odd = Bind(source='/data/a:b,c\\d"e', destination="/tmp/in", read_only=True)

    command = launch_command(launch(binds=(WORK, odd)))

    assert command[command.index("--mount") :][:4] == (
        "--mount",
        '"type=bind","source=/scratch/1/work","destination=/tmp/job"',
        "--mount",
        '"type=bind","source=/data/a:b,c\\d""e","destination=/tmp/in","ro"',
    )
    assert "-B" not in command


@pytest.mark.parametrize(
    ("path", "runtime"),
    [
        ("/data/a:b", SINGULARITY),
        ("/data/a,b", SINGULARITY),
        ("/data/a\\b", SINGULARITY),
        ('/data/a"b', SINGULARITY),
        ("/data/a\nb", APPTAINER),
        ("data", APPTAINER),
    ],
)
def test_a_path_that_cannot_be_expressed_is_refused(path: str, runtime: Runtime) -> None:
    """A bind that the runtime would read as something else is never tried."""
    bind = Bind(source=path, destination="/tmp/in")

    with pytest.raises(OperatorError, match="can't be bound"):
        launch_command(launch(runtime=runtime, binds=(bind,)))


@pytest.mark.parametrize("image", ["docker://alpine", "el9.sif", "-x", "/a://b", "/a\nb", ""])
def test_an_image_that_is_no_path_is_the_users_business(image: str) -> None:
    """Nothing is pulled, and nothing that looks like an option reaches the runtime."""
    with pytest.raises(UserError, match="not an absolute path"):
        launch_command(launch(image=image))


def test_the_runtime_gets_little_of_the_pilots_environment() -> None:
    """Settings of a container around the pilot would change the launch."""
    host = {"PATH": "/bin", "HOME": "/home/x", "APPTAINER_BIND": "/etc", "SECRET": "s", "TERM": "t"}

    assert launch_environment(launch(), host) == {"PATH": "/bin", "HOME": "/home/x"}


def test_the_wrappers_variables_travel_under_the_runtimes_prefix() -> None:
    """They are in the environment and not in argv, which everybody may read."""
    planned = launch(environment={"PILOT_MARK": "m-1"}, scratch_directory="/s")

    assert launch_environment(planned, {}) == {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "APPTAINER_TMPDIR": "/s",
        "APPTAINER_CACHEDIR": "/s",
        "APPTAINERENV_PILOT_MARK": "m-1",
    }
    assert "m-1" not in " ".join(launch_command(planned))
    assert launch_environment(
        launch(runtime=SINGULARITY, environment={"A": "b"}), {"PATH": "p"}
    ) == {
        "PATH": "p",
        "SINGULARITYENV_A": "b",
    }


@pytest.mark.parametrize(
    ("name", "value"), [("A", "$(id)"), ("A", "`id`"), ("A", 'a"b'), ("A", "a\nb"), ("A=B", "c")]
)
def test_a_variable_that_the_runtime_would_evaluate_is_refused(name: str, value: str) -> None:
    """The runtime's shell runs what it finds in a value."""
    with pytest.raises(OperatorError, match="can't be handed into a container"):
        launch_environment(launch(environment={name: value}), {})


# --- the same with the real program ----------------------------------------------------------

LAYERS = [(overlay, underlay) for overlay in ("yes", "no") for underlay in ("yes", "no")]


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """Give a busybox image that every user may read."""
    with public_directory() as directory:
        yield make_image(directory / "image")


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory that every user may read."""
    with public_directory() as directory:
        yield directory


def run_inside(planned: ContainerLaunch, shell: str) -> str:
    """Run a line of shell in the container and return what it printed."""
    ran = subprocess.run(
        [*launch_command(planned), "sh", "-c", shell],
        env=launch_environment(planned, os.environ),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.real
@pytest.mark.apptainer
@needs_apptainer
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(("overlay", "underlay"), LAYERS)
def test_the_line_works_whatever_layers_a_site_has(
    place: Path, image: Path, user: str, overlay: str, underlay: str
) -> None:
    """Work can be written and is seen on the host, the bundle can't; /tmp is on the disk."""
    work = owned_directory(place / "work", user)
    scratch = owned_directory(place / "scratch", user)
    bundle = owned_directory(place / "bundle", user)
    (bundle / "file").write_text("bundled\n")
    settings = {"enable overlay": overlay, "enable underlay": underlay, "sessiondir max size": "1"}
    planned = launch(
        runtime=site_runtime(place, user, settings),
        image=str(image),
        binds=(
            Bind(source=str(work), destination="/tmp/job"),
            Bind(source=str(bundle), destination="/tmp/pilot", read_only=True),
        ),
        scratch_directory=str(scratch),
        use_userns=needs_userns(user),
        environment={"PILOT_MARK": "m-1"},
    )

    said = run_inside(
        planned,
        "pwd; cat /tmp/pilot/file; echo $PILOT_MARK; touch x /tmp/y /tmp/pilot/z 2>/dev/null;"
        "dd if=/dev/zero of=/tmp/big bs=1M count=3 2>/dev/null && echo room;"
        "[ $$ -lt 100 ] && echo own; grep CapEff /proc/self/status",
    )

    assert said.split() == ["/tmp/job", "bundled", "m-1", "room", "own", "CapEff:", "0" * 16]
    assert (work / "x").exists()
    assert (scratch / "tmp" / "y").exists()
    assert not (bundle / "z").exists()


@pytest.mark.real
@pytest.mark.apptainer
@needs_apptainer
@pytest.mark.parametrize(
    "name", ["a:b", "a,b", "a b", "a'b", 'a"b', "a\\b", "a$b", "a;b*", "é", "a=b%"]
)
def test_odd_names_of_directories_are_bound_as_they_are(
    place: Path, image: Path, name: str
) -> None:
    """What users call their directories is not ours to choose."""
    source = owned_directory(place / name, "")
    (source / "file").write_text("here\n")
    planned = launch(
        runtime=site_runtime(place, "", {}),
        image=str(image),
        binds=(Bind(source=str(source), destination="/tmp/job", read_only=True),),
        use_userns=needs_userns(""),
    )

    assert run_inside(planned, "cat /tmp/job/file") == "here\n"


@pytest.mark.real
@pytest.mark.apptainer
@needs_apptainer
def test_a_variable_arrives_as_it_was_sent(place: Path, image: Path) -> None:
    """Of what is not refused, nothing is evaluated, split or escaped."""
    value = "a b'c;d*e|f&g(h){i}<j>~!#%^=+,:@?[k]"
    planned = launch(
        runtime=site_runtime(place, "", {}),
        image=str(image),
        binds=(Bind(source=str(owned_directory(place / "w", "")), destination="/tmp/job"),),
        use_userns=needs_userns(""),
        environment={"VALUE": value},
    )

    assert run_inside(planned, 'printf %s "$VALUE"') == value
