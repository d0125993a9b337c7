"""How long a wrapper takes from its launch to its Hello.

Run it as ``python -m tests.benchmarks.wrapper_start``.

Rounds are interleaved, as a machine's speed drifts by the minute: trust the ratios. The floor is a
child that imports asyncio and msgspec and starts /bin/true, in the same kind of interpreter. Each
rung of bare confinement is a line, each with Landlock where the kernel has it. The first round of
each is a warm-up and doesn't count.
"""
# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pilot.bundle import build_bundle
from pilot.confinement.ladder import RUNGS
from pilot.confinement.landlock import supported_abi
from pilot.confinement.plan import Confinement
from pilot.launching import bare_command
from tests.pilot.wrapper_probe import (
    floor_command,
    modules_at_hello,
    modules_of_floor,
    seconds_to_hello,
)

Measure = Callable[[], float]


def main() -> None:
    """Print the figures, then the modules that a wrapper imports beyond the floor's."""
    parser = argparse.ArgumentParser(description="Time from a wrapper's launch to its Hello.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--modules", action="store_true", help="list every module, not the extra")
    options = parser.parse_args()
    bare, floor = bare_command(sys.executable), floor_command(sys.executable)
    with tempfile.TemporaryDirectory() as directory:
        bundle = build_bundle(Path(directory))
        bundled = (*bundle.command(str(bundle.root)), "run")
        measures = {
            "floor: asyncio, msgspec, /bin/true": lambda: seconds_to_end(floor),
            "bare wrapper to Hello": lambda: seconds_to_hello(bare),
            **confined_measures(Path(directory)),
            "bundled wrapper to Hello": lambda: seconds_to_hello(bundled),
        }
        report(measured(measures, options.rounds))
    modules = modules_at_hello(bare)
    extra = sorted(modules - modules_of_floor(floor))
    print(f"\n{len(modules)} modules at Hello, {len(extra)} of them not the floor's:")
    print("\n".join(sorted(modules) if options.modules else extra))


def confined_measures(directory: Path) -> dict[str, Measure]:
    """Return what each rung of bare confinement costs, to be held against the bare wrapper."""
    state = directory.resolve()
    abi = supported_abi()
    names = {3: "in PID, mount, user namespaces", 2: "in mount, user namespaces", 0: "in Landlock"}
    measures: dict[str, Measure] = {}
    for namespaces in RUNGS:
        confinement = Confinement(
            namespaces=namespaces, landlock=abi, write=(str(state),), hide=f"{state}/hidden"
        )
        command = bare_command(sys.executable, confinement)
        measures[f"bare, {names[len(namespaces)]}"] = partial(seconds_to_hello, command)
    (state / "hidden").mkdir()
    return measures


def seconds_to_end(command: Sequence[str]) -> float:
    """Run a command to its end and return the seconds."""
    begun = time.perf_counter()
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def measured(measures: dict[str, Measure], rounds: int) -> dict[str, list[float]]:
    """Take each measure in turn, again and again; the first round only warms up."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds + 1):
        for name, measure in measures.items():
            seconds = measure()
            if number:
                taken[name].append(seconds)
    return taken


def report(taken: dict[str, list[float]]) -> None:
    """Print median, range and the ratio to the first."""
    floor = statistics.median(next(iter(taken.values())))
    print(f"{'':36} {'median':>9} {'min':>7} {'max':>7}   ratio")
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        print(
            f"{name:36} {median * 1e3:6.0f} ms {min(seconds) * 1e3:7.0f} {max(seconds) * 1e3:7.0f}"
            f"   {median / floor:5.2f}"
        )


if __name__ == "__main__":
    main()
