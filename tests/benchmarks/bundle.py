"""The bundle in figures: its size, how long it takes to make and to find, and to start from.

Run it as ``python -m tests.benchmarks.bundle``.

Rounds are interleaved, as a machine's speed drifts by the minute: trust the ratios. The floor is
a child that imports asyncio and msgspec and starts /bin/true, run from the bundle itself and by
this interpreter.
"""
# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from pilot.bundle import Bundle, build_bundle
from pilot.cli.bundling import bundle_line, made_bundle
from tests.benchmarks.wrapper_start import measured, report, seconds_to_end
from tests.pilot.wrapper_probe import bundled_floor_command, floor_command, seconds_to_hello


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Size, building and start of a bundle.")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        print(bundle_line(made_bundle(directory / "bundles")))
        bundle = build_bundle(directory / "bundles")
        print_parts(bundle)
        bundled = (*bundle.command(str(bundle.root)), "run")
        floor = bundled_floor_command(bundle)
        own_floor = floor_command(sys.executable)
        measures = {
            "floor, from the bundle": lambda: seconds_to_end(floor),
            "floor, this interpreter": lambda: seconds_to_end(own_floor),
            "bundled wrapper to Hello": lambda: seconds_to_hello(bundled),
            "find the bundle that is there": lambda: seconds_to_find(directory / "bundles"),
        }
        report(measured(measures, options.rounds))


def print_parts(bundle: Bundle) -> None:
    """Print the size of each part."""
    for part in sorted(bundle.root.iterdir()):
        sizes = [path.stat().st_size for path in part.rglob("*") if path.is_file()]
        print(f"    {part.name:6} {sum(sizes) / 1e6:5.1f} MB {len(sizes):4} files")


def seconds_to_find(directory: Path) -> float:
    """Find the bundle that is there; return the seconds."""
    begun = time.perf_counter()
    build_bundle(directory)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
