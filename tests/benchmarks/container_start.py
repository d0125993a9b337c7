"""How long it takes from a launch to a payload that runs: bare, and in a container.

Run it as ``python -m tests.benchmarks.container_start``.

A launch is everything that a job pays: the choice of its container (verified before, so
remembered), the wrapper's start, its Hello, the order, staging, the payload's start. No
credential is asked for. Rounds are interleaved: trust the ratios. Floors, in the same run: a
child that imports asyncio and msgspec and starts /bin/true, with this interpreter and with the
bundle's; ``apptainer exec IMAGE /bin/true`` with no option at all.
"""
# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from actors.ports import LaunchedWrapper, LaunchOrder
from actors.wrapper_words import start_order
from pilot.containers.ladder import ContainerPolicy, Ladder
from pilot.launching import LauncherOptions, NodeLauncher
from pilot.node import make_ladder
from pilot.settings import Settings
from tests.benchmarks.wrapper_start import measured, report, seconds_to_end
from tests.pilot.sandbox import APPTAINER, MAKE_IMAGE, needs_userns
from tests.pilot.wrapper_probe import floor_command
from transport.events import MessageReceived, Opened, SessionEvent
from transport.messages import JobDescription, ProcessAnnounced, ProcessRole, StartJob


class Launches:
    """Launches jobs one at a time, and tells how long each took until its payload ran."""

    def __init__(self, state: Path, image: str) -> None:
        self._ladder: Ladder | None = None
        self._settings = Settings(state=str(state), binds="")
        policy = ContainerPolicy.REQUIRE if image else ContainerPolicy.NEVER
        options = LauncherOptions(state=state, policy=policy, image=image)
        self._launcher = NodeLauncher(options, os.environ, self.ladder)
        self._numbers = itertools.count(1)

    async def ladder(self) -> Ladder:
        """Return the ladder of this machine, made once."""
        if self._ladder is None:
            self._ladder = await make_ladder(self._settings)
        return self._ladder

    async def seconds_to_payload(self) -> float:
        """Run a job to its payload's start, and end it."""
        description = JobDescription(executable="/bin/true")
        order = LaunchOrder(job_id=next(self._numbers), attempt=1, description=description)
        begun = time.perf_counter()
        wrapper = await self._launcher.launch(order)
        payload_at = asyncio.get_running_loop().create_future()

        def deliver(event: SessionEvent) -> None:
            match event:
                case Opened():
                    wrapper.link.tell(_start(order, wrapper))
                case MessageReceived(sequence=sequence, message=message):
                    wrapper.link.confirm(sequence)
                    is_payload = getattr(message, "role", None) is ProcessRole.PAYLOAD
                    if isinstance(message, ProcessAnnounced) and is_payload:
                        payload_at.set_result(time.perf_counter())
                case _:
                    pass

        wrapper.link.open(deliver)
        seconds: float = await asyncio.wait_for(payload_at, 60) - begun
        await asyncio.wait_for(wrapper.wait(), 60)
        await self._launcher.clean(order)
        return seconds


def _start(order: LaunchOrder, wrapper: LaunchedWrapper) -> StartJob:
    return start_order(order, wrapper.paths, saving_s=60.0, stop_grace_s=1.0, credentials=())


def main() -> None:
    """Print the figures, and the goals that they are held against."""
    parser = argparse.ArgumentParser(description="Time from a launch to a running payload.")
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner() as runner:
        place = Path(directory)
        image = place / "image"
        subprocess.run([MAKE_IMAGE, image], check=True, capture_output=True)
        bare = Launches(place / "bare", "")
        contained = Launches(place / "contained", str(image))
        bundle = runner.run(contained.ladder()).tools.bundle
        floor = floor_command(sys.executable)
        bundled = (*bundle.command(str(bundle.root))[:-1], *floor[floor.index("-c") : -1])
        bundled = (*bundled, str(bundle.root / "site"))
        userns = ["--userns"] if needs_userns("") else []
        execute = [str(APPTAINER), "exec", *userns, str(image), "/bin/true"]

        def timed(work: Callable[[], Awaitable[float]]) -> Callable[[], float]:
            async def run() -> float:
                return await work()

            return lambda: runner.run(run())

        names = ("floor", "floor from the bundle", "apptainer exec /bin/true", "bare", "apptainer")
        taken = measured(
            {
                names[0]: lambda: seconds_to_end(floor),
                names[1]: lambda: seconds_to_end(bundled),
                names[2]: lambda: seconds_to_end(execute),
                names[3]: timed(bare.seconds_to_payload),
                names[4]: timed(contained.seconds_to_payload),
            },
            rounds,
        )
        report(taken)
        floor_s, bundled_s, exec_s, bare_s, contained_s = (
            statistics.median(taken[name]) for name in names
        )
        print(f"\nbare / floor: {bare_s / floor_s:.2f} (goal: at most 1.3)")
        ratio = contained_s / (exec_s + 1.3 * bundled_s)
        print(f"apptainer / (exec + 1.3 x floor from the bundle): {ratio:.2f} (goal: at most 1)")
        print(f"cached choice: {runner.run(_choice_s(contained, str(image))) * 1e3:.2f} ms a job")


async def _choice_s(launches: Launches, image: str) -> float:
    """Return the median of a choice that is remembered (goal: under 1 ms)."""
    ladder = await launches.ladder()
    taken = []
    for _ in range(200):
        begun = time.perf_counter()
        await ladder.choose(image, ContainerPolicy.REQUIRE)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
