"""The mount plan: what is bound where in a container, decided without looking at anything.

What a job is shown lies below one directory inside, the base:

    BASE/job/work, BASE/job/output, BASE/job/private    one mount each: a mount point can't be
    BASE/pilot            the bundle                    moved or replaced from inside, and what
    BASE/inputs/0 ...     files to stage in             else the agent keeps is not seen there

The base is /tmp where the runtime mounts a /tmp of the session's own: mount points are made in
there whatever layers the site allows. Where that can't be, a directory of the image takes its
place, and the job is *mapped*: a tree of empty mount points, prepared on the host, is bound over
it, read-only, and all else is bound into that tree. What the image has there is hidden.

Rules, each seen with Apptainer 1.4.5 (tests/pilot/containers/test_matrix.py repeats them):

- Its own /tmp is mounted if the image has a /tmp, or if a layer can make one. With neither
  overlay nor underlay an image without /tmp has none, and every bind below it is fatal.
- A mount point that is a symbolic link of the image is followed inside the image, never out of
  it: with /tmp -> mnt the job would lie on /mnt, and with a layer the launch fails. So a link,
  or whatever lies behind one, is never a base; nor is a site's directory bound there. (Its own
  /tmp Apptainer mounts through the link all the same: over /proc, the check finds out.)
- Of two binds to one destination the first silently wins. So they are refused.
- A bind whose source isn't there is fatal (formerly: silently skipped). So it is left out.
- Old versions mount in the order given, newer ones sort; parents come first here.
- A SIF that `apptainer build` made has /tmp, /var/tmp, /home and /root, whatever it was made of;
  directories and squashfs images are as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

from pilot.containers.runtime import Bind, Layers
from transport.errors import OperatorError, PilotError, UserError
from transport.messages import Record

TMP_BASE = "/tmp"  # noqa: S108 - inside the container, and the session's own
MAPPED_BASES = ("/mnt", "/media", "/srv", "/var/tmp", "/opt", "/home", "/root")  # noqa: S108 - an image's
"""Directories of an image that a job can do without, the first that is there counts."""
LOOKED_FOR = (TMP_BASE, *MAPPED_BASES, "/cvmfs")
"""What is worth knowing of any image."""
JOB_DIRECTORIES = ("work", "output", "private")
_RUNTIME_OWN = ("/", "/proc", "/sys", "/dev")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNTIDY = re.compile(r"//|/\.{1,2}(/|$)|.+/$")


class SourceKind(StrEnum):
    """What a look at a bind's source found; the value says why it can't be bound."""

    DIRECTORY = "is a directory"
    FILE = "is a file"
    MISSING = "doesn't exist on this node"
    UNREADABLE = "may not be read"
    SILENT = "is on a file system that doesn't answer"


class ImageTree(Record, frozen=True, kw_only=True):
    """What is known of an image's directories: by path, whether each is empty.

    They are directories all the way: none is a symbolic link, or behind one.
    """

    directories: Mapping[str, bool] | None = None
    """None: it couldn't be looked into, and each may be there."""
    links: frozenset[str] = frozenset()
    """Paths where there is something else: a link, a file, or either on the way."""

    def has(self, path: str) -> bool:
        """Return whether it has this directory, as far as is known."""
        return self.directories is None or path in self.directories

    def surely_has(self, path: str) -> bool:
        """Return whether it is known to have this directory."""
        return self.directories is not None and path in self.directories


class Wanted(Record, frozen=True, kw_only=True):
    """What a job is to see: host paths."""

    work: str
    output: str
    private: str
    bundle: str
    mount_tree: str
    """An empty directory of the attempt's, for mount points where the image has none."""
    inputs: Mapping[int, str] = {}
    """Files and directories to stage in, by their number."""
    site: tuple[Bind, ...] = ()
    """At fixed places inside, such as /cvmfs; left out where they can't be."""
    kinds: Mapping[str, SourceKind] = {}
    """What a look at inputs and site's sources found; one that isn't named is a directory."""


class MountPlan(Record, frozen=True, kw_only=True):
    """Where everything is, and the binds that bring it there, in the order to be made."""

    base: str
    binds: tuple[Bind, ...]
    directories: tuple[str, ...] = ()
    """Host directories to be made first: mount points."""
    files: tuple[str, ...] = ()
    """Host files to be made first: mount points of files among the inputs."""
    notes: tuple[str, ...] = ()
    """For the job's trace: what is not where it usually is, and why."""

    @property
    def work(self) -> str:
        """The work directory, inside."""
        return f"{self.base}/job/work"

    @property
    def output(self) -> str:
        """The output directory, inside."""
        return f"{self.base}/job/output"

    @property
    def private(self) -> str:
        """The private directory, inside."""
        return f"{self.base}/job/private"

    @property
    def bundle(self) -> str:
        """The bundle's root, inside."""
        return f"{self.base}/pilot"

    def input(self, number: int) -> str:
        """Return where an input is, inside."""
        return f"{self.base}/inputs/{number}"


def plan_mounts(wanted: Wanted, base: str, image: ImageTree, layers: Layers) -> MountPlan:
    """Return the plan for one of the possible bases, with layers that are known or hoped for.

    Raises `UserError` for an input and `OperatorError` for a site's bind that can't be expressed.
    """
    plan = MountPlan(base=base, binds=())
    notes = [_mapped_note(base, image)] if base != TMP_BASE else []
    binds = [
        Bind(source=wanted.work, destination=plan.work),
        Bind(source=wanted.output, destination=plan.output),
        Bind(source=wanted.private, destination=plan.private),
        Bind(source=wanted.bundle, destination=plan.bundle, read_only=True),
    ]
    for number, source in wanted.inputs.items():
        _check(source, f"input {number}", UserError)
        why = _unusable(wanted, source)
        if why:
            notes.append(f"input {number} is not shown in the container: {why}")
        else:
            binds.append(Bind(source=source, destination=plan.input(number), read_only=True))
    for bind in _in_order(wanted.site):
        why = _unusable(wanted, bind.source) or _no_place(bind, base, binds, image, layers)
        if why:
            notes.append(f"{bind.destination} is not to be seen in the container: {why}")
        else:
            binds.append(bind)
    mount_points: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    if base != TMP_BASE:
        mount_points = _mount_points(wanted, base, binds)
        binds.insert(0, Bind(source=wanted.mount_tree, destination=base, read_only=True))
    return MountPlan(
        base=base,
        binds=tuple(binds),
        directories=mount_points[0],
        files=mount_points[1],
        notes=tuple(notes),
    )


def make_mount_points(plan: MountPlan) -> None:
    """Make, on the host, the mount points that the plan binds into the image.

    Raises `OperatorError` where the disk can't take them.
    """
    try:
        for directory in plan.directories:
            Path(directory).mkdir(mode=0o755, parents=True, exist_ok=True)
        for file in plan.files:
            Path(file).touch()
    except OSError as error:
        raise OperatorError(
            f"Mount points for a container can't be made at {error.filename}: {error.strerror}."
        ) from error


# --- the steps of it -------------------------------------------------------------------------


def _mapped_note(base: str, image: ImageTree) -> str:
    hidden = (image.directories or {}).get(base) is False
    return (
        f"the job is mapped onto the image's {base}, as no mount point can be made in a /tmp here"
        + (f"; what the image has in {base} is hidden" if hidden else "")
    )


def _unusable(wanted: Wanted, source: str) -> str:
    kind = wanted.kinds.get(source, SourceKind.DIRECTORY)
    is_usable = kind in (SourceKind.DIRECTORY, SourceKind.FILE)
    return "" if is_usable else f"{source} {kind}"


def _check(path: str, what: str, by_whom: type[PilotError]) -> None:
    if not path.startswith("/") or _CONTROL.search(path):
        raise by_whom(
            f"The path {path!r} ({what}) can't be bound into a container: it must be absolute and "
            "free of control characters."
        )


def _in_order(site: Iterable[Bind]) -> list[Bind]:
    """Return a site's binds, parents first; refuse those that contradict each other."""
    by_destination: dict[str, Bind] = {}
    for bind in site:
        _check(bind.source, "a bind in the settings", OperatorError)
        _check(bind.destination, "a bind in the settings", OperatorError)
        if _UNTIDY.search(bind.destination):
            raise OperatorError(
                f"The settings bind to {bind.destination} in containers; write that path without "
                "'//', '.', '..' and a '/' at its end."
            )
        other = by_destination.setdefault(bind.destination, bind)
        if other != bind:
            raise OperatorError(
                f"The settings bind both {other.source} and {bind.source} to "
                f"{bind.destination} in containers; take one of them out."
            )
    return [by_destination[destination] for destination in sorted(by_destination)]


def _no_place(
    bind: Bind, base: str, others: Iterable[Bind], image: ImageTree, layers: Layers
) -> str:
    """Return why a site's bind can't be where it should, or nothing."""
    path = bind.destination
    if path in _RUNTIME_OWN:
        return "the runtime mounts its own there"
    if _is_below(base, path) or any(_is_below(path, f"{base}/{own}") for own in _OWN):
        return "the job itself is mounted there"
    if path in image.links:
        return "it is a link in the image, or behind one"
    is_nested = any(_is_below(path, place) for place in (base, *(o.destination for o in others)))
    if is_nested or layers.makes_mount_points or image.surely_has(path):
        return ""
    return "the image has no such directory, and neither overlay nor underlay can make it"


_OWN = ("job", "pilot", "inputs")


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


def _mount_points(
    wanted: Wanted, base: str, binds: Iterable[Bind]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the host directories and files that a mapped job's binds need in its tree."""
    directories, files = [wanted.mount_tree], []
    for bind in binds:
        if _is_below(bind.destination, base):
            place = wanted.mount_tree + bind.destination[len(base) :]
            if wanted.kinds.get(bind.source) is SourceKind.FILE:
                directories.append(place.rpartition("/")[0])
                files.append(place)
            else:
                directories.append(place)
    return tuple(dict.fromkeys(directories)), tuple(files)
