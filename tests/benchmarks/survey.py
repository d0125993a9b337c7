"""How many reports a second a survey reads, and how much memory it takes.

Run it as ``python -m tests.benchmarks.survey``. The floor is what msgspec needs to decode the very
same lines into dicts that nobody looks at. Each measure is a process of its own, so that one's
memory isn't another's. Seconds are of CPU, as others may use the machine; rounds are interleaved,
as its speed drifts by the minute: trust the ratios.

Reports are like those of a real probe: about 100 keys, of which some 15 have a value a node.
"""
# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pilot.survey import NODE_CLASSES, Survey, survey_csv, survey_json

SITES = 100


def main() -> None:
    """Print the figures; the parts are run as processes of this very module."""
    parser = argparse.ArgumentParser(description="Reports a second, and peak memory.")
    parser.add_argument("--reports", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=100_000, help="different nodes among them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=PARTS, help="run one part over a file, and say so")
    parser.add_argument("--file", default="")
    options = parser.parse_args()
    if options.part:
        print(json.dumps(measured(options.part, options.file)))
        return
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        size = write_reports(Path(file.name), options.reports, options.nodes)
        print(f"{options.reports:,} reports of {options.nodes:,} nodes, {size / 1e6:,.0f} MB")
        report(compare(file.name, options.rounds), options.reports)


def write_reports(path: Path, reports: int, nodes: int) -> int:
    """Write reports as JSON lines; return how many bytes."""
    dice = random.Random(1)
    with path.open("w") as file:
        for number in range(reports):
            file.write(json.dumps(made(dice, number % nodes, at=number)) + "\n")
    return path.stat().st_size


def made(dice: random.Random, node: int, at: float) -> dict[str, Any]:
    """Return a report."""
    keys: dict[str, Any] = {f"CPU_{n}": f"value {dice.randrange(3)}" for n in range(40)}
    keys |= {f"OS_{n}": f"value {node % SITES % 4}" for n in range(20)}
    keys |= {f"RAM_kB_{n}": dice.randrange(10**8) for n in range(15)}
    keys |= {f"HAS_{n}": dice.choice([True, False, None]) for n in range(15)}
    keys |= {f"COUNT_{n}": dice.choice([8, 16, 64]) for n in range(10)}
    return {
        "schema": "pilot-probe/1",
        "node": f"wn{node:06}.example.org",
        "site": f"Site{node % SITES:03}",
        "at": 1.6e9 + at,
        "seconds": 1.5,
        "class": dice.choice(NODE_CLASSES),
        "reasons": ["a sentence that says why this node has no better class"] * 2,
        "advice": [{"code": "enable-underlay", "sentence": "a sentence for an administrator"}],
        "runtimes": [{"name": "apptainer", "works": True, "path": "/usr/bin/apptainer"}],
        "keys": {**keys, "UNDERLAY_ENABLED": "yes", "SINGULARITY_LOCAL_SUPPORTED": "TRUE"},
    }


def _imports(_: str) -> None:
    """Do nothing: what the imports cost."""


def _floor(path: str) -> None:
    with open(path, "rb") as file:
        for line in file:
            msgspec.json.decode(line)


def _read(path: str) -> None:
    Survey.of([path])


def _read_overall(path: str) -> None:
    Survey.of([path]).overall()


def _json(path: str) -> None:
    json.dumps(survey_json(Survey.of([path])))


def _csv(path: str) -> None:
    for _ in survey_csv(Survey.of([path])):
        pass


PARTS: dict[str, Callable[[str], None]] = {
    "floor: plain decode": _floor,
    "imports only": _imports,
    "read": _read,
    "read, count overall": _read_overall,
    "--json": _json,
    "--csv": _csv,
}


def measured(part: str, path: str) -> tuple[float, float]:
    """Return CPU seconds and peak memory in MB."""
    begun = time.process_time()
    PARTS[part](path)
    seconds = time.process_time() - begun
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare(path: str, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Run each part in turn, again and again."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in PARTS}
    for _ in range(rounds):
        for name, figures in taken.items():
            command = [sys.executable, "-m", "tests.benchmarks.survey", f"--part={name}"]
            done = subprocess.run([*command, "--file", path], stdout=subprocess.PIPE, check=True)
            figures.append(tuple(json.loads(done.stdout)))
    return taken


def report(taken: dict[str, list[tuple[float, float]]], reports: int) -> None:
    """Print medians, and the ratio to the floor."""
    floor = statistics.median(seconds for seconds, _ in next(iter(taken.values())))
    print(f"{'':24} {'CPU s':>7} {'reports/s':>10} {'peak MB':>8}   ratio")
    for name, figures in taken.items():
        seconds = statistics.median(seconds for seconds, _ in figures)
        peak = statistics.median(megabytes for _, megabytes in figures)
        speed = f"{reports / seconds:,.0f}" if seconds > 1e-3 else "-"
        print(f"{name:24} {seconds:7.2f} {speed:>10} {peak:8.0f} {seconds / floor:7.2f}")


if __name__ == "__main__":
    main()
