"""The mount plan: what is bound where in a container, decided without looking at anything.

What a job is shown lies below one directory inside, the base:

    BASE/job/work, BASE/job/output, BASE/job/private    one mount each: a mount point can't be
    BASE/pilot            the bundle                    moved or replaced from inside, and what
    BASE/inputs/0 ...     files to stage in             else the agent keeps is not seen there

The base is /tmp where the runtime mounts a /tmp of the session's own: mount points can be made
in there whatever the image has and whatever layers the site allows. Where it doesn't, and
can't make mount points anywhere else, a directory of the image takes that place: a prepared
tree of empty mount points is bound over it, and the rest into that tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from pilot.containers.runtime import Bind, Layers
from transport.errors import OperatorError
from transport.messages import Record

TMP_BASE = "/tmp"  # noqa: S108 - inside the container, and the session's own
MAPPED_BASES = ("/mnt", "/media", "/srv", "/var/tmp", "/opt", "/home", "/root")  # noqa: S108
"""Directories of an image that a job can do without, the first that is there counts."""
JOB_DIRECTORIES = ("work", "output", "private")


class ImageTree(Record, frozen=True, kw_only=True):
    """What is known of an image's directories: by path, whether each is empty."""

    directories: Mapping[str, bool] | None = None
    """None: it couldn't be looked into, and each may be there."""

    def has(self, path: str) -> bool:
        """Return whether it has this directory, as far as is known."""
        return self.directories is None or path in self.directories


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


class NoMountPoint(OperatorError):
    """Raised when nothing can be mounted into an image: the sentence names what is missing."""


def possible_bases(image: ImageTree, layers: Layers) -> tuple[str, ...]:
    """Return the directories that a job may be mounted on, the best first.

    Raises `NoMountPoint` when there is none.
    """
    tmp = (TMP_BASE,) if layers.has_own_tmp or layers.makes_mount_points else ()
    bases = (*tmp, *(base for base in MAPPED_BASES if image.has(base)))
    if not bases:
        raise NoMountPoint(
            f"the image has no directory to mount a job on (looked for {', '.join(MAPPED_BASES)}), "
            "and the runtime can make none: neither overlay nor underlay is to be had"
        )
    return bases


def plan_mounts(wanted: Wanted, base: str, image: ImageTree, layers: Layers) -> MountPlan:
    """Return the plan for one of the possible bases."""
    plan = MountPlan(base=base, binds=())
    binds = (
        Bind(source=wanted.work, destination=plan.work),
        Bind(source=wanted.output, destination=plan.output),
        Bind(source=wanted.private, destination=plan.private),
        Bind(source=wanted.bundle, destination=plan.bundle, read_only=True),
        *(
            Bind(source=source, destination=plan.input(number), read_only=True)
            for number, source in wanted.inputs.items()
        ),
        *wanted.site,
    )
    return msgspec.structs.replace(plan, binds=binds)


def make_mount_points(plan: MountPlan) -> None:
    """Make, on the host, the mount points that the plan binds into the image."""
    for directory in plan.directories:
        Path(directory).mkdir(mode=0o755, parents=True, exist_ok=True)
    for file in plan.files:
        Path(file).touch()
