"""What an image costs: 50 jobs that want one pull it once; what a job pays when it is here.

Run it as ``python -m tests.benchmarks.image_cache``. The registry is one of this process's own, on
the loopback interface, so the figures are the pilot's share and not a network's. A pull on its own
comes first: what 50 at once take beyond that is the price of waiting for each other.
"""
# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

from pilot.images import ImageStore
from tests.pilot.images.building import Image, file, image, tar
from tests.pilot.images.test_faulty_registry import Server, serving

MEBIBYTE = 1 << 20


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="The image cache under many jobs.")
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--files", type=int, default=2000)
    options = parser.parse_args()
    made = make(options.megabytes, options.files)
    packed = sum(map(len, made.blobs.values())) / MEBIBYTE
    print(f"an image of {options.megabytes} MiB in {options.files} files, {packed:.0f} MiB packed")
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(measure(Path(place), made, options.jobs))


def make(megabytes: int, files: int) -> Image:
    """Make an image of files that can't be packed well."""
    size = megabytes * MEBIBYTE // files
    return image(tar(file(f"d{n % 50}/f{n}", os.urandom(size)) for n in range(files)))


async def measure(place: Path, made: Image, jobs: int) -> None:
    """Measure a first pull, many at once, and what follows."""
    with serving(made) as server:
        reference = f"docker://{server.address}/x:1"
        alone = await timed(ImageStore(place / "alone"), reference, 1)
        before = len(server.asked)
        store = ImageStore(place / "shared")
        together = await timed(store, reference, jobs)
        report_pulls(server, made, before, jobs)
        print(f"one job alone:             {alone * 1e3:8.1f} ms")
        print(f"{jobs} jobs at once:           {together * 1e3:8.1f} ms")
        again = [await timed(store, reference, 1) for _ in range(200)]
        print(f"a job when it is here:     {statistics.median(again) * 1e3:8.2f} ms (median)")
        path = (await store.get(reference)).path
        again = [await timed(store, path, 1) for _ in range(200)]
        print(f"a job with a directory:    {statistics.median(again) * 1e3:8.2f} ms (median)")


def report_pulls(server: Server, made: Image, before: int, jobs: int) -> None:
    """Print how often the registry was asked, and for what."""
    asked = server.asked[before:]
    layers = sum("/blobs/" in path for path in asked)
    print(f"{jobs} jobs asked for {len(asked) - layers} manifest(s) and {layers} blob(s)")
    assert layers == len(made.blobs), "an image is pulled once"


async def timed(store: ImageStore, reference: str, jobs: int) -> float:
    """Return the seconds until all have the image."""
    begun = time.perf_counter()
    await asyncio.gather(*(store.get(reference) for _ in range(jobs)))
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
