"""A real `pilot run` as a child process, and what can be asked of it meanwhile."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from pilot import procfs
from pilot.bundle import build_bundle
from pilot.plain_files import remove_tree

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
Job = dict[str, Any]


def pilot(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run a pilot command to its end; return exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "pilot", *arguments],
        env=pilot_environment(environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        errors="replace",
    )
    return done.returncode, done.stdout, done.stderr


def pilot_environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which the checkout's own pilot is found."""
    given = {
        "PYTHONPATH": str(ROOT),
        "PILOT_HEARTBEAT_S": "0.5",
        "PILOT_BUNDLE": str(published_bundles()),
    }
    return {**os.environ, **given, **(more or {})}


@cache
def published_bundles() -> Path:
    """Return a directory with a published bundle: not every run makes its own."""
    directory = Path(tempfile.mkdtemp(prefix="pilot-test-bundles-"))
    atexit.register(remove_tree, directory)
    build_bundle(directory)
    return directory


class PilotRun:
    """`pilot run` over a state directory; leaving the context ends it, whatever it does."""

    def __init__(self, state: Path, *arguments: str, environment: dict[str, str] | None = None):
        self.state = state
        self._environment = environment
        self._child = subprocess.Popen(
            [sys.executable, "-m", "pilot", "run", "--state", str(state), *arguments],
            env=pilot_environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.pid = self._child.pid

    def __enter__(self) -> PilotRun:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.communicate()

    def signal(self, number: int) -> None:
        """Signal the agent."""
        self._child.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return exit code, stdout, stderr."""
        stdout, stderr = self._child.communicate(timeout=PATIENCE_S)
        return self._child.returncode, stdout.decode(), stderr.decode()

    def job(self, job_id: int = 1) -> Job:
        """Return what `show --json` says of a job."""
        code, stdout, stderr = pilot("show", str(job_id), "--state", str(self.state), "--json")
        assert code == 0, stderr
        job: Job = json.loads(stdout)
        return job

    def wait_until(self, is_so: Callable[[Job], bool], job_id: int = 1) -> Job:
        """Wait until a job is as it should be."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            code, stdout, _ = pilot("show", str(job_id), "--state", str(self.state), "--json")
            if code == 0 and is_so(json.loads(stdout)):
                job: Job = json.loads(stdout)
                return job
            assert time.monotonic() < deadline, stdout
            time.sleep(0.05)

    def wait_log(self, text: str) -> None:
        """Wait until the agent's log says something."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in (self.state / "agent.log").read_text():
            assert time.monotonic() < deadline, text
            time.sleep(0.05)

    def wait_payload(self, job_id: int = 1) -> dict[str, int]:
        """Wait until a job's payload was found on the host; return host PIDs by role."""
        job = self.wait_until(
            lambda job: job["status"] == "RUNNING" and bool(host_pids(job).get("payload")), job_id
        )
        return host_pids(job)


def host_pids(job: Job) -> dict[str, int]:
    """Return the newest host PID of each role."""
    return {line["role"]: line["host_pid"] for line in job["processes"]}


def launcher_of(pid: int, agent: int) -> int:
    """Return the process between the agent and ``pid`` that the agent started."""
    while (stat := procfs.read_stat(pid)) is not None and stat.parent != agent:
        pid = stat.parent
    assert pid > 0, f"not a descendant of {agent}"
    return pid


def left_over(state: Path) -> list[str]:
    """Return the command lines of processes that work for a state directory."""
    found = []
    for stat in procfs.all_processes():
        if stat.state == "Z" or stat.pid == os.getpid():
            continue
        text = procfs.environment_of(stat.pid) + _command_line(stat.pid)
        if f"{state}/jobs".encode() in text or _working_directory(stat.pid).startswith(
            f"{state}/jobs"
        ):
            found.append(_command_line(stat.pid).decode(errors="replace"))
    return found


def wait_clean(state: Path) -> None:
    """Wait until nothing works for a state directory any more."""
    deadline = time.monotonic() + 10
    while left := left_over(state):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return b""


def _working_directory(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def kill_9(pid: int) -> None:
    """Kill a process as hard as can be."""
    os.kill(pid, signal.SIGKILL)
