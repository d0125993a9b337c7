#!/usr/bin/env python3
"""Runs the campaign of this directory, and says whether every job ended as it should.

    python examples/campaign/run.py [--state DIR] [--container prefer|never] [--cores N]

Each JDL says how it is made to end: Jobtag = {"expect:ERROR_E", "because:over its TTL"}. Jobs
that name a container image run in one of busybox, which is made here from the machine's own,
where Apptainer works. The exit code is 0 only if every job ended as it should and left nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
PILOT = (sys.executable, "-m", "pilot")
END = re.compile(r"DONE|DONE_WARN|ERROR_\w+|EXPIRED|KILLED")
LOOK_S = 0.5
LEAVE_S = 5.0
JOBS_FAILED = 1  # what `pilot run` says of a campaign that is made to have failures


class Meant(NamedTuple):
    """How a job is made to end: its status, and what the reason must tell."""

    status: str
    because: str


def main() -> int:
    """Run it all; return the exit code."""
    parser = argparse.ArgumentParser(description="Run the example campaign.")
    parser.add_argument("--state", type=Path, help="a directory for it; if not given, one in /tmp")
    parser.add_argument("--container", choices=("prefer", "never"), default="prefer")
    parser.add_argument("--cores", type=int, default=max(2, len(os.sched_getaffinity(0))))
    options = parser.parse_args()
    state = (options.state or Path(tempfile.mkdtemp(prefix="pilot-campaign-"))).absolute()
    campaign = {os.path.relpath(jdl): read_meant(jdl) for jdl in sorted(HERE.glob("*.jdl"))}
    # Without an image its jobs run bare; the reason is in their traces.
    subprocess.run([HERE / "make-image", HERE / "image"], check=False)
    pilot = Pilot(state)
    running = pilot.run(*campaign, "--container", options.container, "--cores", str(options.cores))
    kill_when_running(pilot, running, {jdl for jdl in campaign if campaign[jdl].status == "KILLED"})
    exit_code = running.wait()
    is_good = print_verdict(campaign, pilot.jobs()) and exit_code == JOBS_FAILED
    left = wait_for_leftovers(state)
    for process in left:
        print(f"still there: {process}")
    print(f"\nThe story of a job: {sys.executable} -m pilot show ID --state {state}")
    return 0 if is_good and not left else 1


def read_meant(jdl: Path) -> Meant:
    """Return how a JDL says that its job ends."""
    tags = dict(re.findall(r'"(expect|because):([^"]+)"', jdl.read_text()))
    return Meant(tags["expect"], tags.get("because", ""))


class Pilot:
    """The command line of this clone's pilot, over one state directory."""

    def __init__(self, state: Path) -> None:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._settings = state / "pilot.toml"
        settings = (HERE / "pilot.toml").read_text()
        self._settings.write_text(settings.replace('= "catalogue', f'= "{HERE}/catalogue'))
        path = os.pathsep.join(filter(None, (str(HERE.parents[1]), os.environ.get("PYTHONPATH"))))
        self._environment = {**os.environ, "PILOT_STATE": str(state), "PYTHONPATH": path}

    def run(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `pilot run` with its live table; Ctrl-C is its alone, a TERM is passed on."""
        command = (*PILOT, "run", *arguments, "--settings", str(self._settings))
        running = subprocess.Popen(command, env=self._environment)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: running.terminate())
        return running

    def jobs(self) -> dict[str, dict[str, Any]]:
        """Return the latest job of each JDL, as `pilot jobs --json` tells it."""
        rows = [json.loads(line) for line in self._answer("jobs", "--json").splitlines()]
        return {row["jdl"]: row for row in sorted(rows, key=lambda row: int(row["id"]))}

    def kill(self, job_id: int) -> None:
        """Kill a job, as its owner."""
        self._answer("kill", str(job_id), "--why", "its owner has changed his mind")

    def _answer(self, *arguments: str) -> str:
        command, environment = (*PILOT, *arguments), self._environment
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        return done.stdout.decode()


def kill_when_running(pilot: Pilot, running: subprocess.Popen[bytes], jdls: set[str]) -> None:
    """Kill these jobs as soon as they run; return when that is done, or too late."""
    while jdls and running.poll() is None:
        time.sleep(LOOK_S)
        jobs = {jdl: job for jdl, job in pilot.jobs().items() if jdl in jdls}
        for jdl, job in jobs.items():
            if job["status"] == "RUNNING":
                pilot.kill(job["id"])
            if job["status"] == "RUNNING" or END.fullmatch(job["status"]):
                jdls.remove(jdl)


def print_verdict(campaign: dict[str, Meant], jobs: dict[str, dict[str, Any]]) -> bool:
    """Print a line for each job; return whether all ended as meant."""
    print(f"\n{'id':>4}  {'job':<16} {'meant':<9} {'got':<9} in")
    wrong = 0
    for jdl, meant in campaign.items():
        job = jobs.get(jdl, {"id": "-", "status": "-", "reason": "it is not in the queue"})
        is_good = job["status"] == meant.status and meant.because in job["reason"]
        wrong += not is_good
        print(
            f"{job['id']:>4}  {Path(jdl).stem:<16} {meant.status:<9} {job['status']:<9} "
            f"{job.get('container') or 'bare'}{'' if is_good else '  <-- ' + job['reason']}"
        )
    print(f"{len(campaign) - wrong} of {len(campaign)} jobs ended as meant.")
    return not wrong


def wait_for_leftovers(state: Path) -> list[str]:
    """Return what the campaign left running, if it isn't gone soon."""
    deadline = time.monotonic() + LEAVE_S
    while (left := list(leftovers(os.fsencode(state)))) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def leftovers(state: bytes) -> Iterator[str]:
    """Yield what works in the state directory or was told of it, and daemon.jdl's daemon."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            told = (process / "environ").read_bytes() + os.fsencode((process / "cwd").readlink())
        except OSError:
            continue  # gone meanwhile, or somebody else's
        is_ours = state + b"/jobs" in command + told or command.startswith(b"campaign-daemon")
        if is_ours:
            yield f"{process.name}  {command.decode(errors='replace').replace(chr(0), ' ')}"


if __name__ == "__main__":
    sys.exit(main())
