from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pilot.bounded_process import Finished, run_bounded

pytestmark = pytest.mark.real


async def run(script: str, *, timeout_s: float = 10.0, output_bytes_max: int = 1000) -> Finished:
    """Run a line of shell."""
    return await run_bounded(
        ("/bin/sh", "-c", script),
        environment={"PATH": os.environ["PATH"]},
        timeout_s=timeout_s,
        output_bytes_max=output_bytes_max,
    )


def is_running(pid_file: Path) -> bool:
    """Return whether the process whose PID is in a file is there, and no zombie."""
    try:
        state = Path(f"/proc/{pid_file.read_text().strip()}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # gone, or going while it is read
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


async def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until another process has done something, 5 s at most."""
    deadline = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_what_a_program_says_is_returned() -> None:
    """Both streams and the exit code come back, and there is no stdin to wait for."""
    finished = await run("cat; echo out; echo err >&2; exit 3")

    assert (finished.stdout, finished.stderr, finished.exit_code) == (b"out\n", b"err\n", 3)
    assert not finished.is_timed_out
    assert not finished.is_flooded
    assert finished.seconds < 5


async def test_a_signal_is_a_negative_exit_code() -> None:
    """A program that was killed by someone else has ended all the same."""
    finished = await run("kill -TERM $$")

    assert finished.exit_code == -15


async def test_a_program_that_is_not_there_is_no_exception() -> None:
    """The shell says it, as it would of any other failing program."""
    finished = await run_bounded(("/nonexistent/x",), environment={}, timeout_s=10.0)

    assert finished.exit_code == 127
    assert b"/nonexistent/x" in finished.stderr


async def test_a_program_that_hangs_costs_its_deadline(tmp_path: Path) -> None:
    """It is killed with its children, in whatever process group of its session they are."""
    pid_file = tmp_path / "pid"
    child = (
        "import os, pathlib, time; os.setpgrp();"
        f"pathlib.Path('{pid_file}').write_text(str(os.getpid())); time.sleep(1000)"
    )
    finished = await run(
        f'trap "" TERM; {sys.executable} -c "{child}" & echo so far; wait', timeout_s=1.0
    )

    assert finished.is_timed_out
    assert finished.exit_code is None
    assert finished.stdout == b"so far\n"
    assert finished.seconds < 5
    assert not is_running(pid_file)


@pytest.mark.parametrize("redirection", ["", ">&2"])
async def test_endless_output_is_cut_off(redirection: str) -> None:
    """Neither stream can fill the memory; what came first is kept."""
    finished = await run(f"while :; do echo more; done {redirection}", output_bytes_max=1000)

    assert finished.is_flooded
    assert not finished.is_timed_out
    assert len(finished.stdout) + len(finished.stderr) == 1000
    assert finished.seconds < 5


async def test_a_child_that_keeps_the_pipes_open_holds_nobody_up(tmp_path: Path) -> None:
    """When the program has ended, its output is complete but for a moment's grace."""
    pid_file = tmp_path / "pid"
    finished = await run(f"echo out; sleep 1000 & echo $! > {pid_file}; exit 0")

    assert (finished.stdout, finished.exit_code) == (b"out\n", 0)
    assert finished.seconds < 5
    assert not is_running(pid_file)


async def test_a_program_that_closes_its_pipes_is_still_waited_for() -> None:
    """The end of the output is not the end of the program."""
    finished = await run("exec >&- 2>&-; sleep 0.3; exit 7")

    assert finished.exit_code == 7


async def test_cancelling_ends_the_program(tmp_path: Path) -> None:
    """Nothing is left behind by a caller that has lost interest."""
    pid_file = tmp_path / "pid"
    task = asyncio.ensure_future(run(f"echo $$ > {pid_file}; exec sleep 1000"))
    await wait_until(lambda: pid_file.exists() and pid_file.read_text() != "")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await wait_until(lambda: not is_running(pid_file))
