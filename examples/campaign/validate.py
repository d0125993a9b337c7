#!/usr/bin/env python3
"""The validation command: is what simulate.py wrote believable? If not, says why and exits 1.

validate.py [SIGMAS ALLOWED]
"""

from __future__ import annotations

import glob
import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Any


def main() -> None:
    """Print every check, the failed ones with a mark."""
    allowed = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    summary, geometry = read("summary.json"), read("*geometry.json")
    failed = 0
    for what, sigmas in deviations(summary, read("histograms.json")["counts"], geometry):
        failed += abs(sigmas) > allowed
        print(f"{what}: {sigmas:+.1f} sigma{' <-- no' if abs(sigmas) > allowed else ''}")
    if os.path.getsize("hits.bin") != summary["hits"] * summary["hit_bytes"]:
        failed += 1
        print(f"hits.bin: doesn't hold {summary['hits']} hits <-- no")
    sys.exit(1 if failed else 0)


def deviations(summary: Any, counts: Any, geometry: Any) -> Iterator[tuple[str, float]]:
    """Yield each figure with how far it is from what was put in, in sigmas."""
    tracks, beam = summary["tracks"], summary["beam"]
    expected = summary["events"] * beam["tracks_per_event"]
    yield "number of tracks", (tracks - expected) / math.sqrt(expected)
    efficiency = geometry["efficiency"]
    sigma = math.sqrt(efficiency * (1 - efficiency) / summary["crossings"])
    yield "efficiency", (summary["hits"] / summary["crossings"] - efficiency) / sigma
    sigma = (beam["mean_pt_GeV"] - 0.05) / math.sqrt(tracks)
    yield "mean pT", (summary["pt_GeV"] / tracks - beam["mean_pt_GeV"]) / sigma
    yield "mean eta", summary["eta"] / tracks / (1.2 / math.sqrt(3 * tracks))
    phi = counts["phi"][1:-1]
    chi2 = sum((n - tracks / len(phi)) ** 2 for n in phi) / (tracks / len(phi))
    yield "flatness in phi", (chi2 - (len(phi) - 1)) / math.sqrt(2 * (len(phi) - 1))


def read(pattern: str) -> Any:
    """Read the one JSON file of that pattern."""
    (name,) = glob.glob(pattern)
    with open(name) as file:
        return json.load(file)


if __name__ == "__main__":
    main()
