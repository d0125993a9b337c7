#!/usr/bin/env python3
"""Adds up the histograms of several simulations: those in the list of the job's input data.

merge.py [wn.xml]
"""

from __future__ import annotations

import json
import operator
import os
import sys
import xml.etree.ElementTree as ET
from typing import Any


def main() -> None:
    """Write merged.json, and print the pT spectrum."""
    listed = ET.parse(sys.argv[1] if len(sys.argv) > 1 else "wn.xml")
    names = [os.path.basename(file.attrib["lfn"]) for file in listed.iter("file")]
    merged = read(names[0])
    for name in names[1:]:
        part = read(name)
        if part["bins"] != merged["bins"]:
            sys.exit(f"{name} has other bins than {names[0]}")
        for histogram, counts in part["counts"].items():
            merged["counts"][histogram] = list(
                map(operator.add, merged["counts"][histogram], counts)
            )
    with open("merged.json", "w") as file:
        json.dump(merged, file)
    tracks = sum(merged["counts"]["pt"])
    print(f"{tracks} tracks from {len(names)} files; pT in GeV:")
    spectrum = merged["counts"]["pt"][1:-1]
    for number, count in enumerate(spectrum[:20]):
        print(f"{number / 10:4.1f} {'#' * (60 * count // max(spectrum))}")


def read(name: str) -> Any:
    """Read a JSON file."""
    with open(name) as file:
        return json.load(file)


if __name__ == "__main__":
    main()
