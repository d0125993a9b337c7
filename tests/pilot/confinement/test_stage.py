"""The stage before a bare wrapper: what it imports, how it ends, whom it takes along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pilot.confinement.plan import Confinement
from tests.pilot.confinement.test_ladder import has_namespaces

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not has_namespaces(), reason="no user namespaces for this user here"),
]
ROOT = Path(__file__).parents[3]

# Enters what its arguments say, and goes on with a line of Python.
_ENTER = """
import sys
sys.path.insert(0, sys.argv[1])
from pilot.confinement.plan import parsed
from pilot.confinement.stage import enter
before = set(sys.modules)
held = enter(parsed(sys.argv[3:-1]), ())
exec(sys.argv[2])
"""
NEW_MODULES = {"pilot", "pilot.confinement"} | {
    f"pilot.confinement.{name}" for name in ("domains", "landlock", "namespaces", "outside", "plan")
}


def confined(directory: Path, text: str) -> subprocess.Popen[str]:
    """Start a line of Python within the stage, hiding an empty directory."""
    hidden = directory / "hidden"
    hidden.mkdir(exist_ok=True)
    confinement = Confinement(
        namespaces=("user", "mnt", "pid"), write=(str(directory),), hide=os.path.realpath(hidden)
    )
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _ENTER, str(ROOT), text, *confinement.arguments()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_imports_nothing_that_a_wrapper_does_not_import_anyway(tmp_path: Path) -> None:
    """Beside its own few files: asyncio needs all of these."""
    with confined(tmp_path, "import asyncio; print(*before)") as child:
        stage = set(child.communicate()[0].split())
    text = "import __future__, asyncio, ctypes, resource, sys; print(*sys.modules)"
    floor = subprocess.run(
        [sys.executable, "-I", "-S", "-c", text],
        capture_output=True,
        text=True,
        check=True,
    )

    assert stage - set(floor.stdout.split()) == NEW_MODULES | {"pilot.confinement.stage"}


def test_inside_is_the_first_process_with_the_callers_own_ids(tmp_path: Path) -> None:
    """Files keep their owner."""
    text = "import os; print(os.getpid(), os.getuid(), os.getgid(), *held.namespaces)"
    with confined(tmp_path, text) as child:
        said, _ = child.communicate()

    assert said.split() == ["1", str(os.getuid()), str(os.getgid()), "user", "mnt", "pid"]


@pytest.mark.parametrize(("text", "code"), [("sys.exit(7)", 7), ("pass", 0), ("1/0", 1)])
def test_the_outside_ends_with_the_insides_exit_code(tmp_path: Path, text: str, code: int) -> None:
    """As if there were nobody in between."""
    with confined(tmp_path, text) as child:
        child.communicate()

    assert child.returncode == code


def inside_of(child: subprocess.Popen[str]) -> int:
    """Return the host's PID of the inside, when it has said that it is there."""
    assert child.stdout is not None
    assert child.stdout.readline() == "here\n"
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text()
    return int(children)


WAIT = "print('here', flush=True); import time; time.sleep(60)"


def test_the_outside_dies_of_the_signal_that_the_inside_dies_of(tmp_path: Path) -> None:
    """So that an agent is told the truth."""
    with confined(tmp_path, WAIT) as child:
        os.kill(inside_of(child), signal.SIGKILL)
        child.communicate()

    assert child.returncode == -signal.SIGKILL


def test_the_inside_dies_with_the_outside(tmp_path: Path) -> None:
    """Its stdout closes: nobody holds it any more."""
    with confined(tmp_path, WAIT) as child:
        inside_of(child)
        child.kill()
        child.communicate(timeout=30)

    assert child.returncode == -signal.SIGKILL


def test_a_term_is_passed_on(tmp_path: Path) -> None:
    """To the handler that is set inside."""
    text = (
        "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(9));"
        " print('here', flush=True); signal.pause()"
    )
    with confined(tmp_path, text) as child:
        inside_of(child)
        child.terminate()
        child.communicate(timeout=30)

    assert child.returncode == 9


def test_a_term_before_there_is_a_handler_ends_it(tmp_path: Path) -> None:
    """Though it is the first process of its namespace, which ignores what it doesn't handle."""
    with confined(tmp_path, WAIT) as child:
        inside_of(child)
        child.terminate()
        child.communicate(timeout=30)

    assert child.returncode == 128 + signal.SIGTERM


def test_what_is_refused_is_a_line_and_an_exit_code(tmp_path: Path) -> None:
    """What may not be had isn't done without."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    words = Confinement(namespaces=("user", "mnt", "pid"), hide=str(hidden)).arguments()
    script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    done = subprocess.run(
        [
            *("unshare", "-Ur", "sh", "-c", script, "sh"),
            *(sys.executable, "-I", "-S", "-c", _ENTER, str(ROOT), "print('went on')", *words),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 71
    assert done.stdout == ""
    assert done.stderr.startswith("confinement: unshare: ")
