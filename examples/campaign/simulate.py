#!/usr/bin/env python3
"""A toy of ALICE's inner tracker: helices through seven cylinders, smeared hits, a vertex.

    simulate.py --seed N [--events N] [--workers N] [--field TESLA] [--dead LAYER]

Reads *geometry.json and beam-*.json, which were staged into the work directory. Writes hits.bin
(a packed record for each hit), histograms.json and summary.json. It is plain Python and nothing
else, as any worker node has that.
"""

from __future__ import annotations

import argparse
import glob
import json
import math
import multiprocessing
import operator
import os
import random
import struct
import sys
from collections.abc import Iterator
from functools import reduce
from typing import Any

HIT = struct.Struct("<IHBfff")
"""Event, track, layer, and x, y, z in cm."""

ETA_MAX = 1.2
PT_MIN_GEV = 0.05
BINS = {
    "pt": (40, 0.0, 4.0),
    "eta": (24, -ETA_MAX, ETA_MAX),
    "phi": (36, 0.0, 2 * math.pi),
    "hits_per_track": (8, -0.5, 7.5),
    "vertex_dz_um": (40, -100.0, 100.0),
}


def main() -> None:
    """Share the events out to the workers, and write what they found."""
    options = parse(sys.argv[1:])
    geometry, beam = read("*geometry.json"), read("beam-*.json")
    if options.field is not None:
        beam["field_T"] = options.field
    share = options.events // options.workers
    trackers = [
        Tracker(f"{options.seed}/{worker}", geometry, beam, options.dead)
        for worker in range(options.workers)
    ]
    orders = [(tracker, worker * share, share) for worker, tracker in enumerate(trackers)]
    if options.workers > 1:
        with multiprocessing.Pool(options.workers) as pool:
            trackers = pool.starmap(simulated, orders)
    else:
        trackers = [simulated(*orders[0])]
    with open("hits.bin", "wb") as file:
        file.writelines(tracker.hits for tracker in trackers)
    histograms = reduce(added, (tracker.histograms for tracker in trackers))
    sums = reduce(added, (tracker.sums for tracker in trackers))
    write("histograms.json", {"bins": BINS, "counts": histograms})
    write(
        "summary.json",
        {
            "job": os.environ.get("ALIEN_PROC_ID", ""),
            "variables": {k: v for k, v in os.environ.items() if k.startswith("ALIEN_JDL_")},
            "seed": options.seed,
            "events": share * options.workers,
            "beam": beam,
            "hit_bytes": HIT.size,
            **sums,
        },
    )
    print(
        f"{beam['system']}, {beam['field_T']:+.1f} T, seed {options.seed}: "
        f"{share * options.workers} events, {sums['tracks']} tracks, {sums['hits']} hits"
    )


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--events", type=int, default=400)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--field", type=float, help="in tesla, instead of the beam file's")
    parser.add_argument("--dead", type=int, default=-1, help="a layer that is switched off")
    return parser.parse_args(arguments)


def simulated(tracker: Tracker, first: int, events: int) -> Tracker:
    """Return the tracker after these events: what a worker process does."""
    for event in range(first, first + events):
        tracker.simulate(event)
    return tracker


class Tracker:
    """The detector, a beam, dice, and what was seen so far."""

    def __init__(self, seed: str, geometry: Any, beam: Any, dead: int) -> None:
        self.geometry, self.beam, self.dead = geometry, beam, dead
        self.dice = random.Random(seed)
        self.hits = bytearray()
        self.histograms = {name: [0] * (bins + 2) for name, (bins, _, _) in BINS.items()}
        """The first and the last bin are what lies below and above."""
        self.sums = {"tracks": 0, "crossings": 0, "hits": 0, "pt_GeV": 0.0, "eta": 0.0}

    def simulate(self, event: int) -> None:
        """One collision: a vertex, and tracks from it."""
        vertex_z = self.dice.gauss(0, self.beam["vertex_sigma_z_cm"])
        for track in range(self.multiplicity()):
            pt = PT_MIN_GEV + self.dice.expovariate(1 / (self.beam["mean_pt_GeV"] - PT_MIN_GEV))
            eta = self.dice.uniform(-ETA_MAX, ETA_MAX)
            phi = self.dice.uniform(0, 2 * math.pi)
            points = list(self.digitised(event, track, self.helix(pt, eta, phi, vertex_z)))
            self.count(pt=pt, eta=eta, phi=phi, hits=len(points))
            if len(points) > 1 and pt > 1:
                self.fill("vertex_dz_um", (extrapolated(points) - vertex_z) * 1e4)

    def multiplicity(self) -> int:
        """Draw from a Poisson distribution, a Gaussian where that is as good."""
        mean = self.beam["tracks_per_event"]
        if mean > 50:
            return max(0, round(self.dice.gauss(mean, math.sqrt(mean))))
        limit, product, drawn = math.exp(-mean), self.dice.random(), 0
        while product > limit:
            product *= self.dice.random()
            drawn += 1
        return drawn

    def helix(
        self, pt: float, eta: float, phi: float, vertex_z: float
    ) -> Iterator[tuple[int, float, float, float]]:
        """Yield (layer, radius, phi, z) of each cylinder that a charged particle crosses."""
        charge = self.dice.choice((-1, 1))
        curvature = 0.003 * self.beam["field_T"] * charge / pt  # 1/cm
        for number, layer in enumerate(self.geometry["layers"]):
            radius = layer["radius_cm"]
            bend = radius * curvature / 2
            if abs(bend) >= 1:
                return  # it curls back before this layer
            length = 2 * math.asin(bend) / curvature if curvature else radius
            z = vertex_z + math.sinh(eta) * length
            if abs(z) <= layer["half_length_cm"]:
                yield number, radius, phi - math.asin(bend), z

    def digitised(
        self, event: int, track: int, crossings: Iterator[tuple[int, float, float, float]]
    ) -> Iterator[tuple[float, float]]:
        """Store a hit for each crossing that is seen; yield its radius and z as measured."""
        for layer, radius, true_phi, true_z in crossings:
            self.sums["crossings"] += 1
            if layer == self.dead or self.dice.random() > self.geometry["efficiency"]:
                continue
            phi = true_phi + self.dice.gauss(0, self.geometry["resolution_cm"]) / radius
            z = true_z + self.dice.gauss(0, self.geometry["resolution_cm"])
            x, y = radius * math.cos(phi), radius * math.sin(phi)
            self.hits += HIT.pack(event, track, layer, x, y, z)
            yield radius, z

    def count(self, *, pt: float, eta: float, phi: float, hits: int) -> None:
        """Count a track."""
        for name, value in (("pt", pt), ("eta", eta), ("phi", phi), ("hits_per_track", hits)):
            self.fill(name, value)
        for name, value in (("tracks", 1), ("hits", hits), ("pt_GeV", pt), ("eta", eta)):
            self.sums[name] += value

    def fill(self, name: str, value: float) -> None:
        """Fill a histogram."""
        bins, low, high = BINS[name]
        at = math.floor((value - low) / (high - low) * bins)
        self.histograms[name][min(max(at, -1), bins) + 1] += 1


def extrapolated(points: list[tuple[float, float]]) -> float:
    """Return where a straight line through the innermost two hits meets the beam."""
    (r0, z0), (r1, z1) = points[:2]
    return z0 - r0 * (z1 - z0) / (r1 - r0)


def added(left: Any, right: Any) -> Any:
    """Add numbers, or lists or mappings of them, element by element."""
    if isinstance(left, dict):
        return {key: added(left[key], right[key]) for key in left}
    if isinstance(left, list):
        return list(map(operator.add, left, right))
    return left + right


def read(pattern: str) -> Any:
    """Read the one JSON file of that pattern."""
    (name,) = glob.glob(pattern)
    with open(name) as file:
        return json.load(file)


def write(name: str, content: object) -> None:
    """Write a JSON file."""
    with open(name, "w") as file:
        json.dump(content, file)


if __name__ == "__main__":
    main()
