"""What a bare wrapper is to be confined to, and how that is said on its command line: pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

NAMESPACES = ("user", "mnt", "pid")
_SEPARATOR = "--"


class Confinement(NamedTuple):
    """What to enter before anything else is done; all paths are real ones, without links."""

    namespaces: tuple[str, ...] = ()
    """Of one's own: ``user`` and ``mnt``, or these and ``pid``."""
    landlock: int = 0
    """ABI; 0: without."""
    write: tuple[str, ...] = ()
    """Directories that may be written."""
    hide: str = ""
    """The directory that may not be read."""
    read: tuple[str, ...] = ()
    """What is in it and may be read all the same."""

    def arguments(self) -> tuple[str, ...]:
        """Return words for a command line, with an end mark; `parsed` reads those before it."""
        return (
            *(f"namespace={kind}" for kind in self.namespaces),
            f"landlock={self.landlock}",
            *(f"write={path}" for path in self.write),
            f"hide={self.hide}",
            *(f"read={path}" for path in self.read),
            _SEPARATOR,
        )


class Held(NamedTuple):
    """What was entered: for the report to the agent, and for the payload's own domain."""

    namespaces: tuple[str, ...]
    landlock: int
    devices: tuple[str, ...]
    """What may be written beside the job's directories, as it is the job's own."""


def parsed(words: list[str]) -> Confinement:
    """Return the confinement that a command line asks for."""
    pairs = [word.partition("=")[::2] for word in words]

    def all_of(name: str) -> tuple[str, ...]:
        return tuple(value for key, value in pairs if key == name)

    return Confinement(
        namespaces=all_of("namespace"),
        landlock=int(all_of("landlock")[0]),
        write=all_of("write"),
        hide=all_of("hide")[0],
        read=all_of("read"),
    )


def below(paths: Iterable[str], directory: str) -> tuple[str, ...]:
    """Return the paths that are in a directory, each once, and none within another of them."""
    inside: list[str] = []
    for path in sorted({path for path in paths if path.startswith(f"{directory.rstrip('/')}/")}):
        if not any(path.startswith(f"{outer}/") for outer in inside):
            inside.append(path)
    return tuple(inside)


def beside(hidden: str, names_in: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """Yield what is beside the way from / to a directory: all but that directory, and the way.

    Landlock has no rule that takes away, so this is what is granted to hide a directory.
    ``names_in`` lists a directory; one that can't be listed has nothing that could be granted.
    """
    directory = ""
    for step in hidden.strip("/").split("/"):
        for name in sorted(names_in(directory or "/")):
            if name != step:
                yield f"{directory}/{name}"
        directory = f"{directory}/{step}"
