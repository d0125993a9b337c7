"""Builds the wrapper's bundle in a process of its own: it can be killed where a disk hangs.

Run as a script by an interpreter with ``-I -S``:

    bundling.py DIRECTORY PUBLISHED LOCK_WAIT_S MODULE_PATH...

prints the bundle's paths, a line each: of the one in PUBLISHED, where that is named and has it,
else of the one in DIRECTORY, built if need be.

Whatever goes wrong is a sentence on stderr and exit code 1.
"""

import asyncio
import os
import sys
from pathlib import Path

LOOK_S = 2.0


def main() -> None:
    """Build, or find what is built already."""
    directory, published, lock_wait_s, *paths = sys.argv[1:]
    sys.path[:0] = [str(Path(__file__).parents[2]), *paths]
    from pilot.bundle import build_bundle, take_bundle
    from transport.errors import PilotError

    try:
        if published:
            taking = take_bundle(Path(directory), Path(published), os.environ, look_s=LOOK_S)
            bundle = asyncio.run(taking).bundle
        else:
            bundle = build_bundle(Path(directory), lock_wait_s=float(lock_wait_s))
    except PilotError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    for path in (bundle.root, bundle.python, bundle.loader, bundle.library_path, bundle.boot):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
