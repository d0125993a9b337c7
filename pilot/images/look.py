"""A look into an image: which directories it has that a job or a site's files could be bound on.

Only what is a directory on every step of the way counts. A symbolic link of a hostile image
could lead a mount point elsewhere, so none is followed, not even inside the image.

The image may lie on a network file system that hangs, so a helper process with a deadline does
the looking. A squashfs file, and the partition of a SIF file, is listed by `unsquashfs`, path by
path, and only the first lines are taken: it lists what it was asked for, and then all below it.
An empty directory's listing is 3 bytes long there. What can't be looked into is unknown, which
is an answer: each directory may be there, and a check will tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pilot.bounded_process import Finished, run_bounded
from pilot.containers.mounts import LOOKED_FOR, ImageTree
from pilot.containers.runtime import ImageForm
from pilot.images.sif import SIF_HEAD_BYTES, SifFileSystem, system_partition

_TIMEOUT_S = 10.0
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"}
_PATHS_MAX = 64
# Prints one word for each path: empty, full, link (or a file), absent.
_LOOK_INTO_DIRECTORY = """
image=$1; shift
[ -d "$image" ] && [ -x "$image" ] || exit 10
for path; do
  found=full; place=$image; rest=${path#/}
  while [ -n "$rest" ]; do
    place=$place/${rest%%/*}
    case $rest in */*) rest=${rest#*/} ;; *) rest= ;; esac
    if [ -L "$place" ]; then found=link; break; fi
    if [ ! -e "$place" ]; then found=absent; break; fi
    if [ ! -d "$place" ]; then found=link; break; fi
  done
  if [ $found = full ] && [ -r "$place" ] && [ -z "$(ls -A "$place" | head -n 1)" ]; then
    found=empty
  fi
  echo $found
done
"""
# Prints the first lines that unsquashfs has to say of each path, after a line "=".
_LOOK_INTO_SQUASHFS = """
image=$1; offset=$2; shift 2
command -v unsquashfs >/dev/null || exit 10
ulimit -v 4194304
for path; do
  echo =
  unsquashfs -o "$offset" -ll "$image" "${path#/}" 2>/dev/null | head -n 24
done
"""
_LISTED = re.compile(r"(\S)\S{9} \S+ +(\d+|\d+, *\d+) \S+ \S+ squashfs-root(.*)")
_EMPTY_BYTES = "3"
_GLOB = re.compile(r"[*?\[\]\\+@!(]")


async def look_into(
    path: str,
    form: ImageForm,
    *,
    directories: Sequence[str] = LOOKED_FOR,
    timeout_s: float = _TIMEOUT_S,
) -> ImageTree:
    """Look which of these directories an image has; wait for twice ``timeout_s`` at most.

    It never raises for what the image is or isn't: what can't be seen is unknown.
    """
    wanted = [place for place in dict.fromkeys(directories) if not _GLOB.search(place)]
    wanted = wanted[:_PATHS_MAX]
    if form is ImageForm.DIRECTORY:
        return _read_words(await _run(timeout_s, _LOOK_INTO_DIRECTORY, path, *wanted), wanted)
    offset = await _squashfs_offset(path, form, timeout_s)
    if offset is None:
        return ImageTree()
    finished = await _run(timeout_s, _LOOK_INTO_SQUASHFS, path, str(offset), *wanted)
    return _read_listings(finished, wanted)


async def _squashfs_offset(path: str, form: ImageForm, timeout_s: float) -> int | None:
    if form is ImageForm.SQUASHFS:
        return 0
    finished = await _run(timeout_s, f'exec head -c {SIF_HEAD_BYTES} "$1"', path)
    partition = system_partition(finished.stdout)
    if partition is None or partition.file_system is not SifFileSystem.SQUASHFS:
        return None
    return partition.offset


async def _run(timeout_s: float, script: str, *arguments: str) -> Finished:
    return await run_bounded(
        ("/bin/sh", "-c", script, "sh", *arguments),
        environment=_ENVIRONMENT,
        timeout_s=timeout_s,
        output_bytes_max=2 * SIF_HEAD_BYTES,
    )


def _read_words(finished: Finished, paths: Sequence[str]) -> ImageTree:
    words = finished.stdout.decode(errors="replace").split()
    if finished.exit_code != 0 or len(words) != len(paths):
        return ImageTree()
    return _tree(dict(zip(paths, words, strict=True)))


def _read_listings(finished: Finished, paths: Sequence[str]) -> ImageTree:
    listings: list[list[str]] = []
    for line in finished.stdout.decode(errors="replace").split("\n"):
        if line == "=":
            listings.append([])
        elif listings:
            listings[-1].append(line)
    if finished.exit_code != 0 or len(listings) != len(paths):
        return ImageTree()
    found = {path: _seen(lines, path) for path, lines in zip(paths, listings, strict=True)}
    return _tree(found) if any(found.values()) else ImageTree()


def _seen(lines: Sequence[str], path: str) -> str:
    """Return the word for a path from its listing; empty where there was none at all.

    Names that the image chose come after the path's own line, so they can't pretend to be it.
    """
    listed = [match.groups() for line in lines if (match := _LISTED.fullmatch(line))]
    for mode, size, name in listed:
        place = name.partition(" -> ")[0]
        if mode != "d":
            return "link"
        if place == path:
            return "empty" if size == _EMPTY_BYTES else "full"
    return "absent" if listed else ""


def _tree(found: dict[str, str]) -> ImageTree:
    return ImageTree(
        directories={
            path: word == "empty" for path, word in found.items() if word in ("empty", "full")
        },
        links=frozenset(path for path, word in found.items() if word == "link"),
    )
