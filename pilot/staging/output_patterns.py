"""What an output's pattern finds in a work directory.

A pattern is a shell's: ``*`` doesn't cross a ``/`` nor match a leading dot, and finds nothing
in tmp unless the pattern says so. A name that is there is found as it stands, whatever is in
it that a pattern would mean something by; a directory is found by its very name only.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

from pilot.staging.trusted_files import check_wanted


def expand(
    root: str, parts: Sequence[str], stop: threading.Event, below: str = ""
) -> Iterator[str]:
    """Yield the paths that match, relative to ``root``, in the directory's own order."""
    first, *rest = parts
    for name, is_named in _names(f"{root}/{below}", first, is_root=not below, stop=stop):
        is_directory = os.path.isdir(f"{root}/{below}{name}")  # False, too, where nobody can tell
        if rest and is_directory:
            yield from expand(root, rest, stop, f"{below}{name}/")
        elif not rest and (is_named or not is_directory):
            yield below + name


def _names(
    directory: str, pattern: str, *, is_root: bool, stop: threading.Event
) -> Iterator[tuple[str, bool]]:
    """Yield each name that matches, and whether the pattern is that very name."""
    if os.path.lexists(f"{directory}/{pattern}"):
        yield pattern, True
        return
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            check_wanted(stop)
            is_hidden = entry.name.startswith(".") and not pattern.startswith(".")
            is_excluded = is_hidden or (is_root and entry.name == "tmp")
            if not is_excluded and fnmatchcase(entry.name, pattern):
                yield entry.name, False
