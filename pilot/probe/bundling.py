"""Builds the wrapper's bundle in a process of its own: it can be killed where a disk hangs.

Run as a script by an interpreter with ``-I -S``:

    bundling.py DIRECTORY LOCK_WAIT_S MODULE_PATH...    print the bundle's paths, a line each

Whatever goes wrong is a sentence on stderr and exit code 1.
"""

import sys
from pathlib import Path


def main() -> None:
    """Build, or find what is built already."""
    directory, lock_wait_s, *paths = sys.argv[1:]
    sys.path[:0] = [str(Path(__file__).parents[2]), *paths]
    from pilot.bundle import build_bundle
    from transport.errors import PilotError

    try:
        bundle = build_bundle(Path(directory), lock_wait_s=float(lock_wait_s))
    except PilotError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    for path in (bundle.root, bundle.python, bundle.loader, bundle.library_path, bundle.boot):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
