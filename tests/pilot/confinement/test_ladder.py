"""What holds on a node is found by trying it; what doesn't is a step with a code."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from pilot.confinement.ladder import RUNGS, BareConfinement, BareLadder
from pilot.confinement.landlock import supported_abi
from pilot.confinement.plan import Confinement
from pilot.launching.bare import bare_check_command, bare_environment
from transport.errors import OperatorError

pytestmark = pytest.mark.real


def script_command(script: str, _: Confinement) -> tuple[str, ...]:
    """Return a check that does something else."""
    return ("/bin/sh", "-c", script, "sh")


def make_ladder(state: Path, script: str = "", **options: object) -> BareLadder:
    """Return a ladder of the real check, or of a script in its place."""
    numbers = itertools.count(1)
    command = partial(script_command, script) if script else bare_check_command
    return BareLadder(
        state,
        command,
        make_nonce=lambda: f"n{next(numbers)}",
        environment=bare_environment(os.environ),
        **options,  # type: ignore[arg-type]
    )


def has_namespaces() -> bool:
    """Tell whether this user gets user, mount and PID namespaces here."""
    command = ["unshare", "-Urpf", "--mount-proc", "true"]
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode
    )


needs_namespaces = pytest.mark.skipif(not has_namespaces(), reason="no user namespaces here")
needs_landlock = pytest.mark.skipif(supported_abi() < 6, reason="no Landlock of ABI 6 here")


@needs_namespaces
@needs_landlock
async def test_a_node_that_has_everything_gives_everything(tmp_path: Path) -> None:
    """Nothing to explain, and nothing is left behind."""
    choice = await make_ladder(tmp_path).choose(BareConfinement.REQUIRE)

    assert choice.namespaces == RUNGS[0]
    assert choice.landlock == supported_abi()
    assert choice.reasons == ()
    assert list(tmp_path.iterdir()) == []


@needs_namespaces
async def test_without_landlock_the_namespaces_hold(tmp_path: Path) -> None:
    """And the state is hidden by them alone."""
    choice = await make_ladder(tmp_path, find_abi=lambda: 0).choose(BareConfinement.PREFER)

    assert (choice.namespaces, choice.landlock) == (RUNGS[0], 0)
    assert len(choice.reasons) == 1
    assert "[no-landlock]" in choice.reasons[0]


@needs_landlock
async def test_an_old_landlock_is_used_and_its_lack_told(tmp_path: Path) -> None:
    """Files are confined, signals are not."""
    choice = await make_ladder(tmp_path, find_abi=lambda: 3).choose(BareConfinement.PREFER)

    assert choice.landlock == 3
    assert "doesn't confine signals" in choice.reasons[0]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("echo 'confinement: unshare: Operation not permitted' >&2; exit 71", "no-user-namespace"),
        ("echo 'confinement: mount /proc: Operation not permitted' >&2", "no-pid-namespace"),
        ("echo 'confinement: mount /: Permission denied' >&2", "no-user-namespace"),
        ("echo 'confinement: landlock: Operation not permitted' >&2", "no-landlock"),
        ("echo hello", "nonsense"),
        ("exit 0", "silent"),
        ("yes", "flooded"),
        ("sleep 60", "no-answer"),
    ],
)
async def test_what_does_not_hold_is_a_step_with_a_code(
    tmp_path: Path, script: str, code: str
) -> None:
    """Each rung is tried that has a chance, with Landlock and without; what is left is nothing."""
    ladder = make_ladder(tmp_path, script, find_abi=lambda: 7, timeout_s=0.3)
    choice = await ladder.choose(BareConfinement.PREFER)

    assert (choice.namespaces, choice.landlock) == ((), 0)
    assert len(choice.reasons) == (2 if code == "no-user-namespace" else 5)
    assert all(f"[{code}]" in reason for reason in choice.reasons)


async def test_it_is_tried_once(tmp_path: Path) -> None:
    """Every job after the first gets the same answer at once."""
    count = tmp_path / "count"
    ladder = make_ladder(tmp_path, f"echo tried >> {count}", find_abi=lambda: 0)
    first = await ladder.choose(BareConfinement.PREFER)

    assert await ladder.choose(BareConfinement.PREFER) is first
    assert len(count.read_text().splitlines()) == 2


async def test_what_is_required_and_missing_is_the_operators_to_mend(tmp_path: Path) -> None:
    """The sentence says what is missing."""
    ladder = make_ladder(tmp_path, "exit 0", find_abi=lambda: 0)

    with pytest.raises(OperatorError, match="no-landlock"):
        await ladder.choose(BareConfinement.REQUIRE)


async def test_never_tries_nothing(tmp_path: Path) -> None:
    """Not even whether it could."""
    ladder = make_ladder(tmp_path / "absent", "exit 0")
    choice = await ladder.choose(BareConfinement.NEVER)

    assert (choice.namespaces, choice.landlock) == ((), 0)


@needs_namespaces
async def test_a_check_that_reads_what_is_hidden_does_not_hold(tmp_path: Path) -> None:
    """Namespaces that hide the wrong directory are found out."""
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    state.mkdir()
    elsewhere.mkdir()

    def hiding_elsewhere(confinement: Confinement) -> tuple[str, ...]:
        return bare_check_command(confinement._replace(hide=str(elsewhere)))

    ladder = BareLadder(
        state,
        hiding_elsewhere,
        make_nonce=lambda: "n0nce",
        environment=bare_environment(os.environ),
        find_abi=lambda: 0,
    )
    choice = await ladder.choose(BareConfinement.PREFER)

    assert choice.namespaces == ()
    assert [reason.split("[")[1].split("]")[0] for reason in choice.reasons] == [
        "no-landlock",
        "not-confined",
        "not-confined",
    ]
