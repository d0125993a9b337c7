"""A look at what is to be bound: whether it is there, is a file, and can be looked at at all.

Inputs and a site's directories lie on network file systems, and a dead one hangs whoever touches
it, for ever; so a helper process with a deadline looks. A bind whose source isn't there would
end the whole launch, so the mount plan leaves it out and says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from pilot.bounded_process import run_bounded
from pilot.containers.mounts import SourceKind

_TIMEOUT_S = 5.0
_SILENT_MAX = 2
"""So many are waited for; when they are silent, no other is asked."""
_AT_ONCE = 500
"""Paths for one helper: they must fit its command line."""
# Prints a letter for each path, as soon as it knows it.
_LOOK = """
for path; do
  if [ ! -e "$path" ]; then echo m
  elif [ ! -r "$path" ]; then echo u
  elif [ -d "$path" ]; then [ -x "$path" ] && echo d || echo u
  else echo f
  fi
done
"""
_LETTERS = {
    "d": SourceKind.DIRECTORY,
    "f": SourceKind.FILE,
    "m": SourceKind.MISSING,
    "u": SourceKind.UNREADABLE,
}


async def look_at_sources(
    paths: Sequence[str], *, timeout_s: float = _TIMEOUT_S
) -> dict[str, SourceKind]:
    """Return what each path is; one whose file system doesn't answer is silent.

    Waits for ``timeout_s`` for each of the first two silent ones, and milliseconds for all
    others. A link counts as what it leads to, as it does for a bind.
    """
    silent = 0
    found: dict[str, SourceKind] = {}
    waiting = [path for path in dict.fromkeys(paths) if "\0" not in path]
    while waiting and silent < _SILENT_MAX:
        asked = waiting[:_AT_ONCE]
        finished = await run_bounded(
            ("/bin/sh", "-c", _LOOK, "sh", *asked), environment={}, timeout_s=timeout_s
        )
        answers = finished.stdout.decode().split()[: len(asked)]
        found |= {path: _LETTERS[letter] for path, letter in zip(asked, answers, strict=False)}
        if len(answers) < len(asked):
            found[asked[len(answers)]] = SourceKind.SILENT
            silent += 1
        waiting = [path for path in waiting if path not in found]
    return found | dict.fromkeys(waiting, SourceKind.SILENT)
